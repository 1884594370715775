//! What values may be: a bound for everything that comes from outside and is to be read again.

use serde_json::Value;

/// So many lists and maps may stand in one another. A log is read back by a reader with a bound of its own, twice this.
pub const MAX_DEPTH: usize = 64;

/// Whether more lists and maps stand in one another than may. It does not nest itself.
pub fn is_too_deep(value: &Value) -> bool {
    let mut open = vec![(value, 0usize)];
    while let Some((value, depth)) = open.pop() {
        match value {
            Value::Array(_) | Value::Object(_) if depth == MAX_DEPTH => return true,
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => open.extend(fields.values().map(|field| (field, depth + 1))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_for_lists_and_maps_and_for_what_is_in_them() {
        let nested = |depth: usize| {
            (0..depth).fold(Value::from(1), |inner, at| match at % 2 {
                0 => Value::from(vec![inner]),
                _ => serde_json::json!({ "inner": inner }),
            })
        };
        assert!(!is_too_deep(&nested(MAX_DEPTH)));
        assert!(is_too_deep(&nested(MAX_DEPTH + 1)));
        let empty = (0..MAX_DEPTH).fold(Value::Array(Vec::new()), |inner, _| Value::from(vec![inner]));
        assert!(is_too_deep(&empty), "the innermost one counts, also where nothing is in it");
        assert!(is_too_deep(&serde_json::json!([1, nested(MAX_DEPTH)])));
    }
}
