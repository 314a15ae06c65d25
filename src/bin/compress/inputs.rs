//! From the command line to a network, its recipe and its data.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::RunRecord;
use sparsevd_compressor::{Images as Samples, TrainingData};
use sparsevd_format::{
    DataSplits, LoadedSamples, Pixels, RegressionSplits, TableOptions, load_samples_with,
    standardise,
};
use sparsevd_model::{Network, Preprocessing, Table, presets};

use crate::common::{self, PixelArgs};

/// Where a recipe came from that nobody gave.
pub const DEFAULT_RECIPE: &str = "the default recipe";

/// What is said where a data set has no test images.
pub const NO_TEST: &str = "the data set has no test images: no test error is reported";

/// A recipe and where it came from, in words.
#[derive(Debug, Clone)]
pub struct FoundRecipe {
    pub recipe: Recipe,
    pub source: String,
}

/// The recipe that was named, else the one beside the model, else the default.
pub fn recipe(
    named: Option<&Path>,
    beside: Option<&Path>,
    default: fn() -> Recipe,
) -> anyhow::Result<FoundRecipe> {
    let beside = beside
        .map(|m| m.with_file_name("recipe.toml"))
        .filter(|p| p.is_file());
    Ok(match named.map(Path::to_owned).or(beside) {
        Some(path) => FoundRecipe {
            recipe: Recipe::read(&path)?,
            source: path.display().to_string(),
        },
        None => FoundRecipe {
            recipe: default(),
            source: DEFAULT_RECIPE.into(),
        },
    })
}

/// Samples of a run.
#[derive(Debug)]
pub struct Images {
    pub training: TrainingData,
    pub test: Option<Samples>,
    pub describe: String,
}

/// The path of the data set: what the command line says, else what the run that goes on began with, else what the recipe says.
pub fn data_path(
    named: Option<&Path>,
    record: Option<&RunRecord>,
    recipe: &Recipe,
) -> anyhow::Result<PathBuf> {
    let recorded = record.map(|r| r.data.as_path());
    match named.or(recorded).or(recipe.data.as_deref()) {
        Some(path) => Ok(path.to_owned()),
        None => {
            bail!("no data set: expected --data PATH, or `data` in a recipe, got neither")
        }
    }
}

/// Loads a data set; of a table, by the columns that the network's preprocessing stores, where it does.
pub fn load(
    path: &Path,
    target: Option<&str>,
    preprocessing: Option<&Preprocessing>,
) -> anyhow::Result<LoadedSamples> {
    let table = preprocessing.and_then(|p| p.table.as_ref());
    Ok(load_samples_with(path, &TableOptions { target, table })?)
}

/// Sets how the pixels of a data set become the network's input, and holds validation samples back.
///
/// Returns the samples and sentences for the user.
pub fn images(
    loaded: LoadedSamples,
    path: &Path,
    recipe: &Recipe,
    network: &mut Network,
    pixels: &PixelArgs,
    unset: Unset,
) -> anyhow::Result<(Images, Vec<String>)> {
    let outputs = network.shapes()?[network.graph.outputs[0].as_str()].elements();
    let input = network.graph.inputs[0].shape.clone();
    let mut notes = vec![];
    let mut set_pixels = |pixels_of: &Pixels, table: Option<Table>, describe: &str| {
        notes.push(describe.to_owned());
        notes.extend(match (pixels_of, table) {
            (Pixels::Table(rows), Some(table)) => {
                columns(network, pixels, rows, table, unset, path)?
            }
            _ => preprocessing(network, pixels, pixels_of, unset, path)?,
        });
        anyhow::Ok(network.graph.preprocessing.clone().unwrap_or_default())
    };
    let no_training = |describe: &str| {
        anyhow!(
            "{}: expected training images (train-* IDX files, arrays x_train and y_train or x and y, a train/ folder or class folders), got {describe}",
            path.display()
        )
    };
    // A set that is not split gives training and validation samples; nothing is left to report a test error on.
    let (name, all, images) = match loaded {
        LoadedSamples::Classes(splits) => {
            let DataSplits {
                train,
                test,
                whole,
                table,
                describe,
            } = splits;
            let train = train.or(whole).ok_or_else(|| no_training(&describe))?;
            let p = set_pixels(&train.pixels, table, &describe)?;
            if let Some(test) = &test {
                test.check_against(&input, outputs)?;
            }
            let images = Images {
                training: TrainingData::split(&train, recipe.validation, &input, &p, outputs)?,
                test: test.map(|test| Samples::new(test, &input, &p)),
                describe,
            };
            ("images", train.len(), images)
        }
        LoadedSamples::Numbers(splits) => {
            let RegressionSplits {
                train,
                test,
                whole,
                table,
                describe,
            } = splits;
            let train = train.or(whole).ok_or_else(|| no_training(&describe))?;
            let p = set_pixels(train.pixels(), table, &describe)?;
            if let Some(test) = &test {
                test.check_against(&input, outputs)?;
            }
            let training =
                TrainingData::split_regression(&train, recipe.validation, &input, &p, outputs)?;
            let images = Images {
                training,
                test: test.map(|test| Samples::with_numbers(test, &input, &p)),
                describe,
            };
            ("samples", train.len(), images)
        }
    };
    let [train, validation] =
        [images.training.train(), images.training.validation()].map(|samples| samples.len());
    if validation == 0 {
        bail!(
            "{}: expected at least 6 training {name}, of which one in six is held back for validation, got {all}",
            path.display()
        );
    }
    notes.push(format!(
        "{train} {name} to train on, {validation} held back for validation"
    ));
    if images.test.is_none() {
        notes.push(NO_TEST.into());
    }
    Ok((images, notes))
}

/// What becomes of pixels where neither the network nor the command line says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// They become 0 to 1, and features of a table get mean 0 and deviation 1: the network is to be trained on them.
    ZeroToOne,
    /// They are refused: the network was trained already, and nothing tells on what.
    Refused,
}

/// Sets how the features of a table become the network's input: as it is stored, as the command line says, or standardised.
fn columns(
    network: &mut Network,
    args: &PixelArgs,
    rows: &[f32],
    table: Table,
    unset: Unset,
    path: &Path,
) -> anyhow::Result<Option<String>> {
    let graph = &mut network.graph;
    let stored = graph.preprocessing.take().filter(|p| p.table.is_some());
    let p = match (stored, unset) {
        (stored, _) if args.are_given() => Preprocessing {
            table: Some(table),
            ..args.over(stored)
        },
        (Some(stored), _) => stored,
        (None, Unset::ZeroToOne) => standardise(rows, table),
        (None, Unset::Refused) => bail!(
            "{}: expected a network that stores the columns of its table, or --mean and --std, got neither for network `{}`; \
             --scale 1 leaves the columns as they are",
            path.display(),
            graph.name
        ),
    };
    p.check(&graph.inputs[0].shape)?;
    graph.preprocessing = Some(p);
    Ok(None)
}

/// Sets the graph's preprocessing: what the command line says over what is stored.
fn preprocessing(
    network: &mut Network,
    args: &PixelArgs,
    pixels: &Pixels,
    unset: Unset,
    path: &Path,
) -> anyhow::Result<Option<String>> {
    let named = args.are_given();
    if matches!(pixels, Pixels::F32(_)) {
        if named {
            bail!(
                "--mean, --std, --scale: expected a data set of pixels from 0 to 255, got floating-point numbers, which are the input as they are"
            );
        }
        return Ok(None);
    }
    if !named && unset == Unset::Refused {
        common::preprocessing(network, path)?;
    }
    let graph = &mut network.graph;
    let note = (graph.preprocessing.is_none() && !named)
        .then(|| "the network has no preprocessing stored: pixels become 0 to 1 (--mean, --std, --scale set another)".to_owned());
    let p = args.over(graph.preprocessing.take());
    p.check(&graph.inputs[0].shape)?;
    graph.preprocessing = Some(p);
    Ok(note)
}

/// A source of a graph that holds in any working directory: a preset's name, or an absolute path.
pub fn absolute_source(source: &str) -> anyhow::Result<String> {
    if presets::NAMES.contains(&source) || source.starts_with("mlp") {
        return Ok(source.to_owned());
    }
    Ok(std::path::absolute(source)?.to_string_lossy().into_owned())
}

/// What a model is called: the stem of its file, or the name of its folder where the file is just `model`.
pub fn model_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The index of shards has one ending more.
    let name = name.strip_suffix(".index.json").unwrap_or(&name);
    let stem = Path::new(name).file_stem().unwrap_or_default();
    let stem = stem.to_string_lossy().into_owned();
    if stem != "model" {
        return stem;
    }
    let absolute = std::path::absolute(path).unwrap_or_default();
    let folder = absolute.parent().and_then(Path::file_name);
    folder.map_or(stem, |f| f.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_called_by_its_file_or_its_folder() {
        let names = [
            "models/lenet-5/model.safetensors",
            "a/mine.safetensors",
            "x.v2.safetensors",
            "big/model.safetensors.index.json",
        ]
        .map(|p| model_name(Path::new(p)));
        assert_eq!(names, ["lenet-5", "mine", "x.v2", "big"]);
    }
}
