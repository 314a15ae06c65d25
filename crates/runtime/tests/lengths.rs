//! Slices of a wrong length are errors.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_model::{Dense, Network, Weights, presets};
use sparsevd_runtime::{Plan, PlanOptions, RuntimeError, Session};

fn session() -> Session {
    let (graph, tensors) = presets::by_name("lenet-300-100").unwrap();
    let zeros = tensors
        .into_iter()
        .map(|(n, s)| (n, Weights::Dense(Dense::zeros(s))));
    let network = Network::new(graph, zeros.collect()).unwrap();
    Session::new(Plan::new(&network, &PlanOptions::default()).unwrap(), 1).unwrap()
}

#[test]
fn a_wrong_length_is_an_error_that_names_the_slice_and_leaves_the_output() {
    let session = session();
    // Samples, elements of the input and of the output, and what is wrong.
    let cases = [
        (
            1,
            783,
            10,
            "elements of 1 samples of input `input`: expected 784, got 783",
        ),
        (
            2,
            784,
            20,
            "elements of 2 samples of input `input`: expected 1568, got 784",
        ),
        (
            2,
            1568,
            10,
            "elements of 2 samples of output `fc3`: expected 20, got 10",
        ),
        (
            0,
            784,
            0,
            "elements of 0 samples of input `input`: expected 0, got 784",
        ),
    ];
    for (batch, inputs, outputs, message) in cases {
        let mut output = vec![7.0; outputs];
        let error = session
            .run(batch, &vec![0.5; inputs], &mut output)
            .unwrap_err();
        assert!(matches!(error, RuntimeError::Length { .. }), "{error:?}");
        assert_eq!(error.to_string(), message);
        assert!(output.iter().all(|v| *v == 7.0));
    }
}

#[test]
fn a_number_of_samples_that_overflows_is_an_error() {
    let error = session().run(usize::MAX, &[0.5; 784], &mut [0.0; 10]);
    assert!(
        matches!(
            error,
            Err(RuntimeError::Length {
                batch: usize::MAX,
                got: 784,
                ..
            })
        ),
        "{error:?}"
    );
}

#[test]
fn right_lengths_run() {
    let mut output = [7.0; 20];
    session().run(2, &[0.5; 1568], &mut output).unwrap();
    assert_eq!(output, [0.0; 20]);
}
