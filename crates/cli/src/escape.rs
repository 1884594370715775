//! Text of other people's on a terminal: nothing in it can move the cursor, change colours or hide what follows.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What a step printed, harmless: colours are taken out, other control characters are shown as `\x1b` and the like;
/// tabs and line feeds stay.
pub fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = rest.find(is_harmful) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(length) = color_sequence(rest) {
            rest = &rest[length..];
            continue;
        }
        let mut characters = rest.chars();
        match characters.next() {
            // Files from elsewhere end their lines with both.
            Some('\r') if characters.as_str().starts_with('\n') => {}
            Some(character) => show(character, &mut out),
            None => {}
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
    out
}

/// The same for a text that must stay one line: line feeds and tabs become spaces.
pub fn one_line(text: &str) -> String {
    harmless(text.as_bytes()).replace(['\n', '\t'], " ")
}

/// A text of which every character must be seen: controls are shown as `\x1b` and the like, colours among them.
pub fn exact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmful(character) { show(character, &mut out) } else { out.push(character) }
    }
    out
}

/// Whether a character could do more than be read: controls, and those that turn the reading direction.
fn is_harmful(character: char) -> bool {
    (character.is_control() && character != '\t' && character != '\n')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

fn show(character: char, out: &mut String) {
    match character {
        '\r' => out.push_str("\\r"),
        '\0' => out.push_str("\\0"),
        character if (character as u32) < 0x100 => out.push_str(&format!("\\x{:02x}", character as u32)),
        character => out.push_str(&format!("\\u{{{:x}}}", character as u32)),
    }
}

/// How long the sequence at the start of `text` is, where it only sets colours: `ESC [ digits and ; m`.
fn color_sequence(text: &str) -> Option<usize> {
    let body = text.strip_prefix("\x1b[")?;
    let end = body.find(|character: char| !character.is_ascii_digit() && character != ';')?;
    body[end..].starts_with('m').then_some(2 + end + 1)
}

/// How many columns a terminal gives this text.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text cut to so many columns, with `…` where something is missing.
pub fn truncate(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for character in text.chars() {
        let wide = character.width().unwrap_or(0);
        if used + wide + 1 > columns {
            break;
        }
        used += wide;
        out.push(character);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_and_other_controls_are_shown() {
        let cases: [(&[u8], &str); 9] = [
            (b"plain\ttext\n", "plain\ttext\n"),
            (b"\x1b[1;32mok\x1b[0m", "ok"),
            (b"\x1b[2Jgone", "\\x1b[2Jgone"),
            (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            (b"dos\r\nline", "dos\nline"),
            (b"10%\r20%", "10%\\r20%"),
            ("\u{9b}31m".as_bytes(), "\\x9b31m"),
            ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
            (b"\xff\x00", "\u{fffd}\\0"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(harmless(bytes), shown);
        }
    }

    #[test]
    fn what_is_too_wide_is_cut_by_columns() {
        assert_eq!(truncate("short", 5), "short");
        assert_eq!(truncate("longer", 5), "long…");
        assert_eq!(truncate("日本語", 4), "日…");
        assert_eq!(truncate("x", 0), "");
    }
}
