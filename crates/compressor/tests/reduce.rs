//! Several processes that train one network together, here threads, against one process.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io;
use std::ops::Range;
use std::sync::{Arc, Barrier, Mutex};

use sparsevd_compressor::engine::{Batch, Engine, Hyper, Reduce, Rule};
use sparsevd_compressor::objective::{CrossEntropy, Distillation, Targets};
use sparsevd_compressor::variational::Granularity;
use sparsevd_compressor::{CompressError, State, initialise};
use sparsevd_kernels::Isa;
use sparsevd_model::{Network, presets};

const SAMPLES: usize = 60;
const STEPS: u32 = 3;

/// Numbers that each process brings, by its rank, and where all wait for each other.
struct Meeting {
    brought: Vec<Mutex<Vec<f64>>>,
    barrier: Barrier,
}

struct Process {
    rank: usize,
    parts: Vec<Range<usize>>,
    meeting: Arc<Meeting>,
}

impl Reduce<f64> for Process {
    fn part(&self, _: usize) -> Range<usize> {
        self.parts[self.rank].clone()
    }

    fn sum(&mut self, gradients: &mut [f64]) -> io::Result<()> {
        let meeting = &self.meeting;
        *meeting.brought[self.rank].lock().unwrap() = gradients.to_vec();
        meeting.barrier.wait();
        gradients.fill(0.0);
        for brought in &meeting.brought {
            let brought = brought.lock().unwrap();
            assert_eq!(brought.len(), gradients.len(), "all sum the same numbers");
            gradients
                .iter_mut()
                .zip(&*brought)
                .for_each(|(s, b)| *s += b);
        }
        meeting.barrier.wait();
        Ok(())
    }

    fn sum_statistics(&mut self, statistics: &mut [f64]) -> io::Result<()> {
        self.sum(statistics)
    }
}

/// Convolutions with batch normalisations, residual sums and a linear layer.
fn network() -> Network {
    let (graph, shapes) = presets::for_input("resnet-20", [1, 4, 4]).unwrap();
    initialise(graph, &shapes, 1).unwrap()
}

fn engine(network: &Network) -> Engine<f64> {
    let mut state = State::from_network(network).unwrap();
    for layer in &mut state.layers {
        layer.start_noise(-4.0, Granularity::Weight);
    }
    let isa = Isa::best();
    Engine::new(&network.graph, state, Granularity::Weight, isa, None).unwrap()
}

fn backward(engine: &mut Engine<f64>, step: u32) -> Result<f64, CompressError> {
    let labels: Vec<u16> = (0..SAMPLES as u16).map(|i| i % 10).collect();
    let fill = |i: usize, out: &mut [f64]| {
        for (p, x) in out.iter_mut().enumerate() {
            *x = ((p * 7 + i * 13) % 23) as f64 / 23.0;
        }
    };
    let batch = Batch {
        samples: SAMPLES,
        fill: &fill,
        objective: &CrossEntropy {
            smoothing: 0.0,
            distillation: Distillation::NONE,
        },
        targets: &Targets::classes(&labels),
        teacher: None,
    };
    Ok(engine.backward(&batch, 3, step)?.loss)
}

/// Trains some steps: the losses, all gradients of the last step, and every parameter.
fn train(mut engine: Engine<f64>) -> [Vec<f64>; 3] {
    let mut losses = vec![];
    for step in 1..=STEPS {
        losses.push(backward(&mut engine, step).unwrap());
        engine.update(&Hyper {
            rule: Rule::Adam,
            weight_decay: 0.0,
            learning_rate: 1e-3,
            learning_rate_log_sigma2: 1e-3,
            kl_weight: 1e-3,
            adam_step: step,
        });
    }
    let mut gradients = engine.gradients().concat().concat();
    gradients.extend(engine.bias_gradients().concat());
    gradients.extend(engine.normalisation_gradients().concat().concat());
    let parameters = engine.state().parameters();
    let parameters = parameters.iter().flat_map(|p| p.values.to_vec()).collect();
    [losses, gradients, parameters]
}

#[test]
fn processes_with_parts_of_a_batch_train_as_one_with_all_of_it() {
    let network = network();
    let alone = train(engine(&network));
    assert!(alone[1].iter().filter(|g| **g != 0.0).count() > 1000);
    #[allow(clippy::single_range_in_vec_init, reason = "one part is a case")]
    for parts in [vec![0..60], vec![0..30, 30..60], vec![0..7, 7..48, 48..60]] {
        let meeting = Arc::new(Meeting {
            brought: parts.iter().map(|_| Mutex::default()).collect(),
            barrier: Barrier::new(parts.len()),
        });
        let processes = (0..parts.len()).map(|rank| {
            let mut engine = engine(&network);
            engine.reduce_by(Box::new(Process {
                rank,
                parts: parts.clone(),
                meeting: meeting.clone(),
            }));
            std::thread::spawn(|| train(engine))
        });
        let processes: Vec<_> = processes.collect();
        let together: Vec<_> = processes.into_iter().map(|p| p.join().unwrap()).collect();
        for process in &together {
            assert_eq!(
                *process, together[0],
                "{parts:?}: the same in every process"
            );
            for (got, want) in process.iter().zip(&alone) {
                assert_eq!(got.len(), want.len());
                for (got, want) in got.iter().zip(want) {
                    let error = (got - want).abs();
                    assert!(
                        error <= 1e-9 * want.abs().max(1.0),
                        "{parts:?}: {got}, {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_process_without_samples_or_one_that_is_gone_is_an_error() {
    struct Gone(Range<usize>);

    impl Reduce<f64> for Gone {
        fn part(&self, _: usize) -> Range<usize> {
            self.0.clone()
        }

        fn sum(&mut self, _: &mut [f64]) -> io::Result<()> {
            Err(io::ErrorKind::ConnectionReset.into())
        }

        fn sum_statistics(&mut self, _: &mut [f64]) -> io::Result<()> {
            Ok(())
        }
    }

    let network = network();
    let message = |part| {
        let mut engine = engine(&network);
        engine.reduce_by(Box::new(Gone(part)));
        backward(&mut engine, 1).unwrap_err().to_string()
    };
    assert_eq!(
        message(5..5),
        "batch: expected samples for every process, got samples 5 to 5 of 60 for one"
    );
    assert_eq!(
        message(0..61),
        "batch: expected samples for every process, got samples 0 to 61 of 60 for one"
    );
    assert_eq!(message(0..30), "sums over the processes: connection reset");
}
