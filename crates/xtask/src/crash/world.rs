//! The world of one worker: a data directory, a ledger, and the real program that is run in it again and again.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::step::{LEDGER, WORLD};
use crate::workspace;

/// The reference plans, in the order in which they are run.
pub const PLANS: &[&str] = &["first", "retries", "policies", "locks", "abort", "output", "deaf", "finally"];

/// The steps that the reference plans must have in all.
pub const MIN_STEPS: usize = 40;

/// A program that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder of one worker. Everything in it is made anew for each try, always under the same names: a run
/// remembers where it was started.
pub struct World {
    folder: PathBuf,
    baton: PathBuf,
}

/// What a command said.
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl World {
    /// A new world in `folder`, for the program `baton`.
    pub fn new(folder: PathBuf, baton: &Path) -> Result<World, String> {
        let world = World { folder, baton: baton.to_path_buf() };
        make(&world.folder)?;
        for (name, plan_bytes) in TEMPLATES {
            world.make_template(name, *plan_bytes)?;
        }
        Ok(world)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What the traced program printed.
    pub fn told(&self) -> PathBuf {
        self.folder.join("told")
    }

    /// What the steps wrote down.
    pub fn ledger(&self) -> PathBuf {
        self.folder.join(LEDGER)
    }

    /// A store that has seen a run, so that a plan's own writes are not buried under those that make a store.
    fn make_template(&self, name: &str, plan_bytes: usize) -> Result<(), String> {
        self.clear()?;
        self.warm_up(plan_bytes)?;
        let template = self.folder.join(name);
        if template.exists() {
            fs::remove_dir_all(&template).map_err(|error| format!("`{}`: {error}", template.display()))?;
        }
        fs::rename(self.data(), &template).map_err(|error| format!("`{}`: {error}", template.display()))
    }

    /// Runs a plan of one step and about so many bytes.
    pub fn warm_up(&self, plan_bytes: usize) -> Result<(), String> {
        const NOTHING: &str = "# Nothing.\n";
        let plan = NOTHING.repeat(plan_bytes / NOTHING.len()) + WARM_UP;
        let said = self.run(&mut self.command(&["run", "-", "--output", "json"], Some(&plan)))?;
        if said.code == Some(0) {
            Ok(())
        } else {
            Err(format!("the program cannot run a plan of one step:\n{}{}", said.stdout, said.stderr))
        }
    }

    /// As it is before a plan is run: with a store, or for the first plan without.
    pub fn reset(&self, plan: &str) -> Result<(), String> {
        self.clear()?;
        let template = match plan {
            "first" => return Ok(()),
            "policies" => "nearly-full",
            "locks" => "begun-again",
            _ => "plain",
        };
        copy_tree(&self.folder.join(template), &self.data())
    }

    /// Without data and ledger.
    pub fn clear(&self) -> Result<(), String> {
        let here = self.folder.join("here");
        make(&here)?;
        if self.data().exists() {
            fs::remove_dir_all(self.data()).map_err(|error| format!("`{}`: {error}", self.data().display()))?;
        }
        for file in [self.ledger(), self.told()] {
            fs::write(&file, "").map_err(|error| format!("`{}`: {error}", file.display()))?;
        }
        Ok(())
    }

    /// The command that runs a reference plan.
    pub fn run_plan(&self, plan: &str) -> Result<Command, String> {
        let program = std::env::current_exe().map_err(|error| format!("where is this program: {error}"))?;
        let variable = format!("PROGRAM={}", program.display());
        let file = plan_file(plan).display().to_string();
        Ok(self.command(&["run", &file, "--var", &variable, "--output", "json"], None))
    }

    /// The command that goes on with what was abandoned.
    pub fn resume(&self) -> Command {
        self.command(&["resume", "--output", "json"], None)
    }

    /// A command of the program in this world. What it prints is added to what was told.
    fn command(&self, arguments: &[&str], input: Option<&str>) -> Command {
        let mut command = Command::new(&self.baton);
        command.args(arguments).arg("--data-dir").arg(self.data());
        command.current_dir(self.folder.join("here")).env(WORLD, &self.folder).env_remove("BATON_ATTEMPT");
        command.stdin(Stdio::null());
        if let Some(text) = input {
            // A file: a pipe would want somebody to fill it.
            let path = self.folder.join("input");
            if fs::write(&path, text).is_ok()
                && let Ok(file) = File::open(&path)
            {
                command.stdin(file);
            }
        }
        command
    }

    /// Asks the program something, and keeps its answer apart from what was told.
    pub fn ask(&self, arguments: &[&str]) -> Result<Said, String> {
        self.run(&mut self.command(arguments, None))
    }

    /// Runs a command to its end; one that does not end is killed and is a failure.
    pub fn run(&self, command: &mut Command) -> Result<Said, String> {
        let (out, err) = (self.folder.join("stdout"), self.folder.join("stderr"));
        let create = |path: &Path| File::create(path).map_err(|error| format!("`{}`: {error}", path.display()));
        command.stdout(create(&out)?).stderr(create(&err)?);
        let mut child = command.spawn().map_err(|error| format!("cannot start {command:?}: {error}"))?;
        let is_over = super::kernel::wait_for_end(child.id(), PATIENCE)?;
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        if !is_over {
            let _ = child.kill();
        }
        let status = child.wait().map_err(|error| format!("cannot wait for {command:?}: {error}"))?;
        let said = Said { code: status.code(), stdout: read(&out), stderr: read(&err) };
        if is_over {
            Ok(said)
        } else {
            Err(format!(
                "stuck: {command:?} did not end within {} s; it said:\n{}{}",
                PATIENCE.as_secs(),
                said.stdout,
                said.stderr
            ))
        }
    }

    /// Ends whatever steps of this world still run, and answers with their names: there should be none.
    pub fn end_steps(&self) -> Vec<String> {
        let mark = format!("{WORLD}={}", self.folder.display());
        let mut names = Vec::new();
        let start = Instant::now();
        // What was killed takes a moment to be gone.
        while start.elapsed() < PATIENCE {
            let found = with_variable(&mark);
            if found.is_empty() {
                break;
            }
            for process in found {
                super::kernel::kill(process);
                names.push(process.to_string());
            }
        }
        names.sort();
        names.dedup();
        names
    }
}

/// Stores to begin with, and how many bytes the plan had that each has seen. The store moves its WAL into the database
/// when it is closed and the WAL has become long: in one template that comes with the next run, in another it has just
/// been, so that the next run writes over the WAL's old content.
const TEMPLATES: &[(&str, usize)] = &[("plain", 0), ("nearly-full", 800_000), ("begun-again", 1_100_000)];

/// One step, to make a store and to see that the program works at all.
const WARM_UP: &str = "plan_id: warm-up\nsteps:\n  - {id: only, command: /bin/true}\n";

/// The file of a reference plan.
pub fn plan_file(plan: &str) -> PathBuf {
    workspace::root().join("crates/xtask/plans/crash").join(format!("{plan}.yaml"))
}

/// Steps of ours among the processes: those with this in their environment, apart from zombies.
fn with_variable(mark: &str) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|process| {
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .collect()
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("`{}`: {error}", folder.display()))
}

/// Copies files and folders. The ballast, which is only ever made and removed, is shared.
pub fn copy_tree(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("copying `{}`: {error}", from.display());
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).map_err(failed)?, target).map_err(failed)?;
        } else if entry.file_name() == "ballast" {
            fs::hard_link(entry.path(), target).map_err(failed)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target).map_err(failed)?;
        }
    }
    Ok(())
}
