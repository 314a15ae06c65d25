//! Forward and backward passes of one shard of a batch.

use std::ops::Range;

use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{Real, add, relu, relu_gradient, sum};

use super::batch::{Batch, StepReport};
use super::program::{Program, Stage, Work};
use crate::layers::Gradients;
use crate::layers::arithmetic::Arithmetic;
use crate::layers::conv::Conv;
use crate::layers::depthwise::DepthwiseConv;
use crate::layers::grouped::GroupedConv;
use crate::layers::lane_map::{LaneMap, Layout, blocks};
use crate::layers::linear::Linear;
use crate::layers::normalise::{Affine, Sums};
use crate::layers::{Aligned, Pass, Saved, Scratch, Weights, arrange, sized};
use crate::state::State;

/// Parameters of the stages, by their places in the state.
pub(super) struct Parameters<'a, T> {
    pub weights: Vec<Weights<'a, T>>,
    pub affine: Vec<Affine<T>>,
    /// Tensors of other nodes.
    pub plain: Vec<&'a [T]>,
}

impl<T> Parameters<'_, T> {
    /// Whether the stage reads and writes vectors of samples, too.
    fn takes_lanes(&self, program: &Program, stage: &Stage) -> bool {
        match stage.work {
            Work::Conv {
                layer, pool: None, ..
            } => self.weights[layer].sparse.is_some(),
            _ => stage.is_elementwise(&program.values),
        }
    }
}

/// A value's buffers, by how it lies.
type Buffers<T> = [Aligned<T>; 2];

/// One shard's buffers.
pub(super) struct Shard<T> {
    values: Vec<Buffers<T>>,
    /// By the places that the program gives them.
    gradients: Vec<Buffers<T>>,
    /// How each value lies, and its gradient.
    layouts: Vec<Layout>,
    /// Which of the gradients have numbers of this pass; the others count as zero.
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
    /// Those that a pass is at: all of them, or a block.
    here: Range<usize>,
    pub report: StepReport,
}

impl<T: Real> Shard<T> {
    /// Without samples yet, and without gradients of parameters where there is no state.
    pub fn new(program: &Program, layouts: &[Layout], state: Option<&State<T>>) -> Self {
        let zeros = |n: usize| vec![T::default(); n];
        let layers = state.map_or(&[][..], |s| &s.layers);
        let plain = state.map_or(&[][..], |s| &s.plain);
        let buffers = |n: usize| (0..n).map(|_| Buffers::default()).collect();
        Self {
            values: buffers(program.values.len()),
            gradients: buffers(program.gradients.iter().max().map_or(0, |last| last + 1)),
            layouts: layouts.to_vec(),
            has_gradient: vec![false; program.values.len()],
            saved: program.stages.iter().map(|_| Saved::default()).collect(),
            scratch: Scratch::default(),
            weight_gradients: vec![[vec![], vec![]]; layers.len()],
            bias_gradients: layers.iter().map(|l| zeros(l.bias.len())).collect(),
            plain_gradients: plain.iter().map(|t| zeros(t.values.len())).collect(),
            sums: Sums::default(),
            samples: 0,
            here: 0..0,
            report: StepReport::default(),
        }
    }

    /// Sizes the values for the samples and fills the network's input.
    pub fn fill(&mut self, program: &Program, fill: impl Fn(usize, &mut [T])) {
        self.here = 0..self.samples;
        for id in 0..self.values.len() {
            let all = self.place(program, id);
            self.values[id][self.layouts[id] as usize].sized(all.end);
        }
        let all = self.place(program, 0);
        let input = self.values[0][Layout::Samples as usize].sized(all.end);
        let images = input.chunks_exact_mut(program.values[0].elements());
        images
            .enumerate()
            .for_each(|(sample, out)| fill(sample, out));
    }

    /// Where the samples that a pass is at lie in the value `id`, and in its gradient.
    fn place(&self, program: &Program, id: usize) -> Range<usize> {
        program.lane_maps[id].place_of(self.layouts[id], &self.here)
    }

    /// The value `id` of the samples that a pass is at.
    pub fn value(&self, program: &Program, id: usize) -> &[T] {
        &self.values[id][self.layouts[id] as usize].read()[self.place(program, id)]
    }

    /// The buffer of a value, to be put back.
    fn take_value(&mut self, id: usize) -> Aligned<T> {
        std::mem::take(&mut self.values[id][self.layouts[id] as usize])
    }

    fn put_value(&mut self, id: usize, buffer: Aligned<T>) {
        self.values[id][self.layouts[id] as usize] = buffer;
    }

    /// The buffer of a gradient, to be put back.
    fn take_gradient(&mut self, program: &Program, id: usize) -> Aligned<T> {
        std::mem::take(self.gradient(program, id))
    }

    fn put_gradient(&mut self, program: &Program, id: usize, buffer: Aligned<T>) {
        *self.gradient(program, id) = buffer;
    }

    fn gradient(&mut self, program: &Program, id: usize) -> &mut Aligned<T> {
        &mut self.gradients[program.gradients[id]][self.layouts[id] as usize]
    }

    /// The values at a stage that lie as vectors where it does not take those.
    fn foreign(
        &self,
        program: &Program,
        stage: &Stage,
        parameters: &Parameters<'_, T>,
    ) -> Vec<usize> {
        if parameters.takes_lanes(program, stage) {
            return vec![];
        }
        let mut all: Vec<usize> = stage.inputs.clone();
        all.push(stage.output);
        all.sort_unstable();
        all.dedup();
        all.retain(|id| self.layouts[*id] == Layout::Lanes);
        all
    }

    /// The pieces of `stages`, in order, and of each whether it runs on one block of samples after the other: stages whose values lie
    /// as vectors do, so that what one writes is in a cache for the next.
    fn pieces(
        &self,
        program: &Program,
        stages: Range<usize>,
        parameters: &Parameters<'_, T>,
    ) -> Vec<(Range<usize>, bool)> {
        let mut pieces: Vec<(Range<usize>, bool)> = vec![];
        for i in stages {
            let by_blocks = self.runs_by_blocks(program, &program.stages[i], parameters);
            match pieces.last_mut() {
                Some((piece, true)) if by_blocks => piece.end = i + 1,
                _ => pieces.push((i..i + 1, by_blocks)),
            }
        }
        pieces
    }

    fn runs_by_blocks(
        &self,
        program: &Program,
        stage: &Stage,
        parameters: &Parameters<'_, T>,
    ) -> bool {
        let mut ends = stage.inputs.iter().chain([&stage.output]);
        parameters.takes_lanes(program, stage) && ends.any(|id| self.layouts[*id] == Layout::Lanes)
    }

    /// Runs some stages, then sums the inputs of the normalisation that comes `next`.
    pub fn forward(
        &mut self,
        program: &Program,
        stages: Range<usize>,
        next: Option<&Stage>,
        parameters: &Parameters<'_, T>,
        pass: &Pass<'_>,
    ) {
        if let Some(next) = next {
            self.sums.clear(program.values[next.output].channels);
        }
        let pieces = self.pieces(program, stages, parameters);
        let mut next = next;
        for (i, (piece, by_blocks)) in pieces.iter().enumerate() {
            let all = 0..self.samples;
            if !by_blocks {
                self.stages_forward(program, piece.clone(), parameters, pass);
                continue;
            }
            let then = if i + 1 == pieces.len() {
                next.take()
            } else {
                None
            };
            for block in blocks(all.len()) {
                self.here = block;
                let pass = pass.of(self.here.len());
                self.stages_forward(program, piece.clone(), parameters, &pass);
                if let Some(next) = then {
                    self.sum_inputs(program, next, &pass);
                }
            }
            self.here = all;
        }
        if let Some(next) = next {
            self.sum_inputs(program, next, pass);
        }
    }

    fn stages_forward(
        &mut self,
        program: &Program,
        stages: Range<usize>,
        parameters: &Parameters<'_, T>,
        pass: &Pass<'_>,
    ) {
        for i in stages {
            let stage = &program.stages[i];
            let foreign = self.foreign(program, stage, parameters);
            for &id in &foreign {
                if id != stage.output {
                    self.lay_out_value(program, id, pass.isa, Layout::Samples);
                }
                self.layouts[id] = Layout::Samples;
            }
            let mut out = self.take_value(stage.output);
            let mut saved = std::mem::take(&mut self.saved[i]);
            let mut scratch = std::mem::take(&mut self.scratch);
            let place = self.place(program, stage.output);
            let y = &mut out.sized(place.end)[place];
            self.stage_forward(
                program,
                stage,
                parameters,
                pass,
                y,
                &mut saved,
                &mut scratch,
            );
            if stage.relu && !stage.work.normalises() {
                relu(pass.isa, y);
            }
            self.put_value(stage.output, out);
            self.saved[i] = saved;
            self.scratch = scratch;
            for id in foreign {
                self.layouts[id] = Layout::Lanes;
                if id == stage.output {
                    self.lay_out_value(program, id, pass.isa, Layout::Lanes);
                }
            }
        }
    }

    /// Copies a value of all samples into the buffer of the other layout.
    fn lay_out_value(&mut self, program: &Program, id: usize, isa: Isa, to: Layout) {
        let map = &program.lane_maps[id];
        lay_out(isa, map, self.samples, &mut self.values[id], to);
    }

    /// As [`Self::lay_out_value`], of a gradient.
    fn lay_out_gradient(&mut self, program: &Program, id: usize, isa: Isa, to: Layout) {
        let map = &program.lane_maps[id];
        let gradient = &mut self.gradients[program.gradients[id]];
        lay_out(isa, map, self.samples, gradient, to);
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
                layouts: [self.layouts[stage.inputs[0]], self.layouts[stage.output]],
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
                let map = program.laid(stage.output, self.layouts[stage.output]);
                affine.scale(pass, map, x, stage.relu, y);
            }
            Work::Function { function, tensors } => {
                let tensors = &parameters.plain[tensors.clone()];
                function.forward(pass, tensors, x, y, [input, output], saved);
            }
            Work::Arithmetic(Arithmetic::Add) if stage.is_elementwise(&program.values) => {
                sum(pass.isa, x, self.value(program, stage.inputs[1]), y);
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

    /// Adds to the sums per channel, for the statistics of a normalisation, those of its input and of the squares.
    fn sum_inputs(&mut self, program: &Program, stage: &Stage, pass: &Pass<'_>) {
        let mut sums = std::mem::take(&mut self.sums);
        let map = program.laid(stage.output, self.layouts[stage.output]);
        sums.add_squares(pass, map, self.value(program, stage.inputs[0]));
        self.sums = sums;
    }

    /// Adds to the sums per channel, for the gradient through a normalisation, those of the gradient by its output, which a fused
    /// ReLU masks here, and of its products with the input.
    fn sum_gradients(&mut self, program: &Program, stage: &Stage, pass: &Pass<'_>) {
        let mut sums = std::mem::take(&mut self.sums);
        self.begin_gradient(program, stage.output);
        let mut gradient = self.take_gradient(program, stage.output);
        let x = self.value(program, stage.inputs[0]);
        let y = stage.relu.then(|| self.value(program, stage.output));
        let map = program.laid(stage.output, self.layouts[stage.output]);
        let place = self.place(program, stage.output);
        let g = &mut gradient.sized(place.end)[place];
        sums.add_gradients(pass, map, y, g, x);
        self.put_gradient(program, stage.output, gradient);
        self.sums = sums;
    }

    /// The loss of the shard, whose samples begin at `first` of the batch, and its gradient by the outputs.
    pub fn loss(&mut self, program: &Program, batch: &Batch<'_, T>, first: usize) {
        for id in 0..program.values.len() {
            // Zeros are written when they are needed, so that they are in a cache then, or never.
            let all = self.place(program, id);
            self.gradient(program, id).sized(all.end);
        }
        self.has_gradient.fill(false);
        self.has_gradient[program.output] = true;
        (self.weight_gradients.iter_mut().flatten())
            .chain(&mut self.bias_gradients)
            .chain(&mut self.plain_gradients)
            .for_each(|g| g.fill(T::default()));
        let len = program.values[program.output].elements();
        let mut gradient = self.take_gradient(program, program.output);
        let outputs = self.value(program, program.output);
        let gradients = gradient.sized(outputs.len()).chunks_exact_mut(len);
        let mut report = StepReport::default();
        for (i, (outputs, gradient)) in outputs.chunks_exact(len).zip(gradients).enumerate() {
            let sample = first + i;
            let teacher = batch.teacher.map(|t| &t[sample * len..(sample + 1) * len]);
            let of_sample = batch.objective.differentiate(
                outputs,
                batch.targets.get(sample),
                teacher,
                1.0 / batch.samples as f64,
                gradient,
            );
            report.loss += of_sample.loss;
            report.objective += of_sample.objective;
            report.error += of_sample.error;
        }
        self.report = report;
        self.put_gradient(program, program.output, gradient);
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
            let all = 0..self.samples;
            if !by_blocks {
                self.stages_backward(program, piece.clone(), parameters, pass);
                continue;
            }
            let then = if i == 0 { before.take() } else { None };
            let has_gradient = self.has_gradient.clone();
            for block in blocks(all.len()) {
                self.here = block;
                self.has_gradient.copy_from_slice(&has_gradient);
                let pass = pass.of(self.here.len());
                self.stages_backward(program, piece.clone(), parameters, &pass);
                if let Some(before) = then {
                    self.sum_gradients(program, before, &pass);
                }
            }
            self.here = all;
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
            let foreign = self.foreign(program, stage, parameters);
            for &id in &foreign {
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
                _ => self.stage_backward(program, i, parameters, pass, g),
            }
            self.put_gradient(program, stage.output, gradient);
            for id in foreign {
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
        if let Work::Normalise(place) | Work::Affine(place) = stage.work {
            let x = self.value(program, stage.inputs[0]);
            let map = program.laid(stage.output, self.layouts[stage.output]);
            parameters.affine[place].backward(pass, map, g, x);
        }
        let mut in_place = program.in_place(stage);
        // The gradient by the network's input has no consumer.
        for &id in stage.inputs.iter().filter(|id| **id != 0) {
            let has_gradient = std::mem::replace(&mut self.has_gradient[id], true);
            if in_place.take_if(|i| *i == id).is_some() {
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
        let gradient = &mut self.gradients[program.gradients[id]][layouts[0] as usize];
        let dx = (id != 0).then(|| &mut gradient.sized(here.end)[here]);
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

/// Copies a value, or a gradient, into the buffer of the other layout.
fn lay_out<T: Real>(
    isa: Isa,
    map: &LaneMap,
    samples: usize,
    [by_samples, by_lanes]: &mut Buffers<T>,
    to: Layout,
) {
    let all = by_samples.sized(map.place_of(Layout::Samples, &(0..samples)).end);
    let vectors = by_lanes.sized(map.place_of(Layout::Lanes, &(0..samples)).end);
    for block in blocks(samples) {
        let samples = &mut all[map.place_of(Layout::Samples, &block)];
        let vectors = &mut vectors[map.place_of(Layout::Lanes, &block)];
        match to {
            Layout::Samples => map.unpack(isa, vectors, samples, false),
            Layout::Lanes => map.pack(isa, samples, vectors),
        }
    }
}
