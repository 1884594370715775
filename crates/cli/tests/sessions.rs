//! Whole sessions with the real program, as a person would have them.

mod support;

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use support::{Place, finish, skipped, steady};

/// Steps that wait for a file, so that a test decides when they go on.
const HELD: &str = r#"
plan_id: held
globals: {max_concurrency: 2}
steps:
  - {id: first, shell: true, command: "echo once >> first.txt"}
  - id: hold
    depends_on: [first]
    shell: true
    command: |
      echo holding
      until [ -e gate ]; do sleep 0.02; done
      echo through
  - {id: last, depends_on: [hold], command: echo, args: [done]}
"#;

#[test]
fn a_wrong_plan_is_mended_from_the_messages_alone() {
    let place = Place::new();
    let wrong = "plan_id: demo\nsteps:\n  - id: build\n    comand: echo\n    args: [built]\n  - id: test\n    \
                 command: echo\n    args: [\"${TARGT}\"]\n    depends_on: [biuld]\nvars: {TARGET: local}\n";
    place.write("plan.yaml", wrong);
    let told = place.baton("run plan.yaml");
    assert_eq!(told.exit, 2);
    // All at once, each with its place and what was meant.
    for words in ["plan.yaml:4:5", "`command`", "plan.yaml:9:18", "`build`", "plan.yaml:8", "`TARGET`"] {
        assert!(told.stderr.contains(words), "{words}: {}", told.stderr);
    }
    assert!(told.stderr.contains("error[bad-plan]"), "{}", told.stderr);
    assert!(!place.file(".baton").exists(), "nothing ran, so nothing is kept");
    let right = wrong.replace("comand", "command").replace("TARGT", "TARGET").replace("biuld", "build");
    place.write("plan.yaml", &right);
    assert_eq!(place.baton("check plan.yaml").stdout, "plan.yaml: in order (demo with 2 steps)\n");
    let ran = place.baton("run plan.yaml");
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stdout.contains("[test] local"), "{}", ran.stdout);
}

#[test]
fn a_failure_leads_to_its_log_its_reason_and_a_retry() {
    let place = Place::new();
    place.write(
        "plan.yaml",
        r#"
plan_id: release
steps:
  - {id: fetch, shell: true, command: "echo fetched; echo count >> fetches"}
  - {id: build, shell: true, command: "echo compiling; cat source", depends_on: [fetch], retries: 1}
  - {id: lint, shell: true, command: "echo untidy; exit 3", depends_on: [fetch], on_failure: continue}
  - {id: publish, command: echo, args: [published], depends_on: [build]}
"#,
    );
    let ran = place.baton("run plan.yaml");
    assert_eq!(ran.exit, 1);
    let summary = &ran.stdout[ran.stdout.find("✗ run 1 release failed").unwrap()..];
    insta::assert_snapshot!(steady(summary, &place), @"
    ✗ run 1 release failed after <t>: 1 succeeded, 1 failed, 2 canceled
      stopped: step `build` failed and its policy is `abort`

    ✗ build: exit code 1 (attempt 2 of 2, <t>)
      | compiling
      | cat: source: No such file or directory
      look further: baton logs 1 build

    run again what did not succeed: baton retry 1
    ");
    assert_eq!(place.baton("logs 1 build --attempt 2").stdout.lines().next(), Some("compiling"));
    let why = place.baton("why publish");
    insta::assert_snapshot!(why.stdout, @"
    publish: canceled: step `build` failed and its policy is `abort`
      build: failed: exit code 1
    ");

    place.write("source", "int main;\n");
    let again = place.baton("retry 1");
    assert_eq!(again.exit, 0, "{again:?}");
    assert!(again.stdout.contains("[build] int main;") && again.stdout.contains("[publish] published"));
    assert_eq!(fs::read_to_string(place.file("fetches")).unwrap(), "count\n", "what succeeded is kept");
    assert_eq!(place.json("status 2")["retry_of"], 1);
    let refused = place.baton("resume 1");
    assert_eq!(refused.exit, 3);
    assert!(refused.stderr.contains("baton retry 1"), "{}", refused.stderr);
}

#[test]
fn a_killed_run_is_told_of_everywhere_and_goes_on() {
    let place = Place::new();
    place.write("plan.yaml", HELD);
    let mut run = place.start("run plan.yaml");
    run.wait_for("[hold] holding");
    assert_eq!(place.json("status")["status"], "running");
    run.kill();

    let runs = place.baton("runs");
    assert!(runs.stdout.contains("abandoned"), "{}", runs.stdout);
    assert!(runs.stderr.contains("note: run 1 (held) was abandoned"), "{}", runs.stderr);
    assert!(runs.stderr.contains("go on with: baton resume 1"), "{}", runs.stderr);
    assert_eq!(place.baton("retry 1").exit, 3, "it is not over");
    assert!(place.baton("why last").stdout.contains("baton resume 1"));
    let json = place.baton("runs --output json");
    assert!(serde_json::from_str::<Value>(&json.stdout).is_ok(), "the remark is not among the data");

    place.write("gate", "");
    let resumed = place.baton("resume");
    assert_eq!(resumed.exit, 0, "{resumed:?}");
    assert!(resumed.stdout.contains("run 1 goes on: 1 step was in flight"), "{}", resumed.stdout);
    assert!(resumed.stdout.contains("[last] done"), "{}", resumed.stdout);
    assert_eq!(fs::read_to_string(place.file("first.txt")).unwrap(), "once\n", "nothing finished is repeated");
    assert_eq!(place.baton("resume").stdout, "no run is abandoned: there is nothing to resume\n");
}

#[test]
fn a_run_that_is_asked_to_go_leaves_itself_resumable() {
    let place = Place::new();
    place.write("plan.yaml", HELD);
    let mut run = place.start("run plan.yaml");
    run.wait_for("[hold] holding");
    run.signal("TERM");
    let left = run.end();
    assert_eq!(left.exit, 4, "{left:?}");
    assert!(left.stdout.contains("go on where it was left: baton resume 1"), "{}", left.stdout);
    // Its owner is gone in an orderly way; cancelling needs no other one.
    let canceled = place.baton("cancel 1");
    assert_eq!(canceled.exit, 0, "{canceled:?}");
    assert_eq!(place.json("status 1")["status"], "canceled");
}

#[test]
fn a_run_is_canceled_from_elsewhere_while_somebody_follows_it() {
    let place = Place::new();
    place.write("plan.yaml", HELD);
    let mut run = place.start("run plan.yaml");
    run.wait_for("[hold] holding");
    let mut logs = place.start("logs --follow");
    logs.wait_for("[hold] holding");
    let mut events = place.start("events --follow --output json");
    events.wait_for("step_started");
    let canceled = place.baton("cancel 1");
    assert_eq!(canceled.exit, 0, "{canceled:?}");
    let ended = run.end();
    assert_eq!(ended.exit, 130, "{ended:?}");
    assert!(ended.stdout.contains("canceled by ada"), "{}", ended.stdout);
    assert_eq!(logs.end().exit, 0);
    let events = events.end();
    assert_eq!(events.exit, 0);
    let last: Value = serde_json::from_str(events.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["kind"], &last["status"]), (&"run_completed".into(), &"canceled".into()));
    assert_eq!(place.baton("cancel 1").exit, 3, "it is over");
}

#[test]
fn two_runs_meet_at_a_lock() {
    let place = Place::new();
    place.write("one.yaml", &format!("{HELD}locks: [release]\n"));
    place.write("two.yaml", "plan_id: two\nlocks: [release]\nsteps:\n  - {id: go, command: echo, args: [went]}\n");
    let mut one = place.start("run one.yaml");
    one.wait_for("[hold] holding");
    let mut two = place.start("run two.yaml");
    two.wait_for("waits for lock `release`: run 1");
    let locks = place.baton("locks").stdout;
    assert!(locks.contains("release  held    run 1") && locks.contains("release  wanted  run 2"), "{locks}");
    let why = place.baton("why 2 go").stdout;
    assert!(why.contains("lock `release`, which run 1"), "{why}");
    place.write("gate", "");
    assert_eq!(one.end().exit, 0);
    let two = two.end();
    assert_eq!(two.exit, 0, "{two:?}");
    assert_eq!(place.baton("locks").stdout, "no locks are held or wanted\n");
}

#[test]
fn a_reader_that_goes_away_ends_no_run() {
    let place = Place::new();
    place.write("plan.yaml", HELD);
    let mut child = place.command("run plan.yaml").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    drop(child.stderr.take());
    place.write("gate", "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(place.json("status")["status"], "succeeded");
}

#[test]
fn a_reader_that_does_not_read_holds_nothing_up() {
    let place = Place::new();
    // Much more than a pipe takes, and more than is kept for a reader.
    place.write(
        "plan.yaml",
        "plan_id: p\nsteps:\n- {id: flood, shell: true, command: 'yes $(printf %01000d 0) | head -c 6000000'}\n\
         - {id: after, command: echo, args: [through], depends_on: [flood]}\n",
    );
    let mut run = place.start("run plan.yaml");
    run.wait_for("flood started");
    let followed = place.baton("events --follow");
    assert!(followed.exit == 0 && followed.stdout.contains("run_completed"), "{followed:?}");
    let ended = run.end();
    assert_eq!(ended.exit, 0);
    assert!(ended.stdout.contains("were not shown, nobody was reading"), "{}", ended.stdout.len());
    assert!(ended.stdout.contains("run 1 p succeeded"), "the summary comes through: {}", ended.stdout.len());
}

#[test]
fn a_plan_comes_from_standard_input() {
    let place = Place::new();
    let yaml = place.baton_with_input("run -", "plan_id: piped\nsteps: [{id: a, command: echo, args: [hi]}]\n");
    assert!(yaml.exit == 0 && yaml.stdout.contains("[a] hi"), "{yaml:?}");
    let json = place.baton_with_input("run -", r#"{"plan_id": "piped", "steps": [{"id": "a", "command": "true"}]}"#);
    assert_eq!(json.exit, 0, "{json:?}");
    let wrong = place.baton_with_input("run -", "[");
    assert!(wrong.exit == 2 && wrong.stderr.contains("-:1:"), "{wrong:?}");
}

#[test]
fn colours_are_used_only_where_they_are_wanted() {
    let place = Place::new();
    place.write("plan.yaml", "plan_id: p\nsteps: [{id: a, command: 'false'}]\n");
    let has_color = |text: &str| text.contains("\x1b[");
    assert!(!has_color(&place.baton("run plan.yaml").stdout), "a pipe is no terminal");
    assert!(has_color(&place.baton("run plan.yaml --color always").stdout));
    assert!(!has_color(&place.baton("run plan.yaml --color never").stdout));
    let asked = finish(place.command("status --color always").env("NO_COLOR", "1"));
    assert!(has_color(&asked.stdout), "what is asked for goes before the environment");
    assert!(has_color(&place.baton("check nowhere.yaml --color=always").stderr));
}

#[test]
fn every_answer_has_a_json_form() {
    let place = Place::new();
    place.write("plan.yaml", "plan_id: p\nsteps:\n- {id: a, command: echo, args: [x]}\n- {id: b, command: 'false'}\n");
    let ran = place.baton("run plan.yaml --output json");
    assert_eq!(ran.exit, 1);
    let kinds: Vec<String> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds.first().map(String::as_str), Some("run_created"));
    assert_eq!(kinds.last().map(String::as_str), Some("run_completed"));
    let from_log = place.baton("events --output json").stdout;
    assert_eq!(from_log, ran.stdout, "what is shown as it happens is what the log says");
    assert_eq!(fs::read_to_string(place.file(".baton/runs/1/events.jsonl")).unwrap().lines().count(), kinds.len());

    assert_eq!(place.json("check plan.yaml")["ok"], true);
    assert_eq!(place.json("graph plan.yaml")["steps"][1]["step"], "b");
    assert_eq!(place.json("schema")["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(place.json("runs")[0]["status"], "failed");
    assert_eq!(place.json("status 1")["steps"][1]["cause"], "exit code 1");
    assert_eq!(place.json("logs 1 a")["line"], "x");
    assert_eq!(place.json("why 1 b")["steps"][0]["status"], "failed");
    assert_eq!(place.json("locks")["held"], serde_json::json!([]));
    assert_eq!(place.json("doctor")["healthy"], true);
    assert_eq!(place.json("resume")["resumed"], serde_json::json!([]));
    assert_eq!(place.json("backup copy")["runs"], 1);
    assert_eq!(place.json("restore copy")["runs"], 1);
    assert_eq!(place.json("gc --keep-days 0 --dry-run")["runs"], serde_json::json!([1]));
    assert_eq!(place.json("run plan.yaml --dry-run")["steps"][0]["invocation"]["with"]["args"][0], "x");
    assert_eq!(place.json("init first.yaml")["written"], "first.yaml");
    assert_eq!(place.json("man pages")["written"].as_array().unwrap().len(), 21);

    for (arguments, code, exit) in [
        ("run nowhere.yaml", "plan-unreadable", 2),
        ("status 77", "no-such-run", 2),
        ("cancel 1", "illegal-operation", 3),
        ("init first.yaml", "file-exists", 3),
        ("logs 1 c", "unknown-step", 2),
        ("rnu plan.yaml", "usage", 2),
        ("run plan.yaml --only c", "bad-plan", 2),
    ] {
        let refused = place.baton(&format!("{arguments} --output json"));
        let error: Value = serde_json::from_str(&refused.stderr).unwrap_or_else(|_| panic!("{arguments}: {refused:?}"));
        assert_eq!(error["error"]["code"], code, "{arguments}");
        assert!(error["error"]["hint"].is_string(), "{arguments}: {error}");
        assert_eq!((refused.exit, &error["error"]["exit_code"]), (exit, &exit.into()), "{arguments}");
        assert_eq!(refused.stdout, "", "{arguments}");
    }
}

#[test]
fn a_dry_run_shows_what_would_run_and_leaves_no_trace() {
    let place = Place::new();
    place.write(
        "plan.yaml",
        r#"
plan_id: deploy
vars: {TARGET: staging, NOTE: "it's new"}
globals: {max_concurrency: 3, env: {STAGE: "${TARGET}"}}
steps:
  - {id: fetch, command: git, args: [fetch, "origin/${TARGET}"], cwd: sources, retries: 2, retry_delay_sec: 5}
  - {id: note, command: echo, args: ["${NOTE}", ""], depends_on: [fetch]}
  - id: deploy
    command: ./deploy
    args: ["${{ steps.fetch.outputs.commit }}"]
    depends_on: [fetch]
    condition: vars.TARGET != 'none'
    locks: ["deploy_${TARGET}"]
    timeout_sec: 90
"#,
    );
    let shown = place.baton("run plan.yaml --dry-run --var TARGET=live --from fetch --to deploy");
    assert_eq!(shown.exit, 0, "{shown:?}");
    insta::assert_snapshot!(shown.stdout, @r"
    deploy: would run 2 of 3 steps, at most 3 at once; nothing was run
      NOTE='it'\''s new'
      TARGET=live

    fetch
      runs      git fetch origin/live
      in        sources
      env       STAGE=live
      retries   2 retries, 5.0s between
      timeout   30m 00s

    note: outside the slice, does not run

    deploy
      runs      ./deploy '${{ steps.fetch.outputs.commit }}'
      env       STAGE=live
      after     fetch
      if        vars.TARGET != 'none'
      holds     deploy_live
      timeout   1m 30s
    ");
    assert!(!place.file(".baton").exists());
}

#[test]
fn a_slice_runs_alone_with_the_outputs_of_an_earlier_run() {
    let place = Place::new();
    place.write(
        "plan.yaml",
        r#"
plan_id: sliced
steps:
  - {id: make, shell: true, command: 'echo "name=cake" >> "$BATON_OUTPUT"'}
  - {id: use, command: echo, args: ["${{ steps.make.outputs.name }}"], depends_on: [make], tags: [late]}
"#,
    );
    assert_eq!(place.baton("run plan.yaml").exit, 0);
    let refused = place.baton("run plan.yaml --only use");
    assert_eq!(refused.exit, 2);
    assert!(refused.stderr.contains("--outputs-from"), "{}", refused.stderr);
    let sliced = place.baton("run plan.yaml --tag late --outputs-from 1");
    assert_eq!(sliced.exit, 0, "{sliced:?}");
    assert!(sliced.stdout.contains("[use] cake") && sliced.stdout.contains("1 succeeded, 1 kept"), "{sliced:?}");
}

#[test]
fn a_second_submit_with_the_same_key_is_the_same_run() {
    let place = Place::new();
    place.write("plan.yaml", "plan_id: p\nsteps: [{id: a, shell: true, command: 'echo x >> ran'}]\n");
    for _ in 0..2 {
        let ran = place.baton("run plan.yaml --idempotency-key monday --label day=monday");
        assert_eq!(ran.exit, 0, "{ran:?}");
    }
    assert_eq!(fs::read_to_string(place.file("ran")).unwrap(), "x\n");
    assert_eq!(place.json("runs --label day=monday").as_array().unwrap().len(), 1);
    assert_eq!(place.json("runs --label day=tuesday"), serde_json::json!([]));
}

#[test]
fn the_first_plan_is_written_once_and_runs() {
    let place = Place::new();
    assert_eq!(place.baton("init").exit, 0);
    assert_eq!(place.baton("init").exit, 3);
    assert_eq!(place.baton("check plan.yaml --strict").exit, 0);
    let ran = place.baton("run plan.yaml --var NAME=Ada");
    assert!(ran.exit == 0 && ran.stdout.contains("[tell] Ada has 3 letters"), "{ran:?}");
    assert!(ran.stdout.contains("- marvel skipped: its condition is false"), "{ran:?}");
}

#[test]
fn logs_are_exact_where_that_is_asked_for() {
    let place = Place::new();
    place.write(
        "plan.yaml",
        r#"
plan_id: p
steps:
  - {id: odd, shell: true, command: 'printf "a\001\033[2J\377b\nlast"'}
  - {id: many, shell: true, command: 'i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); done'}
"#,
    );
    assert_eq!(place.baton("run plan.yaml --quiet").stdout, "");
    let raw = place.command("logs 1 odd --raw").output().unwrap().stdout;
    assert_eq!(raw, b"a\x01\x1b[2J\xffb\nlast");
    assert_eq!(place.baton("logs many --tail 2").stdout, "line 2998\nline 2999\n");
    let all = place.baton("logs 1 many").stdout;
    assert_eq!((all.lines().count(), all.lines().last()), (3000, Some("line 2999")));
    let both = place.baton("logs").stdout;
    assert!(both.contains("[many] line 0\n") && both.contains("[odd] last\n"));
}

#[test]
fn a_terminal_sees_the_run_move_and_nothing_that_steps_print_acts_on_it() {
    let place = Place::new();
    let Ok(help) = std::process::Command::new("script").arg("--version").output() else {
        skipped("the terminal", "script(1), which makes one, is not installed");
        return;
    };
    assert!(help.status.success());
    place.write(
        "plan.yaml",
        r#"
plan_id: p
steps:
  - id: a
    shell: true
    command: |
      printf '\033]0;evil\007seen\n'
      sleep 0.3
      exit 1
"#,
    );
    let baton = env!("CARGO_BIN_EXE_baton");
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &format!("{baton} run plan.yaml"), "/dev/null"]).current_dir(place.path());
    command.env("TERM", "xterm").env("LANG", "C.UTF-8").env_remove("NO_COLOR").stdin(Stdio::null());
    let done = finish(&mut command);
    assert_eq!(done.exit, 1, "{done:?}");
    assert!(!done.stdout.contains("\x1b]0;evil"), "{done:?}");
    assert!(done.stdout.contains("\\x1b]0;evil\\x07seen"), "{done:?}");
    assert!(done.stdout.contains("running") && done.stdout.contains("0 of 1 steps"), "{done:?}");
    assert!(done.stdout.contains("run 1 p failed"), "{done:?}");
}

#[test]
fn completions_and_man_pages_know_every_command() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.baton(&format!("completions {shell}")).stdout;
        assert!(script.contains("idempotency-key") && script.contains("outputs-from"), "{shell}");
    }
    assert_eq!(place.baton("man man1").exit, 0);
    for name in ["baton", "baton-run", "baton-why", "baton-completions"] {
        assert!(fs::read_to_string(place.file(&format!("man1/{name}.1"))).unwrap().contains(".TH"), "{name}");
    }
    assert!(place.baton("man").stdout.contains("baton"));
    assert!(!place.baton("--help").stdout.contains("action"), "what is not for people is not shown");
}

#[test]
fn variables_come_from_the_command_line_before_files_before_the_plan() {
    let place = Place::new();
    place.write(
        "plan.yaml",
        "plan_id: p\nvars: {A: plan, B: plan, C: plan}\nsteps: [{id: a, command: echo, args: ['${A} ${B} ${C}']}]\n",
    );
    place.write("values.yaml", "A: yaml\nB: yaml\n");
    place.write("values.env", "# comment\nB=env\n");
    let ran = place.baton("run plan.yaml --var A=given --var-file values.yaml --var-file values.env");
    assert!(ran.stdout.contains("[a] given env plan"), "{ran:?}");
    place.write("broken.env", "no pair\n");
    let refused = place.baton("run plan.yaml --var-file broken.env");
    assert!(refused.exit == 2 && refused.stderr.contains("broken.env:1"), "{refused:?}");
}

#[test]
fn all_abandoned_runs_go_on_together() {
    let place = Place::new();
    for name in ["one", "two"] {
        place.write(&format!("{name}.yaml"), &HELD.replace("held", name));
        let mut run = place.start(&format!("run {name}.yaml"));
        run.wait_for("[hold] holding");
        run.kill();
    }
    place.write("gate", "");
    let resumed = place.baton("resume");
    assert_eq!(resumed.exit, 0, "{resumed:?}");
    for words in ["[1/last] done", "[2/last] done", "run 1 one succeeded", "run 2 two succeeded"] {
        assert!(resumed.stdout.contains(words), "{words}: {resumed:?}");
    }
}

#[test]
fn the_plans_of_this_repository_do_what_they_say() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let place = Place::new();
    let hello = root.join("plans/hello.yaml").canonicalize().unwrap();
    let ran = place.baton(&format!("run {} --var GUESTS=4", hello.display()));
    assert_eq!(ran.exit, 0, "{ran:?}");
    for words in [
        "fetch-eggs failed after",
        "(attempt 1 of 3)",
        "second-tin skipped: its condition is false",
        "[taste] a cake of 120 g of flour for 4 guests",
        "6 succeeded, 1 skipped",
    ] {
        assert!(ran.stdout.contains(words), "{words}: {ran:?}");
    }
    let data_dir = place.file("data").display().to_string();
    let program = format!("BATON={}", env!("CARGO_BIN_EXE_baton"));
    let arguments = ["run", "plans/docs-check/plan.yaml", "--var", &program, "--data-dir", &data_dir];
    let checked = finish(place.command_of(&arguments).current_dir(root));
    assert_eq!(checked.exit, 0, "{checked:?}");
}

/// The disk behind standard output is full: whoever only looks must know, and a run ends as it would have.
#[test]
fn an_answer_that_does_not_come_through_is_no_success() {
    let place = Place::new();
    place.write("plan.yaml", "plan_id: p\nsteps: [{id: a, command: echo, args: [hi]}]\n");
    let into_full = |arguments: &str| {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        finish(place.command(arguments).stdout(full).stderr(Stdio::piped()))
    };
    let looked = into_full("graph plan.yaml");
    assert_eq!(looked.exit, 3, "{looked:?}");
    assert!(looked.stderr.contains("error[output-lost]"), "{}", looked.stderr);
    let mut ran = place.command("run plan.yaml");
    let ran = ran.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap()).output().unwrap();
    assert!(String::from_utf8_lossy(&ran.stderr).contains("error[output-lost]"), "{ran:?}");
    assert_eq!(place.json("status")["status"], "succeeded");
}

#[test]
fn the_same_key_with_another_plan_is_remarked() {
    let place = Place::new();
    let plan = "plan_id: p\nsteps: [{id: a, command: echo, args: [hi]}]\n";
    place.write("plan.yaml", plan);
    assert_eq!(place.baton("run plan.yaml --idempotency-key nightly").exit, 0);
    let same = place.baton("run plan.yaml --idempotency-key nightly");
    assert!(same.stdout.contains("submitted with this key before") && same.stderr.is_empty(), "{same:?}");
    place.write("plan.yaml", &plan.replace("hi", "ho"));
    let other = place.baton("run plan.yaml --idempotency-key nightly");
    assert!(other.stderr.contains("the plan has changed since"), "{other:?}");
}

/// Whatever a run could begin with, it can be read with.
#[test]
fn a_run_that_began_can_always_be_read() {
    let place = Place::new();
    // A slice leaves out the step that lacks a variable.
    place.write(
        "slice.yaml",
        "plan_id: s\nsteps: [{id: a, command: echo}, {id: b, command: echo, args: [\"${MISSING}\"], depends_on: [a]}]\n",
    );
    assert_eq!(place.baton("run slice.yaml --only a").exit, 0);
    assert_eq!(place.json("status")["status"], "succeeded");
}

/// Values are bounded where they come in, so that a log never holds what cannot be read back.
#[test]
fn values_that_nest_too_deep_are_refused_and_others_can_be_read_back() {
    let place = Place::new();
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    place.write("input.yaml", "plan_id: i\ninputs: {x: {type: array}}\nsteps: [{id: a, command: echo}]\n");
    for (depth, exit) in [(64, 0), (65, 2), (126, 2)] {
        let done = finish(&mut place.command_of(&["run", "input.yaml", "--var", &format!("x={}", nested(depth))]));
        assert_eq!(done.exit, exit, "{depth}: {done:?}");
    }
    assert_eq!(place.json("status")["status"], "succeeded");
    place.write(
        "output.yaml",
        "plan_id: o\ninputs: {x: {type: string}}\nsteps:\n- {id: a, shell: true, command: 'echo k=$X >> $BATON_OUTPUT', \
         env: {X: '${{ inputs.x }}'}, outputs: {k: {type: array}}}\n",
    );
    for (depth, exit) in [(64, 0), (65, 1), (126, 1)] {
        let done = finish(&mut place.command_of(&[
            "run",
            "output.yaml",
            "-o",
            "json",
            "--var",
            &format!("x={}", nested(depth)),
        ]));
        assert_eq!(done.exit, exit, "{depth}: {done:?}");
        place.json("status");
    }
    place.write(
        "result.yaml",
        "plan_id: r\ninputs: {x: {type: array}}\noutputs: {o: [[\"${{ inputs.x }}\"]]}\nsteps: [{id: a, command: echo}]\n",
    );
    for (depth, exit) in [(62, 0), (63, 1)] {
        let done = finish(&mut place.command_of(&["run", "result.yaml", "--var", &format!("x={}", nested(depth))]));
        assert_eq!(done.exit, exit, "{depth}: {done:?}");
        place.json("status");
    }
}

/// What a retry keeps had no outputs because the step set none, and not because it was left out.
#[test]
fn a_retry_has_the_outputs_that_a_plain_run_has() {
    let place = Place::new();
    place.write(
        "plan.yaml",
        "plan_id: p\noutputs: {result: \"${{ has(steps.a.outputs.k) ? steps.a.outputs.k : 'none' }}\"}\n\
         steps: [{id: a, command: echo}, {id: b, shell: true, command: cat there, depends_on: [a]}]\n",
    );
    assert_eq!(place.baton("run plan.yaml").exit, 1);
    place.write("there", "");
    assert_eq!(place.baton("retry 1").exit, 0);
    assert_eq!(place.json("status")["outputs"]["result"], "none");
}

/// What could not be started has not begun, so whoever goes need not wait for its end.
#[test]
fn a_process_that_is_told_to_go_does_not_wait_for_what_never_started() {
    let place = Place::new();
    let steps: String =
        (0..60).map(|at| format!("- {{id: s{at}, command: sleep, args: ['30'], stop_grace_sec: 1}}\n")).collect();
    place.write("plan.yaml", &format!("plan_id: p\nglobals: {{max_concurrency: 60}}\nsteps:\n{steps}"));
    let mut shell = std::process::Command::new("/bin/sh");
    let baton = env!("CARGO_BIN_EXE_baton");
    shell.arg("-c").arg(format!("ulimit -n 40; exec {baton} run plan.yaml")).current_dir(place.path());
    let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("cannot start more processes")));
    let told = std::time::Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    std::thread::spawn(move || lines.count());
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert!(told.elapsed().as_secs() < 15, "it took {:?}", told.elapsed());
}

/// `finally` is a part of a run of its own: the first interrupt there asks politely too.
#[test]
fn a_second_interrupt_lets_what_cleans_up_end_by_itself() {
    let place = Place::new();
    place.write(
        "plan.yaml",
        "plan_id: p\nsteps: [{id: work, shell: true, command: 'echo working; sleep 60'}]\nfinally:\n\
         - {id: clean, shell: true, command: \"trap 'echo polite > polite; exit 0' TERM; echo cleaning; sleep 60 & wait\"}\n",
    );
    let mut going = place.start("run plan.yaml");
    let pid = rustix::process::Pid::from_child(&going.child);
    let interrupt = || rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    going.wait_for("[work] working");
    interrupt();
    going.wait_for("[clean] cleaning");
    interrupt();
    assert_eq!(going.child.wait().unwrap().code(), Some(130));
    assert!(place.file("polite").exists(), "it was told and not killed");
}
