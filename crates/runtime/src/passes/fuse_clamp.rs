//! Fuses a ReLU or clip into the layer or sum before it, where it is the only consumer of that output.

use crate::program::{Program, clamp_of};
use crate::rewrite::Rewrite;

pub(super) fn run(program: &mut Program) {
    let mut rewrite = Rewrite::new(program);
    for i in 0..rewrite.len() {
        let step = rewrite.visit(i);
        let (before, clamp) = (step.inputs[0], clamp_of(&step.op));
        let layer = rewrite
            .producer(before)
            .filter(|&l| rewrite.step(l).takes_clamp() && rewrite.consumers(before) == 1);
        if let (Some(layer), Some(clamp)) = (layer, clamp) {
            rewrite.step_mut(layer).clamp = clamp;
            rewrite.bypass(i, before);
        }
    }
    rewrite.finish();
}

#[cfg(test)]
mod tests {
    use sparsevd_model::{Op, ops};

    use crate::passes::tests::{conv, max_pool, program, steps};

    #[test]
    fn a_relu_joins_the_layer_before_it() {
        let mut p = program(
            &[
                ("a", &["x"], conv()),
                ("relu1", &["a"], Op::Relu),
                ("b", &["relu1"], conv()),
                ("pool", &["b"], max_pool()),
                ("relu2", &["pool"], Op::Relu),
            ],
            "relu2",
        );
        super::run(&mut p);
        assert_eq!(steps(&p), ["a+relu", "b", "pool", "relu2"]);
    }

    #[test]
    fn a_clip_joins_and_a_second_activation_stays() {
        let clip = Op::Clip(ops::Clip {
            min: Some(0.0),
            max: Some(6.0),
        });
        let mut p = program(
            &[
                ("a", &["x"], conv()),
                ("clip", &["a"], clip.clone()),
                ("relu", &["clip"], Op::Relu),
                ("sum", &["relu", "x"], Op::Mul),
                ("again", &["sum"], clip),
            ],
            "again",
        );
        super::run(&mut p);
        assert_eq!(steps(&p), ["a+clip", "relu", "sum+clip"]);
    }

    #[test]
    fn a_layer_with_other_consumers_or_that_is_the_output_is_not_clamped() {
        let residual = program(
            &[
                ("a", &["x"], conv()),
                ("relu", &["a"], Op::Relu),
                ("sum", &["relu", "a"], Op::Add),
            ],
            "sum",
        );
        let mut after = residual.clone();
        super::run(&mut after);
        assert_eq!(after, residual);

        let mut output = program(&[("a", &["x"], conv()), ("relu", &["a"], Op::Relu)], "a");
        super::run(&mut output);
        assert_eq!(steps(&output), ["a", "relu"]);
    }
}
