//! The machine's own bound for durable steps in a chain: synced commits of one small row, without an engine.

use std::path::Path;
use std::time::Instant;

use rusqlite::Connection;

/// How many rows are committed, one at a time.
const COMMITS: u32 = 1_000;
/// A row about as large as an event of a step.
const ROW: [u8; 128] = [7; 128];

/// Commits per second in a new database in `folder`.
pub fn per_second(folder: &Path) -> Result<f64, String> {
    measure(folder).map_err(|error| format!("the bare SQLite loop: {error}"))
}

fn measure(folder: &Path) -> rusqlite::Result<f64> {
    let database = Connection::open(folder.join("commits.sqlite"))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.execute("CREATE TABLE event (number INTEGER PRIMARY KEY, payload BLOB NOT NULL)", ())?;
    let mut insert = database.prepare("INSERT INTO event (payload) VALUES (?1)")?;
    let start = Instant::now();
    for _ in 0..COMMITS {
        insert.execute([&ROW[..]])?;
    }
    Ok(f64::from(COMMITS) / start.elapsed().as_secs_f64())
}
