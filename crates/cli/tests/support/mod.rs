//! What the sessions share: a folder of their own, the real program, and waiting for what it says.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A folder in which a person works, gone at the end.
pub struct Place {
    folder: tempfile::TempDir,
}

/// What a command came to.
#[derive(Debug)]
pub struct Done {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// The command, ready to be started here. Nothing of the surroundings changes what it says.
    pub fn command(&self, arguments: &str) -> Command {
        self.command_of(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    pub fn command_of(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        for name in ["NO_COLOR", "CLICOLOR_FORCE", "LC_ALL", "LC_CTYPE", "LANG", "BATON_OUTPUT"] {
            command.env_remove(name);
        }
        command.env("LANG", "C.UTF-8").env("TERM", "xterm").env("USER", "ada");
        command
    }

    /// Runs `baton` with these words to its end.
    pub fn baton(&self, arguments: &str) -> Done {
        finish(&mut self.command(arguments))
    }

    /// The same in a folder below.
    pub fn baton_in(&self, folder: &str, arguments: &[&str]) -> Done {
        finish(self.command_of(arguments).current_dir(self.file(folder)))
    }

    /// The same with a text on standard input.
    pub fn baton_with_input(&self, arguments: &str, input: &str) -> Done {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        of(child.wait_with_output().unwrap())
    }

    /// The same, which must succeed; its standard output as JSON.
    pub fn json(&self, arguments: &str) -> Value {
        let done = self.baton(&format!("{arguments} --output json"));
        assert_eq!(done.exit, 0, "{arguments}: {done:?}");
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{arguments}: {error}: {done:?}"))
    }

    /// Starts `baton` with these words; what it says on standard output can be waited for.
    pub fn start(&self, arguments: &str) -> Going {
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Going { child, stdout, seen: String::new() }
    }
}

pub fn finish(command: &mut Command) -> Done {
    of(command.output().unwrap())
}

fn of(output: std::process::Output) -> Done {
    Done {
        // A signal has no code; no command of ours exits with this one.
        exit: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Says that a part of a test could not be done here.
pub fn skipped(what: &str, reason: &str) {
    std::io::stderr().write_all(format!("SKIPPED {what}: {reason}\n").as_bytes()).unwrap();
}

/// A command that goes on.
pub struct Going {
    pub child: Child,
    stdout: BufReader<ChildStdout>,
    seen: String,
}

impl Going {
    /// Waits for a line with these words in it.
    pub fn wait_for(&mut self, words: &str) {
        loop {
            let mut line = String::new();
            let count = self.stdout.read_line(&mut line).unwrap();
            assert!(count > 0, "it ended without saying `{words}`:\n{}", self.seen);
            self.seen.push_str(&line);
            if line.contains(words) {
                return;
            }
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for its end.
    pub fn end(mut self) -> Done {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                break;
            }
            self.seen.push_str(&line);
        }
        let output = self.child.wait_with_output().unwrap();
        Done { stdout: self.seen, ..of(output) }
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The text with everything replaced that differs from one time to the next: durations, times, process numbers and
/// the folder.
pub fn steady(text: &str, place: &Place) -> String {
    let text = text.replace(&place.path().display().to_string(), "HERE");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(|character: char| character.is_ascii_digit()) {
        let before = rest[..at].chars().next_back().or(out.chars().next_back());
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = rest.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(length);
        let unit = ["ms", "s"].into_iter().find(|unit| {
            after.strip_prefix(unit).is_some_and(|end| !end.starts_with(|next: char| next.is_alphanumeric()))
        });
        match unit {
            Some(unit) if !before.is_some_and(|character| character.is_alphanumeric() || character == '_') => {
                out.push_str("<t>");
                rest = &after[unit.len()..];
            }
            _ => {
                out.push_str(number);
                rest = after;
            }
        }
    }
    out + rest
}
