//! Waiting for a run of another process to move on: the kernel tells when its files change.

use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A death makes no file change, so life is looked for this often, in seconds.
const LOOK_AGAIN_SECS: i64 = 1;

/// Watches the folder of a run.
#[derive(Debug)]
pub struct Watch {
    #[cfg(target_os = "linux")]
    changes: Option<rustix::fd::OwnedFd>,
}

impl Watch {
    /// A watch on a run's folder. Where the kernel has none to give, waiting is by time alone.
    pub fn new(folder: &Path) -> Self {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::inotify;
            let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok();
            let kinds = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
            let changes = changes.filter(|changes| inotify::add_watch(changes, folder, kinds).is_ok());
            Self { changes }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = folder;
            Self {}
        }
    }

    /// Waits until something may have changed.
    pub fn wait(&self) {
        let limit = Timespec { tv_sec: LOOK_AGAIN_SECS, tv_nsec: 0 };
        #[cfg(target_os = "linux")]
        if let Some(changes) = &self.changes {
            // An interrupted or failed wait only means looking once more.
            let _ = poll(&mut [PollFd::new(changes, PollFlags::IN)], Some(&limit));
            let mut buffer = [0u8; 4096];
            while rustix::io::read(changes, &mut buffer).is_ok_and(|count| count > 0) {}
            return;
        }
        let _ = poll(&mut [], Some(&limit));
    }
}
