//! Eight callers on one session at a time, of pools of one thread to eight: every answer has the bits that a single caller gets, and nobody
//! waits for ever.
//!
//! `SPARSEVD_CALLERS=600 cargo test --release -p sparsevd-runtime --test callers -- --nocapture` does so for ten minutes.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use sparsevd_model::{Conv2d, Dense, GraphBuilder, Network, Op, Window, ops};
use sparsevd_runtime::{Plan, PlanOptions, Session, WeightMode};
use sparsevd_testing::arbitrary::Stream;

const CALLERS: usize = 8;
const BATCHES: [usize; 6] = [1, 2, 7, 16, 17, 33];
/// A caller that waits longer than this on a busy machine waits for ever.
const STALL: Duration = Duration::from_secs(60);

fn fill(b: GraphBuilder, density: f64) -> Network {
    let mut random = Stream(5);
    b.network(|_, shape| match shape.dims().len() {
        1 => random.bernoulli(shape.clone(), 1.0).into(),
        _ if density < 1.0 => random.sparse(shape.clone(), density).into(),
        _ => Dense::new(shape.clone(), random.floats(shape.elements())).into(),
    })
    .unwrap()
}

/// Large enough for threads to share a sample, and maps that are cut into blocks.
fn images(density: f64) -> Network {
    let mut b = GraphBuilder::new("images");
    let x = b.input("x", [3, 56, 56]);
    let x = b.conv("a", &x, &Conv2d::square(16, 3).padding(1));
    let x = b.op("ra", Op::Relu, &[&x]);
    let y = b.conv("b", &x, &Conv2d::square(16, 3).padding(1));
    let x = b.op("sum", Op::Add, &[&x, &y]);
    let pool = ops::MaxPool {
        window: Window::square(2, 2),
    };
    let x = b.op("pool", Op::MaxPool(pool), &[&x]);
    let x = b.conv("c", &x, &Conv2d::square(32, 3).stride(2));
    let x = b.op("rc", Op::Relu, &[&x]);
    let x = b.op("flat", Op::Flatten, &[&x]);
    b.linear("scores", &x, 10);
    fill(b, density)
}

fn layers(density: f64) -> Network {
    let mut b = GraphBuilder::new("layers");
    let x = b.input("x", [784]);
    let x = b.linear("fc1", &x, 300);
    let x = b.op("relu", Op::Relu, &[&x]);
    b.linear("fc2", &x, 10);
    fill(b, density)
}

/// A session with what a single caller gets from it, by batch.
struct Shared {
    name: String,
    session: Session,
    input: Vec<f32>,
    expected: Vec<Vec<u32>>,
}

impl Shared {
    fn new(network: &Network, weights: WeightMode, threads: usize, batch: usize) -> Self {
        let options = PlanOptions {
            weights,
            threads,
            batch,
            ..PlanOptions::default()
        };
        let session = Session::new(Plan::new(network, &options).unwrap(), threads).unwrap();
        let mut shared = Self {
            name: format!(
                "{} {weights}, {threads} threads, planned for {batch}",
                network.graph.name
            ),
            input: Stream(9).floats(BATCHES[5] * session.plan().input_shape().elements()),
            session,
            expected: vec![],
        };
        shared.expected = BATCHES.map(|batch| shared.run(batch)).into();
        shared
    }

    fn run(&self, batch: usize) -> Vec<u32> {
        let plan = self.session.plan();
        let inputs = batch * plan.input_shape().elements();
        let mut outputs = vec![f32::NAN; batch * plan.output_shape().elements()];
        self.session
            .run(batch, &self.input[..inputs], &mut outputs)
            .unwrap();
        outputs.into_iter().map(f32::to_bits).collect()
    }

    /// Runs batches that are drawn until then, and counts them; returns the longest time of a run.
    fn call(&self, seed: u64, until: Instant, runs: &AtomicU64) -> Duration {
        let mut random = Stream(seed);
        let mut slowest = Duration::ZERO;
        while runs.load(Relaxed) == 0 || Instant::now() < until {
            let place = random.bits() as usize % BATCHES.len();
            let start = Instant::now();
            let got = self.run(BATCHES[place]);
            slowest = slowest.max(start.elapsed());
            let batch = BATCHES[place];
            assert!(got == self.expected[place], "{}: batch {batch}", self.name);
            runs.fetch_add(1, Relaxed);
        }
        slowest
    }
}

/// Ends the process where a caller has not answered for [`STALL`]: threads that wait cannot be joined.
fn watch(runs: &[AtomicU64], callers: &[ScopedJoinHandle<'_, Duration>]) {
    let mut last = vec![(0, Instant::now()); runs.len()];
    while callers.iter().any(|caller| !caller.is_finished()) {
        thread::sleep(Duration::from_millis(20));
        for (caller, (runs, (seen, since))) in runs.iter().zip(&mut last).enumerate() {
            match runs.load(Relaxed) {
                now if now != *seen => (*seen, *since) = (now, Instant::now()),
                now if since.elapsed() > STALL && !callers[caller].is_finished() => {
                    // `eprintln!` is captured, and lost with the process.
                    let _ = writeln!(
                        std::io::stderr(),
                        "caller {caller} waits since its run {now}"
                    );
                    std::process::exit(1);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn callers_get_the_answers_of_a_single_one() {
    let seconds = std::env::var("SPARSEVD_CALLERS").map_or(2, |s| s.parse().unwrap());
    let mut sessions = vec![];
    for threads in 1..=8 {
        // Each pool has a sparse and a dense network, of layers or of maps.
        let (sparse, dense) = match threads % 2 {
            0 => (images(0.1), layers(1.0)),
            _ => (layers(0.05), images(1.0)),
        };
        sessions.push(Shared::new(&sparse, WeightMode::Sparse, threads, 1));
        sessions.push(Shared::new(&dense, WeightMode::Dense, threads, 16));
    }
    assert!(sessions.iter().any(|s| s.session.threads() > 4));
    let turn = Duration::from_secs_f64(f64::from(seconds) / sessions.len() as f64);
    let (mut all, mut slowest) = (0, Duration::ZERO);
    for shared in &sessions {
        let runs: [AtomicU64; CALLERS] = Default::default();
        let until = Instant::now() + turn;
        let slow = thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|caller| (caller as u64, &runs[caller]))
                .map(|(seed, runs)| scope.spawn(move || shared.call(seed, until, runs)))
                .collect();
            watch(&runs, &callers);
            let times = callers.into_iter().map(|caller| caller.join().unwrap());
            times.max().unwrap()
        });
        let count: u64 = runs.iter().map(|r| r.load(Relaxed)).sum();
        println!("{}: {count} runs, the slowest {slow:?}", shared.name);
        (all, slowest) = (all + count, slowest.max(slow));
    }
    println!(
        "{all} runs by {CALLERS} callers on {} sessions, the slowest {slowest:?}",
        sessions.len()
    );
}
