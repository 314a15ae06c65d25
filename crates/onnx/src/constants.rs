//! Constant folding: operators whose inputs are all constants, as in shape computations and rearranged weights.

use crate::attributes::{OnnxNode, axis};
use crate::node_error::{Invalid, NodeError};
use crate::tensor::{Data, Decoder, Int, Tensor};

/// Most axes that an operator may name, or a value may get.
pub(crate) const MOST_AXES: usize = 16;

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

/// The number of elements of a constant of these dimensions, which is subtracted from the budget.
fn take(node: OnnxNode<'_>, dims: &[usize], decoder: &Decoder) -> Result<usize, Invalid> {
    if dims.len() > MOST_AXES {
        let expected = format!("a result of at most {MOST_AXES} dimensions");
        return Err(node.invalid(expected, dims.len().to_string()));
    }
    decoder.take(&node.label(), dims)
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

/// Axes from the attribute, or from the input that replaced it in later opsets.
pub(crate) fn axes(
    node: OnnxNode<'_>,
    input: Option<&Tensor>,
) -> Result<Option<Vec<i64>>, Invalid> {
    let axes = match (node.ints("axes")?, input) {
        (Some(axes), _) => axes.to_vec(),
        (None, None) => return Ok(None),
        (None, Some(input)) => {
            (input.ints()).ok_or_else(|| node.invalid("integers as axes", input.describe()))?
        }
    };
    if axes.len() > MOST_AXES {
        return Err(node.invalid(format!("at most {MOST_AXES} axes"), axes.len().to_string()));
    }
    Ok(Some(axes))
}

/// Axes counted from the front.
pub(crate) fn resolve(
    node: OnnxNode<'_>,
    axes: &[i64],
    rank: usize,
) -> Result<Vec<usize>, Invalid> {
    let mut resolved = Vec::new();
    for &a in axes {
        match axis(a, rank) {
            Some(a) if !resolved.contains(&a) => resolved.push(a),
            _ => return Err(node.invalid(format!("different axes of {rank}"), format!("{axes:?}"))),
        }
    }
    Ok(resolved)
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

fn arithmetic(
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
fn expand(
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
fn choose(
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

/// The elements at the given indices.
fn pick(x: &Tensor, dims: Vec<usize>, places: impl Iterator<Item = usize>) -> Tensor {
    let data = match &x.data {
        Data::Float(v) => Data::Float(places.map(|i| v[i]).collect()),
        Data::Int(v) => Data::Int(places.map(|i| v[i]).collect()),
    };
    Tensor { dims, data }
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

fn gather(
    node: OnnxNode<'_>,
    x: &Tensor,
    indices: Option<&Tensor>,
    decoder: &Decoder,
) -> Result<Tensor, NodeError> {
    let at = node.int("axis")?.unwrap_or(0);
    let at = axis(at, x.dims.len()).ok_or_else(|| node.invalid("an axis", at.to_string()))?;
    let indices = indices.ok_or_else(|| node.invalid("indices", "none"))?;
    let extent = x.dims[at];
    let chosen: Option<Vec<usize>> = indices
        .ints()
        .and_then(|ints| ints.iter().map(|&i| axis(i, extent)).collect());
    let chosen =
        chosen.ok_or_else(|| node.invalid(format!("indices within {extent}"), "others"))?;
    let mut dims = x.dims[..at].to_vec();
    dims.extend(&indices.dims);
    dims.extend(&x.dims[at + 1..]);
    if take(node, &dims, decoder)? == 0 {
        return Ok(pick(x, dims, std::iter::empty()));
    }
    let inner: usize = x.dims[at + 1..].iter().product();
    let outer: usize = x.dims[..at].iter().product();
    let places = (0..outer).flat_map(|o| {
        let chosen = &chosen;
        chosen
            .iter()
            .flat_map(move |&c| (0..inner).map(move |i| (o * extent + c) * inner + i))
    });
    Ok(pick(x, dims, places))
}

/// What a Slice keeps along one axis.
pub(crate) struct AxisSlice {
    pub axis: usize,
    pub start: i64,
    pub end: i64,
    pub step: i64,
}

/// What a Slice of a value of `rank` dimensions keeps along each axis that it names.
pub(crate) fn slices(
    node: OnnxNode<'_>,
    rank: usize,
    inputs: &[Option<&Tensor>],
) -> Result<Vec<AxisSlice>, NodeError> {
    let list = |i: usize, name: &str| -> Result<Option<Vec<i64>>, NodeError> {
        match (node.ints(name)?, inputs.get(i).copied().flatten()) {
            (Some(v), _) => Ok(Some(v.to_vec())),
            (None, None) => Ok(None),
            (None, Some(t)) => match t.ints() {
                Some(v) => Ok(Some(v)),
                None => Err(node
                    .invalid(format!("integers as {name}"), t.describe())
                    .into()),
            },
        }
    };
    let (Some(starts), Some(ends)) = (list(1, "starts")?, list(2, "ends")?) else {
        return Err(node.invalid("starts and ends", "none").into());
    };
    let axes = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    let axes = resolve(node, &axes, rank)?;
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(node
            .invalid("as many starts, ends, axes and steps", "different numbers")
            .into());
    }
    let named = (axes.into_iter().zip(starts)).zip(ends.into_iter().zip(steps));
    let all = named.map(|((axis, start), (end, step))| AxisSlice {
        axis,
        start,
        end,
        step,
    });
    Ok(all.collect())
}

fn slice(node: OnnxNode<'_>, x: &Tensor, inputs: &[Option<&Tensor>]) -> Result<Tensor, NodeError> {
    let mut picks: Vec<Picks> = (x.dims.iter())
        .map(|&count| Picks {
            first: 0,
            step: 1,
            count,
        })
        .collect();
    for slice in slices(node, x.dims.len(), inputs)? {
        let AxisSlice {
            axis,
            start,
            end,
            step,
        } = slice;
        picks[axis] = Picks::new(x.dims[axis], start, end, step)
            .ok_or_else(|| node.invalid("a step other than 0", step.to_string()))?;
    }
    let dims: Vec<usize> = picks.iter().map(|p| p.count).collect();
    let place = |mut i: usize| {
        let (mut at, mut stride) = (0, 1);
        for (picks, &extent) in picks.iter().zip(&x.dims).rev() {
            at += picks.place(i % picks.count) * stride;
            i /= picks.count;
            stride *= extent;
        }
        at
    };
    let elements: usize = dims.iter().product();
    Ok(pick(x, dims, (0..elements).map(place)))
}

/// The indices that a slice selects along one axis.
struct Picks {
    first: i64,
    step: i64,
    count: usize,
}

impl Picks {
    /// A slice along an axis of `n` elements, as in Python; `None` for a step of 0.
    fn new(n: usize, start: i64, end: i64, step: i64) -> Option<Self> {
        let n = n as i64;
        let (least, most) = match step.signum() {
            0 => return None,
            1 => (0, n),
            _ => (-1, n - 1),
        };
        let from_front = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
        let [first, end] = [start, end].map(|v| from_front(v).clamp(least, most));
        let reach = if step > 0 { end - first } else { first - end };
        let count = match u64::try_from(reach - 1) {
            Ok(reach) => reach / step.unsigned_abs() + 1,
            Err(_) => 0,
        };
        let count = count as usize;
        Some(Self { first, step, count })
    }

    /// The index of pick `i`, which is below the count.
    fn place(&self, i: usize) -> usize {
        (self.first + i as i64 * self.step) as usize
    }
}

fn concat(
    node: OnnxNode<'_>,
    inputs: &[Option<&Tensor>],
    decoder: &Decoder,
) -> Result<Tensor, NodeError> {
    let parts: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
    let first = &parts[0].dims;
    let at = node
        .int("axis")?
        .ok_or_else(|| node.invalid("an axis", "none"))?;
    let at = axis(at, first.len()).ok_or_else(|| node.invalid("an axis", at.to_string()))?;
    let fits = |p: &&&Tensor| {
        let same = |i: usize| i == at || p.dims[i] == first[i];
        p.dims.len() == first.len() && (0..first.len()).all(same)
    };
    if let Some(other) = parts.iter().find(|p| !fits(p)) {
        return Err(node
            .invalid(
                format!("shapes like {first:?}"),
                format!("{:?}", other.dims),
            )
            .into());
    }
    let mut dims = first.clone();
    dims[at] = parts.iter().fold(0, |n, p| n.saturating_add(p.dims[at]));
    if take(node, &dims, decoder)? == 0 {
        return Ok(pick(parts[0], dims, std::iter::empty()));
    }
    let outer: usize = dims[..at].iter().product();
    let row = |p: &Tensor| p.dims[at..].iter().product::<usize>();
    let rows = (0..outer).flat_map(|o| parts.iter().map(move |p| (p, o)));
    let data = if parts.iter().all(|p| matches!(p.data, Data::Float(_))) {
        let mut out = Vec::new();
        for (p, o) in rows {
            let row = row(p);
            out.extend_from_slice(&p.floats().unwrap_or_default()[o * row..(o + 1) * row]);
        }
        Data::Float(out)
    } else {
        let mut out = Vec::new();
        for (p, o) in rows {
            let Data::Int(v) = &p.data else {
                return Err(node.invalid("operands of one type", "two types").into());
            };
            let row = row(p);
            out.extend_from_slice(&v[o * row..(o + 1) * row]);
        }
        Data::Int(out)
    };
    Ok(Tensor { dims, data })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::external::Folder;
    use crate::proto::{AttributeProto, NodeProto};

    #[test]
    fn slices_run_both_ways_and_stop_at_the_ends() {
        let places = |n, start, end, step| {
            let picks = Picks::new(n, start, end, step)?;
            Some((0..picks.count).map(|i| picks.place(i)).collect::<Vec<_>>())
        };
        let cases: &[(i64, i64, i64, &[usize])] = &[
            (0, 4, 1, &[0, 1, 2, 3]),
            (1, -1, 1, &[1, 2]),
            (-2, i64::MAX, 1, &[2, 3]),
            (0, 4, 3, &[0, 3]),
            (-1, i64::MIN, -1, &[3, 2, 1, 0]),
            (9, 0, -2, &[3, 1]),
            (3, 1, 1, &[]),
            (0, 2, i64::MAX, &[0]),
            (3, 0, i64::MIN, &[3]),
        ];
        let wrong: Vec<String> = cases
            .iter()
            .filter(|(start, end, step, want)| {
                places(4, *start, *end, *step).as_deref() != Some(*want)
            })
            .map(|case| format!("{case:?}"))
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(places(0, 0, 9, 1), Some(vec![]));
        assert_eq!(places(0, 0, i64::MIN, -1), Some(vec![]));
        assert_eq!(places(4, 0, 4, 0), None);
    }

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
