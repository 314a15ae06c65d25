//! Networks and options whose sizes no memory holds: errors that say so, never a product that wraps.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_model::{Conv2d, Dense, GraphBuilder, ModelError, Network, Op, Window, ops};
use sparsevd_runtime::{Plan, PlanOptions, RuntimeError, Session};

fn built(b: GraphBuilder) -> Result<Network, ModelError> {
    b.network(|_, shape| Dense::new(shape.clone(), vec![1.0; shape.elements()]).into())
}

fn ones(b: GraphBuilder) -> Network {
    built(b).unwrap()
}

fn planned(network: &Network, batch: usize) -> Result<Plan, RuntimeError> {
    let options = PlanOptions {
        batch,
        ..PlanOptions::default()
    };
    Plan::new(network, &options)
}

#[track_caller]
fn refused(network: &Network, batch: usize, part: &str) {
    let error = planned(network, batch).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn values_that_no_memory_holds_are_errors_that_name_them() {
    for big in [1 << 48, 1 << 60, usize::MAX] {
        for shape in [[1, big, 1], [1, 1, big], [big, big, big]] {
            let mut b = GraphBuilder::new("large");
            let x = b.input("x", shape);
            let y = b.op("y", Op::Relu, &[&x]);
            b.output(&y);
            refused(&ones(b), 1, "`x`");
        }
    }
}

/// The output of such a window is small; its padded input is not.
#[test]
fn borders_and_strides_that_no_memory_holds_are_errors() {
    for big in [1 << 48, 1 << 60] {
        for side in 0..3 {
            let mut window = Window::square(1, big);
            match side {
                0 => window.pads = [big, 0, 0, 0],
                1 => window.pads = [0, 0, 0, big],
                _ => {}
            }
            let mut b = GraphBuilder::new("border");
            let x = b.input("x", [2, 4, 4]);
            let y = b.conv("y", &x, &Conv2d::new(2, window));
            b.output(&y);
            match built(b) {
                Ok(strides_alone) if side == 2 => refused(&strides_alone, 1, "borders of"),
                Ok(_) => panic!("a border of {big}"),
                Err(e) => assert!(e.to_string().contains("a window that fits"), "{e}"),
            }
        }
        // The halos of two windows over one map come together.
        let mut b = GraphBuilder::new("halos");
        let x = b.input("x", [2, 4, 4]);
        for (name, pads) in [("tall", [1 << 24, 0, 0, 0]), ("wide", [0, 1 << 24, 0, 0])] {
            let window = Window {
                kernel_shape: [1, 1],
                strides: [1 << 24; 2],
                pads,
                dilations: [1, 1],
            };
            let y = b.conv(name, &x, &Conv2d::new(2, window));
            b.output(&y);
        }
        refused(&ones(b), 1, "borders of");
    }
}

#[test]
fn batches_that_no_memory_holds_are_errors() {
    let mut b = GraphBuilder::new("batch");
    let x = b.input("x", [1 << 20, 16]);
    let y = b.op("y", Op::Softmax(ops::Softmax { axis: 1 }), &[&x]);
    let z = b.op("z", Op::Add, &[&y, &x]);
    b.output(&z);
    let network = ones(b);
    for batch in [usize::MAX, usize::MAX - 15, 1 << 60, (1 << 32) + 1] {
        refused(&network, batch, "batch: expected at most 4294967296");
    }
    assert!(planned(&network, 16).is_ok());
}

#[test]
fn samples_without_elements_take_any_batch() {
    let mut b = GraphBuilder::new("nothing");
    let x = b.input("x", [0, 4]);
    let y = b.op("y", Op::Relu, &[&x]);
    b.output(&y);
    let session = Session::new(planned(&ones(b), 1).unwrap(), 1).unwrap();
    for batch in [0, 1, 17, 1 << 60, usize::MAX] {
        let mut nothing: [f32; 0] = [];
        session.run(batch, &nothing.clone(), &mut nothing).unwrap();
        let error = session.run(batch, &[1.0], &mut nothing).unwrap_err();
        assert!(error.to_string().contains("expected 0, got 1"), "{error}");
    }
}
