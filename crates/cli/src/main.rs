//! The `baton` command: reads the arguments, does what they ask, and answers with an exit code.

mod arguments;
mod commands;
mod escape;
mod face;
mod failure;
mod help;
mod manual;
mod show;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    arguments::run(std::env::args_os().collect())
}
