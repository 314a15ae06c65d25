//! The search for the scale of a quantise phase: several are trained from the same state.

use sparsevd_format::{PackOptions, pack};

use super::history::EpochRecord;
use super::observer::Observer;
use super::{Outcome, Trainer};
use crate::error::CompressError;
use crate::objective::Score;
use crate::recipe::Phase;
use crate::report::{ClassError, Promise, SplitScore};
use crate::state::State;

/// Result of one candidate scale.
struct Trial {
    c: f64,
    score: Score,
    /// Whether it keeps the promise on the validation samples.
    within: bool,
    state: State<f32>,
    history: Vec<EpochRecord>,
}

impl Trainer {
    /// Trains candidates of the phase from the same beginning, the coarsest first, until one loses no more on validation than the recipe's
    /// promise allows; where none does, keeps the most accurate. The time of the others counts with that of the one that is kept.
    ///
    /// An interruption puts the run back to the beginning of the phase.
    pub(super) fn search_grid(
        &mut self,
        phase: &Phase,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, CompressError> {
        let Some(dense) = self.dense_validation_errors_until(&mut || observer.stop())? else {
            return Ok(Outcome::Interrupted);
        };
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
            let mut outcome = Outcome::Done;
            while self.position.epoch < phase.epochs && outcome == Outcome::Done {
                outcome = self.epoch(phase, observer)?;
            }
            let sparse = match outcome {
                Outcome::Done => {
                    self.remove_over(self.threshold())?;
                    self.validation_errors_until(self.threshold(), &mut || observer.stop())
                }
                Outcome::Interrupted => None,
            };
            let Some(sparse) = sparse else {
                self.replace_state(|now| *now = state)?;
                (self.position, self.history, self.sums) = (position, history, [0.0; 2]);
                return Ok(Outcome::Interrupted);
            };
            let classes = ClassError::of(&dense, &sparse);
            let promise = Promise::new(&self.recipe, &SplitScore::new(&dense, &sparse), &classes);
            let bytes = pack(&self.network()?, &PackOptions::default())?.len();
            observer.note(&format!(
                "scales of {c} sigma: {bytes} bytes packed, {} on validation",
                sparse.score
            ));
            let within = promise.loses_no_more();
            trials.push(Trial {
                c,
                score: sparse.score,
                within,
                state: self.engine.state().clone(),
                history: self.history.clone(),
            });
            // A finer grid takes more bytes.
            if within {
                break;
            }
        }
        let end = self.position;
        let before = history.len();
        let time = |t: &Trial| t.history[before..].iter().map(|e| e.seconds).sum::<f64>();
        let all: f64 = trials.iter().map(time).sum();
        // An error that is no number is the largest, whatever its sign.
        let error = |t: &Trial| t.score.error().abs();
        let best = (trials.iter().find(|t| t.within))
            .or_else(|| trials.iter().min_by(|a, b| error(a).total_cmp(&error(b))));
        if let Some(best) = best {
            let says = match best.within {
                true => "the coarsest that keeps the promise",
                false => "none keeps the promise",
            };
            observer.note(&format!(
                "chose scales of {} sigma with {} on validation: {says}; the dense network has {}{}",
                best.c,
                best.score,
                dense.score,
                best.score.standard_error()
            ));
            let (state, mut history) = (best.state.clone(), best.history.clone());
            if let Some(first) = history.get_mut(before) {
                first.seconds += all - time(best);
            }
            self.replace_state(|now| *now = state)?;
            (self.position, self.history) = (end, history);
        }
        Ok(Outcome::Done)
    }
}
