//! Inputs that are not scaled, where a run diverged.

use sparsevd_model::Graph;

use crate::data::Samples;

/// Training samples that statistics are taken of.
const SAMPLES: usize = 1000;
/// Root mean square above which an input is not scaled.
const LARGEST: f64 = 10.0;

/// An input whose numbers are far from those that networks train on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unscaled {
    /// In words: a channel, a column of a table, or an input by its number.
    pub column: String,
    pub mean: f64,
    pub deviation: f64,
}

/// The input with the largest numbers among the first training samples, where it is not scaled. Ids have no scale.
pub(super) fn unscaled(graph: &Graph, samples: &dyn Samples) -> Option<Unscaled> {
    let input = graph.inputs.first().filter(|i| !i.dtype.is_id())?;
    let input = &input.shape;
    let is_map = input.dims().len() == 3;
    let columns = match is_map {
        true => input.dims()[0],
        false => input.elements(),
    };
    let mut sums = vec![[0.0; 2]; columns];
    let mut sample = vec![0.0; input.elements()];
    for i in 0..samples.len().min(SAMPLES) {
        samples.fill(i, [0, 0], &mut sample);
        // Channels are last.
        for row in sample.chunks_exact(columns.max(1)) {
            for (x, [sum, squares]) in row.iter().zip(&mut sums) {
                *sum += f64::from(*x);
                *squares += f64::from(*x).powi(2);
            }
        }
    }
    let count = samples.len().min(SAMPLES) * input.elements() / columns.max(1);
    let largest = (0..columns).max_by(|a, b| sums[*a][1].total_cmp(&sums[*b][1]))?;
    let [mean, square] = sums[largest].map(|sum| sum / count.max(1) as f64);
    // NaN and infinity are no scale either.
    let scaled = square.sqrt() <= LARGEST;
    (!scaled).then(|| Unscaled {
        column: match is_map {
            true => format!("channel {largest}"),
            false => column(graph, largest),
        },
        mean,
        deviation: (square - mean * mean).max(0.0).sqrt(),
    })
}

/// The column of a table that a feature is of, else the number of the feature.
fn column(graph: &Graph, feature: usize) -> String {
    let table = graph.preprocessing.as_ref().and_then(|p| p.table.as_ref());
    let columns = table.map_or(&[][..], |t| &t.columns);
    let mut end = 0;
    let found = columns.iter().find(|c| {
        end += c.features();
        feature < end
    });
    match found {
        Some(column) => format!("column `{}`", column.name),
        None => format!("input {feature}"),
    }
}
