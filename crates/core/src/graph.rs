//! The shape of a plan as the scheduler needs it: steps by number, edges in two flat arrays, policies shared.

use std::collections::BTreeMap;

use crate::Millis;

/// A step by its place in the plan, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StepIndex(pub u32);

impl StepIndex {
    /// The place as an array index.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// What a final failure of a step does to the rest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OnFailure {
    /// The run stops (where the step is not critical: as `SkipDependents`).
    Abort,
    /// Everything that depends on the step is skipped.
    SkipDependents,
    /// The failure counts as settled; dependents run.
    Continue,
    /// The step's fallback runs in its place.
    FallbackStep,
}

/// How the delay between attempts grows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Backoff {
    /// Every delay is the same.
    Fixed,
    /// Every delay is twice the one before.
    Exponential,
}

/// The rules by which a step's attempts are judged; many steps share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Policy {
    /// How many further attempts a failed step gets.
    pub retries: u32,
    /// The first delay between attempts.
    pub retry_delay: Millis,
    /// How the delay grows.
    pub backoff: Backoff,
    /// The longest delay.
    pub retry_max_delay: Millis,
    /// How far chance may move the delay either way, in thousandths of it (0 to 1000).
    pub jitter_permille: u16,
    /// The longest that one attempt may take.
    pub timeout: Option<Millis>,
    /// From the polite signal to the one that cannot be refused.
    pub stop_grace: Millis,
    /// Whether a failure that nothing makes good fails the run.
    pub critical: bool,
    /// How long running steps may go on when this step's failure aborts the run.
    pub critical_grace: Millis,
    /// What a final failure does to the rest.
    pub on_failure: OnFailure,
    /// The exit codes that mean success.
    pub accept: ExitCodes,
}

/// A set of exit codes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ExitCodes([u64; 4]);

impl ExitCodes {
    /// Only 0.
    pub const ZERO: Self = Self([1, 0, 0, 0]);

    /// Whether `code` is one of them.
    pub fn contains(self, code: i32) -> bool {
        u8::try_from(code).is_ok_and(|code| self.0[usize::from(code) / 64] >> (code % 64) & 1 == 1)
    }
}

impl FromIterator<u8> for ExitCodes {
    fn from_iter<I: IntoIterator<Item = u8>>(codes: I) -> Self {
        let mut set = Self::default();
        for code in codes {
            set.0[usize::from(code) / 64] |= 1 << (code % 64);
        }
        set
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retries: 0,
            retry_delay: Millis(0),
            backoff: Backoff::Fixed,
            retry_max_delay: Millis::from_secs(300),
            jitter_permille: 0,
            timeout: Some(Millis::from_secs(1800)),
            stop_grace: Millis::from_secs(10),
            critical: true,
            critical_grace: Millis(0),
            on_failure: OnFailure::Abort,
            accept: ExitCodes::ZERO,
        }
    }
}

/// Names of locks and how long to wait for them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct LockRequest {
    /// The locks, sorted, without doubles; all are taken at once.
    pub names: Vec<String>,
    /// How long to wait before that counts as a failure; `None`: as long as it takes.
    pub wait_timeout: Option<Millis>,
}

/// One step as the builder takes it.
#[derive(Clone, Debug, Default)]
pub struct StepShape {
    /// The rules of its attempts.
    pub policy: Policy,
    /// The steps that must be settled first.
    pub depends_on: Vec<StepIndex>,
    /// Whether it has a condition to be judged.
    pub conditional: bool,
    /// The step that runs in its place when it fails.
    pub fallback: Option<StepIndex>,
    /// The locks it holds while an attempt runs.
    pub locks: LockRequest,
    /// Whether it stands in the plan's `finally`: it runs when all other steps are settled, however they ended.
    pub finally: bool,
}

const CONDITIONAL: u8 = 1;
const HAS_LOCKS: u8 = 2;
const HAS_FALLBACK: u8 = 4;
const IS_FALLBACK: u8 = 8;
const FINALLY: u8 = 16;

/// Edges as one flat array and where each step's part begins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Edges {
    starts: Vec<u32>,
    targets: Vec<StepIndex>,
}

impl Edges {
    fn of(&self, step: StepIndex) -> &[StepIndex] {
        &self.targets[self.starts[step.at()] as usize..self.starts[step.at() + 1] as usize]
    }
}

/// A plan's steps, edges and rules: never changes during a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Graph {
    names: String,
    name_starts: Vec<u32>,
    by_name: Vec<StepIndex>,
    policies: Vec<Policy>,
    policy_of: Vec<u32>,
    flags: Vec<u8>,
    dependencies: Edges,
    dependents: Edges,
    fallbacks: BTreeMap<StepIndex, StepIndex>,
    originals: BTreeMap<StepIndex, StepIndex>,
    /// Steps that want the same share one request.
    locks: BTreeMap<StepIndex, u32>,
    lock_requests: Vec<LockRequest>,
    plan_locks: LockRequest,
    max_concurrency: u32,
    timeout: Option<Millis>,
    sla: Option<Millis>,
    has_outputs: bool,
    has_finally: bool,
}

/// Builds a [`Graph`] step by step, in the plan's order.
#[derive(Clone, Debug, Default)]
pub struct GraphBuilder {
    names: String,
    name_starts: Vec<u32>,
    policies: BTreeMap<Policy, u32>,
    policy_of: Vec<u32>,
    flags: Vec<u8>,
    dependency_starts: Vec<u32>,
    dependency_targets: Vec<StepIndex>,
    fallbacks: BTreeMap<StepIndex, StepIndex>,
    locks: BTreeMap<StepIndex, LockRequest>,
    /// The locks that the run holds from its start to its end.
    pub plan_locks: LockRequest,
    /// How many attempts may run at once, from 1 up.
    pub max_concurrency: u32,
    /// The longest that the steps may take together, up to `finally`.
    pub timeout: Option<Millis>,
    /// How long after its submission the run is late.
    pub sla: Option<Millis>,
    /// Whether the plan has outputs, to be computed when its steps have succeeded.
    pub has_outputs: bool,
}

impl GraphBuilder {
    /// A builder for a plan of about so many steps.
    pub fn with_capacity(steps: usize) -> Self {
        Self {
            name_starts: Vec::with_capacity(steps + 1),
            policy_of: Vec::with_capacity(steps),
            flags: Vec::with_capacity(steps),
            dependency_starts: Vec::with_capacity(steps + 1),
            max_concurrency: 1,
            ..Self::default()
        }
    }

    /// Adds the next step. Its dependencies may name steps that are not added yet.
    pub fn add(&mut self, id: &str, mut shape: StepShape) -> StepIndex {
        let step = StepIndex(self.flags.len() as u32);
        self.name_starts.push(self.names.len() as u32);
        self.names.push_str(id);
        let next = self.policies.len() as u32;
        self.policy_of.push(*self.policies.entry(shape.policy).or_insert(next));
        self.dependency_starts.push(self.dependency_targets.len() as u32);
        shape.depends_on.sort_unstable();
        shape.depends_on.dedup();
        self.dependency_targets.extend(&shape.depends_on);
        let mut flags = 0;
        if shape.conditional {
            flags |= CONDITIONAL;
        }
        if !shape.locks.names.is_empty() {
            flags |= HAS_LOCKS;
            shape.locks.names.sort_unstable();
            shape.locks.names.dedup();
            self.locks.insert(step, shape.locks);
        }
        if shape.finally {
            flags |= FINALLY;
        }
        if let Some(fallback) = shape.fallback {
            flags |= HAS_FALLBACK;
            self.fallbacks.insert(step, fallback);
        }
        self.flags.push(flags);
        step
    }

    /// The finished graph.
    ///
    /// # Panics
    /// When a dependency or a fallback names a step that was never added: the plan's checker is to refuse that first.
    pub fn build(mut self) -> Graph {
        let count = self.flags.len();
        self.name_starts.push(self.names.len() as u32);
        self.dependency_starts.push(self.dependency_targets.len() as u32);
        let mut starts = vec![0u32; count + 1];
        for target in &self.dependency_targets {
            assert!(target.at() < count, "a dependency names step {} of a plan of {count}", target.0);
            starts[target.at() + 1] += 1;
        }
        for at in 0..count {
            starts[at + 1] += starts[at];
        }
        let mut next = starts.clone();
        let mut targets = vec![StepIndex(0); self.dependency_targets.len()];
        for step in 0..count {
            let range = self.dependency_starts[step] as usize..self.dependency_starts[step + 1] as usize;
            for dependency in &self.dependency_targets[range] {
                let slot = &mut next[dependency.at()];
                targets[*slot as usize] = StepIndex(step as u32);
                *slot += 1;
            }
        }
        let mut locks = BTreeMap::new();
        let mut requests: BTreeMap<LockRequest, u32> = BTreeMap::new();
        for (step, mut request) in self.locks {
            // What the run holds as a whole, its steps need not ask for: they would wait for their own run for ever.
            request.names.retain(|name| !self.plan_locks.names.contains(name));
            if request.names.is_empty() {
                self.flags[step.at()] &= !HAS_LOCKS;
            } else {
                let next = requests.len() as u32;
                locks.insert(step, *requests.entry(request).or_insert(next));
            }
        }
        let mut lock_requests = vec![LockRequest::default(); requests.len()];
        for (request, at) in requests {
            lock_requests[at as usize] = request;
        }
        let mut originals = BTreeMap::new();
        for (original, fallback) in &self.fallbacks {
            originals.insert(*fallback, *original);
            self.flags[fallback.at()] |= IS_FALLBACK;
        }
        let mut policies = vec![Policy::default(); self.policies.len()];
        for (policy, at) in self.policies {
            policies[at as usize] = policy;
        }
        self.names.shrink_to_fit();
        let mut by_name: Vec<StepIndex> = (0..count as u32).map(StepIndex).collect();
        let name = |step: StepIndex| {
            &self.names[self.name_starts[step.at()] as usize..self.name_starts[step.at() + 1] as usize]
        };
        by_name.sort_unstable_by(|a, b| name(*a).cmp(name(*b)));
        Graph {
            has_finally: self.flags.iter().any(|flags| flags & FINALLY != 0),
            by_name,
            names: self.names,
            name_starts: self.name_starts,
            policies,
            policy_of: self.policy_of,
            flags: self.flags,
            dependencies: Edges { starts: self.dependency_starts, targets: self.dependency_targets },
            dependents: Edges { starts, targets },
            fallbacks: self.fallbacks,
            originals,
            locks,
            lock_requests,
            plan_locks: self.plan_locks,
            max_concurrency: self.max_concurrency.max(1),
            timeout: self.timeout,
            sla: self.sla,
            has_outputs: self.has_outputs,
        }
    }
}

impl Graph {
    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.flags.len()
    }

    /// Whether there is no step at all.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// Every step, in the plan's order.
    pub fn steps(&self) -> impl Iterator<Item = StepIndex> + use<> {
        (0..self.flags.len() as u32).map(StepIndex)
    }

    /// The step's id in the plan.
    pub fn id(&self, step: StepIndex) -> &str {
        &self.names[self.name_starts[step.at()] as usize..self.name_starts[step.at() + 1] as usize]
    }

    /// The step with this id.
    pub fn find(&self, id: &str) -> Option<StepIndex> {
        self.by_name.binary_search_by(|step| self.id(*step).cmp(id)).ok().map(|at| self.by_name[at])
    }

    /// The rules of the step's attempts.
    pub fn policy(&self, step: StepIndex) -> &Policy {
        &self.policies[self.policy_of[step.at()] as usize]
    }

    /// The steps that must be settled before this one, in the plan's order.
    pub fn dependencies(&self, step: StepIndex) -> &[StepIndex] {
        self.dependencies.of(step)
    }

    /// The steps that wait for this one, in the plan's order.
    pub fn dependents(&self, step: StepIndex) -> &[StepIndex] {
        self.dependents.of(step)
    }

    /// Whether the step has a condition.
    pub fn is_conditional(&self, step: StepIndex) -> bool {
        self.flags[step.at()] & CONDITIONAL != 0
    }

    /// The step that runs in this one's place when it fails.
    pub fn fallback(&self, step: StepIndex) -> Option<StepIndex> {
        if self.flags[step.at()] & HAS_FALLBACK == 0 { None } else { self.fallbacks.get(&step).copied() }
    }

    /// The step in whose place this one runs.
    pub fn original(&self, fallback: StepIndex) -> Option<StepIndex> {
        if self.flags[fallback.at()] & IS_FALLBACK == 0 { None } else { self.originals.get(&fallback).copied() }
    }

    /// The locks that the step holds while an attempt runs.
    pub fn locks(&self, step: StepIndex) -> Option<&LockRequest> {
        self.lock_request(step).map(|request| &self.lock_requests[request as usize])
    }

    /// Whether any step holds locks while it runs.
    pub(crate) fn has_step_locks(&self) -> bool {
        !self.lock_requests.is_empty()
    }

    /// The number of the request for its locks that the step shares with all that want the same.
    pub(crate) fn lock_request(&self, step: StepIndex) -> Option<u32> {
        if self.flags[step.at()] & HAS_LOCKS == 0 { None } else { self.locks.get(&step).copied() }
    }

    /// The locks that the run holds from its start to its end.
    pub fn plan_locks(&self) -> &LockRequest {
        &self.plan_locks
    }

    /// How many attempts may run at once.
    pub fn max_concurrency(&self) -> u32 {
        self.max_concurrency
    }

    /// Changes how many attempts may run at once (from 1 up).
    pub fn set_max_concurrency(&mut self, limit: u32) {
        self.max_concurrency = limit.max(1);
    }

    /// The longest that the steps may take together, up to `finally`.
    pub fn timeout(&self) -> Option<Millis> {
        self.timeout
    }

    /// How long after its submission the run is late.
    pub fn sla(&self) -> Option<Millis> {
        self.sla
    }

    /// Whether the plan has outputs.
    pub fn has_outputs(&self) -> bool {
        self.has_outputs
    }

    /// Whether any step stands in `finally`.
    pub fn has_finally(&self) -> bool {
        self.has_finally
    }

    /// Whether the step stands in `finally`.
    pub fn is_finally(&self, step: StepIndex) -> bool {
        self.flags[step.at()] & FINALLY != 0
    }
}
