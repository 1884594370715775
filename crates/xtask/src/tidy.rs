//! What we ask of every file of the repository, and neither the compiler nor clippy asks.

use std::fs;
use std::path::Path;

use crate::{markdown, run, workspace};

/// The longest line of a source file, in characters.
const LINE_LIMIT: usize = 120;

/// Words that say that something is unfinished. In pieces, so that this file does not hold them.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("HA", "CK:")];

/// Beginnings of paths that are one person's.
const PERSONAL: &[&str] = &[concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/ro", "ot/")];

/// Checks every file that git knows or would take.
pub fn check() -> Result<(), String> {
    let root = workspace::root();
    let list = run::quiet("git", &["ls-files", "--cached", "--others", "--exclude-standard"])
        .ok_or("git cannot list the files; is this a git checkout?")?;
    let mut problems = Vec::new();
    let mut count = 0;
    for name in list.lines() {
        // A file may be deleted and not yet committed so; what is not text is none of ours.
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        count += 1;
        problems.extend(of_file(&root, name, &text));
    }
    problems.extend(bans_repeated(&root)?);
    problems.extend(not_in_the_book(&root, list.lines()));
    if problems.is_empty() {
        println!("{count} files are tidy");
        Ok(())
    } else {
        Err(format!("{} places are untidy:\n  {}", problems.len(), problems.join("\n  ")))
    }
}

fn of_file(root: &Path, name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if [".pending-snap", ".snap.new", ".orig", ".rej"].iter().any(|ending| name.ends_with(ending)) {
        problems.push(format!("{name}: left over by a tool; take it out"));
    }
    if name.ends_with(".rs") && !text.starts_with("//! ") {
        problems.push(format!("{name}:1: begin with `//! ` and a sentence on what the file is for"));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        problems.push(format!("{name}: end with a line feed"));
    }
    for (number, line) in text.lines().enumerate() {
        let place = format!("{name}:{}", number + 1);
        problems.extend(of_line(root, name, line).into_iter().map(|problem| format!("{place}: {problem}")));
    }
    if name.ends_with(".md") {
        for (line, link) in markdown::broken_links(&root.join(name), text) {
            problems.push(format!("{name}:{line}: the link `{link}` leads nowhere"));
        }
    }
    problems
}

fn of_line(root: &Path, name: &str, line: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let holds_path = |path: &str| {
        line.match_indices(path).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|character| character.is_alphanumeric() || "._-}~/".contains(character))
        })
    };
    let root = root.to_string_lossy();
    if PERSONAL.iter().any(|path| holds_path(path)) || (root.len() > 1 && holds_path(&root)) {
        problems.push("a path of one machine".to_owned());
    }
    if line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") {
        problems.push("a conflict that is not resolved".to_owned());
    }
    if name.ends_with(".rs") {
        if let Some(word) = UNFINISHED.iter().find(|word| line.contains(**word)) {
            problems.push(format!("`{word}`: do it, or write an issue"));
        }
        if line.trim_start().starts_with("#[ignore") && !owned(line) {
            problems.push("an ignored test says who looks after it: #[ignore = \"name: reason\"]".to_owned());
        }
        // A message stays whole, so that it can be searched for; rustfmt looks after the rest of the code.
        if line.chars().count() > LINE_LIMIT && !line.contains('"') && !line.contains("://") {
            problems.push(format!("longer than {LINE_LIMIT} columns"));
        }
    }
    problems
}

fn owned(line: &str) -> bool {
    let reason = line.split_once("#[ignore = \"").and_then(|(_, reason)| reason.split_once(": "));
    reason.is_some_and(|(owner, why)| !owner.trim().is_empty() && why.len() > "\"]".len())
}

/// Clippy reads the nearest `clippy.toml` alone, so that a crate's own page must repeat the common bans.
fn bans_repeated(root: &Path) -> Result<Vec<String>, String> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("`{}`: {error}", path.display()));
    let common = read(&root.join("clippy.toml"))?;
    let bans: Vec<&str> = common.lines().map(str::trim).filter(|line| line.starts_with("{ path")).collect();
    let mut problems = Vec::new();
    let crates = fs::read_dir(root.join("crates")).map_err(|error| format!("`crates`: {error}"))?;
    for folder in crates.flatten() {
        let path = folder.path().join("clippy.toml");
        if !path.exists() {
            continue;
        }
        let own = read(&path)?;
        for ban in bans.iter().filter(|ban| !own.contains(**ban)) {
            let name = folder.file_name();
            problems.push(format!("crates/{}/clippy.toml: repeat `{ban}`", name.to_string_lossy()));
        }
    }
    Ok(problems)
}

/// A page that the book's table of contents does not name is found by nobody.
fn not_in_the_book<'a>(root: &Path, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let contents = fs::read_to_string(root.join("docs/SUMMARY.md")).unwrap_or_default();
    let pages = names.filter(|name| name.ends_with(".md")).filter_map(|name| name.strip_prefix("docs/"));
    pages
        .filter(|page| *page != "SUMMARY.md" && !contents.contains(&format!("]({page})")))
        .map(|page| format!("docs/{page}: name it in docs/SUMMARY.md"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> Vec<String> {
        of_file(Path::new("/place/of/checkout"), name, text)
    }

    #[test]
    fn a_tidy_file_has_no_problems() {
        assert_eq!(of("a.rs", "//! Is tidy.\n\n#[ignore = \"ada: needs a disk of its own\"]\n"), [""; 0]);
    }

    #[test]
    fn each_rule_finds_its_fault() {
        let faults = [
            ("a.rs", "fn main() {}\n".to_owned()),
            ("a.rs", "//! No end.".to_owned()),
            ("a.rs", format!("//! A.\n// {}: later\n", UNFINISHED[0])),
            ("a.rs", "//! A.\n#[ignore]\n".to_owned()),
            ("a.rs", "//! A.\n#[ignore = \"slow\"]\n".to_owned()),
            ("a.rs", format!("//! A.\n// {}\n", "x".repeat(LINE_LIMIT))),
            ("a.toml", "path = \"/place/of/checkout/crates\"\n".to_owned()),
            ("a.md", format!("see {}ada/notes\n", PERSONAL[0])),
            ("a.md", "see [it](gone.md)\n".to_owned()),
            (".a.rs.pending-snap", "{}\n".to_owned()),
        ];
        for (name, text) in faults {
            assert_eq!(of(name, &text).len(), 1, "{name}: {text}");
        }
    }
}
