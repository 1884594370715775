//! The documentation tells the truth: its plans are judged, its sessions are run, its reference is current, and every
//! error has its page.
//!
//! In a page, a YAML block is a plan (one that begins with `# name.yaml` is also written to that file), or a list of
//! steps; ` ```yaml wrong ` is one with errors. The lines of a `console` block that begin with `$ ` are run, page by
//! page in one folder, and must say what stands below them: `…` stands for anything, durations and times may differ.
//! `# exits with N` behind a command is its exit code. A block after `<!-- not run: reason -->` is left alone.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Place, finish, skipped, steady};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A fenced block of a page.
struct Block {
    line: usize,
    info: String,
    text: String,
    not_run: Option<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    let mut not_run = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
            (None, Some(info)) => {
                let info = info.to_owned();
                open = Some(Block { line: number + 1, info, text: String::new(), not_run: not_run.take() });
            }
            (None, None) => {
                if let Some(reason) = line.strip_prefix("<!-- not run: ") {
                    not_run = Some(reason.trim_end_matches(" -->").to_owned());
                }
            }
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// Every page whose examples are run: those of the book but for the generated ones, and the README.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    for folder in ["docs", "docs/errors"] {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        pages.extend(
            entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "md")),
        );
    }
    pages.sort();
    pages
}

#[test]
fn every_example_is_true() {
    let mut problems = Vec::new();
    let pages = pages();
    std::thread::scope(|scope| {
        let tasks: Vec<_> = pages.iter().map(|page| scope.spawn(|| check_page(page))).collect();
        for task in tasks {
            problems.extend(task.join().unwrap());
        }
    });
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}

fn check_page(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let name = page.strip_prefix(root()).unwrap().display().to_string();
    let place = Place::new();
    place.write("here/.keep", "");
    let mut problems = Vec::new();
    for block in blocks(&text) {
        let at = format!("{name}:{}", block.line);
        if let Some(reason) = &block.not_run {
            skipped(&at, reason);
            continue;
        }
        let mut info = block.info.split(' ');
        match info.next().unwrap_or_default() {
            "yaml" => problems.extend(check_plan(&place, &block.text, info.next() == Some("wrong"), &name, &at)),
            "console" => problems.extend(check_session(&place, &block.text, &at)),
            _ => {}
        }
    }
    problems
}

fn check_plan(place: &Place, text: &str, is_wrong: bool, page: &str, at: &str) -> Option<String> {
    let file = text.lines().next().and_then(|line| line.strip_prefix("# ")).filter(|name| name.ends_with(".yaml"));
    if let Some(file) = file {
        place.write(&format!("here/{file}"), text);
    }
    let plan = if text.contains("plan_id:") {
        text.to_owned()
    } else {
        let steps: String = text.lines().map(|line| format!("  {line}\n")).collect();
        format!("plan_id: example\nsteps:\n{steps}")
    };
    let path = place.write("judged/plan.yaml", &plan);
    let judged = place.baton_in("judged", &["check", "plan.yaml", "--strict"]);
    fs::remove_file(path).unwrap();
    if is_wrong {
        // The page of an error shows a plan that has it.
        let code = Path::new(page).file_stem().unwrap().to_string_lossy().into_owned();
        let fits = !page.starts_with("docs/errors/") || judged.stdout.contains(&format!("[{code}]"));
        return (judged.exit != 2 || !fits).then(|| format!("{at}: this should be wrong: {}", judged.stdout));
    }
    let is_undefined_only = judged.stdout.matches("error[").count() == judged.stdout.matches("[undefined_").count();
    let is_fine = judged.exit == 0 || (judged.stdout.contains("[undefined_") && is_undefined_only);
    (!is_fine).then(|| format!("{at}: {}", judged.stdout))
}

fn check_session(place: &Place, text: &str, at: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(typed) = line.strip_prefix("$ ") else {
            problems.push(format!("{at}: `{line}` belongs to no command"));
            continue;
        };
        let (command, exit) = match typed.split_once(" # exits with ") {
            Some((command, exit)) => (command, exit.parse().unwrap()),
            None => (typed, 0),
        };
        let mut expected = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("$ ")) {
            expected.push(line);
        }
        if command.starts_with("cargo ") {
            skipped(at, "builds or tests everything; the checks of the whole repository do that");
            continue;
        }
        let done = finish(&mut shell(place, command));
        let said = steady(&format!("{}{}", done.stderr, done.stdout), place);
        let wanted = steady(&(expected.join("\n") + "\n"), place);
        if done.exit != exit {
            problems.push(format!("{at}: `{command}` exits with {} and not with {exit}:\n{said}", done.exit));
        } else if !expected.is_empty() && !fits(&timeless(&wanted), &timeless(&said)) {
            problems.push(format!("{at}: `{command}` says\n{said}\nand not\n{wanted}"));
        }
    }
    problems
}

/// A command as a person types it, in the page's folder, with our `baton` first on the path.
fn shell(place: &Place, command: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_baton")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut shell = place.command_of(&[]);
    let environment: Vec<_> =
        shell.get_envs().map(|(name, value)| (name.to_owned(), value.map(|v| v.to_owned()))).collect();
    shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(place.file("here")).stdin(std::process::Stdio::null());
    for (name, value) in environment {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.env("PATH", format!("{}:{path}", program.display()));
    shell
}

/// Times of day, sizes and process numbers say nothing here.
fn timeless(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| {
                let is_date = word.len() == 10 && word.as_bytes().get(4) == Some(&b'-');
                let is_time = word.ends_with('Z') && word.contains(':');
                if is_date || is_time { "<when>".to_owned() } else { word.to_owned() }
            })
            .collect();
        let mut line = words.join(" ");
        if let Some((before, after)) = line.split_once(" s ago") {
            let before = before.trim_end_matches(|character: char| character.is_ascii_digit());
            line = format!("{before}just now{after}");
        }
        out += &line;
        out.push('\n');
    }
    out
}

/// Whether `said` is what was `wanted`, where `…` stands for anything.
fn fits(wanted: &str, said: &str) -> bool {
    // A line of its own stands for any number of lines, none too.
    let wanted = wanted.replace("\n…\n", "\n…").replace("\n…\n", "\n…");
    let wanted = wanted.strip_prefix("…\n").map(|rest| format!("…{rest}")).unwrap_or(wanted);
    let wanted = wanted.trim_end();
    let said = said.trim_end();
    let mut parts = wanted.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = said.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    // Nothing may follow what is wanted, unless it ends in `…`.
    rest.is_empty() || last == Some("")
}

#[test]
fn what_a_page_leaves_open_may_be_anything_and_nothing_else() {
    assert!(fits("a\n…\nc\n", "a\nb\nb\nc\n"));
    assert!(fits("a\n…\nc\n", "a\nc\n"));
    assert!(fits("…\nc\n", "a\nb\nc\n"));
    assert!(fits("a …\n", "a anything\n"));
    assert!(!fits("a\nc\n", "a\nb\nc\n"));
    assert!(!fits("a\n", "a\nb\n"));
    assert!(!fits("…\nc\n", "a\nb\n"));
}

#[test]
fn the_reference_is_current() {
    let place = Place::new();
    for (page, arguments) in [
        ("docs/reference/cli.md", "man --reference cli"),
        ("docs/reference/plan.md", "man --reference plan"),
        ("docs/reference/schema.json", "schema"),
    ] {
        let path = root().join(page);
        let current = place.baton(arguments).stdout;
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &current).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == current,
            "{page} is not current; UPDATE=1 cargo nextest run -p baton-cli reference mends it"
        );
    }
}

/// The codes in the sources: first arguments of what makes a problem or a failure, and the tables of two errors.
fn codes() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    let mut note = |text: &str| {
        if let Some((code, _)) = text.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"')) {
            codes.insert(code.to_owned());
        }
    };
    for (folder, makers) in [
        ("crates/lang/src", &["Problem::error(", "Problem::warning(", "code: ", "fault("][..]),
        ("crates/cli/src", &["Failure::new("]),
    ] {
        for text in sources(&root().join(folder)) {
            for maker in makers {
                text.split(maker).skip(1).for_each(&mut note);
            }
        }
    }
    for file in ["crates/store/src/error.rs", "crates/engine/src/error.rs"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let (_, table) = text.split_once("fn code(&self)").unwrap();
        let (table, _) = table.split_once("\n    }\n").unwrap();
        table.split("=> ").skip(1).for_each(&mut note);
    }
    codes
}

/// The sources below a folder, without what only tests compile.
fn sources(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            texts.push(text.split("#[cfg(test)]").next().unwrap_or_default().to_owned());
        }
    }
    texts
}

#[test]
fn every_error_has_its_page_and_every_page_its_error() {
    let pages: BTreeSet<String> = fs::read_dir(root().join("docs/errors"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "index")
        .collect();
    let codes = codes();
    assert!(codes.len() > 50, "the sources were not understood: {codes:?}");
    let missing: Vec<_> = codes.difference(&pages).collect();
    let idle: Vec<_> = pages.difference(&codes).collect();
    assert!(missing.is_empty() && idle.is_empty(), "without a page: {missing:?}; pages without an error: {idle:?}");
    let index = fs::read_to_string(root().join("docs/errors/index.md")).unwrap();
    for page in pages {
        assert!(index.contains(&format!("[{page}]({page}.md)")), "{page} is not in the index");
    }
}
