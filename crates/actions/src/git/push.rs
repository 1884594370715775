//! `git.push`: gets the merge onto the remote's branch, without force, whatever has happened there meanwhile.
//!
//! Each attempt first looks where the branch is now. The merge is there already: done. The branch is where the merge
//! began: push. The branch has moved: merge onto it in the same work tree, then push. A push that loses the race fails
//! with the code for "try again", and the plan's retries bound how often.

use serde::Deserialize;
use serde_json::json;

use super::command::{Done, Git};
use super::fetch::{fetch_branches, no_such_branch};
use super::merge::{conclude, resolve_by_command, resolve_by_policy, start, title};
use super::policy::Policy;
use super::repository::{Repository, check_branch, check_remote, commit_of, is_ancestor, short, tracking_ref};
use super::worktree::{Stand, State, Worktree};
use super::{Outcome, blocked, commit_id, here, origin, outputs, ref_locks, say, try_again};
use crate::registry::ActionFailure;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    #[serde(default = "here")]
    repository: String,
    worktree: String,
    #[serde(default = "origin")]
    remote: String,
    branch: String,
    #[serde(default)]
    source: String,
    #[serde(deserialize_with = "commit_id")]
    commit: String,
    #[serde(deserialize_with = "commit_id")]
    target_commit: String,
    #[serde(deserialize_with = "commit_id")]
    source_commit: String,
    #[serde(default)]
    policy: String,
    #[serde(default)]
    resolver: String,
    #[serde(default)]
    local_branch: LocalBranch,
    #[serde(default)]
    pre_push_hook: PrePushHook,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LocalBranch {
    #[default]
    FastForward,
    Leave,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PrePushHook {
    #[default]
    Skip,
    Run,
}

/// `git.push`.
pub(super) fn push(input: Input) -> Outcome {
    let policy = Policy::read(&input.policy)?;
    let worktree = Worktree::open(&input.worktree)?;
    // The remote may be given by a relative path, which git takes from the top of the work tree that it is run in.
    let repository = Repository::open(&input.repository)?;
    let git = &repository.git;
    worktree.check_repository(&repository)?;
    check_remote(git, &input.remote)?;
    check_branch(git, &input.branch)?;
    let tip = tip(&repository, &input)?;
    let mut commit = latest(&worktree, &input, &policy, &tip)?;
    let mut pushed = false;
    if is_ancestor(git, &commit, &tip)? {
        say(format_args!("{} of {} already has {}", input.branch, input.remote, short(&commit)));
    } else {
        if !is_ancestor(git, &tip, &commit)? {
            say(format_args!("{} of {} has moved to {}: merging onto it", input.branch, input.remote, short(&tip)));
            let source = match worktree.state()? {
                // What was decided by hand is not decided again: it is in the merge commit, so that is merged.
                Some(state) if state.by_hand => commit.clone(),
                _ => input.source_commit.clone(),
            };
            let mut state = start(&worktree, &tip, &source)?;
            commit = settle(&worktree, &mut state, &input, &policy)?;
        }
        let tracking = tracking_ref(&input.remote, &input.branch);
        ref_locks::during(&repository, std::slice::from_ref(&tracking), || {
            push_commit(git, &input, &commit)?;
            // git keeps its tracking ref itself, but only for branches that the remote is configured to fetch. Where
            // it has moved on meanwhile, this changes nothing.
            git.run(&["update-ref", &tracking, &commit, &tip])
        })?;
        pushed = true;
    }
    let local_branch = follow(&repository, &input, &commit)?;
    Ok(outputs(json!({"commit": commit, "pushed": pushed, "local_branch": local_branch})))
}

/// Where the remote's branch is now.
fn tip(repository: &Repository, input: &Input) -> Result<String, ActionFailure> {
    let found = fetch_branches(repository, &input.remote, &[&input.branch])?;
    found.into_iter().next().flatten().ok_or_else(|| no_such_branch(&input.remote, &input.branch))
}

/// The newest merge of this run's source: the one that the step was given, or one that an attempt before this one
/// made onto a branch that had moved, which may still wait to be committed.
fn latest(worktree: &Worktree, input: &Input, policy: &Policy, tip: &str) -> Result<String, ActionFailure> {
    let git = &worktree.git;
    let given = input.commit.clone();
    let Some(mut state) = worktree.state()? else { return Ok(given) };
    if !is_ancestor(git, &input.source_commit, &state.source)?
        || !is_ancestor(git, &input.target_commit, &state.target)?
    {
        return Err(blocked(format!(
            "{} holds the merge of {} into {}, which is not this run's: another run has taken it over; start a new run \
             once that one has ended",
            worktree.path.display(),
            short(&state.source),
            short(&state.target),
        )));
    }
    match worktree.stand(&state)? {
        Stand::Committed(commit) => Ok(commit),
        // A merge onto a tip that has moved again and that nobody has touched is made anew; else it is finished first.
        Stand::InProgress if state.target == tip || worktree.was_worked_on(&state)? => {
            settle(worktree, &mut state, input, policy)
        }
        _ => Ok(given),
    }
}

fn settle(worktree: &Worktree, state: &mut State, input: &Input, policy: &Policy) -> Result<String, ActionFailure> {
    if !input.policy.is_empty() {
        resolve_by_policy(worktree, state, policy)?;
    }
    resolve_by_command(worktree, state, &input.resolver)?;
    conclude(worktree, state, &title(&input.branch, &input.source))
}

fn push_commit(git: &Git, input: &Input, commit: &str) -> Result<(), ActionFailure> {
    let refspec = format!("{commit}:refs/heads/{}", input.branch);
    let arguments = ["push", "--porcelain", "--end-of-options", &input.remote, &refspec];
    let done = match input.pre_push_hook {
        PrePushHook::Run => git.with_hooks().run(&arguments)?,
        PrePushHook::Skip if git.asks(&["grep", "-q", "-F", "-e", "filter=lfs", commit, "--", ".gitattributes"])? => {
            return Err(blocked(
                "files of this repository are kept in git LFS, whose pre-push hook sends their content; without it the \
                 remote would get empty references. Start again with --var PRE_PUSH_HOOK=run",
            ));
        }
        PrePushHook::Skip => git.run(&arguments)?,
    };
    done.show();
    if done.code == Some(0) {
        say(format_args!("pushed {} to {} of {}", short(commit), input.branch, input.remote));
        return Ok(());
    }
    Err(refusal(&done, input))
}

/// What a push that failed means.
fn refusal(done: &Done, input: &Input) -> ActionFailure {
    let report = String::from_utf8_lossy(&done.stdout).into_owned();
    let Some(line) = report.lines().find(|line| line.starts_with('!')) else { return done.failure() };
    let reason = line.splitn(3, '\t').nth(2).unwrap_or(line).trim();
    let branch = format!("{} of {}", input.branch, input.remote);
    // The remote itself may lose the race to another push between its check and its write.
    let lost_race = ["cannot lock ref", "failed to update ref", "failed to lock", "incorrect old value"];
    if reason.starts_with("[rejected]") || lost_race.iter().any(|sign| reason.contains(sign)) {
        return try_again(format!(
            "somebody pushed to {branch} at the same moment: {reason}. Nothing was overwritten; the next attempt \
             merges onto it"
        ));
    }
    blocked(format!("{branch} refuses the push: {reason}\n{}", done.stderr.trim()))
}

/// Lets the local branch follow, where that changes nothing that anybody is working on; says what was done.
fn follow(repository: &Repository, input: &Input, commit: &str) -> Result<&'static str, ActionFailure> {
    let git = &repository.git;
    let name = format!("refs/heads/{}", input.branch);
    let Some(local) = commit_of(git, &name)? else { return Ok("absent") };
    if local == commit || is_ancestor(git, commit, &local)? {
        return Ok("current");
    }
    let by_hand = format!("git merge --ff-only {}", tracking_ref(&input.remote, &input.branch));
    if input.local_branch == LocalBranch::Leave {
        say(format_args!("the local branch was left where it is; to bring it up: {by_hand}"));
        return Ok("left");
    }
    if !is_ancestor(git, &local, commit)? {
        say("the local branch has commits that were not merged, so it was left where it is");
        return Ok("diverged");
    }
    // git itself refuses this for a branch that is checked out, or being rebased, in any work tree.
    let refspec = format!("{commit}:{name}");
    let arguments = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=", ".", &refspec];
    let done = ref_locks::during(repository, &[name], || git.run(&arguments))?;
    if done.code == Some(0) {
        say(format_args!("the local branch now stands at {} too", short(commit)));
        return Ok("fast_forwarded");
    }
    if done.stderr.contains("refusing to fetch into") {
        say(format_args!("the local branch is in use in a work tree, so it was left; to bring it up: {by_hand}"));
        return Ok("checked_out");
    }
    done.show();
    say(format_args!("the local branch could not be moved, so it was left; to bring it up: {by_hand}"));
    Ok("left")
}
