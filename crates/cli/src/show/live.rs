//! A run in a terminal: what runs is redrawn in place, what is over scrolls away above it.

use std::collections::BTreeMap;
use std::time::Instant;

use baton_core::{Event, EventKind, Millis, RunId, StepIndex, StepStatus};
use baton_engine::{Clock, RunView, TICK};

use super::lines::{self, Style, Tone};
use crate::escape;
use crate::face::Stream;
use crate::words;

/// Running steps that are shown, where the terminal is high enough.
const MAX_ROWS: usize = 16;
/// Of a step's unfinished line so many bytes are looked at.
const MAX_LINE_BYTES: usize = 1024;
/// The columns of the bar, where there is room for it.
const BAR_COLUMNS: usize = 20;
/// Assumed where the terminal does not tell its size.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// What is to be seen of one run.
#[derive(Clone, PartialEq, Debug)]
pub struct Picture {
    /// The run.
    pub run: RunId,
    /// The plan's id.
    pub plan_id: String,
    /// Steps with an attempt in flight or to come: the longest first.
    pub rows: Vec<Row>,
    /// Rows that found no place in the list above.
    pub more_rows: usize,
    /// Steps settled for good.
    pub done: u32,
    /// All steps.
    pub total: u32,
    /// Steps that failed for good.
    pub failed: u32,
    /// Done, by weight.
    pub percent: u8,
    /// Since the start.
    pub elapsed: Millis,
    /// Whether nothing new starts.
    pub is_stopping: bool,
}

/// A step with an attempt in flight or to come.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// The step's id.
    pub id: String,
    /// Whether an attempt runs, or waits for its time.
    pub is_running: bool,
    /// For how long, or until when.
    pub time: Millis,
    /// `attempt 2 of 3`, where it is not the first.
    pub attempt: Option<String>,
    /// The latest line it printed.
    pub line: String,
}

/// Shows runs live.
#[derive(Debug)]
pub struct Live {
    style: Style,
    many: bool,
    /// The lines of each run.
    frames: BTreeMap<RunId, Vec<String>>,
    /// The columns of each line that stands below the scrolled ones.
    drawn: Vec<usize>,
    /// Lines to be scrolled away above at the next drawing.
    above: String,
    drawn_at: Option<Instant>,
    clock: Clock,
    latest: BTreeMap<(RunId, StepIndex), Latest>,
    progress: BTreeMap<RunId, Progress>,
}

/// The latest line of a step: a finished one, and what has come since.
#[derive(Debug, Default)]
struct Latest {
    line: String,
    open: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    done: u64,
    total: u64,
}

impl Live {
    /// A display; `many`: of more than one run.
    pub fn new(style: Style, many: bool) -> Self {
        Self {
            style,
            many,
            frames: BTreeMap::new(),
            drawn: Vec::new(),
            above: String::new(),
            drawn_at: None,
            clock: Clock::start(),
            latest: BTreeMap::new(),
            progress: BTreeMap::new(),
        }
    }

    /// Takes note of what happened.
    pub fn event(&mut self, err: &mut Stream, run: &RunView<'_>, event: &Event) {
        if let Some((step, _)) = event.kind.step() {
            if !matches!(event.kind, EventKind::StepStopping { .. }) {
                self.latest.remove(&(run.run, step));
            }
            let weight = weight(run, step);
            if run.state.status(step).is_final() && !matches!(event.kind, EventKind::StepStopping { .. }) {
                self.progress_of(run).done += weight;
            }
        }
        let is_start = matches!(event.kind, EventKind::StepStarted { .. });
        if !is_start && let Some(line) = lines::line(run.state, event.at, &event.kind) {
            self.above.push_str(&lines::render(&line, run.state, self.style, self.many));
            self.above.push('\n');
        }
        self.draw_if_due(err, run);
    }

    fn progress_of(&mut self, run: &RunView<'_>) -> &mut Progress {
        self.progress.entry(run.run).or_insert_with(|| {
            let steps = || run.state.graph().steps();
            let done = steps().filter(|step| run.state.status(*step).is_final()).map(|step| weight(run, step)).sum();
            Progress { done, total: steps().map(|step| weight(run, step)).sum() }
        })
    }

    /// Takes note of what a step printed.
    pub fn output(&mut self, err: &mut Stream, run: &RunView<'_>, step: StepIndex, bytes: &[u8]) {
        self.latest.entry((run.run, step)).or_default().add(bytes);
        self.draw_if_due(err, run);
    }

    /// Where so much happens that there is never a calm moment, the display must move all the same.
    fn draw_if_due(&mut self, err: &mut Stream, run: &RunView<'_>) {
        if self.drawn_at.is_some_and(|at| at.elapsed() >= TICK) {
            let size = err.size().unwrap_or(USUAL_SIZE);
            let count = self.frames.len().max(1);
            self.paint(run, size, count);
            self.put(err, size);
        }
    }

    /// Scrolls a line away above the display.
    pub fn above(&mut self, err: &mut Stream, text: &str) {
        self.above.push_str(&escape_keeping_color(text));
        self.above.push('\n');
        if self.drawn.is_empty() {
            err.write(std::mem::take(&mut self.above).as_bytes());
            err.flush();
        }
    }

    /// Draws the display anew.
    pub fn draw(&mut self, err: &mut Stream, runs: &mut dyn Iterator<Item = RunView<'_>>) {
        let size = err.size().unwrap_or(USUAL_SIZE);
        let runs: Vec<RunView<'_>> = runs.collect();
        self.frames.clear();
        for run in &runs {
            self.paint(run, size, runs.len());
        }
        self.put(err, size);
    }

    /// Takes the display away; what was to scroll stays.
    pub fn take_down(&mut self, err: &mut Stream) {
        self.frames.clear();
        self.put(err, err.size().unwrap_or(USUAL_SIZE));
    }

    /// Paints the part of one run, one of `count`.
    fn paint(&mut self, run: &RunView<'_>, (columns, rows): (usize, usize), count: usize) {
        if run.state.result().is_some() {
            self.frames.remove(&run.run);
            return;
        }
        let share = (rows.saturating_sub(1) / count).saturating_sub(2);
        let picture = self.picture(run, share.min(MAX_ROWS));
        self.frames.insert(run.run, render(&picture, columns, self.style));
    }

    fn put(&mut self, err: &mut Stream, (columns, rows): (usize, usize)) {
        err.flush();
        self.drawn_at = Some(Instant::now());
        if err.has_waiting() && !self.frames.is_empty() {
            // The terminal is stopped; one picture that waits is enough.
            return;
        }
        // A terminal that became narrower has broken our lines into more of its own.
        let height: usize = self.drawn.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
        // The terminal is asked to show all of it at once; those that cannot ignore that.
        let mut out = String::from("\x1b[?2026h\r");
        if height > 0 {
            out += &format!("\x1b[{height}A");
        }
        out += "\x1b[J";
        out += &std::mem::take(&mut self.above);
        self.drawn.clear();
        for line in self.frames.values().flatten().take(rows.saturating_sub(1)) {
            out += line;
            out.push('\n');
            self.drawn.push(visible_width(line));
        }
        out += "\x1b[?2026l";
        err.write(out.as_bytes());
        err.flush();
    }

    fn picture(&mut self, run: &RunView<'_>, most: usize) -> Picture {
        let state = run.state;
        let now = self.clock.now();
        let progress = *self.progress_of(run);
        let graph = state.graph();
        let mut steps: Vec<(baton_core::Time, StepIndex)> =
            state.running().map(|(step, running)| (running.started, step)).collect();
        steps.sort_unstable();
        let attempt = |step: StepIndex, number: u32| {
            (number > 1).then(|| format!("attempt {number} of {}", (graph.policy(step).retries + 1).max(number)))
        };
        let running = steps.len();
        let mut rows: Vec<Row> = steps
            .iter()
            .take(most)
            .map(|(started, step)| Row {
                id: graph.id(*step).to_owned(),
                is_running: true,
                time: now.since(*started),
                attempt: attempt(*step, state.attempt(*step)),
                line: self.latest.get(&(run.run, *step)).map(Latest::show).unwrap_or_default(),
            })
            .collect();
        let retrying = state.count(StepStatus::Retrying) as usize;
        rows.extend(state.retrying().take(most - rows.len()).map(|(due, step)| Row {
            id: graph.id(step).to_owned(),
            is_running: false,
            time: due.since(now),
            attempt: attempt(step, state.attempt(step) + 1),
            line: String::new(),
        }));
        let total = graph.len() as u32;
        Picture {
            run: run.run,
            plan_id: run.plan.plan_id().to_owned(),
            more_rows: (running + retrying).saturating_sub(rows.len()),
            rows,
            done: total - state.unfinished(),
            total,
            failed: state.count(StepStatus::Failed),
            percent: percent(progress.done, progress.total),
            elapsed: now.since(state.started_at().unwrap_or(state.created_at())),
            is_stopping: matches!(state.phase(), baton_core::Phase::Stopping { .. }),
        }
    }
}

impl Latest {
    fn add(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
            let start = bytes[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if start > 0 {
                self.open.clear();
            }
            self.open.extend_from_slice(&bytes[start..end.min(start + MAX_LINE_BYTES)]);
            let line = shown(&self.open);
            // An empty line tells nothing; the one before it still does.
            if !line.trim().is_empty() {
                self.line = line;
            }
            self.open.clear();
            rest = &bytes[end + 1..];
        }
        self.open.extend_from_slice(&rest[rest.len().saturating_sub(MAX_LINE_BYTES)..]);
        if self.open.len() > MAX_LINE_BYTES {
            self.open.drain(..self.open.len() - MAX_LINE_BYTES);
        }
    }

    fn show(&self) -> String {
        let open = shown(&self.open);
        if open.trim().is_empty() { self.line.clone() } else { open }
    }
}

/// What a terminal would show of a line: what stands after the last carriage return.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let last = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().to_owned();
    escape::one_line(&last)
}

fn weight(run: &RunView<'_>, step: StepIndex) -> u64 {
    // In thousandths: weights are numbers with fractions, and sums of those drift.
    (run.plan.weight(step) * 1000.0).clamp(0.0, 1e12) as u64
}

fn percent(done: u64, total: u64) -> u8 {
    if total == 0 { 100 } else { (u128::from(done) * 100 / u128::from(total)).min(100) as u8 }
}

/// The display of one run: lines that are never wider than the terminal.
pub fn render(picture: &Picture, columns: usize, style: Style) -> Vec<String> {
    let id_columns = picture.rows.iter().map(|row| escape::width(&row.id)).max().unwrap_or(0).min(columns / 3);
    let mut frame = Vec::new();
    for row in &picture.rows {
        let (tone, state) = if row.is_running {
            (Tone::Begin, format!("running {}", words::duration(row.time)))
        } else {
            (Tone::Again, format!("again in {}", words::duration(row.time)))
        };
        let id = escape::truncate(&row.id, id_columns);
        let pad = " ".repeat(id_columns - escape::width(&id));
        let mut parts =
            vec![(Some(tone), style.symbol(tone).to_owned()), (None, format!(" {id}{pad}  ")), (Some(tone), state)];
        if let Some(attempt) = &row.attempt {
            parts.push((Some(Tone::Again), format!("  {attempt}")));
        }
        if !row.line.is_empty() {
            parts.push((Some(Tone::Out), format!("  {}", row.line)));
        }
        frame.push(fit(&parts, columns, style));
    }
    if picture.more_rows > 0 {
        let words = format!("  and {}", words::counted(picture.more_rows as u64, "step more", "steps more"));
        frame.push(fit(&[(Some(Tone::Out), words)], columns, style));
    }
    let bar_columns = BAR_COLUMNS.min(columns / 3);
    let filled = bar_columns * usize::from(picture.percent) / 100;
    let (full, empty) = if style.unicode { ("█", "░") } else { ("#", ".") };
    let bar = format!("{}{}", full.repeat(filled), empty.repeat(bar_columns - filled));
    let mut words = format!(
        " {:>3}%  {} of {} steps, {}",
        picture.percent,
        words::grouped(u64::from(picture.done)),
        words::grouped(u64::from(picture.total)),
        words::duration(picture.elapsed)
    );
    if picture.failed > 0 {
        words += &format!(", {} failed", picture.failed);
    }
    if picture.is_stopping {
        words += ", stopping";
    }
    let name = format!("run {} {} ", picture.run, escape::one_line(&picture.plan_id));
    frame.push(fit(&[(Some(Tone::Run), name), (Some(Tone::Begin), bar), (None, words)], columns, style));
    frame
}

/// Parts side by side, cut where the terminal ends; one column stays free, since some terminals break a full line.
fn fit(parts: &[(Option<Tone>, String)], columns: usize, style: Style) -> String {
    let mut room = columns.saturating_sub(1);
    let mut out = String::new();
    for (tone, text) in parts {
        let cut = escape::truncate(text, room);
        room -= escape::width(&cut);
        out += &match tone {
            Some(tone) => style.paint(*tone, &cut),
            None => cut.clone(),
        };
        if cut != *text || room == 0 {
            break;
        }
    }
    out
}

/// How many columns a line takes that has colours of ours in it.
fn visible_width(line: &str) -> usize {
    escape::width(&escape::harmless(line.as_bytes()))
}

/// Our own remarks may have colours, and hold words of others.
fn escape_keeping_color(text: &str) -> String {
    text.split("\x1b[").enumerate().fold(String::new(), |mut out, (at, part)| {
        if at > 0 {
            out += "\x1b[";
        }
        out + &escape::harmless(part.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style = Style { color: false, unicode: true };

    fn row(id: &str, is_running: bool, ms: u64, attempt: Option<&str>, line: &str) -> Row {
        Row { id: id.into(), is_running, time: Millis(ms), attempt: attempt.map(str::to_owned), line: line.into() }
    }

    fn picture() -> Picture {
        Picture {
            run: RunId(7),
            plan_id: "deploy".into(),
            rows: vec![
                row("build", true, 12_300, None, "Compiling a-rather-long-name v0.1.0 (somewhere/deep/in/the/tree)"),
                row("fetch", false, 1500, Some("attempt 2 of 3"), ""),
                row("日本", true, 400, None, ""),
            ],
            more_rows: 2,
            done: 9,
            total: 20,
            failed: 1,
            percent: 45,
            elapsed: Millis(14_200),
            is_stopping: false,
        }
    }

    #[test]
    fn a_run_as_it_looks_in_a_terminal() {
        insta::assert_snapshot!(render(&picture(), 72, STYLE).join("\n"), @r"
        ▸ build  running 12.3s  Compiling a-rather-long-name v0.1.0 (somewhere…
        ↻ fetch  again in 1.5s  attempt 2 of 3
        ▸ 日本   running 0.4s
          and 2 steps more
        run 7 deploy █████████░░░░░░░░░░░  45%  9 of 20 steps, 14.2s, 1 failed
        ");
    }

    #[test]
    fn without_unicode_it_says_the_same() {
        let style = Style { color: false, unicode: false };
        let frame = render(&Picture { rows: Vec::new(), more_rows: 0, ..picture() }, 72, style);
        let frame = frame.join("\n");
        insta::assert_snapshot!(frame, @"run 7 deploy #########...........  45%  9 of 20 steps, 14.2s, 1 failed");
    }

    #[test]
    fn no_line_is_ever_as_wide_as_the_terminal() {
        for columns in 0..120 {
            for color in [false, true] {
                for line in render(&picture(), columns, Style { color, unicode: true }) {
                    assert!(visible_width(&line) < columns.max(1), "{columns}: {line}");
                }
            }
        }
    }

    #[test]
    fn the_latest_line_is_what_a_terminal_would_show() {
        let cases: [(&[&str], &str); 6] = [
            (&["one\ntwo\n"], "two"),
            (&["one\n", "tw", "o\n"], "two"),
            (&["one\n", "\n"], "one"),
            (&["10%\r", "20%\r"], "20%"),
            (&["one\nunfinished"], "unfinished"),
            (&["\x1b[2Jgone\n"], "\\x1b[2Jgone"),
        ];
        for (writes, shown) in cases {
            let mut latest = Latest::default();
            for bytes in writes {
                latest.add(bytes.as_bytes());
            }
            assert_eq!(latest.show(), shown, "{writes:?}");
        }
    }

    #[test]
    fn an_endless_line_costs_little() {
        let mut latest = Latest::default();
        for _ in 0..10_000 {
            latest.add(&[b'x'; 4096]);
        }
        assert!(latest.open.len() <= MAX_LINE_BYTES && latest.open.capacity() <= 8 * MAX_LINE_BYTES);
    }
}
