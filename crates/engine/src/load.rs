//! From what is kept back to runs: for going on, for looking, for running again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baton_core::operation::{self, Operation, Situation};
use baton_core::state::Running;
use baton_core::{Epoch, Event, Graph, RunCreated, RunId, RunState, StepIndex, StepStatus, Time};
use baton_lang::{Compiled, Recorded, Source};
use baton_store::{Filter, OwnerRow, RunRow, Store};
use serde_json::{Map, Value};

use crate::EngineError;
use crate::hands::{Left, Stays};

/// A chain of retries is followed this far back for the outputs of kept steps.
const RETRY_CHAIN_LIMIT: u32 = 256;

/// Everything that is needed to make a run.
#[derive(Debug)]
pub struct Submission {
    /// The plan's text.
    pub source: Source,
    /// The plan, checked, with its variables filled in.
    pub compiled: Compiled,
    /// What is fixed from now on.
    pub created: RunCreated,
}

/// A run as its log tells it.
#[derive(Debug)]
pub struct Loaded {
    /// The plan's text.
    pub source: Source,
    /// The plan.
    pub plan: Compiled,
    /// What was fixed when the run was submitted.
    pub created: RunCreated,
    /// The state after the last event on disk.
    pub state: RunState,
    /// The number of that event.
    pub seq: u64,
}

/// A run to be looked at.
#[derive(Debug)]
pub struct Inspection {
    /// Its row.
    pub row: RunRow,
    /// Its plan and state.
    pub loaded: Loaded,
    /// Who holds and wants which lock.
    pub locks: baton_core::lock::LockTable,
    /// The live process that drives it.
    pub owner: Option<OwnerRow>,
    /// What can be done to it.
    pub situation: Situation,
}

/// The actions that plans may use, each with the JSON Schema of its input.
pub fn known_actions() -> BTreeMap<String, Value> {
    baton_actions::catalog().into_iter().map(|action| (action.kind.to_owned(), (action.schema)())).collect()
}

/// The folder of a plan: relative to it a plan finds what belongs to it.
pub(crate) fn plan_dir(created: &RunCreated) -> String {
    match Path::new(&created.plan_path).parent() {
        Some(parent) if created.plan_path != "-" => parent.display().to_string(),
        _ => created.cwd.clone(),
    }
}

/// Reads a run back: its plan as it was pinned, and its state by the fold of its log.
pub fn load(store: &dyn Store, run: RunId) -> Result<Loaded, EngineError> {
    load_with_depth(store, run, 0)
}

fn load_with_depth(store: &dyn Store, run: RunId, depth: u32) -> Result<Loaded, EngineError> {
    let (at, created) = store.created(run)?;
    let text = store.plan_text(&created.plan_sha256)?;
    let source = Source::new(created.plan_path.clone(), text);
    let plan = compile_pinned(run, &source, &created)?;
    let mut graph = plan.graph.clone();
    if let Some(limit) = created.max_concurrency {
        Arc::make_mut(&mut graph).set_max_concurrency(limit);
    }
    let kept = kept_outputs_at(store, &created, &graph, depth)?;
    let mut state = RunState::new(run, graph.clone(), at, &created, kept);
    let seq = store.replay(run, &graph, &mut |event: Event| state.apply(&event))?;
    Ok(Loaded { source, plan, created, state, seq })
}

fn compile_pinned(run: RunId, source: &Source, created: &RunCreated) -> Result<Compiled, EngineError> {
    let invalid = |problems: Vec<baton_lang::Problem>| EngineError::PinnedPlan {
        run,
        problems: problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; "),
    };
    let parsed = baton_lang::parse(source, &known_actions());
    let Some(plan) = parsed.plan else { return Err(invalid(parsed.problems)) };
    let recorded = Recorded { vars: created.vars.clone(), inputs: created.inputs.clone(), kept: created.kept.clone() };
    plan.compile_recorded(recorded).map_err(invalid)
}

/// The outputs of the steps that a new run keeps, from the run that it names.
pub(crate) fn kept_outputs(
    store: &dyn Store,
    created: &RunCreated,
    graph: &Graph,
) -> Result<BTreeMap<StepIndex, Arc<Map<String, Value>>>, EngineError> {
    kept_outputs_at(store, created, graph, 0)
}

fn kept_outputs_at(
    store: &dyn Store,
    created: &RunCreated,
    graph: &Graph,
    depth: u32,
) -> Result<BTreeMap<StepIndex, Arc<Map<String, Value>>>, EngineError> {
    let mut outputs = BTreeMap::new();
    let Some(from) = created.outputs_from else { return Ok(outputs) };
    if depth >= RETRY_CHAIN_LIMIT || created.kept.is_empty() {
        return Ok(outputs);
    }
    let before = load_with_depth(store, from, depth + 1)?;
    let kept = created.kept.iter().flat_map(|(first, last)| *first..=*last).map(StepIndex);
    for step in kept.filter(|step| step.at() < graph.len()) {
        let there = before.state.graph().find(graph.id(step));
        if let Some(found) = there.and_then(|there| before.state.outputs(there)) {
            outputs.insert(step, found.clone());
        }
    }
    Ok(outputs)
}

/// The live owner of a run.
pub fn live_owner(store: &dyn Store, row: &RunRow) -> Result<Option<OwnerRow>, EngineError> {
    let Some(epoch) = row.owner else { return Ok(None) };
    if row.phase.is_terminal() {
        return Ok(None);
    }
    Ok(store.owners()?.into_iter().find(|owner| owner.epoch == epoch && owner.alive))
}

/// Where a run is, as far as operations care.
pub fn situation(row: &RunRow, owner: Option<&OwnerRow>) -> Situation {
    match (row.phase, owner) {
        (baton_store::RunPhase::Ended(status), _) => Situation::Over(status),
        (_, None) => Situation::Abandoned,
        (baton_store::RunPhase::Stopping, Some(_)) => Situation::Stopping,
        (baton_store::RunPhase::Waiting | baton_store::RunPhase::Running, Some(_)) => Situation::Live,
    }
}

/// Looks at a run without touching it.
pub fn inspect(store: &dyn Store, run: RunId) -> Result<Inspection, EngineError> {
    let row = store.run(run)?;
    let owner = live_owner(store, &row)?;
    let situation = situation(&row, owner.as_ref());
    let loaded = load(store, run)?;
    let mut locks = baton_core::lock::LockTable::default();
    store.follow_locks(&mut locks, 0)?;
    Ok(Inspection { row, loaded, locks, owner, situation })
}

/// The newest run there is.
pub fn latest_run(store: &dyn Store) -> Result<Option<RunId>, EngineError> {
    let rows = store.runs(&Filter { limit: Some(1), ..Filter::default() })?;
    Ok(rows.first().map(|row| row.run))
}

/// A new run of what did not succeed in `run`. `from` names a step that runs again with everything that depends on
/// it, whatever became of it.
pub fn prepare_retry(store: &dyn Store, run: RunId, from: Option<&str>) -> Result<Submission, EngineError> {
    let Inspection { loaded, situation, .. } = inspect(store, run)?;
    operation::check(Operation::Retry, run, situation)?;
    let Loaded { source, plan, created, state, .. } = loaded;
    let graph = state.graph().clone();
    let mut again = vec![false; graph.len()];
    if let Some(from) = from {
        let Some(step) = graph.find(from) else {
            return Err(EngineError::UnknownStep { run, step: from.to_owned() });
        };
        mark_with_dependents(&graph, step, &mut again);
    }
    let is_good = |step: StepIndex| matches!(state.status(step), StepStatus::Succeeded | StepStatus::Kept);
    // A step that had to run again has to be followed by all that depends on it: what they did rested on it.
    for step in graph.steps().filter(|step| !is_good(*step) && state.status(*step) != StepStatus::Skipped) {
        mark_with_dependents(&graph, step, &mut again);
    }
    if !again.contains(&true) {
        return Err(EngineError::NothingToRetry { run });
    }
    // What stands in `finally` belongs to each run anew.
    let keeps = |step: &StepIndex| is_good(*step) && !again[step.at()] && !graph.is_finally(*step);
    let kept = ranges(graph.steps().filter(keeps));
    let created = RunCreated {
        retry_of: Some(run),
        outputs_from: (!kept.is_empty()).then_some(run),
        kept,
        idempotency_key: None,
        slice: match from {
            Some(step) => serde_json::json!({ "retry_from": step }),
            None => Value::Null,
        },
        ..created
    };
    Ok(Submission { source, compiled: plan, created })
}

fn mark_with_dependents(graph: &Graph, step: StepIndex, marks: &mut [bool]) {
    let mut open = vec![step];
    while let Some(step) = open.pop() {
        if !std::mem::replace(&mut marks[step.at()], true) {
            open.extend(graph.dependents(step));
            open.extend(graph.fallback(step));
        }
    }
}

/// Places as stretches of first and last.
fn ranges(steps: impl Iterator<Item = StepIndex>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for StepIndex(step) in steps {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == step => *last = step,
            _ => ranges.push((step, step)),
        }
    }
    ranges
}

/// Tells which processes of a run were left on purpose: those of `detach` steps that are over. `prefix` is how the
/// names of the run's attempts begin.
pub(crate) fn stays(state: &RunState, plan: &Compiled, prefix: String) -> Stays {
    let steps = state.graph().steps().filter(|step| plan.detach(*step));
    let detached: BTreeMap<String, u32> = steps
        .map(|step| {
            (state.graph().id(step).to_owned(), state.running_attempt(step).map_or(0, |running| running.attempt))
        })
        .collect();
    Box::new(move |attempt| {
        let named = attempt.strip_prefix(&prefix).and_then(|name| name.rsplit_once('/'));
        named.is_some_and(|(step, number)| detached.get(step).is_some_and(|in_flight| number.parse() != Ok(*in_flight)))
    })
}

/// What the dead owner of a run may have left running. Of a run that cannot be read nothing is known to be in flight,
/// and nothing stays.
pub(crate) fn left_behind(store: &dyn Store, run: RunId, owner: Epoch, prefix: String) -> Left {
    let Ok(Loaded { state, plan, .. }) = load(store, run) else {
        let grace = Duration::ZERO;
        return Left { prefix, owner, in_flight: BTreeSet::new(), grace, stays: Box::new(|_| false) };
    };
    let name =
        |(step, running): (StepIndex, &Running)| format!("{prefix}{}/{}", state.graph().id(step), running.attempt);
    let in_flight = state.running().map(name).collect();
    let grace = survivor_grace(&state);
    let stays = stays(&state, &plan, prefix.clone());
    Left { prefix, owner, in_flight, grace, stays }
}

/// How long survivors get: what their steps would get.
pub(crate) fn survivor_grace(state: &RunState) -> Duration {
    let graces = state.running().map(|(step, _)| state.graph().policy(step).stop_grace.0);
    Duration::from_millis(graces.max().unwrap_or(0))
}

/// How a request to cancel a run goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CancelRoute {
    /// Its owner has been told; the request is on disk.
    Told {
        /// The owner's process.
        owner: OwnerRow,
    },
    /// It has no living owner: whoever asks has to take it over to cancel it.
    TakeOver,
}

/// Asks for the end of a run. When this returns the request is on disk.
pub fn request_cancel(
    store: &mut dyn Store,
    run: RunId,
    by: &str,
    hurry: bool,
    now: Time,
) -> Result<CancelRoute, EngineError> {
    let row = store.run(run)?;
    let owner = live_owner(store, &row)?;
    operation::check(Operation::Cancel, run, situation(&row, owner.as_ref()))?;
    let Some(owner) = owner else { return Ok(CancelRoute::TakeOver) };
    store.push_command(run, &baton_store::Command::Cancel { by: by.to_owned(), hurry }, now)?;
    Ok(CancelRoute::Told { owner })
}
