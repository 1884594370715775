//! What one attempt is to run: an invocation made concrete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_core::graph::ExitCodes;
use baton_core::{Invocation, RunId};
use serde_json::Value;

/// The action that runs a program.
pub const PROCESS: &str = "process";

/// The program that runs the commands of steps with `shell: true`.
const SHELL: &str = "/bin/sh";

/// What the engine knows of an attempt beyond its invocation.
#[derive(Clone, Debug)]
pub struct JobContext<'a> {
    /// The name of the data directory in `BATON_ATTEMPT`.
    pub store: &'a str,
    /// The run.
    pub run: RunId,
    /// The step path, such as `build`.
    pub step: &'a str,
    /// The attempt's number.
    pub number: u32,
    /// The folder against which relative working folders are resolved, absolute.
    pub base: &'a Path,
    /// This program, for actions that run inside it.
    pub self_exe: &'a Path,
    /// The step's artefact globs.
    pub artifacts: &'a [String],
    /// Whether what the main process leaves running stays.
    pub detach: bool,
    /// How long what the main process left running may go on.
    pub stop_grace: Duration,
    /// The exit codes that mean success.
    pub accept: ExitCodes,
}

/// One attempt, ready to be started.
#[derive(Clone, Debug)]
pub struct Job {
    /// The program as it was asked for (searched in `PATH` unless it holds a `/`) and its arguments.
    pub arguments: Vec<String>,
    /// The working folder, absolute.
    pub folder: PathBuf,
    /// Variables on top of this process's environment.
    pub environment: BTreeMap<String, String>,
    /// What it reads on standard input; `None`: nothing.
    pub input: Option<Vec<u8>>,
    /// `<store>/<run>/<step path>/<n>`: the value of `BATON_ATTEMPT`.
    pub attempt_name: String,
    /// The value of `BATON_RUN_ID`.
    pub run: RunId,
    /// The value of `BATON_STEP_ID`.
    pub step: String,
    /// The value of `BATON_ATTEMPT_NUMBER`.
    pub number: u32,
    /// Globs of the files to keep, relative to the working folder.
    pub artifacts: Vec<String>,
    /// Whether what the main process leaves running stays.
    pub detach: bool,
    /// How long what the main process left running may go on.
    pub stop_grace: Duration,
    /// The exit codes that mean success.
    pub accept: ExitCodes,
}

/// An invocation that cannot be made into a job. The plan's checker refuses these first.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JobError {
    /// A field of a process step is missing or of the wrong type.
    #[error("`{field}` of a process step must be {expected}, but it is {found}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is, as JSON.
        found: String,
    },
    /// The registry has no such action.
    #[error("there is no action `{kind}` in this version of baton; `baton schema` lists them")]
    UnknownAction {
        /// The step's `uses`.
        kind: String,
    },
}

impl Job {
    /// Makes an invocation concrete. An action that is not a process becomes this program as `baton action <kind>`.
    pub fn from_invocation(invocation: &Invocation, context: &JobContext<'_>) -> Result<Self, JobError> {
        let (arguments, input) = if invocation.uses == PROCESS {
            (process_arguments(&invocation.with, context.step)?, None)
        } else if crate::catalog().iter().any(|known| known.kind == invocation.uses) {
            let program = context.self_exe.to_string_lossy().into_owned();
            let arguments = vec![program, "action".to_owned(), invocation.uses.clone()];
            (arguments, Some(invocation.with.to_string().into_bytes()))
        } else {
            return Err(JobError::UnknownAction { kind: invocation.uses.clone() });
        };
        let folder = match invocation.cwd.as_str() {
            "" | "." => context.base.to_owned(),
            relative => context.base.join(relative),
        };
        Ok(Self {
            arguments,
            folder,
            environment: invocation.env.clone(),
            input,
            attempt_name: format!("{}/{}/{}/{}", context.store, context.run, context.step, context.number),
            run: context.run,
            step: context.step.to_owned(),
            number: context.number,
            artifacts: context.artifacts.to_vec(),
            detach: context.detach,
            stop_grace: context.stop_grace,
            accept: context.accept,
        })
    }
}

fn process_arguments(with: &Value, step: &str) -> Result<Vec<String>, JobError> {
    let wrong = |field, expected, found: &Value| JobError::Field { field, expected, found: found.to_string() };
    let command = match &with["command"] {
        Value::String(command) if !command.is_empty() => command.clone(),
        other => return Err(wrong("command", "a string that is not empty", other)),
    };
    let mut arguments = match &with["shell"] {
        Value::Null | Value::Bool(false) => vec![command],
        Value::Bool(true) => vec![SHELL.to_owned(), "-c".to_owned(), command, step.to_owned()],
        other => return Err(wrong("shell", "true or false", other)),
    };
    match &with["args"] {
        Value::Null => {}
        Value::Array(list) => {
            for argument in list {
                match argument {
                    Value::String(text) => arguments.push(text.clone()),
                    other => return Err(wrong("args", "a list of strings", other)),
                }
            }
        }
        other => return Err(wrong("args", "a list of strings", other)),
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(uses: &str, with: Value, cwd: &str) -> Result<Job, JobError> {
        let invocation = Invocation { uses: uses.into(), with, cwd: cwd.into(), env: BTreeMap::new() };
        let context = JobContext {
            store: "store-1",
            run: RunId(12),
            step: "build",
            number: 2,
            base: Path::new("/srv/project"),
            self_exe: Path::new("/usr/bin/baton"),
            artifacts: &[],
            detach: false,
            stop_grace: Duration::from_secs(10),
            accept: ExitCodes::ZERO,
        };
        Job::from_invocation(&invocation, &context)
    }

    #[test]
    fn a_process_step_becomes_its_own_arguments() {
        let job = job(PROCESS, json!({"command": "cargo", "args": ["test", "a b"]}), "sub").unwrap();
        assert_eq!(job.arguments, ["cargo", "test", "a b"]);
        assert_eq!(job.folder, Path::new("/srv/project/sub"));
        assert_eq!(job.attempt_name, "store-1/12/build/2");
    }

    #[test]
    fn a_shell_step_gets_its_id_as_the_scripts_name() {
        let job = job(PROCESS, json!({"command": "echo $1", "args": ["x"], "shell": true}), "/tmp").unwrap();
        assert_eq!(job.arguments, ["/bin/sh", "-c", "echo $1", "build", "x"]);
        assert_eq!(job.folder, Path::new("/tmp"));
    }

    #[test]
    fn wrong_fields_are_named_with_what_was_met() {
        let error = job(PROCESS, json!({"command": "x", "args": [1]}), ".").unwrap_err();
        assert_eq!(error.to_string(), "`args` of a process step must be a list of strings, but it is 1");
        let error = job(PROCESS, json!({}), ".").unwrap_err();
        assert_eq!(error.to_string(), "`command` of a process step must be a string that is not empty, but it is null");
        assert_eq!(job("no.such", json!({}), ".").unwrap_err(), JobError::UnknownAction { kind: "no.such".into() });
    }
}
