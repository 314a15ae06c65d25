//! Convolutions in int8: their candidates, and which of the ways to multiply is expected to be the fastest.

use std::ops::Range;
use std::rc::Rc;

use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::int8::{Grid, Multiplied};
use sparsevd_kernels::kernel::InputSplit;
use sparsevd_kernels::pool_blocks::BlockPool;
use sparsevd_kernels::{LANES, Layout, int8, select};
use sparsevd_model::Weights;

use super::Layer;
use crate::lower::candidate::Candidate;
use crate::lower::conv_geometry::{Geometry, InBlocks, image_fits};
use crate::lower::weights::rows_of;
use crate::lowered::Part;
use crate::program::FusedPool;

/// The grids of what an int8 convolution reads and writes in bytes; `None` for floats.
#[derive(Clone, Copy)]
struct Forms {
    input: Option<Grid>,
    residual: Option<Grid>,
    output: Option<Grid>,
}

/// How an int8 convolution is multiplied.
#[derive(Clone, Copy)]
enum Way {
    /// By lines of sixteen pixels ([`int8::Conv`]).
    Lines(Multiplied),
    /// All weights, four columns of a window at a time ([`int8::ColumnConv`]).
    Columns,
}

impl<'a> Layer<'a> {
    /// In bytes, with a pooling to blocks of its output, where that is the last argument.
    pub(super) fn of_bytes(
        self: &Rc<Self>,
        layouts: [Layout; 2],
        geometry: &Geometry,
        blocks: [Blocks; 2],
        pooled: Option<Blocks>,
    ) -> Option<Candidate<'a>> {
        let bytes = self.bytes.as_ref()?;
        let grid = bytes.grid()?;
        let forms = if blocks[1].is_tile() {
            Forms {
                input: None,
                residual: None,
                output: None,
            }
        } else {
            self.forms(grid, blocks[1], layouts[1], pooled.is_some())
        };
        let [input, output] = layouts;
        let in_form = |form: Option<Grid>, blocks: Blocks, floats: Layout| match form {
            Some(grid) => Layout::Bytes(blocks, grid),
            None => floats,
        };
        let residual = in_form(forms.residual, blocks[1], output);
        let input = in_form(forms.input, blocks[0], input);
        let output = in_form(forms.output, pooled.unwrap_or(blocks[1]), output);
        let (layer, geometry) = (Rc::clone(self), geometry.clone());
        Some(Candidate {
            pools: pooled.is_some(),
            residual,
            pack: Box::new(move || layer.pack_bytes(&geometry, blocks, pooled, forms)),
            ..Candidate::between([input, output], Vec::new)
        })
    }

    /// In which forms an int8 convolution over blocks, whose output in floats has the layout `floats`, reads and writes values.
    fn forms(&self, input: Grid, output: Blocks, floats: Layout, pools: bool) -> Forms {
        let context = &self.context;
        let residual = self.residual.map(|v| context.values[v].layout);
        let (onto, added) = match residual {
            None => (None, true),
            Some(Layout::Bytes(blocks, grid)) if blocks == output => (Some(grid), true),
            Some(layout) => (None, layout == floats),
        };
        let value = if pools {
            self.pooled
        } else {
            Some(self.output)
        };
        let grid = value.and_then(|value| context.byte_grids[value]);
        Forms {
            input: Some(input),
            residual: onto,
            // A sum that the kernel cannot compute is one of floats.
            output: grid.filter(|_| added),
        }
    }

    /// `None` where the pooling is not possible, the border would be most of the image, or that is not expected to be faster and nobody asked for it.
    fn pack_bytes(
        &self,
        geometry: &Geometry,
        blocks: [Blocks; 2],
        pooled: Option<Blocks>,
        forms: Forms,
    ) -> Option<Vec<Part>> {
        let bytes = self.bytes.as_ref()?;
        if blocks[1].is_tile() && !image_fits(&geometry.window, blocks) {
            return None;
        }
        let layout = match blocks[1].is_tile() {
            true => Layout::Tiled,
            false => Layout::Single,
        };
        let (costs, grid) = (&self.context.choice().costs, bytes.grid()?);
        let pack_lines = |multiplied: Multiplied, r: Range<usize>| {
            let mut conv = int8::Conv::pack_channels(
                (self.isa, bytes.dot),
                multiplied,
                &bytes.levels,
                self.shape,
                grid,
                bytes.quantization(),
                &geometry.window,
                self.groups,
                blocks,
                r,
            );
            if let Some(output) = pooled {
                conv = conv.pooled(&geometry.window, output)?;
            }
            if forms.input.is_some() {
                conv = conv.reading_bytes()?;
            }
            if let Some(grid) = forms.residual {
                conv = conv.onto_bytes(grid);
            }
            if let Some(grid) = forms.output {
                conv = conv.writing_bytes(grid);
            }
            let features = conv.output_len() / layout.samples();
            Some((conv.unit_ns(costs), Part::whole(conv, features)))
        };
        let pack = |way: Way, r: Range<usize>| match way {
            Way::Lines(multiplied) => pack_lines(multiplied, r),
            Way::Columns => {
                let blocks = [blocks[0], blocks[1].with_channels(r.len())];
                self.pack_columns(geometry, blocks, r, forms.output, InputSplit::Whole)
            }
        };
        let multiplies_all = self.groups == 1
            && select::may_store_all(self.shape.iter().product(), bytes.levels.nonzeros());
        // Larger maps have strips whose lanes are full. Vectors have whole steps of channels.
        let looks_up = self.groups == 1
            && self.sparse
            && self.shape[1] >= LANES
            && bytes.dot.looks_up()
            && blocks[1].lines() <= int8::SAMPLES / LANES;
        let takes_columns = multiplies_all
            && select::few_columns(bytes.dot, [self.shape[1], self.shape[2], self.shape[3]])
            && !blocks[1].is_tile()
            && pooled.is_none()
            && self.residual.is_none();
        let ways = [
            (self.sparse, Way::Lines(Multiplied::Nonzeros)),
            (looks_up, Way::Lines(Multiplied::LookedUp)),
            (multiplies_all, Way::Lines(Multiplied::All)),
            (takes_columns, Way::Columns),
        ];
        let ways = ways.into_iter().filter(|(may, _)| *may);
        // As one part, so that the choice does not depend on threads.
        let packed = ways.filter_map(|(_, way)| Some((way, pack(way, 0..self.shape[0])?)));
        let (way, (ns, whole)) = packed.min_by(|(_, a), (_, b)| a.0.total_cmp(&b.0))?;
        let (input, output) = (blocks[0], pooled.unwrap_or(blocks[1]));
        // Lanes past the ends of small maps take as long as others.
        let lanes = blocks[1].lines() * LANES;
        let floats = match (self.used, self.sparse) {
            (Some(used), true) => {
                let over_lanes = (used.nonzeros * lanes) as f64 * self.float_ns;
                let matrix = self.matrix(geometry).filter(|_| !blocks[1].is_tile());
                let as_matrix = matrix.map(|size| costs.spmv_from_far(size));
                as_matrix.map_or(over_lanes, |ns| ns.min(over_lanes))
            }
            (Some(used), false) => (used.elements * lanes) as f64 * self.float_ns,
            (None, _) => 0.0,
        };
        if !self.prefers_bytes([ns, floats], [input, output], forms.output.is_some()) {
            return None;
        }
        let ranges = self.ranges(layout);
        if ranges.len() == 1 {
            return Some(vec![whole]);
        }
        drop(whole);
        let parts = ranges.into_iter().map(|r| Some(pack(way, r)?.1));
        parts.collect()
    }

    /// All weights of some filters in bytes, four columns of a window at a time, with the expected nanoseconds. `blocks` have the channels of the part.
    fn pack_columns(
        &self,
        geometry: &Geometry,
        blocks: [Blocks; 2],
        rows: Range<usize>,
        writes: Option<Grid>,
        split: InputSplit,
    ) -> Option<(f64, Part)> {
        let bytes = self.bytes.as_ref()?;
        let levels = Weights::Csr(bytes.levels.clone()).to_dense();
        let conv = int8::ColumnConv::pack(
            (self.isa, bytes.dot),
            &rows_of(&levels, rows.clone()),
            bytes.quantization().of_rows(rows),
            &geometry.window,
            split,
            blocks,
        );
        let conv = match writes {
            Some(grid) => conv.writing_bytes(grid),
            None => conv,
        };
        let features = conv.output_len();
        let ns = conv.unit_ns(&self.context.choice().costs);
        Some((ns, Part::whole(conv, features)))
    }

    /// Whether int8 is asked for, or expected to be faster, with the conversions that it needs: `products` are nanoseconds in int8 and in f32.
    fn prefers_bytes(
        &self,
        products: [f64; 2],
        [input, output]: [Blocks; 2],
        writes_bytes: bool,
    ) -> bool {
        let written = match writes_bytes {
            true => output.byte_len(),
            false => output.len(),
        };
        let moved = [input.byte_len() + written, input.len() + output.len()];
        let converted = match self.context.values[self.input].layout {
            Layout::Blocks(blocks) => [blocks.len(), 0],
            Layout::Bytes(blocks, _) => [0, blocks.len()],
            _ => [0, 0],
        };
        let costs = &self.context.choice().costs;
        self.context.int8_at_any_cost()
            || select::prefer_int8_conv(costs, products, moved, converted)
    }

    /// In bytes, over tiles, with the pooling; `None` where the pooling leaves pixels.
    pub(super) fn pooled_tiles_of_bytes(
        self: &Rc<Self>,
        geometry: &Geometry,
        maps: [[usize; 3]; 2],
    ) -> Option<Candidate<'a>> {
        let blocks = maps.map(Blocks::of_tile);
        let pooled = BlockPool::output(&FusedPool::window(), &blocks[1])?;
        self.of_bytes([Layout::Tiled; 2], geometry, blocks, Some(pooled))
    }

    /// The same of bytes; `None` where it has no grids.
    pub(super) fn depthwise_of_bytes(
        self: &Rc<Self>,
        in_blocks: &InBlocks,
    ) -> Option<Candidate<'a>> {
        let grid = self.bytes.as_ref()?.grid()?;
        let blocks @ [input, output] = in_blocks.blocks;
        // It cannot compute a sum.
        let writes = self.context.byte_grids[self.output].filter(|_| self.residual.is_none());
        let layouts = [
            Layout::Bytes(input, grid),
            writes.map_or(Layout::Blocks(output), |grid| Layout::Bytes(output, grid)),
        ];
        let (layer, geometry) = (Rc::clone(self), in_blocks.geometry.clone());
        Some(Candidate {
            subsample: in_blocks.subsample,
            pack: Box::new(move || layer.pack_depthwise_of_bytes(&geometry, blocks, writes)),
            ..Candidate::between(layouts, Vec::new)
        })
    }

    /// `None` where that is not expected to be faster and nobody asked for it.
    fn pack_depthwise_of_bytes(
        &self,
        geometry: &Geometry,
        blocks: [Blocks; 2],
        writes: Option<Grid>,
    ) -> Option<Vec<Part>> {
        let pack =
            |blocks, rows| self.pack_columns(geometry, blocks, rows, writes, InputSplit::Channels);
        let (ns, whole) = pack(blocks, 0..self.shape[0])?;
        let lanes = blocks[1].lines() * LANES;
        let weights: usize = self.shape.iter().product();
        let floats = (weights * lanes) as f64 * self.float_ns;
        if !self.prefers_bytes([ns, floats], blocks, writes.is_some()) {
            return None;
        }
        let parts = self.depthwise_parts(blocks, true);
        if parts.len() == 1 {
            return Some(vec![whole]);
        }
        let part = |(blocks, rows)| Some(pack(blocks, rows)?.1);
        parts.into_iter().map(part).collect()
    }
}
