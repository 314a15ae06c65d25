//! Operators that only move numbers: concatenation, borders, and those whose output has elements of the input in another order.

use std::sync::Arc;

use sparsevd_kernels::training::Real;
use sparsevd_model::ops;

use super::size::{MapSize, places};

/// Copies `x` into the channels of `y` from `at` on.
pub(crate) fn place_channels<T: Copy>(
    x: &[T],
    channels: usize,
    y: &mut [T],
    all: usize,
    at: usize,
) {
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(all)) {
        y[at..at + channels].copy_from_slice(x);
    }
}

/// Adds the channels of `y` from `at` on to `x`.
pub(crate) fn take_channels<T: Real>(y: &[T], all: usize, at: usize, x: &mut [T], channels: usize) {
    for (x, y) in x.chunks_exact_mut(channels).zip(y.chunks_exact(all)) {
        for (x, &y) in x.iter_mut().zip(&y[at..at + channels]) {
            *x += y;
        }
    }
}

/// Calls `visit` with the places, per sample, of each row of pixels inside a border: in the map and with the border.
fn for_each_row(
    size: MapSize,
    [top, left, _, right]: [usize; 4],
    mut visit: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let (row, padded) = (
        size.width * size.channels,
        (left + size.width + right) * size.channels,
    );
    for y in 0..size.height {
        let (from, to) = (y * row, (y + top) * padded + left * size.channels);
        visit(from..from + row, to..to + row);
    }
}

pub(crate) fn pad_forward<T: Real>(
    x: &[T],
    size: MapSize,
    pads: [usize; 4],
    value: f32,
    y: &mut [T],
    output: MapSize,
) {
    y.fill(T::of(f64::from(value)));
    let samples = x.chunks_exact(size.elements());
    for (x, y) in samples.zip(y.chunks_exact_mut(output.elements())) {
        for_each_row(size, pads, |from, to| y[to].copy_from_slice(&x[from]));
    }
}

pub(crate) fn pad_backward<T: Real>(
    g: &[T],
    output: MapSize,
    pads: [usize; 4],
    dx: &mut [T],
    size: MapSize,
) {
    let samples = g.chunks_exact(output.elements());
    for (g, dx) in samples.zip(dx.chunks_exact_mut(size.elements())) {
        for_each_row(size, pads, |from, to| {
            for (dx, &g) in dx[from].iter_mut().zip(&g[to]) {
                *dx += g;
            }
        });
    }
}

/// Elements of a value in another order, in other dimensions: all of them or some, or some several times.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    /// Dimensions of the output per sample, in the order of the network.
    pub dims: Vec<usize>,
    /// For each place of the output, the place in the input; `None` where all are there and stay in theirs.
    from: Option<Arc<[u32]>>,
    /// Elements of the input.
    elements: usize,
}

impl Order {
    /// `dims` as `to`; element `i` in C order stays element `i`. `None` where places have more than 32 bits.
    pub fn reshaped(dims: &[usize], to: &[usize]) -> Option<Self> {
        Self::new(dims, to.to_vec(), |i| i)
    }

    /// Dimension `i` of the output is dimension `perm[i]` of `dims`. `None` where places have more than 32 bits.
    pub fn transposed(dims: &[usize], perm: &[usize]) -> Option<Self> {
        let stride = |axis: usize| dims[axis + 1..].iter().product::<usize>();
        let to: Vec<usize> = perm.iter().map(|&p| dims[p]).collect();
        let sizes: Vec<[usize; 2]> = perm.iter().map(|&p| [dims[p], stride(p)]).collect();
        Self::new(dims, to, |mut i| {
            let mut at = 0;
            for [size, stride] in sizes.iter().rev() {
                at += i % size * stride;
                i /= size;
            }
            at
        })
    }

    /// The elements from `start` on and before `end` along a dimension. `None` where places have more than 32 bits.
    pub fn sliced(dims: &[usize], ops::Slice { axis, start, end }: ops::Slice) -> Option<Self> {
        let inner = dims[axis + 1..].iter().product::<usize>();
        let mut to = dims.to_vec();
        to[axis] = end - start;
        let [all, kept] = [dims[axis] * inner, to[axis] * inner];
        Self::new(dims, to, |i| i / kept * all + start * inner + i % kept)
    }

    /// Copies along the dimensions of one element, to those of `to`. `None` where places have more than 32 bits.
    pub fn expanded(dims: &[usize], to: &[usize]) -> Option<Self> {
        Self::new(dims, to.to_vec(), |mut i| {
            let (mut at, mut stride) = (0, 1);
            for (&size, &copies) in dims.iter().zip(to).rev() {
                at += i % copies % size * stride;
                i /= copies;
                stride *= size;
            }
            at
        })
    }

    /// `source` gives the element of the input, in C order, that an element of the output is.
    fn new(dims: &[usize], to: Vec<usize>, source: impl Fn(usize) -> usize) -> Option<Self> {
        let elements = dims.iter().product::<usize>();
        let mut from = vec![0; to.iter().product()];
        let (place, place_of_source) = (places(&to), places(dims));
        for i in 0..from.len() {
            from[place(i)] = u32::try_from(place_of_source(source(i))).ok()?;
        }
        let stays =
            from.len() == elements && from.iter().enumerate().all(|(i, &f)| i == f as usize);
        Some(Self {
            dims: to,
            from: (!stays).then(|| from.into()),
            elements,
        })
    }

    /// A value of `dims` that lies from element `at` on in one of `all` elements, as maps do in training. `None` where places have more than 32 bits.
    pub fn part(all: usize, at: usize, dims: Vec<usize>) -> Option<Self> {
        let end = u32::try_from(at + dims.iter().product::<usize>()).ok()?;
        Some(Self {
            dims,
            from: Some((at as u32..end).collect()),
            elements: all,
        })
    }

    pub fn forward<T: Copy>(&self, x: &[T], y: &mut [T]) {
        let Some(from) = &self.from else {
            y.copy_from_slice(x);
            return;
        };
        for (x, y) in x
            .chunks_exact(self.elements)
            .zip(y.chunks_exact_mut(from.len()))
        {
            y.iter_mut()
                .zip(from.iter())
                .for_each(|(y, &f)| *y = x[f as usize]);
        }
    }

    /// Adds the gradient by the input.
    pub fn backward<T: Real>(&self, g: &[T], dx: &mut [T]) {
        let Some(from) = &self.from else {
            dx.iter_mut().zip(g).for_each(|(dx, &g)| *dx += g);
            return;
        };
        let samples = g.chunks_exact(from.len());
        for (g, dx) in samples.zip(dx.chunks_exact_mut(self.elements)) {
            g.iter()
                .zip(from.iter())
                .for_each(|(&g, &f)| dx[f as usize] += g);
        }
    }
}
