//! A plan joined with its variables and a slice of it: the graph for the scheduler, and what each step does.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use baton_core::graph::{LockRequest, StepShape};
use baton_core::value::{MAX_DEPTH, is_too_deep};
use baton_core::{Graph, GraphBuilder, Invocation, Policy, RunId, RunStatus, StepIndex, StepStatus};
use serde_json::{Map, Value, json};

use crate::check;
use crate::expr::{Facts, type_name};
use crate::inputs::{self, Given};
use crate::plan::{Action, Data, Form, Node, NodeKind, Part, Plan, Step, Text, What};
use crate::problem::{Problem, Problems, Severity, nearest, shorten};
use crate::schema::{Findings, check_value};
use crate::slice::{Selection, kept_outputs, select};
use crate::source::Span;
use crate::strings::Sym;
use crate::template::is_variable_name;
use crate::tree::{Path, Tree};

/// The longest text that variables and expressions may make of a template, in bytes.
pub const MAX_TEXT_BYTES: usize = 4 << 20;
/// How many further places of an undefined variable are told.
const SHOWN_PLACES: usize = 5;

/// What a person says about a run besides the plan.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Values of variables and inputs, which go before the plan's defaults.
    pub vars: BTreeMap<String, Given>,
    /// Which steps are to run.
    pub selection: Selection,
    /// Further steps that are not to run, as first and last places: those that a retry keeps. None in `finally`.
    pub kept: Vec<(u32, u32)>,
    /// Whether steps that do not run have outputs, from an earlier run.
    pub outputs_available: bool,
    /// Whether the plan is only looked at, so that its inputs need no values.
    pub only_looking: bool,
}

/// What was recorded when a run was submitted.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Every variable with its value.
    pub vars: BTreeMap<String, String>,
    /// Every input with its value.
    pub inputs: Map<String, Value>,
    /// The steps that do not run, as first and last places of each stretch.
    pub kept: Vec<(u32, u32)>,
}

/// What expressions see of a run.
pub struct Scope<'a> {
    /// The run.
    pub run: RunId,
    /// The folder of the plan's file.
    pub plan_dir: &'a str,
    /// The folder where the run was started.
    pub cwd: &'a str,
    /// Whether the steps that do not run in this run have run in another, whose outputs stand in for theirs.
    pub kept_steps_have_run: bool,
    /// Where each step is.
    pub status: &'a dyn Fn(StepIndex) -> StepStatus,
    /// The outputs of each step that has some; of one that failed, those of its fallback.
    pub outputs: &'a dyn Fn(StepIndex) -> Option<&'a Map<String, Value>>,
    /// How all steps outside `finally` ended; `None`: they have not all ended.
    pub run_status: Option<RunStatus>,
}

/// A plan that is ready to run.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The scheduler's view.
    pub graph: Arc<Graph>,
    /// Every variable with the value it has in this run.
    pub vars: BTreeMap<String, String>,
    /// Every input that the plan declares, with the value it has in this run.
    pub inputs: Map<String, Value>,
    /// The steps that do not run, as first and last places of each stretch.
    pub kept: Vec<(u32, u32)>,
    /// What is probably not meant.
    pub warnings: Vec<Problem>,
    pub(crate) data: Arc<Data>,
}

impl Plan {
    /// The plan's `plan_id`.
    pub fn id(&self) -> &str {
        &self.0.plan_id
    }

    /// How many steps it has.
    pub fn len(&self) -> usize {
        self.0.steps.len()
    }

    /// Whether it has no steps; a plan that was read without errors has some.
    pub fn is_empty(&self) -> bool {
        self.0.steps.is_empty()
    }

    /// The variables that it declares.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.vars.iter().map(|variable| self.0.str(variable.name))
    }

    /// Joins the plan with variables and a slice; or every problem with that.
    pub fn compile(&self, options: &Options) -> Result<Compiled, Vec<Problem>> {
        let data = &self.0;
        let mut problems = Problems::default();
        let vars = variables(data, options, &mut problems);
        let inputs = inputs::inputs(data, options, &mut problems);
        let selected = select(data, &vars, options, &mut problems);
        undefined(data, &vars, Some(&selected), &mut problems);
        kept_outputs(data, &selected, options, &mut problems);
        unused(data, options, &mut problems);
        artifacts(data, &vars, &selected, &mut problems);
        if check::has_templates(data) {
            let name = |text| Cow::Owned(fill(data, text, &vars));
            check::consumes(data, name, &mut problems);
        }
        if problems.has_errors() {
            return Err(problems.finish());
        }
        let graph = graph(data, &vars, &selected, &mut problems);
        if problems.has_errors() {
            return Err(problems.finish());
        }
        let mut kept: Vec<(u32, u32)> = Vec::new();
        for step in (0..data.steps.len() as u32).filter(|step| !selected[*step as usize]) {
            match kept.last_mut() {
                Some((_, last)) if *last + 1 == step => *last = step,
                _ => kept.push((step, step)),
            }
        }
        let warnings = problems.finish();
        Ok(Compiled { graph: Arc::new(graph), vars, inputs, kept, warnings, data: Arc::clone(data) })
    }

    /// Joins the plan with what was recorded when a run of it was submitted. That is what it is: nothing of it is
    /// judged again, so that a run which could begin can always be read.
    pub fn compile_recorded(&self, recorded: Recorded) -> Result<Compiled, Vec<Problem>> {
        let data = &self.0;
        let Recorded { vars, inputs, kept } = recorded;
        let mut selected = vec![true; data.steps.len()];
        for (first, last) in &kept {
            let steps = selected.iter_mut().skip(*first as usize).take((last - first) as usize + 1);
            steps.for_each(|selected| *selected = false);
        }
        let mut problems = Problems::default();
        let graph = graph(data, &vars, &selected, &mut problems);
        if problems.has_errors() {
            return Err(problems.finish());
        }
        Ok(Compiled { graph: Arc::new(graph), vars, inputs, kept, warnings: Vec::new(), data: Arc::clone(data) })
    }
}

/// The problems of undefined variables and inputs in a plan that has other errors too, so that all are told at once.
pub(crate) fn undefined_only(data: &Data, options: &Options, problems: &mut Problems) {
    let vars = variables(data, options, problems);
    inputs::inputs(data, options, problems);
    undefined(data, &vars, None, problems);
}

/// Every variable's value. A default may hold other variables.
fn variables(data: &Data, options: &Options, problems: &mut Problems) -> BTreeMap<String, String> {
    let mut vars = BTreeMap::new();
    for (name, given) in options.vars.iter().filter(|(name, _)| data.input(name).is_none()) {
        if is_variable_name(name) {
            let value = match given.form() {
                inputs::Form::Text(text) => text.to_owned(),
                inputs::Form::Value(value) => {
                    problems.push(no_text(data, name, value, problems).given(given.origin()));
                    String::new()
                }
            };
            vars.insert(name.clone(), value);
        } else {
            let message = format!("`{}` cannot be a variable's name", shorten(name));
            let hint = "a letter or `_`, then letters, digits and `_`";
            problems.push(Problem::error("bad_name", Span::default(), message).nowhere().hint(hint));
        }
    }
    let place: BTreeMap<_, _> = data.vars.iter().enumerate().map(|(at, variable)| (variable.name, at)).collect();
    let needs = |at: usize| -> Vec<(u32, bool)> {
        let Form::Template(number) = data.vars[at].default.form() else { return Vec::new() };
        let parts = data.templates[number as usize].parts.iter();
        let names = parts.filter_map(|part| match part {
            Part::Variable { name, default } => Some((name.0, default.is_some())),
            _ => None,
        });
        names.collect()
    };
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; data.vars.len()];
    for first in 0..data.vars.len() {
        let mut stack = vec![first];
        while let Some(at) = stack.last().copied() {
            let variable = &data.vars[at];
            let name = data.str(variable.name);
            if marks[at] == Mark::Done || options.vars.contains_key(name) {
                marks[at] = Mark::Done;
                stack.pop();
                continue;
            }
            let mut waiting = None;
            let mut whole = true;
            for (needed, has_default) in needs(at) {
                let needed_name = data.str(Sym(needed));
                if options.vars.contains_key(needed_name) || data.input(needed_name).is_some() {
                    continue;
                }
                match place.get(&Sym(needed)) {
                    None if has_default => {}
                    None => {
                        whole = false;
                        if marks[at] == Mark::New {
                            let message = format!("the variable `{needed_name}` has no value");
                            let hint = define_hint(data, needed_name, problems);
                            problems.push(Problem::error("undefined_variable", variable.span, message).hint(hint));
                        }
                    }
                    Some(other) if marks[*other] == Mark::New => waiting = waiting.or(Some(*other)),
                    Some(other) if marks[*other] == Mark::Open => {
                        whole = false;
                        let begin = stack.iter().position(|open| open == other).unwrap_or(0);
                        let names: Vec<String> =
                            stack[begin..].iter().map(|at| shorten(data.str(data.vars[*at].name))).collect();
                        let message = format!("variables go round: {} → {}", names.join(" → "), names[0]);
                        problems.push(Problem::error("variable_cycle", variable.span, message));
                    }
                    Some(_) => {}
                }
            }
            marks[at] = Mark::Open;
            match waiting {
                Some(other) if whole => stack.push(other),
                _ => {
                    let value = fill(data, variable.default, &vars);
                    if value.len() > MAX_TEXT_BYTES {
                        let message = format!("the variable `{}` grows beyond {MAX_TEXT_BYTES} bytes", shorten(name));
                        problems.push(Problem::error("too_long", variable.span, message));
                        vars.insert(name.to_owned(), String::new());
                    } else {
                        vars.insert(name.to_owned(), value);
                    }
                    marks[at] = Mark::Done;
                    stack.pop();
                }
            }
        }
    }
    vars
}

/// A value with a type for a variable, which has none.
fn no_text(data: &Data, name: &str, value: &Value, problems: &Problems) -> Problem {
    let found = Tree::from_value(value).called();
    let shown = shorten(name);
    let (message, hint) = if data.variable_names().any(|variable| variable == name) {
        let message = format!("the variable `{shown}` takes text, and this is {found}");
        (message, "values of other types are `inputs`".to_owned())
    } else {
        let message = format!("the plan has no input `{shown}`, and a variable takes text; this is {found}");
        let near = problems.suggest(name, data.input_names());
        (message, near.unwrap_or_else(|| "declare it under `inputs`".to_owned()))
    };
    Problem::error("wrong_type", Span::default(), message).hint(hint)
}

fn define_hint(data: &Data, name: &str, problems: &Problems) -> String {
    let give = format!("give it with --var {name}=…, a default under `vars`, or ${{{name}:-default}}");
    let near = problems.suggest(name, data.variable_names()).or_else(|| {
        let input = if problems.is_full() { None } else { nearest(name, data.input_names()) };
        input.map(|input| format!("did you mean ${{{{ inputs.{input} }}}}?"))
    });
    match near {
        Some(near) => format!("{near} Else {give}"),
        None => give,
    }
}

/// A text with its variables put in; expressions stay as they are written, and so does what has no value.
pub(crate) fn fill(data: &Data, text: Text, vars: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    match text.form() {
        Form::Plain(sym) => out.push_str(data.str(sym)),
        Form::Template(number) => {
            for part in &data.templates[number as usize].parts {
                if out.len() > MAX_TEXT_BYTES {
                    break;
                }
                match part {
                    Part::Text(sym) => out.push_str(data.str(*sym)),
                    Part::Variable { name, default } => write_variable(data, *name, *default, vars, &mut out),
                    Part::Expression(number) => write_expression(data, *number, &mut out),
                }
            }
        }
    }
    out
}

fn write_variable(data: &Data, name: Sym, default: Option<Sym>, vars: &BTreeMap<String, String>, out: &mut String) {
    let name = data.str(name);
    match (vars.get(name), default) {
        (Some(value), None) => out.push_str(value),
        (Some(value), Some(_)) if !value.is_empty() => out.push_str(value),
        (_, Some(default)) => out.push_str(data.str(default)),
        (None, None) => {
            out.push_str("${");
            out.push_str(name);
            out.push('}');
        }
    }
}

/// An expression as it is written.
fn write_expression(data: &Data, number: u32, out: &mut String) {
    out.push_str("${{");
    out.push_str(data.str(data.expressions[number as usize].text));
    out.push_str("}}");
}

/// Every variable without a value, with its places.
fn undefined(data: &Data, vars: &BTreeMap<String, String>, selected: Option<&[bool]>, problems: &mut Problems) {
    // Most templates stand in many places: what each lacks is found once.
    let mut of_template: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (number, template) in data.templates.iter().enumerate() {
        let mut names = BTreeSet::new();
        for part in &template.parts {
            match part {
                Part::Variable { name, default: None } => {
                    names.insert(data.str(*name).to_owned());
                }
                Part::Expression(number) => {
                    names.extend(data.expressions[*number as usize].parsed.references.vars.iter().cloned());
                }
                Part::Text(_) | Part::Variable { .. } => {}
            }
        }
        // An input that is named like a variable was told before.
        names.retain(|name| !vars.contains_key(name) && data.input(name).is_none());
        if !names.is_empty() {
            of_template.insert(number as u32, names.into_iter().collect());
        }
    }
    let mut places: BTreeMap<String, (usize, Vec<Span>)> = BTreeMap::new();
    for occurrence in &data.occurrences {
        let runs = |step: u32| selected.is_none_or(|selected| selected.get(step as usize).copied().unwrap_or(false));
        if !occurrence.in_step().is_none_or(runs) {
            continue;
        }
        let missing: Cow<'_, [String]> = match occurrence.what {
            What::Template(number) => match of_template.get(&number) {
                Some(names) => Cow::Borrowed(names),
                None => continue,
            },
            What::Condition(number) => {
                let expression = &data.expressions[number as usize].parsed;
                let names = expression.references.vars.iter();
                let names = names.filter(|name| !vars.contains_key(*name) && data.input(name).is_none());
                Cow::Owned(names.cloned().collect())
            }
        };
        for name in missing.iter() {
            let entry = places.entry(name.clone()).or_default();
            entry.0 += 1;
            if entry.1.len() <= SHOWN_PLACES {
                entry.1.push(occurrence.span);
            }
        }
    }
    for (name, (count, spans)) in places {
        let message = match count {
            1 => format!("the variable `{}` has no value", shorten(&name)),
            _ => format!("the variable `{}` has no value, and {count} places need it", shorten(&name)),
        };
        let first = spans.first().copied().unwrap_or_default();
        let mut problem =
            Problem::error("undefined_variable", first, message).hint(define_hint(data, &shorten(&name), problems));
        for span in spans.iter().skip(1).take(SHOWN_PLACES) {
            problem = problem.also(*span, "here too");
        }
        problems.push(problem);
    }
}

/// Values that the command line gives and the plan has no use for.
fn unused(data: &Data, options: &Options, problems: &mut Problems) {
    // What is no text was told before.
    let texts = options.vars.iter().filter(|(_, given)| matches!(given.form(), inputs::Form::Text(_)));
    let mut candidates: BTreeSet<&str> = texts.map(|(name, _)| name.as_str()).collect();
    for name in data.variable_names().chain(data.input_names()) {
        candidates.remove(name);
    }
    if candidates.is_empty() {
        return;
    }
    for template in &data.templates {
        for part in &template.parts {
            if let Part::Variable { name, .. } = part {
                candidates.remove(data.str(*name));
            }
        }
    }
    for entry in &data.expressions {
        let references = &entry.parsed.references;
        for name in references.vars.iter().chain(&references.guarded) {
            candidates.remove(name.as_str());
        }
    }
    let scripts: Vec<&str> = data
        .bodies
        .iter()
        .filter_map(|body| match &body.action {
            Action::Process { command, shell: true, .. } => match command.form() {
                Form::Plain(sym) => Some(data.str(sym)),
                Form::Template(_) => None,
            },
            _ => None,
        })
        .collect();
    candidates.retain(|name| !scripts.iter().any(|script| script.contains(name)));
    for name in candidates {
        let known = if data.inputs.is_empty() { "variable" } else { "variable and no input" };
        let message = format!("the plan has no {known} `{}`, so its value is not used", shorten(name));
        let hint = problems.suggest(name, data.variable_names().chain(data.input_names()));
        let origin = options.vars.get(name).and_then(Given::origin);
        let problem = Problem::warning("unused_variable", Span::default(), message).given(origin);
        problems.push(problem.maybe_hint(hint));
    }
}

/// Patterns of files that lead out of a step's folder now that variables are put in.
fn artifacts(data: &Data, vars: &BTreeMap<String, String>, selected: &[bool], problems: &mut Problems) {
    for (at, step) in data.steps.iter().enumerate().filter(|(at, _)| selected[*at]) {
        let patterns = data.body(at as u32).artifacts.iter();
        for text in patterns.filter(|text| matches!(text.form(), Form::Template(_))) {
            check::leads_out(&fill(data, *text, vars), step.span)
                .into_iter()
                .for_each(|problem| problems.push(problem));
        }
    }
}

fn graph(data: &Data, vars: &BTreeMap<String, String>, selected: &[bool], problems: &mut Problems) -> Graph {
    let mut locks = |texts: &[Text], wait, runs: bool, span: Span| {
        let names: BTreeSet<String> = texts.iter().map(|text| fill(data, *text, vars)).collect();
        if runs && names.iter().any(|name| name.trim().is_empty()) {
            let message = "a lock's name is empty once its variables are put in";
            problems.push(Problem::error("bad_name", span, message));
        }
        LockRequest { names: names.into_iter().collect(), wait_timeout: wait }
    };
    let policies: Vec<Policy> = data
        .rules
        .iter()
        .map(|rules| Policy {
            retries: rules.retries.unwrap_or(data.globals.default_retries),
            retry_delay: rules.retry_delay,
            backoff: rules.backoff,
            retry_max_delay: rules.retry_max_delay,
            jitter_permille: rules.jitter_permille,
            timeout: rules.timeout.or(data.globals.default_timeout),
            stop_grace: rules.stop_grace.unwrap_or(data.globals.stop_grace),
            critical: rules.critical,
            critical_grace: rules.critical_grace,
            on_failure: rules.on_failure,
            accept: rules.accept,
        })
        .collect();
    let mut builder = GraphBuilder::with_capacity(data.steps.len());
    builder.max_concurrency = data.globals.max_concurrency;
    builder.timeout = data.timeout;
    builder.sla = data.sla;
    builder.has_outputs = !data.outputs.is_empty();
    builder.plan_locks = locks(&data.locks, data.lock_wait, true, Span::default());
    for (at, step) in data.steps.iter().enumerate() {
        let look = data.look(at as u32);
        let request = match look.locks.is_empty() {
            true => LockRequest::default(),
            false => locks(&look.locks, look.lock_wait, selected[at], step.span),
        };
        builder.add(
            data.str(step.id),
            StepShape {
                policy: policies[step.rules as usize],
                depends_on: data.dependencies(at as u32).iter().map(|step| StepIndex(*step)).collect(),
                conditional: step.condition.is_some(),
                fallback: data.fallbacks.get(&(at as u32)).map(|step| StepIndex(*step)),
                locks: request,
                finally: data.is_finally(at as u32),
            },
        );
    }
    builder.build()
}

impl Compiled {
    /// The inputs that have no value: none, unless the plan is only looked at.
    pub fn missing_inputs(&self) -> impl Iterator<Item = &str> {
        let names = self.data.inputs.keys().map(|name| self.data.str(*name));
        names.filter(|name| !self.inputs.contains_key(*name))
    }

    fn step(&self, step: StepIndex) -> &Step {
        &self.data.steps[step.at()]
    }

    fn text(&self, text: Text) -> Cow<'_, str> {
        match text.form() {
            Form::Plain(sym) => Cow::Borrowed(self.data.str(sym)),
            Form::Template(_) => Cow::Owned(fill(&self.data, text, &self.vars)),
        }
    }

    fn texts(&self, texts: &[Text]) -> Vec<String> {
        texts.iter().map(|text| self.text(*text).into_owned()).collect()
    }

    /// The plan's `plan_id`.
    pub fn plan_id(&self) -> &str {
        &self.data.plan_id
    }

    /// The plan's `version`.
    pub fn version(&self) -> Option<Cow<'_, str>> {
        self.data.version.map(|text| self.text(text))
    }

    /// The plan's `description`.
    pub fn description(&self) -> Option<Cow<'_, str>> {
        self.data.description.map(|text| self.text(text))
    }

    /// The plan's `metadata`.
    pub fn metadata(&self) -> Value {
        self.data.metadata.as_ref().map_or_else(|| json!({}), |node| self.preview_node(node))
    }

    /// The plan's `labels`.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.data.labels.iter();
        labels.map(|(name, value)| (self.data.str(*name).to_owned(), self.text(*value).into_owned())).collect()
    }

    /// The step's title; without one, its id.
    pub fn name(&self, step: StepIndex) -> Cow<'_, str> {
        match self.step(step).name {
            Some(name) => self.text(name),
            None => Cow::Borrowed(self.data.id(step.0)),
        }
    }

    /// What the step is for.
    pub fn step_description(&self, step: StepIndex) -> Option<Cow<'_, str>> {
        self.step(step).description.map(|text| self.text(text))
    }

    /// The step's tags.
    pub fn tags(&self, step: StepIndex) -> Vec<String> {
        self.texts(&self.data.look(step.0).tags)
    }

    /// The heading under which the step is shown.
    pub fn group(&self, step: StepIndex) -> Option<Cow<'_, str>> {
        self.data.look(step.0).group.map(|text| self.text(text))
    }

    /// The step's share of the percentage.
    pub fn weight(&self, step: StepIndex) -> f64 {
        f64::from_bits(self.data.look(step.0).weight)
    }

    /// The patterns of files that are kept after an attempt.
    pub fn artifacts(&self, step: StepIndex) -> Vec<String> {
        self.texts(&self.data.body(step.0).artifacts)
    }

    /// Whether processes that the step leaves behind may live on.
    pub fn detach(&self, step: StepIndex) -> bool {
        self.data.body(step.0).detach
    }

    /// The logical resources that the step makes.
    pub fn provides(&self, step: StepIndex) -> Vec<String> {
        self.texts(&self.data.look(step.0).provides)
    }

    /// The logical resources that the step needs.
    pub fn consumes(&self, step: StepIndex) -> Vec<String> {
        self.texts(&self.data.look(step.0).consumes)
    }

    /// The step's condition as it is written.
    pub fn condition_text(&self, step: StepIndex) -> Option<&str> {
        let number = self.step(step).condition?;
        Some(self.data.str(self.data.expressions[number as usize].text))
    }

    /// Whether what the step does holds an expression, so that it is known only when the step starts.
    pub fn is_dynamic(&self, step: StepIndex) -> bool {
        let dynamic = |text: &Text| match text.form() {
            Form::Plain(_) => false,
            Form::Template(number) => self.data.templates[number as usize].dynamic,
        };
        let body = self.data.body(step.0);
        let in_action = match &body.action {
            Action::Process { command, args, .. } => dynamic(command) || args.iter().any(dynamic),
            Action::Uses { with, .. } => {
                with.is_some_and(|number| any_text(&self.data.nodes[number as usize], &dynamic))
            }
        };
        in_action
            || body.cwd.as_ref().is_some_and(dynamic)
            || body.env.iter().chain(&self.data.globals.env).any(|(_, value)| dynamic(value))
    }

    /// What an attempt of the step does; or why that cannot be computed, with the values met.
    pub fn invocation(&self, step: StepIndex, scope: &Scope<'_>) -> Result<Invocation, String> {
        self.resolve(step, Some(scope))
    }

    /// The same for people before anything runs: variables are put in, and so are expressions that name only variables
    /// and inputs; the others stay as they are written.
    pub fn preview(&self, step: StepIndex) -> Result<Invocation, String> {
        self.resolve(step, None)
    }

    fn resolve(&self, step: StepIndex, scope: Option<&Scope<'_>>) -> Result<Invocation, String> {
        let data = &*self.data;
        let body = data.body(step.0);
        let mut env = BTreeMap::new();
        let (uses, with) = match &body.action {
            Action::Process { command, args, shell } => {
                // A script is never changed: its variables come to it as environment.
                let command = match shell {
                    true => {
                        env.extend(self.vars.iter().map(|(name, value)| (name.clone(), value.clone())));
                        self.text(*command).into_owned()
                    }
                    false => self.render(*command, scope)?.into_owned(),
                };
                let mut out = Vec::with_capacity(args.len());
                for argument in args {
                    self.argument(*argument, scope, &mut out)?;
                }
                ("process".to_owned(), process_input(command, out, *shell))
            }
            Action::Uses { kind, with } => {
                let input = match with {
                    Some(number) => self.node(&data.nodes[*number as usize], scope)?,
                    None => json!({}),
                };
                let name = data.str(*kind);
                if is_too_deep(&input) {
                    return Err(format!("the input of `{name}` nests deeper than {MAX_DEPTH}"));
                }
                if let (Some(schema), Some(_)) = (data.schemas.get(kind), scope) {
                    let mut findings = Findings::default();
                    check_value(schema, &input, &Path::new("with"), &mut findings);
                    findings.into_text().map_err(|error| format!("the input of `{name}` does not fit: {error}"))?;
                }
                (name.to_owned(), input)
            }
        };
        for (name, value) in data.globals.env.iter().chain(&body.env) {
            env.insert(data.str(*name).to_owned(), self.render(*value, scope)?.into_owned());
        }
        let cwd = match body.cwd {
            Some(cwd) => self.render(cwd, scope)?.into_owned(),
            None => ".".to_owned(),
        };
        Ok(Invocation { uses, with, cwd, env })
    }

    /// Whether the step is to run; or why that cannot be computed, with the values met.
    pub fn condition(&self, step: StepIndex, scope: &Scope<'_>) -> Result<bool, String> {
        let Some(number) = self.step(step).condition else { return Ok(true) };
        match self.evaluate(number, scope)? {
            Value::Bool(holds) => Ok(holds),
            other => {
                let text = self.data.str(self.data.expressions[number as usize].text);
                let shown = shorten(&other.to_string());
                Err(format!(
                    "the condition `{}` gives {} ({shown}), and must give true or false",
                    text.trim(),
                    type_name(&other)
                ))
            }
        }
    }

    fn evaluate(&self, number: u32, scope: &Scope<'_>) -> Result<Value, String> {
        let entry = &self.data.expressions[number as usize];
        let text = self.data.str(entry.text);
        let find = |id: &str| self.data.find(id).map(StepIndex);
        let facts = Facts { vars: &self.vars, inputs: &self.inputs, plan_id: &self.data.plan_id, find: &find };
        entry.parsed.evaluate(text, &facts, scope)
    }

    /// An expression's value; without a scope `None`, unless it is settled before the run starts.
    fn known(&self, number: u32, scope: Option<&Scope<'_>>) -> Result<Option<Value>, String> {
        if let Some(scope) = scope {
            return self.evaluate(number, scope).map(Some);
        }
        if !self.data.expressions[number as usize].parsed.references.is_settled() {
            return Ok(None);
        }
        let nothing = Scope {
            kept_steps_have_run: false,
            run: RunId(0),
            plan_dir: "",
            cwd: "",
            status: &|_| StepStatus::Waiting,
            outputs: &|_| None,
            run_status: None,
        };
        // What cannot be computed may belong to a step that never runs: it is shown as it is written.
        Ok(self.evaluate(number, &nothing).ok())
    }

    /// A text with everything put in. Without a scope, what is not settled yet stays as it is written.
    fn render(&self, text: Text, scope: Option<&Scope<'_>>) -> Result<Cow<'_, str>, String> {
        let Form::Template(number) = text.form() else { return Ok(self.text(text)) };
        let template = &self.data.templates[number as usize];
        let out = match template.dynamic {
            true => {
                let mut out = String::new();
                for part in &template.parts {
                    match part {
                        Part::Expression(number) => match self.in_text(*number, scope)? {
                            Some(value) => out.push_str(&value),
                            None => write_expression(&self.data, *number, &mut out),
                        },
                        Part::Text(sym) => out.push_str(self.data.str(*sym)),
                        Part::Variable { name, default } => {
                            write_variable(&self.data, *name, *default, &self.vars, &mut out);
                        }
                    }
                    if out.len() > MAX_TEXT_BYTES {
                        break;
                    }
                }
                out
            }
            false => fill(&self.data, text, &self.vars),
        };
        if out.len() > MAX_TEXT_BYTES {
            return Err(format!("a text grows beyond {MAX_TEXT_BYTES} bytes: `{}`", shorten(&out)));
        }
        Ok(Cow::Owned(out))
    }

    /// An expression's value inside a text; `None`: it is not known yet.
    fn in_text(&self, number: u32, scope: Option<&Scope<'_>>) -> Result<Option<String>, String> {
        let Some(value) = self.known(number, scope)? else { return Ok(None) };
        match (to_text(&value), scope) {
            (Some(text), _) => Ok(Some(text)),
            (None, None) => Ok(None),
            (None, Some(_)) => {
                let text = self.expression_text(number);
                let is_path = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-[]'".contains(&b));
                let it = if is_path { text } else { "X" };
                Err(format!(
                    "`{text}` is null, and a text cannot hold that; give a default: `{it} != null ? {it} : '…'`"
                ))
            }
        }
    }

    fn expression_text(&self, number: u32) -> &str {
        self.data.str(self.data.expressions[number as usize].text).trim()
    }

    fn argument(&self, text: Text, scope: Option<&Scope<'_>>, out: &mut Vec<Value>) -> Result<(), String> {
        if let Some(number) = self.whole_expression(text)
            && let Some(Value::Array(items)) = self.known(number, scope)?
            && (scope.is_some() || !items.contains(&Value::Null))
        {
            for item in &items {
                let item = to_text(item).ok_or_else(|| {
                    format!("`{}` holds a null, which cannot be an argument", self.expression_text(number))
                })?;
                out.push(item.into());
            }
            return Ok(());
        }
        out.push(self.render(text, scope)?.into_owned().into());
        Ok(())
    }

    /// The expression that a text is, from its first character to its last.
    fn whole_expression(&self, text: Text) -> Option<u32> {
        let Form::Template(number) = text.form() else { return None };
        match &self.data.templates[number as usize].parts[..] {
            [Part::Expression(number)] => Some(*number),
            _ => None,
        }
    }

    /// A value of `with`: a text that is one expression takes the type of its value.
    pub(crate) fn node(&self, node: &Node, scope: Option<&Scope<'_>>) -> Result<Value, String> {
        Ok(match &node.kind {
            NodeKind::Broken | NodeKind::Null => Value::Null,
            NodeKind::Bool(value) => Value::Bool(*value),
            NodeKind::Number(number) => Value::Number(number.clone()),
            NodeKind::Text(text) => {
                let value = match self.whole_expression(*text) {
                    Some(number) => self.known(number, scope)?,
                    None => None,
                };
                match value {
                    Some(value) => value,
                    None => self.render(*text, scope)?.into_owned().into(),
                }
            }
            NodeKind::List(items) => {
                Value::Array(items.iter().map(|item| self.node(item, scope)).collect::<Result<_, _>>()?)
            }
            NodeKind::Map(entries) => {
                let mut map = Map::new();
                for (key, _, value) in entries {
                    map.insert(self.data.str(*key).to_owned(), self.node(value, scope)?);
                }
                Value::Object(map)
            }
        })
    }

    fn preview_node(&self, node: &Node) -> Value {
        self.node(node, None).unwrap_or(Value::Null)
    }
}

/// A value inside a text; null has no text.
fn to_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

pub(crate) fn any_text(node: &Node, test: &dyn Fn(&Text) -> bool) -> bool {
    match &node.kind {
        NodeKind::Broken | NodeKind::Null | NodeKind::Bool(_) | NodeKind::Number(_) => false,
        NodeKind::Text(text) => test(text),
        NodeKind::List(items) => items.iter().any(|item| any_text(item, test)),
        NodeKind::Map(entries) => entries.iter().any(|(_, _, node)| any_text(node, test)),
    }
}

/// The input of a `process` action.
fn process_input(command: String, args: Vec<Value>, shell: bool) -> Value {
    let mut map = Map::new();
    map.insert("args".into(), Value::Array(args));
    map.insert("command".into(), Value::String(command));
    map.insert("shell".into(), Value::Bool(shell));
    Value::Object(map)
}

/// Whether any of these problems is an error.
pub fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.severity == Severity::Error)
}
