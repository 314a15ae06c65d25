//! Layer normalisation.
//!
//! With `x^ = (x - mean) / deviation` and `y = scale x^ + bias` over the `n` numbers of a group,
//! `dx = (h - sum h / n - x^ sum(h x^) / n) / deviation` for `h = g scale` (Ba, Kiros and Hinton 2016).

use sparsevd_kernels::training::Real;

use crate::layers::size::MapSize;

/// For each element of a sample in the order of the network, channels first, its place in training, channels last.
fn places(size: MapSize) -> Vec<usize> {
    let area = size.area();
    (0..size.elements())
        .map(|i| i % area * size.channels + i / area)
        .collect()
}

/// Mean of a group, and one over its deviation.
fn statistics<T: Real>(x: &[T], group: &[usize], epsilon: f32) -> [T; 2] {
    let n = T::of(group.len() as f64);
    let mean = group.iter().map(|&i| x[i]).sum::<T>() / n;
    let squares = group.iter().map(|&i| (x[i] - mean) * (x[i] - mean));
    let variance = squares.sum::<T>() / n;
    let deviation = (variance + T::of(f64::from(epsilon))).sqrt();
    [mean, T::of(1.0) / deviation]
}

/// `tensors` are scale and bias, or scale alone; a group has as many elements as the scale.
pub(super) fn forward<T: Real>(
    epsilon: f32,
    tensors: &[&[T]],
    x: &[T],
    y: &mut [T],
    size: MapSize,
) {
    let scale = tensors[0];
    let places = places(size);
    let samples = x.chunks_exact(places.len());
    for (x, y) in samples.zip(y.chunks_exact_mut(places.len())) {
        for group in places.chunks_exact(scale.len()) {
            let [mean, factor] = statistics(x, group, epsilon);
            for (k, &i) in group.iter().enumerate() {
                let bias = tensors.get(1).map_or(T::default(), |b| b[k]);
                y[i] = (x[i] - mean) * factor * scale[k] + bias;
            }
        }
    }
}

/// Adds the gradients by the input, where there is a `dx`, and by the tensors.
pub(super) fn backward<T: Real>(
    epsilon: f32,
    tensors: &[&[T]],
    x: &[T],
    g: &[T],
    size: MapSize,
    mut dx: Option<&mut [T]>,
    by_tensors: &mut [Vec<T>],
) {
    let scale = tensors[0];
    let places = places(size);
    let per = places.len();
    let n = T::of(scale.len() as f64);
    for (sample, (x, g)) in x.chunks_exact(per).zip(g.chunks_exact(per)).enumerate() {
        for group in places.chunks_exact(scale.len()) {
            let [mean, factor] = statistics(x, group, epsilon);
            let normal = |i: usize| (x[i] - mean) * factor;
            let (mut sum, mut product) = (T::default(), T::default());
            for (k, &i) in group.iter().enumerate() {
                by_tensors[0][k] += g[i] * normal(i);
                if let Some(by_bias) = by_tensors.get_mut(1) {
                    by_bias[k] += g[i];
                }
                let h = g[i] * scale[k];
                sum += h;
                product += h * normal(i);
            }
            if let Some(dx) = &mut dx {
                let dx = &mut dx[sample * per..][..per];
                for (k, &i) in group.iter().enumerate() {
                    let h = g[i] * scale[k];
                    dx[i] += (h - sum / n - normal(i) * product / n) * factor;
                }
            }
        }
    }
}
