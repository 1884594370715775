//! The one table of the plan language's fields: parser, suggestions, JSON Schema and reference come from it.

use serde_json::{Map, Value, json};

use crate::schema::read::{keywords, schema_of_schemas};

/// The longest duration a field takes, in seconds: ten years.
pub(crate) const MAX_SECONDS: f64 = 315_360_000.0;
/// The most retries a step may have.
pub(crate) const MAX_RETRIES: u32 = 10_000;
/// The most attempts that may run at once.
pub(crate) const MAX_CONCURRENCY: u32 = 4096;

/// Where a field stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    Plan,
    Globals,
    Step,
    Hints,
}

impl Level {
    /// What stands there, for messages.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Level::Plan => "a plan",
            Level::Globals => "`globals`",
            Level::Step => "a step",
            Level::Hints => "`ui_hints`",
        }
    }
}

/// What a field takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A name of the plan itself.
    PlanId,
    /// A step's id.
    StepId,
    /// Another step's id.
    StepRef,
    /// Other steps' ids.
    StepRefs,
    /// Text.
    Text,
    /// Text, where a number or a boolean counts as the text it is written with.
    Word,
    /// A list of texts.
    Texts,
    /// A list of words.
    Words,
    /// A map of words under names of environment variables.
    Environment,
    /// A map of words under names of variables.
    Variables,
    /// A map of words under any names.
    Labels,
    Bool,
    /// A duration in seconds, from 0.
    Seconds,
    /// A duration in seconds, more than 0.
    Timeout,
    /// A whole number from the first to the second.
    Count(u32, u32),
    /// A number from 0 to 1.
    Fraction,
    /// A number from 0.
    Weight,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of exit codes.
    Codes,
    /// A bare CEL expression.
    Expression,
    /// Any map.
    Anything,
    /// A map of values of any shape under names of variables.
    Values,
    /// A map of schemas under names of variables.
    Schemas,
    /// A duration, more than 0: a number of seconds, or text such as `1h30m`.
    Duration,
    /// A map with the fields of this level.
    Object(Level),
    /// A list of steps, of which there are at least so many.
    Steps(u32),
}

/// Which field it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    PlanId,
    Version,
    Description,
    Metadata,
    Labels,
    Vars,
    Inputs,
    Outputs,
    Globals,
    Locks,
    LockWait,
    PlanTimeout,
    Sla,
    Steps,
    Finally,
    MaxConcurrency,
    DefaultTimeout,
    DefaultRetries,
    GlobalGrace,
    GlobalEnv,
    Id,
    Title,
    StepDescription,
    Command,
    Args,
    Shell,
    Uses,
    With,
    Cwd,
    Env,
    DependsOn,
    Condition,
    Timeout,
    Retries,
    RetryDelay,
    RetryBackoff,
    RetryMaxDelay,
    RetryJitter,
    AcceptExitCodes,
    StopGrace,
    Critical,
    CriticalGrace,
    OnFailure,
    FallbackStep,
    Provides,
    Consumes,
    StepLocks,
    StepLockWait,
    StepOutputs,
    Artifacts,
    Detach,
    Tags,
    Hints,
    Group,
    Weight,
}

/// One field of the language.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) level: Level,
    pub(crate) name: Name,
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    /// The default as JSON; empty: there is none.
    pub(crate) default: &'static str,
    pub(crate) doc: &'static str,
}

const fn field(
    level: Level,
    name: Name,
    key: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Field {
    Field { level, name, key, kind, required: false, default, doc }
}

const fn required(level: Level, name: Name, key: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { level, name, key, kind, required: true, default: "", doc }
}

/// The words of `on_failure`, in the order of [`baton_core::OnFailure`].
pub(crate) const ON_FAILURE: &[&str] = &["abort", "skip_dependents", "continue", "fallback_step"];
/// The words of `retry_backoff`, in the order of [`baton_core::graph::Backoff`].
pub(crate) const BACKOFF: &[&str] = &["fixed", "exponential"];

/// Every field there is.
#[rustfmt::skip]
pub(crate) const FIELDS: &[Field] = &[
    required(Level::Plan, Name::PlanId, "plan_id", Kind::PlanId,
        "The plan's name: letters, digits, `_`, `-` and `.`."),
    field(Level::Plan, Name::Version, "version", Kind::Word, "",
        "The plan's version, for people."),
    field(Level::Plan, Name::Description, "description", Kind::Text, "",
        "What the plan is for."),
    field(Level::Plan, Name::Metadata, "metadata", Kind::Anything, "{}",
        "Facts for people: `project`, `phase_id`, `created_by`, `created_at`, `tags`, …"),
    field(Level::Plan, Name::Labels, "labels", Kind::Labels, "{}",
        "Labels of every run of the plan, by which runs are found."),
    field(Level::Plan, Name::Vars, "vars", Kind::Variables, "{}",
        "Variables and their defaults; `--var` and `--var-file` go before these. A default may hold `${OTHER}`."),
    field(Level::Plan, Name::Inputs, "inputs", Kind::Schemas, "{}",
        "Typed values that a run is given, each with its schema: `--var` and `--var-file` set them too. One without \
         `default` must be given. Expressions see them as `inputs.NAME`."),
    field(Level::Plan, Name::Outputs, "outputs", Kind::Values, "{}",
        "What the run comes to, computed when its steps have succeeded, before `finally` begins: values that may hold \
         `${VAR}` and `${{ steps.ID.outputs.NAME }}`."),
    field(Level::Plan, Name::Globals, "globals", Kind::Object(Level::Globals), "{}",
        "What holds for the whole plan and for steps that say nothing else."),
    field(Level::Plan, Name::Locks, "locks", Kind::Texts, "[]",
        "Named locks that the run holds from its start to its end, all taken at once."),
    field(Level::Plan, Name::LockWait, "lock_wait_timeout_sec", Kind::Seconds, "null",
        "How long the run waits for its locks before it fails; null: as long as it takes."),
    field(Level::Plan, Name::PlanTimeout, "timeout_sec", Kind::Timeout, "null",
        "The longest that the steps may take together, up to `finally`."),
    field(Level::Plan, Name::Sla, "sla", Kind::Duration, "null",
        "How long after its submission the run is late: seconds, or text such as `90s`, `15m`, `1h30m`, `3d`."),
    required(Level::Plan, Name::Steps, "steps", Kind::Steps(1),
        "The steps. They run as soon as what they depend on is settled, in whatever order they are written."),
    field(Level::Plan, Name::Finally, "finally", Kind::Steps(0), "[]",
        "Steps that run when all others are settled, however these ended; expressions in them see `run.status`."),

    field(Level::Globals, Name::MaxConcurrency, "max_concurrency", Kind::Count(1, MAX_CONCURRENCY), "1",
        "How many steps may run at once."),
    field(Level::Globals, Name::DefaultTimeout, "default_timeout_sec", Kind::Timeout, "1800",
        "`timeout_sec` of steps that have none."),
    field(Level::Globals, Name::DefaultRetries, "default_retries", Kind::Count(0, MAX_RETRIES), "0",
        "`retries` of steps that have none."),
    field(Level::Globals, Name::GlobalGrace, "stop_grace_sec", Kind::Seconds, "10",
        "`stop_grace_sec` of steps that have none."),
    field(Level::Globals, Name::GlobalEnv, "env", Kind::Environment, "{}",
        "Environment of every step; a step's own `env` goes before it."),

    required(Level::Step, Name::Id, "id", Kind::StepId,
        "The step's name: a letter or `_`, then letters, digits, `_` and `-`."),
    field(Level::Step, Name::Title, "name", Kind::Text, "",
        "The step's title for people; without one, the id."),
    field(Level::Step, Name::StepDescription, "description", Kind::Text, "",
        "What the step is for."),
    field(Level::Step, Name::Command, "command", Kind::Text, "",
        "The program to run; with `shell: true`, the script. Either this or `uses`."),
    field(Level::Step, Name::Args, "args", Kind::Words, "[]",
        "The program's arguments. One that is exactly `${{ list }}` becomes several."),
    field(Level::Step, Name::Shell, "shell", Kind::Bool, "false",
        "Run `command` as a script: `/bin/sh -c <command> <id> <args…>`. Variables reach it as environment."),
    field(Level::Step, Name::Uses, "uses", Kind::Text, "",
        "The action to run in place of a program, such as `git.merge`."),
    field(Level::Step, Name::With, "with", Kind::Anything, "{}",
        "The input of the action, checked against its schema."),
    field(Level::Step, Name::Cwd, "cwd", Kind::Text, "\".\"",
        "The working folder, relative to the folder where the run was started."),
    field(Level::Step, Name::Env, "env", Kind::Environment, "{}",
        "Environment on top of that of the process that drives the run."),
    field(Level::Step, Name::DependsOn, "depends_on", Kind::StepRefs, "[]",
        "The steps that must be settled before this one."),
    field(Level::Step, Name::Condition, "condition", Kind::Expression, "null",
        "A CEL expression, judged once when all dependencies are settled; false: the step is skipped."),
    field(Level::Step, Name::Timeout, "timeout_sec", Kind::Timeout, "null",
        "The longest that one attempt may take; null: `default_timeout_sec`."),
    field(Level::Step, Name::Retries, "retries", Kind::Count(0, MAX_RETRIES), "null",
        "How many further attempts a failed step gets; null: `default_retries`."),
    field(Level::Step, Name::RetryDelay, "retry_delay_sec", Kind::Seconds, "0",
        "The first delay between attempts."),
    field(Level::Step, Name::RetryBackoff, "retry_backoff", Kind::Choice(BACKOFF), "\"fixed\"",
        "Whether every delay is the same or twice the one before."),
    field(Level::Step, Name::RetryMaxDelay, "retry_max_delay_sec", Kind::Seconds, "300",
        "The longest delay between attempts."),
    field(Level::Step, Name::RetryJitter, "retry_jitter", Kind::Fraction, "0",
        "How far chance may move a delay either way, as a part of it."),
    field(Level::Step, Name::AcceptExitCodes, "accept_exit_codes", Kind::Codes, "[0]",
        "The exit codes that mean success."),
    field(Level::Step, Name::StopGrace, "stop_grace_sec", Kind::Seconds, "null",
        "From the polite signal to the one that cannot be refused; null: that of `globals`."),
    field(Level::Step, Name::Critical, "critical", Kind::Bool, "true",
        "Whether the step's failure fails the run."),
    field(Level::Step, Name::CriticalGrace, "critical_grace_period_sec", Kind::Seconds, "0",
        "How long running steps may go on when this step's failure aborts the run."),
    field(Level::Step, Name::OnFailure, "on_failure", Kind::Choice(ON_FAILURE), "\"abort\"",
        "What the step's final failure does to the rest of the run; in `finally`, `abort` means `skip_dependents`."),
    field(Level::Step, Name::FallbackStep, "fallback_step", Kind::StepRef, "null",
        "The step that runs in this one's place when it fails; with `on_failure: fallback_step`."),
    field(Level::Step, Name::Provides, "provides", Kind::Texts, "[]",
        "Logical resources that exist once the step succeeded."),
    field(Level::Step, Name::Consumes, "consumes", Kind::Texts, "[]",
        "Logical resources that the step needs; a step that it depends on must provide them."),
    field(Level::Step, Name::StepLocks, "locks", Kind::Texts, "[]",
        "Named locks that the step holds while an attempt runs, all taken at once."),
    field(Level::Step, Name::StepLockWait, "lock_wait_timeout_sec", Kind::Seconds, "null",
        "How long an attempt waits for its locks before it fails; null: as long as it takes."),
    field(Level::Step, Name::StepOutputs, "outputs", Kind::Schemas, "{}",
        "What the step sets through `$BATON_OUTPUT`, each with its schema, checked when it succeeds; others are free."),
    field(Level::Step, Name::Artifacts, "artifacts", Kind::Texts, "[]",
        "Patterns of files, relative to `cwd`, that are kept after an attempt."),
    field(Level::Step, Name::Detach, "detach", Kind::Bool, "false",
        "Let processes that the step leaves behind live on."),
    field(Level::Step, Name::Tags, "tags", Kind::Words, "[]",
        "Words by which `--tag` finds the step."),
    field(Level::Step, Name::Hints, "ui_hints", Kind::Object(Level::Hints), "{}",
        "How the step is shown."),

    field(Level::Hints, Name::Group, "group", Kind::Text, "",
        "The heading under which the step is shown."),
    field(Level::Hints, Name::Weight, "weight", Kind::Weight, "1",
        "The step's share of the percentage."),
];

/// Fields that later versions will have.
const NOT_YET: &[(Level, &str)] = &[
    (Level::Plan, "matrix"),
    (Level::Plan, "undo_on"),
    (Level::Plan, "secrets"),
    (Level::Step, "inputs"),
    (Level::Step, "for_each"),
    (Level::Step, "matrix"),
    (Level::Step, "undo"),
    (Level::Step, "undo_on"),
    (Level::Step, "sla"),
    (Level::Step, "wait"),
    (Level::Step, "wait_for"),
    (Level::Step, "plan"),
    (Level::Step, "effect"),
    (Level::Step, "probe"),
    (Level::Step, "cache"),
    (Level::Step, "priority"),
];

/// What other tools call our fields.
const ELSEWHERE: &[(Level, &str, &str)] = &[
    (Level::Plan, "id", "plan_id"),
    (Level::Plan, "name", "plan_id"),
    (Level::Plan, "variables", "vars"),
    (Level::Plan, "params", "vars"),
    (Level::Plan, "parameters", "inputs"),
    (Level::Plan, "jobs", "steps"),
    (Level::Plan, "tasks", "steps"),
    (Level::Plan, "max_concurrency", "globals.max_concurrency"),
    (Level::Plan, "concurrency", "globals.max_concurrency"),
    (Level::Plan, "parallelism", "globals.max_concurrency"),
    (Level::Plan, "env", "globals.env"),
    (Level::Plan, "timeout", "timeout_sec"),
    (Level::Plan, "always", "finally"),
    (Level::Plan, "cleanup", "finally"),
    (Level::Plan, "deadline", "sla"),
    (Level::Globals, "concurrency", "max_concurrency"),
    (Level::Globals, "timeout_sec", "default_timeout_sec"),
    (Level::Globals, "retries", "default_retries"),
    (Level::Globals, "vars", "vars` beside `globals"),
    (Level::Step, "needs", "depends_on"),
    (Level::Step, "requires", "depends_on"),
    (Level::Step, "dependencies", "depends_on"),
    (Level::Step, "after", "depends_on"),
    (Level::Step, "cmd", "command"),
    (Level::Step, "run", "command"),
    (Level::Step, "exec", "command"),
    (Level::Step, "script", "command` with `shell: true"),
    (Level::Step, "arguments", "args"),
    (Level::Step, "environment", "env"),
    (Level::Step, "working_directory", "cwd"),
    (Level::Step, "workdir", "cwd"),
    (Level::Step, "dir", "cwd"),
    (Level::Step, "if", "condition"),
    (Level::Step, "when", "condition"),
    (Level::Step, "timeout", "timeout_sec"),
    (Level::Step, "retry", "retries"),
    (Level::Step, "fallback", "fallback_step"),
    (Level::Step, "continue_on_error", "on_failure: continue"),
    (Level::Step, "allow_failure", "on_failure: continue"),
    (Level::Step, "action", "uses"),
    (Level::Step, "title", "name"),
    (Level::Step, "label", "name"),
    (Level::Step, "group", "ui_hints.group"),
    (Level::Step, "weight", "ui_hints.weight"),
];

/// What a field that does not exist might have been.
pub(crate) enum Unknown {
    /// A later version has it.
    NotYet,
    /// A hint at what was meant.
    Hint(Option<String>),
}

/// The fields of a level, in the order of the reference.
pub(crate) fn of(level: Level) -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().filter(move |field| field.level == level)
}

pub(crate) fn find(level: Level, key: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.level == level && field.key == key)
}

pub(crate) fn unknown(level: Level, key: &str) -> Unknown {
    if NOT_YET.contains(&(level, key)) {
        return Unknown::NotYet;
    }
    let plain = key.to_ascii_lowercase().replace('-', "_");
    if let Some((_, _, ours)) = ELSEWHERE.iter().find(|(at, theirs, _)| *at == level && *theirs == plain) {
        return Unknown::Hint(Some(format!("in Baton this is `{ours}`")));
    }
    let near = crate::problem::nearest(&plain, of(level).map(|field| field.key));
    if let Some(near) = near {
        return Unknown::Hint(Some(format!("did you mean `{near}`?")));
    }
    let other = [Level::Plan, Level::Globals, Level::Step, Level::Hints]
        .into_iter()
        .find(|other| *other != level && find(*other, key).is_some());
    Unknown::Hint(other.map(|other| format!("`{key}` is a field of {}; look at the indentation", other.noun())))
}

/// The plan language as a JSON Schema (2020-12), for editors and other tools.
pub fn schema() -> Value {
    let mut out = object_schema(Level::Plan);
    if let Some(map) = out.as_object_mut() {
        map.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        map.insert("title".into(), "Baton plan".into());
        map.insert("description".into(), "A plan: steps, what they depend on, and what a failure does.".into());
        map.insert("$defs".into(), json!({"schema": schema_of_schemas()}));
    }
    out
}

fn object_schema(level: Level) -> Value {
    let mut properties = Map::new();
    let mut needed = Vec::new();
    for field in of(level) {
        let mut entry = kind_schema(field.kind);
        if !field.required {
            allow_null(&mut entry);
        } else {
            needed.push(Value::from(field.key));
        }
        if let Some(map) = entry.as_object_mut() {
            map.insert("description".into(), field.doc.into());
            if let Ok(default) = serde_json::from_str::<Value>(field.default) {
                map.insert("default".into(), default);
            }
        }
        properties.insert(field.key.into(), entry);
    }
    let mut out = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if let Some(map) = out.as_object_mut() {
        if !needed.is_empty() {
            map.insert("required".into(), needed.into());
        }
        if level == Level::Step {
            map.insert("oneOf".into(), json!([{"required": ["command"]}, {"required": ["uses"]}]));
        }
    }
    out
}

/// A field that is null is as if it were not there.
fn allow_null(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    match map.get_mut("type") {
        Some(Value::String(one)) => {
            let both = json!([one.clone(), "null"]);
            map.insert("type".into(), both);
        }
        Some(Value::Array(several)) => several.push("null".into()),
        _ => {}
    }
    if let Some(Value::Array(words)) = map.get_mut("enum") {
        words.push(Value::Null);
    }
}

/// The pattern of a step's id.
pub(crate) const STEP_ID_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_-]*$";
/// The pattern of a duration as text.
const DURATION_PATTERN: &str = "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$";

fn kind_schema(kind: Kind) -> Value {
    let word = json!({"type": ["string", "number", "boolean"]});
    let names = "^[A-Za-z_][A-Za-z0-9_]*$";
    match kind {
        Kind::PlanId => json!({"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]*$"}),
        Kind::StepId | Kind::StepRef => json!({"type": "string", "pattern": STEP_ID_PATTERN}),
        Kind::StepRefs => {
            json!({"type": "array", "items": {"type": "string", "pattern": STEP_ID_PATTERN}})
        }
        Kind::Text => json!({"type": "string"}),
        Kind::Word => word,
        Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Words => json!({"type": "array", "items": word}),
        Kind::Environment | Kind::Labels => json!({"type": "object", "additionalProperties": word}),
        Kind::Variables => {
            json!({"type": "object", "propertyNames": {"pattern": names}, "additionalProperties": word})
        }
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Seconds => json!({"type": "number", "minimum": 0, "maximum": MAX_SECONDS}),
        Kind::Timeout => json!({"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS}),
        Kind::Count(from, to) => json!({"type": "integer", "minimum": from, "maximum": to}),
        Kind::Fraction => json!({"type": "number", "minimum": 0, "maximum": 1}),
        Kind::Weight => json!({"type": "number", "minimum": 0}),
        Kind::Choice(words) => json!({"type": "string", "enum": words}),
        Kind::Codes => {
            json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}, "minItems": 1})
        }
        Kind::Expression => json!({"type": ["string", "boolean"]}),
        Kind::Anything => json!({"type": "object"}),
        Kind::Values => json!({"type": "object", "propertyNames": {"pattern": names}}),
        Kind::Schemas => {
            let one = json!({"$ref": "#/$defs/schema", "required": ["type"]});
            json!({"type": "object", "propertyNames": {"pattern": names}, "additionalProperties": one})
        }
        Kind::Duration => {
            json!({"type": ["number", "string"], "exclusiveMinimum": 0, "maximum": MAX_SECONDS,
                "pattern": DURATION_PATTERN, "minLength": 2})
        }
        Kind::Object(level) => object_schema(level),
        Kind::Steps(0) => json!({"type": "array", "items": {"$ref": "#/properties/steps/items"}}),
        Kind::Steps(least) => json!({"type": "array", "minItems": least, "items": object_schema(Level::Step)}),
    }
}

/// What a field takes, in words.
pub(crate) fn wanted(kind: Kind) -> String {
    match kind {
        Kind::PlanId | Kind::StepId | Kind::StepRef => "a name".into(),
        Kind::StepRefs => "a list of step ids".into(),
        Kind::Text => "text".into(),
        Kind::Word => "text, a number, or true or false".into(),
        Kind::Texts => "a list of texts".into(),
        Kind::Words => "a list of texts".into(),
        Kind::Environment | Kind::Variables | Kind::Labels => "a map of names to texts".into(),
        Kind::Bool => "true or false".into(),
        Kind::Seconds => "a number of seconds from 0".into(),
        Kind::Timeout => "a number of seconds above 0".into(),
        Kind::Count(from, to) => format!("a whole number from {from} to {to}"),
        Kind::Fraction => "a number from 0 to 1".into(),
        Kind::Weight => "a number from 0".into(),
        Kind::Choice(words) => format!("one of {}", words.join(", ")),
        Kind::Codes => "a list of exit codes (0 to 255)".into(),
        Kind::Expression => "an expression".into(),
        Kind::Anything | Kind::Object(_) => "a map".into(),
        Kind::Values => "a map of names to values".into(),
        Kind::Schemas => "a map of names to schemas".into(),
        Kind::Duration => "a number of seconds above 0, or text such as 1h30m".into(),
        Kind::Steps(_) => "a list of steps".into(),
    }
}

/// The fields as tables in Markdown.
pub fn reference() -> String {
    let mut out = String::new();
    for (title, level) in
        [("Plan", Level::Plan), ("`globals`", Level::Globals), ("Step", Level::Step), ("`ui_hints`", Level::Hints)]
    {
        out += &format!("## {title}\n\n| field | takes | default | meaning |\n|---|---|---|---|\n");
        for field in of(level) {
            let default = match (field.required, field.default) {
                (true, _) => "required".to_owned(),
                (false, "") => String::new(),
                (false, default) => format!("`{default}`"),
            };
            let doc = field.doc.replace('|', "\\|");
            out += &format!("| `{}` | {} | {default} | {doc} |\n", field.key, wanted(field.kind));
        }
        out.push('\n');
    }
    out += "## Schema\n\nA schema, under `inputs` and the `outputs` of a step, is a map of these keywords of JSON Schema.\n\n";
    out += "| keyword | takes | meaning |\n|---|---|---|\n";
    for (name, takes, doc) in keywords() {
        out += &format!("| `{name}` | {takes} | {doc} |\n");
    }
    out.push('\n');
    out
}
