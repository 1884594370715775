//! What the program writes about itself: completions, man pages, reference pages; all from the one grammar.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, ValueHint, value_parser};

use crate::arguments::{Answer, Given, grammar};
use crate::face::Face;
use crate::failure::{EXIT_OK, EXIT_REFUSED, Failure};

/// The grammar of `baton completions`.
pub fn completions() -> Command {
    Command::new("completions")
        .about("Print the completions for a shell")
        .after_help("Examples:\n  baton completions bash > ~/.local/share/bash-completion/completions/baton")
        .arg(
            Arg::new("shell")
                .required(true)
                .value_name("SHELL")
                .help("The shell")
                .value_parser(value_parser!(clap_complete::Shell)),
        )
}

/// The grammar of `baton man`.
pub fn man() -> Command {
    Command::new("man")
        .about("Print the man page, or write every page into a folder")
        .after_help("Examples:\n  baton man | man -l -\n  baton man ~/.local/share/man/man1")
        .arg(
            Arg::new("folder")
                .value_name("FOLDER")
                .help("Write the pages of all commands there")
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::DirPath),
        )
        .arg(
            Arg::new("reference")
                .long("reference")
                .help("Print a page of the reference in Markdown instead")
                .value_parser(["cli", "plan"])
                .hide(true),
        )
}

/// Does what one of these commands says, or runs an action.
pub fn perform(name: &str, given: Given<'_>, face: &mut Face) -> Answer {
    match name {
        "completions" => {
            let shell = given.0.get_one::<clap_complete::Shell>("shell").copied().expect("the grammar requires it");
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut grammar(), "baton", &mut text);
            face.out.write(&text);
            Ok(EXIT_OK)
        }
        "man" => match (given.text("reference"), given.path("folder")) {
            (Some("cli"), _) => {
                face.text(&command_reference());
                Ok(EXIT_OK)
            }
            (Some(_), _) => {
                face.text(&plan_reference());
                Ok(EXIT_OK)
            }
            (None, Some(folder)) => write_pages(folder, face),
            (None, None) => {
                face.out.write(&page(&grammar())?);
                Ok(EXIT_OK)
            }
        },
        _ => {
            let kind = given.text("kind").unwrap_or_default();
            face.out.flush();
            Ok(baton_actions::run_action(kind, std::io::stdin().lock()))
        }
    }
}

fn page(command: &Command) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).manual("Baton");
    man.render(&mut text)
        .map_err(|error| Failure::new("manual-unwritable", EXIT_REFUSED, "cannot make the man page").because(&error))?;
    Ok(text)
}

fn write_pages(folder: &Path, face: &mut Face) -> Answer {
    let cannot = |path: &Path, error: std::io::Error| {
        Failure::new("manual-unwritable", EXIT_REFUSED, format!("cannot write `{}`", path.display()))
            .because(&error)
            .hint("name a folder that you may write to")
    };
    fs::create_dir_all(folder).map_err(|error| cannot(folder, error))?;
    let mut top = grammar();
    top.build();
    let mut written = Vec::new();
    for command in std::iter::once(&top).chain(top.get_subcommands().filter(|command| !command.is_hide_set())) {
        let name = command.get_display_name().unwrap_or(command.get_name()).replace(' ', "-");
        let path = folder.join(format!("{name}.1"));
        let named = command.clone().name(name.clone());
        fs::write(&path, page(&named)?).map_err(|error| cannot(&path, error))?;
        written.push(path.display().to_string());
    }
    if face.is_json() {
        face.document(&serde_json::json!({ "written": written }));
    } else {
        face.text(&format!("wrote {} pages into {}\n", written.len(), folder.display()));
    }
    Ok(EXIT_OK)
}

/// The reference page of the plan language.
fn plan_reference() -> String {
    let fields = baton_lang::reference();
    format!(
        "# Plan fields\n\n<!-- Written by `baton man --reference plan`; a test fails when it is not current. -->\n\n\
         {}\n",
        fields.trim_end()
    )
}

/// The reference page of all commands.
fn command_reference() -> String {
    let mut top = grammar();
    top.build();
    let mut out = String::from(
        "# Commands\n\n<!-- Written by `baton man --reference cli`; a test fails when it is not current. -->\n\n",
    );
    out += &format!("{}.\n\n", top.get_about().map(ToString::to_string).unwrap_or_default());
    out += "Every command takes:\n\n";
    let everywhere: Vec<&Arg> = top.get_arguments().filter(|arg| arg.is_global_set()).collect();
    out += &options(everywhere.iter().copied());
    for command in top.get_subcommands().filter(|command| !command.is_hide_set()) {
        out += &format!("## `baton {}`\n\n", command.get_name());
        out += &format!("{}.\n\n", command.get_about().map(ToString::to_string).unwrap_or_default());
        let usage = command.clone().render_usage().to_string();
        out += &format!("```text\n{}\n```\n\n", usage.trim_start_matches("Usage: "));
        let own = |arg: &&Arg| !arg.is_global_set() && !arg.is_hide_set() && arg.get_id() != "help";
        out += &options(command.get_arguments().filter(own));
        if let Some(more) = command.get_after_help().map(ToString::to_string) {
            let mut in_code = false;
            for line in more.lines() {
                let is_code = line.starts_with("  ");
                if is_code != in_code {
                    out += if is_code { "```text\n" } else { "```\n" };
                    in_code = is_code;
                }
                out += line.strip_prefix("  ").unwrap_or(line);
                out += if line == "Examples:" { "\n\n" } else { "\n" };
            }
            out += if in_code { "```\n\n" } else { "\n" };
        }
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

fn options<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let mut rows = String::new();
    for arg in args {
        let values: Vec<String> = arg.get_value_names().into_iter().flatten().map(ToString::to_string).collect();
        let takes = arg.get_action().takes_values();
        let mut words: Vec<String> = arg.get_short().map(|letter| format!("-{letter}")).into_iter().collect();
        words.extend(arg.get_long().map(|long| format!("--{long}")));
        let possible: Vec<String> = if takes {
            arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect()
        } else {
            Vec::new()
        };
        let value = if possible.is_empty() { values.join(" ") } else { possible.join("\\|") };
        let name = match (words.is_empty(), takes) {
            (true, _) => format!("`{value}`"),
            (false, true) => format!("`{} {value}`", words.join("`, `")),
            (false, false) => format!("`{}`", words.join("`, `")),
        };
        let repeats = matches!(arg.get_action(), clap::ArgAction::Append);
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        rows += &format!("| {name} | {help}{} |\n", if repeats { " (may be repeated)" } else { "" });
    }
    if rows.is_empty() { rows } else { format!("| argument | meaning |\n|---|---|\n{rows}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        grammar().debug_assert();
    }
}
