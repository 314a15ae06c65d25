//! Kernels and layouts of convolutions and pooling.
//!
//! In a sparse plan for single samples, the maps of large layers are cut into blocks ([`Blocks`]), and stay so from layer to layer: a convolution
//! takes the blocks of its input where windows move over them lane for lane, and leaves as much of a halo as the next windows want. A value
//! is brought from one cut to another through plain maps, which costs a few cycles for each line of sixteen pixels.

use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::conv::SparseConv;
use sparsevd_kernels::conv_blocks::BlockConv;
use sparsevd_kernels::dense::Conv;
use sparsevd_kernels::depthwise::Depthwise;
use sparsevd_kernels::pool::{Pool, Reduction};
use sparsevd_kernels::pool_blocks::BlockPool;
use sparsevd_kernels::{Layout, select};
use sparsevd_model::{Op, Window};

use crate::RuntimeError;
use crate::kernel::Kernel;
use crate::lower::{Builder, Kernels, Part, WeightUse, rows_of, to_csr, whole};
use crate::program::{Program, Step};

/// Elements of the largest map that a convolution reads or makes, per sample.
pub(crate) fn largest(program: &Program) -> usize {
    let convolutions = program
        .steps
        .iter()
        .filter(|s| matches!(s.op, Op::Conv { .. }));
    convolutions
        .map(|s| s.input_shape.elements().max(s.output_shape.elements()))
        .max()
        .unwrap_or(0)
}

/// For each value the halo that the windows of its readers want, directly or through sums.
pub(crate) fn halos(program: &Program) -> Vec<[usize; 4]> {
    let mut halos = vec![[0; 4]; program.elements.len()];
    for step in program.steps.iter().rev() {
        let wanted = match &step.op {
            Op::Conv { window, .. } | Op::MaxPool { window } | Op::AveragePool { window } => {
                Blocks::halo_of(window)
            }
            Op::Add | Op::Relu => halos[step.output],
            _ => continue,
        };
        for &input in &step.inputs {
            let old = halos[input];
            halos[input] = std::array::from_fn(|i| old[i].max(wanted[i]));
        }
    }
    halos
}

impl Builder<'_> {
    pub fn conv(
        &self,
        step: &Step,
        used: Option<WeightUse>,
        weight: &str,
        bias: Option<&str>,
        window: &Window,
        groups: usize,
    ) -> Result<Kernels, RuntimeError> {
        let isa = self.options.isa;
        let weight = &self.network.tensors[weight];
        let shape = weight.shape();
        let (&[out, per_group, kh, kw], &[c, h, w]) = (shape.dims(), step.input_shape.dims())
        else {
            return Err(self.no_map(step));
        };
        let (shape, input) = ([out, per_group, kh, kw], [c, h, w]);
        let bias = self.bias(bias);
        let bias = bias.as_deref();
        let pixels = used.map_or(1, |u| u.pixels);
        let density = used.map_or(1.0, WeightUse::density);
        let sparse = self.choice.sparse
            && select::prefer_sparse_conv(density, per_group, groups, self.choice.share);
        let blocks = self.blocks(step, used, window, shape);
        if let Some(blocks) = blocks
            && sparse
        {
            let csr = to_csr(weight);
            let parts = self
                .ranges(out, used, Layout::Single)
                .into_iter()
                .map(|r| {
                    let conv =
                        BlockConv::pack_channels(isa, &csr, shape, bias, window, groups, blocks, r);
                    Part {
                        features: conv.output().len(),
                        kernel: Kernel::BlockConv(conv),
                    }
                })
                .collect();
            return Ok((parts, Layout::Blocks(blocks[0]), Layout::Blocks(blocks[1])));
        }
        if let Some(blocks) = blocks
            && per_group == 1
        {
            let conv = Depthwise::pack(isa, &weight.to_dense(), bias, window, blocks);
            let part = Part {
                features: conv.output().len(),
                kernel: Kernel::Depthwise(conv),
            };
            return Ok((
                vec![part],
                Layout::Blocks(blocks[0]),
                Layout::Blocks(blocks[1]),
            ));
        }
        if sparse {
            let csr = to_csr(weight);
            let layout = self.choice.layout;
            let parts = self
                .ranges(out, used, layout)
                .into_iter()
                .map(|r| Part {
                    features: r.len() * pixels,
                    kernel: Kernel::SparseConv(SparseConv::pack_channels(
                        isa, layout, &csr, shape, bias, window, groups, input, r,
                    )),
                })
                .collect();
            return Ok((parts, layout, layout));
        }
        let dense = weight.to_dense();
        // With groups a range of channels reads a range of the input; such layers are small and stay whole.
        let ranges = if groups == 1 {
            self.ranges(out, used, Layout::Single)
        } else {
            std::iter::once(0..out).collect()
        };
        let parts = ranges
            .into_iter()
            .map(|r| Part {
                features: r.len() * pixels,
                kernel: Kernel::DenseConv(Conv::pack(
                    isa,
                    &rows_of(&dense, r.clone()),
                    bias.map(|b| &b[r]),
                    window,
                    groups,
                    input,
                )),
            })
            .collect();
        Ok((parts, Layout::Single, Layout::Single))
    }

    /// The blocks in which a convolution wants its input and makes its output, if it should run over blocks.
    fn blocks(
        &self,
        step: &Step,
        used: Option<WeightUse>,
        window: &Window,
        [out, per_group, ..]: [usize; 4],
    ) -> Option<[Blocks; 2]> {
        if !self.choice.sparse || self.choice.layout != Layout::Single {
            return None;
        }
        let (&[c, h, w], &[_, oh, ow]) = (step.input_shape.dims(), step.output_shape.dims()) else {
            return None;
        };
        let wanted = self.halos[step.output];
        let needed = |output: &Blocks| BlockConv::input([c, h, w], window, output);
        if let Layout::Blocks(input) = self.values[step.inputs[0]].layout
            && let Some(output) = input.over([out, oh, ow], window.strides)
            && input.covers(&needed(&output))
        {
            return Some([input, output.with_halo(wanted)]);
        }
        let work = used.map_or(0, |u| u.nonzeros * u.pixels);
        let output = Blocks::of_map([out, oh, ow]);
        select::prefer_blocks(work, per_group == 1)
            .then(|| [needed(&output), output.with_halo(wanted)])
    }

    pub fn pool(
        &self,
        step: &Step,
        reduction: Reduction,
        window: Option<&Window>,
    ) -> Result<Kernels, RuntimeError> {
        let isa = self.options.isa;
        let layout = self.values[step.inputs[0]].layout;
        let &[c, h, w] = step.input_shape.dims() else {
            return Err(self.no_map(step));
        };
        if let (Layout::Blocks(input), Some(window)) = (layout, window)
            && let Some(output) = BlockPool::output(window, &input)
        {
            let output = output.with_halo(self.halos[step.output]);
            let pool = BlockPool::new(isa, reduction, window, [input, output]);
            let part = whole(Kernel::BlockPool(pool), step);
            return Ok((vec![part], layout, Layout::Blocks(output)));
        }
        let layout = match layout {
            Layout::Blocks(_) => Layout::Single,
            layout => layout,
        };
        let pool = match window {
            Some(window) => Pool::new(isa, reduction, layout, window, [c, h, w]),
            None => Pool::global_average(isa, layout, [c, h, w]),
        };
        Ok((
            vec![whole(Kernel::Pool(pool, layout), step)],
            layout,
            layout,
        ))
    }

    fn no_map(&self, step: &Step) -> RuntimeError {
        RuntimeError::Unsupported {
            network: self.network.graph.name.clone(),
            what: "input of a window",
            expected: "a feature map [channels, height, width]".into(),
            got: format!("{} (node `{}`)", step.input_shape, step.name),
        }
    }
}
