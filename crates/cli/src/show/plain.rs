//! A run as lines, for files, pipes and logs of others: what steps print has their id in front.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use baton_core::{Event, EventKind, RunId, StepIndex};
use baton_engine::RunView;

use super::lines::{self, Style};
use crate::escape;
use crate::face::Stream;

/// A line that does not end is broken after so many bytes.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// Shows runs as lines.
#[derive(Debug)]
pub struct Plain {
    style: Style,
    many: bool,
    /// Whether a terminal reads it: then nothing that steps print may act on it.
    is_terminal: bool,
    /// What running steps have printed since their last line feed.
    open: BTreeMap<(RunId, StepIndex), Vec<u8>>,
    line: String,
}

impl Plain {
    /// A display for a stream that is a terminal or is not.
    pub fn new(style: Style, many: bool, is_terminal: bool) -> Self {
        Self { style, many, is_terminal, open: BTreeMap::new(), line: String::new() }
    }

    /// Tells what happened.
    pub fn event(&mut self, out: &mut Stream, run: &RunView<'_>, event: &Event) {
        if let Some((step, _)) = event.kind.step()
            && !matches!(event.kind, EventKind::StepStopping { .. })
            && !self.open.is_empty()
            && let Some(rest) = self.open.remove(&(run.run, step))
            && !rest.is_empty()
        {
            self.print(out, run, step, &rest);
        }
        if let Some(line) = lines::line(run.state, event.at, &event.kind) {
            self.line.clear();
            self.line.push_str(&lines::render(&line, run.state, self.style, self.many));
            self.line.push('\n');
            out.write(self.line.as_bytes());
        }
    }

    /// Tells what a step printed, line by line.
    pub fn output(&mut self, out: &mut Stream, run: &RunView<'_>, step: StepIndex, bytes: &[u8]) {
        let mut open = self.open.remove(&(run.run, step)).unwrap_or_default();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if open.is_empty() {
                self.print(out, run, step, &rest[..end]);
            } else {
                open.extend_from_slice(&rest[..end]);
                self.print(out, run, step, &open);
                open.clear();
            }
            rest = &rest[end + 1..];
        }
        open.extend_from_slice(rest);
        while open.len() > MAX_LINE_BYTES {
            let part: Vec<u8> = open.drain(..MAX_LINE_BYTES).collect();
            self.print(out, run, step, &part);
        }
        if !open.is_empty() {
            self.open.insert((run.run, step), open);
        }
    }

    fn print(&mut self, out: &mut Stream, run: &RunView<'_>, step: StepIndex, bytes: &[u8]) {
        self.line.clear();
        let id = run.state.graph().id(step);
        // Writing to a string cannot fail.
        let _ = if self.many { write!(self.line, "[{}/{id}] ", run.run) } else { write!(self.line, "[{id}] ") };
        out.write(self.line.as_bytes());
        if self.is_terminal {
            out.write(escape::harmless(bytes).as_bytes());
        } else {
            out.write(bytes);
        }
        out.write(b"\n");
    }
}
