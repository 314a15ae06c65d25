//! `compress sweep RUN`: validation error and ratio at other thresholds.

use anyhow::anyhow;
use sparsevd_pipeline::{Data, RecordedRun, SweepScore, check_thresholds};

use crate::args::SweepArgs;
use crate::table::{Align, Table};
use crate::{Outcome, common, print};

pub fn run(args: &SweepArgs) -> anyhow::Result<Outcome> {
    check_thresholds(&args.thresholds).map_err(|e| anyhow!("--{e}"))?;
    let run = RecordedRun::open(&args.run)?;
    let model = run.model();
    let loaded = common::network(&model.path, model.graph.as_deref(), &args.shapes, false)?;
    let record = run.record();
    let path = args.data.as_ref().unwrap_or(&record.data);
    let data = Data::load_for(path, record.preprocessing.as_ref())?;
    let threads = args.threads.map_or(0, usize::from);
    let sweep = run.sweep(loaded.network, data, &args.thresholds, threads)?;
    if args.json {
        print::json(&sweep)?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&[
        ("threshold", Align::Right),
        ("validation error", Align::Right),
        ("left", Align::Right),
        ("ratio", Align::Right),
    ]);
    for point in &sweep.points {
        table.row([
            point.threshold.to_string(),
            match point.score {
                SweepScore::Error {
                    validation_error_percent,
                } => format!("{validation_error_percent:.2} %"),
                SweepScore::Fit { validation_r2, .. } => format!("R2 {validation_r2:.4}"),
            },
            print::count(point.left),
            format!("{:.1}x", point.ratio),
        ]);
    }
    print::text(table.to_string().trim_end())?;
    Ok(Outcome::Done)
}
