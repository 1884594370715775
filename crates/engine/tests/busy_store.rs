//! A store that another process keeps busy, at each moment in which the loop reads or writes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use baton_actions::{Ended, HostEvent, Job, StartError, Stop};
use baton_core::{Attempt, Epoch, ExitCause, Log, Millis, RunCreated, RunStatus};
use baton_engine::{Drive, Engine, EngineError, Hands, Left, Nobody, Stays, Submission};
use baton_lang::{Options, Source};
use baton_store::{MemoryKeeps, MemoryStore, OwnerInfo, Store};

/// Two steps that want one lock, and one after them; the run has a lock, too.
const PLAN: &str = r#"
plan_id: locks
locks: [deploy]
steps:
  - {id: one, command: "true", locks: [merge]}
  - {id: two, command: "true", locks: [merge]}
  - {id: last, command: "true", depends_on: [one, two]}
"#;

/// Hands whose attempts succeed as soon as anybody looks, and whom somebody wakes whenever one has started.
#[derive(Default)]
struct Successes {
    started: Rc<RefCell<Vec<Attempt>>>,
    in_flight: Vec<Attempt>,
    self_exe: PathBuf,
}

impl Hands for Successes {
    fn start(&mut self, key: Attempt, _: Job) -> Result<(), StartError> {
        self.started.borrow_mut().push(key);
        self.in_flight.push(key);
        Ok(())
    }

    fn stop(&mut self, key: Attempt, _: Stop) {
        panic!("nothing is to be stopped, and {key:?} was");
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<HostEvent>) -> Result<(), EngineError> {
        if self.in_flight.is_empty() {
            // The loop waits for the store, in real time.
            std::thread::park_timeout(timeout.expect("there is something to wait for"));
            return Ok(());
        }
        events.push(HostEvent::Readable { token: 0 });
        events.extend(self.in_flight.drain(..).map(|key| {
            let end = Ended {
                cause: ExitCause::Exit { code: 0 },
                by_itself: true,
                duration: Millis(0),
                outputs: serde_json::Map::new(),
                folder: PathBuf::new(),
                artifacts: Vec::new(),
                leftovers: Vec::new(),
            };
            HostEvent::Ended { key, end: Box::new(end) }
        }));
        Ok(())
    }

    fn self_exe(&self) -> &Path {
        &self.self_exe
    }

    fn has_survivors(&self, _: &str, _: &Stays) -> bool {
        false
    }

    fn watch_death(&mut self, _: Epoch) {}

    fn end_left(&mut self, _: Left) {}

    fn release(&mut self, _: &str) {}
}

fn submission() -> Submission {
    let source = Source::new("plan.yaml", PLAN);
    let loaded = baton_lang::load(&source, &baton_engine::known_actions(), &Options::default());
    let compiled =
        loaded.compiled.unwrap_or_else(|| panic!("{}", baton_lang::render_all(&loaded.problems, &source, false)));
    let created = RunCreated {
        plan_id: compiled.plan_id().to_owned(),
        plan_sha256: baton_store::sha256_hex(PLAN.as_bytes()),
        plan_path: "plan.yaml".to_owned(),
        cwd: "/".to_owned(),
        ..RunCreated::default()
    };
    Submission { source, compiled, created }
}

/// Drives the plan with a store that is busy once, after so many calls. Answers whether there were so many.
fn drive(calls: u32) -> bool {
    let mut store = MemoryStore::new(MemoryKeeps::Events);
    let owner = store.register(&OwnerInfo::current()).expect("it registers");
    let hands = Successes::default();
    let started = Rc::clone(&hands.started);
    let mut engine = Engine::new(store, hands, owner, "store".to_owned()).expect("the engine opens");
    let run = engine.submit(submission()).expect("it is submitted").run;
    engine.store().be_busy_after(calls);
    let drive = engine.drive(&mut Nobody).unwrap_or_else(|error| panic!("busy after {calls} calls: {error}"));
    assert_eq!((drive, engine.result(run)), (Drive::Done, Some(RunStatus::Succeeded)), "busy after {calls} calls");
    let was_busy = !engine.store().will_be_busy();
    // So that looking is not what meets it.
    engine.store().be_busy_after(u32::MAX);
    let events = engine.store().events(Log::Run(run), 0, 100).expect("its events");
    let starts = events.iter().filter(|event| event.kind == "step_started").count();
    let distinct: BTreeSet<Attempt> = started.borrow().iter().copied().collect();
    assert_eq!((starts, started.borrow().len(), distinct.len()), (3, 3, 3), "busy after {calls} calls: {events:#?}");
    let mut locks = baton_core::lock::LockTable::default();
    engine.store().follow_locks(&mut locks, 0).expect("the locks");
    assert_eq!(locks.held().count(), 0, "busy after {calls} calls");
    was_busy
}

#[test]
fn a_store_that_is_busy_at_any_moment_neither_ends_the_run_nor_starts_anything_twice() {
    let moments = (0..).take_while(|calls| drive(*calls)).count();
    assert!(moments > 15, "each append, and each reading of commands and locks: {moments}");
}
