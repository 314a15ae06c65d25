//! Depthwise convolution of single samples over spatial [`Blocks`]: dense, each output channel reads one input channel.

use std::ops::Range;

use sparsevd_model::{Dense, Window};

use crate::bands::{Banded, Frame, Tile, Tiling, run_whole};
use crate::blocks::{Blocks, TILE};
use crate::clamp::Bounds;
use crate::conv::check_conv;
use crate::conv_blocks::BlockConv;
use crate::cost::Costs;
use crate::isa::kernel_name;
use crate::kernel::{InputSplit, Operands, PackedKernel, Workload};
use crate::simd::{Simd, simd_dispatch};
use crate::spmm::bias_or_zero;
use crate::{Clamp, Isa, LANES, length, select};

/// A depthwise convolution, packed for inputs and outputs in spatial [`Blocks`].
///
/// # Invariants
/// - the input's blocks cover [`BlockConv::input`], so that they hold all that the window reads for any output
/// - `weights` holds a filter of `offsets.len()` weights per output channel; each input channel has `multiplier` output channels
/// - offsets are where the inputs of the elements of the window lie for the first output of a block
#[derive(Debug, Clone)]
pub struct Depthwise {
    frame: Frame,
    weights: Vec<f32>,
    bias: Vec<f32>,
    offsets: Vec<usize>,
    multiplier: usize,
}

impl Depthwise {
    /// Packs filters `[out, 1, kh, kw]`.
    ///
    /// # Panics
    /// When the parameters contradict each other, or the input's blocks do not cover [`BlockConv::input`].
    #[track_caller]
    pub fn pack(
        isa: Isa,
        weight: &Dense,
        bias: Option<&[f32]>,
        window: &Window,
        [input, output]: [Blocks; 2],
    ) -> Self {
        let &[out, 1, kh, kw] = weight.shape.dims() else {
            panic!("filters [out, 1, kh, kw], got {}", weight.shape)
        };
        length::check("the filters", weight.values.len(), [out, kh, kw]);
        let groups = input.map()[0];
        let [oh, ow] = check_conv([out, 1, kh, kw], window, groups, input.map());
        assert_eq!(output.map(), [out, oh, ow], "map of the output");
        assert!(
            input.covers(&BlockConv::input(input.map(), window, &output)),
            "blocks of the input"
        );
        let [dy, dx] = window.dilations;
        Self {
            frame: Frame::new(
                isa,
                [input, output],
                Tiling::new(window, [&input, &output], select::block_tile(isa)),
            ),
            weights: weight.values.clone(),
            bias: bias_or_zero(bias, out),
            offsets: (0..kh * kw)
                .map(|k| (k / kw * dy * input.pitch() + k % kw * dx) * LANES)
                .collect(),
            multiplier: out / groups,
        }
    }

    /// `y = clamp(W * x + b)`, and the halos of `y`. `x` and `y` are `n` samples in the blocks of input and output.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, clamp: Clamp) {
        run_whole(self, x, None, y, n, clamp);
    }

    /// Blocks of the output.
    pub fn output(&self) -> Blocks {
        self.frame.output
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        kernel_name!(self.frame.isa.level(), "depthwise-blocks-f32")
    }

    /// Bytes of weights and biases.
    pub fn bytes(&self) -> usize {
        (self.weights.len() + self.bias.len()) * size_of::<f32>()
    }
}

// SAFETY: tiles do not overlap, `run_units` stores only to lines of its tiles, and loads stay inside the blocks (invariants).
unsafe impl Banded for Depthwise {
    fn frame(&self) -> &Frame {
        &self.frame
    }

    unsafe fn run_units(
        &self,
        units: Range<usize>,
        x: &[f32],
        residual: Option<&[f32]>,
        y: *mut f32,
        clamp: Clamp,
    ) {
        assert!(residual.is_none(), "a sum with a depthwise convolution");
        // SAFETY: by the contract of this function, `x` and `y` are one sample in their blocks, and `units` are tiles of the frame.
        unsafe {
            run(
                self.frame.isa,
                self,
                x.as_ptr(),
                y,
                &self.frame.tiling.tiles[units],
                clamp.bounds(),
            )
        };
    }
}

simd_dispatch! {
    /// # Safety
    /// `x` and `y` are one sample in the blocks of input and output; `tiles` are tiles of the frame.
    unsafe fn run(conv: &Depthwise, x: *const f32, y: *mut f32, tiles: &[Tile], bounds: Bounds) = body;
}

#[inline(always)]
unsafe fn body<S: Simd>(
    conv: &Depthwise,
    x: *const f32,
    y: *mut f32,
    tiles: &[Tile],
    bounds: Bounds,
) {
    let taps = conv.offsets.len();
    for (channel, &bias) in conv.bias.iter().enumerate() {
        // SAFETY: channels and tiles are those of the blocks, of which `x` and `y` are one sample; `weights` has a filter for each channel (invariants).
        unsafe {
            let weights = conv.weights.as_ptr().add(channel * taps);
            let x = x.add(channel / conv.multiplier * conv.frame.input.channel() * LANES);
            let y = y.add(channel * conv.frame.output.channel() * LANES);
            for t in tiles {
                for lane in (0..LANES).step_by(S::N) {
                    let (x, y) = (x.add(t.x + lane), y.add(t.y + lane));
                    match t.lines {
                        TILE => tile::<S, TILE>(conv, weights, bias, x, y, bounds),
                        3 => tile::<S, 3>(conv, weights, bias, x, y, bounds),
                        2 => tile::<S, 2>(conv, weights, bias, x, y, bounds),
                        _ => tile::<S, 1>(conv, weights, bias, x, y, bounds),
                    }
                }
            }
        }
    }
}

/// `T` vectors of one channel.
#[inline(always)]
unsafe fn tile<S: Simd, const T: usize>(
    conv: &Depthwise,
    weights: *const f32,
    bias: f32,
    x: *const f32,
    y: *mut f32,
    bounds: Bounds,
) {
    // SAFETY: `weights` has one for each offset, and the input holds a line at each offset for every line of the tile (invariants); `y` holds the lines
    // of the tile.
    unsafe {
        let (low, high) = (S::splat(bounds.min), S::splat(bounds.max));
        let mut acc = [S::splat(bias); T];
        for (k, &offset) in conv.offsets.iter().enumerate() {
            let weight = S::splat(*weights.add(k));
            for (t, acc) in acc.iter_mut().enumerate() {
                let x = x.add(offset + t * conv.frame.tiling.x_line);
                *acc = S::fma(weight, S::load(x), *acc);
            }
        }
        for (t, acc) in acc.into_iter().enumerate() {
            S::store(y.add(t * LANES), S::clamp(acc, low, high));
        }
    }
}

impl PackedKernel for Depthwise {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.y, operands.n, operands.clamp);
    }

    fn name(&self) -> String {
        Self::name(self).into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.dense_conv(costs.over_blocks().depthwise)
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn banded(&self) -> Option<&dyn Banded> {
        Some(self)
    }

    fn input_split(&self) -> InputSplit {
        InputSplit::Channels
    }
}
