//! How the command line prunes before any training.

use anyhow::bail;
use sparsevd_compressor::Magnitude;
use sparsevd_compressor::report::{Calibration, Pruning};

use crate::args::{CompressArgs, Method};

/// How the command line prunes before any training; `None` where training is to choose the weights.
pub fn pruning(args: &CompressArgs) -> anyhow::Result<Option<Pruning>> {
    if let Some(file) = &args.posterior {
        return Ok(Some(Pruning::Posterior {
            file: file.clone(),
            threshold: args.threshold.unwrap_or(3.0),
        }));
    }
    if let (Some(samples), Some(sparsity)) = (args.calibrate, args.sparsity) {
        return Ok(Some(Pruning::Calibration(Calibration {
            samples: samples.get(),
            sparsity,
            every_layer: args.every_layer,
            keep_dense: args.keep_dense.clone(),
        })));
    }
    Ok(match (args.method, args.sparsity) {
        (Some(Method::Magnitude), Some(sparsity)) => Some(Pruning::Magnitude(Magnitude {
            sparsity,
            scope: args.scope.unwrap_or_default(),
            every_layer: args.every_layer,
            keep_dense: args.keep_dense.clone(),
        })),
        (_, None) => None,
        (_, Some(_)) => {
            bail!(
                "--sparsity: expected --method magnitude or --calibrate, which it is for, got neither"
            )
        }
    })
}
