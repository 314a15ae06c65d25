//! Rewrites of a program that do not change its result, one file each.

mod drop_identity;
mod drop_unread;
mod fuse_clamp;
mod fuse_max_pool;
mod fuse_residual;
mod merge_moves;
mod relu_before_pool;

use crate::program::Program;

/// Runs all passes, each before those that find more to do after it.
pub(crate) fn run(program: &mut Program) {
    drop_unread::run(program);
    // A transposition that is none must not take a reshaping with it.
    drop_identity::run(program);
    merge_moves::run(program);
    drop_identity::run(program);
    relu_before_pool::run(program);
    fuse_clamp::run(program);
    fuse_residual::run(program);
    fuse_max_pool::run(program);
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use sparsevd_kernels::Clamp;
    use sparsevd_model::{Dense, Graph, Input, Network, Node, Op, Shape, Weights, ops};

    use crate::program::Program;

    /// A network over `[2, 4, 4]` with the weights `w` of a 1x1 convolution and `m` of a linear layer.
    pub(crate) fn program(nodes: &[(&str, &[&str], Op)], output: &str) -> Program {
        let tensors = BTreeMap::from([
            (
                "w".to_owned(),
                Weights::Dense(Dense::zeros([2usize, 2, 1, 1])),
            ),
            ("m".to_owned(), Weights::Dense(Dense::zeros([32usize, 32]))),
        ]);
        let graph = Graph {
            name: "test".into(),
            inputs: vec![Input::new("x", Shape::from([2, 4, 4]))],
            nodes: nodes
                .iter()
                .map(|(name, inputs, op)| Node {
                    name: (*name).into(),
                    inputs: inputs.iter().map(ToString::to_string).collect(),
                    op: op.clone(),
                })
                .collect(),
            outputs: vec![output.into()],
            preprocessing: None,
        };
        Program::new(&Network::new(graph, tensors).unwrap(), 1).unwrap()
    }

    /// The steps as `name+clamp+pool`, for comparison.
    pub(crate) fn steps(program: &Program) -> Vec<String> {
        program
            .steps
            .iter()
            .map(|s| {
                let clamp = match s.clamp {
                    Clamp::None => "",
                    Clamp::Relu => "+relu",
                    Clamp::Clip { .. } => "+clip",
                };
                let pool = if s.pool.is_some() { "+pool" } else { "" };
                format!("{}{clamp}{pool}", s.name)
            })
            .collect()
    }

    pub(crate) fn conv() -> Op {
        Op::Conv(ops::Conv {
            weight: "w".into(),
            bias: None,
            window: sparsevd_model::Window::square(1, 1),
            groups: 1,
        })
    }

    pub(crate) fn linear() -> Op {
        Op::Linear(ops::Linear {
            weight: "m".into(),
            bias: None,
        })
    }

    pub(crate) fn max_pool() -> Op {
        Op::MaxPool(ops::MaxPool {
            window: sparsevd_model::Window::square(2, 2),
        })
    }
}
