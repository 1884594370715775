//! What can go wrong while runs are driven, and what to do about it.

use std::io;

use baton_actions::SurvivorError;
use baton_core::RunId;
use baton_core::operation::Illegal;
use baton_store::StoreError;

/// Why something asked of the engine did not happen.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run is in no state for it.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// Somebody else took over a run that was driven here.
    #[error("run {run} was taken over by another process; what ran here was ended")]
    TakenOver {
        /// The run.
        run: RunId,
    },
    /// The plan kept with a run cannot be read by this version.
    #[error("the plan kept with run {run} is not valid for this version of baton: {problems}")]
    PinnedPlan {
        /// The run.
        run: RunId,
        /// What is wrong with it.
        problems: String,
    },
    /// A step that was named does not exist.
    #[error("the plan of run {run} has no step `{step}`")]
    UnknownStep {
        /// The run.
        run: RunId,
        /// What was asked for.
        step: String,
    },
    /// Every step of the run succeeded.
    #[error("every step of run {run} succeeded, so there is nothing to run again")]
    NothingToRetry {
        /// The run.
        run: RunId,
    },
    /// Waiting for children failed.
    #[error("cannot wait for processes")]
    Wait {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The process machinery could not be set up.
    #[error("cannot set up the running of processes")]
    Setup {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What a dead owner left running could not be ended.
    #[error(transparent)]
    Survivors(#[from] SurvivorError),
}

impl EngineError {
    /// The error's name in JSON and in the manual.
    pub fn code(&self) -> &'static str {
        match self {
            EngineError::Store(error) => error.code(),
            EngineError::Illegal(_) => "illegal-operation",
            EngineError::TakenOver { .. } => "run-taken-over",
            EngineError::PinnedPlan { .. } => "pinned-plan-invalid",
            EngineError::UnknownStep { .. } => "unknown-step",
            EngineError::NothingToRetry { .. } => "nothing-to-retry",
            EngineError::Wait { .. } | EngineError::Setup { .. } => "process-machinery",
            EngineError::Survivors(_) => "survivors",
        }
    }

    /// What to do about it, where somebody knows.
    pub fn hint(&self) -> Option<String> {
        match self {
            EngineError::Store(_) | EngineError::Survivors(_) => None,
            EngineError::Illegal(_) => None,
            EngineError::TakenOver { run } => Some(format!("watch it with `baton status {run}`")),
            EngineError::PinnedPlan { run, .. } => {
                Some(format!("finish run {run} with the version of baton that started it"))
            }
            EngineError::UnknownStep { run, .. } => Some(format!("`baton status {run}` lists the steps")),
            EngineError::NothingToRetry { run } => {
                Some(format!("name the step to begin at: `baton retry {run} --from STEP`"))
            }
            EngineError::Wait { .. } | EngineError::Setup { .. } => {
                Some("the system's message says what is missing; what ran is resumable with `baton resume`".to_owned())
            }
        }
    }
}
