//! Sizes beyond those of any network, which are refused when a file is read.
//!
//! Files that are smaller by far than what they describe are bounded by [`crate::memory`]; these bounds keep time and memory small
//! for files that are as large as what they describe.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Most nodes of a graph.
pub const MAX_NODES: usize = 1 << 17;

/// Most inputs of all nodes of a graph together.
pub const MAX_NODE_INPUTS: usize = 1 << 18;

/// Most tensors of a file.
pub const MAX_TENSORS: usize = 1 << 17;

/// Most inputs and most outputs of a graph.
pub const MAX_ENDPOINTS: usize = 1 << 14;

/// Most elements of tensors that nodes share, counted for each node but the first: each node packs weights of its own.
pub const MAX_SHARED: usize = 1 << 30;

/// Most elements of a map with the zeros around it, or of any other value, per sample.
pub const MAX_ELEMENTS: usize = 1 << 32;

/// Reads the nodes of a graph, at most [`MAX_NODES`].
pub(crate) fn nodes<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    at_most("nodes", MAX_NODES, deserializer)
}

/// Reads the inputs of a node, at most [`MAX_NODE_INPUTS`].
pub(crate) fn node_inputs<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    at_most("inputs of a node", MAX_NODE_INPUTS, deserializer)
}

/// Reads the inputs or outputs of a graph, at most [`MAX_ENDPOINTS`].
pub(crate) fn endpoints<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    at_most(
        "inputs or outputs of the graph",
        MAX_ENDPOINTS,
        deserializer,
    )
}

/// Reads a list of at most `most` elements. A longer one is refused at the first element beyond, however long it is.
fn at_most<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    what: &'static str,
    most: usize,
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct List<T> {
        what: &'static str,
        most: usize,
        element: PhantomData<T>,
    }
    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {} {}", self.most, self.what)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = list.next_element()? {
                if elements.len() == self.most {
                    return Err(A::Error::custom(format!(
                        "more than {} {}",
                        self.most, self.what
                    )));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }
    deserializer.deserialize_seq(List {
        what,
        most,
        element: PhantomData,
    })
}
