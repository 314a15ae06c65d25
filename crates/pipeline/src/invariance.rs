//! Changes of images that a network does not mind: the views by which its training may augment them.

use sparsevd_compressor::Samples;
use sparsevd_compressor::objective::{Score, score_predictions};
use sparsevd_compressor::recipe::{Augment, Recipe};
use sparsevd_compressor::trainer::Observer;
use sparsevd_kernels::training::philox4x32;
use sparsevd_model::{Network, Shape};
use sparsevd_runtime::{Session, WeightMode};

use crate::error::PipelineError;
use crate::labelled::{EVALUATION_BATCH, predictions};
use crate::measure::{fill_input, session};
use crate::split::Split;

/// How much the error may rise, as a share of the samples, that a view still counts as one the network does not mind.
const RISE: f64 = 0.005;

/// Fewest samples that can tell.
const FEWEST: usize = 150;

/// Where the shift of an image is drawn.
const SHIFTS: [u32; 2] = [0x5348_4946, 0x5453];

/// Puts the shift and the flip in the place of [`Augment::Measured`] that `network` does not mind on the validation samples that settings are
/// chosen by: its error on images that are changed so is at most half a point above that on the images as they are. Shifts of an eighth and
/// of a sixteenth of the shorter side are tried.
///
/// Inputs that are no images, targets that are no classes or did not come with the data, and fewer than 150 samples leave images as they are.
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
    if !samples.has_targets || validation.len() < FEWEST {
        return Ok(());
    }
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let views = Views {
        session: session(network, WeightMode::Dense, EVALUATION_BATCH, threads)?,
        shape,
        samples: validation,
    };
    let Some(plain) = views.error(0, false)? else {
        return Ok(());
    };
    let close = |error: f64| error <= plain + RISE;
    let (mut shift, mut found) = (0, vec![]);
    let mut of_shift: Vec<u8> = [8, 16]
        .map(|part| u8::try_from(height.min(width) / part).unwrap_or(u8::MAX / 2))
        .into_iter()
        .filter(|shift| *shift > 0)
        .collect();
    of_shift.dedup();
    for tried in of_shift {
        let error = views.error(tried, false)?.unwrap_or(1.0);
        found.push(format!("{} shifted by up to {tried}", percent(error)));
        if close(error) {
            shift = tried;
            break;
        }
    }
    let mirrored = views.error(0, true)?.unwrap_or(1.0);
    found.push(format!("{} mirrored", percent(mirrored)));
    let flip = close(mirrored);
    for phase in &mut recipe.phases {
        (phase.shift, phase.flip) = (shift, flip);
    }
    let chosen = match (shift, flip) {
        (0, false) => "images stay as they are".to_owned(),
        (0, true) => "images are mirrored".to_owned(),
        (shift, false) => format!("images are shifted by up to {shift} pixels"),
        (shift, true) => format!("images are shifted by up to {shift} pixels and mirrored"),
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

/// Images, and a network that sees views of them.
struct Views<'v> {
    session: Session,
    shape: &'v Shape,
    samples: &'v dyn Samples,
}

impl Views<'_> {
    /// The share of images of which a view, moved by up to `shift` pixels each way and mirrored or not, is taken for one of another class;
    /// `None` of targets that are no classes.
    fn error(&self, shift: u8, mirrored: bool) -> Result<Option<f64>, PipelineError> {
        let width = self.shape.dims()[2];
        let fill = |index: usize, x: &mut [f32]| {
            let drawn = philox4x32([index as u32, (index >> 32) as u32, 0, 0], SHIFTS);
            let offset = |draw: u32| (draw % (2 * u32::from(shift) + 1)) as i32 - i32::from(shift);
            let by = [offset(drawn[0]), offset(drawn[1])];
            fill_input(self.samples, index, by, self.shape, x);
            if mirrored {
                x.chunks_exact_mut(width).for_each(<[f32]>::reverse);
            }
        };
        let outputs = predictions(&self.session, self.samples.len(), fill)?;
        Ok(match score_predictions(&outputs, &self.samples.targets()) {
            Score::Classes { samples, wrong } => Some(wrong as f64 / samples as f64),
            Score::Regression { .. } => None,
        })
    }
}
