//! Every distinct string of a plan once, by number.

use crate::hash::Hasher;

/// A string by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Sym(pub(crate) u32);

/// The strings: one block of bytes, where each ends, and a table to find them by content.
#[derive(Clone, Debug)]
pub(crate) struct Strings {
    bytes: String,
    ends: Vec<u32>,
    /// Open addressing; [`FREE`] marks an empty slot. The length is a power of two.
    table: Vec<u32>,
    hasher: Hasher,
}

const FREE: u32 = u32::MAX;

impl Default for Strings {
    fn default() -> Self {
        Self { bytes: String::new(), ends: Vec::new(), table: vec![FREE; 64], hasher: Hasher::default() }
    }
}

impl Strings {
    pub(crate) fn get(&self, sym: Sym) -> &str {
        let at = sym.0 as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.bytes[start..self.ends[at] as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The number of a string that is already known.
    pub(crate) fn find(&self, text: &str) -> Option<Sym> {
        let entry = self.table[self.slot(text)];
        (entry != FREE).then_some(Sym(entry))
    }

    pub(crate) fn add(&mut self, text: &str) -> Sym {
        let slot = self.slot(text);
        if self.table[slot] != FREE {
            return Sym(self.table[slot]);
        }
        let sym = self.ends.len() as u32;
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len() as u32);
        self.table[slot] = sym;
        if self.ends.len() * 2 > self.table.len() {
            self.grow();
        }
        Sym(sym)
    }

    /// The slot that holds the string, or the free one where it belongs.
    fn slot(&self, text: &str) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = self.hasher.hash(text) as usize & mask;
        while self.table[slot] != FREE && self.get(Sym(self.table[slot])) != text {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        self.table = vec![FREE; self.table.len() * 2];
        for at in 0..self.ends.len() as u32 {
            let slot = self.slot(self.get(Sym(at)));
            self.table[slot] = at;
        }
    }

    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}
