//! The one clock: wall time at the start of the process, moved on by the monotonic clock, so that a jump of the wall
//! clock neither ends a step early nor keeps one waiting.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use baton_core::Time;

/// Reads the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Time,
    started: Instant,
}

impl Clock {
    /// A clock that agrees with the wall clock now.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: Time(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)), started: Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> Time {
        Time(self.wall.0.saturating_add(i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long from now until `due`; nothing where it has passed.
    pub fn until(&self, due: Time) -> Duration {
        // One more than the difference: `now` rounds down, and waking early would only mean waking twice.
        Duration::from_millis(due.since(self.now()).0.saturating_add(u64::from(due > self.now())))
    }
}
