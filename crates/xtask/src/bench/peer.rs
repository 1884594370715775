//! The contestants: how each one runs a workload.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::kept;
use super::measure::{self, Cost};
use super::race::Course;
use super::workload::Shape;

/// A program that runs a workload, or the bare loop that bounds all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    Ninja,
    /// Ninja with a command that its shell does by itself, starting no program.
    NinjaBuiltin,
    Make,
    /// Starts the program and waits for it, from as many threads as may run at once; keeps nothing.
    BareLoop,
    Baton,
}

impl Peer {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Ninja => "ninja",
            Peer::NinjaBuiltin => "ninja, done by its shell alone",
            Peer::Make => "make",
            Peer::BareLoop => "bare spawn loop",
            Peer::Baton => "baton",
        }
    }

    /// Runs the workload of a course. `data` is Baton's data directory.
    pub fn run(self, course: &Course<'_>, data: &Path) -> Result<Cost, String> {
        let folder = course.folder;
        let width = course.width.to_string();
        match self {
            Peer::Ninja | Peer::NinjaBuiltin => {
                // With its log it would still run all, as no output exists; without, every round is the same.
                let log = folder.join(".ninja_log");
                if log.exists() {
                    std::fs::remove_file(&log).map_err(|error| format!("`{}`: {error}", log.display()))?;
                }
                let file = if self == Peer::Ninja { "build.ninja" } else { "builtin.ninja" };
                measure::measure(Command::new("ninja").args(["-j", &width, "-f", file]).current_dir(folder))
            }
            Peer::Make => measure::measure(Command::new("make").args(["-j", &width]).current_dir(folder)),
            Peer::BareLoop => bare_loop(course),
            Peer::Baton => {
                let mut command = Command::new(course.baton);
                command.args(["run", "plan.json", "-j", &width, "--data-dir"]).arg(data).current_dir(folder);
                let cost = measure::measure(&mut command)?;
                kept::check(data, &course.workload)?;
                Ok(cost)
            }
        }
    }
}

fn bare_loop(course: &Course<'_>) -> Result<Cost, String> {
    let steps = course.workload.steps;
    // It knows no dependencies: that a chain runs one step at a time has to be said.
    let width = if course.workload.shape == Shape::Chain { 1 } else { course.width };
    let words = course.workload.program.words();
    let next = AtomicU32::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..width)
            .map(|_| {
                scope.spawn(|| {
                    while next.fetch_add(1, Ordering::Relaxed) < steps {
                        let mut command = Command::new(words[0]);
                        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                        let status = command.status().map_err(|error| format!("{words:?}: {error}"))?;
                        if !status.success() {
                            return Err(format!("{words:?} ended with {status}"));
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a bare loop does not panic"))
    })?;
    let wall = start.elapsed();
    // It runs in this process, whose accounts hold everything else too: only its time is a figure.
    Ok(Cost { wall, cpu: std::time::Duration::ZERO, peak_bytes: 0 })
}
