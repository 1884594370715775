//! The facts that a run's log is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{AttemptEnd, Epoch, Invocation, RunId, RunStatus, StepIndex, Time};

/// One fact in the log of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// When it was decided.
    pub at: Time,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum EventKind {
    /// The run was submitted. Always the first event, and in no other place.
    RunCreated(Box<RunCreated>),
    /// The run holds its locks and its steps may start.
    RunStarted,
    /// A new owner took the run over; what was running has ended unseen.
    RunResumed {
        /// The new owner's epoch.
        epoch: Epoch,
    },
    /// Nothing new starts; what runs is given until `until` to end by itself.
    RunStopping {
        /// Why the run stops.
        reason: StopReason,
        /// When what still runs is told to end.
        until: Time,
        /// Whether what runs is ended at once and without asking.
        hurry: bool,
    },
    /// Every other step is settled; those in `finally` may start.
    RunFinally {
        /// How the run would have ended without them.
        status: RunStatus,
        /// The values of the plan's outputs; none where the other steps did not succeed.
        outputs: Map<String, Value>,
    },
    /// The run is not over as long after its submission as its plan's `sla` says.
    RunSlaPassed {
        /// When it should have been over.
        due: Time,
    },
    /// Every step is settled. Always the last event.
    RunCompleted {
        /// The run's result.
        status: RunStatus,
        /// The values of the plan's outputs; none where the run did not succeed.
        outputs: Map<String, Value>,
    },
    /// All dependencies are settled and the step's condition holds.
    StepCondition {
        /// The step.
        step: StepIndex,
    },
    /// An attempt is about to start; its process is born after this is on disk.
    StepStarted {
        /// The step.
        step: StepIndex,
        /// The attempt.
        attempt: u32,
        /// What the attempt does, where that depends on expressions; else the plan alone says it.
        invocation: Option<Box<Invocation>>,
    },
    /// A running attempt is told to end.
    StepStopping {
        /// The step.
        step: StepIndex,
        /// The attempt.
        attempt: u32,
        /// Why.
        reason: AttemptStop,
        /// When it is ended without asking; `None`: that is now.
        kill_at: Option<Time>,
    },
    /// An attempt ended well. Final.
    StepSucceeded {
        /// The step.
        step: StepIndex,
        /// The attempt.
        attempt: u32,
        /// How it ended.
        end: Box<AttemptEnd>,
    },
    /// An attempt failed.
    StepFailed {
        /// The step.
        step: StepIndex,
        /// The attempt; 0 where an expression failed and nothing was started.
        attempt: u32,
        /// Whether no further attempt follows.
        last: bool,
        /// How it ended.
        end: Box<AttemptEnd>,
    },
    /// An attempt took longer than its timeout and was ended.
    StepTimeout {
        /// The step.
        step: StepIndex,
        /// The attempt.
        attempt: u32,
        /// Whether no further attempt follows.
        last: bool,
        /// How it ended.
        end: Box<AttemptEnd>,
    },
    /// An attempt's end was not seen because the process that drove the run died.
    StepLost {
        /// The step.
        step: StepIndex,
        /// The attempt.
        attempt: u32,
        /// Whether no further attempt follows.
        last: bool,
    },
    /// The step will not run, or its running attempt was ended, because the run stops. Final.
    StepCanceled {
        /// The step.
        step: StepIndex,
        /// The attempt that was ended; 0 where none was running.
        attempt: u32,
        /// How it ended, where one was running.
        end: Option<Box<AttemptEnd>>,
    },
    /// A further attempt will start.
    StepRetry {
        /// The step.
        step: StepIndex,
        /// The number of the attempt to come.
        attempt: u32,
        /// When it may start.
        due: Time,
    },
    /// The step will not run. Final.
    StepSkipped {
        /// The step.
        step: StepIndex,
        /// Why.
        reason: SkipReason,
    },
}

/// Why a run stops before all its steps have run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// A critical step failed and its policy is `abort`.
    Abort {
        /// The step that failed.
        step: StepIndex,
    },
    /// Somebody asked for it.
    Cancel {
        /// Who: an OS user's name, or `signal SIGINT`.
        by: String,
    },
    /// The steps took longer than the plan's `timeout_sec`.
    Timeout,
    /// An output of the plan could not be computed when its steps had succeeded.
    Outputs {
        /// The output, the values met, and the error.
        error: String,
    },
    /// The plan's locks were not to be had within its `lock_wait_timeout_sec`.
    LockWait {
        /// The lock that was in the way.
        lock: String,
        /// Who held it, in words.
        holder: String,
    },
}

/// Why a running attempt is told to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStop {
    /// It took longer than its timeout.
    Timeout,
    /// The run stops.
    Run,
}

/// Why a step is skipped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SkipReason {
    /// Its condition is false; dependents go on.
    Condition,
    /// A step that it depends on failed or was skipped because of a failure; so are its dependents.
    Dependency {
        /// That step.
        step: StepIndex,
    },
    /// It is the fallback of a step that did not need it.
    FallbackNotNeeded {
        /// The step in whose place it would have run.
        step: StepIndex,
    },
}

/// Everything that was fixed when a run was submitted.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RunCreated {
    /// The plan's `plan_id`.
    pub plan_id: String,
    /// The SHA-256 of the plan's text in hexadecimal; the store keeps the text under it.
    pub plan_sha256: String,
    /// The file the plan was read from, absolute, or `-` for standard input.
    pub plan_path: String,
    /// The folder against which relative paths are resolved, absolute.
    pub cwd: String,
    /// The plan's variables with the values they have in this run.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// The plan's inputs with the values they have in this run.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub inputs: Map<String, Value>,
    /// Labels of the run.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// A second submit with the same key answers with this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// How many attempts may run at once, where the submitter said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// The run of which this is a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<RunId>,
    /// Steps that do not run and count as succeeded: first and last places of each stretch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<(u32, u32)>,
    /// The run whose outputs the kept steps have; without one they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs_from: Option<RunId>,
    /// The slice that was asked for, as it was asked for, for people to read.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub slice: Value,
    /// The OS user who submitted it.
    #[serde(default)]
    pub submitted_by: String,
}

impl EventKind {
    /// The event's name in the store, the export and the manual.
    pub fn name(&self) -> &'static str {
        match self {
            EventKind::RunCreated(_) => "run_created",
            EventKind::RunStarted => "run_started",
            EventKind::RunResumed { .. } => "run_resumed",
            EventKind::RunStopping { .. } => "run_stopping",
            EventKind::RunFinally { .. } => "run_finally",
            EventKind::RunSlaPassed { .. } => "run_sla_passed",
            EventKind::RunCompleted { .. } => "run_completed",
            EventKind::StepCondition { .. } => "step_condition",
            EventKind::StepStarted { .. } => "step_started",
            EventKind::StepStopping { .. } => "step_stopping",
            EventKind::StepSucceeded { .. } => "step_succeeded",
            EventKind::StepFailed { .. } => "step_failed",
            EventKind::StepTimeout { .. } => "step_timeout",
            EventKind::StepLost { .. } => "step_lost",
            EventKind::StepCanceled { .. } => "step_canceled",
            EventKind::StepRetry { .. } => "step_retry",
            EventKind::StepSkipped { .. } => "step_skipped",
        }
    }

    /// The step and the attempt it is about, where it is about one. Attempt 0: none was running.
    pub fn step(&self) -> Option<(StepIndex, u32)> {
        match self {
            EventKind::RunCreated(_)
            | EventKind::RunStarted
            | EventKind::RunResumed { .. }
            | EventKind::RunStopping { .. }
            | EventKind::RunFinally { .. }
            | EventKind::RunSlaPassed { .. }
            | EventKind::RunCompleted { .. } => None,
            EventKind::StepCondition { step } | EventKind::StepSkipped { step, .. } => Some((*step, 0)),
            EventKind::StepStarted { step, attempt, .. }
            | EventKind::StepStopping { step, attempt, .. }
            | EventKind::StepSucceeded { step, attempt, .. }
            | EventKind::StepFailed { step, attempt, .. }
            | EventKind::StepTimeout { step, attempt, .. }
            | EventKind::StepLost { step, attempt, .. }
            | EventKind::StepCanceled { step, attempt, .. }
            | EventKind::StepRetry { step, attempt, .. } => Some((*step, *attempt)),
        }
    }
}
