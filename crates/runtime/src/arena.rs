//! Placement of buffers with known lifetimes in one arena.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Range;

/// Bytes of a cache line. All offsets are multiples of it.
pub(crate) const LINE: usize = 64;

/// A buffer that is needed during some steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// The steps during which it is needed.
    pub steps: Range<usize>,
    /// Bytes.
    pub len: usize,
}

/// How many pairs of buffers that are needed at the same time are compared. Networks of a thousand nodes have some ten thousand.
const MOST_PAIRS: usize = 1 << 26;

/// The offset of each buffer, so that buffers that are needed at the same time never overlap, and the bytes of the arena.
///
/// Buffers are placed from the largest to the smallest, each in the lowest gap that is free for its lifetime. Where more than
/// [`MOST_PAIRS`] pairs are needed at the same time, those that are left are placed behind all others, in the order of their lifetimes.
pub(crate) fn place(buffers: &[Lifetime]) -> (Vec<usize>, usize) {
    place_within(buffers, MOST_PAIRS)
}

fn place_within(buffers: &[Lifetime], mut pairs: usize) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| (Reverse(buffers[i].len), i));
    let mut offsets = vec![0; buffers.len()];
    let mut placed = Placed::new(buffers);
    let mut size = 0;
    for (at, &i) in order.iter().enumerate() {
        let buffer = &buffers[i];
        let len = round_up(buffer.len);
        // Without bytes it fits anywhere.
        if len == 0 {
            continue;
        }
        let mut taken: Vec<Range<usize>> = Vec::new();
        placed.meeting(&buffer.steps, |j| {
            taken.push(offsets[j]..offsets[j] + round_up(buffers[j].len));
        });
        match pairs.checked_sub(taken.len()) {
            Some(left) => pairs = left,
            None => return place_in_turn(buffers, &order[at..], offsets, size),
        }
        taken.sort_by_key(|r| r.start);
        let mut offset = 0;
        for range in taken {
            if offset + len <= range.start {
                break;
            }
            offset = offset.max(range.end);
        }
        offsets[i] = offset;
        size = size.max(offset + len);
        placed.insert(i, &buffer.steps);
    }
    (offsets, size)
}

/// Places buffers from `base` on, each in the smallest hole that an earlier one left, else at the end.
fn place_in_turn(
    buffers: &[Lifetime],
    rest: &[usize],
    mut offsets: Vec<usize>,
    base: usize,
) -> (Vec<usize>, usize) {
    let mut rest = rest.to_vec();
    rest.sort_by_key(|&i| (buffers[i].steps.start, i));
    let mut ends: BinaryHeap<Reverse<(usize, usize)>> = BinaryHeap::new();
    let mut holes: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut size = base;
    for i in rest {
        let buffer = &buffers[i];
        let len = round_up(buffer.len);
        while let Some(&Reverse((end, j))) = ends.peek()
            && end <= buffer.steps.start
        {
            ends.pop();
            holes.insert((round_up(buffers[j].len), offsets[j]));
        }
        let hole = holes.range((len, 0)..).next().copied();
        offsets[i] = match hole {
            Some(hole) => {
                holes.remove(&hole);
                if hole.0 > len {
                    holes.insert((hole.0 - len, hole.1 + len));
                }
                hole.1
            }
            None => {
                size += len;
                size - len
            }
        };
        ends.push(Reverse((buffer.steps.end, i)));
    }
    (offsets, size)
}

/// Buffers that have a place, by their lifetimes.
struct Placed {
    /// By the step with which they begin.
    starts: BTreeSet<(usize, usize)>,
    /// A tree over the steps: each buffer is in the few nodes that together are its lifetime.
    during: Vec<Vec<usize>>,
    /// Leaves of the tree, a power of two.
    leaves: usize,
}

impl Placed {
    fn new(buffers: &[Lifetime]) -> Self {
        let steps = buffers.iter().map(|b| b.steps.end).max().unwrap_or(0);
        let leaves = steps.next_power_of_two();
        Self {
            starts: BTreeSet::new(),
            during: vec![Vec::new(); 2 * leaves],
            leaves,
        }
    }

    fn insert(&mut self, buffer: usize, steps: &Range<usize>) {
        self.starts.insert((steps.start, buffer));
        let (mut first, mut end) = (steps.start + self.leaves, steps.end + self.leaves);
        while first < end {
            if first % 2 == 1 {
                self.during[first].push(buffer);
                first += 1;
            }
            if end % 2 == 1 {
                end -= 1;
                self.during[end].push(buffer);
            }
            (first, end) = (first / 2, end / 2);
        }
    }

    /// Calls `found` once for each buffer that is needed during any of the steps.
    fn meeting(&self, steps: &Range<usize>, mut found: impl FnMut(usize)) {
        if steps.is_empty() {
            return;
        }
        // Those that are needed at the first step, and those that begin later.
        let mut node = steps.start + self.leaves;
        while node > 0 {
            self.during[node].iter().for_each(|&b| found(b));
            node /= 2;
        }
        let later = self.starts.range((steps.start + 1, 0)..(steps.end, 0));
        later.for_each(|&(_, b)| found(b));
    }
}

fn round_up(len: usize) -> usize {
    len.next_multiple_of(LINE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chain_takes_the_memory_of_its_largest_pair() {
        let chain = [(0..2, 400), (1..3, 200), (2..4, 320), (3..5, 40)]
            .map(|(steps, len)| Lifetime { steps, len });
        let (offsets, size) = place(&chain);
        assert_eq!(size, 448 + 256, "{offsets:?}");
    }

    /// The slow twin: each buffer is compared with all that were placed before it.
    fn by_all_pairs(buffers: &[Lifetime]) -> (Vec<usize>, usize) {
        let mut order: Vec<usize> = (0..buffers.len()).collect();
        order.sort_by_key(|&i| (Reverse(buffers[i].len), i));
        let mut offsets = vec![0; buffers.len()];
        let mut placed: Vec<usize> = Vec::new();
        let mut size = 0;
        for i in order {
            let (steps, len) = (&buffers[i].steps, round_up(buffers[i].len));
            let meets = |j: &&usize| {
                let other = &buffers[**j].steps;
                steps.start < other.end && other.start < steps.end
            };
            let taken = placed.iter().filter(meets);
            let mut taken: Vec<Range<usize>> = taken
                .map(|&j| offsets[j]..offsets[j] + round_up(buffers[j].len))
                .collect();
            taken.sort_by_key(|r| r.start);
            let mut offset = 0;
            for range in taken {
                if offset + len <= range.start {
                    break;
                }
                offset = offset.max(range.end);
            }
            offsets[i] = offset;
            size = size.max(offset + len);
            placed.push(i);
        }
        (offsets, size)
    }

    #[test]
    fn many_buffers_that_are_alive_together_are_placed_at_once() {
        let all = 100_000;
        let buffers: Vec<Lifetime> = (0..all)
            .map(|i| Lifetime {
                steps: i..all + i + 1,
                len: 4,
            })
            .collect();
        let (mut offsets, size) = place(&buffers);
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!((offsets.len(), size), (all, all * LINE));
    }

    proptest! {
        #[test]
        fn buffers_alive_together_never_overlap(
            raw in proptest::collection::vec((0usize..12, 1usize..6, 0usize..800), 0..24),
        ) {
            let buffers: Vec<Lifetime> = raw
                .into_iter()
                .map(|(start, long, len)| Lifetime { steps: start..start + long, len })
                .collect();
            for pairs in [MOST_PAIRS, 5, 0] {
            let (offsets, size) = place_within(&buffers, pairs);
            if pairs == MOST_PAIRS {
                prop_assert_eq!((&offsets, size), (&by_all_pairs(&buffers).0, by_all_pairs(&buffers).1));
            }
            for (i, a) in buffers.iter().enumerate() {
                prop_assert!(offsets[i] % LINE == 0 && offsets[i] + a.len <= size);
                for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                    let together = a.steps.start < b.steps.end && b.steps.start < a.steps.end;
                    let apart = offsets[i] + a.len <= offsets[j] || offsets[j] + b.len <= offsets[i];
                    prop_assert!(!together || apart || a.len == 0 || b.len == 0);
                }
            }
            }
        }
    }
}
