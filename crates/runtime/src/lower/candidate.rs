//! A kernel that could compute a step.

use sparsevd_kernels::{Layout, PackedKernel};

use crate::lowered::Part;
use crate::value::Rows;

/// A kernel that could compute a step, with the layouts that it needs. Its weights are packed only if it is chosen.
pub(super) struct Candidate<'a> {
    /// Layout of the inputs.
    pub input: Layout,
    /// What is a sample to the kernel.
    pub rows: Rows,
    /// Of the first input, the kernel reads only one pixel in that many rows and columns.
    pub subsample: Option<[usize; 2]>,
    /// Layout of the output.
    pub output: Layout,
    /// Layout in which the kernel adds a residual.
    pub residual: Layout,
    /// Whether the kernel also computes the pooling that joined the step.
    pub pools: bool,
    /// Whether each input has a part of its own, which runs as a step of its own.
    pub per_input: bool,
    /// Packs the kernel; `None` where the packed form does not allow what the candidate promises.
    pub pack: Box<dyn FnOnce() -> Option<Vec<Part>> + 'a>,
}

impl<'a> Candidate<'a> {
    /// A kernel whose inputs and output have the same layout.
    pub fn new(layout: Layout, pack: impl FnOnce() -> Vec<Part> + 'a) -> Self {
        Self::between([layout, layout], pack)
    }

    /// A kernel with one layout for the inputs and one for the output.
    pub fn between([input, output]: [Layout; 2], pack: impl FnOnce() -> Vec<Part> + 'a) -> Self {
        Self {
            input,
            rows: Rows::ONE,
            subsample: None,
            output,
            residual: output,
            pools: false,
            per_input: false,
            pack: Box::new(|| Some(pack())),
        }
    }

    /// A kernel that also computes the pooling that joined the step, where it can be packed so.
    pub fn pooled(
        [input, output]: [Layout; 2],
        pack: impl FnOnce() -> Option<Vec<Part>> + 'a,
    ) -> Self {
        Self {
            pools: true,
            pack: Box::new(pack),
            ..Self::between([input, output], Vec::new)
        }
    }

    /// The candidate, to which each of the `rows` of a sample is a sample.
    pub fn over(self, rows: Rows) -> Self {
        Self { rows, ..self }
    }

    /// A kernel without weights that computes all `features` elements of an output at once.
    pub fn whole(
        [input, output]: [Layout; 2],
        kernel: impl PackedKernel + 'static,
        features: usize,
    ) -> Self {
        Self::between([input, output], move || vec![Part::whole(kernel, features)])
    }
}
