//! Benchmarks without processes, for `cargo xtask bench`: `in_process <row> <data folder>` prints one JSON object.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_actions::{Ended, HostEvent, Job, StartError, Stop};
use baton_core::decide::{Evaluate, Input, decide};
use baton_core::graph::{GraphBuilder, StepShape};
use baton_core::lock::LockTable;
use baton_core::{
    Attempt, AttemptEnd, Epoch, Event, EventKind, ExitCause, Graph, Invocation, Log, Millis, RunCreated, RunId,
    RunState, RunStatus, StepIndex, Time,
};
use baton_engine::{Drive, Engine, EngineError, Hands, Nobody, Submission};
use baton_lang::{Options, Source};
use baton_store::{
    Access, Append, Created, DataDir, Events, Group, MemoryKeeps, MemoryStore, NewRun, OwnerInfo, SqliteStore, Store,
};
use serde_json::{Map, Value, json};

/// The row `scheduling`: a large plan, in memory.
const SCHEDULING_STEPS: u32 = 1_000_000;
const SCHEDULING_DEPENDENCIES: u32 = 3;
/// A dependency lies at most so many steps back.
const SCHEDULING_REACH: u32 = 1_000;
/// The row `runs`.
const RUNS: u32 = 100;
const STEPS_PER_RUN: u32 = 100;
/// The row `chain`.
const CHAIN_STEPS: u32 = 1_000;
/// How many attempts may run at once.
const WIDTH: u32 = 8;

type Outcome = Result<Value, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (row, data) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let data = Path::new(&data);
    let outcome = match row.as_str() {
        "scheduling" => scheduling(),
        "runs" => durable(data, RUNS, STEPS_PER_RUN),
        "chain" => durable(data, 1, CHAIN_STEPS),
        other => Err(format!("there is no row `{other}`; there are `scheduling`, `runs` and `chain`").into()),
    };
    let (line, code) = match outcome {
        Ok(figures) => (figures.to_string(), ExitCode::SUCCESS),
        Err(error) => (format!("{{\"error\": {}}}", json!(error.to_string())), ExitCode::FAILURE),
    };
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Decides, keeps in memory and applies every event of a large plan whose steps end at once.
fn scheduling() -> Outcome {
    let before = peak_bytes()?;
    let graph = Arc::new(large_plan());
    let mut store = MemoryStore::new(MemoryKeeps::Ends);
    let owner = store.register(&OwnerInfo::current())?;
    let created = RunCreated::default();
    let new = NewRun { created: &created, plan_text: "", at: Time(0) };
    let Created::New { run } = store.create_run(&new, Some(owner))? else { return Err("the run is new".into()) };
    let mut state = RunState::new(run, graph.clone(), Time(0), &created, BTreeMap::new());
    let (locks, now) = (LockTable::default(), Time(1));
    let (mut kinds, mut batch, mut in_flight) = (Vec::new(), Vec::<Event>::new(), Vec::new());
    let start = Instant::now();
    while state.result() != Some(RunStatus::Succeeded) {
        while state.next(now, &NothingToEvaluate, &locks, &mut kinds) {
            for kind in kinds.drain(..) {
                if let EventKind::StepStarted { step, attempt, .. } = kind {
                    in_flight.push((step, attempt));
                }
                let event = Event { at: now, kind };
                state.apply(&event);
                batch.push(event);
            }
        }
        let append =
            Append { log: Log::Run(run), epoch: owner, expected_seq: None, events: Events::Run(&batch, &graph) };
        store.append(&[Group { appends: vec![append], answered: Vec::new() }])?;
        batch.clear();
        for (step, attempt) in in_flight.drain(..) {
            let end = Box::new(AttemptEnd::bare(ExitCause::Exit { code: 0 }));
            decide(&state, Input::AttemptEnded { step, attempt, end, by_itself: false }, now, &mut kinds)?;
        }
        for kind in kinds.drain(..) {
            let event = Event { at: now, kind };
            state.apply(&event);
            batch.push(event);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let bytes = peak_bytes()? - before;
    Ok(json!({
        "steps_per_second": f64::from(SCHEDULING_STEPS) / seconds,
        "bytes_per_step": bytes / f64::from(SCHEDULING_STEPS),
    }))
}

struct NothingToEvaluate;

impl Evaluate for NothingToEvaluate {
    fn condition(&self, _: &RunState, _: StepIndex) -> Result<bool, String> {
        Ok(true)
    }

    fn invocation(&self, _: &RunState, _: StepIndex) -> Result<Option<Box<Invocation>>, String> {
        Ok(None)
    }

    fn outputs(&self, _: &RunState) -> Result<serde_json::Map<String, serde_json::Value>, String> {
        Ok(serde_json::Map::new())
    }
}

fn large_plan() -> Graph {
    let mut builder = GraphBuilder::with_capacity(SCHEDULING_STEPS as usize);
    builder.max_concurrency = WIDTH;
    let mut random = 1u64;
    for step in 0..SCHEDULING_STEPS {
        let mut shape = StepShape::default();
        for _ in 0..SCHEDULING_DEPENDENCIES.min(step) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let back = 1 + (random >> 33) as u32 % SCHEDULING_REACH.min(step);
            shape.depends_on.push(StepIndex(step - back));
        }
        builder.add(&format!("s{step}"), shape);
    }
    builder.build()
}

/// Drives chains of steps that do nothing, through the whole engine and the store on disk.
fn durable(data: &Path, runs: u32, steps: u32) -> Outcome {
    let mut store = SqliteStore::open(&DataDir::at(data.join("store")), Access::Write)?;
    let owner = store.register(&OwnerInfo::current())?;
    let name = store.id().to_owned();
    let mut engine = Engine::new(store, NoHands::default(), owner, name)?;
    let submitted: Result<Vec<RunId>, EngineError> =
        (0..runs).map(|_| Ok(engine.submit(chain(steps, data))?.run)).collect();
    let submitted = submitted?;
    let start = Instant::now();
    if engine.drive(&mut Nobody)? != Drive::Done {
        return Err("a signal came".into());
    }
    let seconds = start.elapsed().as_secs_f64();
    if let Some(run) = submitted.iter().find(|run| engine.result(**run) != Some(RunStatus::Succeeded)) {
        return Err(format!("run {run} did not succeed").into());
    }
    Ok(json!({ "steps_per_second": f64::from(runs * steps) / seconds }))
}

fn chain(steps: u32, folder: &Path) -> Submission {
    let mut text = String::from("{\"plan_id\": \"chain\", \"version\": \"1\", \"steps\": [");
    for step in 0..steps {
        let separator = if step == 0 { "" } else { ", " };
        let _ = write!(text, "{separator}{{\"id\": \"s{step}\", \"command\": \"true\"");
        if let Some(before) = step.checked_sub(1) {
            let _ = write!(text, ", \"depends_on\": [\"s{before}\"]");
        }
        text.push('}');
    }
    text.push_str("]}");
    let source = Source::new("plan.json", text);
    let loaded = baton_lang::load(&source, &baton_engine::known_actions(), &Options::default());
    let compiled = loaded.compiled.expect("the plan written above is right");
    let created = RunCreated {
        plan_id: compiled.plan_id().to_owned(),
        plan_sha256: baton_store::sha256_hex(source.text.as_bytes()),
        plan_path: "plan.json".to_owned(),
        cwd: folder.display().to_string(),
        ..RunCreated::default()
    };
    Submission { source, compiled, created }
}

/// Hands whose attempts succeed as soon as anybody looks.
#[derive(Default)]
struct NoHands {
    in_flight: Vec<Attempt>,
    self_exe: PathBuf,
}

impl Hands for NoHands {
    fn start(&mut self, key: Attempt, _: Job) -> Result<(), StartError> {
        self.in_flight.push(key);
        Ok(())
    }

    fn stop(&mut self, _: Attempt, _: Stop) {}

    fn has_survivors(&self, _: &str, _: &baton_engine::Stays) -> bool {
        false
    }

    fn watch_death(&mut self, _: Epoch) {}

    fn end_left(&mut self, _: baton_engine::Left) {}

    fn release(&mut self, _: &str) {}

    fn wait(&mut self, _: Option<Duration>, events: &mut Vec<HostEvent>) -> Result<(), EngineError> {
        events.extend(self.in_flight.drain(..).map(|key| {
            let end = Ended {
                cause: ExitCause::Exit { code: 0 },
                by_itself: true,
                duration: Millis(0),
                outputs: Map::new(),
                folder: PathBuf::new(),
                artifacts: Vec::new(),
                leftovers: Vec::new(),
            };
            HostEvent::Ended { key, end: Box::new(end) }
        }));
        Ok(())
    }

    fn self_exe(&self) -> &Path {
        &self.self_exe
    }
}

/// The most that the process has held in memory so far.
fn peak_bytes() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}
