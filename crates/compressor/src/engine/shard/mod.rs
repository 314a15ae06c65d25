//! Forward and backward passes of one shard of a batch, and its buffers.

mod backward;
mod forward;

use std::ops::Range;

use sparsevd_kernels::Isa;
use sparsevd_kernels::training::Real;

use super::batch::{Batch, StepReport};
use super::program::{Program, Stage};
use crate::layers::lane_map::{LaneMap, Layout, blocks};
use crate::layers::normalise::{Affine, Sums};
use crate::layers::{Aligned, Pass, Saved, Scratch, Weights};
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
        stage.takes_lanes(&program.values, |layer| {
            self.weights[layer].sparse.is_some()
        })
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
        let last = program.gradient_buffers.iter().flatten().max();
        let buffers = |n: usize| (0..n).map(|_| Buffers::default()).collect();
        Self {
            values: buffers(program.values.len()),
            gradients: buffers(last.map_or(0, |last| last + 1)),
            layouts: layouts.to_vec(),
            has_gradient: vec![false; program.values.len()],
            saved: program.stages.iter().map(|_| Saved::default()).collect(),
            scratch: Scratch::default(),
            weight_gradients: vec![[vec![], vec![]]; layers.len()],
            bias_gradients: layers.iter().map(|l| zeros(l.bias.len())).collect(),
            plain_gradients: plain.iter().map(|t| zeros(t.gradient_len())).collect(),
            sums: Sums::default(),
            samples: 0,
            here: 0..0,
            report: StepReport::default(),
        }
    }

    /// Takes the program of the same graph at another length.
    pub fn set_program(&mut self, program: &Program, layouts: &[Layout]) {
        let last = program.gradient_buffers.iter().flatten().max();
        let buffers = last.map_or(0, |last| last + 1).max(self.gradients.len());
        self.gradients.resize_with(buffers, Buffers::default);
        self.layouts = layouts.to_vec();
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

    /// Of a value but the network's input.
    fn gradient_buffers(&mut self, program: &Program, id: usize) -> &mut Buffers<T> {
        let place = program.gradient_buffers[id];
        &mut self.gradients[place.expect("the network's input has no gradient")]
    }

    fn gradient(&mut self, program: &Program, id: usize) -> &mut Aligned<T> {
        let layout = self.layouts[id];
        &mut self.gradient_buffers(program, id)[layout as usize]
    }

    /// The values at a stage that lie as vectors where it does not take those.
    fn needing_samples(
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

    /// Calls `run` on one block of samples after the other.
    fn by_blocks(&mut self, pass: &Pass<'_>, mut run: impl FnMut(&mut Self, &Pass<'_>)) {
        for block in blocks(self.samples) {
            self.here = block;
            let pass = pass.of(self.here.len());
            run(self, &pass);
        }
        self.here = 0..self.samples;
    }

    /// Copies a value of all samples into the buffer of the other layout.
    fn lay_out_value(&mut self, program: &Program, id: usize, isa: Isa, to: Layout) {
        let map = &program.lane_maps[id];
        lay_out(isa, map, self.samples, &mut self.values[id], to);
    }

    /// As [`Self::lay_out_value`], of a gradient.
    fn lay_out_gradient(&mut self, program: &Program, id: usize, isa: Isa, to: Layout) {
        let map = &program.lane_maps[id];
        let samples = self.samples;
        lay_out(isa, map, samples, self.gradient_buffers(program, id), to);
    }

    /// The loss of the shard, whose samples begin at `first` of the batch, and its gradient by the outputs.
    pub fn loss(&mut self, program: &Program, batch: &Batch<'_, T>, first: usize) {
        for id in 1..program.values.len() {
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
