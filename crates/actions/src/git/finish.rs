//! `git.finish`: removes the merge's work tree once the remote has the merge, and announces the success.

use std::io::Write;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::repository::{Repository, check_branch, check_remote, is_ancestor, tracking_ref};
use super::{Outcome, blocked, commit_id, failed, here, origin, outputs, say, worktree};

/// The largest event file in which an earlier announcement is looked for.
const EVENT_FILE_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    #[serde(default = "here")]
    repository: String,
    worktree: String,
    #[serde(default = "origin")]
    remote: String,
    branch: String,
    #[serde(deserialize_with = "commit_id")]
    source_commit: String,
    #[serde(deserialize_with = "commit_id")]
    commit: String,
    #[serde(default)]
    event_file: String,
}

/// `git.finish`.
pub(super) fn finish(input: Input) -> Outcome {
    let repository = Repository::open(&input.repository)?;
    let git = &repository.git;
    check_remote(git, &input.remote)?;
    check_branch(git, &input.branch)?;
    let tracking = tracking_ref(&input.remote, &input.branch);
    for commit in [&input.source_commit, &input.commit] {
        if !is_ancestor(git, commit, &tracking)? {
            return Err(blocked(format!("{tracking} does not have {commit}, so the merge's work tree is kept")));
        }
    }
    if worktree::remove_at(&repository, Path::new(&input.worktree))? {
        say(format_args!("removed {}", input.worktree));
    }
    // The same merge has the same event, however often this runs.
    let event = json!({
        "event": "safe_merge_succeeded",
        "repository": repository.top.to_string_lossy(),
        "remote": input.remote,
        "branch": input.branch,
        "source_commit": input.source_commit,
        "commit": input.commit,
    });
    if !input.event_file.is_empty() {
        append_once(Path::new(&input.event_file), &event.to_string())
            .map_err(|error| failed(format!("cannot write the event file {}: {error}", input.event_file)))?;
    }
    say(format_args!("{event}"));
    Ok(outputs(event))
}

/// Appends the line unless the file has it. A line that a killed attempt left unfinished is ended first.
fn append_once(path: &Path, line: &str) -> std::io::Result<()> {
    use std::io::Read;
    let mut file = std::fs::OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let mut text = Vec::new();
    (&mut file).take(EVENT_FILE_BYTES).read_to_end(&mut text)?;
    if text.split(|byte| *byte == b'\n').any(|known| known == line.as_bytes()) {
        return Ok(());
    }
    let start = if text.last().is_none_or(|last| *last == b'\n') { "" } else { "\n" };
    file.write_all(format!("{start}{line}\n").as_bytes())?;
    file.sync_all()
}
