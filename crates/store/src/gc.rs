//! `baton gc`: removes old runs and gives their space back to the disk.

mod estimate;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use baton_core::lock::{LockEvent, LockEventKind, LockTable};
use baton_core::{Log, Millis, RunId, Time};
use rusqlite::{Transaction, params};

use crate::doctor::{artifact_files, entries, name};
use crate::sqlite::unsigned;
use crate::{
    Append, BUSY_LIMIT, DataDir, Events, Filter, Group, Result, SqliteStore, Store, StoreError, artifact, schema,
};

/// A file among the artefacts that nothing refers to is left alone for so long: an event may be about to.
const ARTIFACT_GRACE: Duration = Duration::from_secs(3600);

/// So many rows are removed in one transaction, so that others are not held up.
const ROWS_A_TRANSACTION: usize = if cfg!(test) { 50 } else { 2_000 };

/// A transaction removes no further row after so many bytes.
const BYTES_A_TRANSACTION: i64 = 4 << 20;

/// The longest pause between two transactions.
const TURN_LIMIT: Duration = Duration::from_secs(1);

/// How long others may be kept from writing while the WAL is emptied; where that is too short it keeps its size.
const TRUNCATE_WAIT: Duration = Duration::from_millis(50);

/// So many pages are given back in one transaction.
const PAGES_A_TRANSACTION: u32 = 2_000;

/// Which runs stay. A run that has not ended always does, and so does what it refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GcPolicy {
    /// Runs stay so long after their end.
    pub keep_for: Option<Millis>,
    /// The last so many runs that have ended stay.
    pub keep_last: Option<usize>,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What was removed, or would be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GcReport {
    /// The runs.
    pub runs: Vec<RunId>,
    /// How many artefacts.
    pub artifacts: u64,
    /// How many bytes less the database and the files have; in a dry run this is an estimate. The write-ahead log is
    /// not counted, because it grows again with the next run.
    pub bytes_freed: u64,
}

/// What somebody does with the files of runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RunsUse {
    /// It copies what the copied database names.
    Copy,
    /// It removes them.
    Remove,
}

/// While it is held nobody removes the files of runs while another copies or removes them.
pub(crate) fn lock_runs(directory: &DataDir, runs_use: RunsUse) -> Result<File> {
    let path = directory.runs();
    let runs = File::open(&path).map_err(StoreError::io("open", &path))?;
    let locked = match runs_use {
        RunsUse::Copy => runs.try_lock_shared(),
        RunsUse::Remove => runs.try_lock(),
    };
    match locked {
        Ok(()) => Ok(runs),
        Err(TryLockError::WouldBlock) => Err(StoreError::Refused {
            detail: format!(
                "another process copies or removes runs in `{}`; wait for the end of its `baton backup` or `baton gc`",
                directory.root().display()
            ),
        }),
        Err(TryLockError::Error(source)) => Err(StoreError::io("lock", &path)(source)),
    }
}

/// What one transaction may still remove.
struct Allowance {
    rows: usize,
    bytes: i64,
}

impl Allowance {
    fn of_a_transaction() -> Self {
        Self { rows: ROWS_A_TRANSACTION, bytes: BYTES_A_TRANSACTION }
    }

    fn is_used_up(&self) -> bool {
        self.rows == 0 || self.bytes <= 0
    }

    fn use_rows(&mut self, removed: usize) {
        self.rows = self.rows.saturating_sub(removed);
    }

    /// Removes the events of a log up to the one with this number, as far as it goes. Answers whether all are gone.
    fn remove_events(&mut self, transaction: &Transaction<'_>, log: u64, last_seq: u64) -> rusqlite::Result<bool> {
        let (first, end) = (schema::key(log, 0), schema::key(log, last_seq));
        let mut select = transaction.prepare_cached(
            "SELECT key, octet_length(payload) FROM event WHERE key BETWEEN ?1 AND ?2 ORDER BY key LIMIT ?3",
        )?;
        let limit = self.rows;
        let mut rows = select.query(params![first, end, limit as i64])?;
        let (mut last, mut found) = (None, 0);
        while let Some(row) = rows.next()? {
            found += 1;
            last = Some(row.get::<_, i64>(0)?);
            self.bytes -= row.get::<_, i64>(1)?;
            if self.bytes <= 0 {
                break;
            }
        }
        self.use_rows(found);
        if let Some(last) = last {
            transaction
                .prepare_cached("DELETE FROM event WHERE key BETWEEN ?1 AND ?2")?
                .execute(params![first, last])?;
        }
        Ok(found < limit && self.bytes > 0)
    }

    /// Removes the rows of a run's artefacts, as far as it goes. Answers whether all are gone.
    fn remove_artifact_rows(&mut self, transaction: &Transaction<'_>, run: RunId) -> rusqlite::Result<bool> {
        let limit = self.rows;
        let removed = transaction
            .prepare_cached("DELETE FROM artifact WHERE rowid IN (SELECT rowid FROM artifact WHERE run = ?1 LIMIT ?2)")?
            .execute(params![run.0 as i64, limit as i64])?;
        self.use_rows(removed);
        Ok(removed < limit)
    }

    /// With this a run is gone: nobody finds it any more.
    fn forget(&mut self, transaction: &Transaction<'_>, run: RunId) -> rusqlite::Result<()> {
        for sql in
            ["DELETE FROM command WHERE run = ?1", "DELETE FROM run WHERE id = ?1", "DELETE FROM head WHERE log = ?1"]
        {
            self.use_rows(transaction.prepare_cached(sql)?.execute([run.0 as i64])?);
        }
        Ok(())
    }

    /// Removes what is left of runs that are gone, the first ones first; those that nothing is left of are taken out.
    fn remove_rows_of(&mut self, transaction: &Transaction<'_>, gone: &mut VecDeque<RunId>) -> rusqlite::Result<()> {
        while let Some(run) = gone.front()
            && self.remove_events(transaction, run.0, u64::from(u32::MAX))?
            && self.remove_artifact_rows(transaction, *run)?
        {
            gone.pop_front();
        }
        Ok(())
    }
}

/// The runs that are to go, and what is needed to see that one has to stay.
struct Chosen {
    doomed: BTreeSet<RunId>,
    outputs_from: BTreeMap<RunId, RunId>,
    /// Every run up to this one has been looked at.
    newest: RunId,
}

impl Chosen {
    /// A run stays, and what it takes outputs from.
    fn keep(&mut self, run: RunId) {
        self.doomed.remove(&run);
        self.keep_needs_of(run);
    }

    fn keep_needs_of(&mut self, run: RunId) {
        let mut next = self.outputs_from.get(&run).copied();
        // What has been kept before has had what it needs kept with it.
        while let Some(run) = next.filter(|run| self.doomed.remove(run)) {
            next = self.outputs_from.get(&run).copied();
        }
    }

    /// Looks at the runs that were submitted since the last look. The caller holds the write lock: there are no others.
    fn keep_needs_of_new_runs(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut select =
            transaction.prepare_cached("SELECT id, outputs_from, retry_of FROM run WHERE id > ?1 ORDER BY id")?;
        let mut rows = select.query([self.newest.0 as i64])?;
        while let Some(row) = rows.next()? {
            self.newest = run_id(row.get(0)?);
            if let Some(from) = row.get::<_, Option<i64>>(1)?.map(run_id) {
                self.outputs_from.insert(self.newest, from);
            }
            if let Some(retried) = row.get::<_, Option<i64>>(2)?.map(run_id) {
                self.keep(retried);
            }
            self.keep_needs_of(self.newest);
        }
        Ok(())
    }
}

impl SqliteStore {
    /// Removes the runs that the policy does not keep, files that nothing refers to, and empty pages.
    pub fn gc(&mut self, policy: GcPolicy, now: Time) -> Result<GcReport> {
        let mut chosen = self.choose(policy, now)?;
        if policy.dry_run {
            return self.estimate(chosen.doomed);
        }
        let _alone = lock_runs(self.directory(), RunsUse::Remove)?;
        let before = self.bytes()?;
        self.export_flush()?;
        // An earlier one may have been interrupted.
        self.remove_rows_of_removed_runs()?;
        let runs = self.remove_runs(&mut chosen)?;
        self.remove_plans()?;
        self.fold_locks()?;
        self.remove_orphans()?;
        let artifacts = self.sweep_artifacts()?;
        self.give_back_pages()?;
        Ok(GcReport { runs, artifacts, bytes_freed: before.saturating_sub(self.bytes()?) })
    }

    /// Which runs the policy does not keep.
    fn choose(&self, policy: GcPolicy, now: Time) -> Result<Chosen> {
        let rows = self.runs(&Filter::default())?;
        let mut chosen = Chosen {
            doomed: BTreeSet::new(),
            outputs_from: self.outputs_from()?,
            newest: rows.first().map_or(RunId(0), |row| row.run),
        };
        if policy.keep_for.is_none() && policy.keep_last.is_none() {
            return Ok(chosen);
        }
        // The newest come first.
        let ended = rows.iter().filter(|row| row.phase.is_terminal());
        chosen.doomed = ended
            .enumerate()
            .filter(|(place, row)| {
                let is_old = policy.keep_for.is_none_or(|keep| row.ended_at.is_some_and(|end| now.since(end) > keep));
                is_old && policy.keep_last.is_none_or(|last| *place >= last)
            })
            .map(|(_, row)| row.run)
            .collect();
        for row in &rows {
            if !chosen.doomed.contains(&row.run) {
                chosen.keep_needs_of(row.run);
            }
            if let (false, Some(run)) = (row.phase.is_terminal(), row.retry_of) {
                chosen.keep(run);
            }
        }
        Ok(chosen)
    }

    /// Removes these runs, those that take outputs from them, and their locks, whether or not they have ended; answers
    /// with all that are gone.
    pub(crate) fn remove_with_dependents(&mut self, runs: BTreeSet<RunId>) -> Result<Vec<RunId>> {
        let rows = self.runs(&Filter::default())?;
        let newest = rows.first().map_or(RunId(0), |row| row.run);
        let mut chosen = Chosen { doomed: runs, outputs_from: self.outputs_from()?, newest };
        // A run takes outputs from an older one.
        for (run, from) in &chosen.outputs_from {
            if chosen.doomed.contains(from) {
                chosen.doomed.insert(*run);
            }
        }
        let mut locks = LockTable::default();
        self.follow_locks(&mut locks, 0)?;
        for row in rows.iter().filter(|row| chosen.doomed.contains(&row.run)) {
            let holders: BTreeSet<_> = locks.held_in(row.run).chain(locks.waiting_in(row.run)).cloned().collect();
            let kind = LockEventKind::Released { reason: Some("its run was left out of a restore".to_owned()) };
            let events: Vec<LockEvent> =
                holders.into_iter().map(|holder| LockEvent { at: row.last_at, holder, kind: kind.clone() }).collect();
            let append =
                Append { log: Log::Shared, epoch: row.epoch, expected_seq: None, events: Events::Locks(&events) };
            self.append(&[Group { appends: vec![append], answered: Vec::new() }])?;
        }
        self.remove_runs(&mut chosen)
    }

    /// Which run takes outputs from which.
    fn outputs_from(&self) -> Result<BTreeMap<RunId, RunId>> {
        self.connection()
            .prepare("SELECT id, outputs_from FROM run WHERE outputs_from IS NOT NULL")
            .and_then(|mut select| {
                select.query_map([], |row| Ok((run_id(row.get(0)?), run_id(row.get(1)?))))?.collect()
            })
            .map_err(self.failed())
    }

    /// Removes the chosen runs, and answers with those that are gone: what has become needed meanwhile stays. The
    /// newest go first, so that no run is ever there without the one that it takes outputs from.
    fn remove_runs(&mut self, chosen: &mut Chosen) -> Result<Vec<RunId>> {
        // Not with their run, however many there are: its artefacts' rows go in their turn.
        self.connection().pragma_update(None, "foreign_keys", false).map_err(self.failed())?;
        let removed = self.remove_newest_first(chosen);
        self.connection().pragma_update(None, "foreign_keys", true).map_err(self.failed())?;
        removed
    }

    fn remove_newest_first(&mut self, chosen: &mut Chosen) -> Result<Vec<RunId>> {
        let mut newest_first: VecDeque<RunId> = chosen.doomed.iter().rev().copied().collect();
        let (mut removed, mut left) = (Vec::new(), VecDeque::new());
        while !newest_first.is_empty() || !left.is_empty() {
            let gone = self.remove_some(&mut newest_first, chosen, &mut left)?;
            for run in &gone {
                remove_folder(self.directory().run(*run))?;
            }
            removed.extend(gone);
        }
        removed.sort();
        Ok(removed)
    }

    /// Removes in one transaction as much as one may, first what is `left` of a run that is gone. Answers with the runs
    /// that are gone now.
    fn remove_some(
        &mut self,
        newest_first: &mut VecDeque<RunId>,
        chosen: &mut Chosen,
        left: &mut VecDeque<RunId>,
    ) -> Result<Vec<RunId>> {
        let failed = self.failed();
        self.in_turn(|store| {
            store.write(|transaction| {
                let mut remove = || -> rusqlite::Result<Vec<RunId>> {
                    chosen.keep_needs_of_new_runs(transaction)?;
                    let (mut allowance, mut gone) = (Allowance::of_a_transaction(), Vec::new());
                    allowance.remove_rows_of(transaction, left)?;
                    while !allowance.is_used_up()
                        && let Some(run) = newest_first.pop_front()
                    {
                        if chosen.doomed.contains(&run) {
                            allowance.forget(transaction, run)?;
                            gone.push(run);
                            left.push_back(run);
                            allowance.remove_rows_of(transaction, left)?;
                        }
                    }
                    Ok(gone)
                };
                remove().map_err(&failed)
            })
        })
    }

    /// Removes the events and the artefacts' rows that an interrupted `gc` has left of runs that are gone.
    fn remove_rows_of_removed_runs(&mut self) -> Result<()> {
        let failed = self.failed();
        let mut gone = self.logs_without_run()?;
        gone.extend(
            self.connection()
                .prepare("SELECT DISTINCT run FROM artifact WHERE run NOT IN (SELECT id FROM run)")
                .and_then(|mut select| {
                    select.query_map([], |row| row.get(0).map(run_id))?.collect::<rusqlite::Result<Vec<_>>>()
                })
                .map_err(&failed)?,
        );
        while !gone.is_empty() {
            self.in_turn(|store| {
                store.write(|transaction| {
                    Allowance::of_a_transaction().remove_rows_of(transaction, &mut gone).map_err(&failed)
                })
            })?;
        }
        Ok(())
    }

    /// The logs of which there are events and no head. Numbers of runs are never used again.
    fn logs_without_run(&self) -> Result<VecDeque<RunId>> {
        let failed = self.failed();
        let mut next = self.connection().prepare("SELECT min(key) FROM event WHERE key >= ?1").map_err(&failed)?;
        let mut has_head =
            self.connection().prepare("SELECT EXISTS (SELECT 1 FROM head WHERE log = ?1)").map_err(&failed)?;
        let (mut logs, mut from) = (VecDeque::new(), schema::key(1, 0));
        while let Some(key) = next.query_row([from], |row| row.get::<_, Option<i64>>(0)).map_err(&failed)? {
            let log = unsigned(key) >> schema::LOG_SHIFT;
            if !has_head.query_row([log as i64], |row| row.get::<_, bool>(0)).map_err(&failed)? {
                logs.push_back(RunId(log));
            }
            from = schema::key(log + 1, 0);
        }
        Ok(logs)
    }

    /// Removes a bounded number of the events of a log up to the one with this number. Answers whether all are gone.
    pub(crate) fn remove_some_events(&mut self, log: u64, last_seq: u64) -> Result<bool> {
        let failed = self.failed();
        self.write(|transaction| {
            Allowance::of_a_transaction().remove_events(transaction, log, last_seq).map_err(&failed)
        })
    }

    /// Removes the plans of which there is no run.
    fn remove_plans(&mut self) -> Result<()> {
        let mut from = Some(0);
        while let Some(next) = from {
            from = self.in_turn(|store| store.remove_some_plans(next))?;
        }
        Ok(())
    }

    /// Looks at plans from this number on; answers with the number to go on from where there may be more.
    fn remove_some_plans(&mut self, from: i64) -> Result<Option<i64>> {
        let failed = self.failed();
        self.write(|transaction| {
            let remove = || -> rusqlite::Result<Option<i64>> {
                let mut select = transaction.prepare_cached(
                    "SELECT id, bytes FROM plan WHERE id >= ?1 AND id NOT IN (SELECT plan FROM run) ORDER BY id LIMIT ?2",
                )?;
                let mut rows = select.query([from, ROWS_A_TRANSACTION as i64])?;
                let (mut plans, mut bytes) = (Vec::new(), 0);
                while bytes < BYTES_A_TRANSACTION
                    && let Some(row) = rows.next()?
                {
                    plans.push(row.get::<_, i64>(0)?);
                    bytes += row.get::<_, i64>(1)?;
                }
                for plan in &plans {
                    transaction.prepare_cached("DELETE FROM plan WHERE id = ?1")?.execute([plan])?;
                }
                let may_be_more = bytes >= BYTES_A_TRANSACTION || plans.len() == ROWS_A_TRANSACTION;
                Ok(plans.last().map(|last| last + 1).filter(|_| may_be_more))
            };
            remove().map_err(&failed)
        })
    }

    /// Does something that keeps others from writing, then leaves the database to them for as long as it took.
    pub(crate) fn in_turn<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let outcome = work(self)?;
        self.maintain()?;
        std::thread::park_timeout(started.elapsed().min(TURN_LIMIT));
        Ok(outcome)
    }

    /// Removes folders of runs that are not there any more: an earlier `gc` was interrupted.
    fn remove_orphans(&self) -> Result<()> {
        self.orphans()?.into_iter().try_for_each(remove_folder)
    }

    fn orphans(&self) -> Result<Vec<PathBuf>> {
        let mut orphans = entries(&self.directory().runs())?;
        orphans.retain(|folder| {
            // A run's row is there before its folder is, so a folder without a row belongs to a removed run.
            name(folder)
                .parse()
                .is_ok_and(|number| matches!(self.run(RunId(number)), Err(StoreError::NoSuchRun { .. })))
        });
        Ok(orphans)
    }

    fn sweep_artifacts(&self) -> Result<u64> {
        let mut removed = 0;
        let files = artifact_files(self.directory())?;
        let now = SystemTime::now();
        for (path, sha256) in files {
            let _alone = artifact::lock_shelves(self.directory(), true)?;
            if self.is_unwanted(&path, sha256.as_deref(), &BTreeSet::new(), now)? {
                std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Whether a file among the artefacts is to go, once these runs are gone.
    fn is_unwanted(&self, path: &Path, sha256: Option<&str>, gone: &BTreeSet<RunId>, now: SystemTime) -> Result<bool> {
        let age = std::fs::metadata(path).and_then(|facts| facts.modified());
        let is_old = age.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > ARTIFACT_GRACE));
        let Some(sha256) = sha256.filter(|_| is_old) else { return Ok(is_old) };
        let failed = self.failed();
        let mut select =
            self.connection().prepare_cached("SELECT run FROM artifact WHERE sha256 = ?1").map_err(&failed)?;
        let mut rows = select.query([sha256]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            if !gone.contains(&row.get(0).map(run_id).map_err(&failed)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn give_back_pages(&mut self) -> Result<()> {
        let failed = self.failed();
        let free = |store: &Self| -> Result<i64> {
            store.connection().pragma_query_value(None, "freelist_count", |row| row.get(0)).map_err(store.failed())
        };
        let mut left = free(self)?;
        while left > 0 {
            self.in_turn(|store| {
                let vacuum = format!("PRAGMA incremental_vacuum({PAGES_A_TRANSACTION})");
                let mut pragma = store.connection().prepare(&vacuum).map_err(&failed)?;
                let mut rows = pragma.query([]).map_err(&failed)?;
                while rows.next().map_err(&failed)?.is_some() {}
                Ok(())
            })?;
            let now = free(self)?;
            if now >= left {
                break;
            }
            left = now;
        }
        // A reader may hold the WAL; then it shrinks at a later time.
        self.set_wait(TRUNCATE_WAIT)?;
        let truncated = self.connection().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        self.set_wait(BUSY_LIMIT)?;
        truncated.map_err(failed)
    }

    /// The bytes of the database, without its write-ahead log, and of the files.
    fn bytes(&self) -> Result<u64> {
        let mut bytes = self.pages_bytes("page_count")?;
        for folder in entries(&self.directory().runs())? {
            bytes += folder_bytes(&folder)?;
        }
        bytes += artifact_files(self.directory())?.iter().map(|(path, _)| size(path)).sum::<u64>();
        Ok(bytes)
    }

    /// The bytes of so many of the database's pages as this pragma says.
    fn pages_bytes(&self, pragma: &str) -> Result<u64> {
        let number = |name: &str| -> Result<u64> {
            self.connection().pragma_query_value(None, name, |row| row.get(0).map(unsigned)).map_err(self.failed())
        };
        Ok(number(pragma)? * number("page_size")?)
    }
}

fn run_id(number: i64) -> RunId {
    RunId(unsigned(number))
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |facts| facts.len())
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    Ok(entries(folder)?.iter().map(|path| size(path)).sum())
}

fn remove_folder(folder: PathBuf) -> Result<()> {
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", &folder)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
