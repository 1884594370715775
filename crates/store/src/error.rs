//! What can go wrong between a run and its disk, said so that a tired person knows what to do next.

use std::io;
use std::path::{Path, PathBuf};

use baton_core::{Epoch, Log, RunId};

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The data directory cannot be made or written.
    #[error(
        "cannot write to the data directory `{}`: {source}; make it writable, or choose another one with --data-dir",
        path.display()
    )]
    Unwritable {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no data directory here.
    #[error(
        "there is no Baton data at `{}`; `baton run` makes it, or name another place with --data-dir",
        path.display()
    )]
    NoStore {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Locks and syncs cannot be relied on there.
    #[error(
        "the data directory `{}` is on a network file system ({kind}), where neither locks nor syncs can be relied on; \
         choose a local folder with --data-dir",
        path.display()
    )]
    NetworkFileSystem {
        /// The directory.
        path: PathBuf,
        /// The file system's name.
        kind: String,
    },
    /// The database was written by something else.
    #[error(
        "`{}` is not a Baton database (application id {found:#x}, expected {expected:#x}); move it away, or choose \
         another folder with --data-dir",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The id in it.
        found: i64,
        /// Ours.
        expected: i64,
    },
    /// The database was written by a newer Baton.
    #[error(
        "`{}` has schema version {found} and this Baton knows {known} at most; use the Baton that wrote it, or a \
         newer one",
        path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The highest version this program can read.
        known: u32,
    },
    /// A log was written in a form that this program does not know.
    #[error("the log of {} has format {found} and this Baton knows {known} at most; use a newer Baton", log_name(log))]
    NewerFormat {
        /// The log.
        log: Log,
        /// Its format.
        found: u32,
        /// The highest format this program can read.
        known: u32,
    },
    /// The SQLite that was linked has a known fault.
    #[error("SQLite {found} is linked and {needed} is the oldest that is safe; build Baton with its bundled SQLite")]
    OldSqlite {
        /// The version that was met.
        found: String,
        /// The oldest good one.
        needed: &'static str,
    },
    /// The database itself is damaged.
    #[error(
        "the database `{}` is damaged: {detail}; `baton doctor` says what is readable, `baton restore` takes back a \
         backup",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// One log is damaged; the others are not touched by it.
    #[error(
        "the log of {} is damaged at event {seq}: {detail}; other runs are not touched; `baton doctor` checks all \
         of them, `baton restore` takes back a backup",
        log_name(log)
    )]
    DamagedLog {
        /// The log.
        log: Log,
        /// The event's number.
        seq: u64,
        /// What was found and what was expected.
        detail: String,
    },
    /// Kept output, an artefact or a backup is not what it was when it was written.
    #[error("`{}` is damaged: {detail}; `baton restore` takes back a backup", path.display())]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        detail: String,
    },
    /// No space is left.
    #[error("the disk that holds `{}` is full; free some space, or let `baton gc` remove old runs", path.display())]
    DiskFull {
        /// The data directory or the file.
        path: PathBuf,
    },
    /// A write or a sync failed: what the system's cache holds can no longer be trusted.
    #[error(
        "a write to `{}` failed ({detail}) and is not tried again, because what the system then reports cannot be \
         trusted; check the disk, then `baton resume`",
        path.display()
    )]
    WriteFailed {
        /// The file.
        path: PathBuf,
        /// What failed.
        detail: String,
    },
    /// An earlier write failed, so this store no longer answers.
    #[error(
        "an earlier write to `{}` failed, so nothing is written any more; check the disk, then `baton resume`",
        path.display()
    )]
    Distrusted {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds the database.
    #[error(
        "another process has been writing to `{}` for longer than {waited_secs} s; try again, or end it",
        path.display()
    )]
    Busy {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        waited_secs: u64,
    },
    /// There is no such run.
    #[error("there is no run {run} here; `baton runs` lists those there are")]
    NoSuchRun {
        /// The number.
        run: RunId,
    },
    /// A plan's text is missing.
    #[error("the plan {sha256} is not in the store; `baton doctor` checks it, `baton restore` takes back a backup")]
    NoSuchPlan {
        /// The plan's SHA-256.
        sha256: String,
    },
    /// An artefact is missing.
    #[error("the artefact {sha256} is not in the store; its run may have been removed by `baton gc`")]
    NoSuchArtifact {
        /// The content's SHA-256.
        sha256: String,
    },
    /// Somebody else drives the run.
    #[error(
        "run {run} belongs to process {pid} on {host} (`{command}`), which is alive; cancel it there, or wait for \
         its end"
    )]
    Owned {
        /// The run.
        run: RunId,
        /// The owner.
        owner: Epoch,
        /// The owner's process.
        pid: u32,
        /// The owner's machine.
        host: String,
        /// The owner's command line.
        command: String,
    },
    /// The run has ended.
    #[error("run {run} has ended ({status}) and never opens again; `baton retry {run}` makes a new run of it")]
    Ended {
        /// The run.
        run: RunId,
        /// How it ended.
        status: &'static str,
    },
    /// The owner is not registered, or counts as dead.
    #[error("owner {} is not registered as a living process", owner.0)]
    NotAnOwner {
        /// The owner.
        owner: Epoch,
    },
    /// A file is too large to be kept.
    #[error("`{}` has {bytes} bytes and an artefact may have {limit}; make it smaller or leave it out", path.display())]
    ArtifactTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The largest size.
        limit: u64,
    },
    /// A path leads out of the folder it must stay in.
    #[error(
        "`{}` is not a regular file below `{}`, and symbolic links are not followed",
        path.display(), folder.display()
    )]
    Outside {
        /// The path.
        path: PathBuf,
        /// The folder.
        folder: PathBuf,
    },
    /// A backup cannot go there, or a restore cannot take place.
    #[error("{detail}")]
    Refused {
        /// What stands in the way and what to do.
        detail: String,
    },
    /// The system said no.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite said no, for a reason without a name of its own here.
    #[error("the database `{}` refused: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// A stable name for programs and for the manual.
    pub fn code(&self) -> &'static str {
        match self {
            StoreError::Unwritable { .. } => "store-unwritable",
            StoreError::NoStore { .. } => "no-store",
            StoreError::NetworkFileSystem { .. } => "network-file-system",
            StoreError::Foreign { .. } => "foreign-database",
            StoreError::NewerSchema { .. } => "newer-schema",
            StoreError::NewerFormat { .. } => "newer-format",
            StoreError::OldSqlite { .. } => "old-sqlite",
            StoreError::Damaged { .. } => "damaged-database",
            StoreError::DamagedLog { .. } => "damaged-log",
            StoreError::DamagedFile { .. } => "damaged-file",
            StoreError::DiskFull { .. } => "disk-full",
            StoreError::WriteFailed { .. } => "write-failed",
            StoreError::Distrusted { .. } => "distrusted",
            StoreError::Busy { .. } => "store-busy",
            StoreError::NoSuchRun { .. } => "no-such-run",
            StoreError::NoSuchPlan { .. } => "no-such-plan",
            StoreError::NoSuchArtifact { .. } => "no-such-artifact",
            StoreError::Owned { .. } => "run-owned",
            StoreError::Ended { .. } => "run-ended",
            StoreError::NotAnOwner { .. } => "not-an-owner",
            StoreError::ArtifactTooLarge { .. } => "artifact-too-large",
            StoreError::Outside { .. } => "path-outside",
            StoreError::Refused { .. } => "refused",
            StoreError::Io { .. } => "io",
            StoreError::Database { .. } => "database",
        }
    }

    /// For `map_err` on a system call about a file.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        move |source| {
            let path = path.to_path_buf();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull { path },
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    StoreError::Unwritable { path, source }
                }
                _ => StoreError::Io { doing, path, source },
            }
        }
    }

    /// For `map_err` on a write or a sync of bytes that events will refer to.
    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::DiskFull { path: path.to_path_buf() }
            }
            _ => StoreError::WriteFailed { path: path.to_path_buf(), detail: source.to_string() },
        }
    }

    /// For `map_err` on a call of the database in `path`.
    pub(crate) fn sqlite(path: &Path) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        use rusqlite::ErrorCode;
        let path = path.to_path_buf();
        move |source| {
            let path = path.clone();
            match source.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => StoreError::DiskFull { path },
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    StoreError::Damaged { path, detail: source.to_string() }
                }
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    StoreError::Busy { path, waited_secs: crate::BUSY_LIMIT.as_secs() }
                }
                Some(ErrorCode::SystemIoFailure) => StoreError::WriteFailed { path, detail: source.to_string() },
                Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                    StoreError::Unwritable { path, source: io::Error::other(source) }
                }
                _ => StoreError::Database { path, source },
            }
        }
    }
}

/// The log's name in a sentence.
pub(crate) fn log_name(log: &Log) -> String {
    match log {
        Log::Shared => "the locks".to_owned(),
        Log::Run(run) => format!("run {run}"),
    }
}
