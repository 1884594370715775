//! Named locks that runs share: one log, folded into who holds what and who waits for it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{RunId, Time};

/// Who holds or wants locks: a run as a whole, or one step of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// The run.
    pub run: RunId,
    /// The step's path; `None`: the run as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.step {
            Some(step) => write!(f, "step `{step}` of run {}", self.run),
            None => write!(f, "run {}", self.run),
        }
    }
}

/// One fact in the log that runs share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockEvent {
    /// When it was decided.
    pub at: Time,
    /// Whom it is about.
    pub holder: Holder,
    /// What happened.
    pub kind: LockEventKind,
}

/// What happened to locks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockEventKind {
    /// The holder waits in line for all of these at once.
    Requested {
        /// The locks' names, sorted.
        names: Vec<String>,
    },
    /// The holder has all of these.
    Granted {
        /// The locks' names, sorted.
        names: Vec<String>,
    },
    /// The holder has none any more and waits for none.
    Released {
        /// Why somebody else released them; `None`: the holder did.
        reason: Option<String>,
    },
}

impl LockEventKind {
    /// The event's name in the store and the manual.
    pub fn name(&self) -> &'static str {
        match self {
            LockEventKind::Requested { .. } => "lock_requested",
            LockEventKind::Granted { .. } => "lock_granted",
            LockEventKind::Released { .. } => "lock_released",
        }
    }
}

/// Locks held together by one holder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The locks' names, sorted.
    pub names: Vec<String>,
    /// Since when.
    pub since: Time,
}

/// A place in the line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Who waits.
    pub holder: Holder,
    /// For which locks, all at once.
    pub names: Vec<String>,
    /// Since when.
    pub since: Time,
}

/// Who holds which lock, and who waits: the fold of the shared log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LockTable {
    owners: BTreeMap<String, Holder>,
    held: BTreeMap<Holder, Held>,
    /// By the order of arrival.
    line: BTreeMap<u64, Waiting>,
    places: BTreeMap<Holder, u64>,
    next_place: u64,
}

impl LockTable {
    /// Folds one event in.
    pub fn apply(&mut self, event: &LockEvent) {
        match &event.kind {
            LockEventKind::Requested { names } => {
                self.leave_line(&event.holder);
                self.places.insert(event.holder.clone(), self.next_place);
                let waiting = Waiting { holder: event.holder.clone(), names: names.clone(), since: event.at };
                self.line.insert(self.next_place, waiting);
                self.next_place += 1;
            }
            LockEventKind::Granted { names } => {
                self.leave_line(&event.holder);
                for name in names {
                    self.owners.insert(name.clone(), event.holder.clone());
                }
                self.held.insert(event.holder.clone(), Held { names: names.clone(), since: event.at });
            }
            LockEventKind::Released { .. } => {
                self.leave_line(&event.holder);
                if let Some(held) = self.held.remove(&event.holder) {
                    for name in held.names {
                        self.owners.remove(&name);
                    }
                }
            }
        }
    }

    fn leave_line(&mut self, holder: &Holder) {
        if let Some(place) = self.places.remove(holder) {
            self.line.remove(&place);
        }
    }

    /// The one who stands in the way of `holder` having all of `names` now: who holds one, or waits for one
    /// longer. `None`: the way is free.
    pub fn blocker(&self, holder: &Holder, names: &[String]) -> Option<(&str, &Holder)> {
        for name in names {
            if let Some((name, owner)) = self.owners.get_key_value(name)
                && owner != holder
            {
                return Some((name, owner));
            }
        }
        let place = self.places.get(holder).copied().unwrap_or(u64::MAX);
        let mut passed = Passed::by(self, holder.run);
        for waiting in self.line.range(..place).map(|(_, waiting)| waiting) {
            if waiting.holder != *holder
                && !passed.takes(waiting)
                && let Some(name) =
                    waiting.names.iter().find(|name| names.contains(name) && self.owners.get(*name) != Some(holder))
            {
                return Some((name, &waiting.holder));
            }
        }
        None
    }

    /// Whether `holder` stands in line.
    pub fn is_waiting(&self, holder: &Holder) -> Option<&Waiting> {
        self.places.get(holder).and_then(|place| self.line.get(place))
    }

    /// What `holder` holds.
    pub fn held_by(&self, holder: &Holder) -> Option<&Held> {
        self.held.get(holder)
    }

    /// Everyone who holds locks.
    pub fn held(&self) -> impl Iterator<Item = (&Holder, &Held)> {
        self.held.iter()
    }

    /// Everyone who waits, first come first.
    pub fn line(&self) -> impl Iterator<Item = &Waiting> {
        self.line.values()
    }

    /// The first of `wants`, all of `run`, that can have all it wants now: nobody holds one of them, and nobody who
    /// has waited longer wants one.
    pub fn first_free<'a>(
        &self,
        run: RunId,
        wants: impl Iterator<Item = (&'a Holder, &'a [String])>,
    ) -> Option<(&'a Holder, &'a [String])> {
        let mut wants: BTreeMap<&'a Holder, (usize, &'a [String])> =
            wants.enumerate().map(|(order, (holder, names))| (holder, (order, names))).collect();
        if wants.is_empty() {
            return None;
        }
        let mut claimed: BTreeSet<&str> = BTreeSet::new();
        let is_free = |claimed: &BTreeSet<&str>, holder: &Holder, names: &[String]| {
            names.iter().all(|name| match self.owners.get(name) {
                // What it has already, nobody in line can have before it lets go: a resumed run takes its locks again.
                Some(owner) => owner == holder,
                None => !claimed.contains(name.as_str()),
            })
        };
        let mut passed = Passed::by(self, run);
        for waiting in self.line.values() {
            let free = is_free(&claimed, &waiting.holder, &waiting.names);
            if let Some((holder, (_, names))) = wants.remove_entry(&waiting.holder)
                && free
            {
                return Some((holder, names));
            }
            if !passed.takes(waiting) {
                claimed.extend(waiting.names.iter().map(String::as_str));
            }
        }
        wants
            .into_iter()
            .filter(|(holder, (_, names))| is_free(&claimed, holder, names))
            .min_by_key(|(_, (order, _))| *order)
            .map(|(holder, (_, names))| (holder, names))
    }

    /// Those of `run` that hold locks.
    pub fn held_in(&self, run: RunId) -> impl Iterator<Item = &Holder> {
        self.held.range(Holder { run, step: None }..).map(|(holder, _)| holder).take_while(move |h| h.run == run)
    }

    /// Those of `run` that stand in line.
    pub fn waiting_in(&self, run: RunId) -> impl Iterator<Item = &Holder> {
        self.places.range(Holder { run, step: None }..).map(|(holder, _)| holder).take_while(move |h| h.run == run)
    }

    /// Every run that holds or wants a lock.
    pub fn runs(&self) -> BTreeSet<RunId> {
        self.held.keys().chain(self.places.keys()).map(|holder| holder.run).collect()
    }
}

/// Those in line whom the steps of one run may pass: they wait for the run itself to end, or for others who do, and
/// would wait for ever if its steps waited for them.
struct Passed<'a> {
    table: &'a LockTable,
    run: Holder,
    any: bool,
    names: BTreeSet<&'a str>,
}

impl<'a> Passed<'a> {
    fn by(table: &'a LockTable, run: RunId) -> Self {
        let run = Holder { run, step: None };
        Self { table, any: table.held.contains_key(&run), run, names: BTreeSet::new() }
    }

    /// Whether the next in line is one of them.
    fn takes(&mut self, waiting: &'a Waiting) -> bool {
        let waits =
            |name: &String| self.table.owners.get(name) == Some(&self.run) || self.names.contains(name.as_str());
        let takes = self.any && waiting.holder.run != self.run.run && waiting.names.iter().any(waits);
        if takes {
            self.names.extend(waiting.names.iter().map(String::as_str));
        }
        takes
    }
}
