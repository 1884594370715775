//! The end of a run in words: how it went, what failed and why, and what to do next.

use baton_core::event::StopReason;
use baton_core::{Millis, RunState, RunStatus, StepIndex, StepStatus, why};

use serde_json::Value;

use super::lines::{Style, Tone};
use crate::escape;
use crate::words;

/// Ids that are listed in one line; the rest is counted.
const MAX_IDS: usize = 5;
/// Of an output's value so much is shown; `baton status --output json` has all of it.
const MAX_OUTPUT_COLUMNS: usize = 200;

/// A failure that was seen, with what the summary says about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The step.
    pub step: StepIndex,
    /// The attempt that was the last.
    pub attempt: u32,
    /// Why it failed.
    pub cause: String,
    /// How long the attempt took.
    pub duration: Option<Millis>,
    /// What it printed last.
    pub last_lines: Vec<String>,
}

/// The summary of a run that is over, or is left where it was.
pub fn render(state: &RunState, plan_id: &str, told: &[Told], now: baton_core::Time, style: Style) -> String {
    let run = state.run();
    let plan_id = escape::one_line(plan_id);
    let took = state.completed_at().unwrap_or(now).since(state.started_at().unwrap_or(state.created_at()));
    let (tone, verb) = match state.result() {
        Some(RunStatus::Succeeded) => (Tone::Good, "succeeded in"),
        Some(RunStatus::Failed) => (Tone::Bad, "failed after"),
        Some(RunStatus::Canceled) => (Tone::Again, "canceled after"),
        None => (Tone::Again, "left unfinished after"),
    };
    let head = format!("{} run {run} {plan_id} {verb} {}", style.symbol(tone), words::duration(took));
    let mut out = format!("{}: {}\n", style.paint(tone, &head), counts(state));
    for reason in stops(state) {
        out += &format!("  {reason}\n");
    }
    if state.sla_passed_at().is_some()
        && let Some(sla) = state.graph().sla()
    {
        out += &format!("  late: it took longer than its `sla` of {}\n", words::duration(sla));
    }
    for (name, value) in state.result_outputs() {
        out += &format!("  {}\n", output(name, value));
    }
    let (counting, tolerated): (Vec<StepIndex>, Vec<StepIndex>) =
        state.failures().partition(|step| state.failure_counts(*step));
    for (steps, is_tolerated) in [(&counting, false), (&tolerated, true)] {
        let (known, other): (Vec<StepIndex>, Vec<StepIndex>) =
            steps.iter().partition(|step| told.iter().any(|told| told.step == **step));
        for told in told.iter().filter(|told| known.contains(&told.step)) {
            out += &failure(state, told, is_tolerated, style);
        }
        // Those that this process did not see fail, or that are too many: their causes are in the log.
        let (few, many) = other.split_at(other.len().min(MAX_IDS));
        for step in few {
            let cause = state.cause(*step).unwrap_or("it failed").to_owned();
            let attempt = state.attempt(*step);
            let untold = Told { step: *step, attempt, cause, duration: None, last_lines: Vec::new() };
            out += &failure(state, &untold, is_tolerated, style);
        }
        if !many.is_empty() {
            let tone = if is_tolerated { Tone::Again } else { Tone::Bad };
            let what = if is_tolerated { "failed too, tolerated" } else { "failed too" };
            out += &format!("{} {}: {what}\n", style.paint(tone, style.symbol(tone)), ids(state, many));
        }
    }
    out += &next_step(state);
    out
}

/// Why the run stopped before all its steps had run, and why its `finally` did, in words.
pub fn stops(state: &RunState) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for (at, reason) in state.stop_reasons().enumerate() {
        let what = if at > 0 || state.stop_reason_is_of_finally() { "`finally` stopped" } else { "stopped" };
        words.push(format!("{what}: {}", escape::one_line(&why::stop_reason(state, reason))));
    }
    words
}

/// An output of the plan on one line: text as it is, anything else as JSON.
pub fn output(name: &str, value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    format!("{name} = {}", escape::truncate(&escape::one_line(&text), MAX_OUTPUT_COLUMNS))
}

/// What a run's steps came to: `17 succeeded, 1 failed, 2 skipped`.
pub fn counts(state: &RunState) -> String {
    let order = [
        StepStatus::Succeeded,
        StepStatus::Failed,
        StepStatus::Skipped,
        StepStatus::Canceled,
        StepStatus::Kept,
        StepStatus::Running,
        StepStatus::Retrying,
        StepStatus::Waiting,
    ];
    let parts: Vec<String> = order
        .iter()
        .filter(|status| state.count(**status) > 0)
        .map(|status| {
            let tolerated = match status {
                StepStatus::Failed => tolerated(state),
                _ => String::new(),
            };
            format!("{} {}{tolerated}", words::grouped(u64::from(state.count(*status))), status.word())
        })
        .collect();
    if parts.is_empty() { "no steps".to_owned() } else { parts.join(", ") }
}

/// Beside the number of failures: how many of them the plan takes for no harm.
fn tolerated(state: &RunState) -> String {
    match state.failures().filter(|step| !state.failure_counts(*step)).count() as u64 {
        0 => String::new(),
        all if all == u64::from(state.count(StepStatus::Failed)) => " (tolerated)".to_owned(),
        some => format!(" ({} tolerated)", words::grouped(some)),
    }
}

fn failure(state: &RunState, told: &Told, is_tolerated: bool, style: Style) -> String {
    let tone = if is_tolerated { Tone::Again } else { Tone::Bad };
    let id = state.graph().id(told.step);
    let most = state.graph().policy(told.step).retries + 1;
    let mut facts = Vec::new();
    if most > 1 {
        facts.push(format!("attempt {} of {}", told.attempt, most.max(told.attempt)));
    }
    facts.extend(told.duration.map(words::duration));
    if is_tolerated {
        facts.push("tolerated".to_owned());
    }
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
    let cause = escape::harmless(told.cause.as_bytes()).replace('\n', "\n  ");
    let mut out = format!("\n{} {}: {cause}{facts}\n", style.paint(tone, style.symbol(tone)), style.paint(tone, id));
    for line in &told.last_lines {
        out += &format!("  | {line}\n");
    }
    if told.attempt > 0 {
        out += &format!("  look further: baton logs {} {id}\n", state.run());
    }
    out
}

fn ids(state: &RunState, steps: &[StepIndex]) -> String {
    let mut names: Vec<String> = steps.iter().take(MAX_IDS).map(|step| state.graph().id(*step).to_owned()).collect();
    if steps.len() > MAX_IDS {
        names.push(format!("{} more", words::grouped((steps.len() - MAX_IDS) as u64)));
    }
    names.join(", ")
}

fn next_step(state: &RunState) -> String {
    let run = state.run();
    match state.result() {
        Some(RunStatus::Succeeded) => String::new(),
        // All steps succeeded: to run them again changes nothing.
        Some(RunStatus::Failed) if matches!(state.stop_reason(), Some(StopReason::Outputs { .. })) => {
            format!("\nmend the outputs of the plan; what was made is kept for a run with --outputs-from {run}\n")
        }
        Some(RunStatus::Failed | RunStatus::Canceled) => {
            format!("\nrun again what did not succeed: baton retry {run}\n")
        }
        None => format!("\ngo on where it was left: baton resume {run}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use baton_core::graph::{Policy, StepShape};
    use baton_core::{AttemptEnd, Event, EventKind, ExitCause, GraphBuilder, OnFailure, RunCreated, RunId, Time};

    use serde_json::Map;

    use super::*;

    const STYLE: Style = Style { color: false, unicode: true };

    /// A run of `build`, `lint` (tolerated), `test` after `build`, and what the events make of it.
    fn state(kinds: &[EventKind]) -> RunState {
        let mut graph = GraphBuilder::default();
        let abort = Policy { retries: 2, ..Policy::default() };
        graph.add("build", StepShape { policy: abort, ..StepShape::default() });
        let free = Policy { on_failure: OnFailure::Continue, ..Policy::default() };
        graph.add("lint", StepShape { policy: free, ..StepShape::default() });
        graph.add("test", StepShape { depends_on: vec![StepIndex(0)], ..StepShape::default() });
        let created = RunCreated::default();
        let mut state = RunState::new(RunId(12), Arc::new(graph.build()), Time(0), &created, BTreeMap::new());
        state.apply(&Event { at: Time(0), kind: EventKind::RunStarted });
        for kind in kinds {
            state.apply(&Event { at: Time(14_200), kind: kind.clone() });
        }
        state
    }

    fn failed(step: u32, attempt: u32) -> [EventKind; 2] {
        let step = StepIndex(step);
        let end = Box::new(AttemptEnd::bare(ExitCause::Exit { code: 1 }));
        [
            EventKind::StepStarted { step, attempt, invocation: None },
            EventKind::StepFailed { step, attempt, last: true, end },
        ]
    }

    fn told(step: u32, attempt: u32, lines: &[&str]) -> Told {
        Told {
            step: StepIndex(step),
            attempt,
            cause: "exit code 1".to_owned(),
            duration: Some(Millis(2100)),
            last_lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[test]
    fn a_failed_run_says_what_failed_and_where_to_look() {
        let mut kinds = failed(1, 1).to_vec();
        kinds.extend(failed(0, 3));
        kinds.push(EventKind::RunStopping {
            reason: baton_core::event::StopReason::Abort { step: StepIndex(0) },
            until: Time(0),
            hurry: false,
        });
        kinds.push(EventKind::StepCanceled { step: StepIndex(2), attempt: 0, end: None });
        kinds.push(EventKind::RunCompleted { status: RunStatus::Failed, outputs: Map::new() });
        let state = state(&kinds);
        let told = [told(1, 1, &["warning: unused"]), told(0, 3, &["cc: error", "make: *** [all] Error 1"])];
        insta::assert_snapshot!(render(&state, "deploy", &told, Time(0), STYLE), @"
        ✗ run 12 deploy failed after 14.2s: 2 failed (1 tolerated), 1 canceled
          stopped: step `build` failed and its policy is `abort`

        ✗ build: exit code 1 (attempt 3 of 3, 2.1s)
          | cc: error
          | make: *** [all] Error 1
          look further: baton logs 12 build

        ↻ lint: exit code 1 (2.1s, tolerated)
          | warning: unused
          look further: baton logs 12 lint

        run again what did not succeed: baton retry 12
        ");
    }

    #[test]
    fn a_good_run_is_one_line_and_tolerated_failures_stand_beside_it() {
        let ok = |step: u32| {
            let step = StepIndex(step);
            let end = Box::new(AttemptEnd::bare(ExitCause::Exit { code: 0 }));
            [
                EventKind::StepStarted { step, attempt: 1, invocation: None },
                EventKind::StepSucceeded { step, attempt: 1, end },
            ]
        };
        let done = [EventKind::RunCompleted { status: RunStatus::Succeeded, outputs: Map::new() }];
        let good = state(&[&ok(0)[..], &ok(1), &ok(2), &done].concat());
        let good = render(&good, "deploy", &[], Time(0), STYLE);
        insta::assert_snapshot!(good, @"✓ run 12 deploy succeeded in 14.2s: 3 succeeded");
        let beside = state(&[&ok(0)[..], &failed(1, 1), &ok(2), &done].concat());
        insta::assert_snapshot!(render(&beside, "deploy", &[told(1, 1, &[])], Time(0), STYLE), @"
        ✓ run 12 deploy succeeded in 14.2s: 2 succeeded, 1 failed (tolerated)

        ↻ lint: exit code 1 (2.1s, tolerated)
          look further: baton logs 12 lint
        ");
    }

    #[test]
    fn a_run_that_is_left_says_how_it_goes_on() {
        let left = state(&[EventKind::StepStarted { step: StepIndex(0), attempt: 1, invocation: None }]);
        insta::assert_snapshot!(render(&left, "deploy", &[], Time(3000), STYLE), @"
        ↻ run 12 deploy left unfinished after 3.0s: 1 running, 2 waiting

        go on where it was left: baton resume 12
        ");
    }
}
