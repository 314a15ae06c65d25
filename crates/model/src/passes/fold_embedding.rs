//! Applies a function of single numbers to the rows of a table, where it is all that becomes of them.

use std::collections::HashMap;

use super::values;
use crate::{Dense, Network, Op, Weights, ops};

/// The network with every function behind an embedding folded that can be; `None` where there is none.
pub fn fold_embedding(network: &Network) -> Option<Network> {
    let readers = values::consumers(&network.graph);
    let mut out = network.clone();
    let mut renamed: HashMap<String, String> = HashMap::new();
    for node in &network.graph.nodes {
        let operator = node.op.operator();
        // A chain of functions ends in one table.
        let first = renamed.get(&node.inputs[0]).unwrap_or(&node.inputs[0]);
        if operator.activation(0.0).is_none()
            || readers.get(node.inputs[0].as_str()) != Some(&1)
            || network.graph.outputs.contains(&node.inputs[0])
        {
            continue;
        }
        let embedding = out.graph.nodes.iter_mut().find(|n| n.name == *first);
        let Some(Op::Embedding(ops::Embedding { table })) = embedding.map(|n| &mut n.op) else {
            continue;
        };
        let Some(weights) = out.tensors.get(table).map(Weights::to_dense) else {
            continue;
        };
        let values = weights.values.iter().map(|&v| operator.activation(v));
        let Some(values) = values.collect::<Option<Vec<f32>>>() else {
            continue;
        };
        // Other nodes may read the table as it is.
        let mut name = format!("{table}.{}", node.name);
        while out.tensors.contains_key(&name) {
            name.push('_');
        }
        let before = std::mem::replace(table, name.clone());
        let mapped = Dense::new(weights.shape.clone(), values);
        out.tensors.insert(name, Weights::Dense(mapped));
        let is_read = |n: &crate::Node| n.op.tensors().any(|t| t == before);
        if !out.graph.nodes.iter().any(is_read) {
            out.tensors.remove(&before);
        }
        renamed.insert(node.name.clone(), first.clone());
    }
    if renamed.is_empty() {
        return None;
    }
    out.graph.nodes.retain(|n| !renamed.contains_key(&n.name));
    values::replace(&mut out.graph, &renamed);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, GraphBuilder, Input};

    fn embedding(b: &mut GraphBuilder, name: &str, table: &str, ids: &str) -> String {
        let table = b.tensor(table, [3, 2]);
        b.op(name, Op::Embedding(ops::Embedding { table }), &[ids])
    }

    fn network(b: GraphBuilder) -> Network {
        let values = vec![-2.0, -1.0, 0.0, 1.0, 2.0, 3.0];
        b.network(|_, shape| Dense::new(shape.clone(), values.clone()).into())
            .unwrap()
    }

    #[test]
    fn functions_of_a_table_become_its_rows() {
        let mut b = GraphBuilder::new("test");
        let ids = b.free_input(Input::new("ids", [4]).of(DType::I32));
        let x = embedding(&mut b, "rows", "t", &ids);
        let y = embedding(&mut b, "same", "t", &ids);
        let x = b.op("relu", Op::Relu, &[&x]);
        let min = Some(1.0);
        let x = b.op("clip", Op::Clip(ops::Clip { min, max: None }), &[&x]);
        let sum = b.op("sum", Op::Add, &[&x, &y]);
        b.output(&sum);
        let after = fold_embedding(&network(b)).unwrap();
        let names: Vec<&str> = after.graph.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["rows", "same", "sum"]);
        let table = |node: usize| {
            let name = after.graph.nodes[node].op.tensors().next().unwrap();
            after.tensors[name].to_dense().values
        };
        assert_eq!(table(0), [1.0, 1.0, 1.0, 1.0, 2.0, 3.0]);
        assert_eq!(table(1), [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(after.tensors.len(), 2);
        assert_eq!(after.graph.nodes[2].inputs, ["rows", "same"]);
        after.types().unwrap();
    }

    #[test]
    fn rows_that_others_read_stay() {
        let mut b = GraphBuilder::new("test");
        let ids = b.free_input(Input::new("ids", [4]).of(DType::I32));
        let x = embedding(&mut b, "rows", "t", &ids);
        let y = b.op("relu", Op::Relu, &[&x]);
        let sum = b.op("sum", Op::Add, &[&x, &y]);
        b.output(&sum);
        assert_eq!(fold_embedding(&network(b)), None);
        let mut b = GraphBuilder::new("test");
        let ids = b.free_input(Input::new("ids", [4]).of(DType::I32));
        let x = embedding(&mut b, "rows", "t", &ids);
        let y = b.op("relu", Op::Relu, &[&x]);
        b.output(&x);
        b.output(&y);
        assert_eq!(fold_embedding(&network(b)), None);
    }
}
