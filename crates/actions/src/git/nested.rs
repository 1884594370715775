//! `git.nested`: repositories inside the work tree that are no submodules. Their files are never committed, so what
//! looks like part of the project is missing from every merge.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use super::repository::Repository;
use super::{Outcome, blocked, failed, here, outputs, path_text, say};
use crate::registry::ActionFailure;

/// How many folders are looked through before the search gives up and says so.
const FOLDERS: usize = 1_000_000;
/// How many paths an output or a message lists.
const LISTED_PATHS: usize = 100;
/// The name of the folder that this program keeps its own data in.
const OWN_FOLDER: &str = ".baton";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    #[serde(default = "here")]
    repository: String,
    #[serde(default)]
    normalise: Normalise,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Normalise {
    #[default]
    Refuse,
    MoveAside,
}

/// `git.nested`.
pub(super) fn nested(input: Input) -> Outcome {
    let repository = Repository::open(&input.repository)?;
    let submodules = submodules(&repository)?;
    let known: BTreeSet<PathBuf> =
        submodules.iter().map(|path| repository.top.join(std::ffi::OsStr::from_bytes(path))).collect();
    let found = ignored_apart(&repository, search(&repository, &known)?)?;
    let unregistered = unregistered(&repository, &submodules)?;
    let shown = |paths: &[Vec<u8>]| -> Vec<String> {
        paths.iter().take(LISTED_PATHS).map(|path| path_text::text(path)).collect()
    };
    for path in shown(&found.ignored) {
        say(format_args!("ignored by .gitignore, so no part of any merge: {path}"));
    }
    let mut backups = Vec::new();
    if input.normalise == Normalise::MoveAside {
        for path in &found.stray {
            backups.push(move_aside(&repository, path)?);
        }
    } else if !found.stray.is_empty() {
        return Err(blocked(format!(
            "{} git repositories lie inside the work tree and are no submodules, so their files are in no commit:\n  \
             {}\n\
             Make each a submodule (`git submodule add`), or ignore it (.gitignore), or let its `.git` be moved into a \
             backup folder and its files become ordinary ones: --var NORMALISE=move_aside",
            found.stray.len(),
            shown(&found.stray).join("\n  ")
        )));
    }
    if !unregistered.is_empty() {
        return Err(blocked(format!(
            "these paths are committed as links to another repository, but .gitmodules does not say which:\n  {}\n\
             Nobody else can check them out. Enter them there, or drop them with `git rm --cached <path>` and commit",
            shown(&unregistered).join("\n  ")
        )));
    }
    say(format_args!("{} submodules, {} stray repositories", submodules.len(), found.stray.len()));
    Ok(outputs(json!({
        "submodules": submodules.len(),
        "stray": shown(&found.stray),
        "ignored": found.ignored.len(),
        "backups": backups,
    })))
}

struct Found {
    /// Folders, relative to the top, with a `.git` that git would trip over.
    stray: Vec<Vec<u8>>,
    /// Folders with a `.git` that git does not look at.
    ignored: Vec<Vec<u8>>,
}

/// The paths that the index has as links to other repositories.
fn submodules(repository: &Repository) -> Result<Vec<Vec<u8>>, ActionFailure> {
    let listing = repository.git.bytes(&["ls-files", "--stage", "-z", "--full-name"])?;
    Ok(listing
        .split(|byte| *byte == 0)
        .filter(|record| record.starts_with(b"160000 "))
        .filter_map(|record| record.iter().position(|byte| *byte == b'\t').map(|tab| record[tab + 1..].to_vec()))
        .collect())
}

/// Those of them that `.gitmodules` does not name.
fn unregistered(repository: &Repository, links: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, ActionFailure> {
    if links.is_empty() {
        return Ok(Vec::new());
    }
    // Exit code 1: the file is not there, or names nothing.
    let done =
        repository.git.run(&["config", "-z", "--file", ".gitmodules", "--get-regexp", r"^submodule\..*\.path$"])?;
    let registered: BTreeSet<&[u8]> = done
        .stdout
        .split(|byte| *byte == 0)
        .filter_map(|entry| entry.iter().position(|byte| *byte == b'\n').map(|end| &entry[end + 1..]))
        .collect();
    Ok(links.iter().filter(|path| !registered.contains(path.as_slice())).cloned().collect())
}

/// Every folder below the top that holds a `.git`. Linked work trees of this repository, submodules, this program's
/// own folder, and whatever is behind a symbolic link do not count.
fn search(repository: &Repository, submodules: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>, ActionFailure> {
    let linked = repository.git.bytes(&["worktree", "list", "--porcelain"])?;
    let linked: BTreeSet<PathBuf> = linked
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"worktree "))
        .map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)))
        .collect();
    let mut found = Vec::new();
    let mut waiting = vec![repository.top.clone()];
    let mut looked_at = 0;
    while let Some(folder) = waiting.pop() {
        looked_at += 1;
        if looked_at > FOLDERS {
            return Err(blocked(format!(
                "the work tree has more than {FOLDERS} folders; nested repositories were not searched to the end"
            )));
        }
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Gone since it was listed, or closed to us, and then to git too.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => continue,
            Err(error) => return Err(failed(format!("cannot look into {}: {error}", folder.display()))),
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name == ".git" {
                if folder != repository.top {
                    found.push(folder.clone());
                }
                continue;
            }
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && name != OWN_FOLDER && !submodules.contains(&path) && !linked.contains(&path) {
                waiting.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn ignored_apart(repository: &Repository, folders: Vec<PathBuf>) -> Result<Found, ActionFailure> {
    let mut found = Found { stray: Vec::new(), ignored: Vec::new() };
    let paths: Vec<Vec<u8>> = folders
        .iter()
        .filter_map(|folder| folder.strip_prefix(&repository.top).ok())
        .map(|path| path.as_os_str().as_bytes().to_vec())
        .collect();
    if paths.is_empty() {
        return Ok(found);
    }
    let input: Vec<u8> = paths.iter().flat_map(|path| [b"./", &path[..], b"\0"].concat()).collect();
    // Exit code 1: none of them is ignored.
    let done = repository.git.run_with(&["check-ignore", "-z", "--stdin"], Some(&input))?;
    if !matches!(done.code, Some(0 | 1)) {
        return Err(done.failure());
    }
    let ignored: BTreeSet<&[u8]> =
        done.stdout.split(|byte| *byte == 0).filter_map(|path| path.strip_prefix(b"./")).collect();
    for path in paths {
        if ignored.contains(path.as_slice()) { found.ignored.push(path) } else { found.stray.push(path) }
    }
    Ok(found)
}

/// Moves a nested repository's `.git` into a backup folder. It is one rename: killed before it, nothing has happened;
/// killed after it, there is nothing left to do. What is moved is never deleted.
fn move_aside(repository: &Repository, path: &[u8]) -> Result<String, ActionFailure> {
    let backups = repository.own_folder().join("nested");
    fs::create_dir_all(&backups).map_err(|error| failed(format!("cannot make {}: {error}", backups.display())))?;
    let readable: String = path
        .iter()
        .map(|byte| if byte.is_ascii_alphanumeric() || b"._-".contains(byte) { char::from(*byte) } else { '_' })
        .take(80)
        .collect();
    let from = repository.top.join(std::ffi::OsStr::from_bytes(path)).join(".git");
    let mut number = 1;
    let backup = loop {
        let backup = backups.join(format!("{readable}.{number}"));
        // The folder with the note is made first, and its name is then taken for ever.
        match fs::create_dir(&backup) {
            Ok(()) => break backup,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(failed(format!("cannot make {}: {error}", backup.display()))),
        }
    };
    let note = format!(
        "Moved here from:\n{}\nTo undo it, move `git` back there as `.git`.\n",
        path_text::text(from.as_os_str().as_bytes())
    );
    fs::write(backup.join("README"), note)
        .and_then(|()| fs::rename(&from, backup.join("git")))
        .map_err(|error| failed(format!("cannot move {} to {}: {error}", from.display(), backup.display())))?;
    say(format_args!("moved {} to {}", from.display(), Path::new(&backup).join("git").display()));
    Ok(backup.to_string_lossy().into_owned())
}
