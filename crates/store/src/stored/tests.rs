//! Every event there and back, and the sample of format 1 that must be readable for ever.

use baton_core::graph::StepShape;
use baton_core::{GraphBuilder, Log};
use serde_json::json;

use super::*;
use crate::chain::{self, Row};

/// Never changed: the committed sample was written from it.
fn graph_of_sample() -> Graph {
    let mut builder = GraphBuilder::with_capacity(2);
    builder.add("fetch", StepShape::default());
    builder.add("größe \"2\"", StepShape::default());
    builder.build()
}

const RUN: u64 = 7;
const A: StepIndex = StepIndex(0);
const B: StepIndex = StepIndex(1);

fn full_end(cause: ExitCause, output: Output) -> Box<AttemptEnd> {
    let outputs = json!({"count": 3, "list": ["a", null], "text": "ä"});
    Box::new(AttemptEnd {
        cause,
        duration: Millis(1234),
        output,
        outputs: outputs.as_object().cloned().unwrap_or_default(),
        artifacts: vec![Artifact { path: "out/report.html".into(), bytes: 12, sha256: "ab".repeat(32) }],
        leftovers: vec!["4711 sleep".into()],
    })
}

/// A sample that is kept for ever, and what it was written from. What format 1 learned later has a sample of its own.
struct Sample {
    file: &'static str,
    events: fn() -> Vec<Event>,
    locks: fn() -> Vec<LockEvent>,
}

const SAMPLES: &[Sample] = &[
    Sample { file: "log_v1.jsonl", events: first_events, locks: first_locks },
    Sample { file: "log_v1_finally.jsonl", events: events_with_finally, locks: Vec::new },
];

/// Every kind of event that format 1 began with, with every variant of its parts. Never changed.
fn first_events() -> Vec<Event> {
    let created = RunCreated {
        plan_id: "demo".into(),
        plan_sha256: "cd".repeat(32),
        plan_path: "/plans/demo.yaml".into(),
        cwd: "/work".into(),
        vars: [("BRANCH".into(), "main".into())].into(),
        inputs: Map::new(),
        labels: [("thread".into(), "42".into())].into(),
        idempotency_key: Some("nightly".into()),
        max_concurrency: Some(8),
        retry_of: Some(RunId(3)),
        kept: vec![(0, 4), (6, 6)],
        outputs_from: Some(RunId(3)),
        slice: json!({"from": ["fetch"]}),
        submitted_by: "ada".into(),
    };
    let invocation = Invocation {
        uses: "process".into(),
        with: json!({"args": ["a b"], "command": "echo", "shell": false}),
        cwd: ".".into(),
        env: [("X".into(), "1".into())].into(),
    };
    let segment = Output::Segment { start: 36, end: 9000, bytes: 8000, cut_bytes: 100 };
    let signal = |core_dumped| ExitCause::Signal { signal: 11, name: "SIGSEGV".into(), core_dumped };
    let error = || "cannot start `nothing`: not found".to_owned();
    let failed =
        |attempt, last, cause| EventKind::StepFailed { step: B, attempt, last, end: full_end(cause, Output::None) };
    let kinds = vec![
        EventKind::RunCreated(Box::new(created)),
        EventKind::RunStarted,
        EventKind::RunResumed { epoch: Epoch(12) },
        EventKind::RunStopping { reason: StopReason::Abort { step: A }, until: Time(99), hurry: false },
        EventKind::RunStopping { reason: StopReason::Cancel { by: "ada".into() }, until: Time(99), hurry: true },
        EventKind::RunStopping { reason: StopReason::Timeout, until: Time(99), hurry: false },
        EventKind::RunStopping {
            reason: StopReason::LockWait { lock: "merge".into(), holder: "run 3".into() },
            until: Time(99),
            hurry: false,
        },
        EventKind::StepCondition { step: A },
        EventKind::StepStarted { step: A, attempt: 1, invocation: None },
        EventKind::StepStarted { step: B, attempt: 2, invocation: Some(Box::new(invocation)) },
        EventKind::StepStopping { step: A, attempt: 1, reason: AttemptStop::Timeout, kill_at: Some(Time(5)) },
        EventKind::StepStopping { step: A, attempt: 1, reason: AttemptStop::Run, kill_at: None },
        EventKind::StepSucceeded { step: A, attempt: 1, end: Box::new(AttemptEnd::bare(ExitCause::Exit { code: 0 })) },
        EventKind::StepSucceeded {
            step: B,
            attempt: 2,
            end: full_end(ExitCause::Exit { code: 3 }, Output::Inline("zwölf\n\u{1b}[0m\\".into())),
        },
        failed(1, false, signal(true)),
        failed(1, false, signal(false)),
        failed(1, false, ExitCause::OutOfMemory),
        failed(1, true, ExitCause::NotStarted { error: error() }),
        failed(0, true, ExitCause::Expression { error: error() }),
        failed(2, true, ExitCause::BadResult { error: error() }),
        failed(2, true, ExitCause::Lost),
        EventKind::StepTimeout { step: A, attempt: 1, last: true, end: full_end(signal(false), segment) },
        EventKind::StepTimeout {
            step: A,
            attempt: 1,
            last: false,
            end: full_end(signal(false), Output::Inline(vec![0xff, 0, b'a'])),
        },
        EventKind::StepLost { step: A, attempt: 1, last: false },
        EventKind::StepCanceled { step: A, attempt: 0, end: None },
        EventKind::StepCanceled {
            step: A,
            attempt: 1,
            end: Some(full_end(signal(false), Output::Inline(b"a\0b".into()))),
        },
        EventKind::StepRetry { step: A, attempt: 2, due: Time(-5) },
        EventKind::StepSkipped { step: A, reason: SkipReason::Condition },
        EventKind::StepSkipped { step: A, reason: SkipReason::Dependency { step: B } },
        EventKind::StepSkipped { step: A, reason: SkipReason::FallbackNotNeeded { step: B } },
        EventKind::RunCompleted { status: RunStatus::Succeeded, outputs: Map::new() },
        EventKind::RunCompleted { status: RunStatus::Failed, outputs: Map::new() },
        EventKind::RunCompleted { status: RunStatus::Canceled, outputs: Map::new() },
    ];
    (1000..).zip(kinds).map(|(at, kind)| Event { at: Time(at), kind }).collect()
}

/// What came with inputs, outputs of plans, `finally` and `sla`. Never changed.
fn events_with_finally() -> Vec<Event> {
    let outputs =
        || -> Map<String, Value> { [("url".to_owned(), json!([1.5, {"port": 80}, null]))].into_iter().collect() };
    let inputs = [("count".to_owned(), json!(3)), ("names".to_owned(), json!(["a"]))].into_iter().collect();
    let kinds = vec![
        EventKind::RunCreated(Box::new(RunCreated { inputs, ..RunCreated::default() })),
        EventKind::RunStopping {
            reason: StopReason::Outputs { error: "`url`: no such key".into() },
            until: Time(99),
            hurry: false,
        },
        EventKind::RunFinally { status: RunStatus::Canceled, outputs: Map::new() },
        EventKind::RunFinally { status: RunStatus::Succeeded, outputs: outputs() },
        EventKind::RunSlaPassed { due: Time(500) },
        EventKind::RunCompleted { status: RunStatus::Succeeded, outputs: outputs() },
    ];
    (1000..).zip(kinds).map(|(at, kind)| Event { at: Time(at), kind }).collect()
}

fn first_locks() -> Vec<LockEvent> {
    let names = vec!["merge_main".to_owned(), "port \"80\"".to_owned()];
    let kinds = [
        (None, LockEventKind::Requested { names: names.clone() }),
        (Some("fetch".to_owned()), LockEventKind::Granted { names }),
        (Some("fetch".to_owned()), LockEventKind::Released { reason: None }),
        (None, LockEventKind::Released { reason: Some("its owner died".to_owned()) }),
    ];
    let event = |(at, (step, kind))| LockEvent { at: Time(at), holder: Holder { run: RunId(RUN), step }, kind };
    (2000..).zip(kinds).map(event).collect()
}

#[derive(Serialize, Deserialize)]
struct SampleLine {
    log: u64,
    seq: u64,
    at: i64,
    kind: String,
    step: Option<String>,
    attempt: Option<u32>,
    payload: String,
    hash: String,
}

fn lines(sample: &Sample) -> Vec<SampleLine> {
    let graph = graph_of_sample();
    let mut lines: Vec<SampleLine> = Vec::new();
    let mut previous = chain::START;
    let mut push = |log: Log, at: Time, columns: Columns<'_>, payload: Vec<u8>| {
        let log = crate::sqlite::log_key(log);
        let seq = lines.iter().filter(|line| line.log == log).count() as u64 + 1;
        let Columns { kind, step, attempt } = columns;
        if seq == 1 {
            previous = chain::START;
        }
        let row = Row { log, seq, at: at.0, kind, step, attempt, payload: &payload };
        previous = chain::link(&previous, &row, &mut Vec::new());
        lines.push(SampleLine {
            log,
            seq,
            at: at.0,
            kind: kind.to_owned(),
            step: step.map(str::to_owned),
            attempt,
            payload: String::from_utf8(payload).unwrap(),
            hash: chain::hex(&previous),
        });
    };
    for event in &(sample.events)() {
        let mut payload = Vec::new();
        let columns = encode(event, &graph, &mut payload);
        push(Log::Run(RunId(RUN)), event.at, columns, payload);
    }
    for event in &(sample.locks)() {
        let mut payload = Vec::new();
        let columns = encode_lock(event, &mut payload);
        push(Log::Shared, event.at, columns, payload);
    }
    lines
}

fn sample_path(sample: &Sample) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(sample.file)
}

#[test]
fn the_samples_of_format_1_are_read_as_what_they_were_written_from() {
    SAMPLES.iter().for_each(read_sample);
}

fn read_sample(sample: &Sample) {
    let graph = graph_of_sample();
    let (mut events, mut locks) = (Vec::new(), Vec::new());
    let mut previous = chain::START;
    for line in std::fs::read_to_string(sample_path(sample)).unwrap().lines() {
        let line: SampleLine = serde_json::from_str(line).unwrap();
        let stored = StoredColumns {
            at: line.at,
            kind: &line.kind,
            step: line.step.as_deref(),
            attempt: line.attempt,
            payload: line.payload.as_bytes(),
        };
        let StoredColumns { at, kind, step, attempt, payload } = stored;
        if line.seq == 1 {
            previous = chain::START;
        }
        previous = chain::link(
            &previous,
            &Row { log: line.log, seq: line.seq, at, kind, step, attempt, payload },
            &mut vec![],
        );
        assert_eq!(chain::hex(&previous), line.hash, "the hash of {} {}", line.log, line.seq);
        match line.log {
            0 => locks.push(decode_lock(&stored).unwrap()),
            _ => events.push(decode(&stored, &graph).unwrap()),
        }
    }
    assert_eq!(events, (sample.events)());
    assert_eq!(locks, (sample.locks)());
}

#[test]
fn every_event_is_still_written_byte_for_byte_as_in_the_samples() {
    for kept in SAMPLES {
        let text = std::fs::read_to_string(sample_path(kept)).unwrap();
        let found: Vec<String> = lines(kept).iter().map(|line| serde_json::to_string(line).unwrap()).collect();
        assert_eq!(found, text.lines().collect::<Vec<_>>(), "{}", kept.file);
    }
}

#[test]
fn an_ordinary_payload_is_short_and_readable() {
    let graph = graph_of_sample();
    let mut end = AttemptEnd::bare(ExitCause::Exit { code: 3 });
    end.output = Output::Inline(b"no such file\n".into());
    end.duration = Millis(12);
    let kind = EventKind::StepFailed { step: A, attempt: 1, last: true, end: Box::new(end) };
    let event = Event { at: Time(0), kind };
    let mut payload = Vec::new();
    let columns = encode(&event, &graph, &mut payload);
    assert_eq!(columns, Columns { kind: "step_failed", step: Some("fetch"), attempt: Some(1) });
    let expected = r#"{"last":true,"cause":"exit","code":3,"duration_ms":12,"output":"no such file\n"}"#;
    assert_eq!(String::from_utf8(payload).unwrap(), expected);
}

#[test]
fn what_cannot_be_read_says_what_is_wrong_with_it() {
    let graph = graph_of_sample();
    let problem = |kind: &str, step: Option<&str>, payload: &str| {
        let stored = StoredColumns { at: 0, kind, step, attempt: Some(1), payload: payload.as_bytes() };
        decode(&stored, &graph).unwrap_err()
    };
    assert_eq!(problem("step_jumped", None, "{}"), "`step_jumped` is no event of a run");
    assert_eq!(problem("step_started", Some("gone"), "{}"), "step `gone` is not in the run's plan");
    assert_eq!(problem("step_started", None, "{}"), "step_started names no step");
    assert!(problem("step_lost", Some("fetch"), "{}").contains("missing field `last`"));
    let both = r#"{"last":true,"cause":"lost","duration_ms":1,"output":"a","output_base64":"YQ=="}"#;
    assert_eq!(problem("step_failed", Some("fetch"), both), "it has output in more than one form");
}

/// Run by hand, once for each new format: `cargo test -p baton-store write_the_sample -- --ignored`.
#[test]
#[ignore = "store: a sample is written once and never again"]
fn write_the_sample() {
    for sample in SAMPLES {
        let path = sample_path(sample);
        if path.exists() {
            // It never changes.
            continue;
        }
        let lines: Vec<String> = lines(sample).iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
        std::fs::write(path, lines.concat()).unwrap();
    }
}
