//! Rows without processes: the engine's own program for them, started once per round.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{run, workspace};

/// The program: `in_process <row> <data folder>` prints one JSON object of numbers.
const PACKAGE: &str = "baton-engine";
const EXAMPLE: &str = "in_process";

/// The program, built.
pub struct InProcess {
    path: PathBuf,
}

impl InProcess {
    /// Builds it; an error says why it is not there.
    pub fn build() -> Result<InProcess, String> {
        let source = workspace::root().join("crates/engine/examples").join(EXAMPLE).with_extension("rs");
        if !source.exists() {
            return Err(format!("{PACKAGE} has no example `{EXAMPLE}`"));
        }
        run::show(&mut run::cargo(&["build", "--release", "--locked", "--package", PACKAGE, "--example", EXAMPLE]))?;
        Ok(InProcess { path: workspace::target_folder()?.join("release/examples").join(EXAMPLE) })
    }

    /// The numbers that one run of it prints for a row.
    pub fn figures(&self, row: &str, data: &Path, names: &[&str]) -> Result<Vec<f64>, String> {
        let cannot = |problem: String| format!("`{EXAMPLE} {row}` {problem}");
        let output = Command::new(&self.path)
            .arg(row)
            .arg(data)
            .output()
            .map_err(|error| cannot(format!("cannot be started: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(cannot(format!("ended with {}: {}", output.status, said.trim_end())));
        }
        let value: Value =
            serde_json::from_slice(&output.stdout).map_err(|error| cannot(format!("prints no JSON: {error}")))?;
        let number = |name: &&str| value[*name].as_f64().ok_or_else(|| cannot(format!("prints no `{name}`: {value}")));
        names.iter().map(number).collect()
    }
}
