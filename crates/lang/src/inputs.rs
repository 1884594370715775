//! The values that a run is given for the plan's inputs.

use serde_json::{Map, Value};

use crate::compile::{MAX_TEXT_BYTES, Options};
use crate::events::{Event, Events};
use crate::plan::Data;
use crate::problem::{Origin, Problem, Problems, shorten};
use crate::schema::read::Declared;
use crate::schema::{Findings, Schema, check_value};
use crate::source::{Format, Source, Span};
use crate::tree::{Path, Tree, weight_of_map};
use crate::yaml;

/// A value from outside: from the command line, from a file.
#[derive(Clone, PartialEq, Debug)]
pub enum Given {
    /// As it was written. An input that takes no text reads it as JSON.
    Text(String),
    /// A value with its type.
    Value(Value),
    /// A text from a file.
    TextAt(String, Origin),
    /// A value with its type, from a file.
    ValueAt(Value, Origin),
}

/// What a value from outside is, wherever it comes from.
pub(crate) enum Form<'a> {
    Text(&'a str),
    Value(&'a Value),
}

impl Given {
    pub(crate) fn form(&self) -> Form<'_> {
        match self {
            Given::Text(text) | Given::TextAt(text, _) => Form::Text(text),
            Given::Value(value) | Given::ValueAt(value, _) => Form::Value(value),
        }
    }

    /// Where it comes from, if that is known.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        match self {
            Given::Text(_) | Given::Value(_) => None,
            Given::TextAt(_, origin) | Given::ValueAt(_, origin) => Some(origin),
        }
    }
}

impl From<String> for Given {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Given {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Every input's value.
pub(crate) fn inputs(data: &Data, options: &Options, problems: &mut Problems) -> Map<String, Value> {
    let mut out = Map::new();
    let mut findings = Findings::default();
    for (name, declared) in data.inputs.iter().filter(|(_, declared)| declared.is_sound) {
        let name = data.str(*name);
        let value = match (options.vars.get(name), &declared.default) {
            (None, Some(default)) => declared.schema.with_typed_numbers(default.clone()),
            (None, None) if options.only_looking => continue,
            (None, None) => {
                problems.push(missing(name, declared));
                continue;
            }
            (Some(given), _) => match take(name, &declared.schema, given, &mut findings) {
                Some(value) => value,
                None => continue,
            },
        };
        out.insert(name.to_owned(), value);
    }
    findings.problems.into_iter().for_each(|problem| problems.push(problem));
    if weight_of_map(&out) > MAX_TEXT_BYTES {
        let message = format!("the inputs have more than {MAX_TEXT_BYTES} bytes together");
        let problem = Problem::error("too_long", Span::default(), message).nowhere();
        problems.push(problem.hint("put the data into a file and give its path"));
    }
    out
}

fn missing(name: &str, declared: &Declared) -> Problem {
    let about = declared.description.as_deref().map(|text| format!(": {}", shorten(text.trim()))).unwrap_or_default();
    let name = shorten(name);
    let message = format!("the input `{name}` ({}) has no value{about}", declared.schema.wanted());
    let hint = match declared.schema.takes_only_structure() {
        true => format!("give it as JSON with --var {name}=…, or in a file with --var-file"),
        false => format!("give it with --var {name}=…"),
    };
    Problem::error("missing_input", declared.span, message).hint(hint)
}

/// The value of an input; `None`: it does not fit, and that was told.
fn take(name: &str, schema: &Schema, given: &Given, findings: &mut Findings) -> Option<Value> {
    let before = findings.problems.len();
    let section = Path::new("inputs");
    let path = section.name(name);
    let value = match given.form() {
        Form::Value(value) => Some(value.clone()),
        Form::Text(text) => read_text(schema, text, &path, findings),
    };
    if let Some(value) = &value {
        check_value(schema, value, &path, findings);
    }
    let told = findings.problems.get_mut(before..).unwrap_or_default();
    let fits = told.is_empty();
    for problem in told {
        problem.span = None;
        problem.origin = given.origin().cloned().map(Box::new);
        if let (None, Form::Text(text)) = (&problem.hint, given.form()) {
            problem.hint = hint_for_text(schema, text);
        }
    }
    value.filter(|_| fits).map(|value| schema.with_typed_numbers(value))
}

/// The value that a text stands for: what it is as JSON, or itself where the schema takes text or it is no JSON.
/// `None`: something in it cannot be taken, and that was told.
pub(crate) fn read_text(schema: &Schema, text: &str, path: &Path<'_>, findings: &mut Findings) -> Option<Value> {
    let itself = || Some(Value::String(text.to_owned()));
    if schema.takes_text() {
        return itself();
    }
    let source = Source { name: String::new(), text: text.to_owned(), format: Format::Json };
    let mut events = Events::new(&source);
    let tree = Tree::literal(&mut events);
    while events.next().0 != Event::End {}
    if events.broken {
        return itself();
    }
    let problems = std::mem::take(&mut events.problems).finish();
    if problems.is_empty() {
        return tree.map(|tree| tree.to_value());
    }
    for problem in problems {
        let message = format!("`{path}`: {}", problem.message);
        findings.push(Problem::error(problem.code, Span::default(), message).maybe_hint(problem.hint));
    }
    None
}

fn hint_for_text(schema: &Schema, text: &str) -> Option<String> {
    if schema.takes_text() {
        return None;
    }
    if schema.takes_only_structure() {
        return Some("lists and maps are written as JSON, such as '[\"a\", \"b\"]' or '{\"a\": 1}'".into());
    }
    yaml::old_boolean(text).map(|value| format!("write {value}"))
}
