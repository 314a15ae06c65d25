//! Which operators map zero to zero.
//!
//! Maps in [`sparsevd_kernels::Layout::Blocks`] have zeros around them, which convolutions read as padding. Only operators that map zero to zero
//! may run over such maps.

use sparsevd_kernels::Clamp;
use sparsevd_model::Op;

/// Whether an elementwise operator maps zero to zero; `false` for all other operators.
pub(crate) fn keeps_zero(op: &Op) -> bool {
    match *op {
        Op::Clip { min, max } => min.is_none_or(|m| m <= 0.0) && max.is_none_or(|m| m >= 0.0),
        Op::Sigmoid | Op::HardSigmoid { .. } => false,
        Op::Add | Op::Sub | Op::Mul => true,
        ref other => other.is_activation(),
    }
}

/// Whether a clamp maps zero to zero.
pub(crate) fn clamp_keeps_zero(clamp: Clamp) -> bool {
    clamp.apply(0.0) == 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_that_map_zero_to_something_else_are_known() {
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
