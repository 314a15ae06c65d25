//! Arithmetic between values and with constants, slopes among them.

use std::rc::Rc;

use sparsevd_model::{Dense, Op, Shape, Weights, ops};

use super::activations::clip;
use super::importer::{Importer, Value};
use super::view::{MOST_TRACKED, View};
use crate::attributes::OnnxNode;
use crate::constants::source;
use crate::node_error::{Invalid, NodeError};
use crate::tensor::Tensor;

impl<'m> Importer<'m> {
    pub(super) fn arithmetic(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        let name = node.0.op_type.as_str();
        match inputs {
            [Some(Value::Activation(a)), Some(Value::Activation(b))] => {
                let op = match name {
                    "Add" => Op::Add,
                    "Sub" => Op::Sub,
                    "Mul" => Op::Mul,
                    _ => Op::Div,
                };
                self.between(node, op, a, b)
            }
            [Some(Value::Activation(x)), Some(Value::Constant(c))] => {
                self.with(node, name, x, c, false)
            }
            [Some(Value::Constant(c)), Some(Value::Activation(x))] => {
                self.with(node, name, x, c, true)
            }
            _ => Err(node.invalid("two inputs", inputs.len().to_string()).into()),
        }
    }

    /// The sum or mean of any number of inputs.
    pub(super) fn sum(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        let (views, constants) = operands(node, inputs)?;
        let mut sum = views[0].clone();
        for view in &views[1..] {
            sum = self.between(node, Op::Add, &sum, view)?;
        }
        for constant in constants {
            sum = self.with(node, "Add", &sum, constant, false)?;
        }
        match node.0.op_type.as_str() {
            "Mean" if inputs.len() > 1 => {
                self.affine(node, &sum, vec![1.0 / inputs.len() as f32], vec![0.0])
            }
            _ => Ok(sum),
        }
    }

    /// The maximum or minimum of values and constants that are one number.
    pub(super) fn bound(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        let (views, constants) = operands(node, inputs)?;
        let is_max = node.0.op_type == "Max";
        let op = if is_max { Op::Max } else { Op::Min };
        let mut x = views[0].clone();
        for view in &views[1..] {
            x = self.between(node, op.clone(), &x, view)?;
        }
        for constant in constants {
            let values = self.broadcast(node, &x, constant)?.values;
            let Some(&first) = values.first().filter(|v| values.iter().all(|w| w == *v)) else {
                return Err(NodeError::unsupported(format!(
                    "a {} of different numbers",
                    constant.describe()
                )));
            };
            // Every number is at least minus infinity.
            let bounds_nothing = match is_max {
                true => f32::NEG_INFINITY,
                false => f32::INFINITY,
            };
            if first == bounds_nothing {
                continue;
            }
            let op = match is_max {
                true => clip(Some(first), None),
                false => clip(None, Some(first)),
            };
            x = self.map(node, &x, op)?;
        }
        Ok(x)
    }

    /// Arithmetic between two computed values.
    pub(super) fn between(
        &mut self,
        node: OnnxNode<'m>,
        op: Op,
        a: &View,
        b: &View,
    ) -> Result<View, NodeError> {
        let is_one_order = match (&a.order, &b.order) {
            (Some(a), Some(b)) if !Rc::ptr_eq(a, b) => {
                self.decoder.take(&node.label(), &[a.len()])?;
                a == b
            }
            (a, b) => a.is_some() == b.is_some(),
        };
        if a.dims == b.dims && is_one_order {
            let made = if a.shape == b.shape {
                self.push(node, op, &[a, b])?
            } else {
                let (flat, other) = (self.flat(a)?, self.flat(b)?);
                self.push(node, op, &[&flat, &other])?
            };
            let input = a.input.filter(|i| b.input == Some(*i));
            return Ok(View {
                input,
                ..a.elementwise(made)
            });
        }
        if a.dims == b.dims && self.moves {
            let dims = a.dims.clone();
            let (a, b) = (self.in_shape(a, &dims)?, self.in_shape(b, &dims)?);
            return self.push(node, op, &[&a, &b]);
        }
        let commutes = matches!(op, Op::Add | Op::Mul | Op::Max | Op::Min);
        let (map, numbers) = if self.is_per_channel(node, b, a)? {
            (a, b)
        } else if commutes && self.is_per_channel(node, a, b)? {
            (b, a)
        } else if let Some(dims) = self.joint_dims(a, b).filter(|_| a.dims != b.dims) {
            let (a, b) = (self.broadcast_to(a, &dims)?, self.broadcast_to(b, &dims)?);
            return self.push(node, op, &[&a, &b]);
        } else {
            return Err(NodeError::unsupported(format!(
                "operands {} and {}",
                Shape(a.dims.clone()),
                Shape(b.dims.clone())
            )));
        };
        let made = self.push(node, op, &[map, numbers])?;
        Ok(View {
            input: None,
            ..map.elementwise(made)
        })
    }

    /// Whether `numbers` has one number per channel of `map`, in the network and, when it is broadcast, in the file.
    fn is_per_channel(
        &self,
        node: OnnxNode<'m>,
        numbers: &View,
        map: &View,
    ) -> Result<bool, NodeError> {
        let shapes = [numbers, map].map(|v| Shape(v.shape.clone()));
        let (few, many) = (&numbers.dims, &map.dims);
        // A difference of ranks would pair axes with the batch.
        let broadcasts =
            few.len() == many.len() && few.iter().zip(many).all(|(f, m)| *f == 1 || f == m);
        if !broadcasts || !sparsevd_model::ops::is_per_channel(&shapes[0], &shapes[1]) {
            return Ok(false);
        }
        // The common case, decided without a look at each element.
        if let (Some(c), Some(_)) = (map.channels_first(), numbers.channels_first()) {
            return Ok(few[0] == c && few[1..].iter().all(|d| *d == 1));
        }
        let elements = self.decoder.take(&node.label(), many)?;
        let area = elements / map.shape[0].max(1);
        let index = |order: &View, i: usize| order.order.as_ref().map_or(i, |o| o[i] as usize);
        Ok((0..elements).all(|i| {
            let channel = index(map, i) / area.max(1);
            channel == index(numbers, source(i, many, few))
        }))
    }

    /// Arithmetic with a constant, by its operator's name: a bias of the layer before, or a normalisation without statistics.
    pub(super) fn with(
        &mut self,
        node: OnnxNode<'m>,
        op: &str,
        x: &View,
        c: &Tensor,
        first: bool,
    ) -> Result<View, NodeError> {
        if op == "Add" && node.0.op_type == "Add" && self.is_bias_of_vectors(node, x, c, first) {
            let values = self.dense(node, "bias", c)?.values;
            let mut made = self.add_bias(node, x, values, first)?;
            // The layer is what the sum makes, and has no consumer yet.
            if let (Some(name), Some(last)) = (node.0.output.first(), self.nodes.last_mut())
                && !name.is_empty()
                && self.names.insert(name.clone())
            {
                name.clone_into(&mut last.name);
                name.clone_into(&mut made.name);
            }
            return Ok(made);
        }
        let Broadcast { x, values } = self.broadcast(node, x, c)?;
        if op == "Add" && node.0.op_type == "Add" && self.takes_bias(node, &x, &values, first) {
            return Ok(self.add_bias(node, &x, values, first)?);
        }
        let n = values.len();
        let (scale, shift) = match (op, first) {
            ("Add", _) => (vec![1.0; n], values),
            ("Sub", false) => (vec![1.0; n], values.iter().map(|v| -v).collect()),
            ("Sub", true) => (vec![-1.0; n], values),
            ("Mul", _) => (values, vec![0.0; n]),
            ("Div", false) => (values.iter().map(|v| 1.0 / v).collect(), vec![0.0; n]),
            _ => return self.quotient(node, values, &x),
        };
        self.affine(node, &x, scale, shift)
    }

    /// A parametric ReLU; a slope that differs between the pixels of a map is that of a vector.
    pub(super) fn prelu(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        slope: Option<&Tensor>,
    ) -> Result<View, NodeError> {
        let Some(slope) = slope else {
            return Err(NodeError::unsupported("a slope that is not a constant"));
        };
        let Broadcast { x, values } = self.broadcast(node, x, slope)?;
        let shape = match values.len() {
            1 => Shape::from([1]),
            _ => ops::PRelu::per_channel(&Shape(x.shape.clone())),
        };
        let name = node.input(1).unwrap_or_default();
        let slope = self.tensor(name, Dense::new(shape, values));
        self.map(node, &x, Op::PRelu(ops::PRelu { slope }))
    }

    /// A constant as one number, one per channel or one per element, and `x` in the shape that these are for.
    fn broadcast(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        c: &Tensor,
    ) -> Result<Broadcast, NodeError> {
        let refused = || {
            NodeError::unsupported(format!(
                "a {} beside {}",
                c.describe(),
                Shape(x.dims.clone())
            ))
        };
        self.decoder.take(&node.label(), &c.dims)?;
        let values = c.floats().ok_or_else(refused)?;
        // Dimensions are aligned at the end; only ones may be before those of `x`.
        let rank = x.dims.len();
        let (ones, own) = c.dims.split_at(c.dims.len().saturating_sub(rank));
        if ones.iter().any(|d| *d != 1) || self.batch_axes == 1 && ones.len() > 1 {
            return Err(refused());
        }
        let mut x = x.clone();
        if self.batch_axes == 0 {
            x.dims.splice(0..0, ones.iter().copied());
        }
        if let &[one] = values {
            return Ok(Broadcast {
                x,
                values: vec![one],
            });
        }
        let fits = |(c, x): (&usize, &usize)| *c == 1 || c == x;
        if !own.iter().rev().zip(x.dims.iter().rev()).all(fits) {
            return Err(refused());
        }
        if let Some(channels) = x.channels_first()
            && own.len() == x.dims.len()
            && own[0] == channels
            && own[1..].iter().all(|d| *d == 1)
        {
            let values = values.to_vec();
            return Ok(Broadcast { x, values });
        }
        if x.elements() > MOST_TRACKED {
            return Err(refused());
        }
        let elements = self.decoder.take(&node.label(), &x.dims)?;
        let all = (0..elements)
            .map(|i| values[source(i, &x.dims, own)])
            .collect();
        let all = x.in_network_order(all);
        let channels = x.shape.first().copied().unwrap_or(1);
        let of_channels = all.chunks((elements / channels.max(1)).max(1));
        if of_channels.clone().all(|c| c.iter().all(|v| *v == c[0])) {
            let values = of_channels.map(|c| c[0]).collect();
            return Ok(Broadcast { x, values });
        }
        let dims = x.dims.clone();
        let x = self.flat(&x)?.reshaped(dims);
        Ok(Broadcast { x, values: all })
    }

    /// Whether this node adds a bias to the matrix product that makes `x` and has no other use.
    fn takes_bias(&self, node: OnnxNode<'m>, x: &View, values: &[f32], first: bool) -> bool {
        let Some(last) = self.nodes.last().filter(|n| n.name == x.name) else {
            return false;
        };
        let is_alone = node.input(usize::from(first)) == Some(x.name.as_str())
            && self.uses.get(x.name.as_str()) == Some(&1);
        let product = matches!(last.op, Op::Linear(ops::Linear { bias: None, .. }));
        product && is_alone && x.shape == [values.len()]
    }

    /// Whether this node adds a bias to the units of a layer over several vectors, or to the rows of a table, and that has no other use.
    fn is_bias_of_vectors(&self, node: OnnxNode<'m>, x: &View, c: &Tensor, first: bool) -> bool {
        let Some(last) = self.nodes.last().filter(|n| n.name == x.name) else {
            return false;
        };
        let is_alone = node.input(usize::from(first)) == Some(x.name.as_str())
            && self.uses.get(x.name.as_str()) == Some(&1);
        let product = matches!(
            last.op,
            Op::Linear(ops::Linear { bias: None, .. }) | Op::Embedding(_)
        );
        let is_row = |out: &usize| {
            c.dims.last() == Some(out)
                && c.dims.len() <= x.dims.len() + self.batch_axes
                && c.dims.iter().rev().skip(1).all(|d| *d == 1)
        };
        let plain = x.order.is_none() && x.dims.last() == x.shape.last();
        product && is_alone && plain && x.shape.len() > 1 && x.shape.last().is_some_and(is_row)
    }

    fn add_bias(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        values: Vec<f32>,
        first: bool,
    ) -> Result<View, Invalid> {
        if let Some(Op::Embedding(ops::Embedding { table })) = self.nodes.last().map(|n| &n.op) {
            let table = table.clone();
            self.add_to_rows(node, &table, &values)?;
            return Ok(x.clone());
        }
        let name = node.input(usize::from(!first)).unwrap_or_default();
        let bias = self.tensor(name, Dense::new([values.len()], values));
        if let Some(last) = self.nodes.last_mut()
            && let Op::Linear(ops::Linear { weight, .. }) = &last.op
        {
            let weight = weight.clone();
            last.op.rename_tensors(weight, Some(bias));
        }
        Ok(x.clone())
    }

    /// Adds numbers to each row of the table that the last node reads. Each copy of a table counts towards the budget.
    fn add_to_rows(
        &mut self,
        node: OnnxNode<'m>,
        name: &str,
        numbers: &[f32],
    ) -> Result<(), Invalid> {
        let Some(mut table) = self.tensors.get(name).map(Weights::to_dense) else {
            return Ok(());
        };
        self.decoder.take(&node.label(), table.shape.dims())?;
        for row in table.values.chunks_mut(numbers.len().max(1)) {
            row.iter_mut().zip(numbers).for_each(|(v, n)| *v += n);
        }
        let readers = self.tables.entry(name.to_owned()).or_insert(1);
        if *readers == 1 {
            self.tensors.insert(name.to_owned(), Weights::Dense(table));
            return Ok(());
        }
        *readers -= 1;
        let mut name = format!("{name}.biased");
        while self.tensors.contains_key(&name) {
            name.push('_');
        }
        self.tables.insert(name.clone(), 1);
        self.tensors.insert(name.clone(), Weights::Dense(table));
        if let Some(last) = self.nodes.last_mut() {
            last.op = Op::Embedding(ops::Embedding { table: name });
        }
        Ok(())
    }

    /// Constants over a value: one number, one per channel, or one per element of a vector.
    pub(super) fn quotient(
        &mut self,
        node: OnnxNode<'m>,
        values: Vec<f32>,
        x: &View,
    ) -> Result<View, NodeError> {
        // The clip from 1 to 1 is 1 whatever `x` is.
        let ones = self.map(node, x, clip(Some(1.0), Some(1.0)))?;
        let n = values.len();
        let above = match values.as_slice() {
            [1.0] => ones,
            _ => self.affine(node, &ones, values, vec![0.0; n])?,
        };
        self.between(node, Op::Div, &above, x)
    }

    /// `scale x + shift` per channel, one number standing for all.
    pub(super) fn affine(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        scale: Vec<f32>,
        shift: Vec<f32>,
    ) -> Result<View, NodeError> {
        let Some(&channels) = x.shape.first() else {
            return Err(NodeError::unsupported("a value without channels"));
        };
        self.decoder.take(&node.label(), &[4, channels])?;
        let mut tensor = |part: &str, values: Vec<f32>| {
            let values = match values.as_slice() {
                &[one] => vec![one; channels],
                _ => values,
            };
            self.tensor(
                &format!("{}.{part}", node.name()),
                Dense::new([channels], values),
            )
        };
        let op = Op::BatchNormalization(ops::BatchNormalization {
            scale: tensor("scale", scale),
            bias: tensor("shift", shift),
            mean: tensor("mean", vec![0.0]),
            variance: tensor("variance", vec![1.0]),
            epsilon: 0.0,
        });
        self.map(node, x, op)
    }
}

/// A constant that was broadcast to a value.
struct Broadcast {
    /// The value, as a vector where the constant has a number per element.
    x: View,
    /// One number, or one per channel in the network.
    values: Vec<f32>,
}

/// The computed inputs of a node, at least one, and its constants.
fn operands<'v>(
    node: OnnxNode<'_>,
    inputs: &'v [Option<Value>],
) -> Result<(Vec<&'v View>, Vec<&'v Tensor>), NodeError> {
    let (mut views, mut constants) = (Vec::new(), Vec::new());
    for input in inputs {
        match input {
            Some(Value::Activation(view)) => views.push(view),
            Some(Value::Constant(tensor)) => constants.push(&**tensor),
            _ => return Err(node.invalid("inputs", "an absent one").into()),
        }
    }
    Ok((views, constants))
}
