//! Quantisation guided by the posterior: the scale of the grid that each layer is stored on.
//!
//! A weight known to sigma need not be stored more finely: rounding N(theta, sigma^2) to a grid of scale c sigma costs about
//! c^2 / 24 nats over the whole training set, and each halving of the scale costs one bit per weight. Every layer gets the
//! scale c times the median sigma of its survivors, with one c for the whole network, so that a bit gains the same everywhere.

use sparsevd_model::quantised::nearest_scale;

use crate::error::CompressError;
use crate::layer::Layer;

/// Significant bits of a scale: within a sixteenth of any target, for about one byte in a packed file.
const SCALE_BITS: u32 = 4;
/// Level of the largest weight of a layer that has no posterior; rounding the scale keeps it below 128.
const LEVELS: u32 = 119;

/// The scale that spreads numbers without a posterior over 8 bits; 1 where all are zero, where any scale is exact.
fn eight_bits(values: &[f32]) -> f64 {
    let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    if largest > 0.0 {
        f64::from(largest) / f64::from(LEVELS)
    } else {
        1.0
    }
}

/// The exact scale of a layer's weights, before rounding to [`SCALE_BITS`]; `None` where the layer never had a posterior.
fn target_scale(layer: &Layer<f32>, c: f64, bias_step: f64) -> Option<f64> {
    if layer.is_depthwise() {
        return Some(eight_bits(layer.weights()));
    }
    if layer.last_log_sigma2.is_empty() {
        return None;
    }
    // Where no weight survived, as in a dead residual block, only biases are stored.
    let empty = || eight_bits(layer.biases()) / bias_step;
    Some(layer.median_sigma().map_or_else(empty, |sigma| c * sigma))
}

/// Scales of weights and biases of every layer: `c` times the median sigma of the layer's survivors, and `bias_step` times
/// that. A depthwise convolution, which has no posterior, gets 8 bits, as do the biases of a layer without survivors.
///
/// # Errors
/// A layer that never had a posterior.
pub(crate) fn scales(
    layers: &[Layer<f32>],
    c: f64,
    bias_step: f64,
) -> Result<Vec<[f32; 2]>, CompressError> {
    let scales = layers.iter().map(|layer| {
        let scales = target_scale(layer, c, bias_step).and_then(|target| {
            let scale = nearest_scale(target as f32, SCALE_BITS)?;
            let of_bias = (f64::from(scale) * bias_step) as f32;
            Some([scale, nearest_scale(of_bias, SCALE_BITS)?])
        });
        scales.ok_or_else(|| {
            let expected = format!(
                "a sparse-vd phase before it, whose sigmas set the grid of `{}`",
                layer.node
            );
            CompressError::setting("quantise phase", expected, "none")
        })
    });
    scales.collect()
}
