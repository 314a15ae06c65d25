//! The small profile: one stream of decisions with mixed contexts.

use sparsevd_model::Network;

use super::crc::Crc;
use super::fields::{Field, Fields};
use super::flaw::Flaw;
use super::graph::graph;
use super::matrix::{Levels, Models};
use super::range::{Coder, Decoder, Encoder, Meter};
use super::skeleton::{Tensor, skeleton};
use super::{Integers, Limits, PackedBreakdown, assemble, integers};

/// Appends the checksum and the stream of a network.
pub(super) fn encode(network: &Network, bytes: &mut Vec<u8>) -> Result<(), Flaw> {
    let mut coder = Checked::new(Encoder::new());
    let limits = Limits {
        nodes: usize::MAX,
        ..Limits::default()
    };
    body(&mut coder, Some(network), &limits)?;
    bytes.extend(coder.checksum().to_le_bytes());
    bytes.extend(coder.inner.finish());
    Ok(())
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<(Network, PackedBreakdown), Flaw> {
    let Some((checksum, stream)) = bytes.split_first_chunk::<2>() else {
        return Err(Flaw::part("checksum", "2 bytes", bytes.len().to_string()));
    };
    let mut coder = Meter::new(Checked::new(Decoder::new(stream)));
    let (graph, tensors, levels, spent) = body(&mut coder, None, limits)?;
    let coder = coder.into_inner();
    if coder.inner.exhausted() || coder.inner.left() > 0 {
        return Err(Flaw::part(
            "stream",
            "its end where the last bias ends",
            if coder.inner.exhausted() {
                "an end before it".into()
            } else {
                format!("{} bytes more", coder.inner.left())
            },
        ));
    }
    let (expected, got) = (u16::from_le_bytes(*checksum), coder.checksum());
    if expected != got {
        return Err(Flaw::part(
            "checksum of the decoded data",
            format!("{expected:#06x}"),
            format!("{got:#06x}"),
        ));
    }
    let bits = |fixed: u64| (fixed + (1 << 15)) >> 16;
    let spent = PackedBreakdown {
        header: 0,
        liveness: bits(spent.liveness),
        positions: bits(spent.positions),
        values: bits(spent.values),
        biases: bits(spent.biases),
    };
    Ok((assemble(graph, tensors, levels)?, spent))
}

type Body = (
    sparsevd_model::Graph,
    Vec<Tensor>,
    Vec<Integers>,
    super::matrix::Spent,
);

/// Everything in the stream; a reader passes `None`.
fn body<C: Coder>(coder: &mut C, have: Option<&Network>, limits: &Limits) -> Result<Body, Flaw> {
    let mut fields = Fields::new();
    let (graph, preset) = graph(coder, &mut fields, have.map(|n| &n.graph), limits)?;
    let tensors = skeleton(coder, &mut fields, &graph, preset, have, limits)?;
    check_sizes(&tensors, limits)?;
    let mut models = Models::new();
    let mut done: Vec<Option<Integers>> = vec![None; tensors.len()];
    // Non-zeros in each row of the weights so far: they tell how much the next weight reads a unit.
    let mut counts: Vec<Vec<u32>> = vec![Vec::new(); tensors.len()];
    let mut nonzeros = 0;
    for (i, tensor) in tensors.iter().enumerate() {
        let Some(columns) = &tensor.columns else {
            if done[i].is_none() {
                // A bias that belongs to no weight of its own.
                done[i] = Some(Integers::Bias(bias(
                    coder,
                    &mut models,
                    have,
                    &tensors,
                    i,
                    None,
                )?));
            }
            continue;
        };
        let (rows, cols) = tensor.shape.matrix();
        let levels: Option<Levels> = match have {
            None => None,
            Some(network) => match integers(network, tensor)? {
                Integers::Weight(levels) => Some(levels),
                Integers::Bias(_) => None,
            },
        };
        let have_counts: Option<Vec<u32>> = levels
            .as_ref()
            .map(|l| l.starts.windows(2).map(|w| w[1] - w[0]).collect());
        let have_biases = match (have, tensor.bias) {
            (Some(network), Some(b)) => match integers(network, &tensors[b])? {
                Integers::Bias(levels) => Some(levels),
                Integers::Weight(_) => None,
            },
            _ => None,
        };
        let falls = have_counts.as_ref().is_some_and(|c| {
            let b = |r: usize| have_biases.as_ref().map_or(0, |b| b[r]);
            (1..c.len()).all(|r| c[r - 1] > c[r] || c[r - 1] == c[r] && b(r - 1) >= b(r))
        });
        let before = coder.spent();
        let sorted = fields.flag(coder, falls, Field::Sorted);
        let row_counts = models.row_counts(coder, have_counts.as_deref(), rows, cols, sorted)?;
        models.spent.liveness += coder.spent() - before;
        nonzeros += row_counts.iter().map(|&c| c as usize).sum::<usize>();
        if nonzeros > limits.nonzeros {
            return Err(Flaw::limit("non-zeros", limits.nonzeros, nonzeros));
        }
        counts[i] = row_counts;
        let feeds = columns
            .feeds
            .map(|f| counts[f].as_slice())
            .filter(|c| c.len() == columns.units);
        let got = models.matrix(coder, levels.as_ref(), &counts[i], columns, feeds, i)?;
        done[i] = Some(Integers::Weight(got));
        if let Some(b) = tensor.bias {
            let levels = models.biases(coder, have_biases.as_deref(), &counts[i], sorted)?;
            done[b] = Some(Integers::Bias(levels));
        }
    }
    let integers = done
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Flaw::damaged("tensors"))?;
    Ok((graph, tensors, integers, models.spent))
}

fn bias<C: Coder>(
    coder: &mut C,
    models: &mut Models,
    have: Option<&Network>,
    tensors: &[Tensor],
    i: usize,
    counts: Option<&[u32]>,
) -> Result<Vec<i32>, Flaw> {
    let levels = match have {
        None => None,
        Some(network) => match integers(network, &tensors[i])? {
            Integers::Bias(levels) => Some(levels),
            Integers::Weight(_) => None,
        },
    };
    let zeros = vec![0; tensors[i].shape.elements()];
    models.biases(coder, levels.as_deref(), counts.unwrap_or(&zeros), false)
}

/// Bounds memory and time before any of it is spent.
fn check_sizes(tensors: &[Tensor], limits: &Limits) -> Result<(), Flaw> {
    let (mut cells, mut dense) = (0_usize, 0_usize);
    for tensor in tensors {
        let (rows, cols) = tensor.shape.matrix();
        cells = cells.saturating_add(rows.max(1).saturating_mul(cols.max(1)));
        if tensor.dense {
            dense = dense.saturating_add(tensor.shape.elements());
        }
    }
    if cells > limits.small_cells {
        return Err(Flaw::limit(
            "elements of a file of the small profile",
            limits.small_cells,
            cells,
        ));
    }
    if dense > limits.dense_elements {
        return Err(Flaw::limit(
            "elements of dense tensors",
            limits.dense_elements,
            dense,
        ));
    }
    Ok(())
}

/// A coder with a CRC over the decisions, eight to a byte: whatever they mean, a reader has made the same ones.
struct Checked<C> {
    inner: C,
    crc: Crc,
    byte: u32,
}

impl<C: Coder> Checked<C> {
    fn new(inner: C) -> Self {
        Self {
            inner,
            crc: Crc::new(),
            byte: 1,
        }
    }

    /// The low half of the CRC-32; a last, partial byte counts with a one in front of its decisions.
    fn checksum(&self) -> u16 {
        let mut crc = self.crc.clone();
        crc.push(self.byte as u8);
        crc.value() as u16
    }
}

impl<C: Coder> Coder for Checked<C> {
    const READS: bool = C::READS;

    fn bit(&mut self, bit: bool, p: u32) -> bool {
        let bit = self.inner.bit(bit, p);
        self.byte = self.byte << 1 | u32::from(bit);
        if self.byte >= 256 {
            self.crc.push(self.byte as u8);
            self.byte = 1;
        }
        bit
    }

    fn exhausted(&self) -> bool {
        self.inner.exhausted()
    }
}
