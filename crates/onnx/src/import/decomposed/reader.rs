//! Looking back from a value of the file to the nodes that it comes from.

use std::cell::Cell;
use std::rc::Rc;

use crate::attributes::OnnxNode;
use crate::import::importer::{Importer, Value};
use crate::import::shapes::cast;
use crate::import::view::View;
use crate::tensor::Tensor;

/// Most nodes that are looked at for one operator. A layer normalisation of fifteen nodes asks for some of them several times.
const MOST_STEPS: usize = 128;

/// Looks at the nodes behind a value, up to [`MOST_STEPS`] of them.
pub(super) struct Reader<'a, 'm> {
    pub importer: &'a Importer<'m>,
    left: Cell<usize>,
    rank: Cell<usize>,
}

impl<'a, 'm> Reader<'a, 'm> {
    pub fn new(importer: &'a Importer<'m>) -> Self {
        Self {
            importer,
            left: Cell::new(MOST_STEPS),
            rank: Cell::new(0),
        }
    }

    /// The node of ONNX's own operators whose first output a value is.
    pub fn node(&self, value: &str) -> Option<OnnxNode<'m>> {
        self.left.set(self.left.get().checked_sub(1)?);
        let node = *self.importer.producers.get(value)?;
        let own = matches!(node.0.domain.as_str(), "" | "ai.onnx");
        (own && node.0.output.first().is_some_and(|o| o == value)).then_some(node)
    }

    /// The node, where it is one of that operator.
    pub fn node_of(&self, value: &str, op: &str) -> Option<OnnxNode<'m>> {
        self.node(value).filter(|n| n.0.op_type == op)
    }

    pub fn constant(&self, value: &str) -> Option<Rc<Tensor>> {
        match self.importer.values.get(value)? {
            Value::Constant(tensor) => Some(Rc::clone(tensor)),
            _ => None,
        }
    }

    /// A constant that is one floating-point number. Its dimensions count: with more than the value beside it, it gives that more.
    pub fn number(&self, value: &str) -> Option<f64> {
        let tensor = self.constant(value)?;
        match tensor.floats()? {
            &[number] => {
                self.rank.set(self.rank.get().max(tensor.dims.len()));
                Some(f64::from(number))
            }
            _ => None,
        }
    }

    /// Most dimensions of the numbers that were looked at.
    pub fn rank(&self) -> usize {
        self.rank.get()
    }

    /// The value that a cast between floating-point types, or nothing, makes into this one.
    pub fn plain(&self, value: &'m str) -> &'m str {
        let mut value = value;
        while let Some(node) = self.node(value)
            && let Some(before) = node.input(0)
        {
            let is_plain = match node.0.op_type.as_str() {
                "Identity" => true,
                "Cast" => cast(node, &View::new(String::new(), vec![])).is_ok(),
                _ => false,
            };
            if !is_plain {
                break;
            }
            value = before;
        }
        value
    }

    /// The two inputs of a node; `None` where it has more or fewer.
    pub fn pair(node: OnnxNode<'m>) -> Option<[&'m str; 2]> {
        let two = node.0.input.len() == 2;
        two.then(|| Some([node.input(0)?, node.input(1)?]))
            .flatten()
    }

    /// Whether the constants among the inputs of a node have at most as many dimensions as a value with `inner` of them per sample.
    pub fn keeps_rank(&self, node: OnnxNode<'m>, inner: usize) -> bool {
        let rank = inner + self.importer.batch_axes;
        let fits = |name: &String| self.constant(name).is_none_or(|t| t.dims.len() <= rank);
        node.0.input.iter().all(fits)
    }

    /// The input of a node beside a number, and that number: `x + 1` as well as `1 + x`.
    pub fn beside_number(&self, node: OnnxNode<'m>) -> Option<(&'m str, f64)> {
        let [a, b] = Self::pair(node)?;
        match (self.number(a), self.number(b)) {
            (None, Some(number)) => Some((a, number)),
            (Some(number), None) => Some((b, number)),
            _ => None,
        }
    }

    /// `x` of a value that is `x x`.
    pub fn square(&self, value: &'m str) -> Option<&'m str> {
        let node = self.node(self.plain(value))?;
        let [a, b] = Self::pair(node)?;
        let is_square = match node.0.op_type.as_str() {
            "Mul" => self.plain(a) == self.plain(b),
            "Pow" => self.number(b) == Some(2.0),
            _ => false,
        };
        is_square.then(|| self.plain(a))
    }

    /// Dimensions per sample of a value, also of one that changes each element of another by a node that is not imported.
    pub fn dims(&self, value: &str) -> Option<Vec<usize>> {
        if let Some(Value::Activation(view)) = self.importer.values.get(value) {
            return Some(view.dims.clone());
        }
        let node = self.node(value)?;
        match node.0.op_type.as_str() {
            "Exp" | "Pow" | "Cast" | "Identity" => self.dims(node.input(0)?),
            "Mul" | "Sub" => {
                let all = Self::pair(node)?.map(|input| self.dims(input));
                all.into_iter()
                    .flatten()
                    .max_by_key(|dims| dims.iter().product::<usize>())
            }
            _ => None,
        }
    }
}
