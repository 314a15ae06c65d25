//! One form of a network to another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use sparsevd_compressor::report::{count, rounding};
use sparsevd_compressor::{Rounding, smaller};
use sparsevd_format::{
    CsrProfile, LoadedNetwork, PackOptions, PackProfile, ValueType, WriteOptions, write_network,
    write_packed,
};
use sparsevd_model::{ModelError, Network, Weights};
use sparsevd_onnx::{ExportOptions, write_onnx};

use crate::error::PipelineError;
use crate::input::int8_layers;
use crate::outputs::Form;
use crate::pruning::folded;

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
    /// Whether weights that are on no grid are rounded to one, as [`Rounding`] does by default; batch normalisation is folded into
    /// them before.
    pub grid: bool,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Converted {
    /// Size of the file.
    pub bytes: u64,
    /// What [`Conversion::grid`] did.
    pub rounding: GridRounding,
    /// Int8 layers whose grids the form, or what was asked for, has no place for: they are left out.
    pub without_int8: usize,
}

/// What was rounded to grids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GridRounding {
    /// Nothing, as that was not asked for.
    NotAsked,
    /// Nothing: all weights and biases were on grids.
    AllOnGrids,
    /// Weights or biases.
    Rounded {
        /// As [`sparsevd_compressor::Rounded::error`].
        error: f64,
    },
}

impl Converted {
    /// What the file has no place for, in words.
    pub fn left_out(&self) -> Option<String> {
        (self.without_int8 > 0).then(|| int8_layers(self.without_int8))
    }
}

impl fmt::Display for Converted {
    /// The size, and how far rounding moves outputs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", count(self.bytes as usize))?;
        if let Some(layers) = self.left_out() {
            write!(f, "; without the {layers}")?;
        }
        match self.rounding {
            GridRounding::NotAsked => Ok(()),
            GridRounding::AllOnGrids => f.write_str("; all weights and biases were on grids"),
            GridRounding::Rounded { error } => write!(f, "; {}", rounding(error)),
        }
    }
}

/// Largest integer of an I8 weight.
const I8_MOST: i32 = 127;

impl Conversion {
    /// Writes a network to `path`. A file that exists is overwritten.
    ///
    /// A form of weights on grids takes values of any file that are on grids: scales that the file does not name are found.
    ///
    /// # Errors
    /// Another ending than `.safetensors`, `.spvd` or `.onnx`; a form that does not hold the network; weights on no grid, for a form that
    /// needs one; a file that cannot be written.
    pub fn write(
        &self,
        loaded: LoadedNetwork,
        path: impl AsRef<Path>,
    ) -> Result<Converted, PipelineError> {
        let path = path.as_ref();
        let form = Form::of(path)?;
        let as_i8 = form == Form::Interchange && self.values == ValueType::I8;
        let mut network = loaded.network;
        let mut done = GridRounding::NotAsked;
        let no_place = match form {
            Form::Interchange => self.profile == CsrProfile::Bitmask,
            Form::Packed => !set_scales_of_rows(&mut network),
            Form::Onnx => false,
        };
        // ONNX has no operator for a scale of each vector.
        let vectors = network.int8.inputs.values().filter(|i| i.grid().is_none());
        let mut without_int8 = match form {
            Form::Onnx => vectors.count(),
            _ => 0,
        };
        if no_place || self.dense || self.grid {
            without_int8 = std::mem::take(&mut network.int8).inputs.len();
        }
        if self.grid {
            let mut rounding = Rounding::default();
            if as_i8 {
                rounding.most = I8_MOST;
            }
            network.check_dense()?;
            let rounded = rounding.round(&folded(network))?;
            network = rounded.network;
            done = match rounded.error {
                None => GridRounding::AllOnGrids,
                Some(error) => GridRounding::Rounded { error },
            };
        }
        if self.dense {
            network.check_dense()?;
            network = network.to_dense();
        } else {
            sparsify(&mut network);
        }
        match form {
            Form::Packed => find_all_scales(&mut network, path)?,
            Form::Interchange if as_i8 => {
                let weights = i8_weights(&network);
                find_scales(&mut network, &weights, path)?;
            }
            Form::Interchange | Form::Onnx => {}
        }
        let bytes = self.write_form(form, &network, loaded.metadata, path)?;
        Ok(Converted {
            bytes,
            rounding: done,
            without_int8,
        })
    }

    /// Writes a network in a form that holds it, and returns the size of the file in bytes.
    fn write_form(
        &self,
        form: Form,
        network: &Network,
        metadata: BTreeMap<String, String>,
        path: &Path,
    ) -> Result<u64, PipelineError> {
        Ok(match form {
            Form::Interchange => {
                let options = WriteOptions {
                    values: self.values,
                    profile: self.profile,
                    metadata,
                };
                write_network(path, network, &options)?
            }
            Form::Packed => {
                let by_size = || PackProfile::for_size_of(network);
                let options = PackOptions {
                    profile: self.packing.unwrap_or_else(by_size),
                    keep_unit_order: self.keep_unit_order,
                };
                write_packed(path, network, &options)?
            }
            Form::Onnx => {
                let options = ExportOptions {
                    sparse_initializers: self.sparse_initializers,
                    metadata,
                };
                write_onnx(path, network, &options)?
            }
        })
    }
}

/// Finds the scales of the weights and biases that have none, as a packed file needs them; see [`Network::find_scales`].
///
/// # Errors
/// [`PipelineError::OffGrid`] with the file that was to be written, for the first tensor that is on no grid.
pub fn find_all_scales(network: &mut Network, path: &Path) -> Result<(), PipelineError> {
    let tensors = network.layer_tensors();
    find_scales(network, &tensors, path)
}

fn find_scales(
    network: &mut Network,
    names: &BTreeSet<String>,
    path: &Path,
) -> Result<(), PipelineError> {
    network.find_scales(names).map_err(|error| match error {
        ModelError::NoGrid { tensor } => PipelineError::OffGrid {
            network: network.graph.name.clone(),
            tensor,
            path: path.into(),
        },
        other => other.into(),
    })
}

/// Makes the scale of the rows of each weight of an int8 layer that of the tensor, which is all that a packed file stores. `false`, and nothing changes,
/// where the rows of one have several, or the tensor another, or vectors have scales of their own.
fn set_scales_of_rows(network: &mut Network) -> bool {
    let Network { int8, scales, .. } = network;
    let one = |(weight, rows): (&String, &Vec<f32>)| {
        let scale = scales.get(weight).or(rows.first()).copied()?;
        let all = rows.iter().all(|row| *row == scale);
        all.then(|| (weight.clone(), scale))
    };
    let found: Option<Vec<(String, f32)>> = int8.rows.iter().map(one).collect();
    let fits = found.is_some() && int8.inputs.values().all(|input| input.grid().is_some());
    if fits {
        scales.extend(found.into_iter().flatten());
    }
    fits
}

/// The weights that an I8 file must have on grids: those that are CSR, or all where none is; not those with scales of rows already.
fn i8_weights(network: &Network) -> BTreeSet<String> {
    let mut weights = network.weight_names();
    weights.retain(|name| !network.int8.rows.contains_key(name));
    let is_csr = |name: &String| matches!(network.tensors.get(name), Some(Weights::Csr(_)));
    if weights.iter().any(is_csr) {
        weights.retain(is_csr);
    }
    weights
}

/// Makes every weight CSR that is smaller so.
fn sparsify(network: &mut Network) {
    for name in network.weight_names() {
        if let Some(tensor) = network.tensors.get_mut(&name)
            && let Weights::Dense(dense) = tensor
        {
            *tensor = smaller(std::mem::take(dense));
        }
    }
}
