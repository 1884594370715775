//! The programs that the checks need: found, installed where that is allowed, or listed as missing.

use std::process::Command;

use crate::run;

/// A program, the Debian package that has it, and what it is for.
struct Program {
    name: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program { name: "git", package: "git", purpose: "the safe-merge tests, and the list of files to check" },
    Program { name: "cc", package: "gcc", purpose: "the bundled SQLite" },
    Program { name: "make", package: "make", purpose: "the benchmark's peer" },
    Program { name: "ninja", package: "ninja-build", purpose: "the benchmark's peer" },
];

/// The release of nextest that the project is tested with; it builds with the pinned toolchain.
const NEXTEST: &str = "0.9.143";

/// Finds every program, installs what is missing by apt if this process may, and fails with a list of the rest.
pub fn all() -> Result<(), String> {
    let missing: Vec<&Program> = PROGRAMS.iter().filter(|program| !is_here(program.name)).collect();
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|program| program.package).collect();
        install(&packages)?;
    }
    let missing: Vec<String> = PROGRAMS
        .iter()
        .filter(|program| !is_here(program.name))
        .map(|program| format!("  {} (package `{}`): {}", program.name, program.package, program.purpose))
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "these programs are missing and cannot be installed from here; install them and try again:\n{}",
            missing.join("\n")
        ));
    }
    nextest()
}

/// The test runner, built from source once if it is not here.
fn nextest() -> Result<(), String> {
    if run::quiet(env!("CARGO"), &["nextest", "--version"]).is_some() {
        return Ok(());
    }
    println!("cargo-nextest is missing: building it (some minutes, once)");
    // Unoptimised: it starts test programs and waits for them, and builds in half the time.
    run::show(&mut run::cargo(&["install", "--locked", "--debug", "cargo-nextest", "--version", NEXTEST])).map_err(
        |problem| format!("{problem}; install cargo-nextest {NEXTEST} or newer (https://nexte.st) and try again"),
    )
}

/// Asks apt for packages, as root or by sudo if that needs no password; else does nothing.
fn install(packages: &[&str]) -> Result<(), String> {
    if !is_here("apt-get") {
        return Ok(());
    }
    let as_root = run::quiet("id", &["-u"]).as_deref() == Some("0");
    let by_sudo = !as_root && run::quiet("sudo", &["-n", "true"]).is_some();
    if !as_root && !by_sudo {
        return Ok(());
    }
    let apt = |arguments: &[&str]| {
        let mut command = if by_sudo { Command::new("sudo") } else { Command::new("apt-get") };
        if by_sudo {
            command.args(["-n", "apt-get"]);
        }
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        run::show(&mut command)
    };
    println!("installing by apt: {}", packages.join(" "));
    // The lists of a fresh image are empty; an old list is good enough when they cannot be renewed.
    if let Err(problem) = apt(&["update", "-qq"]) {
        println!("{problem}; going on with the lists that are here");
    }
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments)
}

fn is_here(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
