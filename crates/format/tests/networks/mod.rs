//! Small networks for the tests of this crate, and surgery on their files.
#![allow(dead_code)]

use std::collections::BTreeMap;

use serde_json::Value;
use sparsevd_model::quantised::{self, RowBits};
use sparsevd_model::{
    Csr, DType, Dense, Graph, GraphBuilder, Input, Network, Op, Shape, Weights, ops, presets,
};
use sparsevd_testing::arbitrary::Stream;

/// Fills a graph's tensors with random numbers; `layout` says which weights are CSR.
pub fn fill(
    graph: Graph,
    tensors: &[(String, Shape)],
    seed: u64,
    density: f64,
    layout: impl Fn(usize) -> bool,
) -> Network {
    let mut stream = Stream(seed);
    let mut at = 0..;
    Network::from_preset((graph, tensors.to_vec()), |_, shape| {
        let (i, shape) = (at.next().unwrap(), shape.clone());
        match shape.dims().len() {
            0 | 1 => Dense::new(shape.clone(), stream.floats(shape.elements())).into(),
            _ if layout(i) => stream.sparse(shape, density).into(),
            _ => stream.bernoulli(shape, density).into(),
        }
    })
    .unwrap()
}

/// LeNet-5 with every weight CSR at 1 % density.
pub fn lenet_5() -> Network {
    let (graph, tensors) = presets::by_name("lenet-5").unwrap();
    fill(graph, &tensors, 5, 0.01, |_| true)
}

/// 4 to 3 (CSR, five non-zeros) to 2 (dense), with biases.
pub fn tiny() -> Network {
    let (graph, _) = presets::mlp("tiny", Shape::from([4]), &[3, 2]);
    let csr = Csr::try_new(
        [3, 4],
        vec![0, 2, 2, 5],
        vec![0, 3, 0, 1, 2],
        vec![1.0, -2.0, 0.5, 4.0, 8.0],
    );
    let tensors = BTreeMap::from([
        ("fc1.weight".to_owned(), Weights::Csr(csr.unwrap())),
        (
            "fc1.bias".to_owned(),
            Weights::Dense(Dense::new([3], vec![0.25, 0.5, 0.75])),
        ),
        (
            "fc2.weight".to_owned(),
            Weights::Dense(Dense::new([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ),
        (
            "fc2.bias".to_owned(),
            Weights::Dense(Dense::new([2], vec![-1.0, 1.0])),
        ),
    ]);
    let mut network = Network::new(graph, tensors).unwrap();
    (network.original_shapes).insert("fc1.weight".into(), Shape::from([5, 4]));
    network
}

/// Ids to rows of a table of five rows whose integers have four bits, one of them zeros.
pub fn table_of_int4(width: usize) -> Network {
    let mut b = GraphBuilder::new("ids");
    let ids = b.free_input(Input::with_free("ids", [0], 0, "length").of(DType::I64));
    let table = b.tensor("words", [5, width]);
    let rows = b.op("rows", Op::Embedding(ops::Embedding { table }), &[&ids]);
    b.output(&rows);
    let network = b.network(|_, shape| {
        let mut table = Stream(4).bernoulli(shape.clone(), 1.0);
        table.values[2 * width..3 * width].fill(0.0);
        quantised::round_rows(&mut table.values, width, RowBits::Four).unwrap();
        table.into()
    });
    network.unwrap()
}

/// A safetensors file in pieces.
#[derive(Clone)]
pub struct Pieces {
    pub header: Value,
    pub data: Vec<u8>,
}

impl Pieces {
    pub fn of(file: &[u8]) -> Self {
        let n = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        Self {
            header: serde_json::from_slice(&file[8..8 + n]).unwrap(),
            data: file[8 + n..].to_vec(),
        }
    }

    pub fn join(&self) -> Vec<u8> {
        let header = serde_json::to_vec(&self.header).unwrap();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend(&self.data);
        file
    }

    /// Where the bytes of a tensor are in `data`.
    pub fn range(&self, tensor: &str) -> std::ops::Range<usize> {
        let at = |i: usize| self.header[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
        at(0)..at(1)
    }

    /// Overwrites the bytes of a tensor from an element on.
    pub fn set(&mut self, tensor: &str, element: usize, bytes: &[u8]) -> &mut Self {
        let start = self.range(tensor).start + element * bytes.len();
        self.data[start..start + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Gives a tensor another dtype, shape and bytes.
    pub fn replace(
        &mut self,
        tensor: &str,
        dtype: &str,
        shape: &[usize],
        bytes: &[u8],
    ) -> &mut Self {
        self.remove(tensor);
        let (start, end) = (self.data.len(), self.data.len() + bytes.len());
        self.data.extend(bytes);
        self.header[tensor] =
            serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        self
    }

    /// Takes a tensor out, closing the hole.
    pub fn remove(&mut self, tensor: &str) -> &mut Self {
        if self.header.get(tensor).is_none() {
            return self;
        }
        let range = self.range(tensor);
        self.data.drain(range.clone());
        let object = self.header.as_object_mut().unwrap();
        object.remove(tensor);
        for (name, info) in object.iter_mut() {
            if name == "__metadata__" {
                continue;
            }
            for end in info["data_offsets"].as_array_mut().unwrap() {
                let at = end.as_u64().unwrap() as usize;
                if at >= range.end {
                    *end = (at - range.len()).into();
                }
            }
        }
        self
    }

    /// Edits a metadata value that is JSON itself.
    pub fn edit(&mut self, key: &str, change: impl Fn(&mut Value)) -> &mut Self {
        let entry = &mut self.header["__metadata__"][key];
        let mut value: Value = serde_json::from_str(entry.as_str().unwrap()).unwrap();
        change(&mut value);
        *entry = value.to_string().into();
        self
    }

    pub fn metadata(&mut self, key: &str, value: &str) -> &mut Self {
        self.header["__metadata__"][key] = value.into();
        self
    }
}
