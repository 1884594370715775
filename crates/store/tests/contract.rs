//! The whole contract of a store, as one suite that every implementation runs.

mod support;

use baton_core::event::{SkipReason, StopReason};
use baton_core::lock::{LockEventKind, LockTable};
use baton_core::{Epoch, EventKind, Log, RunCreated, RunId, RunStatus, Time};
use baton_store::{
    Access, Append, Command, Conflict, Created, DataDir, Events, Filter, Group, MemoryKeeps, MemoryStore, NewRun,
    Outcome, RunPhase, SqliteStore, Store, StoreError, abandoned,
};
use support::*;

/// A store and what stands for other processes on the same disk.
trait World {
    fn store(&mut self) -> &mut dyn Store;
    /// The process of the first store dies without a word, and another one opens what it left.
    fn crash(&mut self);
    /// Another owner beside the first.
    fn second_owner(&mut self) -> Epoch;
}

struct InMemory(MemoryStore);

impl World for InMemory {
    fn store(&mut self) -> &mut dyn Store {
        &mut self.0
    }

    fn crash(&mut self) {
        self.0.reopen_after_crash();
    }

    fn second_owner(&mut self) -> Epoch {
        self.0.register(&info(2)).unwrap()
    }
}

struct OnDisk {
    scratch: tempfile::TempDir,
    stores: Vec<SqliteStore>,
    others: Vec<SqliteStore>,
}

impl OnDisk {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&DataDir::at(scratch.path().join("0")), Access::Write).unwrap();
        Self { scratch, stores: vec![store], others: Vec::new() }
    }
}

impl World for OnDisk {
    fn store(&mut self) -> &mut dyn Store {
        self.stores.last_mut().unwrap()
    }

    fn crash(&mut self) {
        // The files as they are, while the store is open and has said nothing; locks are not copied.
        let to = DataDir::at(self.scratch.path().join(self.stores.len().to_string()));
        copy_files(self.stores.last().unwrap().directory().root(), to.root());
        self.stores.push(SqliteStore::open(&to, Access::Write).unwrap());
    }

    fn second_owner(&mut self) -> Epoch {
        let mut other = SqliteStore::open(self.stores.last().unwrap().directory(), Access::Write).unwrap();
        let epoch = other.register(&info(2)).unwrap();
        self.others.push(other);
        epoch
    }
}

fn on_both(story: impl Fn(&mut dyn World)) {
    story(&mut InMemory(MemoryStore::new(MemoryKeeps::Events)));
    story(&mut OnDisk::new());
}

#[test]
fn what_is_appended_is_read_back_by_this_process_and_the_next() {
    on_both(|world| {
        let graph = graph();
        let owner = world.store().register(&info(1)).unwrap();
        let run = submit(world.store(), &created(), Some(owner)).run();
        let events = [at(1010, EventKind::RunStarted), at(1011, started(FETCH)), at(1020, succeeded(FETCH))];
        let outcome = commit(world.store(), vec![run_append(run, owner, Some(1), &events, &graph)]);
        assert_eq!(outcome, Outcome::Committed { last_seqs: vec![4] });
        let expected = {
            let mut all = vec![at(1000, EventKind::RunCreated(Box::new(created())))];
            all.extend(events.clone());
            all
        };
        assert_eq!(replayed(world.store(), run), expected);
        world.crash();
        assert_eq!(replayed(world.store(), run), expected);
        assert_eq!(world.store().created(run).unwrap(), (Time(1000), created()));
        assert_eq!(world.store().plan_text(&created().plan_sha256).unwrap(), PLAN);
        assert_eq!(world.store().plan_text("unknown").unwrap_err().code(), "no-such-plan");
    });
}

#[test]
fn the_row_of_a_run_says_what_its_log_says() {
    on_both(|world| {
        let graph = graph();
        let owner = world.store().register(&info(1)).unwrap();
        let run = submit(world.store(), &created(), Some(owner)).run();
        assert_eq!(world.store().run(run).unwrap().phase, RunPhase::Waiting);
        commit(world.store(), vec![run_append(run, owner, Some(1), &[at(1010, EventKind::RunStarted)], &graph)]);
        let row = world.store().run(run).unwrap();
        assert_eq!((row.phase, row.started_at, row.last_seq), (RunPhase::Running, Some(Time(1010)), 2));
        assert_eq!((row.owner, row.epoch, row.plan_id.as_str()), (Some(owner), owner, "demo"));
        let reason = StopReason::Cancel { by: "ada".to_owned() };
        let stopping = [at(1020, EventKind::RunStopping { reason, until: Time(1020), hurry: false })];
        commit(world.store(), vec![run_append(run, owner, None, &stopping, &graph)]);
        assert_eq!(world.store().run(run).unwrap().phase, RunPhase::Stopping);
        let completed =
            [at(1030, EventKind::RunCompleted { status: RunStatus::Canceled, outputs: serde_json::Map::new() })];
        commit(world.store(), vec![run_append(run, owner, Some(3), &completed, &graph)]);
        let row = world.store().run(run).unwrap();
        assert_eq!((row.phase, row.ended_at), (RunPhase::Ended(RunStatus::Canceled), Some(Time(1030))));
    });
}

#[test]
fn a_run_that_has_ended_takes_nothing_more() {
    on_both(|world| {
        let graph = graph();
        let owner = world.store().register(&info(1)).unwrap();
        let run = submit(world.store(), &created(), Some(owner)).run();
        let completed =
            [at(1030, EventKind::RunCompleted { status: RunStatus::Succeeded, outputs: serde_json::Map::new() })];
        commit(world.store(), vec![run_append(run, owner, None, &completed, &graph)]);
        let late = [at(1040, started(FETCH))];
        let outcome = commit(world.store(), vec![run_append(run, owner, None, &late, &graph)]);
        assert_eq!(outcome, Outcome::Conflict { log: Log::Run(run), reason: Conflict::Ended });
        assert_eq!(world.store().acquire(run, owner).unwrap_err().code(), "run-ended");
        let cancel = Command::Cancel { by: "ada".to_owned(), hurry: false };
        assert_eq!(world.store().push_command(run, &cancel, Time(0)).unwrap_err().code(), "run-ended");
        assert_eq!(replayed(world.store(), run).len(), 2);
    });
}

#[test]
fn a_group_is_written_whole_or_not_at_all_and_others_are_not_touched_by_it() {
    on_both(|world| {
        let graph = graph();
        let owner = world.store().register(&info(1)).unwrap();
        let one = submit(world.store(), &created(), Some(owner)).run();
        let two = submit(world.store(), &created(), Some(owner)).run();
        let granted = [lock(one, LockEventKind::Granted { names: vec!["merge".to_owned()] })];
        let locks =
            |seq| Append { log: Log::Shared, epoch: owner, expected_seq: Some(seq), events: Events::Locks(&granted) };
        let events = [at(1010, EventKind::RunStarted)];
        let outcomes = world
            .store()
            .append(&[
                group(vec![run_append(one, owner, Some(1), &events, &graph), locks(7)]),
                group(vec![run_append(two, owner, Some(1), &events, &graph)]),
                group(vec![run_append(one, owner, Some(1), &events, &graph), locks(0)]),
                group(vec![run_append(one, owner, Some(1), &events, &graph)]),
            ])
            .unwrap();
        assert_eq!(outcomes[0], Outcome::Conflict { log: Log::Shared, reason: Conflict::Seq { found: 0 } });
        assert_eq!(outcomes[1], Outcome::Committed { last_seqs: vec![2] });
        assert_eq!(outcomes[2], Outcome::Committed { last_seqs: vec![2, 1] });
        assert_eq!(outcomes[3], Outcome::Conflict { log: Log::Run(one), reason: Conflict::Seq { found: 2 } });
        world.crash();
        assert_eq!(replayed(world.store(), one).len(), 2);
        assert_eq!(replayed(world.store(), two).len(), 2);
        let (mut found, mut expected) = (LockTable::default(), LockTable::default());
        assert_eq!(world.store().follow_locks(&mut found, 0).unwrap(), 1);
        granted.iter().for_each(|event| expected.apply(event));
        assert_eq!(found, expected);
    });
}

#[test]
fn the_shared_log_is_read_on_from_where_one_was() {
    on_both(|world| {
        let owner = world.store().register(&info(1)).unwrap();
        let run = submit(world.store(), &created(), Some(owner)).run();
        let names = vec!["a".to_owned(), "b".to_owned()];
        let events = [
            lock(run, LockEventKind::Requested { names: names.clone() }),
            lock(run, LockEventKind::Granted { names }),
            lock(run, LockEventKind::Released { reason: Some("its owner died".to_owned()) }),
        ];
        for event in events.chunks(1) {
            let append = Append { log: Log::Shared, epoch: owner, expected_seq: None, events: Events::Locks(event) };
            commit(world.store(), vec![append]);
        }
        for after in 0..=3 {
            let (mut found, mut expected) = (LockTable::default(), LockTable::default());
            events[..after].iter().for_each(|event| found.apply(event));
            events.iter().for_each(|event| expected.apply(event));
            assert_eq!(world.store().follow_locks(&mut found, after as u64).unwrap(), 3);
            assert_eq!(found, expected);
        }
    });
}

#[test]
fn only_the_owner_of_the_epoch_writes() {
    on_both(|world| {
        let graph = graph();
        let first = world.store().register(&info(1)).unwrap();
        let run = submit(world.store(), &created(), Some(first)).run();
        let second = world.second_owner();
        assert!(second > first);
        let error = world.store().acquire(run, second).unwrap_err();
        let StoreError::Owned { pid: 1, owner, .. } = error else { panic!("{error}") };
        assert_eq!(owner, first);
        assert_eq!(world.store().acquire(run, first).unwrap(), first, "asking twice changes nothing");
        world.crash();
        let third = world.store().register(&info(3)).unwrap();
        let epoch = world.store().acquire(run, third).unwrap();
        assert!(epoch > first && epoch > second);
        let events = [at(1010, EventKind::RunStarted)];
        let outcome = commit(world.store(), vec![run_append(run, first, None, &events, &graph)]);
        assert_eq!(outcome, Outcome::Conflict { log: Log::Run(run), reason: Conflict::Epoch { found: epoch } });
        let outcome = commit(world.store(), vec![run_append(run, epoch, Some(1), &events, &graph)]);
        assert_eq!(outcome, Outcome::Committed { last_seqs: vec![2] });
        assert_eq!(world.store().acquire(RunId(77), third).unwrap_err().code(), "no-such-run");
        assert_eq!(world.store().acquire(run, Epoch(99)).unwrap_err().code(), "not-an-owner");
    });
}

#[test]
fn whoever_lost_a_run_writes_nothing_about_its_locks() {
    on_both(|world| {
        let graph = graph();
        let first = world.store().register(&info(1)).unwrap();
        let run = submit(world.store(), &created(), Some(first)).run();
        let names = vec!["merge".to_owned()];
        let granted = [lock(run, LockEventKind::Granted { names })];
        let released = [lock(run, LockEventKind::Released { reason: None })];
        let locks =
            |epoch, events| Append { log: Log::Shared, epoch, expected_seq: None, events: Events::Locks(events) };
        let outcome = commit(world.store(), vec![locks(first, &granted)]);
        assert_eq!(outcome, Outcome::Committed { last_seqs: vec![1] });
        let second = world.second_owner();
        let error = world.store().shut_out(run, second).unwrap_err();
        assert!(matches!(error, StoreError::Owned { pid: 1, .. }), "{error}");
        world.crash();
        // Somebody waits for the lock, and finds the owner dead.
        let third = world.store().register(&info(3)).unwrap();
        let epoch = world.store().shut_out(run, third).unwrap();
        let reason = Conflict::Epoch { found: epoch };
        let outcome = commit(world.store(), vec![locks(first, &granted)]);
        assert_eq!(outcome, Outcome::Conflict { log: Log::Shared, reason });
        let started = [at(1010, EventKind::RunStarted)];
        let both = vec![run_append(run, first, None, &started, &graph), locks(first, &granted)];
        assert_eq!(commit(world.store(), both), Outcome::Conflict { log: Log::Run(run), reason });
        assert_eq!(replayed(world.store(), run).len(), 1);
        assert_eq!(commit(world.store(), vec![locks(epoch, &released)]), Outcome::Committed { last_seqs: vec![2] });
        // The run is as abandoned as before, and whoever takes it over shuts out whoever freed its locks.
        assert_eq!(abandoned(world.store()).unwrap().iter().map(|row| row.run).collect::<Vec<_>>(), [run]);
        let taken = world.store().acquire(run, third).unwrap();
        assert!(taken > epoch);
        let reason = Conflict::Epoch { found: taken };
        assert_eq!(
            commit(world.store(), vec![locks(epoch, &released)]),
            Outcome::Conflict { log: Log::Shared, reason }
        );
        let completed =
            [at(1030, EventKind::RunCompleted { status: RunStatus::Succeeded, outputs: serde_json::Map::new() })];
        let both = vec![run_append(run, taken, None, &completed, &graph), locks(taken, &released)];
        assert_eq!(commit(world.store(), both), Outcome::Committed { last_seqs: vec![2, 3] });
        assert_eq!(commit(world.store(), vec![locks(taken, &released)]), Outcome::Committed { last_seqs: vec![4] });
        assert!(world.store().shut_out(run, third).is_ok(), "an owner may die between the end and what it still has");
    });
}

#[test]
fn the_locks_of_a_run_that_is_gone_can_be_released_and_not_taken() {
    on_both(|world| {
        let owner = world.store().register(&info(1)).unwrap();
        let other = world.second_owner();
        let run = submit(world.store(), &created(), Some(owner)).run();
        let gone = RunId(77);
        let names = vec!["merge".to_owned()];
        let ended = Outcome::Conflict { log: Log::Shared, reason: Conflict::Ended };
        let released = LockEventKind::Released { reason: Some("its run is gone".to_owned()) };
        let kinds = [LockEventKind::Requested { names: names.clone() }, LockEventKind::Granted { names }];
        for kind in kinds {
            assert_eq!(commit(world.store(), vec![lock_append(owner, Some(0), &[lock(gone, kind.clone())])]), ended);
            let among_others = [lock(gone, released.clone()), lock(gone, kind)];
            assert_eq!(commit(world.store(), vec![lock_append(owner, Some(0), &among_others)]), ended);
        }
        let reason = Conflict::Epoch { found: owner };
        let of_both = [lock(gone, released.clone()), lock(run, released.clone())];
        let outcome = commit(world.store(), vec![lock_append(other, Some(0), &of_both)]);
        assert_eq!(outcome, Outcome::Conflict { log: Log::Shared, reason }, "the other run has an owner");
        let of_gone = [lock(gone, released)];
        assert_eq!(
            commit(world.store(), vec![lock_append(other, Some(0), &of_gone)]),
            Outcome::Committed { last_seqs: vec![1] }
        );
        let reason = Conflict::Seq { found: 1 };
        assert_eq!(
            commit(world.store(), vec![lock_append(other, Some(0), &of_gone)]),
            Outcome::Conflict { log: Log::Shared, reason },
            "the log is guarded by its end all the same"
        );
    });
}

#[test]
fn a_run_whose_owner_died_is_abandoned_and_one_that_nobody_took_is_not() {
    on_both(|world| {
        let owner = world.store().register(&info(1)).unwrap();
        let driven = submit(world.store(), &created(), Some(owner)).run();
        let submitted = submit(world.store(), &created(), None).run();
        assert_eq!(abandoned(world.store()).unwrap(), []);
        world.crash();
        let found: Vec<RunId> = abandoned(world.store()).unwrap().iter().map(|row| row.run).collect();
        assert_eq!(found, [driven]);
        let next = world.store().register(&info(2)).unwrap();
        let dead: Vec<_> = world.store().owners().unwrap().into_iter().filter(|owner| !owner.alive).collect();
        assert_eq!(dead.len(), 1, "the dead owner is still known by name while its run is open");
        assert_eq!((dead[0].epoch, dead[0].info.pid), (owner, 1));
        world.store().acquire(driven, next).unwrap();
        world.store().acquire(submitted, next).unwrap();
        assert_eq!(abandoned(world.store()).unwrap(), []);
    });
}

#[test]
fn a_second_submit_with_the_same_key_answers_with_the_first_run() {
    on_both(|world| {
        let keyed = RunCreated { idempotency_key: Some("nightly".to_owned()), ..created() };
        let first = submit(world.store(), &keyed, None);
        assert!(matches!(first, Created::New { .. }));
        assert!(matches!(submit(world.store(), &created(), None), Created::New { .. }));
        world.crash();
        assert_eq!(submit(world.store(), &keyed, None), Created::Existing { run: first.run() });
        assert_eq!(world.store().runs(&Filter::default()).unwrap().len(), 2);
    });
}

#[test]
fn a_run_that_refers_to_one_that_is_gone_is_not_submitted() {
    on_both(|world| {
        let first = submit(world.store(), &created(), None).run();
        let gone = Some(RunId(first.0 + 10));
        let retry = RunCreated { retry_of: gone, ..created() };
        let user = RunCreated { retry_of: Some(first), outputs_from: gone, ..created() };
        for fixed in [&retry, &user] {
            let new = NewRun { created: fixed, plan_text: PLAN, at: Time(1000) };
            assert_eq!(world.store().create_run(&new, None).unwrap_err().code(), "no-such-run");
        }
        assert_eq!(world.store().runs(&Filter::default()).unwrap().len(), 1);
        let good = RunCreated { retry_of: Some(first), outputs_from: Some(first), ..created() };
        assert_eq!(submit(world.store(), &good, None).run(), RunId(first.0 + 1), "a refusal takes no number");
    });
}

#[test]
fn runs_are_listed_newest_first_and_by_what_one_asks_for() {
    on_both(|world| {
        let graph = graph();
        let owner = world.store().register(&info(1)).unwrap();
        let blue = RunCreated { labels: [("color".to_owned(), "blue".to_owned())].into(), ..created() };
        let one = submit(world.store(), &blue, Some(owner)).run();
        let two = submit(world.store(), &created(), Some(owner)).run();
        let three = submit(world.store(), &created(), Some(owner)).run();
        let completed =
            [at(1030, EventKind::RunCompleted { status: RunStatus::Succeeded, outputs: serde_json::Map::new() })];
        commit(world.store(), vec![run_append(two, owner, None, &completed, &graph)]);
        let mut list =
            |filter: Filter| -> Vec<RunId> { world.store().runs(&filter).unwrap().iter().map(|row| row.run).collect() };
        assert_eq!(list(Filter::default()), [three, two, one]);
        assert_eq!(list(Filter::open()), [three, one]);
        assert_eq!(list(Filter { open: Some(false), ..Filter::default() }), [two]);
        assert_eq!(list(Filter { labels: blue.labels.clone(), ..Filter::default() }), [one]);
        assert_eq!(list(Filter { before: Some(three), limit: Some(1), ..Filter::default() }), [two]);
        assert_eq!(list(Filter { plan_id: Some("other".to_owned()), ..Filter::default() }), []);
    });
}

#[test]
fn a_command_waits_for_the_owner_until_events_answer_it() {
    on_both(|world| {
        let graph = graph();
        let owner = world.store().register(&info(1)).unwrap();
        let run = submit(world.store(), &created(), Some(owner)).run();
        let cancel = Command::Cancel { by: "ada".to_owned(), hurry: true };
        let id = world.store().push_command(run, &cancel, Time(1020)).unwrap();
        let waiting = world.store().commands(owner).unwrap();
        assert_eq!((waiting.len(), waiting[0].id, waiting[0].run), (1, id, run));
        assert_eq!((&waiting[0].command, waiting[0].at), (&cancel, Time(1020)));
        assert_eq!(world.store().commands(Epoch(99)).unwrap(), []);
        let events = [at(1030, EventKind::RunStarted)];
        let refused = Group { appends: vec![run_append(run, owner, Some(9), &events, &graph)], answered: vec![id] };
        world.store().append(&[refused]).unwrap();
        assert_eq!(world.store().commands(owner).unwrap().len(), 1, "a group that was not written answers nothing");
        let answer = Group { appends: vec![run_append(run, owner, Some(1), &events, &graph)], answered: vec![id] };
        world.store().append(&[answer]).unwrap();
        assert_eq!(world.store().commands(owner).unwrap(), []);
        assert_eq!(world.store().push_command(RunId(9), &cancel, Time(0)).unwrap_err().code(), "no-such-run");
    });
}

#[test]
fn events_are_shown_page_by_page() {
    on_both(|world| {
        let graph = graph();
        let owner = world.store().register(&info(1)).unwrap();
        let run = submit(world.store(), &created(), Some(owner)).run();
        let skipped = EventKind::StepSkipped { step: STORE, reason: SkipReason::Dependency { step: FETCH } };
        let events = [at(1010, EventKind::RunStarted), at(1011, started(FETCH)), at(1012, skipped)];
        commit(world.store(), vec![run_append(run, owner, Some(1), &events, &graph)]);
        let page = world.store().events(Log::Run(run), 2, 1).unwrap();
        assert_eq!(page.len(), 1);
        assert_eq!((page[0].seq, page[0].kind.as_str(), page[0].attempt), (3, "step_started", Some(1)));
        let rest = world.store().events(Log::Run(run), 3, 100).unwrap();
        assert_eq!((rest[0].step.as_deref(), rest[0].at), (Some("store"), Time(1012)));
        assert_eq!(serde_json::to_string(&rest[0].payload).unwrap(), r#"{"because_of":"fetch","reason":"dependency"}"#);
        assert_eq!(world.store().events(Log::Run(run), 4, 100).unwrap(), []);
        assert_eq!(world.store().events(Log::Run(RunId(9)), 0, 1).unwrap_err().code(), "no-such-run");
    });
}
