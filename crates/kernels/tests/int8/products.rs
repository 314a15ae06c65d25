//! Linear layers: products with tiles of samples and with single vectors.

use proptest::prelude::*;
use sparsevd_kernels::int8::{
    Dot, Linear, Quantization, SAMPLES, Spmm, Spmv, byte_of, byte_tiles, quantize,
};
use sparsevd_kernels::{Clamp, PackedKernel, tiles};
use sparsevd_model::{Csr, Dense, Int8Grid, Int8Input};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::reference::{from_tiles, to_tiles};

use crate::support::{any_clamp, expands, same};

/// A layer of bytes, and `n` samples of its input, `[n][cols]`.
#[derive(Debug, Clone)]
struct Layer {
    levels: Dense,
    zero_point: u8,
    scale: Vec<f32>,
    offset: Vec<f32>,
    x: Vec<u8>,
    n: usize,
}

impl Layer {
    fn dims(&self) -> [usize; 2] {
        let &[rows, cols] = self.levels.shape.dims() else {
            unreachable!()
        };
        [rows, cols]
    }

    fn csr(&self) -> Csr {
        Csr::from_dense(&self.levels)
    }

    fn quantization(&self) -> Quantization<'_> {
        Quantization {
            zero_point: self.zero_point,
            scale: &self.scale,
            offset: &self.offset,
        }
    }

    /// `[n][rows]`.
    fn sums(&self) -> Vec<i32> {
        let [rows, cols] = self.dims();
        let mut sums = Vec::new();
        for sample in 0..self.n {
            for row in 0..rows {
                let mut sum = 0;
                for col in 0..cols {
                    let level = self.levels.values[row * cols + col] as i32;
                    let byte = i32::from(self.x[sample * cols + col]);
                    sum += level * (byte - i32::from(self.zero_point));
                }
                sums.push(sum);
            }
        }
        sums
    }

    /// `[n][rows]`, of which `sums` are the sums.
    fn scaled(&self, sums: &[i32]) -> Vec<f32> {
        let rows = self.scale.len();
        let each = sums.iter().enumerate();
        each.map(|(i, &sum)| (sum as f32).mul_add(self.scale[i % rows], self.offset[i % rows]))
            .collect()
    }

    fn check(&self, dot: Dot, clamp: Clamp, bounds: [u8; 2]) {
        let ([rows, cols], n) = (self.dims(), self.n);
        let layer = Spmm::pack(dot, &self.csr(), self.quantization());
        let x = lines(dot, &self.x, n, cols);

        let want = self.sums();
        let mut sums = vec![i32::MIN; tiles(n) * rows * 16];
        layer.run_sums(&x, &mut sums, n);
        assert_eq!(in_rows(&sums, n, rows), want, "{dot}");

        let want = self.scaled(&want);
        let bits = |v: &[f32]| -> Vec<u32> { v.iter().map(|v| v.to_bits()).collect() };
        let mut floats = vec![f32::NAN; tiles(n) * rows * 16];
        layer.run(&x, &mut floats, n, clamp);
        let clamped: Vec<f32> = want.iter().map(|&v| clamp.apply(v)).collect();
        assert_eq!(bits(&from_tiles(&floats, n, rows)), bits(&clamped), "{dot}");

        let mut bytes = vec![77; byte_tiles(n) * rows * dot.line()];
        layer.run_bytes(&x, &mut bytes, n, bounds);
        assert_eq!(
            samples(dot, &bytes, n, rows),
            as_bytes(&want, bounds),
            "{dot}"
        );
    }
}

/// Rounded half to even, saturated and clamped.
fn as_bytes(values: &[f32], [least, most]: [u8; 2]) -> Vec<u8> {
    let byte = |v: &f32| (v.round_ties_even() as u8).max(least).min(most);
    values.iter().map(byte).collect()
}

/// `[tile][rows][16]` as `[n][rows]`.
fn in_rows(sums: &[i32], n: usize, rows: usize) -> Vec<i32> {
    let mut all = Vec::new();
    for sample in 0..n {
        for row in 0..rows {
            all.push(sums[(sample / 16 * rows + row) * 16 + sample % 16]);
        }
    }
    all
}

/// `[n][features]` as lines. Bytes of samples past the last one are not zero.
fn lines(dot: Dot, x: &[u8], n: usize, features: usize) -> Vec<u8> {
    let line = dot.line();
    let mut lines = vec![201; byte_tiles(n) * features * line];
    for (i, &byte) in x.iter().enumerate() {
        let (sample, feature) = (i / features, i % features);
        let line = &mut lines[(sample / SAMPLES * features + feature) * line..][..line];
        for (form, bytes) in line.chunks_mut(SAMPLES).enumerate() {
            // The second form has neighbouring bytes exchanged.
            bytes[byte_of(sample % SAMPLES) ^ form] = byte;
        }
    }
    lines
}

/// Lines as `[n][features]`; both forms must agree.
fn samples(dot: Dot, lines: &[u8], n: usize, features: usize) -> Vec<u8> {
    let line = dot.line();
    let mut all = Vec::new();
    for sample in 0..n {
        for feature in 0..features {
            let line = &lines[(sample / SAMPLES * features + feature) * line..][..line];
            let at = byte_of(sample % SAMPLES);
            for (form, bytes) in line.chunks(SAMPLES).enumerate() {
                assert_eq!(bytes[at ^ form], line[at], "form {form} of sample {sample}");
            }
            all.push(line[at]);
        }
    }
    all
}

/// Any levels and bytes, among them many extremes, at any density, with empty and full rows.
fn any_layer() -> impl Strategy<Value = Layer> {
    let level = prop_oneof![3 => any::<i8>(), 1 => Just(-128), 1 => Just(127)];
    let byte = prop_oneof![3 => any::<u8>(), 1 => Just(0), 1 => Just(255)];
    let density = prop_oneof![Just(0.0), Just(0.05), Just(0.3), Just(1.0)];
    let zero_point = prop_oneof![Just(0), Just(128), Just(255), any::<u8>()];
    (0..=24_usize, 1..=70_usize, 1..=140_usize)
        .prop_flat_map(move |(rows, cols, n)| {
            (
                prop::collection::vec((density.clone(), 1e-6_f32..0.1, -300.0_f32..300.0), rows),
                prop::collection::vec((level.clone(), 0.0..1.0_f64), rows * cols),
                prop::collection::vec(byte.clone(), n * cols),
                Just([rows, cols, n]),
                zero_point.clone(),
            )
        })
        .prop_map(|(of_rows, levels, x, [rows, cols, n], zero_point)| {
            let value = |(i, (level, share)): (usize, (i8, f64))| {
                let stored = share < of_rows[i / cols].0;
                if stored { f32::from(level) } else { 0.0 }
            };
            let values = levels.into_iter().enumerate().map(value).collect();
            Layer {
                levels: Dense::new([rows, cols], values),
                zero_point,
                scale: of_rows.iter().map(|row| row.1).collect(),
                offset: of_rows.iter().map(|row| row.2).collect(),
                x,
                n,
            }
        })
}
proptest! {
    #[test]
    fn products_are_those_of_plain_loops(layer in any_layer(), clamp in any_clamp(), bounds in any::<[u8; 2]>()) {
        for dot in Dot::available() {
            layer.check(dot, clamp, [0, 255]);
            layer.check(dot, Clamp::None, [bounds[0].min(bounds[1]), bounds[0].max(bounds[1])]);
        }
    }

    #[test]
    fn bytes_are_those_of_plain_loops(
        x in prop::collection::vec(prop_oneof![9 => -2.0_f32..2.0, 1 => any::<f32>()], 0..700),
        features in 1..9_usize,
        scale in 1e-3_f32..0.1,
        zero_point in any::<u8>(),
    ) {
        let n = x.len() / features;
        let x = &x[..n * features];
        let scaled: Vec<f32> =
            x.iter().map(|v| v.mul_add(scale.recip(), f32::from(zero_point))).collect();
        let want = as_bytes(&scaled, [0, 255]);
        for dot in Dot::available() {
            let mut y = vec![77; byte_tiles(n) * features * dot.line()];
            quantize(dot, &to_tiles(x, n, features), n, features, (scale, zero_point), &mut y);
            prop_assert_eq!(samples(dot, &y, n, features), &want[..], "{}", dot);
        }
    }

    #[test]
    fn parts_of_rows_make_up_the_whole(layer in any_layer(), cut in 0.0..1.0_f64) {
        let ([rows, cols], n) = (layer.dims(), layer.n.min(SAMPLES));
        let layer = Layer { x: layer.x[..n * cols].to_vec(), n, ..layer };
        let (csr, cut) = (layer.csr(), (cut * rows as f64) as usize);
        for dot in Dot::available() {
            let x = lines(dot, &layer.x, n, cols);
            let mut y = vec![77; rows * dot.line()];
            for part in [0..cut, cut..rows] {
                let bytes = part.start * dot.line()..part.end * dot.line();
                let packed = Spmm::pack_rows(dot, &csr, layer.quantization(), part);
                packed.run_bytes(&x, &mut y[bytes], n, [0, 255]);
            }
            let want = as_bytes(&layer.scaled(&layer.sums()), [0, 255]);
            prop_assert_eq!(samples(dot, &y, n, rows), want, "{}", dot);
        }
    }
}

/// A layer whose levels and bytes are given by their places.
fn layer(
    [rows, cols]: [usize; 2],
    n: usize,
    level: impl Fn(usize, usize) -> i8,
    byte: u8,
) -> Layer {
    let levels = (0..rows * cols).map(|i| f32::from(level(i / cols, i % cols)));
    Layer {
        levels: Dense::new([rows, cols], levels.collect()),
        zero_point: 3,
        scale: vec![0.003; rows],
        offset: vec![7.5; rows],
        x: vec![byte; n * cols],
        n,
    }
}

#[test]
fn the_largest_levels_and_bytes_do_not_saturate_on_the_way() {
    let signs = |row: usize, col: usize| match row {
        0 => 127,
        1 => -128,
        2 if col.is_multiple_of(2) => 127,
        3 if col < 150 => 127,
        4 if col < 2 => 64,
        4 => 65,
        _ => -128,
    };
    for dot in Dot::available() {
        for byte in [0, 1, 254, 255] {
            layer([6, 301], 67, signs, byte).check(dot, Clamp::None, [0, 255]);
        }
    }
}

#[test]
fn results_beyond_all_bytes_saturate() {
    let rising = |row: usize, col: usize| (row as i8 - 5) * if col < 3 { 25 } else { 1 };
    for scale in [1e-9, 0.01, 2.0, 1e4, 1e8, 1e30, f32::INFINITY, f32::NAN] {
        for offset in [0.0, -3e9, 3e9, f32::NEG_INFINITY] {
            for sign in [1.0, -1.0] {
                let mut layer = layer([11, 9], 70, rising, 200);
                layer.scale.fill(sign * scale);
                layer.offset.fill(offset);
                for dot in Dot::available() {
                    let x = lines(dot, &layer.x, 70, 9);
                    let packed = Spmm::pack(dot, &layer.csr(), layer.quantization());
                    let mut y = vec![77; 2 * 11 * dot.line()];
                    packed.run_bytes(&x, &mut y, 70, [0, 250]);
                    let want = as_bytes(&layer.scaled(&layer.sums()), [0, 250]);
                    let got = samples(dot, &y, 70, 11);
                    assert_eq!(got, want, "{dot}: scale {scale} offset {offset}");
                }
            }
        }
    }
}

#[test]
fn halves_round_to_even() {
    let one = |row: usize, col: usize| i8::from(row == col);
    let mut layer = layer([6, 6], 1, one, 3);
    layer.offset = vec![0.5, 1.5, 2.5, 3.5, 254.5, 255.5];
    for dot in Dot::available() {
        let x = lines(dot, &layer.x, 1, 6);
        let mut y = vec![77; 6 * dot.line()];
        Spmm::pack(dot, &layer.csr(), layer.quantization()).run_bytes(&x, &mut y, 1, [0, 255]);
        assert_eq!(samples(dot, &y, 1, 6), [0, 2, 2, 4, 254, 255], "{dot}");
    }
}

#[test]
fn wide_layers_have_long_offsets() {
    let mut stream = Stream(5);
    for cols in [4095, 4097, 8191, 8193, 20_000] {
        let mut levels = stream.bernoulli([3, cols], 0.02);
        for v in &mut levels.values {
            *v = (*v * 128.0).trunc();
        }
        // The last column is read.
        levels.values[cols - 1] = -128.0;
        let n = 65;
        let layer = Layer {
            levels,
            zero_point: 128,
            scale: vec![1e-3; 3],
            offset: vec![130.0; 3],
            x: (0..n * cols).map(|_| stream.bits() as u8).collect(),
            n,
        };
        for dot in Dot::available() {
            layer.check(dot, Clamp::Relu, [128, 255]);
        }
    }
}

#[test]
fn a_matrix_without_columns_gives_its_offset() {
    let csr = Csr::try_new([3, 0], vec![0; 4], vec![], vec![]).expect("an empty matrix is valid");
    let quantization = Quantization {
        zero_point: 9,
        scale: &[1.0; 3],
        offset: &[1.0, -2.0, 3.0],
    };
    for dot in Dot::available() {
        let packed = Spmm::pack(dot, &csr, quantization);
        let mut y = [f32::NAN; 3 * 16 * 2];
        packed.run(&[], &mut y, 32, Clamp::Relu);
        assert_eq!(from_tiles(&y, 32, 3), [1.0, 0.0, 3.0].repeat(32));
    }
}

#[test]
fn a_layer_says_what_it_is() {
    let layer = layer([4, 8], 1, |_, col| i8::from(col < 4), 0);
    for dot in Dot::available() {
        let packed = Spmm::pack(dot, &layer.csr(), layer.quantization());
        assert_eq!([packed.rows(), packed.cols()], [4, 8]);
        assert_eq!(packed.name(), format!("{dot}-any4-i8i8-1x64"));
        // A step of four non-zeros, and a row.
        assert_eq!(packed.bytes(), 4 * (16 + 20));
    }
}

#[test]
#[should_panic(expected = "does not fit in 32 bits")]
fn rows_whose_sums_may_overflow_are_refused() {
    let cols = 65_794;
    let levels = Dense::new([1, cols], vec![-128.0; cols]);
    let quantization = Quantization {
        zero_point: 0,
        scale: &[1.0],
        offset: &[0.0],
    };
    let _ = Spmm::pack(Dot::SCALAR, &Csr::from_dense(&levels), quantization);
}

#[test]
fn levels_that_are_no_bytes_are_refused() {
    for value in [0.5, 128.0, -129.0, f32::NAN, f32::INFINITY] {
        let levels = Csr::from_dense(&Dense::new([1, 1], vec![value]));
        let quantization = Quantization {
            zero_point: 0,
            scale: &[1.0],
            offset: &[0.0],
        };
        let pack = || Spmm::pack(Dot::SCALAR, &levels, quantization);
        let panic = std::panic::catch_unwind(pack).expect_err("a value that is not a level");
        let message = panic.downcast::<String>().expect("a text");
        assert!(message.contains("an integer from -128 to 127"), "{message}");
    }
}
proptest! {
    #[test]
    fn layers_make_the_bytes_of_their_inputs(layer in any_layer(), clamp in any_clamp(), scale in prop_oneof![Just(0.0078125_f32), Just(0.03125)]) {
        let ([rows, cols], n) = (layer.dims(), layer.n);
        let grid = Int8Grid { scale, zero_point: layer.zero_point };
        let x: Vec<f32> = layer.x.iter().map(|&byte| grid.value(byte)).collect();
        let want: Vec<f32> = layer.scaled(&layer.sums()).into_iter().map(|v| clamp.apply(v)).collect();
        for dot in Dot::available() {
            let (csr, quantization) = (layer.csr(), layer.quantization());
            let linear = Linear::pack_rows(dot, &csr, grid, quantization, 0..rows);
            let mut scratch = vec![f32::NAN; linear.scratch_len()];
            let mut y = vec![f32::NAN; tiles(n) * rows * 16];
            linear.run(&to_tiles(&x, n, cols), &mut y, n, &mut scratch, clamp);
            same(&from_tiles(&y, n, rows), &want, dot);
            check_vectors(&layer, dot, grid, (&x, &want), clamp, 0..rows);
            check_vectors(&layer, dot, grid, (&x, &want), clamp, rows / 3..rows);
        }
    }

    #[test]
    fn vectors_have_scales_of_their_own(layer in any_layer(), clamp in any_clamp(), first in 0..5_usize) {
        let layer = Layer { zero_point: 128, ..layer };
        let ([rows, cols], n) = (layer.dims(), layer.n);
        // Vectors of zeros, of numbers below the least normal one, and large ones.
        let magnitudes = [0.37, 0.0, 1e-40, 3e4, -1.7e-5];
        let magnitude = |sample: usize| magnitudes[(first + sample) % magnitudes.len()];
        let bytes = layer.x.iter().enumerate();
        let x: Vec<f32> = bytes.map(|(i, &byte)| (f32::from(byte) - 128.0) * magnitude(i / cols)).collect();
        let (quantised, scales) = by_vectors(&x, n, cols);
        let layer = Layer { x: quantised, ..layer };
        let each = layer.sums().into_iter().enumerate();
        let want = each.map(|(i, sum)| {
            let scale = scales[i / rows] * layer.scale[i % rows];
            clamp.apply((sum as f32).mul_add(scale, layer.offset[i % rows]))
        });
        let want: Vec<f32> = want.collect();
        for dot in Dot::available() {
            let (csr, quantization, each) = (layer.csr(), layer.quantization(), Int8Input::PerVector);
            let linear = Linear::pack_rows(dot, &csr, each, quantization, 0..csr.rows());
            let mut scratch = vec![f32::NAN; linear.scratch_len()];
            let mut y = vec![f32::NAN; tiles(n) * rows * 16];
            linear.run(&to_tiles(&x, n, cols), &mut y, n, &mut scratch, clamp);
            same(&from_tiles(&y, n, rows), &want, dot);
            let each = Int8Input::PerVector;
            check_vectors(&layer, dot, each, (&x, &want), clamp, 0..rows);
            check_vectors(&layer, dot, each, (&x, &want), clamp, rows / 3..rows);
        }
    }
}

/// `[n][cols]` as bytes around 128 by the scale of each vector, and these scales.
fn by_vectors(x: &[f32], n: usize, cols: usize) -> (Vec<u8>, Vec<f32>) {
    let (mut bytes, mut scales) = (Vec::new(), Vec::new());
    for i in 0..n {
        let x = &x[i * cols..][..cols];
        let largest = x.iter().fold(0.0_f32, |largest, v| largest.max(v.abs()));
        let scale = (largest / 127.0).max(f32::MIN_POSITIVE);
        let byte = |v: &f32| v.mul_add(1.0 / scale, 128.0).round_ties_even() as u8;
        bytes.extend(x.iter().map(byte));
        scales.push(scale);
    }
    (bytes, scales)
}

#[test]
fn a_vector_that_is_not_finite_has_no_finite_output_and_leaves_others_alone() {
    type Weights = fn(usize, usize) -> i8;
    let (dense, sparse): (Weights, Weights) = (
        |row, col| ((row + col) % 3) as i8,
        |row, col| i8::from((row + 3 * col) % 7 == 0),
    );
    let cols = 40;
    let values = [(f32::NAN, 0), (f32::INFINITY, 17), (f32::NEG_INFINITY, 39)];
    // Tiles of bytes, and vectors for themselves.
    let cases = [
        (dense, 5, 2),
        (dense, 5, 40),
        (sparse, 70, 2),
        (sparse, 70, 4),
        (sparse, 70, 40),
    ];
    for ((bad, at), (weights, rows, n)) in values.into_iter().flat_map(|v| cases.map(|c| (v, c))) {
        let layer = layer([rows, cols], n, weights, 128);
        let layer = Layer {
            zero_point: 128,
            ..layer
        };
        let mut x = vec![0.25; n * cols];
        x[cols + at] = bad;
        let (csr, quantization, each) = (layer.csr(), layer.quantization(), Int8Input::PerVector);
        for dot in Dot::available() {
            let linear = Linear::pack_rows(dot, &csr, each, quantization, 0..rows);
            let mut scratch = vec![0.0; linear.scratch_len()];
            let mut y = vec![0.0; tiles(n) * rows * 16];
            linear.run(&to_tiles(&x, n, cols), &mut y, n, &mut scratch, Clamp::None);
            let tiled = from_tiles(&y, n, rows);
            let spmv = Spmv::pack_rows(dot, &csr, each, quantization, 0..rows);
            let mut scratch = vec![0.0; spmv.scratch_len()];
            let mut y = vec![0.0; n * rows];
            spmv.run(&x, &mut y, n, &mut scratch, Clamp::None);
            for y in [&tiled, &y] {
                for (i, y) in y.chunks(rows).enumerate() {
                    let finite = y.iter().filter(|v| v.is_finite()).count();
                    assert_eq!(finite, if i == 1 { 0 } else { rows }, "{dot}: {i}, {y:?}");
                }
            }
        }
    }
}

/// Bytes of which neighbours differ, so that one from a wrong place shows.
fn varied_bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 151 % 256) as u8).collect()
}

/// Some rows of a layer over single vectors, of which `want` are all rows.
fn check_vectors(
    layer: &Layer,
    dot: Dot,
    input: impl Into<Int8Input>,
    (x, want): (&[f32], &[f32]),
    clamp: Clamp,
    part: std::ops::Range<usize>,
) {
    let ([rows, _], n) = (layer.dims(), layer.n);
    let quantization = layer.quantization();
    let spmv = Spmv::pack_rows(dot, &layer.csr(), input, quantization, part.clone());
    let mut scratch = vec![f32::NAN; spmv.scratch_len()];
    let mut y = vec![f32::NAN; n * part.len()];
    spmv.run(x, &mut y, n, &mut scratch, clamp);
    let want: Vec<f32> = (0..n)
        .flat_map(|i| want[i * rows..][part.clone()].to_vec())
        .collect();
    same(&y, &want, dot);
}

/// Vectors by more weights than caches hold, which are read from memory.
#[test]
fn vectors_are_multiplied_by_more_weights_than_caches_have() {
    let few = |row: usize, col: usize| match (row * 31 + col * 17) % 9 {
        0..=3 => ((row + col) % 255) as i8,
        _ => 0,
    };
    let mut layer = layer([2560, 4200], 1, few, 0);
    layer.x = varied_bytes(layer.x.len());
    let grid = Int8Grid {
        scale: 0.5,
        zero_point: layer.zero_point,
    };
    let x: Vec<f32> = layer.x.iter().map(|&byte| grid.value(byte)).collect();
    let want = layer.scaled(&layer.sums());
    for dot in Dot::available() {
        check_vectors(&layer, dot, grid, (&x, &want), Clamp::None, 0..2560);
        let spmv = Spmv::pack_rows(dot, &layer.csr(), grid, layer.quantization(), 0..2560);
        assert_eq!(spmv.name().contains("bitmask4"), expands(dot), "{dot}");
        assert_eq!(spmv.bytes() < 2560 * 4200, expands(dot), "{dot}");
    }
}

/// The vectors of sequences: more, fewer and about as many as are multiplied one by one.
#[test]
fn few_vectors_and_many_have_the_same_outputs() {
    let few = |row: usize, col: usize| match (row * 31 + col * 17) % 9 {
        0 => 127,
        1 => -(((row + col) % 128) as i8),
        _ => 0,
    };
    for (dims, n) in [
        ([70, 200], 1),
        ([70, 200], 4),
        ([64, 64], 13),
        ([130, 384], 35),
        ([130, 384], 36),
        ([130, 384], 37),
        ([65, 131], 64 + 17),
    ] {
        let mut layer = layer(dims, n, few, 0);
        layer.zero_point = 128;
        layer.x = varied_bytes(layer.x.len());
        let [rows, cols] = dims;
        let grid = Int8Grid {
            scale: 0.5,
            zero_point: 128,
        };
        let x: Vec<f32> = layer.x.iter().map(|&byte| grid.value(byte)).collect();
        let (csr, quantization) = (layer.csr(), layer.quantization());
        for dot in Dot::available() {
            let outputs = |input: Int8Input| {
                let linear = Linear::pack_rows(dot, &csr, input, quantization, 0..rows);
                let mut scratch = vec![f32::NAN; linear.scratch_len()];
                let mut y = vec![f32::NAN; tiles(n) * rows * 16];
                linear.run(&to_tiles(&x, n, cols), &mut y, n, &mut scratch, Clamp::Relu);
                from_tiles(&y, n, rows)
            };
            let want = layer.scaled(&layer.sums());
            let want: Vec<f32> = want.iter().map(|v| Clamp::Relu.apply(*v)).collect();
            same(&outputs(grid.into()), &want, dot);
            let part = Linear::pack_rows(dot, &csr, grid, quantization, 3..rows);
            let mut scratch = vec![f32::NAN; part.scratch_len()];
            let mut y = vec![f32::NAN; tiles(n) * (rows - 3) * 16];
            part.run(&to_tiles(&x, n, cols), &mut y, n, &mut scratch, Clamp::Relu);
            let want = want.chunks(rows).flat_map(|row| row[3..].to_vec());
            same(&from_tiles(&y, n, rows - 3), &want.collect::<Vec<_>>(), dot);
            let each = Int8Input::PerVector;
            let spmv = Spmv::pack_rows(Dot::SCALAR, &csr, each, quantization, 0..rows);
            let mut scratch = vec![f32::NAN; spmv.scratch_len()];
            let mut want = vec![f32::NAN; n * rows];
            spmv.run(&x, &mut want, n, &mut scratch, Clamp::Relu);
            same(&outputs(each), &want, dot);
        }
    }
}

/// Each of several vectors by its own scale, with weights that are looked up.
#[test]
fn vectors_at_once_have_scales_of_their_own() {
    let few = |row: usize, col: usize| i8::from((row * 7 + col).is_multiple_of(11)) * 93;
    let mut layer = layer([40, 160], 6, few, 0);
    layer.zero_point = 128;
    let magnitudes = [0.37, 2.0, 1e-30, 3e4, 0.0, 1.7e-5];
    let x: Vec<f32> = (0..6 * 160)
        .map(|i| ((i * 151 % 255) as f32 - 127.0) * magnitudes[i / 160])
        .collect();
    let (csr, quantization, each) = (layer.csr(), layer.quantization(), Int8Input::PerVector);
    let outputs = |dot: Dot, n: usize| {
        let spmv = Spmv::pack_rows(dot, &csr, each, quantization, 0..40);
        assert_eq!(spmv.name().contains("spans4"), dot.looks_up(), "{dot}");
        let mut scratch = vec![f32::NAN; spmv.scratch_len()];
        let mut y = vec![f32::NAN; n * 40];
        spmv.run(&x[..n * 160], &mut y, n, &mut scratch, Clamp::None);
        y
    };
    for dot in Dot::available() {
        for n in [1, 4, 6] {
            same(&outputs(dot, n), &outputs(Dot::SCALAR, n), dot);
        }
    }
}

/// Vectors by weights without zeros, of rows whose non-zeros are spread evenly, lie in a few columns, or are none; of few inputs and of many.
#[test]
fn vectors_are_multiplied_by_weights_without_zeros() {
    let even = |row: usize, col: usize| match (row * 31 + col * 17) % 9 {
        0 => 127,
        1 => -(((row + col) % 128) as i8),
        _ => 0,
    };
    let clustered = |row: usize, col: usize| match (row % 7, col / 50) {
        (0, _) => 0,
        (i, j) if i == j || (i == 6 && j + 1 == 2100_usize.div_ceil(50)) => -128,
        _ => i8::from(col % 211 == row % 211),
    };
    type Weights = fn(usize, usize) -> i8;
    for (dims, weights, apart) in [
        ([150, 2100], even as Weights, true),
        ([150, 2100], clustered, true),
        ([150, 600], clustered, true),
        // Half of them are left.
        (
            [48, 160],
            |row, col| i8::from((row + col) % 2 == 0) * 3,
            false,
        ),
        (
            [33, 130],
            |row, col| i8::from((row + col) % 11 == 0) * 77,
            true,
        ),
        (
            [17, 40],
            |row, col| i8::from((row + col) % 13 == 0) * -5,
            true,
        ),
        ([17, 64], |row, col| i8::from((row * col) % 17 == 1), true),
    ] {
        // Four vectors at once, and the others.
        let mut layer = layer(dims, 6, weights, 0);
        layer.x = varied_bytes(layer.x.len());
        let grid = Int8Grid {
            scale: 0.5,
            zero_point: layer.zero_point,
        };
        let x: Vec<f32> = layer.x.iter().map(|&byte| grid.value(byte)).collect();
        let want = layer.scaled(&layer.sums());
        let rows = dims[0];
        for dot in Dot::available() {
            check_vectors(&layer, dot, grid, (&x, &want), Clamp::None, 0..rows);
            check_vectors(&layer, dot, grid, (&x, &want), Clamp::None, 3..rows);
            let clamped: Vec<f32> = want.iter().map(|v| Clamp::Relu.apply(*v)).collect();
            for n in [1, 3, 4, 5] {
                let part = Layer { n, ..layer.clone() };
                let [x, want] = [(&x, dims[1]), (&clamped, rows)].map(|(v, len)| &v[..n * len]);
                check_vectors(&part, dot, grid, (x, want), Clamp::Relu, 0..rows);
            }
            let (csr, quantization) = (layer.csr(), layer.quantization());
            let spmv = Spmv::pack_rows(dot, &csr, grid, quantization, 0..rows);
            let name = spmv.name();
            let apart = apart && dot.looks_up();
            assert_eq!(name.contains("spans4"), apart, "{name}, {dims:?}");
            let all = rows * dims[1];
            assert_eq!(spmv.bytes() < all, apart, "{name}, {dims:?}");
        }
    }
}
