//! Rounding the weights of a network to grids, without training.

use std::collections::BTreeMap;

use sparsevd_model::quantised::{MAX_LEVEL, grid, nearest_scale, value};
use sparsevd_model::{ModelError, Network, Weights};

use crate::error::CompressError;
use crate::export::smaller;
use crate::quantise::{SCALE_BITS, eight_bits};

/// Root mean square error of outputs, as a share of their root mean square, that rounding aims at.
const ERROR: f64 = 0.03;

/// How weights are rounded to grids: every layer gets one scale, by which its weights and biases become integers.
///
/// With independent inputs of equal mean square, rounding `n` weights `W` of a layer to a scale `s` moves its outputs by the share
/// `e^2 = n s^2 / (12 |W|^2)` of their mean square. The bits of all layers, `-sum n log2 s`, are fewest for a given sum of `e^2` where `s` is
/// `|W|` times a factor that all layers share. A bias counts as a weight of an input of one: it gets the scale of its weights. Where these
/// were on a grid before, which may be coarse, the scale of the bias is at most `|W|` times the factor of all weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Rounding {
    /// Posterior deviations by the names of weights, finite and above 0. Such a weight gets this scale.
    pub sigmas: BTreeMap<String, f64>,
    /// Root of the sum of `e^2` over the layers without a posterior.
    pub error: f64,
    /// Largest magnitude of the integers of weights.
    pub most: i32,
}

impl Default for Rounding {
    fn default() -> Self {
        Self {
            sigmas: BTreeMap::new(),
            error: ERROR,
            most: MAX_LEVEL,
        }
    }
}

/// A network that was rounded to grids.
#[derive(Debug, Clone, PartialEq)]
pub struct Rounded {
    /// The network, with a scale for every weight and bias of a layer.
    pub network: Network,
    /// Root of the sum over the layers of `e^2`, the squared error that rounding made of weights and biases, as a share of the weights' sum
    /// of squares; of that of the biases in a layer without weights. `None` where nothing was rounded, as all was on grids.
    pub error: Option<f64>,
}

impl Rounding {
    /// Rounds every weight and bias of a layer that is on no grid yet. Weights that round to zero are removed; shapes stay.
    ///
    /// # Errors
    /// Numbers that are not finite, or so large or small that no scale fits them; a deviation that is not finite and above 0.
    pub fn round(&self, network: &Network) -> Result<Rounded, CompressError> {
        let mut rounded = network.clone();
        for (name, tensor) in &network.tensors {
            tensor.check_finite().map_err(|e| e.for_tensor(name))?;
        }
        for (name, sigma) in &self.sigmas {
            if !(sigma.is_finite() && *sigma > 0.0) {
                let name = format!("deviation of `{name}`");
                return Err(CompressError::setting(
                    &name,
                    "a finite number above 0",
                    sigma,
                ));
            }
        }
        for name in network.layer_tensors() {
            match rounded.find_scales([&name]) {
                Ok(()) | Err(ModelError::NoGrid { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let weights = network.weight_names();
        for name in &weights {
            // Integers that are too large are rounded again.
            let fits = |scale: &f32| {
                let levels = rounded.grid(name, *scale);
                levels.is_ok_and(|levels| levels.iter().all(|q| q.abs() <= self.most))
            };
            if !rounded.scales.get(name).is_some_and(fits) {
                rounded.scales.remove(name);
            }
        }
        for node in network.graph.weighted_nodes() {
            let is_rounded = node
                .op
                .weight()
                .is_some_and(|w| !rounded.scales.contains_key(w));
            if let Some(bias) = node.op.bias().filter(|_| is_rounded)
                && !network.scales.contains_key(bias)
            {
                // One or two numbers are on some grid by chance, in many bits.
                rounded.scales.remove(bias);
            }
        }
        let factor = |is_counted: &dyn Fn(&str) -> bool| {
            let counted = weights.iter().filter(|name| is_counted(name));
            let counted = counted.filter_map(|name| network.tensors.get(name));
            let nonzeros: usize = counted.map(Weights::nonzeros).sum();
            self.error * (12.0 / nonzeros.max(1) as f64).sqrt()
        };
        let of_rounded =
            factor(&|name| !rounded.scales.contains_key(name) && !self.sigmas.contains_key(name));
        let of_all = factor(&|_| true);
        let mut error = None;
        for node in network.graph.weighted_nodes() {
            let (Some(weight), bias) = (node.op.weight(), node.op.bias()) else {
                continue;
            };
            let of = |name: Option<&str>| {
                name.and_then(|name| network.tensors.get(name))
                    .map_or(&[][..], Weights::values)
            };
            let squares = |values: &[f32]| -> f64 {
                let squares = values.iter().map(|w| f64::from(*w).powi(2));
                squares.sum()
            };
            let (values, biases) = (of(Some(weight)), of(bias));
            let norm = squares(values).sqrt();
            let mut away = None;
            let bias_target = match rounded.scales.get(weight) {
                Some(scale) => f64::from(*scale).min(of_all * norm),
                None => {
                    let sigma = self.sigmas.get(weight).copied();
                    let target = sigma.unwrap_or(of_rounded * norm);
                    let scale = scale_of(weight, values, target, self.most)?;
                    away = Some(round(&mut rounded, weight, scale)?);
                    f64::from(scale)
                }
            };
            if let Some(bias) = bias.filter(|bias| !rounded.scales.contains_key(*bias)) {
                // A layer that lost all its weights stores its biases alone.
                let target = match norm > 0.0 {
                    true => bias_target,
                    false => eight_bits(biases),
                };
                let scale = scale_of(bias, biases, target, MAX_LEVEL)?;
                *away.get_or_insert(0.0) += round(&mut rounded, bias, scale)?;
            }
            if let Some(away) = away {
                let all = match norm > 0.0 {
                    true => norm.powi(2),
                    false => squares(biases).max(f64::MIN_POSITIVE),
                };
                *error.get_or_insert(0.0) += away / all;
            }
        }
        Ok(Rounded {
            network: rounded,
            error: error.map(f64::sqrt),
        })
    }
}

/// A scale near `target` by which the integers of `values` are at most `most`.
fn scale_of(name: &str, values: &[f32], target: f64, most: i32) -> Result<f32, CompressError> {
    let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let least = f64::from(largest) / f64::from(most);
    let fits = |scale: &f32| (largest / scale).round() <= most as f32;
    let next = |scale: f32| nearest_scale(scale * 1.125, SCALE_BITS);
    let scale = nearest_scale(target.max(least) as f32, SCALE_BITS);
    let scale = scale.and_then(|scale| Some(scale).filter(fits).or_else(|| next(scale)));
    scale.ok_or_else(|| {
        let name = format!("scale of `{name}`");
        CompressError::setting(&name, "2^-64 to 2^64", target)
    })
}

/// Rounds a tensor to the grid of `scale`, and returns the sum of the squares of what was rounded away.
fn round(network: &mut Network, name: &str, scale: f32) -> Result<f64, CompressError> {
    let Some(tensor) = network.tensors.get_mut(name) else {
        return Ok(0.0);
    };
    let nearest = |v: f32| value((v / scale).round() as i32, scale);
    let away = |v: &f32| f64::from(*v - nearest(*v)).powi(2);
    let error = tensor.values().iter().map(away).sum();
    let mut dense = tensor.to_dense();
    dense.values.iter_mut().for_each(|v| *v = nearest(*v));
    grid(&dense.values, scale).map_err(|e| e.for_tensor(name))?;
    *tensor = match tensor {
        Weights::Csr(_) => smaller(dense),
        _ => dense.into(),
    };
    network.scales.insert(name.into(), scale);
    Ok(error)
}
