//! What a packed file stores before the numbers of its tensors: the graph, plain tensors, grids of int8 layers, and of the other tensors rows,
//! original rows, layouts and scales.

use std::collections::{BTreeMap, HashMap};

use sparsevd_model::{Graph, ModelError, Network, Node, Op, Shape, Weights, ops, presets, shape};

use super::error::PackedError;
use super::fields::{Field, Fields};
use super::graph::graph;
use super::grids::{Grids, grids};
use super::limits::Limits;
use super::order::keeps_units;
use super::plain::{PlainTensors, plain_tensors};
use super::range::Coder;
use super::scale::code_scale;

/// All of a network but the numbers of its weights and biases.
pub(super) struct Skeleton {
    pub graph: Graph,
    pub plain: PlainTensors,
    /// Weights and biases, in the order of the nodes.
    pub tensors: Vec<Tensor>,
    pub grids: Grids,
}

/// Codes everything before the numbers; a reader passes `None`.
pub(super) fn skeleton<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    has_grids: bool,
    have: Option<&Network>,
    limits: &Limits,
) -> Result<Skeleton, PackedError> {
    let (graph, preset) = graph(coder, fields, have, limits)?;
    let plain = plain_tensors(coder, fields, &graph, have, limits)?;
    let tensors = tensors(coder, fields, &graph, &plain, preset, have, limits)?;
    let grids = match has_grids {
        true => grids(coder, fields, &graph, have)?,
        false => Grids::new(),
    };
    Ok(Skeleton {
        graph,
        plain,
        tensors,
        grids,
    })
}

/// A weight or a bias.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub name: String,
    pub shape: Shape,
    pub original: Shape,
    pub scale: f32,
    /// Whether zeros are stored in memory.
    pub dense: bool,
    /// What its columns are; nothing for a bias.
    pub columns: Option<Columns>,
    /// The bias of the same node, where this is a weight and the bias is no other node's before.
    pub bias: Option<usize>,
}

/// What the columns of a weight are: input units, each over a grid of positions (a kernel, or a feature map that was
/// flattened; one by one between linear layers).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Columns {
    /// Input units.
    pub units: usize,
    /// Height and width of the grid.
    pub grid: [usize; 2],
    /// The weight whose rows are the units, where activations, pooling and flattening alone are between.
    pub producer: Option<String>,
}

/// Codes what is known of the tensors. Weights and biases come in the order of the nodes.
fn tensors<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    graph: &Graph,
    plain: &PlainTensors,
    preset: Option<&str>,
    have: Option<&Network>,
    limits: &Limits,
) -> Result<Vec<Tensor>, PackedError> {
    graph.check()?;
    let weights = unique(graph.nodes.iter().filter_map(|n| n.op.weight()));
    let known: HashMap<String, Shape> = preset
        .and_then(presets::by_name)
        .map_or_else(HashMap::new, |(_, tensors)| tensors.into_iter().collect());
    let (mut now, mut before) = (HashMap::new(), HashMap::new());
    for &name in &weights {
        let rows_of = |s: Shape| s.dims().first().copied().unwrap_or(0);
        let rows =
            have.map(|n| rows_of(n.tensors.get(name).map(Weights::shape).unwrap_or_default()));
        let first = match known.get(name) {
            Some(shape) => rows_of(shape.clone()),
            None => {
                let first = have.map_or(0, |n| rows_of(n.original_shape(name)));
                fields.number(coder, first, Field::Rows)?
            }
        };
        let rows = if fields.flag(coder, rows.is_some_and(|r| r < first), Field::Reduced) {
            uniform(coder, rows.unwrap_or(0), first)?
        } else {
            if rows.is_some_and(|r| r != first) {
                return Err(PackedError::tensor(
                    name,
                    "rows",
                    format!("at most {first}, those of the original network"),
                    rows.unwrap_or(0).to_string(),
                ));
            }
            first
        };
        now.insert(name, rows);
        before.insert(name, first);
    }
    let shapes = propagate(graph, plain, &now, limits)?;
    let originals = originals(coder, fields, graph, plain, &shapes, &before, have, limits)?;
    let mut tensors: Vec<Tensor> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut exponents = [-4, -4];
    for node in graph.weighted_nodes() {
        let mut of_weight = None;
        for (kind, name) in [node.op.weight(), node.op.bias()].into_iter().enumerate() {
            let Some(name) = name else { continue };
            if let Some(&there) = places.get(name) {
                if tensors[there].columns.is_some() != (kind == 0) {
                    return Err(PackedError::tensor(
                        name,
                        "use",
                        "a weight or a bias",
                        "both",
                    ));
                }
                of_weight = of_weight.or((kind == 0).then_some(usize::MAX));
                continue;
            }
            let (shape, columns) = shapes
                .get(name)
                .cloned()
                .ok_or_else(|| PackedError::damaged("tensors"))?;
            let tensor = have.and_then(|n| n.tensors.get(name));
            let dense = kind == 1
                || !fields.flag(coder, matches!(tensor, Some(Weights::Csr(_))), Field::Dense);
            let scale = have
                .and_then(|n| n.scales.get(name))
                .copied()
                .unwrap_or(1.0);
            let scale = code_scale(coder, fields, scale, &mut exponents[kind])?;
            let original = originals.get(name).unwrap_or(&shape).clone();
            if original.elements() > limits.elements {
                return Err(PackedError::tensor(
                    name,
                    "original shape",
                    format!("at most {} elements, the limit", limits.elements),
                    original.to_string(),
                ));
            }
            if kind == 0 {
                of_weight = Some(tensors.len());
            } else if let Some(weight) = of_weight.filter(|w| *w != usize::MAX) {
                let this = tensors.len();
                tensors[weight].bias = Some(this);
            }
            let columns = (kind == 0).then_some(columns).flatten();
            places.insert(name, tensors.len());
            tensors.push(Tensor {
                name: name.into(),
                shape,
                original,
                scale,
                dense,
                columns,
                bias: None,
            });
        }
    }
    Ok(tensors)
}

/// Shapes of the tensors in the original network, where they differ: mostly, those of weights follow from the original
/// rows, and biases have none.
#[allow(clippy::too_many_arguments, reason = "what is known of the tensors")]
fn originals<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    graph: &Graph,
    plain: &PlainTensors,
    shapes: &Shapes,
    rows: &HashMap<&str, usize>,
    have: Option<&Network>,
    limits: &Limits,
) -> Result<BTreeMap<String, Shape>, PackedError> {
    let derive = || -> Result<BTreeMap<String, Shape>, PackedError> {
        let all = propagate(graph, plain, rows, limits)?.into_iter();
        Ok(all
            .filter(|(_, (_, columns))| columns.is_some())
            .map(|(n, p)| (n, p.0))
            .collect())
    };
    let follow = have.is_some_and(|network| {
        derive().is_ok_and(|derived| {
            let expected = |name: &String, now| {
                derived.get(name).unwrap_or(now) == &network.original_shape(name)
            };
            shapes.iter().all(|(name, (now, _))| expected(name, now))
        })
    });
    if fields.flag(coder, follow, Field::DerivedOriginal) {
        return derive();
    }
    let mut originals = BTreeMap::new();
    for (name, (shape, _)) in shapes {
        let original = have.map(|n| n.original_shape(name)).filter(|o| o != shape);
        if !fields.flag(coder, original.is_some(), Field::HasOriginal) {
            continue;
        }
        let mut got = shape.clone();
        for (d, dim) in got.0.iter_mut().enumerate() {
            let more = original
                .as_ref()
                .map_or(0, |o| o.dims()[d].saturating_sub(*dim));
            *dim = dim.saturating_add(fields.number(coder, more, Field::Dimension)?);
        }
        originals.insert(name.clone(), got);
    }
    Ok(originals)
}

/// Names in the order of their first use.
fn unique<'g>(names: impl Iterator<Item = &'g str>) -> Vec<&'g str> {
    let mut seen = std::collections::HashSet::new();
    names.filter(|n| seen.insert(*n)).collect()
}

/// A number below `n` in as many bits as `n - 1` has.
fn uniform<C: Coder>(coder: &mut C, value: usize, n: usize) -> Result<usize, PackedError> {
    let Some(most) = n.checked_sub(1).and_then(|m| u32::try_from(m).ok()) else {
        return Err(PackedError::damaged("rows"));
    };
    let value = coder.raw(value as u32, 32 - most.leading_zeros());
    if value > most {
        return Err(PackedError::damaged("rows"));
    }
    Ok(value as usize)
}

/// What flows through the graph: its shape, and what a flattened value was.
#[derive(Clone)]
struct Value {
    shape: Shape,
    /// Channels, height and width before flattening.
    map: Option<[usize; 3]>,
    /// The weight whose rows are its units.
    producer: Option<String>,
}

type Shapes = BTreeMap<String, (Shape, Option<Columns>)>;

/// Shapes of all tensors of a graph whose weights have the given rows.
fn propagate(
    graph: &Graph,
    plain: &PlainTensors,
    rows: &HashMap<&str, usize>,
    limits: &Limits,
) -> Result<Shapes, PackedError> {
    let mut shapes = Shapes::new();
    let mut values: HashMap<&str, Value> = HashMap::new();
    let map = |s: &Shape| match s.dims() {
        &[c, h, w] => Some([c, h, w]),
        _ => None,
    };
    for input in &graph.inputs {
        let value = Value {
            shape: input.shape.clone(),
            map: map(&input.shape),
            producer: None,
        };
        values.insert(&input.name, value);
    }
    for node in &graph.nodes {
        let inputs: Vec<&Value> = node
            .inputs
            .iter()
            .filter_map(|i| values.get(i.as_str()))
            .collect();
        let Some(&x) = inputs.first() else {
            return Err(PackedError::damaged("graph"));
        };
        let (weight, columns) = weight_of(node, x, rows);
        let given = |_: &Node, tensor: &str| -> Result<Shape, ModelError> {
            if Some(tensor) == node.op.weight() {
                return Ok(weight.clone());
            }
            if let Some(plain) = plain.get(tensor) {
                return Ok(plain.dense.shape.clone());
            }
            Ok(Shape(vec![weight.dims().first().copied().unwrap_or(0)]))
        };
        let dims: Vec<&Shape> = inputs.iter().map(|v| &v.shape).collect();
        let out = shape::output_shape(node, &dims, &given)?;
        for shape in [&out, &weight] {
            if shape.elements() > limits.elements {
                return Err(PackedError::part(
                    format!("node `{}`", node.name),
                    format!(
                        "values and weights of at most {} elements, the limit",
                        limits.elements
                    ),
                    shape.to_string(),
                ));
            }
        }
        let bias = Shape(weight.dims().first().copied().into_iter().collect());
        for (tensor, shape, columns) in [
            (node.op.weight(), weight, columns),
            (node.op.bias(), bias, None),
        ] {
            let Some(name) = tensor else { continue };
            if let Some((there, _)) = shapes.get(name) {
                if *there != shape {
                    return Err(ModelError::TensorShape {
                        tensor: name.into(),
                        expected: there.clone(),
                        got: shape,
                    }
                    .into());
                }
                continue;
            }
            shapes.insert(name.to_owned(), (shape, columns));
        }
        let map = if matches!(node.op, Op::Flatten) {
            x.map
        } else {
            map(&out)
        };
        let producer = match node.op.weight() {
            Some(weight) => Some(weight.to_owned()),
            None if keeps_units(&node.op) && inputs.len() == 1 => x.producer.clone(),
            None => None,
        };
        let value = Value {
            shape: out,
            map,
            producer,
        };
        values.insert(&node.name, value);
    }
    Ok(shapes)
}

/// The shape of a node's weight, and what its columns are.
fn weight_of(node: &Node, x: &Value, rows: &HashMap<&str, usize>) -> (Shape, Option<Columns>) {
    let of = |weight: &str| rows.get(weight).copied().unwrap_or(0);
    if let Op::Linear(ops::Linear { weight, .. }) = &node.op {
        let inn = x.shape.dims().first().copied().unwrap_or(0);
        let [units, height, width] = match x.map {
            Some(map) if map.iter().product::<usize>() == inn => map,
            _ => [inn, 1, 1],
        };
        let columns = Columns {
            units,
            grid: [height, width],
            producer: x.producer.clone(),
        };
        (Shape::from([of(weight), inn]), Some(columns))
    } else if let Op::Conv(conv) = &node.op {
        let channels = x.shape.dims().first().copied().unwrap_or(0);
        let units = channels.checked_div(conv.groups).unwrap_or(0);
        let grid @ [height, width] = conv.window.kernel_shape;
        let shape = Shape::from([of(&conv.weight), units, height, width]);
        let producer = x.producer.clone();
        (
            shape,
            Some(Columns {
                units,
                grid,
                producer,
            }),
        )
    } else {
        (Shape::default(), None)
    }
}
