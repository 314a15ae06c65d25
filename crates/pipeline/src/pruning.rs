//! Pruning before any training, and what is done to every network before and after.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sparsevd_compressor::report::Pruning;
use sparsevd_compressor::{CompressError, ForeignPosterior, smaller};
use sparsevd_model::{Csr, Network, Weights, passes};

/// A network that was pruned before any training.
pub(crate) struct Pruned {
    pub network: Network,
    /// Deviations of its posterior, by the names of weights.
    pub sigmas: BTreeMap<String, f64>,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

/// Prunes a network; `None` by a calibration, which needs samples.
pub(crate) fn prune(pruning: &Pruning, network: &Network) -> Result<Option<Pruned>, CompressError> {
    let pruned = match pruning {
        Pruning::Calibration(_) => return Ok(None),
        Pruning::Magnitude(magnitude) => {
            Pruned::without_sigmas(magnitude.prune(&passes::for_running(network))?)
        }
        Pruning::Posterior { file, threshold } => {
            let posterior = ForeignPosterior::read(file)?;
            let (pruned, used) = posterior.prune(network, *threshold)?;
            let notes = [
                ("weights by their posterior", used.pruned),
                ("from its file as they are", used.replaced),
                ("from the network alone", used.kept),
            ];
            let notes = notes.into_iter().filter(|(_, names)| !names.is_empty());
            let notes = notes.map(|(what, names)| format!("{what}: {}", names.join(", ")));
            Pruned {
                network: folded(pruned),
                sigmas: posterior.sigmas(network, *threshold)?,
                notes: notes.collect(),
            }
        }
    };
    Ok(Some(pruned))
}

impl Pruned {
    /// A network of which there is no posterior, and nothing to tell.
    pub fn without_sigmas(network: Network) -> Self {
        Self {
            network,
            sigmas: BTreeMap::new(),
            notes: vec![],
        }
    }
}

/// The network as it is pruned and trained: normalisation is part of the layer before it, as when it runs.
pub(crate) fn folded(network: Network) -> Network {
    match passes::for_running(&network) {
        Cow::Owned(folded) => folded,
        Cow::Borrowed(_) => network,
    }
}

/// The network to write: normalisations that it was trained with folded, dead channels removed, and each weight in the smaller of its encodings.
pub(crate) fn finish(network: Network) -> Network {
    let network = folded(network);
    let mut done = passes::drop_dead_channels(&network).unwrap_or(network);
    for tensor in done.tensors.values_mut() {
        if let Weights::Csr(csr) = tensor {
            *tensor = smaller(csr.to_dense());
        }
    }
    done
}

/// Makes every weight with zeros CSR, so that these stay: the trainer takes zeros of dense weights for weights.
pub(crate) fn remove_zeros(network: &mut Network) {
    for name in network.weight_names() {
        if let Some(tensor) = network.tensors.get_mut(&name)
            && tensor.nonzeros() < tensor.shape().elements()
        {
            *tensor = Csr::from_dense(&tensor.to_dense()).into();
        }
    }
}
