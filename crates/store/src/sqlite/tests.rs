//! Full disks and lost trust: what needs a look inside.

use baton_core::graph::StepShape;
use baton_core::{AttemptEnd, EventKind, GraphBuilder};

use super::*;
use crate::{Append, Events};

struct Disk {
    _scratch: tempfile::TempDir,
    store: SqliteStore,
    run: RunId,
    owner: Epoch,
    graph: Graph,
}

fn disk() -> Disk {
    let scratch = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&DataDir::at(scratch.path().join(".baton")), Access::Write).unwrap();
    let owner = store.register(&OwnerInfo::current()).unwrap();
    let created = RunCreated { plan_sha256: crate::sha256_hex(b""), ..RunCreated::default() };
    let run = store.create_run(&NewRun { created: &created, plan_text: "", at: Time(0) }, Some(owner)).unwrap().run();
    let mut builder = GraphBuilder::with_capacity(1);
    builder.add("step", StepShape::default());
    Disk { _scratch: scratch, store, run, owner, graph: builder.build() }
}

impl Disk {
    /// Appends an event with four KiB of output.
    fn append(&mut self) -> Result<Vec<Outcome>> {
        let mut end = AttemptEnd::bare(baton_core::ExitCause::Exit { code: 0 });
        end.output = Output::Inline(vec![b'x'; 4096]);
        let kind = EventKind::StepSucceeded { step: StepIndex(0), attempt: 1, end: Box::new(end) };
        let events = [Event { at: Time(1), kind }];
        let append = Append {
            log: Log::Run(self.run),
            epoch: self.owner,
            expected_seq: None,
            events: Events::Run(&events, &self.graph),
        };
        self.store.append(&[Group { appends: vec![append], answered: Vec::new() }])
    }

    /// As if the disk had room for so many more pages.
    fn room(&self, pages: i64) {
        let used: i64 = self.store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        let limit = used + pages;
        self.store.connection.pragma_update_and_check(None, "max_page_count", limit, |_| Ok(())).unwrap();
    }

    fn events(&self) -> u64 {
        self.store.replay(self.run, &self.graph, &mut |_| {}).unwrap()
    }
}

#[test]
fn a_full_disk_loses_nothing_is_told_and_is_left_behind_when_there_is_space() {
    let mut disk = disk();
    disk.room(20);
    let mut written = 1;
    let error = loop {
        match disk.append() {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(written > 5, "there was room for some");
    assert!(disk.store.is_full());
    assert_eq!(disk.events(), written);
    assert!(matches!(disk.append(), Err(StoreError::DiskFull { .. })), "it says so each time");
    disk.store.export_flush().unwrap();
    let exported = std::fs::read_to_string(disk.store.directory.export(disk.run)).unwrap();
    assert_eq!(exported.lines().count() as u64, written, "what was not committed is not exported");
    disk.room(1000);
    disk.store.maintain().unwrap();
    assert!(!disk.store.is_full());
    disk.append().unwrap();
    assert_eq!(disk.events(), written + 1);
}

#[test]
fn the_ballast_is_given_up_once_so_that_an_end_can_be_recorded() {
    let mut disk = disk();
    disk.store.maintain().unwrap();
    let ballast = disk.store.directory.ballast();
    assert!(ballast.exists());
    let mut calls = 0;
    let outcome = disk.store.with_ballast(|store| {
        calls += 1;
        if calls == 1 { Err(StoreError::DiskFull { path: store.path.clone() }) } else { Ok(()) }
    });
    outcome.unwrap();
    assert!(!ballast.exists());
    assert!(disk.store.is_full(), "nothing new starts although the end was recorded");
    disk.store.maintain().unwrap();
    assert!(ballast.exists() && !disk.store.is_full(), "there is space again");
}

#[test]
fn after_a_write_that_failed_nothing_is_written_until_the_store_is_opened_again() {
    let mut disk = disk();
    disk.append().unwrap();
    let failure = StoreError::WriteFailed { path: disk.store.path.clone(), detail: "fsync".to_owned() };
    disk.store.judge::<()>(Err(failure)).unwrap_err();
    assert!(matches!(disk.append(), Err(StoreError::Distrusted { .. })));
    assert!(matches!(disk.store.maintain(), Err(StoreError::Distrusted { .. })));
    let directory = disk.store.directory.clone();
    drop(disk.store);
    let store = SqliteStore::open(&directory, Access::Write).unwrap();
    assert_eq!(store.replay(disk.run, &disk.graph, &mut |_| {}).unwrap(), 2);
}

#[test]
fn a_transaction_that_failed_half_way_leaves_nothing_behind() {
    let mut disk = disk();
    disk.append().unwrap();
    // The second event of the next append meets a row that must not be there.
    let key = schema::key(disk.run.0, 4);
    disk.store
        .connection
        .execute("INSERT INTO event (key, at, kind, payload, hash) VALUES (?1, 0, 'odd', '{}', x'')", [key])
        .unwrap();
    let events = vec![Event { at: Time(1), kind: EventKind::RunStarted }; 2];
    let append = Append {
        log: Log::Run(disk.run),
        epoch: disk.owner,
        expected_seq: Some(2),
        events: Events::Run(&events, &disk.graph),
    };
    let group = [Group { appends: vec![append], answered: Vec::new() }];
    assert!(disk.store.append(&group).is_err());
    disk.store.connection.execute("DELETE FROM event WHERE key = ?1", [key]).unwrap();
    assert_eq!(disk.events(), 2);
    assert_eq!(disk.store.append(&group).unwrap(), [Outcome::Committed { last_seqs: vec![4] }]);
    assert_eq!(disk.events(), 4);
}
