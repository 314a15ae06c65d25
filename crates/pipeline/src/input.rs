//! The network that a pipeline begins with, and where it came from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sparsevd_compressor::architecture::is_mlp;
use sparsevd_compressor::report::Task;
use sparsevd_format::{FormatError, GraphSource, LoadedNetwork};
use sparsevd_model::{Network, presets};
use sparsevd_onnx::{ImportOptions, OnnxError, load_with};

/// A network with what is known of its file.
#[derive(Debug, Clone)]
pub struct InputNetwork {
    /// The network.
    pub network: Network,
    /// Sentences for the user, which go to the observer.
    pub notes: Vec<String>,
    /// What was guessed when the file was read, which goes into the report.
    pub warnings: Vec<String>,
    /// Metadata that goes along to the result.
    pub metadata: BTreeMap<String, String>,
    /// The file that it came from. The record of a run folder names it, so that the run can be resumed or swept from the folder alone.
    pub file: Option<ModelFile>,
}

/// The grids of some layers.
pub(crate) fn int8_layers(layers: usize) -> String {
    let s = if layers == 1 { "" } else { "s" };
    format!("int8 grids of {layers} layer{s}")
}

/// The file of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Its path.
    pub path: PathBuf,
    /// The graph that was named for it: a preset's name or a file.
    pub graph: Option<String>,
}

impl ModelFile {
    /// Reads the network of the file; `options` gives shapes to the inputs of an ONNX file.
    ///
    /// # Errors
    /// As [`load_with`].
    pub fn read(self, options: &ImportOptions) -> Result<InputNetwork, OnnxError> {
        let source = match &self.graph {
            Some(name) => GraphSource::Named(name.clone()),
            None => GraphSource::Auto,
        };
        let loaded = load_with(&self.path, &source, options)?;
        Ok(InputNetwork {
            file: Some(self),
            ..loaded.into()
        })
    }

    /// The task of compressing it, or of training it onto grids; it holds in any working directory.
    pub(crate) fn task(&self, onto_grids: bool) -> Result<Task, FormatError> {
        let model = absolute(&self.path)?;
        let network = self.graph.as_deref().map(absolute_source).transpose()?;
        Ok(match onto_grids {
            true => Task::Convert { model, network },
            false => Task::Compress { model, network },
        })
    }
}

impl From<LoadedNetwork> for InputNetwork {
    /// The grids of int8 layers are left out, as they are not those of the result.
    fn from(mut loaded: LoadedNetwork) -> Self {
        let bytes = std::mem::take(&mut loaded.network.int8);
        if !bytes.is_empty() {
            loaded.warnings.push(format!(
                "its {} are left out: `compress quantise-activations` finds those of the result",
                int8_layers(bytes.inputs.len())
            ));
        }
        Self {
            network: loaded.network,
            notes: loaded.notes,
            warnings: loaded.warnings,
            metadata: loaded.metadata,
            file: None,
        }
    }
}

impl From<Network> for InputNetwork {
    fn from(network: Network) -> Self {
        Self {
            network,
            notes: vec![],
            warnings: vec![],
            metadata: BTreeMap::new(),
            file: None,
        }
    }
}

/// A source of a graph that holds in any working directory: a preset's name, or an absolute path.
///
/// # Errors
/// A working directory that cannot be found.
pub fn absolute_source(source: &str) -> Result<String, FormatError> {
    if presets::by_name(source).is_some() || is_mlp(source) {
        return Ok(source.to_owned());
    }
    Ok(absolute(Path::new(source))?.to_string_lossy().into_owned())
}

/// An absolute path of a file.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, FormatError> {
    std::path::absolute(path).map_err(|error| FormatError::Io {
        path: path.into(),
        action: "find",
        error,
    })
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
