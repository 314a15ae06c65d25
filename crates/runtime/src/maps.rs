//! Kernels and layouts of convolutions and pooling.
//!
//! Where samples go one by one, the maps of large layers are cut into blocks ([`Blocks`]), and stay so from layer to layer: a convolution
//! takes the blocks of its input where windows move over them lane for lane, and leaves as much of a halo as the next windows want. A value
//! is brought from one cut to another by lanes under the same grid, else through plain maps; either costs a few cycles for each line of sixteen pixels.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::conv::SparseConv;
use sparsevd_kernels::conv_blocks::BlockConv;
use sparsevd_kernels::conv_rows::RowConv;
use sparsevd_kernels::dense::Conv;
use sparsevd_kernels::dense_blocks::DenseBlockConv;
use sparsevd_kernels::depthwise::Depthwise;
use sparsevd_kernels::pool::{Pool, Reduction};
use sparsevd_kernels::pool_blocks::{BlockAverage, BlockPool};
use sparsevd_kernels::reblock::Subsample;
use sparsevd_kernels::{Layout, select};
use sparsevd_model::{Csr, Dense, Op, Shape, Window};

use crate::RuntimeError;
use crate::lower::{
    Builder, Kernels, Part, Tensor, WeightUse, nonzeros_of_rows, rows_of, to_csr, weights_of_rows,
    whole,
};
use crate::pointwise::keeps_zero;
use crate::program::{Program, Step, Value};

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

/// What a step with one map in and one out reads and makes.
fn maps_of(step: &Step) -> Option<[[usize; 3]; 2]> {
    match (step.input_shape.dims(), step.output_shape.dims()) {
        (&[c, h, w], &[out, oh, ow]) => Some([[c, h, w], [out, oh, ow]]),
        _ => None,
    }
}

/// Whether in blocks of `n` samples the small maps should be in tiles: where their layers read far more bytes of weights, which samples then share,
/// than of maps, which then leave the caches.
pub(crate) fn worth_tiles(program: &Program, uses: &[Option<WeightUse>], n: usize) -> bool {
    /// Of a weight with its offset.
    const BYTES: usize = 6;
    /// What bytes of maps cost more than bytes of weights: they are written, and brought into tiles and back.
    const MAPS: usize = 3;
    let (mut weights, mut maps) = (0, 0);
    for (step, used) in program.steps.iter().zip(uses) {
        if let (Op::Conv { .. }, Some(used), Some([input, output])) =
            (&step.op, used, maps_of(step))
            && select::prefer_tiles([input, output], n)
        {
            weights += used.nonzeros * BYTES;
            maps += (step.input_shape.elements() + step.output_shape.elements()) * size_of::<f32>();
        }
    }
    n > 1 && weights > MAPS * maps
}

/// What a convolution adds to its sums, where a sum was put into it.
pub(crate) fn residual(step: &Step) -> Option<Value> {
    match step.op {
        Op::Conv { .. } => step.inputs.get(1).copied(),
        _ => None,
    }
}

/// For each value the halo that the windows of its readers want, directly or through sums, if they run over blocks.
pub(crate) fn halos(program: &Program) -> Vec<[usize; 4]> {
    let mut halos = vec![[0; 4]; program.elements.len()];
    let widen = |halo: &mut [usize; 4], wanted: [usize; 4]| {
        for (old, wanted) in halo.iter_mut().zip(wanted) {
            *old = wanted.max(*old);
        }
    };
    for step in program.steps.iter().rev() {
        if let Some(residual) = residual(step) {
            let wanted = halos[step.output];
            widen(&mut halos[residual], wanted);
        }
        let wanted = match &step.op {
            Op::Conv { window, .. } => {
                // A smaller map is cut anew, and its blocks are packed with what its windows want.
                let (from, to) = (step.input_shape.dims(), step.output_shape.dims());
                let covers = |d: usize| to[d + 1] * window.strides[d] >= from[d + 1];
                if from.len() == 3 && (0..2).all(covers) {
                    widen(&mut halos[step.inputs[0]], Blocks::halo_of(window));
                }
                continue;
            }
            Op::MaxPool { window } | Op::AveragePool { window } => Blocks::halo_of(window),
            op if keeps_zero(op) => halos[step.output],
            _ => continue,
        };
        for &input in &step.inputs {
            widen(&mut halos[input], wanted);
        }
    }
    halos
}

/// The values that depthwise convolutions read.
pub(crate) fn read_by_depthwise(program: &Program) -> HashSet<Value> {
    let depthwise = program.steps.iter().filter(|s| match s.op {
        Op::Conv { groups, .. } => groups > 1 && s.input_shape.dims().first() == Some(&groups),
        _ => false,
    });
    depthwise.map(|s| s.inputs[0]).collect()
}

/// The blocks of input and output, without a halo of the output, of a convolution that is worth bringing its input into them.
fn own_blocks(
    step: &Step,
    used: Option<WeightUse>,
    window: &Window,
    sparse: bool,
) -> Option<[Blocks; 2]> {
    let (&[c, h, w], &[out, oh, ow]) = (step.input_shape.dims(), step.output_shape.dims()) else {
        return None;
    };
    let used = used?;
    let depthwise = used.elements == out * window.kernel_shape.iter().product::<usize>();
    let output = Blocks::of_map([out, oh, ow]);
    let input = BlockConv::input([c, h, w], window, &output);
    let wanted = if sparse {
        !RowConv::takes(window) || select::prefer_blocks(used.nonzeros * oh * ow)
    } else {
        select::prefer_dense_blocks(used.elements * oh * ow, input.len(), depthwise)
    };
    wanted.then_some([input, output])
}

/// Values that nothing reads but pooling to the largest of two by two pixels, and what that makes.
pub(crate) fn pools(program: &Program) -> HashMap<Value, Value> {
    let pairs = Window::square(2, 2);
    let pools = program.steps.iter().filter(|s| match &s.op {
        Op::MaxPool { window } => *window == pairs && program.readers(s.inputs[0]) == 1,
        _ => false,
    });
    pools.map(|s| (s.inputs[0], s.output)).collect()
}

/// The shape of a map pooled two by two.
pub(crate) fn halved(shape: &Shape) -> Shape {
    let dims = shape.dims().iter().enumerate();
    Shape(dims.map(|(i, &n)| if i == 0 { n } else { n / 2 }).collect())
}

impl Builder<'_> {
    pub fn conv(
        &mut self,
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
        let sparse = self.choice.sparse && select::prefer_sparse_conv(density, per_group, groups);
        // Of maps of a few pixels, lanes are better filled with samples.
        let Some(maps) = maps_of(step) else {
            return Err(self.no_map(step));
        };
        let tiled = sparse && self.tiles && select::prefer_tiles(maps, self.block);
        let over_blocks = (sparse || per_group == 1 || select::prefer_direct(isa)) && !tiled;
        let subsampled = over_blocks.then(|| self.subsampled(step, window)).flatten();
        let pixel = Window::square(1, 1);
        let (window, input, blocks) = match subsampled {
            Some(blocks) => (&pixel, blocks[0].map(), Some(blocks)),
            None if over_blocks => (window, input, self.blocks(step, used, window, sparse)),
            None => (window, input, None),
        };
        if sparse
            && let Some(parts) =
                self.pooled_tiles(step, used, &to_csr(weight), bias, window, groups)
        {
            return Ok((parts, Layout::Tiled, Layout::Tiled));
        }
        if let Some(blocks) = blocks
            && sparse
        {
            let csr = to_csr(weight);
            let convs: Vec<BlockConv> = self
                .channels(step, &weights_of_rows(weight, true), used, blocks)
                .into_iter()
                .map(|r| {
                    BlockConv::pack_channels(isa, &csr, shape, bias, window, groups, blocks, r)
                })
                .collect();
            let (convs, output) = self.with_pooling(step, convs, blocks[1]);
            let parts = convs.into_iter().map(|conv| Part {
                features: conv.output().len(),
                kernel: Box::new(conv),
            });
            let to = match output {
                output if output.is_plain() => Layout::Single,
                output => Layout::Blocks(output),
            };
            return Ok((parts.collect(), Layout::Blocks(blocks[0]), to));
        }
        if let Some(blocks) = blocks
            && per_group == 1
        {
            return Ok(self.depthwise(used, &weight.to_dense(), bias, window, blocks));
        }
        if let Some(blocks) = blocks
            && !sparse
        {
            let dense = weight.to_dense();
            let parts = self
                .channels(step, &weights_of_rows(weight, false), used, blocks)
                .into_iter()
                .map(|r| {
                    let conv =
                        DenseBlockConv::pack_channels(isa, &dense, bias, window, groups, blocks, r);
                    Part {
                        features: conv.output().len(),
                        kernel: Box::new(conv),
                    }
                });
            return Ok((
                parts.collect(),
                Layout::Blocks(blocks[0]),
                Layout::Blocks(blocks[1]),
            ));
        }
        if sparse {
            let csr = to_csr(weight);
            let layout = if tiled {
                Layout::Tiled
            } else {
                self.choice.layout
            };
            let ranges = self.ranges(&weights_of_rows(weight, true), used, layout);
            let pool = self.pool_behind(step);
            if layout == Layout::Single
                && let Some(pool) = pool
            {
                self.pooled.insert(step.output, pool);
            }
            let part = |r: Range<usize>| match layout {
                Layout::Single => {
                    let conv =
                        RowConv::pack_channels(isa, &csr, shape, bias, window, groups, input, r);
                    let conv = match pool {
                        Some(_) => conv.pooled(),
                        None => conv,
                    };
                    Part {
                        features: conv.output().iter().product(),
                        kernel: Box::new(conv),
                    }
                }
                // A border would have to be in the tiles already.
                _ if window.pads == [0; 4] => Part {
                    features: r.len() * pixels,
                    kernel: Box::new(BlockConv::pack_channels(
                        isa,
                        &csr,
                        shape,
                        bias,
                        window,
                        groups,
                        maps.map(Blocks::of_tile),
                        r,
                    )),
                },
                _ => Part {
                    features: r.len() * pixels,
                    kernel: Box::new(SparseConv::pack_channels(
                        isa, &csr, shape, bias, window, groups, input, r,
                    )),
                },
            };
            return Ok((ranges.into_iter().map(part).collect(), layout, layout));
        }
        let dense = weight.to_dense();
        // With groups a range of channels reads a range of the input; such layers are small and stay whole.
        let ranges = if groups == 1 {
            self.ranges(&weights_of_rows(weight, false), used, Layout::Single)
        } else {
            std::iter::once(0..out).collect()
        };
        let parts = ranges
            .into_iter()
            .map(|r| Part {
                features: r.len() * pixels,
                kernel: Box::new(Conv::pack(
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

    /// What becomes of a convolution that is only pooled, two by two.
    fn pool_behind(&self, step: &Step) -> Option<Value> {
        let pool = self.pools.get(&step.output).copied();
        pool.filter(|_| residual(step).is_none())
    }

    /// Channels of each part of a convolution over blocks: all, where threads had better share lines.
    fn channels(
        &self,
        step: &Step,
        weights: &[usize],
        used: Option<WeightUse>,
        [input, output]: [Blocks; 2],
    ) -> Vec<Range<usize>> {
        let ranges = self.ranges(weights, used, Layout::Single);
        // A depthwise convolution may go on with channels as well.
        let alone = self.depthwise.contains(&step.output) && select::share_channels(&output);
        if !alone && select::share_lines(input.len(), weights.iter().sum(), &output, ranges.len()) {
            return std::iter::once(0..weights.len()).collect();
        }
        ranges
    }

    /// A depthwise convolution over blocks, with a filter for each of the `weight`'s rows.
    fn depthwise(
        &self,
        used: Option<WeightUse>,
        weight: &Dense,
        bias: Option<&[f32]>,
        window: &Window,
        [input, output]: [Blocks; 2],
    ) -> Kernels {
        let ([channels, ..], [filters, ..]) = (input.map(), output.map());
        let each = filters / channels.max(1);
        let ranges = if select::share_channels(&input) {
            let taps = window.kernel_shape.iter().product();
            self.ranges(&vec![taps; channels], used, Layout::Single)
        } else {
            std::iter::once(0..channels).collect()
        };
        let parts = ranges.into_iter().map(|r| {
            let rows = r.start * each..r.end * each;
            let blocks = [
                input.with_channels(r.len()),
                output.with_channels(rows.len()),
            ];
            let (weight, bias) = (rows_of(weight, rows.clone()), bias.map(|b| &b[rows]));
            let conv = Depthwise::pack(self.options.isa, &weight, bias, window, blocks);
            Part {
                features: conv.output().len(),
                kernel: Box::new(conv),
            }
        });
        (
            parts.collect(),
            Layout::Blocks(input),
            Layout::Blocks(output),
        )
    }

    /// A convolution over tiles with the pooling behind it, if there is one that it can take in.
    fn pooled_tiles(
        &mut self,
        step: &Step,
        used: Option<WeightUse>,
        weight: &Csr,
        bias: Option<&[f32]>,
        window: &Window,
        groups: usize,
    ) -> Option<Vec<Part>> {
        let pool = self.pool_behind(step)?;
        let (&[c, h, w], &[out, oh, ow]) = (step.input_shape.dims(), step.output_shape.dims())
        else {
            return None;
        };
        if self.choice.layout != Layout::Tiled || window.pads != [0; 4] {
            return None;
        }
        let [kh, kw] = window.kernel_shape;
        let shape = [out, c / groups, kh, kw];
        let [input, output] = [[c, h, w], [out, oh, ow]].map(Blocks::of_tile);
        let pooled = BlockPool::output(&Window::square(2, 2), &output)?;
        let isa = self.options.isa;
        let parts: Option<Vec<Part>> = self
            .ranges(&nonzeros_of_rows(weight), used, Layout::Tiled)
            .into_iter()
            .map(|r| {
                let blocks = [input, output];
                let features = r.len() * pooled.lines();
                let conv =
                    BlockConv::pack_channels(isa, weight, shape, bias, window, groups, blocks, r);
                Some(Part {
                    features,
                    kernel: Box::new(conv.pooled(pooled)?),
                })
            })
            .collect();
        if parts.is_some() {
            self.pooled.insert(step.output, pool);
        }
        parts
    }

    /// The parts of a convolution with the pooling behind it where they can take it in, and the blocks that they make.
    fn with_pooling(
        &mut self,
        step: &Step,
        convs: Vec<BlockConv>,
        output: Blocks,
    ) -> (Vec<BlockConv>, Blocks) {
        let window = Window::square(2, 2);
        let Some((pool, pooled)) = self
            .pool_behind(step)
            .zip(BlockPool::output(&window, &output))
        else {
            return (convs, output);
        };
        let pooled = pooled.with_halo(self.halos[pool]);
        let fused: Option<Vec<_>> = convs.iter().map(|c| c.clone().pooled(pooled)).collect();
        match fused {
            Some(fused) => {
                self.pooled.insert(step.output, pool);
                (fused, pooled)
            }
            None => (convs, output),
        }
    }

    /// Brings the input of a 1x1 convolution with strides to the pixels that it reads, where those lie in blocks that its windows do not move over
    /// lane for lane; gives the blocks of its input and output, as of a convolution without strides.
    fn subsampled(&mut self, step: &Step, window: &Window) -> Option<[Blocks; 2]> {
        let value = step.inputs[0];
        let (Layout::Blocks(from), &[out, oh, ow]) =
            (self.values[value].layout, step.output_shape.dims())
        else {
            return None;
        };
        let [c, ..] = from.map();
        let moves = from.over([out, oh, ow], window.strides).is_some();
        let skips = window.kernel_shape == [1, 1] && window.strides != [1, 1];
        if moves || !skips || window.pads != [0; 4] {
            return None;
        }
        let output = from.alike([out, oh, ow]);
        let input = output.with_channels(c);
        let layout = Layout::Blocks(input);
        if !self.converted.contains_key(&(value, layout)) {
            let (isa, features) = (self.options.isa, c * oh * ow);
            let tensor = Tensor { features, layout };
            let made = self.change("Subsample", value, tensor, &|channels| {
                let [from, to] = [from, input].map(|b| b.with_channels(channels));
                Box::new(Subsample::new(isa, from, to, window.strides))
            });
            self.converted.insert((value, layout), made);
        }
        Some([input, output.with_halo(self.halo(step))])
    }

    /// The halo of what a convolution makes: as wide as its readers want, and as that of what it adds, so that the two lie alike.
    fn halo(&self, step: &Step) -> [usize; 4] {
        let wanted = self.halos[step.output];
        match residual(step).map(|v| self.values[v].layout) {
            Some(Layout::Blocks(there)) => {
                let there = there.halo();
                std::array::from_fn(|i| wanted[i].max(there[i]))
            }
            _ => wanted,
        }
    }

    /// The blocks in which a convolution wants its input and makes its output, if it should run over blocks.
    fn blocks(
        &self,
        step: &Step,
        used: Option<WeightUse>,
        window: &Window,
        sparse: bool,
    ) -> Option<[Blocks; 2]> {
        if sparse && self.choice.layout != Layout::Single {
            return None;
        }
        let halo = self.halo(step);
        if let Layout::Blocks(input) = self.values[step.inputs[0]].layout
            && let &[out, oh, ow] = step.output_shape.dims()
        {
            // Either the same lines, or the same grid, from which the way is shorter than through plain maps.
            let same = input
                .over([out, oh, ow], window.strides)
                .filter(|output| input.covers(&BlockConv::input(input.map(), window, output)));
            let output = same.unwrap_or_else(|| input.alike([out, oh, ow]));
            let input = match same {
                Some(_) => input,
                None => BlockConv::input(input.map(), window, &output),
            };
            return Some([input, output.with_halo(halo)]);
        }
        let [input, output] = own_blocks(step, used, window, sparse)?;
        Some([input, output.with_halo(halo)])
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
            let part = whole(pool, step);
            return Ok((vec![part], layout, Layout::Blocks(output)));
        }
        if let (Layout::Blocks(input), None) = (layout, window) {
            let part = whole(BlockAverage { isa, blocks: input }, step);
            return Ok((vec![part], layout, Layout::Single));
        }
        let layout = match layout {
            Layout::Blocks(_) => Layout::Single,
            layout => layout,
        };
        let pool = match window {
            Some(window) => Pool::new(isa, reduction, layout, window, [c, h, w]),
            None => Pool::global_average(isa, layout, [c, h, w]),
        };
        Ok((vec![whole(pool, step)], layout, layout))
    }

    pub fn no_map(&self, step: &Step) -> RuntimeError {
        RuntimeError::Unsupported {
            network: self.network.graph.name.clone(),
            what: "input of a window",
            expected: "a feature map [channels, height, width]".into(),
            got: format!("{} (node `{}`)", step.input_shape, step.name),
        }
    }
}
