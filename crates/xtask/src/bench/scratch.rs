//! A folder for the files of one benchmark, gone when it ends.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder; dropping it removes it.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new empty folder below `parent`, which lies where builds go: on a disk, so that a sync costs what it costs.
    pub fn new(parent: &Path) -> Result<Scratch, String> {
        let path = parent.join(std::process::id().to_string());
        fs::create_dir_all(&path).map_err(|error| format!("cannot create `{}`: {error}", path.display()))?;
        Ok(Scratch { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder of this name in it, new and empty.
    pub fn fresh(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.path.join(name);
        let cannot = |error| format!("cannot renew `{}`: {error}", path.display());
        if path.exists() {
            fs::remove_dir_all(&path).map_err(cannot)?;
        }
        fs::create_dir_all(&path).map_err(cannot)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("`{}` stays behind: {error}", self.path.display());
        }
    }
}
