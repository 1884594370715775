//! Checks the input of an action against the part of JSON Schema that our actions use.
//!
//! That part is: `type`, `required`, `properties`, `additionalProperties`, `enum`, `items`, `minimum`. Anything else
//! in a schema is for editors.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::plan::{Data, Form, Node, NodeKind, Part};
use crate::problem::{Problem, Problems, did_you_mean, shorten};
use crate::source::Span;

/// The kinds of actions there are besides programs.
pub trait ActionCatalog {
    /// The JSON Schema of the input of this kind of action; `None`: there is no such kind.
    fn schema(&self, kind: &str) -> Option<Value>;
    /// All kinds, sorted.
    fn kinds(&self) -> Vec<String>;
}

impl ActionCatalog for BTreeMap<String, Value> {
    fn schema(&self, kind: &str) -> Option<Value> {
        self.get(kind).cloned()
    }

    fn kinds(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// A value to be checked, with the places of its parts.
struct Tree<'a> {
    span: Span,
    shape: Shape<'a>,
}

enum Shape<'a> {
    /// An expression will tell.
    Unknown,
    Null,
    Bool(bool),
    Number(&'a serde_json::Number),
    /// `None`: text with variables in it.
    Text(Option<&'a str>),
    List(Vec<Tree<'a>>),
    Map(Vec<(&'a str, Span, Tree<'a>)>),
}

/// One thing wrong with a value.
struct Misfit {
    span: Span,
    message: String,
    hint: Option<String>,
}

/// Checks `with` as it stands in the plan; `uses` is where the action is named.
pub(crate) fn check_node(schema: &Value, with: Option<&Node>, uses: Span, data: &Data, problems: &mut Problems) {
    let tree = match with {
        Some(node) => from_node(node, data),
        None => Tree { span: uses, shape: Shape::Map(Vec::new()) },
    };
    let mut misfits = Vec::new();
    check(schema, &tree, "with", &mut misfits);
    for misfit in misfits {
        problems.push(Problem::error("bad_input", misfit.span, misfit.message).maybe_hint(misfit.hint));
    }
}

/// Checks the input of an action once all its values are there.
pub(crate) fn check_value(schema: &Value, value: &Value) -> Result<(), String> {
    let mut misfits = Vec::new();
    check(schema, &from_value(value), "with", &mut misfits);
    match misfits.is_empty() {
        true => Ok(()),
        false => Err(misfits.into_iter().map(|misfit| misfit.message).collect::<Vec<_>>().join("; ")),
    }
}

fn from_node<'a>(node: &'a Node, data: &'a Data) -> Tree<'a> {
    let shape = match &node.kind {
        NodeKind::Null => Shape::Null,
        NodeKind::Bool(value) => Shape::Bool(*value),
        NodeKind::Number(number) => Shape::Number(number),
        NodeKind::Text(text) => match text.form() {
            Form::Plain(sym) => Shape::Text(Some(data.str(sym))),
            Form::Template(number) => match &data.templates[number as usize].parts[..] {
                [Part::Expression(_)] => Shape::Unknown,
                _ => Shape::Text(None),
            },
        },
        NodeKind::List(items) => Shape::List(items.iter().map(|item| from_node(item, data)).collect()),
        NodeKind::Map(entries) => {
            Shape::Map(entries.iter().map(|(key, span, node)| (data.str(*key), *span, from_node(node, data))).collect())
        }
    };
    Tree { span: node.span, shape }
}

fn from_value(value: &Value) -> Tree<'_> {
    let shape = match value {
        Value::Null => Shape::Null,
        Value::Bool(value) => Shape::Bool(*value),
        Value::Number(number) => Shape::Number(number),
        Value::String(text) => Shape::Text(Some(text)),
        Value::Array(items) => Shape::List(items.iter().map(from_value).collect()),
        Value::Object(map) => {
            Shape::Map(map.iter().map(|(key, value)| (key.as_str(), Span::default(), from_value(value))).collect())
        }
    };
    Tree { span: Span::default(), shape }
}

/// Goes down both; the depth of values is bounded where they are read.
fn check(schema: &Value, tree: &Tree<'_>, path: &str, misfits: &mut Vec<Misfit>) {
    let Some(schema) = schema.as_object() else { return };
    let mut misfit = |span, message, hint| misfits.push(Misfit { span, message, hint });
    if let Some(wanted) = schema.get("type") {
        let wanted: Vec<&str> = match wanted {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !wanted.iter().any(|wanted| fits(wanted, &tree.shape)) {
            let names: Vec<&str> = wanted.iter().map(|wanted| in_words(wanted)).collect();
            let message = format!("`{path}` takes {}, and this is {}", names.join(" or "), called(&tree.shape));
            return misfit(tree.span, message, None);
        }
    }
    if let Some(Value::Array(words)) = schema.get("enum") {
        let met = match &tree.shape {
            Shape::Text(Some(text)) => words.iter().any(|word| word.as_str() == Some(text)),
            Shape::Number(number) => words.iter().any(|word| word.as_f64() == number.as_f64()),
            Shape::Bool(value) => words.iter().any(|word| word.as_bool() == Some(*value)),
            Shape::Null => words.contains(&Value::Null),
            Shape::Unknown | Shape::Text(None) | Shape::List(_) | Shape::Map(_) => true,
        };
        if !met {
            let known: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            let hint = match &tree.shape {
                Shape::Text(Some(text)) => did_you_mean(text, known.iter().copied()),
                _ => None,
            };
            let message = format!("`{path}` cannot be {}", called(&tree.shape));
            misfit(tree.span, message, hint.or_else(|| Some(format!("it is one of {}", known.join(", ")))));
        }
    }
    if let (Some(least), Shape::Number(number)) = (schema.get("minimum").and_then(Value::as_f64), &tree.shape)
        && number.as_f64().is_some_and(|number| number < least)
    {
        misfit(tree.span, format!("`{path}` is at least {least}, and this is {number}"), None);
    }
    match &tree.shape {
        Shape::List(items) => {
            if let Some(inner) = schema.get("items") {
                for (at, item) in items.iter().enumerate() {
                    check(inner, item, &format!("{path}[{at}]"), misfits);
                }
            }
        }
        Shape::Map(entries) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for needed in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                let Some(needed) = needed.as_str() else { continue };
                if !entries.iter().any(|(key, _, _)| *key == needed) {
                    misfit(tree.span, format!("`{path}` has no `{needed}`"), Some(format!("add `{needed}`")));
                }
            }
            for (key, span, value) in entries {
                let inner = properties.and_then(|properties| properties.get(*key));
                match (inner, schema.get("additionalProperties")) {
                    (Some(inner), _) => check(inner, value, &format!("{path}.{}", shorten(key)), misfits),
                    (None, Some(Value::Bool(false))) => {
                        let known = properties.into_iter().flat_map(|properties| properties.keys());
                        let hint = did_you_mean(key, known.map(String::as_str));
                        let message = format!("`{path}` takes no `{}`", shorten(key));
                        misfits.push(Misfit { span: *span, message, hint });
                    }
                    (None, Some(inner)) => check(inner, value, &format!("{path}.{}", shorten(key)), misfits),
                    (None, None) => {}
                }
            }
        }
        _ => {}
    }
}

fn fits(wanted: &str, shape: &Shape<'_>) -> bool {
    match shape {
        Shape::Unknown => true,
        Shape::Null => wanted == "null",
        Shape::Bool(_) => wanted == "boolean",
        Shape::Number(number) => {
            wanted == "number" || wanted == "integer" && number.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        Shape::Text(_) => wanted == "string",
        Shape::List(_) => wanted == "array",
        Shape::Map(_) => wanted == "object",
    }
}

fn in_words(wanted: &str) -> &str {
    match wanted {
        "null" => "null",
        "boolean" => "true or false",
        "number" => "a number",
        "integer" => "a whole number",
        "string" => "text",
        "array" => "a list",
        "object" => "a map",
        other => other,
    }
}

fn called(shape: &Shape<'_>) -> String {
    match shape {
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
