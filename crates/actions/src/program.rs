//! Finds the program a step names, and says precisely why one cannot be started.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// What `PATH` is where nobody sets it.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How many found programs are remembered; beyond that all are forgotten.
const REMEMBERED: usize = 1024;
/// How like a name must be to be suggested, from 0 to 1.
const ALIKE: f64 = 0.75;
/// How many programs of one folder are compared when looking for a like name.
const COMPARED: usize = 5000;

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The machine has no room just now: try again when something has ended.
    #[error("cannot start a process now: no {what} left")]
    Busy {
        /// What there is none of.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No program of that name.
    #[error("command not found: `{command}`{}; searched PATH={path}. Install it, correct the name, or set PATH in \
        the step's `env`", suggested(.suggestion))]
    NotFound {
        /// What was asked for.
        command: String,
        /// The folders that were searched.
        path: String,
        /// A program with a like name.
        suggestion: Option<String>,
    },
    /// The path names no file.
    #[error(
        "there is no file `{path}` to run (working folder `{folder}`); a path with `/` is relative to the step's \
        working folder"
    )]
    NoFile {
        /// The path that was asked for.
        path: String,
        /// The step's working folder.
        folder: PathBuf,
    },
    /// The file may not be run.
    #[error("`{path}` is not executable{}; run `chmod +x {path}`, or name its interpreter as the command",
        if *.is_folder { " (it is a folder)" } else { "" })]
    NotExecutable {
        /// The file.
        path: String,
        /// Whether it is a folder.
        is_folder: bool,
    },
    /// The file is no program.
    #[error(
        "`{path}` is not a program this system can run: a script needs a first line such as `#!/bin/sh`, or run it \
        as `sh {path}`; a binary must be built for this machine"
    )]
    NoProgram {
        /// The file.
        path: String,
    },
    /// The interpreter a script names does not exist.
    #[error(
        "`{path}` exists, but its interpreter `{interpreter}` does not; install it or correct the file's first line"
    )]
    NoInterpreter {
        /// The script.
        path: String,
        /// What its first line, or the program's header, names.
        interpreter: String,
    },
    /// The working folder is not there.
    #[error("the working folder `{folder}` {problem}; create it in an earlier step or correct `cwd`")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An argument or a variable that the system would cut short.
    #[error("{what} holds a NUL byte, which no program can be given")]
    Nul {
        /// Which one.
        what: String,
    },
    /// The arguments and the environment are larger than the system allows.
    #[error(
        "the arguments and environment are too large for the system ({bytes} bytes of arguments); pass the data \
        in a file instead"
    )]
    TooLarge {
        /// How much the arguments take.
        bytes: usize,
    },
    /// Anything else.
    #[error("cannot start `{command}`")]
    Other {
        /// What was asked for.
        command: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

fn suggested(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

impl StartError {
    /// Whether the same start may well succeed later.
    pub fn is_busy(&self) -> bool {
        matches!(self, StartError::Busy { .. })
    }

    /// What an errno means that says "not now"; `None` where it says something else.
    pub(crate) fn busy(errno: Errno) -> Option<Self> {
        let what = match errno {
            Errno::MFILE => "open files for this process (see `ulimit -n`)",
            Errno::NFILE => "open files on this machine",
            Errno::AGAIN => "processes (see `ulimit -u` and the cgroup's pids.max)",
            Errno::NOMEM => "memory",
            _ => return None,
        };
        Some(StartError::Busy { what, source: errno.into() })
    }

    /// The whole story in one line, with what the system said.
    pub fn describe(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

/// Where programs are, as far as it was asked.
#[derive(Default)]
pub(crate) struct Programs {
    found: HashMap<(Box<str>, Box<OsStr>), CString>,
}

impl Programs {
    /// The file to run for `command`. A name without `/` is searched in `path`; what stands there relative is
    /// relative to the step's folder.
    pub(crate) fn find(&mut self, command: &str, path: Option<&OsStr>, folder: &Path) -> Result<CString, StartError> {
        if command.contains('/') {
            return CString::new(command).map_err(|_| StartError::Nul { what: "the command".into() });
        }
        let path = path.unwrap_or(OsStr::new(DEFAULT_PATH));
        // The key is built anew at each look-up: two small copies, far below the cost of a start.
        let key = (Box::from(command), Box::from(path));
        if let Some(found) = self.found.get(&key) {
            return Ok(found.clone());
        }
        let mut refused = None;
        for entry in std::env::split_paths(path) {
            let file = folder.join(&entry).join(command);
            let Ok(metadata) = fs::metadata(&file) else { continue };
            if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
                let found = CString::new(file.as_os_str().as_bytes())
                    .map_err(|_| StartError::Nul { what: "the command".into() })?;
                if entry.is_absolute() {
                    if self.found.len() >= REMEMBERED {
                        self.found.clear();
                    }
                    self.found.insert(key, found.clone());
                }
                return Ok(found);
            }
            refused.get_or_insert((file, metadata.is_dir()));
        }
        if let Some((file, false)) = refused {
            return Err(StartError::NotExecutable { path: file.display().to_string(), is_folder: false });
        }
        Err(StartError::NotFound {
            command: command.to_owned(),
            path: path.to_string_lossy().into_owned(),
            suggestion: like_name(command, path, folder),
        })
    }

    /// Forgets where `command` is: it was not there any more.
    pub(crate) fn forget(&mut self, command: &str) -> bool {
        let before = self.found.len();
        self.found.retain(|(name, _), _| **name != *command);
        self.found.len() != before
    }
}

fn like_name(command: &str, path: &OsStr, folder: &Path) -> Option<String> {
    let mut best: Option<(f64, String)> = None;
    for entry in std::env::split_paths(path) {
        let Ok(listing) = fs::read_dir(folder.join(entry)) else { continue };
        for file in listing.flatten().take(COMPARED) {
            let Ok(name) = file.file_name().into_string() else { continue };
            let alike = strsim::jaro_winkler(command, &name);
            if alike >= ALIKE && best.as_ref().is_none_or(|(most, _)| alike > *most) {
                best = Some((alike, name));
            }
        }
    }
    best.map(|(_, name)| name)
}

/// Finds out why `program` could not be started in `folder`, after the system refused with `errno`.
pub(crate) fn diagnose(
    errno: Errno,
    command: &str,
    program: &Path,
    folder: &Path,
    argument_bytes: usize,
) -> StartError {
    if let Some(busy) = StartError::busy(errno) {
        return busy;
    }
    if errno == Errno::TOOBIG {
        return StartError::TooLarge { bytes: argument_bytes };
    }
    let wrong_folder = |problem| StartError::Folder { folder: folder.to_owned(), problem };
    match fs::metadata(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return wrong_folder("does not exist"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return wrong_folder("cannot be reached: permission denied");
        }
        Err(_) => return wrong_folder("cannot be entered"),
        Ok(metadata) if !metadata.is_dir() => return wrong_folder("is not a folder"),
        Ok(_) => {}
    }
    let file = folder.join(program);
    let path = program.display().to_string();
    match errno {
        Errno::NOEXEC => return StartError::NoProgram { path },
        Errno::NOENT | Errno::NOTDIR => match interpreter_of(&file) {
            Some(interpreter) => return StartError::NoInterpreter { path, interpreter },
            None if !file.exists() => return StartError::NoFile { path, folder: folder.to_owned() },
            None => {}
        },
        Errno::ACCESS | Errno::PERM => {
            if let Ok(metadata) = fs::metadata(&file) {
                let is_folder = metadata.is_dir();
                if is_folder || metadata.permissions().mode() & 0o111 == 0 {
                    return StartError::NotExecutable { path, is_folder };
                }
            }
            if !may_enter(folder) {
                return wrong_folder("may not be entered: permission denied");
            }
        }
        _ => {}
    }
    StartError::Other { command: command.to_owned(), source: errno.into() }
}

fn may_enter(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The interpreter on a script's first line.
fn interpreter_of(file: &Path) -> Option<String> {
    use std::io::Read;
    let mut head = Vec::new();
    fs::File::open(file).ok()?.take(256).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let interpreter = line.split_ascii_whitespace().next().unwrap_or("").to_owned();
    // A file written on Windows: the carriage return is part of the name that the kernel looked for.
    if line.ends_with('\r') { Some(format!("{}\\r", interpreter.trim_end_matches('\r'))) } else { Some(interpreter) }
}
