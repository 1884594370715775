//! The stored form of events: versioned mirrors of the core's types, and the conversions in both directions.
//!
//! Format 1 is here. A log keeps the format it was begun with, because its hash chain covers the very bytes; so
//! these conversions stay as long as anybody may have such a log, and `tests/samples/log_v1.jsonl` is read for ever.
//! What can be left out is left out, so that a payload is short and readable: `{"last":true,"cause":"exit","code":3}`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use baton_core::action::Artifact;
use baton_core::event::{AttemptStop, SkipReason, StopReason};
use baton_core::lock::{Holder, LockEvent, LockEventKind};
use baton_core::{
    AttemptEnd, Epoch, Event, EventKind, ExitCause, Graph, Invocation, Millis, Output, RunCreated, RunId, RunStatus,
    StepIndex, Time,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Command;

/// The format in which new logs are written.
pub const FORMAT: u32 = 1;

/// The columns of an event beside its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Columns<'a> {
    /// The event's name.
    pub kind: &'static str,
    /// The step's path.
    pub step: Option<&'a str>,
    /// The attempt.
    pub attempt: Option<u32>,
}

/// A stored event as it is read.
#[derive(Clone, Copy, Debug)]
pub struct StoredColumns<'a> {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// The event's name.
    pub kind: &'a str,
    /// The step's path.
    pub step: Option<&'a str>,
    /// The attempt.
    pub attempt: Option<u32>,
    /// The payload's JSON text.
    pub payload: &'a [u8],
}

/// Appends the payload of `event` to `payload` and answers with its other columns.
pub fn encode<'a>(event: &'a Event, graph: &'a Graph, payload: &mut Vec<u8>) -> Columns<'a> {
    let name = |step: StepIndex| graph.id(step);
    match &event.kind {
        EventKind::RunCreated(created) => write(payload, &RunCreatedV1::from(&**created)),
        EventKind::RunStarted | EventKind::StepCondition { .. } => payload.extend_from_slice(b"{}"),
        EventKind::RunResumed { epoch } => write(payload, &ResumedV1 { epoch: epoch.0 }),
        EventKind::RunStopping { reason, until, hurry } => {
            let mut stored = StoppingV1 { until: until.0, hurry: *hurry, ..StoppingV1::default() };
            stored.reason = Cow::Borrowed(match reason {
                StopReason::Abort { step } => {
                    stored.failed_step = Some(name(*step).into());
                    "abort"
                }
                StopReason::Cancel { by } => {
                    stored.by = Some(by.into());
                    "cancel"
                }
                StopReason::Timeout => "timeout",
                StopReason::Outputs { error } => {
                    stored.error = Some(error.into());
                    "outputs"
                }
                StopReason::LockWait { lock, holder } => {
                    stored.lock = Some(lock.into());
                    stored.holder = Some(holder.into());
                    "lock_wait"
                }
            });
            write(payload, &stored);
        }
        EventKind::RunSlaPassed { due } => write(payload, &SlaPassedV1 { due: due.0 }),
        EventKind::RunFinally { status, outputs } | EventKind::RunCompleted { status, outputs } => {
            write(payload, &FinishedV1 { status: status_name(*status).into(), outputs: Cow::Borrowed(outputs) });
        }
        EventKind::StepStarted { invocation: None, .. } => payload.extend_from_slice(b"{}"),
        EventKind::StepStarted { invocation: Some(invocation), .. } => {
            write(payload, &StartedV1 { invocation: Some(InvocationV1::from(&**invocation)) });
        }
        EventKind::StepStopping { reason, kill_at, .. } => {
            let reason = match reason {
                AttemptStop::Timeout => "timeout",
                AttemptStop::Run => "run",
            };
            write(payload, &StepStoppingV1 { reason: reason.into(), kill_at: kill_at.map(|time| time.0) });
        }
        EventKind::StepSucceeded { end, .. } => write(payload, &EndV1::new(None, end)),
        EventKind::StepFailed { last, end, .. } | EventKind::StepTimeout { last, end, .. } => {
            write(payload, &EndV1::new(Some(*last), end));
        }
        EventKind::StepLost { last, .. } => write(payload, &LostV1 { last: *last }),
        EventKind::StepCanceled { end: Some(end), .. } => write(payload, &EndV1::new(None, end)),
        EventKind::StepCanceled { end: None, .. } => payload.extend_from_slice(b"{}"),
        EventKind::StepRetry { due, .. } => write(payload, &RetryV1 { due: due.0 }),
        EventKind::StepSkipped { reason, .. } => {
            let (reason, because_of) = match reason {
                SkipReason::Condition => ("condition", None),
                SkipReason::Dependency { step } => ("dependency", Some(name(*step).into())),
                SkipReason::FallbackNotNeeded { step } => ("fallback_not_needed", Some(name(*step).into())),
            };
            write(payload, &SkippedV1 { reason: reason.into(), because_of });
        }
    }
    let step = event.kind.step();
    Columns {
        kind: event.kind.name(),
        step: step.map(|(step, _)| name(step)),
        attempt: step.and_then(|(_, attempt)| (attempt != 0).then_some(attempt)),
    }
}

/// Appends the payload of the first event of a run.
pub fn encode_created(created: &RunCreated, payload: &mut Vec<u8>) -> Columns<'static> {
    write(payload, &RunCreatedV1::from(created));
    Columns { kind: "run_created", step: None, attempt: None }
}

/// The event that was stored, or what is wrong with it.
pub fn decode(stored: &StoredColumns<'_>, graph: &Graph) -> Result<Event, String> {
    let find = |id: &str| graph.find(id).ok_or_else(|| format!("step `{id}` is not in the run's plan"));
    let step = || stored.step.ok_or_else(|| format!("{} names no step", stored.kind)).and_then(find);
    let attempt = stored.attempt.unwrap_or(0);
    let payload = stored.payload;
    let end = |last: Option<bool>, end: EndV1<'_>| -> Result<_, String> {
        Ok((end.last.or(last).ok_or("`last` is missing")?, Box::new(end.into_end()?)))
    };
    let kind = match stored.kind {
        "run_created" => EventKind::RunCreated(Box::new(decode_created(payload)?)),
        "run_started" => EventKind::RunStarted,
        "run_resumed" => EventKind::RunResumed { epoch: Epoch(read::<ResumedV1>(payload)?.epoch) },
        "run_stopping" => {
            let stopping: StoppingV1<'_> = read(payload)?;
            let reason = match &*stopping.reason {
                "abort" => StopReason::Abort { step: find(&stopping.failed_step.ok_or("`failed_step` is missing")?)? },
                "cancel" => StopReason::Cancel { by: stopping.by.ok_or("`by` is missing")?.into_owned() },
                "timeout" => StopReason::Timeout,
                "outputs" => StopReason::Outputs { error: stopping.error.ok_or("`error` is missing")?.into_owned() },
                "lock_wait" => StopReason::LockWait {
                    lock: stopping.lock.ok_or("`lock` is missing")?.into_owned(),
                    holder: stopping.holder.ok_or("`holder` is missing")?.into_owned(),
                },
                other => return Err(format!("`{other}` is no reason to stop")),
            };
            EventKind::RunStopping { reason, until: Time(stopping.until), hurry: stopping.hurry }
        }
        "run_sla_passed" => EventKind::RunSlaPassed { due: Time(read::<SlaPassedV1>(payload)?.due) },
        "run_finally" => {
            let finished: FinishedV1<'_> = read(payload)?;
            EventKind::RunFinally { status: parse_status(&finished.status)?, outputs: finished.outputs.into_owned() }
        }
        "run_completed" => {
            let finished: FinishedV1<'_> = read(payload)?;
            EventKind::RunCompleted { status: parse_status(&finished.status)?, outputs: finished.outputs.into_owned() }
        }
        "step_condition" => EventKind::StepCondition { step: step()? },
        "step_started" => EventKind::StepStarted {
            step: step()?,
            attempt,
            invocation: read::<StartedV1<'_>>(payload)?.invocation.map(|it| Box::new(it.into())),
        },
        "step_stopping" => {
            let stopping: StepStoppingV1<'_> = read(payload)?;
            let reason = match &*stopping.reason {
                "timeout" => AttemptStop::Timeout,
                "run" => AttemptStop::Run,
                other => return Err(format!("`{other}` is no reason to stop a step")),
            };
            EventKind::StepStopping { step: step()?, attempt, reason, kill_at: stopping.kill_at.map(Time) }
        }
        "step_succeeded" => {
            EventKind::StepSucceeded { step: step()?, attempt, end: end(Some(true), read(payload)?)?.1 }
        }
        "step_failed" => {
            let (last, end) = end(None, read(payload)?)?;
            EventKind::StepFailed { step: step()?, attempt, last, end }
        }
        "step_timeout" => {
            let (last, end) = end(None, read(payload)?)?;
            EventKind::StepTimeout { step: step()?, attempt, last, end }
        }
        "step_lost" => EventKind::StepLost { step: step()?, attempt, last: read::<LostV1>(payload)?.last },
        "step_canceled" => {
            let end = if payload == b"{}" { None } else { Some(end(Some(true), read(payload)?)?.1) };
            EventKind::StepCanceled { step: step()?, attempt, end }
        }
        "step_retry" => EventKind::StepRetry { step: step()?, attempt, due: Time(read::<RetryV1>(payload)?.due) },
        "step_skipped" => {
            let skipped: SkippedV1<'_> = read(payload)?;
            let other = || skipped.because_of.as_deref().ok_or_else(|| "`because_of` is missing".to_owned());
            let reason = match &*skipped.reason {
                "condition" => SkipReason::Condition,
                "dependency" => SkipReason::Dependency { step: find(other()?)? },
                "fallback_not_needed" => SkipReason::FallbackNotNeeded { step: find(other()?)? },
                other => return Err(format!("`{other}` is no reason to skip")),
            };
            EventKind::StepSkipped { step: step()?, reason }
        }
        other => return Err(format!("`{other}` is no event of a run")),
    };
    Ok(Event { at: Time(stored.at), kind })
}

/// What the payload of `run_created` says.
pub fn decode_created(payload: &[u8]) -> Result<RunCreated, String> {
    Ok(read::<RunCreatedV1<'_>>(payload)?.into())
}

/// Appends the payload of a lock event and answers with its other columns.
pub fn encode_lock<'a>(event: &'a LockEvent, payload: &mut Vec<u8>) -> Columns<'a> {
    let (names, reason) = match &event.kind {
        LockEventKind::Requested { names } | LockEventKind::Granted { names } => (Cow::Borrowed(&names[..]), None),
        LockEventKind::Released { reason } => (Cow::Borrowed(&[][..]), reason.as_deref().map(Cow::Borrowed)),
    };
    write(payload, &LockV1 { run: event.holder.run.0, names, reason });
    Columns { kind: event.kind.name(), step: event.holder.step.as_deref(), attempt: None }
}

/// The lock event that was stored, or what is wrong with it.
pub fn decode_lock(stored: &StoredColumns<'_>) -> Result<LockEvent, String> {
    let lock: LockV1<'_> = read(stored.payload)?;
    let kind = match stored.kind {
        "lock_requested" => LockEventKind::Requested { names: lock.names.into_owned() },
        "lock_granted" => LockEventKind::Granted { names: lock.names.into_owned() },
        "lock_released" => LockEventKind::Released { reason: lock.reason.map(Cow::into_owned) },
        other => return Err(format!("`{other}` is no event of the locks")),
    };
    let holder = Holder { run: RunId(lock.run), step: stored.step.map(str::to_owned) };
    Ok(LockEvent { at: Time(stored.at), holder, kind })
}

/// The name and the payload of a command.
pub(crate) fn encode_command(command: &Command) -> (&'static str, String) {
    match command {
        Command::Cancel { by, hurry } => {
            let mut payload = Vec::new();
            write(&mut payload, &CancelV1 { by: by.into(), hurry: *hurry });
            ("cancel", String::from_utf8(payload).expect("JSON is UTF-8"))
        }
    }
}

/// The command that was stored, or what is wrong with it.
pub(crate) fn decode_command(kind: &str, payload: &str) -> Result<Command, String> {
    match kind {
        "cancel" => {
            let cancel: CancelV1<'_> = read(payload.as_bytes())?;
            Ok(Command::Cancel { by: cancel.by.into_owned(), hurry: cancel.hurry })
        }
        other => Err(format!("`{other}` is no command that this Baton knows")),
    }
}

/// The word for a run's result.
pub(crate) fn status_name(status: RunStatus) -> &'static str {
    crate::RunPhase::Ended(status).name()
}

fn parse_status(name: &str) -> Result<RunStatus, String> {
    match crate::RunPhase::parse(name) {
        Some(crate::RunPhase::Ended(status)) => Ok(status),
        _ => Err(format!("`{name}` is no result of a run")),
    }
}

fn write<T: Serialize>(payload: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(payload, value).expect("our mirrors have text keys and memory does not refuse bytes");
}

fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| format!("its payload cannot be read: {error}"))
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

#[derive(Serialize, Deserialize)]
struct ResumedV1 {
    epoch: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct StoppingV1<'a> {
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    failed_step: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    by: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    lock: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    holder: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
    until: i64,
    #[serde(default, skip_serializing_if = "is_false")]
    hurry: bool,
}

#[derive(Serialize, Deserialize)]
struct SlaPassedV1 {
    due: i64,
}

#[derive(Serialize, Deserialize)]
struct FinishedV1<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    outputs: Cow<'a, Map<String, Value>>,
}

#[derive(Serialize, Deserialize)]
struct StartedV1<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    invocation: Option<InvocationV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct InvocationV1<'a> {
    #[serde(borrow)]
    uses: Cow<'a, str>,
    with: Cow<'a, Value>,
    #[serde(borrow)]
    cwd: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: Cow<'a, BTreeMap<String, String>>,
}

impl<'a> From<&'a Invocation> for InvocationV1<'a> {
    fn from(invocation: &'a Invocation) -> Self {
        let Invocation { uses, with, cwd, env } = invocation;
        Self { uses: uses.into(), with: Cow::Borrowed(with), cwd: cwd.into(), env: Cow::Borrowed(env) }
    }
}

impl From<InvocationV1<'_>> for Invocation {
    fn from(stored: InvocationV1<'_>) -> Self {
        let InvocationV1 { uses, with, cwd, env } = stored;
        Self { uses: uses.into_owned(), with: with.into_owned(), cwd: cwd.into_owned(), env: env.into_owned() }
    }
}

#[derive(Serialize, Deserialize)]
struct StepStoppingV1<'a> {
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kill_at: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct LostV1 {
    last: bool,
}

#[derive(Serialize, Deserialize)]
struct RetryV1 {
    due: i64,
}

#[derive(Serialize, Deserialize)]
struct SkippedV1<'a> {
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    because_of: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct LockV1<'a> {
    run: u64,
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    names: Cow<'a, [String]>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct CancelV1<'a> {
    #[serde(borrow)]
    by: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_false")]
    hurry: bool,
}

#[derive(Serialize, Deserialize)]
struct SegmentV1 {
    start: u64,
    end: u64,
    bytes: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    cut_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct ArtifactV1<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    bytes: u64,
    #[serde(borrow)]
    sha256: Cow<'a, str>,
}

/// The end of an attempt, flat: which fields stand beside `cause` depends on it.
#[derive(Serialize, Deserialize)]
struct EndV1<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<bool>,
    #[serde(borrow)]
    cause: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    signal_name: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    core_dumped: bool,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
    duration_ms: u64,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    output: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    output_base64: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_segment: Option<SegmentV1>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    outputs: Cow<'a, Map<String, Value>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    artifacts: Vec<ArtifactV1<'a>>,
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    leftovers: Cow<'a, [String]>,
}

impl<'a> EndV1<'a> {
    fn new(last: Option<bool>, end: &'a AttemptEnd) -> Self {
        let mut stored = Self {
            last,
            cause: Cow::Borrowed(""),
            code: None,
            signal: None,
            signal_name: None,
            core_dumped: false,
            error: None,
            duration_ms: end.duration.0,
            output: None,
            output_base64: None,
            output_segment: None,
            outputs: Cow::Borrowed(&end.outputs),
            artifacts: Vec::new(),
            leftovers: Cow::Borrowed(&end.leftovers),
        };
        stored.cause = Cow::Borrowed(match &end.cause {
            ExitCause::Exit { code } => {
                stored.code = Some(*code);
                "exit"
            }
            ExitCause::Signal { signal, name, core_dumped } => {
                stored.signal = Some(*signal);
                stored.signal_name = Some(name.into());
                stored.core_dumped = *core_dumped;
                "signal"
            }
            ExitCause::OutOfMemory => "out_of_memory",
            ExitCause::NotStarted { error } => {
                stored.error = Some(error.into());
                "not_started"
            }
            ExitCause::Expression { error } => {
                stored.error = Some(error.into());
                "expression"
            }
            ExitCause::BadResult { error } => {
                stored.error = Some(error.into());
                "bad_result"
            }
            ExitCause::Lost => "lost",
        });
        match &end.output {
            Output::None => {}
            Output::Inline(bytes) => match std::str::from_utf8(bytes) {
                // A NUL would end the text for SQL's string functions.
                Ok(text) if !bytes.contains(&0) => stored.output = Some(text.into()),
                _ => stored.output_base64 = Some(BASE64_STANDARD.encode(bytes).into()),
            },
            Output::Segment { start, end, bytes, cut_bytes } => {
                stored.output_segment =
                    Some(SegmentV1 { start: *start, end: *end, bytes: *bytes, cut_bytes: *cut_bytes });
            }
        }
        if !end.artifacts.is_empty() {
            let mirror = |artifact: &'a Artifact| ArtifactV1 {
                path: Cow::Borrowed(&artifact.path),
                bytes: artifact.bytes,
                sha256: Cow::Borrowed(&artifact.sha256),
            };
            stored.artifacts = end.artifacts.iter().map(mirror).collect();
        }
        stored
    }

    fn into_end(self) -> Result<AttemptEnd, String> {
        let error = |error: Option<Cow<'_, str>>| error.map(Cow::into_owned).ok_or("`error` is missing");
        let cause = match &*self.cause {
            "exit" => ExitCause::Exit { code: self.code.ok_or("`code` is missing")? },
            "signal" => ExitCause::Signal {
                signal: self.signal.ok_or("`signal` is missing")?,
                name: self.signal_name.ok_or("`signal_name` is missing")?.into_owned(),
                core_dumped: self.core_dumped,
            },
            "out_of_memory" => ExitCause::OutOfMemory,
            "not_started" => ExitCause::NotStarted { error: error(self.error)? },
            "expression" => ExitCause::Expression { error: error(self.error)? },
            "bad_result" => ExitCause::BadResult { error: error(self.error)? },
            "lost" => ExitCause::Lost,
            other => return Err(format!("`{other}` is no cause of an end")),
        };
        let output = match (self.output, self.output_base64, self.output_segment) {
            (Some(text), None, None) => Output::Inline(text.into_owned().into_bytes()),
            (None, Some(base64), None) => Output::Inline(
                BASE64_STANDARD.decode(&*base64).map_err(|error| format!("`output_base64` is not base64: {error}"))?,
            ),
            (None, None, Some(SegmentV1 { start, end, bytes, cut_bytes })) => {
                Output::Segment { start, end, bytes, cut_bytes }
            }
            (None, None, None) => Output::None,
            _ => return Err("it has output in more than one form".to_owned()),
        };
        let artifact = |stored: ArtifactV1<'_>| Artifact {
            path: stored.path.into_owned(),
            bytes: stored.bytes,
            sha256: stored.sha256.into_owned(),
        };
        Ok(AttemptEnd {
            cause,
            duration: Millis(self.duration_ms),
            output,
            outputs: self.outputs.into_owned(),
            artifacts: self.artifacts.into_iter().map(artifact).collect(),
            leftovers: self.leftovers.into_owned(),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct RunCreatedV1<'a> {
    #[serde(borrow)]
    plan_id: Cow<'a, str>,
    #[serde(borrow)]
    plan_sha256: Cow<'a, str>,
    #[serde(borrow)]
    plan_path: Cow<'a, str>,
    #[serde(borrow)]
    cwd: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    vars: Cow<'a, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    inputs: Cow<'a, Map<String, Value>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: Cow<'a, BTreeMap<String, String>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_concurrency: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_of: Option<u64>,
    #[serde(default, skip_serializing_if = "<[(u32, u32)]>::is_empty")]
    kept: Cow<'a, [(u32, u32)]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outputs_from: Option<u64>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    slice: Cow<'a, Value>,
    #[serde(borrow)]
    submitted_by: Cow<'a, str>,
}

impl<'a> From<&'a RunCreated> for RunCreatedV1<'a> {
    fn from(created: &'a RunCreated) -> Self {
        Self {
            plan_id: Cow::Borrowed(&created.plan_id),
            plan_sha256: Cow::Borrowed(&created.plan_sha256),
            plan_path: Cow::Borrowed(&created.plan_path),
            cwd: Cow::Borrowed(&created.cwd),
            vars: Cow::Borrowed(&created.vars),
            inputs: Cow::Borrowed(&created.inputs),
            labels: Cow::Borrowed(&created.labels),
            idempotency_key: created.idempotency_key.as_deref().map(Cow::Borrowed),
            max_concurrency: created.max_concurrency,
            retry_of: created.retry_of.map(|run| run.0),
            kept: Cow::Borrowed(&created.kept),
            outputs_from: created.outputs_from.map(|run| run.0),
            slice: Cow::Borrowed(&created.slice),
            submitted_by: Cow::Borrowed(&created.submitted_by),
        }
    }
}

impl From<RunCreatedV1<'_>> for RunCreated {
    fn from(stored: RunCreatedV1<'_>) -> Self {
        Self {
            plan_id: stored.plan_id.into_owned(),
            plan_sha256: stored.plan_sha256.into_owned(),
            plan_path: stored.plan_path.into_owned(),
            cwd: stored.cwd.into_owned(),
            vars: stored.vars.into_owned(),
            inputs: stored.inputs.into_owned(),
            labels: stored.labels.into_owned(),
            idempotency_key: stored.idempotency_key.map(Cow::into_owned),
            max_concurrency: stored.max_concurrency,
            retry_of: stored.retry_of.map(RunId),
            kept: stored.kept.into_owned(),
            outputs_from: stored.outputs_from.map(RunId),
            slice: stored.slice.into_owned(),
            submitted_by: stored.submitted_by.into_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
