//! What people are told about plans that are wrong, in JSON and in YAML alike.

use std::collections::BTreeMap;

use baton_lang::{Format, Given, MAX_PROBLEMS, Options, Problem, Source, load, parse_var_file, render_all};
use serde_json::{Value, json};

fn catalog() -> BTreeMap<String, Value> {
    let merge = json!({
        "type": "object",
        "properties": {
            "branch": {"type": "string"},
            "mode": {"type": "string", "enum": ["fast", "careful"]},
            "paths": {"type": "array", "items": {"type": "string"}},
            "depth": {"type": "integer", "minimum": 0},
        },
        "required": ["branch"],
        "additionalProperties": false,
    });
    BTreeMap::from([("git.merge".to_owned(), merge)])
}

fn told(source: &Source, options: &Options) -> Vec<Problem> {
    load(source, &catalog(), options).problems
}

/// What is said of a text in JSON, after checking that the same is said when it is read as YAML.
fn report(text: &str) -> String {
    let json = Source { name: "plan.json".into(), text: text.into(), format: Format::Json };
    let yaml = Source { format: Format::Yaml, ..json.clone() };
    let said = told(&json, &Options::default());
    let places = |problems: &[Problem], source: &Source| -> Vec<(String, Option<usize>)> {
        let line = |problem: &Problem| problem.span.map(|span| source.position(span.start).line);
        problems.iter().map(|problem| (problem.message.clone(), line(problem))).collect()
    };
    assert_eq!(places(&said, &json), places(&told(&yaml, &Options::default()), &yaml));
    render_all(&said, &json, false)
}

fn report_yaml(text: &str) -> String {
    let source = Source::new("plan.yaml", text);
    render_all(&told(&source, &Options::default()), &source, false)
}

fn report_json(text: &str) -> String {
    let source = Source::new("plan.json", text);
    render_all(&told(&source, &Options::default()), &source, false)
}

#[test]
fn unknown_fields_name_what_was_meant() {
    let plan = r#"{"plan_id": "p", "stepz": [], "matrix": [], "globals": {"max_concurency": 2}, "steps": [
  {"id": "a", "command": "x", "needs": ["b"], "timeout": 5, "xyzzy": 1, "for_each": [], "plan_id": "q",
   "ui_hints": {"grp": "g"}}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[unknown_field]: a plan has no field `stepz`
     --> plan.json:1:18
      |
    1 | {"plan_id": "p", "stepz": [], "matrix": [], "globals": {"max_concurency": 2}, "steps": [
      |                  ^^^^^^^
      = help: did you mean `steps`?

    error[not_available]: `matrix` is not available yet in this version of Baton
     --> plan.json:1:31
      |
    1 | {"plan_id": "p", "stepz": [], "matrix": [], "globals": {"max_concurency": 2}, "steps": [
      |                               ^^^^^^^^

    error[unknown_field]: `globals` has no field `max_concurency`
     --> plan.json:1:57
      |
    1 | {"plan_id": "p", "stepz": [], "matrix": [], "globals": {"max_concurency": 2}, "steps": [
      |                                                         ^^^^^^^^^^^^^^^^
      = help: did you mean `max_concurrency`?

    error[unknown_field]: a step has no field `needs`
     --> plan.json:2:31
      |
    2 |   {"id": "a", "command": "x", "needs": ["b"], "timeout": 5, "xyzzy": 1, "for_each": [], "plan_id": " …
      |                               ^^^^^^^
      = help: in Baton this is `depends_on`

    error[unknown_field]: a step has no field `timeout`
     --> plan.json:2:47
      |
    2 | … ": "a", "command": "x", "needs": ["b"], "timeout": 5, "xyzzy": 1, "for_each": [], "plan_id": "q",
      |                                           ^^^^^^^^^
      = help: in Baton this is `timeout_sec`

    error[unknown_field]: a step has no field `xyzzy`
     --> plan.json:2:61
      |
    2 | … nd": "x", "needs": ["b"], "timeout": 5, "xyzzy": 1, "for_each": [], "plan_id": "q",
      |                                           ^^^^^^^

    error[not_available]: `for_each` is not available yet in this version of Baton
     --> plan.json:2:73
      |
    2 | … eeds": ["b"], "timeout": 5, "xyzzy": 1, "for_each": [], "plan_id": "q",
      |                                           ^^^^^^^^^^

    error[unknown_field]: a step has no field `plan_id`
     --> plan.json:2:89
      |
    2 | … imeout": 5, "xyzzy": 1, "for_each": [], "plan_id": "q",
      |                                           ^^^^^^^^^
      = help: `plan_id` is a field of a plan; look at the indentation

    error[unknown_field]: `ui_hints` has no field `grp`
     --> plan.json:3:17
      |
    3 |    "ui_hints": {"grp": "g"}}
      |                 ^^^^^
    "#);
}

#[test]
fn wrong_types_say_what_is_taken_and_how_to_write_it() {
    let plan = r#"{"plan_id": 5, "vars": {"A": null, "B": ["x"]}, "steps": [
  {"id": "a", "command": true, "args": "-v", "shell": "yes", "timeout_sec": "30", "depends_on": "b", "env": [],
   "retries": {}, "tags": [[1]], "accept_exit_codes": ["0"]}, "b"
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[wrong_type]: `plan_id` takes a name, and this is the number 5
     --> plan.json:1:13
      |
    1 | {"plan_id": 5, "vars": {"A": null, "B": ["x"]}, "steps": [
      |             ^
      = help: in quotes it is text: "5"

    error[wrong_type]: `vars.A` takes text, and this is null
     --> plan.json:1:30
      |
    1 | {"plan_id": 5, "vars": {"A": null, "B": ["x"]}, "steps": [
      |                              ^^^^

    error[wrong_type]: `vars.B` takes text, and this is a list
     --> plan.json:1:41
      |
    1 | {"plan_id": 5, "vars": {"A": null, "B": ["x"]}, "steps": [
      |                                         ^

    error[wrong_type]: `command` takes text, and this is the boolean true
     --> plan.json:2:26
      |
    2 |   {"id": "a", "command": true, "args": "-v", "shell": "yes", "timeout_sec": "30", "depends_on": "b", …
      |                          ^^^^
      = help: in quotes it is text: "true"

    error[wrong_type]: `args` takes a list of texts, and this is the text "-v"
     --> plan.json:2:40
      |
    2 |   {"id": "a", "command": true, "args": "-v", "shell": "yes", "timeout_sec": "30", "depends_on": "b", …
      |                                        ^^^^
      = help: write ["-v"]

    error[wrong_type]: `shell` takes true or false, and this is the text "yes"
     --> plan.json:2:55
      |
    2 | … "command": true, "args": "-v", "shell": "yes", "timeout_sec": "30", "depends_on": "b", "env": [],
      |                                           ^^^^^
      = help: that is text; write `true`

    error[wrong_type]: `timeout_sec` takes a number of seconds above 0, and this is the text "30"
     --> plan.json:2:77
      |
    2 | … ": "-v", "shell": "yes", "timeout_sec": "30", "depends_on": "b", "env": [],
      |                                           ^^^^
      = help: without quotes: 30

    error[wrong_type]: `depends_on` takes a list of step ids, and this is the text "b"
     --> plan.json:2:97
      |
    2 | … es", "timeout_sec": "30", "depends_on": "b", "env": [],
      |                                           ^^^
      = help: write ["b"]

    error[wrong_type]: `env` takes a map of names to texts, and this is a list
     --> plan.json:2:109
      |
    2 | … t_sec": "30", "depends_on": "b", "env": [],
      |                                           ^

    error[wrong_type]: `retries` takes a whole number from 0 to 10000, and this is a map
     --> plan.json:3:15
      |
    3 |    "retries": {}, "tags": [[1]], "accept_exit_codes": ["0"]}, "b"
      |               ^

    error[wrong_type]: `tags` takes texts, and this is a list
     --> plan.json:3:28
      |
    3 |    "retries": {}, "tags": [[1]], "accept_exit_codes": ["0"]}, "b"
      |                            ^

    error[wrong_type]: `accept_exit_codes` takes numbers from 0 to 255, and this is the text "0"
     --> plan.json:3:56
      |
    3 |    "retries": {}, "tags": [[1]], "accept_exit_codes": ["0"]}, "b"
      |                                                        ^^^
      = help: without quotes: 0

    error[wrong_type]: a step is a map of fields, and this is the text "b"
     --> plan.json:3:63
      |
    3 |    "retries": {}, "tags": [[1]], "accept_exit_codes": ["0"]}, "b"
      |                                                               ^^^
    "#);
}

#[test]
fn numbers_have_ranges() {
    let plan = r#"{"plan_id": "p", "timeout_sec": 0, "globals": {"max_concurrency": 0, "default_timeout_sec": -5}, "steps": [
  {"id": "a", "command": "x", "retries": -1, "timeout_sec": 1e99, "retry_jitter": 1.5, "retry_delay_sec": -0.1,
   "accept_exit_codes": [256, 1.5], "ui_hints": {"weight": -1}},
  {"id": "b", "command": "x", "retries": 1.5, "accept_exit_codes": []}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[out_of_range]: `timeout_sec` takes a number of seconds above 0, and this is 0
     --> plan.json:1:33
      |
    1 | {"plan_id": "p", "timeout_sec": 0, "globals": {"max_concurrency": 0, "default_timeout_sec": -5}, "st …
      |                                 ^

    error[out_of_range]: `max_concurrency` takes a whole number from 1 to 4096, and this is 0
     --> plan.json:1:67
      |
    1 | … sec": 0, "globals": {"max_concurrency": 0, "default_timeout_sec": -5}, "steps": [
      |                                           ^

    error[out_of_range]: `default_timeout_sec` takes a number of seconds above 0, and this is -5
     --> plan.json:1:93
      |
    1 | … concurrency": 0, "default_timeout_sec": -5}, "steps": [
      |                                           ^^

    error[out_of_range]: `retries` takes a whole number from 0 to 10000, and this is -1
     --> plan.json:2:42
      |
    2 | …  {"id": "a", "command": "x", "retries": -1, "timeout_sec": 1e99, "retry_jitter": 1.5, "retry_delay_s …
      |                                           ^^

    error[out_of_range]: `timeout_sec` takes a number of seconds above 0, and this is 1e99
     --> plan.json:2:61
      |
    2 | … nd": "x", "retries": -1, "timeout_sec": 1e99, "retry_jitter": 1.5, "retry_delay_sec": -0.1,
      |                                           ^^^^
      = help: the longest is ten years, which are 315360000 seconds

    error[out_of_range]: `retry_jitter` takes a number from 0 to 1, and this is 1.5
     --> plan.json:2:83
      |
    2 | … 1, "timeout_sec": 1e99, "retry_jitter": 1.5, "retry_delay_sec": -0.1,
      |                                           ^^^

    error[out_of_range]: `retry_delay_sec` takes a number of seconds from 0, and this is -0.1
     --> plan.json:2:107
      |
    2 | … "retry_jitter": 1.5, "retry_delay_sec": -0.1,
      |                                           ^^^^

    error[out_of_range]: `256` is no exit code
     --> plan.json:3:26
      |
    3 |    "accept_exit_codes": [256, 1.5], "ui_hints": {"weight": -1}},
      |                          ^^^
      = help: exit codes go from 0 to 255

    error[out_of_range]: `1.5` is no exit code
     --> plan.json:3:31
      |
    3 |    "accept_exit_codes": [256, 1.5], "ui_hints": {"weight": -1}},
      |                               ^^^
      = help: exit codes go from 0 to 255

    error[out_of_range]: `weight` takes a number from 0, and this is -1
     --> plan.json:3:60
      |
    3 |    "accept_exit_codes": [256, 1.5], "ui_hints": {"weight": -1}},
      |                                                            ^^

    error[out_of_range]: `retries` takes a whole number from 0 to 10000, and this is 1.5
     --> plan.json:4:42
      |
    4 |   {"id": "b", "command": "x", "retries": 1.5, "accept_exit_codes": []}
      |                                          ^^^

    error[out_of_range]: `accept_exit_codes` is empty, so the step could never succeed
     --> plan.json:4:68
      |
    4 |   {"id": "b", "command": "x", "retries": 1.5, "accept_exit_codes": []}
      |                                                                    ^
      = help: it is [0] when it is left out
    "#);
}

#[test]
fn what_is_required_is_asked_for() {
    let plan = r#"{"version": "1", "steps": [{"command": "x"}, {"id": "b"}, {"id": "c", "command": null}]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[missing_field]: the plan has no `plan_id`
     --> plan.json:1:1
      |
    1 | {"version": "1", "steps": [{"command": "x"}, {"id": "b"}, {"id": "c", "command": null}]}
      | ^
      = help: add `plan_id`: the plan's name: letters, digits, `_`, `-` and `.`

    error[missing_field]: a step has no `id`
     --> plan.json:1:28
      |
    1 | {"version": "1", "steps": [{"command": "x"}, {"id": "b"}, {"id": "c", "command": null}]}
      |                            ^
      = help: add `id`: the step's name: a letter or `_`, then letters, digits, `_` and `-`

    error[no_action]: step `b` has neither `command` nor `uses`
     --> plan.json:1:53
      |
    1 | {"version": "1", "steps": [{"command": "x"}, {"id": "b"}, {"id": "c", "command": null}]}
      |                                                     ^^^
      = help: add `command: PROGRAM` with `args`, or `uses: ACTION` with `with`

    error[no_action]: step `c` has neither `command` nor `uses`
     --> plan.json:1:66
      |
    1 | {"version": "1", "steps": [{"command": "x"}, {"id": "b"}, {"id": "c", "command": null}]}
      |                                                                  ^^^
      = help: add `command: PROGRAM` with `args`, or `uses: ACTION` with `with`
    "#);
}

#[test]
fn a_plan_has_steps() {
    let plan = r#"{"plan_id": "p", "steps": []}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[no_steps]: the plan has no steps
     --> plan.json:1:27
      |
    1 | {"plan_id": "p", "steps": []}
      |                           ^
      = help: add at least one
    "#);
}

#[test]
fn ids_have_a_shape_and_are_there_once() {
    let plan = r#"{"plan_id": "a b", "steps": [
  {"id": "a", "command": "x"}, {"id": "1st step", "command": "x"}, {"id": "a", "command": "y"}, {"id": "", "command": "z"}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[bad_id]: `a b` cannot be a plan's name
     --> plan.json:1:13
      |
    1 | {"plan_id": "a b", "steps": [
      |             ^^^^^
      = help: take letters, digits, `_`, `-` and `.`, at most 100

    error[bad_id]: `1st step` cannot be a step's id
     --> plan.json:2:39
      |
    2 |   {"id": "a", "command": "x"}, {"id": "1st step", "command": "x"}, {"id": "a", "command": "y"}, {"id …
      |                                       ^^^^^^^^^^
      = help: a letter or `_`, then letters, digits, `_` and `-`, such as `_1st_step`

    error[duplicate_id]: two steps have the id `a`
     --> plan.json:2:75
      |
    2 | … d": "1st step", "command": "x"}, {"id": "a", "command": "y"}, {"id": "", "command": "z"}
      |                                           ^^^
      = see: the first one (plan.json:2:10)
      = help: give one of them another id

    error[bad_id]: `` cannot be a step's id
     --> plan.json:2:104
      |
    2 | … "}, {"id": "a", "command": "y"}, {"id": "", "command": "z"}
      |                                           ^^
      = help: a letter or `_`, then letters, digits, `_` and `-`, such as `_`
    "#);
}

#[test]
fn dependencies_exist_and_are_others() {
    let plan = r#"{"plan_id": "p", "steps": [
  {"id": "build", "command": "x"},
  {"id": "test", "command": "x", "depends_on": ["biuld", "test", "build", "build", "nothing-like-it"]}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[unknown_step]: there is no step `biuld`
     --> plan.json:3:49
      |
    3 | …  "test", "command": "x", "depends_on": ["biuld", "test", "build", "build", "nothing-like-it"]}
      |                                           ^^^^^^^
      = help: did you mean `build`?

    error[self_dependency]: step `test` depends on itself
     --> plan.json:3:58
      |
    3 | … "command": "x", "depends_on": ["biuld", "test", "build", "build", "nothing-like-it"]}
      |                                           ^^^^^^
      = help: take it out

    warning[no_effect]: `build` is listed twice
     --> plan.json:3:75
      |
    3 | … depends_on": ["biuld", "test", "build", "build", "nothing-like-it"]}
      |                                           ^^^^^^^
      = help: take one out

    error[unknown_step]: there is no step `nothing-like-it`
     --> plan.json:3:84
      |
    3 | … n": ["biuld", "test", "build", "build", "nothing-like-it"]}
      |                                           ^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn cycles_are_written_out() {
    let plan = r#"{"plan_id": "p", "steps": [
  {"id": "a", "command": "x", "depends_on": ["c"]},
  {"id": "b", "command": "x", "depends_on": ["a"]},
  {"id": "c", "command": "x", "depends_on": ["b"]},
  {"id": "d", "command": "x", "depends_on": ["c", "e"]},
  {"id": "e", "command": "x", "depends_on": ["d"]}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[cycle]: these steps wait for each other: a → c → b → a
     --> plan.json:2:46
      |
    2 |   {"id": "a", "command": "x", "depends_on": ["c"]},
      |                                              ^^^
      = see: `c` waits for `b` (plan.json:4:46)
      = see: `b` waits for `a` (plan.json:3:46)
      = help: take one of these dependencies out

    error[cycle]: these steps wait for each other: d → e → d
     --> plan.json:5:51
      |
    5 |   {"id": "d", "command": "x", "depends_on": ["c", "e"]},
      |                                                   ^^^
      = see: `e` waits for `d` (plan.json:6:46)
      = help: take one of these dependencies out
    "#);
}

#[test]
fn what_is_consumed_comes_from_a_step_before() {
    let plan = r#"{"plan_id": "p", "steps": [
  {"id": "a", "command": "x", "provides": ["report"]},
  {"id": "b", "command": "x", "consumes": ["report"]},
  {"id": "c", "command": "x", "consumes": ["reprot"]},
  {"id": "d", "command": "x", "consumes": ["own"], "provides": ["own"]},
  {"id": "e", "command": "x", "depends_on": ["a"]},
  {"id": "f", "command": "x", "depends_on": ["e"], "consumes": ["report"]}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[no_path]: `report` comes from `a`, which `b` does not wait for
     --> plan.json:3:44
      |
    3 |   {"id": "b", "command": "x", "consumes": ["report"]},
      |                                            ^^^^^^^^
      = help: add `a` to the `depends_on` of `b`

    error[nobody_provides]: nothing provides `reprot`
     --> plan.json:4:44
      |
    4 |   {"id": "c", "command": "x", "consumes": ["reprot"]},
      |                                            ^^^^^^^^
      = help: did you mean `report`?

    error[nobody_provides]: only `d` itself provides `own`
     --> plan.json:5:44
      |
    5 |   {"id": "d", "command": "x", "consumes": ["own"], "provides": ["own"]},
      |                                            ^^^^^
    "#);
}

#[test]
fn words_come_from_a_list() {
    let plan = r#"{"plan_id": "p", "steps": [
  {"id": "a", "command": "x", "on_failure": "abbort", "retry_backoff": "linear"}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[bad_choice]: `on_failure` cannot be `abbort`
     --> plan.json:2:45
      |
    2 |   {"id": "a", "command": "x", "on_failure": "abbort", "retry_backoff": "linear"}
      |                                             ^^^^^^^^
      = help: did you mean `abort`?

    error[bad_choice]: `retry_backoff` cannot be `linear`
     --> plan.json:2:72
      |
    2 |   {"id": "a", "command": "x", "on_failure": "abbort", "retry_backoff": "linear"}
      |                                                                        ^^^^^^^^
      = help: it is one of fixed, exponential
    "#);
}

#[test]
fn expressions_are_checked_before_anything_runs() {
    let plan = r#"{"plan_id": "p", "steps": [
  {"id": "a-b", "command": "x"},
  {"id": "c", "command": "x", "depends_on": ["a-b"], "condition": "steps.a-b.status == 'failed'"},
  {"id": "d", "command": "x", "depends_on": ["c"], "condition": "steps.c.status = 'failed'"},
  {"id": "e", "command": "x", "depends_on": ["c"], "condition": "stesp.c.status == 'failed'"},
  {"id": "f", "command": "x", "depends_on": ["c"], "condition": "steps.d.status == 'x' || steps.nope.status == 'y'"},
  {"id": "g", "command": "x", "depends_on": ["c"], "condition": "sise(steps.c.outputs.n) > 1"},
  {"id": "h", "command": "x", "depends_on": ["c"], "condition": "steps.c.state == 'failed' && steps[vars.X].status == 'a'"},
  {"id": "i", "command": "x", "depends_on": ["c"], "condition": "${{ true }}"},
  {"id": "j", "command": "x", "depends_on": ["c"], "condition": "matrix.x == 1 && run.idd == 1"},
  {"id": "k", "command": "x", "depends_on": ["c"], "condition": "(1 == 1"},
  {"id": "l", "command": "x", "depends_on": ["c"], "condition": " "},
  {"id": "m", "command": "x", "args": ["${{ steps.m.status }}", "a ${{ }} b", "${{ 1 +"], "name": "${{ 1 }}"}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[hyphenated_step]: `steps.a-b` would mean a subtraction, because of the `-`
     --> plan.json:3:74
      |
    3 |   {"id": "c", "command": "x", "depends_on": ["a-b"], "condition": "steps.a-b.status == 'failed'"},
      |                                                                          ^^^
      = help: write steps['a-b']

    error[bad_expression]: the expression cannot be read: mismatched input '=' expecting the end
     --> plan.json:4:81
      |
    4 |   {"id": "d", "command": "x", "depends_on": ["c"], "condition": "steps.c.status = 'failed'"},
      |                                                                                 ^
      = help: a comparison is `==`

    error[unknown_name]: there is no `stesp`
     --> plan.json:5:66
      |
    5 |   {"id": "e", "command": "x", "depends_on": ["c"], "condition": "stesp.c.status == 'failed'"},
      |                                                                  ^^^^^
      = help: did you mean `steps`?

    error[not_a_dependency]: `f` asks for the result of `d` without depending on it
     --> plan.json:6:72
      |
    6 | … depends_on": ["c"], "condition": "steps.d.status == 'x' || steps.nope.status == 'y'"},
      |                                           ^
      = help: add `d` to the `depends_on` of `f`

    error[unknown_step]: there is no step `nope`
     --> plan.json:6:97
      |
    6 | … ition": "steps.d.status == 'x' || steps.nope.status == 'y'"},
      |                                           ^^^^

    error[unknown_function]: there is no function `sise`
     --> plan.json:7:66
      |
    7 |   {"id": "g", "command": "x", "depends_on": ["c"], "condition": "sise(steps.c.outputs.n) > 1"},
      |                                                                  ^^^^
      = help: did you mean `size`?

    error[bad_expression]: `steps` must be followed by the id of one step
     --> plan.json:8:66
      |
    8 | … "x", "depends_on": ["c"], "condition": "steps.c.state == 'failed' && steps[vars.X].status == 'a'"},
      |                                           ^^^^^
      = help: write steps.ID.status or steps.ID.outputs.NAME

    error[unknown_name]: a step has no `state` to ask for
     --> plan.json:8:74
      |
    8 | … pends_on": ["c"], "condition": "steps.c.state == 'failed' && steps[vars.X].status == 'a'"},
      |                                           ^^^^^
      = help: write steps.ID.status or steps.ID.outputs.NAME

    error[bad_expression]: `condition` is an expression already
     --> plan.json:9:65
      |
    9 |   {"id": "i", "command": "x", "depends_on": ["c"], "condition": "${{ true }}"},
      |                                                                 ^^^^^^^^^^^^^
      = help: take `${{` and `}}` away

    error[not_available]: `matrix` is not available yet in this version of Baton
      --> plan.json:10:66
       |
    10 |   {"id": "j", "command": "x", "depends_on": ["c"], "condition": "matrix.x == 1 && run.idd == 1"},
       |                                                                  ^^^^^^

    error[unknown_name]: `run` has no `idd`
      --> plan.json:10:87
       |
    10 |   {"id": "j", "command": "x", "depends_on": ["c"], "condition": "matrix.x == 1 && run.idd == 1"},
       |                                                                                       ^^^
       = help: did you mean `id`?

    error[bad_expression]: a closing bracket is missing at the end
      --> plan.json:11:72
       |
    11 |   {"id": "k", "command": "x", "depends_on": ["c"], "condition": "(1 == 1"},
       |                                                                        ^

    error[bad_expression]: the expression is empty
      --> plan.json:12:66
       |
    12 |   {"id": "l", "command": "x", "depends_on": ["c"], "condition": " "},
       |                                                                  ^

    error[not_a_dependency]: step `m` asks for its own result
      --> plan.json:13:51
       |
    13 | … m", "command": "x", "args": ["${{ steps.m.status }}", "a ${{ }} b", "${{ 1 +"], "name": "${{ 1 }}"}
       |                                           ^
       = help: an expression is evaluated before the step runs

    error[bad_template]: `${{` has no `}}` after it
      --> plan.json:13:80
       |
    13 | … "${{ steps.m.status }}", "a ${{ }} b", "${{ 1 +"], "name": "${{ 1 }}"}
       |                                           ^^^^^^^
       = help: an expression is written ${{ like this }}

    error[expression_not_here]: an expression cannot stand here: this text is settled before the run starts
      --> plan.json:13:99
       |
    13 | …  }}", "a ${{ }} b", "${{ 1 +"], "name": "${{ 1 }}"}
       |                                           ^^^^^^^^^^
       = help: expressions stand in `command`, `args`, `cwd`, `env` and `with`, and in the plan's `outputs`
    "#);
}

#[test]
fn fallbacks_follow_rules() {
    let plan = r#"{"plan_id": "p", "steps": [
  {"id": "a", "command": "x", "on_failure": "fallback_step", "fallback_step": "nope"},
  {"id": "b", "command": "x", "on_failure": "fallback_step"},
  {"id": "c", "command": "x", "fallback_step": "a"},
  {"id": "d", "command": "x", "on_failure": "fallback_step", "fallback_step": "d"},
  {"id": "e", "command": "x", "on_failure": "fallback_step", "fallback_step": "f"},
  {"id": "f", "command": "x"},
  {"id": "g", "command": "x", "on_failure": "fallback_step", "fallback_step": "f", "depends_on": ["f"]},
  {"id": "h", "command": "x", "on_failure": "fallback_step", "fallback_step": "i"},
  {"id": "i", "command": "x", "on_failure": "fallback_step", "fallback_step": "h"}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[unknown_step]: there is no step `nope`
     --> plan.json:2:79
      |
    2 |   {"id": "a", "command": "x", "on_failure": "fallback_step", "fallback_step": "nope"},
      |                                                                               ^^^^^^

    error[fallback]: step `b` has `on_failure: fallback_step` and no `fallback_step`
     --> plan.json:3:31
      |
    3 |   {"id": "b", "command": "x", "on_failure": "fallback_step"},
      |                               ^^^^^^^^^^^^
      = help: add `fallback_step: ID`, or take another `on_failure`

    error[fallback]: step `c` has a `fallback_step` that never runs
     --> plan.json:4:48
      |
    4 |   {"id": "c", "command": "x", "fallback_step": "a"},
      |                                                ^^^
      = help: add `on_failure: fallback_step`

    error[fallback]: step `d` is its own fallback
     --> plan.json:5:79
      |
    5 |   {"id": "d", "command": "x", "on_failure": "fallback_step", "fallback_step": "d"},
      |                                                                               ^^^
      = help: `retries` runs a step again

    error[fallback]: `f` is already the fallback of `e`
     --> plan.json:8:79
      |
    8 | … ure": "fallback_step", "fallback_step": "f", "depends_on": ["f"]},
      |                                           ^^^
      = see: the first one (plan.json:6:79)
      = help: a fallback belongs to one step; write a second step

    error[fallback]: `f` is a fallback, and nothing can depend on it
     --> plan.json:8:99
      |
    8 | … ", "fallback_step": "f", "depends_on": ["f"]},
      |                                           ^^^
      = help: depend on `e`: its dependents go on from its fallback's result

    error[fallback]: fallbacks go round: h → i → h
      --> plan.json:10:79
       |
    10 |   {"id": "i", "command": "x", "on_failure": "fallback_step", "fallback_step": "h"}
       |                                                                               ^^^
       = help: the last one needs another `on_failure`
    "#);
}

#[test]
fn a_fallback_cannot_wait_for_what_waits_for_it() {
    let plan = r#"{"plan_id": "p", "steps": [
  {"id": "a", "command": "x", "on_failure": "fallback_step", "fallback_step": "f"},
  {"id": "b", "command": "x", "depends_on": ["a"]},
  {"id": "f", "command": "x", "depends_on": ["b"]}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[cycle]: these steps wait for each other: b → f → b
     --> plan.json:3:10
      |
    3 |   {"id": "b", "command": "x", "depends_on": ["a"]},
      |          ^^^
      = see: `f` waits for `b` (plan.json:4:46)
      = help: a fallback waits for its step, and the step's dependents wait for the fallback
    "#);
}

#[test]
fn a_step_does_one_thing() {
    let plan = r#"{"plan_id": "p", "steps": [
  {"id": "a", "command": "x", "uses": "git.merge"},
  {"id": "b", "name": "nothing"},
  {"id": "c", "command": "x", "with": {"a": 1}},
  {"id": "d", "uses": "git.merge", "with": {"branch": "b"}, "args": ["x"], "shell": true},
  {"id": "e", "command": "ls -l"},
  {"id": "f", "uses": "process"},
  {"id": "g", "command": " "}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[two_actions]: step `a` has both `command` and `uses`
     --> plan.json:2:26
      |
    2 |   {"id": "a", "command": "x", "uses": "git.merge"},
      |                          ^^^
      = see: `uses` (plan.json:2:39)
      = help: a step does one thing; take one away

    error[no_action]: step `b` has neither `command` nor `uses`
     --> plan.json:3:10
      |
    3 |   {"id": "b", "name": "nothing"},
      |          ^^^
      = help: add `command: PROGRAM` with `args`, or `uses: ACTION` with `with`

    error[no_effect]: step `c` has `with`, which belongs to `uses`
     --> plan.json:4:26
      |
    4 |   {"id": "c", "command": "x", "with": {"a": 1}},
      |                          ^^^
      = help: a command's arguments are `args`, its variables `env`

    error[no_effect]: step `d` has `args`, which belong to `command`
     --> plan.json:5:61
      |
    5 |   {"id": "d", "uses": "git.merge", "with": {"branch": "b"}, "args": ["x"], "shell": true},
      |                                                             ^^^^^^
      = help: an action's input is `with`

    error[no_effect]: step `d` has `shell`, which belongs to `command`
     --> plan.json:5:76
      |
    5 |   {"id": "d", "uses": "git.merge", "with": {"branch": "b"}, "args": ["x"], "shell": true},
      |                                                                            ^^^^^^^

    warning[command_with_blanks]: `ls -l` is taken for the name of one program
     --> plan.json:6:26
      |
    6 |   {"id": "e", "command": "ls -l"},
      |                          ^^^^^^^
      = help: put the arguments into `args`, or add `shell: true`

    error[unknown_action]: `uses: process` is written `command`
     --> plan.json:7:23
      |
    7 |   {"id": "f", "uses": "process"},
      |                       ^^^^^^^^^
      = help: write `command: PROGRAM` and `args`

    error[empty_command]: the `command` of step `g` is empty
     --> plan.json:8:26
      |
    8 |   {"id": "g", "command": " "}
      |                          ^^^
    "#);
}

#[test]
fn the_input_of_an_action_fits_its_schema() {
    let plan = r#"{"plan_id": "p", "steps": [
  {"id": "a", "uses": "git.mrge"},
  {"id": "b", "uses": "git.merge"},
  {"id": "c", "uses": "git.merge", "with": {"branch": 5, "mode": "fst", "brnch": 1, "paths": ["a", 1], "depth": 1.5}},
  {"id": "d", "uses": "git.merge", "with": {"branch": "${{ 1 }}", "mode": "${X:-fast}", "depth": "${{ 2 }}"}}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[unknown_action]: there is no action `git.mrge`
     --> plan.json:2:23
      |
    2 |   {"id": "a", "uses": "git.mrge"},
      |                       ^^^^^^^^^^
      = help: did you mean `git.merge`?

    error[bad_input]: `with` has no `branch`
     --> plan.json:3:23
      |
    3 |   {"id": "b", "uses": "git.merge"},
      |                       ^^^^^^^^^^^
      = help: add `branch`

    error[bad_input]: `with.branch` takes text, and this is the number 5
     --> plan.json:4:55
      |
    4 | … "uses": "git.merge", "with": {"branch": 5, "mode": "fst", "brnch": 1, "paths": ["a", 1], "depth": 1. …
      |                                           ^

    error[bad_input]: `with.mode` cannot be the text "fst"
     --> plan.json:4:66
      |
    4 | … t.merge", "with": {"branch": 5, "mode": "fst", "brnch": 1, "paths": ["a", 1], "depth": 1.5}},
      |                                           ^^^^^
      = help: did you mean `fast`?

    error[bad_input]: `with` takes no `brnch`
     --> plan.json:4:73
      |
    4 | … ", "with": {"branch": 5, "mode": "fst", "brnch": 1, "paths": ["a", 1], "depth": 1.5}},
      |                                           ^^^^^^^
      = help: did you mean `branch`?

    error[bad_input]: `with.paths[1]` takes text, and this is the number 1
     --> plan.json:4:100
      |
    4 | … ode": "fst", "brnch": 1, "paths": ["a", 1], "depth": 1.5}},
      |                                           ^

    error[bad_input]: `with.depth` takes a whole number, and this is the number 1.5
     --> plan.json:4:113
      |
    4 | … "brnch": 1, "paths": ["a", 1], "depth": 1.5}},
      |                                           ^^^
    "#);
}

#[test]
fn texts_are_checked() {
    let plan = r#"{"plan_id": "p", "vars": {"A": "a", "b-c": "x"}, "steps": [
  {"id": "a", "command": "x", "args": ["${secret.TOKEN}", "${}", "${A", "${a.b}", "${vars.A}", "${ A }", "${A:=b}"]},
  {"id": "b", "command": "echo ${{ 1 }} ${secret.X}", "shell": true},
  {"id": "c", "command": "x", "env": {"A=B": "x", "OK": "${{ 1 }}"}, "locks": [" "]}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[bad_name]: `b-c` cannot be a variable's name
     --> plan.json:1:37
      |
    1 | {"plan_id": "p", "vars": {"A": "a", "b-c": "x"}, "steps": [
      |                                     ^^^^^
      = help: a letter or `_`, then letters, digits and `_`

    error[not_available]: `${secret.TOKEN}`: secrets are not available yet in this version of Baton
     --> plan.json:2:41
      |
    2 |   {"id": "a", "command": "x", "args": ["${secret.TOKEN}", "${}", "${A", "${a.b}", "${vars.A}", "${ A …
      |                                         ^^^^^^^^^^^^^^^
      = help: let the step read it from its environment or from a file

    error[bad_template]: `${}` is neither ${NAME} nor ${NAME:-default}
     --> plan.json:2:60
      |
    2 | … and": "x", "args": ["${secret.TOKEN}", "${}", "${A", "${a.b}", "${vars.A}", "${ A }", "${A:=b}"]},
      |                                           ^^^
      = help: for a literal `${` write `$${`

    error[bad_template]: `${` has no `}` after it
     --> plan.json:2:67
      |
    2 | … x", "args": ["${secret.TOKEN}", "${}", "${A", "${a.b}", "${vars.A}", "${ A }", "${A:=b}"]},
      |                                           ^^^
      = help: for a literal `${` write `$${`

    error[bad_template]: `${a.b}` is neither ${NAME} nor ${NAME:-default}
     --> plan.json:2:74
      |
    2 | … gs": ["${secret.TOKEN}", "${}", "${A", "${a.b}", "${vars.A}", "${ A }", "${A:=b}"]},
      |                                           ^^^^^^
      = help: an expression stands in double braces: ${{ a.b }}

    error[bad_template]: `${vars.A}` is neither ${NAME} nor ${NAME:-default}
     --> plan.json:2:84
      |
    2 | … ecret.TOKEN}", "${}", "${A", "${a.b}", "${vars.A}", "${ A }", "${A:=b}"]},
      |                                           ^^^^^^^^^
      = help: write ${A}

    error[bad_template]: `${ A }` is neither ${NAME} nor ${NAME:-default}
     --> plan.json:2:97
      |
    2 | … , "${}", "${A", "${a.b}", "${vars.A}", "${ A }", "${A:=b}"]},
      |                                           ^^^^^^
      = help: take the blanks out

    error[bad_template]: `${A:=b}` is neither ${NAME} nor ${NAME:-default}
     --> plan.json:2:107
      |
    2 | … ${A", "${a.b}", "${vars.A}", "${ A }", "${A:=b}"]},
      |                                           ^^^^^^^
      = help: for a literal `${` write `$${`

    error[expression_in_script]: an expression in a shell script would turn a value into code
     --> plan.json:3:32
      |
    3 |   {"id": "b", "command": "echo ${{ 1 }} ${secret.X}", "shell": true},
      |                                ^^^
      = help: put it into `env`, as NAME: ${{ … }}, and write "$NAME" in the script

    error[not_available]: secrets are not available yet in this version of Baton
     --> plan.json:3:41
      |
    3 |   {"id": "b", "command": "echo ${{ 1 }} ${secret.X}", "shell": true},
      |                                         ^^^^^^^^^

    error[bad_name]: `A=B` cannot be the name of an environment variable
     --> plan.json:4:39
      |
    4 |   {"id": "c", "command": "x", "env": {"A=B": "x", "OK": "${{ 1 }}"}, "locks": [" "]}
      |                                       ^^^^^

    error[bad_name]: a lock needs a name
     --> plan.json:4:80
      |
    4 |   {"id": "c", "command": "x", "env": {"A=B": "x", "OK": "${{ 1 }}"}, "locks": [" "]}
      |                                                                                ^^^
    "#);
}

#[test]
fn undefined_variables_are_all_listed_with_their_places() {
    let plan = r#"{"plan_id": "p", "vars": {"BRANCH": "main", "URL": "x${HOST}", "L": "${M}", "M": "${L}"}, "steps": [
  {"id": "a", "command": "x", "args": ["${BRNCH}", "${OTHER}", "${OTHER:-fine}"]},
  {"id": "b", "command": "x", "cwd": "${OTHER}", "condition": "vars.MORE == 'x' && has(vars.FINE)", "comand": 1}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[undefined_variable]: the variable `HOST` has no value
     --> plan.json:1:52
      |
    1 | {"plan_id": "p", "vars": {"BRANCH": "main", "URL": "x${HOST}", "L": "${M}", "M": "${L}"}, "steps": [
      |                                                    ^^^^^^^^^^
      = help: give it with --var HOST=…, a default under `vars`, or ${HOST:-default}

    error[variable_cycle]: variables go round: L → M → L
     --> plan.json:1:82
      |
    1 | {"plan_id": "p", "vars": {"BRANCH": "main", "URL": "x${HOST}", "L": "${M}", "M": "${L}"}, "steps": [
      |                                                                                  ^^^^^^

    error[undefined_variable]: the variable `BRNCH` has no value
     --> plan.json:2:40
      |
    2 |   {"id": "a", "command": "x", "args": ["${BRNCH}", "${OTHER}", "${OTHER:-fine}"]},
      |                                        ^^^^^^^^^^
      = help: did you mean `BRANCH`? Else give it with --var BRNCH=…, a default under `vars`, or ${BRNCH:-default}

    error[undefined_variable]: the variable `OTHER` has no value, and 2 places need it
     --> plan.json:2:52
      |
    2 |   {"id": "a", "command": "x", "args": ["${BRNCH}", "${OTHER}", "${OTHER:-fine}"]},
      |                                                    ^^^^^^^^^^
      = see: here too (plan.json:3:38)
      = help: give it with --var OTHER=…, a default under `vars`, or ${OTHER:-default}

    error[undefined_variable]: the variable `MORE` has no value
     --> plan.json:3:63
      |
    3 | … ": "x", "cwd": "${OTHER}", "condition": "vars.MORE == 'x' && has(vars.FINE)", "comand": 1}
      |                                           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: give it with --var MORE=…, a default under `vars`, or ${MORE:-default}

    error[unknown_field]: a step has no field `comand`
     --> plan.json:3:101
      |
    3 | … : "vars.MORE == 'x' && has(vars.FINE)", "comand": 1}
      |                                           ^^^^^^^^
      = help: did you mean `command`?
    "#);
}

#[test]
fn keys_stand_once() {
    let plan =
        r#"{"plan_id": "p", "plan_id": "q", "steps": [{"id": "a", "command": "x", "env": {"A": "1", "A": "2"}}]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[duplicate_key]: `plan_id` is given twice
     --> plan.json:1:18
      |
    1 | {"plan_id": "p", "plan_id": "q", "steps": [{"id": "a", "command": "x", "env": {"A": "1", "A": "2"}}] …
      |                  ^^^^^^^^^
      = see: first given here (plan.json:1:2)
      = help: keep one of them

    error[duplicate_key]: `A` is given twice
     --> plan.json:1:90
      |
    1 | …  "a", "command": "x", "env": {"A": "1", "A": "2"}}]}
      |                                           ^^^
      = see: first given here (plan.json:1:80)
      = help: keep one of them
    "#);
}

#[test]
fn yaml_not_a_plan_at_all() {
    insta::assert_snapshot!(report_yaml("- a\n"), @r#"
    error[wrong_type]: a plan is a map of fields, and this is a list
     --> plan.yaml:1:1
      |
    1 | - a
      | ^
      = help: a plan begins with `plan_id: NAME` and `steps:`
    "#);
}

#[test]
fn yaml_an_empty_text() {
    insta::assert_snapshot!(report_yaml("# nothing\n"), @r#"
    error[empty_plan]: there is no plan in this text
     --> plan.yaml:2:1
      |
    2 |
      | ^
      = help: a plan has `plan_id` and `steps`; `baton init` writes one to start from
    "#);
}

#[test]
fn yaml_tabs_for_indentation() {
    insta::assert_snapshot!(report_yaml("plan_id: p\nsteps:\n\t- id: a\n"), @r#"
    error[yaml_syntax]: this is not YAML: tabs disallowed within this context (block indentation)
     --> plan.yaml:3:2
      |
    3 |  - id: a
      |  ^
      = help: indent with spaces, not with tabs
    "#);
}

#[test]
fn yaml_a_quote_without_end() {
    insta::assert_snapshot!(report_yaml("plan_id: 'p\nsteps: []\n"), @r#"
    error[yaml_syntax]: this is not YAML: invalid indentation in quoted scalar
     --> plan.yaml:1:10
      |
    1 | plan_id: 'p
      |          ^
      = help: look at the indentation, at quotes and brackets that do not end, at the line before
    "#);
}

#[test]
fn yaml_anchors_tags_and_merge_keys() {
    insta::assert_snapshot!(report_yaml("plan_id: p\nmetadata: &m {a: !x 1}\nlabels: *m\nsteps:\n- <<: *m\n"), @r#"
    error[yaml_anchor]: anchors (`&name`) and aliases (`*name`) are not taken
     --> plan.yaml:2:11
      |
    2 | metadata: &m {a: !x 1}
      |           ^^^^
      = help: write the value out where it is needed; `vars` can hold what repeats

    error[yaml_tag]: tags (`!name`) are not taken
     --> plan.yaml:2:18
      |
    2 | metadata: &m {a: !x 1}
      |                  ^^^^
      = help: take the tag away; text that looks like a number stands in quotes

    error[yaml_anchor]: anchors (`&name`) and aliases (`*name`) are not taken
     --> plan.yaml:3:9
      |
    3 | labels: *m
      |         ^^
      = help: write the value out where it is needed; `vars` can hold what repeats

    error[yaml_merge]: merge keys (`<<`) are not part of YAML 1.2
     --> plan.yaml:5:3
      |
    5 | - <<: *m
      |   ^^
      = help: write the fields out; `globals` holds what all steps share
    "#);
}

#[test]
fn yaml_two_documents() {
    insta::assert_snapshot!(report_yaml("plan_id: p\nsteps: [{id: a, command: x}]\n---\nplan_id: q\n"), @r#"
    error[yaml_documents]: a second document begins here
     --> plan.yaml:3:1
      |
    3 | ---
      | ^^^
      = help: a plan is one document; put the other one into its own file
    "#);
}

#[test]
fn yaml_booleans_of_old() {
    insta::assert_snapshot!(report_yaml("plan_id: p\nsteps:\n- id: a\n  command: x\n  shell: yes\n  critical: off\n"), @r#"
    error[wrong_type]: `shell` takes true or false, and this is the text "yes"
     --> plan.yaml:5:10
      |
    5 |   shell: yes
      |          ^^^
      = help: that is text; write `true`

    error[wrong_type]: `critical` takes true or false, and this is the text "off"
     --> plan.yaml:6:13
      |
    6 |   critical: off
      |             ^^^
      = help: that is text; write `false`
    "#);
}

#[test]
fn yaml_a_script_in_a_block() {
    insta::assert_snapshot!(report_yaml("plan_id: p\nsteps:\n- id: a\n  shell: true\n  command: |\n    echo\n    echo ${{ steps.b.status }}\n"), @r#"
    error[expression_in_script]: an expression in a shell script would turn a value into code
     --> plan.yaml:7:10
      |
    7 |     echo ${{ steps.b.status }}
      |          ^^^
      = help: put it into `env`, as NAME: ${{ … }}, and write "$NAME" in the script
    "#);
}

#[test]
fn yaml_a_place_after_other_alphabets() {
    insta::assert_snapshot!(report_yaml("plan_id: p\ndescription: 'ünïcödé ${X} 漢字 ${Y'\nsteps: [{id: a, command: x, 名: y}]\n"), @r#"
    error[undefined_variable]: the variable `X` has no value
     --> plan.yaml:2:14
      |
    2 | description: 'ünïcödé ${X} 漢字 ${Y'
      |              ^^^^^^^^^^^^^^^^^^^^^
      = help: give it with --var X=…, a default under `vars`, or ${X:-default}

    error[bad_template]: `${` has no `}` after it
     --> plan.yaml:2:31
      |
    2 | description: 'ünïcödé ${X} 漢字 ${Y'
      |                               ^^^
      = help: for a literal `${` write `$${`

    error[unknown_field]: a step has no field `名`
     --> plan.yaml:3:29
      |
    3 | steps: [{id: a, command: x, 名: y}]
      |                             ^
    "#);
}

#[test]
fn yaml_keys_that_are_no_text() {
    insta::assert_snapshot!(report_yaml("plan_id: p\n? [a]\n: b\n"), @r#"
    error[yaml_key]: a list or a map cannot be a key here
     --> plan.yaml:2:3
      |
    2 | ? [a]
      |   ^
      = help: text that begins with `[` or `{` stands in quotes
    "#);
}

#[test]
fn json_a_comma_too_many() {
    insta::assert_snapshot!(report_json(r#"{"plan_id": "p",}"#), @r#"
    error[json_syntax]: found `}` where a key in double quotes should be
     --> plan.json:1:17
      |
    1 | {"plan_id": "p",}
      |                 ^
      = help: take out the comma before it
    "#);
}

#[test]
fn json_a_comment() {
    insta::assert_snapshot!(report_json(r#"{"plan_id": "p" // name
}"#), @r#"
    error[json_syntax]: found `/` where `,` or `}` should be
     --> plan.json:1:17
      |
    1 | {"plan_id": "p" // name
      |                 ^
      = help: JSON has no comments; take it out, or write the plan as YAML
    "#);
}

#[test]
fn json_a_text_without_end() {
    insta::assert_snapshot!(report_json(r#"{"plan_id": "p
}"#), @r#"
    error[json_syntax]: this text has no end
     --> plan.json:1:13
      |
    1 | {"plan_id": "p
      |             ^^
      = help: a closing `"` is missing; a line break inside is written \n
    "#);
}

#[test]
fn json_half_a_pair() {
    insta::assert_snapshot!(report_json(r#"{"plan_id": "\ud800"}"#), @r#"
    error[json_syntax]: this is half of a surrogate pair, and no character
     --> plan.json:1:14
      |
    1 | {"plan_id": "\ud800"}
      |              ^^^^^^
    "#);
}

#[test]
fn json_a_strange_escape() {
    insta::assert_snapshot!(report_json(r#"{"plan_id": "\q"}"#), @r#"
    error[json_syntax]: `\` begins an escape that JSON does not have
     --> plan.json:1:14
      |
    1 | {"plan_id": "\q"}
      |              ^
      = help: a backslash itself is written \\
    "#);
}

#[test]
fn json_single_quotes() {
    insta::assert_snapshot!(report_json(r#"{'plan_id': 'p'}"#), @r#"
    error[json_syntax]: found `'` where a key in double quotes should be
     --> plan.json:1:2
      |
    1 | {'plan_id': 'p'}
      |  ^
      = help: JSON text stands in double quotes
    "#);
}

#[test]
fn json_words_of_python() {
    insta::assert_snapshot!(report_json(r#"{"plan_id": None}"#), @r#"
    error[json_syntax]: `None` is no JSON value
     --> plan.json:1:13
      |
    1 | {"plan_id": None}
      |             ^^^^
      = help: write `null`
    "#);
}

#[test]
fn json_more_after_the_end() {
    insta::assert_snapshot!(report_json(r#"{"plan_id": "p", "steps": [{"id": "a", "command": "x"}]} x"#), @r#"
    error[json_syntax]: found `x` where the end of the text should be
     --> plan.json:1:58
      |
    1 | {"plan_id": "p", "steps": [{"id": "a", "command": "x"}]} x
      |                                                          ^
    "#);
}

#[test]
fn json_a_number_with_a_zero() {
    insta::assert_snapshot!(report_json(r#"{"timeout_sec": 01}"#), @r#"
    error[json_syntax]: `01` is no JSON number
     --> plan.json:1:17
      |
    1 | {"timeout_sec": 01}
      |                 ^^
      = help: a number does not begin with 0
    "#);
}

#[test]
fn json_cut_off() {
    insta::assert_snapshot!(report_json(r#"{"plan_id": "p", "steps": ["#), @r#"
    error[json_syntax]: the text ends where a value should be
     --> plan.json:1:28
      |
    1 | {"plan_id": "p", "steps": [
      |                            ^
      = help: is a closing bracket missing, or was the file cut off?
    "#);
}

#[test]
fn only_so_many_problems_are_told() {
    let steps: Vec<Value> = (0..500).map(|at| json!({"id": format!("s{at}"), "command": "x", "wrong": 1})).collect();
    let source = Source::new("plan.json", json!({"plan_id": "p", "steps": steps}).to_string());
    let problems = told(&source, &Options::default());
    assert_eq!(problems.len(), MAX_PROBLEMS + 1);
    assert_eq!(problems[MAX_PROBLEMS].message, "400 more problems are not shown; mend these first");
}

#[test]
fn a_value_that_nothing_uses_is_a_warning() {
    let source = Source::new("plan.yaml", "plan_id: p\nvars: {BRANCH: main}\nsteps: [{id: a, command: x}]\n");
    let options = Options { vars: BTreeMap::from([("BRNCH".into(), "x".into())]), ..Options::default() };
    let loaded = load(&source, &catalog(), &options);
    assert!(loaded.compiled.is_some());
    insta::assert_snapshot!(render_all(&loaded.problems, &source, false), @r#"
    warning[unused_variable]: the plan has no variable `BRNCH`, so its value is not used
      = help: did you mean `BRANCH`?
    "#);
}

#[test]
fn a_long_line_is_cut_around_the_place() {
    let steps: Vec<Value> = (0..50).map(|at| json!({"id": format!("s{at}"), "command": "x"})).collect();
    let text = json!({"plan_id": "p", "steps": steps}).to_string().replace("\"s25\"", "\"s 25\"");
    insta::assert_snapshot!(report_json(&text), @r#"
    error[bad_id]: `s 25` cannot be a step's id
     --> plan.json:1:710
      |
    1 | … nd":"x","id":"s24"},{"command":"x","id":"s 25"},{"command":"x","id":"s26"},{"command":"x","id":"s27" …
      |                                           ^^^^^^
      = help: a letter or `_`, then letters, digits, `_` and `-`, such as `s_25`
    "#);
}

#[test]
fn problems_are_data_too() {
    let source = Source::new("plan.yaml", "plan_id: p\nsteps:\n- id: a\n  comand: x\n");
    let problems = told(&source, &Options::default());
    let first = problems.iter().find(|problem| problem.code == "unknown_field").expect("it is told");
    insta::assert_snapshot!(first.to_json(&source), @r#"{"code":"unknown_field","column":3,"end_column":9,"end_line":4,"file":"plan.yaml","hint":"did you mean `command`?","line":4,"message":"a step has no field `comand`","severity":"error"}"#);
}

#[test]
fn schemas_are_enforced_to_the_last_keyword() {
    let plan = r#"{"plan_id": "p", "steps": [{"id": "a", "command": "x"}], "inputs": {
  "a-b": {"type": "string"}, "none": null, "word": "string", "untyped": {"default": 1}, "list": ["string"],
  "typo": {"type": "string", "minLenght": 1, "oneOf": [], "secret": true},
  "types": {"type": "strng"}, "several": {"type": ["int", null, "Number"]}, "empty": {"type": []},
  "wrong": {"type": "string", "minLength": "1", "maxLength": -1, "pattern": 5, "enum": "a", "title": 1, "examples": {}},
  "inner": {"type": "object", "properties": {"x": {"type": "lst", "default": 1}, "y": 5}, "required": "x"},
  "more": {"type": "array", "items": [{"type": "string"}], "uniqueItems": "yes", "additionalProperties": "no"},
  "half": {"type": "array", "minItems": 1.5, "required": [1]}
}}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[bad_name]: `a-b` cannot be the name of an input
     --> plan.json:2:3
      |
    2 |   "a-b": {"type": "string"}, "none": null, "word": "string", "untyped": {"default": 1}, "list": ["st …
      |   ^^^^^
      = help: a letter or `_`, then letters, digits and `_`

    error[wrong_type]: `inputs.none` takes a schema, and this is null
     --> plan.json:2:38
      |
    2 |   "a-b": {"type": "string"}, "none": null, "word": "string", "untyped": {"default": 1}, "list": ["st …
      |                                      ^^^^
      = help: write {type: string}, or another type

    error[wrong_type]: `inputs.word` takes a schema, and this is the text "string"
     --> plan.json:2:52
      |
    2 | … type": "string"}, "none": null, "word": "string", "untyped": {"default": 1}, "list": ["string"],
      |                                           ^^^^^^^^
      = help: write {type: string}

    error[missing_field]: `inputs.untyped` has no `type`
     --> plan.json:2:62
      |
    2 | … ring"}, "none": null, "word": "string", "untyped": {"default": 1}, "list": ["string"],
      |                                           ^^^^^^^^^
      = help: add `type`: one of string, integer, number, boolean, array, object, null

    error[wrong_type]: `inputs.list` takes a schema, and this is a list
     --> plan.json:2:97
      |
    2 | … ng", "untyped": {"default": 1}, "list": ["string"],
      |                                           ^
      = help: write {type: string}, or another type

    error[unknown_field]: a schema has no `minLenght` here, for it would not be enforced
     --> plan.json:3:30
      |
    3 |   "typo": {"type": "string", "minLenght": 1, "oneOf": [], "secret": true},
      |                              ^^^^^^^^^^^
      = help: did you mean `minLength`?

    error[unknown_field]: a schema has no `oneOf` here, for it would not be enforced
     --> plan.json:3:46
      |
    3 |   "typo": {"type": "string", "minLenght": 1, "oneOf": [], "secret": true},
      |                                              ^^^^^^^
      = help: the reference of plans says which keywords of JSON Schema there are

    error[not_available]: secrets are not available yet in this version of Baton
     --> plan.json:3:59
      |
    3 |   "typo": {"type": "string", "minLenght": 1, "oneOf": [], "secret": true},
      |                                                           ^^^^^^^^

    error[bad_choice]: there is no type `strng`
     --> plan.json:4:21
      |
    4 |   "types": {"type": "strng"}, "several": {"type": ["int", null, "Number"]}, "empty": {"type": []},
      |                     ^^^^^^^
      = help: did you mean `string`?

    error[bad_choice]: there is no type `int`
     --> plan.json:4:52
      |
    4 |   "types": {"type": "strng"}, "several": {"type": ["int", null, "Number"]}, "empty": {"type": []},
      |                                                    ^^^^^
      = help: in Baton this is `integer`

    error[wrong_type]: `inputs.several.type` takes the name of a type, and this is null
     --> plan.json:4:59
      |
    4 |   "types": {"type": "strng"}, "several": {"type": ["int", null, "Number"]}, "empty": {"type": []},
      |                                                           ^^^^
      = help: in quotes it is a type: "null"

    error[bad_choice]: there is no type `Number`
     --> plan.json:4:65
      |
    4 |   "types": {"type": "strng"}, "several": {"type": ["int", null, "Number"]}, "empty": {"type": []},
      |                                                                 ^^^^^^^^
      = help: did you mean `number`?

    error[bad_schema]: `inputs.empty.type` is empty, so nothing fits
     --> plan.json:4:95
      |
    4 |   "types": {"type": "strng"}, "several": {"type": ["int", null, "Number"]}, "empty": {"type": []},
      |                                                                                               ^

    error[wrong_type]: `inputs.wrong.minLength` takes a whole number from 0, and this is the text "1"
     --> plan.json:5:44
      |
    5 | … wrong": {"type": "string", "minLength": "1", "maxLength": -1, "pattern": 5, "enum": "a", "title": 1, …
      |                                           ^^^

    error[out_of_range]: `inputs.wrong.maxLength` takes a whole number from 0, and this is -1
     --> plan.json:5:62
      |
    5 | … string", "minLength": "1", "maxLength": -1, "pattern": 5, "enum": "a", "title": 1, "examples": {}},
      |                                           ^^

    error[wrong_type]: `inputs.wrong.pattern` takes text, and this is the number 5
     --> plan.json:5:77
      |
    5 | … ngth": "1", "maxLength": -1, "pattern": 5, "enum": "a", "title": 1, "examples": {}},
      |                                           ^

    error[wrong_type]: `inputs.wrong.enum` takes a list of values, and this is the text "a"
     --> plan.json:5:88
      |
    5 | …  "maxLength": -1, "pattern": 5, "enum": "a", "title": 1, "examples": {}},
      |                                           ^^^

    error[wrong_type]: `inputs.wrong.title` takes text, and this is the number 1
     --> plan.json:5:102
      |
    5 | … -1, "pattern": 5, "enum": "a", "title": 1, "examples": {}},
      |                                           ^

    error[wrong_type]: `inputs.wrong.examples` takes a list of values, and this is a map
     --> plan.json:5:117
      |
    5 | … 5, "enum": "a", "title": 1, "examples": {}},
      |                                           ^

    error[bad_choice]: there is no type `lst`
     --> plan.json:6:60
      |
    6 | …  "object", "properties": {"x": {"type": "lst", "default": 1}, "y": 5}, "required": "x"},
      |                                           ^^^^^
      = help: it is one of string, integer, number, boolean, array, object, null

    error[bad_schema]: `inputs.inner.properties.x.default` would not be put in
     --> plan.json:6:67
      |
    6 | … t", "properties": {"x": {"type": "lst", "default": 1}, "y": 5}, "required": "x"},
      |                                           ^^^^^^^^^
      = help: a default stands at the top of an input or an output, for the whole of it

    error[wrong_type]: `inputs.inner.properties.y` takes a schema, and this is the number 5
     --> plan.json:6:87
      |
    6 | … x": {"type": "lst", "default": 1}, "y": 5}, "required": "x"},
      |                                           ^
      = help: a schema is a map such as {type: string}

    error[wrong_type]: `inputs.inner.required` takes a list of names, and this is the text "x"
     --> plan.json:6:103
      |
    6 | … t", "default": 1}, "y": 5}, "required": "x"},
      |                                           ^^^

    error[wrong_type]: `inputs.more.items` takes a schema, and this is a list
     --> plan.json:7:38
      |
    7 |   "more": {"type": "array", "items": [{"type": "string"}], "uniqueItems": "yes", "additionalProperti …
      |                                      ^

    error[wrong_type]: `inputs.more.uniqueItems` takes true or false, and this is the text "yes"
     --> plan.json:7:75
      |
    7 | … ": [{"type": "string"}], "uniqueItems": "yes", "additionalProperties": "no"},
      |                                           ^^^^^

    error[bad_schema]: `inputs.more.additionalProperties` says nothing: `inputs.more` takes a list
     --> plan.json:7:82
      |
    7 | … ype": "string"}], "uniqueItems": "yes", "additionalProperties": "no"},
      |                                           ^^^^^^^^^^^^^^^^^^^^^^
      = help: take it out; it goes with `type: object`

    error[wrong_type]: `inputs.more.additionalProperties` takes true, false or a schema, and this is the text "no"
     --> plan.json:7:106
      |
    7 | … eItems": "yes", "additionalProperties": "no"},
      |                                           ^^^^

    error[out_of_range]: `inputs.half.minItems` takes a whole number from 0, and this is 1.5
     --> plan.json:8:41
      |
    8 |   "half": {"type": "array", "minItems": 1.5, "required": [1]}
      |                                         ^^^

    error[bad_schema]: `inputs.half.required` says nothing: `inputs.half` takes a list
     --> plan.json:8:46
      |
    8 |   "half": {"type": "array", "minItems": 1.5, "required": [1]}
      |                                              ^^^^^^^^^^
      = help: take it out; it goes with `type: object`

    error[wrong_type]: `inputs.half.required` takes a list of names, and this is the number 1
     --> plan.json:8:59
      |
    8 |   "half": {"type": "array", "minItems": 1.5, "required": [1]}
      |                                                           ^
    "#);
}

#[test]
fn schemas_that_nothing_fits_say_so() {
    let plan = r#"{"plan_id": "p", "steps": [{"id": "a", "command": "x"}], "inputs": {
  "range": {"type": "integer", "minimum": 3, "maximum": 2}, "touch": {"type": "number", "exclusiveMinimum": 1, "maximum": 1.0},
  "length": {"type": "string", "minLength": 2, "maxLength": 1}, "items": {"type": "array", "minItems": 2, "maxItems": 1},
  "enum": {"type": "string", "enum": []}, "fine": {"type": "number", "minimum": 1, "maximum": 1.0},
  "pattern": {"type": "string", "pattern": "(a"}, "look": {"type": "string", "pattern": "(?=a)b"},
  "big": {"type": "string", "pattern": "(a{100}){100}"}
}}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[bad_schema]: nothing fits `inputs.range`: `minimum` is 3 and `maximum` is 2
     --> plan.json:2:43
      |
    2 | … "range": {"type": "integer", "minimum": 3, "maximum": 2}, "touch": {"type": "number", "exclusiveMini …
      |                                           ^
      = see: `maximum` (plan.json:2:57)

    error[bad_schema]: nothing fits `inputs.touch`: `exclusiveMinimum` is 1 and `maximum` is 1.0
     --> plan.json:2:109
      |
    2 | …  {"type": "number", "exclusiveMinimum": 1, "maximum": 1.0},
      |                                           ^
      = see: `maximum` (plan.json:2:123)

    error[bad_schema]: nothing fits `inputs.length`: `minLength` is 2 and `maxLength` is 1
     --> plan.json:3:45
      |
    3 | … ength": {"type": "string", "minLength": 2, "maxLength": 1}, "items": {"type": "array", "minItems": 2 …
      |                                           ^
      = see: `maxLength` (plan.json:3:61)

    error[bad_schema]: nothing fits `inputs.items`: `minItems` is 2 and `maxItems` is 1
     --> plan.json:3:104
      |
    3 | …  "items": {"type": "array", "minItems": 2, "maxItems": 1},
      |                                           ^
      = see: `maxItems` (plan.json:3:119)

    error[bad_schema]: `inputs.enum.enum` is empty, so nothing fits
     --> plan.json:4:38
      |
    4 |   "enum": {"type": "string", "enum": []}, "fine": {"type": "number", "minimum": 1, "maximum": 1.0},
      |                                      ^

    error[missing_input]: the input `fine` (a number) has no value
     --> plan.json:4:43
      |
    4 |   "enum": {"type": "string", "enum": []}, "fine": {"type": "number", "minimum": 1, "maximum": 1.0},
      |                                           ^^^^^^
      = help: give it with --var fine=…

    error[bad_schema]: `inputs.pattern.pattern` cannot be taken: found open group without closing ')'
     --> plan.json:5:44
      |
    5 |   "pattern": {"type": "string", "pattern": "(a"}, "look": {"type": "string", "pattern": "(?=a)b"},
      |                                            ^^^^
      = help: look-around and backreferences are not available, nor are patterns that repeat too much

    error[bad_schema]: `inputs.look.pattern` cannot be taken: look-around is not supported
     --> plan.json:5:89
      |
    5 |   "pattern": {"type": "string", "pattern": "(a"}, "look": {"type": "string", "pattern": "(?=a)b"},
      |                                                                                         ^^^^^^^^
      = help: look-around and backreferences are not available, nor are patterns that repeat too much

    error[bad_schema]: `inputs.big.pattern` cannot be taken: compiled regex exceeded size limit
     --> plan.json:6:40
      |
    6 |   "big": {"type": "string", "pattern": "(a{100}){100}"}
      |                                        ^^^^^^^^^^^^^^^
      = help: look-around and backreferences are not available, nor are patterns that repeat too much
    "#);
}

#[test]
fn values_in_schemas_fit_them() {
    let plan = r#"{"plan_id": "p", "steps": [{"id": "a", "command": "x"}], "inputs": {
  "count": {"type": "integer", "minimum": 1, "default": 0, "examples": [1, 2.0, 2.5], "enum": [1, "2", 0]},
  "mode": {"type": "string", "enum": ["fast", "careful"], "default": "fsat"}, "one": {"type": "string", "const": 1},
  "many": {"type": "array", "items": {"type": "string", "maxLength": 2}, "uniqueItems": true,
           "default": ["aé", "aéo", 5, "aé"]},
  "map": {"type": "object", "properties": {"k": {"type": "boolean"}}, "required": ["k", "l"], "additionalProperties": false,
          "default": {"kk": 1}},
  "text": {"type": "object", "default": {"t": ["${X}"]}, "description": "plain ${X} ${{ 1 }}"},
  "null": {"type": "string", "default": null}, "patterned": {"type": "string", "pattern": "^v[0-9]+$", "default": "v"}
}}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[bad_input]: `inputs.count.default` is at least 1, and this is 0
     --> plan.json:2:57
      |
    2 | … e": "integer", "minimum": 1, "default": 0, "examples": [1, 2.0, 2.5], "enum": [1, "2", 0]},
      |                                           ^

    error[bad_input]: `inputs.count.examples[1]` cannot be the number 2.0
     --> plan.json:2:76
      |
    2 | … imum": 1, "default": 0, "examples": [1, 2.0, 2.5], "enum": [1, "2", 0]},
      |                                           ^^^
      = help: it is one of 1, 2, 0

    error[bad_input]: `inputs.count.examples[2]` takes a whole number, and this is the number 2.5
     --> plan.json:2:81
      |
    2 | … : 1, "default": 0, "examples": [1, 2.0, 2.5], "enum": [1, "2", 0]},
      |                                           ^^^

    error[bad_input]: `inputs.count.enum[1]` takes a whole number, and this is the text "2"
     --> plan.json:2:99
      |
    2 | …  "examples": [1, 2.0, 2.5], "enum": [1, "2", 0]},
      |                                           ^^^

    error[bad_input]: `inputs.count.enum[2]` is at least 1, and this is 0
     --> plan.json:2:104
      |
    2 | … mples": [1, 2.0, 2.5], "enum": [1, "2", 0]},
      |                                           ^

    error[bad_input]: `inputs.mode.default` cannot be the text "fsat"
     --> plan.json:3:70
      |
    3 | … "enum": ["fast", "careful"], "default": "fsat"}, "one": {"type": "string", "const": 1},
      |                                           ^^^^^^
      = help: did you mean `fast`?

    error[bad_input]: `inputs.one.const` takes text, and this is the number 1
     --> plan.json:3:114
      |
    3 | … t"}, "one": {"type": "string", "const": 1},
      |                                           ^

    error[bad_input]: `inputs.many.default[1]` has at most 2 characters, and this has 3
     --> plan.json:5:30
      |
    5 |            "default": ["aé", "aéo", 5, "aé"]},
      |                              ^^^^^

    error[bad_input]: `inputs.many.default[2]` takes text, and this is the number 5
     --> plan.json:5:37
      |
    5 |            "default": ["aé", "aéo", 5, "aé"]},
      |                                     ^

    error[bad_input]: `inputs.many.default` has each item once, and [3] is [0] again
     --> plan.json:5:40
      |
    5 |            "default": ["aé", "aéo", 5, "aé"]},
      |                                        ^^^^

    error[bad_schema]: no map fits `inputs.map`: it must have `l`, and takes only its `properties`
     --> plan.json:6:89
      |
    6 | … {"type": "boolean"}}, "required": ["k", "l"], "additionalProperties": false,
      |                                           ^^^
      = help: add `l` to `properties`

    error[bad_input]: `inputs.map.default` has no `k`
     --> plan.json:7:22
      |
    7 |           "default": {"kk": 1}},
      |                      ^
      = help: add `k`

    error[bad_input]: `inputs.map.default` has no `l`
     --> plan.json:7:22
      |
    7 |           "default": {"kk": 1}},
      |                      ^
      = help: add `l`

    error[bad_input]: `inputs.map.default` takes no `kk`
     --> plan.json:7:23
      |
    7 |           "default": {"kk": 1}},
      |                       ^^^^
      = help: did you mean `k`?

    error[bad_schema]: `inputs.text.default.t[0]` holds `${`, and nothing is put in here
     --> plan.json:8:48
      |
    8 |   "text": {"type": "object", "default": {"t": ["${X}"]}, "description": "plain ${X} ${{ 1 }}"},
      |                                                ^^^^^^
      = help: write the value out; the default of a variable, under `vars`, can hold `${OTHER}`

    error[bad_input]: `inputs.null.default` takes text, and this is null
     --> plan.json:9:41
      |
    9 |   "null": {"type": "string", "default": null}, "patterned": {"type": "string", "pattern": "^v[0-9]+$ …
      |                                         ^^^^

    error[bad_input]: `inputs.patterned.default` takes text with the pattern `^v[0-9]+$`, and this is the text "v"
     --> plan.json:9:115
      |
    9 | … ng", "pattern": "^v[0-9]+$", "default": "v"}
      |                                           ^^^
    "#);
}

#[test]
fn a_name_is_a_variable_or_an_input() {
    let plan = r#"{"plan_id": "p", "vars": {"V": "v", "B": "b", "D": "${I:-x} ${I}"}, "inputs": {
  "B": {"type": "string", "default": ""}, "I": {"type": "string", "default": ""}}, "outputs": {"o": "${{ inputs.V }} ${I}"},
  "globals": {"env": {"G": "${{ inputs.nope }}"}}, "steps": [
  {"id": "a", "command": "x", "args": ["${I} ${I:-d}", "${{ vars.I }}", "${{ inputs.J }}", "${{ inputs['V'] }}"], "name": "${I}"},
  {"id": "b", "command": "x", "condition": "has(vars.I) || has(inputs.K.l) || inputs.I == 'x' || size(inputs) > 1"}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[undefined_variable]: there is no variable `I`
     --> plan.json:1:52
      |
    1 | {"plan_id": "p", "vars": {"V": "v", "B": "b", "D": "${I:-x} ${I}"}, "inputs": {
      |                                                    ^^^^^^^^^^^^^^
      = help: `I` is an input, and the default of a variable cannot hold one

    error[duplicate_key]: `B` is in `vars` and in `inputs`
     --> plan.json:2:3
      |
    2 |   "B": {"type": "string", "default": ""}, "I": {"type": "string", "default": ""}}, "outputs": {"o":  …
      |   ^^^
      = see: the variable (plan.json:1:42)
      = help: keep one of them

    error[unknown_name]: there is no input `V`
     --> plan.json:2:113
      |
    2 | … lt": ""}}, "outputs": {"o": "${{ inputs.V }} ${I}"},
      |                                           ^
      = help: `V` is a variable: vars.V

    error[undefined_variable]: there is no variable `I`
     --> plan.json:2:120
      |
    2 | … }}, "outputs": {"o": "${{ inputs.V }} ${I}"},
      |                                           ^
      = help: `I` is an input: write ${{ inputs.I }}

    error[unknown_name]: there is no input `nope`
     --> plan.json:3:40
      |
    3 |   "globals": {"env": {"G": "${{ inputs.nope }}"}}, "steps": [
      |                                        ^^^^

    error[undefined_variable]: there is no variable `I`
     --> plan.json:4:43
      |
    4 | … {"id": "a", "command": "x", "args": ["${I} ${I:-d}", "${{ vars.I }}", "${{ inputs.J }}", "${{ inputs …
      |                                           ^
      = help: `I` is an input: write ${{ inputs.I }}

    error[undefined_variable]: there is no variable `I`
     --> plan.json:4:66
      |
    4 | … "x", "args": ["${I} ${I:-d}", "${{ vars.I }}", "${{ inputs.J }}", "${{ inputs['V'] }}"], "name": "${ …
      |                                           ^
      = help: `I` is an input: inputs.I

    error[unknown_name]: there is no input `J`
     --> plan.json:4:85
      |
    4 | …  ${I:-d}", "${{ vars.I }}", "${{ inputs.J }}", "${{ inputs['V'] }}"], "name": "${I}"},
      |                                           ^
      = help: did you mean `B`?

    error[unknown_name]: there is no input `V`
     --> plan.json:4:105
      |
    4 | … .I }}", "${{ inputs.J }}", "${{ inputs['V'] }}"], "name": "${I}"},
      |                                           ^
      = help: `V` is a variable: vars.V

    error[undefined_variable]: there is no variable `I`
     --> plan.json:4:126
      |
    4 | …  }}", "${{ inputs['V'] }}"], "name": "${I}"},
      |                                           ^
      = help: `I` is an input: write ${{ inputs.I }}

    error[undefined_variable]: there is no variable `I`
     --> plan.json:5:54
      |
    5 | …  "command": "x", "condition": "has(vars.I) || has(inputs.K.l) || inputs.I == 'x' || size(inputs) > 1 …
      |                                           ^
      = help: `I` is an input: inputs.I

    error[unknown_name]: there is no input `K`
     --> plan.json:5:71
      |
    5 | … "condition": "has(vars.I) || has(inputs.K.l) || inputs.I == 'x' || size(inputs) > 1"}
      |                                           ^
      = help: did you mean `B`?
    "#);
}

#[test]
fn missing_inputs_are_all_told_with_what_they_take() {
    let plan = r#"{"plan_id": "p", "inputs": {
  "count": {"type": "integer", "description": "How many copies"}, "names": {"type": "array"}, "mode": {"enum": ["a", "b"], "type": "string"},
  "any": {"type": ["string", "null"]}, "given": {"type": "null", "default": null}
}, "steps": [{"id": "a", "command": "x", "args": ["${NOPE}"], "comand": 1}]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[missing_input]: the input `count` (a whole number) has no value: How many copies
     --> plan.json:2:3
      |
    2 |   "count": {"type": "integer", "description": "How many copies"}, "names": {"type": "array"}, "mode" …
      |   ^^^^^^^
      = help: give it with --var count=…

    error[missing_input]: the input `names` (a list) has no value
     --> plan.json:2:67
      |
    2 | … er", "description": "How many copies"}, "names": {"type": "array"}, "mode": {"enum": ["a", "b"], "ty …
      |                                           ^^^^^^^
      = help: give it as JSON with --var names=…, or in a file with --var-file

    error[missing_input]: the input `mode` (one of a, b) has no value
     --> plan.json:2:95
      |
    2 | … y copies"}, "names": {"type": "array"}, "mode": {"enum": ["a", "b"], "type": "string"},
      |                                           ^^^^^^
      = help: give it with --var mode=…

    error[missing_input]: the input `any` (text or null) has no value
     --> plan.json:3:3
      |
    3 |   "any": {"type": ["string", "null"]}, "given": {"type": "null", "default": null}
      |   ^^^^^
      = help: give it with --var any=…

    error[undefined_variable]: the variable `NOPE` has no value
     --> plan.json:4:51
      |
    4 | }, "steps": [{"id": "a", "command": "x", "args": ["${NOPE}"], "comand": 1}]}
      |                                                   ^^^^^^^^^
      = help: give it with --var NOPE=…, a default under `vars`, or ${NOPE:-default}

    error[unknown_field]: a step has no field `comand`
     --> plan.json:4:63
      |
    4 | }, "steps": [{"id": "a", "command": "x", "args": ["${NOPE}"], "comand": 1}]}
      |                                                               ^^^^^^^^
      = help: did you mean `command`?
    "#);
    let fine = plan.replace(r#", "comand": 1"#, "");
    let missing = |text: &str| report(text).matches("error[missing_input]").count();
    assert_eq!((missing(plan), missing(&fine)), (4, 4));
}

#[test]
fn what_is_given_has_to_fit() {
    let plan = "plan_id: p\nvars: {V: v}\ninputs:\n  count: {type: integer, minimum: 2, default: 2}\n  \
                flag: {type: boolean, default: true}\n  names: {type: array, items: {type: string}, default: []}\n  \
                mode: {type: string, enum: [fast, careful], default: fast}\n  \
                small: {type: string, maxLength: 3, default: ''}\n\
                steps: [{id: a, command: x}]\n";
    let source = Source::new("plan.yaml", plan);
    let given: [(&str, Given); 9] = [
        ("count", "1".into()),
        ("flag", "yes".into()),
        ("names", "a,b".into()),
        ("mode", "fsat".into()),
        ("small", Given::Value(json!(["x"]))),
        ("V", Given::Value(json!([1]))),
        ("other", Given::Value(json!({}))),
        ("cuont", "3".into()),
        ("W", "unused".into()),
    ];
    let vars = given.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let problems = told(&source, &Options { vars, ..Options::default() });
    insta::assert_snapshot!(render_all(&problems, &source, false), @r#"
    error[wrong_type]: the variable `V` takes text, and this is a list
      = help: values of other types are `inputs`

    error[wrong_type]: the plan has no input `other`, and a variable takes text; this is a map
      = help: declare it under `inputs`

    error[bad_input]: `inputs.count` is at least 2, and this is 1

    error[bad_input]: `inputs.flag` takes true or false, and this is the text "yes"
      = help: write true

    error[bad_input]: `inputs.names` takes a list, and this is the text "a,b"
      = help: lists and maps are written as JSON, such as '["a", "b"]' or '{"a": 1}'

    error[bad_input]: `inputs.mode` cannot be the text "fsat"
      = help: did you mean `fast`?

    error[bad_input]: `inputs.small` takes text, and this is a list

    warning[unused_variable]: the plan has no variable and no input `W`, so its value is not used
      = help: did you mean `V`?

    warning[unused_variable]: the plan has no variable and no input `cuont`, so its value is not used
      = help: did you mean `count`?
    "#);
}

#[test]
fn outputs_that_are_declared_are_the_ones_that_are_named() {
    let plan = r#"{"plan_id": "p", "outputs": {"bad-name": 1, "o": "${{ steps.a.outputs.vesrion }}", "p": ["${{ steps.nope.status }}"],
  "q": "${{ run.status }}", "r": "${{ steps.f.outputs.version }}", "s": ["${{ steps.z.status }}"], "t": "${{ steps.z.outputs.n }}"},
  "finally": [{"id": "z", "command": "x"}], "steps": [
  {"id": "a", "command": "x", "outputs": {"version": {"type": "string"}, "count": {"minimum": 1}, "x-y": {"type": "null"}}},
  {"id": "b", "command": "x", "depends_on": ["a"], "args": ["${{ steps.a.outputs.cuont }} ${{ steps.a.outputs.version }}"]},
  {"id": "c", "command": "x", "depends_on": ["a"], "condition": "has(steps.a.outputs.nothing_like_it)"},
  {"id": "d", "command": "x", "outputs": {"one": {"type": "string"}}, "on_failure": "fallback_step", "fallback_step": "e"},
  {"id": "e", "command": "x", "outputs": {"two": {"type": "string"}}},
  {"id": "f", "command": "x", "outputs": {"one": {"type": "string"}}, "on_failure": "fallback_step", "fallback_step": "g"},
  {"id": "g", "command": "x"},
  {"id": "h", "command": "x", "depends_on": ["d", "f"], "args": ["${{ steps.d.outputs.two }}", "${{ steps.d.outputs.three }}",
    "${{ steps.f.outputs.anything }}", "${{ steps.d.outputs }}", "${{ steps.d.outputs['one'] }}"]}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[bad_name]: `bad-name` cannot be the name of an output
     --> plan.json:1:30
      |
    1 | {"plan_id": "p", "outputs": {"bad-name": 1, "o": "${{ steps.a.outputs.vesrion }}", "p": ["${{ steps. …
      |                              ^^^^^^^^^^
      = help: a letter or `_`, then letters, digits and `_`

    error[unknown_name]: `a` declares no output `vesrion`
     --> plan.json:1:71
      |
    1 | … bad-name": 1, "o": "${{ steps.a.outputs.vesrion }}", "p": ["${{ steps.nope.status }}"],
      |                                           ^^^^^^^
      = help: did you mean `version`?

    error[unknown_step]: there is no step `nope`
     --> plan.json:1:101
      |
    1 | … a.outputs.vesrion }}", "p": ["${{ steps.nope.status }}"],
      |                                           ^^^^

    error[finally]: only steps in `finally` know how the run ended
     --> plan.json:2:17
      |
    2 |   "q": "${{ run.status }}", "r": "${{ steps.f.outputs.version }}", "s": ["${{ steps.z.status }}"], " …
      |                 ^^^^^^
      = help: `steps.ID.status` tells of one step

    error[finally]: an output asks for the result of `z`, which is in `finally`
     --> plan.json:2:85
      |
    2 | … f.outputs.version }}", "s": ["${{ steps.z.status }}"], "t": "${{ steps.z.outputs.n }}"},
      |                                           ^
      = help: outputs are computed when the steps have succeeded, before `finally` begins

    error[finally]: an output asks for the result of `z`, which is in `finally`
     --> plan.json:2:116
      |
    2 | … {{ steps.z.status }}"], "t": "${{ steps.z.outputs.n }}"},
      |                                           ^
      = help: outputs are computed when the steps have succeeded, before `finally` begins

    error[missing_field]: `outputs.count` has no `type`
     --> plan.json:4:74
      |
    4 | … tputs": {"version": {"type": "string"}, "count": {"minimum": 1}, "x-y": {"type": "null"}}},
      |                                           ^^^^^^^
      = help: add `type`: one of string, integer, number, boolean, array, object, null

    error[bad_name]: `x-y` cannot be the name of an output
     --> plan.json:4:99
      |
    4 | … e": "string"}, "count": {"minimum": 1}, "x-y": {"type": "null"}}},
      |                                           ^^^^^
      = help: a letter or `_`, then letters, digits and `_`

    error[unknown_name]: `a` declares no output `cuont`
     --> plan.json:5:82
      |
    5 | … ": ["a"], "args": ["${{ steps.a.outputs.cuont }} ${{ steps.a.outputs.version }}"]},
      |                                           ^^^^^
      = help: did you mean `count`?

    error[unknown_name]: `a` declares no output `nothing_like_it`
     --> plan.json:6:86
      |
    6 | … "a"], "condition": "has(steps.a.outputs.nothing_like_it)"},
      |                                           ^^^^^^^^^^^^^^^

    error[unknown_name]: `d` declares no output `three`
      --> plan.json:11:117
       |
    11 | … d.outputs.two }}", "${{ steps.d.outputs.three }}",
       |                                           ^^^^^
    "#);
}

#[test]
fn finally_stands_apart() {
    let plan = r#"{"plan_id": "p", "finally": [
  {"id": "tidy", "command": "x", "provides": ["clean"], "condition": "run.status == 'failed' && steps.a.status == 'failed'"},
  {"id": "tell", "command": "x", "depends_on": ["a"], "consumes": ["built"]},
  {"id": "last", "command": "x", "args": ["${{ steps.tidy.status }}"], "consumes": ["clean"]},
  {"id": "good", "command": "x", "depends_on": ["tidy"], "args": ["${{ steps.tidy.status }}"], "consumes": ["clean"]},
  {"id": "back", "command": "x", "on_failure": "fallback_step", "fallback_step": "b"}
], "steps": [
  {"id": "a", "command": "x", "provides": ["built"], "depends_on": ["tidy"], "consumes": ["clean"]},
  {"id": "b", "command": "x", "condition": "steps.tidy.status == 'x' || run.status == 'failed'"},
  {"id": "c", "command": "x", "on_failure": "fallback_step", "fallback_step": "last"},
  {"id": "tell", "command": "x"}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[finally]: `tell` is in `finally` and depends on `a`, which is not
     --> plan.json:3:49
      |
    3 |   {"id": "tell", "command": "x", "depends_on": ["a"], "consumes": ["built"]},
      |                                                 ^^^
      = help: steps in `finally` run after all others; take it out

    error[not_a_dependency]: `last` asks for the result of `tidy` without depending on it
     --> plan.json:4:54
      |
    4 |   {"id": "last", "command": "x", "args": ["${{ steps.tidy.status }}"], "consumes": ["clean"]},
      |                                                      ^^^^
      = help: add `tidy` to the `depends_on` of `last`

    error[no_path]: `clean` comes from `tidy`, which `last` does not wait for
     --> plan.json:4:85
      |
    4 |   {"id": "last", "command": "x", "args": ["${{ steps.tidy.status }}"], "consumes": ["clean"]},
      |                                                                                     ^^^^^^^
      = help: add `tidy` to the `depends_on` of `last`

    error[finally]: `back` is in `finally` and falls back to `b`, which is not
     --> plan.json:6:82
      |
    6 |   {"id": "back", "command": "x", "on_failure": "fallback_step", "fallback_step": "b"}
      |                                                                                  ^^^
      = help: steps in `finally` run after all others; take it out

    error[finally]: `a` depends on `tidy`, which is in `finally`
     --> plan.json:8:69
      |
    8 |   {"id": "a", "command": "x", "provides": ["built"], "depends_on": ["tidy"], "consumes": ["clean"]},
      |                                                                     ^^^^^^
      = help: steps in `finally` run after all others; take it out

    error[finally]: `clean` comes from `tidy`, which is in `finally`
     --> plan.json:8:91
      |
    8 |   {"id": "a", "command": "x", "provides": ["built"], "depends_on": ["tidy"], "consumes": ["clean"]},
      |                                                                                           ^^^^^^^
      = help: steps in `finally` run after all others; take it out

    error[finally]: `b` asks for the result of `tidy`, which is in `finally`
     --> plan.json:9:51
      |
    9 |   {"id": "b", "command": "x", "condition": "steps.tidy.status == 'x' || run.status == 'failed'"},
      |                                                   ^^^^
      = help: steps in `finally` run after all others; take it out

    error[finally]: only steps in `finally` know how the run ended
     --> plan.json:9:77
      |
    9 |   {"id": "b", "command": "x", "condition": "steps.tidy.status == 'x' || run.status == 'failed'"},
      |                                                                             ^^^^^^
      = help: `steps.ID.status` tells of one step

    error[finally]: `c` falls back to `last`, which is in `finally`
      --> plan.json:10:79
       |
    10 |   {"id": "c", "command": "x", "on_failure": "fallback_step", "fallback_step": "last"},
       |                                                                               ^^^^^^
       = help: steps in `finally` run after all others; take it out

    error[duplicate_id]: two steps have the id `tell`
      --> plan.json:11:10
       |
    11 |   {"id": "tell", "command": "x"}
       |          ^^^^^^
       = see: the first one (plan.json:3:10)
       = help: give one of them another id
    "#);
}

#[test]
fn finally_needs_steps_before_it() {
    let plan = r#"{"plan_id": "p", "finally": [{"id": "f", "command": "x"}, 5], "steps": []}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[wrong_type]: a step is a map of fields, and this is the number 5
     --> plan.json:1:59
      |
    1 | {"plan_id": "p", "finally": [{"id": "f", "command": "x"}, 5], "steps": []}
      |                                                           ^

    error[no_steps]: the plan has no steps
     --> plan.json:1:72
      |
    1 | {"plan_id": "p", "finally": [{"id": "f", "command": "x"}, 5], "steps": []}
      |                                                                        ^
      = help: add at least one
    "#);
}

#[test]
fn a_service_level_is_a_duration() {
    let judge = |sla: &str| {
        let plan = format!(r#"{{"plan_id": "p", "sla": {sla}, "steps": [{{"id": "a", "command": "x"}}]}}"#);
        let source = Source::new("plan.json", plan);
        let problems = told(&source, &Options::default());
        problems.iter().map(|problem| format!("{} ({:?})", problem.message, problem.hint)).collect::<String>()
    };
    let wrong = r#"0|-1|[]|"0s"|""|"5"|"1m1h"|"1h1h"|"1.5h"|"h"|"5 m"|"1w"|"99999999999999999999999d"|"99999999999d"|315360001|true|1e400"#;
    let wrong: Vec<String> = wrong.split('|').map(|sla| format!("{sla}: {}", judge(sla))).collect();
    insta::assert_snapshot!(wrong.join("\n"), @r#"
    0: `sla` takes a number of seconds above 0, or text such as 1h30m, and this is 0 (None)
    -1: `sla` takes a number of seconds above 0, or text such as 1h30m, and this is -1 (None)
    []: `sla` takes a number of seconds above 0, or text such as 1h30m, and this is a list (None)
    "0s": `sla` takes a number of seconds above 0, or text such as 1h30m, and this is 0s (None)
    "": `sla` takes a number of seconds above 0, or text such as 1h30m, and this is the text "" (Some("whole numbers with the units d, h, m and s, each once and in this order"))
    "5": `sla` takes a number of seconds above 0, or text such as 1h30m, and this is the text "5" (Some("without quotes it is seconds: 5"))
    "1m1h": `sla` takes a number of seconds above 0, or text such as 1h30m, and this is the text "1m1h" (Some("whole numbers with the units d, h, m and s, each once and in this order"))
    "1h1h": `sla` takes a number of seconds above 0, or text such as 1h30m, and this is the text "1h1h" (Some("whole numbers with the units d, h, m and s, each once and in this order"))
    "1.5h": `sla` takes a number of seconds above 0, or text such as 1h30m, and this is the text "1.5h" (Some("whole numbers with the units d, h, m and s, each once and in this order"))
    "h": `sla` takes a number of seconds above 0, or text such as 1h30m, and this is the text "h" (Some("whole numbers with the units d, h, m and s, each once and in this order"))
    "5 m": `sla` takes a number of seconds above 0, or text such as 1h30m, and this is the text "5 m" (Some("whole numbers with the units d, h, m and s, each once and in this order"))
    "1w": `sla` takes a number of seconds above 0, or text such as 1h30m, and this is the text "1w" (Some("whole numbers with the units d, h, m and s, each once and in this order"))
    "99999999999999999999999d": `sla` takes a number of seconds above 0, or text such as 1h30m, and this is 99999999999999999999999d (Some("the longest is ten years, which are 315360000 seconds"))
    "99999999999d": `sla` takes a number of seconds above 0, or text such as 1h30m, and this is 99999999999d (Some("the longest is ten years, which are 315360000 seconds"))
    315360001: `sla` takes a number of seconds above 0, or text such as 1h30m, and this is 315360001 (Some("the longest is ten years, which are 315360000 seconds"))
    true: `sla` takes a number of seconds above 0, or text such as 1h30m, and this is the boolean true (None)
    1e400: `sla` takes a number of seconds above 0, or text such as 1h30m, and this is 1e400 (Some("the longest is ten years, which are 315360000 seconds"))
    "#);
    for fine in ["1", "0.5", "\"90s\"", "\"1d2h3m4s\"", "\"3d\"", "null"] {
        assert_eq!(judge(fine), "", "{fine}");
    }
}

#[test]
fn what_cannot_be_taken_is_told_once() {
    let plan = "plan_id: p\nversion: &v 1\nmetadata: *v\ninputs:\n  i: *v\n  a: {type: integer, default: .inf, enum: [1, .nan]}\n  \
        b: {type: *v, minimum: *v, const: *v}\n  c: {type: array, items: *v, default: [1, .inf], required: [*v]}\n\
        outputs: {o: *v}\nsteps:\n- *v\n- {id: a, uses: git.merge, with: {branch: *v, depth: 1e999}}\n\
        - {id: b, uses: git.merge, with: *v, locks: [*v], retries: *v}\n";
    let said = report_yaml(plan);
    let wrong = |line: &&str| line.starts_with("error[");
    let other =
        said.lines().filter(wrong).filter(|line| !line.contains("[yaml_anchor]")).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(other, @"
    error[wrong_type]: `.inf` is no number that JSON can hold
    error[wrong_type]: `.nan` is no number that JSON can hold
    error[wrong_type]: `.inf` is no number that JSON can hold
    error[bad_schema]: `inputs.c.required` says nothing: `inputs.c` takes a list
    error[wrong_type]: `1e999` is no number that JSON can hold
    ");
    let json = report(
        r#"{"plan_id": "p", "inputs": {"a": {"type": "integer", "default": 1e400}},
  "steps": [{"id": "a", "uses": "git.merge", "with": {"branch": -1e400}}]}"#,
    );
    insta::assert_snapshot!(json, @r#"
    error[wrong_type]: `1e400` is no number that JSON can hold
     --> plan.json:1:65
      |
    1 | {"plan_id": "p", "inputs": {"a": {"type": "integer", "default": 1e400}},
      |                                                                 ^^^^^

    error[wrong_type]: `-1e400` is no number that JSON can hold
     --> plan.json:2:65
      |
    2 |   "steps": [{"id": "a", "uses": "git.merge", "with": {"branch": -1e400}}]}
      |                                                                 ^^^^^^
    "#);
}

#[test]
fn yaml_an_expression_without_quotes() {
    let errors = |text: &str| {
        let said = report_yaml(&format!("plan_id: p\nsteps:\n- id: a\n  command: x\n  {text}\n"));
        said.lines().filter(|line| line.starts_with("error[") || line.contains("help:")).collect::<Vec<_>>().join("\n")
    };
    let told = [
        "name: ${{ vars.a ? vars.b : 'c' }}",
        "args:\n  - ${{ vars.a ? vars.b : 'c' }}",
        "args:\n  - ${{ vars.a ? vars.b : vars.c }}",
        "args: [${{ vars.a ? vars.b : 'c' }}]",
        "env: {A: ${{ vars.a }}}",
        "condition: 1 > 2 ? true : false",
        "args: [\"${{ 1 + }}\"]\n  cwd: ${{ {'k': 1}.k }}",
        "args: [\"${{ 1\"]\n  cwd: [",
    ];
    insta::assert_snapshot!(told.map(errors).join("\n\n"), @"
    error[yaml_syntax]: this is not YAML: mapping values are not allowed in this context
      = help: put the whole text that holds `${{` in quotes

    error[yaml_syntax]: this is not YAML: invalid trailing content after double-quoted scalar
      = help: put the whole text that holds `${{` in quotes

    error[wrong_type]: `args` takes texts, and this is a map
      = help: text that holds `: ` stands in quotes

    error[yaml_syntax]: this is not YAML: while parsing a flow sequence, expected ',' or ']'
      = help: put the whole text that holds `${{` in quotes

    error[yaml_syntax]: this is not YAML: while parsing a flow mapping, did not find expected ',' or '}'
      = help: put the whole text that holds `${{` in quotes

    error[yaml_syntax]: this is not YAML: mapping values are not allowed in this context
      = help: text that holds `: ` stands in quotes

    error[bad_expression]: the expression cannot be read: mismatched input 'the end' expecting expression
    error[yaml_syntax]: this is not YAML: mapping values are not allowed in this context
      = help: put the whole text that holds `${{` in quotes

    error[bad_template]: `${{` has no `}}` after it
      = help: an expression is written ${{ like this }}
    error[wrong_type]: `cwd` takes text, and this is a list
    error[yaml_syntax]: this is not YAML: while parsing a node, did not find expected node content
      = help: look at the indentation, at quotes and brackets that do not end, at the line before
    ");
    insta::assert_snapshot!(report_yaml("plan_id: p\noutputs:\n  o: ${{ a ? b : 'c' }}\nsteps: []\n"), @"
    error[yaml_syntax]: this is not YAML: mapping values are not allowed in this context
     --> plan.yaml:3:16
      |
    3 |   o: ${{ a ? b : 'c' }}
      |                ^
      = help: put the whole text that holds `${{` in quotes
    ");
}

#[test]
fn what_a_file_gives_is_told_with_its_place_there() {
    let plan = "plan_id: p\nvars: {V: v}\ninputs:\n  n: {type: integer, default: 1}\n  m: {type: array, default: []}\n\
        steps: [{id: a, command: x}]\n";
    let source = Source::new("plan.yaml", plan);
    let given = "n: x\nm:\n  k: 1\nV: [1]\nW: 1\nn_: 2\nO: {}\n";
    let vars = parse_var_file("values.yaml", given).expect("they are values");
    let problems = told(&source, &Options { vars, ..Options::default() });
    insta::assert_snapshot!(render_all(&problems, &source, false), @r#"
    error[wrong_type]: the plan has no input `O`, and a variable takes text; this is a map
     --> values.yaml:7
      = help: did you mean `n`?

    error[wrong_type]: the variable `V` takes text, and this is a list
     --> values.yaml:4
      = help: values of other types are `inputs`

    error[bad_input]: `inputs.n` takes a whole number, and this is the text "x"
     --> values.yaml:1

    error[bad_input]: `inputs.m` takes a list, and this is a map
     --> values.yaml:2

    warning[unused_variable]: the plan has no variable and no input `W`, so its value is not used
     --> values.yaml:5
      = help: did you mean `V`?

    warning[unused_variable]: the plan has no variable and no input `n_`, so its value is not used
     --> values.yaml:6
      = help: did you mean `n`?
    "#);
    let place = |problem: &Problem| {
        let json = problem.to_json(&source);
        format!("{} {} {}", json["file"], json["line"], json["column"])
    };
    insta::assert_snapshot!(problems.iter().map(place).collect::<Vec<_>>().join(", "), @r#""values.yaml" 7 null, "values.yaml" 4 null, "values.yaml" 1 null, "values.yaml" 2 null, "values.yaml" 5 null, "values.yaml" 6 null"#);
    let vars = BTreeMap::from([("n".to_owned(), "x".into())]);
    let problems = told(&source, &Options { vars, ..Options::default() });
    insta::assert_snapshot!(problems.iter().map(place).collect::<Vec<_>>().join(", "), @"null null null");
}

#[test]
fn keywords_go_with_the_type() {
    let plan = r#"{"plan_id": "p", "steps": [{"id": "a", "command": "x"}], "inputs": {
  "a": {"type": "string", "default": "", "minimum": 5, "items": {}, "enum": [""]},
  "b": {"type": ["integer", "null"], "default": 1, "maximum": 5, "pattern": "x", "properties": {"p": {"minLength": 1}}},
  "c": {"type": "array", "default": [], "items": {"type": "boolean", "minLength": 1}, "required": []},
  "d": {"type": ["object", "array"], "default": [], "required": ["x", "y"], "properties": {"x": {}}, "additionalProperties": false},
  "e": {"type": ["strin", "null"], "default": 1, "minimum": 1, "minLength": 1},
  "f": {"type": "object", "default": {"x": 1}, "required": ["x"], "additionalProperties": {"type": "integer", "minimum": 1}}
}}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[bad_schema]: `inputs.a.minimum` says nothing: `inputs.a` takes text
     --> plan.json:2:42
      |
    2 |   "a": {"type": "string", "default": "", "minimum": 5, "items": {}, "enum": [""]},
      |                                          ^^^^^^^^^
      = help: take it out; it goes with `type: integer`

    error[bad_schema]: `inputs.a.items` says nothing: `inputs.a` takes text
     --> plan.json:2:56
      |
    2 |   "a": {"type": "string", "default": "", "minimum": 5, "items": {}, "enum": [""]},
      |                                                        ^^^^^^^
      = help: take it out; it goes with `type: array`

    error[bad_schema]: `inputs.b.pattern` says nothing: `inputs.b` takes a whole number or null
     --> plan.json:3:66
      |
    3 | … ", "null"], "default": 1, "maximum": 5, "pattern": "x", "properties": {"p": {"minLength": 1}}},
      |                                           ^^^^^^^^^
      = help: take it out; it goes with `type: string`

    error[bad_schema]: `inputs.b.properties` says nothing: `inputs.b` takes a whole number or null
     --> plan.json:3:82
      |
    3 | … ault": 1, "maximum": 5, "pattern": "x", "properties": {"p": {"minLength": 1}}},
      |                                           ^^^^^^^^^^^^
      = help: take it out; it goes with `type: object`

    error[bad_schema]: `inputs.c.items.minLength` says nothing: `inputs.c.items` takes true or false
     --> plan.json:4:70
      |
    4 | … ault": [], "items": {"type": "boolean", "minLength": 1}, "required": []},
      |                                           ^^^^^^^^^^^
      = help: take it out; it goes with `type: string`

    error[bad_schema]: `inputs.c.required` says nothing: `inputs.c` takes a list
     --> plan.json:4:87
      |
    4 | … ": {"type": "boolean", "minLength": 1}, "required": []},
      |                                           ^^^^^^^^^^
      = help: take it out; it goes with `type: object`

    error[bad_schema]: no map fits `inputs.d`: it must have `y`, and takes only its `properties`
     --> plan.json:5:71
      |
    5 | … ray"], "default": [], "required": ["x", "y"], "properties": {"x": {}}, "additionalProperties": false …
      |                                           ^^^
      = help: add `y` to `properties`

    error[bad_choice]: there is no type `strin`
     --> plan.json:6:18
      |
    6 |   "e": {"type": ["strin", "null"], "default": 1, "minimum": 1, "minLength": 1},
      |                  ^^^^^^^
      = help: did you mean `string`?
    "#);
}

#[test]
fn hints_lead_to_what_is_taken() {
    let plan = r#"{"plan_id": 5, "sla": true, "timeout_sec": true, "globals": 5, "steps": [
  {"id": 5, "command": true, "retry_backoff": 1, "condition": 2, "name": 3, "retry_delay_sec": 1e99, "timeout_sec": 0}
], "finally": 5}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[wrong_type]: `plan_id` takes a name, and this is the number 5
     --> plan.json:1:13
      |
    1 | {"plan_id": 5, "sla": true, "timeout_sec": true, "globals": 5, "steps": [
      |             ^
      = help: in quotes it is text: "5"

    error[wrong_type]: `sla` takes a number of seconds above 0, or text such as 1h30m, and this is the boolean true
     --> plan.json:1:23
      |
    1 | {"plan_id": 5, "sla": true, "timeout_sec": true, "globals": 5, "steps": [
      |                       ^^^^

    error[wrong_type]: `timeout_sec` takes a number of seconds above 0, and this is the boolean true
     --> plan.json:1:44
      |
    1 | {"plan_id": 5, "sla": true, "timeout_sec": true, "globals": 5, "steps": [
      |                                            ^^^^

    error[wrong_type]: `globals` takes a map, and this is the number 5
     --> plan.json:1:61
      |
    1 | {"plan_id": 5, "sla": true, "timeout_sec": true, "globals": 5, "steps": [
      |                                                             ^

    error[wrong_type]: `id` takes a name, and this is the number 5
     --> plan.json:2:10
      |
    2 |   {"id": 5, "command": true, "retry_backoff": 1, "condition": 2, "name": 3, "retry_delay_sec": 1e99, …
      |          ^

    error[wrong_type]: `command` takes text, and this is the boolean true
     --> plan.json:2:24
      |
    2 |   {"id": 5, "command": true, "retry_backoff": 1, "condition": 2, "name": 3, "retry_delay_sec": 1e99, …
      |                        ^^^^
      = help: in quotes it is text: "true"

    error[wrong_type]: `retry_backoff` takes one of fixed, exponential, and this is the number 1
     --> plan.json:2:47
      |
    2 | … ": 5, "command": true, "retry_backoff": 1, "condition": 2, "name": 3, "retry_delay_sec": 1e99, "time …
      |                                           ^

    error[wrong_type]: `condition` takes an expression, and this is the number 2
     --> plan.json:2:63
      |
    2 | …  true, "retry_backoff": 1, "condition": 2, "name": 3, "retry_delay_sec": 1e99, "timeout_sec": 0}
      |                                           ^

    error[wrong_type]: `name` takes text, and this is the number 3
     --> plan.json:2:74
      |
    2 | … ry_backoff": 1, "condition": 2, "name": 3, "retry_delay_sec": 1e99, "timeout_sec": 0}
      |                                           ^
      = help: in quotes it is text: "3"

    error[out_of_range]: `retry_delay_sec` takes a number of seconds from 0, and this is 1e99
     --> plan.json:2:96
      |
    2 | … tion": 2, "name": 3, "retry_delay_sec": 1e99, "timeout_sec": 0}
      |                                           ^^^^
      = help: the longest is ten years, which are 315360000 seconds

    error[out_of_range]: `timeout_sec` takes a number of seconds above 0, and this is 0
     --> plan.json:2:117
      |
    2 | … "retry_delay_sec": 1e99, "timeout_sec": 0}
      |                                           ^

    error[wrong_type]: `finally` takes a list of steps, and this is the number 5
     --> plan.json:3:15
      |
    3 | ], "finally": 5}
      |               ^
    "#);
}

#[test]
fn artifacts_stand_beneath_the_working_folder() {
    let plan = r#"{"plan_id": "p", "vars": {"V": "..", "W": "w"}, "steps": [
  {"id": "a", "command": "x", "artifacts": ["/etc/*", "a/../b", ".//a", "..a/b..", "./a", "${V}/x"]}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[path-outside]: the artifact pattern `/etc/*` leads out of the step's working folder
     --> plan.json:2:45
      |
    2 |   {"id": "a", "command": "x", "artifacts": ["/etc/*", "a/../b", ".//a", "..a/b..", "./a", "${V}/x"]}
      |                                             ^^^^^^^^
      = help: patterns are relative to `cwd`, and go beneath it

    error[path-outside]: the artifact pattern `a/../b` leads out of the step's working folder
     --> plan.json:2:55
      |
    2 |   {"id": "a", "command": "x", "artifacts": ["/etc/*", "a/../b", ".//a", "..a/b..", "./a", "${V}/x"]}
      |                                                       ^^^^^^^^
      = help: patterns are relative to `cwd`, and go beneath it

    error[path-outside]: the artifact pattern `.//a` leads out of the step's working folder
     --> plan.json:2:65
      |
    2 |   {"id": "a", "command": "x", "artifacts": ["/etc/*", "a/../b", ".//a", "..a/b..", "./a", "${V}/x"]}
      |                                                                 ^^^^^^
      = help: patterns are relative to `cwd`, and go beneath it
    "#);
    let plan = r#"{"plan_id": "p", "vars": {"V": "..", "W": "w"}, "steps": [
  {"id": "a", "command": "x", "artifacts": ["a/${V}/b", "${W}/../x", "${N:-/n}", "${W}/x", "a/*"]}
]}"#;
    insta::assert_snapshot!(report(plan), @r#"
    error[path-outside]: the artifact pattern `a/../b` leads out of the step's working folder
     --> plan.json:2:10
      |
    2 |   {"id": "a", "command": "x", "artifacts": ["a/${V}/b", "${W}/../x", "${N:-/n}", "${W}/x", "a/*"]}
      |          ^^^
      = help: patterns are relative to `cwd`, and go beneath it

    error[path-outside]: the artifact pattern `w/../x` leads out of the step's working folder
     --> plan.json:2:10
      |
    2 |   {"id": "a", "command": "x", "artifacts": ["a/${V}/b", "${W}/../x", "${N:-/n}", "${W}/x", "a/*"]}
      |          ^^^
      = help: patterns are relative to `cwd`, and go beneath it

    error[path-outside]: the artifact pattern `/n` leads out of the step's working folder
     --> plan.json:2:10
      |
    2 |   {"id": "a", "command": "x", "artifacts": ["a/${V}/b", "${W}/../x", "${N:-/n}", "${W}/x", "a/*"]}
      |          ^^^
      = help: patterns are relative to `cwd`, and go beneath it
    "#);
}
