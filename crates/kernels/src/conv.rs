//! Direct sparse convolution, without im2col.
//!
//! A weight at (input channel, ky, kx) multiplies one line of sixteen inputs for each line of sixteen outputs, at a fixed
//! offset: the loop is that of [`crate::spmm`], with offsets in place of columns (Park et al., "Faster CNNs with direct sparse
//! convolutions and guided pruning", 2017).
//!
//! - [`Layout::Tiled`]: a line is one pixel of sixteen samples. The input is used as it lies, or copied once into a padded map.
//! - [`Layout::Single`]: a line is sixteen pixels of one sample. For each column kx of the filters, the input is copied as this column sees it: shifted,
//!   padded, and only every stride-th pixel, in rows as wide as those of the output. That makes every load aligned and every lane useful. Rows
//!   are dealt into as many planes as the vertical stride, so that the next output row is the next input row. Planes that no weight reads are left out.

use std::ops::Range;

use sparsevd_model::{Csr, Window};

use crate::copy::copy_short;
use crate::isa::multiversion;
use crate::sell::{self, Entry, Sell, Walk};
use crate::spmm::bias_or_zero;
use crate::{Activation, Isa, LANES, Layout, select};

/// A sparse filter bank packed for one input size and one [`Layout`].
#[derive(Debug, Clone)]
pub struct SparseConv {
    isa: Isa,
    layout: Layout,
    input: [usize; 3],
    output: [usize; 3],
    copy: Copy,
    /// Floats of one copied input, then of one output with padded rows.
    scratch: [usize; 2],
    walk: Walk,
    parts: Vec<Part>,
}

/// A group of channels.
#[derive(Debug, Clone)]
struct Part {
    sell: Sell,
    x: usize,
    y: usize,
}

/// How the input comes into scratch.
#[derive(Debug, Clone)]
enum Copy {
    /// Not at all.
    None,
    /// As maps with borders: height and width with padding, rows and columns before.
    Padded {
        size: [usize; 2],
        before: [usize; 2],
    },
    /// As planes for each column of the filters.
    Planes(Planes),
}

#[derive(Debug, Clone)]
struct Planes {
    planes: Vec<Plane>,
    /// Floats of a plane, its rows and their width.
    len: usize,
    rows: usize,
    pitch: usize,
    /// Steps in the input, down and right.
    strides: [usize; 2],
    /// Outputs in a row.
    width: usize,
}

/// What one plane holds: at (row, column), input pixel (row * stride + y, column * stride + x) of a channel.
#[derive(Debug, Clone)]
struct Plane {
    channel: usize,
    y: isize,
    x: isize,
    /// Rows, then columns, whose input does not lie in the padding.
    inside: [Range<usize>; 2],
}

impl Plane {
    fn new(
        channel: usize,
        at: [isize; 2],
        strides: [usize; 2],
        size: [usize; 2],
        input: [usize; 2],
    ) -> Self {
        let inside = [0, 1].map(|d| {
            let first = at[d].min(0).unsigned_abs().div_ceil(strides[d]);
            let end = input[d].saturating_add_signed(-at[d]).div_ceil(strides[d]);
            let end = end.min(size[d]);
            first.min(end)..end
        });
        Self {
            channel,
            y: at[0],
            x: at[1],
            inside,
        }
    }
}

impl SparseConv {
    /// Packs filters of `shape` `[out, in/groups, kh, kw]` (`weight` holds them as `out` rows) for inputs `[c, h, w]`.
    ///
    /// # Panics
    /// When the shapes, the groups, the window and the bias do not fit together, or the layout is [`Layout::Blocks`], which has
    /// [`crate::conv_blocks::BlockConv`].
    #[track_caller]
    #[allow(clippy::too_many_arguments, reason = "what a convolution is")]
    pub fn pack(
        isa: Isa,
        layout: Layout,
        weight: &Csr,
        shape: [usize; 4],
        bias: Option<&[f32]>,
        window: &Window,
        groups: usize,
        input: [usize; 3],
    ) -> Self {
        let all = 0..shape[0];
        Self::pack_channels(isa, layout, weight, shape, bias, window, groups, input, all)
    }

    /// Packs only some output channels, so that threads may share one convolution: each writes its own channels of an output.
    /// `bias` is that of all channels.
    ///
    /// # Panics
    /// As [`SparseConv::pack`], or when the channels do not exist.
    #[track_caller]
    #[allow(clippy::too_many_arguments, reason = "what a convolution is")]
    pub fn pack_channels(
        isa: Isa,
        layout: Layout,
        weight: &Csr,
        shape: [usize; 4],
        bias: Option<&[f32]>,
        window: &Window,
        groups: usize,
        input: [usize; 3],
        channels: Range<usize>,
    ) -> Self {
        let [oh, ow] = check_conv(shape, window, groups, input);
        let [out, per_group, kh, kw] = shape;
        assert_eq!(weight.rows(), out, "rows of the weight");
        assert_eq!(weight.cols(), per_group * kh * kw, "columns of the weight");
        assert!(channels.end <= out, "channels {channels:?} of {out}");
        let bias = bias_or_zero(bias, out);
        let nonzeros = channels
            .clone()
            .map(|row| weight.row(row).0.len())
            .sum::<usize>();
        let per_channel = nonzeros as f64 / (channels.len() * per_group).max(1) as f64;
        let plan = match layout {
            Layout::Tiled => Plan::tiled(per_channel, window, input, [oh, ow]),
            Layout::Blocks(_) => panic!("a convolution over blocks is BlockConv"),
            Layout::Single => Plan::single(
                per_channel,
                weight,
                shape,
                window,
                groups,
                &channels,
                input,
                [oh, ow],
            ),
        };
        let out_per_group = out / groups;
        let per_block = plan.channels_per_block;
        let parts = (0..groups)
            .map(|g| {
                (
                    g,
                    (g * out_per_group).max(channels.start)
                        ..((g + 1) * out_per_group).min(channels.end),
                )
            })
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(g, rows)| {
                let blocks = per_group.div_ceil(per_block).max(1);
                let first_channel = |block: usize| g * per_group + block * per_block;
                let bases: Vec<usize> = (0..blocks).map(|b| plan.base(first_channel(b))).collect();
                let entries: Vec<Vec<Entry>> = rows
                    .clone()
                    .map(|row| {
                        let (columns, values) = weight.row(row);
                        let entry = |(&k, &weight): (&u32, &f32)| {
                            let k = k as usize;
                            let (ic, ky, kx) = (k / (kh * kw), k / kw % kh, k % kw);
                            let block = ic / per_block;
                            let at = plan.offset(g * per_group + ic, ky, kx, window);
                            let offset = at - bases[block];
                            Entry {
                                block,
                                offset,
                                weight,
                            }
                        };
                        columns.iter().zip(values).map(entry).collect()
                    })
                    .collect();
                Part {
                    sell: Sell::pack(&entries, &bias[rows.clone()], &bases, plan.pitch, 4),
                    x: 0,
                    y: (rows.start - channels.start) * plan.pitch,
                }
            })
            .collect();
        let padded_output = if plan.direct {
            0
        } else {
            channels.len() * plan.pitch
        };
        Self {
            isa,
            layout,
            input,
            output: [channels.len(), oh, ow],
            scratch: [plan.copied, padded_output],
            copy: plan.copy,
            walk: plan.walk,
            parts,
        }
    }

    /// Elements of scratch that a run needs, whatever the count; zero for a [`Layout::Tiled`] convolution without padding.
    pub fn scratch_len(&self) -> usize {
        self.scratch.iter().sum()
    }

    /// `y = act(W * x + b)` over `count` samples or tiles (see [`Layout`]); `scratch` is overwritten.
    ///
    /// # Panics
    /// When `x` or `y` has another length or `scratch` fewer than [`SparseConv::scratch_len`] elements.
    #[track_caller]
    pub fn run(
        &self,
        x: &[f32],
        y: &mut [f32],
        count: usize,
        scratch: &mut [f32],
        act: Activation,
    ) {
        let lanes = self.layout.samples();
        let x_len = self.input.iter().product::<usize>() * lanes;
        let y_len = self.output.iter().product::<usize>() * lanes;
        assert_eq!(x.len(), count * x_len, "elements of x");
        assert_eq!(y.len(), count * y_len, "elements of y");
        assert!(scratch.len() >= self.scratch_len(), "scratch too short");
        if y_len == 0 {
            return;
        }
        let [_, h, w] = self.input;
        let (copied, padded) = scratch.split_at_mut(self.scratch[0]);
        for (n, y) in y.chunks_exact_mut(y_len).enumerate() {
            let x = &x[n * x_len..(n + 1) * x_len];
            let x = match &self.copy {
                Copy::None => x,
                Copy::Padded { size, before } => {
                    pad(self.isa, x, copied, [h, w], *size, *before);
                    &*copied
                }
                Copy::Planes(planes) => {
                    deal(self.isa, planes, x, copied, [h, w]);
                    &*copied
                }
            };
            let padded = &mut padded[..self.scratch[1]];
            let direct = padded.is_empty();
            let target = if direct { &mut *y } else { &mut *padded };
            for part in &self.parts {
                let (x, target) = (&x[part.x..], &mut target[part.y..]);
                // SAFETY: offsets of weights come from `Plan::offset`, which the plan's walk keeps inside one input (or its copy),
                // whose length was checked above or is that of `scratch[0]`; likewise rows and lines of the output.
                unsafe {
                    sell::run(
                        self.isa,
                        &part.sell,
                        x.as_ptr(),
                        target.as_mut_ptr(),
                        self.walk,
                        act.bounds(),
                    );
                }
            }
            if !direct && let Copy::Planes(planes) = &self.copy {
                let pitch = padded.len() / self.output[0];
                compact(self.isa, padded, y, pitch, planes.pitch, self.output);
            }
        }
    }

    /// Packed output channels, height and width.
    pub fn output(&self) -> [usize; 3] {
        self.output
    }

    /// The layout it was packed for.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        match (self.layout, self.isa.name()) {
            (Layout::Tiled, "avx512") => "avx512-sell4-conv-f32-4x16",
            (Layout::Tiled, "avx2") => "avx2-sell4-conv-f32-4x16",
            (Layout::Tiled, "neon") => "neon-sell4-conv-f32-4x16",
            (Layout::Tiled, _) => "scalar-sell4-conv-f32-4x16",
            (_, "avx512") => "avx512-sell4-planes-f32-4x16",
            (_, "avx2") => "avx2-sell4-planes-f32-4x16",
            (_, "neon") => "neon-sell4-planes-f32-4x16",
            (_, _) => "scalar-sell4-planes-f32-4x16",
        }
    }

    /// Bytes of packed weights, offsets, row positions and biases.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.sell.bytes()).sum()
    }
}

/// Where everything lies for one layout.
struct Plan {
    copy: Copy,
    copied: usize,
    walk: Walk,
    /// From an output channel to the next.
    pitch: usize,
    /// Whether outputs lie where the caller wants them.
    direct: bool,
    channels_per_block: usize,
    /// Rows and columns of a map (tiled).
    size: [usize; 2],
    /// For each channel, its first plane (single).
    first_plane: Vec<usize>,
}

impl Plan {
    fn tiled(
        per_channel: f64,
        window: &Window,
        [c, h, w]: [usize; 3],
        [oh, ow]: [usize; 2],
    ) -> Self {
        let [top, left, bottom, right] = window.pads;
        let size = [h + top + bottom, w + left + right];
        let map = size[0] * size[1] * LANES;
        let padded = window.pads != [0; 4];
        let [sy, sx] = window.strides;
        let reach = |d: usize| window.dilations[d] * (window.kernel_shape[d] - 1) + 1;
        Self {
            copy: if padded {
                Copy::Padded {
                    size,
                    before: [top, left],
                }
            } else {
                Copy::None
            },
            copied: if padded { c * map } else { 0 },
            walk: Walk {
                lines: ow,
                x_line: sx * LANES,
                y_line: LANES,
                strips: oh,
                x_strip: sy * size[1] * LANES,
                y_strip: ow * LANES,
                narrow: false,
            },
            pitch: oh * ow * LANES,
            direct: true,
            channels_per_block: select::conv_block(
                reach(0) * (3 * sx + reach(1)) * LANES,
                per_channel,
            ),
            size,
            first_plane: Vec::new(),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what a convolution is")]
    fn single(
        per_channel: f64,
        weight: &Csr,
        [out, per_group, kh, kw]: [usize; 4],
        window: &Window,
        groups: usize,
        channels: &Range<usize>,
        [c, h, w]: [usize; 3],
        [oh, ow]: [usize; 2],
    ) -> Self {
        let ([sy, sx], [dy, dx]) = (window.strides, window.dilations);
        let [top, left, ..] = window.pads;
        let mut used = vec![false; c * kw * sy];
        for row in channels.clone() {
            for &k in weight.row(row).0 {
                let k = k as usize;
                let channel = row / (out / groups) * per_group + k / (kh * kw);
                used[(channel * kw + k % kw) * sy + k / kw % kh * dy % sy] = true;
            }
        }
        // Eight, not sixteen: two rows of eight share a line, and a line at half a cache line costs nothing.
        let pitch = ow.next_multiple_of(8);
        let down = (kh - 1) * dy / sy;
        let rows = oh + down;
        let plane = |i: usize| {
            let y = (i % sy) as isize - top as isize;
            let x = (i / sy % kw * dx) as isize - left as isize;
            Plane::new(i / sy / kw, [y, x], [sy, sx], [rows, ow], [h, w])
        };
        let planes: Vec<Plane> = (0..c * kw * sy).filter(|i| used[*i]).map(plane).collect();
        let lines = (oh * pitch).div_ceil(LANES);
        // An odd number of cache lines, so that planes do not all fall on the same sets of the cache.
        let len = (down * pitch + lines * LANES).div_ceil(LANES) | 1;
        let len = len * LANES;
        let first_plane = (0..=c)
            .map(|ch| planes.partition_point(|p| p.channel < ch))
            .collect();
        let direct = pitch == ow && (oh * ow).is_multiple_of(LANES);
        let planes_per_channel = planes.len().div_ceil(c.max(1)).max(1);
        Self {
            copied: planes.len() * len,
            copy: Copy::Planes(Planes {
                planes,
                len,
                rows,
                pitch,
                strides: [sy, sx],
                width: ow,
            }),
            walk: Walk {
                lines,
                x_line: LANES,
                y_line: LANES,
                strips: 1,
                x_strip: 0,
                y_strip: 0,
                narrow: false,
            },
            pitch: lines * LANES,
            direct,
            channels_per_block: select::conv_block(
                planes_per_channel * (4 * LANES + down * pitch),
                per_channel,
            ),
            size: [rows, pitch],
            first_plane,
        }
    }

    /// Where a channel's input begins.
    fn base(&self, channel: usize) -> usize {
        match &self.copy {
            Copy::Planes(planes) => self.first_plane[channel] * planes.len,
            _ => channel * self.size[0] * self.size[1] * LANES,
        }
    }

    /// Where the input lies that a weight multiplies for the first output.
    fn offset(&self, channel: usize, ky: usize, kx: usize, window: &Window) -> usize {
        let [dy, dx] = window.dilations;
        match &self.copy {
            Copy::Planes(planes) => {
                let sy = window.strides[0];
                let [top, left, ..] = window.pads;
                let (y, x) = (
                    (ky * dy % sy) as isize - top as isize,
                    (kx * dx) as isize - left as isize,
                );
                let mine = &planes.planes[self.first_plane[channel]..self.first_plane[channel + 1]];
                let plane = mine
                    .iter()
                    .position(|p| (p.y, p.x) == (y, x))
                    .expect("the plane of a weight is used");
                (self.first_plane[channel] + plane) * planes.len + ky * dy / sy * planes.pitch
            }
            _ => self.base(channel) + (ky * dy * self.size[1] + kx * dx) * LANES,
        }
    }
}

/// Output height and width of a convolution whose parts fit together.
#[track_caller]
pub(crate) fn check_conv(
    shape: [usize; 4],
    window: &Window,
    groups: usize,
    input: [usize; 3],
) -> [usize; 2] {
    let [out, per_group, kh, kw] = shape;
    assert_eq!(window.kernel_shape, [kh, kw], "kernel_shape of the window");
    assert!(
        groups > 0 && out.is_multiple_of(groups),
        "{out} output channels in {groups} groups"
    );
    assert_eq!(per_group * groups, input[0], "input channels");
    window
        .output(input[1], input[2])
        .unwrap_or_else(|| panic!("{window:?} does not fit {input:?}"))
}

multiversion!(fn pad(x: &[f32], to: &mut [f32], from_size: [usize; 2], size: [usize; 2], before: [usize; 2]) = pad_body;);
multiversion!(fn deal(planes: &Planes, x: &[f32], to: &mut [f32], size: [usize; 2]) = deal_body;);
multiversion!(fn compact(from: &[f32], y: &mut [f32], channel_pitch: usize, pitch: usize, output: [usize; 3]) = compact_body;);

/// Tiled maps into maps with borders of zeros.
#[inline(always)]
fn pad_body(
    x: &[f32],
    to: &mut [f32],
    [h, w]: [usize; 2],
    [height, width]: [usize; 2],
    before: [usize; 2],
) {
    if h * w == 0 {
        to.fill(0.0);
        return;
    }
    for (x, to) in x
        .chunks_exact(h * w * LANES)
        .zip(to.chunks_exact_mut(height * width * LANES))
    {
        let (mut x, mut to) = (x, to);
        let mut zeros;
        (zeros, to) = to.split_at_mut((before[0] * width + before[1]) * LANES);
        zeros.fill(0.0);
        for row in 0..h {
            let (from, to_row);
            (from, x) = x.split_at(w * LANES);
            (to_row, to) = to.split_at_mut(w * LANES);
            to_row.copy_from_slice(from);
            let gap = if row + 1 < h {
                (width - w) * LANES
            } else {
                to.len()
            };
            (zeros, to) = to.split_at_mut(gap);
            zeros.fill(0.0);
        }
    }
}

/// One input into its planes.
#[inline(always)]
fn deal_body(planes: &Planes, x: &[f32], to: &mut [f32], [h, w]: [usize; 2]) {
    const V: usize = 8;
    let [sy, sx] = planes.strides;
    let (pitch, width, step) = (planes.pitch, planes.width, sy * w);
    assert!(pitch.is_multiple_of(V));
    for (plane, to) in planes.planes.iter().zip(to.chunks_exact_mut(planes.len)) {
        let [rows, columns] = &plane.inside;
        let to = &mut to[..planes.rows * pitch];
        if columns.is_empty() || rows.is_empty() {
            to.fill(0.0);
            continue;
        }
        if rows.len() < planes.rows {
            to[..rows.start * pitch].fill(0.0);
            to[rows.end * pitch..].fill(0.0);
        }
        // Where the input of output 0 of a row would lie; before the row, where there is padding.
        let origin = (plane.channel * h * w) as isize + plane.y * w as isize + plane.x;
        let start = |row: usize| origin + (row * step) as isize;
        // Rows that may be read in whole vectors: what lies past their ends is overwritten with zeros below, or read by nobody.
        let mut whole = rows.clone();
        if sx != 1 {
            whole.end = whole.start;
        }
        while whole.start < whole.end && start(whole.start) < 0 {
            whole.start += 1;
        }
        while whole.start < whole.end && start(whole.end - 1) + pitch as isize > x.len() as isize {
            whole.end -= 1;
        }
        for v in 0..pitch / V {
            // SAFETY: `start(row)..start(row) + pitch` lies in `x` for every row, row `row` in `to`, and `pitch` is a multiple of `V`.
            unsafe {
                let mut from = x
                    .as_ptr()
                    .wrapping_offset(start(whole.start))
                    .wrapping_add(v * V);
                let mut to = to.as_mut_ptr().add(whole.start * pitch + v * V);
                // Down the columns, lest the compiler make each row a call to `memcpy`.
                for _ in whole.clone() {
                    to.cast::<[f32; V]>()
                        .write_unaligned(from.cast::<[f32; V]>().read_unaligned());
                    (from, to) = (from.wrapping_add(step), to.wrapping_add(pitch));
                }
            }
        }
        for row in (rows.start..whole.start).chain(whole.end..rows.end) {
            for i in columns.clone() {
                to[row * pitch + i] = x[(start(row) + (i * sx) as isize) as usize];
            }
        }
        if columns.len() < width {
            for i in (0..columns.start).chain(columns.end..width) {
                for row in rows.clone() {
                    to[row * pitch + i] = 0.0;
                }
            }
        }
    }
}

/// Rows of an output from their pitch to their width.
#[inline(always)]
fn compact_body(
    from: &[f32],
    y: &mut [f32],
    channel_pitch: usize,
    pitch: usize,
    [_, oh, ow]: [usize; 3],
) {
    for (from, y) in from
        .chunks_exact(channel_pitch)
        .zip(y.chunks_exact_mut(oh * ow))
    {
        for (from, y) in from.chunks_exact(pitch).zip(y.chunks_exact_mut(ow)) {
            copy_short(&from[..ow], y);
        }
    }
}
