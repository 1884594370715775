//! A small world for the tests: a host, jobs from shell scripts, and what became of them.
#![allow(dead_code, reason = "each test program uses its part of this")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_actions::{Ended, Host, HostEvent, HostOptions, Job, StartError, Stop};
use baton_core::graph::ExitCodes;
use baton_core::{Attempt, Epoch, ExitCause, RunId, StepIndex};

/// No test waits longer than this for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// As what a world's host owns its runs.
pub const OWNER: Epoch = Epoch(3);

/// A host with a folder of its own, and everything its attempts printed.
pub struct World {
    pub host: Host,
    pub folder: tempfile::TempDir,
    pub store: String,
    pub printed: BTreeMap<u32, Vec<u8>>,
    pub ended: BTreeMap<u32, Ended>,
    pub others: Vec<HostEvent>,
    next: u32,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    pub fn new() -> Self {
        Self::in_cgroup(baton_actions::own_cgroup())
    }

    /// A world whose host makes its cgroups in this one.
    pub fn in_cgroup(cgroup: Option<PathBuf>) -> Self {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        // A process has one host: two would claim each other's orphans. Under `cargo test` the tests take turns.
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("a scratch folder");
        let options =
            HostOptions { scratch: folder.path().join("scratch"), catch_signals: false, cgroup, owner: OWNER };
        let host = Host::new(options).expect("a host on this machine");
        let store = format!("test-{}-{}", std::process::id(), WORLDS.fetch_add(1, Ordering::Relaxed));
        let (printed, ended, others) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { host, folder, store, printed, ended, others, next: 0, _turn: turn }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn job(&self, arguments: &[&str]) -> Job {
        Job {
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            folder: self.folder.path().to_owned(),
            environment: BTreeMap::new(),
            input: None,
            attempt_name: format!("{}/1/step/{}", self.store, self.next + 1),
            run: RunId(1),
            step: "step".to_owned(),
            number: self.next + 1,
            artifacts: Vec::new(),
            detach: false,
            stop_grace: Duration::from_millis(300),
            accept: ExitCodes::ZERO,
        }
    }

    pub fn shell(&self, script: &str) -> Job {
        self.job(&["sh", "-c", script])
    }

    pub fn try_start(&mut self, job: Job) -> Result<u32, StartError> {
        self.host.start(key(self.next + 1), job)?;
        self.next += 1;
        Ok(self.next)
    }

    /// Starts a job; the answer is its number in this world.
    pub fn start(&mut self, job: Job) -> u32 {
        self.try_start(job).unwrap_or_else(|error| panic!("not started: {}", error.describe()))
    }

    pub fn stop(&mut self, number: u32, how: Stop) {
        self.host.signal(key(number), how);
    }

    /// One round of the host.
    pub fn round(&mut self) {
        let mut events = Vec::new();
        self.host.wait(Some(Duration::from_millis(100)), &mut events).expect("a round of the host");
        for event in events {
            match event {
                HostEvent::Output { key, bytes } => self.printed.entry(key.number).or_default().extend(bytes),
                HostEvent::Ended { key, end } => {
                    let twice = self.ended.insert(key.number, *end);
                    assert!(twice.is_none(), "an attempt ends once");
                }
                other => self.others.push(other),
            }
        }
    }

    /// Rounds until `done`.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "waited too long until {what}; printed: {}", self.all_text());
            self.round();
        }
    }

    pub fn until_printed(&mut self, number: u32, text: &str) {
        self.until(text, |world| world.text(number).contains(text));
    }

    /// Rounds until this attempt has ended.
    pub fn end_of(&mut self, number: u32) -> Ended {
        self.until("an attempt ended", |world| world.ended.contains_key(&number));
        self.ended[&number].clone()
    }

    /// Runs one job to its end.
    pub fn run(&mut self, job: Job) -> (Ended, String) {
        let number = self.start(job);
        let end = self.end_of(number);
        (end, self.text(number))
    }

    pub fn text(&self, number: u32) -> String {
        String::from_utf8_lossy(self.printed.get(&number).map_or(&[], Vec::as_slice)).into_owned()
    }

    fn all_text(&self) -> String {
        self.printed.keys().map(|number| format!("\n{number}: {}", self.text(*number))).collect()
    }
}

pub fn key(number: u32) -> Attempt {
    Attempt { run: RunId(1), step: StepIndex(0), number }
}

pub fn code(end: &Ended) -> i32 {
    match end.cause {
        ExitCause::Exit { code } => code,
        ref other => panic!("expected an exit code, met {other:?}"),
    }
}

/// Whether a process exists and is more than a zombie.
pub fn lives(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !matches!(stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()), Some('Z' | 'X') | None)
}

/// The processes whose command line holds this text.
pub fn processes_with(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let path: PathBuf = entry.path();
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(text) && lives(pid) {
            found.push(pid);
        }
    }
    found
}
