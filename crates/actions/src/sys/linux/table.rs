//! What `/proc` says about processes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::read_limited;
use crate::mark::Mark;

/// The largest environment of another process that is looked at.
const ENVIRON_BYTES: u64 = 4 * 1024 * 1024;
/// More than the longest `/proc/<pid>/stat`.
const STAT_BYTES: u64 = 4096;

/// What is known of one process at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ProcessInfo {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    /// One letter: `R`, `S`, `D`, `T`, `Z`, …
    pub(crate) state: char,
    /// Clock ticks from boot to its start: with the number, the process's name for ever.
    pub(crate) started: u64,
    pub(crate) name: String,
}

impl ProcessInfo {
    /// Whether it has ended and only waits to be reaped.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// Whether it waits in the kernel where no signal reaches it.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.state == 'D'
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // The name stands in parentheses and may hold any byte, parentheses too: it ends at the last one.
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let pid = std::str::from_utf8(&text[..open]).ok()?.trim().parse().ok()?;
        let name = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().unwrap_or(0);
        // Field 22 of the line; three of the fields after the name are taken.
        let started = fields.nth(16)?.parse().ok()?;
        Some(Self { pid, parent, group, state, started, name })
    }
}

/// One process, if it exists and may be seen. An error: there is no room to look just now.
pub(crate) fn look_at(pid: u32) -> io::Result<Option<ProcessInfo>> {
    match read_limited(format!("/proc/{pid}/stat"), STAT_BYTES) {
        Ok(text) => Ok(ProcessInfo::parse(&text)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Err(error),
            _ => Ok(None),
        },
    }
}

/// One process, if it exists and can be seen now.
pub(crate) fn info_of(pid: u32) -> Option<ProcessInfo> {
    look_at(pid).ok().flatten()
}

/// All processes that this one may see, zombies too.
pub(crate) fn processes() -> io::Result<BTreeMap<u32, ProcessInfo>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended since the folder was listed.
        if let Some(info) = info_of(pid) {
            all.insert(pid, info);
        }
    }
    Ok(all)
}

/// The value of a variable in a process's environment, as it was when its program started.
pub(crate) fn environ_of(pid: u32, variable: &str) -> Option<Vec<u8>> {
    let block = read_limited(format!("/proc/{pid}/environ"), ENVIRON_BYTES).ok()?;
    block.split(|byte| *byte == 0).find_map(|entry| {
        entry.strip_prefix(variable.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")).map(<[u8]>::to_vec)
    })
}

/// The mark that a process carries.
pub(crate) fn mark_of(pid: u32) -> Option<Mark> {
    let limits = read_limited(format!("/proc/{pid}/limits"), STAT_BYTES).ok()?;
    let limits = String::from_utf8(limits).ok()?;
    let (_, rest) = limits.split_once("Max realtime timeout")?;
    Mark::from_limit(rest.split_ascii_whitespace().next()?.parse().ok()?)
}

/// The inode numbers of the pipes that a process has as standard input, output and error.
pub(crate) fn standard_streams_of(pid: u32) -> Vec<u64> {
    (0..3)
        .filter_map(|fd| {
            let target = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
            target.to_str()?.strip_prefix("pipe:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// The list of this process's children, those of them that were adopted included.
///
/// The kernel hands orphans to the main thread of a subreaper, so that thread's list is the one to read. It is
/// kept open: reading it again costs one system call.
pub(crate) struct Children {
    file: Option<File>,
    buffer: Vec<u8>,
}

impl Children {
    pub(crate) fn open() -> Self {
        let pid = std::process::id();
        Self { file: File::open(format!("/proc/self/task/{pid}/children")).ok(), buffer: vec![0; 4096] }
    }

    /// The children's numbers, in `found`.
    pub(crate) fn read(&mut self, found: &mut Vec<u32>) -> io::Result<()> {
        found.clear();
        let Some(file) = &self.file else {
            // A kernel without CONFIG_PROC_CHILDREN: the whole table says it too, at a price.
            let own = std::process::id();
            found.extend(processes()?.values().filter(|info| info.parent == own).map(|info| info.pid));
            return Ok(());
        };
        let mut length = 0;
        loop {
            let count = file.read_at(&mut self.buffer[length..], length as u64)?;
            length += count;
            if count == 0 || length < self.buffer.len() {
                break;
            }
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let text = &self.buffer[..length];
        found.extend(
            text.split(|byte| *byte == b' ').filter_map(|number| std::str::from_utf8(number).ok()?.parse::<u32>().ok()),
        );
        Ok(())
    }
}

/// How often the kernel's out-of-memory killer has struck around this process.
pub(crate) struct OomCounter {
    source: Option<(String, &'static str)>,
    seen: u64,
}

impl OomCounter {
    pub(crate) fn new() -> Self {
        let mut counter = Self { source: Self::find_source(), seen: 0 };
        counter.seen = counter.read();
        counter
    }

    /// Whether it has struck since the last time this was asked.
    pub(crate) fn has_struck(&mut self) -> bool {
        let now = self.read();
        let struck = now > self.seen;
        self.seen = now;
        struck
    }

    /// The narrowest count there is: that of our own cgroup, else that of the whole system.
    fn find_source() -> Option<(String, &'static str)> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut candidates = Vec::new();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                candidates.push((format!("/sys/fs/cgroup{path}/memory.events"), "oom_kill "));
            } else if controllers.split(',').any(|name| name == "memory") {
                candidates.push((format!("/sys/fs/cgroup/memory{path}/memory.oom_control"), "oom_kill "));
            }
        }
        candidates.push(("/proc/vmstat".to_owned(), "oom_kill "));
        candidates.into_iter().find(|(path, key)| {
            fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line.starts_with(key)))
        })
    }

    fn read(&self) -> u64 {
        let Some((path, key)) = &self.source else { return 0 };
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_does_not_shift_the_fields() {
        let line = b"42 (a) b (c) S 7 40 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let info = ProcessInfo::parse(line).unwrap();
        assert_eq!((info.pid, info.parent, info.group, info.state), (42, 7, 40, 'S'));
        assert_eq!((info.started, info.name.as_str()), (987_654, "a) b (c"));
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = std::process::id();
        let all = processes().unwrap();
        assert_eq!(all[&own].started, info_of(own).unwrap().started);
        assert!(!all[&own].is_dead());
    }
}
