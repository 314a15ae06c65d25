//! From a program to kernels: which kernel each step gets, and in which layout its values lie.

use std::collections::HashMap;
use std::ops::Range;

use sparsevd_kernels::dense::{Conv, Gemv, Linear};
use sparsevd_kernels::pool::{Pool, Reduction};
use sparsevd_kernels::select::{self, LinearKernel};
use sparsevd_kernels::{
    Activation, LANES, Layout, conv::SparseConv, spmm::Spmm, spmv::InputSparse, spmv::Spmv,
};
use sparsevd_model::{Csr, Dense, Network, Op, Shape, Weights, Window};

use crate::kernel::Kernel;
use crate::program::{Program, Step, Value};
use crate::{PlanOptions, RuntimeError, WeightMode};

/// Measured share of non-zero inputs of linear layers, by node.
pub(crate) type Activity = HashMap<String, f64>;

/// A value of a lowered program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tensor {
    /// Elements per sample.
    pub features: usize,
    pub layout: Layout,
}

impl Tensor {
    /// Elements for `n` samples.
    pub fn len(self, n: usize) -> usize {
        self.features * n.next_multiple_of(self.layout.samples())
    }
}

/// A kernel with what it reads and makes.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// Name of the node it came from.
    pub name: String,
    /// What the node computes, for people: `Linear+Relu`.
    pub op: String,
    /// The kernel, in parts that make consecutive rows of one output where threads share it.
    pub parts: Vec<Part>,
    pub activation: Activation,
    pub inputs: Vec<Value>,
    pub output: Value,
    pub output_shape: Shape,
    /// The weight it has: elements, non-zeros, and how often each is used per sample.
    pub weight: Option<WeightUse>,
}

/// A kernel that makes the first or next rows of an output.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub kernel: Kernel,
    /// Elements it makes per sample.
    pub features: usize,
}

/// Size and use of a weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeightUse {
    pub elements: usize,
    pub nonzeros: usize,
    /// Output pixels: how often each weight is multiplied per sample.
    pub pixels: usize,
}

impl Lowered {
    pub fn in_place(&self) -> bool {
        self.parts[0].kernel.in_place()
    }

    /// Elements of scratch of all parts together.
    pub fn scratch_len(&self) -> usize {
        self.parts.iter().map(|p| scratch_of(&p.kernel)).sum()
    }
}

/// Scratch of a kernel in whole cache lines, so that parts do not share one.
pub(crate) fn scratch_of(kernel: &Kernel) -> usize {
    kernel.scratch_len().next_multiple_of(LANES)
}

/// Kernels in an order in which they can run.
#[derive(Debug)]
pub(crate) struct Lowering {
    pub steps: Vec<Lowered>,
    pub values: Vec<Tensor>,
    pub input: Value,
    pub output: Value,
    /// Samples that go through all steps together.
    pub block: usize,
    /// Threads that are worth waking.
    pub threads: usize,
}

/// Chooses layouts and kernels and packs the weights.
pub(crate) fn lower(
    program: &Program,
    network: &Network,
    options: &PlanOptions,
    activity: &Activity,
) -> Result<Lowering, RuntimeError> {
    let uses: Vec<Option<WeightUse>> = program
        .steps
        .iter()
        .map(|s| weight_use(s, network))
        .collect();
    let sparse = options.weights == WeightMode::Sparse;
    let work: usize = uses
        .iter()
        .flatten()
        .map(|u| if sparse { u.nonzeros } else { u.elements } * u.pixels * options.batch)
        .sum();
    let threads = select::threads(work, options.threads);
    let share = options.batch.div_ceil(threads);
    let layout = select::batch_layout(share);
    let choice = Choice {
        sparse,
        layout,
        share,
    };
    let dense_weights: usize = program
        .steps
        .iter()
        .zip(&uses)
        .filter(|(s, u)| choice.linear(s, **u) == Some(LinearKernel::Gemm))
        .filter_map(|(_, u)| u.map(|u| u.elements))
        .sum();
    // Samples go through the network a tile at a time, so that activations stay in the nearest caches; only where dense weights
    // fall out of all caches between two tiles do more samples share one pass over them.
    let block = match layout {
        Layout::Single => share,
        Layout::Tiled if select::tiles_share_weights(dense_weights) => {
            share.next_multiple_of(LANES)
        }
        Layout::Tiled => LANES,
    };
    // Threads split a batch by blocks, which is free; where there are too few, large layers are split by rows.
    let parts = if options.batch.div_ceil(block) < threads {
        threads
    } else {
        1
    };
    let mut build = Builder {
        network,
        options,
        activity,
        choice,
        block,
        parts,
        steps: Vec::new(),
        values: program
            .elements
            .iter()
            .map(|&features| Tensor {
                features,
                layout: Layout::Single,
            })
            .collect(),
        converted: HashMap::new(),
    };
    for (step, weight) in program.steps.iter().zip(&uses) {
        build.step(step, *weight)?;
    }
    let output = build.converted(program.output, Layout::Single);
    Ok(Lowering {
        steps: build.steps,
        values: build.values,
        input: program.input,
        output,
        block,
        threads,
    })
}

fn weight_use(step: &Step, network: &Network) -> Option<WeightUse> {
    let weight = network.tensors.get(step.op.weight()?)?;
    let pixels = match step.op {
        Op::Conv { .. } => step.output_shape.dims()[1..].iter().product(),
        _ => 1,
    };
    Some(WeightUse {
        elements: weight.shape().elements(),
        nonzeros: weight.nonzeros(),
        pixels,
    })
}

impl WeightUse {
    fn density(self) -> f64 {
        self.nonzeros as f64 / self.elements.max(1) as f64
    }
}

/// What decides about kernels.
#[derive(Debug, Clone, Copy)]
struct Choice {
    sparse: bool,
    layout: Layout,
    /// Samples of one thread.
    share: usize,
}

impl Choice {
    /// Kernel of a linear step; `None` for any other.
    fn linear(self, step: &Step, weight: Option<WeightUse>) -> Option<LinearKernel> {
        let (Op::Linear { .. }, Some(weight)) = (&step.op, weight) else {
            return None;
        };
        let density = if self.sparse { weight.density() } else { 1.0 };
        let (rows, cols) = (
            step.output_shape.elements(),
            weight.elements / step.output_shape.elements().max(1),
        );
        Some(match select::linear(density, rows, cols, self.share) {
            // A dense plan is dense wherever the thresholds lie.
            LinearKernel::Spmv if !self.sparse => LinearKernel::Gemv,
            LinearKernel::Spmm if !self.sparse => LinearKernel::Gemm,
            kernel => kernel,
        })
    }
}

struct Builder<'a> {
    network: &'a Network,
    options: &'a PlanOptions,
    activity: &'a Activity,
    choice: Choice,
    block: usize,
    /// Parts into which large layers are cut for threads.
    parts: usize,
    steps: Vec<Lowered>,
    values: Vec<Tensor>,
    /// Copies of values in the other layout.
    converted: HashMap<Value, Value>,
}

impl Builder<'_> {
    fn step(&mut self, step: &Step, weight: Option<WeightUse>) -> Result<(), RuntimeError> {
        let (parts, layout) = match &step.op {
            Op::Linear { weight: w, bias } => self.linear(step, weight, w, bias.as_deref())?,
            Op::Conv {
                weight: w,
                bias,
                window,
                groups,
            } => self.conv(step, weight, w, bias.as_deref(), window, *groups)?,
            Op::MaxPool { window } => self.pool(step, Reduction::Max, Some(window))?,
            Op::AveragePool { window } => self.pool(step, Reduction::Average, Some(window))?,
            Op::GlobalAveragePool => self.pool(step, Reduction::Average, None)?,
            Op::Relu => (
                vec![whole(Kernel::Relu, step)],
                self.values[step.inputs[0]].layout,
            ),
            Op::Add => {
                // Sums take whatever layout the inputs have, the plan's own where they differ.
                let [a, b] = [0, 1].map(|i| self.values[step.inputs[i]].layout);
                let layout = if a == b { a } else { self.choice.layout };
                (vec![whole(Kernel::Add, step)], layout)
            }
            Op::Softmax => {
                let features = step.output_shape.elements();
                let kernel = Kernel::Softmax { features };
                (vec![whole(kernel, step)], Layout::Single)
            }
            other => {
                return Err(RuntimeError::Unsupported {
                    network: self.network.graph.name.clone(),
                    what: "operator",
                    expected: "one that the runtime has".into(),
                    got: format!("{} (node `{}`)", other.name(), step.name),
                });
            }
        };
        let inputs = step
            .inputs
            .iter()
            .map(|&v| self.converted(v, layout))
            .collect();
        self.values[step.output].layout = layout;
        self.steps.push(Lowered {
            name: step.name.clone(),
            op: format!("{}{}", step.op.name(), if step.relu { "+Relu" } else { "" }),
            parts,
            activation: if step.relu {
                Activation::Relu
            } else {
                Activation::None
            },
            inputs,
            output: step.output,
            output_shape: step.output_shape.clone(),
            weight,
        });
        Ok(())
    }

    fn linear(
        &self,
        step: &Step,
        used: Option<WeightUse>,
        weight: &str,
        bias: Option<&str>,
    ) -> Result<(Vec<Part>, Layout), RuntimeError> {
        let isa = self.options.isa;
        let rows = step.output_shape.elements();
        let kernel = self.choice.linear(step, used);
        let weight = &self.network.tensors[weight];
        let bias = self.bias(bias);
        let bias = bias.as_deref();
        let parts = |layout, pack: &dyn Fn(Range<usize>) -> Kernel| {
            let parts = self
                .ranges(rows, used, layout)
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
                let density = used.map_or(1.0, WeightUse::density);
                let skips_zeros = self
                    .activity
                    .get(&step.name)
                    .is_some_and(|&active| select::prefer_input_sparse(density, active));
                if skips_zeros {
                    let kernel = Kernel::InputSparse(InputSparse::pack(isa, &csr, bias));
                    return Ok((vec![whole(kernel, step)], Layout::Single));
                }
                let pack = |r| Kernel::Spmv(Spmv::pack_rows(isa, &csr, bias, r));
                parts(Layout::Single, &pack)
            }
            Some(LinearKernel::Spmm) => {
                let csr = to_csr(weight);
                let pack = |r| Kernel::Spmm(Spmm::pack_rows(isa, &csr, bias, r));
                parts(Layout::Tiled, &pack)
            }
            Some(LinearKernel::Gemv) => {
                let dense = weight.to_dense();
                let pack = |r: Range<usize>| {
                    let bias = bias.map(|b| &b[r.clone()]);
                    Kernel::Gemv(Gemv::pack(isa, &rows_of(&dense, r), bias))
                };
                parts(Layout::Single, &pack)
            }
            _ => {
                let dense = weight.to_dense();
                let kernel = Kernel::Gemm(Linear::pack(isa, &dense, bias));
                (vec![whole(kernel, step)], Layout::Tiled)
            }
        })
    }

    fn conv(
        &self,
        step: &Step,
        used: Option<WeightUse>,
        weight: &str,
        bias: Option<&str>,
        window: &Window,
        groups: usize,
    ) -> Result<(Vec<Part>, Layout), RuntimeError> {
        let isa = self.options.isa;
        let weight = &self.network.tensors[weight];
        let shape = weight.shape();
        let (&[out, per_group, kh, kw], &[c, h, w]) = (shape.dims(), step.input_shape.dims())
        else {
            return Err(self.no_map(step));
        };
        let (shape, input) = ([out, per_group, kh, kw], [c, h, w]);
        let bias = self.bias(bias);
        let bias = bias.as_deref();
        let pixels = used.map_or(1, |u| u.pixels);
        let density = used.map_or(1.0, WeightUse::density);
        let sparse = self.choice.sparse
            && select::prefer_sparse_conv(density, per_group, groups, self.choice.share);
        if sparse {
            let csr = to_csr(weight);
            let layout = self.choice.layout;
            let parts = self
                .ranges(out, used, layout)
                .into_iter()
                .map(|r| Part {
                    features: r.len() * pixels,
                    kernel: Kernel::SparseConv(SparseConv::pack_channels(
                        isa, layout, &csr, shape, bias, window, groups, input, r,
                    )),
                })
                .collect();
            return Ok((parts, layout));
        }
        let dense = weight.to_dense();
        // With groups a range of channels reads a range of the input; such layers are small and stay whole.
        let ranges = if groups == 1 {
            self.ranges(out, used, Layout::Single)
        } else {
            std::iter::once(0..out).collect()
        };
        let parts = ranges
            .into_iter()
            .map(|r| Part {
                features: r.len() * pixels,
                kernel: Kernel::DenseConv(Conv::pack(
                    isa,
                    &rows_of(&dense, r.clone()),
                    bias.map(|b| &b[r]),
                    window,
                    groups,
                    input,
                )),
            })
            .collect();
        Ok((parts, Layout::Single))
    }

    fn pool(
        &self,
        step: &Step,
        reduction: Reduction,
        window: Option<&Window>,
    ) -> Result<(Vec<Part>, Layout), RuntimeError> {
        let isa = self.options.isa;
        let layout = self.values[step.inputs[0]].layout;
        let &[c, h, w] = step.input_shape.dims() else {
            return Err(self.no_map(step));
        };
        let pool = match window {
            Some(window) => Pool::new(isa, reduction, layout, window, [c, h, w]),
            None => Pool::global_average(isa, layout, [c, h, w]),
        };
        Ok((vec![whole(Kernel::Pool(pool, layout), step)], layout))
    }

    fn no_map(&self, step: &Step) -> RuntimeError {
        RuntimeError::Unsupported {
            network: self.network.graph.name.clone(),
            what: "input of a window",
            expected: "a feature map [channels, height, width]".into(),
            got: format!("{} (node `{}`)", step.input_shape, step.name),
        }
    }

    /// A bias as numbers, whatever form it is stored in.
    fn bias(&self, name: Option<&str>) -> Option<Vec<f32>> {
        name.and_then(|n| self.network.tensors.get(n))
            .map(|t| t.to_dense().values)
    }

    /// Rows of each part of a layer: one part, or one per thread where each has enough to do.
    ///
    /// Parts follow each other in memory only within one sample or tile, so a layer over several stays whole.
    fn ranges(&self, rows: usize, used: Option<WeightUse>, layout: Layout) -> Vec<Range<usize>> {
        if self.block > layout.samples() {
            return std::iter::once(0..rows).collect();
        }
        let work = used.map_or(0, |u| {
            let weights = if self.choice.sparse {
                u.nonzeros
            } else {
                u.elements
            };
            weights * u.pixels * layout.samples()
        });
        let parts = select::parts(work, self.parts.min(rows));
        (0..parts)
            .map(|i| rows * i / parts..rows * (i + 1) / parts)
            .collect()
    }

    /// The value in that layout, converted once however many steps read it.
    fn converted(&mut self, value: Value, layout: Layout) -> Value {
        let tensor = self.values[value];
        if tensor.layout == layout {
            return value;
        }
        if let Some(&done) = self.converted.get(&value) {
            return done;
        }
        let features = tensor.features;
        let (op, kernel) = match layout {
            Layout::Tiled => ("Pack", Kernel::Pack { features }),
            Layout::Single => ("Unpack", Kernel::Unpack { features }),
        };
        let output = self.values.len();
        self.values.push(Tensor { features, layout });
        self.steps.push(Lowered {
            name: String::new(),
            op: op.into(),
            parts: vec![Part { kernel, features }],
            activation: Activation::None,
            inputs: vec![value],
            output,
            output_shape: Shape::from([features]),
            weight: None,
        });
        self.converted.insert(value, output);
        output
    }
}

/// A kernel that makes a step's whole output.
fn whole(kernel: Kernel, step: &Step) -> Part {
    Part {
        kernel,
        features: step.output_shape.elements(),
    }
}

fn to_csr(weight: &Weights) -> Csr {
    match weight {
        Weights::Csr(csr) => csr.clone(),
        other => Csr::from_dense(&other.to_dense()),
    }
}

/// Some rows of a matrix or filter bank.
fn rows_of(dense: &Dense, rows: Range<usize>) -> Dense {
    let (_, cols) = dense.shape.matrix();
    let mut dims = dense.shape.dims().to_vec();
    if let Some(first) = dims.first_mut() {
        *first = rows.len();
    }
    Dense::new(
        Shape(dims),
        dense.values[rows.start * cols..rows.end * cols].to_vec(),
    )
}
