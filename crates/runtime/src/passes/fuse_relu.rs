//! Puts a ReLU into the layer or sum before it, where nobody else reads that output.

use sparsevd_model::Op;

use super::takes_relu;
use crate::program::Program;

pub(super) fn run(program: &mut Program) {
    let mut i = 0;
    while i < program.steps.len() {
        let before = program.steps[i].inputs[0];
        let layer = program.maker(before).filter(|&l| {
            program.steps[i].op == Op::Relu
                && takes_relu(&program.steps[l].op)
                && program.readers(before) == 1
        });
        match layer {
            Some(l) => {
                program.steps[l].relu = true;
                program.bypass(i);
            }
            None => i += 1,
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
    fn a_layer_that_others_read_or_that_is_the_output_keeps_its_negative_numbers() {
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
