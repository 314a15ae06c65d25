//! At equal batch, a network has the same outputs, to the bit, on any number of threads: all presets and the committed networks.
//!
//! `SPARSEVD_SAME_BITS=1 cargo test --release --test same_bits -- --nocapture` takes all batches from 1 to 33 on one to eight threads; without it, a
//! few of each. The instruction set is the best of the machine, and for single samples each of the others.
#![allow(clippy::unwrap_used, reason = "a test")]

mod networks;

use sparsevd_kernels::Isa;
use sparsevd_model::Network;
use sparsevd_runtime::{Plan, PlanOptions, Session, WeightMode};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::number_from_env;

const MOST_THREADS: usize = 8;

/// The bits of the outputs for a batch.
fn run(network: &Network, options: &PlanOptions, input: &[f32]) -> Vec<u32> {
    let plan = Plan::new(network, options).unwrap();
    let mut output = vec![f32::NAN; options.batch * plan.output_shape().elements()];
    let session = Session::new(plan, options.threads).unwrap();
    session.run(options.batch, input, &mut output).unwrap();
    output.into_iter().map(f32::to_bits).collect()
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let all = number_from_env("SPARSEVD_SAME_BITS", 0) > 0;
    let (batches, threads): (Vec<usize>, Vec<usize>) = match all {
        true => ((2..=33).collect(), (2..=MOST_THREADS).collect()),
        false => (vec![5, 16, 20], vec![2, 3]),
    };
    let mut wrong = Vec::new();
    for (name, network) in networks::all() {
        let mut compared = 0;
        for weights in [WeightMode::Sparse, WeightMode::Dense] {
            let single = Isa::available().into_iter().map(|isa| (isa, 1));
            for (isa, batch) in single.chain(batches.iter().map(|&b| (Isa::best(), b))) {
                let options = |threads| PlanOptions {
                    weights,
                    isa,
                    batch,
                    threads,
                    ..PlanOptions::default()
                };
                let elements = network.graph.inputs[0].tensor_type().shape(1).elements();
                let input = Stream(9).floats(batch * elements);
                let one = run(&network, &options(1), &input);
                for &threads in &threads {
                    compared += 1;
                    if run(&network, &options(threads), &input) != one {
                        wrong.push(format!(
                            "{name}, {weights}, {isa}, batch {batch}, {threads} threads"
                        ));
                    }
                }
            }
        }
        println!("{name}: {compared} runs compared");
    }
    assert!(
        wrong.is_empty(),
        "other bits than on one thread:\n{}",
        wrong.join("\n")
    );
}
