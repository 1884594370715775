//! Locks again, written down as plainly as can be, to check the core's own table and rules against.

use baton_core::RunId;
use baton_core::lock::{Holder, LockEvent, LockEventKind};

/// Who has what and who waits, in two lists.
#[derive(Clone, Debug, Default)]
pub struct PlainLocks {
    held: Vec<(Holder, Vec<String>)>,
    line: Vec<(Holder, Vec<String>)>,
    supposed: bool,
}

impl PlainLocks {
    /// Whether `holder` must not have `names` now: another has one of them, or came first for one that is free, and is
    /// not waiting for the end of the holder's own run.
    pub fn is_blocked(&self, holder: &Holder, names: &[String]) -> bool {
        let before = self.line.iter().position(|(other, _)| other == holder).unwrap_or(self.line.len());
        names.iter().any(|name| match self.held.iter().find(|(_, theirs)| theirs.contains(name)) {
            Some((owner, _)) => owner != holder,
            None => (0..before).any(|at| self.line[at].1.contains(name) && !self.waits_for_run(at, holder.run)),
        })
    }

    /// Whether the one at this place in line cannot have its locks before `run` is over.
    fn waits_for_run(&self, at: usize, run: RunId) -> bool {
        let (waiter, names) = &self.line[at];
        let run_has = |name: &String| {
            self.held.iter().any(|(other, theirs)| *other == Holder { run, step: None } && theirs.contains(name))
        };
        let shares = |before: usize| self.line[before].1.iter().any(|name| names.contains(name));
        waiter.run != run
            && (names.iter().any(run_has) || (0..at).any(|before| shares(before) && self.waits_for_run(before, run)))
    }

    /// Whether `holder` has all of `names`.
    pub fn has(&self, holder: &Holder, names: &[String]) -> bool {
        names.is_empty()
            || self.held.iter().any(|(other, theirs)| other == holder && names.iter().all(|name| theirs.contains(name)))
    }

    /// Whether `holder` stands in line.
    pub fn waits(&self, holder: &Holder) -> bool {
        self.line.iter().any(|(other, _)| other == holder)
    }

    /// Whether `holder` has any lock.
    pub fn holds_any(&self, holder: &Holder) -> bool {
        self.held.iter().any(|(other, _)| other == holder)
    }

    /// Notes that `holder` has `names`, whoever else has them too.
    pub fn suppose(&mut self, holder: Holder, names: Vec<String>) {
        self.held.push((holder, names));
        self.supposed = true;
    }

    /// Whether what stands here is what was seen, not what was supposed.
    pub fn is_true(&self) -> bool {
        !self.supposed
    }

    /// Takes note of an event, if it is one that may happen.
    pub fn observe(&mut self, event: &LockEvent) -> Result<(), String> {
        let holder = &event.holder;
        match &event.kind {
            LockEventKind::Requested { names } => {
                if self.waits(holder) {
                    return Err(format!("{holder} stands in line twice"));
                }
                self.line.push((holder.clone(), names.clone()));
            }
            LockEventKind::Granted { names } => {
                if self.is_blocked(holder, names) {
                    return Err(format!("{holder} is given {names:?} though somebody has one or came first: {self:?}"));
                }
                self.line.retain(|(other, _)| other != holder);
                self.held.retain(|(other, _)| other != holder);
                self.held.push((holder.clone(), names.clone()));
            }
            LockEventKind::Released { .. } => {
                self.line.retain(|(other, _)| other != holder);
                self.held.retain(|(other, _)| other != holder);
            }
        }
        Ok(())
    }
}
