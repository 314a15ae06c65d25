//! Copies along dimensions of one element, over [`Layout::Single`](crate::Layout::Single).

use crate::cost::Costs;
use crate::kernel::{Operands, PackedKernel, Workload, each_sample};
use crate::length;

/// Copies each sample along its dimensions of one element.
#[derive(Debug, Clone)]
pub struct Expand {
    /// Size of each dimension of the output, and whether the input has it too; dimensions that stay together are one.
    axes: Vec<(usize, bool)>,
    /// Elements of a sample of the input and of the output.
    elements: [usize; 2],
}

impl Expand {
    /// From samples of `dims` to samples of `shape`.
    ///
    /// # Panics
    /// When a dimension is neither the same in both nor 1 in the input, or no slice can hold a sample.
    #[track_caller]
    pub fn new(dims: &[usize], shape: &[usize]) -> Self {
        let fits = |(x, y): (&usize, &usize)| *x == 1 || x == y;
        assert!(
            dims.len() == shape.len() && dims.iter().zip(shape).all(fits),
            "dimensions: expected those of {dims:?}, larger where that has one element, got {shape:?}"
        );
        let mut axes: Vec<(usize, bool)> = Vec::new();
        let mut elements = [1; 2];
        for (&x, &y) in dims.iter().zip(shape) {
            elements = [
                length::planned("a sample of x", [elements[0], x]),
                length::planned("a sample of y", [elements[1], y]),
            ];
            match axes.last_mut() {
                _ if y == 1 => {}
                Some((size, kept)) if *kept == (x == y) => *size *= y,
                _ => axes.push((y, x == y)),
            }
        }
        Self { axes, elements }
    }

    /// Copies `n` samples of `x` to `y`.
    ///
    /// # Panics
    /// When a length does not fit.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize) {
        length::check("x", x.len(), [n, self.elements[0]]);
        length::check("y", y.len(), [n, self.elements[1]]);
        if !y.is_empty() {
            each_sample(x, y, n, |x, y| copies(&self.axes, x, y));
        }
    }
}

/// One sample, or the part of it from an index of outer axes on. No axis is empty.
fn copies(axes: &[(usize, bool)], x: &[f32], y: &mut [f32]) {
    match axes {
        [] | [(_, true)] => y.copy_from_slice(x),
        [(_, false)] => y.fill(x[0]),
        [(size, true), inner @ ..] => {
            let (from, to) = (x.len() / size, y.len() / size);
            for (x, y) in x.chunks_exact(from).zip(y.chunks_exact_mut(to)) {
                copies(inner, x, y);
            }
        }
        [(size, false), inner @ ..] => {
            let part = y.len() / size;
            let (first, others) = y.split_at_mut(part);
            copies(inner, x, first);
            for other in others.chunks_exact_mut(part) {
                other.copy_from_slice(first);
            }
        }
    }
}

impl PackedKernel for Expand {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.y, operands.n);
    }

    fn name(&self) -> String {
        "expand-f32".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }
}
