//! A plan's text as a flat series of events with places, the same for JSON and YAML.
//!
//! The notation is checked here, once and for both: nesting, duplicate keys, where a text ends. After an error
//! that hides the rest of the text the series ends, and whoever reads it sees [`Event::End`] from then on.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::hash::Hasher;
use crate::json::JsonTokens;
use crate::problem::{Problem, Problems};
use crate::source::{Format, Source, Span};
use crate::yaml::YamlTokens;

/// How deep maps and lists may stand in one another.
pub const MAX_DEPTH: usize = 64;
/// Maps with more keys than this look for duplicates by hash, not one by one.
const FEW_KEYS: usize = 16;

/// What comes next in the text.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event<'s> {
    MapStart,
    MapEnd,
    ListStart,
    ListEnd,
    Key(Cow<'s, str>),
    Scalar(Scalar<'s>),
    End,
}

/// A single value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Scalar<'s> {
    /// As it is written, without quotes and escapes.
    pub(crate) text: Cow<'s, str>,
    pub(crate) kind: ScalarKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ScalarKind {
    Null,
    Bool,
    Number,
    Text,
    /// Something that was already reported; whatever it was meant to be is not known.
    Broken,
}

/// What a notation's reader gives. It does not check keys; `Err` ends the text.
pub(crate) trait Tokens<'s> {
    fn next(&mut self, problems: &mut Problems) -> Result<(Event<'s>, Span), Problem>;
}

/// The events of one text.
pub(crate) struct Events<'s> {
    tokens: Box<dyn Tokens<'s> + 's>,
    pub(crate) problems: Problems,
    peeked: Option<(Event<'s>, Span)>,
    keys: Keys,
    /// Whether the text could not be read to its end.
    pub(crate) broken: bool,
    /// Where what was read last begins.
    last: u32,
    /// From there to the place where the text stops being YAML.
    pub(crate) doubtful: Option<Span>,
    finished: bool,
}

impl<'s> Events<'s> {
    pub(crate) fn new(source: &'s Source) -> Self {
        let tokens: Box<dyn Tokens<'s> + 's> = match source.format {
            Format::Json => Box::new(JsonTokens::new(&source.text)),
            Format::Yaml => Box::new(YamlTokens::new(&source.text)),
        };
        Self {
            tokens,
            problems: Problems::default(),
            peeked: None,
            keys: Keys::default(),
            broken: false,
            last: 0,
            doubtful: None,
            finished: false,
        }
    }

    pub(crate) fn peek(&mut self) -> &(Event<'s>, Span) {
        if self.peeked.is_none() {
            self.peeked = Some(self.read());
        }
        self.peeked.as_ref().unwrap_or(&(Event::End, Span { start: 0, end: 0 }))
    }

    pub(crate) fn next(&mut self) -> (Event<'s>, Span) {
        match self.peeked.take() {
            Some(event) => event,
            None => self.read(),
        }
    }

    fn read(&mut self) -> (Event<'s>, Span) {
        if self.finished {
            return (Event::End, Span::default());
        }
        let (event, span) = match self.tokens.next(&mut self.problems) {
            Ok(event) => event,
            Err(problem) => {
                self.broken = true;
                if problem.code == "yaml_syntax" {
                    self.doubtful = problem.span.map(|span| Span { start: self.last, end: span.start });
                }
                return self.finish(problem);
            }
        };
        self.last = span.start;
        match &event {
            Event::MapStart | Event::ListStart => {
                if self.keys.depth() == MAX_DEPTH {
                    self.broken = true;
                    let message = format!("more than {MAX_DEPTH} lists and maps stand in one another here");
                    return self.finish(
                        Problem::error("too_deep", span, message).hint("no plan needs that; the rest was not read"),
                    );
                }
                self.keys.open();
            }
            Event::MapEnd | Event::ListEnd => self.keys.close(),
            Event::Key(key) => {
                if let Some(first) = self.keys.add(key, span) {
                    let message = format!("`{}` is given twice", crate::problem::shorten(key));
                    let problem = Problem::error("duplicate_key", span, message)
                        .hint("keep one of them")
                        .also(first, "first given here");
                    self.problems.push(problem);
                }
            }
            Event::Scalar(_) => {}
            Event::End => self.finished = true,
        }
        (event, span)
    }

    fn finish(&mut self, problem: Problem) -> (Event<'s>, Span) {
        self.finished = true;
        self.problems.push(problem);
        (Event::End, Span::default())
    }

    /// Passes over the next value, whatever it is. Its notation is still checked.
    pub(crate) fn skip(&mut self) {
        let mut depth = 0usize;
        loop {
            match self.next().0 {
                Event::MapStart | Event::ListStart => depth += 1,
                Event::MapEnd | Event::ListEnd => depth = depth.saturating_sub(1),
                Event::Key(_) => continue,
                Event::Scalar(_) => {}
                Event::End => return,
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Passes over the rest of a value whose start was already taken.
    pub(crate) fn skip_rest(&mut self, start: &Event<'s>) {
        if matches!(start, Event::MapStart | Event::ListStart) {
            loop {
                match self.peek().0 {
                    Event::MapEnd | Event::ListEnd => {
                        self.next();
                        return;
                    }
                    Event::End => return,
                    Event::Key(_) => {
                        self.next();
                    }
                    _ => self.skip(),
                }
            }
        }
    }
}

/// The keys of every open map, by hash.
#[derive(Default)]
struct Keys {
    hasher: Hasher,
    seen: Vec<(u64, Span)>,
    starts: Vec<usize>,
    /// Hashes of the open maps that have many keys, with the depth they belong to.
    many: Vec<(usize, HashSet<u64>)>,
}

impl Keys {
    fn depth(&self) -> usize {
        self.starts.len()
    }

    fn open(&mut self) {
        self.starts.push(self.seen.len());
    }

    fn close(&mut self) {
        if self.many.last().is_some_and(|(depth, _)| *depth == self.starts.len()) {
            self.many.pop();
        }
        if let Some(start) = self.starts.pop() {
            self.seen.truncate(start);
        }
    }

    /// Where the key was given before in this map, if it was.
    fn add(&mut self, key: &str, span: Span) -> Option<Span> {
        let hash = self.hasher.hash(key);
        let start = self.starts.last().copied().unwrap_or(0);
        let depth = self.starts.len();
        let known = self.seen.len() - start;
        if known >= FEW_KEYS && self.many.last().is_none_or(|(owner, _)| *owner != depth) {
            self.many.push((depth, self.seen[start..].iter().map(|(hash, _)| *hash).collect()));
        }
        let is_new = match self.many.last_mut() {
            Some((owner, hashes)) if *owner == depth => hashes.insert(hash),
            _ => self.seen[start..].iter().all(|(other, _)| *other != hash),
        };
        if !is_new {
            return self.seen[start..].iter().find(|(other, _)| *other == hash).map(|(_, span)| *span);
        }
        self.seen.push((hash, span));
        None
    }
}
