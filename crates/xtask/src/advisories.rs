//! Known faults of what we depend on, from the RustSec database where it can be reached.

use std::fs;
use std::path::{Path, PathBuf};

use semver::{Version, VersionReq};

use crate::workspace::{self, Package};

const DATABASE: &str = "https://github.com/rustsec/advisory-db";

/// Checks every package; where the database cannot be had it says so and goes on.
pub fn check(packages: &[Package]) -> Result<(), String> {
    let database = match fetch() {
        Ok(database) => database,
        Err(why) => {
            println!("advisories: NOT CHECKED, {why}");
            return Ok(());
        }
    };
    let mut problems = Vec::new();
    for package in packages.iter().filter(|package| package.source.is_some()) {
        let Ok(version) = Version::parse(&package.version) else { continue };
        for page in pages(&database.join("crates").join(&package.name)) {
            if let Some(identifier) = concerns(&page, &version) {
                problems.push(format!("{} {version}: {identifier}", package.name));
            }
        }
    }
    if problems.is_empty() {
        println!("advisories: none for {} packages", packages.len());
        Ok(())
    } else {
        Err(format!("known faults (see https://rustsec.org):\n  {}", problems.join("\n  ")))
    }
}

/// The database's newest state, in the folder for builds.
fn fetch() -> Result<PathBuf, String> {
    let folder = workspace::target_folder()?.join("advisory-db");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| format!("`{}` cannot be renewed: {error}", folder.display()))?;
    }
    let mut git = std::process::Command::new("git");
    git.args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=20"])
        .args(["clone", "--quiet", "--depth=1", DATABASE])
        .arg(&folder)
        .env("GIT_TERMINAL_PROMPT", "0");
    let output = git.output().map_err(|error| format!("git cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(folder);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{DATABASE} cannot be reached ({})", said.trim().lines().last().unwrap_or("git says nothing")))
}

fn pages(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
}

/// The advisory's number, if its page concerns this version: not withdrawn, neither mended nor never broken.
fn concerns(page: &str, version: &Version) -> Option<String> {
    let mut identifier = None;
    let mut section = "";
    let mut fine = false;
    // Inside a list of ranges that goes over several lines.
    let mut open = false;
    for line in page.lines().skip_while(|line| !line.starts_with("```toml")).skip(1) {
        if line.starts_with("```") {
            break;
        }
        let (key, value) = if open {
            ("patched", line)
        } else if line.starts_with('[') {
            section = line.trim();
            continue;
        } else {
            let Some((key, value)) = line.split_once('=') else { continue };
            (key.trim(), value.trim())
        };
        match (section, key) {
            ("[advisory]", "id") => identifier = Some(value.trim_matches('"').to_owned()),
            ("[advisory]", "withdrawn") => return None,
            // A remark (say: no longer maintained) is no fault of the code.
            ("[advisory]", "informational") => return None,
            ("[versions]", "patched" | "unaffected") => {
                let ranges = value.split('"').skip(1).step_by(2);
                fine |= ranges.filter_map(|range| VersionReq::parse(range).ok()).any(|range| range.matches(version));
                open = !value.trim_end().ends_with(']');
            }
            _ => {}
        }
    }
    if fine { None } else { identifier }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "```toml\n[advisory]\nid = \"RUSTSEC-2026-0001\"\npackage = \"thing\"\n\n[versions]\n\
        patched = [\n  \">= 1.2.3\",\n  \"^0.9.5\",\n]\nunaffected = [\"< 0.5\"]\n```\n\n# A title\n";

    fn concerned(page: &str, version: &str) -> bool {
        concerns(page, &Version::parse(version).expect("the test writes a version")).is_some()
    }

    #[test]
    fn a_version_between_never_broken_and_mended_is_concerned() {
        assert!(concerned(PAGE, "1.2.2"));
        assert!(concerned(PAGE, "0.5.0"));
        for fine in ["1.2.3", "2.0.0", "0.9.6", "0.4.9"] {
            assert!(!concerned(PAGE, fine), "{fine}");
        }
    }

    #[test]
    fn a_withdrawn_page_and_a_remark_concern_nobody() {
        assert!(!concerned(&PAGE.replace("package = ", "withdrawn = "), "1.0.0"));
        assert!(!concerned(&PAGE.replace("package = ", "informational = "), "1.0.0"));
    }
}
