//! Layer normalisation.
//!
//! With `x^ = (x - mean) / deviation` and `y = scale x^ + bias` over the `n` numbers of a group,
//! `dx = (h - sum h / n - x^ sum(h x^) / n) / deviation` for `h = g scale` (Ba, Kiros and Hinton 2016).

use sparsevd_kernels::training::Real;

/// Mean of a group, and one over its deviation.
fn statistics<T: Real>(x: &[T], group: &[u32], epsilon: f32) -> [T; 2] {
    let n = T::of(group.len() as f64);
    let x = group.iter().map(|&i| x[i as usize]);
    let mean = x.clone().sum::<T>() / n;
    let squares = x.map(|x| (x - mean) * (x - mean));
    let variance = squares.sum::<T>() / n;
    let deviation = (variance + T::of(f64::from(epsilon))).sqrt();
    [mean, T::of(1.0) / deviation]
}

/// `tensors` are scale and bias, or scale alone; a group has as many elements as the scale. `places` has the place of each element
/// of a sample in the order of the network.
pub(super) fn forward<T: Real>(
    epsilon: f32,
    places: &[u32],
    tensors: &[&[T]],
    x: &[T],
    y: &mut [T],
) {
    let scale = tensors[0];
    let samples = x.chunks_exact(places.len());
    for (x, y) in samples.zip(y.chunks_exact_mut(places.len())) {
        for group in places.chunks_exact(scale.len()) {
            let [mean, factor] = statistics(x, group, epsilon);
            for (k, &i) in group.iter().enumerate() {
                let bias = tensors.get(1).map_or(T::default(), |b| b[k]);
                let i = i as usize;
                y[i] = (x[i] - mean) * factor * scale[k] + bias;
            }
        }
    }
}

/// Adds the gradients by the input, where there is a `dx`, and by the tensors.
pub(super) fn backward<T: Real>(
    epsilon: f32,
    places: &[u32],
    tensors: &[&[T]],
    x: &[T],
    g: &[T],
    mut dx: Option<&mut [T]>,
    by_tensors: &mut [Vec<T>],
) {
    let scale = tensors[0];
    let per = places.len();
    let n = T::of(scale.len() as f64);
    for (sample, (x, g)) in x.chunks_exact(per).zip(g.chunks_exact(per)).enumerate() {
        for group in places.chunks_exact(scale.len()) {
            let [mean, factor] = statistics(x, group, epsilon);
            let normal = |i: usize| (x[i] - mean) * factor;
            let (mut sum, mut product) = (T::default(), T::default());
            for (k, i) in group.iter().map(|&i| i as usize).enumerate() {
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
                for (k, i) in group.iter().map(|&i| i as usize).enumerate() {
                    let h = g[i] * scale[k];
                    dx[i] += (h - sum / n - normal(i) * product / n) * factor;
                }
            }
        }
    }
}
