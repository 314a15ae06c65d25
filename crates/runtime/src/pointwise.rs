//! Kernels and layouts of operators that take numbers one by one, or move them.
//!
//! Values in blocks ([`Layout::Blocks`]) have zeros around the map; only operators that make zero of zeros keep them so.

use sparsevd_kernels::channels::{Affine, AffineKernel, PerChannelKernel};
use sparsevd_kernels::elementwise::{Arithmetic, ArithmeticKernel};
use sparsevd_kernels::place::{PadKernel, PlaceKernel};
use sparsevd_kernels::{Activation, ActivationKernel, Clamp, Layout, PackedKernel};
use sparsevd_model::{Approximate, Op, passes};

use crate::RuntimeError;
use crate::lower::{Builder, Lowered, Part, Partition, whole};
use crate::program::Step;

/// Whether an operator over single numbers makes zero of zeros.
pub(crate) fn keeps_zero(op: &Op) -> bool {
    match *op {
        Op::Clip { min, max } => min.is_none_or(|m| m <= 0.0) && max.is_none_or(|m| m >= 0.0),
        Op::Sigmoid | Op::HardSigmoid { .. } => false,
        Op::Add | Op::Sub | Op::Mul => true,
        ref other => other.is_activation(),
    }
}

/// Whether an activation makes zero of zero.
pub(crate) fn clamps_zero(clamp: Clamp) -> bool {
    clamp.apply(0.0) == 0.0
}

impl Builder<'_> {
    /// The layout of a step that takes any: that of its inputs; where they differ that of the first in blocks, or the plan's own; blocks only where
    /// zeros stay.
    fn layout(&self, step: &Step, takes_blocks: bool) -> Layout {
        let layouts = || step.inputs.iter().map(|&v| self.values[v].layout);
        let first = layouts().next().unwrap_or(self.choice.layout);
        let blocks = layouts().find(|l| matches!(l, Layout::Blocks(_)));
        match blocks {
            Some(blocks) if takes_blocks => blocks,
            Some(_) => Layout::Single,
            None if layouts().all(|l| l == first) => first,
            None => self.choice.layout,
        }
    }

    pub fn in_place(
        &self,
        step: &Step,
        kernel: impl PackedKernel + 'static,
    ) -> (Vec<Part>, Layout) {
        let layout = self.layout(step, keeps_zero(&step.op));
        (vec![whole(kernel, step)], layout)
    }

    pub fn function(&self, step: &Step) -> Result<(Vec<Part>, Layout), RuntimeError> {
        let function = match step.op {
            Op::LeakyRelu { alpha } => Activation::LeakyRelu { alpha },
            Op::Sigmoid => Activation::Sigmoid,
            Op::HardSigmoid { alpha, beta } => Activation::HardSigmoid { alpha, beta },
            Op::HardSwish => Activation::HardSwish,
            Op::Tanh => Activation::Tanh,
            Op::Gelu {
                approximate: Approximate::None,
            } => Activation::Gelu,
            Op::Gelu {
                approximate: Approximate::Tanh,
            } => Activation::GeluTanh,
            _ => return Err(self.unsupported(step)),
        };
        let isa = self.options.isa;
        Ok(self.in_place(step, ActivationKernel { isa, function }))
    }

    pub fn arithmetic(&self, step: &Step, op: Arithmetic) -> (Vec<Part>, Layout) {
        let [a, b] = [0, 1].map(|i| self.values[step.inputs[i]].features);
        let zeros = a == b && keeps_zero(&step.op) && clamps_zero(step.clamp);
        let layout = self.layout(step, zeros);
        let isa = self.options.isa;
        let part = if a == b {
            whole(ArithmeticKernel { isa, op }, step)
        } else {
            let kernel = PerChannelKernel {
                isa,
                op,
                layout,
                area: a / b.max(1),
            };
            whole(kernel, step)
        };
        (vec![part], layout)
    }

    /// A batch normalisation that is part of no layer.
    pub fn normalisation(&self, step: &Step) -> (Vec<Part>, Layout) {
        let layout = self.layout(step, false);
        let (scale, shift) = passes::normalisation(self.network, &step.op).unwrap_or_default();
        let area = step.output_shape.matrix().1;
        let affine = Affine::new(self.options.isa, scale, shift, area);
        (vec![whole(AffineKernel { affine, layout }, step)], layout)
    }

    pub fn pad(
        &self,
        step: &Step,
        pads: [usize; 4],
        value: f32,
    ) -> Result<(Vec<Part>, Layout), RuntimeError> {
        let layout = self.layout(step, false);
        let &[_, h, w] = step.input_shape.dims() else {
            return Err(self.no_map(step));
        };
        let kernel = PadKernel {
            layout,
            map: [h, w],
            pads,
            value,
        };
        Ok((vec![whole(kernel, step)], layout))
    }

    /// Each input is copied to its place in the output.
    pub fn concat(&mut self, step: &Step) {
        let layout = self.layout(step, false);
        let total = step.output_shape.elements();
        let mut offset = 0;
        for &input in &step.inputs {
            let features = self.values[input].features;
            let kernel = PlaceKernel {
                layout,
                features,
                offset,
                total,
            };
            offset += features;
            let input = self.converted(input, layout);
            self.steps.push(Lowered {
                name: step.name.clone(),
                op: step.op.name().into(),
                parts: vec![whole(kernel, step)],
                partition: Partition::Rows,
                clamp: Clamp::None,
                inputs: vec![input],
                output: step.output,
                output_shape: step.output_shape.clone(),
                weight: None,
            });
        }
        self.values[step.output].layout = layout;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_that_make_something_of_nothing_are_known() {
        let clip = |min, max| Op::Clip {
            min: Some(min),
            max: Some(max),
        };
        for (op, keeps) in [
            (Op::Relu, true),
            (clip(-1.0, 1.0), true),
            (clip(0.5, 1.0), false),
            (clip(-1.0, -0.5), false),
            (Op::Tanh, true),
            (Op::HardSwish, true),
            (Op::Sigmoid, false),
            (Op::Mul, true),
            (Op::Div, false),
            (Op::Concat, false),
        ] {
            assert_eq!(keeps_zero(&op), keeps, "{}", op.name());
        }
    }
}
