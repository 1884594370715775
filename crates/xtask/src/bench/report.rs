//! What a row of the benchmark found: a table and verdicts, for the terminal and for the page.

use std::fs;

use super::peer::Peer;
use super::race::{Race, Spread};
use crate::workspace;

const PAGE: &str = "docs/benchmarks.md";
const BEGIN: &str = "<!-- figures: written by `cargo xtask bench --write` -->";
const END: &str = "<!-- end of figures -->";

/// The outcome of one row.
#[derive(Default)]
pub struct Report {
    pub title: String,
    /// The first line is the heading.
    pub table: Vec<Vec<String>>,
    pub verdicts: Vec<Verdict>,
    /// Why there are no figures.
    pub absent: Option<String>,
}

/// A goal and what was found.
pub struct Verdict {
    what: String,
    found: String,
    is_met: bool,
}

/// Which side of its number a goal is on.
#[derive(Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Verdict {
    /// Judges the median of a figure.
    pub fn new(what: &str, found: Spread, goal: Goal, unit: &str) -> Verdict {
        let (sign, bound, is_met) = match goal {
            Goal::AtMost(bound) => ("≤", bound, found.median <= bound),
            Goal::AtLeast(bound) => ("≥", bound, found.median >= bound),
        };
        Verdict {
            what: format!("{what} {sign} {}{unit}", number(bound)),
            found: format!("{}{unit}", spread(found)),
            is_met,
        }
    }

    fn mark(&self) -> &'static str {
        if self.is_met { "met" } else { "MISSED" }
    }
}

impl Report {
    /// The report of a row that cannot be measured; it counts as a missed goal.
    pub fn absent(why: String) -> Report {
        Report { absent: Some(why), ..Report::default() }
    }

    /// The table of a race, relative to ninja.
    pub fn of_race(race: &Race) -> Report {
        let heading = ["", "seconds", "× ninja", "processor", "× ninja", "peak MB"];
        let mut table = vec![heading.map(str::to_owned).to_vec()];
        for peer in race.peers() {
            let relative = |ratio: Option<Spread>| match ratio {
                Some(_) if peer == Peer::Ninja => "1".to_owned(),
                Some(ratio) => spread(ratio),
                None => String::new(),
            };
            table.push(vec![
                peer.name().to_owned(),
                spread(race.wall(peer)),
                relative(Some(race.ratio(peer, Peer::Ninja))),
                race.cpu(peer).map_or(String::new(), |cpu| number(cpu.median)),
                relative(race.cpu_ratio(peer, Peer::Ninja)),
                race.peak_megabytes(peer).map_or(String::new(), |peak| format!("{peak:.1}")),
            ]);
        }
        Report { table, ..Report::default() }
    }

    /// Goals that are not met, each in a line.
    pub fn missed(&self) -> Vec<String> {
        let absent = self.absent.iter().map(|why| format!("{}: {why}", self.title));
        let missed = self.verdicts.iter().filter(|verdict| !verdict.is_met);
        absent.chain(missed.map(|verdict| format!("{}: {}: {}", self.title, verdict.what, verdict.found))).collect()
    }

    /// For the terminal.
    pub fn plain(&self) -> String {
        let mut lines = Vec::new();
        let columns = self.table.first().map_or(0, Vec::len);
        let width = |column: usize| self.table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.table {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            lines.push(format!("  {}", cells.join("  ")).trim_end().to_owned());
        }
        for verdict in &self.verdicts {
            lines.push(format!("  goal {}: {} {}", verdict.what, verdict.found, verdict.mark()));
        }
        lines.extend(self.absent.iter().map(|why| format!("  not measured: {why}")));
        lines.join("\n")
    }

    /// For the page.
    fn markdown(&self) -> String {
        let mut lines = vec![format!("### {}\n", self.title)];
        for (number, row) in self.table.iter().enumerate() {
            lines.push(format!("| {} |", row.join(" | ")));
            if number == 0 {
                lines.push(format!("|---|{}", "---:|".repeat(row.len() - 1)));
            }
        }
        if !self.table.is_empty() {
            lines.push(String::new());
        }
        for verdict in &self.verdicts {
            lines.push(format!("* {}: {} – {}", verdict.what, verdict.found, verdict.mark()));
        }
        lines.extend(self.absent.iter().map(|why| format!("* not measured: {why}")));
        lines.join("\n")
    }
}

/// Puts the figures into the page, between its two marks; what people wrote around them stays.
pub fn write_page(machine: &[String], rounds: usize, reports: &[Report]) -> Result<(), String> {
    let path = workspace::root().join(PAGE);
    let page = fs::read_to_string(&path).map_err(|error| format!("cannot read {PAGE}: {error}"))?;
    let (before, rest) = page.split_once(BEGIN).ok_or(format!("{PAGE} has no line `{BEGIN}`"))?;
    let (_, after) = rest.split_once(END).ok_or(format!("{PAGE} has no line `{END}`"))?;
    let machine: Vec<String> = machine.iter().map(|line| format!("* {line}")).collect();
    let rows: Vec<String> = reports.iter().map(Report::markdown).collect();
    let figures = format!(
        "{BEGIN}\n\n{}\n* alternations: {rounds}; a figure is the median (least – most)\n\n{}\n\n{END}",
        machine.join("\n"),
        rows.join("\n\n")
    );
    fs::write(&path, format!("{before}{figures}{after}")).map_err(|error| format!("cannot write {PAGE}: {error}"))?;
    println!("\nthe figures are in {PAGE}");
    Ok(())
}

/// The median and, where the rounds differ, the ends.
pub fn spread(spread: Spread) -> String {
    let median = number(spread.median);
    if spread.min == spread.max {
        median
    } else {
        format!("{median} ({} – {})", number(spread.min), number(spread.max))
    }
}

/// Three digits that matter, with commas between thousands.
fn number(value: f64) -> String {
    if value >= 1_000.0 {
        let digits = format!("{value:.0}");
        let mut text = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        return text;
    }
    let decimals = match value {
        _ if value >= 100.0 => 0,
        _ if value >= 10.0 => 1,
        _ if value >= 0.1 => 2,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown: Vec<String> = [0.65, 0.0017, 0.534_2, 12.34, 345.6, 1_234_567.0, 30_000.0].map(number).into();
        assert_eq!(shown, ["0.65", "0.0017", "0.53", "12.3", "346", "1,234,567", "30,000"]);
    }

    #[test]
    fn a_goal_is_judged_by_the_median() {
        let found = Spread { median: 0.6, min: 0.5, max: 0.9 };
        assert!(Verdict::new("x", found, Goal::AtMost(0.65), "").is_met);
        assert!(!Verdict::new("x", found, Goal::AtLeast(0.65), "").is_met);
    }
}
