//! Fuses a sum into the convolution that computes one of its terms, where the sum is the only consumer of that term:
//! `y = clamp(W * x + b + residual)`.

use sparsevd_model::Op;

use crate::program::{Program, Value};
use crate::rewrite::Rewrite;
use crate::zeros::clamp_keeps_zero;

pub(super) fn run(program: &mut Program) {
    let mut rewrite = Rewrite::new(program);
    for i in 0..rewrite.len() {
        rewrite.visit(i);
        if let Some((layer, residual)) = layer_and_residual(&rewrite, i) {
            let clamp = rewrite.step(i).clamp;
            let term = rewrite.step(layer).output;
            rewrite.bypass(i, term);
            rewrite.add_residual(layer, residual);
            rewrite.step_mut(layer).clamp = clamp;
        }
    }
    rewrite.finish();
}

/// The convolution that can compute this sum, and the other term, which must be computed before it.
fn layer_and_residual(rewrite: &Rewrite<'_>, sum: usize) -> Option<(usize, Value)> {
    let step = rewrite.step(sum);
    let &[a, b] = step.inputs.as_slice() else {
        return None;
    };
    let elements = |v: Value| rewrite.program().values[v].shape.elements();
    let same = elements(a) == elements(b);
    // Maps in blocks have zeros around them, which such a sum keeps.
    if step.op != Op::Add || a == b || !same || !clamp_keeps_zero(step.clamp) {
        return None;
    }
    [(a, b), (b, a)].into_iter().find_map(|(term, residual)| {
        let layer = rewrite.producer(term)?;
        let before = rewrite.producer(residual).is_none_or(|m| m < layer);
        let step = rewrite.step(layer);
        let takes = matches!(step.op, Op::Conv(_))
            && step.clamp == sparsevd_kernels::Clamp::None
            && step.residual.is_none()
            && step.inputs[0] != residual
            && rewrite.consumers(term) == 1;
        (takes && before).then_some((layer, residual))
    })
}

#[cfg(test)]
mod tests {
    use sparsevd_kernels::Clamp;
    use sparsevd_model::Op;

    use crate::passes::tests::{conv, program, steps};

    #[test]
    fn a_sum_joins_the_later_of_two_convolutions() {
        let mut p = program(
            &[
                ("a", &["x"], conv()),
                ("b", &["a"], conv()),
                ("c", &["x"], conv()),
                ("sum", &["b", "c"], Op::Add),
                ("d", &["sum"], conv()),
            ],
            "d",
        );
        p.steps[3].clamp = Clamp::Relu;
        super::run(&mut p);
        assert_eq!(steps(&p), ["a", "b", "c+relu", "d"]);
        let [_, b, c, d] = p.steps.as_slice() else {
            panic!("four steps")
        };
        assert_eq!(
            (&c.inputs[..], c.residual),
            (&[p.inputs[0].value][..], Some(b.output))
        );
        assert_eq!(d.inputs, [c.output]);
    }

    #[test]
    fn a_sum_stays_whose_residual_is_later_or_read_or_whose_clamp_moves_zero() {
        let alone = |nodes: &[(&str, &[&str], Op)], output| {
            let before = program(nodes, output);
            let mut after = before.clone();
            super::run(&mut after);
            assert_eq!(after, before, "{:?}", steps(&before));
        };
        // The convolution has two consumers.
        let twice: &[(&str, &[&str], Op)] = &[
            ("a", &["x"], conv()),
            ("b", &["a"], conv()),
            ("sum", &["b", "a"], Op::Add),
            ("again", &["sum", "b"], Op::Mul),
        ];
        alone(twice, "again");
        // The other term is computed after the convolution, and not by a convolution.
        let later: &[(&str, &[&str], Op)] = &[
            ("a", &["x"], conv()),
            ("t", &["x"], Op::Tanh),
            ("sum", &["a", "t"], Op::Add),
        ];
        alone(later, "sum");
        // The other term is the input of the convolution.
        alone(
            &[("a", &["x"], conv()), ("sum", &["a", "x"], Op::Add)],
            "sum",
        );
        let mut clamped = program(
            &[
                ("a", &["x"], conv()),
                ("b", &["a"], conv()),
                ("sum", &["b", "x"], Op::Add),
            ],
            "sum",
        );
        clamped.steps[2].clamp = Clamp::Clip { min: 0.5, max: 1.0 };
        let before = clamped.clone();
        super::run(&mut clamped);
        assert_eq!(clamped, before);
    }
}
