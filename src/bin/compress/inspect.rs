//! `compress inspect FILE`.

use std::fmt::Write;

use serde::Serialize;
use sparsevd_compressor::report::{
    Encoding, PackedSize, SCHEMA, Summary, encodings, packed_size, stored_bytes,
};
use sparsevd_model::Preprocessing;
use sparsevd_onnx::is_onnx;

use crate::args::InspectArgs;
use crate::{Outcome, inputs, print, summary};

#[derive(Serialize)]
struct Inspection {
    schema: u32,
    #[serde(flatten)]
    summary: Summary,
    network: String,
    preprocessing: Option<Preprocessing>,
    encodings: Vec<Encoding>,
    packed: Option<PackedSize>,
    notes: Vec<String>,
    metadata: std::collections::BTreeMap<String, String>,
}

pub fn run(args: &InspectArgs) -> anyhow::Result<Outcome> {
    let loaded = inputs::network(&args.file, args.network.as_deref())?;
    let (bytes, file_bytes) = match is_onnx(&args.file) {
        true => (None, std::fs::metadata(&args.file)?.len()),
        false => stored_bytes(&args.file)?,
    };
    let network = &loaded.network;
    let packed = packed_size(&args.file)?;
    let inspection = Inspection {
        schema: SCHEMA,
        summary: Summary::new(network, bytes.as_ref(), file_bytes),
        network: network.graph.name.clone(),
        preprocessing: network.graph.preprocessing.clone(),
        encodings: encodings(network, packed.map(|p| p.bytes)),
        packed,
        notes: loaded.notes,
        metadata: loaded.metadata,
    };
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
        write!(out, "\n{}", summary::packed(packed, s.nonzeros))?;
    }
    print::text(out.trim_end())?;
    Ok(Outcome::Done)
}
