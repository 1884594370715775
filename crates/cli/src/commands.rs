//! What each operation does, by groups; and what they share: the data directory, the store, the run that is meant.

mod directory;
mod drive;
mod logs;
mod look;
mod plans;
mod watch;

use std::path::PathBuf;

use baton_core::RunId;
use baton_core::operation::Operation;
use baton_engine::{Clock, EngineError};
use baton_lang::ActionCatalog;
use baton_store::{Access, DataDir, SqliteStore, Store, StoreError};
use serde_json::Value;

use crate::arguments::{Answer, Given};
use crate::face::Face;
use crate::failure::{EXIT_REFUSED, EXIT_USAGE, Failure};
use crate::words;

/// Abandoned runs that a remark names; the rest is counted.
const MAX_NAMED_RUNS: usize = 3;

/// Does what one operation says.
pub fn perform(operation: Operation, given: Given<'_>, face: &mut Face) -> Answer {
    match operation {
        Operation::Run => drive::run(given, face),
        Operation::Resume => drive::resume(given, face),
        Operation::Retry => drive::retry(given, face),
        Operation::Cancel => drive::cancel(given, face),
        Operation::Check => plans::check(given, face),
        Operation::Graph => plans::graph(given, face),
        Operation::Schema => plans::schema(face),
        Operation::Init => plans::init(given, face),
        Operation::Runs => look::runs(given, face),
        Operation::Status => look::status(given, face),
        Operation::Why => look::why(given, face),
        Operation::Locks => look::locks(given, face),
        Operation::Logs => logs::logs(given, face),
        Operation::Events => logs::events(given, face),
        Operation::Doctor => directory::doctor(given, face),
        Operation::Backup => directory::backup(given, face),
        Operation::Restore => directory::restore(given, face),
        Operation::Gc => directory::gc(given, face),
    }
}

/// The actions of this program, for checking plans.
#[derive(Clone, Copy, Debug, Default)]
pub struct Actions;

impl ActionCatalog for Actions {
    fn schema(&self, kind: &str) -> Option<Value> {
        baton_actions::catalog().into_iter().find(|action| action.kind == kind).map(|action| (action.schema)())
    }

    fn kinds(&self) -> Vec<String> {
        baton_actions::catalog().into_iter().map(|action| action.kind.to_owned()).collect()
    }
}

/// The folder in which the command was started.
pub fn here() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| {
        Failure::new("no-current-folder", EXIT_REFUSED, "the current folder cannot be named")
            .because(&error)
            .hint("it may have been removed; change into another one")
    })
}

/// The data directory that is meant.
pub fn data_dir(given: Given<'_>) -> Result<DataDir, Failure> {
    match given.path("data-dir") {
        Some(path) => Ok(DataDir::at(std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()))),
        None => Ok(DataDir::discover(&here()?)),
    }
}

/// The store of the data directory, opened for looking, and a remark where runs in it were abandoned.
pub fn open_to_look(given: Given<'_>, face: &mut Face) -> Result<SqliteStore, Failure> {
    let store = SqliteStore::open(&data_dir(given)?, Access::Read).map_err(of_store)?;
    tell_abandoned(&store, face, None)?;
    Ok(store)
}

/// The store of the data directory, opened for a change of what is there; nothing is made where nothing is.
pub fn open_to_change(given: Given<'_>) -> Result<SqliteStore, Failure> {
    let directory = data_dir(given)?;
    if !directory.exists() {
        return Err(of_store(StoreError::NoStore { path: directory.root().to_path_buf() }));
    }
    SqliteStore::open(&directory, Access::Write).map_err(of_store)
}

/// One line about each run that nobody drives any more, but for the one that the command is about.
pub fn tell_abandoned(store: &dyn Store, face: &mut Face, but_for: Option<RunId>) -> Result<(), Failure> {
    let mut abandoned = baton_store::abandoned(store).map_err(of_store)?;
    abandoned.retain(|row| Some(row.run) != but_for);
    let now = Clock::start().now();
    for row in abandoned.iter().take(MAX_NAMED_RUNS) {
        let ago = words::ago(now.since(row.last_at));
        let name = crate::escape::one_line(&row.plan_id);
        if face.is_json() {
            let note = serde_json::json!({ "note": "abandoned", "run": row.run, "plan_id": row.plan_id,
                "last_event_at": baton_store::rfc3339(row.last_at), "resume": format!("baton resume {}", row.run) });
            face.note(&note.to_string());
        } else {
            let run = row.run;
            face.note(&format!("note: run {run} ({name}) was abandoned {ago}; go on with: baton resume {run}"));
        }
    }
    if abandoned.len() > MAX_NAMED_RUNS && !face.is_json() {
        let more = words::counted((abandoned.len() - MAX_NAMED_RUNS) as u64, "more run is", "more runs are");
        face.note(&format!("note: {more} abandoned; see: baton runs --status abandoned"));
    }
    Ok(())
}

/// A store's error as people and programs get it.
pub fn of_store(error: StoreError) -> Failure {
    let code = error.code();
    let exit = match error {
        StoreError::NoSuchRun { .. } => EXIT_USAGE,
        _ => EXIT_REFUSED,
    };
    from_error(code, exit, &error, None)
}

/// An engine's error as people and programs get it.
pub fn of_engine(error: EngineError) -> Failure {
    match error {
        EngineError::Store(error) => of_store(error),
        error => {
            let exit = match error {
                EngineError::UnknownStep { .. } => EXIT_USAGE,
                _ => EXIT_REFUSED,
            };
            from_error(error.code(), exit, &error, error.hint())
        }
    }
}

fn from_error(code: &'static str, exit: u8, error: &dyn std::error::Error, hint: Option<String>) -> Failure {
    let text = error.to_string();
    // Messages that carry their next step have it behind the last `; `.
    let (message, own_hint) = match (&hint, text.rsplit_once("; ")) {
        (None, Some((message, hint))) => (message.to_owned(), Some(hint.to_owned())),
        _ => (text.clone(), None),
    };
    let mut failure = Failure::new(code, exit, message);
    failure.hint = hint.or(own_hint);
    let mut next = error.source();
    while let Some(cause) = next {
        // Some messages already end with what they come from.
        if !text.contains(&cause.to_string()) {
            failure.causes.push(cause.to_string());
        }
        next = cause.source();
    }
    failure
}

/// The run with a number, or the latest one.
pub fn run_or_latest(store: &dyn Store, number: Option<u64>) -> Result<RunId, Failure> {
    match number {
        Some(number) => store.run(RunId(number)).map(|row| row.run).map_err(of_store),
        None => baton_engine::latest_run(store).map_err(of_engine)?.ok_or_else(|| {
            Failure::new("no-runs", EXIT_USAGE, "there is no run in this data directory yet")
                .hint("start one with `baton run PLAN`; `baton init` writes a first plan")
        }),
    }
}

/// Which run and which step are meant, where a step may stand in the place of the run.
pub fn run_and_step(store: &dyn Store, given: Given<'_>) -> Result<(RunId, Option<String>), Failure> {
    let step = given.text("step").map(str::to_owned);
    match given.text("run") {
        None => Ok((run_or_latest(store, None)?, step)),
        Some(word) => match (word.parse::<u64>(), step) {
            (Ok(number), step) => Ok((run_or_latest(store, Some(number))?, step)),
            (Err(_), None) => Ok((run_or_latest(store, None)?, Some(word.to_owned()))),
            (Err(_), Some(_)) => Err(Failure::new("usage", EXIT_USAGE, format!("`{word}` is not the number of a run"))
                .hint("`baton runs` lists the runs")),
        },
    }
}

/// A step that is not in a plan.
pub fn no_such_step<'a>(run: RunId, step: &str, ids: impl Iterator<Item = &'a str>) -> Failure {
    let failure = Failure::new("unknown-step", EXIT_USAGE, format!("the plan of run {run} has no step `{step}`"));
    match closest(step, ids) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint(format!("`baton status {run}` lists the steps")),
    }
}

/// The name that was probably meant.
fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const MAX_NAMES: usize = 20_000;
    let allowed = (name.chars().count() / 3).max(1);
    known
        .take(MAX_NAMES)
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The name of the user who asks.
pub fn user() -> String {
    let uid = rustix::process::getuid().as_raw();
    let named = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    named
        .or_else(|| name_of(uid, &std::fs::read_to_string("/etc/passwd").ok()?))
        .unwrap_or_else(|| format!("user {uid}"))
}

/// The name of a user in the text of `/etc/passwd`.
fn name_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_an_environment_has_a_name_all_the_same() {
        let passwd = "root:x:0:0:root:/:/bin/sh\nada:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("ada"));
        assert_eq!(name_of(7, passwd), None);
    }
}
