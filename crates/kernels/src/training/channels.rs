//! Loops over rows of channels, as batch normalisation needs them.

use crate::isa::multiversion;
use crate::training::Real;

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
    let channels = sums.len();
    for (a, b) in a.chunks_exact(channels).zip(b.chunks_exact(channels)) {
        for c in 0..channels {
            let a = a[c].to_f64();
            sums[c] += a;
            products[c] += a * b[c].to_f64();
        }
    }
}

multiversion! {
    /// `y = x factor + summand`, with one factor and summand per channel.
    ///
    /// # Panics
    /// When `factor` and `summand` differ in length.
    pub fn scale_channels[T: Real](x: &[T], factor: &[T], summand: &[T], y: &mut [T]) = scale_channels_body::<T>;
}

#[inline(always)]
fn scale_channels_body<T: Real>(x: &[T], factor: &[T], summand: &[T], y: &mut [T]) {
    assert_eq!(factor.len(), summand.len(), "one number per channel");
    let channels = factor.len();
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
        for c in 0..channels {
            y[c] = x[c] * factor[c] + summand[c];
        }
    }
}

multiversion! {
    /// `dx += g by_g + x by_x + constant`, with one of each per channel: the gradient through a normalisation and its
    /// statistics.
    ///
    /// # Panics
    /// When the numbers per channel differ in length.
    pub fn add_channel_gradient[T: Real](g: &[T], x: &[T], by_g: &[T], by_x: &[T], constant: &[T], dx: &mut [T]) = add_channel_gradient_body::<T>;
}

#[inline(always)]
fn add_channel_gradient_body<T: Real>(
    g: &[T],
    x: &[T],
    by_g: &[T],
    by_x: &[T],
    constant: &[T],
    dx: &mut [T],
) {
    let channels = by_g.len();
    assert!(
        by_x.len() == channels && constant.len() == channels,
        "one number per channel"
    );
    let rows = g.chunks_exact(channels).zip(x.chunks_exact(channels));
    for ((g, x), dx) in rows.zip(dx.chunks_exact_mut(channels)) {
        for c in 0..channels {
            dx[c] += g[c] * by_g[c] + x[c] * by_x[c] + constant[c];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn every_instruction_set_agrees_with_ten_lines() {
        for (channels, rows) in [(1, 5), (3, 1), (16, 7), (19, 4)] {
            let values = |seed: usize, n: usize| -> Vec<f32> {
                (0..n)
                    .map(|i| ((i * 37 + seed * 11) % 23) as f32 - 11.0)
                    .collect()
            };
            let (a, b) = (values(1, channels * rows), values(2, channels * rows));
            let per = [3, 4, 5].map(|seed| values(seed, channels));
            for isa in Isa::available() {
                let (mut sums, mut products) = (vec![1.0; channels], vec![2.0; channels]);
                channel_sums(isa, &a, &b, &mut sums, &mut products);
                let mut y = vec![0.0; a.len()];
                scale_channels(isa, &a, &per[0], &per[1], &mut y);
                let mut dx = a.clone();
                add_channel_gradient(isa, &a, &b, &per[0], &per[1], &per[2], &mut dx);
                for c in 0..channels {
                    let column = (0..rows).map(|r| r * channels + c);
                    let sum: f32 = column.clone().map(|i| a[i]).sum();
                    let product: f32 = column.clone().map(|i| a[i] * b[i]).sum();
                    assert_eq!(sums[c], f64::from(sum) + 1.0, "{}", isa.name());
                    assert_eq!(products[c], f64::from(product) + 2.0, "{}", isa.name());
                    for i in column {
                        assert_eq!(y[i], a[i] * per[0][c] + per[1][c], "{}", isa.name());
                        let want = a[i] + (a[i] * per[0][c] + b[i] * per[1][c] + per[2][c]);
                        assert_eq!(dx[i], want, "{}", isa.name());
                    }
                }
            }
        }
    }
}
