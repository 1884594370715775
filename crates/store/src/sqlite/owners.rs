//! What becomes of runs whose owner is dead.

use baton_core::{Epoch, RunId};
use rusqlite::{OptionalExtension, Transaction, params};

use super::rows::next;
use super::{SqliteStore, unsigned};
use crate::owner::{self, Liveness};
use crate::{Result, RunPhase, StoreError};

/// What a new epoch of a run is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Raise {
    /// Its dead owner is followed by another one.
    TakeOver,
    /// Its dead owner is shut out, and nobody follows yet.
    ShutOut,
}

impl SqliteStore {
    /// Looks after what dead owners left: completes the exports of their runs, removes their files and rows.
    pub(super) fn clear_dead_owners(&mut self) -> Result<()> {
        let failed = self.failed();
        let rows: Vec<i64> = {
            let mut select = self.connection.prepare_cached("SELECT epoch FROM owner").map_err(&failed)?;
            let rows = select.query_map([], |row| row.get(0)).map_err(&failed)?;
            rows.collect::<rusqlite::Result<_>>().map_err(&failed)?
        };
        for epoch in rows {
            let liveness = owner::liveness(&self.directory, Epoch(unsigned(epoch)))?;
            if liveness == Liveness::Alive {
                continue;
            }
            let of_owner = |condition: &str| -> Result<Vec<i64>> {
                let sql = format!("SELECT id FROM run JOIN head ON log = id WHERE owner = ?1 AND ended_at {condition}");
                let mut select = self.connection.prepare(&sql).map_err(&failed)?;
                let rows = select.query_map([epoch], |row| row.get(0)).map_err(&failed)?;
                rows.collect::<rusqlite::Result<_>>().map_err(&failed)
            };
            if liveness == Liveness::Crashed {
                for run in of_owner("IS NOT NULL")? {
                    match self.repair_export(RunId(unsigned(run))) {
                        // A damaged run is told of by whoever reads it; it is no reason not to start.
                        Ok(()) | Err(StoreError::DamagedLog { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                owner::remove(&self.directory, Epoch(unsigned(epoch)));
            }
            // While a run that has not ended names the owner, its row says who that was.
            if self.open_runs_of(epoch)? == 0 {
                let removed = self.connection.execute("DELETE FROM owner WHERE epoch = ?1", [epoch]);
                self.judge(removed.map_err(&failed))?;
            }
        }
        Ok(())
    }

    /// Gives a run whose owner is dead a new epoch, which is the answer. Where `owner` has the run already, nothing
    /// changes.
    pub(super) fn raise_epoch(&mut self, run: RunId, owner: Epoch, raise: Raise) -> Result<Epoch> {
        if owner::liveness(&self.directory, owner)? != Liveness::Alive {
            return Err(StoreError::NotAnOwner { owner });
        }
        let (directory, failed) = (self.directory.clone(), self.failed());
        let epoch = self.write(|transaction| {
            let row: Option<(Option<i64>, i64, String)> = transaction
                .query_row(
                    "SELECT owner, epoch, status FROM run JOIN head ON log = id WHERE id = ?1",
                    [run.0 as i64],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .optional()
                .map_err(&failed)?;
            let Some((old, epoch, status)) = row else { return Err(StoreError::NoSuchRun { run }) };
            if let (Raise::TakeOver, Some(phase @ RunPhase::Ended(_))) = (raise, RunPhase::parse(&status)) {
                return Err(StoreError::Ended { run, status: phase.name() });
            }
            if let Some(old) = old.map(|old| Epoch(unsigned(old))) {
                if old == owner {
                    return Ok(Epoch(unsigned(epoch)));
                }
                if owner::liveness(&directory, old)? == Liveness::Alive {
                    return Err(owned(transaction, run, old).map_err(&failed)?);
                }
            }
            let epoch = next(transaction, "last_epoch").map_err(&failed)?;
            let taker = match raise {
                Raise::TakeOver => Some(owner.0 as i64),
                Raise::ShutOut => None,
            };
            transaction
                .execute(
                    "UPDATE head SET epoch = ?2, owner = coalesce(?3, owner) WHERE log = ?1",
                    params![run.0 as i64, epoch as i64, taker],
                )
                .map_err(&failed)?;
            Ok(Epoch(epoch))
        })?;
        self.heads.remove(&run.0);
        Ok(epoch)
    }

    pub(super) fn open_runs_of(&self, owner: i64) -> Result<i64> {
        self.connection
            .prepare_cached("SELECT count(*) FROM run JOIN head ON log = id WHERE ended_at IS NULL AND owner = ?1")
            .and_then(|mut select| select.query_row([owner], |row| row.get(0)))
            .map_err(self.failed())
    }
}

fn owned(transaction: &Transaction<'_>, run: RunId, owner: Epoch) -> rusqlite::Result<StoreError> {
    let found = transaction
        .query_row("SELECT pid, host, command FROM owner WHERE epoch = ?1", [owner.0 as i64], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let (pid, host, command) = found.unwrap_or((0, "this machine".to_owned(), "unknown".to_owned()));
    Ok(StoreError::Owned { run, owner, pid, host, command })
}
