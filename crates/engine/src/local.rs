//! The engine of one process on one data directory: a database, real processes, and runs that can be taken over.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use baton_actions::{Host, HostOptions};
use baton_core::operation::{self, Operation};
use baton_core::{Input, RunId};
use baton_store::{ArtifactIntake, OwnerInfo, SqliteStore, Store};

use crate::evaluate::Facts;
use crate::hands::Processes;
use crate::live::Live;
use crate::load::{self, Loaded};
use crate::{Engine, EngineError};

/// The engine over a data directory and real processes.
pub type LocalEngine = Engine<SqliteStore, Processes>;

/// What a resume met.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resumed {
    /// Processes of the dead owner that were still running and were ended: `pid name` of each.
    pub survivors: Vec<String>,
    /// How many attempts were in flight when the owner died.
    pub lost: usize,
}

impl LocalEngine {
    /// Registers this process as an owner of runs in the store's data directory and prepares it for children.
    /// `self_exe` is this program.
    pub fn open(mut store: SqliteStore, self_exe: PathBuf) -> Result<Self, EngineError> {
        let owner = store.register(&OwnerInfo::current())?;
        let scratch = store.directory().scratch();
        let options = HostOptions { scratch, catch_signals: true, cgroup: baton_actions::own_cgroup(), owner };
        let mut host = Host::new(options).map_err(|source| EngineError::Setup { source })?;
        let wake = store.wake_fd().map(|fd| fd.try_clone_to_owned()).transpose();
        let wake = wake.map_err(|source| EngineError::Setup { source })?.map(|fd| Arc::new(File::from(fd)));
        if let Some(wake) = &wake {
            host.watch(&**wake).map_err(|source| EngineError::Setup { source })?;
        }
        let directory = store.directory().clone();
        let store_name = store.id().to_owned();
        let intake = ArtifactIntake::new(&directory);
        let mut engine = Engine::new(store, Processes { host, self_exe, directory, wake }, owner, store_name)?;
        engine.artifacts = Some(intake);
        Ok(engine)
    }

    /// Takes over a run whose owner died. What the dead owner left running is ended first, so that two attempts of one
    /// step never run together. The run goes on with [`Engine::drive`].
    pub fn resume(&mut self, run: RunId) -> Result<Resumed, EngineError> {
        let row = self.store.run(run)?;
        let owner = load::live_owner(&self.store, &row)?;
        operation::check(Operation::Resume, run, load::situation(&row, owner.as_ref()))?;
        // What cannot be read is not taken over: nobody else could do anything about it then.
        load::load(&self.store, run)?;
        let epoch = self.store.acquire(run, self.owner)?;
        let Loaded { plan, created, state, seq, .. } = load::load(&self.store, run)?;
        let lost = state.running().count();
        let grace = load::survivor_grace(&state);
        let prefix = format!("{}/{run}/", self.store.id());
        let stays = load::stays(&state, &plan, prefix.clone());
        let ended = baton_actions::end_survivors(&prefix, grace, &|one| stays(&one.attempt))?;
        let mut live = Live::new(state, Arc::new(plan), Facts::new(&created), epoch, seq);
        live.inputs.push(Input::Resume { epoch });
        self.take(run, live);
        self.wake_up()?;
        let survivors = ended.into_iter().map(|one| format!("{} {}", one.pid, one.name)).collect();
        Ok(Resumed { survivors, lost })
    }
}
