//! The parametric ReLU with one slope per channel, over every layout.

use crate::cost::Costs;
use crate::isa::multiversion;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::{Isa, Layout, length};

/// `x` where it is not negative, else `slope x`, with one slope per channel. Zeros stay zero, and so do the halos of blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct PRelu {
    isa: Isa,
    layout: Layout,
    slope: Vec<f32>,
}

impl PRelu {
    /// The function of values with as many channels as `slope` has numbers.
    ///
    /// # Panics
    /// When `slope` is empty.
    #[track_caller]
    pub fn new(isa: Isa, layout: Layout, slope: Vec<f32>) -> Self {
        assert!(!slope.is_empty(), "channels");
        Self { isa, layout, slope }
    }

    /// Applies the function in place; `x` holds `n` samples, or the tiles of them.
    ///
    /// # Panics
    /// When the length of `x` is no multiple of the number of channels in all samples, or in all tiles.
    #[track_caller]
    pub fn run(&self, x: &mut [f32], n: usize) {
        let (count, channels) = (n.div_ceil(self.layout.samples()), self.slope.len());
        let line = (x.len() / channels).checked_div(count).unwrap_or(0);
        length::check("x", x.len(), [count, channels, line]);
        if !x.is_empty() {
            prelu(self.isa, x, &self.slope, line);
        }
    }
}

multiversion!(fn prelu(x: &mut [f32], slope: &[f32], line: usize) = prelu_body;);

#[inline(always)]
fn prelu_body(x: &mut [f32], slope: &[f32], line: usize) {
    for sample in x.chunks_exact_mut(line * slope.len()) {
        for (x, slope) in sample.chunks_exact_mut(line).zip(slope) {
            for x in x {
                *x = if *x < 0.0 { slope * *x } else { *x };
            }
        }
    }
}

impl PackedKernel for PRelu {
    fn run(&self, operands: Operands<'_>) {
        self.run(operands.y, operands.n);
    }

    fn name(&self) -> String {
        "prelu-in-place".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.slope[..])
    }

    fn in_place(&self) -> bool {
        true
    }
}
