//! The tables and views of the database, and the way from one version of them to the next.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::{Result, StoreError};

/// "Bato": says that a SQLite file is ours.
pub(crate) const APPLICATION_ID: i64 = 0x4261_746F;

/// The version of the tables that this program writes.
pub(crate) const VERSION: u32 = 1;

/// The events of a log are one range of keys: `log << LOG_SHIFT | seq`. So reading one run is a range scan, a row
/// lives whole in a leaf of the tree, and an append at the end of a log touches one page.
pub(crate) const LOG_SHIFT: u32 = 32;

/// The key of an event.
pub(crate) fn key(log: u64, seq: u64) -> i64 {
    ((log << LOG_SHIFT) | seq) as i64
}

/// What is small and written with every event (`head`) stands apart from what is large and written seldom (`run`).
const VERSION_1: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE event (
    key     INTEGER PRIMARY KEY,   -- the log (0: the one that runs share) << 32 | the number in it, from 1 up
    at      INTEGER NOT NULL,      -- milliseconds since 1970
    kind    TEXT NOT NULL,
    step    TEXT,
    attempt INTEGER,
    payload TEXT NOT NULL,         -- JSON
    hash    BLOB NOT NULL          -- SHA-256 over the previous hash and all of the above
);

CREATE TABLE head (
    log    INTEGER PRIMARY KEY,
    epoch  INTEGER NOT NULL,       -- an append must have it
    owner  INTEGER,                -- the owner that took it last
    seq    INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    format INTEGER NOT NULL,       -- of the events' payloads
    hash   BLOB NOT NULL
);

CREATE TABLE plan (id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, name TEXT NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE plan_part (
    plan INTEGER NOT NULL REFERENCES plan ON DELETE CASCADE,
    part INTEGER NOT NULL,
    text TEXT NOT NULL,
    UNIQUE (plan, part)
);

CREATE TABLE run (
    id              INTEGER PRIMARY KEY REFERENCES head,
    plan            INTEGER NOT NULL REFERENCES plan,
    plan_path       TEXT NOT NULL,
    status          TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    ended_at        INTEGER,
    labels          TEXT NOT NULL,
    idempotency_key TEXT UNIQUE,
    retry_of        INTEGER,
    outputs_from    INTEGER,
    submitted_by    TEXT NOT NULL
);
CREATE INDEX run_open ON run (id) WHERE ended_at IS NULL;
CREATE INDEX run_of_plan ON run (plan);

CREATE TABLE artifact (
    run     INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    seq     INTEGER NOT NULL,
    step    TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    path    TEXT NOT NULL,
    bytes   INTEGER NOT NULL,
    sha256  TEXT NOT NULL
);
CREATE INDEX artifact_of_run ON artifact (run);
CREATE INDEX artifact_content ON artifact (sha256);

CREATE TABLE command (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    run     INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
    kind    TEXT NOT NULL,
    payload TEXT NOT NULL,
    at      INTEGER NOT NULL
);
CREATE INDEX command_of_run ON command (run);

CREATE TABLE owner (
    epoch      INTEGER PRIMARY KEY,
    pid        INTEGER NOT NULL,
    start_time INTEGER NOT NULL,
    boot_id    TEXT NOT NULL,
    host       TEXT NOT NULL,
    command    TEXT NOT NULL,
    since      INTEGER NOT NULL
);

CREATE VIEW runs AS
SELECT run.id AS run, plan.name AS plan_id, plan.sha256 AS plan_sha256, run.plan_path, run.status,
    run.created_at, run.started_at, run.ended_at, head.at AS last_at, run.ended_at - run.started_at AS duration_ms,
    run.labels, run.idempotency_key, run.retry_of, run.outputs_from, run.submitted_by,
    head.owner, head.epoch, head.seq AS last_seq, head.hash AS last_hash
FROM run JOIN head ON head.log = run.id JOIN plan ON plan.id = run.plan;

CREATE VIEW events AS
SELECT run.id AS run, event.key & 4294967295 AS seq, event.at,
    strftime('%Y-%m-%dT%H:%M:%fZ', event.at / 1000.0, 'unixepoch') AS time,
    event.kind, event.step, event.attempt, event.payload, event.hash
FROM run JOIN event ON event.key BETWEEN run.id << 32 AND (run.id << 32) + 4294967295;

CREATE VIEW lock_events AS
SELECT key AS seq, at, strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS time,
    kind, payload ->> 'run' AS run, step, payload, hash
FROM event WHERE key BETWEEN 1 AND 4294967295;

-- Steps of which an event tells; a step that no event names still waits.
CREATE VIEW steps AS
SELECT seen.run, seen.step,
    CASE last.kind
        WHEN 'step_condition' THEN 'waiting'
        WHEN 'step_started' THEN 'running'
        WHEN 'step_stopping' THEN 'running'
        WHEN 'step_retry' THEN 'retrying'
        WHEN 'step_succeeded' THEN 'succeeded'
        WHEN 'step_skipped' THEN 'skipped'
        WHEN 'step_canceled' THEN 'canceled'
        ELSE CASE last.payload ->> 'last' WHEN 1 THEN 'failed' ELSE 'retrying' END
    END AS status,
    seen.attempts, seen.started_at,
    CASE WHEN is_end THEN last.at END AS ended_at,
    CASE WHEN is_end THEN last.at - seen.started_at END AS duration_ms
FROM (
    SELECT run, step, max(seq) AS last_seq, sum(kind = 'step_started') AS attempts,
        min(CASE kind WHEN 'step_started' THEN at END) AS started_at
    FROM events WHERE step IS NOT NULL GROUP BY run, step
) AS seen
JOIN (
    SELECT key, at, kind, payload,
        kind IN ('step_succeeded', 'step_skipped', 'step_canceled') OR payload ->> 'last' IS 1 AS is_end
    FROM event
) AS last ON last.key = (seen.run << 32) + seen.last_seq;

CREATE VIEW plans AS
SELECT sha256, name, bytes,
    (
        SELECT group_concat(text, '') FROM (SELECT text FROM plan_part WHERE plan_part.plan = plan.id ORDER BY part)
    ) AS text
FROM plan;

CREATE VIEW artifacts AS SELECT run, step, attempt, path, bytes, sha256 FROM artifact;

INSERT INTO head (log, epoch, owner, seq, at, format, hash) VALUES (0, 0, NULL, 0, 0, 1, zeroblob(32));
INSERT INTO meta (name, value) VALUES ('last_epoch', 0), ('last_run', 0);
-- With the tables, not after them: a store without a name could not be opened again.
INSERT INTO meta (name, value) VALUES ('store_id', lower(hex(randomblob(4))));
";

/// The way from one version to the next.
pub(crate) struct Migration {
    /// The version it makes.
    pub to: u32,
    /// What it does, in one transaction.
    pub sql: &'static str,
}

/// Every step that there has been. None is ever changed.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration { to: VERSION, sql: VERSION_1 }];

/// Brings the database to the last version of `migrations`, each step in a transaction of its own, and keeps a copy of
/// the database before each step but the first.
pub(crate) fn migrate(connection: &mut Connection, path: &Path, migrations: &[Migration]) -> Result<()> {
    let failed = StoreError::sqlite(path);
    let known = migrations.last().map_or(0, |migration| migration.to);
    let found = version(connection).map_err(&failed)?;
    if found > known {
        return Err(StoreError::NewerSchema { path: path.to_path_buf(), found, known });
    }
    for migration in migrations.iter().filter(|migration| migration.to > found) {
        let from = migration.to - 1;
        if from > 0 {
            back_up_before(connection, path, from)?;
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(&failed)?;
        // Another process may have been faster.
        if version(&transaction).map_err(&failed)? == from {
            transaction.execute_batch(migration.sql).map_err(&failed)?;
            transaction.pragma_update(None, "user_version", migration.to).map_err(&failed)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(&failed)?;
            transaction.commit().map_err(&failed)?;
        }
    }
    Ok(())
}

fn back_up_before(connection: &Connection, path: &Path, version: u32) -> Result<()> {
    let copy = path.with_extension(format!("db.v{version}"));
    let unfinished = path.with_extension(format!("db.v{version}.{}.partial", std::process::id()));
    connection.execute("VACUUM INTO ?1", [unfinished.to_string_lossy()]).map_err(StoreError::sqlite(path))?;
    let sync = || std::fs::File::open(&unfinished)?.sync_all();
    sync().map_err(StoreError::write(&unfinished))?;
    std::fs::rename(&unfinished, &copy).map_err(StoreError::io("rename", &unfinished))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    crate::filesystem::sync_folder(folder).map_err(StoreError::write(folder))
}

/// The version of the tables; 0 where there are none.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Whose database it is; 0 where nobody said.
pub(crate) fn application_id(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "application_id", |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[Migration] = &[
        Migration { to: 1, sql: "CREATE TABLE a (x); INSERT INTO a VALUES (1);" },
        Migration { to: 2, sql: "ALTER TABLE a ADD COLUMN y; UPDATE a SET y = x + 1;" },
    ];

    fn y(path: &Path) -> rusqlite::Result<i64> {
        Connection::open(path)?.query_row("SELECT y FROM a", [], |row| row.get(0))
    }

    #[test]
    fn an_older_database_is_brought_up_to_date_and_kept_as_it_was() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("baton.db");
        migrate(&mut Connection::open(&path).unwrap(), &path, &TWO[..1]).unwrap();
        migrate(&mut Connection::open(&path).unwrap(), &path, TWO).unwrap();
        assert_eq!(y(&path).unwrap(), 2);
        let copy = scratch.path().join("baton.db.v1");
        assert_eq!(version(&Connection::open(&copy).unwrap()).unwrap(), 1);
        assert_eq!(application_id(&Connection::open(&copy).unwrap()).unwrap(), APPLICATION_ID);
        assert!(y(&copy).is_err(), "the copy has the old tables");
    }

    #[test]
    fn a_migration_that_fails_half_way_changes_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("baton.db");
        migrate(&mut Connection::open(&path).unwrap(), &path, &TWO[..1]).unwrap();
        let broken = Migration { to: 2, sql: "ALTER TABLE a ADD COLUMN y; UPDATE nothing SET x = 1;" };
        let migrations = [Migration { to: 1, sql: "" }, broken];
        migrate(&mut Connection::open(&path).unwrap(), &path, &migrations).unwrap_err();
        assert_eq!(version(&Connection::open(&path).unwrap()).unwrap(), 1);
        assert!(y(&path).is_err());
        migrate(&mut Connection::open(&path).unwrap(), &path, TWO).unwrap();
        assert_eq!(y(&path).unwrap(), 2);
    }

    #[test]
    fn a_newer_database_is_refused_with_both_versions() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("baton.db");
        migrate(&mut Connection::open(&path).unwrap(), &path, TWO).unwrap();
        let error = migrate(&mut Connection::open(&path).unwrap(), &path, &TWO[..1]).unwrap_err();
        assert!(matches!(error, StoreError::NewerSchema { found: 2, known: 1, .. }));
    }
}
