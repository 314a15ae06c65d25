//! Quantisation guided by the posterior: the scale of the grid that each layer is stored on.
//!
//! A weight known to sigma need not be stored more finely: rounding N(theta, sigma^2) to a grid of scale c sigma costs about
//! c^2 / 24 nats over the whole training set, and each halving of the scale costs one bit per weight. Every layer gets the
//! scale c times the median sigma of its survivors, with one c for the whole network, so that a bit gains the same everywhere. A layer
//! that was pruned without a posterior, as by magnitude, takes a sixth of the root mean square of its survivors for sigma.

use sparsevd_model::quantised::nearest_scale;

use crate::error::CompressError;
use crate::layer::Layer;

/// Significant bits of a scale: within a sixteenth of any target, for about one byte in a packed file.
pub(crate) const SCALE_BITS: u32 = 4;
/// Level of the largest weight of a layer that has no posterior; rounding the scale keeps it below 128.
const LEVELS: u32 = 119;

/// Sigmas in the root mean square of the survivors of a layer that has no posterior: about what Sparse VD finds in the layers of
/// LeNets and a ResNet-20, 4 to 11.
const SIGMAS: f64 = 6.0;

/// The scale that spreads numbers without a posterior over 8 bits; 1 where all are zero, where any scale is exact.
pub(crate) fn eight_bits(values: &[f32]) -> f64 {
    let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    if largest > 0.0 {
        f64::from(largest) / f64::from(LEVELS)
    } else {
        1.0
    }
}

/// The exact scale of a layer's weights, before rounding to [`SCALE_BITS`].
fn target_scale(layer: &Layer<f32>, c: f64, bias_step: f64) -> f64 {
    if layer.stays_dense() {
        return eight_bits(layer.weights());
    }
    let sigma = layer.median_sigma();
    match sigma.or_else(|| Some(root_mean_square(layer)? / SIGMAS)) {
        Some(sigma) => c * sigma,
        // Where no weight survived, as in a dead residual block, only biases are stored.
        None => eight_bits(layer.biases()) / bias_step,
    }
}

/// Root mean square of the weights that were not removed; `None` where all were, or are zero.
fn root_mean_square(layer: &Layer<f32>) -> Option<f64> {
    let squares = layer.weights().iter().map(|w| f64::from(*w).powi(2));
    let mean = squares.sum::<f64>() / layer.alive().max(1) as f64;
    (mean > 0.0).then(|| mean.sqrt())
}

/// Scales of weights and biases of every layer: `c` times the median sigma of the layer's survivors, and `bias_step` times
/// that. A layer that never had a posterior takes a [share](SIGMAS) of the root mean square of its survivors for sigma. A layer
/// that stays dense gets 8 bits, as do the biases of a layer without survivors.
///
/// # Errors
/// Weights so large or small that no scale fits them.
pub(crate) fn scales(
    layers: &[Layer<f32>],
    c: f64,
    bias_step: f64,
) -> Result<Vec<[f32; 2]>, CompressError> {
    let scales = layers.iter().map(|layer| {
        let target = target_scale(layer, c, bias_step);
        let scale = nearest_scale(target as f32, SCALE_BITS);
        let of_bias = |scale| nearest_scale((f64::from(scale) * bias_step) as f32, SCALE_BITS);
        let scales = scale.and_then(|scale| Some([scale, of_bias(scale)?]));
        scales.ok_or_else(|| {
            let name = format!("scales of `{}`", layer.node);
            CompressError::setting(&name, "2^-64 to 2^64", target)
        })
    });
    scales.collect()
}
