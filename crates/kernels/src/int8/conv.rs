//! Sparse convolution of bytes, over the lines of sixteen floats that [`Blocks`] and tiles have.
//!
//! **Image.** A run quantises its input into an image, `[channel][row][column]` of lines of sixteen bytes, so that four neighbouring lines are the
//! sixty-four bytes that a step of [`super::any4`] reads, from any column on. A weight at (input channel, ky, kx) multiplies them for four neighbouring lines
//! of output at a fixed offset, as in [`crate::conv_blocks`]. In a row the columns that windows with strides read together come together: with strides
//! of two first the even ones, then the odd ones. Tiles get the border of their padding in the image, of the byte that stands for zero; blocks have it in
//! their halo. On AVX-512 the image is there twice, in the two forms of lines.
//!
//! **Pooling.** With 2x2 max-pooling the sums of four lines and of the four below them are computed at once, and the largest of two by two are stored.

use std::ops::Range;

use sparsevd_model::{Csr, Window};

use super::any4::{Any4, Entry, Row, Step, Steps, scaled};
use super::dot::{self, Dot, Task};
use super::lanes::{Lanes, SAMPLES};
use super::linear::bytes;
use super::lines::TILES;
use super::quantization::{Quantization, level, unpack};
use crate::blocks::Blocks;
use crate::clamp::Bounds;
use crate::conv::{check_conv, filters_of_groups};
use crate::conv_blocks::BlockConv;
use crate::cost::Costs;
use crate::edges::Edges;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::pool_blocks::BlockPool;
use crate::simd::Simd;
use crate::{Clamp, Isa, LANES, length};

/// Rows of the matrix that are computed together.
const GROUP: usize = 2;

/// A sparse convolution that quantises its input, multiplies int8 and writes floats.
///
/// # Invariants
/// - a weight's offset plus the place of any strip is that of a line of the image, and no more than three lines after the last line of a strip that is
///   stored are read, which the image has room for behind its end
/// - strips are lines of a channel of the output
#[derive(Debug, Clone)]
pub struct Conv {
    isa: Isa,
    dot: Dot,
    input: Blocks,
    output: Blocks,
    quantized: (f32, u8),
    image: Image,
    strips: Vec<Strip>,
    /// Bytes of the image between two rows of the output, where pooling is fused.
    below: Option<usize>,
    matrix: Any4,
    edges: Edges,
    nonzeros: usize,
}

/// Up to four neighbouring lines of each channel of the output.
#[derive(Debug, Clone, Copy)]
struct Strip {
    /// Bytes of the image before the input of its first line.
    x: usize,
    /// Floats of an output channel before its first line.
    y: usize,
    lines: usize,
}

/// Where the lines of a quantised input are.
#[derive(Debug, Clone, Copy)]
struct Image {
    channels: usize,
    /// Lines of a channel of the input.
    source: usize,
    /// Rows and columns of the input that are quantised.
    from: [usize; 2],
    /// Rows above, columns on the left, rows below, columns on the right that are added.
    border: [usize; 4],
    /// Columns that windows skip.
    stride: usize,
    /// Lines between columns that windows read together, and between rows.
    phase: usize,
    row: usize,
}

impl Image {
    /// Rows with the border.
    fn rows(&self) -> usize {
        self.border[0] + self.from[0] + self.border[2]
    }

    /// Lines of a channel.
    fn channel(&self) -> usize {
        self.rows() * self.row
    }

    /// Bytes of one form, with room for the lines that are read past its end.
    fn form(&self) -> usize {
        (self.channels * self.channel() * LANES + SAMPLES).next_multiple_of(SAMPLES)
    }

    /// The line of a column in its row.
    fn column(&self, x: usize) -> usize {
        x % self.stride * self.phase + x / self.stride
    }
}

/// Lines of four.
const STRIP: usize = SAMPLES / LANES;

impl Conv {
    /// Packs a range of output channels of filters of `shape` `[out, in/groups, kh, kw]`, whose `levels` are integers from -128 to 127 in `out` rows, so
    /// that threads can split a convolution by channels. The input is quantised by `input_scale` and the zero point, as by [`super::quantize`].
    /// `quantization` and the blocks of the output are those of all channels. The input's blocks cover [`BlockConv::input`], or are those of a tile without
    /// a border.
    ///
    /// # Panics
    /// When the parameters contradict each other, a level is none, a sum may not fit in 32 bits, or `channels` is out of range.
    #[track_caller]
    #[allow(clippy::too_many_arguments, reason = "what a convolution is")]
    pub fn pack_channels(
        (isa, dot): (Isa, Dot),
        levels: &Csr,
        shape: [usize; 4],
        input_scale: f32,
        quantization: Quantization<'_>,
        window: &Window,
        groups: usize,
        [input, output]: [Blocks; 2],
        channels: Range<usize>,
    ) -> Self {
        let [oh, ow] = check_conv(shape, window, groups, input.map());
        let [out, per_group, kh, kw] = shape;
        let Quantization {
            zero_point,
            scale,
            offset,
        } = quantization;
        assert_eq!(levels.rows(), out, "rows of the weight");
        assert_eq!(levels.cols(), per_group * kh * kw, "columns of the weight");
        length::check("the scale", scale.len(), [out]);
        length::check("the offset", offset.len(), [out]);
        assert!(channels.end <= out, "channels {channels:?} of {out}");
        assert_eq!(output.map(), [out, oh, ow], "map of the output");
        let there = input.covers(&BlockConv::input(input.map(), window, &output));
        let bare = input == Blocks::of_tile(input.map()) && output.is_tile();
        assert!(there || bare, "blocks of the input");
        let [top, left, ..] = window.pads;
        let (border, first) = match there {
            true => ([0; 4], [input.halo()[0] - top, input.halo()[1] - left]),
            false => (window.pads, [0; 2]),
        };
        let columns = border[1] + input.pitch() + border[3];
        // A wider one leaves one column of output.
        let stride = window.strides[1].min(columns.max(1));
        let phase = columns.div_ceil(stride);
        let image = Image {
            channels: input.map()[0],
            source: input.channel(),
            from: [input.height(), input.pitch()],
            border,
            stride,
            phase,
            row: stride * phase,
        };
        length::planned(
            "an image of bytes",
            [image.channels, image.rows() + 1, image.row + 1, 4 * LANES],
        );
        let [dy, dx] = window.dilations;
        let mut nonzeros = 0;
        let mut rows = Vec::with_capacity(channels.len());
        for (g, filters) in filters_of_groups(out, groups, &channels) {
            for filter in filters {
                let (places, values) = levels.row(filter);
                nonzeros += places.len();
                let entry = |(&k, &v): (&u32, &f32)| -> Entry {
                    let k = k as usize;
                    let (ic, ky, kx) = (k / (kh * kw), k / kw % kh, k % kw);
                    let line = (g * per_group + ic) * image.channel()
                        + (first[0] + ky * dy) * image.row
                        + image.column(first[1] + kx * dx);
                    let line = u32::try_from(line).expect("an image of less than 2^32 lines");
                    (line, level(v))
                };
                let entries = places.iter().zip(values).map(entry).collect();
                let constants = (scale[filter], offset[filter]);
                rows.push(unpack(dot, filter, entries, zero_point, constants));
            }
        }
        let output = output.with_channels(channels.len());
        Self {
            isa,
            dot,
            input,
            output,
            quantized: (input_scale, zero_point),
            image,
            strips: strips(&image, window, &output),
            below: None,
            matrix: Any4::pack(dot, rows, LANES),
            edges: Edges::of(&output),
            nonzeros,
        }
    }

    /// The same convolution with 2x2 max-pooling fused into the store, for pooled outputs in `output`. `None` where pixels of different blocks are pooled
    /// together.
    pub fn pooled(mut self, window: &Window, output: Blocks) -> Option<Self> {
        let [channels, ..] = self.output.map();
        let least = BlockPool::output(&Window::square(2, 2), &self.output)?;
        let output = output.with_channels(channels);
        if self.below.is_some() || !output.covers(&least) {
            return None;
        }
        let [rows, columns] = output.block();
        let below = window.strides[0].saturating_mul(self.image.row) * LANES;
        let strips = (0..rows).flat_map(|row| {
            (0..columns).step_by(STRIP / 2).map(move |column| Strip {
                x: 2 * (row * below + column * LANES),
                y: output.line(row.cast_signed(), column.cast_signed()) * LANES,
                lines: (columns - column).min(STRIP / 2),
            })
        });
        self.strips = strips.collect();
        self.below = Some(below);
        self.edges = Edges::of(&output);
        self.output = output;
        Some(self)
    }

    /// Expected nanoseconds of a unit: a sample, or sixteen where lanes are samples.
    pub fn unit_ns(&self, costs: &Costs) -> f64 {
        let each = SAMPLES * self.below.map_or(1, |_| 2);
        let lanes = self.strips.len() * each;
        costs.int8_conv(
            self.nonzeros,
            lanes,
            self.input.len(),
            self.dot.conv_share(),
        )
    }

    /// Elements of scratch that a run needs: the image.
    pub fn scratch_len(&self) -> usize {
        (self.image.form() * self.forms()).div_ceil(size_of::<f32>())
    }

    fn forms(&self) -> usize {
        self.dot.line() / SAMPLES
    }

    /// `y = clamp(sum * scale + offset + residual)`, pooled where that is fused, and the halos of `y`. `x`, `y` and the residual are `n` samples in the blocks
    /// of input and output, or `n` tiles where lanes are samples. `scratch` is overwritten.
    ///
    /// # Panics
    /// When a slice has another length, `scratch` fewer than [`Conv::scratch_len`] elements, or there is a residual and the output is pooled.
    #[track_caller]
    pub fn run(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        y: &mut [f32],
        n: usize,
        scratch: &mut [f32],
        clamp: Clamp,
    ) {
        let (x_len, y_len) = (self.input.len(), self.output.len());
        length::check("x", x.len(), [n, x_len]);
        length::check("y", y.len(), [n, y_len]);
        if let Some(residual) = residual {
            length::check("the residual", residual.len(), [y.len()]);
        }
        length::check_at_least("the scratch", scratch.len(), self.scratch_len());
        assert!(
            self.below.is_none() || residual.is_none(),
            "a sum before pooling"
        );
        if y_len == 0 {
            return;
        }
        let image = bytes(&mut scratch[..self.scratch_len()]);
        let second = self.image.form();
        for (i, y) in y.chunks_exact_mut(y_len).enumerate() {
            let x = &x[i * x_len..(i + 1) * x_len];
            let quantize = Quantize {
                x: x.as_ptr(),
                y: image.as_mut_ptr(),
                second,
                forms: self.forms(),
                image: &self.image,
                inverse: self.quantized.0.recip(),
                zero_point: self.quantized.1,
            };
            let product = Product {
                matrix: &self.matrix,
                x: image.as_ptr(),
                second,
                strips: &self.strips,
                below: self.below,
                y: y.as_mut_ptr(),
                y_channel: self.output.channel() * LANES,
                onto: residual.map(|r| r[i * y_len..(i + 1) * y_len].as_ptr()),
                bounds: clamp.bounds(),
            };
            // SAFETY: the lengths were just checked; the input has the lines of the image, and the image and the output those that the invariants of
            // `Conv` say.
            unsafe {
                dot::run(self.dot, quantize);
                dot::run(self.dot, product);
            }
            self.edges.refresh(self.isa, y);
        }
    }

    /// Samples in one unit of the count of a run: 1, or 16 where lanes are samples.
    pub fn samples(&self) -> usize {
        if self.output.is_tile() { LANES } else { 1 }
    }

    /// Blocks of the packed output channels.
    pub fn output(&self) -> Blocks {
        self.output
    }

    /// `{instructions}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> String {
        let pool = self.below.map_or("", |_| "-pool");
        format!("{}-any4-conv{pool}-i8i8-1x{SAMPLES}", self.dot)
    }

    /// Bytes of packed weights, offsets, row numbers, scales and offsets.
    pub fn bytes(&self) -> usize {
        self.matrix.bytes()
    }
}

/// The strips of all lines of a channel of output.
fn strips(image: &Image, window: &Window, output: &Blocks) -> Vec<Strip> {
    let [mut rows, mut columns] = output.block();
    let row_of_image = window.strides[0].saturating_mul(image.row);
    // Where rows follow each other without a gap, in the image as in the output, they are one long row.
    if row_of_image == columns && output.pitch() == columns {
        (rows, columns) = (rows.min(1), rows * columns);
    }
    let strips = (0..rows).flat_map(|row| {
        (0..columns).step_by(STRIP).map(move |column| Strip {
            x: (row * row_of_image + column) * LANES,
            y: output.line(row.cast_signed(), column.cast_signed()) * LANES,
            lines: (columns - column).min(STRIP),
        })
    });
    strips.collect()
}

/// Makes an image of an input.
///
/// `x` is readable for the lines that `image` takes from each channel, `y` writable for `forms` forms of the image, `second` bytes apart.
struct Quantize<'a> {
    x: *const f32,
    y: *mut u8,
    second: usize,
    forms: usize,
    image: &'a Image,
    inverse: f32,
    zero_point: u8,
}

impl Quantize<'_> {
    /// Fills lines with the zero point.
    ///
    /// # Safety
    /// The lines are in the image.
    unsafe fn fill(&self, lines: Range<usize>) {
        for form in 0..self.forms {
            // SAFETY: by the contract of this function.
            unsafe {
                let y = self.y.add(form * self.second + lines.start * LANES);
                y.write_bytes(self.zero_point, lines.len() * LANES);
            }
        }
    }
}

impl Task for Quantize<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let image = self.image;
        let ([height, width], [top, left, bottom, _]) = (image.from, image.border);
        // SAFETY: each line that is read is one that the image takes. Lines are written in their order, up to three past the last of a row, which the
        // next ones overwrite; behind the last one there is room for them. The instruction set is enabled (contract of the trait).
        unsafe {
            let zero_point = f32::from(self.zero_point);
            let [inverse, zero, most] =
                [self.inverse, zero_point, 255.0].map(|v| L::Floats::splat(v));
            let none = L::Floats::splat(0.0);
            for channel in 0..image.channels {
                let first = channel * image.channel();
                self.fill(first..first + top * image.row);
                for row in 0..height {
                    let x = self.x.add((channel * image.source + row * width) * LANES);
                    let line = first + (top + row) * image.row;
                    for phase in 0..image.stride {
                        let line = line + phase * image.phase;
                        // Of the columns `phase`, `phase + stride`, ... those from `start` to `end` are of the input.
                        let before = |column: usize| {
                            let columns = column.saturating_sub(phase).div_ceil(image.stride);
                            columns.min(image.phase)
                        };
                        let (start, end) = (before(left), before(left + width));
                        self.fill(line..line + start);
                        let mut at = start;
                        while at < end {
                            let column = at * image.stride + phase - left;
                            for part in 0..SAMPLES / (TILES * L::N) {
                                let scaled = |k: usize| {
                                    let float = (part * TILES + k) * L::N;
                                    let (i, lane) = (float / LANES, float % LANES);
                                    let from = (column + i * image.stride) * LANES + lane;
                                    let v = if at + i < end {
                                        L::Floats::load(x.add(from))
                                    } else {
                                        none
                                    };
                                    L::Floats::clamp(L::fused(v, inverse, zero), none, most)
                                };
                                let values = [scaled(0), scaled(1), scaled(2), scaled(3)];
                                let y = self.y.add(line * LANES + at * LANES + part * TILES * L::N);
                                L::store_bytes(y, self.second, L::of_lines(values), [0, u8::MAX]);
                            }
                            at += STRIP;
                        }
                        self.fill(line + end..line + image.phase);
                    }
                }
                let end = first + image.channel();
                self.fill(end - bottom * image.row..end);
            }
        }
    }
}

/// The sums of all strips.
///
/// `x` is readable for the bytes that the steps of the matrix and the strips say, in each form; `y` is writable, and `onto` readable, for the lines of the
/// strips in each row of the matrix.
struct Product<'a> {
    matrix: &'a Any4,
    x: *const u8,
    second: usize,
    strips: &'a [Strip],
    below: Option<usize>,
    y: *mut f32,
    y_channel: usize,
    onto: Option<*const f32>,
    bounds: Bounds,
}

impl Task for Product<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: by the contract of the task.
        unsafe {
            match &self.matrix.steps {
                Steps::Short(steps) => self.strips::<L, _>(steps.as_ptr()),
                Steps::Long(steps) => self.strips::<L, _>(steps.as_ptr()),
            }
        }
    }
}

/// Floats that a loop computes before it stores lines.
type Lines<L> = [<<L as Lanes>::Floats as Simd>::V; 4];

impl Product<'_> {
    #[inline(always)]
    unsafe fn strips<L: Lanes, S: Step>(&self, steps: *const S) {
        let constants = L::constants();
        for strip in self.strips {
            let mut step = steps;
            let (groups, rest) = self.matrix.rows.as_chunks::<GROUP>();
            // SAFETY: `step` is the first step of the rows, of which there are as many as there are steps in total.
            unsafe {
                if let Some(below) = self.below {
                    for row in &self.matrix.rows {
                        step = self.pooled::<L, S>(constants, row, step, strip, below);
                    }
                    continue;
                }
                for group in groups {
                    if L::TWO_ROWS {
                        step = self.group::<L, S, GROUP>(constants, group, step, strip);
                    } else {
                        for row in group {
                            step = self.group::<L, S, 1>(constants, &[*row], step, strip);
                        }
                    }
                }
                for row in rest {
                    step = self.group::<L, S, 1>(constants, &[*row], step, strip);
                }
            }
        }
    }

    /// Rows with as many steps each, from `step` on. Returns the step after them.
    #[inline(always)]
    unsafe fn group<L: Lanes, S: Step, const R: usize>(
        &self,
        constants: L::Constants,
        rows: &[Row; R],
        step: *const S,
        strip: &Strip,
    ) -> *const S {
        // SAFETY: `step` is the first of as many steps as the rows have; offsets are those of lines of the image.
        unsafe {
            let steps = rows[0].steps as usize;
            for part in 0..SAMPLES / (TILES * L::N) {
                let before = part * TILES * L::N;
                let x = self.x.wrapping_add(strip.x + before);
                let mut sums: [[L::Ints; 4]; R] =
                    std::array::from_fn(|r| [L::splat(rows[r].start); 4]);
                for at in 0..steps {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let step = &*step.add(r * steps + at);
                        let lines = step.offsets().map(|offset| x.add(offset));
                        *sums =
                            L::add_products(constants, *sums, lines, self.second, step.weights());
                    }
                }
                for (row, sums) in rows.iter().zip(sums) {
                    let values = L::to_lines(scaled::<L>(row, L::in_order(sums)));
                    self.store::<L>(row, strip, before, values);
                }
            }
            step.add(R * steps)
        }
    }

    /// Stores those of four vectors, from float `before` of a strip on, that are of lines of the strip.
    #[inline(always)]
    unsafe fn store<L: Lanes>(&self, row: &Row, strip: &Strip, before: usize, values: Lines<L>) {
        // SAFETY: parts of lines of the strip; the instruction set is enabled where this is inlined.
        unsafe {
            let [low, high] = [self.bounds.min, self.bounds.max].map(|v| L::Floats::splat(v));
            let one = L::Floats::splat(1.0);
            let at = row.row as usize * self.y_channel + strip.y;
            for (k, mut v) in values.into_iter().enumerate() {
                let float = before + k * L::N;
                if float < strip.lines * LANES {
                    if let Some(onto) = self.onto {
                        v = L::Floats::fma(one, L::Floats::load(onto.add(at + float)), v);
                    }
                    L::Floats::store(self.y.add(at + float), L::Floats::clamp(v, low, high));
                }
            }
        }
    }

    /// A row from `step` on: the largest of two by two lines. Returns the step after it.
    #[inline(always)]
    unsafe fn pooled<L: Lanes, S: Step>(
        &self,
        constants: L::Constants,
        row: &Row,
        step: *const S,
        strip: &Strip,
        below: usize,
    ) -> *const S {
        // SAFETY: `step` is the first of as many steps as the row has; offsets are those of lines of the image, from either row of output; the buffer has
        // the floats of four lines.
        unsafe {
            let steps = row.steps as usize;
            let mut larger = [0.0_f32; SAMPLES];
            for part in 0..SAMPLES / (TILES * L::N) {
                let x = self.x.wrapping_add(strip.x + part * TILES * L::N);
                let mut sums = [[L::splat(row.start); 4]; 2];
                if L::TWO_ROWS {
                    for at in 0..steps {
                        let step = &*step.add(at);
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let lines = step.offsets().map(|offset| x.add(offset + r * below));
                            *sums = L::add_products(
                                constants,
                                *sums,
                                lines,
                                self.second,
                                step.weights(),
                            );
                        }
                    }
                } else {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        for at in 0..steps {
                            let step = &*step.add(at);
                            let lines = step.offsets().map(|offset| x.add(offset + r * below));
                            *sums = L::add_products(
                                constants,
                                *sums,
                                lines,
                                self.second,
                                step.weights(),
                            );
                        }
                    }
                }
                let [above, under] = sums;
                let above = L::to_lines(scaled::<L>(row, L::in_order(above)));
                let under = L::to_lines(scaled::<L>(row, L::in_order(under)));
                for (k, (a, b)) in above.into_iter().zip(under).enumerate() {
                    let p = larger.as_mut_ptr().add((part * TILES + k) * L::N);
                    L::Floats::store(p, L::Floats::larger(a, b));
                }
            }
            let [low, high] = [self.bounds.min, self.bounds.max].map(|v| L::Floats::splat(v));
            let y = self.y.add(row.row as usize * self.y_channel + strip.y);
            for float in (0..strip.lines * LANES).step_by(L::N) {
                let pair = float / LANES * 2 * LANES + float % LANES;
                let p = larger.as_ptr().add(pair);
                let v = L::Floats::larger(L::Floats::load(p), L::Floats::load(p.add(LANES)));
                L::Floats::store(y.add(float), L::Floats::clamp(v, low, high));
            }
            step.add(steps)
        }
    }
}

impl PackedKernel for Conv {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x,
            x2,
            y,
            scratch,
            n,
            clamp,
            ..
        } = operands;
        Self::run(self, x, x2, y, n.div_ceil(self.samples()), scratch, clamp);
    }

    fn name(&self) -> String {
        Self::name(self)
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.blocks(|n| self.unit_ns(costs) * n.div_ceil(self.samples()) as f64)
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn scratch_len(&self) -> usize {
        Self::scratch_len(self)
    }

    fn is_sparse(&self) -> bool {
        true
    }

    fn is_int8(&self) -> bool {
        true
    }

    fn takes_residual(&self) -> bool {
        self.below.is_none()
    }
}
