//! The program that the reference plans' steps run: it writes down in a ledger outside the data directory that it
//! began and that it ended, notices when another attempt of its step still runs, and does what its arguments say.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The variable with the folder in which the ledger is.
pub const WORLD: &str = "BATON_CRASH_WORLD";

/// The ledger's name in that folder.
pub const LEDGER: &str = "ledger";

/// A step that hangs does so for so long; something has to end it.
const FOR_EVER: Duration = Duration::from_secs(300);

/// What a step is asked to do.
#[derive(Default)]
struct Orders {
    /// Takes so long.
    work: Duration,
    /// Fails, always or only in its first attempt.
    fail: bool,
    fail_first: bool,
    /// Never ends, always or only in its first attempt.
    hang: bool,
    hang_first: bool,
    /// Is not impressed by SIGTERM.
    stubborn: bool,
    /// Has a child that only ends with it, or that must be ended if it dies.
    child: bool,
    /// Prints so many bytes.
    print: usize,
    /// Sets outputs.
    set: Vec<String>,
    /// Leaves a file with the attempt's name in it.
    leave: Option<String>,
}

/// `xtask crash-step [--work MS] [--fail] …`.
pub fn task(arguments: &[String]) -> Result<(), String> {
    let orders = read(arguments)?;
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let world = variable(WORLD)?;
    let attempt = variable("BATON_ATTEMPT")?;
    let (step, number) = step_and_number(&attempt).ok_or(format!("`{attempt}` is no name of an attempt"))?;
    if orders.stubborn {
        super::kernel::ignore_terminate();
    }
    let lock = File::create(Path::new(&world).join(format!("running-{step}"))).map_err(|error| error.to_string())?;
    let is_alone = lock.try_lock().is_ok();
    note(&world, &format!("{} {attempt}", if is_alone { "start" } else { "overlap" }))?;
    let child = if orders.child { Some(linger(lock)?) } else { None };
    let mut text = printed(&attempt, orders.print);
    text.truncate(orders.print);
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    rest(orders.work);
    if orders.hang || orders.hang_first && number == 1 {
        rest(FOR_EVER);
    }
    if !orders.set.is_empty() {
        let file = variable("BATON_OUTPUT")?;
        fs::write(&file, orders.set.join("\n") + "\n").map_err(|error| format!("`{file}`: {error}"))?;
    }
    if let Some(file) = &orders.leave {
        fs::write(file, &attempt).map_err(|error| format!("`{file}`: {error}"))?;
    }
    if let Some(mut child) = child {
        // It only waits, so nothing can be lost with it.
        let _ = child.kill().and_then(|()| child.wait());
    }
    let is_bad = orders.fail || orders.fail_first && number == 1;
    note(&world, &format!("{} {attempt}", if is_bad { "failed" } else { "done" }))?;
    if is_bad { Err("told to fail".to_owned()) } else { Ok(()) }
}

/// What an attempt prints, at least so many bytes of it.
pub fn printed(attempt: &str, bytes: usize) -> String {
    let mut text = String::new();
    let mut line = 0;
    while text.len() < bytes {
        line += 1;
        text.push_str(&format!("{attempt} line {line}\n"));
    }
    text
}

/// The step's id and the attempt's number of `<store>/<run>/<step>/<n>`.
pub fn step_and_number(attempt: &str) -> Option<(&str, u32)> {
    let mut parts = attempt.split('/').skip(2);
    let step = parts.next()?;
    Some((step, parts.next()?.parse().ok()?))
}

fn read(arguments: &[String]) -> Result<Orders, String> {
    let mut orders = Orders::default();
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("`{text}` is no number"));
        match word {
            "--work" => orders.work = Duration::from_millis(number(value()?)?.into()),
            "--fail" => orders.fail = true,
            "--fail-first" => orders.fail_first = true,
            "--hang" => orders.hang = true,
            "--hang-first" => orders.hang_first = true,
            "--stubborn" => orders.stubborn = true,
            "--child" => orders.child = true,
            "--print" => orders.print = number(value()?)? as usize,
            "--set" => orders.set.push(value()?.to_owned()),
            "--leave" => orders.leave = Some(value()?.to_owned()),
            "--linger" => rest(FOR_EVER),
            other => return Err(format!("`{other}` is unknown")),
        }
    }
    Ok(orders)
}

/// One line in one write, so that lines of several processes do not mix.
fn note(world: &str, line: &str) -> Result<(), String> {
    let path = Path::new(world).join(LEDGER);
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    written.map_err(|error| format!("`{}`: {error}", path.display()))
}

/// Starts a child in a process group of its own that shares the lock: while it lives, the attempt runs.
fn linger(lock: File) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["crash-step", "--linger"]).process_group(0).stdin(lock).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| format!("cannot start a child: {error}"))
}

#[expect(clippy::disallowed_methods, reason = "a step stands for work, and work takes time")]
fn rest(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}
