//! Processes that outlived the program that drove their run: found by what is in their environment, and ended before
//! their step is tried again.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::environment::ATTEMPT_VARIABLE;
use crate::lineage::beneath;
use crate::sys::{self, ProcessHandle, ProcessInfo};

/// How long killed processes may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// How long one look of somebody who only waits lasts; then the table is read again.
const WAIT_AT_ONCE: Duration = Duration::from_secs(3600);
/// How often the table is read to find what was born while it was read.
const WALKS: usize = 16;
/// How long one wait for processes to end takes before the table is read again, for those that forked meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A process of an attempt whose driver has died.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Survivor {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// The attempt: `<store>/<run>/<step path>/<n>`. Of a process that has cleared its environment: that of an
    /// ancestor, or `<store>/<run>/?`.
    pub attempt: String,
}

/// Why survivors could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum SurvivorError {
    /// The table of processes cannot be read.
    #[error("cannot look for processes that outlived an earlier run: /proc cannot be read")]
    Table(#[from] io::Error),
    /// Killed, and still there.
    #[error(
        "{} of an earlier run cannot be ended, so its step must not start again yet: {}; see what they wait for \
         (`ps -o pid,stat,wchan,cmd`), then resume once more",
        if .left.len() == 1 { "a process" } else { "processes" },
        listed(.left)
    )]
    Stuck {
        /// Those that are left.
        left: Vec<Survivor>,
    },
}

fn listed(survivors: &[Survivor]) -> String {
    let words: Vec<String> =
        survivors.iter().map(|one| format!("{} {} ({})", one.pid, one.name, one.attempt)).collect();
    words.join(", ")
}

/// All living processes of the run `prefix`, which is `<store>/<run>/` with the last `/` (run 1 is not run 12), and
/// their descendants. This process and its ancestors are never among them.
pub fn survivors(prefix: &str) -> io::Result<Vec<Survivor>> {
    Ok(find(prefix)?.into_values().collect())
}

/// Ends all survivors but those whose attempt's name `spares` lets live: asks them, waits at most `grace`, then kills
/// what is left and waits until it is gone. The answer is what was ended.
pub fn end_survivors(
    prefix: &str,
    grace: Duration,
    spares: &dyn Fn(&str) -> bool,
) -> Result<Vec<Survivor>, SurvivorError> {
    let find = || {
        let found = find(prefix)?;
        Ok::<_, io::Error>(found.into_iter().filter(|(_, one)| !spares(&one.attempt)).collect::<BTreeMap<_, _>>())
    };
    let mut ended = BTreeMap::new();
    let mut asked = HashSet::new();
    let deadline = Instant::now() + grace;
    loop {
        let found = find()?;
        if found.is_empty() {
            return Ok(ended.into_values().collect());
        }
        let handles: Vec<ProcessHandle> = found.keys().filter_map(|name| name.open()).collect();
        if Instant::now() >= deadline {
            ended.extend(found);
            break;
        }
        for name in found.keys() {
            if asked.insert(*name) {
                name.signal(Signal::TERM);
                name.signal(Signal::CONT);
            }
        }
        ended.extend(found);
        wait_for_all(&handles, deadline.min(Instant::now() + LOOK_AGAIN));
    }
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        // Stopped before killed: a parent that dies would hide whose its children are.
        let mut stopped = HashSet::new();
        for _ in 0..WALKS {
            let found = find()?;
            let before = stopped.len();
            for (name, survivor) in found {
                if stopped.insert(name) {
                    name.signal(Signal::STOP);
                }
                ended.insert(name, survivor);
            }
            if stopped.len() == before {
                break;
            }
        }
        if stopped.is_empty() {
            return Ok(ended.into_values().collect());
        }
        let handles: Vec<ProcessHandle> = stopped.iter().filter_map(ProcessName::open).collect();
        for handle in &handles {
            handle.signal(Signal::KILL);
        }
        wait_for_all(&handles, deadline);
        if Instant::now() >= deadline {
            return Err(SurvivorError::Stuck { left: find()?.into_values().collect() });
        }
    }
}

/// Blocks until there are no survivors but those whose attempt's name `spares` lets live. For a helper thread: it
/// sleeps until those that it found have ended.
pub fn wait_for_survivors(prefix: &str, spares: &dyn Fn(&str) -> bool) -> io::Result<()> {
    loop {
        let mut found = find(prefix)?;
        found.retain(|_, one| !spares(&one.attempt));
        if found.is_empty() {
            return Ok(());
        }
        let handles: Vec<ProcessHandle> = found.keys().filter_map(ProcessName::open).collect();
        wait_for_all(&handles, Instant::now() + WAIT_AT_ONCE);
    }
}

/// What names one process for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ProcessName {
    pid: u32,
    started: u64,
}

impl ProcessName {
    /// A handle on this process, and not on a later one that has got its number.
    fn open(&self) -> Option<ProcessHandle> {
        let handle = ProcessHandle::open(self.pid).ok()?;
        (sys::info_of(self.pid)?.started == self.started).then_some(handle)
    }

    fn signal(self, signal: Signal) {
        if let Some(handle) = self.open() {
            handle.signal(signal);
        }
    }
}

fn find(prefix: &str) -> io::Result<BTreeMap<ProcessName, Survivor>> {
    let table = sys::processes()?;
    let spared = own_line(&table);
    let mut attempts = Vec::new();
    let mut roots = Vec::new();
    for info in table.values() {
        if info.is_dead() || spared.contains(&info.pid) {
            continue;
        }
        let named = sys::environ_of(info.pid, ATTEMPT_VARIABLE)
            .filter(|attempt| attempt.starts_with(prefix.as_bytes()))
            .map(|attempt| String::from_utf8_lossy(&attempt).into_owned());
        let marked = || sys::mark_of(info.pid).is_some_and(|mark| mark.is_of_run(prefix));
        let Some(attempt) = named.or_else(|| marked().then(|| format!("{prefix}?"))) else { continue };
        // Looked at again, because the number may have been given to another while its origin was read.
        if sys::info_of(info.pid).is_some_and(|now| now.started == info.started) {
            roots.push((info.pid, attempts.len()));
            attempts.push(attempt);
        }
    }
    let found = beneath(&table, roots).into_iter().filter(|(_, info)| !info.is_dead() && !spared.contains(&info.pid));
    Ok(found
        .map(|(at, info)| {
            let name = ProcessName { pid: info.pid, started: info.started };
            (name, Survivor { pid: info.pid, name: info.name.clone(), attempt: attempts[at].clone() })
        })
        .collect())
}

/// This process and its ancestors: `resume` may be called by a step.
fn own_line(table: &BTreeMap<u32, ProcessInfo>) -> HashSet<u32> {
    let mut line = HashSet::new();
    let mut next = std::process::id();
    while line.insert(next)
        && let Some(info) = table.get(&next)
    {
        next = info.parent;
    }
    line
}

fn wait_for_all(handles: &[ProcessHandle], deadline: Instant) {
    for handle in handles {
        handle.wait_until_ended(deadline.saturating_duration_since(Instant::now()));
    }
}
