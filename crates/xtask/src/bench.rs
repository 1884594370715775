//! The figures of `docs/benchmarks.md`: Baton beside ninja and make in the same run, judged by goals.

mod commits;
mod in_process;
mod kept;
mod machine;
mod measure;
mod peer;
mod race;
mod report;
mod rows;
mod scratch;
mod workload;

use std::path::PathBuf;

use crate::{run, workspace};
use report::Report;
use rows::{ROWS, Row};
use scratch::Scratch;

/// How often each contestant runs, unless `--rounds` says otherwise.
const ROUNDS: usize = 7;
/// The rows that a smoke test runs, once each and unjudged: it shows that the benchmark works.
const SMOKE: &[&str] = &["wide", "echo", "cold"];

const HELP: &str = "cargo xtask bench [options]

  --only NAME       this row alone (may be repeated); --list shows the names
  --rounds N        so many alternations instead of 7
  --write           put the figures into docs/benchmarks.md
  --report-only     a missed goal is shown, but the exit code is 0
  --smoke           a few rows, one round, report only
  --baton PATH      this program instead of a release build of the checkout
  --list            the rows and their goals";

/// What was asked for.
struct Options {
    rounds: usize,
    only: Vec<String>,
    write: bool,
    report_only: bool,
    baton: Option<PathBuf>,
}

/// What every row needs.
pub struct Context {
    /// The alternations.
    pub rounds: usize,
    /// The program to measure.
    pub baton: PathBuf,
    /// A folder on a real disk, emptied at the end.
    pub scratch: Scratch,
}

/// `cargo xtask bench`, see [`HELP`].
pub fn task(arguments: &[String]) -> Result<(), String> {
    let Some(options) = read(arguments)? else { return Ok(()) };
    let rows: Vec<&Row> =
        ROWS.iter().filter(|row| options.only.is_empty() || options.only.iter().any(|name| name == row.name)).collect();
    let baton = match options.baton {
        Some(path) => path,
        None => build()?,
    };
    let scratch = Scratch::new(&workspace::target_folder()?.join("bench"))?;
    let machine = machine::describe(scratch.path());
    println!("{}", machine.join("\n"));
    if let Some(warning) = machine::busy() {
        println!("warning: {warning}");
    }
    let context = Context { rounds: options.rounds, baton, scratch };
    let mut reports: Vec<Report> = Vec::new();
    for row in rows {
        println!("\n{}: {}", row.name, row.title);
        let mut report = (row.run)(&context).map_err(|problem| format!("row `{}`: {problem}", row.name))?;
        row.title.clone_into(&mut report.title);
        println!("{}", report.plain());
        reports.push(report);
    }
    println!("\n{}", machine::load());
    if options.write {
        report::write_page(&machine, options.rounds, &reports)?;
    }
    let missed: Vec<String> = reports.iter().flat_map(Report::missed).collect();
    if missed.is_empty() {
        println!("\nevery goal is met");
    } else {
        println!("\n{} goals are missed:\n  {}", missed.len(), missed.join("\n  "));
        if !options.report_only {
            return Err("not every goal is met".to_owned());
        }
    }
    Ok(())
}

/// A few rows without judgement, for `cargo xtask ci`: a busy machine says nothing about goals.
pub fn smoke() -> Result<(), String> {
    task(&["--smoke".to_owned()])
}

fn read(arguments: &[String]) -> Result<Option<Options>, String> {
    let mut options = Options { rounds: ROUNDS, only: Vec::new(), write: false, report_only: false, baton: None };
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word {
            "--only" => options.only.push(value()?.to_owned()),
            "--rounds" => {
                let rounds = value()?;
                options.rounds = rounds
                    .parse()
                    .ok()
                    .filter(|rounds| *rounds > 0)
                    .ok_or(format!("--rounds wants a number from 1 up, and `{rounds}` is none"))?;
            }
            "--write" => options.write = true,
            "--report-only" => options.report_only = true,
            "--smoke" => {
                options.only = SMOKE.iter().map(|name| (*name).to_owned()).collect();
                options.rounds = 1;
                options.report_only = true;
            }
            "--baton" => {
                let path = PathBuf::from(value()?);
                options.baton = Some(path.canonicalize().map_err(|error| format!("`{}`: {error}", path.display()))?);
            }
            "--list" => {
                for row in ROWS {
                    println!("{:<11} {}; {}", row.name, row.title, row.goals);
                }
                return Ok(None);
            }
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(None);
            }
            other => return Err(format!("`{other}` is unknown\n\n{HELP}")),
        }
    }
    if let Some(unknown) = options.only.iter().find(|name| !ROWS.iter().any(|row| row.name == **name)) {
        return Err(format!("there is no row `{unknown}`; --list shows them"));
    }
    Ok(Some(options))
}

/// The release build of the program.
fn build() -> Result<PathBuf, String> {
    run::show(&mut run::cargo(&["build", "--release", "--locked", "--package", "baton-cli"]))?;
    Ok(workspace::target_folder()?.join("release/baton"))
}
