//! `run-sparse tune`.

use anyhow::Context;
use serde_json::to_value;
use sparsevd_pipeline::KernelCosts;

use crate::args::TuneArgs;
use crate::print;
use sparsevd_cli::Outcome;

pub fn run(args: &TuneArgs) -> anyhow::Result<Outcome> {
    let path = match &args.out {
        Some(path) => path.clone(),
        None => KernelCosts::path()
            .context("nowhere to write: set SPARSE_TUNE or HOME, or pass --out")?,
    };
    let costs = KernelCosts::measure();
    costs.write(&path)?;
    if args.json {
        print::json(to_value(&costs)?)?;
    } else {
        print::text(format_args!("costs of this machine: {}", path.display()))?;
    }
    Ok(Outcome::Done)
}
