//! The part of the world that attempts touch, as the loop sees it: processes here, a simulation or nothing elsewhere.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use baton_actions::{Host, HostEvent, Job, StartError, Stop, Survivor};
use baton_core::{Attempt, Epoch};
use baton_store::DataDir;

use crate::EngineError;

/// Whether processes of the attempt with this name were left on purpose.
pub type Stays = Box<dyn Fn(&str) -> bool + Send>;

/// What the dead owner of a run may have left running.
pub struct Left {
    /// How the names of the run's attempts begin.
    pub prefix: String,
    /// As what the dead owner owned it.
    pub owner: Epoch,
    /// The names of the attempts that were in flight.
    pub in_flight: BTreeSet<String>,
    /// How long they get to end after they are told to.
    pub grace: Duration,
    /// Which others stay.
    pub stays: Stays,
}

/// What can start attempts, end them, and tell what becomes of them.
pub trait Hands {
    /// Starts an attempt. Its start is on disk already.
    fn start(&mut self, key: Attempt, job: Job) -> Result<(), StartError>;

    /// Tells an attempt, the whole tree of it, to end.
    fn stop(&mut self, key: Attempt, how: Stop);

    /// Waits until something happens, at most for `timeout`, and appends what did.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<HostEvent>) -> Result<(), EngineError>;

    /// This program, for actions that run inside it.
    fn self_exe(&self) -> &Path;

    /// Whether processes of attempts with this prefix live although their driver is dead, but for those that stay.
    fn has_survivors(&self, prefix: &str, stays: &Stays) -> bool;

    /// Has [`Hands::wait`] tell of something readable once `owner` is dead.
    fn watch_death(&mut self, owner: Epoch);

    /// Has what a dead owner left running ended, and [`Hands::wait`] tell of something readable once it is gone.
    fn end_left(&mut self, left: Left);

    /// The run whose attempts have this prefix is over, or is driven elsewhere.
    fn release(&mut self, prefix: &str);
}

/// Attempts as real process trees.
pub struct Processes {
    pub(crate) host: Host,
    pub(crate) self_exe: PathBuf,
    pub(crate) directory: DataDir,
    /// Both ends of the FIFO by which others wake this process.
    pub(crate) wake: Option<Arc<File>>,
}

impl Hands for Processes {
    fn start(&mut self, key: Attempt, job: Job) -> Result<(), StartError> {
        self.host.start(key, job).map(|_| ())
    }

    fn stop(&mut self, key: Attempt, how: Stop) {
        self.host.signal(key, how);
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<HostEvent>) -> Result<(), EngineError> {
        self.host.wait(timeout, events).map_err(|source| EngineError::Wait { source })?;
        if events.iter().any(|event| matches!(event, HostEvent::Readable { .. }))
            && let Some(wake) = &self.wake
        {
            // It does not block: what is read is only that somebody wrote.
            let mut bytes = [0; 64];
            while matches!((&**wake).read(&mut bytes), Ok(length) if length > 0) {}
        }
        Ok(())
    }

    fn self_exe(&self) -> &Path {
        &self.self_exe
    }

    fn has_survivors(&self, prefix: &str, stays: &Stays) -> bool {
        // What cannot be looked at may live: nothing is taken from it.
        baton_actions::survivors(prefix).map_or(true, |found| found.iter().any(|one| !stays(&one.attempt)))
    }

    fn watch_death(&mut self, owner: Epoch) {
        let directory = self.directory.clone();
        // It sleeps in the kernel until the owner's lock file is free. Where that cannot be waited for, the loop looks
        // for itself, once.
        self.in_background(move || drop(baton_store::wait_for_death(&directory, owner)));
    }

    fn end_left(&mut self, left: Left) {
        self.in_background(move || {
            // Only what was in flight when the owner died: whoever resumes the run meanwhile starts other attempts.
            // What hides its attempt is known not to be of those where it is in a cgroup that the dead owner has made.
            let of_the_dead = |one: &Survivor| one.is_nameless() && one.owner.is_some_and(|owner| owner <= left.owner);
            let spared = |one: &Survivor| !left.in_flight.contains(&one.attempt) && !of_the_dead(one);
            let ended = baton_actions::end_survivors(&left.prefix, left.grace, &spared);
            if ended.is_ok() {
                drop(baton_actions::wait_for_survivors(&left.prefix, &|one| (left.stays)(&one.attempt)));
            }
        });
    }

    fn release(&mut self, prefix: &str) {
        self.host.release(prefix);
    }
}

impl Processes {
    /// Does something that blocks in a thread of its own, then wakes the loop.
    fn in_background(&self, work: impl FnOnce() + Send + 'static) {
        let Some(wake) = self.wake.clone() else { return };
        std::thread::spawn(move || {
            work();
            // A FIFO that is full of wakes wakes as well.
            let _ = (&*wake).write(&[1]);
        });
    }
}
