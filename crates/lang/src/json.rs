//! A strict JSON reader that gives events with places and keeps no tree.

use std::borrow::Cow;

use crate::events::{Event, Scalar, ScalarKind, Tokens};
use crate::problem::{Problem, Problems};
use crate::source::Span;

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    /// A value.
    Value,
    /// A value or the end of a list that is still empty.
    FirstItem,
    /// A key or the end of a map that is still empty.
    FirstKey,
    /// A key, after a comma.
    Key,
    /// A comma or the end of the list or map.
    CommaOrEnd,
    /// Nothing but blanks.
    Nothing,
}

/// Reads JSON token by token.
pub(crate) struct JsonTokens<'s> {
    text: &'s str,
    at: usize,
    /// Whether each open bracket is a map's. The reader of the events bounds its length.
    open: Vec<bool>,
    expect: Expect,
}

impl<'s> JsonTokens<'s> {
    pub(crate) fn new(text: &'s str) -> Self {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, at, open: Vec::new(), expect: Expect::Value }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn error(&self, at: usize, message: impl Into<String>) -> Problem {
        let width = self.text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        Problem::error("json_syntax", Span::new(at, at + width), message)
    }

    /// The problem of meeting what stands here instead of `wanted`.
    fn unexpected(&self, wanted: &str) -> Problem {
        let Some(found) = self.text[self.at..].chars().next() else {
            let message = format!("the text ends where {wanted} should be");
            return self.error(self.at, message).hint("is a closing bracket missing, or was the file cut off?");
        };
        let problem = self.error(self.at, format!("found `{found}` where {wanted} should be"));
        match found {
            '/' | '#' => problem.hint("JSON has no comments; take it out, or write the plan as YAML"),
            '\'' => problem.hint("JSON text stands in double quotes"),
            '}' | ']' if self.expect == Expect::Key || self.expect == Expect::Value => {
                problem.hint("take out the comma before it")
            }
            _ => problem,
        }
    }

    fn close(&mut self) -> (Event<'s>, Span) {
        let span = Span::new(self.at, self.at + 1);
        self.at += 1;
        let is_map = self.open.pop().unwrap_or(false);
        self.value_done();
        (if is_map { Event::MapEnd } else { Event::ListEnd }, span)
    }

    fn value_done(&mut self) {
        self.expect = if self.open.is_empty() { Expect::Nothing } else { Expect::CommaOrEnd };
    }

    fn value(&mut self) -> Result<(Event<'s>, Span), Problem> {
        let start = self.at;
        let scalar = |kind, text: Cow<'s, str>| Event::Scalar(Scalar { text, kind });
        let event = match self.byte() {
            Some(bracket @ (b'{' | b'[')) => {
                self.at += 1;
                self.open.push(bracket == b'{');
                self.expect = if bracket == b'{' { Expect::FirstKey } else { Expect::FirstItem };
                let event = if bracket == b'{' { Event::MapStart } else { Event::ListStart };
                return Ok((event, Span::new(start, self.at)));
            }
            Some(b'"') => scalar(ScalarKind::Text, self.string()?),
            Some(b'-' | b'0'..=b'9') => scalar(ScalarKind::Number, Cow::Borrowed(self.number()?)),
            Some(b'a'..=b'z' | b'A'..=b'Z' | b'_') => {
                while matches!(self.byte(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'0'..=b'9')) {
                    self.at += 1;
                }
                let word = &self.text[start..self.at];
                let kind = match word {
                    "true" | "false" => ScalarKind::Bool,
                    "null" => ScalarKind::Null,
                    _ => {
                        let shown = crate::problem::shorten(word);
                        let message = format!("`{shown}` is no JSON value");
                        let hint = match word.to_ascii_lowercase().as_str() {
                            "true" => "write `true`".to_owned(),
                            "false" => "write `false`".to_owned(),
                            "none" | "nil" | "null" | "undefined" => "write `null`".to_owned(),
                            _ => format!("text stands in double quotes: \"{shown}\""),
                        };
                        return Err(Problem::error("json_syntax", Span::new(start, self.at), message).hint(hint));
                    }
                };
                scalar(kind, Cow::Borrowed(word))
            }
            _ => return Err(self.unexpected("a value")),
        };
        self.value_done();
        Ok((event, Span::new(start, self.at)))
    }

    fn number(&mut self) -> Result<&'s str, Problem> {
        let start = self.at;
        let digits = |reader: &mut Self| {
            let from = reader.at;
            while matches!(reader.byte(), Some(b'0'..=b'9')) {
                reader.at += 1;
            }
            reader.at > from
        };
        let bad = |reader: &Self| {
            let end = reader.at + usize::from(reader.byte().is_some_and(|byte| byte.is_ascii_graphic()));
            let shown = crate::problem::shorten(&reader.text[start..end]);
            let message = format!("`{shown}` is no JSON number");
            Problem::error("json_syntax", Span::new(start, end), message)
        };
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
            if matches!(self.byte(), Some(b'0'..=b'9')) {
                return Err(bad(self).hint("a number does not begin with 0"));
            }
        } else if !digits(self) {
            return Err(bad(self));
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            if !digits(self) {
                return Err(bad(self).hint("digits follow the point"));
            }
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !digits(self) {
                return Err(bad(self).hint("digits follow the exponent"));
            }
        }
        Ok(&self.text[start..self.at])
    }

    /// A string, whose opening quote stands here.
    fn string(&mut self) -> Result<Cow<'s, str>, Problem> {
        let start = self.at;
        self.at += 1;
        let mut from = self.at;
        let mut built: Option<String> = None;
        loop {
            match self.byte() {
                Some(b'"') => {
                    let last = &self.text[from..self.at];
                    self.at += 1;
                    return Ok(match built {
                        None => Cow::Borrowed(last),
                        Some(mut text) => {
                            text.push_str(last);
                            Cow::Owned(text)
                        }
                    });
                }
                Some(b'\\') => {
                    let text = built.get_or_insert_with(String::new);
                    text.push_str(&self.text[from..self.at]);
                    let character = self.escape()?;
                    built.get_or_insert_with(String::new).push(character);
                    from = self.at;
                }
                Some(b'\n' | b'\r') => {
                    let problem = Problem::error("json_syntax", Span::new(start, self.at), "this text has no end");
                    return Err(problem.hint("a closing `\"` is missing; a line break inside is written \\n"));
                }
                Some(control @ 0..0x20) => {
                    let message = format!("a control character (0x{control:02x}) stands bare in a text");
                    return Err(self.error(self.at, message).hint(format!("write \\u{control:04x}")));
                }
                Some(_) => self.at += 1,
                None => {
                    let problem = Problem::error("json_syntax", Span::new(start, self.at), "this text has no end");
                    return Err(problem.hint("a closing `\"` is missing"));
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Problem> {
        let start = self.at;
        self.at += 2;
        let character = match self.text.as_bytes().get(start + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(start),
            _ => {
                let problem = self.error(start, "`\\` begins an escape that JSON does not have");
                return Err(problem.hint("a backslash itself is written \\\\"));
            }
        };
        Ok(character)
    }

    /// `\uXXXX`, or two of them for a character beyond the first 65,536.
    fn unicode(&mut self, start: usize) -> Result<char, Problem> {
        let lone = |reader: &Self| {
            let span = Span::new(start, reader.at.min(reader.text.len()));
            Problem::error("json_syntax", span, "this is half of a surrogate pair, and no character")
        };
        let first = self.four_digits(start)?;
        if !(0xd800..0xe000).contains(&first) {
            return char::from_u32(first).ok_or_else(|| lone(self));
        }
        if first >= 0xdc00 || !self.text[self.at..].starts_with("\\u") {
            return Err(lone(self));
        }
        self.at += 2;
        let second = self.four_digits(start)?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(lone(self));
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or_else(|| lone(self))
    }

    fn four_digits(&mut self, start: usize) -> Result<u32, Problem> {
        let digits = self.text.get(self.at..self.at + 4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(code) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
            return Err(self.error(start, "four hexadecimal digits follow \\u"));
        };
        self.at += 4;
        Ok(code)
    }
}

impl<'s> Tokens<'s> for JsonTokens<'s> {
    fn next(&mut self, _: &mut Problems) -> Result<(Event<'s>, Span), Problem> {
        loop {
            self.skip_blanks();
            let closes = match self.open.last() {
                Some(true) => self.byte() == Some(b'}'),
                Some(false) => self.byte() == Some(b']'),
                None => false,
            };
            match self.expect {
                Expect::Value => return self.value(),
                Expect::FirstItem if closes => return Ok(self.close()),
                Expect::FirstItem => return self.value(),
                Expect::FirstKey if closes => return Ok(self.close()),
                Expect::FirstKey | Expect::Key => {
                    let start = self.at;
                    if self.byte() != Some(b'"') {
                        return Err(self.unexpected("a key in double quotes"));
                    }
                    let key = self.string()?;
                    let span = Span::new(start, self.at);
                    self.skip_blanks();
                    if self.byte() != Some(b':') {
                        return Err(self.unexpected("`:`"));
                    }
                    self.at += 1;
                    self.expect = Expect::Value;
                    return Ok((Event::Key(key), span));
                }
                Expect::CommaOrEnd if closes => return Ok(self.close()),
                Expect::CommaOrEnd => {
                    let is_map = self.open.last() == Some(&true);
                    if self.byte() != Some(b',') {
                        return Err(self.unexpected(if is_map { "`,` or `}`" } else { "`,` or `]`" }));
                    }
                    self.at += 1;
                    self.expect = if is_map { Expect::Key } else { Expect::Value };
                }
                Expect::Nothing if self.byte().is_none() => {
                    return Ok((Event::End, Span::new(self.at, self.at)));
                }
                Expect::Nothing => return Err(self.unexpected("the end of the text")),
            }
        }
    }
}
