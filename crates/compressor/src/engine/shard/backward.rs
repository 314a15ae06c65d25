//! Backward passes of a shard.

use std::ops::Range;

use sparsevd_kernels::training::{Real, add, relu_gradient, round_to_bytes_gradient};

use super::{Parameters, Shard};
use crate::engine::program::{Program, Stage, Work};
use crate::layers::arithmetic::Arithmetic;
use crate::layers::attention::Attention;
use crate::layers::conv::Conv;
use crate::layers::depthwise::DepthwiseConv;
use crate::layers::grouped::GroupedConv;
use crate::layers::lane_map::Layout;
use crate::layers::linear::Linear;
use crate::layers::{Gradients, Pass, arrange, sized};

impl<T: Real> Shard<T> {
    /// Adds to the sums per channel, for the gradient through a normalisation, those of the gradient by its output, which a fused
    /// ReLU masks here, and of its products with the input.
    fn sum_gradients(&mut self, program: &Program, stage: &Stage, pass: &Pass<'_>) {
        let mut sums = std::mem::take(&mut self.sums);
        self.begin_gradient(program, stage.output);
        let mut gradient = self.take_gradient(program, stage.output);
        let x = self.value(program, stage.inputs[0]);
        let y = stage.relu.then(|| self.value(program, stage.output));
        let map = program.lane_map_if(stage.output, self.layouts[stage.output]);
        let place = self.place(program, stage.output);
        let g = &mut gradient.sized(place.end)[place];
        sums.add_gradients(pass, map, y, g, x);
        self.put_gradient(program, stage.output, gradient);
        self.sums = sums;
    }

    /// Sets the gradient of a value to zero where nothing was added to it yet.
    fn begin_gradient(&mut self, program: &Program, id: usize) {
        if !std::mem::replace(&mut self.has_gradient[id], true) {
            let place = self.place(program, id);
            let gradient = self.gradient(program, id).sized(place.end);
            gradient[place].fill(T::default());
        }
    }

    /// Runs some stages backward, the last first, then sums the gradients by the outputs of the normalisation that is `before`.
    pub fn backward(
        &mut self,
        program: &Program,
        stages: Range<usize>,
        before: Option<&Stage>,
        parameters: &Parameters<'_, T>,
        pass: &Pass<'_>,
    ) {
        if let Some(before) = before {
            self.sums.clear(program.values[before.output].channels);
        }
        let pieces = self.pieces(program, stages, parameters);
        let mut before = before;
        for (i, (piece, by_blocks)) in pieces.iter().enumerate().rev() {
            if !by_blocks {
                self.stages_backward(program, piece.clone(), parameters, pass);
                continue;
            }
            let then = if i == 0 { before.take() } else { None };
            // Each block begins with the gradients that the piece begins with.
            let has_gradient = self.has_gradient.clone();
            self.by_blocks(pass, |shard, pass| {
                shard.has_gradient.copy_from_slice(&has_gradient);
                shard.stages_backward(program, piece.clone(), parameters, pass);
                if let Some(before) = then {
                    shard.sum_gradients(program, before, pass);
                }
            });
        }
        if let Some(before) = before {
            self.sum_gradients(program, before, pass);
        }
    }

    fn stages_backward(
        &mut self,
        program: &Program,
        stages: Range<usize>,
        parameters: &Parameters<'_, T>,
        pass: &Pass<'_>,
    ) {
        for i in stages.rev() {
            let stage = &program.stages[i];
            self.begin_gradient(program, stage.output);
            let as_samples = self.needing_samples(program, stage, parameters);
            for &id in &as_samples {
                // The values lie as samples since the forward pass.
                if self.has_gradient[id] {
                    self.lay_out_gradient(program, id, pass.isa, Layout::Samples);
                }
                self.layouts[id] = Layout::Samples;
            }
            let mut gradient = self.take_gradient(program, stage.output);
            let place = self.place(program, stage.output);
            let g = &mut gradient.sized(place.end)[place];
            // Before a normalisation its sums were made, and the mask with them.
            if stage.relu && !matches!(stage.work, Work::Normalise(_)) {
                relu_gradient(pass.isa, self.value(program, stage.output), g);
            }
            match &stage.work {
                _ if stage.is_elementwise(&program.values) => {
                    self.elementwise_backward(program, stage, parameters, g, pass);
                }
                Work::Arithmetic(arithmetic) => {
                    self.arithmetic_backward(program, *arithmetic, &stage.inputs, g);
                }
                Work::Concat => self.concat_backward(program, &stage.inputs, g),
                Work::Attention { heads } => {
                    self.attention_backward(program, *heads, &stage.inputs, g, pass);
                }
                _ => self.stage_backward(program, i, parameters, pass, g),
            }
            self.put_gradient(program, stage.output, gradient);
            for id in as_samples {
                self.layouts[id] = Layout::Lanes;
                if id != stage.output && self.has_gradient[id] {
                    self.lay_out_gradient(program, id, pass.isa, Layout::Lanes);
                }
            }
        }
    }

    /// The gradient by the output becomes that by an input, where they lie at the same place, and goes to the others.
    fn elementwise_backward(
        &mut self,
        program: &Program,
        stage: &Stage,
        parameters: &Parameters<'_, T>,
        g: &mut [T],
        pass: &Pass<'_>,
    ) {
        if stage.inputs[0] != 0 {
            let x = self.value(program, stage.inputs[0]);
            match stage.work {
                Work::Normalise(place) | Work::Affine(place) => {
                    let map = program.lane_map_if(stage.output, self.layouts[stage.output]);
                    parameters.affine[place].backward(pass, map, g, x);
                }
                Work::Round(grid) => {
                    round_to_bytes_gradient(pass.isa, x, grid.scale, grid.zero_point, g);
                }
                _ => {}
            }
        }
        let own = program.gradient_buffers[stage.output];
        // The gradient by the network's input has no consumer.
        for &id in stage.inputs.iter().filter(|id| **id != 0) {
            let has_gradient = std::mem::replace(&mut self.has_gradient[id], true);
            if program.gradient_buffers[id] == own {
                continue;
            }
            let place = self.place(program, id);
            let d = &mut self.gradient(program, id).sized(place.end)[place];
            match has_gradient {
                true => add(pass.isa, g, d),
                false => d.copy_from_slice(g),
            }
        }
    }

    fn arithmetic_backward(
        &mut self,
        program: &Program,
        arithmetic: Arithmetic,
        inputs: &[usize],
        g: &[T],
    ) {
        let [first, second] = [inputs[0], inputs[1]];
        let sizes = [program.values[first], program.values[second]];
        for (place, id) in [first, second].into_iter().enumerate() {
            // The gradient by the network's input has no consumer.
            if id == 0 {
                continue;
            }
            self.begin_gradient(program, id);
            let mut gradient = self.take_gradient(program, id);
            let (a, b) = (self.value(program, first), self.value(program, second));
            let here = self.place(program, id);
            let d = &mut gradient.sized(here.end)[here];
            match place {
                0 => arithmetic.first_backward(g, [a, b], sizes, d),
                _ => arithmetic.second_backward(g, [a, b], sizes, d),
            }
            self.put_gradient(program, id, gradient);
        }
    }

    fn concat_backward(&mut self, program: &Program, inputs: &[usize], g: &[T]) {
        let all: usize = inputs.iter().map(|i| program.values[*i].channels).sum();
        let mut at = 0;
        for &id in inputs {
            let size = program.values[id];
            if id != 0 {
                self.begin_gradient(program, id);
                let place = self.place(program, id);
                let d = &mut self.gradient(program, id).sized(place.end)[place];
                arrange::take_channels(g, all, at, d, size.channels);
            }
            at += size.channels;
        }
    }

    fn attention_backward(
        &mut self,
        program: &Program,
        heads: usize,
        inputs: &[usize],
        g: &[T],
        pass: &Pass<'_>,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let size = program.values[inputs[0]];
        let values = [0, 1, 2].map(|i| self.value(program, inputs[i]));
        let gradients = Attention { heads, size }.backward(values, g, &mut scratch);
        for (&id, gradient) in inputs.iter().zip(gradients) {
            // The gradient by the network's input has no consumer.
            if id != 0 {
                self.begin_gradient(program, id);
                let place = self.place(program, id);
                let d = &mut self.gradient(program, id).sized(place.end)[place];
                add(pass.isa, gradient, d);
            }
        }
        self.scratch = scratch;
    }

    fn stage_backward(
        &mut self,
        program: &Program,
        place: usize,
        parameters: &Parameters<'_, T>,
        pass: &Pass<'_>,
        g: &[T],
    ) {
        let stage = &program.stages[place];
        let id = stage.inputs[0];
        let (input, output) = (program.values[id], program.values[stage.output]);
        // The gradient of the input is there, or the stage writes it.
        let is_first = !self.has_gradient[id];
        if is_first && id != 0 && !matches!(stage.work, Work::Conv { .. }) {
            self.begin_gradient(program, id);
        }
        self.has_gradient[id] = true;
        let layouts = [self.layouts[id], self.layouts[stage.output]];
        let here = self.place(program, id);
        let x = &self.values[id][layouts[0] as usize].read()[here.clone()];
        let (saved, scratch) = (&mut self.saved[place], &mut self.scratch);
        // The gradient by the network's input has no consumer.
        let dx = program.gradient_buffers[id].map(|buffer| {
            let gradient = &mut self.gradients[buffer][layouts[0] as usize];
            &mut gradient.sized(here.end)[here]
        });
        if let Work::Linear {
            layer,
            vectors,
            gather,
        } = &stage.work
        {
            let linear = Linear {
                weights: parameters.weights[*layer],
                layer: *layer,
                vectors: *vectors,
                gather,
            };
            let by_bias = &mut self.bias_gradients[*layer];
            linear.backward(pass, g, saved, dx, by_bias, scratch);
            return;
        }
        if let Some(layer) = stage.work.layer() {
            let weights = parameters.weights[layer];
            let [theta, sigma2] = &mut self.weight_gradients[layer];
            let (theta, sigma2) = (
                sized(theta, weights.theta.len()),
                sized(sigma2, weights.sigma2.len()),
            );
            let out = Gradients {
                input: dx,
                is_first,
                theta,
                sigma2,
                bias: &mut self.bias_gradients[layer],
            };
            match &stage.work {
                Work::Conv { window, pool, .. } => Conv {
                    weights,
                    layer,
                    window,
                    pool: pool.as_ref(),
                    input,
                    output,
                    layouts,
                }
                .backward(pass, x, g, saved, out, scratch),
                Work::GroupedConv { window, groups, .. } => GroupedConv {
                    weights,
                    layer,
                    window,
                    groups: *groups,
                    input,
                    output,
                }
                .backward(pass, g, saved, out, scratch),
                Work::DepthwiseConv { window, .. } => DepthwiseConv {
                    weights,
                    window,
                    input,
                    output,
                }
                .backward(pass, x, g, out, scratch),
                _ => unreachable!("the other stages have no weights"),
            }
            return;
        }
        let Work::Function { function, tensors } = &stage.work else {
            unreachable!("elementwise stages and those of several inputs are done");
        };
        let by_tensors = &mut self.plain_gradients[tensors.clone()];
        let tensors = &parameters.plain[tensors.clone()];
        let sizes = [input, output];
        function.backward(pass, tensors, x, g, sizes, saved, dx, by_tensors);
    }
}
