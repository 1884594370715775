//! The pure core: what a run is, what happens next, and why not.
//!
//! A run is its log. [`decide()`] turns an input into events and changes nothing; [`RunState::apply`] folds an
//! event into state; what must be happening now is read from the state. Recovery is the same fold.
//! Nothing here reads a clock, draws a random number, touches a file, awaits, or iterates a hash map.

pub mod action;
pub mod decide;
pub mod event;
pub mod graph;
pub mod lock;
pub mod mask;
pub mod operation;
pub mod state;
pub mod time;
pub mod value;
pub mod why;

pub use action::{AttemptEnd, ExitCause, Invocation, Output};

pub use decide::{Evaluate, Input, decide};
pub use event::{Event, EventKind, RunCreated};
pub use graph::{Graph, GraphBuilder, OnFailure, Policy, StepIndex};
pub use state::{Phase, RunState, RunStatus, StepStatus};
pub use time::{Millis, Time};

use serde::{Deserialize, Serialize};

/// The number of a run in its data directory, from 1 up, in the order of submission.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an ownership: a later owner of anything has a higher one, and the store refuses a lower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// A log: the one of a run, or the one that all runs of a data directory share (locks).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Log {
    /// The log that all runs of a data directory share.
    Shared,
    /// The log of one run.
    Run(RunId),
}

/// One attempt of one step of one run: the name of a piece of work everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attempt {
    /// The run.
    pub run: RunId,
    /// The step, by its place in the plan.
    pub step: StepIndex,
    /// The attempt's number, from 1 up.
    pub number: u32,
}
