//! Values with a free dimension, and layers over several vectors of a sample, against the slow reference at each length.
#![allow(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;
use sparsevd_kernels::Isa;
use sparsevd_model::{Conv2d, DType, GraphBuilder, Input, Network, Op, Shape, ops};
use sparsevd_runtime::{Plan, PlanOptions, RuntimeError, Session, WeightMode};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::close::assert_sums_close;
use sparsevd_testing::executor::run_all;

/// Forty lengths: all short ones, both sides of powers of two, and some between.
const LENGTHS: [usize; 40] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 23, 24, 25, 31, 32, 33, 34,
    39, 47, 48, 49, 63, 64, 65, 77, 96, 100, 127, 128, 129, 150,
];

fn fill(b: GraphBuilder, density: f64, seed: u64) -> Network {
    let mut stream = Stream(seed);
    b.network(|_, shape| match shape.dims().len() {
        1 => stream.bernoulli(shape.clone(), 1.0).into(),
        _ => stream.sparse(shape.clone(), density).into(),
    })
    .unwrap()
}

fn softmax(axis: usize) -> Op {
    Op::Softmax(ops::Softmax { axis })
}

/// Over the last `dimensions` of a value. The epsilon keeps what rounding changes in a small variance from being magnified.
fn layer_norm(b: &mut GraphBuilder, name: &str, x: &str, dimensions: usize) -> String {
    let dims = b.shape(x).map_or(vec![], |shape| shape.dims().to_vec());
    let normalized = Shape(dims[dims.len().saturating_sub(dimensions)..].to_vec());
    let op = Op::LayerNormalization(ops::LayerNormalization {
        scale: b.tensor(format!("{name}.scale"), normalized.clone()),
        bias: Some(b.tensor(format!("{name}.bias"), normalized)),
        dimensions,
        epsilon: 0.1,
    });
    b.op(name, op, &[x])
}

/// With a slope for each channel, or one for all.
fn prelu(b: &mut GraphBuilder, name: &str, x: &str, per_channel: bool) -> String {
    let slope = match b.shape(x) {
        Some(shape) if per_channel => ops::PRelu::per_channel(shape),
        _ => Shape::from([1]),
    };
    let slope = b.tensor(format!("{name}.slope"), slope);
    b.op(name, Op::PRelu(ops::PRelu { slope }), &[x])
}

fn concat(axis: usize) -> Op {
    Op::Concat(ops::Concat { axis })
}

/// Two inputs, a sequence and a vector, and two outputs, of which the first is a sequence.
fn tagger(density: f64) -> Network {
    let mut b = GraphBuilder::new("tagger");
    let words = b.free_input(Input::with_free("words", [0, 24], 0, "length"));
    let context = b.input("context", [5]);
    let wide = b.linear("wide", &words, 40);
    let wide = b.op("relu", Op::Relu, &[&wide]);
    let wide = layer_norm(&mut b, "norm", &wide, 1);
    let narrow = b.linear("narrow", &wide, 24);
    let narrow = prelu(&mut b, "prelu", &narrow, false);
    let sum = b.op("sum", Op::Add, &[&narrow, &words]);
    let over_words = b.op("over_words", softmax(0), &[&sum]);
    let scores = b.linear("scores", &sum, 7);
    let each_word = b.op("each_word", softmax(1), &[&scores]);
    let both = b.op("both", concat(1), &[&over_words, &each_word]);
    let tags = b.linear("tags", &both, 6);
    let topic = b.linear("topic", &context, 4);
    let topic = b.op("topics", softmax(0), &[&topic]);
    b.output(&tags);
    b.output(&topic);
    fill(b, density, 11)
}

/// Two blocks of an encoder over words, then the mean of its vectors, at length 1.
fn encoder(density: f64) -> Network {
    let mut b = GraphBuilder::new("encoder");
    let mut x = b.free_input(Input::with_free("words", [0, 24], 0, "length"));
    for block in ["a", "b"] {
        let [q, k, v] = ["q", "k", "v"].map(|name| b.linear(format!("{block}.{name}"), &x, 24));
        let attention = Op::Attention(ops::Attention { heads: 3 });
        let attended = b.op(format!("{block}.attention"), attention, &[&q, &k, &v]);
        let attended = b.linear(format!("{block}.out"), &attended, 24);
        let sum = b.op(format!("{block}.sum"), Op::Add, &[&attended, &x]);
        x = layer_norm(&mut b, &format!("{block}.norm"), &sum, 1);
    }
    let mean = b.op("mean", Op::ReduceMean(ops::ReduceMean::default()), &[&x]);
    let unit = b.op("unit", Op::L2Normalize, &[&mean]);
    b.output(&unit);
    b.output(&x);
    fill(b, density, 5)
}

#[test]
fn an_encoder_is_exact_at_forty_lengths() {
    for density in [0.1, 1.0] {
        let network = encoder(density);
        for weights in [WeightMode::Sparse, WeightMode::Dense] {
            for (batch, threads) in [(1, 1), (3, 2), (17, 1)] {
                let options = PlanOptions {
                    weights,
                    batch,
                    threads,
                    ..PlanOptions::default()
                };
                let plan = Plan::new(&network, &options).unwrap();
                let session = Session::new(plan, threads).unwrap();
                for length in LENGTHS.into_iter().rev() {
                    check(&network, &session, batch, length);
                }
            }
        }
    }
}

/// A block of an encoder with enough work for threads: layers, attention, a function of each element, and a normalisation.
fn wide_encoder(density: f64) -> Network {
    let mut b = GraphBuilder::new("wide encoder");
    let x = b.free_input(Input::with_free("words", [0, 96], 0, "length"));
    let [q, k, v] = ["q", "k", "v"].map(|name| b.linear(name, &x, 96));
    let attention = Op::Attention(ops::Attention { heads: 3 });
    let attended = b.op("attention", attention, &[&q, &k, &v]);
    let sum = b.op("sum", Op::Add, &[&attended, &x]);
    let x = layer_norm(&mut b, "norm", &sum, 1);
    let hidden = b.linear("hidden", &x, 200);
    let hidden = b.op(
        "gelu",
        Op::Gelu(ops::Gelu {
            approximate: ops::Approximate::None,
        }),
        &[&hidden],
    );
    let y = b.linear("narrow", &hidden, 96);
    b.output(&y);
    fill(b, density, 6)
}

#[test]
fn threads_share_one_sequence_and_change_no_bit() {
    for density in [0.4, 1.0] {
        let network = wide_encoder(density);
        let session = |threads| {
            let options = PlanOptions {
                threads,
                length: 150,
                ..PlanOptions::default()
            };
            Session::new(Plan::new(&network, &options).unwrap(), threads).unwrap()
        };
        let [one, others @ ..] = [1, 2, 3, 5].map(session);
        assert_eq!([2, 3, 5], [0, 1, 2].map(|i: usize| others[i].threads()));
        for session in &others {
            let (plan, threads) = (session.plan(), session.threads());
            let parts = |name| {
                let nodes = plan.nodes().iter().filter(|n| n.name == name);
                nodes.map(|n| n.parts).max().unwrap()
            };
            for name in ["q", "attention", "hidden"] {
                assert_eq!(parts(name), threads, "{name}\n{plan}");
            }
            for name in ["sum", "norm", "gelu"] {
                assert!(parts(name) > 1, "{name}\n{plan}");
            }
        }
        for length in LENGTHS {
            let x = Stream(length as u64).floats(length * 96);
            let run = |session: &Session| {
                let mut y = vec![f32::NAN; length * 96];
                session.run(1, &x, &mut y).unwrap();
                y.iter().map(|y| y.to_bits()).collect::<Vec<u32>>()
            };
            let want = run(&one);
            for session in &others {
                assert!(run(session) == want, "length {length}\n{}", session.plan());
            }
            check(&network, &one, 1, length);
        }
    }
}

/// The plan for 65 to 128 vectors has the multiply-adds of 128.
#[test]
fn a_profile_counts_the_multiply_adds_of_the_length_that_ran() {
    let options = PlanOptions {
        length: 66,
        ..PlanOptions::default()
    };
    let plan = Plan::new(&wide_encoder(1.0), &options).unwrap();
    let session = Session::new(plan, 1).unwrap();
    let x = Stream(1).floats(66 * 96);
    let budget = std::time::Duration::from_millis(1);
    let times = sparsevd_runtime::profile::profile(&session, 1, &x, budget).unwrap();
    let hidden = times
        .nodes
        .iter()
        .find(|n| n.node.name == "hidden")
        .unwrap();
    let multiply_adds = hidden.gflops * hidden.us * 1e3 / 2.0;
    assert!(
        (multiply_adds - f64::from(66 * 96 * 200)).abs() < 1.0,
        "{multiply_adds}"
    );
}

/// A sequence of 64 vectors, then a head over two vectors, and one over all of them.
fn pooled(head: usize) -> Network {
    let mut b = GraphBuilder::new("pooled");
    let x = b.input("words", [64, 96]);
    let x = b.linear("a", &x, 400);
    let x = b.linear("b", &x, 8);
    let reshape = |dims: &[usize]| {
        let shape = dims.to_vec();
        Op::Reshape(ops::Reshape { shape })
    };
    let x = b.op("pairs", reshape(&[2, 256]), &[&x]);
    let x = b.linear("pair", &x, 600);
    let x = b.op("flat", reshape(&[1200]), &[&x]);
    b.linear("head", &x, head);
    fill(b, 1.0, 3)
}

fn kernel_and_parts(plan: &Plan, name: &str) -> (String, usize) {
    let mut nodes = plan.nodes().iter().filter(|n| n.name == name);
    nodes.next().map(|n| (n.kernel.clone(), n.parts)).unwrap()
}

#[test]
fn a_layer_of_one_group_leaves_the_sequence_to_all_threads() {
    let options = PlanOptions {
        threads: 2,
        ..PlanOptions::default()
    };
    let plan = Plan::new(&pooled(10), &options).unwrap();
    assert_eq!(kernel_and_parts(&plan, "a").1, 2, "{plan}");
    // Two vectors are one group.
    assert_eq!(kernel_and_parts(&plan, "pair").1, 1, "{plan}");
}

/// A head has more of the work than the sequence, and its own layout.
#[test]
fn layers_over_one_vector_choose_their_layout_beside_sequences() {
    let plan = |network: &Network, batch| {
        let options = PlanOptions {
            batch,
            ..PlanOptions::default()
        };
        Plan::new(network, &options).unwrap()
    };
    let dense = pooled(8000);
    let alone = plan(&dense, 1);
    assert!(
        kernel_and_parts(&alone, "head").0.contains("gemv"),
        "{alone}"
    );
    let batch = plan(&dense, 3);
    assert!(
        kernel_and_parts(&batch, "head").0.contains("panels"),
        "{batch}"
    );
    let mut sparse = dense.clone();
    let weight = Stream(8).sparse([8000, 1200], 0.1);
    sparse.tensors.insert("head.weight".into(), weight.into());
    let batch = plan(&sparse, 4);
    assert!(
        kernel_and_parts(&batch, "head").0.contains("4x16"),
        "{batch}"
    );
}

/// Inputs of attention that are one value have one place in memory.
#[test]
fn queries_keys_and_values_may_be_one_value() {
    for order in [
        [0, 0, 0],
        [0, 0, 1],
        [0, 1, 0],
        [1, 0, 0],
        [0, 1, 2],
        [2, 1, 0],
    ] {
        // Inputs of the network, and values in memory of the session.
        for computed in [false, true] {
            let mut b = GraphBuilder::new("attention");
            let x = b.free_input(Input::with_free("x", [0, 6], 0, "length"));
            let mut values = [x.clone(), x.clone(), x];
            if computed {
                for (i, value) in values.iter_mut().enumerate() {
                    *value = b.linear(format!("linear{i}"), value, 6);
                }
            }
            let inputs = order.map(|i| values[i].as_str());
            let attention = Op::Attention(ops::Attention { heads: 2 });
            let y = b.op("attention", attention, &inputs);
            b.output(&y);
            let network = fill(b, 1.0, 2);
            let session = Session::new(Plan::new(&network, &PlanOptions::default()).unwrap(), 1);
            check(&network, &session.unwrap(), 2, 5);
        }
    }
}

/// Runs a network for `batch` samples of each length, and compares each sample with the reference.
fn check(network: &Network, session: &Session, batch: usize, length: usize) {
    let known = network.at_length(length);
    let plan = session.plan();
    let mut stream = Stream((batch * 1000 + length) as u64);
    let inputs: Vec<Vec<f32>> = (plan.inputs().iter())
        .map(|v| stream.floats(batch * v.elements(length)))
        .collect();
    let mut outputs: Vec<Vec<f32>> = (plan.outputs().iter())
        .map(|v| vec![f32::NAN; batch * v.elements(length)])
        .collect();
    let named: Vec<(&str, &[f32])> = (plan.inputs().iter().zip(&inputs))
        .map(|(v, x)| (v.name.as_str(), x.as_slice()))
        .collect();
    let mut results: Vec<(&str, &mut [f32])> = (plan.outputs().iter().zip(&mut outputs))
        .map(|(v, y)| (v.name.as_str(), y.as_mut_slice()))
        .collect();
    session.run(batch, &named[..], &mut results[..]).unwrap();
    let of = |all: &[f32], sample: usize| {
        let each = all.len() / batch;
        all[sample * each..][..each].to_vec()
    };
    for sample in 0..batch {
        let x: Vec<Vec<f32>> = inputs.iter().map(|x| of(x, sample)).collect();
        let x: Vec<&[f32]> = x.iter().map(Vec::as_slice).collect();
        for (y, want) in outputs.iter().zip(run_all(&known, &x)) {
            let context = format!("sample {sample} of {batch}, length {length}\n{plan}");
            assert_sums_close(&of(y, sample), &want, 1e-4, context);
        }
    }
}

#[test]
fn a_network_of_two_inputs_and_outputs_is_exact_at_forty_lengths_and_planned_once_for_each_bucket()
{
    for density in [0.1, 1.0] {
        let network = tagger(density);
        for weights in [WeightMode::Sparse, WeightMode::Dense] {
            for (batch, threads) in [(1, 1), (3, 2), (17, 1)] {
                let options = PlanOptions {
                    weights,
                    batch,
                    threads,
                    length: 20,
                    ..PlanOptions::default()
                };
                let session =
                    Session::new(Plan::new(&network, &options).unwrap(), threads).unwrap();
                assert_eq!(session.plans().count(), 1);
                // The longest first, so that what it left in memory would show.
                for length in LENGTHS.into_iter().rev() {
                    check(&network, &session, batch, length);
                    // Other batches run too.
                    check(&network, &session, 2, length);
                }
                // 1, 2, 4, 8, 16, 32, 64, 128 and 256.
                assert_eq!(session.plans().count(), 9);
                let lengths: usize = session.plans().map(|p| p.free().unwrap().1.count()).sum();
                assert_eq!(lengths, 256, "each length has one plan");
            }
        }
    }
}

#[test]
fn callers_on_many_threads_share_the_plans_of_all_lengths() {
    let network = tagger(0.2);
    let session = Session::new(Plan::new(&network, &PlanOptions::default()).unwrap(), 1).unwrap();
    std::thread::scope(|scope| {
        for first in 0..6 {
            let (network, session) = (&network, &session);
            scope.spawn(move || {
                for i in 0..12 {
                    check(network, session, 1, 1 + (7 * i + first) % 40);
                }
            });
        }
    });
    assert_eq!(session.plans().count(), 7);
}

#[test]
fn a_plan_says_for_which_lengths_it_is_and_names_the_free_dimension() {
    let options = PlanOptions {
        length: 20,
        ..PlanOptions::default()
    };
    let plan = Plan::new(&tagger(0.1), &options).unwrap();
    let text = plan.to_string();
    assert!(text.contains("for a length of 17 to 32"), "{text}");
    assert!(
        text.contains("inputs words [length, 24], context [5]"),
        "{text}"
    );
    assert!(
        text.contains("outputs tags [length, 6], topics [4]"),
        "{text}"
    );
    for length in [0, 1 << 30, usize::MAX] {
        let error = Plan::new(&tagger(0.1), &PlanOptions { length, ..options }).unwrap_err();
        assert!(
            matches!(
                error,
                RuntimeError::Option {
                    option: "length",
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn inputs_that_are_no_whole_samples_of_one_length_are_errors() {
    let network = {
        let mut b = GraphBuilder::new("pair");
        let x = b.free_input(Input::with_free("x", [0, 3], 0, "length"));
        let y = b.free_input(Input::with_free("y", [0, 3], 0, "length"));
        b.op("sum", Op::Add, &[&x, &y]);
        fill(b, 1.0, 1)
    };
    let session = Session::new(Plan::new(&network, &PlanOptions::default()).unwrap(), 1).unwrap();
    let run = |batch: usize, x: usize, y: usize, sum: usize| {
        let (x, y, mut sum) = (vec![1.0; x], vec![2.0; y], vec![0.0; sum]);
        let inputs: [(&str, &[f32]); 2] = [("y", &y), ("x", &x)];
        let result = session.run(batch, &inputs, &mut sum);
        result.map(|()| sum).map_err(|e| e.to_string())
    };
    assert_eq!(run(2, 12, 12, 12), Ok(vec![3.0; 12]));
    assert_eq!(run(0, 0, 0, 0), Ok(vec![]));
    let error = |result: Result<Vec<f32>, String>| result.unwrap_err();
    assert_eq!(
        error(run(2, 9, 9, 9)),
        "elements of 2 samples of input `x`: expected a multiple of [length, 3], got 9"
    );
    assert_eq!(
        error(run(1, 0, 0, 0)),
        "elements of 1 samples of input `x`: expected a multiple of [length, 3], got 0"
    );
    assert_eq!(
        error(run(1, 6, 9, 6)),
        "elements of 1 samples of input `y`: expected 6, got 9"
    );
    assert_eq!(
        error(run(1, 6, 6, 9)),
        "elements of 1 samples of output `sum`: expected 6, got 9"
    );
    assert!(run(usize::MAX, 6, 6, 6).is_err());
}

#[test]
fn operators_that_take_no_free_dimension_or_type_are_named() {
    let error = |build: &dyn Fn(&mut GraphBuilder, &str)| {
        let mut b = GraphBuilder::new("test");
        let x = b.free_input(Input::with_free("x", [4, 0, 6], 1, "height"));
        build(&mut b, &x);
        b.finish().unwrap_err().to_string()
    };
    let conv = error(&|b, x| {
        b.conv("c", x, &Conv2d::square(2, 1));
    });
    assert_eq!(
        conv,
        "node `c` (Conv): expected a known size in each dimension, got [4, height, 6]"
    );
    let flat = error(&|b, x| {
        b.op("f", Op::Flatten, &[x]);
    });
    assert!(flat.starts_with("node `f` (Flatten)"), "{flat}");
    let normalized = error(&|b, x| {
        layer_norm(b, "l", x, 2);
    });
    assert!(normalized.contains("tensor `l.scale`"), "{normalized}");
    let joined = error(&|b, x| {
        b.op("j", concat(1), &[x, x]);
    });
    assert!(joined.starts_with("node `j` (Concat)"), "{joined}");
    let other = error(&|b, _| {
        b.free_input(Input::with_free("y", [0], 0, "width"));
    });
    assert!(
        other.contains("input `y`") && other.contains("[width]"),
        "{other}"
    );

    let mut b = GraphBuilder::new("test");
    let ids = b.free_input(Input::new("ids", [3]).of(DType::I64));
    b.op("r", Op::Relu, &[&ids]);
    let error = b.finish().unwrap_err().to_string();
    assert_eq!(
        error,
        "node `r` (Relu): expected an input of f32, got i64 [3]"
    );
    // What numbers no row cannot be run either.
    for dtype in [DType::U8, DType::I64] {
        let mut b = GraphBuilder::new("test");
        let x = b.free_input(Input::new("x", [3]).of(dtype));
        b.output(&x);
        let network = fill(b, 1.0, 1);
        let error = Plan::new(&network, &PlanOptions::default()).unwrap_err();
        let expected = format!(
            "network `test`: inputs: expected f32, or ids that number rows of a table, got {dtype} [3] (`x`)"
        );
        assert_eq!(error.to_string(), expected);
    }
}

/// One more node of a random network over vectors, `[length, width]` or `[2, length, width]`.
#[derive(Debug, Clone)]
enum Recipe {
    Linear(usize),
    Function(Op),
    /// With an earlier value of the same shape, chosen by this number.
    Arithmetic(Op, usize),
    /// Along the dimension of this number.
    Softmax(usize),
    /// Along the dimension of this number.
    LogSoftmax(usize),
    /// With an earlier value, chosen by the first number, along the dimension of the second.
    Concat(usize, usize),
    /// Over that many dimensions.
    LayerNorm(usize),
    /// With a slope for each channel, or one.
    PRelu(bool),
    /// With that many heads, of keys and values chosen by the other numbers.
    Attention(usize, [usize; 2]),
    /// Along the first dimension, where two are more.
    Mean,
    /// Vectors of length 1.
    Normalize,
    /// Where no dimension is free.
    Flatten,
    /// Along the dimension of this number, from the second on and before the third.
    Slice(usize, [usize; 2]),
}

fn recipe() -> impl Strategy<Value = Recipe> {
    prop_oneof![
        4 => (1usize..40).prop_map(Recipe::Linear),
        2 => prop_oneof![Just(Op::Relu), Just(Op::Tanh), Just(Op::Sigmoid), Just(Op::Softplus)].prop_map(Recipe::Function),
        2 => (prop_oneof![Just(Op::Add), Just(Op::Mul), Just(Op::Sub), Just(Op::Max)], any::<usize>())
            .prop_map(|(op, n)| Recipe::Arithmetic(op, n)),
        2 => any::<usize>().prop_map(Recipe::Softmax),
        2 => any::<usize>().prop_map(Recipe::LogSoftmax),
        2 => any::<[usize; 2]>().prop_map(|[n, axis]| Recipe::Concat(n, axis)),
        2 => any::<usize>().prop_map(Recipe::LayerNorm),
        2 => any::<bool>().prop_map(Recipe::PRelu),
        2 => (1usize..4, any::<[usize; 2]>()).prop_map(|(heads, of)| Recipe::Attention(heads, of)),
        1 => Just(Recipe::Mean),
        1 => Just(Recipe::Normalize),
        1 => Just(Recipe::Flatten),
        2 => (any::<usize>(), 0usize..3, 1usize..5).prop_map(|(axis, start, n)| Recipe::Slice(axis, [start, start + n])),
        2 => any::<usize>().prop_map(|axis| Recipe::Slice(axis, [0, 1])),
    ]
}

/// Builds what the recipes describe behind an input of that shape, of which `free` may be free; what does not fit is left out.
fn build(
    shape: Shape,
    free: Option<usize>,
    recipes: &[Recipe],
    density: f64,
    seed: u64,
) -> Network {
    let mut b = GraphBuilder::new("random");
    let x = match free {
        Some(dimension) => b.free_input(Input::with_free("x", shape, dimension, "length")),
        None => b.input("x", shape),
    };
    let mut values = vec![x];
    for (i, recipe) in recipes.iter().enumerate() {
        let mut longer = b.clone();
        let x = values[values.len() - 1].clone();
        let name = format!("n{i}");
        let rank = b.shape(&x).map_or(1, |s| s.dims().len());
        let earlier = |n: usize| values[n % values.len()].clone();
        let value = match recipe {
            Recipe::Linear(out) => longer.linear(name, &x, *out),
            Recipe::Function(op) => longer.op(name, op.clone(), &[&x]),
            Recipe::Arithmetic(op, n) => longer.op(name, op.clone(), &[&x, &earlier(*n)]),
            Recipe::Softmax(axis) => longer.op(name, softmax(axis % rank), &[&x]),
            Recipe::LogSoftmax(axis) => {
                let op = Op::LogSoftmax(ops::LogSoftmax { axis: axis % rank });
                longer.op(name, op, &[&x])
            }
            Recipe::Concat(n, axis) => {
                longer.op(name, concat(axis % rank), &[&x, &earlier(*n), &x])
            }
            Recipe::LayerNorm(n) => layer_norm(&mut longer, &name, &x, 1 + n % rank),
            Recipe::PRelu(per_channel) => prelu(&mut longer, &name, &x, *per_channel),
            Recipe::Attention(heads, [k, v]) => {
                let op = Op::Attention(ops::Attention { heads: *heads });
                longer.op(name, op, &[&x, &earlier(*k), &earlier(*v)])
            }
            Recipe::Mean => longer.op(name, Op::ReduceMean(ops::ReduceMean::default()), &[&x]),
            Recipe::Normalize => longer.op(name, Op::L2Normalize, &[&x]),
            Recipe::Flatten => longer.op(name, Op::Flatten, &[&x]),
            Recipe::Slice(axis, [start, end]) => {
                let slice = ops::Slice {
                    axis: axis % rank,
                    start: *start,
                    end: *end,
                };
                longer.op(name, Op::Slice(slice), &[&x])
            }
        };
        if longer.clone().finish().is_ok() {
            values.push(value);
            b = longer;
        }
    }
    b.output(&values[values.len() / 2]);
    if values.len() > 2 {
        b.output(&values[values.len() - 1]);
    }
    fill(b, density, seed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_network_over_vectors_computes_what_the_reference_does(
        outer in prop_oneof![Just(None), (1usize..4).prop_map(Some)],
        length in 1usize..20,
        width in 1usize..24,
        free in any::<bool>(),
        last in any::<bool>(),
        recipes in proptest::collection::vec(recipe(), 0..9),
        density in prop_oneof![Just(0.05), Just(0.3), Just(1.0)],
        seed in any::<u64>(),
    ) {
        let mut dims = vec![length, width];
        if last {
            dims.reverse();
        }
        dims.splice(0..0, outer);
        let dimension = dims.len() - if last { 1 } else { 2 };
        let network = build(Shape(dims), free.then_some(dimension), &recipes, density, seed);
        for isa in Isa::available() {
            for weights in [WeightMode::Sparse, WeightMode::Dense] {
                for (batch, threads) in [(1, 1), (3, 2), (17, 1)] {
                    let options = PlanOptions { weights, isa, batch, threads, length, ..PlanOptions::default() };
                    let session = Session::new(Plan::new(&network, &options).unwrap(), threads).unwrap();
                    for n in [batch, 5] {
                        check(&network, &session, n, length);
                        if free {
                            check(&network, &session, n, length + 13);
                        }
                    }
                }
            }
        }
    }
}
