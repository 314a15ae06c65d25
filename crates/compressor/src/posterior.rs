//! Posteriors that were trained elsewhere, with any framework, and pruning by them.
//!
//! A file holds, for a weight `fc1.weight`, the means `fc1.theta` and one of `fc1.log_sigma2` and `fc1.log_alpha`, in the
//! shape of the weight (`fc1.weight.theta` and so on are accepted too). Weights, biases and statistics under their own
//! names replace the network's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sparsevd_format::{Array, ArrayData, read_array};
use sparsevd_kernels::training::log_alpha;
use sparsevd_model::{Csr, Dense, Network, Shape, Weights};

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
            let stem = [Some(name.as_str()), name.strip_suffix(".weight")]
                .into_iter()
                .flatten()
                .find(|stem| self.arrays.contains_key(&format!("{stem}.theta")));
            if let Some(stem) = stem {
                *tensor = self.weight(stem, &tensor.shape(), threshold)?;
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

    /// Names before `.theta`.
    fn thetas(&self) -> impl Iterator<Item = &str> {
        self.arrays
            .keys()
            .filter_map(|name| name.strip_suffix(".theta"))
    }

    fn weight(&self, stem: &str, shape: &Shape, threshold: f64) -> Result<Weights, CompressError> {
        let theta = self.values(&format!("{stem}.theta"), shape)?;
        let [sigma, alpha] = ["log_sigma2", "log_alpha"].map(|part| format!("{stem}.{part}"));
        let survives: Vec<bool> = match (
            self.arrays.contains_key(&sigma),
            self.arrays.contains_key(&alpha),
        ) {
            (true, false) => {
                let noise = self.values(&sigma, shape)?;
                let rates = theta.iter().zip(noise).map(|(&t, &l)| log_alpha(t, l));
                rates.map(|a| f64::from(a) <= threshold).collect()
            }
            (false, true) => {
                let rates = self.values(&alpha, shape)?;
                rates.iter().map(|a| f64::from(*a) <= threshold).collect()
            }
            (both, _) => {
                return Err(self.fail(format!(
                    "`{stem}.theta`: expected one of `{sigma}` and `{alpha}` beside it, got {}",
                    if both { "both" } else { "neither" }
                )));
            }
        };
        let values = theta
            .iter()
            .zip(survives)
            .map(|(t, s)| if s { *t } else { 0.0 });
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
