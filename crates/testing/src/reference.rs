//! The slow twins: plain loops over row-major samples, in f64. A zero weight never touches its input, as in a sparse kernel.
//!
//! Inputs are f32, as kernels take them, or f64, as [`crate::executor`] passes them from node to node.

use sparsevd_model::Window;

/// The type of an input's elements: f32 or f64.
pub trait Number: Copy + Into<f64> {}

impl Number for f32 {}
impl Number for f64 {}

/// `y = act(x W^T + b)` for `x` = `[n][cols]`, `w` = `[rows][cols]`; gives `[n][rows]`.
pub fn linear(w: &[f32], b: &[f32], x: &[f32], cols: usize, act: impl Fn(f32) -> f32) -> Vec<f32> {
    let sums = linear_sums(w, b, x, cols).into_iter();
    sums.map(|y| act(y as f32)).collect()
}

/// As [`linear`], in f64 and without an activation.
pub fn linear_sums<X: Number>(w: &[f32], b: &[f32], x: &[X], cols: usize) -> Vec<f64> {
    let (rows, n) = (b.len(), x.len().checked_div(cols).unwrap_or(1));
    let mut y = vec![0.0; n * rows];
    for (i, y) in y.iter_mut().enumerate() {
        let (row, sample) = (i % rows, i / rows);
        let mut sum = f64::from(b[row]);
        for c in 0..cols {
            let w = f64::from(w[row * cols + c]);
            sum += if w == 0.0 {
                0.0
            } else {
                w * x[sample * cols + c].into()
            };
        }
        *y = sum;
    }
    y
}

/// The position in the input that element `k` of a window at output `o` falls on, or `None` in the padding.
fn source(window: &Window, [h, w]: [usize; 2], o: [usize; 2], k: [usize; 2]) -> Option<usize> {
    let [y, x] = [0, 1].map(|d| {
        (o[d] * window.strides[d] + k[d] * window.dilations[d]).wrapping_sub(window.pads[d])
    });
    (y < h && x < w).then(|| y * w + x)
}

/// `x` of these dimensions with its axes in another order: axis `i` of the result is axis `perm[i]`.
pub fn transpose<X: Copy>(x: &[X], dims: &[usize], perm: &[usize]) -> Vec<X> {
    let to: Vec<usize> = perm.iter().map(|&p| dims[p]).collect();
    let index = |i: usize, dims: &[usize], axis: usize| {
        i / dims[axis + 1..].iter().product::<usize>() % dims[axis]
    };
    let from = |i: usize| {
        let of_axis =
            |axis: usize| index(i, &to, perm.iter().position(|&p| p == axis).unwrap_or(0));
        (0..dims.len()).fold(0, |at, axis| at * dims[axis] + of_axis(axis))
    };
    (0..x.len()).map(|i| x[from(i)]).collect()
}

/// The row of a table, of rows of `width` numbers, for each id of `x`.
pub fn embedding<X: Copy + Into<f64>>(table: &[f32], width: usize, x: &[X]) -> Vec<f32> {
    let row = |&id: &X| {
        let id: f64 = id.into();
        table[id as usize * width..][..width].to_vec()
    };
    x.iter().flat_map(row).collect()
}

/// Cross-correlation of `x` = `[n][c][h][w]` with filters `[out][c/groups][kh][kw]`; gives `[n][out][oh][ow]`.
pub fn conv(
    filters: &[f32],
    b: &[f32],
    x: &[f32],
    [c, h, w]: [usize; 3],
    window: &Window,
    groups: usize,
    act: impl Fn(f32) -> f32,
) -> Vec<f32> {
    let sums = conv_sums(filters, b, x, [c, h, w], window, groups).into_iter();
    sums.map(|y| act(y as f32)).collect()
}

/// As [`conv`], in f64 and without an activation.
pub fn conv_sums<X: Number>(
    filters: &[f32],
    b: &[f32],
    x: &[X],
    [c, h, w]: [usize; 3],
    window: &Window,
    groups: usize,
) -> Vec<f64> {
    let ([kh, kw], [oh, ow]) = (
        window.kernel_shape,
        window.output(h, w).expect("the window fits"),
    );
    let (out, per_group) = (b.len(), c / groups);
    let mut y = Vec::new();
    for i in 0..x.len() / (c * h * w) * out * oh * ow {
        let (n, o, at) = (
            i / (oh * ow) / out,
            i / (oh * ow) % out,
            [i / ow % oh, i % ow],
        );
        let mut sum = f64::from(b[o]);
        for k in 0..per_group * kh * kw {
            let channel = n * c + o / (out / groups) * per_group + k / (kh * kw);
            let weight = f64::from(filters[o * per_group * kh * kw + k]);
            if let (true, Some(p)) = (
                weight != 0.0,
                source(window, [h, w], at, [k / kw % kh, k % kw]),
            ) {
                sum += weight * x[channel * h * w + p].into();
            }
        }
        y.push(sum);
    }
    y
}

/// Pooling of `x` = `[maps][h][w]`: `reduce` gets the pixels under each window, padding left out.
pub fn pool<X: Number>(
    x: &[X],
    [h, w]: [usize; 2],
    window: &Window,
    reduce: impl Fn(&[X]) -> X,
) -> Vec<X> {
    let ([kh, kw], [oh, ow]) = (
        window.kernel_shape,
        window.output(h, w).expect("the window fits"),
    );
    let mut y = Vec::new();
    for i in 0..x.len() / (h * w) * oh * ow {
        let map = &x[i / (oh * ow) * h * w..];
        let under = (0..kh * kw)
            .filter_map(|k| source(window, [h, w], [i / ow % oh, i % ow], [k / kw, k % kw]))
            .map(|p| map[p]);
        y.push(reduce(&under.collect::<Vec<_>>()));
    }
    y
}

/// Probabilities over each row of `features` elements.
pub fn softmax(x: &[f32], features: usize) -> Vec<f32> {
    let rows = x.chunks(features.max(1)).flat_map(softmax_of_row);
    rows.map(|y| y as f32).collect()
}

/// Probabilities over one row.
pub fn softmax_of_row<X: Number>(row: &[X]) -> Vec<f64> {
    let row = row.iter().map(|&x| x.into());
    let max = row.clone().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = row.map(|x| (x - max).exp()).collect();
    let total: f64 = e.iter().sum();
    e.into_iter().map(|e| e / total).collect()
}

/// Logarithms of the probabilities of a row.
pub fn log_softmax_of_row<X: Number>(row: &[X]) -> Vec<f64> {
    let row: Vec<f64> = row.iter().map(|&v| v.into()).collect();
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = row.iter().map(|v| (v - max).exp()).sum();
    row.iter().map(|v| v - max - total.ln()).collect()
}

/// Products of matrices that follow each other: `n` by `k` and `k` by `m`.
pub fn mat_mul<X: Number>(a: &[X], b: &[X], [n, k, m]: [usize; 3]) -> Vec<f64> {
    let element = |i: usize| {
        let (row, column, matrix) = (i / m, i % m, i / (n * m));
        let products = (0..k).map(|j| {
            let (a, b): (f64, f64) = (
                a[row * k + j].into(),
                b[(matrix * k + j) * m + column].into(),
            );
            a * b
        });
        products.sum()
    };
    (0..a.len() / k * m).map(element).collect()
}

/// Copies of a value of `dims` along its dimensions of one element, to `shape`.
pub fn expand<X: Copy>(x: &[X], dims: &[usize], shape: &[usize]) -> Vec<X> {
    let source = |mut i: usize| {
        let (mut at, mut stride) = (0, 1);
        for (&size, &to) in dims.iter().zip(shape).rev() {
            at += if size == 1 { 0 } else { i % to * stride };
            stride *= size;
            i /= to;
        }
        at
    };
    let elements: usize = shape.iter().product();
    (0..elements).map(|i| x[source(i)]).collect()
}

/// `ln(1 + e^x)`.
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias` over each group of as many elements as `scale` has.
pub fn layer_norm<X: Number>(
    x: &[X],
    scale: &[f32],
    bias: Option<&[f32]>,
    epsilon: f32,
) -> Vec<f64> {
    let normal = |group: &[X]| {
        let group: Vec<f64> = group.iter().map(|&x| x.into()).collect();
        let n = group.len() as f64;
        let mean = group.iter().sum::<f64>() / n;
        let variance = group.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let deviation = (variance + f64::from(epsilon)).sqrt();
        let y = |(i, x): (usize, &f64)| {
            (x - mean) / deviation * f64::from(scale[i]) + bias.map_or(0.0, |b| f64::from(b[i]))
        };
        group.iter().enumerate().map(y).collect::<Vec<f64>>()
    };
    x.chunks(scale.len().max(1)).flat_map(normal).collect()
}

/// `softmax(q k^T / sqrt(width)) v` of one sample, in each head of `width` of the `d` columns of queries, keys and values.
pub fn attention<X: Number>([q, k, v]: [&[X]; 3], d: usize, width: usize) -> Vec<f64> {
    let at = |x: &[X], row: usize, column: usize| -> f64 { x[row * d + column].into() };
    let output = |i: usize| {
        let (row, head) = (i / d, i % d / width * width);
        let score = |key: usize| {
            let columns = head..head + width;
            let products = columns.map(|c| at(q, row, c) * at(k, key, c));
            products.sum::<f64>() / (width as f64).sqrt()
        };
        let scores: Vec<f64> = (0..k.len() / d).map(score).collect();
        let weights = softmax_of_row(&scores).into_iter().enumerate();
        weights.map(|(key, w)| w * at(v, key, i % d)).sum()
    };
    (0..q.len()).map(output).collect()
}

/// The mean of the rows of `[n][inner]`.
pub fn mean_of_rows<X: Number>(x: &[X], inner: usize) -> Vec<f64> {
    let column = |i: usize| x[i..].iter().step_by(inner).map(|&x| x.into());
    let count = (x.len() / inner) as f64;
    (0..inner).map(|i| column(i).sum::<f64>() / count).collect()
}

/// `x / max(||x||, 1e-12)` of each vector of `width` elements.
pub fn l2_normalize<X: Number>(x: &[X], width: usize) -> Vec<f64> {
    let normalized = |vector: &[X]| {
        let vector: Vec<f64> = vector.iter().map(|&x| x.into()).collect();
        let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        // Not by `max`, which leaves NaN out.
        let norm = if norm < 1e-12 { 1e-12 } else { norm };
        vector.into_iter().map(move |x| x / norm)
    };
    x.chunks(width.max(1)).flat_map(normalized).collect()
}

/// `x` where it is not negative, else `slope x`, for maps of `area` pixels; `slope` has one number, or one per channel.
pub fn prelu<X: Number>(x: &[X], slope: &[f32], area: usize) -> Vec<f64> {
    let f = |(i, &x): (usize, &X)| match x.into() {
        x if x < 0.0 => f64::from(slope[i / area % slope.len()]) * x,
        x => x,
    };
    x.iter().enumerate().map(f).collect()
}

/// Normal distribution function times `x`.
pub fn gelu(x: f64) -> f64 {
    x * (0.5 + between_zero_and(x))
}

/// The error function.
pub fn erf(x: f64) -> f64 {
    2.0 * between_zero_and(x * std::f64::consts::SQRT_2)
}

/// The normal distribution between 0 and `x`, below 0 for negative `x`, by summing the density (midpoints of 4000 steps).
fn between_zero_and(x: f64) -> f64 {
    let (steps, reach) = (4000, x.abs().min(9.0));
    let width = reach / f64::from(steps);
    let density = |t: f64| (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let half: f64 = (0..steps)
        .map(|i| density((f64::from(i) + 0.5) * width) * width)
        .sum();
    half.copysign(x)
}

/// `x` = `[maps][h][w]` with a border of `value`, `pads` top, left, bottom, right.
pub fn pad<X: Number>(x: &[X], [h, w]: [usize; 2], pads: [usize; 4], value: X) -> Vec<X> {
    let [top, left, bottom, right] = pads;
    let (height, width) = (top + h + bottom, left + w + right);
    (0..x.len() / (h * w) * height * width)
        .map(|i| {
            let (map, y, column) = (i / width / height, i / width % height, i % width);
            let inside = (top..top + h).contains(&y) && (left..left + w).contains(&column);
            if inside {
                x[(map * h + y - top) * w + column - left]
            } else {
                value
            }
        })
        .collect()
}

/// `[n][features]` to `[tile][features][16]`, zeros past the last sample.
pub fn to_tiles(x: &[f32], n: usize, features: usize) -> Vec<f32> {
    let at = |i: usize| (i / 16 / features * 16 + i % 16, i / 16 % features);
    (0..n.div_ceil(16) * features * 16)
        .map(at)
        .map(|(sample, f)| {
            if sample < n {
                x[sample * features + f]
            } else {
                0.0
            }
        })
        .collect()
}

/// `[tile][features][16]` to `[n][features]`.
pub fn from_tiles(x: &[f32], n: usize, features: usize) -> Vec<f32> {
    (0..n * features)
        .map(|i| (i / features, i % features))
        .map(|(sample, f)| x[(sample / 16 * features + f) * 16 + sample % 16])
        .collect()
}
