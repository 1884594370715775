//! Finds the files that a step's `artifacts` globs name: beneath its working folder, never through a symbolic link.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// The most files that one attempt may leave as artefacts.
pub const ARTIFACTS: usize = 1000;
/// The most bytes that one attempt may leave as artefacts.
pub const ARTIFACT_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// How many files and folders are looked at, at most.
const VISITED: usize = 200_000;
/// How deep folders are searched, at most.
const DEPTH: usize = 64;

/// A file that an attempt left behind on purpose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundArtifact {
    /// The path relative to the step's working folder, with `/`.
    pub path: String,
    /// The size in bytes.
    pub bytes: u64,
}

struct Search {
    found: BTreeMap<String, u64>,
    bytes: u64,
    visited: usize,
}

/// All files that match one of `globs`, by path. A file that matches two stands there once.
pub(crate) fn find(folder: &Path, globs: &[String]) -> Result<Vec<FoundArtifact>, String> {
    let mut search = Search { found: BTreeMap::new(), bytes: 0, visited: 0 };
    for glob in globs {
        search.glob(folder, glob)?;
    }
    Ok(search.found.into_iter().map(|(path, bytes)| FoundArtifact { path, bytes }).collect())
}

impl Search {
    fn glob(&mut self, folder: &Path, glob: &str) -> Result<(), String> {
        let glob = glob.strip_prefix("./").unwrap_or(glob);
        if glob.starts_with('/') || glob.split('/').any(|part| part == "..") {
            return Err(format!("the artifact pattern `{glob}` leads out of the step's working folder"));
        }
        let matcher = GlobBuilder::new(glob)
            .literal_separator(true)
            .build()
            .map_err(|error| format!("the artifact pattern `{glob}` is not a glob: {error}"))?
            .compile_matcher();
        // What stands before the first special character need not be searched for.
        let parts: Vec<&str> = glob.split('/').collect();
        let literal = parts.iter().take_while(|part| !part.contains(['*', '?', '[', '{', '\\'])).count();
        let literal = literal.min(parts.len() - 1);
        let mut start = String::new();
        for part in &parts[..literal] {
            join(&mut start, part);
            match fs::symlink_metadata(folder.join(&start)) {
                Ok(metadata) if metadata.is_dir() => {}
                _ => return Ok(()),
            }
        }
        self.walk(folder, start, &matcher)
    }

    fn walk(&mut self, folder: &Path, start: String, matcher: &GlobMatcher) -> Result<(), String> {
        let mut waiting = vec![(start, 0)];
        while let Some((at, depth)) = waiting.pop() {
            let path: PathBuf = if at.is_empty() { folder.to_owned() } else { folder.join(&at) };
            // It may be gone, or closed to us: then there is nothing in it to keep.
            let Ok(listing) = fs::read_dir(path) else { continue };
            for entry in listing.flatten() {
                self.visited += 1;
                if self.visited > VISITED {
                    return Err(format!(
                        "the artifact pattern `{}` made baton look at more than {VISITED} files; name a smaller folder",
                        matcher.glob()
                    ));
                }
                let Ok(kind) = entry.file_type() else { continue };
                let name = entry.file_name();
                let mut relative = at.clone();
                if kind.is_dir() {
                    if let Some(name) = name.to_str()
                        && depth < DEPTH
                    {
                        join(&mut relative, name);
                        waiting.push((relative, depth + 1));
                    }
                } else if kind.is_file() && matcher.is_match(Path::new(&at).join(&name)) {
                    let Some(name) = name.to_str() else {
                        return Err(format!("the artifact `{}` has a name that is not UTF-8", entry.path().display()));
                    };
                    join(&mut relative, name);
                    let Ok(metadata) = entry.metadata() else { continue };
                    self.take(relative, metadata.len())?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, path: String, bytes: u64) -> Result<(), String> {
        if self.found.insert(path, bytes).is_none() {
            self.bytes += bytes;
        }
        if self.found.len() > ARTIFACTS {
            return Err(format!("the step left more than {ARTIFACTS} artifacts; pack them into one file"));
        }
        if self.bytes > ARTIFACT_BYTES {
            return Err(format!(
                "the step left more than {ARTIFACT_BYTES} bytes of artifacts; keep less, or elsewhere"
            ));
        }
        Ok(())
    }
}

fn join(path: &mut String, part: &str) {
    if !path.is_empty() {
        path.push('/');
    }
    path.push_str(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(folder: &Path, globs: &[&str]) -> Result<Vec<String>, String> {
        let globs: Vec<String> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        Ok(find(folder, &globs)?.into_iter().map(|found| format!("{} {}", found.path, found.bytes)).collect())
    }

    #[test]
    fn files_are_found_beneath_the_folder_once_and_links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.txt"), "x").unwrap();
        let inside = tempfile::tempdir().unwrap();
        let folder = inside.path();
        fs::create_dir_all(folder.join("dist/deep")).unwrap();
        fs::write(folder.join("dist/a.txt"), "a").unwrap();
        fs::write(folder.join("dist/deep/b.txt"), "bb").unwrap();
        fs::write(folder.join("top.log"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.join("out")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret.txt"), folder.join("dist/link.txt")).unwrap();

        assert_eq!(paths(folder, &["dist/*.txt"]).unwrap(), ["dist/a.txt 1"]);
        assert_eq!(paths(folder, &["**/*.txt", "./dist/*.txt"]).unwrap(), ["dist/a.txt 1", "dist/deep/b.txt 2"]);
        assert_eq!(paths(folder, &["top.log", "missing/*"]).unwrap(), ["top.log 0"]);
        assert!(paths(folder, &["out/*.txt", "out/secret.txt"]).unwrap().is_empty());
        assert!(paths(folder, &["../*"]).unwrap_err().contains("leads out of"));
        assert!(paths(folder, &["/etc/passwd"]).unwrap_err().contains("leads out of"));
        assert!(paths(folder, &["a[b"]).unwrap_err().contains("is not a glob"));
    }

    #[test]
    fn too_many_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=ARTIFACTS {
            fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        assert!(paths(folder.path(), &["*"]).unwrap_err().contains("more than 1000 artifacts"));
    }
}
