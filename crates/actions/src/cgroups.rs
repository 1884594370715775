//! The cgroups of runs: what they are called, how those of a dead owner are found again, and who is in them.
//!
//! Each owner of a run has one for it, `baton-<store>-<run>-<epoch>` in its own, and in it a `step-<step path>%2F<n>`
//! for each attempt whose processes may stay: what is found there is known to be that attempt's, whatever it hides.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_core::Epoch;

use crate::environment::run_prefix_of;
use crate::sys;

/// The cgroup of this process, where it has one of version 2 and can see it: the place for those of runs.
pub fn own_cgroup() -> Option<PathBuf> {
    sys::own_cgroup()
}

const RUN: &str = "baton-";
const STEP: &str = "step-";

/// At most so many cgroups are looked at in search of those of a run: more than machines have.
const SEARCHED: usize = 20_000;

/// The folder's name of an owner's cgroup for the run of an attempt.
pub(crate) fn run_folder(attempt_name: &str, owner: Epoch) -> String {
    format!("{}{}", run_folders(run_prefix_of(attempt_name)), owner.0)
}

/// The folder's name of the cgroup of one attempt, in that of its run.
pub(crate) fn attempt_folder(attempt_name: &str) -> String {
    format!("{STEP}{}", escaped(&attempt_name[run_prefix_of(attempt_name).len()..]))
}

/// How the names of all owners' folders for a run begin.
fn run_folders(prefix: &str) -> String {
    let run = prefix.trim_end_matches('/');
    let (store, run) = run.rsplit_once('/').unwrap_or(("", run));
    format!("{RUN}{}-{}-", escaped(store), escaped(run))
}

/// A text as a part of a file's name; two texts never become one.
fn escaped(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

/// Removes those of runs that dead owners have left in `place`, as far as nobody is in them: nobody else comes back for
/// one whose last process ended after its owner.
pub(crate) fn remove_abandoned(place: &Path) {
    for path in sys::cgroups_in(place).iter().filter(|path| name_of(path).starts_with(RUN)) {
        sys::remove_ownerless_cgroup(path);
    }
}

/// What is known of a process from the cgroup that it is in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    /// Whose cgroup it is.
    pub(crate) owner: Epoch,
    /// The attempt, where it has a cgroup of its own.
    pub(crate) attempt: Option<String>,
}

/// The cgroups of one run, as they were when they were looked for. Those of dead owners are all there: a dead owner
/// makes none.
pub(crate) struct RunCgroups {
    prefix: String,
    folders: Vec<(PathBuf, Epoch)>,
}

impl RunCgroups {
    /// Looks for those of the run `<store>/<run>/` on the whole machine: its owners may have been anywhere.
    pub(crate) fn search(prefix: &str) -> Self {
        let names = run_folders(prefix);
        let mut folders = Vec::new();
        let mut open: VecDeque<PathBuf> = sys::cgroup_tree().into_iter().collect();
        for _ in 0..SEARCHED {
            let Some(path) = open.pop_front() else { break };
            if let Some(owner) = name_of(&path).strip_prefix(&names).and_then(|number| number.parse().ok()) {
                folders.push((path.clone(), Epoch(owner)));
            }
            open.extend(sys::cgroups_in(&path));
        }
        Self { prefix: prefix.to_owned(), folders }
    }

    /// The processes that are in them now. What is in a cgroup of another run is not this run's.
    pub(crate) fn members(&self) -> HashMap<u32, Member> {
        let mut members = HashMap::new();
        for (folder, owner) in &self.folders {
            let mut open = vec![(folder.clone(), Member { owner: *owner, attempt: None })];
            while let Some((path, member)) = open.pop() {
                members.extend(sys::members_of_cgroup(&path).into_iter().map(|pid| (pid, member.clone())));
                for beneath in sys::cgroups_in(&path) {
                    let name = name_of(&beneath);
                    if name.starts_with(RUN) {
                        continue;
                    }
                    let rest = name.strip_prefix(STEP).filter(|_| path == *folder).and_then(unescaped);
                    let attempt = rest.map(|rest| self.prefix.clone() + &rest).or_else(|| member.attempt.clone());
                    open.push((beneath, Member { owner: *owner, attempt }));
                }
            }
        }
        members
    }

    /// Kills at one stroke what is in those cgroups in which nobody `stays`. Nothing that forks gets past that.
    pub(crate) fn kill_unless(&self, stays: impl Fn(u32) -> bool) {
        for (folder, _) in &self.folders {
            if !all_members(folder).into_iter().any(&stays) {
                sys::kill_cgroup(folder);
            }
        }
    }

    /// Waits until one of them is empty, at most this long.
    pub(crate) fn wait(&self, timeout: Duration) {
        let paths: Vec<&Path> = self.folders.iter().map(|(folder, _)| &**folder).collect();
        if !paths.is_empty() {
            sys::wait_for_cgroups(&paths, timeout);
        }
    }

    /// Removes those that are empty. Best effort: an empty one that stays does no harm, and an owner whose cgroup was
    /// removed between two attempts makes it again.
    pub(crate) fn remove_empty(&self) {
        for (folder, _) in &self.folders {
            sys::remove_cgroup(folder);
        }
    }
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn all_members(folder: &Path) -> Vec<u32> {
    let mut members = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        members.extend(sys::members_of_cgroup(&path));
        open.extend(sys::cgroups_in(&path));
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_run_owner_and_attempt() {
        let attempt = "3f2a/12/sub.build[3]#2/1";
        assert_eq!(run_folder(attempt, Epoch(7)), "baton-3f2a-12-7");
        assert_eq!(attempt_folder(attempt), "step-sub.build%5B3%5D%232%2F1");
        assert_eq!(unescaped("sub.build%5B3%5D%232%2F1").unwrap(), "sub.build[3]#2/1");
        for damaged in ["%", "%4", "%zz", "%FF"] {
            assert_eq!(unescaped(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn no_two_runs_share_a_name() {
        assert_eq!(run_folders("a-1/2/"), "baton-a-1-2-");
        assert_eq!(run_folders("a/1-2/"), "baton-a-1-2-", "which is why a run is a number");
        assert_ne!(run_folders("a/../b/1/"), run_folders("a/b/1/"));
        assert!(!run_folders("../../etc/1/").contains('/'));
    }
}
