//! Effects on the world: runs what a step asks for as a tree of processes, and says exactly what came of it.
//!
//! This crate never retries, schedules, or writes to a store.

mod artifacts;
mod cgroups;
mod environment;
mod git;
mod host;
mod job;
mod lineage;
mod mark;
mod outputs;
mod program;
mod registry;
mod scratch;
mod survivors;
mod sys;

pub use artifacts::{ARTIFACT_BYTES, ARTIFACTS, FoundArtifact};
pub use cgroups::own_cgroup;
pub use environment::ATTEMPT_VARIABLE;
pub use host::{CaughtSignal, Containment, Ended, Host, HostEvent, HostOptions, Stop};
pub use job::{Job, JobContext, JobError, PROCESS};
pub use outputs::OUTPUTS_BYTES;
pub use program::StartError;
pub use registry::{
    ACTION_INPUT_BYTES, ActionFailure, ActionKind, EXIT_BAD_INPUT, OUTPUT_VARIABLE, catalog, run_action,
};
pub use survivors::{Survivor, SurvivorError, end_survivors, survivors, wait_for_survivors};
