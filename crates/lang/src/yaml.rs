//! YAML 1.2, core schema, one document, as events with places; no tags, anchors, aliases or merge keys.
//!
//! The tokens come from `saphyr-parser`, which keeps its nesting in a list and not on the stack, and gives each
//! event as soon as it is sure of it; the reader of the events stops it at the depth limit. Anchors and aliases are
//! refused, so nothing can grow by repetition.

use std::borrow::Cow;

use saphyr_parser::{Event as Yaml, Marker, Parser, ScalarStyle, StrInput};

use crate::events::{Event, MAX_DEPTH, Scalar, ScalarKind, Tokens};
use crate::problem::{Problem, Problems, shorten};
use crate::source::{Span, floor};

/// Reads YAML event by event.
pub(crate) struct YamlTokens<'s> {
    text: &'s str,
    /// Where `text` begins in the source: after its byte order mark, if it has one.
    base: usize,
    parser: Parser<'s, StrInput<'s>>,
    bytes: ByteOf,
    /// For each open list or map: whether it is a map, and whether its next value is a key.
    open: Vec<(bool, bool)>,
    documents: usize,
}

/// From the parser's places, counted in characters, to bytes.
struct ByteOf {
    /// The byte at which every [`STRIDE`]th character begins; empty where each character is one byte.
    checkpoints: Vec<u32>,
}

const STRIDE: usize = 64;

impl ByteOf {
    fn new(text: &str) -> Self {
        if text.is_ascii() {
            return Self { checkpoints: Vec::new() };
        }
        Self { checkpoints: text.char_indices().step_by(STRIDE).map(|(byte, _)| byte as u32).collect() }
    }

    fn byte(&self, text: &str, character: usize) -> usize {
        if self.checkpoints.is_empty() {
            return character.min(text.len());
        }
        let Some(checkpoint) = self.checkpoints.get(character / STRIDE) else {
            return text.len();
        };
        let from = *checkpoint as usize;
        text[from..].char_indices().nth(character % STRIDE).map_or(text.len(), |(byte, _)| from + byte)
    }
}

impl<'s> YamlTokens<'s> {
    pub(crate) fn new(text: &'s str) -> Self {
        let body = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self {
            text: body,
            base: text.len() - body.len(),
            parser: Parser::new_from_str(body),
            bytes: ByteOf::new(body),
            open: Vec::new(),
            documents: 0,
        }
    }

    fn place(&self, marker: Marker) -> usize {
        self.base + self.bytes.byte(self.text, marker.index())
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        let start = self.place(span.start);
        Span::new(start, self.place(span.end).max(start))
    }

    /// Whether what comes next is a map's key; afterwards its value comes.
    fn takes_key(&mut self) -> bool {
        match self.open.last_mut() {
            Some((true, key)) => {
                *key = !*key;
                !*key
            }
            _ => false,
        }
    }

    fn refuse_extras(&self, anchor: usize, tagged: bool, span: Span, problems: &mut Problems) {
        if anchor > 0 {
            let problem = Problem::error("yaml_anchor", span, "anchors (`&name`) and aliases (`*name`) are not taken");
            problems.push(problem.hint("write the value out where it is needed; `vars` can hold what repeats"));
        }
        if tagged {
            let problem = Problem::error("yaml_tag", span, "tags (`!name`) are not taken");
            problems.push(problem.hint("take the tag away; text that looks like a number stands in quotes"));
        }
    }

    fn syntax(&self, error: &saphyr_parser::ScanError) -> Problem {
        let at = self.place(*error.marker());
        let rest = &self.text[floor(self.text, at - self.base)..];
        let width = rest.chars().next().map_or(0, char::len_utf8);
        // The parser has a limit of its own for brackets, which it reads ahead of its events.
        if error.info().contains("recursion limit") {
            let message = format!("more than {MAX_DEPTH} lists and maps stand in one another here");
            return Problem::error("too_deep", Span::new(at, at + width), message);
        }
        let problem =
            Problem::error("yaml_syntax", Span::new(at, at + width), format!("this is not YAML: {}", error.info()));
        let line_start = self.text[..self.text.len() - rest.len()].rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        if line.split_once("${{").is_some_and(|(before, _)| !before.contains(['"', '\''])) {
            return problem.hint("put the whole text that holds `${{` in quotes");
        }
        if rest.starts_with('\t') || error.info().contains("tab") {
            return problem.hint("indent with spaces, not with tabs");
        }
        match rest.chars().next() {
            Some('@' | '`' | '%') => problem.hint("text that begins with such a character stands in quotes"),
            Some(':') => problem.hint("text that holds `: ` stands in quotes"),
            _ => problem.hint("look at the indentation, at quotes and brackets that do not end, at the line before"),
        }
    }

    fn start(&mut self, is_map: bool, span: Span) -> Result<(Event<'s>, Span), Problem> {
        if self.takes_key() {
            let problem = Problem::error("yaml_key", span, "a list or a map cannot be a key here");
            return Err(problem.hint("text that begins with `[` or `{` stands in quotes"));
        }
        self.open.push((is_map, is_map));
        let start = span.start as usize;
        // A block's first event spans nothing, or its first key; one character is enough to point at.
        Ok((if is_map { Event::MapStart } else { Event::ListStart }, Span::new(start, start + 1)))
    }
}

impl<'s> Tokens<'s> for YamlTokens<'s> {
    fn next(&mut self, problems: &mut Problems) -> Result<(Event<'s>, Span), Problem> {
        loop {
            let (event, span) = match self.parser.next_event() {
                None => return Ok((Event::End, Span::new(self.base + self.text.len(), self.base + self.text.len()))),
                Some(Err(error)) => return Err(self.syntax(&error)),
                Some(Ok(event)) => event,
            };
            let span = self.span(span);
            match event {
                Yaml::Nothing | Yaml::StreamStart | Yaml::DocumentEnd => {}
                Yaml::StreamEnd => return Ok((Event::End, span)),
                Yaml::DocumentStart(_) => {
                    self.documents += 1;
                    if self.documents > 1 {
                        let problem = Problem::error("yaml_documents", span, "a second document begins here");
                        return Err(problem.hint("a plan is one document; put the other one into its own file"));
                    }
                }
                Yaml::Alias(_) => {
                    let is_key = self.takes_key();
                    self.refuse_extras(1, false, span, problems);
                    if is_key {
                        return Ok((Event::Key(Cow::Owned(format!("*alias at {}", span.start))), span));
                    }
                    return Ok((Event::Scalar(Scalar { text: Cow::Borrowed(""), kind: ScalarKind::Broken }), span));
                }
                Yaml::Scalar(text, style, anchor, tag) => {
                    self.refuse_extras(anchor, tag.is_some(), span, problems);
                    if self.takes_key() {
                        if style == ScalarStyle::Plain && text == "<<" {
                            let problem =
                                Problem::error("yaml_merge", span, "merge keys (`<<`) are not part of YAML 1.2");
                            return Err(problem.hint("write the fields out; `globals` holds what all steps share"));
                        }
                        return Ok((Event::Key(text), span));
                    }
                    let kind = if style == ScalarStyle::Plain { kind(&text) } else { ScalarKind::Text };
                    return Ok((Event::Scalar(Scalar { text, kind }), span));
                }
                Yaml::SequenceStart(anchor, tag) => {
                    self.refuse_extras(anchor, tag.is_some(), span, problems);
                    return self.start(false, span);
                }
                Yaml::MappingStart(anchor, tag) => {
                    self.refuse_extras(anchor, tag.is_some(), span, problems);
                    return self.start(true, span);
                }
                Yaml::SequenceEnd => {
                    self.open.pop();
                    return Ok((Event::ListEnd, span));
                }
                Yaml::MappingEnd => {
                    self.open.pop();
                    return Ok((Event::MapEnd, span));
                }
            }
        }
    }
}

/// What a plain scalar means in the core schema (YAML 1.2.2, 10.3.2).
fn kind(text: &str) -> ScalarKind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => ScalarKind::Bool,
        _ if is_number(text) => ScalarKind::Number,
        _ => ScalarKind::Text,
    }
}

fn is_number(text: &str) -> bool {
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

/// The number that a scalar of the kind [`ScalarKind::Number`] stands for, in either notation.
pub(crate) fn number(text: &str) -> f64 {
    let radix = |digits: &str, radix| u64::from_str_radix(digits, radix).map_or(f64::INFINITY, |number| number as f64);
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let unsigned = text.trim_start_matches(['-', '+']);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    if unsigned.eq_ignore_ascii_case(".inf") {
        return sign * f64::INFINITY;
    }
    sign * unsigned.parse::<f64>().unwrap_or(f64::NAN)
}

/// The same as JSON, whole numbers kept whole; `None`: JSON has no such number, or a whole one would become another.
pub(crate) fn json_number(text: &str) -> Option<serde_json::Number> {
    let radix = |digits: &str, radix| u64::from_str_radix(digits, radix).ok().map(Into::into);
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    if let Ok(whole) = text.trim_start_matches('+').parse::<i64>() {
        return Some(whole.into());
    }
    if let Ok(whole) = text.trim_start_matches('+').parse::<u64>() {
        return Some(whole.into());
    }
    let value = number(text);
    let is_changed = is_written_whole(text) && {
        let digits = text.trim_start_matches(['-', '+']).trim_start_matches('0');
        format!("{:.0}", value.abs()) != digits
    };
    if is_changed { None } else { serde_json::Number::from_f64(value) }
}

/// Whether a number is written with digits alone.
pub(crate) fn is_written_whole(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    text.starts_with("0x") || !digits.is_empty() && digits.trim_start_matches("0o").bytes().all(|b| b.is_ascii_digit())
}

/// A scalar that looks like what YAML 1.1 took for a boolean.
pub(crate) fn old_boolean(text: &str) -> Option<bool> {
    match shorten(text).to_ascii_lowercase().as_str() {
        "yes" | "on" | "y" => Some(true),
        "no" | "off" | "n" => Some(false),
        _ => None,
    }
}
