//! Paths as text: as they are where a person can read them, in git's quoted form where bytes or controls would harm.

/// The path as text that prints safely on one line, and from which [`bytes`] gives the same path back.
pub(super) fn text(path: &[u8]) -> String {
    if let Ok(plain) = std::str::from_utf8(path)
        && !plain.starts_with('"')
        && !plain.chars().any(char::is_control)
    {
        return plain.to_owned();
    }
    let mut quoted = String::from("\"");
    for &byte in path {
        match byte {
            b'"' => quoted.push_str("\\\""),
            b'\\' => quoted.push_str("\\\\"),
            b'\n' => quoted.push_str("\\n"),
            b'\t' => quoted.push_str("\\t"),
            0x20..=0x7e => quoted.push(char::from(byte)),
            _ => quoted.push_str(&format!("\\{byte:03o}")),
        }
    }
    quoted.push('"');
    quoted
}

/// The path that [`text`] was given.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.as_bytes().to_vec();
    };
    let mut path = Vec::with_capacity(inner.len());
    let mut rest = inner.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            path.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => path.push(b'\n'),
            Some(b't') => path.push(b'\t'),
            Some(high @ b'0'..=b'3') => {
                let digits = [high, rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                path.push(digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
            }
            Some(other) => path.push(other),
            None => {}
        }
    }
    path
}

/// A path as one word for a shell, so that a command which a person is told to type works when it is pasted.
pub(super) fn shell_word(path: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+=:@%,".contains(byte);
    match std::str::from_utf8(path) {
        Ok(word) if !word.is_empty() && path.iter().all(plain) => word.to_owned(),
        Ok(word) if !word.chars().any(char::is_control) => format!("'{}'", word.replace('\'', "'\\''")),
        _ => {
            let escaped: String = path
                .iter()
                .map(|byte| match byte {
                    b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
                    0x20..=0x7e => char::from(*byte).to_string(),
                    _ => format!("\\{byte:03o}"),
                })
                .collect();
            format!("$'{escaped}'")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_its_text_form_whatever_its_bytes() {
        let hostile: [&[u8]; 8] =
            [b"plain", b"with space", "h\u{f6}he".as_bytes(), b"caf\xe9", b"a\nb\tc", b"\"quoted\"", b"\xff\"\\7", b""];
        for path in hostile {
            let shown = text(path);
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            assert_eq!(bytes(&shown), path, "{shown}");
        }
        assert_eq!(text(b"caf\xe9"), r#""caf\351""#);
        assert_eq!(text(b"with space"), "with space");
    }

    #[test]
    fn a_shell_reads_the_same_path_from_the_word() {
        for path in [&b"a b"[..], b"it's", b"-x", b"a\nb", b"caf\xe9", b"$(touch x)", b"back\\slash\n"] {
            let script = format!("printf %s {}", shell_word(path));
            let shown = std::process::Command::new("bash").args(["-c", &script]).output().expect("bash runs");
            assert_eq!(shown.stdout, path, "{script}");
        }
    }
}
