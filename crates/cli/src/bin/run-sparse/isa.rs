//! `run-sparse isa`.

use serde_json::to_value;
use sparsevd_kernels::Isa;
use sparsevd_pipeline::IsaReport;

use crate::args::IsaArgs;
use crate::print;
use sparsevd_cli::Outcome;

pub fn run(args: &IsaArgs) -> anyhow::Result<Outcome> {
    let report = IsaReport::measure(Isa::from_env()?);
    if args.json {
        print::json(to_value(&report)?)?;
    } else {
        print::text(format_args!(
            "{report}SPARSE_ISA=NAME chooses another than the one marked"
        ))?;
    }
    Ok(Outcome::Done)
}
