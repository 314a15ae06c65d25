//! Accuracy of a session over labelled samples.

use crate::{RuntimeError, Session};

/// Errors of a session on labelled samples.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Evaluation {
    /// Number of samples.
    pub images: usize,
    /// Number of samples whose largest output is not that of their label.
    pub wrong: usize,
}

impl Evaluation {
    /// Share of samples whose largest output is that of their label, 0 to 1.
    pub fn top1(&self) -> f64 {
        1.0 - self.wrong as f64 / self.images.max(1) as f64
    }

    /// Share of wrong samples in percent.
    pub fn error_percent(&self) -> f64 {
        100.0 * self.wrong as f64 / self.images.max(1) as f64
    }
}

/// Counts the samples whose largest output is not that of their label. Among equal outputs the first is the largest; NaN never is.
///
/// `fill(i, x)` writes sample `i`, `[input_shape]`, into `x`. Samples run in batches of [`crate::PlanOptions::batch`].
///
/// # Errors
/// [`RuntimeError::Names`] for a network with several inputs or outputs.
pub fn evaluate(
    session: &Session,
    labels: &[u16],
    mut fill: impl FnMut(usize, &mut [f32]),
) -> Result<Evaluation, RuntimeError> {
    let inn = session.plan().input_shape().elements();
    let out = session.plan().output_shape().elements();
    let batch = session.plan().options().batch.clamp(1, labels.len().max(1));
    let (mut x, mut y) = (vec![0.0; batch * inn], vec![0.0; batch * out]);
    let mut wrong = 0;
    for (chunk, labels) in labels.chunks(batch).enumerate() {
        let n = labels.len();
        for (i, x) in x.chunks_exact_mut(inn.max(1)).take(n).enumerate() {
            fill(chunk * batch + i, x);
        }
        session.run(n, &x[..n * inn], &mut y[..n * out])?;
        wrong += labels
            .iter()
            .zip(y.chunks_exact(out.max(1)))
            .filter(|(label, y)| top(y) != Some(usize::from(**label)))
            .count();
    }
    Ok(Evaluation {
        images: labels.len(),
        wrong,
    })
}

/// Index of the largest number, the first among equals; `None` where there is none.
fn top(y: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (i, &v) in y.iter().enumerate() {
        if !v.is_nan() && best.is_none_or(|(_, b)| v > b) {
            best = Some((i, v));
        }
    }
    best.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_counts_and_nan_never_does() {
        const NAN: f32 = f32::NAN;
        let cases: &[(&[f32], Option<usize>)] = &[
            (&[1.0, 3.0, 3.0], Some(1)),
            (&[NAN, -2.0, -1.0], Some(2)),
            (&[f32::NEG_INFINITY], Some(0)),
            (&[NAN, NAN], None),
            (&[], None),
        ];
        for (y, want) in cases {
            assert_eq!(top(y), *want, "{y:?}");
        }
    }

    #[test]
    fn error_and_top_1_add_up_even_over_nothing() {
        let some = Evaluation {
            images: 8,
            wrong: 2,
        };
        assert_eq!((some.top1(), some.error_percent()), (0.75, 25.0));
        let none = Evaluation {
            images: 0,
            wrong: 0,
        };
        assert_eq!((none.top1(), none.error_percent()), (1.0, 0.0));
    }
}
