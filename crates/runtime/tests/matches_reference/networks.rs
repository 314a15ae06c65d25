//! Random networks of every operator.

use proptest::prelude::*;
use sparsevd_model::ops::is_per_channel;
use sparsevd_model::{Approximate, Conv2d, GraphBuilder, Network, Op, Shape, Window, ops};
use sparsevd_testing::arbitrary::Stream;

/// One more node of a random network.
#[derive(Debug, Clone)]
pub enum Recipe {
    Conv {
        conv: Conv2d,
        out_of_group: usize,
        grouped: bool,
    },
    Pool(Op),
    Activation(Op),
    /// A sum, difference or product with an earlier value of the same shape, or one number per channel, chosen by this number.
    Arithmetic(Op, usize),
    /// A quotient by an earlier value as for the arithmetic, clipped so that it is far from zero.
    Div(usize),
    /// Behind an earlier value of the same size, chosen by this number, and the value itself once more.
    Concat(usize),
    BatchNormalization,
    /// With one slope per channel, or with one.
    PRelu(bool),
    /// Over that many dimensions, with or without a bias.
    LayerNormalization(usize, bool),
    Pad([usize; 4], f32),
    /// The last dimension becomes the first, without a number moved.
    Reshape,
    /// The dimensions in that order.
    Transpose([usize; 3]),
    GlobalAveragePool,
    Flatten,
    Linear {
        out: usize,
        bias: bool,
    },
    Softmax,
    LogSoftmax,
    /// A function of numbers from 0.5 to 2, behind a clip to them.
    Bounded(Op),
    /// With the transpose of an earlier map of the same shape, chosen by this number.
    MatMul(usize),
    /// All but the first element along the dimension of this number.
    Slice(usize),
    /// The pixels of each channel twice.
    Expand,
}

fn activation() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Op::Clip(ops::Clip {
            min: Some(-0.25),
            max: Some(0.5)
        })),
        Just(Op::Clip(ops::Clip {
            min: None,
            max: Some(0.5)
        })),
        Just(Op::LeakyRelu(ops::LeakyRelu { alpha: 0.1 })),
        Just(Op::Sigmoid),
        Just(Op::HardSigmoid(ops::HardSigmoid {
            alpha: 0.3,
            beta: 0.4
        })),
        Just(Op::HardSwish),
        Just(Op::Tanh),
        Just(Op::Gelu(ops::Gelu {
            approximate: Approximate::None
        })),
        Just(Op::Gelu(ops::Gelu {
            approximate: Approximate::Tanh
        })),
        Just(Op::Elu(ops::Elu { alpha: 0.7 })),
        Just(Op::Softplus),
        Just(Op::Erf),
    ]
}

pub fn recipe() -> impl Strategy<Value = Recipe> {
    let two = |r: std::ops::RangeInclusive<usize>| [r.clone(), r];
    prop_oneof![
        4 => (1usize..6, two(1..=3), two(1..=2), [0usize..3, 0..3, 0..3, 0..3], two(1..=2), any::<[bool; 2]>()).prop_map(
            |(out_of_group, kernel_shape, strides, pads, dilations, [grouped, bias])| {
                let window = Window { kernel_shape, strides, pads, dilations };
                let conv = Conv2d { bias, ..Conv2d::new(0, window) };
                Recipe::Conv { conv, out_of_group, grouped }
            }),
        2 => (any::<bool>(), two(1..=3), two(1..=2), [0usize..2, 0..2, 0..2, 0..2]).prop_map(
            |(max, kernel_shape, strides, pads)| {
                let window = Window { kernel_shape, strides, pads, dilations: [1, 1] };
                Recipe::Pool(if max { Op::MaxPool(ops::MaxPool { window }) } else { Op::AveragePool(ops::AveragePool { window }) })
            }),
        2 => Just(Recipe::Activation(Op::Relu)),
        3 => activation().prop_map(Recipe::Activation),
        3 => (prop_oneof![2 => Just(Op::Add), 1 => Just(Op::Sub), 1 => Just(Op::Mul), 1 => Just(Op::Max), 1 => Just(Op::Min)], any::<usize>())
            .prop_map(|(op, n)| Recipe::Arithmetic(op, n)),
        1 => any::<usize>().prop_map(Recipe::Div),
        1 => any::<usize>().prop_map(Recipe::Concat),
        2 => Just(Recipe::BatchNormalization),
        2 => any::<bool>().prop_map(Recipe::PRelu),
        2 => (1usize..=3, any::<bool>()).prop_map(|(dimensions, bias)| Recipe::LayerNormalization(dimensions, bias)),
        1 => ([0usize..3, 0..3, 0..3, 0..3], prop_oneof![Just(0.0), Just(0.5)]).prop_map(
            |(pads, value)| Recipe::Pad(pads, value)),
        1 => Just(Recipe::Reshape),
        2 => prop_oneof![Just([0, 1, 2]), Just([0, 2, 1]), Just([1, 0, 2]), Just([1, 2, 0]), Just([2, 0, 1]), Just([2, 1, 0])].prop_map(Recipe::Transpose),
        1 => Just(Recipe::GlobalAveragePool),
        2 => Just(Recipe::Flatten),
        4 => (1usize..40, any::<bool>()).prop_map(|(out, bias)| Recipe::Linear { out, bias }),
        1 => Just(Recipe::Softmax),
        1 => Just(Recipe::LogSoftmax),
        2 => prop_oneof![Just(Op::Exp), Just(Op::Log), Just(Op::Sqrt)].prop_map(Recipe::Bounded),
        2 => any::<usize>().prop_map(Recipe::MatMul),
        1 => Just(Recipe::Expand),
        2 => any::<usize>().prop_map(Recipe::Slice),
    ]
}

fn pointwise(out_of_group: usize) -> Recipe {
    Recipe::Conv {
        conv: Conv2d::square(0, 1),
        out_of_group,
        grouped: false,
    }
}

/// A convolution with a normalisation behind it or a border of zeros before it.
pub fn folded() -> impl Strategy<Value = [Recipe; 2]> {
    prop_oneof![
        Just([pointwise(3), Recipe::BatchNormalization]),
        Just([Recipe::Pad([1, 0, 2, 1], 0.0), pointwise(3)]),
    ]
}

/// Two convolutions with channels between them that few weights may leave dead.
pub fn two_convolutions() -> [Recipe; 2] {
    [pointwise(6), pointwise(3)]
}

/// Builds the network that the recipes describe; a recipe that does not fit where it stands is left out.
pub fn build(input: Shape, recipes: &[Recipe], density: f64, seed: u64, csr: bool) -> Network {
    let mut b = GraphBuilder::new("random");
    let x = b.input("x", input);
    grow(&mut b, vec![x], recipes);
    fill(b, density, seed, csr)
}

/// As [`build`], with a second input `z` of the same shape, and besides the last value the outputs that `outputs` choose: inputs, values that
/// other nodes read, and values that none reads.
pub fn build_several(
    input: Shape,
    recipes: &[Recipe],
    outputs: &[usize],
    density: f64,
    seed: u64,
) -> Network {
    let mut b = GraphBuilder::new("several");
    let z = b.input("z", input.clone());
    let x = b.input("x", input);
    let values = grow(&mut b, vec![z, x], recipes);
    let mut chosen = vec![values.len() - 1];
    for n in outputs {
        if !chosen.contains(&(n % values.len())) {
            chosen.push(n % values.len());
        }
    }
    for i in chosen {
        b.output(&values[i]);
    }
    fill(b, density, seed, false)
}

/// Adds the nodes of all recipes that fit; returns all values.
fn grow(b: &mut GraphBuilder, mut values: Vec<String>, recipes: &[Recipe]) -> Vec<String> {
    for (i, recipe) in recipes.iter().enumerate() {
        let mut longer = b.clone();
        if let Some(value) = add(&mut longer, &values, recipe, i)
            && longer.shape(&value).is_some()
        {
            values.push(value);
            *b = longer;
        }
    }
    values
}

fn fill(b: GraphBuilder, density: f64, seed: u64, csr: bool) -> Network {
    let mut stream = Stream(seed);
    b.network(|name, shape| {
        let shape = shape.clone();
        match shape.dims().len() {
            1 => {
                let mut vector = stream.bernoulli(shape, 1.0);
                if name.ends_with("running_var") {
                    vector.values.iter_mut().for_each(|v| *v = v.abs() + 0.1);
                }
                vector.into()
            }
            _ if csr => stream.sparse(shape, density).into(),
            _ => stream.bernoulli(shape, density).into(),
        }
    })
    .unwrap()
}

/// Adds the nodes of a recipe behind the last of `values`, unless they need another kind of value; returns the last.
fn add(b: &mut GraphBuilder, values: &[String], recipe: &Recipe, i: usize) -> Option<String> {
    let x = values.last()?;
    let name = format!("n{i}");
    let shape = b.shape(x)?.clone();
    let dims = shape.dims();
    let is_map = dims.len() == 3;
    // An earlier value that fits, or the last one.
    let earlier = |n: usize, fits: &dyn Fn(&Shape) -> bool| {
        let all = values
            .iter()
            .filter(|&v| b.shape(v).is_some_and(fits))
            .collect::<Vec<_>>();
        all[n % all.len()].clone()
    };
    let same_or_per_channel = |s: &Shape| *s == shape || is_per_channel(s, &shape);
    let value = match recipe {
        Recipe::Conv {
            conv,
            out_of_group,
            grouped,
        } if is_map => {
            let groups = if *grouped { dims[0] } else { 1 };
            let mut conv = conv.clone().groups(groups);
            conv.out_channels = out_of_group * groups;
            b.conv(name, x, &conv)
        }
        Recipe::Pool(op) if is_map => b.op(name, op.clone(), &[x]),
        Recipe::GlobalAveragePool if is_map => b.op(name, Op::GlobalAveragePool, &[x]),
        Recipe::Activation(op) => b.op(name, op.clone(), &[x]),
        Recipe::Flatten => b.op(name, Op::Flatten, &[x]),
        Recipe::Arithmetic(op, n) => {
            let second = earlier(*n, &same_or_per_channel);
            b.op(name, op.clone(), &[x, &second])
        }
        Recipe::Div(n) => {
            let second = earlier(*n, &same_or_per_channel);
            let (min, max) = (Some(0.5), Some(2.0));
            let divisor = b.op(
                format!("{name}.clip"),
                Op::Clip(ops::Clip { min, max }),
                &[&second],
            );
            b.op(name, Op::Div, &[x, &divisor])
        }
        Recipe::Concat(n) => {
            let second = earlier(*n, &|s: &Shape| s.dims()[1..] == dims[1..]);
            b.op(name, Op::Concat(ops::Concat::default()), &[x, &second, x])
        }
        Recipe::BatchNormalization => b.batch_normalization(name, x),
        &Recipe::PRelu(per_channel) => {
            let slopes = match per_channel {
                true => ops::PRelu::per_channel(&shape),
                false => Shape::from([1]),
            };
            let slope = b.tensor(format!("{name}.weight"), slopes);
            b.op(name, Op::PRelu(ops::PRelu { slope }), &[x])
        }
        &Recipe::LayerNormalization(dimensions, bias) if dimensions <= dims.len() => {
            let normalized = Shape(dims[dims.len() - dimensions..].to_vec());
            let mut tensor = |part: &str| b.tensor(format!("{name}.{part}"), normalized.clone());
            let scale = tensor("weight");
            let bias = bias.then(|| tensor("bias"));
            let op = Op::LayerNormalization(ops::LayerNormalization {
                scale,
                bias,
                dimensions,
                epsilon: 1e-2,
            });
            b.op(name, op, &[x])
        }
        &Recipe::Pad(pads, value) if is_map => b.op(name, Op::Pad(ops::Pad { pads, value }), &[x]),
        Recipe::Reshape => {
            let mut shape = dims.to_vec();
            shape.rotate_right(1);
            b.op(name, Op::Reshape(ops::Reshape { shape }), &[x])
        }
        Recipe::Transpose(perm) if is_map => {
            let perm = perm.to_vec();
            b.op(name, Op::Transpose(ops::Transpose { perm }), &[x])
        }
        Recipe::Linear { out, bias: true } if !is_map => b.linear(name, x, *out),
        Recipe::Linear { out, bias: false } if !is_map => {
            let weight = b.tensor(format!("{name}.weight"), [*out, dims[0]]);
            b.op(name, Op::Linear(ops::Linear { weight, bias: None }), &[x])
        }
        Recipe::Softmax if !is_map => b.op(name, Op::Softmax(ops::Softmax::default()), &[x]),
        Recipe::LogSoftmax if !is_map => {
            b.op(name, Op::LogSoftmax(ops::LogSoftmax::default()), &[x])
        }
        Recipe::Bounded(op) => {
            let (min, max) = (Some(0.5), Some(2.0));
            let clip = Op::Clip(ops::Clip { min, max });
            let bounded = b.op(format!("{name}.clip"), clip, &[x]);
            b.op(name, op.clone(), &[&bounded])
        }
        Recipe::MatMul(n) if is_map => {
            let second = earlier(*n, &|s: &Shape| *s == shape);
            let perm = vec![0, 2, 1];
            let transpose = Op::Transpose(ops::Transpose { perm });
            let second = b.op(format!("{name}.transposed"), transpose, &[&second]);
            b.op(name, Op::MatMul, &[x, &second])
        }
        Recipe::Slice(axis) => {
            let axis = axis % dims.len();
            let slice = ops::Slice {
                axis,
                start: 1,
                end: dims[axis],
            };
            b.op(name, Op::Slice(slice), &[x])
        }
        Recipe::Expand if is_map => {
            let area = dims[1] * dims[2];
            let shape = vec![dims[0], 1, area];
            let row = b.op(
                format!("{name}.row"),
                Op::Reshape(ops::Reshape { shape }),
                &[x],
            );
            let shape = vec![dims[0], 2, area];
            b.op(name, Op::Expand(ops::Expand { shape }), &[&row])
        }
        _ => return None,
    };
    Some(value)
}
