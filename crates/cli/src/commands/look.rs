//! Looking at runs: which there are, where they are, why something does not run, who holds which lock.

use std::collections::BTreeMap;

use baton_core::lock::LockTable;
use baton_core::operation::Situation;
use baton_core::why::Blocker;
use baton_core::{Epoch, EventKind, Millis, RunId, RunState, RunStatus, StepIndex, StepStatus, Time};
use baton_engine::{Clock, Inspection};
use baton_store::{Filter, OwnerRow, RunRow, SqliteStore, Store, rfc3339};
use serde_json::{Value, json};

use super::{data_dir, no_such_step, of_engine, of_store, open_to_look, run_and_step, run_or_latest};
use crate::arguments::{Answer, Given};
use crate::escape;
use crate::face::Face;
use crate::failure::{EXIT_OK, Failure};
use crate::show::lines::{self, Style, Tone};
use crate::show::summary;
use crate::words;

/// Runs that are listed where nobody says how many.
const USUAL_RUNS: u64 = 20;
/// Runs are read in pages of so many.
const PAGE: usize = 200;
/// Steps that are listed for people; programs get all of them.
const MAX_STEPS: usize = 200;
/// Steps that `why` explains where none is named.
const MAX_REASONS: usize = 50;

/// `baton runs`.
pub fn runs(given: Given<'_>, face: &mut Face) -> Answer {
    // No data directory is no fault here: there are no runs yet.
    let directory = data_dir(given)?;
    let rows = if directory.exists() { matching(&open_to_look(given, face)?, given)? } else { Vec::new() };
    if face.is_json() {
        let rows: Vec<Value> = rows.iter().map(|(row, word)| run_json(row, word)).collect();
        face.document(&rows.into());
        return Ok(EXIT_OK);
    }
    if rows.is_empty() {
        face.text("no runs\n");
        return Ok(EXIT_OK);
    }
    let now = Clock::start().now();
    let head = ["run", "status", "plan", "submitted", "took", "labels"].map(str::to_owned).to_vec();
    let style = Style::of_environment(face.color);
    let mut table = vec![head];
    for (row, word) in &rows {
        let labels: Vec<String> = row.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        table.push(vec![
            row.run.to_string(),
            (*word).to_owned(),
            escape::one_line(&row.plan_id),
            words::clock(row.created_at),
            took(row, word, now),
            escape::one_line(&labels.join(" ")),
        ]);
    }
    let text = words::table(&table);
    face.text(&paint_rows(&text, rows.iter().map(|(_, word)| *word), style));
    Ok(EXIT_OK)
}

/// The lines of a table in the tones of their states; the first line is the head.
fn paint_rows<'a>(table: &str, states: impl Iterator<Item = &'a str>, style: Style) -> String {
    let mut lines = table.lines();
    let mut out = lines.next().map(|head| style.paint(Tone::Out, head) + "\n").unwrap_or_default();
    for (line, state) in lines.zip(states) {
        out += &match tone(state) {
            Some(tone) => style.paint(tone, line),
            None => line.to_owned(),
        };
        out.push('\n');
    }
    out
}

fn tone(state: &str) -> Option<Tone> {
    match state {
        "failed" => Some(Tone::Bad),
        "running" => Some(Tone::Begin),
        "abandoned" | "stopping" | "retrying" => Some(Tone::Again),
        "canceled" | "skipped" | "kept" => Some(Tone::Out),
        _ => None,
    }
}

fn matching(store: &SqliteStore, given: Given<'_>) -> Result<Vec<(RunRow, &'static str)>, Failure> {
    let limit = usize::try_from(given.number("limit").unwrap_or(USUAL_RUNS)).unwrap_or(usize::MAX);
    let owners = store.owners().map_err(of_store)?;
    let mut filter = Filter {
        plan_id: given.text("plan-id").map(str::to_owned),
        labels: given.pairs("label").collect(),
        limit: Some(PAGE),
        open: match given.text("status") {
            Some("succeeded" | "failed" | "canceled") => Some(false),
            Some(_) => Some(true),
            None => None,
        },
        ..Filter::default()
    };
    let mut rows = Vec::new();
    loop {
        let page = store.runs(&filter).map_err(of_store)?;
        let Some(last) = page.last().map(|row| row.run) else { return Ok(rows) };
        for row in page {
            let word = situation(&row, &owners);
            if given.text("status").is_none_or(|wanted| wanted == word) {
                rows.push((row, word));
                if rows.len() == limit {
                    return Ok(rows);
                }
            }
        }
        filter.before = Some(last);
    }
}

fn situation(row: &RunRow, owners: &[OwnerRow]) -> &'static str {
    let owner = owners.iter().find(|owner| owner.alive && Some(owner.epoch) == row.owner);
    baton_engine::situation(row, owner).word()
}

fn took(row: &RunRow, word: &str, now: Time) -> String {
    let end = row.ended_at.unwrap_or(if word == "abandoned" { row.last_at } else { now });
    words::duration(end.since(row.started_at.unwrap_or(row.created_at)))
}

fn run_json(row: &RunRow, word: &str) -> Value {
    json!({
        "run": row.run,
        "status": word,
        "plan_id": row.plan_id,
        "plan_path": row.plan_path,
        "plan_sha256": row.plan_sha256,
        "created_at": rfc3339(row.created_at),
        "started_at": row.started_at.map(rfc3339),
        "ended_at": row.ended_at.map(rfc3339),
        "labels": row.labels,
        "idempotency_key": row.idempotency_key,
        "retry_of": row.retry_of,
        "submitted_by": row.submitted_by,
        "last_seq": row.last_seq,
    })
}

/// What a step's events tell beside its state.
#[derive(Clone, Debug, Default)]
struct Told {
    started: Option<Time>,
    ended: Option<Time>,
    duration: Option<Millis>,
    cause: Option<String>,
}

fn told(store: &SqliteStore, state: &RunState) -> Result<Vec<Told>, Failure> {
    let mut told = vec![Told::default(); state.graph().len()];
    let mut note = |event: baton_core::Event| {
        let Some((step, _)) = event.kind.step() else { return };
        let facts = &mut told[step.at()];
        match &event.kind {
            EventKind::StepStarted { .. } => *facts = Told { started: Some(event.at), ..Told::default() },
            EventKind::StepSucceeded { end, .. } | EventKind::StepCanceled { end: Some(end), .. } => {
                facts.ended = Some(event.at);
                facts.duration = Some(end.duration);
            }
            EventKind::StepFailed { end, .. } => {
                facts.ended = Some(event.at);
                facts.duration = Some(end.duration);
                facts.cause = Some(lines::cause(Some(&end.cause), None));
            }
            EventKind::StepTimeout { end, .. } => {
                facts.ended = Some(event.at);
                facts.duration = Some(end.duration);
                facts.cause = Some(lines::cause(Some(&end.cause), state.graph().policy(step).timeout));
            }
            EventKind::StepLost { .. } => {
                facts.ended = Some(event.at);
                facts.cause = Some("lost: the process that drove the run died".to_owned());
            }
            _ => {}
        }
    };
    store.replay(state.run(), state.graph(), &mut note).map_err(of_store)?;
    Ok(told)
}

/// `baton status`.
pub fn status(given: Given<'_>, face: &mut Face) -> Answer {
    let store = open_to_look(given, face)?;
    let run = run_or_latest(&store, given.number("run"))?;
    let seen = baton_engine::inspect(&store, run).map_err(of_engine)?;
    let told = told(&store, &seen.loaded.state)?;
    let now = Clock::start().now();
    if face.is_json() {
        let document = status_json(&seen, &told, now);
        face.document(&document);
    } else {
        let style = Style::of_environment(face.color);
        face.text(&status_text(&seen, &told, now, style));
    }
    Ok(EXIT_OK)
}

fn percent(seen: &Inspection) -> u8 {
    let state = &seen.loaded.state;
    let weight = |step: StepIndex| seen.loaded.plan.weight(step);
    let total: f64 = state.graph().steps().map(weight).sum();
    let done: f64 = state.graph().steps().filter(|step| state.status(*step).is_final()).map(weight).sum();
    if total > 0.0 { (100.0 * done / total).clamp(0.0, 100.0) as u8 } else { 100 }
}

fn status_json(seen: &Inspection, told: &[Told], now: Time) -> Value {
    let Inspection { row, loaded, owner, situation, .. } = seen;
    let state = &loaded.state;
    let steps: Vec<Value> = state
        .graph()
        .steps()
        .map(|step| {
            let facts = &told[step.at()];
            json!({
                "step": state.graph().id(step),
                "name": loaded.plan.name(step),
                "finally": state.graph().is_finally(step),
                "status": state.status(step).word(),
                "attempts": state.attempt(step),
                "started_at": facts.started.map(rfc3339),
                "ended_at": facts.ended.map(rfc3339),
                "duration_ms": facts.duration.map(|Millis(ms)| ms),
                "cause": facts.cause,
                "outputs": state.outputs(step).map(|outputs| Value::from((**outputs).clone())),
            })
        })
        .collect();
    let mut document = run_json(row, situation.word());
    let counts: BTreeMap<&str, u32> = STATUSES.iter().map(|status| (status.word(), state.count(*status))).collect();
    if let Some(map) = document.as_object_mut() {
        map.insert("vars".into(), json!(loaded.created.vars));
        map.insert("inputs".into(), json!(loaded.created.inputs));
        map.insert("outputs".into(), json!(state.result_outputs()));
        map.insert("late_since".into(), json!(late_since(seen, now).map(rfc3339)));
        map.insert("slice".into(), loaded.created.slice.clone());
        map.insert("percent".into(), percent(seen).into());
        map.insert("elapsed_ms".into(), elapsed(seen, now).0.into());
        map.insert("counts".into(), json!(counts));
        map.insert("stopped".into(), json!(state.stop_reason().map(|why| baton_core::why::stop_reason(state, why))));
        let owner = owner.as_ref().map(|owner| {
            let info = &owner.info;
            json!({ "pid": info.pid, "host": info.host, "command": info.command, "since": rfc3339(owner.since) })
        });
        map.insert("owner".into(), owner.into());
        map.insert("steps".into(), steps.into());
    }
    document
}

/// When the run should have been over by its `sla`, where it was not; also where nobody drives it who could say so.
fn late_since(seen: &Inspection, now: Time) -> Option<Time> {
    let due = seen.row.created_at + seen.loaded.state.graph().sla()?;
    (due < seen.row.ended_at.unwrap_or(now)).then_some(due)
}

const STATUSES: [StepStatus; StepStatus::COUNT] = [
    StepStatus::Waiting,
    StepStatus::Running,
    StepStatus::Retrying,
    StepStatus::Succeeded,
    StepStatus::Failed,
    StepStatus::Skipped,
    StepStatus::Canceled,
    StepStatus::Kept,
];

fn elapsed(seen: &Inspection, now: Time) -> Millis {
    let row = &seen.row;
    let end = row.ended_at.unwrap_or(if seen.owner.is_some() { now } else { row.last_at });
    end.since(row.started_at.unwrap_or(row.created_at))
}

fn status_text(seen: &Inspection, told: &[Told], now: Time, style: Style) -> String {
    let Inspection { row, loaded, owner, situation, .. } = seen;
    let state = &loaded.state;
    let word = situation.word();
    let head = format!("run {} {}: {word}", row.run, escape::one_line(&row.plan_id));
    let mut out = format!("{}\n", style.paint(tone(word).unwrap_or(Tone::Good), &head));
    let mut fact = |name: &str, value: String| out += &format!("  {name:<10} {}\n", escape::one_line(&value));
    fact("plan", row.plan_path.clone());
    let ago = words::ago(now.since(row.created_at));
    fact("submitted", format!("{} by {}, {ago}", words::clock(row.created_at), row.submitted_by));
    fact("took", words::duration(elapsed(seen, now)));
    if let Some(owner) = owner {
        fact("driven by", format!("process {} on {}: {}", owner.info.pid, owner.info.host, owner.info.command));
    }
    if let Some(of) = row.retry_of {
        fact("retry of", format!("run {of}"));
    }
    if !row.labels.is_empty() {
        let labels: Vec<String> = row.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        fact("labels", labels.join(" "));
    }
    for stop in summary::stops(state) {
        if let Some((what, why)) = stop.split_once(": ") {
            fact(what, why.to_owned());
        }
    }
    if let Some(due) = late_since(seen, now) {
        fact("late", format!("by its `sla` it should have been over at {}", words::clock(due)));
    }
    for (name, value) in state.result_outputs() {
        fact("output", summary::output(name, value));
    }
    let percent = match situation {
        Situation::Over(_) => String::new(),
        Situation::Live | Situation::Stopping | Situation::Abandoned => format!(" ({} %)", percent(seen)),
    };
    fact("steps", format!("{}{percent}", summary::counts(state)));
    out += &step_table(seen, told, now, style);
    match situation {
        Situation::Abandoned => {
            out += &format!("\ngo on with: baton resume {}\n", row.run);
        }
        Situation::Over(RunStatus::Succeeded) | Situation::Live | Situation::Stopping => {}
        Situation::Over(_) => {
            out += &format!("\nrun again what did not succeed: baton retry {}\n", row.run);
        }
    }
    out
}

fn step_table(seen: &Inspection, told: &[Told], now: Time, style: Style) -> String {
    let (state, plan, is_driven) = (&seen.loaded.state, &seen.loaded.plan, seen.owner.is_some());
    let graph = state.graph();
    let mut table = vec![["step", "status", "attempts", "took", ""].map(str::to_owned).to_vec()];
    // Where there are too many, those that ended well or have not begun are left out first.
    let is_dull = |step: &StepIndex| {
        matches!(
            state.status(*step),
            StepStatus::Succeeded | StepStatus::Kept | StepStatus::Waiting | StepStatus::Canceled
        )
    };
    let first = graph.steps().filter(|step| !is_dull(step)).chain(graph.steps().filter(is_dull));
    let mut shown: Vec<StepIndex> = first.take(MAX_STEPS).collect();
    shown.sort_unstable();
    for step in &shown {
        let facts = &told[step.at()];
        let status = state.status(*step);
        let took = match (facts.duration, facts.started) {
            (Some(duration), _) => words::duration(duration),
            (None, Some(started)) if status == StepStatus::Running && is_driven => words::duration(now.since(started)),
            (None, _) => String::new(),
        };
        let remark = match (status, state.retry_due(*step)) {
            (StepStatus::Retrying, Some(due)) => {
                format!("{}; again in {}", facts.cause.clone().unwrap_or_default(), words::duration(due.since(now)))
            }
            _ => facts.cause.clone().unwrap_or_default(),
        };
        let tolerated = status == StepStatus::Failed && !state.failure_counts(*step);
        let remark = if tolerated { format!("{remark} (tolerated)") } else { remark };
        // A title says more than an id, and stands where there is most room.
        let (id, name) = (graph.id(*step), plan.name(*step));
        let remark = if name == id { remark } else { format!("{name}  {remark}").trim_end().to_owned() };
        let attempts = state.attempt(*step);
        table.push(vec![
            id.to_owned(),
            status.word().to_owned(),
            if attempts > 0 { attempts.to_string() } else { String::new() },
            took,
            escape::one_line(&remark),
        ]);
    }
    let text = words::table(&table);
    let mut out = format!("\n{}", paint_rows(&text, shown.iter().map(|step| state.status(*step).word()), style));
    if shown.len() < graph.len() {
        let more = words::grouped((graph.len() - shown.len()) as u64);
        out += &format!("and {more} steps more; all of them: baton status {} --output json\n", state.run());
    }
    out
}

/// `baton why`.
pub fn why(given: Given<'_>, face: &mut Face) -> Answer {
    let store = open_to_look(given, face)?;
    let (run, step) = run_and_step(&store, given)?;
    let seen = baton_engine::inspect(&store, run).map_err(of_engine)?;
    let state = &seen.loaded.state;
    let graph = state.graph();
    let now = Clock::start().now();
    let steps: Vec<StepIndex> = match &step {
        Some(name) => {
            let ids = || graph.steps().map(|step| graph.id(step));
            vec![graph.find(name).ok_or_else(|| no_such_step(run, name, ids()))?]
        }
        None => graph.steps().filter(|step| needs_saying(state, *step)).collect(),
    };
    let owned = seen.owner.is_some();
    let chain = |step: &StepIndex| state.why(*step, now, &seen.locks, owned);
    if face.is_json() {
        let steps: Vec<Value> = steps
            .iter()
            .map(|step| json!({ "step": graph.id(*step), "status": state.status(*step).word(), "chain": chain(step) }))
            .collect();
        let stopped: Vec<String> = state.stop_reasons().map(|why| baton_core::why::stop_reason(state, why)).collect();
        let late_since = late_since(&seen, now).map(rfc3339);
        face.document(&json!({ "run": run, "status": seen.situation.word(), "stopped": stopped,
            "late_since": late_since, "steps": steps }));
        return Ok(EXIT_OK);
    }
    let mut out = String::new();
    if step.is_none() {
        let verb = if matches!(seen.situation, Situation::Over(RunStatus::Succeeded | RunStatus::Failed)) {
            ""
        } else {
            "is "
        };
        out += &format!("run {run} {verb}{}: {}\n", seen.situation.word(), summary::counts(state));
        for stop in summary::stops(state) {
            out += &format!("{stop}\n");
        }
        if let Some(due) = late_since(&seen, now) {
            out += &format!("late: by its `sla` it should have been over at {}\n", words::clock(due));
        }
    }
    for step in steps.iter().take(MAX_REASONS) {
        let id = graph.id(*step);
        let mut about = id.to_owned();
        for (at, blocker) in chain(step).iter().enumerate() {
            let words = escape::one_line(&reason(blocker, now));
            out += &format!("{}{about}: {words}\n", "  ".repeat(at));
            about = leads_to(blocker).unwrap_or_default().to_owned();
        }
    }
    if steps.len() > MAX_REASONS {
        let more = words::grouped((steps.len() - MAX_REASONS) as u64);
        out += &format!("and {more} steps more; ask for one: baton why {run} STEP\n");
    }
    if steps.is_empty() {
        out += "every step has run\n";
    }
    face.text(&out);
    Ok(EXIT_OK)
}

/// Whether a step is worth a line where nobody asked for it.
fn needs_saying(state: &RunState, step: StepIndex) -> bool {
    match state.status(step) {
        StepStatus::Waiting
        | StepStatus::Retrying
        | StepStatus::Running
        | StepStatus::Skipped
        | StepStatus::Canceled => true,
        StepStatus::Failed => true,
        StepStatus::Succeeded | StepStatus::Kept => false,
    }
}

/// The step that a blocker names, of which the next one in the chain tells.
fn leads_to(blocker: &Blocker) -> Option<&str> {
    match blocker {
        Blocker::Dependency { step, .. } | Blocker::FallbackOf { step, .. } => Some(step),
        Blocker::Settled { because_of, .. } => because_of.as_deref(),
        Blocker::Lock { .. }
        | Blocker::Concurrency { .. }
        | Blocker::Retry { .. }
        | Blocker::PlanLock { .. }
        | Blocker::Stopping { .. }
        | Blocker::Abandoned { .. }
        | Blocker::Nothing
        | Blocker::Running { .. } => None,
    }
}

/// One blocker in words that follow a step's id.
fn reason(blocker: &Blocker, now: Time) -> String {
    match blocker {
        Blocker::Dependency { step, status, others } => {
            let others = match others {
                0 => String::new(),
                1 => ", and for one other step".to_owned(),
                many => format!(", and for {many} other steps"),
            };
            format!("waits for step `{step}`, which is {}{others}", status.word())
        }
        Blocker::FallbackOf { step, status } => {
            format!("runs only if step `{step}` fails, which is {}", status.word())
        }
        Blocker::Lock { lock, holder, since } => {
            let since = since.map(|since| format!(" since {}", words::duration(now.since(since)))).unwrap_or_default();
            format!("waits for lock `{lock}`, which {holder} has{since} or wanted first")
        }
        Blocker::Concurrency { limit, running } => {
            format!("waits for a place: {limit} may run at once, and these do: {}", running.join(", "))
        }
        Blocker::Retry { attempt, due } => {
            format!("failed before; attempt {attempt} comes in {}", words::duration(due.since(now)))
        }
        Blocker::PlanLock { lock, holder } => {
            format!("the run waits for lock `{lock}`, which {holder} has or wanted first")
        }
        Blocker::Stopping { reason } => format!("will not start, the run is stopping: {reason}"),
        Blocker::Abandoned { run } => {
            format!("the process that drove run {run} is gone; go on with: baton resume {run}")
        }
        Blocker::Nothing => "nothing is in its way; it starts now".to_owned(),
        Blocker::Running { attempt, since, stopping } => {
            let stopping = if *stopping { ", and has been told to end" } else { "" };
            format!("runs since {} (attempt {attempt}){stopping}", words::duration(now.since(*since)))
        }
        Blocker::Settled { status, reason, .. } => match reason {
            Some(reason) => format!("{}: {reason}", status.word()),
            None => status.word().to_owned(),
        },
    }
}

/// `baton locks`.
pub fn locks(given: Given<'_>, face: &mut Face) -> Answer {
    let store = open_to_look(given, face)?;
    let mut table = LockTable::default();
    store.follow_locks(&mut table, 0).map_err(of_store)?;
    let alive: Vec<Epoch> =
        store.owners().map_err(of_store)?.iter().filter(|owner| owner.alive).map(|owner| owner.epoch).collect();
    let mut is_alive = BTreeMap::new();
    for run in table.runs() {
        let row = store.run(run).map_err(of_store)?;
        is_alive.insert(run, row.owner.is_some_and(|owner| alive.contains(&owner)));
    }
    let is_alive = |run: RunId| is_alive.get(&run).copied().unwrap_or(false);
    let now = Clock::start().now();
    if face.is_json() {
        let held: Vec<Value> = table
            .held()
            .map(|(holder, held)| {
                json!({ "holder": holder, "locks": held.names, "since": rfc3339(held.since),
                    "age_ms": now.since(held.since).0, "alive": is_alive(holder.run) })
            })
            .collect();
        let waiting: Vec<Value> = table
            .line()
            .map(|waiting| {
                json!({ "holder": waiting.holder, "locks": waiting.names, "since": rfc3339(waiting.since),
                    "alive": is_alive(waiting.holder.run) })
            })
            .collect();
        face.document(&json!({ "held": held, "waiting": waiting }));
        return Ok(EXIT_OK);
    }
    let mut rows = vec![["lock", "state", "who", "since"].map(str::to_owned).to_vec()];
    let who = |holder: &baton_core::lock::Holder| {
        let dead = if is_alive(holder.run) { "" } else { " (its process is gone; the lock is free for whoever asks)" };
        format!("{holder}{dead}")
    };
    for (holder, held) in table.held() {
        for name in &held.names {
            let since = words::ago(now.since(held.since));
            rows.push(vec![escape::one_line(name), "held".to_owned(), who(holder), since]);
        }
    }
    for waiting in table.line() {
        for name in &waiting.names {
            let since = words::ago(now.since(waiting.since));
            rows.push(vec![escape::one_line(name), "wanted".to_owned(), who(&waiting.holder), since]);
        }
    }
    face.text(&if rows.len() == 1 { "no locks are held or wanted\n".to_owned() } else { words::table(&rows) });
    Ok(EXIT_OK)
}
