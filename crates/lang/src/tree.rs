//! Values of any shape with the places of their parts, as schemas are read from them and checked against them.

use std::borrow::Cow;
use std::fmt::{self, Write};

use serde_json::{Map, Number, Value};

use crate::events::{Event, Events, ScalarKind};
use crate::plan::{Data, Form, Node, NodeKind, Part};
use crate::problem::{Problem, shorten};
use crate::source::Span;
use crate::yaml;

/// Whole numbers beyond this are compared as they are written with an exponent: nothing is exact there any more.
const LARGEST_WHOLE: f64 = 1e30;

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Tree<'a> {
    pub(crate) span: Span,
    pub(crate) shape: Shape<'a>,
}

#[derive(Clone, Debug)]
pub(crate) enum Shape<'a> {
    /// An expression will tell; or what stands there cannot be taken, and that was told.
    Unknown,
    Null,
    Bool(bool),
    Number(Number),
    /// `None`: text with variables in it.
    Text(Option<Cow<'a, str>>),
    List(Vec<Tree<'a>>),
    /// In the order of the text.
    Map(Vec<Entry<'a>>),
}

/// One entry of a map: its key, the key's place, its value.
pub(crate) type Entry<'a> = (Cow<'a, str>, Span, Tree<'a>);

impl<'a> Tree<'a> {
    /// The next value of a text as it is written, nothing put in. Its depth is bounded by the reader of the events.
    pub(crate) fn literal(events: &mut Events<'a>) -> Option<Self> {
        let (event, span) = events.next();
        let shape = match event {
            Event::Scalar(scalar) => match scalar.kind {
                ScalarKind::Null => Shape::Null,
                ScalarKind::Broken => Shape::Unknown,
                ScalarKind::Bool => Shape::Bool(scalar.text.starts_with(['t', 'T'])),
                ScalarKind::Number => match yaml::json_number(&scalar.text) {
                    Some(number) => Shape::Number(number),
                    None => {
                        events.problems.push(no_json_number(&scalar.text, span));
                        Shape::Unknown
                    }
                },
                ScalarKind::Text => {
                    if scalar.text.contains('\0') {
                        events.problems.push(no_null_character(span));
                    }
                    Shape::Text(Some(scalar.text))
                }
            },
            Event::ListStart => {
                let mut items = Vec::new();
                while !matches!(events.peek().0, Event::ListEnd | Event::End) {
                    items.extend(Self::literal(events));
                }
                events.next();
                Shape::List(items)
            }
            Event::MapStart => {
                let mut entries = Vec::new();
                loop {
                    let (event, key_span) = events.next();
                    match event {
                        Event::Key(key) => entries.extend(Self::literal(events).map(|value| (key, key_span, value))),
                        Event::MapEnd | Event::End => break,
                        _ => {}
                    }
                }
                Shape::Map(entries)
            }
            Event::MapEnd | Event::ListEnd | Event::Key(_) | Event::End => return None,
        };
        Some(Self { span, shape })
    }

    /// A value of the plan, as far as it is known before the plan runs.
    pub(crate) fn from_node(node: &'a Node, data: &'a Data) -> Self {
        let shape = match &node.kind {
            NodeKind::Broken => Shape::Unknown,
            NodeKind::Null => Shape::Null,
            NodeKind::Bool(value) => Shape::Bool(*value),
            NodeKind::Number(number) => Shape::Number(number.clone()),
            NodeKind::Text(text) => match text.form() {
                Form::Plain(sym) => Shape::Text(Some(Cow::Borrowed(data.str(sym)))),
                Form::Template(number) => match &data.templates[number as usize].parts[..] {
                    [Part::Expression(_)] => Shape::Unknown,
                    _ => Shape::Text(None),
                },
            },
            NodeKind::List(items) => Shape::List(items.iter().map(|item| Self::from_node(item, data)).collect()),
            NodeKind::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, span, node)| (Cow::Borrowed(data.str(*key)), *span, Self::from_node(node, data)));
                Shape::Map(entries.collect())
            }
        };
        Self { span: node.span, shape }
    }

    /// A value without places.
    pub(crate) fn from_value(value: &'a Value) -> Self {
        let shape = match value {
            Value::Null => Shape::Null,
            Value::Bool(value) => Shape::Bool(*value),
            Value::Number(number) => Shape::Number(number.clone()),
            Value::String(text) => Shape::Text(Some(Cow::Borrowed(text))),
            Value::Array(items) => Shape::List(items.iter().map(Self::from_value).collect()),
            Value::Object(map) => {
                let entries = map
                    .iter()
                    .map(|(key, value)| (Cow::Borrowed(key.as_str()), Span::default(), Self::from_value(value)));
                Shape::Map(entries.collect())
            }
        };
        Self { span: Span::default(), shape }
    }

    /// The value without places; what is not known is null.
    pub(crate) fn to_value(&self) -> Value {
        match &self.shape {
            Shape::Unknown | Shape::Null | Shape::Text(None) => Value::Null,
            Shape::Bool(value) => Value::Bool(*value),
            Shape::Number(number) => Value::Number(number.clone()),
            Shape::Text(Some(text)) => Value::String(text.to_string()),
            Shape::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Shape::Map(entries) => {
                Value::Object(entries.iter().map(|(key, _, value)| (key.to_string(), value.to_value())).collect())
            }
        }
    }

    /// A text that is the same for equal values and for no others; `None`: a part is not known.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        let mut out = String::new();
        self.write_fingerprint(&mut out).then_some(out)
    }

    fn write_fingerprint(&self, out: &mut String) -> bool {
        match &self.shape {
            Shape::Unknown | Shape::Text(None) => return false,
            Shape::Null => out.push_str("null"),
            Shape::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Shape::Number(number) => match whole(number) {
                Some(whole) => _ = write!(out, "{whole}"),
                None => _ = write!(out, "{number}"),
            },
            Shape::Text(Some(text)) => _ = write!(out, "{text:?}"),
            Shape::List(items) => {
                out.push('[');
                for item in items {
                    if !item.write_fingerprint(out) {
                        return false;
                    }
                    out.push(',');
                }
                out.push(']');
            }
            Shape::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by(|(a, _, _), (b, _, _)| a.cmp(b));
                out.push('{');
                for (key, _, value) in entries {
                    _ = write!(out, "{key:?}:");
                    if !value.write_fingerprint(out) {
                        return false;
                    }
                    out.push(',');
                }
                out.push('}');
            }
        }
        true
    }

    /// What the value is, for people.
    pub(crate) fn called(&self) -> String {
        match &self.shape {
            Shape::Unknown => "an expression".into(),
            Shape::Null => "null".into(),
            Shape::Bool(value) => format!("the boolean {value}"),
            Shape::Number(number) => format!("the number {number}"),
            Shape::Text(Some(text)) => format!("the text \"{}\"", shorten(text)),
            Shape::Text(None) => "text".into(),
            Shape::List(_) => "a list".into(),
            Shape::Map(_) => "a map".into(),
        }
    }
}

/// A number that is whole, however it is written.
pub(crate) fn whole(number: &Number) -> Option<i128> {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(whole), _, _) => Some(whole.into()),
        (None, Some(whole), _) => Some(whole.into()),
        (None, None, Some(real)) if real.fract() == 0.0 && real.abs() <= LARGEST_WHOLE => Some(real as i128),
        _ => None,
    }
}

/// What is said of a number that [`yaml::json_number`] does not take, such as `.inf`.
pub(crate) fn no_json_number(text: &str, span: Span) -> Problem {
    let shown = shorten(text);
    if !yaml::is_written_whole(text) {
        return Problem::error("wrong_type", span, format!("`{shown}` is no number that JSON can hold"));
    }
    let hint = format!("whole numbers go from {} to {}", i64::MIN, i64::MAX);
    Problem::error("out_of_range", span, format!("`{shown}` is too large to be held exactly")).hint(hint)
}

/// What is said of a text that no program can be given.
pub(crate) fn no_null_character(span: Span) -> Problem {
    Problem::error("bad_text", span, "a text cannot hold the character U+0000")
}

/// How large a value is as JSON, about: bytes, counted without writing it.
pub(crate) fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| weight(item) + 1).sum::<usize>(),
        Value::Object(map) => weight_of_map(map),
    }
}

/// The same of a map.
pub(crate) fn weight_of_map(map: &Map<String, Value>) -> usize {
    2 + map.iter().map(|(key, value)| key.len() + 4 + weight(value)).sum::<usize>()
}

/// Where a part of a value is: names and places, the outermost first.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    before: Option<&'a Path<'a>>,
    part: PathPart<'a>,
}

#[derive(Clone, Copy)]
enum PathPart<'a> {
    Name(&'a str),
    Place(usize),
}

impl<'a> Path<'a> {
    pub(crate) fn new(name: &'a str) -> Self {
        Self { before: None, part: PathPart::Name(name) }
    }

    pub(crate) fn name<'b>(&'b self, name: &'b str) -> Path<'b> {
        Path { before: Some(self), part: PathPart::Name(name) }
    }

    pub(crate) fn place(&self, at: usize) -> Path<'_> {
        Path { before: Some(self), part: PathPart::Place(at) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(before) = self.before {
            before.fmt(out)?;
        }
        match self.part {
            PathPart::Place(at) => write!(out, "[{at}]"),
            PathPart::Name(name) if self.before.is_none() => out.write_str(name),
            PathPart::Name(name) => write!(out, ".{}", shorten(name)),
        }
    }
}
