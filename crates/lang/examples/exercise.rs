//! Does with each text that it is given everything that can be done with a plan, short of running it. `cargo xtask
//! fuzz` talks to it: a letter (`j` JSON, `y` YAML, `e` expression), a length in 4 bytes, and the text; for each it
//! answers with one letter (`g` good, `b` bad).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use baton_core::{RunId, RunStatus, StepStatus};
use baton_lang::{Format, Options, Scope, Source, check_expression, load, parse_var_file, render_all};
use serde_json::{Map, Value, json};

/// Steps of which everything is computed; in a plan that repeats itself the rest is no different.
const STEPS: usize = 200;

fn main() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut header = [0; 5];
    while input.read_exact(&mut header).is_ok() {
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let mut bytes = vec![0; length];
        input.read_exact(&mut bytes)?;
        let is_good = match header[0] {
            b'e' => expression(&String::from_utf8_lossy(&bytes)),
            b'j' => plan(bytes, Format::Json),
            _ => plan(bytes, Format::Yaml),
        };
        output.write_all(if is_good { b"g" } else { b"b" })?;
        output.flush()?;
    }
    Ok(())
}

fn plan(bytes: Vec<u8>, format: Format) -> bool {
    let name = if format == Format::Json { "plan.json" } else { "plan.yaml" };
    // What is not UTF-8 is refused before it is read.
    let Ok(source) = Source::from_bytes(name, bytes) else { return false };
    let source = Source { format, ..source };
    let _ = parse_var_file(name, &source.text);
    let actions: BTreeMap<String, Value> = BTreeMap::from([("act".to_owned(), json!({"type": "object"}))]);
    let loaded = load(&source, &actions, &Options::default());
    render_all(&loaded.problems, &source, true);
    for problem in &loaded.problems {
        problem.to_json(&source);
    }
    let Some(compiled) = loaded.compiled else { return false };
    let outputs: Map<String, Value> = Map::from_iter([
        ("size".to_owned(), json!("7")),
        ("list".to_owned(), json!(["a", 1, null])),
        ("deep".to_owned(), json!({"x": {"y": 1.5}})),
    ]);
    let scope = Scope {
        run: RunId(1),
        plan_dir: "/plan",
        cwd: "/here",
        kept_steps_have_run: false,
        status: &|_| StepStatus::Succeeded,
        outputs: &|_| Some(&outputs),
        run_status: Some(RunStatus::Succeeded),
    };
    for step in compiled.graph.steps().take(STEPS) {
        let _ = compiled.condition(step, &scope);
        let _ = compiled.invocation(step, &scope);
        let _ = compiled.preview(step);
        let _ = (compiled.name(step), compiled.tags(step), compiled.artifacts(step));
        let _ = compiled.take_outputs(step, outputs.clone());
    }
    let _ = compiled.outputs(&scope);
    true
}

/// An expression alone, and as a condition and an argument of a step, where it is evaluated.
fn expression(text: &str) -> bool {
    let is_good = check_expression(text).is_ok();
    let plan_text = json!({
        "plan_id": "p",
        "vars": {"name": "value"},
        "steps": [
            {"id": "a", "command": "a"},
            {"id": "b", "command": "b", "depends_on": ["a"], "condition": text},
            {"id": "c", "command": "c", "depends_on": ["a"], "args": [format!("${{{{ {text} }}}}")]},
        ],
    });
    plan(plan_text.to_string().into_bytes(), Format::Json);
    is_good
}
