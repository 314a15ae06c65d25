//! Encoders of texts as folders: how they run, and how one is written.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use sparsevd_format::{WriteOptions, read_file, write_atomically, write_network};
use sparsevd_kernels::Isa;
use sparsevd_model::Network;
use sparsevd_runtime::{Int8Mode, PlanOptions};

use crate::error::PipelineError;

/// Texts that run together, of equally many tokens.
pub(crate) const TEXTS: usize = 32;
/// Largest file of a folder that is copied.
const MAX_COPIED: u64 = 1 << 28;

/// Each text once, in their order.
pub(crate) fn different(texts: &[impl AsRef<str>]) -> Vec<&str> {
    let mut known = HashSet::new();
    let texts = texts.iter().map(AsRef::as_ref);
    texts.filter(|text| known.insert(*text)).collect()
}

/// How encoders run that are measured.
pub(crate) fn encoder_options(threads: usize) -> Result<PlanOptions, PipelineError> {
    Ok(PlanOptions {
        isa: Isa::from_env()?,
        threads,
        batch: TEXTS,
        ..PlanOptions::default()
    })
}

/// The same for an encoder that others are compared with or learn from: in f32, whatever a machine was tuned to.
pub(crate) fn teacher_options(threads: usize) -> Result<PlanOptions, PipelineError> {
    Ok(PlanOptions {
        int8: Int8Mode::Never,
        ..encoder_options(threads)?
    })
}

/// Whether [`write_encoder`] will write to `out` what was made of the encoder of `folder`.
///
/// # Errors
/// A folder that exists, unless `overwrite`, and then one that is that of the encoder itself.
pub fn check_encoder_out(folder: &Path, out: &Path, overwrite: bool) -> Result<(), PipelineError> {
    let same = fs::canonicalize(folder)
        .ok()
        .zip(fs::canonicalize(out).ok());
    if same.is_some_and(|(a, b)| a == b) {
        let expected = "another folder than that of the encoder, whose weights it would replace";
        return Err(PipelineError::invalid(out.display(), expected, "that one"));
    }
    if out.exists() && !overwrite {
        let expected = "a folder that does not exist, as --force is not given";
        return Err(PipelineError::invalid(
            out.display(),
            expected,
            "one that does",
        ));
    }
    Ok(())
}

/// Writes a network that takes the place of that of the encoder in `folder` as a folder, with copies of the files of its own that are no weights. Returns the
/// bytes of the file of weights.
///
/// # Errors
/// As [`check_encoder_out`]; files that cannot be read or written.
pub fn write_encoder(
    folder: &Path,
    out: &Path,
    network: &Network,
    overwrite: bool,
) -> Result<u64, PipelineError> {
    check_encoder_out(folder, out, overwrite)?;
    let failed = |error: std::io::Error| {
        PipelineError::invalid(
            out.display(),
            "a folder that can be written",
            error.to_string(),
        )
    };
    copy_settings(folder, out, 1).map_err(failed)?;
    let file = out.join("model.safetensors");
    Ok(write_network(file, network, &WriteOptions::default())?)
}

/// Copies the JSON and text files of a folder and, down to `depth`, of those in it: settings and vocabularies. Lists of shards stay
/// behind, since the weights are one file then.
fn copy_settings(from: &Path, to: &Path, depth: usize) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        if path.is_dir() && depth > 0 {
            copy_settings(&path, &to.join(name), depth - 1)?;
            continue;
        }
        let kept = path
            .extension()
            .is_some_and(|e| e == "json" || e == "txt" || e == "model");
        let is_list = name.to_string_lossy().ends_with(".index.json");
        if kept && !is_list && path.is_file() {
            let content = read_file(&path, MAX_COPIED).map_err(std::io::Error::other)?;
            let written = write_atomically(to.join(name), |out| out.write_all(&content));
            written.map_err(std::io::Error::other)?;
        }
    }
    Ok(())
}
