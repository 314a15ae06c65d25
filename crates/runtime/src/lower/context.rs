//! What the files of the operators are told about the plan.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use sparsevd_kernels::int8::{Dot, Grid, Quantization};
use sparsevd_kernels::{Isa, Layout, select};
use sparsevd_model::{Csr, Int8Input, Network};

use super::batching::Batching;
use super::choice::Choice;
use super::partition::split;
use crate::error::RuntimeError;
use crate::lowered::{Tensor, WeightUse};
use crate::options::{Int8Mode, PlanOptions};
use crate::program::{Program, Step, Value};
use crate::value::Rows;

/// Measured share of non-zero inputs of linear layers, 0 to 1, by the name of the node.
pub(crate) type Activity = HashMap<String, f64>;

/// An int8 layer.
#[derive(Debug)]
pub(super) struct Bytes {
    pub dot: Dot,
    pub input: Int8Input,
    pub levels: Csr,
    /// What the sum of each row is multiplied by, and what is then added.
    scale: Vec<f32>,
    offset: Vec<f32>,
}

impl Bytes {
    /// The grid of the input. Convolutions have one.
    pub fn grid(&self) -> Option<Grid> {
        self.input.grid().map(Grid::from)
    }

    pub fn quantization(&self) -> Quantization<'_> {
        Quantization {
            zero_point: self.input.zero_point(),
            scale: &self.scale,
            offset: &self.offset,
        }
    }
}

/// The plan so far.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub network: &'a Network,
    pub options: &'a PlanOptions,
    pub activity: &'a Activity,
    pub batching: &'a Batching,
    /// The halo that the consumers of each value need.
    pub halos: &'a [[usize; 4]],
    /// The grid of each value that should be written in bytes.
    pub byte_grids: &'a [Option<Grid>],
    /// Values that depthwise convolutions read.
    pub read_by_depthwise: &'a HashSet<Value>,
    pub program: &'a Program,
    /// Values of the program and of conversions. The layouts are those of values that steps before this one compute.
    pub values: &'a [Tensor],
}

impl Context<'_> {
    pub fn isa(&self) -> Isa {
        self.options.isa
    }

    pub fn choice(&self) -> &Choice {
        &self.batching.choice
    }

    /// The layout of a value, or, of one in bytes, that of the floats that it is converted to.
    pub fn layout(&self, value: Value) -> Layout {
        match self.values[value].layout {
            Layout::Bytes(blocks, _) => Layout::Blocks(blocks),
            layout => layout,
        }
    }

    /// The layout of a step whose kernel has several: that of its inputs. Where they differ, that of the first one in blocks, or the plan's own;
    /// blocks only where the kernel `takes_blocks`.
    pub fn layout_of_inputs(&self, step: &Step, takes_blocks: bool) -> Layout {
        let layouts = || step.inputs.iter().map(|&v| self.layout(v));
        let own = self.choice().layout;
        let first = layouts().next().unwrap_or(own);
        let blocks = layouts().find(|l| matches!(l, Layout::Blocks(_)));
        match blocks {
            Some(blocks) if takes_blocks => blocks,
            Some(_) => Layout::Single,
            None if layouts().all(|l| l == first) => first,
            None => own,
        }
    }

    /// The layout of a step whose kernel has several and changes each number by itself, as [`Context::layout_of_inputs`], and the rows of its
    /// tiles: those of its inputs.
    pub fn form_of_inputs(&self, step: &Step, takes_blocks: bool) -> (Layout, Rows) {
        let layout = self.layout_of_inputs(step, takes_blocks);
        let mut tiled =
            (step.inputs.iter().map(|&v| self.values[v])).filter(|t| t.layout == Layout::Tiled);
        let rows = tiled.next().map_or(self.natural_rows(step), |t| t.rows);
        (layout, rows)
    }

    /// The rows of a kernel that computes the output of a step in the fewest parts whose length is known.
    pub fn natural_rows(&self, step: &Step) -> Rows {
        self.program.values[step.output].rows()
    }

    /// The vectors along the last dimension of a step's output.
    pub fn vectors(&self, step: &Step) -> Rows {
        let value = &self.program.values[step.output];
        value.rows_before(value.shape.dims().len().saturating_sub(1))
    }

    /// A bias as numbers, in whatever form it is stored.
    pub fn bias(&self, name: Option<&str>) -> Option<Vec<f32>> {
        name.and_then(|n| self.network.tensors.get(n))
            .map(|t| t.to_dense().values)
    }

    /// Rows of each part of a layer: one part, or one for each thread where each has enough to do. `weights` are those of each row that are
    /// multiplied; all parts have about the same number of them.
    ///
    /// Parts follow each other in memory only within one row or tile, so a layer over several stays whole.
    pub fn ranges(
        &self,
        weights: &[usize],
        used: Option<WeightUse>,
        layout: Layout,
        rows: Rows,
    ) -> Vec<Range<usize>> {
        if rows.of(self.batching.block, self.program.length) > layout.samples() {
            return std::iter::once(0..weights.len()).collect();
        }
        let pixels = used.map_or(0, |u| u.pixels);
        let work: usize = weights.iter().sum::<usize>() * pixels * layout.samples();
        let most = self.batching.parts.min(weights.len());
        split(weights, select::parts(work, most))
    }

    /// Whether layers run in int8 that are not expected to be faster so.
    pub fn int8_at_any_cost(&self) -> bool {
        self.options.int8 == Int8Mode::Always
    }

    /// What a step computes in int8; `None` where it has no grids, the plan is dense, or the options say never.
    ///
    /// # Errors
    /// When its weight is off the grids of its rows.
    pub fn bytes(&self, step: &Step) -> Result<Option<Bytes>, RuntimeError> {
        if !self.choice().sparse || self.options.int8 == Int8Mode::Never {
            return Ok(None);
        }
        let Some(weight) = step.op.weight() else {
            return Ok(None);
        };
        let Some(layer) = self.network.int8_layer(&step.name, weight)? else {
            return Ok(None);
        };
        let scale = layer
            .rows
            .iter()
            .map(|row| row * layer.input.common_scale());
        Ok(Some(Bytes {
            dot: Dot::of(self.isa()),
            input: layer.input,
            scale: scale.collect(),
            offset: self
                .bias(step.op.bias())
                .unwrap_or_else(|| vec![0.0; layer.rows.len()]),
            levels: layer.levels,
        }))
    }

    /// The runtime has no kernel for the operator of this step.
    pub fn unsupported(&self, step: &Step) -> RuntimeError {
        RuntimeError::Unsupported {
            network: self.network.graph.name.clone(),
            what: "operator",
            expected: "one that the runtime has".into(),
            got: format!("{} (node `{}`)", step.op.name(), step.name),
        }
    }

    /// The input of this step is not a map, or the kernel is not two-dimensional.
    pub fn no_map(&self, step: &Step) -> RuntimeError {
        RuntimeError::Unsupported {
            network: self.network.graph.name.clone(),
            what: "input of a window",
            expected: "a feature map [channels, height, width]".into(),
            got: format!("{} (node `{}`)", step.input_shape, step.name),
        }
    }
}
