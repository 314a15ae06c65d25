//! `compress sweep RUN`: validation error and ratio at other thresholds.

use anyhow::bail;
use serde_json::json;
use sparsevd_compressor::report::{RunRecord, SCHEMA, Task};
use sparsevd_compressor::trainer::{RunOptions, Trainer};
use sparsevd_compressor::{Layer, checkpoint};

use crate::args::SweepArgs;
use crate::common::PixelArgs;
use crate::inputs::Unset;
use crate::table::{Align, Table};
use crate::{Outcome, common, inputs, print};

pub fn run(args: &SweepArgs) -> anyhow::Result<Outcome> {
    if let Some(t) = args.thresholds.iter().find(|t| !(-8.0..=8.0).contains(*t)) {
        bail!("--thresholds: expected numbers from -8 to 8, got {t}");
    }
    let record = RunRecord::read(&args.run)?;
    let Task::Compress { model, network } = &record.task else {
        bail!(
            "{}: expected a run of `compress MODEL`, got one of `compress train`",
            args.run.display()
        );
    };
    let mut network = common::network(model, network.as_deref(), &args.shapes, false)?.network;
    network
        .graph
        .preprocessing
        .clone_from(&record.preprocessing);
    let data = args.data.as_ref().unwrap_or(&record.data);
    let none = PixelArgs::default();
    let loaded = inputs::load(data, None, network.graph.preprocessing.as_ref())?;
    let (images, _) = inputs::images(
        loaded,
        data,
        &record.recipe,
        &mut network,
        &none,
        Unset::Refused,
    )?;
    let weights = network.original_weights();

    let options = RunOptions {
        threads: args.threads.map_or(0, usize::from),
        run_folder: None,
    };
    let mut trainer = Trainer::new(&network, record.recipe.clone(), images.training, &options)?;
    trainer.resume(&args.run)?;
    let posterior = checkpoint::posterior_path(&args.run);
    if !trainer.layers().iter().any(Layer::is_variational) && posterior.is_file() {
        trainer.resume_from(&posterior)?;
    }
    if !trainer.layers().iter().any(Layer::is_variational) {
        bail!(
            "{}: expected a run that has done an epoch of sparse-vd, got one without dropout rates",
            args.run.display()
        );
    }
    let rows = trainer.sweep(&args.thresholds);
    let ratio = |left: usize| weights as f64 / left.max(1) as f64;
    if args.json {
        let points: Vec<_> = rows
            .iter()
            .map(|&(threshold, score, left)| match score.r2() {
                None => json!({"threshold": threshold, "validation_error_percent": score.error(), "ratio": ratio(left), "left": left}),
                Some(r2) => json!({"threshold": threshold, "validation_r2": r2, "validation_rmse": score.error(), "ratio": ratio(left), "left": left}),
            })
            .collect();
        print::json(
            &json!({"schema": SCHEMA, "weights": weights, "recipe_threshold": record.recipe.threshold, "points": points}),
        )?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&[
        ("threshold", Align::Right),
        ("validation error", Align::Right),
        ("left", Align::Right),
        ("ratio", Align::Right),
    ]);
    for (threshold, score, left) in rows {
        table.row([
            threshold.to_string(),
            match score.r2() {
                None => format!("{:.2} %", score.error()),
                Some(r2) => format!("R2 {r2:.4}"),
            },
            print::count(left),
            format!("{:.1}x", ratio(left)),
        ]);
    }
    print::text(table.to_string().trim_end())?;
    Ok(Outcome::Done)
}
