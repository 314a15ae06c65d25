//! Fuses a max-pooling of two by two pixels into the convolution before it, where it is the only consumer of that map.
//!
//! Whether a kernel computes both is decided when the step gets its kernel.

use sparsevd_model::{Op, ops};

use crate::program::{FusedPool, Program};
use crate::rewrite::Rewrite;

pub(super) fn run(program: &mut Program) {
    let mut rewrite = Rewrite::new(program);
    for i in 0..rewrite.len() {
        let pool = rewrite.visit(i);
        let (name, map) = (pool.name.clone(), pool.inputs[0]);
        let output_shape = pool.output_shape.clone();
        if let Some(conv) = conv_before(&rewrite, i) {
            rewrite.join(conv, i);
            let conv = rewrite.step_mut(conv);
            conv.pool = Some(FusedPool {
                name,
                input: map,
                input_shape: std::mem::replace(&mut conv.output_shape, output_shape),
            });
        }
    }
    rewrite.finish();
}

/// The convolution that this pooling can join.
fn conv_before(program: &Rewrite<'_>, pool: usize) -> Option<usize> {
    let step = program.step(pool);
    let Op::MaxPool(ops::MaxPool { window }) = &step.op else {
        return None;
    };
    let map = step.inputs[0];
    let conv = program.producer(map)?;
    let before = program.step(conv);
    let takes = matches!(before.op, Op::Conv(_))
        && before.residual.is_none()
        && before.pool.is_none()
        && program.consumers(map) == 1;
    (takes && *window == FusedPool::window()).then_some(conv)
}

#[cfg(test)]
mod tests {
    use sparsevd_kernels::Clamp;
    use sparsevd_model::{Op, Window, ops};

    use crate::passes::tests::{conv, max_pool, program, steps};

    #[test]
    fn a_pooling_joins_the_convolution_before_it() {
        let mut p = program(
            &[
                ("a", &["x"], conv()),
                ("pool", &["a"], max_pool()),
                ("b", &["pool"], conv()),
            ],
            "b",
        );
        p.steps[0].clamp = Clamp::Relu;
        let before = p.clone();
        super::run(&mut p);
        assert_eq!(steps(&p), ["a+relu+pool", "b"]);
        assert_eq!(p.steps[1].inputs, [p.steps[0].output]);
        assert_eq!(p.steps[0].without_pool(), before.steps[0]);
        assert_eq!(p.steps[0].pool_alone().as_ref(), Some(&before.steps[1]));
    }

    #[test]
    fn other_windows_consumers_and_producers_keep_a_pooling_apart() {
        let apart = |nodes: &[(&str, &[&str], Op)], output| {
            let before = program(nodes, output);
            let mut after = before.clone();
            super::run(&mut after);
            assert_eq!(after, before, "{:?}", steps(&before));
        };
        let other = Op::MaxPool(ops::MaxPool {
            window: Window::square(2, 1),
        });
        apart(&[("a", &["x"], conv()), ("pool", &["a"], other)], "pool");
        let average = Op::AveragePool(ops::AveragePool {
            window: Window::square(2, 2),
        });
        apart(&[("a", &["x"], conv()), ("pool", &["a"], average)], "pool");
        apart(
            &[("t", &["x"], Op::Tanh), ("pool", &["t"], max_pool())],
            "pool",
        );
        let twice: &[(&str, &[&str], Op)] = &[
            ("a", &["x"], conv()),
            ("pool", &["a"], max_pool()),
            ("other", &["a"], max_pool()),
            ("sum", &["pool", "other"], Op::Add),
        ];
        apart(twice, "sum");
        // The map is the output of the network.
        let mut output = program(&[("a", &["x"], conv()), ("pool", &["a"], max_pool())], "a");
        super::run(&mut output);
        assert_eq!(steps(&output), ["a", "pool"]);
    }

    #[test]
    fn a_sum_before_the_pooling_keeps_it_apart() {
        let mut p = program(
            &[
                ("a", &["x"], conv()),
                ("b", &["a"], conv()),
                ("pool", &["b"], max_pool()),
            ],
            "pool",
        );
        p.steps[1].residual = Some(p.inputs[0].value);
        super::run(&mut p);
        assert_eq!(steps(&p), ["a", "b", "pool"]);
    }
}
