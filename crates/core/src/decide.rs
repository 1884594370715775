//! What follows from an input, and what follows from a state: the rules of a run, and all of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::action::{AttemptEnd, ExitCause};
use crate::event::{AttemptStop, EventKind, SkipReason, StopReason};
use crate::graph::{Backoff, LockRequest};
use crate::lock::{Holder, LockTable};
use crate::state::{Deadline, Phase, RunState, StepStatus};
use crate::{Epoch, Event, Invocation, Millis, RunStatus, StepIndex, Time};

/// After this many lost attempts in a row a step fails: something about it ends the process that drives it.
pub const LOST_IN_A_ROW_LIMIT: u32 = 3;

/// Something that happened outside.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// A new owner took the run over after its old one died.
    Resume {
        /// The new owner's epoch.
        epoch: Epoch,
    },
    /// The owner is about to let go of the run; its children were ended.
    Abandon,
    /// An attempt ended.
    AttemptEnded {
        /// The step.
        step: StepIndex,
        /// The attempt.
        attempt: u32,
        /// How it ended.
        end: Box<AttemptEnd>,
        /// Whether its main process had ended before it was told to: then what it was told does not count.
        by_itself: bool,
    },
    /// Somebody wants the run to end.
    Cancel {
        /// Who.
        by: String,
        /// Whether what runs is ended without asking first.
        hurry: bool,
    },
}

/// Why an input changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The attempt is not the one in flight: a late answer.
    #[error("attempt {attempt} of step `{step}` is not in flight; its late answer is refused")]
    Stale {
        /// The step's id.
        step: String,
        /// The attempt that the answer is of.
        attempt: u32,
    },
    /// The run is over.
    #[error("run {run} has {status}; it does not reopen")]
    Completed {
        /// The run.
        run: crate::RunId,
        /// How it ended.
        status: &'static str,
    },
}

/// Computes values from a plan's expressions, purely.
pub trait Evaluate {
    /// Whether the step's condition holds. The error shows the expression and the values that it met.
    fn condition(&self, state: &RunState, step: StepIndex) -> Result<bool, String>;

    /// What the step does, where that depends on expressions; `None`: the plan alone says it.
    fn invocation(&self, state: &RunState, step: StepIndex) -> Result<Option<Box<Invocation>>, String>;

    /// The plan's outputs, when all steps have succeeded. The error names the output and the values that it met.
    fn outputs(&self, state: &RunState) -> Result<Map<String, Value>, String>;
}

/// What an input causes at once. What follows from that is for [`RunState::next`].
pub fn decide(state: &RunState, input: Input, now: Time, events: &mut Vec<EventKind>) -> Result<(), Refusal> {
    if let Phase::Completed(status) = state.phase {
        return Err(Refusal::Completed { run: state.run, status: status.word() });
    }
    match input {
        Input::Resume { epoch } => {
            events.push(EventKind::RunResumed { epoch });
            lose_attempts(state, now, events);
        }
        Input::Abandon => lose_attempts(state, now, events),
        Input::AttemptEnded { step, attempt, end, by_itself } => match state.running.get(&step) {
            Some(running) if running.attempt == attempt => {
                let told = if by_itself { None } else { running.stopping.map(|(reason, _)| reason) };
                end_attempt(state, (step, attempt), end, told, now, events);
            }
            _ => return Err(Refusal::Stale { step: state.graph.id(step).to_owned(), attempt }),
        },
        Input::Cancel { by, hurry } => {
            events.push(EventKind::RunStopping { reason: StopReason::Cancel { by }, until: now, hurry });
        }
    }
    Ok(())
}

fn lose_attempts(state: &RunState, now: Time, events: &mut Vec<EventKind>) {
    let stopping = state.stops();
    for (&step, running) in &state.running {
        let attempt = running.attempt;
        let lost = state.tries.get(&step).map_or(0, |tries| tries.lost_in_a_row) + 1;
        let last = lost >= LOST_IN_A_ROW_LIMIT && !stopping;
        events.push(EventKind::StepLost { step, attempt, last });
        if !last && !stopping {
            events.push(EventKind::StepRetry { step, attempt: attempt + 1, due: now });
        }
    }
}

fn end_attempt(
    state: &RunState,
    (step, attempt): (StepIndex, u32),
    end: Box<AttemptEnd>,
    told: Option<AttemptStop>,
    now: Time,
    events: &mut Vec<EventKind>,
) {
    let policy = state.graph.policy(step);
    let timed_out = match told {
        Some(AttemptStop::Run) => {
            events.push(EventKind::StepCanceled { step, attempt, end: Some(end) });
            return;
        }
        Some(AttemptStop::Timeout) => true,
        None => false,
    };
    let accepted = matches!(end.cause, ExitCause::Exit { code } if policy.accept.contains(code));
    if accepted && !timed_out {
        events.push(EventKind::StepSucceeded { step, attempt, end });
        return;
    }
    let failed = state.tries.get(&step).map_or(0, |tries| tries.failed);
    let last = failed >= policy.retries || state.stops();
    events.push(if timed_out {
        EventKind::StepTimeout { step, attempt, last, end }
    } else {
        EventKind::StepFailed { step, attempt, last, end }
    });
    if !last {
        let due = now + retry_delay(state, step, attempt, failed);
        events.push(EventKind::StepRetry { step, attempt: attempt + 1, due });
    }
}

/// A step that fails before anything of it was started: no attempt of it would end otherwise.
fn fail_unstarted(step: StepIndex, cause: ExitCause, events: &mut Vec<EventKind>) {
    let end = Box::new(AttemptEnd::bare(cause));
    events.push(EventKind::StepFailed { step, attempt: 0, last: true, end });
}

/// The delay after failed attempt `attempt`, of which `failed` failed before.
fn retry_delay(state: &RunState, step: StepIndex, attempt: u32, failed: u32) -> Millis {
    let policy = state.graph.policy(step);
    let factor = match policy.backoff {
        Backoff::Fixed => 1,
        Backoff::Exponential => 1u64.checked_shl(failed.min(63)).unwrap_or(u64::MAX),
    };
    let delay = policy.retry_delay.0.saturating_mul(factor).min(policy.retry_max_delay.0);
    if policy.jitter_permille == 0 {
        return Millis(delay);
    }
    // Chance is a hash of the attempt, so that a replay finds the same delay.
    let chance = scramble(state.run.0 ^ scramble(u64::from(step.0) << 32 | u64::from(attempt))) % 2001;
    let permille = 1000 + (i64::try_from(chance).unwrap_or(0) - 1000) * i64::from(policy.jitter_permille) / 1000;
    let moved = u128::from(delay) * u128::from(permille.unsigned_abs()) / 1000;
    Millis(u64::try_from(moved).unwrap_or(u64::MAX).min(policy.retry_max_delay.0))
}

/// The finaliser of the SplitMix64 generator (Steele, Lea, Flood 2014).
fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// What a run wants of the locks that runs share.
#[derive(Clone, PartialEq, Debug)]
pub enum LockMove {
    /// The way is free: the grant and these events of the run belong into one transaction, which holds only if the
    /// lock log has not grown meanwhile.
    Grant {
        /// For whom.
        holder: Holder,
        /// All of these at once.
        names: Vec<String>,
        /// What the grant lets start.
        events: Vec<EventKind>,
    },
    /// Somebody is in the way: wait in line.
    Request {
        /// Who waits.
        holder: Holder,
        /// For all of these at once.
        names: Vec<String>,
    },
    /// It took too long, or what the step is to do cannot be computed: no lock is needed any more.
    Fail(Vec<EventKind>),
}

/// What would start if it had its locks.
struct Candidate<'a> {
    /// The step; `None`: the run as a whole.
    step: Option<StepIndex>,
    holder: Holder,
    request: &'a LockRequest,
}

impl RunState {
    /// Appends to `events` what follows from the state and the time, and tells whether anything does; if not, nothing
    /// will until an input comes or time passes.
    ///
    /// The caller applies each answer and asks again. Starts that need locks are not among the answers: see
    /// [`RunState::next_lock_move`].
    pub fn next(&self, now: Time, evaluate: &dyn Evaluate, locks: &LockTable, events: &mut Vec<EventKind>) -> bool {
        let before = events.len();
        match &self.phase {
            Phase::Completed(_) => {}
            _ if self.sla_due().is_some_and(|due| due <= now) => events.extend(self.pass_sla()),
            Phase::Created => {
                if self.graph.plan_locks().names.is_empty() {
                    events.push(EventKind::RunStarted);
                }
            }
            Phase::Running => self.next_running(now, evaluate, locks, events),
            Phase::Stopping { .. } => {
                self.next_without_starts(now, evaluate, events);
            }
        }
        events.len() > before
    }

    /// Like [`RunState::next`], for a world in which nothing new may start just now: no step is judged or started.
    pub fn next_without_starts(&self, now: Time, evaluate: &dyn Evaluate, events: &mut Vec<EventKind>) -> bool {
        let before = events.len();
        match &self.phase {
            Phase::Completed(_) => {}
            _ if self.sla_due().is_some_and(|due| due <= now) => events.extend(self.pass_sla()),
            Phase::Created => {}
            Phase::Running => events.extend(self.next_end(now, evaluate)),
            Phase::Stopping { until, hurry, .. } => {
                let event = self.next_cancel().or_else(|| self.next_stop(now, *until, *hurry));
                events.extend(event.or_else(|| self.next_settled(now, evaluate)));
            }
        }
        events.len() > before
    }

    /// When the run is late, where that was not noted yet.
    fn sla_due(&self) -> Option<Time> {
        if self.sla_passed_at().is_some() {
            return None;
        }
        self.graph.sla().map(|sla| self.created_at() + sla)
    }

    fn pass_sla(&self) -> Option<EventKind> {
        self.sla_due().map(|due| EventKind::RunSlaPassed { due })
    }

    /// What follows in a run that goes on, without starting anything.
    fn next_end(&self, now: Time, evaluate: &dyn Evaluate) -> Option<EventKind> {
        if let Some((step, failed_at)) = self.abort {
            let until = failed_at + self.graph.policy(step).critical_grace;
            return Some(EventKind::RunStopping { reason: StopReason::Abort { step }, until, hurry: false });
        }
        if let Some(event) = self.next_settled(now, evaluate) {
            return Some(event);
        }
        // After the above: a run whose last result came in before anybody looked at the clock is complete.
        let is_over = self.run_timeout().is_some_and(|due| due <= now);
        is_over.then_some(EventKind::RunStopping { reason: StopReason::Timeout, until: now, hurry: false })
    }

    fn next_running(&self, now: Time, evaluate: &dyn Evaluate, locks: &LockTable, events: &mut Vec<EventKind>) {
        if let Some(event) = self.next_end(now, evaluate) {
            events.push(event);
        } else if let Some(&step) = self.to_judge.first() {
            match evaluate.condition(self, step) {
                Ok(true) => events.push(EventKind::StepCondition { step }),
                Ok(false) => events.push(EventKind::StepSkipped { step, reason: SkipReason::Condition }),
                Err(error) => fail_unstarted(step, ExitCause::Expression { error }, events),
            }
        } else if let Some(step) = self.next_ready(now, locks) {
            self.start_events(step, evaluate, events);
        }
    }

    /// What follows without starting anything: skips, the end of the run, deadlines.
    fn next_settled(&self, now: Time, evaluate: &dyn Evaluate) -> Option<EventKind> {
        if let Some((&step, reason)) = self.to_skip.first_key_value() {
            return Some(EventKind::StepSkipped { step, reason: reason.clone() });
        }
        if self.unfinished_now() == 0 {
            return Some(self.next_part(now, evaluate));
        }
        let &(due, deadline) = self.deadlines.first()?;
        (due <= now).then(|| self.fall_due(deadline, now))
    }

    /// All steps of a part are settled: `finally` follows, or the end.
    fn next_part(&self, now: Time, evaluate: &dyn Evaluate) -> EventKind {
        let status = self.conclude();
        if self.outcome().is_some() {
            // What cleans up can spoil the success that the outputs belong to.
            let outputs = if status == RunStatus::Succeeded { self.result_outputs().clone() } else { Map::new() };
            return EventKind::RunCompleted { status, outputs };
        }
        let outputs = if status == RunStatus::Succeeded && self.graph.has_outputs() {
            match evaluate.outputs(self) {
                Ok(outputs) => outputs,
                Err(error) => {
                    let reason = StopReason::Outputs { error };
                    return EventKind::RunStopping { reason, until: now, hurry: false };
                }
            }
        } else {
            Map::new()
        };
        if self.finally_is_to_come() {
            EventKind::RunFinally { status, outputs }
        } else {
            EventKind::RunCompleted { status, outputs }
        }
    }

    /// The step that may start now, where a slot is free and no lock is needed.
    fn next_ready(&self, now: Time, locks: &LockTable) -> Option<StepIndex> {
        // A resumed run may have to take its plan's locks again first.
        if !self.has_plan_locks {
            return None;
        }
        let first = self.ready.first().copied();
        let mut free = self.free_slots();
        // The slots of steps that come earlier and could have their locks are kept for them.
        let wants_locks = free > 0 && self.wants_locks();
        for candidate in wants_locks.then(|| self.lock_candidates(now, locks)).into_iter().flatten() {
            let comes_earlier = candidate.step.is_some_and(|step| {
                self.status(step) == StepStatus::Retrying || first.is_none_or(|first| step < first)
            });
            if comes_earlier && locks.blocker(&candidate.holder, &candidate.request.names).is_none() {
                free = free.saturating_sub(1);
            }
        }
        if free == 0 {
            return None;
        }
        let due = self.retrying.range(..=(now, StepIndex(u32::MAX)));
        due.map(|(_, step)| *step).find(|step| self.graph.locks(*step).is_none()).or(first)
    }

    fn start_events(&self, step: StepIndex, evaluate: &dyn Evaluate, events: &mut Vec<EventKind>) {
        let attempt = self.attempt(step) + 1;
        // What a retry does was computed for the first attempt and stays as it was.
        let invocation = if self.invocation(step).is_some() { Ok(None) } else { evaluate.invocation(self, step) };
        match invocation {
            Ok(invocation) => events.push(EventKind::StepStarted { step, attempt, invocation }),
            Err(error) => fail_unstarted(step, ExitCause::Expression { error }, events),
        }
    }

    /// The next step that will not start because the run stops.
    fn next_cancel(&self) -> Option<EventKind> {
        if self.unfinished_now() as usize == self.running.len() {
            return None;
        }
        (self.cancel_from..self.graph.len() as u32).map(StepIndex).find_map(|step| match self.status(step) {
            StepStatus::Waiting | StepStatus::Retrying if !self.is_on(step) => None,
            StepStatus::Waiting | StepStatus::Retrying => Some(EventKind::StepCanceled { step, attempt: 0, end: None }),
            StepStatus::Running
            | StepStatus::Succeeded
            | StepStatus::Failed
            | StepStatus::Skipped
            | StepStatus::Canceled
            | StepStatus::Kept => None,
        })
    }

    /// The next running attempt that is told to end because the run stops.
    fn next_stop(&self, now: Time, until: Time, hurry: bool) -> Option<EventKind> {
        if now < until && !hurry {
            return None;
        }
        self.running.iter().find_map(|(&step, running)| {
            let attempt = running.attempt;
            let kill_at = (!hurry).then(|| now + self.graph.policy(step).stop_grace);
            match running.stopping {
                None => Some(EventKind::StepStopping { step, attempt, reason: AttemptStop::Run, kill_at }),
                Some((reason, Some(_))) if hurry => {
                    Some(EventKind::StepStopping { step, attempt, reason, kill_at: None })
                }
                Some(_) => None,
            }
        })
    }

    fn fall_due(&self, deadline: Deadline, now: Time) -> EventKind {
        let (Deadline::Timeout(step) | Deadline::Kill(step)) = deadline;
        let attempt = self.attempt(step);
        match deadline {
            Deadline::Timeout(_) => {
                let kill_at = Some(now + self.graph.policy(step).stop_grace);
                EventKind::StepStopping { step, attempt, reason: AttemptStop::Timeout, kill_at }
            }
            Deadline::Kill(_) => {
                let stopping = self.running.get(&step).and_then(|running| running.stopping);
                let reason = stopping.map_or(AttemptStop::Run, |(reason, _)| reason);
                EventKind::StepStopping { step, attempt, reason, kill_at: None }
            }
        }
    }

    /// When the steps have taken too long. Those in `finally` have only their own limits: they run also after this.
    fn run_timeout(&self) -> Option<Time> {
        if self.outcome.is_some() {
            return None;
        }
        Some(self.started? + self.graph.timeout()?)
    }

    /// How the run ends if nothing else comes. What `finally` does can spoil a success and make nothing good.
    fn conclude(&self) -> RunStatus {
        match (self.outcome, &self.phase) {
            (Some(outcome @ (RunStatus::Failed | RunStatus::Canceled)), _) => outcome,
            (_, Phase::Stopping { reason: StopReason::Cancel { .. }, .. }) => RunStatus::Canceled,
            (_, Phase::Stopping { .. }) => RunStatus::Failed,
            (None | Some(RunStatus::Succeeded), Phase::Created | Phase::Running | Phase::Completed(_)) => {
                if self.failed.iter().any(|step| self.failure_counts(*step)) {
                    RunStatus::Failed
                } else {
                    RunStatus::Succeeded
                }
            }
        }
    }

    /// How many more attempts may start now.
    pub fn free_slots(&self) -> usize {
        (self.graph.max_concurrency() as usize).saturating_sub(self.running.len())
    }

    /// When something follows from time alone; `None`: never.
    pub fn next_due(&self, now: Time, locks: &LockTable) -> Option<Time> {
        let deadline = self.deadlines.first().map(|(due, _)| *due);
        let later = (Time(now.0 + 1), StepIndex(0));
        let retry = self.retrying.range(later..).next().map(|(due, _)| *due);
        let run = match &self.phase {
            Phase::Running => self.run_timeout(),
            Phase::Stopping { until, .. } if *until > now => Some(*until),
            Phase::Created | Phase::Stopping { .. } | Phase::Completed(_) => None,
        };
        // One that has passed is of a step whose way is free: it waits for a slot only.
        let lock = self.lock_deadlines(locks).filter(|due| *due > now).min();
        let sla = if self.result().is_some() { None } else { self.sla_due() };
        [deadline, retry, run, lock, sla].into_iter().flatten().min()
    }

    fn lock_deadlines(&self, locks: &LockTable) -> impl Iterator<Item = Time> {
        locks.waiting_in(self.run).filter_map(|holder| {
            let request = match &holder.step {
                Some(step) => self.graph.locks(self.graph.find(step)?)?,
                None if self.outcome().is_some() => return None,
                None => self.graph.plan_locks(),
            };
            Some(locks.is_waiting(holder)?.since + request.wait_timeout?)
        })
    }

    /// The name under which the run, or a step of it, holds locks.
    pub fn holder(&self, step: Option<StepIndex>) -> Holder {
        Holder { run: self.run, step: step.map(|step| self.graph.id(step).to_owned()) }
    }

    /// Whatever would start if it had its locks, in the order in which it may have them.
    ///
    /// Of steps that want the same locks only one is among them: the one in line, or else the first in the plan. So a
    /// run has one place in line for each set of locks, and runs take turns.
    fn lock_candidates(&self, now: Time, locks: &LockTable) -> Vec<Candidate<'_>> {
        let mut candidates = Vec::new();
        if !self.has_plan_locks {
            let wanted = matches!(self.phase, Phase::Created | Phase::Running);
            if wanted && !self.graph.plan_locks().names.is_empty() {
                let (holder, request) = (self.holder(None), self.graph.plan_locks());
                candidates.push(Candidate { step: None, holder, request });
            }
            return candidates;
        }
        if !matches!(self.phase, Phase::Running) {
            return candidates;
        }
        let mut add = |step: StepIndex| {
            if let Some(request) = self.graph.locks(step) {
                candidates.push(Candidate { step: Some(step), holder: self.holder(Some(step)), request });
            }
        };
        self.retrying.range(..=(now, StepIndex(u32::MAX))).for_each(|(_, step)| add(*step));
        if self.ready_for_locks.is_empty() {
            return candidates;
        }
        let mut firsts: BTreeMap<u32, StepIndex> =
            self.ready_for_locks.iter().filter_map(|(request, steps)| Some((*request, *steps.first()?))).collect();
        for step in locks.waiting_in(self.run).filter_map(|holder| self.graph.find(holder.step.as_deref()?)) {
            if let Some(request) = self.graph.lock_request(step)
                && self.ready_for_locks.get(&request).is_some_and(|steps| steps.contains(&step))
            {
                firsts.insert(request, step);
            }
        }
        let mut firsts: Vec<StepIndex> = firsts.into_values().collect();
        firsts.sort_unstable();
        firsts.into_iter().for_each(add);
        candidates
    }

    /// Whether the run, or a step of it that could start otherwise, wants locks.
    pub fn wants_locks(&self) -> bool {
        if self.abort.is_some() || !matches!(self.phase, Phase::Created | Phase::Running) {
            return false;
        }
        if !self.has_plan_locks {
            return !self.graph.plan_locks().names.is_empty();
        }
        if !self.graph.has_step_locks() {
            return false;
        }
        !self.ready_for_locks.is_empty() || self.retrying.iter().any(|(_, step)| self.graph.locks(*step).is_some())
    }

    /// What the run wants of the shared locks next; `None`: nothing now. The caller commits the answer, applies it to
    /// both states, and asks again.
    pub fn next_lock_move(&self, now: Time, evaluate: &dyn Evaluate, locks: &LockTable) -> Option<LockMove> {
        // A failure that ends the run is on disk; that nothing starts any more is about to be.
        if self.abort.is_some() {
            return None;
        }
        let candidates = self.lock_candidates(now, locks);
        // Whoever waits for long enough gives up, whether or not others wait before it or a slot is free.
        for Candidate { holder, request, .. } in &candidates {
            let Some(waiting) = locks.is_waiting(holder) else { continue };
            let Some(limit) = request.wait_timeout else { continue };
            if holder.step.is_none() && self.outcome().is_some() {
                // A resumed run has to have its locks again to clean up, however long that takes.
                continue;
            }
            if waiting.since + limit <= now && locks.blocker(holder, &request.names).is_some() {
                return Some(LockMove::Fail(self.give_up_lock(holder, limit, locks, now)));
            }
        }
        if self.free_slots() == 0 {
            return None;
        }
        let wants = candidates.iter().map(|candidate| (&candidate.holder, &candidate.request.names[..]));
        if let Some((holder, names)) = locks.first_free(self.run, wants) {
            let mut events = Vec::new();
            match holder.step.as_deref().and_then(|step| self.graph.find(step)) {
                None => events.push(EventKind::RunStarted),
                Some(step) => self.start_events(step, evaluate, &mut events),
            }
            if let [EventKind::StepFailed { .. }, ..] = events[..] {
                return Some(LockMove::Fail(events));
            }
            return Some(LockMove::Grant { holder: holder.clone(), names: names.to_vec(), events });
        }
        let next = candidates.into_iter().find(|candidate| locks.is_waiting(&candidate.holder).is_none())?;
        Some(LockMove::Request { holder: next.holder, names: next.request.names.clone() })
    }

    fn give_up_lock(&self, holder: &Holder, limit: Millis, locks: &LockTable, now: Time) -> Vec<EventKind> {
        let names = locks.is_waiting(holder).map(|waiting| waiting.names.clone()).unwrap_or_default();
        let (lock, other) = match locks.blocker(holder, &names) {
            Some((lock, other)) => (lock.to_owned(), other.to_string()),
            None => (names.join(", "), "nobody".to_owned()),
        };
        match holder.step.as_deref().and_then(|step| self.graph.find(step)) {
            Some(step) => {
                let seconds = limit.0 as f64 / 1000.0;
                let error = format!("waited {seconds} s for lock `{lock}`, which {other} has or wants before it");
                let end = Box::new(AttemptEnd::bare(ExitCause::NotStarted { error }));
                // It waited for the locks of an attempt, which counts as one that failed.
                let failed = self.tries.get(&step).map_or(0, |tries| tries.failed);
                let last = failed >= self.graph.policy(step).retries;
                let mut events = vec![EventKind::StepFailed { step, attempt: 0, last, end }];
                if !last {
                    let attempt = self.attempt(step) + 1;
                    let due = now + retry_delay(self, step, attempt, failed);
                    events.push(EventKind::StepRetry { step, attempt, due });
                }
                events
            }
            None => {
                let reason = StopReason::LockWait { lock, holder: other };
                vec![EventKind::RunStopping { reason, until: now, hurry: false }]
            }
        }
    }

    /// Who of this run holds or wants locks that it has no more use for.
    pub fn locks_to_release(&self, locks: &LockTable) -> Vec<Holder> {
        let over = matches!(self.phase, Phase::Completed(_));
        let useless = |holder: &&Holder, held: bool| match holder.step.as_deref() {
            None => over || (!held && (self.has_plan_locks || matches!(self.phase, Phase::Stopping { .. }))),
            Some(step) => match self.graph.find(step) {
                None => true,
                Some(step) if held => self.status(step) != StepStatus::Running,
                Some(step) => match self.status(step) {
                    StepStatus::Waiting => over,
                    // Its place in line is of an attempt that was given up; the next one stands in line anew.
                    StepStatus::Retrying => {
                        let since = locks.is_waiting(holder).map(|waiting| waiting.since);
                        over || since.zip(self.retry_due(step)).is_some_and(|(since, due)| since < due)
                    }
                    StepStatus::Running
                    | StepStatus::Succeeded
                    | StepStatus::Failed
                    | StepStatus::Skipped
                    | StepStatus::Canceled
                    | StepStatus::Kept => true,
                },
            },
        };
        let held = locks.held_in(self.run).filter(|holder| useless(holder, true));
        let waiting = locks.waiting_in(self.run).filter(|holder| useless(holder, false));
        held.chain(waiting).cloned().collect()
    }

    /// Applies events that were decided at `now`.
    pub fn apply_all(&mut self, events: &[EventKind], now: Time) {
        for kind in events {
            self.apply(&Event { at: now, kind: kind.clone() });
        }
    }
}
