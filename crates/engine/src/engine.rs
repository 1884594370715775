//! The loop: wait for the world, decide, write once for all runs, then act on what is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baton_actions::{CaughtSignal, Ended, HostEvent, Job, JobContext, JobError, StartError, Stop};
use baton_core::action::{AttemptEnd, ExitCause};
use baton_core::decide::LockMove;
use baton_core::lock::{LockEvent, LockEventKind, LockTable};
use baton_core::mask::Masker;
use baton_core::{Attempt, Epoch, Event, EventKind, Input, Log, Millis, RunId, RunState, StepIndex, Time};
use baton_store::{
    Append, ArtifactIntake, BUSY_LIMIT, Conflict, Created, Events, Group, NewRun, Outcome, Store, StoreError,
};

use crate::EngineError;
use crate::clock::Clock;
use crate::evaluate::Facts;
use crate::hands::Hands;
use crate::live::Live;
use crate::load::{self, Submission};
use crate::observer::{Notice, Observer, RunView, TICK};

/// Output younger than this is held in memory, so that a short step costs no file; then others can see it.
const HOLD_OUTPUT: Millis = Millis(150);

/// How long starts wait after the machine had no process or descriptor to give.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// How long a full disk is left alone before the next try.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// How long the loop stands still for another process that writes to the store; then it hears the world again.
const WRITE_WAIT: Duration = Duration::from_millis(250);

/// How long a busy store is left alone before the next try.
const WRITE_PAUSE: Millis = Millis(100);

/// A store that is busy for longer than this is told of.
const WRITE_PATIENCE: Millis = Millis::from_secs(2);

/// How long this process, told to go, waits for a busy store; what it could not write is repeated by who resumes.
const LEAVE_WRITE_LIMIT: Millis = Millis::from_secs(5);

/// [`TICK`] as the core counts time.
const TICK_TIME: Millis = Millis(TICK.as_millis() as u64);

/// How long killed processes may take to be gone before this process goes without having seen their end; whoever
/// resumes the run ends them first.
const LEAVE_LIMIT: Millis = Millis::from_secs(20);

/// How often another process's changes to the lock log may get in the way of a grant within one round.
const GRANT_TRIES: u32 = 64;

/// What became of a submission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Submitted {
    /// The run.
    pub run: RunId,
    /// Whether it was there before, under the same idempotency key.
    pub existing: bool,
}

/// Why [`Engine::drive`] came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drive {
    /// Every run that was driven here is over.
    Done,
    /// A signal asked this process to go; its runs are left for `resume`.
    Abandoned {
        /// The signal's name.
        signal: &'static str,
    },
}

/// Drives runs: one per process, on one thread.
pub struct Engine<S, H> {
    pub(crate) store: S,
    pub(crate) hands: H,
    pub(crate) clock: Clock,
    pub(crate) owner: Epoch,
    store_name: String,
    masker: Masker,
    /// Where the files that attempts leave on purpose go; without it none are kept.
    pub(crate) artifacts: Option<ArtifactIntake>,
    runs: BTreeMap<RunId, Live>,
    /// Runs for which something may follow.
    dirty: BTreeSet<RunId>,
    due: BTreeSet<(Time, RunId)>,
    locks: LockTable,
    locks_seq: u64,
    found: Vec<HostEvent>,
    kinds: Vec<EventKind>,
    leaving: Option<&'static str>,
    disk_is_full: bool,
    /// Another process writes to the store, and what is decided here waits.
    busy: Option<Busy>,
    starts_wait: bool,
    next_tick: Time,
    told_waiting: BTreeSet<String>,
    watched: BTreeSet<(Epoch, RunId)>,
    /// Runs whose left-over processes are being ended.
    ending: BTreeSet<(Epoch, RunId)>,
    results: BTreeMap<RunId, baton_core::RunStatus>,
    taken_over: Vec<RunId>,
}

/// A store that another process keeps busy.
#[derive(Clone, Copy, Debug)]
struct Busy {
    since: Time,
    next_try: Time,
    told: bool,
}

impl<S: Store, H: Hands> Engine<S, H> {
    /// An engine over a store in which this process is registered as `owner`.
    pub fn new(store: S, hands: H, owner: Epoch, store_name: String) -> Result<Self, EngineError> {
        let mut engine = Self {
            store,
            hands,
            clock: Clock::start(),
            owner,
            store_name,
            masker: Masker::none(),
            artifacts: None,
            runs: BTreeMap::new(),
            dirty: BTreeSet::new(),
            due: BTreeSet::new(),
            locks: LockTable::default(),
            locks_seq: 0,
            found: Vec::new(),
            kinds: Vec::new(),
            leaving: None,
            disk_is_full: false,
            busy: None,
            starts_wait: false,
            next_tick: Time(0),
            told_waiting: BTreeSet::new(),
            watched: BTreeSet::new(),
            ending: BTreeSet::new(),
            results: BTreeMap::new(),
            taken_over: Vec::new(),
        };
        engine.follow_locks()?;
        Ok(engine)
    }

    /// The store, for looking.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The runs driven here that are not over.
    pub fn runs(&self) -> impl Iterator<Item = RunView<'_>> {
        self.runs.iter().map(|(run, live)| RunView { run: *run, state: &live.state, plan: &live.plan })
    }

    /// How a run that was driven here ended.
    pub fn result(&self, run: RunId) -> Option<baton_core::RunStatus> {
        self.results.get(&run).copied()
    }

    /// Puts a run on disk. When this returns, nothing but a lost disk can lose it.
    pub fn submit(&mut self, submission: Submission) -> Result<Submitted, EngineError> {
        let Submission { source, compiled, created } = submission;
        let at = self.clock.now();
        let kept_outputs = load::kept_outputs(&self.store, &created, &compiled.graph)?;
        let new = NewRun { created: &created, plan_text: &source.text, at };
        let run = match self.store.create_run(&new, Some(self.owner))? {
            Created::New { run } => run,
            Created::Existing { run } => return Ok(Submitted { run, existing: true }),
        };
        let mut graph = compiled.graph.clone();
        if let Some(limit) = created.max_concurrency {
            Arc::make_mut(&mut graph).set_max_concurrency(limit);
        }
        let state = RunState::new(run, graph, at, &created, kept_outputs);
        let facts = Facts::new(&created);
        self.take(run, Live::new(state, Arc::new(compiled), facts, self.owner, 1));
        Ok(Submitted { run, existing: false })
    }

    /// Makes a run that is loaded and owned by this process go on.
    pub(crate) fn take(&mut self, run: RunId, live: Live) {
        self.runs.insert(run, live);
        self.dirty.insert(run);
    }

    /// Cancels a run that is driven here.
    pub fn cancel(&mut self, run: RunId, by: &str, hurry: bool) {
        if let Some(live) = self.runs.get_mut(&run) {
            live.inputs.push(Input::Cancel { by: by.to_owned(), hurry });
            self.dirty.insert(run);
        }
    }

    /// Drives every run until all are over, or a signal asks this process to go.
    pub fn drive(&mut self, observer: &mut dyn Observer) -> Result<Drive, EngineError> {
        self.store.set_wait(WRITE_WAIT)?;
        let drive = self.drive_to_end(observer);
        self.store.set_wait(BUSY_LIMIT)?;
        drive
    }

    fn drive_to_end(&mut self, observer: &mut dyn Observer) -> Result<Drive, EngineError> {
        loop {
            if let Some(signal) = self.leaving {
                self.leave(observer)?;
                return Ok(Drive::Abandoned { signal });
            }
            self.round(observer)?;
            if self.runs.is_empty() {
                return self.done();
            }
            let timeout = self.timeout(observer);
            self.wait(timeout, observer)?;
        }
    }

    /// Nothing is driven here any more.
    fn done(&mut self) -> Result<Drive, EngineError> {
        let Some(run) = self.taken_over.pop() else { return Ok(Drive::Done) };
        // What ran here was told to end; it is told in this call.
        self.hands.wait(Some(Duration::ZERO), &mut self.found)?;
        Err(EngineError::TakenOver { run })
    }

    /// Decides, writes and acts until nothing follows without waiting.
    pub fn round(&mut self, observer: &mut dyn Observer) -> Result<(), EngineError> {
        let now = self.clock.now();
        if self.is_held(now) {
            let spilled = self.spill_old_output(now);
            self.unless_held(spilled, observer)?;
            return Ok(());
        }
        let decided = self.decide_and_write(now, observer);
        self.unless_busy(decided, observer)?;
        let spilled = self.spill_old_output(now);
        self.unless_held(spilled, observer)?;
        // An export that is behind is completed by the run's next owner.
        let exported = self.store.export_flush();
        self.unless_held(exported.map_err(EngineError::from), observer)?;
        let maintained = self.store.maintain();
        self.unless_held(maintained.map_err(EngineError::from), observer)?;
        if self.disk_is_full && !self.store.is_full() && self.flush_output() {
            self.disk_is_full = false;
            observer.notice(None, &Notice::DiskFree);
            self.dirty.extend(self.runs.keys());
        }
        if let Some(busy) = self.busy
            && !self.is_held(now)
        {
            self.busy = None;
            if busy.told {
                observer.notice(None, &Notice::StoreFree);
            }
            self.dirty.extend(self.runs.keys());
        }
        Ok(())
    }

    fn decide_and_write(&mut self, now: Time, observer: &mut dyn Observer) -> Result<(), EngineError> {
        if self.busy.is_some() {
            // Whatever could not be read or told when the store was busy is made good.
            self.wake_up()?;
            self.wake_waiting()?;
        }
        while let Some(&(due, run)) = self.due.first()
            && due <= now
        {
            self.due.remove(&(due, run));
            self.dirty.insert(run);
        }
        if !self.dirty.is_empty() || self.disk_is_full {
            let mut again = BTreeSet::new();
            for run in std::mem::take(&mut self.dirty) {
                let Some(live) = self.runs.get_mut(&run) else { continue };
                if self.disk_is_full || self.busy.is_some() || self.store.is_full() {
                    live.settle(now, &mut self.kinds);
                } else if live.advance(now, &self.locks, &mut self.kinds) {
                    again.insert(run);
                }
                self.note_due(run, now);
            }
            self.dirty.append(&mut again);
            self.commit(now, observer)?;
            if self.store.is_full() {
                self.note_full(observer);
            }
            self.move_locks(now, observer)?;
        }
        Ok(())
    }

    /// A full disk and a busy store are no failures: what could not be written is kept, and nothing new starts until
    /// it can be.
    fn unless_held(
        &mut self,
        outcome: Result<(), EngineError>,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        match outcome {
            Err(EngineError::Store(StoreError::DiskFull { .. })) => self.note_full(observer),
            outcome => self.unless_busy(outcome, observer)?,
        }
        Ok(())
    }

    /// A busy store is no failure: nothing was changed, and it is tried again.
    fn unless_busy(
        &mut self,
        outcome: Result<(), EngineError>,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        match outcome {
            Err(EngineError::Store(StoreError::Busy { .. })) => self.note_busy(observer),
            outcome => outcome?,
        }
        Ok(())
    }

    /// Whether nothing is written at `now`: the store was found busy, and the time for the next try has not come.
    fn is_held(&self, now: Time) -> bool {
        self.busy.is_some_and(|busy| now < busy.next_try)
    }

    fn note_busy(&mut self, observer: &mut dyn Observer) {
        let now = self.clock.now();
        let busy = self.busy.get_or_insert(Busy { since: now, next_try: now, told: false });
        busy.next_try = now + WRITE_PAUSE;
        if !busy.told && now.since(busy.since) >= WRITE_PATIENCE {
            busy.told = true;
            observer.notice(None, &Notice::StoreBusy);
        }
        self.dirty.extend(self.runs.keys());
    }

    fn note_full(&mut self, observer: &mut dyn Observer) {
        if !self.disk_is_full {
            self.disk_is_full = true;
            observer.notice(None, &Notice::DiskFull);
        }
    }

    /// Writes what the segments hold in memory. Answers whether all of it could be.
    fn flush_output(&mut self) -> bool {
        self.runs.values_mut().filter_map(|live| live.output.as_mut()).all(|writer| writer.flush().is_ok())
    }

    fn note_due(&mut self, run: RunId, now: Time) {
        let Some(live) = self.runs.get_mut(&run) else { return };
        let due = live.state.next_due(now, &self.locks);
        if due != live.due {
            if let Some(before) = live.due {
                self.due.remove(&(before, run));
            }
            live.due = due;
        }
        if let Some(due) = due {
            self.due.insert((due, run));
        }
    }

    fn timeout(&self, observer: &dyn Observer) -> Option<Duration> {
        if self.disk_is_full {
            return Some(FULL_PAUSE);
        }
        if let Some(busy) = self.busy {
            let tick = observer.wants_ticks().then_some(TICK);
            return [Some(self.clock.until(busy.next_try)), tick].into_iter().flatten().min();
        }
        if !self.dirty.is_empty() {
            return Some(Duration::ZERO);
        }
        let due = self.due.first().map(|(due, _)| self.clock.until(*due));
        let tick = observer.wants_ticks().then_some(TICK);
        let busy = self.runs.values().any(|live| !live.to_start.is_empty()).then_some(BUSY_PAUSE);
        let oldest =
            self.runs.values().flat_map(|live| live.printed.values()).filter_map(|printed| printed.since).min();
        let spill = oldest.map(|since| self.clock.until(since + HOLD_OUTPUT));
        [due, tick, busy, spill].into_iter().flatten().min()
    }

    /// Waits for the world and takes in what it says.
    fn wait(&mut self, timeout: Option<Duration>, observer: &mut dyn Observer) -> Result<(), EngineError> {
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        self.hands.wait(timeout, &mut found)?;
        if observer.wants_ticks() && self.clock.now() >= self.next_tick {
            self.next_tick = self.clock.now() + TICK_TIME;
            observer.tick(&mut self.runs());
        }
        for event in found.drain(..) {
            self.take_in(event, observer)?;
        }
        self.found = found;
        self.start_waiting(observer);
        Ok(())
    }

    fn take_in(&mut self, event: HostEvent, observer: &mut dyn Observer) -> Result<(), EngineError> {
        match event {
            HostEvent::Output { key, bytes } => self.take_output(key, bytes, observer)?,
            HostEvent::Ended { key, end } => self.take_end(key, *end, observer)?,
            HostEvent::Readable { .. } => {
                let woken = self.wake_up();
                self.unless_busy(woken, observer)?;
            }
            HostEvent::Stuck { key, processes } => {
                let Some(live) = self.runs.get(&key.run) else { return Ok(()) };
                let step = live.plan.graph.id(key.step).to_owned();
                observer.notice(Some(key.run), &Notice::Stuck { step, processes });
            }
            HostEvent::Signal(signal) => self.take_signal(signal, observer),
        }
        Ok(())
    }

    fn take_output(&mut self, key: Attempt, bytes: Vec<u8>, observer: &mut dyn Observer) -> Result<(), EngineError> {
        let now = self.clock.now();
        let Some(live) = self.runs.get_mut(&key.run) else { return Ok(()) };
        let bytes = self.masker.mask(bytes);
        let view = RunView { run: key.run, state: &live.state, plan: &live.plan };
        observer.output(&view, key.step, key.number, &bytes);
        if live.print(key.step, key.number, &bytes, now) {
            let spilled = spill(&mut self.store, live, key.run, key.step, now);
            self.unless_held(spilled, observer)?;
        }
        Ok(())
    }

    fn take_end(&mut self, key: Attempt, ended: Ended, observer: &mut dyn Observer) -> Result<(), EngineError> {
        let now = self.clock.now();
        let Some(live) = self.runs.get_mut(&key.run) else { return Ok(()) };
        let accept = live.plan.graph.policy(key.step).accept;
        let succeeded = matches!(ended.cause, ExitCause::Exit { code } if accept.contains(code));
        let (mut cause, mut outputs) = (ended.cause, ended.outputs);
        if succeeded {
            match live.plan.take_outputs(key.step, std::mem::take(&mut outputs)) {
                Ok(taken) => outputs = taken,
                Err(error) => cause = ExitCause::BadResult { error },
            }
        }
        let mut end = AttemptEnd {
            cause,
            duration: ended.duration,
            output: live.printed_output(key.step, now),
            outputs,
            artifacts: Vec::new(),
            leftovers: ended.leftovers,
        };
        for found in ended.artifacts {
            let Some(intake) = &mut self.artifacts else { break };
            match intake.put(&ended.folder, &found.path) {
                Ok(artifact) => end.artifacts.push(artifact),
                // Where the attempt failed anyway, that is what matters.
                Err(error) if succeeded => {
                    let error = format!("cannot keep artefact `{}`: {}", found.path, with_sources(&error));
                    end.cause = ExitCause::BadResult { error };
                }
                Err(_) => {}
            }
        }
        if !end.leftovers.is_empty() {
            let step = live.plan.graph.id(key.step).to_owned();
            observer.notice(Some(key.run), &Notice::Leftovers { step, processes: end.leftovers.clone() });
        }
        let (step, attempt, by_itself) = (key.step, key.number, ended.by_itself);
        live.inputs.push(Input::AttemptEnded { step, attempt, end: Box::new(end), by_itself });
        self.dirty.insert(key.run);
        Ok(())
    }

    fn take_signal(&mut self, signal: CaughtSignal, observer: &mut dyn Observer) {
        let name = signal_name(signal);
        match signal {
            CaughtSignal::Interrupt => {
                let by = format!("signal {name}");
                let mut hurries = false;
                let runs: Vec<RunId> = self.runs.keys().copied().collect();
                for run in runs {
                    // The second one of a part of a run hurries; `finally` is a part of its own.
                    let hurry = self.runs.get_mut(&run).is_some_and(Live::interrupt);
                    hurries |= hurry;
                    self.cancel(run, &by, hurry);
                }
                let effect =
                    if hurries { "ending what runs at once" } else { "canceling; once more ends what runs at once" };
                observer.notice(None, &Notice::Signal { name, effect });
            }
            CaughtSignal::Terminate | CaughtSignal::Hangup => {
                let effect = "ending what runs; the run can go on with `baton resume`";
                observer.notice(None, &Notice::Signal { name, effect });
                self.leaving = Some(name);
            }
        }
    }

    /// Another process wants something, or has changed the locks, or an owner that was watched is dead.
    pub(crate) fn wake_up(&mut self) -> Result<(), EngineError> {
        self.take_commands()?;
        self.follow_locks()?;
        self.dirty.extend(self.runs.keys());
        Ok(())
    }

    /// Reads what other processes want of the runs driven here.
    fn take_commands(&mut self) -> Result<(), EngineError> {
        for pending in self.store.commands(self.owner)? {
            let Some(live) = self.runs.get_mut(&pending.run) else { continue };
            if live.answered.contains(&pending.id) {
                continue;
            }
            match pending.command {
                baton_store::Command::Cancel { by, hurry } => live.inputs.push(Input::Cancel { by, hurry }),
            }
            live.answered.push(pending.id);
            self.dirty.insert(pending.run);
        }
        Ok(())
    }

    /// Writes what is decided, all runs in one transaction, then acts on it.
    fn commit(&mut self, now: Time, observer: &mut dyn Observer) -> Result<(), EngineError> {
        let mut releases: BTreeMap<RunId, Vec<LockEvent>> = BTreeMap::new();
        for run in self.locks.runs() {
            let Some(live) = self.runs.get(&run) else { continue };
            let holders = live.state.locks_to_release(&self.locks);
            if !holders.is_empty() {
                let kind = LockEventKind::Released { reason: None };
                let events = holders.into_iter().map(|holder| LockEvent { at: now, holder, kind: kind.clone() });
                releases.insert(run, events.collect());
            }
        }
        let mut runs = Vec::new();
        let mut is_full = false;
        for (run, live) in &mut self.runs {
            if live.batch.is_empty() && live.answered.is_empty() && !releases.contains_key(run) {
                continue;
            }
            if live.output_dirty
                && let Some(writer) = &mut live.output
            {
                match writer.sync() {
                    Ok(()) => live.output_dirty = false,
                    // Its events refer to what is not on disk: they wait with it.
                    Err(StoreError::DiskFull { .. }) => {
                        is_full = true;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            runs.push(*run);
        }
        if is_full {
            self.note_full(observer);
        }
        if runs.is_empty() {
            return Ok(());
        }
        if let Some(intake) = &mut self.artifacts {
            intake.sync()?;
        }
        let mut groups = Vec::with_capacity(runs.len());
        for run in &runs {
            let live = &self.runs[run];
            let mut appends = Vec::with_capacity(2);
            if !live.batch.is_empty() {
                appends.push(live_append(*run, live, &live.batch));
            }
            if let Some(events) = releases.get(run) {
                appends.push(shared_append(live.epoch, None, events));
            }
            groups.push(Group { appends, answered: live.answered.clone() });
        }
        let outcomes = match self.store.append(&groups) {
            Ok(outcomes) => outcomes,
            Err(error) => return self.not_written(error, observer),
        };
        drop(groups);
        for (run, outcome) in runs.iter().zip(outcomes) {
            match outcome {
                Outcome::Committed { .. } => {
                    let Some(live) = self.runs.get_mut(run) else { continue };
                    live.answered.clear();
                    let batch = std::mem::take(&mut live.batch);
                    self.act_on(*run, batch, observer);
                }
                Outcome::Conflict { .. } => {
                    self.drop_run(*run);
                    self.taken_over.push(*run);
                }
            }
        }
        if !releases.is_empty() {
            self.follow_locks()?;
            self.wake_waiting()?;
        }
        Ok(())
    }

    fn not_written(&mut self, error: StoreError, observer: &mut dyn Observer) -> Result<(), EngineError> {
        // What is decided stays decided and unacted on; it is written as soon as it can be.
        self.unless_held(Err(error.into()), observer)?;
        self.dirty.extend(self.runs.keys());
        Ok(())
    }

    /// Acts on events of a run that are on disk, then tells of them: whoever looks on must not hold up what runs.
    fn act_on(&mut self, run: RunId, batch: Vec<Event>, observer: &mut dyn Observer) {
        for event in &batch {
            match &event.kind {
                EventKind::StepStarted { step, attempt, .. } => self.start(run, *step, *attempt, observer),
                EventKind::StepStopping { step, attempt, kill_at, .. } => self.stop(run, *step, *attempt, *kill_at),
                EventKind::RunCompleted { status, .. } => {
                    self.results.insert(run, *status);
                }
                EventKind::RunCreated(_)
                | EventKind::RunStarted
                | EventKind::RunResumed { .. }
                | EventKind::RunStopping { .. }
                | EventKind::RunFinally { .. }
                | EventKind::RunSlaPassed { .. }
                | EventKind::StepCondition { .. }
                | EventKind::StepSucceeded { .. }
                | EventKind::StepFailed { .. }
                | EventKind::StepTimeout { .. }
                | EventKind::StepLost { .. }
                | EventKind::StepCanceled { .. }
                | EventKind::StepRetry { .. }
                | EventKind::StepSkipped { .. } => {}
            }
        }
        let Some(live) = self.runs.get_mut(&run) else { return };
        for event in &batch {
            live.seq += 1;
            observer.event(&RunView { run, state: &live.state, plan: &live.plan }, live.seq, event);
        }
        if live.state.result().is_some() {
            self.drop_run(run);
        }
    }

    fn drop_run(&mut self, run: RunId) {
        let Some(live) = self.runs.remove(&run) else { return };
        if let Some(due) = live.due {
            self.due.remove(&(due, run));
        }
        // Nothing runs in a run that is over; in one that was taken over, what runs here must not run twice.
        for (step, running) in live.state.running() {
            self.hands.stop(Attempt { run, step, number: running.attempt }, Stop::Kill);
        }
        self.hands.release(&format!("{}/{run}/", self.store_name));
    }

    fn start(&mut self, run: RunId, step: StepIndex, number: u32, observer: &mut dyn Observer) {
        if self.leaving.is_some() {
            // What could not be written before is written now, and is lost in flight: whoever resumes starts it again.
            return;
        }
        let Some(live) = self.runs.get_mut(&run) else { return };
        let job = job(live, run, step, number, &self.store_name, self.hands.self_exe());
        let started = match job {
            Ok(job) => self.hands.start(Attempt { run, step, number }, job),
            Err(error) => {
                not_started(live, step, number, error);
                self.dirty.insert(run);
                return;
            }
        };
        match started {
            Ok(()) => {}
            Err(error @ StartError::Busy { .. }) => {
                live.to_start.push_back((step, number));
                if !self.starts_wait {
                    self.starts_wait = true;
                    observer.notice(Some(run), &Notice::StartsWait { error: with_sources(&error) });
                }
            }
            Err(error) => {
                not_started(live, step, number, with_sources(&error));
                self.dirty.insert(run);
            }
        }
    }

    /// Starts what waited for the machine to have room.
    fn start_waiting(&mut self, observer: &mut dyn Observer) {
        // Whoever goes starts nothing more; what has not begun is lost in flight.
        if !self.starts_wait || self.leaving.is_some() {
            return;
        }
        self.starts_wait = false;
        let waiting: Vec<(RunId, StepIndex, u32)> = self
            .runs
            .iter_mut()
            .flat_map(|(run, live)| live.to_start.drain(..).map(|(step, number)| (*run, step, number)))
            .collect();
        for (run, step, number) in waiting {
            self.start(run, step, number, observer);
        }
    }

    fn stop(&mut self, run: RunId, step: StepIndex, number: u32, kill_at: Option<Time>) {
        let Some(live) = self.runs.get_mut(&run) else { return };
        if let Some(at) = live.to_start.iter().position(|waiting| *waiting == (step, number)) {
            live.to_start.remove(at);
            not_started(live, step, number, "it was told to end before it could be started".to_owned());
            self.dirty.insert(run);
            return;
        }
        let how = if kill_at.is_some() { Stop::Terminate } else { Stop::Kill };
        self.hands.stop(Attempt { run, step, number }, how);
    }

    /// Takes in what happened to the shared locks since the last look.
    fn follow_locks(&mut self) -> Result<(), EngineError> {
        self.locks_seq = self.store.follow_locks(&mut self.locks, self.locks_seq)?;
        Ok(())
    }

    /// Grants locks to the runs driven here, or puts them in line.
    fn move_locks(&mut self, now: Time, observer: &mut dyn Observer) -> Result<(), EngineError> {
        if self.disk_is_full || self.is_held(now) {
            return Ok(());
        }
        let runs: Vec<RunId> = self.runs.iter().filter(|(_, live)| live.state.wants_locks()).map(|(r, _)| *r).collect();
        for run in runs {
            let mut tries = 0;
            while let Some(live) = self.runs.get(&run)
                && let Some(step) = live.state.next_lock_move(now, &live.expressions(), &self.locks)
            {
                let is_failure = matches!(step, LockMove::Fail(_));
                let made = self.make_lock_move(run, step, now, observer)?;
                if is_failure || self.disk_is_full || self.is_held(now) {
                    // What follows from a failure comes before any further start.
                    break;
                }
                if !made {
                    tries += 1;
                    if tries >= GRANT_TRIES {
                        self.dirty.insert(run);
                        break;
                    }
                }
            }
            self.note_due(run, now);
        }
        self.tend_blocked(now, observer)
    }

    /// Answers whether the move was made; if not, the lock log has grown and is to be looked at again.
    fn make_lock_move(
        &mut self,
        run: RunId,
        lock_move: LockMove,
        now: Time,
        observer: &mut dyn Observer,
    ) -> Result<bool, EngineError> {
        let Some(live) = self.runs.get_mut(&run) else { return Ok(true) };
        let (holder, kind, expected, kinds) = match lock_move {
            LockMove::Grant { holder, names, events } => {
                (holder, LockEventKind::Granted { names }, Some(self.locks_seq), events)
            }
            LockMove::Request { holder, names } => (holder, LockEventKind::Requested { names }, None, Vec::new()),
            LockMove::Fail(kinds) => {
                live.state.apply_all(&kinds, now);
                live.batch.extend(kinds.into_iter().map(|kind| Event { at: now, kind }));
                self.dirty.insert(run);
                self.commit(now, observer)?;
                return Ok(true);
            }
        };
        let shared = [LockEvent { at: now, holder, kind }];
        let events: Vec<Event> = kinds.into_iter().map(|kind| Event { at: now, kind }).collect();
        let mut appends = vec![shared_append(live.epoch, expected, &shared)];
        if !events.is_empty() {
            appends.push(live_append(run, live, &events));
        }
        let outcome = match self.store.append(&[Group { appends, answered: Vec::new() }]) {
            Ok(outcomes) => outcomes.into_iter().next(),
            Err(error) => {
                self.not_written(error, observer)?;
                return Ok(false);
            }
        };
        let made = match outcome {
            Some(Outcome::Committed { .. }) => {
                if let Some(live) = self.runs.get_mut(&run) {
                    for event in &events {
                        live.state.apply(event);
                    }
                    self.dirty.insert(run);
                    self.act_on(run, events, observer);
                }
                true
            }
            Some(Outcome::Conflict { log: Log::Shared, reason: Conflict::Seq { .. } }) | None => false,
            Some(Outcome::Conflict { log: Log::Run(_), reason: Conflict::Ended }) => false,
            Some(Outcome::Conflict { .. }) => {
                self.drop_run(run);
                self.taken_over.push(run);
                true
            }
        };
        // Last: where it cannot be read now, what is on disk has been acted on all the same.
        self.follow_locks()?;
        Ok(made)
    }

    /// Says who waits for whom, and sees to it that a dead holder is noticed.
    fn tend_blocked(&mut self, now: Time, observer: &mut dyn Observer) -> Result<(), EngineError> {
        let mut dead = Vec::new();
        let waiting: Vec<_> =
            self.locks.line().filter(|waiting| self.runs.contains_key(&waiting.holder.run)).cloned().collect();
        self.told_waiting.retain(|told| waiting.iter().any(|waiting| waiting.holder.to_string() == *told));
        for waiting in waiting {
            let Some((lock, blocker)) = self.locks.blocker(&waiting.holder, &waiting.names) else { continue };
            if self.told_waiting.insert(waiting.holder.to_string()) {
                let notice = Notice::WaitingForLock {
                    holder: waiting.holder.to_string(),
                    lock: lock.to_owned(),
                    owner: blocker.to_string(),
                };
                observer.notice(Some(waiting.holder.run), &notice);
            }
            if !self.runs.contains_key(&blocker.run) && !dead.contains(&blocker.run) {
                dead.push(blocker.run);
            }
        }
        for run in dead {
            self.tend_holder(run, now, observer)?;
        }
        Ok(())
    }

    /// Looks after a run driven elsewhere that stands in the way: frees its locks once its owner and its children
    /// are gone, and until then has somebody watch the owner.
    fn tend_holder(&mut self, run: RunId, now: Time, observer: &mut dyn Observer) -> Result<(), EngineError> {
        let row = match self.store.run(run) {
            // It was removed just now, and what it held with it: that is looked at anew.
            Err(StoreError::NoSuchRun { .. }) => {
                self.follow_locks()?;
                self.dirty.extend(self.runs.keys());
                return Ok(());
            }
            row => row?,
        };
        let Some(owner) = row.owner else { return Ok(()) };
        if owner == self.owner {
            return Ok(());
        }
        let alive = self.store.owners()?.iter().any(|row| row.epoch == owner && row.alive);
        let prefix = format!("{}/{run}/", self.store_name);
        if alive {
            if self.watched.insert((owner, run)) {
                self.hands.watch_death(owner);
            }
            return Ok(());
        }
        let left = load::left_behind(&self.store, run, owner, prefix);
        if self.hands.has_survivors(&left.prefix, &left.stays) {
            if self.ending.insert((owner, run)) {
                self.hands.end_left(left);
            }
            return Ok(());
        }
        let reason = Some(format!("its owner died: freed by the owner of epoch {}", self.owner.0));
        let holders: Vec<_> = self
            .locks
            .held_in(run)
            .chain(self.locks.waiting_in(run))
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let events: Vec<LockEvent> = holders
            .iter()
            .map(|holder| LockEvent {
                at: now,
                holder: holder.clone(),
                kind: LockEventKind::Released { reason: reason.clone() },
            })
            .collect();
        // Whoever seemed dead and was not, or comes back, writes no more about locks that others have by then.
        let epoch = match self.store.shut_out(run, self.owner) {
            Ok(epoch) => epoch,
            // Somebody has taken it over since: that is looked at anew.
            Err(StoreError::Owned { .. }) => {
                self.dirty.extend(self.runs.keys());
                return Ok(());
            }
            Err(error) => return self.not_written(error, observer),
        };
        let append = shared_append(epoch, Some(self.locks_seq), &events);
        let outcomes = match self.store.append(&[Group { appends: vec![append], answered: Vec::new() }]) {
            Ok(outcomes) => outcomes,
            Err(error) => return self.not_written(error, observer),
        };
        self.follow_locks()?;
        if let [Outcome::Committed { .. }] = outcomes[..] {
            for holder in holders {
                observer.notice(None, &Notice::LocksFreed { holder: holder.to_string() });
            }
            self.wake_waiting()?;
        }
        self.dirty.extend(self.runs.keys());
        Ok(())
    }

    /// Wakes the owners of runs that stand in line elsewhere.
    fn wake_waiting(&mut self) -> Result<(), EngineError> {
        let runs: BTreeSet<RunId> = self.locks.line().map(|waiting| waiting.holder.run).collect();
        for run in runs {
            if self.runs.contains_key(&run) {
                self.dirty.insert(run);
                continue;
            }
            let owner = match self.store.run(run) {
                Err(StoreError::NoSuchRun { .. }) => None,
                row => row?.owner,
            };
            if let Some(owner) = owner {
                self.store.wake(owner)?;
            }
        }
        Ok(())
    }

    /// Moves output that is old enough for others to want to see it into the segment.
    fn spill_old_output(&mut self, now: Time) -> Result<(), EngineError> {
        for (run, live) in &mut self.runs {
            let old: Vec<StepIndex> = live
                .printed
                .iter()
                .filter(|(_, printed)| printed.since.is_some_and(|since| since + HOLD_OUTPUT <= now))
                .map(|(step, _)| *step)
                .collect();
            for step in &old {
                spill(&mut self.store, live, *run, *step, now)?;
            }
            if let (false, Some(writer)) = (old.is_empty(), &mut live.output) {
                writer.flush()?;
            }
        }
        Ok(())
    }

    /// Ends the children and leaves the runs for `resume`.
    fn leave(&mut self, observer: &mut dyn Observer) -> Result<(), EngineError> {
        let now = self.clock.now();
        let mut open: BTreeMap<Attempt, Time> = BTreeMap::new();
        for (run, live) in &mut self.runs {
            live.take_inputs(now, &mut self.kinds);
            for (step, running) in live.state.running() {
                let key = Attempt { run: *run, step, number: running.attempt };
                if !live.to_start.contains(&(step, running.attempt)) && !live.is_start_unwritten(step) {
                    open.insert(key, now + live.state.graph().policy(step).stop_grace);
                }
            }
        }
        for key in open.keys() {
            self.hands.stop(*key, Stop::Terminate);
        }
        let mut hurry = false;
        let last = open.values().max().copied().unwrap_or(now) + LEAVE_LIMIT;
        while self.clock.now() < last
            && let Some(due) = open.values().min().copied()
        {
            self.hands.wait(Some(self.clock.until(due)), &mut self.found)?;
            for event in std::mem::take(&mut self.found) {
                match event {
                    HostEvent::Ended { key, .. } => {
                        open.remove(&key);
                    }
                    HostEvent::Signal(_) => hurry = true,
                    HostEvent::Output { key, bytes } => self.take_output(key, bytes, observer)?,
                    HostEvent::Readable { .. } => {
                        let woken = self.wake_up();
                        self.unless_busy(woken, observer)?;
                    }
                    HostEvent::Stuck { .. } => {}
                }
            }
            let now = self.clock.now();
            for (key, due) in &mut open {
                if *due <= now || hurry {
                    self.hands.stop(*key, Stop::Kill);
                    // Nothing stronger is left to try; a process in an uninterruptible call may take its time.
                    *due = now + Millis::from_secs(1);
                }
            }
        }
        let now = self.clock.now();
        for live in self.runs.values_mut() {
            live.inputs.push(Input::Abandon);
            live.take_inputs(now, &mut self.kinds);
        }
        let last = now + LEAVE_WRITE_LIMIT;
        loop {
            self.busy = None;
            let committed = self.commit(now, observer);
            self.unless_busy(committed, observer)?;
            if self.busy.is_none() || hurry || self.clock.now() >= last {
                break;
            }
            self.hands.wait(Some(Duration::from_millis(WRITE_PAUSE.0)), &mut self.found)?;
            hurry = self.found.drain(..).any(|event| matches!(event, HostEvent::Signal(_)));
        }
        let exported = self.store.export_flush();
        self.unless_held(exported.map_err(EngineError::from), observer)?;
        Ok(())
    }
}

fn live_append<'a>(run: RunId, live: &'a Live, events: &'a [Event]) -> Append<'a> {
    Append {
        log: Log::Run(run),
        epoch: live.epoch,
        expected_seq: Some(live.seq),
        events: Events::Run(events, live.state.graph()),
    }
}

fn shared_append(epoch: Epoch, expected_seq: Option<u64>, events: &[LockEvent]) -> Append<'_> {
    Append { log: Log::Shared, epoch, expected_seq, events: Events::Locks(events) }
}

fn signal_name(signal: CaughtSignal) -> &'static str {
    match signal {
        CaughtSignal::Interrupt => "SIGINT",
        CaughtSignal::Terminate => "SIGTERM",
        CaughtSignal::Hangup => "SIGHUP",
    }
}

/// An error with everything that caused it.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn not_started(live: &mut Live, step: StepIndex, attempt: u32, error: String) {
    let end = Box::new(AttemptEnd::bare(ExitCause::NotStarted { error }));
    live.inputs.push(Input::AttemptEnded { step, attempt, end, by_itself: false });
}

/// Moves what an attempt printed into the run's segment.
fn spill(store: &mut impl Store, live: &mut Live, run: RunId, step: StepIndex, now: Time) -> Result<(), EngineError> {
    let Some(printed) = live.printed.get_mut(&step) else { return Ok(()) };
    printed.since = None;
    if printed.held.is_empty() {
        return Ok(());
    }
    if live.output.is_none() {
        live.output = Some(store.output_writer(run)?);
    }
    if let Some(writer) = &mut live.output {
        // The writer has the bytes also where it has no room to write them now.
        let held = std::mem::take(&mut printed.held);
        printed.spilled = true;
        writer.append(step, printed.attempt, now, &held)?;
    }
    Ok(())
}

fn job(live: &Live, run: RunId, step: StepIndex, number: u32, store: &str, self_exe: &Path) -> Result<Job, String> {
    let computed;
    let invocation = match live.state.invocation(step) {
        Some(recorded) => &**recorded,
        None => {
            computed = live.expressions().invocation_of(&live.state, step)?;
            &computed
        }
    };
    let graph = live.state.graph();
    let policy = graph.policy(step);
    let context = JobContext {
        store,
        run,
        step: graph.id(step),
        number,
        base: Path::new(&live.facts.cwd),
        self_exe,
        artifacts: &live.plan.artifacts(step),
        detach: live.plan.detach(step),
        stop_grace: Duration::from_millis(policy.stop_grace.0),
        accept: policy.accept,
    };
    Job::from_invocation(invocation, &context).map_err(|error: JobError| error.to_string())
}
