//! The store in SQLite: one connection of this process writes, every append is one synced transaction.

mod append;
mod locks;
mod owners;
mod prepare;
mod rows;
mod walk;

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use baton_core::lock::LockTable;
use baton_core::{Epoch, Event, Graph, Log, Output, RunCreated, RunId, StepIndex, Time};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use self::owners::Raise;
use self::prepare::prepare;
use self::rows::{SELECT_RUNS, insert_plan, next, run_row};
use crate::chain::{self, Hash, Row};
use crate::export::{self, Exporter};
use crate::output::{self, OutputLimits, OutputWriter, Piece};
use crate::owner::{self, Liveness, OwnerFiles};
use crate::stored;
use crate::{
    BUSY_LIMIT, Command, CommandId, Created, DataDir, Filter, Group, NewRun, Outcome, OwnerInfo, OwnerRow,
    PendingCommand, Result, RunPhase, RunRow, Store, StoreError, StoredEvent, ballast, schema,
};

/// SQLite before this one may damage a database when two connections checkpoint (the WAL-reset fault).
const OLDEST_SQLITE: (i32, &str) = (3_051_003, "3.51.3");

/// A WAL of this many pages is checkpointed in the next calm moment.
const CHECKPOINT_PAGES: u32 = 1_000;

/// A WAL of this many pages is checkpointed at once, calm or not.
const WAL_LIMIT_PAGES: u32 = 16_000;

/// A WAL of this many pages is checkpointed when the store is closed; a smaller one is read faster than that takes.
const CLOSE_CHECKPOINT_PAGES: u32 = 250;

const CACHED_STATEMENTS: usize = 40;

/// How long each piece of work that can be left to the next process waits for another one that writes.
const HOUSEKEEPING_WAIT: Duration = Duration::from_millis(500);

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

    /// Does what others have left to be done. What cannot be done now is no reason not to start, and is left to the
    /// next process; that nothing can be written any more is.
    fn keep_house(&mut self) -> Result<()> {
        let failed = self.failed();
        let wait: u32 = self.connection.pragma_query_value(None, "busy_timeout", |row| row.get(0)).map_err(&failed)?;
        let wait = Duration::from_millis(wait.into());
        self.set_wait(wait.min(HOUSEKEEPING_WAIT))?;
        let done = [Self::clear_dead_owners, Self::fold_locks].into_iter().try_for_each(|work| match work(self) {
            Err(error) if self.distrusted => Err(error),
            _ => Ok(()),
        });
        self.set_wait(wait)?;
        done
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
        self.keep_house()?;
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

    fn follow_locks(&self, table: &mut LockTable, after_seq: u64) -> Result<u64> {
        self.follow_shared_log(table, after_seq)
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

pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0u8; 4];
    let filled =
        std::fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    filled.map_err(StoreError::io("read", Path::new("/dev/urandom")))?;
    Ok(chain::hex(&bytes))
}

/// Bytes that are UTF-8 already, bound as text without a check.
struct Text<'a>(&'a [u8]);

impl rusqlite::ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(rusqlite::types::ToSqlOutput::Borrowed(rusqlite::types::ValueRef::Text(self.0)))
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
