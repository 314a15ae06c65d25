//! Linear layers of a plan: which kernel, how non-zeros are stored, and when a batch goes through tiles.

use std::ops::Range;

use sparsevd_kernels::cost::Size;
use sparsevd_kernels::dense::{Gemv, Linear};
use sparsevd_kernels::select::{self, LinearKernel};
use sparsevd_kernels::spmv::{ByActivity, InputSparse, Spmv};
use sparsevd_kernels::{Isa, Layout, Pack, Precision, spmm::Spmm};
use sparsevd_model::{Network, Op, Weights, quantised};

use crate::kernel::Kernel;
use crate::lower::{
    Builder, Choice, Lowered, Part, WeightUse, rows_of, to_csr, weights_of_rows, whole,
};
use crate::program::{Program, Step};
use crate::{PlanOptions, RuntimeError, WeightMode, WeightType};

/// The layers of a network that has no other weights.
#[derive(Debug)]
pub(crate) struct Layers {
    sizes: Vec<Size>,
    /// Inputs and outputs of the network.
    edge: usize,
}

/// The linear layers of a network, or `None` where other layers have weights too.
pub(crate) fn layers(program: &Program, uses: &[Option<WeightUse>]) -> Option<Layers> {
    let mut sizes = Vec::new();
    for (step, used) in program.steps.iter().zip(uses) {
        match (&step.op, used) {
            (Op::Linear { .. }, Some(used)) => sizes.push(size(step, *used)),
            (_, Some(_)) => return None,
            (_, None) => {}
        }
    }
    let edge = program.input_shape.elements() + program.output_shape.elements();
    (!sizes.is_empty()).then_some(Layers { sizes, edge })
}

impl Layers {
    /// The layout for `n` samples.
    pub fn layout(&self, options: &PlanOptions, n: usize) -> Layout {
        let sparse = options.weights == WeightMode::Sparse;
        select::linear_layout(&options.costs, &self.sizes, sparse, self.edge, n)
    }

    /// How many of the last of `n` samples should be run one by one.
    pub fn last_alone(&self, options: &PlanOptions, n: usize) -> usize {
        select::last_alone(&options.costs, &self.sizes, self.edge, n)
    }
}

/// Spares the way into tiles to inputs that nobody reads, where all who could are sparse layers.
pub(crate) fn pack_read_features(steps: &mut [Lowered], isa: Isa) {
    for i in 0..steps.len() {
        let Kernel::Pack(_) = steps[i].parts[0].kernel else {
            continue;
        };
        let packed = steps[i].output;
        let mut read = vec![false; steps[i].parts[0].features];
        let readers = steps.iter().filter(|s| s.inputs.contains(&packed));
        let parts: Vec<&Part> = readers.flat_map(|s| &s.parts).collect();
        let all_sparse = parts.iter().all(|part| match &part.kernel {
            Kernel::Spmm(k) => {
                for (read, more) in read.iter_mut().zip(k.read()) {
                    *read |= more;
                }
                true
            }
            _ => false,
        });
        if all_sparse {
            steps[i].parts[0].kernel = Kernel::Pack(Pack::some(isa, &read));
        }
    }
}

/// Rows, columns and non-zeros of a linear step.
pub(crate) fn size(step: &Step, used: WeightUse) -> Size {
    let rows = step.output_shape.elements();
    Size {
        rows,
        cols: used.elements / rows.max(1),
        nonzeros: used.nonzeros,
        precision: used.precision,
    }
}

/// How the non-zeros of a weight are stored.
pub(crate) fn precision(
    network: &Network,
    name: &str,
    weight: &Weights,
    options: &PlanOptions,
) -> Result<Precision, RuntimeError> {
    let largest = || weight.values().iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    Ok(match options.values {
        WeightType::F32 => Precision::F32,
        WeightType::Bf16 => Precision::Bf16,
        WeightType::F16 if largest() <= 65_504.0 => Precision::F16,
        WeightType::F16 => {
            return Err(RuntimeError::Option {
                option: "values",
                expected: format!("a type that holds the weights of `{name}`"),
                got: format!("f16, which ends at 65504, for {}", largest()),
            });
        }
        WeightType::I8 => {
            // Weights that are on a grid already keep it, and so every bit.
            let on_grid = network.scales.get(name).filter(|&&scale| {
                quantised::grid(weight.values(), scale)
                    .is_ok_and(|levels| levels.iter().all(|q| q.abs() <= 127))
            });
            let scale = on_grid.copied().unwrap_or_else(|| largest() / 127.0);
            let scale = if scale > 0.0 { scale } else { 1.0 };
            Precision::I8 { scale }
        }
    })
}

impl Choice {
    /// Kernel of a linear step; `None` for any other.
    pub fn linear(&self, step: &Step, used: Option<WeightUse>) -> Option<LinearKernel> {
        let (Op::Linear { .. }, Some(used)) = (&step.op, used) else {
            return None;
        };
        Some(match (self.sparse, self.layout) {
            // A dense plan is dense whatever the costs.
            (false, Layout::Tiled) => LinearKernel::Gemm,
            (false, _) => LinearKernel::Gemv,
            (true, layout) => select::linear(&self.costs, size(step, used), layout, self.share),
        })
    }
}

impl Builder<'_> {
    /// The kernel of a linear step, packed, and its layout.
    pub fn linear(
        &self,
        step: &Step,
        used: Option<WeightUse>,
        weight: &str,
        bias: Option<&str>,
    ) -> Result<(Vec<Part>, Layout), RuntimeError> {
        let isa = self.options.isa;
        let kernel = self.choice.linear(step, used);
        let weight = &self.network.tensors[weight];
        let bias = self.bias(bias);
        let bias = bias.as_deref();
        let precision = used.map_or(Precision::F32, |u| u.precision);
        let parts = |sparse, layout, pack: &dyn Fn(Range<usize>) -> Kernel| {
            let parts: Vec<Part> = self
                .ranges(&weights_of_rows(weight, sparse), used, layout)
                .into_iter()
                .map(|r| Part {
                    features: r.len(),
                    kernel: pack(r),
                })
                .collect();
            (parts, layout)
        };
        Ok(match kernel {
            Some(LinearKernel::Spmv) => {
                let csr = to_csr(weight);
                let pack = |r| Kernel::Spmv(Spmv::pack_with(isa, &csr, bias, r, precision));
                let (mut all, layout) = parts(true, Layout::Single, &pack);
                let share = self.activity.get(&step.name).copied();
                let most = used
                    .and_then(|u| select::most_active(&self.choice.costs, size(step, u), share));
                if let (
                    Some(most),
                    [
                        Part {
                            kernel: Kernel::Spmv(one),
                            ..
                        },
                    ],
                ) = (most, &all[..])
                {
                    let active = InputSparse::pack(isa, &csr, bias);
                    let both = ByActivity::new(one.clone(), active, most);
                    all = vec![whole(Kernel::ByActivity(both), step)];
                }
                (all, layout)
            }
            Some(LinearKernel::Spmm) => {
                let csr = to_csr(weight);
                let pack = |r| Kernel::Spmm(Spmm::pack_with(isa, &csr, bias, r, precision));
                parts(true, Layout::Tiled, &pack)
            }
            Some(LinearKernel::Gemv) => {
                let dense = weight.to_dense();
                let pack = |r: Range<usize>| {
                    let bias = bias.map(|b| &b[r.clone()]);
                    Kernel::Gemv(Gemv::pack(isa, &rows_of(&dense, r), bias))
                };
                parts(false, Layout::Single, &pack)
            }
            _ => {
                let dense = weight.to_dense();
                let kernel = Kernel::Gemm(Linear::pack(isa, &dense, bias));
                (vec![whole(kernel, step)], Layout::Tiled)
            }
        })
    }
}
