//! Tasks of the project, started as `cargo xtask <task>`: what would otherwise be a script is Rust here.

mod advisories;
mod bench;
mod ci;
#[cfg(target_os = "linux")]
mod crash;
mod deny;
mod edges;
mod fuzz;
mod markdown;
mod needs;
#[cfg(target_os = "linux")]
mod power;
mod run;
mod tidy;
mod workspace;

use std::process::ExitCode;

/// One task: its name, what it does in a line, and the function.
struct Task {
    name: &'static str,
    what: &'static str,
    run: fn(&[String]) -> Result<(), String>,
}

const TASKS: &[Task] = &[
    Task {
        name: "ci",
        what: "every check and test, as CI runs them [--quick: without the long ones] [--only STAGE] [--list]",
        run: ci::task,
    },
    Task { name: "bench", what: "the figures of docs/benchmarks.md [--help]", run: bench::task },
    #[cfg(target_os = "linux")]
    Task { name: "crash", what: "deaths of the real program at every write [--help]", run: crash::task },
    #[cfg(target_os = "linux")]
    Task { name: "crash-step", what: "what the steps of the crash plans run", run: crash::step },
    #[cfg(target_os = "linux")]
    Task { name: "power", what: "power failures at every write [--help]", run: power::task },
    Task { name: "fuzz", what: "texts that are almost plans [--help]", run: fuzz::task },
    Task { name: "edges", what: "the arrows between the crates", run: |_| edges::check() },
    Task { name: "tidy", what: "what we ask of every file", run: |_| tidy::check() },
    Task { name: "deny", what: "licences, bans, sources and advisories of what we depend on", run: |_| deny::check() },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = arguments.first() else {
        println!("{}", usage());
        return ExitCode::from(2);
    };
    if ["help", "--help", "-h"].contains(&name.as_str()) {
        println!("{}", usage());
        return ExitCode::SUCCESS;
    }
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        eprintln!("there is no task `{name}`\n\n{}", usage());
        return ExitCode::from(2);
    };
    match (task.run)(&arguments[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask {name}: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let lines: Vec<String> = TASKS.iter().map(|task| format!("  {:<6} {}", task.name, task.what)).collect();
    format!("cargo xtask <task>\n\n{}", lines.join("\n"))
}
