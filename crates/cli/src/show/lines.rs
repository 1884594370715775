//! One line for each thing that happens to a step: a symbol and words, so that nothing is told by colour alone.

use baton_core::event::{SkipReason, StopReason};
use baton_core::{EventKind, ExitCause, Millis, RunState, RunStatus, StepIndex, Time, why};

use crate::words;

/// How lines look: colours and symbols.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// Whether colours may be used.
    pub color: bool,
    /// Whether symbols beyond ASCII may be used.
    pub unicode: bool,
}

/// What a line tells, which decides its symbol and colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    /// Something begins.
    Begin,
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// It went wrong and is tried again, or is tolerated.
    Again,
    /// It is left out.
    Out,
    /// It is about the run.
    Run,
}

impl Style {
    /// Symbols as the environment's language settings allow.
    pub fn of_environment(color: bool) -> Self {
        // The first that is set decides, as in the C library; none set says nothing about the terminal.
        let set = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        let unicode = set.is_none_or(|value| {
            let value = value.to_ascii_lowercase();
            value.contains("utf-8") || value.contains("utf8")
        });
        Self { color, unicode }
    }

    /// The symbol of a tone.
    pub fn symbol(self, tone: Tone) -> &'static str {
        match (tone, self.unicode) {
            (Tone::Begin, true) => "▸",
            (Tone::Begin, false) => ">",
            (Tone::Good, true) => "✓",
            (Tone::Good, false) => "+",
            (Tone::Bad, true) => "✗",
            (Tone::Bad, false) => "x",
            (Tone::Again, true) => "↻",
            (Tone::Again, false) => "~",
            (Tone::Out, _) => "-",
            (Tone::Run, true) => "■",
            (Tone::Run, false) => "#",
        }
    }

    /// A text in the colour of a tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Begin => "36",
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Again => "33",
            Tone::Out => "2",
            Tone::Run => "1",
        };
        crate::face::paint(self.color, code, text)
    }
}

/// What happened to a step, in words that follow its id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The tone.
    pub tone: Tone,
    /// The step; `None`: the run.
    pub step: Option<StepIndex>,
    /// The words.
    pub words: String,
}

/// Why an attempt failed, in words.
pub fn cause(cause: Option<&ExitCause>, timeout: Option<Millis>) -> String {
    match (timeout, cause) {
        (Some(Millis(ms)), _) => format!("timeout after {}s", ms as f64 / 1000.0),
        (None, Some(cause)) => cause.to_string(),
        (None, None) => "lost three times in a row: something about it ends the process that drives the run".to_owned(),
    }
}

/// The line for an event; `None`: it needs none.
pub fn line(state: &RunState, at: Time, kind: &EventKind) -> Option<Line> {
    let of = |step: StepIndex, attempt: u32| {
        let most = state.graph().policy(step).retries + 1;
        let is_one_of_many = most > 1 && attempt > 0;
        if is_one_of_many { format!(" (attempt {attempt} of {})", most.max(attempt)) } else { String::new() }
    };
    let step_line = |tone: Tone, step: StepIndex, words: String| Some(Line { tone, step: Some(step), words });
    match kind {
        EventKind::RunCreated(_)
        | EventKind::RunStarted
        | EventKind::RunCompleted { .. }
        | EventKind::StepCondition { .. }
        | EventKind::StepStopping { .. } => None,
        EventKind::RunResumed { .. } => {
            Some(Line { tone: Tone::Run, step: None, words: "goes on from where it was".to_owned() })
        }
        EventKind::RunStopping { reason, hurry, .. } => {
            let what = if *hurry { "is ended at once" } else { "is stopping" };
            let words = format!("{what}: {}", why::stop_reason(state, reason));
            let tone = if matches!(reason, StopReason::Cancel { .. }) { Tone::Run } else { Tone::Bad };
            Some(Line { tone, step: None, words })
        }
        EventKind::RunFinally { status, .. } => {
            let so_far = match status {
                RunStatus::Succeeded => "has succeeded so far",
                RunStatus::Failed => "has failed",
                RunStatus::Canceled => "is canceled",
            };
            Some(Line { tone: Tone::Run, step: None, words: format!("{so_far}; what stands in `finally` runs now") })
        }
        EventKind::RunSlaPassed { due } => {
            let words = format!("is late: by its `sla` it should have been over at {}", words::clock(*due));
            Some(Line { tone: Tone::Again, step: None, words })
        }
        EventKind::StepStarted { step, attempt, .. } => {
            let again = if *attempt > 1 { of(*step, *attempt) } else { String::new() };
            step_line(Tone::Begin, *step, format!("started{again}"))
        }
        EventKind::StepSucceeded { step, end, .. } => step_line(Tone::Good, *step, words::duration(end.duration)),
        EventKind::StepFailed { step, attempt, last, end } => {
            let tone = if *last { Tone::Bad } else { Tone::Again };
            let why = cause(Some(&end.cause), None);
            // What was never started took no time.
            let after = if *attempt > 0 { format!(" after {}", words::duration(end.duration)) } else { String::new() };
            step_line(tone, *step, format!("failed{after}: {why}{}", of(*step, *attempt)))
        }
        EventKind::StepTimeout { step, attempt, last, end } => {
            let tone = if *last { Tone::Bad } else { Tone::Again };
            let why = cause(Some(&end.cause), state.graph().policy(*step).timeout);
            step_line(tone, *step, format!("failed: {why}{}", of(*step, *attempt)))
        }
        EventKind::StepLost { step, attempt, last } => {
            let tone = if *last { Tone::Bad } else { Tone::Again };
            let end = if *last { "; lost three times in a row, so it failed" } else { "" };
            step_line(
                tone,
                *step,
                format!("lost: the process that drove the run went away{}{end}", of(*step, *attempt)),
            )
        }
        EventKind::StepCanceled { step, attempt, .. } => {
            // What never ran is told as a number at the end: there may be very many.
            (*attempt > 0).then(|| Line { tone: Tone::Out, step: Some(*step), words: "canceled".to_owned() })
        }
        EventKind::StepRetry { step, attempt, due } => {
            let wait = due.since(at);
            // One that comes at once says so itself, unless this process is about to go.
            let words = || format!("runs again in {}{}", words::duration(wait), of(*step, *attempt));
            if wait.0 == 0 { None } else { step_line(Tone::Again, *step, words()) }
        }
        EventKind::StepSkipped { step, reason } => {
            let words = match reason {
                SkipReason::Condition => "skipped: its condition is false".to_owned(),
                SkipReason::Dependency { step } => {
                    format!("skipped: `{}` failed or was skipped because of a failure", state.graph().id(*step))
                }
                SkipReason::FallbackNotNeeded { step } => {
                    format!("skipped: `{}` did not need its fallback", state.graph().id(*step))
                }
            };
            step_line(Tone::Out, *step, words)
        }
    }
}

/// The line as it is shown.
pub fn render(line: &Line, state: &RunState, style: Style, many: bool) -> String {
    let symbol = style.paint(line.tone, style.symbol(line.tone));
    let run = state.run();
    match line.step {
        Some(step) if many => format!("{symbol} {run}/{} {}", state.graph().id(step), line.words),
        Some(step) => format!("{symbol} {} {}", state.graph().id(step), line.words),
        None => format!("{symbol} run {run} {}", line.words),
    }
}
