//! Passes in which layers read the numbers of bytes, and the straight-through gradients of these.

use crate::case::*;
use crate::networks::*;
use sparsevd_compressor::State;
use sparsevd_model::{Int8Grid, Op, Shape};

/// A few hundredths of the numbers of these networks, so that rounding shows, with an end that some of them are past.
const GRID: Int8Grid = Int8Grid {
    scale: 0.015_625,
    zero_point: 77,
};

/// As [`Int8Grid::byte`] and [`Int8Grid::value`] have it.
fn rounded(x: f64) -> f64 {
    let byte = (x / f64::from(GRID.scale) + 77.0).round_ties_even();
    (byte.clamp(0.0, 255.0) - 77.0) * f64::from(GRID.scale)
}

/// Whether a number is at most half a step past the ends of the grid.
fn is_inside(x: f64) -> bool {
    (-77.5..=178.5).contains(&(x / f64::from(GRID.scale)))
}

fn with_grids(mut state: State<f64>, layers: &[&str]) -> State<f64> {
    for layer in &mut state.layers {
        if layers.is_empty() || layers.contains(&layer.node.as_str()) {
            layer.input_grid = Some(GRID);
        }
    }
    state
}

fn close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        let most = 1e-12 + 1e-9 * want.abs();
        assert!((got - want).abs() <= most, "{got} and {want}");
    }
}

#[test]
fn inputs_that_are_rounded_give_what_rounded_inputs_do() {
    let case = chain();
    let data = case.data(SAMPLES);
    let want = case.gradients_of(
        case.state(false),
        &data.iter().map(|x| rounded(*x)).collect::<Vec<_>>(),
    );
    let first = case.state(false).layers[0].node.clone();
    let got = case.gradients_of(with_grids(case.state(false), &[&first]), &data);
    let exact = case.gradients_of(case.state(false), &data);
    assert!((want.loss - exact.loss).abs() > 1e-6, "rounding shows");
    close(&[got.loss], &[want.loss]);
    for (got, want) in got.layers.iter().zip(&want.layers) {
        close(&got[0], &want[0]);
    }
}

/// Two linear layers, of which the second reads rounded numbers and a third the numbers themselves, against loops in which a gradient passes the rounding
/// where the number has a byte.
#[test]
fn gradients_pass_straight_through_rounding() {
    const HIDDEN: usize = 40;
    let nodes = vec![
        ("l1", linear("l1"), vec!["x"]),
        ("l2", linear("l2"), vec!["l1"]),
        ("l3", linear("l3"), vec!["l1"]),
        ("sum", Op::Add, vec!["l2", "l3"]),
    ];
    let shapes = [
        with_bias("l1", [HIDDEN, 6]),
        with_bias("l2", [3, HIDDEN]),
        with_bias("l3", [3, HIDDEN]),
    ];
    let case = Case {
        regression: true,
        ..case(Shape::from([6]), nodes, &shapes)
    };
    let state = case.state(false);
    let data = case.data(SAMPLES);
    let got = case.gradients_of(with_grids(state.clone(), &["l2"]), &data);
    let product = |layer: usize, x: &[f64]| -> Vec<f64> {
        let layer = &state.layers[layer];
        let rows = layer.theta.chunks(x.len()).zip(&layer.bias);
        let dot = |row: &[f64]| -> f64 { row.iter().zip(x).map(|(w, x)| w * x).sum() };
        rows.map(|(row, bias)| dot(row) + bias).collect()
    };
    let targets = random(SAMPLES * 3, 79, 1.0);
    let mut want = [
        vec![0.0; HIDDEN * 6],
        vec![0.0; 3 * HIDDEN],
        vec![0.0; 3 * HIDDEN],
    ];
    let mut past = 0;
    for (s, x) in data.chunks(6).enumerate() {
        let hidden = product(0, x);
        let bytes: Vec<f64> = hidden.iter().map(|h| rounded(*h)).collect();
        let outputs = product(1, &bytes).into_iter().zip(product(2, &hidden));
        let mut by_hidden = [0.0; HIDDEN];
        for (o, (a, b)) in outputs.enumerate() {
            let error = a + b - f64::from(targets[s * 3 + o] as f32);
            // Of the squared error over twice its variance, of a mean over samples.
            let g = error / (0.7 * 0.7) / SAMPLES as f64;
            for (j, by) in by_hidden.iter_mut().enumerate() {
                want[1][o * HIDDEN + j] += g * bytes[j];
                want[2][o * HIDDEN + j] += g * hidden[j];
                let passes = f64::from(u8::from(is_inside(hidden[j])));
                *by += g * state.layers[1].theta[o * HIDDEN + j] * passes;
                *by += g * state.layers[2].theta[o * HIDDEN + j];
                past += usize::from(!is_inside(hidden[j]));
            }
        }
        for (j, by) in by_hidden.iter().enumerate() {
            for (i, x) in x.iter().enumerate() {
                want[0][j * 6 + i] += by * x;
            }
        }
    }
    assert!(past > 10, "numbers past the ends: {past}");
    for (got, want) in got.layers.iter().zip(&want) {
        close(&got[0], want);
    }
}

/// Values that lie as vectors of samples, and those that two layers and a sum read.
#[test]
fn bytes_are_the_same_however_values_lie() {
    for case in [chain(), residual(), normalised(), branches(), pooled()] {
        let state = with_grids(case.state_of_few(|_| true), &[]);
        let data = case.data(40);
        let want = case.gradients_by(state.clone(), &data, false);
        let got = case.gradients_by(state.clone(), &data, true);
        let exact = case.gradients_by(case.state_of_few(|_| true), &data, true);
        assert!((want.loss - exact.loss).abs() > 1e-9, "rounding shows");
        close(&[got.loss], &[want.loss]);
        for (l, layer) in state.layers.iter().enumerate() {
            let living = |g: &Gradients| -> Vec<f64> {
                let all = g.layers[l][0].iter().zip(&layer.mask);
                all.filter(|(_, m)| **m > 0.0).map(|(g, _)| *g).collect()
            };
            close(&living(&got), &living(&want));
        }
    }
}

/// Two layers that read one value by one grid round it once.
#[test]
fn layers_of_one_grid_share_their_bytes() {
    let nodes = vec![
        ("r", Op::Relu, vec!["x"]),
        ("l1", linear("l1"), vec!["r"]),
        ("l2", linear("l2"), vec!["r"]),
        ("sum", Op::Add, vec!["l1", "l2"]),
        ("act", Op::Sigmoid, vec!["sum"]),
        ("out", linear("out"), vec!["act"]),
    ];
    let shapes = [
        with_bias("l1", [5, 6]),
        with_bias("l2", [5, 6]),
        with_bias("out", [3, 5]),
    ];
    let case = case(Shape::from([6]), nodes, &shapes);
    let data = case.data(SAMPLES);
    let got = case.gradients_of(with_grids(case.state(false), &["l1", "l2"]), &data);
    let inputs: Vec<f64> = data.iter().map(|x| rounded(x.max(0.0))).collect();
    let want = case.gradients_of(case.state(false), &inputs);
    close(&[got.loss], &[want.loss]);
    for (got, want) in got.layers.iter().zip(&want.layers) {
        close(&got[0], &want[0]);
    }
}
