//! `cargo xtask crash`: kills the real program at every change that it makes to its files, and again while it goes
//! on, and judges what it makes of that.

mod judge;
#[expect(unsafe_code, reason = "ptrace has no safe face; every call stands in this one module")]
mod kernel;
mod step;
pub mod tracer;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use judge::run_number;
pub use judge::{After, Expected, expectation, go_on_and_judge};
pub use step::task as step;
use tracer::{Change, Ending, Moment, Wish};
use world::{MIN_STEPS, PLANS, World};

use crate::{run, workspace};

/// How long the sample of CI may take.
const SAMPLE: Duration = Duration::from_secs(150);

/// A sample must have at least so many deaths, so that it cannot be green by doing nothing.
const MIN_SAMPLE_DEATHS: usize = 200;

/// Deaths of these kinds must be in every sample.
const MUST_DIE_AT: &[&str] = &[
    "write wal",
    "sync wal",
    "write output",
    "sync output",
    "write export",
    "write database",
    "sync database",
    "start process",
];

/// Steps mostly wait, so there are more workers than processors.
const WORKERS_PER_PROCESSOR: usize = 2;

/// First deaths of each plan after which every death while going on is tried, with `--all`.
const WHOLE_RECOVERIES: usize = 6;

/// A line is printed after so many points.
const REPORT_EVERY: usize = 500;

const HELP: &str = "cargo xtask crash [options]

  --seconds N         try points for so long (150)
  --all               try every point, every point of several recoveries, and a second death after each first;
                      --seconds after it stops it early
  --plan NAME         only this plan of crates/xtask/plans/crash
  --point DEATH       with --plan: only this one, such as `sync-wal/7/after`: the kind of change, which of them
                      (`change/7/after`: of all), and before, halfway or after
  --again DEATH       with --point: and die again there while going on
  --cancel            with --point: and another process cancels the run just before
  --seed N            try the points in another order
  --baton PATH        this program instead of a release build of the checkout
  --folder PATH       work in this folder and leave it; the files of a point that failed are there";

/// Where in a change the program dies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Position {
    Before,
    Halfway,
    After,
}

const POSITIONS: &[(Position, &str)] =
    &[(Position::Before, "before"), (Position::Halfway, "halfway"), (Position::After, "after")];

/// A death: at which change of which kind, counted from 0, and where in it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Death {
    /// Runs differ a little from each other; the third write of a kind is more the same than the hundredth of all.
    kind: String,
    number: usize,
    position: Position,
}

/// The kind of change that is the start of a step.
const START: &str = "start process";

/// In the place of a kind: whatever it is.
const ANY: &str = "change";

impl std::fmt::Display for Death {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (_, position) = POSITIONS.iter().find(|(position, _)| *position == self.position).ok_or(std::fmt::Error)?;
        write!(out, "{}/{}/{position}", self.kind.replace(' ', "-"), self.number)
    }
}

impl Death {
    fn parse(text: &str) -> Result<Death, String> {
        let mut parts = text.split('/');
        let parsed = (|| {
            let kind = parts.next()?.replace('-', " ");
            let number = parts.next()?.parse().ok()?;
            let name = parts.next()?;
            let (position, _) = POSITIONS.iter().find(|(_, known)| *known == name)?;
            Some(Death { kind, number, position: *position })
        })();
        parsed.ok_or(format!("`{text}` is no point; `sync-wal/7/after` would be one"))
    }
}

/// One thing to try: a death in a plan's run, and perhaps another one while it goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Point {
    plan: &'static str,
    first: Death,
    again: Option<Death>,
    /// Whether another process cancels the run just before the first death, and is told that it did.
    cancel: bool,
}

impl std::fmt::Display for Point {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "cargo xtask crash --plan {} --point {}", self.plan, self.first)?;
        if let Some(again) = &self.again {
            write!(out, " --again {again}")?;
        }
        if self.cancel { write!(out, " --cancel") } else { Ok(()) }
    }
}

struct Options {
    is_all: bool,
    limit: Option<Duration>,
    plan: Option<&'static str>,
    first: Option<Death>,
    again: Option<Death>,
    cancel: bool,
    seed: usize,
    baton: Option<PathBuf>,
    folder: Option<PathBuf>,
}

/// `cargo xtask crash`, see [`HELP`].
pub fn task(arguments: &[String]) -> Result<(), String> {
    let Some(options) = read(arguments)? else { return Ok(()) };
    let baton = program(options.baton.as_deref())?;
    let folder = Folder::new("crash", options.folder.as_deref())?;
    let plans: Vec<&'static str> =
        PLANS.iter().copied().filter(|plan| options.plan.is_none_or(|only| only == *plan)).collect();
    let learned = learn(&plans, &World::new(folder.path.join("learn"), &baton)?)?;
    let whole = options.plan.is_none();
    let steps: usize = learned.values().map(|plan| plan.expected.steps.len()).sum();
    if whole && steps < MIN_STEPS {
        return Err(format!("the reference plans have {steps} steps and must have {MIN_STEPS}"));
    }
    let points = match options.first {
        Some(ref first) => {
            let plan = options.plan.ok_or("--point wants --plan")?;
            vec![Point { plan, first: first.clone(), again: options.again.clone(), cancel: options.cancel }]
        }
        None => points(&learned, options.is_all, options.seed),
    };
    let report = try_all(&points, &learned, &options, &folder.path, &baton)?;
    report.print(&points);
    if let Some((point, problems)) = report.failures.first() {
        folder.keep();
        return Err(format!(
            "{} of {} points went wrong; the first:\n  {}\nagain: {point}",
            report.failures.len(),
            report.tried,
            problems.join("\n  ")
        ));
    }
    if options.first.is_none() && whole {
        report.judge_coverage()?;
    }
    Ok(())
}

/// The sample of `cargo xtask ci`.
pub fn sample() -> Result<(), String> {
    task(&[])
}

fn read(arguments: &[String]) -> Result<Option<Options>, String> {
    let mut options = Options {
        is_all: false,
        limit: Some(SAMPLE),
        plan: None,
        first: None,
        again: None,
        cancel: false,
        seed: 0,
        baton: None,
        folder: None,
    };
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        let number = |text: &str| text.parse::<usize>().map_err(|_| format!("`{text}` is no number"));
        match word {
            "--seconds" => options.limit = Some(Duration::from_secs(number(value()?)? as u64)),
            "--all" => {
                options.is_all = true;
                options.limit = None;
            }
            "--plan" => {
                let name = value()?;
                let known = PLANS.iter().find(|plan| **plan == name);
                options.plan = Some(known.ok_or(format!("there is no plan `{name}`; there are {}", PLANS.join(", ")))?);
            }
            "--point" => options.first = Some(Death::parse(value()?)?),
            "--again" => options.again = Some(Death::parse(value()?)?),
            "--cancel" => options.cancel = true,
            "--seed" => options.seed = number(value()?)?,
            "--baton" => options.baton = Some(PathBuf::from(value()?)),
            "--folder" => options.folder = Some(PathBuf::from(value()?)),
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(None);
            }
            other => return Err(format!("`{other}` is unknown\n\n{HELP}")),
        }
    }
    Ok(Some(options))
}

/// The program to try: the one that is named, else the checkout's release build.
pub fn program(named: Option<&Path>) -> Result<PathBuf, String> {
    let path = match named {
        Some(path) => path.to_path_buf(),
        None => {
            run::show(&mut run::cargo(&["build", "--release", "--locked", "--package", "baton-cli"]))?;
            workspace::target_folder()?.join("release/baton")
        }
    };
    path.canonicalize().map_err(|error| format!("`{}`: {error}", path.display()))
}

/// A folder for the worlds. A kill loses nothing that was written, so memory will do, and is faster than a disk.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    is_kept: std::cell::Cell<bool>,
}

impl Folder {
    /// A new one, or the one that was asked for.
    pub fn new(name: &str, wanted: Option<&Path>) -> Result<Folder, String> {
        let shared = Path::new("/dev/shm");
        let base = if shared.is_dir() { shared.to_path_buf() } else { std::env::temp_dir() };
        let path = match wanted {
            Some(path) => path.to_path_buf(),
            None => base.join(format!("baton-{name}-{}", std::process::id())),
        };
        fs::create_dir_all(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        let path = path.canonicalize().map_err(|error| format!("`{}`: {error}", path.display()))?;
        Ok(Folder { path, is_kept: std::cell::Cell::new(wanted.is_some()) })
    }

    /// Leaves it for a person to look at.
    pub fn keep(&self) {
        self.is_kept.set(true);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_kept.get() {
            eprintln!("the files are in `{}`", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("`{}` stays behind: {error}", self.path.display());
        }
    }
}

/// What an undisturbed run of a plan shows.
struct Learned {
    expected: Expected,
    /// The kinds of the changes that it makes, in their order.
    changes: Vec<String>,
}

fn learn(plans: &[&'static str], world: &World) -> Result<BTreeMap<&'static str, Learned>, String> {
    let mut learned = BTreeMap::new();
    for plan in plans {
        world.reset(plan)?;
        let mut changes = Vec::new();
        let start = Instant::now();
        let ending = traced(world, world.run_plan(plan)?, &mut |moment, change| {
            if moment == Moment::Before && counts(change) {
                changes.push(change.kind());
            }
            Wish::Continue
        })?;
        let time = start.elapsed();
        if ending != Ending::Ended {
            return Err(format!("plan `{plan}` was killed although nobody wished it"));
        }
        let expected = expectation(world, plan)?;
        println!(
            "{plan:<9} {:>2} steps, {:>4} changes, {:>4} ms, {}",
            expected.steps.len(),
            changes.len(),
            time.as_millis(),
            expected.status
        );
        learned.insert(*plan, Learned { expected, changes });
    }
    Ok(learned)
}

/// Runs a plan up to a death in the middle of so many changes.
pub fn cut_in_half(world: &World, plan: &str, changes: usize) -> Result<(), String> {
    let death = Death { kind: ANY.to_owned(), number: changes / 2, position: Position::After };
    die(world, world.run_plan(plan)?, &death, &mut || {}).map(drop)
}

/// Whether a change is one of the journal's. What an attempt leaves in its scratch folder is read before its end is
/// written, and never again.
fn counts(change: &Change) -> bool {
    match change {
        Change::Open { path, .. }
        | Change::Write { path, .. }
        | Change::Resize { path, .. }
        | Change::Allocate { path, .. }
        | Change::Sync { path }
        | Change::SyncFolder { path }
        | Change::MakeFolder { path }
        | Change::MakeFifo { path }
        | Change::Remove { path }
        | Change::Rename { to: path, .. } => !path.starts_with("scratch"),
        Change::Start => true,
    }
}

/// Runs a command of a world under trace. What it prints is added to what was told.
fn traced(
    world: &World,
    mut command: Command,
    observer: &mut dyn FnMut(Moment, &Change) -> Wish,
) -> Result<Ending, String> {
    let told = File::options().append(true).open(world.told()).map_err(|error| format!("what is told: {error}"))?;
    let errors = world.folder().join("traced-stderr");
    let errors = File::create(&errors).map_err(|error| format!("`{}`: {error}", errors.display()))?;
    command.stdout(told).stderr(errors);
    tracer::trace(command, &world.data(), false, observer)
}

/// Runs a command to a death, with something else done just before; answers with the kind of change at which it
/// died, or nothing if it never came there.
fn die(world: &World, command: Command, death: &Death, before: &mut dyn FnMut()) -> Result<Option<String>, String> {
    let mut number = 0;
    let mut is_near = false;
    let mut kind = None;
    traced(world, command, &mut |moment, change| {
        if !counts(change) {
            return Wish::Continue;
        }
        match moment {
            Moment::Before => {
                let is_meant = death.kind == ANY || death.kind == change.kind();
                is_near = is_meant && number == death.number;
                number += usize::from(is_meant);
                match death.position {
                    Position::Before if is_near => {
                        kind = Some(change.kind());
                        before();
                        Wish::Kill
                    }
                    Position::Halfway if is_near => Wish::Halve,
                    _ => Wish::Continue,
                }
            }
            Moment::After if is_near => {
                kind = Some(change.kind());
                before();
                Wish::Kill
            }
            Moment::After => Wish::Continue,
        }
    })?;
    Ok(kind)
}

/// Every first death, each with or without a second one, in an order that spreads over all plans.
fn points(learned: &BTreeMap<&'static str, Learned>, is_all: bool, seed: usize) -> Vec<Point> {
    let mut points = Vec::new();
    for (plan, learned) in learned {
        let firsts = deaths(&learned.changes);
        for (number, first) in firsts.iter().enumerate() {
            let again = again(learned.changes.len(), number + seed);
            if is_all || number % 3 != 2 {
                points.push(Point { plan, first: first.clone(), again: None, cancel: false });
            }
            if is_all || number % 3 == 2 {
                points.push(Point { plan, first: first.clone(), again: Some(again), cancel: false });
            }
        }
        // There the run holds no lock of the database, so that another process can write, and steps are left to cancel.
        for first in firsts.iter().filter(|death| death.kind == START && death.position == Position::After) {
            points.push(Point { plan, first: first.clone(), again: None, cancel: true });
        }
        if is_all {
            let every = (firsts.len() / WHOLE_RECOVERIES).max(1);
            for first in firsts.iter().skip(every / 2).step_by(every) {
                // What is left to do is at most the whole plan once more.
                for number in 0..learned.changes.len() {
                    for position in [Position::Before, Position::After] {
                        let again = Death { kind: ANY.to_owned(), number, position };
                        points.push(Point { plan, first: first.clone(), again: Some(again), cancel: false });
                    }
                }
            }
        }
    }
    rare_first(spread(points, seed))
}

/// A few points of each kind of change and position first, so that even a short sample has all of them.
fn rare_first(points: Vec<Point>) -> Vec<Point> {
    const FEW: usize = 2;
    let mut met: BTreeMap<(String, Position, bool), usize> = BTreeMap::new();
    let (mut first, rest): (Vec<Point>, Vec<Point>) = points.into_iter().partition(|point| {
        let count = met.entry((point.first.kind.clone(), point.first.position, point.cancel)).or_default();
        *count += 1;
        *count <= FEW
    });
    first.extend(rest);
    first
}

/// The deaths that a series of changes offers.
fn deaths(changes: &[String]) -> Vec<Death> {
    let mut deaths = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for kind in changes {
        let count = counts.entry(kind).or_default();
        for (position, _) in POSITIONS {
            if *position != Position::Halfway || kind.starts_with("write ") {
                deaths.push(Death { kind: kind.clone(), number: *count, position: *position });
            }
        }
        *count += 1;
    }
    deaths
}

/// A second death, each time another one; half of them are in the first forty changes, where runs are taken over.
fn again(changes: usize, number: usize) -> Death {
    const BEGINNING: usize = 40;
    let range = if number.is_multiple_of(2) { BEGINNING } else { changes.max(1) };
    let position = [Position::After, Position::Before][number / 2 % 2];
    Death { kind: ANY.to_owned(), number: number * 7919 % range, position }
}

/// The same points in an order in which each beginning is a fair sample.
fn spread(points: Vec<Point>, seed: usize) -> Vec<Point> {
    let count = points.len();
    // The golden section of the count leads to every place once if it shares no factor with it.
    let mut stride = (count as f64 * 0.618) as usize;
    while stride > 1 && common_factor(stride, count) != 1 {
        stride += 1;
    }
    (0..count).map(|number| points[(number * stride.max(1) + seed) % count].clone()).collect()
}

fn common_factor(one: usize, other: usize) -> usize {
    if other == 0 { one } else { common_factor(other, one % other) }
}

#[derive(Default)]
struct Report {
    tried: usize,
    deaths: BTreeMap<String, [usize; 3]>,
    second_deaths: usize,
    cancels: usize,
    /// Points that the run did not come to, because its rounds fell otherwise than in the first one.
    missed: usize,
    failures: Vec<(Point, Vec<String>)>,
    time: Duration,
}

fn try_all(
    points: &[Point],
    learned: &BTreeMap<&'static str, Learned>,
    options: &Options,
    folder: &Path,
    baton: &Path,
) -> Result<Report, String> {
    let start = Instant::now();
    let queue = Mutex::new(points.iter());
    let report = Mutex::new(Report::default());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = (processors * WORKERS_PER_PROCESSOR).min(points.len());
    let work = |number: usize| -> Result<(), String> {
        let world = World::new(folder.join(format!("worker-{number}")), baton)?;
        loop {
            let is_late = options.limit.is_some_and(|limit| start.elapsed() > limit);
            let failed = report.lock().map_or(true, |report| !report.failures.is_empty());
            if is_late || failed {
                return Ok(());
            }
            let Some(point) = queue.lock().ok().and_then(|mut queue| queue.next()) else { return Ok(()) };
            let outcome = try_point(&world, point, &learned[point.plan].expected);
            let mut report = report.lock().map_err(|_| "another worker panicked")?;
            report.take(point, outcome);
            if report.tried % REPORT_EVERY == 0 {
                let time = start.elapsed().as_secs();
                println!("{} of {} points, {} deaths, {time} s", report.tried, points.len(), report.count());
            }
        }
    };
    std::thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = (0..workers).map(|number| scope.spawn(move || work(number))).collect();
        let outcomes = handles.into_iter().map(|handle| handle.join().map_err(|_| "a worker panicked".to_owned()));
        outcomes.collect::<Result<Vec<_>, String>>()?.into_iter().collect::<Result<Vec<()>, String>>()
    })?;
    let mut report = report.into_inner().map_err(|_| "a worker panicked")?;
    report.time = start.elapsed();
    Ok(report)
}

/// The kinds of change at which it died, and what was wrong.
struct Outcome {
    /// Whether somebody was told that the run is canceled.
    acknowledged: bool,
    first: Option<String>,
    again: Option<String>,
    problems: Vec<String>,
}

fn try_point(world: &World, point: &Point, expected: &Expected) -> Result<Outcome, String> {
    world.reset(point.plan)?;
    let mut canceled = None;
    let first = die(world, world.run_plan(point.plan)?, &point.first, &mut || {
        if point.cancel {
            canceled = Some(world.ask(&["cancel", &run_number(point.plan).to_string()]));
        }
    })?;
    let acknowledged = canceled.transpose()?.is_some_and(|said| said.code == Some(0));
    let again = match &point.again {
        Some(again) if first.is_some() => die(world, world.resume(), again, &mut || {})?,
        _ => None,
    };
    let canceled = Expected::canceled();
    let expected = if acknowledged { &canceled } else { expected };
    let problems = go_on_and_judge(world, point.plan, expected, After::Death)?;
    Ok(Outcome { acknowledged, first, again, problems })
}

impl Report {
    fn take(&mut self, point: &Point, outcome: Result<Outcome, String>) {
        self.tried += 1;
        match outcome {
            Ok(outcome) => {
                self.missed += usize::from(outcome.first.is_none());
                self.cancels += usize::from(outcome.acknowledged);
                self.second_deaths += usize::from(outcome.again.is_some());
                for (kind, death) in [(outcome.first, Some(&point.first)), (outcome.again, point.again.as_ref())] {
                    if let (Some(kind), Some(death)) = (kind, death) {
                        self.deaths.entry(kind).or_default()[death.position as usize] += 1;
                    }
                }
                if !outcome.problems.is_empty() {
                    self.failures.push((point.clone(), outcome.problems));
                }
            }
            Err(problem) => self.failures.push((point.clone(), vec![problem])),
        }
    }

    fn print(&self, points: &[Point]) {
        println!("\n{:<24} {:>7} {:>8} {:>7}", "died at", "before", "halfway", "after");
        for (kind, counts) in &self.deaths {
            println!("{kind:<24} {:>7} {:>8} {:>7}", counts[0], counts[1], counts[2]);
        }
        println!(
            "\n{} deaths in {} of {} points: {} while going on after the first, {} just after somebody canceled the run; \
             {} points were not reached; {:.0} s",
            self.count(),
            self.tried,
            points.len(),
            self.second_deaths,
            self.cancels,
            self.missed,
            self.time.as_secs_f64()
        );
    }

    fn count(&self) -> usize {
        self.deaths.values().flatten().sum()
    }

    fn judge_coverage(&self) -> Result<(), String> {
        if self.count() < MIN_SAMPLE_DEATHS {
            return Err(format!("only {} deaths were tried; there must be {MIN_SAMPLE_DEATHS}", self.count()));
        }
        let met: BTreeSet<&str> = self.deaths.keys().map(String::as_str).collect();
        let absent: Vec<&str> = MUST_DIE_AT.iter().copied().filter(|kind| !met.contains(kind)).collect();
        if !absent.is_empty() {
            return Err(format!("no death was tried at: {}", absent.join(", ")));
        }
        if self.second_deaths == 0 || self.cancels == 0 {
            return Err("no death was tried while going on, or none after a cancel".to_owned());
        }
        Ok(())
    }
}
