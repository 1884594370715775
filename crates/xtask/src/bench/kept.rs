//! That Baton did the work: its store holds a success of every step, and the output where there is some.

use std::path::Path;

use rusqlite::Connection;

use super::workload::Workload;

/// Fails unless the data directory holds what a run of the workload leaves. A runner that does nothing is fast.
pub fn check(data: &Path, workload: &Workload) -> Result<(), String> {
    let path = data.join("baton.db");
    let problem = |error| format!("`{}`: {error}", path.display());
    let database = Connection::open(&path).map_err(problem)?;
    let count = |condition: &str| -> Result<u32, String> {
        let query = format!("SELECT count(*) FROM event WHERE {condition}");
        database.query_row(&query, (), |row| row.get(0)).map_err(problem)
    };
    let started = count("kind = 'step_started'")?;
    let succeeded = match workload.program.output() {
        None => count("kind = 'step_succeeded'")?,
        Some(output) => count(&format!("kind = 'step_succeeded' AND payload ->> 'output' = '{output}'"))?,
    };
    if started < workload.steps || succeeded < workload.steps {
        return Err(format!(
            "`{}` holds {started} starts and {succeeded} successes with their output, and the plan has {} steps",
            path.display(),
            workload.steps
        ));
    }
    Ok(())
}
