//! What the figures were measured on.

use std::fs;
use std::path::Path;

use crate::run;

/// Lines that describe the machine and the programs.
pub fn describe(scratch: &Path) -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let meminfo = read("/proc/meminfo");
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory: u64 = field(&meminfo, "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let first_line = |program: &str| {
        let text = run::quiet(program, &["--version"]).unwrap_or_default();
        text.lines().next().unwrap_or("not found").to_owned()
    };
    let commit = run::quiet("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed = run::quiet("git", &["status", "--porcelain", "--untracked-files=no"]).unwrap_or_default();
    vec![
        format!("date: {}", run::quiet("date", &["-u", "+%Y-%m-%d %H:%M UTC"]).unwrap_or_default()),
        format!("commit: {commit}{}", if changed.is_empty() { "" } else { " and uncommitted changes" }),
        format!("processor: {}, {cores} cores", field(&cpuinfo, "model name")),
        format!("memory: {:.1} GB", memory as f64 * 1024.0 / 1e9),
        format!("kernel: {}", read("/proc/sys/kernel/osrelease").trim()),
        format!("file system: {}", file_system(scratch)),
        format!("SQLite {}: journal_mode=WAL, synchronous=FULL", rusqlite::version()),
        format!("ninja {}; {}", first_line("ninja"), first_line("make")),
        load(),
    ]
}

/// How busy the machine is.
pub fn load() -> String {
    let averages = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let three: Vec<&str> = averages.split(' ').take(3).collect();
    format!("load average: {}", three.join(" "))
}

/// A warning, if the machine has other things to do before the benchmark even starts.
pub fn busy() -> Option<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let averages = fs::read_to_string("/proc/loadavg").ok()?;
    let waiting: f64 = averages.split(' ').next()?.parse().ok()?;
    (waiting > cores / 2.0).then(|| {
        format!("the machine is busy (load average {waiting} on {cores} cores): ratios by the clock say little now")
    })
}

/// The type and device of the file system that holds a path.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let holding = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, place, kind) = (words.next()?, words.next()?, words.next()?);
        path.starts_with(place).then_some((place.len(), device, kind))
    });
    // The longest place is the innermost; of two at one place the later mount is on top.
    let innermost = holding.max_by_key(|(length, ..)| *length);
    innermost.map_or("unknown".to_owned(), |(_, device, kind)| format!("{kind} on {device}"))
}
