//! Durations as people write them: `90s`, `15m`, `1h30m`, `3d`.

use baton_core::Millis;

/// Each unit, the largest first, with its length in seconds.
const UNITS: &[(char, u64)] = &[('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// The duration that a text is; `None`: it is none. What is too long for a number is the longest there is.
pub(crate) fn parse(text: &str) -> Option<Millis> {
    let mut seconds = 0u64;
    let mut rest = text;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let unit = rest[digits..].chars().next()?;
        let (_, length) = units.find(|(name, _)| *name == unit)?;
        let count = rest[..digits].parse().unwrap_or(u64::MAX);
        seconds = seconds.saturating_add(count.saturating_mul(*length));
        rest = &rest[digits + unit.len_utf8()..];
    }
    (!text.is_empty()).then_some(Millis(seconds.saturating_mul(1000)))
}
