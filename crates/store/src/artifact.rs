//! Artefacts: files that steps left on purpose, kept once by the SHA-256 of their content.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use baton_core::action::Artifact;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

use crate::chain::hex;
use crate::directory::make_folder;
use crate::{DataDir, Result, StoreError, filesystem};

/// A larger file is refused as an artefact.
pub const MAX_ARTIFACT_BYTES: u64 = 1 << 30;

/// Taken artefacts are synced at the latest when there are this many, so that few files are open.
const MAX_PENDING: usize = 32;

const COPY_BYTES: usize = 128 << 10;

/// Takes files into the store. What was taken is kept only after [`ArtifactIntake::sync`].
#[derive(Debug)]
pub struct ArtifactIntake {
    directory: DataDir,
    pending: Vec<Pending>,
    next: u64,
    limit: u64,
}

#[derive(Debug)]
struct Pending {
    file: File,
    from: PathBuf,
    to: PathBuf,
}

impl ArtifactIntake {
    /// An intake for the store of this data directory.
    pub fn new(directory: &DataDir) -> Self {
        Self { directory: directory.clone(), pending: Vec::new(), next: 0, limit: MAX_ARTIFACT_BYTES }
    }

    /// Copies the file at `path`, relative to `folder` and not leading out of it.
    pub fn put(&mut self, folder: &Path, path: &str) -> Result<Artifact> {
        let full = folder.join(path);
        let mut source = open_beneath(folder, Path::new(path))?;
        let facts = source.metadata().map_err(StoreError::io("look at", &full))?;
        if !facts.is_file() {
            return Err(StoreError::Outside { path: PathBuf::from(path), folder: folder.to_path_buf() });
        }
        let too_large = |bytes| StoreError::ArtifactTooLarge { path: full.clone(), bytes, limit: self.limit };
        if facts.len() > self.limit {
            return Err(too_large(facts.len()));
        }
        if self.pending.len() >= MAX_PENDING {
            self.sync()?;
        }
        let shelves = self.directory.artifacts();
        make_folder(&shelves)?;
        self.next += 1;
        let from = shelves.join(format!(".{}-{}.partial", std::process::id(), self.next));
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&from);
        let mut file = file.map_err(StoreError::write(&from))?;
        let copied = copy(&mut source, &full, &mut file, &from, self.limit);
        let (sha256, bytes) = match copied {
            Ok(Some(copied)) => copied,
            Ok(None) => {
                let _ = std::fs::remove_file(&from);
                return Err(StoreError::ArtifactTooLarge { path: full, bytes: self.limit + 1, limit: self.limit });
            }
            Err(error) => {
                let _ = std::fs::remove_file(&from);
                return Err(error);
            }
        };
        let to = self.directory.artifact(&sha256);
        if self.is_kept(&to, bytes)? {
            std::fs::remove_file(&from).map_err(StoreError::io("remove", &from))?;
        } else {
            self.pending.push(Pending { file, from, to });
        }
        Ok(Artifact { path: path.to_owned(), bytes, sha256 })
    }

    /// Makes everything durable that was taken. It is cheap where there is nothing new.
    pub fn sync(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut folders = BTreeSet::new();
        folders.insert(self.directory.root().to_path_buf());
        folders.insert(self.directory.artifacts());
        for Pending { file, from, to } in std::mem::take(&mut self.pending) {
            file.sync_all().map_err(StoreError::write(&from))?;
            if let Some(shelf) = to.parent() {
                make_folder(shelf)?;
                folders.insert(shelf.to_path_buf());
            }
            let _shared = lock_shelves(&self.directory, false)?;
            std::fs::rename(&from, &to).map_err(StoreError::io("rename", &from))?;
        }
        for folder in folders {
            filesystem::sync_folder(&folder).map_err(StoreError::write(&folder))?;
        }
        Ok(())
    }

    /// Whether the content is kept already. If so it counts as new from now on, so that `gc` leaves it alone until
    /// an event refers to it.
    fn is_kept(&self, to: &Path, bytes: u64) -> Result<bool> {
        let _shared = lock_shelves(&self.directory, false)?;
        match OpenOptions::new().write(true).open(to) {
            Ok(file) if file.metadata().is_ok_and(|facts| facts.len() == bytes) => {
                file.set_modified(SystemTime::now()).map_err(StoreError::io("touch", to))?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("open", to)(error)),
        }
    }
}

/// While `gc` has the shelves to itself nobody counts on a file that it is about to remove.
pub(crate) fn lock_shelves(directory: &DataDir, alone: bool) -> Result<File> {
    let path = directory.artifacts();
    let shelves = File::open(&path).map_err(StoreError::io("open", &path))?;
    if alone { shelves.lock() } else { shelves.lock_shared() }.map_err(StoreError::io("lock", &path))?;
    Ok(shelves)
}

/// Copies at most `limit` bytes and answers with their SHA-256 and number; `None`: there were more.
fn copy(from: &mut File, from_path: &Path, to: &mut File, to_path: &Path, limit: u64) -> Result<Option<(String, u64)>> {
    let mut buffer = vec![0u8; COPY_BYTES];
    let (mut digest, mut bytes) = (Sha256::new(), 0u64);
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(Some((hex(&digest.finalize()), bytes))),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StoreError::io("read", from_path)(error)),
        };
        bytes += length as u64;
        if bytes > limit {
            return Ok(None);
        }
        digest.update(&buffer[..length]);
        to.write_all(&buffer[..length]).map_err(StoreError::write(to_path))?;
    }
}

/// The SHA-256 and the size of a file.
pub(crate) fn digest(path: &Path) -> Result<(String, u64)> {
    let mut file = File::open(path).map_err(StoreError::io("open", path))?;
    let mut buffer = vec![0u8; COPY_BYTES];
    let (mut digest, mut bytes) = (Sha256::new(), 0u64);
    loop {
        match file.read(&mut buffer).map_err(StoreError::io("read", path))? {
            0 => return Ok((hex(&digest.finalize()), bytes)),
            length => {
                digest.update(&buffer[..length]);
                bytes += length as u64;
            }
        }
    }
}

/// Why a file was not copied.
pub(crate) enum CopyError {
    /// It cannot be read.
    Read(io::Error),
    /// Its copy cannot be written.
    Write(StoreError),
}

impl CopyError {
    /// The error where a file that cannot be read ends what was begun.
    pub(crate) fn of(self, from: &Path) -> StoreError {
        match self {
            CopyError::Read(error) => StoreError::io("read", from)(error),
            CopyError::Write(error) => error,
        }
    }
}

/// Copies at most `limit` bytes, synced, and answers with the SHA-256 and the number of what was copied.
pub(crate) fn copy_synced(from: File, to: &Path, limit: u64) -> Result<(String, u64), CopyError> {
    let failed = |error: io::Error| CopyError::Write(StoreError::write(to)(error));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(to).map_err(failed)?;
    let mut from = from.take(limit);
    let mut buffer = vec![0u8; COPY_BYTES];
    let (mut digest, mut bytes) = (Sha256::new(), 0u64);
    loop {
        match from.read(&mut buffer).map_err(CopyError::Read)? {
            0 => break,
            length => {
                digest.update(&buffer[..length]);
                file.write_all(&buffer[..length]).map_err(failed)?;
                bytes += length as u64;
            }
        }
    }
    file.sync_all().map_err(failed)?;
    Ok((hex(&digest.finalize()), bytes))
}

/// Opens a file below `folder`. A path that leads out of it, by `..` or by a symbolic link, is refused by the kernel,
/// not by looking at the text. A FIFO does not make it wait.
fn open_beneath(folder: &Path, path: &Path) -> Result<File> {
    let outside = || StoreError::Outside { path: path.to_path_buf(), folder: folder.to_path_buf() };
    let root = File::open(folder).map_err(StoreError::io("open", folder))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        use rustix::io::Errno;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve) {
            Ok(file) => return Ok(File::from(file)),
            Err(Errno::XDEV | Errno::LOOP) => return Err(outside()),
            // An old kernel or a sandbox does not know the call; the slower way below is as safe.
            Err(Errno::NOSYS | Errno::PERM) => {}
            Err(error) => return Err(StoreError::io("open", &folder.join(path))(error.into())),
        }
    }
    let mut at = OwnedFd::from(root);
    let mut parts = path.components().filter(|part| !matches!(part, Component::CurDir)).peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(outside()) };
        let folder_flag = if parts.peek().is_some() { OFlags::DIRECTORY } else { OFlags::empty() };
        at = rustix::fs::openat(&at, name, flags | OFlags::NOFOLLOW | folder_flag, Mode::empty()).map_err(|error| {
            match error {
                rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => outside(),
                error => StoreError::io("open", &folder.join(path))(error.into()),
            }
        })?;
    }
    Ok(File::from(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (tempfile::TempDir, DataDir, PathBuf) {
        let scratch = tempfile::tempdir().unwrap();
        let directory = DataDir::at(scratch.path().join(".baton"));
        directory.create().unwrap();
        let folder = scratch.path().join("work");
        std::fs::create_dir(&folder).unwrap();
        (scratch, directory, folder)
    }

    #[test]
    fn equal_files_are_kept_once_under_the_name_of_their_content() {
        let (_scratch, directory, folder) = world();
        std::fs::write(folder.join("a"), "same").unwrap();
        std::fs::write(folder.join("b"), "same").unwrap();
        let mut intake = ArtifactIntake::new(&directory);
        let a = intake.put(&folder, "a").unwrap();
        intake.sync().unwrap();
        let b = intake.put(&folder, "b").unwrap();
        intake.sync().unwrap();
        assert_eq!((&a.sha256, a.bytes), (&b.sha256, 4));
        assert_eq!(digest(&directory.artifact(&a.sha256)).unwrap(), (a.sha256, 4));
        let leftovers = std::fs::read_dir(directory.artifacts()).unwrap();
        assert_eq!(leftovers.count(), 1, "one shelf and nothing unfinished");
    }

    #[test]
    fn a_path_that_leads_out_of_the_folder_is_refused() {
        let (scratch, directory, folder) = world();
        std::fs::write(scratch.path().join("secret"), "no").unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("..", folder.join("up")).unwrap();
        let mut intake = ArtifactIntake::new(&directory);
        for path in ["link", "../secret", "up/secret", "/etc/passwd"] {
            assert_eq!(intake.put(&folder, path).unwrap_err().code(), "path-outside", "{path}");
        }
        assert_eq!(intake.put(&folder, ".").unwrap_err().code(), "path-outside", "a folder is no file");
    }

    #[test]
    fn a_fifo_is_refused_without_waiting_for_its_writer() {
        let (_scratch, directory, folder) = world();
        let path = folder.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(ArtifactIntake::new(&directory).put(&folder, "fifo").unwrap_err().code(), "path-outside");
    }

    #[test]
    fn a_file_that_is_too_large_leaves_nothing_behind() {
        let (_scratch, directory, folder) = world();
        std::fs::write(folder.join("large"), "12345").unwrap();
        let mut intake = ArtifactIntake { limit: 4, ..ArtifactIntake::new(&directory) };
        assert_eq!(intake.put(&folder, "large").unwrap_err().code(), "artifact-too-large");
        std::fs::write(folder.join("small"), "1234").unwrap();
        intake.put(&folder, "small").unwrap();
    }
}
