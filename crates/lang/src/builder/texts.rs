//! Texts of a plan: what stands in `${…}` is taken out of them, and nothing is kept twice.

use super::{Builder, Raw};
use crate::events::{Event, ScalarKind};
use crate::expr;
use crate::plan::{ExpressionEntry, KEPT_EXPRESSIONS, Node, NodeKind, Occurrence, Part, Template, Text, What};
use crate::problem::{Problem, shorten};
use crate::source::{Span, inside};
use crate::strings::Sym;
use crate::template::{self, Piece};
use crate::tree::{no_json_number, no_null_character};
use crate::yaml;

impl<'s> Builder<'s, '_> {
    pub(super) fn locks(&mut self, raws: Vec<Raw<'s>>) -> Vec<Text> {
        for (name, span) in &raws {
            if name.trim().is_empty() {
                self.problem(Problem::error("bad_name", *span, "a lock needs a name"));
            }
        }
        raws.iter().map(|raw| self.text(raw, false)).collect()
    }

    pub(super) fn texts(&mut self, raws: &[Raw<'s>]) -> Box<[Text]> {
        raws.iter().map(|raw| self.text(raw, false)).collect()
    }

    pub(super) fn pairs(&mut self, pairs: Vec<(Raw<'s>, Raw<'s>)>, expressions: bool) -> Vec<(Sym, Text)> {
        let pairs = pairs.into_iter().map(|(name, value)| {
            let value = self.text(&value, expressions);
            (self.data.strings.add(&name.0), value)
        });
        pairs.collect()
    }

    pub(super) fn environment(&mut self, pairs: Vec<(Raw<'s>, Raw<'s>)>) -> Vec<(Sym, Text)> {
        for ((name, span), _) in &pairs {
            if name.is_empty() || name.contains(['=', '\0']) {
                let message = format!("`{}` cannot be the name of an environment variable", shorten(name));
                self.problem(Problem::error("bad_name", *span, message));
            }
        }
        self.pairs(pairs, true)
    }

    /// A text of the plan, taken apart where it holds `${`.
    pub(super) fn text(&mut self, (text, span): &Raw<'s>, expressions: bool) -> Text {
        if text.contains('\0') {
            self.problem(no_null_character(*span));
        }
        let sym = self.data.strings.add(text);
        if !template::is_template(text) {
            return Text::plain(sym);
        }
        let number = match self.template_of.get(&sym) {
            Some(number) => *number,
            None => {
                let template = self.template(text, *span);
                let number = self.data.templates.len() as u32;
                self.data.templates.push(template);
                self.template_of.insert(sym, number);
                number
            }
        };
        if self.data.templates[number as usize].dynamic && !expressions {
            let message = "an expression cannot stand here: this text is settled before the run starts";
            let hint = "expressions stand in `command`, `args`, `cwd`, `env` and `with`, and in the plan's `outputs`";
            self.problem(Problem::error("expression_not_here", *span, message).hint(hint));
        }
        self.data.occurrences.push(Occurrence { what: What::Template(number), step: self.step, span: *span });
        Text::template(number)
    }

    fn template(&mut self, text: &str, span: Span) -> Template {
        let (pieces, faults) = template::split(text);
        for fault in faults {
            let place = inside(self.source, span, text, fault.range);
            self.problem(Problem::error(fault.code, place, fault.message).hint(fault.hint));
        }
        let mut parts = Vec::with_capacity(pieces.len());
        let mut dynamic = false;
        for piece in pieces {
            parts.push(match piece {
                Piece::Text(text) => Part::Text(self.data.strings.add(text)),
                Piece::Variable { name, default } => Part::Variable {
                    name: self.data.strings.add(name),
                    default: default.map(|default| self.data.strings.add(default)),
                },
                Piece::Expression { text: inner, at } => {
                    dynamic = true;
                    let place = inside(self.source, span, text, at);
                    match self.expression(inner, place, span) {
                        Some(number) => Part::Expression(number),
                        None => continue,
                    }
                }
            });
        }
        Template { parts: parts.into(), dynamic }
    }

    /// An expression by its number; `None`: something is wrong with it, and that was reported.
    pub(super) fn expression(&mut self, text: &str, span: Span, scalar: Span) -> Option<u32> {
        let sym = self.data.strings.add(text);
        if let Some(known) = self.expression_of.get(&sym) {
            return *known;
        }
        let number = match expr::parse(text) {
            Ok(parsed) => {
                let keep = self.data.expressions.len() < KEPT_EXPRESSIONS;
                let parsed = if keep { parsed } else { parsed.without_tree() };
                self.data.expressions.push(ExpressionEntry { text: sym, parsed });
                Some(self.data.expressions.len() as u32 - 1)
            }
            Err(faults) => {
                for fault in faults {
                    let place = if span == scalar || self.source.slice(span) == text {
                        inside(self.source, span, text, fault.range)
                    } else {
                        scalar
                    };
                    self.problem(Problem::error(fault.code, place, fault.message).maybe_hint(fault.hint));
                }
                None
            }
        };
        self.expression_of.insert(sym, number);
        number
    }

    /// Any value, with its texts taken apart. Its depth is bounded by the reader of the events.
    pub(super) fn node(&mut self, expressions: bool) -> Option<Node> {
        let (event, span) = self.events.next();
        let kind = match event {
            Event::Scalar(scalar) => match scalar.kind {
                ScalarKind::Null => NodeKind::Null,
                ScalarKind::Broken => NodeKind::Broken,
                ScalarKind::Bool => NodeKind::Bool(scalar.text.starts_with(['t', 'T'])),
                ScalarKind::Number => match yaml::json_number(&scalar.text) {
                    Some(number) => NodeKind::Number(number),
                    None => {
                        self.problem(no_json_number(&scalar.text, span));
                        NodeKind::Broken
                    }
                },
                ScalarKind::Text => NodeKind::Text(self.text(&(scalar.text, span), expressions)),
            },
            Event::ListStart => {
                let mut items = Vec::new();
                while !matches!(self.events.peek().0, Event::ListEnd | Event::End) {
                    items.extend(self.node(expressions));
                }
                self.events.next();
                NodeKind::List(items)
            }
            Event::MapStart => {
                let mut entries = Vec::new();
                loop {
                    let (event, key_span) = self.events.next();
                    match event {
                        Event::Key(key) => {
                            let key = self.data.strings.add(&key);
                            if let Some(node) = self.node(expressions) {
                                entries.push((key, key_span, node));
                            }
                        }
                        Event::MapEnd | Event::End => break,
                        _ => {}
                    }
                }
                NodeKind::Map(entries)
            }
            Event::MapEnd | Event::ListEnd | Event::Key(_) | Event::End => return None,
        };
        Some(Node { span, kind })
    }
}
