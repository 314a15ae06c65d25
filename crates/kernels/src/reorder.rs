//! Putting the rows of a layer in order, whose parts write them in another.

use crate::cost::Costs;
use crate::kernel::{Operands, PackedKernel, Workload, each_sample};
use crate::length;

/// Moves each element of a vector to its place: `y[order[i]] = x[i]`.
///
/// # Invariants
/// - `order` is a permutation
#[derive(Debug, Clone)]
pub struct Reorder {
    order: Vec<u32>,
}

impl Reorder {
    /// A kernel for vectors of as many elements as `order`, which has the place of each.
    ///
    /// # Panics
    /// When `order` is no permutation.
    #[track_caller]
    pub fn new(order: Vec<u32>) -> Self {
        let mut seen = vec![false; order.len()];
        for &place in &order {
            let first = seen
                .get_mut(place as usize)
                .is_some_and(|seen| !std::mem::replace(seen, true));
            assert!(first, "place {place} of a permutation of {}", order.len());
        }
        Self { order }
    }

    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32]) {
        length::check("x", x.len(), [self.order.len()]);
        length::check("y", y.len(), [self.order.len()]);
        for (&place, x) in self.order.iter().zip(x) {
            y[place as usize] = *x;
        }
    }
}

impl PackedKernel for Reorder {
    fn run(&self, operands: Operands<'_>) {
        each_sample(operands.x, operands.y, operands.n, |x, y| {
            Self::run(self, x, y);
        });
    }

    fn name(&self) -> String {
        "reorder".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }
}
