//! The one checker of values: what actions take, what inputs are given, what steps set.
//!
//! A schema is a part of JSON Schema (2020-12) that is enforced to the last keyword; [`read`] says which.

pub(crate) mod read;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use serde_json::{Number, Value};

use crate::plan::{Data, Node};
use crate::problem::{MAX_PROBLEMS, Problem, Problems, did_you_mean, shorten};
use crate::source::Span;
use crate::tree::{Path, Shape, Tree, whole};

/// What matching texts with patterns may cost in one go: bytes of text times the KiB that the pattern takes.
const MAX_MATCHING_COST: usize = 16 << 20;
/// The first whole number that a real one, as which it may have been read, does not tell from its neighbour.
const FIRST_INEXACT: i64 = 1 << 53;
/// How many values of an `enum` a hint lists.
const SHOWN_CHOICES: usize = 20;

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

/// A type of JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Type {
    String,
    Integer,
    Number,
    Boolean,
    Array,
    Object,
    Null,
}

/// Every type, by the word for it in a schema, and for people.
pub(crate) const TYPES: &[(Type, &str, &str)] = &[
    (Type::String, "string", "text"),
    (Type::Integer, "integer", "a whole number"),
    (Type::Number, "number", "a number"),
    (Type::Boolean, "boolean", "true or false"),
    (Type::Array, "array", "a list"),
    (Type::Object, "object", "a map"),
    (Type::Null, "null", "null"),
];

/// Which numbers values have in expressions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Numbers {
    /// The schema takes `integer` alone.
    Whole,
    /// The schema takes `number` alone.
    Real,
    /// As they are written.
    Any,
}

/// What a value must be.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    /// The types it may have, by bit; none: any.
    types: u8,
    /// What holds besides, in the order in which it is told.
    rules: Vec<Rule>,
}

/// One thing that must hold of values of the type that it is about.
#[derive(Debug)]
enum Rule {
    OneOf(Choices),
    /// The fingerprint of the only value, and the value for people.
    Constant(String, String),
    Minimum(Number),
    Maximum(Number),
    Above(Number),
    Below(Number),
    MinLength(u64),
    MaxLength(u64),
    Pattern(Box<Pattern>),
    MinItems(u64),
    MaxItems(u64),
    Unique,
    Items(Box<Schema>),
    Required(Vec<String>),
    Fields(BTreeMap<String, Schema>, Others),
}

/// A regular expression, and about how many KiB it takes.
#[derive(Debug)]
struct Pattern {
    regex: Regex,
    size: usize,
}

/// The values of an `enum`.
#[derive(Debug)]
struct Choices {
    fingerprints: BTreeSet<String>,
    /// The first ones for people.
    shown: Vec<String>,
    /// Those that are text.
    words: Vec<String>,
}

/// What holds for the fields of a map that `properties` does not name.
#[derive(Debug)]
enum Others {
    Any,
    None,
    Schema(Box<Schema>),
}

/// What was found wrong, up to a cap, and what looking for it has cost.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<Problem>,
    /// How many problems are told at most.
    room: usize,
    matching_cost: usize,
}

impl Default for Findings {
    fn default() -> Self {
        Self { problems: Vec::new(), room: MAX_PROBLEMS, matching_cost: 0 }
    }
}

impl Findings {
    /// Whether more would not be told: then nobody needs to look.
    fn is_full(&self) -> bool {
        self.problems.len() >= self.room
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        if !self.is_full() {
            self.problems.push(problem);
        }
    }

    /// All of it in one text.
    pub(crate) fn into_text(self) -> Result<(), String> {
        match self.problems.is_empty() {
            true => Ok(()),
            false => Err(self.problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")),
        }
    }
}

/// Checks `with` as it stands in the plan; `uses` is where the action is named.
pub(crate) fn check_node(schema: &Schema, with: Option<&Node>, uses: Span, data: &Data, problems: &mut Problems) {
    let tree = match with {
        Some(node) => Tree::from_node(node, data),
        None => Tree { span: uses, shape: Shape::Map(Vec::new()) },
    };
    let mut findings = Findings { room: problems.room(), ..Findings::default() };
    schema.check(&tree, &Path::new("with"), &mut findings);
    findings.problems.into_iter().for_each(|problem| problems.push(problem));
}

/// Checks a value once it is there; `path` is what messages call it.
pub(crate) fn check_value(schema: &Schema, value: &Value, path: &Path<'_>, findings: &mut Findings) {
    schema.check(&Tree::from_value(value), path, findings);
}

impl Schema {
    fn allow(&mut self, kind: Type) {
        self.types |= 1 << kind as u8;
    }

    fn allows(&self, kind: Type) -> bool {
        self.types & 1 << kind as u8 != 0
    }

    /// Whether a text can fit.
    pub(crate) fn takes_text(&self) -> bool {
        self.types == 0 || self.allows(Type::String)
    }

    /// The value that fits, with each number of the kind that the schema wants: `1.0` is an integer to JSON Schema and
    /// `1` a number, and in an expression neither would go with its like. How deep values nest is bounded where they
    /// are read.
    pub(crate) fn with_typed_numbers(&self, mut value: Value) -> Value {
        match &mut value {
            Value::Number(number) => {
                let typed = match self.numbers() {
                    Numbers::Whole => whole(number).and_then(|whole| i64::try_from(whole).ok()).map(Number::from),
                    Numbers::Real => number.as_f64().and_then(Number::from_f64),
                    Numbers::Any => None,
                };
                *number = typed.unwrap_or_else(|| number.clone());
            }
            Value::Array(items) => {
                for rule in &self.rules {
                    if let Rule::Items(schema) = rule {
                        items.iter_mut().for_each(|item| *item = schema.with_typed_numbers(item.take()));
                    }
                }
            }
            Value::Object(fields) => {
                for rule in &self.rules {
                    let Rule::Fields(known, others) = rule else { continue };
                    for (name, field) in fields.iter_mut() {
                        let schema = match (known.get(name), others) {
                            (Some(schema), _) => schema,
                            (None, Others::Schema(schema)) => schema,
                            (None, Others::Any | Others::None) => continue,
                        };
                        *field = schema.with_typed_numbers(field.take());
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
        value
    }

    fn numbers(&self) -> Numbers {
        match (self.allows(Type::Integer), self.allows(Type::Number)) {
            (true, false) => Numbers::Whole,
            (false, true) => Numbers::Real,
            (true, true) | (false, false) => Numbers::Any,
        }
    }

    /// What is wrong with a number of the right type: that it would become another one.
    fn changed(&self, number: &Number, path: &Path<'_>, span: Span) -> Option<Problem> {
        let (message, hint) = match self.numbers() {
            Numbers::Whole if number.is_i64() => return None,
            Numbers::Whole => match whole(number).map(i64::try_from) {
                Some(Ok(whole)) if whole.abs() < FIRST_INEXACT => return None,
                Some(Ok(_)) => (
                    format!("`{path}` takes a whole number, and {number} is too large to be exact in this notation"),
                    "write it with digits alone".to_owned(),
                ),
                Some(Err(_)) | None => (
                    format!("`{path}` takes a whole number, and {number} is too large to be held exactly"),
                    format!("whole numbers go from {} to {}", i64::MIN, i64::MAX),
                ),
            },
            Numbers::Real => {
                let nearest = number.as_f64()?;
                if whole(number).is_none_or(|whole| whole == nearest as i128) {
                    return None;
                }
                let hint = format!("the nearest is {nearest}; `type: integer` holds whole numbers to {}", i64::MAX);
                (format!("`{path}` takes a number, and {number} is too large to be held exactly as one"), hint)
            }
            Numbers::Any => return None,
        };
        Some(Problem::error("bad_input", span, message).hint(hint))
    }

    /// Whether nothing but lists and maps can fit.
    pub(crate) fn takes_only_structure(&self) -> bool {
        self.types != 0
            && TYPES
                .iter()
                .all(|(kind, _, _)| !self.allows(*kind) || matches!(kind, Type::Array | Type::Object | Type::Null))
    }

    /// What fits, for people: its types, or the values it can have.
    pub(crate) fn wanted(&self) -> String {
        for rule in &self.rules {
            match rule {
                Rule::OneOf(choices) => return format!("one of {}", choices.list()),
                Rule::Constant(_, shown) => return format!("always {shown}"),
                _ => {}
            }
        }
        self.types_in_words()
    }

    fn types_in_words(&self) -> String {
        let allowed = TYPES.iter().filter(|(kind, _, _)| self.allows(*kind));
        match self.types {
            0 => "any value".into(),
            _ => allowed.map(|(_, _, words)| *words).collect::<Vec<_>>().join(" or "),
        }
    }

    fn fits_type(&self, shape: &Shape<'_>) -> bool {
        self.types == 0
            || match shape {
                Shape::Unknown => true,
                Shape::Null => self.allows(Type::Null),
                Shape::Bool(_) => self.allows(Type::Boolean),
                Shape::Number(number) => {
                    let is_whole = || number.as_f64().is_some_and(|number| number.fract() == 0.0);
                    self.allows(Type::Number) || self.allows(Type::Integer) && is_whole()
                }
                Shape::Text(_) => self.allows(Type::String),
                Shape::List(_) => self.allows(Type::Array),
                Shape::Map(_) => self.allows(Type::Object),
            }
    }

    /// Goes down both; the depth of values is bounded where they are read. What fits costs about what it is long,
    /// and what does not fit is told so often and no more.
    pub(crate) fn check(&self, tree: &Tree<'_>, path: &Path<'_>, findings: &mut Findings) {
        if findings.is_full() {
            return;
        }
        if !self.fits_type(&tree.shape) {
            let message = format!("`{path}` takes {}, and this is {}", self.types_in_words(), tree.called());
            return findings.push(Problem::error("bad_input", tree.span, message));
        }
        if let Shape::Number(number) = &tree.shape
            && let Some(problem) = self.changed(number, path, tree.span)
        {
            return findings.push(problem);
        }
        for rule in &self.rules {
            rule.check(tree, path, findings);
        }
    }
}

impl Choices {
    /// Whether a value is one of them, as far as it is known.
    fn hold(&self, tree: &Tree<'_>) -> bool {
        tree.fingerprint().is_none_or(|print| self.fingerprints.contains(&print))
    }

    fn list(&self) -> String {
        let more = if self.shown.len() < self.fingerprints.len() { ", …" } else { "" };
        format!("{}{more}", self.shown.join(", "))
    }

    fn hint(&self, tree: &Tree<'_>) -> String {
        let near = match &tree.shape {
            Shape::Text(Some(text)) => did_you_mean(text, self.words.iter().map(String::as_str)),
            _ => None,
        };
        near.unwrap_or_else(|| format!("it is one of {}", self.list()))
    }
}

impl Rule {
    fn check(&self, tree: &Tree<'_>, path: &Path<'_>, findings: &mut Findings) {
        let misfit = |message: String| Problem::error("bad_input", tree.span, message);
        match (self, &tree.shape) {
            (Rule::OneOf(choices), _) if !choices.hold(tree) => {
                let message = format!("`{path}` cannot be {}", tree.called());
                findings.push(misfit(message).hint(choices.hint(tree)));
            }
            (Rule::Constant(only, shown), _) if tree.fingerprint().is_some_and(|print| print != *only) => {
                findings.push(misfit(format!("`{path}` is always {shown}, and this is {}", tree.called())));
            }
            (Rule::Minimum(least), Shape::Number(number)) if compare(number, least) == Ordering::Less => {
                findings.push(misfit(format!("`{path}` is at least {least}, and this is {number}")));
            }
            (Rule::Maximum(most), Shape::Number(number)) if compare(number, most) == Ordering::Greater => {
                findings.push(misfit(format!("`{path}` is at most {most}, and this is {number}")));
            }
            (Rule::Above(least), Shape::Number(number)) if compare(number, least) != Ordering::Greater => {
                findings.push(misfit(format!("`{path}` is above {least}, and this is {number}")));
            }
            (Rule::Below(most), Shape::Number(number)) if compare(number, most) != Ordering::Less => {
                findings.push(misfit(format!("`{path}` is below {most}, and this is {number}")));
            }
            (Rule::MinLength(least), Shape::Text(Some(text))) => {
                let length = text.chars().count() as u64;
                if length < *least {
                    let least = counted(*least, "character");
                    findings.push(misfit(format!("`{path}` has at least {least}, and this has {length}")));
                }
            }
            (Rule::MaxLength(most), Shape::Text(Some(text))) => {
                let length = text.chars().count() as u64;
                if length > *most {
                    let most = counted(*most, "character");
                    findings.push(misfit(format!("`{path}` has at most {most}, and this has {length}")));
                }
            }
            (Rule::Pattern(pattern), Shape::Text(Some(text))) => {
                let cost = text.len().saturating_mul(pattern.size);
                findings.matching_cost = findings.matching_cost.saturating_add(cost);
                if findings.matching_cost > MAX_MATCHING_COST {
                    let message =
                        format!("`{path}` and what stands before it are too long to be matched with patterns");
                    findings.push(misfit(message).hint("a smaller pattern can match more"));
                } else if !pattern.regex.is_match(text) {
                    let pattern = shorten(pattern.regex.as_str());
                    findings.push(misfit(format!(
                        "`{path}` takes text with the pattern `{pattern}`, and this is {}",
                        tree.called()
                    )));
                }
            }
            (Rule::MinItems(least), Shape::List(items)) if (items.len() as u64) < *least => {
                let least = counted(*least, "item");
                findings.push(misfit(format!("`{path}` has at least {least}, and this has {}", items.len())));
            }
            (Rule::MaxItems(most), Shape::List(items)) if items.len() as u64 > *most => {
                let most = counted(*most, "item");
                findings.push(misfit(format!("`{path}` has at most {most}, and this has {}", items.len())));
            }
            (Rule::Unique, Shape::List(items)) => {
                let mut places = BTreeMap::new();
                for (at, item) in items.iter().enumerate() {
                    let Some(first) = item.fingerprint().and_then(|print| places.insert(print, at)) else { continue };
                    let message = format!("`{path}` has each item once, and [{at}] is [{first}] again");
                    findings.push(Problem::error("bad_input", item.span, message));
                }
            }
            (Rule::Items(schema), Shape::List(items)) => {
                for (at, item) in items.iter().enumerate() {
                    schema.check(item, &path.place(at), findings);
                }
            }
            (Rule::Required(needed), Shape::Map(entries)) => {
                let known: BTreeSet<&str> = entries.iter().map(|(key, _, _)| key.as_ref()).collect();
                for needed in needed.iter().filter(|needed| !known.contains(needed.as_str())) {
                    if findings.is_full() {
                        return;
                    }
                    let needed = shorten(needed);
                    findings.push(misfit(format!("`{path}` has no `{needed}`")).hint(format!("add `{needed}`")));
                }
            }
            (Rule::Fields(fields, others), Shape::Map(entries)) => {
                for (key, span, value) in entries {
                    match (fields.get(key.as_ref()), others) {
                        (Some(schema), _) => schema.check(value, &path.name(key), findings),
                        (None, Others::Schema(schema)) => schema.check(value, &path.name(key), findings),
                        (None, Others::Any) => {}
                        (None, Others::None) if findings.is_full() => return,
                        (None, Others::None) => {
                            let hint = did_you_mean(key, fields.keys().map(String::as_str));
                            let message = format!("`{path}` takes no `{}`", shorten(key));
                            findings.push(Problem::error("bad_input", *span, message).maybe_hint(hint));
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Whole numbers exactly, all others as nearly as they are stored.
fn compare(a: &Number, b: &Number) -> Ordering {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
    }
}
