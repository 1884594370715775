//! Processes that outlived the program that drove their run: found by what is in their environment or by the cgroup
//! that they were born in, and ended before their step is tried again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use baton_core::Epoch;
use rustix::process::Signal;

use crate::cgroups::{Member, RunCgroups};
use crate::environment::ATTEMPT_VARIABLE;
use crate::lineage::beneath;
use crate::sys::{self, ProcessHandle, ProcessInfo};

/// How long killed processes may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// How long one look of somebody who only waits lasts; then the table is read again.
const WAIT_AT_ONCE: Duration = Duration::from_secs(3600);
/// How often the table is read to find what was born while it was read.
const WALKS: usize = 16;
/// Stands for the attempt of a process that hides it.
const NAMELESS: &str = "/?";
/// How often the table is read to have all in it that are in the run's cgroups.
const LISTINGS: usize = 3;
/// How long one wait for processes to end takes before the table is read again, for those that forked meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A process of an attempt whose driver has died.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Survivor {
    /// Its number.
    pub pid: u32,
    /// Its name; `?`: it had ended before it could be looked at, and others like it follow.
    pub name: String,
    /// The attempt: `<store>/<run>/<step path>/<n>`. Of a process that has cleared its environment: that of an
    /// ancestor or of its cgroup, or `<store>/<run>/?`.
    pub attempt: String,
    /// Of a process that was found in a cgroup of the run: the owner that has made it.
    pub owner: Option<Epoch>,
}

impl Survivor {
    /// Whether its run is known, and its attempt is not.
    pub fn is_nameless(&self) -> bool {
        self.attempt.ends_with(NAMELESS)
    }
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
    Ok(look(prefix, &RunCgroups::search(prefix), &|_| false)?.found.into_values().collect())
}

/// Ends all survivors but those that `spares` lets live: asks them, waits at most `grace`, then kills what is left and
/// waits until it is gone. The answer is what was ended. What is left of the run's cgroups is removed.
pub fn end_survivors(
    prefix: &str,
    grace: Duration,
    spares: &dyn Fn(&Survivor) -> bool,
) -> Result<Vec<Survivor>, SurvivorError> {
    let cgroups = RunCgroups::search(prefix);
    let look = || look(prefix, &cgroups, spares);
    let mut ended = BTreeMap::new();
    let mut asked = HashSet::new();
    let deadline = Instant::now() + grace;
    loop {
        let found = look()?.found;
        if found.is_empty() {
            cgroups.remove_empty();
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
        wait_for_all(&handles, &cgroups, deadline.min(Instant::now() + LOOK_AGAIN));
    }
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        // Stopped before killed: a parent that dies would hide whose its children are.
        let mut stopped = HashSet::new();
        let others = stop_all(&look, &mut stopped, &mut ended)?;
        if stopped.is_empty() {
            cgroups.remove_empty();
            return Ok(ended.into_values().collect());
        }
        let handles: Vec<ProcessHandle> = stopped.iter().filter_map(ProcessName::open).collect();
        cgroups.kill_unless(|pid| others.contains(&pid));
        for handle in &handles {
            handle.signal(Signal::KILL);
        }
        wait_for_all(&handles, &cgroups, deadline);
        if Instant::now() >= deadline {
            return Err(SurvivorError::Stuck { left: look()?.found.into_values().collect() });
        }
    }
}

/// Stops all survivors, however often they fork meanwhile; those that were seen are in `stopped` and `ended`. The
/// answer is the processes that are not to be touched.
fn stop_all(
    look: &dyn Fn() -> io::Result<Look>,
    stopped: &mut HashSet<ProcessName>,
    ended: &mut BTreeMap<ProcessName, Survivor>,
) -> io::Result<HashSet<u32>> {
    let mut others = HashSet::new();
    for _ in 0..WALKS {
        let seen = look()?;
        let before = stopped.len();
        for (name, survivor) in seen.found {
            if stopped.insert(name) {
                name.signal(Signal::STOP);
            }
            ended.insert(name, survivor);
        }
        others = seen.others;
        if stopped.len() == before {
            break;
        }
    }
    Ok(others)
}

/// Blocks until there are no survivors but those that `spares` lets live. For a helper thread: it sleeps until those
/// that it found have ended.
pub fn wait_for_survivors(prefix: &str, spares: &dyn Fn(&Survivor) -> bool) -> io::Result<()> {
    let cgroups = RunCgroups::search(prefix);
    loop {
        let found = look(prefix, &cgroups, spares)?.found;
        if found.is_empty() {
            return Ok(());
        }
        let handles: Vec<ProcessHandle> = found.keys().filter_map(ProcessName::open).collect();
        wait_for_all(&handles, &cgroups, Instant::now() + WAIT_AT_ONCE);
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

/// What one look at all processes shows.
struct Look {
    /// The survivors that are not spared.
    found: BTreeMap<ProcessName, Survivor>,
    /// All other living processes.
    others: HashSet<u32>,
}

fn look(prefix: &str, cgroups: &RunCgroups, spares: &dyn Fn(&Survivor) -> bool) -> io::Result<Look> {
    let (table, members) = table_and_members(cgroups)?;
    let own_line = own_line(&table);
    let mut origins = Vec::new();
    let mut roots = Vec::new();
    for info in table.values() {
        if info.is_dead() || own_line.contains(&info.pid) {
            continue;
        }
        let Some(origin) = origin_of(info.pid, prefix, members.get(&info.pid)) else { continue };
        // Looked at again, because the number may have been given to another while its origin was read.
        if sys::info_of(info.pid).is_some_and(|now| now.started == info.started) {
            roots.push((info.pid, origins.len()));
            origins.push(origin);
        }
    }
    let mut seen = Look { found: BTreeMap::new(), others: HashSet::new() };
    for (at, info) in beneath(&table, roots) {
        if !info.is_dead() && !own_line.contains(&info.pid) {
            let (attempt, owner) = origins[at].clone();
            let name = ProcessName { pid: info.pid, started: info.started };
            seen.found.insert(name, Survivor { pid: info.pid, name: info.name.clone(), attempt, owner });
        }
    }
    for (pid, member) in members.iter().filter(|(pid, _)| !table.contains_key(pid)) {
        let attempt = member.attempt.clone().unwrap_or_else(|| nameless(prefix));
        let survivor = Survivor { pid: *pid, name: "?".to_owned(), attempt, owner: Some(member.owner) };
        seen.found.insert(ProcessName { pid: *pid, started: 0 }, survivor);
    }
    seen.found.retain(|_, survivor| !spares(survivor));
    let found: HashSet<u32> = seen.found.keys().map(|name| name.pid).collect();
    seen.others = table.values().filter(|info| !info.is_dead()).map(|info| info.pid).collect();
    seen.others.retain(|pid| !found.contains(pid));
    Ok(seen)
}

/// The table of all processes, and who of them is in the run's cgroups. A member that is not in the table has ended
/// as soon as it was born; where there is always another such, that is what is told.
fn table_and_members(cgroups: &RunCgroups) -> io::Result<(BTreeMap<u32, ProcessInfo>, HashMap<u32, Member>)> {
    let mut listings = 0;
    loop {
        // In this order: a number that is in both named one process from the first look to the second, or its next
        // owner is found out by the time of its start.
        let table = sys::processes()?;
        let members = cgroups.members();
        listings += 1;
        if listings == LISTINGS || members.keys().all(|pid| table.contains_key(pid)) {
            return Ok((table, members));
        }
    }
}

/// The attempt of this run, and the owner whose cgroup tells it, that a process comes from.
fn origin_of(pid: u32, prefix: &str, member: Option<&Member>) -> Option<(String, Option<Epoch>)> {
    let owner = member.map(|member| member.owner);
    let named = sys::environ_of(pid, ATTEMPT_VARIABLE).filter(|name| name.starts_with(prefix.as_bytes()));
    if let Some(name) = named {
        return Some((String::from_utf8_lossy(&name).into_owned(), owner));
    }
    if let Some(member) = member {
        return Some((member.attempt.clone().unwrap_or_else(|| nameless(prefix)), owner));
    }
    sys::mark_of(pid)?.is_of_run(prefix).then(|| (nameless(prefix), None))
}

fn nameless(prefix: &str) -> String {
    format!("{}{NAMELESS}", prefix.trim_end_matches('/'))
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

/// Waits until all of these have ended. Where there is nothing to wait for, because they end before they can be opened,
/// the cgroup tells when the last has.
fn wait_for_all(handles: &[ProcessHandle], cgroups: &RunCgroups, deadline: Instant) {
    if handles.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        cgroups.wait(left.min(LOOK_AGAIN));
    }
    for handle in handles {
        handle.wait_until_ended(deadline.saturating_duration_since(Instant::now()));
    }
}
