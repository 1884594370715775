//! Values that plans are given and come to: inputs, what steps set, the plan's outputs.

use std::collections::BTreeMap;

use baton_core::{Millis, RunId, StepIndex, StepStatus};
use baton_lang::{Compiled, Given, MAX_TEXT_BYTES, Options, Scope, Selection, Source, load, parse_var, render_all};
use serde_json::{Map, Value, json};

fn load_with(text: &str, options: &Options) -> Result<Compiled, String> {
    let source = Source::new("plan.yaml", text);
    let loaded = load(&source, &BTreeMap::new(), options);
    loaded.compiled.ok_or_else(|| render_all(&loaded.problems, &source, false))
}

fn given(vars: &[(&str, Given)]) -> Options {
    let vars = vars.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    Options { vars, ..Options::default() }
}

fn compile(text: &str, vars: &[(&str, Given)]) -> Compiled {
    load_with(text, &given(vars)).unwrap_or_else(|report| panic!("{report}"))
}

/// What an input of this schema becomes, or the messages about it.
fn take(schema: &Value, value: impl Into<Given>) -> Result<Value, String> {
    let plan = json!({"plan_id": "p", "inputs": {"x": schema}, "steps": [{"id": "a", "command": "c"}]});
    let loaded = load(&Source::new("p.json", plan.to_string()), &BTreeMap::new(), &given(&[("x", value.into())]));
    match loaded.compiled {
        Some(compiled) => Ok(compiled.inputs["x"].clone()),
        None => Err(loaded.problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ")),
    }
}

fn fits(schema: &Value, value: Value) -> bool {
    take(schema, Given::Value(value)).is_ok()
}

/// A scope in which these steps have outputs, and those without an entry were left out.
fn with_scope<R>(outputs: &Value, compiled: &Compiled, act: impl FnOnce(&Scope<'_>) -> R) -> R {
    let find = |step: StepIndex| outputs.get(compiled.graph.id(step)).and_then(Value::as_object);
    act(&Scope {
        run: RunId(7),
        plan_dir: "/plans",
        cwd: "/here",
        kept_steps_have_run: false,
        status: &|step| if find(step).is_some() { StepStatus::Succeeded } else { StepStatus::Kept },
        outputs: &find,
        run_status: None,
    })
}

#[test]
fn a_text_is_read_by_the_type_that_is_wanted() {
    let typed = |kind: &str| json!({"type": kind});
    assert_eq!(take(&typed("string"), "3"), Ok(json!("3")));
    assert_eq!(take(&json!({"type": ["string", "integer"]}), "3"), Ok(json!("3")));
    assert_eq!(take(&json!({"type": ["integer", "null"]}), "null"), Ok(json!(null)));
    assert_eq!(take(&typed("integer"), " 3 "), Ok(json!(3)));
    assert_eq!(take(&typed("integer"), "3.0"), Ok(json!(3)));
    assert_eq!(take(&typed("number"), "-1.5e1"), Ok(json!(-15.0)));
    assert_eq!(take(&typed("boolean"), "true"), Ok(json!(true)));
    assert_eq!(take(&typed("array"), "[1, \"b\"]"), Ok(json!([1, "b"])));
    assert_eq!(take(&typed("object"), "{\"k\": null}"), Ok(json!({"k": null})));
    let said = |kind: &str, text: &str| take(&typed(kind), text).expect_err("it does not fit");
    assert_eq!(said("integer", "3.5"), "`inputs.x` takes a whole number, and this is the number 3.5");
    assert_eq!(said("integer", "three"), "`inputs.x` takes a whole number, and this is the text \"three\"");
    assert_eq!(said("integer", "\"3\""), "`inputs.x` takes a whole number, and this is the text \"3\"");
    assert_eq!(said("array", ""), "`inputs.x` takes a list, and this is the text \"\"");
    assert!(said("array", &"[".repeat(100_000)).len() < 200);
    assert!(take(&typed("string"), Given::Value(json!(3))).is_err(), "a value keeps its type");
    // In an expression 1.0 would not go with 1.
    assert_eq!(take(&typed("integer"), "1.0"), Ok(json!(1)));
    assert_eq!(take(&typed("number"), "1"), Ok(json!(1.0)));
    assert_eq!(take(&json!({"type": ["number", "integer"]}), "1"), Ok(json!(1)));
    let nested = json!({"type": "array", "items": {"type": "object",
        "properties": {"n": {"type": "integer"}, "r": {"type": ["number", "null"]}}}});
    let said = take(&nested, "[{\"n\": 2.0, \"r\": 2, \"m\": 2.0}]");
    assert_eq!(said, Ok(json!([{"n": 2, "r": 2.0, "m": 2.0}])));
}

#[test]
fn a_number_is_real_however_it_is_written() {
    let plan = "plan_id: p\ninputs: {f: {type: number, default: 2}}\nsteps:\n\
        - {id: a, command: x, args: ['${{ inputs.f * 2.0 }}', '${{ inputs.f == 2 }}']}\n";
    for values in [&[][..], &[("f", "2".into())], &[("f", "2.0".into())], &[("f", Given::Value(json!(2)))]] {
        let compiled = compile(plan, values);
        let invocation = with_scope(&json!({}), &compiled, |scope| compiled.invocation(StepIndex(0), scope));
        assert_eq!(invocation.expect("it can be computed").with["args"], json!(["4.0", "true"]), "{values:?}");
    }
}

#[test]
fn no_whole_number_becomes_another_one() {
    let typed = |kind: &str| json!({"type": kind});
    let said = |schema: &Value, given: Given| take(schema, given).expect_err("it cannot be held");
    let (whole, real) = (typed("integer"), typed("number"));
    for (text, value) in [("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN), ("1e3", 1000)] {
        assert_eq!(take(&whole, text), Ok(json!(value)));
    }
    for (text, value) in [("9007199254740992", 9_007_199_254_740_992.0), ("100000000000000000000", 1e20)] {
        assert_eq!(take(&real, text), Ok(json!(value)));
    }
    let told = [
        said(&whole, "9223372036854775808".into()),
        said(&whole, "12345678901234567890123".into()),
        said(&whole, "100000000000000000000".into()),
        said(&whole, "9007199254740993.0".into()),
        said(&whole, "1e400".into()),
        said(&whole, Given::Value(json!(u64::MAX))),
        said(&real, "9007199254740993".into()),
        said(&real, "-12345678901234567890123".into()),
        said(&real, Given::Value(json!(u64::MAX))),
        said(&json!({"type": "array", "items": {"type": "integer"}}), "[1, 18446744073709551616]".into()),
        said(&typed("object"), "{\"k\": 18446744073709551617, \"k\": 1}".into()),
    ];
    insta::assert_snapshot!(told.join("\n"), @"
    `inputs.x` takes a whole number, and 9223372036854775808 is too large to be held exactly
    `inputs.x`: `12345678901234567890123` is too large to be held exactly
    `inputs.x` takes a whole number, and 1e+20 is too large to be held exactly
    `inputs.x` takes a whole number, and 9007199254740992.0 is too large to be exact in this notation
    `inputs.x`: `1e400` is no number that JSON can hold
    `inputs.x` takes a whole number, and 18446744073709551615 is too large to be held exactly
    `inputs.x` takes a number, and 9007199254740993 is too large to be held exactly as one
    `inputs.x`: `-12345678901234567890123` is too large to be held exactly
    `inputs.x` takes a number, and 18446744073709551615 is too large to be held exactly as one
    `inputs.x[1]` takes a whole number, and 1.8446744073709552e+19 is too large to be held exactly
    `inputs.x`: `18446744073709551617` is too large to be held exactly; `inputs.x`: `k` is given twice
    ");
    let plan = "plan_id: p\ninputs: {a: {type: integer, default: 12345678901234567890123},\n  \
        b: {type: integer, enum: [1, 9223372036854775808], default: 1},\n  \
        c: {type: number, default: 0x20000000000001}, d: {type: integer, default: 0xfffffffffffffffff}}\n\
        steps: [{id: s, command: x}]\n";
    insta::assert_snapshot!(load_with(plan, &Options::default()).expect_err("none can be held"), @"
    error[out_of_range]: `12345678901234567890123` is too large to be held exactly
     --> plan.yaml:2:38
      |
    2 | inputs: {a: {type: integer, default: 12345678901234567890123},
      |                                      ^^^^^^^^^^^^^^^^^^^^^^^
      = help: whole numbers go from -9223372036854775808 to 9223372036854775807

    error[bad_input]: `inputs.b.enum[1]` takes a whole number, and 9223372036854775808 is too large to be held exactly
     --> plan.yaml:3:32
      |
    3 |   b: {type: integer, enum: [1, 9223372036854775808], default: 1},
      |                                ^^^^^^^^^^^^^^^^^^^
      = help: whole numbers go from -9223372036854775808 to 9223372036854775807

    error[bad_input]: `inputs.c.default` takes a number, and 9007199254740993 is too large to be held exactly as one
     --> plan.yaml:4:30
      |
    4 |   c: {type: number, default: 0x20000000000001}, d: {type: integer, default: 0xfffffffffffffffff}}
      |                              ^^^^^^^^^^^^^^^^
      = help: the nearest is 9007199254740992; `type: integer` holds whole numbers to 9223372036854775807

    error[out_of_range]: `0xfffffffffffffffff` is too large to be held exactly
     --> plan.yaml:4:77
      |
    4 |   c: {type: number, default: 0x20000000000001}, d: {type: integer, default: 0xfffffffffffffffff}}
      |                                                                             ^^^^^^^^^^^^^^^^^^^
      = help: whole numbers go from -9223372036854775808 to 9223372036854775807
    ");
}

#[test]
fn every_keyword_holds() {
    let is = |schema: Value, good: &[Value], bad: &[Value]| {
        good.iter().for_each(|value| assert!(fits(&schema, value.clone()), "{value} fits {schema}"));
        bad.iter().for_each(|value| assert!(!fits(&schema, value.clone()), "{value} does not fit {schema}"));
    };
    is(json!({"type": "integer"}), &[json!(1), json!(1.0), json!(-1e3)], &[json!(1.5), json!("1"), json!(true)]);
    is(json!({"type": ["null", "boolean"]}), &[json!(null), json!(false)], &[json!(0), json!("")]);
    is(json!({"type": "integer", "minimum": 1, "maximum": 3.0}), &[json!(1.0), json!(3)], &[json!(0), json!(4)]);
    let open = json!({"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 2});
    is(open, &[json!(1.5)], &[json!(1.0), json!(2)]);
    let huge = json!({"type": "integer", "maximum": 9_007_199_254_740_992u64});
    is(huge, &[json!(9_007_199_254_740_992u64)], &[json!(9_007_199_254_740_993u64), json!(u64::MAX)]);
    let lengths = json!({"type": "string", "minLength": 2, "maxLength": 2});
    is(lengths, &[json!("äö"), json!("🎵🎶")], &[json!("ä"), json!("abc")]);
    is(json!({"type": "string", "pattern": "b+"}), &[json!("abbc"), json!("b")], &[json!("ac"), json!("")]);
    is(json!({"type": "string", "pattern": "^a$"}), &[json!("a")], &[json!("ba"), json!("ab")]);
    let choice = json!({"type": ["number", "array"], "enum": [1, [2, {"k": 1.0}]]});
    is(choice, &[json!(1.0), json!([2.0, {"k": 1}])], &[json!(2), json!([2]), json!([2, {"k": 2}])]);
    is(json!({"type": "object", "const": {"a": 1, "b": 2}}), &[json!({"b": 2, "a": 1.0})], &[json!({"a": 1})]);
    let list =
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2, "uniqueItems": true});
    is(list, &[json!([1]), json!([1, 2])], &[json!([]), json!([1, 1.0]), json!([1, 2, 3]), json!(["a"])]);
    is(json!({"type": "array", "uniqueItems": false}), &[json!([1, 1])], &[json!(1)]);
    let map = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "b"],
        "additionalProperties": {"type": "integer"}});
    is(map, &[json!({"a": "x", "b": 1})], &[json!({"a": "x"}), json!({"a": 1, "b": 1}), json!({"a": "x", "b": "y"})]);
    let closed = json!({"type": "object", "additionalProperties": false, "properties": {"a": {}}});
    is(closed, &[json!({}), json!({"a": [1]})], &[json!({"b": 1})]);
    is(json!({"type": "object", "additionalProperties": true}), &[json!({"b": 1})], &[json!([])]);
}

const INPUTS: &str = "plan_id: p\nvars: {V: v}\ninputs:\n  count: {type: integer, default: 2}\n  \
    names: {type: array, items: {type: string}, default: [a, b c]}\n  \
    who: {type: string, description: Whom to greet}\n  \
    config: {type: object, default: {deep: {er: 1.5}}}\nsteps:\n- id: a\n  command: echo\n  \
    args: ['${{ inputs.names }}', \
    'x${{ inputs.count + 1 }}', \"${{ inputs['who'] + vars.V }}\", '${{ has(inputs.config.deep.er) }} \
    ${{ has(inputs.config.no.no) }}', '${{ size(inputs) }}', '${{ run.id }} ${V} ${{ inputs.count }}']\n\
    - {id: b, command: x, condition: inputs.count > 1, args: ['${{ inputs.names[9] }}']}\n";

#[test]
fn expressions_see_inputs_with_their_types() {
    let compiled = compile(INPUTS, &[("who", "you".into())]);
    let inputs = json!({"count": 2, "names": ["a", "b c"], "who": "you", "config": {"deep": {"er": 1.5}}});
    assert_eq!(Value::Object(compiled.inputs.clone()), inputs);
    assert_eq!(compiled.vars, BTreeMap::from([("V".into(), "v".into())]));
    let args = |compiled: &Compiled| {
        let invocation = with_scope(&json!({}), compiled, |scope| compiled.invocation(StepIndex(0), scope));
        invocation.expect("it can start").with["args"].clone()
    };
    assert_eq!(args(&compiled), json!(["a", "b c", "x3", "youv", "true false", "4", "7 v 2"]));
    let values = [("who", "me".into()), ("count", "1".into()), ("names", Given::Value(json!([])))];
    let compiled = compile(INPUTS, &values);
    assert_eq!(args(&compiled), json!(["x2", "mev", "true false", "4", "7 v 1"]));
    let b = StepIndex(1);
    assert_eq!(with_scope(&json!({}), &compiled, |scope| compiled.condition(b, scope)), Ok(false));
    let error =
        with_scope(&json!({}), &compiled, |scope| compiled.invocation(b, scope)).expect_err("there is no item 9");
    insta::assert_snapshot!(error, @r#"`inputs.names[9]` could not be computed: Index out of bounds: Int(9) (where inputs.names is [])"#);
}

#[test]
fn an_evaluation_error_shows_the_inputs() {
    let error = |expression: &str| {
        let plan = format!(
            "plan_id: p\ninputs: {{a: {{type: integer, default: 1}}, b: {{type: string, default: x}}}}\nsteps: \
             [{{id: s, command: x, args: [\"${{{{ {expression} }}}}\"]}}]\n"
        );
        let compiled = compile(&plan, &[]);
        with_scope(&json!({}), &compiled, |scope| compiled.invocation(StepIndex(0), scope)).expect_err("it fails")
    };
    insta::assert_snapshot!(error("inputs.a + inputs.b"), @r#"`inputs.a + inputs.b` could not be computed: `add` does not go with int and string (where inputs.a is 1, inputs.b is "x")"#);
    insta::assert_snapshot!(error("inputs.map(name, inputs[name]).size() + 'x'"), @r#"`inputs.map(name, inputs[name]).size() + 'x'` could not be computed: `add` does not go with int and string (where inputs is {"a":1,"b":"x"})"#);
}

#[test]
fn a_preview_shows_what_is_settled() {
    let compiled = compile(INPUTS, &[("who", "you".into())]);
    let args = |step| compiled.preview(StepIndex(step)).expect("it can be shown").with["args"].clone();
    assert_eq!(args(0), json!(["a", "b c", "x3", "youv", "true false", "4", "${{ run.id }} v 2"]));
    assert_eq!(args(1), json!(["${{ inputs.names[9] }}"]));
    let nulls = "plan_id: p\ninputs: {n: {type: array, default: [null]}}\nsteps:\n- {id: a, command: x, \
        args: ['${{ inputs.n }}', 'a ${{ inputs.n[0] }}']}\n";
    let preview = compile(nulls, &[]).preview(StepIndex(0)).expect("it can be shown");
    assert_eq!(preview.with["args"], json!(["[null]", "a ${{ inputs.n[0] }}"]));
}

#[test]
fn inputs_are_bounded_together() {
    let plan = "plan_id: p\ninputs: {a: {type: string}, b: {type: string}}\nsteps: [{id: s, command: x}]\n";
    let half = "x".repeat(MAX_TEXT_BYTES / 2);
    assert!(load_with(plan, &given(&[("a", half.as_str().into()), ("b", "".into())])).is_ok());
    let report = load_with(plan, &given(&[("a", half.as_str().into()), ("b", half.as_str().into())]));
    insta::assert_snapshot!(report.expect_err("they are too long"), @r#"
    error[too_long]: the inputs have more than 4194304 bytes together
      = help: put the data into a file and give its path
    "#);
}

#[test]
fn a_run_reads_its_inputs_back_as_they_were_taken() {
    let first = compile(INPUTS, &[("who", "3".into()), ("count", "5".into())]);
    let vars = first.vars.iter().map(|(name, value)| (name.clone(), Given::from(value.clone())));
    let inputs = first.inputs.iter().map(|(name, value)| (name.clone(), Given::Value(value.clone())));
    let options = Options { vars: vars.chain(inputs).collect(), ..Options::default() };
    let again = load_with(INPUTS, &options).expect("it is the same plan");
    assert_eq!(again.inputs, first.inputs);
    assert!(again.warnings.is_empty(), "{:?}", again.warnings);
    let near = load_with(&INPUTS.replace("${V} ", "${cuont} "), &given(&[("who", "you".into())])).expect_err("a typo");
    assert!(near.contains("did you mean ${{ inputs.count }}?"), "{near}");
    assert_eq!(parse_var("count=5").expect("it is a pair"), ("count".into(), Given::Text("5".into())));
}

const DECLARED: &str = "plan_id: p\nsteps:\n\
    - id: a\n  command: x\n  outputs:\n    version: {type: string, pattern: '^v'}\n    \
    count: {type: integer, minimum: 1}\n    list: {type: array, default: [1]}\n\
    - {id: b, command: x}\n";

#[test]
fn steps_keep_to_the_outputs_that_they_declare() {
    let compiled = compile(DECLARED, &[]);
    let take = |step: u32, outputs: Value| {
        let outputs = outputs.as_object().expect("outputs are a map").clone();
        compiled.take_outputs(StepIndex(step), outputs).map(Value::Object)
    };
    assert_eq!(
        take(0, json!({"version": "v1", "count": "7", "list": "[]", "more": "8"})),
        Ok(json!({"version": "v1", "count": 7, "list": [], "more": "8"}))
    );
    assert_eq!(take(0, json!({"version": "v1", "count": 7.0})), Ok(json!({"version": "v1", "count": 7, "list": [1]})));
    assert_eq!(take(1, json!({"count": "7"})), Ok(json!({"count": "7"})));
    let outputs = json!({"version": "v1", "count": "12345678901234567890123", "list": [u64::MAX]});
    insta::assert_snapshot!(take(0, outputs).expect_err("it cannot be held"), @"`outputs.count`: `12345678901234567890123` is too large to be held exactly");
    let outputs = json!({"version": "v1", "count": u64::MAX});
    insta::assert_snapshot!(take(0, outputs).expect_err("it cannot be held"), @"`outputs.count` takes a whole number, and 18446744073709551615 is too large to be held exactly");
    let error = |outputs: Value| take(0, outputs).expect_err("they do not fit");
    insta::assert_snapshot!(error(json!({"version": 5, "list": "a,b"})), @r#"`outputs.version` takes text, and this is the number 5; the step set no output `count`, which it declares (a whole number); write count=… to $BATON_OUTPUT; `outputs.list` takes a list, and this is the text "a,b""#);
    insta::assert_snapshot!(error(json!({"version": "1", "count": "0"})), @r#"`outputs.version` takes text with the pattern `^v`, and this is the text "1"; `outputs.count` is at least 1, and this is 0"#);
}

const OUTPUTS: &str = "plan_id: p\nvars: {V: v}\ninputs: {n: {type: integer, default: 3}}\noutputs:\n  \
    url: 'http://${V}/${{ steps.b.outputs.path }}'\n  typed: ['${{ inputs.n }}', 1.5, null, {k: '${{ steps.a.outputs.list }}'}]\n  \
    how: '${{ steps.a.status }}'\n  plain: text\nsteps:\n- {id: a, command: x}\n\
    - {id: b, command: x, depends_on: [a]}\n";

#[test]
fn a_plan_comes_to_its_outputs() {
    let compiled = compile(OUTPUTS, &[]);
    assert!(compiled.has_outputs() && compiled.graph.has_outputs());
    let outputs = |steps: Value| with_scope(&steps, &compiled, |scope| compiled.outputs(scope)).map(Value::Object);
    let all = json!({"a": {"list": [1]}, "b": {"path": "p"}});
    assert_eq!(
        outputs(all),
        Ok(json!({"url": "http://v/p", "typed": [3, 1.5, null, {"k": [1]}], "how": "succeeded",
            "plain": "text"}))
    );
    insta::assert_snapshot!(outputs(json!({"a": {}, "b": {"path": null}})).expect_err("some are missing"), @"the output `url`: `steps.b.outputs.path` is null, and a text cannot hold that; give a default: `steps.b.outputs.path != null ? steps.b.outputs.path : '…'`; the output `typed`: `steps.a.outputs.list` could not be computed: there is no `list`; guard it with has() (where steps.a.outputs is {})");
    let plan = "plan_id: p\n\
        outputs: {o: \"x${{ steps['a-b'].outputs.n }} ${{ true ? null : 1 }}\"}\n\
        steps: [{id: a-b, command: x}]\n";
    let error = |compiled: &Compiled| {
        with_scope(&json!({"a-b": {"n": null}}), compiled, |scope| compiled.outputs(scope)).expect_err("it is null")
    };
    insta::assert_snapshot!(error(&compile(plan, &[])), @"the output `o`: `steps['a-b'].outputs.n` is null, and a text cannot hold that; give a default: `steps['a-b'].outputs.n != null ? steps['a-b'].outputs.n : '…'`");
    insta::assert_snapshot!(error(&compile(&plan.replace("x${{ steps['a-b'].outputs.n }}", "x"), &[])), @"the output `o`: `true ? null : 1` is null, and a text cannot hold that; give a default: `X != null ? X : '…'`");
    let plain = compile("plan_id: p\nsteps: [{id: a, command: x}]\n", &[]);
    assert!(!plain.has_outputs() && !plain.graph.has_outputs() && plain.graph.sla().is_none());
}

#[test]
fn a_slice_leaves_outputs_out() {
    let selection = Selection { only: vec!["a".into()], ..Selection::default() };
    let compiled = load_with(OUTPUTS, &Options { selection, ..Options::default() }).expect("outputs refuse no slice");
    let outputs = |steps: Value| with_scope(&steps, &compiled, |scope| compiled.outputs(scope)).map(Value::Object);
    assert_eq!(
        outputs(json!({"a": {"list": []}})),
        Ok(json!({"typed": [3, 1.5, null, {"k": []}], "how": "succeeded", "plain": "text"}))
    );
}

#[test]
fn outputs_are_bounded_together() {
    let plan = "plan_id: p\noutputs: {a: '${{ steps.s.outputs.t }}', b: '${{ steps.s.outputs.t }}'}\n\
        steps: [{id: s, command: x}]\n";
    let compiled = compile(plan, &[]);
    let half = json!({"s": {"t": "x".repeat(MAX_TEXT_BYTES / 2)}});
    let error = with_scope(&half, &compiled, |scope| compiled.outputs(scope)).expect_err("they are too long");
    insta::assert_snapshot!(error, @r#"the output `b`: with those before it, it has more than 4194304 bytes"#);
}

#[test]
fn a_service_level_reaches_the_graph() {
    let sla =
        |text: &str| compile(&format!("plan_id: p\nsla: {text}\nsteps: [{{id: a, command: x}}]\n"), &[]).graph.sla();
    assert_eq!(sla("90"), Some(Millis(90_000)));
    assert_eq!(sla("0.25"), Some(Millis(250)));
    assert_eq!(sla("1h30m"), Some(Millis(5_400_000)));
    assert_eq!(sla("1d2h3m4s"), Some(Millis(93_784_000)));
    assert_eq!(sla("3d"), Some(Millis(259_200_000)));
    assert_eq!(sla("~"), None);
}

#[test]
fn a_map_of_any_inputs_is_empty() {
    let compiled =
        compile("plan_id: p\ninputs:\nfinally:\noutputs: {}\nsteps: [{id: a, command: x, outputs: ~}]\n", &[]);
    assert_eq!(compiled.inputs, Map::new());
    assert!(!compiled.has_outputs() && !compiled.graph.has_finally());
}

/// What was recorded is a fact: also where this version would not take it any more.
#[test]
fn what_was_recorded_is_not_judged_again() {
    let text = "plan_id: p\ninputs: {n: {type: integer, maximum: 3}}\nsteps:\n- {id: a, command: x, args: ['${MISSING}']}\n\
                - {id: b, command: x, args: ['${{ inputs.n }}'], depends_on: [a]}\n";
    let source = baton_lang::Source::new("plan.yaml", text);
    let plan = baton_lang::parse(&source, &BTreeMap::new()).plan.expect("it is a plan");
    let inputs = json!({"n": 4}).as_object().expect("a map").clone();
    let recorded =
        baton_lang::Recorded { inputs: inputs.clone(), kept: vec![(0, 0)], ..baton_lang::Recorded::default() };
    let compiled = plan.compile_recorded(recorded).expect("it could begin once");
    assert_eq!((compiled.inputs, compiled.kept), (inputs, vec![(0, 0)]));
}
