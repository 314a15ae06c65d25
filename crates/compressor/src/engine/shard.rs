//! Forward and backward passes of one shard of a batch.

use std::ops::Range;

use sparsevd_kernels::training::{
    Real, add, add_channel_gradient, channel_sums, relu, relu_gradient, scale_channels,
};

use super::batch::{Batch, StepReport};
use super::lower::{Program, Stage, Work};
use crate::layers::Gradients;
use crate::layers::arithmetic::Arithmetic;
use crate::layers::conv::Conv;
use crate::layers::depthwise::DepthwiseConv;
use crate::layers::grouped::GroupedConv;
use crate::layers::linear::Linear;
use crate::layers::normalise::{Affine, Sums};
use crate::layers::{Pass, Saved, Scratch, Weights, arrange, sized};
use crate::state::State;

/// Parameters of the stages, by their places in the state.
pub(super) struct Parameters<'a, T> {
    pub weights: Vec<Weights<'a, T>>,
    pub affine: Vec<Affine<T>>,
    /// Tensors of other nodes.
    pub plain: Vec<&'a [T]>,
}

/// One shard's buffers.
pub(super) struct Shard<T> {
    pub values: Vec<Vec<T>>,
    gradients: Vec<Vec<T>>,
    /// Which of them have numbers of this pass; the others count as zero.
    has_gradient: Vec<bool>,
    pub saved: Vec<Saved<T>>,
    scratch: Scratch<T>,
    /// Of convolutions: by theta and by sigma^2. Those of linear layers are computed over the whole batch.
    pub weight_gradients: Vec<[Vec<T>; 2]>,
    pub bias_gradients: Vec<Vec<T>>,
    /// By the tensors of other nodes.
    pub plain_gradients: Vec<Vec<T>>,
    /// Of the normalisation that comes next.
    pub sums: Sums,
    pub samples: usize,
    pub report: StepReport,
}

impl<T: Real> Shard<T> {
    /// Without samples yet, and without gradients of parameters where there is no state.
    pub fn new(program: &Program, state: Option<&State<T>>) -> Self {
        let zeros = |n: usize| vec![T::default(); n];
        let layers = state.map_or(&[][..], |s| &s.layers);
        let plain = state.map_or(&[][..], |s| &s.plain);
        Self {
            values: vec![vec![]; program.values.len()],
            gradients: vec![vec![]; program.values.len()],
            has_gradient: vec![false; program.values.len()],
            saved: vec![Saved::default(); program.stages.len()],
            scratch: Scratch::default(),
            weight_gradients: vec![[vec![], vec![]]; layers.len()],
            bias_gradients: layers.iter().map(|l| zeros(l.bias.len())).collect(),
            plain_gradients: plain.iter().map(|t| zeros(t.values.len())).collect(),
            sums: Sums::default(),
            samples: 0,
            report: StepReport::default(),
        }
    }

    /// Sizes the values for the samples and fills the network's input.
    pub fn fill(&mut self, program: &Program, fill: impl Fn(usize, &mut [T])) {
        for (value, size) in self.values.iter_mut().zip(&program.values) {
            sized(value, self.samples * size.elements());
        }
        let input = program.values[0].elements();
        let images = self.values[0][..self.samples * input].chunks_exact_mut(input);
        images
            .enumerate()
            .for_each(|(sample, out)| fill(sample, out));
    }

    /// The value `id` of all samples.
    fn value(&self, program: &Program, id: usize) -> &[T] {
        &self.values[id][..self.samples * program.values[id].elements()]
    }

    /// Runs some stages.
    pub fn forward(
        &mut self,
        program: &Program,
        stages: Range<usize>,
        parameters: &Parameters<'_, T>,
        pass: &Pass<'_>,
    ) {
        for i in stages {
            let stage = &program.stages[i];
            let mut out = std::mem::take(&mut self.values[stage.output]);
            let mut saved = std::mem::take(&mut self.saved[i]);
            let mut scratch = std::mem::take(&mut self.scratch);
            let y = &mut out[..self.samples * program.values[stage.output].elements()];
            self.stage_forward(
                program,
                stage,
                parameters,
                pass,
                y,
                &mut saved,
                &mut scratch,
            );
            if stage.relu {
                relu(pass.isa, y);
            }
            self.values[stage.output] = out;
            self.saved[i] = saved;
            self.scratch = scratch;
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a stage and its buffers")]
    fn stage_forward(
        &self,
        program: &Program,
        stage: &Stage,
        parameters: &Parameters<'_, T>,
        pass: &Pass<'_>,
        y: &mut [T],
        saved: &mut Saved<T>,
        scratch: &mut Scratch<T>,
    ) {
        let (input, output) = (
            program.values[stage.inputs[0]],
            program.values[stage.output],
        );
        let x = self.value(program, stage.inputs[0]);
        let weights = |layer: usize| parameters.weights[layer];
        match &stage.work {
            Work::Linear {
                layer,
                vectors,
                gather,
            } => Linear {
                weights: weights(*layer),
                layer: *layer,
                vectors: *vectors,
                gather,
            }
            .forward(pass, x, y, saved, scratch),
            Work::Conv {
                layer,
                window,
                pool,
            } => Conv {
                weights: weights(*layer),
                layer: *layer,
                window,
                pool: pool.as_ref(),
                input,
                output,
            }
            .forward(pass, x, y, saved, scratch),
            Work::GroupedConv {
                layer,
                window,
                groups,
            } => GroupedConv {
                weights: weights(*layer),
                layer: *layer,
                window,
                groups: *groups,
                input,
                output,
            }
            .forward(pass, x, y, saved, scratch),
            Work::DepthwiseConv { layer, window } => DepthwiseConv {
                weights: weights(*layer),
                window,
                input,
                output,
            }
            .forward(pass, x, y, scratch),
            Work::Normalise(place) | Work::Affine(place) => {
                let affine = &parameters.affine[*place];
                scale_channels(pass.isa, x, &affine.factor, &affine.summand, y);
            }
            Work::Function { function, tensors } => {
                let tensors = &parameters.plain[tensors.clone()];
                function.forward(pass, tensors, x, y, [input, output], saved);
            }
            Work::Arithmetic(Arithmetic::Add) if program.values[stage.inputs[1]] == input => {
                y.copy_from_slice(x);
                add(pass.isa, self.value(program, stage.inputs[1]), y);
            }
            Work::Arithmetic(arithmetic) => {
                let b = self.value(program, stage.inputs[1]);
                let second = program.values[stage.inputs[1]];
                arithmetic.forward([x, b], [input, second], y);
            }
            Work::Concat => {
                let mut at = 0;
                for &id in &stage.inputs {
                    let channels = program.values[id].channels;
                    let x = self.value(program, id);
                    arrange::place_channels(x, channels, y, output.channels, at);
                    at += channels;
                }
            }
        }
    }

    /// Sums per channel, for the statistics of a normalisation: of its input and of the squares.
    pub fn sum_inputs(&mut self, program: &Program, stage: &Stage, pass: &Pass<'_>) {
        let mut sums = std::mem::take(&mut self.sums);
        sums.clear(program.values[stage.output].channels);
        let x = self.value(program, stage.inputs[0]);
        channel_sums(pass.isa, x, x, &mut sums.values, &mut sums.products);
        self.sums = sums;
    }

    /// Sums per channel, for the gradient through a normalisation: of that by its output, which a fused ReLU masks here, and
    /// of its products with the input.
    pub fn sum_gradients(&mut self, program: &Program, stage: &Stage, pass: &Pass<'_>) {
        let mut sums = std::mem::take(&mut self.sums);
        sums.clear(program.values[stage.output].channels);
        self.begin_gradient(stage.output);
        let mut gradient = std::mem::take(&mut self.gradients[stage.output]);
        let x = self.value(program, stage.inputs[0]);
        let g = &mut gradient[..x.len()];
        if stage.relu {
            relu_gradient(pass.isa, self.value(program, stage.output), g);
        }
        channel_sums(pass.isa, g, x, &mut sums.values, &mut sums.products);
        (self.gradients[stage.output], self.sums) = (gradient, sums);
    }

    /// The loss of the shard, whose samples begin at `first` of the batch, and its gradient by the outputs.
    pub fn loss(&mut self, program: &Program, batch: &Batch<'_, T>, first: usize) {
        for (gradient, size) in self.gradients.iter_mut().zip(&program.values) {
            // Zeros are written when they are needed, so that they are in a cache then, or never.
            sized(gradient, self.samples * size.elements());
        }
        self.has_gradient.fill(false);
        self.has_gradient[program.output] = true;
        (self.bias_gradients.iter_mut())
            .chain(&mut self.plain_gradients)
            .for_each(|g| g.fill(T::default()));
        let len = program.values[program.output].elements();
        let outputs = self.values[program.output].chunks_exact(len);
        let gradients = self.gradients[program.output].chunks_exact_mut(len);
        self.report = StepReport::default();
        for (i, (outputs, gradient)) in outputs.zip(gradients).take(self.samples).enumerate() {
            let sample = first + i;
            let teacher = batch.teacher.map(|t| &t[sample * len..(sample + 1) * len]);
            let of_sample = batch.objective.differentiate(
                outputs,
                batch.targets.get(sample),
                teacher,
                1.0 / batch.samples as f64,
                gradient,
            );
            self.report.loss += of_sample.loss;
            self.report.objective += of_sample.objective;
            self.report.error += of_sample.error;
        }
    }

    /// Sets the gradient of a value to zero where nothing was added to it yet.
    fn begin_gradient(&mut self, id: usize) {
        if !std::mem::replace(&mut self.has_gradient[id], true) {
            self.gradients[id].fill(T::default());
        }
    }

    /// Runs some stages backward, the last first.
    pub fn backward(
        &mut self,
        program: &Program,
        stages: Range<usize>,
        parameters: &Parameters<'_, T>,
        pass: &Pass<'_>,
    ) {
        for i in stages.rev() {
            let stage = &program.stages[i];
            self.begin_gradient(stage.output);
            let mut gradient = std::mem::take(&mut self.gradients[stage.output]);
            let g = &mut gradient[..self.samples * program.values[stage.output].elements()];
            // Before a normalisation its sums were made, and the mask with them.
            if stage.relu && !matches!(stage.work, Work::Normalise(_)) {
                relu_gradient(pass.isa, self.value(program, stage.output), g);
            }
            match &stage.work {
                Work::Arithmetic(arithmetic) => {
                    self.arithmetic_backward(program, *arithmetic, &stage.inputs, g, pass);
                }
                Work::Concat => self.concat_backward(program, &stage.inputs, g),
                _ => self.stage_backward(program, i, parameters, pass, g),
            }
            self.gradients[stage.output] = gradient;
        }
    }

    fn arithmetic_backward(
        &mut self,
        program: &Program,
        arithmetic: Arithmetic,
        inputs: &[usize],
        g: &[T],
        pass: &Pass<'_>,
    ) {
        let [first, second] = [inputs[0], inputs[1]];
        let sizes = [program.values[first], program.values[second]];
        let plain = arithmetic == Arithmetic::Add && sizes[0] == sizes[1];
        for (place, id) in [first, second].into_iter().enumerate() {
            // The gradient by the network's input has no consumer.
            if id == 0 {
                continue;
            }
            let is_first = plain && !std::mem::replace(&mut self.has_gradient[id], true);
            if !is_first {
                self.begin_gradient(id);
            }
            let mut gradient = std::mem::take(&mut self.gradients[id]);
            let (a, b) = (self.value(program, first), self.value(program, second));
            let d = &mut gradient[..self.samples * program.values[id].elements()];
            match place {
                _ if is_first => d.copy_from_slice(g),
                _ if plain => add(pass.isa, g, d),
                0 => arithmetic.first_backward(g, [a, b], sizes, d),
                _ => arithmetic.second_backward(g, [a, b], sizes, d),
            }
            self.gradients[id] = gradient;
        }
    }

    fn concat_backward(&mut self, program: &Program, inputs: &[usize], g: &[T]) {
        let all: usize = inputs.iter().map(|i| program.values[*i].channels).sum();
        let mut at = 0;
        for &id in inputs {
            let size = program.values[id];
            if id != 0 {
                self.begin_gradient(id);
                let d = &mut self.gradients[id][..self.samples * size.elements()];
                arrange::take_channels(g, all, at, d, size.channels);
            }
            at += size.channels;
        }
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
            self.begin_gradient(id);
        }
        self.has_gradient[id] = true;
        let x = &self.values[id][..self.samples * input.elements()];
        let (saved, scratch) = (&mut self.saved[place], &mut self.scratch);
        // The gradient by the network's input has no consumer.
        let dx = (id != 0).then(|| &mut self.gradients[id][..x.len()]);
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
            theta.fill(T::default());
            sigma2.fill(T::default());
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
        if let Work::Function { function, tensors } = &stage.work {
            let by_tensors = &mut self.plain_gradients[tensors.clone()];
            let tensors = &parameters.plain[tensors.clone()];
            let sizes = [input, output];
            function.backward(pass, tensors, x, g, sizes, saved, dx, by_tensors);
            return;
        }
        let Some(dx) = dx else { return };
        match &stage.work {
            Work::Normalise(place) | Work::Affine(place) => {
                let affine = &parameters.affine[*place];
                let [by_g, by_x, constant] = [&affine.by_g, &affine.by_x, &affine.constant];
                add_channel_gradient(pass.isa, g, x, by_g, by_x, constant, dx);
            }
            _ => unreachable!("stages with weights or several inputs are done"),
        }
    }
}
