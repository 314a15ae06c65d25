//! Export: a network as the messages of an ONNX file.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use sparsevd_model::ops::{OnnxAttribute, OnnxConstant, is_per_channel};
use sparsevd_model::{
    Csr, DType, Dim, ModelError, Network, Node, Op, Shape, TensorType, Weights, ops,
};

use crate::metadata;
use crate::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
    attribute_type, data_type,
};

/// Version of ONNX's operators, and of the file, where no operator needs a newer one.
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// How a network is written as ONNX.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportOptions {
    /// Write CSR weights as sparse initializers. Not every runtime reads them; onnxruntime makes them dense when it loads.
    pub sparse_initializers: bool,
    /// Entries of the file's metadata.
    pub metadata: BTreeMap<String, String>,
}

/// The file of a network.
pub(crate) fn export(network: &Network, options: &ExportOptions) -> Result<ModelProto, ModelError> {
    let types = network.types()?;
    if !options.sparse_initializers {
        network.check_dense()?;
    }
    // A free dimension gets size 0, which no known one has, so that it equals free ones alone.
    let shapes: HashMap<&str, Shape> = types.iter().map(|(n, t)| (*n, t.shape(0))).collect();
    let graph = &network.graph;
    let values: HashSet<&str> = shapes.keys().copied().collect();
    let mut writer = Writer {
        network,
        shapes: &shapes,
        tensors: names(network, &values),
        nodes: Vec::new(),
        constants: Vec::new(),
        opset: OPSET,
    };
    for node in &graph.nodes {
        writer.node(node);
    }
    let (mut initializer, mut sparse_initializer) = (Vec::new(), Vec::new());
    for (name, tensor) in &network.tensors {
        let Some(name) = writer.tensors.get(name.as_str()) else {
            continue;
        };
        match tensor {
            Weights::Csr(csr) if options.sparse_initializers => {
                sparse_initializer.push(sparse(name, csr));
            }
            other => initializer.push(floats(name, &other.shape(), other.to_dense().values)),
        }
    }
    initializer.append(&mut writer.constants);
    let value = |name: &str| ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(batch_of(&types[name])),
    };
    // That of the first release of ONNX with these operators.
    let ir_version = match writer.opset {
        ..=18 => IR_VERSION,
        19..=20 => 9,
        21..=22 => 10,
        _ => 11,
    };
    Ok(ModelProto {
        ir_version: Some(ir_version),
        producer_name: Some("sparsevd".into()),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: Some(writer.opset),
        }],
        metadata_props: metadata::entries(network, &options.metadata),
        graph: Some(GraphProto {
            name: graph.name.clone(),
            node: writer.nodes,
            initializer,
            sparse_initializer,
            input: graph.inputs.iter().map(|i| value(&i.name)).collect(),
            output: graph.outputs.iter().map(|o| value(o)).collect(),
        }),
    })
}

/// Names of the nodes' tensors in the file, where values and tensors share one namespace.
fn names<'n>(network: &'n Network, values: &HashSet<&str>) -> HashMap<&'n str, String> {
    let read = network.graph.nodes.iter().flat_map(|n| n.op.tensors());
    read.map(|name| {
        let mut free = name.to_owned();
        while values.contains(free.as_str()) || free != name && network.tensors.contains_key(&free)
        {
            free.push_str(".tensor");
        }
        (name, free)
    })
    .collect()
}

struct Writer<'n> {
    network: &'n Network,
    shapes: &'n HashMap<&'n str, Shape>,
    /// Names in the file by names in the network.
    tensors: HashMap<&'n str, String>,
    nodes: Vec<NodeProto>,
    /// Initializers that are not tensors of the network.
    constants: Vec<TensorProto>,
    opset: i64,
}

impl Writer<'_> {
    fn node(&mut self, node: &Node) {
        if let Op::Linear(linear) = &node.op
            && self.shapes[node.inputs[0].as_str()].dims().len() > 1
        {
            return self.over_vectors(node, linear);
        }
        let form = node.op.operator().onnx();
        let tensors = node.op.tensors().map(|t| self.tensors[t].clone());
        let mut inputs = match form.tensors_first {
            true => tensors.chain(node.inputs.iter().cloned()).collect(),
            false => [node.inputs.clone(), tensors.collect()].concat(),
        };
        self.opset = self.opset.max(form.opset);
        if let [map, numbers] = node.inputs.as_slice()
            && is_per_channel(&self.shapes[numbers.as_str()], &self.shapes[map.as_str()])
            && self.shapes[numbers.as_str()].dims().len() == 1
        {
            inputs[1] = self.as_map(&node.name, &inputs[1]);
        }
        for (part, constant) in form.constants {
            inputs.push(match constant {
                Some(OnnxConstant::Float(v)) => {
                    self.constant(&node.name, part, floats("", &Shape(vec![]), vec![v]))
                }
                Some(OnnxConstant::Ints(values)) => self.constant(&node.name, part, ints(&values)),
                None => String::new(),
            });
        }
        self.nodes.push(NodeProto {
            input: inputs,
            output: vec![node.name.clone()],
            name: node.name.clone(),
            op_type: form.op_type.into(),
            attribute: form.attributes.into_iter().map(attribute_of).collect(),
            domain: String::new(),
        });
    }

    /// A layer over several vectors: `Gemm` takes matrices alone.
    fn over_vectors(&mut self, node: &Node, linear: &ops::Linear) {
        let weight = self.tensors[linear.weight.as_str()].clone();
        let transposed = self.free(&format!("{}.transposed", node.name));
        self.push("Transpose", vec![weight], &transposed);
        let factors = vec![node.inputs[0].clone(), transposed];
        match &linear.bias {
            None => self.push("MatMul", factors, &node.name),
            Some(bias) => {
                let product = self.free(&format!("{}.product", node.name));
                self.push("MatMul", factors, &product);
                let bias = self.tensors[bias.as_str()].clone();
                self.push("Add", vec![product, bias], &node.name);
            }
        }
    }

    fn push(&mut self, op_type: &str, input: Vec<String>, output: &str) {
        self.nodes.push(NodeProto {
            input,
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: op_type.into(),
            attribute: Vec::new(),
            domain: String::new(),
        });
    }

    /// One number per channel as a map, for an operand that is broadcast over pixels.
    fn as_map(&mut self, node: &str, vector: &str) -> String {
        let axes = self.constant(node, "axes", ints(&[2, 3]));
        let name = self.free(&format!("{node}.map"));
        self.nodes.push(NodeProto {
            input: vec![vector.to_owned(), axes],
            output: vec![name.clone()],
            name: name.clone(),
            op_type: "Unsqueeze".into(),
            attribute: Vec::new(),
            domain: String::new(),
        });
        name
    }

    fn constant(&mut self, node: &str, part: &str, tensor: TensorProto) -> String {
        let name = self.free(&format!("{node}.{part}"));
        self.constants.push(TensorProto {
            name: name.clone(),
            ..tensor
        });
        name
    }

    /// A name that neither a value nor a tensor has.
    fn free(&self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        while self.shapes.contains_key(name.as_str()) || self.network.tensors.contains_key(&name) {
            name.push('_');
        }
        name
    }
}

fn batch_of(value: &TensorType) -> TypeProto {
    let dimension = |dim: &Dim| match dim {
        Dim::Known(size) => DimensionProto {
            dim_value: Some(*size as i64),
            dim_param: None,
        },
        Dim::Free(symbol) => DimensionProto {
            dim_value: None,
            dim_param: Some(symbol.clone()),
        },
    };
    // Sizes of one name are one size.
    let batch = match value.dims.contains(&Dim::Free("batch".into())) {
        true => "samples",
        false => "batch",
    };
    let batch = DimensionProto {
        dim_value: None,
        dim_param: Some(batch.into()),
    };
    let dims = value.dims.iter().map(dimension);
    TypeProto {
        tensor_type: Some(TensorTypeProto {
            elem_type: match value.dtype {
                DType::F32 => data_type::FLOAT,
                DType::I8 => data_type::INT8,
                DType::U8 => data_type::UINT8,
                DType::I32 => data_type::INT32,
                DType::I64 => data_type::INT64,
                DType::Bool => data_type::BOOL,
            },
            shape: Some(TensorShapeProto {
                dim: std::iter::once(batch).chain(dims).collect(),
            }),
        }),
    }
}

fn floats(name: &str, shape: &Shape, values: Vec<f32>) -> TensorProto {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        dims: shape.dims().iter().map(|&d| d as i64).collect(),
        data_type: data_type::FLOAT,
        name: name.into(),
        raw_data: Some(Bytes::from(bytes)),
        ..TensorProto::default()
    }
}

fn ints(values: &[i64]) -> TensorProto {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        dims: vec![values.len() as i64],
        data_type: data_type::INT64,
        raw_data: Some(Bytes::from(bytes)),
        ..TensorProto::default()
    }
}

fn sparse(name: &str, csr: &Csr) -> SparseTensorProto {
    let places: Vec<i64> = (0..csr.rows())
        .flat_map(|row| csr.row(row).0.iter().map(move |&c| (row, c)))
        .map(|(row, c)| (row * csr.cols() + c as usize) as i64)
        .collect();
    let count = Shape::from([csr.nonzeros()]);
    SparseTensorProto {
        values: Some(floats(name, &count, csr.values().to_vec())),
        indices: Some(ints(&places)),
        dims: csr.shape().dims().iter().map(|&d| d as i64).collect(),
    }
}

fn attribute_of((name, value): (&'static str, OnnxAttribute)) -> AttributeProto {
    match value {
        OnnxAttribute::Int(value) => int(name, value),
        OnnxAttribute::Ints(values) => AttributeProto {
            ints: values,
            ..attribute(name, attribute_type::INTS)
        },
        OnnxAttribute::Float(value) => AttributeProto {
            f: Some(value),
            ..attribute(name, attribute_type::FLOAT)
        },
        OnnxAttribute::Text(value) => AttributeProto {
            s: Some(Bytes::from_static(value.as_bytes())),
            ..attribute(name, attribute_type::STRING)
        },
    }
}

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: Some(kind),
        ..AttributeProto::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        i: Some(value),
        ..attribute(name, attribute_type::INT)
    }
}
