//! What plans come to: what each step does, how the graph looks, what a slice leaves.

use std::collections::BTreeMap;

use baton_core::graph::Backoff;
use baton_core::{Invocation, Millis, OnFailure, RunId, StepIndex, StepStatus};
use baton_lang::{Compiled, Given, Options, Scope, Selection, Source, load, render_all};
use serde_json::{Map, Value, json};

fn none() -> BTreeMap<String, Value> {
    BTreeMap::new()
}

fn options(vars: &[(&str, &str)]) -> Options {
    Options {
        vars: vars.iter().map(|(name, value)| (name.to_string(), Given::from(*value))).collect(),
        ..Options::default()
    }
}

fn compile_with(text: &str, options: &Options) -> Compiled {
    let source = Source::new("plan.yaml", text);
    let loaded = load(&source, &none(), options);
    match loaded.compiled {
        Some(compiled) => compiled,
        None => panic!("{}", render_all(&loaded.problems, &source, false)),
    }
}

fn compile(text: &str) -> Compiled {
    compile_with(text, &Options::default())
}

fn problems_with(text: &str, options: &Options) -> String {
    let source = Source::new("plan.yaml", text);
    render_all(&load(&source, &none(), options).problems, &source, false)
}

/// A run in which every step succeeded and has these outputs.
fn with_scope<R>(outputs: &Value, compiled: &Compiled, act: impl FnOnce(&Scope<'_>) -> R) -> R {
    let maps: BTreeMap<StepIndex, &Map<String, Value>> = outputs
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(id, value)| Some((compiled.graph.find(id)?, value.as_object()?)))
        .collect();
    act(&Scope {
        run: RunId(7),
        plan_dir: "/plans",
        cwd: "/here",
        kept_steps_have_run: false,
        status: &|_| StepStatus::Succeeded,
        outputs: &|step| maps.get(&step).copied(),
        run_status: None,
    })
}

fn invoke(compiled: &Compiled, id: &str, outputs: &Value) -> Result<Invocation, String> {
    let step = compiled.graph.find(id).expect("the step exists");
    with_scope(outputs, compiled, |scope| compiled.invocation(step, scope))
}

fn args(compiled: &Compiled, id: &str, outputs: &Value) -> Value {
    invoke(compiled, id, outputs).expect("the step can start").with["args"].clone()
}

/// The value of one expression, as the single argument of a step after `a`.
fn eval(expression: &str, outputs: Value) -> String {
    let plan = json!({
        "plan_id": "p",
        "vars": {"NAME": "world", "EMPTY": ""},
        "steps": [
            {"id": "a", "command": "true"},
            {"id": "b", "command": "echo", "args": [format!("<${{{{ {expression} }}}}>")], "depends_on": ["a"]},
        ],
    });
    let source = Source::new("plan.json", plan.to_string());
    let loaded = load(&source, &none(), &Options::default());
    let Some(compiled) = loaded.compiled else {
        return loaded.problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ");
    };
    match invoke(&compiled, "b", &json!({"a": outputs})) {
        Ok(invocation) => invocation.with["args"][0].as_str().unwrap_or_default().to_owned(),
        Err(error) => error,
    }
}

#[test]
fn a_plan_says_what_its_steps_do() {
    let compiled = compile(
        "plan_id: p\n\
         vars: {WHO: world}\n\
         globals: {max_concurrency: 3, default_retries: 2, env: {A: global, B: '${WHO}'}}\n\
         steps:\n\
         - id: hello\n  command: echo\n  args: ['hello ${WHO}', 5, true]\n  env: {A: step}\n\
         - id: bye\n  name: Say bye\n  command: echo\n  depends_on: [hello]\n  timeout_sec: 1.5\n  retries: 0\n",
    );
    assert_eq!(compiled.graph.max_concurrency(), 3);
    let hello = invoke(&compiled, "hello", &json!({})).expect("it can start");
    assert_eq!(hello.uses, "process");
    assert_eq!(hello.with, json!({"command": "echo", "args": ["hello world", "5", "true"], "shell": false}));
    assert_eq!(hello.env, BTreeMap::from([("A".into(), "step".into()), ("B".into(), "world".into())]));
    assert_eq!(hello.cwd, ".");
    let (hello, bye) = (StepIndex(0), StepIndex(1));
    assert_eq!(compiled.graph.dependencies(bye), [hello]);
    assert_eq!(compiled.name(bye), "Say bye");
    assert_eq!(compiled.graph.policy(hello).retries, 2);
    assert_eq!(compiled.graph.policy(bye).retries, 0);
    assert_eq!(compiled.graph.policy(bye).timeout, Some(Millis(1500)));
    assert!(!compiled.is_dynamic(hello));
}

#[test]
fn every_rule_of_a_step_reaches_the_graph() {
    let compiled = compile(
        "plan_id: p\ntimeout_sec: 60\nlocks: [merge]\nlock_wait_timeout_sec: 5\n\
         globals: {default_timeout_sec: 100, stop_grace_sec: 3}\nsteps:\n\
         - id: a\n  command: x\n  retries: 3\n  retry_delay_sec: 2\n  retry_backoff: exponential\n\
         \x20 retry_max_delay_sec: 9\n  retry_jitter: 0.25\n  accept_exit_codes: [0, 3]\n  stop_grace_sec: 1\n\
         \x20 critical: false\n  critical_grace_period_sec: 4\n  on_failure: fallback_step\n  fallback_step: b\n\
         \x20 locks: ['y', 'x']\n  lock_wait_timeout_sec: 8\n  artifacts: ['*.log']\n  detach: true\n\
         \x20 condition: 'true'\n  tags: [fast, 2]\n  ui_hints: {group: G, weight: 2.5}\n  provides: [thing]\n\
         - id: b\n  command: y\n\
         - id: c\n  command: z\n  depends_on: [a]\n  consumes: [thing]\n  locks: [q]\n",
    );
    let graph = &compiled.graph;
    let (a, b, c) = (StepIndex(0), StepIndex(1), StepIndex(2));
    let policy = graph.policy(a);
    assert_eq!(policy.retries, 3);
    assert_eq!(policy.retry_delay, Millis(2000));
    assert_eq!(policy.backoff, Backoff::Exponential);
    assert_eq!(policy.retry_max_delay, Millis(9000));
    assert_eq!(policy.jitter_permille, 250);
    assert_eq!(policy.timeout, Some(Millis(100_000)));
    assert_eq!(policy.stop_grace, Millis(1000));
    assert_eq!(graph.policy(b).stop_grace, Millis(3000));
    assert_eq!(policy.critical_grace, Millis(4000));
    assert!(!policy.critical);
    assert_eq!(policy.on_failure, OnFailure::FallbackStep);
    assert!(policy.accept.contains(3) && policy.accept.contains(0) && !policy.accept.contains(1));
    assert_eq!(graph.fallback(a), Some(b));
    assert!(graph.is_conditional(a) && !graph.is_conditional(b));
    let locks = graph.locks(a).expect("a has locks");
    assert_eq!(locks.names, ["x", "y"]);
    assert_eq!(locks.wait_timeout, Some(Millis(8000)));
    assert_eq!(graph.plan_locks().names, ["merge"]);
    assert_eq!(graph.plan_locks().wait_timeout, Some(Millis(5000)));
    assert_eq!(graph.timeout(), Some(Millis(60_000)));
    assert_eq!(compiled.artifacts(a), ["*.log"]);
    assert_eq!(compiled.tags(a), ["fast", "2"]);
    assert_eq!(compiled.group(a).as_deref(), Some("G"));
    assert_eq!(compiled.weight(a), 2.5);
    assert_eq!(compiled.weight(b), 1.0);
    assert_eq!(compiled.provides(a), ["thing"]);
    assert_eq!(compiled.consumes(c), ["thing"]);
    assert!(compiled.detach(a) && !compiled.detach(b));
    assert_eq!(graph.locks(c).map(|locks| locks.wait_timeout), Some(None));
}

#[test]
fn variables_come_from_the_command_line_then_from_the_plan() {
    let plan = "plan_id: p\nvars: {A: plan, B: '${A}-b', C: ''}\nsteps:\n- id: a\n  command: echo\n  args:\n  \
                - '${A} ${B} ${C:-c} ${D:-d} $${A} $A $${{x}} $$'\n";
    let line = |options: &Options| args(&compile_with(plan, options), "a", &json!({}))[0].clone();
    assert_eq!(line(&Options::default()), "plan plan-b c d ${A} $A ${{x}} $$");
    assert_eq!(line(&options(&[("A", "x${B}"), ("D", "y")])), "x${B} x${B}-b c y ${A} $A ${{x}} $$");
}

#[test]
fn a_script_is_left_alone_and_gets_variables_as_environment() {
    let compiled = compile(
        "plan_id: p\nvars: {A: '$(rm -rf /)', B: b}\nglobals: {env: {B: global}}\nsteps:\n\
         - id: s\n  shell: true\n  command: 'echo \"${A}\" ${HOME}'\n  args: ['${A}']\n",
    );
    let s = invoke(&compiled, "s", &json!({})).expect("it can start");
    let expected = json!({"command": "echo \"${A}\" ${HOME}", "args": ["$(rm -rf /)"], "shell": true});
    assert_eq!(s.with, expected);
    assert_eq!(s.env, BTreeMap::from([("A".into(), "$(rm -rf /)".into()), ("B".into(), "global".into())]));
}

#[test]
fn values_become_texts_by_stated_rules() {
    let outputs = || {
        json!({"text": "t", "int": 5, "real": 1.5, "whole": 1.0, "yes": true, "list": [1, "b"],
                            "map": {"z": 1, "a": [2]}, "nil": null, "big": 18_446_744_073_709_551_615u64})
    };
    let out = |name: &str| eval(&format!("steps.a.outputs.{name}"), outputs());
    assert_eq!(out("text"), "<t>");
    assert_eq!(out("int"), "<5>");
    assert_eq!(out("real"), "<1.5>");
    assert_eq!(out("whole"), "<1.0>");
    assert_eq!(out("yes"), "<true>");
    assert_eq!(out("list"), "<[1,\"b\"]>");
    assert_eq!(out("map"), "<{\"a\":[2],\"z\":1}>");
    assert_eq!(out("big"), "<18446744073709551615>");
    assert!(out("nil").contains("is null"), "{}", out("nil"));
}

#[test]
fn a_whole_argument_that_is_a_list_becomes_several() {
    let compiled = compile(
        "plan_id: p\nsteps:\n- id: a\n  command: x\n- id: b\n  command: x\n  depends_on: [a]\n  \
         args: [first, '${{ steps.a.outputs.files }}', '${{steps.a.outputs.map}}', last]\n",
    );
    let outputs = json!({"a": {"files": ["x y", 2, ["n"]], "map": {"k": 1}}});
    assert_eq!(args(&compiled, "b", &outputs), json!(["first", "x y", "2", "[\"n\"]", "{\"k\":1}", "last"]));
    let empty = json!({"a": {"files": [], "map": "m"}});
    assert_eq!(args(&compiled, "b", &empty), json!(["first", "m", "last"]));
    let error = invoke(&compiled, "b", &json!({"a": {"files": [null], "map": 1}})).expect_err("a null is refused");
    assert!(error.contains("holds a null"), "{error}");
    assert!(compiled.is_dynamic(StepIndex(1)));
}

#[test]
fn expressions_see_variables_steps_and_the_run() {
    assert_eq!(eval("vars.NAME + '!'", json!({})), "<world!>");
    assert_eq!(eval("steps.a.status", json!({})), "<succeeded>");
    assert_eq!(eval("run.id + 1", json!({})), "<8>");
    assert_eq!(eval("run.plan_dir + run.cwd + run.plan_id", json!({})), "</plans/herep>");
    assert_eq!(eval("{'a': {'b': '}}'}}.a.b", json!({})), "<}}>");
    assert_eq!(eval("[3, 1].map(x, x * 2).filter(x, x > 2)", json!({})), "<[6]>");
    assert_eq!(eval("size(steps.a.outputs)", json!({"x": 1})), "<1>");
}

#[test]
fn has_is_false_for_anything_missing_or_null_on_the_way() {
    let outputs = || json!({"x": {"y": {"z": 1}}, "n": null});
    assert_eq!(eval("has(steps.a.outputs.x.y.z)", outputs()), "<true>");
    assert_eq!(eval("has(steps.a.outputs.q.y.z)", outputs()), "<false>");
    assert_eq!(eval("has(steps.a.outputs.n.y)", outputs()), "<false>");
    assert_eq!(eval("has(steps['a'].outputs['x'].y)", outputs()), "<true>");
    assert_eq!(eval("has(steps.a.outputs.x.y.z.deep)", outputs()), "<false>");
    assert_eq!(eval("has(vars.NOPE) ? vars.NOPE : 'none'", outputs()), "<none>");
}

#[test]
fn maps_are_iterated_in_the_order_of_their_keys() {
    let outputs = || json!({"m": {"z": 1, "b": 2, "a": 3, "y": 4, "c": 5}});
    assert_eq!(eval("steps.a.outputs.m.map(k, k)", outputs()), "<[\"a\",\"b\",\"c\",\"y\",\"z\"]>");
}

#[test]
fn an_evaluation_error_shows_the_expression_and_the_values() {
    assert_eq!(
        eval("steps.a.outputs.n + 'x'", json!({"n": 1})),
        "`steps.a.outputs.n + 'x'` could not be computed: `add` does not go with int and string \
         (where steps.a.outputs is {\"n\":1})"
    );
    assert_eq!(
        eval("steps.a.outputs.missing", json!({"n": 1})),
        "`steps.a.outputs.missing` could not be computed: there is no `missing`; guard it with has() \
         (where steps.a.outputs is {\"n\":1})"
    );
    assert!(eval("1 / 0", json!({})).contains("division by zero"));
    assert!(eval("9223372036854775807 + 1", json!({})).contains("too large"));
}

#[test]
fn an_expression_cannot_make_much_out_of_little() {
    let doubling = format!("['{}']{}", "x".repeat(1000), ".map(x, x + x + x + x)".repeat(12));
    assert!(eval(&doubling, json!({})).contains("more than an expression may"), "{}", eval(&doubling, json!({})));
    let list = json!({"l": (0..2000).collect::<Vec<_>>()});
    let nested = "steps.a.outputs.l.map(a, steps.a.outputs.l.map(b, steps.a.outputs.l.map(c, 1)))";
    assert!(eval(nested, list).contains("more than an expression may"));
}

#[test]
fn a_condition_is_true_or_false() {
    let compiled = compile(
        "plan_id: p\nsteps:\n- id: a\n  command: x\n- id: b\n  command: x\n  depends_on: [a]\n  \
         condition: steps.a.outputs.n\n- id: c\n  command: x\n  condition: true\n",
    );
    let b = compiled.graph.find("b").expect("b exists");
    let judge = |n: Value| with_scope(&json!({"a": {"n": n}}), &compiled, |scope| compiled.condition(b, scope));
    assert_eq!(judge(json!(true)), Ok(true));
    assert_eq!(judge(json!(false)), Ok(false));
    assert_eq!(
        judge(json!("true")),
        Err("the condition `steps.a.outputs.n` gives text (\"true\"), and must give true or false".into())
    );
    let c = compiled.graph.find("c").expect("c exists");
    assert_eq!(with_scope(&json!({}), &compiled, |scope| compiled.condition(c, scope)), Ok(true));
}

const CHAIN: &str = "plan_id: p\nsteps:\n\
    - {id: a, command: x, tags: [t]}\n\
    - {id: b, command: x, depends_on: [a], on_failure: fallback_step, fallback_step: f}\n\
    - {id: c, command: x, depends_on: [b], tags: [t]}\n\
    - {id: d, command: x}\n\
    - {id: f, command: x}\n";

/// The ids of the steps that run.
fn slice(selection: Selection) -> String {
    let compiled = compile_with(CHAIN, &Options { selection, ..Options::default() });
    let kept = |step: StepIndex| compiled.kept.iter().any(|(first, last)| (*first..=*last).contains(&step.0));
    compiled.graph.steps().filter(|step| !kept(*step)).map(|step| compiled.graph.id(step)).collect::<Vec<_>>().join(" ")
}

#[test]
fn slices_meet_and_take_fallbacks_with_them() {
    let ids = |ids: &[&str]| ids.iter().map(|id| id.to_string()).collect::<Vec<_>>();
    assert_eq!(slice(Selection::default()), "a b c d f");
    assert_eq!(slice(Selection { from: ids(&["b"]), ..Selection::default() }), "b c f");
    assert_eq!(slice(Selection { to: ids(&["b"]), ..Selection::default() }), "a b f");
    assert_eq!(slice(Selection { only: ids(&["a", "d"]), ..Selection::default() }), "a d");
    assert_eq!(slice(Selection { tags: ids(&["t"]), ..Selection::default() }), "a c");
    assert_eq!(slice(Selection { from: ids(&["b"]), to: ids(&["b"]), ..Selection::default() }), "b f");
    assert_eq!(slice(Selection { to: ids(&["c"]), ..Selection::default() }), "a b c f");
}

#[test]
fn a_slice_that_is_wrong_says_so() {
    let selection = Selection { from: vec!["bb".into()], tags: vec!["tt".into()], ..Selection::default() };
    insta::assert_snapshot!(problems_with(CHAIN, &Options { selection, ..Options::default() }), @r#"
    error[unknown_step]: --from: there is no step `bb`
      = help: did you mean `b`?

    error[unknown_tag]: --tag: no step has the tag `tt`
      = help: did you mean `t`?
    "#);
}

#[test]
fn outputs_from_outside_a_slice_are_refused_unless_another_run_has_them() {
    let plan = "plan_id: p\nsteps:\n- {id: a, command: x}\n\
                - {id: b, command: x, depends_on: [a], args: ['${{ steps.a.outputs.n }}']}\n";
    let selection = Selection { only: vec!["b".into()], ..Selection::default() };
    let mut options = Options { selection, ..Options::default() };
    insta::assert_snapshot!(problems_with(plan, &options), @r#"
    error[outside_slice]: `b` needs the outputs of `a`, which is left out of this slice
     --> plan.yaml:4:47
      |
    4 | - {id: b, command: x, depends_on: [a], args: ['${{ steps.a.outputs.n }}']}
      |                                               ^^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: take it in, or name the run that has them: --outputs-from RUN
    "#);
    options.outputs_available = true;
    assert_eq!(compile_with(plan, &options).kept, [(0, 0)]);
}

#[test]
fn a_retry_keeps_further_steps() {
    let compiled = compile_with(CHAIN, &Options { kept: vec![(0, 1), (4, 4)], ..Options::default() });
    assert_eq!(compiled.kept, [(0, 1), (4, 4)]);
}
