//! The log of runs: appended in groups with one sync, read back verified, never deciding anything about a run.
//!
//! [`Store`] is the seam. [`SqliteStore`] keeps it in a data directory, [`MemoryStore`] in memory for simulations;
//! one suite of tests runs on both. Everything here is synchronous and belongs to one thread.

mod artifact;
mod backup;
mod ballast;
mod chain;
mod directory;
mod doctor;
mod error;
mod export;
mod filesystem;
mod gc;
mod memory;
mod output;
mod owner;
mod schema;
mod sqlite;
pub mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use baton_core::lock::{LockEvent, LockEventKind, LockTable};
use baton_core::{Epoch, Event, Graph, Log, RunCreated, RunId, RunStatus, Time};
use serde_json::{Map, Value};

pub use artifact::{ArtifactIntake, MAX_ARTIFACT_BYTES};
pub use backup::{Backup, DamagedRuns, Restored, restore};
pub use directory::DataDir;
pub use doctor::{Bytes, Damage, DamagedFile, DamagedLog, Doctor, doctor};
pub use error::StoreError;
pub use export::rfc3339;
pub use gc::{GcPolicy, GcReport};
pub use memory::{Fault, MemoryKeeps, MemoryStore};
pub use output::{Chunk, OutputLimits, OutputWriter, Piece, SegmentReader};
pub use owner::{OwnerInfo, wait_for_death};
pub use sqlite::{Access, SqliteStore};

/// How long a call waits for another process that writes, where nobody says otherwise.
pub const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// The SHA-256 of some bytes in hexadecimal: the name under which plans and artefacts are kept.
pub fn sha256_hex(bytes: &[u8]) -> String {
    chain::hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes))
}

/// What every call answers with.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Where runs are kept. Every method that changes something has synced it when it returns.
pub trait Store {
    /// How long a call waits for another process that writes before it answers with [`StoreError::Busy`], which means
    /// that nothing was changed. It is [`BUSY_LIMIT`] where nobody says otherwise.
    fn set_wait(&mut self, wait: Duration) -> Result<()>;

    /// Registers this process as an owner of runs; it counts as alive until it dies.
    fn register(&mut self, info: &OwnerInfo) -> Result<Epoch>;

    /// Every owner that is known, and whether it is alive.
    fn owners(&self) -> Result<Vec<OwnerRow>>;

    /// Submits a run, or answers with the run that has the same idempotency key. Without an owner it waits for one.
    /// The runs that it refers to must be there, and stay as long as it needs them.
    fn create_run(&mut self, new: &NewRun<'_>, owner: Option<Epoch>) -> Result<Created>;

    /// Takes over a run that has no living owner. The answer is the epoch for every [`Append`] to this run.
    fn acquire(&mut self, run: RunId, owner: Epoch) -> Result<Epoch>;

    /// Shuts the dead owner of a run out for good: it can append neither to the run nor about its locks any more. The
    /// run stays abandoned. The answer is the epoch for what `owner`, who needs the locks, appends about them.
    fn shut_out(&mut self, run: RunId, owner: Epoch) -> Result<Epoch>;

    /// Writes all groups in one transaction with one sync. A group is written whole or not at all.
    fn append(&mut self, groups: &[Group<'_>]) -> Result<Vec<Outcome>>;

    /// One run.
    fn run(&self, run: RunId) -> Result<RunRow>;

    /// The runs that the filter lets through, the newest first.
    fn runs(&self, filter: &Filter) -> Result<Vec<RunRow>>;

    /// What was fixed when the run was submitted, and when that was.
    fn created(&self, run: RunId) -> Result<(Time, RunCreated)>;

    /// The text of a plan.
    fn plan_text(&self, sha256: &str) -> Result<String>;

    /// Events for people and programs, from the one after `after_seq`, at most `limit`.
    fn events(&self, log: Log, after_seq: u64, limit: usize) -> Result<Vec<StoredEvent>>;

    /// Hands every event of the run to `each` in order, and verifies the hash chain on the way. Answers with the
    /// last event's number.
    fn replay(&self, run: RunId, graph: &Graph, each: &mut dyn FnMut(Event)) -> Result<u64>;

    /// Folds every event of the shared log after `after_seq` into `table`; answers with the last event's number. From 0
    /// on the hash chain is verified on the way.
    fn follow_locks(&self, table: &mut LockTable, after_seq: u64) -> Result<u64>;

    /// Leaves a command for the owner of a run and wakes it.
    fn push_command(&mut self, run: RunId, command: &Command, at: Time) -> Result<CommandId>;

    /// The commands that wait for runs of this owner, the oldest first.
    fn commands(&self, owner: Epoch) -> Result<Vec<PendingCommand>>;

    /// Wakes an owner. Answers whether somebody was there.
    fn wake(&self, owner: Epoch) -> Result<bool>;

    /// The writer of a run's output segment; the file appears with the first byte.
    fn output_writer(&mut self, run: RunId) -> Result<OutputWriter>;

    /// Writes committed events to the export files. To be called after every [`Store::append`], once what the
    /// events allow has been started.
    fn export_flush(&mut self) -> Result<()>;

    /// Work that can wait for a calm moment: checkpoints of the WAL, the ballast. To be called after every round.
    fn maintain(&mut self) -> Result<()>;

    /// Whether the disk was full at the last write: start nothing new until [`Store::maintain`] has cleared it.
    fn is_full(&self) -> bool;
}

/// A run to be submitted.
#[derive(Clone, Copy, Debug)]
pub struct NewRun<'a> {
    /// Everything that is fixed from now on.
    pub created: &'a RunCreated,
    /// The plan's text, whose SHA-256 is `created.plan_sha256`.
    pub plan_text: &'a str,
    /// When it is submitted.
    pub at: Time,
}

/// What became of a submitted run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// It is new; its log holds `run_created`.
    New {
        /// Its number.
        run: RunId,
    },
    /// A run with the same idempotency key was there already.
    Existing {
        /// Its number.
        run: RunId,
    },
}

impl Created {
    /// The run's number, new or not.
    pub fn run(self) -> RunId {
        match self {
            Created::New { run } | Created::Existing { run } => run,
        }
    }
}

/// Appends that are written together or not at all, and the commands they answer.
#[derive(Clone, Debug, Default)]
pub struct Group<'a> {
    /// The appends, each log at most once.
    pub appends: Vec<Append<'a>>,
    /// Commands that are done with; they are removed in the same transaction.
    pub answered: Vec<CommandId>,
}

/// Events for the end of one log.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    /// The log.
    pub log: Log,
    /// The owner's epoch for this run; for the shared log that for the runs whose locks the events are about. To
    /// release the locks of a run that is gone any epoch will do.
    pub epoch: Epoch,
    /// The number of the log's last event as the writer knows it; `None`: whatever it is.
    pub expected_seq: Option<u64>,
    /// The events.
    pub events: Events<'a>,
}

/// Events of one of the two kinds of log.
#[derive(Clone, Copy, Debug)]
pub enum Events<'a> {
    /// For the log of a run, with the graph that knows its steps' names.
    Run(&'a [Event], &'a Graph),
    /// For the shared log.
    Locks(&'a [LockEvent]),
}

impl Events<'_> {
    /// The runs whose locks they are about.
    fn lock_runs(&self) -> BTreeSet<RunId> {
        match self {
            Events::Run(..) => BTreeSet::new(),
            Events::Locks(events) => events.iter().map(|event| event.holder.run).collect(),
        }
    }

    /// Whether those about the locks of this run let go of them.
    fn only_release_locks_of(&self, run: RunId) -> bool {
        match self {
            Events::Run(..) => true,
            Events::Locks(events) => events
                .iter()
                .all(|event| event.holder.run != run || matches!(event.kind, LockEventKind::Released { .. })),
        }
    }

    /// Whether the run takes nothing more after them.
    fn end_run(&self) -> bool {
        match self {
            Events::Run(events, _) => {
                matches!(events.last(), Some(Event { kind: baton_core::EventKind::RunCompleted { .. }, .. }))
            }
            Events::Locks(_) => false,
        }
    }
}

/// Why this append cannot be made to a log with this epoch and this last number; `None` for a log that has ended.
fn conflict(append: &Append<'_>, head: Option<(Epoch, u64)>) -> Option<Conflict> {
    let Some((epoch, seq)) = head else { return Some(Conflict::Ended) };
    // About the shared log see `lock_conflict`.
    if append.log != Log::Shared && epoch != append.epoch {
        return Some(Conflict::Epoch { found: epoch });
    }
    append.expected_seq.filter(|expected| *expected != seq).map(|_| Conflict::Seq { found: seq })
}

/// Why this cannot be appended about the locks of a run with this epoch; `None` for one that is gone. A run that has
/// ended may still let go of locks. One that is gone cannot, so whoever finds its locks may, and nobody can take any.
fn lock_conflict(append: &Append<'_>, run: RunId, epoch: Option<Epoch>) -> Option<Conflict> {
    match epoch {
        None => (!append.events.only_release_locks_of(run)).then_some(Conflict::Ended),
        Some(found) => (found != append.epoch).then_some(Conflict::Epoch { found }),
    }
}

/// What became of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All of it is on disk.
    Committed {
        /// For each append the number of its log's last event now.
        last_seqs: Vec<u64>,
    },
    /// None of it was written.
    Conflict {
        /// The log that was not as expected.
        log: Log,
        /// Why.
        reason: Conflict,
    },
}

/// Why a group was not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conflict {
    /// Somebody else owns the run now.
    Epoch {
        /// The epoch that the run has.
        found: Epoch,
    },
    /// The log has another end than expected.
    Seq {
        /// The number of its last event.
        found: u64,
    },
    /// The run has ended, or there is no such run.
    Ended,
}

/// A row of `runs`.
#[derive(Clone, PartialEq, Debug)]
pub struct RunRow {
    /// The run's number.
    pub run: RunId,
    /// The plan's `plan_id`.
    pub plan_id: String,
    /// The plan's text is kept under this.
    pub plan_sha256: String,
    /// The file the plan was read from.
    pub plan_path: String,
    /// Where the run is.
    pub phase: RunPhase,
    /// When it was submitted.
    pub created_at: Time,
    /// When it started.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// When its last event was written.
    pub last_at: Time,
    /// The number of its last event.
    pub last_seq: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its idempotency key.
    pub idempotency_key: Option<String>,
    /// The run of which it is a retry.
    pub retry_of: Option<RunId>,
    /// Who submitted it.
    pub submitted_by: String,
    /// The owner it has or had last; `None`: nobody has taken it yet.
    pub owner: Option<Epoch>,
    /// The epoch that an append must have.
    pub epoch: Epoch,
}

/// Where a run is, as its row says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunPhase {
    /// Submitted, not started: it waits for an owner or for locks.
    Waiting,
    /// Started.
    Running,
    /// Nothing new starts; what runs is being ended.
    Stopping,
    /// Every step is settled.
    Ended(RunStatus),
}

impl RunPhase {
    /// The word for it in SQL and JSON.
    pub fn name(self) -> &'static str {
        match self {
            RunPhase::Waiting => "waiting",
            RunPhase::Running => "running",
            RunPhase::Stopping => "stopping",
            RunPhase::Ended(RunStatus::Succeeded) => "succeeded",
            RunPhase::Ended(RunStatus::Failed) => "failed",
            RunPhase::Ended(RunStatus::Canceled) => "canceled",
        }
    }

    /// The phase with this name.
    pub fn parse(name: &str) -> Option<RunPhase> {
        Some(match name {
            "waiting" => RunPhase::Waiting,
            "running" => RunPhase::Running,
            "stopping" => RunPhase::Stopping,
            "succeeded" => RunPhase::Ended(RunStatus::Succeeded),
            "failed" => RunPhase::Ended(RunStatus::Failed),
            "canceled" => RunPhase::Ended(RunStatus::Canceled),
            _ => return None,
        })
    }

    /// Whether nothing can happen any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, RunPhase::Ended(_))
    }
}

/// Which runs to list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Only those that have not ended (`Some(true)`), or have (`Some(false)`).
    pub open: Option<bool>,
    /// Only those of this plan.
    pub plan_id: Option<String>,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only those submitted before this one, for reading page by page.
    pub before: Option<RunId>,
    /// At most so many.
    pub limit: Option<usize>,
}

impl Filter {
    /// Only the runs that have not ended.
    pub fn open() -> Self {
        Self { open: Some(true), ..Self::default() }
    }

    fn lets_through(&self, row: &RunRow) -> bool {
        self.open.is_none_or(|open| open != row.phase.is_terminal())
            && self.plan_id.as_ref().is_none_or(|plan_id| *plan_id == row.plan_id)
            && self.before.is_none_or(|before| row.run < before)
            && self.labels.iter().all(|(name, value)| row.labels.get(name) == Some(value))
    }
}

/// The runs without a living owner that somebody drove before: those that `resume` is for.
pub fn abandoned(store: &dyn Store) -> Result<Vec<RunRow>> {
    let mut open = store.runs(&Filter::open())?;
    if open.is_empty() {
        return Ok(open);
    }
    let alive: Vec<Epoch> = store.owners()?.iter().filter(|owner| owner.alive).map(|owner| owner.epoch).collect();
    open.retain(|row| row.owner.is_some_and(|owner| !alive.contains(&owner)));
    Ok(open)
}

/// An event as people and programs outside see it.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredEvent {
    /// Its number in its log, from 1 up.
    pub seq: u64,
    /// When it was decided.
    pub at: Time,
    /// Its name.
    pub kind: String,
    /// The step's path.
    pub step: Option<String>,
    /// The attempt.
    pub attempt: Option<u32>,
    /// Everything else.
    pub payload: Map<String, Value>,
}

/// A process that owns or owned runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnerRow {
    /// Its number.
    pub epoch: Epoch,
    /// What it said about itself.
    pub info: OwnerInfo,
    /// When it registered.
    pub since: Time,
    /// Whether it lives.
    pub alive: bool,
}

/// The number of a command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId(pub u64);

/// What another process wants of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// The run is to be canceled.
    Cancel {
        /// Who wants it.
        by: String,
        /// Whether what runs is ended at once and without asking.
        hurry: bool,
    },
}

/// A command that waits for the owner of its run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingCommand {
    /// Its number.
    pub id: CommandId,
    /// The run.
    pub run: RunId,
    /// When it was given.
    pub at: Time,
    /// What is wanted.
    pub command: Command,
}
