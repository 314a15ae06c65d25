//! Exact sizes of one network in several encodings.

use std::collections::BTreeMap;
use std::path::Path;

use sparsevd_model::{Csr, Network, Weights};

use super::CsrProfile;
use super::write::{Plan, ValueType, WriteOptions};

/// Exact bytes of a network in several encodings, biases (F32) included, each with a label.
///
/// Weights that are dense in the network count with their non-zeros in the sparse encodings, and CSR weights with all
/// their elements in the dense one. Safetensors sizes are those of the files that `write_network` writes, header and
/// graph included. An encoding that the network cannot be written in (it is not valid) is left out.
pub fn inspect_encodings(network: &Network) -> Vec<(String, u64)> {
    let mut sizes = Vec::new();
    let weights: Vec<&str> = {
        let mut names: Vec<_> = network
            .graph
            .weighted_nodes()
            .filter_map(|n| n.op.weight())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    if let Ok(dense) = Plan::dense_len(network) {
        sizes.push(("dense f32, safetensors file".to_owned(), dense as u64));
    }
    let mut add_file = |label: &str, network: &Network, values: ValueType| {
        let options = WriteOptions {
            values,
            profile: CsrProfile::Compact,
            metadata: BTreeMap::new(),
        };
        if let Ok(plan) = Plan::new(Path::new(""), network, &options) {
            sizes.push((label.to_owned(), plan.len() as u64));
        }
    };
    let mut sparse = network.clone();
    for name in &weights {
        if let Some(tensor) = sparse.tensors.get_mut(*name)
            && let Weights::Dense(dense) = tensor
        {
            *tensor = Weights::Csr(Csr::from_dense(dense));
        }
    }
    for (values, label) in [(ValueType::F32, "f32"), (ValueType::F16, "f16")] {
        let label = format!("sparse {label}, safetensors file");
        add_file(&label, &sparse, values);
    }
    let (mut csr_bytes, mut mask_bytes) = (0, 0);
    for (name, tensor) in &sparse.tensors {
        let shape = tensor.shape();
        if weights.contains(&name.as_str()) {
            let (rows, cols) = shape.matrix();
            let nonzeros = tensor.nonzeros();
            csr_bytes += 8 * nonzeros as u64 + 4 * (rows as u64 + 1);
            mask_bytes += 2 * nonzeros as u64 + rows as u64 * cols.div_ceil(8) as u64;
        } else {
            csr_bytes += 4 * shape.elements() as u64;
            mask_bytes += 4 * shape.elements() as u64;
        }
    }
    sizes.insert(
        1.min(sizes.len()),
        ("CSR f32 + u32 columns, arrays alone".to_owned(), csr_bytes),
    );
    sizes.push((
        "bitmask + f16, arrays alone (rows padded to bytes, no row offsets)".to_owned(),
        mask_bytes,
    ));
    sizes
}
