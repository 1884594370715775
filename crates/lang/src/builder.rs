//! From events to a plan: every field read by what the table says of it, every problem noted, nothing kept twice.

mod declarations;
mod steps;
mod texts;
mod values;

use std::borrow::Cow;
use std::collections::HashMap;

use crate::events::{Event, Events, ScalarKind};
use crate::fields::{self, Field, Kind, Level, Name, Unknown};
use crate::plan::{Data, Globals, NO_STEP, NodeKind, Text, Variable};
use crate::problem::{Problem, shorten};
use crate::schema::ActionCatalog;
use crate::schema::read::SchemaReader;
use crate::source::{Source, Span};
use crate::strings::Sym;
use crate::template;
use crate::yaml;
use values::Read;

/// The longest id of a step or a plan.
pub const MAX_ID_BYTES: usize = 100;

/// A text as it stands in the source.
type Raw<'s> = (Cow<'s, str>, Span);

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
    schemas: SchemaReader,
    /// The step that is being read, [`NO_STEP`], or [`crate::plan::IN_OUTPUTS`].
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
            schemas: SchemaReader::default(),
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
        // On the line on which the text breaks off, what was read last may be no more than the beginning of a text that
        // wants quotes.
        if let Some(stretch) = self.events.doubtful
            && !self.source.slice(stretch).contains('\n')
        {
            self.events.problems.forget(stretch);
        }
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
        if *found == Event::MapStart
            && let Event::Key(key) = &self.events.peek().0
            && key.contains("${{")
        {
            problem = problem.hint("text that holds `: ` stands in quotes");
        }
        if let Event::Scalar(scalar) = found {
            if scalar.kind == ScalarKind::Broken {
                return;
            }
            let text = shorten(&scalar.text);
            // Whether it would be taken if it stood in quotes.
            let goes_quoted = match wanted {
                "text" | "texts" => true,
                "a name" => field == "plan_id" || scalar.kind == ScalarKind::Bool,
                _ => false,
            };
            if wanted.contains("list") && wanted != "a list of steps" && scalar.kind != ScalarKind::Null {
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
            } else if goes_quoted && matches!(scalar.kind, ScalarKind::Number | ScalarKind::Bool) {
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
                Kind::Steps(_) => this.steps(field),
                Kind::Schemas => this.data.inputs = this.declared(field),
                Kind::Values => this.data.outputs = this.plan_outputs(field),
                Kind::Anything => {
                    let node = this.node(false);
                    match node {
                        Some(node) if matches!(node.kind, NodeKind::Map(_) | NodeKind::Null | NodeKind::Broken) => {
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
            (Name::Sla, Read::Millis(sla)) => self.data.sla = Some(sla),
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
