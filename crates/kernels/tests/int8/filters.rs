//! Convolutions over tiles and over blocks.

use proptest::prelude::*;
use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::conv_blocks::BlockConv;
use sparsevd_kernels::int8::{Conv, Dequantize, Dot, Multiplied, Quantization, Quantize};
use sparsevd_kernels::pool_blocks::BlockPool;
use sparsevd_kernels::{Clamp, Isa, tiles};
use sparsevd_model::{Csr, Dense, Int8Grid, Window};
use sparsevd_testing::arbitrary::{ConvCase, Stream, convolution};
use sparsevd_testing::reference::{from_tiles, to_tiles};

use crate::support::{any_clamp, expands, same};

/// A convolution of bytes, and `n` samples of its input.
#[derive(Debug, Clone)]
pub struct Filters {
    pub case: ConvCase,
    pub grid: Int8Grid,
    pub scale: Vec<f32>,
    pub x: Vec<f32>,
    pub n: usize,
}

impl Filters {
    pub fn shape(&self) -> [usize; 4] {
        let &[out, inn, kh, kw] = self.case.filters.shape.dims() else {
            unreachable!()
        };
        [out, inn, kh, kw]
    }

    /// `[out, height, width]` of the output.
    pub fn map(&self) -> [usize; 3] {
        let [_, h, w] = self.case.input;
        let [oh, ow] = self.case.window.output(h, w).expect("it fits");
        [self.shape()[0], oh, ow]
    }

    /// `sum * scale + offset`, `[n][out][height][width]`.
    pub fn plain(&self) -> Vec<f32> {
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
            for multiplied in self.ways(dot) {
                self.check_tiles((isa, dot, multiplied), clamp, residual);
                self.check_blocks((isa, dot, multiplied), clamp, residual);
            }
        }
    }

    /// Which weights may be multiplied.
    fn ways(&self, dot: Dot) -> Vec<Multiplied> {
        let mut ways = vec![Multiplied::Nonzeros, Multiplied::All];
        ways.extend(dot.looks_up().then_some(Multiplied::LookedUp));
        ways
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
            let mut scratch = vec![f32::NAN; conv.scratch_len()];
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
                Multiplied::LookedUp => "spans4-conv-pool-i8i8-1x16",
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
            let mut scratch = vec![f32::NAN; conv.scratch_len()];
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
                in_blocks(&got, &want, (to, n), dot);
            }
        }
    }
}
/// Compares maps in blocks, with their halos, to plain ones: inside of the map halos are copies; outside there are zeros, but in blocks that lie wholly outside.
#[track_caller]
pub fn in_blocks(got: &[f32], want: &[f32], (to, n): (Blocks, usize), dot: Dot) {
    let packed = |plain: &[f32]| {
        let mut y = vec![0.0; n * to.len()];
        to.pack(Isa::best(), plain, n, &mut y);
        y
    };
    let inside = packed(&vec![1.0; want.len()]);
    let pitch = to.halo()[1] + to.block()[1] + to.halo()[3];
    let lines = (to.halo()[0] + to.block()[0] + to.halo()[2]) * pitch;
    let channel = to.len() / to.map()[0].max(1);
    for (at, (got, want)) in got.iter().zip(&packed(want)).enumerate() {
        let (first, line) = (at / channel * channel, at % channel / 16);
        let origin = first + (to.halo()[0] * pitch + to.halo()[1]) * 16 + at % 16;
        if line < lines && inside[origin] == 1.0 {
            let same = got.to_bits() == want.to_bits() || (*got == 0.0 && inside[at] == 0.0);
            assert!(same, "{dot}: {got}, not {want}");
        }
    }
}

/// Any window, with levels and bytes of which many are extremes.
pub fn any_filters() -> impl Strategy<Value = Filters> {
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
