//! The text of a plan: its name, its format, and how bytes become lines and columns.

use std::path::Path;

use thiserror::Error;

/// The largest plan that is read, in bytes.
pub const MAX_PLAN_BYTES: usize = 256 << 20;

/// The notation a text is written in; both mean the same tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// JSON (RFC 8259).
    Json,
    /// YAML 1.2, core schema.
    Yaml,
}

/// A text to be read as a plan.
#[derive(Clone, Debug)]
pub struct Source {
    /// What people call it: a path, or `-` for standard input.
    pub name: String,
    /// The text.
    pub text: String,
    /// Its notation.
    pub format: Format,
}

/// Why bytes cannot be a plan's text at all.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The bytes are not UTF-8.
    #[error("{name}:{line}: not UTF-8 text (byte {byte}); save the file as UTF-8")]
    NotUtf8 {
        /// What was read.
        name: String,
        /// The line with the first bad byte, from 1.
        line: usize,
        /// The place of the first bad byte, from 0.
        byte: usize,
    },
    /// The text is too long.
    #[error("{name}: {bytes} bytes are more than a plan may have ({MAX_PLAN_BYTES})")]
    TooLong {
        /// What was read.
        name: String,
        /// Its size.
        bytes: usize,
    },
}

impl Format {
    /// The notation by the name's extension; without one that is known, by the first character that is not blank.
    pub fn detect(name: &str, text: &str) -> Self {
        match Path::new(name).extension().and_then(|extension| extension.to_str()) {
            Some(extension) if extension.eq_ignore_ascii_case("json") => Format::Json,
            Some(extension) if extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml") => {
                Format::Yaml
            }
            _ if text.trim_start_matches('\u{feff}').trim_start().starts_with('{') => Format::Json,
            _ => Format::Yaml,
        }
    }
}

impl Source {
    /// A text whose notation its name or its first character tells.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let (name, text) = (name.into(), text.into());
        let format = Format::detect(&name, &text);
        Self { name, text, format }
    }

    /// The same from bytes that somebody else read.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, SourceError> {
        if bytes.len() > MAX_PLAN_BYTES {
            return Err(SourceError::TooLong { name: name.into(), bytes: bytes.len() });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(name, text)),
            Err(error) => {
                let byte = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..byte].iter().filter(|byte| **byte == b'\n').count();
                Err(SourceError::NotUtf8 { name: name.into(), line, byte })
            }
        }
    }

    /// The line and column of a byte.
    pub fn position(&self, byte: u32) -> Position {
        let at = floor(&self.text, byte as usize);
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: 1 + before.as_bytes().iter().filter(|byte| **byte == b'\n').count(),
            column: 1 + before[line_start..].trim_start_matches('\u{feff}').chars().count(),
        }
    }

    /// The text in a span.
    pub(crate) fn slice(&self, span: Span) -> &str {
        let start = floor(&self.text, span.start as usize);
        let end = floor(&self.text, span.end as usize).max(start);
        &self.text[start..end]
    }
}

/// The nearest place at or before `at` where a character begins.
pub(crate) fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A stretch of bytes of a text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    /// From `start` up to `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: u32::try_from(start).unwrap_or(u32::MAX), end: u32::try_from(end).unwrap_or(u32::MAX) }
    }
}

/// A place as people count it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// The part `range` of a scalar's `value`, as a span of the source. Where escapes, folding or indentation keep the two
/// apart, it is the first place in the scalar that reads the same, or else the whole scalar.
pub(crate) fn inside(source: &Source, scalar: Span, value: &str, range: std::ops::Range<usize>) -> Span {
    let raw = source.slice(scalar);
    let offset = if raw == value {
        0
    } else if raw.len() >= 2 && raw.get(1..raw.len() - 1) == Some(value) {
        1
    } else {
        let wanted = value.get(range).unwrap_or_default().trim_end();
        let found = if wanted.is_empty() { None } else { raw.find(wanted) };
        return found.map_or(scalar, |at| {
            let start = scalar.start as usize + at;
            Span::new(start, start + wanted.len())
        });
    };
    let start = scalar.start as usize + offset;
    Span::new(start + range.start.min(value.len()), start + range.end.min(value.len()))
}
