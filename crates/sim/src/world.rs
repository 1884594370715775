//! A world of runs with a virtual clock: attempts that end, hang or ignore signals, owners that die, people who cancel.

use std::collections::BTreeMap;

use baton_core::action::AttemptEnd;
use baton_core::decide::LockMove;
use baton_core::lock::{Holder, LockEvent, LockEventKind, LockTable};
use baton_core::{
    Epoch, Event, EventKind, ExitCause, Input, Millis, RunId, RunState, RunStatus, StepIndex, StepStatus, Time, decide,
};

use crate::campaign::{Counts, Fault};
use crate::fate::Fates;
use crate::locks::PlainLocks;
use crate::oracle;
use crate::plan::{Plan, random_lock, random_plan};
use crate::random::{Random, mix};
use crate::watch::Watch;

/// More moves than a run makes without time passing: the core goes round in a circle.
const MOVES_LIMIT: usize = 100_000;
/// More happenings than any world has: it goes on for ever.
const HAPPENINGS_LIMIT: usize = 1_000_000;
/// An attempt that hangs and has no timeout is ended by somebody after this.
const PATIENCE: Millis = Millis(20_005);
/// Nobody's run: it has locks for a while.
const RIVAL: RunId = RunId(1_000_000);

/// Something that happens to the runs from outside.
#[derive(Clone, Debug)]
enum Happening {
    End { run: usize, step: StepIndex, attempt: u32, epoch: u64, end: Box<AttemptEnd> },
    Cancel { run: usize, hurry: bool },
    Crash { owner: usize },
    Abandon { owner: usize },
    Resume { run: usize },
    FreeLocks { run: usize },
    RivalLetsGo,
}

/// Where an owner dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Death {
    /// What it decided is not on disk.
    BeforeCommit,
    /// What it decided is on disk, and nothing of it was done.
    AfterCommit,
}

/// A process.
#[derive(Clone, Copy, Debug)]
struct Process {
    attempt: u32,
    on_term: Option<Millis>,
    failures: u32,
    told: bool,
}

struct Run {
    id: RunId,
    plan: Plan,
    fates: Fates,
    state: RunState,
    log: Vec<Event>,
    committed: usize,
    watch: Watch,
    owner: Option<usize>,
    epoch: u64,
    processes: BTreeMap<StepIndex, Process>,
    /// Nothing happened to it that the oracle cannot foresee.
    undisturbed: bool,
    events: Vec<EventKind>,
}

/// A simulated world.
pub struct World<'a> {
    random: Random,
    now: Time,
    runs: Vec<Run>,
    locks: LockTable,
    plain: PlainLocks,
    queue: BTreeMap<(Time, u64), Happening>,
    queued: u64,
    /// After so many transactions an owner dies.
    death: Option<(u64, Death)>,
    deaths_left: u64,
    counts: &'a mut Counts,
    trace: bool,
}

/// What went wrong, in words.
pub type Wrong = String;

/// Plays the world of `seed` to its end, then every prefix of every log of it.
pub fn play(seed: u64, counts: &mut Counts, trace: bool) -> Result<(), Wrong> {
    let mut random = Random::new(seed);
    let count = random.pick(&[1, 1, 2, 3]) as usize;
    let owners = random.between(1, count as u64);
    let mut world = World::new(random, counts, trace);
    for at in 0..count {
        let plan = random_plan(&mut world.random);
        let fates = Fates::new(mix(seed, at as u64));
        let run = Run::new(RunId(at as u64 + 1), plan, fates);
        world.runs.push(run);
        world.runs[at].owner = Some(world.random.below(owners) as usize);
        if world.random.chance(150) {
            let when = world.random.below(2000);
            let hurry = world.random.chance(200);
            world.happens(Millis(when), Happening::Cancel { run: at, hurry });
            if world.random.chance(400) {
                let later = when + world.random.below(300);
                world.happens(Millis(later), Happening::Cancel { run: at, hurry: true });
            }
        }
    }
    if world.random.chance(500) {
        world.deaths_left = world.random.between(1, 5);
        world.arm();
        let when = Millis(world.random.below(3000));
        let owner = world.random.below(owners) as usize;
        let happening =
            if world.random.chance(700) { Happening::Crash { owner } } else { Happening::Abandon { owner } };
        world.happens(when, happening);
    }
    world.play().map_err(|wrong| world.describe(&wrong))?;
    let logs: Vec<(RunId, Plan, Fates, Vec<Event>)> =
        world.runs.into_iter().map(|run| (run.id, run.plan, run.fates, run.log)).collect();
    for (id, plan, fates, log) in logs {
        recover_prefixes(seed, id, &plan, fates, &log, counts, trace)?;
    }
    Ok(())
}

fn recover_prefixes(
    seed: u64,
    id: RunId,
    plan: &Plan,
    fates: Fates,
    log: &[Event],
    counts: &mut Counts,
    trace: bool,
) -> Result<(), Wrong> {
    let mut run = Run::new(id, plan.clone(), fates);
    // The locks of that world are gone; the account needs to know only that the run had them.
    let blind = Blind::of(plan, id);
    for length in 0..=log.len() {
        if length > 0 {
            let event = &log[length - 1];
            run.state.apply(event);
            run.watch.observe(event, &blind.0).map_err(|wrong| format!("on replay: {wrong}"))?;
        }
        counts.prefixes += 1;
        let mut world = World::new(Random::new(mix(seed, length as u64)), counts, trace);
        world.now = Time(log[..length].last().map_or(0, |event| event.at.0) + world.random.below(5000) as i64);
        let fates = Fates::new(mix(seed, mix(id.0, length as u64)));
        world.runs.push(Run {
            id,
            plan: plan.clone(),
            fates,
            state: run.state.clone(),
            log: log[..length].to_vec(),
            committed: length,
            watch: run.watch.clone().with_fates(fates),
            owner: None,
            epoch: 1,
            processes: BTreeMap::new(),
            undisturbed: false,
            events: Vec::new(),
        });
        if world.random.chance(200) {
            world.rival();
        }
        if world.random.chance(100) {
            world.deaths_left = 1;
            world.arm();
        }
        world.happens(Millis(0), Happening::Resume { run: 0 });
        let told = |world: &World<'_>, wrong: &str| {
            format!("{}\nwhile going on from the first {length} events of run {id}", world.describe(wrong))
        };
        world.play().map_err(|wrong| told(&world, &wrong))?;
    }
    Ok(())
}

/// Locks as they must be for everything that a run did to have been allowed.
struct Blind(PlainLocks);

impl Blind {
    fn of(plan: &Plan, run: RunId) -> Self {
        let mut locks = PlainLocks::default();
        let graph = &plan.graph;
        let steps = graph.steps().filter_map(|step| Some((Some(graph.id(step).to_owned()), graph.locks(step)?)));
        for (step, request) in steps.chain([(None, graph.plan_locks())]) {
            locks.suppose(Holder { run, step }, request.names.clone());
        }
        Self(locks)
    }
}

impl Run {
    fn new(id: RunId, plan: Plan, fates: Fates) -> Self {
        let state = RunState::new(id, plan.graph.clone(), Time(0), &plan.created, BTreeMap::new());
        let watch = Watch::new(id, &plan.graph, &plan.created, fates);
        Self {
            id,
            plan,
            fates,
            state,
            log: Vec::new(),
            committed: 0,
            watch,
            owner: None,
            epoch: 1,
            processes: BTreeMap::new(),
            undisturbed: true,
            events: Vec::new(),
        }
    }

    fn replay(&self) -> RunState {
        let mut state = RunState::new(self.id, self.plan.graph.clone(), Time(0), &self.plan.created, BTreeMap::new());
        self.log[..self.committed].iter().for_each(|event| state.apply(event));
        state
    }
}

impl<'a> World<'a> {
    fn new(random: Random, counts: &'a mut Counts, trace: bool) -> Self {
        Self {
            random,
            now: Time(0),
            runs: Vec::new(),
            locks: LockTable::default(),
            plain: PlainLocks::default(),
            queue: BTreeMap::new(),
            queued: 0,
            death: None,
            deaths_left: 0,
            counts,
            trace,
        }
    }

    fn describe(&self, wrong: &str) -> String {
        let mut told = String::new();
        for run in &self.runs {
            told.push_str(&format!("run {}: {:?}\n", run.id, run.plan));
            for event in &run.log {
                told.push_str(&format!("  {} {:?}\n", event.at.0, event.kind));
            }
        }
        format!("{told}at {}: {wrong}", self.now.0)
    }

    fn happens(&mut self, later: Millis, happening: Happening) {
        self.queue.insert((self.now + later, self.queued), happening);
        self.queued += 1;
    }

    fn arm(&mut self) {
        if self.deaths_left > 0 {
            self.deaths_left -= 1;
            let death = self.random.pick(&[Death::BeforeCommit, Death::AfterCommit]);
            self.death = Some((self.random.between(1, 25), death));
        }
    }

    fn rival(&mut self) {
        let holder = Holder { run: RIVAL, step: None };
        let names = vec![random_lock(&mut self.random)];
        let event = LockEvent { at: self.now, holder, kind: LockEventKind::Granted { names } };
        self.plain.observe(&event).expect("nobody was here before");
        self.locks.apply(&event);
        let later = Millis(self.random.below(3000));
        self.happens(later, Happening::RivalLetsGo);
    }

    fn play(&mut self) -> Result<(), Wrong> {
        for _ in 0..HAPPENINGS_LIMIT {
            self.settle()?;
            let live = self.runs.iter().filter(|run| run.owner.is_some());
            let due = live.filter_map(|run| run.state.next_due(self.now, &self.locks)).min();
            let next = self.queue.first_key_value().map(|((at, _), _)| *at);
            match (due, next) {
                (Some(due), next) if next.is_none_or(|next| due < next) => self.now = due,
                (_, Some(_)) => {
                    let ((at, _), happening) = self.queue.pop_first().expect("it was just seen");
                    self.now = self.now.max(at);
                    self.take(happening)?;
                }
                (_, None) => match self.runs.iter().position(|run| !run.watch.is_completed()) {
                    None => return self.finish(),
                    Some(run) => self.untie(run)?,
                },
            }
        }
        Err("the world goes on for ever".to_owned())
    }

    /// Runs that hold their plan's locks while steps of theirs wait for each other's are in a knot that only a person,
    /// or a wait limit, undoes. Everything else that stands still is a bug.
    fn untie(&mut self, run: usize) -> Result<(), Wrong> {
        let holds = |run: &Run| !run.watch.is_completed() && self.locks.held_by(&run.state.holder(None)).is_some();
        if self.runs.iter().filter(|run| holds(run)).count() < 2 {
            return Err(format!("run {} is stuck: nothing is to come, and it is not over", self.runs[run].id));
        }
        self.counts.fault(Fault::Knot);
        self.happens(Millis(0), Happening::Cancel { run, hurry: false });
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Wrong> {
        for run in &mut self.runs {
            let mut events = Vec::new();
            let answer = decide(&run.state, Input::Resume { epoch: Epoch(99) }, self.now, &mut events);
            if answer.is_ok() || !events.is_empty() {
                return Err(format!("run {} reopens", run.id));
            }
            if run.state != run.replay() {
                return Err(format!("run {} is not what its log says", run.id));
            }
            for event in &run.log {
                self.counts.event(&event.kind);
            }
            if run.undisturbed && run.watch.stop.is_none() && run.watch.finally_stop.is_none() {
                let graph = &run.plan.graph;
                let expected = oracle::expect(graph, &run.plan.created, &run.fates)
                    .ok_or("no step stopped the run, and one should have")?;
                self.counts.foretold += 1;
                for (step, expected) in graph.steps().zip(expected) {
                    let met = run.watch.status(step);
                    if met != expected {
                        return Err(format!("{step:?} ended {} and should be {}", met.word(), expected.word()));
                    }
                    let fallback = graph.fallback(step).filter(|fallback| {
                        met == StepStatus::Failed && run.watch.status(*fallback) == StepStatus::Succeeded
                    });
                    if let Some(fallback) = fallback {
                        self.counts.fault(Fault::FallbackUsed);
                        if run.state.outputs(step) != run.state.outputs(fallback) {
                            return Err(format!("{step:?} does not have the outputs of its fallback"));
                        }
                    }
                }
            }
            match run.state.result() {
                Some(RunStatus::Succeeded) => self.counts.fault(Fault::RunSucceeded),
                Some(RunStatus::Failed) => self.counts.fault(Fault::RunFailed),
                Some(RunStatus::Canceled) => self.counts.fault(Fault::RunCanceled),
                None => return Err(format!("run {} is over and has no result", run.id)),
            }
        }
        Ok(())
    }

    fn take(&mut self, happening: Happening) -> Result<(), Wrong> {
        match happening {
            Happening::End { run, step, attempt, epoch, end } => {
                let it = &mut self.runs[run];
                if it.owner.is_none() {
                    // It outlived its owner and nobody saw how it ended.
                    it.processes.remove(&step);
                    return Ok(());
                }
                if it.epoch != epoch || it.processes.get(&step).is_none_or(|process| process.attempt != attempt) {
                    // The process is gone, or its end came in already; a late answer of it may still arrive.
                    let mut events = Vec::new();
                    let answer = decide(
                        &it.state,
                        Input::AttemptEnded { step, attempt, end, by_itself: false },
                        self.now,
                        &mut events,
                    );
                    self.counts.fault(Fault::LateAnswer);
                    if answer.is_ok() || !events.is_empty() {
                        return Err(format!("a late answer of attempt {attempt} of {step:?} is taken"));
                    }
                    return Ok(());
                }
                it.processes.remove(&step);
                self.turn(run, Some(Input::AttemptEnded { step, attempt, end, by_itself: false })).map(drop)
            }
            Happening::Cancel { run, hurry } => {
                if self.runs[run].watch.is_completed() {
                    return Ok(());
                }
                if self.runs[run].owner.is_none() {
                    // The command waits on disk for an owner.
                    self.happens(Millis(50), Happening::Cancel { run, hurry });
                    return Ok(());
                }
                self.counts.fault(if hurry { Fault::Hurry } else { Fault::Cancel });
                self.turn(run, Some(Input::Cancel { by: "somebody".to_owned(), hurry })).map(drop)
            }
            Happening::Crash { owner } => {
                self.counts.fault(Fault::CrashBetween);
                self.die(owner)
            }
            Happening::Abandon { owner } => {
                for run in 0..self.runs.len() {
                    if self.runs[run].owner == Some(owner) && !self.runs[run].watch.is_completed() {
                        self.counts.fault(Fault::Abandon);
                        self.input(run, Input::Abandon)?;
                        self.release(run)?;
                        self.runs[run].committed = self.runs[run].log.len();
                    }
                }
                self.die(owner)
            }
            Happening::Resume { run } => {
                let id = self.random.number() as usize;
                let it = &mut self.runs[run];
                if it.state != it.replay() {
                    return Err("what was committed does not replay to what was".to_owned());
                }
                // Survivors are ended before anything else.
                it.processes.clear();
                it.owner = Some(id);
                it.epoch += 1;
                let epoch = Epoch(it.epoch);
                if it.state.result().is_none() {
                    self.turn(run, Some(Input::Resume { epoch }))?;
                }
                Ok(())
            }
            Happening::FreeLocks { run } => {
                if self.runs[run].owner.is_some() {
                    return Ok(());
                }
                let id = self.runs[run].id;
                let holders: Vec<Holder> = self.locks.held_in(id).chain(self.locks.waiting_in(id)).cloned().collect();
                for holder in holders {
                    self.counts.fault(Fault::FreedLocks);
                    self.lock(holder, LockEventKind::Released { reason: Some("its owner is dead".to_owned()) })?;
                }
                Ok(())
            }
            Happening::RivalLetsGo => {
                self.lock(Holder { run: RIVAL, step: None }, LockEventKind::Released { reason: None })
            }
        }
    }

    /// The owner is gone, and what it did not commit with it.
    fn die(&mut self, owner: usize) -> Result<(), Wrong> {
        for run in 0..self.runs.len() {
            let it = &mut self.runs[run];
            if it.owner != Some(owner) {
                continue;
            }
            it.owner = None;
            it.undisturbed &= it.watch.is_completed();
            if it.watch.is_completed() {
                continue;
            }
            let later = Millis(self.random.below(2000));
            if self.random.chance(500) {
                let sooner = Millis(self.random.below(later.0 + 1));
                self.happens(sooner, Happening::FreeLocks { run });
            }
            self.happens(later, Happening::Resume { run });
        }
        Ok(())
    }

    /// Every live owner does what follows, until nothing does.
    fn settle(&mut self) -> Result<(), Wrong> {
        loop {
            let mut moved = false;
            for run in 0..self.runs.len() {
                if self.runs[run].owner.is_some() {
                    moved |= self.turn(run, None)?;
                }
            }
            if !moved {
                break;
            }
        }
        for run in 0..self.runs.len() {
            let ask_why = self.random.chance(150);
            let it = &self.runs[run];
            if it.owner.is_some() {
                let told = |wrong| format!("run {}: {wrong}", it.id);
                it.watch.quiet(self.now, &it.state, &self.locks, &self.plain, ask_why).map_err(told)?;
            }
        }
        Ok(())
    }

    /// One transaction of a run's owner: an input and all that follows; then what it causes outside.
    fn turn(&mut self, run: usize, input: Option<Input>) -> Result<bool, Wrong> {
        let death = match &mut self.death {
            Some((0, death)) => Some(*death),
            _ => None,
        };
        let before = death.map(|_| {
            let it = &self.runs[run];
            (it.state.clone(), it.watch.clone(), self.locks.clone(), self.plain.clone())
        });
        let started = self.runs[run].log.len();
        let lock_moves = self.moves(run, input)?;
        let it = &mut self.runs[run];
        let moved = lock_moves || it.log.len() > started;
        if !moved {
            return Ok(false);
        }
        if let Some((left, _)) = &mut self.death {
            *left = left.saturating_sub(1);
        }
        if let (Some(death), Some((state, watch, locks, plain))) = (death, before) {
            let owner = it.owner.expect("only a live owner moves");
            match death {
                Death::BeforeCommit => {
                    it.log.truncate(started);
                    (it.state, it.watch) = (state, watch);
                    (self.locks, self.plain) = (locks, plain);
                    self.counts.fault(Fault::CrashBeforeCommit);
                }
                Death::AfterCommit => {
                    it.committed = it.log.len();
                    self.counts.fault(Fault::CrashAfterCommit);
                }
            }
            self.death = None;
            self.arm();
            self.die(owner)?;
            return Ok(true);
        }
        it.committed = it.log.len();
        for at in started..self.runs[run].log.len() {
            self.act(run, at);
        }
        Ok(true)
    }

    /// What an owner does after a commit.
    fn act(&mut self, run: usize, at: usize) {
        let it = &mut self.runs[run];
        let kind = it.log[at].kind.clone();
        match kind {
            EventKind::StepStarted { step, attempt, .. } => {
                let failures = it.watch.failures(step);
                let course = it.fates.course(step, failures);
                let hangs = course.after.is_none() && it.plan.graph.policy(step).timeout.is_none();
                let after = if hangs { Some(PATIENCE) } else { course.after };
                it.processes.insert(step, Process { attempt, on_term: course.on_term, failures, told: false });
                if let Some(after) = after {
                    let good = course.good && !hangs;
                    let end = Box::new(it.fates.end(&it.plan.graph, step, failures, good));
                    let epoch = it.epoch;
                    self.happens(after, Happening::End { run, step, attempt, epoch, end });
                } else {
                    self.counts.fault(Fault::Hang);
                }
            }
            EventKind::StepStopping { step, attempt, kill_at, .. } => {
                let epoch = it.epoch;
                let Some(process) = it.processes.get_mut(&step) else { return };
                let (signal, name, after) = match kill_at {
                    Some(_) => match process.on_term {
                        Some(after) => (15, "SIGTERM", after),
                        None => {
                            self.counts.fault(Fault::TermIgnored);
                            return;
                        }
                    },
                    None => {
                        self.counts.fault(Fault::Kill);
                        (9, "SIGKILL", Millis(0))
                    }
                };
                process.told = true;
                // Some end by themselves and in good order when they are told to.
                let end = if process.failures % 2 == 1 && signal == 15 {
                    it.fates.end(&it.plan.graph, step, process.failures, true)
                } else {
                    AttemptEnd::bare(ExitCause::Signal { signal, name: name.to_owned(), core_dumped: false })
                };
                let end = Box::new(end);
                self.happens(after, Happening::End { run, step, attempt, epoch, end });
            }
            _ => {}
        }
    }

    fn input(&mut self, run: usize, input: Input) -> Result<(), Wrong> {
        let it = &mut self.runs[run];
        let mut events = std::mem::take(&mut it.events);
        decide(&it.state, input, self.now, &mut events).map_err(|refusal| format!("refused: {refusal}"))?;
        self.fold(run, &mut events)?;
        self.runs[run].events = events;
        Ok(())
    }

    fn moves(&mut self, run: usize, input: Option<Input>) -> Result<bool, Wrong> {
        if let Some(input) = input {
            self.input(run, input)?;
        }
        let mut lock_moves = false;
        for _ in 0..MOVES_LIMIT {
            lock_moves |= self.release(run)?;
            let it = &mut self.runs[run];
            let mut events = std::mem::take(&mut it.events);
            if it.state.next(self.now, &it.fates, &self.locks, &mut events) {
                self.fold(run, &mut events)?;
                self.runs[run].events = events;
                continue;
            }
            it.events = events;
            let Some(lock_move) = it.state.next_lock_move(self.now, &it.fates, &self.locks) else {
                return Ok(lock_moves);
            };
            lock_moves = true;
            match lock_move {
                LockMove::Grant { holder, names, mut events } => {
                    self.lock(holder, LockEventKind::Granted { names })?;
                    self.fold(run, &mut events)?;
                }
                LockMove::Request { holder, names } => {
                    self.counts.fault(Fault::LockWait);
                    self.lock(holder, LockEventKind::Requested { names })?;
                }
                LockMove::Fail(mut events) => {
                    self.counts.fault(Fault::LockWaitTooLong);
                    self.runs[run].undisturbed = false;
                    self.fold(run, &mut events)?;
                }
            }
        }
        Err(format!("no end after {MOVES_LIMIT} moves"))
    }

    fn release(&mut self, run: usize) -> Result<bool, Wrong> {
        let holders = self.runs[run].state.locks_to_release(&self.locks);
        let any = !holders.is_empty();
        for holder in holders {
            self.lock(holder, LockEventKind::Released { reason: None })?;
        }
        Ok(any)
    }

    fn lock(&mut self, holder: Holder, kind: LockEventKind) -> Result<(), Wrong> {
        let event = LockEvent { at: self.now, holder, kind };
        self.plain.observe(&event)?;
        self.locks.apply(&event);
        if self.trace {
            println!("{:>8} {} {:?}", self.now.0, event.holder, event.kind);
        }
        Ok(())
    }

    fn fold(&mut self, run: usize, events: &mut Vec<EventKind>) -> Result<(), Wrong> {
        let it = &mut self.runs[run];
        for kind in events.drain(..) {
            let event = Event { at: self.now, kind };
            if self.trace {
                println!("{:>8} run {} {:?}", self.now.0, it.id, event.kind);
            }
            it.state.apply(&event);
            let seen = it.watch.observe(&event, &self.plain);
            it.log.push(event);
            seen.map_err(|wrong| format!("run {}: {wrong}", it.id))?;
        }
        Ok(())
    }
}
