//! Pruning by magnitude, in one shot: the baseline that needs neither data nor training.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sparsevd_model::{Csr, Network, Op, Weights};

use crate::error::CompressError;
use crate::keep_dense;

/// Among which weights the smallest are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Scope {
    /// All layers together.
    #[default]
    Global,
    /// Each layer for itself.
    ///
    /// Every layer gets the same sparsity.
    Layer,
}

/// How a network is pruned by magnitude.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Magnitude {
    /// Share of the weights of the pruned layers that is removed: 0 or more, below 1.
    pub sparsity: f64,
    /// Among which weights.
    pub scope: Scope,
    /// Prune the first convolution and depthwise ones too, which have few weights and matter much. A first convolution with most of the
    /// weights is pruned in any case.
    pub every_layer: bool,
    /// Layers that lose no weights, by the names of their nodes or of their weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_dense: Vec<String>,
}

impl Magnitude {
    /// The network without its smallest weights; of equal ones the last are removed first. Pruned weights are CSR, so that a trainer
    /// keeps them removed.
    ///
    /// # Errors
    /// A sparsity out of range, a name of no layer.
    pub fn prune(&self, network: &Network) -> Result<Network, CompressError> {
        self.check()?;
        let layers = self.layers(network)?;
        let mut removed: BTreeMap<&str, Vec<bool>> = BTreeMap::new();
        match self.scope {
            Scope::Global => {
                let all: Vec<f32> = layers.values().flatten().copied().collect();
                let mut marks = self.smallest(&all).into_iter();
                for (name, values) in &layers {
                    removed.insert(name, marks.by_ref().take(values.len()).collect());
                }
            }
            Scope::Layer => {
                for (name, values) in &layers {
                    removed.insert(name, self.smallest(values));
                }
            }
        }
        let mut pruned = network.clone();
        for (name, removed) in removed {
            if let Some(tensor) = pruned.tensors.get_mut(name) {
                let mut dense = tensor.to_dense();
                for (v, _) in dense.values.iter_mut().zip(removed).filter(|(_, r)| *r) {
                    *v = 0.0;
                }
                *tensor = Weights::Csr(Csr::from_dense(&dense));
            }
        }
        Ok(pruned)
    }

    /// The names of the weights that may be pruned.
    ///
    /// # Errors
    /// A sparsity out of range, a name of no layer.
    pub fn pruned<'n>(&self, network: &'n Network) -> Result<Vec<&'n str>, CompressError> {
        self.check()?;
        Ok(self.layers(network)?.into_keys().collect())
    }

    fn check(&self) -> Result<(), CompressError> {
        if (0.0..1.0).contains(&self.sparsity) {
            return Ok(());
        }
        let expected = "a number of 0 or more and below 1";
        Err(CompressError::setting("sparsity", expected, self.sparsity))
    }

    /// Weights of the layers that are pruned, by tensor name.
    fn layers<'n>(
        &self,
        network: &'n Network,
    ) -> Result<BTreeMap<&'n str, Vec<f32>>, CompressError> {
        let is_conv = |op: &Op| matches!(op, Op::Conv(_));
        let first = network.graph.weighted_nodes().position(|n| is_conv(&n.op));
        let elements = |node| network.weight(node).map_or(0, |w| w.shape().elements());
        let all: usize = network.graph.weighted_nodes().map(elements).sum();
        let has_most = |node| elements(node) > all / 2;
        let mut layers = BTreeMap::new();
        let mut kept = keep_dense::weights_of(network, &self.keep_dense)?;
        for (i, node) in network.graph.weighted_nodes().enumerate() {
            let (Some(name), Some(weight)) = (node.op.weight(), network.weight(node)) else {
                continue;
            };
            let depthwise =
                matches!(&node.op, Op::Conv(conv) if conv.is_depthwise(&weight.shape()));
            let is_small_first = Some(i) == first && !has_most(node);
            if !self.every_layer && (is_small_first || depthwise) {
                kept.insert(name);
            } else {
                layers.insert(name, weight.to_dense().values);
            }
        }
        layers.retain(|name, _| !kept.contains(name));
        Ok(layers)
    }

    /// Marks the share of the smallest numbers.
    fn smallest(&self, values: &[f32]) -> Vec<bool> {
        let count = (self.sparsity * values.len() as f64).round() as usize;
        let mut order: Vec<u32> = (0..values.len() as u32).collect();
        let mut marks = vec![false; values.len()];
        if count > 0 {
            let size = |i: &u32| (values[*i as usize].abs(), std::cmp::Reverse(*i));
            order.select_nth_unstable_by(count - 1, |a, b| {
                let ((a, i), (b, j)) = (size(a), size(b));
                a.total_cmp(&b).then(i.cmp(&j))
            });
            order[..count]
                .iter()
                .for_each(|&i| marks[i as usize] = true);
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_model::{Dense, presets};

    use super::*;
    use crate::initialise;

    fn network() -> Network {
        let (graph, shapes) = presets::for_input("mobilenet-v1", [3, 32, 32]).unwrap();
        initialise(graph, &shapes, 3).unwrap()
    }

    #[test]
    fn a_first_convolution_with_most_of_the_weights_is_pruned() {
        let mut b = sparsevd_model::GraphBuilder::new("wide");
        let x = b.input("x", [8, 1, 20]);
        let window = sparsevd_model::Window {
            kernel_shape: [1, 5],
            ..sparsevd_model::Window::square(1, 1)
        };
        let x = b.conv("conv", &x, &sparsevd_model::Conv2d::new(16, window));
        let x = b.op("mean", Op::GlobalAveragePool, &[&x]);
        let x = b.op("flat", Op::Flatten, &[&x]);
        b.linear("fc", &x, 10);
        let network = b.network(|_, shape| {
            let values = (0..shape.elements()).map(|i| 1.0 + i as f32);
            Dense::new(shape.clone(), values.collect()).into()
        });
        let magnitude = Magnitude {
            sparsity: 0.5,
            scope: Scope::Layer,
            every_layer: false,
            keep_dense: vec![],
        };
        let pruned = magnitude.prune(&network.unwrap()).unwrap();
        assert_eq!(nonzeros(&pruned, "conv"), (320, 640));
        assert_eq!(nonzeros(&pruned, "fc"), (80, 160));
    }

    fn nonzeros(network: &Network, node: &str) -> (usize, usize) {
        let weight = &network.tensors[&format!("{node}.weight")];
        (weight.nonzeros(), weight.shape().elements())
    }

    #[test]
    fn each_layer_or_all_together_lose_their_smallest_weights() {
        let network = network();
        for scope in [Scope::Layer, Scope::Global] {
            let magnitude = Magnitude {
                sparsity: 0.9,
                scope,
                every_layer: false,
                keep_dense: vec![],
            };
            let pruned = magnitude.prune(&network).unwrap();
            for dense in ["conv1", "depthwise1", "depthwise13"] {
                let (left, all) = nonzeros(&pruned, dense);
                assert_eq!(left, all, "{dense}");
            }
            let layers: Vec<(usize, usize)> = (1..=13)
                .map(|i| nonzeros(&pruned, &format!("pointwise{i}")))
                .chain([nonzeros(&pruned, "fc")])
                .collect();
            let [left, all] = [
                layers.iter().map(|l| l.0).sum(),
                layers.iter().map(|l| l.1).sum::<usize>(),
            ];
            assert!(left.abs_diff(all / 10) <= 14, "{left} of {all}");
            let even = layers
                .iter()
                .all(|(left, all)| left.abs_diff(all / 10) <= 1);
            assert_eq!(even, scope == Scope::Layer);
            // What is left is larger than what went.
            let (before, after) = (&network.tensors["fc.weight"], &pruned.tensors["fc.weight"]);
            let after = after.to_dense().values;
            let went = before
                .values()
                .iter()
                .zip(&after)
                .filter(|(_, a)| **a == 0.0);
            let largest = went.map(|(b, _)| b.abs()).fold(0.0, f32::max);
            assert!(after.iter().all(|a| *a == 0.0 || a.abs() >= largest));
        }
        let all = Magnitude {
            sparsity: 0.5,
            scope: Scope::Layer,
            every_layer: true,
            keep_dense: vec![],
        };
        let (left, of) = nonzeros(&all.prune(&network).unwrap(), "conv1");
        assert_eq!(left, of / 2);
    }

    #[test]
    fn ties_and_bounds() {
        let mut network = network();
        let ones = Dense::new([1000, 1024], vec![1.0; 1_024_000]);
        network
            .tensors
            .insert("fc.weight".into(), Weights::Dense(ones));
        let magnitude = |sparsity| Magnitude {
            sparsity,
            scope: Scope::Layer,
            every_layer: false,
            keep_dense: vec![],
        };
        let pruned = magnitude(0.25).prune(&network).unwrap();
        let values = pruned.tensors["fc.weight"].to_dense().values;
        assert!(values[..768_000].iter().all(|v| *v == 1.0));
        assert!(values[768_000..].iter().all(|v| *v == 0.0));
        assert_eq!(magnitude(0.0).prune(&network).unwrap().to_dense(), network);
        for wrong in [1.0, -0.1, f64::NAN] {
            let error = magnitude(wrong).prune(&network).unwrap_err().to_string();
            assert!(error.contains("sparsity"), "{error}");
        }
    }
}
