//! The data directory: where it is, how it is made, and which file in it is what.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use baton_core::{Epoch, RunId};

use crate::{Result, StoreError, filesystem};

/// The folder's name in a project.
const NAME: &str = ".baton";

/// The folder that holds everything of a project's runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// The place of the data directory seen from `start`: the nearest ancestor's `.baton`, else at the top of the git
    /// work tree, else in `start` itself. Nothing is made.
    pub fn discover(start: &Path) -> DataDir {
        let ancestors = || start.ancestors().filter(|folder| !folder.as_os_str().is_empty());
        let root = ancestors()
            .map(|folder| folder.join(NAME))
            .find(|folder| folder.is_dir())
            .or_else(|| ancestors().find(|folder| folder.join(".git").exists()).map(|folder| folder.join(NAME)))
            .unwrap_or_else(|| start.join(NAME));
        DataDir { root }
    }

    /// The data directory that somebody named.
    pub fn at(root: impl Into<PathBuf>) -> DataDir {
        DataDir { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether a store has been made there.
    pub fn exists(&self) -> bool {
        self.database().exists()
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.root.join("baton.db")
    }

    /// What belongs to one run.
    pub fn run(&self, run: RunId) -> PathBuf {
        self.runs().join(run.to_string())
    }

    /// The output segment of a run.
    pub fn output(&self, run: RunId) -> PathBuf {
        self.run(run).join("output")
    }

    /// The events of a run, one JSON object a line.
    pub fn export(&self, run: RunId) -> PathBuf {
        self.run(run).join("events.jsonl")
    }

    /// Scratch files of running attempts; whoever makes it may also remove it.
    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    pub(crate) fn artifacts(&self) -> PathBuf {
        self.root.join("artifacts")
    }

    pub(crate) fn artifact(&self, sha256: &str) -> PathBuf {
        let (shelf, name) = sha256.split_at_checked(2).unwrap_or(("", sha256));
        self.artifacts().join(shelf).join(name)
    }

    pub(crate) fn owners(&self) -> PathBuf {
        self.root.join("owners")
    }

    pub(crate) fn owner_lock(&self, owner: Epoch) -> PathBuf {
        self.owners().join(format!("{}.lock", owner.0))
    }

    pub(crate) fn owner_wake(&self, owner: Epoch) -> PathBuf {
        self.owners().join(format!("{}.wake", owner.0))
    }

    pub(crate) fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Makes the folder where it is missing: for this user only, invisible to git, its name durable.
    pub(crate) fn create(&self) -> Result<()> {
        let unwritable = |source| StoreError::Unwritable { path: self.root.clone(), source };
        match fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return Err(StoreError::DiskFull { path: self.root.clone() });
            }
            Err(error) => return Err(unwritable(error)),
        }
        self.refuse_network()?;
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700)).map_err(unwritable)?;
        let ignore = self.root.join(".gitignore");
        if !ignore.exists() {
            fs::write(&ignore, "*\n").map_err(StoreError::io("write", &ignore))?;
        }
        make_folder(&self.owners())?;
        make_folder(&self.runs())?;
        filesystem::sync_folder(&self.root).map_err(unwritable)?;
        if let Some(parent) = self.root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // A parent that cannot be read cannot be synced; the folder itself is made.
            let _ = filesystem::sync_folder(parent);
        }
        Ok(())
    }

    pub(crate) fn refuse_network(&self) -> Result<()> {
        let kind = filesystem::network_kind(&self.root).map_err(StoreError::io("look at", &self.root))?;
        match kind {
            Some(kind) => Err(StoreError::NetworkFileSystem { path: self.root.clone(), kind }),
            None => Ok(()),
        }
    }
}

/// Makes a folder below the data directory where it is missing.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::io("make the folder", folder)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_data_directory_wins_then_the_git_work_tree_then_here() {
        let scratch = tempfile::tempdir().unwrap();
        let here = scratch.path().join("project/sub");
        fs::create_dir_all(&here).unwrap();
        assert_eq!(DataDir::discover(&here).root(), here.join(".baton"));
        fs::write(scratch.path().join("project/.git"), "gitdir: elsewhere").unwrap();
        assert_eq!(DataDir::discover(&here).root(), scratch.path().join("project/.baton"));
        fs::create_dir(scratch.path().join(".baton")).unwrap();
        assert_eq!(DataDir::discover(&here).root(), scratch.path().join(".baton"));
    }

    #[test]
    fn a_new_data_directory_is_private_and_invisible_to_git() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = DataDir::at(scratch.path().join("deep/.baton"));
        directory.create().unwrap();
        assert_eq!(fs::metadata(directory.root()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(directory.root().join(".gitignore")).unwrap(), "*\n");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named_with_the_next_step() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DataDir::at(file.join(".baton")).create().unwrap_err();
        assert_eq!(error.code(), "store-unwritable");
        assert!(error.to_string().contains("--data-dir"), "{error}");
    }
}
