//! A session allocates nothing once it has been run.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sparsevd_model::{Dense, Network, Weights, presets};
use sparsevd_runtime::{Plan, PlanNode, PlanOptions, Session, WeightMode};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A preset with every `keep`-th weight.
fn network(name: &str, keep: usize) -> Network {
    let (graph, tensors) = presets::by_name(name).unwrap();
    let tensors = tensors
        .into_iter()
        .map(|(name, shape)| {
            let values = (0..shape.elements())
                .map(|i| if i * 7 % keep == 0 { 0.01 } else { 0.0 })
                .collect();
            (name, Weights::Dense(Dense::new(shape, values)))
        })
        .collect();
    Network::new(graph, tensors).unwrap()
}

/// One test, since the counter sees the whole process.
#[test]
fn a_warm_session_allocates_nothing() {
    for name in ["lenet-300-100", "lenet-5"] {
        for keep in [1, 50] {
            let network = network(name, keep);
            for weights in [WeightMode::Sparse, WeightMode::Dense] {
                for batch in [1, 3, 16, 64] {
                    let options = PlanOptions {
                        weights,
                        batch,
                        ..PlanOptions::default()
                    };
                    let session = Session::new(Plan::new(&network, &options).unwrap(), 1).unwrap();
                    let x = vec![0.5; 70 * 784];
                    let mut y = vec![0.0; 70 * 10];
                    let mut run = |n: usize| session.run(n, &x[..n * 784], &mut y[..n * 10]);
                    run(batch);
                    let before = ALLOCATIONS.load(Relaxed);
                    for n in [batch, 1, batch + 5, batch] {
                        run(n);
                    }
                    let made = ALLOCATIONS.load(Relaxed) - before;
                    // `gemm-f32` takes its packing buffers from the allocator at each call; nothing else may.
                    let gemm =
                        |n: &PlanNode| n.kernel.contains("gemm-") || n.kernel.contains("im2col");
                    if session.plan().nodes().iter().any(gemm) {
                        continue;
                    }
                    assert_eq!(made, 0, "{name}, batch {batch}\n{}", session.plan());
                }
            }
        }
    }
}
