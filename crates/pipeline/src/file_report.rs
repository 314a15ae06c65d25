//! A report on the file of a network, without the run that made it.

use std::path::Path;

use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{PackedResult, Report};
use sparsevd_format::{FileType, LoadedNetwork, network_files};
use sparsevd_model::{DType, Input, Network};

use crate::error::PipelineError;
use crate::inspect::Inspection;
use crate::measure::{kernels, timings};

/// What a file and the network that was read from it say of themselves: layers, bytes by encoding, kernels, speed and memory of the
/// sparse plan beside the dense one, and the recipe and the seed, where they are stored. Nothing of training, nor errors.
///
/// Speed is measured, unless `bench` is `false`, on numbers from 0 to 1, or ids, of a network without a free dimension and with inputs that can
/// be run.
///
/// # Errors
/// As [`Inspection::new`]; a network that cannot be planned.
pub fn report_on_file(
    path: &Path,
    loaded: LoadedNetwork,
    bench: bool,
) -> Result<Report, PipelineError> {
    let network = loaded.network.clone();
    let inspection = Inspection::new(path, loaded)?;
    let (kernels, timings) = match (is_timed(&network), bench) {
        (true, true) => {
            network.check_dense()?;
            let (kernels, timings) = timings(&network, &network.to_dense(), None)?;
            (kernels, Some(timings))
        }
        (true, false) => (kernels(&network, &network)?, None),
        (false, _) => (vec![], None),
    };
    let is_packed = FileType::of_file(&network_files(path)?[0])? == FileType::Packed;
    let packed = inspection.packed.filter(|_| is_packed);
    let stored = |key: &str| inspection.metadata.get(key);
    let mut warnings = inspection.warnings.clone();
    // What another version stored is no reason to show nothing.
    let recipe = stored("sparsevd.recipe").and_then(|text| {
        let recipe = Recipe::from_toml(text, path);
        recipe.map_err(|e| warnings.push(e.to_string())).ok()
    });
    let seed = stored("sparsevd.seed").and_then(|seed| seed.parse().ok());
    Ok(Report {
        schema: inspection.schema,
        version: env!("CARGO_PKG_VERSION").into(),
        network: inspection.network,
        model: path.to_owned(),
        warnings,
        output: path.to_owned(),
        packed: packed.map(|packed| PackedResult {
            output: path.to_owned(),
            size: packed.size,
            rounding_error: None,
            validation: None,
            test: None,
        }),
        not_packed: None,
        pruning: None,
        data: None,
        seed: seed.unwrap_or_default(),
        recipe_source: match recipe {
            Some(_) => "stored with the network".into(),
            None => String::new(),
        },
        recipe: recipe.unwrap_or_else(|| Recipe::new(vec![])),
        search: None,
        preprocessing: inspection.preprocessing,
        history: vec![],
        summary: inspection.summary,
        kernels,
        accuracy: None,
        int8: None,
        encodings: inspection.encodings,
        timings,
        training_seconds: 0.0,
    })
}

/// Whether its plans can be timed on made-up samples: it has no free dimension, and inputs that can be run.
fn is_timed(network: &Network) -> bool {
    let (graph, ids) = (&network.graph, network.ids());
    let runs = |i: &Input| i.dtype == DType::F32 || ids.contains_key(i.name.as_str());
    graph.free_symbol().is_none() && graph.inputs.iter().all(runs)
}
