//! The rows of the benchmark with their goals: one table.

use std::path::{Path, PathBuf};

use super::in_process::InProcess;
use super::peer::Peer;
use super::race::{Course, Race, Spread};
use super::report::{Goal, Report, Verdict};
use super::workload::{Program, Shape, Workload};
use super::{Context, commits};

/// A row: its name for `--only`, what is run, its goals in words, and the function.
pub struct Row {
    pub name: &'static str,
    pub title: &'static str,
    pub goals: &'static str,
    pub run: fn(&Context) -> Result<Report, String>,
}

pub const ROWS: &[Row] = &[
    Row {
        name: "wide",
        title: "1,000 independent steps, 8 at once",
        goals: "≤ 0.65 × ninja, ≤ 1.2 × make",
        run: |context| {
            let peers = [Peer::Ninja, Peer::Make, Peer::BareLoop, Peer::Baton];
            race(context, WIDE, 8, &peers, &[(Peer::Ninja, 0.65), (Peer::Make, 1.2)])
        },
    },
    Row {
        name: "chain",
        title: "a chain of 1,000 steps",
        goals: "≤ 0.8 × ninja",
        run: |context| {
            let chain = Workload { steps: 1_000, shape: Shape::Chain, program: Program::True };
            let peers = [Peer::Ninja, Peer::Make, Peer::BareLoop, Peer::Baton];
            race(context, chain, 8, &peers, &[(Peer::Ninja, 0.8)])
        },
    },
    Row {
        name: "layered",
        title: "2,000 steps in layers of 40, about three dependencies each, 8 at once",
        goals: "≤ 0.65 × ninja",
        run: |context| {
            let layered = Workload { steps: 2_000, shape: Shape::Layered, program: Program::True };
            race(context, layered, 8, &[Peer::Ninja, Peer::Make, Peer::Baton], &[(Peer::Ninja, 0.65)])
        },
    },
    Row {
        name: "echo",
        title: "1,000 × `/bin/echo hi`, 8 at once, output kept",
        goals: "≤ 0.75 × ninja",
        run: |context| {
            let echo = Workload { steps: 1_000, shape: Shape::Independent, program: Program::EchoHi };
            let peers = [Peer::Ninja, Peer::NinjaBuiltin, Peer::Make, Peer::BareLoop, Peer::Baton];
            race(context, echo, 8, &peers, &[(Peer::Ninja, 0.75)])
        },
    },
    Row {
        name: "scale",
        title: "100,000 independent steps, 8 at once",
        goals: "per step ≤ 1.2 × the row of 1,000, ≤ 0.7 × ninja, ≤ 100 MB",
        run: scale,
    },
    Row {
        name: "cold",
        title: "one step, from a cold start to the exit, the store exists",
        goals: "≤ 10 ms, ≤ 20 MB",
        run: cold_start,
    },
    Row {
        name: "scheduling",
        title: "scheduling alone: 1,000,000 steps, three dependencies each, in memory",
        goals: "≥ 1,000,000 steps/s, ≤ 400 bytes a step",
        run: scheduling,
    },
    Row {
        name: "runs",
        title: "durable steps that do nothing: 100 runs of 100 steps",
        goals: "≥ 30,000 steps/s",
        run: durable_runs,
    },
    Row {
        name: "durable",
        title: "durable steps that do nothing: one chain of 1,000",
        goals: "≥ 0.5 × the machine's synced commits of one row",
        run: durable_chain,
    },
];

const WIDE: Workload = Workload { steps: 1_000, shape: Shape::Independent, program: Program::True };

/// The large row takes minutes a round; so many are enough to show a spread.
const SCALE_ROUNDS: usize = 3;
/// A start is short, and a median of many is steadier.
const STARTS_PER_ROUND: usize = 5;

/// A race with goals for Baton relative to others.
fn race(
    context: &Context,
    workload: Workload,
    width: u32,
    peers: &[Peer],
    goals: &[(Peer, f64)],
) -> Result<Report, String> {
    let folder = written(context, "workload", workload)?;
    let data = || context.scratch.fresh("data");
    let course = Course { baton: &context.baton, folder: &folder, data: &data, width, workload };
    let mut race = Race::new(peers);
    for _ in 0..context.rounds {
        race.round(&course)?;
    }
    let mut report = Report::of_race(&race);
    for (peer, bound) in goals {
        let what = format!("baton / {}", peer.name());
        report.verdicts.push(Verdict::new(&what, race.ratio(Peer::Baton, *peer), Goal::AtMost(*bound), ""));
    }
    Ok(report)
}

fn scale(context: &Context) -> Result<Report, String> {
    let large = Workload { steps: 100_000, ..WIDE };
    let large_folder = written(context, "large", large)?;
    let small_folder = written(context, "small", WIDE)?;
    let data = || context.scratch.fresh("data");
    let course = |folder, workload: Workload| Course { baton: &context.baton, folder, data: &data, width: 8, workload };
    let (large_course, small_course) = (course(&large_folder, large), course(&small_folder, WIDE));
    let mut large_race = Race::new(&[Peer::Ninja, Peer::Make, Peer::Baton]);
    let mut per_step = Vec::new();
    for _ in 0..context.rounds.min(SCALE_ROUNDS) {
        // The small one in the same minutes, so that both meet the same machine.
        let mut small_race = Race::new(&[Peer::Baton]);
        for _ in 0..context.rounds {
            small_race.round(&small_course)?;
        }
        let mut baton_race = Race::new(&[Peer::Baton]);
        baton_race.round(&large_course)?;
        for _ in 0..context.rounds {
            small_race.round(&small_course)?;
        }
        let small = small_race.wall(Peer::Baton).median / f64::from(WIDE.steps);
        per_step.push(baton_race.wall(Peer::Baton).median / f64::from(large.steps) / small);
        large_race.round(&large_course)?;
    }
    let mut report = Report::of_race(&large_race);
    let megabytes = large_race.peak_megabytes(Peer::Baton).unwrap_or_default();
    report.verdicts = vec![
        Verdict::new("per step / row of 1,000", Spread::of(per_step), Goal::AtMost(1.2), ""),
        Verdict::new("baton / ninja", large_race.ratio(Peer::Baton, Peer::Ninja), Goal::AtMost(0.7), ""),
        Verdict::new("memory", Spread::of([megabytes]), Goal::AtMost(100.0), " MB"),
    ];
    Ok(report)
}

fn cold_start(context: &Context) -> Result<Report, String> {
    let one = Workload { steps: 1, ..WIDE };
    let folder = written(context, "one", one)?;
    let directory = context.scratch.fresh("data")?;
    let data = || Ok(directory.clone());
    let course = Course { baton: &context.baton, folder: &folder, data: &data, width: 1, workload: one };
    // The first run creates the store and is not counted.
    Race::new(&[Peer::Baton]).round(&course)?;
    let mut race = Race::new(&[Peer::Ninja, Peer::Make, Peer::Baton]);
    for _ in 0..context.rounds * STARTS_PER_ROUND {
        race.round(&course)?;
    }
    let mut report = Report::of_race(&race);
    let seconds = race.wall(Peer::Baton);
    let millis = Spread { median: seconds.median * 1e3, min: seconds.min * 1e3, max: seconds.max * 1e3 };
    let megabytes = race.peak_megabytes(Peer::Baton).unwrap_or_default();
    report.verdicts = vec![
        Verdict::new("time", millis, Goal::AtMost(10.0), " ms"),
        Verdict::new("memory", Spread::of([megabytes]), Goal::AtMost(20.0), " MB"),
    ];
    Ok(report)
}

fn scheduling(context: &Context) -> Result<Report, String> {
    in_process_row(context, "scheduling", &["steps_per_second", "bytes_per_step"], |found| {
        vec![
            Verdict::new("steps/s", found[0], Goal::AtLeast(1e6), ""),
            Verdict::new("bytes a step", found[1], Goal::AtMost(400.0), ""),
        ]
    })
}

fn durable_runs(context: &Context) -> Result<Report, String> {
    in_process_row(context, "runs", &["steps_per_second"], |found| {
        vec![Verdict::new("steps/s", found[0], Goal::AtLeast(30_000.0), "")]
    })
}

/// Runs the row of the in-process program in every round, and judges the spread of each number.
fn in_process_row(
    context: &Context,
    row: &str,
    names: &[&str],
    judge: fn(&[Spread]) -> Vec<Verdict>,
) -> Result<Report, String> {
    let program = match InProcess::build() {
        Ok(program) => program,
        Err(why) => return Ok(Report::absent(why)),
    };
    let mut rounds = Vec::new();
    for _ in 0..context.rounds {
        rounds.push(program.figures(row, &context.scratch.fresh("data")?, names)?);
    }
    let found: Vec<Spread> =
        (0..names.len()).map(|column| Spread::of(rounds.iter().map(|figures| figures[column]))).collect();
    Ok(Report { verdicts: judge(&found), ..Report::default() })
}

fn durable_chain(context: &Context) -> Result<Report, String> {
    let program = match InProcess::build() {
        Ok(program) => program,
        Err(why) => return Ok(Report::absent(why)),
    };
    let mut steps = Vec::new();
    let mut bound = Vec::new();
    for _ in 0..context.rounds {
        bound.push(commits::per_second(&context.scratch.fresh("commits")?)?);
        steps.extend(program.figures("chain", &context.scratch.fresh("data")?, &["steps_per_second"])?);
    }
    let ratio = Spread::of(steps.iter().zip(&bound).map(|(steps, commits)| steps / commits));
    let line = |name: &str, found: Vec<f64>| vec![name.to_owned(), super::report::spread(Spread::of(found))];
    Ok(Report {
        table: vec![
            vec![String::new(), "per second".to_owned()],
            line("synced commits of one row, SQLite alone", bound),
            line("durable steps, baton", steps),
        ],
        verdicts: vec![Verdict::new("steps / commits", ratio, Goal::AtLeast(0.5), "")],
        ..Report::default()
    })
}

/// The files of a workload in a new folder, on the disk before any clock starts.
fn written(context: &Context, name: &str, workload: Workload) -> Result<PathBuf, String> {
    let folder = context.scratch.fresh(name)?;
    workload.write(&folder).map_err(|error| format!("cannot write the workload: {error}"))?;
    settle(&folder)?;
    Ok(folder)
}

/// Lets the disk finish what was written, so that no contestant pays for it.
fn settle(folder: &Path) -> Result<(), String> {
    crate::run::show(std::process::Command::new("sync").arg("-f").arg(folder))
}
