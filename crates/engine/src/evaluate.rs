//! The bridge by which the core has a plan's expressions computed.

use baton_core::{Evaluate, Invocation, RunCreated, RunState, StepIndex};
use baton_lang::{Compiled, Scope};
use serde_json::{Map, Value};

/// A plan's expressions in one run.
pub(crate) struct Expressions<'a> {
    pub(crate) plan: &'a Compiled,
    pub(crate) facts: &'a Facts,
}

/// What expressions can know of a run beside its steps.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) plan_dir: String,
    pub(crate) cwd: String,
    pub(crate) kept_steps_have_run: bool,
}

impl Facts {
    pub(crate) fn new(created: &RunCreated) -> Self {
        Self {
            plan_dir: crate::load::plan_dir(created),
            cwd: created.cwd.clone(),
            kept_steps_have_run: created.outputs_from.is_some(),
        }
    }
}

impl Expressions<'_> {
    pub(crate) fn with_scope<T>(&self, state: &RunState, compute: impl FnOnce(&Scope<'_>) -> T) -> T {
        let status = |step: StepIndex| state.status(step);
        let outputs = |step: StepIndex| state.outputs(step).map(|outputs| &**outputs);
        compute(&Scope {
            run: state.run(),
            plan_dir: &self.facts.plan_dir,
            cwd: &self.facts.cwd,
            kept_steps_have_run: self.facts.kept_steps_have_run,
            status: &status,
            outputs: &outputs,
            run_status: state.outcome(),
        })
    }

    /// What the step does, whether or not that depends on expressions.
    pub(crate) fn invocation_of(&self, state: &RunState, step: StepIndex) -> Result<Invocation, String> {
        self.with_scope(state, |scope| self.plan.invocation(step, scope))
    }
}

impl Evaluate for Expressions<'_> {
    fn condition(&self, state: &RunState, step: StepIndex) -> Result<bool, String> {
        self.with_scope(state, |scope| self.plan.condition(step, scope))
    }

    fn invocation(&self, state: &RunState, step: StepIndex) -> Result<Option<Box<Invocation>>, String> {
        if !self.plan.is_dynamic(step) {
            return Ok(None);
        }
        Ok(Some(Box::new(self.invocation_of(state, step)?)))
    }

    fn outputs(&self, state: &RunState) -> Result<Map<String, Value>, String> {
        self.with_scope(state, |scope| self.plan.outputs(scope))
    }
}
