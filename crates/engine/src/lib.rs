//! The loop that joins the pure core to the world: it waits, lets the core decide, has the store write, and acts on
//! what is on disk. It knows no rule about what runs next, and no plan by name.

mod clock;
mod engine;
mod error;
mod evaluate;
mod hands;
mod live;
mod load;
mod local;
mod observer;

pub use clock::Clock;
pub use engine::{Drive, Engine, Submitted};
pub use error::EngineError;
pub use hands::{Hands, Left, Processes, Stays};
pub use load::{
    CancelRoute, Inspection, Loaded, Submission, inspect, known_actions, latest_run, live_owner, load, prepare_retry,
    request_cancel, situation,
};
pub use local::{LocalEngine, Resumed};
pub use observer::{Nobody, Notice, Observer, RunView, TICK};
