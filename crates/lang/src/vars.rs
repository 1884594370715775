//! Values of variables and inputs from the command line and from files.

use std::collections::BTreeMap;
use std::path::Path;

use thiserror::Error;

use crate::events::{Event, Events, ScalarKind};
use crate::inputs::Given;
use crate::problem::{Origin, Problem, render_all, shorten};
use crate::source::{Format, Source, Span};
use crate::template::is_variable_name;
use crate::tree::Tree;

/// Why a value or a file of values cannot be taken.
#[derive(Debug, Error)]
pub enum VarFileError {
    /// An argument is not `NAME=value`.
    #[error("`{argument}` is not NAME=value; write --var NAME=value")]
    NotAPair {
        /// What was given.
        argument: String,
    },
    /// A name cannot be a variable's.
    #[error("`{name}` cannot be a variable's name: a letter or `_`, then letters, digits and `_`")]
    BadName {
        /// The name.
        name: String,
    },
    /// A line of a `KEY=value` file.
    #[error("{file}:{line}: {message}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A YAML or JSON file.
    #[error("{report}")]
    Problems {
        /// Every problem, rendered.
        report: String,
    },
}

/// `NAME=value` as it is given to `--var`.
pub fn parse_var(argument: &str) -> Result<(String, Given), VarFileError> {
    let Some((name, value)) = argument.split_once('=') else {
        return Err(VarFileError::NotAPair { argument: shorten(argument) });
    };
    if !is_variable_name(name) {
        return Err(VarFileError::BadName { name: shorten(name) });
    }
    Ok((name.to_owned(), Given::from(value)))
}

/// A file of values: YAML or JSON by its extension, else lines of `KEY=value`. Text, numbers and booleans are taken as
/// they are written.
pub fn parse_var_file(name: &str, text: &str) -> Result<BTreeMap<String, Given>, VarFileError> {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some("json") => tree(name, text, Format::Json),
        Some("yaml" | "yml") => tree(name, text, Format::Yaml),
        _ => lines(name, text),
    }
}

fn lines(name: &str, text: &str) -> Result<BTreeMap<String, Given>, VarFileError> {
    let mut vars = BTreeMap::new();
    for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let fail = |message: String| VarFileError::Line { file: name.to_owned(), line: at + 1, message };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((key, value)) = line.split_once('=') else {
            return Err(fail(format!("`{}` is not KEY=value", shorten(line))));
        };
        let key = key.trim();
        if !is_variable_name(key) {
            return Err(fail(format!("`{}` cannot be a variable's name", shorten(key))));
        }
        let value = value.trim();
        let quoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        let origin = Origin { file: name.to_owned(), line: at + 1 };
        let given = Given::TextAt(quoted.unwrap_or(value).to_owned(), origin);
        if vars.insert(key.to_owned(), given).is_some() {
            return Err(fail(format!("`{}` is given twice", shorten(key))));
        }
    }
    Ok(vars)
}

fn tree(name: &str, text: &str, format: Format) -> Result<BTreeMap<String, Given>, VarFileError> {
    let source = Source { name: name.to_owned(), text: text.to_owned(), format };
    let mut events = Events::new(&source);
    let mut vars = BTreeMap::new();
    // The line of the last key, and the byte up to which lines were counted for it.
    let (mut line, mut counted) = (1, 0);
    let (first, span) = events.next();
    match first {
        Event::MapStart => loop {
            let (event, span) = events.next();
            match event {
                Event::Key(key) => {
                    if !is_variable_name(&key) {
                        let message = format!("`{}` cannot be a variable's name", shorten(&key));
                        events.problems.push(Problem::error("bad_name", span, message));
                    }
                    let text = match &events.peek().0 {
                        Event::Scalar(scalar) => match scalar.kind {
                            ScalarKind::Text | ScalarKind::Number | ScalarKind::Bool => Some(scalar.text.to_string()),
                            ScalarKind::Null | ScalarKind::Broken => None,
                        },
                        _ => None,
                    };
                    line += source.slice(Span { start: counted, end: span.start }).matches('\n').count();
                    counted = span.start;
                    let origin = Origin { file: name.to_owned(), line };
                    match text {
                        Some(text) => {
                            events.next();
                            vars.insert(key.into_owned(), Given::TextAt(text, origin));
                        }
                        None => {
                            let tree = Tree::literal(&mut events);
                            let value = tree.map(|tree| Given::ValueAt(tree.to_value(), origin));
                            vars.extend(value.map(|value| (key.into_owned(), value)));
                        }
                    }
                }
                Event::MapEnd | Event::End => break,
                _ => {}
            }
        },
        // A file with nothing in it gives nothing.
        Event::End => {}
        Event::Scalar(ref scalar) if scalar.kind == ScalarKind::Null => {}
        other => {
            let message = "a file of variables is a map of names to values";
            events.problems.push(Problem::error("wrong_type", span, message));
            events.skip_rest(&other);
        }
    }
    while events.next().0 != Event::End {}
    if events.problems.has_errors() {
        let problems = std::mem::take(&mut events.problems).finish();
        return Err(VarFileError::Problems { report: render_all(&problems, &source, false) });
    }
    Ok(vars)
}
