//! The scheduler alone: a million steps decided and applied, nothing run, the log in memory.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use baton_core::action::{AttemptEnd, Output};
use baton_core::graph::StepShape;
use baton_core::lock::LockTable;
use baton_core::{
    Evaluate, Event, EventKind, ExitCause, GraphBuilder, Input, Invocation, RunCreated, RunId, RunState, RunStatus,
    StepIndex, Time, decide,
};

use serde_json::{Map, Value};

use crate::random::Random;

/// How many steps each step depends on, where so many stand before it.
const DEPENDENCIES: usize = 3;
/// How many attempts run at once.
const AT_ONCE: u32 = 8;
/// What is asked for.
const GOAL_STEPS_PER_SECOND: f64 = 1_000_000.0;
const GOAL_BYTES_PER_STEP: f64 = 400.0;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// How many steps the plan has.
    pub steps: usize,
    /// To build the graph and the first state, in seconds.
    pub build_seconds: f64,
    /// To decide, apply and log everything, in seconds by the clock on the wall.
    pub run_seconds: f64,
    /// The same in seconds of the processor's time, where the system tells: what others run beside it does not count.
    pub processor_seconds: Option<f64>,
    /// What the process grew by at its largest, in bytes; `None` where the system does not tell.
    pub grown_bytes: Option<u64>,
    /// The log, in bytes.
    pub log_bytes: usize,
}

/// A log in memory, as dense as an event allows.
#[derive(Default)]
struct MemoryLog {
    bytes: Vec<u8>,
    last: Time,
    events: u64,
}

const STARTED: u8 = 1;
const SUCCEEDED: u8 = 2;
const OTHER: u8 = 3;

impl MemoryLog {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn append(&mut self, event: &Event) {
        self.events += 1;
        let passed = event.at.since(self.last).0;
        self.last = event.at;
        match &event.kind {
            EventKind::StepStarted { step, attempt, invocation: None } => {
                self.bytes.push(STARTED);
                self.number(passed);
                self.number(u64::from(step.0));
                self.number(u64::from(*attempt));
            }
            EventKind::StepSucceeded { step, attempt, end } if is_plain(end) => {
                self.bytes.push(SUCCEEDED);
                self.number(passed);
                self.number(u64::from(step.0));
                self.number(u64::from(*attempt));
                self.number(end.duration.0);
            }
            other => {
                self.bytes.push(OTHER);
                self.number(passed);
                let text = format!("{other:?}");
                self.number(text.len() as u64);
                self.bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
}

fn is_plain(end: &AttemptEnd) -> bool {
    end.cause == ExitCause::Exit { code: 0 }
        && end.output == Output::None
        && end.outputs.is_empty()
        && end.artifacts.is_empty()
        && end.leftovers.is_empty()
}

struct Static;

impl Evaluate for Static {
    fn condition(&self, _: &RunState, _: StepIndex) -> Result<bool, String> {
        Ok(true)
    }

    fn invocation(&self, _: &RunState, _: StepIndex) -> Result<Option<Box<Invocation>>, String> {
        Ok(None)
    }

    fn outputs(&self, _: &RunState) -> Result<Map<String, Value>, String> {
        Ok(Map::new())
    }
}

/// Memory of this process in KiB by the name it has in `/proc/self/status`.
fn status_kib(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// What this process has had of the processor, in seconds.
fn processor_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<u64>().ok()? as f64 / 1e9)
}

/// Plays a plan of so many steps.
pub fn measure(steps: usize) -> Figures {
    let before = status_kib("VmRSS");
    let begin = Instant::now();
    let mut random = Random::new(1);
    let mut builder = GraphBuilder::with_capacity(steps);
    let mut id = String::new();
    for step in 0..steps {
        let mut shape = StepShape::default();
        if step > 0 {
            shape.depends_on =
                (0..DEPENDENCIES.min(step)).map(|_| StepIndex(random.below(step as u64) as u32)).collect();
        }
        id.clear();
        id.push_str("step-");
        id.push_str(&step.to_string());
        builder.add(&id, shape);
    }
    builder.max_concurrency = AT_ONCE;
    let graph = Arc::new(builder.build());
    let mut state = RunState::new(RunId(1), graph, Time(0), &RunCreated::default(), BTreeMap::new());
    let build_seconds = begin.elapsed().as_secs_f64();

    let (begin, processor) = (Instant::now(), processor_seconds());
    let locks = LockTable::default();
    let mut log = MemoryLog::default();
    let mut in_flight: VecDeque<(StepIndex, u32)> = VecDeque::new();
    let mut events = Vec::new();
    let mut now = Time(0);
    while state.result().is_none() {
        while state.next(now, &Static, &locks, &mut events) {
            for kind in events.drain(..) {
                if let EventKind::StepStarted { step, attempt, .. } = &kind {
                    in_flight.push_back((*step, *attempt));
                }
                let event = Event { at: now, kind };
                log.append(&event);
                state.apply(&event);
            }
        }
        if let Some((step, attempt)) = in_flight.pop_front() {
            now.0 += 1;
            let end = Box::new(AttemptEnd::bare(ExitCause::Exit { code: 0 }));
            decide(&state, Input::AttemptEnded { step, attempt, end, by_itself: false }, now, &mut events)
                .expect("the attempt is in flight");
            for kind in events.drain(..) {
                let event = Event { at: now, kind };
                log.append(&event);
                state.apply(&event);
            }
        }
    }
    let run_seconds = begin.elapsed().as_secs_f64();
    let processor_seconds = processor.zip(processor_seconds()).map(|(before, after)| after - before);
    assert_eq!(state.result(), Some(RunStatus::Succeeded), "every step of the benchmark succeeds");
    assert_eq!(log.events, 2 * steps as u64 + 2, "each step starts and ends once");
    let grown_bytes = before.zip(status_kib("VmHWM")).map(|(before, peak)| peak.saturating_sub(before) * 1024);
    Figures { steps, build_seconds, run_seconds, processor_seconds, grown_bytes, log_bytes: log.bytes.len() }
}

/// Measures, prints, and fails over a goal.
pub fn bench(steps: usize) -> Result<(), String> {
    let figures = measure(steps);
    let seconds = figures.processor_seconds.unwrap_or(figures.run_seconds);
    let rate = figures.steps as f64 / seconds;
    println!("{} steps, {DEPENDENCIES} dependencies each, {AT_ONCE} at once", figures.steps);
    println!("built in {:.2} s", figures.build_seconds);
    let wall = figures.run_seconds;
    println!("decided, applied and logged in {seconds:.2} s of one core ({wall:.2} s on the wall): {rate:.0} steps/s");
    println!("log: {:.1} bytes a step", figures.log_bytes as f64 / figures.steps as f64);
    let mut missed = Vec::new();
    if rate < GOAL_STEPS_PER_SECOND {
        missed.push(format!("{rate:.0} steps/s, goal {GOAL_STEPS_PER_SECOND:.0}"));
    }
    match figures.grown_bytes.map(|bytes| bytes as f64 / figures.steps as f64) {
        Some(each) => {
            println!("memory at its largest: {each:.0} bytes a step");
            if each > GOAL_BYTES_PER_STEP {
                missed.push(format!("{each:.0} bytes a step, goal {GOAL_BYTES_PER_STEP:.0}"));
            }
        }
        None => println!("memory: this system does not tell"),
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("over a goal: {}", missed.join("; "))) }
}
