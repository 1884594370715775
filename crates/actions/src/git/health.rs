//! `git.scan` and `git.sync_health`: whether there is everything that a merge needs, and nothing that it would harm.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::command::Git;
use super::repository::{
    Repository, check_branch, check_remote, commit_of, commits, count_commits, is_ancestor, output_path, short,
    tracking_ref,
};
use super::{Outcome, blocked, commit_id, failed, here, origin, outputs, path_text, say};
use crate::registry::ActionFailure;

/// The oldest git that has every option which these actions use (`rev-parse --path-format`).
const OLDEST_GIT: (u32, u32) = (2, 31);

/// How many changed paths a message lists.
const LISTED_PATHS: usize = 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScanInput {
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
pub(super) struct HealthInput {
    #[serde(default = "here")]
    repository: String,
    #[serde(default = "origin")]
    remote: String,
    branch: String,
    #[serde(default)]
    source: String,
    #[serde(deserialize_with = "commit_id")]
    target_commit: String,
    #[serde(deserialize_with = "commit_id")]
    source_commit: String,
    #[serde(default)]
    dirty: Dirty,
    #[serde(default)]
    unpushed: Unpushed,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Dirty {
    #[default]
    Involved,
    Refuse,
    Allow,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unpushed {
    #[default]
    Refuse,
    Leave,
}

/// `git.scan`.
pub(super) fn scan(input: ScanInput) -> Outcome {
    let version = Git::at(Path::new("/")).line(&["version"])?;
    if parse_version(&version).is_none_or(|found| found < OLDEST_GIT) {
        let (major, minor) = OLDEST_GIT;
        return Err(failed(format!("git {major}.{minor} or newer is needed; this is `{version}`")));
    }
    let repository = Repository::open(&input.repository)?;
    let git = &repository.git;
    check_remote(git, &input.remote)?;
    check_branch(git, &input.branch)?;
    if !input.source.is_empty() {
        // A commit id and a full ref name pass this check too; whether they exist is seen when they are fetched.
        check_branch(git, &input.source)?;
    }
    let committer = git.run(&["var", "GIT_COMMITTER_IDENT"])?;
    if committer.code != Some(0) {
        return Err(blocked(format!(
            "git does not know who commits: set `git config user.name` and `git config user.email`\n{}",
            committer.stderr.trim()
        )));
    }
    let committer = String::from_utf8_lossy(&committer.stdout);
    let committer = committer.split_once('>').map_or("", |(name, _)| name).to_owned() + ">";
    let head = git.line_if(&["symbolic-ref", "--quiet", "HEAD"])?;
    let head = head.map(|name| name.strip_prefix("refs/heads/").unwrap_or(&name).to_owned());
    say(format_args!("{version}"));
    say(format_args!("repository {}", repository.top.display()));
    say(format_args!("checked out: {}", head.as_deref().unwrap_or("no branch (detached HEAD)")));
    say(format_args!("committer {committer}"));
    Ok(outputs(json!({
        "git_version": version,
        "work_tree": output_path(&repository.top)?,
        "git_dir": output_path(&repository.common_dir)?,
        "checked_out": head.unwrap_or_default(),
        "committer": committer,
    })))
}

fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.strip_prefix("git version ")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// One thing that was looked at.
struct Finding {
    name: &'static str,
    blocks: bool,
    detail: String,
}

/// `git.sync_health`.
pub(super) fn sync_health(input: HealthInput) -> Outcome {
    let repository = Repository::open(&input.repository)?;
    let git = &repository.git;
    check_remote(git, &input.remote)?;
    check_branch(git, &input.branch)?;
    let changes = Changes::of(git)?;
    let findings = [
        unfinished(&repository),
        index_lock(&repository),
        shallow(git)?,
        dirt(git, &input, &changes)?,
        detached(git)?,
        local_branch(git, &input)?,
    ];
    let findings: Vec<Finding> = findings.into_iter().flatten().collect();
    for finding in &findings {
        say(format_args!("{} {}: {}", if finding.blocks { "BLOCKS" } else { "note  " }, finding.name, finding.detail));
    }
    let ahead = count_commits(git, &input.target_commit, &input.source_commit, None)?;
    let behind = count_commits(git, &input.source_commit, &input.target_commit, None)?;
    let relation = match (ahead, behind) {
        (0, _) => "merged",
        (_, 0) => "ahead",
        _ => "diverged",
    };
    say(format_args!("the source is {} ahead of the target and {behind} behind it: {relation}", commits(ahead)));
    let blocking: Vec<String> = findings
        .iter()
        .filter(|finding| finding.blocks)
        .map(|finding| format!("  {}: {}", finding.name, finding.detail))
        .collect();
    if !blocking.is_empty() {
        return Err(blocked(format!(
            "the repository is not fit for a merge; nothing was changed:\n{}",
            blocking.join("\n")
        )));
    }
    let listed: Vec<Value> =
        findings.iter().map(|finding| json!({"name": finding.name, "detail": finding.detail})).collect();
    Ok(outputs(json!({
        "notes": listed,
        "ahead": ahead,
        "behind": behind,
        "relation": relation,
        "changed": changes.tracked.len(),
        "untracked": changes.untracked,
    })))
}

/// An operation that somebody has begun in the user's work tree and not ended.
fn unfinished(repository: &Repository) -> Option<Finding> {
    const SIGNS: &[(&str, &str, &str)] = &[
        ("MERGE_HEAD", "a merge", "git merge --continue` or `git merge --abort"),
        ("rebase-merge", "a rebase", "git rebase --continue` or `git rebase --abort"),
        ("rebase-apply", "a rebase or `git am`", "git rebase --abort` or `git am --abort"),
        ("CHERRY_PICK_HEAD", "a cherry-pick", "git cherry-pick --continue` or `git cherry-pick --abort"),
        ("REVERT_HEAD", "a revert", "git revert --continue` or `git revert --abort"),
        ("BISECT_LOG", "a bisection", "git bisect reset"),
    ];
    let (_, what, how) = SIGNS.iter().find(|(sign, ..)| repository.git_dir.join(sign).exists())?;
    let detail = format!("{what} is unfinished, so branches are not what they are about to be: `{how}`");
    Some(Finding { name: "unfinished operation", blocks: true, detail })
}

fn index_lock(repository: &Repository) -> Option<Finding> {
    let lock = repository.git_dir.join("index.lock");
    // The merge has an index of its own, and editors take this lock for a moment all the time.
    let detail = format!(
        "{} exists: another git is at work here; if none is (a killed one leaves it behind), remove the file",
        lock.display()
    );
    lock.exists().then_some(Finding { name: "index lock", blocks: false, detail })
}

fn shallow(git: &Git) -> Result<Option<Finding>, ActionFailure> {
    let is_shallow = git.line(&["rev-parse", "--is-shallow-repository"])? == "true";
    let detail = "the history is cut off, so a merge may start from a wrong base: `git fetch --unshallow`".to_owned();
    Ok(is_shallow.then_some(Finding { name: "shallow clone", blocks: true, detail }))
}

fn detached(git: &Git) -> Result<Option<Finding>, ActionFailure> {
    let attached = git.asks(&["symbolic-ref", "--quiet", "HEAD"])?;
    let detail = "no branch is checked out; the merge does not use what is".to_owned();
    Ok((!attached).then_some(Finding { name: "detached HEAD", blocks: false, detail }))
}

/// What is not committed in the user's work tree.
struct Changes {
    tracked: Vec<String>,
    untracked: usize,
}

impl Changes {
    fn of(git: &Git) -> Result<Self, ActionFailure> {
        let listing = git.bytes(&["status", "--porcelain=v1", "-z", "--untracked-files=normal", "--no-renames"])?;
        let mut changes = Changes { tracked: Vec::new(), untracked: 0 };
        for record in listing.split(|byte| *byte == 0).filter(|record| record.len() > 3) {
            // What this program itself keeps in the tree is no change of the user's.
            let path = &record[3..];
            if path == b".baton/" || path.starts_with(b".baton/") || path.windows(8).any(|part| part == b"/.baton/") {
                continue;
            }
            match &record[..2] {
                b"??" => changes.untracked += 1,
                _ => changes.tracked.push(path_text::text(path)),
            }
        }
        Ok(changes)
    }
}

fn dirt(git: &Git, input: &HealthInput, changes: &Changes) -> Result<Option<Finding>, ActionFailure> {
    if changes.tracked.is_empty() {
        let detail = format!("{} untracked files or folders are not part of the merge", changes.untracked);
        return Ok((changes.untracked > 0).then_some(Finding { name: "untracked files", blocks: false, detail }));
    }
    let head = git.line_if(&["symbolic-ref", "--quiet", "HEAD"])?;
    let is_checked_out =
        |branch: &str| !branch.is_empty() && head.as_deref() == Some(format!("refs/heads/{branch}").as_str());
    let source = input.source.strip_prefix("refs/heads/").unwrap_or(&input.source);
    let blocks = match input.dirty {
        Dirty::Allow => false,
        Dirty::Refuse => true,
        Dirty::Involved => is_checked_out(&input.branch) || is_checked_out(source),
    };
    let listed = changes.tracked.iter().take(LISTED_PATHS).cloned().collect::<Vec<_>>().join(", ");
    let more = changes.tracked.len().saturating_sub(LISTED_PATHS);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let advice =
        if blocks { "; commit or stash them, or leave them out on purpose with --var DIRTY=allow" } else { "" };
    let detail = format!("uncommitted changes are not part of the merge: {listed}{more}{advice}");
    Ok(Some(Finding { name: "dirty work tree", blocks, detail }))
}

/// How the local branch stands to the remote's.
fn local_branch(git: &Git, input: &HealthInput) -> Result<Option<Finding>, ActionFailure> {
    let Some(local) = commit_of(git, &format!("refs/heads/{}", input.branch))? else { return Ok(None) };
    let remote = &input.target_commit;
    let name = "local branch";
    if is_ancestor(git, &local, remote)? {
        let behind = count_commits(git, &local, remote, None)?;
        let detail = format!("{} behind {}", commits(behind), tracking_ref(&input.remote, &input.branch));
        return Ok((behind > 0).then_some(Finding { name, blocks: false, detail }));
    }
    let left_out = count_commits(git, remote, &local, Some(&input.source_commit))?;
    if left_out == 0 {
        return Ok(None);
    }
    let blocks = input.unpushed == Unpushed::Refuse;
    let advice =
        if blocks { "; push or merge them first, or leave them out on purpose with --var UNPUSHED=leave" } else { "" };
    let detail = format!(
        "{} of {} (up to {}) missing both on {} and in the source, and so in the merge{advice}",
        commits(left_out),
        input.branch,
        short(&local),
        input.remote,
    );
    Ok(Some(Finding { name, blocks, detail }))
}
