//! Whoever wants to see what happens while it happens.

use baton_core::{Event, RunId, RunState, StepIndex};
use baton_lang::Compiled;

/// A run as an observer sees it.
#[derive(Clone, Copy)]
pub struct RunView<'a> {
    /// The run.
    pub run: RunId,
    /// Its state, with the event that is told already folded in.
    pub state: &'a RunState,
    /// Its plan.
    pub plan: &'a Compiled,
}

/// Sees what is on disk, never what is only intended.
pub trait Observer {
    /// An event is on disk.
    fn event(&mut self, _run: &RunView<'_>, _seq: u64, _event: &Event) {}

    /// A step printed something, already masked.
    fn output(&mut self, _run: &RunView<'_>, _step: StepIndex, _attempt: u32, _bytes: &[u8]) {}

    /// Something that is worth a line but is no event.
    fn notice(&mut self, _run: Option<RunId>, _notice: &Notice) {}

    /// Whether [`Observer::tick`] wants to be called about every [`TICK`] even when nothing happens.
    fn wants_ticks(&self) -> bool {
        false
    }

    /// The loop has nothing to do right now.
    fn tick(&mut self, _runs: &mut dyn Iterator<Item = RunView<'_>>) {}
}

/// How often a live display is drawn anew.
pub const TICK: std::time::Duration = std::time::Duration::from_millis(100);

/// An observer that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Observer for Nobody {}

/// Something that is worth a line but is no event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Processes of an attempt outlived its main process and were ended.
    Leftovers {
        /// The step's id.
        step: String,
        /// `pid name` of each.
        processes: Vec<String>,
    },
    /// Processes of a dead owner's attempts were ended before their steps are tried again.
    Survivors {
        /// `pid name` of each.
        processes: Vec<String>,
    },
    /// Processes were killed and do not die; their attempt still counts as running.
    Stuck {
        /// The step's id.
        step: String,
        /// `pid name (state)` of each.
        processes: Vec<String>,
    },
    /// A run, or a step of it, waits for a lock.
    WaitingForLock {
        /// Who waits.
        holder: String,
        /// For which lock.
        lock: String,
        /// Who has it, or wants it and came first.
        owner: String,
    },
    /// Somebody died with locks; they are free again.
    LocksFreed {
        /// Whose they were.
        holder: String,
    },
    /// The machine has no more processes or descriptors to give just now; starts wait.
    StartsWait {
        /// What the system said.
        error: String,
    },
    /// The disk is full; nothing new starts until it has room again.
    DiskFull,
    /// The disk has room again.
    DiskFree,
    /// Another process keeps the database busy for longer than usual; what is to be written waits for it.
    StoreBusy,
    /// The database can be written again.
    StoreFree,
    /// What a signal was taken for.
    Signal {
        /// Its name.
        name: &'static str,
        /// What happens because of it.
        effect: &'static str,
    },
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Notice::Leftovers { step, processes } => {
                write!(f, "step `{step}` left processes behind, which were ended: {}", processes.join(", "))
            }
            Notice::Survivors { processes } => {
                write!(f, "ended what was still running of the dead owner: {}", processes.join(", "))
            }
            Notice::Stuck { step, processes } => {
                write!(
                    f,
                    "step `{step}` was killed but does not die (it waits in the kernel): {}",
                    processes.join(", ")
                )
            }
            Notice::WaitingForLock { holder, lock, owner } => {
                write!(f, "{holder} waits for lock `{lock}`: {owner} has it or came first")
            }
            Notice::LocksFreed { holder } => write!(f, "{holder} died with locks; they are free again"),
            Notice::StartsWait { error } => write!(f, "cannot start more processes just now ({error}); trying again"),
            Notice::DiskFull => write!(f, "the disk is full; nothing new starts until it has room again"),
            Notice::DiskFree => write!(f, "the disk has room again; going on"),
            Notice::StoreBusy => {
                write!(f, "another process keeps the database busy; nothing new starts until it can be written again")
            }
            Notice::StoreFree => write!(f, "the database is free again; going on"),
            Notice::Signal { name, effect } => write!(f, "{name}: {effect}"),
        }
    }
}
