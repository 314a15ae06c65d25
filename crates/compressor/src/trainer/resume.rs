//! Checkpoints of a run: what they store of it, and how it goes on from one.

use std::borrow::Cow;
use std::path::Path;

use super::{Observer, Snapshot, Trainer};
use crate::checkpoint::{self, Begun, Found};
use crate::error::CompressError;

impl Trainer {
    /// What a checkpoint stores of the run.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            position: self.position,
            sums: self.sums,
            history: Cow::Borrowed(&self.history),
            state: Cow::Borrowed(self.engine.state()),
            average: Cow::Borrowed(&self.average),
        }
    }

    /// Puts the run where a snapshot was taken.
    ///
    /// # Errors
    /// A state that does not fit the network.
    pub fn restore(&mut self, snapshot: Snapshot<'_>) -> Result<(), CompressError> {
        let mut state = snapshot.state.into_owned();
        for (layer, now) in state.layers.iter_mut().zip(self.engine.layers()) {
            layer.input_grid = now.input_grid;
        }
        self.is_folded = self.recipe.folds_at(snapshot.position.begun());
        self.engine = self.engine_of(state)?;
        (self.position, self.sums) = (snapshot.position, snapshot.sums);
        self.history = snapshot.history.into_owned();
        self.average = snapshot.average.into_owned();
        Ok(())
    }

    /// Puts the run where the last checkpoint of a run folder was written. Where that is damaged, the run goes on from the one before it,
    /// of which the observer is warned.
    ///
    /// # Errors
    /// A folder without a checkpoint that can be read, or one of a run of another network, data set, recipe or seed, which is named.
    pub fn resume(
        &mut self,
        folder: &Path,
        observer: &mut dyn Observer,
    ) -> Result<(), CompressError> {
        let begun = self.begun();
        let found = checkpoint::read_last(folder, &self.checkpointed(&begun))?;
        let is_previous = found.is_previous;
        self.go_on(&checkpoint::path(folder), found, observer)?;
        if is_previous && self.run_folder.as_deref() == Some(folder) {
            checkpoint::restore_previous(folder)?;
        }
        Ok(())
    }

    /// Puts the run where a checkpoint file was written.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub fn resume_from(
        &mut self,
        file: &Path,
        observer: &mut dyn Observer,
    ) -> Result<(), CompressError> {
        let begun = self.begun();
        let found = checkpoint::read(file, &self.checkpointed(&begun))?;
        self.go_on(file, found, observer)
    }

    fn go_on(
        &mut self,
        file: &Path,
        found: Found,
        observer: &mut dyn Observer,
    ) -> Result<(), CompressError> {
        let outputs = self.engine.outputs();
        let unfit = |what: String| CompressError::Checkpoint {
            path: file.into(),
            what: format!("expected units and inputs that fit each other: {what}"),
        };
        self.restore(found.snapshot)
            .map_err(|e| unfit(e.to_string()))?;
        if self.engine.outputs() != outputs {
            let got = self.engine.outputs();
            return Err(unfit(format!("{outputs} outputs, got {got}")));
        }
        found.warnings.iter().for_each(|text| observer.warn(text));
        Ok(())
    }

    /// What the run began with.
    fn begun(&self) -> Begun {
        let (network, data, by) = (self.original(), &self.data, &self.begun_by);
        let begun = self
            .begun
            .get_or_init(|| Begun::new(network, data, by, self.isa));
        begun.by(by)
    }

    /// The run as its checkpoints must have it.
    fn checkpointed<'r>(&'r self, begun: &'r Begun) -> checkpoint::Run<'r> {
        checkpoint::Run {
            begun,
            recipe: &self.recipe,
            samples: self.data.train().len(),
            dense: &self.came.dense,
            folded: self.folded.as_deref().map(|form| &form.dense),
        }
    }

    /// Writes the checkpoint, where the run has a folder.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self) -> Result<(), CompressError> {
        match &self.run_folder {
            Some(folder) => checkpoint::write(folder, &self.begun(), &self.snapshot()),
            None => Ok(()),
        }
    }
}
