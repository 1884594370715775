//! The state of a run: the fold of its log.

use serde::{Deserialize, Serialize};

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

/// Where a step is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
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

/// placeholder
#[derive(Debug)]
pub struct RunState;
