//! The state of tensors that are neither weights and biases of a layer nor part of a batch normalisation.

use sparsevd_kernels::training::Real;
use sparsevd_model::{Network, Node, Op, Shape};

use crate::parameter::{Owner, Parameter, ParameterMut, ParameterRef, Role};

/// A tensor with its Adam moments, trained by Adam alone; its numbers are in C order.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainTensor<T> {
    /// Name of the node.
    pub node: String,
    /// The attribute that names the tensor.
    pub part: &'static str,
    /// Name of the tensor.
    pub name: String,
    /// Shape of the tensor.
    pub shape: Shape,
    /// The numbers.
    pub values: Vec<T>,
    /// First and second moments; empty where it is frozen.
    pub moments: [Vec<T>; 2],
    /// Whether it is not trained.
    pub is_frozen: bool,
}

macro_rules! parameter {
    ($state:expr, $owner:expr, $size:expr, $($borrow:tt)+) => {{
        let size = $size;
        let [m, v] = $($borrow)+ $state.moments;
        Parameter {
            owner: $owner,
            node: &$state.node,
            part: $state.part,
            tensor: Some(&$state.name),
            role: match $state.is_frozen {
                true => Role::Constant,
                false => Role::Plain,
            },
            size,
            values: $($borrow)+ $state.values,
            rounded: None,
            moments: (!$state.is_frozen).then_some([m, v]),
            noise: None,
        }
    }};
}

impl<T: Real> PlainTensor<T> {
    /// The state of the tensors of a node, in the order of its operator.
    pub(crate) fn from_node(network: &Network, node: &Node) -> Vec<Self> {
        if let Op::BatchNormalization(_) = &node.op {
            return vec![];
        }
        let tensors = node.op.plain_tensors().into_iter();
        let state = tensors.map(|(part, name)| {
            let dense = network.tensors[&name].to_dense();
            let values: Vec<T> = (dense.values.iter())
                .map(|&v| T::of(f64::from(v)))
                .collect();
            let zeros = || vec![T::default(); values.len()];
            Self {
                node: node.name.clone(),
                part,
                name,
                shape: dense.shape,
                moments: [zeros(), zeros()],
                values,
                is_frozen: false,
            }
        });
        state.collect()
    }

    /// Trains it no more. It is to be the table of an embedding, the one tensor whose gradient may be missing.
    pub fn freeze(&mut self) {
        (self.is_frozen, self.moments) = (true, [vec![], vec![]]);
    }

    /// Length of its gradient, of which a frozen tensor has none.
    pub(crate) fn gradient_len(&self) -> usize {
        match self.is_frozen {
            true => 0,
            false => self.values.len(),
        }
    }

    /// The tensor as a parameter.
    pub fn parameter(&self, owner: Owner) -> ParameterRef<'_, T> {
        parameter!(self, owner, [self.values.len(), 1], &).map(Vec::as_slice)
    }

    /// The tensor as a parameter, for writing.
    pub fn parameter_mut(&mut self, owner: Owner) -> ParameterMut<'_, T> {
        parameter!(self, owner, [self.values.len(), 1], &mut)
    }
}
