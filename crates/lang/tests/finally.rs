//! Steps that run after all others: how they stand in the graph, what they see, what slices do to them.

use std::collections::BTreeMap;

use baton_core::{RunId, RunStatus, StepIndex, StepStatus};
use baton_lang::{Compiled, Options, Scope, Selection, Source, load, render_all};
use serde_json::{Map, Value, json};

const PLAN: &str = "plan_id: p\nfinally:\n\
    - {id: tidy, command: x, provides: [clean], tags: [t]}\n\
    - {id: tell, command: x, depends_on: [tidy], consumes: [built, clean], condition: run.status != 'succeeded', \
    on_failure: fallback_step, fallback_step: shout, args: ['${{ run.status }} ${{ steps.a.status }} \
    ${{ steps.tidy.status }}', '${{ steps.b.outputs.n }}']}\n\
    - {id: shout, command: x}\n\
    steps:\n- {id: a, command: x, provides: [built], tags: [t]}\n- {id: b, command: x, depends_on: [a]}\n";

fn compile(selection: Selection, kept: Vec<(u32, u32)>) -> Result<Compiled, String> {
    let source = Source::new("plan.yaml", PLAN);
    let loaded = load(&source, &BTreeMap::new(), &Options { selection, kept, ..Options::default() });
    loaded.compiled.ok_or_else(|| render_all(&loaded.problems, &source, false))
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| id.to_string()).collect()
}

#[test]
fn the_list_can_stand_before_the_steps() {
    let graph = compile(Selection::default(), Vec::new()).expect("the plan is fine").graph;
    let last: Vec<&str> = graph.steps().filter(|step| graph.is_finally(*step)).map(|step| graph.id(step)).collect();
    assert_eq!(last, ["tidy", "tell", "shout"]);
    assert!(graph.has_finally());
    let find = |id: &str| graph.find(id).expect("it exists");
    assert_eq!(graph.dependencies(find("tell")), [find("tidy")]);
    assert_eq!(graph.fallback(find("tell")), Some(find("shout")));
}

#[test]
fn what_runs_last_sees_how_the_others_ended() {
    let compiled = compile(Selection::default(), Vec::new()).expect("the plan is fine");
    let tell = compiled.graph.find("tell").expect("it exists");
    let outputs: Map<String, Value> = Map::from_iter([("n".to_owned(), json!(1))]);
    let see = |run_status: Option<RunStatus>| {
        let scope = Scope {
            run: RunId(7),
            plan_dir: "/plans",
            cwd: "/here",
            kept_steps_have_run: false,
            status: &|_| StepStatus::Failed,
            outputs: &|_| Some(&outputs),
            run_status,
        };
        let args = compiled.invocation(tell, &scope).map(|invocation| invocation.with["args"].clone());
        (compiled.condition(tell, &scope), args)
    };
    assert_eq!(see(Some(RunStatus::Failed)), (Ok(true), Ok(json!(["failed failed failed", "1"]))));
    assert_eq!(see(Some(RunStatus::Succeeded)), (Ok(false), Ok(json!(["succeeded failed failed", "1"]))));
    assert_eq!(see(Some(RunStatus::Canceled)).0, Ok(true));
    assert!(see(None).0.is_err(), "nobody knows how the run ends");
}

#[test]
fn a_slice_does_not_touch_what_runs_last() {
    let kept = |selection: Selection, kept: Vec<(u32, u32)>| {
        let compiled = compile(selection, kept).unwrap_or_else(|report| panic!("{report}"));
        let kept = compiled.kept.iter().flat_map(|(first, last)| *first..=*last);
        let kept: Vec<String> = kept.map(|step| compiled.graph.id(StepIndex(step)).to_owned()).collect();
        let warnings: Vec<&str> = compiled.warnings.iter().map(|warning| warning.code).collect();
        (kept.join(" "), warnings.join(" "))
    };
    assert_eq!(kept(Selection::default(), Vec::new()), ("".into(), "".into()));
    assert_eq!(kept(Selection { from: ids(&["b"]), ..Selection::default() }, Vec::new()), ("a".into(), "".into()));
    let without_b = ("b".to_owned(), "outside_slice".to_owned());
    assert_eq!(kept(Selection { only: ids(&["a"]), ..Selection::default() }, Vec::new()), without_b);
    assert_eq!(kept(Selection { to: ids(&["a"]), ..Selection::default() }, Vec::new()), without_b);
    assert_eq!(kept(Selection { tags: ids(&["t"]), ..Selection::default() }, Vec::new()), without_b);
    assert_eq!(kept(Selection::default(), vec![(0, 3)]), ("a".into(), "".into()));
}

#[test]
fn a_slice_cannot_name_what_runs_last() {
    let selection = Selection { from: ids(&["tidy"]), only: ids(&["a", "shout"]), ..Selection::default() };
    insta::assert_snapshot!(compile(selection, Vec::new()).expect_err("they cannot be named"), @r#"
    warning[outside_slice]: `tell` needs the outputs of `b`, which is left out of this slice
     --> plan.yaml:4:234
      |
    4 | … .a.status }} ${{ steps.tidy.status }}', '${{ steps.b.outputs.n }}']}
      |                                           ^^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: `has()` tells whether they are there; without it the expression fails

    error[finally]: --from: `tidy` is in `finally`, which always runs
      = help: name steps outside `finally`

    error[finally]: --only: `shout` is in `finally`, which always runs
      = help: name steps outside `finally`
    "#);
}

#[test]
fn a_guard_takes_the_warning_away() {
    let plan = "plan_id: p\nsteps: [{id: a, command: x}, {id: b, command: x}]\nfinally:\n\
        - {id: f, command: x, args: [\"${{ has(steps.a.outputs.n) ? steps.a.outputs.n : 'none' }}\"]}\n\
        - {id: g, command: x, args: ['${{ steps.a.outputs.n }}']}\n";
    let source = Source::new("plan.yaml", plan);
    let selection = Selection { only: ids(&["b"]), ..Selection::default() };
    let loaded = load(&source, &BTreeMap::new(), &Options { selection, ..Options::default() });
    assert!(loaded.compiled.is_some());
    insta::assert_snapshot!(render_all(&loaded.problems, &source, false), @r#"
    warning[outside_slice]: `g` needs the outputs of `a`, which is left out of this slice
     --> plan.yaml:5:30
      |
    5 | - {id: g, command: x, args: ['${{ steps.a.outputs.n }}']}
      |                              ^^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: `has()` tells whether they are there; without it the expression fails
    "#);
}
