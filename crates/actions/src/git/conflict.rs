//! One conflict: what each side has at a path, and whether a policy may decide between them.

use serde::{Deserialize, Serialize};

use super::command::Git;
use super::failed;
use super::policy::{Resolution, Rule};
use crate::registry::ActionFailure;

const SYMLINK: &str = "120000";
const SUBMODULE: &str = "160000";

/// git takes content with a zero byte this near to its start for binary.
const BINARY_LOOK_BYTES: usize = 8000;

/// A file as a tree or the index has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The mode as git writes it, such as `100644`.
    pub(super) mode: String,
    /// The id of the content.
    pub(super) id: String,
}

/// A path that git could not merge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unmerged {
    pub(super) path: Vec<u8>,
    /// Stage 1: what both sides started from.
    pub(super) base: Option<Entry>,
    /// Stage 2: what the branch has that is merged into.
    pub(super) ours: Option<Entry>,
    /// Stage 3: what the source has.
    pub(super) theirs: Option<Entry>,
}

/// Everything that a decision about one conflict depends on.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// What the conflict is about.
    pub(super) unmerged: Unmerged,
    /// What the merge base has at this path; `None` also where there are several bases.
    pub(super) base_tree: Option<Entry>,
    /// What the branch has at this path.
    pub(super) ours_tree: Option<Entry>,
    /// What the source has at this path.
    pub(super) theirs_tree: Option<Entry>,
    /// When the branch last committed a change to this path that the source does not have, in Unix seconds.
    pub(super) ours_time: Option<i64>,
    /// When the source last committed a change to this path that the branch does not have, in Unix seconds.
    pub(super) theirs_time: Option<i64>,
    /// Whether one of the versions is binary.
    pub(super) binary: bool,
}

/// What becomes of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Take {
    /// The branch's whole version, or its deletion.
    Ours,
    /// The source's whole version, or its deletion.
    Theirs,
    /// The merged file, with the branch's version of each stretch that conflicts.
    OursInside,
    /// The merged file, with the source's version of each stretch that conflicts.
    TheirsInside,
    /// The merged file, with both versions of each stretch that conflicts.
    Union,
}

impl Unmerged {
    /// What kind of conflict it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        let has_mode =
            |mode: &str| [&self.base, &self.ours, &self.theirs].into_iter().flatten().any(|entry| entry.mode == mode);
        match (&self.base, &self.ours, &self.theirs) {
            _ if has_mode(SUBMODULE) => "submodule",
            (Some(_), Some(_), Some(_)) => "changed on both sides",
            (None, Some(_), Some(_)) => "added on both sides",
            (Some(_), Some(_), None) => "changed here, deleted in the source",
            (Some(_), None, Some(_)) => "deleted here, changed in the source",
            _ => "renamed, or a file against a folder",
        }
    }
}

/// Whether and how the policy resolves a conflict: what is taken and why, or why it is left.
///
/// Where both sides changed a text file, what does not conflict is kept from both, unless the rule asks for the whole
/// file of the side that wins. Elsewhere the whole version is taken, for there is nothing to keep of the other.
///
/// A version may be taken only where it is exactly what that side has at that very path: with a rename, a type change
/// or several merge bases in play, git puts made-up content or another path's content there, and taking it would be
/// wrong without anybody seeing it.
pub(super) fn decide(facts: &Facts, rule: Rule) -> Result<(Take, String), String> {
    let Unmerged { base, ours, theirs, .. } = &facts.unmerged;
    if rule.resolve == Resolution::Manual {
        return Err("the policy leaves files of this class to a person".to_owned());
    }
    let entries = || [base, ours, theirs].into_iter().flatten();
    if entries().any(|entry| entry.mode == SUBMODULE) {
        return Err("a submodule's commit is never chosen by policy".to_owned());
    }
    let sides = usize::from(ours.is_some()) + usize::from(theirs.is_some());
    if sides == 0 || (sides == 1 && base.is_none()) {
        return Err(
            "a rename, or a file against a folder, takes part; such a conflict is never decided by policy".to_owned()
        );
    }
    if *ours != facts.ours_tree || *theirs != facts.theirs_tree || (base.is_some() && *base != facts.base_tree) {
        return Err(
            "a rename or a criss-cross history takes part; such a conflict is never decided by policy".to_owned()
        );
    }
    if let (Some(ours), Some(theirs)) = (ours, theirs)
        && (ours.mode == SYMLINK) != (theirs.mode == SYMLINK)
    {
        return Err("one side is a symbolic link and the other a file".to_owned());
    }
    let is_text = |entry: &Option<Entry>| entry.as_ref().is_some_and(|entry| entry.mode != SYMLINK);
    let inside = !rule.whole_file && !facts.binary && [base, ours, theirs].into_iter().all(is_text);
    let (take_ours, take_theirs) =
        if inside { (Take::OursInside, Take::TheirsInside) } else { (Take::Ours, Take::Theirs) };
    match rule.resolve {
        Resolution::Manual => unreachable!("answered above"),
        Resolution::Ours => Ok((take_ours, "so the policy says".to_owned())),
        Resolution::Theirs => Ok((take_theirs, "so the policy says".to_owned())),
        Resolution::Newest => match (facts.ours_time, facts.theirs_time) {
            (Some(ours), Some(theirs)) if ours > theirs => {
                Ok((take_ours, format!("ours is newer by {} s", ours.abs_diff(theirs))))
            }
            (Some(ours), Some(theirs)) if theirs > ours => {
                Ok((take_theirs, format!("theirs is newer by {} s", ours.abs_diff(theirs))))
            }
            (Some(_), Some(_)) => {
                Err("both sides were committed in the same second, so time decides nothing".to_owned())
            }
            _ => Err("one side has no commit of its own that changes this path, so time decides nothing".to_owned()),
        },
        Resolution::Union => match (ours, theirs) {
            _ if facts.binary => Err("a union of binary content has no meaning".to_owned()),
            (Some(ours), Some(theirs)) if ours.mode != theirs.mode || ours.mode == SYMLINK => {
                Err("a union needs two regular files of the same mode".to_owned())
            }
            (Some(_), Some(_)) => Ok((Take::Union, "so the policy says".to_owned())),
            _ => Err("a union of a file and its deletion has no meaning".to_owned()),
        },
    }
}

/// The paths that the index of a work tree has as unmerged, in git's order.
pub(super) fn unmerged(git: &Git) -> Result<Vec<Unmerged>, ActionFailure> {
    let listing = git.bytes(&["ls-files", "--unmerged", "-z", "--full-name"])?;
    let mut found: Vec<Unmerged> = Vec::new();
    for record in listing.split(|byte| *byte == 0).filter(|record| !record.is_empty()) {
        let (head, path) = split_record(record, "ls-files --unmerged")?;
        let [mode, id, stage] = head[..] else {
            return Err(failed(format!("`git ls-files --unmerged` printed {head:?}; three words were expected")));
        };
        if found.last().is_none_or(|last| last.path != path) {
            found.push(Unmerged { path: path.to_vec(), base: None, ours: None, theirs: None });
        }
        let entry = Some(Entry { mode: mode.to_owned(), id: id.to_owned() });
        let Some(last) = found.last_mut() else { continue };
        match stage {
            "1" => last.base = entry,
            "2" => last.ours = entry,
            _ => last.theirs = entry,
        }
    }
    Ok(found)
}

/// Gathers what [`decide`] needs to know about a conflict of merging `source` into `target`.
pub(super) fn facts(
    git: &Git,
    unmerged: Unmerged,
    target: &str,
    source: &str,
    base: Option<&str>,
) -> Result<Facts, ActionFailure> {
    let base_tree = match base {
        Some(base) => tree_entry(git, base, &unmerged.path)?,
        None => None,
    };
    let mut binary = false;
    for entry in [&unmerged.ours, &unmerged.theirs].into_iter().flatten() {
        binary |= entry.mode != SUBMODULE && is_binary(&content(git, entry)?);
    }
    Ok(Facts {
        base_tree,
        ours_tree: tree_entry(git, target, &unmerged.path)?,
        theirs_tree: tree_entry(git, source, &unmerged.path)?,
        ours_time: last_change(git, source, target, &unmerged.path)?,
        theirs_time: last_change(git, target, source, &unmerged.path)?,
        binary,
        unmerged,
    })
}

/// The only merge base of two commits; `None` where there are none or several.
pub(super) fn only_base(git: &Git, target: &str, source: &str) -> Result<Option<String>, ActionFailure> {
    let done = git.run(&["merge-base", "--all", target, source])?;
    let bases = String::from_utf8_lossy(&done.stdout).into_owned();
    let mut bases = bases.lines();
    Ok(bases.next().filter(|_| bases.next().is_none()).map(str::to_owned))
}

/// The content of an entry.
pub(super) fn content(git: &Git, entry: &Entry) -> Result<Vec<u8>, ActionFailure> {
    git.bytes(&["cat-file", "blob", &entry.id])
}

fn is_binary(content: &[u8]) -> bool {
    content[..content.len().min(BINARY_LOOK_BYTES)].contains(&0)
}

/// Whether content has the marks that git leaves around a conflict.
pub(super) fn has_conflict_marks(content: &[u8]) -> bool {
    let starts = |mark: &[u8]| content.split(|byte| *byte == b'\n').any(|line| line.starts_with(mark));
    starts(b"<<<<<<< ") && starts(b">>>>>>> ")
}

fn tree_entry(git: &Git, commit: &str, path: &[u8]) -> Result<Option<Entry>, ActionFailure> {
    use std::os::unix::ffi::OsStrExt;
    let arguments = ["ls-tree", "-z", "--full-tree", commit, "--"].map(std::ffi::OsStr::new);
    let listing = git.bytes(&[&arguments[..], &[std::ffi::OsStr::from_bytes(path)]].concat())?;
    let Some(record) = listing.split(|byte| *byte == 0).find(|record| !record.is_empty()) else { return Ok(None) };
    let (head, _) = split_record(record, "ls-tree")?;
    let [mode, kind, id] = head[..] else {
        return Err(failed(format!("`git ls-tree` printed {head:?}; three words were expected")));
    };
    Ok((kind != "tree").then(|| Entry { mode: mode.to_owned(), id: id.to_owned() }))
}

/// When `side` last committed a change to the path that `other` does not have.
fn last_change(git: &Git, other: &str, side: &str, path: &[u8]) -> Result<Option<i64>, ActionFailure> {
    use std::os::unix::ffi::OsStrExt;
    let range = format!("{other}..{side}");
    let arguments = ["log", "-1", "--format=%ct", "--no-show-signature", &range, "--"].map(std::ffi::OsStr::new);
    let line = git.line(&[&arguments[..], &[std::ffi::OsStr::from_bytes(path)]].concat())?;
    Ok(line.parse().ok())
}

fn split_record<'a>(record: &'a [u8], command: &str) -> Result<(Vec<&'a str>, &'a [u8]), ActionFailure> {
    let wrong = || failed(format!("`git {command}` printed a line that is not `… <tab> path`"));
    let tab = record.iter().position(|byte| *byte == b'\t').ok_or_else(wrong)?;
    let head = std::str::from_utf8(&record[..tab]).map_err(|_| wrong())?;
    Ok((head.split(' ').collect(), &record[tab + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(mode: &str, id: &str) -> Option<Entry> {
        Some(Entry { mode: mode.to_owned(), id: id.to_owned() })
    }

    /// A file that both sides changed, ours an hour after theirs.
    fn both_changed() -> Facts {
        let (base, ours, theirs) = (entry("100644", "b"), entry("100644", "o"), entry("100644", "t"));
        Facts {
            unmerged: Unmerged { path: b"f".to_vec(), base: base.clone(), ours: ours.clone(), theirs: theirs.clone() },
            base_tree: base,
            ours_tree: ours,
            theirs_tree: theirs,
            ours_time: Some(7200),
            theirs_time: Some(3600),
            binary: false,
        }
    }

    fn whole(resolve: Resolution) -> Rule {
        Rule { resolve, whole_file: true }
    }

    fn taken(facts: &Facts, resolve: Resolution) -> Option<Take> {
        decide(facts, whole(resolve)).ok().map(|(take, _)| take)
    }

    #[test]
    fn what_does_not_conflict_is_kept_from_both_sides_unless_the_whole_file_is_asked_for() {
        let inside = |facts: &Facts, resolve| decide(facts, Rule { resolve, whole_file: false }).map(|(take, _)| take);
        assert_eq!(inside(&both_changed(), Resolution::Newest), Ok(Take::OursInside));
        assert_eq!(inside(&both_changed(), Resolution::Theirs), Ok(Take::TheirsInside));
        assert_eq!(taken(&both_changed(), Resolution::Theirs), Some(Take::Theirs));
        // Where there is nothing to keep of the other side, the whole version is the only one there is.
        let mut binary = both_changed();
        binary.binary = true;
        let mut deleted = both_changed();
        (deleted.unmerged.theirs, deleted.theirs_tree) = (None, None);
        let mut added = both_changed();
        (added.unmerged.base, added.base_tree) = (None, None);
        for facts in [binary, deleted, added] {
            assert_eq!(inside(&facts, Resolution::Newest), Ok(Take::Ours), "{facts:?}");
        }
    }

    #[test]
    fn newest_takes_the_side_with_the_later_commit_and_never_guesses_a_tie() {
        let mut facts = both_changed();
        assert_eq!(taken(&facts, Resolution::Newest), Some(Take::Ours));
        facts.theirs_time = Some(7201);
        assert_eq!(decide(&facts, whole(Resolution::Newest)), Ok((Take::Theirs, "theirs is newer by 1 s".to_owned())));
        facts.theirs_time = Some(7200);
        assert!(decide(&facts, whole(Resolution::Newest)).unwrap_err().contains("same second"));
        facts.theirs_time = None;
        assert_eq!(taken(&facts, Resolution::Newest), None);
    }

    #[test]
    fn a_deletion_is_a_version_like_any_other_but_has_no_union() {
        let mut facts = both_changed();
        (facts.unmerged.theirs, facts.theirs_tree) = (None, None);
        assert_eq!(taken(&facts, Resolution::Theirs), Some(Take::Theirs));
        assert_eq!(taken(&facts, Resolution::Newest), Some(Take::Ours));
        assert_eq!(taken(&facts, Resolution::Union), None);
    }

    #[test]
    fn what_a_policy_must_never_decide_is_left_with_a_reason() {
        let every = [Resolution::Newest, Resolution::Ours, Resolution::Theirs, Resolution::Union, Resolution::Manual];
        let mut renamed = both_changed();
        renamed.theirs_tree = None;
        let mut only_one_stage = both_changed();
        (only_one_stage.unmerged.base, only_one_stage.unmerged.theirs) = (None, None);
        let mut submodule = both_changed();
        (submodule.unmerged.theirs, submodule.theirs_tree) = (entry(SUBMODULE, "s"), entry(SUBMODULE, "s"));
        let mut link = both_changed();
        (link.unmerged.theirs, link.theirs_tree) = (entry(SYMLINK, "l"), entry(SYMLINK, "l"));
        let mut several_bases = both_changed();
        several_bases.base_tree = None;
        for facts in [renamed, only_one_stage, submodule, link, several_bases] {
            for resolution in every {
                assert!(decide(&facts, whole(resolution)).is_err(), "{resolution:?} of {facts:?}");
            }
        }
        assert_eq!(taken(&both_changed(), Resolution::Manual), None);
    }

    #[test]
    fn a_union_needs_two_text_files_of_one_mode() {
        assert_eq!(taken(&both_changed(), Resolution::Union), Some(Take::Union));
        let mut binary = both_changed();
        binary.binary = true;
        assert_eq!(taken(&binary, Resolution::Union), None);
        assert_eq!(taken(&binary, Resolution::Ours), Some(Take::Ours));
        let mut modes = both_changed();
        (modes.unmerged.theirs, modes.theirs_tree) = (entry("100755", "t"), entry("100755", "t"));
        assert_eq!(taken(&modes, Resolution::Union), None);
        assert_eq!(taken(&modes, Resolution::Theirs), Some(Take::Theirs));
    }

    #[test]
    fn marks_are_seen_only_as_a_pair_at_the_start_of_lines() {
        assert!(has_conflict_marks(b"a\n<<<<<<< HEAD\nx\n=======\ny\n>>>>>>> topic\n"));
        assert!(!has_conflict_marks(b"Title\n=======\n"));
        assert!(!has_conflict_marks(b" <<<<<<< HEAD\n >>>>>>> x\n"));
    }
}
