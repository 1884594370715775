//! A plan as it was read: steps with their texts taken apart, not yet joined with variables.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

use baton_core::graph::{Backoff, ExitCodes};
use baton_core::{Millis, OnFailure};
use serde_json::Number;

use crate::expr::Expression;
use crate::hash::Hasher;
use crate::schema::Schema;
use crate::schema::read::Declared;
use crate::source::Span;
use crate::strings::{Strings, Sym};

/// How many expressions keep their trees; the rest of a plan's is parsed again when it is evaluated.
pub(crate) const KEPT_EXPRESSIONS: usize = 4096;

/// A plan without errors. Clones share everything.
#[derive(Clone, Debug)]
pub struct Plan(pub(crate) Arc<Data>);

/// A text: a string, or a template by its number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Text(u32);

const IS_TEMPLATE: u32 = 1 << 31;

/// What a [`Text`] is.
pub(crate) enum Form {
    Plain(Sym),
    Template(u32),
}

impl Text {
    pub(crate) fn plain(sym: Sym) -> Self {
        Self(sym.0)
    }

    pub(crate) fn template(number: u32) -> Self {
        Self(number | IS_TEMPLATE)
    }

    pub(crate) fn form(self) -> Form {
        if self.0 & IS_TEMPLATE == 0 { Form::Plain(Sym(self.0)) } else { Form::Template(self.0 & !IS_TEMPLATE) }
    }
}

/// A part of a template.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Text(Sym),
    Variable { name: Sym, default: Option<Sym> },
    Expression(u32),
}

/// A text with variables or expressions in it.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) parts: Box<[Part]>,
    /// Whether it holds an expression.
    pub(crate) dynamic: bool,
}

/// An expression and its text.
#[derive(Clone, Debug)]
pub(crate) struct ExpressionEntry {
    pub(crate) text: Sym,
    pub(crate) parsed: Expression,
}

/// Where a template or a condition stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occurrence {
    pub(crate) what: What,
    /// The step; [`NO_STEP`]: the plan itself; [`IN_OUTPUTS`]: its outputs.
    pub(crate) step: u32,
    pub(crate) span: Span,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Template(u32),
    Condition(u32),
}

/// In the place of a step's number: none.
pub(crate) const NO_STEP: u32 = u32::MAX;
/// In the place of a step's number: the outputs of the plan, which are computed when the steps have ended.
pub(crate) const IN_OUTPUTS: u32 = u32::MAX - 1;

impl Occurrence {
    /// The step in which it stands, unless it belongs to the plan itself.
    pub(crate) fn in_step(&self) -> Option<u32> {
        (self.step < IN_OUTPUTS).then_some(self.step)
    }
}

/// A value of any shape.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: NodeKind,
}

#[derive(Clone, Debug)]
pub(crate) enum NodeKind {
    /// What cannot be taken; that was told, so that the plan is never run.
    Broken,
    Null,
    Bool(bool),
    Number(Number),
    Text(Text),
    List(Vec<Node>),
    Map(Vec<(Sym, Span, Node)>),
}

/// What a step does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Body {
    pub(crate) action: Action,
    pub(crate) cwd: Option<Text>,
    pub(crate) env: Box<[(Sym, Text)]>,
    pub(crate) artifacts: Box<[Text]>,
    pub(crate) detach: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Action {
    Process {
        command: Text,
        args: Box<[Text]>,
        shell: bool,
    },
    /// An action of the catalog, with its input's place in [`Data::nodes`].
    Uses {
        kind: Sym,
        with: Option<u32>,
    },
}

/// What a step says about its attempts; where it says nothing, the globals or the defaults do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Rules {
    pub(crate) retries: Option<u32>,
    pub(crate) retry_delay: Millis,
    pub(crate) backoff: Backoff,
    pub(crate) retry_max_delay: Millis,
    pub(crate) jitter_permille: u16,
    pub(crate) timeout: Option<Millis>,
    pub(crate) stop_grace: Option<Millis>,
    pub(crate) critical: bool,
    pub(crate) critical_grace: Millis,
    pub(crate) on_failure: OnFailure,
    pub(crate) accept: ExitCodes,
}

/// What else a step says; most steps share one.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Look {
    pub(crate) tags: Box<[Text]>,
    pub(crate) provides: Box<[Text]>,
    pub(crate) consumes: Box<[Text]>,
    pub(crate) locks: Box<[Text]>,
    pub(crate) lock_wait: Option<Millis>,
    pub(crate) group: Option<Text>,
    /// The weight's bits, so that looks can be compared.
    pub(crate) weight: u64,
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) id: Sym,
    pub(crate) span: Span,
    pub(crate) name: Option<Text>,
    pub(crate) description: Option<Text>,
    pub(crate) condition: Option<u32>,
    pub(crate) body: u32,
    pub(crate) rules: u32,
    pub(crate) look: u32,
}

/// A variable of the plan with its default.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variable {
    pub(crate) name: Sym,
    /// Where the default stands.
    pub(crate) span: Span,
    pub(crate) default: Text,
}

/// What holds for the whole plan.
#[derive(Clone, Debug)]
pub(crate) struct Globals {
    pub(crate) max_concurrency: u32,
    pub(crate) default_timeout: Option<Millis>,
    pub(crate) default_retries: u32,
    pub(crate) stop_grace: Millis,
    pub(crate) env: Vec<(Sym, Text)>,
}

impl Default for Globals {
    fn default() -> Self {
        Self {
            max_concurrency: 1,
            default_timeout: Some(Millis::from_secs(1800)),
            default_retries: 0,
            stop_grace: Millis::from_secs(10),
            env: Vec::new(),
        }
    }
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Data {
    pub(crate) plan_id: String,
    pub(crate) version: Option<Text>,
    pub(crate) description: Option<Text>,
    pub(crate) metadata: Option<Node>,
    pub(crate) labels: Vec<(Sym, Text)>,
    pub(crate) vars: Vec<Variable>,
    pub(crate) inputs: BTreeMap<Sym, Declared>,
    /// The plan's outputs by name.
    pub(crate) outputs: Vec<(Sym, Node)>,
    /// The outputs that steps declare; most steps declare none.
    pub(crate) step_outputs: BTreeMap<u32, BTreeMap<Sym, Declared>>,
    pub(crate) locks: Vec<Text>,
    pub(crate) lock_wait: Option<Millis>,
    pub(crate) timeout: Option<Millis>,
    pub(crate) sla: Option<Millis>,
    pub(crate) globals: Globals,
    pub(crate) strings: Strings,
    pub(crate) templates: Vec<Template>,
    pub(crate) expressions: Vec<ExpressionEntry>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) bodies: Pool<Body>,
    pub(crate) rules: Pool<Rules>,
    pub(crate) looks: Pool<Look>,
    pub(crate) steps: Vec<Step>,
    /// The steps that stand in `finally`.
    pub(crate) finally: Range<u32>,
    /// For each string: the step of which it is the id, or [`NO_STEP`].
    pub(crate) step_of: Vec<u32>,
    pub(crate) edge_starts: Vec<u32>,
    pub(crate) edges: Vec<u32>,
    pub(crate) fallbacks: BTreeMap<u32, u32>,
    pub(crate) originals: BTreeMap<u32, u32>,
    /// The steps, each after everything that it waits for.
    pub(crate) order: Vec<u32>,
    pub(crate) consumes: Vec<(u32, Text, Span)>,
    pub(crate) occurrences: Vec<Occurrence>,
    pub(crate) schemas: BTreeMap<Sym, Arc<Schema>>,
}

impl Data {
    pub(crate) fn str(&self, sym: Sym) -> &str {
        self.strings.get(sym)
    }

    pub(crate) fn id(&self, step: u32) -> &str {
        self.str(self.steps[step as usize].id)
    }

    pub(crate) fn body(&self, step: u32) -> &Body {
        self.bodies.get(self.steps[step as usize].body)
    }

    pub(crate) fn look(&self, step: u32) -> &Look {
        self.looks.get(self.steps[step as usize].look)
    }

    /// The step with this id.
    pub(crate) fn find(&self, id: &str) -> Option<u32> {
        let sym = self.strings.find(id)?;
        self.step_of.get(sym.0 as usize).copied().filter(|step| *step != NO_STEP)
    }

    /// Whether the step stands in `finally`.
    pub(crate) fn is_finally(&self, step: u32) -> bool {
        self.finally.contains(&step)
    }

    /// The input with this name.
    pub(crate) fn input(&self, name: &str) -> Option<&Declared> {
        self.inputs.get(&self.strings.find(name)?)
    }

    /// The names of the plan's variables.
    pub(crate) fn variable_names(&self) -> impl Iterator<Item = &str> {
        self.vars.iter().map(|variable| self.str(variable.name))
    }

    /// The names of the plan's inputs.
    pub(crate) fn input_names(&self) -> impl Iterator<Item = &str> {
        self.inputs.keys().map(|name| self.str(*name))
    }

    pub(crate) fn dependencies(&self, step: u32) -> &[u32] {
        let at = step as usize;
        &self.edges[self.edge_starts[at] as usize..self.edge_starts[at + 1] as usize]
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| self.str(step.id))
    }
}

/// Equal things once, by number.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    items: Vec<T>,
    /// By hash; a hash that is taken by something else moves on to the next number.
    table: HashMap<u64, u32>,
    hasher: Hasher,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { items: Vec::new(), table: HashMap::new(), hasher: Hasher::default() }
    }
}

impl<T: Hash + Eq> Pool<T> {
    pub(crate) fn get(&self, number: u32) -> &T {
        &self.items[number as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    pub(crate) fn add(&mut self, item: T) -> u32 {
        let mut hash = self.hasher.hash(&item);
        while let Some(number) = self.table.get(&hash) {
            if self.items[*number as usize] == item {
                return *number;
            }
            hash = hash.wrapping_add(1);
        }
        let number = self.items.len() as u32;
        self.items.push(item);
        self.table.insert(hash, number);
        number
    }

    /// Gives back what only adding needs.
    pub(crate) fn close(&mut self) {
        self.table = HashMap::new();
        self.items.shrink_to_fit();
    }
}
