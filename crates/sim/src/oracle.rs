//! The rules of SEMANTICS again, as plainly as can be: how a run must end, worked out without playing it.

use baton_core::event::StopReason;
use baton_core::{Graph, OnFailure, RunCreated, RunStatus, StepIndex, StepStatus};

use crate::fate::{Fates, Says};
use crate::watch::Watch;

/// How a run must end, given how its steps ended and why it stopped.
pub fn status_of(watch: &Watch) -> RunStatus {
    let stop = match watch.outcome {
        Some(ended @ (RunStatus::Failed | RunStatus::Canceled)) => return ended,
        Some(RunStatus::Succeeded) => &watch.finally_stop,
        None => &watch.stop,
    };
    match stop {
        Some(StopReason::Cancel { .. }) => RunStatus::Canceled,
        Some(_) => RunStatus::Failed,
        None => {
            let counts = |step: StepIndex| watch.status(step) == StepStatus::Failed && !is_tolerated(watch, step);
            if watch.graph().steps().any(counts) { RunStatus::Failed } else { RunStatus::Succeeded }
        }
    }
}

fn is_tolerated(watch: &Watch, step: StepIndex) -> bool {
    let policy = watch.graph().policy(step);
    !policy.critical
        || match policy.on_failure {
            OnFailure::Continue => true,
            // Made good is what its dependents could go on from.
            OnFailure::FallbackStep => watch.verdict(step) == Some(true),
            OnFailure::Abort | OnFailure::SkipDependents => false,
        }
}

/// What becomes of each step in a world where nobody dies, nobody cancels and no wait is too long; `None`: a step
/// stops the run, so that the rest depends on who was faster.
pub fn expect(graph: &Graph, created: &RunCreated, fates: &Fates) -> Option<Vec<StepStatus>> {
    let mut known = vec![None; graph.len()];
    for (first, last) in &created.kept {
        known[*first as usize..=*last as usize].fill(Some((StepStatus::Kept, Some(true))));
    }
    for step in graph.steps() {
        outcome(graph, fates, step, &mut known);
    }
    let outcomes: Vec<(StepStatus, Option<bool>)> = known.into_iter().flatten().collect();
    let stops = outcomes.iter().any(|(_, lets_go)| lets_go.is_none());
    (!stops).then(|| outcomes.into_iter().map(|(status, _)| status).collect())
}

type Outcome = (StepStatus, Option<bool>);

/// How the step ends, and whether its dependents go on (`None`: it stops the run).
fn outcome(graph: &Graph, fates: &Fates, step: StepIndex, known: &mut Vec<Option<Outcome>>) -> Outcome {
    if let Some(outcome) = known[step.at()] {
        return outcome;
    }
    let status = own_end(graph, fates, step, known);
    let policy = graph.policy(step);
    let lets_go = match status {
        StepStatus::Failed => match policy.on_failure {
            OnFailure::Continue => Some(true),
            OnFailure::SkipDependents => Some(false),
            OnFailure::Abort => (!policy.critical || graph.is_finally(step)).then_some(false),
            OnFailure::FallbackStep => {
                let fallback = graph.fallback(step).expect("the plan gives each such step one");
                // It asks how this one ended, so that must be known first.
                known[step.at()] = Some((status, None));
                match outcome(graph, fates, fallback, known) {
                    (StepStatus::Succeeded, _) => Some(true),
                    (StepStatus::Failed, lets_go) => lets_go,
                    _ => Some(false),
                }
            }
        },
        StepStatus::Skipped => Some(!skips(graph, fates, step, known)),
        _ => Some(true),
    };
    known[step.at()] = Some((status, lets_go));
    (status, lets_go)
}

fn skips(graph: &Graph, fates: &Fates, step: StepIndex, known: &mut Vec<Option<Outcome>>) -> bool {
    graph.dependencies(step).iter().any(|dependency| outcome(graph, fates, *dependency, known).1 == Some(false))
}

/// How the step ends if it is its turn.
fn own_end(graph: &Graph, fates: &Fates, step: StepIndex, known: &mut Vec<Option<Outcome>>) -> StepStatus {
    if let Some((status, _)) = known[step.at()] {
        return status;
    }
    if let Some(original) = graph.original(step)
        && own_end(graph, fates, original, known) != StepStatus::Failed
    {
        return StepStatus::Skipped;
    }
    if skips(graph, fates, step, known) {
        return StepStatus::Skipped;
    }
    if graph.is_conditional(step) {
        match fates.condition(step) {
            Says::Yes => {}
            Says::No => return StepStatus::Skipped,
            Says::Error => return StepStatus::Failed,
        }
    }
    if fates.invocation(step) == Says::Error {
        return StepStatus::Failed;
    }
    let policy = graph.policy(step);
    let succeeds = (0..=policy.retries).any(|failures| {
        let course = fates.course(step, failures);
        course.good && course.after.is_some_and(|after| policy.timeout.is_none_or(|timeout| after < timeout))
    });
    if succeeds { StepStatus::Succeeded } else { StepStatus::Failed }
}
