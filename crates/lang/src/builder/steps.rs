//! The steps of a plan: their fields, what each does, and whether these go together.

use std::sync::Arc;

use baton_core::OnFailure;
use baton_core::graph::Backoff;

use super::{Builder, MAX_ID_BYTES, Raw, Read, Reference, describe};
use crate::check::leads_out;
use crate::events::{Event, ScalarKind};
use crate::fields::{self, Field, Kind, Level, Name};
use crate::plan::{Action, Body, Look, NO_STEP, Node, NodeKind, Occurrence, Rules, Step, Text, What};
use crate::problem::{Problem, did_you_mean, shorten};
use crate::schema::Schema;
use crate::source::{Span, inside};
use crate::strings::Sym;
use crate::template;

impl<'s> Builder<'s, '_> {
    pub(super) fn steps(&mut self, field: &'static Field) {
        let (event, span) = self.events.next();
        let first = self.data.steps.len() as u32;
        match event {
            Event::ListStart => {}
            Event::End => return,
            Event::Scalar(scalar) if scalar.kind == ScalarKind::Null && !field.required => return,
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
                Event::Scalar(scalar) if scalar.kind == ScalarKind::Broken => {}
                other => {
                    let message = format!("a step is a map of fields, and this is {}", describe(&other));
                    self.problem(Problem::error("wrong_type", span, message));
                    self.events.skip_rest(&other);
                }
            }
        }
        let end = self.data.steps.len() as u32;
        if field.name == Name::Finally {
            self.data.finally = first..end;
        } else if first == end {
            self.problem(Problem::error("no_steps", span, "the plan has no steps").hint("add at least one"));
        }
    }

    fn one_step(&mut self, start: Span) {
        self.step = self.data.steps.len() as u32;
        let mut draft = Draft::default();
        self.fields(Level::Step, |this, field, key| match field.kind {
            Kind::Object(level) => this.hints(field, level, &mut draft),
            Kind::Schemas => {
                let declared = this.declared(field);
                if !declared.is_empty() {
                    this.data.step_outputs.insert(this.step, declared);
                }
            }
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
            (Name::Artifacts, Read::Raws(raws)) => {
                // What has variables in it is told when these are known.
                let settled = raws.iter().filter(|(text, _)| !template::is_template(text));
                let wrong: Vec<Problem> = settled.filter_map(|(text, span)| leads_out(text, *span)).collect();
                wrong.into_iter().for_each(|problem| self.problem(problem));
                draft.artifacts = self.texts(&raws);
            }
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
        let schema = self.data.schemas.entry(sym).or_insert_with(|| Arc::new(Schema::of_action(&schema)));
        let schema = Arc::clone(schema);
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
fn is_step_id(id: &str) -> bool {
    let mut bytes = id.bytes();
    id.len() <= MAX_ID_BYTES
        && bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}
