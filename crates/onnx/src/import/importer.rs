//! The state of an import: values, nodes and tensors of the network, to which each node of the file adds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use sparsevd_model::{Node, Weights};

use super::int8::{Int8Candidate, Steps};
use super::ranges::Range;
use super::view::View;
use super::whole::Whole;
use crate::attributes::OnnxNode;
use crate::error::UnsupportedNode;
use crate::node_error::Invalid;
use crate::order::Layout;
use crate::tensor::{Decoder, Tensor};

/// Most elements of a value that flows through the network, per sample.
pub(super) const MOST_ELEMENTS: usize = 1 << 32;

/// What a name of the file stands for.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Constant(Rc<Tensor>),
    Activation(View),
    /// The output of an unsupported node.
    Unknown,
    /// An input or initializer that no operator can take, and why.
    Unusable(Rc<str>),
}

/// Why a file has no network.
#[derive(Debug)]
pub(crate) enum ImportError {
    Invalid(Invalid),
    Unsupported(Vec<UnsupportedNode>),
    Model(sparsevd_model::ModelError),
}

impl From<Invalid> for ImportError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// The state of an import.
pub(super) struct Importer<'m> {
    pub opset: i64,
    pub decoder: &'m Decoder,
    pub values: HashMap<&'m str, Value>,
    /// How many inputs of nodes and outputs of the file have a name.
    pub uses: HashMap<&'m str, usize>,
    /// 1 where the first dimension of every value is the batch, 0 where the file has no batch.
    pub batch_axes: usize,
    /// The number of samples that the file was made for, where it has one.
    pub batch: Option<usize>,
    /// Layouts of inputs that are not the declared ones, by index.
    pub layouts: HashMap<usize, Layout>,
    /// Whether a Concat along an axis other than the first keeps its shape.
    pub keeps_axes: bool,
    /// Whether values get another order or shape by operators of the network where nothing else will do.
    pub moves: bool,
    /// The size that the free dimension of the inputs gets, where they have one.
    pub length: Option<usize>,
    /// Declared dimensions of each input.
    pub declared: Vec<Vec<usize>>,
    pub names: HashSet<String>,
    pub nodes: Vec<Node>,
    pub tensors: BTreeMap<String, Weights>,
    /// Names of constants, by the names that the file gives them transposed.
    pub transposed: HashMap<&'m str, &'m str>,
    /// Data types of constants, by their names in the file.
    pub types: HashMap<&'m str, i32>,
    /// Scales of the constants that the file has as integers.
    pub steps: HashMap<&'m str, Steps>,
    /// Values of the file that another node than a sum reads, or an output.
    pub read_by_others: HashSet<&'m str>,
    /// What is known of the numbers of the network's values.
    pub ranges: HashMap<String, Range>,
    /// Layers that may run in int8.
    pub int8: Vec<Int8Candidate>,
    /// How many nodes read each table of rows.
    pub tables: HashMap<String, usize>,
    pub unsupported: Vec<UnsupportedNode>,
    /// The layout that an input has to have.
    pub wanted: Option<(usize, Layout)>,
    /// The node that makes each value.
    pub producers: HashMap<&'m str, OnnxNode<'m>>,
    /// Operators that the file writes as several, by the values that they make.
    pub whole: HashMap<&'m str, Whole<'m>>,
    /// Those that were not known before.
    pub found: HashMap<&'m str, Whole<'m>>,
    /// Outputs of the node that is imported, but for the first, where it makes them.
    pub others: Vec<Option<View>>,
}
