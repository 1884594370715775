//! Backup of a store that is in use into one folder, and the verified way back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use baton_core::RunId;
use serde::{Deserialize, Serialize};

use crate::artifact::CopyError;
use crate::directory::make_folder;
use crate::doctor::{Damage, DamagedFile, artifact_files, entries, name};
use crate::gc::{RunsUse, lock_runs};
use crate::sqlite::{random_id, wall_clock};
use crate::{Access, DataDir, Filter, Result, SqliteStore, Store, StoreError, artifact, export, filesystem, owner};

const MANIFEST: &str = "manifest.json";
const DATABASE: &str = "baton.db";
const FORMAT: u32 = 1;

/// The list of a backup's files. It is written last: a folder without it is no backup.
#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    store_id: String,
    schema_version: u32,
    made_at: String,
    files: Vec<ManifestFile>,
}

#[derive(Serialize, Deserialize)]
struct ManifestFile {
    path: String,
    bytes: u64,
    sha256: String,
}

/// What was backed up or restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backup {
    /// How many runs.
    pub runs: u64,
    /// How many files.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What is damaged in it, because it was damaged in what was copied.
    pub damage: Vec<Damage>,
}

/// What becomes of damaged runs when a backup is restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamagedRuns {
    /// Nothing is restored.
    Refuse,
    /// They are left out, with the runs that take outputs from them.
    LeaveOut,
}

/// What a restore did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// What was restored.
    pub backup: Backup,
    /// The runs that were left out.
    pub left_out: Vec<RunId>,
    /// Where the store that was there before is now.
    pub replaced: Option<PathBuf>,
}

/// What was copied beside the database.
struct Copied {
    files: Vec<ManifestFile>,
    /// What cannot be read, by where its copy would be.
    unread: BTreeMap<PathBuf, DamagedFile>,
}

impl Copied {
    /// Copies a file as long as it is now. That it is missing is found when the copy is examined; that it cannot be
    /// read is noted. Neither keeps the others from being copied.
    fn copy(
        &mut self,
        from: &Path,
        copy: &DataDir,
        to: PathBuf,
        runs: impl FnOnce() -> Result<Vec<RunId>>,
    ) -> Result<()> {
        let opened = File::open(from).and_then(|file| Ok((file.metadata()?.len(), file)));
        let copied = match opened {
            Ok((length, file)) => {
                make_folder(to.parent().unwrap_or(copy.root()))?;
                artifact::copy_synced(file, &to, length)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => Err(CopyError::Read(error)),
        };
        match copied {
            Ok((sha256, bytes)) => {
                let path = to.strip_prefix(copy.root()).unwrap_or(&to).to_string_lossy().into_owned();
                self.files.push(ManifestFile { path, bytes, sha256 });
            }
            Err(CopyError::Read(error)) => {
                remove_if_there(&to)?;
                let problem = format!("it cannot be read: {error}");
                self.unread.insert(to, DamagedFile { path: from.to_path_buf(), runs: runs()?, problem });
            }
            Err(error @ CopyError::Write(_)) => return Err(error.of(from)),
        }
        Ok(())
    }
}

impl SqliteStore {
    /// Copies the store into a new folder at `to`, as it is at one moment, while it is in use, and examines the copy.
    /// What is damaged is copied as it is and told; what cannot be read is told and left out.
    pub fn backup(&self, to: &Path) -> Result<Backup> {
        if to.exists() {
            return Err(refused(format!("`{}` exists; name a folder that does not", to.display())));
        }
        let mut partial = to.as_os_str().to_owned();
        partial.push(format!(".{}.partial", std::process::id()));
        let partial = PathBuf::from(partial);
        let made = self.write_backup(&partial).and_then(|backup| {
            std::fs::rename(&partial, to).map_err(StoreError::io("rename", &partial))?;
            let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            filesystem::sync_folder(parent).map_err(StoreError::write(parent))?;
            Ok(backup)
        });
        if made.is_err() {
            // What is left of it has no manifest and its name says that it is not finished.
            let _ = std::fs::remove_dir_all(&partial);
        }
        made
    }

    fn write_backup(&self, folder: &Path) -> Result<Backup> {
        let copy = DataDir::at(folder);
        // From before the database is copied: the files that the copy names stay until they are copied, too.
        let _runs = lock_runs(self.directory(), RunsUse::Copy)?;
        make_folder(folder)?;
        let database = copy.database();
        self.connection()
            .execute("VACUUM INTO ?1", [database.to_string_lossy()])
            .map_err(StoreError::sqlite(&database))?;
        let sync = || File::open(&database)?.sync_all();
        sync().map_err(StoreError::write(&database))?;
        let (sha256, bytes) = artifact::digest(&database)?;
        let mut copied =
            Copied { files: vec![ManifestFile { path: DATABASE.to_owned(), bytes, sha256 }], unread: BTreeMap::new() };
        // The copy says which files belong to it. What came later may be copied too, and nothing refers to that.
        let snapshot = SqliteStore::open(&copy, Access::Read)?;
        let runs = snapshot.runs(&Filter::default())?;
        make_folder(&copy.runs())?;
        make_folder(&copy.artifacts())?;
        for run in &runs {
            copied.copy(&self.directory().output(run.run), &copy, copy.output(run.run), || Ok(vec![run.run]))?;
        }
        for wanted in snapshot.kept_artifacts()? {
            let (from, to) = (self.directory().artifact(&wanted), copy.artifact(&wanted));
            copied.copy(&from, &copy, to, || snapshot.runs_with(&wanted))?;
        }
        for part in [copy.runs(), copy.artifacts()] {
            for folder in entries(&part)? {
                sync_folder(&folder)?;
            }
            sync_folder(&part)?;
        }
        let Copied { files, unread } = copied;
        let mut examined = snapshot.doctor()?;
        // What the copy misses because it could not be read is told with the reason.
        examined.damaged_files.retain(|file| !unread.contains_key(&file.path));
        examined.damaged_files.extend(unread.into_values());
        let backup = Backup {
            runs: runs.len() as u64,
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.bytes).sum(),
            damage: examined.damage(),
        };
        let manifest = Manifest {
            format: FORMAT,
            store_id: self.id().to_owned(),
            schema_version: crate::schema::VERSION,
            made_at: export::rfc3339(wall_clock()),
            files,
        };
        let path = folder.join(MANIFEST);
        let write = || -> std::io::Result<()> {
            let file = File::create(&path)?;
            serde_json::to_writer_pretty(&file, &manifest)?;
            file.sync_all()
        };
        write().map_err(StoreError::write(&path))?;
        sync_folder(folder)?;
        Ok(backup)
    }
}

/// Puts the backup in the folder `from` in the place of the store in `to`, after everything in it was verified. The
/// store that was there is moved aside. The restored store has a name of its own, so that its steps are never taken
/// for those of the one it was copied from.
pub fn restore(from: &Path, to: &DataDir, damaged: DamagedRuns) -> Result<Restored> {
    let files = verify(from)?;
    to.create()?;
    refuse_living_owners(to)?;
    let incoming = DataDir::at(to.root().join(format!("incoming-{}", std::process::id())));
    let placed = copy_all(from, &incoming, &files).and_then(|()| {
        let (runs, left_out) = make_ready(&incoming, damaged)?;
        let replaced = set_aside(to)?;
        // The database comes last: with it the store exists.
        for part in ["artifacts", "runs", DATABASE] {
            let source = incoming.root().join(part);
            std::fs::rename(&source, to.root().join(part)).map_err(StoreError::io("rename", &source))?;
            sync_folder(to.root())?;
        }
        let bytes = files.iter().map(|file| file.bytes).sum();
        let backup = Backup { runs, files: files.len() as u64, bytes, damage: Vec::new() };
        Ok(Restored { backup, left_out, replaced })
    });
    // It holds nothing that is needed any more, or what could not be restored.
    let _ = std::fs::remove_dir_all(incoming.root());
    placed
}

/// Checks that the files are those of the manifest.
fn verify(from: &Path) -> Result<Vec<ManifestFile>> {
    let path = from.join(MANIFEST);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(refused(format!("`{}` is no backup: it has no {MANIFEST}", from.display())));
        }
        Err(error) => return Err(StoreError::io("read", &path)(error)),
    };
    let damaged = |path: &Path, detail: String| StoreError::DamagedFile { path: path.to_path_buf(), detail };
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| damaged(&path, error.to_string()))?;
    if manifest.format > FORMAT {
        let detail =
            format!("the backup has format {} and this Baton knows {FORMAT}; use a newer Baton", manifest.format);
        return Err(refused(detail));
    }
    for file in &manifest.files {
        let path = from.join(&file.path);
        let is_inside = Path::new(&file.path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        if !is_inside {
            return Err(damaged(&path, "the manifest names a path outside the backup".to_owned()));
        }
        let (sha256, bytes) = artifact::digest(&path)?;
        if (&sha256, bytes) != (&file.sha256, file.bytes) {
            let expected = format!("{} bytes with the SHA-256 {}", file.bytes, file.sha256);
            return Err(damaged(&path, format!("it has {bytes} bytes with the SHA-256 {sha256}, expected {expected}")));
        }
    }
    Ok(manifest.files)
}

/// Brings a copied store up to date, gives it a name of its own and its exports, and examines it; answers with the
/// number of its runs, and with those that were left out.
fn make_ready(incoming: &DataDir, damaged: DamagedRuns) -> Result<(u64, Vec<RunId>)> {
    let mut store = SqliteStore::open(incoming, Access::Write)?;
    let left_out = leave_out_damaged(&mut store, damaged)?;
    let (id, failed) = (random_id()?, store.failed());
    store.write(|transaction| {
        transaction.execute("UPDATE meta SET value = ?1 WHERE name = 'store_id'", [id]).map_err(&failed)?;
        // Whoever drove these runs did so elsewhere.
        transaction.execute("DELETE FROM owner", []).map_err(&failed)?;
        Ok(())
    })?;
    let rows = store.runs(&Filter::default())?;
    for row in &rows {
        store.repair_export(row.run)?;
    }
    store.connection().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
    Ok((rows.len() as u64, left_out))
}

/// Examines a copied store, and takes out of it what is damaged.
fn leave_out_damaged(store: &mut SqliteStore, damaged: DamagedRuns) -> Result<Vec<RunId>> {
    let report = store.doctor()?;
    let damage = report.damage();
    if let Some(Damage { problem, .. }) = damage.iter().find(|damage| damage.runs.is_empty()) {
        return Err(StoreError::DamagedFile { path: store.directory().database(), detail: problem.clone() });
    }
    let runs: BTreeSet<RunId> = damage.into_iter().flat_map(|damage| damage.runs).collect();
    match damaged {
        _ if runs.is_empty() => return Ok(Vec::new()),
        DamagedRuns::LeaveOut => {}
        DamagedRuns::Refuse => {
            let names: Vec<String> = runs.iter().map(|run| format!("run {run}")).collect();
            return Err(refused(format!(
                "{} in the backup cannot be trusted, and nothing was changed; `--without-damaged` lays back all the \
                 others, `baton doctor --data-dir` on the backup says what is damaged",
                names.join(" and ")
            )));
        }
    }
    let left_out = store.remove_with_dependents(runs)?;
    for file in report.damaged_files {
        // An artefact that nobody refers to any more: if it stayed, it would be taken for what its name says.
        remove_if_there(&file.path)?;
    }
    Ok(left_out)
}

fn copy_all(from: &Path, copy: &DataDir, files: &[ManifestFile]) -> Result<()> {
    make_folder(copy.root())?;
    make_folder(&copy.runs())?;
    make_folder(&copy.artifacts())?;
    for file in files {
        let to = copy.root().join(&file.path);
        if let Some(parent) = to.parent() {
            make_folder(parent)?;
        }
        let source = from.join(&file.path);
        let opened = File::open(&source).map_err(StoreError::io("open", &source))?;
        let (sha256, _) = artifact::copy_synced(opened, &to, file.bytes).map_err(|error| error.of(&source))?;
        if sha256 != file.sha256 {
            return Err(StoreError::DamagedFile { path: to, detail: "it changed while it was copied".to_owned() });
        }
    }
    for run in entries(&copy.runs())? {
        sync_folder(&run)?;
    }
    for (file, _) in artifact_files(copy)? {
        if let Some(shelf) = file.parent() {
            sync_folder(shelf)?;
        }
    }
    sync_folder(&copy.runs())?;
    sync_folder(&copy.artifacts())?;
    sync_folder(copy.root())
}

/// Moves what is there into a folder of its own; answers with it, or with nothing where there was nothing.
fn set_aside(to: &DataDir) -> Result<Option<PathBuf>> {
    let had_store = to.exists();
    if had_store {
        // So that the database is whole without its WAL, should this be interrupted between the two. A damaged one is
        // set aside as it is.
        let _ = rusqlite::Connection::open(to.database())
            .and_then(|old| old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    }
    let mut parts: Vec<PathBuf> = entries(to.root())?
        .into_iter()
        .filter(|path| {
            let name = name(path);
            name.starts_with(DATABASE) || ["runs", "artifacts", "owners", "scratch"].contains(&name.as_str())
        })
        .collect();
    let aside = to.root().join(format!("replaced-{}", wall_clock().0));
    make_folder(&aside)?;
    // The database goes last: an interrupted restore leaves something that is still taken for a store, so that the next
    // one sets the rest aside as well, and what its WAL holds goes with it.
    parts.sort_by_key(|path| (name(path) == DATABASE, name(path).starts_with(DATABASE)));
    for path in &parts {
        std::fs::rename(path, aside.join(name(path))).map_err(StoreError::io("rename", path))?;
        sync_folder(to.root())?;
    }
    if !had_store {
        // Folders that hold nothing need not be kept; what holds something is.
        let empty = parts.iter().all(|path| std::fs::remove_dir(aside.join(name(path))).is_ok());
        if empty && std::fs::remove_dir(&aside).is_ok() {
            return Ok(None);
        }
    }
    Ok(Some(aside))
}

fn refuse_living_owners(to: &DataDir) -> Result<()> {
    for file in entries(&to.owners())? {
        let Some(number) = name(&file).strip_suffix(".lock").and_then(|number| number.parse().ok()) else { continue };
        if owner::liveness(to, baton_core::Epoch(number))? == owner::Liveness::Alive {
            let who = SqliteStore::open(to, Access::Read).and_then(|store| store.owners()).unwrap_or_default();
            let pid = who.iter().find(|owner| owner.epoch.0 == number).map_or(0, |owner| owner.info.pid);
            return Err(refused(format!(
                "process {pid} drives runs in `{}`; end it first, or restore into another folder",
                to.root().display()
            )));
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<()> {
    filesystem::sync_folder(folder).map_err(StoreError::write(folder))
}

fn refused(detail: String) -> StoreError {
    StoreError::Refused { detail }
}
