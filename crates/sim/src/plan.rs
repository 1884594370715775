//! Random plans: small ones mostly, with every policy a plan can have.

use std::sync::Arc;

use baton_core::graph::{Backoff, LockRequest, StepShape};
use baton_core::{Graph, GraphBuilder, Millis, OnFailure, Policy, RunCreated, StepIndex};

use crate::random::Random;

/// The locks that plans of one world fight for.
const LOCKS: [&str; 3] = ["tree", "remote", "index"];

/// A plan and what was fixed at its submission.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The plan's shape.
    pub graph: Arc<Graph>,
    /// The submission.
    pub created: RunCreated,
}

struct Draft {
    shape: StepShape,
    depends_on: Vec<usize>,
    fallback: Option<usize>,
}

/// A random plan.
pub fn random_plan(random: &mut Random) -> Plan {
    let count = match random.below(100) {
        0..=64 => random.between(1, 7),
        65..=97 => random.between(8, 24),
        _ => random.between(25, 90),
    } as usize;
    let conditional = random.pick(&[0, 0, 100, 300]);
    let locked = random.pick(&[0, 0, 0, 150, 500]);
    let fallbacks = random.pick(&[0, 0, 150, 500]);
    let policies: Vec<Policy> = (0..random.between(1, 3)).map(|_| random_policy(random)).collect();
    let mut drafts: Vec<Draft> = Vec::new();
    for at in 0..count {
        let mut depends_on = Vec::new();
        for _ in 0..random.below(4) {
            if at > 0 {
                depends_on.push(random.below(at as u64) as usize);
            }
        }
        let draft = random_step(random, &policies, depends_on, conditional, locked);
        drafts.push(draft);
    }
    let finally_from = drafts.len();
    if random.chance(250) {
        for at in 0..random.between(1, 3) {
            let mut depends_on = Vec::new();
            if at > 0 && random.chance(400) {
                depends_on.push(finally_from + random.below(at) as usize);
            }
            let mut draft = random_step(random, &policies, depends_on, conditional, locked);
            draft.shape.finally = true;
            drafts.push(draft);
        }
    }
    let count = drafts.len();
    for original in 0..count {
        let mut original = original;
        while random.chance(fallbacks) {
            // What a fallback needs is settled before its original starts, or stands earlier: no circle.
            let mut depends_on = drafts[original].depends_on.clone();
            depends_on.retain(|_| random.chance(500));
            let finally = drafts[original].shape.finally;
            if original < finally_from && original > 0 && random.chance(200) {
                depends_on.push(random.below(original as u64) as usize);
            }
            let mut draft = random_step(random, &policies, depends_on, conditional / 2, locked);
            draft.shape.finally = finally;
            drafts[original].fallback = Some(drafts.len());
            drafts[original].shape.policy.on_failure = OnFailure::FallbackStep;
            original = drafts.len();
            drafts.push(draft);
        }
    }
    // The plan's order need not be one in which it can run.
    let mut place: Vec<usize> = (0..drafts.len()).collect();
    if random.chance(500) {
        for at in (1..place.len()).rev() {
            place.swap(at, random.below(at as u64 + 1) as usize);
        }
    }
    let index = |draft: usize| StepIndex(place[draft] as u32);
    let mut order: Vec<usize> = (0..drafts.len()).collect();
    order.sort_unstable_by_key(|draft| place[*draft]);
    let mut builder = GraphBuilder::with_capacity(drafts.len());
    for (at, draft) in order.into_iter().enumerate() {
        let Draft { shape, depends_on, fallback } = &drafts[draft];
        let shape = StepShape {
            depends_on: depends_on.iter().map(|draft| index(*draft)).collect(),
            fallback: fallback.map(index),
            ..shape.clone()
        };
        builder.add(&format!("s{at}"), shape);
    }
    builder.max_concurrency = random.pick(&[1, 1, 2, 3, 4, 8]);
    if random.chance(80) {
        builder.timeout = Some(Millis(random.between(1, 600) * 10));
    }
    if random.chance(150) {
        builder.sla = Some(Millis(random.between(1, 600) * 10));
    }
    builder.has_outputs = random.chance(150);
    if random.chance(120) {
        builder.plan_locks = random_locks(random);
    }
    let mut created = RunCreated::default();
    if random.chance(80) {
        let first = random.below(drafts.len() as u64) as u32;
        let last = random.between(u64::from(first), drafts.len() as u64 - 1) as u32;
        created.kept.push((first, last));
    }
    Plan { graph: Arc::new(builder.build()), created }
}

fn random_step(
    random: &mut Random,
    policies: &[Policy],
    depends_on: Vec<usize>,
    conditional: u64,
    locked: u64,
) -> Draft {
    let policy = policies[random.below(policies.len() as u64) as usize];
    let conditional = random.chance(conditional);
    let locks = if random.chance(locked) { random_locks(random) } else { LockRequest::default() };
    let shape = StepShape { policy, conditional, locks, ..StepShape::default() };
    Draft { shape, depends_on, fallback: None }
}

fn random_locks(random: &mut Random) -> LockRequest {
    let names = (0..random.between(1, 2)).map(|_| random.pick(&LOCKS).to_owned()).collect::<Vec<_>>();
    let mut names = names;
    names.sort_unstable();
    names.dedup();
    let wait_timeout = random.chance(250).then(|| Millis(random.between(1, 200) * 10));
    LockRequest { names, wait_timeout }
}

fn random_policy(random: &mut Random) -> Policy {
    Policy {
        retries: random.pick(&[0, 0, 1, 2, 4]) as u32,
        retry_delay: Millis(random.pick(&[0, 10, 100, 1000])),
        backoff: random.pick(&[Backoff::Fixed, Backoff::Exponential]),
        retry_max_delay: Millis(random.pick(&[50, 2000, 300_000])),
        jitter_permille: random.pick(&[0, 0, 200, 1000]) as u16,
        timeout: random.chance(600).then(|| Millis(random.between(10, 200) * 10)),
        stop_grace: Millis(random.between(0, 20) * 10),
        critical: random.chance(600),
        critical_grace: Millis(random.pick(&[0, 0, 500, 5000])),
        on_failure: random.pick(&[OnFailure::Abort, OnFailure::SkipDependents, OnFailure::Continue]),
        accept: if random.chance(100) { [3].into_iter().collect() } else { baton_core::graph::ExitCodes::ZERO },
    }
}

/// The name of a lock that plans fight for.
pub fn random_lock(random: &mut Random) -> String {
    random.pick(&LOCKS).to_owned()
}
