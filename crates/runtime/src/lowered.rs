//! A lowered program: steps with their kernels, over values with their layouts.

use sparsevd_kernels::{Clamp, LANES, Layout, PackedKernel, Precision};
use sparsevd_model::{DType, Shape};

use crate::program::Value;
use crate::value::{Rows, ValueType};

/// A value of a lowered program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tensor {
    pub dtype: DType,
    /// Elements per row, without those that a layout adds.
    pub features: usize,
    /// Rows per sample. In [`Layout::Single`] any division of a sample into rows is the same in memory.
    pub rows: Rows,
    pub layout: Layout,
}

impl Tensor {
    /// A value in [`Layout::Single`].
    pub fn single(value: &ValueType) -> Self {
        let rows = value.rows();
        Self {
            dtype: value.dtype,
            features: value.shape.elements() / rows.of(1, value.length()).max(1),
            rows,
            layout: Layout::Single,
        }
    }

    /// The same elements in another layout, in tiles of `rows`.
    pub fn with(self, layout: Layout, rows: Rows) -> Self {
        match layout {
            Layout::Tiled => Self {
                features: self.features * self.rows.count / rows.count.max(1),
                rows,
                layout,
                ..self
            },
            layout => Self { layout, ..self },
        }
    }

    /// Whether it has the form that [`Tensor::with`] gives it.
    pub fn is_in(self, layout: Layout, rows: Rows) -> bool {
        self.layout == layout && (layout != Layout::Tiled || self.rows == rows)
    }

    /// How much memory it takes.
    pub fn extent(self) -> Extent {
        let (row, rows) = match self.layout {
            Layout::Blocks(blocks) => (blocks.len(), Rows::ONE),
            Layout::Bytes(blocks, _) => (blocks.byte_len(), Rows::ONE),
            Layout::Single | Layout::Tiled => (self.features, self.rows),
        };
        Extent {
            row,
            rows,
            unit: self.layout.samples(),
            width: self.dtype.bytes(),
        }
    }

    /// Elements in memory, as [`Extent::elements`].
    pub fn len(self, n: usize, length: usize) -> usize {
        self.extent().elements(n, length)
    }

    /// Elements of a sample, without those that a layout adds.
    pub fn elements(self, length: usize) -> usize {
        self.features * self.rows.of(1, length)
    }
}

/// How much memory a value takes: what a run computes for each operand of each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Extent {
    /// Elements of a row, with those that the layout adds.
    row: usize,
    rows: Rows,
    /// Rows are there in multiples of it, a power of two.
    unit: usize,
    /// Bytes of an element.
    width: usize,
}

impl Extent {
    /// Elements in memory for `n` samples whose free dimension has `length` elements.
    #[inline]
    pub fn elements(&self, n: usize, length: usize) -> usize {
        let rows = self.rows.of(n, length);
        self.row * ((rows + self.unit - 1) & !(self.unit - 1))
    }

    /// Bytes of [`Extent::elements`].
    #[inline]
    pub fn bytes(&self, n: usize, length: usize) -> usize {
        self.elements(n, length) * self.width
    }
}

/// A step with its kernel.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// Name of the node that it computes; empty for a conversion of the layout.
    pub name: String,
    /// Operators that it computes, for people: `Linear+Relu`.
    pub op: String,
    /// The kernel. Where threads share the step by rows or channels, several kernels, each for the next rows of the output.
    pub parts: Vec<Part>,
    pub partition: Partition,
    pub clamp: Clamp,
    /// One input, two or three: the second is a summand, or the second operand of an arithmetic operation; three are those of attention.
    pub inputs: Vec<Value>,
    pub output: Value,
    pub output_shape: Shape,
    /// What is a sample to the kernel.
    pub rows: Rows,
    /// `None` for a step without a weight.
    pub weight: Option<WeightUse>,
}

/// A kernel that computes the first or the next rows of an output.
#[derive(Debug)]
pub(crate) struct Part {
    pub kernel: Box<dyn PackedKernel>,
    /// Elements that it writes per sample, in the layout of the output.
    pub features: usize,
}

/// How a step is divided among threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partition {
    /// Each part computes its rows or channels from the whole input.
    Rows,
    /// Each part computes its channels from the same channels of the input.
    Channels,
    /// That many threads each compute some lines of a map in blocks, with all channels ([`PackedKernel::banded`]).
    Lines(usize),
    /// That many threads share each call ([`PackedKernel::call_split`]).
    Call(usize),
}

/// Size of a weight and how often it is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeightUse {
    /// Weights, zeros included.
    pub elements: usize,
    pub nonzeros: usize,
    /// Output pixels: how often each weight is multiplied per sample.
    pub pixels: usize,
    /// How sparse kernels store the non-zeros.
    pub precision: Precision,
}

impl WeightUse {
    /// Multiply-adds of a sample: of non-zeros with `sparse`, else of all weights.
    pub fn multiply_adds(self, sparse: bool) -> usize {
        let weights = if sparse { self.nonzeros } else { self.elements };
        weights.saturating_mul(self.pixels)
    }

    /// Share of weights that are not zero, 0 to 1.
    pub fn density(self) -> f64 {
        self.nonzeros as f64 / self.elements.max(1) as f64
    }
}

impl Lowered {
    pub fn in_place(&self) -> bool {
        self.parts[0].kernel.in_place()
    }

    /// Pieces that different threads can compute.
    pub fn pieces(&self) -> usize {
        match self.partition {
            Partition::Lines(threads) | Partition::Call(threads) => threads,
            _ => self.parts.len(),
        }
    }

    /// Elements of scratch of all parts together, or of all threads.
    pub fn scratch_len(&self) -> usize {
        let parts: usize = self.parts.iter().map(Part::scratch_len).sum();
        match self.partition {
            Partition::Call(threads) => parts * threads,
            _ => parts,
        }
    }
}

impl Part {
    /// A kernel that computes all `features` elements of an output.
    pub fn whole(kernel: impl PackedKernel + 'static, features: usize) -> Self {
        Self {
            kernel: Box::new(kernel),
            features,
        }
    }

    /// Elements of scratch in whole cache lines, so that no two parts write to one line.
    pub fn scratch_len(&self) -> usize {
        self.kernel.scratch_len().next_multiple_of(LANES)
    }
}

/// Steps in an order in which they can run.
#[derive(Debug)]
pub(crate) struct LoweredProgram {
    pub steps: Vec<Lowered>,
    pub values: Vec<Tensor>,
    /// Most elements of the free dimension.
    pub length: usize,
    pub inputs: Vec<Value>,
    /// The outputs, each in [`Layout::Single`]. Several may be one value.
    pub outputs: Vec<Value>,
    /// Samples that go through all steps together, except for the first `one_by_one` steps.
    pub block: usize,
    /// That many of the first steps run sample after sample, the others over all samples of a block.
    pub one_by_one: usize,
    /// Whether threads also share the layers of blocks of which there are several, but fewer than threads.
    pub shares_blocks: bool,
    /// Threads that a run should use.
    pub threads: usize,
    /// How many of the last samples of a batch, too few for half a tile, run faster outside a tile.
    pub last_alone: usize,
}
