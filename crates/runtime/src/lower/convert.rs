//! The steps lowered so far, and conversions between layouts: steps of no node, where a kernel needs a value in another layout than it has.

use std::collections::HashMap;

use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::int8::{Dequantize, Dot, Grid, Quantize, ReblockBytes};
use sparsevd_kernels::reblock::{PackBlocks, Reblock, Subsample, Unpack};
use sparsevd_kernels::reorder::Reorder;
use sparsevd_kernels::{Clamp, Isa, Layout, Pack, PackedKernel, UnpackTiles, select};
use sparsevd_model::Shape;

use super::partition::split;
use crate::lowered::{Lowered, Part, Partition, Tensor};
use crate::program::{Program, Value};
use crate::value::Rows;

/// Features of all consumers of a tile, beyond which it is packed whole: finding out what is read would take longer than it saves.
const MOST_LOOKED_AT: usize = 1 << 28;

/// The steps lowered so far, with their values.
pub(super) struct Steps {
    pub steps: Vec<Lowered>,
    pub values: Vec<Tensor>,
    isa: Isa,
    /// Elements of the free dimension.
    length: usize,
    /// Most parts into which a conversion is cut.
    parts: usize,
    /// Copies of values in other layouts.
    converted: HashMap<(Value, Layout, Rows), Value>,
}

impl Steps {
    /// No steps yet, and the values of a program, all of them [`Layout::Single`]. Conversions are cut into at most `parts` parts.
    pub fn new(program: &Program, isa: Isa, parts: usize) -> Self {
        Self {
            steps: Vec::new(),
            values: program.values.iter().map(Tensor::single).collect(),
            isa,
            length: program.length,
            parts,
            converted: HashMap::new(),
        }
    }

    /// A new value.
    pub fn add_value(&mut self, tensor: Tensor) -> Value {
        self.values.push(tensor);
        self.values.len() - 1
    }

    /// Says in which layout a step computes a value, in tiles of `rows`.
    pub fn put(&mut self, value: Value, layout: Layout, rows: Rows) {
        self.values[value] = self.values[value].with(layout, rows);
    }

    /// The copy of a value in that layout, in tiles of `rows`, or the value itself, if it is there already.
    pub fn existing(&self, value: Value, layout: Layout, rows: Rows) -> Option<Value> {
        if self.values[value].is_in(layout, rows) {
            return Some(value);
        }
        self.converted.get(&key(value, layout, rows)).copied()
    }

    /// The value in that layout, in tiles of `rows`. It is converted once for all consumers.
    pub fn converted(&mut self, value: Value, layout: Layout, rows: Rows) -> Value {
        if let Some(existing) = self.existing(value, layout, rows) {
            return existing;
        }
        let old = self.values[value].layout;
        let isa = self.isa;
        let to = self.values[value].with(layout, rows);
        let features = match old {
            Layout::Tiled => self.values[value].features,
            _ => to.features,
        };
        match (old, layout) {
            (Layout::Blocks(from), Layout::Blocks(to_blocks)) if from.regroups(&to_blocks) => self
                .convert("Reblock", value, to, &|channels| {
                    let [from, to] = [from, to_blocks].map(|b| b.with_channels(channels));
                    Box::new(Reblock::new(isa, from, to))
                }),
            (Layout::Single, Layout::Blocks(blocks)) => {
                self.convert("Pack", value, to, &|channels| {
                    let blocks = blocks.with_channels(channels);
                    Box::new(PackBlocks { isa, blocks })
                })
            }
            (Layout::Blocks(blocks), Layout::Single) => {
                self.convert("Unpack", value, to, &|channels| {
                    Box::new(Unpack::new(isa, blocks.with_channels(channels)))
                })
            }
            (Layout::Single, Layout::Tiled) => {
                self.convert("Pack", value, to, &|_| Box::new(Pack::all(isa, features)))
            }
            (Layout::Tiled, Layout::Single) => self.convert("Unpack", value, to, &|_| {
                Box::new(UnpackTiles { isa, features })
            }),
            (Layout::Blocks(from), Layout::Bytes(blocks, grid)) if from == blocks => {
                let dot = Dot::of(isa);
                self.convert("Quantize", value, to, &|channels| {
                    let blocks = blocks.with_channels(channels);
                    Box::new(Quantize::new(dot, blocks, grid))
                })
            }
            (Layout::Bytes(blocks, grid), Layout::Blocks(to_blocks)) if blocks == to_blocks => {
                let dot = Dot::of(isa);
                self.convert("Dequantize", value, to, &|channels| {
                    let blocks = blocks.with_channels(channels);
                    Box::new(Dequantize::new(dot, blocks, grid))
                })
            }
            (Layout::Bytes(from, grid), Layout::Bytes(blocks, wanted)) if grid == wanted => {
                self.subsampled_bytes(value, [from, blocks], [1, 1], grid)
            }
            // The other pairs have no kernel of their own.
            (_, Layout::Bytes(blocks, _)) | (Layout::Bytes(blocks, _), _) => {
                let floats = self.converted(value, Layout::Blocks(blocks), rows);
                self.converted(floats, layout, rows)
            }
            (Layout::Blocks(_), Layout::Blocks(_) | Layout::Tiled)
            | (Layout::Tiled, Layout::Blocks(_) | Layout::Tiled)
            | (Layout::Single, Layout::Single) => {
                let single = self.converted(value, Layout::Single, rows);
                self.converted(single, layout, rows)
            }
        }
    }

    /// Of a map in the blocks `from` one pixel in `strides` rows and columns, in the blocks `to`.
    pub fn subsampled(
        &mut self,
        value: Value,
        [from, to]: [Blocks; 2],
        strides: [usize; 2],
    ) -> Value {
        let layout = Layout::Blocks(to);
        if let Some(existing) = self.existing(value, layout, Rows::ONE) {
            return existing;
        }
        let isa = self.isa;
        let features = to.map().iter().product();
        self.convert(
            "Subsample",
            value,
            Tensor {
                features,
                layout,
                ..self.values[value]
            },
            &|channels| {
                let [from, to] = [from, to].map(|b| b.with_channels(channels));
                Box::new(Subsample::new(isa, from, to, strides))
            },
        )
    }

    /// As [`Steps::subsampled`], of a map in bytes.
    pub fn subsampled_bytes(
        &mut self,
        value: Value,
        [from, to]: [Blocks; 2],
        strides: [usize; 2],
        grid: Grid,
    ) -> Value {
        let layout = Layout::Bytes(to, grid);
        if let Some(existing) = self.existing(value, layout, Rows::ONE) {
            return existing;
        }
        let tensor = Tensor {
            features: to.map().iter().product(),
            layout,
            ..self.values[value]
        };
        let dot = Dot::of(self.isa);
        self.convert("Reblock", value, tensor, &|channels| {
            let blocks = [from, to].map(|b| b.with_channels(channels));
            Box::new(ReblockBytes::new(dot, blocks, strides, grid))
        })
    }

    /// Adds the step of a conversion, in parts for threads where the value is a map. `kernel` gives the kernel for a number of its channels.
    fn convert(
        &mut self,
        op: &str,
        value: Value,
        tensor: Tensor,
        kernel: &dyn Fn(usize) -> Box<dyn PackedKernel>,
    ) -> Value {
        let features = tensor.features;
        let channels = match (self.values[value].layout, tensor.layout) {
            (_, Layout::Blocks(blocks) | Layout::Bytes(blocks, _))
            | (Layout::Blocks(blocks) | Layout::Bytes(blocks, _), _) => blocks.map()[0],
            _ => 1,
        };
        let parts = select::parts(select::MOVE * features, self.parts.min(channels));
        let parts: Vec<_> = split(&vec![1; channels], parts)
            .into_iter()
            .map(|range| Part {
                features: match tensor.layout {
                    Layout::Blocks(blocks) => blocks.with_channels(range.len()).len(),
                    Layout::Bytes(blocks, _) => blocks.with_channels(range.len()).byte_len(),
                    _ => features / channels.max(1) * range.len(),
                },
                kernel: kernel(range.len()),
            })
            .collect();
        let rows = match (self.values[value], tensor) {
            (_, tiled) | (tiled, _) if tiled.layout == Layout::Tiled => tiled.rows,
            _ => Rows::ONE,
        };
        let partition = match &parts[..] {
            [only] if only.kernel.call_split().is_some() => {
                let moved = features.saturating_mul(rows.of(1, self.length));
                let work = moved.saturating_mul(select::MOVE);
                Partition::Call(select::parts(work, self.parts))
            }
            _ => Partition::Channels,
        };
        let output = self.add_value(tensor);
        self.steps.push(Lowered {
            name: String::new(),
            op: op.into(),
            parts,
            partition,
            clamp: Clamp::None,
            inputs: vec![value],
            output,
            output_shape: Shape::from([features]),
            rows,
            weight: None,
        });
        self.converted
            .insert(key(value, tensor.layout, tensor.rows), output);
        output
    }

    /// Adds the step that puts the elements of a value in order, into another.
    pub fn reordered(&mut self, value: Value, output: Value, kernel: Reorder) {
        let Tensor { features, rows, .. } = self.values[value];
        self.steps.push(Lowered {
            name: String::new(),
            op: "Reorder".into(),
            parts: vec![Part::whole(kernel, features)],
            partition: Partition::Rows,
            clamp: Clamp::None,
            inputs: vec![value],
            output,
            output_shape: Shape::from([features]),
            rows,
            weight: None,
        });
    }

    /// Leaves features out of tiles that no consumer reads, where all consumers are sparse layers.
    pub fn pack_only_what_is_read(&mut self) {
        let mut consumers = vec![Vec::new(); self.values.len()];
        for (i, step) in self.steps.iter().enumerate() {
            for &v in &step.inputs {
                consumers[v].push(i);
            }
        }
        for i in 0..self.steps.len() {
            let (input, packed) = (self.steps[i].inputs[0], self.steps[i].output);
            let from_single = self.values[input].layout == Layout::Single;
            let rows = self.values[packed].rows;
            if self.converted.get(&(input, Layout::Tiled, rows)) != Some(&packed) || !from_single {
                continue;
            }
            let features = self.values[packed].features;
            if features.saturating_mul(consumers[packed].len()) > MOST_LOOKED_AT {
                continue;
            }
            let mut read = vec![false; features];
            let consumers = consumers[packed].iter();
            let mut parts = consumers.flat_map(|&c| &self.steps[c].parts);
            let all_sparse = parts.all(|part| match part.kernel.reads() {
                Some(reads) => {
                    for (read, more) in read.iter_mut().zip(reads) {
                        *read |= more;
                    }
                    true
                }
                None => false,
            });
            if all_sparse {
                self.steps[i].parts[0].kernel = Box::new(Pack::some(self.isa, &read));
            }
        }
    }
}

/// Under which a copy of a value is found: rows only play a part in tiles.
fn key(value: Value, layout: Layout, rows: Rows) -> (Value, Layout, Rows) {
    match layout {
        Layout::Tiled => (value, layout, rows),
        _ => (value, layout, Rows::ONE),
    }
}
