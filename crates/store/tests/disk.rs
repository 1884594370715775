//! What only a store on disk can do and suffer: SQL, damage, crashes, full disks, backup, cleaning.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_core::action::Artifact;
use baton_core::event::StopReason;
use baton_core::lock::{LockEventKind, LockTable};
use baton_core::{
    AttemptEnd, Epoch, EventKind, ExitCause, Log, Millis, Output, RunCreated, RunId, RunStatus, StepIndex, Time,
};
use baton_store::{
    Access, Append, ArtifactIntake, Command, DamagedFile, DamagedRuns, DataDir, Events, Filter, GcPolicy, NewRun,
    Outcome, Piece, SqliteStore, Store, abandoned, doctor, restore, sha256_hex,
};
use rusqlite::Connection;
use support::*;

struct Disk {
    scratch: tempfile::TempDir,
    directory: DataDir,
}

impl Disk {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let directory = DataDir::at(scratch.path().join(".baton"));
        Self { scratch, directory }
    }

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.directory, Access::Write).unwrap()
    }

    fn look(&self) -> SqliteStore {
        SqliteStore::open(&self.directory, Access::Read).unwrap()
    }

    /// What somebody does to the database with another program.
    fn tamper(&self, sql: &str) {
        Connection::open(self.directory.database()).unwrap().execute_batch(sql).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }
}

/// A run of two steps from its submission to its end.
fn whole_run(store: &mut SqliteStore) -> (RunId, Epoch) {
    let owner = store.register(&info(1)).unwrap();
    let run = submit(store, &created(), Some(owner)).run();
    let graph = graph();
    let failed = EventKind::StepFailed {
        step: STORE,
        attempt: 1,
        last: true,
        end: Box::new(AttemptEnd::bare(ExitCause::Exit { code: 3 })),
    };
    for events in [
        vec![at(1010, EventKind::RunStarted), at(1011, started(FETCH))],
        vec![at(1020, succeeded(FETCH)), at(1020, started(STORE))],
        vec![
            at(1045, failed),
            at(1045, EventKind::RunCompleted { status: RunStatus::Failed, outputs: serde_json::Map::new() }),
        ],
    ] {
        let outcome = commit(store, vec![run_append(run, owner, None, &events, &graph)]);
        assert!(matches!(outcome, Outcome::Committed { .. }));
    }
    (run, owner)
}

fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    let mut select = connection.prepare(sql).unwrap();
    let columns = select.column_count();
    let mut rows = select.query([]).unwrap();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let value = |column| match row.get_ref(column).unwrap() {
            rusqlite::types::ValueRef::Null => "-".to_owned(),
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            other => other.as_str().unwrap().to_owned(),
        };
        lines.push((0..columns).map(value).collect::<Vec<_>>().join(" "));
    }
    lines
}

#[test]
fn a_person_reads_the_truth_with_sql() {
    let disk = Disk::new();
    let mut store = disk.open();
    let (run, owner) = whole_run(&mut store);
    let events = [lock(run, LockEventKind::Granted { names: vec!["merge".to_owned()] })];
    commit(
        &mut store,
        vec![Append { log: Log::Shared, epoch: owner, expected_seq: None, events: Events::Locks(&events) }],
    );
    let sql =
        Connection::open_with_flags(disk.directory.database(), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    insta::assert_snapshot!(
        rows(&sql, "SELECT run, plan_id, status, created_at, started_at, ended_at, duration_ms, last_seq \
             FROM runs").join("\n"),
        @"1 demo failed 1000 1010 1045 35 7"
    );
    insta::assert_snapshot!(
        rows(&sql, "SELECT step, status, attempts, started_at, ended_at, duration_ms \
             FROM steps WHERE run = 1").join("\n"),
        @r"
    fetch succeeded 1 1011 1020 9
    store failed 1 1020 1045 25
    "
    );
    insta::assert_snapshot!(
        rows(&sql, "SELECT seq, time, kind, step, attempt, payload ->> 'code' \
             FROM events WHERE run = 1 AND seq > 3").join("\n"),
        @r"
    4 1970-01-01T00:00:01.020Z step_succeeded fetch 1 0
    5 1970-01-01T00:00:01.020Z step_started store 1 -
    6 1970-01-01T00:00:01.045Z step_failed store 1 3
    7 1970-01-01T00:00:01.045Z run_completed - - -
    "
    );
    insta::assert_snapshot!(
        rows(&sql, "SELECT seq, kind, run, step, payload ->> 'names' FROM lock_events").join("\n"),
        @r#"1 lock_granted 1 - ["merge"]"#
    );
    insta::assert_snapshot!(rows(&sql, "SELECT name, bytes, text FROM plans").join("\n"), @"demo 14 plan_id: demo");
    let plan = rows(&sql, "EXPLAIN QUERY PLAN SELECT * FROM events WHERE run = 1").join("\n");
    assert!(!plan.contains("SCAN event"), "one run's events are a range, not the whole table:\n{plan}");
}

#[test]
fn a_changed_row_is_found_and_other_runs_are_not_touched_by_it() {
    let changes = [
        "UPDATE event SET payload = replace(payload, 'done', 'gone') WHERE key = (1 << 32) + 4",
        "UPDATE event SET at = at + 1 WHERE key = (1 << 32) + 4",
        "UPDATE event SET step = 'store' WHERE key = (1 << 32) + 4",
        "UPDATE event SET attempt = 2 WHERE key = (1 << 32) + 4",
        "UPDATE event SET hash = zeroblob(32) WHERE key = (1 << 32) + 4",
        "UPDATE event SET payload = x'00' WHERE key = (1 << 32) + 4",
        "DELETE FROM event WHERE key = (1 << 32) + 4",
        "UPDATE event SET key = (1 << 32) + 99 WHERE key = (1 << 32) + 4",
    ];
    for change in changes {
        let disk = Disk::new();
        let mut store = disk.open();
        let (damaged, _) = whole_run(&mut store);
        let (whole, _) = whole_run(&mut store);
        disk.tamper(change);
        let mut read = 0;
        let error = store.replay(damaged, &graph(), &mut |_| read += 1).unwrap_err();
        assert_eq!(error.code(), "damaged-log", "{change}");
        assert!(error.to_string().contains("run 1 is damaged at event 4"), "{change}: {error}");
        assert_eq!(read, 3, "what comes before the damage is good: {change}");
        assert_eq!(replayed(&store, whole).len(), 7);
        let report = store.doctor().unwrap();
        assert!(!report.is_healthy());
        let logs: Vec<Log> = report.damaged_logs.iter().map(|damage| damage.log).collect();
        assert_eq!(logs, [Log::Run(damaged)]);
    }
}

#[test]
fn a_log_that_lost_its_end_is_not_taken_for_a_shorter_one() {
    let disk = Disk::new();
    let mut store = disk.open();
    let (run, _) = whole_run(&mut store);
    disk.tamper("DELETE FROM event WHERE key = (1 << 32) + 7");
    let error = store.replay(run, &graph(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("ends at event 6 and should end at 7"), "{error}");
}

#[test]
fn a_wal_that_was_torn_anywhere_reads_as_a_prefix_of_what_was_committed() {
    let disk = Disk::new();
    let mut store = disk.open();
    let owner = store.register(&info(1)).unwrap();
    let run = submit(&mut store, &created(), Some(owner)).run();
    let graph = graph();
    let wal = disk.directory.root().join("baton.db-wal");
    let used = || {
        let bytes = std::fs::read(&wal).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
    };
    let mut ends = vec![used()];
    for second in 0..4 {
        let events = [at(2000 + second, started(FETCH)), at(2001 + second, succeeded(FETCH))];
        commit(&mut store, vec![run_append(run, owner, None, &events, &graph)]);
        ends.push(used());
    }
    let (database, bytes) = (std::fs::read(disk.directory.database()).unwrap(), std::fs::read(&wal).unwrap());
    let last = *ends.last().unwrap();
    let mut lengths: Vec<usize> = (ends[0]..=last).step_by(509).collect();
    lengths.extend(
        ends.iter().flat_map(|end| [end - 1, *end, end + 1]).filter(|length| (ends[0]..=last).contains(length)),
    );
    for length in lengths {
        let torn = Disk::new();
        std::fs::create_dir(torn.directory.root()).unwrap();
        std::fs::write(torn.directory.database(), &database).unwrap();
        let mut bytes = bytes.clone();
        bytes[length..].fill(0);
        std::fs::write(torn.directory.root().join("baton.db-wal"), &bytes).unwrap();
        let store = torn.open();
        // A frame may end in zeros of its own, so the commit that is being cut may be whole already.
        let committed = ends[1..].iter().filter(|end| **end <= length).count() as u64;
        let found = replayed(&store, run).len() as u64;
        let whole = [1 + 2 * committed, 1 + 2 * (committed + 1)];
        assert!(whole.contains(&found), "{found} events at {length}, expected one of {whole:?}");
    }
}

#[test]
fn other_peoples_and_newer_and_broken_databases_are_refused_with_the_next_step() {
    type Case<'a> = (&'a str, &'a dyn Fn(&Disk), &'a str, &'a str);
    let cases: [Case<'_>; 5] = [
        (
            "a newer schema",
            &|disk| disk.tamper("PRAGMA user_version = 9"),
            "newer-schema",
            "version 9 and this Baton knows 1",
        ),
        ("another application", &|disk| disk.tamper("PRAGMA application_id = 77"), "foreign-database", "0x4d"),
        (
            "no database",
            &|disk| std::fs::write(disk.directory.database(), vec![b'x'; 8192]).unwrap(),
            "damaged-database",
            "baton restore",
        ),
        (
            "a folder",
            &|disk| {
                std::fs::remove_file(disk.directory.database()).unwrap();
                std::fs::create_dir(disk.directory.database()).unwrap();
            },
            "store-unwritable",
            "--data-dir",
        ),
        (
            "half a database",
            &|disk| {
                let bytes = std::fs::read(disk.directory.database()).unwrap();
                std::fs::write(disk.directory.database(), &bytes[..bytes.len() / 2]).unwrap();
            },
            "damaged-database",
            "baton doctor",
        ),
    ];
    for (name, damage, code, words) in cases {
        let disk = Disk::new();
        let mut store = disk.open();
        whole_run(&mut store);
        drop(store);
        // Everything into the one file, so that the damage is not hidden by the WAL.
        disk.tamper("PRAGMA journal_mode = DELETE");
        damage(&disk);
        let opened = SqliteStore::open(&disk.directory, Access::Write)
            .and_then(|store| store.replay(RunId(1), &graph(), &mut |_| {}).and(Ok(())));
        let error = opened.unwrap_err();
        assert_eq!(error.code(), code, "{name}: {error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
}

#[test]
fn looking_makes_nothing_and_sees_what_others_commit() {
    let disk = Disk::new();
    let error = SqliteStore::open(&disk.directory, Access::Read).unwrap_err();
    assert_eq!(error.code(), "no-store");
    assert!(!disk.directory.root().exists());
    let mut store = disk.open();
    let reader = disk.look();
    assert_eq!(reader.runs(&Filter::default()).unwrap(), []);
    let (run, _) = whole_run(&mut store);
    assert_eq!(replayed(&reader, run).len(), 7);
    let waiting = submit(&mut store, &created(), None).run();
    let mut reader = reader;
    let error =
        reader.push_command(waiting, &Command::Cancel { by: "ada".to_owned(), hurry: false }, Time(0)).unwrap_err();
    assert_eq!(error.code(), "store-unwritable");
}

#[test]
fn whoever_looks_at_a_database_that_another_has_to_itself_is_told_after_the_wait() {
    let disk = Disk::new();
    whole_run(&mut disk.open());
    // All of the database is its own only where nobody has it open.
    let alone = Connection::open(disk.directory.database()).unwrap();
    let text = |sql: &str| alone.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    text("PRAGMA journal_mode = DELETE");
    let mut reader = disk.look();
    reader.set_wait(Duration::from_millis(20)).unwrap();
    alone.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = reader.runs(&Filter::default()).unwrap_err();
    assert_eq!(error.code(), "store-busy");
    assert!(error.to_string().contains("baton.db"), "{error}");
    alone.execute_batch("ROLLBACK").unwrap();
    assert_eq!(reader.runs(&Filter::default()).unwrap().len(), 1);
}

#[test]
fn an_append_to_a_busy_database_changes_nothing_and_can_be_made_again() {
    let disk = Disk::new();
    let mut store = disk.open();
    let owner = store.register(&info(1)).unwrap();
    let run = submit(&mut store, &created(), Some(owner)).run();
    let busy = Connection::open(disk.directory.database()).unwrap();
    busy.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.set_wait(Duration::from_millis(20)).unwrap();
    let (graph, events) = (graph(), [at(1010, EventKind::RunStarted)]);
    for _ in 0..2 {
        let error = store.append(&[group(vec![run_append(run, owner, Some(1), &events, &graph)])]).unwrap_err();
        assert_eq!(error.code(), "store-busy");
    }
    drop(busy);
    let outcome = commit(&mut store, vec![run_append(run, owner, Some(1), &events, &graph)]);
    assert_eq!(outcome, Outcome::Committed { last_seqs: vec![2] });
}

#[test]
fn of_two_processes_that_resume_one_run_one_wins_and_the_other_is_told_who() {
    let disk = Disk::new();
    let mut first = disk.open();
    let owner = first.register(&info(1)).unwrap();
    let run = submit(&mut first, &created(), Some(owner)).run();
    drop(first);
    let (mut one, mut two) = (disk.open(), disk.open());
    let (a, b) = (one.register(&info(10)).unwrap(), two.register(&info(20)).unwrap());
    assert_ne!(a, b);
    let epoch = one.acquire(run, a).unwrap();
    let error = two.acquire(run, b).unwrap_err();
    assert!(error.to_string().contains("process 10 on here (`baton run`)"), "{error}");
    let graph = graph();
    let events = [at(1010, EventKind::RunStarted)];
    assert!(matches!(commit(&mut two, vec![run_append(run, b, None, &events, &graph)]), Outcome::Conflict { .. }));
    assert!(matches!(commit(&mut one, vec![run_append(run, epoch, None, &events, &graph)]), Outcome::Committed { .. }));
}

#[test]
fn a_paused_owner_whose_run_was_taken_cannot_write_even_if_it_remembers_the_log_well() {
    let disk = Disk::new();
    let mut paused = disk.open();
    let owner = paused.register(&info(1)).unwrap();
    let run = submit(&mut paused, &created(), Some(owner)).run();
    let graph = graph();
    let events = [at(1010, EventKind::RunStarted)];
    commit(&mut paused, vec![run_append(run, owner, Some(1), &events, &graph)]);
    // Somebody breaks the rules: the lock file goes while its owner lives.
    std::fs::remove_file(disk.directory.root().join(format!("owners/{}.lock", owner.0))).unwrap();
    let mut other = disk.open();
    let taker = other.register(&info(2)).unwrap();
    let epoch = other.acquire(run, taker).unwrap();
    let late = [at(1020, started(FETCH))];
    let outcome = commit(&mut paused, vec![run_append(run, owner, Some(2), &late, &graph)]);
    let reason = baton_store::Conflict::Epoch { found: epoch };
    assert_eq!(outcome, Outcome::Conflict { log: Log::Run(run), reason });
    let released = [lock(run, LockEventKind::Released { reason: None })];
    let shared = Append { log: Log::Shared, epoch: owner, expected_seq: None, events: Events::Locks(&released) };
    assert_eq!(commit(&mut paused, vec![shared]), Outcome::Conflict { log: Log::Shared, reason });
    assert_eq!(replayed(&other, run).len(), 2);
}

#[test]
fn a_command_wakes_the_owner() {
    let disk = Disk::new();
    let mut store = disk.open();
    let owner = store.register(&info(1)).unwrap();
    let run = submit(&mut store, &created(), Some(owner)).run();
    disk.open().push_command(run, &Command::Cancel { by: "ada".to_owned(), hurry: false }, Time(5)).unwrap();
    let mut byte = [0u8; 4];
    assert_eq!(rustix::io::read(store.wake_fd().unwrap(), &mut byte).unwrap(), 1);
    assert_eq!(store.commands(owner).unwrap().len(), 1);
    assert!(!store.wake(Epoch(99)).unwrap(), "nobody is there");
}

#[test]
fn the_export_holds_every_event_in_order_and_is_completed_after_a_crash() {
    let disk = Disk::new();
    let mut store = disk.open();
    let owner = store.register(&info(1)).unwrap();
    let run = submit(&mut store, &created(), Some(owner)).run();
    let graph = graph();
    let append = |store: &mut SqliteStore, event: EventKind| {
        commit(store, vec![run_append(run, owner, None, &[at(1_795_181_044_007, event)], &graph)]);
    };
    append(&mut store, EventKind::RunStarted);
    store.export_flush().unwrap();
    append(&mut store, started(FETCH));
    append(&mut store, succeeded(FETCH));
    // It dies here: committed, not exported. The other process works on a copy of its files.
    let after = DataDir::at(disk.path("after"));
    copy_files(disk.directory.root(), after.root());
    let mut next = SqliteStore::open(&after, Access::Write).unwrap();
    assert_eq!(abandoned(&next).unwrap().len(), 1);
    let owner = next.register(&info(2)).unwrap();
    next.acquire(run, owner).unwrap();
    drop(store);
    let lines = std::fs::read_to_string(after.export(run)).unwrap();
    assert_eq!(lines, std::fs::read_to_string(disk.directory.export(run)).unwrap());
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 4);
    insta::assert_snapshot!(
        lines[3].replace("\",\"", "\",\n\""),
        @r#"
    {"seq":4,"at":"2026-11-20T13:24:04.007Z",
    "run":1,"kind":"step_succeeded",
    "step":"fetch",
    "attempt":1,"cause":"exit",
    "code":0,"duration_ms":0,"output":"done\n"}
    "#
    );
    for (line, event) in lines.iter().zip(next.events(Log::Run(run), 0, 100).unwrap()) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["seq"], event.seq);
        assert!(event.payload.iter().all(|(name, value)| line[name] == *value));
    }
}

#[test]
fn the_export_of_a_run_that_ended_in_the_moment_of_a_crash_is_completed_by_the_next_owner() {
    let disk = Disk::new();
    let mut store = disk.open();
    let (run, _) = whole_run(&mut store);
    let after = DataDir::at(disk.path("after"));
    copy_files(disk.directory.root(), after.root());
    assert!(!after.export(run).exists());
    let mut next = SqliteStore::open(&after, Access::Write).unwrap();
    next.register(&info(2)).unwrap();
    assert_eq!(std::fs::read_to_string(after.export(run)).unwrap().lines().count(), 7);
    assert_eq!(next.owners().unwrap().len(), 1, "the dead owner has nothing open and is forgotten");
}

#[test]
fn a_large_plan_is_kept_as_it_is() {
    let disk = Disk::new();
    let mut store = disk.open();
    let text = format!("plan_id: große\n# {}\n", "ä€𝄞x".repeat(120_000));
    let created = RunCreated { plan_sha256: sha256_hex(text.as_bytes()), ..created() };
    store.create_run(&NewRun { created: &created, plan_text: &text, at: Time(0) }, None).unwrap();
    assert!(store.plan_text(&created.plan_sha256).unwrap() == text);
    let sql = Connection::open(disk.directory.database()).unwrap();
    let seen: String = sql.query_row("SELECT text FROM plans", [], |row| row.get(0)).unwrap();
    assert!(seen == text);
    disk.tamper("UPDATE plan_part SET text = replace(text, 'x', 'y') WHERE part = 1");
    assert_eq!(store.plan_text(&created.plan_sha256).unwrap_err().code(), "damaged-database");
}

#[test]
fn output_is_read_the_same_way_wherever_it_stands() {
    let disk = Disk::new();
    let mut store = disk.open();
    let (run, _) = whole_run(&mut store);
    let mut writer = store.output_writer(run).unwrap();
    writer.append(FETCH, 2, Time(0), b"a long story").unwrap();
    let segment = writer.finish(FETCH, 2, Time(0));
    writer.sync().unwrap();
    for output in [segment, Output::Inline(b"a long story".to_vec())] {
        let mut text = Vec::new();
        let mut each = |piece: Piece<'_>| {
            let Piece::Bytes(bytes) = piece else { panic!("{piece:?}") };
            text.extend_from_slice(bytes);
            Ok(())
        };
        disk.look().read_output(run, FETCH, 2, &output, &mut each).unwrap();
        assert_eq!(text, b"a long story");
    }
}

/// A run that left an artefact and a segment of output.
fn run_with_files(disk: &Disk, store: &mut SqliteStore, end: i64, content: &str) -> (RunId, String) {
    let owner = store.register(&info(1)).unwrap();
    let run = submit(store, &created(), Some(owner)).run();
    std::fs::write(disk.path("report"), content).unwrap();
    let mut intake = ArtifactIntake::new(&disk.directory);
    let artifact: Artifact = intake.put(disk.scratch.path(), "report").unwrap();
    intake.sync().unwrap();
    let mut writer = store.output_writer(run).unwrap();
    writer.append(FETCH, 1, Time(0), &[b'x'; 50_000]).unwrap();
    let mut attempt = AttemptEnd::bare(ExitCause::Exit { code: 0 });
    attempt.output = writer.finish(FETCH, 1, Time(0));
    attempt.artifacts = vec![artifact.clone()];
    writer.sync().unwrap();
    let graph = graph();
    let events = [
        at(end, EventKind::StepSucceeded { step: FETCH, attempt: 1, end: Box::new(attempt) }),
        at(end, EventKind::RunCompleted { status: RunStatus::Succeeded, outputs: serde_json::Map::new() }),
    ];
    commit(store, vec![run_append(run, owner, None, &events, &graph)]);
    store.export_flush().unwrap();
    (run, artifact.sha256)
}

#[test]
fn a_backup_of_a_store_in_use_is_restored_whole_and_under_another_name() {
    let disk = Disk::new();
    let mut store = disk.open();
    let (run, sha256) = run_with_files(&disk, &mut store, 2000, "content");
    let owner = store.owners().unwrap()[0].epoch;
    let open = submit(&mut store, &created(), Some(owner)).run();
    let backup = disk.path("backup");
    let made = store.backup(&backup).unwrap();
    assert_eq!((made.runs, made.files), (2, 3));
    assert_eq!(store.backup(&backup).unwrap_err().code(), "refused", "nothing is overwritten");
    let later = submit(&mut store, &created(), None).run();

    let to = DataDir::at(disk.path("elsewhere/.baton"));
    let restored = restore(&backup, &to, DamagedRuns::Refuse).unwrap();
    assert_eq!((restored.backup, restored.left_out, restored.replaced), (made, vec![], None));
    let copy = SqliteStore::open(&to, Access::Write).unwrap();
    assert_eq!(replayed(&copy, run), replayed(&store, run));
    assert_eq!(copy.run(later).unwrap_err().code(), "no-such-run");
    assert_eq!(abandoned(&copy).unwrap().iter().map(|row| row.run).collect::<Vec<_>>(), [open]);
    assert_ne!(copy.id(), store.id());
    assert_eq!(std::fs::read_to_string(copy.artifact(&sha256).unwrap()).unwrap(), "content");
    assert_eq!(std::fs::read(to.output(run)).unwrap(), std::fs::read(disk.directory.output(run)).unwrap());
    assert_eq!(std::fs::read(to.export(run)).unwrap(), std::fs::read(disk.directory.export(run)).unwrap());
    assert!(copy.doctor().unwrap().is_healthy());
}

#[test]
fn a_damaged_backup_is_refused_before_anything_is_touched() {
    let disk = Disk::new();
    let mut store = disk.open();
    run_with_files(&disk, &mut store, 2000, "content");
    let backup = disk.path("backup");
    store.backup(&backup).unwrap();
    let mut files = vec![backup.join("baton.db"), backup.join("runs/1/output")];
    let shelf = std::fs::read_dir(backup.join("artifacts")).unwrap().next().unwrap().unwrap().path();
    files.push(std::fs::read_dir(shelf).unwrap().next().unwrap().unwrap().path());
    let to = DataDir::at(disk.path("elsewhere"));
    for file in files {
        let good = std::fs::read(&file).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        std::fs::write(&file, &bad).unwrap();
        let error = restore(&backup, &to, DamagedRuns::Refuse).unwrap_err();
        assert_eq!(error.code(), "damaged-file", "{}", file.display());
        assert!(!to.exists());
        std::fs::write(&file, &good).unwrap();
    }
    std::fs::rename(backup.join("manifest.json"), disk.path("hidden")).unwrap();
    assert_eq!(restore(&backup, &to, DamagedRuns::Refuse).unwrap_err().code(), "refused");
    std::fs::rename(disk.path("hidden"), backup.join("manifest.json")).unwrap();
    restore(&backup, &to, DamagedRuns::Refuse).unwrap();
}

#[test]
fn a_backup_tells_which_runs_are_damaged_and_is_restored_without_them() {
    let disk = Disk::new();
    let mut store = disk.open();
    let (good, _) = run_with_files(&disk, &mut store, 2_000, "good");
    let (log, _) = run_with_files(&disk, &mut store, 2_000, "log");
    let (output, _) = run_with_files(&disk, &mut store, 2_000, "output");
    let (artifact, changed) = run_with_files(&disk, &mut store, 2_000, "artifact");
    let (missing, removed) = run_with_files(&disk, &mut store, 2_000, "missing");
    let owner = store.owners().unwrap()[0].epoch;
    let open = submit(&mut store, &RunCreated { outputs_from: Some(log), ..created() }, Some(owner)).run();
    let names = vec!["merge".to_owned()];
    let events = [lock(open, LockEventKind::Granted { names })];
    let held = Append { log: Log::Shared, epoch: owner, expected_seq: None, events: Events::Locks(&events) };
    commit(&mut store, vec![held]);
    store.push_command(open, &Command::Cancel { by: "ada".to_owned(), hurry: false }, Time(5)).unwrap();
    disk.tamper(&format!("UPDATE event SET at = at + 1 WHERE key = ({log} << 32) + 2"));
    std::fs::write(disk.directory.output(output), "torn").unwrap();
    std::fs::write(store.artifact(&changed).unwrap(), "Artifact").unwrap();
    std::fs::remove_file(store.artifact(&removed).unwrap()).unwrap();

    let backup = disk.path("backup");
    let made = store.backup(&backup).unwrap();
    let damaged: Vec<RunId> = made.damage.iter().flat_map(|damage| damage.runs.clone()).collect();
    assert_eq!(std::collections::BTreeSet::from_iter(damaged), [log, output, artifact, missing].into());
    let to = DataDir::at(disk.path("elsewhere"));
    let error = restore(&backup, &to, DamagedRuns::Refuse).unwrap_err();
    assert_eq!(error.code(), "refused");
    assert!(error.to_string().contains("run 2 and run 3 and run 4 and run 5 in the backup"), "{error}");
    assert!(error.to_string().contains("--without-damaged"), "{error}");
    assert!(!to.exists());

    let restored = restore(&backup, &to, DamagedRuns::LeaveOut).unwrap();
    assert_eq!(restored.left_out, [log, output, artifact, missing, open]);
    let mut copy = SqliteStore::open(&to, Access::Write).unwrap();
    assert_eq!(copy.runs(&Filter::default()).unwrap().iter().map(|row| row.run).collect::<Vec<_>>(), [good]);
    assert_eq!(replayed(&copy, good), replayed(&store, good));
    let report = copy.doctor().unwrap();
    assert!(report.is_healthy(), "{report:?}");
    let mut locks = LockTable::default();
    copy.follow_locks(&mut locks, 0).unwrap();
    assert_eq!(locks.held().count(), 0, "nobody is left to let go of it");
    assert!(submit(&mut copy, &created(), None).run() > open, "a number is never used again");
    // A new artefact of this content must not be taken for the damaged one.
    assert!(!to.root().join(format!("artifacts/{}/{}", &changed[..2], &changed[2..])).exists());
}

#[test]
fn a_backup_goes_on_where_a_file_cannot_be_read_and_tells_whose_it_is() {
    let disk = Disk::new();
    let mut store = disk.open();
    let (torn, _) = run_with_files(&disk, &mut store, 2_000, "torn");
    let (shut, _) = run_with_files(&disk, &mut store, 2_000, "shut");
    let (lost, artifact) = run_with_files(&disk, &mut store, 2_000, "lost");
    let (good, _) = run_with_files(&disk, &mut store, 2_000, "good");
    let artifact = store.artifact(&artifact).unwrap();
    // A folder can be opened and not read, and what refers to itself cannot be opened, also by root.
    for path in [disk.directory.output(torn), artifact] {
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
    }
    let shut_output = disk.directory.output(shut);
    std::fs::remove_file(&shut_output).unwrap();
    std::os::unix::fs::symlink(&shut_output, &shut_output).unwrap();

    let backup = disk.path("backup");
    let made = store.backup(&backup).unwrap();
    let damaged: Vec<(&[RunId], &str)> =
        made.damage.iter().map(|damage| (&damage.runs[..], damage.problem.as_str())).collect();
    assert_eq!(damaged.iter().map(|(runs, _)| *runs).collect::<Vec<_>>(), [[lost], [torn], [shut]]);
    for (_, problem) in &damaged {
        let is_of_original = problem.contains(&disk.directory.root().display().to_string());
        assert!(
            is_of_original && problem.contains("cannot be read: "),
            "it says what could not be read and why: {problem}"
        );
    }
    assert_eq!((made.runs, made.files), (4, 1 + 2 + 3));
    let to = DataDir::at(disk.path("elsewhere"));
    assert_eq!(restore(&backup, &to, DamagedRuns::Refuse).unwrap_err().code(), "refused");
    let restored = restore(&backup, &to, DamagedRuns::LeaveOut).unwrap();
    assert_eq!(restored.left_out, [torn, shut, lost]);
    let copy = SqliteStore::open(&to, Access::Read).unwrap();
    assert_eq!(replayed(&copy, good), replayed(&store, good));
    assert!(copy.doctor().unwrap().is_healthy());
}

#[test]
fn a_restore_moves_an_unused_store_aside_and_refuses_one_in_use() {
    let disk = Disk::new();
    let mut store = disk.open();
    let (run, _) = whole_run(&mut store);
    let backup = disk.path("backup");
    store.backup(&backup).unwrap();
    submit(&mut store, &created(), None);
    let error = restore(&backup, &disk.directory, DamagedRuns::Refuse).unwrap_err();
    assert!(error.to_string().contains("process 1 drives runs"), "{error}");
    drop(store);
    let restored = restore(&backup, &disk.directory, DamagedRuns::Refuse).unwrap();
    let replaced = DataDir::at(restored.replaced.unwrap());
    assert_eq!(SqliteStore::open(&replaced, Access::Read).unwrap().runs(&Filter::default()).unwrap().len(), 2);
    let store = disk.open();
    assert_eq!(store.runs(&Filter::default()).unwrap().iter().map(|row| row.run).collect::<Vec<_>>(), [run]);
}

#[test]
fn a_database_that_has_lost_what_was_written_last_is_known_by_the_exports() {
    let disk = Disk::new();
    let mut store = disk.open();
    let early = disk.path("early");
    store.backup(&early).unwrap();
    let (run, _) = whole_run(&mut store);
    store.export_flush().unwrap();
    drop(store);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", disk.directory.database().display()));
    }
    std::fs::copy(early.join("baton.db"), disk.directory.database()).unwrap();
    let examined = baton_store::doctor(&disk.directory).unwrap();
    let [DamagedFile { path, problem, .. }] = &examined.damaged_files[..] else { panic!("{examined:?}") };
    assert_eq!(*path, disk.directory.run(run));
    assert!(problem.contains("has lost what was written last"), "{problem}");
    let mut store = disk.open();
    let fixed = created();
    let new = NewRun { created: &fixed, plan_text: support::PLAN, at: Time(1) };
    let error = store.create_run(&new, None).unwrap_err();
    assert!(error.to_string().contains("it has lost run 1"), "{error}");
}

#[test]
fn cleaning_removes_old_runs_with_their_files_and_gives_the_disk_back() {
    let disk = Disk::new();
    let mut store = disk.open();
    let (old, old_artifact) = run_with_files(&disk, &mut store, 2_000, "old");
    let (new, new_artifact) = run_with_files(&disk, &mut store, 9_000, "new");
    let owner = store.owners().unwrap()[0].epoch;
    let bulk = submit(&mut store, &created(), Some(owner)).run();
    let graph = graph();
    let mut end = AttemptEnd::bare(ExitCause::Exit { code: 0 });
    end.output = Output::Inline(vec![b'y'; 4096]);
    let events = vec![at(2_500, EventKind::StepSucceeded { step: FETCH, attempt: 1, end: Box::new(end) }); 500];
    commit(&mut store, vec![run_append(bulk, owner, None, &events, &graph)]);
    let completed =
        [at(2_600, EventKind::RunCompleted { status: RunStatus::Succeeded, outputs: serde_json::Map::new() })];
    commit(&mut store, vec![run_append(bulk, owner, None, &completed, &graph)]);
    let open = submit(&mut store, &created(), Some(owner)).run();
    let an_hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    for sha256 in [&old_artifact, &new_artifact] {
        let file = std::fs::File::options().write(true).open(store.artifact(sha256).unwrap()).unwrap();
        file.set_modified(an_hour_ago).unwrap();
    }
    let policy = GcPolicy { keep_for: Some(Millis(5_000)), ..GcPolicy::default() };
    let planned = store.gc(GcPolicy { dry_run: true, ..policy }, Time(10_000)).unwrap();
    assert_eq!(planned.runs, [old, bulk]);
    assert_eq!(store.runs(&Filter::default()).unwrap().len(), 4, "a dry run removes nothing");

    let done = store.gc(policy, Time(10_000)).unwrap();
    assert_eq!((done.runs, done.artifacts), (vec![old, bulk], 1));
    assert!(done.bytes_freed > 2_000_000, "{} bytes", done.bytes_freed);
    let left: Vec<RunId> = store.runs(&Filter::default()).unwrap().iter().map(|row| row.run).collect();
    assert_eq!(left, [open, new]);
    assert!(!disk.directory.run(old).exists());
    assert_eq!(store.artifact(&old_artifact).unwrap_err().code(), "no-such-artifact");
    assert!(store.artifact(&new_artifact).is_ok());
    let database = std::fs::metadata(disk.directory.database()).unwrap().len();
    assert!(database < 400_000, "the database still has {database} bytes");
    let report = store.doctor().unwrap();
    assert!(report.is_healthy() && report.orphans.is_empty(), "{report:?}");
    let next = submit(&mut store, &created(), Some(owner)).run();
    assert!(next > open, "a number is never used again");
}

#[test]
fn a_dry_run_of_cleaning_says_about_what_the_disk_will_get_back() {
    let graph = graph();
    for (runs, steps, kept) in [(16, 1, 1), (3, 400, 0), (4, 200, 2)] {
        let disk = Disk::new();
        let mut store = disk.open();
        for number in 0..runs {
            let (_, artifact) = run_with_files(&disk, &mut store, 2_000, &format!("{number} {}", "z".repeat(9_000)));
            let file = std::fs::File::options().write(true).open(store.artifact(&artifact).unwrap()).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            let owner = store.owners().unwrap()[0].epoch;
            let run = submit(&mut store, &created(), Some(owner)).run();
            let mut end = AttemptEnd::bare(ExitCause::Exit { code: 0 });
            end.output = Output::Inline(vec![b'y'; 500]);
            let succeeded = EventKind::StepSucceeded { step: FETCH, attempt: 1, end: Box::new(end) };
            let mut events = vec![at(2_500, succeeded); steps];
            events.push(at(
                2_600,
                EventKind::RunCompleted { status: RunStatus::Succeeded, outputs: serde_json::Map::new() },
            ));
            commit(&mut store, vec![run_append(run, owner, None, &events, &graph)]);
        }
        store.export_flush().unwrap();
        let policy = GcPolicy { keep_last: Some(kept), ..GcPolicy::default() };
        let planned = store.gc(GcPolicy { dry_run: true, ..policy }, Time(10_000)).unwrap();
        let done = store.gc(policy, Time(10_000)).unwrap();
        assert_eq!((&planned.runs, planned.artifacts), (&done.runs, done.artifacts));
        let (planned, done) = (planned.bytes_freed, done.bytes_freed);
        let difference = planned.abs_diff(done);
        // Pages are given back whole.
        assert!(difference < done / 20 + 32_768, "{planned} bytes planned, {done} freed, {runs} runs of {steps} steps");
        let again = store.gc(GcPolicy { dry_run: true, ..policy }, Time(10_000)).unwrap();
        assert!(again.bytes_freed < 65_536, "nothing is left to be freed: {}", again.bytes_freed);
    }
}

#[test]
fn cleaning_keeps_what_others_need() {
    let disk = Disk::new();
    let mut store = disk.open();
    let (one, owner) = whole_run(&mut store);
    let (two, _) = whole_run(&mut store);
    let (three, _) = whole_run(&mut store);
    let retry = RunCreated { retry_of: Some(one), outputs_from: Some(two), ..created() };
    let open = submit(&mut store, &retry, Some(owner)).run();
    let everything = GcPolicy { keep_last: Some(0), ..GcPolicy::default() };
    assert_eq!(store.gc(everything, Time(10_000)).unwrap().runs, [three]);
    let graph = graph();
    let completed =
        [at(2_600, EventKind::RunCompleted { status: RunStatus::Succeeded, outputs: serde_json::Map::new() })];
    commit(&mut store, vec![run_append(open, owner, None, &completed, &graph)]);
    let last = GcPolicy { keep_last: Some(1), ..GcPolicy::default() };
    assert_eq!(store.gc(last, Time(10_000)).unwrap().runs, [one], "the last one takes outputs from {two}");
    assert_eq!(store.gc(GcPolicy::default(), Time(10_000)).unwrap().runs, [], "without a policy nothing goes");
    assert_eq!(store.gc(everything, Time(10_000)).unwrap().runs, [two, open]);
}

#[test]
fn a_lock_that_a_run_had_when_it_was_removed_can_be_freed() {
    let disk = Disk::new();
    let mut store = disk.open();
    let owner = store.register(&info(1)).unwrap();
    let run = submit(&mut store, &created(), Some(owner)).run();
    let names = vec!["merge".to_owned()];
    commit(&mut store, vec![lock_append(owner, None, &[lock(run, LockEventKind::Granted { names })])]);
    // Its owner dies between its end and the release.
    let completed =
        [at(2_600, EventKind::RunCompleted { status: RunStatus::Succeeded, outputs: serde_json::Map::new() })];
    commit(&mut store, vec![run_append(run, owner, None, &completed, &graph())]);
    drop(store);
    let mut store = disk.open();
    let everything = GcPolicy { keep_last: Some(0), ..GcPolicy::default() };
    assert_eq!(store.gc(everything, Time(10_000)).unwrap().runs, [run]);
    let waiting = store.register(&info(2)).unwrap();
    let mut table = LockTable::default();
    store.follow_locks(&mut table, 0).unwrap();
    assert_eq!(table.held_in(run).count(), 1);
    let released = [lock(run, LockEventKind::Released { reason: Some("its run is gone".to_owned()) })];
    assert_eq!(
        commit(&mut store, vec![lock_append(waiting, None, &released)]),
        Outcome::Committed { last_seqs: vec![2] }
    );
    store.follow_locks(&mut table, 1).unwrap();
    assert_eq!(table.held().count(), 0);
}

#[test]
fn the_doctor_finds_damaged_missing_and_forgotten_files() {
    let disk = Disk::new();
    let mut store = disk.open();
    let (_, damaged) = run_with_files(&disk, &mut store, 2_000, "one");
    let (_, missing) = run_with_files(&disk, &mut store, 2_000, "two");
    assert!(store.doctor().unwrap().is_healthy());
    std::fs::write(store.artifact(&damaged).unwrap(), "One").unwrap();
    std::fs::remove_file(store.artifact(&missing).unwrap()).unwrap();
    std::fs::create_dir(disk.directory.run(RunId(99))).unwrap();
    let report = doctor(&disk.directory).unwrap();
    assert_eq!(report.damaged_files.len(), 2, "{:?}", report.damaged_files);
    assert_eq!(report.orphans, [disk.directory.run(RunId(99))]);
    assert!(report.bytes.output > 100_000 && report.bytes.exports > 0 && report.bytes.database > 0);
    assert!(report.tables.iter().any(|(name, bytes)| name == "event" && *bytes > 0));
    assert_eq!((report.runs, report.events), (2, 6));
    assert_eq!(report.owners.len(), 1);
    let owner = report.owners[0].epoch;
    let names = vec!["merge".to_owned()];
    let locks = [lock(RunId(1), LockEventKind::Granted { names })];
    commit(&mut store, vec![lock_append(owner, None, &locks)]);
    assert_eq!(store.doctor().unwrap().events, 6, "what happened to locks is no run's event");
}

#[test]
fn the_doctor_reads_all_output_that_events_refer_to_and_names_the_run() {
    let disk = Disk::new();
    let mut store = disk.open();
    run_with_files(&disk, &mut store, 2_000, "one");
    let (run, _) = run_with_files(&disk, &mut store, 2_000, "two");
    let path = disk.directory.output(run);
    let good = std::fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cases = [
        ("a byte of its data", Some(flipped(good.len() / 2)), Some("50000 bytes of it cannot be read, in 1 place")),
        ("a byte of a header", Some(flipped(5)), Some("the first at byte 0")),
        ("its end is gone", Some(good[..good.len() - 1].to_vec()), Some("cannot be read")),
        ("it is empty", Some(Vec::new()), Some("50036 bytes of it cannot be read")),
        ("it is gone", None, Some("it is missing")),
        ("an unfinished end that no event knows", Some([&good[..], b"BOUT torn"].concat()), None),
        ("a damaged chunk that no event knows", Some([&good[..], &flipped(100)].concat()), None),
    ];
    for (name, bytes, problem) in cases {
        match bytes {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let report = doctor(&disk.directory).unwrap();
        let Some(words) = problem else {
            assert!(report.is_healthy(), "{name}: {report:?}");
            continue;
        };
        let [found] = &report.damaged_files[..] else { panic!("{name}: {report:?}") };
        assert_eq!((&found.path, &found.runs[..]), (&path, &[run][..]), "{name}");
        assert!(found.problem.contains(words), "{name}: {}", found.problem);
        assert!(!report.is_healthy());
    }
}

#[test]
fn a_damaged_page_is_told_and_the_doctor_still_answers() {
    let disk = Disk::new();
    let mut store = disk.open();
    let owner = store.register(&info(1)).unwrap();
    let graph = graph();
    for _ in 0..3 {
        let run = submit(&mut store, &created(), Some(owner)).run();
        let events = vec![at(1, started(StepIndex(0))); 200];
        commit(&mut store, vec![run_append(run, owner, None, &events, &graph)]);
    }
    drop(store);
    disk.tamper("PRAGMA wal_checkpoint(TRUNCATE)");
    let page: i64 = Connection::open(disk.directory.database())
        .unwrap()
        .query_row(
            "SELECT pageno FROM dbstat WHERE name = 'event' AND pagetype = 'leaf' ORDER BY path LIMIT 1",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let mut bytes = std::fs::read(disk.directory.database()).unwrap();
    let start = (page as usize - 1) * 4096;
    bytes[start..start + 4096].fill(0xA5);
    std::fs::write(disk.directory.database(), &bytes).unwrap();
    let store = disk.look();
    assert!(
        store.replay(RunId(1), &graph, &mut |_| {}).is_err()
            || store.follow_locks(&mut LockTable::default(), 0).is_err()
    );
    assert_eq!(replayed_len(&store, RunId(3)), 201, "a run on other pages is read");
    let report = store.doctor().unwrap();
    assert!(!report.database_problems.is_empty());
    assert!(!report.damaged_logs.iter().any(|damage| damage.log == Log::Run(RunId(3))));
}

fn replayed_len(store: &SqliteStore, run: RunId) -> u64 {
    store.replay(run, &graph(), &mut |_| {}).unwrap()
}

#[test]
fn the_wal_stays_small_however_much_is_written() {
    let disk = Disk::new();
    let mut store = disk.open();
    let owner = store.register(&info(1)).unwrap();
    let run = submit(&mut store, &created(), Some(owner)).run();
    let graph = graph();
    let mut end = AttemptEnd::bare(ExitCause::Exit { code: 0 });
    end.output = Output::Inline(vec![b'y'; 4000]);
    let events = vec![at(1, EventKind::StepSucceeded { step: FETCH, attempt: 1, end: Box::new(end) }); 50];
    for _ in 0..80 {
        commit(&mut store, vec![run_append(run, owner, None, &events, &graph)]);
        store.maintain().unwrap();
    }
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    let wal = disk.directory.root().join("baton.db-wal");
    assert!(size(&wal) <= 9 << 20, "{} bytes", size(&wal));
    assert!(size(&disk.directory.database()) > 9 << 20, "checkpoints have moved it on");
    drop(store);
    assert_eq!(replayed_len(&disk.look(), run), 4_001);
}

#[test]
fn a_run_that_was_stopped_by_a_signal_is_resumed_with_everything_it_had() {
    let disk = Disk::new();
    let mut store = disk.open();
    let owner = store.register(&info(1)).unwrap();
    let run = submit(&mut store, &created(), Some(owner)).run();
    let graph = graph();
    let reason = StopReason::Cancel { by: "signal SIGINT".to_owned() };
    let events =
        [at(1010, EventKind::RunStarted), at(1011, EventKind::RunStopping { reason, until: Time(1), hurry: false })];
    commit(&mut store, vec![run_append(run, owner, None, &events, &graph)]);
    drop(store);
    let mut store = disk.open();
    assert_eq!(abandoned(&store).unwrap().len(), 1);
    let owner = store.register(&info(2)).unwrap();
    let epoch = store.acquire(run, owner).unwrap();
    let resumed = [at(1020, EventKind::RunResumed { epoch })];
    assert_eq!(
        commit(&mut store, vec![run_append(run, epoch, Some(3), &resumed, &graph)]),
        Outcome::Committed { last_seqs: vec![4] }
    );
}

#[test]
fn processes_that_make_one_store_at_once_and_write_to_it_lose_nothing() {
    const WRITERS: usize = 4;
    const APPENDS: u64 = 25;
    let disk = Disk::new();
    let writer = || {
        let mut store = disk.open();
        let owner = store.register(&info(1)).unwrap();
        let run = submit(&mut store, &created(), Some(owner)).run();
        let graph = graph();
        for _ in 0..APPENDS {
            let locks = [lock(run, LockEventKind::Requested { names: vec!["merge".to_owned()] })];
            let events = [at(1, EventKind::StepCondition { step: FETCH })];
            let shared = Append { log: Log::Shared, epoch: owner, expected_seq: None, events: Events::Locks(&locks) };
            let outcome = commit(&mut store, vec![run_append(run, owner, None, &events, &graph), shared]);
            assert!(matches!(outcome, Outcome::Committed { .. }));
            store.maintain().unwrap();
        }
        (owner, run, store.id().to_owned())
    };
    let found: Vec<(Epoch, RunId, String)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS).map(|_| scope.spawn(writer)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let distinct = |values: Vec<u64>| values.into_iter().collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(distinct(found.iter().map(|(owner, _, _)| owner.0).collect()), WRITERS);
    assert_eq!(distinct(found.iter().map(|(_, run, _)| run.0).collect()), WRITERS);
    assert!(found.iter().all(|(_, _, id)| *id == found[0].2), "all have made the same store");
    let store = disk.open();
    assert_eq!(store.follow_locks(&mut LockTable::default(), 0).unwrap(), WRITERS as u64 * APPENDS);
    assert!(found.iter().all(|(_, run, _)| replayed_len(&store, *run) == 1 + APPENDS));
    assert!(store.doctor().unwrap().is_healthy());
}
