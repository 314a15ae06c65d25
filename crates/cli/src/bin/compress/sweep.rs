//! `compress sweep RUN`: validation error and ratio at other thresholds.

use anyhow::anyhow;
use sparsevd_pipeline::{Data, RecordedRun, check_thresholds};

use crate::args::SweepArgs;
use crate::print;
use crate::progress::Warnings;
use sparsevd_cli::{GraphArgs, Outcome};

pub fn run(args: &SweepArgs) -> anyhow::Result<Outcome> {
    check_thresholds(&args.thresholds).map_err(|e| anyhow!("--{e}"))?;
    let run = RecordedRun::open(&args.run)?;
    let model = run.model();
    let graph = GraphArgs {
        network: model.graph.clone(),
        shapes: args.shapes.clone(),
    };
    let loaded = sparsevd_cli::network(&model.path, &graph, false)?;
    let record = run.record();
    let path = args.data.as_ref().unwrap_or(&record.data);
    let data = Data::load_for(path, record.preprocessing.as_ref())?;
    let threads = args.threads.map_or(0, usize::from);
    let sweep = run.sweep(
        loaded.network,
        data,
        &args.thresholds,
        threads,
        &mut Warnings,
    )?;
    if args.json {
        print::json(&sweep)?;
        return Ok(Outcome::Done);
    }
    print::text(sweep.to_string().trim_end())?;
    Ok(Outcome::Done)
}
