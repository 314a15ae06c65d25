//! Checkpoints, and what pictures of a run will need.
//!
//! A run folder holds `checkpoint.safetensors` (the state as named arrays, the position and history as metadata) and
//! `epochs/NNNN.safetensors`; `posterior.safetensors` is the checkpoint at the end of the last sparse-vd phase so far, which
//! thresholds can still be tried on. A run that goes on from a checkpoint gives the same bytes as one that never stopped.

mod fingerprint;

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use sparsevd_format::write_atomically;
use sparsevd_model::quantised::is_scale;

use fingerprint::fingerprint;

use crate::error::CompressError;
use crate::layer::Layer;
use crate::trainer::{EpochRecord, Position, Trainer};

const FILE: &str = "checkpoint.safetensors";
const POSTERIOR: &str = "posterior.safetensors";
const META: &str = "sparsevd.checkpoint";
const VERSION: u32 = 2;
/// Side of the fragment of each linear layer that is kept per epoch.
const FRAGMENT: usize = 64;

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    /// Of the network and recipe that the run began with.
    fingerprint: String,
    position: Position,
    sums: [f64; 2],
    history: Vec<EpochRecord>,
}

/// Path of the checkpoint in a run folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Path of the checkpoint from the end of the last sparse-vd phase in a run folder.
pub fn posterior_path(folder: &Path) -> PathBuf {
    folder.join(POSTERIOR)
}

/// Removes what a run left in its folder, so that another can begin there; other files stay.
///
/// # Errors
/// A file that the system does not let go.
pub fn clear(folder: &Path) -> Result<(), CompressError> {
    let mut files = vec![path(folder), posterior_path(folder)];
    if let Ok(epochs) = std::fs::read_dir(folder.join("epochs")) {
        files.extend(
            epochs
                .flatten()
                .map(|e| e.path())
                .filter(|p| p.extension().is_some_and(|e| e == "safetensors")),
        );
    }
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
    let bytes = std::fs::read(&from).map_err(|e| CompressError::Checkpoint {
        path: from,
        what: e.to_string(),
    })?;
    write_atomically(posterior_path(folder), |out| out.write_all(&bytes))?;
    Ok(())
}

pub(crate) fn make_folder(folder: &Path) -> Result<(), CompressError> {
    std::fs::create_dir_all(folder.join("epochs")).map_err(|e| CompressError::Checkpoint {
        path: folder.into(),
        what: format!("cannot create the run folder: {e}"),
    })
}

/// The arrays of one layer by name.
fn arrays(layer: &Layer<f32>) -> [(&'static str, &[f32]); 12] {
    let Layer {
        theta,
        bias,
        log_sigma2,
        mask,
        theta_moments,
        bias_moments,
        log_sigma2_moments,
        last_log_sigma2,
        steps,
        ..
    } = layer;
    [
        ("theta", theta),
        ("bias", bias),
        ("log_sigma2", log_sigma2),
        ("mask", mask),
        ("theta.m", &theta_moments[0]),
        ("theta.v", &theta_moments[1]),
        ("bias.m", &bias_moments[0]),
        ("bias.v", &bias_moments[1]),
        ("log_sigma2.m", &log_sigma2_moments[0]),
        ("log_sigma2.v", &log_sigma2_moments[1]),
        ("last_log_sigma2", last_log_sigma2),
        ("steps", steps.as_ref().map_or(&[], |s| s.as_slice())),
    ]
}

fn write(
    file: &Path,
    tensors: Vec<(String, Dtype, Vec<usize>, &[u8])>,
    meta: (&str, String),
) -> Result<(), CompressError> {
    let fail = |e: safetensors::SafeTensorError| CompressError::Checkpoint {
        path: file.into(),
        what: e.to_string(),
    };
    let views = tensors
        .into_iter()
        .map(|(n, d, s, b)| Ok((n, TensorView::new(d, s, b).map_err(fail)?)));
    let views: Vec<(String, TensorView<'_>)> = views.collect::<Result<_, CompressError>>()?;
    let bytes = serialize(views, Some([(meta.0.to_owned(), meta.1)].into())).map_err(fail)?;
    write_atomically(file, |out| out.write_all(&bytes))?;
    Ok(())
}

pub(crate) fn save(folder: &Path, trainer: &Trainer) -> Result<(), CompressError> {
    let meta = Meta {
        version: VERSION,
        fingerprint: fingerprint(trainer.original(), trainer.recipe()),
        position: trainer.position,
        sums: trainer.sums,
        history: trainer.history.clone(),
    };
    let mut tensors = vec![];
    for (i, layer) in trainer.layers().iter().enumerate() {
        for (name, data) in arrays(layer) {
            tensors.push((
                format!("{i}.{name}"),
                Dtype::F32,
                vec![data.len()],
                bytemuck::cast_slice(data),
            ));
        }
        for (name, data) in [("kept_out", &layer.kept_out), ("kept_in", &layer.kept_in)] {
            tensors.push((
                format!("{i}.{name}"),
                Dtype::U32,
                vec![data.len()],
                bytemuck::cast_slice(data),
            ));
        }
    }
    for (i, normalisation) in trainer.state().normalisations.iter().enumerate() {
        for (name, data) in normalisation.arrays() {
            tensors.push((
                format!("normalisation.{i}.{name}"),
                Dtype::F32,
                vec![data.len()],
                bytemuck::cast_slice(data),
            ));
        }
    }
    let json = serde_json::to_string(&meta).map_err(|e| CompressError::Checkpoint {
        path: path(folder),
        what: e.to_string(),
    })?;
    write(&path(folder), tensors, (META, json))
}

/// Puts a run where the checkpoint of its folder left it.
///
/// # Errors
/// A checkpoint that cannot be read, is torn, or belongs to another network or recipe.
pub fn resume(folder: &Path, trainer: &mut Trainer) -> Result<(), CompressError> {
    resume_from(&path(folder), trainer)
}

/// Puts a run where a checkpoint file left it.
///
/// # Errors
/// As [`resume`].
pub fn resume_from(file: &Path, trainer: &mut Trainer) -> Result<(), CompressError> {
    let fail = |what: String| CompressError::Checkpoint {
        path: file.into(),
        what,
    };
    let bytes = std::fs::read(file).map_err(|e| fail(e.to_string()))?;
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
    let here = fingerprint(trainer.original(), trainer.recipe());
    if meta.fingerprint != here {
        return Err(fail(format!(
            "expected a run of this network and recipe ({here}), got one of another ({})",
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
    let mut state = trainer.state().clone();
    for (i, normalisation) in state.normalisations.iter_mut().enumerate() {
        let node = normalisation.node.clone();
        for (name, array) in normalisation.arrays_mut() {
            let stored = floats_of(&format!("normalisation.{i}.{name}"))?;
            if stored.len() != array.len() {
                return Err(fail(format!(
                    "`{name}` of normalisation `{node}`: expected {} numbers, got {}",
                    array.len(),
                    stored.len()
                )));
            }
            *array = stored;
        }
    }
    for (i, layer) in state.layers.iter_mut().enumerate() {
        let floats = |name: &str| floats_of(&format!("{i}.{name}"));
        let integers = |name: &str| -> Result<Vec<u32>, CompressError> {
            Ok(all
                .tensor(&format!("{i}.{name}"))
                .map_err(torn)?
                .data()
                .chunks_exact(4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect())
        };
        (layer.kept_out, layer.kept_in) = (integers("kept_out")?, integers("kept_in")?);
        layer.theta = floats("theta")?;
        layer.bias = floats("bias")?;
        layer.log_sigma2 = floats("log_sigma2")?;
        layer.mask = floats("mask")?;
        layer.theta_moments = [floats("theta.m")?, floats("theta.v")?];
        layer.bias_moments = [floats("bias.m")?, floats("bias.v")?];
        layer.log_sigma2_moments = [floats("log_sigma2.m")?, floats("log_sigma2.v")?];
        layer.last_log_sigma2 = floats("last_log_sigma2")?;
        let steps = floats("steps")?;
        let n = layer.units() * layer.patch();
        let whole = layer.theta.len() == n
            && layer.mask.len() == n
            && layer.bias.len() == layer.units()
            && [&layer.log_sigma2, &layer.last_log_sigma2]
                .iter()
                .all(|l| l.is_empty() || l.len() == n);
        let inside = layer
            .kept_out
            .iter()
            .all(|&o| (o as usize) < layer.original.dims()[0])
            && layer
                .kept_in
                .iter()
                .all(|&c| (c as usize) < layer.original.dims()[1]);
        if !whole || !inside {
            return Err(fail(format!(
                "the arrays of layer `{}` do not fit together",
                layer.node
            )));
        }
        layer.refresh_sigma2();
        layer.set_scales(match steps.as_slice() {
            &[weight, bias] if is_scale(weight) && is_scale(bias) => Some([weight, bias]),
            [] => None,
            _ => {
                return Err(fail(format!(
                    "layer `{}` has steps that are none",
                    layer.node
                )));
            }
        });
    }
    trainer.replace_state(|old| *old = state)?;
    (trainer.position, trainer.sums, trainer.history) = (meta.position, meta.sums, meta.history);
    Ok(())
}

/// Keeps what pictures of the epoch need: all filters and a fixed 64x64 fragment of each linear layer, theta and log_alpha,
/// in original coordinates.
pub(crate) fn write_pictures(
    folder: &Path,
    epoch: u32,
    layers: &[Layer<f32>],
) -> Result<(), CompressError> {
    let mut arrays: Vec<(String, Vec<usize>, Vec<f32>)> = vec![];
    for layer in layers {
        let dims = layer.original.dims();
        let shape = if dims.len() == 2 {
            vec![dims[0].min(FRAGMENT), dims[1].min(FRAGMENT)]
        } else {
            dims.to_vec()
        };
        let log_alpha: Vec<f32> = if layer.is_variational() {
            layer.posterior().log_alphas().collect()
        } else {
            vec![]
        };
        arrays.push((
            format!("{}.theta", layer.node),
            shape.clone(),
            fragment(layer, &layer.theta, &shape, 0.0),
        ));
        if !log_alpha.is_empty() {
            // Weights that were removed show the largest rate.
            arrays.push((
                format!("{}.log_alpha", layer.node),
                shape.clone(),
                fragment(layer, &log_alpha, &shape, 8.0),
            ));
        }
    }
    let tensors = arrays
        .iter()
        .map(|(n, s, d)| {
            (
                n.clone(),
                Dtype::F32,
                s.clone(),
                bytemuck::cast_slice(d.as_slice()),
            )
        })
        .collect();
    let file = folder
        .join("epochs")
        .join(format!("{epoch:04}.safetensors"));
    write(&file, tensors, ("sparsevd.epoch", epoch.to_string()))
}

/// The first corner of a layer in its original coordinates; `gone` stands where a weight was removed.
fn fragment(layer: &Layer<f32>, values: &[f32], shape: &[usize], gone: f32) -> Vec<f32> {
    let (area, inputs) = (layer.area(), layer.kept_in.len());
    let (out, inn) = (shape[0], shape[1]);
    let mut corner = vec![gone; shape.iter().product()];
    for (o, &unit) in layer
        .kept_out
        .iter()
        .enumerate()
        .filter(|(_, u)| (**u as usize) < out)
    {
        for (i, &input) in layer
            .kept_in
            .iter()
            .enumerate()
            .filter(|(_, c)| (**c as usize) < inn)
        {
            for a in 0..area {
                let at = (o * area + a) * inputs + i;
                if layer.mask[at] > 0.0 {
                    corner[(unit as usize * inn + input as usize) * area + a] = values[at];
                }
            }
        }
    }
    corner
}
