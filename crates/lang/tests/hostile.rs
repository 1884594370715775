//! Texts that mean harm: whatever the bytes, an answer comes soon, and never a panic.
#![expect(clippy::disallowed_methods, reason = "these tests bound the time that reading takes")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use baton_core::{RunId, RunStatus, StepStatus};
use baton_lang::{
    Format, Loaded, Options, Scope, Selection, Source, check_expression, load, parse_var_file, render_all,
};
use serde_json::{Map, Value, json};

/// Far more than any of these needs on a slow machine, far less than anything that is not linear would take.
const SOON: Duration = Duration::from_secs(20);
/// How many steps a large plan has here; without optimisation, reading is some twenty times slower.
const LARGE: usize = if cfg!(debug_assertions) { 4_000 } else { 100_000 };

/// Everything that can be done with a text, short of running it.
fn exercise(name: &str, text: &str, format: Format) -> Loaded {
    let started = Instant::now();
    let source = Source { name: name.to_owned(), text: text.to_owned(), format };
    let catalog: BTreeMap<String, Value> = BTreeMap::from([("act".to_owned(), json!({"type": "object"}))]);
    let selection = Selection { from: vec!["a".into()], ..Selection::default() };
    let loaded = load(&source, &catalog, &Options::default());
    render_all(&loaded.problems, &source, true);
    loaded.problems.iter().for_each(|problem| drop(problem.to_json(&source)));
    drop(load(&source, &catalog, &Options { selection, ..Options::default() }));
    if let Some(compiled) = &loaded.compiled {
        let scope = Scope {
            run: RunId(1),
            plan_dir: "/p",
            cwd: "/c",
            kept_steps_have_run: false,
            status: &|_| StepStatus::Succeeded,
            outputs: &|_| None,
            run_status: Some(RunStatus::Failed),
        };
        let _ = compiled.outputs(&scope);
        for step in compiled.graph.steps().take(100) {
            let _ = compiled.invocation(step, &scope);
            let _ = compiled.condition(step, &scope);
            let _ = compiled.preview(step);
            let _ = compiled.take_outputs(step, Map::from_iter([("n".to_owned(), json!("1"))]));
            let _ = (compiled.name(step), compiled.tags(step), compiled.artifacts(step), compiled.is_dynamic(step));
        }
    }
    assert!(started.elapsed() < SOON, "{name} took {:?}", started.elapsed());
    loaded
}

#[test]
fn deep_nesting_ends_quickly() {
    const DEEP: usize = 100_000;
    let stairs = |line: &dyn Fn(usize) -> String| (0..2000).map(line).collect::<String>();
    let in_with = |text: String| format!("plan_id: p\nsteps:\n- id: a\n  uses: act\n  with: {text}");
    let texts = [
        "- ".repeat(DEEP),
        "? ".repeat(DEEP),
        "[".repeat(DEEP),
        "{".repeat(DEEP),
        "{a: ".repeat(DEEP),
        "[[]]: ".repeat(DEEP),
        "- - [{".repeat(DEEP),
        in_with("[".repeat(DEEP)),
        in_with("- ".repeat(DEEP)),
        in_with(format!("{}{}", "[".repeat(62), "]".repeat(62))),
        stairs(&|at| format!("{}-\n", " ".repeat(at))),
        stairs(&|at| format!("{}a:\n", " ".repeat(at))),
        stairs(&|at| format!("{}? a\n", " ".repeat(at))),
    ];
    for (at, text) in texts.iter().enumerate() {
        for format in [Format::Yaml, Format::Json] {
            let loaded = exercise(&format!("nesting {at}"), text, format);
            assert!(loaded.compiled.is_none(), "nesting {at} is no plan");
            assert!(loaded.problems.len() < 10, "nesting {at}: {} problems", loaded.problems.len());
        }
    }
    let json = format!("{}{}", "{\"metadata\":".repeat(DEEP), "}".repeat(DEEP));
    assert!(exercise("json maps", &json, Format::Json).compiled.is_none());
    let fits = in_with(format!("{{a: {}{}}}", "[".repeat(59), "]".repeat(59)));
    assert!(exercise("just deep enough", &fits, Format::Yaml).compiled.is_some());
}

#[test]
fn repetition_ends_quickly() {
    const MANY: usize = LARGE;
    let lines = |line: &dyn Fn(usize) -> String| (0..MANY).map(line).collect::<String>();
    let plan = |inner: String| format!("plan_id: p\nmetadata: {{{inner}}}\nsteps: [{{id: a, command: b}}]");
    let texts = [
        format!("a: &a [x]\n{}", lines(&|at| format!("b{at}: &b{at} [*a,*a,*a,*a]\n"))),
        lines(&|at| format!("- &a{at} x\n")),
        "!a ".repeat(MANY),
        "---\n".repeat(MANY),
        "%TAG ! tag:x\n".repeat(MANY),
        ": ".repeat(MANY),
        "*".repeat(MANY),
        "'".repeat(MANY),
        ">\n".repeat(MANY),
        "# a\n".repeat(MANY),
        format!("plan_id: \"{}", "a\n ".repeat(MANY)),
        format!("plan_id: |\n{}", "  a\n".repeat(MANY)),
        format!("[{}", "\"a\":".repeat(MANY)),
        format!("[{}", "? ".repeat(MANY)),
        plan(lines(&|at| format!("a{at}: 1,"))),
        plan("a: 1,".repeat(MANY)),
        plan(lines(&|at| format!("ü{at}: ö,"))),
    ];
    for (at, text) in texts.iter().enumerate() {
        exercise(&format!("repetition {at}"), text, Format::Yaml);
        exercise(&format!("repetition {at}"), text, Format::Json);
    }
}

#[test]
fn large_plans_with_every_step_wrong_end_quickly() {
    const MANY: usize = LARGE;
    let plan = |step: &dyn Fn(usize) -> String| {
        format!("plan_id: p\nsteps:\n{}", (0..MANY).map(|at| format!("- id: s{at}\n{}", step(at))).collect::<String>())
    };
    exercise("unknown", &plan(&|at| format!("  comand: x\n  depends_on: [x{at}]\n")), Format::Yaml);
    exercise("ring", &plan(&|at| format!("  command: x\n  depends_on: [s{}]\n", (at + 1) % MANY)), Format::Yaml);
    let undefined = plan(&|at| format!("  command: x\n  args: ['${{X{at}}}', '${{{{ vars.y{at} }}}}']\n"));
    exercise("undefined", &undefined, Format::Yaml);
    exercise(
        "consumes",
        &plan(&|at| format!("  command: x\n  consumes: [a{at}]\n  provides: [b{at}]\n")),
        Format::Yaml,
    );
    let fallback = "  command: x\n  on_failure: fallback_step\n  fallback_step";
    exercise("fallbacks", &plan(&|at| format!("{fallback}: s{}\n", (at + 1) % MANY)), Format::Yaml);
    let vars: String = (0..MANY).map(|at| format!("  V{at}: ${{V{}}}\n", (at + 1) % MANY)).collect();
    exercise("variables", &format!("plan_id: p\nvars:\n{vars}steps: [{{id: a, command: b}}]"), Format::Yaml);
}

#[test]
fn variables_cannot_grow_without_bound() {
    let vars: String = (0..50).map(|at| format!("  V{at}: ${{V{0}}}${{V{0}}}\n", at + 1)).collect();
    let plan = format!("plan_id: p\nvars:\n{vars}  V50: end\nsteps: [{{id: a, command: '${{V0}}'}}]");
    let loaded = exercise("doubling", &plan, Format::Yaml);
    assert!(loaded.problems.iter().any(|problem| problem.code == "too_long"));
}

#[test]
fn a_large_plan_is_read_and_joined() {
    let steps: String = (0..LARGE)
        .map(|at| {
            let after = if at == 0 { String::new() } else { format!("\n  depends_on: [s{}]", at - 1) };
            format!("- id: s{at}\n  command: echo\n  args: ['${{A}}', 'step {at}']\n  condition: steps.s0.status == ''{after}\n")
        })
        .collect();
    // The first step cannot ask for its own result.
    let steps = steps.replacen("  condition: steps.s0.status == ''\n", "", 1);
    let loaded = exercise("many", &format!("plan_id: p\nvars: {{A: a}}\nsteps:\n{steps}"), Format::Yaml);
    let compiled = loaded.compiled.expect("the plan is fine");
    assert_eq!(compiled.graph.len(), LARGE);
}

#[test]
fn schemas_end_quickly() {
    const MANY: usize = LARGE;
    let lines = |line: &dyn Fn(usize) -> String| (0..MANY).map(line).collect::<String>();
    let plan = |inputs: String| format!("plan_id: p\ninputs: {{{inputs}}}\nsteps: [{{id: a, command: b}}]\n");
    let judge = |name: &str, inputs: String, is_good: bool| {
        let loaded = exercise(name, &plan(inputs), Format::Yaml);
        let report = || loaded.problems.iter().take(3).map(|problem| problem.message.as_str()).collect::<Vec<_>>();
        assert_eq!(loaded.compiled.is_some(), is_good, "{name}: {:?}", report());
    };
    judge("many", lines(&|at| format!("i{at}: {{type: integer, default: {at}}},")), true);
    judge("missing", lines(&|at| format!("i{at}: {{type: integer}},")), false);
    judge("unknown keywords", format!("a: {{type: string, {}}}", lines(&|at| format!("k{at}: 1,"))), false);
    let nested = |depth: usize| {
        format!("a: {{type: object, {}x: {{}}{}}}", "properties: {x: {".repeat(depth), "}}".repeat(depth))
    };
    judge("nested too deep", nested(100_000), false);
    judge("nested", nested(29).replace("x: {}", "properties: {}") + ",", false);
    let values = lines(&|at| format!("{at},"));
    judge("choices", format!("a: {{type: integer, enum: [{values}], default: 7}}"), true);
    let listed = format!("items: {{enum: [{values}]}}, uniqueItems: true");
    judge("choices of items", format!("a: {{type: array, {listed}, default: [{values}]}}"), true);
    let doubled = format!("a: {{type: array, uniqueItems: true, default: [{values}{values}]}}");
    judge("doubled items", doubled, false);
    let needed = lines(&|at| format!("f{at},"));
    let maps = "{},".repeat(MANY);
    judge("required", format!("a: {{type: array, items: {{required: [{needed}]}}, default: [{maps}]}}"), false);
    let fields = lines(&|at| format!("f{at}: {{type: integer}},"));
    let map = lines(&|at| format!("f{at}: {at},"));
    let object = format!("type: object, properties: {{{fields}}}, required: [{needed}], additionalProperties: false");
    judge("properties", format!("a: {{{object}, default: {{{map}}}}}"), true);
    judge(
        "examples",
        lines(&|at| format!("i{at}: {{type: integer, enum: [a, b], examples: [x, y], default: z}},")),
        false,
    );
}

#[test]
fn patterns_end_quickly() {
    let judge = |pattern: &str, text: &str| {
        let plan = json!({"plan_id": "p", "inputs": {"a": {"type": "string", "pattern": pattern, "default": text}},
            "steps": [{"id": "s", "command": "c"}]});
        let loaded =
            exercise(&format!("pattern {}", &pattern[..pattern.len().min(20)]), &plan.to_string(), Format::Json);
        loaded.compiled.is_some()
    };
    let text = "a".repeat(if cfg!(debug_assertions) { 4_000 } else { 200_000 });
    assert!(judge("(a*)*$", &text) && judge("(a|aa)+$", &text) && judge("(a?){100}a{100}", &text));
    assert!(!judge("(a*)*b", &text) && !judge("(x+x+)+y", &text));
    let refused = [
        "(((a{99}){99}){99}){99}",
        "((a{0}){99999}){99999}",
        "(?:(?:){99999}){99999}",
        "a{4294967295}",
        "[",
        "\\",
        "(?P<",
    ];
    assert_eq!(refused.map(|pattern| judge(pattern, "a")), [false; 7]);
    assert!(!judge(&"(".repeat(1000), "") && !judge(&"b".repeat(1025), "") && judge(&"b?".repeat(512), ""));
    let large = "a|".repeat(500) + "a";
    assert!(judge("a", &"a".repeat(1 << 20)) && judge(&large, "a") && !judge(&large, &"a".repeat(1 << 20)));
    let many = |count: usize| {
        let inputs: String = (0..count)
            .map(|at| format!("i{at}: {{type: string, pattern: 'a{{50}}', default: {}}},", "a".repeat(50)))
            .collect();
        exercise(
            "many patterns",
            &format!("plan_id: p\ninputs: {{{inputs}}}\nsteps: [{{id: a, command: b}}]\n"),
            Format::Yaml,
        )
    };
    assert!(many(1000).compiled.is_some() && many(1001).compiled.is_none());
}

#[test]
fn outputs_and_what_runs_last_end_quickly() {
    const MANY: usize = LARGE;
    let lines = |line: &dyn Fn(usize) -> String| (0..MANY).map(line).collect::<String>();
    let steps = lines(&|at| {
        format!(
            "- {{id: s{at}, command: x, outputs: {{o: {{type: string}}}}, args: ['${{{{ steps.s{at}.outputs.p }}}}']}}\n"
        )
    });
    exercise("wrong outputs", &format!("plan_id: p\nsteps:\n{steps}"), Format::Yaml);
    let chain = lines(&|at| {
        format!(
            "- {{id: s{at}, command: x, outputs: {{o: {{type: string}}}}, on_failure: fallback_step, fallback_step: s{}}}\n",
            at + 1
        )
    });
    let outputs = lines(&|at| format!("o{at}: '${{{{ steps.s{at}.outputs.p }}}}',"));
    exercise(
        "chain",
        &format!("plan_id: p\noutputs: {{{outputs}}}\nsteps:\n{chain}- {{id: s{MANY}, command: x}}\n"),
        Format::Yaml,
    );
    let last = lines(&|at| {
        format!("- {{id: f{at}, command: x, consumes: [r], condition: steps.s{at}.status == run.status}}\n")
    });
    let first = lines(&|at| format!("- {{id: s{at}, command: x, provides: [r]}}\n"));
    let loaded = exercise("finally", &format!("plan_id: p\nfinally:\n{last}steps:\n{first}"), Format::Yaml);
    assert_eq!(loaded.compiled.map(|compiled| compiled.graph.len()), Some(2 * MANY), "{:?}", loaded.problems);
    let crossed = lines(&|at| format!("- {{id: f{at}, command: x, depends_on: [s{at}]}}\n"));
    exercise("crossed", &format!("plan_id: p\nfinally:\n{crossed}steps:\n{first}"), Format::Yaml);
    let named = lines(&|at| format!("'${{{{ inputs.i{at} }}}} ${{i{at}}} ${{j}}',"));
    let inputs = lines(&|at| format!("i{at}: {{type: string, default: ''}},"));
    exercise(
        "named",
        &format!("plan_id: p\ninputs: {{{inputs}}}\nsteps: [{{id: a, command: x, args: [{named}]}}]"),
        Format::Yaml,
    );
}

/// An expression that grows with a number.
type Shape = Box<dyn Fn(usize) -> String + Send>;

/// Expressions stay within the stack of a small thread, however they are built.
#[test]
fn expressions_cannot_exhaust_the_stack() {
    let shapes: Vec<(&str, Shape)> = vec![
        ("sum", Box::new(|n| vec!["1"; n].join("+"))),
        ("not", Box::new(|n| format!("{}true", "!".repeat(n)))),
        ("not minus", Box::new(|n| format!("{}1", "!-".repeat(n)))),
        ("minus", Box::new(|n| format!("{}1", "- ".repeat(n)))),
        ("fields", Box::new(|n| format!("vars{}", ".a".repeat(n)))),
        ("indexes", Box::new(|n| format!("vars{}", "[0]".repeat(n)))),
        ("calls", Box::new(|n| format!("'a'{}", ".size()".repeat(n)))),
        ("parentheses", Box::new(|n| format!("{}1{}", "(".repeat(n), ")".repeat(n)))),
        ("lists", Box::new(|n| format!("{}1{}", "[".repeat(n), "]".repeat(n)))),
        ("maps", Box::new(|n| format!("{}1{}", "{'a':".repeat(n), "}".repeat(n)))),
        ("ternaries", Box::new(|n| format!("{}2", "true ? 1 : ".repeat(n)))),
        ("ternaries inside", Box::new(|n| format!("{}1{}", "true ? ".repeat(n), " : 2".repeat(n)))),
        ("ternaries with and", Box::new(|n| format!("{}true", "true && true ? true : ".repeat(n)))),
        ("and", Box::new(|n| vec!["true"; n].join("&&"))),
        ("or and", Box::new(|n| vec!["true&&false"; n].join("||"))),
        ("equals", Box::new(|n| vec!["1"; n].join("=="))),
        ("in", Box::new(|n| vec!["1"; n].join(" in "))),
        ("macros", Box::new(|n| format!("{}1{}", "[1].map(x,".repeat(n), ")".repeat(n)))),
        ("has", Box::new(|n| format!("has(vars{})", ".a".repeat(n)))),
        ("open", Box::new(|n| "(".repeat(n))),
        ("open lists", Box::new(|n| "[(".repeat(n))),
        ("question marks", Box::new(|n| "?".repeat(n))),
        ("dots", Box::new(|n| ".".repeat(n))),
        ("quotes", Box::new(|n| "'".repeat(n))),
        ("raw quotes", Box::new(|n| r"r'\'!(".repeat(n))),
        ("words", Box::new(|n| "a ".repeat(n))),
        ("commas", Box::new(|n| format!("[{}]", "1,".repeat(n)))),
        ("messages", Box::new(|n| "a{b:".repeat(n))),
    ];
    let small = std::thread::Builder::new().stack_size(2 << 20);
    #[expect(clippy::disallowed_methods, reason = "the stack under test is a thread's")]
    let worker = small.spawn(move || {
        for (name, shape) in &shapes {
            for count in [1, 2, 7, 15, 16, 17, 30, 31, 32, 33, 62, 63, 64, 65, 100, 500, 1000, 2000, 4000] {
                let expression = shape(count);
                let started = Instant::now();
                let checked = check_expression(&expression);
                if checked.is_ok() {
                    let plan = json!({"plan_id": "p", "steps": [
                        {"id": "a", "command": "x", "args": [format!("${{{{ {expression} }}}}")]}]});
                    exercise(name, &plan.to_string(), Format::Json);
                }
                assert!(started.elapsed() < SOON, "{name} × {count} took {:?}", started.elapsed());
            }
        }
    });
    worker.expect("the thread starts").join().expect("no expression panics");
}

/// A small generator (SplitMix64), so that a failing seed can be run again.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

const YAML: &str = "plan_id: p\nvars: {A: a, B: '${A}'}\nsla: 1h30m\ninputs: {n: {type: integer, minimum: 1, default: 2}, \
    l: {type: array, items: {type: string, pattern: '^[a-z]+$'}, uniqueItems: true, default: [a, b]}}\n\
    outputs: {o: ['${{ inputs.l }}', '${{ steps.a.outputs.n }}']}\n\
    finally: [{id: z, command: x, condition: run.status != ''}]\n\
    globals: {env: {X: '${B:-c}'}}\nlocks: ['m_${A}']\nsteps:\n\
    - id: a\n  command: echo\n  outputs: {n: {type: [integer, 'null'], default: null}}\n  args: ['${A}', 5, \"\\u00fc\\n\"]\n  on_failure: fallback_step\n  fallback_step: f\n\
    - id: b-c\n  shell: true\n  command: |\n    echo ${A}\n  depends_on: [a]\n  condition: steps.a.status == 'x'\n\
    - {id: d, uses: act, with: {k: [1, '${{ steps[''b-c''].outputs.n }}']}, depends_on: [b-c], consumes: [r]}\n\
    - {id: f, command: x, accept_exit_codes: [0, 1], provides: [r], tags: [t]}\n";
const JSON: &str = r#"{"plan_id": "p", "vars": {"A": "a", "B": "${A}"}, "steps": [
    {"id": "a", "command": "echo", "args": ["${A}", 5, "\u00fc\ud83d\ude00"], "retries": 2, "timeout_sec": 1.5e1},
    {"id": "b", "command": "x", "depends_on": ["a"], "condition": "has(steps.a.outputs.x) ? true : 1 + 2 == 3",
     "env": {"K": "${{ [1,2].map(x, x * 2).exists(x, x == 4) }}"}, "ui_hints": {"group": "g", "weight": 2}}]}"#;
const EXPRESSION: &str =
    "steps['b-c'].outputs.n.map(x, x + 1).exists(x, x > 2) && has(vars.A) ? {'a': [1, r'\\d']} : b'x'";
const PIECES: &[&str] = &[
    "${",
    "}",
    "${{",
    "}}",
    "'",
    "\"",
    ":",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "!t ",
    "#",
    "|",
    ">",
    "\\",
    "\\u",
    "\\ud800",
    "null",
    "~",
    "true",
    "-1",
    "1e999",
    "0x1",
    ".inf",
    "ü",
    "\u{feff}",
    "\0",
    "\t",
    "---",
    "...",
    "%",
    "@",
    "`",
    "<<: ",
    "?",
    "steps.",
    "vars.",
    "has(",
    ".map(x,",
    "&&",
    "!",
    "depends_on",
    "fallback_step",
    "inputs",
    "outputs",
    "finally",
    "run.status",
    "properties: {a: ",
    "enum: [",
    "default: ",
    "type: ",
];

fn mutate(dice: &mut Dice, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..1 + dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(7) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = dice.next() as u8,
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => {
                let end = (at + dice.below(40)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = dice.below(bytes.len() + 1);
                drop(bytes.splice(to..to, part));
            }
            4 => {
                let end = (at + dice.below(40)).min(bytes.len());
                drop(bytes.drain(at..end));
            }
            _ => {
                let piece = PIECES[dice.below(PIECES.len())];
                drop(bytes.splice(at..at, piece.bytes()));
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn no_text_makes_it_panic() {
    const TIME: Duration = Duration::from_secs(2);
    let started = Instant::now();
    for seed in 0.. {
        if started.elapsed() > TIME {
            break;
        }
        let mut dice = Dice(seed);
        let mut subject = String::new();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (text, format) = if dice.below(2) == 0 { (YAML, Format::Yaml) } else { (JSON, Format::Json) };
            subject = mutate(&mut dice, text);
            exercise("mutation", &subject, format);
            let _ = parse_var_file(["v.yaml", "v.json", "v.env"][dice.below(3)], &subject);
            subject = mutate(&mut dice, EXPRESSION);
            let _ = check_expression(&subject);
            let plan = json!({"plan_id": "p", "vars": {"A": "a"}, "steps": [{"id": "b-c", "command": "x"},
                {"id": "s", "command": "x", "depends_on": ["b-c"], "args": [format!("${{{{{subject}}}}}")]}]});
            exercise("expression", &plan.to_string(), Format::Json);
            subject = (0..dice.below(60)).map(|_| PIECES[dice.below(PIECES.len())]).collect();
            exercise("pieces", &subject, Format::Yaml);
            exercise("pieces", &subject, Format::Json);
            let noise: Vec<u8> = (0..dice.below(200)).map(|_| dice.next() as u8).collect();
            if let Ok(source) = Source::from_bytes("noise", noise) {
                exercise("noise", &source.text, source.format);
            }
        }));
        assert!(result.is_ok(), "seed {seed} panics on {subject:?}");
    }
}

#[test]
fn the_texts_that_are_mutated_are_plans() {
    let yaml = YAML.replace("provides: [r], ", "").replace(", consumes: [r]", "");
    let loaded = exercise("yaml", &yaml, Format::Yaml);
    assert!(loaded.compiled.is_some(), "{:?}", loaded.problems);
    let loaded = exercise("json", JSON, Format::Json);
    assert!(loaded.compiled.is_some(), "{:?}", loaded.problems);
}
