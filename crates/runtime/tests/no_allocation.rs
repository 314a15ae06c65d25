//! A session allocates nothing once it has been run, but for what `gemm-f32` takes at each call.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sparsevd_kernels::Isa;
use sparsevd_model::{Dense, GraphBuilder, Input, Network, Op, presets};
use sparsevd_runtime::{Plan, PlanNode, PlanOptions, Session, WeightMode};

struct Counting;

/// Allocations as `gemm-f32` makes them: packing buffers, aligned to a cache line, and flags, which are bytes.
static LIKE_GEMM: AtomicUsize = AtomicUsize::new(0);
/// All others.
static OTHERS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let counter = match layout.align() {
            1 | 32.. => &LIKE_GEMM,
            _ => &OTHERS,
        };
        counter.fetch_add(1, Relaxed);
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
    let preset = presets::by_name(name).unwrap();
    Network::from_preset(preset, |_, shape| {
        let weight = |i| if i * 7 % keep == 0 { 0.01 } else { 0.0 };
        let values = (0..shape.elements()).map(weight).collect();
        Dense::new(shape.clone(), values).into()
    })
    .unwrap()
}

/// Most allocations in a run of `n` samples.
///
/// A call of `gemm-f32` makes two, a packing buffer and flags of what is packed. Linear layers call it once for each tile
/// of sixteen samples and block of 96 Ki weights, convolutions for each sample.
fn allowed(plan: &Plan, n: usize) -> usize {
    let calls = |node: &PlanNode| match &node.kernel {
        kernel if kernel.contains("im2col") => n,
        kernel if !kernel.contains("gemm-") => 0,
        _ if node.op.starts_with("Linear") => n.div_ceil(16) * node.weights.div_ceil(96 * 1024),
        _ => n,
    };
    2 * plan.nodes().iter().map(calls).sum::<usize>()
}

/// Two inputs and two outputs by name.
fn several() {
    let mut b = GraphBuilder::new("several");
    let (x, y) = (b.input("x", [784]), b.input("y", [784]));
    let sum = b.op("sum", Op::Add, &[&x, &y]);
    let scores = b.linear("scores", &sum, 10);
    b.output(&scores);
    b.output(&sum);
    let network = b
        .network(|_, shape| Dense::zeros(shape.clone()).into())
        .unwrap();
    let session = Session::new(Plan::new(&network, &PlanOptions::default()).unwrap(), 1).unwrap();
    let input = [0.5; 784];
    let (mut scores, mut sum) = ([1.0; 10], [0.0; 784]);
    let mut run = || {
        let before = OTHERS.load(Relaxed);
        session
            .run(
                1,
                &[("y", &input[..]), ("x", &input)],
                &mut [("sum", &mut sum[..]), ("scores", &mut scores)],
            )
            .unwrap();
        OTHERS.load(Relaxed) - before
    };
    run();
    assert_eq!(run(), 0);
    assert_eq!((scores, sum), ([0.0; 10], [1.0; 784]));
}

/// A free dimension, over lengths of buckets that are planned.
fn lengths() {
    let mut b = GraphBuilder::new("lengths");
    let x = b.free_input(Input::with_free("x", [0, 24], 0, "length"));
    let wide = b.linear("wide", &x, 40);
    b.linear("scores", &wide, 10);
    let network = b
        .network(|_, shape| Dense::zeros(shape.clone()).into())
        .unwrap();
    let session = Session::new(Plan::new(&network, &PlanOptions::default()).unwrap(), 1).unwrap();
    let (x, mut y) = (vec![0.5; 40 * 24], vec![1.0; 40 * 10]);
    let mut run = |length: usize| {
        let before = OTHERS.load(Relaxed);
        session
            .run(1, &x[..length * 24], &mut y[..length * 10])
            .unwrap();
        OTHERS.load(Relaxed) - before
    };
    assert!(run(40) > 0, "the first run of a bucket plans it");
    run(5);
    assert_eq!([33, 40, 7, 8, 5].map(run), [0; 5]);
}

/// One test, since the counters see the whole process.
#[test]
fn a_warm_session_allocates_nothing_outside_gemm() {
    let mut plans = [0, 0];
    let x = vec![0.5; 70 * 784];
    let mut y = vec![0.0; 70 * 10];
    for name in ["lenet-300-100", "lenet-5"] {
        for keep in [1, 50] {
            let network = network(name, keep);
            for isa in Isa::available() {
                for weights in [WeightMode::Sparse, WeightMode::Dense] {
                    for batch in [1, 3, 16, 64] {
                        let options = PlanOptions {
                            weights,
                            batch,
                            isa,
                            ..PlanOptions::default()
                        };
                        let plan = Plan::new(&network, &options).unwrap();
                        let session = Session::new(plan, 1).unwrap();
                        let mut run = |n: usize| {
                            let before = [&LIKE_GEMM, &OTHERS].map(|c| c.load(Relaxed));
                            session.run(n, &x[..n * 784], &mut y[..n * 10]).unwrap();
                            let after = [&LIKE_GEMM, &OTHERS].map(|c| c.load(Relaxed));
                            [after[0] - before[0], after[1] - before[1]]
                        };
                        run(batch);
                        for n in [batch, 1, batch + 5, batch] {
                            let [like_gemm, others] = run(n);
                            let allowed = allowed(session.plan(), n);
                            assert!(
                                others == 0 && like_gemm <= allowed,
                                "{name}, {n} samples: {like_gemm} allocations like gemm's of {allowed} allowed, {others} others\n{}",
                                session.plan()
                            );
                        }
                        plans[usize::from(allowed(session.plan(), 1) > 0)] += 1;
                    }
                }
            }
        }
    }
    several();
    lengths();
    assert!(
        plans.iter().all(|&n| n > 8),
        "{plans:?} without and with gemm"
    );
}
