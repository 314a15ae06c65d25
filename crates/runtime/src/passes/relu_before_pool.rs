//! Fuses a ReLU or clip that follows a max-pooling into the layer before the pooling.
//!
//! The two commute: `max(max(a, b), 0) = max(max(a, 0), max(b, 0))`. Before the pooling the clamp has more elements, so it is moved only
//! where a layer or sum computes it for free: one whose only consumer is the pooling.

use sparsevd_model::Op;

use crate::program::{Program, Value, clamp_of};
use crate::rewrite::Rewrite;

pub(super) fn run(program: &mut Program) {
    let mut rewrite = Rewrite::new(program);
    for i in 0..rewrite.len() {
        let step = rewrite.visit(i);
        let pooled = step.inputs[0];
        if let Some(clamp) = clamp_of(&step.op)
            && let Some(layer) = layer_before_pool(&rewrite, pooled)
        {
            rewrite.step_mut(layer).clamp = clamp;
            rewrite.bypass(i, pooled);
        }
    }
    rewrite.finish();
}

/// The layer that can clamp before a max-pooling does, where both the map and what is pooled have one consumer.
fn layer_before_pool(program: &Rewrite<'_>, pooled: Value) -> Option<usize> {
    let pool = program.step(program.producer(pooled)?);
    let map = pool.inputs[0];
    let is_alone = matches!(pool.op, Op::MaxPool(_))
        && program.consumers(pooled) == 1
        && program.consumers(map) == 1;
    let layer = program.producer(map)?;
    (is_alone && program.step(layer).takes_clamp()).then_some(layer)
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
