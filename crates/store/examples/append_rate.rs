//! Measures how fast events become durable: `cargo run --release -p baton-store --example append_rate [folder]`.

#![expect(clippy::disallowed_macros, reason = "a measurement says what it found")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use baton_core::graph::StepShape;
use baton_core::{
    AttemptEnd, Epoch, Event, EventKind, ExitCause, Graph, GraphBuilder, Log, RunCreated, RunId, StepIndex, Time,
};
use baton_store::{
    Access, Append, DataDir, Events, Group, MemoryKeeps, MemoryStore, NewRun, OwnerInfo, SqliteStore, Store,
};

const STEPS: u32 = 1_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("append_rate-{}", std::process::id()));
    let outcome = measure(&folder);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn measure(folder: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(folder)?;
    let graph = graph();
    let directory = DataDir::at(folder.join(".baton"));
    let begun = Instant::now();
    drop(SqliteStore::open(&directory, Access::Write)?);
    println!("{:>10.2} ms  make a store", millis(begun));
    for _ in 0..3 {
        let begun = Instant::now();
        let mut store = SqliteStore::open(&directory, Access::Write)?;
        let opened = millis(begun);
        let (run, epoch) = submit(&mut store)?;
        let submitted = millis(begun);
        chain(&mut store, run, epoch, &graph, 1)?;
        let driven = millis(begun);
        drop(store);
        println!(
            "{:>10.2} ms  open ({opened:.2}), register and submit ({:.2}), one step in 3 commits ({:.2}), close",
            millis(begun),
            submitted - opened,
            driven - submitted
        );
    }
    for round in 0..3 {
        let raw = raw_rate(folder, round)?;
        println!("{raw:>10.0} /s  commits of one row by SQLite alone");
        let mut store = SqliteStore::open(&directory, Access::Write)?;
        let (run, epoch) = submit(&mut store)?;
        let begun = Instant::now();
        let commits = chain(&mut store, run, epoch, &graph, STEPS)?;
        let rate = f64::from(commits) / begun.elapsed().as_secs_f64();
        println!("{rate:>10.0} /s  commits of a chain, an end and a start each: {:.2} x raw", rate / raw);
        let rate = wide(&mut store, 1, 16, &graph)?;
        println!("{rate:>10.0} /s  events, 1 run, 16 events a commit");
        let rate = wide(&mut store, 100, 2, &graph)?;
        println!("{rate:>10.0} /s  events, 100 runs, 2 events of each a commit");
        let begun = Instant::now();
        let mut events = 0;
        store.replay(run, &graph, &mut |_| events += 1)?;
        println!("{:>10.0} /s  events replayed and verified", f64::from(events) / begun.elapsed().as_secs_f64());
    }
    let mut memory = MemoryStore::new(MemoryKeeps::Ends);
    println!("{:>10.0} /s  events, memory that keeps ends only", wide(&mut memory, 100, 2, &graph)?);
    Ok(())
}

fn millis(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

fn graph() -> Graph {
    let mut builder = GraphBuilder::with_capacity(STEPS as usize);
    for step in 0..STEPS {
        builder.add(&format!("step_{step}"), StepShape::default());
    }
    builder.build()
}

fn submit(store: &mut dyn Store) -> Result<(RunId, Epoch), baton_store::StoreError> {
    let owner = store.register(&OwnerInfo::current())?;
    let created = RunCreated { plan_id: "rate".into(), plan_sha256: "rate".into(), ..RunCreated::default() };
    let run = store.create_run(&NewRun { created: &created, plan_text: "plan", at: Time(0) }, Some(owner))?.run();
    Ok((run, owner))
}

fn ended(step: u32) -> Event {
    let end = Box::new(AttemptEnd::bare(ExitCause::Exit { code: 0 }));
    Event { at: Time(i64::from(step)), kind: EventKind::StepSucceeded { step: StepIndex(step), attempt: 1, end } }
}

fn started(step: u32) -> Event {
    Event {
        at: Time(i64::from(step)),
        kind: EventKind::StepStarted { step: StepIndex(step), attempt: 1, invocation: None },
    }
}

/// One step after another: an end and the next start in each commit.
fn chain(
    store: &mut dyn Store,
    run: RunId,
    epoch: Epoch,
    graph: &Graph,
    steps: u32,
) -> Result<u32, baton_store::StoreError> {
    let mut commit = |events: &[Event]| -> Result<(), baton_store::StoreError> {
        let append = Append { log: Log::Run(run), epoch, expected_seq: None, events: Events::Run(events, graph) };
        store.append(&[Group { appends: vec![append], answered: Vec::new() }])?;
        store.export_flush()?;
        store.maintain()
    };
    commit(&[Event { at: Time(0), kind: EventKind::RunStarted }, started(0)])?;
    for step in 1..steps {
        commit(&[ended(step - 1), started(step)])?;
    }
    commit(&[ended(steps - 1)])?;
    Ok(steps + 1)
}

/// Events of many runs in each commit; answers with events per second.
fn wide(store: &mut dyn Store, runs: usize, of_each: usize, graph: &Graph) -> Result<f64, baton_store::StoreError> {
    const LEAST: Duration = Duration::from_millis(1500);
    let runs: Vec<(RunId, Epoch)> = (0..runs).map(|_| submit(store)).collect::<Result<_, _>>()?;
    let events: Vec<Event> =
        (0..of_each as u32).map(|n| if n % 2 == 0 { ended(n % STEPS) } else { started(n % STEPS) }).collect();
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < LEAST {
        let group = |(run, epoch): &(RunId, Epoch)| Group {
            appends: vec![Append {
                log: Log::Run(*run),
                epoch: *epoch,
                expected_seq: None,
                events: Events::Run(&events, graph),
            }],
            answered: Vec::new(),
        };
        let groups: Vec<Group<'_>> = runs.iter().map(group).collect();
        store.append(&groups)?;
        store.export_flush()?;
        store.maintain()?;
        count += events.len() * runs.len();
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

fn raw_rate(folder: &std::path::Path, round: u32) -> Result<f64, rusqlite::Error> {
    const COMMITS: u32 = 2_000;
    let connection = rusqlite::Connection::open(folder.join(format!("raw-{round}.db")))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("CREATE TABLE row (id INTEGER PRIMARY KEY, payload BLOB)")?;
    let begun = Instant::now();
    for _ in 0..COMMITS {
        connection.prepare_cached("INSERT INTO row (payload) VALUES (?1)")?.execute([[7u8; 64]])?;
    }
    Ok(f64::from(COMMITS) / begun.elapsed().as_secs_f64())
}
