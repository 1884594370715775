//! The state of a run: the fold of its log, with what may happen next always at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::{AttemptStop, EventKind, SkipReason, StopReason};
use crate::graph::OnFailure;
use crate::{Event, Graph, Invocation, RunCreated, RunId, StepIndex, Time};

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Every critical step succeeded, or what failed was made good.
    Succeeded,
    /// A critical step failed.
    Failed,
    /// Somebody ended it.
    Canceled,
}

impl RunStatus {
    /// The word for it in the store, the CLI and the manual.
    pub fn word(self) -> &'static str {
        match self {
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed => "failed",
            RunStatus::Canceled => "canceled",
        }
    }
}

/// Where a step is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum StepStatus {
    /// It has not started: it waits for dependencies, its fallback's turn, a lock or a slot.
    Waiting,
    /// An attempt runs.
    Running,
    /// An attempt failed and another one is due later.
    Retrying,
    /// It ended well.
    Succeeded,
    /// It failed and no attempt follows.
    Failed,
    /// It will not run, by a condition or because of a failure elsewhere.
    Skipped,
    /// It will not run, or was ended, because the run stopped.
    Canceled,
    /// It does not run in this run and counts as succeeded: outside the slice, or kept from the run that this retries.
    Kept,
}

impl StepStatus {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// The word for it in the store, the CLI and the manual.
    pub fn word(self) -> &'static str {
        match self {
            StepStatus::Waiting => "waiting",
            StepStatus::Running => "running",
            StepStatus::Retrying => "retrying",
            StepStatus::Succeeded => "succeeded",
            StepStatus::Failed => "failed",
            StepStatus::Skipped => "skipped",
            StepStatus::Canceled => "canceled",
            StepStatus::Kept => "kept",
        }
    }

    /// Whether it can never change again.
    pub fn is_final(self) -> bool {
        match self {
            StepStatus::Waiting | StepStatus::Running | StepStatus::Retrying => false,
            StepStatus::Succeeded
            | StepStatus::Failed
            | StepStatus::Skipped
            | StepStatus::Canceled
            | StepStatus::Kept => true,
        }
    }
}

/// Where the run as a whole is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Submitted; it waits for its plan's locks.
    Created,
    /// Steps start and end.
    Running,
    /// Nothing new starts.
    Stopping {
        /// Why.
        reason: StopReason,
        /// When what still runs is told to end.
        until: Time,
        /// Whether what runs is ended without asking.
        hurry: bool,
    },
    /// Over.
    Completed(RunStatus),
}

/// An attempt in flight.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Running {
    /// Its number.
    pub attempt: u32,
    /// When its start was decided.
    pub started: Time,
    /// Whether it was told to end, why, and when it is ended without asking (`None`: it was).
    pub stopping: Option<(AttemptStop, Option<Time>)>,
}

/// What a step has used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tries {
    pub(crate) failed: u32,
    pub(crate) lost_in_a_row: u32,
}

/// Something that falls due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Deadline {
    Timeout(StepIndex),
    Kill(StepIndex),
}

/// What a settled step means for those that wait for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Go,
    Skip,
}

/// The steps of a run come in two parts: `steps`, then `finally`.
const PARTS: usize = 2;

/// The state of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct RunState {
    pub(crate) graph: Arc<Graph>,
    pub(crate) run: RunId,
    pub(crate) phase: Phase,
    pub(crate) has_plan_locks: bool,
    /// How the run would have ended without `finally`, once that has begun.
    pub(crate) outcome: Option<RunStatus>,
    /// Why the steps stopped before all of them had run, and why those in `finally` did.
    stop_reasons: [Option<StopReason>; PARTS],
    /// How many steps of each part are not settled for good.
    open: [u32; PARTS],
    sla_passed: Option<Time>,
    result_outputs: Map<String, Value>,
    /// The step whose final failure is to stop the run, and when it failed.
    pub(crate) abort: Option<(StepIndex, Time)>,
    created: Time,
    pub(crate) started: Option<Time>,
    completed: Option<Time>,
    status: Vec<StepStatus>,
    attempts: Vec<u32>,
    unsettled: Vec<u32>,
    counts: [u32; StepStatus::COUNT],
    /// Waiting for nothing but a slot.
    pub(crate) ready: BTreeSet<StepIndex>,
    /// Waiting for nothing but a slot and locks.
    pub(crate) ready_for_locks: BTreeMap<u32, BTreeSet<StepIndex>>,
    pub(crate) to_judge: BTreeSet<StepIndex>,
    pub(crate) to_skip: BTreeMap<StepIndex, SkipReason>,
    pub(crate) running: BTreeMap<StepIndex, Running>,
    pub(crate) deadlines: BTreeSet<(Time, Deadline)>,
    pub(crate) retrying: BTreeSet<(Time, StepIndex)>,
    retry_due: BTreeMap<StepIndex, Time>,
    pub(crate) tries: BTreeMap<StepIndex, Tries>,
    outputs: BTreeMap<StepIndex, Arc<Map<String, Value>>>,
    invocations: BTreeMap<StepIndex, Arc<Invocation>>,
    pub(crate) failed: BTreeSet<StepIndex>,
    /// Why each of them failed, in words.
    pub(crate) causes: BTreeMap<StepIndex, String>,
    skipped: BTreeMap<StepIndex, SkipReason>,
    fallbacks_due: BTreeSet<StepIndex>,
    pub(crate) cancel_from: u32,
}

impl RunState {
    /// The state right after `run_created`. `kept_outputs` are the outputs of the kept steps, read from the run that
    /// `created` names.
    pub fn new(
        run: RunId,
        graph: Arc<Graph>,
        at: Time,
        created: &RunCreated,
        kept_outputs: BTreeMap<StepIndex, Arc<Map<String, Value>>>,
    ) -> Self {
        let count = graph.len();
        let mut counts = [0; StepStatus::COUNT];
        counts[StepStatus::Waiting as usize] = count as u32;
        let mut state = Self {
            run,
            phase: Phase::Created,
            has_plan_locks: false,
            outcome: None,
            stop_reasons: [None, None],
            open: [0; PARTS],
            sla_passed: None,
            result_outputs: Map::new(),
            abort: None,
            created: at,
            started: None,
            completed: None,
            status: vec![StepStatus::Waiting; count],
            attempts: vec![0; count],
            unsettled: graph.steps().map(|step| graph.dependencies(step).len() as u32).collect(),
            counts,
            ready: BTreeSet::new(),
            ready_for_locks: BTreeMap::new(),
            to_judge: BTreeSet::new(),
            to_skip: BTreeMap::new(),
            running: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            retrying: BTreeSet::new(),
            retry_due: BTreeMap::new(),
            tries: BTreeMap::new(),
            outputs: kept_outputs,
            invocations: BTreeMap::new(),
            failed: BTreeSet::new(),
            causes: BTreeMap::new(),
            skipped: BTreeMap::new(),
            fallbacks_due: BTreeSet::new(),
            cancel_from: 0,
            graph: graph.clone(),
        };
        for step in graph.steps() {
            state.open[state.part_of(step)] += 1;
        }
        let kept = || created.kept.iter().flat_map(|(first, last)| *first..=*last).map(StepIndex);
        let kept = || kept().filter(|step| step.at() < count);
        for step in kept() {
            state.set(step, StepStatus::Kept);
        }
        for step in kept() {
            state.settle(step, Verdict::Go);
        }
        for step in graph.steps() {
            if state.may_begin(step) {
                state.enqueue(step);
            }
        }
        state
    }

    /// The place of a step's part in whatever is kept for each part.
    fn part_of(&self, step: StepIndex) -> usize {
        usize::from(self.graph.is_finally(step))
    }

    /// Whether the step waits and all its dependencies are settled.
    fn may_begin(&self, step: StepIndex) -> bool {
        self.unsettled[step.at()] == 0 && self.status[step.at()] == StepStatus::Waiting
    }

    /// Folds one event in. Events that the state does not allow are a bug of whoever decided them.
    pub fn apply(&mut self, event: &Event) {
        let at = event.at;
        match &event.kind {
            EventKind::RunCreated(_) => {}
            EventKind::RunStarted => {
                self.has_plan_locks = true;
                self.started.get_or_insert(at);
                if matches!(self.phase, Phase::Created) {
                    self.phase = Phase::Running;
                }
            }
            // Whoever found the dead owner's locks in the way may have freed them: they are to be taken again.
            EventKind::RunResumed { .. } => self.has_plan_locks = self.graph.plan_locks().names.is_empty(),
            EventKind::RunStopping { reason, until, hurry } => self.stop(reason, *until, *hurry),
            EventKind::RunFinally { status, outputs } => {
                self.result_outputs = outputs.clone();
                self.begin_finally(*status);
            }
            EventKind::RunSlaPassed { .. } => self.sla_passed = Some(at),
            EventKind::RunCompleted { status, outputs } => {
                self.phase = Phase::Completed(*status);
                self.completed = Some(at);
                self.result_outputs = outputs.clone();
            }
            EventKind::StepCondition { step } => {
                self.to_judge.remove(step);
                self.make_ready(*step);
            }
            EventKind::StepStarted { step, attempt, invocation } => {
                self.start(*step, *attempt, at);
                if let Some(invocation) = invocation {
                    self.invocations.insert(*step, Arc::new((**invocation).clone()));
                }
            }
            EventKind::StepStopping { step, reason, kill_at, .. } => {
                if let Some(running) = self.running.get_mut(step) {
                    if let Some((_, Some(due))) = running.stopping {
                        self.deadlines.remove(&(due, Deadline::Kill(*step)));
                    }
                    let reason = running.stopping.map_or(*reason, |(first, _)| first);
                    running.stopping = Some((reason, *kill_at));
                    if let Some(timeout) = self.graph.policy(*step).timeout {
                        self.deadlines.remove(&(running.started + timeout, Deadline::Timeout(*step)));
                    }
                    if let Some(due) = kill_at {
                        self.deadlines.insert((*due, Deadline::Kill(*step)));
                    }
                }
            }
            EventKind::StepSucceeded { step, end, .. } => {
                self.end_attempt(*step);
                if !end.outputs.is_empty() {
                    self.outputs.insert(*step, Arc::new(end.outputs.clone()));
                }
                self.finish(*step, StepStatus::Succeeded);
                self.settle(*step, Verdict::Go);
            }
            EventKind::StepFailed { step, last, end, .. } | EventKind::StepTimeout { step, last, end, .. } => {
                self.end_attempt(*step);
                if *last {
                    let is_timeout = matches!(event.kind, EventKind::StepTimeout { .. });
                    let why =
                        if is_timeout { "it took longer than its timeout".to_owned() } else { end.cause.to_string() };
                    self.causes.insert(*step, why);
                }
                let tries = self.tries.entry(*step).or_default();
                tries.failed += 1;
                tries.lost_in_a_row = 0;
                self.after_failure(*step, *last, at);
            }
            EventKind::StepLost { step, last, .. } => {
                self.end_attempt(*step);
                self.tries.entry(*step).or_default().lost_in_a_row += 1;
                if *last {
                    self.causes.insert(*step, "the process that drove the run died each time it ran".to_owned());
                }
                self.after_failure(*step, *last, at);
            }
            EventKind::StepCanceled { step, .. } => {
                self.end_attempt(*step);
                self.forget_plans_for(*step);
                self.cancel_from = self.cancel_from.max(step.0);
                self.finish(*step, StepStatus::Canceled);
            }
            EventKind::StepRetry { step, due, .. } => {
                // Also out of the time of a retry that came to nothing, because its locks were not to be had.
                self.forget_plans_for(*step);
                self.set(*step, StepStatus::Retrying);
                self.retrying.insert((*due, *step));
                self.retry_due.insert(*step, *due);
            }
            EventKind::StepSkipped { step, reason } => {
                self.forget_plans_for(*step);
                self.skipped.insert(*step, reason.clone());
                self.finish(*step, StepStatus::Skipped);
                let verdict = match reason {
                    SkipReason::Condition if !self.fallbacks_due.contains(step) => Verdict::Go,
                    SkipReason::FallbackNotNeeded { .. } => Verdict::Go,
                    SkipReason::Condition | SkipReason::Dependency { .. } => Verdict::Skip,
                };
                self.settle(*step, verdict);
            }
        }
    }

    /// Whether nothing new starts any more, or not yet.
    pub(crate) fn stops(&self) -> bool {
        self.abort.is_some() || !matches!(self.phase, Phase::Running)
    }

    /// Why the run stops or stopped before all its steps had run.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reasons.iter().flatten().next()
    }

    /// Why the part of the run in which the step stands stops or stopped before all its steps had run.
    pub fn stop_reason_for(&self, step: StepIndex) -> Option<&StopReason> {
        // Where `finally` never began, its steps did not run for the reason for which the others did not.
        let own = self.stop_reasons[self.part_of(step)].as_ref();
        own.or_else(|| if self.outcome.is_none() { self.stop_reason() } else { None })
    }

    /// The steps that are left have failed, stopped or succeeded; what runs whatever happens may begin.
    fn begin_finally(&mut self, outcome: RunStatus) {
        self.outcome = Some(outcome);
        self.phase = Phase::Running;
        self.abort = None;
        self.cancel_from = 0;
        let graph = self.graph.clone();
        for step in graph.steps().filter(|step| graph.is_finally(*step)) {
            if self.may_begin(step) {
                self.enqueue(step);
            }
        }
    }

    fn stop(&mut self, reason: &StopReason, until: Time, hurry: bool) {
        self.stop_reasons[usize::from(self.outcome.is_some())].get_or_insert_with(|| reason.clone());
        self.phase = match &self.phase {
            Phase::Stopping { reason: first, until: before, hurry: hurried } => {
                Phase::Stopping { reason: first.clone(), until: until.min(*before), hurry: hurry || *hurried }
            }
            Phase::Created | Phase::Running => Phase::Stopping { reason: reason.clone(), until, hurry },
            Phase::Completed(status) => Phase::Completed(*status),
        };
    }

    fn start(&mut self, step: StepIndex, attempt: u32, at: Time) {
        self.unready(step);
        if let Some(due) = self.retry_due.remove(&step) {
            self.retrying.remove(&(due, step));
        }
        self.attempts[step.at()] = attempt;
        self.set(step, StepStatus::Running);
        self.running.insert(step, Running { attempt, started: at, stopping: None });
        if let Some(timeout) = self.graph.policy(step).timeout {
            self.deadlines.insert((at + timeout, Deadline::Timeout(step)));
        }
    }

    fn end_attempt(&mut self, step: StepIndex) {
        let Some(running) = self.running.remove(&step) else { return };
        if let Some(timeout) = self.graph.policy(step).timeout {
            self.deadlines.remove(&(running.started + timeout, Deadline::Timeout(step)));
        }
        if let Some((_, Some(due))) = running.stopping {
            self.deadlines.remove(&(due, Deadline::Kill(step)));
        }
    }

    /// Takes the step out of every set of things to do.
    fn forget_plans_for(&mut self, step: StepIndex) {
        self.unready(step);
        self.to_judge.remove(&step);
        self.to_skip.remove(&step);
        if let Some(due) = self.retry_due.remove(&step) {
            self.retrying.remove(&(due, step));
        }
    }

    fn after_failure(&mut self, step: StepIndex, last: bool, at: Time) {
        if !last {
            // Where a `step_retry` follows, it takes the step out again until the retry is due.
            self.set(step, StepStatus::Waiting);
            self.make_ready(step);
            self.cancel_from = self.cancel_from.min(step.0);
            return;
        }
        self.forget_plans_for(step);
        self.failed.insert(step);
        self.finish(step, StepStatus::Failed);
        if !matches!(self.phase, Phase::Running) {
            return;
        }
        let policy = self.graph.policy(step);
        match policy.on_failure {
            OnFailure::Continue => self.settle(step, Verdict::Go),
            OnFailure::SkipDependents => self.settle(step, Verdict::Skip),
            // What else stands in `finally` is to run whatever happens.
            OnFailure::Abort if !policy.critical || self.graph.is_finally(step) => self.settle(step, Verdict::Skip),
            OnFailure::Abort => {
                self.abort.get_or_insert((step, at));
            }
            OnFailure::FallbackStep => match self.graph.fallback(step) {
                Some(fallback) => self.call_fallback(step, fallback),
                None => self.settle(step, Verdict::Skip),
            },
        }
    }

    fn call_fallback(&mut self, original: StepIndex, fallback: StepIndex) {
        match self.status(fallback) {
            StepStatus::Waiting => {
                self.fallbacks_due.insert(fallback);
                if self.unsettled[fallback.at()] == 0 && !self.to_skip.contains_key(&fallback) {
                    self.enqueue(fallback);
                }
            }
            StepStatus::Running
            | StepStatus::Retrying
            | StepStatus::Succeeded
            | StepStatus::Failed
            | StepStatus::Skipped
            | StepStatus::Canceled
            | StepStatus::Kept => self.settle(original, Verdict::Skip),
        }
    }

    /// Tells those that wait for `step` that they need not wait for it any more.
    fn settle(&mut self, step: StepIndex, verdict: Verdict) {
        let graph = self.graph.clone();
        let mut settled = step;
        loop {
            self.settle_one(&graph, settled, verdict);
            // A fallback settles the step in whose place it ran, and so on up the chain.
            match graph.original(settled) {
                Some(original) if self.fallbacks_due.remove(&settled) => {
                    if let Some(outputs) = self.outputs.get(&settled).cloned() {
                        self.outputs.insert(original, outputs);
                    }
                    settled = original;
                }
                _ => return,
            }
        }
    }

    fn settle_one(&mut self, graph: &Graph, step: StepIndex, verdict: Verdict) {
        if let Some(fallback) = graph.fallback(step)
            && self.status(fallback) == StepStatus::Waiting
        {
            self.forget_plans_for(fallback);
            self.to_skip.insert(fallback, SkipReason::FallbackNotNeeded { step });
        }
        for &dependent in graph.dependents(step) {
            let unsettled = &mut self.unsettled[dependent.at()];
            *unsettled -= 1;
            let free = *unsettled == 0;
            if self.status[dependent.at()] != StepStatus::Waiting {
                continue;
            }
            match verdict {
                Verdict::Skip => {
                    self.to_skip.entry(dependent).or_insert(SkipReason::Dependency { step });
                }
                Verdict::Go if free && !self.to_skip.contains_key(&dependent) => self.enqueue(dependent),
                Verdict::Go => {}
            }
        }
    }

    /// All dependencies of the step are settled.
    fn enqueue(&mut self, step: StepIndex) {
        if self.graph.is_finally(step) && self.outcome.is_none() {
            return;
        }
        if self.graph.original(step).is_some() && !self.fallbacks_due.contains(&step) {
            return;
        }
        if self.graph.is_conditional(step) {
            self.to_judge.insert(step);
        } else {
            self.make_ready(step);
        }
    }

    fn make_ready(&mut self, step: StepIndex) {
        match self.graph.lock_request(step) {
            Some(request) => self.ready_for_locks.entry(request).or_default().insert(step),
            None => self.ready.insert(step),
        };
    }

    fn unready(&mut self, step: StepIndex) {
        if self.ready.remove(&step) || self.ready_for_locks.is_empty() {
            return;
        }
        if let Some(request) = self.graph.lock_request(step)
            && let Some(steps) = self.ready_for_locks.get_mut(&request)
        {
            steps.remove(&step);
            if steps.is_empty() {
                self.ready_for_locks.remove(&request);
            }
        }
    }

    fn finish(&mut self, step: StepIndex, status: StepStatus) {
        self.set(step, status);
        if !self.invocations.is_empty() {
            self.invocations.remove(&step);
        }
    }

    fn set(&mut self, step: StepIndex, status: StepStatus) {
        let part = self.part_of(step);
        let slot = &mut self.status[step.at()];
        self.counts[*slot as usize] -= 1;
        self.counts[status as usize] += 1;
        if status.is_final() && !slot.is_final() {
            self.open[part] -= 1;
        }
        *slot = status;
    }

    /// The run.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The shape of the plan.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Where the run is.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// How the run ended, once it has.
    pub fn result(&self) -> Option<RunStatus> {
        match self.phase {
            Phase::Completed(status) => Some(status),
            Phase::Created | Phase::Running | Phase::Stopping { .. } => None,
        }
    }

    /// When the run was submitted.
    pub fn created_at(&self) -> Time {
        self.created
    }

    /// When its first step could start.
    pub fn started_at(&self) -> Option<Time> {
        self.started
    }

    /// When it ended.
    pub fn completed_at(&self) -> Option<Time> {
        self.completed
    }

    /// Where a step is.
    pub fn status(&self, step: StepIndex) -> StepStatus {
        self.status[step.at()]
    }

    /// The number of the step's latest attempt, 0 before the first.
    pub fn attempt(&self, step: StepIndex) -> u32 {
        self.attempts[step.at()]
    }

    /// How many steps are in this status.
    pub fn count(&self, status: StepStatus) -> u32 {
        self.counts[status as usize]
    }

    /// How many steps are not settled for good.
    pub fn unfinished(&self) -> u32 {
        self.open.iter().sum()
    }

    /// How many steps are to be settled before what comes next: `finally`, or the end.
    pub(crate) fn unfinished_now(&self) -> u32 {
        if self.finally_is_to_come() { self.open[0] } else { self.unfinished() }
    }

    /// Whether the steps in `finally` are to run later. A run that never started has nothing to clean up.
    pub(crate) fn finally_is_to_come(&self) -> bool {
        self.outcome.is_none() && self.graph.has_finally() && self.started.is_some()
    }

    /// Whether the step belongs to what goes on now, and not to a later part of the run.
    pub(crate) fn is_on(&self, step: StepIndex) -> bool {
        !(self.graph.is_finally(step) && self.finally_is_to_come())
    }

    /// How the run would have ended without `finally`, once that has begun.
    pub fn outcome(&self) -> Option<RunStatus> {
        self.outcome
    }

    /// When it was noted that the run takes longer than its plan's `sla`.
    pub fn sla_passed_at(&self) -> Option<Time> {
        self.sla_passed
    }

    /// Why the steps stopped before all had run, and why those in `finally` did.
    pub fn stop_reasons(&self) -> impl Iterator<Item = &StopReason> {
        self.stop_reasons.iter().flatten()
    }

    /// Whether only `finally` stopped before all of it had run.
    pub fn stop_reason_is_of_finally(&self) -> bool {
        matches!(self.stop_reasons, [None, Some(_)])
    }

    /// Why the step failed, in words.
    pub fn cause(&self, step: StepIndex) -> Option<&str> {
        self.causes.get(&step).map(String::as_str)
    }

    /// The values of the plan's outputs, once its steps have succeeded.
    pub fn result_outputs(&self) -> &Map<String, Value> {
        &self.result_outputs
    }

    /// The attempts in flight.
    pub fn running(&self) -> impl Iterator<Item = (StepIndex, &Running)> {
        self.running.iter().map(|(step, running)| (*step, running))
    }

    /// The step's attempt in flight.
    pub fn running_attempt(&self, step: StepIndex) -> Option<&Running> {
        self.running.get(&step)
    }

    /// The steps whose next attempt is due later, the soonest first.
    pub fn retrying(&self) -> impl Iterator<Item = (Time, StepIndex)> {
        self.retrying.iter().copied()
    }

    /// When the step's next attempt may start, where one failed before.
    pub fn retry_due(&self, step: StepIndex) -> Option<Time> {
        self.retry_due.get(&step).copied()
    }

    /// Why the step was skipped.
    pub fn skip_reason(&self, step: StepIndex) -> Option<&SkipReason> {
        self.skipped.get(&step)
    }

    /// Whether a step is the fallback of one that failed and has not settled yet.
    pub fn is_called_fallback(&self, step: StepIndex) -> bool {
        self.fallbacks_due.contains(&step)
    }

    /// The outputs that others see under the step's id.
    pub fn outputs(&self, step: StepIndex) -> Option<&Arc<Map<String, Value>>> {
        self.outputs.get(&step)
    }

    /// What the step does, where that depended on expressions; recorded when its first attempt started.
    pub fn invocation(&self, step: StepIndex) -> Option<&Arc<Invocation>> {
        self.invocations.get(&step)
    }

    /// The steps that failed for good, in the plan's order.
    pub fn failures(&self) -> impl Iterator<Item = StepIndex> {
        self.failed.iter().copied()
    }

    /// How many of the step's dependencies are not settled.
    pub fn unsettled(&self, step: StepIndex) -> u32 {
        self.unsettled[step.at()]
    }

    /// Whether the failure of this step alone makes the run a failed one.
    pub fn failure_counts(&self, step: StepIndex) -> bool {
        let policy = self.graph.policy(step);
        if !policy.critical {
            return false;
        }
        match policy.on_failure {
            OnFailure::Continue => false,
            OnFailure::Abort | OnFailure::SkipDependents => true,
            OnFailure::FallbackStep => !self.made_good(step),
        }
    }

    /// Whether a fallback of the step, or a fallback of that one and so on, succeeded or may fail freely.
    fn made_good(&self, step: StepIndex) -> bool {
        let mut step = step;
        // A chain of fallbacks has no cycle: the plan's checker refuses one.
        while let Some(fallback) = self.graph.fallback(step) {
            match self.status(fallback) {
                StepStatus::Succeeded => return true,
                StepStatus::Failed => match self.graph.policy(fallback).on_failure {
                    OnFailure::Continue => return true,
                    OnFailure::FallbackStep => step = fallback,
                    OnFailure::Abort | OnFailure::SkipDependents => return false,
                },
                StepStatus::Waiting
                | StepStatus::Running
                | StepStatus::Retrying
                | StepStatus::Skipped
                | StepStatus::Canceled
                | StepStatus::Kept => return false,
            }
        }
        false
    }
}
