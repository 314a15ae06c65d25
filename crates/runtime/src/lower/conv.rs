//! Kernels and layouts of convolutions.
//!
//! Where samples run one by one, the maps of large layers are cut into blocks ([`Blocks`]), and stay so from layer to layer: a convolution
//! keeps the blocks of its input where its windows move over all sixteen at once, and writes the halo that the next windows need. A map is
//! converted between two divisions into blocks directly where both have the same grid, else through a plain map; both cost a few cycles for
//! each line of sixteen pixels.

mod bytes;

use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;

use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::conv::SparseConv;
use sparsevd_kernels::conv_blocks::BlockConv;
use sparsevd_kernels::conv_rows::RowConv;
use sparsevd_kernels::cost::Size;
use sparsevd_kernels::dense::Conv;
use sparsevd_kernels::dense_blocks::DenseBlockConv;
use sparsevd_kernels::depthwise::Depthwise;
use sparsevd_kernels::pool_blocks::BlockPool;
use sparsevd_kernels::spmv::Spmv;
use sparsevd_kernels::{Isa, LANES, Layout, Precision, select};
use sparsevd_model::{Csr, Op, Weights, Window, ops};

use super::candidate::Candidate;
use super::context::{Bytes, Context};
use super::conv_geometry::{Geometry, InBlocks, check_border, halo, in_blocks};
use super::partition::spmv_parts;
use super::weights::{rows_of, to_csr, weights_of_rows};
use crate::error::RuntimeError;
use crate::lowered::{Part, WeightUse};
use crate::program::{FusedPool, Step, Value};
use crate::value::Rows;

/// A convolution that is to be packed.
struct Layer<'a> {
    context: Context<'a>,
    isa: Isa,
    weight: &'a Weights,
    bias: Option<Vec<f32>>,
    /// `[out, in/groups, kh, kw]`.
    shape: [usize; 4],
    groups: usize,
    /// Of the convolution without a pooling.
    pixels: usize,
    used: Option<WeightUse>,
    sparse: bool,
    /// Nanoseconds of a multiply-add in f32.
    float_ns: f64,
    /// What it computes in int8, where it has grids of them.
    bytes: Option<Bytes>,
    /// The output of the convolution, before a pooling.
    output: Value,
    /// That of the pooling that joined it.
    pooled: Option<Value>,
    input: Value,
    residual: Option<Value>,
}

/// The kernels of a convolution, those before others that also compute the pooling that joined it.
pub(super) fn candidates<'a>(
    context: &Context<'a>,
    step: &'a Step,
    used: Option<WeightUse>,
) -> Result<Vec<Candidate<'a>>, RuntimeError> {
    let pool = step.pool.as_ref().map(|_| step.output);
    let step = &step.without_pool();
    let Op::Conv(ops::Conv {
        weight,
        bias,
        window,
        groups,
    }) = &step.op
    else {
        return Err(context.unsupported(step));
    };
    let weight = &context.network.tensors[weight];
    let (&[out, per_group, kh, kw], Some(maps)) = (weight.shape().dims(), step.maps()) else {
        return Err(context.no_map(step));
    };
    check_border(context, step, window, maps[0])?;
    let choice = context.choice();
    let batching = context.batching;
    let density = used.map_or(1.0, WeightUse::density);
    let sparse = choice.sparse && select::prefer_sparse_conv(density, per_group, *groups);
    // Of maps of a few pixels, lanes are better filled with samples.
    let tiled = sparse
        && batching.small_maps_in_tiles
        && select::prefer_tiles(maps, batching.block_of_one_thread);
    let over_blocks = (sparse || per_group == 1 || select::prefer_direct(context.isa())) && !tiled;
    let geometry = Geometry {
        window: window.clone(),
        input: maps[0],
    };
    let in_blocks = if over_blocks {
        in_blocks(context, step, used, &geometry, sparse)
    } else {
        None
    };
    let layer = Rc::new(Layer {
        context: *context,
        isa: context.isa(),
        weight,
        bias: context.bias(bias.as_deref()),
        shape: [out, per_group, kh, kw],
        groups: *groups,
        pixels: used.map_or(1, |u| u.pixels),
        used,
        sparse,
        float_ns: {
            let (costs, over_blocks) = (&choice.costs, choice.costs.over_blocks());
            let over_tiles = choice.layout == Layout::Tiled || tiled;
            let lines = in_blocks.is_some() || (over_tiles && tiles_are_blocks(window));
            match (sparse, in_blocks.is_some()) {
                (true, _) if lines => over_blocks.conv,
                (true, _) => costs.conv,
                (false, true) if per_group == 1 => over_blocks.depthwise,
                (false, true) => over_blocks.dense_conv,
                (false, false) => costs.dense_conv,
            }
        },
        bytes: context.bytes(step)?,
        output: step.output,
        pooled: pool,
        input: step.inputs[0],
        residual: step.residual,
    });
    let mut list = Vec::new();
    if sparse && pool.is_some() && choice.layout == Layout::Tiled {
        list.extend(layer.pooled_tiles_of_bytes(&geometry, maps));
        list.extend(layer.pooled_tiles(&geometry, maps));
    }
    // Where floats are not in blocks, as those of rows and of im2col.
    let bytes_over_blocks = || {
        let output = Blocks::of_map(maps[1]).with_halo(halo(context, step));
        let blocks = [BlockConv::input(maps[0], window, &output), output];
        layer.of_bytes(blocks.map(Layout::Blocks), &geometry, blocks, None)
    };
    match in_blocks {
        Some(in_blocks) if sparse => list.extend(layer.over_blocks(in_blocks, pool)),
        Some(in_blocks) if per_group == 1 => {
            list.extend(layer.depthwise_of_bytes(&in_blocks));
            list.push(layer.depthwise(in_blocks));
        }
        Some(in_blocks) => list.extend(layer.dense_over_blocks(in_blocks)),
        None if sparse && !tiled && choice.layout == Layout::Single => {
            list.extend(bytes_over_blocks());
            let lanes = RowConv::lanes([maps[1][1], maps[1][2]]);
            list.extend(layer.as_matrix(&geometry, lanes));
            list.push(layer.over_rows(geometry, pool.is_some()));
        }
        None if sparse => {
            let blocks = maps.map(Blocks::of_tile);
            list.extend(layer.of_bytes([Layout::Tiled; 2], &geometry, blocks, None));
            list.push(layer.over_tiles(geometry, maps));
        }
        None => {
            if choice.layout == Layout::Single {
                list.extend(bytes_over_blocks());
            }
            list.push(layer.dense(geometry));
        }
    }
    Ok(list)
}

/// Whether the kernel over blocks convolves tiles of samples as well: a border would have to be in the tiles already.
fn tiles_are_blocks(window: &Window) -> bool {
    window.pads == [0; 4]
}

impl<'a> Layer<'a> {
    fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    fn csr(&self) -> Csr {
        to_csr(self.weight)
    }

    /// Channels of each part in that layout.
    fn ranges(&self, layout: Layout) -> Vec<Range<usize>> {
        let weights = weights_of_rows(self.weight, self.sparse);
        self.context.ranges(&weights, self.used, layout, Rows::ONE)
    }

    /// Channels of each part over blocks: all, where threads should rather share lines.
    fn ranges_over_blocks(&self, [input, output]: [Blocks; 2]) -> Vec<Range<usize>> {
        let weights = weights_of_rows(self.weight, self.sparse);
        let ranges = self
            .context
            .ranges(&weights, self.used, Layout::Single, Rows::ONE);
        // A depthwise convolution after this one may be shared by channels as well.
        let by_channels = self.context.read_by_depthwise.contains(&self.output)
            && select::share_channels(&output);
        let total = weights.iter().sum();
        if !by_channels && select::share_lines(input.len(), total, &output, ranges.len()) {
            return std::iter::once(0..weights.len()).collect();
        }
        ranges
    }

    fn pack_blocks(
        &self,
        geometry: &Geometry,
        blocks: [Blocks; 2],
        csr: &Csr,
        rows: Range<usize>,
    ) -> BlockConv {
        let (shape, window, groups) = (self.shape, &geometry.window, self.groups);
        BlockConv::pack_channels(
            self.isa,
            csr,
            shape,
            self.bias(),
            window,
            groups,
            blocks,
            rows,
        )
    }

    /// Sparse, over tiles, with the pooling; `None` where the convolution has a border or the pooling leaves pixels.
    fn pooled_tiles(
        self: &Rc<Self>,
        geometry: &Geometry,
        maps: [[usize; 3]; 2],
    ) -> Option<Candidate<'a>> {
        if geometry.window.pads != [0; 4] {
            return None;
        }
        let blocks = maps.map(Blocks::of_tile);
        let pooled = BlockPool::output(&FusedPool::window(), &blocks[1])?;
        let (layer, geometry) = (Rc::clone(self), geometry.clone());
        Some(Candidate::pooled(
            [Layout::Tiled, Layout::Tiled],
            move || {
                let csr = layer.csr();
                let part = |r: Range<usize>| {
                    let features = r.len() * pooled.lines();
                    let conv = layer.pack_blocks(&geometry, blocks, &csr, r);
                    Some(Part::whole(conv.pooled(pooled)?, features))
                };
                layer.ranges(Layout::Tiled).into_iter().map(part).collect()
            },
        ))
    }

    /// Sparse, over blocks, first with the pooling, then without.
    fn over_blocks(
        self: &Rc<Self>,
        in_blocks: InBlocks,
        pool: Option<Value>,
    ) -> Vec<Candidate<'a>> {
        let InBlocks {
            blocks,
            geometry,
            subsample,
        } = in_blocks;
        let ([input, output], shape) = (blocks, geometry.clone());
        // A map that blocks do not change is a plain one.
        let layout = |output: Blocks| {
            if output.is_plain() {
                Layout::Single
            } else {
                Layout::Blocks(output)
            }
        };
        let packed: Rc<OnceCell<Vec<BlockConv>>> = Rc::default();
        let pack = {
            let layer = Rc::clone(self);
            move || -> Vec<BlockConv> {
                let csr = layer.csr();
                let ranges = layer.ranges_over_blocks(blocks).into_iter();
                ranges
                    .map(|r| layer.pack_blocks(&geometry, blocks, &csr, r))
                    .collect()
            }
        };
        let part = |conv: BlockConv| {
            let features = conv.output().len();
            Part::whole(conv, features)
        };
        let mut list = Vec::new();
        if let Some(pool) = pool
            && let Some(pooled) = BlockPool::output(&FusedPool::window(), &output)
        {
            let pooled = pooled.with_halo(self.context.halos[pool]);
            let (packed, pack) = (Rc::clone(&packed), pack.clone());
            let layouts = [Layout::Blocks(input), layout(pooled)];
            let of_bytes = self.of_bytes(layouts, &shape, blocks, Some(pooled));
            list.extend(of_bytes.map(|c| Candidate { subsample, ..c }));
            list.push(Candidate {
                subsample,
                ..Candidate::pooled(layouts, move || {
                    let convs = packed.get_or_init(pack).iter();
                    convs
                        .map(|c| Some(part(c.clone().pooled(pooled)?)))
                        .collect()
                })
            });
        }
        let layouts = [Layout::Blocks(input), layout(output)];
        let of_bytes = self.of_bytes(layouts, &shape, blocks, None);
        list.extend(of_bytes.map(|c| Candidate { subsample, ..c }));
        if subsample.is_none() {
            list.extend(self.as_matrix(&shape, output.lines() * LANES));
        }
        list.push(Candidate {
            subsample,
            ..Candidate::between(layouts, move || {
                packed.get_or_init(pack);
                let convs =
                    Rc::try_unwrap(packed).map_or_else(|p| p.get().cloned(), OnceCell::into_inner);
                convs.into_iter().flatten().map(part).collect()
            })
        });
        list
    }

    /// Dense, over blocks.
    fn dense_over_blocks(self: &Rc<Self>, in_blocks: InBlocks) -> Vec<Candidate<'a>> {
        let InBlocks {
            blocks,
            geometry,
            subsample,
        } = in_blocks;
        let layer = Rc::clone(self);
        let of_bytes = self.of_bytes(blocks.map(Layout::Blocks), &geometry, blocks, None);
        let of_bytes = of_bytes.map(|c| Candidate { subsample, ..c });
        let of_floats = Candidate {
            subsample,
            ..Candidate::between(blocks.map(Layout::Blocks), move || {
                let dense = layer.weight.to_dense();
                let (window, groups) = (&geometry.window, layer.groups);
                let part = |r| {
                    let bias = layer.bias();
                    let conv = DenseBlockConv::pack_channels(
                        layer.isa, &dense, bias, window, groups, blocks, r,
                    );
                    let features = conv.output().len();
                    Part::whole(conv, features)
                };
                layer
                    .ranges_over_blocks(blocks)
                    .into_iter()
                    .map(part)
                    .collect()
            })
        };
        of_bytes.into_iter().chain([of_floats]).collect()
    }

    /// Depthwise, over blocks, with one or several filters for each channel.
    fn depthwise(self: &Rc<Self>, in_blocks: InBlocks) -> Candidate<'a> {
        let InBlocks {
            blocks: [input, output],
            geometry,
            subsample,
        } = in_blocks;
        let layer = Rc::clone(self);
        Candidate {
            subsample,
            ..Candidate::between([input, output].map(Layout::Blocks), move || {
                let weight = layer.weight.to_dense();
                let part = |(blocks, rows): ([Blocks; 2], Range<usize>)| {
                    let weight = rows_of(&weight, rows.clone());
                    let bias = layer.bias().map(|b| &b[rows]);
                    let window = &geometry.window;
                    let conv = Depthwise::pack(layer.isa, &weight, bias, window, blocks);
                    let features = conv.output().len();
                    Part::whole(conv, features)
                };
                // Where they do not share channels, threads share lines.
                let by_channels = select::share_channels(&input);
                let parts = layer.depthwise_parts([input, output], by_channels);
                parts.into_iter().map(part).collect()
            })
        }
    }

    /// The blocks and the filters of each part of a depthwise convolution: one, unless it is split by channels.
    fn depthwise_parts(
        &self,
        [input, output]: [Blocks; 2],
        by_channels: bool,
    ) -> Vec<([Blocks; 2], Range<usize>)> {
        let ([channels, ..], [filters, ..]) = (input.map(), output.map());
        let each = filters / channels.max(1);
        let ranges = if by_channels {
            let taps = self.shape[2] * self.shape[3];
            let weights = vec![taps; channels];
            (self.context).ranges(&weights, self.used, Layout::Single, Rows::ONE)
        } else {
            std::iter::once(0..channels).collect()
        };
        let part = |r: Range<usize>| {
            let rows = r.start * each..r.end * each;
            let blocks = [
                input.with_channels(r.len()),
                output.with_channels(rows.len()),
            ];
            (blocks, rows)
        };
        ranges.into_iter().map(part).collect()
    }

    /// The matrix by which a convolution multiplies a whole map, where that has few pixels: a row for each output, a column for each input.
    fn matrix(&self, geometry: &Geometry) -> Option<Size> {
        /// Most pixels of the output: beyond, each weight is there too often.
        const FEW: usize = 4;
        let (window, [channels, h, w], used) = (&geometry.window, geometry.input, self.used?);
        let [oh, ow] = window.output(h, w)?;
        if oh * ow > FEW || self.context.choice().layout != Layout::Single {
            return None;
        }
        let taps: usize = window.kernel_shape.iter().product();
        let read: usize = (0..taps)
            .map(|tap| reads(window, [h, w], tap).count())
            .sum();
        Some(Size {
            rows: self.shape[0] * oh * ow,
            cols: channels * h * w,
            nonzeros: (used.nonzeros * read).div_ceil(taps.max(1)),
            precision: used.precision,
        })
    }

    /// Sparse, as the product of [`Layer::matrix`] with a vector, where that takes less time than multiplying weights by `lanes` numbers each.
    fn as_matrix(self: &Rc<Self>, geometry: &Geometry, lanes: usize) -> Option<Candidate<'a>> {
        let costs = &self.context.choice().costs;
        let over_lanes = (self.used?.nonzeros * lanes) as f64 * self.float_ns;
        if costs.spmv_from_far(self.matrix(geometry)?) >= MATRIX_MARGIN * over_lanes {
            return None;
        }
        let (layer, geometry) = (Rc::clone(self), geometry.clone());
        Some(Candidate::new(Layout::Single, move || {
            let Geometry { window, input } = &geometry;
            let pixels = layer.pixels;
            let matrix = matrix_of(&layer.csr(), layer.shape, layer.groups, window, *input);
            let bias: Option<Vec<f32>> = layer.bias().map(|bias| {
                let each = bias.iter().map(|b| std::iter::repeat_n(*b, pixels));
                each.flatten().collect()
            });
            let whole = Spmv::pack_with(layer.isa, &matrix, bias.as_deref(), Precision::F32);
            let parts = spmv_parts(whole, layer.ranges(Layout::Single).len()).into_iter();
            let part = |part: Spmv| {
                let rows = part.rows();
                Part::whole(part, rows)
            };
            parts.map(part).collect()
        }))
    }

    /// Sparse, over the rows of plain maps, which always allows a pooling.
    fn over_rows(self: &Rc<Self>, geometry: Geometry, pooled: bool) -> Candidate<'a> {
        let layer = Rc::clone(self);
        let pack = move || {
            let csr = layer.csr();
            let Geometry { window, input } = &geometry;
            let (shape, groups) = (layer.shape, layer.groups);
            let part = |r| {
                let bias = layer.bias();
                let conv =
                    RowConv::pack_channels(layer.isa, &csr, shape, bias, window, groups, *input, r);
                let conv = if pooled { conv.pooled() } else { conv };
                let features = conv.output().iter().product();
                Part::whole(conv, features)
            };
            layer.ranges(Layout::Single).into_iter().map(part).collect()
        };
        Candidate {
            pools: pooled,
            ..Candidate::new(Layout::Single, pack)
        }
    }

    /// Sparse, over tiles.
    fn over_tiles(self: &Rc<Self>, geometry: Geometry, maps: [[usize; 3]; 2]) -> Candidate<'a> {
        let layer = Rc::clone(self);
        Candidate::new(Layout::Tiled, move || {
            let csr = layer.csr();
            let Geometry { window, input } = &geometry;
            let part = |r: Range<usize>| {
                let features = r.len() * layer.pixels;
                if tiles_are_blocks(window) {
                    let blocks = maps.map(Blocks::of_tile);
                    return Part::whole(layer.pack_blocks(&geometry, blocks, &csr, r), features);
                }
                let (shape, bias, groups) = (layer.shape, layer.bias(), layer.groups);
                let conv = SparseConv::pack_channels(
                    layer.isa, &csr, shape, bias, window, groups, *input, r,
                );
                Part::whole(conv, features)
            };
            layer.ranges(Layout::Tiled).into_iter().map(part).collect()
        })
    }

    /// Dense, over plain maps. It stays whole: a matrix product adds in another order for another number of rows.
    fn dense(self: &Rc<Self>, geometry: Geometry) -> Candidate<'a> {
        let layer = Rc::clone(self);
        Candidate::new(Layout::Single, move || {
            let dense = layer.weight.to_dense();
            let Geometry { window, input } = &geometry;
            let (bias, groups) = (layer.bias(), layer.groups);
            let conv = Conv::pack(layer.isa, &dense, bias, window, groups, *input);
            vec![Part::whole(conv, layer.shape[0] * layer.pixels)]
        })
    }
}

/// The product with a vector must be expected to take at most this share of the time.
const MATRIX_MARGIN: f64 = 0.9;

/// For each output pixel whose window has that tap in a map of `h` rows and `w` columns, its number and that of the pixel of the tap.
fn reads(
    window: &Window,
    [h, w]: [usize; 2],
    tap: usize,
) -> impl Iterator<Item = (usize, usize)> + '_ {
    let [_, kw] = window.kernel_shape;
    let [oh, ow] = window.output(h, w).unwrap_or([0, 0]);
    let tap = [tap / kw.max(1), tap % kw.max(1)];
    (0..oh * ow).filter_map(move |pixel| {
        let out = [pixel / ow, pixel % ow];
        let at = |d: usize, side: usize| {
            let at = out[d] * window.strides[d] + tap[d] * window.dilations[d];
            at.checked_sub(window.pads[d]).filter(|at| *at < side)
        };
        Some((pixel, at(0, h)? * w + at(1, w)?))
    })
}

/// The matrix that computes a whole map `[out][oh][ow]` from one of `[c, h, w]`: zeros of the padding have no column.
fn matrix_of(
    filters: &Csr,
    [out, per_group, kh, kw]: [usize; 4],
    groups: usize,
    window: &Window,
    [channels, h, w]: [usize; 3],
) -> Csr {
    let taps = kh * kw;
    let reads: Vec<Vec<(usize, usize)>> = (0..taps)
        .map(|tap| reads(window, [h, w], tap).collect())
        .collect();
    let pixels = window.output(h, w).map_or(0, |[oh, ow]| oh * ow);
    let (mut starts, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
    for filter in 0..out {
        let mut rows: Vec<Vec<(u32, f32)>> = vec![Vec::new(); pixels];
        let first = filter / (out / groups) * per_group;
        let (of_filter, weights) = filters.row(filter);
        for (&k, &weight) in of_filter.iter().zip(weights) {
            let (channel, tap) = (first + k as usize / taps, k as usize % taps);
            for &(pixel, from) in &reads[tap] {
                let column = u32::try_from(channel * h * w + from).expect("as many as inputs");
                rows[pixel].push((column, weight));
            }
        }
        for mut row in rows {
            row.sort_unstable_by_key(|(column, _)| *column);
            columns.extend(row.iter().map(|(column, _)| *column));
            values.extend(row.iter().map(|(_, weight)| *weight));
            starts.push(u32::try_from(columns.len()).expect("less than 2^32 weights"));
        }
    }
    Csr::try_new([out * pixels, channels * h * w], starts, columns, values)
        .expect("sorted columns of each row")
}
