//! Runs a program and sees every change that it makes to the files of one folder, before and after each.
//!
//! The program is the shipped one, without hooks: it is traced from outside. Its children are not; what they do is
//! none of the journal's business.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::kernel::{self, Call, Stop};

/// A traced program that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do where tracing is forbidden.
const ADVICE: &str = "if ptrace is forbidden here (in some containers), allow it: docker run --cap-add SYS_PTRACE";

/// A longer path is none of ours.
const MAX_PATH_BYTES: usize = 4096;

/// A change to a file or folder below the watched one. Paths are relative to that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A file is opened and made where it is missing; `empty`: and emptied.
    Open {
        path: PathBuf,
        empty: bool,
    },
    /// Bytes are written. They are read from the program's memory only when they are asked for.
    Write {
        path: PathBuf,
        at: u64,
        bytes: Bytes,
    },
    /// A file is cut off or made longer.
    Resize {
        path: PathBuf,
        length: u64,
    },
    /// A file gets room, and is made longer where it is shorter.
    Allocate {
        path: PathBuf,
        length: u64,
    },
    /// Everything that was written to the file so far is made durable.
    Sync {
        path: PathBuf,
    },
    /// Everything that was made, renamed and removed in the folder is made durable.
    SyncFolder {
        path: PathBuf,
    },
    MakeFolder {
        path: PathBuf,
    },
    MakeFifo {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// A process is started.
    Start,
}

/// What is written: how much, and what, where that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bytes {
    pub length: u64,
    pub content: Vec<u8>,
}

impl Change {
    /// A word for the kind of change and, for a file, the kind of file.
    pub fn kind(&self) -> String {
        let (verb, path) = match self {
            Change::Open { path, .. } => ("open", path),
            Change::Write { path, .. } => ("write", path),
            Change::Resize { path, .. } => ("resize", path),
            Change::Allocate { path, .. } => ("allocate", path),
            Change::Sync { path } => ("sync", path),
            Change::SyncFolder { .. } => return "sync folder".to_owned(),
            Change::MakeFolder { .. } => return "make folder".to_owned(),
            Change::MakeFifo { .. } => return "make fifo".to_owned(),
            Change::Rename { to, .. } => ("rename to", to),
            Change::Remove { path } => ("remove", path),
            Change::Start => return "start process".to_owned(),
        };
        format!("{verb} {}", kind_of_file(path))
    }
}

/// What a file of the data directory is for.
pub fn kind_of_file(path: &Path) -> &'static str {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match &*name {
        "baton.db" => "database",
        "baton.db-wal" => "wal",
        "baton.db-shm" => "wal index",
        "baton.db-journal" => "rollback journal",
        "events.jsonl" => "export",
        "ballast" => "ballast",
        _ if path.starts_with("owners") => "owner file",
        _ if path.starts_with("runs") => "output",
        _ if path.starts_with("artifacts") || path.starts_with("blobs") => "artefact",
        _ => "other file",
    }
}

/// What the observer wants to happen now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// The program goes on.
    Continue,
    /// The program dies where it stands.
    Kill,
    /// Asked before a write: only its first half is done.
    Halve,
}

/// Where the program stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    Before,
    /// The change was made.
    After,
}

/// How a traced program ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It ran to its end.
    Ended,
    /// The observer wished its death.
    Killed,
}

/// Runs `command` to its end, or to the death that the observer wishes, and calls `observer` before and after each
/// change below `folder`. `keep_bytes`: whether writes come with their content.
pub fn trace(
    mut command: Command,
    folder: &Path,
    keep_bytes: bool,
    observer: &mut dyn FnMut(Moment, &Change) -> Wish,
) -> Result<Ending, String> {
    kernel::trace_me(&mut command);
    let process =
        command.spawn().map_err(|error| format!("cannot start the program under trace: {error}; {ADVICE}"))?;
    let process = process.id();
    let process = i32::try_from(process).map_err(|_| "a process number beyond all bounds")?;
    let (end, ended) = mpsc::channel::<()>();
    // The kernel's wait takes no deadline, so a second thread looks at the clock.
    let watchdog = std::thread::spawn(move || match ended.recv_timeout(PATIENCE) {
        Err(RecvTimeoutError::Timeout) => {
            kernel::kill(process);
            true
        }
        Ok(()) | Err(RecvTimeoutError::Disconnected) => false,
    });
    let mut tracer = Tracer { process, folder, keep_bytes, observer, pending: BTreeMap::new(), killed: false };
    let outcome = tracer.follow();
    if outcome.is_err() {
        kernel::kill(process);
    }
    drop(end);
    match watchdog.join() {
        Ok(false) => outcome,
        Ok(true) => Err(format!("the program did not end within {} s", PATIENCE.as_secs())),
        Err(_) => Err("the watchdog of the trace panicked".to_owned()),
    }
}

struct Tracer<'a> {
    process: i32,
    folder: &'a Path,
    keep_bytes: bool,
    observer: &'a mut dyn FnMut(Moment, &Change) -> Wish,
    /// The changes that threads are about to make.
    pending: BTreeMap<i32, Change>,
    killed: bool,
}

impl Tracer<'_> {
    fn follow(&mut self) -> Result<Ending, String> {
        let failed = |error: io::Error| format!("tracing: {error}");
        let mut is_new = true;
        loop {
            let (thread, stop) = kernel::wait().map_err(failed)?;
            let mut signal = 0;
            match stop {
                Stop::Gone if thread == self.process => {
                    return Ok(if self.killed { Ending::Killed } else { Ending::Ended });
                }
                Stop::Gone => {
                    self.pending.remove(&thread);
                    continue;
                }
                Stop::Entry(call) => self.entry(thread, &call)?,
                Stop::Exit(answer) => self.exit(thread, answer)?,
                // The program stands before its first instruction.
                Stop::Signal(libc::SIGTRAP) if is_new => {
                    is_new = false;
                    kernel::set_options(thread).map_err(failed)?;
                }
                // A new thread begins with a stop that is ours.
                Stop::Signal(libc::SIGSTOP) if thread != self.process => {}
                Stop::Signal(number) => signal = number,
                Stop::Event => {}
            }
            kernel::go_on(thread, signal).map_err(failed)?;
        }
    }

    fn wish(&mut self, moment: Moment, change: &Change) -> Wish {
        if self.killed {
            return Wish::Continue;
        }
        let wish = (self.observer)(moment, change);
        if wish == Wish::Kill {
            self.killed = true;
            // A thread that stands before a system call and is killed does not make it.
            kernel::kill(self.process);
        }
        wish
    }

    fn entry(&mut self, thread: i32, call: &Call) -> Result<(), String> {
        // Fails only where the process is being killed meanwhile.
        let Some(change) = self.change(thread, call)? else { return Ok(()) };
        if self.wish(Moment::Before, &change) == Wish::Halve
            && let Change::Write { bytes, .. } = &change
        {
            let half = bytes.length.div_ceil(2);
            kernel::set_third_argument(thread, half).map_err(|error| format!("halving a write: {error}"))?;
        }
        self.pending.insert(thread, change);
        Ok(())
    }

    fn exit(&mut self, thread: i32, answer: i64) -> Result<(), String> {
        let Some(mut change) = self.pending.remove(&thread) else { return Ok(()) };
        if answer < 0 {
            return Ok(());
        }
        if let Change::Write { bytes, .. } = &mut change {
            bytes.length = answer.unsigned_abs();
            bytes.content.truncate(usize::try_from(bytes.length).unwrap_or(usize::MAX));
        }
        self.wish(Moment::After, &change);
        Ok(())
    }

    /// The change that a call would make below the watched folder.
    fn change(&self, thread: i32, call: &Call) -> Result<Option<Change>, String> {
        let [first, second, third, fourth, ..] = call.arguments;
        let opened = |descriptor| self.opened(thread, descriptor);
        let named = |folder, name| self.named(thread, folder, name);
        const HERE: u64 = libc::AT_FDCWD as u64;
        let change = match call.number {
            libc::SYS_pwrite64 => match opened(first) {
                Some(path) => Change::Write { path, at: fourth, bytes: self.bytes(thread, second, third) },
                None => return Ok(None),
            },
            libc::SYS_write => match opened(first) {
                Some(path) => {
                    let at = self.position(thread, first, &path);
                    Change::Write { path, at, bytes: self.bytes(thread, second, third) }
                }
                None => return Ok(None),
            },
            libc::SYS_fsync | libc::SYS_fdatasync => match opened(first) {
                Some(path) if self.folder.join(&path).is_dir() => Change::SyncFolder { path },
                Some(path) => Change::Sync { path },
                None => return Ok(None),
            },
            libc::SYS_ftruncate => match opened(first) {
                Some(path) => Change::Resize { path, length: second },
                None => return Ok(None),
            },
            libc::SYS_fallocate => match opened(first) {
                Some(path) if second == 0 => Change::Allocate { path, length: third + fourth },
                Some(path) => return Err(unknown("fallocate with flags", &path)),
                None => return Ok(None),
            },
            libc::SYS_openat => match named(first, second) {
                Some(path) if third & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0 => {
                    Change::Open { path, empty: third & libc::O_TRUNC as u64 != 0 }
                }
                _ => return Ok(None),
            },
            libc::SYS_mkdirat => match named(first, second) {
                Some(path) => Change::MakeFolder { path },
                None => return Ok(None),
            },
            libc::SYS_mknodat => match named(first, second) {
                Some(path) => Change::MakeFifo { path },
                None => return Ok(None),
            },
            libc::SYS_unlinkat => match named(first, second) {
                Some(path) => Change::Remove { path },
                None => return Ok(None),
            },
            libc::SYS_renameat | libc::SYS_renameat2 => match (named(first, second), named(third, fourth)) {
                (Some(from), Some(to)) => Change::Rename { from, to },
                (None, None) => return Ok(None),
                (from, to) => return Err(unknown("rename across the border", &from.or(to).unwrap_or_default())),
            },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => match named(HERE, first) {
                Some(path) if second & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0 => {
                    Change::Open { path, empty: second & libc::O_TRUNC as u64 != 0 }
                }
                _ => return Ok(None),
            },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mkdir => match named(HERE, first) {
                Some(path) => Change::MakeFolder { path },
                None => return Ok(None),
            },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_unlink | libc::SYS_rmdir => match named(HERE, first) {
                Some(path) => Change::Remove { path },
                None => return Ok(None),
            },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => match (named(HERE, first), named(HERE, second)) {
                (Some(from), Some(to)) => Change::Rename { from, to },
                (None, None) => return Ok(None),
                (from, to) => return Err(unknown("rename across the border", &from.or(to).unwrap_or_default())),
            },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_vfork | libc::SYS_fork => Change::Start,
            libc::SYS_clone if first & libc::CLONE_THREAD as u64 == 0 => Change::Start,
            libc::SYS_clone3 if self.flags(thread, first) & libc::CLONE_THREAD as u64 == 0 => Change::Start,
            // What the model of the disk does not know may not pass unseen.
            libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 | libc::SYS_sync_file_range => {
                return self.refuse("a vectored write or partial sync", opened(first));
            }
            libc::SYS_sendfile => return self.refuse("sendfile", opened(first)),
            libc::SYS_copy_file_range | libc::SYS_splice => return self.refuse("a copy in the kernel", opened(third)),
            libc::SYS_linkat | libc::SYS_symlinkat => return self.refuse("a link", named(third, fourth)),
            libc::SYS_truncate => return self.refuse("truncate", named(HERE, first)),
            libc::SYS_openat2 => return self.refuse("openat2", named(first, second)),
            libc::SYS_io_uring_enter => return Err("the program uses io_uring, which the tracer cannot see".to_owned()),
            // Shared and writable: only the WAL's index, which is made anew after a crash, may be changed unseen.
            libc::SYS_mmap if third & libc::PROT_WRITE as u64 != 0 && fourth & libc::MAP_SHARED as u64 != 0 => {
                match opened(call.arguments[4]) {
                    Some(path) if kind_of_file(&path) != "wal index" => return Err(unknown("mmap", &path)),
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(change))
    }

    fn refuse(&self, what: &str, path: Option<PathBuf>) -> Result<Option<Change>, String> {
        match path {
            Some(path) => Err(unknown(what, &path)),
            None => Ok(None),
        }
    }

    /// The path of an open file, if it lies below the watched folder.
    fn opened(&self, thread: i32, descriptor: u64) -> Option<PathBuf> {
        let path = fs::read_link(format!("/proc/{thread}/fd/{}", descriptor as i32)).ok()?;
        Some(path.strip_prefix(self.folder).ok()?.to_path_buf())
    }

    /// The path that a name in a folder stands for, if it lies below the watched folder.
    fn named(&self, thread: i32, folder: u64, name: u64) -> Option<PathBuf> {
        let mut bytes = vec![0; MAX_PATH_BYTES];
        let mut length = 0;
        // The name may end just before memory that cannot be read, so it is read page by page.
        while length < bytes.len() && !bytes[..length].contains(&0) {
            let at = name + length as u64;
            let part = (PAGE_BYTES - (at as usize % PAGE_BYTES)).min(bytes.len() - length);
            length += kernel::read_memory(thread, at, &mut bytes[length..length + part]).ok()?;
        }
        let end = bytes[..length].iter().position(|byte| *byte == 0)?;
        let name = PathBuf::from(std::ffi::OsStr::from_bytes(&bytes[..end]));
        let base = match folder as i32 {
            _ if name.is_absolute() => PathBuf::new(),
            libc::AT_FDCWD => fs::read_link(format!("/proc/{thread}/cwd")).ok()?,
            descriptor => fs::read_link(format!("/proc/{thread}/fd/{descriptor}")).ok()?,
        };
        Some(base.join(name).strip_prefix(self.folder).ok()?.to_path_buf())
    }

    /// Where a plain write goes: to the descriptor's position, or to the file's end.
    fn position(&self, thread: i32, descriptor: u64, path: &Path) -> u64 {
        let facts = fs::read_to_string(format!("/proc/{thread}/fdinfo/{}", descriptor as i32)).unwrap_or_default();
        let field = |name: &str| facts.lines().find_map(|line| line.strip_prefix(name)).map_or("0", str::trim);
        let flags = i32::from_str_radix(field("flags:"), 8).unwrap_or(0);
        if flags & libc::O_APPEND != 0 {
            fs::metadata(self.folder.join(path)).map_or(0, |facts| facts.len())
        } else {
            field("pos:").parse().unwrap_or(0)
        }
    }

    fn bytes(&self, thread: i32, address: u64, length: u64) -> Bytes {
        let mut content = Vec::new();
        if self.keep_bytes {
            content.resize(usize::try_from(length).unwrap_or(0), 0);
            let count = kernel::read_memory(thread, address, &mut content).unwrap_or(0);
            content.truncate(count);
        }
        Bytes { length, content }
    }

    /// The flags of a `clone3`, which begin the structure it is given.
    fn flags(&self, thread: i32, address: u64) -> u64 {
        let mut bytes = [0; 8];
        match kernel::read_memory(thread, address, &mut bytes) {
            Ok(_) => u64::from_ne_bytes(bytes),
            Err(_) => 0,
        }
    }
}

const PAGE_BYTES: usize = 4096;

fn unknown(what: &str, path: &Path) -> String {
    format!("the program uses {what} on `{}`, which the harness does not know; teach it to tracer.rs", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a script in a fresh folder; answers with what is in the file `f` then, and what was seen.
    fn script(text: &str, wish: &dyn Fn(Moment, &Change) -> Wish) -> (Option<String>, Vec<String>, Ending) {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().canonicalize().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]).current_dir(&folder);
        let mut seen = Vec::new();
        let ending = trace(command, &folder, true, &mut |moment, change| {
            if moment == Moment::After {
                seen.push(match change {
                    Change::Write { path, at, bytes } => {
                        format!("{} {at} {}", path.display(), String::from_utf8_lossy(&bytes.content))
                    }
                    other => format!("{other:?}"),
                });
            }
            wish(moment, change)
        });
        (fs::read_to_string(folder.join("f")).ok(), seen, ending.unwrap())
    }

    fn is_write(change: &Change) -> bool {
        matches!(change, Change::Write { .. })
    }

    #[test]
    fn what_a_program_changes_is_seen_with_place_and_content() {
        let (file, seen, ending) = script("printf one > f; printf two >> f", &|_, _| Wish::Continue);
        assert_eq!(file.as_deref(), Some("onetwo"));
        assert_eq!(ending, Ending::Ended);
        let open = |empty| format!("{:?}", Change::Open { path: "f".into(), empty });
        assert_eq!(seen, [open(true), "f 0 one".to_owned(), open(false), "f 3 two".to_owned()]);
    }

    #[test]
    fn a_program_that_is_killed_before_a_write_does_not_write() {
        let wish = |moment, change: &Change| {
            if moment == Moment::Before && is_write(change) { Wish::Kill } else { Wish::Continue }
        };
        let (file, _, ending) = script("printf one > f; printf two >> f", &wish);
        assert_eq!((file.as_deref(), ending), (Some(""), Ending::Killed));
    }

    #[test]
    fn a_program_that_is_killed_after_a_write_has_written_and_does_no_more() {
        let wish = |moment, change: &Change| {
            if moment == Moment::After && is_write(change) { Wish::Kill } else { Wish::Continue }
        };
        let (file, _, ending) = script("printf one > f; printf two >> f", &wish);
        assert_eq!((file.as_deref(), ending), (Some("one"), Ending::Killed));
    }

    #[test]
    fn a_write_can_be_torn() {
        let wish = |moment, change: &Change| match (moment, is_write(change)) {
            (Moment::Before, true) => Wish::Halve,
            (Moment::After, true) => Wish::Kill,
            _ => Wish::Continue,
        };
        let (file, seen, ending) = script("printf 0123456789 > f", &wish);
        assert_eq!((file.as_deref(), ending), (Some("01234"), Ending::Killed));
        assert_eq!(seen.last().map(String::as_str), Some("f 0 01234"));
    }
}
