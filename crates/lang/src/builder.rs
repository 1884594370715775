//! From events to a plan: every field read by what the table says of it, every problem noted, nothing kept twice.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use baton_core::graph::{Backoff, ExitCodes};
use baton_core::{Millis, OnFailure};

use crate::events::{Event, Events, ScalarKind};
use crate::expr;
use crate::fields::{self, Field, Kind, Level, MAX_SECONDS, Name, Unknown};
use crate::plan::{
    Action, Body, Data, ExpressionEntry, Globals, KEPT_EXPRESSIONS, Look, NO_STEP, Node, NodeKind, Occurrence, Part,
    Rules, Step, Template, Text, Variable, What,
};
use crate::problem::{Problem, did_you_mean, shorten};
use crate::schema::ActionCatalog;
use crate::source::{Source, Span, inside};
use crate::strings::Sym;
use crate::template::{self, Piece};
use crate::yaml;

/// The longest id of a step or a plan.
pub const MAX_ID_BYTES: usize = 100;

/// A text as it stands in the source.
type Raw<'s> = (Cow<'s, str>, Span);

/// What was read for a field.
enum Read<'s> {
    /// Null: as if the field were not there.
    Nothing,
    /// Something else than the field takes; that was reported.
    Bad,
    Raw(Raw<'s>),
    Raws(Vec<Raw<'s>>),
    Pairs(Vec<(Raw<'s>, Raw<'s>)>),
    Bool(bool),
    Millis(Millis),
    Count(u32),
    Permille(u16),
    Number(f64),
    Word(usize),
    Codes(ExitCodes),
}

/// A step that another one names, to be looked up when all are known.
pub(crate) struct Reference {
    pub(crate) step: u32,
    pub(crate) name: Sym,
    pub(crate) span: Span,
}

/// What the checks need and the plan does not.
#[derive(Default)]
pub(crate) struct Links {
    pub(crate) depends_on: Vec<Reference>,
    pub(crate) fallbacks: Vec<Reference>,
    pub(crate) consumes: Vec<(u32, Text, Span)>,
}

pub(crate) struct Builder<'s, 'c> {
    source: &'s Source,
    catalog: &'c dyn ActionCatalog,
    pub(crate) events: Events<'s>,
    pub(crate) data: Data,
    pub(crate) links: Links,
    template_of: HashMap<Sym, u32>,
    expression_of: HashMap<Sym, Option<u32>>,
    /// The step that is being read, or [`NO_STEP`].
    step: u32,
}

impl<'s, 'c> Builder<'s, 'c> {
    pub(crate) fn new(source: &'s Source, catalog: &'c dyn ActionCatalog) -> Self {
        Self {
            source,
            catalog,
            events: Events::new(source),
            data: Data::default(),
            links: Links::default(),
            template_of: HashMap::new(),
            expression_of: HashMap::new(),
            step: NO_STEP,
        }
    }

    /// Reads the whole text.
    pub(crate) fn read(&mut self) {
        let (start, span) = self.events.next();
        match start {
            Event::MapStart => self.plan(span),
            Event::End if self.events.broken => {}
            Event::End => self.problem(
                Problem::error("empty_plan", span, "there is no plan in this text")
                    .hint("a plan has `plan_id` and `steps`; `baton init` writes one to start from"),
            ),
            other => {
                let message = format!("a plan is a map of fields, and this is {}", describe(&other));
                self.problem(
                    Problem::error("wrong_type", span, message).hint("a plan begins with `plan_id: NAME` and `steps:`"),
                );
                self.events.skip_rest(&other);
            }
        }
        // What follows the plan is checked too.
        while self.events.next().0 != Event::End {}
        let count = self.data.strings.len();
        self.data.step_of.resize(count, NO_STEP);
        self.data.strings.shrink();
        self.data.bodies.close();
        self.data.rules.close();
        self.data.looks.close();
        self.data.occurrences.shrink_to_fit();
        self.data.steps.shrink_to_fit();
    }

    fn problem(&mut self, problem: Problem) {
        self.events.problems.push(problem);
    }

    /// Goes through a map's fields; unknown ones are reported and passed over. The map's start was taken.
    fn fields(&mut self, level: Level, mut each: impl FnMut(&mut Self, &'static Field, Span)) {
        loop {
            let (event, span) = self.events.next();
            match event {
                Event::Key(key) => match fields::find(level, &key) {
                    Some(field) => each(self, field, span),
                    None => {
                        self.unknown(level, &key, span);
                        self.events.skip();
                    }
                },
                Event::MapEnd | Event::End => return,
                _ => {}
            }
        }
    }

    fn unknown(&mut self, level: Level, key: &str, span: Span) {
        let shown = shorten(key);
        if self.events.problems.is_full() {
            let message = format!("{} has no field `{shown}`", level.noun());
            return self.problem(Problem::error("unknown_field", span, message));
        }
        let problem = match fields::unknown(level, key) {
            Unknown::NotYet => {
                let message = format!("`{shown}` is not available yet in this version of Baton");
                Problem::error("not_available", span, message)
            }
            Unknown::Hint(hint) => {
                let message = format!("{} has no field `{shown}`", level.noun());
                Problem::error("unknown_field", span, message).maybe_hint(hint)
            }
        };
        self.problem(problem);
    }

    fn wrong_type(&mut self, field: &str, wanted: &str, found: &Event<'s>, span: Span) {
        // Where the text breaks off, that was reported.
        if *found == Event::End {
            return;
        }
        let message = format!("`{field}` takes {wanted}, and this is {}", describe(found));
        let mut problem = Problem::error("wrong_type", span, message);
        if let Event::Scalar(scalar) = found {
            if scalar.kind == ScalarKind::Broken {
                return;
            }
            let text = shorten(&scalar.text);
            if wanted.contains("list") && scalar.kind != ScalarKind::Null {
                let quoted = if scalar.kind == ScalarKind::Text { format!("\"{text}\"") } else { text };
                problem = problem.hint(format!("write [{quoted}]"));
            } else if wanted == "true or false" {
                if let Some(value) = yaml::old_boolean(&scalar.text) {
                    problem = problem.hint(format!("that is text; write `{value}`"));
                }
            } else if scalar.kind == ScalarKind::Text && wanted.contains("number") {
                if scalar.text.trim().parse::<f64>().is_ok() {
                    problem = problem.hint(format!("without quotes: {text}"));
                }
            } else if matches!(scalar.kind, ScalarKind::Number | ScalarKind::Bool) {
                problem = problem.hint(format!("in quotes it is text: \"{text}\""));
            }
        }
        self.problem(problem);
    }

    fn plan(&mut self, start: Span) {
        let mut seen = Vec::new();
        self.fields(Level::Plan, |this, field, _| {
            seen.push(field.name);
            match field.kind {
                Kind::Object(level) => this.globals(field, level),
                Kind::Steps => this.steps(field),
                Kind::Anything => {
                    let node = this.node(false);
                    match node {
                        Some(node) if matches!(node.kind, NodeKind::Map(_) | NodeKind::Null) => {
                            this.data.metadata = Some(node);
                        }
                        Some(node) => {
                            let message = format!("`{}` takes a map", field.key);
                            this.problem(Problem::error("wrong_type", node.span, message));
                        }
                        None => {}
                    }
                }
                _ => {
                    let value = this.value(field);
                    this.plan_field(field, value);
                }
            }
        });
        if !self.events.broken {
            self.missing(Level::Plan, "the plan", &seen, start);
        }
    }

    fn missing(&mut self, level: Level, what: &str, seen: &[Name], span: Span) {
        for field in fields::of(level).filter(|field| field.required && !seen.contains(&field.name)) {
            let message = format!("{what} has no `{}`", field.key);
            let hint = format!("add `{}`: {}", field.key, lower_first(field.doc));
            self.problem(Problem::error("missing_field", span, message).hint(hint));
        }
    }

    fn plan_field(&mut self, field: &'static Field, value: Read<'s>) {
        match (field.name, value) {
            (Name::PlanId, Read::Raw((id, span))) => {
                let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
                let starts = id.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
                if !starts || !id.chars().all(fine) || id.len() > MAX_ID_BYTES {
                    let message = format!("`{}` cannot be a plan's name", shorten(&id));
                    let hint = format!("take letters, digits, `_`, `-` and `.`, at most {MAX_ID_BYTES}");
                    self.problem(Problem::error("bad_id", span, message).hint(hint));
                }
                self.data.plan_id = id.into_owned();
            }
            (Name::Version, Read::Raw(raw)) => self.data.version = Some(self.text(&raw, false)),
            (Name::Description, Read::Raw(raw)) => self.data.description = Some(self.text(&raw, false)),
            (Name::Labels, Read::Pairs(pairs)) => self.data.labels = self.pairs(pairs, false),
            (Name::Vars, Read::Pairs(pairs)) => {
                for (name, default) in pairs {
                    if !template::is_variable_name(&name.0) {
                        let message = format!("`{}` cannot be a variable's name", shorten(&name.0));
                        let hint = "a letter or `_`, then letters, digits and `_`";
                        self.problem(Problem::error("bad_name", name.1, message).hint(hint));
                    }
                    let span = default.1;
                    let before = self.data.occurrences.len();
                    let default = self.text(&default, false);
                    // A default counts only where nothing goes before it.
                    self.data.occurrences.truncate(before);
                    let name = self.data.strings.add(&name.0);
                    self.data.vars.push(Variable { name, span, default });
                }
            }
            (Name::Locks, Read::Raws(raws)) => self.data.locks = self.locks(raws),
            (Name::LockWait, Read::Millis(wait)) => self.data.lock_wait = Some(wait),
            (Name::PlanTimeout, Read::Millis(timeout)) => self.data.timeout = Some(timeout),
            _ => {}
        }
    }

    fn globals(&mut self, field: &'static Field, level: Level) {
        if !self.map_start(field) {
            return;
        }
        let mut globals = Globals::default();
        self.fields(level, |this, field, _| match (field.name, this.value(field)) {
            (Name::MaxConcurrency, Read::Count(limit)) => globals.max_concurrency = limit,
            (Name::DefaultTimeout, Read::Millis(timeout)) => globals.default_timeout = Some(timeout),
            (Name::DefaultRetries, Read::Count(retries)) => globals.default_retries = retries,
            (Name::GlobalGrace, Read::Millis(grace)) => globals.stop_grace = grace,
            (Name::GlobalEnv, Read::Pairs(pairs)) => globals.env = this.environment(pairs),
            _ => {}
        });
        self.data.globals = globals;
    }

    /// Takes the start of a map; anything else is reported and passed over.
    fn map_start(&mut self, field: &'static Field) -> bool {
        let (event, span) = self.events.next();
        match event {
            Event::MapStart => true,
            Event::End => false,
            Event::Scalar(ref scalar) if scalar.kind == ScalarKind::Null => false,
            other => {
                self.wrong_type(field.key, &fields::wanted(field.kind), &other, span);
                self.events.skip_rest(&other);
                false
            }
        }
    }

    fn steps(&mut self, field: &'static Field) {
        let (event, span) = self.events.next();
        match event {
            Event::ListStart => {}
            Event::End => return,
            other => {
                self.wrong_type(field.key, &fields::wanted(field.kind), &other, span);
                self.events.skip_rest(&other);
                return;
            }
        }
        loop {
            let (event, span) = self.events.next();
            match event {
                Event::MapStart => self.one_step(span),
                Event::ListEnd => break,
                Event::End => return,
                other => {
                    let message = format!("a step is a map of fields, and this is {}", describe(&other));
                    self.problem(Problem::error("wrong_type", span, message));
                    self.events.skip_rest(&other);
                }
            }
        }
        if self.data.steps.is_empty() {
            self.problem(Problem::error("no_steps", span, "the plan has no steps").hint("add at least one"));
        }
    }

    fn one_step(&mut self, start: Span) {
        self.step = self.data.steps.len() as u32;
        let mut draft = Draft::default();
        self.fields(Level::Step, |this, field, key| match field.kind {
            Kind::Object(level) => this.hints(field, level, &mut draft),
            Kind::Anything => {
                draft.seen.push(field.name);
                draft.with = this.node(true).filter(|node| !matches!(node.kind, NodeKind::Null));
            }
            _ => {
                let value = this.value(field);
                if !matches!(value, Read::Nothing) || field.required {
                    draft.seen.push(field.name);
                }
                this.step_field(field, value, key, &mut draft);
            }
        });
        if !self.events.broken {
            self.finish_step(start, draft);
        }
        self.step = NO_STEP;
    }

    fn hints(&mut self, field: &'static Field, level: Level, draft: &mut Draft<'s>) {
        if !self.map_start(field) {
            return;
        }
        self.fields(level, |this, field, _| match (field.name, this.value(field)) {
            (Name::Group, Read::Raw(raw)) => draft.look.group = Some(this.text(&raw, false)),
            (Name::Weight, Read::Number(weight)) => draft.weight = weight,
            _ => {}
        });
    }

    fn step_field(&mut self, field: &'static Field, value: Read<'s>, key: Span, draft: &mut Draft<'s>) {
        match (field.name, value) {
            (Name::Id, Read::Raw(raw)) => draft.id = Some(raw),
            (Name::Title, Read::Raw(raw)) => draft.name = Some(self.text(&raw, false)),
            (Name::StepDescription, Read::Raw(raw)) => draft.description = Some(self.text(&raw, false)),
            (Name::Command, Read::Raw(raw)) => draft.command = Some(raw),
            (Name::Args, Read::Raws(raws)) => {
                draft.args_at = key;
                draft.args = raws.iter().map(|raw| self.text(raw, true)).collect();
            }
            (Name::Shell, Read::Bool(shell)) => {
                draft.shell = shell;
                draft.shell_at = key;
            }
            (Name::Uses, Read::Raw(raw)) => draft.uses = Some(raw),
            (Name::Cwd, Read::Raw(raw)) => draft.cwd = Some(self.text(&raw, true)),
            (Name::Env, Read::Pairs(pairs)) => draft.env = self.environment(pairs),
            (Name::DependsOn, Read::Raws(raws)) => {
                for (name, span) in raws {
                    let name = self.data.strings.add(&name);
                    self.links.depends_on.push(Reference { step: self.step, name, span });
                }
            }
            (Name::Condition, Read::Raw((text, span))) => {
                draft.condition = self.expression(&text, span, span);
                if let Some(condition) = draft.condition {
                    let what = What::Condition(condition);
                    self.data.occurrences.push(Occurrence { what, step: self.step, span });
                }
            }
            (Name::Timeout, Read::Millis(timeout)) => draft.rules.timeout = Some(timeout),
            (Name::Retries, Read::Count(retries)) => draft.rules.retries = Some(retries),
            (Name::RetryDelay, Read::Millis(delay)) => draft.rules.retry_delay = delay,
            (Name::RetryBackoff, Read::Word(word)) => {
                draft.rules.backoff = [Backoff::Fixed, Backoff::Exponential][word];
            }
            (Name::RetryMaxDelay, Read::Millis(delay)) => draft.rules.retry_max_delay = delay,
            (Name::RetryJitter, Read::Permille(jitter)) => draft.rules.jitter_permille = jitter,
            (Name::AcceptExitCodes, Read::Codes(codes)) => draft.rules.accept = codes,
            (Name::StopGrace, Read::Millis(grace)) => draft.rules.stop_grace = Some(grace),
            (Name::Critical, Read::Bool(critical)) => draft.rules.critical = critical,
            (Name::CriticalGrace, Read::Millis(grace)) => draft.rules.critical_grace = grace,
            (Name::OnFailure, Read::Word(word)) => {
                draft.rules.on_failure =
                    [OnFailure::Abort, OnFailure::SkipDependents, OnFailure::Continue, OnFailure::FallbackStep][word];
                draft.on_failure_at = key;
            }
            (Name::FallbackStep, Read::Raw(raw)) => draft.fallback = Some(raw),
            (Name::Provides, Read::Raws(raws)) => draft.look.provides = self.texts(&raws),
            (Name::Consumes, Read::Raws(raws)) => {
                draft.look.consumes = self.texts(&raws);
                let all = draft.look.consumes.iter().zip(&raws).map(|(text, (_, span))| (self.step, *text, *span));
                self.links.consumes.extend(all);
            }
            (Name::StepLocks, Read::Raws(raws)) => draft.look.locks = self.locks(raws).into(),
            (Name::StepLockWait, Read::Millis(wait)) => draft.look.lock_wait = Some(wait),
            (Name::Artifacts, Read::Raws(raws)) => draft.artifacts = self.texts(&raws),
            (Name::Detach, Read::Bool(detach)) => draft.detach = detach,
            (Name::Tags, Read::Raws(raws)) => draft.look.tags = self.texts(&raws),
            _ => {}
        }
    }

    fn finish_step(&mut self, start: Span, mut draft: Draft<'s>) {
        let place = draft.id.as_ref().map_or(start, |(_, span)| *span);
        let shown = draft.id.as_ref().map_or("a step".to_owned(), |(id, _)| format!("step `{}`", shorten(id)));
        let seen = std::mem::take(&mut draft.seen);
        if draft.id.is_none() && !seen.contains(&Name::Id) {
            self.missing(Level::Step, "a step", &seen, start);
        }
        let id = self.step_id(draft.id.take());
        let action = self.action(&mut draft, place, &shown, &seen);
        match (draft.rules.on_failure == OnFailure::FallbackStep, &draft.fallback) {
            (true, None) if !seen.contains(&Name::FallbackStep) => {
                let message = format!("{shown} has `on_failure: fallback_step` and no `fallback_step`");
                let hint = "add `fallback_step: ID`, or take another `on_failure`";
                self.problem(Problem::error("fallback", draft.on_failure_at, message).hint(hint));
            }
            (false, Some((_, span))) => {
                let message = format!("{shown} has a `fallback_step` that never runs");
                let hint = "add `on_failure: fallback_step`";
                self.problem(Problem::error("fallback", *span, message).hint(hint));
            }
            _ => {}
        }
        if let Some((name, span)) = draft.fallback.take() {
            let name = self.data.strings.add(&name);
            self.links.fallbacks.push(Reference { step: self.step, name, span });
        }
        if draft.look.lock_wait.is_some() && draft.look.locks.is_empty() {
            let message = format!("{shown} has a `lock_wait_timeout_sec` and no `locks`");
            self.problem(Problem::warning("no_effect", place, message));
        }
        draft.look.weight = draft.weight.to_bits();
        let body = Body {
            action,
            cwd: draft.cwd,
            env: draft.env.into_boxed_slice(),
            artifacts: draft.artifacts,
            detach: draft.detach,
        };
        let step = Step {
            id,
            span: place,
            name: draft.name,
            description: draft.description,
            condition: draft.condition,
            body: self.data.bodies.add(body),
            rules: self.data.rules.add(draft.rules),
            look: self.data.looks.add(draft.look),
        };
        self.data.steps.push(step);
    }

    fn step_id(&mut self, id: Option<Raw<'s>>) -> Sym {
        let Some((id, span)) = id else { return self.data.strings.add("") };
        let sym = self.data.strings.add(&id);
        if !is_step_id(&id) {
            let message = format!("`{}` cannot be a step's id", shorten(&id));
            let fixed: String =
                id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(60).collect();
            let fixed = if is_step_id(&fixed) { fixed } else { format!("_{fixed}") };
            let hint = format!("a letter or `_`, then letters, digits, `_` and `-`, such as `{fixed}`");
            self.problem(Problem::error("bad_id", span, message).hint(hint));
        }
        let at = sym.0 as usize;
        if self.data.step_of.len() <= at {
            self.data.step_of.resize(at + 1, NO_STEP);
        }
        match self.data.step_of[at] {
            NO_STEP => self.data.step_of[at] = self.step,
            first => {
                let message = format!("two steps have the id `{}`", shorten(&id));
                let problem = Problem::error("duplicate_id", span, message)
                    .hint("give one of them another id")
                    .also(self.data.steps[first as usize].span, "the first one");
                self.problem(problem);
            }
        }
        sym
    }

    fn action(&mut self, draft: &mut Draft<'s>, place: Span, shown: &str, seen: &[Name]) -> Action {
        let nothing = Action::Process { command: Text::plain(Sym(0)), args: Box::default(), shell: false };
        match (draft.command.take(), draft.uses.take()) {
            (Some((_, span)), Some((_, uses))) => {
                let message = format!("{shown} has both `command` and `uses`");
                let problem = Problem::error("two_actions", span, message).hint("a step does one thing; take one away");
                self.problem(problem.also(uses, "`uses`"));
                nothing
            }
            (None, None) => {
                if !seen.contains(&Name::Command) && !seen.contains(&Name::Uses) {
                    let message = format!("{shown} has neither `command` nor `uses`");
                    let hint = "add `command: PROGRAM` with `args`, or `uses: ACTION` with `with`";
                    self.problem(Problem::error("no_action", place, message).hint(hint));
                }
                nothing
            }
            (Some((command, span)), None) => {
                if draft.with.is_some() {
                    let message = format!("{shown} has `with`, which belongs to `uses`");
                    let hint = "a command's arguments are `args`, its variables `env`";
                    self.problem(Problem::error("no_effect", span, message).hint(hint));
                }
                if command.trim().is_empty() {
                    let message = format!("the `command` of {shown} is empty");
                    self.problem(Problem::error("empty_command", span, message));
                }
                let command = if draft.shell {
                    self.script(&command, span);
                    Text::plain(self.data.strings.add(&command))
                } else {
                    if command.trim().contains(char::is_whitespace) && draft.args.is_empty() && !command.contains("${")
                    {
                        let message = format!("`{}` is taken for the name of one program", shorten(&command));
                        let hint = "put the arguments into `args`, or add `shell: true`";
                        self.problem(Problem::warning("command_with_blanks", span, message).hint(hint));
                    }
                    self.text(&(command, span), true)
                };
                Action::Process { command, args: std::mem::take(&mut draft.args).into(), shell: draft.shell }
            }
            (None, Some((kind, span))) => {
                if seen.contains(&Name::Args) {
                    let message = format!("{shown} has `args`, which belong to `command`");
                    let problem = Problem::error("no_effect", draft.args_at, message);
                    self.problem(problem.hint("an action's input is `with`"));
                }
                if draft.shell {
                    let message = format!("{shown} has `shell`, which belongs to `command`");
                    self.problem(Problem::error("no_effect", draft.shell_at, message));
                }
                let sym = self.data.strings.add(&kind);
                self.uses(&kind, sym, span, draft.with.as_ref());
                let with = draft.with.take().map(|node| {
                    self.data.nodes.push(node);
                    self.data.nodes.len() as u32 - 1
                });
                Action::Uses { kind: sym, with }
            }
        }
    }

    fn uses(&mut self, kind: &str, sym: Sym, span: Span, with: Option<&Node>) {
        if kind == "process" {
            let problem = Problem::error("unknown_action", span, "`uses: process` is written `command`");
            self.problem(problem.hint("write `command: PROGRAM` and `args`"));
            return;
        }
        let Some(schema) = self.catalog.schema(kind) else {
            let kinds = self.catalog.kinds();
            let hint = did_you_mean(kind, kinds.iter().map(String::as_str)).or_else(|| match kinds.len() {
                0 => Some("this version has no actions; use `command`".into()),
                _ => Some(format!("there are: {}", shorten(&kinds.join(", ")))),
            });
            let message = format!("there is no action `{}`", shorten(kind));
            self.problem(Problem::error("unknown_action", span, message).maybe_hint(hint));
            return;
        };
        let schema = Arc::clone(self.data.schemas.entry(sym).or_insert_with(|| Arc::new(schema)));
        crate::schema::check_node(&schema, with, span, &self.data, &mut self.events.problems);
    }

    /// What must not stand in a script that a shell reads.
    fn script(&mut self, script: &str, span: Span) {
        let place = |from: usize, length: usize| inside(self.source, span, script, from..from + length);
        let mut problems = Vec::new();
        if let Some(at) = script.find("${{") {
            let message = "an expression in a shell script would turn a value into code";
            let hint = "put it into `env`, as NAME: ${{ … }}, and write \"$NAME\" in the script";
            problems.push(Problem::error("expression_in_script", place(at, 3), message).hint(hint));
        }
        if let Some(at) = script.find("${secret.") {
            let message = "secrets are not available yet in this version of Baton";
            problems.push(Problem::error("not_available", place(at, 9), message));
        }
        for problem in problems {
            self.problem(problem);
        }
    }

    fn locks(&mut self, raws: Vec<Raw<'s>>) -> Vec<Text> {
        for (name, span) in &raws {
            if name.trim().is_empty() {
                self.problem(Problem::error("bad_name", *span, "a lock needs a name"));
            }
        }
        raws.iter().map(|raw| self.text(raw, false)).collect()
    }

    fn texts(&mut self, raws: &[Raw<'s>]) -> Box<[Text]> {
        raws.iter().map(|raw| self.text(raw, false)).collect()
    }

    fn pairs(&mut self, pairs: Vec<(Raw<'s>, Raw<'s>)>, expressions: bool) -> Vec<(Sym, Text)> {
        let pairs = pairs.into_iter().map(|(name, value)| {
            let value = self.text(&value, expressions);
            (self.data.strings.add(&name.0), value)
        });
        pairs.collect()
    }

    fn environment(&mut self, pairs: Vec<(Raw<'s>, Raw<'s>)>) -> Vec<(Sym, Text)> {
        for ((name, span), _) in &pairs {
            if name.is_empty() || name.contains(['=', '\0']) {
                let message = format!("`{}` cannot be the name of an environment variable", shorten(name));
                self.problem(Problem::error("bad_name", *span, message));
            }
        }
        self.pairs(pairs, true)
    }

    /// A text of the plan, taken apart where it holds `${`.
    fn text(&mut self, (text, span): &Raw<'s>, expressions: bool) -> Text {
        if text.contains('\0') {
            self.problem(Problem::error("bad_text", *span, "a text cannot hold the character U+0000"));
        }
        let sym = self.data.strings.add(text);
        if !template::is_template(text) {
            return Text::plain(sym);
        }
        let number = match self.template_of.get(&sym) {
            Some(number) => *number,
            None => {
                let template = self.template(text, *span);
                let number = self.data.templates.len() as u32;
                self.data.templates.push(template);
                self.template_of.insert(sym, number);
                number
            }
        };
        if self.data.templates[number as usize].dynamic && !expressions {
            let message = "an expression cannot stand here: this text is settled before the run starts";
            let hint = "expressions stand in `command`, `args`, `cwd`, `env` and `with`";
            self.problem(Problem::error("expression_not_here", *span, message).hint(hint));
        }
        self.data.occurrences.push(Occurrence { what: What::Template(number), step: self.step, span: *span });
        Text::template(number)
    }

    fn template(&mut self, text: &str, span: Span) -> Template {
        let (pieces, faults) = template::split(text);
        for fault in faults {
            let place = inside(self.source, span, text, fault.range);
            self.problem(Problem::error(fault.code, place, fault.message).hint(fault.hint));
        }
        let mut parts = Vec::with_capacity(pieces.len());
        let mut dynamic = false;
        for piece in pieces {
            parts.push(match piece {
                Piece::Text(text) => Part::Text(self.data.strings.add(text)),
                Piece::Variable { name, default } => Part::Variable {
                    name: self.data.strings.add(name),
                    default: default.map(|default| self.data.strings.add(default)),
                },
                Piece::Expression { text: inner, at } => {
                    dynamic = true;
                    let place = inside(self.source, span, text, at);
                    match self.expression(inner, place, span) {
                        Some(number) => Part::Expression(number),
                        None => continue,
                    }
                }
            });
        }
        Template { parts: parts.into(), dynamic }
    }

    /// An expression by its number; `None`: something is wrong with it, and that was reported.
    fn expression(&mut self, text: &str, span: Span, scalar: Span) -> Option<u32> {
        let sym = self.data.strings.add(text);
        if let Some(known) = self.expression_of.get(&sym) {
            return *known;
        }
        let number = match expr::parse(text) {
            Ok(parsed) => {
                let keep = self.data.expressions.len() < KEPT_EXPRESSIONS;
                let parsed = if keep { parsed } else { parsed.without_tree() };
                self.data.expressions.push(ExpressionEntry { text: sym, parsed });
                Some(self.data.expressions.len() as u32 - 1)
            }
            Err(faults) => {
                for fault in faults {
                    let place = if span == scalar || self.source.slice(span) == text {
                        inside(self.source, span, text, fault.range)
                    } else {
                        scalar
                    };
                    self.problem(Problem::error(fault.code, place, fault.message).maybe_hint(fault.hint));
                }
                None
            }
        };
        self.expression_of.insert(sym, number);
        number
    }

    /// Any value, with its texts taken apart. Its depth is bounded by the reader of the events.
    fn node(&mut self, expressions: bool) -> Option<Node> {
        let (event, span) = self.events.next();
        let kind = match event {
            Event::Scalar(scalar) => match scalar.kind {
                ScalarKind::Null | ScalarKind::Broken => NodeKind::Null,
                ScalarKind::Bool => NodeKind::Bool(scalar.text.starts_with(['t', 'T'])),
                ScalarKind::Number => match yaml::json_number(&scalar.text) {
                    Some(number) => NodeKind::Number(number),
                    None => {
                        let message = format!("`{}` is no number that JSON can hold", shorten(&scalar.text));
                        self.problem(Problem::error("wrong_type", span, message));
                        NodeKind::Null
                    }
                },
                ScalarKind::Text => NodeKind::Text(self.text(&(scalar.text, span), expressions)),
            },
            Event::ListStart => {
                let mut items = Vec::new();
                while !matches!(self.events.peek().0, Event::ListEnd | Event::End) {
                    items.extend(self.node(expressions));
                }
                self.events.next();
                NodeKind::List(items)
            }
            Event::MapStart => {
                let mut entries = Vec::new();
                loop {
                    let (event, key_span) = self.events.next();
                    match event {
                        Event::Key(key) => {
                            let key = self.data.strings.add(&key);
                            if let Some(node) = self.node(expressions) {
                                entries.push((key, key_span, node));
                            }
                        }
                        Event::MapEnd | Event::End => break,
                        _ => {}
                    }
                }
                NodeKind::Map(entries)
            }
            Event::MapEnd | Event::ListEnd | Event::Key(_) | Event::End => return None,
        };
        Some(Node { span, kind })
    }

    /// The value of a field that is no map of fields.
    fn value(&mut self, field: &'static Field) -> Read<'s> {
        match field.kind {
            Kind::Texts | Kind::Words | Kind::StepRefs | Kind::Codes => self.list(field),
            Kind::Environment | Kind::Variables | Kind::Labels => self.map(field),
            _ => self.scalar(field),
        }
    }

    fn scalar(&mut self, field: &'static Field) -> Read<'s> {
        let (event, span) = self.events.next();
        let wanted = || fields::wanted(field.kind);
        let Event::Scalar(scalar) = event else {
            self.wrong_type(field.key, &wanted(), &event, span);
            self.events.skip_rest(&event);
            return Read::Bad;
        };
        let kind = scalar.kind;
        if kind == ScalarKind::Null {
            if field.required {
                self.wrong_type(field.key, &wanted(), &Event::Scalar(scalar), span);
            }
            return Read::Nothing;
        }
        let range = |this: &mut Self, text: &str| {
            let message = format!("`{}` takes {}, and this is {}", field.key, wanted(), shorten(text));
            this.problem(Problem::error("out_of_range", span, message));
            Read::Bad
        };
        let number = || yaml::number(&scalar.text);
        match (field.kind, kind) {
            (Kind::PlanId | Kind::StepId | Kind::StepRef | Kind::Text, ScalarKind::Text)
            | (Kind::Word, ScalarKind::Text | ScalarKind::Number | ScalarKind::Bool)
            | (Kind::Expression, ScalarKind::Text | ScalarKind::Bool) => {
                if field.kind == Kind::Expression && scalar.text.trim_start().starts_with("${{") {
                    let message = format!("`{}` is an expression already", field.key);
                    let problem = Problem::error("bad_expression", span, message);
                    self.problem(problem.hint("take `${{` and `}}` away"));
                    return Read::Bad;
                }
                Read::Raw((scalar.text, span))
            }
            (Kind::Bool, ScalarKind::Bool) => Read::Bool(scalar.text.starts_with(['t', 'T'])),
            (Kind::Seconds | Kind::Timeout, ScalarKind::Number) => {
                let seconds = number();
                let least_met = if field.kind == Kind::Timeout { seconds > 0.0 } else { seconds >= 0.0 };
                if !least_met || seconds > MAX_SECONDS {
                    return range(self, &scalar.text);
                }
                Read::Millis(Millis(((seconds * 1000.0).round() as u64).max(u64::from(field.kind == Kind::Timeout))))
            }
            (Kind::Count(from, to), ScalarKind::Number) => {
                let count = number();
                if count.fract() != 0.0 || count < f64::from(from) || count > f64::from(to) || count.is_nan() {
                    return range(self, &scalar.text);
                }
                Read::Count(count as u32)
            }
            (Kind::Fraction, ScalarKind::Number) => {
                let part = number();
                if (0.0..=1.0).contains(&part) {
                    Read::Permille((part * 1000.0).round() as u16)
                } else {
                    range(self, &scalar.text)
                }
            }
            (Kind::Weight, ScalarKind::Number) => {
                let weight = number();
                if weight.is_finite() && weight >= 0.0 { Read::Number(weight) } else { range(self, &scalar.text) }
            }
            (Kind::Choice(words), ScalarKind::Text) => match words.iter().position(|word| *word == scalar.text) {
                Some(at) => Read::Word(at),
                None => {
                    let hint = did_you_mean(&scalar.text, words.iter().copied())
                        .unwrap_or_else(|| format!("it is one of {}", words.join(", ")));
                    let message = format!("`{}` cannot be `{}`", field.key, shorten(&scalar.text));
                    self.problem(Problem::error("bad_choice", span, message).hint(hint));
                    Read::Bad
                }
            },
            _ => {
                self.wrong_type(field.key, &wanted(), &Event::Scalar(scalar), span);
                Read::Bad
            }
        }
    }

    fn list(&mut self, field: &'static Field) -> Read<'s> {
        let (event, span) = self.events.next();
        match event {
            Event::ListStart => {}
            Event::Scalar(ref scalar) if scalar.kind == ScalarKind::Null => return Read::Nothing,
            other => {
                self.wrong_type(field.key, &fields::wanted(field.kind), &other, span);
                self.events.skip_rest(&other);
                return Read::Bad;
            }
        }
        let mut raws = Vec::new();
        let mut codes = Vec::new();
        let mut fine = true;
        loop {
            let (event, span) = self.events.next();
            match event {
                Event::ListEnd | Event::End => break,
                Event::Scalar(scalar)
                    if scalar.kind == ScalarKind::Text && field.kind != Kind::Codes
                        || field.kind == Kind::Words
                            && matches!(scalar.kind, ScalarKind::Number | ScalarKind::Bool) =>
                {
                    raws.push((scalar.text, span));
                }
                Event::Scalar(scalar) if field.kind == Kind::Codes && scalar.kind == ScalarKind::Number => {
                    let code = yaml::number(&scalar.text);
                    if code.fract() == 0.0 && (0.0..=255.0).contains(&code) {
                        codes.push(code as u8);
                    } else {
                        fine = false;
                        let message = format!("`{}` is no exit code", shorten(&scalar.text));
                        let problem = Problem::error("out_of_range", span, message);
                        self.problem(problem.hint("exit codes go from 0 to 255"));
                    }
                }
                other => {
                    fine = false;
                    let wanted = match field.kind {
                        Kind::Codes => "numbers from 0 to 255",
                        Kind::StepRefs => "step ids",
                        _ => "texts",
                    };
                    self.wrong_type(field.key, wanted, &other, span);
                    self.events.skip_rest(&other);
                }
            }
        }
        if field.kind != Kind::Codes {
            return Read::Raws(raws);
        }
        if codes.is_empty() {
            if fine {
                let message = format!("`{}` is empty, so the step could never succeed", field.key);
                self.problem(Problem::error("out_of_range", span, message).hint("it is [0] when it is left out"));
            }
            return Read::Bad;
        }
        Read::Codes(codes.into_iter().collect())
    }

    fn map(&mut self, field: &'static Field) -> Read<'s> {
        if !self.map_start(field) {
            return Read::Nothing;
        }
        let mut pairs = Vec::new();
        loop {
            let (event, span) = self.events.next();
            let key = match event {
                Event::Key(key) => (key, span),
                Event::MapEnd | Event::End => return Read::Pairs(pairs),
                _ => continue,
            };
            let (event, span) = self.events.next();
            match event {
                Event::Scalar(scalar)
                    if matches!(scalar.kind, ScalarKind::Text | ScalarKind::Number | ScalarKind::Bool) =>
                {
                    pairs.push((key, (scalar.text, span)));
                }
                other => {
                    let name = format!("{}.{}", field.key, shorten(&key.0));
                    self.wrong_type(&name, "text", &other, span);
                    self.events.skip_rest(&other);
                }
            }
        }
    }
}

/// A step while it is read.
struct Draft<'s> {
    seen: Vec<Name>,
    id: Option<Raw<'s>>,
    name: Option<Text>,
    description: Option<Text>,
    command: Option<Raw<'s>>,
    args: Vec<Text>,
    args_at: Span,
    shell: bool,
    shell_at: Span,
    uses: Option<Raw<'s>>,
    with: Option<Node>,
    cwd: Option<Text>,
    env: Vec<(Sym, Text)>,
    artifacts: Box<[Text]>,
    detach: bool,
    condition: Option<u32>,
    rules: Rules,
    on_failure_at: Span,
    fallback: Option<Raw<'s>>,
    look: Look,
    weight: f64,
}

impl Default for Draft<'_> {
    fn default() -> Self {
        let policy = baton_core::Policy::default();
        Self {
            seen: Vec::new(),
            id: None,
            name: None,
            description: None,
            command: None,
            args: Vec::new(),
            args_at: Span::default(),
            shell: false,
            shell_at: Span::default(),
            uses: None,
            with: None,
            cwd: None,
            env: Vec::new(),
            artifacts: Box::default(),
            detach: false,
            condition: None,
            rules: Rules {
                retries: None,
                retry_delay: policy.retry_delay,
                backoff: policy.backoff,
                retry_max_delay: policy.retry_max_delay,
                jitter_permille: policy.jitter_permille,
                timeout: None,
                stop_grace: None,
                critical: policy.critical,
                critical_grace: policy.critical_grace,
                on_failure: policy.on_failure,
                accept: policy.accept,
            },
            on_failure_at: Span::default(),
            fallback: None,
            look: Look::default(),
            weight: 1.0,
        }
    }
}

/// Whether a text can be a step's id.
pub(crate) fn is_step_id(id: &str) -> bool {
    let mut bytes = id.bytes();
    id.len() <= MAX_ID_BYTES
        && bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// What an event is, for people.
fn describe(event: &Event<'_>) -> String {
    match event {
        Event::MapStart | Event::MapEnd => "a map".into(),
        Event::ListStart | Event::ListEnd => "a list".into(),
        Event::Key(_) => "a key".into(),
        Event::End => "the end".into(),
        Event::Scalar(scalar) => match scalar.kind {
            ScalarKind::Null => "null".into(),
            ScalarKind::Bool => format!("the boolean {}", scalar.text),
            ScalarKind::Number => format!("the number {}", shorten(&scalar.text)),
            ScalarKind::Text => format!("the text \"{}\"", shorten(&scalar.text)),
            ScalarKind::Broken => "something that is not taken".into(),
        },
    }
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
    let text = format!("{first}{}", characters.as_str());
    text.trim_end_matches('.').to_owned()
}
