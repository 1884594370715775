//! What a plan comes to, and what its steps set: computed, checked against what is declared.

use baton_core::value::{MAX_DEPTH, is_too_deep};
use baton_core::{StepIndex, StepStatus};
use serde_json::{Map, Value};

use crate::check::expressions_in;
use crate::compile::{Compiled, MAX_TEXT_BYTES, Scope, any_text};
use crate::inputs::read_text;
use crate::plan::{Form, Node, What};
use crate::problem::{Problem, shorten};
use crate::schema::{Findings, check_value};
use crate::source::Span;
use crate::tree::{Path, weight};

/// So many outputs that cannot be computed are told, each in short.
const SHOWN_ERRORS: usize = 20;

impl Compiled {
    /// Whether the plan has outputs.
    pub fn has_outputs(&self) -> bool {
        !self.data.outputs.is_empty()
    }

    /// The plan's outputs; or every one that cannot be computed, with the values met.
    ///
    /// In a slice of a plan, an output that names the outputs of a step that was left out is left out too, unless
    /// another run's stand in for them.
    pub fn outputs(&self, scope: &Scope<'_>) -> Result<Map<String, Value>, String> {
        let mut out = Map::new();
        let mut errors = Vec::new();
        let mut size = 0usize;
        for (name, node) in &self.data.outputs {
            if self.needs_what_was_left_out(node, scope) {
                continue;
            }
            let name = self.data.str(*name);
            match self.node(node, Some(scope)) {
                Ok(value) if is_too_deep(&value) => {
                    errors.push(format!("the output `{}` nests deeper than {MAX_DEPTH}", shorten(name)));
                }
                Ok(value) => {
                    size = size.saturating_add(name.len() + weight(&value));
                    if size > MAX_TEXT_BYTES {
                        errors.push(format!(
                            "the output `{}`: with those before it, it has more than {MAX_TEXT_BYTES} bytes",
                            shorten(name)
                        ));
                        break;
                    }
                    out.insert(name.to_owned(), value);
                }
                Err(error) => errors.push(format!("the output `{}`: {error}", shorten(name))),
            }
        }
        if errors.is_empty() {
            return Ok(out);
        }
        let more = errors.len().saturating_sub(SHOWN_ERRORS);
        errors.truncate(SHOWN_ERRORS);
        if more > 0 {
            errors.push(format!("and {more} more"));
        }
        Err(errors.join("; "))
    }

    fn needs_what_was_left_out(&self, node: &Node, scope: &Scope<'_>) -> bool {
        if scope.kept_steps_have_run {
            return false;
        }
        let is_left_out = |id: &str| {
            let step = self.data.find(id).map(StepIndex);
            step.is_some_and(|step| (scope.status)(step) == StepStatus::Kept && (scope.outputs)(step).is_none())
        };
        any_text(node, &|text| match text.form() {
            Form::Plain(_) => false,
            Form::Template(number) => expressions_in(&self.data, What::Template(number)).into_iter().any(|number| {
                let references = &self.data.expressions[number as usize].parsed.references;
                references.ids_with_outputs().any(is_left_out)
            }),
        })
    }

    /// The outputs of a successful attempt of the step as its plan declares them; or everything about them that does
    /// not fit.
    ///
    /// Where the declared type takes no text, a text is read as JSON. What is not declared stays as it is.
    pub fn take_outputs(&self, step: StepIndex, mut outputs: Map<String, Value>) -> Result<Map<String, Value>, String> {
        let Some(declared) = self.data.step_outputs.get(&step.0) else { return Ok(outputs) };
        let mut findings = Findings::default();
        for (name, declared) in declared {
            let name = self.data.str(*name);
            let schema = &declared.schema;
            let section = Path::new("outputs");
            let path = section.name(name);
            let value = match (outputs.remove(name), &declared.default) {
                (Some(Value::String(text)), _) => match read_text(schema, &text, &path, &mut findings) {
                    Some(value) => value,
                    None => continue,
                },
                (Some(value), _) => value,
                (None, Some(default)) => default.clone(),
                (None, None) => {
                    let message = format!(
                        "the step set no output `{0}`, which it declares ({1}); write {0}=… to $BATON_OUTPUT",
                        shorten(name),
                        schema.wanted()
                    );
                    findings.push(Problem::error("bad_input", Span::default(), message));
                    continue;
                }
            };
            check_value(schema, &value, &path, &mut findings);
            outputs.insert(name.to_owned(), schema.with_typed_numbers(value));
        }
        findings.into_text().map(|()| outputs)
    }
}
