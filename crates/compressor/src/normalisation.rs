//! The state of one batch normalisation (Ioffe and Szegedy 2015), or of arithmetic with constants.
//!
//! Graphs have `scale x + bias` with constants as a normalisation of mean 0, variance 1 and epsilon 0, as the ONNX importer
//! writes it. Its numbers are the network's and not parameters: it takes no statistics of batches and does not train.

use std::collections::BTreeMap;

use sparsevd_kernels::training::Real;
use sparsevd_model::{Dense, Network, Node, Op, Weights};

/// Share of a batch's statistics in the running ones after it: PyTorch's momentum.
pub(crate) const MOMENTUM: f64 = 0.1;

/// Factors and summands, running statistics and Adam moments of a batch normalisation, one number per channel in each array.
///
/// Steps normalise by the statistics of their batch and move the running ones towards them; predictions use the running ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalisation<T> {
    /// Name of the node.
    pub node: String,
    /// Tensor names of scale, bias, mean and variance.
    pub names: [String; 4],
    /// Whether this is arithmetic with constants, which does not train.
    pub constant: bool,
    /// What is added to the variance.
    pub epsilon: f64,
    /// Factors.
    pub scale: Vec<T>,
    /// Summands.
    pub bias: Vec<T>,
    /// Running mean.
    pub mean: Vec<T>,
    /// Running variance, unbiased.
    pub variance: Vec<T>,
    /// First and second moments of the factors.
    pub scale_moments: [Vec<T>; 2],
    /// First and second moments of the summands.
    pub bias_moments: [Vec<T>; 2],
}

impl<T: Real> Normalisation<T> {
    /// The state of a node with the network's numbers; `None` for another operator.
    pub(crate) fn from_node(network: &Network, node: &Node) -> Option<Self> {
        let Op::BatchNormalization {
            scale,
            bias,
            mean,
            variance,
            epsilon,
        } = &node.op
        else {
            return None;
        };
        let names = [scale, bias, mean, variance].map(String::clone);
        let numbers = names.each_ref().map(|name| {
            let values = network.tensors[name].to_dense().values;
            values.iter().map(|&v| T::of(f64::from(v))).collect()
        });
        let zeros = || vec![T::default(); Vec::len(&numbers[0])];
        let (scale_moments, bias_moments) = ([zeros(), zeros()], [zeros(), zeros()]);
        let [scale, bias, mean, variance] = numbers;
        let all = |values: &[T], value| values.iter().all(|v| *v == T::of(value));
        Some(Self {
            node: node.name.clone(),
            names,
            constant: *epsilon == 0.0 && all(&mean, 0.0) && all(&variance, 1.0),
            epsilon: f64::from(*epsilon),
            scale,
            bias,
            mean,
            variance,
            scale_moments,
            bias_moments,
        })
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.scale.len()
    }

    /// Sets the moments of Adam to zero.
    pub fn reset_moments(&mut self) {
        for m in self.scale_moments.iter_mut().chain(&mut self.bias_moments) {
            m.fill(T::default());
        }
    }

    /// Moves the running statistics towards those of a batch of `count` numbers per channel.
    pub(crate) fn follow(&mut self, mean: &[f64], variance: &[f64], count: usize) {
        // The batch's variance is divided by the count, the running one by one less.
        let unbiased = count as f64 / (count as f64 - 1.0).max(1.0);
        let toward = |old: &mut T, new: f64| {
            *old = T::of((1.0 - MOMENTUM) * old.to_f64() + MOMENTUM * new);
        };
        for (old, new) in self.mean.iter_mut().zip(mean) {
            toward(old, *new);
        }
        for (old, new) in self.variance.iter_mut().zip(variance) {
            toward(old, new * unbiased);
        }
    }
}

impl Normalisation<f32> {
    /// The state's arrays by part of their tensor's role, as checkpoints keep them.
    pub(crate) fn arrays(&self) -> [(&'static str, &Vec<f32>); 8] {
        let [scale_m, scale_v] = &self.scale_moments;
        let [bias_m, bias_v] = &self.bias_moments;
        [
            ("scale", &self.scale),
            ("bias", &self.bias),
            ("mean", &self.mean),
            ("variance", &self.variance),
            ("scale.m", scale_m),
            ("scale.v", scale_v),
            ("bias.m", bias_m),
            ("bias.v", bias_v),
        ]
    }

    /// The arrays of [`Self::arrays`], to write to.
    pub(crate) fn arrays_mut(&mut self) -> [(&'static str, &mut Vec<f32>); 8] {
        let [scale_m, scale_v] = &mut self.scale_moments;
        let [bias_m, bias_v] = &mut self.bias_moments;
        [
            ("scale", &mut self.scale),
            ("bias", &mut self.bias),
            ("mean", &mut self.mean),
            ("variance", &mut self.variance),
            ("scale.m", scale_m),
            ("scale.v", scale_v),
            ("bias.m", bias_m),
            ("bias.v", bias_v),
        ]
    }

    /// Puts the tensors into a network.
    pub(crate) fn export(&self, tensors: &mut BTreeMap<String, Weights>) {
        let values = [&self.scale, &self.bias, &self.mean, &self.variance];
        for (name, values) in self.names.iter().zip(values) {
            let dense = Dense::new([values.len()], values.clone());
            tensors.insert(name.clone(), Weights::Dense(dense));
        }
    }
}
