//! What expressions and attempts come to in a simulated world: a function of the seed, so that an oracle can know it.

use baton_core::action::AttemptEnd;
use baton_core::{Evaluate, ExitCause, Graph, Invocation, Millis, RunState, StepIndex};
use serde_json::{Map, Value};

use crate::random::{Random, mix};

/// The fates of one run's steps.
#[derive(Clone, Copy, Debug)]
pub struct Fates {
    seed: u64,
    /// How many attempts in a thousand do not succeed.
    harshness: u64,
}

/// How an attempt goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Course {
    /// When it ends by itself; `None`: never.
    pub after: Option<Millis>,
    /// Whether it ends well if it does.
    pub good: bool,
    /// How long it takes to end once it is told to; `None`: it does not listen.
    pub on_term: Option<Millis>,
}

/// What an expression comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Says {
    /// The condition holds; the invocation can be computed.
    Yes,
    /// The condition does not hold; the invocation is in the plan.
    No,
    /// It cannot be computed.
    Error,
}

const EXPRESSION_ERROR: &str = "the expression cannot be computed";

impl Fates {
    /// The fates of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, harshness: [0, 100, 300, 600][mix(seed, 1) as usize % 4] }
    }

    fn random(&self, topic: u64, step: StepIndex, number: u32) -> Random {
        Random::new(mix(self.seed, mix(topic, u64::from(step.0) << 32 | u64::from(number))))
    }

    /// How the step's attempt goes after so many failed ones. Times are odd numbers of half-hundredths of a second, and
    /// the plan's own are even ones, so that nothing ends at the moment of its timeout.
    pub fn course(&self, step: StepIndex, failures: u32) -> Course {
        let mut random = self.random(2, step, failures);
        let good = !random.chance(self.harshness);
        let hangs = !good && random.chance(250);
        let after = (!hangs).then(|| Millis(random.between(0, 60) * random.between(1, 5) * 10 + 5));
        let on_term = (!random.chance(300)).then(|| Millis(random.between(0, 20) * 10 + 5));
        Course { after, good, on_term }
    }

    /// Whether the condition holds.
    pub fn condition(&self, step: StepIndex) -> Says {
        match self.random(3, step, 0).below(20) {
            0 => Says::Error,
            1..=7 => Says::No,
            _ => Says::Yes,
        }
    }

    /// Whether what the step does depends on expressions, and can be computed.
    pub fn invocation(&self, step: StepIndex) -> Says {
        match self.random(4, step, 0).below(40) {
            0 => Says::Error,
            1..=8 => Says::Yes,
            _ => Says::No,
        }
    }

    /// The outputs of the plan, where they can be computed.
    pub fn outputs(&self) -> Option<Map<String, Value>> {
        let mut random = self.random(6, StepIndex(0), 0);
        (!random.chance(150)).then(|| Map::from_iter([("number".to_owned(), Value::from(random.below(1000)))]))
    }

    /// The end of an attempt that ends by itself.
    pub fn end(&self, graph: &Graph, step: StepIndex, failures: u32, good: bool) -> AttemptEnd {
        let mut random = self.random(5, step, failures);
        let cause = if good {
            ExitCause::Exit { code: if graph.policy(step).accept.contains(0) { 0 } else { 3 } }
        } else {
            match random.below(6) {
                0 => ExitCause::Signal { signal: 11, name: "SIGSEGV".to_owned(), core_dumped: true },
                1 => ExitCause::OutOfMemory,
                2 => ExitCause::NotStarted { error: "no such file".to_owned() },
                3 => ExitCause::BadResult { error: "not KEY=value".to_owned() },
                _ => ExitCause::Exit { code: 1 },
            }
        };
        let mut outputs = Map::new();
        if good && random.chance(200) {
            outputs.insert("number".to_owned(), Value::from(random.below(1000)));
        }
        AttemptEnd { outputs, ..AttemptEnd::bare(cause) }
    }
}

impl Evaluate for Fates {
    fn condition(&self, _: &RunState, step: StepIndex) -> Result<bool, String> {
        match Fates::condition(self, step) {
            Says::Yes => Ok(true),
            Says::No => Ok(false),
            Says::Error => Err(EXPRESSION_ERROR.to_owned()),
        }
    }

    fn invocation(&self, _: &RunState, step: StepIndex) -> Result<Option<Box<Invocation>>, String> {
        match Fates::invocation(self, step) {
            Says::Yes => Ok(Some(Box::new(Invocation {
                uses: "process".to_owned(),
                with: Value::from(step.0),
                cwd: ".".to_owned(),
                env: std::collections::BTreeMap::new(),
            }))),
            Says::No => Ok(None),
            Says::Error => Err(EXPRESSION_ERROR.to_owned()),
        }
    }

    fn outputs(&self, _: &RunState) -> Result<Map<String, Value>, String> {
        Fates::outputs(self).ok_or_else(|| EXPRESSION_ERROR.to_owned())
    }
}
