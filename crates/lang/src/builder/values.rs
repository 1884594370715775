//! The values of fields: each is read by what the table says that its field takes.

use baton_core::Millis;
use baton_core::graph::ExitCodes;

use super::{Builder, Raw};
use crate::duration;
use crate::events::{Event, ScalarKind};
use crate::fields::{self, Field, Kind, MAX_SECONDS};
use crate::problem::{Problem, did_you_mean, shorten};
use crate::yaml;

/// What was read for a field.
pub(super) enum Read<'s> {
    /// Null: as if the field were not there.
    Nothing,
    /// Something else than the field takes; that was reported.
    Bad,
    Raw(Raw<'s>),
    Raws(Vec<Raw<'s>>),
    Pairs(Vec<(Raw<'s>, Raw<'s>)>),
    Bool(bool),
    Millis(Millis),
    Count(u32),
    Permille(u16),
    Number(f64),
    Word(usize),
    Codes(ExitCodes),
}

impl<'s> Builder<'s, '_> {
    /// The value of a field that is no map of fields.
    pub(super) fn value(&mut self, field: &'static Field) -> Read<'s> {
        match field.kind {
            Kind::Texts | Kind::Words | Kind::StepRefs | Kind::Codes => self.list(field),
            Kind::Environment | Kind::Variables | Kind::Labels => self.map(field),
            _ => self.scalar(field),
        }
    }

    fn scalar(&mut self, field: &'static Field) -> Read<'s> {
        let (event, span) = self.events.next();
        let wanted = || fields::wanted(field.kind);
        let Event::Scalar(scalar) = event else {
            self.wrong_type(field.key, &wanted(), &event, span);
            self.events.skip_rest(&event);
            return Read::Bad;
        };
        let kind = scalar.kind;
        if kind == ScalarKind::Null {
            if field.required {
                self.wrong_type(field.key, &wanted(), &Event::Scalar(scalar), span);
            }
            return Read::Nothing;
        }
        let range = |this: &mut Self, text: &str| {
            let message = format!("`{}` takes {}, and this is {}", field.key, wanted(), shorten(text));
            let is_duration = matches!(field.kind, Kind::Seconds | Kind::Timeout | Kind::Duration);
            let is_too_long = duration::parse(text).map_or(yaml::number(text) > 0.0, |duration| duration.0 > 0);
            let limit = format!("the longest is ten years, which are {MAX_SECONDS} seconds");
            let hint = (is_duration && is_too_long).then_some(limit);
            this.problem(Problem::error("out_of_range", span, message).maybe_hint(hint));
            Read::Bad
        };
        let number = || yaml::number(&scalar.text);
        match (field.kind, kind) {
            (Kind::PlanId | Kind::StepId | Kind::StepRef | Kind::Text, ScalarKind::Text)
            | (Kind::Word, ScalarKind::Text | ScalarKind::Number | ScalarKind::Bool)
            | (Kind::Expression, ScalarKind::Text | ScalarKind::Bool) => {
                if field.kind == Kind::Expression && scalar.text.trim_start().starts_with("${{") {
                    let message = format!("`{}` is an expression already", field.key);
                    let problem = Problem::error("bad_expression", span, message);
                    self.problem(problem.hint("take `${{` and `}}` away"));
                    return Read::Bad;
                }
                Read::Raw((scalar.text, span))
            }
            (Kind::Bool, ScalarKind::Bool) => Read::Bool(scalar.text.starts_with(['t', 'T'])),
            (Kind::Seconds | Kind::Timeout | Kind::Duration, ScalarKind::Number) => {
                let seconds = number();
                let takes_zero = field.kind == Kind::Seconds;
                let least_met = if takes_zero { seconds >= 0.0 } else { seconds > 0.0 };
                if !least_met || seconds > MAX_SECONDS {
                    return range(self, &scalar.text);
                }
                Read::Millis(Millis(((seconds * 1000.0).round() as u64).max(u64::from(!takes_zero))))
            }
            (Kind::Duration, ScalarKind::Text) => match duration::parse(&scalar.text) {
                Some(duration) if duration.0 > 0 && duration.0 as f64 <= MAX_SECONDS * 1000.0 => Read::Millis(duration),
                Some(_) => range(self, &scalar.text),
                None => {
                    let message = format!(
                        "`{}` takes {}, and this is the text \"{}\"",
                        field.key,
                        wanted(),
                        shorten(&scalar.text)
                    );
                    let hint = match scalar.text.trim().parse::<f64>() {
                        Ok(_) => format!("without quotes it is seconds: {}", scalar.text.trim()),
                        Err(_) => "whole numbers with the units d, h, m and s, each once and in this order".into(),
                    };
                    self.problem(Problem::error("wrong_type", span, message).hint(hint));
                    Read::Bad
                }
            },
            (Kind::Count(from, to), ScalarKind::Number) => {
                let count = number();
                if count.fract() != 0.0 || count < f64::from(from) || count > f64::from(to) || count.is_nan() {
                    return range(self, &scalar.text);
                }
                Read::Count(count as u32)
            }
            (Kind::Fraction, ScalarKind::Number) => {
                let part = number();
                if (0.0..=1.0).contains(&part) {
                    Read::Permille((part * 1000.0).round() as u16)
                } else {
                    range(self, &scalar.text)
                }
            }
            (Kind::Weight, ScalarKind::Number) => {
                let weight = number();
                if weight.is_finite() && weight >= 0.0 { Read::Number(weight) } else { range(self, &scalar.text) }
            }
            (Kind::Choice(words), ScalarKind::Text) => match words.iter().position(|word| *word == scalar.text) {
                Some(at) => Read::Word(at),
                None => {
                    let hint = did_you_mean(&scalar.text, words.iter().copied())
                        .unwrap_or_else(|| format!("it is one of {}", words.join(", ")));
                    let message = format!("`{}` cannot be `{}`", field.key, shorten(&scalar.text));
                    self.problem(Problem::error("bad_choice", span, message).hint(hint));
                    Read::Bad
                }
            },
            _ => {
                self.wrong_type(field.key, &wanted(), &Event::Scalar(scalar), span);
                Read::Bad
            }
        }
    }

    fn list(&mut self, field: &'static Field) -> Read<'s> {
        let (event, span) = self.events.next();
        match event {
            Event::ListStart => {}
            Event::Scalar(ref scalar) if scalar.kind == ScalarKind::Null => return Read::Nothing,
            other => {
                self.wrong_type(field.key, &fields::wanted(field.kind), &other, span);
                self.events.skip_rest(&other);
                return Read::Bad;
            }
        }
        let mut raws = Vec::new();
        let mut codes = Vec::new();
        let mut fine = true;
        loop {
            let (event, span) = self.events.next();
            match event {
                Event::ListEnd | Event::End => break,
                Event::Scalar(scalar)
                    if scalar.kind == ScalarKind::Text && field.kind != Kind::Codes
                        || field.kind == Kind::Words
                            && matches!(scalar.kind, ScalarKind::Number | ScalarKind::Bool) =>
                {
                    raws.push((scalar.text, span));
                }
                Event::Scalar(scalar) if field.kind == Kind::Codes && scalar.kind == ScalarKind::Number => {
                    let code = yaml::number(&scalar.text);
                    if code.fract() == 0.0 && (0.0..=255.0).contains(&code) {
                        codes.push(code as u8);
                    } else {
                        fine = false;
                        let message = format!("`{}` is no exit code", shorten(&scalar.text));
                        let problem = Problem::error("out_of_range", span, message);
                        self.problem(problem.hint("exit codes go from 0 to 255"));
                    }
                }
                other => {
                    fine = false;
                    let wanted = match field.kind {
                        Kind::Codes => "numbers from 0 to 255",
                        Kind::StepRefs => "step ids",
                        _ => "texts",
                    };
                    self.wrong_type(field.key, wanted, &other, span);
                    self.events.skip_rest(&other);
                }
            }
        }
        if field.kind != Kind::Codes {
            return Read::Raws(raws);
        }
        if codes.is_empty() {
            if fine {
                let message = format!("`{}` is empty, so the step could never succeed", field.key);
                self.problem(Problem::error("out_of_range", span, message).hint("it is [0] when it is left out"));
            }
            return Read::Bad;
        }
        Read::Codes(codes.into_iter().collect())
    }

    fn map(&mut self, field: &'static Field) -> Read<'s> {
        if !self.map_start(field) {
            return Read::Nothing;
        }
        let mut pairs = Vec::new();
        loop {
            let (event, span) = self.events.next();
            let key = match event {
                Event::Key(key) => (key, span),
                Event::MapEnd | Event::End => return Read::Pairs(pairs),
                _ => continue,
            };
            let (event, span) = self.events.next();
            match event {
                Event::Scalar(scalar)
                    if matches!(scalar.kind, ScalarKind::Text | ScalarKind::Number | ScalarKind::Bool) =>
                {
                    pairs.push((key, (scalar.text, span)));
                }
                other => {
                    let name = format!("{}.{}", field.key, shorten(&key.0));
                    self.wrong_type(&name, "text", &other, span);
                    self.events.skip_rest(&other);
                }
            }
        }
    }
}
