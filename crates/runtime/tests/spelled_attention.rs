//! Attention that a network spells out as products, a softmax and moves of heads, as exporters write it.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_model::{Dense, GraphBuilder, Network, Op, ops, passes};
use sparsevd_runtime::{Plan, PlanOptions, Session};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::close::assert_sums_close;
use sparsevd_testing::executor::run_all;

const VECTORS: usize = 6;
const HEADS: usize = 2;
const WIDTH: usize = 4;

/// How a network spells attention.
#[derive(Debug, Clone, Copy)]
struct Spelling {
    /// What queries, keys, scores and values are multiplied by.
    factors: [f32; 4],
    /// Whether the scores have numbers added to them, as a mask does.
    is_masked: bool,
    /// Whether the first head has another factor than the second.
    factors_differ: bool,
    /// Whether keys are turned as a whole, then cut into heads.
    keys_as_rows: bool,
    /// Whether heads are cut in another order than attention has.
    other_heads: bool,
    /// Whether something else reads the shares.
    shares_are_read: bool,
}

const PLAIN: Spelling = Spelling {
    factors: [1.0, 1.0, 0.5, 1.0],
    is_masked: false,
    factors_differ: false,
    keys_as_rows: false,
    other_heads: false,
    shares_are_read: false,
};

fn network(spelling: Spelling) -> Network {
    let mut b = GraphBuilder::new("attention");
    let x = b.input("x", [VECTORS, HEADS * WIDTH]);
    let [q, k, v] = ["q", "k", "v"].map(|name| b.linear(name, &x, HEADS * WIDTH));
    let times = |b: &mut GraphBuilder, name: &str, value: &str, by: f32| -> String {
        if by == 1.0 {
            return value.to_owned();
        }
        let channels = b.shape(value).unwrap().dims()[0];
        let tensor =
            |b: &mut GraphBuilder, part: &str| b.tensor(format!("{name}.{part}"), [channels]);
        let op = Op::BatchNormalization(ops::BatchNormalization {
            scale: tensor(b, &format!("times {by}")),
            bias: tensor(b, "zero"),
            mean: tensor(b, "mean zero"),
            variance: tensor(b, "one"),
            epsilon: 0.0,
        });
        b.op(format!("{name}.factor"), op, &[value])
    };
    let [of_queries, of_keys, of_scores, of_values] = spelling.factors;
    let q = times(&mut b, "queries", &q, of_queries);
    let k = times(&mut b, "keys", &k, of_keys);
    let v = times(&mut b, "values", &v, of_values);
    let reshape = |b: &mut GraphBuilder, name: &str, value: &str, shape: &[usize]| {
        let shape = shape.to_vec();
        b.op(name, Op::Reshape(ops::Reshape { shape }), &[value])
    };
    let transpose = |b: &mut GraphBuilder, name: &str, value: &str, perm: &[usize]| {
        let perm = perm.to_vec();
        b.op(name, Op::Transpose(ops::Transpose { perm }), &[value])
    };
    let heads = |b: &mut GraphBuilder, name: &str, value: &str, perm: &[usize]| {
        let (cut, moved) = (format!("{name}.cut"), format!("{name}.moved"));
        if spelling.other_heads && perm == [1, 0, 2] {
            let cut = reshape(b, &cut, value, &[VECTORS, WIDTH, HEADS]);
            return transpose(b, &moved, &cut, &[2, 0, 1]);
        }
        let cut = reshape(b, &cut, value, &[VECTORS, HEADS, WIDTH]);
        transpose(b, &moved, &cut, perm)
    };
    let q = heads(&mut b, "q", &q, &[1, 0, 2]);
    let k = if spelling.keys_as_rows {
        let turned = transpose(&mut b, "k.turned", &k, &[1, 0]);
        reshape(&mut b, "k.cut", &turned, &[HEADS, WIDTH, VECTORS])
    } else {
        heads(&mut b, "k", &k, &[1, 2, 0])
    };
    let v = heads(&mut b, "v", &v, &[1, 0, 2]);
    let scores = b.op("scores", Op::MatMul, &[&q, &k]);
    let mut scores = times(&mut b, "scores", &scores, of_scores);
    if spelling.is_masked {
        let mask = b.linear("mask", &x, HEADS * VECTORS);
        let shape = [HEADS, VECTORS, VECTORS];
        let mask = reshape(&mut b, "mask.cut", &mask, &shape);
        scores = b.op("masked", Op::Add, &[&scores, &mask]);
    }
    let shares = b.op("shares", Op::Softmax(ops::Softmax { axis: 2 }), &[&scores]);
    let y = b.op("products", Op::MatMul, &[&shares, &v]);
    let y = transpose(&mut b, "y.moved", &y, &[1, 0, 2]);
    let y = reshape(&mut b, "y.joined", &y, &[VECTORS, HEADS * WIDTH]);
    let out = b.linear("out", &y, 5);
    b.output(&out);
    if spelling.shares_are_read {
        b.output(&shares);
    }
    let mut stream = Stream(3);
    let network = b.network(|name, shape| {
        let count = shape.elements();
        let values = match name.split_once('.').map(|(_, part)| part) {
            Some("zero" | "mean zero") => vec![0.0; count],
            Some("one") => vec![1.0; count],
            Some(part) if part.starts_with("times ") => {
                let mut factors = vec![part[6..].parse().unwrap(); count];
                factors[0] *= if spelling.factors_differ { 1.5 } else { 1.0 };
                factors
            }
            _ => stream.floats(count),
        };
        Dense::new(shape.clone(), values).into()
    });
    network.unwrap()
}

/// Whether a plan has one step for it; its outputs are right in any case.
fn is_one_step(spelling: Spelling) -> bool {
    let network = network(spelling);
    let options = PlanOptions {
        batch: 3,
        ..PlanOptions::default()
    };
    let plan = Plan::new(&network, &options).unwrap();
    let steps = plan.nodes().iter().filter(|n| n.op == "Attention");
    let steps = steps.count();
    assert!(steps <= 1, "{plan}");
    let session = Session::new(plan, 1).unwrap();
    let of_sample = VECTORS * HEADS * WIDTH;
    let x = Stream(8).floats(3 * of_sample);
    let mut outputs: Vec<Vec<f32>> = (session.plan().outputs().iter())
        .map(|o| vec![f32::NAN; 3 * o.shape.elements()])
        .collect();
    let mut named: Vec<(&str, &mut [f32])> = (session.plan().outputs().iter().zip(&mut outputs))
        .map(|(o, y)| (o.name.as_str(), y.as_mut_slice()))
        .collect();
    session
        .run(3, &[("x", &x[..])][..], &mut named[..])
        .unwrap();
    for (sample, x) in x.chunks_exact(of_sample).enumerate() {
        for (y, want) in outputs.iter().zip(run_all(&network, &[x])) {
            let y = y[sample * want.len()..][..want.len()].to_vec();
            assert_sums_close(&y, &want, 1e-4, format!("{spelling:?}, sample {sample}"));
        }
    }
    steps == 1
}

#[test]
fn attention_is_one_step_however_it_is_spelled() {
    for [q, k, scores] in [
        [1.0, 1.0, 0.5],
        [0.5, 1.0, 1.0],
        [0.25, 2.0, 1.0],
        [2.0, 0.5, 0.5],
    ] {
        let factors = [q, k, scores, 1.0];
        for keys_as_rows in [false, true] {
            let spelling = Spelling {
                factors,
                keys_as_rows,
                ..PLAIN
            };
            assert!(is_one_step(spelling), "{spelling:?}");
        }
    }
    let fused = passes::fuse_attention(&network(PLAIN)).unwrap();
    let names: Vec<&str> = fused.graph.nodes.iter().map(|n| n.op.name()).collect();
    assert_eq!(names, ["Linear", "Linear", "Linear", "Attention", "Linear"]);
    // What it no longer names is gone.
    assert_eq!(fused.tensors.len(), 8);
    assert!(passes::fuse_attention(&fused).is_none());
}

#[test]
fn what_is_almost_attention_stays_as_it_is() {
    let almost = [
        Spelling {
            factors: [1.0, 1.0, 0.25, 1.0],
            ..PLAIN
        },
        Spelling {
            factors: [1.0, 1.0, 0.5, 2.0],
            ..PLAIN
        },
        Spelling {
            is_masked: true,
            ..PLAIN
        },
        Spelling {
            factors_differ: true,
            ..PLAIN
        },
        Spelling {
            factors: [1.0; 4],
            ..PLAIN
        },
        Spelling {
            other_heads: true,
            ..PLAIN
        },
        Spelling {
            shares_are_read: true,
            ..PLAIN
        },
    ];
    for spelling in almost {
        assert!(!is_one_step(spelling), "{spelling:?}");
    }
}
