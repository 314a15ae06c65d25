//! How pixels and tables become the input of a network, which must say so.

use std::fmt;

use sparsevd_model::{Graph, Preprocessing};

use crate::error::PipelineError;

/// How pixels become the input of a network. Where it does not say that, it is not guessed. `data` is where they come from.
pub(crate) fn of_pixels<'g>(
    graph: &'g Graph,
    data: &dyn fmt::Display,
) -> Result<&'g Preprocessing, PipelineError> {
    let no_preprocessing = || PipelineError::NoPreprocessing {
        data: data.to_string(),
        network: graph.name.clone(),
    };
    graph.preprocessing.as_ref().ok_or_else(no_preprocessing)
}

/// How the columns of a table become the input of a network that was trained on one. `data` is where the table comes from.
pub(crate) fn of_table<'g>(
    graph: &'g Graph,
    data: &dyn fmt::Display,
) -> Result<&'g Preprocessing, PipelineError> {
    let stored = graph.preprocessing.as_ref().filter(|p| p.table.is_some());
    stored.ok_or_else(|| PipelineError::NoTable {
        data: data.to_string(),
        network: graph.name.clone(),
    })
}
