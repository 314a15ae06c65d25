//! Sums, differences, products, quotients, maxima and minima of two values; the second may hold one number per channel of the first.

use sparsevd_kernels::training::Real;

use super::size::MapSize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
}

/// Rows of the first value with the row of the second that meets each.
fn rows<'a, T>(
    a: &'a [T],
    first: MapSize,
    b: &'a [T],
    second: MapSize,
) -> impl Iterator<Item = (&'a [T], &'a [T])> {
    let repeat = first.area() / second.area();
    a.chunks_exact(first.channels)
        .enumerate()
        .map(move |(i, a)| {
            let at = i / repeat * second.channels;
            (a, &b[at..at + second.channels])
        })
}

/// The derivative of the larger of two numbers by the first: half where they are equal.
fn share<T: Real>(a: T, b: T) -> T {
    match (a > b, b > a) {
        (true, _) => T::of(1.0),
        (_, true) => T::of(0.0),
        _ => T::of(0.5),
    }
}

impl Arithmetic {
    pub fn forward<T: Real>(self, [a, b]: [&[T]; 2], [first, second]: [MapSize; 2], y: &mut [T]) {
        let y = y.chunks_exact_mut(first.channels);
        for ((a, b), y) in rows(a, first, b, second).zip(y) {
            for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                *y = match self {
                    Self::Add => a + b,
                    Self::Sub => a - b,
                    Self::Mul => a * b,
                    Self::Div => a / b,
                    Self::Max => a.larger(b),
                    Self::Min => a.smaller(b),
                };
            }
        }
    }

    /// Adds to the gradient by the first value.
    pub fn first_backward<T: Real>(
        self,
        g: &[T],
        [a, b]: [&[T]; 2],
        [first, second]: [MapSize; 2],
        da: &mut [T],
    ) {
        let da = da.chunks_exact_mut(first.channels);
        let a = a.chunks_exact(first.channels);
        for (((g, b), da), a) in rows(g, first, b, second).zip(da).zip(a) {
            for (((da, &g), &b), &a) in da.iter_mut().zip(g).zip(b).zip(a) {
                *da += match self {
                    Self::Add | Self::Sub => g,
                    Self::Mul => g * b,
                    Self::Div => g / b,
                    Self::Max => g * share(a, b),
                    Self::Min => g * share(b, a),
                };
            }
        }
    }

    /// Adds to the gradient by the second value.
    pub fn second_backward<T: Real>(
        self,
        g: &[T],
        [a, b]: [&[T]; 2],
        [first, second]: [MapSize; 2],
        db: &mut [T],
    ) {
        let repeat = first.area() / second.area();
        let g = g.chunks_exact(first.channels);
        for (i, ((a, b), g)) in rows(a, first, b, second).zip(g).enumerate() {
            let db = &mut db[i / repeat * second.channels..][..second.channels];
            for (((db, &g), &a), &b) in db.iter_mut().zip(g).zip(a).zip(b) {
                *db += match self {
                    Self::Add => g,
                    Self::Sub => -g,
                    Self::Mul => g * a,
                    Self::Div => -(g * a / (b * b)),
                    Self::Max => g * share(b, a),
                    Self::Min => g * share(a, b),
                };
            }
        }
    }
}
