//! A mark that every process of an attempt inherits and that does not go away with its environment.
//!
//! `BATON_ATTEMPT` is for people and for the common case; `env -i` takes it off, and a daemon in a session of its own
//! with closed streams then shows nothing of where it came from. Resource limits, too, are inherited through fork and
//! exec, and anybody may read them. So each attempt's processes carry a limit that limits nothing: on computing at
//! real-time priority, of more than a hundred thousand years. Its number says which run and attempt it is.

use crate::environment::run_prefix_of;

/// Large enough to be no limit, and no value that anybody sets.
const BASE: u64 = 1 << 62;
/// How many bits name the run, and how many the attempt in it.
const BITS: u32 = 31;

/// The number that the processes of one attempt carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark(u64);

impl Mark {
    /// The mark of an attempt, `<store>/<run>/<step path>/<n>`.
    pub(crate) fn of_attempt(name: &str) -> Self {
        let run = run_prefix_of(name);
        Self(BASE | folded(run) << BITS | folded(&name[run.len()..]))
    }

    /// The mark that a limit found on a process is, if it is one.
    pub(crate) fn from_limit(limit: u64) -> Option<Self> {
        (limit & BASE == BASE && limit < BASE << 1).then_some(Self(limit))
    }

    /// As a limit.
    pub(crate) fn limit(self) -> u64 {
        self.0
    }

    /// Whether it is one of an attempt of this run, `<store>/<run>/`.
    pub(crate) fn is_of_run(self, prefix: &str) -> bool {
        (self.0 & !BASE) >> BITS == folded(prefix)
    }
}

/// FNV-1a, folded. Two attempts that run at the same time meet on one number once in two thousand million.
fn folded(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ hash >> BITS) & ((1 << BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_its_run_and_its_attempt() {
        let mark = Mark::of_attempt("a-store/12/sub.build[3]#2/1");
        assert_eq!(Mark::from_limit(mark.limit()), Some(mark));
        assert!(mark.is_of_run("a-store/12/"));
        assert!(!mark.is_of_run("a-store/1/"));
        assert_ne!(mark, Mark::of_attempt("a-store/12/sub.build[3]#2/2"));
        assert_ne!(mark, Mark::of_attempt("a-store/13/sub.build[3]#2/1"));
        for no_mark in [0, 200_000, u64::MAX, u64::MAX >> 1 | 1 << 63] {
            assert_eq!(Mark::from_limit(no_mark), None);
        }
    }
}
