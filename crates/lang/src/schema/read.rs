//! Schemas as plans write them: every keyword is enforced or refused, and what no value could fit is an error.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::RegexBuilder;
use serde_json::{Map, Number, Value, json};

use super::{Choices, Findings, Others, Pattern, Rule, SHOWN_CHOICES, Schema, TYPES, Type, compare};
use crate::problem::{Problem, did_you_mean, shorten};
use crate::source::Span;
use crate::tree::{Entry, Path, Shape, Tree, whole};

/// The longest pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1024;
/// How many KiB a pattern may take, by classes; what it costs to match a character grows with this.
const PATTERN_SIZES: [usize; 4] = [1, 4, 16, 64];
/// How many patterns the schemas of one plan may have.
const MAX_PATTERNS: usize = 1000;

/// Which keyword it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    Type,
    Enum,
    Const,
    Default,
    Description,
    Title,
    Examples,
    Minimum,
    Maximum,
    ExclusiveMinimum,
    ExclusiveMaximum,
    MinLength,
    MaxLength,
    Pattern,
    MinItems,
    MaxItems,
    UniqueItems,
    Items,
    Required,
    Properties,
    AdditionalProperties,
}

impl Word {
    /// The types of the values that it says something about; none: all.
    fn is_about(self) -> &'static [Type] {
        match self {
            Word::Type | Word::Enum | Word::Const | Word::Default => &[],
            Word::Description | Word::Title | Word::Examples => &[],
            Word::Minimum | Word::Maximum | Word::ExclusiveMinimum | Word::ExclusiveMaximum => {
                &[Type::Integer, Type::Number]
            }
            Word::MinLength | Word::MaxLength | Word::Pattern => &[Type::String],
            Word::MinItems | Word::MaxItems | Word::UniqueItems | Word::Items => &[Type::Array],
            Word::Required | Word::Properties | Word::AdditionalProperties => &[Type::Object],
        }
    }
}

/// What a keyword takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Takes {
    Types,
    Values,
    Value,
    Text,
    Number,
    Count,
    Bool,
    Names,
    Schema,
    Schemas,
    BoolOrSchema,
}

impl Takes {
    fn in_words(self) -> &'static str {
        match self {
            Takes::Types => "the name of a type, or a list of them",
            Takes::Values => "a list of values",
            Takes::Value => "any value",
            Takes::Text => "text",
            Takes::Number => "a number",
            Takes::Count => "a whole number from 0",
            Takes::Bool => "true or false",
            Takes::Names => "a list of names",
            Takes::Schema => "a schema",
            Takes::Schemas => "a map of names to schemas",
            Takes::BoolOrSchema => "true, false or a schema",
        }
    }
}

/// Every keyword: its name, what it takes, what it means.
#[rustfmt::skip]
const KEYWORDS: &[(Word, &str, Takes, &str)] = &[
    (Word::Type, "type", Takes::Types,
        "What the value is: `string`, `integer`, `number`, `boolean`, `array`, `object`, `null`, or a list of these. In \
         expressions an `integer` is always a whole number (`2`), and a `number` always a real one (`2.0`)."),
    (Word::Enum, "enum", Takes::Values, "The values that it can have."),
    (Word::Const, "const", Takes::Value, "The only value that it can have."),
    (Word::Default, "default", Takes::Value,
        "The value where none is given; only at the top of an input or an output. Without one it must be given."),
    (Word::Description, "description", Takes::Text, "What the value is for."),
    (Word::Title, "title", Takes::Text, "The value's name for people."),
    (Word::Examples, "examples", Takes::Values, "Values that it could have, for people."),
    (Word::Minimum, "minimum", Takes::Number, "The least number."),
    (Word::Maximum, "maximum", Takes::Number, "The greatest number."),
    (Word::ExclusiveMinimum, "exclusiveMinimum", Takes::Number, "The number that it must be above."),
    (Word::ExclusiveMaximum, "exclusiveMaximum", Takes::Number, "The number that it must be below."),
    (Word::MinLength, "minLength", Takes::Count, "The fewest characters of a text."),
    (Word::MaxLength, "maxLength", Takes::Count, "The most characters of a text."),
    (Word::Pattern, "pattern", Takes::Text,
        "A regular expression that is found somewhere in the text; `^` and `$` are its ends."),
    (Word::MinItems, "minItems", Takes::Count, "The fewest items of a list."),
    (Word::MaxItems, "maxItems", Takes::Count, "The most items of a list."),
    (Word::UniqueItems, "uniqueItems", Takes::Bool, "Whether a list has each item once."),
    (Word::Items, "items", Takes::Schema, "What each item of a list is."),
    (Word::Required, "required", Takes::Names, "The fields that a map must have."),
    (Word::Properties, "properties", Takes::Schemas, "What the fields of a map are."),
    (Word::AdditionalProperties, "additionalProperties", Takes::BoolOrSchema,
        "Whether a map can have other fields, or what they are."),
];

/// An input of the plan, or an output of a step: what it is, and its value where none is given.
#[derive(Debug)]
pub(crate) struct Declared {
    /// Where it is named.
    pub(crate) span: Span,
    pub(crate) schema: Schema,
    pub(crate) default: Option<Value>,
    pub(crate) description: Option<String>,
    /// Whether all of this is in order: then values can be held against it.
    pub(crate) is_sound: bool,
}

/// Reads the schemas of one plan.
#[derive(Debug, Default)]
pub(crate) struct SchemaReader {
    findings: Findings,
    patterns: usize,
}

impl Schema {
    /// The schema of an action: what is not enforced in it is for editors.
    pub(crate) fn of_action(value: &Value) -> Self {
        SchemaReader::default().schema(&Tree::from_value(value), &Path::new("with"))
    }
}

impl SchemaReader {
    /// The schema of something that has a name, with what belongs to its top only; and what is wrong with it, up to
    /// `room` problems.
    pub(crate) fn declared(
        &mut self,
        tree: &Tree<'_>,
        path: &Path<'_>,
        span: Span,
        room: usize,
    ) -> (Declared, Vec<Problem>) {
        self.findings.room = room;
        let declared = self.read(tree, path, span);
        (declared, std::mem::take(&mut self.findings.problems))
    }

    fn read(&mut self, tree: &Tree<'_>, path: &Path<'_>, span: Span) -> Declared {
        let Shape::Map(entries) = &tree.shape else {
            let known = TYPES.iter().map(|(_, word, _)| *word);
            let hint = match &tree.shape {
                Shape::Text(Some(text)) if known.clone().any(|word| word == text) => format!("write {{type: {text}}}"),
                _ => "write {type: string}, or another type".to_owned(),
            };
            self.wrong(tree, path, "a schema", Some(hint));
            return Declared { span, schema: Schema::default(), default: None, description: None, is_sound: false };
        };
        let find = |name: &str| entries.iter().find(|(key, _, _)| key == name).map(|(_, _, value)| value);
        if find("type").is_none() {
            let problem = Problem::error("missing_field", span, format!("`{path}` has no `type`"));
            let types: Vec<&str> = TYPES.iter().map(|(_, word, _)| *word).collect();
            self.findings.push(problem.hint(format!("add `type`: one of {}", types.join(", "))));
        }
        let schema = self.keywords(entries, path, true);
        let default = find("default").map(|default| {
            self.without_templates(default, &path.name("default"));
            schema.check(default, &path.name("default"), &mut self.findings);
            default.to_value()
        });
        let description = find("description").and_then(|text| match &text.shape {
            Shape::Text(Some(text)) => Some(text.to_string()),
            _ => None,
        });
        // A part that cannot be taken, which was told elsewhere, leaves no fingerprint.
        let is_sound = self.findings.problems.is_empty() && tree.fingerprint().is_some();
        Declared { span, schema, default, description, is_sound }
    }

    /// A schema inside another.
    fn schema(&mut self, tree: &Tree<'_>, path: &Path<'_>) -> Schema {
        match &tree.shape {
            Shape::Map(entries) => self.keywords(entries, path, false),
            _ => {
                self.wrong(tree, path, "a schema", Some("a schema is a map such as {type: string}".into()));
                Schema::default()
            }
        }
    }

    fn wrong(&mut self, tree: &Tree<'_>, path: &Path<'_>, wanted: &str, hint: Option<String>) {
        if matches!(tree.shape, Shape::Unknown) {
            return;
        }
        let message = format!("`{path}` takes {wanted}, and this is {}", tree.called());
        self.findings.push(Problem::error("wrong_type", tree.span, message).maybe_hint(hint));
    }

    fn bad(&mut self, span: Span, message: String, hint: Option<String>) {
        self.findings.push(Problem::error("bad_schema", span, message).maybe_hint(hint));
    }

    /// Its depth is bounded by the reader of the events.
    fn keywords(&mut self, entries: &[Entry<'_>], path: &Path<'_>, top: bool) -> Schema {
        let mut schema = Schema::default();
        let mut fields = BTreeMap::new();
        let mut others = Others::Any;
        // Values in a schema, with the keyword and the place in its list, to be checked when the schema is complete.
        let mut literals: Vec<(&Tree<'_>, &str, Option<usize>)> = Vec::new();
        for (key, span, value) in entries {
            let Some((word, _, takes, _)) = KEYWORDS.iter().find(|(_, name, _, _)| name == key) else {
                self.unknown(key, *span);
                continue;
            };
            let path = path.name(key);
            match (word, takes, &value.shape) {
                (Word::Type, ..) => self.types(&mut schema, value, &path),
                (Word::Default, ..) if !top => {
                    let message = format!("`{path}` would not be put in");
                    let hint = "a default stands at the top of an input or an output, for the whole of it";
                    self.bad(*span, message, Some(hint.into()));
                }
                // The caller checks it.
                (Word::Default, ..) => {}
                (Word::Const, ..) => {
                    let print = value.fingerprint();
                    schema.rules.extend(print.map(|print| Rule::Constant(print, shown(value))));
                    literals.push((value, "const", None));
                }
                (Word::Enum, _, Shape::List(values)) => {
                    if values.is_empty() {
                        self.bad(value.span, format!("`{path}` is empty, so nothing fits"), None);
                    }
                    schema.rules.extend(choices(values).map(Rule::OneOf));
                    literals.extend(values.iter().enumerate().map(|(at, value)| (value, "enum", Some(at))));
                }
                (Word::Examples, _, Shape::List(values)) => {
                    literals.extend(values.iter().enumerate().map(|(at, value)| (value, "examples", Some(at))));
                }
                (Word::Description | Word::Title, _, Shape::Text(Some(_))) => {}
                (Word::Pattern, _, Shape::Text(Some(text))) => self.pattern(&mut schema, text, value.span, &path),
                (Word::UniqueItems, _, Shape::Bool(unique)) => schema.rules.extend(unique.then_some(Rule::Unique)),
                (Word::Items, _, Shape::Map(_)) => {
                    let items = self.schema(value, &path);
                    schema.rules.push(Rule::Items(Box::new(items)));
                }
                (Word::Required, _, Shape::List(names)) => self.required(&mut schema, names, &path),
                (Word::Properties, _, Shape::Map(entries)) => {
                    for (key, _, value) in entries {
                        let field = self.schema(value, &path.name(key));
                        fields.insert(key.to_string(), field);
                    }
                }
                (Word::AdditionalProperties, _, Shape::Bool(allowed)) => {
                    others = if *allowed { Others::Any } else { Others::None };
                }
                (Word::AdditionalProperties, _, Shape::Map(_)) => {
                    others = Others::Schema(Box::new(self.schema(value, &path)));
                }
                (_, Takes::Number, Shape::Number(number)) => {
                    let number = number.clone();
                    schema.rules.push(match word {
                        Word::Minimum => Rule::Minimum(number),
                        Word::Maximum => Rule::Maximum(number),
                        Word::ExclusiveMinimum => Rule::Above(number),
                        _ => Rule::Below(number),
                    });
                }
                (_, Takes::Count, Shape::Number(number)) => match whole(number).map(u64::try_from) {
                    Some(Ok(count)) => schema.rules.push(match word {
                        Word::MinLength => Rule::MinLength(count),
                        Word::MaxLength => Rule::MaxLength(count),
                        Word::MinItems => Rule::MinItems(count),
                        _ => Rule::MaxItems(count),
                    }),
                    _ => {
                        let message = format!("`{path}` takes {}, and this is {number}", takes.in_words());
                        self.findings.push(Problem::error("out_of_range", value.span, message));
                    }
                },
                _ => self.wrong(value, &path, takes.in_words(), None),
            }
        }
        self.idle(entries, &schema, path);
        if matches!(others, Others::None) {
            self.required_and_refused(entries, &fields, path);
        }
        if !fields.is_empty() || !matches!(others, Others::Any) {
            schema.rules.push(Rule::Fields(fields, others));
        }
        schema.rules.sort_by_key(Rule::order);
        schema.rules.shrink_to_fit();
        self.ranges(entries, path);
        for (value, name, place) in literals {
            let path = path.name(name);
            match place {
                Some(at) => schema.check(value, &path.place(at), &mut self.findings),
                None => schema.check(value, &path, &mut self.findings),
            }
        }
        schema
    }

    fn unknown(&mut self, key: &str, span: Span) {
        if key == "secret" {
            let message = "secrets are not available yet in this version of Baton";
            return self.findings.push(Problem::error("not_available", span, message));
        }
        if self.findings.is_full() {
            return;
        }
        let hint = did_you_mean(key, KEYWORDS.iter().map(|(_, name, _, _)| *name))
            .unwrap_or_else(|| "the reference of plans says which keywords of JSON Schema there are".into());
        let message = format!("a schema has no `{}` here, for it would not be enforced", shorten(key));
        self.findings.push(Problem::error("unknown_field", span, message).hint(hint));
    }

    fn types(&mut self, schema: &mut Schema, value: &Tree<'_>, path: &Path<'_>) {
        let words = match &value.shape {
            Shape::Text(Some(_)) => std::slice::from_ref(value),
            Shape::List(words) if words.is_empty() => {
                return self.bad(value.span, format!("`{path}` is empty, so nothing fits"), None);
            }
            Shape::List(words) => &words[..],
            _ => return self.wrong(value, path, Takes::Types.in_words(), None),
        };
        let mut all_known = true;
        for word in words {
            let Shape::Text(Some(text)) = &word.shape else {
                all_known = false;
                let hint = matches!(word.shape, Shape::Null).then(|| "in quotes it is a type: \"null\"".to_owned());
                self.wrong(word, path, "the name of a type", hint);
                continue;
            };
            let known = TYPES.iter().map(|(_, word, _)| *word);
            match TYPES.iter().find(|(_, name, _)| name == text) {
                Some((kind, _, _)) => schema.allow(*kind),
                None => {
                    all_known = false;
                    let hint = elsewhere(text)
                        .map(|ours| format!("in Baton this is `{ours}`"))
                        .or_else(|| did_you_mean(text, known.clone()))
                        .unwrap_or_else(|| format!("it is one of {}", known.collect::<Vec<_>>().join(", ")));
                    let message = format!("there is no type `{}`", shorten(text));
                    self.findings.push(Problem::error("bad_choice", word.span, message).hint(hint));
                }
            }
        }
        // Nothing is held against a type that was not understood.
        if !all_known {
            schema.types = 0;
        }
    }

    fn pattern(&mut self, schema: &mut Schema, text: &str, span: Span, path: &Path<'_>) {
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS {
            let message = format!("a plan has at most {MAX_PATTERNS} patterns");
            return self.bad(span, message, None);
        }
        if text.len() > MAX_PATTERN_BYTES {
            let message = format!("`{path}` has {} bytes, and {MAX_PATTERN_BYTES} is the most", text.len());
            return self.bad(span, message, None);
        }
        let build = |size: usize| RegexBuilder::new(text).size_limit(size << 10).build().map(|regex| (regex, size));
        let [smallest, larger @ ..] = PATTERN_SIZES;
        match larger.into_iter().fold(build(smallest), |built, size| built.or_else(|_| build(size))) {
            Ok((regex, size)) => schema.rules.push(Rule::Pattern(Box::new(Pattern { regex, size }))),
            Err(error) => {
                let message = format!("`{path}` cannot be taken: {error}");
                let hint = "look-around and backreferences are not available, nor are patterns that repeat too much";
                self.bad(span, message, Some(hint.into()));
            }
        }
    }

    fn required(&mut self, schema: &mut Schema, names: &[Tree<'_>], path: &Path<'_>) {
        let mut needed = BTreeSet::new();
        for name in names {
            match &name.shape {
                Shape::Text(Some(text)) => _ = needed.insert(text.to_string()),
                _ => self.wrong(name, path, Takes::Names.in_words(), None),
            }
        }
        schema.rules.push(Rule::Required(needed.into_iter().collect()));
    }

    /// Keywords about values of types that the schema does not take.
    fn idle(&mut self, entries: &[Entry<'_>], schema: &Schema, path: &Path<'_>) {
        if schema.types == 0 {
            return;
        }
        for (key, span, _) in entries {
            let Some((word, ..)) = KEYWORDS.iter().find(|(_, name, _, _)| name == key) else { continue };
            let about = word.is_about();
            if about.is_empty() || about.iter().any(|kind| schema.allows(*kind)) {
                continue;
            }
            let of_type = TYPES.iter().find(|(kind, _, _)| about.contains(kind)).map_or("", |(_, name, _)| *name);
            let message = format!("`{}` says nothing: `{path}` takes {}", path.name(key), schema.types_in_words());
            self.bad(*span, message, Some(format!("take it out; it goes with `type: {of_type}`")));
        }
    }

    /// Fields that a map must have and cannot have.
    fn required_and_refused(&mut self, entries: &[Entry<'_>], fields: &BTreeMap<String, Schema>, path: &Path<'_>) {
        let required = entries.iter().find(|(key, _, _)| key == "required").map(|(_, _, value)| &value.shape);
        let Some(Shape::List(names)) = required else { return };
        for name in names {
            let Shape::Text(Some(text)) = &name.shape else { continue };
            if !fields.contains_key(text.as_ref()) {
                let text = shorten(text);
                let message = format!("no map fits `{path}`: it must have `{text}`, and takes only its `properties`");
                self.bad(name.span, message, Some(format!("add `{text}` to `properties`")));
            }
        }
    }

    /// Bounds between which there is nothing.
    fn ranges(&mut self, entries: &[Entry<'_>], path: &Path<'_>) {
        let find = |name: &str| {
            entries.iter().find(|(key, _, _)| key == name).and_then(|(_, _, value)| match &value.shape {
                Shape::Number(number) => Some((number, value.span)),
                _ => None,
            })
        };
        for (least, most, touching) in [
            ("minimum", "maximum", true),
            ("minimum", "exclusiveMaximum", false),
            ("exclusiveMinimum", "maximum", false),
            ("exclusiveMinimum", "exclusiveMaximum", false),
            ("minLength", "maxLength", true),
            ("minItems", "maxItems", true),
        ] {
            let (Some((from, span)), Some((to, other))) = (find(least), find(most)) else { continue };
            if is_empty_range(from, to, touching) {
                let message = format!("nothing fits `{path}`: `{least}` is {from} and `{most}` is {to}");
                self.findings.push(Problem::error("bad_schema", span, message).also(other, format!("`{most}`")));
            }
        }
    }

    fn without_templates(&mut self, tree: &Tree<'_>, path: &Path<'_>) {
        match &tree.shape {
            Shape::Text(Some(text)) if text.contains("${") => {
                let message = format!("`{path}` holds `${{`, and nothing is put in here");
                let hint = "write the value out; the default of a variable, under `vars`, can hold `${OTHER}`";
                self.bad(tree.span, message, Some(hint.into()));
            }
            Shape::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.without_templates(item, &path.place(at));
                }
            }
            Shape::Map(entries) => {
                for (key, _, value) in entries {
                    self.without_templates(value, &path.name(key));
                }
            }
            _ => {}
        }
    }
}

impl Rule {
    /// The order in which misfits are told.
    fn order(&self) -> u8 {
        match self {
            Rule::OneOf(_) | Rule::Constant(..) => 0,
            Rule::Minimum(_) | Rule::Maximum(_) | Rule::Above(_) | Rule::Below(_) => 1,
            Rule::MinLength(_) | Rule::MaxLength(_) | Rule::Pattern(_) => 2,
            Rule::MinItems(_) | Rule::MaxItems(_) | Rule::Unique => 3,
            Rule::Items(_) | Rule::Required(_) => 4,
            Rule::Fields(..) => 5,
        }
    }
}

fn is_empty_range(from: &Number, to: &Number, touching: bool) -> bool {
    let order = compare(from, to);
    if touching { order.is_gt() } else { order.is_ge() }
}

/// What other languages call the types.
fn elsewhere(word: &str) -> Option<&'static str> {
    match word.to_ascii_lowercase().as_str() {
        "str" | "text" => Some("string"),
        "int" | "long" => Some("integer"),
        "float" | "double" | "decimal" => Some("number"),
        "bool" => Some("boolean"),
        "list" | "sequence" => Some("array"),
        "map" | "dict" | "mapping" => Some("object"),
        _ => None,
    }
}

/// A value of a schema in a message.
fn shown(tree: &Tree<'_>) -> String {
    match &tree.shape {
        Shape::Text(Some(text)) => shorten(text),
        Shape::List(_) | Shape::Map(_) => tree.called(),
        _ => tree.to_value().to_string(),
    }
}

/// `None`: one of them cannot be taken.
fn choices(values: &[Tree<'_>]) -> Option<Choices> {
    let words = values.iter().filter_map(|value| match &value.shape {
        Shape::Text(Some(text)) => Some(text.to_string()),
        _ => None,
    });
    Some(Choices {
        fingerprints: values.iter().map(Tree::fingerprint).collect::<Option<_>>()?,
        shown: values.iter().take(SHOWN_CHOICES).map(shown).collect(),
        words: words.collect(),
    })
}

/// The keywords as a JSON Schema, for editors.
pub(crate) fn schema_of_schemas() -> Value {
    let names: Vec<&str> = TYPES.iter().map(|(_, word, _)| *word).collect();
    let inner = json!({"$ref": "#/$defs/schema"});
    let mut properties = Map::new();
    for (_, name, takes, doc) in KEYWORDS {
        let mut entry = match takes {
            Takes::Types => json!({"anyOf": [
                {"enum": names}, {"type": "array", "items": {"enum": names}, "minItems": 1}]}),
            Takes::Values => json!({"type": "array"}),
            Takes::Value => json!({}),
            Takes::Text => json!({"type": "string"}),
            Takes::Number => json!({"type": "number"}),
            Takes::Count => json!({"type": "integer", "minimum": 0}),
            Takes::Bool => json!({"type": "boolean"}),
            Takes::Names => json!({"type": "array", "items": {"type": "string"}}),
            Takes::Schema => inner.clone(),
            Takes::Schemas => json!({"type": "object", "additionalProperties": inner}),
            Takes::BoolOrSchema => json!({"anyOf": [{"type": "boolean"}, inner]}),
        };
        entry["description"] = Value::from(*doc);
        properties.insert((*name).into(), entry);
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// The keywords as the rows of a table: name, what it takes, what it means.
pub(crate) fn keywords() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    KEYWORDS.iter().map(|(_, name, takes, doc)| (*name, takes.in_words(), *doc))
}
