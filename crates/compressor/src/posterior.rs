//! Posteriors that were trained elsewhere, with any framework, and pruning by them.
//!
//! A file holds, for a weight `fc1.weight`, the means `fc1.theta` and one of `fc1.log_sigma2` and `fc1.log_alpha`, in the
//! shape of the weight (`fc1.weight.theta` and so on are accepted too). Weights, biases and statistics under their own
//! names replace the network's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sparsevd_format::{Array, ArrayData, read_array};
use sparsevd_kernels::training::log_alpha;
use sparsevd_model::{Csr, Dense, Network, Shape, Weights, passes};

use crate::error::CompressError;

/// A posterior from a file.
#[derive(Debug)]
pub struct ForeignPosterior {
    path: PathBuf,
    arrays: BTreeMap<String, Array>,
}

/// Where the tensors of a network under a posterior come from, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PosteriorUse {
    /// Weights with a posterior; those over the threshold were removed.
    pub pruned: Vec<String>,
    /// Tensors that the file has as they are.
    pub replaced: Vec<String>,
    /// Tensors that only the network has.
    pub kept: Vec<String>,
}

impl ForeignPosterior {
    /// Reads a safetensors or `.npz` file.
    ///
    /// # Errors
    /// A file that cannot be read or has no `theta`.
    pub fn read(path: &Path) -> Result<Self, CompressError> {
        let posterior = Self {
            path: path.to_owned(),
            arrays: read_array(path)?.into_iter().collect(),
        };
        if posterior.thetas().next().is_none() {
            let names: Vec<&str> = posterior.arrays.keys().map(String::as_str).collect();
            return Err(posterior.fail(format!(
                "expected arrays NAME.theta with NAME.log_sigma2 or NAME.log_alpha, got {}",
                names.join(", ")
            )));
        }
        Ok(posterior)
    }

    /// The network with the posterior's means as weights, without those whose `log_alpha` is above the threshold; what has a
    /// posterior is CSR.
    ///
    /// # Errors
    /// A shape that is not that of the network's tensor, means without noise or with two kinds of it, means of no weight,
    /// numbers that are not finite.
    pub fn prune(
        &self,
        network: &Network,
        threshold: f64,
    ) -> Result<(Network, PosteriorUse), CompressError> {
        let mut pruned = network.clone();
        let mut used = PosteriorUse::default();
        let mut stems = Vec::new();
        for (name, tensor) in &mut pruned.tensors {
            if let Some(stem) = self.stem(name) {
                *tensor = self.weight(stem, &tensor.shape(), threshold, |theta, _| theta)?;
                stems.push(stem.to_owned());
                used.pruned.push(name.clone());
            } else if self.arrays.contains_key(name) {
                let values = self.values(name, &tensor.shape())?.to_vec();
                *tensor = Weights::Dense(Dense::new(tensor.shape(), values));
                used.replaced.push(name.clone());
            } else {
                used.kept.push(name.clone());
            }
        }
        if let Some(unknown) = self.thetas().find(|t| !stems.iter().any(|s| s == t)) {
            return Err(self.fail(format!(
                "`{unknown}.theta`: expected the name of one of the network's tensors, {}",
                sparsevd_model::bind::describe(
                    network.tensors.iter().map(|(n, t)| (n.as_str(), t.shape()))
                )
            )));
        }
        pruned.scales.clear();
        let shapes = std::mem::take(&mut pruned.original_shapes);
        let mut checked = Network::new(pruned.graph, pruned.tensors)?;
        checked.original_shapes = shapes;
        Ok((checked, used))
    }

    /// Median deviation of the weights that survive the threshold, by the names of the weights of layers; none where no weight survives.
    ///
    /// They are those of the weights as the network runs, with batch normalisation folded into them.
    ///
    /// # Errors
    /// As [`Self::prune`].
    pub fn sigmas(
        &self,
        network: &Network,
        threshold: f64,
    ) -> Result<BTreeMap<String, f64>, CompressError> {
        let mut deviations = network.clone();
        let mut known = Vec::new();
        for (name, tensor) in &mut deviations.tensors {
            if let Some(stem) = self.stem(name) {
                let deviation = |_: f32, log_sigma2: f32| (0.5 * log_sigma2).exp();
                *tensor = self.weight(stem, &tensor.shape(), threshold, deviation)?;
                known.push(name.clone());
            } else if self.arrays.contains_key(name) {
                let values = self.values(name, &tensor.shape())?.to_vec();
                *tensor = Weights::Dense(Dense::new(tensor.shape(), values));
            }
        }
        // A normalisation scales deviations as it does the weights, and those of dead units leave.
        let folded = passes::for_running(&deviations);
        let alive = passes::drop_dead_channels(&folded);
        let alive = alive.as_ref().unwrap_or(&folded);
        let median = |name: String| {
            let tensor = alive.tensors.get(&name)?;
            let nonzeros = tensor.values().iter().filter(|v| **v != 0.0);
            let mut sigmas: Vec<f32> = nonzeros.map(|v| v.abs()).collect();
            sigmas.sort_by(f32::total_cmp);
            let median = *sigmas.get(sigmas.len() / 2)?;
            Some((name, f64::from(median)))
        };
        Ok(known.into_iter().filter_map(median).collect())
    }

    /// What the arrays of a tensor's posterior are named after, where it has one.
    fn stem<'n>(&self, tensor: &'n str) -> Option<&'n str> {
        let stems = [Some(tensor), tensor.strip_suffix(".weight")];
        let mut stems = stems.into_iter().flatten();
        stems.find(|stem| self.arrays.contains_key(&format!("{stem}.theta")))
    }

    /// Names before `.theta`.
    fn thetas(&self) -> impl Iterator<Item = &str> {
        self.arrays
            .keys()
            .filter_map(|name| name.strip_suffix(".theta"))
    }

    /// `value` of the mean and the log variance of each weight that survives.
    fn weight(
        &self,
        stem: &str,
        shape: &Shape,
        threshold: f64,
        value: impl Fn(f32, f32) -> f32,
    ) -> Result<Weights, CompressError> {
        let theta = self.values(&format!("{stem}.theta"), shape)?;
        let [sigma, alpha] = ["log_sigma2", "log_alpha"].map(|part| format!("{stem}.{part}"));
        let is_sigma = match (
            self.arrays.contains_key(&sigma),
            self.arrays.contains_key(&alpha),
        ) {
            (true, false) => true,
            (false, true) => false,
            (both, _) => {
                return Err(self.fail(format!(
                    "`{stem}.theta`: expected one of `{sigma}` and `{alpha}` beside it, got {}",
                    if both { "both" } else { "neither" }
                )));
            }
        };
        let noise = self.values(if is_sigma { &sigma } else { &alpha }, shape)?;
        let of = |(&theta, &noise): (&f32, &f32)| {
            let (rate, log_sigma2) = match is_sigma {
                true => (log_alpha(theta, noise), noise),
                false => (noise, noise + (theta * theta + 1e-8).ln()),
            };
            match f64::from(rate) <= threshold {
                true => value(theta, log_sigma2),
                false => 0.0,
            }
        };
        let values = theta.iter().zip(noise).map(of);
        let dense = Dense::new(shape.clone(), values.collect());
        Ok(Weights::Csr(Csr::from_dense(&dense)))
    }

    /// Finite numbers of a shape.
    fn values(&self, name: &str, shape: &Shape) -> Result<&[f32], CompressError> {
        let wrong = |expected: &str, got: String| {
            Err(self.fail(format!("`{name}`: expected {expected}, got {got}")))
        };
        let Some(array) = self.arrays.get(name) else {
            return wrong("to be there", "nothing".into());
        };
        if array.shape != shape.dims() {
            return wrong(
                &format!("the shape {shape} of the network's tensor"),
                Shape(array.shape.clone()).to_string(),
            );
        }
        match &array.data {
            ArrayData::F32(values) => match values.iter().find(|v| !v.is_finite()) {
                None => Ok(values),
                Some(bad) => wrong("finite numbers", bad.to_string()),
            },
            other => wrong("floating-point numbers", other.kind().into()),
        }
    }

    fn fail(&self, what: String) -> CompressError {
        CompressError::Report {
            path: self.path.clone(),
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_model::presets;

    use super::*;
    use crate::initialise;

    fn network() -> Network {
        let (graph, shapes) = presets::mlp("small", Shape::from([2]), &[2, 1]);
        initialise(graph, &shapes, 1).unwrap()
    }

    /// Name, shape and elements.
    type Floats<'a> = (&'a str, &'a [usize], &'a [f32]);

    fn posterior(arrays: &[Floats<'_>]) -> ForeignPosterior {
        let array = |(name, shape, values): &Floats<'_>| {
            let array = Array {
                shape: shape.to_vec(),
                data: ArrayData::F32(values.to_vec()),
            };
            ((*name).to_owned(), array)
        };
        ForeignPosterior {
            path: "p.safetensors".into(),
            arrays: arrays.iter().map(array).collect(),
        }
    }

    #[test]
    fn weights_over_the_threshold_go_by_either_kind_of_noise() {
        let network = network();
        let theta: &[f32] = &[1.0, 2.0, -3.0, 0.5];
        let noise: [&[f32]; 2] = [&[0.0, 9.0, -4.0, 1.0], &[0.0, 7.61, -6.2, 2.38]];
        for (name, noise) in ["fc1.log_sigma2", "fc1.log_alpha"].iter().zip(noise) {
            let p = posterior(&[
                ("fc1.theta", &[2, 2], theta),
                (name, &[2, 2], noise),
                ("fc1.bias", &[2], &[7.0, 8.0]),
            ]);
            let (pruned, used) = p.prune(&network, 3.0).unwrap();
            assert_eq!(
                pruned.tensors["fc1.weight"].to_dense().values,
                [1.0, 0.0, -3.0, 0.5]
            );
            assert_eq!(pruned.tensors["fc1.bias"].values(), [7.0, 8.0]);
            assert_eq!(pruned.tensors["fc2.weight"], network.tensors["fc2.weight"]);
            assert_eq!(
                (used.pruned, used.replaced),
                (vec!["fc1.weight".into()], vec!["fc1.bias".into()])
            );
            assert_eq!(used.kept, ["fc2.bias", "fc2.weight"]);
            let (pruned, _) = p.prune(&network, 2.0).unwrap();
            assert_eq!(pruned.tensors["fc1.weight"].nonzeros(), 2);
        }
    }

    #[test]
    fn deviations_are_the_medians_of_those_that_survive() {
        let network = network();
        let theta: &[f32] = &[1.0, 2.0, -3.0, 0.5];
        let sigma = [0.125_f32, 0.25, 0.5, 1e3];
        let logs = sigma.map(|s| 2.0 * s.ln());
        let alphas = std::array::from_fn::<f32, 4, _>(|i| logs[i] - (theta[i] * theta[i]).ln());
        for (name, noise) in [("fc1.log_sigma2", logs), ("fc1.log_alpha", alphas)] {
            let p = posterior(&[("fc1.theta", &[2, 2], theta), (name, &[2, 2], &noise)]);
            let sigmas = p.sigmas(&network, 3.0).unwrap();
            assert_eq!(sigmas.len(), 1, "{name}: {sigmas:?}");
            assert!(
                (sigmas["fc1.weight"] - 0.25).abs() < 1e-5,
                "{name}: {sigmas:?}"
            );
            assert!(
                p.sigmas(&network, -8.0).unwrap().is_empty(),
                "none survives"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_names_it() {
        let theta: Floats<'_> = ("fc1.weight.theta", &[2, 2], &[1.0; 4]);
        let cases: &[(&[Floats<'_>], &str)] = &[
            (&[theta], "got neither"),
            (
                &[
                    theta,
                    ("fc1.weight.log_alpha", &[2, 2], &[0.0; 4]),
                    ("fc1.weight.log_sigma2", &[2, 2], &[0.0; 4]),
                ],
                "got both",
            ),
            (
                &[theta, ("fc1.weight.log_alpha", &[4], &[0.0; 4])],
                "`fc1.weight.log_alpha`: expected the shape [2, 2]",
            ),
            (
                &[
                    theta,
                    ("fc1.weight.log_alpha", &[2, 2], &[0.0, f32::NAN, 0.0, 0.0]),
                ],
                "finite",
            ),
            (
                &[("fc9.theta", &[1], &[1.0])],
                "`fc9.theta`: expected the name",
            ),
        ];
        let wrong: Vec<String> = cases
            .iter()
            .filter_map(
                |(arrays, want)| match posterior(arrays).prune(&network(), 3.0) {
                    Err(e) if e.to_string().contains(want) => None,
                    other => Some(format!("expected {want}, got {other:?}")),
                },
            )
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
