//! Export: a network as the messages of an ONNX file.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use sparsevd_model::{Approximate, Csr, ModelError, Network, Node, Op, Shape, Weights, Window};

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
    let shapes = network.shapes()?;
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
        r#type: Some(batch_of(&shapes[name])),
    };
    let ir_version = if writer.opset > 18 {
        IR_VERSION + 1
    } else {
        IR_VERSION
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
        let mut inputs = node.inputs.clone();
        inputs.extend(node.op.tensors().map(|t| self.tensors[t].clone()));
        let mut attributes = Vec::new();
        let mut op_type = node.op.name();
        match &node.op {
            Op::Linear { .. } => {
                op_type = "Gemm";
                attributes.push(int("transB", 1));
            }
            Op::Conv { window, groups, .. } => {
                attributes.extend(window_attributes(window, true));
                attributes.push(int("group", *groups as i64));
            }
            Op::BatchNormalization { epsilon, .. } => attributes.push(float("epsilon", *epsilon)),
            Op::Relu | Op::Sigmoid | Op::HardSwish | Op::Tanh | Op::GlobalAveragePool => {}
            Op::Clip { min, max } => {
                // The inputs end with the last one that is there.
                let bounds = [("min", min), ("max", max)];
                let given = if max.is_some() {
                    2
                } else {
                    usize::from(min.is_some())
                };
                for (part, bound) in &bounds[..given] {
                    inputs.push(bound.map_or(String::new(), |v| {
                        self.constant(&node.name, part, floats("", &Shape(vec![]), vec![v]))
                    }));
                }
            }
            Op::LeakyRelu { alpha } => attributes.push(float("alpha", *alpha)),
            Op::HardSigmoid { alpha, beta } => {
                attributes.extend([float("alpha", *alpha), float("beta", *beta)]);
            }
            Op::Gelu { approximate } => {
                self.opset = self.opset.max(20);
                attributes.push(text(
                    "approximate",
                    match approximate {
                        Approximate::None => "none",
                        Approximate::Tanh => "tanh",
                    },
                ));
            }
            Op::MaxPool { window } => attributes.extend(window_attributes(window, true)),
            Op::AveragePool { window } => {
                let dilated = window.dilations != [1, 1];
                if dilated {
                    self.opset = self.opset.max(19);
                }
                attributes.extend(window_attributes(window, dilated));
            }
            Op::Add | Op::Sub | Op::Mul | Op::Div => {
                let [map, numbers] = [0, 1].map(|i| &self.shapes[node.inputs[i].as_str()]);
                if map.dims().len() == 3 && numbers.dims().len() == 1 {
                    inputs[1] = self.as_map(&node.name, &inputs[1]);
                }
            }
            Op::Concat | Op::Flatten | Op::Softmax => attributes.push(int("axis", 1)),
            Op::Pad { pads, value } => {
                let [top, left, bottom, right] = pads.map(|p| p as i64);
                let pads = [0, 0, top, left, 0, 0, bottom, right];
                inputs.push(self.constant(&node.name, "pads", ints(&pads)));
                let value = floats("", &Shape(vec![]), vec![*value]);
                inputs.push(self.constant(&node.name, "value", value));
            }
            // `Op` may grow; a new operator is written under its ONNX name, without attributes, and its test says whether that is it.
            _ => {}
        }
        self.nodes.push(NodeProto {
            input: inputs,
            output: vec![node.name.clone()],
            name: node.name.clone(),
            op_type: op_type.into(),
            attribute: attributes,
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

fn batch_of(shape: &Shape) -> TypeProto {
    let batch = DimensionProto {
        dim_value: None,
        dim_param: Some("batch".into()),
    };
    let known = shape.dims().iter().map(|&d| DimensionProto {
        dim_value: Some(d as i64),
        dim_param: None,
    });
    TypeProto {
        tensor_type: Some(TensorTypeProto {
            elem_type: data_type::FLOAT,
            shape: Some(TensorShapeProto {
                dim: std::iter::once(batch).chain(known).collect(),
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

fn window_attributes(window: &Window, dilations: bool) -> Vec<AttributeProto> {
    let mut all = vec![
        list("kernel_shape", &window.kernel_shape),
        list("strides", &window.strides),
        list("pads", &window.pads),
    ];
    if dilations {
        all.push(list("dilations", &window.dilations));
    }
    all
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

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        f: Some(value),
        ..attribute(name, attribute_type::FLOAT)
    }
}

fn text(name: &str, value: &'static str) -> AttributeProto {
    AttributeProto {
        s: Some(Bytes::from_static(value.as_bytes())),
        ..attribute(name, attribute_type::STRING)
    }
}

fn list(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        ints: values.iter().map(|&v| v as i64).collect(),
        ..attribute(name, attribute_type::INTS)
    }
}
