//! What the project may depend on: licences, banned crates and sources, after the lists in `deny.toml`.

use std::fs;

use crate::workspace::{self, Package};
use crate::{advisories, run};

/// Checks everything in the lock file, and lets cargo-deny check again where it is installed.
pub fn check() -> Result<(), String> {
    let path = workspace::root().join("deny.toml");
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let policy = Policy::read(&text)?;
    let packages = workspace::everything()?;
    let problems: Vec<String> = packages.iter().flat_map(|package| policy.problems(package)).collect();
    if !problems.is_empty() {
        return Err(format!("what deny.toml does not allow:\n  {}", problems.join("\n  ")));
    }
    println!("licences, bans and sources of {} packages are in order", packages.len());
    if run::quiet(env!("CARGO"), &["deny", "--version"]).is_some() {
        run::show(&mut run::cargo(&["deny", "check", "bans", "licenses", "sources"]))?;
    }
    advisories::check(&packages)
}

/// The lists of `deny.toml` that are checked here.
struct Policy {
    licences: Vec<String>,
    banned: Vec<String>,
    registries: Vec<String>,
}

impl Policy {
    fn read(text: &str) -> Result<Policy, String> {
        let list = |section, key| {
            strings(text, section, key).ok_or_else(|| format!("deny.toml has no list `{key}` under `[{section}]`"))
        };
        Ok(Policy {
            licences: list("licenses", "allow")?,
            banned: list("bans", "deny")?,
            registries: list("sources", "allow-registry")?,
        })
    }

    fn problems(&self, package: &Package) -> Vec<String> {
        let mut problems = Vec::new();
        let name = format!("{} {}", package.name, package.version);
        match &package.license {
            None => problems.push(format!("{name} states no licence expression")),
            Some(expression) if !self.allows(expression) => {
                problems.push(format!("{name} is under `{expression}`, and deny.toml allows no way to take it"));
            }
            Some(_) => {}
        }
        if self.banned.contains(&package.name) {
            problems.push(format!("{name} is banned"));
        }
        match &package.source {
            Some(source) if !self.registries.iter().any(|known| source.strip_prefix("registry+") == Some(known)) => {
                problems.push(format!("{name} comes from `{source}`"));
            }
            Some(_) => {}
            None => {
                for dependency in &package.dependencies {
                    if dependency.requirement == "*" && !dependency.is_path {
                        problems.push(format!("{name} asks for any version of {}", dependency.name));
                    }
                }
            }
        }
        problems
    }

    /// Whether a licence expression can be met with the allowed licences alone.
    fn allows(&self, expression: &str) -> bool {
        let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = words.as_slice();
        let allowed = self.any(&mut rest);
        allowed == Some(true) && rest.is_empty()
    }

    fn any(&self, words: &mut &[&str]) -> Option<bool> {
        let mut allowed = self.all(words)?;
        while take(words, "OR") {
            allowed |= self.all(words)?;
        }
        Some(allowed)
    }

    fn all(&self, words: &mut &[&str]) -> Option<bool> {
        let mut allowed = self.one(words)?;
        while take(words, "AND") {
            allowed &= self.one(words)?;
        }
        Some(allowed)
    }

    fn one(&self, words: &mut &[&str]) -> Option<bool> {
        if take(words, "(") {
            let allowed = self.any(words)?;
            return take(words, ")").then_some(allowed);
        }
        let (first, rest) = words.split_first()?;
        *words = rest;
        let mut licence = (*first).to_owned();
        if take(words, "WITH") {
            let (exception, rest) = words.split_first()?;
            *words = rest;
            licence = format!("{licence} WITH {exception}");
        }
        Some(self.licences.contains(&licence))
    }
}

fn take(words: &mut &[&str], wanted: &str) -> bool {
    match words.split_first() {
        Some((first, rest)) if *first == wanted => {
            *words = rest;
            true
        }
        _ => false,
    }
}

/// The strings of one list of a TOML page: as much of TOML as `deny.toml` needs.
fn strings(text: &str, section: &str, key: &str) -> Option<Vec<String>> {
    let header = format!("[{section}]");
    let mut lines = text.lines().skip_while(|line| line.trim() != header).skip(1).peekable();
    let mut open = false;
    let mut found = Vec::new();
    while let Some(line) = lines.next_if(|line| open || !line.starts_with('[')) {
        let line = line.split(" #").next().unwrap_or(line).trim();
        let items = if open {
            line
        } else {
            let Some((name, value)) = line.split_once('=') else { continue };
            if name.trim() != key {
                continue;
            }
            open = true;
            value
        };
        found.extend(items.split('"').skip(1).step_by(2).map(str::to_owned));
        if items.trim_end().ends_with(']') {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "[licenses]\n# words\nallow = [\n  \"MIT\", # said \"so\"\n  \"Apache-2.0\",\n]\n\n[bans]\ndeny = [\"bad\"]\n\n[sources]\nallow-registry = [\"https://index\"]\n";

    fn package(license: &str, source: Option<&str>) -> Package {
        Package {
            name: "thing".to_owned(),
            version: "1.0.0".to_owned(),
            license: Some(license.to_owned()),
            source: source.map(str::to_owned),
            dependencies: Vec::new(),
        }
    }

    #[test]
    fn a_licence_expression_is_allowed_if_there_is_a_way_to_meet_it() {
        let policy = Policy::read(PAGE).expect("the page has every list");
        for good in ["MIT", "MIT/GPL-3.0", "GPL-3.0 OR (MIT AND Apache-2.0)", "(MIT)"] {
            assert!(policy.allows(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0 WITH thing", "", "MIT OR", "(MIT"] {
            assert!(!policy.allows(bad), "{bad}");
        }
    }

    #[test]
    fn another_source_and_a_banned_name_are_refused() {
        let policy = Policy::read(PAGE).expect("the page has every list");
        assert!(policy.problems(&package("MIT", Some("registry+https://index"))).is_empty());
        assert_eq!(policy.problems(&package("MIT", Some("git+https://index"))).len(), 1);
        let banned = Package { name: "bad".to_owned(), ..package("MIT", None) };
        assert_eq!(policy.problems(&banned), ["bad 1.0.0 is banned"]);
    }

    #[test]
    fn the_projects_own_page_has_every_list() {
        let page = fs::read_to_string(workspace::root().join("deny.toml")).expect("deny.toml can be read");
        let policy = Policy::read(&page).expect("deny.toml has every list");
        assert!(policy.allows("MIT OR Apache-2.0"));
        assert!(policy.banned.contains(&"openssl".to_owned()));
    }
}
