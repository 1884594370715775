//! Where attempts are born: in the cgroup of their run, where the machine lets us make one.
//!
//! A subreaper loses sight of its descendants when it dies; a cgroup does not. It is for whoever comes after us, so all
//! that is asked of it here is that each process is born in it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use baton_core::Epoch;
use rustix::io::Errno;

use crate::Containment;
use crate::cgroups::{attempt_folder, remove_abandoned, run_folder};
use crate::environment::run_prefix_of;
use crate::job::Job;
use crate::program::StartError;
use crate::sys::{Cgroup, remove_cgroup};

/// The cgroups of the runs that are driven here.
pub(super) struct Birthplaces {
    /// Ours, in which they are made; `None`: this machine allows none, which was asked once.
    parent: Option<PathBuf>,
    owner: Epoch,
    runs: HashMap<String, Rc<Cgroup>>,
    /// Those of runs that are over, in which somebody was left.
    occupied: Vec<PathBuf>,
    /// Whether what dead owners left was looked for.
    is_tidy: bool,
}

impl Birthplaces {
    pub(super) fn new(parent: Option<PathBuf>, owner: Epoch) -> Self {
        Self { parent, owner, runs: HashMap::new(), occupied: Vec::new(), is_tidy: false }
    }

    pub(super) fn containment(&self) -> Containment {
        if self.parent.is_some() { Containment::Cgroup } else { Containment::Subreaper }
    }

    /// Where an attempt is to be born. One whose processes may stay has a cgroup of its own, so that they can be told
    /// from those that must not.
    pub(super) fn of(&mut self, job: &Job) -> Option<Rc<Cgroup>> {
        let parent = self.parent.as_ref()?;
        if !std::mem::replace(&mut self.is_tidy, true) {
            remove_abandoned(parent);
        }
        let prefix = run_prefix_of(&job.attempt_name);
        let run = match self.runs.get(prefix) {
            Some(run) => Rc::clone(run),
            None => match Cgroup::make(parent.join(run_folder(&job.attempt_name, self.owner))) {
                Ok(run) => {
                    let run = Rc::new(run);
                    self.runs.insert(prefix.to_owned(), Rc::clone(&run));
                    run
                }
                Err(error) => {
                    self.give_up_unless_busy(Errno::from_io_error(&error).unwrap_or(Errno::IO));
                    return None;
                }
            },
        };
        if job.detach {
            return Some(Cgroup::make(run.path().join(attempt_folder(&job.attempt_name))).map_or(run, Rc::new));
        }
        Some(run)
    }

    /// The attempt could not be born there, for this reason.
    pub(super) fn note_refusal(&mut self, job: &Job, errno: Errno) {
        match errno {
            // Somebody has removed it while it was empty.
            Errno::NODEV | Errno::NOENT => drop(self.runs.remove(run_prefix_of(&job.attempt_name))),
            _ => self.give_up_unless_busy(errno),
        }
    }

    fn give_up_unless_busy(&mut self, errno: Errno) {
        if StartError::busy(errno).is_none() {
            self.remove_all();
            self.parent = None;
        }
    }

    /// An attempt has ended.
    pub(super) fn leave(&self, job: &Job) {
        if job.detach
            && let Some(run) = self.runs.get(run_prefix_of(&job.attempt_name))
        {
            // It stays as long as somebody is in it.
            remove_cgroup(&run.path().join(attempt_folder(&job.attempt_name)));
        }
    }

    /// The run `<store>/<run>/` is over.
    pub(super) fn release(&mut self, prefix: &str) {
        if let Some(run) = self.runs.remove(prefix) {
            self.occupied.push(run.path().to_owned());
        }
        self.occupied.retain(|path| !remove_cgroup(path));
    }

    fn remove_all(&mut self) {
        let runs = self.runs.drain().map(|(_, run)| run.path().to_owned());
        for path in self.occupied.drain(..).chain(runs) {
            // What is still occupied now belongs to whoever resumes the run, or to a detached step.
            remove_cgroup(&path);
        }
    }
}

impl Drop for Birthplaces {
    fn drop(&mut self) {
        self.remove_all();
    }
}
