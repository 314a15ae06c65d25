//! A network whose gradients are checked by central differences.

use sparsevd_compressor::State;
use sparsevd_compressor::engine::{Batch, Engine};
use sparsevd_compressor::objective::{
    CrossEntropy, Distillation, Objective, SquaredError, Targets,
};
use sparsevd_compressor::variational::Granularity;
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{NoiseKey, normals};
use sparsevd_model::{DType, Dense, GraphBuilder, Input, Network, Op, Shape, Window, ops};

pub fn random(len: usize, stream: u32, scale: f64) -> Vec<f64> {
    let mut out = vec![0.0; len];
    normals(
        Isa::SCALAR,
        NoiseKey {
            seed: 99,
            step: 0,
            layer: 0,
            sample: stream,
        },
        &mut out,
    );
    out.iter_mut().for_each(|x| *x *= scale);
    out
}

/// Puts nodes `(name, op, inputs)` together with random weights of the given shapes. An input that a table is read by is ids.
pub fn network(
    input: Shape,
    nodes: Vec<(&str, Op, Vec<&str>)>,
    shapes: &[(&str, Shape)],
) -> Network {
    let mut b = GraphBuilder::new("test");
    let mut input = Input::new("x", input);
    if matches!(nodes[0].1, Op::Embedding(_)) {
        input.dtype = DType::I32;
    }
    b.free_input(input);
    for (i, (name, shape)) in shapes.iter().enumerate() {
        let values = random(shape.elements(), i as u32, 0.5).into_iter();
        let values = values.map(|x| x as f32).collect();
        b.weights(*name, Dense::new(shape.clone(), values));
    }
    for (name, op, inputs) in nodes {
        b.op(name, op, &inputs);
    }
    b.network(|name, _| panic!("{name} has no shape")).unwrap()
}

pub fn conv(name: &str, window: Window) -> Op {
    Op::Conv(ops::Conv {
        weight: format!("{name}.weight"),
        bias: Some(format!("{name}.bias")),
        window,
        groups: 1,
    })
}

pub fn linear(name: &str) -> Op {
    Op::Linear(ops::Linear {
        weight: format!("{name}.weight"),
        bias: Some(format!("{name}.bias")),
    })
}

pub fn window(
    kernel: [usize; 2],
    strides: [usize; 2],
    pads: [usize; 4],
    dilations: [usize; 2],
) -> Window {
    Window {
        kernel_shape: kernel,
        strides,
        pads,
        dilations,
    }
}

pub const SAMPLES: usize = 5;
/// Rows of the tables.
pub const IDS: usize = 7;

/// Of a batch with and without a teacher.
pub const DISTILLATION: Distillation = Distillation {
    share: 0.4,
    temperature: 2.0,
};

pub struct Case {
    pub network: Network,
    pub outputs: usize,
    /// Targets are numbers, and the loss is the squared error.
    pub regression: bool,
    pub teacher: bool,
}

/// Loss and gradients of a batch.
pub struct Gradients {
    pub loss: f64,
    pub layers: Vec<[Vec<f64>; 2]>,
    pub biases: Vec<Vec<f64>>,
    pub normalisations: Vec<[Vec<f64>; 2]>,
    pub plain: Vec<Vec<f64>>,
}

impl Case {
    pub fn state(&self, noise: bool) -> State<f64> {
        let mut state = State::from_network(&self.network).unwrap();
        for (i, layer) in state.layers.iter_mut().enumerate() {
            if noise {
                layer.start_noise(-3.0, Granularity::Weight);
            }
            if layer.is_variational() {
                layer.log_sigma2 = random(layer.theta.len(), 50 + i as u32, 1.0)
                    .iter()
                    .map(|x| x - 3.0)
                    .collect();
                layer.refresh_sigma2();
            }
        }
        state
    }

    /// As [`Self::state`] without noise, but with one weight of six in the layers that `few` says.
    pub fn state_of_few(&self, few: impl Fn(usize) -> bool) -> State<f64> {
        let mut state = self.state(false);
        let layers = state.layers.iter_mut().enumerate();
        for (_, layer) in layers.filter(|(i, l)| few(*i) && !l.is_depthwise()) {
            let keep: Vec<bool> = (0..layer.theta.len())
                .map(|i| (i + i / 7) % 6 == 2)
                .collect();
            layer.remove(&keep);
        }
        state
    }

    pub fn gradients(&self, state: State<f64>) -> Gradients {
        self.gradients_of(state, &self.data(SAMPLES))
    }

    /// Inputs of a batch.
    pub fn data(&self, samples: usize) -> Vec<f64> {
        let input = &self.network.graph.inputs[0];
        let len = samples * input.shape.elements();
        match input.dtype.is_id() {
            // Some rows of the table more often than others.
            true => (0..len).map(|i| (i * i % IDS) as f64).collect(),
            false => random(len, 77, 1.0),
        }
    }

    /// Of a batch of these inputs.
    pub fn gradients_of(&self, state: State<f64>, data: &[f64]) -> Gradients {
        self.gradients_by(state, data, true)
    }

    pub fn gradients_by(&self, state: State<f64>, data: &[f64], skip_zeros: bool) -> Gradients {
        let input = self.network.graph.inputs[0].shape.elements();
        let samples = data.len() / input;
        let teacher = random(samples * self.outputs, 78, 1.0);
        let labels: Vec<u16> = (0..samples).map(|i| (i % self.outputs) as u16).collect();
        let numbers = random(samples * self.outputs, 79, 1.0);
        let numbers: Vec<f32> = numbers.into_iter().map(|x| x as f32).collect();
        let cross_entropy = CrossEntropy {
            smoothing: 0.1,
            distillation: DISTILLATION,
        };
        let squared_error = SquaredError {
            deviation: 0.7,
            share: 0.4,
        };
        let (objective, targets): (&dyn Objective<f64>, _) = if self.regression {
            (&squared_error, Targets::vectors(&numbers, self.outputs))
        } else {
            (&cross_entropy, Targets::classes(&labels))
        };
        let mut engine = Engine::new(
            &self.network.graph,
            state,
            Granularity::Weight,
            Isa::best(),
            None,
        )
        .unwrap();
        engine.skip_zeros(skip_zeros);
        let of = |sample: usize, out: &mut [f64]| {
            out.copy_from_slice(&data[sample * input..(sample + 1) * input]);
        };
        // What earlier batches, a smaller one and then a larger one, left in the buffers changes nothing.
        let twice = [&labels[..], &labels].concat();
        let numbers_twice = [&numbers[..], &numbers].concat();
        for (step, samples_then) in [samples.div_ceil(3), 2 * samples].into_iter().enumerate() {
            let earlier = Batch {
                samples: samples_then,
                fill: &|i, out| of((3 * i + 1) % samples, out),
                objective,
                targets: &match self.regression {
                    true => Targets::vectors(&numbers_twice, self.outputs),
                    false => Targets::classes(&twice),
                },
                teacher: None,
            };
            engine.backward(&earlier, 5, step as u32).unwrap();
        }
        let batch = Batch {
            samples,
            fill: &of,
            objective,
            targets: &targets,
            teacher: self.teacher.then_some(&teacher),
        };
        let report = engine.backward(&batch, 5, 9).unwrap();
        Gradients {
            loss: report.objective / samples as f64,
            layers: engine.gradients().to_vec(),
            biases: engine.bias_gradients().to_vec(),
            normalisations: engine.normalisation_gradients().to_vec(),
            plain: engine.plain_gradients().to_vec(),
        }
    }

    pub fn check(&self, noise: bool) {
        let state = self.state(noise);
        let got = self.gradients(state.clone());
        let h = 1e-5;
        let mut checked = 0;
        let mut probe = |what: &str, got: f64, change: &dyn Fn(&mut State<f64>, f64)| {
            let at = |d: f64| {
                let mut moved = state.clone();
                change(&mut moved, d);
                self.gradients(moved).loss
            };
            let want = (at(h) - at(-h)) / (2.0 * h);
            assert!(
                (got - want).abs() <= 1e-6 + 1e-4 * want.abs(),
                "{what}: gradient {got}, difference {want}"
            );
            checked += usize::from(want.abs() > 1e-9);
        };
        for (l, layer) in state.layers.iter().enumerate() {
            let name = &layer.node;
            let n = layer.theta.len();
            for i in (0..n).step_by((n / 25).max(1)) {
                let by_theta = got.layers[l][0][i];
                probe(&format!("{name} theta[{i}]"), by_theta, &|s, d| {
                    s.layers[l].theta[i] += d
                });
                if layer.is_variational() {
                    let by_sigma2 = got.layers[l][1][i];
                    probe(&format!("{name} sigma2[{i}]"), by_sigma2, &|s, d| {
                        s.layers[l].sigma2[i] += d
                    });
                }
            }
            for (i, &gradient) in got.biases[l].iter().enumerate() {
                probe(&format!("{name} bias[{i}]"), gradient, &|s, d| {
                    s.layers[l].bias[i] += d
                });
            }
        }
        let trained = got.normalisations.iter().enumerate();
        for (n, [by_scale, by_bias]) in trained.filter(|(n, _)| !state.normalisations[*n].constant)
        {
            let name = &state.normalisations[n].node;
            for i in 0..by_scale.len() {
                probe(&format!("{name} scale[{i}]"), by_scale[i], &|s, d| {
                    s.normalisations[n].scale[i] += d
                });
                probe(&format!("{name} bias[{i}]"), by_bias[i], &|s, d| {
                    s.normalisations[n].bias[i] += d
                });
            }
        }
        for (t, tensor) in state.plain.iter().enumerate() {
            for (i, &gradient) in got.plain[t].iter().enumerate() {
                let what = format!("{}[{i}]", tensor.name);
                probe(&what, gradient, &|s, d| s.plain[t].values[i] += d);
            }
        }
        assert!(checked > 20, "only {checked} gradients were not zero");
    }
}
