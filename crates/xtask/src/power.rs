//! `cargo xtask power`: records what the real program writes and syncs, makes of it what a disk may hold when the power
//! fails at any moment, and judges what the program makes of that. Without one of its syncs it must be found out.

mod disk;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::crash::tracer::{self, Change, Ending, Moment, Wish};
use crate::crash::world::{PLANS, World};
use crate::crash::{After, Expected, Folder, cut_in_half, expectation, go_on_and_judge, program};
use disk::{Disk, Fate, Random};

/// How long the sample of CI may take.
const SAMPLE: Duration = Duration::from_secs(110);

/// A sample must have at least so many images, and of each fate so many.
const MIN_SAMPLE_IMAGES: usize = 100;
const MIN_SAMPLE_OF_EACH: usize = 10;

/// Images of scattered blocks for each cut, with `--all`.
const SCATTERED_OF_EACH: u64 = 4;

/// How many syncs of one kind are left out, one after the other, until it is noticed.
const PLANTED_TRIES: usize = 12;

/// The syncs without which the harness must find a fault, and the plan that makes them.
const PLANTED: &[(&str, &str)] = &[("sync wal", "retries"), ("sync output", "output")];

/// Steps mostly wait, so there are more workers than processors.
const WORKERS_PER_PROCESSOR: usize = 2;

const HELP: &str = "cargo xtask power [options]

  --seconds N   try images for so long (110)
  --all         try every image
  --plan NAME   only this plan of crates/xtask/plans/crash
  --fate NAME   only this fate: dropped, kept, scattered, hollow or torn
  --seed N      other images, in another order
  --baton PATH  this program instead of a release build of the checkout
  --folder PATH work in this folder and leave it; the image that failed is there";

struct Options {
    limit: Option<Duration>,
    plan: Option<&'static str>,
    fate: Option<Fate>,
    seed: u64,
    baton: Option<PathBuf>,
    folder: Option<PathBuf>,
}

/// `cargo xtask power`, see [`HELP`].
pub fn task(arguments: &[String]) -> Result<(), String> {
    let Some(options) = read(arguments)? else { return Ok(()) };
    let baton = program(options.baton.as_deref())?;
    let folder = Folder::new("power", options.folder.as_deref())?;
    let outcome = perform(&options, &folder.path, &baton);
    if outcome.is_err() {
        folder.keep();
    }
    outcome
}

/// The sample of `cargo xtask ci`.
pub fn sample() -> Result<(), String> {
    task(&[])
}

fn perform(options: &Options, folder: &Path, baton: &Path) -> Result<(), String> {
    // First the harness itself: it must see what a missing sync does.
    if options.plan.is_none() && options.fate.is_none() {
        let world = World::new(folder.join("planted"), baton)?;
        for (kind, plan) in PLANTED {
            plant(&world, kind, plan)?;
        }
    }
    let report = try_all(options, folder, baton)?;
    report.print();
    if let Some((name, problems)) = report.failures.first() {
        return Err(format!(
            "{} of {} images went wrong; the first: {name}\n  {}",
            report.failures.len(),
            report.count(),
            problems.join("\n  ")
        ));
    }
    if options.plan.is_none() && options.fate.is_none() {
        report.judge_coverage()?;
    }
    Ok(())
}

fn read(arguments: &[String]) -> Result<Option<Options>, String> {
    let mut options = Options { limit: Some(SAMPLE), plan: None, fate: None, seed: 0, baton: None, folder: None };
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
        match word {
            "--seconds" => options.limit = Some(Duration::from_secs(number(value()?)?)),
            "--all" => options.limit = None,
            "--plan" => {
                let name = value()?;
                let known = PLANS.iter().find(|plan| **plan == name);
                options.plan = Some(known.ok_or(format!("there is no plan `{name}`; there are {}", PLANS.join(", ")))?);
            }
            "--fate" => {
                let name = value()?;
                let known = Fate::ALL.iter().find(|(_, known)| *known == name);
                options.fate = Some(known.ok_or(format!("there is no fate `{name}`\n\n{HELP}"))?.0);
            }
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

/// A run as it was recorded.
struct Record {
    plan: &'static str,
    /// Whether it is a recovery: of a run whose owner was killed half-way.
    is_resumed: bool,
    /// The disk before it.
    start: Disk,
    /// What it changed, in order.
    changes: Vec<Change>,
    /// How much had been told and written into the ledger when each change began, and at the end.
    said: Vec<Said>,
    told: Vec<u8>,
    ledger: Vec<u8>,
    expected: Expected,
}

#[derive(Clone, Copy)]
struct Said {
    told: usize,
    ledger: usize,
}

/// A moment at which the power fails, and what becomes of that which was on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cut {
    /// So many changes were made.
    changes: usize,
    fate: Fate,
    seed: u64,
}

impl Record {
    /// Runs a plan undisturbed and writes down all that it does.
    fn take(world: &World, plan: &'static str) -> Result<Record, String> {
        world.reset(plan)?;
        let mut record = Record::of(world, plan, world.run_plan(plan)?)?;
        record.expected = expectation(world, plan)?;
        Ok(record)
    }

    /// Kills a plan's run half-way and writes down all that is done while it goes on. What the dead process wrote
    /// counts as durable here; the other records are about that.
    fn take_resumed(world: &World, undisturbed: &Record) -> Result<Record, String> {
        world.reset(undisturbed.plan)?;
        cut_in_half(world, undisturbed.plan, undisturbed.changes.len())?;
        let mut record = Record::of(world, undisturbed.plan, world.resume())?;
        world.end_steps();
        record.is_resumed = true;
        record.expected = undisturbed.expected.clone();
        Ok(record)
    }

    fn of(world: &World, plan: &'static str, mut command: Command) -> Result<Record, String> {
        let start = Disk::with(&world.data())?;
        let length = |path: &Path| fs::metadata(path).map_or(0, |facts| facts.len() as usize);
        let now = || Said { told: length(&world.told()), ledger: length(&world.ledger()) };
        let mut changes = Vec::new();
        let mut said = Vec::new();
        let told = File::options().append(true).open(world.told()).map_err(|error| format!("what is told: {error}"))?;
        let errors = world.folder().join("stderr");
        command.stdout(told).stderr(File::create(&errors).map_err(|error| format!("`{}`: {error}", errors.display()))?);
        let ending = tracer::trace(command, &world.data(), true, &mut |moment, change| {
            if moment == Moment::After {
                said.push(now());
                changes.push(change.clone());
            }
            Wish::Continue
        })?;
        if ending != Ending::Ended {
            return Err(format!("plan `{plan}` was killed although nobody wished it"));
        }
        said.push(now());
        let read = |path: &Path| fs::read(path).map_err(|error| format!("`{}`: {error}", path.display()));
        let (told, ledger) = (read(&world.told())?, read(&world.ledger())?);
        Ok(Record { plan, is_resumed: false, start, changes, said, told, ledger, expected: Expected::default() })
    }

    /// The disk after so many changes, of which one is as if it had not been made.
    fn disk(&self, changes: usize, without: Option<usize>) -> Disk {
        let mut disk = self.start.clone();
        for (number, change) in self.changes[..changes].iter().enumerate() {
            if Some(number) != without {
                disk.apply(change);
            }
        }
        disk
    }

    /// Makes the world what it is when the power is back, lets the program go on, and answers with what is wrong.
    fn judge(&self, world: &World, cut: Cut, without: Option<usize>) -> Result<Vec<String>, String> {
        world.clear()?;
        let disk = self.disk(cut.changes, without);
        disk.image(cut.fate, &mut Random::new(cut.seed)).lay_out(&world.data())?;
        let said = self.said[cut.changes];
        let put = |path: &Path, bytes: &[u8]| {
            fs::write(path, bytes).map_err(|error| format!("`{}`: {error}", path.display()))
        };
        put(&world.told(), &self.told[..said.told])?;
        put(&world.ledger(), &self.ledger[..said.ledger])?;
        go_on_and_judge(world, self.plan, &self.expected, After::PowerFailure)
    }

    /// Every cut that differs from the others.
    fn cuts(&self, is_all: bool, seed: u64) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let mut disk = self.start.clone();
        for changes in 0..=self.changes.len() {
            if changes > 0 {
                disk.apply(&self.changes[changes - 1]);
            }
            if !disk.has_pending() && changes < self.changes.len() {
                continue;
            }
            // Nothing that is dropped or hollow differs before the next sync, and then most was promised.
            let is_strongest = matches!(
                self.changes.get(changes),
                None | Some(Change::Sync { .. } | Change::SyncFolder { .. } | Change::Start)
            );
            let is_after_write = changes > 0 && matches!(self.changes[changes - 1], Change::Write { .. });
            let seed = seed.wrapping_mul(1_000_003) + changes as u64 * 16;
            let mut add = |fate, number| cuts.push(Cut { changes, fate, seed: seed + number });
            if is_strongest {
                add(Fate::Dropped, 0);
                add(Fate::Hollow, 1);
            }
            if is_after_write {
                add(Fate::Torn, 2);
            }
            if is_strongest || is_after_write {
                add(Fate::Kept, 3);
            }
            for number in 0..if is_all { SCATTERED_OF_EACH } else { 1 } {
                add(Fate::Scattered, 4 + number);
            }
        }
        cuts
    }
}

/// Leaves out one sync of a kind after the other, until a power failure before the next one is noticed.
fn plant(world: &World, kind: &str, plan: &'static str) -> Result<(), String> {
    let record = Record::take(world, plan)?;
    let all: Vec<usize> = (0..record.changes.len()).filter(|number| record.changes[*number].kind() == kind).collect();
    let mut tries = 0;
    for (place, sync) in all.iter().enumerate().take(PLANTED_TRIES) {
        tries += 1;
        let Change::Sync { path } = &record.changes[*sync] else { continue };
        let is_next =
            |number: &usize| matches!(&record.changes[*number], Change::Sync { path: other } if other == path);
        let next = all[place + 1..].iter().copied().find(is_next).unwrap_or(record.changes.len());
        let cut = Cut { changes: next, fate: Fate::Dropped, seed: 0 };
        let problems = match record.judge(world, cut, Some(*sync)) {
            Ok(problems) => problems,
            Err(problem) => vec![problem],
        };
        let Some(problem) = problems.first() else { continue };
        let clean = record.judge(world, cut, None)?;
        if !clean.is_empty() {
            return Err(format!("plan {plan}, cut {cut:?}, with every sync:\n  {}", clean.join("\n  ")));
        }
        let problem: String = problem.chars().take(200).collect();
        println!("planted: without one `{kind}` (change {sync} of {plan}) it is found that {problem}");
        return Ok(());
    }
    Err(format!("{tries} times a `{kind}` of plan {plan} was left out, and nothing was found: the harness is blind"))
}

#[derive(Default)]
struct Report {
    counts: BTreeMap<(&'static str, Fate), usize>,
    /// How many of them failed while a run went on after a death.
    resumed: usize,
    offered: usize,
    failures: Vec<(String, Vec<String>)>,
    time: Duration,
}

fn try_all(options: &Options, folder: &Path, baton: &Path) -> Result<Report, String> {
    let start = Instant::now();
    let report = Mutex::new(Report::default());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = processors * WORKERS_PER_PROCESSOR;
    let plans: Vec<&'static str> =
        PLANS.iter().copied().filter(|plan| options.plan.is_none_or(|only| only == *plan)).collect();
    // A run remembers where it was started, so each worker records its own.
    let work = |number: usize| -> Result<(), String> {
        let world = World::new(folder.join(format!("worker-{number}")), baton)?;
        let mut records = plans.iter().map(|plan| Record::take(&world, plan)).collect::<Result<Vec<_>, String>>()?;
        for plan in 0..records.len() {
            records.push(Record::take_resumed(&world, &records[plan])?);
        }
        let mut cuts: Vec<(&Record, Cut)> = Vec::new();
        for record in &records {
            let all = record.cuts(options.limit.is_none(), options.seed + number as u64);
            cuts.extend(all.into_iter().map(|cut| (record, cut)));
        }
        cuts.retain(|(_, cut)| options.fate.is_none_or(|fate| fate == cut.fate));
        let mut random = Random::new(options.seed + 1);
        random.shuffle(&mut cuts);
        let mine = in_turn(cuts.into_iter().skip(number).step_by(workers));
        report.lock().map_err(|_| "another worker panicked")?.offered += mine.len();
        for (record, cut) in mine {
            let is_late = options.limit.is_some_and(|limit| start.elapsed() > limit);
            if is_late || report.lock().map_or(true, |report| !report.failures.is_empty()) {
                break;
            }
            let outcome = record.judge(&world, cut, None).unwrap_or_else(|problem| vec![problem]);
            let failed = !outcome.is_empty();
            if failed {
                // As it was before the program went on, for a person to look at.
                let folder = folder.join("failed");
                let image = record.disk(cut.changes, None).image(cut.fate, &mut Random::new(cut.seed));
                image.lay_out(&folder)?;
            }
            report.lock().map_err(|_| "another worker panicked")?.take(record, cut, outcome, &world);
        }
        Ok(())
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

/// The fates in turn, so that a sample has enough of the rare ones.
fn in_turn<'a>(cuts: impl Iterator<Item = (&'a Record, Cut)>) -> Vec<(&'a Record, Cut)> {
    let mut met: BTreeMap<Fate, usize> = BTreeMap::new();
    let mut placed: Vec<(usize, &Record, Cut)> = cuts
        .map(|(record, cut)| {
            let place = met.entry(cut.fate).or_default();
            *place += 1;
            (*place, record, cut)
        })
        .collect();
    placed.sort_by_key(|(place, _, cut)| (*place, cut.fate));
    placed.into_iter().map(|(_, record, cut)| (record, cut)).collect()
}

impl Report {
    fn take(&mut self, record: &Record, cut: Cut, problems: Vec<String>, world: &World) {
        *self.counts.entry((record.plan, cut.fate)).or_default() += 1;
        self.resumed += usize::from(record.is_resumed);
        if !problems.is_empty() {
            let before = cut.changes.checked_sub(1).map(|last| record.changes[last].kind()).unwrap_or_default();
            let next = record.changes.get(cut.changes).map(Change::kind).unwrap_or_default();
            let name = format!(
                "plan {}{}, power fails after {} of {} changes ({before}) and before `{next}`, {:?}, seed {}; image in \
                 `failed`, went on in `{}`",
                record.plan,
                if record.is_resumed { ", while it goes on after a death" } else { "" },
                cut.changes,
                record.changes.len(),
                cut.fate,
                cut.seed,
                world.folder().display()
            );
            self.failures.push((name, problems));
        }
    }

    fn count(&self) -> usize {
        self.counts.values().sum()
    }

    fn of(&self, fate: Fate) -> usize {
        self.counts.iter().filter(|((_, of), _)| *of == fate).map(|(_, count)| count).sum()
    }

    fn print(&self) {
        print!("\n{:<10}", "images");
        for (_, name) in Fate::ALL {
            print!("{name:>10}");
        }
        println!();
        for plan in PLANS {
            print!("{plan:<10}");
            for (fate, _) in Fate::ALL {
                print!("{:>10}", self.counts.get(&(*plan, *fate)).copied().unwrap_or(0));
            }
            println!();
        }
        println!(
            "\n{} of {} images, {} of them of a recovery, {:.0} s",
            self.count(),
            self.offered,
            self.resumed,
            self.time.as_secs_f64()
        );
    }

    fn judge_coverage(&self) -> Result<(), String> {
        if self.count() < MIN_SAMPLE_IMAGES {
            return Err(format!("only {} images were tried; there must be {MIN_SAMPLE_IMAGES}", self.count()));
        }
        if self.resumed < MIN_SAMPLE_OF_EACH {
            return Err(format!("only {} images were of a recovery; there must be {MIN_SAMPLE_OF_EACH}", self.resumed));
        }
        for (fate, name) in Fate::ALL {
            if self.of(*fate) < MIN_SAMPLE_OF_EACH {
                let count = self.of(*fate);
                return Err(format!("only {count} images were {name}; there must be {MIN_SAMPLE_OF_EACH}"));
            }
        }
        Ok(())
    }
}
