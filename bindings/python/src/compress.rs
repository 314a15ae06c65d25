//! Compressing a network: what the command `compress MODEL` does.

use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sparsevd_compressor::Magnitude;
use sparsevd_compressor::recipe::{Goal, Overrides, PruneBy, Recipe, Validation};
use sparsevd_compressor::report::{Calibration, Pruning};
use sparsevd_format::{LoadedNetwork, TableOptions, ValueType};
use sparsevd_model::{Graph, Preprocessing};
use sparsevd_pipeline::{
    Compression, DEFAULT_GRIDS, Data, FoundRecipe, InputNetwork, NEEDS_GRID, ONLY_FINE_TUNING,
    Outputs, PipelineError, RunFolder,
};

use crate::error::{IntoPyErr, class, detached, setting_error};
use crate::json;
use crate::model::{Model, csr_profile, value_type};
use crate::observer::Listener;
use crate::samples::data_of_arrays;

/// The keywords of `sparsevd.compress`, each as it was given or `None`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Settings {
    data: Option<PathBuf>,
    recipe: Option<PathBuf>,
    threshold: Option<f64>,
    kl_scale: Option<f64>,
    alpha: Option<String>,
    max_accuracy_drop: Option<f64>,
    min_agreement: Option<f64>,
    max_r2_drop: Option<f64>,
    max_class_drop: Option<f64>,
    class_weights: Option<String>,
    keep_dense: Option<Vec<String>>,
    ratio: Option<f64>,
    weights: Option<usize>,
    bytes: Option<u64>,
    budget: Option<f64>,
    seed: Option<u64>,
    validation: Option<String>,
    validation_from_test: Option<usize>,
    target: Option<String>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    scale: Option<f32>,
    method: Option<String>,
    sparsity: Option<f64>,
    calibrate: Option<usize>,
    scope: Option<String>,
    every_layer: bool,
    int8: bool,
    posterior: Option<PathBuf>,
    run: Option<PathBuf>,
    resume: bool,
    overwrite: bool,
    threads: Option<usize>,
    out: Option<PathBuf>,
    values: Option<String>,
    profile: Option<String>,
    bench: bool,
}

/// The value of a setting that a recipe has by that word.
fn word<T: DeserializeOwned>(setting: &str, word: Option<&String>) -> PyResult<Option<T>> {
    let parse = |word: &String| {
        serde_json::from_value(Value::String(word.clone()))
            .map_err(|e| class::CompressError::new_err(format!("{setting}: {e}")))
    };
    word.map(parse).transpose()
}

impl Settings {
    fn overrides(&self) -> PyResult<Overrides> {
        let from_test = self.validation_from_test.map(Validation::from_test);
        let Ok(validation) = self.validation.as_deref().map(str::parse).transpose();
        Ok(Overrides {
            seed: self.seed,
            validation: validation.or(from_test),
            threshold: self.threshold,
            kl_scale: self.kl_scale,
            alpha: word("alpha", self.alpha.as_ref())?,
            max_accuracy_drop: self.max_accuracy_drop,
            min_agreement: self.min_agreement,
            max_r2_drop: self.max_r2_drop,
            max_class_drop: self.max_class_drop,
            class_weights: word("class_weights", self.class_weights.as_ref())?,
            keep_dense: self.keep_dense.clone(),
            epochs: None,
            int8: self.int8,
            goal: Goal::of(self.ratio, self.weights, self.bytes),
        })
    }

    /// By what the network is pruned gradually, where it is.
    fn gradual(&self) -> PyResult<Option<PruneBy>> {
        let method = self.method.as_deref();
        if self.calibrate.is_some() {
            let others = [
                ("method", method.is_some()),
                ("posterior", self.posterior.is_some()),
                ("scope", self.scope.is_some()),
                (
                    "goal",
                    Goal::of(self.ratio, self.weights, self.bytes).is_some(),
                ),
            ];
            if let Some((name, _)) = others.into_iter().find(|(_, given)| *given) {
                return Err(setting_error(name, "none beside `calibrate`", "one"));
            }
        }
        let needs = match (method, self.sparsity, &self.posterior) {
            (Some("magnitude"), None, _) => Some(("a `sparsity`", "none")),
            (Some("sparse-vd" | "gradual-magnitude" | "fisher"), Some(_), _) => {
                Some(("magnitude, which `sparsity` is for", "another"))
            }
            (Some(_), _, Some(_)) => Some(("none beside a posterior", "one")),
            _ => None,
        };
        if let Some((expected, got)) = needs {
            return Err(setting_error("method", expected, got));
        }
        match method {
            None | Some("sparse-vd" | "magnitude") => Ok(None),
            Some("gradual-magnitude") => Ok(Some(PruneBy::Magnitude)),
            Some("fisher") => Ok(Some(PruneBy::Fisher)),
            Some(other) => {
                let expected = "sparse-vd, magnitude, gradual-magnitude or fisher";
                Err(setting_error("method", expected, format!("`{other}`")))
            }
        }
    }

    fn pruning(&self) -> PyResult<Option<Pruning>> {
        if let Some(samples) = self.calibrate {
            let Some(sparsity) = self.sparsity else {
                return Err(setting_error("calibrate", "a `sparsity` beside it", "none"));
            };
            if samples == 0 {
                return Err(setting_error("calibrate", "1 input or more", "0"));
            }
            return Ok(Some(Pruning::Calibration(Calibration {
                samples,
                sparsity,
                every_layer: self.every_layer,
                keep_dense: vec![],
            })));
        }
        let scope = word("scope", self.scope.as_ref())?;
        Ok(match (&self.posterior, self.sparsity) {
            (Some(_), Some(_)) => {
                let expected = "the share that magnitude pruning removes, or a posterior";
                return Err(setting_error("sparsity", expected, "both"));
            }
            (Some(file), None) => Some(Pruning::Posterior {
                file: file.clone(),
                threshold: self.threshold.unwrap_or(3.0),
            }),
            (None, Some(sparsity)) => Some(Pruning::Magnitude(Magnitude {
                sparsity,
                scope: scope.unwrap_or_default(),
                every_layer: self.every_layer,
                keep_dense: vec![],
            })),
            (None, None) => None,
        })
    }

    fn folder(&self) -> PyResult<Option<RunFolder>> {
        Ok(match (&self.run, self.resume, self.overwrite) {
            (None, true, _) => {
                let expected = "a run folder, `run`, to go on with";
                return Err(setting_error("resume", expected, "none"));
            }
            (None, false, _) => None,
            (Some(run), true, _) => Some(RunFolder::resume(run).map_err(IntoPyErr::into_py_err)?),
            (Some(run), false, true) => Some(RunFolder::overwrite(run)),
            (Some(run), false, false) => Some(RunFolder::new(run)),
        })
    }

    /// The recipe that is followed, as the command finds it.
    fn found_recipe(
        &self,
        folder: Option<&RunFolder>,
        model: &Model,
        pruned: bool,
        has_data: bool,
    ) -> PyResult<FoundRecipe> {
        let overrides = self.overrides()?;
        let beside = model.file.as_ref().map(|file| file.path.as_path());
        let default = || Recipe::default_for(&model.loaded.network);
        let named = self.recipe.as_deref();
        let found = match folder {
            Some(folder) => folder.recipe(named, beside, default),
            None => FoundRecipe::find(named, beside, default),
        };
        let found = found.and_then(|found| found.with(&overrides));
        let found = found.map_err(IntoPyErr::into_py_err)?;
        if !pruned {
            return Ok(found);
        }
        let source = found.source.clone();
        let (mut tuning, left_out) = found.fine_tuning();
        let untrained = match self.calibrate {
            // What is trained after it is named.
            Some(_) => self.recipe.is_none(),
            None => tuning.source == DEFAULT_GRIDS && !has_data && tuning.recipe.data.is_none(),
        };
        if untrained {
            // Weights are rounded to grids as they are.
            tuning.recipe.phases.clear();
        }
        if self.recipe.is_some() && !left_out.is_empty() {
            return Err(setting_error(source, ONLY_FINE_TUNING, left_out.join(", ")));
        }
        Ok(tuning)
    }

    /// Sets how pixels and the columns of a table become the input of a graph.
    fn set_preprocessing(&self, graph: &mut Graph, data: &Data) -> PyResult<()> {
        if self.mean.is_none() && self.std.is_none() && self.scale.is_none() {
            return Ok(());
        }
        let Some(stored) = data.preprocessing_or_default(graph.preprocessing.take()) else {
            return Err(setting_error(
                "mean, std, scale",
                "a data set of pixels from 0 to 255",
                "numbers, which are the input as they are",
            ));
        };
        graph.preprocessing = Some(Preprocessing {
            mean: self.mean.clone().unwrap_or(stored.mean),
            std: self.std.clone().unwrap_or(stored.std),
            scale: self.scale.unwrap_or(stored.scale),
            table: stored.table,
        });
        Ok(())
    }
}

/// A compressed network, and how it came about.
#[pyclass(frozen, module = "sparsevd._native")]
pub struct Compressed {
    inner: sparsevd_pipeline::Compressed,
}

/// Compresses a network.
///
/// `arrays` is a data set in memory; `listener` is told what happens, see `python/sparsevd/_compress.py`.
#[pyfunction]
pub fn compress(
    py: Python<'_>,
    model: &Model,
    arrays: Option<&Bound<'_, PyDict>>,
    settings: Settings,
    listener: Option<Py<PyAny>>,
) -> PyResult<Compressed> {
    let folder = settings.folder()?;
    let (gradual, pruning) = (settings.gradual()?, settings.pruning()?);
    let named_data = settings.data.is_some() || arrays.is_some();
    let mut recipe =
        settings.found_recipe(folder.as_ref(), model, pruning.is_some(), named_data)?;
    if let Some(folder) = &folder
        && !recipe.recipe.phases.is_empty()
    {
        folder.check().map_err(IntoPyErr::into_py_err)?;
    }
    if let Some(by) = gradual {
        let pruned = recipe.gradual(by, &model.loaded.network, None);
        recipe = pruned.map_err(IntoPyErr::into_py_err)?;
    }
    if let Some(out) = &settings.out {
        let outputs = settings.outputs(out, &recipe.recipe, pruning.is_some())?;
        let checked = outputs.check(settings.overwrite);
        checked.map_err(IntoPyErr::into_py_err)?;
    }
    let mut input = InputNetwork {
        file: model.file.clone(),
        ..LoadedNetwork::clone(&model.loaded).into()
    };
    let graph = &mut input.network.graph;
    let record = folder.as_ref().and_then(RunFolder::record);
    if let Some(record) = record {
        graph.preprocessing.clone_from(&record.preprocessing);
    }
    let data = match arrays {
        Some(arrays) => Some(data_of_arrays(arrays)?),
        None => {
            let recorded = record.map(|record| record.data.as_path());
            let path = settings.data.as_deref().or(recorded);
            let path = path.or(recipe.recipe.data.as_deref());
            let table = graph.preprocessing.as_ref().and_then(|p| p.table.as_ref());
            let target = settings.target.as_deref();
            let options = TableOptions { target, table };
            detached(py, || {
                path.map(|path| Data::load_with(path, &options)).transpose()
            })?
        }
    };
    match &data {
        None if pruning.is_none() => {
            let expected = "arrays or a path, or `data` in a recipe";
            return Err(setting_error("data", expected, "neither"));
        }
        None => {}
        Some(data) => settings.set_preprocessing(graph, data)?,
    }
    let loss = recipe.recipe.loss;
    let checked =
        Data::check_agreement(data.as_ref(), settings.min_agreement, &input.network, loss);
    checked.map_err(IntoPyErr::into_py_err)?;
    let threads = settings.threads.unwrap_or(0);
    let mut compression = Compression::new(input, data, recipe)
        .pruned_by(pruning)
        .threads(threads)
        .budget(settings.budget)
        .bench(settings.bench);
    let log = folder.as_ref().map(|folder| folder.path().to_owned());
    if let Some(folder) = folder {
        compression = compression.in_folder(folder);
    }
    let mut listener = Listener::new(listener, log);
    let done = detached(py, || {
        Ok::<_, PipelineError>(compression.run(&mut listener))
    })?;
    match (done, listener.into_error()) {
        // What stopped the run, or what was raised in its last moments.
        (Err(PipelineError::Interrupted { folder }), Some(error)) => {
            Err(crate::observer::at_checkpoint(py, error, folder))
        }
        (Ok(_), Some(error)) => Err(error),
        (Err(error), _) => Err(error.into_py_err()),
        (Ok(inner), None) => Ok(Compressed { inner }),
    }
}

impl Settings {
    /// The files of a result.
    fn outputs(&self, named: &Path, recipe: &Recipe, pruned: bool) -> PyResult<Outputs> {
        let values = self.values.as_deref();
        outputs(named, recipe, pruned, values, self.profile.as_deref())
    }
}

fn outputs(
    named: &Path,
    recipe: &Recipe,
    pruned: bool,
    values: Option<&str>,
    profile: Option<&str>,
) -> PyResult<Outputs> {
    let values = values.map(value_type).transpose()?.unwrap_or_default();
    if values == ValueType::I8 && !recipe.ends_on_grids() {
        let got = "a recipe that ends without one";
        return Err(setting_error("values i8", NEEDS_GRID, got));
    }
    let outputs = match pruned {
        true => Outputs::of_pruned(named),
        false => Outputs::new(named, recipe),
    };
    Ok(Outputs {
        values,
        profile: profile.map(csr_profile).transpose()?.unwrap_or_default(),
        ..outputs.map_err(IntoPyErr::into_py_err)?
    })
}

#[pymethods]
impl Compressed {
    /// The sparse network.
    #[getter]
    fn model(&self) -> Model {
        Model::of(LoadedNetwork {
            network: self.inner.network.clone(),
            notes: vec![],
            warnings: vec![],
            metadata: std::collections::BTreeMap::new(),
        })
    }

    /// Every epoch of its training.
    #[getter]
    fn history<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::to_python(py, &self.inner.history)
    }

    /// The recipe that was followed, as TOML.
    #[getter]
    fn recipe(&self) -> String {
        self.inner.recipe.recipe.to_toml()
    }

    /// Writes the files of the command `compress`, measures what was written, and returns the report on it.
    #[pyo3(signature = (path, *, values=None, profile=None, overwrite=false))]
    fn save<'py>(
        &self,
        py: Python<'py>,
        path: PathBuf,
        values: Option<&str>,
        profile: Option<&str>,
        overwrite: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let pruned = self.inner.pruning.is_some();
        let outputs = outputs(&path, &self.inner.recipe.recipe, pruned, values, profile)?;
        let report = detached(py, || -> Result<_, PipelineError> {
            outputs.check(overwrite)?;
            self.inner.write(&outputs)
        })?;
        json::to_python(py, &report)
    }
}
