//! Parts of constants, and constants one after the other.

use super::axes::resolve;
use super::limits::take;
use crate::attributes::{OnnxNode, axis};
use crate::node_error::NodeError;
use crate::tensor::{Data, Decoder, Tensor, pick};

pub(super) fn gather(
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

pub(super) fn slice(
    node: OnnxNode<'_>,
    x: &Tensor,
    inputs: &[Option<&Tensor>],
) -> Result<Tensor, NodeError> {
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

pub(super) fn concat(
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
    use super::Picks;

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
}
