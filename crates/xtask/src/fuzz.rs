//! `cargo xtask fuzz`: feeds texts that are almost plans to the plan language, and saves what makes it panic, abort,
//! take long or take much memory.

mod mutate;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::{run, workspace};
use mutate::Mutator;

/// How long the sample of CI takes.
const SAMPLE: Duration = Duration::from_secs(30);

/// A text may take so much of a processor's time.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// After so long nobody waits any more.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kernel counts the time of processes in hundredths of a second, for programs, whatever it uses itself.
const TICK: Duration = Duration::from_millis(10);

/// The program may use so much memory while it reads a text.
const MEMORY_LIMIT_KB: u64 = 256 * 1024;

/// Beyond that the program is ended by the system, so that the machine stays usable.
const HARD_MEMORY_LIMIT_KB: u64 = 2 * 1024 * 1024;

/// The largest text.
pub const MAX_BYTES: usize = 1 << 20;

/// A program that has read so many texts is started anew.
const TEXTS_PER_PROGRAM: usize = 20_000;

/// A sample must read so many texts, and so many of each kind.
const MIN_TEXTS: usize = 2_000;
const MIN_TEXTS_OF_EACH: usize = 200;

const HELP: &str = "cargo xtask fuzz [options]

  --seconds N     for so long (30)
  --seed N        other texts
  --input FILE    only this text: .json, .yaml or .cel
  --program PATH  this build of crates/lang/examples/exercise.rs instead of a release build of the checkout";

/// What a text is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A plan in JSON.
    Json,
    /// A plan in YAML.
    Yaml,
    /// An expression.
    Expression,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Json, Kind::Yaml, Kind::Expression];

    fn letter(self) -> u8 {
        match self {
            Kind::Json => b'j',
            Kind::Yaml => b'y',
            Kind::Expression => b'e',
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Kind::Json => "json",
            Kind::Yaml => "yaml",
            Kind::Expression => "cel",
        }
    }
}

/// `cargo xtask fuzz`, see [`HELP`].
pub fn task(arguments: &[String]) -> Result<(), String> {
    let mut limit = SAMPLE;
    let mut seed = 0;
    let mut input = None;
    let mut program = None;
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
        match word {
            "--seconds" => limit = Duration::from_secs(number(value()?)?),
            "--seed" => seed = number(value()?)?,
            "--input" => input = Some(PathBuf::from(value()?)),
            "--program" => program = Some(PathBuf::from(value()?)),
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(format!("`{other}` is unknown\n\n{HELP}")),
        }
    }
    let program = match program {
        Some(program) => program,
        None => build()?,
    };
    match input {
        Some(path) => one(&program, &path),
        None => many(&program, limit, seed),
    }
}

/// The sample of `cargo xtask ci`.
pub fn sample() -> Result<(), String> {
    task(&[])
}

fn build() -> Result<PathBuf, String> {
    let words = ["build", "--release", "--locked", "--package", "baton-lang", "--example", "exercise"];
    run::show(&mut run::cargo(&words))?;
    Ok(workspace::target_folder()?.join("release/examples/exercise"))
}

fn one(program: &Path, path: &Path) -> Result<(), String> {
    let text = fs::read(path).map_err(|error| format!("`{}`: {error}", path.display()))?;
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let kind = Kind::ALL.into_iter().find(|kind| kind.extension() == extension).unwrap_or(Kind::Yaml);
    let mut reader = Reader::start(program)?;
    let read = reader.read(kind, &text)?;
    println!("{} in {} ms and {} MB", if read.is_good { "good" } else { "bad" }, read.time.as_millis(), read.kb / 1024);
    read.judge()
}

fn many(program: &Path, limit: Duration, seed: u64) -> Result<(), String> {
    let start = Instant::now();
    let mut mutator = Mutator::new(seed, &corpus()?);
    let mut reader = Reader::start(program)?;
    let mut counts: BTreeMap<Kind, (usize, usize)> = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    let mut slowest_text = (Kind::Yaml, Vec::new());
    let mut largest = 0;
    let mut bytes = 0;
    let mut texts = 0;
    while start.elapsed() < limit {
        let (kind, text) = mutator.next();
        let read = reader.read(kind, &text).and_then(|read| read.judge().map(|()| read));
        let read = read.map_err(|problem| match save("found", kind, &text) {
            Ok(path) => format!("{problem}\nagain: cargo xtask fuzz --input {}", path.display()),
            Err(other) => format!("{problem}; and the text cannot be saved: {other}"),
        })?;
        if read.time > slowest {
            slowest = read.time;
            slowest_text = (kind, text.clone());
        }
        largest = largest.max(read.kb);
        bytes += text.len();
        texts += 1;
        let count = counts.entry(kind).or_default();
        count.0 += 1;
        count.1 += usize::from(read.is_good);
        if texts % TEXTS_PER_PROGRAM == 0 {
            reader = Reader::start(program)?;
        }
    }
    for (kind, (count, good)) in &counts {
        println!("{kind:?}: {count} texts, {good} of them good");
    }
    println!(
        "{texts} texts, {} MB, in {:.0} s; the slowest took {} ms, the most memory was {} MB",
        bytes >> 20,
        start.elapsed().as_secs_f64(),
        slowest.as_millis(),
        largest / 1024
    );
    let path = save("slowest", slowest_text.0, &slowest_text.1)?;
    println!("the slowest one is `{}`", path.display());
    let fewest = Kind::ALL.iter().map(|kind| counts.get(kind).map_or(0, |count| count.0)).min().unwrap_or(0);
    if texts < MIN_TEXTS || fewest < MIN_TEXTS_OF_EACH {
        return Err(format!("too few texts: {MIN_TEXTS} in all and {MIN_TEXTS_OF_EACH} of each kind are wanted"));
    }
    // Texts that are all wrong never come past the parser.
    match counts.iter().find(|(_, (_, good))| *good == 0) {
        Some((kind, _)) => {
            Err(format!("no text of the kind {kind:?} was good: what comes after reading was not tried"))
        }
        None => Ok(()),
    }
}

/// The plans of the repository.
fn corpus() -> Result<Vec<(Kind, String)>, String> {
    let list = run::quiet("git", &["ls-files", "*.yaml", "*.yml", "*.json"]).ok_or("git cannot list the files")?;
    let root = workspace::root();
    let texts: Vec<(Kind, String)> = list
        .lines()
        .filter_map(|name| {
            let text = fs::read_to_string(root.join(name)).ok().filter(|text| text.contains("plan_id"))?;
            Some((if name.ends_with(".json") { Kind::Json } else { Kind::Yaml }, text))
        })
        .collect();
    if texts.is_empty() { Err("there is no plan in the repository to begin with".to_owned()) } else { Ok(texts) }
}

fn save(name: &str, kind: Kind, text: &[u8]) -> Result<PathBuf, String> {
    let folder = workspace::target_folder()?.join("fuzz");
    fs::create_dir_all(&folder).map_err(|error| format!("`{}`: {error}", folder.display()))?;
    let path = folder.join(format!("{name}-{}.{}", std::process::id(), kind.extension()));
    fs::write(&path, text).map_err(|error| format!("`{}`: {error}", path.display()))?;
    Ok(path)
}

/// The program that reads texts, in a process of its own: a panic, an overflow of the stack or an abort is seen.
struct Reader {
    child: Child,
    stdin: ChildStdin,
    answers: mpsc::Receiver<u8>,
}

/// What came of a text.
struct Outcome {
    is_good: bool,
    time: Duration,
    kb: u64,
}

impl Outcome {
    fn judge(&self) -> Result<(), String> {
        if self.time > TIME_LIMIT {
            return Err(format!("a text took {} ms; {} are allowed", self.time.as_millis(), TIME_LIMIT.as_millis()));
        }
        if self.kb > MEMORY_LIMIT_KB {
            return Err(format!("a text took {} MB; {} are allowed", self.kb / 1024, MEMORY_LIMIT_KB / 1024));
        }
        Ok(())
    }
}

impl Reader {
    fn start(program: &Path) -> Result<Reader, String> {
        // The shell sets the limit and becomes the program.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("ulimit -v {HARD_MEMORY_LIMIT_KB}; exec \"$0\"")]).arg(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot start `{}`: {error}", program.display()))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the program has no pipes".to_owned());
        };
        let (tell, answers) = mpsc::channel();
        std::thread::spawn(move || pass_on(stdout, &tell));
        Ok(Reader { child, stdin, answers })
    }

    fn read(&mut self, kind: Kind, text: &[u8]) -> Result<Outcome, String> {
        let length = u32::try_from(text.len()).map_err(|_| "a text beyond all bounds")?;
        let mut frame = vec![kind.letter()];
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(text);
        let (start, used) = (Instant::now(), self.processor_time());
        // If it died the answer will not come either, and that is told.
        let _ = self.stdin.write_all(&frame).and_then(|()| self.stdin.flush());
        let answer = self.answers.recv_timeout(PATIENCE);
        // On a busy machine the clock says little; but what is quick by the clock is quick.
        let time = start.elapsed();
        let time = if time > TIME_LIMIT / 10 { self.processor_time().saturating_sub(used) } else { time };
        match answer {
            Ok(letter) => Ok(Outcome { is_good: letter == b'g', time, kb: self.peak_kb() }),
            Err(RecvTimeoutError::Timeout) => Err(format!("a text took more than {} ms", (TIME_LIMIT * 2).as_millis())),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait().map_err(|error| error.to_string())?;
                Err(format!("a text ended the program: {status}"))
            }
        }
    }

    /// How long processors have worked for the program.
    fn processor_time(&self) -> Duration {
        const USER_AFTER_NAME: usize = 11;
        let facts = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let after_name = facts.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = after_name.split_ascii_whitespace().skip(USER_AFTER_NAME).take(2);
        TICK * ticks.filter_map(|field| field.parse::<u32>().ok()).sum::<u32>()
    }

    /// The most memory that the program has used.
    fn peak_kb(&self) -> u64 {
        let facts = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let peak = facts.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        peak.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn pass_on(mut stdout: ChildStdout, tell: &mpsc::Sender<u8>) {
    let mut letter = [0];
    while stdout.read_exact(&mut letter).is_ok() && tell.send(letter[0]).is_ok() {}
}
