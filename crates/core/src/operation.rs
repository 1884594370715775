//! Everything that can be done to runs and to the data directory, as one table: every face (command line, later HTTP
//! and the browser) takes names, arguments, legal states and refusals from here.

use serde::Serialize;

use crate::{RunId, RunStatus};

/// Something a person or a program can ask for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Start a run and drive it.
    Run,
    /// Judge a plan.
    Check,
    /// Show a plan's steps and edges.
    Graph,
    /// Print the language's JSON Schema.
    Schema,
    /// List runs.
    Runs,
    /// Show one run.
    Status,
    /// Show what steps printed.
    Logs,
    /// Show a run's log of events.
    Events,
    /// Tell why steps are not running.
    Why,
    /// End a run.
    Cancel,
    /// Make an abandoned run go on.
    Resume,
    /// Run again what did not succeed, as a new run.
    Retry,
    /// Show who holds which lock.
    Locks,
    /// Judge the health of the data directory.
    Doctor,
    /// Copy the data directory while it is in use.
    Backup,
    /// Lay a backup back.
    Restore,
    /// Remove old runs and give the disk back.
    Gc,
    /// Write a first plan.
    Init,
}

/// Where a run is, as far as operations care.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Situation {
    /// A live process drives it.
    Live,
    /// A live process drives it, and it is already stopping.
    Stopping,
    /// It is not over and no live process drives it.
    Abandoned,
    /// It is over.
    Over(RunStatus),
}

impl Situation {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Situation::Live => "running",
            Situation::Stopping => "stopping",
            Situation::Abandoned => "abandoned",
            Situation::Over(status) => status.word(),
        }
    }
}

/// One argument of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Argument {
    /// Its name, as in `--name` or as the place of a positional one.
    pub name: &'static str,
    /// The letter that says the same, as in `-j`.
    pub short: Option<char>,
    /// What it is good for, in one line.
    pub help: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// What its value means.
    pub value: Meaning,
}

/// What the value of an argument means: how it is checked at the edge, and how it is called in help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// Words of any kind.
    Text,
    /// A whole number from 0 up.
    Number,
    /// A whole number from 1 up.
    Count,
    /// A run's number.
    Run,
    /// A step's id.
    Step,
    /// A name and a value, as in `KEY=VALUE`.
    Pair,
    /// A file that is there, or `-` for standard input.
    FileOrInput,
    /// A file.
    File,
    /// A folder.
    Folder,
}

impl Meaning {
    /// What a value of this meaning is called in help.
    pub fn word(self) -> &'static str {
        match self {
            Meaning::Text => "TEXT",
            Meaning::Number | Meaning::Count => "N",
            Meaning::Run => "RUN",
            Meaning::Step => "STEP",
            Meaning::Pair => "KEY=VALUE",
            Meaning::FileOrInput => "PLAN",
            Meaning::File => "FILE",
            Meaning::Folder => "FOLDER",
        }
    }
}

/// What an argument takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Takes {
    /// A value that must be there, by place.
    Positional,
    /// A value that may be there, by place.
    OptionalPositional,
    /// Any number of values, by place.
    Positionals,
    /// Nothing: the name alone says it.
    Flag,
    /// One value.
    Value,
    /// One value each time; may be repeated.
    Values,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// One row of the table.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Row {
    /// The operation.
    pub operation: Operation,
    /// Its name everywhere.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What it takes.
    pub arguments: &'static [Argument],
    /// Whether it changes anything.
    pub changes: bool,
}

const fn argument(name: &'static str, help: &'static str, takes: Takes, value: Meaning) -> Argument {
    Argument { name, short: None, help, takes, value }
}

const fn positional(name: &'static str, value: Meaning, help: &'static str) -> Argument {
    argument(name, help, Takes::Positional, value)
}

const fn optional(name: &'static str, value: Meaning, help: &'static str) -> Argument {
    argument(name, help, Takes::OptionalPositional, value)
}

const fn flag(name: &'static str, help: &'static str) -> Argument {
    argument(name, help, Takes::Flag, Meaning::Text)
}

const fn value(name: &'static str, value: Meaning, help: &'static str) -> Argument {
    argument(name, help, Takes::Value, value)
}

const fn values(name: &'static str, value: Meaning, help: &'static str) -> Argument {
    argument(name, help, Takes::Values, value)
}

const fn one_of(name: &'static str, words: &'static [&'static str], help: &'static str) -> Argument {
    argument(name, help, Takes::OneOf(words), Meaning::Text)
}

impl Argument {
    const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }
}

const PLAN: Argument =
    positional("plan", Meaning::FileOrInput, "The plan file (.yaml, .yml or .json), or `-` for standard input");
const RUN: Argument = positional("run", Meaning::Run, "The run's number");
const LATEST: Argument = optional("run", Meaning::Run, "The run's number; the latest one by default");
const ONE_STEP: Argument = optional("step", Meaning::Step, "Only this step");
const VAR: Argument = values("var", Meaning::Pair, "Set a plan variable");
const VAR_FILE: Argument =
    values("var-file", Meaning::File, "Read plan variables from a file (.yaml, .json, else KEY=value lines)");
const FROM: Argument = values("from", Meaning::Step, "Only this step and everything that depends on it");
const TO: Argument = values("to", Meaning::Step, "Only this step and everything that it depends on");
const ONLY: Argument = values("only", Meaning::Step, "Only this step");
const TAG: Argument = values("tag", Meaning::Text, "Only steps with this tag");
const OUTPUTS_FROM: Argument =
    value("outputs-from", Meaning::Run, "Take the outputs of steps outside the slice from this run");
const JOBS: Argument =
    value("jobs", Meaning::Count, "How many steps may run at once, whatever the plan says").short('j');
const FOLLOW: Argument = flag("follow", "Go on until the run is over").short('f');
const LABEL: Argument = values("label", Meaning::Pair, "Only runs with this label");

/// The table.
pub const TABLE: &[Row] = &[
    Row {
        operation: Operation::Run,
        name: "run",
        summary: "Run a plan and show it live",
        arguments: &[
            PLAN,
            JOBS,
            VAR,
            VAR_FILE,
            values("label", Meaning::Pair, "Give the run a label"),
            value(
                "idempotency-key",
                Meaning::Text,
                "A second submit with the same key answers with the first one's run",
            ),
            FROM,
            TO,
            ONLY,
            TAG,
            OUTPUTS_FROM,
            flag("dry-run", "Show what would run, with everything substituted, and run nothing"),
        ],
        changes: true,
    },
    Row {
        operation: Operation::Check,
        name: "check",
        summary: "Judge a plan: every problem at once, with its place and what to do",
        arguments: &[PLAN, VAR, VAR_FILE, flag("strict", "Treat warnings as errors")],
        changes: false,
    },
    Row {
        operation: Operation::Graph,
        name: "graph",
        summary: "Show a plan's steps and edges",
        arguments: &[PLAN, VAR, VAR_FILE, one_of("format", &["text", "mermaid", "dot"], "How to draw it").short('F')],
        changes: false,
    },
    Row {
        operation: Operation::Schema,
        name: "schema",
        summary: "Print the JSON Schema of plans, for editors",
        arguments: &[],
        changes: false,
    },
    Row {
        operation: Operation::Runs,
        name: "runs",
        summary: "List runs, the latest first",
        arguments: &[
            one_of(
                "status",
                &["running", "stopping", "abandoned", "succeeded", "failed", "canceled"],
                "Only runs in this status",
            ),
            LABEL,
            value("plan-id", Meaning::Text, "Only runs of this plan"),
            value("limit", Meaning::Count, "At most so many (20)"),
        ],
        changes: false,
    },
    Row {
        operation: Operation::Status,
        name: "status",
        summary: "Show where a run and its steps are",
        arguments: &[LATEST],
        changes: false,
    },
    Row {
        operation: Operation::Logs,
        name: "logs",
        summary: "Show what a run's steps printed",
        arguments: &[
            LATEST,
            ONE_STEP,
            value("attempt", Meaning::Count, "Only this attempt"),
            FOLLOW,
            value("tail", Meaning::Number, "Only the last so many lines of each attempt"),
            flag("raw", "The exact bytes, without prefixes, and with control characters as they are"),
        ],
        changes: false,
    },
    Row {
        operation: Operation::Events,
        name: "events",
        summary: "Show a run's log of events",
        arguments: &[LATEST, FOLLOW, value("after", Meaning::Number, "Only events after this sequence number")],
        changes: false,
    },
    Row {
        operation: Operation::Why,
        name: "why",
        summary: "Tell why steps are not running, with the blocker's name",
        arguments: &[LATEST, ONE_STEP],
        changes: false,
    },
    Row {
        operation: Operation::Cancel,
        name: "cancel",
        summary: "End a run: its steps are told to end, then ended",
        arguments: &[RUN, flag("hurry", "End what runs at once, without asking")],
        changes: true,
    },
    Row {
        operation: Operation::Resume,
        name: "resume",
        summary: "Make an abandoned run go on; nothing finished is repeated",
        arguments: &[optional("run", Meaning::Run, "The run's number; every abandoned one by default")],
        changes: true,
    },
    Row {
        operation: Operation::Retry,
        name: "retry",
        summary: "Run again what did not succeed, as a new run that keeps the rest",
        arguments: &[
            RUN,
            value("from", Meaning::Step, "Also run again this step and everything that depends on it"),
            JOBS,
        ],
        changes: true,
    },
    Row {
        operation: Operation::Locks,
        name: "locks",
        summary: "Show who holds which lock, and who waits for it",
        arguments: &[],
        changes: false,
    },
    Row {
        operation: Operation::Doctor,
        name: "doctor",
        summary: "Judge the health of the data directory: integrity, hash chains, bytes per table",
        arguments: &[],
        changes: false,
    },
    Row {
        operation: Operation::Backup,
        name: "backup",
        summary: "Copy the data directory into a folder while it is in use",
        arguments: &[positional("folder", Meaning::Folder, "The folder to make")],
        changes: false,
    },
    Row {
        operation: Operation::Restore,
        name: "restore",
        summary: "Verify a backup and lay it back as the data directory",
        arguments: &[
            positional("folder", Meaning::Folder, "The folder that `baton backup` made"),
            flag("without-damaged", "Leave out runs that are damaged in it, and runs that take outputs from those"),
        ],
        changes: true,
    },
    Row {
        operation: Operation::Gc,
        name: "gc",
        summary: "Remove old finished runs and give the disk back",
        arguments: &[
            value("keep-days", Meaning::Number, "Keep runs that ended in the last so many days (30)"),
            value("keep-last", Meaning::Number, "Keep at least the last so many runs (0)"),
            flag("dry-run", "Tell what would be removed, and remove nothing"),
        ],
        changes: true,
    },
    Row {
        operation: Operation::Init,
        name: "init",
        summary: "Write a first plan to begin with",
        arguments: &[optional("file", Meaning::File, "The file to write (plan.yaml)")],
        changes: true,
    },
];

/// Why an operation is refused, and what can be done instead.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, thiserror::Error)]
#[error("cannot {operation} run {run}: it {state}; {hint}")]
pub struct Illegal {
    /// The operation's name.
    pub operation: &'static str,
    /// The run.
    pub run: RunId,
    /// Where the run is, in words that follow "it".
    pub state: String,
    /// What can be done instead.
    pub hint: String,
}

/// Whether `operation` may be done to a run in this situation.
pub fn check(operation: Operation, run: RunId, situation: Situation) -> Result<(), Illegal> {
    let refuse = |state: &str, hint: String| {
        let name = TABLE.iter().find(|row| row.operation == operation).map_or("change", |row| row.name);
        Err(Illegal { operation: name, run, state: state.to_owned(), hint })
    };
    match (operation, situation) {
        (Operation::Cancel, Situation::Live | Situation::Stopping | Situation::Abandoned) => Ok(()),
        (Operation::Cancel, Situation::Over(status)) => {
            refuse(&format!("has already {}", ended(status)), format!("see it with `baton status {run}`"))
        }
        (Operation::Resume, Situation::Abandoned) => Ok(()),
        (Operation::Resume, Situation::Live | Situation::Stopping) => refuse(
            "is driven by a live process",
            format!("watch it with `baton logs {run} --follow`, or end it with `baton cancel {run}`"),
        ),
        (Operation::Resume, Situation::Over(status)) => refuse(
            &format!("has {}, and a finished run does not reopen", ended(status)),
            format!("make a new run of what did not succeed with `baton retry {run}`"),
        ),
        (Operation::Retry, Situation::Over(_)) => Ok(()),
        (Operation::Retry, Situation::Live | Situation::Stopping) => {
            refuse("is still going", format!("wait for it, or end it with `baton cancel {run}`"))
        }
        (Operation::Retry, Situation::Abandoned) => refuse(
            "is abandoned, not over",
            format!("let it go on with `baton resume {run}`, or end it with `baton cancel {run}`"),
        ),
        (
            Operation::Run
            | Operation::Check
            | Operation::Graph
            | Operation::Schema
            | Operation::Runs
            | Operation::Status
            | Operation::Logs
            | Operation::Events
            | Operation::Why
            | Operation::Locks
            | Operation::Doctor
            | Operation::Backup
            | Operation::Restore
            | Operation::Gc
            | Operation::Init,
            _,
        ) => Ok(()),
    }
}

fn ended(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Succeeded => "succeeded",
        RunStatus::Failed => "failed",
        RunStatus::Canceled => "been canceled",
    }
}
