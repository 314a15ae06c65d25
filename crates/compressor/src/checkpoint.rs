//! Checkpoints.
//!
//! A run folder holds `checkpoint.safetensors` (the state as named arrays, the position and history as metadata, and a checksum of the
//! whole file), the one before it as `checkpoint.previous.safetensors`, and [frames](crate::frame); `posterior.safetensors` is the
//! checkpoint at the end of the last sparse-vd phase so far, which `compress sweep` needs. A resumed run gives the same bytes as one that
//! never stopped.

mod begun;
mod checks;
mod fingerprint;
mod whole;

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sparsevd_format::{read_file, sweep, write_atomically, write_keeping};
use sparsevd_model::terminal;

pub(crate) use begun::Begun;
pub(crate) use checks::Run;
pub use fingerprint::{network_fingerprint, samples_fingerprint};

use crate::arrays::to_bytes;
use crate::error::CompressError;
use crate::frame;
use crate::parameter::Parameter;
use crate::state::State;
use crate::trainer::average::Average;
use crate::trainer::history::EpochRecord;
use crate::trainer::snapshot::{Position, Snapshot};

const FILE: &str = "checkpoint.safetensors";
const PREVIOUS: &str = "checkpoint.previous.safetensors";
const POSTERIOR: &str = "posterior.safetensors";
const META: &str = "sparsevd.checkpoint";
const VERSION: u32 = 3;
/// Most characters that say how a file is damaged.
const MOST_DAMAGE: usize = 300;

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    begun: Begun,
    position: Position,
    sums: [f64; 2],
    history: Vec<EpochRecord>,
}

/// The part that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Why a checkpoint cannot be gone on from.
enum Fault {
    /// It is damaged, or not there: an earlier one may do.
    Damaged(String),
    /// It is of another run or version.
    Other(String),
}

impl Fault {
    fn what(self) -> String {
        match self {
            Self::Damaged(what) | Self::Other(what) => what,
        }
    }
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

/// Path of the checkpoint before that.
pub fn previous_path(folder: &Path) -> PathBuf {
    folder.join(PREVIOUS)
}

/// Path of the checkpoint from the end of the last sparse-vd phase in a run folder.
pub fn posterior_path(folder: &Path) -> PathBuf {
    folder.join(POSTERIOR)
}

/// Whether a run folder has a checkpoint, the last one or the one before.
pub fn exists(folder: &Path) -> bool {
    path(folder).is_file() || previous_path(folder).is_file()
}

/// Removes the files of a run from its folder, so that another can begin there; other files stay.
///
/// # Errors
/// A file that cannot be removed.
pub fn clear(folder: &Path) -> Result<(), CompressError> {
    clear_all_but_checkpoint(folder)?;
    remove(vec![path(folder)])
}

/// Removes the files of a run but its last checkpoint: those that only pictures and `compress sweep` need.
///
/// # Errors
/// A file that cannot be removed.
pub fn clear_all_but_checkpoint(folder: &Path) -> Result<(), CompressError> {
    let mut files = vec![previous_path(folder), posterior_path(folder)];
    files.extend(frame::files(folder)?);
    remove(files)?;
    sweep_folder(folder);
    // A file that someone put beside the frames stays, and its folder.
    let _ = fs::remove_dir(frame::folder(folder));
    Ok(())
}

/// Removes the temporary files that dead processes left in a run folder.
pub fn sweep_folder(folder: &Path) {
    sweep(folder);
    sweep(&frame::folder(folder));
}

fn remove(files: Vec<PathBuf>) -> Result<(), CompressError> {
    for file in files {
        match fs::remove_file(&file) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
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
    fs::create_dir_all(folder).map_err(|e| CompressError::Checkpoint {
        path: folder.into(),
        what: format!("cannot create the run folder: {e}"),
    })
}

/// Writes the checkpoint of a run folder; the one that was there becomes the previous one.
pub(crate) fn write(
    folder: &Path,
    begun: &Begun,
    snapshot: &Snapshot<'_>,
) -> Result<(), CompressError> {
    let file = path(folder);
    let meta = Meta {
        version: VERSION,
        begun: begun.clone(),
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
    let averages = snapshot.average.0.iter().zip(state.parameters());
    for (values, parameter) in averages {
        let bytes = bytemuck::cast_slice(values);
        tensors.push((averaged(&parameter), Dtype::F32, vec![values.len()], bytes));
    }
    for (i, layer) in state.layers.iter().enumerate() {
        let scales = layer.scales.as_ref().map_or(&[][..], |s| s.as_slice());
        let bytes = bytemuck::cast_slice(scales);
        tensors.push((steps(i), Dtype::F32, vec![scales.len()], bytes));
        for (name, data) in kept(i).into_iter().zip([&layer.kept_out, &layer.kept_in]) {
            let bytes = bytemuck::cast_slice(data);
            tensors.push((name, Dtype::U32, vec![data.len()], bytes));
        }
    }
    let fail = |what: String| fault(&file, what);
    let json = serde_json::to_string(&meta).map_err(|e| fail(e.to_string()))?;
    let metadata = [(META, json), (whole::KEY, whole::UNSET.to_owned())];
    let mut bytes = to_bytes(tensors, metadata).map_err(|e| fail(e.to_string()))?;
    whole::seal(&mut bytes).ok_or_else(|| fail("expected a place for its checksum".into()))?;
    write_keeping(&file, previous_path(folder), |out| out.write_all(&bytes))?;
    Ok(())
}

/// Names of the arrays of a layer's units and inputs that are left.
fn kept(layer: usize) -> [String; 2] {
    ["kept_out", "kept_in"].map(|name| format!("{layer}.{name}"))
}

/// Name of the array of a layer's scales, which is empty without any.
fn steps(layer: usize) -> String {
    format!("{layer}.steps")
}

/// Name of the array of a parameter's average.
fn averaged<V>(parameter: &Parameter<'_, V>) -> String {
    format!("average.{}.{}", parameter.owner, parameter.part)
}

/// A checkpoint that was read.
pub(crate) struct Found {
    pub snapshot: Snapshot<'static>,
    /// Whether it is the one before the last, which is damaged.
    pub is_previous: bool,
    /// What to say of it.
    pub warnings: Vec<String>,
}

/// Reads the last checkpoint of a run folder, or, where that is damaged, the one before it.
///
/// # Errors
/// No checkpoint that can be read and belongs to the run.
pub(crate) fn read_last(folder: &Path, run: &Run<'_>) -> Result<Found, CompressError> {
    let (last, previous) = (path(folder), previous_path(folder));
    let what = match read_inner(&last, run) {
        Err(Fault::Damaged(what)) if previous.is_file() => what,
        other => return other.map_err(|e| fault(&last, e.what())),
    };
    match read_inner(&previous, run) {
        Ok(mut found) => {
            let Position { phase, epoch, .. } = found.snapshot.position;
            found.is_previous = true;
            found.warnings.push(format!(
                "checkpoint {}: {what}; the run goes on from the checkpoint before it, of phase {}, epoch {epoch}",
                last.display(),
                phase + 1,
            ));
            Ok(found)
        }
        Err(before) => {
            let before = before.what();
            Err(fault(
                &last,
                format!("{what}; and of the checkpoint before it: {before}"),
            ))
        }
    }
}

/// Reads a checkpoint file.
///
/// # Errors
/// A checkpoint that cannot be read, is damaged, or belongs to another run.
pub(crate) fn read(file: &Path, run: &Run<'_>) -> Result<Found, CompressError> {
    read_inner(file, run).map_err(|e| fault(file, e.what()))
}

/// Makes the previous checkpoint the last one, where that is damaged or not there.
pub(crate) fn restore_previous(folder: &Path) -> Result<(), CompressError> {
    let (last, previous) = (path(folder), previous_path(folder));
    fs::rename(&previous, &last).map_err(|e| fault(&previous, format!("cannot rename it: {e}")))
}

fn read_inner(file: &Path, run: &Run<'_>) -> Result<Found, Fault> {
    let bytes = read_file(file, u64::MAX).map_err(|e| Fault::Damaged(e.without_path()))?;
    let meta = meta(&bytes)?;
    if let Some(difference) = run.begun.difference(&meta.begun) {
        return Err(Fault::Other(difference));
    }
    let averages = run.averages(&meta.position);
    let (state, average) =
        state(&bytes, run.dense(&meta.position), averages).map_err(Fault::Damaged)?;
    let snapshot = Snapshot {
        position: meta.position,
        sums: meta.sums,
        history: Cow::Owned(meta.history),
        state: Cow::Owned(state),
        average: Cow::Owned(average),
    };
    run.check(&snapshot).map_err(Fault::Damaged)?;
    Ok(Found {
        snapshot,
        is_previous: false,
        warnings: run.begun.other_isa(&meta.begun).into_iter().collect(),
    })
}

/// The metadata of a whole file of this version.
fn meta(bytes: &[u8]) -> Result<Meta, Fault> {
    let damaged = |what: String| Fault::Damaged(of_damage(&what));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
    let metadata = header.metadata().as_ref();
    let entry = |key: &str| metadata.and_then(|m| m.get(key));
    let text = entry(META).ok_or_else(|| {
        let what = "expected a checkpoint of a run, got another safetensors file";
        Fault::Damaged(what.into())
    })?;
    let not_json = |e: serde_json::Error| damaged(e.to_string());
    let version = || serde_json::from_str(text).map_err(not_json);
    if entry(whole::KEY).is_none() {
        // Earlier versions had no checksum.
        let Versioned { version } = version()?;
        return Err(match version {
            VERSION => damaged("one without a checksum".into()),
            other => Fault::Other(of_version(other)),
        });
    }
    if let Some(damage) = whole::damage(bytes) {
        return Err(damaged(damage));
    }
    match version()? {
        Versioned { version: VERSION } => serde_json::from_str(text).map_err(not_json),
        Versioned { version } => Err(Fault::Other(of_version(version))),
    }
}

fn of_damage(what: &str) -> String {
    // Some name what they met, which may be a whole history.
    let what = terminal::line(what, MOST_DAMAGE);
    format!("expected a whole checkpoint, got a damaged file ({what})")
}

fn of_version(version: u32) -> String {
    let which = if version < VERSION {
        "an earlier"
    } else {
        "a later"
    };
    format!(
        "expected version {VERSION}, got {version}, of {which} version of the program; begin anew"
    )
}

/// The state in a file, as far as arrays go: each has the type and the length that the others give it. `dense` is that of the network.
/// With it comes the average of its parameters, where there must be one.
fn state(
    bytes: &[u8],
    dense: &State<f32>,
    averages: bool,
) -> Result<(State<f32>, Average), String> {
    let all = SafeTensors::deserialize(bytes).map_err(|e| of_damage(&e.to_string()))?;
    let mut left = all.names().len();
    let mut array = |name: &str, dtype: Dtype, most: usize| -> Result<Vec<[u8; 4]>, String> {
        let tensor =
            (all.tensor(name)).map_err(|_| format!("expected an array `{name}`, got none"))?;
        left -= 1;
        match (tensor.dtype(), tensor.shape()) {
            (got, &[n]) if got == dtype && n <= most => {}
            (got, shape) => {
                return Err(format!(
                    "`{name}`: expected at most {most} numbers of type {dtype:?}, got {shape:?} of type {got:?}"
                ));
            }
        }
        let (numbers, _) = tensor.data().as_chunks();
        Ok(numbers.to_vec())
    };
    let mut state = dense.clone();
    for (i, layer) in state.layers.iter_mut().enumerate() {
        let dims = layer.original.dims();
        let [out, inn] = [dims[0], dims[1]];
        let names = kept(i);
        let mut indices = |name: &str, most| -> Result<Vec<u32>, String> {
            let numbers = array(name, Dtype::U32, most)?.into_iter();
            Ok(numbers.map(u32::from_le_bytes).collect())
        };
        layer.kept_out = indices(&names[0], out)?;
        layer.kept_in = indices(&names[1], inn)?;
        checks::check_kept(layer)?;
    }
    let mut floats = |name: &str, most: usize| -> Result<Vec<f32>, String> {
        let numbers = array(name, Dtype::F32, most)?.into_iter();
        Ok(numbers.map(f32::from_le_bytes).collect())
    };
    for parameter in state.parameters_mut() {
        let most = parameter.size[0] * parameter.size[1];
        for (name, array) in parameter.into_arrays() {
            *array = floats(&name, most)?;
        }
    }
    let mut scales = vec![];
    for i in 0..state.layers.len() {
        scales.push(floats(&steps(i), 2)?);
    }
    let mut average = Average::default();
    for parameter in state.parameters().iter().filter(|_| averages) {
        let (name, expected) = (averaged(parameter), parameter.values.len());
        let values = floats(&name, expected)?;
        if values.len() != expected {
            let got = values.len();
            return Err(format!("`{name}`: expected {expected} numbers, got {got}"));
        }
        average.0.push(values);
    }
    if left > 0 {
        return Err(format!("expected no other arrays, got {left}"));
    }
    for parameter in state.parameters() {
        let node = parameter.node;
        if let Some((name, expected)) = parameter.misfit() {
            return Err(format!(
                "`{name}` of node `{node}`: expected {expected} numbers, got another number"
            ));
        }
    }
    for (layer, scales) in state.layers.iter_mut().zip(scales) {
        layer.refresh_sigma2();
        layer.set_scales(match *scales.as_slice() {
            [weight, bias] => Some([weight, bias]),
            [] => None,
            _ => {
                return Err(format!(
                    "layer `{}`: expected `steps` of two scales, got {scales:?}",
                    layer.node
                ));
            }
        });
    }
    Ok((state, average))
}
