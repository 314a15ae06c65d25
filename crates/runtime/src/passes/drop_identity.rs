//! Removes steps whose output equals their input: flattening, pooling over single pixels, a ReLU after a ReLU, padding by nothing.

use sparsevd_kernels::Clamp;
use sparsevd_model::Op;

use crate::program::Program;
use crate::rewrite::Rewrite;

pub(super) fn run(program: &mut Program) {
    let mut rewrite = Rewrite::new(program);
    for i in 0..rewrite.len() {
        let to = rewrite.visit(i).inputs[0];
        if is_identity(&rewrite, i) {
            rewrite.bypass(i, to);
        }
    }
    rewrite.finish();
}

fn is_identity(program: &Rewrite<'_>, i: usize) -> bool {
    let step = program.step(i);
    // What a ReLU makes of numbers that are not negative.
    let relu_again = step.op == Op::Relu
        && program.producer(step.inputs[0]).is_some_and(|m| {
            let before = program.step(m);
            before.clamp == Clamp::Relu
                || matches!(before.op, Op::Relu | Op::Sigmoid | Op::Softmax(_))
        });
    // A reader would get a value with a free dimension in the place of one without.
    let free = |value: usize| program.program().values[value].free;
    let keeps_free = step.inputs.iter().all(|&v| free(v) == free(step.output));
    // Every layout has the channels of a map in the order of the flat vector.
    let inputs = vec![&step.input_shape; step.inputs.len()];
    relu_again || (keeps_free && step.op.operator().is_identity(&inputs))
}

#[cfg(test)]
mod tests {
    use sparsevd_model::{Op, Window, ops};

    use crate::passes::tests::{linear, program, steps};

    #[test]
    fn identities_are_removed_and_their_consumers_read_their_input() {
        let one = Op::AveragePool(ops::AveragePool {
            window: Window::square(1, 1),
        });
        let mut p = program(
            &[
                ("pool", &["x"], one),
                ("relu", &["pool"], Op::Relu),
                ("again", &["relu"], Op::Relu),
                ("flat", &["again"], Op::Flatten),
                ("fc", &["flat"], linear()),
            ],
            "fc",
        );
        super::run(&mut p);
        assert_eq!(steps(&p), ["relu", "fc"]);
        assert_eq!(p.steps[0].inputs, [p.inputs[0].value]);
        assert_eq!(p.steps[1].inputs, [p.steps[0].output]);
    }

    #[test]
    fn a_network_of_identities_returns_its_input() {
        let mut p = program(&[("flat", &["x"], Op::Flatten)], "flat");
        super::run(&mut p);
        assert_eq!(steps(&p), [""; 0]);
        assert_eq!(p.outputs[0].value, p.inputs[0].value);
    }
}
