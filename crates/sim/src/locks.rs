//! Locks again, written down as plainly as can be, to check the core's own table and rules against.

use baton_core::lock::{Holder, LockEvent, LockEventKind};

/// Who has what and who waits, in two lists.
#[derive(Clone, Debug, Default)]
pub struct PlainLocks {
    held: Vec<(Holder, Vec<String>)>,
    line: Vec<(Holder, Vec<String>)>,
}

impl PlainLocks {
    /// Whether `holder` must not have `names` now: another has one of them, or came first for one that is free.
    pub fn is_blocked(&self, holder: &Holder, names: &[String]) -> bool {
        names.iter().any(|name| match self.held.iter().find(|(_, theirs)| theirs.contains(name)) {
            Some((owner, _)) => owner != holder,
            None => self.line.iter().take_while(|(other, _)| other != holder).any(|(_, theirs)| theirs.contains(name)),
        })
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
