//! Loops over rows of channels, as batch normalisation needs them.

use super::elementwise::relu_gradient_body;
use crate::isa::multiversion;
use crate::training::Real;

/// Numbers of a piece of rows that stays in the first-level cache while its channels are visited.
const PIECE: usize = 2048;

multiversion! {
    /// Adds to `sums[c]` the sum of `a[row][c]` and to `products[c]` that of `a[row][c] b[row][c]`, in f64.
    ///
    /// # Panics
    /// When `sums` and `products` differ in length.
    pub fn channel_sums[T: Real](a: &[T], b: &[T], sums: &mut [f64], products: &mut [f64]) = channel_sums_body::<T>;
}

#[inline(always)]
fn channel_sums_body<T: Real>(a: &[T], b: &[T], sums: &mut [f64], products: &mut [f64]) {
    assert_eq!(sums.len(), products.len(), "one number per channel");
    let piece = piece(sums.len());
    for (a, b) in a.chunks(piece).zip(b.chunks(piece)) {
        piece_sums(a, b, sums, products);
    }
}

/// Numbers of whole rows, about [`PIECE`].
#[inline(always)]
fn piece(channels: usize) -> usize {
    (PIECE / channels).max(1) * channels
}

#[inline(always)]
fn piece_sums<T: Real>(a: &[T], b: &[T], sums: &mut [f64], products: &mut [f64]) {
    let mut c = 0;
    while c < sums.len() {
        c += match sums.len() - c {
            16.. => block_sums::<T, 16>(a, b, c, sums, products),
            8.. => block_sums::<T, 8>(a, b, c, sums, products),
            4.. => block_sums::<T, 4>(a, b, c, sums, products),
            _ => block_sums::<T, 1>(a, b, c, sums, products),
        };
    }
}

/// Of `N` channels from `c` on, whose sums are kept in registers; returns `N`.
#[inline(always)]
fn block_sums<T: Real, const N: usize>(
    a: &[T],
    b: &[T],
    c: usize,
    sums: &mut [f64],
    products: &mut [f64],
) -> usize {
    let channels = sums.len();
    let (mut sum, mut product) = ([0.0; N], [0.0; N]);
    for (a, b) in a.chunks_exact(channels).zip(b.chunks_exact(channels)) {
        for (i, (a, b)) in a[c..c + N].iter().zip(&b[c..c + N]).enumerate() {
            let a = a.to_f64();
            sum[i] += a;
            product[i] += a * b.to_f64();
        }
    }
    for i in 0..N {
        sums[c + i] += sum[i];
        products[c + i] += product[i];
    }
    N
}

multiversion! {
    /// Zeroes the gradient `g` where the output `y` of a ReLU is not positive, then sums as [`channel_sums`] of `g` and `x`.
    ///
    /// # Panics
    /// When `sums` and `products` differ in length.
    pub fn relu_gradient_sums[T: Real](y: &[T], g: &mut [T], x: &[T], sums: &mut [f64], products: &mut [f64]) = relu_gradient_sums_body::<T>;
}

#[inline(always)]
fn relu_gradient_sums_body<T: Real>(
    y: &[T],
    g: &mut [T],
    x: &[T],
    sums: &mut [f64],
    products: &mut [f64],
) {
    assert_eq!(sums.len(), products.len(), "one number per channel");
    let piece = piece(sums.len());
    for ((y, g), x) in (y.chunks(piece))
        .zip(g.chunks_mut(piece))
        .zip(x.chunks(piece))
    {
        relu_gradient_body(y, g);
        piece_sums(g, x, sums, products);
    }
}

multiversion! {
    /// `y = x factor + summand`, with one factor and summand per channel, and a ReLU where `relu` says so.
    ///
    /// # Panics
    /// When `factor` and `summand` differ in length.
    pub fn scale_channels[T: Real](x: &[T], factor: &[T], summand: &[T], relu: bool, y: &mut [T]) = scale_channels_body::<T>;
}

#[inline(always)]
fn scale_channels_body<T: Real>(x: &[T], factor: &[T], summand: &[T], relu: bool, y: &mut [T]) {
    assert_eq!(factor.len(), summand.len(), "one number per channel");
    match relu {
        true => scaled(x, factor, summand, y, |v| v.larger(T::of(0.0))),
        false => scaled(x, factor, summand, y, |v| v),
    }
}

#[inline(always)]
fn scaled<T: Real>(x: &[T], factor: &[T], summand: &[T], y: &mut [T], activation: impl Fn(T) -> T) {
    let channels = factor.len();
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
        for c in 0..channels {
            y[c] = activation(x[c] * factor[c] + summand[c]);
        }
    }
}

multiversion! {
    /// `g = g by_g + x by_x + constant`, with one of each per channel: the gradient through a normalisation and its
    /// statistics.
    ///
    /// # Panics
    /// When the numbers per channel differ in length.
    pub fn channel_gradient[T: Real](g: &mut [T], x: &[T], by_g: &[T], by_x: &[T], constant: &[T]) = channel_gradient_body::<T>;
}

#[inline(always)]
fn channel_gradient_body<T: Real>(g: &mut [T], x: &[T], by_g: &[T], by_x: &[T], constant: &[T]) {
    let channels = by_g.len();
    assert!(
        by_x.len() == channels && constant.len() == channels,
        "one number per channel"
    );
    let rows = g.chunks_exact_mut(channels).zip(x.chunks_exact(channels));
    for (g, x) in rows {
        for c in 0..channels {
            g[c] = g[c] * by_g[c] + x[c] * by_x[c] + constant[c];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn every_instruction_set_agrees_with_ten_lines() {
        for (channels, rows) in [(1, 5), (3, 1), (8, 40), (16, 300), (31, 4), (33, 70)] {
            let values = |seed: usize, n: usize| -> Vec<f32> {
                (0..n)
                    .map(|i| ((i * 37 + seed * 11) % 23) as f32 - 11.0)
                    .collect()
            };
            let (a, b) = (values(1, channels * rows), values(2, channels * rows));
            let mask = values(6, channels * rows);
            let per = [3, 4, 5].map(|seed| values(seed, channels));
            for (isa, flag) in Isa::available()
                .into_iter()
                .flat_map(|isa| [(isa, false), (isa, true)])
            {
                let (mut sums, mut products) = (vec![1.0; channels], vec![2.0; channels]);
                let mut g = a.clone();
                match flag {
                    true => relu_gradient_sums(isa, &mask, &mut g, &b, &mut sums, &mut products),
                    false => channel_sums(isa, &a, &b, &mut sums, &mut products),
                }
                let mut y = vec![0.0; a.len()];
                scale_channels(isa, &a, &per[0], &per[1], flag, &mut y);
                let mut dx = a.clone();
                channel_gradient(isa, &mut dx, &b, &per[0], &per[1], &per[2]);
                for c in 0..channels {
                    let column = (0..rows).map(|r| r * channels + c);
                    let masked = |i: usize| if flag && mask[i] <= 0.0 { 0.0 } else { a[i] };
                    let sum: f32 = column.clone().map(masked).sum();
                    let product: f32 = column.clone().map(|i| masked(i) * b[i]).sum();
                    assert_eq!(sums[c], f64::from(sum) + 1.0, "{}", isa.name());
                    assert_eq!(products[c], f64::from(product) + 2.0, "{}", isa.name());
                    for i in column {
                        assert_eq!(g[i], masked(i), "{}", isa.name());
                        let want = a[i] * per[0][c] + per[1][c];
                        let want = if flag { want.max(0.0) } else { want };
                        assert_eq!(y[i], want, "{}", isa.name());
                        let want = a[i] * per[0][c] + b[i] * per[1][c] + per[2][c];
                        assert_eq!(dx[i], want, "{}", isa.name());
                    }
                }
            }
        }
    }
}
