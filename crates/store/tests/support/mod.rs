//! What the tests of the store have in common: a plan of two steps, its events, and how they are appended.
#![allow(dead_code, reason = "every test program uses its own part of it")]

use std::path::Path;
use std::sync::Arc;

use baton_core::graph::StepShape;
use baton_core::lock::{Holder, LockEvent, LockEventKind};
use baton_core::{
    AttemptEnd, Epoch, Event, EventKind, ExitCause, Graph, GraphBuilder, Log, Output, RunCreated, RunId, StepIndex,
    Time,
};
use baton_store::{Append, Created, Events, Group, NewRun, Outcome, OwnerInfo, Store, sha256_hex};

/// Copies a folder as a crash leaves it: what is shared memory between processes is gone, and so are FIFOs' readers.
pub fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_files(&entry.path(), &target);
        } else if kind.is_file() && !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

pub fn info(pid: u32) -> OwnerInfo {
    OwnerInfo { pid, host: "here".to_owned(), command: "baton run".to_owned(), ..OwnerInfo::default() }
}

pub fn graph() -> Arc<Graph> {
    let mut builder = GraphBuilder::with_capacity(2);
    let fetch = builder.add("fetch", StepShape::default());
    builder.add("store", StepShape { depends_on: vec![fetch], ..StepShape::default() });
    Arc::new(builder.build())
}

pub const FETCH: StepIndex = StepIndex(0);
pub const STORE: StepIndex = StepIndex(1);
pub const PLAN: &str = "plan_id: demo\n";

pub fn created() -> RunCreated {
    RunCreated {
        plan_id: "demo".to_owned(),
        plan_sha256: sha256_hex(PLAN.as_bytes()),
        plan_path: "/plans/demo.yaml".to_owned(),
        cwd: "/".to_owned(),
        submitted_by: "ada".to_owned(),
        ..RunCreated::default()
    }
}

pub fn submit(store: &mut dyn Store, created: &RunCreated, owner: Option<Epoch>) -> Created {
    store.create_run(&NewRun { created, plan_text: PLAN, at: Time(1000) }, owner).unwrap()
}

pub fn at(millis: i64, kind: EventKind) -> Event {
    Event { at: Time(millis), kind }
}

pub fn started(step: StepIndex) -> EventKind {
    EventKind::StepStarted { step, attempt: 1, invocation: None }
}

pub fn succeeded(step: StepIndex) -> EventKind {
    let mut end = AttemptEnd::bare(ExitCause::Exit { code: 0 });
    end.output = Output::Inline(b"done\n".to_vec());
    EventKind::StepSucceeded { step, attempt: 1, end: Box::new(end) }
}

pub fn run_append<'a>(run: RunId, epoch: Epoch, seq: Option<u64>, events: &'a [Event], graph: &'a Graph) -> Append<'a> {
    Append { log: Log::Run(run), epoch, expected_seq: seq, events: Events::Run(events, graph) }
}

pub fn lock_append(epoch: Epoch, seq: Option<u64>, events: &[LockEvent]) -> Append<'_> {
    Append { log: Log::Shared, epoch, expected_seq: seq, events: Events::Locks(events) }
}

pub fn group(appends: Vec<Append<'_>>) -> Group<'_> {
    Group { appends, answered: Vec::new() }
}

pub fn commit(store: &mut dyn Store, appends: Vec<Append<'_>>) -> Outcome {
    store.append(&[group(appends)]).unwrap().remove(0)
}

pub fn replayed(store: &dyn Store, run: RunId) -> Vec<Event> {
    let mut events = Vec::new();
    let last = store.replay(run, &graph(), &mut |event| events.push(event)).unwrap();
    assert_eq!(last, events.len() as u64);
    events
}

pub fn lock(run: RunId, kind: LockEventKind) -> LockEvent {
    LockEvent { at: Time(5), holder: Holder { run, step: None }, kind }
}
