//! The store in SQLite: one connection of this process writes, every append is one synced transaction.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use baton_core::lock::LockEvent;
use baton_core::{AttemptEnd, Epoch, Event, EventKind, Graph, Log, Output, RunCreated, RunId, StepIndex, Time};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::chain::{self, Hash, Row};
use crate::export::{self, Exporter};
use crate::output::{self, OutputLimits, OutputWriter, Piece};
use crate::owner::{self, Liveness, OwnerFiles};
use crate::stored::{self, Columns, StoredColumns};
use crate::{
    Append, BUSY_LIMIT, Command, CommandId, Conflict, Created, DataDir, Events, Filter, Group, NewRun, Outcome,
    OwnerInfo, OwnerRow, PendingCommand, Result, RunPhase, RunRow, Store, StoreError, StoredEvent, ballast, filesystem,
    schema,
};

/// SQLite before this one may damage a database when two connections checkpoint (the WAL-reset fault).
const OLDEST_SQLITE: (i32, &str) = (3_051_003, "3.51.3");

/// A WAL of this many pages is checkpointed in the next calm moment.
const CHECKPOINT_PAGES: u32 = 1_000;

/// A WAL of this many pages is checkpointed at once, calm or not.
const WAL_LIMIT_PAGES: u32 = 16_000;

/// A WAL of this many pages is checkpointed when the store is closed; a smaller one is read faster than that takes.
const CLOSE_CHECKPOINT_PAGES: u32 = 250;

/// The WAL file is kept up to this size: its blocks are there already, and a sync that needs no new ones is faster.
const WAL_KEPT_BYTES: u32 = 8 << 20;

/// A new WAL file has this size from the start: what comes between two checkpoints.
const WAL_ALLOCATED_BYTES: u64 = 4_400_000;

/// A plan's text is kept in rows of about this size, so that a large one needs no second copy in memory.
const PLAN_PART_BYTES: usize = 256 << 10;

const CACHED_STATEMENTS: usize = 40;

/// Runs whose last hash is remembered; beyond that it is read again when it is needed.
const REMEMBERED_HEADS: usize = 20_000;

/// What a store is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// To look, beside whoever writes. Nothing is made where nothing is.
    Read,
    /// To write; the data directory is made where it is missing.
    Write,
}

/// The store of a data directory.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    directory: DataDir,
    path: PathBuf,
    access: Access,
    id: String,
    heads: HashMap<u64, Head>,
    exporter: Exporter,
    owner: Option<OwnerFiles>,
    limits: OutputLimits,
    /// How many pages the WAL has, as SQLite says after each commit.
    wal_pages: Arc<AtomicU32>,
    /// From how many pages on a checkpoint is tried next.
    checkpoint_at: u32,
    ballast_taken: bool,
    full: bool,
    distrusted: bool,
    scratch: Scratch,
}

/// What a new epoch of a run is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Raise {
    /// Its dead owner is followed by another one.
    TakeOver,
    /// Its dead owner is shut out, and nobody follows yet.
    ShutOut,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    epoch: u64,
    seq: u64,
    hash: Hash,
}

/// Buffers that are used again for each append.
#[derive(Debug, Default)]
struct Scratch {
    payloads: Vec<u8>,
    link: Vec<u8>,
}

/// An event between its encoding and its insertion.
struct Encoded<'a> {
    columns: Columns<'a>,
    at: i64,
    payload_end: usize,
    hash: Hash,
}

impl SqliteStore {
    /// Opens the store of a data directory.
    pub fn open(directory: &DataDir, access: Access) -> Result<Self> {
        if rusqlite::version_number() < OLDEST_SQLITE.0 {
            return Err(StoreError::OldSqlite { found: rusqlite::version().to_owned(), needed: OLDEST_SQLITE.1 });
        }
        let path = directory.database();
        let flags = match access {
            Access::Read => {
                if !directory.exists() {
                    return Err(StoreError::NoStore { path: directory.root().to_path_buf() });
                }
                directory.refuse_network()?;
                OpenFlags::SQLITE_OPEN_READ_ONLY
            }
            Access::Write => {
                directory.create()?;
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
            }
        };
        let failed = StoreError::sqlite(&path);
        let mut connection =
            Connection::open_with_flags(&path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(&failed)?;
        connection.busy_timeout(BUSY_LIMIT).map_err(&failed)?;
        connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        prepare(&mut connection, directory, &path, access)?;
        let id = connection
            .query_row("SELECT value FROM meta WHERE name = 'store_id'", [], |row| row.get(0))
            .map_err(&failed)?;
        let wal_pages = Arc::new(AtomicU32::new(0));
        if access == Access::Write {
            let pages = Arc::clone(&wal_pages);
            let hook = move |_: &mut rusqlite::hooks::Wal, count: std::ffi::c_int| {
                pages.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            };
            connection.wal_hook(Some(hook)).map_err(&failed)?;
        }
        Ok(Self {
            connection,
            exporter: Exporter::new(directory.clone()),
            directory: directory.clone(),
            path,
            access,
            id,
            heads: HashMap::new(),
            owner: None,
            limits: OutputLimits::DEFAULT,
            wal_pages,
            checkpoint_at: CHECKPOINT_PAGES,
            ballast_taken: false,
            full: false,
            distrusted: false,
            scratch: Scratch::default(),
        })
    }

    /// The store's own name: eight hexadecimal digits, drawn when it was made.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The data directory.
    pub fn directory(&self) -> &DataDir {
        &self.directory
    }

    /// Becomes readable when another process wakes this owner; see [`SqliteStore::drain_wakes`].
    pub fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.owner.as_ref().map(OwnerFiles::wake_fd)
    }

    /// Takes out the wakes that came so far.
    pub fn drain_wakes(&self) {
        if let Some(owner) = &self.owner {
            owner.drain();
        }
    }

    /// Keeps another amount of output than usual.
    pub fn set_output_limits(&mut self, limits: OutputLimits) {
        self.limits = limits;
    }

    /// Hands the output of an attempt to `each`, wherever it stands.
    pub fn read_output(
        &self,
        run: RunId,
        step: StepIndex,
        attempt: u32,
        output: &Output,
        each: &mut dyn FnMut(Piece<'_>) -> Result<()>,
    ) -> Result<()> {
        output::read(&self.directory.output(run), step, attempt, output, each)
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// For hooks.
    #[cfg(test)]
    pub(crate) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub(crate) fn database_path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn failed(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        StoreError::sqlite(&self.path)
    }

    /// Runs `change` in a transaction that no other process can come between.
    pub(crate) fn write<T>(&mut self, change: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.check_trust()?;
        let failed = self.failed();
        let outcome = (|| {
            let transaction =
                self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
            let answer = change(&transaction)?;
            transaction.commit().map_err(&failed)?;
            Ok(answer)
        })();
        self.judge(outcome)
    }

    /// After a failed write the system's cache may not be what is on the disk: nothing is written any more.
    fn judge<T>(&mut self, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Err(StoreError::WriteFailed { .. } | StoreError::Damaged { .. }) => self.distrusted = true,
            Err(StoreError::DiskFull { .. }) => self.full = true,
            _ => {}
        }
        outcome
    }

    fn check_trust(&self) -> Result<()> {
        if self.distrusted { Err(StoreError::Distrusted { path: self.path.clone() }) } else { Ok(()) }
    }

    /// Tries once more with the ballast given up, where the disk was full.
    fn with_ballast<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        match attempt(self) {
            Err(StoreError::DiskFull { .. }) if ballast::release(&self.directory) => {
                self.full = true;
                self.ballast_taken = false;
                attempt(self)
            }
            outcome => outcome,
        }
    }

    fn try_append(&mut self, groups: &[Group<'_>]) -> Result<Vec<Outcome>> {
        self.check_trust()?;
        let mark = self.exporter.mark();
        let failed = self.failed();
        let outcome = (|| {
            self.statement("BEGIN IMMEDIATE")?;
            let mut outcomes = Vec::with_capacity(groups.len());
            for group in groups {
                outcomes.push(self.write_group(group)?);
            }
            self.statement("COMMIT")?;
            Ok(outcomes)
        })();
        let outcome = outcome.map_err(|error| match error {
            AppendError::Sqlite(error) => failed(error),
            AppendError::Store(error) => error,
        });
        if outcome.is_err() {
            if !self.connection.is_autocommit() {
                // Some failures have rolled back already; what is left is judged by the first error.
                let _ = self.statement("ROLLBACK");
            }
            self.heads.clear();
            self.exporter.rewind(mark);
        }
        self.judge(outcome)
    }

    fn statement(&self, sql: &str) -> Result<(), AppendError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    /// Writes a group, or finds before its first write that it cannot be.
    fn write_group(&mut self, group: &Group<'_>) -> Result<Outcome, AppendError> {
        // One append is checked by its first statement; several must all be checked before the first one writes.
        if group.appends.len() > 1 {
            for append in &group.appends {
                let head = self.read_head(append.log)?;
                if let Some(reason) = self.lock_conflict(append)?.or_else(|| conflict(append, head.as_ref())) {
                    return Ok(Outcome::Conflict { log: append.log, reason });
                }
            }
        }
        let mut last_seqs = Vec::with_capacity(group.appends.len());
        for append in &group.appends {
            match self.write_append(append)? {
                Ok(seq) => last_seqs.push(seq),
                Err(reason) => return Ok(Outcome::Conflict { log: append.log, reason }),
            }
        }
        for command in &group.answered {
            let mut delete = self.connection.prepare_cached("DELETE FROM command WHERE id = ?1")?;
            delete.execute([command.0 as i64])?;
        }
        Ok(Outcome::Committed { last_seqs })
    }

    fn write_append(&mut self, append: &Append<'_>) -> Result<Result<u64, Conflict>, AppendError> {
        if let Some(reason) = self.lock_conflict(append)? {
            return Ok(Err(reason));
        }
        let log = log_key(append.log);
        // The end of the shared log moves without us; that of a run only with its epoch.
        let remembered = if log == 0 { None } else { self.heads.get(&log).copied() };
        let head = match remembered {
            Some(head) => Some(head),
            None => self.read_head(append.log)?,
        };
        if let Some(reason) = conflict(append, head.as_ref()) {
            // What is remembered may be old: say what is true.
            self.heads.remove(&log);
            let head = self.read_head(append.log)?;
            return Ok(Err(conflict(append, head.as_ref()).unwrap_or(reason)));
        }
        let Some(head) = head else { return Ok(Err(Conflict::Ended)) };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.payloads.clear();
        let (encoded, last) = encode(append, log, head, &mut scratch);
        let Some(at) = encoded.last().map(|event| event.at) else {
            self.scratch = scratch;
            return Ok(Ok(head.seq));
        };
        let moved = self
            .connection
            .prepare_cached(
                "UPDATE head SET seq = ?2, hash = ?3, at = ?4 WHERE log = ?1 AND epoch = ?5 \
                 AND seq = ?6 AND format = ?7",
            )?
            .execute(params![
                log as i64,
                last.seq as i64,
                &last.hash[..],
                at,
                head.epoch as i64,
                head.seq as i64,
                stored::FORMAT
            ])?;
        if moved == 0 {
            self.scratch = scratch;
            self.heads.remove(&log);
            let head = self.read_head(append.log)?;
            let found = head.map_or(Conflict::Ended, |head| Conflict::Epoch { found: Epoch(head.epoch) });
            return Ok(Err(head.as_ref().and_then(|head| conflict(append, Some(head))).unwrap_or(found)));
        }
        {
            let mut insert = self.connection.prepare_cached(
                "INSERT INTO event (key, at, kind, step, attempt, payload, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            let mut start = 0;
            for (seq, event) in (head.seq + 1..).zip(&encoded) {
                let payload = &scratch.payloads[start..event.payload_end];
                start = event.payload_end;
                let Columns { kind, step, attempt } = event.columns;
                insert.raw_bind_parameter(1, schema::key(log, seq))?;
                insert.raw_bind_parameter(2, event.at)?;
                insert.raw_bind_parameter(3, kind)?;
                insert.raw_bind_parameter(4, step)?;
                insert.raw_bind_parameter(5, attempt)?;
                insert.raw_bind_parameter(6, Text(payload))?;
                insert.raw_bind_parameter(7, &event.hash[..])?;
                insert.raw_execute()?;
                if log != 0 {
                    self.exporter.push(&Row { log, seq, at: event.at, kind, step, attempt, payload });
                }
            }
        }
        self.scratch = scratch;
        if let Events::Run(events, graph) = append.events {
            self.project(log, head.seq, events, graph)?;
        }
        if append.events.end_run() {
            // From now on the run takes nothing; its row says so.
            self.heads.remove(&log);
        } else if log != 0 {
            if self.heads.len() >= REMEMBERED_HEADS {
                self.heads.clear();
            }
            self.heads.insert(log, last);
        }
        Ok(Ok(last.seq))
    }

    /// Writes what the tables beside the log say of these events.
    fn project(&mut self, log: u64, seq: u64, events: &[Event], graph: &Graph) -> Result<(), AppendError> {
        for (seq, event) in (seq + 1..).zip(events) {
            let end: Option<&AttemptEnd> = match &event.kind {
                EventKind::RunStarted => {
                    self.connection
                        .prepare_cached("UPDATE run SET status = 'running', started_at = ?2 WHERE id = ?1")?
                        .execute(params![log as i64, event.at.0])?;
                    None
                }
                EventKind::RunStopping { .. } => {
                    self.connection
                        .prepare_cached("UPDATE run SET status = 'stopping' WHERE id = ?1")?
                        .execute([log as i64])?;
                    None
                }
                EventKind::RunCompleted { status } => {
                    self.connection
                        .prepare_cached("UPDATE run SET status = ?2, ended_at = ?3 WHERE id = ?1")?
                        .execute(params![log as i64, stored::status_name(*status), event.at.0])?;
                    // A run that has ended takes no commands.
                    self.connection.prepare_cached("DELETE FROM command WHERE run = ?1")?.execute([log as i64])?;
                    None
                }
                EventKind::StepSucceeded { end, .. }
                | EventKind::StepFailed { end, .. }
                | EventKind::StepTimeout { end, .. }
                | EventKind::StepCanceled { end: Some(end), .. } => Some(end),
                _ => None,
            };
            let (Some(end), Some((step, attempt))) = (end, event.kind.step()) else { continue };
            for artifact in &end.artifacts {
                self.connection
                    .prepare_cached(
                        "INSERT INTO artifact (run, seq, step, attempt, path, bytes, sha256) \
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    )?
                    .execute(params![
                        log as i64,
                        seq as i64,
                        graph.id(step),
                        attempt,
                        artifact.path,
                        artifact.bytes as i64,
                        artifact.sha256
                    ])?;
            }
        }
        Ok(())
    }

    /// The end of a log; `None` where there is no such run or it has ended.
    fn read_head(&self, log: Log) -> Result<Option<Head>, AppendError> {
        let mut select = self.connection.prepare_cached(
            "SELECT epoch, seq, hash, format FROM head WHERE log = ?1 \
             AND (log = 0 OR EXISTS (SELECT 1 FROM run WHERE run.id = log AND ended_at IS NULL))",
        )?;
        let found = select
            .query_row([log_key(log) as i64], |row| {
                let head = Head { epoch: unsigned(row.get(0)?), seq: unsigned(row.get(1)?), hash: row.get(2)? };
                Ok((head, row.get::<_, u32>(3)?))
            })
            .optional()?;
        match found {
            Some((_, format)) if format != stored::FORMAT => {
                Err(StoreError::NewerFormat { log, found: format, known: stored::FORMAT }.into())
            }
            found => Ok(found.map(|(head, _)| head)),
        }
    }

    /// Hands each event of a log to `each` as it is stored, and verifies the chain. Answers with the last number.
    pub(crate) fn walk(
        &self,
        log: Log,
        each: &mut dyn FnMut(u64, &StoredColumns<'_>) -> Result<(), String>,
    ) -> Result<u64> {
        let key = log_key(log);
        let failed = self.failed();
        // One transaction, so that the head and the events are of the same moment.
        let transaction = self.connection.unchecked_transaction().map_err(&failed)?;
        let head: Option<(i64, Vec<u8>, u32)> = self
            .connection
            .prepare_cached("SELECT seq, hash, format FROM head WHERE log = ?1")
            .and_then(|mut select| {
                select.query_row([key as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
            })
            .map_err(&failed)?;
        let Some((last, last_hash, format)) = head else {
            return match log {
                Log::Run(run) => Err(StoreError::NoSuchRun { run }),
                Log::Shared => Err(StoreError::Damaged {
                    path: self.path.clone(),
                    detail: "the head of the locks is missing".into(),
                }),
            };
        };
        if format > stored::FORMAT {
            return Err(StoreError::NewerFormat { log, found: format, known: stored::FORMAT });
        }
        let last = unsigned(last);
        let mut seq = 0u64;
        let mut previous = chain::START;
        let mut scratch = Vec::new();
        let damaged = |seq: u64, detail: String| StoreError::DamagedLog { log, seq, detail };
        let mut select = self
            .connection
            .prepare_cached(
                "SELECT key, at, kind, step, attempt, payload, hash FROM event WHERE key BETWEEN ?1 AND ?2 \
                 ORDER BY key",
            )
            .map_err(&failed)?;
        let mut rows =
            select.query(params![schema::key(key, 0), schema::key(key, u64::from(u32::MAX))]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            seq += 1;
            let odd = |error: rusqlite::Error| damaged(seq, format!("a column has an unexpected type: {error}"));
            let text = |error: rusqlite::types::FromSqlError| {
                damaged(seq, format!("a column has an unexpected type: {error}"))
            };
            let found: i64 = row.get(0).map_err(odd)?;
            if found != schema::key(key, seq) {
                return Err(damaged(seq, format!("event {} stands in its place", found & i64::from(u32::MAX))));
            }
            let stored = StoredColumns {
                at: row.get(1).map_err(odd)?,
                kind: row.get_ref(2).map_err(odd)?.as_str().map_err(text)?,
                step: row.get_ref(3).map_err(odd)?.as_str_or_null().map_err(text)?,
                attempt: row.get(4).map_err(odd)?,
                payload: row.get_ref(5).map_err(odd)?.as_bytes().map_err(text)?,
            };
            let StoredColumns { at, kind, step, attempt, payload } = stored;
            let hash = chain::link(&previous, &Row { log: key, seq, at, kind, step, attempt, payload }, &mut scratch);
            if row.get_ref(6).map_err(odd)?.as_blob().map_err(text)? != hash {
                return Err(damaged(seq, "its hash is not that of its fields and the event before".to_owned()));
            }
            previous = hash;
            each(seq, &stored).map_err(|detail| damaged(seq, detail))?;
        }
        if seq != last || (seq > 0 && last_hash != previous) {
            return Err(damaged(seq.min(last) + 1, format!("the log ends at event {seq} and should end at {last}")));
        }
        drop(rows);
        drop(select);
        transaction.commit().map_err(&failed)?;
        Ok(seq)
    }

    /// Completes the export of a run from the database.
    pub(crate) fn repair_export(&mut self, run: RunId) -> Result<()> {
        let row = self.run(run)?;
        let mut good = self.exporter.last_good(run.0)?;
        if good > row.last_seq {
            self.exporter.restart(run.0)?;
            good = 0;
        }
        if good == row.last_seq {
            return Ok(());
        }
        let mut exporter = std::mem::replace(&mut self.exporter, Exporter::new(self.directory.clone()));
        let mut problem = None;
        let walked = self.walk(Log::Run(run), &mut |seq, stored| {
            if seq > good {
                let StoredColumns { at, kind, step, attempt, payload } = *stored;
                exporter.push(&Row { log: run.0, seq, at, kind, step, attempt, payload });
                if exporter.pending_bytes() > export::PENDING_BYTES && problem.is_none() {
                    problem = exporter.flush().err();
                }
            }
            Ok(())
        });
        let flushed = exporter.flush();
        exporter.close(run.0);
        self.exporter = exporter;
        walked?;
        problem.map_or(flushed, Err)
    }

    /// Looks after what dead owners left: completes the exports of their runs, removes their files and rows.
    fn clear_dead_owners(&mut self) -> Result<()> {
        let failed = self.failed();
        let rows: Vec<i64> = {
            let mut select = self.connection.prepare_cached("SELECT epoch FROM owner").map_err(&failed)?;
            let rows = select.query_map([], |row| row.get(0)).map_err(&failed)?;
            rows.collect::<rusqlite::Result<_>>().map_err(&failed)?
        };
        for epoch in rows {
            let liveness = owner::liveness(&self.directory, Epoch(unsigned(epoch)))?;
            if liveness == Liveness::Alive {
                continue;
            }
            let of_owner = |condition: &str| -> Result<Vec<i64>> {
                let sql = format!("SELECT id FROM run JOIN head ON log = id WHERE owner = ?1 AND ended_at {condition}");
                let mut select = self.connection.prepare(&sql).map_err(&failed)?;
                let rows = select.query_map([epoch], |row| row.get(0)).map_err(&failed)?;
                rows.collect::<rusqlite::Result<_>>().map_err(&failed)
            };
            if liveness == Liveness::Crashed {
                for run in of_owner("IS NOT NULL")? {
                    match self.repair_export(RunId(unsigned(run))) {
                        // A damaged run is told of by whoever reads it; it is no reason not to start.
                        Ok(()) | Err(StoreError::DamagedLog { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                owner::remove(&self.directory, Epoch(unsigned(epoch)));
            }
            // While a run that has not ended names the owner, its row says who that was.
            if self.open_runs_of(epoch)? == 0 {
                self.connection.execute("DELETE FROM owner WHERE epoch = ?1", [epoch]).map_err(&failed)?;
            }
        }
        Ok(())
    }

    /// Gives a run whose owner is dead a new epoch, which is the answer. Where `owner` has the run already, nothing
    /// changes.
    fn raise_epoch(&mut self, run: RunId, owner: Epoch, raise: Raise) -> Result<Epoch> {
        if owner::liveness(&self.directory, owner)? != Liveness::Alive {
            return Err(StoreError::NotAnOwner { owner });
        }
        let (directory, failed) = (self.directory.clone(), self.failed());
        let epoch = self.write(|transaction| {
            let row: Option<(Option<i64>, i64, String)> = transaction
                .query_row(
                    "SELECT owner, epoch, status FROM run JOIN head ON log = id WHERE id = ?1",
                    [run.0 as i64],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .optional()
                .map_err(&failed)?;
            let Some((old, epoch, status)) = row else { return Err(StoreError::NoSuchRun { run }) };
            if let (Raise::TakeOver, Some(phase @ RunPhase::Ended(_))) = (raise, RunPhase::parse(&status)) {
                return Err(StoreError::Ended { run, status: phase.name() });
            }
            if let Some(old) = old.map(|old| Epoch(unsigned(old))) {
                if old == owner {
                    return Ok(Epoch(unsigned(epoch)));
                }
                if owner::liveness(&directory, old)? == Liveness::Alive {
                    return Err(owned(transaction, run, old).map_err(&failed)?);
                }
            }
            let epoch = next(transaction, "last_epoch").map_err(&failed)?;
            let taker = match raise {
                Raise::TakeOver => Some(owner.0 as i64),
                Raise::ShutOut => None,
            };
            transaction
                .execute(
                    "UPDATE head SET epoch = ?2, owner = coalesce(?3, owner) WHERE log = ?1",
                    params![run.0 as i64, epoch as i64, taker],
                )
                .map_err(&failed)?;
            Ok(Epoch(epoch))
        })?;
        self.heads.remove(&run.0);
        Ok(epoch)
    }

    /// Why nothing can be appended about locks: a run that they are of has another epoch.
    fn lock_conflict(&self, append: &Append<'_>) -> Result<Option<Conflict>, AppendError> {
        for run in append.events.lock_runs() {
            let epoch = self
                .connection
                .prepare_cached("SELECT epoch FROM head WHERE log = ?1")?
                .query_row([run.0 as i64], |row| row.get(0).map(|epoch| Epoch(unsigned(epoch))))
                .optional()?;
            if let Some(conflict) = crate::lock_conflict(append, epoch) {
                return Ok(Some(conflict));
            }
        }
        Ok(None)
    }

    fn open_runs_of(&self, owner: i64) -> Result<i64> {
        self.connection
            .prepare_cached("SELECT count(*) FROM run JOIN head ON log = id WHERE ended_at IS NULL AND owner = ?1")
            .and_then(|mut select| select.query_row([owner], |row| row.get(0)))
            .map_err(self.failed())
    }

    fn checkpoint(&mut self) -> Result<()> {
        let (_, pages, done): (i64, i64, i64) = self
            .connection
            .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")
            .and_then(|mut pragma| pragma.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))))
            .map_err(self.failed())?;
        // A reader may hold a part back; it is not tried again before there is more to gain.
        let left = u32::try_from(pages - done).unwrap_or(0);
        self.checkpoint_at = left.saturating_add(CHECKPOINT_PAGES);
        self.wal_pages.store(left, Ordering::Relaxed);
        Ok(())
    }
}

impl Store for SqliteStore {
    fn set_wait(&mut self, wait: Duration) -> Result<()> {
        self.connection.busy_timeout(wait).map_err(self.failed())
    }

    fn register(&mut self, info: &OwnerInfo) -> Result<Epoch> {
        if let Some(owner) = &self.owner {
            return Ok(owner.epoch);
        }
        self.clear_dead_owners()?;
        let (directory, failed) = (self.directory.clone(), self.failed());
        let files = self.write(|transaction| {
            let epoch = next(transaction, "last_epoch").map_err(&failed)?;
            let files = OwnerFiles::create(&directory, Epoch(epoch))?;
            transaction
                .execute(
                    "INSERT INTO owner (epoch, pid, start_time, boot_id, host, command, since) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![
                        epoch as i64,
                        info.pid,
                        info.start_time as i64,
                        info.boot_id,
                        info.host,
                        info.command,
                        wall_clock().0
                    ],
                )
                .map_err(&failed)?;
            Ok(files)
        })?;
        let epoch = files.epoch;
        self.owner = Some(files);
        Ok(epoch)
    }

    fn owners(&self) -> Result<Vec<OwnerRow>> {
        let failed = self.failed();
        let mut select = self
            .connection
            .prepare_cached("SELECT epoch, pid, start_time, boot_id, host, command, since FROM owner ORDER BY epoch")
            .map_err(&failed)?;
        let rows = select
            .query_map([], |row| {
                let info = OwnerInfo {
                    pid: row.get(1)?,
                    start_time: unsigned(row.get(2)?),
                    boot_id: row.get(3)?,
                    host: row.get(4)?,
                    command: row.get(5)?,
                };
                Ok(OwnerRow { epoch: Epoch(unsigned(row.get(0)?)), info, since: Time(row.get(6)?), alive: false })
            })
            .map_err(&failed)?;
        let mut owners = rows.collect::<rusqlite::Result<Vec<_>>>().map_err(&failed)?;
        for row in &mut owners {
            row.alive = owner::settled_liveness(&self.directory, row.epoch, &row.info)? == Liveness::Alive;
        }
        Ok(owners)
    }

    fn create_run(&mut self, new: &NewRun<'_>, owner: Option<Epoch>) -> Result<Created> {
        let failed = self.failed();
        let mut lines = Vec::new();
        let directory = self.directory.clone();
        let created = self.write(|transaction| {
            let created = new.created;
            if let Some(key) = &created.idempotency_key {
                let existing: Option<i64> = transaction
                    .query_row("SELECT id FROM run WHERE idempotency_key = ?1", [key], |row| row.get(0))
                    .optional()
                    .map_err(&failed)?;
                if let Some(run) = existing {
                    return Ok(Created::Existing { run: RunId(unsigned(run)) });
                }
            }
            // It may have been removed since whoever submits looked at it.
            for needed in [created.outputs_from, created.retry_of].into_iter().flatten() {
                transaction
                    .prepare_cached("SELECT EXISTS (SELECT 1 FROM run WHERE id = ?1)")
                    .and_then(|mut select| select.query_row([needed.0 as i64], |row| row.get::<_, bool>(0)))
                    .map_err(&failed)?
                    .then_some(())
                    .ok_or(StoreError::NoSuchRun { run: needed })?;
            }
            let run = next(transaction, "last_run").map_err(&failed)?;
            let export = directory.export(RunId(run));
            if export.exists() {
                // A cut WAL looks like an earlier moment; what was written beside it knows better.
                let detail = format!("it has lost run {run}, whose `{}` is still there", export.display());
                return Err(StoreError::Damaged { path: directory.database(), detail });
            }
            let plan = insert_plan(transaction, new).map_err(&failed)?;
            let columns = stored::encode_created(created, &mut lines);
            let row =
                Row { log: run, seq: 1, at: new.at.0, kind: columns.kind, step: None, attempt: None, payload: &lines };
            let hash = chain::link(&chain::START, &row, &mut Vec::new());
            let epoch = owner.map(|owner| owner.0 as i64);
            let insert = || -> rusqlite::Result<()> {
                transaction
                    .prepare_cached(
                        "INSERT INTO head (log, epoch, owner, seq, at, format, hash) \
                         VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6)",
                    )?
                    .execute(params![run as i64, epoch.unwrap_or(0), epoch, new.at.0, stored::FORMAT, &hash[..]])?;
                let labels = serde_json::to_string(&created.labels).unwrap_or_default();
                transaction
                    .prepare_cached(
                        "INSERT INTO run (id, plan, plan_path, status, created_at, labels, idempotency_key, retry_of, \
                         outputs_from, submitted_by) VALUES (?1, ?2, ?3, 'waiting', ?4, ?5, ?6, ?7, ?8, ?9)",
                    )?
                    .execute(params![
                        run as i64,
                        plan,
                        created.plan_path,
                        new.at.0,
                        labels,
                        created.idempotency_key,
                        created.retry_of.map(|run| run.0 as i64),
                        created.outputs_from.map(|run| run.0 as i64),
                        created.submitted_by
                    ])?;
                transaction
                    .prepare_cached("INSERT INTO event (key, at, kind, payload, hash) VALUES (?1, ?2, ?3, ?4, ?5)")?
                    .execute(params![schema::key(run, 1), row.at, row.kind, Text(row.payload), &hash[..]])?;
                Ok(())
            };
            insert().map_err(&failed)?;
            Ok(Created::New { run: RunId(run) })
        })?;
        if let Created::New { run } = created {
            let kind = "run_created";
            let at = new.at.0;
            self.exporter.push(&Row { log: run.0, seq: 1, at, kind, step: None, attempt: None, payload: &lines });
        }
        Ok(created)
    }

    fn acquire(&mut self, run: RunId, owner: Epoch) -> Result<Epoch> {
        let epoch = self.raise_epoch(run, owner, Raise::TakeOver)?;
        self.repair_export(run)?;
        Ok(epoch)
    }

    fn shut_out(&mut self, run: RunId, owner: Epoch) -> Result<Epoch> {
        self.raise_epoch(run, owner, Raise::ShutOut)
    }

    fn append(&mut self, groups: &[Group<'_>]) -> Result<Vec<Outcome>> {
        if self.exporter.pending_bytes() > export::PENDING_BYTES {
            self.exporter.flush()?;
        }
        if groups.iter().all(|group| group.appends.is_empty() && group.answered.is_empty()) {
            return Ok(vec![Outcome::Committed { last_seqs: Vec::new() }; groups.len()]);
        }
        let outcomes = self.with_ballast(|store| store.try_append(groups))?;
        if self.wal_pages.load(Ordering::Relaxed) >= WAL_LIMIT_PAGES.max(self.checkpoint_at) {
            let checkpointed = self.checkpoint();
            // The events are on disk whatever became of the checkpoint; a fault that matters meets the next write.
            let _ = self.judge(checkpointed);
        }
        Ok(outcomes)
    }

    fn run(&self, run: RunId) -> Result<RunRow> {
        let failed = self.failed();
        self.connection
            .prepare_cached(&format!("{SELECT_RUNS} WHERE run.id = ?1"))
            .and_then(|mut select| select.query_row([run.0 as i64], run_row).optional())
            .map_err(&failed)?
            .ok_or(StoreError::NoSuchRun { run })
    }

    fn runs(&self, filter: &Filter) -> Result<Vec<RunRow>> {
        let failed = self.failed();
        let open = match filter.open {
            Some(true) => " AND run.ended_at IS NULL",
            Some(false) => " AND run.ended_at IS NOT NULL",
            None => "",
        };
        let sql = format!("{SELECT_RUNS} WHERE run.id < ?1{open} ORDER BY run.id DESC");
        let before = filter.before.map_or(i64::MAX, |run| run.0 as i64);
        let mut select = self.connection.prepare_cached(&sql).map_err(&failed)?;
        let rows = select.query_map([before], run_row).map_err(&failed)?;
        let limit = filter.limit.unwrap_or(usize::MAX);
        rows.filter(|row| row.as_ref().map_or(true, |row| filter.lets_through(row)))
            .take(limit)
            .collect::<rusqlite::Result<_>>()
            .map_err(&failed)
    }

    fn created(&self, run: RunId) -> Result<(Time, RunCreated)> {
        let failed = self.failed();
        let row: Option<(i64, String)> = self
            .connection
            .prepare_cached("SELECT at, payload FROM event WHERE key = ?1")
            .and_then(|mut select| {
                select.query_row([schema::key(run.0, 1)], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(&failed)?;
        let (at, payload) = row.ok_or(StoreError::NoSuchRun { run })?;
        let created = stored::decode_created(payload.as_bytes()).map_err(|detail| StoreError::DamagedLog {
            log: Log::Run(run),
            seq: 1,
            detail,
        })?;
        Ok((Time(at), created))
    }

    fn plan_text(&self, sha256: &str) -> Result<String> {
        let failed = self.failed();
        let bytes: Option<(i64, i64)> = self
            .connection
            .query_row("SELECT id, bytes FROM plan WHERE sha256 = ?1", [sha256], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(&failed)?;
        let (plan, bytes) = bytes.ok_or_else(|| StoreError::NoSuchPlan { sha256: sha256.to_owned() })?;
        let mut text = String::with_capacity(usize::try_from(bytes).unwrap_or(0));
        let mut select = self
            .connection
            .prepare_cached("SELECT text FROM plan_part WHERE plan = ?1 ORDER BY part")
            .map_err(&failed)?;
        let mut rows = select.query([plan]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            text.push_str(row.get_ref(0).map_err(&failed)?.as_str().unwrap_or_default());
        }
        let found = crate::sha256_hex(text.as_bytes());
        if found != sha256 {
            let detail = format!("the text of plan {sha256} has the SHA-256 {found}");
            return Err(StoreError::Damaged { path: self.path.clone(), detail });
        }
        Ok(text)
    }

    fn events(&self, log: Log, after_seq: u64, limit: usize) -> Result<Vec<StoredEvent>> {
        let failed = self.failed();
        let key = log_key(log);
        let mut select = self
            .connection
            .prepare_cached(
                "SELECT key, at, kind, step, attempt, payload FROM event WHERE key > ?1 AND key <= ?2 \
                 ORDER BY key LIMIT ?3",
            )
            .map_err(&failed)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let end = schema::key(key, u64::from(u32::MAX));
        let rows = select
            .query_map(params![schema::key(key, after_seq.min(u64::from(u32::MAX))), end, limit], |row| {
                let payload: String = row.get(5)?;
                Ok((
                    StoredEvent {
                        seq: unsigned(row.get(0)?) & u64::from(u32::MAX),
                        at: Time(row.get(1)?),
                        kind: row.get(2)?,
                        step: row.get(3)?,
                        attempt: row.get(4)?,
                        payload: serde_json::Map::new(),
                    },
                    payload,
                ))
            })
            .map_err(&failed)?;
        let mut events = Vec::new();
        for row in rows {
            let (mut event, payload) = row.map_err(&failed)?;
            event.payload = serde_json::from_str(&payload).map_err(|error| StoreError::DamagedLog {
                log,
                seq: event.seq,
                detail: format!("its payload cannot be read: {error}"),
            })?;
            events.push(event);
        }
        if let (true, Log::Run(run)) = (events.is_empty() && after_seq == 0, log) {
            self.run(run)?;
        }
        Ok(events)
    }

    fn replay(&self, run: RunId, graph: &Graph, each: &mut dyn FnMut(Event)) -> Result<u64> {
        self.walk(Log::Run(run), &mut |_, stored| {
            each(stored::decode(stored, graph)?);
            Ok(())
        })
    }

    fn lock_events(&self, after_seq: u64, each: &mut dyn FnMut(LockEvent)) -> Result<u64> {
        let failed = self.failed();
        if after_seq == 0 {
            return self.walk(Log::Shared, &mut |_, stored| {
                each(stored::decode_lock(stored)?);
                Ok(())
            });
        }
        // Whoever reads on has verified what came before when it was read the first time.
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
            each(stored::decode_lock(&stored).map_err(damaged)?);
            last += 1;
        }
        Ok(last)
    }

    fn push_command(&mut self, run: RunId, command: &Command, at: Time) -> Result<CommandId> {
        let failed = self.failed();
        let (kind, payload) = stored::encode_command(command);
        let (id, owner) = self.write(|transaction| {
            let row: Option<(String, Option<i64>)> = transaction
                .query_row("SELECT status, owner FROM run JOIN head ON log = id WHERE id = ?1", [run.0 as i64], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()
                .map_err(&failed)?;
            let (status, owner) = row.ok_or(StoreError::NoSuchRun { run })?;
            if let Some(phase @ RunPhase::Ended(_)) = RunPhase::parse(&status) {
                return Err(StoreError::Ended { run, status: phase.name() });
            }
            transaction
                .execute(
                    "INSERT INTO command (run, kind, payload, at) VALUES (?1, ?2, ?3, ?4)",
                    params![run.0 as i64, kind, payload, at.0],
                )
                .map_err(&failed)?;
            Ok((unsigned(transaction.last_insert_rowid()), owner))
        })?;
        if let Some(owner) = owner {
            self.wake(Epoch(unsigned(owner)))?;
        }
        Ok(CommandId(id))
    }

    fn commands(&self, owner: Epoch) -> Result<Vec<PendingCommand>> {
        let failed = self.failed();
        let mut select = self
            .connection
            .prepare_cached(
                "SELECT command.id, run, command.at, kind, payload FROM command JOIN head ON log = run \
                 WHERE owner = ?1 ORDER BY command.id",
            )
            .map_err(&failed)?;
        let mut rows = select.query([owner.0 as i64]).map_err(&failed)?;
        let mut commands = Vec::new();
        while let Some(row) = rows.next().map_err(&failed)? {
            let read =
                || -> rusqlite::Result<_> { Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)) };
            let (id, run, at, kind, payload): (i64, i64, i64, String, String) = read().map_err(&failed)?;
            let command = stored::decode_command(&kind, &payload).map_err(|detail| StoreError::Damaged {
                path: self.path.clone(),
                detail: format!("command {id}: {detail}"),
            })?;
            commands.push(PendingCommand {
                id: CommandId(unsigned(id)),
                run: RunId(unsigned(run)),
                at: Time(at),
                command,
            });
        }
        Ok(commands)
    }

    fn wake(&self, owner: Epoch) -> Result<bool> {
        owner::wake(&self.directory, owner)
    }

    fn output_writer(&mut self, run: RunId) -> Result<OutputWriter> {
        OutputWriter::open(&self.directory.output(run), self.limits)
    }

    fn export_flush(&mut self) -> Result<()> {
        self.exporter.flush()
    }

    fn maintain(&mut self) -> Result<()> {
        self.check_trust()?;
        if self.wal_pages.load(Ordering::Relaxed) >= self.checkpoint_at {
            let checkpointed = self.with_ballast(Self::checkpoint);
            match self.judge(checkpointed) {
                // The events stay in the WAL. That the disk is full is told by `is_full`.
                Err(StoreError::DiskFull { .. }) => {
                    self.checkpoint_at = self.wal_pages.load(Ordering::Relaxed).saturating_add(CHECKPOINT_PAGES);
                }
                outcome => outcome?,
            }
        }
        if !self.ballast_taken || self.full {
            self.full = ballast::take(&self.directory);
            self.ballast_taken = !self.full;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.full
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Whatever fails here is made good by the next process: exports are completed, the WAL is read again.
        let _ = self.exporter.flush();
        if self.access == Access::Write
            && !self.distrusted
            && self.wal_pages.load(Ordering::Relaxed) > CLOSE_CHECKPOINT_PAGES
            && self.checkpoint().is_ok()
            && let Some(owner) = &self.owner
            && self.open_runs_of(owner.epoch.0 as i64).is_ok_and(|open| open == 0)
        {
            let _ = self.connection.execute("DELETE FROM owner WHERE epoch = ?1", [owner.epoch.0 as i64]);
        }
    }
}

/// Makes a fresh connection ours: checks whose database it is, brings it up to date, sets what must be set.
fn prepare(connection: &mut Connection, directory: &DataDir, path: &Path, access: Access) -> Result<()> {
    let failed = StoreError::sqlite(path);
    let facts = |connection: &Connection| -> rusqlite::Result<(i64, u32, i64)> {
        // All of one moment: another process may be making the tables.
        let _snapshot = connection.unchecked_transaction()?;
        let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((schema::application_id(connection)?, schema::version(connection)?, tables))
    };
    let (mut id, mut version, mut tables) = facts(connection).map_err(&failed)?;
    let mut guard = None;
    if access == Access::Write && version < schema::VERSION {
        // One process at a time makes or changes tables; what was seen before the lock may be half the truth.
        let folder = File::open(directory.root()).map_err(StoreError::io("open", directory.root()))?;
        folder.lock().map_err(StoreError::io("lock", directory.root()))?;
        guard = Some(folder);
        (id, version, tables) = facts(connection).map_err(&failed)?;
    }
    let is_new = id == 0 && version == 0 && tables == 0;
    if access == Access::Read && is_new {
        return Err(StoreError::NoStore { path: directory.root().to_path_buf() });
    }
    if id != schema::APPLICATION_ID && !is_new {
        return Err(StoreError::Foreign { path: path.to_path_buf(), found: id, expected: schema::APPLICATION_ID });
    }
    if version > schema::VERSION {
        return Err(StoreError::NewerSchema { path: path.to_path_buf(), found: version, known: schema::VERSION });
    }
    if access == Access::Read {
        if version < schema::VERSION {
            let detail = format!(
                "`{}` has schema version {version} and is not brought to {} by looking; a command that writes does \
                 that, such as `baton gc`",
                path.display(),
                schema::VERSION
            );
            return Err(StoreError::Refused { detail });
        }
        return Ok(());
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(&failed)?;
    if cfg!(target_os = "macos") {
        connection.pragma_update(None, "fullfsync", true).map_err(&failed)?;
        connection.pragma_update(None, "checkpoint_fullfsync", true).map_err(&failed)?;
    }
    if version < schema::VERSION {
        if version == 0 {
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(&failed)?;
            connection.pragma_update(None, "journal_mode", "WAL").map_err(&failed)?;
        }
        schema::migrate(connection, path, schema::MIGRATIONS)?;
        lengthen_wal(connection, path)?;
        filesystem::sync_folder(directory.root()).map_err(StoreError::write(directory.root()))?;
    }
    drop(guard);
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(&failed)?;
    if mode != "wal" {
        connection.pragma_update(None, "journal_mode", "WAL").map_err(&failed)?;
    }
    connection.pragma_update(None, "foreign_keys", true).map_err(&failed)?;
    connection.pragma_update(None, "cell_size_check", true).map_err(&failed)?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES).map_err(&failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(&failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(&failed)?;
    Ok(())
}

/// Gives the WAL its blocks in advance: a sync that needs no new blocks takes half the time. SQLite reads a WAL up to
/// the first frame that does not fit, so zeros behind the last one mean nothing to it.
fn lengthen_wal(connection: &mut Connection, path: &Path) -> Result<()> {
    // While the write lock is held nobody appends to the file.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::sqlite(path))?;
    let path = path.with_extension("db-wal");
    let lengthen = || -> std::io::Result<()> {
        let file = std::fs::OpenOptions::new().write(true).open(&path)?;
        let length = file.metadata()?.len();
        let missing = usize::try_from(WAL_ALLOCATED_BYTES.saturating_sub(length)).unwrap_or(0);
        file.write_all_at(&vec![0; missing], length)?;
        file.sync_all()
    };
    match lengthen() {
        // It is only for speed: where there is no space for it, it is left out.
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {}
        outcome => outcome.map_err(StoreError::write(&path))?,
    }
    drop(transaction);
    Ok(())
}

pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0u8; 4];
    let filled =
        std::fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    filled.map_err(StoreError::io("read", Path::new("/dev/urandom")))?;
    Ok(chain::hex(&bytes))
}

/// The next number of a counter.
fn next(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<u64> {
    transaction
        .prepare_cached("UPDATE meta SET value = value + 1 WHERE name = ?1 RETURNING value")?
        .query_row([name], |row| row.get(0))
        .map(unsigned)
}

fn insert_plan(transaction: &Transaction<'_>, new: &NewRun<'_>) -> rusqlite::Result<i64> {
    let sha256 = &new.created.plan_sha256;
    let existing = transaction
        .prepare_cached("SELECT id FROM plan WHERE sha256 = ?1")?
        .query_row([sha256], |row| row.get(0))
        .optional()?;
    if let Some(plan) = existing {
        return Ok(plan);
    }
    transaction.prepare_cached("INSERT INTO plan (sha256, name, bytes) VALUES (?1, ?2, ?3)")?.execute(params![
        sha256,
        new.created.plan_id,
        new.plan_text.len() as i64
    ])?;
    let plan = transaction.last_insert_rowid();
    let mut insert = transaction.prepare_cached("INSERT INTO plan_part (plan, part, text) VALUES (?1, ?2, ?3)")?;
    let mut rest = new.plan_text;
    for part in 0i64.. {
        if rest.is_empty() {
            break;
        }
        let (text, after) = rest.split_at(rest.floor_char_boundary(PLAN_PART_BYTES));
        insert.execute(params![plan, part, text])?;
        rest = after;
    }
    Ok(plan)
}

fn owned(transaction: &Transaction<'_>, run: RunId, owner: Epoch) -> rusqlite::Result<StoreError> {
    let found = transaction
        .query_row("SELECT pid, host, command FROM owner WHERE epoch = ?1", [owner.0 as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let (pid, host, command) = found.unwrap_or((0, "this machine".to_owned(), "unknown".to_owned()));
    Ok(StoreError::Owned { run, owner, pid, host, command })
}

const SELECT_RUNS: &str = "SELECT run.id, plan.name, plan.sha256, run.plan_path, run.status, run.created_at, \
     run.started_at, run.ended_at, head.at, head.seq, run.labels, run.idempotency_key, run.retry_of, run.submitted_by, \
     head.owner, head.epoch FROM run JOIN head ON head.log = run.id JOIN plan ON plan.id = run.plan";

fn run_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<RunRow> {
    let odd = |column: usize, what: String| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
    };
    let status: String = row.get(4)?;
    let labels: String = row.get(10)?;
    Ok(RunRow {
        run: RunId(unsigned(row.get(0)?)),
        plan_id: row.get(1)?,
        plan_sha256: row.get(2)?,
        plan_path: row.get(3)?,
        phase: RunPhase::parse(&status).ok_or_else(|| odd(4, format!("`{status}` is no status")))?,
        created_at: Time(row.get(5)?),
        started_at: row.get::<_, Option<i64>>(6)?.map(Time),
        ended_at: row.get::<_, Option<i64>>(7)?.map(Time),
        last_at: Time(row.get(8)?),
        last_seq: unsigned(row.get(9)?),
        labels: serde_json::from_str(&labels).map_err(|error| odd(10, error.to_string()))?,
        idempotency_key: row.get(11)?,
        retry_of: row.get::<_, Option<i64>>(12)?.map(|run| RunId(unsigned(run))),
        submitted_by: row.get(13)?,
        owner: row.get::<_, Option<i64>>(14)?.map(|owner| Epoch(unsigned(owner))),
        epoch: Epoch(unsigned(row.get(15)?)),
    })
}

/// Why this append cannot be made to a log that ends like this.
fn conflict(append: &Append<'_>, head: Option<&Head>) -> Option<Conflict> {
    crate::conflict(append, head.map(|head| (Epoch(head.epoch), head.seq)))
}

/// The rows of an append, and the end of the log after it.
fn encode<'a>(append: &Append<'a>, log: u64, head: Head, scratch: &mut Scratch) -> (Vec<Encoded<'a>>, Head) {
    let mut last = head;
    let mut start = scratch.payloads.len();
    let Scratch { payloads, link } = scratch;
    let mut seal = |columns: Columns<'a>, at: i64, payloads: &Vec<u8>| {
        let Columns { kind, step, attempt } = columns;
        last.seq += 1;
        let payload = &payloads[start..];
        last.hash = chain::link(&last.hash, &Row { log, seq: last.seq, at, kind, step, attempt, payload }, link);
        start = payloads.len();
        Encoded { columns, at, payload_end: start, hash: last.hash }
    };
    let encoded = match append.events {
        Events::Run(events, graph) => events
            .iter()
            .map(|event| {
                let columns = stored::encode(event, graph, payloads);
                seal(columns, event.at.0, payloads)
            })
            .collect(),
        Events::Locks(events) => events
            .iter()
            .map(|event| {
                let columns = stored::encode_lock(event, payloads);
                seal(columns, event.at.0, payloads)
            })
            .collect(),
    };
    (encoded, last)
}

/// Bytes that are UTF-8 already, bound as text without a check.
struct Text<'a>(&'a [u8]);

impl rusqlite::ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(rusqlite::types::ToSqlOutput::Borrowed(rusqlite::types::ValueRef::Text(self.0)))
    }
}

enum AppendError {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for AppendError {
    fn from(error: rusqlite::Error) -> Self {
        AppendError::Sqlite(error)
    }
}

impl From<StoreError> for AppendError {
    fn from(error: StoreError) -> Self {
        AppendError::Store(error)
    }
}

pub(crate) fn log_key(log: Log) -> u64 {
    match log {
        Log::Shared => 0,
        Log::Run(run) => run.0,
    }
}

/// SQLite's integers are signed; ours never become so large that it matters.
pub(crate) fn unsigned(number: i64) -> u64 {
    number as u64
}

/// The one clock of the store, for what is not part of any run.
pub(crate) fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
