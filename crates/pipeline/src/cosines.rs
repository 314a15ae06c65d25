//! How near embeddings are to others of the same texts.

use std::fmt;

use serde::Serialize;

/// How near the embeddings of an encoder are to those of the encoder that it was made of, or learned from: cosines of the two, over texts by which it was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cosines {
    /// Texts.
    pub texts: usize,
    /// Mean.
    pub mean: f64,
    /// Mean of the tenth of the texts with the lowest.
    pub worst_decile: f64,
}

impl Cosines {
    /// Of embeddings of the same texts, `[texts][width]`.
    pub(crate) fn of(after: &[f32], before: &[f32], width: usize) -> Self {
        let pairs = before.chunks_exact(width).zip(after.chunks_exact(width));
        let mut cosines: Vec<f64> = pairs.map(|(a, b)| cosine(a, b)).collect();
        cosines.sort_by(f64::total_cmp);
        let mean = |cosines: &[f64]| cosines.iter().sum::<f64>() / cosines.len().max(1) as f64;
        Self {
            texts: cosines.len(),
            mean: mean(&cosines),
            worst_decile: mean(&cosines[..cosines.len().div_ceil(10)]),
        }
    }
}

impl fmt::Display for Cosines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "embeddings of {} other texts: cosine to the dense ones {:.4}, of the tenth that is furthest {:.4}",
            self.texts, self.mean, self.worst_decile
        )
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}
