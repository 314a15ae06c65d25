//! Running a plan.

use std::ops::Range;
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use rayon::ThreadPool;
use sparsevd_kernels::LANES;
use sparsevd_kernels::kernel::Operands;
use sparsevd_kernels::spmv::active;

use crate::buffers::{Bound, Operand, Place};
use crate::error::RuntimeError;
use crate::lower::Activity;
use crate::lowered::Partition;
use crate::plan::Plan;
use crate::threads::{awake, run_lines, run_parts};

/// Up to this many samples of a tile cost half a tile.
const HALF_TILE: usize = LANES / 2;

/// Workspaces that a session keeps for concurrent runs. Further concurrent runs allocate one for themselves.
const WORKSPACES: usize = 16;

/// A plan with the memory and the threads to run it.
///
/// [`Session::run`] takes `&self`: many threads may run one session at once, each in a workspace of its own. After its first
/// run, a session on one thread neither allocates nor waits for a lock, except that `gemm-f32`, which computes dense batched
/// layers, allocates its packing buffers.
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
/// session.run(1, &[0.5; 784], &mut scores);
/// assert_eq!(scores, [0.0; 10]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Session {
    plan: Plan,
    pool: Option<ThreadPool>,
    threads: usize,
    workspaces: Vec<Mutex<Vec<Arena>>>,
}

/// Memory of one thread for activations and scratch.
#[derive(Debug)]
struct Arena {
    memory: Vec<f32>,
    /// First element on a cache line.
    start: usize,
}

impl Arena {
    fn new(len: usize) -> Self {
        let memory = vec![0.0_f32; len + LANES];
        // Only the speed of the kernels depends on the alignment.
        let start = memory.as_ptr().align_offset(64).min(LANES);
        Self { memory, start }
    }

    fn slice(&mut self) -> &mut [f32] {
        let end = self.memory.len() - LANES + self.start;
        &mut self.memory[self.start..end]
    }
}

impl Session {
    /// Allocates memory for a plan and starts its threads, at most `threads`.
    ///
    /// The threads belong to the session. A plan for one thread ([`Plan::threads`]) runs on the thread of the caller and starts none.
    ///
    /// # Errors
    /// [`RuntimeError::Threads`] when the system cannot start the threads.
    pub fn new(plan: Plan, threads: usize) -> Result<Self, RuntimeError> {
        let threads = threads.min(plan.threads()).max(1);
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
        let workspaces: Vec<_> = (0..WORKSPACES).map(|_| Mutex::new(Vec::new())).collect();
        let session = Self {
            plan,
            pool,
            threads,
            workspaces,
        };
        if let Ok(mut first) = session.workspaces[0].lock() {
            session.add_arena(&mut first);
        }
        Ok(session)
    }

    /// The plan of the session.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Threads that a run may use.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Bytes of activations and scratch of one run, over all its threads.
    pub fn arena_bytes(&self) -> usize {
        self.plan.arena_bytes() * self.threads
    }

    /// Runs `batch` samples: `input` is `[batch][input_shape]` in C order, `output` becomes `[batch][output_shape]`.
    ///
    /// # Panics
    /// When a slice has another length. [`Session::try_run`] returns an error instead.
    #[track_caller]
    pub fn run(&self, batch: usize, input: &[f32], output: &mut [f32]) {
        if let Err(error) = self.try_run(batch, input, output) {
            panic!("{error}");
        }
    }

    /// As [`Session::run`], for slices whose lengths come from a file or a user.
    ///
    /// # Errors
    /// [`RuntimeError::Length`] when a slice has another length; the output is then unchanged.
    pub fn try_run(
        &self,
        batch: usize,
        input: &[f32],
        output: &mut [f32],
    ) -> Result<(), RuntimeError> {
        let (inputs, outputs) = self.lengths();
        for (operand, sample, got) in [
            ("input", inputs, input.len()),
            ("output", outputs, output.len()),
        ] {
            if batch.checked_mul(sample) != Some(got) {
                return Err(RuntimeError::Length {
                    operand,
                    batch,
                    expected: batch.saturating_mul(sample),
                    got,
                });
            }
        }
        self.in_workspace(|arenas| match &self.pool {
            // Threads cannot share one block by samples; they share its large layers.
            Some(pool) if batch <= self.plan.block => {
                if !self.plan.steps.iter().any(|s| s.step.pieces() > 1) {
                    return self.blocks(input, output, &mut arenas[0], false);
                }
                pool.install(|| awake(|| self.blocks(input, output, &mut arenas[0], true)));
            }
            Some(pool) => pool.install(|| self.stripes(input, output, arenas)),
            None => self.blocks(input, output, &mut arenas[0], false),
        });
        Ok(())
    }

    /// As [`Session::run`], on the thread of the caller alone. Adds the time of each step to `times`, which has an entry for each node of the plan.
    pub(crate) fn run_timed(
        &self,
        batch: usize,
        input: &[f32],
        output: &mut [f32],
        times: &mut [Duration],
    ) {
        let (inputs, outputs) = self.lengths();
        self.in_workspace(|arenas| {
            let arena = arenas[0].slice();
            for first in (0..batch).step_by(self.plan.block) {
                let n = self.plan.block.min(batch - first);
                let x = &input[first * inputs..][..n * inputs];
                let y = &mut output[first * outputs..][..n * outputs];
                self.in_order(&self.plan.steps, n, |i, step, samples| {
                    let start = std::time::Instant::now();
                    step.run(samples, x, y, arena, false);
                    times[i] += start.elapsed();
                });
            }
        });
    }

    /// Share of non-zero inputs of each layer that can skip zero inputs, 0 to 1, by the name of its node. The samples run one at a time.
    pub(crate) fn activity(&self, samples: &[f32]) -> Activity {
        let (inputs, outputs) = self.lengths();
        let isa = self.plan.options().isa;
        let mut sums: Vec<f64> = vec![0.0; self.plan.steps.len()];
        let mut output = vec![0.0; outputs];
        let mut count = 0.0;
        self.in_workspace(|arenas| {
            let arena = arenas[0].slice();
            for x in samples.chunks_exact(inputs.max(1)) {
                count += 1.0;
                for (step, sum) in self.plan.steps.iter().zip(&mut sums) {
                    if step.skips_zero_inputs() {
                        *sum += active(isa, step.operands(0..1, x, &mut output, arena).x);
                    }
                    step.run(0..1, x, &mut output, arena, false);
                }
            }
        });
        let steps = self.plan.steps.iter().zip(sums);
        steps
            .filter(|(step, _)| step.skips_zero_inputs() && count > 0.0)
            .map(|(step, sum)| (step.step.name.clone(), sum / count))
            .collect()
    }

    fn lengths(&self) -> (usize, usize) {
        (
            self.plan.input_shape().elements(),
            self.plan.output_shape().elements(),
        )
    }

    /// Calls `run` with a workspace that no other run uses. Finding a free one takes one compare-and-swap.
    fn in_workspace(&self, run: impl FnOnce(&mut [Arena])) {
        for workspace in &self.workspaces {
            let mut arenas = match workspace.try_lock() {
                Ok(guard) => guard,
                // A run writes each value before it reads it, so what a panic left in an arena does not matter.
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            self.add_arena(&mut arenas);
            return run(&mut arenas);
        }
        let mut arenas = Vec::new();
        self.add_arena(&mut arenas);
        run(&mut arenas);
    }

    fn add_arena(&self, arenas: &mut Vec<Arena>) {
        while arenas.len() < self.threads {
            arenas.push(Arena::new(self.plan.arena_len));
        }
    }

    /// Divides blocks of samples among threads, one for each arena.
    fn stripes(&self, input: &[f32], output: &mut [f32], arenas: &mut [Arena]) {
        let (inputs, outputs) = self.lengths();
        let batch = input.len() / inputs.max(1);
        let blocks = batch.div_ceil(self.plan.block);
        if arenas.len() == 1 || blocks < 2 {
            return self.blocks(input, output, &mut arenas[0], false);
        }
        let left_arenas = arenas.len() / 2;
        let left = (blocks * left_arenas / arenas.len()).max(1) * self.plan.block;
        let (a, b) = arenas.split_at_mut(left_arenas);
        let (x, more_x) = input.split_at(left * inputs);
        let (y, more_y) = output.split_at_mut(left * outputs);
        rayon::join(|| self.stripes(x, y, a), || self.stripes(more_x, more_y, b));
    }

    /// Runs blocks of samples one after the other, each through the whole network.
    fn blocks(&self, input: &[f32], output: &mut [f32], arena: &mut Arena, join: bool) {
        let (inputs, outputs) = self.lengths();
        let block = self.plan.block;
        let arena = arena.slice();
        let mut first = 0;
        let batch = output.len() / outputs.max(1);
        while first < batch {
            let n = block.min(batch - first);
            let (n, steps) = match &self.plan.last {
                Some(last) if n <= last.samples => (n, &last.steps),
                Some(last) if (1..=last.samples).contains(&(n % HALF_TILE)) => {
                    (n - n % HALF_TILE, &self.plan.steps)
                }
                _ => (n, &self.plan.steps),
            };
            let x = &input[first * inputs..][..n * inputs];
            let y = &mut output[first * outputs..][..n * outputs];
            self.in_order(steps, n, |_, step, samples| {
                step.run(samples, x, y, arena, join);
            });
            first += n;
        }
    }

    /// Calls `run` with the number of each step, the step, and the samples that it runs over, of the `n` samples of a block: the first steps
    /// once for each sample, the others once for all.
    fn in_order(
        &self,
        steps: &[Bound],
        n: usize,
        mut run: impl FnMut(usize, &Bound, Range<usize>),
    ) {
        let (first, rest) = steps.split_at(self.plan.one_by_one);
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
}

impl Bound {
    fn skips_zero_inputs(&self) -> bool {
        self.step.parts[0].kernel.skips_zero_inputs()
    }

    /// Runs the step over some samples of a block. With `join`, the threads of the current pool share it.
    fn run(
        &self,
        samples: Range<usize>,
        input: &[f32],
        output: &mut [f32],
        arena: &mut [f32],
        join: bool,
    ) {
        let operands = self.operands(samples, input, output, arena);
        if self.step.in_place() && self.x.is_some() {
            operands.y.copy_from_slice(operands.x);
        }
        match (self.step.parts.as_slice(), self.step.partition) {
            ([only], Partition::Lines(threads))
                if join
                    && threads > 1
                    && let Some(kernel) = only.kernel.banded() =>
            {
                run_lines(kernel, operands, threads);
            }
            ([only], _) => only.kernel.run(operands),
            (parts, partition) => {
                let lanes = self.y.tensor.layout.samples();
                let channels = partition == Partition::Channels;
                run_parts(parts, operands, lanes, channels, join);
            }
        }
    }

    /// The slices that the step reads and writes for some samples of a block.
    fn operands<'a>(
        &self,
        samples: Range<usize>,
        input: &'a [f32],
        output: &'a mut [f32],
        arena: &'a mut [f32],
    ) -> Operands<'a> {
        let n = samples.len();
        // The range of the samples, from the place of the value on.
        let span = |operand: Operand| {
            let first = if operand.wide {
                operand.tensor.len(samples.start)
            } else {
                0
            };
            first..first + operand.tensor.len(n)
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
            len => self.scratch..self.scratch + len,
        };
        let places = [range(self.x), range(self.x2), range(Some(self.y)), scratch];
        let Ok([x, x2, y, scratch]) = arena.get_disjoint_mut(places) else {
            unreachable!("buffers that are alive together do not overlap");
        };
        let pick = |operand: Option<Operand>, in_arena| match operand {
            Some(operand) if operand.place == Place::Input => {
                let len = operand.tensor.len(1);
                &input[samples.start * len..][..n * len]
            }
            _ => in_arena,
        };
        Operands {
            x: pick(self.x, x),
            x2: self.x2.map(|second| pick(Some(second), x2)),
            y: match self.y.place {
                Place::Output => {
                    let len = self.y.tensor.len(1);
                    &mut output[samples.start * len..][..n * len]
                }
                _ => y,
            },
            scratch,
            n,
            clamp: self.step.clamp,
        }
    }
}
