//! `git.classify`: which classes of files a merge touches, before anything is merged.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::json;

use super::policy::Policy;
use super::repository::{Repository, short};
use super::{Outcome, blocked, commit_id, here, outputs, path_text, say};

/// How many paths an output lists.
const LISTED_PATHS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    #[serde(default = "here")]
    repository: String,
    #[serde(deserialize_with = "commit_id")]
    target_commit: String,
    #[serde(deserialize_with = "commit_id")]
    source_commit: String,
    policy: String,
}

/// `git.classify`.
pub(super) fn classify(input: Input) -> Outcome {
    let policy = Policy::read(&input.policy)?;
    let repository = Repository::open(&input.repository)?;
    let git = &repository.git;
    let Some(base) = git.line_if(&["merge-base", &input.target_commit, &input.source_commit])? else {
        return Err(blocked(format!(
            "{} and {} have no common commit; such a merge is never made by itself",
            short(&input.target_commit),
            short(&input.source_commit)
        )));
    };
    let changed = |commit: &str| -> Result<BTreeSet<Vec<u8>>, _> {
        let listing =
            git.bytes(&["diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", &base, commit, "--"])?;
        Ok(listing.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect())
    };
    let (target, source) = (changed(&input.target_commit)?, changed(&input.source_commit)?);
    let mut classes: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    let mut both = Vec::new();
    for path in target.union(&source) {
        let class = policy.class(path);
        let counts = classes.entry(class).or_default();
        let (here, there) = (target.contains(path), source.contains(path));
        counts[0] += usize::from(here);
        counts[1] += usize::from(there);
        if here && there {
            counts[2] += 1;
            both.push(json!({
                "path": path_text::text(path),
                "class": class,
                "resolve": policy.rule(class).resolve,
            }));
        }
    }
    for (class, [here, there, on_both]) in &classes {
        say(format_args!("{class}: {here} changed in the target, {there} in the source, {on_both} in both"));
    }
    let count = both.len();
    both.truncate(LISTED_PATHS);
    let classes: BTreeMap<_, _> = classes
        .into_iter()
        .map(|(class, [target, source, both])| (class, json!({"target": target, "source": source, "both": both})))
        .collect();
    Ok(outputs(json!({"merge_base": base, "classes": classes, "both": both, "both_count": count})))
}
