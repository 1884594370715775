//! Starting runs, making them go on, and ending them.

use std::collections::BTreeMap;

use baton_core::{Log, RunCreated, RunId, RunStatus};
use baton_engine::{CancelRoute, Clock, Drive, LocalEngine, Submission};
use baton_store::{Access, SqliteStore, Store, abandoned};
use serde_json::json;

use super::{data_dir, here, of_engine, of_store, open_to_change, plans, run_or_latest, tell_abandoned, user};
use crate::arguments::{Answer, Given};
use crate::escape;
use crate::face::Face;
use crate::failure::{EXIT_CANCELED, EXIT_FAILED, EXIT_LEFT, EXIT_OK, EXIT_REFUSED, Failure};
use crate::show::{Show, json as event_lines};
use crate::words;

/// `baton run`.
pub fn run(given: Given<'_>, face: &mut Face) -> Answer {
    let plan = plans::read_and_compile(given, face)?;
    if given.flag("dry-run") {
        return plans::dry_run(&plan, face);
    }
    let store = SqliteStore::open(&data_dir(given)?, Access::Write).map_err(of_store)?;
    tell_abandoned(&store, face, None)?;
    let outputs_from = match given.number("outputs-from") {
        Some(number) => Some(run_or_latest(&store, Some(number))?),
        None => None,
    };
    let mut labels: BTreeMap<String, String> = plan.compiled.labels();
    labels.extend(given.pairs("label"));
    let created = RunCreated {
        plan_id: plan.compiled.plan_id().to_owned(),
        plan_sha256: baton_store::sha256_hex(plan.source.text.as_bytes()),
        plan_path: plan.path,
        cwd: here()?.display().to_string(),
        vars: plan.compiled.vars.clone(),
        inputs: plan.compiled.inputs.clone(),
        labels,
        idempotency_key: given.text("idempotency-key").map(str::to_owned),
        max_concurrency: jobs(given),
        retry_of: None,
        kept: plan.compiled.kept.clone(),
        outputs_from,
        slice: slice(given),
        submitted_by: user(),
    };
    start(store, Submission { source: plan.source, compiled: plan.compiled, created }, face)
}

/// `baton retry`.
pub fn retry(given: Given<'_>, face: &mut Face) -> Answer {
    let store = open_to_change(given)?;
    tell_abandoned(&store, face, None)?;
    let run = run_or_latest(&store, given.number("run"))?;
    let mut submission = baton_engine::prepare_retry(&store, run, given.text("from")).map_err(of_engine)?;
    if let Some(jobs) = jobs(given) {
        submission.created.max_concurrency = Some(jobs);
    }
    submission.created.submitted_by = user();
    start(store, submission, face)
}

/// `baton resume`.
pub fn resume(given: Given<'_>, face: &mut Face) -> Answer {
    let store = open_to_change(given)?;
    let runs: Vec<RunId> = match given.number("run") {
        Some(number) => {
            let run = run_or_latest(&store, Some(number))?;
            tell_abandoned(&store, face, Some(run))?;
            vec![run]
        }
        None => abandoned(&store).map_err(of_store)?.iter().map(|row| row.run).collect(),
    };
    if runs.is_empty() {
        if face.is_json() {
            face.document(&json!({ "resumed": [] }));
        } else {
            face.text("no run is abandoned: there is nothing to resume\n");
        }
        return Ok(EXIT_OK);
    }
    let mut engine = engine(store)?;
    let mut resumed = Vec::new();
    let mut refused = None;
    for run in runs {
        match engine.resume(run) {
            Ok(met) => resumed.push((run, met)),
            Err(error) => {
                // One run that cannot go on keeps none of the others from it.
                if let Some(failure) = refused.replace(of_engine(error)) {
                    face.failure(&failure);
                }
            }
        }
    }
    let exit = if resumed.is_empty() {
        EXIT_OK
    } else {
        let mut show = Show::new(face, resumed.len() > 1);
        for (run, met) in &resumed {
            let survivors = match met.survivors.len() {
                0 => String::new(),
                _ => format!("; ended what was still running: {}", met.survivors.join(", ")),
            };
            let lost = words::counted(met.lost as u64, "step was", "steps were");
            show.say(&escape::one_line(&format!("run {run} goes on: {lost} in flight{survivors}")));
        }
        drive(&mut engine, show)?
    };
    match refused {
        Some(failure) => Err(failure),
        None => Ok(exit),
    }
}

/// `baton cancel`.
pub fn cancel(given: Given<'_>, face: &mut Face) -> Answer {
    let mut store = open_to_change(given)?;
    let run = run_or_latest(&store, given.number("run"))?;
    tell_abandoned(&store, face, Some(run))?;
    let (by, hurry) = (user(), given.flag("hurry"));
    let now = Clock::start().now();
    match baton_engine::request_cancel(&mut store, run, &by, hurry, now).map_err(of_engine)? {
        CancelRoute::Told { owner } => {
            if face.is_json() {
                face.document(&json!({ "run": run, "told": { "pid": owner.info.pid, "host": owner.info.host } }));
            } else if !face.quiet {
                let pid = owner.info.pid;
                face.text(&format!("run {run} is asked to end; process {pid} drives it and has been told\n"));
            }
            Ok(EXIT_OK)
        }
        CancelRoute::TakeOver => {
            let mut engine = engine(store)?;
            engine.resume(run).map_err(of_engine)?;
            engine.cancel(run, &by, hurry);
            if face.is_json() {
                let drive = engine.drive(&mut baton_engine::Nobody).map_err(of_engine)?;
                let word = match (drive, engine.result(run)) {
                    (Drive::Done, Some(status)) => status.word(),
                    (Drive::Done, None) | (Drive::Abandoned { .. }, _) => "left",
                };
                face.document(&json!({ "run": run, "status": word }));
                return Ok(canceled(engine.result(run)));
            }
            // Nobody else ends it, and its `finally` runs from here.
            let mut show = Show::new(face, false);
            show.say(&format!("run {run} was abandoned; it is ended from here"));
            drive(&mut engine, show)?;
            Ok(canceled(engine.result(run)))
        }
    }
}

/// The exit code of a cancel: that the run is over is what was asked for, whatever it came to.
fn canceled(result: Option<RunStatus>) -> u8 {
    if result.is_some() { EXIT_OK } else { EXIT_LEFT }
}

fn engine(store: SqliteStore) -> Result<LocalEngine, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::new("no-program-path", EXIT_REFUSED, "this program cannot tell where it is installed")
            .because(&error)
            .hint("start it by its full path")
    })?;
    LocalEngine::open(store, program).map_err(of_engine)
}

fn jobs(given: Given<'_>) -> Option<u32> {
    given.number("jobs").map(|jobs| u32::try_from(jobs).unwrap_or(u32::MAX))
}

/// The slice as it was asked for, for people to read.
fn slice(given: Given<'_>) -> serde_json::Value {
    let mut slice = serde_json::Map::new();
    for name in ["from", "to", "only", "tag"] {
        let words = given.texts(name);
        if !words.is_empty() {
            slice.insert(name.to_owned(), words.into());
        }
    }
    if slice.is_empty() { serde_json::Value::Null } else { slice.into() }
}

/// Puts a run on disk and drives it to its end.
fn start(store: SqliteStore, submission: Submission, face: &mut Face) -> Answer {
    let mut engine = engine(store)?;
    let steps = submission.compiled.graph.len() as u64;
    let limit = submission.created.max_concurrency.unwrap_or(submission.compiled.graph.max_concurrency());
    let plan_id = submission.created.plan_id.clone();
    let retry_of = submission.created.retry_of;
    let plan_sha256 = submission.created.plan_sha256.clone();
    let submitted = engine.submit(submission).map_err(of_engine)?;
    let run = submitted.run;
    if submitted.existing {
        return existing(&engine, run, &plan_sha256, face);
    }
    if face.is_json() {
        for event in engine.store().events(Log::Run(run), 0, 1).map_err(of_store)? {
            face.line(&event_lines::line(run, event));
        }
    }
    let mut show = Show::new(face, false);
    let of = retry_of.map(|run| format!(", again what did not succeed in run {run}")).unwrap_or_default();
    show.say(&escape::one_line(&format!(
        "run {run} {plan_id}: {}, at most {limit} at once{of}",
        words::counted(steps, "step", "steps")
    )));
    drive(&mut engine, show)
}

/// The answer to a second submission under the same key.
fn existing(engine: &LocalEngine, run: RunId, plan_sha256: &str, face: &mut Face) -> Answer {
    let row = engine.store().run(run).map_err(of_store)?;
    let is_same_plan = row.plan_sha256 == plan_sha256;
    let owner = baton_engine::live_owner(engine.store(), &row).map_err(of_engine)?;
    let situation = baton_engine::situation(&row, owner.as_ref());
    let word = situation.word();
    if face.is_json() {
        face.document(&json!({ "run": run, "existing": true, "same_plan": is_same_plan, "status": word }));
    } else {
        face.text(&format!("run {run} was submitted with this key before and is {word}: see `baton status {run}`\n"));
        if !is_same_plan {
            face.note("note: the plan has changed since; for a run of what it says now, take another key");
        }
    }
    let result = match row.phase {
        baton_store::RunPhase::Ended(status) => Some(status),
        baton_store::RunPhase::Waiting | baton_store::RunPhase::Running | baton_store::RunPhase::Stopping => None,
    };
    Ok(exit_code([result].into_iter()))
}

/// Drives what the engine has, and shows it.
fn drive(engine: &mut LocalEngine, mut show: Show<'_>) -> Answer {
    let runs: Vec<RunId> = engine.runs().map(|view| view.run).collect();
    let outcome = engine.drive(&mut show);
    for view in engine.runs() {
        show.summarize(&view);
    }
    show.finish();
    outcome.map_err(of_engine)?;
    Ok(exit_code(runs.iter().map(|run| engine.result(*run))))
}

/// One exit code for the ends of runs; `None`: it was left. The worst one counts.
fn exit_code(results: impl Iterator<Item = Option<RunStatus>>) -> u8 {
    let codes: Vec<u8> = results
        .map(|result| match result {
            Some(RunStatus::Succeeded) => EXIT_OK,
            Some(RunStatus::Failed) => EXIT_FAILED,
            Some(RunStatus::Canceled) => EXIT_CANCELED,
            None => EXIT_LEFT,
        })
        .collect();
    [EXIT_FAILED, EXIT_CANCELED, EXIT_LEFT].into_iter().find(|code| codes.contains(code)).unwrap_or(EXIT_OK)
}
