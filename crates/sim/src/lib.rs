//! A simulated world for runs: seeded random plans, faults and crashes, and what must hold after each event.

pub mod campaign;
pub mod fate;
pub mod locks;
pub mod oracle;
pub mod plan;
pub mod random;
pub mod scheduling;
pub mod watch;
pub mod world;
