//! CEL expressions: checked before the parser sees them, rewritten so that they always mean the same, and evaluated
//! within a budget.
//!
//! The parser and the evaluator come from the `cel` crate, and both go down the expression on the stack. So an
//! expression's length and its depth are bounded here first, by a scan that does not nest. Three rewrites follow:
//! `has()` answers `false` for a missing or null part on the way; maps are iterated in the order of their keys; what
//! comprehensions go through and build is charged to a budget.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use baton_core::{StepIndex, StepStatus};
use cel::common::ast::{CallExpr, EntryExpr, Expr as Ast, IdedExpr, ListExpr, LiteralValue, operators};
use cel::common::types::{CelBool, CelList, CelMap, CelString, DYN_TYPE};
use cel::common::value::{CowVal, Val};
use cel::objects::{Key, Map as CelValueMap};
use cel::parser::PrattParser;
use cel::{Context, Env, ExecutionError, Value as Cel};
use serde_json::{Map, Value};

use crate::compile::Scope;
use crate::problem::{did_you_mean, shorten};

/// The longest expression, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 4096;
/// How deep an expression's tree may be. The evaluator takes some 35 KiB of stack for each level where it is not
/// optimised, and a tenth of that where it is.
pub const MAX_EXPRESSION_DEPTH: u32 = 32;
/// How many brackets may stand in one another.
const MAX_BRACKETS: usize = 16;
/// How many `map`, `filter`, `all` and `exists` may stand in one another: each is several levels of the tree.
const MAX_LOOPS: usize = 3;
/// What comprehensions of one evaluation may go through and build: elements and bytes.
const BUDGET: u64 = 4 << 20;
/// How much of a value an error shows.
const SHOWN_VALUE: usize = 200;

/// Names that can stand at the beginning.
const ROOTS: &[&str] = &["vars", "inputs", "steps", "run"];
/// Names that later versions will have.
const LATER_ROOTS: &[&str] = &["matrix", "item", "secret", "secrets"];
/// The names of types, as in `type(x) == string`.
const TYPES: &[&str] = &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];
/// The functions there are. None knows the time or chance, and none makes much out of little.
const FUNCTIONS: &[&str] =
    &["bool", "bytes", "contains", "double", "dyn", "endsWith", "int", "size", "startsWith", "string", "type", "uint"];
/// The macros there are.
const MACROS: &[&str] = &["all", "exists", "exists_one", "filter", "has", "map"];
/// What `run` holds; `status` in `finally` only.
const RUN_FIELDS: &[&str] = &["cwd", "id", "plan_dir", "plan_id", "status"];

/// Something wrong with an expression, and where in it.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) range: Range<usize>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// What an expression asks of a step.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Facet {
    Status,
    /// Its outputs; the one with this name, where the expression says which.
    Outputs(Option<String>),
    /// With `has()`, whether there are such outputs.
    Guarded,
}

/// What an expression names.
#[derive(Clone, Debug, Default)]
pub(crate) struct References {
    pub(crate) steps: Vec<(String, Facet)>,
    /// Variables it cannot do without.
    pub(crate) vars: Vec<String>,
    /// Variables that it asks about with `has()`.
    pub(crate) guarded: Vec<String>,
    /// Inputs by their names.
    pub(crate) inputs: Vec<String>,
    /// Whether it takes all inputs as one map.
    pub(crate) all_inputs: bool,
    pub(crate) uses_vars: bool,
    pub(crate) uses_run: bool,
    pub(crate) uses_run_status: bool,
}

impl References {
    /// The steps that it names, each once.
    pub(crate) fn step_ids(&self) -> impl Iterator<Item = &str> {
        // All facets of one step stand beside each other.
        self.steps.chunk_by(|(a, _), (b, _)| a == b).filter_map(|facets| Some(facets.first()?.0.as_str()))
    }

    /// The steps whose outputs it names, each once.
    pub(crate) fn ids_with_outputs(&self) -> impl Iterator<Item = &str> {
        let facets = self.steps.chunk_by(|(a, _), (b, _)| a == b);
        let named = facets.filter(|facets| facets.iter().any(|(_, facet)| matches!(facet, Facet::Outputs(_))));
        named.filter_map(|facets| Some(facets.first()?.0.as_str()))
    }

    /// Whether it asks with `has()` for outputs of this step.
    pub(crate) fn guards(&self, id: &str) -> bool {
        self.steps.iter().any(|(step, facet)| step == id && *facet == Facet::Guarded)
    }

    /// Whether its value is settled before the run starts.
    pub(crate) fn is_settled(&self) -> bool {
        self.steps.is_empty() && !self.uses_run
    }
}

/// An expression ready to be evaluated.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    /// `None`: it is parsed again when it is needed.
    ast: Option<IdedExpr>,
    pub(crate) references: References,
}

/// Reads an expression, or says everything that is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Expression, Vec<Fault>> {
    let whole = 0..text.len();
    let fault = |range, message: String, hint: Option<&str>| {
        vec![Fault { code: "bad_expression", range, message, hint: hint.map(str::to_owned) }]
    };
    if text.trim().is_empty() {
        return Err(fault(whole, "the expression is empty".into(), None));
    }
    if text.len() > MAX_EXPRESSION_BYTES {
        let message = format!("the expression has {} bytes, and {MAX_EXPRESSION_BYTES} is the most", text.len());
        return Err(fault(whole, message, Some("compute it in a step and use that step's output")));
    }
    if let Err((at, message)) = scan(text) {
        return Err(fault(at..(at + 1).min(text.len()), message, None));
    }
    let ast = PrattParser::new().max_recursion_depth(MAX_EXPRESSION_DEPTH as u16).parse(text);
    let ast = ast.map_err(|errors| {
        let mut faults: Vec<Fault> = Vec::new();
        for error in errors.errors {
            let at = offset(text, error.pos);
            // Further errors at one place only repeat the first.
            if faults.iter().all(|fault| fault.range.start != at) {
                let message = error.msg.trim_start_matches("Syntax error: ").replace("<EOF>", "the end");
                let message = format!("the expression cannot be read: {message}");
                faults.push(Fault { code: "bad_expression", range: at..at + 1, message, hint: syntax_hint(text) });
            }
        }
        faults.truncate(1);
        faults
    })?;
    let mut check = Check { text, faults: Vec::new(), references: References::default(), locals: Vec::new(), loops: 0 };
    check.hyphens();
    if check.faults.is_empty() {
        check.visit(&ast);
    }
    if !check.faults.is_empty() {
        return Err(check.faults);
    }
    let mut references = check.references;
    references.steps.sort();
    references.steps.dedup();
    references.vars.sort();
    references.vars.dedup();
    references.inputs.sort();
    references.inputs.dedup();
    let guarded = std::mem::take(&mut references.guarded);
    references.vars.retain(|name| !guarded.contains(name));
    references.guarded = guarded;
    Ok(Expression { ast: Some(rewrite(ast)), references })
}

fn syntax_hint(text: &str) -> Option<String> {
    let words = |word: &str| text.split(|c: char| !c.is_ascii_alphanumeric()).any(|found| found == word);
    if text.contains("${") {
        Some("inside an expression a variable is `vars.NAME`".into())
    } else if words("and") || words("or") || words("not") {
        Some("write `&&`, `||` and `!`".into())
    } else if text.contains('=') && !text.contains("==") && !text.contains("!=") {
        Some("a comparison is `==`".into())
    } else {
        None
    }
}

/// From the parser's line and column to a byte.
fn offset(text: &str, (line, column): (isize, isize)) -> usize {
    let line_start: usize = text.split_inclusive('\n').take(usize::try_from(line - 1).unwrap_or(0)).map(str::len).sum();
    let column = usize::try_from(column - 1).unwrap_or(0);
    crate::source::floor(text, line_start + column).min(text.len().saturating_sub(1))
}

/// One pair of brackets while it is scanned.
struct Level {
    closer: u8,
    /// Operators since the last `&&`, `||` or `,`: each can be inside the next.
    operators: u32,
    /// Fields, indexes and calls since the last operator, with the deepest bracket among them.
    chain: u32,
    inner: u32,
    /// The longest of these chains.
    longest: u32,
    /// The deepest row that is complete.
    deepest: u32,
    /// A ternary's parts are inside one another whatever stands between them.
    ternaries: u32,
    /// `&&` and `||`, which the parser joins into a balanced tree.
    joints: u32,
}

impl Level {
    fn new(closer: u8) -> Self {
        Self { closer, operators: 0, chain: 0, inner: 0, longest: 0, deepest: 0, ternaries: 0, joints: 0 }
    }

    fn operator(&mut self) {
        self.longest = self.longest.max(self.chain + self.inner);
        self.chain = 0;
        self.inner = 0;
        self.operators += 1;
    }

    fn end_row(&mut self) {
        self.operator();
        self.deepest = self.deepest.max(self.operators - 1 + self.longest);
        self.operators = 0;
        self.longest = 0;
    }

    /// At least as deep as the tree of what was scanned.
    fn depth(&self) -> u32 {
        let row = self.operators + self.longest.max(self.chain + self.inner);
        self.deepest.max(row) + self.ternaries + (self.joints + 1).ilog2() + u32::from(self.joints > 0)
    }
}

/// Refuses what nests too deep, without nesting.
fn scan(text: &str) -> Result<(), (usize, String)> {
    let bytes = text.as_bytes();
    let mut levels = vec![Level::new(0)];
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let here = at;
        at += 1;
        let Some(level) = levels.last_mut() else { return Ok(()) };
        if byte.is_ascii_alphabetic() || byte == b'_' {
            while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                at += 1;
            }
            let word = &text[here..at];
            let raw = matches!(word, "r" | "R" | "rb" | "rB" | "Rb" | "RB" | "br" | "bR" | "Br" | "BR");
            if (raw || matches!(word, "b" | "B")) && matches!(bytes.get(at), Some(b'"' | b'\'')) {
                at = string_end(bytes, at, raw).ok_or((at, "this text has no end".to_owned()))?;
            }
            if word == "in" {
                level.operator();
            }
        }
        match byte {
            b'"' | b'\'' => at = string_end(bytes, here, false).ok_or((here, "this text has no end".to_owned()))?,
            b'(' | b'[' | b'{' => {
                level.chain += 1;
                if levels.len() > MAX_BRACKETS {
                    return Err((here, format!("more than {MAX_BRACKETS} brackets stand in one another")));
                }
                levels.push(Level::new(match byte {
                    b'(' => b')',
                    b'[' => b']',
                    _ => b'}',
                }));
            }
            b')' | b']' | b'}' => {
                if level.closer != byte {
                    return Err((here, format!("`{}` closes nothing that is open", char::from(byte))));
                }
                let depth = level.depth();
                levels.pop();
                if let Some(outer) = levels.last_mut() {
                    outer.inner = outer.inner.max(depth);
                }
            }
            b'&' | b'|' => {
                at += usize::from(bytes.get(at) == Some(&byte));
                level.joints += 1;
                level.end_row();
            }
            b',' => level.end_row(),
            b'?' => level.ternaries += 1,
            b'.' => level.chain += 1,
            b'/' if bytes.get(at) == Some(&b'/') => {
                return Err((here, "comments are not part of an expression here".into()));
            }
            b'+' | b'-' | b'*' | b'/' | b'%' | b'!' | b'<' | b'>' | b'=' => {
                at += usize::from(bytes.get(at) == Some(&b'='));
                level.operator();
            }
            b'`' => return Err((here, "backquotes are not part of an expression; write ['name']".into())),
            b'@' | b'#' | b'$' | b'^' | b'~' | b';' | b'\\' => {
                return Err((here, format!("`{}` is not part of an expression", char::from(byte))));
            }
            _ => {}
        }
        if levels.last().is_some_and(|level| level.depth() > MAX_EXPRESSION_DEPTH) {
            return Err((here, too_deep()));
        }
    }
    let whole = levels.iter().rev().fold(0, |inner, level| level.depth() + inner);
    match levels.len() {
        1 if whole <= MAX_EXPRESSION_DEPTH => Ok(()),
        1 => Err((0, too_deep())),
        _ => Err((text.len().saturating_sub(1), "a closing bracket is missing at the end".into())),
    }
}

fn too_deep() -> String {
    format!("the expression nests deeper than {MAX_EXPRESSION_DEPTH}; compute a part of it in a step")
}

/// The place after a text whose first quote stands at `at`.
pub(crate) fn string_end(bytes: &[u8], at: usize, raw: bool) -> Option<usize> {
    let quote = bytes[at];
    let width = if bytes[at..].starts_with(&[quote; 3]) { 3 } else { 1 };
    let mut at = at + width;
    while at < bytes.len() {
        if bytes[at] == b'\\' && !raw {
            at += 2;
        } else if bytes[at..].starts_with(&[quote; 3][..width]) {
            return Some(at + width);
        } else {
            at += 1;
        }
    }
    None
}

/// A path such as `steps.a.outputs` or `steps['a'].outputs`: its root and the literal keys after it.
fn path(expr: &IdedExpr) -> Option<(&str, Vec<&LiteralValue>, Vec<&str>)> {
    let mut keys = Vec::new();
    let mut names = Vec::new();
    let mut at = expr;
    loop {
        match &at.expr {
            Ast::Ident(name) => {
                names.reverse();
                keys.reverse();
                return Some((name, keys, names));
            }
            Ast::Select(select) => {
                names.push(select.field.as_str());
                at = &select.operand;
            }
            Ast::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
                let Ast::Literal(literal) = &call.args[1].expr else { return None };
                keys.push(literal);
                names.push(match literal {
                    LiteralValue::String(text) => text.inner(),
                    _ => "",
                });
                at = &call.args[0];
            }
            _ => return None,
        }
    }
}

/// Finds what an expression names, and what it must not.
struct Check<'t> {
    text: &'t str,
    faults: Vec<Fault>,
    references: References,
    locals: Vec<String>,
    loops: usize,
}

impl Check<'_> {
    /// The first place where a word stands by itself.
    fn place(&self, word: &str) -> Range<usize> {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let found = self
            .text
            .match_indices(word)
            .find(|(at, _)| !self.text[..*at].ends_with(part) && !self.text[at + word.len()..].starts_with(part));
        found.map_or(0..self.text.len(), |(at, _)| at..at + word.len())
    }

    fn fault(&mut self, code: &'static str, word: &str, message: String, hint: Option<String>) {
        let range = self.place(word);
        self.faults.push(Fault { code, range, message, hint });
    }

    /// `steps.a-b` would be read as `steps.a` minus `b`.
    fn hyphens(&mut self) {
        let mut from = 0;
        while let Some(found) = self.text[from..].find("steps.") {
            let start = from + found + "steps.".len();
            let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let length = self.text[start..].find(|c| !part(c)).unwrap_or(self.text.len() - start);
            let name = &self.text[start..start + length];
            let follows = self.text[start + length..].starts_with('.');
            if name.contains('-') && !name.ends_with('-') && follows {
                self.faults.push(Fault {
                    code: "hyphenated_step",
                    range: start..start + length,
                    message: format!("`steps.{name}` would mean a subtraction, because of the `-`"),
                    hint: Some(format!("write steps['{name}']")),
                });
            }
            from = start + length;
        }
    }

    /// Goes through the tree; its depth is bounded by the scan.
    fn visit(&mut self, expr: &IdedExpr) {
        if let Some((root, _, names)) = path(expr) {
            let tested = matches!(&expr.expr, Ast::Select(select) if select.test);
            self.name(root, &names, tested);
            return;
        }
        match &expr.expr {
            Ast::Unspecified | Ast::Literal(_) => {}
            Ast::Ident(name) => self.name(name, &[], false),
            Ast::Select(select) => self.visit(&select.operand),
            Ast::List(list) => list.elements.iter().for_each(|element| self.visit(element)),
            Ast::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.key);
                        self.visit(&entry.value);
                    }
                }
            }
            Ast::Struct(made) => {
                let message = format!("`{}{{…}}` makes a message, and there are none here", made.type_name);
                self.fault("bad_expression", &made.type_name, message, Some("a map is `{'key': value}`".into()));
            }
            Ast::Call(call) => {
                self.function(call);
                if let Some(target) = &call.target {
                    self.visit(target);
                }
                call.args.iter().for_each(|argument| self.visit(argument));
            }
            Ast::Comprehension(loop_) => {
                self.visit(&loop_.iter_range);
                self.visit(&loop_.accu_init);
                self.loops += 1;
                if self.loops == MAX_LOOPS + 1 {
                    let message = format!("more than {MAX_LOOPS} of map, filter, all and exists stand in one another");
                    self.fault("bad_expression", "", message, Some("do that in a step".into()));
                }
                let before = self.locals.len();
                self.locals.push(loop_.accu_var.clone());
                self.locals.push(loop_.iter_var.clone());
                self.locals.extend(loop_.iter_var2.clone());
                self.visit(&loop_.loop_cond);
                self.visit(&loop_.loop_step);
                self.visit(&loop_.result);
                self.locals.truncate(before);
                self.loops -= 1;
            }
        }
    }

    fn function(&mut self, call: &CallExpr) {
        let name = call.func_name.as_str();
        let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
        if is_operator || FUNCTIONS.contains(&name) {
            return;
        }
        let hint = match name {
            "matches" => Some("regular expressions are not available; use contains, startsWith or endsWith".into()),
            "success" | "failure" | "always" => Some("compare a status: steps.ID.status == 'failed'".into()),
            _ if MACROS.contains(&name) => Some(format!("`{name}` is not called in this way")),
            _ => did_you_mean(name, FUNCTIONS.iter().chain(MACROS).copied()),
        };
        let message = format!("there is no function `{}`", shorten(name));
        self.fault("unknown_function", name, message, hint);
    }

    fn name(&mut self, root: &str, names: &[&str], tested: bool) {
        if self.locals.iter().any(|local| local == root) || root.starts_with('@') {
            return;
        }
        match root {
            "vars" => {
                self.references.uses_vars = true;
                match names.first() {
                    Some(name) if tested && names.len() == 1 => self.references.guarded.push((*name).to_owned()),
                    Some(name) if !name.is_empty() => self.references.vars.push((*name).to_owned()),
                    _ => {}
                }
            }
            "inputs" => match names.first() {
                Some(name) if !name.is_empty() => self.references.inputs.push((*name).to_owned()),
                _ => self.references.all_inputs = true,
            },
            "run" => {
                self.references.uses_run = true;
                self.references.uses_run_status |= names.first() == Some(&"status");
                if let Some(name) = names.first()
                    && !RUN_FIELDS.contains(name)
                {
                    let hint = did_you_mean(name, RUN_FIELDS.iter().copied())
                        .unwrap_or_else(|| format!("it has {}", RUN_FIELDS.join(", ")));
                    let message = format!("`run` has no `{}`", shorten(name));
                    self.fault("unknown_name", name, message, Some(hint));
                }
            }
            "steps" => self.step(names, tested),
            _ if TYPES.contains(&root) && names.is_empty() => {}
            _ if LATER_ROOTS.contains(&root) => {
                let message = format!("`{root}` is not available yet in this version of Baton");
                self.fault("not_available", root, message, None);
            }
            _ => {
                let hint = did_you_mean(root, ROOTS.iter().copied()).unwrap_or_else(|| {
                    let name = shorten(root);
                    format!("an input is `inputs.{name}`, a variable `vars.{name}`, a text stands in quotes: '{name}'")
                });
                let message = format!("there is no `{}`", shorten(root));
                self.fault("unknown_name", root, message, Some(hint));
            }
        }
    }

    fn step(&mut self, names: &[&str], tested: bool) {
        let hint = Some("write steps.ID.status or steps.ID.outputs.NAME".to_owned());
        match names {
            [] | ["", ..] => {
                let message = "`steps` must be followed by the id of one step".to_owned();
                self.fault("bad_expression", "steps", message, hint);
            }
            [id] => {
                let message = format!("`steps.{}` alone is no value", shorten(id));
                self.fault("bad_expression", id, message, hint);
            }
            [id, "status", ..] => self.references.steps.push(((*id).to_owned(), Facet::Status)),
            [id, "outputs", rest @ ..] => {
                let name = rest.first().filter(|name| !name.is_empty()).map(|name| (*name).to_owned());
                self.references.steps.push(((*id).to_owned(), Facet::Outputs(name)));
                if tested {
                    self.references.steps.push(((*id).to_owned(), Facet::Guarded));
                }
            }
            [_, other, ..] => {
                let message = format!("a step has no `{}` to ask for", shorten(other));
                let hint = did_you_mean(other, ["status", "outputs"].into_iter()).or(hint);
                self.fault("unknown_name", other, message, hint);
            }
        }
    }
}

fn call(id: u64, function: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr { id, expr: Ast::Call(CallExpr { func_name: function.into(), target: None, args }) }
}

/// Puts our own meaning of `has`, order and cost in. Its depth is bounded by the scan.
fn rewrite(mut expr: IdedExpr) -> IdedExpr {
    let id = expr.id;
    if matches!(&expr.expr, Ast::Select(select) if select.test) {
        return rewrite_has(expr);
    }
    match &mut expr.expr {
        Ast::Unspecified | Ast::Literal(_) | Ast::Ident(_) | Ast::Struct(_) => {}
        Ast::Select(select) => rewrite_in_place(&mut select.operand),
        Ast::List(list) => list.elements.iter_mut().for_each(rewrite_in_place),
        Ast::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    rewrite_in_place(&mut entry.key);
                    rewrite_in_place(&mut entry.value);
                }
            }
        }
        Ast::Call(call) => {
            if let Some(target) = &mut call.target {
                rewrite_in_place(target);
            }
            call.args.iter_mut().for_each(rewrite_in_place);
        }
        Ast::Comprehension(loop_) => {
            rewrite_in_place(&mut loop_.iter_range);
            let range = std::mem::take(&mut loop_.iter_range);
            loop_.iter_range = call(id, "@ordered", vec![range]);
            rewrite_in_place(&mut loop_.loop_step);
            charge_appended(&mut loop_.loop_step);
        }
    }
    expr
}

fn rewrite_in_place(expr: &mut IdedExpr) {
    *expr = rewrite(std::mem::take(expr));
}

/// `map` and `filter` append `[element]` in each round: the element is what is charged.
fn charge_appended(step: &mut IdedExpr) {
    let Ast::Call(call_) = &mut step.expr else { return };
    match call_.func_name.as_str() {
        operators::CONDITIONAL => call_.args.iter_mut().for_each(charge_appended),
        operators::ADD => {
            if let Some(IdedExpr { expr: Ast::List(list), .. }) = call_.args.get_mut(1) {
                for element in &mut list.elements {
                    let value = std::mem::take(element);
                    *element = call(value.id, "@charge", vec![value]);
                }
            }
        }
        _ => {}
    }
}

fn rewrite_has(expr: IdedExpr) -> IdedExpr {
    let id = expr.id;
    let text = |text: &str| IdedExpr { id, expr: Ast::Literal(LiteralValue::String(CelString::from(text.to_owned()))) };
    let list = |elements| IdedExpr { id, expr: Ast::List(ListExpr::new(elements)) };
    let mut keys = Vec::new();
    let mut at = expr;
    loop {
        match at.expr {
            Ast::Select(select) => {
                keys.push(text(&select.field));
                at = *select.operand;
            }
            Ast::Call(mut call_)
                if call_.func_name == operators::INDEX
                    && call_.args.len() == 2
                    && matches!(call_.args[1].expr, Ast::Literal(_)) =>
            {
                keys.extend(call_.args.pop());
                match call_.args.pop() {
                    Some(operand) => at = operand,
                    None => at = IdedExpr::default(),
                }
            }
            _ => break,
        }
    }
    keys.reverse();
    call(id, "@has", vec![rewrite(at), list(keys)])
}

thread_local! {
    /// What the evaluation on this thread may still cost.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

fn spend(cost: u64) -> Result<(), ExecutionError> {
    let left = LEFT.get().checked_sub(cost);
    LEFT.set(left.unwrap_or(0));
    left.map(|_| ()).ok_or_else(|| ExecutionError::FunctionError {
        function: "map, filter, all or exists".into(),
        message: "it goes through more than an expression may; do that in a step".into(),
    })
}

/// How large a value is: elements and bytes, counted no further than the budget.
fn size(value: &dyn Val, limit: u64) -> u64 {
    let mut total = 1u64;
    if let Some(text) = value.downcast_ref::<CelString>() {
        total += text.inner().len() as u64;
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        for element in list.inner() {
            if total > limit {
                break;
            }
            total += size(element.as_ref(), limit - total);
        }
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        for (key, element) in map.inner() {
            if total > limit {
                break;
            }
            total += size(key.inner(), limit);
            total += size(element.as_ref(), limit.saturating_sub(total));
        }
    }
    total
}

fn charge<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = args.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    spend(size(value.as_ref(), LEFT.get()))?;
    Ok(value)
}

fn ordered<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = charge(args)?;
    let Some(map) = value.downcast_ref::<CelMap>() else { return Ok(value) };
    let mut keys: Vec<_> = map.inner().keys().collect();
    keys.sort();
    let keys: Vec<Box<dyn Val + 'v>> = keys.into_iter().map(|key| key.inner().clone_as_boxed()).collect();
    Ok(CowVal::owned(CelList::from(keys)))
}

fn has<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    fn reaches(value: &dyn Val, keys: &[Box<dyn Val + '_>]) -> bool {
        let Some((key, rest)) = keys.split_first() else { return true };
        let found = value.as_indexer().and_then(|value| value.get(key.as_ref()).ok());
        found.is_some_and(|value| reaches(value.as_ref(), rest))
    }
    let keys = args.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let value = args.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let keys = keys.downcast_ref::<CelList>().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    Ok(CowVal::owned(CelBool::from(reaches(value.as_ref(), keys.inner()))))
}

/// The functions and types that expressions see.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::default().with_optional_support(false).with_stdlib();
    let added = env
        .add_overload("@has", "@has", vec![DYN_TYPE, DYN_TYPE], has)
        .and_then(|()| env.add_overload("@ordered", "@ordered", vec![DYN_TYPE], ordered))
        .and_then(|()| env.add_overload("@charge", "@charge", vec![DYN_TYPE], charge));
    assert!(added.is_ok(), "the names of our own functions are taken in the cel crate");
    Arc::new(env)
});

/// What an evaluation sees besides the scope.
pub(crate) struct Facts<'a> {
    pub(crate) vars: &'a BTreeMap<String, String>,
    pub(crate) inputs: &'a Map<String, Value>,
    pub(crate) plan_id: &'a str,
    pub(crate) find: &'a dyn Fn(&str) -> Option<StepIndex>,
}

/// A step's status as expressions and the manual call it.
pub(crate) fn status_name(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Waiting => "waiting",
        StepStatus::Running => "running",
        StepStatus::Retrying => "retrying",
        StepStatus::Succeeded | StepStatus::Kept => "succeeded",
        StepStatus::Failed => "failed",
        StepStatus::Skipped => "skipped",
        StepStatus::Canceled => "canceled",
    }
}

impl Expression {
    /// The same without its tree, which is most of it.
    pub(crate) fn without_tree(self) -> Self {
        Self { ast: None, ..self }
    }

    /// The value; or the expression, the values that it met, and the error.
    pub(crate) fn evaluate(&self, text: &str, facts: &Facts<'_>, scope: &Scope<'_>) -> Result<Value, String> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        if self.references.uses_vars {
            let vars: HashMap<Key, Cel> = facts
                .vars
                .iter()
                .map(|(name, value)| (Key::String(Arc::new(name.clone())), Cel::String(Arc::new(value.clone()))))
                .collect();
            context.add_variable_from_value("vars", Cel::Map(CelValueMap { map: Arc::new(vars) }));
        }
        if self.references.all_inputs {
            context.add_variable_from_value("inputs", to_cel_map(facts.inputs));
        } else if !self.references.inputs.is_empty() {
            let named = self.references.inputs.iter().filter_map(|name| facts.inputs.get_key_value(name));
            context.add_variable_from_value("inputs", to_cel_entries(named));
        }
        if self.references.uses_run {
            let id = i64::try_from(scope.run.0).unwrap_or(i64::MAX);
            let mut run = vec![
                ("id", Cel::Int(id)),
                ("plan_dir", cel_text(scope.plan_dir)),
                ("cwd", cel_text(scope.cwd)),
                ("plan_id", cel_text(facts.plan_id)),
            ];
            run.extend(scope.run_status.map(|status| ("status", cel_text(status.word()))));
            context.add_variable_from_value("run", cel_map(run));
        }
        if !self.references.steps.is_empty() {
            let mut steps: HashMap<Key, Cel> = HashMap::new();
            for id in self.references.step_ids() {
                let Some(step) = (facts.find)(id) else { continue };
                let outputs = match (scope.outputs)(step) {
                    Some(outputs) => to_cel_map(outputs),
                    None => cel_map([]),
                };
                let status = cel_text(status_name((scope.status)(step)));
                let key = Key::String(Arc::new(id.to_owned()));
                steps.insert(key, cel_map([("status", status), ("outputs", outputs)]));
            }
            context.add_variable_from_value("steps", Cel::Map(CelValueMap { map: Arc::new(steps) }));
        }
        LEFT.set(BUDGET);
        let parsed_again = match self.ast {
            Some(_) => None,
            None => parse(text).ok(),
        };
        let ast = self.ast.as_ref().or_else(|| parsed_again.as_ref()?.ast.as_ref());
        let ast = ast.ok_or_else(|| format!("`{text}` cannot be read"))?;
        let value = Cel::resolve(ast, &context).map_err(|error| explain(&error)).and_then(|v| to_json(&v));
        value.map_err(|error| self.error(text, &error, facts, scope))
    }

    fn error(&self, text: &str, error: &str, facts: &Facts<'_>, scope: &Scope<'_>) -> String {
        let mut out = format!("`{}` could not be computed: {error}", text.trim());
        let met = self.met(facts, scope);
        if !met.is_empty() {
            out += &format!(" (where {})", met.join(", "));
        }
        out
    }

    /// The values that the expression names, each in short.
    pub(crate) fn met(&self, facts: &Facts<'_>, scope: &Scope<'_>) -> Vec<String> {
        let short = |text: String| {
            if text.len() <= SHOWN_VALUE {
                text
            } else {
                format!("{}…", &text[..crate::source::floor(&text, SHOWN_VALUE)])
            }
        };
        let mut out = Vec::new();
        for name in self.references.vars.iter().chain(&self.references.guarded) {
            if let Some(value) = facts.vars.get(name) {
                out.push(format!("vars.{name} is {}", short(Value::from(value.as_str()).to_string())));
            }
        }
        if self.references.all_inputs {
            out.push(format!("inputs is {}", short(Value::Object(facts.inputs.clone()).to_string())));
        }
        for name in &self.references.inputs {
            if let Some(value) = facts.inputs.get(name) {
                out.push(format!("inputs.{name} is {}", short(value.to_string())));
            }
        }
        if self.references.uses_run_status
            && let Some(status) = scope.run_status
        {
            out.push(format!("run.status is '{}'", status.word()));
        }
        let name = |id: &str| if id.contains('-') { format!("steps['{id}']") } else { format!("steps.{id}") };
        for (id, _) in self.references.steps.iter().filter(|(_, facet)| *facet == Facet::Status) {
            let Some(step) = (facts.find)(id) else { continue };
            out.push(format!("{}.status is '{}'", name(id), status_name((scope.status)(step))));
        }
        for id in self.references.ids_with_outputs() {
            let Some(step) = (facts.find)(id) else { continue };
            let outputs = (scope.outputs)(step).map(|map| Value::Object(map.clone()).to_string());
            out.push(format!("{}.outputs is {}", name(id), short(outputs.unwrap_or_else(|| "{}".into()))));
        }
        out
    }
}

/// An evaluator's error in our words.
fn explain(error: &ExecutionError) -> String {
    let text = match error {
        ExecutionError::NoSuchKey(key) => format!("there is no `{key}`; guard it with has()"),
        ExecutionError::FunctionError { function, message } => format!("{function}: {message}"),
        ExecutionError::DivisionByZero(_) => "division by zero".into(),
        ExecutionError::RemainderByZero(_) => "remainder of a division by zero".into(),
        ExecutionError::Overflow(..) => "the number is too large".into(),
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            format!("`{operator}` does not go with {} and {}", left.type_of(), right.type_of())
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("{} and {} cannot be compared", left.type_of(), right.type_of())
        }
        ExecutionError::NoSuchOverload(overload) => {
            let operator = overload.function().trim_matches('_');
            format!("`{operator}` does not go with {}", overload.argument_types().join(" and "))
        }
        other => other.to_string(),
    };
    if text.len() <= SHOWN_VALUE { text } else { format!("{}…", &text[..crate::source::floor(&text, SHOWN_VALUE)]) }
}

fn cel_text(text: &str) -> Cel {
    Cel::String(Arc::new(text.to_owned()))
}

fn cel_map<'a>(entries: impl IntoIterator<Item = (&'a str, Cel)>) -> Cel {
    let map = entries.into_iter().map(|(key, value)| (Key::String(Arc::new(key.to_owned())), value)).collect();
    Cel::Map(CelValueMap { map: Arc::new(map) })
}

fn to_cel_map(map: &Map<String, Value>) -> Cel {
    to_cel_entries(map.iter())
}

fn to_cel_entries<'a>(entries: impl Iterator<Item = (&'a String, &'a Value)>) -> Cel {
    let map = entries.map(|(key, value)| (Key::String(Arc::new(key.clone())), to_cel(value))).collect();
    Cel::Map(CelValueMap { map: Arc::new(map) })
}

fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Cel::Int(whole),
            (None, Some(whole)) => Cel::UInt(whole),
            (None, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => cel_text(text),
        Value::Array(list) => Cel::List(Arc::new(list.iter().map(to_cel).collect())),
        Value::Object(map) => to_cel_map(map),
    }
}

fn to_json(value: &Cel) -> Result<Value, String> {
    Ok(match value {
        Cel::Null => Value::Null,
        Cel::Bool(value) => Value::Bool(*value),
        Cel::Int(whole) => (*whole).into(),
        Cel::UInt(whole) => (*whole).into(),
        Cel::Float(number) => match serde_json::Number::from_f64(*number) {
            Some(number) => Value::Number(number),
            None => return Err(format!("the result is {number}, which is no number")),
        },
        Cel::String(text) => Value::String(text.to_string()),
        Cel::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => return Err("the result is bytes that are not UTF-8 text".into()),
        },
        Cel::List(list) => Value::Array(list.iter().map(to_json).collect::<Result<_, _>>()?),
        Cel::Map(map) => {
            let mut out = Map::new();
            for (key, value) in map.map.iter() {
                let key = match key {
                    Key::String(text) => text.to_string(),
                    Key::Int(whole) => whole.to_string(),
                    Key::Uint(whole) => whole.to_string(),
                    Key::Bool(value) => value.to_string(),
                };
                out.insert(key, to_json(value)?);
            }
            Value::Object(out)
        }
        other => return Err(format!("the result is a {}, and only data can be used", other.type_of())),
    })
}

/// What a value is called in messages.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
