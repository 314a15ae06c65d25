//! `run-sparse plan`.

use serde_json::to_value;

use crate::args::PlanArgs;
use crate::load::session;
use crate::{Outcome, print};

pub fn run(args: &PlanArgs) -> anyhow::Result<Outcome> {
    let network = args.model.network()?;
    let session = session(&network, args.weights.into(), args.batch, args.threads)?;
    if args.json {
        print::json(to_value(session.plan())?)?;
    } else {
        print::text(session.plan())?;
    }
    Ok(Outcome::Done)
}
