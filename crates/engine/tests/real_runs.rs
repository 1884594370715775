//! Runs on a real data directory with real processes, through the engine alone.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::{Log, Millis, RunCreated, RunId, RunStatus, StepIndex};
use baton_engine::{Clock, Drive, LocalEngine, Nobody, Observer, RunView, Submission};
use baton_lang::{Options, Source};
use baton_store::{Access, DataDir, SqliteStore, Store};

/// A plan and where its runs are kept.
struct Story {
    folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Story {
    fn new() -> Self {
        // A process drives runs once: two would claim each other's orphans. Under `cargo test` the tests take turns.
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self { folder: tempfile::tempdir().expect("a scratch folder"), _turn: turn }
    }

    fn directory(&self) -> DataDir {
        DataDir::at(self.folder.path().join(".baton"))
    }

    fn engine(&self) -> LocalEngine {
        let store = SqliteStore::open(&self.directory(), Access::Write).expect("the store opens");
        LocalEngine::open(store, std::env::current_exe().expect("a name")).expect("the engine opens")
    }

    fn submission(&self, plan: &str) -> Submission {
        let source = Source::new("plan.yaml", plan);
        let loaded = baton_lang::load(&source, &baton_engine::known_actions(), &Options::default());
        let compiled =
            loaded.compiled.unwrap_or_else(|| panic!("{}", baton_lang::render_all(&loaded.problems, &source, false)));
        let created = RunCreated {
            plan_id: compiled.plan_id().to_owned(),
            plan_sha256: baton_store::sha256_hex(plan.as_bytes()),
            plan_path: "plan.yaml".to_owned(),
            cwd: self.folder.path().display().to_string(),
            vars: compiled.vars.clone(),
            ..RunCreated::default()
        };
        Submission { source, compiled, created }
    }

    /// Runs the plan to its end; answers with how it ended and its events, a line each.
    fn run(&self, plan: &str) -> (RunStatus, Vec<String>) {
        let mut engine = self.engine();
        let run = engine.submit(self.submission(plan)).expect("it is submitted").run;
        let drive = engine.drive(&mut Nobody).expect("it is driven");
        assert_eq!(drive, Drive::Done);
        let events = engine.store().events(Log::Run(run), 0, 10_000).expect("its events");
        let lines = events.iter().map(|event| match &event.step {
            Some(step) => format!("{} {step} {}", event.kind, event.attempt.unwrap_or(0)),
            None => event.kind.clone(),
        });
        let lines = lines.collect();
        assert_eq!(cgroups_of(&engine), NO_CGROUP, "none outlives its run");
        (engine.result(run).expect("it is over"), lines)
    }

    /// Drives the plan until a step prints something, then dies; answers once `mark` is the name of two processes.
    fn die_in(&self, plan: &str, mark: &str) -> RunId {
        let mut engine = self.engine();
        let run = engine.submit(self.submission(plan)).expect("it is submitted").run;
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| engine.drive(&mut DiesOfOutput)));
        assert!(died.is_err(), "{died:?}");
        until("both run", || processes_with(mark).len() == 2);
        run
    }
}

/// The death of a process, as far as it can be had within one: what it drove runs on.
struct DiesOfOutput;

impl Observer for DiesOfOutput {
    fn output(&mut self, _: &RunView<'_>, _: StepIndex, _: u32, _: &[u8]) {
        panic!("this process dies, as the test wants it");
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let clock = Clock::start();
    let last = clock.now() + Millis::from_secs(30);
    while !done() {
        assert!(clock.now() < last, "waited too long until {what}");
    }
}

const NO_CGROUP: [PathBuf; 0] = [];
const NONE: [u32; 0] = [];

/// The cgroups that are there for runs of an engine's store.
fn cgroups_of(engine: &LocalEngine) -> Vec<PathBuf> {
    let Some(place) = baton_actions::own_cgroup() else { return Vec::new() };
    let name = format!("baton-{}-", engine.store().id());
    let entries = std::fs::read_dir(place).expect("our cgroup").flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&name))
        .collect()
}

/// The processes whose command line holds this text.
fn processes_with(text: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let line = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| String::from_utf8_lossy(&line(*pid)).contains(text)).collect()
}

/// A command that leaves a daemon of this name that shows nothing of where it came from.
fn escape(mark: &str) -> String {
    format!(
        "env -i /usr/bin/setsid /usr/bin/prlimit --rttime=1000000:1000000 \
         /bin/sh -c '/bin/sleep {mark} & exit 0' <&- >/dev/null 2>&1"
    )
}

/// A plan whose second step, the first time, does so and goes on itself.
fn escaping(before: &str, mark: &str) -> String {
    let escape = escape(mark);
    format!(
        r#"
plan_id: escaping
locks: [shared]
steps:
  - {{id: before, shell: true, detach: true, command: "{before}"}}
  - id: long
    shell: true
    depends_on: [before]
    command: |
      test -e again && exit
      touch again
      {escape}
      echo ready
      exec sleep {mark}
"#
    )
}

/// A number of seconds that is as good as a name; `None`, said aloud, where the machine allows no cgroup.
#[expect(clippy::disallowed_macros, reason = "a test that is skipped says so")]
fn mark_where_cgroups_are(case: u32) -> Option<String> {
    let probe = |place: &PathBuf| {
        let path = place.join(format!("test-probe-{}-{case}", std::process::id()));
        std::fs::create_dir(&path).and_then(|()| std::fs::remove_dir(&path)).is_ok()
    };
    let allowed = baton_actions::own_cgroup().filter(probe).filter(|_| cfg!(target_arch = "x86_64")).is_some();
    if !allowed {
        eprintln!("skipped: this machine allows no cgroup");
    }
    allowed.then(|| format!("{}{case}.3", 3000 + std::process::id()))
}

#[test]
fn who_resumes_a_run_ends_even_what_shows_nothing_of_itself() {
    let Some(mark) = mark_where_cgroups_are(1) else { return };
    let story = Story::new();
    let run = story.die_in(&escaping("true", &mark), &mark);
    let mut engine = story.engine();
    assert_eq!(cgroups_of(&engine).len(), 1, "what runs on keeps its cgroup");
    let resumed = engine.resume(run).expect("it is resumed");
    assert_eq!((resumed.survivors.len(), resumed.lost), (2, 1), "{resumed:?}");
    assert_eq!(processes_with(&mark), NONE);
    assert_eq!(cgroups_of(&engine), NO_CGROUP);
    assert_eq!(engine.drive(&mut Nobody).expect("it is driven"), Drive::Done);
    assert_eq!(engine.result(run), Some(RunStatus::Succeeded));
    assert_eq!(cgroups_of(&engine), NO_CGROUP);
}

#[test]
fn who_waits_for_a_dead_owners_lock_ends_even_what_shows_nothing_of_itself() {
    let Some(mark) = mark_where_cgroups_are(2) else { return };
    let story = Story::new();
    story.die_in(&escaping("true", &mark), &mark);
    let other = "plan_id: second\nlocks: [shared]\nsteps:\n  - {id: only, command: \"true\"}\n";
    let (status, events) = story.run(other);
    assert_eq!(status, RunStatus::Succeeded, "{events:#?}");
    assert_eq!(processes_with(&mark), NONE);
}

#[test]
fn steps_run_in_order_and_outputs_reach_those_who_use_them() {
    let story = Story::new();
    let (status, events) = story.run(
        r#"
plan_id: outputs
steps:
  - id: make
    command: sh
    args: [-c, 'echo "name=world" >> "$BATON_OUTPUT"; exit 0']
  - id: use
    command: test
    args: ["${{ steps.make.outputs.name }}", "=", world]
    depends_on: [make]
  - id: never
    command: "false"
    depends_on: [make]
    condition: steps.make.outputs.name == 'nobody'
"#,
    );
    assert_eq!(status, RunStatus::Succeeded, "{events:#?}");
    assert!(events.contains(&"step_skipped never 0".to_owned()), "{events:#?}");
    assert_eq!(events.last().map(String::as_str), Some("run_completed"));
}

#[test]
fn who_resumes_a_run_spares_what_a_detached_step_left_even_if_it_shows_nothing_of_itself() {
    let (Some(stays), Some(mark)) = (mark_where_cgroups_are(3), mark_where_cgroups_are(4)) else { return };
    let story = Story::new();
    let run = story.die_in(&escaping(&escape(&stays), &mark), &mark);
    let mut engine = story.engine();
    assert_eq!(engine.resume(run).expect("it is resumed").survivors.len(), 2);
    assert_eq!(processes_with(&mark), NONE);
    assert_eq!(processes_with(&stays).len(), 1, "it was to stay");
    assert_eq!(cgroups_of(&engine).len(), 1, "and its cgroup with it");
    let prefix = format!("{}/{run}/", engine.store().id());
    baton_actions::end_survivors(&prefix, Duration::ZERO, &|_| false).expect("it can be ended");
    assert_eq!((processes_with(&stays), cgroups_of(&engine)), (Vec::new(), Vec::new()));
}
