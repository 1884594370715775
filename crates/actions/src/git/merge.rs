//! The merge itself: git's part, the policy's, the resolver's, and the commit or the gate at the end.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::json;

use super::conflict::{self, Entry, Take, Unmerged};
use super::policy::Policy;
use super::repository::{is_ancestor, short};
use super::worktree::{Left, Resolved, Stand, State, Worktree};
use super::{Outcome, blocked, commit_id, failed, outputs, path_text, say};
use crate::registry::ActionFailure;

/// How many paths a message or an output lists before it says how many more there are.
const LISTED_PATHS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MergeInput {
    worktree: String,
    #[serde(deserialize_with = "commit_id")]
    target_commit: String,
    #[serde(deserialize_with = "commit_id")]
    source_commit: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResolveInput {
    worktree: String,
    #[serde(deserialize_with = "commit_id")]
    target_commit: String,
    #[serde(deserialize_with = "commit_id")]
    source_commit: String,
    #[serde(default)]
    policy: String,
    #[serde(default)]
    resolver: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommitInput {
    worktree: String,
    #[serde(deserialize_with = "commit_id")]
    target_commit: String,
    #[serde(deserialize_with = "commit_id")]
    source_commit: String,
    branch: String,
    #[serde(default)]
    source: String,
}

/// `git.merge`.
pub(super) fn merge(input: MergeInput) -> Outcome {
    let worktree = Worktree::open(&input.worktree)?;
    let state = worktree.state_of(&input.target_commit, &input.source_commit)?;
    if is_ancestor(&worktree.git, &state.source, &state.target)? {
        say(format_args!("{} already has {}: nothing to merge", short(&state.target), short(&state.source)));
        return Ok(outputs(json!({"state": "up_to_date", "conflicts": [], "conflict_count": 0})));
    }
    match worktree.stand(&state)? {
        Stand::Committed(commit) => {
            say(format_args!("already merged, as {}", short(&commit)));
            return Ok(outputs(json!({"state": "committed", "conflicts": [], "conflict_count": 0})));
        }
        Stand::InProgress => say("already merged as far as git can; going on from there"),
        Stand::NotMerged | Stand::Elsewhere(_) => {
            worktree.refuse_to_lose_work(&state)?;
            start(&worktree, &state.target, &state.source)?;
        }
    }
    let unmerged = conflict::unmerged(&worktree.git)?;
    for conflict in unmerged.iter().take(LISTED_PATHS) {
        say(format_args!("  conflict: {} ({})", path_text::text(&conflict.path), conflict.kind()));
    }
    let listed: Vec<_> = unmerged
        .iter()
        .take(LISTED_PATHS)
        .map(|conflict| json!({"path": path_text::text(&conflict.path), "kind": conflict.kind()}))
        .collect();
    let state = if unmerged.is_empty() { "clean" } else { "conflicts" };
    Ok(outputs(json!({"state": state, "conflicts": listed, "conflict_count": unmerged.len()})))
}

/// `git.resolve`.
pub(super) fn resolve(input: ResolveInput) -> Outcome {
    let policy = Policy::read(&input.policy)?;
    let worktree = Worktree::open(&input.worktree)?;
    let mut state = worktree.state_of(&input.target_commit, &input.source_commit)?;
    if worktree.stand(&state)? == Stand::InProgress {
        if !input.policy.is_empty() {
            resolve_by_policy(&worktree, &mut state, &policy)?;
        }
        resolve_by_command(&worktree, &mut state, &input.resolver)?;
    }
    let left = left(&worktree, &state)?;
    say(format_args!("{} resolved by policy, {} left", state.resolved.len(), left.len()));
    let some = |count: usize| count.min(LISTED_PATHS);
    Ok(outputs(json!({
        "resolved": &state.resolved[..some(state.resolved.len())],
        "resolved_count": state.resolved.len(),
        "left": &left[..some(left.len())],
        "left_count": left.len(),
    })))
}

/// `git.commit`.
pub(super) fn commit(input: CommitInput) -> Outcome {
    let worktree = Worktree::open(&input.worktree)?;
    let mut state = worktree.state_of(&input.target_commit, &input.source_commit)?;
    let (commit, merged) = if is_ancestor(&worktree.git, &state.source, &state.target)? {
        (state.target.clone(), false)
    } else {
        (conclude(&worktree, &mut state, &title(&input.branch, &input.source))?, true)
    };
    Ok(outputs(json!({"commit": commit, "merged": merged, "by_hand": state.by_hand})))
}

/// The first line of the merge's message.
pub(super) fn title(branch: &str, source: &str) -> String {
    if source.is_empty() || source == branch {
        format!("Merge local branch '{branch}' into '{branch}'")
    } else {
        format!("Merge '{source}' into '{branch}'")
    }
}

/// Does git's part of the merge from the beginning, whatever an attempt before it left.
pub(super) fn start(worktree: &Worktree, target: &str, source: &str) -> Result<State, ActionFailure> {
    let git = &worktree.git;
    let mut state = State { target: target.to_owned(), source: source.to_owned(), ..State::default() };
    worktree.save(&state)?;
    let reset = ["reset", "--quiet", "--hard", target, "--"];
    if git.run(&reset)?.code != Some(0) {
        // After a power cut the index may be torn; all that it knows is made anew from the commit.
        let _ = fs::remove_file(worktree.admin.join("index"));
        git.bytes(&reset)?;
    }
    git.bytes(&["clean", "--quiet", "-ffdx"])?;
    let done = git.run(&["merge", "--no-ff", "--no-commit", "--no-edit", "--no-stat", source])?;
    let unmerged = conflict::unmerged(git)?;
    match done.code {
        Some(0) => say(format_args!("merged {} into {} without conflicts", short(source), short(target))),
        Some(1) if !unmerged.is_empty() => {
            say(format_args!("merged {} into {}: {} conflicts", short(source), short(target), unmerged.len()));
        }
        _ if done.stderr.contains("unrelated histories") => {
            return Err(blocked(format!(
                "{} and {} have no common commit; such a merge is never made by itself",
                short(target),
                short(source)
            )));
        }
        _ => return Err(done.failure()),
    }
    state.conflicts = unmerged.iter().map(|conflict| path_text::text(&conflict.path)).collect();
    let marked = unmerged.iter().filter(|conflict| has_marks(worktree, &conflict.path));
    state.marked = marked.map(|conflict| path_text::text(&conflict.path)).collect();
    state.merged = true;
    worktree.save(&state)?;
    Ok(state)
}

/// Takes every decision that the policy allows.
pub(super) fn resolve_by_policy(worktree: &Worktree, state: &mut State, policy: &Policy) -> Result<(), ActionFailure> {
    let git = &worktree.git;
    let base = conflict::only_base(git, &state.target, &state.source)?;
    let mut index = Vec::new();
    state.left.clear();
    for unmerged in conflict::unmerged(git)? {
        let path = path_text::text(&unmerged.path);
        let class = policy.class(&unmerged.path).to_owned();
        let kind = unmerged.kind().to_owned();
        let facts = conflict::facts(git, unmerged, &state.target, &state.source, base.as_deref())?;
        let decision = conflict::decide(&facts, policy.rule(&class)).and_then(|(take, why)| {
            let entry = match take {
                Take::Ours => facts.unmerged.ours.clone(),
                Take::Theirs => facts.unmerged.theirs.clone(),
                Take::OursInside => Some(mixed(worktree, &facts.unmerged, "--ours")?),
                Take::TheirsInside => Some(mixed(worktree, &facts.unmerged, "--theirs")?),
                Take::Union => Some(mixed(worktree, &facts.unmerged, "--union")?),
            };
            Ok((take, entry, why))
        });
        match decision {
            Ok((take, entry, why)) => {
                let took = match (take, &entry) {
                    (Take::Union, _) => "both where they conflict",
                    (Take::OursInside, _) => "ours where they conflict",
                    (Take::TheirsInside, _) => "theirs where they conflict",
                    (Take::Ours, Some(_)) => "ours",
                    (Take::Ours, None) => "ours: deleted",
                    (Take::Theirs, Some(_)) => "theirs",
                    (Take::Theirs, None) => "theirs: deleted",
                };
                say(format_args!("  {path} [{class}]: {took}; {why}"));
                index_lines(&mut index, &facts.unmerged.path, entry.as_ref(), state.target.len());
                state.resolved.retain(|resolved| resolved.path != path);
                state.resolved.push(Resolved { path, class, took: took.to_owned(), why });
            }
            Err(why) => {
                say(format_args!("  {path} [{class}]: left; {why}"));
                state.left.push(Left { path, class, kind, why });
            }
        }
    }
    worktree.save(state)?;
    // One write of the index for all of them: a killed attempt has resolved everything or nothing.
    if !index.is_empty() {
        git.feed(&["update-index", "-z", "--index-info"], &index)?;
    }
    show_resolved(worktree, state)
}

/// Makes the files of the work tree what the index has for what the policy resolved. What is committed is the index;
/// this is for those who look or work here afterwards.
fn show_resolved(worktree: &Worktree, state: &State) -> Result<(), ActionFailure> {
    let mut present = Vec::new();
    for resolved in &state.resolved {
        let path = path_text::bytes(&resolved.path);
        if resolved.took.ends_with("deleted") {
            // A file that is gone already is what was wanted.
            let _ = fs::remove_file(worktree.path.join(OsStr::from_bytes(&path)));
        } else {
            present.extend_from_slice(&path);
            present.push(0);
        }
    }
    if !present.is_empty() {
        worktree.git.feed(&["checkout-index", "--force", "-u", "-z", "--stdin"], &present)?;
    }
    Ok(())
}

fn index_lines(lines: &mut Vec<u8>, path: &[u8], entry: Option<&Entry>, id_length: usize) {
    let mut line = |mode: &str, id: &str| {
        lines.extend_from_slice(format!("{mode} {id}\t").as_bytes());
        lines.extend_from_slice(path);
        lines.push(0);
    };
    // Mode 0 drops every stage of the path; then the one that is taken is entered.
    line("0", &"0".repeat(id_length));
    if let Some(entry) = entry {
        line(&entry.mode, &entry.id);
    }
}

/// The merged file, where `favour` says which version of each conflicting stretch is kept; written into the repository.
fn mixed(worktree: &Worktree, unmerged: &Unmerged, favour: &str) -> Result<Entry, String> {
    let (Some(ours), Some(theirs)) = (&unmerged.ours, &unmerged.theirs) else {
        return Err("two versions are needed to keep something of each".to_owned());
    };
    let write = |name: &str, entry: Option<&Entry>| -> Result<std::path::PathBuf, String> {
        let content = match entry {
            Some(entry) => conflict::content(&worktree.git, entry).map_err(|failure| failure.message)?,
            None => Vec::new(),
        };
        let file = worktree.admin.join(name);
        fs::write(&file, content).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        Ok(file)
    };
    let files = [
        write("baton-version-ours", Some(ours))?,
        write("baton-version-base", unmerged.base.as_ref())?,
        write("baton-version-theirs", Some(theirs))?,
    ];
    let words = ["merge-file", "-p", favour, "--"].map(OsStr::new);
    let files: Vec<&OsStr> = files.iter().map(|file| file.as_os_str()).collect();
    let merged = worktree.git.bytes(&[&words[..], &files].concat()).map_err(|failure| failure.message)?;
    let id = worktree
        .git
        .feed(&["hash-object", "-w", "--no-filters", "--stdin"], &merged)
        .map_err(|failure| failure.message)?;
    // A mode that only one side changed is no conflict, whoever wins inside the file.
    let theirs_is_old = unmerged.base.as_ref().is_some_and(|base| base.mode == theirs.mode);
    let mode = if theirs_is_old { &ours.mode } else { &theirs.mode };
    Ok(Entry { mode: mode.clone(), id: String::from_utf8_lossy(&id).trim().to_owned() })
}

/// Lets the resolver's command decide what is left. It edits the files in the merge's work tree. A file that had
/// conflict marks and has none afterwards counts as resolved; anything else it has to mark itself, by `git add` or
/// `git rm`, for nothing in the file shows a decision.
pub(super) fn resolve_by_command(worktree: &Worktree, state: &mut State, command: &str) -> Result<(), ActionFailure> {
    let before = conflict::unmerged(&worktree.git)?;
    if command.trim().is_empty() || before.is_empty() {
        return Ok(());
    }
    let marked = |unmerged: &&Unmerged| state.marked.contains(&path_text::text(&unmerged.path));
    let marked: Vec<Vec<u8>> = before.iter().filter(marked).map(|unmerged| unmerged.path.clone()).collect();
    // An attempt that was killed may have left half of its work. What a person has begun stays.
    if state.handed_over.is_none() && !marked.is_empty() {
        let paths: Vec<&OsStr> = marked.iter().map(|path| OsStr::from_bytes(path)).collect();
        worktree.git.bytes(&[&["checkout", "--merge", "--"].map(OsStr::new)[..], &paths].concat())?;
    }
    let listing = worktree.admin.join("baton-conflicts");
    let names: Vec<u8> = before.iter().flat_map(|unmerged| [&unmerged.path[..], b"\0"].concat()).collect();
    fs::write(&listing, names).map_err(|error| failed(format!("cannot write {}: {error}", listing.display())))?;
    // From here on a decision may be the command's, even where this attempt does not live to see it.
    state.by_hand = true;
    worktree.save(state)?;
    say(format_args!("running the resolver for {} conflicts: {command}", before.len()));
    let ended = Command::new("/bin/sh")
        .args(["-c", command])
        .current_dir(&worktree.path)
        .env("BATON_CONFLICTS", &listing)
        .env("BATON_MERGE_TARGET", &state.target)
        .env("BATON_MERGE_SOURCE", &state.source)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .stdin(Stdio::null())
        .status()
        .map_err(|error| failed(format!("cannot start /bin/sh for the resolver: {error}")))?;
    if !ended.success() {
        return Err(failed(format!(
            "the resolver `{command}` failed ({ended}); what it printed stands above. {} conflicts are as they were",
            before.len()
        )));
    }
    let still: BTreeSet<Vec<u8>> = conflict::unmerged(&worktree.git)?.into_iter().map(|one| one.path).collect();
    let is_file = |path: &[u8]| worktree.path.join(OsStr::from_bytes(path)).is_file();
    let decided: Vec<&OsStr> = marked
        .iter()
        .filter(|path| still.contains(*path) && is_file(path) && !has_marks(worktree, path))
        .map(|path| OsStr::from_bytes(path))
        .collect();
    if !decided.is_empty() {
        worktree.git.bytes(&[&["add", "--force", "--"].map(OsStr::new)[..], &decided].concat())?;
    }
    Ok(())
}

/// Whether a file of the work tree has conflict marks.
fn has_marks(worktree: &Worktree, path: &[u8]) -> bool {
    let file = worktree.path.join(OsStr::from_bytes(path));
    fs::read(file).is_ok_and(|content| conflict::has_conflict_marks(&content))
}

/// What is still unmerged, with the policy's reasons where it gave any.
fn left(worktree: &Worktree, state: &State) -> Result<Vec<Left>, ActionFailure> {
    let unmerged = conflict::unmerged(&worktree.git)?;
    Ok(unmerged
        .iter()
        .map(|unmerged| {
            let path = path_text::text(&unmerged.path);
            let known = state.left.iter().find(|left| left.path == path).cloned();
            known.unwrap_or_else(|| Left {
                path,
                class: "unclassified".to_owned(),
                kind: unmerged.kind().to_owned(),
                why: "no policy was asked".to_owned(),
            })
        })
        .collect())
}

/// Commits the merge, or fails with what a person has to do.
pub(super) fn conclude(worktree: &Worktree, state: &mut State, title: &str) -> Result<String, ActionFailure> {
    match worktree.stand(state)? {
        Stand::Committed(commit) => {
            say(format_args!("committed as {}", short(&commit)));
            return Ok(commit);
        }
        Stand::InProgress => {}
        Stand::NotMerged => {
            return Err(blocked(format!(
                "no merge is in progress in {}; run `git.merge` again",
                worktree.path.display()
            )));
        }
        Stand::Elsewhere(head) => {
            return Err(blocked(format!(
                "{} stands at {}, which is not the merge of {} into {}: somebody has committed something else there. \
                 Give it up with `{}` and start a new run",
                worktree.path.display(),
                short(&head),
                short(&state.source),
                short(&state.target),
                worktree.removal(),
            )));
        }
    }
    let left = left(worktree, state)?;
    if !left.is_empty() {
        let paths: Vec<String> = left.iter().map(|left| left.path.clone()).collect();
        // Asked again, the first hand-over stays: by it is judged whether anybody has worked here since.
        if !worktree.was_worked_on(state)? {
            state.handed_over = Some(worktree.content_ids(&paths)?);
            worktree.save(state)?;
        }
        return Err(blocked(gate(worktree, state, &left, title)));
    }
    let by_policy: BTreeSet<&str> = state.resolved.iter().map(|resolved| resolved.path.as_str()).collect();
    let by_hand: Vec<String> =
        state.conflicts.iter().filter(|path| !by_policy.contains(path.as_str())).cloned().collect();
    for path in &by_hand {
        refuse_marks(worktree, state, path)?;
    }
    state.by_hand = !by_hand.is_empty();
    worktree.save(state)?;
    let mut message = format!("{title}\n");
    if !state.resolved.is_empty() || state.by_hand {
        message.push_str("\nConflicts:\n");
    }
    for resolved in &state.resolved {
        message.push_str(&format!("  {} ({}): {}; {}\n", resolved.path, resolved.class, resolved.took, resolved.why));
    }
    for path in &by_hand {
        message.push_str(&format!("  {path}: by hand or by the resolver\n"));
    }
    worktree.git.feed(&["commit", "--quiet", "--no-verify", "--cleanup=verbatim", "--file=-"], message.as_bytes())?;
    match worktree.stand(state)? {
        Stand::Committed(commit) => {
            say(format_args!("committed as {}", short(&commit)));
            Ok(commit)
        }
        other => Err(failed(format!("`git commit` succeeded but the work tree is {other:?}"))),
    }
}

/// Refuses a file that was marked as resolved while it still has conflict marks, unless a side really has such lines.
fn refuse_marks(worktree: &Worktree, state: &State, path: &str) -> Result<(), ActionFailure> {
    let bytes = path_text::bytes(path);
    let content = |commit: &str| -> Result<Vec<u8>, ActionFailure> {
        let name = [commit.as_bytes(), b":", &bytes].concat();
        Ok(worktree.git.run(&[OsStr::new("cat-file"), "blob".as_ref(), OsStr::from_bytes(&name)])?.stdout)
    };
    let marked = conflict::has_conflict_marks(&content(":0")?)
        && !conflict::has_conflict_marks(&content(&state.target)?)
        && !conflict::has_conflict_marks(&content(&state.source)?);
    if !marked {
        return Ok(());
    }
    Err(blocked(format!(
        "{path} was marked as resolved but still has conflict marks (<<<<<<< … >>>>>>>). Edit it in {}, then \
         `git add -- {}` there, and {}",
        worktree.path.display(),
        path_text::shell_word(&bytes),
        retry(),
    )))
}

/// What a person who has to decide is told.
fn gate(worktree: &Worktree, state: &State, left: &[Left], title: &str) -> String {
    let mut lines = vec![
        format!(
            "the merge is blocked: {} of {} conflicts need a decision ({title}: {} into {})",
            left.len(),
            state.conflicts.len(),
            short(&state.source),
            short(&state.target)
        ),
        String::new(),
    ];
    for one in left.iter().take(LISTED_PATHS) {
        lines.push(format!("  {} ({}; class {}): {}", one.path, one.kind, one.class, one.why));
    }
    if left.len() > LISTED_PATHS {
        lines.push(format!("  … and {} more", left.len() - LISTED_PATHS));
    }
    lines.push(String::new());
    lines.push(
        "Nothing was pushed, and your own work tree is as it was. The merge stands in a work tree of its own:"
            .to_owned(),
    );
    lines.push(format!("  cd {}", path_text::shell_word(worktree.path.as_os_str().as_bytes())));
    lines.push("Decide each file there, and mark it (`git rm --` where it is to go):".to_owned());
    for one in left.iter().take(LISTED_PATHS) {
        lines.push(format!("  git add -- {}", path_text::shell_word(&path_text::bytes(&one.path))));
    }
    lines.push(format!("Do not commit; instead {}", retry()));
    lines.push("Or let a command decide: start again with --var RESOLVER='<command>'.".to_owned());
    lines.push(format!("Or give the merge up: {}", worktree.removal()));
    lines.join("\n")
}

/// How the run that this attempt belongs to is taken up again.
pub(super) fn retry() -> String {
    let attempt = std::env::var("BATON_ATTEMPT").unwrap_or_default();
    match attempt.split('/').nth(1) {
        Some(run) if !run.is_empty() => format!("go on with: baton retry {run}"),
        _ => "go on with: baton retry <run>".to_owned(),
    }
}
