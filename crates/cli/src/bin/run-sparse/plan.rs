//! `run-sparse plan`.

use serde_json::to_value;
use sparsevd_format::LoadedNetwork;

use crate::args::PlanArgs;
use crate::bench::samples;
use crate::load::session;
use crate::samples::Samples;
use crate::{Outcome, print};

pub fn run(args: &PlanArgs) -> anyhow::Result<Outcome> {
    let LoadedNetwork {
        network, warnings, ..
    } = args.model.load()?;
    let like = match (&args.data, args.input.as_slice()) {
        (None, []) => None,
        (set, input) => Some(samples(
            set.as_deref(),
            input,
            &network,
            [args.batch.max(1), args.length],
        )?),
    };
    let length = like.as_ref().map_or(args.length, |l| l.length);
    let like = like.as_ref().map(Samples::named).unwrap_or_default();
    let weights = args.weights.into();
    let session = session(
        &args.model,
        &network,
        weights,
        [args.batch, length, args.threads],
        &like,
    )?;
    if args.json {
        print::json_of(&warnings, to_value(session.plan())?)?;
    } else {
        print::text(session.plan())?;
    }
    Ok(Outcome::Done)
}
