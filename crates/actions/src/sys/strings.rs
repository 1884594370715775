//! Argument and environment blocks as the system wants them, built in buffers that are used again.

use std::ffi::c_char;
use std::ptr;

/// A list of strings, each ended by NUL, and the pointers to them, ended by a null pointer.
#[derive(Default)]
pub(crate) struct StringBlock {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    pointers: Vec<*mut c_char>,
}

/// A string that the system would cut at its first NUL byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HoldsNul;

impl StringBlock {
    /// Makes it empty, and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    /// Adds one string made of these parts.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) -> Result<(), HoldsNul> {
        let start = self.bytes.len();
        for part in parts {
            if part.contains(&0) {
                self.bytes.truncate(start);
                return Err(HoldsNul);
            }
            self.bytes.extend_from_slice(part);
        }
        self.bytes.push(0);
        self.starts.push(start);
        Ok(())
    }

    /// The pointers; good until the block changes.
    pub(crate) fn pointers(&mut self) -> &[*mut c_char] {
        let base = self.bytes.as_mut_ptr();
        self.pointers.clear();
        self.pointers.extend(self.starts.iter().map(|start| base.wrapping_add(*start).cast::<c_char>()));
        self.pointers.push(ptr::null_mut());
        &self.pointers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_stand_one_after_the_other_and_a_nul_is_refused() {
        let mut block = StringBlock::default();
        block.push(&[b"A", b"=", b"1"]).unwrap();
        assert_eq!(block.push(&[b"B=\0"]), Err(HoldsNul));
        block.push(&[b""]).unwrap();
        assert_eq!(block.bytes, b"A=1\0\0");
        assert_eq!(block.pointers().len(), 3);
        block.clear();
        assert_eq!(block.pointers().len(), 1);
    }
}
