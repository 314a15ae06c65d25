//! Forward passes of a shard.

use std::ops::Range;

use sparsevd_kernels::training::{Real, relu, round_to_bytes, sum};

use super::{Parameters, Shard};
use crate::engine::program::{Program, Stage, Work};
use crate::layers::arithmetic::Arithmetic;
use crate::layers::attention::Attention;
use crate::layers::conv::Conv;
use crate::layers::depthwise::DepthwiseConv;
use crate::layers::grouped::GroupedConv;
use crate::layers::lane_map::Layout;
use crate::layers::linear::Linear;
use crate::layers::{Pass, Saved, Scratch, arrange};

impl<T: Real> Shard<T> {
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
            if !by_blocks {
                self.stages_forward(program, piece.clone(), parameters, pass);
                continue;
            }
            let then = match i + 1 == pieces.len() {
                true => next.take(),
                false => None,
            };
            self.by_blocks(pass, |shard, pass| {
                shard.stages_forward(program, piece.clone(), parameters, pass);
                if let Some(next) = then {
                    shard.sum_inputs(program, next, pass);
                }
            });
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
            let as_samples = self.needing_samples(program, stage, parameters);
            for &id in &as_samples {
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
            for id in as_samples {
                self.layouts[id] = Layout::Lanes;
                if id == stage.output {
                    self.lay_out_value(program, id, pass.isa, Layout::Lanes);
                }
            }
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
                let map = program.lane_map_if(stage.output, self.layouts[stage.output]);
                affine.scale(pass, map, x, stage.relu, y);
            }
            Work::Function { function, tensors } => {
                let tensors = &parameters.plain[tensors.clone()];
                function.forward(pass, tensors, x, y, [input, output], saved);
            }
            // The borders of a map are zeros, which have a byte.
            Work::Round(grid) => {
                round_to_bytes(pass.isa, x, grid.scale, grid.zero_point, y);
            }
            Work::Arithmetic(Arithmetic::Add) if stage.is_elementwise(&program.values) => {
                sum(pass.isa, x, self.value(program, stage.inputs[1]), y);
            }
            Work::Arithmetic(arithmetic) => {
                let b = self.value(program, stage.inputs[1]);
                let second = program.values[stage.inputs[1]];
                arithmetic.forward([x, b], [input, second], y);
            }
            Work::Attention { heads } => {
                let inputs = [0, 1, 2].map(|i| self.value(program, stage.inputs[i]));
                let (heads, size) = (*heads, input);
                Attention { heads, size }.forward(inputs, y, scratch);
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
        let map = program.lane_map_if(stage.output, self.layouts[stage.output]);
        sums.add_squares(pass, map, self.value(program, stage.inputs[0]));
        self.sums = sums;
    }
}
