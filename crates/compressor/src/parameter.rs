//! The registry of parameters: the numbers that training keeps of a network, each with its role.
//!
//! Nodes with state list their tensors as [`Parameter`]s ([`crate::State::parameters`]), always in the same order.
//! Checkpoints, updates, export and posteriors go through that list, so that a new kind of node appears in all of them once it
//! lists its own.

use std::fmt;

use sparsevd_kernels::training::Real;

use crate::variational::Posterior;

/// How training treats a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Weights that have a posterior while there is noise, and a mask: by Adam, with the KL term, and pruned.
    Variational,
    /// By the optimizer alone.
    Plain,
    /// Follows the statistics of batches; no gradient.
    Statistic,
    /// Not trained.
    Constant,
}

/// The node that a parameter belongs to, by its place in [`crate::State`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A linear or convolution node.
    Layer(usize),
    /// A normalisation.
    Normalisation(usize),
    /// A tensor of another node.
    Plain(usize),
}

/// The prefix of the owner's arrays in checkpoints.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(i) => write!(f, "{i}"),
            Self::Normalisation(i) => write!(f, "normalisation.{i}"),
            Self::Plain(i) => write!(f, "plain.{i}"),
        }
    }
}

/// Mask and noise of weights; `V` is a slice for reading, or a vector for writing.
#[derive(Debug)]
pub struct Noise<V> {
    /// 1 where a weight lives, 0 where it was removed for good.
    pub mask: V,
    /// Log variances; empty without noise.
    pub log_sigma2: V,
    /// Variances, zero where masked; computed from the others.
    pub sigma2: V,
    /// Log variances when the noise was last removed.
    pub last_log_sigma2: V,
    /// First and second moments of the log variances, or of the shared rates.
    pub moments: [V; 2],
}

/// Numbers rounded to a grid, which passes compute with.
#[derive(Debug)]
pub struct Rounded<V> {
    /// Scale of the grid.
    pub scale: f32,
    /// The rounded numbers; computed from the others.
    pub values: V,
}

/// One tensor of the state; `V` is `&[T]` for reading, or `&mut Vec<T>` for writing.
#[derive(Debug)]
pub struct Parameter<'a, V> {
    /// Node that it belongs to.
    pub owner: Owner,
    /// Name of the node.
    pub node: &'a str,
    /// Part of the node: `theta`, `bias`, ...
    pub part: &'static str,
    /// Name of the network's tensor; `None` where the network has none, as for the bias of a node without one.
    pub tensor: Option<&'a str>,
    /// How it is trained.
    pub role: Role,
    /// Units, and numbers per unit.
    pub size: [usize; 2],
    /// The numbers.
    pub values: V,
    /// The same on the layer's grid; `None` where the layer has none.
    pub rounded: Option<Rounded<V>>,
    /// First and second moments; `None` for a statistic.
    pub moments: Option<[V; 2]>,
    /// Of weights.
    pub noise: Option<Noise<V>>,
}

/// A parameter for reading.
pub type ParameterRef<'a, T> = Parameter<'a, &'a [T]>;
/// A parameter for writing.
pub type ParameterMut<'a, T> = Parameter<'a, &'a mut Vec<T>>;

impl<'a, V> Parameter<'a, V> {
    /// The same parameter with `f` of every array.
    pub(crate) fn map<W>(self, f: impl Fn(V) -> W) -> Parameter<'a, W> {
        Parameter {
            owner: self.owner,
            node: self.node,
            part: self.part,
            tensor: self.tensor,
            role: self.role,
            size: self.size,
            values: f(self.values),
            rounded: self.rounded.map(|r| Rounded {
                scale: r.scale,
                values: f(r.values),
            }),
            moments: self.moments.map(|m| m.map(&f)),
            noise: self.noise.map(|n| Noise {
                mask: f(n.mask),
                log_sigma2: f(n.log_sigma2),
                sigma2: f(n.sigma2),
                last_log_sigma2: f(n.last_log_sigma2),
                moments: n.moments.map(&f),
            }),
        }
    }

    /// All arrays with their names in checkpoints, but for those that are computed from others.
    pub(crate) fn into_arrays(self) -> Vec<(String, V)> {
        let (owner, part) = (self.owner, self.part);
        let name = |array: &str| format!("{owner}.{array}");
        let mut arrays = vec![(name(part), self.values)];
        if let Some([first, second]) = self.moments {
            arrays.push((name(&format!("{part}.m")), first));
            arrays.push((name(&format!("{part}.v")), second));
        }
        if let Some(noise) = self.noise {
            let [first, second] = noise.moments;
            arrays.extend([
                (name("mask"), noise.mask),
                (name("log_sigma2"), noise.log_sigma2),
                (name("log_sigma2.m"), first),
                (name("log_sigma2.v"), second),
                (name("last_log_sigma2"), noise.last_log_sigma2),
            ]);
        }
        arrays
    }
}

impl<'a, T: Real> ParameterRef<'a, T> {
    /// The numbers that passes compute with: on the grid where there is one.
    pub fn numbers(&self) -> &'a [T] {
        self.rounded.as_ref().map_or(self.values, |r| r.values)
    }

    /// The posterior; `None` without noise.
    pub fn posterior(&self) -> Option<Posterior<'a, T>> {
        let noise = self.noise.as_ref()?;
        (!noise.log_sigma2.is_empty()).then_some(Posterior {
            theta: self.values,
            log_sigma2: noise.log_sigma2,
            mask: noise.mask,
        })
    }

    /// The first array whose length does not fit the others, by its name in checkpoints, with the expected length.
    pub(crate) fn misfit(self) -> Option<(String, usize)> {
        let len = self.size[0] * self.size[1];
        let noisy = self
            .noise
            .as_ref()
            .is_some_and(|n| !n.log_sigma2.is_empty());
        let rates = self.noise.as_ref().map_or(0, |n| n.moments[0].len());
        let optional = |name: &str| name.ends_with("log_sigma2");
        let rate = |name: &str| name.contains(".log_sigma2.");
        let mut arrays = self.into_arrays().into_iter();
        arrays.find_map(|(name, array)| {
            let expected = if rate(&name) {
                // Shared rates are fewer than the weights.
                if noisy { rates.clamp(1, len.max(1)) } else { 0 }
            } else if optional(&name) && array.is_empty() {
                0
            } else {
                len
            };
            (array.len() != expected).then_some((name, expected))
        })
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_model::presets;

    use super::*;
    use crate::{State, initialise};

    #[test]
    fn every_tensor_of_a_network_is_one_parameter_with_its_role() {
        let (graph, shapes) = presets::for_input("resnet-20", [1, 8, 8]).unwrap();
        let network = initialise(graph, &shapes, 1).unwrap();
        let mut state = State::<f32>::from_network(&network).unwrap();
        let parameters = state.parameters();
        let mut tensors: Vec<&str> = parameters.iter().filter_map(|p| p.tensor).collect();
        tensors.sort_unstable();
        let all: Vec<&String> = network.tensors.keys().collect();
        assert_eq!(tensors, all);
        for p in &parameters {
            let tensor = p
                .tensor
                .map(|name| network.tensors[name].shape().elements());
            assert_eq!(tensor.unwrap_or(p.size[0]), p.size[0] * p.size[1]);
            let weights = p
                .tensor
                .is_some_and(|name| network.tensors[name].shape().dims().len() > 1);
            let expected = match p.part {
                "theta" if weights => Role::Variational,
                "mean" | "variance" => Role::Statistic,
                _ if p.tensor.is_none() => Role::Constant,
                _ => Role::Plain,
            };
            assert_eq!(p.role, expected, "{} {}", p.node, p.part);
        }
        // Both lists have the same order.
        let order: Vec<(Owner, &str)> = parameters.iter().map(|p| (p.owner, p.part)).collect();
        let mut copy = state.clone();
        let written = copy.parameters_mut();
        assert!(written.iter().map(|p| (p.owner, p.part)).eq(order));
        // Moments are those of all roles but statistics.
        for p in state.parameters_mut() {
            for m in p.moments.into_iter().flatten() {
                m.fill(1.0);
            }
        }
        state.reset_moments();
        let moments = state.parameters().into_iter().filter_map(|p| p.moments);
        assert!(moments.flatten().flatten().all(|m| *m == 0.0));
    }
}
