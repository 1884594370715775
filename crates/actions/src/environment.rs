//! The environment that steps inherit, taken once, and what each attempt adds to it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::OUTPUT_VARIABLE;
use crate::job::Job;
use crate::program::StartError;
use crate::sys::StringBlock;

/// The variable by which the processes of an attempt are found again.
pub const ATTEMPT_VARIABLE: &str = "BATON_ATTEMPT";

/// The beginning of an attempt's name, `<store>/<run>/<step path>/<n>`, that names its run: `<store>/<run>/`.
pub(crate) fn run_prefix_of(attempt_name: &str) -> &str {
    let end = attempt_name.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    &attempt_name[..end]
}

const RUN_VARIABLE: &str = "BATON_RUN_ID";
const STEP_VARIABLE: &str = "BATON_STEP_ID";
const NUMBER_VARIABLE: &str = "BATON_ATTEMPT_NUMBER";

/// Set anew for each attempt; a plan cannot set them, and those of an outer run are not passed on.
const OURS: [&str; 5] = [ATTEMPT_VARIABLE, RUN_VARIABLE, STEP_VARIABLE, NUMBER_VARIABLE, OUTPUT_VARIABLE];

/// What every step inherits.
pub(crate) struct Environment {
    inherited: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// As this process has it now.
    pub(crate) fn snapshot() -> Self {
        let mut inherited: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        for name in OURS {
            inherited.remove(OsStr::new(name));
        }
        Self { inherited }
    }

    /// Where a job's programs are searched.
    pub(crate) fn path<'a>(&'a self, job: &'a Job) -> Option<&'a OsStr> {
        job.environment
            .get("PATH")
            .map(OsStr::new)
            .or_else(|| self.inherited.get(OsStr::new("PATH")).map(|path| &**path))
    }

    /// Fills `block` with the environment of one attempt, ours first, so that a scan of `/proc` finds it soon.
    pub(crate) fn fill(&self, block: &mut StringBlock, job: &Job, output_path: &[u8]) -> Result<(), StartError> {
        block.clear();
        let run = job.run.to_string();
        let number = job.number.to_string();
        let values: [&[u8]; 5] =
            [job.attempt_name.as_bytes(), run.as_bytes(), job.step.as_bytes(), number.as_bytes(), output_path];
        for (name, value) in OURS.iter().zip(values) {
            push(block, name.as_bytes(), value)?;
        }
        for (name, value) in &job.environment {
            if !OURS.contains(&name.as_str()) {
                push(block, name.as_bytes(), value.as_bytes())?;
            }
        }
        for (name, value) in &self.inherited {
            let replaced =
                !job.environment.is_empty() && name.to_str().is_some_and(|name| job.environment.contains_key(name));
            if !replaced {
                push(block, name.as_bytes(), value.as_bytes())?;
            }
        }
        Ok(())
    }
}

fn push(block: &mut StringBlock, name: &[u8], value: &[u8]) -> Result<(), StartError> {
    block
        .push(&[name, b"=", value])
        .map_err(|_| StartError::Nul { what: format!("the environment variable `{}`", String::from_utf8_lossy(name)) })
}
