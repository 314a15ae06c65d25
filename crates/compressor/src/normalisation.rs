//! The state of one batch normalisation (Ioffe and Szegedy 2015), or of arithmetic with constants.
//!
//! Graphs have `scale x + bias` with constants as a normalisation of mean 0, variance 1 and epsilon 0, as the ONNX importer
//! writes it. Its numbers are the network's and not parameters: it takes no statistics of batches and does not train.

use sparsevd_kernels::training::Real;
use sparsevd_model::{Network, Node, Op, ops};

use crate::parameter::{Owner, Parameter, ParameterMut, ParameterRef, Role};

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

/// The parameters of a normalisation, by shared or by mutable references.
macro_rules! parameters {
    ($state:expr, $owner:expr, $channels:expr, $($borrow:tt)+) => {{
        let role = |role| if $state.constant { Role::Constant } else { role };
        let (trained, statistic) = (role(Role::Plain), role(Role::Statistic));
        let channels = $channels;
        let [scale_m, scale_v] = $($borrow)+ $state.scale_moments;
        let [bias_m, bias_v] = $($borrow)+ $state.bias_moments;
        let [scale, bias, mean, variance] = &$state.names;
        [
            ("scale", scale, trained, $($borrow)+ $state.scale, Some([scale_m, scale_v])),
            ("bias", bias, trained, $($borrow)+ $state.bias, Some([bias_m, bias_v])),
            ("mean", mean, statistic, $($borrow)+ $state.mean, None),
            ("variance", variance, statistic, $($borrow)+ $state.variance, None),
        ]
        .map(|(part, tensor, role, values, moments)| Parameter {
            owner: $owner,
            node: &$state.node,
            part,
            tensor: Some(tensor),
            role,
            size: [channels, 1],
            values,
            rounded: None,
            moments,
            noise: None,
        })
    }};
}

impl<T: Real> Normalisation<T> {
    /// The state of a node with the network's numbers; `None` for another operator.
    pub(crate) fn from_node(network: &Network, node: &Node) -> Option<Self> {
        let Op::BatchNormalization(ops::BatchNormalization {
            scale,
            bias,
            mean,
            variance,
            epsilon,
        }) = &node.op
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

    /// What it does to a channel by its running statistics: factor and summand.
    pub(crate) fn affine(&self, channel: usize) -> [f64; 2] {
        let [scale, bias, mean, variance] =
            [&self.scale, &self.bias, &self.mean, &self.variance].map(|v| v[channel].to_f64());
        let factor = scale / (variance + self.epsilon).sqrt();
        [factor, bias - mean * factor]
    }

    /// The node's parameters: factors, summands, running mean and running variance.
    pub fn parameters(&self, owner: Owner) -> [ParameterRef<'_, T>; 4] {
        parameters!(self, owner, self.channels(), &).map(|p| p.map(Vec::as_slice))
    }

    /// The node's parameters, for writing.
    pub fn parameters_mut(&mut self, owner: Owner) -> [ParameterMut<'_, T>; 4] {
        let channels = self.channels();
        parameters!(self, owner, channels, &mut)
    }
}
