//! One run that this process drives: its state, what is decided and not on disk yet, and what its steps print.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use baton_core::action::INLINE_OUTPUT_BYTES;
use baton_core::lock::LockTable;
use baton_core::{Epoch, Event, EventKind, Input, Output, RunState, StepIndex, Time, decide};
use baton_lang::Compiled;
use baton_store::{CommandId, OutputWriter};

use crate::evaluate::{Expressions, Facts};

/// At most so many events of one run are decided before they are written.
const BATCH_LIMIT: usize = 8192;

/// What an attempt printed that is not in its end event yet.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    pub(crate) attempt: u32,
    /// Kept for the event while it is short and young.
    pub(crate) held: Vec<u8>,
    /// When the first held byte came.
    pub(crate) since: Option<Time>,
    /// Whether the segment has bytes of it.
    pub(crate) spilled: bool,
}

/// A run that this process drives.
pub(crate) struct Live {
    pub(crate) state: RunState,
    pub(crate) plan: Arc<Compiled>,
    pub(crate) facts: Facts,
    pub(crate) epoch: Epoch,
    /// The number of the last event on disk.
    pub(crate) seq: u64,
    pub(crate) inputs: Vec<Input>,
    /// Commands whose inputs are among `inputs` or whose events are in `batch`.
    pub(crate) answered: Vec<CommandId>,
    /// Decided and folded in, but not on disk.
    pub(crate) batch: Vec<Event>,
    /// On disk as started, and not started because the machine had nothing to give.
    pub(crate) to_start: VecDeque<(StepIndex, u32)>,
    pub(crate) printed: BTreeMap<StepIndex, Printed>,
    pub(crate) output: Option<OutputWriter>,
    pub(crate) output_dirty: bool,
    /// When time alone changes something.
    pub(crate) due: Option<Time>,
    /// Whether an interrupt came while the steps ran, and while `finally` did.
    interrupted: [bool; 2],
}

impl Live {
    pub(crate) fn new(state: RunState, plan: Arc<Compiled>, facts: Facts, epoch: Epoch, seq: u64) -> Self {
        Self {
            state,
            plan,
            facts,
            epoch,
            seq,
            inputs: Vec::new(),
            answered: Vec::new(),
            batch: Vec::new(),
            to_start: VecDeque::new(),
            printed: BTreeMap::new(),
            output: None,
            output_dirty: false,
            due: None,
            interrupted: [false; 2],
        }
    }

    /// Takes note of an interrupt; answers whether it is not the first one for what goes on now.
    pub(crate) fn interrupt(&mut self) -> bool {
        std::mem::replace(&mut self.interrupted[usize::from(self.state.outcome().is_some())], true)
    }

    /// Decides what follows from the inputs and the time, and folds it in. Answers whether more would follow.
    pub(crate) fn advance(&mut self, now: Time, locks: &LockTable, kinds: &mut Vec<EventKind>) -> bool {
        self.take_inputs(now, kinds);
        let expressions = Expressions { plan: &self.plan, facts: &self.facts };
        loop {
            kinds.clear();
            if !self.state.next(now, &expressions, locks, kinds) {
                return false;
            }
            fold(&mut self.state, &mut self.batch, kinds, now);
            if self.batch.len() >= BATCH_LIMIT {
                return true;
            }
        }
    }

    /// Decides what follows without starting anything, and folds it in.
    pub(crate) fn settle(&mut self, now: Time, kinds: &mut Vec<EventKind>) {
        self.take_inputs(now, kinds);
        let expressions = Expressions { plan: &self.plan, facts: &self.facts };
        loop {
            kinds.clear();
            if !self.state.next_without_starts(now, &expressions, kinds) {
                return;
            }
            fold(&mut self.state, &mut self.batch, kinds, now);
        }
    }

    /// Decides what follows from the inputs alone.
    pub(crate) fn take_inputs(&mut self, now: Time, kinds: &mut Vec<EventKind>) {
        for input in self.inputs.drain(..) {
            kinds.clear();
            // A refusal means that the input changes nothing: a late answer, or a command to a run that is over.
            if decide(&self.state, input, now, kinds).is_ok() {
                fold(&mut self.state, &mut self.batch, kinds, now);
            }
        }
    }

    pub(crate) fn expressions(&self) -> Expressions<'_> {
        Expressions { plan: &self.plan, facts: &self.facts }
    }

    /// Whether the step is started by an event that is not on disk, so that nothing runs.
    pub(crate) fn is_start_unwritten(&self, step: StepIndex) -> bool {
        self.batch
            .iter()
            .any(|event| matches!(event.kind, EventKind::StepStarted { step: started, .. } if started == step))
    }

    /// Keeps what an attempt printed. Answers whether it must go to the segment now.
    pub(crate) fn print(&mut self, step: StepIndex, attempt: u32, bytes: &[u8], now: Time) -> bool {
        let printed = self.printed.entry(step).or_default();
        if printed.attempt != attempt {
            *printed = Printed { attempt, ..Printed::default() };
        }
        printed.since.get_or_insert(now);
        printed.held.extend_from_slice(bytes);
        printed.spilled || printed.held.len() > INLINE_OUTPUT_BYTES
    }

    /// What the ended attempt printed, for its event. The held bytes of one that has spilled were spilled before.
    pub(crate) fn printed_output(&mut self, step: StepIndex, now: Time) -> Output {
        let Some(printed) = self.printed.remove(&step) else { return Output::None };
        if !printed.spilled {
            return if printed.held.is_empty() { Output::None } else { Output::Inline(printed.held) };
        }
        match &mut self.output {
            Some(writer) => {
                self.output_dirty = true;
                writer.finish(step, printed.attempt, now)
            }
            None => Output::None,
        }
    }
}

fn fold(state: &mut RunState, batch: &mut Vec<Event>, kinds: &mut Vec<EventKind>, now: Time) {
    for kind in kinds.drain(..) {
        let event = Event { at: now, kind };
        state.apply(&event);
        batch.push(event);
    }
}
