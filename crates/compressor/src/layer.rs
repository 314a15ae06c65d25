//! The trainable state of one weighted node.

use sparsevd_kernels::training::Real;
use sparsevd_model::{Int8Grid, Network, Node, Shape, quantised};

use crate::normalisation::Normalisation;
use crate::parameter::{Noise, Owner, Parameter, ParameterMut, ParameterRef, Role, Rounded};
use crate::variational::{Granularity, Posterior};

/// Weights, posterior, mask and Adam moments of a linear or convolution node.
///
/// Weights lie as `[units][patch]`: inputs of a linear layer; `[kh][kw][channel]`, channels last, of a convolution. As units
/// die the arrays shrink; `kept_out` and `kept_in` are the indices of the original tensor that are still here.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer<T> {
    /// Name of the node.
    pub node: String,
    /// Tensor name of the weight.
    pub weight: String,
    /// Tensor name of the bias, where the node has one.
    pub bias_name: Option<String>,
    /// Shape of the weight tensor as it came: `[out, in]` or `[out, in/groups, kh, kw]`.
    pub original: Shape,
    /// Whether the layer loses no weights because a recipe says so.
    pub keep_dense: bool,
    /// Independent groups of channels of a convolution, whose units and channels all stay where there are several; else 1.
    pub groups: usize,
    /// Original output units or channels that are here, ascending.
    pub kept_out: Vec<u32>,
    /// Original input features (linear) or channels of a group (convolution) that are here, ascending.
    pub kept_in: Vec<u32>,
    /// Means.
    pub theta: Vec<T>,
    /// One per unit; zeros, and not trained, where the node has no bias.
    pub bias: Vec<T>,
    /// Log variances; empty while the layer trains without noise.
    pub log_sigma2: Vec<T>,
    /// exp(log_sigma2), zero where masked; empty while the layer trains without noise.
    pub sigma2: Vec<T>,
    /// log_sigma2 when the noise was last removed; empty before that. The scales of grids come from it.
    pub last_log_sigma2: Vec<T>,
    /// 1 where a weight lives, 0 where it was removed for good.
    pub mask: Vec<T>,
    /// Scales of the grids that weights and biases are rounded to in every pass; `None` where they are not.
    pub scales: Option<[f32; 2]>,
    /// Weights and biases on their grids; empty without scales. Gradients are taken there and applied to `theta` and
    /// `bias` (the straight-through estimator of Bengio, Leonard and Courville 2013).
    pub on_grid: [Vec<T>; 2],
    /// The bytes that the layer's input is rounded to in every pass, as where it runs in int8; `None` where it is not.
    pub input_grid: Option<Int8Grid>,
    /// First and second moments of theta.
    pub theta_moments: [Vec<T>; 2],
    /// First and second moments of the bias.
    pub bias_moments: [Vec<T>; 2],
    /// First and second moments of log_sigma2, or of the shared rates.
    pub log_sigma2_moments: [Vec<T>; 2],
}

/// Weights and biases of a layer, by shared or by mutable references.
macro_rules! parameters {
    ($layer:expr, $owner:expr, $roles:expr, $sizes:expr, $($borrow:tt)+) => {{
        let [theta_m, theta_v] = $($borrow)+ $layer.theta_moments;
        let [bias_m, bias_v] = $($borrow)+ $layer.bias_moments;
        let [noise_m, noise_v] = $($borrow)+ $layer.log_sigma2_moments;
        let [theta_grid, bias_grid] = $($borrow)+ $layer.on_grid;
        let [theta_scale, bias_scale] = match $layer.scales {
            Some(scales) => scales.map(Some),
            None => [None, None],
        };
        [
            Parameter {
                owner: $owner,
                node: &$layer.node,
                part: "theta",
                tensor: Some(&$layer.weight),
                role: $roles[0],
                size: $sizes[0],
                values: $($borrow)+ $layer.theta,
                rounded: match theta_scale {
                    Some(scale) => Some(Rounded { scale, values: theta_grid }),
                    None => None,
                },
                moments: Some([theta_m, theta_v]),
                noise: Some(Noise {
                    mask: $($borrow)+ $layer.mask,
                    log_sigma2: $($borrow)+ $layer.log_sigma2,
                    sigma2: $($borrow)+ $layer.sigma2,
                    last_log_sigma2: $($borrow)+ $layer.last_log_sigma2,
                    moments: [noise_m, noise_v],
                }),
            },
            Parameter {
                owner: $owner,
                node: &$layer.node,
                part: "bias",
                tensor: $layer.bias_name.as_deref(),
                role: $roles[1],
                size: $sizes[1],
                values: $($borrow)+ $layer.bias,
                rounded: match bias_scale {
                    Some(scale) => Some(Rounded { scale, values: bias_grid }),
                    None => None,
                },
                moments: Some([bias_m, bias_v]),
                noise: None,
            },
        ]
    }};
}

impl<T: Real> Layer<T> {
    /// The state of every weighted node of a network, in order, with its weights as means and no noise.
    ///
    /// No two nodes may share a tensor; [`crate::State::from_network`] checks that.
    pub fn from_network(network: &Network) -> Vec<Self> {
        let nodes = network.graph.weighted_nodes();
        nodes.map(|node| Self::from_node(network, node)).collect()
    }

    fn from_node(network: &Network, node: &Node) -> Self {
        let groups = node.op.groups();
        let weight = node.op.weight().unwrap_or_default().to_owned();
        let dense = network.tensors[&weight].to_dense();
        let (out, inn) = (dense.shape.dims()[0], dense.shape.dims()[1]);
        let area: usize = dense.shape.dims()[2..].iter().product();
        let mut theta = vec![T::default(); dense.values.len()];
        for o in 0..out {
            for i in 0..inn {
                for a in 0..area {
                    theta[(o * area + a) * inn + i] =
                        T::of(f64::from(dense.values[(o * inn + i) * area + a]));
                }
            }
        }
        let bias = match network.bias(node) {
            Some(b) => b.iter().map(|&b| T::of(f64::from(b))).collect(),
            None => vec![T::default(); out],
        };
        // A zero of a sparse file stays removed; a dense file may hold zeros by chance.
        let sparse = matches!(network.tensors[&weight], sparsevd_model::Weights::Csr(_));
        let alive = |t: &T| {
            if sparse && *t == T::of(0.0) {
                T::of(0.0)
            } else {
                T::of(1.0)
            }
        };
        let n = theta.len();
        Self {
            node: node.name.clone(),
            weight,
            bias_name: node.op.bias().map(str::to_owned),
            original: dense.shape.clone(),
            keep_dense: false,
            groups,
            kept_out: (0..out as u32).collect(),
            kept_in: (0..inn as u32).collect(),
            mask: theta.iter().map(alive).collect(),
            theta,
            bias,
            log_sigma2: vec![],
            sigma2: vec![],
            last_log_sigma2: vec![],
            scales: None,
            on_grid: [vec![], vec![]],
            input_grid: None,
            theta_moments: [vec![T::default(); n], vec![T::default(); n]],
            bias_moments: [vec![T::default(); out], vec![T::default(); out]],
            log_sigma2_moments: [vec![], vec![]],
        }
    }

    /// Number of units that are here.
    pub fn units(&self) -> usize {
        self.kept_out.len()
    }

    /// Weights per unit: inputs, or kernel area times channels.
    pub fn patch(&self) -> usize {
        self.area() * self.kept_in.len()
    }

    /// Kernel area; 1 for a linear layer.
    pub fn area(&self) -> usize {
        self.original.dims()[2..].iter().product()
    }

    /// Whether every unit reads one channel: a depthwise convolution, which has few weights and trains without noise.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.original.dims()[1] == 1
    }

    /// Whether the layer trains without noise and loses no weights: a depthwise convolution, or one that a recipe keeps dense.
    pub fn stays_dense(&self) -> bool {
        self.keep_dense || self.is_depthwise()
    }

    /// Whether the layer has noise.
    pub fn is_variational(&self) -> bool {
        !self.log_sigma2.is_empty()
    }

    /// Gives every weight the noise `log_sigma2`; with shared rates, the rate that noise has at the group's mean square.
    /// A layer that stays dense stays without.
    pub fn start_noise(&mut self, log_sigma2: f64, granularity: Granularity) {
        if self.stays_dense() {
            return;
        }
        let group = granularity.group(self.units(), self.patch());
        self.log_sigma2 = vec![T::of(log_sigma2); self.theta.len()];
        if granularity != Granularity::Weight {
            for (l, t) in self
                .log_sigma2
                .chunks_mut(group)
                .zip(self.theta.chunks(group))
            {
                let mean = t.iter().map(|t| t.to_f64() * t.to_f64()).sum::<f64>() / t.len() as f64;
                let log_alpha = log_sigma2 - (mean + 1e-8).ln();
                for (l, t) in l.iter_mut().zip(t) {
                    *l = T::of(log_alpha + (t.to_f64() * t.to_f64() + 1e-8).ln());
                }
            }
        }
        let rates = self.theta.len().div_ceil(group.max(1));
        self.log_sigma2_moments = [vec![T::default(); rates], vec![T::default(); rates]];
        self.refresh_sigma2();
    }

    /// Removes the noise; `last_log_sigma2` keeps it, as that of weights which have taken the normalisation of their outputs, where one is given: before it
    /// their size says nothing, and changes in training.
    pub(crate) fn stop_noise(&mut self, normalisation: Option<&Normalisation<T>>) {
        if self.is_variational() {
            let mut logs = std::mem::take(&mut self.log_sigma2);
            if let Some(normalisation) = normalisation {
                self.scale_deviations(&mut logs, normalisation);
            }
            self.last_log_sigma2 = logs;
        }
        self.sigma2.clear();
        self.log_sigma2_moments = [vec![], vec![]];
    }

    /// The layer's parameters: weights, then biases.
    pub fn parameters(&self, owner: Owner) -> [ParameterRef<'_, T>; 2] {
        let (roles, sizes) = (self.roles(), self.sizes());
        parameters!(self, owner, roles, sizes, &).map(|p| p.map(Vec::as_slice))
    }

    /// The layer's parameters, for writing.
    pub fn parameters_mut(&mut self, owner: Owner) -> [ParameterMut<'_, T>; 2] {
        let (roles, sizes) = (self.roles(), self.sizes());
        parameters!(self, owner, roles, sizes, &mut)
    }

    fn roles(&self) -> [Role; 2] {
        let weights = match self.stays_dense() {
            true => Role::Plain,
            false => Role::Variational,
        };
        let biases = match self.bias_name {
            Some(_) => Role::Plain,
            None => Role::Constant,
        };
        [weights, biases]
    }

    /// Units and numbers per unit of weights and biases.
    fn sizes(&self) -> [[usize; 2]; 2] {
        [[self.units(), self.patch()], [self.units(), 1]]
    }

    /// Recomputes `sigma2` from `log_sigma2` and the mask.
    pub fn refresh_sigma2(&mut self) {
        self.sigma2 = self
            .log_sigma2
            .iter()
            .zip(&self.mask)
            .map(|(&l, &m)| m * l.exp())
            .collect();
    }

    /// The posterior, for reading.
    ///
    /// # Panics
    /// When the layer has no noise.
    pub fn posterior(&self) -> Posterior<'_, T> {
        assert!(
            self.is_variational(),
            "layer `{}` has no posterior",
            self.node
        );
        Posterior {
            theta: &self.theta,
            log_sigma2: &self.log_sigma2,
            mask: &self.mask,
        }
    }

    /// Median posterior deviation sigma of the living weights when the noise was removed; `None` without a posterior.
    pub fn median_sigma(&self) -> Option<f64> {
        let alive = self
            .last_log_sigma2
            .iter()
            .zip(&self.mask)
            .filter(|(_, m)| **m > T::default());
        let mut logs: Vec<f64> = alive.map(|(l, _)| l.to_f64()).collect();
        logs.sort_by(f64::total_cmp);
        logs.get(logs.len() / 2).map(|l| (0.5 * l).exp())
    }

    /// Rounds weights and biases to grids of these scales from now on.
    pub fn set_scales(&mut self, scales: Option<[f32; 2]>) {
        self.scales = scales;
        self.on_grid = [vec![], vec![]];
        self.refresh_grid();
    }

    /// Recomputes `on_grid` after `theta` or `bias` moved.
    pub fn refresh_grid(&mut self) {
        let Some(scales) = self.scales else { return };
        for ((grid, values), scale) in self
            .on_grid
            .iter_mut()
            .zip([&self.theta, &self.bias])
            .zip(scales)
        {
            grid.clear();
            grid.extend(values.iter().map(|v| {
                let most = f64::from(quantised::MAX_LEVEL);
                let level = (v.to_f64() / f64::from(scale)).round().clamp(-most, most) as i32;
                T::of(f64::from(quantised::value(level, scale)))
            }));
        }
    }

    /// The weights that passes compute with: on the grid where there is one.
    pub fn weights(&self) -> &[T] {
        if self.scales.is_some() {
            &self.on_grid[0]
        } else {
            &self.theta
        }
    }

    /// The biases that passes compute with.
    pub fn biases(&self) -> &[T] {
        if self.scales.is_some() {
            &self.on_grid[1]
        } else {
            &self.bias
        }
    }

    /// Which weights live at a threshold on `log_alpha`; without noise, those that were not removed and are not zero, and all
    /// that were not removed from a layer that stays dense.
    pub fn survivors(&self, threshold: f64) -> Vec<bool> {
        if self.is_variational() {
            return self.posterior().survivors(threshold).collect();
        }
        let (zero, whole) = (T::default(), self.stays_dense());
        let weights = self.mask.iter().zip(self.weights());
        weights
            .map(|(&m, &t)| m > zero && (whole || t != zero))
            .collect()
    }

    /// Removes for good every weight for which `keep` is false.
    pub fn remove(&mut self, keep: &[bool]) {
        let zero = T::default();
        for (i, _) in keep.iter().enumerate().filter(|(_, keep)| !**keep) {
            self.theta[i] = zero;
            self.mask[i] = zero;
            for m in &mut self.theta_moments {
                m[i] = zero;
            }
            if !self.sigma2.is_empty() {
                self.sigma2[i] = zero;
            }
        }
        self.refresh_grid();
    }

    /// Removes for good every weight of the units that are not among the original units `stay`.
    pub(crate) fn remove_units(&mut self, stay: &[bool]) {
        let patch = self.patch();
        let units = self.kept_out.iter();
        let keep: Vec<bool> = units
            .flat_map(|&u| std::iter::repeat_n(stay[u as usize], patch))
            .collect();
        if keep.contains(&false) {
            self.remove(&keep);
        }
    }

    /// Whether a living weight reads the input `inn`, an index into what is here.
    pub(crate) fn is_read(&self, inn: usize) -> bool {
        let mut weights = self.mask.iter().skip(inn).step_by(self.kept_in.len());
        weights.any(|m| *m > T::default())
    }

    /// Number of weights that were not removed.
    pub fn alive(&self) -> usize {
        self.mask.iter().filter(|m| **m > T::default()).count()
    }

    /// Takes the batch normalisation of its outputs into weights and biases, with its running statistics: `factor (W x + b) + summand`.
    /// The deviations of noise go with them, and rates stay; those of noise that was removed are as they will be
    /// ([`Self::stop_noise`]). A unit whose factor is zero loses its weights.
    pub(crate) fn absorb(&mut self, normalisation: &Normalisation<T>, bias_name: Option<String>) {
        let patch = self.patch();
        let mut keep = vec![true; self.theta.len()];
        for (unit, &channel) in self.kept_out.iter().enumerate() {
            let [factor, summand] = normalisation.affine(channel as usize);
            let row = unit * patch..(unit + 1) * patch;
            let scaled = |v: &T| T::of(v.to_f64() * factor);
            self.theta[row.clone()]
                .iter_mut()
                .for_each(|v| *v = scaled(v));
            self.bias[unit] = T::of(self.bias[unit].to_f64() * factor + summand);
            if factor == 0.0 {
                keep[row].fill(false);
            }
        }
        let mut logs = std::mem::take(&mut self.log_sigma2);
        self.scale_deviations(&mut logs, normalisation);
        self.log_sigma2 = logs;
        self.bias_name = bias_name;
        self.remove(&keep);
        self.refresh_sigma2();
    }

    /// Gives all weights a deviation of noise that was removed; as [`Self::stop_noise`] with a normalisation.
    pub(crate) fn set_sigma(&mut self, sigma: f64, normalisation: Option<&Normalisation<T>>) {
        let mut logs = vec![T::of(2.0 * sigma.ln()); self.theta.len()];
        if let Some(normalisation) = normalisation {
            self.scale_deviations(&mut logs, normalisation);
        }
        self.last_log_sigma2 = logs;
    }

    /// Multiplies deviations of this layer's weights by what a normalisation does to their unit, where that is not zero. `logs` may be empty.
    fn scale_deviations(&self, logs: &mut [T], normalisation: &Normalisation<T>) {
        let units = logs.chunks_exact_mut(self.patch()).zip(&self.kept_out);
        for (of_unit, &channel) in units {
            let [factor, _] = normalisation.affine(channel as usize);
            if factor != 0.0 {
                let log = 2.0 * factor.abs().ln();
                of_unit
                    .iter_mut()
                    .for_each(|v| *v = T::of(v.to_f64() + log));
            }
        }
    }

    /// Keeps the units `out` and the inputs `inn` (indices into what is here) and drops the rest.
    pub fn keep(&mut self, out: &[usize], inn: &[usize]) {
        let (area, old_in) = (self.area(), self.kept_in.len());
        let whole = self.theta.len();
        let pick = |v: &mut Vec<T>| {
            // Empty without noise; fewer than the weights where rates are shared, and those are not compacted.
            if v.len() == whole && whole > 0 {
                let mut new = Vec::with_capacity(out.len() * area * inn.len());
                for &o in out {
                    for a in 0..area {
                        let row = &v[(o * area + a) * old_in..][..old_in];
                        new.extend(inn.iter().map(|&i| row[i]));
                    }
                }
                *v = new;
            }
        };
        pick(&mut self.log_sigma2);
        pick(&mut self.last_log_sigma2);
        pick(&mut self.sigma2);
        pick(&mut self.mask);
        self.theta_moments.iter_mut().for_each(pick);
        self.log_sigma2_moments.iter_mut().for_each(pick);
        pick(&mut self.theta);
        let pick_units = |v: &mut Vec<T>| *v = out.iter().map(|&o| v[o]).collect();
        pick_units(&mut self.bias);
        self.bias_moments.iter_mut().for_each(pick_units);
        self.kept_out = out.iter().map(|&o| self.kept_out[o]).collect();
        self.kept_in = inn.iter().map(|&i| self.kept_in[i]).collect();
        self.refresh_grid();
    }
}
