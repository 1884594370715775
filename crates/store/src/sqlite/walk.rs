//! Reading a log from its beginning with its chain verified, and making its export whole from it.

use baton_core::{Log, RunId};
use rusqlite::{OptionalExtension, params};

use super::{SqliteStore, log_key, unsigned};
use crate::chain::{self, Hash, Row};
use crate::export::{self, Exporter};
use crate::stored::{self, StoredColumns};
use crate::{Result, Store, StoreError, schema};

impl SqliteStore {
    /// Hands each event of a log to `each` as it is stored, and verifies the chain. Answers with the last number.
    pub(crate) fn walk(
        &self,
        log: Log,
        each: &mut dyn FnMut(u64, &StoredColumns<'_>) -> Result<(), String>,
    ) -> Result<u64> {
        // One transaction, so that the head and the events are of the same moment.
        let transaction = self.connection.unchecked_transaction().map_err(self.failed())?;
        let start = match log {
            Log::Shared => self.fold().map(|fold| (fold.seq, fold.hash))?,
            Log::Run(_) => (0, chain::START),
        };
        let (last, _) = self.walk_from(log, start, each)?;
        transaction.commit().map_err(self.failed())?;
        Ok(last)
    }

    /// The same after the event with this number and this hash, in the caller's transaction. Answers with the last
    /// number and its hash.
    pub(super) fn walk_from(
        &self,
        log: Log,
        (mut seq, mut previous): (u64, Hash),
        each: &mut dyn FnMut(u64, &StoredColumns<'_>) -> Result<(), String>,
    ) -> Result<(u64, Hash)> {
        let key = log_key(log);
        let failed = self.failed();
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
            select.query(params![schema::key(key, seq + 1), schema::key(key, u64::from(u32::MAX))]).map_err(&failed)?;
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
        Ok((seq, previous))
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
}
