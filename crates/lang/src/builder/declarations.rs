//! What a plan is given and what it comes to: its inputs and outputs, and the outputs that steps declare.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Builder;
use crate::events::Event;
use crate::fields::{Field, Name};
use crate::plan::{IN_OUTPUTS, NO_STEP, Node};
use crate::problem::{Problem, shorten};
use crate::schema::read::Declared;
use crate::source::Span;
use crate::strings::Sym;
use crate::template::is_variable_name;
use crate::tree::{Path, Tree};

impl<'s> Builder<'s, '_> {
    /// A map of names to schemas.
    pub(super) fn declared(&mut self, field: &'static Field) -> BTreeMap<Sym, Declared> {
        let noun = if field.name == Name::Inputs { "an input" } else { "an output" };
        let mut out = BTreeMap::new();
        let section = Path::new(field.key);
        self.entries(field, noun, |this, key, span| {
            if let Some(tree) = Tree::literal(&mut this.events) {
                let room = this.events.problems.room();
                let (mut declared, problems) = this.schemas.declared(&tree, &section.name(&key), span, room);
                declared.is_sound &= is_variable_name(&key);
                problems.into_iter().for_each(|problem| this.problem(problem));
                out.insert(this.data.strings.add(&key), declared);
            }
        });
        out
    }

    /// The outputs of the plan.
    pub(super) fn plan_outputs(&mut self, field: &'static Field) -> Vec<(Sym, Node)> {
        let mut out = Vec::new();
        self.step = IN_OUTPUTS;
        self.entries(field, "an output", |this, key, _| {
            if let Some(node) = this.node(true) {
                out.push((this.data.strings.add(&key), node));
            }
        });
        self.step = NO_STEP;
        out
    }

    /// Goes through a map whose keys are names; what follows each key is for `each` to take.
    fn entries(&mut self, field: &'static Field, noun: &str, mut each: impl FnMut(&mut Self, Cow<'s, str>, Span)) {
        if !self.map_start(field) {
            return;
        }
        loop {
            let (event, span) = self.events.next();
            match event {
                Event::Key(key) => {
                    if !is_variable_name(&key) {
                        let message = format!("`{}` cannot be the name of {noun}", shorten(&key));
                        let hint = "a letter or `_`, then letters, digits and `_`";
                        self.problem(Problem::error("bad_name", span, message).hint(hint));
                    }
                    each(self, key, span);
                }
                Event::MapEnd | Event::End => return,
                _ => {}
            }
        }
    }
}
