//! The last lines that running steps printed, for the summary of those that fail.

use std::collections::BTreeMap;

use baton_core::{RunId, StepIndex};

use crate::escape;

/// Lines that a summary shows of a failed step.
const LINES: usize = 10;
/// Bytes that are kept of each running step.
const KEPT_BYTES: usize = 8 * 1024;

/// The last bytes of every step that runs.
#[derive(Debug, Default)]
pub struct Tails(BTreeMap<(RunId, StepIndex), Vec<u8>>);

impl Tails {
    /// Adds what a step printed.
    pub fn add(&mut self, run: RunId, step: StepIndex, bytes: &[u8]) {
        let kept = self.0.entry((run, step)).or_default();
        kept.extend_from_slice(&bytes[bytes.len().saturating_sub(KEPT_BYTES)..]);
        // Twice the size before it is cut: small writes then cost no move each.
        if kept.len() > 2 * KEPT_BYTES {
            kept.drain(..kept.len() - KEPT_BYTES);
        }
    }

    /// The step starts or ends an attempt.
    pub fn forget(&mut self, run: RunId, step: StepIndex) {
        if !self.0.is_empty() {
            self.0.remove(&(run, step));
        }
    }

    /// The last lines, harmless.
    pub fn last_lines(&self, run: RunId, step: StepIndex) -> Vec<String> {
        self.0.get(&(run, step)).map(|bytes| last_lines(bytes, LINES)).unwrap_or_default()
    }
}

/// The last so many lines of a text, harmless.
pub fn last_lines(bytes: &[u8], count: usize) -> Vec<String> {
    let text = escape::harmless(bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_only_its_end() {
        let (run, step) = (RunId(1), StepIndex(0));
        let mut tails = Tails::default();
        for number in 0..100_000 {
            tails.add(run, step, format!("line {number}\n").as_bytes());
        }
        assert!(tails.0[&(run, step)].len() <= 2 * KEPT_BYTES);
        let lines = tails.last_lines(run, step);
        assert_eq!((lines.len(), lines[9].as_str()), (LINES, "line 99999"));
        tails.forget(run, step);
        assert!(tails.last_lines(run, step).is_empty());
    }
}
