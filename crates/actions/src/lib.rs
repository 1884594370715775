//! Effects on the world: runs what a step asks for as a tree of processes, and says exactly what came of it.

mod registry;

pub use registry::{
    ACTION_INPUT_BYTES, ActionFailure, ActionKind, EXIT_BAD_INPUT, OUTPUT_VARIABLE, catalog, run_action,
};
