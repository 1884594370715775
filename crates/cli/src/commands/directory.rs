//! Looking after the data directory: its health, copies of it, and its size.

use std::collections::BTreeSet;
use std::path::Path;

use baton_core::{Log, Millis, RunId};
use baton_engine::Clock;
use baton_store::{Access, Damage, DamagedRuns, Doctor, GcPolicy, GcReport, SqliteStore};
use serde_json::{Value, json};

use super::{data_dir, of_store, open_to_change, open_to_look, tell_abandoned};
use crate::arguments::{Answer, Given};
use crate::escape;
use crate::face::Face;
use crate::failure::{EXIT_OK, EXIT_REFUSED, Failure};
use crate::words;

/// Runs stay so many days after their end where nobody says otherwise.
const USUAL_KEEP_DAYS: u64 = 30;
/// Names that are listed in full; of more the rest is counted.
const MAX_LISTED: usize = 20;

/// `baton doctor`.
pub fn doctor(given: Given<'_>, face: &mut Face) -> Answer {
    let found = baton_store::doctor(&data_dir(given)?).map_err(of_store)?;
    if face.is_json() {
        face.document(&doctor_json(&found));
    } else {
        face.text(&doctor_text(&found));
    }
    if found.is_healthy() {
        let store = SqliteStore::open(&data_dir(given)?, Access::Read).map_err(of_store)?;
        tell_abandoned(&store, face, None)?;
        return Ok(EXIT_OK);
    }
    Err(Failure::new("unhealthy", EXIT_REFUSED, "the data directory is damaged, see above")
        .hint("runs that are not named above can be trusted; `baton restore FOLDER` takes back a backup"))
}

fn doctor_json(found: &Doctor) -> Value {
    let bytes = &found.bytes;
    let damaged: Vec<Value> =
        found.damaged_logs.iter().map(|log| json!({ "log": log_word(log.log), "problem": log.problem })).collect();
    let files: Vec<Value> = found
        .damaged_files
        .iter()
        .map(|file| json!({ "path": file.path.display().to_string(), "runs": file.runs, "problem": file.problem }))
        .collect();
    let owners: Vec<Value> = found
        .owners
        .iter()
        .map(|owner| {
            json!({ "owner": owner.epoch, "pid": owner.info.pid, "host": owner.info.host, "alive": owner.alive,
                "command": owner.info.command })
        })
        .collect();
    json!({
        "healthy": found.is_healthy(),
        "store_id": found.store_id,
        "sqlite_version": found.sqlite_version,
        "schema_version": found.schema_version,
        "runs": found.runs,
        "events": found.events,
        "database_problems": found.database_problems,
        "damaged_logs": damaged,
        "damaged_files": files,
        "orphans": found.orphans.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        "tables": found.tables.iter().map(|(name, bytes)| json!({ "name": name, "bytes": bytes })).collect::<Vec<_>>(),
        "bytes": { "database": bytes.database, "database_free": bytes.database_free, "wal": bytes.wal,
            "output": bytes.output, "exports": bytes.exports, "artifacts": bytes.artifacts },
        "owners": owners,
    })
}

fn log_word(log: Log) -> String {
    match log {
        Log::Shared => "locks".to_owned(),
        Log::Run(run) => format!("run {run}"),
    }
}

fn doctor_text(found: &Doctor) -> String {
    let mut out = format!(
        "store {}: {}, {}; SQLite {}, schema {}\n",
        found.store_id,
        words::counted(found.runs, "run", "runs"),
        words::counted(found.events, "event", "events"),
        found.sqlite_version,
        found.schema_version
    );
    let bytes = &found.bytes;
    let free = words::bytes(bytes.database_free);
    let sizes = [
        ("database", format!("{} ({free} of it free)", words::bytes(bytes.database))),
        ("write-ahead log", words::bytes(bytes.wal)),
        ("output", words::bytes(bytes.output)),
        ("events.jsonl", words::bytes(bytes.exports)),
        ("artefacts", words::bytes(bytes.artifacts)),
    ];
    let rows: Vec<Vec<String>> = sizes.into_iter().map(|(name, size)| vec![format!("  {name}"), size]).collect();
    out += &words::table(&rows);
    out += "tables and indexes\n";
    let rows: Vec<Vec<String>> =
        found.tables.iter().map(|(name, size)| vec![format!("  {name}"), words::bytes(*size)]).collect();
    out += &words::table(&rows);
    for problem in &found.database_problems {
        out += &format!("DAMAGED database: {}\n", escape::one_line(problem));
    }
    for log in &found.damaged_logs {
        out += &format!("DAMAGED {}: {}\n", log_word(log.log), escape::one_line(&log.problem));
    }
    for file in &found.damaged_files {
        let runs: String = file.runs.iter().map(|run| format!("run {run}, ")).collect();
        out += &format!("DAMAGED {runs}{}: {}\n", file.path.display(), escape::one_line(&file.problem));
    }
    if !found.orphans.is_empty() {
        let count = words::counted(found.orphans.len() as u64, "file", "files");
        out += &format!("{count} that nothing refers to; `baton gc` removes them\n");
    }
    out += if found.is_healthy() { "everything is in order\n" } else { "" };
    out
}

/// `baton backup`.
pub fn backup(given: Given<'_>, face: &mut Face) -> Answer {
    let store = open_to_look(given, face)?;
    let folder = given.path("folder").unwrap_or(Path::new("."));
    let made = store.backup(folder).map_err(of_store)?;
    if face.is_json() {
        let path = folder.display().to_string();
        let damage: Vec<Value> =
            made.damage.iter().map(|damage| json!({ "runs": damage.runs, "problem": damage.problem })).collect();
        face.document(&json!({ "folder": path, "runs": made.runs, "files": made.files, "bytes": made.bytes,
            "damage": damage }));
    } else if !face.quiet {
        let runs = words::counted(made.runs, "run", "runs");
        face.text(&format!("copied {runs}, {}, to {}\n", words::bytes(made.bytes), folder.display()));
    }
    if made.damage.is_empty() { Ok(EXIT_OK) } else { Err(damaged_backup(folder, made.damage)) }
}

/// The copy was made, and not all of it can be trusted.
fn damaged_backup(folder: &Path, damage: Vec<Damage>) -> Failure {
    let folder = folder.display();
    let runs: BTreeSet<RunId> = damage.iter().flat_map(|damage| damage.runs.iter().copied()).collect();
    let mut names: Vec<String> = runs.iter().take(MAX_LISTED).map(|run| format!("run {run}")).collect();
    if runs.len() > MAX_LISTED {
        names.push(format!("{} more", runs.len() - MAX_LISTED));
    }
    let is_whole = damage.iter().any(|damage| damage.runs.is_empty());
    if is_whole {
        names.insert(0, "the store as a whole".to_owned());
    }
    let message = format!("the copy in `{folder}` is made, but in it, as in the original, this is damaged: ");
    let mut failure = Failure::new("backup-damaged", EXIT_REFUSED, message + &names.join(", "));
    failure.causes = damage.into_iter().take(MAX_LISTED).map(|damage| damage.problem).collect();
    failure.hint(if is_whole {
        "`baton restore` refuses it; keep an older backup, and see `baton doctor`".to_owned()
    } else {
        format!("all the other runs are good: `baton restore {folder} --without-damaged` lays them back")
    })
}

/// `baton restore`.
pub fn restore(given: Given<'_>, face: &mut Face) -> Answer {
    let folder = given.path("folder").unwrap_or(Path::new("."));
    let directory = data_dir(given)?;
    let damaged = if given.flag("without-damaged") { DamagedRuns::LeaveOut } else { DamagedRuns::Refuse };
    let restored = baton_store::restore(folder, &directory, damaged).map_err(of_store)?;
    let replaced = restored.replaced.as_ref().map(|path| path.display().to_string());
    if face.is_json() {
        face.document(&json!({ "data_dir": directory.root().display().to_string(), "runs": restored.backup.runs,
            "files": restored.backup.files, "bytes": restored.backup.bytes, "left_out": restored.left_out,
            "replaced": replaced }));
    } else if !face.quiet {
        let runs = words::counted(restored.backup.runs, "run", "runs");
        face.text(&format!("verified and laid back {runs} at {}\n", directory.root().display()));
        if !restored.left_out.is_empty() {
            let names: Vec<String> = restored.left_out.iter().map(ToString::to_string).collect();
            face.text(&format!("left out, because they are damaged or need one that is: {}\n", names.join(", ")));
        }
        if let Some(replaced) = replaced {
            face.text(&format!("what was there before is now in {replaced}\n"));
        }
    }
    Ok(EXIT_OK)
}

/// `baton gc`.
pub fn gc(given: Given<'_>, face: &mut Face) -> Answer {
    const DAY_SECS: u64 = 86_400;
    let mut store = open_to_change(given)?;
    tell_abandoned(&store, face, None)?;
    let days = given.number("keep-days").unwrap_or(USUAL_KEEP_DAYS);
    let policy = GcPolicy {
        keep_for: Some(Millis::from_secs(days.saturating_mul(DAY_SECS))),
        keep_last: given.number("keep-last").map(|runs| usize::try_from(runs).unwrap_or(usize::MAX)),
        dry_run: given.flag("dry-run"),
    };
    let GcReport { runs, artifacts, bytes_freed, .. } = store.gc(policy, Clock::start().now()).map_err(of_store)?;
    if face.is_json() {
        face.document(&json!({ "dry_run": given.flag("dry-run"), "runs": runs, "artifacts": artifacts,
            "bytes_freed": bytes_freed }));
        return Ok(EXIT_OK);
    }
    let verb = if given.flag("dry-run") { "would remove" } else { "removed" };
    let mut out = format!(
        "{verb} {} and {}: {}\n",
        words::counted(runs.len() as u64, "run", "runs"),
        words::counted(artifacts, "artefact", "artefacts"),
        words::bytes(bytes_freed)
    );
    if !runs.is_empty() {
        let mut names: Vec<String> = runs.iter().take(MAX_LISTED).map(ToString::to_string).collect();
        if runs.len() > MAX_LISTED {
            names.push(format!("and {} more", runs.len() - MAX_LISTED));
        }
        out += &format!("  {}\n", names.join(", "));
    }
    if !face.quiet {
        face.text(&out);
    }
    Ok(EXIT_OK)
}
