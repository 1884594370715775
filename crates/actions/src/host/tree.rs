//! The processes of an attempt beyond its main one: who they belong to, how they are told to end, when they are gone.
//!
//! This process is a child subreaper, so whatever loses its parent becomes our child. A descendant of an attempt is
//! therefore, at any moment, beneath its main process or beneath an orphan that we have adopted. Once the main process
//! is reaped, the attempt's tree is gone exactly when no adopted orphan of it is left: one read of our own list of
//! children tells.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Host, HostEvent, NAMED_LEFTOVERS, Running, SlotId, Stop, Token};
use crate::environment::ATTEMPT_VARIABLE;
use crate::lineage::beneath;
use crate::sys::{self, Children, Poll, ProcessHandle, ProcessInfo};

/// From the polite signal to leftovers to the one that cannot be refused, at most; less where the step's grace is less.
const LEFTOVER_TERM_GRACE: Duration = Duration::from_secs(2);
/// How often processes that were killed and are still there are killed again.
const KILL_AGAIN: Duration = Duration::from_millis(200);
/// When processes that do not die are reported.
const STUCK_AFTER: Duration = Duration::from_secs(3);
/// When to look again at what could not be seen for want of descriptors or memory.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often the table of processes is read to find what was born while it was read. All that was found is stopped
/// before the next look, so only a process that nobody has seen yet can still fork.
const WALKS: usize = 16;

/// How far the ending of what the main process left running has come.
pub(super) struct Stage {
    kind: StageKind,
    pub(super) due: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StageKind {
    /// It may end by itself.
    Waiting,
    /// It was asked to end.
    Asked,
    /// It was killed, at this time; whether it was reported as stuck.
    Killed { since: Instant, reported: bool },
}

/// A process that lost its parent and became our child.
struct Orphan {
    info: ProcessInfo,
    handle: Option<ProcessHandle>,
    owner: Owner,
}

/// Which attempt an orphan came from.
enum Owner {
    Attempt(SlotId),
    /// It hides its origin; one of these. It goes with the last of them.
    OneOf(Vec<SlotId>),
    /// A detached attempt, or one of another host in this process: it is reaped, and otherwise left alone.
    Nobody,
}

/// All orphans, and what helps to tell where one came from.
pub(super) struct Orphans {
    children: Children,
    found: Vec<u32>,
    places: Vec<Option<Orphan>>,
    by_pid: HashMap<u32, usize>,
    /// The attempt whose process group has this number.
    groups: HashMap<u32, usize>,
    /// Processes that were seen beneath an attempt while it was being ended: number and start name one for ever.
    lineage: HashMap<(u32, u64), SlotId>,
    own_group: u32,
    /// The last look found something that could not be looked at, for want of descriptors or memory.
    unseen: bool,
}

impl Orphans {
    pub(super) fn new() -> Self {
        Self {
            children: Children::open(),
            found: Vec::new(),
            places: Vec::new(),
            by_pid: HashMap::new(),
            groups: HashMap::new(),
            lineage: HashMap::new(),
            own_group: sys::own_group(),
            unseen: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_pid.is_empty()
    }

    pub(super) fn add_group(&mut self, pid: u32, at: usize) {
        self.groups.insert(pid, at);
    }

    /// Takes the end of an orphan that the poller reported.
    pub(super) fn reap(&mut self, at: usize, poll: &Poll) {
        let Some(Some(orphan)) = self.places.get(at) else { return };
        let ended = orphan.handle.as_ref().is_none_or(ProcessHandle::has_ended);
        if ended && !sys::reap_unless_alive(orphan.info.pid) {
            self.by_pid.remove(&orphan.info.pid);
            if let Some(handle) = &orphan.handle {
                poll.forget(handle.as_fd());
            }
            self.places[at] = None;
        }
    }

    /// Those of an attempt.
    fn of(&self, id: SlotId) -> impl Iterator<Item = &Orphan> {
        self.places.iter().flatten().filter(move |orphan| matches!(orphan.owner, Owner::Attempt(owner) if owner == id))
    }

    pub(super) fn forget_attempt(&mut self, id: SlotId) {
        self.groups.retain(|_, at| *at != id.at);
        if !self.lineage.is_empty() {
            self.lineage.retain(|_, owner| *owner != id);
        }
    }
}

impl Host {
    /// Looks for children that we did not start: reaps the dead, and finds out whose the living are.
    pub(super) fn sweep(&mut self) {
        let mut found = std::mem::take(&mut self.orphans.found);
        self.orphans.unseen = self.orphans.children.read(&mut found).is_err();
        for pid in &found {
            if !self.mains.contains_key(pid) && !self.orphans.by_pid.contains_key(pid) {
                self.adopt(*pid);
            }
        }
        if self.orphans.unseen {
            self.next_sweep = Instant::now() + LOOK_AGAIN;
        }
        self.orphans.found = found;
        // Those that could not be given a handle are not reported by the poller.
        let unwatched: Vec<usize> = self
            .orphans
            .places
            .iter()
            .enumerate()
            .filter(|(_, place)| place.as_ref().is_some_and(|orphan| orphan.handle.is_none()))
            .map(|(at, _)| at)
            .collect();
        for at in unwatched {
            self.orphans.reap(at, &self.poll);
        }
    }

    fn adopt(&mut self, pid: u32) {
        // It is our child and only we reap it, so its number stays its own through all of this.
        let info = match sys::look_at(pid) {
            Ok(Some(info)) => info,
            Ok(None) => return,
            Err(_) => {
                self.orphans.unseen = true;
                return;
            }
        };
        if info.group == self.orphans.own_group && self.attempt_shown_by(pid).is_none() {
            // Every attempt has a group of its own: this was started by other code of this program, which waits for it.
            return;
        }
        if info.is_dead() {
            sys::reap_unless_alive(pid);
            return;
        }
        let owner = self.owner_of(&info);
        let free = self.orphans.places.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.orphans.places.push(None);
            self.orphans.places.len() - 1
        });
        let handle = ProcessHandle::open(pid).ok();
        let handle = handle.filter(|handle| self.poll.watch(handle.as_fd(), Token::Orphan(at).key()).is_ok());
        let told_already = self.orphans.lineage.contains_key(&(pid, info.started));
        if let Owner::Attempt(id) = &owner
            && let Some(running) = self.running_at_mut(id.at)
            && let Some(pressed) = running.pressed
            && (pressed == Stop::Kill || !told_already)
        {
            match pressed {
                Stop::Kill => sys::unreaped_signal(pid, Signal::KILL),
                Stop::Terminate => {
                    sys::unreaped_signal(pid, Signal::TERM);
                    sys::unreaped_signal(pid, Signal::CONT);
                }
            }
            if running.ended.is_some() && !told_already {
                running.add_leftover(pid, &info.name);
            }
        }
        self.orphans.by_pid.insert(pid, at);
        self.orphans.places[at] = Some(Orphan { info, handle, owner });
    }

    fn owner_of(&self, info: &ProcessInfo) -> Owner {
        if let Some(id) = self.orphans.lineage.get(&(info.pid, info.started)) {
            return Owner::Attempt(*id);
        }
        if let Some(at) = self.orphans.groups.get(&info.group) {
            return Owner::Attempt(self.slot_id(*at));
        }
        if let Some(at) = self.attempt_shown_by(info.pid) {
            return Owner::Attempt(self.slot_id(at));
        }
        if sys::environ_of(info.pid, ATTEMPT_VARIABLE).is_some() {
            return Owner::Nobody;
        }
        let streams = sys::standard_streams_of(info.pid);
        if !streams.is_empty() {
            let owner = self.tenants().find(|(_, running)| {
                let pipe = running.pipe.as_ref().and_then(|pipe| rustix::fs::fstat(pipe).ok());
                pipe.is_some_and(|pipe| streams.contains(&pipe.st_ino))
            });
            if let Some((at, _)) = owner {
                return Owner::Attempt(self.slot_id(at));
            }
        }
        let mut candidates: Vec<SlotId> = self.tenants().map(|(at, _)| self.slot_id(at)).collect();
        match candidates.len() {
            0 => Owner::Nobody,
            1 => Owner::Attempt(candidates.remove(0)),
            _ => Owner::OneOf(candidates),
        }
    }

    fn tenants(&self) -> impl Iterator<Item = (usize, &Running)> {
        self.by_key.values().filter_map(|at| Some((*at, self.running_at(*at)?)))
    }

    /// The attempt of ours whose mark or name a process carries.
    fn attempt_shown_by(&self, pid: u32) -> Option<usize> {
        let mark = sys::mark_of(pid);
        let marked = mark.and_then(|mark| self.tenants().find(|(_, running)| running.mark == mark));
        let (at, _) = marked.or_else(|| {
            let name = sys::environ_of(pid, ATTEMPT_VARIABLE)?;
            self.tenants().find(|(_, running)| running.job.attempt_name.as_bytes() == name)
        })?;
        Some(at)
    }

    /// Whether nothing of an attempt whose main process has been reaped is left. Detached processes are let go here.
    pub(super) fn tree_is_gone(&mut self, at: usize) -> bool {
        if self.orphans.unseen {
            return false;
        }
        if self.orphans.is_empty() {
            return true;
        }
        let id = self.slot_id(at);
        let let_go = self.running_at(at).is_some_and(Running::lets_go);
        let mut gone = true;
        for place in 0..self.orphans.places.len() {
            let Some(orphan) = &self.orphans.places[place] else { continue };
            let last = match &orphan.owner {
                Owner::OneOf(candidates) => {
                    candidates.contains(&id) && candidates.iter().all(|other| *other == id || !self.is_tenant(*other))
                }
                Owner::Attempt(owner) => *owner == id,
                Owner::Nobody => false,
            };
            if last {
                gone &= let_go;
                let owner = if let_go { Owner::Nobody } else { Owner::Attempt(id) };
                if let Some(orphan) = &mut self.orphans.places[place] {
                    orphan.owner = owner;
                }
            }
        }
        gone
    }

    /// Ends what is left of an attempt. What its main process left running has the step's grace to end by itself, then
    /// it is asked, then killed; what was killed is killed again until it is gone.
    pub(super) fn press_leftovers(&mut self, at: usize, now: Instant, out: &mut Vec<HostEvent>) {
        let Some(running) = self.running_at_mut(at) else { return };
        let grace = running.job.stop_grace;
        let (stage, press) = match (&running.stage, running.pressed) {
            // The engine has killed it: see that it dies.
            (None, Some(Stop::Kill)) => {
                (Stage { kind: StageKind::Killed { since: now, reported: false }, due: now + KILL_AGAIN }, None)
            }
            // The engine has asked it to end, and is not obliged to say more.
            (None, Some(Stop::Terminate)) => (Stage { kind: StageKind::Asked, due: now + grace }, None),
            (None, None) => (Stage { kind: StageKind::Waiting, due: now + grace }, None),
            (Some(stage), Some(Stop::Kill)) if !matches!(stage.kind, StageKind::Killed { .. }) => {
                (Stage { kind: StageKind::Killed { since: now, reported: false }, due: now + KILL_AGAIN }, None)
            }
            (Some(stage), _) if now < stage.due => return,
            (Some(stage), _) => match stage.kind {
                StageKind::Waiting => {
                    (Stage { kind: StageKind::Asked, due: now + grace.min(LEFTOVER_TERM_GRACE) }, Some(Stop::Terminate))
                }
                StageKind::Asked => (
                    Stage { kind: StageKind::Killed { since: now, reported: false }, due: now + KILL_AGAIN },
                    Some(Stop::Kill),
                ),
                StageKind::Killed { since, reported } => {
                    let stuck = now >= since + STUCK_AFTER;
                    if stuck && !reported {
                        let key = running.key;
                        let processes = self.named_with_reason(at);
                        out.push(HostEvent::Stuck { key, processes });
                    }
                    let kind = StageKind::Killed { since, reported: reported || stuck };
                    (Stage { kind, due: now + KILL_AGAIN }, Some(Stop::Kill))
                }
            },
        };
        if let Some(running) = self.running_at_mut(at) {
            running.stage = Some(stage);
        }
        if let Some(how) = press {
            self.press(&[at], how);
        }
    }

    /// Carries out what [`Host::signal`] asked for.
    pub(super) fn deliver_stops(&mut self) {
        if self.stops.is_empty() {
            return;
        }
        let stops = std::mem::take(&mut self.stops);
        for how in [Stop::Terminate, Stop::Kill] {
            let mut slots: Vec<usize> = stops.iter().filter(|(_, stop)| *stop == how).map(|(at, _)| *at).collect();
            slots.sort_unstable();
            slots.dedup();
            slots.retain(|at| self.running_at(*at).is_some());
            if !slots.is_empty() {
                self.press(&slots, how);
            }
            if how == Stop::Kill {
                // From now on each round sees to it that they die.
                for at in slots {
                    if !self.settling.contains(&at) {
                        self.settling.push(at);
                    }
                }
            }
        }
    }

    /// Sends the whole tree of each of these attempts a signal, however often it forks meanwhile.
    fn press(&mut self, slots: &[usize], how: Stop) {
        for at in slots {
            if let Some(running) = self.running_at_mut(*at) {
                running.pressed = running.pressed.max(Some(how));
            }
        }
        // The groups first: the kernel signals all members at once, and a fork cannot slip through.
        for at in slots {
            if let Some(running) = self.running_at(*at)
                && running.ended.is_none()
            {
                match how {
                    Stop::Terminate => {
                        sys::group_signal(running.pid, Signal::TERM);
                        sys::group_signal(running.pid, Signal::CONT);
                    }
                    // Stopped before killed: a parent that dies would hide whose its children are.
                    Stop::Kill => sys::group_signal(running.pid, Signal::STOP),
                }
            }
        }
        let mut seen: HashSet<(u32, u64)> = HashSet::new();
        let mut members: Vec<(usize, ProcessInfo)> = Vec::new();
        for _ in 0..WALKS {
            self.sweep();
            let Ok(table) = sys::processes() else { break };
            let before = members.len();
            for (at, info) in self.trees(slots, &table) {
                if info.is_dead() || !seen.insert((info.pid, info.started)) {
                    continue;
                }
                let id = self.slot_id(at);
                self.orphans.lineage.insert((info.pid, info.started), id);
                if !self.was_signalled_with_its_group(at, info) {
                    match how {
                        Stop::Terminate => {
                            signal_exactly(info, Signal::TERM);
                            signal_exactly(info, Signal::CONT);
                        }
                        Stop::Kill => signal_exactly(info, Signal::STOP),
                    }
                }
                members.push((at, info.clone()));
            }
            if members.len() == before {
                break;
            }
        }
        for at in slots {
            let left: Vec<(u32, String)> = self.left(*at).collect();
            if let Some(running) = self.running_at_mut(*at)
                && running.ended.is_some()
            {
                for (pid, name) in left {
                    running.add_leftover(pid, &name);
                }
            }
        }
        if how == Stop::Kill {
            for at in slots {
                if let Some(running) = self.running_at(*at)
                    && running.ended.is_none()
                {
                    sys::group_signal(running.pid, Signal::KILL);
                    sys::unreaped_signal(running.pid, Signal::KILL);
                }
            }
            for (_, info) in &members {
                signal_exactly(info, Signal::KILL);
            }
        }
    }

    fn was_signalled_with_its_group(&self, at: usize, info: &ProcessInfo) -> bool {
        self.running_at(at).is_some_and(|running| running.ended.is_none() && info.group == running.pid)
    }

    /// All processes of `table` that stand beneath these attempts, and beneath which.
    fn trees<'t>(&self, slots: &[usize], table: &'t BTreeMap<u32, ProcessInfo>) -> Vec<(usize, &'t ProcessInfo)> {
        let mut roots = Vec::new();
        for at in slots {
            if let Some(running) = self.running_at(*at)
                && running.ended.is_none()
            {
                roots.push((running.pid, *at));
            }
            roots.extend(self.orphans.of(self.slot_id(*at)).map(|orphan| (orphan.info.pid, *at)));
        }
        beneath(table, roots)
    }

    /// What is left of an attempt that was killed, and why, as far as can be seen.
    fn named_with_reason(&self, at: usize) -> Vec<String> {
        let reason = |pid| match sys::info_of(pid) {
            Some(info) if info.is_unreachable() => "waits in the kernel, where no signal reaches it",
            _ if !sys::may_signal(pid) => "belongs to another user, and may not be signalled",
            Some(_) => "was killed and is still there",
            None => "cannot be seen",
        };
        self.left(at).map(|(pid, name)| format!("{pid} {name}: {}", reason(pid))).collect()
    }

    /// What is left of an attempt: number and name.
    fn left(&self, at: usize) -> impl Iterator<Item = (u32, String)> {
        let main = self.running_at(at).filter(|running| running.ended.is_none()).map(|running| running.pid);
        let orphans = self.orphans.of(self.slot_id(at)).map(|orphan| orphan.info.pid);
        // The name as it is now: what was a shell when it was adopted may have become something else.
        let name = |pid| (pid, sys::info_of(pid).map_or_else(|| "?".to_owned(), |info| info.name));
        main.into_iter().chain(orphans).take(NAMED_LEFTOVERS).map(name)
    }
}

/// Signals a process, and not a later one that has got its number.
fn signal_exactly(info: &ProcessInfo, signal: Signal) {
    if let Ok(handle) = ProcessHandle::open(info.pid)
        && sys::info_of(info.pid).is_some_and(|now| now.started == info.started)
    {
        handle.signal(signal);
    }
}
