//! Concatenation.

use sparsevd_model::{Op, Shape, ops};

use super::importer::{Importer, Value};
use super::view::{MOST_TRACKED, View};
use crate::attributes::{OnnxNode, axis};
use crate::node_error::NodeError;
use crate::order::simplified;

impl<'m> Importer<'m> {
    /// Concatenation along any axis: the network has the parts one after the other, the file in its order.
    pub(super) fn concat(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        let mut views = Vec::new();
        for input in inputs.iter().flatten() {
            match input {
                Value::Activation(view) => views.push(view.clone()),
                _ => return Err(NodeError::unsupported("constants beside computed values")),
            }
        }
        let given = node
            .int("axis")?
            .ok_or_else(|| node.invalid("an axis", "none"))?;
        let dims = &views[0].dims;
        let rank = dims.len() + self.batch_axes;
        let at = axis(given, rank)
            .ok_or_else(|| node.invalid(format!("an axis of {rank}"), given.to_string()))?;
        let Some(at) = at.checked_sub(self.batch_axes) else {
            return Err(NodeError::unsupported("samples one after the other"));
        };
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
        if self.keeps_axes && at > 0 && views.iter().all(plain) {
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
}
