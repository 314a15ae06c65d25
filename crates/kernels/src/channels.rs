//! Operations with one number per channel: normalisation, and arithmetic with a value per channel.
//!
//! Over [`Layout::Single`] and [`Layout::Tiled`] only: they can turn a zero into another number, and halos of blocks must stay zero outside of
//! the map.

use crate::clamp::Bounds;
use crate::cost::Costs;
use crate::elementwise::{Arithmetic, arithmetic_body};
use crate::isa::multiversion;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::{Clamp, Isa, LANES, Layout, length};

/// A normalisation, folded into one scale and shift per channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    isa: Isa,
    scale: Vec<f32>,
    shift: Vec<f32>,
    area: usize,
}

impl Affine {
    /// `y = scale x + shift` for maps of `area` pixels.
    ///
    /// # Panics
    /// When `scale` and `shift` differ in length.
    #[track_caller]
    pub fn new(isa: Isa, scale: Vec<f32>, shift: Vec<f32>, area: usize) -> Self {
        assert_eq!(scale.len(), shift.len(), "channels");
        Self {
            isa,
            scale,
            shift,
            area,
        }
    }

    /// `x = clamp(scale x + shift)` in place; `x` holds `count` samples or tiles.
    ///
    /// # Panics
    /// When `x` is not `count * channels * area * layout.samples()` long.
    #[track_caller]
    pub fn run(&self, layout: Layout, x: &mut [f32], count: usize, clamp: Clamp) {
        let lanes = layout.samples();
        length::check("x", x.len(), [count, self.scale.len(), self.area, lanes]);
        if x.is_empty() {
            return;
        }
        let line = self.area * lanes;
        affine(self.isa, x, &self.scale, &self.shift, line, clamp.bounds());
    }

    /// Bytes of scales and shifts.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.scale[..]) + size_of_val(&self.shift[..])
    }
}

/// `y = clamp(a op b)` for maps `a` of `area` pixels and one number `b` per sample and channel.
///
/// # Panics
/// When `a` and `y` are not `b.len() * area` long.
#[track_caller]
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
pub fn per_channel(
    isa: Isa,
    layout: Layout,
    op: Arithmetic,
    a: &[f32],
    b: &[f32],
    y: &mut [f32],
    area: usize,
    clamp: Clamp,
) {
    length::check("a", a.len(), [b.len(), area]);
    length::check("y", y.len(), [a.len()]);
    match layout {
        Layout::Tiled => per_channel_tiled(isa, op, a, b, y, area, clamp),
        _ => per_channel_single(isa, op, a, b, y, area, clamp),
    }
}

multiversion!(fn affine(x: &mut [f32], scale: &[f32], shift: &[f32], line: usize, bounds: Bounds) = affine_body;);
multiversion!(
    fn per_channel_single(op: Arithmetic, a: &[f32], b: &[f32], y: &mut [f32], area: usize, clamp: Clamp)
        = per_channel_single_body;
);
multiversion!(
    fn per_channel_tiled(op: Arithmetic, a: &[f32], b: &[f32], y: &mut [f32], area: usize, clamp: Clamp)
        = per_channel_tiled_body;
);

#[inline(always)]
fn affine_body(x: &mut [f32], scale: &[f32], shift: &[f32], line: usize, bounds: Bounds) {
    if line == 0 || scale.is_empty() {
        return;
    }
    for sample in x.chunks_exact_mut(line * scale.len()) {
        for ((x, scale), shift) in sample.chunks_exact_mut(line).zip(scale).zip(shift) {
            for x in x {
                *x = bounds.apply(*x * scale + shift);
            }
        }
    }
}

#[inline(always)]
fn per_channel_single_body(
    op: Arithmetic,
    a: &[f32],
    b: &[f32],
    y: &mut [f32],
    area: usize,
    clamp: Clamp,
) {
    if area == 0 {
        return;
    }
    let maps = a.chunks_exact(area).zip(y.chunks_exact_mut(area));
    for ((a, y), b) in maps.zip(b) {
        arithmetic_body(op, a.iter().zip(std::iter::repeat(b)), y, clamp);
    }
}

#[inline(always)]
fn per_channel_tiled_body(
    op: Arithmetic,
    a: &[f32],
    b: &[f32],
    y: &mut [f32],
    area: usize,
    clamp: Clamp,
) {
    if area == 0 {
        return;
    }
    let maps = a
        .chunks_exact(area * LANES)
        .zip(y.chunks_exact_mut(area * LANES));
    for ((a, y), b) in maps.zip(b.chunks_exact(LANES)) {
        for (a, y) in a.chunks_exact(LANES).zip(y.chunks_exact_mut(LANES)) {
            arithmetic_body(op, a.iter().zip(b), y, clamp);
        }
    }
}

/// An [`Affine`] in place, over one layout.
#[derive(Debug, Clone)]
pub struct AffineKernel {
    /// Factor and summand of each channel.
    pub affine: Affine,
    /// Layout of the maps, which is not [`Layout::Blocks`].
    pub layout: Layout,
}

impl PackedKernel for AffineKernel {
    fn run(&self, operands: Operands<'_>) {
        let count = operands.n.div_ceil(self.layout.samples());
        self.affine
            .run(self.layout, operands.y, count, operands.clamp);
    }

    fn name(&self) -> String {
        "affine-in-place".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn bytes(&self) -> usize {
        self.affine.bytes()
    }

    fn in_place(&self) -> bool {
        true
    }
}

/// [`per_channel`] over one layout, of maps of any number of pixels.
#[derive(Debug, Clone)]
pub struct PerChannelKernel {
    /// Instruction set of the kernel.
    pub isa: Isa,
    /// The operation.
    pub op: Arithmetic,
    /// Layout of the maps, which is not [`Layout::Blocks`].
    pub layout: Layout,
}

impl PackedKernel for PerChannelKernel {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x, x2, y, clamp, ..
        } = operands;
        let b = x2.unwrap_or(x);
        let area = x.len() / b.len().max(1);
        per_channel(self.isa, self.layout, self.op, x, b, y, area, clamp);
    }

    fn name(&self) -> String {
        format!("{}-per-channel", self.op.name())
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }
}
