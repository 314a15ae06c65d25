//! Linear layers: `y = x theta^T + b`, with noise of variance `x^2 (sigma^2)^T`.

use sparsevd_kernels::training::{Real, add_square_gradient, multiply, reparametrize, square};

use super::sparse::Sparse;
use super::{Pass, Saved, Scratch, Weights, fill_rows, sized};

pub(crate) struct Linear<'a, T> {
    pub weights: Weights<'a, T>,
    pub layer: usize,
    /// Vectors of a sample, each of which goes through the layer.
    pub vectors: usize,
    /// Where the inputs lie in a vector.
    pub gather: &'a [u32],
}

impl<T: Real> Linear<'_, T> {
    /// `input` is `[samples][vectors][features]`, `y` is `[samples][vectors][units]`.
    pub fn forward(
        &self,
        pass: &Pass<'_>,
        input: &[T],
        y: &mut [T],
        saved: &mut Saved<T>,
        scratch: &mut Scratch<T>,
    ) {
        let (b, w) = (pass.samples * self.vectors, &self.weights);
        if let Some(sparse) = w.sparse.and_then(Sparse::linear) {
            let Scratch { rows, vectors, .. } = scratch;
            let x = self.gathered(b, input, rows);
            let saved = &mut saved.vectors[0];
            sparse.forward(pass.isa, [w.theta, w.bias], x, y, saved, vectors);
            return;
        }
        let x = self.gathered(b, input, &mut saved.x);
        fill_rows(y, w.bias);
        T::gemm(
            y,
            w.units,
            (x, w.patch, 1),
            (w.theta, 1, w.patch),
            [b, w.units, w.patch],
            true,
        );
        if w.has_noise() {
            let x2 = sized(&mut saved.x2, b * w.patch);
            square(pass.isa, x, x2);
            let v = sized(&mut saved.factor, b * w.units);
            T::gemm(
                v,
                w.units,
                (x2, w.patch, 1),
                (w.sigma2, 1, w.patch),
                [b, w.units, w.patch],
                false,
            );
            let noise = sized(&mut scratch.noise, b * w.units);
            let of_samples = noise.chunks_exact_mut(self.vectors * w.units);
            for (sample, noise) in of_samples.enumerate() {
                pass.fill_noise(self.layer, sample, noise);
            }
            reparametrize(pass.isa, y, v, noise);
        }
    }

    /// What the layer reads of `b` vectors, `[b][patch]`.
    fn gathered<'b>(&self, b: usize, input: &[T], buffer: &'b mut Vec<T>) -> &'b mut [T] {
        let patch = self.weights.patch;
        let x = sized(buffer, b * patch);
        for (x, input) in x
            .chunks_exact_mut(patch.max(1))
            .zip(input.chunks_exact(input.len() / b))
        {
            for (x, &g) in x.iter_mut().zip(self.gather) {
                *x = input[g as usize];
            }
        }
        x
    }

    /// Adds to the gradients of the input (where there is one) and of the bias; stores those of `y` in `saved`, from which
    /// [`weight_gradient`] computes those of the weights.
    #[allow(clippy::too_many_arguments, reason = "a pass and its buffers")]
    pub fn backward(
        &self,
        pass: &Pass<'_>,
        gradient: &[T],
        saved: &mut Saved<T>,
        input_gradient: Option<&mut [T]>,
        bias_gradient: &mut [T],
        scratch: &mut Scratch<T>,
    ) {
        let (b, w) = (pass.samples * self.vectors, &self.weights);
        for row in gradient.chunks_exact(w.units) {
            for (bias, &g) in bias_gradient.iter_mut().zip(row) {
                *bias += g;
            }
        }
        if w.has_noise() {
            let factor = &saved.factor[..b * w.units];
            multiply(
                pass.isa,
                gradient,
                factor,
                sized(&mut saved.variance_gradient, b * w.units),
            );
        }
        let mut dx = input_gradient
            .is_some()
            .then(|| sized(&mut scratch.y, b * w.patch));
        if let Some(sparse) = w.sparse.and_then(Sparse::linear) {
            let (saved, vectors) = (&mut saved.vectors[1], &mut scratch.vectors);
            sparse.backward(
                pass.isa,
                w.theta,
                gradient,
                b,
                dx.as_deref_mut(),
                saved,
                vectors,
            );
        } else {
            sized(&mut saved.mean_gradient, b * w.units).copy_from_slice(gradient);
        }
        if let Some((dx, input_gradient)) = dx.zip(input_gradient) {
            if w.sparse.is_none() {
                T::gemm(
                    dx,
                    w.patch,
                    (gradient, w.units, 1),
                    (w.theta, w.patch, 1),
                    [b, w.patch, w.units],
                    false,
                );
            }
            if w.has_noise() {
                let d = sized(&mut scratch.v, b * w.patch);
                T::gemm(
                    d,
                    w.patch,
                    (&saved.variance_gradient, w.units, 1),
                    (w.sigma2, w.patch, 1),
                    [b, w.patch, w.units],
                    false,
                );
                add_square_gradient(pass.isa, &saved.x[..b * w.patch], d, dx);
            }
            let features = input_gradient.len() / b;
            for (dx, input) in dx
                .chunks_exact(w.patch.max(1))
                .zip(input_gradient.chunks_exact_mut(features))
            {
                for (&d, &g) in dx.iter().zip(self.gather) {
                    input[g as usize] += d;
                }
            }
        }
    }
}

/// Adds the gradient of the weight rows `rows` by theta, and by sigma^2 where `by_sigma2` is not empty, for the `vectors` of one shard.
pub(crate) fn weight_gradient<T: Real>(
    saved: &Saved<T>,
    vectors: usize,
    [units, patch]: [usize; 2],
    rows: std::ops::Range<usize>,
    by_theta: &mut [T],
    by_sigma2: &mut [T],
    accumulate: bool,
) {
    let sizes = [rows.len(), patch, vectors];
    T::gemm(
        by_theta,
        patch,
        (&saved.mean_gradient[rows.start..], 1, units),
        (&saved.x, patch, 1),
        sizes,
        accumulate,
    );
    if !by_sigma2.is_empty() {
        T::gemm(
            by_sigma2,
            patch,
            (&saved.variance_gradient[rows.start..], 1, units),
            (&saved.x2, patch, 1),
            sizes,
            accumulate,
        );
    }
}
