//! Convolution of bytes, over the lines of sixteen that [`Blocks`] and tiles have.
//!
//! **Three kernels.** Weights that are not zero are multiplied by strips of sixty-four pixels ([`super::nonzeros`]), or by pixels one by one ([`super::pixels`]), which is
//! faster where maps have few of them; all weights by the pixels of a line ([`super::fours`]), which is faster where most are there.
//!
//! **Input and output** are floats or bytes of a grid ([`super::maps`]), each for itself. Floats are quantised first, into an image of bytes. Tiles get the
//! border of their padding there, of the byte that stands for zero; blocks have it in their halo. What is written in bytes is what a reader
//! would make of the floats, to the bit, but for NaN, which may become the least byte of a clamp in place of 0.
//!
//! **Pooling.** With 2x2 max-pooling a strip is two by two lines, whose largest are stored.

use std::ops::Range;

use sparsevd_model::{Csr, Window};

use super::any4::{Entry, GROUP, Unpacked};
use super::dot::{self, Dot};
use super::fours::{FourStrips, Fours, ImageWindow};
use super::grid::Grid;
use super::image::{Image, QuantizeImage};
use super::lanes::SAMPLES;
use super::linear::{bytes, bytes_of};
use super::maps::{ByteEdges, Writes, floats_for};
use super::nonzeros::{NonzeroStrips, Nonzeros};
use super::pixels::{PixelStrips, Pixels};
use super::quantization::{Quantization, level, unpack, zero};
use super::strip::{Onto, Strip, StripOutput, input_line, output_line, strips};
use crate::blocks::Blocks;
use crate::conv::{check_conv, filters_of_groups};
use crate::conv_blocks::BlockConv;
use crate::cost::Costs;
use crate::edges::Edges;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::pool_blocks::BlockPool;
use crate::{Clamp, Isa, LANES, length};

/// A convolution that multiplies int8, over floats or bytes.
///
/// # Invariants
/// - a place, or what a tap adds to it, plus any line of input of a strip is a line of the image
/// - lines of output of strips are those of a channel of the output, and a strip has one to four of them
#[derive(Debug, Clone)]
pub struct Conv {
    isa: Isa,
    dot: Dot,
    input: Blocks,
    output: Blocks,
    grid: Grid,
    image: Image,
    weights: Weights,
    strips: Vec<Strip>,
    /// Whether a strip is two by two lines of the convolution, for one of the output.
    pools: bool,
    /// Whether the input is in bytes of the grid.
    reads_bytes: bool,
    /// The grid of the residual, if that is in bytes.
    onto: Option<Grid>,
    writes: Writes,
}

/// The weights, for the kernels that multiply them.
#[derive(Debug, Clone)]
enum Weights {
    /// Those that are not zero.
    Nonzeros(Nonzeros),
    /// The same.
    LookedUp(Box<Pixels>),
    All(Box<Fours>),
}

/// Which weights are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiplied {
    /// Those that are not zero, sixty-four pixels at a time.
    Nonzeros,
    /// The same, pixel by pixel, where instructions look bytes up ([`Dot::looks_up`]).
    LookedUp,
    /// All, each for those pixels whose input is in the map.
    All,
}

impl Conv {
    /// Packs a range of output channels of filters of `shape` `[out, in/groups, kh, kw]`, whose `levels` are integers from -128 to 127 in `out` rows, so
    /// that threads can split a convolution by channels. The input is in bytes of `grid`, or quantised to them as by [`super::quantize`].
    /// `quantization` and the blocks of the output are those of all channels. The input's blocks cover [`BlockConv::input`], or are those of a tile without
    /// a border.
    ///
    /// # Panics
    /// When the parameters contradict each other, a level is none, a sum may not fit in 32 bits, the image has 2^32 lines or those of a strip 4 GiB,
    /// `channels` is out of range, or bytes should be looked up without instructions for it.
    #[track_caller]
    #[allow(clippy::too_many_arguments, reason = "what a convolution is")]
    pub fn pack_channels(
        (isa, dot): (Isa, Dot),
        multiplied: Multiplied,
        levels: &Csr,
        shape: [usize; 4],
        grid: Grid,
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
        assert_eq!(zero_point, grid.zero_point(), "the zero point");
        assert_eq!(levels.rows(), out, "rows of the weight");
        assert_eq!(levels.cols(), per_group * kh * kw, "columns of the weight");
        quantization.check(out);
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
        let image = Image::of(&input, border);
        length::planned("an image of bytes", [image.channels, image.channel, LANES]);
        let [dy, dx] = window.dilations;
        let of_groups = || filters_of_groups(out, groups, &channels);
        // A filter, with the numbers of its channels among those of all groups.
        let filter = |(group, filter): (usize, usize)| -> Unpacked {
            let (columns, values) = levels.row(filter);
            let first = group * per_group * kh * kw;
            let entry = |(&k, &v): (&u32, &f32)| -> Entry {
                let k = u32::try_from(first + k as usize).expect("columns of all groups");
                (k, level(v))
            };
            let entries = columns.iter().zip(values).map(entry).collect();
            let constants = (scale[filter], offset[filter]);
            unpack(dot, filter, entries, zero_point, constants)
        };
        let filters = of_groups().flat_map(|(group, filters)| filters.map(move |f| (group, f)));
        let filters: Vec<Unpacked> = filters.map(filter).collect();
        let tap = |tap: usize| [first[0] + tap / kw * dy, first[1] + tap % kw * dx];
        let output = output.with_channels(channels.len());
        let image_window = || ImageWindow {
            image,
            input,
            output,
            taps: (0..kh * kw).map(tap).collect(),
            strides: window.strides,
        };
        let weights = match multiplied {
            Multiplied::Nonzeros => {
                let line = |k: u32| {
                    let [row, column] = tap(k as usize % (kh * kw));
                    let line = k as usize / (kh * kw) * image.channel + row * image.row + column;
                    u32::try_from(line).expect("an image of less than 2^32 lines")
                };
                Weights::Nonzeros(Nonzeros::pack(dot, filters, line))
            }
            Multiplied::LookedUp => {
                assert!(dot.looks_up(), "{dot} looks no bytes up");
                Weights::LookedUp(Box::new(Pixels::pack(&filters, image_window())))
            }
            Multiplied::All => {
                let zero = zero(dot, zero_point);
                let fours = Fours::pack(dot, &filters, zero, image_window());
                Weights::All(Box::new(fours))
            }
        };
        let packed = Self {
            isa,
            dot,
            input,
            output,
            grid,
            image,
            strips: strips(&image, window, &output),
            weights,
            pools: false,
            reads_bytes: false,
            onto: None,
            writes: Writes::Floats(Edges::of(&output)),
        };
        packed.checked()
    }

    /// This convolution, whose strips were just made.
    ///
    /// # Panics
    /// When one reads a line that the image does not have, or writes one that a channel of the output does not have.
    #[track_caller]
    fn checked(mut self) -> Self {
        match &mut self.weights {
            Weights::Nonzeros(_) => {}
            Weights::LookedUp(pixels) => pixels.plan(&self.strips),
            Weights::All(fours) => fours.plan(&self.strips),
        }
        let most = |lines: &mut dyn Iterator<Item = u32>| lines.max().map(|line| line as usize);
        let read = most(&mut self.strips.iter().flat_map(|strip| strip.x));
        let written = most(&mut self.strips.iter().flat_map(|strip| strip.y));
        let place = match &self.weights {
            Weights::Nonzeros(nonzeros) => nonzeros.last_place(),
            Weights::LookedUp(pixels) => pixels.last_place(),
            Weights::All(fours) => fours.last_place(),
        };
        if let (Some(place), Some(line)) = (place, read) {
            assert!(place + line < self.image.lines(), "lines of the input");
        }
        assert!(
            written.is_none_or(|line| line < self.output.channel()),
            "lines of the output"
        );
        self
    }

    /// The same convolution with 2x2 max-pooling fused into the store, for pooled outputs in `output`. `window` is that of the convolution. `None` where
    /// pixels of different blocks are pooled together.
    ///
    /// # Panics
    /// When the window moves out of the input.
    #[track_caller]
    pub fn pooled(mut self, window: &Window, output: Blocks) -> Option<Self> {
        let [channels, ..] = self.output.map();
        let least = BlockPool::output(&Window::square(2, 2), &self.output)?;
        let output = output.with_channels(channels);
        if self.pools || !output.covers(&least) {
            return None;
        }
        let [rows, columns] = output.block();
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        let strips = places.map(|(row, column)| {
            let x = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(down, right)| {
                input_line(&self.image, window, 2 * row + down, 2 * column + right)
            });
            Strip::new(&x, &[output_line(&output, row, column)])
        });
        self.strips = strips.collect();
        self.pools = true;
        self.output = output;
        let grid = self.writes.grid();
        self.writes = Writes::Floats(Edges::of(&output));
        let pooled = self.checked();
        Some(match grid {
            Some(grid) => pooled.writing_bytes(grid),
            None => pooled,
        })
    }

    /// The same convolution of an input that is already in bytes of its grid, in the same blocks. `None` where it needs a border.
    pub fn reading_bytes(self) -> Option<Self> {
        let reads_bytes = !self.image.has_border();
        reads_bytes.then_some(Self {
            reads_bytes,
            ..self
        })
    }

    /// The same convolution with a residual in bytes of a grid.
    #[must_use]
    pub fn onto_bytes(self, grid: Grid) -> Self {
        let onto = Some(grid);
        Self { onto, ..self }
    }

    /// The same convolution with an output in bytes of a grid.
    #[must_use]
    pub fn writing_bytes(self, grid: Grid) -> Self {
        let edges = ByteEdges::of(&self.output, grid.zero_point());
        Self {
            writes: Writes::Bytes(grid, edges),
            ..self
        }
    }

    /// Expected nanoseconds of a unit: a sample, or sixteen where lanes are samples.
    pub fn unit_ns(&self, costs: &Costs) -> f64 {
        let lanes = self.strips.len() * SAMPLES;
        let quantized = if self.reads_bytes {
            0
        } else {
            self.input.len()
        };
        let sums = (lanes * self.output.map()[0]) as f64;
        let int8 = self.dot.costs(costs);
        let quantized = quantized as f64 * int8.quantize;
        let store = if self.pools { int8.pool } else { int8.store };
        match &self.weights {
            Weights::Nonzeros(nonzeros) => {
                let [multiply_adds, gathered] = nonzeros.work();
                let gathered = (lanes * gathered) as f64 * int8.gather;
                let products = (lanes * multiply_adds) as f64 * int8.conv;
                let products = costs.unless_far(products, nonzeros.bytes());
                quantized + gathered + products + sums * store
            }
            Weights::LookedUp(pixels) => {
                let [multiply_adds, interleaved] = pixels.work();
                let gathered = interleaved as f64 * int8.gather;
                let store = (int8.dense_store + store - int8.store).max(0.0);
                let products = multiply_adds as f64 * int8.spmv;
                let products = costs.unless_far(products, pixels.bytes());
                quantized + gathered + products + sums * store
            }
            Weights::All(fours) => {
                let [multiply_adds, interleaved] = fours.work();
                let gathered = interleaved as f64 * int8.gather;
                // Pooling takes as much longer as there.
                let store = (int8.dense_store + store - int8.store).max(0.0);
                let products = multiply_adds as f64 * int8.dense_conv;
                let products = costs.unless_far(products, fours.bytes());
                quantized + gathered + products + sums * store
            }
        }
    }

    /// Elements of scratch that a run needs: the image, the lines of some strips, and sums over some columns.
    pub fn scratch_len(&self) -> usize {
        floats_for(self.image_len() + self.lines_len()) + self.sums_len()
    }

    /// Bytes of the lines that are gathered at once.
    fn lines_len(&self) -> usize {
        match &self.weights {
            Weights::Nonzeros(nonzeros) => nonzeros.lines_len(self.dot.line(), self.strips.len()),
            Weights::LookedUp(pixels) => pixels.lines_len(),
            Weights::All(fours) => fours.lines_len(),
        }
    }

    /// Sums of a strip that are kept between the products with its columns.
    fn sums_len(&self) -> usize {
        match &self.weights {
            Weights::Nonzeros(nonzeros) => nonzeros.sums_len(),
            Weights::LookedUp(_) | Weights::All(_) => 0,
        }
    }

    /// Bytes of the image in scratch.
    fn image_len(&self) -> usize {
        if self.reads_bytes {
            return 0;
        }
        // So that what follows begins at a cache line.
        (self.image.lines() * LANES).next_multiple_of(SAMPLES)
    }

    /// Elements of a sample, or of a tile, of the input and of the output.
    fn lens(&self) -> [usize; 2] {
        let x = if self.reads_bytes {
            self.input.byte_len()
        } else {
            self.input.len()
        };
        [x, self.output_len()]
    }

    /// Elements of a sample of the output.
    pub fn output_len(&self) -> usize {
        match self.writes {
            Writes::Floats(_) => self.output.len(),
            Writes::Bytes(..) => self.output.byte_len(),
        }
    }

    /// `y = clamp(sum * scale + offset + residual)`, pooled where that is fused, and the halos of `y`. `x`, `y` and the residual are `n` samples in the blocks
    /// of input and output, or `n` tiles where lanes are samples, in floats or bytes. `scratch` is overwritten.
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
        let [x_len, y_len] = self.lens();
        let onto_len = match self.onto {
            Some(_) => self.output.byte_len(),
            None => self.output.len(),
        };
        length::check("x", x.len(), [n, x_len]);
        length::check("y", y.len(), [n, y_len]);
        if let Some(residual) = residual {
            length::check("the residual", residual.len(), [n, onto_len]);
        }
        length::check_at_least("the scratch", scratch.len(), self.scratch_len());
        assert!(!self.pools || residual.is_none(), "a sum before pooling");
        if y_len == 0 {
            return;
        }
        let (scratch, sums) =
            scratch[..self.scratch_len()].split_at_mut(self.scratch_len() - self.sums_len());
        let (image, lines) = bytes(scratch).split_at_mut(self.image_len());
        for (i, y) in y.chunks_exact_mut(y_len).enumerate() {
            let x = &x[i * x_len..(i + 1) * x_len];
            let x = if self.reads_bytes {
                bytes_of(x)
            } else {
                let image_of = QuantizeImage {
                    x: x.as_ptr(),
                    y: image.as_mut_ptr(),
                    image: &self.image,
                    grid: self.grid,
                };
                // SAFETY: the input has the lines that the image takes, and the image was given its length.
                unsafe { dot::run(self.dot, image_of) };
                &*image
            };
            let onto = residual.map(|r| r[i * onto_len..][..onto_len].as_ptr());
            let mut pooled = [0.0; GROUP * SAMPLES];
            let grid = self.writes.grid();
            let output = StripOutput {
                y: y.as_mut_ptr(),
                channel: self.output.channel(),
                onto: match (onto, self.onto) {
                    (None, _) => Onto::Nothing,
                    (Some(floats), None) => Onto::Floats(floats),
                    (Some(floats), Some(grid)) => Onto::Bytes(floats.cast(), grid),
                },
                bounds: clamp.bounds(),
                grid,
                byte_bounds: grid.map_or([0, u8::MAX], |grid| grid.bounds(clamp)),
                strips: &self.strips,
                pooled: self.pools.then_some(pooled.as_mut_ptr()),
            };
            // SAFETY: the lengths were just checked; the image has the lines that places and strips say, the scratch those of all places, the
            // output and the residual those of the strips, by the invariants of `Conv`.
            unsafe {
                match &self.weights {
                    Weights::Nonzeros(nonzeros) => {
                        let strips = NonzeroStrips {
                            nonzeros,
                            x: x.as_ptr(),
                            lines: lines.as_mut_ptr(),
                            sums: sums.as_mut_ptr().cast(),
                            output,
                        };
                        dot::run(self.dot, strips);
                    }
                    Weights::LookedUp(pixels) => {
                        let strips = PixelStrips {
                            pixels,
                            x: x.as_ptr(),
                            vectors: lines.as_mut_ptr(),
                            output,
                        };
                        dot::run(self.dot, strips);
                    }
                    Weights::All(fours) => {
                        let strips = FourStrips {
                            fours,
                            x: x.as_ptr(),
                            lines: lines.as_mut_ptr(),
                            output,
                        };
                        dot::run(self.dot, strips);
                    }
                }
            }
            match &self.writes {
                Writes::Floats(edges) => edges.refresh(self.isa, y),
                Writes::Bytes(_, edges) => edges.refresh(self.dot, bytes(y)),
            }
        }
    }

    /// Samples in one unit of the count of a run: 1, or 16 where lanes are samples.
    pub fn samples(&self) -> usize {
        if self.output.is_tile() { LANES } else { 1 }
    }

    /// `{instructions}-{format}-{types}-{tile}`.
    pub fn name(&self) -> String {
        let pool = if self.pools { "-pool" } else { "" };
        let to = match self.writes {
            Writes::Floats(_) => "",
            Writes::Bytes(..) => "-q",
        };
        let (format, tile) = match &self.weights {
            Weights::Nonzeros(_) => ("any4", SAMPLES),
            Weights::LookedUp(_) => ("spans4", LANES),
            Weights::All(fours) if fours.expands() => ("bitmask4", LANES),
            Weights::All(_) => ("dense4", LANES),
        };
        format!("{}-{format}-conv{pool}-i8i8{to}-1x{tile}", self.dot)
    }

    /// Bytes of packed weights, offsets, row numbers, scales and offsets.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Nonzeros(nonzeros) => nonzeros.bytes(),
            Weights::LookedUp(pixels) => pixels.bytes(),
            Weights::All(fours) => fours.bytes(),
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
        match &self.weights {
            Weights::Nonzeros(_) | Weights::LookedUp(_) => true,
            Weights::All(fours) => fours.expands(),
        }
    }

    fn is_int8(&self) -> bool {
        true
    }

    fn takes_residual(&self) -> bool {
        !self.pools
    }
}
