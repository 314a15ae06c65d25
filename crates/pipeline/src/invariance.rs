//! Augmentations that do not raise the error of a network: its training may use them.

use std::thread;

use sparsevd_compressor::Samples;
use sparsevd_compressor::objective::{Score, Targets, score_predictions};
use sparsevd_compressor::recipe::{Augment, MAX_SHIFT, Recipe};
use sparsevd_compressor::trainer::Observer;
use sparsevd_kernels::training::philox4x32;
use sparsevd_model::{Network, Shape};
use sparsevd_runtime::{Session, WeightMode};

use crate::error::PipelineError;
use crate::labelled::{EVALUATION_BATCH, predictions};
use crate::measure::{fill_input, session};
use crate::split::Split;
use crate::threads;

/// How much the error may rise by an augmentation, as a share of the samples.
const RISE: f64 = 0.005;

/// Fewest samples that can tell.
const FEWEST: usize = 150;

/// Key of the draws of shifts.
const SHIFTS: [u32; 2] = [0x5348_4946, 0x5453];

/// Puts a shift and a flip in the place of [`Augment::Measured`]: those with which the error of `network`, on the validation samples that
/// settings are chosen by, is at most half a point above its error on these as they are. Shifts of an eighth and of a sixteenth of the shorter
/// side, of at most [`MAX_SHIFT`], are tried; shift and flip are measured apart from each other.
///
/// Inputs that are no maps, targets that are no classes or did not come with the data, and fewer than 150 samples leave images as they are.
pub(crate) fn settle_augmentation(
    recipe: &mut Recipe,
    network: &Network,
    samples: &Split,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<(), PipelineError> {
    if std::mem::take(&mut recipe.augment) == Augment::None {
        return Ok(());
    }
    let shape = &network.graph.inputs[0].shape;
    let validation = samples.training.validation();
    let &[_, height, width] = shape.dims() else {
        return Ok(());
    };
    if !samples.has_targets || !matches!(validation.targets(), Targets::Classes(_)) {
        return Ok(());
    }
    if validation.len() < FEWEST {
        let samples = validation.len();
        observer.note(&format!(
            "images are not augmented: {samples} validation samples are fewer than the {FEWEST} that tell whether they may be"
        ));
        return Ok(());
    }
    let views = Views {
        // One thread for each session: choices must not depend on the number of threads.
        session: session(network, WeightMode::Dense, EVALUATION_BATCH, 1)?,
        shape,
        samples: validation,
        threads: threads::resolve(threads),
    };
    let mut error = |shift, flip| {
        if observer.stop() {
            return Err(PipelineError::Interrupted { folder: None });
        }
        views.error(shift, flip)
    };
    let plain = error(0, false)?;
    let close = |error: f64| error <= plain + RISE;
    let (mut shift, mut found) = (0, vec![]);
    let mut shifts = [8, 16].map(|part| (height.min(width) / part).min(usize::from(MAX_SHIFT)));
    shifts.sort_unstable_by(|a, b| b.cmp(a));
    let [wide, narrow] = shifts.map(|shift| shift as u8);
    let tried = [Some(wide), (narrow < wide).then_some(narrow)];
    for tried in tried.into_iter().flatten().filter(|shift| *shift > 0) {
        let error = error(tried, false)?;
        found.push(format!("{} shifted by up to {tried}", percent(error)));
        if close(error) {
            shift = tried;
            break;
        }
    }
    let mirrored = error(0, true)?;
    found.push(format!("{} mirrored", percent(mirrored)));
    let flip = close(mirrored);
    for phase in &mut recipe.phases {
        (phase.shift, phase.flip) = (shift, flip);
    }
    let s = if shift == 1 { "" } else { "s" };
    let chosen = match (shift, flip) {
        (0, false) => "images stay as they are".to_owned(),
        (0, true) => "images are mirrored".to_owned(),
        (shift, false) => format!("images are shifted by up to {shift} pixel{s}"),
        (shift, true) => format!("images are shifted by up to {shift} pixel{s} and mirrored"),
    };
    observer.note(&format!(
        "in training, {chosen}: the validation error is {} as they are, {}",
        percent(plain),
        found.join(", ")
    ));
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Images, and a network that sees augmented ones.
struct Views<'v> {
    session: Session,
    shape: &'v Shape,
    samples: &'v dyn Samples,
    threads: usize,
}

impl Views<'_> {
    /// The share of images that are taken for one of another class where each is moved by up to `shift` pixels each way, and mirrored or not.
    fn error(&self, shift: u8, flip: bool) -> Result<f64, PipelineError> {
        let samples = self.samples.len();
        let each = samples
            .div_ceil(self.threads)
            .next_multiple_of(EVALUATION_BATCH);
        let outputs = thread::scope(|scope| {
            let part = |first: usize| first..(first + each).min(samples);
            let parts = (0..samples).step_by(each).map(part);
            let running: Vec<_> = parts
                .map(|part| scope.spawn(move || self.outputs(part, shift, flip)))
                .collect();
            let mut outputs = vec![];
            for part in running {
                let part = part
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                outputs.extend(part?);
            }
            Ok::<_, PipelineError>(outputs)
        })?;
        Ok(match score_predictions(&outputs, &self.samples.targets()) {
            Score::Classes { samples, wrong } => wrong as f64 / samples as f64,
            Score::Regression { .. } => unreachable!("targets are classes"),
        })
    }

    fn outputs(
        &self,
        samples: std::ops::Range<usize>,
        shift: u8,
        flip: bool,
    ) -> Result<Vec<f32>, PipelineError> {
        let width = self.shape.dims()[2];
        let fill = |index: usize, x: &mut [f32]| {
            let index = samples.start + index;
            let drawn = philox4x32([index as u32, (index >> 32) as u32, 0, 0], SHIFTS);
            let offset = |draw: u32| (draw % (2 * u32::from(shift) + 1)) as i32 - i32::from(shift);
            let by = [offset(drawn[0]), offset(drawn[1])];
            fill_input(self.samples, index, by, self.shape, x);
            if flip {
                x.chunks_exact_mut(width).for_each(<[f32]>::reverse);
            }
        };
        Ok(predictions(&self.session, samples.len(), fill)?)
    }
}
