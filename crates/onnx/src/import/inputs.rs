//! Inputs of a file, and the layout that they get in the network.

use std::collections::HashSet;

use sparsevd_model::{DType, Input, Shape};

use super::importer::{ImportError, Importer, MOST_ELEMENTS, Value};
use super::view::View;
use crate::node_error::Invalid;
use crate::options::ImportOptions;
use crate::proto::{GraphProto, ValueInfoProto, data_type};

impl<'m> Importer<'m> {
    /// The inputs that are not initializers, which old files list among them. `read` are the values that nodes read: other inputs of integers
    /// are none of the network.
    pub(super) fn inputs(
        &mut self,
        graph: &'m GraphProto,
        options: &ImportOptions,
        read: &HashSet<&str>,
    ) -> Result<Vec<Input>, ImportError> {
        let mut inputs = Vec::new();
        let protos = graph.input.iter().filter(|proto| {
            let value = self.values.get(proto.name.as_str());
            !matches!(value, Some(Value::Constant(_) | Value::Unusable(_)))
        });
        let protos: Vec<&ValueInfoProto> = protos.collect();
        options.check(protos.iter().map(|p| p.name.as_str()))?;
        for proto in protos {
            let value = match kind(proto) {
                Ok(dtype) if dtype.is_id() && !read.contains(proto.name.as_str()) => {
                    Value::Unusable("an input of integers".into())
                }
                Err(why) => Value::Unusable(why.into()),
                Ok(dtype) => {
                    let dims = self.declared(proto, options)?;
                    let layout = self.layouts.get(&inputs.len());
                    let view = View {
                        shape: layout.map_or_else(|| dims.clone(), |l| l.shape.clone()),
                        order: layout.and_then(|l| l.order.clone()),
                        dtype,
                        input: Some(inputs.len()),
                        ..View::new(proto.name.clone(), dims)
                    };
                    let shape = Shape(view.shape.clone());
                    inputs.push(Input::new(proto.name.clone(), shape).of(dtype));
                    self.declared.push(view.dims.clone());
                    self.names.insert(proto.name.clone());
                    Value::Activation(view)
                }
            };
            let before = self.values.insert(&proto.name, value);
            if before.is_some() || proto.name.is_empty() {
                return Err(Invalid::new(
                    "inputs",
                    "one input of each name",
                    format!("`{}` again", proto.name),
                )
                .into());
            }
        }
        Ok(inputs)
    }

    /// Dimensions of an input per sample.
    fn declared(
        &mut self,
        proto: &ValueInfoProto,
        options: &ImportOptions,
    ) -> Result<Vec<usize>, Invalid> {
        let what = format!("input `{}`", proto.name);
        let declared = (proto.r#type.as_ref())
            .and_then(|t| t.tensor_type.as_ref())
            .and_then(|t| t.shape.as_ref())
            .map(|s| &s.dim[..]);
        let sizes = |dim: &crate::proto::DimensionProto| {
            (dim.dim_value.and_then(|n| usize::try_from(n).ok())).filter(|n| *n > 0)
        };
        let mut dims: Vec<Option<usize>> = declared.unwrap_or_default().iter().map(sizes).collect();
        if let Some(given) = options.of(&proto.name) {
            dims = given.over(&what, declared.map(|_| &dims[..]))?;
        }
        let names = || -> Vec<String> {
            let name = |d: &crate::proto::DimensionProto| d.dim_param.clone().unwrap_or_default();
            declared.unwrap_or_default().iter().map(name).collect()
        };
        if self.batch_axes == 1 && dims.is_empty() {
            let got = if declared.is_some() {
                "none"
            } else {
                "no shape"
            };
            return Err(Invalid::new(&what, "a batch dimension and others", got));
        }
        let (batch, rest) = dims.split_at(self.batch_axes);
        self.batch = batch.first().copied().flatten();
        let known: Option<Vec<usize>> = rest.iter().map(|d| d.or(self.length)).collect();
        let Some(known) = known else {
            let text =
                |(i, size): (usize, &Option<usize>)| match (size, names().get(i + self.batch_axes))
                {
                    (Some(size), _) => size.to_string(),
                    (None, Some(name)) if !name.is_empty() => name.clone(),
                    _ => "?".into(),
                };
            let shape: Vec<String> = rest.iter().enumerate().map(text).collect();
            let shape = shape.join(",");
            return Err(Invalid::new(
                what,
                format!(
                    "sizes of all dimensions behind the batch, which `--shape {}={shape}` gives with numbers in place of \
                     names",
                    proto.name
                ),
                format!("[{shape}]"),
            ));
        };
        let elements = Shape(known.clone()).elements();
        if elements > MOST_ELEMENTS || known.len() > 8 {
            return Err(Invalid::new(
                &what,
                format!("at most 8 dimensions of {MOST_ELEMENTS} elements in all"),
                Shape(known).to_string(),
            ));
        }
        Ok(known)
    }
}

/// The name of the one size behind the batch that the inputs of a file leave open, each in at most one dimension.
pub(super) fn free_symbol(graph: &GraphProto, options: &ImportOptions) -> Option<String> {
    let constants: std::collections::HashSet<&str> =
        graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let mut symbol: Option<&str> = None;
    for proto in &graph.input {
        if constants.contains(proto.name.as_str()) || options.of(&proto.name).is_some() {
            continue;
        }
        let shape = (proto.r#type.as_ref())
            .and_then(|t| t.tensor_type.as_ref())
            .and_then(|t| t.shape.as_ref());
        let dims = shape.map(|s| &s.dim[..]).unwrap_or_default();
        let is_open = |d: &&crate::proto::DimensionProto| d.dim_value.is_none_or(|n| n <= 0);
        let mut open = dims.iter().skip(1).filter(is_open);
        let Some(first) = open.next() else { continue };
        let name = first.dim_param.as_deref().unwrap_or_default();
        // Sizes without a name may differ from input to input.
        let is_other = symbol.is_some_and(|s| s != name || name.is_empty());
        if open.next().is_some() || is_other {
            return None;
        }
        symbol = Some(name);
    }
    symbol.map(|name| if name.is_empty() { "length" } else { name }.to_owned())
}

/// Whether all dimensions of every input have fixed sizes, so that the file may have no batch.
pub(super) fn may_have_no_batch(graph: &GraphProto) -> bool {
    let is_known = |d: &crate::proto::DimensionProto| d.dim_value.is_some_and(|n| n > 0);
    graph.input.iter().all(|proto| {
        let shape = (proto.r#type.as_ref())
            .and_then(|t| t.tensor_type.as_ref())
            .and_then(|t| t.shape.as_ref());
        shape.is_none_or(|s| s.dim.iter().all(is_known))
    })
}

/// Whether all sizes are fixed and an input is a vector or a scalar, which then has no batch dimension.
pub(super) fn has_no_batch(graph: &GraphProto) -> bool {
    may_have_no_batch(graph) && sizes_of_inputs(graph).any(|dims| dims.len() <= 1)
}

/// Whether all sizes are fixed and the first dimensions of the inputs differ, so that they have no batch in common.
pub(super) fn have_other_batches(graph: &GraphProto) -> bool {
    let first = |dims: &'_ [crate::proto::DimensionProto]| dims.first().and_then(|d| d.dim_value);
    let sizes: HashSet<i64> = sizes_of_inputs(graph).filter_map(first).collect();
    may_have_no_batch(graph) && sizes.len() > 1
}

/// The dimensions of each input that is no initializer and declares them.
fn sizes_of_inputs(graph: &GraphProto) -> impl Iterator<Item = &[crate::proto::DimensionProto]> {
    let initializers: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs = graph.input.iter();
    let inputs = inputs.filter(move |p| !initializers.contains(p.name.as_str()));
    inputs.filter_map(|proto| {
        let kind = proto.r#type.as_ref()?.tensor_type.as_ref()?;
        Some(&kind.shape.as_ref()?.dim[..])
    })
}

/// What the elements of an input are in a network; the error says why it can be no value of one.
fn kind(proto: &ValueInfoProto) -> Result<DType, String> {
    let Some(kind) = proto.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else {
        return Err(format!("its input `{}`, which is not a tensor", proto.name));
    };
    let floats = [
        data_type::FLOAT,
        data_type::FLOAT16,
        data_type::DOUBLE,
        data_type::BFLOAT16,
    ];
    if floats.contains(&kind.elem_type) {
        return Ok(DType::F32);
    }
    let given = match kind.elem_type {
        data_type::INT8 => "int8".to_owned(),
        data_type::UINT8 => "uint8".to_owned(),
        data_type::INT32 => return Ok(DType::I32),
        data_type::INT64 => return Ok(DType::I64),
        data_type::BOOL => "bool".to_owned(),
        other => other.to_string(),
    };
    Err(format!(
        "its input `{}` of data type {given}, which is neither floating-point nor int32 or int64",
        proto.name
    ))
}
