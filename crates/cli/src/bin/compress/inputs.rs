//! From the command line to what a run begins with.

use std::path::{Path, PathBuf};

use anyhow::bail;
use sparsevd_compressor::recipe::{Overrides, Recipe};
use sparsevd_compressor::report::RunRecord;
use sparsevd_format::TableOptions;
use sparsevd_model::{Graph, Preprocessing};
use sparsevd_pipeline::{Data, FoundRecipe, RunFolder};

use crate::args::RunArgs;
use sparsevd_cli::PixelArgs;

impl RunArgs {
    /// The folder of the run.
    pub fn folder(&self, default: String) -> anyhow::Result<RunFolder> {
        let Some(resumed) = &self.resume else {
            let path = self.run.clone().unwrap_or_else(|| default.into());
            return Ok(match self.force {
                true => RunFolder::overwrite(path),
                false => RunFolder::new(path),
            });
        };
        let folder = RunFolder::resume(resumed)?;
        if folder.record().is_none() {
            // Says what is missing.
            RunRecord::read(resumed)?;
        }
        Ok(folder)
    }
}

/// The recipe that the command line names, else that of the resumed run, else one that is found; with the overrides of the
/// command line.
pub fn recipe(
    run: &RunArgs,
    record: Option<&RunRecord>,
    beside: Option<&Path>,
    default: fn() -> Recipe,
    overrides: &Overrides,
) -> anyhow::Result<FoundRecipe> {
    let found = match (&run.recipe, record) {
        (None, Some(record)) => FoundRecipe {
            recipe: record.recipe.clone(),
            source: record.recipe_source.clone(),
        },
        (named, _) => FoundRecipe::find(named.as_deref(), beside, default)?,
    };
    Ok(FoundRecipe {
        recipe: found.recipe.with(overrides)?,
        ..found
    })
}

/// The path of the data set: what the command line says, else what the run that goes on began with, else what the recipe says.
pub fn data_path(
    run: &RunArgs,
    record: Option<&RunRecord>,
    recipe: &Recipe,
) -> anyhow::Result<PathBuf> {
    let recorded = record.map(|r| r.data.as_path());
    match run.data.as_deref().or(recorded).or(recipe.data.as_deref()) {
        Some(path) => Ok(path.to_owned()),
        None => {
            bail!("no data set: expected --data PATH, or `data` in a recipe, got neither")
        }
    }
}

/// Reads a data set; of a table, by the columns that `preprocessing` stores, where it does.
pub fn load(
    path: PathBuf,
    run: &RunArgs,
    preprocessing: Option<&Preprocessing>,
) -> anyhow::Result<Data> {
    let options = TableOptions {
        target: run.target.as_deref(),
        table: preprocessing.and_then(|p| p.table.as_ref()),
    };
    Ok(Data::load_with(path, &options)?)
}

/// Sets how pixels and the columns of a table become the input of a graph: as the command line says, over what is stored.
pub fn set_pixels(
    graph: &mut Graph,
    pixels: &PixelArgs,
    data: Option<&Data>,
) -> anyhow::Result<()> {
    if let (Some(data), true) = (data, pixels.are_given()) {
        if let Some(table) = data.table() {
            let stored = graph.preprocessing.take().filter(|p| p.table.is_some());
            graph.preprocessing = Some(Preprocessing {
                table: Some(table.clone()),
                ..pixels.over(stored)
            });
            return Ok(());
        }
        if !data.is_bytes() {
            bail!(
                "--mean, --std, --scale: expected a data set of pixels from 0 to 255, got floating-point numbers, which are the input as they are"
            );
        }
        graph.preprocessing = Some(pixels.over(graph.preprocessing.take()));
    }
    Ok(())
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
