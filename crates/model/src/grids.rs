//! Which tensors of a network are on grids, and on which.

use std::collections::BTreeSet;

use crate::{ModelError, Network, bind, quantised};

impl Network {
    /// Declares that a tensor is on the grid of a scale, once that is checked.
    ///
    /// # Errors
    /// A tensor that is not there, a number that is no scale, or a value that is off its grid.
    pub fn set_scale(&mut self, tensor: &str, scale: f32) -> Result<(), ModelError> {
        self.grid(tensor, scale)?;
        self.scales.insert(tensor.into(), scale);
        Ok(())
    }

    /// Names of the weights of layers.
    pub fn weight_names(&self) -> BTreeSet<String> {
        let names = self.graph.weighted_nodes().filter_map(|n| n.op.weight());
        names.map(str::to_owned).collect()
    }

    /// Names of the weights and biases of layers: the tensors that can be on grids.
    pub fn layer_tensors(&self) -> BTreeSet<String> {
        let biases = self.graph.weighted_nodes().filter_map(|n| n.op.bias());
        let mut names = self.weight_names();
        names.extend(biases.map(str::to_owned));
        names
    }

    /// Finds the scales of those of the named tensors that have none; see [`crate::quantised::find_scale`].
    ///
    /// # Errors
    /// The first tensor that is on no grid.
    pub fn find_scales<'n>(
        &mut self,
        names: impl IntoIterator<Item = &'n String>,
    ) -> Result<(), ModelError> {
        for name in names {
            let Some(tensor) = self.tensors.get(name) else {
                continue;
            };
            if !self.scales.contains_key(name) {
                let found = quantised::find_scale(tensor.values());
                let scale = found.ok_or_else(|| ModelError::NoGrid {
                    tensor: name.clone(),
                })?;
                self.scales.insert(name.clone(), scale);
            }
        }
        Ok(())
    }

    /// The integers of the stored elements of a tensor on the grid of `scale`.
    ///
    /// # Errors
    /// As [`Network::set_scale`].
    pub fn grid(&self, tensor: &str, scale: f32) -> Result<Vec<i32>, ModelError> {
        let weights = self
            .tensors
            .get(tensor)
            .ok_or_else(|| ModelError::NoTensor {
                tensor: tensor.into(),
                found: bind::describe(self.tensors.iter().map(|(n, t)| (n.as_str(), t.shape()))),
            })?;
        quantised::grid(weights.values(), scale).map_err(|e| e.for_tensor(tensor))
    }
}
