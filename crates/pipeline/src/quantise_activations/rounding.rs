//! Int8 layers with their rounded weights.

use std::collections::{BTreeMap, BTreeSet};

use sparsevd_model::quantised::{self, RowBits};
use sparsevd_model::{Csr, Dense, Int8Input, MOST_LEVEL, ModelError, Network, Op, Weights};

use crate::error::PipelineError;

/// An int8 layer with its rounded weight.
pub(super) struct Rounded {
    input: Int8Input,
    weights: Vec<(String, Weights, Option<f32>, Vec<f32>)>,
}

impl Rounded {
    /// The one int8 layer of a network.
    pub fn of(mut network: Network, input: Int8Input) -> Self {
        let rows = std::mem::take(&mut network.int8.rows);
        let weights = rows.into_iter().filter_map(|(name, rows)| {
            let weight = network.tensors.remove(&name)?;
            let scale = network.scales.get(&name).copied();
            Some((name, weight, scale, rows))
        });
        Self {
            input,
            weights: weights.collect(),
        }
    }

    /// Puts it in the place of the layer in f32.
    pub fn apply(&self, layer: &str, network: &mut Network) {
        for (name, weight, scale, rows) in &self.weights {
            network.tensors.insert(name.clone(), weight.clone());
            match scale {
                Some(scale) => network.scales.insert(name.clone(), *scale),
                None => network.scales.remove(name),
            };
            network.int8.rows.insert(name.clone(), rows.clone());
        }
        network.int8.inputs.insert(layer.to_owned(), self.input);
    }
}

/// Lets one layer run in int8, with its weights rounded; why it cannot, where it cannot.
pub(super) fn set(
    network: &mut Network,
    name: &str,
    input: Int8Input,
    one_scale: bool,
) -> Result<(), String> {
    let node = network.graph.nodes.iter().find(|n| n.name == name);
    let weight = node.and_then(|n| n.op.weight()).map(str::to_owned);
    let Some((weight, tensor)) = weight.and_then(|w| Some((w.clone(), network.tensors.get(&w)?)))
    else {
        return Err("no weight".into());
    };
    // Dense ones too: grids of rows are those of values in CSR.
    let csr = match tensor {
        Weights::Csr(csr) => csr.clone(),
        other => Csr::from_dense(&other.to_dense()),
    };
    let rounded = rounded(&csr, one_scale);
    let rows = csr.rows();
    network.tensors.insert(weight.clone(), csr.into());
    // A weight on a grid of its own that int8 has stays as it is.
    if let Some(&scale) = network.scales.get(&weight)
        && network.set_int8(name, input, vec![scale; rows]).is_ok()
    {
        return Ok(());
    }
    let (csr, rows) = rounded.ok_or_else(|| "weights that are on no int8 grid".to_owned())?;
    network.tensors.insert(weight.clone(), Weights::Csr(csr));
    match rows.first() {
        Some(&scale) if one_scale => network.scales.insert(weight, scale),
        _ => network.scales.remove(&weight),
    };
    let done = network.set_int8(name, input, rows);
    done.map_err(|error| error.to_string())
}

/// The tables of embeddings.
///
/// # Errors
/// A network without one.
pub(super) fn tables(network: &Network) -> Result<BTreeSet<String>, PipelineError> {
    let nodes = network.graph.nodes.iter();
    let tables = nodes.filter(|node| matches!(node.op, Op::Embedding(_)));
    let tables: BTreeSet<String> = tables
        .flat_map(|node| node.op.tensors())
        .map(str::to_owned)
        .collect();
    if tables.is_empty() {
        let expected = "a network with an Embedding";
        let got = format!("none in `{}`", network.graph.name);
        return Err(PipelineError::invalid("tables", expected, got));
    }
    Ok(tables)
}

/// Most that 4 bits may change a table, by [`change`]. Numbers of a normal distribution change by 0.11; rows of a few elements that are much larger than
/// the others by more, as these others become zero, and need 8 bits.
const MOST_CHANGE: f64 = 0.15;

/// Rounds the tables of embeddings row by row, to that many bits or, where these change a table too much, to eight; returns how many tables have each.
///
/// # Errors
/// A network without one, and numbers that are too large for a scale.
pub(super) fn round_tables(
    network: &mut Network,
    bits: RowBits,
) -> Result<BTreeMap<u32, usize>, PipelineError> {
    let mut counts = BTreeMap::new();
    for name in tables(network)? {
        if let Some(table) = network.tensors.get_mut(&name) {
            let dense = table.to_dense();
            let rounded = |bits| rounded_table(&dense, bits).map_err(|e| e.for_tensor(&name));
            let (mut bits, mut values) = (bits, rounded(bits)?);
            if bits == RowBits::Four && change(&dense, &values) > MOST_CHANGE {
                (bits, values) = (RowBits::Eight, rounded(RowBits::Eight)?);
            }
            *counts.entry(bits.count()).or_default() += 1;
            *table = Weights::Dense(Dense { values, ..dense });
            network.scales.remove(&name);
        }
    }
    Ok(counts)
}

fn rounded_table(table: &Dense, bits: RowBits) -> Result<Vec<f32>, ModelError> {
    let mut values = table.values.clone();
    quantised::round_rows(&mut values, table.shape.matrix().1, bits)?;
    Ok(values)
}

/// How much a table changes: of each column that is not zero the sum of squared differences over that of squared elements, of these the mean, of this the root.
/// Columns count alike, so that one of large elements does not hide what the others lose.
fn change(before: &Dense, after: &[f32]) -> f64 {
    let cols = before.shape.matrix().1;
    let mut sums = vec![[0.0_f64; 2]; cols];
    for (i, (b, a)) in before.values.iter().zip(after).enumerate() {
        let [differences, all] = &mut sums[i % cols];
        *differences += f64::from(b - a).powi(2);
        *all += f64::from(*b).powi(2);
    }
    let shares = sums.iter().filter(|[_, all]| *all > 0.0);
    let shares: Vec<f64> = shares.map(|[differences, all]| differences / all).collect();
    (shares.iter().sum::<f64>() / shares.len().max(1) as f64).sqrt()
}

/// A weight whose rows are integers up to [`MOST_LEVEL`] times their scales, and these, which may be one. Zeros stay, and what rounds to zero leaves.
fn rounded(csr: &Csr, one_scale: bool) -> Option<(Csr, Vec<f32>)> {
    let most = MOST_LEVEL as f32;
    let largest = |numbers: &[f32]| numbers.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let of_all = one_scale.then(|| largest(csr.values()));
    let (mut starts, mut columns, mut values, mut rows) = (vec![0], vec![], vec![], vec![]);
    for row in 0..csr.rows() {
        let (of_row, numbers) = csr.row(row);
        let scale = match of_all.unwrap_or_else(|| largest(numbers)) {
            0.0 => 1.0,
            largest => quantised::nearest_scale(largest / most, quantised::STEP_BITS)?,
        };
        for (column, v) in of_row.iter().zip(numbers) {
            let level = (v / scale).round_ties_even().clamp(-most, most) as i32;
            if level != 0 {
                columns.push(*column);
                values.push(quantised::value(level, scale));
            }
        }
        starts.push(u32::try_from(values.len()).ok()?);
        rows.push(scale);
    }
    let csr = Csr::try_new(csr.shape().clone(), starts, columns, values).ok()?;
    Some((csr, rows))
}

#[cfg(test)]
mod tests {
    use sparsevd_model::{DType, GraphBuilder, Input, Shape, ops};

    use super::*;

    /// Two tables of 8 rows of 16. In each row of the second, one element is a hundred times the others.
    fn two_tables() -> Network {
        let mut b = GraphBuilder::new("tables");
        let ids = b.free_input(Input::new("ids", [3]).of(DType::I64));
        for name in ["words", "positions"] {
            let table = b.tensor(name, [8, 16]);
            let op = Op::Embedding(ops::Embedding { table });
            let rows = b.op(format!("rows of {name}"), op, &[&ids]);
            b.output(&rows);
        }
        let table = |name: &str, shape: &Shape| {
            let element = |i: usize| match i % 16 {
                5 if name == "positions" => 100.0,
                _ => (i * 37 % 101) as f32 / 50.0 - 1.0,
            };
            Dense::new(shape.clone(), (0..128).map(element).collect()).into()
        };
        b.network(table).unwrap()
    }

    #[test]
    fn columns_of_zeros_do_not_count() {
        let table = Dense::new([2, 3], vec![1.0, 0.0, 2.0, -1.0, 0.0, 2.0]);
        let after = [1.5, 0.0, 2.0, -1.5, 0.0, 2.0];
        assert!((change(&table, &after) - 0.125_f64.sqrt()).abs() < 1e-12);
        assert_eq!(change(&Dense::new([1, 2], vec![0.0; 2]), &[0.0; 2]), 0.0);
    }

    #[test]
    fn a_table_that_four_bits_change_too_much_has_eight() {
        let mut network = two_tables();
        assert_eq!(
            round_tables(&mut network, RowBits::Four).unwrap(),
            BTreeMap::from([(4, 1), (8, 1)])
        );
        let mut network = two_tables();
        assert_eq!(
            round_tables(&mut network, RowBits::Eight).unwrap(),
            BTreeMap::from([(8, 2)])
        );
    }
}
