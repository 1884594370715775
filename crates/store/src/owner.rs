//! Ownership on one machine: a locked file says that its process lives, a FIFO beside it wakes that process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use baton_core::Epoch;
use rustix::fs::OFlags;

use crate::{DataDir, Result, StoreError, filesystem};

/// What an owner says about itself, for people.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnerInfo {
    /// The process.
    pub pid: u32,
    /// When the process started, in the kernel's own unit since boot: a pid alone may be used again.
    pub start_time: u64,
    /// Which boot of the machine it was.
    pub boot_id: String,
    /// The machine's name.
    pub host: String,
    /// The command line.
    pub command: String,
}

impl OwnerInfo {
    /// The process that asks.
    pub fn current() -> Self {
        let uname = rustix::system::uname();
        let command: Vec<String> = std::env::args_os().map(|part| part.to_string_lossy().into_owned()).collect();
        Self {
            pid: std::process::id(),
            start_time: start_time("self"),
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
            host: uname.nodename().to_string_lossy().into_owned(),
            command: command.join(" ").chars().take(MAX_COMMAND_CHARS).collect(),
        }
    }
}

/// More of a command line is not kept.
const MAX_COMMAND_CHARS: usize = 500;

/// When a process (`self`, or a number) started: field 22 of its `stat`; 0 where there is none.
fn start_time(process: &str) -> u64 {
    const FIELD_AFTER_NAME: usize = 19;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_ascii_whitespace().nth(FIELD_AFTER_NAME).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// The files by which this process is known to live. Dropping it gives them up.
#[derive(Debug)]
pub(crate) struct OwnerFiles {
    pub(crate) epoch: Epoch,
    directory: DataDir,
    /// Locked for as long as it is open.
    _lock: File,
    wake: File,
}

impl OwnerFiles {
    /// Takes the files of `epoch`. The caller holds the database's write lock, and the number is new.
    pub(crate) fn create(directory: &DataDir, epoch: Epoch) -> Result<Self> {
        let path = directory.owner_lock(epoch);
        // A process that died before it could commit its number may have left the file; it holds no lock any more.
        let lock = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(StoreError::io("make", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Refused {
                    detail: format!(
                        "`{}` is locked although its number is new; end the process that holds it",
                        path.display()
                    ),
                });
            }
            Err(TryLockError::Error(source)) => return Err(StoreError::io("lock", &path)(source)),
        }
        let path = directory.owner_wake(epoch);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &path)(error));
            }
            _ => {}
        }
        filesystem::make_fifo(&path).map_err(StoreError::io("make the FIFO", &path))?;
        // Open for both, so that it never reads as ended when a waker closes it.
        let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32;
        let wake = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path);
        let wake = wake.map_err(StoreError::io("open", &path))?;
        Ok(Self { epoch, directory: directory.clone(), _lock: lock, wake })
    }

    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Takes out everything that wakers wrote.
    pub(crate) fn drain(&self) {
        let mut bytes = [0u8; 64];
        while matches!(rustix::io::read(&self.wake, &mut bytes), Ok(length) if length > 0) {}
    }
}

impl Drop for OwnerFiles {
    fn drop(&mut self) {
        // The number is never used again, so nobody can be waiting to lock a new file of this name. A lock file that
        // is gone says that its owner left in order; one that is there but not locked says that it crashed.
        remove(&self.directory, self.epoch);
    }
}

/// What an owner's lock file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Liveness {
    Alive,
    /// It left in order.
    Left,
    /// It died.
    Crashed,
}

/// Whether an owner lives. A shared lock is asked for, so that two who look do not take each other for the owner.
pub(crate) fn liveness(directory: &DataDir, owner: Epoch) -> Result<Liveness> {
    let path = directory.owner_lock(owner);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Liveness::Left),
        Err(error) => return Err(StoreError::io("open", &path)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Liveness::Crashed),
        Err(TryLockError::WouldBlock) => Ok(Liveness::Alive),
        Err(TryLockError::Error(source)) => Err(StoreError::io("lock", &path)(source)),
    }
}

/// Like [`liveness`], of an owner that said this about itself. Between its birth and its program a child holds a copy
/// of everything that its parent has open, the lock as well, and its environment does not tell yet whose child it is.
/// So where the owner's process is gone and its lock is not free, this waits for the child to become what it will be.
pub(crate) fn settled_liveness(directory: &DataDir, owner: Epoch, info: &OwnerInfo) -> Result<Liveness> {
    for _ in 0..SETTLE_LOOKS {
        let found = liveness(directory, owner)?;
        if found != Liveness::Alive || info.start_time == 0 || start_time(&info.pid.to_string()) == info.start_time {
            return Ok(found);
        }
        std::thread::park_timeout(SETTLE_PAUSE);
    }
    liveness(directory, owner)
}

/// How often and how long apart a lock is looked at whose owner is gone: two seconds in all.
const SETTLE_LOOKS: u32 = 2000;
const SETTLE_PAUSE: Duration = Duration::from_millis(1);

/// Blocks until the owner is dead. For a helper thread; it needs nothing of the store.
pub fn wait_for_death(directory: &DataDir, owner: Epoch) -> Result<()> {
    let path = directory.owner_lock(owner);
    match File::open(&path) {
        Ok(file) => file.lock_shared().map_err(StoreError::io("lock", &path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("open", &path)(error)),
    }
}

/// Wakes an owner; answers whether somebody was there.
pub(crate) fn wake(directory: &DataDir, owner: Epoch) -> Result<bool> {
    let path = directory.owner_wake(owner);
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW).bits() as i32;
    let mut file = match OpenOptions::new().write(true).custom_flags(flags).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_nobody(&error) => return Ok(false),
        Err(error) => return Err(StoreError::io("open", &path)(error)),
    };
    match file.write(&[1]) {
        Ok(_) => Ok(true),
        // It is full of earlier wakes: the owner has not looked yet and will.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(StoreError::io("write", &path)(error)),
    }
}

fn is_nobody(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error())
}

/// Removes the files of an owner that is gone.
pub(crate) fn remove(directory: &DataDir, owner: Epoch) {
    // What cannot be removed now is found again: by the next registration, or by `baton doctor`.
    let _ = std::fs::remove_file(directory.owner_wake(owner));
    let _ = std::fs::remove_file(directory.owner_lock(owner));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory() -> (tempfile::TempDir, DataDir) {
        let scratch = tempfile::tempdir().unwrap();
        let directory = DataDir::at(scratch.path().join(".baton"));
        directory.create().unwrap();
        (scratch, directory)
    }

    #[test]
    fn an_owner_lives_as_long_as_its_lock_is_held_and_can_be_woken() {
        let (_scratch, directory) = directory();
        assert_eq!(liveness(&directory, Epoch(1)).unwrap(), Liveness::Left);
        assert!(!wake(&directory, Epoch(1)).unwrap());
        let owner = OwnerFiles::create(&directory, Epoch(1)).unwrap();
        assert_eq!(liveness(&directory, Epoch(1)).unwrap(), Liveness::Alive);
        let mode = std::fs::metadata(directory.owner_wake(Epoch(1))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(wake(&directory, Epoch(1)).unwrap());
        let mut byte = [0u8; 8];
        assert_eq!(rustix::io::read(&owner.wake, &mut byte).unwrap(), 1);
        owner.drain();
        drop(owner);
        assert_eq!(liveness(&directory, Epoch(1)).unwrap(), Liveness::Left);
    }

    #[test]
    fn two_who_look_at_once_do_not_take_each_other_for_the_owner() {
        let (_scratch, directory) = directory();
        std::fs::write(directory.owner_lock(Epoch(4)), "").unwrap();
        let watcher = File::open(directory.owner_lock(Epoch(4))).unwrap();
        watcher.lock_shared().unwrap();
        assert_eq!(liveness(&directory, Epoch(4)).unwrap(), Liveness::Crashed);
    }

    #[test]
    fn whoever_waits_for_a_death_is_told() {
        let (_scratch, directory) = directory();
        let owner = OwnerFiles::create(&directory, Epoch(1)).unwrap();
        let waiter = std::thread::spawn({
            let directory = directory.clone();
            move || wait_for_death(&directory, Epoch(1))
        });
        drop(owner);
        waiter.join().unwrap().unwrap();
    }
}
