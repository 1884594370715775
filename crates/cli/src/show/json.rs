//! A run as JSON lines: its events as they are committed, in the form of `events.jsonl`.

use baton_core::Event;
use baton_engine::RunView;
use baton_store::{StoredEvent, rfc3339, stored};
use serde_json::{Value, json};

use crate::face::Stream;

/// Shows runs as JSON lines.
#[derive(Debug, Default)]
pub struct Json {
    payload: Vec<u8>,
}

impl Json {
    /// One line for an event.
    pub fn event(&mut self, out: &mut Stream, run: &RunView<'_>, seq: u64, event: &Event) {
        self.payload.clear();
        let columns = stored::encode(event, run.state.graph(), &mut self.payload);
        let event = StoredEvent {
            seq,
            at: event.at,
            kind: columns.kind.to_owned(),
            step: columns.step.map(str::to_owned),
            attempt: columns.attempt,
            payload: serde_json::from_slice(&self.payload).expect("the store writes objects"),
        };
        out.write(format!("{}\n", line(run.run, event)).as_bytes());
    }
}

/// An event as an object: what every event has, and its payload beside it.
pub fn line(run: baton_core::RunId, event: StoredEvent) -> Value {
    let StoredEvent { seq, at, kind, step, attempt, payload } = event;
    let mut line = json!({ "seq": seq, "at": rfc3339(at), "run": run, "kind": kind });
    if let Some(map) = line.as_object_mut() {
        map.extend(step.map(|step| ("step".to_owned(), step.into())));
        map.extend(attempt.map(|attempt| ("attempt".to_owned(), attempt.into())));
        map.extend(payload);
    }
    line
}
