//! The run's step from one form of its network to the other.

use super::Trainer;
use super::form::{Fold, fold, folds};
use crate::error::CompressError;

impl Trainer {
    /// The normalisations that a quantise phase to come makes parts of layers.
    pub(super) fn folds(&self) -> Vec<Fold> {
        match &self.folded {
            Some(folded) if !self.is_folded => {
                folds(&self.came.network.graph, &folded.network.graph)
            }
            _ => vec![],
        }
    }

    /// Makes batch normalisations parts of the layers before them, once; units that died of them leave.
    pub(super) fn fold_normalisations(&mut self) -> Result<(), CompressError> {
        let folds = self.folds();
        if folds.is_empty() {
            return Ok(());
        }
        let mut state = self.engine.state().clone();
        fold(&mut state, &folds);
        self.is_folded = true;
        self.engine = self.engine_of(state)?;
        self.remove_over(self.threshold())
    }
}
