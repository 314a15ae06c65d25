//! Files that are written: their forms, their places beside each other, and where they say that they come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sparsevd_compressor::recipe::Recipe;
use sparsevd_format::{
    CsrProfile, FormatError, PackOptions, Staged, ValueType, WriteOptions, check_writable, recover,
};
use sparsevd_model::Network;

use crate::error::{NEEDS_GRID, PipelineError};

/// A file format, as the ending of an output names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `.safetensors`
    Interchange,
    /// `.spvd`
    Packed,
    /// `.onnx`
    Onnx,
}

impl Form {
    /// The format that an output is to have.
    ///
    /// # Errors
    /// Another ending.
    pub fn of(path: &Path) -> Result<Self, PipelineError> {
        let is = |ending| {
            path.extension()
                .is_some_and(|e| e.eq_ignore_ascii_case(ending))
        };
        if is("safetensors") {
            Ok(Self::Interchange)
        } else if is("spvd") {
            Ok(Self::Packed)
        } else if is("onnx") {
            Ok(Self::Onnx)
        } else {
            Err(PipelineError::invalid(
                path.display(),
                "an output ending in .safetensors, .spvd or .onnx",
                "another ending",
            ))
        }
    }
}

/// The files of a compressed network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs {
    /// The network in the interchange form; `None` where it is only packed.
    pub network: Option<PathBuf>,
    /// The packed network, where the recipe ends on grids or the network is pruned before any training.
    pub packed: Option<PathBuf>,
    /// Whether the packed file is left out for a network that its form does not hold.
    pub packs_if_possible: bool,
    /// The report as JSON.
    pub report: PathBuf,
    /// Element type of the weights in the interchange form.
    pub values: ValueType,
    /// How sparse weights are stored there.
    pub profile: CsrProfile,
}

impl Outputs {
    /// The files of a result: `named` is the network in one of its forms, and the others lie beside it. `a.sparse.safetensors`
    /// has `a.spvd` and `a.report.json`.
    ///
    /// # Errors
    /// Another ending; a packed file for a recipe that does not end on grids.
    pub fn new(named: impl AsRef<Path>, recipe: &Recipe) -> Result<Self, PipelineError> {
        Self::with(named.as_ref(), recipe.ends_on_grids())
    }

    /// The files of a network that is pruned before any training. It has a packed file whatever follows, of weights that are rounded to
    /// grids where they are on none; where that is not named, and cannot be written, it is left out.
    ///
    /// # Errors
    /// Another ending.
    pub fn of_pruned(named: impl AsRef<Path>) -> Result<Self, PipelineError> {
        let named = named.as_ref();
        Ok(Self {
            packs_if_possible: Form::of(named)? == Form::Interchange,
            ..Self::with(named, true)?
        })
    }

    /// The one file that is named, `.safetensors` or `.spvd`, and the report on training it onto grids: `a.spvd` and
    /// `a.grid.report.json`. Files of a run of another name stay.
    ///
    /// # Errors
    /// Another ending.
    pub fn onto_grids(named: impl AsRef<Path>) -> Result<Self, PipelineError> {
        let named = named.as_ref();
        let both = Self::with(named, true)?;
        let is_packed = both.packed.as_deref() == Some(named);
        Ok(Self {
            network: both.network.filter(|_| !is_packed),
            packed: both.packed.filter(|_| is_packed),
            report: beside(named, "grid.report.json"),
            ..both
        })
    }

    fn with(named: &Path, on_grids: bool) -> Result<Self, PipelineError> {
        let beside = |ending| beside(named, ending);
        let (network, packed) = match Form::of(named)? {
            Form::Interchange => (named.to_owned(), on_grids.then(|| beside("spvd"))),
            Form::Packed if on_grids => (beside("sparse.safetensors"), Some(named.to_owned())),
            Form::Packed => {
                return Err(PipelineError::invalid(
                    named.display(),
                    format!("{NEEDS_GRID}, to pack"),
                    "a recipe that ends without one",
                ));
            }
            Form::Onnx => {
                return Err(PipelineError::invalid(
                    named.display(),
                    "a result ending in .safetensors or .spvd, which `compress convert` makes an ONNX file of",
                    ".onnx",
                ));
            }
        };
        Ok(Self {
            network: Some(network),
            packed,
            packs_if_possible: false,
            report: Self::report_beside(named),
            values: ValueType::default(),
            profile: CsrProfile::default(),
        })
    }

    /// The file that a report measures: the interchange form, else the packed one.
    pub(crate) fn measured(&self) -> Result<&Path, PipelineError> {
        let network = self.network.as_deref().or(self.packed.as_deref());
        network.ok_or_else(|| PipelineError::invalid("outputs", "a file of the network", "none"))
    }

    /// The report beside the network `named`, as [`Self::new`] has it.
    pub fn report_beside(named: &Path) -> PathBuf {
        beside(named, "report.json")
    }

    /// Checks that all files can be written; those that exist may be overwritten where `force` is set.
    ///
    /// # Errors
    /// [`FormatError::Exists`], or what the system refuses.
    pub fn check(&self, force: bool) -> Result<(), FormatError> {
        let files = [&self.network, &self.packed].into_iter().flatten();
        let mut files = files.chain([&self.report]);
        files.try_for_each(|file| check_writable(file, force))
    }

    /// Ends what a process that died began to write of a result with the report at `report` and a run in the folder `run`; returns whether
    /// it had begun. The files are then as they would have been.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn recover(report: &Path, run: &Path) -> Result<bool, PipelineError> {
        let folder = match report.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let ended = recover(folder)?;
        recover(run)?;
        Ok(ended
            .iter()
            .any(|file| file.file_name() == report.file_name()))
    }

    /// Adds a network in the interchange form, where that has a file, with the metadata of its input and the recipe that gave it.
    pub(crate) fn stage_interchange(
        &self,
        files: &mut Staged,
        network: &Network,
        metadata: BTreeMap<String, String>,
        recipe: &Recipe,
    ) -> Result<(), FormatError> {
        let Some(path) = &self.network else {
            return Ok(());
        };
        let options = WriteOptions {
            values: self.values,
            profile: self.profile,
            ..with_recipe(metadata, recipe)
        };
        files.add_network(path, network, &options)?;
        Ok(())
    }

    /// Writes a network in its forms, with the metadata of its input and the recipe that gave it, and returns the bytes of the packed
    /// one. What exists is overwritten.
    pub(crate) fn write(
        &self,
        network: &Network,
        metadata: BTreeMap<String, String>,
        recipe: &Recipe,
    ) -> Result<Option<u64>, FormatError> {
        let mut files = Staged::new();
        self.stage_interchange(&mut files, network, metadata, recipe)?;
        let options = PackOptions::for_size_of(network);
        let packed = self.packed.as_ref();
        let packed = packed.map(|path| files.add_packed(path, network, &options));
        let packed = packed.transpose()?;
        files.commit(|| Ok::<_, FormatError>(()))?;
        Ok(packed)
    }
}

/// Checks that a network can be written to `path` in the interchange form.
///
/// # Errors
/// Another ending.
pub(crate) fn check_interchange(path: &Path) -> Result<(), PipelineError> {
    let expected = "an output ending in .safetensors";
    let got = match Form::of(path)? {
        Form::Interchange => return Ok(()),
        Form::Packed => format!(".spvd; that takes {NEEDS_GRID}"),
        Form::Onnx => ".onnx; `compress convert` makes that of it".into(),
    };
    Err(PipelineError::invalid(path.display(), expected, got))
}

/// The folder of the run that trains a network onto grids: `a.grid.run` beside the output `a.spvd`.
pub fn grid_run(output: &Path) -> PathBuf {
    beside(output, "grid.run")
}

/// The folder of the run that trains an int8 network: `a.int8.run` beside the output `a.int8.safetensors` or `a.safetensors`.
pub fn int8_run(output: &Path) -> PathBuf {
    let stem = stem(output);
    let stem = stem.strip_suffix(".int8").unwrap_or(&stem);
    output.with_file_name(format!("{stem}.int8.run"))
}

/// The folder of the run that trains an encoder: `a.encoder.run` beside the folder `a`.
pub fn encoder_run(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".encoder.run");
    output.with_file_name(name)
}

/// The file beside an output that is called as it is, with another ending.
fn beside(output: &Path, ending: &str) -> PathBuf {
    output.with_file_name(format!("{}.{ending}", stem(output)))
}

/// The name of a result without its endings.
fn stem(output: &Path) -> String {
    let stem = output.file_stem().unwrap_or_default().to_string_lossy();
    stem.strip_suffix(".sparse").unwrap_or(&stem).to_owned()
}

/// Metadata of a result: the recipe, but for the data's place on this machine, the seed and the version.
pub(crate) fn with_recipe(mut metadata: BTreeMap<String, String>, recipe: &Recipe) -> WriteOptions {
    let bare = recipe.without_places();
    metadata.insert("sparsevd.recipe".into(), bare.to_toml());
    metadata.insert("sparsevd.seed".into(), recipe.seed.to_string());
    metadata.insert("sparsevd.version".into(), env!("CARGO_PKG_VERSION").into());
    WriteOptions {
        metadata,
        ..WriteOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_compressor::recipe::{Method, Phase};

    use super::*;

    #[test]
    fn a_result_on_grids_is_two_files_and_a_report_beside_each_other() {
        let plain = Recipe::new(vec![Phase::new(Method::FineTune, 1)]);
        let mut on_grids = plain.clone();
        on_grids.phases.push(Phase::new(Method::Quantise, 1));
        for named in ["a/b.sparse.safetensors", "a/b.spvd"] {
            let got = Outputs::new(named, &on_grids).unwrap();
            let network = Some("a/b.sparse.safetensors".into());
            assert_eq!(got.network, network, "{named}");
            assert_eq!(got.packed.unwrap(), Path::new("a/b.spvd"), "{named}");
            assert_eq!(got.report, Path::new("a/b.report.json"), "{named}");
        }
        let got = Outputs::new("b.safetensors", &on_grids).unwrap();
        assert_eq!(got.network, Some("b.safetensors".into()));
        assert_eq!(got.packed.unwrap(), Path::new("b.spvd"));
        assert_eq!(got.report, Path::new("b.report.json"));
        let got = Outputs::new("b.safetensors", &plain).unwrap();
        assert_eq!(got.packed, None);
        let pruned = |named| Outputs::of_pruned(named).unwrap();
        assert_eq!(pruned("b.safetensors").packed, Some("b.spvd".into()));
        assert!(pruned("b.safetensors").packs_if_possible);
        assert!(!pruned("b.spvd").packs_if_possible);
        let alone = |named| Outputs::onto_grids(named).unwrap();
        let (interchange, packed) = (alone("a/b.sparse.safetensors"), alone("a/b.spvd"));
        assert_eq!(interchange.network, Some("a/b.sparse.safetensors".into()));
        assert_eq!(packed.packed, Some("a/b.spvd".into()));
        assert_eq!((interchange.packed, packed.network), (None, None));
        assert_eq!(packed.report, Path::new("a/b.grid.report.json"));
        assert_eq!(grid_run(Path::new("a/b.spvd")), Path::new("a/b.grid.run"));
        let error = Outputs::new("b.spvd", &plain).unwrap_err();
        assert!(error.to_string().contains("`quantise` phase"), "{error}");
        // A later phase moves weights off their grids.
        on_grids.phases.push(Phase::new(Method::FineTune, 1));
        assert!(!on_grids.ends_on_grids());
    }
}
