//! `run-sparse tune`, and what other commands make of its file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::to_value;
use sparsevd_format::write_atomically;
use sparsevd_kernels::cost::Costs;
use sparsevd_kernels::{Isa, tune};

use crate::args::TuneArgs;
use crate::outcome::Outcome;
use crate::print;

const SCHEMA: u64 = 1;
/// More than any file of ours.
const MOST_BYTES: u64 = 1 << 16;

/// Costs by instruction set.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: u64,
    costs: BTreeMap<String, Costs>,
}

pub fn run(args: &TuneArgs) -> anyhow::Result<Outcome> {
    let path = match &args.out {
        Some(path) => path.clone(),
        None => place().context("nowhere to write: set SPARSE_TUNE or HOME, or pass --out")?,
    };
    let costs = Isa::available()
        .into_iter()
        .map(|isa| (isa.name().to_owned(), tune::measure(isa)))
        .collect();
    let file = File {
        schema: SCHEMA,
        costs,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let text = serde_json::to_string_pretty(&file)?;
    write_atomically(&path, |out| out.write_all(text.as_bytes()))?;
    if args.json {
        print::json(to_value(&file)?)?;
    } else {
        print::text(format_args!("costs of this machine: {}", path.display()))?;
    }
    Ok(Outcome::Done)
}

/// Costs of an instruction set: as measured on this machine, where they were, else built in.
///
/// The file that SPARSE_TUNE names must exist.
pub fn costs(isa: Isa) -> anyhow::Result<Costs> {
    let Some(path) = place() else {
        return Ok(Costs::default());
    };
    if std::env::var_os(VARIABLE).is_none() && !path.exists() {
        return Ok(Costs::default());
    }
    let file = read(&path).with_context(|| path.display().to_string())?;
    Ok(file.costs.get(isa.name()).copied().unwrap_or_default())
}

const VARIABLE: &str = "SPARSE_TUNE";

/// Where costs are: the file that SPARSE_TUNE names, else the user's own.
fn place() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Some(path.into());
    }
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|h| Path::new(&h).join(".config"));
    Some(config.or_else(home)?.join("sparsevd/tune.json"))
}

fn read(path: &Path) -> anyhow::Result<File> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > MOST_BYTES {
        bail!("expected costs in at most {MOST_BYTES} bytes, got {bytes}");
    }
    let file: File = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    if file.schema != SCHEMA {
        bail!("expected schema {SCHEMA}, got {}", file.schema);
    }
    for (isa, costs) in &file.costs {
        if !costs.are_times() {
            bail!("costs of {isa}: expected positive finite numbers");
        }
    }
    Ok(file)
}
