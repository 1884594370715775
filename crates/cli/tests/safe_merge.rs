//! The safe-merge plan with the real program on real repositories: merges, gates, races, locks, and every kind of kill.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// Noon of some day, in Unix seconds; commits are made at so many seconds after it.
const NOON: u64 = 1_700_000_000;
const SIGKILL: i32 = 9;

/// The steps of the plan in the order in which they end, but for `resolver`, which is skipped without a command.
const STEPS: &[&str] = &[
    "scan", "nested", "fetch", "select", "health", "classify", "worktree", "merge", "resolve", "resolver", "commit",
    "push", "finish",
];

/// A bare remote, the user's clone of it, and the clone of somebody else.
struct World {
    folder: tempfile::TempDir,
}

impl World {
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

    /// `main` has gone two ways, and both sides have changed these files; the user's change is an hour later.
    fn diverged(paths: &[&str]) -> Self {
        let each = |text| paths.iter().map(|path| (*path, text)).collect::<Vec<(&str, &str)>>();
        let world = Self::with(&each("base\n"));
        world.other_pushes(3600, &each("remote\n"));
        world.commit("user", 7200, &each("user\n"));
        world
    }

    fn configure(&self, clone: &str) {
        let file = self.path(clone).join(".git/config");
        let text = fs::read_to_string(&file).expect("there is a configuration");
        fs::write(file, text + "[user]\n\tname = Ada\n\temail = ada@example.org\n").expect("it is written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("the scratch folder is there").join(name)
    }

    fn user(&self) -> PathBuf {
        self.path("user")
    }

    fn commit(&self, clone: &str, seconds: u64, files: &[(&str, &str)]) -> String {
        let at = self.path(clone);
        for (path, text) in files {
            let file = at.join(path);
            fs::create_dir_all(file.parent().expect("a folder")).expect("the folder is made");
            fs::write(file, text).expect("the file is written");
        }
        git(&at, &["add", "--all"]);
        let date = format!("{} +0000", NOON + seconds);
        let done = plain_git(&at, &["commit", "--quiet", "--message", "change"])
            .env("GIT_COMMITTER_DATE", &date)
            .env("GIT_AUTHOR_DATE", &date)
            .output()
            .expect("git runs");
        assert!(done.status.success(), "{done:?}");
        git(&at, &["rev-parse", "HEAD"])
    }

    fn other_pushes(&self, seconds: u64, files: &[(&str, &str)]) -> String {
        git(&self.path("other"), &["pull", "--quiet", "--rebase"]);
        let commit = self.commit("other", seconds, files);
        git(&self.path("other"), &["push", "--quiet", "origin", "HEAD:main"]);
        commit
    }

    fn tip(&self) -> String {
        git(&self.path("remote.git"), &["rev-parse", "refs/heads/main"])
    }

    fn remote_file(&self, path: &str) -> String {
        git(&self.path("remote.git"), &["cat-file", "blob", &format!("refs/heads/main:{path}")])
    }

    /// `baton` in the user's work tree.
    fn baton(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args(arguments).current_dir(self.user()).stdin(Stdio::null());
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env("NO_COLOR", "1");
        command
    }

    /// The safe-merge plan into `main` with these variables.
    fn safe_merge(&self, variables: &[&str]) -> Command {
        let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plans/safe-merge/plan.yaml");
        let mut command = self.baton(&["run", plan.to_str().expect("UTF-8"), "--var", "BRANCH=main"]);
        for variable in variables {
            command.args(["--var", variable]);
        }
        command
    }

    /// What `baton` answers as JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let done = self.baton(arguments).args(["--output", "json"]).output().expect("baton runs");
        serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", said(&done)))
    }

    /// Everything that is the user's: files, index, `HEAD`, branches, and what git says about them.
    fn mine(&self) -> BTreeMap<String, Vec<u8>> {
        let user = self.user();
        let mut all = BTreeMap::new();
        let mut waiting = vec![user.clone()];
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path == user.join(".git") || path == user.join(".baton") {
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

fn plain_git(at: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(at).env("LC_ALL", "C");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

fn git(at: &Path, arguments: &[&str]) -> String {
    let done = plain_git(at, arguments).output().expect("git runs");
    assert!(done.status.success(), "git {arguments:?} in {at:?}: {}", said(&done));
    String::from_utf8_lossy(&done.stdout).trim_end().to_owned()
}

fn said(done: &Output) -> String {
    format!("{}\n{}\n{}", done.status, String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

/// Runs to the end, which has to have this exit code and these words somewhere.
fn ends(mut command: Command, exit_code: i32, words: &[&str]) -> String {
    let done = command.output().expect("baton runs");
    let said = said(&done);
    assert_eq!(done.status.code(), Some(exit_code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    said
}

fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
}

#[test]
fn diverged_branches_are_merged_and_the_shipped_policy_resolves_by_time() {
    let world = World::diverged(&["docs/guide.md", "CHANGELOG.md", "Cargo.lock"]);
    world.other_pushes(9000, &[("Cargo.lock", "remote, late\n"), ("new.rs", "1\n")]);
    fs::write(world.user().join("notes"), "untracked\n").expect("written");
    let (before, target) = (world.mine(), world.tip());
    let events = world.path("events.jsonl");
    let event_file = format!("EVENT_FILE={}", events.display());
    ends(world.safe_merge(&[&event_file]), 0, &["safe_merge_succeeded", "resolver skipped"]);

    assert_eq!(world.remote_file("docs/guide.md"), "user");
    assert_eq!(world.remote_file("Cargo.lock"), "remote, late");
    assert_eq!(world.remote_file("CHANGELOG.md"), "remote\nuser");
    let source = git(&world.user(), &["rev-parse", "main"]);
    assert_eq!(git(&world.path("remote.git"), &["log", "-1", "--format=%P", "main"]), format!("{target} {source}"));
    let event: Value = serde_json::from_str(&fs::read_to_string(events).expect("written")).expect("one JSON line");
    assert_eq!((&event["event"], &event["commit"]), (&"safe_merge_succeeded".into(), &world.tip().into()));
    assert_eq!(world.mine(), before);
}

#[test]
fn a_conflict_that_nobody_may_decide_blocks_and_a_retry_goes_on_from_the_persons_work() {
    let world = World::diverged(&["src/main.rs", "docs/guide.md"]);
    let (before, target) = (world.mine(), world.tip());
    let words = [
        "merge is blocked",
        "src/main.rs",
        "git add -- src/main.rs",
        "baton retry 1",
        "your own work tree is as it was",
    ];
    let said = ends(world.safe_merge(&[]), 1, &words);
    assert_eq!(world.mine(), before);
    assert_eq!(world.tip(), target);

    // The person does what the message says, word for word.
    let place = said.lines().find_map(|line| line.trim().trim_start_matches("[commit]").trim().strip_prefix("cd "));
    let place = PathBuf::from(place.expect("the message names the folder"));
    fs::write(place.join("src/main.rs"), "both\n").expect("written");
    git(&place, &["add", "--", "src/main.rs"]);
    ends(world.baton(&["retry", "1"]), 0, &["safe_merge_succeeded"]);
    assert_eq!(world.remote_file("src/main.rs"), "both");
    assert_eq!(world.remote_file("docs/guide.md"), "user");
    assert_eq!(world.mine(), before);
    assert!(!place.exists());
}

#[test]
fn a_resolver_decides_what_the_policy_leaves_or_the_gate_stays() {
    let world = World::diverged(&["src/a b.rs", "docs/guide.md"]);
    let before = world.mine();
    let failing = ends(world.safe_merge(&["RESOLVER=echo no idea; exit 7"]), 1, &["no idea", "merge is blocked"]);
    assert!(failing.contains("git add -- 'src/a b.rs'"), "{failing}");
    assert_eq!(world.mine(), before);
    let resolver = "RESOLVER=xargs -0 sed -i '/^[<=>]\\{7\\}/d' < \"$BATON_CONFLICTS\"";
    ends(world.safe_merge(&[resolver]), 0, &["safe_merge_succeeded"]);
    assert_eq!(world.remote_file("src/a b.rs"), "remote\nuser");
    assert_eq!(world.mine(), before);
}

#[test]
fn a_dirty_tree_and_a_stray_repository_are_refused_with_the_way_out() {
    let world = World::with(&[("a", "1\n")]);
    world.commit("user", 10, &[("b", "2\n")]);
    let target = world.tip();
    fs::write(world.user().join("a"), "not committed\n").expect("written");
    git(&world.user(), &["init", "--quiet", "--template=", "tools/stray"]);
    fs::write(world.user().join("tools/stray/file"), "kept\n").expect("written");
    let before = world.mine();

    ends(world.safe_merge(&[]), 1, &["tools/stray", "NORMALISE=move_aside"]);
    assert_eq!(world.mine(), before);
    ends(world.safe_merge(&["NORMALISE=move_aside"]), 1, &["uncommitted changes", "DIRTY=allow"]);
    assert!(!world.user().join("tools/stray/.git").exists());
    assert_eq!(fs::read(world.user().join("tools/stray/file")).expect("kept"), b"kept\n");
    assert_eq!(world.tip(), target);

    let before = world.mine();
    ends(world.safe_merge(&["DIRTY=allow"]), 0, &["safe_merge_succeeded"]);
    assert_eq!(world.mine(), before);
    assert_eq!(world.remote_file("a"), "1", "what was not committed was not merged");
    assert_ne!(world.tip(), target);
}

#[test]
fn a_push_that_is_refused_by_a_concurrent_push_merges_again_in_the_same_run() {
    let world = World::with(&[("a", "1\n")]);
    world.commit("user", 10, &[("b", "2\n")]);
    let theirs = world.commit("other", 20, &[("c", "3\n")]);
    git(&world.path("other"), &["push", "--quiet", "origin", "HEAD:refs/heads/parked"]);
    // Somebody's push lands while the remote is looking at ours.
    let hook = format!("#!/bin/sh\nunset GIT_QUARANTINE_PATH\ngit update-ref refs/heads/main {theirs}\nrm -f \"$0\"\n");
    script(&world.path("remote.git/hooks/pre-receive"), &hook);
    let words = ["at the same moment", "Nothing was overwritten", "has moved to", "safe_merge_succeeded"];
    ends(world.safe_merge(&[]), 0, &words);
    let log = git(&world.path("remote.git"), &["log", "--format=%H", "main"]);
    assert!(log.contains(&theirs) && log.contains(&git(&world.user(), &["rev-parse", "main"])), "{log}");
}

#[test]
fn a_fetch_that_fails_on_the_way_is_tried_again() {
    let world = World::with(&[("a", "1\n")]);
    world.commit("user", 10, &[("b", "2\n")]);
    let folder = world.path("shaky");
    let text = format!(
        "#!/bin/sh\ncase \" $* \" in *' ls-remote '*) if mkdir '{0}/failed' 2>/dev/null; then\n\
         echo 'fatal: unable to access it: Could not resolve host: example.org' >&2; exit 128; fi ;; esac\n\
         exec '{1}' \"$@\"\n",
        folder.display(),
        real_git().display(),
    );
    script(&folder.join("git"), &text);
    let words = ["Could not resolve host", "exit code 75", "safe_merge_succeeded"];
    ends(before_on_path(&folder, world.safe_merge(&[])), 0, &words);
    let status = world.json(&["status", "1"]);
    let fetch = status["steps"].as_array().expect("steps").iter().find(|step| step["step"] == "fetch");
    assert_eq!(fetch.expect("it is there")["attempts"], 2);
}

fn real_git() -> PathBuf {
    let path = std::env::var_os("PATH").expect("a PATH");
    std::env::split_paths(&path).map(|folder| folder.join("git")).find(|git| git.is_file()).expect("git is on PATH")
}

/// The command with a folder that goes before all others on `PATH`.
fn before_on_path(folder: &Path, mut command: Command) -> Command {
    let rest = std::env::var_os("PATH").expect("a PATH");
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&rest));
    command.env("PATH", std::env::join_paths(folders).expect("a PATH"));
    command
}

/// Waits until a line with these words comes; everything before it has been read then.
fn wait_for_line(lines: &mut impl Iterator<Item = std::io::Result<String>>, words: &str) -> String {
    let mut seen = Vec::new();
    for line in lines {
        let line = line.expect("readable");
        if line.contains(words) {
            return line;
        }
        seen.push(line);
    }
    panic!("no line with {words:?} in:\n{}", seen.join("\n"));
}

/// Starts a run whose standard output and error come as one stream of lines.
fn start(mut command: Command) -> (Child, impl Iterator<Item = std::io::Result<String>>) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    command.stdout(writer.try_clone().expect("a second end")).stderr(writer);
    let child = command.spawn().expect("baton starts");
    drop(command);
    (child, BufReader::new(reader).lines())
}

#[test]
fn of_two_safe_merges_at_once_one_waits_and_names_the_other() {
    let world = World::diverged(&["a"]);
    let gate = world.path("gate");
    assert!(Command::new("mkfifo").arg(&gate).status().expect("mkfifo runs").success());
    // The first one stands in its resolver until the gate opens.
    let resolver = format!("RESOLVER=read answer < '{}' && echo \"$answer\" > a", gate.display());
    let (mut first, mut first_says) = start(world.safe_merge(&[&resolver]));
    wait_for_line(&mut first_says, "running the resolver");
    let (mut second, mut second_says) = start(world.safe_merge(&[]));
    let line = wait_for_line(&mut second_says, "merge_pipeline_main");
    assert!(line.contains("run 1"), "the one that waits names the one that holds: {line}");

    ends(world.baton(&["why", "2"]), 0, &["merge_pipeline_main", "run 1"]);
    ends(world.baton(&["locks"]), 0, &["merge_pipeline_main", "run 1", "run 2"]);
    let locks = world.json(&["locks"]);
    assert_eq!((&locks["held"][0]["holder"]["run"], &locks["waiting"][0]["holder"]["run"]), (&1.into(), &2.into()));
    let status = world.json(&["status", "2"]);
    assert_eq!(status["counts"]["waiting"], STEPS.len(), "nothing of the second has run: {status}");

    fs::OpenOptions::new().write(true).open(&gate).and_then(|mut gate| gate.write_all(b"decided\n")).expect("opened");
    wait_for_line(&mut first_says, "safe_merge_succeeded");
    wait_for_line(&mut second_says, "safe_merge_succeeded");
    for child in [&mut first, &mut second] {
        assert!(child.wait().expect("it ends").success());
    }
    assert_eq!(world.remote_file("a"), "decided");
}

#[test]
fn the_manual_names_every_variable_step_action_and_field() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/safe-merge.md")).expect("the page is there");
    let plan = fs::read_to_string(root.join("plans/safe-merge/plan.yaml")).expect("the plan is there");
    let (_, rest) = plan.split_once("\nvars:\n").expect("variables");
    let (variables, _) = rest.split_once("\nlocks:").expect("locks come next");
    let names = variables.lines().filter_map(|line| line.trim().trim_start_matches("# ").split_once(':'));
    let names: Vec<&str> = names
        .map(|(name, _)| name)
        .filter(|name| name.bytes().all(|byte| b"_ABCDEFGHIJKLMNOPQRSTUVWXYZ".contains(&byte)))
        .collect();
    assert!(names.len() > 10 && names.contains(&"BRANCH"), "{names:?}");
    for name in names {
        assert!(page.contains(&format!("\n| `{name}` |")), "{name} has no row");
    }
    for step in STEPS {
        assert!(page.contains(&format!("\n| `{step}` | `git.")), "{step} has no row");
    }
    for action in baton_actions::catalog().iter().filter(|action| action.kind.starts_with("git.")) {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", action.kind)));
        let inputs = row.expect("a row for each action").split('|').nth(2).expect("a column of inputs");
        let schema = (action.schema)();
        let required = schema["required"].as_array().expect("a list");
        let wanted = |name: &String| match required.contains(&Value::from(name.as_str())) {
            true => format!("**`{name}`**"),
            false => format!("`{name}`"),
        };
        let mut wanted: Vec<String> = schema["properties"].as_object().expect("fields").keys().map(wanted).collect();
        let mut named: Vec<&str> = inputs.split(',').map(str::trim).collect();
        named.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(named, wanted, "{}", action.kind);
    }
}

/// A `git` before the real one on `PATH` that counts its calls in each step and kills the driver of the run with
/// SIGKILL at the one that is asked for, before or after the real git has done its work.
struct Killer {
    folder: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Moment {
    Before,
    After,
}

impl Killer {
    fn new(world: &World) -> Self {
        let folder = world.path("killer");
        let text = format!(
            r#"#!/bin/sh
# The program that called is the action; the one above it drives the run.
here='{folder}' real='{real}'
read -r _ name _ driver _ < /proc/$PPID/stat
case "$BATON_ATTEMPT:$name" in *:'(baton)') ;; *) exec "$real" "$@" ;; esac
step=${{BATON_ATTEMPT%/*}} step=${{step##*/}}
echo "$step" >> "$here/calls"
read -r victim wanted moment < "$here/order" || exec "$real" "$@"
[ "$step" = "$victim" ] || exec "$real" "$@"
# A count for each step: what is left of a step before may still be counting.
echo >> "$here/count.$step"
[ "$(wc -l < "$here/count.$step")" = "$wanted" ] || exec "$real" "$@"
if [ "$moment" = Before ]; then kill -9 "$driver"; exec "$real" "$@"; fi
"$real" "$@"; code=$?
kill -9 "$driver"
exit $code
"#,
            folder = folder.display(),
            real = real_git().display(),
        );
        script(&folder.join("git"), &text);
        let killer = Self { folder };
        killer.order(None);
        killer
    }

    /// At which call of which step the driver dies next.
    fn order(&self, order: Option<(&str, usize, Moment)>) {
        let text = order.map_or(String::new(), |(step, call, moment)| format!("{step} {call} {moment:?}\n"));
        fs::write(self.folder.join("order"), text).expect("written");
    }

    fn on_path(&self, command: Command) -> Command {
        before_on_path(&self.folder, command)
    }

    /// How often each step has called git so far.
    fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for step in fs::read_to_string(self.folder.join("calls")).expect("there were calls").lines() {
            *calls.entry(step.to_owned()).or_default() += 1;
        }
        calls
    }
}

const MARKS_OUT: &str = "RESOLVER=xargs -0 sed -i '/^[<=>]\\{7\\}/d' < \"$BATON_CONFLICTS\"";
const PATHS: &[&str] = &["src/main.rs", "docs/guide.md", "CHANGELOG.md"];

/// How often each step calls git where nobody is killed.
fn calls_of_an_undisturbed_run() -> BTreeMap<String, usize> {
    let world = World::diverged(PATHS);
    let killer = Killer::new(&world);
    ends(killer.on_path(world.safe_merge(&[MARKS_OUT])), 0, &[]);
    let calls = killer.calls();
    assert_eq!(calls.len(), STEPS.len(), "every step is disturbed: {calls:?}");
    calls
}

/// One run whose driver is killed once in every step, at the call that `choose` takes out of the number of calls.
/// Answers how many kills there were.
fn killed_in_every_step(
    calls: &BTreeMap<String, usize>,
    moment: Moment,
    choose: impl Fn(usize) -> Option<usize>,
) -> usize {
    let world = World::diverged(PATHS);
    let killer = Killer::new(&world);
    let (before, target) = (world.mine(), world.tip());
    let events = format!("EVENT_FILE={}", world.path("events.jsonl").display());
    let mut next = killer.on_path(world.safe_merge(&[MARKS_OUT, &events]));
    // One step at a time, so that a kill meets the step that it is meant for and no other.
    next.args(["--jobs", "1"]);
    let mut kills = 0;
    for step in STEPS {
        let Some(call) = choose(calls[*step]) else { continue };
        killer.order(Some((step, call, moment)));
        let done = next.output().expect("baton runs");
        let calls = killer.calls();
        assert_eq!(done.status.signal(), Some(SIGKILL), "{step}, call {call}, {moment:?}, {calls:?}: {}", said(&done));
        assert_eq!(world.mine(), before, "{step}, call {call}, {moment:?}");
        kills += 1;
        next = killer.on_path(world.baton(&["resume"]));
    }
    killer.order(None);
    ends(next, 0, &[]);

    let status = world.json(&["status", "1"]);
    assert_eq!(status["status"], "succeeded", "{status}");
    assert_eq!(world.remote_file("src/main.rs"), "remote\nuser");
    assert_eq!(world.remote_file("docs/guide.md"), "user");
    let source = git(&world.user(), &["rev-parse", "main"]);
    let log = git(&world.path("remote.git"), &["log", "-1", "--format=%P", "main"]);
    assert_eq!(log, format!("{target} {source}"), "merged once and pushed once");
    assert_eq!(fs::read_to_string(world.path("events.jsonl")).expect("written").lines().count(), 1);
    assert_eq!(git(&world.user(), &["worktree", "list"]).lines().count(), 1);
    assert_eq!(world.mine(), before);
    kills
}

#[test]
fn killed_at_the_first_call_of_every_step_it_goes_on() {
    let calls = STEPS.iter().map(|step| ((*step).to_owned(), 1)).collect();
    assert_eq!(killed_in_every_step(&calls, Moment::Before, |_| Some(1)), STEPS.len());
}

#[test]
fn killed_when_every_step_has_done_its_work_but_not_said_so_it_goes_on() {
    let calls = calls_of_an_undisturbed_run();
    assert_eq!(killed_in_every_step(&calls, Moment::After, Some), STEPS.len());
}

/// Every call of git in every step, before and after: a sweep for its own time.
#[test]
#[ignore = "a sweep of minutes: cargo test -p baton-cli --test safe_merge -- --ignored --nocapture"]
fn killed_at_every_call_of_git_it_goes_on() {
    let calls = calls_of_an_undisturbed_run();
    let most = calls.values().copied().max().unwrap_or(0);
    let mut kills = 0;
    for moment in [Moment::Before, Moment::After] {
        for call in 1..=most {
            kills += killed_in_every_step(&calls, moment, |calls| (call <= calls).then_some(call));
        }
    }
    assert_eq!(kills, 2 * calls.values().sum::<usize>());
    let _ = writeln!(std::io::stdout(), "{kills} kills, each followed by a resume");
}
