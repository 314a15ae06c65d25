//! Errors of networks: each names the node or tensor, what was expected and what came.

use crate::Shape;

/// Why a network, a graph or a weight is not valid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Something takes more memory than the process may ([`crate::memory`]).
    #[error("memory for {what}: expected at most {most}, got {got}")]
    Memory {
        /// What the memory is for.
        what: String,
        /// What can be allocated.
        most: String,
        /// What would be.
        got: String,
    },
    /// A graph has more parts than any network ([`crate::limits`]).
    #[error("{what} of the graph: expected at most {most}, got {got}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        most: usize,
        /// Their number.
        got: usize,
    },
    /// An input has a free dimension where none can be, or not as it can be.
    #[error("input `{input}`: expected {expected}, got {got}")]
    FreeDimension {
        /// Name of the input.
        input: String,
        /// What can be there.
        expected: String,
        /// Its type.
        got: String,
    },
    /// A node refers to a value that no earlier node or input has.
    #[error("node `{node}`: its input `{input}` is not a network input nor an earlier node")]
    UnknownInput {
        /// The node at fault.
        node: String,
        /// The value it asks for.
        input: String,
    },
    /// Two nodes or inputs share one name.
    #[error("the name `{name}` is used by two nodes or inputs")]
    DuplicateName {
        /// The name used twice.
        name: String,
    },
    /// A network output is no node.
    #[error("network output `{name}` is not a node or input")]
    UnknownOutput {
        /// The output at fault.
        name: String,
    },
    /// A node has the wrong number of inputs.
    #[error("node `{node}` ({op}): expected {expected} input(s), got {got}")]
    InputCount {
        /// The node at fault.
        node: String,
        /// Its operator.
        op: &'static str,
        /// What the operator takes.
        expected: String,
        /// What the node has.
        got: usize,
    },
    /// A shape does not fit the operator.
    #[error("node `{node}` ({op}): expected {expected}, got {got}")]
    Shape {
        /// The node at fault.
        node: String,
        /// Its operator.
        op: &'static str,
        /// What the operator takes.
        expected: String,
        /// What came.
        got: String,
    },
    /// A tensor that the graph names is absent.
    #[error("tensor `{tensor}` of node `{node}` is missing; the tensors found are: {found}")]
    MissingTensor {
        /// The absent tensor.
        tensor: String,
        /// The node that needs it.
        node: String,
        /// All tensors there are.
        found: String,
    },
    /// A tensor has another shape than the graph needs.
    #[error("tensor `{tensor}`: expected shape {expected}, got {got}")]
    TensorShape {
        /// The tensor at fault.
        tensor: String,
        /// What the graph needs.
        expected: Shape,
        /// What came.
        got: Shape,
    },
    /// A CSR matrix breaks one of its invariants.
    #[error("CSR tensor `{tensor}`: {what}: expected {expected}, got {got}")]
    Csr {
        /// The tensor at fault (empty while it has no name yet).
        tensor: String,
        /// The invariant.
        what: &'static str,
        /// What holds in a valid matrix.
        expected: String,
        /// What came.
        got: String,
    },
    /// A tensor holds a number that is not finite.
    #[error("tensor `{tensor}`: expected finite values, got {got} at element {index}")]
    NotFinite {
        /// The tensor at fault.
        tensor: String,
        /// The first bad value.
        got: f32,
        /// Where it is.
        index: usize,
    },
    /// There is no tensor of that name.
    #[error("tensor `{tensor}` is not there; the tensors found are: {found}")]
    NoTensor {
        /// The name asked for.
        tensor: String,
        /// All tensors there are.
        found: String,
    },
    /// A number cannot be the scale of a grid.
    #[error(
        "tensor `{tensor}`: scale: expected a positive number from 2^-64 to below 2^64 of at most 16 significant \
         bits, got {got}"
    )]
    Step {
        /// The tensor at fault.
        tensor: String,
        /// What came.
        got: f32,
    },
    /// A value is not an integer times the scale of its tensor.
    #[error(
        "tensor `{tensor}`: expected an integer of at most 32767 times the scale {scale}, got {got} at element {index}"
    )]
    OffGrid {
        /// The tensor at fault.
        tensor: String,
        /// The scale of its grid.
        scale: f32,
        /// The first bad value.
        got: f32,
        /// Where it is among the stored elements.
        index: usize,
    },
    /// The values of a tensor are on the grid of no scale.
    #[error(
        "tensor `{tensor}`: expected integers of at most 32767 times one scale of at most 16 significant bits, got values on no such grid"
    )]
    NoGrid {
        /// The tensor at fault.
        tensor: String,
    },
    /// A layer cannot run in int8.
    #[error("layer `{node}` in int8: expected {expected}, got {got}")]
    Int8 {
        /// The node at fault.
        node: String,
        /// What it should have.
        expected: String,
        /// What it has.
        got: String,
    },
    /// The tensors cannot be matched with a graph.
    #[error("{reason}; the tensors found are: {found}")]
    Unbindable {
        /// Why not.
        reason: String,
        /// All tensors there are, with shapes.
        found: String,
    },
    /// The preprocessing does not fit the input.
    #[error("preprocessing: {what}: expected {expected}, got {got}")]
    Preprocessing {
        /// The field at fault.
        what: &'static str,
        /// What it takes.
        expected: String,
        /// What came.
        got: String,
    },
}

impl ModelError {
    /// Names the tensor in an error made before the tensor had a name.
    #[must_use]
    pub fn for_tensor(self, name: &str) -> Self {
        match self {
            Self::Csr {
                what,
                expected,
                got,
                ..
            } => Self::Csr {
                tensor: name.into(),
                what,
                expected,
                got,
            },
            Self::NotFinite { got, index, .. } => Self::NotFinite {
                tensor: name.into(),
                got,
                index,
            },
            Self::Step { got, .. } => Self::Step {
                tensor: name.into(),
                got,
            },
            Self::OffGrid {
                scale, got, index, ..
            } => Self::OffGrid {
                tensor: name.into(),
                scale,
                got,
                index,
            },
            Self::TensorShape { expected, got, .. } => Self::TensorShape {
                tensor: name.into(),
                expected,
                got,
            },
            other => other,
        }
    }
}
