//! The common interface of packed kernels, through which a plan holds and runs them.

use std::fmt::Debug;

use crate::bands::Banded;
use crate::cost::{Costs, Size};
use crate::{Clamp, length};

/// The memory that one call of a kernel reads and writes.
///
/// Values lie in the layouts for which the kernel was packed.
#[derive(Debug)]
pub struct Operands<'a> {
    /// The input; empty where the kernel works in place on `y`.
    pub x: &'a [f32],
    /// The second input: of an arithmetic operation, or the residual of a convolution. `None` where there is none, and where it is the first
    /// input again.
    pub x2: Option<&'a [f32]>,
    /// The third input, those of attention alone being three. `None` where there is none.
    pub x3: Option<&'a [f32]>,
    /// The output.
    pub y: &'a mut [f32],
    /// At least [`PackedKernel::scratch_len`] elements, with any content.
    pub scratch: &'a mut [f32],
    /// Samples.
    pub n: usize,
    /// Applied to each result before it is stored. [`Clamp::None`] for kernels that cannot: pooling, softmax, activations, copies.
    pub clamp: Clamp,
}

/// What the parts of a step read of the input where each computes some channels of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputSplit {
    /// Every part reads the whole input.
    Whole,
    /// A part reads the channels of the input that correspond to its channels of the output.
    Channels,
}

/// How threads can share one call of a kernel, each writing some of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallSplit {
    /// By samples: each is computed from that sample of each input. Parts begin at multiples of this number of samples: whole tiles where operands are in tiles, and enough to use each load of weights more than once.
    Samples(usize),
    /// By elements: each group of this size is computed from that group of each input.
    Elements(usize),
    /// By the vectors of one sequence, each of this number of elements: each is computed from that vector of the first input and from the whole of the others.
    Queries(usize),
}

/// The size of a step, from which [`PackedKernel::expected_ns`] estimates its time.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Size of the weight; without rows and columns where the step has none.
    pub size: Size,
    /// Output pixels: how often each weight is used per sample.
    pub pixels: usize,
    /// Elements of the input or the output, whichever has more, per sample.
    pub elements: usize,
    /// Samples of a run.
    pub batch: usize,
    /// Samples of one call; the last call of a run may have fewer.
    pub block: usize,
}

impl Workload {
    /// A kernel that takes `ns` for each sample.
    pub(crate) fn each(&self, ns: f64) -> f64 {
        ns * self.batch as f64
    }

    /// A kernel that takes `ns(n)` for a block of `n` samples.
    pub(crate) fn blocks(&self, ns: impl Fn(usize) -> f64) -> f64 {
        let (whole, rest) = (self.batch / self.block, self.batch % self.block);
        whole as f64 * ns(self.block) + if rest > 0 { ns(rest) } else { 0.0 }
    }

    /// A sparse convolution that computes `lanes` samples at a time, empty lanes included, and takes `each` for a multiply-add.
    pub(crate) fn sparse_conv(&self, each: f64, lanes: usize) -> f64 {
        let multiply_adds = (self.size.nonzeros * self.pixels) as f64;
        multiply_adds * each * self.batch.next_multiple_of(lanes) as f64
    }

    /// A dense convolution that takes `each` for a multiply-add.
    pub(crate) fn dense_conv(&self, each: f64) -> f64 {
        let weights = self.size.rows * self.size.cols;
        self.each((weights * self.pixels) as f64 * each)
    }

    /// A kernel without weights.
    pub(crate) fn elementwise(&self, costs: &Costs) -> f64 {
        /// Time to pool an element, copy it into blocks or combine it with another, over the time to copy it into a tile.
        const OTHERS: usize = 3;
        self.copies(costs, OTHERS * self.elements)
    }

    /// A copy of `elements` elements of each sample into tiles or out of them.
    pub(crate) fn copies(&self, costs: &Costs, elements: usize) -> f64 {
        (elements * self.batch) as f64 * costs.element
    }
}

/// A kernel with everything that a run needs but the operands: packed weights, sizes, layouts and the instruction set.
///
/// Methods with a default are those that only a few kernels implement.
pub trait PackedKernel: Debug + Send + Sync {
    /// Runs the kernel. It neither allocates nor locks, except in products by `gemm-f32`.
    ///
    /// # Panics
    /// When an operand does not have the length that the kernel was packed for.
    #[track_caller]
    fn run(&self, operands: Operands<'_>);

    /// Name in plans and reports: `{isa}-{format}-{dtype}-{tile}`, or what the operation does.
    fn name(&self) -> String;

    /// Expected nanoseconds of a run on one thread.
    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64;

    /// Bytes of packed weights, indices and biases.
    fn bytes(&self) -> usize {
        0
    }

    /// Elements of scratch that a run needs, for any number of samples.
    fn scratch_len(&self) -> usize {
        0
    }

    /// Whether the kernel stores only non-zeros.
    fn is_sparse(&self) -> bool {
        false
    }

    /// Whether the kernel multiplies bytes of its input.
    fn is_int8(&self) -> bool {
        false
    }

    /// Whether the kernel overwrites its input with its output: its operands then have no `x`. A step with such a kernel has one part.
    fn in_place(&self) -> bool {
        false
    }

    /// Whether the kernel can add [`Operands::x2`], of the shape and layout of its output, before it clamps; either may be in bytes.
    fn takes_residual(&self) -> bool {
        false
    }

    /// The kernel as one whose output threads can split by lines; `None` if it cannot be split so.
    fn banded(&self) -> Option<&dyn Banded> {
        None
    }

    /// How threads can share one call; `None` if they cannot, or if that is never worth it.
    fn call_split(&self) -> Option<CallSplit> {
        None
    }

    /// What the parts of a step with this kernel read.
    fn input_split(&self) -> InputSplit {
        InputSplit::Whole
    }

    /// For each feature of the input, whether the kernel reads it; `None` where it reads all.
    fn reads(&self) -> Option<Vec<bool>> {
        None
    }

    /// Of a part that does not write its rows in their own order: the row of the layer for each output. `None` where they are in order.
    fn order(&self) -> Option<&[u32]> {
        None
    }

    /// Whether the time of the kernel, or of its alternative that skips zero inputs, depends on how many inputs are zero, so that it is worth
    /// counting them.
    fn skips_zero_inputs(&self) -> bool {
        false
    }
}

/// Runs a kernel for single samples over each sample of a batch.
///
/// # Panics
/// When `x` or `y` is not `n` samples of one length, or `run` panics.
#[inline]
#[track_caller]
pub(crate) fn each_sample(
    x: &[f32],
    y: &mut [f32],
    n: usize,
    mut run: impl FnMut(&[f32], &mut [f32]),
) {
    if n == 1 {
        return run(x, y);
    }
    let (inputs, outputs) = (x.len() / n.max(1), y.len() / n.max(1));
    length::check("x", x.len(), [n, inputs]);
    length::check("y", y.len(), [n, outputs]);
    // Samples without outputs only have their lengths checked.
    let n = if outputs == 0 { n.min(1) } else { n };
    for sample in 0..n {
        run(
            &x[sample * inputs..][..inputs],
            &mut y[sample * outputs..][..outputs],
        );
    }
}
