//! `git.fetch` and `git.select`: bring the branch and the source here, and say which two commits the rest is about.
//!
//! They are two, because the first one may fail on the way and is worth another attempt; the second one decides.

use serde::Deserialize;
use serde_json::json;

use super::command::Git;
use super::repository::{
    Repository, check_branch, check_remote, commit_of, commits, count_commits, is_ancestor, short, tracking_ref,
};
use super::{Outcome, bad_input, blocked, here, origin, outputs, ref_locks, say};
use crate::registry::ActionFailure;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FetchInput {
    #[serde(default = "here")]
    repository: String,
    #[serde(default = "origin")]
    remote: String,
    branch: String,
    #[serde(default)]
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SelectInput {
    #[serde(default = "here")]
    repository: String,
    #[serde(default = "origin")]
    remote: String,
    branch: String,
    #[serde(default)]
    source: String,
    branch_on_remote: String,
    source_on_remote: String,
}

/// `git.fetch`.
pub(super) fn fetch(input: FetchInput) -> Outcome {
    let repository = Repository::open(&input.repository)?;
    let git = &repository.git;
    check_remote(git, &input.remote)?;
    check_branch(git, &input.branch)?;
    let mut branches = vec![input.branch.as_str()];
    if let Source::Branch(name) = Source::of(git, &input.branch, &input.source)? {
        branches.push(name);
    }
    let mut found = fetch_branches(&repository, &input.remote, &branches)?.into_iter().map(Option::unwrap_or_default);
    let (branch, source) = (found.next().unwrap_or_default(), found.next().unwrap_or_default());
    for (name, commit) in branches.iter().zip([&branch, &source]) {
        let commit = if commit.is_empty() { "not there" } else { short(commit) };
        say(format_args!("{name} of {}: {commit}", input.remote));
    }
    Ok(outputs(json!({"branch_on_remote": branch, "source_on_remote": source})))
}

/// `git.select`.
pub(super) fn select(input: SelectInput) -> Outcome {
    let repository = Repository::open(&input.repository)?;
    let git = &repository.git;
    check_branch(git, &input.branch)?;
    let on_remote = |commit: &str| (!commit.is_empty()).then(|| commit.to_owned());
    let target_commit =
        on_remote(&input.branch_on_remote).ok_or_else(|| no_such_branch(&input.remote, &input.branch))?;
    let source = Source::of(git, &input.branch, &input.source)?;
    let (source_commit, source_ref) = source.commit(git, &input, on_remote(&input.source_on_remote))?;
    let ahead = count_commits(git, &target_commit, &source_commit, None)?;
    let behind = count_commits(git, &source_commit, &target_commit, None)?;
    say(format_args!("target {} ({} of {})", short(&target_commit), input.branch, input.remote));
    say(format_args!(
        "source {} ({source_ref}): {} to merge, {behind} behind the target",
        short(&source_commit),
        commits(ahead)
    ));
    Ok(outputs(json!({
        "target_commit": target_commit,
        "source_commit": source_commit,
        "source_ref": source_ref,
        "ahead": ahead,
        "behind": behind,
    })))
}

/// Fetches branches into their tracking refs and answers with their commits, `None` for one that the remote has not.
pub(super) fn fetch_branches(
    repository: &Repository,
    remote: &str,
    branches: &[&str],
) -> Result<Vec<Option<String>>, ActionFailure> {
    let git = &repository.git;
    let refs: Vec<String> = branches.iter().map(|branch| format!("refs/heads/{branch}")).collect();
    let mut list = vec!["ls-remote", "--end-of-options", remote];
    list.extend(refs.iter().map(String::as_str));
    let listing = String::from_utf8_lossy(&git.bytes(&list)?).into_owned();
    // The remote matches by the end of names, so it may list more than was asked for.
    let has = |name: &str| listing.lines().any(|line| line.split_once('\t').is_some_and(|(_, found)| found == name));
    let present: Vec<bool> = refs.iter().map(|name| has(name)).collect();
    let wanted: Vec<&str> =
        branches.iter().zip(&present).filter(|(_, present)| **present).map(|(branch, _)| *branch).collect();
    if !wanted.is_empty() {
        let tracking: Vec<String> = wanted.iter().map(|branch| tracking_ref(remote, branch)).collect();
        let refspecs: Vec<String> =
            wanted.iter().zip(&tracking).map(|(branch, tracking)| format!("+refs/heads/{branch}:{tracking}")).collect();
        // `FETCH_HEAD` is the user's; the tracking refs are as any fetch would leave them.
        let mut arguments =
            vec!["fetch", "--no-tags", "--no-write-fetch-head", "--refmap=", "--end-of-options", remote];
        arguments.extend(refspecs.iter().map(String::as_str));
        let done = ref_locks::during(repository, &tracking, || git.run(&arguments))?;
        if done.code != Some(0) {
            return Err(done.failure());
        }
        done.show();
    }
    let mut commits = Vec::new();
    for (branch, present) in branches.iter().zip(present) {
        commits.push(if present { commit_of(git, &tracking_ref(remote, branch))? } else { None });
    }
    Ok(commits)
}

pub(super) fn no_such_branch(remote: &str, branch: &str) -> ActionFailure {
    blocked(format!(
        "{remote} has no branch {branch:?}; push it once (`git push {remote} <commit>:refs/heads/<branch>`), or name \
         another"
    ))
}

/// What the user named as the source.
enum Source<'a> {
    /// The local branch of the same name as the one that is merged into.
    Local,
    /// A branch, here or on the remote.
    Branch(&'a str),
    /// A full ref name or a commit id.
    Exact(&'a str),
}

impl<'a> Source<'a> {
    fn of(git: &Git, branch: &str, name: &'a str) -> Result<Self, ActionFailure> {
        if name.is_empty() || name == branch {
            return Ok(Source::Local);
        }
        let is_id = matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id || name.starts_with("refs/") {
            return Ok(Source::Exact(name));
        }
        check_branch(git, name)?;
        Ok(Source::Branch(name))
    }

    /// The commit, and the name under which it was found.
    fn commit(
        &self,
        git: &Git,
        input: &SelectInput,
        on_remote: Option<String>,
    ) -> Result<(String, String), ActionFailure> {
        match self {
            Source::Local => {
                let name = format!("refs/heads/{}", input.branch);
                let commit = commit_of(git, &name)?.ok_or_else(|| {
                    bad_input(format!(
                        "`source` is empty, which means the local branch {:?}, and there is none; name a source",
                        input.branch
                    ))
                })?;
                Ok((commit, name))
            }
            Source::Exact(name) => {
                let commit = commit_of(git, name)?.ok_or_else(|| {
                    blocked(format!("the source {name:?} is no commit of this repository; fetch it, or name a branch"))
                })?;
                Ok((commit, (*name).to_owned()))
            }
            Source::Branch(name) => {
                let (here, there) = (format!("refs/heads/{name}"), tracking_ref(&input.remote, name));
                match (commit_of(git, &here)?, on_remote) {
                    (Some(local), None) => Ok((local, here)),
                    (None, Some(remote)) => Ok((remote, there)),
                    (None, None) => Err(blocked(format!(
                        "there is no branch {name:?}, neither here nor on {}; `git branch --all` lists what there is",
                        input.remote
                    ))),
                    (Some(local), Some(remote)) if is_ancestor(git, &remote, &local)? => Ok((local, here)),
                    (Some(local), Some(remote)) if is_ancestor(git, &local, &remote)? => Ok((remote, there)),
                    (Some(_), Some(_)) => Err(blocked(format!(
                        "the source {name:?} has gone two ways: {here} and {there} each have commits that the other \
                         has not. Bring them together, or say which one is meant: SOURCE={here} or SOURCE={there}"
                    ))),
                }
            }
        }
    }
}
