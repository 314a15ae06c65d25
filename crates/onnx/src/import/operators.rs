//! Which operators are imported, and what imports each.

use std::rc::Rc;

use super::grid::Grid;
use super::importer::{Importer, Value};
use super::shapes;
use super::view::{View, ids, integers, merged};
use crate::attributes::OnnxNode;
use crate::constants;
use crate::node_error::NodeError;
use crate::tensor::{Int, Tensor};

/// Operators over computed values that [`Importer::activation`] imports.
const OPERATORS: &[&str] = &[
    "Abs",
    "Add",
    "Attention",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Celu",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "DepthToSpace",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "PRelu",
    "Pad",
    "Pow",
    "QuantizeLinear",
    "RMSNormalization",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "Selu",
    "Shape",
    "Shrink",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Swish",
    "Tanh",
    "Transpose",
    "Unsqueeze",
];

/// Those of them that take integers: all but `Gather` keep the elements of a value.
const OVER_IDS: &[&str] = &[
    "Cast",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Shape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// Those that take the integers of a quantised value, and move or pick them.
const OVER_QUANTISED: &[&str] = &[
    "Flatten",
    "GlobalMaxPool",
    "Identity",
    "MaxPool",
    "Reshape",
    "Shape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// Those that take a value whose batch and first dimension are one axis.
const OVER_MERGED: &[&str] = &["Identity", "Reshape", "Transpose"];

/// Those of them that keep the type of a constant.
const OF_ONE_TYPE: &[&str] = &[
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// The grid that all values are on.
fn one_grid(inputs: &[Option<Value>]) -> Option<Grid> {
    let grid = |v: &Option<Value>| match v {
        Some(Value::Activation(view)) => view.grid,
        _ => None,
    };
    let first = grid(inputs.first()?)?;
    (inputs.iter().all(|v| grid(v) == Some(first))).then_some(first)
}

impl<'m> Importer<'m> {
    /// Why a node does not take a value that it reads, `names` of the file, where an axis of that mixes samples.
    pub(super) fn refuse_merged<'n>(
        &self,
        node: OnnxNode<'_>,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<(), NodeError> {
        if OVER_MERGED.contains(&node.0.op_type.as_str()) {
            return Ok(());
        }
        for name in names {
            match self.values.get(name) {
                Some(Value::Activation(view)) if view.is_merged => return Err(merged(view)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The value of a node by itself.
    pub(super) fn make(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<Value, NodeError> {
        let op = node.op();
        let known = |list: &[&str]| list.contains(&op.as_str());
        if !known(OPERATORS) && !known(constants::OPERATORS) {
            return Err(NodeError::unsupported(""));
        }
        for input in inputs.iter().flatten() {
            if let Value::Unusable(why) = input {
                return Err(NodeError::unsupported(&**why));
            }
        }
        if inputs.iter().flatten().any(|v| matches!(v, Value::Unknown)) {
            return Ok(Value::Unknown);
        }
        match op.as_str() {
            "CastLike" => return self.cast_like(node, inputs),
            "QuantizeLinear" => return self.quantize(node, inputs),
            "DequantizeLinear" => return self.dequantize(node, inputs),
            _ => {}
        }
        let constant = |v: &Option<Value>| match v {
            Some(Value::Constant(t)) => Some(Rc::clone(t)),
            _ => None,
        };
        let is_activation = |v: &Value| matches!(v, Value::Activation(_));
        if inputs.iter().flatten().any(is_activation) {
            return self.activation(node, inputs);
        }
        if !known(constants::OPERATORS) {
            return Err(NodeError::unsupported("constants alone as inputs"));
        }
        let tensors: Vec<Option<Rc<Tensor>>> = inputs.iter().map(constant).collect();
        let tensors: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_deref).collect();
        let folded = constants::fold(node, &tensors, self.decoder)?;
        if let ("Transpose", Some(made), Some(of)) =
            (op.as_str(), node.0.output.first(), node.input(0))
        {
            self.transposed.insert(made, of);
        }
        let kind = match op.as_str() {
            "Constant" => node.tensor("value")?.map(|t| t.data_type),
            "Cast" => node.int("to")?.and_then(|to| i32::try_from(to).ok()),
            _ if known(OF_ONE_TYPE) => node.input(0).and_then(|x| self.types.get(x).copied()),
            _ => None,
        };
        if let (Some(made), Some(kind)) = (node.0.output.first(), kind) {
            self.types.insert(made, kind);
        }
        Ok(Value::Constant(Rc::new(folded)))
    }

    /// The value of a node of which at least one input is computed.
    fn activation(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<Value, NodeError> {
        let op = node.0.op_type.as_str();
        let is_id = |v: &&Value| matches!(v, Value::Activation(view) if view.dtype.is_id());
        if !OVER_IDS.contains(&op)
            && let Some(Value::Activation(x)) = inputs.iter().flatten().find(is_id)
        {
            return Err(ids(x));
        }
        let is_quantised = |v: &&Value| matches!(v, Value::Activation(view) if view.is_quantised);
        if !OVER_QUANTISED.contains(&op)
            && let Some(Value::Activation(x)) = inputs.iter().flatten().find(is_quantised)
        {
            return Err(integers(x));
        }
        if let ("Gather", [Some(Value::Constant(table)), Some(Value::Activation(x)), ..]) =
            (op, inputs)
        {
            return Ok(Value::Activation(self.gather(node, table, x)?));
        }
        let view = match op {
            "Add" | "Sub" | "Mul" | "Div" => Some(self.arithmetic(node, inputs)?),
            "Sum" | "Mean" => Some(self.sum(node, inputs)?),
            "Max" | "Min" => Some(self.bound(node, inputs)?),
            "Concat" => Some(View {
                grid: one_grid(inputs),
                ..self.concat(node, inputs)?
            }),
            _ => self.of_computed(node, inputs)?,
        };
        if let Some(view) = view {
            return Ok(Value::Activation(view));
        }
        let Some(Some(Value::Activation(x))) = inputs.first() else {
            return Err(NodeError::unsupported("a constant as its first input"));
        };
        if let Some(Some(Value::Activation(_))) = inputs.get(1) {
            return Err(NodeError::unsupported("a computed second input"));
        }
        let constant = |i: usize| match inputs.get(i) {
            Some(Some(Value::Constant(t))) => Some(&**t),
            _ => None,
        };
        let view = match op {
            "Conv" => self.conv(node, x, constant)?,
            "ConvTranspose" => self.conv_transpose(node, x, constant)?,
            "Gemm" => self.gemm(node, x, constant)?,
            "MatMul" => self.matmul(node, x, constant)?,
            "BatchNormalization" => self.batch_normalization(node, x, constant)?,
            "LayerNormalization" => self.layer_normalization(node, x, constant)?,
            "MaxPool" | "AveragePool" => self.pool(node, x)?,
            "GlobalAveragePool" | "GlobalMaxPool" => self.global_pool(node, x)?,
            "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax"
            | "ReduceMean" | "ReduceMin" | "ReduceSum" | "ReduceSumSquare" => {
                self.reduce(node, x, constant(1))?
            }
            "Pad" => self.pad(node, x, constant)?,
            "Softmax" | "LogSoftmax" => self.softmax(node, x)?,
            "Celu" => self.celu(node, x)?,
            "Selu" => self.selu(node, x)?,
            "Mish" => self.mish(node, x)?,
            "LpNormalization" => self.lp_normalization(node, x)?,
            "DepthToSpace" | "SpaceToDepth" => self.depth_and_space(node, x)?,
            "Resize" => self.resize(node, x, constant)?,
            "Neg" => self.affine(node, x, vec![-1.0], vec![0.0])?,
            "Pow" => self.power(node, x, constant(1))?,
            "PRelu" => self.prelu(node, x, constant(1))?,
            "Reciprocal" => self.quotient(node, vec![1.0], x)?,
            "Shrink" => self.shrink(node, x)?,
            "Softsign" => self.softsign(node, x)?,
            "Swish" => self.swish(node, x)?,
            "Abs" | "Relu" | "LeakyRelu" | "Clip" | "Sigmoid" | "HardSigmoid" | "HardSwish"
            | "Tanh" | "Gelu" | "Elu" | "Erf" | "Exp" | "Log" | "Softplus" | "Sqrt" => {
                self.function(node, x, constant)?
            }
            "Identity" => x.clone(),
            "Dropout" => self.dropout(node, x, constant(2))?,
            "Cast" => shapes::cast(node, x)?,
            "Expand" => self.expand(node, x, constant(1))?,
            "Flatten" => self.flatten(node, x)?,
            "Squeeze" => self.squeeze(node, x, constant(1))?,
            "Unsqueeze" => self.unsqueeze(node, x, constant(1))?,
            "Transpose" => self.transpose(node, x)?,
            "Slice" => self.slice(node, x, constant)?,
            "Split" => self.split(node, x, constant(1))?,
            "Gather" => match constant(1) {
                Some(indices) => self.elements_of(node, x, indices)?,
                None => return Err(NodeError::unsupported("computed inputs")),
            },
            "Reshape" => match constant(1) {
                Some(target) => self.reshape(node, x, target)?,
                None => return Err(node.invalid("a shape", "none").into()),
            },
            "Shape" => {
                let batch = vec![Int::Batch; self.batch_axes];
                let known = x.dims.iter().map(|&d| Int::Known(d as i64));
                let dims = batch.into_iter().chain(known).collect();
                return Ok(Value::Constant(Rc::new(constants::shape(node, dims)?)));
            }
            _ => return Err(NodeError::unsupported("computed inputs")),
        };
        Ok(Value::Activation(view))
    }

    /// The value of an operator that takes computed values in the place of constants, where it has such, or makes several outputs.
    fn of_computed(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<Option<View>, NodeError> {
        let is_computed = |i: usize| matches!(inputs.get(i), Some(Some(Value::Activation(_))));
        let op = node.0.op_type.as_str();
        if op == "MatMul" && is_computed(1) {
            return self.product_of(node, inputs).map(Some);
        }
        if op == "Attention" {
            return self.attention(node, inputs).map(Some);
        }
        let Some(Some(Value::Activation(x))) = inputs.first() else {
            return Ok(None);
        };
        let made = match (op, inputs) {
            ("Gemm", [_, Some(Value::Activation(b)), rest @ ..]) => {
                let summand = rest.first().and_then(Option::as_ref);
                self.gemm_of(node, x, b, summand)
            }
            ("Clip", _) if is_computed(1) || is_computed(2) => self.clip_between(node, x, inputs),
            ("PRelu", [_, Some(Value::Activation(slope))]) => self.prelu_of(node, x, slope),
            ("BatchNormalization", _) if (1..=4).any(is_computed) => {
                self.batch_normalization_of(node, x, inputs)
            }
            ("LayerNormalization", _)
                if is_computed(1) || is_computed(2) || self.reads_others(node) =>
            {
                self.layer_normalization_of(node, x, inputs)
            }
            ("RMSNormalization", _) => self.rms_normalization(node, x, inputs),
            ("InstanceNormalization" | "GroupNormalization", _) => {
                self.instance_normalization(node, x, inputs)
            }
            _ => return Ok(None),
        };
        made.map(Some)
    }

    /// Whether an output of a node but the first is read.
    pub(super) fn reads_others(&self, node: OnnxNode<'m>) -> bool {
        let mut others = node.0.output.iter().skip(1);
        others.any(|name| !name.is_empty() && self.uses.contains_key(name.as_str()))
    }
}
