//! Texts with `${NAME}`, `${NAME:-default}` and `${{ expression }}` in them, taken apart once.

use std::ops::Range;

use crate::expr::string_end;
use crate::problem::shorten;

/// One piece of a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece<'t> {
    Text(&'t str),
    Variable { name: &'t str, default: Option<&'t str> },
    Expression { text: &'t str, at: Range<usize> },
}

/// Something wrong with a text.
#[derive(Debug)]
pub(crate) struct TemplateFault {
    pub(crate) code: &'static str,
    pub(crate) range: Range<usize>,
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// Whether a text is more than itself.
pub(crate) fn is_template(text: &str) -> bool {
    text.contains("${")
}

/// Whether a name can be a variable's.
pub(crate) fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The pieces of a text, and what is wrong with it.
pub(crate) fn split(text: &str) -> (Vec<Piece<'_>>, Vec<TemplateFault>) {
    let mut pieces = Vec::new();
    let mut faults = Vec::new();
    let mut plain_from = 0;
    let mut search_from = 0;
    while let Some(found) = text[search_from..].find("${") {
        let at = search_from + found;
        if text[..at].ends_with('$') && at > plain_from {
            // `$${` is a literal `${`: everything but the first `$` stays.
            pieces.push(Piece::Text(&text[plain_from..at - 1]));
            plain_from = at;
            search_from = at + 2;
            continue;
        }
        pieces.push(Piece::Text(&text[plain_from..at]));
        let (piece, end) = if text[at..].starts_with("${{") { expression(text, at) } else { variable(text, at) };
        match piece {
            Ok(piece) => pieces.push(piece),
            Err(fault) => faults.push(fault),
        }
        plain_from = end;
        search_from = end;
    }
    pieces.push(Piece::Text(&text[plain_from..]));
    pieces.retain(|piece| *piece != Piece::Text(""));
    (pieces, faults)
}

const LITERAL: &str = "for a literal `${` write `$${`";

/// `${{ … }}` at `at`: the piece, and the place after it.
fn expression(text: &str, at: usize) -> (Result<Piece<'_>, TemplateFault>, usize) {
    let bytes = text.as_bytes();
    let from = at + 3;
    let mut place = from;
    let mut depth = 0usize;
    while place < bytes.len() {
        match bytes[place] {
            b'"' | b'\'' => {
                let raw = matches!(bytes[place - 1], b'r' | b'R');
                match string_end(bytes, place, raw) {
                    Some(end) => place = end,
                    None => break,
                }
                continue;
            }
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b'}' if bytes.get(place + 1) == Some(&b'}') => {
                let piece = Piece::Expression { text: &text[from..place], at: from..place };
                return (Ok(piece), place + 2);
            }
            _ => {}
        }
        place += 1;
    }
    let fault = TemplateFault {
        code: "bad_template",
        range: at..text.len(),
        message: "`${{` has no `}}` after it".into(),
        hint: "an expression is written ${{ like this }}".into(),
    };
    (Err(fault), text.len())
}

/// `${…}` at `at`: the piece, and the place after it.
fn variable(text: &str, at: usize) -> (Result<Piece<'_>, TemplateFault>, usize) {
    let fault = |end: usize, code, message: String, hint: String| {
        (Err(TemplateFault { code, range: at..end, message, hint }), end)
    };
    let Some(length) = text[at..].find('}') else {
        return fault(text.len(), "bad_template", "`${` has no `}` after it".into(), LITERAL.into());
    };
    let end = at + length + 1;
    let inner = &text[at + 2..end - 1];
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if is_variable_name(name) {
        return (Ok(Piece::Variable { name, default }), end);
    }
    let shown = shorten(inner);
    if let Some(secret) = name.strip_prefix("secret.") {
        let message =
            format!("`${{secret.{}}}`: secrets are not available yet in this version of Baton", shorten(secret));
        let hint = "let the step read it from its environment or from a file".into();
        return fault(end, "not_available", message, hint);
    }
    let hint = if let Some(name) = name.strip_prefix("vars.").filter(|name| is_variable_name(name)) {
        format!("write ${{{name}}}")
    } else if name.contains('.') || name.contains('[') {
        format!("an expression stands in double braces: ${{{{ {} }}}}", shown.trim())
    } else if is_variable_name(name.trim()) {
        "take the blanks out".into()
    } else {
        LITERAL.into()
    };
    fault(end, "bad_template", format!("`${{{shown}}}` is neither ${{NAME}} nor ${{NAME:-default}}"), hint)
}
