//! The only unsafe code: starting a process, signal handlers, and registering descriptors with a poller.
#![expect(
    unsafe_code,
    reason = "clone, clone3 and sigaction have no safe face, and a poller cannot see how long a descriptor lives"
)]

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use polling::{Event, Events, PollMode, Poller};
use rustix::io::Errno;

use crate::mark::Mark;
use crate::sys::StringBlock;

/// How much stack a child has before its own program runs: the few calls below need far less.
const CHILD_STACK_BYTES: usize = 64 * 1024;

/// Starts processes.
///
/// This is what posix_spawn does (a child that borrows our memory while we stand still, until it is another program),
/// without what makes the C library's version slower: it asks for each of 64 signals, maps a new stack each time,
/// and cannot hand out a pidfd. About 5 % more steps a second, and a start that finds no descriptor for the pidfd
/// fails before there is a process.
///
/// A child that shall be in a control group is born there. To move it there afterwards costs milliseconds: the kernel
/// waits until every processor has taken notice.
pub(crate) struct Spawner {
    stack: Box<[MaybeUninit<u8>]>,
    /// Signals that this process ignores or catches, which a new program expects to be at their default.
    to_default: Vec<libc::c_int>,
}

/// What to start.
pub(crate) struct Start<'a> {
    /// The file.
    pub(crate) program: &'a CStr,
    pub(crate) arguments: &'a mut StringBlock,
    pub(crate) environment: &'a mut StringBlock,
    pub(crate) folder: &'a CStr,
    pub(crate) input: BorrowedFd<'a>,
    pub(crate) output: BorrowedFd<'a>,
    pub(crate) mark: Mark,
    /// The control group that it is born in; `None`: ours.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// Why there is no process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SpawnError {
    /// The kernel does not let one be born.
    Unborn(Errno),
    /// It was born, and could not become the program.
    NoProgram(Errno),
}

/// What the child is to do, and what went wrong.
struct Order {
    program: *const libc::c_char,
    arguments: *const *mut libc::c_char,
    environment: *const *mut libc::c_char,
    folder: *const libc::c_char,
    input: libc::c_int,
    output: libc::c_int,
    to_default: *const [libc::c_int],
    mark: libc::rlimit,
    errno: libc::c_int,
}

/// Runs in the child, on a stack of its own, in the memory of the parent. It may only make system calls: no memory may
/// be allocated, no lock taken, nothing may panic.
extern "C" fn become_program(order: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `order` is the parent's, which waits until this child has ended or has become its program. All
    // pointers in it were made from values that live until then.
    unsafe {
        let order = order.cast::<Order>();
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        // Where a lower limit is in force already, the child goes without.
        libc::setrlimit(libc::RLIMIT_RTTIME, &raw const (*order).mark);
        // A session of its own would also keep a child from waiting for a terminal, but it makes the kernel schedule
        // each child as a group of its own (autogroup): that halved the steps per second.
        let in_group = libc::setpgid(0, 0) == 0;
        // A signal to the parent's group before this point (a terminal's, or that of `timeout`) was not meant for the
        // step. To ignore a signal discards one that is pending.
        let to_default = (*order).to_default;
        let mut at = to_default.cast::<libc::c_int>();
        let end = at.add(to_default.len());
        while at != end {
            action.sa_sigaction = libc::SIG_IGN;
            libc::sigaction(*at, &action, std::ptr::null_mut());
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(*at, &action, std::ptr::null_mut());
            at = at.add(1);
        }
        if in_group
            && libc::chdir((*order).folder) == 0
            && libc::dup2((*order).input, 0) >= 0
            && libc::dup2((*order).output, 1) >= 0
            && libc::dup2((*order).output, 2) >= 0
        {
            // All signals were blocked by the parent, so that none of its handlers runs here.
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigprocmask(libc::SIG_SETMASK, &action.sa_mask, std::ptr::null_mut());
            libc::execve((*order).program, (*order).arguments.cast(), (*order).environment.cast());
        }
        (*order).errno = *libc::__errno_location();
        libc::_exit(127)
    }
}

impl Spawner {
    /// Prepares. Signals that are caught later are to be caught by [`CaughtSignals`], which are known here.
    pub(crate) fn new() -> Self {
        let mut to_default = vec![libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE];
        for signal in 1..libc::SIGRTMAX() {
            let mut now = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: only asks, and fills what it is given where it answers 0; zeroed is a valid `sigaction`.
            let action = unsafe {
                libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr());
                now.assume_init()
            };
            if action.sa_sigaction == libc::SIG_IGN && !to_default.contains(&signal) {
                to_default.push(signal);
            }
        }
        Self { stack: Box::new_uninit_slice(CHILD_STACK_BYTES), to_default }
    }

    /// Starts a program as the leader of a process group, with no signal blocked and each at its default. Its standard
    /// output and error are one and the same `output`. An error: there is no process.
    pub(crate) fn spawn(&mut self, start: Start<'_>) -> Result<(u32, OwnedFd), SpawnError> {
        let mut order = Order {
            program: start.program.as_ptr(),
            arguments: start.arguments.pointers().as_ptr(),
            environment: start.environment.pointers().as_ptr(),
            folder: start.folder.as_ptr(),
            input: start.input.as_raw_fd(),
            output: start.output.as_raw_fd(),
            to_default: &raw const *self.to_default,
            mark: libc::rlimit { rlim_cur: start.mark.limit(), rlim_max: start.mark.limit() },
            errno: 0,
        };
        let mut pidfd: libc::c_int = -1;
        // SAFETY: the child runs `become_program` on a stack that nothing else uses (`&mut self`), whose end is
        // aligned as the ABI wants it. VFORK: this thread stands still until the child does not need our memory any
        // more, so `order` and all it points to outlive its use. All signals are blocked meanwhile: a handler in the
        // child would run with our memory. The mask is put back on every path.
        let born = unsafe {
            let mut all = MaybeUninit::<libc::sigset_t>::uninit();
            let mut before = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            let bottom = self.stack.as_mut_ptr();
            let top = bottom.add(self.stack.len());
            let stack = bottom..top.sub(top.addr() % 16);
            let born = match start.cgroup {
                None => clone_here(stack, &raw mut order, &raw mut pidfd),
                Some(cgroup) => clone_into(cgroup, stack, &raw mut order, &raw mut pidfd),
            };
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
            born
        };
        let pid = born.map_err(SpawnError::Unborn)?;
        // SAFETY: the kernel has opened it for us, and nobody else knows of it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        if order.errno != 0 {
            super::reap_killed(pid);
            return Err(SpawnError::NoProgram(Errno::from_raw_os_error(order.errno)));
        }
        Ok((pid, pidfd))
    }
}

/// How a child comes to be: in our memory, while we stand still, with a pidfd.
const BIRTH: libc::c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;

/// The stack of a child: from its lowest byte to the end at which it begins.
type ChildStack = std::ops::Range<*mut MaybeUninit<u8>>;

/// Gives birth to a child in our own control group; its number.
///
/// # Safety
/// All signals are blocked, nothing else uses `stack`, its end is aligned to 16 bytes, and `order` is as
/// [`become_program`] wants it.
unsafe fn clone_here(stack: ChildStack, order: *mut Order, pidfd: *mut libc::c_int) -> Result<u32, Errno> {
    // SAFETY: as the caller promises.
    unsafe {
        match libc::clone(become_program, stack.end.cast(), BIRTH | libc::SIGCHLD, order.cast(), pidfd) {
            failed if failed < 0 => Err(Errno::from_raw_os_error(*libc::__errno_location())),
            pid => Ok(pid.unsigned_abs()),
        }
    }
}

/// Gives birth to a child in a control group; its number.
///
/// Only `clone3` can do that, and the C library has no function for it. The bare system call cannot be made from Rust:
/// the child would come back from it on a stack without the frames that it comes back to. So the call and
/// the first step of the child are a few instructions of our own, which the child never leaves.
///
/// # Safety
/// As for [`clone_here`].
#[cfg(target_arch = "x86_64")]
unsafe fn clone_into(
    cgroup: BorrowedFd<'_>,
    stack: ChildStack,
    order: *mut Order,
    pidfd: *mut libc::c_int,
) -> Result<u32, Errno> {
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let arguments = libc::clone_args {
        flags: u64::from(BIRTH.unsigned_abs()) | INTO_CGROUP,
        pidfd: pidfd.expose_provenance() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: stack.start.expose_provenance() as u64,
        stack_size: (stack.end.addr() - stack.start.addr()) as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
    };
    let answer: isize;
    // SAFETY: a system call takes all its arguments in registers, keeps all registers but three, and may write to the
    // memory that `arguments` names, which is ours. The child begins behind the call with these same registers and an
    // empty stack; it calls `become_program`, which never returns. What the caller promises does the rest.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r8",
            "call {become_program}",
            "ud2",
            "2:",
            become_program = sym become_program,
            inlateout("rax") libc::SYS_clone3 as isize => answer,
            in("rdi") &raw const arguments,
            in("rsi") size_of::<libc::clone_args>(),
            in("r8") order,
            out("rcx") _,
            out("r11") _,
        );
    }
    match u32::try_from(answer) {
        Ok(pid) => Ok(pid),
        Err(_) => Err(Errno::from_raw_os_error(i32::try_from(-answer).unwrap_or(libc::EINVAL))),
    }
}

/// On other processors nobody has tried it yet.
///
/// # Safety
/// Does nothing.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn clone_into(_: BorrowedFd<'_>, _: ChildStack, _: *mut Order, _: *mut libc::c_int) -> Result<u32, Errno> {
    Err(Errno::NOSYS)
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
