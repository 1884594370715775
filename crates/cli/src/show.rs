//! Shows runs while they go on: live in a terminal, as plain lines elsewhere, as JSON lines for programs.

pub mod json;
pub mod lines;
pub mod live;
pub mod plain;
pub mod summary;
mod tail;

use std::collections::BTreeMap;

use baton_core::{Event, EventKind, RunId, RunStatus, StepIndex};
use baton_engine::{Clock, Notice, Observer, RunView, TICK};

use crate::face::{Face, Format, Patience};
use summary::Told;

/// Failures of one run that are kept to be told at its end, of each kind; the rest is counted.
const MAX_TOLD: usize = 10;

/// Sees runs and shows them in the way that fits the place.
pub struct Show<'a> {
    face: &'a mut Face,
    way: Way,
    tails: tail::Tails,
    told: BTreeMap<RunId, Vec<Told>>,
    clock: Clock,
    /// The summaries, for the end.
    closing: String,
}

enum Way {
    Live(live::Live),
    Plain(plain::Plain),
    Json(json::Json),
    Quiet,
}

impl<'a> Show<'a> {
    /// The way of showing that fits the face. `many`: more than one run will be shown.
    pub fn new(face: &'a mut Face, many: bool) -> Self {
        let way = if face.format == Format::Json {
            Way::Json(json::Json::default())
        } else if face.quiet {
            Way::Quiet
        } else if face.out.is_terminal() && face.err.is_terminal() && !is_dumb() {
            Way::Live(live::Live::new(lines::Style::of_environment(face.color_err), many))
        } else {
            let color = face.color;
            Way::Plain(plain::Plain::new(lines::Style::of_environment(color), many, face.out.is_terminal()))
        };
        // A program can make nothing of lines with gaps between them; people can look into the log.
        let patience = if matches!(way, Way::Json(_)) { Patience::GivesUp } else { Patience::LeavesOut };
        face.out.set_patience(patience);
        face.err.set_patience(patience);
        Self {
            face,
            way,
            tails: tail::Tails::default(),
            told: BTreeMap::new(),
            clock: Clock::start(),
            closing: String::new(),
        }
    }

    /// One remark about the runs, among what is shown.
    pub fn say(&mut self, text: &str) {
        match &mut self.way {
            Way::Live(live) => live.above(&mut self.face.err, text),
            Way::Plain(_) => self.face.text(&format!("{text}\n")),
            Way::Json(_) | Way::Quiet => {}
        }
    }

    /// Tells how a run ended, or that it is left.
    pub fn summarize(&mut self, run: &RunView<'_>) {
        let told = self.told.remove(&run.run).unwrap_or_default();
        let color = match self.way {
            Way::Live(_) | Way::Quiet => self.face.color_err,
            Way::Plain(_) | Way::Json(_) => self.face.color,
        };
        let style = lines::Style::of_environment(color);
        let text = summary::render(run.state, run.plan.plan_id(), &told, self.clock.now(), style);
        match &self.way {
            Way::Live(_) | Way::Plain(_) => self.closing += &text,
            Way::Json(_) => {}
            Way::Quiet if run.state.result() == Some(RunStatus::Succeeded) => {}
            Way::Quiet => self.closing += &text,
        }
    }

    /// The end of showing: the display is taken down, and everything is written.
    pub fn finish(mut self) {
        if let Way::Live(live) = &mut self.way {
            live.take_down(&mut self.face.err);
        }
        self.face.out.set_patience(Patience::Endless);
        self.face.err.set_patience(Patience::Endless);
        // What matters most comes through, however far behind the reader is.
        let stream = match self.way {
            Way::Live(_) | Way::Quiet => &mut self.face.err,
            Way::Plain(_) | Way::Json(_) => &mut self.face.out,
        };
        stream.flush();
        stream.write(self.closing.as_bytes());
        stream.flush();
    }

    fn keep_failure(&mut self, run: &RunView<'_>, kind: &EventKind) {
        let (step, attempt, end, is_timeout) = match kind {
            EventKind::StepFailed { step, attempt, last: true, end } => (*step, *attempt, Some(end), false),
            EventKind::StepTimeout { step, attempt, last: true, end } => (*step, *attempt, Some(end), true),
            EventKind::StepLost { step, attempt, last: true } => (*step, *attempt, None, false),
            _ => return,
        };
        let told = self.told.entry(run.run).or_default();
        // Those that are tolerated must not crowd out the ones that count.
        let counts = run.state.failure_counts(step);
        if told.iter().filter(|told| run.state.failure_counts(told.step) == counts).count() >= MAX_TOLD {
            return;
        }
        let timeout = run.state.graph().policy(step).timeout.filter(|_| is_timeout);
        told.push(Told {
            step,
            attempt,
            cause: lines::cause(end.map(|end| &end.cause), timeout),
            duration: end.map(|end| end.duration),
            last_lines: self.tails.last_lines(run.run, step),
        });
    }
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

impl Observer for Show<'_> {
    fn event(&mut self, run: &RunView<'_>, seq: u64, event: &Event) {
        self.keep_failure(run, &event.kind);
        match &mut self.way {
            Way::Live(live) => live.event(&mut self.face.err, run, event),
            Way::Plain(plain) => plain.event(&mut self.face.out, run, event),
            Way::Json(json) => json.event(&mut self.face.out, run, seq, event),
            Way::Quiet => {}
        }
        if let Some((step, _)) = event.kind.step()
            && !matches!(event.kind, EventKind::StepStopping { .. })
        {
            self.tails.forget(run.run, step);
        }
        if matches!(event.kind, EventKind::RunCompleted { .. }) {
            self.summarize(run);
        }
        self.face.out.flush_if_older(TICK);
    }

    fn output(&mut self, run: &RunView<'_>, step: StepIndex, _attempt: u32, bytes: &[u8]) {
        self.tails.add(run.run, step, bytes);
        match &mut self.way {
            Way::Live(live) => live.output(&mut self.face.err, run, step, bytes),
            Way::Plain(plain) => plain.output(&mut self.face.out, run, step, bytes),
            Way::Json(_) | Way::Quiet => {}
        }
        self.face.out.flush_if_older(TICK);
    }

    fn notice(&mut self, run: Option<RunId>, notice: &Notice) {
        match &mut self.way {
            Way::Live(live) => live.above(&mut self.face.err, &format!("note: {notice}")),
            Way::Plain(_) => self.face.text(&format!("note: {notice}\n")),
            Way::Json(_) => {
                let line = serde_json::json!({ "notice": notice.to_string(), "run": run });
                self.face.err.write(format!("{line}\n").as_bytes());
                self.face.err.flush();
            }
            Way::Quiet => {}
        }
    }

    fn wants_ticks(&self) -> bool {
        // The time that passes is to be seen; lines only need a calm moment to be written, if there are any.
        match self.way {
            Way::Live(_) => true,
            Way::Plain(_) | Way::Json(_) => self.face.out.has_waiting(),
            Way::Quiet => false,
        }
    }

    fn tick(&mut self, runs: &mut dyn Iterator<Item = RunView<'_>>) {
        match &mut self.way {
            Way::Live(live) => live.draw(&mut self.face.err, runs),
            Way::Plain(_) | Way::Json(_) => self.face.out.flush(),
            Way::Quiet => {}
        }
    }
}
