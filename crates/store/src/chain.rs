//! The hash chain of a log: each event's hash covers all its fields and the hash before it, so a change is found.
//!
//! The chain is not keyed: it finds damage, not a forger. The bytes that are hashed, in this order, all numbers in
//! little-endian order:
//!
//! | bytes | what |
//! |---|---|
//! | 32 | the hash of the event before; zeros for the first |
//! | 8 | the log: 0 for the shared one, else the run's number |
//! | 8 | the event's number in its log, from 1 up |
//! | 8 | when, in milliseconds since 1970, signed |
//! | 4 + n | the length of the kind's name, and the name in UTF-8 |
//! | 4 + n | the length of the step's path, and the path in UTF-8; where there is no step, only the length 2³²−1 |
//! | 4 | the attempt; 2³²−1 where there is none |
//! | 4 + n | the length of the payload, and its JSON text exactly as it is stored |

use sha2::{Digest, Sha256};

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// The hash before a log's first event.
pub(crate) const START: Hash = [0; 32];

const ABSENT: u32 = u32::MAX;

/// The fields of an event as they are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub log: u64,
    pub seq: u64,
    pub at: i64,
    pub kind: &'a str,
    pub step: Option<&'a str>,
    pub attempt: Option<u32>,
    pub payload: &'a [u8],
}

/// The hash of an event. `scratch` is only there to be used again.
pub(crate) fn link(previous: &Hash, row: &Row<'_>, scratch: &mut Vec<u8>) -> Hash {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(ABSENT - 1).to_le_bytes();
    scratch.clear();
    scratch.extend_from_slice(previous);
    scratch.extend_from_slice(&row.log.to_le_bytes());
    scratch.extend_from_slice(&row.seq.to_le_bytes());
    scratch.extend_from_slice(&row.at.to_le_bytes());
    scratch.extend_from_slice(&length(row.kind.as_bytes()));
    scratch.extend_from_slice(row.kind.as_bytes());
    match row.step {
        Some(step) => {
            scratch.extend_from_slice(&length(step.as_bytes()));
            scratch.extend_from_slice(step.as_bytes());
        }
        None => scratch.extend_from_slice(&ABSENT.to_le_bytes()),
    }
    scratch.extend_from_slice(&row.attempt.unwrap_or(ABSENT).to_le_bytes());
    scratch.extend_from_slice(&length(row.payload));
    scratch.extend_from_slice(row.payload);
    Sha256::digest(&scratch[..]).into()
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}
