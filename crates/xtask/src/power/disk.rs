//! A model of what a disk holds when the power fails, made of recorded changes.
//!
//! * A sync of a file makes everything durable that was written to the file before, and its length. It makes no name
//!   durable: POSIX promises no more, although the usual file systems do more.
//! * A sync of a folder makes every name durable that was made, changed or removed in the folder before.
//! * Everything else may have reached the disk or not, in any order; a write may have reached it in part, in blocks
//!   of 512 bytes or 4 KiB; a file may have grown while the new bytes are still zeros.
//! * Changes of names within one folder reach the disk in their order, as with every file system that keeps a
//!   journal of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::crash::tracer::Change;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    File(usize),
    Folder,
    /// Only a name: nothing that a FIFO holds outlives its processes.
    Fifo,
}

#[derive(Clone, Debug)]
enum NameChange {
    Make(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn folder(&self) -> &Path {
        let (NameChange::Make(path, _) | NameChange::Remove(path) | NameChange::Rename(_, path)) = self;
        path.parent().unwrap_or(Path::new(""))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            NameChange::Make(path, node) => {
                names.insert(path.clone(), *node);
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Write {
        at: usize,
        bytes: Vec<u8>,
    },
    Resize {
        length: usize,
    },
    /// Room beyond the end; shorter files become so long.
    Grow {
        length: usize,
    },
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Edit>,
}

/// The disk: what is durable, and what is on its way.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    /// The names as the program sees them.
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    pending_names: Vec<NameChange>,
}

/// What became of that which was on its way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// Nothing of it reached the disk.
    Dropped,
    /// All of it did.
    Kept,
    /// Any part of it did, in blocks.
    Scattered,
    /// Names and lengths did, contents did not.
    Hollow,
    /// All but the end of the last write did.
    Torn,
}

impl Fate {
    /// All fates and their names.
    pub const ALL: &[(Fate, &str)] = &[
        (Fate::Dropped, "dropped"),
        (Fate::Kept, "kept"),
        (Fate::Scattered, "scattered"),
        (Fate::Hollow, "hollow"),
        (Fate::Torn, "torn"),
    ];
}

/// What is on the disk when the power is back.
pub struct Image {
    folders: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Disk {
    /// A disk on which everything in `folder` is durable.
    pub fn with(folder: &Path) -> Result<Disk, String> {
        let mut disk = Disk::default();
        if folder.exists() {
            disk.take_in(folder, Path::new(""))?;
        }
        disk.durable_names = disk.names.clone();
        Ok(disk)
    }

    fn take_in(&mut self, folder: &Path, name: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("`{}`: {error}", folder.join(name).display());
        self.names.insert(name.to_path_buf(), Node::Folder);
        for entry in fs::read_dir(folder.join(name)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = name.join(entry.file_name());
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                self.take_in(folder, &name)?;
            } else if kind.is_file() {
                let durable = fs::read(entry.path()).map_err(failed)?;
                self.names.insert(name, Node::File(self.files.len()));
                self.files.push(File { durable, pending: Vec::new() });
            }
        }
        Ok(())
    }

    /// Takes in a change that was made.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Open { path, empty } => match self.names.get(path) {
                Some(Node::File(file)) if *empty => self.files[*file].pending.push(Edit::Resize { length: 0 }),
                Some(_) => {}
                None => {
                    self.files.push(File::default());
                    self.name(NameChange::Make(path.clone(), Node::File(self.files.len() - 1)));
                }
            },
            Change::Write { path, at, bytes } => {
                let at = usize::try_from(*at).unwrap_or(usize::MAX);
                self.edit(path, Edit::Write { at, bytes: bytes.content.clone() });
            }
            Change::Resize { path, length } => {
                self.edit(path, Edit::Resize { length: usize::try_from(*length).unwrap_or(usize::MAX) });
            }
            Change::Allocate { path, length } => {
                self.edit(path, Edit::Grow { length: usize::try_from(*length).unwrap_or(usize::MAX) });
            }
            Change::Sync { path } => {
                if let Some(Node::File(file)) = self.names.get(path) {
                    let file = &mut self.files[*file];
                    for edit in std::mem::take(&mut file.pending) {
                        edit.apply(&mut file.durable);
                    }
                }
            }
            Change::SyncFolder { path } => {
                let pending = std::mem::take(&mut self.pending_names);
                for change in pending {
                    if change.folder() == path {
                        change.apply(&mut self.durable_names);
                    } else {
                        self.pending_names.push(change);
                    }
                }
            }
            Change::MakeFolder { path } => self.name(NameChange::Make(path.clone(), Node::Folder)),
            Change::MakeFifo { path } => self.name(NameChange::Make(path.clone(), Node::Fifo)),
            Change::Rename { from, to } => self.name(NameChange::Rename(from.clone(), to.clone())),
            Change::Remove { path } => self.name(NameChange::Remove(path.clone())),
            Change::Start => {}
        }
    }

    fn name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn edit(&mut self, path: &Path, edit: Edit) {
        // A file that was removed while it is open is in no image.
        if let Some(Node::File(file)) = self.names.get(path) {
            self.files[*file].pending.push(edit);
        }
    }

    /// Whether anything is on its way.
    pub fn has_pending(&self) -> bool {
        !self.pending_names.is_empty() || self.files.iter().any(|file| !file.pending.is_empty())
    }

    /// What is there after the power failed now.
    pub fn image(&self, fate: Fate, random: &mut Random) -> Image {
        let mut names = self.durable_names.clone();
        // For each folder: whether its changes of names still arrive.
        let mut arriving: BTreeMap<&Path, bool> = BTreeMap::new();
        for change in &self.pending_names {
            let arrives = arriving.entry(change.folder()).or_insert(fate != Fate::Dropped);
            if fate == Fate::Scattered && random.chance(4) {
                *arrives = false;
            }
            if *arrives {
                change.apply(&mut names);
            }
        }
        let block = if random.chance(2) { 512 } else { 4096 };
        let mut image = Image { folders: BTreeSet::new(), files: BTreeMap::new() };
        for (path, node) in &names {
            let is_placed =
                path.parent().is_none_or(|folder| folder == Path::new("") || image.folders.contains(folder));
            match node {
                Node::Folder if is_placed => {
                    image.folders.insert(path.clone());
                }
                Node::File(file) if is_placed => {
                    image.files.insert(path.clone(), self.files[*file].after(fate, block, random));
                }
                Node::Folder | Node::File(_) | Node::Fifo => {}
            }
        }
        image
    }
}

impl File {
    fn after(&self, fate: Fate, block: usize, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable.clone();
        let count = self.pending.len();
        for (number, edit) in self.pending.iter().enumerate() {
            match (fate, edit) {
                (Fate::Dropped, _) => {}
                (Fate::Kept, _) => edit.apply(&mut content),
                (Fate::Hollow, Edit::Write { at, bytes }) => grow(&mut content, at + bytes.len()),
                (Fate::Hollow, _) => edit.apply(&mut content),
                (Fate::Torn, Edit::Write { at, bytes }) if number + 1 == count => {
                    let blocks = bytes.len().div_ceil(block);
                    let end = (random.below(blocks.max(1)) * block).min(bytes.len());
                    Edit::Write { at: *at, bytes: bytes[..end].to_vec() }.apply(&mut content);
                }
                (Fate::Torn, _) => edit.apply(&mut content),
                (Fate::Scattered, Edit::Write { at, bytes }) => {
                    if random.chance(2) {
                        grow(&mut content, at + bytes.len());
                    }
                    let mut start = *at;
                    let end = at + bytes.len();
                    while start < end {
                        // Blocks are the disk's, wherever the write begins.
                        let stop = ((start / block + 1) * block).min(end);
                        if random.chance(2) {
                            let bytes = bytes[start - at..stop - at].to_vec();
                            Edit::Write { at: start, bytes }.apply(&mut content);
                        }
                        start = stop;
                    }
                }
                (Fate::Scattered, _) => {
                    if random.chance(2) {
                        edit.apply(&mut content);
                    }
                }
            }
        }
        content
    }
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Edit::Write { at, bytes } => {
                grow(content, at + bytes.len());
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Edit::Resize { length } => content.resize(*length, 0),
            Edit::Grow { length } => grow(content, *length),
        }
    }
}

fn grow(content: &mut Vec<u8>, length: usize) {
    if content.len() < length {
        content.resize(length, 0);
    }
}

impl Image {
    /// Writes it down as `folder`, which is not there.
    pub fn lay_out(&self, folder: &Path) -> Result<(), String> {
        let failed = |path: &Path, error: std::io::Error| format!("`{}`: {error}", path.display());
        for path in &self.folders {
            let path = folder.join(path);
            fs::create_dir_all(&path).map_err(|error| failed(&path, error))?;
        }
        for (name, content) in &self.files {
            let path = folder.join(name);
            let is_index = name.to_string_lossy().ends_with("-shm");
            // The WAL's index is memory that several processes share. After a power failure it holds anything.
            let noise = vec![0xA5; content.len()];
            fs::write(&path, if is_index { &noise } else { content }).map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }
}

/// A small generator of our own: the same seed makes the same image again.
pub struct Random(u64);

impl Random {
    /// One for each image.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Puts things into another order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for end in (1..things.len()).rev() {
            things.swap(end, self.below(end + 1));
        }
    }

    /// True once in so many times.
    fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::tracer::Bytes;

    fn write(at: u64, text: &str) -> Change {
        let bytes = Bytes { length: text.len() as u64, content: text.as_bytes().to_vec() };
        Change::Write { path: "d/f".into(), at, bytes }
    }

    fn content(disk: &Disk, fate: Fate) -> Option<String> {
        let image = disk.image(fate, &mut Random::new(1));
        image.files.get(Path::new("d/f")).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    fn disk(changes: &[Change]) -> Disk {
        let mut disk = Disk::default();
        disk.apply(&Change::MakeFolder { path: "d".into() });
        disk.apply(&Change::SyncFolder { path: "".into() });
        for change in changes {
            disk.apply(change);
        }
        disk
    }

    #[test]
    fn what_is_not_synced_may_be_gone_and_what_is_synced_is_there() {
        let open = Change::Open { path: "d/f".into(), empty: true };
        let sync = Change::Sync { path: "d/f".into() };
        let names = Change::SyncFolder { path: "d".into() };
        let none = disk(&[open.clone(), write(0, "one")]);
        assert_eq!(content(&none, Fate::Dropped), None);
        assert_eq!(content(&none, Fate::Kept).as_deref(), Some("one"));
        let nameless = disk(&[open.clone(), write(0, "one"), sync.clone()]);
        assert_eq!(content(&nameless, Fate::Dropped), None);
        let hollow = disk(&[open.clone(), write(0, "one"), names.clone()]);
        assert_eq!(content(&hollow, Fate::Dropped).as_deref(), Some(""));
        assert_eq!(content(&hollow, Fate::Hollow).as_deref(), Some("\0\0\0"));
        let safe = disk(&[open, names, write(0, "one"), sync, write(3, "two")]);
        assert_eq!(content(&safe, Fate::Dropped).as_deref(), Some("one"));
        assert_eq!(content(&safe, Fate::Kept).as_deref(), Some("onetwo"));
    }

    #[test]
    fn a_rename_over_a_file_needs_its_folder_synced() {
        let make = |path: &str| Change::Open { path: path.into(), empty: true };
        let names = Change::SyncFolder { path: "d".into() };
        let mut disk = disk(&[make("d/f"), write(0, "old"), Change::Sync { path: "d/f".into() }, names.clone()]);
        disk.apply(&make("d/g"));
        disk.apply(&Change::Rename { from: "d/g".into(), to: "d/f".into() });
        assert_eq!(content(&disk, Fate::Dropped).as_deref(), Some("old"));
        disk.apply(&names);
        assert_eq!(content(&disk, Fate::Dropped).as_deref(), Some(""));
    }
}
