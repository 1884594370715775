//! What expressions and `${…}` name: it exists, it is settled when it is asked for, and it is called what it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{RUNS_LAST, expressions_in, reaches};
use crate::expr::{Facet, References};
use crate::plan::{Data, Form, IN_OUTPUTS, Occurrence, Part, What};
use crate::problem::{Problem, Problems, shorten};
use crate::source::{Source, Span};
use crate::strings::Sym;

/// How many fallbacks of a step are looked at for the outputs that they declare.
const SHOWN_FALLBACKS: usize = 64;

/// Checks every name in every text and condition.
pub(super) fn check(source: &Source, data: &Data, cyclic: bool, problems: &mut Problems) {
    both(data, problems);
    let variables = data.vars.iter().map(|variable| variable.name).collect();
    let mut names = Names { source, data, problems, variables, questions: Questions::default() };
    let wrong = names.inputs_as_variables();
    for variable in &data.vars {
        let Form::Template(number) = variable.default.form() else { continue };
        for name in wrong.get(&number).into_iter().flatten() {
            let name = shorten(name);
            let message = format!("there is no variable `{name}`");
            let hint = format!("`{name}` is an input, and the default of a variable cannot hold one");
            names.problems.push(Problem::error("undefined_variable", variable.span, message).hint(hint));
        }
    }
    for occurrence in &data.occurrences {
        if occurrence.in_step().is_some_and(|step| step as usize >= data.steps.len()) {
            continue;
        }
        if let What::Template(number) = occurrence.what {
            for name in wrong.get(&number).into_iter().flatten() {
                let hint = format!("`{0}` is an input: write ${{{{ inputs.{0} }}}}", shorten(name));
                names.no_variable(occurrence, "${", name, hint);
            }
            if !data.templates[number as usize].dynamic {
                continue;
            }
        }
        for number in expressions_in(data, occurrence.what) {
            let references = &data.expressions[number as usize].parsed.references;
            names.inputs(occurrence, references);
            names.run_status(occurrence, references);
            names.steps(occurrence, references);
            names.outputs(occurrence, references);
        }
    }
    let questions = names.questions;
    if !cyclic {
        questions.answer(data, problems);
    }
}

/// A name is a variable's or an input's.
fn both(data: &Data, problems: &mut Problems) {
    for variable in &data.vars {
        if let Some(input) = data.inputs.get(&variable.name) {
            let message = format!("`{}` is in `vars` and in `inputs`", shorten(data.str(variable.name)));
            let problem = Problem::error("duplicate_key", input.span, message).hint("keep one of them");
            problems.push(problem.also(variable.span, "the variable"));
        }
    }
}

/// Goes through the names in one text or condition after the other.
struct Names<'a> {
    source: &'a Source,
    data: &'a Data,
    problems: &'a mut Problems,
    variables: BTreeSet<Sym>,
    questions: Questions,
}

impl<'a> Names<'a> {
    fn is_variable(&self, name: &str) -> bool {
        self.data.strings.find(name).is_some_and(|name| self.variables.contains(&name))
    }

    /// For each template, the inputs that it names as if they were variables.
    fn inputs_as_variables(&self) -> BTreeMap<u32, BTreeSet<&'a str>> {
        let mut out: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
        if self.data.inputs.is_empty() {
            return out;
        }
        for (number, template) in self.data.templates.iter().enumerate() {
            for part in &template.parts {
                if let Part::Variable { name, .. } = part
                    && self.data.inputs.contains_key(name)
                    && !self.variables.contains(name)
                {
                    out.entry(number as u32).or_default().insert(self.data.str(*name));
                }
            }
        }
        out
    }

    /// Where a name stands in an occurrence; nobody looks where nobody would be told.
    fn place(&self, occurrence: &Occurrence, before: &str, name: &str) -> Span {
        if self.problems.is_full() { occurrence.span } else { narrow(self.source, occurrence.span, before, name) }
    }

    /// An input that is taken for a variable.
    fn no_variable(&mut self, occurrence: &Occurrence, before: &str, name: &str, hint: String) {
        let place = self.place(occurrence, before, name);
        let message = format!("there is no variable `{}`", shorten(name));
        self.problems.push(Problem::error("undefined_variable", place, message).hint(hint));
    }

    fn inputs(&mut self, occurrence: &Occurrence, references: &References) {
        for name in references.inputs.iter().filter(|name| self.data.input(name).is_none()) {
            let place = self.place(occurrence, "inputs.", name);
            let hint = match self.is_variable(name) {
                true => Some(format!("`{0}` is a variable: vars.{0}", shorten(name))),
                false => self.problems.suggest(name, self.data.input_names()),
            };
            let message = format!("there is no input `{}`", shorten(name));
            self.problems.push(Problem::error("unknown_name", place, message).maybe_hint(hint));
        }
        for name in references.vars.iter().chain(&references.guarded) {
            if self.data.input(name).is_some() && !self.is_variable(name) {
                let hint = format!("`{0}` is an input: inputs.{0}", shorten(name));
                self.no_variable(occurrence, "vars.", name, hint);
            }
        }
    }

    fn run_status(&mut self, occurrence: &Occurrence, references: &References) {
        let is_known = || occurrence.in_step().is_some_and(|step| self.data.is_finally(step));
        if references.uses_run_status && !is_known() {
            let place = self.place(occurrence, "run.", "status");
            let message = "only steps in `finally` know how the run ended";
            let hint = "`steps.ID.status` tells of one step";
            self.problems.push(Problem::error("finally", place, message).hint(hint));
        }
    }

    /// Whether steps that are named exist, and are settled by then.
    fn steps(&mut self, occurrence: &Occurrence, references: &References) {
        let data = self.data;
        for id in references.step_ids() {
            let Some(target) = data.find(id) else {
                let place = self.place(occurrence, "steps.", id);
                let message = format!("there is no step `{}`", shorten(id));
                let hint = self.problems.suggest(id, data.ids());
                self.problems.push(Problem::error("unknown_step", place, message).maybe_hint(hint));
                continue;
            };
            let Some(step) = occurrence.in_step() else {
                if occurrence.step == IN_OUTPUTS && data.is_finally(target) {
                    let place = self.place(occurrence, "steps.", id);
                    let message = format!("an output asks for the result of `{}`, which is in `finally`", shorten(id));
                    let hint = "outputs are computed when the steps have succeeded, before `finally` begins";
                    self.problems.push(Problem::error("finally", place, message).hint(hint));
                }
                continue;
            };
            match (data.is_finally(step), data.is_finally(target)) {
                _ if step == target => {
                    let place = self.place(occurrence, "steps.", id);
                    let message = format!("step `{}` asks for its own result", shorten(id));
                    let hint = "an expression is evaluated before the step runs";
                    self.problems.push(Problem::error("not_a_dependency", place, message).hint(hint));
                }
                (false, true) => {
                    let place = self.place(occurrence, "steps.", id);
                    let (step, target) = (shorten(data.id(step)), shorten(id));
                    let message = format!("`{step}` asks for the result of `{target}`, which is in `finally`");
                    self.problems.push(Problem::error("finally", place, message).hint(RUNS_LAST));
                }
                // Everything outside `finally` has ended before.
                (true, false) => {}
                (true, true) | (false, false) => {
                    if !data.dependencies(step).contains(&target) {
                        let place = self.place(occurrence, "steps.", id);
                        self.questions.ask(place, step, target);
                    }
                }
            }
        }
    }

    /// Whether outputs that are named are among those that a step declares. A fallback's outputs stand under the id
    /// of the step in whose place it runs.
    fn outputs(&mut self, occurrence: &Occurrence, references: &References) {
        let data = self.data;
        if data.step_outputs.is_empty() {
            return;
        }
        for (id, facet) in &references.steps {
            let (Facet::Outputs(Some(name)), Some(target)) = (facet, data.find(id)) else { continue };
            let chain = || std::iter::successors(Some(target), |step| data.fallbacks.get(step).copied());
            let sym = data.strings.find(name);
            let could_set = |step| match (data.step_outputs.get(&step), sym) {
                (None, _) => true,
                (Some(declared), Some(name)) => declared.contains_key(&name),
                (Some(_), None) => false,
            };
            if chain().take(SHOWN_FALLBACKS).any(could_set) {
                continue;
            }
            let place = self.place(occurrence, "outputs.", name);
            let message = format!("`{}` declares no output `{}`", shorten(id), shorten(name));
            let declared =
                data.step_outputs.get(&target).into_iter().flat_map(BTreeMap::keys).map(|name| data.str(*name));
            let hint = self.problems.suggest(name, declared);
            self.problems.push(Problem::error("unknown_name", place, message).maybe_hint(hint));
        }
    }
}

/// The place of a name inside a longer place: where `before` or a quote stands before it.
fn narrow(source: &Source, span: Span, before: &str, name: &str) -> Span {
    let text = source.slice(span);
    let found = text.match_indices(name).find(|(at, _)| {
        let start = &text[..*at];
        let is_there = start.ends_with(['\'', '"']) || start.ends_with(before);
        is_there && !text[at + name.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    });
    found.map_or(span, |(at, _)| {
        let start = span.start as usize + at;
        Span::new(start, start + name.len())
    })
}

/// Steps that ask for results of others, to be answered together.
#[derive(Default)]
struct Questions {
    pairs: Vec<(u32, u32)>,
    asked: Vec<(Span, u32, u32)>,
    set_of: HashMap<u32, u32>,
    sets: Vec<Vec<u32>>,
}

impl Questions {
    fn ask(&mut self, place: Span, step: u32, target: u32) {
        let set = *self.set_of.entry(target).or_insert_with(|| {
            self.sets.push(vec![target]);
            self.sets.len() as u32 - 1
        });
        self.pairs.push((step, set));
        self.asked.push((place, step, target));
    }

    fn answer(self, data: &Data, problems: &mut Problems) {
        if self.pairs.is_empty() {
            return;
        }
        for ((place, step, target), reached) in self.asked.into_iter().zip(reaches(data, &self.pairs, &self.sets)) {
            if !reached {
                let (step, target) = (shorten(data.id(step)), shorten(data.id(target)));
                let message = format!("`{step}` asks for the result of `{target}` without depending on it");
                let hint = format!("add `{target}` to the `depends_on` of `{step}`");
                problems.push(Problem::error("not_a_dependency", place, message).hint(hint));
            }
        }
    }
}
