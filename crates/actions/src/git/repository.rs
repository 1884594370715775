//! The repository that an action works on: where its parts are, and which commit a name means.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::command::Git;
use super::{bad_input, blocked};
use crate::registry::ActionFailure;

/// A repository with a work tree.
pub(super) struct Repository {
    /// git, run at the top of the work tree.
    pub(super) git: Git,
    /// The top of the work tree.
    pub(super) top: PathBuf,
    /// The git folder of this work tree.
    pub(super) git_dir: PathBuf,
    /// The git folder that all work trees of the repository share.
    pub(super) common_dir: PathBuf,
}

impl Repository {
    /// The repository whose work tree holds `folder`.
    pub(super) fn open(folder: &str) -> Result<Self, ActionFailure> {
        let folder = std::path::absolute(folder)
            .map_err(|error| bad_input(format!("`{folder}` is not a path to a repository: {error}")))?;
        if !folder.is_dir() {
            return Err(bad_input(format!("the repository's folder {} does not exist", folder.display())));
        }
        let git = Git::at(&folder);
        let questions = ["--is-inside-work-tree", "--show-toplevel", "--absolute-git-dir", "--git-common-dir"];
        let asked = git.run(&[&["rev-parse", "--path-format=absolute"], &questions[..]].concat())?;
        let answers: Vec<&[u8]> = asked.stdout.split(|byte| *byte == b'\n').collect();
        match answers[..] {
            [b"true", top, git_dir, common_dir, b""] if asked.code == Some(0) => {
                let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
                let top = path(top);
                Ok(Self { git: Git::at(&top), top, git_dir: path(git_dir), common_dir: path(common_dir) })
            }
            [b"true", ..] if asked.code == Some(0) => Err(blocked(format!(
                "the path of the repository at {} has a line break in it, which git's answers cannot show; rename it",
                folder.display()
            ))),
            _ => Err(blocked(format!(
                "{} is not inside the work tree of a git repository: {}; start the run in one, or name one in \
                 `repository`",
                folder.display(),
                asked.stderr.trim(),
            ))),
        }
    }

    /// The folder inside the git folder that belongs to these actions.
    pub(super) fn own_folder(&self) -> PathBuf {
        self.common_dir.join("baton")
    }
}

/// Refuses what git does not take as the name of a branch. What passes is only ever used as a full ref name, behind
/// `refs/heads/`, so a branch called `-x` cannot be read as an option.
pub(super) fn check_branch(git: &Git, name: &str) -> Result<(), ActionFailure> {
    if git.asks(&["check-ref-format", &format!("refs/heads/{name}")])? {
        return Ok(());
    }
    Err(bad_input(format!("{name:?} is not a name that a git branch can have (see `git help check-ref-format`)")))
}

/// Refuses a remote that is not configured, and names those that are.
pub(super) fn check_remote(git: &Git, name: &str) -> Result<(), ActionFailure> {
    let remotes = String::from_utf8_lossy(&git.bytes(&["remote"])?).into_owned();
    let known: Vec<&str> = remotes.lines().collect();
    if known.contains(&name) && !name.starts_with('-') {
        return Ok(());
    }
    let known = if known.is_empty() { "there is none".to_owned() } else { format!("there are: {}", known.join(", ")) };
    Err(blocked(format!("the repository has no remote {name:?}; {known}. Add it with `git remote add <name> <url>`")))
}

/// The commit that a full ref name or object id stands for.
pub(super) fn commit_of(git: &Git, name: &str) -> Result<Option<String>, ActionFailure> {
    git.line_if(&["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{name}^{{commit}}")])
}

/// Whether `old` is `new` or one of its ancestors.
pub(super) fn is_ancestor(git: &Git, old: &str, new: &str) -> Result<bool, ActionFailure> {
    git.asks(&["merge-base", "--is-ancestor", old, new])
}

/// The ref under which a branch of the remote is kept here.
pub(super) fn tracking_ref(remote: &str, branch: &str) -> String {
    format!("refs/remotes/{remote}/{branch}")
}

/// The start of a commit id, as people read it.
pub(super) fn short(commit: &str) -> &str {
    commit.get(..10).unwrap_or(commit)
}

/// So many commits, in words.
pub(super) fn commits(count: u64) -> String {
    if count == 1 { "1 commit".to_owned() } else { format!("{count} commits") }
}

/// A path as text for an output, which is JSON.
pub(super) fn output_path(path: &Path) -> Result<String, ActionFailure> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        blocked(format!(
            "the path {} is not UTF-8, so it cannot stand in an output; move the repository",
            path.display()
        ))
    })
}

/// The parents of a commit, in order.
pub(super) fn parents(git: &Git, commit: &str) -> Result<Vec<String>, ActionFailure> {
    let line = git.line(&["rev-list", "--parents", "-n", "1", commit, "--"])?;
    Ok(line.split_ascii_whitespace().skip(1).map(str::to_owned).collect())
}

/// Answers how many commits `new` has that `old` has not, leaving out what `besides` has too.
pub(super) fn count_commits(git: &Git, old: &str, new: &str, besides: Option<&str>) -> Result<u64, ActionFailure> {
    let (not_old, not_besides) = (format!("^{old}"), besides.map(|commit| format!("^{commit}")));
    let mut arguments = vec!["rev-list", "--count", new, &not_old];
    arguments.extend(not_besides.as_deref());
    arguments.push("--");
    let line = git.line(&arguments)?;
    line.parse().map_err(|_| super::failed(format!("`git rev-list --count` answered {line:?}, not a number")))
}
