//! Checkpoints.
//!
//! A run folder holds `checkpoint.safetensors` (the state as named arrays, the position and history as metadata) and
//! [frames](crate::frame); `posterior.safetensors` is the checkpoint at the end of the last sparse-vd phase so far, which
//! `compress sweep` needs. A resumed run gives the same bytes as one that never stopped.

mod fingerprint;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sparsevd_format::{read_file, write_atomically};
use sparsevd_model::quantised::is_scale;

pub(crate) use fingerprint::fingerprint;
pub use fingerprint::{network_fingerprint, samples_fingerprint};

use crate::arrays::write_arrays;
use crate::error::CompressError;
use crate::frame;
use crate::state::State;
use crate::trainer::history::EpochRecord;
use crate::trainer::snapshot::{Position, Snapshot};

const FILE: &str = "checkpoint.safetensors";
const POSTERIOR: &str = "posterior.safetensors";
const META: &str = "sparsevd.checkpoint";
const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    /// Of the network and recipe that the run began with.
    fingerprint: String,
    position: Position,
    sums: [f64; 2],
    history: Vec<EpochRecord>,
}

fn fault(path: &Path, what: String) -> CompressError {
    CompressError::Checkpoint {
        path: path.into(),
        what,
    }
}

/// Path of the checkpoint in a run folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Path of the checkpoint from the end of the last sparse-vd phase in a run folder.
pub fn posterior_path(folder: &Path) -> PathBuf {
    folder.join(POSTERIOR)
}

/// Removes the files of a run from its folder, so that another can begin there; other files stay.
///
/// # Errors
/// A file that cannot be removed.
pub fn clear(folder: &Path) -> Result<(), CompressError> {
    remove(vec![path(folder)])?;
    clear_all_but_checkpoint(folder)
}

/// Removes the files of a run but its checkpoint: those that only pictures and `compress sweep` need.
///
/// # Errors
/// A file that cannot be removed.
pub fn clear_all_but_checkpoint(folder: &Path) -> Result<(), CompressError> {
    let mut files = vec![posterior_path(folder)];
    files.extend(frame::files(folder)?);
    remove(files)?;
    // A file that someone put beside the frames stays, and its folder.
    let _ = std::fs::remove_dir(frame::folder(folder));
    Ok(())
}

fn remove(files: Vec<PathBuf>) -> Result<(), CompressError> {
    for file in files {
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(CompressError::Checkpoint {
                    path: file,
                    what: format!("cannot remove it: {e}"),
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Copies the checkpoint to where the last posterior is kept.
pub(crate) fn keep_posterior(folder: &Path) -> Result<(), CompressError> {
    let from = path(folder);
    let bytes = read_file(&from, u64::MAX).map_err(|e| fault(&from, e.without_path()))?;
    write_atomically(posterior_path(folder), |out| out.write_all(&bytes))?;
    Ok(())
}

pub(crate) fn make_folder(folder: &Path) -> Result<(), CompressError> {
    std::fs::create_dir_all(folder).map_err(|e| CompressError::Checkpoint {
        path: folder.into(),
        what: format!("cannot create the run folder: {e}"),
    })
}

/// Writes the checkpoint of a run folder.
pub(crate) fn write(
    folder: &Path,
    fingerprint: &str,
    snapshot: &Snapshot<'_>,
) -> Result<(), CompressError> {
    let meta = Meta {
        version: VERSION,
        fingerprint: fingerprint.to_owned(),
        position: snapshot.position,
        sums: snapshot.sums,
        history: snapshot.history.to_vec(),
    };
    let state = &snapshot.state;
    let mut tensors = vec![];
    for parameter in state.parameters() {
        for (name, data) in parameter.into_arrays() {
            let bytes = bytemuck::cast_slice(data);
            tensors.push((name, Dtype::F32, vec![data.len()], bytes));
        }
    }
    for (i, layer) in state.layers.iter().enumerate() {
        let scales = layer.scales.as_ref().map_or(&[][..], |s| s.as_slice());
        let bytes = bytemuck::cast_slice(scales);
        tensors.push((format!("{i}.steps"), Dtype::F32, vec![scales.len()], bytes));
        for (name, data) in [("kept_out", &layer.kept_out), ("kept_in", &layer.kept_in)] {
            tensors.push((
                format!("{i}.{name}"),
                Dtype::U32,
                vec![data.len()],
                bytemuck::cast_slice(data),
            ));
        }
    }
    let json = serde_json::to_string(&meta).map_err(|e| CompressError::Checkpoint {
        path: path(folder),
        what: e.to_string(),
    })?;
    write_arrays(&path(folder), tensors, (META, json), fault)
}

/// Reads a checkpoint file; `state` is that of the run's network.
///
/// # Errors
/// A checkpoint that cannot be read, is damaged, or belongs to a run with another fingerprint.
pub(crate) fn read(
    file: &Path,
    fingerprint: &str,
    mut state: State<f32>,
) -> Result<Snapshot<'static>, CompressError> {
    let fail = |what: String| fault(file, what);
    let bytes = read_file(file, u64::MAX).map_err(|e| fail(e.without_path()))?;
    let torn = |e: safetensors::SafeTensorError| {
        fail(format!(
            "expected a whole checkpoint, got a damaged file ({e})"
        ))
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(torn)?;
    let meta = header
        .metadata()
        .as_ref()
        .and_then(|m| m.get(META))
        .ok_or_else(|| {
            fail("expected a checkpoint of a run, got another safetensors file".into())
        })?;
    let meta: Meta = serde_json::from_str(meta).map_err(|e| fail(e.to_string()))?;
    if meta.version != VERSION {
        return Err(fail(format!(
            "expected version {VERSION}, got {}",
            meta.version
        )));
    }
    if meta.fingerprint != fingerprint {
        return Err(fail(format!(
            "expected a run of this network and recipe ({fingerprint}), got one of another ({})",
            meta.fingerprint
        )));
    }
    let all = SafeTensors::deserialize(&bytes).map_err(torn)?;
    let floats_of = |name: &str| -> Result<Vec<f32>, CompressError> {
        let data = all.tensor(name).map_err(torn)?;
        let numbers = data.data().chunks_exact(4);
        Ok(numbers
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    };
    let integers_of = |name: &str| -> Result<Vec<u32>, CompressError> {
        let data = all.tensor(name).map_err(torn)?;
        let numbers = data.data().chunks_exact(4);
        Ok(numbers
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    };
    for (i, layer) in state.layers.iter_mut().enumerate() {
        layer.kept_out = integers_of(&format!("{i}.kept_out"))?;
        layer.kept_in = integers_of(&format!("{i}.kept_in"))?;
        let [out, inn] = [0, 1].map(|axis| layer.original.dims()[axis]);
        for (kept, most) in [(&layer.kept_out, out), (&layer.kept_in, inn)] {
            if let Some(index) = kept.iter().find(|&&k| k as usize >= most) {
                let node = &layer.node;
                return Err(fail(format!(
                    "layer `{node}`: expected indices below {most}, got {index}"
                )));
            }
        }
    }
    for parameter in state.parameters_mut() {
        for (name, array) in parameter.into_arrays() {
            *array = floats_of(&name)?;
        }
    }
    for parameter in state.parameters() {
        let node = parameter.node;
        if let Some((name, expected)) = parameter.misfit() {
            return Err(fail(format!(
                "`{name}` of node `{node}`: expected {expected} numbers, got another number"
            )));
        }
    }
    for (i, layer) in state.layers.iter_mut().enumerate() {
        let scales = floats_of(&format!("{i}.steps"))?;
        layer.refresh_sigma2();
        layer.set_scales(match scales.as_slice() {
            &[weight, bias] if is_scale(weight) && is_scale(bias) => Some([weight, bias]),
            [] => None,
            _ => {
                return Err(fail(format!(
                    "layer `{}`: expected `steps` of two positive scales, got {scales:?}",
                    layer.node
                )));
            }
        });
    }
    Ok(Snapshot {
        position: meta.position,
        sums: meta.sums,
        history: Cow::Owned(meta.history),
        state: Cow::Owned(state),
    })
}
