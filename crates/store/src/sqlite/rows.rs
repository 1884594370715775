//! Rows of the tables beside the log.

use baton_core::{Epoch, RunId, Time};
use rusqlite::{OptionalExtension, Transaction, params};

use super::unsigned;
use crate::{NewRun, RunPhase, RunRow};

/// A plan's text is kept in rows of about this size, so that a large one needs no second copy in memory.
const PLAN_PART_BYTES: usize = 256 << 10;

pub(super) const SELECT_RUNS: &str = "SELECT run.id, plan.name, plan.sha256, run.plan_path, run.status, run.created_at, \
     run.started_at, run.ended_at, head.at, head.seq, run.labels, run.idempotency_key, run.retry_of, run.submitted_by, \
     head.owner, head.epoch FROM run JOIN head ON head.log = run.id JOIN plan ON plan.id = run.plan";

/// The next number of a counter.
pub(super) fn next(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<u64> {
    transaction
        .prepare_cached("UPDATE meta SET value = value + 1 WHERE name = ?1 RETURNING value")?
        .query_row([name], |row| row.get(0))
        .map(unsigned)
}

pub(super) fn insert_plan(transaction: &Transaction<'_>, new: &NewRun<'_>) -> rusqlite::Result<i64> {
    let sha256 = &new.created.plan_sha256;
    let existing = transaction
        .prepare_cached("SELECT id FROM plan WHERE sha256 = ?1")?
        .query_row([sha256], |row| row.get(0))
        .optional()?;
    if let Some(plan) = existing {
        return Ok(plan);
    }
    transaction.prepare_cached("INSERT INTO plan (sha256, name, bytes) VALUES (?1, ?2, ?3)")?.execute(params![
        sha256,
        new.created.plan_id,
        new.plan_text.len() as i64
    ])?;
    let plan = transaction.last_insert_rowid();
    let mut insert = transaction.prepare_cached("INSERT INTO plan_part (plan, part, text) VALUES (?1, ?2, ?3)")?;
    let mut rest = new.plan_text;
    for part in 0i64.. {
        if rest.is_empty() {
            break;
        }
        let (text, after) = rest.split_at(rest.floor_char_boundary(PLAN_PART_BYTES));
        insert.execute(params![plan, part, text])?;
        rest = after;
    }
    Ok(plan)
}

pub(super) fn run_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<RunRow> {
    let odd = |column: usize, what: String| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
    };
    let status: String = row.get(4)?;
    let labels: String = row.get(10)?;
    Ok(RunRow {
        run: RunId(unsigned(row.get(0)?)),
        plan_id: row.get(1)?,
        plan_sha256: row.get(2)?,
        plan_path: row.get(3)?,
        phase: RunPhase::parse(&status).ok_or_else(|| odd(4, format!("`{status}` is no status")))?,
        created_at: Time(row.get(5)?),
        started_at: row.get::<_, Option<i64>>(6)?.map(Time),
        ended_at: row.get::<_, Option<i64>>(7)?.map(Time),
        last_at: Time(row.get(8)?),
        last_seq: unsigned(row.get(9)?),
        labels: serde_json::from_str(&labels).map_err(|error| odd(10, error.to_string()))?,
        idempotency_key: row.get(11)?,
        retry_of: row.get::<_, Option<i64>>(12)?.map(|run| RunId(unsigned(run))),
        submitted_by: row.get(13)?,
        owner: row.get::<_, Option<i64>>(14)?.map(|owner| Epoch(unsigned(owner))),
        epoch: Epoch(unsigned(row.get(15)?)),
    })
}
