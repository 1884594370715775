//! What must hold after each event of a run, checked against a plain account of it that shares no code with the core.

use std::sync::Arc;

use baton_core::decide::LOST_IN_A_ROW_LIMIT;
use baton_core::event::{AttemptStop, SkipReason, StopReason};
use baton_core::graph::Backoff;
use baton_core::lock::{Holder, LockTable};
use baton_core::why::Blocker;
use baton_core::{
    Event, EventKind, ExitCause, Graph, Millis, OnFailure, RunCreated, RunId, RunState, RunStatus, StepIndex,
    StepStatus, Time,
};

use serde_json::{Map, Value};

use crate::fate::{Fates, Says};
use crate::locks::PlainLocks;

/// What has been seen of one step.
#[derive(Clone, Debug)]
struct Seen {
    status: StepStatus,
    attempts: u32,
    started: Time,
    stopping: Option<(AttemptStop, Option<Time>)>,
    failures: u32,
    lost: u32,
    judged: bool,
    due: Option<Time>,
    skipped: Option<SkipReason>,
    /// An attempt failed, another will follow, and nobody has said when.
    owes_retry: bool,
}

/// Where the run is, as far as was seen.
#[derive(Clone, PartialEq, Debug)]
enum Stage {
    Created,
    Running,
    Stopping { until: Time, hurry: bool },
    Completed,
}

/// The plain account of a run.
#[derive(Clone, Debug)]
pub struct Watch {
    run: RunId,
    graph: Arc<Graph>,
    fates: Fates,
    steps: Vec<Seen>,
    stage: Stage,
    started: Option<Time>,
    has_plan_locks: bool,
    running: usize,
    abort: Option<(StepIndex, Time)>,
    /// Why the steps stopped before all had run, once they did.
    pub stop: Option<StopReason>,
    /// How the steps ended, once those in `finally` may start.
    pub outcome: Option<RunStatus>,
    /// The plan's outputs, once `finally` may start.
    computed: Option<Map<String, Value>>,
    /// Why `finally` stopped before all of it had run, once it did.
    pub finally_stop: Option<StopReason>,
    sla_passed: bool,
    last: Time,
}

macro_rules! ensure {
    ($holds:expr, $($words:tt)*) => {
        if !$holds {
            return Err(format!($($words)*));
        }
    };
}

impl Watch {
    /// The account of a run that was just submitted.
    pub fn new(run: RunId, graph: &Arc<Graph>, created: &RunCreated, fates: Fates) -> Self {
        let seen = Seen {
            status: StepStatus::Waiting,
            attempts: 0,
            started: Time(0),
            stopping: None,
            failures: 0,
            lost: 0,
            judged: false,
            due: None,
            skipped: None,
            owes_retry: false,
        };
        let mut steps = vec![seen; graph.len()];
        for (first, last) in &created.kept {
            steps[*first as usize..=*last as usize].iter_mut().for_each(|seen| seen.status = StepStatus::Kept);
        }
        Self {
            run,
            graph: graph.clone(),
            fates,
            steps,
            stage: Stage::Created,
            started: None,
            has_plan_locks: false,
            running: 0,
            abort: None,
            stop: None,
            outcome: None,
            computed: None,
            finally_stop: None,
            sla_passed: false,
            last: Time(0),
        }
    }

    /// Another world: what is not decided yet may come out in another way.
    pub fn with_fates(mut self, fates: Fates) -> Self {
        self.fates = fates;
        self
    }

    /// How many attempts of the step failed.
    pub fn failures(&self, step: StepIndex) -> u32 {
        self.steps[step.at()].failures
    }

    /// Whether the run is over.
    pub fn is_completed(&self) -> bool {
        self.stage == Stage::Completed
    }

    fn holder(&self, step: Option<StepIndex>) -> Holder {
        Holder { run: self.run, step: step.map(|step| self.graph.id(step).to_owned()) }
    }

    /// What the step means for those that wait for it: go, skip, or not known yet.
    pub fn verdict(&self, step: StepIndex) -> Option<bool> {
        let policy = self.graph.policy(step);
        match self.steps[step.at()].status {
            StepStatus::Succeeded | StepStatus::Kept => Some(true),
            StepStatus::Skipped => Some(!matches!(self.steps[step.at()].skipped, Some(SkipReason::Dependency { .. }))),
            StepStatus::Failed => match policy.on_failure {
                OnFailure::Continue => Some(true),
                OnFailure::SkipDependents => Some(false),
                OnFailure::Abort => (!policy.critical || self.graph.is_finally(step)).then_some(false),
                OnFailure::FallbackStep => {
                    let fallback = self.graph.fallback(step).expect("the plan gives each such step one");
                    match self.steps[fallback.at()].status {
                        StepStatus::Skipped | StepStatus::Kept => Some(false),
                        _ => self.verdict(fallback),
                    }
                }
            },
            StepStatus::Waiting | StepStatus::Running | StepStatus::Retrying | StepStatus::Canceled => None,
        }
    }

    fn is_called(&self, fallback: StepIndex) -> bool {
        self.graph.original(fallback).is_none_or(|original| self.steps[original.at()].status == StepStatus::Failed)
    }

    /// Whether the step's part of the run has begun.
    fn is_on(&self, step: StepIndex) -> bool {
        !self.graph.is_finally(step) || self.outcome.is_some()
    }

    /// Whether a step is not settled that must be before the run goes over to what comes next.
    fn has_unfinished(&self) -> bool {
        let is_on = |step: &StepIndex| self.is_on(*step) || self.started.is_none();
        self.graph.steps().filter(is_on).any(|step| !self.steps[step.at()].status.is_final())
    }

    fn may_go(&self, step: StepIndex) -> bool {
        self.is_on(step)
            && self.is_called(step)
            && self.graph.dependencies(step).iter().all(|dependency| self.verdict(*dependency) == Some(true))
    }

    /// Takes note of an event, if it is one that may happen.
    pub fn observe(&mut self, event: &Event, locks: &PlainLocks) -> Result<(), String> {
        let at = event.at;
        ensure!(self.stage != Stage::Completed, "an event after the run was complete");
        ensure!(at >= self.last, "an event before the one before it");
        self.last = at;
        match &event.kind {
            EventKind::RunCreated(_) => return Err("a run is created once".to_owned()),
            EventKind::RunStarted => {
                ensure!(!self.has_plan_locks, "a run starts twice");
                let names = &self.graph.plan_locks().names;
                ensure!(locks.has(&self.holder(None), names), "a run starts without its locks");
                ensure!(matches!(self.stage, Stage::Created | Stage::Running), "a run starts that stops");
                self.has_plan_locks = true;
                self.started.get_or_insert(at);
                self.stage = Stage::Running;
            }
            EventKind::RunResumed { .. } => {
                self.has_plan_locks = self.graph.plan_locks().names.is_empty() && self.started.is_some();
                // Where the log ends between a failure and its retry, the retry is due at once.
                self.steps.iter_mut().for_each(|seen| seen.owes_retry = false);
            }
            EventKind::RunStopping { reason, until, hurry } => self.stop(reason, *until, *hurry, at)?,
            EventKind::RunFinally { status, outputs } => {
                ensure!(self.graph.has_finally() && self.outcome.is_none(), "`finally` begins for no reason");
                ensure!(self.started.is_some(), "`finally` begins in a run that never started");
                ensure!(!self.has_unfinished(), "`finally` begins before all else is settled");
                let expected = crate::oracle::status_of(self);
                ensure!(*status == expected, "all else is {status:?} and should be {expected:?}");
                self.judge_outputs(*status, outputs)?;
                self.computed = Some(outputs.clone());
                self.outcome = Some(*status);
                self.stage = Stage::Running;
                self.abort = None;
            }
            EventKind::RunSlaPassed { due } => {
                let expected = self.graph.sla().map(|sla| Time(0) + sla);
                ensure!(Some(*due) == expected && *due <= at, "a run is late at {due:?} and not at {expected:?}");
                ensure!(!self.sla_passed, "a run is late twice");
                self.sla_passed = true;
            }
            EventKind::RunCompleted { status, outputs } => {
                ensure!(!self.has_unfinished(), "a run is complete with unfinished steps");
                let skips_finally = self.graph.has_finally() && self.started.is_some() && self.outcome.is_none();
                ensure!(!skips_finally, "a run is complete without `finally`");
                let expected = crate::oracle::status_of(self);
                ensure!(*status == expected, "the run is {status:?} and should be {expected:?}");
                match &self.computed {
                    Some(computed) if *status == RunStatus::Succeeded => {
                        ensure!(outputs == computed, "the run's outputs are {outputs:?} and were {computed:?}");
                    }
                    Some(_) => ensure!(outputs.is_empty(), "a run that did not succeed has outputs"),
                    None => self.judge_outputs(*status, outputs)?,
                }
                let in_time = self.graph.sla().is_none_or(|sla| self.sla_passed || at < Time(0) + sla);
                ensure!(in_time, "a run is complete that is late and did not say so");
                self.stage = Stage::Completed;
            }
            EventKind::StepCondition { step } => {
                let step = *step;
                ensure!(self.graph.is_conditional(step), "a condition is judged that is none");
                ensure!(!self.steps[step.at()].judged, "a condition is judged twice");
                ensure!(self.steps[step.at()].status == StepStatus::Waiting, "a condition is judged too late");
                ensure!(self.may_go(step), "a condition is judged before the dependencies are settled");
                ensure!(self.fates.condition(step) == Says::Yes, "a condition is judged wrongly");
                self.steps[step.at()].judged = true;
            }
            EventKind::StepStarted { step, attempt, .. } => self.start(*step, *attempt, at, locks)?,
            EventKind::StepStopping { step, attempt, reason, kill_at } => {
                self.stop_attempt(*step, *attempt, *reason, *kill_at, at)?;
            }
            EventKind::StepSucceeded { step, attempt, .. } => {
                ensure!(self.steps[step.at()].stopping.is_none(), "an attempt succeeds that was told to end");
                self.end(*step, *attempt)?;
                self.finish(*step, StepStatus::Succeeded)?;
            }
            EventKind::StepFailed { step, attempt: 0, last, end } => {
                let seen = &self.steps[step.at()];
                ensure!(seen.status != StepStatus::Running, "a running attempt fails as none");
                ensure!(self.may_go(*step), "a step fails before its dependencies are settled");
                let waited = matches!(&end.cause, ExitCause::NotStarted { error } if error.starts_with("waited"));
                if waited {
                    // It waited too long for the locks of an attempt.
                    let tries_left = seen.failures < self.graph.policy(*step).retries;
                    ensure!(*last != tries_left, "last: {last} after {} failures", seen.failures);
                    let seen = &mut self.steps[step.at()];
                    seen.failures += 1;
                    seen.lost = 0;
                    // Waiting until whoever called says more.
                    seen.status = StepStatus::Waiting;
                    seen.due = None;
                    self.after_failure(*step, *last, at)?;
                } else {
                    ensure!(*last, "what cannot be computed is not tried again");
                    self.finish(*step, StepStatus::Failed)?;
                    self.note_abort(*step, at);
                }
            }
            EventKind::StepFailed { step, attempt, last, .. } | EventKind::StepTimeout { step, attempt, last, .. } => {
                let stopping = self.steps[step.at()].stopping.map(|(reason, _)| reason);
                let expected = matches!(event.kind, EventKind::StepTimeout { .. }).then_some(AttemptStop::Timeout);
                ensure!(stopping == expected, "an attempt that is {stopping:?} ends as {}", event.kind.name());
                self.end(*step, *attempt)?;
                let seen = &mut self.steps[step.at()];
                seen.failures += 1;
                seen.lost = 0;
                let tries_left = seen.failures <= self.graph.policy(*step).retries;
                let goes_on = self.stage == Stage::Running && self.abort.is_none();
                ensure!(*last != (tries_left && goes_on), "last: {last} after {} failures", seen.failures);
                self.after_failure(*step, *last, at)?;
            }
            EventKind::StepLost { step, attempt, last } => {
                self.end(*step, *attempt)?;
                let seen = &mut self.steps[step.at()];
                seen.lost += 1;
                // Where a failure is about to stop the run, it is all the same.
                let expected = seen.lost >= LOST_IN_A_ROW_LIMIT && self.stage == Stage::Running;
                ensure!(
                    *last == expected || self.abort.is_some(),
                    "last: {last} after {} lost attempts in a row",
                    seen.lost
                );
                self.after_failure(*step, *last, at)?;
            }
            EventKind::StepCanceled { step, attempt, .. } => {
                ensure!(matches!(self.stage, Stage::Stopping { .. }), "a step is canceled in a run that goes on");
                if *attempt > 0 {
                    let stopping = self.steps[step.at()].stopping.map(|(reason, _)| reason);
                    ensure!(stopping == Some(AttemptStop::Run), "an attempt is canceled that was not told to end");
                    self.end(*step, *attempt)?;
                } else {
                    ensure!(self.steps[step.at()].status != StepStatus::Running, "a running attempt is lost sight of");
                }
                self.finish(*step, StepStatus::Canceled)?;
            }
            EventKind::StepRetry { step, attempt, due } => self.retry(*step, *attempt, *due, at)?,
            EventKind::StepSkipped { step, reason } => {
                let step = *step;
                ensure!(self.steps[step.at()].status == StepStatus::Waiting, "a step is skipped too late");
                match reason {
                    SkipReason::Condition => {
                        ensure!(self.may_go(step), "a step is skipped before its dependencies are settled");
                        ensure!(self.fates.condition(step) == Says::No, "a condition is judged wrongly");
                        ensure!(!self.steps[step.at()].judged, "a condition is judged twice");
                    }
                    SkipReason::Dependency { step: other } => {
                        ensure!(self.graph.dependencies(step).contains(other), "skipped because of a stranger");
                        ensure!(self.verdict(*other) == Some(false), "skipped because of a step that let it go on");
                    }
                    SkipReason::FallbackNotNeeded { step: other } => {
                        ensure!(self.graph.original(step) == Some(*other), "skipped because of a stranger");
                        let status = self.steps[other.at()].status;
                        ensure!(status.is_final() && status != StepStatus::Failed, "a fallback is skipped too early");
                    }
                }
                self.steps[step.at()].skipped = Some(reason.clone());
                self.finish(step, StepStatus::Skipped)?;
            }
        }
        Ok(())
    }

    fn judge_outputs(&self, status: RunStatus, outputs: &Map<String, Value>) -> Result<(), String> {
        let has_outputs = status == RunStatus::Succeeded && self.graph.has_outputs();
        let right = if has_outputs { self.fates.outputs() } else { Some(Map::new()) };
        ensure!(Some(outputs) == right.as_ref(), "the outputs are {outputs:?} and should be {right:?}");
        Ok(())
    }

    fn stop(&mut self, reason: &StopReason, until: Time, hurry: bool, at: Time) -> Result<(), String> {
        match reason {
            StopReason::Abort { step } => {
                ensure!(self.stage == Stage::Running, "an abort of a run that does not go on");
                let Some((failed, since)) = self.abort else { return Err("an abort for no reason".to_owned()) };
                ensure!(failed == *step, "an abort because of another step");
                let grace = self.graph.policy(failed).critical_grace;
                ensure!(until == since + grace, "the grace ends at {until:?}, not {grace:?} after {since:?}");
            }
            StopReason::Timeout => {
                let due = self.started.zip(self.graph.timeout()).map(|(started, timeout)| started + timeout);
                ensure!(due.is_some_and(|due| due <= at), "a run is out of time too early");
                ensure!(self.stage == Stage::Running, "a run is out of time that does not go on");
                ensure!(self.has_unfinished(), "a run is out of time that has nothing left to do");
                ensure!(self.outcome.is_none(), "`finally` has no time left of its own");
            }
            StopReason::Outputs { .. } => {
                ensure!(!self.has_unfinished(), "outputs are computed before all steps are settled");
                ensure!(crate::oracle::status_of(self) == RunStatus::Succeeded, "outputs of a run that failed");
                ensure!(self.outcome.is_none(), "outputs are computed after `finally` has begun");
                ensure!(self.fates.outputs().is_none(), "outputs can be computed and are not");
            }
            StopReason::LockWait { .. } => {
                ensure!(!self.has_plan_locks, "a run gives up waiting for locks that it has");
                ensure!(self.outcome.is_none(), "`finally` gives up waiting for the plan's locks");
            }
            StopReason::Cancel { .. } => {}
        }
        let first = if self.outcome.is_some() { &mut self.finally_stop } else { &mut self.stop };
        first.get_or_insert_with(|| reason.clone());
        self.stage = match &self.stage {
            Stage::Stopping { until: before, hurry: hurried } => {
                Stage::Stopping { until: until.min(*before), hurry: hurry || *hurried }
            }
            Stage::Created | Stage::Running | Stage::Completed => Stage::Stopping { until, hurry },
        };
        Ok(())
    }

    fn start(&mut self, step: StepIndex, attempt: u32, at: Time, locks: &PlainLocks) -> Result<(), String> {
        ensure!(self.stage == Stage::Running && self.abort.is_none(), "a step starts in a run that does not go on");
        ensure!(self.has_plan_locks, "a step starts before the run has its locks");
        ensure!(locks.has(&self.holder(None), &self.graph.plan_locks().names), "the run has lost its locks");
        ensure!(self.running < self.graph.max_concurrency() as usize, "more steps run than may");
        ensure!(self.may_go(step), "a step starts before its dependencies are settled");
        if let Some(request) = self.graph.locks(step) {
            ensure!(locks.has(&self.holder(Some(step)), &request.names), "a step starts without its locks");
        } else if self.steps[step.at()].status == StepStatus::Waiting && self.steps.len() < 32 {
            let earlier = (0..step.0).map(StepIndex).find(|earlier| {
                self.steps[earlier.at()].status == StepStatus::Waiting
                    && self.graph.locks(*earlier).is_none()
                    && self.may_go(*earlier)
            });
            ensure!(earlier.is_none(), "a step starts before {earlier:?}, which stands before it in the plan");
            let kept_out = (0..step.0).map(StepIndex).find(|earlier| {
                self.steps[earlier.at()].status == StepStatus::Waiting
                    && self.may_go(*earlier)
                    && self
                        .graph
                        .locks(*earlier)
                        .is_some_and(|request| !locks.is_blocked(&self.holder(Some(*earlier)), &request.names))
            });
            let last_slot = self.running + 1 == self.graph.max_concurrency() as usize;
            ensure!(
                !last_slot || kept_out.is_none() || !locks.is_true(),
                "a step takes the slot of {kept_out:?}, which could have its locks"
            );
        }
        let seen = &mut self.steps[step.at()];
        ensure!(attempt == seen.attempts + 1, "attempt {attempt} follows attempt {}", seen.attempts);
        ensure!(!self.graph.is_conditional(step) || seen.judged, "a step starts whose condition was not judged");
        ensure!(!seen.owes_retry, "a step starts again before its retry is due");
        match seen.status {
            StepStatus::Waiting => {}
            StepStatus::Retrying => ensure!(seen.due.is_some_and(|due| due <= at), "a retry comes too early"),
            status => return Err(format!("a step starts that is {}", status.word())),
        }
        seen.status = StepStatus::Running;
        seen.attempts = attempt;
        seen.started = at;
        seen.due = None;
        self.running += 1;
        Ok(())
    }

    fn stop_attempt(
        &mut self,
        step: StepIndex,
        attempt: u32,
        reason: AttemptStop,
        kill_at: Option<Time>,
        at: Time,
    ) -> Result<(), String> {
        let policy = self.graph.policy(step);
        let seen = &mut self.steps[step.at()];
        ensure!(seen.status == StepStatus::Running && seen.attempts == attempt, "what does not run is told to end");
        let hurried = matches!(self.stage, Stage::Stopping { hurry: true, .. });
        match (seen.stopping, kill_at) {
            (None, _) => match reason {
                AttemptStop::Timeout => {
                    let due = policy.timeout.map(|timeout| seen.started + timeout);
                    ensure!(due == Some(at), "an attempt is out of time at {at:?} and not at {due:?}");
                    ensure!(kill_at == Some(at + policy.stop_grace), "killed at {kill_at:?}");
                }
                AttemptStop::Run => {
                    let Stage::Stopping { until, hurry } = self.stage else {
                        return Err("an attempt is told to end in a run that goes on".to_owned());
                    };
                    ensure!(hurry || until <= at, "an attempt is told to end before its grace is over");
                    let expected = (!hurry).then(|| at + policy.stop_grace);
                    ensure!(kill_at == expected, "killed at {kill_at:?} and not at {expected:?}");
                }
            },
            (Some((first, Some(due))), None) => {
                ensure!(first == reason, "an attempt is killed for another reason");
                ensure!(hurried || due == at, "an attempt is killed at {at:?} and not at {due:?}");
            }
            (Some(_), _) => return Err("an attempt is told to end twice".to_owned()),
        }
        seen.stopping = Some((reason, kill_at));
        Ok(())
    }

    fn end(&mut self, step: StepIndex, attempt: u32) -> Result<(), String> {
        let seen = &mut self.steps[step.at()];
        ensure!(
            seen.status == StepStatus::Running && seen.attempts == attempt,
            "attempt {attempt} of a step ends that is {} in attempt {}",
            seen.status.word(),
            seen.attempts
        );
        // Waiting until whoever called says more.
        seen.status = StepStatus::Waiting;
        seen.stopping = None;
        self.running -= 1;
        Ok(())
    }

    fn finish(&mut self, step: StepIndex, status: StepStatus) -> Result<(), String> {
        let seen = &mut self.steps[step.at()];
        ensure!(!seen.status.is_final(), "a step that is {} becomes {}", seen.status.word(), status.word());
        seen.status = status;
        Ok(())
    }

    fn after_failure(&mut self, step: StepIndex, last: bool, at: Time) -> Result<(), String> {
        if last {
            self.finish(step, StepStatus::Failed)?;
            self.note_abort(step, at);
        } else {
            self.steps[step.at()].owes_retry = self.stage == Stage::Running;
        }
        Ok(())
    }

    fn note_abort(&mut self, step: StepIndex, at: Time) {
        let policy = self.graph.policy(step);
        let may_abort = policy.critical && policy.on_failure == OnFailure::Abort && !self.graph.is_finally(step);
        if may_abort && self.stage == Stage::Running {
            self.abort.get_or_insert((step, at));
        }
    }

    fn retry(&mut self, step: StepIndex, attempt: u32, due: Time, at: Time) -> Result<(), String> {
        let policy = *self.graph.policy(step);
        let seen = &mut self.steps[step.at()];
        ensure!(seen.owes_retry, "a retry for no reason");
        ensure!(attempt == seen.attempts + 1, "attempt {attempt} is to follow attempt {}", seen.attempts);
        if seen.lost > 0 {
            ensure!(due == at, "a lost attempt is tried again later");
        } else {
            let factor = match policy.backoff {
                Backoff::Fixed => 1,
                Backoff::Exponential => 1 << (seen.failures - 1),
            };
            let delay = (policy.retry_delay.0 * factor).min(policy.retry_max_delay.0);
            let Millis(waits) = due.since(at);
            let moved = delay * u64::from(policy.jitter_permille) / 1000 + 1;
            ensure!(waits <= policy.retry_max_delay.0, "a retry waits for longer than it may");
            ensure!(
                waits.abs_diff(delay) <= moved && (policy.jitter_permille > 0 || waits == delay),
                "a retry waits {waits} ms and should wait {delay} ms or so"
            );
        }
        seen.owes_retry = false;
        seen.status = StepStatus::Retrying;
        seen.due = Some(due);
        Ok(())
    }

    /// What must hold when nothing follows any more until time passes or an input comes.
    pub fn quiet(
        &self,
        now: Time,
        state: &RunState,
        table: &LockTable,
        locks: &PlainLocks,
        ask_why: bool,
    ) -> Result<(), String> {
        let due = state.next_due(now, table);
        ensure!(due.is_none_or(|due| due > now), "something is due at {due:?} and has not happened");
        let late = self.graph.sla().is_some_and(|sla| Time(0) + sla <= now);
        ensure!(!late || self.sla_passed || self.stage == Stage::Completed, "a run is late and does not say so");
        match self.stage {
            Stage::Completed => {
                let holders = self.graph.steps().map(|step| self.holder(Some(step))).chain([self.holder(None)]);
                let holder = holders.into_iter().find(|holder| locks.holds_any(holder) || locks.waits(holder));
                ensure!(holder.is_none(), "{holder:?} has or wants locks and is over");
                return Ok(());
            }
            Stage::Created => {
                let names = &self.graph.plan_locks().names;
                ensure!(locks.is_blocked(&self.holder(None), names), "a run does not start and could");
                ensure!(locks.waits(&self.holder(None)), "a run wants locks and does not stand in line");
            }
            Stage::Running => self.quiet_running(now, locks)?,
            Stage::Stopping { until, hurry } => {
                ensure!(self.running > 0, "a run stops for ever");
                let on = self.graph.steps().filter(|step| self.is_on(*step)).map(|step| &self.steps[step.at()]);
                for seen in on.filter(|seen| !seen.status.is_final()) {
                    ensure!(seen.status == StepStatus::Running, "a step waits in a run that stops");
                    let told = seen.stopping.is_some() || (until > now && !hurry);
                    ensure!(told, "an attempt is not told that the run stops");
                    ensure!(!hurry || matches!(seen.stopping, Some((_, None))), "an attempt is not killed");
                }
            }
        }
        for (step, seen) in self.graph.steps().zip(&self.steps) {
            let status = state.status(step);
            ensure!(status == seen.status, "{step:?} is {} and should be {}", status.word(), seen.status.word());
            if seen.status == StepStatus::Running {
                let late = self.graph.policy(step).timeout.is_some_and(|timeout| seen.started + timeout <= now);
                ensure!(!late || seen.stopping.is_some(), "an attempt outlives its timeout");
                let killed = seen.stopping.is_none_or(|(_, due)| due.is_none_or(|due| due > now));
                ensure!(killed, "an attempt outlives its grace");
            }
            if ask_why && !status.is_final() {
                let chain = state.why(step, now, table, true);
                ensure!(!chain.is_empty(), "nobody knows why {step:?} is {}", status.word());
                ensure!(!chain.contains(&Blocker::Nothing), "nothing is in the way of {step:?}: {chain:?}");
                let is_due = status == StepStatus::Waiting || seen.due.is_some_and(|due| due <= now);
                let request = self.graph.locks(step);
                let is_held = request.is_some_and(|request| locks.is_blocked(&self.holder(Some(step)), &request.names));
                if self.stage == Stage::Running
                    && self.has_plan_locks
                    && is_due
                    && self.may_go(step)
                    && !seen.owes_retry
                {
                    let named = matches!(
                        (&chain[0], is_held),
                        (Blocker::Lock { .. }, true) | (Blocker::Concurrency { .. }, false)
                    );
                    ensure!(status == StepStatus::Running || named, "not what is in the way of {step:?}: {chain:?}");
                }
            }
        }
        Ok(())
    }

    fn quiet_running(&self, now: Time, locks: &PlainLocks) -> Result<(), String> {
        let due = self.started.zip(self.graph.timeout()).map(|(started, timeout)| started + timeout);
        ensure!(self.outcome.is_some() || due.is_none_or(|due| due > now), "a run outlives its time");
        ensure!(self.has_unfinished(), "a run has nothing to do and goes on");
        let mut progress = self.running > 0;
        let free = self.running < self.graph.max_concurrency() as usize;
        if !self.has_plan_locks {
            let holder = self.holder(None);
            ensure!(locks.is_blocked(&holder, &self.graph.plan_locks().names), "a resumed run could have its locks");
            ensure!(locks.waits(&holder), "a resumed run does not stand in line for its locks");
            return Ok(());
        }
        for (step, seen) in self.graph.steps().zip(&self.steps) {
            match seen.status {
                StepStatus::Waiting => {
                    let skip = self.graph.dependencies(step).iter().any(|other| self.verdict(*other) == Some(false));
                    ensure!(!skip, "{step:?} waits and should be skipped");
                    if !self.may_go(step) {
                        continue;
                    }
                }
                StepStatus::Retrying if seen.due.is_some_and(|due| due > now) => {
                    progress = true;
                    continue;
                }
                StepStatus::Retrying => {}
                _ => continue,
            }
            if let Some(request) = self.graph.locks(step) {
                let holder = self.holder(Some(step));
                if locks.is_blocked(&holder, &request.names) {
                    progress = true;
                    // One of those that want the same stands in line for all of them.
                    let mut others = self.graph.steps().filter(|other| self.graph.locks(*other) == Some(request));
                    let waits = others.any(|other| locks.waits(&self.holder(Some(other))));
                    ensure!(!free || waits, "{step:?} wants locks and does not stand in line");
                    continue;
                }
            }
            ensure!(!free, "{step:?} is ready, a slot is free, and it does not start");
        }
        ensure!(progress, "the run is stuck");
        Ok(())
    }

    /// The plan.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Where a step is, as far as was seen.
    pub fn status(&self, step: StepIndex) -> StepStatus {
        self.steps[step.at()].status
    }
}
