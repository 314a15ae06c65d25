//! `compress inspect FILE`.

use sparsevd_pipeline::Inspection;

use crate::args::InspectArgs;
use crate::print;
use sparsevd_cli::Outcome;

pub fn run(args: &InspectArgs) -> anyhow::Result<Outcome> {
    let loaded = sparsevd_cli::network(&args.file, &args.graph, false)?;
    let inspection = Inspection::new(&args.file, loaded)?;
    if args.json {
        print::json(&inspection)?;
    } else {
        print::text(inspection.to_string().trim_end())?;
    }
    Ok(Outcome::Done)
}
