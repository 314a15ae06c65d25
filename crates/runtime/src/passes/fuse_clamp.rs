//! Fuses a ReLU or clip into the layer or sum before it, where it is the only consumer of that output.

use crate::program::{Program, clamp_of};

pub(super) fn run(program: &mut Program) {
    let mut i = 0;
    while i < program.steps.len() {
        let before = program.steps[i].inputs[0];
        let layer = program
            .producer(before)
            .filter(|&l| program.steps[l].takes_clamp() && program.consumers(before) == 1);
        match (layer, clamp_of(&program.steps[i].op)) {
            (Some(layer), Some(clamp)) => {
                program.steps[layer].clamp = clamp;
                program.bypass(i);
            }
            _ => i += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_model::Op;

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
        let clip = Op::Clip {
            min: Some(0.0),
            max: Some(6.0),
        };
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
