//! What a step asks of the world, and what came of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Millis;

/// What an attempt is to do, with every template already replaced by its value.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Invocation {
    /// The action's kind: `process`, or one of the registry's, such as `git.merge`.
    pub uses: String,
    /// The action's input. For `process`: `{"command": "…", "args": ["…"], "shell": false}`.
    pub with: Value,
    /// The working folder, relative to the folder where the run was started, or absolute.
    pub cwd: String,
    /// Variables on top of the environment of the process that drives the run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// Why an attempt ended: what the operating system said, not what we make of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum ExitCause {
    /// The main process exited with this code.
    Exit {
        /// The exit code, 0 to 255.
        code: i32,
    },
    /// A signal ended the main process.
    Signal {
        /// The signal's number.
        signal: i32,
        /// The signal's name, such as `SIGKILL`.
        name: String,
        /// Whether a core file was written.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        core_dumped: bool,
    },
    /// The kernel's out-of-memory killer ended it.
    OutOfMemory,
    /// The process could not be started.
    NotStarted {
        /// What was tried, what the system said, and what to do about it.
        error: String,
    },
    /// The value of an expression could not be computed, so nothing was started.
    Expression {
        /// The expression, the values it met, and the error.
        error: String,
    },
    /// What the process left behind (its outputs or artefacts) could not be taken.
    BadResult {
        /// What was found and what was expected.
        error: String,
    },
    /// The process that drove the run died, so nobody saw the end.
    Lost,
}

/// What an attempt printed: standard output and standard error in the order of arrival.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Output {
    /// It printed nothing.
    #[default]
    None,
    /// It printed little enough to stand in the event (at most [`INLINE_OUTPUT_BYTES`]).
    Inline(Vec<u8>),
    /// It stands in the run's output segment.
    Segment {
        /// Where the attempt's first chunk begins.
        start: u64,
        /// Where the attempt's last chunk ends.
        end: u64,
        /// How many bytes were printed.
        bytes: u64,
        /// How many of them were not kept because of a size cap; the segment marks where.
        cut_bytes: u64,
    },
}

/// Output up to this size stands in the event itself.
pub const INLINE_OUTPUT_BYTES: usize = 4096;

/// A file that an attempt left behind on purpose.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Artifact {
    /// The path relative to the step's working folder.
    pub path: String,
    /// The size in bytes.
    pub bytes: u64,
    /// The content's SHA-256 in hexadecimal: the name under which the store keeps it.
    pub sha256: String,
}

/// How one attempt ended.
#[derive(Clone, PartialEq, Debug)]
pub struct AttemptEnd {
    /// The cause, as the operating system told it.
    pub cause: ExitCause,
    /// From the start of the process to its end.
    pub duration: Millis,
    /// What it printed.
    pub output: Output,
    /// The values it set through `$BATON_OUTPUT`.
    pub outputs: Map<String, Value>,
    /// The files it left.
    pub artifacts: Vec<Artifact>,
    /// Processes of its tree that outlived the main one and were ended: `pid name` of each, at most 16.
    pub leftovers: Vec<String>,
}

impl AttemptEnd {
    /// An end with this cause and nothing else to tell.
    pub fn bare(cause: ExitCause) -> Self {
        Self {
            cause,
            duration: Millis(0),
            output: Output::None,
            outputs: Map::new(),
            artifacts: Vec::new(),
            leftovers: Vec::new(),
        }
    }
}

impl std::fmt::Display for ExitCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ExitCause::Exit { code } => write!(f, "exit code {code}"),
            ExitCause::Signal { signal, name, core_dumped } => {
                write!(f, "ended by {name} (signal {signal}{})", if *core_dumped { ", core dumped" } else { "" })
            }
            ExitCause::OutOfMemory => write!(f, "ended by the kernel: out of memory"),
            ExitCause::NotStarted { error } | ExitCause::Expression { error } | ExitCause::BadResult { error } => {
                write!(f, "{error}")
            }
            ExitCause::Lost => write!(f, "lost: the process that drove the run died"),
        }
    }
}
