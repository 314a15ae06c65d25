//! `compress inspect FILE`.

use std::fmt::Write;

use serde::Serialize;
use sparsevd_compressor::report::{
    Encoding, PackedSize, SCHEMA, Summary, encodings, packed_size, stored_bytes,
};
use sparsevd_format::{FileType, WriteOptions, network_files, write_network_bytes};
use sparsevd_model::{Network, Preprocessing};

use crate::args::InspectArgs;
use crate::{Outcome, common, print, summary};

#[derive(Serialize)]
struct Inspection {
    schema: u32,
    #[serde(flatten)]
    summary: Summary,
    network: String,
    preprocessing: Option<Preprocessing>,
    encodings: Vec<Encoding>,
    packed: Option<Packed>,
    notes: Vec<String>,
    warnings: Vec<String>,
    metadata: std::collections::BTreeMap<String, String>,
}

/// Where the bits of the packed form go.
#[derive(Serialize)]
struct Packed {
    #[serde(flatten)]
    size: PackedSize,
    positions_bits_per_weight: f64,
    values_bits_per_weight: f64,
}

/// Most bytes of the dense file that zstd is tried on: level 19 takes about a second for each megabyte.
const MOST_FOR_ZSTD: u64 = 64 << 20;

pub fn run(args: &InspectArgs) -> anyhow::Result<Outcome> {
    let loaded = common::network(&args.file, args.network.as_deref(), &args.shapes, false)?;
    let network = &loaded.network;
    let files = network_files(&args.file)?;
    let (bytes, file_bytes, packed) = match FileType::of_file(&files[0])? {
        FileType::Safetensors if files.len() == 1 => {
            let (bytes, size) = stored_bytes(&files[0])?;
            (bytes, size, None)
        }
        FileType::Packed => {
            let (bytes, size) = stored_bytes(&args.file)?;
            (bytes, size, packed_size(&args.file)?)
        }
        _ => {
            let sizes = files.iter().map(|f| Ok(std::fs::metadata(f)?.len()));
            (None, sizes.sum::<std::io::Result<u64>>()?, None)
        }
    };
    let packed = match packed {
        Some(size) => Some(size),
        None => PackedSize::of_network(network)?,
    };
    let mut encodings = encodings(network, packed.map(|p| p.bytes));
    if let Some(zstd) = zstd_over_dense(network)? {
        encodings.insert(1, zstd);
    }
    let summary = Summary::new(network, bytes.as_ref(), file_bytes);
    let packed = packed.map(|size| {
        let per_weight = |bits: u64| bits as f64 / summary.nonzeros.max(1) as f64;
        Packed {
            size,
            positions_bits_per_weight: per_weight(size.liveness_bits + size.positions_bits),
            values_bits_per_weight: per_weight(size.values_bits),
        }
    });
    let inspection = Inspection {
        schema: SCHEMA,
        summary,
        network: network.graph.name.clone(),
        preprocessing: network.graph.preprocessing.clone(),
        encodings,
        packed,
        notes: loaded.notes,
        warnings: loaded.warnings,
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

/// What a general compressor makes of the network with its zeros; `None` where trying would take minutes.
fn zstd_over_dense(network: &Network) -> anyhow::Result<Option<Encoding>> {
    let elements: usize = (network.tensors.values())
        .map(|t| t.shape().elements())
        .fold(0, usize::saturating_add);
    if elements as u64 > MOST_FOR_ZSTD / 4 {
        return Ok(None);
    }
    let dense = write_network_bytes(&network.to_dense(), &WriteOptions::default())?;
    Ok(Some(Encoding {
        encoding: "zstd -19 over dense f32, safetensors file".into(),
        bytes: zstd::bulk::compress(&dense, 19)?.len() as u64,
    }))
}
