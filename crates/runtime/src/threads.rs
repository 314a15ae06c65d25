//! How the threads of a pool share the steps of one run.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sparsevd_kernels::bands::{Band, Banded, Halo};
use sparsevd_kernels::kernel::{CallSplit, Operands};
use sparsevd_kernels::{Clamp, PackedKernel};

use crate::lowered::Part;

thread_local! {
    /// Whether this thread is inside a run or a part of one.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Marks the thread as busy until it is dropped.
struct Busy(bool);

impl Busy {
    fn new() -> Self {
        Self(BUSY.replace(true))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.set(self.0);
    }
}

/// Sets the flag when it is dropped, also in a panic, so that no thread waits forever.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs `work` and keeps the other threads of the current pool awake meanwhile, so that they take over parts of layers at once: waking a thread
/// takes longer than many layers.
pub(crate) fn awake(work: impl FnOnce()) {
    let ended = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&ended);
    rayon::spawn_broadcast(move |_| {
        // A thread that waited here inside a run of its own could wait for a thread that waits for it.
        if BUSY.get() {
            return;
        }
        let _busy = Busy::new();
        let mut backoff = Backoff::default();
        while !watched.load(Ordering::Acquire) {
            if rayon::yield_now() != Some(rayon::Yield::Executed) {
                backoff.spin();
            }
        }
    });
    let (_ended, _busy) = (Ended(&ended), Busy::new());
    work();
}

/// Waits without sleeping, but yields the core now and then: the thread that it waits for may need it.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn spin(&mut self) {
        std::hint::spin_loop();
        self.0 = (self.0 + 1) % 1024;
        if self.0 == 0 {
            std::thread::yield_now();
        }
    }
}

/// Runs `a` and `b`, where possible `b` on another thread. Unlike `rayon::join` it does not sleep while it waits for `b`, because waking up takes
/// longer than most layers.
fn fork<B: FnOnce() + Send>(a: impl FnOnce() + Send, b: B) {
    let b = Mutex::new(Some(b));
    let done = AtomicBool::new(false);
    let claim = || b.lock().ok().and_then(|mut b| b.take());
    rayon::join(
        || {
            a();
            if let Some(b) = claim() {
                return b();
            }
            let mut backoff = Backoff::default();
            while !done.load(Ordering::Acquire) {
                backoff.spin();
            }
        },
        || {
            if let Some(b) = claim() {
                let (_done, _busy) = (Ended(&done), Busy::new());
                b();
            }
        },
    );
}

/// Runs a kernel. One that works in place does so on a copy of its input, where that must stay.
pub(crate) fn compute(kernel: &dyn PackedKernel, op: Operands<'_>) {
    if kernel.in_place() && !op.x.is_empty() {
        op.y.copy_from_slice(op.x);
    }
    kernel.run(op);
}

/// Runs the parts of a layer over one sample or tile; each part writes its own rows of the output. With `channels`, each reads only the
/// channels of the input that correspond to its rows. `lanes` are the samples of a tile; with `join`, parts run on several threads.
pub(crate) fn run_parts(
    parts: &[Part],
    op: Operands<'_>,
    lanes: usize,
    channels: bool,
    join: bool,
) {
    let [part] = parts else {
        let (left, right) = parts.split_at(parts.len() / 2);
        let elements: usize = left.iter().map(|p| p.features * lanes).sum();
        let scratch: usize = left.iter().map(Part::scratch_len).sum();
        let (x, more_x) = if channels {
            op.x.split_at(op.x.len() * elements / op.y.len().max(1))
        } else {
            (op.x, op.x)
        };
        let outputs = op.y.len();
        let (y, more_y) = op.y.split_at_mut(elements);
        // A residual has the rows of the output, but it may be in bytes where that is not.
        let split = |x2: &'_ [f32]| x2.len() * elements / outputs.max(1);
        let (x2, more_x2) = op.x2.map(|x2| x2.split_at(split(x2))).unzip();
        let (scratch, more_scratch) = op.scratch.split_at_mut(scratch);
        let a = Operands {
            x,
            x2,
            y,
            scratch,
            ..op
        };
        let b = Operands {
            y: more_y,
            scratch: more_scratch,
            x: more_x,
            x2: more_x2,
            x3: op.x3,
            n: a.n,
            clamp: a.clamp,
        };
        if join {
            fork(
                || run_parts(left, a, lanes, channels, join),
                || run_parts(right, b, lanes, channels, join),
            );
        } else {
            run_parts(left, a, lanes, channels, join);
            run_parts(right, b, lanes, channels, join);
        }
        return;
    };
    compute(&*part.kernel, op);
}

/// Runs a kernel whose call `threads` threads share ([`PackedKernel::call_split`]). `tiles` are the samples of a tile of the input and of the output.
pub(crate) fn run_call(part: &Part, op: Operands<'_>, tiles: [usize; 2], threads: usize) {
    let Some(split) = part.kernel.call_split() else {
        return compute(&*part.kernel, op);
    };
    let (n, outputs) = (op.n, op.y.len());
    // How many groups there are, and how many samples or elements are in one.
    let (groups, size) = match split {
        CallSplit::Samples(size) => (n.div_ceil(size), size),
        CallSplit::Elements(size) | CallSplit::Queries(size) => (outputs.div_ceil(size), size),
    };
    let threads = threads.min(groups);
    let left = threads / 2;
    if left == 0 {
        return compute(&*part.kernel, op);
    }
    // The first groups are those of the threads on the left.
    let first = groups * left / threads * size;
    let [of_x, of_y] = match split {
        CallSplit::Samples(_) => [(op.x.len(), tiles[0]), (outputs, tiles[1])]
            .map(|(len, tile)| len / n.next_multiple_of(tile) * first),
        _ => [first; 2],
    };
    let (x, more_x) = op.x.split_at(of_x.min(op.x.len()));
    let (y, more_y) = op.y.split_at_mut(of_y);
    let ((x2, more_x2), (x3, more_x3)) = match split {
        CallSplit::Queries(_) => {
            let whole = op.x2.or(Some(op.x));
            ((whole, whole), (op.x3, op.x3))
        }
        _ => (op.x2.map(|x| x.split_at(of_y)).unzip(), (None, None)),
    };
    let (scratch, more_scratch) = op.scratch.split_at_mut(left * part.scratch_len());
    let samples = |some: usize| match split {
        CallSplit::Samples(_) => some,
        _ => n,
    };
    let clamp = op.clamp;
    let a = Operands {
        x,
        x2,
        x3,
        y,
        scratch,
        n: samples(first),
        clamp,
    };
    let b = Operands {
        x: more_x,
        x2: more_x2,
        x3: more_x3,
        y: more_y,
        scratch: more_scratch,
        n: samples(n - first.min(n)),
        clamp,
    };
    fork(
        || run_call(part, a, tiles, left),
        || run_call(part, b, tiles, threads - left),
    );
}

/// Runs a layer over one map in blocks, of which each of `threads` threads computes some lines.
pub(crate) fn run_lines(kernel: &dyn Banded, op: Operands<'_>, threads: usize) {
    fn lines(band: Band<'_>, x: &[f32], x2: Option<&[f32]>, clamp: Clamp, threads: usize) {
        let left = threads / 2;
        if left == 0 {
            return band.run(x, x2, clamp);
        }
        let [a, b] = band.split(left, threads);
        fork(
            || lines(a, x, x2, clamp, left),
            || lines(b, x, x2, clamp, threads - left),
        );
    }
    fn halos(halo: Halo<'_>, threads: usize) {
        let left = threads / 2;
        if left == 0 {
            return halo.run();
        }
        let [a, b] = halo.split(left, threads);
        fork(|| halos(a, left), || halos(b, threads - left));
    }
    let Operands {
        x, x2, y, clamp, ..
    } = op;
    lines(Band::new(kernel, y), x, x2, clamp, threads);
    let halo = Halo::new(kernel, y);
    if !halo.is_empty() {
        halos(halo, threads);
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_kernels::cost::Costs;
    use sparsevd_kernels::kernel::Workload;

    use super::*;

    /// Remembers the samples of each call, of groups of four.
    #[derive(Debug, Default)]
    struct Recorder(Arc<Mutex<Vec<usize>>>);

    impl PackedKernel for Recorder {
        fn run(&self, operands: Operands<'_>) {
            assert_eq!(operands.x.len(), 2 * operands.n);
            assert_eq!(operands.y.len(), 3 * operands.n);
            if let Ok(mut calls) = self.0.lock() {
                calls.push(operands.n);
            }
        }

        fn name(&self) -> String {
            "recorder".into()
        }

        fn expected_ns(&self, _: &Costs, _: &Workload) -> f64 {
            0.0
        }

        fn call_split(&self) -> Option<CallSplit> {
            Some(CallSplit::Samples(4))
        }
    }

    #[test]
    fn as_many_threads_compute_as_there_are_groups() {
        for (n, threads, want) in [
            (8, 3, vec![4, 4]),
            (7, 5, vec![3, 4]),
            (4, 2, vec![4]),
            (13, 6, vec![1, 4, 4, 4]),
            (40, 3, vec![12, 12, 16]),
            (0, 2, vec![0]),
        ] {
            let recorder = Recorder::default();
            let calls = Arc::clone(&recorder.0);
            let part = Part::whole(recorder, 3);
            let (x, mut y) = (vec![0.0; 2 * n], vec![0.0; 3 * n]);
            let op = Operands {
                x: &x,
                x2: None,
                x3: None,
                y: &mut y,
                scratch: &mut [],
                n,
                clamp: Clamp::None,
            };
            run_call(&part, op, [1, 1], threads);
            let mut calls = calls.lock().map(|c| c.clone()).unwrap_or_default();
            calls.sort_unstable();
            assert_eq!(calls, want, "{n} samples, {threads} threads");
        }
    }
}
