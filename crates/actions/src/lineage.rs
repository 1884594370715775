//! Who stands beneath whom in a table of processes.

use std::collections::{BTreeMap, HashMap};

use crate::sys::ProcessInfo;

/// All processes of `table` that are, or descend from, one of `roots`, each with what that root is marked with.
pub(crate) fn beneath<T: Copy>(
    table: &BTreeMap<u32, ProcessInfo>,
    roots: impl IntoIterator<Item = (u32, T)>,
) -> Vec<(T, &ProcessInfo)> {
    let mut marks: HashMap<u32, Option<T>> = roots.into_iter().map(|(pid, mark)| (pid, Some(mark))).collect();
    let mut chain = Vec::new();
    for pid in table.keys() {
        let mut next = *pid;
        let mark = loop {
            if let Some(known) = marks.get(&next) {
                break *known;
            }
            // Entered before it is known, so that a table that changed while it was read cannot make a circle.
            marks.insert(next, None);
            chain.push(next);
            match table.get(&next) {
                Some(info) => next = info.parent,
                None => break None,
            }
        };
        for pid in chain.drain(..) {
            marks.insert(pid, mark);
        }
    }
    table.values().filter_map(|info| Some(((*marks.get(&info.pid)?)?, info))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_get_their_roots_mark_and_a_circle_ends() {
        // 9 and 8 claim to be each other's parent.
        let table: BTreeMap<u32, ProcessInfo> = [(1, 0), (5, 1), (6, 5), (3, 6), (7, 1), (9, 8), (8, 9)]
            .into_iter()
            .map(|(pid, parent)| {
                let name = String::new();
                (pid, ProcessInfo { pid, parent, group: 1, state: 'S', started: 0, name })
            })
            .collect();
        let found: Vec<(char, u32)> =
            beneath(&table, [(5, 'a'), (7, 'b')]).into_iter().map(|(mark, info)| (mark, info.pid)).collect();
        assert_eq!(found, [('a', 3), ('a', 5), ('a', 6), ('b', 7)]);
    }
}
