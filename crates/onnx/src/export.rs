//! Export: a network as the messages of an ONNX file.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use sparsevd_model::ops::{OnnxAttribute, OnnxConstant, is_per_channel};
use sparsevd_model::{
    Csr, DType, Dim, Int8Grid, ModelError, Network, Node, Op, Shape, TensorType, Weights, ops,
    quantised,
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

/// The file of a network. What may run in int8 is written as integers: the input of such a layer through `QuantizeLinear` and `DequantizeLinear`, its weight through
/// `DequantizeLinear`.
pub(crate) fn export(network: &Network, options: &ExportOptions) -> Result<ModelProto, ModelError> {
    let types = network.types()?;
    if !options.sparse_initializers {
        network.check_dense()?;
    }
    // A free dimension gets size 0, which no known one has, so that it equals free ones alone.
    let shapes: HashMap<&str, Shape> = types.iter().map(|(n, t)| (*n, t.shape(0))).collect();
    let graph = &network.graph;
    let values: HashSet<&str> = shapes.keys().copied().collect();
    let tensors = names(network, &values);
    let mut writer = Writer {
        network,
        shapes: &shapes,
        made: tensors.values().cloned().collect(),
        tensors,
        pairs: HashMap::new(),
        nodes: Vec::new(),
        constants: Vec::new(),
        opset: OPSET,
    };
    network.check_int8()?;
    for (tensor, rows) in &network.int8.rows {
        writer.quantised_weight(tensor, rows)?;
    }
    for node in &graph.nodes {
        writer.node(node);
    }
    let (mut initializer, mut sparse_initializer) = (Vec::new(), Vec::new());
    for (key, tensor) in &network.tensors {
        let Some(name) = writer.tensors.get(key.as_str()) else {
            continue;
        };
        if network.int8.rows.contains_key(key) {
            continue;
        }
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
    /// Names that are in the file besides those of values.
    made: HashSet<String>,
    /// The values that stand for others, rounded to a grid: by the value, the bits of the scale and the zero point.
    pairs: HashMap<(String, u32, u8), String>,
    nodes: Vec<NodeProto>,
    /// Initializers that are not tensors of the network.
    constants: Vec<TensorProto>,
    opset: i64,
}

impl Writer<'_> {
    /// A weight by its integers.
    fn quantised_weight(&mut self, tensor: &str, rows: &[f32]) -> Result<(), ModelError> {
        let (Some(name), Some(weight)) = (
            self.tensors.get(tensor).cloned(),
            self.network.tensors.get(tensor),
        ) else {
            return Ok(());
        };
        let dense = weight.to_dense();
        let columns = dense.values.len() / rows.len().max(1);
        let mut bytes = Vec::with_capacity(dense.values.len());
        for (row, scale) in dense.values.chunks(columns.max(1)).zip(rows) {
            let levels = quantised::grid(row, *scale).map_err(|e| e.for_tensor(tensor))?;
            // At most 127 by the checks of the network.
            bytes.extend(levels.into_iter().map(|q| q as i8 as u8));
        }
        let count = Shape::from([rows.len()]);
        let inputs = vec![
            self.constant(
                tensor,
                "int8",
                of_bytes(data_type::INT8, &dense.shape, bytes),
            ),
            self.constant(tensor, "scale", floats("", &count, rows.to_vec())),
            // onnxruntime makes integer kernels of pairs with zero points alone.
            self.constant(
                tensor,
                "zero_point",
                of_bytes(data_type::INT8, &count, vec![0; rows.len()]),
            ),
        ];
        self.push("DequantizeLinear", inputs, &name);
        if let Some(node) = self.nodes.last_mut() {
            node.attribute.push(int("axis", 0));
        }
        Ok(())
    }

    /// A value rounded to a grid, once for all layers that read it so.
    fn rounded(&mut self, value: &str, grid: Int8Grid) -> String {
        let key = (value.to_owned(), grid.scale.to_bits(), grid.zero_point);
        if let Some(made) = self.pairs.get(&key) {
            return made.clone();
        }
        let one = Shape(vec![]);
        let scale = self.constant(value, "scale", floats("", &one, vec![grid.scale]));
        let zero = of_bytes(data_type::UINT8, &one, vec![grid.zero_point]);
        let zero = self.constant(value, "zero_point", zero);
        let integers = self.free(&format!("{value}.quantised"));
        let inputs = vec![value.to_owned(), scale.clone(), zero.clone()];
        self.push("QuantizeLinear", inputs, &integers);
        let numbers = self.free(&format!("{value}.dequantised"));
        self.push("DequantizeLinear", vec![integers, scale, zero], &numbers);
        self.pairs.insert(key, numbers.clone());
        numbers
    }

    /// Names of what a node reads in the file.
    fn reads(&mut self, node: &Node) -> Vec<String> {
        let mut names = node.inputs.clone();
        let input = self.network.int8.inputs.get(&node.name);
        // Operators of ONNX have one scale for all vectors.
        let grid = input.and_then(|input| input.grid());
        if let (Some(grid), Some(first)) = (grid, names.first_mut()) {
            *first = self.rounded(first, grid);
        }
        names
    }

    fn node(&mut self, node: &Node) {
        let read = self.reads(node);
        if let Op::Linear(linear) = &node.op
            && self.shapes[node.inputs[0].as_str()].dims().len() > 1
        {
            return self.over_vectors(node, linear, read);
        }
        let form = node.op.operator().onnx();
        let tensors = node.op.tensors().map(|t| self.tensors[t].clone());
        let mut inputs = match form.tensors_first {
            true => tensors.chain(read).collect(),
            false => [read, tensors.collect()].concat(),
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
    fn over_vectors(&mut self, node: &Node, linear: &ops::Linear, mut factors: Vec<String>) {
        let weight = self.tensors[linear.weight.as_str()].clone();
        let transposed = self.free(&format!("{}.transposed", node.name));
        self.push("Transpose", vec![weight], &transposed);
        factors.push(transposed);
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

    /// A name that nothing in the file has yet.
    fn free(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        while self.shapes.contains_key(name.as_str())
            || self.network.tensors.contains_key(&name)
            || self.made.contains(&name)
        {
            name.push('_');
        }
        self.made.insert(name.clone());
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

/// A tensor of 8-bit integers.
fn of_bytes(data_type: i32, shape: &Shape, bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        dims: shape.dims().iter().map(|&d| d as i64).collect(),
        data_type,
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
