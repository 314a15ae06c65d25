//! The small profile: one stream of decisions with mixed contexts.

use sparsevd_model::Network;

use super::breakdown::PackedBreakdown;
use super::checked::Checked;
use super::error::PackedError;
use super::fields::{Field, Fields};
use super::integers::{Integers, assemble, integers};
use super::limits::Limits;
use super::matrix::{Models, RowOrder, Spent};
use super::range::{Coder, Decoder, Encoder, Meter};
use super::skeleton::{Columns, Skeleton, Tensor, skeleton};

/// Appends the checksum and the stream of a network.
pub(super) fn encode(
    network: &Network,
    empty_rows: EmptyRows,
    has_grids: bool,
    bytes: &mut Vec<u8>,
) -> Result<(), PackedError> {
    let mut coder = Checked::new(Encoder::new());
    body(
        &mut coder,
        Some(network),
        empty_rows,
        has_grids,
        &Limits::for_writing(),
    )?;
    bytes.extend((coder.crc() as u16).to_le_bytes());
    bytes.extend(coder.into_inner().finish());
    Ok(())
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(
    bytes: &[u8],
    empty_rows: EmptyRows,
    has_grids: bool,
    limits: &Limits,
) -> Result<Network, PackedError> {
    let (checksum, stream) = split(bytes)?;
    let mut coder = Checked::new(Decoder::new(stream));
    let (skeleton, integers, _) = body(&mut coder, None, empty_rows, has_grids, limits)?;
    coder.check_low(checksum)?;
    assemble(skeleton, integers)
}

/// Where the bits of what [`encode`] wrote go; the header is what the other parts leave.
pub(super) fn breakdown(
    bytes: &[u8],
    empty_rows: EmptyRows,
    has_grids: bool,
    limits: &Limits,
) -> Result<PackedBreakdown, PackedError> {
    let (checksum, stream) = split(bytes)?;
    let mut coder = Meter::new(Checked::new(Decoder::new(stream)));
    let (_, _, spent) = body(&mut coder, None, empty_rows, has_grids, limits)?;
    coder.into_inner().check_low(checksum)?;
    let bits = |fixed: u64| (fixed + (1 << 15)) >> 16;
    Ok(PackedBreakdown {
        header: 0,
        liveness: bits(spent.counts),
        positions: bits(spent.positions),
        values: bits(spent.values),
        biases: bits(spent.biases),
    })
}

fn split(bytes: &[u8]) -> Result<(u16, &[u8]), PackedError> {
    let (checksum, stream) = bytes
        .split_first_chunk::<2>()
        .ok_or_else(|| PackedError::part("checksum", "2 bytes", bytes.len().to_string()))?;
    Ok((u16::from_le_bytes(*checksum), stream))
}

type Body = (Skeleton, Vec<Integers>, Spent);

/// How a file codes rows without non-zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EmptyRows {
    /// As any other row.
    Any,
    /// They are marked, and columns of the next weight that read dead units are expected to be empty.
    Marked,
}

/// Everything in the stream; a reader passes `None`.
fn body<C: Coder>(
    coder: &mut C,
    have: Option<&Network>,
    empty_rows: EmptyRows,
    has_grids: bool,
    limits: &Limits,
) -> Result<Body, PackedError> {
    let mut fields = Fields::new();
    let skeleton = skeleton(coder, &mut fields, has_grids, have, limits)?;
    let tensors = &skeleton.tensors;
    check_sizes(tensors, limits)?;
    let mut models = Models::new();
    let mut done: Vec<Option<Integers>> = vec![None; tensors.len()];
    let have: Option<Vec<Integers>> = have
        .map(|network| tensors.iter().map(|t| integers(network, t)).collect())
        .transpose()?;
    let have_weight = |i: usize| match have.as_ref().map(|h| &h[i]) {
        Some(Integers::Weight(levels)) => Some(levels),
        _ => None,
    };
    let have_bias = |i: usize| match have.as_ref().map(|h| &h[i]) {
        Some(Integers::Bias(levels)) => Some(levels.as_slice()),
        _ => None,
    };
    let mut nonzeros = 0;
    for (i, tensor) in tensors.iter().enumerate() {
        let Some(columns) = &tensor.columns else {
            // Most biases are coded with their weight.
            if done[i].is_none() {
                let alone = vec![0; tensor.shape.elements()];
                let bias = models.biases(coder, have_bias(i), &alone, RowOrder::Any)?;
                done[i] = Some(Integers::Bias(bias));
            }
            continue;
        };
        let (rows, cols) = tensor.shape.matrix();
        let counts: Option<Vec<u32>> =
            have_weight(i).map(|l| l.starts.windows(2).map(|w| w[1] - w[0]).collect());
        let falls = counts.as_ref().is_some_and(|c| {
            let bias = |r: usize| tensor.bias.and_then(have_bias).map_or(0, |b| b[r]);
            (1..c.len()).all(|r| c[r - 1] > c[r] || c[r - 1] == c[r] && bias(r - 1) >= bias(r))
        });
        let order = match (fields.flag(coder, falls, Field::Sorted), empty_rows) {
            (true, _) => RowOrder::Sorted,
            (false, EmptyRows::Any) => RowOrder::Any,
            (false, EmptyRows::Marked) => RowOrder::Marked,
        };
        let counts = models.row_counts(coder, counts.as_deref(), [rows, cols], order)?;
        nonzeros += counts.iter().map(|&c| c as usize).sum::<usize>();
        if nonzeros > limits.nonzeros {
            return Err(PackedError::limit("non-zeros", limits.nonzeros, nonzeros));
        }
        let dead = match empty_rows {
            EmptyRows::Any => vec![],
            EmptyRows::Marked => dead_units(columns, tensors, &done),
        };
        let levels = models.matrix(coder, have_weight(i), &counts, columns, &dead, i)?;
        done[i] = Some(Integers::Weight(levels));
        if let Some(b) = tensor.bias {
            let bias = models.biases(coder, have_bias(b), &counts, order)?;
            done[b] = Some(Integers::Bias(bias));
        }
    }
    let integers: Option<Vec<Integers>> = done.into_iter().collect();
    let integers = integers.ok_or_else(|| PackedError::damaged("tensors"))?;
    Ok((skeleton, integers, models.spent))
}

/// Which input units of a matrix are dead, their row empty and their bias 0; empty where they come from no such layer.
fn dead_units(columns: &Columns, tensors: &[Tensor], done: &[Option<Integers>]) -> Vec<bool> {
    let place = |name: &String| tensors.iter().position(|t| t.name == *name);
    let Some(producer) = columns.producer.as_ref().and_then(place) else {
        return vec![];
    };
    let Some(Integers::Weight(levels)) = &done[producer] else {
        return vec![];
    };
    let bias = match tensors[producer].bias.map(|b| &done[b]) {
        Some(Some(Integers::Bias(bias))) => bias.as_slice(),
        _ => &[],
    };
    let rows = levels.starts.windows(2).enumerate();
    let is_dead = |(row, ends): (usize, &[u32])| {
        ends[0] == ends[1] && bias.get(row).is_none_or(|bias| *bias == 0)
    };
    rows.map(is_dead).collect()
}

/// Bounds memory and time before any of it is spent.
fn check_sizes(tensors: &[Tensor], limits: &Limits) -> Result<(), PackedError> {
    let (mut cells, mut dense) = (0_usize, 0_usize);
    for tensor in tensors {
        let (rows, cols) = tensor.shape.matrix();
        cells = cells.saturating_add(rows.max(1).saturating_mul(cols.max(1)));
        if tensor.dense {
            dense = dense.saturating_add(tensor.shape.elements());
        }
    }
    if cells > limits.small_cells {
        return Err(PackedError::limit(
            "elements of a file of the small profile",
            limits.small_cells,
            cells,
        ));
    }
    if dense > limits.dense_elements {
        return Err(PackedError::limit(
            "elements of dense tensors",
            limits.dense_elements,
            dense,
        ));
    }
    Ok(())
}
