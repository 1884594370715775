//! What cargo knows about the workspace: where it is, its members, and all that they depend on.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// One package: a member of the workspace or something that it depends on.
pub struct Package {
    pub name: String,
    pub version: String,
    /// The licence expression, if it states one.
    pub license: Option<String>,
    /// Where it comes from; a member has none.
    pub source: Option<String>,
    /// The packages it asks for by name, of every kind: normal, build and dev.
    pub dependencies: Vec<Dependency>,
}

/// What a package asks for.
pub struct Dependency {
    pub name: String,
    /// The asked version; `*` is any.
    pub requirement: String,
    /// Whether it is a folder of ours.
    pub is_path: bool,
}

/// The folder of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders below the workspace").to_path_buf()
}

/// The folder that builds go to.
pub fn target_folder() -> Result<PathBuf, String> {
    let metadata = metadata(&["--no-deps"])?;
    Ok(PathBuf::from(text(&metadata["target_directory"])))
}

/// The members of the workspace.
pub fn members() -> Result<Vec<Package>, String> {
    Ok(packages(&metadata(&["--no-deps"])?))
}

/// The members of the workspace and everything that they depend on, on any system.
pub fn everything() -> Result<Vec<Package>, String> {
    Ok(packages(&metadata(&["--all-features"])?))
}

fn metadata(options: &[&str]) -> Result<Value, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .args(options)
        .current_dir(root())
        .output()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr).trim_end()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata is not JSON: {error}"))
}

fn packages(metadata: &Value) -> Vec<Package> {
    list(&metadata["packages"])
        .iter()
        .map(|package| Package {
            name: text(&package["name"]),
            version: text(&package["version"]),
            license: package["license"].as_str().map(str::to_owned),
            source: package["source"].as_str().map(str::to_owned),
            dependencies: list(&package["dependencies"])
                .iter()
                .map(|dependency| Dependency {
                    name: text(&dependency["name"]),
                    requirement: text(&dependency["req"]),
                    is_path: dependency["path"].is_string(),
                })
                .collect(),
        })
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
