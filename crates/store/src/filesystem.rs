//! What a file system can promise, and syncing of folders: everything here that differs between systems.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a FIFO that only this user can open.
pub(crate) fn make_fifo(path: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, FileType, Mode};
    Ok(rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?)
}

/// The name of the network file system on which `path` lies, or nothing where it is local.
#[cfg(target_os = "linux")]
pub(crate) fn network_kind(path: &Path) -> io::Result<Option<String>> {
    const FUSE: i64 = 0x6573_5546;
    let magic = rustix::fs::statfs(path)?.f_type as i64 & 0xFFFF_FFFF;
    if magic == FUSE {
        // The number says nothing about which one it is; the mount table does.
        return Ok(fuse_kind(path, &std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()));
    }
    Ok(kind_of_magic(magic).map(str::to_owned))
}

/// The names of file systems whose locks and syncs other machines share.
#[cfg(any(target_os = "linux", test))]
fn kind_of_magic(magic: i64) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "nfs",
        0x517B => "smb",
        0xFF53_4D42 => "cifs",
        0xFE53_4D42 => "smb2",
        0x0102_1997 => "9p",
        0x5346_414F => "afs",
        0x7375_7245 => "coda",
        0x00C3_6400 => "ceph",
        0x0BD0_0BD0 => "lustre",
        _ => return None,
    })
}

#[cfg(any(target_os = "linux", test))]
fn fuse_kind(path: &Path, mountinfo: &str) -> Option<String> {
    const REMOTE: [&str; 9] = [
        "fuse.sshfs",
        "fuse.s3fs",
        "fuse.rclone",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.davfs",
        "fuse.curlftpfs",
    ];
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        Some((before.split(' ').nth(4)?, after.split(' ').next()?))
    });
    let (_, kind) = mounts.filter(|(point, _)| path.starts_with(point)).max_by_key(|(point, _)| point.len())?;
    REMOTE.contains(&kind).then(|| kind.to_owned())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn network_kind(path: &Path) -> io::Result<Option<String>> {
    const MNT_LOCAL: u32 = 0x1000;
    let facts = rustix::fs::statfs(path)?;
    Ok((facts.f_flags & MNT_LOCAL == 0).then(|| "not mounted as local".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_mount_is_told_from_a_local_one_by_the_mount_that_is_nearest() {
        let mounts = "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      40 21 0:50 / /mnt/far rw - fuse.sshfs host:/ rw\n\
                      41 40 0:51 / /mnt/far/near rw - fuse.ntfs /dev/sdb1 rw\n";
        assert_eq!(fuse_kind(Path::new("/mnt/far/project"), mounts).as_deref(), Some("fuse.sshfs"));
        assert_eq!(fuse_kind(Path::new("/mnt/far/near/project"), mounts), None);
        assert_eq!(kind_of_magic(0x6969), Some("nfs"));
        assert_eq!(kind_of_magic(0xEF53), None, "ext4 is local");
    }
}
