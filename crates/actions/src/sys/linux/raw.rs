//! The only unsafe code: posix_spawn, signal handlers, and registering descriptors with a poller.
#![expect(
    unsafe_code,
    reason = "posix_spawn and sigaction have no safe face, and a poller cannot see how long a descriptor lives"
)]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use polling::{Event, Events, PollMode, Poller};
use rustix::io::Errno;

use crate::sys::StringBlock;

/// Starts processes: the attributes that all share, prepared once.
pub(crate) struct Spawner {
    attributes: Box<libc::posix_spawnattr_t>,
}

impl Spawner {
    /// Prepares: a process group of its own, no signal blocked, every signal at its default.
    pub(crate) fn new() -> io::Result<Self> {
        let mut attributes = Box::new(MaybeUninit::<libc::posix_spawnattr_t>::uninit());
        // SAFETY: `init` fills the memory it is given, and everything after it takes initialised attributes.
        // The signal sets are filled by `sigemptyset` before they are read.
        unsafe {
            check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            let mut attributes = attributes.assume_init();
            let mut none = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            let none = none.assume_init();
            check(libc::posix_spawnattr_setsigmask(&raw mut *attributes, &none))?;
            // A handler is dropped by exec itself; only what is *ignored* is inherited. Naming just those spares
            // the child a system call for each of 64 signals.
            let mut ignored = none;
            libc::sigaddset(&mut ignored, libc::SIGPIPE);
            for signal in 1..libc::SIGRTMAX() {
                let mut now = MaybeUninit::<libc::sigaction>::zeroed();
                if libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) == 0
                    && now.assume_init().sa_sigaction == libc::SIG_IGN
                {
                    libc::sigaddset(&mut ignored, signal);
                }
            }
            check(libc::posix_spawnattr_setsigdefault(&raw mut *attributes, &ignored))?;
            check(libc::posix_spawnattr_setpgroup(&raw mut *attributes, 0))?;
            // A session of its own would also keep a child from waiting for a terminal, but it makes the kernel
            // schedule each child as a group of its own (autogroup): that halved the steps per second.
            let flags = libc::POSIX_SPAWN_SETPGROUP | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
            check(libc::posix_spawnattr_setflags(&raw mut *attributes, flags as libc::c_short))?;
            Ok(Self { attributes })
        }
    }

    /// Starts `program` in `folder`. Its standard output and error are one and the same `output`.
    pub(crate) fn spawn(
        &self,
        program: &CStr,
        arguments: &mut StringBlock,
        environment: &mut StringBlock,
        folder: &CStr,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
    ) -> Result<u32, Errno> {
        let mut actions = FileActions::new()?;
        actions.change_folder(folder)?;
        actions.duplicate(input, 0)?;
        actions.duplicate(output, 1)?;
        actions.duplicate(output, 2)?;
        let mut pid: libc::pid_t = 0;
        // SAFETY: the attributes and actions are initialised; both blocks end with a null pointer and their
        // strings with NUL, and all of it stays where it is until the call returns (vfork: the child has then
        // replaced its memory, or ended).
        let result = unsafe {
            libc::posix_spawn(
                &mut pid,
                program.as_ptr(),
                &actions.0,
                &*self.attributes,
                arguments.pointers().as_ptr(),
                environment.pointers().as_ptr(),
            )
        };
        if result == 0 { Ok(pid.unsigned_abs()) } else { Err(Errno::from_raw_os_error(result)) }
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, and not used after this.
        unsafe { libc::posix_spawnattr_destroy(&raw mut *self.attributes) };
    }
}

struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new() -> Result<Self, Errno> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: `init` fills the memory; it is taken as initialised only when it says so. The structure holds
        // no pointer into itself, so that it may be moved.
        unsafe {
            check_errno(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            Ok(Self(actions.assume_init()))
        }
    }

    fn change_folder(&mut self, folder: &CStr) -> Result<(), Errno> {
        // SAFETY: initialised; the path is copied.
        check_errno(unsafe { libc::posix_spawn_file_actions_addchdir_np(&mut self.0, folder.as_ptr()) })
    }

    fn duplicate(&mut self, from: BorrowedFd<'_>, to: i32) -> Result<(), Errno> {
        // SAFETY: initialised; both numbers are those of descriptors, open until the spawn is done.
        check_errno(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, from.as_raw_fd(), to) })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, and not used after this.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    check_errno(result).map_err(io::Error::from)
}

fn check_errno(result: libc::c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(result)) }
}

/// Closes, in every program started from now on, what this process had open by then, but for the standard streams.
pub(crate) fn keep_descriptors_from_children() {
    // SAFETY: only sets a flag on descriptors. A kernel before 5.11 refuses the flag; then only descriptors that
    // our own parent left open without it reach the children, as with any other program.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// The poller of one host. Readable descriptors are reported again and again until they are read empty.
pub(crate) struct Poll {
    poller: Arc<Poller>,
    events: Events,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { poller: Arc::new(Poller::new()?), events: Events::new() })
    }

    pub(crate) fn poller(&self) -> &Arc<Poller> {
        &self.poller
    }

    /// Reports `source` under `key` while it is readable. The caller keeps it open until it calls [`Poll::forget`]:
    /// the kernel drops a registration by itself when the last copy of a descriptor is closed, so a forgotten one
    /// does no harm beyond a report under a key that means nothing any more.
    pub(crate) fn watch(&self, source: BorrowedFd<'_>, key: usize) -> io::Result<()> {
        // SAFETY: the descriptor is open now, and epoll asks for no more (see above).
        unsafe { self.poller.add_with_mode(source.as_raw_fd(), Event::readable(key), PollMode::Level) }
    }

    /// Ends the reports of `source`.
    pub(crate) fn forget(&self, source: BorrowedFd<'_>) {
        // It was registered by us and is open, so this cannot fail in a way that matters.
        let _ = self.poller.delete(source);
    }

    /// Waits, and hands out the keys that have something to report.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, keys: &mut Vec<usize>) -> io::Result<()> {
        self.events.clear();
        self.poller.wait(&mut self.events, timeout)?;
        keys.extend(self.events.iter().map(|event| event.key));
        Ok(())
    }
}

/// A closed pipe is an error to handle, not a death; and a parent that ignored SIGCHLD must not make the kernel throw
/// away how our children end.
pub(crate) fn prepare_signals() -> io::Result<()> {
    for (signal, action) in [(libc::SIGPIPE, libc::SIG_IGN), (libc::SIGCHLD, libc::SIG_DFL)] {
        // SAFETY: sets a disposition that runs no code of ours.
        if unsafe { libc::signal(signal, action) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

static CAUGHT_SIGNALS: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note_signal(signal: libc::c_int) {
    let pipe = CAUGHT_SIGNALS.load(Ordering::Relaxed);
    let byte = signal as u8;
    // SAFETY: `write` may be called in a handler; the descriptor is never closed once it is published; `errno` is
    // put back because the code that was interrupted may be about to read it.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(pipe, (&raw const byte).cast(), 1);
        *errno = before;
    }
}

/// Signals to this process, as bytes that can be waited for together with everything else.
pub(crate) struct CaughtSignals {
    reader: OwnedFd,
}

impl CaughtSignals {
    /// From now on INT, TERM and HUP do nothing but appear here, each as often as it was sent. HUP stays ignored
    /// where it was (`nohup`). One per process: a second one takes over from the first.
    pub(crate) fn catch() -> io::Result<Self> {
        use rustix::pipe::{PipeFlags, pipe_with};
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Never closed: a handler may be about to write to it on another thread.
        CAUGHT_SIGNALS.store(std::os::fd::IntoRawFd::into_raw_fd(writer), Ordering::SeqCst);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: zeroed is a valid `sigaction`; the handler only calls what a handler may call.
            unsafe {
                let mut before = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
                libc::sigaction(signal, std::ptr::null(), &mut before);
                if signal == libc::SIGHUP && before.sa_sigaction == libc::SIG_IGN {
                    continue;
                }
                let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
                action.sa_sigaction = note_signal as extern "C" fn(libc::c_int) as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigemptyset(&mut action.sa_mask);
                if libc::sigaction(signal, &action, std::ptr::null_mut()) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        Ok(Self { reader })
    }

    /// The signals that came since the last call, in order.
    pub(crate) fn take(&self) -> Vec<i32> {
        let mut bytes = [0u8; 64];
        let count = rustix::io::read(&self.reader, &mut bytes[..]).unwrap_or(0);
        bytes[..count].iter().map(|byte| i32::from(*byte)).collect()
    }
}

impl AsFd for CaughtSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
