//! Many worlds, and the proof that they met everything that can be met.

use std::panic::{AssertUnwindSafe, catch_unwind};

use baton_core::event::{SkipReason, StopReason};
use baton_core::{EventKind, RunStatus};

use crate::world;

/// Things that a campaign must have met, beyond the kinds of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it, and `words` says it to people")]
pub enum Fault {
    CrashBetween,
    CrashBeforeCommit,
    CrashAfterCommit,
    Abandon,
    LateAnswer,
    FreedLocks,
    Cancel,
    Hurry,
    Hang,
    TermIgnored,
    Kill,
    LockWait,
    LockWaitTooLong,
    Knot,
    FallbackUsed,
    RunSucceeded,
    RunFailed,
    RunCanceled,
}

const FAULTS: &[(Fault, &str)] = &[
    (Fault::CrashBetween, "owners that died between transactions"),
    (Fault::CrashBeforeCommit, "owners that died before a commit"),
    (Fault::CrashAfterCommit, "owners that died after a commit, before its effects"),
    (Fault::Abandon, "runs that their owner let go"),
    (Fault::LateAnswer, "late answers refused"),
    (Fault::FreedLocks, "locks of dead owners freed by others"),
    (Fault::Cancel, "cancels"),
    (Fault::Hurry, "hurried cancels"),
    (Fault::Hang, "attempts that hang"),
    (Fault::TermIgnored, "SIGTERMs ignored"),
    (Fault::Kill, "SIGKILLs"),
    (Fault::LockWait, "waits for locks"),
    (Fault::LockWaitTooLong, "waits for locks that took too long or came to nothing"),
    (Fault::Knot, "knots of plan locks and step locks, cut by a cancel"),
    (Fault::FallbackUsed, "failures made good by a fallback"),
    (Fault::RunSucceeded, "runs that succeeded"),
    (Fault::RunFailed, "runs that failed"),
    (Fault::RunCanceled, "runs that were canceled"),
];

const KINDS: &[&str] = &[
    "run_started",
    "run_resumed",
    "run_stopping (abort)",
    "run_stopping (cancel)",
    "run_stopping (timeout)",
    "run_stopping (lock wait)",
    "run_completed",
    "step_condition",
    "step_started",
    "step_stopping",
    "step_succeeded",
    "step_failed",
    "step_timeout",
    "step_lost",
    "step_canceled",
    "step_retry",
    "step_skipped (condition)",
    "step_skipped (dependency)",
    "step_skipped (fallback)",
    "for good: step_failed",
    "for good: step_timeout",
    "for good: step_lost",
    "never started: step_failed",
    "run_stopping (outputs)",
    "run_finally (succeeded)",
    "run_finally (failed)",
    "run_finally (canceled)",
    "run_sla_passed",
];

/// What a campaign met.
#[derive(Clone, Debug)]
pub struct Counts {
    kinds: [u64; KINDS.len()],
    faults: [u64; FAULTS.len()],
    /// How many prefixes of logs were recovered.
    pub prefixes: u64,
    /// How many runs the oracle foretold step by step.
    pub foretold: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { kinds: [0; KINDS.len()], faults: [0; FAULTS.len()], prefixes: 0, foretold: 0 }
    }
}

impl Counts {
    /// Counts a fault.
    pub fn fault(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    /// Counts an event.
    pub fn event(&mut self, kind: &EventKind) {
        let place = match kind {
            EventKind::RunCreated(_) => return,
            EventKind::RunStarted => 0,
            EventKind::RunResumed { .. } => 1,
            EventKind::RunStopping { reason, .. } => match reason {
                StopReason::Abort { .. } => 2,
                StopReason::Cancel { .. } => 3,
                StopReason::Timeout => 4,
                StopReason::LockWait { .. } => 5,
                StopReason::Outputs { .. } => 23,
            },
            EventKind::RunFinally { status, .. } => match status {
                RunStatus::Succeeded => 24,
                RunStatus::Failed => 25,
                RunStatus::Canceled => 26,
            },
            EventKind::RunSlaPassed { .. } => 27,
            EventKind::RunCompleted { .. } => 6,
            EventKind::StepCondition { .. } => 7,
            EventKind::StepStarted { .. } => 8,
            EventKind::StepStopping { .. } => 9,
            EventKind::StepSucceeded { .. } => 10,
            EventKind::StepFailed { last, attempt, .. } => {
                self.kinds[19] += u64::from(*last);
                self.kinds[22] += u64::from(*attempt == 0);
                11
            }
            EventKind::StepTimeout { last, .. } => {
                self.kinds[20] += u64::from(*last);
                12
            }
            EventKind::StepLost { last, .. } => {
                self.kinds[21] += u64::from(*last);
                13
            }
            EventKind::StepCanceled { .. } => 14,
            EventKind::StepRetry { .. } => 15,
            EventKind::StepSkipped { reason, .. } => match reason {
                SkipReason::Condition => 16,
                SkipReason::Dependency { .. } => 17,
                SkipReason::FallbackNotNeeded { .. } => 18,
            },
        };
        self.kinds[place] += 1;
    }

    /// Each thing that can be met, and how often it was.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let kinds = KINDS.iter().copied().zip(self.kinds);
        let faults = FAULTS.iter().map(|(_, words)| *words).zip(self.faults);
        kinds
            .chain(faults)
            .chain([("prefixes of logs recovered", self.prefixes), ("runs foretold step by step", self.foretold)])
    }

    /// What was met fewer than `least` times: the campaign would not notice if it broke. Knots need not be met: they
    /// are what is left over where rules end.
    pub fn unmet(&self, least: u64) -> Vec<&'static str> {
        let knots = FAULTS[Fault::Knot as usize].1;
        self.rows().filter(|(words, count)| *count < least && *words != knots).map(|(words, _)| words).collect()
    }
}

/// Plays one seed. The error says what went wrong and how to see it again.
pub fn play(seed: u64, counts: &mut Counts, trace: bool) -> Result<(), String> {
    let command = format!("cargo run --release -p baton-sim -- --seed {seed}");
    match catch_unwind(AssertUnwindSafe(|| world::play(seed, counts, trace))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(wrong)) => Err(format!("{wrong}\nseed {seed}; once more with: {command}")),
        Err(_) => Err(format!("seed {seed} panicked; once more with: {command}")),
    }
}

/// Plays `seeds` from `first` on.
pub fn run(first: u64, seeds: u64) -> Result<Counts, String> {
    let mut counts = Counts::default();
    for seed in first..first + seeds {
        play(seed, &mut counts, false)?;
    }
    Ok(counts)
}
