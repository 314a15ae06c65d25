//! Placement of buffers with known lifetimes in one arena.

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

/// The offset of each buffer, so that buffers that are needed at the same time never overlap, and the bytes of the arena.
///
/// Buffers are placed from the largest to the smallest, each in the lowest gap that is free for its lifetime.
pub(crate) fn place(buffers: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].len), i));
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut size = 0;
    for i in order {
        let buffer = &buffers[i];
        let mut taken: Vec<Range<usize>> = placed
            .iter()
            .filter(|&&j| {
                let (a, b) = (&buffer.steps, &buffers[j].steps);
                a.start < b.end && b.start < a.end
            })
            .map(|&j| offsets[j]..offsets[j] + round_up(buffers[j].len))
            .collect();
        taken.sort_by_key(|r| r.start);
        let mut offset = 0;
        for range in taken {
            if offset + round_up(buffer.len) <= range.start {
                break;
            }
            offset = offset.max(range.end);
        }
        offsets[i] = offset;
        size = size.max(offset + round_up(buffer.len));
        placed.push(i);
    }
    (offsets, size)
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

    proptest! {
        #[test]
        fn buffers_alive_together_never_overlap(
            raw in proptest::collection::vec((0usize..12, 1usize..6, 0usize..800), 0..24),
        ) {
            let buffers: Vec<Lifetime> = raw
                .into_iter()
                .map(|(start, long, len)| Lifetime { steps: start..start + long, len })
                .collect();
            let (offsets, size) = place(&buffers);
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
