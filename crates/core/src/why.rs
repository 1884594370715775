//! Why a step is not running: the chain of what stands in its way, with names.

use serde::Serialize;

use crate::event::{SkipReason, StopReason};
use crate::lock::{Holder, LockTable};
use crate::state::{Phase, RunState, StepStatus};
use crate::{RunId, StepIndex, Time};

/// A chain of blockers is followed this far.
pub const CHAIN_LIMIT: usize = 64;

/// One thing that stands in a step's way, or the reason why it will never run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "blocker", rename_all = "snake_case")]
pub enum Blocker {
    /// A dependency is not settled.
    Dependency {
        /// The dependency.
        step: String,
        /// Where it is.
        status: StepStatus,
        /// How many other dependencies are not settled either.
        others: u32,
    },
    /// It runs only if this step fails.
    FallbackOf {
        /// That step.
        step: String,
        /// Where it is.
        status: StepStatus,
    },
    /// A lock that it needs is held, or wanted by somebody who came first.
    Lock {
        /// The lock.
        lock: String,
        /// Who has or wants it.
        holder: Holder,
        /// Since when it has it, where it has it.
        since: Option<Time>,
    },
    /// As many attempts run as may.
    Concurrency {
        /// The limit.
        limit: u32,
        /// The steps that run, at most 8 of them.
        running: Vec<String>,
    },
    /// An attempt failed and the next one is not due yet.
    Retry {
        /// The number of the attempt to come.
        attempt: u32,
        /// When it is due.
        due: Time,
    },
    /// The plan's locks are not to be had yet.
    PlanLock {
        /// The lock.
        lock: String,
        /// Who has or wants it.
        holder: Holder,
    },
    /// The run stops, so nothing new starts.
    Stopping {
        /// Why the run stops.
        reason: String,
    },
    /// The step could start; its run has no owner that would start it.
    Abandoned {
        /// The run.
        run: RunId,
    },
    /// Nothing is in the way: it starts with the owner's next move.
    Nothing,
    /// An attempt runs.
    Running {
        /// Its number.
        attempt: u32,
        /// Since when.
        since: Time,
        /// Whether it was told to end.
        stopping: bool,
    },
    /// It is settled for good.
    Settled {
        /// How.
        status: StepStatus,
        /// Why, where that needs saying.
        reason: Option<String>,
        /// The step because of which it is so.
        because_of: Option<String>,
    },
}

/// Why the run stops, in words.
pub fn stop_reason(state: &RunState, reason: &StopReason) -> String {
    match reason {
        StopReason::Abort { step } => format!("step `{}` failed and its policy is `abort`", state.graph.id(*step)),
        StopReason::Cancel { by } => format!("canceled by {by}"),
        StopReason::Timeout => "the run took longer than its `timeout_sec`".to_owned(),
        StopReason::Outputs { error } => format!("an output could not be computed: {error}"),
        StopReason::LockWait { lock, holder } => format!("lock `{lock}` was not to be had in time: {holder} has it"),
    }
}

impl RunState {
    /// What stands in the way of `step` now, then what stands in the way of that, and so on. `owned` tells whether a
    /// live process drives the run.
    pub fn why(&self, step: StepIndex, now: Time, locks: &LockTable, owned: bool) -> Vec<Blocker> {
        let mut chain = Vec::new();
        let mut next = Some(step);
        while let Some(step) = next.take()
            && chain.len() < CHAIN_LIMIT
        {
            let blocker = self.blocker(step, now, locks, owned);
            next = match &blocker {
                Blocker::Dependency { step, .. }
                | Blocker::FallbackOf { step, .. }
                | Blocker::Settled { because_of: Some(step), .. } => self.graph.find(step),
                Blocker::Lock { .. }
                | Blocker::Concurrency { .. }
                | Blocker::Retry { .. }
                | Blocker::PlanLock { .. }
                | Blocker::Stopping { .. }
                | Blocker::Abandoned { .. }
                | Blocker::Nothing
                | Blocker::Running { .. }
                | Blocker::Settled { because_of: None, .. } => None,
            };
            chain.push(blocker);
        }
        chain
    }

    fn blocker(&self, step: StepIndex, now: Time, locks: &LockTable, owned: bool) -> Blocker {
        match self.status(step) {
            StepStatus::Waiting => self.waiting_blocker(step, locks, owned),
            StepStatus::Retrying => match self.retry_due(step) {
                Some(due) if due > now => Blocker::Retry { attempt: self.attempt(step) + 1, due },
                _ => self.slot_blocker(step, locks, owned),
            },
            StepStatus::Running => match self.running_attempt(step) {
                Some(_) if !owned => Blocker::Abandoned { run: self.run },
                Some(running) => Blocker::Running {
                    attempt: running.attempt,
                    since: running.started,
                    stopping: running.stopping.is_some(),
                },
                None => Blocker::Nothing,
            },
            status @ (StepStatus::Succeeded | StepStatus::Failed) => {
                Blocker::Settled { status, reason: self.causes.get(&step).cloned(), because_of: None }
            }
            status @ StepStatus::Kept => Blocker::Settled {
                status,
                reason: Some("outside the slice, or kept from the run that this one retries".to_owned()),
                because_of: None,
            },
            status @ StepStatus::Canceled => Blocker::Settled {
                status,
                reason: self.stop_reason_for(step).map(|reason| stop_reason(self, reason)),
                because_of: match self.stop_reason_for(step) {
                    Some(StopReason::Abort { step }) => Some(self.graph.id(*step).to_owned()),
                    _ => None,
                },
            },
            status @ StepStatus::Skipped => {
                let (reason, because_of) = match self.skip_reason(step) {
                    Some(SkipReason::Condition) | None => ("its condition is false", None),
                    Some(SkipReason::Dependency { step }) => {
                        ("a step that it depends on failed or was skipped because of a failure", Some(*step))
                    }
                    Some(SkipReason::FallbackNotNeeded { step }) => {
                        ("it is a fallback and was not needed", Some(*step))
                    }
                };
                let because_of = because_of.map(|step| self.graph.id(step).to_owned());
                Blocker::Settled { status, reason: Some(reason.to_owned()), because_of }
            }
        }
    }

    fn waiting_blocker(&self, step: StepIndex, locks: &LockTable, owned: bool) -> Blocker {
        let id = |step: StepIndex| self.graph.id(step).to_owned();
        if !self.is_on(step)
            && let Some(first) = self.graph.steps().find(|step| self.is_on(*step) && !self.status(*step).is_final())
        {
            let others = self.unfinished_now() - 1;
            return Blocker::Dependency { step: id(first), status: self.status(first), others };
        }
        match &self.phase {
            Phase::Stopping { reason, .. } => return Blocker::Stopping { reason: stop_reason(self, reason) },
            Phase::Created | Phase::Running if !self.has_plan_locks => {
                if let Some(blocker) = self.plan_lock_blocker(locks) {
                    return blocker;
                }
            }
            Phase::Created | Phase::Running | Phase::Completed(_) => {}
        }
        let unsettled = self.unsettled(step);
        if unsettled > 0
            && let Some(dependency) = self.first_unsettled(step)
        {
            return Blocker::Dependency {
                step: id(dependency),
                status: self.status(dependency),
                others: unsettled - 1,
            };
        }
        if let Some(original) = self.graph.original(step)
            && !self.is_called_fallback(step)
        {
            return Blocker::FallbackOf { step: id(original), status: self.status(original) };
        }
        self.slot_blocker(step, locks, owned)
    }

    /// The first dependency that is not settled. A failed one counts while its fallback has not settled it.
    fn first_unsettled(&self, step: StepIndex) -> Option<StepIndex> {
        self.graph.dependencies(step).iter().find_map(|&dependency| {
            if !self.status(dependency).is_final() {
                return Some(dependency);
            }
            let mut step = dependency;
            while self.status(step) == StepStatus::Failed
                && let Some(fallback) = self.graph.fallback(step)
            {
                if self.is_called_fallback(fallback) && !self.status(fallback).is_final() {
                    return Some(fallback);
                }
                step = fallback;
            }
            None
        })
    }

    fn plan_lock_blocker(&self, locks: &LockTable) -> Option<Blocker> {
        let (lock, holder) = locks.blocker(&self.holder(None), &self.graph.plan_locks().names)?;
        Some(Blocker::PlanLock { lock: lock.to_owned(), holder: holder.clone() })
    }

    fn slot_blocker(&self, step: StepIndex, locks: &LockTable, owned: bool) -> Blocker {
        if !owned {
            return Blocker::Abandoned { run: self.run };
        }
        if !self.has_plan_locks
            && let Some(blocker) = self.plan_lock_blocker(locks)
        {
            return blocker;
        }
        if let Some(request) = self.graph.locks(step)
            && let Some((lock, holder)) = locks.blocker(&self.holder(Some(step)), &request.names)
        {
            let since = locks.held_by(holder).map(|held| held.since);
            return Blocker::Lock { lock: lock.to_owned(), holder: holder.clone(), since };
        }
        if self.free_slots() == 0 {
            let running = self.running().take(8).map(|(step, _)| self.graph.id(step).to_owned()).collect();
            return Blocker::Concurrency { limit: self.graph.max_concurrency(), running };
        }
        Blocker::Nothing
    }
}
