//! The store in memory, for simulations and for measuring everything but the disk.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use baton_core::lock::LockTable;
use baton_core::{Epoch, Event, EventKind, Graph, Log, RunCreated, RunId, Time};

use crate::stored::{self, Columns, StoredColumns};
use crate::{
    Append, BUSY_LIMIT, Command, CommandId, Conflict, Created, Events, Filter, Group, NewRun, Outcome, OutputWriter,
    OwnerInfo, OwnerRow, PendingCommand, Result, RunPhase, RunRow, Store, StoreError, StoredEvent,
};

/// A fault that the next append meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing is written.
    DiskFull,
    /// Another process writes: nothing is written, and it can be tried again.
    Busy,
    /// Nothing is written, and the store answers nothing more until it is opened again.
    LostBeforeCommit,
    /// Everything is written, but the answer is lost; the store answers nothing more until it is opened again.
    LostAfterCommit,
}

/// How much a memory store keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MemoryKeeps {
    /// Every event, in its stored form.
    #[default]
    Events,
    /// Of each log only its end: for measurements, where nothing is read back.
    Ends,
}

/// A store whose disk is this value: a clone of it is a copy of the disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    keeps: MemoryKeeps,
    logs: BTreeMap<u64, MemoryLog>,
    runs: BTreeMap<RunId, MemoryRun>,
    plans: BTreeMap<String, String>,
    commands: BTreeMap<CommandId, PendingCommand>,
    owners: BTreeMap<Epoch, (OwnerInfo, bool)>,
    last_epoch: u64,
    last_command: u64,
    fault: Option<Fault>,
    /// After so many calls that read or append comes one that finds it busy.
    busy_after: Cell<Option<u32>>,
    full: bool,
    distrusted: bool,
    payload: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct MemoryLog {
    /// 0 until somebody owns it.
    epoch: u64,
    owner: Option<Epoch>,
    seq: u64,
    at: Time,
    rows: Vec<MemoryRow>,
}

#[derive(Clone, Debug)]
struct MemoryRow {
    at: i64,
    kind: &'static str,
    step: Option<Box<str>>,
    attempt: Option<u32>,
    payload: Box<[u8]>,
}

impl MemoryRow {
    fn columns(&self) -> StoredColumns<'_> {
        let MemoryRow { at, kind, step, attempt, payload } = self;
        StoredColumns { at: *at, kind, step: step.as_deref(), attempt: *attempt, payload }
    }
}

#[derive(Clone, Debug)]
struct MemoryRun {
    created: RunCreated,
    phase: RunPhase,
    created_at: Time,
    started_at: Option<Time>,
    ended_at: Option<Time>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(keeps: MemoryKeeps) -> Self {
        Self { keeps, ..Self::default() }
    }

    /// The next append meets this.
    pub fn fail_next_append(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// After so many calls that read or append, one finds another process writing for too long.
    pub fn be_busy_after(&self, calls: u32) {
        self.busy_after.set(Some(calls));
    }

    /// Whether the call that will find it busy is still to come.
    pub fn will_be_busy(&self) -> bool {
        self.busy_after.get().is_some()
    }

    fn count_call(&self) -> Result<()> {
        let Some(before) = self.busy_after.get() else { return Ok(()) };
        self.busy_after.set(before.checked_sub(1));
        if before == 0 { Err(busy()) } else { Ok(()) }
    }

    /// The process of this owner is dead from now on.
    pub fn kill(&mut self, owner: Epoch) {
        if let Some((_, alive)) = self.owners.get_mut(&owner) {
            *alive = false;
        }
    }

    /// Every process is dead, and a new one opens what was committed.
    pub fn reopen_after_crash(&mut self) {
        for (_, alive) in self.owners.values_mut() {
            *alive = false;
        }
        self.distrusted = false;
        self.fault = None;
    }

    /// The disk has space again.
    pub fn free_space(&mut self) {
        self.full = false;
    }

    fn check_trust(&self) -> Result<()> {
        if self.distrusted { Err(StoreError::Distrusted { path: "memory".into() }) } else { Ok(()) }
    }

    fn conflict(&self, append: &Append<'_>) -> Option<Conflict> {
        let head = match append.log {
            Log::Shared => Some(self.logs.get(&0).map_or((Epoch(0), 0), |log| (Epoch(log.epoch), log.seq))),
            Log::Run(run) => {
                let is_open = self.runs.get(&run).is_some_and(|run| !run.phase.is_terminal());
                self.logs.get(&run.0).filter(|_| is_open).map(|log| (Epoch(log.epoch), log.seq))
            }
        };
        let of_run = |run: RunId| crate::lock_conflict(append, run, self.logs.get(&run.0).map(|log| Epoch(log.epoch)));
        append.events.lock_runs().into_iter().find_map(of_run).or_else(|| crate::conflict(append, head))
    }

    /// Who owns a run; it is refused where that is a living process other than `owner`.
    fn dead_owner(&self, run: RunId, owner: Epoch) -> Result<Option<Epoch>> {
        if !self.is_alive(owner) {
            return Err(StoreError::NotAnOwner { owner });
        }
        let old = self.logs.get(&run.0).ok_or(StoreError::NoSuchRun { run })?.owner;
        if let Some(old) = old.filter(|old| *old != owner && self.is_alive(*old)) {
            let OwnerInfo { pid, host, command, .. } = self.owners[&old].0.clone();
            return Err(StoreError::Owned { run, owner: old, pid, host, command });
        }
        Ok(old)
    }

    fn write_append(&mut self, append: &Append<'_>) -> u64 {
        let key = crate::sqlite::log_key(append.log);
        match append.events {
            Events::Run(events, graph) => {
                for event in events {
                    self.push(key, event.at, |payload| stored::encode(event, graph, payload));
                    self.project(RunId(key), event);
                }
            }
            Events::Locks(events) => {
                for event in events {
                    self.push(key, event.at, |payload| stored::encode_lock(event, payload));
                }
            }
        }
        self.logs.get(&key).map_or(0, |log| log.seq)
    }

    fn push<'a>(&mut self, key: u64, at: Time, encode: impl FnOnce(&mut Vec<u8>) -> Columns<'a>) {
        let log = self.logs.entry(key).or_default();
        log.seq += 1;
        log.at = at;
        if self.keeps == MemoryKeeps::Events {
            self.payload.clear();
            let Columns { kind, step, attempt } = encode(&mut self.payload);
            let (step, payload) = (step.map(Box::from), Box::from(&self.payload[..]));
            log.rows.push(MemoryRow { at: at.0, kind, step, attempt, payload });
        }
    }

    fn project(&mut self, run: RunId, event: &Event) {
        let Some(row) = self.runs.get_mut(&run) else { return };
        match &event.kind {
            EventKind::RunStarted => {
                row.phase = RunPhase::Running;
                row.started_at.get_or_insert(event.at);
            }
            EventKind::RunFinally { .. } => row.phase = RunPhase::Running,
            EventKind::RunStopping { .. } => row.phase = RunPhase::Stopping,
            EventKind::RunCompleted { status, .. } => {
                row.phase = RunPhase::Ended(*status);
                row.ended_at = Some(event.at);
                self.commands.retain(|_, command| command.run != run);
            }
            _ => {}
        }
    }

    fn row(&self, run: RunId, memory: &MemoryRun) -> RunRow {
        let created = &memory.created;
        let log = &self.logs[&run.0];
        RunRow {
            run,
            plan_id: created.plan_id.clone(),
            plan_sha256: created.plan_sha256.clone(),
            plan_path: created.plan_path.clone(),
            phase: memory.phase,
            created_at: memory.created_at,
            started_at: memory.started_at,
            ended_at: memory.ended_at,
            last_at: log.at,
            last_seq: log.seq,
            labels: created.labels.clone(),
            idempotency_key: created.idempotency_key.clone(),
            retry_of: created.retry_of,
            submitted_by: created.submitted_by.clone(),
            owner: log.owner,
            epoch: Epoch(log.epoch),
        }
    }

    fn open_run(&self, run: RunId) -> Result<&MemoryRun> {
        let row = self.runs.get(&run).ok_or(StoreError::NoSuchRun { run })?;
        match row.phase {
            RunPhase::Ended(_) => Err(StoreError::Ended { run, status: row.phase.name() }),
            _ => Ok(row),
        }
    }

    fn is_alive(&self, owner: Epoch) -> bool {
        self.owners.get(&owner).is_some_and(|(_, alive)| *alive)
    }
}

impl Store for MemoryStore {
    fn set_wait(&mut self, _wait: Duration) -> Result<()> {
        Ok(())
    }

    fn register(&mut self, info: &OwnerInfo) -> Result<Epoch> {
        self.check_trust()?;
        self.last_epoch += 1;
        let epoch = Epoch(self.last_epoch);
        self.owners.insert(epoch, (info.clone(), true));
        Ok(epoch)
    }

    fn owners(&self) -> Result<Vec<OwnerRow>> {
        self.count_call()?;
        let row = |(epoch, (info, alive)): (&Epoch, &(OwnerInfo, bool))| OwnerRow {
            epoch: *epoch,
            info: info.clone(),
            since: Time(0),
            alive: *alive,
        };
        Ok(self.owners.iter().map(row).collect())
    }

    fn create_run(&mut self, new: &NewRun<'_>, owner: Option<Epoch>) -> Result<Created> {
        self.check_trust()?;
        let key = new.created.idempotency_key.as_ref();
        let same = |(_, run): &(&RunId, &MemoryRun)| key.is_some() && run.created.idempotency_key.as_ref() == key;
        if let Some((run, _)) = self.runs.iter().find(same) {
            return Ok(Created::Existing { run: *run });
        }
        let needed = [new.created.outputs_from, new.created.retry_of].into_iter().flatten();
        if let Some(run) = needed.into_iter().find(|run| !self.runs.contains_key(run)) {
            return Err(StoreError::NoSuchRun { run });
        }
        let run = RunId(self.runs.len() as u64 + 1);
        let log = MemoryLog { epoch: owner.map_or(0, |owner| owner.0), owner, ..MemoryLog::default() };
        self.logs.insert(run.0, log);
        let memory = MemoryRun {
            created: new.created.clone(),
            phase: RunPhase::Waiting,
            created_at: new.at,
            started_at: None,
            ended_at: None,
        };
        self.runs.insert(run, memory);
        self.plans.entry(new.created.plan_sha256.clone()).or_insert_with(|| new.plan_text.to_owned());
        self.push(run.0, new.at, |payload| stored::encode_created(new.created, payload));
        Ok(Created::New { run })
    }

    fn acquire(&mut self, run: RunId, owner: Epoch) -> Result<Epoch> {
        self.check_trust()?;
        let old = self.dead_owner(run, owner)?;
        self.open_run(run)?;
        let log = self.logs.entry(run.0).or_default();
        if old != Some(owner) {
            self.last_epoch += 1;
            log.epoch = self.last_epoch;
            log.owner = Some(owner);
        }
        Ok(Epoch(log.epoch))
    }

    fn shut_out(&mut self, run: RunId, owner: Epoch) -> Result<Epoch> {
        self.check_trust()?;
        let old = self.dead_owner(run, owner)?;
        let log = self.logs.entry(run.0).or_default();
        if old != Some(owner) {
            self.last_epoch += 1;
            log.epoch = self.last_epoch;
        }
        Ok(Epoch(log.epoch))
    }

    fn append(&mut self, groups: &[Group<'_>]) -> Result<Vec<Outcome>> {
        self.check_trust()?;
        self.count_call()?;
        let fault = self.fault.take();
        match fault {
            Some(Fault::Busy) => return Err(busy()),
            Some(Fault::DiskFull) => {
                self.full = true;
                return Err(StoreError::DiskFull { path: "memory".into() });
            }
            Some(Fault::LostBeforeCommit) => {
                self.distrusted = true;
                return Err(StoreError::WriteFailed { path: "memory".into(), detail: "before the commit".into() });
            }
            Some(Fault::LostAfterCommit) | None => {}
        }
        let mut outcomes = Vec::with_capacity(groups.len());
        for group in groups {
            let conflict = group.appends.iter().find_map(|append| Some((append.log, self.conflict(append)?)));
            outcomes.push(match conflict {
                Some((log, reason)) => Outcome::Conflict { log, reason },
                None => {
                    let last_seqs = group.appends.iter().map(|append| self.write_append(append)).collect();
                    for command in &group.answered {
                        self.commands.remove(command);
                    }
                    Outcome::Committed { last_seqs }
                }
            });
        }
        if fault == Some(Fault::LostAfterCommit) {
            self.distrusted = true;
            return Err(StoreError::WriteFailed { path: "memory".into(), detail: "after the commit".into() });
        }
        Ok(outcomes)
    }

    fn run(&self, run: RunId) -> Result<RunRow> {
        self.count_call()?;
        self.runs.get(&run).map(|memory| self.row(run, memory)).ok_or(StoreError::NoSuchRun { run })
    }

    fn runs(&self, filter: &Filter) -> Result<Vec<RunRow>> {
        self.count_call()?;
        let rows = self.runs.iter().rev().map(|(run, memory)| self.row(*run, memory));
        Ok(rows.filter(|row| filter.lets_through(row)).take(filter.limit.unwrap_or(usize::MAX)).collect())
    }

    fn created(&self, run: RunId) -> Result<(Time, RunCreated)> {
        self.count_call()?;
        let memory = self.runs.get(&run).ok_or(StoreError::NoSuchRun { run })?;
        Ok((memory.created_at, memory.created.clone()))
    }

    fn plan_text(&self, sha256: &str) -> Result<String> {
        self.count_call()?;
        self.plans.get(sha256).cloned().ok_or_else(|| StoreError::NoSuchPlan { sha256: sha256.to_owned() })
    }

    fn events(&self, log: Log, after_seq: u64, limit: usize) -> Result<Vec<StoredEvent>> {
        self.count_call()?;
        if let Log::Run(run) = log
            && !self.runs.contains_key(&run)
        {
            return Err(StoreError::NoSuchRun { run });
        }
        let rows = self.logs.get(&crate::sqlite::log_key(log)).map_or(&[][..], |log| &log.rows);
        let from = usize::try_from(after_seq).unwrap_or(usize::MAX);
        let event = |(seq, row): (u64, &MemoryRow)| {
            let damaged = |error: serde_json::Error| StoreError::DamagedLog { log, seq, detail: error.to_string() };
            Ok(StoredEvent {
                seq,
                at: Time(row.at),
                kind: row.kind.to_owned(),
                step: row.step.as_deref().map(str::to_owned),
                attempt: row.attempt,
                payload: serde_json::from_slice(&row.payload).map_err(damaged)?,
            })
        };
        (after_seq + 1..).zip(rows.iter().skip(from)).take(limit).map(event).collect()
    }

    fn replay(&self, run: RunId, graph: &Graph, each: &mut dyn FnMut(Event)) -> Result<u64> {
        self.count_call()?;
        let log = self.logs.get(&run.0).ok_or(StoreError::NoSuchRun { run })?;
        for (seq, row) in (1..).zip(&log.rows) {
            let damaged = |detail| StoreError::DamagedLog { log: Log::Run(run), seq, detail };
            each(stored::decode(&row.columns(), graph).map_err(damaged)?);
        }
        Ok(log.seq)
    }

    fn follow_locks(&self, table: &mut LockTable, after_seq: u64) -> Result<u64> {
        self.count_call()?;
        let Some(log) = self.logs.get(&0) else { return Ok(0) };
        let from = usize::try_from(after_seq).unwrap_or(usize::MAX);
        for (seq, row) in (after_seq + 1..).zip(log.rows.iter().skip(from)) {
            let damaged = |detail| StoreError::DamagedLog { log: Log::Shared, seq, detail };
            table.apply(&stored::decode_lock(&row.columns()).map_err(damaged)?);
        }
        Ok(log.seq)
    }

    fn push_command(&mut self, run: RunId, command: &Command, at: Time) -> Result<CommandId> {
        self.check_trust()?;
        self.open_run(run)?;
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.commands.insert(id, PendingCommand { id, run, at, command: command.clone() });
        Ok(id)
    }

    fn commands(&self, owner: Epoch) -> Result<Vec<PendingCommand>> {
        self.count_call()?;
        let of_owner = |command: &&PendingCommand| self.logs[&command.run.0].owner == Some(owner);
        Ok(self.commands.values().filter(of_owner).cloned().collect())
    }

    fn wake(&self, owner: Epoch) -> Result<bool> {
        Ok(self.is_alive(owner))
    }

    fn output_writer(&mut self, _run: RunId) -> Result<OutputWriter> {
        Ok(OutputWriter::nowhere())
    }

    fn export_flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn maintain(&mut self) -> Result<()> {
        self.check_trust()
    }

    fn is_full(&self) -> bool {
        self.full
    }
}

fn busy() -> StoreError {
    StoreError::Busy { path: "memory".into(), waited_secs: BUSY_LIMIT.as_secs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_store_changes_nothing_and_says_so_once() {
        let mut store = MemoryStore::new(MemoryKeeps::Events);
        let owner = store.register(&OwnerInfo::default()).unwrap();
        let created = RunCreated::default();
        let run = store.create_run(&NewRun { created: &created, plan_text: "", at: Time(0) }, Some(owner)).unwrap();
        let (graph, events) =
            (baton_core::GraphBuilder::with_capacity(0).build(), [Event { at: Time(1), kind: EventKind::RunStarted }]);
        let append = Append {
            log: Log::Run(run.run()),
            epoch: owner,
            expected_seq: Some(1),
            events: Events::Run(&events, &graph),
        };
        let groups = [Group { appends: vec![append], answered: Vec::new() }];
        store.fail_next_append(Fault::Busy);
        assert_eq!(store.append(&groups).unwrap_err().code(), "store-busy");
        store.be_busy_after(2);
        assert_eq!(store.run(run.run()).unwrap().last_seq, 1);
        assert_eq!(store.commands(owner).unwrap(), []);
        assert_eq!(store.follow_locks(&mut LockTable::default(), 0).unwrap_err().code(), "store-busy");
        assert!(!store.will_be_busy());
        assert_eq!(store.follow_locks(&mut LockTable::default(), 0).unwrap(), 0);
        store.be_busy_after(0);
        assert_eq!(store.append(&groups).unwrap_err().code(), "store-busy");
        assert_eq!(store.append(&groups).unwrap(), [Outcome::Committed { last_seqs: vec![2] }]);
    }
}
