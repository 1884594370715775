//! The shared log does not grow for ever: what is long past is folded into who holds and wants which lock.

use baton_core::Log;
use baton_core::lock::{LockEvent, LockEventKind, LockTable};
use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};

use super::{SqliteStore, unsigned};
use crate::chain::{self, Hash, Row};
use crate::stored::{self, StoredColumns};
use crate::{Result, StoreError};

/// The shared log is folded when it has grown by so many events.
const FOLD_EVENTS: u64 = if cfg!(test) { 100 } else { 10_000 };

/// The row of `meta` that holds it.
const NAME: &str = "locks_folded";

/// The shared log up to some event, as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredFold {
    /// The number of that event.
    seq: u64,
    /// Its hash.
    hash: Hash,
    /// The fewest events that lead to the same locks: JSON.
    events: String,
    /// The hash of all of this, linked to that of the event: a changed row is found.
    check: Hash,
}

#[derive(Serialize, Deserialize)]
struct FoldedEvent {
    at: i64,
    kind: String,
    step: Option<String>,
    payload: String,
}

/// The shared log up to some event.
pub(super) struct Fold {
    /// The number of that event; 0: nothing is folded.
    pub(super) seq: u64,
    /// Its hash.
    pub(super) hash: Hash,
    events: Vec<LockEvent>,
}

impl Fold {
    fn damaged(seq: u64, detail: impl std::fmt::Display) -> StoreError {
        let detail = format!("what the events up to it were folded into cannot be trusted: {detail}");
        StoreError::DamagedLog { log: Log::Shared, seq, detail }
    }

    fn decode(text: &str) -> Result<Self> {
        let fold: StoredFold = serde_json::from_str(text).map_err(|error| Self::damaged(1, error))?;
        let damaged = |detail: String| Self::damaged(fold.seq, detail);
        if check(fold.seq, &fold.hash, &fold.events) != fold.check {
            return Err(damaged("its hash is not that of its fields and the event".to_owned()));
        }
        let events: Vec<FoldedEvent> =
            serde_json::from_str(&fold.events).map_err(|error| damaged(error.to_string()))?;
        let decode = |event: &FoldedEvent| {
            let FoldedEvent { at, kind, step, payload } = event;
            stored::decode_lock(&StoredColumns {
                at: *at,
                kind,
                step: step.as_deref(),
                attempt: None,
                payload: payload.as_bytes(),
            })
        };
        let events = events.iter().map(decode).collect::<Result<_, String>>().map_err(damaged)?;
        Ok(Self { seq: fold.seq, hash: fold.hash, events })
    }

    fn encode(&self) -> String {
        let encode = |event: &LockEvent| {
            let mut payload = Vec::new();
            let columns = stored::encode_lock(event, &mut payload);
            FoldedEvent {
                at: event.at.0,
                kind: columns.kind.to_owned(),
                step: columns.step.map(str::to_owned),
                payload: String::from_utf8_lossy(&payload).into_owned(),
            }
        };
        let events: Vec<FoldedEvent> = self.events.iter().map(encode).collect();
        // Text and numbers always have a JSON form.
        let events = serde_json::to_string(&events).unwrap_or_default();
        let check = check(self.seq, &self.hash, &events);
        let fold = StoredFold { seq: self.seq, hash: self.hash, events, check };
        serde_json::to_string(&fold).unwrap_or_default()
    }
}

fn check(seq: u64, hash: &Hash, events: &str) -> Hash {
    let row = Row { log: 0, seq, at: 0, kind: NAME, step: None, attempt: None, payload: events.as_bytes() };
    chain::link(hash, &row, &mut Vec::new())
}

/// The fewest events that lead to these locks.
fn fewest_events(table: &LockTable) -> Vec<LockEvent> {
    let held = table.held().map(|(holder, held)| LockEvent {
        at: held.since,
        holder: holder.clone(),
        kind: LockEventKind::Granted { names: held.names.clone() },
    });
    let line = table.line().map(|waiting| LockEvent {
        at: waiting.since,
        holder: waiting.holder.clone(),
        kind: LockEventKind::Requested { names: waiting.names.clone() },
    });
    held.chain(line).collect()
}

impl SqliteStore {
    /// What the shared log begins with.
    pub(super) fn fold(&self) -> Result<Fold> {
        let text: Option<String> = self
            .connection
            .prepare_cached("SELECT value FROM meta WHERE name = ?1")
            .and_then(|mut select| select.query_row([NAME], |row| row.get(0)).optional())
            .map_err(self.failed())?;
        text.map_or(Ok(Fold { seq: 0, hash: chain::START, events: Vec::new() }), |text| Fold::decode(&text))
    }

    /// See [`crate::Store::follow_locks`].
    pub(super) fn follow_shared_log(&self, table: &mut LockTable, after_seq: u64) -> Result<u64> {
        let failed = self.failed();
        // One transaction, so that the fold and the events are of the same moment.
        let transaction = self.connection.unchecked_transaction().map_err(&failed)?;
        let fold = self.fold()?;
        let last = if after_seq == 0 || after_seq < fold.seq {
            *table = LockTable::default();
            fold.events.iter().for_each(|event| table.apply(event));
            self.walk_from(Log::Shared, (fold.seq, fold.hash), &mut |_, stored| {
                table.apply(&stored::decode_lock(stored)?);
                Ok(())
            })?
            .0
        } else {
            self.read_on(table, after_seq)?
        };
        transaction.commit().map_err(failed)?;
        Ok(last)
    }

    /// Whoever reads on has verified what came before when it was read the first time.
    fn read_on(&self, table: &mut LockTable, after_seq: u64) -> Result<u64> {
        let failed = self.failed();
        let mut select = self
            .connection
            .prepare_cached(
                "SELECT key, at, kind, step, payload FROM event WHERE key > ?1 AND key <= 4294967295 ORDER BY key",
            )
            .map_err(&failed)?;
        let mut rows = select.query([after_seq as i64]).map_err(&failed)?;
        let mut last = after_seq;
        while let Some(row) = rows.next().map_err(&failed)? {
            let damaged = |detail: String| StoreError::DamagedLog { log: Log::Shared, seq: last + 1, detail };
            let key: i64 = row.get(0).map_err(&failed)?;
            if unsigned(key) != last + 1 {
                return Err(damaged(format!("event {key} stands in its place")));
            }
            let kind: String = row.get(2).map_err(&failed)?;
            let step: Option<String> = row.get(3).map_err(&failed)?;
            let payload: String = row.get(4).map_err(&failed)?;
            let stored = StoredColumns {
                at: row.get(1).map_err(&failed)?,
                kind: &kind,
                step: step.as_deref(),
                attempt: None,
                payload: payload.as_bytes(),
            };
            table.apply(&stored::decode_lock(&stored).map_err(damaged)?);
            last += 1;
        }
        Ok(last)
    }

    /// Folds the shared log where it has grown by [`FOLD_EVENTS`], and removes the events that are folded. Whoever has
    /// not read them yet begins anew with what they were folded into.
    pub(crate) fn fold_locks(&mut self) -> Result<()> {
        let failed = self.failed();
        let (fold, is_new) = self.fold_on()?;
        if is_new {
            self.write(|transaction| {
                // Another process may have folded more.
                transaction
                    .execute(
                        "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE \
                         SET value = excluded.value WHERE value ->> 'seq' < excluded.value ->> 'seq'",
                        [NAME, &fold.encode()],
                    )
                    .map_err(&failed)?;
                Ok(())
            })?;
        }
        // Also what an interrupted fold has left.
        let is_left: bool = self
            .connection
            .query_row("SELECT EXISTS (SELECT 1 FROM event WHERE key <= ?1)", [fold.seq as i64], |row| row.get(0))
            .map_err(failed)?;
        while is_left && !self.in_turn(|store| store.remove_some_events(0, fold.seq))? {}
        Ok(())
    }

    /// What the shared log begins with, folded on where it has grown enough; answers whether it was.
    fn fold_on(&self) -> Result<(Fold, bool)> {
        let failed = self.failed();
        // One transaction, so that the fold, the head and the events are of the same moment.
        let transaction = self.connection.unchecked_transaction().map_err(&failed)?;
        let mut fold = self.fold()?;
        let end: i64 =
            self.connection.query_row("SELECT seq FROM head WHERE log = 0", [], |row| row.get(0)).map_err(&failed)?;
        let is_new = unsigned(end) >= fold.seq + FOLD_EVENTS;
        if is_new {
            let mut table = LockTable::default();
            fold.events.iter().for_each(|event| table.apply(event));
            (fold.seq, fold.hash) = self.walk_from(Log::Shared, (fold.seq, fold.hash), &mut |_, stored| {
                table.apply(&stored::decode_lock(stored)?);
                Ok(())
            })?;
            fold.events = fewest_events(&table);
        }
        transaction.commit().map_err(failed)?;
        Ok((fold, is_new))
    }
}

#[cfg(test)]
mod tests {
    use baton_core::lock::Holder;
    use baton_core::{Epoch, RunCreated, RunId, Time};

    use super::*;
    use crate::{Access, Append, DataDir, Events, Group, NewRun, Outcome, OwnerInfo, Store};

    struct World {
        scratch: tempfile::TempDir,
        store: SqliteStore,
        owner: Epoch,
        run: RunId,
    }

    fn world() -> World {
        let scratch = tempfile::tempdir().unwrap();
        let mut store = open(&scratch);
        let owner = store.register(&OwnerInfo::current()).unwrap();
        let created = RunCreated { plan_sha256: crate::sha256_hex(b""), ..RunCreated::default() };
        let new = NewRun { created: &created, plan_text: "", at: Time(0) };
        let run = store.create_run(&new, Some(owner)).unwrap().run();
        World { scratch, store, owner, run }
    }

    fn open(scratch: &tempfile::TempDir) -> SqliteStore {
        SqliteStore::open(&DataDir::at(scratch.path().join(".baton")), Access::Write).unwrap()
    }

    impl World {
        fn append(&mut self, events: &[LockEvent]) {
            let append =
                Append { log: Log::Shared, epoch: self.owner, expected_seq: None, events: Events::Locks(events) };
            let outcome = self.store.append(&[Group { appends: vec![append], answered: Vec::new() }]).unwrap();
            assert!(matches!(outcome[..], [Outcome::Committed { .. }]));
        }

        /// So many events: every fourth step keeps its lock, every fourth waits, the others come and go.
        fn history(&mut self, count: u64) {
            let event = |number: u64| {
                let holder = Holder { run: self.run, step: Some(format!("step {}", number / 2)) };
                let names = vec![format!("lock {}", number / 2)];
                let kind = match number % 8 {
                    0 | 2 | 4 | 6 => LockEventKind::Requested { names },
                    1 => LockEventKind::Granted { names },
                    _ => LockEventKind::Released { reason: None },
                };
                LockEvent { at: Time(number as i64), holder, kind }
            };
            // The last ones hold and wait, so that something is left.
            let events: Vec<LockEvent> = (0..count).filter(|number| number % 8 != 7).map(event).collect();
            self.append(&events);
        }

        fn rows(&self) -> u64 {
            let sql = "SELECT count(*) FROM event WHERE key < 1 << 32";
            self.store.connection.query_row(sql, [], |row| row.get(0).map(unsigned)).unwrap()
        }
    }

    fn told(table: &LockTable) -> String {
        let line: Vec<_> = table.line().collect();
        format!("{:?} {line:?}", table.held().collect::<Vec<_>>())
    }

    #[test]
    fn the_lock_log_stays_short_and_means_the_same_to_new_and_old_readers() {
        let mut world = world();
        world.history(50);
        let (mut behind, mut whole) = (LockTable::default(), LockTable::default());
        let early = world.store.follow_locks(&mut behind, 0).unwrap();
        world.history(5 * FOLD_EVENTS);
        let mut end = world.store.follow_locks(&mut whole, 0).unwrap();
        assert!(world.rows() > 4 * FOLD_EVENTS);
        assert!(whole.held().count() > 10 && whole.line().count() > 10);
        // The next process starts.
        open(&world.scratch).register(&OwnerInfo::current()).unwrap();
        assert_eq!(world.rows(), 0);
        let mut fresh = LockTable::default();
        assert_eq!(world.store.follow_locks(&mut fresh, 0).unwrap(), end);
        assert_eq!(told(&fresh), told(&whole));
        assert_eq!(world.store.follow_locks(&mut behind, early).unwrap(), end);
        assert_eq!(told(&behind), told(&whole));
        assert_eq!(world.store.follow_locks(&mut whole, end).unwrap(), end);
        // It goes on from there, and is folded again.
        for _ in 0..2 {
            world.history(FOLD_EVENTS / 2);
            end = world.store.follow_locks(&mut whole, end).unwrap();
            let mut fresh = LockTable::default();
            assert_eq!(world.store.follow_locks(&mut fresh, 0).unwrap(), end);
            assert_eq!(told(&fresh), told(&whole));
            world.store.fold_locks().unwrap();
            assert!(world.rows() < FOLD_EVENTS);
        }
        assert!(world.store.doctor().unwrap().is_healthy());
    }

    #[test]
    fn a_fold_beside_a_process_that_writes_on_takes_nothing_for_damage() {
        let mut world = world();
        world.history(3 * FOLD_EVENTS);
        // The other process writes whenever SQLite has done a little for this one, wherever that is.
        let mut other = open(&world.scratch);
        other.set_wait(std::time::Duration::ZERO).unwrap();
        other.connection.pragma_update(None, "synchronous", "OFF").unwrap();
        let (run, owner) = (world.run, world.owner);
        let appended = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&appended);
        let writes_on = move || {
            let holder = Holder { run, step: Some("other".to_owned()) };
            let events = [LockEvent { at: Time(0), holder, kind: LockEventKind::Released { reason: None } }];
            let append = Append { log: Log::Shared, epoch: owner, expected_seq: None, events: Events::Locks(&events) };
            // It may be this one that keeps it from writing.
            if other.append(&[Group { appends: vec![append], answered: Vec::new() }]).is_ok() {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            false
        };
        world.store.connection.progress_handler(1, Some(writes_on)).unwrap();
        world.store.fold_locks().unwrap();
        world.store.connection.progress_handler(0, None::<fn() -> bool>).unwrap();
        assert!(appended.load(std::sync::atomic::Ordering::Relaxed) > 10);
        assert!(world.store.fold().unwrap().seq > 2 * FOLD_EVENTS);
        assert!(world.store.doctor().unwrap().is_healthy());
    }

    #[test]
    fn a_process_starts_although_the_lock_log_cannot_be_folded() {
        let mut world = world();
        world.history(2 * FOLD_EVENTS);
        world.store.connection.execute("UPDATE event SET at = at + 1 WHERE key = 7", []).unwrap();
        let mut other = open(&world.scratch);
        assert!(other.register(&OwnerInfo::current()).unwrap() > world.owner);
        // Whoever needs the locks is told.
        assert_eq!(other.follow_locks(&mut LockTable::default(), 0).unwrap_err().code(), "damaged-log");
    }

    #[test]
    fn a_process_that_starts_beside_a_busy_one_waits_as_long_as_it_was_told_to() {
        let world = world();
        let busy = rusqlite::Connection::open(&world.store.path).unwrap();
        busy.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut other = open(&world.scratch);
        other.set_wait(std::time::Duration::from_millis(20)).unwrap();
        assert_eq!(other.register(&OwnerInfo::current()).unwrap_err().code(), "store-busy");
        let wait: u32 = other.connection.pragma_query_value(None, "busy_timeout", |row| row.get(0)).unwrap();
        assert_eq!(wait, 20, "housekeeping has left it as it was");
    }

    #[test]
    fn a_changed_fold_and_a_changed_event_after_it_are_found() {
        for change in [
            "UPDATE meta SET value = replace(value, 'step 1', 'step 7') WHERE name = 'locks_folded'",
            "UPDATE meta SET value = json_set(value, '$.seq', 3) WHERE name = 'locks_folded'",
            "UPDATE event SET at = at + 1 WHERE key = (SELECT min(key) FROM event)",
            "DELETE FROM event WHERE key = (SELECT min(key) FROM event)",
            "DELETE FROM meta WHERE name = 'locks_folded'",
        ] {
            let mut world = world();
            world.history(2 * FOLD_EVENTS);
            world.store.fold_locks().unwrap();
            world.history(10);
            assert!(world.store.doctor().unwrap().is_healthy());
            world.store.connection.execute(change, []).unwrap();
            let error = world.store.follow_locks(&mut LockTable::default(), 0).unwrap_err();
            assert_eq!(error.code(), "damaged-log", "{change}");
            let report = world.store.doctor().unwrap();
            assert_eq!(report.damaged_logs.iter().map(|log| log.log).collect::<Vec<_>>(), [Log::Shared], "{change}");
        }
    }

    #[test]
    fn a_fold_that_dies_after_any_transaction_leaves_the_locks_as_they_are() {
        for survived in 0.. {
            let mut world = world();
            world.history(3 * FOLD_EVENTS);
            let mut before = LockTable::default();
            world.store.follow_locks(&mut before, 0).unwrap();
            let commits = std::sync::atomic::AtomicUsize::new(0);
            let dies = move || commits.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= survived;
            world.store.connection.commit_hook(Some(dies)).unwrap();
            let outcome = world.store.fold_locks();
            world.store = open(&world.scratch);
            assert!(world.store.doctor().unwrap().is_healthy());
            world.store.fold_locks().unwrap();
            assert_eq!(world.rows(), 0);
            let mut after = LockTable::default();
            world.store.follow_locks(&mut after, 0).unwrap();
            assert_eq!(told(&after), told(&before), "{survived}");
            if outcome.is_ok() {
                assert!(survived > 2, "there are several transactions");
                return;
            }
        }
    }
}
