//! Pruning by the command line before any training: by magnitude, or by a posterior from elsewhere.

use std::borrow::Cow;

use anyhow::bail;
use sparsevd_compressor::recipe::Method;
use sparsevd_compressor::report::Pruning;
use sparsevd_compressor::{ForeignPosterior, Magnitude, smaller};
use sparsevd_model::{Network, Weights, passes};

use crate::args::{self, CompressArgs};
use crate::inputs::{DEFAULT_RECIPE, FoundRecipe};

/// A network that is pruned already.
pub struct Start {
    pub network: Network,
    pub pruning: Pruning,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

/// Whether the command line chooses the weights to remove.
pub fn decides(args: &CompressArgs) -> bool {
    args.posterior.is_some() || args.sparsity.is_some()
}

/// Prunes as the command line says; `None` where training is to choose the weights.
pub fn start(args: &CompressArgs, network: &Network) -> anyhow::Result<Option<Start>> {
    if let Some(file) = &args.posterior {
        let threshold = args.threshold.unwrap_or(3.0);
        let (pruned, used) = ForeignPosterior::read(file)?.prune(network, threshold)?;
        let notes = [
            ("weights by their posterior", used.pruned),
            ("from its file as they are", used.replaced),
            ("from the network alone", used.kept),
        ];
        let notes = notes.into_iter().filter(|(_, names)| !names.is_empty());
        return Ok(Some(Start {
            network: folded(&pruned).into_owned(),
            pruning: Pruning::Posterior {
                file: file.clone(),
                threshold,
            },
            notes: notes
                .map(|(what, names)| format!("{what}: {}", names.join(", ")))
                .collect(),
        }));
    }
    let sparsity = match (args.method, args.sparsity) {
        (Some(args::Method::Magnitude), Some(sparsity)) => sparsity,
        (_, None) => return Ok(None),
        (_, Some(_)) => {
            bail!("--sparsity: expected --method magnitude, which it is for, got another")
        }
    };
    let magnitude = Magnitude {
        sparsity,
        scope: args.scope.into(),
        every_layer: args.every_layer,
    };
    Ok(Some(Start {
        network: magnitude.prune(&folded(network))?,
        pruning: Pruning::Magnitude(magnitude),
        notes: vec![],
    }))
}

/// The network as it is pruned and trained: normalisation is part of the layer before it, as when it runs.
pub fn folded(network: &Network) -> Cow<'_, Network> {
    passes::for_running(network)
}

/// The phases of a recipe that can train a network that is pruned already: fine-tuning, where a recipe was found, on the labels alone. A
/// teacher would be the pruned network itself, how many weights are left is decided, and the grids of a `quantise` phase come
/// from the sigmas of a `sparse-vd` phase. The source says what was left out.
///
/// # Errors
/// A recipe that the command line names, where anything would be left out.
pub fn fine_tuning(mut found: FoundRecipe, named: bool) -> anyhow::Result<FoundRecipe> {
    let phases = &mut found.recipe.phases;
    if found.source == DEFAULT_RECIPE {
        phases.clear();
        return Ok(found);
    }
    let mut left_out = vec![];
    for (i, phase) in phases.iter_mut().enumerate() {
        let which = format!("phase {} ({})", i + 1, phase.method.name());
        if phase.method != Method::FineTune {
            left_out.push(which);
            continue;
        }
        if phase.distil != 0.0 {
            phase.distil = 0.0;
            left_out.push(format!("`distil` of {which}"));
        }
        if phase.weights.take().is_some() {
            left_out.push(format!("`weights` of {which}"));
        }
    }
    phases.retain(|p| p.method == Method::FineTune);
    if left_out.is_empty() {
        return Ok(found);
    }
    let left_out = left_out.join(", ");
    if named {
        bail!(
            "{}: expected phases that fine-tune on the labels alone, as --method magnitude or --posterior decides which weights \
             go; got {left_out}",
            found.source
        );
    }
    found.source = format!("{}, without {left_out}", found.source);
    Ok(found)
}

/// The network to write: dead channels removed, and each weight in the smaller of its encodings.
pub fn finish(network: Network) -> Network {
    let mut done = passes::drop_dead_channels(&network).unwrap_or(network);
    for tensor in done.tensors.values_mut() {
        if let Weights::Csr(csr) = tensor {
            *tensor = smaller(csr.to_dense());
        }
    }
    done
}
