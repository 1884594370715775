//! Runs `git` as a program: argument vectors, no prompts, no hooks, one language, nothing inherited that redirects.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{failed, say, try_again};
use crate::registry::ActionFailure;

/// Variables that point git at another repository, index or object store; an action may run inside somebody's hook.
const NOT_INHERITED: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INDEX_VERSION",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_SHALLOW_FILE",
    "GIT_REPLACE_REF_BASE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_EXTERNAL_DIFF",
    "GIT_DIFF_OPTS",
    "GIT_MERGE_AUTOEDIT",
    "GIT_QUARANTINE_PATH",
    "GIT_PUSH_OPTION_COUNT",
    "GIT_REFLOG_ACTION",
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
    "GIT_LITERAL_PATHSPECS",
];

/// Settings that hold for every command, above whatever the user has configured.
const SETTINGS: &[&str] = &[
    "core.fsmonitor=false",
    // Nothing may go on in the background after the action has ended.
    "gc.auto=0",
    "maintenance.auto=false",
    // The same merge must come out the same for everybody; replayed resolutions would be decisions nobody sees.
    "rerere.enabled=false",
    "merge.conflictStyle=merge",
    "merge.ff=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
    "push.recurseSubmodules=no",
    "push.followTags=false",
    "log.showSignature=false",
    "color.ui=false",
    "core.quotePath=true",
    "advice.detachedHead=false",
    "advice.mergeConflict=false",
];

/// Keeps hooks from running. A hook may be a file of the tree that is merged (`core.hooksPath = .husky`), and then it
/// would run what it is to judge.
const NO_HOOKS: &str = "core.hooksPath=/dev/null";

/// `git`, run in one folder.
#[derive(Clone, Debug)]
pub(super) struct Git {
    folder: PathBuf,
    hooks: bool,
}

/// How a command of git ended.
pub(super) struct Done {
    /// The command as a person would type it, without our settings.
    command: String,
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

impl Git {
    pub(super) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), hooks: false }
    }

    /// The same, but hooks run as the user has configured them.
    pub(super) fn with_hooks(&self) -> Self {
        Self { folder: self.folder.clone(), hooks: true }
    }

    /// Runs a command, whatever its exit code.
    pub(super) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Done, ActionFailure> {
        self.run_with(arguments, None)
    }

    /// Runs a command that has to succeed, and answers with what it printed.
    pub(super) fn bytes<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Vec<u8>, ActionFailure> {
        self.run(arguments)?.success()
    }

    /// Runs a command that has to succeed and prints one line.
    pub(super) fn line<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String, ActionFailure> {
        Ok(first_line(&self.bytes(arguments)?))
    }

    /// Runs a command that may have nothing to say: `None` where it fails.
    pub(super) fn line_if<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Option<String>, ActionFailure> {
        let done = self.run(arguments)?;
        Ok((done.code == Some(0)).then(|| first_line(&done.stdout)))
    }

    /// Runs a command whose exit code 0 or 1 is its answer.
    pub(super) fn asks<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<bool, ActionFailure> {
        let done = self.run(arguments)?;
        match done.code {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(done.failure()),
        }
    }

    /// Runs a command that reads `input` and has to succeed.
    pub(super) fn feed<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Result<Vec<u8>, ActionFailure> {
        self.run_with(arguments, Some(input))?.success()
    }

    /// Runs a command with an input, where there is one, whatever its exit code.
    pub(super) fn run_with<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        input: Option<&[u8]>,
    ) -> Result<Done, ActionFailure> {
        let mut command = Command::new("git");
        for setting in SETTINGS.iter().copied().chain((!self.hooks).then_some(NO_HOOKS)) {
            command.arg("-c").arg(setting);
        }
        command.args(arguments).current_dir(&self.folder);
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_EDITOR", "true")
            .env("GIT_SEQUENCE_EDITOR", "true")
            .env("GIT_PAGER", "cat")
            // `git status` and its like must not refresh, and so rewrite, the user's index.
            .env("GIT_OPTIONAL_LOCKS", "0");
        // Paths are paths: no file name can be read as a pattern. (The one command that knows no such mode is fed
        // paths that begin with `./`.)
        if arguments.first().map(AsRef::as_ref) != Some(OsStr::new("check-ignore")) {
            command.env("GIT_LITERAL_PATHSPECS", "1");
        }
        if std::env::var_os("SSH_ASKPASS_REQUIRE").is_none() {
            // ssh asks on the terminal, where nobody answers and a background process is stopped; agents still work.
            command.env("SSH_ASKPASS", "false").env("SSH_ASKPASS_REQUIRE", "force");
        }
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let words: Vec<OsString> = arguments.iter().map(|word| word.as_ref().to_owned()).collect();
        let shown = words.iter().fold(String::from("git"), |line, word| {
            line + " " + &super::path_text::shell_word(word.as_encoded_bytes())
        });
        let mut child = command.spawn().map_err(|error| {
            failed(format!(
                "cannot start `{shown}` in {}: {error}; git has to be installed and on PATH",
                self.folder.display()
            ))
        })?;
        let mut stdin = child.stdin.take();
        let mut errors = child.stderr.take();
        let mut answers = child.stdout.take();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        // Three pipes at once: whichever is full must not keep the others waiting.
        let read = std::thread::scope(|scope| {
            scope.spawn(|| {
                if let (Some(pipe), Some(input)) = (stdin.as_mut(), input) {
                    // git may end before it has read everything; its exit code says whether that was right.
                    let _ = pipe.write_all(input);
                }
                drop(stdin.take());
            });
            let errors = scope.spawn(|| errors.as_mut().map_or(Ok(0), |pipe| pipe.read_to_end(&mut stderr)));
            let answers = answers.as_mut().map_or(Ok(0), |pipe| pipe.read_to_end(&mut stdout));
            errors.join().unwrap_or(Ok(0)).and(answers)
        });
        let status = read
            .and_then(|_| child.wait())
            .map_err(|error| try_again(format!("cannot read the output of `{shown}`: {error}")))?;
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Ok(Done { command: shown, code: status.code(), stdout, stderr })
    }
}

impl Done {
    fn success(self) -> Result<Vec<u8>, ActionFailure> {
        if self.code == Some(0) { Ok(self.stdout) } else { Err(self.failure()) }
    }

    /// The failure of a command that had to succeed, with git's own words.
    pub(super) fn failure(&self) -> ActionFailure {
        let end = match self.code {
            Some(code) => format!("exit code {code}"),
            None => "ended by a signal".to_owned(),
        };
        let words = self.stderr.trim();
        let words = if words.is_empty() { String::from_utf8_lossy(&self.stdout) } else { words.into() };
        let message = format!("`{}` failed ({end}): {}", self.command, words.trim());
        if self.code.is_none() || may_pass(words.as_ref()) { try_again(message) } else { failed(message) }
    }

    /// Passes what git said on standard error on as progress.
    pub(super) fn show(&self) {
        for line in self.stderr.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            say(format_args!("  git: {line}"));
        }
    }
}

/// Whether git's words speak of something that may be over at the next attempt.
fn may_pass(words: &str) -> bool {
    const SIGNS: &[&str] = &[
        "Could not resolve host",
        "Could not read from remote repository",
        "Connection refused",
        "Connection reset",
        "Connection timed out",
        "Operation timed out",
        "Failed to connect",
        "unexpected disconnect",
        "the remote end hung up",
        "early EOF",
        "RPC failed",
        "The requested URL returned error: 5",
        "The requested URL returned error: 429",
        "cannot lock ref",
        "Unable to create",
        "another git process",
        "No space left on device",
        "Resource temporarily unavailable",
        "Temporary failure",
    ];
    const FINAL: &[&str] =
        &["does not appear to be a git repository", "Permission denied (", "Host key verification failed"];
    SIGNS.iter().any(|sign| words.contains(sign)) && !FINAL.iter().any(|sign| words.contains(sign))
}

fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned()
}
