//! Constants that are broadcast to each other.

use super::limits::take;
use crate::attributes::OnnxNode;
use crate::node_error::{Invalid, NodeError};
use crate::tensor::{Data, Decoder, Int, Tensor, pick};

/// The shape of two operands broadcast against each other, as in NumPy.
fn broadcast(node: OnnxNode<'_>, a: &[usize], b: &[usize]) -> Result<Vec<usize>, Invalid> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |j| dims[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(node.invalid("shapes that can be broadcast", format!("{a:?}, {b:?}"))),
        })
        .collect()
}

/// Index into a tensor of shape `dims` of element `i` of the shape `to` that it is broadcast to.
pub(crate) fn source(mut i: usize, to: &[usize], dims: &[usize]) -> usize {
    let (mut at, mut stride) = (0, 1);
    for (k, &extent) in to.iter().enumerate().rev() {
        let (index, own) = (i % extent, (k + dims.len()).checked_sub(to.len()));
        i /= extent;
        if let Some(own) = own {
            at += if dims[own] == 1 { 0 } else { index * stride };
            stride *= dims[own];
        }
    }
    at
}

pub(super) fn arithmetic(
    node: OnnxNode<'_>,
    a: &Tensor,
    b: &Tensor,
    decoder: &Decoder,
) -> Result<Tensor, NodeError> {
    let dims = broadcast(node, &a.dims, &b.dims)?;
    let elements = take(node, &dims, decoder)?;
    let pairs = (0..elements).map(|i| (source(i, &dims, &a.dims), source(i, &dims, &b.dims)));
    let op = node.0.op_type.as_str();
    let truncates = op == "Mod" && node.int("fmod")?.unwrap_or(0) != 0;
    let data = match (&a.data, &b.data) {
        (Data::Float(a), Data::Float(b)) if op == "Equal" => Data::Int(
            pairs
                .map(|(i, j)| Int::Known(i64::from(a[i] == b[j])))
                .collect(),
        ),
        (Data::Float(_), Data::Float(_)) if op == "Mod" => {
            return Err(NodeError::unsupported(
                "a remainder of floating-point numbers",
            ));
        }
        (Data::Float(a), Data::Float(b)) => Data::Float(
            pairs
                .map(|(i, j)| match op {
                    "Add" => a[i] + b[j],
                    "Sub" => a[i] - b[j],
                    "Mul" => a[i] * b[j],
                    _ => a[i] / b[j],
                })
                .collect(),
        ),
        (Data::Int(a), Data::Int(b)) => {
            let combine = |(i, j): (usize, usize)| match (op, a[i], b[j]) {
                ("Add", Int::Known(a), Int::Known(b)) => a.checked_add(b).map(Int::Known),
                ("Sub", Int::Known(a), Int::Known(b)) => a.checked_sub(b).map(Int::Known),
                ("Mul", Int::Known(a), Int::Known(b)) => a.checked_mul(b).map(Int::Known),
                ("Div", Int::Known(a), Int::Known(b)) => a.checked_div(b).map(Int::Known),
                // The remainder has the sign of the divisor, or with `fmod` that of the dividend.
                ("Mod", Int::Known(a), Int::Known(b)) => {
                    let remainder = a.checked_rem(b).or_else(|| (b == -1).then_some(0))?;
                    let turns = !truncates && remainder != 0 && (remainder < 0) != (b < 0);
                    Some(Int::Known(if turns { remainder + b } else { remainder }))
                }
                ("Equal", Int::Known(a), Int::Known(b)) => Some(Int::Known(i64::from(a == b))),
                ("Equal", Int::Batch, Int::Batch) => Some(Int::Known(1)),
                // There is at least one sample.
                ("Equal", Int::Batch, Int::Known(n)) | ("Equal", Int::Known(n), Int::Batch)
                    if n < 1 =>
                {
                    Some(Int::Known(0))
                }
                ("Mul" | "Div", Int::Batch, Int::Known(1)) | ("Mul", Int::Known(1), Int::Batch) => {
                    Some(Int::Batch)
                }
                _ => None,
            };
            let combined: Option<Vec<Int>> = pairs.map(combine).collect();
            Data::Int(combined.ok_or_else(|| NodeError::unsupported("arithmetic with the batch"))?)
        }
        _ => return Err(node.invalid("operands of one type", "two types").into()),
    };
    Ok(Tensor { dims, data })
}

/// A constant broadcast to a shape. Where that has the batch, the constant is the same for all samples, and has one of them.
pub(super) fn expand(
    node: OnnxNode<'_>,
    x: &Tensor,
    shape: Option<&Tensor>,
    decoder: &Decoder,
) -> Result<Tensor, NodeError> {
    let sizes = (shape.and_then(Tensor::sizes)).ok_or_else(|| {
        let got = shape.map_or("none".into(), Tensor::describe);
        node.invalid("a shape of integers", got)
    })?;
    let size = |size: &Int| match *size {
        Int::Batch => Ok(1),
        Int::Known(n) => {
            usize::try_from(n).map_err(|_| node.invalid("dimensions of 0 or more", n.to_string()))
        }
    };
    let sizes: Vec<usize> = sizes.iter().map(size).collect::<Result<_, _>>()?;
    let dims = broadcast(node, &x.dims, &sizes)?;
    let elements = take(node, &dims, decoder)?;
    let places = (0..elements).map(|i| source(i, &dims, &x.dims));
    Ok(pick(x, dims.clone(), places))
}

/// Where the first input is not zero the second, else the third.
pub(super) fn choose(
    node: OnnxNode<'_>,
    inputs: &[Option<&Tensor>],
    decoder: &Decoder,
) -> Result<Tensor, NodeError> {
    let &[Some(condition), Some(a), Some(b)] = inputs else {
        let got = inputs.iter().flatten().count().to_string();
        return Err(node.invalid("three inputs", got).into());
    };
    let chosen = (condition.ints())
        .ok_or_else(|| node.invalid("a condition of integers", condition.describe()))?;
    let dims = broadcast(node, &a.dims, &b.dims)?;
    let dims = broadcast(node, &condition.dims, &dims)?;
    let elements = take(node, &dims, decoder)?;
    let places = (0..elements).map(|i| {
        let of = |t: &Tensor| source(i, &dims, &t.dims);
        (chosen[of(condition)] != 0, of(a), of(b))
    });
    let data = match (&a.data, &b.data) {
        (Data::Float(a), Data::Float(b)) => Data::Float(
            places
                .map(|(first, i, j)| if first { a[i] } else { b[j] })
                .collect(),
        ),
        (Data::Int(a), Data::Int(b)) => Data::Int(
            places
                .map(|(first, i, j)| if first { a[i] } else { b[j] })
                .collect(),
        ),
        _ => return Err(node.invalid("operands of one type", "two types").into()),
    };
    Ok(Tensor { dims, data })
}
