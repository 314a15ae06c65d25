//! Samples of a free length, of a network with two inputs: ids of words and of their positions.

use crate::case::random;
use sparsevd_compressor::State;
use sparsevd_compressor::engine::{Batch, Engine};
use sparsevd_compressor::objective::{SquaredError, Targets};
use sparsevd_compressor::variational::Granularity;
use sparsevd_kernels::Isa;
use sparsevd_model::{DType, Dense, Graph, GraphBuilder, Input, Network, Op, Weights, ops};
use sparsevd_testing::executor;

const WORDS: usize = 9;
const POSITIONS: usize = 8;
const WIDTH: usize = 4;
const OUTPUTS: usize = 3;
const SAMPLES: usize = 4;

fn encoder() -> Network {
    let mut b = GraphBuilder::new("encoder");
    let mut input = |name| b.free_input(Input::with_free(name, [0], 0, "length").of(DType::I64));
    let (ids, places) = (input("ids"), input("positions"));
    let mut rows = |name: &str, rows: usize, ids: &str| {
        let table = b.tensor(format!("{name}.weight"), [rows, WIDTH]);
        b.op(name, Op::Embedding(ops::Embedding { table }), &[ids])
    };
    let words = rows("words", WORDS, &ids);
    let places = rows("places", POSITIONS, &places);
    let sum = b.op("sum", Op::Add, &[&words, &places]);
    let [q, k, v] = ["q", "k", "v"].map(|name| b.linear(name, &sum, WIDTH));
    let attention = Op::Attention(ops::Attention { heads: 2 });
    let x = b.op("attention", attention, &[&q, &k, &v]);
    let x = b.linear("o", &x, OUTPUTS);
    let mean = Op::ReduceMean(ops::ReduceMean::default());
    let x = b.op("mean", mean, &[&x]);
    b.op("unit", Op::L2Normalize, &[&x]);
    let (graph, shapes) = b.finish_with_tensors().unwrap();
    let tensors = shapes.into_iter().enumerate().map(|(i, (name, shape))| {
        let values = random(shape.elements(), i as u32, 0.5);
        let values = values.into_iter().map(|x| x as f32).collect();
        let dense = Dense { shape, values };
        (name, Weights::Dense(dense))
    });
    Network::new(graph, tensors.collect()).unwrap()
}

/// Ids, then positions, of a sample.
fn sample(i: usize, length: usize) -> Vec<f64> {
    let ids = (0..length).map(|j| ((5 * i + j * j + 1) % WORDS) as f64);
    ids.chain((0..length).map(|j| j as f64)).collect()
}

fn engine(graph: &Graph, state: State<f64>) -> Engine<f64> {
    let isa = Isa::best();
    Engine::new(graph, state, Granularity::Weight, isa, None).unwrap()
}

/// Loss and all gradients of a batch of samples of one length.
fn gradients(engine: &mut Engine<f64>, length: usize) -> (f64, Vec<Vec<f64>>) {
    let objective = SquaredError {
        deviation: 0.7,
        share: 0.0,
    };
    let targets: Vec<f32> = (random(SAMPLES * OUTPUTS, 70, 1.0).into_iter())
        .map(|x| x as f32)
        .collect();
    let batch = Batch {
        samples: SAMPLES,
        fill: &|i, out: &mut [f64]| out.copy_from_slice(&sample(i, length)),
        objective: &objective,
        targets: &Targets::vectors(&targets, OUTPUTS),
        teacher: None,
    };
    let report = engine.backward(&batch, 1, 1).unwrap();
    let layers = engine.gradients().iter().map(|[theta, _]| theta.clone());
    let others = engine
        .bias_gradients()
        .iter()
        .chain(engine.plain_gradients());
    (report.objective, layers.chain(others.cloned()).collect())
}

#[test]
fn an_engine_takes_one_length_after_another() {
    let network = encoder();
    let state = || State::<f64>::from_network(&network).unwrap();
    let mut free = engine(&network.graph, state());
    for length in [5, 2, 1, 7, 2] {
        free.set_length(length).unwrap();
        assert_eq!(free.input_len(), 2 * length);
        let got = gradients(&mut free, length);
        let mut fixed = engine(&network.graph.at_length(length), state());
        assert_eq!(got, gradients(&mut fixed, length), "length {length}");
        let fill = |i: usize, out: &mut [f64]| out.copy_from_slice(&sample(i, length));
        let outputs = free.predict(SAMPLES, &fill, &[]);
        for (i, outputs) in outputs.chunks(OUTPUTS).enumerate() {
            let inputs: Vec<f32> = sample(i, length).iter().map(|x| *x as f32).collect();
            let (ids, positions) = inputs.split_at(length);
            let want = executor::run_all(&network.at_length(length), &[ids, positions]);
            for (got, want) in outputs.iter().zip(&want[0]) {
                assert!((got - want).abs() < 1e-6, "{got} and {want}");
            }
        }
    }
}

/// Layers that compute with the weights that are left, in buffers of other lengths.
#[test]
fn sparse_layers_take_one_length_after_another() {
    let network = encoder();
    let state = || {
        let mut state = State::<f64>::from_network(&network).unwrap();
        for layer in &mut state.layers {
            let keep: Vec<bool> = (0..layer.theta.len()).map(|i| i % 6 == 1).collect();
            layer.remove(&keep);
        }
        state
    };
    let mut free = engine(&network.graph, state());
    for length in [6, 1, 3, 8, 2] {
        free.set_length(length).unwrap();
        let got = gradients(&mut free, length);
        let mut fixed = engine(&network.graph.at_length(length), state());
        assert_eq!(got, gradients(&mut fixed, length), "length {length}");
    }
}

#[test]
fn gradients_at_a_length_are_differences_of_the_loss() {
    let network = encoder();
    let state = State::<f64>::from_network(&network).unwrap();
    let at = |state: State<f64>| {
        let mut engine = engine(&network.graph, state);
        engine.set_length(6).unwrap();
        gradients(&mut engine, 6)
    };
    let (_, got) = at(state.clone());
    let layers = state.layers.len();
    let mut checked = 0;
    // Gradients are of the mean, and the loss is the sum.
    let difference = |change: &dyn Fn(&mut State<f64>, f64)| {
        let loss = |d| {
            let mut moved = state.clone();
            change(&mut moved, d);
            at(moved).0
        };
        (loss(1e-5) - loss(-1e-5)) / 2e-5 / SAMPLES as f64
    };
    let mut check = |got: f64, want: f64| {
        assert!(
            (got - want).abs() <= 1e-7 + 1e-4 * want.abs(),
            "gradient {got}, difference {want}"
        );
        checked += usize::from(want.abs() > 1e-9);
    };
    for t in 0..state.plain.len() {
        for (i, &gradient) in got[2 * layers + t].iter().enumerate() {
            let want = difference(&|s, d| s.plain[t].values[i] += d);
            check(gradient, want);
        }
    }
    for (l, layer) in state.layers.iter().enumerate() {
        for i in (0..layer.theta.len()).step_by(3) {
            check(got[l][i], difference(&|s, d| s.layers[l].theta[i] += d));
        }
    }
    assert!(checked > 60, "only {checked} gradients were not zero");
}

#[test]
fn frozen_tables_have_no_gradient_and_the_others_theirs() {
    let network = encoder();
    let state = State::<f64>::from_network(&network).unwrap();
    let mut frozen = state.clone();
    frozen.plain.iter_mut().for_each(|tensor| tensor.freeze());
    let of = |state: State<f64>| {
        let mut engine = engine(&network.graph, state);
        engine.set_length(4).unwrap();
        gradients(&mut engine, 4)
    };
    let (want, got) = (of(state.clone()), of(frozen));
    assert_eq!(want.0, got.0);
    let others = 2 * state.layers.len();
    assert_eq!(want.1[..others], got.1[..others]);
    assert!(want.1[others..].iter().flatten().any(|g| *g != 0.0));
    assert!(got.1[others..].iter().all(Vec::is_empty));
}

#[test]
fn a_network_whose_output_has_a_length_is_refused() {
    let mut network = encoder();
    network.graph.nodes.truncate(network.graph.nodes.len() - 2);
    network.graph.outputs = vec!["o".into()];
    let state = State::<f64>::from_network(&network).unwrap();
    let mut engine = engine(&network.graph, state);
    let error = engine.set_length(3).unwrap_err().to_string();
    assert!(error.contains("one vector per sample"), "{error}");
}
