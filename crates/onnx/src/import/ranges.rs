//! What is known of the numbers of a value: ends that they cannot pass.

use sparsevd_model::Op;

/// From the least number that a value can have to the most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    pub least: f32,
    pub most: f32,
}

impl Range {
    /// That of all numbers.
    pub const ALL: Self = Self {
        least: f32::NEG_INFINITY,
        most: f32::INFINITY,
    };

    /// The range of what a node makes of values of these ranges.
    pub fn of(op: &Op, inputs: &[Self]) -> Self {
        let Some(&x) = inputs.first() else {
            return Self::ALL;
        };
        match op {
            Op::Relu => x.clamped(Some(0.0), None),
            Op::Clip(clip) => x.clamped(clip.min, clip.max),
            Op::Sigmoid | Op::HardSigmoid(_) | Op::Softmax(_) => Self {
                least: 0.0,
                most: 1.0,
            },
            Op::Tanh => Self {
                least: -1.0,
                most: 1.0,
            },
            // These give each element as it is, or a mean of some.
            Op::Flatten
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Slice(_)
            | Op::Expand(_)
            | Op::MaxPool(_)
            | Op::AveragePool(_)
            | Op::GlobalAveragePool => x,
            Op::Pad(pad) => x.joined(Self {
                least: pad.value,
                most: pad.value,
            }),
            Op::Concat(_) => inputs.iter().fold(x, |all, other| all.joined(*other)),
            Op::Add => inputs[1..].iter().fold(x, |sum, other| Self {
                least: sum.least + other.least,
                most: sum.most + other.most,
            }),
            _ => Self::ALL,
        }
    }

    /// The range behind a clamp.
    pub fn clamped(self, min: Option<f32>, max: Option<f32>) -> Self {
        let (min, max) = (
            min.unwrap_or(f32::NEG_INFINITY),
            max.unwrap_or(f32::INFINITY),
        );
        let clamp = |v: f32| v.max(min).min(max);
        Self {
            least: clamp(self.least),
            most: clamp(self.most),
        }
    }

    fn joined(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        }
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_model::ops;

    use super::*;

    #[test]
    fn ranges_follow_from_operators() {
        let range = |least, most| Range { least, most };
        let clip = |min, max| Op::Clip(ops::Clip { min, max });
        let cases = [
            (Op::Relu, vec![Range::ALL], range(0.0, f32::INFINITY)),
            (Op::Relu, vec![range(-3.0, -1.0)], range(0.0, 0.0)),
            (
                clip(None, Some(6.0)),
                vec![range(0.0, 9.0)],
                range(0.0, 6.0),
            ),
            (Op::Flatten, vec![range(-1.0, 2.0)], range(-1.0, 2.0)),
            (
                Op::Add,
                vec![range(0.0, 2.0), range(-1.0, f32::INFINITY)],
                range(-1.0, f32::INFINITY),
            ),
            (
                Op::Concat(ops::Concat::default()),
                vec![range(0.0, 2.0), range(-1.0, 1.0)],
                range(-1.0, 2.0),
            ),
            (
                Op::Pad(ops::Pad {
                    pads: [1; 4],
                    value: 0.0,
                }),
                vec![range(1.0, 2.0)],
                range(0.0, 2.0),
            ),
            (Op::Mul, vec![range(0.0, 1.0), range(0.0, 1.0)], Range::ALL),
        ];
        for (op, inputs, want) in cases {
            assert_eq!(Range::of(&op, &inputs), want, "{}", op.name());
        }
    }
}
