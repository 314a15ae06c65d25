//! Rows of a table by their numbers, against their slow twin.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_kernels::embedding::Embedding;
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
