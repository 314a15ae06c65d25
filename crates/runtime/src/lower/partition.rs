//! Cutting rows into ranges for threads.

use std::ops::Range;

use sparsevd_kernels::spmv::Spmv;

/// Cuts rows into `parts` consecutive ranges with about the same number of weights. `weights` has those of each row.
pub(super) fn split(weights: &[usize], parts: usize) -> Vec<Range<usize>> {
    let total: usize = weights.iter().sum();
    let (mut ranges, mut row, mut seen) = (Vec::new(), 0, 0);
    for part in 1..=parts {
        let first = row;
        // Every part has at least one row, and leaves one for each part after it.
        while row < weights.len()
            && (part == parts
                || row == first
                || (weights.len() - row > parts - part
                    && (2 * seen + weights[row]) * parts < 2 * total * part))
        {
            seen += weights[row];
            row += 1;
        }
        ranges.push(first..row);
    }
    ranges
}

/// A product with single vectors in at most `parts` parts of whole groups of rows. A row then has the bits that it has in the product as one part.
pub(super) fn spmv_parts(whole: Spmv, parts: usize) -> Vec<Spmv> {
    let groups = whole.groups();
    match parts.min(groups.len()) {
        0 | 1 => vec![whole],
        parts => (split(&groups, parts).into_iter())
            .map(|range| whole.part(range))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_layer_have_the_same_weights_not_the_same_rows() {
        // Weights of rows, parts, and where the parts end.
        let cases: [(&[usize], usize, &[usize]); 5] = [
            (&[1, 1, 1, 1], 2, &[2, 4]),
            (&[9, 1, 1, 1, 1, 1, 1, 1, 1, 1], 2, &[1, 10]),
            (&[0, 0, 0, 8], 2, &[3, 4]),
            (&[5], 1, &[1]),
            (&[3, 3, 3, 3, 3, 3], 3, &[2, 4, 6]),
        ];
        for (weights, parts, want) in cases {
            let ranges = split(weights, parts);
            let ends: Vec<usize> = ranges.iter().map(|r| r.end).collect();
            assert_eq!(ends, want, "{weights:?} in {parts}");
            let starts: Vec<usize> = ranges.iter().map(|r| r.start).collect();
            assert_eq!(starts[1..], want[..parts - 1], "parts follow each other");
        }
    }
}
