//! Linux: clone, pidfd, child subreaper, control groups, `/proc`.

mod cgroup;
mod raw;
mod table;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{self, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

pub(crate) use cgroup::{
    Cgroup, cgroup_tree, cgroups_in, kill_cgroup, members_of_cgroup, own_cgroup, remove_cgroup,
    remove_ownerless_cgroup, wait_for_cgroups,
};
pub(crate) use raw::{
    CaughtSignals, Poll, SpawnError, Spawner, Start, keep_descriptors_from_children, prepare_signals,
};
pub(crate) use table::{
    Children, OomCounter, ProcessInfo, environ_of, info_of, look_at, mark_of, processes, standard_streams_of,
};

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    Code(i32),
    Signal { signal: i32, core_dumped: bool },
}

/// A process that cannot be mistaken for a later one with the same number.
pub(crate) struct ProcessHandle(OwnedFd);

impl ProcessHandle {
    /// Opens the process that has this number now.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let pid = number(pid).ok_or(Errno::SRCH)?;
        Ok(Self(process::pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// The process that this pidfd was opened for.
    pub(crate) fn from_pidfd(pidfd: OwnedFd) -> Self {
        Self(pidfd)
    }

    /// Sends a signal; `false`: the process has ended.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        process::pidfd_send_signal(&self.0, signal).is_ok()
    }

    /// Whether it has ended (it may still be a zombie).
    pub(crate) fn has_ended(&self) -> bool {
        self.wait_until_ended(std::time::Duration::ZERO)
    }

    /// Waits until it has ended, at most this long; says whether it has.
    pub(crate) fn wait_until_ended(&self, timeout: std::time::Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let deadline = std::time::Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => {}
                Err(_) => return false,
                Ok(ready) => return ready > 0,
            }
        }
    }
}

impl AsFd for ProcessHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn number(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Sends a signal to a child that has not been reaped, so that its number is still its own.
pub(crate) fn unreaped_signal(pid: u32, signal: Signal) {
    if let Some(pid) = number(pid) {
        // A zombie takes no signal, and needs none.
        let _ = process::kill_process(pid, signal);
    }
}

/// Whether a process may be sent signals by this one.
pub(crate) fn may_signal(pid: u32) -> bool {
    number(pid).is_some_and(|pid| process::test_kill_process(pid) != Err(Errno::PERM))
}

/// Sends a signal to the process group of a child that has not been reaped.
pub(crate) fn group_signal(pid: u32, signal: Signal) {
    if let Some(pid) = number(pid) {
        // Every member may be a zombie already.
        let _ = process::kill_process_group(pid, signal);
    }
}

/// What came of an attempt to reap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reaped {
    /// It still lives.
    Alive,
    /// It has ended, and its number may be given to another now.
    Ended(Exit),
    /// It is no child of ours any more: somebody else has reaped it.
    NotOurs,
}

/// Takes the end of a child of this process, if it has ended.
pub(crate) fn reap(pid: u32) -> Reaped {
    wait_for(pid, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

/// Takes the end of a child that was killed a moment ago.
pub(crate) fn reap_killed(pid: u32) {
    wait_for(pid, WaitIdOptions::EXITED);
}

/// Takes the end of a child if it has ended; says whether it still lives.
pub(crate) fn reap_unless_alive(pid: u32) -> bool {
    reap(pid) == Reaped::Alive
}

fn wait_for(pid: u32, options: WaitIdOptions) -> Reaped {
    let Some(pid) = number(pid) else { return Reaped::NotOurs };
    loop {
        return match process::waitid(WaitId::Pid(pid), options) {
            Err(Errno::INTR) => continue,
            Err(_) => Reaped::NotOurs,
            Ok(None) => Reaped::Alive,
            Ok(Some(status)) => Reaped::Ended(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, signal) => Exit::Signal { signal: signal.unwrap_or(0), core_dumped: status.dumped() },
            }),
        };
    }
}

/// Makes every orphan among this process's descendants a child of this process.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(process::set_child_subreaper(Some(process::getpid()))?)
}

/// The process group of this process.
pub(crate) fn own_group() -> u32 {
    process::getpgrp().as_raw_nonzero().get().unsigned_abs()
}

/// Lets this process have as many open files as the system allows it.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Fewer are enough for most; running out of them is handled where it happens.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// A file without a name that holds these bytes, to be read from its beginning.
pub(crate) fn stdin_from(bytes: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let mut file = File::from(memfd_create("baton-stdin", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// Reads a whole small file of `/proc`, at most `limit` bytes.
fn read_limited(path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
