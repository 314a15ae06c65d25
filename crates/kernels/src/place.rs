//! Padding, concatenation and parts.

use crate::cost::Costs;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::{Layout, length};

/// Pads maps with `value`: from `x`, `[count][c][h][w]`, to `y`, in [`Layout::Single`] or [`Layout::Tiled`]; `pads` are top, left, bottom, right.
///
/// # Panics
/// When `x` and `y` do not hold the same number of maps, or no slice can hold a map with its border.
#[track_caller]
pub fn pad(
    layout: Layout,
    x: &[f32],
    y: &mut [f32],
    [h, w]: [usize; 2],
    pads: [usize; 4],
    value: f32,
) {
    let [top, left, bottom, right] = pads;
    let lanes = layout.samples();
    let padded = [
        length::sum("rows of y", [top, h, bottom]),
        length::sum("columns of y", [left, w, right]),
    ];
    let padded_map = length::planned("a map of y", [padded[0], padded[1], lanes]);
    // A part of a padded map.
    let map = h * w * lanes;
    let maps = x.len().checked_div(map).unwrap_or(0);
    length::check("x", x.len(), [maps, map]);
    length::check("y", y.len(), [maps, padded_map]);
    if map == 0 {
        return;
    }
    y.fill(value);
    let (row, padded_row) = (w * lanes, padded[1] * lanes);
    for (x, y) in x.chunks_exact(map).zip(y.chunks_exact_mut(padded_map)) {
        let rows = y.chunks_exact_mut(padded_row).skip(top);
        for (x, y) in x.chunks_exact(row).zip(rows) {
            y[left * lanes..][..row].copy_from_slice(x);
        }
    }
}

/// Copies each sample of `x`, of `features` elements, to element `offset` of a sample of `y`, of `total` elements. Other elements of `y` keep their values.
///
/// # Panics
/// When `x` and `y` do not hold the same number of samples, or `offset + features` is above `total`.
#[track_caller]
pub fn place(
    layout: Layout,
    x: &[f32],
    y: &mut [f32],
    features: usize,
    offset: usize,
    total: usize,
) {
    let lanes = layout.samples();
    let count = (y.len() / lanes).checked_div(total).unwrap_or(0);
    length::check("y", y.len(), [count, total, lanes]);
    length::check("x", x.len(), [count, features, lanes]);
    assert!(
        length::sum("the part of y", [offset, features]) <= total,
        "elements of the part of y: expected up to {total}, got {offset} + {features}"
    );
    if x.is_empty() {
        return;
    }
    let samples = x.chunks_exact(features * lanes);
    for (x, y) in samples.zip(y.chunks_exact_mut(total * lanes)) {
        y[offset * lanes..][..features * lanes].copy_from_slice(x);
    }
}

/// Copies to each sample of `y`, of `features` elements, those from element `offset` on of a sample of `x`, of `total` elements.
///
/// # Panics
/// When `x` and `y` do not hold the same number of samples, or `offset + features` is above `total`.
#[track_caller]
pub fn slice(
    layout: Layout,
    x: &[f32],
    y: &mut [f32],
    features: usize,
    offset: usize,
    total: usize,
) {
    let lanes = layout.samples();
    let count = (x.len() / lanes).checked_div(total).unwrap_or(0);
    length::check("x", x.len(), [count, total, lanes]);
    length::check("y", y.len(), [count, features, lanes]);
    assert!(
        length::sum("the part of x", [offset, features]) <= total,
        "elements of the part of x: expected up to {total}, got {offset} + {features}"
    );
    if y.is_empty() {
        return;
    }
    let samples = x.chunks_exact(total * lanes);
    for (x, y) in samples.zip(y.chunks_exact_mut(features * lanes)) {
        y.copy_from_slice(&x[offset * lanes..][..features * lanes]);
    }
}

/// [`pad`] of maps of one size.
#[derive(Debug, Clone)]
pub struct PadKernel {
    /// Layout of the maps, which is not [`Layout::Blocks`].
    pub layout: Layout,
    /// Height and width of the input.
    pub map: [usize; 2],
    /// Rows and columns of the border: top, left, bottom, right.
    pub pads: [usize; 4],
    /// The number that fills the border.
    pub value: f32,
}

impl PackedKernel for PadKernel {
    fn run(&self, operands: Operands<'_>) {
        pad(
            self.layout,
            operands.x,
            operands.y,
            self.map,
            self.pads,
            self.value,
        );
    }

    fn name(&self) -> String {
        "pad-f32".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }
}

/// [`place`] of one of the inputs of a concatenation.
#[derive(Debug, Clone)]
pub struct PlaceKernel {
    /// Layout of the values, which is not [`Layout::Blocks`].
    pub layout: Layout,
    /// Elements of a sample of the input.
    pub features: usize,
    /// Elements of a sample of the output before those of this input.
    pub offset: usize,
    /// Elements of a sample of the output.
    ///
    /// In [`Layout::Single`] the length of the output may be a multiple of this, as with a free dimension: all three are then multiplied
    /// by the same factor.
    pub total: usize,
}

impl PackedKernel for PlaceKernel {
    fn run(&self, operands: Operands<'_>) {
        let Operands { x, y, n, .. } = operands;
        let times = match self.layout {
            Layout::Single => (y.len() / n.max(1)).checked_div(self.total).unwrap_or(0),
            _ => 1,
        };
        // Where a product is too large for a slice, so is the length that `place` asks for.
        let parts = [self.features, self.offset, self.total];
        let [features, offset, total] = parts.map(|e| e.saturating_mul(times));
        place(self.layout, x, y, features, offset, total);
    }

    fn name(&self) -> String {
        "place-f32".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }
}

/// [`slice()`] of a part of each sample.
#[derive(Debug, Clone)]
pub struct SliceKernel {
    /// Layout of the values, which is not [`Layout::Blocks`].
    pub layout: Layout,
    /// Elements of a sample of the output.
    pub features: usize,
    /// Elements of a sample of the input before those.
    pub offset: usize,
    /// Elements of a sample of the input. `None` where a free dimension is cut, in [`Layout::Single`]: then as many as there are.
    pub total: Option<usize>,
}

impl PackedKernel for SliceKernel {
    fn run(&self, operands: Operands<'_>) {
        let Operands { x, y, n, .. } = operands;
        // Of no samples any size is right.
        let least = self.offset.saturating_add(self.features);
        let total = self
            .total
            .or_else(|| x.len().checked_div(n))
            .unwrap_or(least);
        slice(self.layout, x, y, self.features, self.offset, total);
    }

    fn name(&self) -> String {
        "slice-f32".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }
}
