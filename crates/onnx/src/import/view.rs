//! Values of the network as the file sees them: reshaped, or with their axes in another order.

use std::rc::Rc;

use sparsevd_model::DType;

use super::grid::Grid;
use crate::node_error::{Invalid, NodeError};
use crate::order::{permuted, simplified};
use crate::tensor::Decoder;

/// Most elements of a value whose order, or numbers beside them, are tracked one by one.
pub(super) const MOST_TRACKED: usize = 1 << 24;

/// A value of the network as the file sees it. Reshaping or transposing it adds no node to the network.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    /// Name of the network's input or node.
    pub name: String,
    /// Its shape in the network, per sample.
    pub shape: Vec<usize>,
    /// Its dimensions in the file: those behind the batch, or all where the file has no batch.
    pub dims: Vec<usize>,
    /// For each element in the file's order its index in the network's order; `None` where the orders agree.
    pub order: Option<Rc<[u32]>>,
    /// What its elements are: numbers, or ids.
    pub dtype: DType,
    /// The input of the network that this value is, up to changes of each element by itself: its layout can be chosen.
    pub input: Option<usize>,
    /// The grid of the integers that its numbers were rounded to in the file.
    pub grid: Option<Grid>,
    /// Whether the file has these integers in the place of their numbers.
    pub is_quantised: bool,
    /// Whether the batch and the first of the dimensions are one axis in the file.
    pub is_merged: bool,
}

impl View {
    /// A value that file and network see alike.
    pub fn new(name: String, shape: Vec<usize>) -> Self {
        Self {
            name,
            dims: shape.clone(),
            shape,
            order: None,
            dtype: DType::F32,
            input: None,
            grid: None,
            is_quantised: false,
            is_merged: false,
        }
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The same value in other dimensions of as many elements.
    pub fn reshaped(&self, dims: Vec<usize>) -> Self {
        Self {
            dims,
            ..self.clone()
        }
    }

    /// The output `made` of a node that changes each element of this value by itself, as the file sees it.
    pub fn elementwise(&self, made: Self) -> Self {
        Self {
            dims: self.dims.clone(),
            order: self.order.clone(),
            input: self.input,
            ..made
        }
    }

    /// The output `made` of a node that only moves or picks elements of this value: they stay on its grid.
    pub fn picked(&self, made: Self) -> Self {
        Self {
            grid: self.grid,
            is_quantised: self.is_quantised,
            ..made
        }
    }

    /// The value with its axes permuted: axis `i` of the result is axis `perm[i]`.
    pub fn transposed(
        &self,
        what: &str,
        perm: &[usize],
        decoder: &Decoder,
    ) -> Result<Self, Invalid> {
        let dims: Vec<usize> = perm.iter().map(|&p| self.dims[p]).collect();
        // Axes of one element may go anywhere.
        let wide: Vec<usize> = perm
            .iter()
            .copied()
            .filter(|&p| self.dims[p] != 1)
            .collect();
        if wide.is_sorted() {
            return Ok(self.reshaped(dims));
        }
        if self.elements() > MOST_TRACKED {
            return Err(Invalid::new(
                what,
                format!("at most {MOST_TRACKED} elements in another order"),
                self.elements().to_string(),
            ));
        }
        decoder.take(what, &dims)?;
        let before = |i| match &self.order {
            Some(order) => order[i],
            None => i as u32,
        };
        let order = permuted(&self.dims, perm).map(before).collect();
        Ok(Self {
            dims,
            order: simplified(order),
            ..self.clone()
        })
    }

    /// Elements in the file's order, put in the network's.
    pub fn in_network_order<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
        let Some(order) = &self.order else {
            return values;
        };
        let mut out = values.clone();
        for (&to, value) in order.iter().zip(values) {
            out[to as usize] = value;
        }
        out
    }

    /// The channels of the value, where they are the first axis in the file and in the network.
    pub fn channels_first(&self) -> Option<usize> {
        let channels = self.dims.first().copied();
        channels.filter(|_| self.order.is_none() && channels == self.shape.first().copied())
    }

    /// The network's axis that each axis of the file's is, where the value is the network's with its axes permuted.
    pub fn axes(&self, what: &str, decoder: &Decoder) -> Result<Option<Vec<usize>>, Invalid> {
        let rank = self.dims.len();
        if self.order.is_none() {
            return Ok((self.dims == self.shape).then(|| (0..rank).collect()));
        }
        if rank != self.shape.len() || rank > 4 {
            return Ok(None);
        }
        decoder.take(what, &self.shape)?;
        Ok(permutations(rank).into_iter().find(|perm| {
            perm.iter()
                .zip(&self.dims)
                .all(|(&p, &d)| self.shape[p] == d)
                && simplified(permuted(&self.shape, perm).map(|i| i as u32).collect()) == self.order
        }))
    }
}

/// Why an operator does not take a value of integers.
pub(super) fn ids(x: &View) -> NodeError {
    NodeError::unsupported(format!(
        "its input `{}` of type {}, which can only number the rows of a table",
        x.name, x.dtype
    ))
}

/// Why an operator does not take a value whose samples are parts of an axis.
pub(super) fn merged(x: &View) -> NodeError {
    NodeError::unsupported(format!(
        "its input `{}`, an axis of which mixes samples",
        x.name
    ))
}

/// Why an operator does not take integers.
pub(super) fn integers(x: &View) -> NodeError {
    NodeError::unsupported(format!(
        "its input `{}` of quantised integers, which no operator but DequantizeLinear computes with",
        x.name
    ))
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for k in 0..n {
        all = (all.into_iter())
            .flat_map(|p: Vec<usize>| {
                (0..=k).map(move |at| {
                    let mut p = p.clone();
                    p.insert(at, k);
                    p
                })
            })
            .collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::external::Folder;
    use crate::order::inverse;

    #[test]
    fn transposes_compose_and_cancel() {
        let decoder = Decoder::new(Folder::of(Path::new("model.onnx")));
        let map = View::new("x".into(), vec![2, 3, 4]);
        let last = map.transposed("t", &[1, 2, 0], &decoder).unwrap();
        assert_eq!(last.dims, [3, 4, 2]);
        assert_eq!(last.order.as_ref().unwrap()[..4], [0, 12, 1, 13]);
        assert_eq!(last.axes("t", &decoder), Ok(Some(vec![1, 2, 0])));
        assert_eq!(last.transposed("t", &[2, 0, 1], &decoder).unwrap(), map);
        let numbers: Vec<u32> = (0..24).collect();
        let there = last.in_network_order(numbers.clone());
        assert_eq!(there[..4], [0, 2, 4, 6]);
        assert_eq!(
            inverse(&inverse(last.order.as_ref().unwrap())),
            last.order.unwrap()[..]
        );
        let flat = map.reshaped(vec![24]);
        assert_eq!(flat.axes("t", &decoder), Ok(None));
    }

    #[test]
    fn axes_of_one_element_move_no_number() {
        let decoder = Decoder::new(Folder::of(Path::new("model.onnx")));
        let map = View::new("x".into(), vec![1, 3, 4]);
        let last = map.transposed("t", &[1, 2, 0], &decoder).unwrap();
        assert_eq!((last.dims, last.order), (vec![3, 4, 1], None));
    }
}
