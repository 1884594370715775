//! `baton gc`: removes old runs and gives their space back to the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use baton_core::{Millis, RunId, Time};
use rusqlite::params;

use crate::doctor::{artifact_files, entries, name};
use crate::sqlite::unsigned;
use crate::{Filter, Result, RunRow, SqliteStore, Store, StoreError, artifact, schema};

/// A file among the artefacts that nothing refers to is left alone for so long: an event may be about to.
const ARTIFACT_GRACE: Duration = Duration::from_secs(3600);

/// So many runs are removed in one transaction, so that other processes can write in between.
const RUNS_A_TRANSACTION: usize = 20;

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
    /// How many bytes the disk has got back. In a dry run: of files only, as the database's part is not known before.
    pub bytes_freed: u64,
}

impl SqliteStore {
    /// Removes the runs that the policy does not keep, files that nothing refers to, and empty pages.
    pub fn gc(&mut self, policy: GcPolicy, now: Time) -> Result<GcReport> {
        let rows = self.runs(&Filter::default())?;
        let doomed = self.doomed(&rows, policy, now)?;
        let before = self.disk_bytes()?;
        let mut report = GcReport { runs: doomed.clone(), ..GcReport::default() };
        if policy.dry_run {
            for run in &doomed {
                report.bytes_freed += entries(&self.directory().run(*run))?.iter().map(|path| size(path)).sum::<u64>();
            }
            return Ok(report);
        }
        self.export_flush()?;
        for runs in doomed.chunks(RUNS_A_TRANSACTION) {
            let failed = self.failed();
            self.write(|transaction| {
                for run in runs {
                    let (id, first, last) =
                        (run.0 as i64, schema::key(run.0, 0), schema::key(run.0, u64::from(u32::MAX)));
                    let remove = || -> rusqlite::Result<()> {
                        transaction.execute("DELETE FROM event WHERE key BETWEEN ?1 AND ?2", params![first, last])?;
                        transaction.execute("DELETE FROM run WHERE id = ?1", [id])?;
                        transaction.execute("DELETE FROM head WHERE log = ?1", [id])?;
                        Ok(())
                    };
                    remove().map_err(&failed)?;
                }
                Ok(())
            })?;
            for run in runs {
                remove_folder(self.directory().run(*run))?;
            }
            self.maintain()?;
        }
        let failed = self.failed();
        self.write(|transaction| {
            transaction.execute("DELETE FROM plan WHERE id NOT IN (SELECT plan FROM run)", []).map_err(failed)?;
            Ok(())
        })?;
        self.remove_orphans()?;
        report.artifacts = self.sweep_artifacts()?;
        self.give_back_pages()?;
        report.bytes_freed = before.saturating_sub(self.disk_bytes()?);
        Ok(report)
    }

    fn doomed(&self, rows: &[RunRow], policy: GcPolicy, now: Time) -> Result<Vec<RunId>> {
        if policy.keep_for.is_none() && policy.keep_last.is_none() {
            return Ok(Vec::new());
        }
        let outputs_from: BTreeMap<RunId, RunId> = self
            .connection()
            .prepare("SELECT id, outputs_from FROM run WHERE outputs_from IS NOT NULL")
            .and_then(|mut select| {
                let run = |number: i64| RunId(unsigned(number));
                select.query_map([], |row| Ok((run(row.get(0)?), run(row.get(1)?))))?.collect()
            })
            .map_err(self.failed())?;
        let by_id: BTreeMap<RunId, &RunRow> = rows.iter().map(|row| (row.run, row)).collect();
        // The newest come first.
        let ended = rows.iter().filter(|row| row.phase.is_terminal());
        let doomed: BTreeSet<RunId> = ended
            .enumerate()
            .filter(|(place, row)| {
                let is_old = policy.keep_for.is_none_or(|keep| row.ended_at.is_some_and(|end| now.since(end) > keep));
                is_old && policy.keep_last.is_none_or(|last| *place >= last)
            })
            .map(|(_, row)| row.run)
            .collect();
        // What a kept run takes outputs from stays, and of an open run also what it retries.
        let mut kept: BTreeSet<RunId> = BTreeSet::new();
        let mut unseen: Vec<RunId> = by_id.keys().copied().filter(|run| !doomed.contains(run)).collect();
        while let Some(run) = unseen.pop() {
            if !kept.insert(run) {
                continue;
            }
            let Some(row) = by_id.get(&run) else { continue };
            unseen.extend(outputs_from.get(&run));
            if !row.phase.is_terminal() {
                unseen.extend(row.retry_of);
            }
        }
        Ok(doomed.difference(&kept).copied().collect())
    }

    /// Removes folders of runs that are not there any more: an earlier `gc` was interrupted.
    fn remove_orphans(&self) -> Result<()> {
        for folder in entries(&self.directory().runs())? {
            let Ok(number) = name(&folder).parse() else { continue };
            // A run's row is there before its folder is, so a folder without a row belongs to a removed run.
            if let Err(StoreError::NoSuchRun { .. }) = self.run(RunId(number)) {
                remove_folder(folder)?;
            }
        }
        Ok(())
    }

    fn sweep_artifacts(&self) -> Result<u64> {
        let mut removed = 0;
        let files = artifact_files(self.directory())?;
        if files.is_empty() {
            return Ok(0);
        }
        let now = SystemTime::now();
        for (path, sha256) in files {
            let _alone = artifact::lock_shelves(self.directory(), true)?;
            let is_wanted = match &sha256 {
                Some(sha256) => self
                    .connection()
                    .prepare_cached("SELECT EXISTS (SELECT 1 FROM artifact WHERE sha256 = ?1)")
                    .and_then(|mut select| select.query_row([sha256], |row| row.get(0)))
                    .map_err(self.failed())?,
                None => false,
            };
            let age = std::fs::metadata(&path).and_then(|facts| facts.modified());
            let is_old = age.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > ARTIFACT_GRACE));
            if !is_wanted && is_old {
                std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn give_back_pages(&mut self) -> Result<()> {
        let failed = self.failed();
        let free = |store: &Self| -> Result<i64> {
            store.connection().pragma_query_value(None, "freelist_count", |row| row.get(0)).map_err(store.failed())
        };
        let mut left = free(self)?;
        while left > 0 {
            let mut pragma = self
                .connection()
                .prepare(&format!("PRAGMA incremental_vacuum({PAGES_A_TRANSACTION})"))
                .map_err(&failed)?;
            let mut rows = pragma.query([]).map_err(&failed)?;
            while rows.next().map_err(&failed)?.is_some() {}
            drop(rows);
            drop(pragma);
            let now = free(self)?;
            if now >= left {
                break;
            }
            left = now;
        }
        // A reader may hold the WAL; then it shrinks at a later time.
        self.connection().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)
    }

    fn disk_bytes(&self) -> Result<u64> {
        let database = self.database_path();
        let mut bytes = size(database) + size(&database.with_extension("db-wal"));
        for folder in entries(&self.directory().runs())? {
            bytes += entries(&folder)?.iter().map(|path| size(path)).sum::<u64>();
        }
        bytes += artifact_files(self.directory())?.iter().map(|(path, _)| size(path)).sum::<u64>();
        Ok(bytes)
    }
}

fn size(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |facts| facts.len())
}

fn remove_folder(folder: PathBuf) -> Result<()> {
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", &folder)(error)),
        _ => Ok(()),
    }
}
