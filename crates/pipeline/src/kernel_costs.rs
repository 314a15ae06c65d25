//! What kernels cost on this machine: a JSON file of measurements, by which plans choose kernels.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sparsevd_format::{read_text, write_atomically};
use sparsevd_kernels::cost::Costs;
use sparsevd_kernels::{Isa, tune};

use crate::error::PipelineError;

const SCHEMA: u64 = 1;
/// More bytes than any file that `tune` writes.
const MOST_BYTES: u64 = 1 << 16;
/// Names the file in the environment.
const VARIABLE: &str = "SPARSE_TUNE";

/// Costs by instruction set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelCosts {
    schema: u64,
    costs: BTreeMap<String, Costs>,
}

impl KernelCosts {
    /// Measures the kernels of every instruction set of this machine, which takes some seconds each.
    pub fn measure() -> Self {
        let costs = |isa: Isa| (isa.name().to_owned(), tune::measure(isa));
        Self {
            schema: SCHEMA,
            costs: Isa::available().into_iter().map(costs).collect(),
        }
    }

    /// Where costs are kept: the file that `SPARSE_TUNE` names, else `sparsevd/tune.json` in `XDG_CONFIG_HOME` or `~/.config`; `None`
    /// where none of these is set.
    pub fn path() -> Option<PathBuf> {
        if let Some(path) = std::env::var_os(VARIABLE) {
            return Some(path.into());
        }
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|h| Path::new(&h).join(".config"));
        Some(config.or_else(home)?.join("sparsevd/tune.json"))
    }

    /// Which costs plans choose by, in words.
    pub(crate) fn describe() -> String {
        match Self::in_use() {
            Some(path) => format!("costs of kernels: those in {}", path.display()),
            None => "costs of kernels: those built in, as `run-sparse tune` has measured none here"
                .into(),
        }
    }

    /// The file of costs, where one is named or there.
    fn in_use() -> Option<PathBuf> {
        let is_named = std::env::var_os(VARIABLE).is_some();
        Self::path().filter(|path| is_named || path.exists())
    }

    /// Costs of an instruction set: those kept at [`Self::path`], where there are any, else those built in.
    ///
    /// # Errors
    /// As [`Self::read`]. The file that `SPARSE_TUNE` names must exist.
    pub fn of(isa: Isa) -> Result<Costs, PipelineError> {
        match Self::in_use() {
            Some(path) => Ok(Self::read(&path)?.get(isa).unwrap_or_default()),
            None => Ok(Costs::default()),
        }
    }

    /// Costs of an instruction set, where it was measured.
    pub fn get(&self, isa: Isa) -> Option<Costs> {
        self.costs.get(isa.name()).copied()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`PipelineError::Costs`] for a file that cannot be read, is too large, or has other fields, another schema or costs that are no
    /// times.
    pub fn read(path: &Path) -> Result<Self, PipelineError> {
        let fail = |what: &dyn Display| PipelineError::Costs {
            path: path.to_owned(),
            what: what.to_string(),
        };
        let text = read_text(path, MOST_BYTES).map_err(|e| fail(&e.without_path()))?;
        let file: Self = serde_json::from_str(&text).map_err(|e| fail(&e))?;
        if file.schema != SCHEMA {
            let what = format!("expected schema {SCHEMA}, got {}", file.schema);
            return Err(fail(&what));
        }
        match file.costs.iter().find(|(_, costs)| !costs.are_times()) {
            None => Ok(file),
            Some((isa, _)) => {
                let what = format!("costs of {isa}: expected positive finite numbers");
                Err(fail(&what))
            }
        }
    }

    /// Writes a file, whose folder need not exist. A file that exists is overwritten.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PipelineError> {
        let fail = |path: &Path, what: &dyn Display| PipelineError::Costs {
            path: path.to_owned(),
            what: what.to_string(),
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| fail(folder, &e))?;
        }
        let text = serde_json::to_string_pretty(self).map_err(|e| fail(path, &e))?;
        write_atomically(path, |out| out.write_all(text.as_bytes()))?;
        Ok(())
    }
}
