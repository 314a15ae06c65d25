//! Depthwise convolutions, which have no noise.

use sparsevd_kernels::training::{Real, depthwise, depthwise_gradient};
use sparsevd_model::Window;

use super::Gradients;
use super::size::MapSize;
use super::{Pass, Scratch, Weights, fill_rows, sized};

pub(crate) struct DepthwiseConv<'a, T> {
    pub weights: Weights<'a, T>,
    pub window: &'a Window,
    pub input: MapSize,
    pub output: MapSize,
}

impl<T: Real> DepthwiseConv<'_, T> {
    /// The filters in the layout of the kernels, `[ky][kx][unit]`.
    fn filters<'s>(&self, buffer: &'s mut Vec<T>) -> &'s mut [T] {
        let Weights { units, patch, .. } = self.weights;
        let filters = sized(buffer, units * patch);
        for (u, filter) in self.weights.theta.chunks_exact(patch).enumerate() {
            for (k, &w) in filter.iter().enumerate() {
                filters[k * units + u] = w;
            }
        }
        filters
    }

    /// `input` and `out` are `[samples][height][width][channels]`.
    pub fn forward(&self, pass: &Pass<'_>, input: &[T], out: &mut [T], scratch: &mut Scratch<T>) {
        fill_rows(out, self.weights.bias);
        let filters = self.filters(&mut scratch.rows);
        let samples = input.chunks_exact(self.input.elements());
        for (x, y) in samples.zip(out.chunks_exact_mut(self.output.elements())) {
            depthwise(pass.isa, x, self.input.dims(), self.window, filters, y);
        }
    }

    /// Adds to the gradients of the input (where there is one), of the weights and of the bias.
    pub fn backward(
        &self,
        pass: &Pass<'_>,
        input: &[T],
        gradient: &[T],
        mut out: Gradients<'_, T>,
        scratch: &mut Scratch<T>,
    ) {
        let Weights { units, patch, .. } = self.weights;
        out.add_bias(gradient);
        let filters = self.filters(&mut scratch.rows);
        let by = sized(&mut scratch.rows2, filters.len());
        by.fill(T::default());
        let (per_in, per_out) = (self.input.elements(), self.output.elements());
        let samples = input
            .chunks_exact(per_in)
            .zip(gradient.chunks_exact(per_out));
        for (i, (x, g)) in samples.enumerate() {
            let dx: &mut [T] = match out.input.as_deref_mut() {
                Some(dx) => &mut dx[i * per_in..(i + 1) * per_in],
                None => &mut [],
            };
            depthwise_gradient(
                pass.isa,
                x,
                self.input.dims(),
                self.window,
                filters,
                g,
                by,
                dx,
            );
        }
        for (u, theta) in out.theta.chunks_exact_mut(patch).enumerate() {
            for (k, t) in theta.iter_mut().enumerate() {
                *t += by[k * units + u];
            }
        }
    }
}
