//! Operators that exporters write as several: GELU, layer normalisation, softmax, and rows of a table by a product with one-hot values.
//!
//! Such a group is known by its last node, whose value the operator then makes; nodes that only the group reads are not imported. To know
//! a group takes shapes and constants, so a file with new ones is imported again.

mod gelu;
mod normalisation;
mod one_hot;
mod product;
mod reader;
mod statistic;

use sparsevd_model::{Op, ops};

use super::importer::{Importer, Value};
use super::layer_normalization::Parameter;
use super::view::{View, ids, integers};
use super::whole::{LayerNormalization, Rows, Whole};
use crate::attributes::OnnxNode;
use crate::node_error::NodeError;
use crate::tensor::{Data, Tensor};
use reader::Reader;

impl<'m> Importer<'m> {
    /// The value of a node that is the last of an operator written as several; `None` where it is not, or where that operator cannot be
    /// imported and its parts may be.
    pub(super) fn decomposed(&mut self, node: OnnxNode<'m>) -> Option<View> {
        let value = node.0.output.first()?.as_str();
        let whole = recognized(self, value)?;
        let nodes = self.nodes.len();
        match self.import_whole(node, &whole)? {
            Ok(made) => {
                self.found.insert(value, whole);
                return Some(made);
            }
            // Before what its parts asked for.
            Err(NodeError::Layout(input, layout)) => self.wanted = Some((input, layout)),
            Err(_) => {}
        }
        self.nodes.truncate(nodes);
        None
    }

    /// The value of an operator that is written as several; `None` where its input is unknown.
    pub(super) fn import_whole(
        &mut self,
        node: OnnxNode<'m>,
        whole: &Whole<'m>,
    ) -> Option<Result<View, NodeError>> {
        let Some(Value::Activation(x)) = self.values.get(whole.x()).cloned() else {
            return None;
        };
        Some(match whole {
            Whole::Rows(rows) => self.whole_rows(node, &x, rows),
            _ if x.dtype.is_id() => Err(ids(&x)),
            _ if x.is_quantised => Err(integers(&x)),
            Whole::Gelu { approximate, .. } => {
                let approximate = *approximate;
                self.map(node, &x, Op::Gelu(ops::Gelu { approximate }))
            }
            Whole::LayerNormalization(whole) => self.whole_normalization(node, &x, whole),
            Whole::Softmax { axis, .. } => self.softmax_along(node, &x, *axis),
        })
    }

    fn whole_rows(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        rows: &Rows<'m>,
    ) -> Result<View, NodeError> {
        let Some(Value::Constant(table)) = self.values.get(rows.table).cloned() else {
            return Err(NodeError::unsupported("a table that is no constant"));
        };
        let inner = x.dims.len() - usize::from(rows.has_axis);
        let ids = x.reshaped(x.dims[..inner].to_vec());
        self.embedding(node, &table, rows.table, &ids)
    }

    fn whole_normalization(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        whole: &LayerNormalization<'m>,
    ) -> Result<View, NodeError> {
        // The axes that are normalised become the last.
        let rank = x.dims.len();
        let others = (0..rank).filter(|i| !whole.axes.contains(i));
        let perm: Vec<usize> = others.chain(whole.axes.iter().copied()).collect();
        let turned = x.transposed(&node.label(), &perm, self.decoder)?;
        let constant = |name: &str| -> Result<Tensor, NodeError> {
            let tensor = match self.values.get(name) {
                Some(Value::Constant(tensor)) => along(tensor, rank, self.batch_axes, &whole.axes),
                _ => None,
            };
            let why = || format!("a constant `{name}` over other axes than {:?}", whole.axes);
            tensor.ok_or_else(|| NodeError::unsupported(why()))
        };
        let one = Tensor {
            dims: vec![],
            data: Data::Float(vec![1.0]),
        };
        let mut scale = whole.scale.map_or(Ok(one), constant)?;
        if let Data::Float(values) = &mut scale.data {
            values.iter_mut().for_each(|v| *v *= whole.number);
        }
        let scale_name = whole
            .scale
            .filter(|_| whole.number == 1.0)
            .map_or_else(|| format!("{}.scale", node.name()), str::to_owned);
        let bias = whole
            .bias
            .map(|name| Ok::<_, NodeError>((name, constant(name)?)));
        let bias = bias.transpose()?;
        let scale = Parameter {
            name: &scale_name,
            tensor: &scale,
        };
        let bias = bias
            .as_ref()
            .map(|(name, tensor)| Parameter { name, tensor });
        let from = rank - whole.axes.len();
        let made = self.normalized(node, &turned, from, scale, bias, whole.epsilon)?;
        let back: Vec<usize> = (0..rank)
            .filter_map(|axis| perm.iter().position(|&p| p == axis))
            .collect();
        Ok(made.transposed(&node.label(), &back, self.decoder)?)
    }
}

/// The operator of which `value` is the last; `None` where it is none.
fn recognized<'m>(importer: &Importer<'m>, value: &'m str) -> Option<Whole<'m>> {
    // Every group ends in one of these.
    let node = importer.producers.get(value)?;
    if !["Add", "Div", "MatMul", "Mul"].contains(&node.0.op_type.as_str()) {
        return None;
    }
    let readers = [(); 4].map(|()| Reader::new(importer));
    let [gelu, normalization, softmax, rows] = &readers;
    let gelu_of = || {
        let (x, approximate) = gelu.gelu(value)?;
        Some((gelu, Whole::Gelu { x, approximate }))
    };
    let normalization_of = || {
        let whole = normalization.layer_normalization(value)?;
        Some((normalization, Whole::LayerNormalization(whole)))
    };
    let softmax_of = || {
        let (x, axis) = softmax.softmax(value)?;
        Some((softmax, Whole::Softmax { x, axis }))
    };
    let rows_of = || Some((rows, Whole::Rows(rows.rows(value)?)));
    let found = gelu_of().or_else(normalization_of).or_else(softmax_of);
    let (reader, whole) = found.or_else(rows_of)?;
    let rank = reader.dims(whole.x())?.len() + importer.batch_axes;
    (reader.rank() <= rank).then_some(whole)
}

/// A constant that is broadcast to a value of `rank` dimensions behind those of the batch, as one of the dimensions `axes`; `None` where it
/// differs along others.
fn along(tensor: &Tensor, rank: usize, batch_axes: usize, axes: &[usize]) -> Option<Tensor> {
    let missing = rank.saturating_sub(tensor.dims.len());
    let extra = tensor.dims.len().saturating_sub(rank);
    let (before, own) = tensor.dims.split_at(extra);
    let size = |axis: usize| axis.checked_sub(missing).map_or(1, |i| own[i]);
    let fits = before.len() <= batch_axes
        && before.iter().all(|d| *d == 1)
        && (0..rank).all(|axis| size(axis) == 1 || axes.contains(&axis));
    fits.then(|| Tensor {
        dims: axes.iter().map(|&axis| size(axis)).collect(),
        data: tensor.data.clone(),
    })
}
