//! A second run that goes on from where a first one is.

use std::path::PathBuf;

use super::Trainer;
use super::pruning::survivors;
use crate::checkpoint;
use crate::error::CompressError;
use crate::recipe::Recipe;

impl Trainer {
    /// A run of the same network and data, at the same place with the same state, that goes on by another recipe.
    ///
    /// It gives the bytes of a run that had that recipe from the beginning, where the phases that are done are the same in both.
    ///
    /// # Errors
    /// A recipe out of range, a run folder that cannot be made.
    pub fn fork(&self, recipe: Recipe, run_folder: Option<PathBuf>) -> Result<Self, CompressError> {
        recipe.check()?;
        if let Some(folder) = &run_folder {
            checkpoint::make_folder(folder)?;
        }
        Ok(Self {
            folded: self.folded.clone(),
            came: self.came.clone(),
            is_folded: self.is_folded,
            spread: self.spread,
            begun_by: recipe.clone(),
            begun: self.begun.clone(),
            recipe,
            data: self.data.clone(),
            engine: self.engine_of(self.engine.state().clone())?,
            position: self.position,
            history: self.history.clone(),
            sums: self.sums,
            average: self.average.clone(),
            unit: self.unit,
            shapes: self.shapes.clone(),
            taught_by: self.taught_by.clone(),
            teacher: self.teacher.clone(),
            divergence: self.divergence,
            class_weights: self.class_weights.clone(),
            isa: self.isa,
            pool: self.pool.clone(),
            run_folder,
        })
    }

    /// Number of weights of all layers that the recipe's threshold leaves.
    pub fn survivors(&self) -> usize {
        survivors(self.engine.layers(), self.threshold())
    }
}
