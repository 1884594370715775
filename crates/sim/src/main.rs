//! Plays many simulated worlds, or one again.

use std::process::ExitCode;
use std::time::Instant;

use baton_sim::campaign::{self, Counts};
use baton_sim::scheduling;

const USAGE: &str =
    "usage: baton-sim [--seeds COUNT] [--first SEED] | --seed SEED | --bench-scheduling [--steps COUNT]";
const SEEDS: u64 = 100_000;
const BENCH_STEPS: usize = 1_000_000;
/// Among so many seeds, each thing that can be met is met at least once.
const SEEDS_PER_MEETING: u64 = 1000;

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("{wrong}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let (mut seeds, mut first, mut one, mut bench, mut steps) = (SEEDS, 0, None, false, BENCH_STEPS);
    while let Some(option) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or_else(|| format!("`{option}` wants a number\n{USAGE}"))?;
            value.parse::<u64>().map_err(|_| format!("`{option}` wants a number, not `{value}`\n{USAGE}"))
        };
        match option.as_str() {
            "--seeds" => seeds = number()?,
            "--first" => first = number()?,
            "--steps" => steps = number()? as usize,
            "--bench-scheduling" => bench = true,
            "--seed" => one = Some(number()?),
            _ => return Err(format!("unknown option `{option}`\n{USAGE}")),
        }
    }
    if bench {
        return scheduling::bench(steps);
    }
    if let Some(seed) = one {
        return campaign::play(seed, &mut Counts::default(), true);
    }
    let begin = Instant::now();
    let counts = campaign::run(first, seeds)?;
    for (words, count) in counts.rows() {
        println!("{count:>12}  {words}");
    }
    println!("{seeds} seeds from {first} on in {:.1} s", begin.elapsed().as_secs_f64());
    let unmet = counts.unmet(seeds / SEEDS_PER_MEETING);
    if unmet.is_empty() { Ok(()) } else { Err(format!("met too seldom to prove anything: {}", unmet.join(", "))) }
}
