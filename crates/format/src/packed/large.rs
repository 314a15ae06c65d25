//! The large profile: static rates, in chunks that are read in parallel.

use std::sync::Mutex;
use std::thread;

use sparsevd_model::Network;

use super::breakdown::PackedBreakdown;
use super::checked::Checked;
use super::chunks::{Chunk, SYMBOLS, histogram, rows_per_chunk};
use super::error::PackedError;
use super::fields::{Field, Fields};
use super::integers::{Integers, assemble, integers};
use super::limits::Limits;
use super::matrix::{Levels, Models, RowOrder};
use super::range::{Coder, Decoder, Encoder, Meter};
use super::rans::Table;
use super::skeleton::{Skeleton, Tensor, skeleton};

/// What the header has of one weight.
struct Plan {
    /// Non-zeros of each chunk.
    nonzeros: Vec<usize>,
    values: Table,
}

/// All but the numbers, what each weight is made of, integers that are known, and what the biases take in 1/65,536 bits.
type Header = (Skeleton, Vec<Option<Plan>>, Vec<Option<Integers>>, u64);

/// Appends a network.
pub(super) fn encode(
    network: &Network,
    has_grids: bool,
    bytes: &mut Vec<u8>,
) -> Result<(), PackedError> {
    let mut coder = Checked::new(Encoder::new());
    let limits = Limits::for_writing();
    let (skeleton, plans, have, _) = header(&mut coder, Some(network), has_grids, &limits)?;
    let tensors = skeleton.tensors;
    let checksum = coder.crc();
    let stream = coder.into_inner().finish();
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    for ((tensor, plan), have) in tensors.iter().zip(&plans).zip(&have) {
        let (Some(plan), Some(Integers::Weight(have))) = (plan, have) else {
            continue;
        };
        for (i, rows) in blocks(tensor, plan.nonzeros.len()).enumerate() {
            let chunk = Chunk {
                rows: rows.len(),
                cols: tensor.shape.matrix().1,
                values: &plan.values,
            };
            debug_assert!(i < plan.nonzeros.len());
            chunks.push(chunk.encode(
                &have.starts[rows.start..=rows.end],
                &have.columns,
                &have.levels,
            ));
        }
    }
    let length = |n: usize| {
        u32::try_from(n)
            .map(u32::to_le_bytes)
            .map_err(|_| PackedError::part("packed data", "less than 4 GiB", n.to_string()))
    };
    bytes.extend(length(stream.len())?);
    bytes.extend(checksum.to_le_bytes());
    bytes.extend(stream);
    for chunk in &chunks {
        bytes.extend(length(chunk.len())?);
    }
    bytes.extend(chunks.concat());
    Ok(())
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(
    bytes: &[u8],
    has_grids: bool,
    limits: &Limits,
) -> Result<Network, PackedError> {
    let (stream, checksum, rest) = split(bytes)?;
    let mut coder = Checked::new(Decoder::new(stream));
    let (skeleton, plans, mut done, _) = header(&mut coder, None, has_grids, limits)?;
    coder.check(checksum)?;
    let weights = chunks(rest, &skeleton.tensors, &plans)?;
    for (done, levels) in done.iter_mut().zip(weights) {
        if let Some(levels) = levels {
            *done = Some(Integers::Weight(levels));
        }
    }
    let integers: Option<Vec<Integers>> = done.into_iter().collect();
    assemble(
        skeleton,
        integers.ok_or_else(|| PackedError::damaged("tensors"))?,
    )
}

/// Where the bits of what [`encode`] wrote go; positions and values are split by their cost in the chunks' models.
pub(super) fn breakdown(
    bytes: &[u8],
    has_grids: bool,
    limits: &Limits,
) -> Result<PackedBreakdown, PackedError> {
    let (stream, checksum, rest) = split(bytes)?;
    let mut coder = Meter::new(Checked::new(Decoder::new(stream)));
    let (skeleton, plans, _, biases) = header(&mut coder, None, has_grids, limits)?;
    coder.into_inner().check(checksum)?;
    let weights = chunks(rest, &skeleton.tensors, &plans)?;
    let mut values = 0.0;
    for (plan, levels) in plans.iter().zip(&weights) {
        if let (Some(plan), Some(levels)) = (plan, levels) {
            values += plan.values.cost(&histogram(&levels.levels));
        }
    }
    let chunks = 8
        * (rest.len()
            - 4 * plans
                .iter()
                .flatten()
                .map(|p| p.nonzeros.len())
                .sum::<usize>());
    let values = values as u64;
    Ok(PackedBreakdown {
        header: 0,
        liveness: 0,
        positions: (chunks as u64).saturating_sub(values),
        values,
        biases: biases >> 16,
    })
}

fn split(bytes: &[u8]) -> Result<(&[u8], u32, &[u8]), PackedError> {
    let short = || PackedError::part("header", "its bytes", "fewer");
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
    let (checksum, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (stream, rest) = rest.split_at_checked(length).ok_or_else(short)?;
    Ok((stream, u32::from_le_bytes(*checksum), rest))
}

/// The header; a reader passes `None`, and gets biases only.
fn header<C: Coder>(
    coder: &mut C,
    have: Option<&Network>,
    has_grids: bool,
    limits: &Limits,
) -> Result<Header, PackedError> {
    let mut fields = Fields::new();
    let skeleton = skeleton(coder, &mut fields, has_grids, have, limits)?;
    let tensors = &skeleton.tensors;
    check_sizes(tensors, limits)?;
    let mut models = Models::new();
    let mut plans = Vec::new();
    let mut done: Vec<Option<Integers>> = Vec::new();
    let mut nonzeros = 0;
    for tensor in tensors {
        let have = have.map(|network| integers(network, tensor)).transpose()?;
        if tensor.columns.is_none() {
            let counts = vec![0; tensor.shape.elements()];
            let bias = match &have {
                Some(Integers::Bias(bias)) => Some(bias.as_slice()),
                _ => None,
            };
            done.push(Some(Integers::Bias(models.biases(
                coder,
                bias,
                &counts,
                RowOrder::Any,
            )?)));
            plans.push(None);
            continue;
        }
        let levels = match &have {
            Some(Integers::Weight(levels)) => Some(levels),
            _ => None,
        };
        let plan = plan(coder, &mut fields, tensor, levels)?;
        nonzeros = plan
            .nonzeros
            .iter()
            .fold(nonzeros, |n: usize, k| n.saturating_add(*k));
        if nonzeros > limits.nonzeros {
            return Err(PackedError::limit("non-zeros", limits.nonzeros, nonzeros));
        }
        plans.push(Some(plan));
        done.push(have);
    }
    Ok((skeleton, plans, done, models.spent.biases))
}

/// Non-zeros of the chunks of a weight, and the frequencies of its values.
fn plan<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    tensor: &Tensor,
    have: Option<&Levels>,
) -> Result<Plan, PackedError> {
    let (rows, cols) = tensor.shape.matrix();
    let size = rows_per_chunk(rows, cols);
    let mut nonzeros = Vec::new();
    for rows in blocks(tensor, rows.div_ceil(size)) {
        let count = have.map_or(0, |h| (h.starts[rows.end] - h.starts[rows.start]) as usize);
        let count = fields.number(coder, count, Field::ChunkNonzeros)?;
        if count > rows.len().saturating_mul(cols) {
            return Err(PackedError::damaged("non-zeros of a chunk"));
        }
        if coder.exhausted() {
            return Err(PackedError::damaged("header"));
        }
        nonzeros.push(count);
    }
    let have = have.map_or(Vec::new(), |h| histogram(&h.levels));
    let symbols = fields.number(coder, have.len(), Field::Symbols)?;
    if symbols > SYMBOLS || symbols == 0 && nonzeros.iter().any(|n| *n > 0) {
        return Err(PackedError::damaged("value symbols"));
    }
    // Each weight as its highest bit and the three below: 0, or 8 to 15 times a power of two.
    let mut weights = Vec::with_capacity(symbols);
    let mut before = 0_i32;
    for i in 0..symbols {
        let count = have.get(i).copied().unwrap_or(0);
        let length = 64 - count.leading_zeros() as i32;
        let change = super::matrix::zigzag(length - before);
        let change = fields.number(coder, change as usize, Field::SymbolLength)?;
        let length = before.saturating_add(super::matrix::unzigzag(change as u32));
        if !(0..=33).contains(&length) {
            return Err(PackedError::damaged("value symbols"));
        }
        before = length;
        if length == 0 {
            weights.push(0);
            continue;
        }
        let low = coder.raw(((count << 3) >> (length - 1)) as u32 & 7, 3);
        weights.push((8 + u64::from(low)) << (length - 1) >> 3);
    }
    if weights.is_empty() {
        weights.push(1);
    }
    Ok(Plan {
        nonzeros,
        values: Table::new(&weights),
    })
}

/// Rows of the chunks of a weight.
fn blocks(tensor: &Tensor, chunks: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
    let (rows, cols) = tensor.shape.matrix();
    let size = rows_per_chunk(rows, cols);
    (0..chunks).map(move |i| i * size..((i + 1) * size).min(rows))
}

/// One chunk to be read: its error, if it has one, goes into the last part.
struct Job<'a> {
    chunk: Chunk<'a>,
    tensor: &'a str,
    bytes: &'a [u8],
    counts: &'a mut [u32],
    columns: &'a mut [u32],
    levels: &'a mut [i32],
}

/// Reads all chunks, on as many threads as there are processors.
fn chunks(
    bytes: &[u8],
    tensors: &[Tensor],
    plans: &[Option<Plan>],
) -> Result<Vec<Option<Levels>>, PackedError> {
    let number: usize = plans.iter().flatten().map(|p| p.nonzeros.len()).sum();
    let wrong = |expected: String, got: String| PackedError::part("chunks", expected, got);
    let table = number
        .checked_mul(4)
        .and_then(|n| bytes.split_at_checked(n));
    let Some((table, mut data)) = table else {
        return Err(wrong(
            format!("lengths of {number} chunks"),
            format!("{} bytes", bytes.len()),
        ));
    };
    let lengths: Vec<usize> = table
        .as_chunks::<4>()
        .0
        .iter()
        .map(|l| u32::from_le_bytes(*l) as usize)
        .collect();
    let sum = lengths.iter().fold(0_usize, |n, l| n.saturating_add(*l));
    if sum != data.len() {
        return Err(wrong(
            format!("{sum} bytes, as their lengths say"),
            format!("{} bytes", data.len()),
        ));
    }
    // All memory, by tensor: at first nothing of it is touched.
    let mut parts: Vec<Option<Levels>> = Vec::new();
    for (tensor, plan) in tensors.iter().zip(plans) {
        parts.push(plan.as_ref().map(|plan| {
            let nonzeros = plan.nonzeros.iter().sum();
            Levels {
                starts: vec![0; tensor.shape.matrix().0 + 1],
                columns: vec![0; nonzeros],
                levels: vec![0; nonzeros],
            }
        }));
    }
    let mut jobs = Vec::with_capacity(number);
    let mut lengths = lengths.into_iter();
    for ((tensor, plan), part) in tensors.iter().zip(plans).zip(&mut parts) {
        let (Some(plan), Some(part)) = (plan, part) else {
            continue;
        };
        let (mut counts, mut columns, mut levels) = (
            &mut part.starts[1..],
            part.columns.as_mut_slice(),
            part.levels.as_mut_slice(),
        );
        for (rows, &nonzeros) in blocks(tensor, plan.nonzeros.len()).zip(&plan.nonzeros) {
            let length = lengths.next().unwrap_or(0);
            let (c, k, l, d);
            (c, counts) = counts.split_at_mut(rows.len());
            (k, columns) = columns.split_at_mut(nonzeros);
            (l, levels) = levels.split_at_mut(nonzeros);
            (d, data) = data.split_at(length);
            jobs.push(Job {
                chunk: Chunk {
                    rows: rows.len(),
                    cols: tensor.shape.matrix().1,
                    values: &plan.values,
                },
                tensor: &tensor.name,
                bytes: d,
                counts: c,
                columns: k,
                levels: l,
            });
        }
    }
    run(jobs)?;
    for part in parts.iter_mut().flatten() {
        let mut sum = 0;
        for start in &mut part.starts {
            sum += *start;
            *start = sum;
        }
    }
    Ok(parts)
}

fn run(jobs: Vec<Job<'_>>) -> Result<(), PackedError> {
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(jobs.len());
    let jobs = Mutex::new(jobs.into_iter());
    let error: Mutex<Option<PackedError>> = Mutex::new(None);
    let work = || {
        loop {
            let job = jobs.lock().ok().and_then(|mut jobs| jobs.next());
            let Some(job) = job else { return };
            if let Err(found) = job
                .chunk
                .decode(job.bytes, job.counts, job.columns, job.levels)
            {
                let found = match found {
                    PackedError::Part(what, expected, got) => {
                        PackedError::tensor(job.tensor, what, expected, got)
                    }
                    other => other,
                };
                if let (Ok(mut error), Ok(mut jobs)) = (error.lock(), jobs.lock()) {
                    error.get_or_insert(found);
                    // No work is begun after an error.
                    jobs.by_ref().for_each(drop);
                }
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    match error.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error),
        Err(_) => Err(PackedError::damaged("chunks")),
    }
}

/// Bounds memory and time before any of it is spent.
fn check_sizes(tensors: &[Tensor], limits: &Limits) -> Result<(), PackedError> {
    let (mut rows, mut dense) = (0_usize, 0_usize);
    for tensor in tensors {
        rows = rows.saturating_add(tensor.shape.matrix().0);
        if tensor.dense {
            dense = dense.saturating_add(tensor.shape.elements());
        }
    }
    if dense > limits.dense_elements {
        return Err(PackedError::limit(
            "elements of dense tensors",
            limits.dense_elements,
            dense,
        ));
    }
    if rows > limits.dense_elements {
        return Err(PackedError::limit(
            "rows of all tensors",
            limits.dense_elements,
            rows,
        ));
    }
    Ok(())
}
