//! Products of bytes with every instruction for them, exactly as plain loops compute them.

use proptest::prelude::*;
use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::conv_blocks::BlockConv;
use sparsevd_kernels::int8::{
    Conv, Dequantize, Dot, Linear, MaxPool, Multiplied, Quantization, Quantize, ReblockBytes,
    SAMPLES, Spmm, Spmv, byte_of, byte_tiles, quantize,
};
use sparsevd_kernels::pool_blocks::BlockPool;
use sparsevd_kernels::{Clamp, Isa, PackedKernel, tiles};
use sparsevd_model::{Csr, Dense, Int8Grid, Window};
use sparsevd_testing::arbitrary::{ConvCase, Stream, convolution};
use sparsevd_testing::reference::{from_tiles, to_tiles};

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

fn any_clamp() -> impl Strategy<Value = Clamp> {
    let clip = Clamp::Clip {
        min: -20.5,
        max: 90.0,
    };
    prop_oneof![Just(Clamp::None), Just(Clamp::Relu), Just(clip)]
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

/// A convolution of bytes, and `n` samples of its input.
#[derive(Debug, Clone)]
struct Filters {
    case: ConvCase,
    grid: Int8Grid,
    scale: Vec<f32>,
    x: Vec<f32>,
    n: usize,
}

impl Filters {
    fn shape(&self) -> [usize; 4] {
        let &[out, inn, kh, kw] = self.case.filters.shape.dims() else {
            unreachable!()
        };
        [out, inn, kh, kw]
    }

    /// `[out, height, width]` of the output.
    fn map(&self) -> [usize; 3] {
        let [_, h, w] = self.case.input;
        let [oh, ow] = self.case.window.output(h, w).expect("it fits");
        [self.shape()[0], oh, ow]
    }

    /// `sum * scale + offset`, `[n][out][height][width]`.
    fn plain(&self) -> Vec<f32> {
        let ([out, inn, kh, kw], [_, oh, ow]) = (self.shape(), self.map());
        let ConvCase {
            filters,
            bias,
            window,
            groups,
            input: [c, h, w],
        } = &self.case;
        let mut y = Vec::new();
        for (sample, o) in (0..self.n * out).map(|i| (i / out, i % out)) {
            for (oy, ox) in (0..oh * ow).map(|i| (i / ow, i % ow)) {
                let mut sum = 0;
                for k in 0..inn * kh * kw {
                    let (ic, ky, kx) = (k / (kh * kw), k / kw % kh, k % kw);
                    let iy = (oy * window.strides[0] + ky * window.dilations[0])
                        .checked_sub(window.pads[0]);
                    let ix = (ox * window.strides[1] + kx * window.dilations[1])
                        .checked_sub(window.pads[1]);
                    if let (Some(iy), Some(ix)) = (iy.filter(|y| y < h), ix.filter(|x| x < w)) {
                        let channel = o / (out / groups) * inn + ic;
                        let byte = self
                            .grid
                            .byte(self.x[((sample * c + channel) * h + iy) * w + ix]);
                        let level = filters.values[o * inn * kh * kw + k] as i32;
                        sum += level * (i32::from(byte) - i32::from(self.grid.zero_point));
                    }
                }
                y.push((sum as f32).mul_add(self.scale[o], bias[o]));
            }
        }
        y
    }

    /// The same, each the largest of two by two.
    fn pooled(&self, y: &[f32]) -> Vec<f32> {
        let [out, oh, ow] = self.map();
        let mut pooled = Vec::new();
        for map in y.chunks(oh * ow).take(self.n * out) {
            for (r, c) in (0..oh / 2 * (ow / 2)).map(|i| (i / (ow / 2), i % (ow / 2))) {
                let four = [(0, 0), (0, 1), (1, 0), (1, 1)];
                let four = four.map(|(dy, dx)| map[(2 * r + dy) * ow + 2 * c + dx]);
                pooled.push(four.into_iter().fold(f32::NEG_INFINITY, f32::max));
            }
        }
        pooled
    }

    fn pack(
        &self,
        (isa, dot, multiplied): (Isa, Dot, Multiplied),
        blocks: [Blocks; 2],
        part: std::ops::Range<usize>,
    ) -> Conv {
        let quantization = Quantization {
            zero_point: self.grid.zero_point,
            scale: &self.scale,
            offset: &self.case.bias,
        };
        let levels = Csr::from_dense(&self.case.filters);
        let (window, groups) = (&self.case.window, self.case.groups);
        Conv::pack_channels(
            (isa, dot),
            multiplied,
            &levels,
            self.shape(),
            self.grid.into(),
            quantization,
            window,
            groups,
            blocks,
            part,
        )
    }

    fn check(&self, clamp: Clamp, residual: bool) {
        for dot in Dot::available() {
            let mut all = Isa::available().into_iter();
            let isa = all.rfind(|isa| isa.level() <= dot.level()).expect("scalar");
            for multiplied in [Multiplied::Nonzeros, Multiplied::All] {
                self.check_tiles((isa, dot, multiplied), clamp, residual);
                self.check_blocks((isa, dot, multiplied), clamp, residual);
            }
        }
    }

    fn check_tiles(&self, how: (Isa, Dot, Multiplied), clamp: Clamp, residual: bool) {
        let (_, dot, multiplied) = how;
        let (map, n) = (self.map(), self.n);
        let blocks = [self.case.input, map].map(Blocks::of_tile);
        let x = to_tiles(&self.x, n, self.case.input.iter().product());
        let plain = self.plain();
        let features: usize = map.iter().product();
        let onto = residual.then(|| to_tiles(&plain, n, features));
        let want: Vec<f32> = plain
            .iter()
            .map(|v| clamp.apply(if residual { v + v } else { *v }))
            .collect();
        let whole = self.pack(how, blocks, 0..map[0]);
        let mut scratch = vec![f32::NAN; whole.scratch_len()];
        let mut y = vec![f32::NAN; tiles(n) * features * 16];
        whole.run(&x, onto.as_deref(), &mut y, tiles(n), &mut scratch, clamp);
        same(&from_tiles(&y, n, features), &want, dot);
        if let Some(to) = BlockPool::output(&Window::square(2, 2), &blocks[1]) {
            let conv = whole
                .pooled(&self.case.window, to)
                .expect("it can be pooled");
            let features: usize = to.map().iter().product();
            let mut y = vec![f32::NAN; tiles(n) * features * 16];
            conv.run(&x, None, &mut y, tiles(n), &mut scratch, clamp);
            let want: Vec<f32> = self
                .pooled(&plain)
                .into_iter()
                .map(|v| clamp.apply(v))
                .collect();
            same(&from_tiles(&y, n, features), &want, dot);
            let name = match multiplied {
                Multiplied::Nonzeros => "any4-conv-pool-i8i8-1x64",
                Multiplied::All => "4-conv-pool-i8i8-1x16",
            };
            assert!(conv.name().ends_with(name), "{}", conv.name());
        }
    }

    fn check_blocks(&self, how: (Isa, Dot, Multiplied), clamp: Clamp, residual: bool) {
        let (isa, dot, _) = how;
        let (map, n) = (self.map(), self.n);
        let to = Blocks::of_map(map).with_halo([1, 0, 0, 2]);
        let from = BlockConv::input(self.case.input, &self.case.window, &to);
        let packed = |blocks: &Blocks, x: &[f32]| {
            let mut y = vec![f32::NAN; n * blocks.len()];
            blocks.pack(isa, x, n, &mut y);
            y
        };
        let unpacked = |blocks: &Blocks, y: &[f32]| {
            let mut plain = vec![f32::NAN; n * blocks.map().iter().product::<usize>()];
            blocks.unpack(isa, y, n, &mut plain);
            plain
        };
        let plain = self.plain();
        let x = packed(&from, &self.x);
        let onto = residual.then(|| packed(&to, &plain));
        let want: Vec<f32> = plain
            .iter()
            .map(|v| clamp.apply(if residual { v + v } else { *v }))
            .collect();
        let whole = self.pack(how, [from, to], 0..map[0]);
        let mut scratch = vec![f32::NAN; whole.scratch_len()];
        let mut y = vec![f32::NAN; n * to.len()];
        whole.run(&x, onto.as_deref(), &mut y, n, &mut scratch, clamp);
        same(&unpacked(&to, &y), &want, dot);
        self.check_parts(how, [from, to], &x, clamp);
        self.check_bytes((&whole, dot), [from, to], residual, clamp, &want);
        if let Some(pooled) = BlockPool::output(&Window::square(2, 2), &to)
            && let Some(conv) = whole.pooled(&self.case.window, pooled)
        {
            let want: Vec<f32> = self.pooled(&plain);
            let want: Vec<f32> = want.into_iter().map(|v| clamp.apply(v)).collect();
            self.check_bytes((&conv, dot), [from, pooled], false, clamp, &want);
            let mut y = vec![f32::NAN; n * pooled.len()];
            conv.run(&x, None, &mut y, n, &mut scratch, clamp);
            let want: Vec<f32> = self
                .pooled(&plain)
                .into_iter()
                .map(|v| clamp.apply(v))
                .collect();
            same(&unpacked(&pooled, &y), &want, dot);
        }
    }
}

impl Filters {
    /// Two parts of the channels make up the whole.
    fn check_parts(
        &self,
        how: (Isa, Dot, Multiplied),
        [from, to]: [Blocks; 2],
        x: &[f32],
        clamp: Clamp,
    ) {
        let channels = self.map()[0];
        let run = |part: std::ops::Range<usize>| {
            let conv = self.pack(how, [from, to], part);
            let mut scratch = vec![f32::NAN; conv.scratch_len()];
            let mut y = vec![0.0; conv.output_len()];
            conv.run(&x[..from.len()], None, &mut y, 1, &mut scratch, clamp);
            let blocks = to.with_channels(y.len() / (to.len() / channels));
            let mut plain = vec![f32::NAN; blocks.map().iter().product()];
            blocks.unpack(how.0, &y, 1, &mut plain);
            plain
        };
        let cut = channels / 3;
        let parts = [run(0..cut), run(cut..channels)].concat();
        same(&parts, &run(0..channels), how.1);
    }

    /// A convolution over blocks that reads, adds and writes bytes, in all combinations. `want` is what it computes of floats, onto the plain output where
    /// there is a residual.
    fn check_bytes(
        &self,
        (conv, dot): (&Conv, Dot),
        [from, to]: [Blocks; 2],
        residual: bool,
        clamp: Clamp,
        want: &[f32],
    ) {
        let (n, isa) = (self.n, Isa::best());
        let reader = Int8Grid {
            scale: 0.5,
            zero_point: self.grid.zero_point / 2,
        };
        let bytes = |blocks: Blocks, grid: Int8Grid, plain: &[f32]| {
            let mut floats = vec![0.0; n * blocks.len()];
            blocks.pack(isa, plain, n, &mut floats);
            let mut y = vec![f32::NAN; n * blocks.byte_len()];
            Quantize::new(dot, blocks, grid.into()).run(&floats, n, &mut y);
            (floats, y)
        };
        let numbers = |v: &[f32], grid: Int8Grid| -> Vec<f32> {
            v.iter().map(|&v| grid.value(grid.byte(v))).collect()
        };
        let plain = self.plain();
        let (floats, x) = bytes(from, self.grid, &self.x);
        for onto_bytes in [false, true] {
            if onto_bytes && !residual {
                continue;
            }
            // What is added is on its grid.
            let onto = residual.then(|| bytes(to, reader, &numbers(&plain, reader)));
            let want: Vec<f32> = match residual {
                true => (plain.iter().zip(numbers(&plain, reader)))
                    .map(|(v, r)| clamp.apply(v + r))
                    .collect(),
                false => want.to_vec(),
            };
            let onto = onto.as_ref().map(|(floats, bytes)| match onto_bytes {
                true => &bytes[..],
                false => &floats[..],
            });
            for (reads, writes) in [(false, false), (false, true), (true, false), (true, true)] {
                let mut conv = conv.clone();
                if reads {
                    conv = conv.reading_bytes().expect("blocks have no border");
                }
                if onto_bytes {
                    conv = conv.onto_bytes(reader.into());
                }
                if writes {
                    conv = conv.writing_bytes(reader.into());
                }
                let mut scratch = vec![f32::NAN; conv.scratch_len()];
                let x = if reads { &x } else { &floats };
                let mut y = vec![f32::NAN; n * conv.output_len()];
                conv.run(x, onto, &mut y, n, &mut scratch, clamp);
                let mut got = y;
                if writes {
                    let mut floats = vec![f32::NAN; n * to.len()];
                    Dequantize::new(dot, to, reader.into()).run(&got, n, &mut floats);
                    got = floats;
                }
                let want = if writes {
                    numbers(&want, reader)
                } else {
                    want.clone()
                };
                // Inside of the map, halos are copies; outside there are zeros, but in blocks that lie wholly outside.
                let in_blocks = |plain: &[f32]| {
                    let mut y = vec![0.0; n * to.len()];
                    to.pack(isa, plain, n, &mut y);
                    y
                };
                let inside = in_blocks(&vec![1.0; want.len()]);
                let pitch = to.halo()[1] + to.block()[1] + to.halo()[3];
                let lines = (to.halo()[0] + to.block()[0] + to.halo()[2]) * pitch;
                let channel = to.len() / to.map()[0].max(1);
                let want = in_blocks(&want);
                for (at, (got, want)) in got.iter().zip(&want).enumerate() {
                    let (first, line) = (at / channel * channel, at % channel / 16);
                    let origin = first + (to.halo()[0] * pitch + to.halo()[1]) * 16 + at % 16;
                    if line < lines && inside[origin] == 1.0 {
                        let same =
                            got.to_bits() == want.to_bits() || (*got == 0.0 && inside[at] == 0.0);
                        assert!(same, "{dot}: {got}, not {want}");
                    }
                }
            }
        }
    }
}

#[track_caller]
fn same(got: &[f32], want: &[f32], dot: Dot) {
    let bits = |v: &[f32]| -> Vec<u32> { v.iter().map(|v| v.to_bits()).collect() };
    assert!(bits(got) == bits(want), "{dot}: got {got:?}, want {want:?}");
}

/// Any window, with levels and bytes of which many are extremes.
fn any_filters() -> impl Strategy<Value = Filters> {
    let scale = prop_oneof![Just(0.0078125_f32), Just(0.03125)];
    (
        convolution(),
        any::<u8>(),
        scale,
        1..=18_usize,
        any::<u64>(),
    )
        .prop_map(|(mut case, zero_point, scale, n, seed)| {
            let mut stream = Stream(seed | 1);
            let extreme = |stream: &mut Stream, level: i8| match stream.bits() % 4 {
                0 => -128.0,
                1 => 127.0,
                _ => f32::from(level),
            };
            for v in case.filters.values.iter_mut().filter(|v| **v != 0.0) {
                let level = stream.bits() as i8;
                *v = extreme(&mut stream, level);
            }
            let elements = n * case.input.iter().product::<usize>();
            let reach = 300.0 * scale;
            let x = (0..elements).map(|_| (stream.unit() as f32 - 0.5) * 2.0 * reach);
            let x = x.collect();
            let rows = (0..case.bias.len()).map(|i| 0.001 * (i + 1) as f32);
            Filters {
                scale: rows.collect(),
                grid: Int8Grid { scale, zero_point },
                case,
                x,
                n,
            }
        })
}

proptest! {
    #[test]
    fn convolutions_are_those_of_plain_loops(filters in any_filters(), clamp in any_clamp(), residual: bool) {
        filters.check(clamp, residual);
    }

    #[test]
    fn layers_make_the_bytes_of_their_inputs(layer in any_layer(), clamp in any_clamp(), scale in prop_oneof![Just(0.0078125_f32), Just(0.03125)]) {
        let ([rows, cols], n) = (layer.dims(), layer.n);
        let grid = Int8Grid { scale, zero_point: layer.zero_point };
        let x: Vec<f32> = layer.x.iter().map(|&byte| grid.value(byte)).collect();
        let want: Vec<f32> = layer.scaled(&layer.sums()).into_iter().map(|v| clamp.apply(v)).collect();
        for dot in Dot::available() {
            let product = Spmm::pack(dot, &layer.csr(), layer.quantization());
            let linear = Linear::new(dot, product, (grid.scale, grid.zero_point));
            let mut scratch = vec![f32::NAN; linear.scratch_len()];
            let mut y = vec![f32::NAN; tiles(n) * rows * 16];
            linear.run(&to_tiles(&x, n, cols), &mut y, n, &mut scratch, clamp);
            same(&from_tiles(&y, n, rows), &want, dot);
            check_vectors(&layer, dot, grid, (&x, &want), clamp, 0..rows);
            check_vectors(&layer, dot, grid, (&x, &want), clamp, rows / 3..rows);
        }
    }
}

/// Some rows of a layer over single vectors, of which `want` are all rows.
fn check_vectors(
    layer: &Layer,
    dot: Dot,
    grid: Int8Grid,
    (x, want): (&[f32], &[f32]),
    clamp: Clamp,
    part: std::ops::Range<usize>,
) {
    let ([rows, _], n) = (layer.dims(), layer.n);
    let quantization = layer.quantization();
    let spmv = Spmv::pack_rows(dot, &layer.csr(), grid.into(), quantization, part.clone());
    let mut scratch = vec![f32::NAN; spmv.scratch_len()];
    let mut y = vec![f32::NAN; n * part.len()];
    spmv.run(x, &mut y, n, &mut scratch, clamp);
    let want: Vec<f32> = (0..n)
        .flat_map(|i| want[i * rows..][part.clone()].to_vec())
        .collect();
    same(&y, &want, dot);
}

/// Whether weights are stored without zeros.
fn expands(dot: Dot) -> bool {
    #[cfg(target_arch = "x86_64")]
    return dot.name() == "avx512vnni" && is_x86_feature_detected!("avx512vbmi2");
    #[cfg(not(target_arch = "x86_64"))]
    return dot.name().is_empty();
}

/// Vectors by more weights than stay in the cache, most of them zero.
#[test]
fn vectors_are_multiplied_by_weights_without_zeros() {
    let few = |row: usize, col: usize| match (row * 31 + col * 17) % 9 {
        0 => 127,
        1 => -(((row + col) % 128) as i8),
        _ => 0,
    };
    let layer = layer([150, 2100], 2, few, 201);
    let grid = Int8Grid {
        scale: 0.5,
        zero_point: layer.zero_point,
    };
    let x: Vec<f32> = layer.x.iter().map(|&byte| grid.value(byte)).collect();
    let want = layer.scaled(&layer.sums());
    for dot in Dot::available() {
        check_vectors(&layer, dot, grid, (&x, &want), Clamp::None, 0..150);
        let (csr, quantization) = (layer.csr(), layer.quantization());
        let spmv = Spmv::pack_rows(dot, &csr, grid.into(), quantization, 0..150);
        assert_eq!(spmv.bytes() < 150 * 2100, expands(dot), "{dot}");
        assert_eq!(spmv.name().contains("bitmask4"), expands(dot), "{dot}");
    }
}

/// Pooling bytes gives the bytes of pooled floats, halos included.
#[test]
fn maps_of_bytes_are_pooled() {
    let mut stream = Stream(12);
    let isa = Isa::best();
    let windows = [(2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 1, 2)];
    for ([h, w], zero_point) in [([28, 28], 0), ([12, 33], 0), ([28, 28], 90), ([8, 16], 255)] {
        let grid = Int8Grid {
            scale: 0.25,
            zero_point,
        };
        let (c, n) = (3, 2);
        let x: Vec<f32> = stream.floats(n * c * h * w);
        let bytes = |dot, blocks: Blocks, plain: &[f32]| {
            let mut floats = vec![0.0; n * blocks.len()];
            blocks.pack(isa, plain, n, &mut floats);
            let mut y = vec![f32::NAN; n * blocks.byte_len()];
            Quantize::new(dot, blocks, grid.into()).run(&floats, n, &mut y);
            y
        };
        for (side, stride, pad) in windows {
            let window = Window {
                pads: [pad; 4],
                ..Window::square(side, stride)
            };
            let from = Blocks::of_map([c, h, w]).with_halo([2; 4]);
            let Some(to) = BlockPool::output(&window, &from) else {
                continue;
            };
            let to = to.with_halo([1, 0, 2, 1]);
            let [_, oh, ow] = to.map();
            let pixel = |i: usize| {
                let (map, y, x_) = (i / (oh * ow), i / ow % oh, i % ow);
                let taps = (0..side * side).filter_map(|t| {
                    let y = (y * stride + t / side)
                        .checked_sub(pad)
                        .filter(|y| *y < h)?;
                    let x_ = (x_ * stride + t % side)
                        .checked_sub(pad)
                        .filter(|x| *x < w)?;
                    Some(x[map * h * w + y * w + x_])
                });
                taps.fold(f32::NEG_INFINITY, f32::max)
            };
            let want: Vec<f32> = (0..n * c * oh * ow).map(pixel).collect();
            for dot in Dot::available() {
                let x = bytes(dot, from, &x);
                let mut y = vec![f32::NAN; n * to.byte_len()];
                MaxPool::new((isa, dot), &window, [from, to], grid.into()).run(&x, &mut y, n);
                // All lines of a channel, but a gap behind them.
                let [above, left, below, right] = to.halo();
                let [rows, columns] = to.block();
                let lines = (above + rows + below) * (left + columns + right);
                let lines = |y: &[f32]| -> Vec<u32> {
                    let channels = y.chunks(to.byte_len() / c);
                    let lines = channels.flat_map(|channel| &channel[..lines * 4]);
                    lines.map(|v| v.to_bits()).collect()
                };
                let want = bytes(dot, to, &want);
                assert!(lines(&y) == lines(&want), "{dot}: {h}x{w} {window:?}");
            }
        }
    }
}

/// Maps of bytes in other blocks, and one pixel of several, are those of floats.
#[test]
fn maps_of_bytes_are_regrouped_and_subsampled() {
    let mut stream = Stream(11);
    let isa = Isa::best();
    let grid = Int8Grid {
        scale: 0.25,
        zero_point: 77,
    };
    for [h, w] in [[28, 28], [7, 9], [1, 5], [16, 33]] {
        let (c, n) = (3, 2);
        let x: Vec<f32> = stream.floats(n * c * h * w);
        let bytes = |dot, blocks: Blocks, plain: &[f32]| {
            let mut floats = vec![0.0; n * blocks.len()];
            blocks.pack(isa, plain, n, &mut floats);
            let mut y = vec![f32::NAN; n * blocks.byte_len()];
            Quantize::new(dot, blocks, grid.into()).run(&floats, n, &mut y);
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        for strides in [[1, 1], [2, 2], [2, 1], [3, 2]] {
            let [oh, ow] = [h.div_ceil(strides[0]), w.div_ceil(strides[1])];
            let sampled: Vec<f32> = (0..n * c * oh * ow)
                .map(|i| {
                    let (map, y, x_) = (i / (oh * ow), i / ow % oh, i % ow);
                    x[map * h * w + y * strides[0] * w + x_ * strides[1]]
                })
                .collect();
            let from = Blocks::of_map([c, h, w]).with_halo([1, 0, 2, 1]);
            let to = Blocks::of_map([c, oh, ow]).with_halo([1, 2, 0, 1]);
            for dot in Dot::available() {
                let x: Vec<f32> = bytes(dot, from, &x)
                    .into_iter()
                    .map(f32::from_bits)
                    .collect();
                let mut y = vec![f32::NAN; n * to.byte_len()];
                ReblockBytes::new([from, to], strides, grid.into()).run(&x, n, &mut y);
                let got: Vec<u32> = y.into_iter().map(f32::to_bits).collect();
                assert!(
                    got == bytes(dot, to, &sampled),
                    "{dot}: {h}x{w} by {strides:?}"
                );
            }
        }
    }
}

/// A convolution that reads more lines than stay in the first-level cache.
#[test]
fn many_lines_are_multiplied_part_by_part() {
    let window = Window {
        pads: [1, 1, 1, 1],
        ..Window::square(3, 1)
    };
    let input = [1400, 3, 3];
    let mut filters = Dense::zeros([3, 1400, 3, 3]);
    for (i, v) in filters.values.iter_mut().enumerate() {
        *v = match i % 5 {
            0 => -128.0,
            2 => 127.0,
            _ => 1.0,
        };
    }
    let n = 17;
    let elements = n * input.iter().product::<usize>();
    let filters = Filters {
        case: ConvCase {
            filters,
            bias: vec![-3.0, 0.0, 9.5],
            window,
            groups: 1,
            input,
        },
        grid: Int8Grid {
            scale: 0.5,
            zero_point: 0,
        },
        scale: vec![1e-3, 2.0, 1e-9],
        x: (0..elements)
            .map(|i| if i % 3 == 0 { 1e9 } else { (i % 300) as f32 })
            .collect(),
        n,
    };
    filters.check(Clamp::Relu, false);
}

/// Filters of which a share of the weights is there, from one stream.
fn sparse_filters(
    [out, channels]: [usize; 2],
    window: Window,
    [h, w]: [usize; 2],
    density: f64,
) -> Filters {
    let mut stream = Stream((h * 8 + w) as u64 + 3);
    let [kh, kw] = window.kernel_shape;
    let mut filters = stream.bernoulli([out, channels, kh, kw], density);
    for v in filters.values.iter_mut().filter(|v| **v != 0.0) {
        *v = f32::from(stream.bits() as i8);
    }
    let n = 2;
    let x = (0..n * channels * h * w).map(|_| (stream.bits() % 300) as f32);
    Filters {
        x: x.collect(),
        case: ConvCase {
            filters,
            bias: (0..out).map(|i| i as f32 - 9.0).collect(),
            window,
            groups: 1,
            input: [channels, h, w],
        },
        grid: Int8Grid {
            scale: 1.0,
            zero_point: 7,
        },
        scale: (0..out).map(|i| 1e-3 * (i + 1) as f32).collect(),
        n,
    }
}

/// All numbers of pixels at once, in blocks of rows together and alone.
#[test]
fn any_number_of_pixels_is_multiplied_by_all_weights() {
    let square = |side: usize, stride: usize, pad: usize| Window {
        pads: [pad; 4],
        ..Window::square(side, stride)
    };
    for map in [[1, 1], [2, 2], [3, 3], [4, 4], [3, 5], [7, 7], [2, 8]] {
        for window in [
            square(3, 1, 1),
            square(1, 1, 0),
            square(5, 1, 2),
            square(2, 2, 1),
        ] {
            sparse_filters([50, 6], window, map, 0.6).check(Clamp::Relu, true);
        }
    }
}

/// Weights that are stored without their zeros where an instruction puts them back.
#[test]
fn weights_without_zeros_are_expanded() {
    let window = Window {
        pads: [1; 4],
        ..Window::square(3, 1)
    };
    for (map, density) in [([4, 4], 0.2), ([2, 2], 0.05), ([3, 6], 0.45)] {
        let filters = sparse_filters([176, 190], window.clone(), map, density);
        filters.check(Clamp::None, false);
        for dot in Dot::available() {
            let mut all = Isa::available().into_iter();
            let isa = all.rfind(|isa| isa.level() <= dot.level()).expect("scalar");
            let to = Blocks::of_map(filters.map());
            let from = BlockConv::input(filters.case.input, &window, &to);
            let whole = filters.pack((isa, dot, Multiplied::All), [from, to], 0..176);
            let stored = 176 * 192 * 9;
            assert_eq!(whole.bytes() < stored, expands(dot), "{dot}");
            assert_eq!(whole.name().contains("bitmask4"), expands(dot), "{dot}");
        }
    }
}
