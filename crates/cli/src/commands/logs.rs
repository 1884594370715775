//! What steps printed, and the log of events: of runs that are over, and of those that go on.

use std::collections::{BTreeMap, BTreeSet};

use baton_core::{AttemptEnd, Event, EventKind, Graph, Log, Output, RunId, StepIndex};
use baton_store::stored::{StoredColumns, decode};
use baton_store::{Piece, SegmentReader, SqliteStore, Store, StoredEvent};
use serde_json::{Value, json};

use super::watch::Watch;
use super::{no_such_step, of_engine, of_store, open_to_look, run_and_step, run_or_latest};
use crate::arguments::{Answer, Given};
use crate::escape;
use crate::face::Face;
use crate::failure::{EXIT_LEFT, EXIT_OK, EXIT_REFUSED, Failure};
use crate::show::json::line;
use crate::words;

/// Events are read in pages of so many.
const PAGE: usize = 1000;
/// A line that does not end is broken after so many bytes.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// `baton events`.
pub fn events(given: Given<'_>, face: &mut Face) -> Answer {
    let store = open_to_look(given, face)?;
    let run = run_or_latest(&store, given.number("run"))?;
    let mut after = given.number("after").unwrap_or(0);
    let (created_at, _) = store.created(run).map_err(of_store)?;
    let watch = given.flag("follow").then(|| Watch::new(&store.directory().run(run)));
    loop {
        // Read before the events: what it says to be over has no events to come.
        let is_over = store.run(run).map_err(of_store)?.phase.is_terminal();
        let is_driven = is_over || is_driven(&store, run)?;
        loop {
            let page = store.events(Log::Run(run), after, PAGE).map_err(of_store)?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            for event in page {
                if face.is_json() {
                    face.line(&line(run, event));
                } else {
                    let text = event_line(&event, created_at);
                    face.text(&text);
                }
            }
            if face.out.is_closed() {
                return Ok(EXIT_OK);
            }
        }
        face.out.flush();
        match &watch {
            None => return Ok(EXIT_OK),
            Some(_) if is_over => return Ok(EXIT_OK),
            Some(_) if !is_driven => return Ok(left(run, face)),
            Some(watch) => watch.wait(),
        }
    }
}

fn is_driven(store: &SqliteStore, run: RunId) -> Result<bool, Failure> {
    let row = store.run(run).map_err(of_store)?;
    Ok(baton_engine::live_owner(store, &row).map_err(of_engine)?.is_some())
}

fn left(run: RunId, face: &mut Face) -> u8 {
    if !face.is_json() {
        face.note(&format!("run {run} is abandoned, so nothing follows; go on with: baton resume {run}"));
    }
    EXIT_LEFT
}

/// An event for people: its number, when since the start, what, of which step, and the rest as it is stored.
fn event_line(event: &StoredEvent, created_at: baton_core::Time) -> String {
    let step = match (&event.step, event.attempt) {
        (Some(step), Some(attempt)) => format!(" {step}#{attempt}"),
        (Some(step), None) => format!(" {step}"),
        (None, _) => String::new(),
    };
    let payload =
        if event.payload.is_empty() { String::new() } else { format!("  {}", Value::from(event.payload.clone())) };
    let since = words::duration(event.at.since(created_at));
    escape::one_line(&format!("{:>5} {since:>9}  {}{step}{payload}", event.seq, event.kind)) + "\n"
}

/// `baton logs`.
pub fn logs(given: Given<'_>, face: &mut Face) -> Answer {
    let store = open_to_look(given, face)?;
    let (run, step) = run_and_step(&store, given)?;
    let loaded = baton_engine::load(&store, run).map_err(of_engine)?;
    let graph = loaded.state.graph().clone();
    let step = match step {
        Some(name) => {
            let ids = || graph.steps().map(|step| graph.id(step));
            Some(graph.find(&name).ok_or_else(|| no_such_step(run, &name, ids()))?)
        }
        None => None,
    };
    let printer = Printer {
        run,
        many: step.is_none(),
        is_raw: given.flag("raw"),
        is_json: face.is_json(),
        is_terminal: face.out.is_terminal(),
        tail: given.number("tail").map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
        open: BTreeMap::new(),
        is_empty: true,
    };
    let attempt = given.number("attempt");
    let wanted = move |of: StepIndex, number: u32| {
        step.is_none_or(|step| step == of) && attempt.is_none_or(|attempt| attempt == u64::from(number))
    };
    let reader = Reader { store: &store, run, graph: &graph, printer, after: 0, told: BTreeSet::new(), segment: None };
    reader.read(&wanted, given.flag("follow"), face)
}

/// Reads what a run's attempts printed: first of those that are over, then of those that go on.
struct Reader<'a> {
    store: &'a SqliteStore,
    run: RunId,
    graph: &'a Graph,
    printer: Printer,
    /// The last event that was read.
    after: u64,
    /// Attempts in the segment whose output was told when their end was read.
    told: BTreeSet<(StepIndex, u32)>,
    segment: Option<SegmentReader>,
}

type Wanted<'a> = &'a dyn Fn(StepIndex, u32) -> bool;

impl Reader<'_> {
    fn read(mut self, wanted: Wanted<'_>, follow: bool, face: &mut Face) -> Answer {
        let watch = follow.then(|| Watch::new(&self.store.directory().run(self.run)));
        while let Some(ends) = self.next_ends(wanted)? {
            for end in &ends {
                self.tell(end, face)?;
                if face.out.is_closed() {
                    return Ok(EXIT_OK);
                }
            }
        }
        loop {
            // In this order: what is over has no events to come, and what an event says is in the segment already.
            let is_over = self.store.run(self.run).map_err(of_store)?.phase.is_terminal();
            let is_driven = is_over || is_driven(self.store, self.run)?;
            let mut ends = Vec::new();
            while let Some(more) = self.next_ends(wanted)? {
                ends.extend(more);
            }
            self.stream(wanted, face)?;
            for end in &ends {
                match ended(&end.kind) {
                    Some((step, attempt, AttemptEnd { output: Output::Segment { .. }, .. })) => {
                        self.printer.finish(step, attempt, self.graph, face);
                    }
                    None => {}
                    _ => self.tell(end, face)?,
                }
            }
            face.out.flush();
            match &watch {
                _ if face.out.is_closed() || is_over => break,
                None => break,
                Some(_) if !is_driven => {
                    self.printer.finish_all(self.graph, face);
                    return Ok(left(self.run, face));
                }
                Some(watch) => watch.wait(),
            }
        }
        self.printer.finish_all(self.graph, face);
        if self.printer.is_empty && !face.is_json() {
            face.note("nothing was printed");
        }
        Ok(EXIT_OK)
    }

    /// The ends of attempts in the next page of events; `None`: there are no more events now.
    fn next_ends(&mut self, wanted: Wanted<'_>) -> Result<Option<Vec<Event>>, Failure> {
        let page = self.store.events(Log::Run(self.run), self.after, PAGE).map_err(of_store)?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = last.seq;
        let mut ends = Vec::new();
        // Only ends have a cause; the end of a lost attempt was not seen.
        let is_end = |stored: &&StoredEvent| stored.payload.contains_key("cause") || stored.kind == "step_lost";
        for stored in page.iter().filter(is_end) {
            let event = typed(stored, self.graph)?;
            if event.kind.step().is_some_and(|(step, attempt)| wanted(step, attempt)) {
                ends.push(event);
            }
        }
        Ok(Some(ends))
    }

    /// Tells all that an attempt printed, wherever it stands.
    fn tell(&mut self, event: &Event, face: &mut Face) -> Result<(), Failure> {
        if let EventKind::StepLost { step, attempt, .. } = event.kind {
            return self.tell_lost(step, attempt, face);
        }
        let Some((step, attempt, end)) = ended(&event.kind) else { return Ok(()) };
        let (printer, graph) = (&mut self.printer, self.graph);
        if let Some(lines) = printer.tail {
            let mut all = Vec::new();
            let mut keep = |piece: Piece<'_>| {
                if let Piece::Bytes(bytes) = piece {
                    all.extend_from_slice(bytes);
                }
                Ok(())
            };
            self.store.read_output(self.run, step, attempt, &end.output, &mut keep).map_err(of_store)?;
            printer.piece(step, attempt, graph, &Piece::Bytes(last_lines(&all, lines)), face);
        } else {
            let mut print = |piece: Piece<'_>| {
                printer.piece(step, attempt, graph, &piece, face);
                Ok(())
            };
            self.store.read_output(self.run, step, attempt, &end.output, &mut print).map_err(of_store)?;
        }
        self.printer.finish(step, attempt, self.graph, face);
        if matches!(end.output, Output::Segment { .. }) {
            self.told.insert((step, attempt));
        }
        Ok(())
    }

    /// Tells what is known of the output of an attempt that was lost: nothing but the segment knows of it.
    fn tell_lost(&mut self, step: StepIndex, attempt: u32, face: &mut Face) -> Result<(), Failure> {
        let path = self.store.directory().output(self.run);
        let Some(mut segment) = SegmentReader::open(&path, 0).map_err(of_store)? else { return Ok(()) };
        let of_it = |of: StepIndex, number: u32| (of, number) == (step, attempt);
        while let Some(chunk) = segment.next(of_it).map_err(of_store)? {
            if chunk.step == Some(step) {
                self.printer.piece(step, attempt, self.graph, &chunk.piece, face);
            }
        }
        self.printer.finish(step, attempt, self.graph, face);
        self.told.insert((step, attempt));
        Ok(())
    }

    /// Tells what has come into the segment since the last time, of attempts that were not told as a whole.
    fn stream(&mut self, wanted: Wanted<'_>, face: &mut Face) -> Result<(), Failure> {
        if self.segment.is_none() {
            self.segment = SegmentReader::open(&self.store.directory().output(self.run), 0).map_err(of_store)?;
        }
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let told = &self.told;
        let open = |step: StepIndex, attempt: u32| wanted(step, attempt) && !told.contains(&(step, attempt));
        while let Some(chunk) = segment.next(open).map_err(of_store)? {
            if let Some(step) = chunk.step {
                self.printer.piece(step, chunk.attempt, self.graph, &chunk.piece, face);
            }
            if face.out.is_closed() {
                break;
            }
        }
        Ok(())
    }
}

/// The last so many lines.
fn last_lines(bytes: &[u8], lines: usize) -> &[u8] {
    if lines == 0 {
        return &[];
    }
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let starts = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    &bytes[starts.take(lines).nth(lines - 1).unwrap_or(0)..]
}

/// Prints output in the form that was asked for.
struct Printer {
    run: RunId,
    many: bool,
    is_raw: bool,
    is_json: bool,
    /// Whether a terminal reads it: then nothing that steps printed may act on it.
    is_terminal: bool,
    tail: Option<usize>,
    /// What attempts have printed since their last line feed.
    open: BTreeMap<(StepIndex, u32), Vec<u8>>,
    /// Whether nothing has been printed.
    is_empty: bool,
}

impl Printer {
    fn piece(&mut self, step: StepIndex, attempt: u32, graph: &Graph, piece: &Piece<'_>, face: &mut Face) {
        self.is_empty &= matches!(piece, Piece::Bytes([]));
        match piece {
            Piece::Bytes(bytes) if self.is_raw && !self.is_json => face.out.write(bytes),
            Piece::Bytes(bytes) => {
                let mut open = self.open.remove(&(step, attempt)).unwrap_or_default();
                let mut rest = *bytes;
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    open.extend_from_slice(&rest[..end]);
                    self.line(step, attempt, graph, &open, face);
                    open.clear();
                    rest = &rest[end + 1..];
                }
                open.extend_from_slice(rest);
                while open.len() > MAX_LINE_BYTES {
                    let part: Vec<u8> = open.drain(..MAX_LINE_BYTES).collect();
                    self.line(step, attempt, graph, &part, face);
                }
                if !open.is_empty() {
                    self.open.insert((step, attempt), open);
                }
            }
            Piece::Cut { bytes } => self.gap(step, attempt, graph, "not kept", *bytes, face),
            Piece::Damaged { bytes } => self.gap(step, attempt, graph, "damaged and cannot be read", *bytes, face),
        }
    }

    /// The place of bytes that are not there.
    fn gap(&mut self, step: StepIndex, attempt: u32, graph: &Graph, why: &str, bytes: u64, face: &mut Face) {
        self.finish(step, attempt, graph, face);
        let id = graph.id(step);
        if self.is_json {
            let run = self.run;
            face.line(&json!({ "run": run, "step": id, "attempt": attempt, "missing_bytes": bytes, "why": why }));
        } else if self.is_raw {
            face.note(&format!("note: {} of step {id} are {why}", words::bytes(bytes)));
        } else {
            face.text(&format!("… {} of step {id} are {why} …\n", words::bytes(bytes)));
        }
    }

    fn line(&self, step: StepIndex, attempt: u32, graph: &Graph, bytes: &[u8], face: &mut Face) {
        let id = graph.id(step);
        if self.is_json {
            let text = String::from_utf8_lossy(bytes);
            face.line(&json!({ "run": self.run, "step": id, "attempt": attempt, "line": text }));
            return;
        }
        if self.many {
            let again = if attempt > 1 { format!("#{attempt}") } else { String::new() };
            face.text(&format!("[{id}{again}] "));
        }
        if self.is_terminal {
            face.text(&escape::harmless(bytes));
        } else {
            face.out.write(bytes);
        }
        face.text("\n");
    }

    /// The attempt is over, and so is its last line.
    fn finish(&mut self, step: StepIndex, attempt: u32, graph: &Graph, face: &mut Face) {
        if let Some(rest) = self.open.remove(&(step, attempt)) {
            self.line(step, attempt, graph, &rest, face);
        }
    }

    fn finish_all(&mut self, graph: &Graph, face: &mut Face) {
        for ((step, attempt), rest) in std::mem::take(&mut self.open) {
            self.line(step, attempt, graph, &rest, face);
        }
    }
}

/// The event that was stored, as the core knows it.
pub fn typed(stored: &StoredEvent, graph: &Graph) -> Result<Event, Failure> {
    let payload = Value::from(stored.payload.clone()).to_string();
    let columns = StoredColumns {
        at: stored.at.0,
        kind: &stored.kind,
        step: stored.step.as_deref(),
        attempt: stored.attempt,
        payload: payload.as_bytes(),
    };
    decode(&columns, graph).map_err(|problem| {
        Failure::new("damaged-log", EXIT_REFUSED, format!("event {} cannot be read: {problem}", stored.seq))
            .hint("`baton doctor` checks every log")
    })
}

/// The end of an attempt, where the event is one.
pub fn ended(kind: &EventKind) -> Option<(StepIndex, u32, &AttemptEnd)> {
    match kind {
        EventKind::StepSucceeded { step, attempt, end }
        | EventKind::StepFailed { step, attempt, end, .. }
        | EventKind::StepTimeout { step, attempt, end, .. }
        | EventKind::StepCanceled { step, attempt, end: Some(end) } => Some((*step, *attempt, end)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_found_with_and_without_an_end() {
        let cases: [(&[u8], usize, &[u8]); 6] = [
            (b"a\nb\nc\n", 2, b"b\nc\n"),
            (b"a\nb\nc", 2, b"b\nc"),
            (b"a\n", 5, b"a\n"),
            (b"a\nb\n", 0, b""),
            (b"", 3, b""),
            (b"a\n\n", 1, b"\n"),
        ];
        for (bytes, lines, expected) in cases {
            assert_eq!(last_lines(bytes, lines), expected, "{lines} of {bytes:?}");
        }
    }
}
