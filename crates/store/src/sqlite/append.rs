//! Writing groups of events: checked, encoded, chained and inserted in one transaction.

use baton_core::{AttemptEnd, Epoch, Event, EventKind, Graph, Log};
use rusqlite::{OptionalExtension, params};

use super::{Head, Scratch, SqliteStore, Text, log_key, unsigned};
use crate::chain::{self, Hash, Row};
use crate::stored::{self, Columns};
use crate::{Append, Conflict, Events, Group, Outcome, Result, StoreError, schema};

/// Runs whose last hash is remembered; beyond that it is read again when it is needed.
const REMEMBERED_HEADS: usize = 20_000;

/// An event between its encoding and its insertion.
struct Encoded<'a> {
    columns: Columns<'a>,
    at: i64,
    payload_end: usize,
    hash: Hash,
}

impl SqliteStore {
    pub(super) fn try_append(&mut self, groups: &[Group<'_>]) -> Result<Vec<Outcome>> {
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
                        .prepare_cached(
                            "UPDATE run SET status = 'running', started_at = coalesce(started_at, ?2) WHERE id = ?1",
                        )?
                        .execute(params![log as i64, event.at.0])?;
                    None
                }
                EventKind::RunStopping { .. } => {
                    self.connection
                        .prepare_cached("UPDATE run SET status = 'stopping' WHERE id = ?1")?
                        .execute([log as i64])?;
                    None
                }
                EventKind::RunFinally { .. } => {
                    self.connection
                        .prepare_cached("UPDATE run SET status = 'running' WHERE id = ?1")?
                        .execute([log as i64])?;
                    None
                }
                EventKind::RunCompleted { status, .. } => {
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

    /// Why this cannot be appended about locks: a run that they are of has another epoch, or is gone.
    fn lock_conflict(&self, append: &Append<'_>) -> Result<Option<Conflict>, AppendError> {
        for run in append.events.lock_runs() {
            let epoch = self
                .connection
                .prepare_cached("SELECT epoch FROM head WHERE log = ?1")?
                .query_row([run.0 as i64], |row| row.get(0).map(|epoch| Epoch(unsigned(epoch))))
                .optional()?;
            if let Some(conflict) = crate::lock_conflict(append, run, epoch) {
                return Ok(Some(conflict));
            }
        }
        Ok(None)
    }
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
