//! Constant folding: operators whose inputs are all constants, as in shape computations and rearranged weights.

mod axes;
mod broadcast;
mod limits;
mod parts;

use crate::attributes::{OnnxNode, axis};
use crate::node_error::{Invalid, NodeError};
use crate::tensor::{Data, Decoder, Int, Tensor, pick};

use broadcast::{arithmetic, choose, expand};
use limits::take;
use parts::{concat, gather, slice};

pub(crate) use axes::{axes, resolve};
pub(crate) use broadcast::source;
pub(crate) use limits::MOST_AXES;
pub(crate) use parts::{AxisSlice, slices};

/// Operators that [`fold`] evaluates.
pub(crate) const OPERATORS: &[&str] = &[
    "Add",
    "Cast",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Div",
    "Equal",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Mod",
    "Mul",
    "Neg",
    "Reshape",
    "Shape",
    "Slice",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// The result of a node whose inputs are constants; absent inputs are `None`.
pub(crate) fn fold(
    node: OnnxNode<'_>,
    inputs: &[Option<&Tensor>],
    decoder: &Decoder,
) -> Result<Tensor, NodeError> {
    let label = node.label();
    if node.0.op_type == "Constant" {
        return constant(node, decoder);
    }
    let x = inputs
        .first()
        .copied()
        .flatten()
        .ok_or_else(|| node.invalid("an input", "none"))?;
    let second = inputs.get(1).copied().flatten();
    decoder.take(&label, &x.dims)?;
    Ok(match node.0.op_type.as_str() {
        "Identity" => x.clone(),
        "Cast" => cast(node, x)?,
        "Neg" => map(node, x, |v| -v, i64::checked_neg)?,
        "Sqrt" => map(node, x, f32::sqrt, |_| None)?,
        "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Equal" => {
            let b = second.ok_or_else(|| node.invalid("two inputs", "one"))?;
            arithmetic(node, x, b, decoder)?
        }
        "Shape" => {
            let dims = x.dims.iter().map(|&d| Int::Known(d as i64)).collect();
            shape(node, dims)?
        }
        "ConstantOfShape" => constant_of_shape(node, x, decoder)?,
        "Reshape" => {
            let target = (second.and_then(Tensor::ints))
                .ok_or_else(|| NodeError::unsupported("a shape that depends on the batch"))?;
            let dims = reshaped(node, &x.dims, &target)?;
            with_dims(x, dims)
        }
        "Flatten" => {
            let at = node.int("axis")?.unwrap_or(1);
            let at = axis(at, x.dims.len() + 1)
                .ok_or_else(|| node.invalid("an axis", at.to_string()))?;
            let product = |dims: &[usize]| dims.iter().product();
            with_dims(x, vec![product(&x.dims[..at]), product(&x.dims[at..])])
        }
        "Squeeze" => {
            let axes = axes(node, second)?;
            let squeezed = (axes.as_ref())
                .map(|axes| resolve(node, axes, x.dims.len()))
                .transpose()?;
            let stays = |(i, d): &(usize, &usize)| match &squeezed {
                Some(axes) => !axes.contains(i),
                None => **d != 1,
            };
            let dims: Vec<usize> = (x.dims.iter().enumerate().filter(stays))
                .map(|(_, d)| *d)
                .collect();
            if dims.iter().product::<usize>() != x.data.len() {
                return Err(node
                    .invalid("axes of one element", format!("{axes:?}"))
                    .into());
            }
            with_dims(x, dims)
        }
        "Unsqueeze" => {
            let axes = axes(node, second)?.ok_or_else(|| node.invalid("axes", "none"))?;
            let at = resolve(node, &axes, x.dims.len() + axes.len())?;
            let mut old = x.dims.iter().copied();
            let dims = (0..x.dims.len() + at.len())
                .map(|i| {
                    if at.contains(&i) {
                        1
                    } else {
                        old.next().unwrap_or(1)
                    }
                })
                .collect();
            with_dims(x, dims)
        }
        "Transpose" => transpose(node, x)?,
        "Gather" => gather(node, x, second, decoder)?,
        "Slice" => slice(node, x, inputs)?,
        "Concat" => concat(node, inputs, decoder)?,
        "Expand" => expand(node, x, second, decoder)?,
        "Where" => choose(node, inputs, decoder)?,
        _ => return Err(NodeError::unsupported("constants as inputs")),
    })
}

/// The dimensions between the attributes `start` and `end`.
pub(crate) fn shape(node: OnnxNode<'_>, dims: Vec<Int>) -> Result<Tensor, Invalid> {
    let rank = dims.len() as i64;
    let bound = |name, default: i64| -> Result<usize, Invalid> {
        let v = node.int(name)?.unwrap_or(default);
        let v = if v < 0 { v.saturating_add(rank) } else { v };
        Ok(v.clamp(0, rank) as usize)
    };
    let (start, end) = (bound("start", 0)?, bound("end", rank)?);
    let kept = dims.get(start..end).unwrap_or_default().to_vec();
    Ok(Tensor {
        dims: vec![kept.len()],
        data: Data::Int(kept),
    })
}

/// The dimensions of `target`, where 0 copies a dimension and -1 is inferred.
pub(crate) fn reshaped(
    node: OnnxNode<'_>,
    dims: &[usize],
    target: &[i64],
) -> Result<Vec<usize>, Invalid> {
    if target.len() > MOST_AXES {
        let got = target.len().to_string();
        return Err(node.invalid(format!("at most {MOST_AXES} dimensions"), got));
    }
    let wrong = || node.invalid(format!("a shape for {dims:?}"), format!("{target:?}"));
    let keeps = node.int("allowzero")?.unwrap_or(0) == 0;
    let mut open = None;
    let mut out = Vec::with_capacity(target.len());
    for (i, &t) in target.iter().enumerate() {
        out.push(match t {
            0 if keeps => *dims.get(i).ok_or_else(wrong)?,
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            t => usize::try_from(t).map_err(|_| wrong())?,
        });
    }
    let product = |dims: &[usize]| dims.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
    let elements = product(dims).ok_or_else(wrong)?;
    let known = product(&out).ok_or_else(wrong)?;
    if let Some(i) = open {
        out[i] = elements.checked_div(known).ok_or_else(wrong)?;
    }
    if product(&out) != Some(elements) {
        return Err(wrong());
    }
    Ok(out)
}

fn with_dims(x: &Tensor, dims: Vec<usize>) -> Tensor {
    Tensor {
        dims,
        data: x.data.clone(),
    }
}

fn constant(node: OnnxNode<'_>, decoder: &Decoder) -> Result<Tensor, NodeError> {
    let what = node.label();
    if let Some(tensor) = node.tensor("value")? {
        return Ok(decoder.dense(&what, tensor)?);
    }
    if let Some(tensor) = node.sparse_tensor("sparse_value")? {
        return Ok(decoder.sparse(&what, tensor)?);
    }
    if let Some(v) = node.float("value_float")? {
        return Ok(Tensor {
            dims: vec![],
            data: Data::Float(vec![v]),
        });
    }
    if let Some(v) = node.int("value_int")? {
        return Ok(Tensor {
            dims: vec![],
            data: Data::Int(vec![Int::Known(v)]),
        });
    }
    if let Some(v) = node.floats("value_floats")? {
        return Ok(Tensor {
            dims: vec![v.len()],
            data: Data::Float(v.to_vec()),
        });
    }
    if let Some(v) = node.ints("value_ints")? {
        return Ok(Tensor {
            dims: vec![v.len()],
            data: Data::Int(v.iter().map(|v| Int::Known(*v)).collect()),
        });
    }
    Err(NodeError::unsupported("a constant that is not of numbers"))
}

fn cast(node: OnnxNode<'_>, x: &Tensor) -> Result<Tensor, NodeError> {
    use crate::proto::data_type as t;
    let to = node
        .int("to")?
        .ok_or_else(|| node.invalid("`to`", "none"))?;
    let float = [t::FLOAT, t::DOUBLE, t::FLOAT16, t::BFLOAT16].contains(&(to as i32));
    let data = match (&x.data, float) {
        (Data::Float(_), true) => x.data.clone(),
        (Data::Float(v), false) => Data::Int(v.iter().map(|v| Int::Known(*v as i64)).collect()),
        (Data::Int(v), false) => Data::Int(v.clone()),
        (Data::Int(_), true) => {
            let ints = (x.ints()).ok_or_else(|| NodeError::unsupported("the batch as a number"))?;
            Data::Float(ints.iter().map(|v| *v as f32).collect())
        }
    };
    Ok(Tensor {
        dims: x.dims.clone(),
        data,
    })
}

fn map(
    node: OnnxNode<'_>,
    x: &Tensor,
    float: impl Fn(f32) -> f32,
    int: impl Fn(i64) -> Option<i64>,
) -> Result<Tensor, NodeError> {
    let data = match &x.data {
        Data::Float(v) => Data::Float(v.iter().map(|v| float(*v)).collect()),
        Data::Int(_) => {
            let ints = x.ints().unwrap_or_default();
            let mapped: Option<Vec<Int>> = ints.iter().map(|v| int(*v).map(Int::Known)).collect();
            let mapped = mapped.filter(|m| m.len() == x.data.len());
            Data::Int(mapped.ok_or_else(|| node.invalid("numbers in its range", x.describe()))?)
        }
    };
    Ok(Tensor {
        dims: x.dims.clone(),
        data,
    })
}

fn constant_of_shape(
    node: OnnxNode<'_>,
    x: &Tensor,
    decoder: &Decoder,
) -> Result<Tensor, NodeError> {
    let dims = x
        .ints()
        .ok_or_else(|| NodeError::unsupported("a shape with the batch"))?;
    let dims: Result<Vec<usize>, _> = dims.iter().map(|d| usize::try_from(*d)).collect();
    let dims = dims.map_err(|_| node.invalid("dimensions of 0 or more", "a negative one"))?;
    let elements = take(node, &dims, decoder)?;
    let value = match node.tensor("value")? {
        Some(value) => decoder.dense(&node.label(), value)?.data,
        None => Data::Float(vec![0.0]),
    };
    let data = match value {
        Data::Float(v) if v.len() == 1 => Data::Float(vec![v[0]; elements]),
        Data::Int(v) if v.len() == 1 => Data::Int(vec![v[0]; elements]),
        other => return Err(node.invalid("one value", other.len().to_string()).into()),
    };
    Ok(Tensor { dims, data })
}

fn transpose(node: OnnxNode<'_>, x: &Tensor) -> Result<Tensor, NodeError> {
    let rank = x.dims.len();
    let perm = permutation(node, rank)?;
    let dims: Vec<usize> = perm.iter().map(|&p| x.dims[p]).collect();
    let mut strides = vec![1; rank];
    for i in (1..rank).rev() {
        strides[i - 1] = strides[i] * x.dims[i];
    }
    let place = |mut i: usize| {
        let mut at = 0;
        for (&extent, &p) in dims.iter().zip(&perm).rev() {
            at += i % extent * strides[p];
            i /= extent;
        }
        at
    };
    Ok(pick(x, dims.clone(), (0..x.data.len()).map(place)))
}

/// The permutation of `rank` axes of a Transpose.
pub(crate) fn permutation(node: OnnxNode<'_>, rank: usize) -> Result<Vec<usize>, Invalid> {
    let Some(perm) = node.ints("perm")? else {
        return Ok((0..rank).rev().collect());
    };
    let all = resolve(node, perm, rank)?;
    if all.len() != rank {
        return Err(node.invalid(format!("an order of {rank} axes"), format!("{perm:?}")));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::external::Folder;
    use crate::proto::{AttributeProto, NodeProto};

    #[test]
    fn remainders_have_the_sign_of_the_divisor_or_of_the_dividend() {
        let decoder = Decoder::new(Folder::of(Path::new("model.onnx")));
        let ints = |values: &[i64]| Tensor {
            dims: vec![values.len()],
            data: Data::Int(values.iter().map(|v| Int::Known(*v)).collect()),
        };
        let (a, b) = (
            ints(&[7, -7, 7, -7, 6, i64::MIN]),
            ints(&[4, 4, -4, -4, 3, -1]),
        );
        for (fmod, want) in [(0, [3, 1, -1, -3, 0, 0]), (1, [3, -3, 3, -3, 0, 0])] {
            let node = NodeProto {
                op_type: "Mod".into(),
                attribute: vec![AttributeProto {
                    name: "fmod".into(),
                    i: Some(fmod),
                    ..AttributeProto::default()
                }],
                ..NodeProto::default()
            };
            let made = fold(OnnxNode(&node), &[Some(&a), Some(&b)], &decoder).unwrap();
            assert_eq!(made.ints(), Some(want.to_vec()), "fmod {fmod}");
        }
    }
}
