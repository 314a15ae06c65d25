//! Convolutions of several groups of channels: each group is a convolution of its own on a copy of its channels.

use sparsevd_kernels::training::Real;
use sparsevd_model::Window;

use super::Gradients;
use super::arrange::{place_channels, take_channels};
use super::conv::Conv;
use super::lane_map::Layout;
use super::size::MapSize;
use super::{Pass, Saved, Scratch, Weights, sized};

pub(crate) struct GroupedConv<'a, T> {
    /// Of all groups.
    pub weights: Weights<'a, T>,
    pub layer: usize,
    pub window: &'a Window,
    pub groups: usize,
    pub input: MapSize,
    pub output: MapSize,
}

impl<T: Real> GroupedConv<'_, T> {
    /// The convolution of one group.
    fn part(&self, group: usize) -> Conv<'_, T> {
        let units = self.weights.units / self.groups;
        let rows = group * units * self.weights.patch..(group + 1) * units * self.weights.patch;
        let sigma2 = self.weights.sigma2;
        Conv {
            weights: Weights {
                theta: &self.weights.theta[rows.clone()],
                bias: &self.weights.bias[group * units..(group + 1) * units],
                sigma2: if sigma2.is_empty() {
                    sigma2
                } else {
                    &sigma2[rows]
                },
                units,
                patch: self.weights.patch,
                sparse: None,
            },
            // Groups draw noise of their own, as if they were layers beyond any network's number of them.
            layer: self.layer | group << 16,
            window: self.window,
            pool: None,
            layouts: [Layout::Samples; 2],
            input: MapSize {
                channels: self.input.channels / self.groups,
                ..self.input
            },
            output: MapSize {
                channels: units,
                ..self.output
            },
        }
    }

    /// `input` and `out` are `[samples][height][width][channels]`.
    pub fn forward(
        &self,
        pass: &Pass<'_>,
        input: &[T],
        out: &mut [T],
        saved: &mut Saved<T>,
        scratch: &mut Scratch<T>,
    ) {
        saved.groups.resize_with(self.groups, Saved::default);
        let mut buffer = std::mem::take(&mut scratch.part);
        for (group, saved) in saved.groups.iter_mut().enumerate() {
            let part = self.part(group);
            let channels = part.input.channels;
            let mut x = std::mem::take(&mut saved.x);
            let here = sized(&mut x, pass.samples * part.input.elements());
            here.fill(T::default());
            take_channels(input, self.input.channels, group * channels, here, channels);
            let y = sized(&mut buffer, pass.samples * part.output.elements());
            part.forward(pass, here, y, saved, scratch);
            let units = part.weights.units;
            place_channels(y, units, out, self.output.channels, group * units);
            saved.x = x;
        }
        scratch.part = buffer;
    }

    /// Adds to the gradients of the input (where there is one), of the weights and of the bias.
    pub fn backward(
        &self,
        pass: &Pass<'_>,
        gradient: &[T],
        saved: &Saved<T>,
        mut out: Gradients<'_, T>,
        scratch: &mut Scratch<T>,
    ) {
        let (mut g, mut dx) = (
            std::mem::take(&mut scratch.part),
            std::mem::take(&mut scratch.part_input),
        );
        for (group, saved) in saved.groups.iter().enumerate() {
            let part = self.part(group);
            let (channels, units) = (part.input.channels, part.weights.units);
            let rows = group * units * part.weights.patch..(group + 1) * units * part.weights.patch;
            let g = sized(&mut g, pass.samples * part.output.elements());
            g.fill(T::default());
            take_channels(gradient, self.output.channels, group * units, g, units);
            let x = &saved.x[..pass.samples * part.input.elements()];
            let dx = sized(&mut dx, x.len());
            let by_sigma2 = if out.sigma2.is_empty() {
                &mut []
            } else {
                &mut out.sigma2[rows.clone()]
            };
            let gradients = Gradients {
                input: out.input.is_some().then_some(&mut *dx),
                is_first: true,
                theta: &mut out.theta[rows],
                sigma2: by_sigma2,
                bias: &mut out.bias[group * units..(group + 1) * units],
            };
            part.backward(pass, x, g, saved, gradients, scratch);
            if let Some(input) = out.input.as_deref_mut() {
                // The groups' channels are apart, so each gets its gradient once.
                let all = self.input.channels;
                for (dx, input) in dx.chunks_exact(channels).zip(input.chunks_exact_mut(all)) {
                    for (input, &dx) in input[group * channels..].iter_mut().zip(dx) {
                        *input += dx;
                    }
                }
            }
        }
        (scratch.part, scratch.part_input) = (g, dx);
    }
}
