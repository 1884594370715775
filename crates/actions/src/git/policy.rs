//! The policy file: which class a path belongs to, and how a conflict in a file of that class is resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use super::bad_input;
use crate::registry::ActionFailure;

/// The largest policy file that is read.
const POLICY_BYTES: u64 = 1024 * 1024;

/// How a conflict in a file of a class is resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Resolution {
    /// The side that committed a change to the file last.
    Newest,
    /// The branch that is merged into.
    Ours,
    /// The source.
    Theirs,
    /// Both versions of each conflicting stretch, ours first.
    Union,
    /// A person's or the resolver's decision.
    Manual,
}

/// What is done about conflicts in the files of a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    pub(super) resolve: Resolution,
    /// Whether the side that wins gives the whole file, and not only the stretches that conflict.
    pub(super) whole_file: bool,
}

/// What a policy file says, ready to be asked.
#[derive(Debug)]
pub(super) struct Policy {
    classes: BTreeMap<String, Rule>,
    default: String,
    globs: GlobSet,
    /// The class that each glob of `globs` leads to.
    class_of_glob: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    #[expect(dead_code, reason = "people write here what the policy is for")]
    description: String,
    default: String,
    classes: BTreeMap<String, ClassEntry>,
    rules: Vec<RuleEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassEntry {
    #[serde(default)]
    #[expect(dead_code, reason = "people write here what the class is for")]
    description: String,
    resolve: Resolution,
    #[serde(default)]
    whole_file: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    paths: Vec<String>,
    class: String,
}

const LEFT: Rule = Rule { resolve: Resolution::Manual, whole_file: false };

impl Policy {
    /// The policy that leaves every conflict to a person.
    pub(super) fn none() -> Self {
        let class = "unclassified".to_owned();
        Self {
            classes: BTreeMap::from([(class.clone(), LEFT)]),
            default: class,
            globs: GlobSet::empty(),
            class_of_glob: Vec::new(),
        }
    }

    /// Reads the file at `path`; an empty path is [`Policy::none`].
    pub(super) fn read(path: &str) -> Result<Self, ActionFailure> {
        if path.is_empty() {
            return Ok(Self::none());
        }
        let bytes = std::fs::metadata(path).map(|file| file.len());
        match bytes {
            Ok(bytes) if bytes > POLICY_BYTES => {
                Err(bad_input(format!("the policy file {path} has {bytes} bytes; at most {POLICY_BYTES} are read")))
            }
            Ok(_) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| bad_input(format!("cannot read the policy file {path}: {error}")))?;
                Self::parse(&text).map_err(|problem| bad_input(format!("the policy file {path} is wrong: {problem}")))
            }
            Err(error) => Err(bad_input(format!("cannot read the policy file {path}: {error}"))),
        }
    }

    /// Reads a policy from text; an error names every problem that was found.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: PolicyFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut problems = BTreeSet::new();
        let known: Vec<&str> = file.classes.keys().map(String::as_str).collect();
        let unknown = |class: &str| format!("there is no class {class:?}; `classes` has: {}", known.join(", "));
        if !file.classes.contains_key(&file.default) {
            problems.insert(format!("`default`: {}", unknown(&file.default)));
        }
        let mut globs = GlobSetBuilder::new();
        let mut class_of_glob = Vec::new();
        for (number, rule) in file.rules.iter().enumerate() {
            if !file.classes.contains_key(&rule.class) {
                problems.insert(format!("`rules[{number}]`: {}", unknown(&rule.class)));
            }
            for pattern in &rule.paths {
                match GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build() {
                    Ok(glob) => {
                        globs.add(glob);
                        class_of_glob.push(rule.class.clone());
                    }
                    Err(error) => {
                        problems.insert(format!("`rules[{number}]`: {error}"));
                    }
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems.into_iter().collect::<Vec<_>>().join("; "));
        }
        let globs = globs.build().map_err(|error| error.to_string())?;
        let classes = file
            .classes
            .into_iter()
            .map(|(name, entry)| {
                let ClassEntry { resolve, whole_file, .. } = entry;
                (name, Rule { resolve, whole_file })
            })
            .collect();
        Ok(Self { classes, default: file.default, globs, class_of_glob })
    }

    /// The class of a path, relative to the top of the work tree: that of the first rule which matches.
    pub(super) fn class(&self, path: &[u8]) -> &str {
        let first = self.globs.matches(Path::new(OsStr::from_bytes(path))).into_iter().min();
        first.map_or(&self.default, |glob| &self.class_of_glob[glob])
    }

    /// What is done about conflicts in the files of a class.
    pub(super) fn rule(&self, class: &str) -> Rule {
        self.classes.get(class).copied().unwrap_or(LEFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
        "default": "code",
        "classes": {
            "code": {"resolve": "manual"},
            "generated": {"resolve": "newest", "whole_file": true},
            "docs": {"resolve": "union", "description": "prose"}
        },
        "rules": [
            {"paths": ["docs/generated/**", "**/*.lock"], "class": "generated"},
            {"paths": ["docs/**", "*.md"], "class": "docs"}
        ]
    }"#;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::parse(TEXT).expect("the policy is right");
        for (path, class) in [
            (&b"docs/generated/api.md"[..], "generated"),
            (b"docs/guide/a b.md", "docs"),
            (b"README.md", "docs"),
            (b"src/README.md", "code"),
            (b"deep/in/Cargo.lock", "generated"),
            (b"docs/caf\xe9", "docs"),
            (b"docs/line\nbreak", "docs"),
            (b"-x", "code"),
        ] {
            assert_eq!(policy.class(path), class, "{}", String::from_utf8_lossy(path));
        }
        assert_eq!(policy.rule("docs"), Rule { resolve: Resolution::Union, whole_file: false });
        assert_eq!(policy.rule("generated"), Rule { resolve: Resolution::Newest, whole_file: true });
        assert_eq!(Policy::none().rule(Policy::none().class(b"any")), LEFT);
    }

    #[test]
    fn every_problem_of_a_policy_is_named() {
        let wrong = r#"{"default": "x", "classes": {"a": {"resolve": "ours"}},
            "rules": [{"paths": ["[z-"], "class": "a"}, {"paths": [], "class": "b"}]}"#;
        let problem = Policy::parse(wrong).unwrap_err();
        for part in ["`default`", "\"x\"", "`rules[0]`", "`rules[1]`", "\"b\"", "has: a"] {
            assert!(problem.contains(part), "{part} in {problem}");
        }
        let misspelt = Policy::parse(&TEXT.replace("\"manual\"", "\"manuel\"")).unwrap_err();
        assert!(misspelt.contains("manuel") && misspelt.contains("line 4"), "{misspelt}");
        let unknown = Policy::parse(&TEXT.replace("\"rules\"", "\"rulez\"")).unwrap_err();
        assert!(unknown.contains("rulez"), "{unknown}");
    }
}
