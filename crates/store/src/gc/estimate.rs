//! What a `gc` would free, said without removing anything.

use std::collections::BTreeSet;
use std::time::SystemTime;

use baton_core::RunId;
use rusqlite::params;

use super::{GcReport, folder_bytes, run_id, size};
use crate::doctor::artifact_files;
use crate::sqlite::unsigned;
use crate::{Result, SqliteStore, schema};

/// What SQLite keeps with each event beside its texts: the hash, the key, the other numbers, and its own.
const EVENT_BYTES: i64 = 62;

/// The same of an artefact's row, whose texts stand in an index, too.
const ARTIFACT_BYTES: i64 = 100;

/// The same of a run, with the end of its log.
const RUN_BYTES: i64 = 150;

impl SqliteStore {
    /// What would be freed if these runs were removed. Rows are counted by what they hold, while pages are given back
    /// whole, so that it is about right.
    pub(super) fn estimate(&self, doomed: BTreeSet<RunId>) -> Result<GcReport> {
        let mut bytes_freed = self.pages_bytes("freelist_count")? + self.row_bytes(&doomed)?;
        for run in &doomed {
            bytes_freed += folder_bytes(&self.directory().run(*run))?;
        }
        for folder in self.orphans()? {
            bytes_freed += folder_bytes(&folder)?;
        }
        let (mut artifacts, now) = (0, SystemTime::now());
        for (path, sha256) in artifact_files(self.directory())? {
            if self.is_unwanted(&path, sha256.as_deref(), &doomed, now)? {
                artifacts += 1;
                bytes_freed += size(&path);
            }
        }
        Ok(GcReport { runs: doomed.into_iter().collect(), artifacts, bytes_freed })
    }

    /// What these runs have in the database.
    fn row_bytes(&self, doomed: &BTreeSet<RunId>) -> Result<u64> {
        let count = || -> rusqlite::Result<i64> {
            let mut of_events = self.connection().prepare(
                "SELECT total(octet_length(payload) + octet_length(kind) + coalesce(octet_length(step), 0) + ?3) \
                 FROM event WHERE key BETWEEN ?1 AND ?2",
            )?;
            let mut of_artifacts = self.connection().prepare(
                "SELECT total(2 * octet_length(sha256) + octet_length(path) + octet_length(step) + ?2) \
                 FROM artifact WHERE run = ?1",
            )?;
            let mut of_run = self.connection().prepare(
                "SELECT total(octet_length(plan_path) + octet_length(labels) + octet_length(submitted_by) \
                 + 2 * coalesce(octet_length(idempotency_key), 0) + ?2) FROM run WHERE id = ?1",
            )?;
            let mut bytes = self.plan_bytes(doomed)?;
            for run in doomed {
                let (first, last) = (schema::key(run.0, 0), schema::key(run.0, u64::from(u32::MAX)));
                let sum = |row: &rusqlite::Row<'_>| row.get::<_, f64>(0).map(|bytes| bytes as i64);
                bytes += of_events.query_row(params![first, last, EVENT_BYTES], sum)?;
                bytes += of_artifacts.query_row(params![run.0 as i64, ARTIFACT_BYTES], sum)?;
                bytes += of_run.query_row(params![run.0 as i64, RUN_BYTES], sum)?;
            }
            Ok(bytes)
        };
        count().map(unsigned).map_err(self.failed())
    }

    /// The bytes of the plans that no other run has.
    fn plan_bytes(&self, doomed: &BTreeSet<RunId>) -> rusqlite::Result<i64> {
        let mut select = self.connection().prepare("SELECT id, plan FROM run")?;
        let mut rows = select.query([])?;
        let mut needed = BTreeSet::new();
        while let Some(row) = rows.next()? {
            if !doomed.contains(&run_id(row.get(0)?)) {
                needed.insert(row.get::<_, i64>(1)?);
            }
        }
        let mut select = self.connection().prepare("SELECT id, bytes FROM plan")?;
        let mut rows = select.query([])?;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            if !needed.contains(&row.get(0)?) {
                bytes += row.get::<_, i64>(1)?;
            }
        }
        Ok(bytes)
    }
}
