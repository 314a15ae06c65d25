//! Applies functions of single numbers to the rows of a table, where they are all that becomes of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::values;
use crate::{Dense, Network, Op, Weights, ops};

/// The network with every function behind an embedding folded that can be; `None` where there is none.
///
/// The embedding gets the name of the last function, so that what reads that, or is an output, stays as it is.
pub fn fold_embedding(network: &Network) -> Option<Network> {
    let nodes = &network.graph.nodes;
    let is_embedding = |op: &Op| matches!(op, Op::Embedding(_));
    if !nodes.iter().any(|n| is_embedding(&n.op)) {
        return None;
    }
    let readers = values::consumers(&network.graph);
    let outputs: HashSet<&str> = network.graph.outputs.iter().map(String::as_str).collect();
    // The embedding of each value that is one with functions behind it, and those functions, by the indices of their nodes.
    let mut makers: HashMap<&str, usize> = HashMap::new();
    let mut chains: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, node) in nodes.iter().enumerate() {
        if is_embedding(&node.op) {
            makers.insert(&node.name, i);
            continue;
        }
        let before = node.inputs[0].as_str();
        let is_alone = readers.get(before) == Some(&1) && !outputs.contains(before);
        if let Some(&embedding) = makers.get(before)
            && is_alone
            && node.op.operator().activation(0.0).is_some()
        {
            makers.insert(&node.name, embedding);
            chains.entry(embedding).or_default().push(i);
        }
    }
    let mut reads: HashMap<&str, usize> = HashMap::new();
    for name in nodes.iter().flat_map(|n| n.op.tensors()) {
        *reads.entry(name).or_default() += 1;
    }
    let folded = chains.into_iter().filter_map(|(embedding, chain)| {
        let Op::Embedding(ops::Embedding { table }) = &nodes[embedding].op else {
            return None;
        };
        let functions: Vec<_> = chain.iter().map(|&i| nodes[i].op.operator()).collect();
        let through = |v: f32| functions.iter().try_fold(v, |v, f| f.activation(v));
        let mut dense: Dense = network.tensors.get(table)?.to_dense();
        for v in &mut dense.values {
            // A network has finite numbers alone.
            *v = through(*v).filter(|v| v.is_finite())?;
        }
        Some((embedding, chain, table, dense))
    });
    let folded: Vec<_> = folded.collect();
    if folded.is_empty() {
        return None;
    }
    let mut out = network.clone();
    let mut gone: HashSet<&str> = HashSet::new();
    for (embedding, chain, table, dense) in folded {
        let mut name = table.clone();
        // Other nodes may read the table as it is.
        let left = reads.entry(table.as_str()).or_default();
        *left -= 1;
        if *left == 0 {
            out.scales.remove(table);
        } else {
            name = format!("{table}.{}", nodes[embedding].name);
            while out.tensors.contains_key(&name) {
                name.push('_');
            }
        }
        out.tensors.insert(name.clone(), Weights::Dense(dense));
        gone.extend(chain.iter().map(|&i| nodes[i].name.as_str()));
        let node = &mut out.graph.nodes[embedding];
        node.op = Op::Embedding(ops::Embedding { table: name });
        if let Some(&last) = chain.last() {
            node.name.clone_from(&nodes[last].name);
        }
    }
    let mut i = 0;
    out.graph.nodes.retain(|_| {
        i += 1;
        !gone.contains(nodes[i - 1].name.as_str())
    });
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
        assert_eq!(names, ["clip", "same", "sum"]);
        let table = |node: usize| {
            let name = after.graph.nodes[node].op.tensors().next().unwrap();
            after.tensors[name].to_dense().values
        };
        assert_eq!(table(0), [1.0, 1.0, 1.0, 1.0, 2.0, 3.0]);
        assert_eq!(table(1), [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(after.tensors.len(), 2);
        assert_eq!(after.graph.nodes[2].inputs, ["clip", "same"]);
        after.types().unwrap();
    }

    #[test]
    fn a_table_of_two_embeddings_with_functions_becomes_two_and_none_is_left() {
        let mut b = GraphBuilder::new("test");
        let ids = b.free_input(Input::new("ids", [4]).of(DType::I32));
        let x = embedding(&mut b, "rows", "t", &ids);
        let y = embedding(&mut b, "same", "t", &ids);
        let x = b.op("relu", Op::Relu, &[&x]);
        let max = Some(0.0);
        let y = b.op("clip", Op::Clip(ops::Clip { min: None, max }), &[&y]);
        let sum = b.op("sum", Op::Add, &[&x, &y]);
        b.output(&sum);
        let after = fold_embedding(&network(b)).unwrap();
        let tables = after
            .graph
            .nodes
            .iter()
            .filter_map(|n| n.op.tensors().next());
        let tables: Vec<_> = tables.map(|t| after.tensors[t].to_dense().values).collect();
        let relu = vec![0.0, 0.0, 0.0, 1.0, 2.0, 3.0];
        assert_eq!(tables, [relu, vec![-2.0, -1.0, 0.0, 0.0, 0.0, 0.0]]);
        assert_eq!(after.tensors.len(), 2);
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

    #[test]
    fn a_function_that_is_an_output_keeps_its_name_and_numbers_stay_finite() {
        let rows = |alpha| {
            let mut b = GraphBuilder::new("test");
            let ids = b.free_input(Input::new("ids", [4]).of(DType::I32));
            let x = embedding(&mut b, "rows", "t", &ids);
            let x = b.op("leaky", Op::LeakyRelu(ops::LeakyRelu { alpha }), &[&x]);
            let z = embedding(&mut b, "others", "u", &ids);
            b.output(&x);
            b.output(&z);
            network(b)
        };
        let after = fold_embedding(&rows(0.5)).unwrap();
        assert_eq!(after.graph.outputs, ["leaky", "others"]);
        assert_eq!(after.graph.nodes[0].name, "leaky");
        assert_eq!(after.tensors["t"].values()[..2], [-1.0, -0.5]);
        assert_eq!(after.tensors.len(), 2);
        after.types().unwrap();
        assert_eq!(fold_embedding(&rows(3e38)), None);
    }
}
