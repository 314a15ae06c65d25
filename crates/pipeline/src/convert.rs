//! One form of a network to another.

use std::path::Path;

use sparsevd_compressor::smaller;
use sparsevd_format::{
    CsrProfile, LoadedNetwork, PackOptions, PackProfile, ValueType, WriteOptions, write_network,
    write_packed,
};
use sparsevd_model::{Network, Weights};
use sparsevd_onnx::{ExportOptions, write_onnx};

use crate::error::PipelineError;
use crate::outputs::Form;

/// How a network is rewritten. The ending of the output names its form; settings of other forms have no effect.
#[derive(Debug, Clone, Default)]
pub struct Conversion {
    /// Every weight is written with its zeros; otherwise each is CSR that is smaller so.
    pub dense: bool,
    /// Element type of weights in a `.safetensors` file.
    pub values: ValueType,
    /// How sparse weights are stored in a `.safetensors` file.
    pub profile: CsrProfile,
    /// How a `.spvd` file is coded; `None` is by the size of the network.
    pub packing: Option<PackProfile>,
    /// Whether a small `.spvd` file keeps the order of hidden units.
    pub keep_unit_order: bool,
    /// Whether sparse weights are sparse initializers of an `.onnx` file.
    pub sparse_initializers: bool,
}

impl Conversion {
    /// Writes a network to `path` and returns the size of the file in bytes. A file that exists is overwritten.
    ///
    /// # Errors
    /// Another ending than `.safetensors`, `.spvd` or `.onnx`; a form that does not hold the network; a file that cannot be
    /// written.
    pub fn write(
        &self,
        loaded: LoadedNetwork,
        path: impl AsRef<Path>,
    ) -> Result<u64, PipelineError> {
        let path = path.as_ref();
        let form = Form::of(path)?;
        let mut network = loaded.network;
        if self.dense {
            network = network.to_dense();
        } else {
            sparsify(&mut network);
        }
        let needs_grid = match form {
            Form::Packed => true,
            Form::Interchange => self.values == ValueType::I8,
            Form::Onnx => false,
        };
        if needs_grid && network.scales.is_empty() {
            return Err(PipelineError::OffGrid {
                network: network.graph.name,
                path: path.into(),
            });
        }
        Ok(match form {
            Form::Interchange => {
                let options = WriteOptions {
                    values: self.values,
                    profile: self.profile,
                    metadata: loaded.metadata,
                };
                write_network(path, &network, &options)?
            }
            Form::Packed => {
                let by_size = || PackProfile::for_size_of(&network);
                let options = PackOptions {
                    profile: self.packing.unwrap_or_else(by_size),
                    keep_unit_order: self.keep_unit_order,
                };
                write_packed(path, &network, &options)?
            }
            Form::Onnx => {
                let options = ExportOptions {
                    sparse_initializers: self.sparse_initializers,
                    metadata: loaded.metadata,
                };
                write_onnx(path, &network, &options)?
            }
        })
    }
}

/// Makes every weight CSR that is smaller so.
fn sparsify(network: &mut Network) {
    let weights: Vec<String> = network
        .graph
        .weighted_nodes()
        .filter_map(|n| n.op.weight())
        .map(str::to_owned)
        .collect();
    for name in weights {
        if let Some(tensor) = network.tensors.get_mut(&name)
            && let Weights::Dense(dense) = tensor
        {
            *tensor = smaller(std::mem::take(dense));
        }
    }
}
