//! What comes from the table of fields, and files of variables.

use std::collections::BTreeMap;

use baton_lang::{Given, Options, Origin, Source, load, parse_var, parse_var_file, reference, schema};
use serde_json::{Value, json};

/// A value that a schema allows.
fn sample(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds[0].as_str(),
        kind => kind.as_str(),
    };
    match kind {
        Some("string") => json!("x"),
        Some("boolean") => json!(true),
        Some("integer" | "number") => json!(1),
        Some("array") => json!([sample(&schema["items"])]),
        _ => json!({}),
    }
}

/// The text of a plan in which one field of a level has this value.
fn plan_with(level: &str, key: &str, value: &Value) -> String {
    let mut plan = json!({"plan_id": "p", "globals": {}, "steps": [
        {"id": "y", "command": "true", "provides": ["x"]},
        {"id": "z", "command": "true", "depends_on": ["y"], "ui_hints": {}},
        {"id": "x", "command": "true"},
    ]});
    match level {
        "plan" if key == "steps" => return plan.to_string(),
        "plan" if key == "finally" && value.as_array().is_some_and(|steps| !steps.is_empty()) => {
            plan[key] = json!([{"id": "f", "command": "true"}]);
        }
        "plan" => plan[key] = value.clone(),
        "globals" => plan["globals"][key] = value.clone(),
        "hints" => plan["steps"][1]["ui_hints"][key] = value.clone(),
        _ => {
            let step = &mut plan["steps"][1];
            step[key] = value.clone();
            match key {
                "uses" | "with" => {
                    step["uses"] = json!("x");
                    step.as_object_mut().expect("a step is a map").remove("command");
                }
                "fallback_step" => step["on_failure"] = json!("fallback_step"),
                "consumes" => step["depends_on"] = json!(["y"]),
                "lock_wait_timeout_sec" => step["locks"] = json!(["l"]),
                "condition" => step[key] = json!("true"),
                _ => {}
            }
        }
    }
    plan.to_string()
}

#[test]
fn everything_that_the_schema_allows_is_read() {
    let schema = schema();
    let step = &schema["properties"]["steps"]["items"];
    let levels = [
        ("plan", &schema),
        ("globals", &schema["properties"]["globals"]),
        ("step", step),
        ("hints", &step["properties"]["ui_hints"]),
    ];
    let catalog = BTreeMap::from([("x".to_owned(), json!({"type": "object"}))]);
    let mut fields = 0;
    for (level, schema) in levels {
        assert_eq!(schema["additionalProperties"], json!(false));
        for (key, field) in schema["properties"].as_object().expect("there are fields") {
            let is_required = schema["required"].as_array().is_some_and(|names| names.contains(&json!(key)));
            let mut values = vec![sample(field)];
            if !is_required && key != "command" {
                values.push(Value::Null);
            }
            if let Some(default) = field.get("default").filter(|_| key != "on_failure") {
                values.push(default.clone());
            }
            for value in values {
                let value = if key == "id" { json!("w") } else { value };
                let text = plan_with(level, key, &value);
                // Null takes a field away, and with it the reason why another one stands there.
                if value.is_null() && matches!(key.as_str(), "uses" | "fallback_step") {
                    continue;
                }
                let loaded = load(&Source::new("plan.json", &text), &catalog, &Options::default());
                assert!(loaded.compiled.is_some(), "{level}.{key} = {value}: {:?}", loaded.problems);
                fields += 1;
            }
        }
    }
    assert!(fields > 80, "the schema has only {fields} fields and defaults");
}

#[test]
fn every_field_stands_in_the_reference() {
    let reference = reference();
    let schema = schema();
    for level in [&schema, &schema["properties"]["globals"], &schema["properties"]["steps"]["items"]] {
        for key in level["properties"].as_object().expect("there are fields").keys() {
            assert!(reference.contains(&format!("| `{key}` |")), "{key} is missing");
        }
    }
    insta::assert_snapshot!(reference.lines().take(8).collect::<Vec<_>>().join("\n"), @r#"
    ## Plan

    | field | takes | default | meaning |
    |---|---|---|---|
    | `plan_id` | a name | required | The plan's name: letters, digits, `_`, `-` and `.`. |
    | `version` | text, a number, or true or false |  | The plan's version, for people. |
    | `description` | text |  | What the plan is for. |
    | `metadata` | a map | `{}` | Facts for people: `project`, `phase_id`, `created_by`, `created_at`, `tags`, … |
    "#);
}

#[test]
fn every_keyword_of_schemas_stands_in_the_reference_and_is_read() {
    let reference = reference();
    let schema = schema();
    let keywords = schema["$defs"]["schema"]["properties"].as_object().expect("there are keywords");
    assert!(keywords.len() > 20, "{} keywords", keywords.len());
    for (key, takes) in keywords {
        assert!(reference.contains(&format!("| `{key}` |")), "{key} is missing");
        let value = match key.as_str() {
            "default" | "const" => json!("x"),
            "enum" | "examples" | "required" => json!(["x"]),
            "type" => json!("string"),
            "additionalProperties" => json!({}),
            _ => sample(takes),
        };
        let (kind, default) = match key.as_str() {
            "minimum" | "maximum" => ("integer", json!(1)),
            "exclusiveMinimum" => ("number", json!(1.5)),
            "exclusiveMaximum" => ("number", json!(0.5)),
            "minItems" | "maxItems" | "uniqueItems" | "items" => ("array", json!(["x"])),
            "required" | "properties" | "additionalProperties" => ("object", json!({"x": {}})),
            _ => ("string", json!("x")),
        };
        let mut input = json!({"type": kind, "default": default});
        input[key] = value;
        let plan = json!({"plan_id": "p", "inputs": {"a": input}, "steps": [{"id": "s", "command": "c"}]});
        let source = Source::new("p.json", plan.to_string());
        let loaded = load(&source, &BTreeMap::new(), &Options::default());
        assert!(loaded.compiled.is_some(), "{plan}: {:?}", loaded.problems);
    }
}

#[test]
fn the_defaults_in_the_table_are_the_ones_that_hold() {
    let text = "plan_id: p\nsteps: [{id: a, command: x}]\n";
    let plain =
        load(&Source::new("p.yaml", text), &BTreeMap::new(), &Options::default()).compiled.expect("it is a plan");
    let schema = schema();
    let mut step = json!({"id": "a", "command": "x"});
    for (key, field) in schema["properties"]["steps"]["items"]["properties"].as_object().expect("there are fields") {
        if let Some(default) = field.get("default").filter(|default| !default.is_null() && key != "with") {
            step[key] = default.clone();
        }
    }
    let globals: serde_json::Map<String, Value> = schema["properties"]["globals"]["properties"]
        .as_object()
        .expect("there are fields")
        .iter()
        .map(|(key, field)| (key.clone(), field["default"].clone()))
        .collect();
    let text = json!({"plan_id": "p", "globals": globals, "steps": [step]}).to_string();
    let spelled = load(&Source::new("p.json", text), &BTreeMap::new(), &Options::default());
    let spelled = spelled.compiled.unwrap_or_else(|| panic!("{:?}", spelled.problems));
    let first = baton_core::StepIndex(0);
    assert_eq!(plain.graph.policy(first), spelled.graph.policy(first));
    assert_eq!(plain.graph.policy(first), &baton_core::Policy::default());
    assert_eq!(plain.preview(first), spelled.preview(first));
    assert_eq!(plain.graph.max_concurrency(), spelled.graph.max_concurrency());
    assert_eq!(plain.weight(first), spelled.weight(first));
}

#[test]
fn variables_are_read_from_files() {
    let pairs = |text: &str, name: &str| parse_var_file(name, text).map_err(|error| error.to_string());
    let expected = |file: &str, [first, second]: [usize; 2]| -> Result<BTreeMap<String, Given>, String> {
        let at = |text: &str, line| Given::TextAt(text.to_owned(), Origin { file: file.to_owned(), line });
        Ok(BTreeMap::from([("A".into(), at("1", first)), ("B_2".into(), at("x = y", second))]))
    };
    assert_eq!(pairs("# note\nexport A=1\n\nB_2='x = y'\r\n", "v.env"), expected("v.env", [2, 4]));
    assert_eq!(pairs("\nA: 1\n# note\nB_2: x = y\n", "v.yaml"), expected("v.yaml", [2, 4]));
    assert_eq!(pairs(r#"{"A": 1, "B_2": "x = y"}"#, "v.json"), expected("v.json", [1, 1]));
    assert_eq!(pairs("", "v.yml"), Ok(BTreeMap::new()));
    assert_eq!(pairs("A\n", "v"), Err("v:1: `A` is not KEY=value".into()));
    assert_eq!(pairs("\nA=1\nA=2", "v"), Err("v:3: `A` is given twice".into()));
    assert_eq!(pairs("a-b=1", "v"), Err("v:1: `a-b` cannot be a variable's name".into()));
    insta::assert_snapshot!(pairs("A: [1, .inf]\nb-c: 2\n", "v.yaml").expect_err("both are wrong"), @r#"
    error[wrong_type]: `.inf` is no number that JSON can hold
     --> v.yaml:1:8
      |
    1 | A: [1, .inf]
      |        ^^^^

    error[bad_name]: `b-c` cannot be a variable's name
     --> v.yaml:2:1
      |
    2 | b-c: 2
      | ^^^
    "#);
    let text = "A: [1, {b: 'x'}, true]\nB: {c: }\nC: ~\nD: 010\nE: yes\nF: '7'\nG:\n  b: [1.5e0]\nH: 1\n";
    let values = pairs(text, "v.yaml").expect("they are values");
    let at = |line| Origin { file: "v.yaml".into(), line };
    assert_eq!(values["A"], Given::ValueAt(json!([1, {"b": "x"}, true]), at(1)));
    assert_eq!(values["B"], Given::ValueAt(json!({"c": null}), at(2)));
    assert_eq!(values["C"], Given::ValueAt(Value::Null, at(3)));
    for (name, text, line) in [("D", "010", 4), ("E", "yes", 5), ("F", "7", 6), ("H", "1", 9)] {
        assert_eq!(values[name], Given::TextAt(text.into(), at(line)));
    }
    assert_eq!(values["G"], Given::ValueAt(json!({"b": [1.5]}), at(7)));
    assert_eq!(parse_var("A=b=c").expect("it is a pair"), ("A".into(), "b=c".into()));
    assert!(parse_var("A").is_err() && parse_var("a-b=c").is_err());
}

#[test]
fn bytes_that_are_not_text_are_refused_with_their_line() {
    let error = Source::from_bytes("plan.yaml", b"plan_id: p\n\xff".to_vec()).expect_err("not UTF-8");
    assert_eq!(error.to_string(), "plan.yaml:2: not UTF-8 text (byte 11); save the file as UTF-8");
}
