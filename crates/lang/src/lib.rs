//! The plan language: text to a plan with every problem it has; a plan and options to what runs.
//!
//! Nothing here reads a file, a clock or the environment. No input makes it panic, overflow the stack, or take time
//! or memory out of proportion to its length. The first problem never hides the others.

mod builder;
mod check;
mod compile;
mod duration;
mod events;
mod expr;
mod fields;
mod hash;
mod inputs;
mod json;
mod outputs;
mod plan;
mod problem;
mod schema;
mod slice;
mod source;
mod strings;
mod template;
mod tree;
mod vars;
mod yaml;

use std::sync::Arc;

pub use builder::MAX_ID_BYTES;
pub use compile::{Compiled, MAX_TEXT_BYTES, Options, Recorded, Scope, has_errors};
pub use events::MAX_DEPTH;
pub use expr::{MAX_EXPRESSION_BYTES, MAX_EXPRESSION_DEPTH};
pub use fields::{reference, schema};
pub use inputs::Given;
pub use plan::Plan;
pub use problem::{MAX_PROBLEMS, Origin, Problem, Severity, render, render_all};
pub use schema::ActionCatalog;
pub use slice::Selection;
pub use source::{Format, MAX_PLAN_BYTES, Position, Source, SourceError, Span};
pub use vars::{VarFileError, parse_var, parse_var_file};

use builder::Builder;
use problem::Problems;

/// What reading a text came to.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The plan; `None` where it has errors.
    pub plan: Option<Plan>,
    /// Everything that is wrong, by place.
    pub problems: Vec<Problem>,
}

/// What reading a text and joining it with options came to.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The plan, ready to run; `None` where there are errors.
    pub compiled: Option<Compiled>,
    /// Everything that is wrong, by place.
    pub problems: Vec<Problem>,
}

/// Reads a plan.
pub fn parse(source: &Source, catalog: &dyn ActionCatalog) -> Parsed {
    let (data, problems) = read(source, catalog);
    let failed = problems.has_errors();
    Parsed { plan: (!failed).then(|| Plan(Arc::new(data))), problems: problems.finish() }
}

/// Reads a plan and compiles it: everything that is wrong with either is told at once.
pub fn load(source: &Source, catalog: &dyn ActionCatalog, options: &Options) -> Loaded {
    let (data, mut problems) = read(source, catalog);
    if problems.has_errors() {
        compile::undefined_only(&data, options, &mut problems);
        return Loaded { compiled: None, problems: problems.finish() };
    }
    let mut told = problems.finish();
    match Plan(Arc::new(data)).compile(options) {
        Ok(compiled) => {
            told.extend(compiled.warnings.iter().cloned());
            Loaded { compiled: Some(compiled), problems: told }
        }
        Err(more) => {
            told.extend(more);
            Loaded { compiled: None, problems: told }
        }
    }
}

fn read(source: &Source, catalog: &dyn ActionCatalog) -> (plan::Data, Problems) {
    let mut builder = Builder::new(source, catalog);
    builder.read();
    let Builder { events, mut data, links, .. } = builder;
    let mut problems = events.problems;
    // Where the text breaks off, steps are missing, and what the others say of them means nothing.
    if !events.broken {
        check::check(source, &mut data, &links, &mut problems);
    }
    (data, problems)
}

/// Reads an expression, for fuzzing and for tools: whether it can be one.
pub fn check_expression(text: &str) -> Result<(), String> {
    match expr::parse(text) {
        Ok(_) => Ok(()),
        Err(faults) => Err(faults.into_iter().map(|fault| fault.message).collect::<Vec<_>>().join("; ")),
    }
}
