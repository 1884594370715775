//! `baton doctor`: whether everything in a store is what it was when it was written, and where the bytes are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use baton_core::{Log, RunId};
use serde::Deserialize;

use crate::sqlite::unsigned;
use crate::{Access, DataDir, OwnerRow, Result, SqliteStore, Store, StoreError, artifact, output, owner};

/// What an examination found.
#[derive(Clone, Debug)]
pub struct Doctor {
    /// The store's own name.
    pub store_id: String,
    /// The version of SQLite that is linked.
    pub sqlite_version: &'static str,
    /// The version of the tables.
    pub schema_version: u32,
    /// How many runs there are.
    pub runs: u64,
    /// How many events of runs were verified; those of the log that runs share are not counted.
    pub events: u64,
    /// What is wrong with the database as a whole.
    pub database_problems: Vec<String>,
    /// The logs that are damaged.
    pub damaged_logs: Vec<DamagedLog>,
    /// Kept files that are not what they should be, or not there.
    pub damaged_files: Vec<DamagedFile>,
    /// Files that nothing refers to; `baton gc` removes them.
    pub orphans: Vec<PathBuf>,
    /// The bytes of each table and index, the largest first.
    pub tables: Vec<(String, u64)>,
    /// The bytes of the database, its WAL, output, exports, artefacts and everything else.
    pub bytes: Bytes,
    /// Who owns or owned runs.
    pub owners: Vec<OwnerRow>,
}

/// A log that cannot be trusted from some event on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedLog {
    /// The log.
    pub log: Log,
    /// The whole story.
    pub problem: String,
}

/// A file that cannot be trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedFile {
    /// The file or the folder.
    pub path: PathBuf,
    /// The runs that it belongs to; none where it is not known.
    pub runs: Vec<RunId>,
    /// The whole story.
    pub problem: String,
}

/// Where the bytes of a data directory are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bytes {
    /// The database.
    pub database: u64,
    /// How much of the database is free for new rows.
    pub database_free: u64,
    /// The database's write-ahead log and its index.
    pub wal: u64,
    /// Output segments.
    pub output: u64,
    /// `events.jsonl` of all runs.
    pub exports: u64,
    /// Artefacts.
    pub artifacts: u64,
}

/// What was found in a log that is whole.
struct VerifiedLog {
    events: u64,
    /// What its events refer to of the run's output.
    output: output::Stretches,
}

/// What of a payload says where output stands.
#[derive(Deserialize)]
struct AnyPayload {
    output_segment: Option<Stretch>,
}

#[derive(Deserialize)]
struct Stretch {
    start: u64,
    end: u64,
}

/// What was found beside the database.
#[derive(Default)]
struct Files {
    damaged: Vec<DamagedFile>,
    orphans: Vec<PathBuf>,
    bytes: Bytes,
}

/// Something that is damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The runs that it touches; none: the store as a whole.
    pub runs: Vec<RunId>,
    /// The whole story.
    pub problem: String,
}

impl Doctor {
    /// Everything that is damaged.
    pub fn damage(&self) -> Vec<Damage> {
        let whole = self.database_problems.iter().map(|problem| Damage { runs: Vec::new(), problem: problem.clone() });
        let logs = self.damaged_logs.iter().map(|damaged| match damaged.log {
            Log::Shared => Damage { runs: Vec::new(), problem: damaged.problem.clone() },
            Log::Run(run) => Damage { runs: vec![run], problem: damaged.problem.clone() },
        });
        let files = self.damaged_files.iter().map(|file| {
            let problem = format!("`{}`: {}", file.path.display(), file.problem);
            Damage { runs: file.runs.clone(), problem }
        });
        whole.chain(logs).chain(files).collect()
    }

    /// Whether nothing is damaged.
    pub fn is_healthy(&self) -> bool {
        self.database_problems.is_empty() && self.damaged_logs.is_empty() && self.damaged_files.is_empty()
    }
}

impl SqliteStore {
    /// Examines everything and changes nothing.
    pub fn doctor(&self) -> Result<Doctor> {
        let failed = self.failed();
        let connection = self.connection();
        let mut database_problems = Vec::new();
        let texts = |sql: &str| -> rusqlite::Result<Vec<String>> {
            let mut select = connection.prepare(sql)?;
            let rows = select.query_map([], |row| row.get(0))?;
            rows.collect()
        };
        match texts("PRAGMA integrity_check(100)") {
            Ok(lines) => database_problems.extend(lines.into_iter().filter(|line| line != "ok")),
            Err(error) => database_problems.push(error.to_string()),
        }
        match texts(
            // The artefacts of a run that is gone are left by a `gc` that was interrupted; the next one removes them.
            "SELECT 'a row of ' || \"table\" || ' refers to a missing row of ' || parent FROM pragma_foreign_key_check \
             WHERE NOT (\"table\" = 'artifact' AND parent = 'run')",
        ) {
            Ok(lines) => database_problems.extend(lines),
            Err(error) => database_problems.push(error.to_string()),
        }
        let mut damaged_logs = Vec::new();
        let (mut events, mut runs, mut damaged_outputs) = (0, BTreeSet::new(), Vec::new());
        let mut logs = vec![Log::Shared];
        match connection
            .prepare("SELECT id FROM run ORDER BY id")
            .and_then(|mut select| select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>())
        {
            Ok(ids) => {
                runs.extend(ids.iter().map(|id| unsigned(*id)));
                logs.extend(runs.iter().map(|run| Log::Run(RunId(*run))));
            }
            Err(error) => database_problems.push(format!("the runs cannot be listed: {error}")),
        }
        for log in logs {
            match self.verify_log(log) {
                Ok(verified) => {
                    if log != Log::Shared {
                        events += verified.events;
                    }
                    damaged_outputs.extend(self.examine_output(log, &verified.output));
                }
                Err(error) => damaged_logs.push(DamagedLog { log, problem: error.to_string() }),
            }
        }
        let mut tables: Vec<(String, u64)> = connection
            .prepare("SELECT name, sum(pgsize) FROM dbstat GROUP BY name ORDER BY 2 DESC")
            .and_then(|mut select| {
                let rows = select.query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
                rows.collect()
            })
            .unwrap_or_default();
        tables.truncate(MAX_TABLES);
        let Files { damaged: mut damaged_files, orphans, bytes: files } = self.examine_files(&runs)?;
        damaged_files.extend(damaged_outputs);
        let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(unsigned);
        let free = pragma("freelist_count").map_err(&failed)? * pragma("page_size").map_err(&failed)?;
        let database = self.database_path();
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |facts| facts.len());
        let beside = |suffix: &str| size(&database.with_extension(format!("db{suffix}")));
        let wal = beside("-wal") + beside("-shm");
        Ok(Doctor {
            store_id: self.id().to_owned(),
            sqlite_version: rusqlite::version(),
            schema_version: crate::schema::version(connection).map_err(&failed)?,
            runs: runs.len() as u64,
            events,
            database_problems,
            damaged_logs,
            damaged_files,
            orphans,
            tables,
            bytes: Bytes { database: size(database), database_free: free, wal, ..files },
            owners: self.owners()?,
        })
    }

    /// Verifies the chain of one log and that every event can be read.
    fn verify_log(&self, log: Log) -> Result<VerifiedLog> {
        let mut output = output::Stretches::default();
        let events = self.walk(log, &mut |_, stored| match log {
            Log::Shared => crate::stored::decode_lock(stored).map(drop),
            // A step's name is checked against the plan by whoever replays the run.
            Log::Run(_) => match stored.kind {
                "run_created" => crate::stored::decode_created(stored.payload).map(drop),
                _ => {
                    let payload: AnyPayload = serde_json::from_slice(stored.payload)
                        .map_err(|error| format!("its payload cannot be read: {error}"))?;
                    if let Some(Stretch { start, end }) = payload.output_segment {
                        output.add(start, end);
                    }
                    Ok(())
                }
            },
        })?;
        Ok(VerifiedLog { events, output })
    }

    /// Reads what events refer to of a run's output.
    fn examine_output(&self, log: Log, stretches: &output::Stretches) -> Option<DamagedFile> {
        let Log::Run(run) = log else { return None };
        let path = self.directory().output(run);
        let problem = output::verify(&path, stretches).unwrap_or_else(|error| Some(error.to_string()))?;
        Some(DamagedFile { path, runs: vec![run], problem })
    }

    fn examine_files(&self, runs: &BTreeSet<u64>) -> Result<Files> {
        let directory = self.directory();
        let Files { mut damaged, mut orphans, mut bytes } = Files::default();
        let last_run: u64 = self
            .connection()
            .query_row("SELECT value FROM meta WHERE name = 'last_run'", [], |row| row.get::<_, i64>(0))
            .map_err(self.failed())?
            .unsigned_abs();
        for folder in entries(&directory.runs())? {
            let number = name(&folder).parse::<u64>().ok();
            for file in entries(&folder)? {
                let size = std::fs::metadata(&file).map_or(0, |facts| facts.len());
                match name(&file).as_str() {
                    "output" => bytes.output += size,
                    "events.jsonl" => bytes.exports += size,
                    _ => {}
                }
            }
            match number {
                Some(number) if number > last_run && directory.export(RunId(number)).exists() => {
                    let problem = format!("the database has no run {number}: it has lost what was written last");
                    damaged.push(DamagedFile { path: folder, runs: Vec::new(), problem });
                }
                Some(number) if runs.contains(&number) => {
                    let log = Log::Run(RunId(number));
                    if let Some(problem) = self.what_the_export_knows(log, &directory.export(RunId(number)))? {
                        damaged.push(DamagedFile { path: folder, runs: vec![RunId(number)], problem });
                    }
                }
                _ => orphans.push(folder),
            }
        }
        let wanted = self.kept_artifacts()?;
        let mut found = BTreeSet::new();
        let mut bad = Vec::new();
        for (path, sha256) in artifact_files(directory)? {
            let size = std::fs::metadata(&path).map_or(0, |facts| facts.len());
            bytes.artifacts += size;
            let Some(sha256) = sha256.filter(|sha256| wanted.contains(sha256)) else {
                orphans.push(path);
                continue;
            };
            match artifact::digest(&path) {
                Ok((digest, _)) if digest == sha256 => {}
                Ok((digest, _)) => bad.push((sha256.clone(), format!("its content has the SHA-256 {digest}"))),
                Err(error) => bad.push((sha256.clone(), error.to_string())),
            }
            found.insert(sha256);
        }
        bad.extend(wanted.difference(&found).map(|sha256| (sha256.clone(), "it is missing".to_owned())));
        for (sha256, problem) in bad {
            damaged.push(DamagedFile { path: directory.artifact(&sha256), runs: self.runs_with(&sha256)?, problem });
        }
        for file in entries(&directory.owners())? {
            let epoch = name(&file).split('.').next().and_then(|number| number.parse().ok()).map(baton_core::Epoch);
            match epoch {
                Some(epoch) if owner::liveness(directory, epoch)? == owner::Liveness::Alive => {}
                _ => orphans.push(file),
            }
        }
        Ok(Files { damaged, orphans, bytes })
    }

    /// Whether a run's export has events that its log has lost: an export is written after its events are on disk.
    fn what_the_export_knows(&self, log: Log, export: &Path) -> Result<Option<String>> {
        let Some(exported) = crate::export::last_number(export)? else { return Ok(None) };
        let last = self.events(log, exported.saturating_sub(1), 1)?;
        let detail =
            format!("`events.jsonl` goes on to event {exported}, and the database does not: it has lost events");
        Ok(last.is_empty().then_some(detail))
    }

    /// The SHA-256 of every artefact that an event of a run refers to.
    pub(crate) fn kept_artifacts(&self) -> Result<BTreeSet<String>> {
        self.connection()
            .prepare("SELECT DISTINCT sha256 FROM artifact WHERE run IN (SELECT id FROM run)")
            .and_then(|mut select| select.query_map([], |row| row.get(0))?.collect())
            .map_err(self.failed())
    }

    /// The runs that have left this artefact.
    pub(crate) fn runs_with(&self, sha256: &str) -> Result<Vec<RunId>> {
        self.connection()
            .prepare_cached("SELECT DISTINCT run.id FROM artifact JOIN run ON id = run WHERE sha256 = ?1 ORDER BY 1")
            .and_then(|mut select| select.query_map([sha256], |row| Ok(RunId(unsigned(row.get(0)?))))?.collect())
            .map_err(self.failed())
    }

    /// Where the content of an artefact stands.
    pub fn artifact(&self, sha256: &str) -> Result<PathBuf> {
        let path = self.directory().artifact(sha256);
        let is_name = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_name && path.exists() { Ok(path) } else { Err(StoreError::NoSuchArtifact { sha256: sha256.to_owned() }) }
    }
}

/// More tables and indexes than there are.
const MAX_TABLES: usize = 100;

/// Every file among the artefacts, with its SHA-256 where its name is one.
pub(crate) fn artifact_files(directory: &DataDir) -> Result<Vec<(PathBuf, Option<String>)>> {
    let mut files = Vec::new();
    for shelf in entries(&directory.artifacts())? {
        if !shelf.is_dir() {
            files.push((shelf, None));
            continue;
        }
        for file in entries(&shelf)? {
            let sha256 = format!("{}{}", name(&shelf), name(&file));
            let is_name = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
            files.push((file, is_name.then_some(sha256)));
        }
    }
    Ok(files)
}

/// What is in a folder, in order; nothing where it does not exist.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = match std::fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    let paths: std::io::Result<Vec<PathBuf>> = listed.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(StoreError::io("list", folder))?;
    paths.sort();
    Ok(paths)
}

pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Examines the store of a data directory without making or changing anything.
pub fn doctor(directory: &DataDir) -> Result<Doctor> {
    SqliteStore::open(directory, Access::Read)?.doctor()
}
