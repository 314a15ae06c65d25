//! `run-sparse profile`.

use std::time::Duration;

use serde_json::to_value;
use sparsevd_pipeline::ProfileReport;
use sparsevd_runtime::profile::profile;

use crate::args::ProfileArgs;
use crate::print;
use sparsevd_cli::Outcome;

const BUDGET: Duration = Duration::from_secs(1);

pub fn run(args: &ProfileArgs) -> anyhow::Result<Outcome> {
    let args = &args.plan;
    let model = args.model.load()?;
    let size = [args.batch.max(1), args.length];
    let input = model.samples(args.data.as_deref(), &args.input, size)?;
    // Nodes are timed one after the other, so one thread it is.
    let size = [args.batch, input.length, 1];
    let session = model.session(args.weights, size, &input.named())?;
    let options = session.plan().options();
    let input = input.cycled(args.batch);
    let profile = profile(&session, args.batch, &input.named()[..], BUDGET)?;
    let name = &model.network.graph.name;
    let report = ProfileReport::new(name, (options.weights, options.isa), &profile);
    if args.json {
        print::json_of(&model.warnings, to_value(&report)?)?;
    } else {
        print::text(report.to_string().trim_end())?;
    }
    Ok(Outcome::Done)
}
