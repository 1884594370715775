//! Locks of refs that a killed git leaves in the user's repository, where every later git would stumble over them.
//!
//! Such a lock is an empty file that does not say whose it is, so it is removed only on two signs: an attempt of ours
//! was killed while its git may have held that very lock, and the lock is older than any git keeps one.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::repository::Repository;
use super::worktree::fnv1a;
use super::{failed, say, try_again};
use crate::registry::ActionFailure;

/// The age from which on a lock of a ref is nobody's: git holds one for milliseconds.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// Does work in which git locks these refs, each given in full.
pub(super) fn during<T>(
    repository: &Repository,
    refs: &[String],
    work: impl FnOnce() -> Result<T, ActionFailure>,
) -> Result<T, ActionFailure> {
    let folder = repository.own_folder();
    let cannot = |path: &Path, error| failed(format!("cannot write {}: {error}", path.display()));
    fs::create_dir_all(&folder).map_err(|error| cannot(&folder, error))?;
    let mut marks = Vec::new();
    for name in refs {
        let prefix = format!("{:016x}.ref.", fnv1a(name.as_bytes()));
        let killed = killed(&folder, &prefix).map_err(|error| cannot(&folder, error))?;
        if !killed.is_empty() {
            remove_lock(repository, name)?;
            for mark in killed {
                // Another attempt may have been as quick.
                let _ = fs::remove_file(mark);
            }
        }
        // The mark is locked for as long as this process lives: one that can be locked is a killed one's.
        let path = folder.join(format!("{prefix}{}", std::process::id()));
        let mark = File::create(&path).map_err(|error| cannot(&path, error))?;
        // Somebody who looks at it in this moment lets go of it at once.
        mark.lock().map_err(|error| failed(format!("cannot lock {}: {error}", path.display())))?;
        marks.push((path, mark));
    }
    let result = work();
    for (path, _mark) in &marks {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(cannot(path, error)),
            _ => {}
        }
    }
    result
}

/// The marks of attempts that were killed.
fn killed(folder: &Path, prefix: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut killed = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        if !entry.file_name().as_bytes().starts_with(prefix.as_bytes()) {
            continue;
        }
        match File::open(entry.path()) {
            Ok(mark) if mark.try_lock().is_ok() => killed.push(entry.path()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(killed)
}

/// Removes the lock of a ref if it was left behind; fails while it may still be somebody's.
fn remove_lock(repository: &Repository, name: &str) -> Result<(), ActionFailure> {
    let lock = repository.common_dir.join(format!("{name}.lock"));
    let age = match fs::metadata(&lock).and_then(|found| found.modified()) {
        Ok(since) => since.elapsed().unwrap_or_default(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(format!("cannot look at {}: {error}", lock.display()))),
    };
    if age < LEFT_BEHIND {
        return Err(try_again(format!(
            "{} may be what an attempt that was killed has left, or another git at work; the next attempt will know",
            lock.display()
        )));
    }
    match fs::remove_file(&lock) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(failed(format!("cannot remove {}: {error}", lock.display())))
        }
        _ => {
            say(format_args!("removed {}, left by an attempt that was killed", lock.display()));
            Ok(())
        }
    }
}
