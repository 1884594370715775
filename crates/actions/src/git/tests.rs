//! Stories of the `git.*` actions on real repositories with a real remote, in every order that a crash can make.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use super::{EXIT_BAD_INPUT, EXIT_BLOCKED, EXIT_FAILED, EXIT_TRY_AGAIN, KINDS};
use crate::registry::ActionFailure;

/// A bare remote, the user's clone of it, and the clone of somebody else.
struct World {
    folder: tempfile::TempDir,
}

/// What one merge is asked for, as the plan's variables would say it.
#[derive(Clone)]
struct Ask {
    branch: String,
    source: String,
    policy: String,
    resolver: String,
    dirty: &'static str,
}

type Answer = Result<Map<String, Value>, ActionFailure>;

const POLICY: &str = r#"{
    "default": "code",
    "classes": {
        "code": {"resolve": "manual"},
        "data": {"resolve": "newest", "whole_file": true},
        "text": {"resolve": "newest"},
        "log": {"resolve": "union"},
        "mine": {"resolve": "ours"},
        "yours": {"resolve": "theirs"}
    },
    "rules": [
        {"paths": ["**/*.data"], "class": "data"},
        {"paths": ["**/*.text"], "class": "text"},
        {"paths": ["**/*.log"], "class": "log"},
        {"paths": ["**/*.mine"], "class": "mine"},
        {"paths": ["**/*.yours"], "class": "yours"}
    ]
}"#;

/// Noon of some day, in Unix seconds; commits are made at so many seconds after it.
const NOON: u64 = 1_700_000_000;

impl World {
    /// `main` on the remote with one commit of these files.
    fn with(files: &[(&str, &str)]) -> Self {
        let world = Self { folder: tempfile::tempdir().expect("a scratch folder") };
        let at = world.folder.path();
        git(at, &["init", "--quiet", "--template=", "--bare", "--initial-branch=main", "remote.git"]);
        git(at, &["init", "--quiet", "--template=", "--initial-branch=main", "user"]);
        world.configure("user");
        git(&world.user(), &["remote", "add", "origin", "../remote.git"]);
        world.commit("user", 0, files);
        git(&world.user(), &["push", "--quiet", "origin", "main"]);
        git(at, &["clone", "--quiet", "--template=", "remote.git", "other"]);
        world.configure("other");
        world
    }

    fn configure(&self, clone: &str) {
        let file = self.path(clone).join(".git/config");
        let more = "[user]\n\tname = Ada\n\temail = ada@example.org\n[commit]\n\tgpgSign = false\n[gc]\n\tauto = 0\n";
        let text = fs::read_to_string(&file).expect("there is a configuration") + more;
        fs::write(file, text).expect("the configuration is written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("the scratch folder is there").join(name)
    }

    fn user(&self) -> PathBuf {
        self.path("user")
    }

    /// Commits these files in a clone, so many seconds after noon; an empty content deletes the file.
    fn commit(&self, clone: &str, seconds: u64, files: &[(&str, &str)]) -> String {
        let files: Vec<(&[u8], &[u8])> = files.iter().map(|(path, text)| (path.as_bytes(), text.as_bytes())).collect();
        self.commit_bytes(clone, seconds, &files)
    }

    fn commit_bytes(&self, clone: &str, seconds: u64, files: &[(&[u8], &[u8])]) -> String {
        let at = self.path(clone);
        for (path, content) in files {
            let file = at.join(OsStr::from_bytes(path));
            if content.is_empty() {
                fs::remove_file(file).expect("the file is there");
            } else {
                fs::create_dir_all(file.parent().expect("a folder")).expect("the folder is made");
                fs::write(file, content).expect("the file is written");
            }
        }
        git(&at, &["add", "--all"]);
        self.commit_index(clone, seconds)
    }

    fn commit_index(&self, clone: &str, seconds: u64) -> String {
        let date = format!("{} +0000", NOON + seconds);
        let done = Command::new("git")
            .args(["commit", "--quiet", "--allow-empty", "--message", "change"])
            .current_dir(self.path(clone))
            .env("GIT_COMMITTER_DATE", &date)
            .env("GIT_AUTHOR_DATE", &date)
            .output()
            .expect("git runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        git(&self.path(clone), &["rev-parse", "HEAD"])
    }

    /// Somebody else commits to `main` and pushes.
    fn other_pushes(&self, seconds: u64, files: &[(&str, &str)]) -> String {
        git(&self.path("other"), &["pull", "--quiet", "--rebase"]);
        let commit = self.commit("other", seconds, files);
        git(&self.path("other"), &["push", "--quiet", "origin", "HEAD:main"]);
        commit
    }

    /// What the remote has on a branch.
    fn remote_tip(&self, branch: &str) -> String {
        git(&self.path("remote.git"), &["rev-parse", &format!("refs/heads/{branch}")])
    }

    /// A file as the remote's branch has it.
    fn remote_file(&self, path: &[u8]) -> Option<String> {
        let name = [b"refs/heads/main:", path].concat();
        let done = Command::new("git")
            .args([OsStr::new("cat-file"), "blob".as_ref(), OsStr::from_bytes(&name)])
            .current_dir(self.path("remote.git"))
            .output()
            .expect("git runs");
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
    }

    fn ask(&self) -> Ask {
        let policy = self.path("policy.json");
        fs::write(&policy, POLICY).expect("the policy is written");
        Ask {
            branch: "main".to_owned(),
            source: String::new(),
            policy: policy.to_str().expect("UTF-8").to_owned(),
            resolver: String::new(),
            dirty: "involved",
        }
    }

    fn fetch(&self, ask: &Ask) -> Answer {
        let mut input = json!({"repository": self.user(), "branch": ask.branch, "source": ask.source});
        let fetched = run("git.fetch", input.clone())?;
        for (key, value) in fetched {
            input[key] = value;
        }
        run("git.select", input)
    }

    fn nested(&self, normalise: &str) -> Answer {
        run("git.nested", json!({"repository": self.user(), "normalise": normalise}))
    }

    fn health(&self, ask: &Ask, fetched: &Map<String, Value>) -> Answer {
        run(
            "git.sync_health",
            json!({
                "repository": self.user(), "branch": ask.branch, "source": ask.source, "dirty": ask.dirty,
                "target_commit": fetched["target_commit"], "source_commit": fetched["source_commit"],
            }),
        )
    }

    /// Everything up to the merge's own work tree.
    fn prepare(&self, ask: &Ask) -> Result<Merge<'_>, ActionFailure> {
        run("git.scan", json!({"repository": self.user(), "branch": ask.branch, "source": ask.source}))?;
        self.nested("refuse")?;
        let fetched = self.fetch(ask)?;
        self.health(ask, &fetched)?;
        let (target, source) = (fetched["target_commit"].clone(), fetched["source_commit"].clone());
        run(
            "git.classify",
            json!({
                "repository": self.user(), "target_commit": target, "source_commit": source, "policy": ask.policy,
            }),
        )?;
        let made = run(
            "git.worktree",
            json!({
                "repository": self.user(), "branch": ask.branch, "target_commit": target, "source_commit": source,
            }),
        )?;
        let worktree = PathBuf::from(made["path"].as_str().expect("a path"));
        Ok(Merge { world: self, ask: ask.clone(), target, source, worktree })
    }

    /// The whole of it.
    fn safe_merge(&self, ask: &Ask) -> Answer {
        let merge = self.prepare(ask)?;
        merge.merge()?;
        merge.resolve()?;
        let commit = merge.commit()?;
        let pushed = merge.push(&commit)?;
        merge.finish(&pushed)
    }

    /// Everything that is the user's: files, index, `HEAD`, branches, and what git says about them.
    fn mine(&self) -> BTreeMap<String, Vec<u8>> {
        let user = self.user();
        let mut all = BTreeMap::new();
        let mut waiting = vec![user.clone()];
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path == user.join(".git") {
                    continue;
                }
                if path.is_dir() {
                    waiting.push(path);
                } else {
                    all.insert(format!("{path:?}"), fs::read(&path).expect("a file"));
                }
            }
        }
        for name in ["index", "HEAD", "ORIG_HEAD", "FETCH_HEAD", "MERGE_HEAD", "config", "logs/HEAD", "refs/stash"] {
            all.insert(format!(".git/{name}"), fs::read(user.join(".git").join(name)).unwrap_or_default());
        }
        for question in [&["status", "--porcelain"][..], &["for-each-ref", "refs/heads", "refs/tags"]] {
            let question = [&["--no-optional-locks"], question].concat();
            all.insert(question.join(" "), git(&user, &question).into_bytes());
        }
        all
    }
}

/// One merge under way: what the steps before it have said.
struct Merge<'a> {
    world: &'a World,
    ask: Ask,
    target: Value,
    source: Value,
    worktree: PathBuf,
}

impl Merge<'_> {
    fn with(&self, more: Value) -> Value {
        let mut input = json!({
            "worktree": self.worktree, "target_commit": self.target, "source_commit": self.source,
        });
        for (key, value) in more.as_object().expect("an object") {
            input[key] = value.clone();
        }
        input
    }

    fn merge(&self) -> Answer {
        run("git.merge", self.with(json!({})))
    }

    fn resolve(&self) -> Answer {
        run("git.resolve", self.with(json!({"policy": self.ask.policy, "resolver": self.ask.resolver})))
    }

    fn commit(&self) -> Answer {
        run("git.commit", self.with(json!({"branch": self.ask.branch, "source": self.ask.source})))
    }

    fn push(&self, commit: &Map<String, Value>) -> Answer {
        run(
            "git.push",
            self.with(json!({
                "repository": self.world.user(), "branch": self.ask.branch, "source": self.ask.source,
                "commit": commit["commit"],
                "policy": self.ask.policy, "resolver": self.ask.resolver,
            })),
        )
    }

    fn finish(&self, pushed: &Map<String, Value>) -> Answer {
        run(
            "git.finish",
            json!({
                "repository": self.world.user(), "worktree": self.worktree, "branch": self.ask.branch,
                "source_commit": self.source, "commit": pushed["commit"], "event_file": self.world.path("events.jsonl"),
            }),
        )
    }

    /// The folder with the index of the merge's work tree.
    fn admin(&self) -> PathBuf {
        PathBuf::from(git(&self.worktree, &["rev-parse", "--absolute-git-dir"]))
    }
}

fn run(kind: &str, input: Value) -> Answer {
    let action = KINDS.iter().find(|action| action.kind == kind).expect("the kind is known");
    (action.run)(input)
}

fn git(at: &Path, arguments: &[&str]) -> String {
    let done = Command::new("git").args(arguments).current_dir(at).env("LC_ALL", "C").output().expect("git runs");
    assert!(done.status.success(), "git {arguments:?} in {at:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim_end().to_owned()
}

/// The failure of an answer, which has to have this exit code and these words.
fn refused(answer: Answer, exit_code: u8, words: &[&str]) -> String {
    let failure = answer.expect_err("it has to fail");
    assert_eq!(failure.exit_code, exit_code, "{}", failure.message);
    for word in words {
        assert!(failure.message.contains(word), "{word:?} is not in: {}", failure.message);
    }
    failure.message
}

/// A world in which `main` here and on the remote both changed these files: theirs is the user's, an hour later.
fn diverged(base: &str, on_remote: &str, here: &str, paths: &[&str]) -> World {
    let each = |text| paths.iter().map(|path| (*path, text)).collect::<Vec<(&str, &str)>>();
    let world = World::with(&each(base));
    world.other_pushes(3600, &each(on_remote));
    world.commit("user", 7200, &each(here));
    world
}

#[test]
fn diverged_branches_without_conflicts_are_merged_and_pushed() {
    let world = World::with(&[("a", "1\n")]);
    let theirs = world.other_pushes(10, &[("b", "2\n")]);
    let mine = world.commit("user", 20, &[("c", "3\n")]);
    let before = world.mine();

    let merge = world.prepare(&world.ask()).expect("a healthy repository");
    assert_eq!(merge.merge().expect("a clean merge")["state"], "clean");
    assert_eq!(merge.resolve().expect("nothing to resolve")["left_count"], 0);
    let commit = merge.commit().expect("a commit");
    let pushed = merge.push(&commit).expect("a push");
    assert_eq!(pushed["pushed"], true);
    assert_eq!(pushed["local_branch"], "checked_out", "main is checked out by the user, so it stays");
    let event = merge.finish(&pushed).expect("the end");
    assert_eq!(event["event"], "safe_merge_succeeded");

    assert_eq!(world.remote_tip("main"), commit["commit"]);
    assert_eq!(
        git(&world.path("remote.git"), &["log", "-1", "--format=%P %s", "main"]),
        format!("{theirs} {mine} Merge local branch 'main' into 'main'")
    );
    assert_eq!(world.mine(), before);
    assert!(!merge.worktree.exists());
    assert_eq!(git(&world.user(), &["worktree", "list"]).lines().count(), 1);

    // Once more: there is nothing left to merge, and the remote stays as it is.
    let again = world.safe_merge(&world.ask()).expect("nothing to do");
    assert_eq!(world.remote_tip("main"), commit["commit"]);
    assert_eq!(again["commit"], commit["commit"]);
}

#[test]
fn a_feature_branch_is_merged_without_fast_forward_and_an_idle_local_branch_follows() {
    let world = World::with(&[("a", "1\n")]);
    git(&world.user(), &["switch", "--quiet", "--create", "topic/with space".replace(' ', "_").as_str()]);
    world.commit("user", 10, &[("b", "2\n")]);
    let before = world.mine();
    let ask = Ask { source: "topic/with_space".to_owned(), ..world.ask() };
    let merge = world.prepare(&ask).expect("healthy");
    merge.merge().expect("clean");
    merge.resolve().expect("nothing");
    let commit = merge.commit().expect("a commit");
    let pushed = merge.push(&commit).expect("pushed");
    assert_eq!(pushed["local_branch"], "fast_forwarded");
    assert_eq!(git(&world.user(), &["rev-parse", "main"]), commit["commit"].as_str().expect("text"));
    let parents = git(&world.user(), &["log", "-1", "--format=%P", "main"]);
    assert_eq!(parents.split(' ').count(), 2, "a merge commit although a fast-forward was possible");
    // Apart from the branch that followed, nothing of the user's has changed.
    let mut after = world.mine();
    let mut before = before;
    for all in [&mut before, &mut after] {
        all.retain(|name, _| !name.contains("for-each-ref"));
    }
    assert_eq!(after, before);
}

#[test]
fn the_policy_resolves_by_time_side_or_union_and_the_commit_says_so() {
    let paths = ["x.data", "deep/y.data", "z.log", "m.mine", "t.yours"];
    let world = diverged("base\n", "remote\n", "user\n", &paths);
    // The remote's change to this one is the later one.
    world.other_pushes(9000, &[("deep/y.data", "remote, late\n")]);
    let before = world.mine();

    let merge = world.prepare(&world.ask()).expect("healthy");
    assert_eq!(merge.merge().expect("git's part")["conflict_count"], 5);
    let resolved = merge.resolve().expect("the policy's part");
    assert_eq!((&resolved["resolved_count"], &resolved["left_count"]), (&json!(5), &json!(0)), "{resolved:?}");
    assert_eq!(git(&merge.worktree, &["diff", "--name-only"]), "", "the files are what the index has");
    let commit = merge.commit().expect("a commit");
    assert_eq!(commit["by_hand"], false);
    merge.finish(&merge.push(&commit).expect("pushed")).expect("the end");

    for (path, text) in [
        ("x.data", "user\n"),
        ("deep/y.data", "remote, late\n"),
        ("z.log", "remote\nuser\n"),
        ("m.mine", "remote\n"),
        ("t.yours", "user\n"),
    ] {
        assert_eq!(world.remote_file(path.as_bytes()).as_deref(), Some(text), "{path}");
    }
    let message = git(&world.path("remote.git"), &["log", "-1", "--format=%B", "main"]);
    assert!(message.contains("x.data (data): theirs; theirs is newer by 3600 s"), "{message}");
    assert!(message.contains("z.log (log): both where they conflict"), "{message}");
    assert_eq!(world.mine(), before);
}

#[test]
fn the_newer_side_wins_where_they_conflict_and_both_are_kept_where_they_do_not() {
    let base = "top\n1\n2\n3\n4\n5\n6\nmiddle\n1\n2\n3\n4\n5\n6\nend\n";
    let remote = base.replace("top", "remote's top").replace("middle", "remote's middle");
    let here = base.replace("middle", "my middle").replace("end", "my end");
    let world = World::with(&[("x.text", base), ("x.data", base)]);
    make_executable(&world.path("other/x.text"));
    world.commit("other", 3600, &[("x.text", &remote), ("x.data", &remote)]);
    git(&world.path("other"), &["push", "--quiet", "origin", "HEAD:main"]);
    world.commit("user", 7200, &[("x.text", &here), ("x.data", &here)]);
    let merge = world.prepare(&world.ask()).expect("healthy");
    merge.merge().expect("git's part");
    merge.resolve().expect("decided by time");
    merge.finish(&merge.push(&merge.commit().expect("a commit")).expect("pushed")).expect("the end");
    assert!(
        git(&world.path("remote.git"), &["ls-tree", "main", "x.text"]).starts_with("100755"),
        "only they changed it"
    );
    let mixed = base.replace("top", "remote's top").replace("middle", "my middle").replace("end", "my end");
    assert_eq!(world.remote_file(b"x.text"), Some(mixed));
    assert_eq!(world.remote_file(b"x.data"), Some(here), "the whole file, for a tool made it");
}

#[test]
fn a_deletion_against_a_change_goes_to_the_newer_side() {
    let world = World::with(&[("kept.data", "1\n"), ("gone.data", "1\n"), ("code.rs", "1\n")]);
    world.other_pushes(3600, &[("kept.data", ""), ("gone.data", "changed\n")]);
    world.commit("user", 7200, &[("kept.data", "changed\n"), ("gone.data", "")]);
    world.safe_merge(&world.ask()).expect("both are decided by time");
    assert_eq!(world.remote_file(b"kept.data").as_deref(), Some("changed\n"));
    assert_eq!(world.remote_file(b"gone.data"), None);
}

#[test]
fn a_tie_in_time_is_left_to_a_person() {
    let world = World::with(&[("x.data", "1\n")]);
    world.other_pushes(60, &[("x.data", "2\n")]);
    world.commit("user", 60, &[("x.data", "3\n")]);
    refused(world.safe_merge(&world.ask()), EXIT_BLOCKED, &["x.data", "class data", "same second"]);
}

#[test]
fn an_unresolvable_conflict_blocks_with_instructions_and_goes_on_when_it_is_resolved() {
    let world = diverged("base\n", "remote\n", "user\n", &["src/a b.rs", "x.data"]);
    fs::write(world.user().join("untracked"), "mine").expect("written");
    let (before, tip) = (world.mine(), world.remote_tip("main"));

    let merge = world.prepare(&world.ask()).expect("healthy");
    merge.merge().expect("git's part");
    let resolved = merge.resolve().expect("the policy's part");
    assert_eq!(resolved["left"][0]["path"], "src/a b.rs");
    let cd = format!("cd {}", merge.worktree.display());
    let words = [cd.as_str(), "git add -- 'src/a b.rs'", "baton retry", "your own work tree is as it was", "RESOLVER="];
    let message = refused(merge.commit(), EXIT_BLOCKED, &words);
    assert!(!message.contains("x.data"), "what the policy resolved needs nobody: {message}");
    assert_eq!(world.mine(), before);
    assert_eq!(world.remote_tip("main"), tip);
    // Asked again without anything having been done, it says the same.
    refused(merge.commit(), EXIT_BLOCKED, &["src/a b.rs"]);

    // A person marks the file as resolved but has left the marks in.
    git(&merge.worktree, &["add", "--", "src/a b.rs"]);
    refused(merge.commit(), EXIT_BLOCKED, &["src/a b.rs", "still has conflict marks"]);
    fs::write(merge.worktree.join("src/a b.rs"), "both\n").expect("written");
    git(&merge.worktree, &["add", "--", "src/a b.rs"]);
    let commit = merge.commit().expect("resolved");
    assert_eq!(commit["by_hand"], true);
    merge.finish(&merge.push(&commit).expect("pushed")).expect("the end");
    assert_eq!(world.remote_file(b"src/a b.rs").as_deref(), Some("both\n"));
    assert_eq!(world.remote_file(b"x.data").as_deref(), Some("user\n"));
    assert_eq!(world.mine(), before);
}

#[test]
fn what_a_person_has_half_resolved_is_never_thrown_away() {
    let world = diverged("base\n", "remote\n", "user\n", &["a", "b"]);
    let merge = world.prepare(&world.ask()).expect("healthy");
    merge.merge().expect("git's part");
    merge.resolve().expect("nothing is allowed");
    refused(merge.commit(), EXIT_BLOCKED, &["a", "b"]);

    // A new run of the same merge goes on with it, touched or not.
    fs::write(merge.worktree.join("a"), "both\n").expect("written");
    let again = world.prepare(&world.ask()).expect("healthy");
    again.merge().expect("continued");
    again.resolve().expect("nothing is allowed");
    refused(again.commit(), EXIT_BLOCKED, &["git add -- a"]);
    assert_eq!(fs::read_to_string(merge.worktree.join("a")).expect("there"), "both\n");

    // A new run with another target would have to start over, and does not.
    world.other_pushes(8000, &[("c", "new\n")]);
    let message = refused(world.prepare(&world.ask()).map(|_| Map::new()), EXIT_BLOCKED, &["would lose that work"]);
    assert!(message.contains("git worktree remove --force"), "{message}");
    assert_eq!(fs::read_to_string(merge.worktree.join("a")).expect("there"), "both\n");

    // Given up by the command that the message names, the way is free.
    git(&world.user(), &["worktree", "remove", "--force", merge.worktree.to_str().expect("UTF-8")]);
    let fresh = world.prepare(&world.ask()).expect("healthy");
    assert_eq!(fresh.merge().expect("git's part")["conflict_count"], 2);
    // Handed over but untouched, it may be replaced by another merge.
    fresh.resolve().expect("nothing is allowed");
    refused(fresh.commit(), EXIT_BLOCKED, &["a", "b"]);
    world.other_pushes(9000, &[("d", "new\n")]);
    world.prepare(&world.ask()).expect("replaced");
}

#[test]
fn the_resolver_decides_what_the_policy_leaves_and_only_that() {
    let world = diverged("base\n", "remote\n", "user\n", &["a", "b c", "x.data"]);
    let script =
        "xargs -0 -n1 < \"$BATON_CONFLICTS\" >> ../seen; xargs -0 sed -i '/^[<=>]\\{7\\}/d' < \"$BATON_CONFLICTS\"";
    let ask = Ask { resolver: script.to_owned(), ..world.ask() };
    let merge = world.prepare(&ask).expect("healthy");
    merge.merge().expect("git's part");
    assert_eq!(merge.resolve().expect("resolved")["left_count"], 0);
    let seen = fs::read_to_string(merge.worktree.parent().expect("a folder").join("seen")).expect("the resolver ran");
    assert_eq!(seen, "a\nb c\n");
    let commit = merge.commit().expect("a commit");
    assert_eq!(commit["by_hand"], true);
    merge.finish(&merge.push(&commit).expect("pushed")).expect("the end");
    assert_eq!(world.remote_file(b"b c").as_deref(), Some("remote\nuser\n"));
}

#[test]
fn a_resolver_that_is_run_again_finds_the_conflict_as_it_was() {
    let world = diverged("base\n", "remote\n", "user\n", &["a"]);
    let script = "grep -q '^<<<<<<< ' a && echo decided > a";
    let merge = world.prepare(&Ask { resolver: script.to_owned(), ..world.ask() }).expect("healthy");
    merge.merge().expect("git's part");
    // A first attempt was killed after it had written the file and before that was noted.
    fs::write(merge.worktree.join("a"), "half of").expect("written");
    assert_eq!(merge.resolve().expect("resolved")["left_count"], 0);
    assert_eq!(fs::read_to_string(merge.worktree.join("a")).expect("there"), "decided\n");
}

#[test]
fn a_resolver_that_decides_nothing_or_fails_leaves_the_gate() {
    let world = diverged("base\n", "remote\n", "user\n", &["a"]);
    let idle = Ask { resolver: "true".to_owned(), ..world.ask() };
    refused(world.safe_merge(&idle), EXIT_BLOCKED, &["git add -- a"]);
    let failing = Ask { resolver: "echo no idea; exit 7".to_owned(), ..world.ask() };
    refused(world.safe_merge(&failing), EXIT_FAILED, &["exit 7", "failed"]);

    // Binary content has no marks, so an untouched file is no decision.
    let world = World::with(&[("image", "\0one")]);
    world.other_pushes(10, &[("image", "\0two")]);
    world.commit("user", 20, &[("image", "\0three")]);
    refused(world.safe_merge(&Ask { resolver: "true".to_owned(), ..world.ask() }), EXIT_BLOCKED, &["image"]);
    let marked = Ask { resolver: "git checkout --quiet --ours image && git add image".to_owned(), ..world.ask() };
    world.safe_merge(&marked).expect("the resolver marked it itself");
    assert_eq!(world.remote_file(b"image").as_deref(), Some("\0two"));
}

/// Asks for a policy that resolves every file in the same way, as greedily as one can.
fn greedy(world: &World, resolution: &str) -> Ask {
    let text = format!(r#"{{"default": "all", "classes": {{"all": {{"resolve": "{resolution}"}}}}, "rules": []}}"#);
    let ask = world.ask();
    fs::write(&ask.policy, text).expect("written");
    ask
}

#[test]
fn renames_and_files_against_folders_are_left_by_every_policy() {
    let text = |word: &str| (0..40).map(|line| format!("{word} {line}\n")).collect::<String>();
    let (one, two) = (text("one"), text("two"));
    let world = World::with(&[("forked", &one), ("moved", &two)]);
    // Renamed to two names; renamed on one side and changed on the other; a file against a folder.
    let changed = two.replacen("two 0", "changed", 1);
    let files = [("forked", ""), ("fork1", one.as_str()), ("moved", ""), ("new", &changed), ("place", "file\n")];
    world.other_pushes(10, &files);
    let changed = two.replacen("two 0", "also", 1);
    let files = [("forked", ""), ("fork2", one.as_str()), ("moved", &changed), ("place/inside", "folder\n")];
    world.commit("user", 20, &files);

    let merge = world.prepare(&world.ask()).expect("healthy");
    let merged = merge.merge().expect("git's part");
    for resolution in ["ours", "theirs", "newest", "union"] {
        let _ = greedy(&world, resolution);
        let resolved = merge.resolve().expect("the policy's part");
        assert_eq!(resolved["resolved"], json!([]), "{resolution}");
        assert_eq!(resolved["left_count"], merged["conflict_count"], "{resolution}");
    }
    refused(merge.commit(), EXIT_BLOCKED, &["forked", "fork1", "fork2", "new", "a rename", "place"]);
}

#[test]
fn links_modes_submodules_and_binaries_are_whole_versions_or_left() {
    use std::os::unix::fs::symlink;
    // A link against a file.
    let world = World::with(&[("x", "1\n")]);
    world.other_pushes(10, &[("thing", "file\n")]);
    symlink("x", world.user().join("thing")).expect("linked");
    git(&world.user(), &["add", "thing"]);
    world.commit_index("user", 20);
    refused(world.safe_merge(&greedy(&world, "theirs")), EXIT_BLOCKED, &["thing"]);

    // Two links: the newer one.
    let world = World::with(&[("x", "1\n")]);
    for (clone, to, seconds) in [("other", "remote", 10), ("user", "user", 20)] {
        symlink(to, world.path(clone).join("link")).expect("linked");
        git(&world.path(clone), &["add", "link"]);
        world.commit_index(clone, seconds);
    }
    git(&world.path("other"), &["push", "--quiet", "origin", "HEAD:main"]);
    world.safe_merge(&greedy(&world, "newest")).expect("decided");
    assert_eq!(world.remote_file(b"link").as_deref(), Some("user"));

    // The same new file, executable on one side only, with other content: the whole of one side.
    let world = World::with(&[("x", "1\n")]);
    world.other_pushes(10, &[("tool", "remote\n")]);
    fs::write(world.user().join("tool"), "user\n").expect("written");
    make_executable(&world.user().join("tool"));
    world.commit("user", 20, &[]);
    refused(world.safe_merge(&greedy(&world, "union")), EXIT_BLOCKED, &["tool", "same mode"]);
    world.safe_merge(&greedy(&world, "theirs")).expect("decided");
    assert!(git(&world.path("remote.git"), &["ls-tree", "main", "tool"]).starts_with("100755"));

    // A submodule that stands at another commit on each side.
    let world = World::with(&[("x", "1\n")]);
    let link = |clone: &str, commit: &str, seconds| {
        git(&world.path(clone), &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
        world.commit_index(clone, seconds);
    };
    link("other", &"1".repeat(40), 10);
    git(&world.path("other"), &["push", "--quiet", "origin", "HEAD:main"]);
    link("user", &"2".repeat(40), 20);
    fs::write(world.user().join(".gitmodules"), "[submodule \"sub\"]\n\tpath = sub\n\turl = ./sub\n").expect("written");
    let ask = Ask { dirty: "allow", ..greedy(&world, "newest") };
    refused(world.safe_merge(&ask), EXIT_BLOCKED, &["sub", "submodule"]);
}

#[test]
fn hostile_names_of_branches_and_files_are_only_names() {
    let name: &[u8] = b"-rf $(touch pwned)\n\xff.data";
    let left: &[u8] = b"--help \xfe";
    let world = World::with(&[("a", "1\n")]);
    world.commit_bytes("other", 10, &[(name, b"remote\n"), (left, b"remote\n"), (b":(top)odd.log", b"remote\n")]);
    git(&world.path("other"), &["push", "--quiet", "origin", "HEAD:main", "HEAD:refs/heads/-x"]);
    world.commit_bytes("user", 20, &[(name, b"user\n"), (left, b"user\n"), (b":(top)odd.log", b"user\n")]);
    git(&world.user(), &["update-ref", "refs/heads/--force", "HEAD"]);

    let ask = Ask { branch: "-x".to_owned(), source: "--force".to_owned(), ..world.ask() };
    let merge = world.prepare(&ask).expect("these are names that git can have");
    assert_eq!(merge.merge().expect("git's part")["conflict_count"], 3);
    let resolved = merge.resolve().expect("the policy's part");
    assert_eq!(resolved["resolved_count"], 2, "{resolved:?}");
    let message = refused(merge.commit(), EXIT_BLOCKED, &[r"git add -- $'--help \376'"]);
    let command = message.lines().find(|line| line.contains("git add --")).expect("a command").trim();
    fs::write(merge.worktree.join(OsStr::from_bytes(left)), "both\n").expect("written");
    let done = Command::new("bash").args(["-c", command]).current_dir(&merge.worktree).output().expect("bash runs");
    assert!(done.status.success(), "the command in the message works as it stands: {command}");
    let commit = merge.commit().expect("resolved");
    merge.finish(&merge.push(&commit).expect("pushed")).expect("the end");
    assert_eq!(world.remote_tip("-x"), commit["commit"]);
    let listing = Command::new("git")
        .args(["ls-tree", "--name-only", "-z", "refs/heads/-x"])
        .current_dir(world.path("remote.git"))
        .output()
        .expect("git runs");
    assert!(listing.stdout.split(|byte| *byte == 0).any(|path| path == name));

    for (branch, source) in
        [("a..b", ""), ("main", "x y"), ("main", "a\nb"), ("", ""), ("main", "^main"), ("@{-1}", "")]
    {
        let ask = Ask { branch: branch.to_owned(), source: source.to_owned(), ..world.ask() };
        refused(world.prepare(&ask).map(|_| Map::new()), EXIT_BAD_INPUT, &["not a name"]);
    }
    let input = json!({"worktree": ".", "target_commit": "--output=pwned", "source_commit": "0".repeat(40)});
    refused(run("git.merge", input), EXIT_BAD_INPUT, &["not the full id of a commit"]);
    for remote in ["--upload-pack=touch pwned", "nowhere"] {
        let input = json!({"repository": world.user(), "branch": "main", "remote": remote});
        refused(run("git.fetch", input), EXIT_BLOCKED, &["no remote", "origin"]);
    }
}

#[test]
fn a_dirty_tree_blocks_only_where_its_changes_seem_to_belong_to_the_merge() {
    let world = World::with(&[("a", "1\n")]);
    git(&world.user(), &["branch", "topic"]);
    world.commit("user", 10, &[("b", "2\n")]);
    fs::write(world.user().join("a"), "not committed\n").expect("written");
    fs::write(world.user().join("untracked"), "x\n").expect("written");
    fs::create_dir(world.user().join(".baton")).expect("made");
    fs::write(world.user().join(".baton/baton.db"), "x").expect("written");
    let before = world.mine();

    refused(world.safe_merge(&world.ask()), EXIT_BLOCKED, &["uncommitted changes", ": a;", "DIRTY=allow"]);
    assert_eq!(world.mine(), before);
    let allowed = Ask { dirty: "allow", ..world.ask() };
    world.safe_merge(&allowed).expect("left out on purpose");
    assert_eq!(world.mine(), before);
    assert_eq!(world.remote_file(b"a").as_deref(), Some("1\n"));

    // On a third branch they have nothing to do with it.
    git(&world.user(), &["switch", "--quiet", "--create", "third"]);
    let ask = Ask { source: "topic".to_owned(), ..world.ask() };
    let fetched = world.fetch(&ask).expect("fetched");
    let health = world.health(&ask, &fetched).expect("healthy");
    assert_eq!((&health["changed"], &health["untracked"]), (&json!(1), &json!(1)));
    refused(world.health(&Ask { dirty: "refuse", ..ask }, &fetched), EXIT_BLOCKED, &["uncommitted changes"]);
}

#[test]
fn an_unhealthy_repository_is_refused_with_the_way_out() {
    let world = diverged("base\n", "remote\n", "user\n", &["a"]);
    let ask = world.ask();
    let fetched = world.fetch(&ask).expect("fetched");
    world.health(&ask, &fetched).expect("healthy so far");

    fs::write(world.user().join(".git/index.lock"), "").expect("written");
    let health = world.health(&ask, &fetched).expect("the merge has an index of its own");
    assert!(health["notes"].to_string().contains("index.lock"), "{health:?}");
    fs::remove_file(world.user().join(".git/index.lock")).expect("removed");

    let merging =
        Command::new("git").args(["merge", "origin/main"]).current_dir(world.user()).output().expect("git runs");
    assert!(!merging.status.success());
    refused(world.health(&ask, &fetched), EXIT_BLOCKED, &["a merge is unfinished", "git merge --abort"]);
    git(&world.user(), &["merge", "--abort"]);

    let detached = git(&world.user(), &["rev-parse", "HEAD"]);
    git(&world.user(), &["switch", "--quiet", "--detach"]);
    let health = world.health(&ask, &fetched).expect("a detached HEAD harms nothing");
    assert!(health["notes"].to_string().contains("detached HEAD"), "{health:?}");
    git(&world.user(), &["switch", "--quiet", "main"]);

    // Commits of the local branch that are in neither side of the merge.
    git(&world.user(), &["branch", "topic", "HEAD~1"]);
    let topic = Ask { source: "topic".to_owned(), ..ask.clone() };
    let input = json!({
        "repository": world.user(), "branch": "main", "source": "topic",
        "target_commit": fetched["target_commit"], "source_commit": git(&world.user(), &["rev-parse", "topic"]),
    });
    refused(run("git.sync_health", input.clone()), EXIT_BLOCKED, &["1 commit of main", "UNPUSHED=leave"]);
    let mut leave = input;
    leave["unpushed"] = json!("leave");
    run("git.sync_health", leave).expect("left out on purpose");
    // The same commits are no problem where the source has them.
    git(&world.user(), &["branch", "--force", "topic", &detached]);
    let fetched = world.fetch(&topic).expect("fetched");
    world.health(&topic, &fetched).expect("nothing is left out");

    let shallow = world.path("shallow");
    let remote = format!("file://{}", world.path("remote.git").display());
    git(&world.path("."), &["clone", "--quiet", "--depth", "1", &remote, "shallow"]);
    let tip = git(&shallow, &["rev-parse", "HEAD"]);
    let input = json!({"repository": shallow, "branch": "main", "target_commit": tip, "source_commit": tip});
    refused(run("git.sync_health", input), EXIT_BLOCKED, &["shallow", "--unshallow"]);
}

#[test]
fn what_is_missing_is_named() {
    let world = World::with(&[("a", "1\n")]);
    let scan = |at: &Path| run("git.scan", json!({"repository": at, "branch": "main"}));
    assert!(scan(&world.user()).expect("all there")["git_version"].as_str().expect("text").starts_with("git version"));
    refused(scan(&world.path("remote.git")), EXIT_BLOCKED, &["not inside the work tree"]);
    refused(scan(&world.path("nowhere")), EXIT_BAD_INPUT, &["does not exist"]);
    refused(
        world.fetch(&Ask { branch: "no/such".to_owned(), ..world.ask() }),
        EXIT_BLOCKED,
        &["no branch \"no/such\""],
    );
    refused(
        world.fetch(&Ask { source: "no/such".to_owned(), ..world.ask() }),
        EXIT_BLOCKED,
        &["neither here nor on origin"],
    );
    refused(run("git.scan", json!({"branch": "main", "brunch": "x"})), EXIT_BAD_INPUT, &["brunch"]);
    git(&world.user(), &["remote", "set-url", "origin", "/no/such/place"]);
    refused(world.fetch(&world.ask()), EXIT_FAILED, &["does not appear to be a git repository"]);
    git(&world.user(), &["remote", "set-url", "origin", "http://127.0.0.1:1/"]);
    refused(world.fetch(&world.ask()), EXIT_TRY_AGAIN, &["127.0.0.1"]);
}

#[test]
fn a_source_that_went_two_ways_has_to_be_named_exactly() {
    let world = World::with(&[("a", "1\n")]);
    world.commit("other", 10, &[("b", "2\n")]);
    git(&world.path("other"), &["push", "--quiet", "origin", "HEAD:topic"]);
    let only_remote = Ask { source: "topic".to_owned(), ..world.ask() };
    assert_eq!(world.fetch(&only_remote).expect("found")["source_ref"], "refs/remotes/origin/topic");
    git(&world.user(), &["switch", "--quiet", "--create", "topic"]);
    assert_eq!(
        world.fetch(&only_remote).expect("found")["source_ref"],
        "refs/remotes/origin/topic",
        "it is further on"
    );
    world.commit("user", 20, &[("c", "3\n")]);
    refused(world.fetch(&only_remote), EXIT_BLOCKED, &["gone two ways", "SOURCE=refs/heads/topic"]);
    let exact = Ask { source: "refs/heads/topic".to_owned(), ..world.ask() };
    assert_eq!(world.fetch(&exact).expect("found")["source_ref"], "refs/heads/topic");
    let commit = git(&world.user(), &["rev-parse", "topic"]);
    let by_id = Ask { source: commit.clone(), ..world.ask() };
    assert_eq!(world.fetch(&by_id).expect("found")["source_commit"], commit);
}

#[test]
fn a_stray_repository_is_refused_or_moved_aside_but_never_deleted() {
    let world = World::with(&[("a", "1\n"), (".gitignore", "vendor/\n")]);
    let user = world.user();
    for nested in ["tools/stray one", "vendor/ignored", "vendor/:(odd)", ".baton/scratch"] {
        git(&user, &["init", "--quiet", nested]);
    }
    git(&user, &["worktree", "add", "--quiet", "--detach", "linked"]);
    refused(world.nested("refuse"), EXIT_BLOCKED, &["tools/stray one", "git submodule add", "NORMALISE=move_aside"]);
    assert!(user.join("tools/stray one/.git").is_dir());

    fs::write(user.join("tools/stray one/file"), "kept\n").expect("written");
    let moved = world.nested("move_aside").expect("moved");
    assert_eq!(moved["stray"], json!(["tools/stray one"]));
    let backup = PathBuf::from(moved["backups"][0].as_str().expect("a path"));
    assert!(backup.join("git/HEAD").is_file() && backup.join("README").is_file());
    assert!(!user.join("tools/stray one/.git").exists());
    assert_eq!(fs::read_to_string(user.join("tools/stray one/file")).expect("kept"), "kept\n");
    for kept in ["vendor/ignored/.git", ".baton/scratch/.git", "linked/.git"] {
        assert!(user.join(kept).exists(), "{kept}");
    }
    // Again: nothing left to do. And a second one of the same name gets a backup of its own.
    assert_eq!(world.nested("move_aside").expect("clean")["stray"], json!([]));
    world.nested("refuse").expect("clean");
    git(&user, &["init", "--quiet", "tools/stray one"]);
    let second = world.nested("move_aside").expect("moved");
    assert_ne!(second["backups"][0], moved["backups"][0]);

    // A link to another repository that nobody can follow.
    git(&user, &["update-index", "--add", "--cacheinfo", &format!("160000,{},lost", "1".repeat(40))]);
    refused(world.nested("move_aside"), EXIT_BLOCKED, &["lost", ".gitmodules"]);
}

#[test]
fn a_push_finds_the_branch_moved_and_merges_onto_it() {
    let world = diverged("base\n", "remote\n", "user\n", &["x.data"]);
    let merge = world.prepare(&world.ask()).expect("healthy");
    merge.merge().expect("git's part");
    merge.resolve().expect("by time");
    let commit = merge.commit().expect("a commit");
    let moved = world.other_pushes(8000, &[("x.data", "remote again\n"), ("new", "1\n")]);
    let pushed = merge.push(&commit).expect("merged again and pushed");
    let tip = world.remote_tip("main");
    assert_eq!(tip, pushed["commit"]);
    assert_ne!(pushed["commit"], commit["commit"]);
    let parents = git(&world.path("remote.git"), &["log", "-1", "--format=%P", "main"]);
    assert_eq!(parents, format!("{moved} {}", merge.source.as_str().expect("text")), "no merge of a merge");
    assert_eq!(world.remote_file(b"x.data").as_deref(), Some("remote again\n"), "by time, once more");
    // Killed before that was recorded: the next attempt has the old commit in hand and sees that all is done.
    let again = merge.push(&commit).expect("done already");
    assert_eq!((&again["pushed"], &again["commit"]), (&json!(false), &pushed["commit"]));
    merge.finish(&again).expect("the end");
    assert_eq!(world.remote_tip("main"), tip);
}

#[test]
fn what_was_resolved_by_hand_is_not_asked_again_when_the_branch_moves() {
    let world = diverged("base\n", "remote\n", "user\n", &["a"]);
    let ask = Ask { resolver: "echo by hand > a".to_owned(), ..world.ask() };
    let merge = world.prepare(&ask).expect("healthy");
    merge.merge().expect("git's part");
    merge.resolve().expect("by the resolver");
    let commit = merge.commit().expect("a commit");
    let moved = world.other_pushes(8000, &[("new", "1\n")]);
    let merge = Merge { ask: Ask { resolver: "exit 9".to_owned(), ..ask }, ..merge };
    merge.push(&commit).expect("merged onto it without asking");
    let parents = git(&world.path("remote.git"), &["log", "-1", "--format=%P", "main"]);
    assert_eq!(parents, format!("{moved} {}", commit["commit"].as_str().expect("text")));
    assert_eq!(world.remote_file(b"a").as_deref(), Some("by hand\n"));
}

#[test]
fn a_moved_branch_that_conflicts_anew_blocks_and_goes_on_when_it_is_resolved() {
    let world = World::with(&[("a", "base\n")]);
    world.commit("user", 10, &[("a", "user\n")]);
    let merge = world.prepare(&world.ask()).expect("healthy");
    merge.merge().expect("clean");
    merge.resolve().expect("nothing");
    let commit = merge.commit().expect("a commit");
    let before = world.mine();
    let moved = world.other_pushes(20, &[("a", "remote\n")]);
    for _ in 0..2 {
        refused(merge.push(&commit), EXIT_BLOCKED, &["git add -- a", "Nothing was pushed"]);
    }
    assert_eq!(world.remote_tip("main"), moved);
    assert_eq!(world.mine(), before);
    // While the person thinks, the branch moves once more; what they decided is kept.
    fs::write(merge.worktree.join("a"), "both\n").expect("written");
    git(&merge.worktree, &["add", "a"]);
    world.other_pushes(30, &[("b", "1\n")]);
    merge.push(&commit).expect("pushed");
    assert_eq!(world.remote_file(b"a").as_deref(), Some("both\n"));
    assert_eq!(world.remote_file(b"b").as_deref(), Some("1\n"));
}

#[test]
fn a_push_that_loses_the_race_overwrites_nothing_and_asks_for_another_attempt() {
    let world = World::with(&[("a", "1\n")]);
    world.commit("user", 10, &[("b", "2\n")]);
    let merge = world.prepare(&world.ask()).expect("healthy");
    merge.merge().expect("clean");
    merge.resolve().expect("nothing");
    let commit = merge.commit().expect("a commit");
    // Somebody's push lands while the remote is looking at ours.
    let other = world.commit("other", 20, &[("c", "3\n")]);
    git(&world.path("other"), &["push", "--quiet", "origin", "HEAD:refs/heads/parked"]);
    let hook = world.path("remote.git").join("hooks/pre-receive");
    let script =
        format!("#!/bin/sh\nunset GIT_QUARANTINE_PATH\ngit update-ref refs/heads/main {other}\nrm -f \"$0\"\n");
    install_hook(&hook, &script);
    refused(merge.push(&commit), EXIT_TRY_AGAIN, &["at the same moment", "Nothing was overwritten"]);
    assert_eq!(world.remote_tip("main"), other);
    let pushed = merge.push(&commit).expect("the next attempt");
    assert_eq!(world.remote_tip("main"), pushed["commit"]);
    let log = git(&world.path("remote.git"), &["log", "--format=%H", "main"]);
    assert!(log.contains(&other) && log.contains(merge.source.as_str().expect("text")));
}

#[test]
fn a_push_that_the_remote_declines_says_so_in_its_words() {
    let world = World::with(&[("a", "1\n")]);
    world.commit("user", 10, &[("b", "2\n")]);
    install_hook(&world.path("remote.git").join("hooks/pre-receive"), "#!/bin/sh\necho main is frozen >&2\nexit 1\n");
    let tip = world.remote_tip("main");
    refused(
        world.safe_merge(&world.ask()),
        EXIT_BLOCKED,
        &["refuses the push", "pre-receive hook declined", "main is frozen"],
    );
    assert_eq!(world.remote_tip("main"), tip);
    // A branch that is gone is not made anew.
    let merge = world.prepare(&world.ask()).expect("healthy");
    merge.merge().expect("clean");
    let commit = merge.commit().expect("a commit");
    git(&world.path("remote.git"), &["update-ref", "-d", "refs/heads/main"]);
    refused(merge.push(&commit), EXIT_BLOCKED, &["no branch \"main\""]);
}

#[test]
fn a_remote_that_is_configured_for_other_branches_is_enough() {
    let world = World::with(&[("a", "1\n")]);
    git(&world.user(), &["config", "remote.origin.fetch", "+refs/heads/other:refs/remotes/origin/other"]);
    git(&world.user(), &["update-ref", "-d", "refs/remotes/origin/main"]);
    world.commit("user", 10, &[("b", "2\n")]);
    let event = world.safe_merge(&world.ask()).expect("merged");
    assert_eq!(world.remote_tip("main"), event["commit"]);
}

#[test]
fn content_in_git_lfs_is_never_pushed_without_the_hook_that_sends_it() {
    let world = World::with(&[(".gitattributes", "*.bin filter=lfs -text\n")]);
    world.commit("user", 10, &[("b", "2\n")]);
    let merge = world.prepare(&world.ask()).expect("healthy");
    merge.merge().expect("clean");
    let commit = merge.commit().expect("a commit");
    refused(merge.push(&commit), EXIT_BLOCKED, &["git LFS", "PRE_PUSH_HOOK=run"]);
    let mark = world.path("the hook ran");
    install_hook(&world.user().join(".git/hooks/pre-push"), &format!("#!/bin/sh\npwd > '{}'\n", mark.display()));
    let input = merge.with(json!({
        "repository": world.user(), "branch": "main", "commit": commit["commit"], "pre_push_hook": "run",
    }));
    run("git.push", input).expect("pushed");
    assert_eq!(fs::read_to_string(mark).expect("it ran").trim(), world.user().to_str().expect("UTF-8"));
}

#[test]
fn no_hook_of_the_merged_tree_runs() {
    let world = World::with(&[("a", "1\n")]);
    git(&world.user(), &["config", "core.hooksPath", "hooks"]);
    let mark = world.path("a hook ran");
    let script = format!("#!/bin/sh\ntouch '{}'\n", mark.display());
    for hook in [
        "post-checkout",
        "pre-merge-commit",
        "prepare-commit-msg",
        "commit-msg",
        "pre-commit",
        "post-commit",
        "post-merge",
        "pre-push",
        "reference-transaction",
        "post-index-change",
    ] {
        install_hook(&world.user().join("hooks").join(hook), &script);
    }
    git(&world.user(), &["-c", "core.hooksPath=/dev/null", "add", "--all"]);
    git(&world.user(), &["-c", "core.hooksPath=/dev/null", "commit", "--quiet", "--message", "hooks"]);
    world.other_pushes(10, &[("b", "1\n")]);
    assert!(!mark.exists());
    world.safe_merge(&world.ask()).expect("merged");
    assert!(!mark.exists(), "a hook out of the tree was executed");
}

fn install_hook(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, script).expect("written");
    make_executable(path);
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
}

#[test]
fn every_step_goes_on_from_what_a_killed_attempt_left() {
    let world = diverged("base\n", "remote\n", "user\n", &["x.data", "y.log"]);
    let before = world.mine();
    let merge = world.prepare(&world.ask()).expect("healthy");
    let admin = merge.admin();

    // `git.worktree`, killed while it made or removed the work tree.
    fs::remove_dir_all(merge.worktree.join("..").join(merge.worktree.file_name().expect("a name"))).expect("removed");
    world.prepare(&world.ask()).expect("the folder was gone");
    fs::remove_dir_all(&admin).expect("removed");
    world.prepare(&world.ask()).expect("git's part was gone");
    fs::write(admin.join("locked"), "initializing\n").expect("written");
    fs::write(admin.join("index.lock"), "").expect("written");
    fs::remove_file(admin.join("index")).expect("removed");
    let merge = world.prepare(&world.ask()).expect("half made");

    // `git.merge`, killed in the middle of git's part: files of nobody, a lock, a merge that the record knows not of.
    fs::write(merge.worktree.join("leftover"), "x").expect("written");
    fs::write(admin.join("index.lock"), "").expect("written");
    fs::write(admin.join("AUTO_MERGE.lock"), "").expect("written");
    fs::write(admin.join("index"), "torn").expect("written");
    fs::write(admin.join("MERGE_HEAD"), format!("{}\n", merge.source.as_str().expect("text"))).expect("written");
    assert_eq!(merge.merge().expect("from the beginning")["conflict_count"], 2);
    assert!(!merge.worktree.join("leftover").exists());
    assert_eq!(merge.merge().expect("the same again")["conflict_count"], 2);

    // `git.resolve`, killed after the index and before the files, and in the middle of writing the index.
    merge.resolve().expect("resolved");
    fs::write(merge.worktree.join("x.data"), "<<<<<<< half\n").expect("written");
    fs::write(admin.join("index.lock"), "").expect("written");
    assert_eq!(merge.resolve().expect("again")["left_count"], 0);
    assert_eq!(fs::read_to_string(merge.worktree.join("x.data")).expect("there"), "user\n");

    // `git.commit`, killed after the commit.
    let commit = merge.commit().expect("a commit");
    assert_eq!(merge.commit().expect("found")["commit"], commit["commit"]);
    assert_eq!(merge.merge().expect("found")["state"], "committed");

    // `git.push`, killed after the push.
    let pushed = merge.push(&commit).expect("pushed");
    assert_eq!(merge.push(&commit).expect("found")["pushed"], false);

    // `git.finish`, killed between its parts, and after them.
    fs::remove_dir_all(&merge.worktree).expect("removed");
    for _ in 0..2 {
        merge.finish(&pushed).expect("the end");
        assert!(!admin.exists());
    }
    let events = fs::read_to_string(world.path("events.jsonl")).expect("written");
    assert_eq!(events.lines().count(), 1, "one success, one event: {events}");
    assert_eq!(world.mine(), before);
}

#[test]
fn two_actions_never_work_in_one_tree_and_one_run_does_not_take_anothers_merge() {
    let world = diverged("base\n", "remote\n", "user\n", &["x.data"]);
    let merge = world.prepare(&world.ask()).expect("healthy");
    let open = super::worktree::Worktree::open(merge.worktree.to_str().expect("UTF-8")).expect("opened");
    refused(merge.merge(), EXIT_TRY_AGAIN, &["another action"]);
    drop(open);
    let stranger = Merge { source: merge.target.clone(), ..world.prepare(&world.ask()).expect("healthy") };
    refused(stranger.merge(), EXIT_BLOCKED, &["another run has taken it over"]);
    refused(stranger.commit(), EXIT_BLOCKED, &["another run has taken it over"]);
    refused(merge.commit(), EXIT_BLOCKED, &["run `git.merge` again"]);
}

#[test]
fn a_ref_lock_is_removed_only_when_it_is_old_and_an_attempt_of_ours_was_killed() {
    let world = diverged("base\n", "remote\n", "user\n", &["x.data"]);
    let lock = world.user().join(".git/refs/remotes/origin/main.lock");
    let old = |file: &Path| {
        let file = fs::OpenOptions::new().write(true).open(file).expect("opened");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("aged");
    };
    fs::write(&lock, "").expect("written");
    old(&lock);
    refused(world.fetch(&world.ask()), EXIT_TRY_AGAIN, &["main.lock"]);
    assert!(lock.exists(), "nobody of ours was killed, so it is not ours to remove");
    fs::remove_file(&lock).expect("removed");

    // An attempt was killed during its fetch: what it marked is not locked by anybody.
    let mark = |name: &str| {
        let hash = super::worktree::fnv1a(name.as_bytes());
        let mark = world.user().join(format!(".git/baton/{hash:016x}.ref.1"));
        fs::create_dir_all(mark.parent().expect("a folder")).expect("made");
        fs::write(&mark, "").expect("written");
        mark
    };
    let killed = mark("refs/remotes/origin/main");
    fs::write(&lock, "").expect("written");
    refused(world.fetch(&world.ask()), EXIT_TRY_AGAIN, &["main.lock", "the next attempt will know"]);
    assert!(lock.exists() && killed.exists());
    old(&lock);
    world.fetch(&world.ask()).expect("removed, and fetched");
    assert!(!lock.exists() && !killed.exists());
    let left = fs::read_dir(world.user().join(".git/baton")).expect("a folder");
    assert_eq!(left.count(), 0, "no mark outlives its attempt");
}

#[test]
fn a_work_tree_of_the_users_is_never_taken_for_ours() {
    let world = World::with(&[("a", "1\n")]);
    world.commit("user", 10, &[("b", "2\n")]);
    let mine = world.path("my own");
    git(&world.user(), &["worktree", "add", "--quiet", "--detach", mine.to_str().expect("UTF-8")]);
    fs::write(mine.join("a"), "not committed\n").expect("written");
    let lock = PathBuf::from(git(&mine, &["rev-parse", "--absolute-git-dir"])).join("index.lock");
    fs::write(&lock, "").expect("written");
    let merge = world.prepare(&world.ask()).expect("healthy");
    let elsewhere = |path: &Path| {
        run(
            "git.worktree",
            json!({
                "repository": world.user(), "branch": "main", "target_commit": merge.target,
                "source_commit": merge.source, "path": path,
            }),
        )
    };
    refused(elsewhere(&mine), EXIT_BLOCKED, &["a work tree of yours"]);
    refused(elsewhere(&world.user()), EXIT_BLOCKED, &["holds files"]);
    let stray =
        Merge { worktree: mine.clone(), ask: merge.ask.clone(), ..world.prepare(&world.ask()).expect("healthy") };
    refused(stray.merge(), EXIT_BLOCKED, &["no work tree made by"]);
    let pushed = Map::from_iter([("commit".to_owned(), stray.target.clone())]);
    refused(Merge { source: stray.target.clone(), ..stray }.finish(&pushed), EXIT_BLOCKED, &["is kept"]);
    assert!(lock.exists() && fs::read_to_string(mine.join("a")).expect("there") == "not committed\n");
    // A place of one's own choice does as well as the usual one, also a second time.
    for _ in 0..2 {
        let made = elsewhere(&world.path("place of choice")).expect("made");
        assert_eq!(made["path"], world.path("place of choice").to_str().expect("UTF-8"));
    }
    // Killed while git was making it: claimed, and without an index.
    let admin = PathBuf::from(git(&world.path("place of choice"), &["rev-parse", "--absolute-git-dir"]));
    fs::remove_file(admin.join("baton-merge.json")).expect("removed");
    fs::rename(admin.join("index"), admin.join("index.lock")).expect("renamed");
    elsewhere(&world.path("place of choice")).expect("made anew");
    // Given up, and the place used again by the user.
    git(&world.user(), &["worktree", "remove", "--force", "../place of choice"]);
    git(&world.user(), &["worktree", "add", "--quiet", "--detach", "../place of choice"]);
    refused(elsewhere(&world.path("place of choice")), EXIT_BLOCKED, &["a work tree of yours"]);
}

#[test]
fn histories_without_a_common_commit_are_never_merged() {
    let world = World::with(&[("a", "1\n")]);
    git(&world.user(), &["switch", "--quiet", "--orphan", "island"]);
    world.commit("user", 10, &[("b", "2\n")]);
    let ask = Ask { source: "island".to_owned(), ..world.ask() };
    refused(world.prepare(&ask).map(|_| Map::new()), EXIT_BLOCKED, &["no common commit"]);
}

#[test]
fn every_field_of_a_schema_is_read_and_no_other() {
    for action in KINDS {
        let schema = (action.schema)();
        let fields = schema["properties"].as_object().expect("properties");
        for field in fields.keys() {
            // A value of a wrong type is noticed only in a field that is known.
            let failure = (action.run)(json!({ field.as_str(): 17 })).expect_err("17 is no text");
            assert_eq!(failure.exit_code, EXIT_BAD_INPUT, "{} {field}: {}", action.kind, failure.message);
            assert!(!failure.message.contains("unknown field"), "{} {field}: {}", action.kind, failure.message);
        }
        let failure = (action.run)(json!({"no_such_field": 1})).expect_err("unknown");
        assert!(failure.message.contains("unknown field"), "{}: {}", action.kind, failure.message);
        let (_, read) = failure.message.split_once("expected").expect("it lists what it reads");
        let mut read: Vec<&str> = read.split('`').skip(1).step_by(2).collect();
        read.sort_unstable();
        assert_eq!(read, fields.keys().collect::<Vec<_>>(), "{}", action.kind);
        for required in schema["required"].as_array().expect("a list") {
            let mut input: Map<String, Value> = schema["required"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|name| (name.as_str().expect("text").to_owned(), json!("0".repeat(40))))
                .collect();
            input.remove(required.as_str().expect("text"));
            let failure = (action.run)(Value::Object(input)).expect_err("one is missing");
            assert!(
                failure.message.contains(&format!("missing field `{}`", required.as_str().expect("text"))),
                "{failure}"
            );
        }
    }
}
