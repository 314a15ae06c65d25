//! How the threads of a pool share the steps of one run.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sparsevd_kernels::Clamp;
use sparsevd_kernels::bands::{Band, Banded, Halo};
use sparsevd_kernels::kernel::Operands;

use crate::lowered::Part;

thread_local! {
    /// Whether a run, or a half of one, lies on this thread's stack.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Marks its thread as busy for as long as it lives.
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

/// Tells, even in a panic, that there is nothing more to wait for.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs `work` with the other threads of the current pool kept from sleeping, ready to take halves of what it joins: to wake one for every layer
/// takes longer than many a layer.
pub(crate) fn awake(work: impl FnOnce()) {
    let ended = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&ended);
    rayon::spawn_broadcast(move |_| {
        // Above a run of its own a thread would wait for another that may wait for it.
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

/// Waits without sleeping, but now and then lets another thread have the core, which may be the one that is waited for.
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

/// Runs both, `b` on another thread if one comes for it in time. As `rayon::join`, but that a wait for `b` does not fall asleep: to wake up again takes
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

/// Runs the parts of a layer, each into its own rows of the one sample or tile; with `deal`, each from as large a share of the input.
pub(crate) fn run_parts(
    parts: &[Part],
    op: Operands<'_>,
    lanes: usize,
    partition: bool,
    join: bool,
) {
    let [part] = parts else {
        let (left, right) = parts.split_at(parts.len() / 2);
        let elements: usize = left.iter().map(|p| p.features * lanes).sum();
        let scratch: usize = left.iter().map(Part::scratch_len).sum();
        let (x, more_x) = if partition {
            op.x.split_at(op.x.len() * elements / op.y.len().max(1))
        } else {
            (op.x, op.x)
        };
        let (y, more_y) = op.y.split_at_mut(elements);
        // What a layer adds lies as its output does.
        let (x2, more_x2) = op.x2.map(|x2| x2.split_at(elements)).unzip();
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
            n: a.n,
            clamp: a.clamp,
        };
        if join {
            fork(
                || run_parts(left, a, lanes, partition, join),
                || run_parts(right, b, lanes, partition, join),
            );
        } else {
            run_parts(left, a, lanes, partition, join);
            run_parts(right, b, lanes, partition, join);
        }
        return;
    };
    part.kernel.run(op);
}

/// Runs a layer over one map in blocks, whose lines so many threads share.
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
