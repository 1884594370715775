//! Everything that can be wrong with a plan, said with its place and what to do about it.

use serde_json::{Value, json};

use crate::source::{Position, Source, Span, floor};

/// How many problems are kept and told; the rest is counted.
pub const MAX_PROBLEMS: usize = 100;
/// How many columns of a source line an excerpt shows.
const EXCERPT_COLUMNS: usize = 100;
/// How many columns an excerpt shows before the place it is about, where the line is longer.
const EXCERPT_BEFORE: usize = 40;

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The plan cannot run.
    Error,
    /// The plan can run but probably does not do what its author meant.
    Warning,
}

impl Severity {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// A place in a file of values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// What people call the file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

/// One thing that is wrong with a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Whether the plan can run in spite of it.
    pub severity: Severity,
    /// A stable name of this kind of problem.
    pub code: &'static str,
    /// What was met and what was expected.
    pub message: String,
    /// Where; `None`: in no place of the text (such as a command-line option).
    pub span: Option<Span>,
    /// The place in another file, of the value that it is about.
    pub origin: Option<Box<Origin>>,
    /// What to do.
    pub hint: Option<String>,
    /// Other places that belong to it, with what is there.
    pub related: Vec<(Span, String)>,
}

impl Problem {
    pub(crate) fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span: Some(span),
            origin: None,
            hint: None,
            related: Vec::new(),
        }
    }

    pub(crate) fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    pub(crate) fn nowhere(mut self) -> Self {
        self.span = None;
        self
    }

    /// About a value from outside.
    pub(crate) fn given(self, origin: Option<&Origin>) -> Self {
        Self { span: None, origin: origin.cloned().map(Box::new), ..self }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    pub(crate) fn also(mut self, span: Span, what: impl Into<String>) -> Self {
        self.related.push((span, what.into()));
        self
    }

    /// The problem as JSON: `severity`, `code`, `message`, `hint`, `file`, `line`, `column`, `end_line`,
    /// `end_column`, `related`. One that is in no place has no `file`.
    pub fn to_json(&self, source: &Source) -> Value {
        let mut out = json!({
            "severity": self.severity.name(),
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "file": self.span.map(|_| &source.name).or(self.origin.as_ref().map(|origin| &origin.file)),
        });
        if let (Some(origin), Some(map)) = (&self.origin, out.as_object_mut()) {
            map.insert("line".into(), origin.line.into());
        }
        if let (Some(span), Some(map)) = (self.span, out.as_object_mut()) {
            let (from, to) = (source.position(span.start), source.position(span.end));
            map.insert("line".into(), from.line.into());
            map.insert("column".into(), from.column.into());
            map.insert("end_line".into(), to.line.into());
            map.insert("end_column".into(), to.column.into());
            if !self.related.is_empty() {
                let related = self.related.iter().map(|(span, what)| {
                    let at = source.position(span.start);
                    json!({"message": what, "line": at.line, "column": at.column})
                });
                map.insert("related".into(), related.collect());
            }
        }
        out
    }
}

/// The problem for a terminal: what, where, the line with a mark under the place, and what to do.
pub fn render(problem: &Problem, source: &Source, color: bool) -> String {
    let paint = |code: &str, text: &str| if color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let tone = match problem.severity {
        Severity::Error => "1;31",
        Severity::Warning => "1;33",
    };
    let head = paint(tone, &format!("{}[{}]", problem.severity.name(), problem.code));
    let mut out = format!("{head}: {}\n", paint("1", &printable(&problem.message)));
    let mut margin = 1;
    if let Some(span) = problem.span {
        let at = source.position(span.start);
        margin = at.line.to_string().len();
        let (excerpt, mark) = excerpt(source, span, at);
        let bar = paint("34", "|");
        out += &format!("{:margin$}{} {}:{}:{}\n", "", paint("34", "-->"), printable(&source.name), at.line, at.column);
        out += &format!("{:margin$} {bar}\n", "");
        let line = format!("{} {bar} {excerpt}", paint("34", &at.line.to_string()));
        out += line.trim_end();
        out.push('\n');
        out += &format!("{:margin$} {bar} {}\n", "", paint(tone, &mark));
    }
    if let Some(origin) = &problem.origin {
        out += &format!("{:margin$}{} {}:{}\n", "", paint("34", "-->"), printable(&origin.file), origin.line);
    }
    for (span, what) in &problem.related {
        let at = source.position(span.start);
        out += &format!(
            "{:margin$} = {}: {} ({}:{}:{})\n",
            "",
            paint("1", "see"),
            printable(what),
            printable(&source.name),
            at.line,
            at.column
        );
    }
    if let Some(hint) = &problem.hint {
        out += &format!("{:margin$} = {}: {}\n", "", paint("1;36", "help"), printable(hint));
    }
    out
}

/// All problems for a terminal, and a closing line that counts them.
pub fn render_all(problems: &[Problem], source: &Source, color: bool) -> String {
    let mut out = String::new();
    for problem in problems {
        out += &render(problem, source, color);
        out.push('\n');
    }
    out
}

/// The line of a span, cut where it is long, and the marks under it.
fn excerpt(source: &Source, span: Span, at: Position) -> (String, String) {
    let text = &source.text;
    let start = floor(text, span.start as usize);
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
    let line = text[line_start..line_end].trim_start_matches('\u{feff}').trim_end_matches('\r');
    let marked = text[start..floor(text, (span.end as usize).clamp(start, line_end))].trim_end().chars().count();
    let first = at.column - 1;
    let skip = if line.chars().nth(EXCERPT_COLUMNS).is_some() { first.saturating_sub(EXCERPT_BEFORE) } else { 0 };
    let mut shown: String = line.chars().skip(skip).take(EXCERPT_COLUMNS).map(plain).collect();
    let mut indent = first - skip;
    if skip > 0 {
        shown.insert_str(0, "… ");
        indent += 2;
    }
    if line.chars().nth(skip + EXCERPT_COLUMNS).is_some() {
        shown.push_str(" …");
    }
    let room = (skip + EXCERPT_COLUMNS).saturating_sub(first).max(1);
    let mark = format!("{}{}", " ".repeat(indent), "^".repeat(marked.clamp(1, room)));
    (shown.trim_end().to_owned(), mark)
}

/// A character as one column that cannot do anything to a terminal.
fn plain(character: char) -> char {
    if character == '\t' {
        ' '
    } else if character.is_control() {
        '\u{fffd}'
    } else {
        character
    }
}

/// A text of somebody else's that cannot do anything to a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character == '\n' { '\n' } else { plain(character) }).collect()
}

/// Collects problems up to the cap and counts the rest.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    more: usize,
    errors: usize,
}

impl Problems {
    pub(crate) fn push(&mut self, problem: Problem) {
        self.errors += usize::from(problem.severity == Severity::Error);
        if self.is_full() {
            self.more += 1;
        } else {
            self.list.push(problem);
        }
    }

    /// Looks for the name that was meant, unless nobody would be told: that keeps many wrong names in many steps cheap.
    pub(crate) fn suggest<'a>(&self, name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
        if self.is_full() { None } else { did_you_mean(name, known) }
    }

    /// Takes back what was told of this stretch of the text.
    pub(crate) fn forget(&mut self, stretch: Span) {
        let is_outside = |span: Span| span.start < stretch.start || span.start >= stretch.end;
        self.list.retain(|problem| problem.span.is_none_or(is_outside));
    }

    /// Whether further problems are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= MAX_PROBLEMS
    }

    /// How many more are worth looking for: what is not told, no further than that there is one.
    pub(crate) fn room(&self) -> usize {
        MAX_PROBLEMS.saturating_sub(self.list.len()).max(1)
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// By place, with a last one that says how many were not kept.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        self.list.sort_by_key(|problem| (problem.span.is_none(), problem.span.map(|span| span.start)));
        if self.more > 0 {
            let severity = if self.errors > 0 { Severity::Error } else { Severity::Warning };
            let message = format!("{} more problems are not shown; mend these first", self.more);
            let last = Problem { severity, ..Problem::error("more_problems", Span::default(), message).nowhere() };
            self.list.push(last);
        }
        self.list
    }
}

/// The name among `known` that was probably meant.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const MAX_NAMES: usize = 5_000;
    const MAX_NAME_BYTES: usize = 100;
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let allowed = (name.chars().count() / 3).max(1);
    known
        .take(MAX_NAMES)
        .filter(|candidate| candidate.len() <= MAX_NAME_BYTES && candidate.len().abs_diff(name.len()) <= allowed + 1)
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The same as a hint.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|name| format!("did you mean `{name}`?"))
}

/// A text of the plan's author, short enough for a message.
pub(crate) fn shorten(text: &str) -> String {
    const MAX: usize = 60;
    if text.chars().nth(MAX).is_none() { text.to_owned() } else { text.chars().take(MAX).chain(['…']).collect() }
}
