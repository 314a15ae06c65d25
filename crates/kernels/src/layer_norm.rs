//! Layer normalisation over [`Layout::Single`] and [`Layout::Tiled`].

use crate::cost::Costs;
use crate::isa::multiversion;
use crate::kernel::{CallSplit, Operands, PackedKernel, Workload};
use crate::{Isa, LANES, Layout, length};

/// A layer normalisation: `(x - mean) / sqrt(variance + epsilon) * scale + bias`, over each group of consecutive elements of a sample.
///
/// The variance is taken around the mean in a second pass, so that no digits cancel where the mean is large against the deviation.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm {
    isa: Isa,
    layout: Layout,
    scale: Vec<f32>,
    /// Empty for zeros.
    bias: Vec<f32>,
    epsilon: f32,
}

impl LayerNorm {
    /// A normalisation of groups of as many elements as `scale` has; without a `bias` nothing is added.
    ///
    /// # Panics
    /// When `scale` is empty, `bias` has another length, or the layout is [`Layout::Blocks`].
    #[track_caller]
    pub fn new(
        isa: Isa,
        layout: Layout,
        scale: Vec<f32>,
        bias: Option<Vec<f32>>,
        epsilon: f32,
    ) -> Self {
        assert!(!scale.is_empty(), "elements of a group");
        let bias = bias.unwrap_or_default();
        assert!(
            bias.is_empty() || bias.len() == scale.len(),
            "elements of the bias"
        );
        assert!(
            !matches!(layout, Layout::Blocks(_)),
            "a layout of whole maps"
        );
        Self {
            isa,
            layout,
            scale,
            bias,
            epsilon,
        }
    }

    /// Normalises `x` in place: any number of samples or tiles of whole groups.
    ///
    /// # Panics
    /// When the length of `x` is no multiple of a group.
    #[track_caller]
    pub fn run(&self, x: &mut [f32]) {
        let (scale, lanes) = (self.scale.len(), self.layout.samples());
        length::check("x", x.len(), [x.len() / scale / lanes, scale, lanes]);
        match self.layout {
            Layout::Tiled => tiled(self.isa, x, &self.scale, &self.bias, self.epsilon),
            _ => single(self.isa, x, &self.scale, &self.bias, self.epsilon),
        }
    }
}

multiversion!(fn single(x: &mut [f32], scale: &[f32], bias: &[f32], epsilon: f32) = single_body;);
multiversion!(fn tiled(x: &mut [f32], scale: &[f32], bias: &[f32], epsilon: f32) = tiled_body;);

/// The sum of `f` of each element, in as many partial sums as a vector has lanes.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| f(*x)).sum();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f(*x);
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[inline(always)]
fn single_body(x: &mut [f32], scale: &[f32], bias: &[f32], epsilon: f32) {
    let n = scale.len() as f32;
    for group in x.chunks_exact_mut(scale.len()) {
        let mean = sum(group, |x| x) / n;
        let variance = sum(group, |x| (x - mean) * (x - mean)) / n;
        let factor = 1.0 / (variance + epsilon).sqrt();
        for (x, scale) in group.iter_mut().zip(scale) {
            *x = (*x - mean) * factor * scale;
        }
        for (x, bias) in group.iter_mut().zip(bias) {
            *x += bias;
        }
    }
}

#[inline(always)]
fn tiled_body(x: &mut [f32], scale: &[f32], bias: &[f32], epsilon: f32) {
    const L: usize = LANES;
    let n = scale.len() as f32;
    for group in x.chunks_exact_mut(scale.len() * L) {
        let mut mean = [0.0_f32; L];
        for x in group.chunks_exact(L) {
            mean.iter_mut().zip(x).for_each(|(m, x)| *m += x);
        }
        mean.iter_mut().for_each(|m| *m /= n);
        let mut factor = [0.0_f32; L];
        for x in group.chunks_exact(L) {
            for ((f, x), m) in factor.iter_mut().zip(x).zip(&mean) {
                *f += (x - m) * (x - m);
            }
        }
        for f in &mut factor {
            *f = 1.0 / (*f / n + epsilon).sqrt();
        }
        for (x, scale) in group.chunks_exact_mut(L).zip(scale) {
            for ((x, f), m) in x.iter_mut().zip(&factor).zip(&mean) {
                *x = (*x - m) * f * scale;
            }
        }
        for (x, bias) in group.chunks_exact_mut(L).zip(bias) {
            x.iter_mut().for_each(|x| *x += bias);
        }
    }
}

impl PackedKernel for LayerNorm {
    fn run(&self, operands: Operands<'_>) {
        self.run(operands.y);
    }

    fn call_split(&self) -> Option<CallSplit> {
        Some(CallSplit::Elements(
            self.scale.len() * self.layout.samples(),
        ))
    }

    fn name(&self) -> String {
        "layer-norm-in-place".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.scale[..]) + size_of_val(&self.bias[..])
    }

    fn in_place(&self) -> bool {
        true
    }
}
