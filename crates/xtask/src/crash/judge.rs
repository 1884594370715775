//! What must hold after a run was cut off and went on: compared are what was told, what the steps did, and the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use super::step::{printed, step_and_number};
use super::world::{Said, World, plan_file};

/// How a plan ends when nobody disturbs it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expected {
    /// The last word about each step.
    pub steps: BTreeMap<String, String>,
    /// The run's status.
    pub status: String,
    /// The status before `finally`, where that began.
    pub before_finally: String,
    /// The values of the plan's outputs.
    pub outputs: Value,
}

impl Expected {
    /// A run that somebody canceled, wherever its steps were.
    pub fn canceled() -> Expected {
        Expected { status: "canceled".to_owned(), ..Expected::default() }
    }

    fn is_met_by(&self, found: &Expected) -> bool {
        if self.steps.is_empty() && self.status == "canceled" {
            // Who cancels what cleans up after a failure still has a run that failed.
            return found.status == "canceled" || (found.status == "failed" && found.before_finally == "failed");
        }
        found.status == self.status
            && found.before_finally == self.before_finally
            && found.outputs == self.outputs
            && found.steps == self.steps
    }
}

/// What cut the run off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// The program was killed; everything that it wrote is there.
    Death,
    /// The power failed; what was not synced may be gone.
    PowerFailure,
}

/// Lets the program go on with what was cut off, and answers with everything that is wrong then.
pub fn go_on_and_judge(world: &World, plan: &str, expected: &Expected, after: After) -> Result<Vec<String>, String> {
    let mut told = fs::read_to_string(world.told()).map_err(|error| format!("what was told: {error}"))?;
    // A line that the death tore apart was not told.
    told.truncate(told.rfind('\n').map_or(0, |end| end + 1));
    let resumed = world.run(&mut world.resume())?;
    let mut problems = Vec::new();
    // Where the death came before there was a store, there is nothing to go on with; nothing was promised either.
    let is_absent = failure(&resumed).as_deref() == Some(NO_STORE);
    if !is_absent && !resumed.code.is_some_and(|code| [0, 1, 130].contains(&code)) {
        problems.push(format!("resume exited with {:?}: {}{}", resumed.code, resumed.stdout, resumed.stderr));
        return Ok(problems);
    }
    let left = world.end_steps();
    if !left.is_empty() {
        problems.push(format!("steps outlived the run: processes {}", left.join(", ")));
    }
    told.push_str(&resumed.stdout);
    // The export is not synced. Of a run that goes on it is made good; one that was over keeps what the disk has.
    let was_over = resumed.stdout.contains("\"resumed\": []");
    let has_export = after == After::Death || !was_over;
    problems.extend(judge(world, plan, expected, &told, has_export)?);
    Ok(problems)
}

/// How an undisturbed run ended, which must itself be without fault.
pub fn expectation(world: &World, plan: &str) -> Result<Expected, String> {
    let told = fs::read_to_string(world.told()).map_err(|error| format!("what was told: {error}"))?;
    let events = events_of(world, run_number(plan))?.ok_or("the run is not in the store")?;
    let expected = ends(&events);
    let problems = judge(world, plan, &expected, &told, true)?;
    if problems.is_empty() {
        Ok(expected)
    } else {
        Err(format!("even undisturbed, plan `{plan}` is not as it should be:\n  {}", problems.join("\n  ")))
    }
}

/// The number that a reference plan's run has in its world.
pub fn run_number(plan: &str) -> u64 {
    // The run that made the store was the first.
    if plan == "first" { 1 } else { 2 }
}

fn judge(world: &World, plan: &str, expected: &Expected, told: &str, has_export: bool) -> Result<Vec<String>, String> {
    let run = run_number(plan);
    let told: Vec<Value> = told
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["run"] == run && line["seq"].is_u64() && line["kind"].is_string())
        .collect();
    let ledger = fs::read_to_string(world.ledger()).map_err(|error| format!("the ledger: {error}"))?;
    let mut problems = Vec::new();
    let Some(events) = events_of(world, run)? else {
        // Cut off before anything was promised.
        if let Some(first) = told.first() {
            problems.push(format!("the run is gone although this was told: {first}"));
        }
        if !ledger.is_empty() {
            problems.push(format!("the run is gone although its steps ran:\n{ledger}"));
        }
        return Ok(problems);
    };
    let doctor = world.ask(&["doctor"])?;
    if doctor.code != Some(0) {
        problems.push(format!("doctor exits with {:?}: {}{}", doctor.code, doctor.stdout, doctor.stderr));
    }
    for (index, event) in events.iter().enumerate() {
        if event["seq"] != index as u64 + 1 {
            problems.push(format!("event {} stands in place {}", event["seq"], index + 1));
        }
    }
    for line in &told {
        let place = line["seq"].as_u64().and_then(|seq| usize::try_from(seq).ok()).unwrap_or(0);
        match events.get(place.wrapping_sub(1)) {
            Some(event) if event == line => {}
            Some(event) => problems.push(format!("this was told: {line}\n    and this is in the log: {event}")),
            None => problems.push(format!("this was told and is not in the log: {line}")),
        }
    }
    // The export of a run that was over when its owner died is completed by the next process that drives a run.
    if has_export && export_differs(world, run, &events).is_some() {
        world.warm_up(0)?;
        problems.extend(export_differs(world, run, &events));
    }
    problems.extend(grammar(&events));
    let found = ends(&events);
    if !expected.is_met_by(&found) {
        problems.push(format!("ended otherwise than undisturbed:\n    found    {found:?}\n    expected {expected:?}"));
    }
    problems.extend(ledger_differs(&events, &ledger));
    problems.extend(artifacts_differ(world, &events, &ledger));
    problems.extend(output_differs(world, plan, run, &events, &ledger)?);
    Ok(problems)
}

/// The code of the failure with which a command ended.
fn failure(said: &Said) -> Option<String> {
    let lines = said.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|line| line["error"]["code"].as_str().map(str::to_owned)).next_back()
}

/// How the ids of the steps begin that stand in the `finally` of the reference plans.
const FINALLY: &str = "finally-";

/// What the program calls a run, or a whole store, that is not there.
const NO_RUN: &str = "no-such-run";
const NO_STORE: &str = "no-store";

/// The log of a run as the program prints it; `None`: there is no such run.
fn events_of(world: &World, run: u64) -> Result<Option<Vec<Value>>, String> {
    let said = world.ask(&["events", &run.to_string(), "--output", "json"])?;
    if said.code != Some(0) {
        let is_absent = failure(&said).is_some_and(|code| [NO_RUN, NO_STORE].contains(&code.as_str()));
        return if is_absent { Ok(None) } else { Err(format!("events: {}", said.stderr)) };
    }
    let parse = |line| serde_json::from_str(line).map_err(|error| format!("`{line}` is not JSON: {error}"));
    said.stdout.lines().map(parse).collect::<Result<Vec<Value>, String>>().map(Some)
}

fn export_differs(world: &World, run: u64, events: &[Value]) -> Option<String> {
    let path = world.data().join(format!("runs/{run}/events.jsonl"));
    let text = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
    if lines == events {
        return None;
    }
    let place = lines.iter().zip(events).take_while(|(line, event)| line == event).count();
    Some(format!(
        "events.jsonl has {} lines for {} events and differs from line {}",
        lines.len(),
        events.len(),
        place + 1
    ))
}

fn kind(event: &Value) -> &str {
    event["kind"].as_str().unwrap_or("")
}

fn attempt_of(event: &Value) -> Option<(&str, u64)> {
    Some((event["step"].as_str()?, event["attempt"].as_u64().unwrap_or(0)))
}

const ENDS: &[&str] = &["step_succeeded", "step_failed", "step_timeout", "step_lost", "step_canceled"];

fn is_last(event: &Value) -> bool {
    match kind(event) {
        "step_succeeded" | "step_skipped" | "step_canceled" => true,
        "step_failed" | "step_timeout" | "step_lost" => event["last"] == true,
        _ => false,
    }
}

/// What a log may not say, whatever the plan.
fn grammar(events: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut is_finally = false;
    let mut over: BTreeSet<&str> = BTreeSet::new();
    let mut running: BTreeMap<&str, u64> = BTreeMap::new();
    let mut last_attempt: BTreeMap<&str, u64> = BTreeMap::new();
    // After a change of owner: attempts whose loss must be the next that is said of them.
    let mut to_lose: BTreeSet<&str> = BTreeSet::new();
    for event in events {
        if kind(event) == "run_resumed" {
            to_lose = running.keys().copied().collect();
        }
        if kind(event) == "run_finally" && std::mem::replace(&mut is_finally, true) {
            problems.push("`finally` begins twice".to_owned());
        }
        let Some((step, attempt)) = attempt_of(event) else { continue };
        // What was never started may be canceled at any time.
        if attempt > 0 && step.starts_with(FINALLY) != is_finally {
            problems.push(format!("this belongs to the other side of the beginning of `finally`: {event}"));
        }
        if over.contains(step) {
            problems.push(format!("something follows after the step's end: {event}"));
        }
        if to_lose.remove(step) && kind(event) != "step_lost" {
            problems.push(format!("an attempt in flight at a death is not lost: {event}"));
        }
        if kind(event) == "step_started" {
            if let Some(other) = running.insert(step, attempt) {
                problems.push(format!("an attempt starts while attempt {other} runs: {event}"));
            }
            if last_attempt.insert(step, attempt).unwrap_or(0) + 1 != attempt {
                problems.push(format!("an attempt has not the next number: {event}"));
            }
        }
        if ENDS.contains(&kind(event)) && attempt > 0 && running.remove(step) != Some(attempt) {
            problems.push(format!("an attempt ends that does not run: {event}"));
        }
        if is_last(event) {
            over.insert(step);
        }
    }
    if !running.is_empty() {
        problems.push(format!("attempts have no end: {running:?}"));
    }
    if events.iter().filter(|event| kind(event) == "run_created").count() != 1 {
        problems.push("the run was not created exactly once".to_owned());
    }
    match events.last() {
        Some(last) if kind(last) == "run_completed" => {}
        last => problems.push(format!("the run is not over; its last event is {}", last.unwrap_or(&Value::Null))),
    }
    problems
}

fn ends(events: &[Value]) -> Expected {
    let mut expected = Expected::default();
    for event in events {
        if let Some((step, _)) = attempt_of(event)
            && is_last(event)
        {
            expected.steps.insert(step.to_owned(), kind(event).to_owned());
        }
        if kind(event) == "run_finally" {
            event["status"].as_str().unwrap_or("").clone_into(&mut expected.before_finally);
        }
        if kind(event) == "run_completed" {
            event["status"].as_str().unwrap_or("").clone_into(&mut expected.status);
            expected.outputs = event["outputs"].clone();
        }
    }
    expected
}

/// Whether the log and what the steps really did tell the same.
fn ledger_differs(events: &[Value], ledger: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let find = |wanted: &str, step: &str, number: u32| {
        events.iter().any(|event| kind(event) == wanted && attempt_of(event) == Some((step, u64::from(number))))
    };
    let mut started = BTreeSet::new();
    let mut ended = BTreeMap::new();
    // Steps with a result that is recorded: they may never begin again.
    let mut done = BTreeSet::new();
    for line in ledger.lines() {
        let parsed = line.split_once(' ').and_then(|(word, name)| Some((word, step_and_number(name)?)));
        let Some((word, (step, number))) = parsed else {
            problems.push(format!("the ledger has the line `{line}`"));
            continue;
        };
        match word {
            "start" => {
                if !find("step_started", step, number) {
                    problems.push(format!("attempt {number} of {step} began, and its start is not in the log"));
                }
                if !started.insert((step, number)) {
                    problems.push(format!("attempt {number} of {step} began twice"));
                }
                if done.contains(step) {
                    problems.push(format!("attempt {number} of {step} began after the step had succeeded"));
                }
            }
            "done" | "failed" => {
                ended.insert((step, number), word);
                if find("step_succeeded", step, number) {
                    done.insert(step);
                }
            }
            _ => problems.push(format!("attempt {number} of {step} began while another one ran")),
        }
    }
    for event in events {
        let wanted = match kind(event) {
            "step_succeeded" => "done",
            "step_failed" => "failed",
            _ => continue,
        };
        let Some((step, number)) = attempt_of(event) else { continue };
        let number = u32::try_from(number).unwrap_or(0);
        if ended.get(&(step, number)).copied() != Some(wanted) {
            problems.push(format!("the log says what the ledger does not: {event}"));
        }
    }
    problems
}

/// Whether what succeeded steps printed can be read back to the last byte.
fn output_differs(world: &World, plan: &str, run: u64, events: &[Value], ledger: &str) -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    let prints = prints(plan)?;
    for event in events.iter().filter(|event| kind(event) == "step_succeeded") {
        let Some((step, number)) = attempt_of(event) else { continue };
        let Some(bytes) = prints.get(step) else { continue };
        let ending = format!("/{run}/{step}/{number}");
        let name = ledger.lines().filter_map(|line| line.strip_prefix("start ")).find(|name| name.ends_with(&ending));
        let Some(name) = name else { continue };
        let mut wanted = printed(name, *bytes);
        wanted.truncate(*bytes);
        let said = world.ask(&["logs", &run.to_string(), step, "--attempt", &number.to_string(), "--raw"])?;
        if said.code != Some(0) || said.stdout != wanted {
            let common = said.stdout.bytes().zip(wanted.bytes()).take_while(|(found, wanted)| found == wanted).count();
            problems.push(format!(
                "{step}, attempt {number}, printed {bytes} bytes; {} are read back, right up to byte {common}; {}",
                said.stdout.len(),
                said.stderr.trim()
            ));
        }
    }
    Ok(problems)
}

/// Whether the files that succeeded steps left are kept as the log says.
fn artifacts_differ(world: &World, events: &[Value], ledger: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for event in events.iter().filter(|event| kind(event) == "step_succeeded") {
        let Some((step, number)) = attempt_of(event) else { continue };
        let ending = format!("/{step}/{number}");
        let name = ledger.lines().filter_map(|line| line.strip_prefix("done ")).find(|name| name.ends_with(&ending));
        for artifact in event["artifacts"].as_array().into_iter().flatten() {
            let (shelf, rest) =
                artifact["sha256"].as_str().and_then(|hash| hash.split_at_checked(2)).unwrap_or_default();
            let found = fs::read_to_string(world.data().join("artifacts").join(shelf).join(rest)).ok();
            if found.as_deref() != name {
                problems.push(format!("the artefact {artifact} of {step} holds {found:?} and should hold {name:?}"));
            }
        }
    }
    problems
}

/// How much the steps of a reference plan print.
fn prints(plan: &str) -> Result<BTreeMap<String, usize>, String> {
    let path = plan_file(plan);
    let text = fs::read_to_string(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
    let of_line = |line: &str| {
        let (_, id) = line.split_once("id: ")?;
        let (_, count) = line.split_once("--print, ")?;
        let id = id.split(',').next()?.to_owned();
        Some((id, count.split([',', ']']).next()?.trim().parse().ok()?))
    };
    Ok(text.lines().filter_map(of_line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log from words: `a+1` starts, `a=1` succeeds, `a?1` is lost; `resumed` and `over` are of the run.
    fn log(words: &str) -> Vec<Value> {
        let event = |word: &str| match word {
            "created" => serde_json::json!({"kind": "run_created"}),
            "resumed" => serde_json::json!({"kind": "run_resumed"}),
            "over" => serde_json::json!({"kind": "run_completed", "status": "succeeded"}),
            "finally" => serde_json::json!({"kind": "run_finally", "status": "succeeded"}),
            "late" => serde_json::json!({"kind": "step_started", "step": "finally-a", "attempt": 1}),
            _ => {
                let (step, rest) = word.split_at(1);
                let (sign, number) = rest.split_at(1);
                let kind = match sign {
                    "+" => "step_started",
                    "=" => "step_succeeded",
                    _ => "step_lost",
                };
                let number: u64 = number.parse().unwrap();
                serde_json::json!({"kind": kind, "step": step, "attempt": number, "last": false})
            }
        };
        words.split(' ').map(event).collect()
    }

    #[test]
    fn a_log_in_order_is_taken() {
        assert_eq!(grammar(&log("created a+1 a=1 b+1 resumed b?1 b+2 b=2 over")), [""; 0]);
    }

    #[test]
    fn each_fault_of_a_log_is_found() {
        let faults = [
            ("created a+1 a=1 a+2 a=2 over", "something follows"),
            ("created a+1 a+2 a=2 over", "starts while attempt 1 runs"),
            ("created a+1 resumed a=1 over", "is not lost"),
            ("created a+2 a=2 over", "has not the next number"),
            ("created a=1 over", "ends that does not run"),
            ("created a+1 over", "have no end"),
            ("created a+1 a=1", "is not over"),
            ("created created over", "exactly once"),
            ("created a+1 a=1 finally finally over", "begins twice"),
            ("created finally a+1 a=1 over", "the other side"),
            ("created late finally over", "the other side"),
        ];
        for (words, fault) in faults {
            let found = grammar(&log(words)).join("\n");
            assert!(found.contains(fault), "{words}: {found}");
        }
    }

    #[test]
    fn what_the_steps_did_and_what_the_log_says_are_compared() {
        let events = log("created a+1 a=1 over");
        assert_eq!(ledger_differs(&events, "start s/1/a/1\ndone s/1/a/1\n"), [""; 0]);
        let faults = [
            ("start s/1/a/1\ndone s/1/a/1\nstart s/1/a/2\n", "its start is not in the log"),
            ("start s/1/a/1\ndone s/1/a/1\nstart s/1/a/2\n", "after the step had succeeded"),
            ("start s/1/a/1\nstart s/1/a/1\ndone s/1/a/1\n", "began twice"),
            ("overlap s/1/a/1\ndone s/1/a/1\n", "while another one ran"),
            ("start s/1/a/1\n", "what the ledger does not"),
        ];
        for (ledger, fault) in faults {
            let found = ledger_differs(&events, ledger).join("\n");
            assert!(found.contains(fault), "{ledger}: {found}");
        }
    }
}
