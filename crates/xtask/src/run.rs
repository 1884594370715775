//! Runs other programs: with their output in view, and counting the tests that they report.

use std::io::{BufRead, BufReader};
use std::process::Command;

use crate::workspace;

/// How many tests passed and failed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
}

impl Tally {
    /// Adds what another one counted.
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Cargo with these arguments, in the workspace's folder.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(workspace::root());
    command
}

/// Runs a command with its output in view.
pub fn show(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("cannot start {}: {error}", words(command)))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", words(command))) }
}

/// Runs a command with its output in view and adds up the tests that its summary lines report.
pub fn show_counting(mut command: Command, tally: &mut Tally) -> Result<(), String> {
    let words = words(&command);
    let cannot = |error| format!("cannot start {words}: {error}");
    let (reader, writer) = std::io::pipe().map_err(cannot)?;
    command.stdout(writer.try_clone().map_err(cannot)?).stderr(writer);
    let mut child = command.spawn().map_err(cannot)?;
    // The command holds the writing ends; with them open the reading below would never end.
    drop(command);
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.map_err(|error| format!("cannot read what {words} prints: {error}"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some(counted) = counted(&line) {
            tally.add(counted);
        }
    }
    let status = child.wait().map_err(|error| format!("cannot wait for {words}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{words}` ended with {status}")) }
}

/// The output of a command that succeeded; `None` if it cannot be started or fails.
pub fn quiet(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(workspace::root()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as a person would type it.
fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy()));
    if let Some(name) = words[0].rsplit('/').next() {
        words[0] = name.to_owned().into();
    }
    words.join(" ")
}

/// What a summary line of nextest or of the standard test harness counts.
fn counted(line: &str) -> Option<Tally> {
    // A failed test's own output, which may hold such a line too, is indented.
    let counts = match line.strip_prefix("test result: ") {
        Some(counts) => counts,
        None => {
            let summary = line.trim_start().strip_prefix("Summary [")?;
            let (_, counts) = summary.split_once(" tests run: ").or_else(|| summary.split_once(" test run: "))?;
            counts
        }
    };
    let mut tally = Tally::default();
    let mut words = counts.split([' ', ',', ';']).filter(|word| !word.is_empty());
    let mut number: Option<u64> = None;
    for word in &mut words {
        match (word, number) {
            ("passed", Some(count)) => tally.passed += count,
            ("failed" | "timed", Some(count)) => tally.failed += count,
            _ => {}
        }
        number = word.parse().ok();
    }
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_harnesses_are_counted() {
        let nextest = "     Summary [   0.9s] 12 tests run: 9 passed (1 slow), 2 failed, 1 timed out, 3 skipped";
        assert_eq!(counted(nextest), Some(Tally { passed: 9, failed: 3 }));
        let one = "     Summary [   0.9s] 1 test run: 1 passed, 0 skipped";
        assert_eq!(counted(one), Some(Tally { passed: 1, failed: 0 }));
        let harness = "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(counted(harness), Some(Tally { passed: 3, failed: 1 }));
        assert_eq!(counted("9 passed the exam"), None);
        assert_eq!(counted("    test result: FAILED. 0 passed; 1 failed; 0 ignored"), None);
    }
}
