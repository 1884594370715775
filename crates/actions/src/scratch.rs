//! The folder in which steps leave their outputs: one per process, locked while it lives, removed with it.

use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A folder of this process alone.
pub(crate) struct Scratch {
    path: PathBuf,
    folder: OwnedFd,
    next: u64,
}

impl Scratch {
    /// Makes a new folder in `parent`, and removes those of processes that have died.
    pub(crate) fn create(parent: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        // Absolute, because steps run in other folders.
        let parent = parent.canonicalize()?;
        // Numbers of processes come back, and something that outlived its owner may still write to an old name.
        let chance = RandomState::new().build_hasher().finish();
        let path = parent.join(format!("{}-{chance:016x}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let folder = File::open(&path)?;
        folder.lock()?;
        remove_dead(&parent);
        Ok(Self { path, folder: folder.into(), next: 0 })
    }

    /// A name that no attempt had before, in this folder.
    pub(crate) fn next_name(&mut self) -> String {
        self.next += 1;
        self.next.to_string()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn folder(&self) -> &OwnedFd {
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next process.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Best effort: a folder that stays costs a few bytes. One that was made a moment ago and is not locked yet would
/// be removed too, so a young one is left alone.
fn remove_dead(parent: &Path) {
    const YOUNG_SECS: u64 = 60;
    let Ok(listing) = fs::read_dir(parent) else { return };
    for entry in listing.flatten() {
        let old = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() >= YOUNG_SECS));
        if old
            && let Ok(folder) = File::open(entry.path())
            && folder.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
