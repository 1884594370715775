//! A file of nothing that is given up when the disk is full, so that what runs can still be recorded.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use rustix::io::Errno;

use crate::DataDir;

/// Enough for the ends of a thousand attempts with the most output that stands in an event, twice over.
const BALLAST_BYTES: u64 = 8 << 20;

/// Gives the space back; answers whether there was any.
pub(crate) fn release(directory: &DataDir) -> bool {
    std::fs::remove_file(directory.ballast()).is_ok()
}

/// Takes the space where it is not taken yet; answers whether the disk is too full for it. A file system that cannot
/// set space aside has no ballast.
pub(crate) fn take(directory: &DataDir) -> bool {
    let path = directory.ballast();
    if std::fs::metadata(&path).is_ok_and(|facts| facts.len() == BALLAST_BYTES) {
        return false;
    }
    let Ok(file) = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path) else {
        return false;
    };
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BALLAST_BYTES) {
        Ok(()) => false,
        Err(error) => {
            release(directory);
            matches!(error, Errno::NOSPC | Errno::DQUOT)
        }
    }
}
