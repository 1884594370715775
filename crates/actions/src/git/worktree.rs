//! The work tree in which a merge happens: made, opened, judged, and removed again.
//!
//! Its place is fixed by the remote and the branch, so that a later run finds what an earlier one left, such as a
//! merge that waits for a person. By default it lies inside the repository's git folder: there it is neither dirt
//! nor a nested repository to anybody, `git clean` cannot reach it, and it is on the same file system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::command::Git;
use super::repository::{self, Repository, check_branch, check_remote, output_path, short};
use super::{
    Outcome, bad_input, blocked, commit_id, conflict, failed, here, origin, outputs, path_text, say, try_again,
};
use crate::registry::ActionFailure;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    #[serde(default = "here")]
    repository: String,
    #[serde(default = "origin")]
    remote: String,
    branch: String,
    #[serde(deserialize_with = "commit_id")]
    target_commit: String,
    #[serde(deserialize_with = "commit_id")]
    source_commit: String,
    #[serde(default)]
    path: String,
}

/// What the work tree's own record says, kept beside its index. It is written before what it speaks of is done.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// The commit that is merged into.
    pub(super) target: String,
    /// The commit that is merged.
    pub(super) source: String,
    /// Whether `git merge` has done all it can.
    #[serde(default)]
    pub(super) merged: bool,
    /// The paths that `git merge` left unmerged, as text.
    #[serde(default)]
    pub(super) conflicts: Vec<String>,
    /// Those of them whose file git wrote conflict marks into.
    #[serde(default)]
    pub(super) marked: Vec<String>,
    /// What the policy decided.
    #[serde(default)]
    pub(super) resolved: Vec<Resolved>,
    /// What is left, and why the policy left it.
    #[serde(default)]
    pub(super) left: Vec<Left>,
    /// Whether a resolver or a person decided something.
    #[serde(default)]
    pub(super) by_hand: bool,
    /// Once a person was asked: the content of each file that was left then, by path.
    #[serde(default)]
    pub(super) handed_over: Option<BTreeMap<String, String>>,
}

/// A conflict that the policy decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Resolved {
    pub(super) path: String,
    pub(super) class: String,
    pub(super) took: String,
    pub(super) why: String,
}

/// A conflict that the policy left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Left {
    pub(super) path: String,
    pub(super) class: String,
    pub(super) kind: String,
    pub(super) why: String,
}

/// Where the work tree stands in the merge that its record speaks of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stand {
    /// The merge has not begun, or was cut off in the middle of git's part.
    NotMerged,
    /// git's part is done; conflicts may be left.
    InProgress,
    /// The merge is committed.
    Committed(String),
    /// `HEAD` is something else: somebody has been here.
    Elsewhere(String),
}

/// The merge's work tree, locked against other actions for as long as this value lives.
pub(super) struct Worktree {
    /// git, run at the top of this work tree.
    pub(super) git: Git,
    pub(super) path: PathBuf,
    /// The folder inside the shared git folder that holds this work tree's index and `HEAD`.
    pub(super) admin: PathBuf,
    _lock: File,
}

/// `git.worktree`.
pub(super) fn make(input: Input) -> Outcome {
    let repository = Repository::open(&input.repository)?;
    check_remote(&repository.git, &input.remote)?;
    check_branch(&repository.git, &input.branch)?;
    let path = if input.path.is_empty() {
        repository.own_folder().join("worktrees").join(name(&input.remote, &input.branch))
    } else {
        std::path::absolute(&input.path).map_err(|error| failed(format!("`path`: {error}")))?
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)
        .and_then(|()| parent.canonicalize())
        .map_err(|error| failed(format!("cannot make the folder {}: {error}", parent.display())))
        .and_then(|parent| {
            let path = parent.join(path.file_name().unwrap_or_default());
            make_at(&repository, &input, &path)
        })
}

fn make_at(repository: &Repository, input: &Input, path: &Path) -> Outcome {
    let answer = |continued: bool| Ok(outputs(json!({"path": output_path(path)?, "continued": continued})));
    let lock = lock(repository, path)?;
    if let Some(admin) = admin_of(repository, path)? {
        if !is_ours(repository, path, &admin) {
            return Err(blocked(format!(
                "{} is a work tree of yours, not of a merge; name another `path`, or remove it",
                path.display()
            )));
        }
        let worktree = Worktree { git: Git::at(path), path: path.to_owned(), admin, _lock: lock };
        if let Some(state) = worktree.state()? {
            let same = state.target == input.target_commit && state.source == input.source_commit;
            if same && state.handed_over.is_some() {
                say(format_args!("going on with the merge that was left for a person in {}", path.display()));
                return answer(true);
            }
            worktree.refuse_to_lose_work(&state)?;
        }
        say(format_args!("removing what an earlier attempt left in {}", path.display()));
        worktree.remove()?;
        return add(repository, input, path).and_then(|()| answer(false));
    }
    match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) if is_own_place(repository, path) => remove_folder(path)?,
        Ok(false) => {
            return Err(blocked(format!(
                "{} holds files and is no work tree of this repository; name another `path`, or empty it",
                path.display()
            )));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(format!("cannot read the folder {}: {error}", path.display()))),
    }
    add(repository, input, path).and_then(|()| answer(false))
}

fn add(repository: &Repository, input: &Input, path: &Path) -> Result<(), ActionFailure> {
    // Before there is anything at the place: what an attempt that is killed leaves there is known as ours.
    let claim = claim(repository, path);
    fs::write(&claim, path.as_os_str().as_bytes())
        .map_err(|error| failed(format!("cannot write {}: {error}", claim.display())))?;
    let arguments = ["worktree", "add", "--detach", "--end-of-options"].map(std::ffi::OsStr::new);
    let rest = [path.as_os_str(), std::ffi::OsStr::new(&input.target_commit)];
    repository.git.bytes(&[&arguments[..], &rest].concat())?;
    let Some(admin) = admin_of(repository, path)? else {
        return Err(failed(format!("`git worktree add` succeeded but git does not know {}", path.display())));
    };
    let state = State { target: input.target_commit.clone(), source: input.source_commit.clone(), ..State::default() };
    write_state(&admin, &state)?;
    say(format_args!("{} stands at {}", path.display(), short(&input.target_commit)));
    Ok(())
}

impl Worktree {
    /// Opens the work tree at `path`, which [`make`] made.
    pub(super) fn open(path: &str) -> Result<Self, ActionFailure> {
        let missing = || blocked(format!("{path} is no work tree made by `git.worktree`; run that step first"));
        if !Path::new(path).join(".git").exists() {
            return Err(missing());
        }
        let repository = Repository::open(path)?;
        let lock = lock(&repository, &repository.top)?;
        let admin = repository.git_dir.clone();
        if admin == repository.common_dir || !is_ours(&repository, &repository.top, &admin) {
            return Err(missing());
        }
        remove_git_locks(&admin)?;
        Ok(Self { git: repository.git, path: repository.top, admin, _lock: lock })
    }

    /// Refuses a work tree that belongs to another repository than the one it was named with.
    pub(super) fn check_repository(&self, repository: &Repository) -> Result<(), ActionFailure> {
        if self.admin.starts_with(&repository.common_dir) {
            return Ok(());
        }
        let (path, top) = (self.path.display(), repository.top.display());
        Err(bad_input(format!("{path} is a work tree of another repository than {top}")))
    }

    /// What the record says; `None` where the work tree was never finished.
    pub(super) fn state(&self) -> Result<Option<State>, ActionFailure> {
        let file = self.admin.join(STATE_FILE);
        match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
                blocked(format!(
                    "the record {} cannot be read: {error}; remove the work tree with {}",
                    file.display(),
                    self.removal()
                ))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(format!("cannot read {}: {error}", file.display()))),
        }
    }

    /// The record, if it speaks of this merge.
    pub(super) fn state_of(&self, target: &str, source: &str) -> Result<State, ActionFailure> {
        match self.state()? {
            Some(state) if state.target == target && state.source == source => Ok(state),
            Some(state) => Err(blocked(format!(
                "{} holds the merge of {} into {}, not that of {} into {}: another run has taken it over; \
                 start a new run once that one has ended",
                self.path.display(),
                short(&state.source),
                short(&state.target),
                short(source),
                short(target),
            ))),
            None => Err(blocked(format!("{} was never finished; run `git.worktree` again", self.path.display()))),
        }
    }

    /// Replaces the record.
    pub(super) fn save(&self, state: &State) -> Result<(), ActionFailure> {
        write_state(&self.admin, state)
    }

    /// Where the work tree stands in the merge that `state` speaks of.
    pub(super) fn stand(&self, state: &State) -> Result<Stand, ActionFailure> {
        let Some(head) = repository::commit_of(&self.git, "HEAD")? else { return Ok(Stand::NotMerged) };
        let merging = repository::commit_of(&self.git, "MERGE_HEAD")?;
        if head == state.target {
            let in_progress = state.merged && merging.as_deref() == Some(&state.source);
            return Ok(if in_progress { Stand::InProgress } else { Stand::NotMerged });
        }
        if repository::parents(&self.git, &head)? == [state.target.as_str(), state.source.as_str()] {
            return Ok(Stand::Committed(head));
        }
        Ok(Stand::Elsewhere(head))
    }

    /// The content ids of files in the work tree, by path as text; a file that is not there has an empty id.
    pub(super) fn content_ids(&self, paths: &[String]) -> Result<BTreeMap<String, String>, ActionFailure> {
        let mut ids = BTreeMap::new();
        for path in paths {
            let bytes = path_text::bytes(path);
            let file = self.path.join(std::ffi::OsStr::from_bytes(&bytes));
            let id = match fs::symlink_metadata(&file) {
                Ok(found) if found.is_file() => self.git.line(&[
                    std::ffi::OsStr::new("hash-object"),
                    "--no-filters".as_ref(),
                    "--".as_ref(),
                    file.as_os_str(),
                ])?,
                Ok(_) => "not a file".to_owned(),
                Err(_) => String::new(),
            };
            ids.insert(path.clone(), id);
        }
        Ok(ids)
    }

    /// Whether a person has worked here since the merge was handed over.
    pub(super) fn was_worked_on(&self, state: &State) -> Result<bool, ActionFailure> {
        let Some(then) = &state.handed_over else { return Ok(false) };
        if self.stand(state)? != Stand::InProgress {
            return Ok(true);
        }
        let unmerged: BTreeSet<String> =
            conflict::unmerged(&self.git)?.iter().map(|unmerged| path_text::text(&unmerged.path)).collect();
        let left: Vec<String> = then.keys().cloned().collect();
        Ok(!unmerged.iter().eq(&left) || self.content_ids(&left)? != *then)
    }

    /// Fails where starting over would throw a person's work away.
    pub(super) fn refuse_to_lose_work(&self, state: &State) -> Result<(), ActionFailure> {
        if !self.was_worked_on(state)? {
            return Ok(());
        }
        Err(blocked(format!(
            "somebody has worked on the merge of {} into {} in {}, and starting over would lose that work. Finish it \
             there and retry the run that asked for it, or give it up with: {}",
            short(&state.source),
            short(&state.target),
            self.path.display(),
            self.removal(),
        )))
    }

    /// The command that removes this work tree, for people.
    pub(super) fn removal(&self) -> String {
        format!("git worktree remove --force {}", path_text::shell_word(self.path.as_os_str().as_bytes()))
    }

    /// Removes the work tree and all that git keeps about it.
    pub(super) fn remove(self) -> Result<(), ActionFailure> {
        // In this order: as long as git knows of the folder, a killed removal is seen and repeated.
        remove_folder(&self.path)?;
        remove_folder(&self.admin)
    }
}

/// Removes the work tree at `path` if it is one of the repository's; one that is gone already is gone.
pub(super) fn remove_at(repository: &Repository, path: &Path) -> Result<bool, ActionFailure> {
    let lock = lock(repository, path)?;
    let Some(admin) = admin_of(repository, path)? else { return Ok(false) };
    if !is_ours(repository, path, &admin) {
        return Err(blocked(format!("{} is a work tree of yours, so it is kept", path.display())));
    }
    Worktree { git: Git::at(path), path: path.to_owned(), admin, _lock: lock }.remove()?;
    Ok(true)
}

const STATE_FILE: &str = "baton-merge.json";

fn write_state(admin: &Path, state: &State) -> Result<(), ActionFailure> {
    let (file, fresh) = (admin.join(STATE_FILE), admin.join("baton-merge.json.new"));
    serde_json::to_vec_pretty(state)
        .map_err(std::io::Error::from)
        .and_then(|text| {
            // Synced, for after a power cut it is the only word on what a person has decided here.
            let mut file = File::create(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&fresh, &file))
        .map_err(|error| failed(format!("cannot write {}: {error}", file.display())))
}

/// Whether a work tree was made by [`make`]: any other is the user's, and is never removed. One has our record, or
/// it was claimed and never finished.
fn is_ours(repository: &Repository, path: &Path, admin: &Path) -> bool {
    let claimed = || fs::read(claim(repository, path)).is_ok_and(|claimed| claimed == path.as_os_str().as_bytes());
    is_own_place(repository, path) || admin.join(STATE_FILE).exists() || (!admin.join("index").exists() && claimed())
}

/// Whether a place is one that nobody but these actions uses.
fn is_own_place(repository: &Repository, path: &Path) -> bool {
    path.starts_with(repository.own_folder().join("worktrees"))
}

/// The file that says that a work tree is being made at a place.
fn claim(repository: &Repository, path: &Path) -> PathBuf {
    repository.own_folder().join(format!("{:016x}.claim", fnv1a(path.as_os_str().as_bytes())))
}

/// Keeps other actions out of a work tree for as long as the file is open.
fn lock(repository: &Repository, path: &Path) -> Result<File, ActionFailure> {
    let folder = repository.own_folder();
    let file = folder.join(format!("{:016x}.lock", fnv1a(path.as_os_str().as_bytes())));
    let opened = fs::create_dir_all(&folder).and_then(|()| File::create(&file));
    let opened = opened.map_err(|error| failed(format!("cannot open {}: {error}", file.display())))?;
    match opened.try_lock() {
        Ok(()) => Ok(opened),
        Err(TryLockError::WouldBlock) => {
            Err(try_again(format!("another action works in {} at this moment", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(failed(format!("cannot lock {}: {error}", file.display()))),
    }
}

/// Removes the locks that a git which was killed has left. With our own lock held, nobody else works here by an action.
fn remove_git_locks(admin: &Path) -> Result<(), ActionFailure> {
    let entries = fs::read_dir(admin).map_err(|error| failed(format!("cannot read {}: {error}", admin.display())))?;
    for leftover in entries.flatten().map(|entry| entry.path()) {
        if leftover.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        match fs::remove_file(&leftover) {
            Ok(()) => say(format_args!("removed {}, left by an attempt that was killed", leftover.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(format!("cannot remove {}: {error}", leftover.display()))),
        }
    }
    Ok(())
}

/// The folder in which git keeps the index and `HEAD` of the work tree at `path`, if it knows of one there.
fn admin_of(repository: &Repository, path: &Path) -> Result<Option<PathBuf>, ActionFailure> {
    let all = repository.common_dir.join("worktrees");
    let entries = match fs::read_dir(&all) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(format!("cannot read {}: {error}", all.display()))),
    };
    for entry in entries.flatten() {
        let Ok(mut place) = fs::read(entry.path().join("gitdir")) else { continue };
        place.pop_if(|last| *last == b'\n');
        // Newer versions of git can write it relative to this folder.
        let place = entry.path().join(std::ffi::OsStr::from_bytes(&place));
        let parent = place.parent().map(|parent| parent.canonicalize().unwrap_or_else(|_| parent.to_owned()));
        if parent.as_deref() == Some(path) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

fn remove_folder(path: &Path) -> Result<(), ActionFailure> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(failed(format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// A folder name for the merges into a branch: readable, and different for different branches.
fn name(remote: &str, branch: &str) -> String {
    let readable: String = branch
        .chars()
        .take(40)
        .map(|char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '_' })
        .collect();
    format!("merge-{readable}-{:016x}", fnv1a(format!("{remote}\0{branch}").as_bytes()))
}

/// FNV-1a: a hash that is the same in every build, which the standard library's is not.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
