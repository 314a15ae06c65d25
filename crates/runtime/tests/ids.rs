//! Inputs of ids, against the slow reference, and ids that number no row.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_kernels::Isa;
use sparsevd_model::{DType, GraphBuilder, Input, Network, Op, ops};
use sparsevd_runtime::{Plan, PlanOptions, Session, WeightMode};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::close::assert_sums_close;
use sparsevd_testing::executor::run_all;

const WORDS: usize = 9;
const KINDS: usize = 3;

/// Rows of two tables, added, and a layer over them; the kinds number rows of a third table too, which is larger.
fn encoder(free: bool) -> Network {
    let mut b = GraphBuilder::new("encoder");
    let mut input = |name: &str, dtype| {
        let input = match free {
            true => Input::with_free(name, [0], 0, "length"),
            false => Input::new(name, [5]),
        };
        b.free_input(input.of(dtype))
    };
    let (words, kinds) = (input("words", DType::I64), input("kinds", DType::I32));
    let mut rows = |name: &str, ids: &str, count: usize| {
        let table = b.tensor(format!("{name}.weight"), [count, 8]);
        b.op(name, Op::Embedding(ops::Embedding { table }), &[ids])
    };
    let a = rows("words.rows", &words, WORDS);
    let c = rows("kinds.rows", &kinds, KINDS);
    let d = rows("more.rows", &kinds, KINDS + 2);
    let sum = b.op("sum", Op::Add, &[&a, &c]);
    let sum = b.op("all", Op::Add, &[&sum, &d]);
    let relu = b.op("relu", Op::Relu, &[&sum]);
    b.linear("scores", &relu, 4);
    let mut stream = Stream(3);
    b.network(|_, shape| stream.bernoulli(shape.clone(), 0.8).into())
        .unwrap()
}

fn session(network: &Network, options: &PlanOptions) -> Session {
    Session::new(Plan::new(network, options).unwrap(), options.threads).unwrap()
}

#[test]
fn each_id_is_its_row_in_any_plan() {
    for free in [false, true] {
        let network = encoder(free);
        for isa in Isa::available() {
            for (batch, threads) in [(1, 1), (3, 2), (17, 1)] {
                for weights in [WeightMode::Sparse, WeightMode::Dense] {
                    let options = PlanOptions {
                        weights,
                        isa,
                        batch,
                        threads,
                        length: 5,
                        ..PlanOptions::default()
                    };
                    let session = session(&network, &options);
                    for length in if free { vec![1, 5, 40] } else { vec![5] } {
                        let known = network.at_length(length);
                        let id = |i: usize, rows| (i * 5 % rows) as f32;
                        let n = batch * length;
                        let words: Vec<f32> = (0..n).map(|i| id(i, WORDS)).collect();
                        let kinds: Vec<f32> = (0..n).map(|i| id(i, KINDS)).collect();
                        let mut y = vec![f32::NAN; n * 4];
                        session
                            .run(
                                batch,
                                &[("kinds", &kinds[..]), ("words", &words)],
                                &mut y[..],
                            )
                            .unwrap();
                        for (sample, y) in y.chunks(length * 4).enumerate() {
                            let of = sample * length..(sample + 1) * length;
                            let want = run_all(&known, &[&words[of.clone()], &kinds[of]]);
                            assert_sums_close(y, &want[0], 1e-5, session.plan());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn an_id_that_numbers_no_row_is_an_error_and_nothing_is_written() {
    let session = session(&encoder(false), &PlanOptions::default());
    let words = [0.0, 8.0, 1.0, 2.0, 3.0];
    for bad in [3.0, -1.0, 0.5, f32::NAN, f32::INFINITY, 16_777_216.0] {
        let kinds = [&[0.0; 5][..], &[2.0, 0.0, bad, 0.0, 0.0]].concat();
        let mut y = [7.0; 40];
        let run = session.run(
            2,
            &[("words", &words.repeat(2)[..]), ("kinds", &kinds)],
            &mut y[..],
        );
        let message = format!("input `kinds`, sample 1: expected ids from 0 to 2, got {bad}");
        assert_eq!(run.unwrap_err().to_string(), message);
        assert_eq!(y, [7.0; 40]);
    }
    let samples = [("words", &words[..]), ("kinds", &[9.0; 5])];
    let calibrated = Plan::calibrated(&encoder(false), &PlanOptions::default(), &samples);
    let error = calibrated.unwrap_err().to_string();
    assert_eq!(
        error,
        "input `kinds`, sample 0: expected ids from 0 to 2, got 9"
    );
}
