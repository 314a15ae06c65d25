//! `compress inspect FILE`.

use std::fmt::Write;

use sparsevd_pipeline::Inspection;

use crate::args::InspectArgs;
use crate::{Outcome, common, print, summary};

pub fn run(args: &InspectArgs) -> anyhow::Result<Outcome> {
    let loaded = common::network(&args.file, args.network.as_deref(), &args.shapes, false)?;
    let inspection = Inspection::new(&args.file, loaded)?;
    if args.json {
        print::json(&inspection)?;
        return Ok(Outcome::Done);
    }
    let s = &inspection.summary;
    let mut out = String::new();
    for note in &inspection.notes {
        writeln!(out, "{note}")?;
    }
    writeln!(
        out,
        "{}: {} of {} weights are not zero, {:.1} times fewer; {} parameters with biases; file of {} bytes",
        inspection.network,
        print::count(s.nonzeros),
        print::count(s.weights),
        s.ratio,
        print::count(s.parameters),
        print::count(s.file_bytes as usize)
    )?;
    write!(
        out,
        "\n{}\n{}",
        summary::layers(s, |_| vec![]),
        summary::encodings(&inspection.encodings)
    )?;
    if let Some(packed) = &inspection.packed {
        write!(out, "\n{}", summary::packed(&packed.size, s.nonzeros))?;
        writeln!(
            out,
            "\nbits per weight left: {:.2} for where it is, {:.2} for what it is",
            packed.positions_bits_per_weight, packed.values_bits_per_weight
        )?;
    }
    print::text(out.trim_end())?;
    Ok(Outcome::Done)
}
