//! The few kernel calls behind the tracer: ptrace, and waiting for what this thread alone traces.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Why a traced thread stands still.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// It is about to make a system call.
    Entry(Call),
    /// It has made one; the answer, negative for an error.
    Exit(i64),
    /// It was sent a signal, or became another program.
    Signal(i32),
    /// It made a thread.
    Event,
    /// It is gone.
    Gone,
}

/// A system call and its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: i64,
    pub arguments: [u64; 6],
}

/// Makes the command a program that is traced by the thread that starts it, and that dies when that thread dies.
pub fn trace_me(command: &mut Command) {
    // SAFETY: between fork and exec only one system call is made, which touches no memory.
    unsafe {
        command.pre_exec(|| {
            if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
}

/// Asks for what the tracer wants to see of a thread that stands still; threads that it makes inherit this.
pub fn set_options(thread: i32) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
    request(libc::PTRACE_SETOPTIONS, thread, 0, options as usize).map(drop)
}

/// Lets a thread go on to its next system call, with a signal or with 0.
pub fn go_on(thread: i32, signal: i32) -> io::Result<()> {
    match request(libc::PTRACE_SYSCALL, thread, 0, signal as usize) {
        // It was killed meanwhile; the next wait says so.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(drop),
    }
}

/// Waits until any thread that this thread traces stands still or is gone.
pub fn wait() -> io::Result<(i32, Stop)> {
    let mut status = 0;
    let thread = loop {
        // SAFETY: writes one integer that is ours. `__WNOTHREAD` leaves alone what other threads trace.
        let thread = unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::__WNOTHREAD) };
        if thread != -1 {
            break thread;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    if !libc::WIFSTOPPED(status) {
        return Ok((thread, Stop::Gone));
    }
    let signal = libc::WSTOPSIG(status);
    if signal == libc::SIGTRAP | 0x80 {
        return Ok((thread, system_call(thread)?));
    }
    if signal == libc::SIGTRAP && status >> 16 != 0 {
        return Ok((thread, Stop::Event));
    }
    Ok((thread, Stop::Signal(signal)))
}

fn system_call(thread: i32) -> io::Result<Stop> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = std::mem::size_of::<libc::ptrace_syscall_info>();
    match request(libc::PTRACE_GET_SYSCALL_INFO, thread, size, info.as_mut_ptr() as usize) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(Stop::Event),
        other => other.map(drop)?,
    }
    // SAFETY: all zeros is a valid value; the kernel filled in the part that `op` names.
    unsafe {
        let info = info.assume_init();
        Ok(match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => {
                Stop::Entry(Call { number: info.u.entry.nr as i64, arguments: info.u.entry.args })
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => Stop::Exit(info.u.exit.sval),
            _ => Stop::Event,
        })
    }
}

/// Reads the memory of a thread that stands still.
pub fn read_memory(thread: i32, address: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the kernel writes at most `bytes.len()` bytes into `bytes`, and checks the other side's addresses.
    let count = unsafe { libc::process_vm_readv(thread, &local, 1, &remote, 1, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Changes the third argument of the system call that a thread is about to make: how many bytes it writes.
pub fn set_third_argument(thread: i32, value: u64) -> io::Result<()> {
    let mut registers = MaybeUninit::<libc::user_regs_struct>::zeroed();
    let mut part =
        libc::iovec { iov_base: registers.as_mut_ptr().cast(), iov_len: std::mem::size_of::<libc::user_regs_struct>() };
    let part = &raw mut part as usize;
    request(libc::PTRACE_GETREGSET, thread, NT_PRSTATUS, part)?;
    // SAFETY: all zeros is a valid value, and the kernel has just filled it in; `part` still points at it.
    unsafe {
        let registers = &mut *registers.as_mut_ptr();
        #[cfg(target_arch = "x86_64")]
        {
            registers.rdx = value;
        }
        #[cfg(target_arch = "aarch64")]
        {
            registers.regs[2] = value;
        }
    }
    request(libc::PTRACE_SETREGSET, thread, NT_PRSTATUS, part).map(drop)
}

/// The set of general registers.
const NT_PRSTATUS: usize = 1;

/// Ends a whole process at once.
pub fn kill(process: i32) {
    // SAFETY: touches no memory. A process that is gone already is what was wanted.
    unsafe { libc::kill(process, libc::SIGKILL) };
}

fn request(request: libc::c_uint, thread: i32, address: usize, data: usize) -> io::Result<i64> {
    // SAFETY: callers pass as `data` what `request` wants: a number, or the address of a structure of ours of the
    // right type that outlives the call.
    let answer = unsafe { libc::ptrace(request, thread, address, data) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Makes this process deaf to the polite request to end.
pub fn ignore_terminate() {
    // SAFETY: sets a disposition that runs no code of ours.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}

/// Waits for the end of a child, without taking its end away; answers whether it came in time.
pub fn wait_for_end(process: u32, patience: std::time::Duration) -> Result<bool, String> {
    let failed = |what: &str| format!("{what}: {}", io::Error::last_os_error());
    // SAFETY: opens a descriptor for a child that is not reaped; it is closed below.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let descriptor = i32::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0);
    let descriptor = descriptor.ok_or_else(|| failed("pidfd_open"))?;
    let mut wanted = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, ours, and the descriptor is open until the `close`.
    let count = unsafe {
        let count = libc::poll(&mut wanted, 1, patience.as_millis() as libc::c_int);
        libc::close(descriptor);
        count
    };
    if count < 0 { Err(failed("poll")) } else { Ok(count > 0) }
}
