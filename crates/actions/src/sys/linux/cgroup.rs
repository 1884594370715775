//! Control groups, version 2: where they are, and what can be done with one.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How deep the tree beneath a group is followed; the kernel's own limit is often less.
const DEPTH: usize = 64;

/// A control group that processes can be born into. As long as this lives its folder is locked, so that nobody takes it
/// for one whose owner is dead.
pub(crate) struct Cgroup {
    path: PathBuf,
    folder: File,
}

impl Cgroup {
    /// Makes it, or takes the one that is there.
    pub(crate) fn make(path: PathBuf) -> io::Result<Self> {
        match DirBuilder::new().mode(0o755).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let folder = File::open(&path)?;
        // Without the lock it may be removed while it is empty, and is made again.
        let _ = folder.try_lock();
        Ok(Self { path, folder })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// The folder in which the whole tree is mounted, as far as this process may see it.
pub(crate) fn cgroup_tree() -> Option<PathBuf> {
    mount().map(|mount| mount.folder)
}

/// The group that this process is in.
pub(crate) fn own_cgroup() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    mount()?.folder_of(own)
}

/// The groups in a group.
pub(crate) fn cgroups_in(path: &Path) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(path) else { return Vec::new() };
    let groups = listing.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path()).collect()
}

/// The numbers of the processes that are in a group itself, not of those in the groups beneath it.
pub(crate) fn members_of_cgroup(path: &Path) -> Vec<u32> {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Kills all that is in a group and beneath it, also what is being born at this moment. A kernel before 5.14 cannot.
pub(crate) fn kill_cgroup(path: &Path) {
    // Where it cannot be done, or nothing is left to be killed, whoever looks next sees it.
    let _ = fs::write(path.join("cgroup.kill"), "1");
}

/// Removes a group and those beneath it, as far as nobody is in them; says whether it is gone.
pub(crate) fn remove_cgroup(path: &Path) -> bool {
    remove_to_depth(path, DEPTH)
}

/// The same where its owner is dead, as far as that can be seen.
pub(crate) fn remove_ownerless_cgroup(path: &Path) {
    if let Ok(folder) = File::open(path)
        && folder.try_lock().is_ok()
    {
        remove_cgroup(path);
    }
}

fn remove_to_depth(path: &Path, depth: usize) -> bool {
    let remove = || match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if remove() {
        return true;
    }
    depth > 0 && cgroups_in(path).iter().all(|beneath| remove_to_depth(beneath, depth - 1)) && remove()
}

/// Waits until one of these groups is empty, or has ceased to be, at most this long.
pub(crate) fn wait_for_cgroups(paths: &[&Path], timeout: Duration) {
    let mut files = Vec::new();
    for path in paths {
        let Ok(mut file) = File::open(path.join("cgroup.events")) else { return };
        // What is waited for is a change since it was read.
        let mut text = String::new();
        if !file.read_to_string(&mut text).is_ok_and(|_| text.contains("populated 1")) {
            return;
        }
        files.push(file);
    }
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    let mut waits: Vec<PollFd<'_>> = files.iter().map(|file| PollFd::new(file, PollFlags::PRI)).collect();
    // Whoever waits looks again in any case.
    let _ = poll(&mut waits, Some(&timeout));
}

/// Where the tree of groups is mounted, and which part of it.
#[derive(PartialEq, Eq, Debug)]
struct Mount {
    folder: PathBuf,
    root: String,
}

fn mount() -> Option<Mount> {
    fs::read("/proc/self/mountinfo").ok()?.split(|byte| *byte == b'\n').find_map(Mount::parse)
}

impl Mount {
    /// Reads a line of `mountinfo`: fields, among them the root (the fourth) and the folder (the fifth), then ` - ` and
    /// the kind of the file system.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let root = String::from_utf8(unescaped(fields.nth(3)?)).ok()?;
        let folder = PathBuf::from(std::ffi::OsString::from_vec(unescaped(fields.next()?)));
        fields.find(|field| *field == b"-")?;
        (fields.next()? == b"cgroup2").then_some(Self { folder, root })
    }

    /// The folder of a group. One outside of what is mounted has none.
    fn folder_of(&self, group: &str) -> Option<PathBuf> {
        let beneath = Path::new(group).strip_prefix(&self.root).ok()?;
        let ordinary = beneath.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        ordinary.then(|| self.folder.join(beneath))
    }
}

/// `mountinfo` writes blanks, line ends and `\` as `\` and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) if *byte == b'\\' => {
                bytes.push(code);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_among_others_and_leads_to_a_groups_folder() {
        let other = br"32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu";
        assert_eq!(Mount::parse(other), None);
        let line = br"41 31 0:38 /docker/ab /sys/fs/my\040groups rw,relatime shared:9 - cgroup2 cgroup2 rw";
        let mount = Mount::parse(line).unwrap();
        assert_eq!(mount, Mount { folder: "/sys/fs/my groups".into(), root: "/docker/ab".into() });
        assert_eq!(mount.folder_of("/docker/ab/x/y"), Some("/sys/fs/my groups/x/y".into()));
        assert_eq!(mount.folder_of("/docker/ab"), Some("/sys/fs/my groups".into()));
        for outside in ["/docker/abc", "/", "/../other", "/docker/ab/../c"] {
            assert_eq!(mount.folder_of(outside), None, "{outside}");
        }
    }
}
