//! Running a plan.

use std::ops::{Range, RangeInclusive};
use std::sync::{Mutex, OnceLock, TryLockError};
use std::time::Duration;

use rayon::ThreadPool;
use sparsevd_kernels::LANES;
use sparsevd_kernels::kernel::Operands;
use sparsevd_kernels::spmv::active;
use sparsevd_model::memory;

use crate::arena::LINE;
use crate::arguments::{Inputs, List, Outputs, Slices, check_one};
use crate::buffers::{Bound, Operand, Place};
use crate::error::RuntimeError;
use crate::lower::Activity;
use crate::lowered::Partition;
use crate::plan::{LONGEST, Plan, PlanValue};
use crate::threads::{awake, compute, run_call, run_lines, run_parts};

/// Up to this many samples of a tile cost half a tile.
const HALF_TILE: usize = LANES / 2;

/// Workspaces that a session keeps for concurrent runs. Further concurrent runs allocate one for themselves.
const WORKSPACES: usize = 16;

/// A plan with the memory and the threads to run it.
///
/// [`Session::run`] takes `&self`: many threads may run one session at once, each in a workspace of its own. After its first
/// run, a session on one thread neither allocates nor waits for a lock, with three exceptions: `gemm-f32`, which computes dense layers over tiles, some dense
/// convolutions and products of two values, allocates its packing buffers; a network with more than eight inputs or outputs needs a list of them; and the first run of a
/// bucket of lengths of a free dimension makes a plan.
///
/// ```
/// use sparsevd_model::{presets, Dense, Network, Weights};
/// use sparsevd_runtime::{Plan, PlanOptions, Session};
///
/// let (graph, tensors) = presets::by_name("lenet-300-100").unwrap();
/// let tensors = tensors.into_iter().map(|(n, s)| (n, Weights::Dense(Dense::zeros(s)))).collect();
/// let plan = Plan::new(&Network::new(graph, tensors)?, &PlanOptions::default())?;
/// println!("{plan}");
/// let session = Session::new(plan, 1)?;
/// let mut scores = [1.0; 10];
/// session.run(1, &[0.5; 784], &mut scores)?;
/// assert_eq!(scores, [0.0; 10]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Session {
    plan: Plan,
    /// Plans for other lengths of the free dimension, by the logarithm of their longest. Each is made when it is first needed, and then read
    /// without waiting.
    others: Vec<OnceLock<Result<Plan, RuntimeError>>>,
    pool: Option<ThreadPool>,
    threads: usize,
    workspaces: Vec<Mutex<Vec<Arena>>>,
}

/// Memory of one thread for activations and scratch.
#[derive(Debug)]
struct Arena {
    /// Elements as wide as the widest type, so that every value is aligned.
    memory: Vec<u64>,
    /// First element on a cache line.
    start: usize,
}

/// Elements of an arena in a cache line.
const LINE_ELEMENTS: usize = LINE / size_of::<u64>();

impl Arena {
    fn new(bytes: usize) -> Self {
        let memory = vec![0; bytes.div_ceil(size_of::<u64>()) + LINE_ELEMENTS];
        // Only the speed of the kernels depends on the alignment.
        let start = memory.as_ptr().align_offset(LINE).min(LINE_ELEMENTS);
        Self { memory, start }
    }

    fn bytes(&self) -> usize {
        (self.memory.len() - LINE_ELEMENTS) * size_of::<u64>()
    }

    fn slice(&mut self) -> &mut [u8] {
        let end = self.memory.len() - LINE_ELEMENTS + self.start;
        bytemuck::cast_slice_mut(&mut self.memory[self.start..end])
    }
}

impl Session {
    /// Allocates memory for a plan and starts its threads, at most `threads`.
    ///
    /// The threads belong to the session. A plan for one thread ([`Plan::threads`]) runs on the thread of the caller and starts none.
    ///
    /// # Errors
    /// [`RuntimeError::Threads`] when the system cannot start the threads; [`RuntimeError::Model`] where there is no memory.
    pub fn new(plan: Plan, threads: usize) -> Result<Self, RuntimeError> {
        let others = plan.free().map_or(0, |_| LONGEST.ilog2() + 1);
        // Longer sequences may have enough work for threads.
        let most = match plan.free() {
            Some(_) => plan.options().threads,
            None => plan.threads(),
        };
        let threads = threads.min(most).max(1);
        let pool = match threads {
            1 => None,
            _ => Some(
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .thread_name(|i| format!("sparsevd-{i}"))
                    .build()
                    .map_err(|e| RuntimeError::Threads {
                        threads,
                        reason: e.to_string(),
                    })?,
            ),
        };
        let arenas = plan.arena_bytes().saturating_mul(threads);
        memory::check(|| "the values of a run".into(), arenas as u64)?;
        let workspaces: Vec<_> = (0..WORKSPACES).map(|_| Mutex::new(Vec::new())).collect();
        let session = Self {
            plan,
            others: (0..others).map(|_| OnceLock::new()).collect(),
            pool,
            threads,
            workspaces,
        };
        if let Ok(mut first) = session.workspaces[0].lock() {
            session.add_arena(&mut first, session.plan.arena_bytes());
        }
        Ok(session)
    }

    /// The plan of the session, without its memory.
    pub(crate) fn into_plan(self) -> Plan {
        self.plan
    }

    /// The plan of the session; of a network with a free dimension the first one.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// All plans made so far: of a network with a free dimension one for each bucket of lengths that have come, the first one included.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        let others = self.others.iter().filter_map(OnceLock::get);
        std::iter::once(&self.plan).chain(others.filter_map(|plan| plan.as_ref().ok()))
    }

    /// The plan for a length of the free dimension. It is made where it is not there yet.
    pub(crate) fn plan_for(&self, length: usize) -> Result<&Plan, RuntimeError> {
        let is_first = |(_, lengths): (&str, RangeInclusive<usize>)| lengths.contains(&length);
        if self.plan.free().is_none_or(is_first) {
            return Ok(&self.plan);
        }
        let bucket = length.next_power_of_two().ilog2() as usize;
        let plan = self.others[bucket].get_or_init(|| match self.plan.for_length(length) {
            Some(plan) => plan,
            None => unreachable!("a free dimension has plans for all lengths"),
        });
        plan.as_ref().map_err(RuntimeError::clone)
    }

    /// The length of the free dimension in the inputs of a run; 1 where there is none, or no sample.
    ///
    /// # Errors
    /// [`RuntimeError::FreeLength`] for an input that is not whole samples of one length.
    pub(crate) fn length(&self, batch: usize, inputs: &[&[f32]]) -> Result<usize, RuntimeError> {
        if batch == 0 || self.plan.free().is_none() {
            return Ok(1);
        }
        let mut values = self.plan.inputs().iter().zip(inputs);
        let Some((value, x)) = values.find(|(v, _)| v.tensor_type.free().is_some()) else {
            return Ok(1);
        };
        let each = batch
            .checked_mul(value.elements(1))
            .filter(|each| *each > 0);
        let length = each.filter(|each| x.len().is_multiple_of(*each));
        let length = length.map(|each| x.len() / each);
        let length = length.filter(|length| (1..=LONGEST).contains(length));
        length.ok_or_else(|| RuntimeError::FreeLength {
            name: value.name.clone(),
            batch,
            expected: value.tensor_type.to_string(),
            got: x.len(),
        })
    }

    /// Threads that a run may use.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Bytes of activations and scratch of one run, over all its threads.
    pub fn arena_bytes(&self) -> usize {
        self.plan.arena_bytes() * self.threads
    }

    /// Runs `batch` samples. Each input is `[batch][shape]` in C order with the shape of one sample ([`Plan::inputs`]), each output becomes
    /// that ([`Plan::outputs`]).
    ///
    /// The inputs say how many elements a free dimension has. A new bucket of lengths is planned first: powers of two and what is above half of
    /// them. Nothing is padded.
    ///
    /// Ids, of an input of type i32 or i64, are given as `f32`, which holds every integer up to [`sparsevd_model::MOST_IDS`] exactly.
    ///
    /// Of a network with one input, that slice is enough, and likewise of its output. Several are named, in any order:
    ///
    /// ```
    /// # use sparsevd_model::{Dense, GraphBuilder, Op};
    /// # use sparsevd_runtime::{Plan, PlanOptions, Session};
    /// # let mut b = GraphBuilder::new("sums");
    /// # let (x, y) = (b.input("x", [2]), b.input("y", [2]));
    /// # let sum = b.op("sum", Op::Add, &[&x, &y]);
    /// # let product = b.op("product", Op::Mul, &[&x, &y]);
    /// # b.output(&sum);
    /// # b.output(&product);
    /// # let network = b.network(|_, shape| Dense::zeros(shape.clone()).into())?;
    /// let session = Session::new(Plan::new(&network, &PlanOptions::default())?, 1)?;
    /// let (mut sum, mut product) = ([0.0; 2], [0.0; 2]);
    /// session.run(
    ///     1,
    ///     &[("x", &[1.0, 2.0][..]), ("y", &[3.0, 4.0])],
    ///     &mut [("sum", &mut sum[..]), ("product", &mut product)],
    /// )?;
    /// assert_eq!((sum, product), ([4.0, 6.0], [3.0, 8.0]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RuntimeError::Names`] when the names are not those of the network, [`RuntimeError::Length`] or [`RuntimeError::FreeLength`] when a
    /// slice has another length, and [`RuntimeError::Id`] for an id that numbers no row. The outputs are then unchanged.
    pub fn run<'i, 'o, 'n: 'o>(
        &self,
        batch: usize,
        inputs: impl Into<Inputs<'i>>,
        outputs: impl Into<Outputs<'o, 'n>>,
    ) -> Result<(), RuntimeError> {
        let (of_inputs, of_outputs) = (self.plan.inputs(), self.plan.outputs());
        match (inputs.into(), outputs.into()) {
            // Lists would cost a small network a tenth of its time.
            (Inputs::Only(x), Outputs::Only(y)) => {
                check_one("inputs", of_inputs)?;
                check_one("outputs", of_outputs)?;
                self.run_in_order(batch, &[x], &mut [y])
            }
            (inputs, outputs) => {
                let inputs = inputs.in_order(of_inputs)?;
                self.run_in_order(batch, &inputs, &mut outputs.in_order(of_outputs)?)
            }
        }
    }

    /// As [`Session::run`], with slices in the order of the plan.
    fn run_in_order<'a>(
        &self,
        batch: usize,
        inputs: &[&'a [f32]],
        outputs: &mut [&'a mut [f32]],
    ) -> Result<(), RuntimeError> {
        self.run_slices(Slices {
            batch,
            length: self.length(batch, inputs)?,
            inputs,
            outputs,
        })
    }

    /// As [`Session::run`], with slices whose free dimension is known.
    pub(crate) fn run_slices(&self, mut slices: Slices<'_, '_>) -> Result<(), RuntimeError> {
        self.check(&slices)?;
        // Without an element to compute, any number of samples is right.
        if slices.outputs.iter().all(|y| y.is_empty()) {
            return Ok(());
        }
        let plan = self.plan_for(slices.length)?;
        let pool = self.pool.as_ref().filter(|_| plan.threads() > 1);
        let count = slices.batch.div_ceil(plan.block);
        let shares_layers =
            || (count == 1 || plan.shares_blocks) && plan.steps.iter().any(|s| s.step.pieces() > 1);
        self.in_workspace(plan, |arenas| match pool {
            // Fewer blocks than threads: these share the large layers of one block after the other.
            Some(pool) if count < self.threads && shares_layers() => {
                pool.install(|| awake(|| blocks(plan, &mut slices, &mut arenas[0], true)));
            }
            Some(pool) if count > 1 => pool.install(|| stripes(plan, slices, arenas)),
            _ => blocks(plan, &mut slices, &mut arenas[0], false),
        });
        Ok(())
    }

    /// Memory for the outputs of `batch` samples of that length, in the order of the plan.
    ///
    /// # Errors
    /// As [`Plan::check_outputs`].
    pub(crate) fn outputs(
        &self,
        batch: usize,
        length: usize,
    ) -> Result<Vec<Vec<f32>>, RuntimeError> {
        self.plan.check_outputs(batch, length)?;
        let outputs = self.plan.outputs().iter();
        Ok(outputs
            .map(|v| vec![0.0; batch * v.elements(length)])
            .collect())
    }

    /// Checks the lengths of all slices, and the ids among the inputs.
    fn check(&self, slices: &Slices<'_, '_>) -> Result<(), RuntimeError> {
        let batch = slices.batch;
        let check = |operand, value: &PlanValue, got: usize| {
            let sample = value.elements(slices.length);
            if batch.checked_mul(sample) == Some(got) {
                return Ok(());
            }
            Err(RuntimeError::Length {
                operand,
                name: value.name.clone(),
                batch,
                expected: batch.saturating_mul(sample),
                got,
            })
        };
        for (value, x) in self.plan.inputs().iter().zip(slices.inputs) {
            check("input", value, x.len())?;
        }
        for (value, y) in self.plan.outputs().iter().zip(&*slices.outputs) {
            check("output", value, y.len())?;
        }
        self.check_ids(slices.length, slices.inputs)
    }

    /// Checks that each id among the inputs numbers a row.
    fn check_ids(&self, length: usize, inputs: &[&[f32]]) -> Result<(), RuntimeError> {
        for (value, x) in self.plan.inputs().iter().zip(inputs) {
            let Some(ids) = value.ids else { continue };
            let is_id = |x: &f32| (0.0..ids as f32).contains(x) && x.trunc() == *x;
            if let Some(at) = x.iter().position(|x| !is_id(x)) {
                return Err(RuntimeError::Id {
                    name: value.name.clone(),
                    sample: at / value.elements(length).max(1),
                    last: ids - 1,
                    got: x[at],
                });
            }
        }
        Ok(())
    }

    /// As [`Session::run`], on the thread of the caller alone. Adds the time of each step to `times`, which has an entry for each node of the plan.
    pub(crate) fn run_timed(
        &self,
        mut slices: Slices<'_, '_>,
        times: &mut [Duration],
    ) -> Result<(), RuntimeError> {
        self.check(&slices)?;
        let plan = self.plan_for(slices.length)?;
        self.in_workspace(plan, |arenas| {
            let arena = arenas[0].slice();
            for first in (0..slices.batch).step_by(plan.block) {
                let n = plan.block.min(slices.batch - first);
                in_order(plan, &plan.steps, n, |i, step, samples| {
                    let start = std::time::Instant::now();
                    step.run(samples, first, &mut slices, arena, false);
                    times[i] += start.elapsed();
                });
            }
        });
        Ok(())
    }

    /// Share of non-zero inputs of each layer that can skip zero inputs, 0 to 1, by the name of its node. The samples run one at a time, through the
    /// layers up to the last of these; at most `most(multiply-adds of a sample)` of them, at equal distances. What is behind the last whole sample is
    /// ignored.
    pub(crate) fn activity(
        &self,
        samples: Inputs<'_>,
        most: impl Fn(usize) -> usize,
    ) -> Result<Activity, RuntimeError> {
        let inputs = samples.in_order(self.plan.inputs())?;
        let length = self.plan.options().length;
        self.check_ids(length, &inputs)?;
        let elements = |values: &[PlanValue]| -> Vec<usize> {
            values.iter().map(|v| v.elements(length)).collect()
        };
        let lengths = elements(self.plan.inputs());
        let whole = inputs.iter().zip(&lengths);
        let given = whole.map(|(x, &n)| x.len() / n.max(1)).min().unwrap_or(0);
        let last = self.plan.steps.iter().rposition(Bound::skips_zero_inputs);
        let (Some(last), true) = (last, given > 0) else {
            return Ok(Activity::new());
        };
        let steps = &self.plan.steps[..=last];
        let each = steps.iter().map(Bound::multiply_adds);
        let count = given.min(most(each.fold(0, usize::saturating_add)));
        let mut outputs: Vec<Vec<f32>> = elements(self.plan.outputs())
            .into_iter()
            .map(|n| vec![0.0; n])
            .collect();
        let isa = self.plan.options().isa;
        let mut sums: Vec<f64> = vec![0.0; steps.len()];
        self.in_workspace(&self.plan, |arenas| {
            let arena = arenas[0].slice();
            for sample in (0..count).map(|i| i * given / count) {
                let x = inputs.iter().zip(&lengths);
                let mut slices = Slices {
                    batch: 1,
                    length,
                    inputs: &List::from_iter(x.map(|(x, &n)| &x[sample * n..][..n])),
                    outputs: &mut List::from_iter(outputs.iter_mut().map(Vec::as_mut_slice)),
                };
                for (step, sum) in steps.iter().zip(&mut sums) {
                    if step.skips_zero_inputs() {
                        *sum += active(isa, step.operands(0..1, 0, &mut slices, arena).x);
                    }
                    step.run(0..1, 0, &mut slices, arena, false);
                }
            }
        });
        Ok(steps
            .iter()
            .zip(sums)
            .filter(|(step, _)| step.skips_zero_inputs())
            .map(|(step, sum)| (step.step.name.clone(), sum / count as f64))
            .collect())
    }

    /// Calls `run` with a workspace that no other run uses. Finding a free one takes one compare-and-swap.
    fn in_workspace(&self, plan: &Plan, run: impl FnOnce(&mut [Arena])) {
        for workspace in &self.workspaces {
            let mut arenas = match workspace.try_lock() {
                Ok(guard) => guard,
                // A run writes each value before it reads it, so what a panic left in an arena does not matter.
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            self.add_arena(&mut arenas, plan.arena_bytes());
            return run(&mut arenas);
        }
        let mut arenas = Vec::new();
        self.add_arena(&mut arenas, plan.arena_bytes());
        run(&mut arenas);
    }

    /// Makes an arena of at least `bytes` for each thread.
    fn add_arena(&self, arenas: &mut Vec<Arena>, bytes: usize) {
        for arena in &mut *arenas {
            if arena.bytes() < bytes {
                *arena = Arena::new(bytes);
            }
        }
        while arenas.len() < self.threads {
            arenas.push(Arena::new(bytes));
        }
    }
}

/// Divides blocks of samples among threads, one for each arena.
fn stripes(plan: &Plan, mut slices: Slices<'_, '_>, arenas: &mut [Arena]) {
    let count = slices.batch.div_ceil(plan.block);
    if arenas.len() == 1 || count < 2 {
        return blocks(plan, &mut slices, &mut arenas[0], false);
    }
    let left_arenas = arenas.len() / 2;
    let left = (count * left_arenas / arenas.len()).max(1) * plan.block;
    let (a, b) = arenas.split_at_mut(left_arenas);
    slices.split(left, |first, rest| {
        rayon::join(|| stripes(plan, first, a), || stripes(plan, rest, b));
    });
}

/// Runs blocks of samples one after the other, each through the whole network.
fn blocks(plan: &Plan, slices: &mut Slices<'_, '_>, arena: &mut Arena, join: bool) {
    let block = plan.block;
    let arena = arena.slice();
    let mut first = 0;
    while first < slices.batch {
        let n = block.min(slices.batch - first);
        let (n, steps) = match &plan.last {
            Some(last) if n <= last.samples => (n, &last.steps),
            Some(last) if (1..=last.samples).contains(&(n % HALF_TILE)) => {
                (n - n % HALF_TILE, &plan.steps)
            }
            _ => (n, &plan.steps),
        };
        in_order(plan, steps, n, |_, step, samples| {
            step.run(samples, first, slices, arena, join);
        });
        first += n;
    }
}

/// Calls `run` with the number of each step, the step, and the samples that it runs over, of the `n` samples of a block: the first steps
/// once for each sample, the others once for all.
fn in_order(
    plan: &Plan,
    steps: &[Bound],
    n: usize,
    mut run: impl FnMut(usize, &Bound, Range<usize>),
) {
    let (first, rest) = steps.split_at(plan.one_by_one);
    if !first.is_empty() {
        for sample in 0..n {
            for (i, step) in first.iter().enumerate() {
                run(i, step, sample..sample + 1);
            }
        }
    }
    for (i, step) in rest.iter().enumerate() {
        run(first.len() + i, step, 0..n);
    }
}

impl Bound {
    /// Multiply-adds of a sample with weights.
    fn multiply_adds(&self) -> usize {
        let is_sparse = self.step.parts[0].kernel.is_sparse();
        let used = self.step.weight;
        used.map_or(0, |used| used.multiply_adds(is_sparse))
    }

    fn skips_zero_inputs(&self) -> bool {
        self.step.parts[0].kernel.skips_zero_inputs()
    }

    /// Runs the step over some samples of the block that begins with sample `first`. With `join`, the threads of the current pool share it.
    fn run(
        &self,
        samples: Range<usize>,
        first: usize,
        slices: &mut Slices<'_, '_>,
        arena: &mut [u8],
        join: bool,
    ) {
        let operands = self.operands(samples, first, slices, arena);
        match (self.step.parts.as_slice(), self.step.partition) {
            ([only], Partition::Lines(threads))
                if join
                    && threads > 1
                    && let Some(kernel) = only.kernel.banded() =>
            {
                run_lines(kernel, operands, threads);
            }
            ([only], Partition::Call(threads)) if join => {
                let layout = |operand: Operand| operand.tensor.layout.samples();
                let tiles = [self.x.unwrap_or(self.y), self.y].map(layout);
                run_call(only, operands, tiles, threads);
            }
            ([only], _) => compute(&*only.kernel, operands),
            (parts, partition) => {
                let lanes = self.y.tensor.layout.samples();
                let channels = partition == Partition::Channels;
                run_parts(parts, operands, lanes, channels, join);
            }
        }
    }

    /// The parts of slices and arena that the step reads and writes for some samples of the block that begins with sample `first`.
    fn operands<'a>(
        &self,
        samples: Range<usize>,
        first: usize,
        slices: &'a mut Slices<'_, '_>,
        arena: &'a mut [u8],
    ) -> Operands<'a> {
        let n = samples.len();
        let length = slices.length;
        let outside = |len: usize| (first + samples.start) * len..(first + samples.end) * len;
        // The range of the samples, from the place of the value on.
        let span = |operand: Operand| {
            let first = if operand.wide {
                operand.extent.bytes(samples.start, length)
            } else {
                0
            };
            first..first + operand.extent.bytes(n, length)
        };
        let range = |operand: Option<Operand>| match operand {
            Some(operand) => match operand.place {
                Place::Arena(at) => {
                    let span = span(operand);
                    at + span.start..at + span.end
                }
                _ => 0..0,
            },
            None => 0..0,
        };
        let scratch = match self.step.scratch_len() {
            0 => 0..0,
            len => self.scratch..self.scratch + len * size_of::<f32>(),
        };
        // An input that a step reads twice has one place.
        let third = self.x3.filter(|_| self.x3 != self.x && self.x3 != self.x2);
        let places = [
            range(self.x),
            range(self.x2),
            range(third),
            range(Some(self.y)),
            scratch,
        ];
        let Ok([x, x2, x3, y, scratch]) = arena.get_disjoint_mut(places) else {
            unreachable!("buffers that are alive together do not overlap");
        };
        let Slices {
            inputs, outputs, ..
        } = slices;
        let pick = |operand: Option<Operand>, in_arena: &'a [u8]| match operand {
            Some(Operand {
                place: Place::Input(i),
                extent,
                ..
            }) => &inputs[i][outside(extent.elements(1, length))],
            _ => bytemuck::cast_slice(in_arena),
        };
        let x = pick(self.x, x);
        let x2 = self.x2.map(|second| pick(Some(second), x2));
        let x3 = match self.x3 {
            None => None,
            again if again == self.x => Some(x),
            again if again == self.x2 => x2,
            third => Some(pick(third, x3)),
        };
        Operands {
            x,
            x2,
            x3,
            y: match self.y.place {
                Place::Output(i) => &mut outputs[i][outside(self.y.extent.elements(1, length))],
                _ => bytemuck::cast_slice_mut(y),
            },
            scratch: bytemuck::cast_slice_mut(scratch),
            n: self.step.rows.of(n, length),
            clamp: self.step.clamp,
        }
    }
}
