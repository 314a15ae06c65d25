//! Rows of a table by their numbers, against their slow twin.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_kernels::embedding::Embedding;
use sparsevd_kernels::kernel::PackedKernel as _;
use sparsevd_model::quantised::{self, RowBits};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::reference;

#[test]
fn each_id_becomes_its_row() {
    let mut stream = Stream(1);
    for [rows, width] in [[1, 1], [3, 5], [257, 64], [7, 0]] {
        let table = stream.floats(rows * width);
        let kernel = Embedding::new(table.clone(), [rows, width]);
        for n in [0, 1, 40] {
            let ids: Vec<f32> = (0..n).map(|i| (i * 7 % rows) as f32).collect();
            let mut y = vec![f32::NAN; n * width];
            kernel.run(&ids, &mut y);
            assert_eq!(y, reference::embedding(&table, width, &ids));
        }
    }
}

#[test]
fn rows_of_integers_take_a_byte_or_half_of_one_for_each() {
    let cases = [
        (RowBits::Eight, 33, "embedding-i8", 33),
        (RowBits::Four, 33, "embedding-i4", 17),
        (RowBits::Four, 64, "embedding-i4", 32),
    ];
    for (bits, width, name, bytes) in cases {
        rows_of_integers(bits, width, name, bytes);
    }
}

fn rows_of_integers(bits: RowBits, width: usize, name: &str, bytes: usize) {
    let rows = 257;
    let mut table = Stream(2).floats(rows * width);
    // One row is large, another one zero.
    table[..width].iter_mut().for_each(|v| *v *= 1e6);
    table[width..2 * width].fill(0.0);
    quantised::round_rows(&mut table, width, bits).unwrap();
    let kernel = Embedding::new(table.clone(), [rows, width]);
    assert_eq!(kernel.name(), name);
    assert_eq!(kernel.bytes(), rows * bytes + 4 * rows);
    let ids: Vec<f32> = (0..2 * rows).map(|i| (i * 5 % rows) as f32).collect();
    let mut y = vec![f32::NAN; ids.len() * width];
    kernel.run(&ids, &mut y);
    assert_eq!(y, reference::embedding(&table, width, &ids));
    // One element that is none of its row's.
    table[5 * width + 3] *= 1.001;
    let kernel = Embedding::new(table, [rows, width]);
    assert_eq!(
        (kernel.name().as_str(), kernel.bytes()),
        ("embedding-f32", 4 * rows * width)
    );
}

#[test]
fn other_numbers_and_lengths_are_refused() {
    let kernel = Embedding::new(vec![1.0; 6], [3, 2]);
    let panics = |x: &[f32], len: usize| {
        let run = || kernel.run(x, &mut vec![0.0; len]);
        std::panic::catch_unwind(run).is_err()
    };
    assert!(!panics(&[2.0, 0.0], 4));
    for bad in [3.0, -1.0, 0.5, f32::NAN, f32::INFINITY, 1e30] {
        assert!(panics(&[0.0, bad], 4), "{bad}");
    }
    assert!(panics(&[0.0, 1.0], 3) && panics(&[0.0], 4));
}
