//! Plays a script against a plan and writes down what happens: the only test code that touches the core's functions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use baton_core::decide::LockMove;
use baton_core::event::{AttemptStop, SkipReason};
use baton_core::graph::{Backoff, LockRequest, StepShape};
use baton_core::lock::{Holder, LockEvent, LockEventKind, LockTable};
use baton_core::why::{Blocker, stop_reason};
use baton_core::{
    AttemptEnd, Epoch, Evaluate, Event, EventKind, ExitCause, Graph, GraphBuilder, Input, Invocation, Millis,
    OnFailure, RunCreated, RunId, RunState, StepIndex, StepStatus, Time, decide,
};
use serde_json::{Map, Value};

/// More moves than any story makes without time passing: the core goes round in a circle.
const MOVES_LIMIT: usize = 10_000;
/// The run that the script calls `rival`.
const RIVAL: RunId = RunId(99);

/// Plays `script` against `plan` and tells what happened.
///
/// A line of a plan is `id`, then `<- dependency …`, then `option=value …`; a line that begins with `plan` holds
/// the plan's own options. A line of a script is a time in seconds and what happens then. Between the lines, time
/// passes and what falls due happens at its time. A state that differs from the fold of its log panics.
pub fn timeline(plan: &str, script: &str) -> String {
    let mut world = World::new(Plan::parse(plan));
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (time, what) = line.split_once(' ').expect("a script's line is a time and what happens then");
        world.pass_until(Time(millis(time.strip_suffix('s').expect("times are in seconds")).0 as i64));
        world.play(what.trim());
    }
    world.told
}

/// What an expression of the plan comes to.
#[derive(Clone, Debug)]
enum Says {
    Value(String),
    Error,
}

struct Plan {
    graph: Graph,
    conditions: BTreeMap<StepIndex, Says>,
    invocations: BTreeMap<StepIndex, Says>,
    outputs: Option<Says>,
    created: RunCreated,
}

fn millis(seconds: &str) -> Millis {
    Millis((seconds.parse::<f64>().expect("a number of seconds") * 1000.0).round() as u64)
}

fn names(list: &str) -> Vec<String> {
    list.split(',').map(str::to_owned).collect()
}

impl Plan {
    fn parse(text: &str) -> Self {
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let steps: Vec<&Vec<&str>> = lines.iter().filter(|words| !matches!(words[..], [] | ["plan", ..])).collect();
        let place = |id: &str| {
            let at = steps.iter().position(|words| words[0] == id);
            StepIndex(at.unwrap_or_else(|| panic!("the story's plan has no step `{id}`")) as u32)
        };
        let mut builder = GraphBuilder::with_capacity(steps.len());
        builder.max_concurrency = 8;
        let mut created = RunCreated::default();
        let mut outputs = None;
        let says = |value: &str| if value == "error" { Says::Error } else { Says::Value(value.to_owned()) };
        for words in lines.iter().filter(|words| words.first() == Some(&"plan")) {
            for (option, value) in words[1..].iter().map(|word| word.split_once('=').expect("option=value")) {
                match option {
                    "concurrency" => builder.max_concurrency = value.parse().expect("a number"),
                    "timeout" => builder.timeout = Some(millis(value)),
                    "sla" => builder.sla = Some(millis(value)),
                    "outputs" => {
                        builder.has_outputs = true;
                        outputs = Some(says(value));
                    }
                    "locks" => builder.plan_locks.names = names(value),
                    "lock_wait" => builder.plan_locks.wait_timeout = Some(millis(value)),
                    "kept" => {
                        let (first, last) = value.split_once("..").expect("first..last");
                        created.kept.push((place(first).0, place(last).0));
                    }
                    _ => panic!("a plan has no option `{option}`"),
                }
            }
        }
        let mut conditions = BTreeMap::new();
        let mut invocations = BTreeMap::new();
        for words in &steps {
            let step = place(words[0]);
            let mut shape = StepShape::default();
            shape.policy.timeout = None;
            for word in words[1..].iter().filter(|word| **word != "<-") {
                let Some((option, value)) = word.split_once('=') else {
                    shape.depends_on.push(place(word));
                    continue;
                };
                let policy = &mut shape.policy;
                match option {
                    "retries" => policy.retries = value.parse().expect("a number"),
                    "delay" => policy.retry_delay = millis(value),
                    "max_delay" => policy.retry_max_delay = millis(value),
                    "backoff" if value == "exponential" => policy.backoff = Backoff::Exponential,
                    "jitter" => policy.jitter_permille = millis(value).0 as u16,
                    "timeout" => policy.timeout = Some(millis(value)),
                    "stop_grace" => policy.stop_grace = millis(value),
                    "grace" => policy.critical_grace = millis(value),
                    "critical" => policy.critical = value.parse().expect("true or false"),
                    "accept" => policy.accept = value.split(',').map(|code| code.parse().expect("a code")).collect(),
                    "on_failure" => {
                        policy.on_failure = match value {
                            "abort" => OnFailure::Abort,
                            "skip" => OnFailure::SkipDependents,
                            "continue" => OnFailure::Continue,
                            _ => panic!("no policy `{value}`"),
                        };
                    }
                    "fallback" => {
                        policy.on_failure = OnFailure::FallbackStep;
                        shape.fallback = Some(place(value));
                    }
                    "locks" => shape.locks = LockRequest { names: names(value), ..shape.locks },
                    "lock_wait" => shape.locks.wait_timeout = Some(millis(value)),
                    "finally" => shape.finally = value.parse().expect("true or false"),
                    "cond" => {
                        shape.conditional = true;
                        conditions.insert(step, says(value));
                    }
                    "invokes" => {
                        invocations.insert(step, says(value));
                    }
                    _ => panic!("a step has no option `{option}`"),
                }
            }
            builder.add(words[0], shape);
        }
        Self { graph: builder.build(), conditions, invocations, outputs, created }
    }
}

impl Evaluate for Plan {
    fn condition(&self, _: &RunState, step: StepIndex) -> Result<bool, String> {
        match self.conditions.get(&step) {
            Some(Says::Value(value)) => Ok(value == "true"),
            Some(Says::Error) => Err("no such key: `steps.x.outputs.y`".to_owned()),
            None => panic!("the condition of step {} was asked for, and it has none", step.0),
        }
    }

    fn invocation(&self, state: &RunState, step: StepIndex) -> Result<Option<Box<Invocation>>, String> {
        match self.invocations.get(&step) {
            Some(Says::Value(value)) => {
                // `outputs:fetch` is what others see under that id; anything else stands for itself.
                let with = match value.strip_prefix("outputs:").and_then(|id| state.graph().find(id)) {
                    Some(other) => state.outputs(other).map_or(Value::Null, |map| Value::Object((**map).clone())),
                    None => Value::String(value.clone()),
                };
                let (uses, cwd) = ("process".to_owned(), ".".to_owned());
                Ok(Some(Box::new(Invocation { uses, with, cwd, env: BTreeMap::new() })))
            }
            Some(Says::Error) => Err("no such key: `steps.x.outputs.y`".to_owned()),
            None => Ok(None),
        }
    }

    fn outputs(&self, _: &RunState) -> Result<Map<String, Value>, String> {
        match &self.outputs {
            Some(Says::Value(value)) => Ok(Map::from_iter([("out".to_owned(), Value::String(value.clone()))])),
            Some(Says::Error) => Err("the output `out`: no such key `y`".to_owned()),
            None => panic!("the outputs of a plan were asked for that has none"),
        }
    }
}

struct World {
    plan: Plan,
    graph: Arc<Graph>,
    log: Vec<Event>,
    state: RunState,
    locks: LockTable,
    now: Time,
    /// Whether a live process drives the run.
    owned: bool,
    epoch: u64,
    told: String,
}

impl World {
    fn new(plan: Plan) -> Self {
        let graph = Arc::new(plan.graph.clone());
        let state = RunState::new(RunId(1), graph.clone(), Time(0), &plan.created, BTreeMap::new());
        let locks = LockTable::default();
        let (log, told) = (Vec::new(), String::new());
        Self { plan, graph, log, state, locks, now: Time(0), owned: false, epoch: 1, told }
    }

    fn tell(&mut self, line: &str) {
        let at = format!("{}s", self.now.0 as f64 / 1000.0);
        writeln!(self.told, "{at:<5} {line}").expect("a string takes every line");
    }

    /// Lets time pass; what falls due happens at its time.
    fn pass_until(&mut self, until: Time) {
        assert!(self.now <= until, "the script's times must not go back");
        while self.owned
            && let Some(due) = self.state.next_due(self.now, &self.locks)
            && due <= until
        {
            assert!(due > self.now, "something was due at {due:?}, has not happened, and it is {:?}", self.now);
            self.now = due;
            self.settle();
        }
        self.now = until;
    }

    fn play(&mut self, what: &str) {
        let words: Vec<&str> = what.split_whitespace().collect();
        match words[..] {
            ["start"] => self.owned = true,
            ["tick"] => {}
            ["cancel"] => self.input(Input::Cancel { by: "ada".to_owned(), hurry: false }),
            ["hurry"] => self.input(Input::Cancel { by: "ada".to_owned(), hurry: true }),
            ["abandon"] => {
                self.input(Input::Abandon);
                self.release();
                self.owned = false;
            }
            ["crash"] => {
                self.owned = false;
                self.tell("the owner dies");
            }
            // What follows from the events that are left must be what followed from them before.
            ["crash", "before", "the", "last", events] => {
                self.owned = false;
                self.log.truncate(self.log.len() - events.parse::<usize>().expect("how many events are lost"));
                self.state = self.replay();
                self.tell(&format!("the owner dies; the last {events} events were not on disk"));
            }
            ["resume"] => {
                self.owned = true;
                self.epoch += 1;
                self.state = self.replay();
                self.input(Input::Resume { epoch: Epoch(self.epoch) });
            }
            ["why", id] => {
                let chain = self.state.why(self.step(id), self.now, &self.locks, self.owned);
                let words: Vec<String> = chain.iter().map(blocker).collect();
                self.tell(&format!("why {id}? {}", words.join(" → ")));
            }
            ["status"] => {
                let of = |step| format!("{} {}", self.graph.id(step), self.state.status(step).word());
                let all: Vec<String> = self.graph.steps().map(of).collect();
                self.tell(&all.join(", "));
            }
            ["outputs", id] => {
                let outputs = self.state.outputs(self.step(id)).map(|outputs| Value::Object((**outputs).clone()));
                self.tell(&format!("outputs of {id}: {}", outputs.unwrap_or(Value::Null)));
            }
            ["rival", "takes", ref names @ ..] => {
                self.rival(LockEventKind::Granted { names: names.iter().map(|&name| name.to_owned()).collect() });
            }
            ["rival", "waits", "for", ref names @ ..] => {
                self.rival(LockEventKind::Requested { names: names.iter().map(|&name| name.to_owned()).collect() });
            }
            ["run", "loses", "its", "locks"] => {
                let kind = LockEventKind::Released { reason: Some("its owner is dead".to_owned()) };
                self.fold_lock(LockEvent { at: self.now, holder: self.state.holder(None), kind });
            }
            ["rival", "lets", "go"] => self.rival(LockEventKind::Released { reason: None }),
            [id, ref rest @ ..] => {
                let (step, mut attempt) = (self.step(id), self.state.attempt(self.step(id)));
                let rest = match rest {
                    [number, rest @ ..] if number.starts_with('#') => {
                        attempt = number[1..].parse().expect("an attempt's number");
                        rest
                    }
                    rest => rest,
                };
                let (cause, rest) = match rest {
                    ["ends", rest @ ..] => (ExitCause::Exit { code: 0 }, rest),
                    ["exits", code, rest @ ..] => (ExitCause::Exit { code: code.parse().expect("a code") }, rest),
                    ["dies", name] => {
                        let signal = if *name == "SIGKILL" { 9 } else { 15 };
                        (ExitCause::Signal { signal, name: (*name).to_owned(), core_dumped: false }, &[][..])
                    }
                    _ => panic!("the script says `{what}`, and nobody knows what that is"),
                };
                let outputs = rest.iter().map(|pair| pair.split_once('=').expect("key=value"));
                let outputs: Map<String, Value> =
                    outputs.map(|(key, value)| (key.to_owned(), Value::String(value.to_owned()))).collect();
                let end = Box::new(AttemptEnd { outputs, ..AttemptEnd::bare(cause) });
                self.input(Input::AttemptEnded { step, attempt, end, by_itself: false });
            }
            [] => unreachable!("empty lines are left out"),
        }
        self.settle();
    }

    fn step(&self, id: &str) -> StepIndex {
        self.graph.find(id).unwrap_or_else(|| panic!("the story's plan has no step `{id}`"))
    }

    fn rival(&mut self, kind: LockEventKind) {
        let event = LockEvent { at: self.now, holder: Holder { run: RIVAL, step: None }, kind };
        self.fold_lock(event);
    }

    fn input(&mut self, input: Input) {
        let mut events = Vec::new();
        match decide(&self.state, input, self.now, &mut events) {
            Ok(()) => self.fold(&events),
            Err(refusal) => self.tell(&format!("refused: {refusal}")),
        }
    }

    /// Does what an owner does until nothing follows.
    fn settle(&mut self) {
        if !self.owned {
            return;
        }
        for _ in 0..MOVES_LIMIT {
            self.release();
            let mut events = Vec::new();
            if self.state.next(self.now, &self.plan, &self.locks, &mut events) {
                self.fold(&events);
                continue;
            }
            match self.state.next_lock_move(self.now, &self.plan, &self.locks) {
                Some(LockMove::Grant { holder, names, events }) => {
                    self.fold_lock(LockEvent { at: self.now, holder, kind: LockEventKind::Granted { names } });
                    self.fold(&events);
                }
                Some(LockMove::Request { holder, names }) => {
                    self.fold_lock(LockEvent { at: self.now, holder, kind: LockEventKind::Requested { names } });
                }
                Some(LockMove::Fail(events)) => self.fold(&events),
                None => return,
            }
        }
        panic!("no end after {MOVES_LIMIT} moves:\n{}", self.told);
    }

    fn release(&mut self) {
        for holder in self.state.locks_to_release(&self.locks) {
            self.fold_lock(LockEvent { at: self.now, holder, kind: LockEventKind::Released { reason: None } });
        }
    }

    fn fold_lock(&mut self, event: LockEvent) {
        let holder = match &event.holder {
            Holder { run: RIVAL, .. } => "rival".to_owned(),
            Holder { step: Some(step), .. } => step.clone(),
            Holder { step: None, .. } => "run".to_owned(),
        };
        let what = match &event.kind {
            LockEventKind::Requested { names } => format!("waits for lock {}", names.join(" ")),
            LockEventKind::Granted { names } => format!("has lock {}", names.join(" ")),
            LockEventKind::Released { .. } => "lets its locks go".to_owned(),
        };
        self.tell(&format!("{holder} {what}"));
        self.locks.apply(&event);
    }

    fn fold(&mut self, events: &[EventKind]) {
        for kind in events {
            let line = self.render(kind);
            self.tell(&line);
            let event = Event { at: self.now, kind: kind.clone() };
            self.state.apply(&event);
            self.log.push(event);
        }
        let replayed = self.replay();
        assert_eq!(format!("{replayed:?}"), format!("{:?}", self.state), "the replay differs after:\n{}", self.told);
    }

    fn replay(&self) -> RunState {
        let mut state = RunState::new(RunId(1), self.graph.clone(), Time(0), &self.plan.created, BTreeMap::new());
        self.log.iter().for_each(|event| state.apply(event));
        state
    }

    fn render(&self, kind: &EventKind) -> String {
        let id = |step: &StepIndex| self.graph.id(*step).to_owned();
        let seconds = |time: &Time| format!("{}s", time.0 as f64 / 1000.0);
        let name = |step: &StepIndex, attempt: &u32| match attempt {
            0 => id(step),
            attempt => format!("{}#{attempt}", id(step)),
        };
        let good = |last: &bool| if *last { " for good" } else { "" };
        match kind {
            EventKind::RunCreated(_) => "run created".to_owned(),
            EventKind::RunStarted => "run started".to_owned(),
            EventKind::RunResumed { .. } => "run resumed".to_owned(),
            EventKind::RunStopping { reason, until, hurry } => {
                let how = match hurry {
                    true => "everything is killed".to_owned(),
                    false if *until == self.now => "everything is told to end".to_owned(),
                    false => format!("what runs may go on until {}", seconds(until)),
                };
                format!("run stops: {}; {how}", stop_reason(&self.state, reason))
            }
            EventKind::RunFinally { status, .. } => {
                format!("all else {}: what stands in finally may start", status.word())
            }
            EventKind::RunSlaPassed { due } => format!("the run should have been over at {}", seconds(due)),
            EventKind::RunCompleted { status, outputs } if outputs.is_empty() => format!("run {}", status.word()),
            EventKind::RunCompleted { status, outputs } => {
                format!("run {} with {}", status.word(), Value::Object(outputs.clone()))
            }
            EventKind::StepCondition { step } => format!("{}: its condition holds", id(step)),
            EventKind::StepStarted { step, attempt, invocation } => match invocation {
                Some(invocation) => format!("{} starts with {}", name(step, attempt), invocation.with),
                None => format!("{} starts", name(step, attempt)),
            },
            EventKind::StepStopping { step, attempt, reason, kill_at } => {
                let why = match reason {
                    AttemptStop::Timeout => "it timed out",
                    AttemptStop::Run => "the run stops",
                };
                match kill_at {
                    Some(due) => format!("{} told to end by {}: {why}", name(step, attempt), seconds(due)),
                    None => format!("{} killed: {why}", name(step, attempt)),
                }
            }
            EventKind::StepSucceeded { step, attempt, .. } => format!("{} succeeded", name(step, attempt)),
            EventKind::StepFailed { step, attempt, last, end } => {
                format!("{} failed{}: {}", name(step, attempt), good(last), end.cause)
            }
            EventKind::StepTimeout { step, attempt, last, end } => {
                format!("{} timed out{}: {}", name(step, attempt), good(last), end.cause)
            }
            EventKind::StepLost { step, attempt, last } => format!("{} lost{}", name(step, attempt), good(last)),
            EventKind::StepCanceled { step, attempt, end } => match end {
                Some(end) => format!("{} canceled: {}", name(step, attempt), end.cause),
                None => format!("{} canceled", name(step, attempt)),
            },
            EventKind::StepRetry { step, attempt, due } => format!("{} due at {}", name(step, attempt), seconds(due)),
            EventKind::StepSkipped { step, reason } => match reason {
                SkipReason::Condition => format!("{} skipped: its condition is false", id(step)),
                SkipReason::Dependency { step: other } => format!("{} skipped because of {}", id(step), id(other)),
                SkipReason::FallbackNotNeeded { step: other } => {
                    format!("{} skipped: {} does not need it", id(step), id(other))
                }
            },
        }
    }
}

fn blocker(blocker: &Blocker) -> String {
    let seconds = |time: &Time| format!("{}s", time.0 as f64 / 1000.0);
    match blocker {
        Blocker::Dependency { step, status, others } => {
            format!("needs {step} ({}) and {others} others", status.word())
        }
        Blocker::FallbackOf { step, status } => format!("fallback of {step} ({})", status.word()),
        Blocker::Lock { lock, holder, since } => match since {
            Some(since) => format!("lock {lock}: {holder} has it since {}", seconds(since)),
            None => format!("lock {lock}: {holder} came first"),
        },
        Blocker::Concurrency { limit, running } => format!("{limit} at once: {}", running.join(" ")),
        Blocker::Retry { attempt, due } => format!("attempt {attempt} due at {}", seconds(due)),
        Blocker::PlanLock { lock, holder } => format!("the plan's lock {lock}: {holder}"),
        Blocker::Stopping { reason } => format!("stopping: {reason}"),
        Blocker::Abandoned { run } => format!("run {run} is abandoned"),
        Blocker::Nothing => "nothing".to_owned(),
        Blocker::Running { attempt, since, stopping } => {
            format!("attempt {attempt} runs since {}{}", seconds(since), if *stopping { ", told to end" } else { "" })
        }
        Blocker::Settled { status, reason, because_of } => match (reason, because_of) {
            (Some(_), Some(step)) if *status == StepStatus::Skipped => format!("skipped because of {step}"),
            (Some(reason), _) => format!("{}: {reason}", status.word()),
            (None, _) => status.word().to_owned(),
        },
    }
}
