//! What an attempt wrote to `$BATON_OUTPUT`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use baton_core::value;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde_json::{Map, Value};

/// The largest file of outputs that is taken.
pub const OUTPUTS_BYTES: u64 = 1024 * 1024;

/// Reads and removes the file `name` in `folder`. Most steps write none, and that costs one system call.
pub(crate) fn take(folder: &OwnedFd, name: &str) -> Result<Map<String, Value>, String> {
    // NONBLOCK: a step may have put a pipe there. NOFOLLOW: or a link to a file that is not its own.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(Map::new()),
        Err(error) => {
            let _ = rustix::fs::unlinkat(folder, name, AtFlags::empty());
            return Err(format!("cannot read what the step wrote to $BATON_OUTPUT: {}", io::Error::from(error)));
        }
    };
    let taken = read(&file);
    drop(file);
    if rustix::fs::unlinkat(folder.as_fd(), name, AtFlags::empty()) == Err(Errno::ISDIR) {
        // An empty folder goes; one with something in it stays in the scratch folder, which is removed as a whole.
        let _ = rustix::fs::unlinkat(folder.as_fd(), name, AtFlags::REMOVEDIR);
    }
    taken
}

fn read(file: &File) -> Result<Map<String, Value>, String> {
    let system = |error: io::Error| format!("cannot read what the step wrote to $BATON_OUTPUT: {error}");
    if !file.metadata().map_err(system)?.is_file() {
        return Err("$BATON_OUTPUT must be a plain file, but the step put something else there".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(OUTPUTS_BYTES + 1).read_to_end(&mut bytes).map_err(system)?;
    if bytes.len() as u64 > OUTPUTS_BYTES {
        return Err(format!(
            "the step wrote more than {OUTPUTS_BYTES} bytes to $BATON_OUTPUT; write the data to a file, keep it with \
             `artifacts`, and pass its name"
        ));
    }
    parse(&bytes)
}

/// `KEY=value` is a string; a line that is a JSON object gives typed values; a later line wins.
pub(crate) fn parse(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let mut outputs = Map::new();
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let number = at + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|_| format!("line {number} of $BATON_OUTPUT is not UTF-8"))?;
        let trimmed = text.trim();
        if trimmed.is_empty() {
            continue;
        }
        if trimmed.starts_with('{') {
            let object: Map<String, Value> = serde_json::from_str(trimmed).map_err(|error| {
                format!("line {number} of $BATON_OUTPUT begins like a JSON object, but is none: {error}")
            })?;
            for (name, value) in object {
                check_name(&name, number)?;
                if value::is_too_deep(&value) {
                    return Err(format!(
                        "line {number} of $BATON_OUTPUT nests the output `{name}` deeper than {}; keep such data in a file",
                        value::MAX_DEPTH
                    ));
                }
                outputs.insert(name, value);
            }
            continue;
        }
        let Some((name, value)) = text.split_once('=') else {
            return Err(format!(
                "line {number} of $BATON_OUTPUT is `{}`; expected KEY=value or a JSON object",
                shown(text)
            ));
        };
        let name = name.trim();
        check_name(name, number)?;
        outputs.insert(name.to_owned(), Value::String(value.to_owned()));
    }
    Ok(outputs)
}

fn check_name(name: &str, line: usize) -> Result<(), String> {
    let mut letters = name.bytes();
    let first = letters.next().is_some_and(|letter| letter.is_ascii_alphabetic() || letter == b'_');
    if first && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == b'_' || letter == b'-') {
        return Ok(());
    }
    Err(format!(
        "line {line} of $BATON_OUTPUT names the output `{}`; a name is a letter or _ and then letters, digits, _ or -",
        shown(name)
    ))
}

/// Enough of a wrong line to recognise it by.
fn shown(text: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    let mut short: String =
        text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strings_and_typed_values_stand_line_by_line_and_the_last_wins() {
        let outputs = parse(b"A=1\n\n{\"n\": 2, \"list\": [1]}\r\nB = x=y \nA=again").unwrap();
        assert_eq!(Value::Object(outputs), json!({"A": "again", "n": 2, "list": [1], "B": " x=y "}));
    }

    #[test]
    fn a_bad_line_is_named() {
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(65), "]".repeat(65));
        let cases: [(&[u8], &str); 5] = [
            (b"A=1\nhello", "line 2 of $BATON_OUTPUT is `hello`; expected KEY=value or a JSON object"),
            (b"\xff=1", "line 1 of $BATON_OUTPUT is not UTF-8"),
            (b"1A=2", "line 1 of $BATON_OUTPUT names the output `1A`"),
            (deep.as_bytes(), "line 1 of $BATON_OUTPUT nests the output `a` deeper than 64"),
            (b"{\"a\": }", "line 1 of $BATON_OUTPUT begins like a JSON object, but is none"),
        ];
        for (text, message) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
