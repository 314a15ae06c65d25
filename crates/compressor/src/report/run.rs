//! The settings that a run began with, kept in its folder: `--resume` and `sweep` need no command line.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sparsevd_format::write_atomically;
use sparsevd_model::Preprocessing;

use super::read_json;
use crate::error::CompressError;
use crate::recipe::Recipe;

const FILE: &str = "run.json";

/// What a run does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "task")]
pub enum Task {
    /// Compresses a network.
    Compress {
        /// Its file.
        model: PathBuf,
        /// Where its graph came from, where that was said: a preset's name or a file.
        network: Option<String>,
    },
    /// Trains a network onto grids, as `compress convert --grid --data` does.
    Convert {
        /// Its file.
        model: PathBuf,
        /// Where its graph came from, where that was said: a preset's name or a file.
        network: Option<String>,
    },
    /// Trains a dense network from scratch.
    Train {
        /// A preset's name or a file.
        network: String,
    },
}

impl Task {
    /// The command that does it.
    pub fn command(&self) -> &'static str {
        match self {
            Self::Compress { .. } => "`compress MODEL`",
            Self::Convert { .. } => "`compress convert`",
            Self::Train { .. } => "`compress train`",
        }
    }
}

/// `run.json`: what a run began with. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of this layout.
    pub schema: u32,
    /// Version of the program.
    pub version: String,
    /// What the run does.
    #[serde(flatten)]
    pub task: Task,
    /// The data set.
    pub data: PathBuf,
    /// How pixels become the input.
    pub preprocessing: Option<Preprocessing>,
    /// Where the recipe came from, in words.
    pub recipe_source: String,
    /// The recipe.
    pub recipe: Recipe,
}

impl RunRecord {
    /// Path of the record in a run folder.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// Reads the record of a run folder.
    ///
    /// # Errors
    /// A folder without one, or one of another version.
    pub fn read(folder: &Path) -> Result<Self, CompressError> {
        let path = Self::path(folder);
        let fail = |what: String| CompressError::Report {
            path: path.clone(),
            what,
        };
        let record: Self = read_json(&path, "the record of a run")?
            .ok_or_else(|| fail(format!("expected the folder of a run, with {FILE} in it")))?;
        record.recipe.check()?;
        Ok(record)
    }

    /// Removes the record of a run folder, where it has one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(folder: &Path) -> Result<(), CompressError> {
        let path = Self::path(folder);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(CompressError::Report {
                path,
                what: format!("cannot remove it: {e}"),
            }),
            _ => Ok(()),
        }
    }

    /// Writes the record into a run folder, which is made where it is absent.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, folder: &Path) -> Result<(), CompressError> {
        let path = Self::path(folder);
        let fail = |what: String| CompressError::Report {
            path: path.clone(),
            what,
        };
        std::fs::create_dir_all(folder)
            .map_err(|e| fail(format!("cannot make the run folder: {e}")))?;
        let json = serde_json::to_string_pretty(self).map_err(|e| fail(e.to_string()))?;
        write_atomically(&path, |out| writeln!(out, "{json}"))?;
        Ok(())
    }
}
