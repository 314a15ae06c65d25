//! Frames: the weights of a run at one step, in a byte each, from which reports draw how they go to zero.
//!
//! A run folder has `frames/NNNNNNNN.safetensors`, named by the steps that were done: before training, after 1, 2, 4, ... steps of the
//! first epochs, then after epochs, every one or, in a long run, every few; docs/format.md has the tensors.

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sparsevd_format::read_file;
use sparsevd_model::{Dense, Network};

use crate::arrays::write_arrays;
use crate::error::CompressError;
use crate::layer::Layer;
use crate::trainer::snapshot::Position;

/// Frames after epochs of a run, at most, beside the ends of its phases.
const MOST: u32 = 48;
/// Epochs whose steps have frames too.
const FIRST_EPOCHS: u32 = 3;
/// Weights of a layer that a frame keeps.
const WEIGHTS: usize = 1 << 19;
/// The byte of a removed weight. Others are -127 to 127.
pub const REMOVED: i8 = i8::MIN;
const FOLDER: &str = "frames";
const META: &str = "sparsevd.frame";

/// The weights of a run at one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// When it was.
    pub time: FrameTime,
    /// The layers, in the order of the network.
    pub layers: Vec<LayerFrame>,
}

/// When a frame was.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FrameTime {
    /// Steps of the run that were done.
    pub step: u32,
    /// Epochs of the run that were done, with the share of the one that was not.
    pub epochs: f64,
    /// Phase, from 1.
    pub phase: usize,
}

/// A layer in a frame: all its weights, or, where these are over half a million, the units and inputs with the largest weights
/// before training.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerFrame {
    /// Node.
    pub node: String,
    /// Shape of the whole weight, `[out, in]` or `[out, in, kh, kw]`.
    pub shape: Vec<usize>,
    /// Weights of the whole layer that are left.
    pub left: usize,
    /// Units that are here, ascending.
    pub units: Vec<u32>,
    /// Inputs or input channels that are here, ascending.
    pub inputs: Vec<u32>,
    /// The weight of the number one.
    pub scale: f32,
    /// `[units][inputs][kh][kw]`: weights as multiples of `scale`, from -127 to 127, [`REMOVED`] where a weight was removed.
    pub values: Vec<i8>,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    time: FrameTime,
    layers: Vec<LayerMeta>,
}

#[derive(Serialize, Deserialize)]
struct LayerMeta {
    node: String,
    shape: Vec<usize>,
    left: usize,
    scale: f32,
}

/// Whether a run keeps a frame inside an epoch, at this place.
pub(crate) fn is_due_in_epoch(position: &Position) -> bool {
    position.total_epochs < FIRST_EPOCHS && position.total_steps.is_power_of_two()
}

/// Whether a run of `epochs` epochs keeps a frame after the epoch that ends at this place, of a phase of `of_phase` epochs.
pub(crate) fn is_due_after_epoch(position: &Position, of_phase: u32, epochs: u32) -> bool {
    let every = epochs.div_ceil(MOST).max(1);
    position.total_epochs.is_multiple_of(every) || position.epoch == of_phase
}

/// The files of a run folder's frames, by time.
///
/// # Errors
/// A folder that cannot be read; one without frames has none.
pub fn files(run_folder: &Path) -> Result<Vec<PathBuf>, CompressError> {
    let folder = run_folder.join(FOLDER);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(fault(&folder, e.to_string())),
    };
    let mut files = vec![];
    for entry in entries {
        let path = entry.map_err(|e| fault(&folder, e.to_string()))?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The folder of a run folder's frames.
pub fn folder(run_folder: &Path) -> PathBuf {
    run_folder.join(FOLDER)
}

fn fault(path: &Path, what: String) -> CompressError {
    CompressError::Report {
        path: path.into(),
        what,
    }
}

impl Frame {
    /// The frame of layers whose weights over `threshold` count as removed; `dense` are those before training.
    pub(crate) fn new(
        time: FrameTime,
        layers: &[Layer<f32>],
        dense: &[Layer<f32>],
        threshold: f64,
    ) -> Self {
        let layers = layers.iter().zip(dense);
        let layers = layers
            .map(|(layer, dense)| LayerFrame::new(layer, dense, threshold))
            .collect();
        Self { time, layers }
    }

    /// The weights of a network as one frame, without a run.
    pub fn of_network(network: &Network) -> Self {
        let layers = network.graph.weighted_nodes().filter_map(|node| {
            let weight = network.weight(node)?.to_dense();
            (weight.shape.dims().len() >= 2).then(|| LayerFrame::of_weight(&node.name, &weight))
        });
        Self {
            time: FrameTime {
                step: 0,
                epochs: 0.0,
                phase: 1,
            },
            layers: layers.collect(),
        }
    }

    /// Writes it into a run folder.
    pub(crate) fn write(&self, run_folder: &Path) -> Result<(), CompressError> {
        let layers = self.layers.iter().map(|l| LayerMeta {
            node: l.node.clone(),
            shape: l.shape.clone(),
            left: l.left,
            scale: l.scale,
        });
        let meta = Meta {
            time: self.time,
            layers: layers.collect(),
        };
        let mut tensors = vec![];
        for layer in &self.layers {
            let mut dims = vec![layer.units.len(), layer.inputs.len()];
            dims.extend(&layer.shape[2..]);
            let name = |part: &str| format!("{}.{part}", layer.node);
            let values = bytemuck::cast_slice(&layer.values);
            tensors.push((name("weight"), Dtype::I8, dims, values));
            for (part, indices) in [("units", &layer.units), ("inputs", &layer.inputs)] {
                let bytes = bytemuck::cast_slice(indices);
                tensors.push((name(part), Dtype::U32, vec![indices.len()], bytes));
            }
        }
        let folder = folder(run_folder);
        std::fs::create_dir_all(&folder).map_err(|e| fault(&folder, e.to_string()))?;
        let file = folder.join(format!("{:08}.safetensors", self.time.step));
        let json = serde_json::to_string(&meta).map_err(|e| fault(&file, e.to_string()))?;
        write_arrays(&file, tensors, (META, json), fault)
    }

    /// Reads one of [`files`].
    ///
    /// # Errors
    /// A file that cannot be read or is no frame.
    pub fn read(file: &Path) -> Result<Self, CompressError> {
        let fail = |what: String| fault(file, what);
        let bytes = read_file(file, u64::MAX).map_err(|e| fault(file, e.without_path()))?;
        let (_, header) =
            SafeTensors::read_metadata(&bytes).map_err(|e| fault(file, e.to_string()))?;
        let meta = header.metadata().as_ref().and_then(|m| m.get(META));
        let meta = meta.ok_or_else(|| {
            fail("expected a frame of a run, got another safetensors file".into())
        })?;
        let meta: Meta = serde_json::from_str(meta).map_err(|e| fault(file, e.to_string()))?;
        let all = SafeTensors::deserialize(&bytes).map_err(|e| fault(file, e.to_string()))?;
        let mut layers = vec![];
        for layer in meta.layers {
            let tensor = |part: &str| {
                let name = format!("{}.{part}", layer.node);
                all.tensor(&name).map_err(|e| fault(file, e.to_string()))
            };
            let indices = |part: &str, most: usize| {
                let data = tensor(part)?;
                let indices = data.data().chunks_exact(4);
                let indices: Vec<u32> = indices
                    .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                    .collect();
                if indices.is_empty() {
                    let name = &layer.node;
                    return Err(fail(format!(
                        "`{name}.{part}`: expected an index, got none"
                    )));
                }
                match indices.iter().all(|i| (*i as usize) < most) {
                    true => Ok(indices),
                    false => Err(fail(format!(
                        "`{}.{part}`: expected indices below {most}, got a larger one",
                        layer.node
                    ))),
                }
            };
            let [out, inn, area @ ..] = layer.shape.as_slice() else {
                return Err(fail(format!(
                    "`{}`: expected a weight of two dimensions or more, got {:?}",
                    layer.node, layer.shape
                )));
            };
            if (layer.shape.iter())
                .try_fold(1usize, |product, n| product.checked_mul(*n))
                .is_none()
            {
                return Err(fail(format!(
                    "`{}`: expected a shape of fewer weights, got {:?}",
                    layer.node, layer.shape
                )));
            }
            let (units, inputs) = (indices("units", *out)?, indices("inputs", *inn)?);
            let values: Vec<i8> = tensor("weight")?.data().iter().map(|b| *b as i8).collect();
            let factors = [units.len(), inputs.len()].into_iter();
            let mut factors = factors.chain(area.iter().copied());
            let expected = factors.try_fold(1usize, |product, n| product.checked_mul(n));
            if expected != Some(values.len()) {
                return Err(fail(format!(
                    "`{}.weight`: expected {} units of {} inputs of {area:?}, got {} weights",
                    layer.node,
                    units.len(),
                    inputs.len(),
                    values.len()
                )));
            }
            layers.push(LayerFrame {
                node: layer.node,
                shape: layer.shape,
                left: layer.left,
                units,
                inputs,
                scale: layer.scale,
                values,
            });
        }
        let time = meta.time;
        Ok(Self { time, layers })
    }
}

impl LayerFrame {
    fn new(layer: &Layer<f32>, dense: &Layer<f32>, threshold: f64) -> Self {
        let (units, inputs) = largest(dense);
        let survivors = layer.survivors(threshold);
        let weights = layer.weights();
        let largest = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        let area = layer.area();
        let mut values = vec![REMOVED; units.len() * inputs.len() * area];
        // Where each unit and input of the whole layer is among those that the run still has.
        let place = |kept: &[u32], index: u32| kept.binary_search(&index).ok();
        let columns: Vec<_> = inputs.iter().map(|&i| place(&layer.kept_in, i)).collect();
        for (row, &unit) in units.iter().enumerate() {
            let Some(o) = place(&layer.kept_out, unit) else {
                continue;
            };
            let columns = columns.iter().enumerate();
            for (column, i) in columns.filter_map(|(column, i)| Some((column, (*i)?))) {
                for a in 0..area {
                    let at = (o * area + a) * layer.kept_in.len() + i;
                    if survivors[at] {
                        let value = (weights[at] / scale).round() as i8;
                        values[(row * inputs.len() + column) * area + a] = value.max(-127);
                    }
                }
            }
        }
        Self {
            node: layer.node.clone(),
            shape: layer.original.dims().to_vec(),
            left: survivors.iter().filter(|s| **s).count(),
            units,
            inputs,
            scale,
            values,
        }
    }

    /// A weight in PyTorch's layout, `[out, in, ..]`, whose zeros count as removed.
    fn of_weight(node: &str, weight: &Dense) -> Self {
        let shape = weight.shape.dims().to_vec();
        let area: usize = shape[2..].iter().product();
        let all = &weight.values;
        let place = |at: usize| [at / (area * shape[1]), at / area % shape[1]];
        let [units, inputs] = with_largest_weights(all, [shape[0], shape[1]], place);
        let largest = all.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        let byte = |w: f32| match w == 0.0 {
            true => REMOVED,
            false => ((w / scale).round() as i8).max(-127),
        };
        let kernels = units.iter().flat_map(|&unit| {
            let row = unit as usize * shape[1];
            let start = move |input: &u32| (row + *input as usize) * area;
            inputs.iter().map(start)
        });
        let values = kernels.flat_map(|at| all[at..at + area].iter().map(|w| byte(*w)));
        Self {
            left: all.iter().filter(|w| **w != 0.0).count(),
            node: node.to_owned(),
            values: values.collect(),
            shape,
            units,
            inputs,
            scale,
        }
    }
}

/// Units and inputs of a layer that frames keep.
fn largest(dense: &Layer<f32>) -> (Vec<u32>, Vec<u32>) {
    let (units, inputs, area) = (dense.units(), dense.kept_in.len(), dense.area());
    let place = |at: usize| [at / (area * inputs), at % inputs];
    let [units, inputs] = with_largest_weights(&dense.theta, [units, inputs], place);
    let of = |kept: &[u32], indices: Vec<u32>| indices.iter().map(|&i| kept[i as usize]).collect();
    (of(&dense.kept_out, units), of(&dense.kept_in, inputs))
}

/// Units and inputs that are kept of a weight: all, or those with the largest sums of squares, in the same shares of both. `place` gives the
/// unit and the input of each number.
fn with_largest_weights(
    weight: &[f32],
    [units, inputs]: [usize; 2],
    place: impl Fn(usize) -> [usize; 2],
) -> [Vec<u32>; 2] {
    if weight.len() <= WEIGHTS {
        return [units, inputs].map(|n| (0..n as u32).collect());
    }
    let share = (WEIGHTS as f64 / weight.len() as f64).sqrt();
    let mut squares = [vec![0.0f64; units], vec![0.0f64; inputs]];
    for (at, w) in weight.iter().enumerate() {
        let [unit, input] = place(at);
        squares[0][unit] += f64::from(w * w);
        squares[1][input] += f64::from(w * w);
    }
    squares.map(|squares| {
        let most = ((squares.len() as f64 * share) as usize).max(1);
        let mut order: Vec<u32> = (0..squares.len() as u32).collect();
        order.sort_by(|&a, &b| squares[b as usize].total_cmp(&squares[a as usize]));
        order.truncate(most);
        order.sort_unstable();
        order
    })
}
