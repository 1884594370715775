//! Hashing for look-ups only: nothing is ever iterated in its order, so nothing that leaves this crate depends on it.
#![expect(clippy::disallowed_types, reason = "its keys are unknown to whoever writes a plan full of collisions")]

use std::hash::{BuildHasher, Hash, RandomState};

/// Hashes by keys that differ from process to process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hasher(RandomState);

impl Hasher {
    pub(crate) fn hash(&self, value: &(impl Hash + ?Sized)) -> u64 {
        self.0.hash_one(value)
    }
}
