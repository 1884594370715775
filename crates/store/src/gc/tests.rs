//! What one transaction does, where a process can die, and what others do meanwhile: what needs a look inside.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use baton_core::action::Artifact;
use baton_core::graph::StepShape;
use baton_core::{AttemptEnd, Event, EventKind, ExitCause, Graph, GraphBuilder, Log, RunCreated, RunStatus, StepIndex};

use super::*;
use crate::{Access, NewRun, Outcome, OwnerInfo};

const EVERYTHING: GcPolicy = GcPolicy { keep_for: None, keep_last: Some(0), dry_run: false };

fn graph() -> Graph {
    let mut builder = GraphBuilder::with_capacity(1);
    builder.add("step", StepShape::default());
    builder.build()
}

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(&DataDir::at(folder.join(".baton")), Access::Write).unwrap()
}

fn created() -> RunCreated {
    RunCreated { plan_sha256: crate::sha256_hex(b"plan"), ..RunCreated::default() }
}

fn submit(store: &mut SqliteStore, created: &RunCreated) -> RunId {
    let owner = store.register(&OwnerInfo::current()).unwrap();
    store.create_run(&NewRun { created, plan_text: "plan", at: Time(0) }, Some(owner)).unwrap().run()
}

/// Writes so many attempts, each with an artefact, and the end of the run.
fn end(store: &mut SqliteStore, run: RunId, attempts: usize) {
    let owner = store.register(&OwnerInfo::current()).unwrap();
    let artifact = Artifact { path: "report".to_owned(), bytes: 1, sha256: crate::sha256_hex(b"report") };
    let end = AttemptEnd { artifacts: vec![artifact], ..AttemptEnd::bare(ExitCause::Exit { code: 0 }) };
    let succeeded = EventKind::StepSucceeded { step: StepIndex(0), attempt: 1, end: Box::new(end) };
    let mut events = vec![Event { at: Time(1), kind: succeeded }; attempts];
    events.push(Event {
        at: Time(2),
        kind: EventKind::RunCompleted { status: RunStatus::Succeeded, outputs: serde_json::Map::new() },
    });
    let graph = graph();
    let append = Append { log: Log::Run(run), epoch: owner, expected_seq: None, events: Events::Run(&events, &graph) };
    let outcome = store.append(&[Group { appends: vec![append], answered: Vec::new() }]).unwrap();
    assert!(matches!(outcome[..], [Outcome::Committed { .. }]));
}

fn ended_run(store: &mut SqliteStore, attempts: usize) -> RunId {
    let run = submit(store, &created());
    end(store, run, attempts);
    run
}

fn count(store: &SqliteStore, table: &str) -> i64 {
    store.connection().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn no_transaction_removes_more_rows_than_the_limit_however_large_a_run_is() {
    let scratch = tempfile::tempdir().unwrap();
    let mut store = open(scratch.path());
    ended_run(&mut store, 3 * ROWS_A_TRANSACTION);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(0)));
    let (changed, committed, largest) = (Arc::clone(&now), Arc::clone(&now), Arc::clone(&most));
    let each = move |_: rusqlite::hooks::Action, _: &str, _: &str, _: i64| {
        changed.fetch_add(1, Ordering::Relaxed);
    };
    store.connection_mut().update_hook(Some(each)).unwrap();
    let each = move || {
        let rows = committed.swap(0, Ordering::Relaxed);
        let mut largest = largest.lock().unwrap();
        *largest = rows.max(*largest);
        false
    };
    store.connection_mut().commit_hook(Some(each)).unwrap();
    store.gc(EVERYTHING, Time(10)).unwrap();
    let most = *most.lock().unwrap();
    // A run is forgotten whole, in up to three rows.
    assert!((ROWS_A_TRANSACTION..=ROWS_A_TRANSACTION + 2).contains(&most), "{most} rows in one transaction");
    assert_eq!((count(&store, "event"), count(&store, "artifact")), (0, 0));
}

/// How many transactions and how many steps of SQLite's machine it takes to remove so many runs.
fn work_for(runs: u64) -> (usize, usize) {
    let scratch = tempfile::tempdir().unwrap();
    let mut store = open(scratch.path());
    store.connection().pragma_update(None, "synchronous", "OFF").unwrap();
    for _ in 0..runs {
        ended_run(&mut store, 1);
    }
    let (transactions, steps) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (committed, done) = (Arc::clone(&transactions), Arc::clone(&steps));
    let each = move || {
        committed.fetch_add(1, Ordering::Relaxed);
        false
    };
    store.connection_mut().commit_hook(Some(each)).unwrap();
    let each = move || {
        done.fetch_add(1, Ordering::Relaxed);
        false
    };
    store.connection_mut().progress_handler(10, Some(each)).unwrap();
    assert_eq!(store.gc(EVERYTHING, Time(10)).unwrap().runs.len() as u64, runs);
    (transactions.load(Ordering::Relaxed), steps.load(Ordering::Relaxed))
}

#[test]
fn many_small_runs_go_in_one_transaction_and_twice_as_many_take_twice_the_work() {
    let (_, few) = work_for(100);
    let (transactions, many) = work_for(200);
    // Three events, an artefact, and the two rows that make it a run.
    let full = 200 * 6 / ROWS_A_TRANSACTION;
    assert!(transactions <= full + 10, "{transactions} transactions, {full} full ones");
    assert!(many < few * 5 / 2, "{few} steps for 100 runs, {many} for 200");
}

/// Copies the store in one folder into another one.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for path in entries(from).unwrap() {
        let target = to.join(name(&path));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_gc_that_dies_after_any_transaction_leaves_whole_runs_and_the_next_one_finishes() {
    let template = tempfile::tempdir().unwrap();
    let mut store = open(template.path());
    let small = ended_run(&mut store, 1);
    for _ in 0..ROWS_A_TRANSACTION / 6 {
        let run = submit(&mut store, &RunCreated { outputs_from: Some(small), ..created() });
        end(&mut store, run, 1);
    }
    let large = ended_run(&mut store, 2 * ROWS_A_TRANSACTION);
    store.export_flush().unwrap();
    drop(store);
    for survived in 0.. {
        let scratch = tempfile::tempdir().unwrap();
        copy(&template.path().join(".baton"), &scratch.path().join(".baton"));
        let mut store = open(scratch.path());
        let commits = AtomicUsize::new(0);
        let dies = move || commits.fetch_add(1, Ordering::Relaxed) >= survived;
        store.connection_mut().commit_hook(Some(dies)).unwrap();
        let outcome = store.gc(EVERYTHING, Time(10));
        drop(store);
        let mut store = open(scratch.path());
        let report = store.doctor().unwrap();
        assert!(report.database_problems.is_empty() && report.damaged_logs.is_empty(), "{survived}: {report:?}");
        let left: BTreeSet<RunId> = store.runs(&Filter::default()).unwrap().iter().map(|row| row.run).collect();
        for run in &left {
            let attempts = if *run == large { 2 * ROWS_A_TRANSACTION as u64 } else { 1 };
            assert_eq!(store.replay(*run, &graph(), &mut |_| {}).unwrap(), attempts + 2, "run {run} is whole");
            let artifacts = format!("artifact WHERE run = {run}");
            assert_eq!(count(&store, &artifacts), attempts as i64, "run {run} is whole");
        }
        assert!(left.is_empty() || left.contains(&small), "what others take outputs from goes last");
        store.gc(EVERYTHING, Time(10)).unwrap();
        for table in ["run", "event", "artifact", "plan", "plan_part"] {
            assert_eq!(count(&store, table), 0, "{table} after {survived} transactions");
        }
        assert!(entries(&store.directory().runs()).unwrap().is_empty());
        if outcome.is_ok() {
            assert!(survived > 5, "there are several transactions");
            return;
        }
    }
}

#[test]
fn what_a_new_run_refers_to_stays_although_it_was_chosen_before() {
    let scratch = tempfile::tempdir().unwrap();
    let mut store = open(scratch.path());
    let first = ended_run(&mut store, 1);
    let second = submit(&mut store, &RunCreated { outputs_from: Some(first), ..created() });
    end(&mut store, second, 1);
    let retried = ended_run(&mut store, 1);
    let other = ended_run(&mut store, 1);
    let mut chosen = store.choose(EVERYTHING, Time(10)).unwrap();
    assert_eq!(chosen.doomed, BTreeSet::from([first, second, retried, other]));
    submit(&mut store, &RunCreated { outputs_from: Some(second), retry_of: Some(retried), ..created() });
    assert_eq!(store.remove_runs(&mut chosen).unwrap(), [other]);
    assert!([first, second, retried].iter().all(|run| store.run(*run).is_ok()));
}

#[test]
fn files_are_not_removed_while_they_are_copied_nor_copied_while_they_are_removed() {
    let scratch = tempfile::tempdir().unwrap();
    let mut store = open(scratch.path());
    ended_run(&mut store, 0);
    let copying = lock_runs(store.directory(), RunsUse::Copy).unwrap();
    let error = store.gc(EVERYTHING, Time(10)).unwrap_err();
    assert!(error.to_string().contains("wait for the end of its `baton backup`"), "{error}");
    assert!(store.backup(&scratch.path().join("second")).is_ok(), "two may copy at once");
    drop(copying);
    let removing = lock_runs(store.directory(), RunsUse::Remove).unwrap();
    assert_eq!(store.backup(&scratch.path().join("third")).unwrap_err().code(), "refused");
    drop(removing);
    assert_eq!(store.gc(EVERYTHING, Time(10)).unwrap().runs.len(), 1);
}
