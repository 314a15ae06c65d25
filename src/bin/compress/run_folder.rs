//! The folder of a run: where it is, and whether a run may begin there.

use std::path::{Path, PathBuf};

use anyhow::bail;
use sparsevd_compressor::checkpoint;
use sparsevd_compressor::report::{RunRecord, SCHEMA};

use crate::args::RunArgs;

/// The folder of a run's checkpoints, and its record where the run is resumed.
#[derive(Debug)]
pub struct RunFolder {
    pub path: PathBuf,
    /// The settings that a resumed run began with.
    pub record: Option<RunRecord>,
}

impl RunFolder {
    /// Finds the folder. Changes nothing.
    pub fn find(args: &RunArgs, default: String) -> anyhow::Result<Self> {
        if let Some(path) = &args.resume {
            let checkpoint = checkpoint::path(path);
            if !checkpoint.is_file() {
                bail!(
                    "--resume {}: expected a run folder with a checkpoint, got none at {}",
                    path.display(),
                    checkpoint.display()
                );
            }
            return Ok(Self {
                path: path.clone(),
                record: Some(RunRecord::read(path)?),
            });
        }
        let path = args.run.clone().unwrap_or_else(|| default.into());
        Ok(Self { path, record: None })
    }

    /// Refuses to begin a run where an earlier one could still go on.
    pub fn check_free(&self, force: bool) -> anyhow::Result<()> {
        if self.record.is_none() && !force && checkpoint::path(&self.path).exists() {
            bail!(
                "{}: an earlier run left a checkpoint here; go on with it by --resume {}, or begin anew by --force",
                self.path.display(),
                self.path.display()
            );
        }
        Ok(())
    }

    /// Prepares the folder for a new run and writes its record. A resumed run has both.
    pub fn begin(&self, record: &RunRecord) -> anyhow::Result<()> {
        if self.record.is_none() {
            record.write(&self.path)?;
            checkpoint::clear(&self.path)?;
        }
        Ok(())
    }
}

/// A record of a run that this program begins.
pub fn record(
    task: sparsevd_compressor::report::Task,
    data: &Path,
    recipe: &crate::inputs::FoundRecipe,
    preprocessing: Option<sparsevd_model::Preprocessing>,
) -> anyhow::Result<RunRecord> {
    Ok(RunRecord {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").into(),
        task,
        data: std::path::absolute(data)?,
        preprocessing,
        recipe_source: recipe.source.clone(),
        recipe: recipe.recipe.clone(),
    })
}
