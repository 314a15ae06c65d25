//! Gradients of passes that skip zeros against those of passes that take all weights.

use crate::case::*;
use crate::networks::*;
use sparsevd_compressor::engine::{Batch, Engine};
use sparsevd_compressor::objective::{CrossEntropy, Distillation, Targets};
use sparsevd_compressor::variational::Granularity;
use sparsevd_compressor::{State, initialise};
use sparsevd_kernels::Isa;
use sparsevd_model::presets;
use std::sync::Arc;

/// Products with all weights, of which many are zero, and with those that are left alone.
#[test]
fn zeros_that_are_skipped_change_nothing() {
    let cases = [
        chain(),
        residual(),
        normalised(),
        of_ids(),
        pooled(),
        pooled_whole(),
        of_vectors(),
        parts(),
        attentive(),
        mobile(),
        branches(),
    ];
    // In all layers, and in every other one, so that both kinds meet.
    let few: [fn(usize) -> bool; 3] = [|_| true, |i| i % 2 == 0, |i| i % 2 == 1];
    for (number, variant) in (0..cases.len()).flat_map(|c| (0..few.len()).map(move |v| (c, v))) {
        let case = &cases[number];
        let state = case.state_of_few(few[variant]);
        let number = format!("{number}, variant {variant}");
        // Two whole blocks of vectors and a part of one.
        let data = case.data(40);
        let want = case.gradients_by(state.clone(), &data, false);
        let got = case.gradients_by(state.clone(), &data, true);
        let close = |what: &str, got: &[f64], want: &[f64]| {
            assert_eq!(got.len(), want.len(), "case {number}, {what}");
            for (got, want) in got.iter().zip(want) {
                let most = 1e-12 + 1e-9 * want.abs();
                assert!(
                    (got - want).abs() <= most,
                    "case {number}, {what}: {got}, {want}"
                );
            }
        };
        close("loss", &[got.loss], &[want.loss]);
        assert!(want.loss.is_finite() && want.loss > 0.0);
        let (mut skipped, mut flowing) = (0, 0);
        for (l, layer) in state.layers.iter().enumerate() {
            let living = |g: &Gradients| -> Vec<f64> {
                let all = g.layers[l][0].iter().zip(&layer.mask);
                all.filter(|(_, m)| **m > 0.0).map(|(g, _)| *g).collect()
            };
            close(&layer.node, &living(&got), &living(&want));
            flowing += usize::from(living(&want).iter().any(|g| g.abs() > 1e-4));
            let dead = got.layers[l][0].iter().zip(&layer.mask);
            let mut dead = dead.filter(|(_, m)| **m == 0.0).map(|(g, _)| *g);
            // Gradients of weights that were removed are only there where nothing was skipped.
            let removed = layer.mask.contains(&0.0);
            skipped += usize::from(removed && dead.all(|g| g == 0.0));
        }
        assert!(skipped > 0, "case {number}: no layer skipped its zeros");
        assert!(
            2 * flowing > state.layers.len(),
            "case {number}: {flowing} layers have gradients"
        );
        for (got, want) in got.biases.iter().zip(&want.biases) {
            close("bias", got, want);
        }
        for (got, want) in got.plain.iter().zip(&want.plain) {
            close("tensors", got, want);
        }
        let normalisations = got.normalisations.iter().zip(&want.normalisations);
        for (got, want) in normalisations {
            close("scale", &got[0], &want[0]);
            close("shift", &got[1], &want[1]);
        }
    }
}

/// In single precision, as training runs, on every instruction set.
#[test]
fn zeros_are_skipped_in_single_precision_too() {
    for case in [chain(), normalised(), of_vectors()] {
        let mut state = State::<f32>::from_network(&case.network).unwrap();
        let few = case.state_of_few(|_| true);
        for (layer, few) in state.layers.iter_mut().zip(&few.layers) {
            let keep: Vec<bool> = few.mask.iter().map(|m| *m > 0.0).collect();
            layer.remove(&keep);
        }
        let data = case.data(40);
        let len = data.len() / 40;
        let labels: Vec<u16> = (0..40).map(|i| (i % case.outputs) as u16).collect();
        let gradients = |isa, skip| {
            let graph = &case.network.graph;
            let mut engine =
                Engine::new(graph, state.clone(), Granularity::Weight, isa, None).unwrap();
            engine.skip_zeros(skip);
            let batch = Batch {
                samples: 40,
                fill: &|i, out: &mut [f32]| {
                    let row = &data[i * len..(i + 1) * len];
                    out.iter_mut().zip(row).for_each(|(o, x)| *o = *x as f32);
                },
                objective: &CrossEntropy {
                    smoothing: 0.0,
                    distillation: Distillation::NONE,
                },
                targets: &Targets::classes(&labels),
                teacher: None,
            };
            let loss = engine.backward(&batch, 5, 9).unwrap().loss;
            let living = engine
                .gradients()
                .iter()
                .zip(&state.layers)
                .flat_map(|(g, layer)| {
                    let all = g[0].iter().zip(&layer.mask);
                    all.filter(|(_, m)| **m > 0.0)
                        .map(|(g, _)| *g)
                        .collect::<Vec<f32>>()
                });
            (loss, living.collect::<Vec<f32>>())
        };
        let (loss, want) = gradients(Isa::SCALAR, false);
        let largest = want.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        assert!(largest > 1e-3, "{largest}");
        for isa in Isa::available() {
            let (got_loss, got) = gradients(isa, true);
            assert!(
                (got_loss - loss).abs() < 1e-5 * loss,
                "{isa}: {got_loss}, {loss}"
            );
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() < 1e-5 * largest, "{isa}: {got}, {want}");
            }
        }
    }
}

/// Of a network whose values lie as vectors of samples from the first convolution to the last, in several shards.
#[test]
fn zeros_are_skipped_with_the_same_bits_on_two_threads() {
    let (graph, shapes) = presets::for_input("resnet-20", [3, 16, 16]).unwrap();
    let network = initialise(graph, &shapes, 1).unwrap();
    let mut state = State::<f32>::from_network(&network).unwrap();
    for layer in &mut state.layers {
        let keep: Vec<bool> = (0..layer.theta.len())
            .map(|i| (i + i / 7) % 20 == 2)
            .collect();
        layer.remove(&keep);
    }
    let samples = 90;
    let images: Vec<f32> = random(samples * 768, 3, 1.0)
        .iter()
        .map(|x| *x as f32)
        .collect();
    let labels: Vec<u16> = (0..samples as u16).map(|i| i % 10).collect();
    let gradients = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = (threads > 1).then(|| Arc::new(pool.unwrap()));
        let state = state.clone();
        let mut engine = Engine::new(
            &network.graph,
            state,
            Granularity::Weight,
            Isa::best(),
            pool,
        )
        .unwrap();
        let batch = Batch {
            samples,
            fill: &|i, out: &mut [f32]| out.copy_from_slice(&images[i * 768..(i + 1) * 768]),
            objective: &CrossEntropy {
                smoothing: 0.0,
                distillation: Distillation::NONE,
            },
            targets: &Targets::classes(&labels),
            teacher: None,
        };
        let loss = engine.backward(&batch, 5, 9).unwrap().loss;
        (
            loss,
            engine.gradients().to_vec(),
            engine.normalisation_gradients().to_vec(),
        )
    };
    let one = gradients(1);
    assert!(one.0 > 0.0 && one.1.iter().all(|[g, _]| g.iter().any(|g| *g != 0.0)));
    assert!(gradients(2) == one);
}
