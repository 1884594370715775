//! The arrows between the crates: which may depend on which, and a failure for any other edge.

use crate::workspace::{self, Package};

/// Which crates each crate may depend on. The core is open to all of them: it is the common vocabulary.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "baton-cli",
        &["baton-server", "baton-engine", "baton-lang", "baton-suite", "baton-vault", "baton-store", "baton-actions"],
    ),
    ("baton-server", &["baton-engine", "baton-lang", "baton-suite", "baton-vault"]),
    ("baton-sim", &["baton-engine"]),
    ("baton-engine", &["baton-store", "baton-actions", "baton-lang", "baton-vault"]),
    ("baton-actions", &["baton-browser", "baton-vault"]),
    ("baton-store", &[]),
    ("baton-lang", &[]),
    ("baton-suite", &[]),
    ("baton-vault", &[]),
    ("baton-browser", &[]),
    ("baton-core", &[]),
    ("xtask", &[]),
];

const CORE: &str = "baton-core";
/// Crates that know nothing of the core either.
const APART: &[&str] = &["xtask", "baton-browser"];

/// Checks the members of this workspace.
pub fn check() -> Result<(), String> {
    let problems = forbidden(&workspace::members()?);
    if problems.is_empty() { Ok(()) } else { Err(format!("arrows that may not be:\n{}", problems.join("\n"))) }
}

fn forbidden(members: &[Package]) -> Vec<String> {
    let mut problems = Vec::new();
    for member in members {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == member.name) else {
            problems.push(format!("  `{}` has no row in crates/xtask/src/edges.rs; give it one", member.name));
            continue;
        };
        for dependency in member.dependencies.iter().filter(|dependency| dependency.is_path) {
            let to = dependency.name.as_str();
            let to_core = to == CORE && !APART.contains(&member.name.as_str());
            if !to_core && !allowed.contains(&to) {
                problems.push(format!("  {} → {to}; allowed from there: {}", member.name, allowed.join(", ")));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            license: None,
            source: None,
            dependencies: dependencies
                .iter()
                .map(|name| Dependency { name: (*name).to_owned(), requirement: "*".to_owned(), is_path: true })
                .collect(),
        }
    }

    #[test]
    fn an_arrow_up_is_refused_and_one_down_is_not() {
        assert!(forbidden(&[package("baton-engine", &["baton-core", "baton-store"])]).is_empty());
        let problems = forbidden(&[package("baton-store", &["baton-core", "baton-engine"])]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("baton-store → baton-engine"), "{problems:?}");
    }

    #[test]
    fn a_crate_without_a_row_is_refused() {
        assert_eq!(forbidden(&[package("baton-new", &[])]).len(), 1);
    }

    #[test]
    fn every_arrow_leads_to_a_crate_with_a_row() {
        for to in ARROWS.iter().flat_map(|(_, to)| to.iter()) {
            assert!(ARROWS.iter().any(|(name, _)| name == to), "{to} has no row");
        }
    }
}
