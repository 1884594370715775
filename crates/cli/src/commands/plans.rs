//! What can be done with a plan alone: judge it, draw it, show what it would run, write a first one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use baton_core::{Graph, Invocation, OnFailure, StepIndex};
use baton_lang::{Compiled, Loaded, MAX_PLAN_BYTES, Options, Problem, Selection, Severity, Source, SourceError};
use serde_json::{Value, json};

use super::Actions;
use crate::arguments::{Answer, Given};
use crate::escape;
use crate::face::Face;
use crate::failure::{EXIT_OK, EXIT_REFUSED, EXIT_USAGE, Failure};
use crate::show::summary;
use crate::words;

/// The largest file of variables that is read.
const MAX_VAR_FILE_BYTES: u64 = 16 << 20;

/// Problems of a plan that is in order, with what was asked of it.
const OF_OPTIONS: &[&str] = &["missing_input", "outside_slice"];

/// A plan that was read and is ready to run.
#[derive(Debug)]
pub struct ReadPlan {
    /// Its text.
    pub source: Source,
    /// Where it was read from: an absolute path, or `-`.
    pub path: String,
    /// The plan, joined with its variables.
    pub compiled: Compiled,
}

/// Reads the plan that was named; what is wrong with it is the failure.
pub fn read_and_compile(given: Given<'_>, face: &mut Face) -> Result<ReadPlan, Failure> {
    read_and_compile_for(given, false, face)
}

fn read_and_compile_for(given: Given<'_>, only_looking: bool, face: &mut Face) -> Result<ReadPlan, Failure> {
    let (source, path) = read_source(given)?;
    let loaded = load(&source, given, only_looking)?;
    let Some(compiled) = loaded.compiled else { return Err(bad_plan(&source, &loaded.problems, face)) };
    if !loaded.problems.is_empty() && !face.quiet {
        face.out.flush();
        let text = if face.is_json() {
            let lines =
                loaded.problems.iter().map(|problem| format!("{}\n", json!({ "warning": problem.to_json(&source) })));
            lines.collect()
        } else {
            baton_lang::render_all(&loaded.problems, &source, face.color_err)
        };
        face.err.write(text.as_bytes());
        face.err.flush();
    }
    Ok(ReadPlan { source, path, compiled })
}

fn bad_plan(source: &Source, problems: &[Problem], face: &Face) -> Failure {
    let name = &source.name;
    let mut failure = Failure::new("bad-plan", EXIT_USAGE, format!("`{name}` cannot run: {}", tally(problems))).hint(
        if problems.iter().all(|problem| problem.span.is_none() || OF_OPTIONS.contains(&problem.code)) {
            "the plan is in order; mend what was asked of it".to_owned()
        } else {
            format!("mend what is marked above, then try again: baton check {name}")
        },
    );
    let text = baton_lang::render_all(problems, source, face.color_err);
    failure.problems = Some(Box::new((problems.iter().map(|problem| problem.to_json(source)).collect(), text)));
    failure
}

fn tally(problems: &[Problem]) -> String {
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count() as u64;
    let mut parts = Vec::new();
    for (severity, one, many) in [(Severity::Error, "error", "errors"), (Severity::Warning, "warning", "warnings")] {
        if count(severity) > 0 {
            parts.push(words::counted(count(severity), one, many));
        }
    }
    parts.join(", ")
}

fn read_source(given: Given<'_>) -> Result<(Source, String), Failure> {
    let path = given.path("plan").unwrap_or(Path::new("-"));
    let name = path.display().to_string();
    let is_input = name == "-";
    let unreadable = |error: &std::io::Error| {
        let what = if is_input { "the plan from standard input".to_owned() } else { format!("the plan `{name}`") };
        let failure = Failure::new("plan-unreadable", EXIT_USAGE, format!("cannot read {what}")).because(error);
        match error.kind() {
            std::io::ErrorKind::NotFound => failure.hint("is the name right? `baton init` writes a first plan"),
            std::io::ErrorKind::PermissionDenied => failure.hint("make the file readable for you"),
            _ => failure.hint("name a file with a plan in it, or `-` for standard input"),
        }
    };
    // One byte more than may be: then it is known that there is more.
    let limit = MAX_PLAN_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let read = if is_input {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| unreadable(&error))?;
    let source = Source::from_bytes(&name, bytes).map_err(|error| {
        let hint = match error {
            SourceError::NotUtf8 { .. } => "save the file as UTF-8",
            SourceError::TooLong { .. } => "split the plan into several",
        };
        Failure::new("plan-unreadable", EXIT_USAGE, error.to_string()).hint(hint)
    })?;
    let path = if is_input { name } else { std::path::absolute(path).map_or(name, |path| path.display().to_string()) };
    Ok((source, path))
}

fn load(source: &Source, given: Given<'_>, only_looking: bool) -> Result<Loaded, Failure> {
    let has = |name: &str| given.0.try_contains_id(name).is_ok();
    let texts = |name: &str| if has(name) { given.texts(name) } else { Vec::new() };
    let options = Options {
        vars: variables(given)?,
        selection: Selection { from: texts("from"), to: texts("to"), only: texts("only"), tags: texts("tag") },
        outputs_available: has("outputs-from") && given.number("outputs-from").is_some(),
        only_looking,
        ..Options::default()
    };
    Ok(baton_lang::load(source, &Actions, &options))
}

/// The values of variables: those of `--var` go before those of files, later ones before earlier ones.
fn variables(given: Given<'_>) -> Result<BTreeMap<String, baton_lang::Given>, Failure> {
    let mut vars = BTreeMap::new();
    for path in given.paths("var-file") {
        let name = path.display().to_string();
        let mut text = String::new();
        fs::File::open(path).and_then(|file| file.take(MAX_VAR_FILE_BYTES).read_to_string(&mut text)).map_err(
            |error| {
                Failure::new("var-file-unreadable", EXIT_USAGE, format!("cannot read the variables in `{name}`"))
                    .because(&error)
                    .hint("name a YAML or JSON file of that extension, or one with KEY=value lines")
            },
        )?;
        let more = baton_lang::parse_var_file(&name, &text).map_err(|error| {
            Failure::new("bad-var-file", EXIT_USAGE, format!("the variables in `{name}` cannot be taken"))
                .because(&error)
                .hint("YAML and JSON files hold one map of names to values, others lines of KEY=value")
        })?;
        vars.extend(more);
    }
    vars.extend(given.pairs("var").map(|(name, text)| (name, baton_lang::Given::Text(text))));
    Ok(vars)
}

/// `baton check`.
pub fn check(given: Given<'_>, face: &mut Face) -> Answer {
    let (source, _) = read_source(given)?;
    let Loaded { compiled, problems } = load(&source, given, true)?;
    let is_good = compiled.is_some() && (problems.is_empty() || !given.flag("strict"));
    let exit = if is_good { EXIT_OK } else { EXIT_USAGE };
    if face.is_json() {
        let list: Vec<Value> = problems.iter().map(|problem| problem.to_json(&source)).collect();
        let steps = compiled.as_ref().map(|plan| plan.graph.len());
        let plan_id = compiled.as_ref().map(|plan| plan.plan_id().to_owned());
        let needs: Vec<&str> = compiled.iter().flat_map(Compiled::missing_inputs).collect();
        face.document(&json!({ "ok": is_good, "file": source.name, "plan_id": plan_id, "steps": steps,
            "needs": needs, "problems": list }));
        return Ok(exit);
    }
    face.text(&baton_lang::render_all(&problems, &source, face.color));
    let name = escape::one_line(&source.name);
    match compiled {
        Some(plan) if problems.is_empty() => {
            if !face.quiet {
                let steps = words::counted(plan.graph.len() as u64, "step", "steps");
                let needs: Vec<String> = plan.missing_inputs().map(|name| format!("--var {name}=…")).collect();
                let needs = if needs.is_empty() { String::new() } else { format!("; a run needs {}", needs.join(" ")) };
                face.text(&format!("{name}: in order ({} with {steps}){needs}\n", escape::one_line(plan.plan_id())));
            }
        }
        Some(_) | None => face.text(&format!("{name}: {}\n", tally(&problems))),
    }
    Ok(exit)
}

/// For each step the number of its level: one more than the highest of its dependencies. A fallback stands below the
/// step that it is for.
fn levels(graph: &Graph) -> Vec<u32> {
    let mut waits: Vec<usize> = graph
        .steps()
        .map(|step| graph.dependencies(step).len() + usize::from(graph.original(step).is_some()))
        .collect();
    let mut levels = vec![0; graph.len()];
    let mut open: Vec<StepIndex> = graph.steps().filter(|step| waits[step.at()] == 0).collect();
    while let Some(step) = open.pop() {
        for &next in graph.dependents(step).iter().chain(graph.fallback(step).as_ref()) {
            levels[next.at()] = levels[next.at()].max(levels[step.at()] + 1);
            waits[next.at()] -= 1;
            if waits[next.at()] == 0 {
                open.push(next);
            }
        }
    }
    // `finally` begins below all else.
    let lowest = graph.steps().filter(|step| !graph.is_finally(*step)).map(|step| levels[step.at()]).max();
    for step in graph.steps().filter(|step| graph.is_finally(*step)) {
        levels[step.at()] += lowest.map_or(0, |lowest| lowest + 1);
    }
    levels
}

/// The steps by levels, those of one level in the plan's order.
fn by_level(graph: &Graph) -> Vec<(u32, StepIndex)> {
    let levels = levels(graph);
    let mut steps: Vec<(u32, StepIndex)> = graph.steps().map(|step| (levels[step.at()], step)).collect();
    steps.sort_unstable();
    steps
}

fn ids(graph: &Graph, steps: &[StepIndex]) -> Vec<String> {
    steps.iter().map(|step| graph.id(*step).to_owned()).collect()
}

/// `baton graph`.
pub fn graph(given: Given<'_>, face: &mut Face) -> Answer {
    let plan = read_and_compile_for(given, true, face)?.compiled;
    if face.is_json() {
        face.document(&graph_json(&plan));
        return Ok(EXIT_OK);
    }
    let text = match given.text("format") {
        Some("mermaid") => mermaid(&plan),
        Some("dot") => dot(&plan),
        _ => graph_text(&plan),
    };
    face.text(&text);
    Ok(EXIT_OK)
}

fn graph_json(plan: &Compiled) -> Value {
    let graph = &plan.graph;
    let steps: Vec<Value> = by_level(graph)
        .into_iter()
        .map(|(level, step)| {
            json!({
                "step": graph.id(step),
                "level": level + 1,
                "depends_on": ids(graph, graph.dependencies(step)),
                "condition": plan.condition_text(step),
                "fallback_step": graph.fallback(step).map(|fallback| graph.id(fallback)),
                "finally": graph.is_finally(step),
                "locks": graph.locks(step).map(|request| request.names.clone()).unwrap_or_default(),
                "group": plan.group(step),
                "tags": plan.tags(step),
            })
        })
        .collect();
    json!({ "plan_id": plan.plan_id(), "max_concurrency": graph.max_concurrency(), "steps": steps })
}

fn graph_text(plan: &Compiled) -> String {
    let graph = &plan.graph;
    let steps = by_level(graph);
    let count = steps.last().map_or(0, |(level, _)| level + 1);
    let mut out = format!(
        "{}: {} in {}, at most {} at once\n",
        escape::one_line(plan.plan_id()),
        words::counted(graph.len() as u64, "step", "steps"),
        words::counted(u64::from(count), "level", "levels"),
        graph.max_concurrency()
    );
    let mut open = None;
    for (level, step) in steps {
        if open != Some(level) {
            let finally = if graph.is_finally(step) { ", finally" } else { "" };
            out += &format!("\nlevel {}{finally}\n", level + 1);
            open = Some(level);
        }
        let mut remarks = Vec::new();
        if !graph.dependencies(step).is_empty() {
            remarks.push(format!("after {}", ids(graph, graph.dependencies(step)).join(", ")));
        }
        if let Some(original) = graph.original(step) {
            remarks.push(format!("if {} fails", graph.id(original)));
        }
        if let Some(condition) = plan.condition_text(step) {
            remarks.push(format!("if `{}`", escape::one_line(condition.trim())));
        }
        if let Some(request) = graph.locks(step) {
            remarks.push(format!("holds {}", escape::one_line(&request.names.join(", "))));
        }
        out += &format!("  {}", graph.id(step));
        if !remarks.is_empty() {
            out += &format!("  {}", remarks.join("; "));
        }
        out.push('\n');
    }
    out
}

fn mermaid(plan: &Compiled) -> String {
    let graph = &plan.graph;
    let mut out = String::from("flowchart TD\n");
    let node = |step: StepIndex| {
        let shape = if graph.is_conditional(step) { ["{{\"", "\"}}"] } else { ["[\"", "\"]"] };
        format!("  s{}{}{}{}\n", step.0, shape[0], graph.id(step), shape[1])
    };
    out.extend(graph.steps().filter(|step| !graph.is_finally(*step)).map(node));
    if graph.has_finally() {
        out += "  subgraph finally\n";
        out.extend(graph.steps().filter(|step| graph.is_finally(*step)).map(|step| format!("  {}", node(step))));
        out += "  end\n";
    }
    for step in graph.steps() {
        for dependency in graph.dependencies(step) {
            out += &format!("  s{} --> s{}\n", dependency.0, step.0);
        }
        if let Some(fallback) = graph.fallback(step) {
            out += &format!("  s{} -. fails .-> s{}\n", step.0, fallback.0);
        }
    }
    out
}

fn dot(plan: &Compiled) -> String {
    let graph = &plan.graph;
    // A plan's id may hold anything; a step's cannot hold quotes.
    let name = escape::one_line(plan.plan_id()).replace(['"', '\\'], "_");
    let mut out = format!("digraph \"{name}\" {{\n  rankdir=LR;\n  node [shape=box];\n");
    let node = |step: StepIndex| {
        let shape = if graph.is_conditional(step) { " [shape=hexagon]" } else { "" };
        format!("  \"{}\"{shape};\n", graph.id(step))
    };
    out.extend(graph.steps().filter(|step| !graph.is_finally(*step)).map(node));
    if graph.has_finally() {
        out += "  subgraph cluster_finally {\n    label=\"finally\";\n";
        out.extend(graph.steps().filter(|step| graph.is_finally(*step)).map(|step| format!("  {}", node(step))));
        out += "  }\n";
    }
    for step in graph.steps() {
        for dependency in graph.dependencies(step) {
            out += &format!("  \"{}\" -> \"{}\";\n", graph.id(*dependency), graph.id(step));
        }
        if let Some(fallback) = graph.fallback(step) {
            out +=
                &format!("  \"{}\" -> \"{}\" [style=dashed, label=\"fails\"];\n", graph.id(step), graph.id(fallback));
        }
    }
    out + "}\n"
}

/// `baton schema`.
pub fn schema(face: &mut Face) -> Answer {
    face.document(&baton_lang::schema());
    Ok(EXIT_OK)
}

/// `baton run --dry-run`.
pub fn dry_run(plan: &ReadPlan, face: &mut Face) -> Answer {
    let plan = &plan.compiled;
    let graph = &plan.graph;
    let kept: BTreeSet<u32> = plan.kept.iter().flat_map(|(first, last)| *first..=*last).collect();
    let mut steps = Vec::new();
    for (level, step) in by_level(graph) {
        let invocation = plan.preview(step).map_err(|problem| {
            Failure::new("no-preview", EXIT_USAGE, format!("step `{}` cannot be shown: {problem}", graph.id(step)))
        })?;
        steps.push((level, step, !kept.contains(&step.0), invocation));
    }
    if face.is_json() {
        let list: Vec<Value> = steps
            .iter()
            .map(|(level, step, runs, invocation)| {
                json!({
                    "step": graph.id(*step),
                    "level": level + 1,
                    "runs": runs,
                    "finally": graph.is_finally(*step),
                    "depends_on": ids(graph, graph.dependencies(*step)),
                    "condition": plan.condition_text(*step),
                    "has_expressions": plan.is_dynamic(*step),
                    "invocation": invocation,
                })
            })
            .collect();
        let concurrency = graph.max_concurrency();
        face.document(&json!({ "dry_run": true, "plan_id": plan.plan_id(), "vars": plan.vars,
            "inputs": plan.inputs, "max_concurrency": concurrency, "steps": list }));
        return Ok(EXIT_OK);
    }
    let running = steps.iter().filter(|(_, _, runs, _)| *runs).count();
    let mut out = format!(
        "{}: would run {} of {}, at most {} at once; nothing was run\n",
        escape::one_line(plan.plan_id()),
        words::grouped(running as u64),
        words::counted(graph.len() as u64, "step", "steps"),
        graph.max_concurrency()
    );
    for (name, value) in &plan.vars {
        out += &format!("  {name}={}\n", escape::exact(&quoted(value)).replace('\n', "\\n"));
    }
    for (name, value) in &plan.inputs {
        out += &format!("  input {}\n", summary::output(name, value));
    }
    if !graph.plan_locks().names.is_empty() {
        out += &format!("  holds {}\n", escape::one_line(&graph.plan_locks().names.join(", ")));
    }
    for (_, step, runs, invocation) in &steps {
        out += &dry_step(plan, *step, *runs, invocation);
    }
    face.text(&out);
    Ok(EXIT_OK)
}

fn dry_step(plan: &Compiled, step: StepIndex, runs: bool, invocation: &Invocation) -> String {
    let graph = &plan.graph;
    let policy = graph.policy(step);
    if !runs {
        return format!("\n{}: outside the slice, does not run\n", graph.id(step));
    }
    let finally = if graph.is_finally(step) { ": in `finally`, runs after all else" } else { "" };
    let mut out = format!("\n{}{finally}\n", graph.id(step));
    let mut fact = |name: &str, value: String| {
        let value = escape::exact(&value).trim_end().replace('\n', "\n            ");
        out += &format!("  {name:<9} {value}\n");
    };
    fact("runs", command_line(invocation));
    if invocation.cwd != "." {
        fact("in", invocation.cwd.clone());
    }
    for (name, value) in &invocation.env {
        fact("env", format!("{name}={}", quoted(value)));
    }
    if !graph.dependencies(step).is_empty() {
        fact("after", ids(graph, graph.dependencies(step)).join(", "));
    }
    if let Some(condition) = plan.condition_text(step) {
        fact("if", condition.trim().to_owned());
    }
    if let Some(original) = graph.original(step) {
        fact("if", format!("{} fails", graph.id(original)));
    }
    if let Some(request) = graph.locks(step) {
        fact("holds", request.names.join(", "));
    }
    if policy.retries > 0 {
        let retries = words::counted(u64::from(policy.retries), "retry", "retries");
        fact("retries", format!("{retries}, {} between", words::duration(policy.retry_delay)));
    }
    if let Some(timeout) = policy.timeout {
        fact("timeout", words::duration(timeout));
    }
    let on_failure = match (policy.on_failure, graph.fallback(step)) {
        (OnFailure::Abort, _) if policy.critical && !graph.is_finally(step) => None,
        (OnFailure::Abort | OnFailure::SkipDependents, _) => Some("what depends on it is skipped".to_owned()),
        (OnFailure::Continue, _) => Some("the run goes on".to_owned()),
        (OnFailure::FallbackStep, Some(fallback)) => Some(format!("{} runs in its place", graph.id(fallback))),
        (OnFailure::FallbackStep, None) => None,
    };
    if let Some(on_failure) = on_failure {
        fact("on failure", on_failure);
    }
    out
}

/// What a step does, as a person would type it.
fn command_line(invocation: &Invocation) -> String {
    let text = |name: &str| invocation.with.get(name).and_then(Value::as_str).unwrap_or_default();
    if invocation.uses != "process" {
        return format!("{} {}", invocation.uses, invocation.with);
    }
    let is_script = invocation.with.get("shell").and_then(Value::as_bool).unwrap_or(false);
    let args = invocation.with.get("args").and_then(Value::as_array).into_iter().flatten();
    let args: Vec<String> = args.map(|arg| quoted(arg.as_str().unwrap_or_default())).collect();
    if is_script {
        let args = if args.is_empty() { String::new() } else { format!("\n(with {})", args.join(" ")) };
        return format!("/bin/sh: {}{args}", text("command"));
    }
    std::iter::once(quoted(text("command"))).chain(args).collect::<Vec<_>>().join(" ")
}

/// A word as a shell would need it.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_-./:=@%+,".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// `baton init`.
pub fn init(given: Given<'_>, face: &mut Face) -> Answer {
    let path = given.path("file").unwrap_or(Path::new("plan.yaml"));
    let name = path.display().to_string();
    let cannot = |error: std::io::Error| {
        let failure = match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                return Failure::new(
                    "file-exists",
                    EXIT_REFUSED,
                    format!("`{name}` is there already, and is left as it is"),
                )
                .hint("name another file: baton init NAME.yaml");
            }
            _ => Failure::new("file-unwritable", EXIT_REFUSED, format!("cannot write `{name}`")),
        };
        failure.because(&error).hint("name a file in a folder that you may write to")
    };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(cannot)?;
    file.write_all(FIRST_PLAN.as_bytes()).map_err(cannot)?;
    if face.is_json() {
        face.document(&json!({ "written": name }));
    } else if !face.quiet {
        face.text(&format!("wrote {name}; look at it, then: baton run {}\n", quoted(&name)));
    }
    Ok(EXIT_OK)
}

/// The plan that `baton init` writes.
const FIRST_PLAN: &str = include_str!("first_plan.yaml");

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Compiled {
        let source = Source::new("plan.yaml", text);
        let loaded = baton_lang::load(&source, &Actions, &Options::default());
        loaded.compiled.unwrap_or_else(|| panic!("{}", baton_lang::render_all(&loaded.problems, &source, false)))
    }

    fn diamond() -> Compiled {
        plan(
            r#"
plan_id: release
globals: {max_concurrency: 2}
steps:
  - {id: fetch, command: git, args: [fetch]}
  - {id: build, command: make, depends_on: [fetch], on_failure: fallback_step, fallback_step: mend}
  - {id: mend, command: make, args: [clean]}
  - {id: lint, command: make, args: [lint], depends_on: [fetch], condition: "run.id > 0"}
  - {id: publish, command: ./publish, depends_on: [build, lint], locks: [release]}
"#,
        )
    }

    #[test]
    fn the_first_plan_is_in_order() {
        let plan = plan(FIRST_PLAN);
        assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    }

    #[test]
    fn a_graph_as_text_stands_in_levels() {
        insta::assert_snapshot!(graph_text(&diamond()), @"
        release: 5 steps in 3 levels, at most 2 at once

        level 1
          fetch

        level 2
          build  after fetch
          lint  after fetch; if `run.id > 0`

        level 3
          mend  if build fails
          publish  after build, lint; holds release
        ");
    }

    #[test]
    fn a_graph_as_mermaid() {
        insta::assert_snapshot!(mermaid(&diamond()), @r#"
        flowchart TD
          s0["fetch"]
          s1["build"]
          s2["mend"]
          s3{{"lint"}}
          s4["publish"]
          s0 --> s1
          s1 -. fails .-> s2
          s0 --> s3
          s1 --> s4
          s3 --> s4
        "#);
    }

    #[test]
    fn a_graph_as_dot() {
        insta::assert_snapshot!(dot(&diamond()), @r#"
        digraph "release" {
          rankdir=LR;
          node [shape=box];
          "fetch";
          "build";
          "mend";
          "lint" [shape=hexagon];
          "publish";
          "fetch" -> "build";
          "build" -> "mend" [style=dashed, label="fails"];
          "fetch" -> "lint";
          "build" -> "publish";
          "lint" -> "publish";
        }
        "#);
    }

    #[test]
    fn words_are_quoted_as_a_shell_needs_them() {
        let cases =
            [("plain-1.2/x", "plain-1.2/x"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("$(x)", "'$(x)'")];
        for (word, shown) in cases {
            assert_eq!(quoted(word), shown);
        }
    }
}
