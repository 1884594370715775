//! What makes a fresh connection to a database ours.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use super::Access;
use crate::{DataDir, Result, StoreError, filesystem, schema};

/// The WAL file is kept up to this size: its blocks are there already, and a sync that needs no new ones is faster.
const WAL_KEPT_BYTES: u32 = 8 << 20;

/// A new WAL file has this size from the start: what comes between two checkpoints.
const WAL_ALLOCATED_BYTES: u64 = 4_400_000;

/// Makes a fresh connection ours: checks whose database it is, brings it up to date, sets what must be set.
pub(super) fn prepare(connection: &mut Connection, directory: &DataDir, path: &Path, access: Access) -> Result<()> {
    let failed = StoreError::sqlite(path);
    let facts = |connection: &Connection| -> rusqlite::Result<(i64, u32, i64)> {
        // All of one moment: another process may be making the tables.
        let _snapshot = connection.unchecked_transaction()?;
        let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((schema::application_id(connection)?, schema::version(connection)?, tables))
    };
    let (mut id, mut version, mut tables) = facts(connection).map_err(&failed)?;
    let mut guard = None;
    if access == Access::Write && version < schema::VERSION {
        // One process at a time makes or changes tables; what was seen before the lock may be half the truth.
        let folder = File::open(directory.root()).map_err(StoreError::io("open", directory.root()))?;
        folder.lock().map_err(StoreError::io("lock", directory.root()))?;
        guard = Some(folder);
        (id, version, tables) = facts(connection).map_err(&failed)?;
    }
    let is_new = id == 0 && version == 0 && tables == 0;
    if access == Access::Read && is_new {
        return Err(StoreError::NoStore { path: directory.root().to_path_buf() });
    }
    if id != schema::APPLICATION_ID && !is_new {
        return Err(StoreError::Foreign { path: path.to_path_buf(), found: id, expected: schema::APPLICATION_ID });
    }
    if version > schema::VERSION {
        return Err(StoreError::NewerSchema { path: path.to_path_buf(), found: version, known: schema::VERSION });
    }
    if access == Access::Read {
        if version < schema::VERSION {
            let detail = format!(
                "`{}` has schema version {version} and is not brought to {} by looking; a command that writes does \
                 that, such as `baton gc`",
                path.display(),
                schema::VERSION
            );
            return Err(StoreError::Refused { detail });
        }
        return Ok(());
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(&failed)?;
    if cfg!(target_os = "macos") {
        connection.pragma_update(None, "fullfsync", true).map_err(&failed)?;
        connection.pragma_update(None, "checkpoint_fullfsync", true).map_err(&failed)?;
    }
    if version < schema::VERSION {
        if version == 0 {
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(&failed)?;
            connection.pragma_update(None, "journal_mode", "WAL").map_err(&failed)?;
        }
        schema::migrate(connection, path, schema::MIGRATIONS)?;
        lengthen_wal(connection, path)?;
        filesystem::sync_folder(directory.root()).map_err(StoreError::write(directory.root()))?;
    }
    drop(guard);
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(&failed)?;
    if mode != "wal" {
        connection.pragma_update(None, "journal_mode", "WAL").map_err(&failed)?;
    }
    connection.pragma_update(None, "foreign_keys", true).map_err(&failed)?;
    connection.pragma_update(None, "cell_size_check", true).map_err(&failed)?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES).map_err(&failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(&failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(&failed)?;
    Ok(())
}

/// Gives the WAL its blocks in advance: a sync that needs no new blocks takes half the time. SQLite reads a WAL up to
/// the first frame that does not fit, so zeros behind the last one mean nothing to it.
fn lengthen_wal(connection: &mut Connection, path: &Path) -> Result<()> {
    // While the write lock is held nobody appends to the file.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::sqlite(path))?;
    let path = path.with_extension("db-wal");
    let lengthen = || -> std::io::Result<()> {
        let file = std::fs::OpenOptions::new().write(true).open(&path)?;
        let length = file.metadata()?.len();
        let missing = usize::try_from(WAL_ALLOCATED_BYTES.saturating_sub(length)).unwrap_or(0);
        file.write_all_at(&vec![0; missing], length)?;
        file.sync_all()
    };
    match lengthen() {
        // It is only for speed: where there is no space for it, it is left out.
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {}
        outcome => outcome.map_err(StoreError::write(&path))?,
    }
    drop(transaction);
    Ok(())
}
