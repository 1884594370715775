//! The command line's grammar, built from the one table of operations, and what each operation leads to.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use baton_core::operation::{Argument, Meaning, Row, TABLE, Takes};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, builder::PossibleValuesParser, value_parser};

use crate::face::{Face, Format};
use crate::failure::{EXIT_OK, EXIT_REFUSED, EXIT_USAGE, Failure};
use crate::{commands, help, manual};

/// What everything that can be asked for answers with: the exit code.
pub type Answer = Result<u8, Failure>;

/// The whole grammar.
pub fn grammar() -> Command {
    let mut command = Command::new("baton")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs plans of steps: durable, and as fast as a build tool")
        .after_help(help::OVERVIEW)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .max_term_width(100)
        .args(everywhere());
    for row in TABLE {
        command = command.subcommand(subcommand(row));
    }
    command.subcommand(manual::completions()).subcommand(manual::man()).subcommand(
        Command::new("action")
            .about("Run one action with its JSON input on standard input, as a step does")
            .hide(true)
            .arg(Arg::new("kind").required(true)),
    )
}

/// The options that every command takes.
fn everywhere() -> Vec<Arg> {
    let option = |name: &'static str| Arg::new(name).long(name).global(true).help_heading("Everywhere");
    vec![
        option("output")
            .short('o')
            .value_name("FORM")
            .value_parser(["text", "json"])
            .default_value("text")
            .hide_default_value(true)
            .help("Answer in text, or in JSON: one document, or one line for each thing where they come one by one"),
        option("data-dir")
            .value_name("FOLDER")
            .value_parser(value_parser!(PathBuf))
            .value_hint(ValueHint::DirPath)
            .help("Where runs are kept [default: the nearest `.baton` above, else beside `.git`, else here]"),
        option("color")
            .value_name("WHEN")
            .value_parser(["auto", "always", "never"])
            .default_value("auto")
            .hide_default_value(true)
            .help("Use colours; `auto`: on a terminal, unless NO_COLOR is set"),
        option("quiet").short('q').action(ArgAction::SetTrue).help("Tell failures only"),
    ]
}

fn subcommand(row: &'static Row) -> Command {
    let takes_step = row.arguments.iter().any(|argument| argument.name == "step");
    Command::new(row.name)
        .about(row.summary)
        .after_help(help::examples(row.operation))
        .args(row.arguments.iter().map(|argument| arg(argument, takes_step)))
}

/// `takes_step`: the command also takes a step by place, which may then stand in the place of the run.
fn arg(argument: &'static Argument, takes_step: bool) -> Arg {
    let mut arg = Arg::new(argument.name).help(argument.help).value_name(argument.value.word());
    arg = match argument.takes {
        Takes::Positional => arg.required(true),
        Takes::OptionalPositional => arg,
        Takes::Positionals => arg.action(ArgAction::Append),
        Takes::Flag => arg.long(argument.name).action(ArgAction::SetTrue),
        Takes::Value | Takes::OneOf(_) => arg.long(argument.name),
        Takes::Values => arg.long(argument.name).action(ArgAction::Append),
    };
    if let Some(letter) = argument.short {
        arg = arg.short(letter);
    }
    if let Takes::OneOf(words) = argument.takes {
        return arg.value_parser(PossibleValuesParser::new(words)).value_name("WORD");
    }
    if argument.takes == Takes::Flag {
        return arg;
    }
    match argument.value {
        Meaning::Run if takes_step && argument.takes == Takes::OptionalPositional => arg,
        Meaning::Text | Meaning::Step => arg,
        Meaning::Number => arg.value_parser(number),
        Meaning::Count | Meaning::Run => arg.value_parser(count),
        Meaning::Pair => arg.value_parser(pair),
        Meaning::FileOrInput | Meaning::File => {
            arg.value_parser(value_parser!(PathBuf)).value_hint(ValueHint::FilePath)
        }
        Meaning::Folder => arg.value_parser(value_parser!(PathBuf)).value_hint(ValueHint::DirPath),
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a whole number is wanted".to_owned())
}

fn count(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a whole number from 1 up is wanted".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a name and a value are wanted, as in `KEY=VALUE`".to_owned()),
    }
}

/// What was given to a command.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a>(pub &'a ArgMatches);

impl<'a> Given<'a> {
    /// Whether a flag was given.
    pub fn flag(self, name: &str) -> bool {
        self.0.get_flag(name)
    }

    /// A text.
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.0.get_one::<String>(name).map(String::as_str)
    }

    /// All texts.
    pub fn texts(self, name: &str) -> Vec<String> {
        self.0.get_many::<String>(name).into_iter().flatten().cloned().collect()
    }

    /// A number.
    pub fn number(self, name: &str) -> Option<u64> {
        self.0.get_one::<u64>(name).copied()
    }

    /// A path.
    pub fn path(self, name: &str) -> Option<&'a Path> {
        self.0.get_one::<PathBuf>(name).map(PathBuf::as_path)
    }

    /// All paths.
    pub fn paths(self, name: &str) -> Vec<&'a Path> {
        self.0.get_many::<PathBuf>(name).into_iter().flatten().map(PathBuf::as_path).collect()
    }

    /// Names and values, in the order given.
    pub fn pairs(self, name: &str) -> impl Iterator<Item = (String, String)> {
        self.0.get_many::<(String, String)>(name).into_iter().flatten().cloned()
    }
}

/// The whole program but for its process: reads the arguments and does what they ask.
pub fn run(words: Vec<OsString>) -> ExitCode {
    let color = match spoken(&words, "color", None).as_deref() {
        Some("always") => Some(true),
        Some("never") => Some(false),
        _ => None,
    };
    let is_json = spoken(&words, "output", Some('o')).as_deref() == Some("json");
    let is_quiet = words.iter().any(|word| word == "--quiet" || word == "-q");
    let mut face = Face::new(if is_json { Format::Json } else { Format::Text }, is_quiet, color);
    let choice = match (color, face.color_err) {
        (Some(true), _) => clap::ColorChoice::Always,
        (None, true) => clap::ColorChoice::Auto,
        (Some(false), _) | (None, false) => clap::ColorChoice::Never,
    };
    let answer = match grammar().color(choice).try_get_matches_from(words) {
        Ok(matches) => perform(&matches, &mut face),
        Err(error) => refuse(&error, &mut face),
    };
    let exit = answer.unwrap_or_else(|failure| {
        face.failure(&failure);
        failure.exit
    });
    face.out.flush();
    ExitCode::from(told(exit, &mut face))
}

/// The exit code of a command whose answer may not have come through.
fn told(exit: u8, face: &mut Face) -> u8 {
    let Some(error) = face.out.broken() else { return exit };
    let failure = Failure::new("output-lost", EXIT_REFUSED, "not everything could be written to standard output")
        .because(&error)
        .hint("nothing of a run is lost: see `baton status`, `baton logs` and `baton events`");
    face.failure(&failure);
    // How a run ended says more than that nobody could read it.
    if exit == EXIT_OK { failure.exit } else { exit }
}

/// The value of an option, read before the grammar is asked: how to talk must be known to say what is wrong.
fn spoken(words: &[OsString], name: &str, short: Option<char>) -> Option<String> {
    let mut words = words.iter().skip(1).map(|word| word.to_string_lossy()).take_while(|word| word != "--");
    let mut value = None;
    while let Some(word) = words.next() {
        let is_short =
            short.is_some_and(|letter| word.strip_prefix('-').is_some_and(|rest| rest == letter.to_string()));
        if is_short || word.strip_prefix("--") == Some(name) {
            value = words.next().map(|word| word.into_owned());
        } else if let Some(rest) = word.strip_prefix("--").and_then(|word| word.strip_prefix(name))
            && let Some(rest) = rest.strip_prefix('=')
        {
            value = Some(rest.to_owned());
        } else if let Some(letter) = short
            && let Some(rest) = word.strip_prefix('-').and_then(|word| word.strip_prefix(letter))
        {
            value = Some(rest.trim_start_matches('=').to_owned());
        }
    }
    value
}

fn refuse(error: &clap::Error, face: &mut Face) -> Answer {
    let text = if face.color_err { error.render().ansi().to_string() } else { error.render().to_string() };
    if !error.use_stderr() {
        face.text(&text);
        return Ok(0);
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && !face.is_json() {
        face.err.write(text.as_bytes());
        face.err.flush();
        return Ok(EXIT_USAGE);
    }
    let plain = error.render().to_string();
    let (message, rest) = plain.split_once("\n\n").unwrap_or((&plain, ""));
    // A list in it stands on lines of its own.
    let words: Vec<&str> = message.trim_start_matches("error: ").lines().map(str::trim).collect();
    let message = words.join(" ");
    let tips: Vec<&str> = rest.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).collect();
    let usage = rest.lines().find_map(|line| line.trim().strip_prefix("Usage: "));
    let hint = match (tips.is_empty(), usage) {
        (false, _) => tips.join("; "),
        (true, Some(usage)) => format!("use it so: {usage}"),
        (true, None) => "`baton --help` shows the commands, `baton COMMAND --help` its arguments".to_owned(),
    };
    Err(Failure::new("usage", EXIT_USAGE, message).hint(hint))
}

fn perform(matches: &ArgMatches, face: &mut Face) -> Answer {
    let Some((name, given)) = matches.subcommand() else {
        return Err(Failure::new("usage", EXIT_USAGE, "a command is wanted").hint("see `baton --help`"));
    };
    match TABLE.iter().find(|row| row.name == name) {
        Some(row) => commands::perform(row.operation, Given(given), face),
        None => manual::perform(name, Given(given), face),
    }
}
