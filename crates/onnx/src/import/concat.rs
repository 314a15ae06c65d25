//! Concatenation.

use std::rc::Rc;

use sparsevd_model::{Op, Shape, ops};

use super::importer::{Importer, Value};
use super::view::{MOST_TRACKED, View};
use crate::attributes::{OnnxNode, axis};
use crate::node_error::NodeError;
use crate::order::simplified;
use crate::tensor::{Data, Tensor};

impl<'m> Importer<'m> {
    /// Concatenation along any axis: the network has the parts one after the other, the file in its order.
    pub(super) fn concat(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        let given = node
            .int("axis")?
            .ok_or_else(|| node.invalid("an axis", "none"))?;
        let computed = |input: &Option<Value>| match input {
            Some(Value::Activation(view)) => Some(view.dims.clone()),
            _ => None,
        };
        let dims = inputs.iter().find_map(computed).unwrap_or_default();
        let rank = dims.len() + self.batch_axes;
        let at = axis(given, rank)
            .ok_or_else(|| node.invalid(format!("an axis of {rank}"), given.to_string()))?;
        let Some(at) = at.checked_sub(self.batch_axes) else {
            return Err(NodeError::unsupported("samples one after the other"));
        };
        let mut views = self.with_constants_around(node, inputs, at)?;
        if let [only] = &views[..] {
            return Ok(only.clone());
        }
        let fits = |v: &View| {
            v.dims.len() == dims.len() && (0..dims.len()).all(|i| i == at || v.dims[i] == dims[i])
        };
        if let Some(other) = views.iter().find(|v| !fits(v)) {
            return Err(NodeError::unsupported(format!(
                "inputs {} and {}",
                Shape(dims.clone()),
                Shape(other.dims.clone())
            )));
        }
        let plain = |v: &View| v.order.is_none() && v.shape == v.dims;
        let in_order = views.iter().filter(|v| v.order.is_none()).count();
        // Together they would have an order that no Transpose makes.
        let are_mixed = self.moves && (1..views.len()).contains(&in_order);
        if are_mixed {
            for view in &mut views {
                *view = self.in_shape(view, &view.dims.clone())?;
            }
        }
        if are_mixed || self.keeps_axes && at > 0 && views.iter().all(plain) {
            let views: Vec<&View> = views.iter().collect();
            return self.push(node, Op::Concat(ops::Concat { axis: at }), &views);
        }
        let mut dims = dims.clone();
        dims[at] = views
            .iter()
            .fold(0_usize, |n, v| n.saturating_add(v.dims[at]));
        let tail = |v: &View| v.shape.get(1..).map(<[usize]>::to_vec);
        let are_alike =
            tail(&views[0]).is_some() && views.iter().all(|v| tail(v) == tail(&views[0]));
        if !are_alike {
            for view in &mut views {
                *view = View {
                    dims: view.dims.clone(),
                    ..self.flat(view)?
                };
            }
        }
        // The file's order: rows of the parts by turns.
        let is_plain =
            views.iter().all(|v| v.order.is_none()) && dims[..at].iter().all(|d| *d == 1);
        let order = if is_plain {
            None
        } else {
            if Shape(dims.clone()).elements() > MOST_TRACKED {
                return Err(NodeError::unsupported(format!(
                    "an axis of {}, which has more than {MOST_TRACKED} elements",
                    Shape(dims)
                )));
            }
            let elements = self.decoder.take(&node.label(), &dims)?;
            let outer: usize = dims[..at].iter().product();
            let mut order = Vec::with_capacity(elements);
            for row in 0..outer {
                let mut offset = 0;
                for view in &views {
                    let width = view.elements() / outer.max(1);
                    order.extend((row * width..(row + 1) * width).map(|i| match &view.order {
                        Some(order) => offset + order[i],
                        None => offset + i as u32,
                    }));
                    offset += view.elements() as u32;
                }
            }
            simplified(order)
        };
        let views: Vec<&View> = views.iter().collect();
        let op = Op::Concat(ops::Concat::default());
        let made = self.push(node, op, &views)?;
        Ok(View {
            dims,
            order,
            ..made
        })
    }

    /// The computed inputs; those with constants before or behind them are padded, and the constants added.
    fn with_constants_around(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
        at: usize,
    ) -> Result<Vec<View>, NodeError> {
        let (mut views, mut waiting) = (Vec::<View>::new(), Vec::new());
        // Constants behind a computed value join it, those before the first of all wait for it.
        for input in inputs.iter().flatten() {
            match (input, views.last().cloned()) {
                (Value::Activation(view), None) => {
                    views.push(self.beside(node, view, at, &waiting, None)?);
                    waiting = Vec::new();
                }
                (Value::Activation(view), Some(_)) => views.push(view.clone()),
                (Value::Constant(constant), Some(last)) => {
                    views.pop();
                    views.push(self.beside(node, &last, at, &[], Some(constant))?);
                }
                (Value::Constant(constant), None) => waiting.push(Rc::clone(constant)),
                _ => return Err(NodeError::unsupported("inputs of other types")),
            }
        }
        Ok(views)
    }

    /// A value with constants before it and behind it along an axis.
    fn beside(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        at: usize,
        before: &[Rc<Tensor>],
        behind: Option<&Rc<Tensor>>,
    ) -> Result<View, NodeError> {
        if before.is_empty() && behind.is_none() {
            return Ok(x.clone());
        }
        if !self.moves {
            return Err(NodeError::unsupported("constants beside computed values"));
        }
        let mut dims = x.dims.clone();
        let (outer, inner): (usize, usize) =
            (dims[..at].iter().product(), dims[at + 1..].iter().product());
        let plane = |c: &Tensor| -> Result<usize, NodeError> {
            let own = c.dims.strip_prefix(&vec![1; self.batch_axes][..]);
            let fits = own.is_some_and(|own| {
                own.len() == dims.len() && (0..dims.len()).all(|i| i == at || own[i] == dims[i])
            });
            match (own, c.floats()) {
                (Some(own), Some(_)) if fits => Ok(own[at]),
                _ => Err(NodeError::unsupported(format!(
                    "a {} beside {}",
                    c.describe(),
                    Shape(dims.clone())
                ))),
            }
        };
        // Each constant with the place along the axis where it begins, and its size.
        let (mut placed, mut first, own) = (Vec::new(), 0, dims[at]);
        for constant in before {
            let size = plane(constant)?;
            placed.push((constant, first, size));
            first = usize::saturating_add(first, size);
        }
        let last = behind.map(|c| plane(c)).transpose()?.unwrap_or(0);
        placed.extend(behind.map(|c| (c, first.saturating_add(own), last)));
        dims[at] = first.saturating_add(own).saturating_add(last);
        if dims.contains(&0) {
            return Err(NodeError::unsupported("values without elements"));
        }
        let elements = self.decoder.take(&node.label(), &dims)?;
        // A map whose rows are those along the axis: its border of zeros becomes the constants.
        let map = self.moved_to(x, &[outer, own, inner])?;
        let pads = [first, 0, last, 0];
        let name = self.free_name(&format!("{}.padded", node.name()));
        let padded = self.push_named(name, Op::Pad(ops::Pad { pads, value: 0.0 }), &[&map])?;
        let mut values = vec![0.0; elements];
        for (constant, start, size) in placed {
            let numbers = constant.floats().unwrap_or_default();
            for o in 0..outer {
                let to = (o * dims[at] + start) * inner;
                let from = o * size * inner;
                values[to..to + size * inner].copy_from_slice(&numbers[from..from + size * inner]);
            }
        }
        let numbers = Tensor {
            dims: dims.clone(),
            data: Data::Float(values),
        };
        self.with(node, "Add", &padded.reshaped(dims), &numbers, false)
    }
}
