//! Kernels of linear layers.

use std::ops::Range;
use std::rc::Rc;

use sparsevd_kernels::cost::Size;
use sparsevd_kernels::dense::{Gemv, Linear};
use sparsevd_kernels::int8;
use sparsevd_kernels::panel_gemm::PanelGemm;
use sparsevd_kernels::select::{self, LinearKernel};
use sparsevd_kernels::spmv::{ByActivity, InputSparse, Spmv};
use sparsevd_kernels::{Isa, Layout, PackedKernel, Precision, spmm::Spmm};
use sparsevd_model::{Csr, Op, Weights, ops};

use super::candidate::Candidate;
use super::choice::size;
use super::context::{Bytes, Context};
use super::partition::spmv_parts;
use super::weights::{rows_of, to_csr, weights_of_rows};
use crate::error::RuntimeError;
use crate::lowered::{Part, WeightUse};
use crate::program::Step;
use crate::value::Rows;

/// A linear layer that is to be packed.
struct Layer<'a> {
    context: Context<'a>,
    isa: Isa,
    weight: &'a Weights,
    bias: Option<Vec<f32>>,
    used: Option<WeightUse>,
    precision: Precision,
    /// Vectors of a sample.
    rows: Rows,
    features: usize,
}

/// One kernel, by [`select::linear`]; single vectors with many zeros also have one that skips them, and layers with int8 grids one that multiplies int8.
pub(super) fn candidates<'a>(
    context: &Context<'a>,
    step: &Step,
    used: Option<WeightUse>,
) -> Result<Vec<Candidate<'a>>, RuntimeError> {
    let Op::Linear(ops::Linear { weight, bias }) = &step.op else {
        return Err(context.unsupported(step));
    };
    let choice = context.choice();
    let layer = Rc::new(Layer {
        context: *context,
        isa: context.isa(),
        weight: &context.network.tensors[weight],
        bias: context.bias(bias.as_deref()),
        used,
        precision: used.map_or(Precision::F32, |u| u.precision),
        rows: context.vectors(step),
        features: step.output_shape.dims().last().copied().unwrap_or(1),
    });
    let one = |layout, pack: fn(&Layer<'a>) -> Vec<Part>| {
        let layer = Rc::clone(&layer);
        Candidate::new(layout, move || pack(&layer))
    };
    let kernel = choice.linear(step, used);
    let mut candidates = match kernel {
        Some(LinearKernel::Spmv) => {
            let share = context.activity.get(&step.name).copied();
            let most = used.and_then(|u| select::most_active(&choice.costs, size(step, u), share));
            let skipping = most.map(|most| {
                let layer = Rc::clone(&layer);
                Candidate::new(Layout::Single, move || layer.by_activity(most))
            });
            let all = one(Layout::Single, Layer::spmv);
            skipping.into_iter().chain([all]).collect()
        }
        Some(LinearKernel::Spmm) => vec![one(Layout::Tiled, Layer::spmm)],
        Some(LinearKernel::Gemv) => vec![one(Layout::Single, Layer::gemv)],
        Some(LinearKernel::PanelGemm) => vec![one(Layout::Single, Layer::panel_gemm)],
        Some(LinearKernel::Gemm) | None => vec![one(Layout::Tiled, Layer::gemm)],
    };
    if let (Some(bytes), Some(used), Some(kernel)) = (context.bytes(step)?, used, kernel) {
        let of_bytes = byte_candidates(&layer, bytes, size(step, used), kernel, &step.name);
        candidates.splice(0..0, of_bytes);
    }
    let over = |candidate: Candidate<'a>| candidate.over(layer.rows);
    Ok(candidates.into_iter().map(over).collect())
}

/// The kernels of a layer with int8 grids that multiply int8, where they are worth it: over tiles, or for vectors one by one. In f32 it has `kernel`.
fn byte_candidates<'a>(
    layer: &Rc<Layer<'a>>,
    bytes: Bytes,
    size: Size,
    kernel: LinearKernel,
    name: &str,
) -> Vec<Candidate<'a>> {
    let (context, bytes) = (layer.context, Rc::new(bytes));
    let costs = &context.choice().costs;
    let samples = context.batching.samples_of_call();
    let n = layer.rows.of(samples, context.program.length);
    let layout = kernel.layout();
    // Vectors of a sequence are not multiplied one by one in int8.
    let one_by_one = layout == Layout::Single && layer.rows == Rows::ONE;
    let mut candidates = Vec::new();
    if one_by_one {
        // Inputs that are not zero, where another candidate skips the others.
        let share = context.activity.get(name).copied();
        let skips = select::most_active(costs, size, share).is_some();
        let active = share.filter(|_| skips && kernel == LinearKernel::Spmv);
        let active = active.map(|share| (share * size.cols as f64).ceil() as usize);
        let (layer, bytes) = (Rc::clone(layer), Rc::clone(&bytes));
        candidates.push(Candidate {
            pack: Box::new(move || layer.bytes_of_vectors(&bytes, size, n, active)),
            ..Candidate::new(Layout::Single, Vec::new)
        });
    }
    // Places of inputs are offsets of 32 bits.
    if bytes.levels.cols() < 1 << 24 {
        let few = one_by_one && n < select::LEAST_IN_TILE;
        let scales = (bytes.dot, bytes.input);
        let worth = !few && select::prefer_int8_linear(costs, scales, size, (layout, n));
        if worth || context.int8_at_any_cost() {
            let layer = Rc::clone(layer);
            let tiled = Candidate::new(Layout::Tiled, move || layer.bytes(&bytes));
            candidates.insert(if few { candidates.len() } else { 0 }, tiled);
        }
    }
    candidates
}

impl Layer<'_> {
    /// Rows of each part.
    fn ranges(&self, sparse: bool, layout: Layout) -> Vec<Range<usize>> {
        let weights = weights_of_rows(self.weight, sparse);
        self.context.ranges(&weights, self.used, layout, self.rows)
    }

    fn parts<K: PackedKernel + 'static>(
        ranges: Vec<Range<usize>>,
        pack: impl Fn(Range<usize>) -> K,
    ) -> Vec<Part> {
        let part = |r: Range<usize>| Part::whole(pack(r.clone()), r.len());
        ranges.into_iter().map(part).collect()
    }

    /// Parts of whole groups of rows. A row then has the bits that it has in the layer as one part.
    fn spmv_parts(&self, csr: &Csr) -> Vec<Spmv> {
        let whole = Spmv::pack_with(self.isa, csr, self.bias.as_deref(), self.precision);
        spmv_parts(whole, self.ranges(true, Layout::Single).len())
    }

    fn spmv(&self) -> Vec<Part> {
        let part = |part: Spmv| {
            let rows = part.rows();
            Part::whole(part, rows)
        };
        let parts = self.spmv_parts(&to_csr(self.weight));
        parts.into_iter().map(part).collect()
    }

    /// A kernel that skips zero inputs of vectors with at most `most` non-zeros.
    fn by_activity(&self, most: usize) -> Vec<Part> {
        let csr = to_csr(self.weight);
        let bias = self.bias.as_deref();
        let part = |all: Spmv| {
            let active = match all.order() {
                None => InputSparse::pack(self.isa, &csr, bias),
                Some(rows) => InputSparse::pack_rows(self.isa, &csr, bias, rows),
            };
            let rows = all.rows();
            Part::whole(ByActivity::new(all, active, most), rows)
        };
        self.spmv_parts(&csr).into_iter().map(part).collect()
    }

    fn spmm(&self) -> Vec<Part> {
        let csr = to_csr(self.weight);
        let bias = self.bias.as_deref();
        Self::parts(self.ranges(true, Layout::Tiled), |r| {
            Spmm::pack_with(self.isa, &csr, bias, r, self.precision)
        })
    }

    fn bytes(&self, bytes: &Bytes) -> Vec<Part> {
        Self::parts(self.ranges(true, Layout::Tiled), |r| {
            let quantization = bytes.quantization();
            int8::Linear::pack_rows(bytes.dot, &bytes.levels, bytes.input, quantization, r)
        })
    }

    /// `None` where that is not expected to be faster and nobody asked for it.
    fn bytes_of_vectors(
        &self,
        bytes: &Bytes,
        size: Size,
        n: usize,
        active: Option<usize>,
    ) -> Option<Vec<Part>> {
        if !select::may_store_all(size.rows * size.cols, size.nonzeros) {
            return None;
        }
        let costs = &self.context.choice().costs;
        let pack = |rows: Range<usize>| {
            let quantization = bytes.quantization();
            int8::Spmv::pack_rows(bytes.dot, &bytes.levels, bytes.input, quantization, rows)
        };
        // As one part, so that the choice does not depend on threads.
        let whole = pack(0..size.rows);
        let worth = select::prefer_int8_spmv(costs, whole.ns(costs), size, n, active);
        if !self.context.int8_at_any_cost() && !worth {
            return None;
        }
        let ranges = self.ranges(true, Layout::Single);
        match &ranges[..] {
            [_] => Some(vec![Part::whole(whole, size.rows)]),
            _ => Some(Self::parts(ranges, pack)),
        }
    }

    fn gemv(&self) -> Vec<Part> {
        let dense = self.weight.to_dense();
        Self::parts(self.ranges(false, Layout::Single), |r| {
            let bias = self.bias.as_ref().map(|b| &b[r.clone()]);
            Gemv::pack(self.isa, &rows_of(&dense, r), bias)
        })
    }

    fn panel_gemm(&self) -> Vec<Part> {
        let dense = self.weight.to_dense();
        let kernel = PanelGemm::pack(self.isa, &dense, self.bias.as_deref());
        vec![Part::whole(kernel, self.features)]
    }

    fn gemm(&self) -> Vec<Part> {
        let dense = self.weight.to_dense();
        let kernel = Linear::pack(self.isa, &dense, self.bias.as_deref());
        vec![Part::whole(kernel, self.features)]
    }
}
