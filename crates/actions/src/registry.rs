//! The actions other than `process`: one table of kinds, what each takes, and the code that runs inside its own child.

use std::io::{Read, Write};
use std::path::PathBuf;

use serde_json::{Map, Value};

/// The environment variable that names the file into which an attempt writes its outputs.
pub const OUTPUT_VARIABLE: &str = "BATON_OUTPUT";

/// The largest JSON input that an action reads.
pub const ACTION_INPUT_BYTES: u64 = 16 * 1024 * 1024;

/// The exit code of an action that was given something it cannot read.
pub const EXIT_BAD_INPUT: u8 = 2;

/// One kind of action.
#[derive(Clone, Copy)]
pub struct ActionKind {
    /// The name in a step's `uses`.
    pub kind: &'static str,
    /// One sentence for the manual.
    pub doc: &'static str,
    /// The JSON Schema of the step's `with`.
    pub schema: fn() -> Value,
    /// Does the work, inside a process of its own, in the step's working folder; answers with the step's outputs.
    pub run: fn(Value) -> Result<Map<String, Value>, ActionFailure>,
}

/// Why an action failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ActionFailure {
    /// The exit code of the attempt; not 0.
    pub exit_code: u8,
    /// What was met, what was expected, and what to do next.
    pub message: String,
}

/// Every kind of action other than `process`, by name.
pub fn catalog() -> Vec<ActionKind> {
    let mut kinds: Vec<ActionKind> = Vec::new();
    // ---- registry: add each family's kinds here ----
    kinds.extend_from_slice(crate::git::KINDS);
    // ---- end of registry ----
    kinds.sort_by_key(|kind| kind.kind);
    kinds
}

/// What `baton action <kind>` does: reads the input, runs the action, writes its outputs, says what failed.
/// The answer is the exit code of the process.
pub fn run_action(kind: &str, input: impl Read) -> u8 {
    match perform(kind, input) {
        Ok(()) => 0,
        Err(failure) => {
            // Nobody can be told when standard error is closed, and the exit code says it too.
            let _ = writeln!(std::io::stderr(), "{}", failure.message);
            failure.exit_code
        }
    }
}

fn perform(kind: &str, input: impl Read) -> Result<(), ActionFailure> {
    let bad = |message: String| ActionFailure { exit_code: EXIT_BAD_INPUT, message };
    let action = catalog().into_iter().find(|known| known.kind == kind).ok_or_else(|| {
        let known: Vec<&str> = catalog().iter().map(|known| known.kind).collect();
        bad(format!("there is no action `{kind}`; there are: process, {}", known.join(", ")))
    })?;
    let mut text = Vec::new();
    input
        .take(ACTION_INPUT_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| bad(format!("cannot read the input of `{kind}` from standard input: {error}")))?;
    let with: Value = serde_json::from_slice(&text)
        .map_err(|error| bad(format!("the input of `{kind}` on standard input is not JSON: {error}")))?;
    let outputs = (action.run)(with)?;
    write_outputs(&outputs).map_err(|error| ActionFailure {
        exit_code: 1,
        message: format!("`{kind}` did its work but cannot write its outputs to ${OUTPUT_VARIABLE}: {error}"),
    })
}

fn write_outputs(outputs: &Map<String, Value>) -> std::io::Result<()> {
    if outputs.is_empty() {
        return Ok(());
    }
    // Run by hand, outside a step, an action has nowhere to put outputs; then they are shown.
    let mut line = serde_json::to_vec(outputs)?;
    line.push(b'\n');
    match std::env::var_os(OUTPUT_VARIABLE).map(PathBuf::from) {
        Some(path) => std::fs::OpenOptions::new().append(true).create(true).open(path)?.write_all(&line),
        None => std::io::stdout().write_all(&line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_is_refused_by_name() {
        let failure = perform("no.such", &b"{}"[..]).unwrap_err();
        assert_eq!(failure.exit_code, EXIT_BAD_INPUT);
        assert!(failure.message.contains("no action `no.such`"), "{}", failure.message);
    }

    #[test]
    fn every_kind_is_named_once_and_its_schema_describes_an_object() {
        let kinds = catalog();
        for pair in kinds.windows(2) {
            assert_ne!(pair[0].kind, pair[1].kind);
        }
        for kind in kinds {
            assert_ne!(kind.kind, "process");
            assert_eq!((kind.schema)()["type"], "object", "{}", kind.kind);
        }
    }
}
