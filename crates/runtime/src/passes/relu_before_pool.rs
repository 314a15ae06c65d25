//! Fuses a ReLU or clip that follows a max-pooling into the layer before the pooling.
//!
//! The two commute: `max(max(a, b), 0) = max(max(a, 0), max(b, 0))`. Before the pooling the clamp has more elements, so it is moved only
//! where a layer or sum computes it for free: one whose only consumer is the pooling.

use sparsevd_model::Op;

use crate::program::{Program, clamp_of};

pub(super) fn run(program: &mut Program) {
    for i in 0..program.steps.len() {
        let Some(clamp) = clamp_of(&program.steps[i].op) else {
            continue;
        };
        let Some(pool) = program.producer(program.steps[i].inputs[0]) else {
            continue;
        };
        let is_max_pool = matches!(program.steps[pool].op, Op::MaxPool(_));
        if !is_max_pool || program.consumers(program.steps[pool].output) != 1 {
            continue;
        }
        let before = program.steps[pool].inputs[0];
        let layer = program.producer(before);
        if program.consumers(before) == 1 && layer.is_some_and(|l| program.steps[l].takes_clamp()) {
            if let Some(l) = layer {
                program.steps[l].clamp = clamp;
            }
            program.bypass(i);
            return run(program);
        }
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_model::Op;

    use crate::passes::tests::{conv, max_pool, program, steps};

    #[test]
    fn conv_pool_relu_becomes_conv_relu_pool() {
        let mut p = program(
            &[
                ("conv", &["x"], conv()),
                ("pool", &["conv"], max_pool()),
                ("relu", &["pool"], Op::Relu),
            ],
            "relu",
        );
        super::run(&mut p);
        assert_eq!(steps(&p), ["conv+relu", "pool"]);
        assert_eq!(p.outputs[0].value, p.steps[1].output);
    }

    #[test]
    fn another_consumer_of_the_map_or_of_the_pooling_keeps_them_apart() {
        let map_read_twice = program(
            &[
                ("conv", &["x"], conv()),
                ("pool", &["conv"], max_pool()),
                ("relu", &["pool"], Op::Relu),
                ("other", &["conv"], max_pool()),
                ("sum", &["relu", "other"], Op::Add),
            ],
            "sum",
        );
        let pool_read_twice = program(
            &[
                ("conv", &["x"], conv()),
                ("pool", &["conv"], max_pool()),
                ("relu", &["pool"], Op::Relu),
                ("sum", &["relu", "pool"], Op::Add),
            ],
            "sum",
        );
        for before in [map_read_twice, pool_read_twice] {
            let mut after = before.clone();
            super::run(&mut after);
            assert_eq!(after, before);
        }
    }
}
