//! The files in the folder of a cell.

use std::path::{Path, PathBuf};

use sparsevd_compressor::recipe::Recipe;

use crate::error::PipelineError;
use crate::outputs::Outputs;

/// What a finished cell gave.
pub(super) fn result_path(folder: &Path) -> PathBuf {
    folder.join("cell.json")
}

/// The files of the network of a cell.
pub(super) fn files(folder: &Path, recipe: &Recipe) -> Result<Outputs, PipelineError> {
    Outputs::new(folder.join("network.sparse.safetensors"), recipe)
}
