//! Benchmarks, soon.

pub fn task(_: &[String]) -> Result<(), String> {
    Err("soon".to_owned())
}
