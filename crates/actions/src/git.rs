//! The `git.*` actions: small, repeatable steps by which a branch is merged and pushed outside the user's work tree.
//!
//! Rules that hold for all of them:
//!
//! * An action may be killed at any point and started again: it looks at what is there before it does anything, and
//!   what an earlier attempt did counts.
//! * The user's work tree, index, `HEAD` and checked-out branch are never written to. `git.nested` is the one
//!   exception, and only where it was asked to move something aside.
//! * Nothing in the tree that is merged is executed: hooks are off, for a hook may be a file of that very tree. The
//!   one that can be switched on is the user's pre-push hook, which runs in the user's tree.
//! * An action does not try again. It says by its exit code whether trying again may help.

mod classify;
mod command;
mod conflict;
mod fetch;
mod finish;
mod health;
mod merge;
mod nested;
mod path_text;
mod policy;
mod push;
mod ref_locks;
mod repository;
#[cfg(test)]
mod tests;
mod worktree;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::registry::{ActionFailure, ActionKind, EXIT_BAD_INPUT};

/// A person has to decide or mend something first; the message says what.
const EXIT_BLOCKED: u8 = 3;
/// git failed in a way that a further attempt will not change.
const EXIT_FAILED: u8 = 4;
/// Trying again may help: the network, a lock that somebody holds, a branch that has moved (`EX_TEMPFAIL`).
const EXIT_TRY_AGAIN: u8 = 75;

/// What an action answers with.
type Outcome = Result<Map<String, Value>, ActionFailure>;

/// Every action of this family.
pub(crate) const KINDS: &[ActionKind] = &[
    ActionKind {
        kind: "git.scan",
        doc: "Look at the environment: git's version, the repository, the remote, the names, the committer.",
        schema: || schema(&[REPOSITORY, REMOTE, BRANCH, SOURCE], &["branch"]),
        run: |with| health::scan(input(with)?),
    },
    ActionKind {
        kind: "git.nested",
        doc: "Find git repositories inside the work tree that are no submodules, and refuse them or move them aside.",
        schema: || schema(&[REPOSITORY, NORMALISE], &[]),
        run: |with| nested::nested(input(with)?),
    },
    ActionKind {
        kind: "git.fetch",
        doc: "Fetch the branch and the source from the remote, and say where they stand there.",
        schema: || schema(&[REPOSITORY, REMOTE, BRANCH, SOURCE], &["branch"]),
        run: |with| fetch::fetch(input(with)?),
    },
    ActionKind {
        kind: "git.select",
        doc: "Say which commit is merged into which, out of what is here and what was fetched.",
        schema: || {
            schema(
                &[REPOSITORY, REMOTE, BRANCH, SOURCE, BRANCH_ON_REMOTE, SOURCE_ON_REMOTE],
                &["branch", "branch_on_remote", "source_on_remote"],
            )
        },
        run: |with| fetch::select(input(with)?),
    },
    ActionKind {
        kind: "git.sync_health",
        doc: "Refuse to merge out of an unhealthy repository: unfinished operations, cut history, lost changes.",
        schema: || {
            schema(
                &[REPOSITORY, REMOTE, BRANCH, SOURCE, TARGET_COMMIT, SOURCE_COMMIT, DIRTY, UNPUSHED],
                &["branch", "target_commit", "source_commit"],
            )
        },
        run: |with| health::sync_health(input(with)?),
    },
    ActionKind {
        kind: "git.classify",
        doc: "Sort the files that either side changed into the classes of a policy file.",
        schema: || {
            schema(&[REPOSITORY, TARGET_COMMIT, SOURCE_COMMIT, POLICY], &["target_commit", "source_commit", "policy"])
        },
        run: |with| classify::classify(input(with)?),
    },
    ActionKind {
        kind: "git.worktree",
        doc: "Make a work tree of its own for the merge, standing at the target commit.",
        schema: || {
            schema(
                &[REPOSITORY, REMOTE, BRANCH, TARGET_COMMIT, SOURCE_COMMIT, PATH],
                &["branch", "target_commit", "source_commit"],
            )
        },
        run: |with| worktree::make(input(with)?),
    },
    ActionKind {
        kind: "git.merge",
        doc: "Merge the source commit into the target commit in the merge's work tree, without committing.",
        schema: || schema(&[WORKTREE, TARGET_COMMIT, SOURCE_COMMIT], &["worktree", "target_commit", "source_commit"]),
        run: |with| merge::merge(input(with)?),
    },
    ActionKind {
        kind: "git.resolve",
        doc: "Resolve conflicts where the policy file allows it, and by a command where one is given.",
        schema: || {
            schema(
                &[WORKTREE, TARGET_COMMIT, SOURCE_COMMIT, POLICY, RESOLVER],
                &["worktree", "target_commit", "source_commit"],
            )
        },
        run: |with| merge::resolve(input(with)?),
    },
    ActionKind {
        kind: "git.commit",
        doc: "Commit the merge, or fail with what a person has to do where conflicts are left.",
        schema: || {
            schema(
                &[WORKTREE, TARGET_COMMIT, SOURCE_COMMIT, BRANCH, SOURCE],
                &["worktree", "target_commit", "source_commit", "branch"],
            )
        },
        run: |with| merge::commit(input(with)?),
    },
    ActionKind {
        kind: "git.push",
        doc: "Push the merge without force; where the branch has moved meanwhile, merge onto it first.",
        schema: || {
            schema(
                &[
                    REPOSITORY,
                    WORKTREE,
                    REMOTE,
                    BRANCH,
                    SOURCE,
                    COMMIT,
                    TARGET_COMMIT,
                    SOURCE_COMMIT,
                    POLICY,
                    RESOLVER,
                    LOCAL_BRANCH,
                    PRE_PUSH_HOOK,
                ],
                &["worktree", "branch", "commit", "target_commit", "source_commit"],
            )
        },
        run: |with| push::push(input(with)?),
    },
    ActionKind {
        kind: "git.finish",
        doc: "Remove the merge's work tree once the remote has the merge, and say so in an event file if asked.",
        schema: || {
            schema(
                &[REPOSITORY, WORKTREE, REMOTE, BRANCH, SOURCE_COMMIT, COMMIT, EVENT_FILE],
                &["worktree", "branch", "commit", "source_commit"],
            )
        },
        run: |with| finish::finish(input(with)?),
    },
];

/// A field of an action's input: its name and its JSON Schema.
type Field = (&'static str, fn() -> Value);

const REPOSITORY: Field = (
    "repository",
    || json!({"type": "string", "default": ".", "description": "A folder inside the repository's work tree."}),
);
const REMOTE: Field =
    ("remote", || json!({"type": "string", "default": "origin", "description": "The name of a configured remote."}));
const BRANCH: Field = (
    "branch",
    || json!({"type": "string", "minLength": 1, "description": "The remote's branch that is merged into and pushed."}),
);
const SOURCE: Field = ("source", || {
    json!({"type": "string", "default": "", "description":
        "What is merged: a branch here or on the remote, a full ref name, or a commit id. Empty: the local branch of \
         the same name as `branch`."})
});
const BRANCH_ON_REMOTE: Field = (
    "branch_on_remote",
    || json!({"type": "string", "description": "Where the branch stands on the remote. Empty: not there."}),
);
const SOURCE_ON_REMOTE: Field = (
    "source_on_remote",
    || json!({"type": "string", "description": "Where the source stands on the remote. Empty: not there."}),
);
const NORMALISE: Field = ("normalise", || {
    json!({"enum": ["refuse", "move_aside"], "default": "refuse", "description":
        "`refuse` fails and lists them; `move_aside` moves their `.git` into a backup folder and keeps their files."})
});
const TARGET_COMMIT: Field = (
    "target_commit",
    || json!({"type": "string", "pattern": "^[0-9a-f]{40,64}$", "description": "The commit that is merged into."}),
);
const SOURCE_COMMIT: Field = (
    "source_commit",
    || json!({"type": "string", "pattern": "^[0-9a-f]{40,64}$", "description": "The commit that is merged."}),
);
const COMMIT: Field =
    ("commit", || json!({"type": "string", "pattern": "^[0-9a-f]{40,64}$", "description": "The merge commit."}));
const DIRTY: Field = ("dirty", || {
    json!({"enum": ["involved", "refuse", "allow"], "default": "involved", "description":
        "Whether uncommitted changes block: `involved` where the work tree has the branch or the source checked out, \
         so that the changes look as if they belonged to the merge."})
});
const UNPUSHED: Field = ("unpushed", || {
    json!({"enum": ["refuse", "leave"], "default": "refuse", "description":
        "Whether commits of the local branch that are neither on the remote nor in the source block."})
});
const POLICY: Field = (
    "policy",
    || json!({"type": "string", "default": "", "description": "The path of the policy file. Empty: no policy."}),
);
const PATH: Field = ("path", || {
    json!({"type": "string", "default": "", "description":
        "Where the work tree is made. Empty: inside the repository's git folder, in `baton/worktrees/`."})
});
const WORKTREE: Field =
    ("worktree", || json!({"type": "string", "minLength": 1, "description": "Output `path` of `git.worktree`."}));
const RESOLVER: Field = ("resolver", || {
    json!({"type": "string", "default": "", "description":
        "A shell command that resolves the conflicts which are left, run in the merge's work tree. Empty: none."})
});
const LOCAL_BRANCH: Field = ("local_branch", || {
    json!({"enum": ["fast_forward", "leave"], "default": "fast_forward", "description":
        "Whether the local branch follows the pushed one where that is a fast-forward and nobody has it checked out."})
});
const PRE_PUSH_HOOK: Field = ("pre_push_hook", || {
    json!({"enum": ["skip", "run"], "default": "skip", "description":
        "Whether your own pre-push hook runs, in your own work tree, as with a push of your own. git LFS needs it."})
});
const EVENT_FILE: Field = ("event_file", || {
    json!({"type": "string", "default": "", "description":
        "A file to which the success event is appended as one line of JSON. Empty: none."})
});

fn schema(fields: &[Field], required: &[&str]) -> Value {
    let properties: Map<String, Value> = fields.iter().map(|(name, field)| ((*name).to_owned(), field())).collect();
    json!({"type": "object", "additionalProperties": false, "required": required, "properties": properties})
}

fn input<T: DeserializeOwned>(with: Value) -> Result<T, ActionFailure> {
    serde_json::from_value(with).map_err(|error| ActionFailure {
        exit_code: EXIT_BAD_INPUT,
        message: format!("the action's input is not what its schema says: {error}"),
    })
}

fn blocked(message: impl Into<String>) -> ActionFailure {
    ActionFailure { exit_code: EXIT_BLOCKED, message: message.into() }
}

fn failed(message: impl Into<String>) -> ActionFailure {
    ActionFailure { exit_code: EXIT_FAILED, message: message.into() }
}

fn try_again(message: impl Into<String>) -> ActionFailure {
    ActionFailure { exit_code: EXIT_TRY_AGAIN, message: message.into() }
}

fn bad_input(message: impl Into<String>) -> ActionFailure {
    ActionFailure { exit_code: EXIT_BAD_INPUT, message: message.into() }
}

/// Prints one line of progress. A reader who has gone away does not stop a merge.
fn say(line: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The outputs of an action, from a JSON object.
fn outputs(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => unreachable!("outputs are written as an object, not as {other}"),
    }
}

/// Reads the id of a commit. Nothing else passes, so that what stands where git expects a commit is no option.
fn commit_id<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    let id = String::deserialize(input)?;
    let is_id = matches!(id.len(), 40 | 64) && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_id { Ok(id) } else { Err(D::Error::custom(format!("{id:?} is not the full id of a commit"))) }
}

/// The form of a default that serde calls.
fn here() -> String {
    ".".to_owned()
}

/// The remote that git itself takes by default.
fn origin() -> String {
    "origin".to_owned()
}
