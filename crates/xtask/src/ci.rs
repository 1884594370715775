//! Everything that is checked before a change is taken: one table of stages, run from first to last.

use std::time::{Duration, Instant};

use crate::run::{self, Tally};
use crate::{bench, deny, edges, fuzz, needs, tidy};
#[cfg(target_os = "linux")]
use crate::{crash, power};

/// One stage. Those of a long nature are left out of the quick way.
struct Stage {
    name: &'static str,
    what: &'static str,
    is_long: bool,
    run: fn(&mut Tally) -> Result<(), String>,
}

/// The stages in their order, the quick to fail first. A new kind of check gets its row here.
///
/// Builds: `clippy` checks, `tests` and `docs` use the dev profile, everything that starts the real program
/// uses the one release build.
const STAGES: &[Stage] = &[
    short("needs", "the programs that the checks need", |_| needs::all()),
    short("format", "cargo fmt", |_| run::show(&mut run::cargo(&["fmt", "--all", "--check"]))),
    short("edges", "the arrows between the crates", |_| edges::check()),
    short("tidy", "what we ask of every file", |_| tidy::check()),
    short("deny", "licences, bans, sources, advisories", |_| deny::check()),
    short("clippy", "lints, none allowed", |_| {
        let mut clippy = run::cargo(&["clippy", "--workspace", "--all-targets", "--locked"]);
        run::show(clippy.args(["--", "--deny", "warnings"]))
    }),
    short("tests", "unit, story and session tests", |tally| {
        let mut nextest = run::cargo(&["nextest", "run", "--workspace", "--locked"]);
        // A snapshot that differs fails its test and changes no file.
        nextest.env("INSTA_UPDATE", "no");
        run::show_counting(nextest, tally)
    }),
    short("docs", "examples in the documentation, and links in it", |tally| {
        run::show_counting(run::cargo(&["test", "--doc", "--workspace", "--locked"]), tally)?;
        let mut doc = run::cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
        run::show(doc.env("RUSTDOCFLAGS", "--deny warnings"))
    }),
    long("simulation", "random plans with faults, every prefix of every log recovered", |_| simulate()),
    #[cfg(target_os = "linux")]
    long("crash", "the real program killed at its writes: a sample", |_| crash::sample()),
    #[cfg(target_os = "linux")]
    long("power", "power cuts under the real program: a sample", |_| power::sample()),
    long("fuzz", "texts that are almost plans: a sample", |_| fuzz::sample()),
    long("bench", "a smoke test of the benchmark", |_| bench::smoke()),
];

/// How many seeds each of the simulations plays that go on side by side.
const SIMULATED_SEEDS: u32 = 50_000;

/// Plays 100,000 seeds, half of them on each of two cores.
fn simulate() -> Result<(), String> {
    let seeds = SIMULATED_SEEDS.to_string();
    let halves = [0, SIMULATED_SEEDS].map(|first| {
        let mut simulation = run::cargo(&["run", "--release", "--locked", "--package", "baton-sim", "--"]);
        simulation.args(["--seeds", &seeds, "--first", &first.to_string()]).spawn()
    });
    for half in halves {
        let mut half = half.map_err(|error| format!("cannot start the simulation: {error}"))?;
        let status = half.wait().map_err(|error| format!("cannot wait for the simulation: {error}"))?;
        if !status.success() {
            return Err(format!("the simulation ended with {status}; what it printed names the seed"));
        }
    }
    Ok(())
}

const fn short(name: &'static str, what: &'static str, run: fn(&mut Tally) -> Result<(), String>) -> Stage {
    Stage { name, what, is_long: false, run }
}

const fn long(name: &'static str, what: &'static str, run: fn(&mut Tally) -> Result<(), String>) -> Stage {
    Stage { name, what, is_long: true, run }
}

/// `cargo xtask ci [--quick] [--only STAGE] [--list]`.
pub fn task(arguments: &[String]) -> Result<(), String> {
    let mut is_quick = false;
    let mut only = Vec::new();
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "--quick" => is_quick = true,
            "--only" => only.push(words.next().ok_or("--only wants the name of a stage")?),
            "--list" => {
                list();
                return Ok(());
            }
            other => return Err(format!("`{other}` is unknown; there are --quick, --only STAGE and --list")),
        }
    }
    if let Some(unknown) = only.iter().find(|name| !STAGES.iter().any(|stage| stage.name == **name)) {
        return Err(format!("there is no stage `{unknown}`; --list shows them"));
    }
    let chosen: Vec<&Stage> = STAGES
        .iter()
        .filter(|stage| if only.is_empty() { !(is_quick && stage.is_long) } else { only.contains(&stage.name) })
        .collect();
    run_stages(&chosen)
}

fn list() {
    for stage in STAGES {
        println!("{:<12} {}{}", stage.name, stage.what, if stage.is_long { " (long)" } else { "" });
    }
}

/// Runs stages up to the first that fails, and ends with the line that counts the tests.
fn run_stages(stages: &[&Stage]) -> Result<(), String> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut times: Vec<(&str, Duration)> = Vec::new();
    let mut outcome = Ok(());
    for (number, stage) in stages.iter().enumerate() {
        println!("\n=== {}/{} {}: {}", number + 1, stages.len(), stage.name, stage.what);
        let stage_start = Instant::now();
        let result = (stage.run)(&mut tally);
        times.push((stage.name, stage_start.elapsed()));
        if let Err(problem) = result {
            outcome = Err(format!(
                "the stage `{}` failed: {problem}\n  again, alone: cargo xtask ci --only {}",
                stage.name, stage.name
            ));
            break;
        }
    }
    println!("\n=== times");
    for (name, time) in times {
        println!("{name:<12} {:>7.1} s", time.as_secs_f64());
    }
    println!("{:<12} {:>7.1} s", "in all", start.elapsed().as_secs_f64());
    if let Err(problem) = &outcome {
        println!("\nFAILED: {problem}");
    }
    println!("\n{} passed, {} failed", tally.passed, tally.failed);
    outcome.map_err(|_| "not everything is in order, see above".to_owned())
}
