//! The search for the scale of a quantise phase: several are trained from the same state.

use sparsevd_format::{PackOptions, pack};

use super::history::EpochRecord;
use super::observer::Observer;
use super::{Outcome, Trainer};
use crate::error::CompressError;
use crate::objective::Score;
use crate::recipe::Phase;
use crate::state::State;

/// Result of one candidate scale.
struct Trial {
    c: f64,
    bytes: usize,
    score: Score,
    state: State<f32>,
    history: Vec<EpochRecord>,
}

impl Trainer {
    /// Trains candidates of the phase from the same beginning, the coarsest first, until one stays within the recipe's
    /// `max_accuracy_drop`, or `max_r2_drop` of a regression, on validation; where none does, keeps the most accurate.
    ///
    /// An interruption puts the run back to the beginning of the phase.
    pub(super) fn search_grid(
        &mut self,
        phase: &Phase,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, CompressError> {
        let dense = self.dense_validation_errors()?.score;
        let most = self.recipe.max_drop(&dense);
        let (state, position, history) = (
            self.engine.state().clone(),
            self.position,
            self.history.clone(),
        );
        let mut trials: Vec<Trial> = vec![];
        let mut scales = phase.grid.clone();
        scales.sort_by(|a, b| b.total_cmp(a));
        for c in scales {
            let start = state.clone();
            self.replace_state(|state| *state = start)?;
            (self.position, self.history) = (position, history.clone());
            self.start_grid(c, phase.bias_step)?;
            while self.position.epoch < phase.epochs {
                if self.epoch(phase, observer)? == Outcome::Interrupted {
                    self.replace_state(|now| *now = state)?;
                    (self.position, self.history, self.sums) = (position, history, [0.0; 2]);
                    return Ok(Outcome::Interrupted);
                }
            }
            self.remove_over(self.threshold())?;
            let trial = Trial {
                c,
                bytes: pack(&self.network()?, &PackOptions::default())?.len(),
                score: self.validation_score(self.threshold()),
                state: self.engine.state().clone(),
                history: self.history.clone(),
            };
            observer.note(&format!(
                "scales of {c} sigma: {} bytes packed, {} on validation",
                trial.bytes, trial.score
            ));
            let within = trial.score.is_within(most, &dense);
            trials.push(trial);
            // A finer grid takes more bytes.
            if within {
                break;
            }
        }
        let end = self.position;
        let within = trials.iter().find(|t| t.score.is_within(most, &dense));
        let best = within.or_else(|| {
            trials
                .iter()
                .min_by(|a, b| a.score.error().total_cmp(&b.score.error()))
        });
        if let Some(best) = best {
            let within = if best.score.is_within(most, &dense) {
                "the coarsest within"
            } else {
                "none stays within"
            };
            observer.note(&format!(
                "chose scales of {} sigma with {} on validation: {within} {most} of the dense network's {dense}{}",
                best.c,
                best.score,
                best.score.standard_error()
            ));
            let (state, history) = (best.state.clone(), best.history.clone());
            self.replace_state(|now| *now = state)?;
            (self.position, self.history) = (end, history);
        }
        Ok(Outcome::Done)
    }
}
