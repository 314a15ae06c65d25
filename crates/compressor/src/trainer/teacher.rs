//! The teacher of distillation: the network that the run began with, or that one before it was pruned.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::prediction::predict_until;
use crate::augmentation::Augmentation;
use crate::data::{EpochOrder, Samples};
use crate::engine::Engine;
use crate::error::CompressError;

/// What knows a network's outputs for training samples.
pub(super) enum Teacher {
    /// For every sample in every shift.
    Shifts(Shifts),
    /// By running it on each batch: samples have too many views to answer all of them.
    EachStep(Box<Mutex<Engine<f32>>>),
}

/// A network's outputs for every training sample in every shift up to `shift`.
pub(super) struct Shifts {
    shift: u8,
    images: usize,
    /// `[(2 shift + 1)^2][images][outputs]`.
    outputs: Vec<f32>,
}

/// Positions that a shift of up to `shift` pixels has along one axis.
fn positions(shift: u8) -> usize {
    2 * usize::from(shift) + 1
}

impl Teacher {
    /// Number of samples that a teacher's outputs are computed for.
    pub fn samples(images: &dyn Samples, shift: u8) -> usize {
        images.len() * positions(shift) * positions(shift)
    }

    /// Runs `engine` without noise on every sample in every shift; `None` where `stop` says so in between.
    pub fn of_shifts(
        engine: &mut Engine<f32>,
        images: &dyn Samples,
        shift: u8,
        stop: &mut dyn FnMut() -> bool,
    ) -> Option<Self> {
        let side = positions(shift);
        let fill = |i: usize, out: &mut [f32]| {
            let (variant, image) = (i / images.len(), i % images.len());
            let by = [variant / side, variant % side].map(|v| v as i32 - i32::from(shift));
            images.fill(image, by, out);
        };
        let samples = Self::samples(images, shift);
        let outputs = predict_until(engine, samples, &|_| 1, &fill, &[], stop)?;
        Some(Self::Shifts(Shifts {
            shift,
            images: images.len(),
            outputs,
        }))
    }

    /// A teacher that runs in every step.
    pub fn of_each_step(engine: Engine<f32>) -> Self {
        Self::EachStep(Box::new(Mutex::new(engine)))
    }

    /// Whether it knows the outputs for samples of that augmentation. Those of few views it knows from before training, of others it answers each batch.
    pub fn covers(&self, augmentation: Augmentation, has_few_views: bool) -> bool {
        match self {
            Self::Shifts(shifts) => has_few_views && shifts.shift == augmentation.shift,
            Self::EachStep(_) => !has_few_views,
        }
    }

    /// Outputs for some places of an epoch's order, `[places][outputs]`; `fill` gives the samples at these places, of `length` elements in a free dimension.
    ///
    /// # Errors
    /// Those of [`Engine::set_length`].
    pub fn outputs(
        &self,
        order: &EpochOrder,
        places: Range<usize>,
        length: usize,
        fill: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) -> Result<Vec<f32>, CompressError> {
        Ok(match self {
            Self::Shifts(shifts) => shifts.outputs(order, places),
            Self::EachStep(engine) => {
                // What a panic left behind is overwritten by each prediction.
                let mut engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
                engine.set_length(length)?;
                engine.predict(places.len(), fill, &[])
            }
        })
    }
}

impl Shifts {
    fn outputs(&self, order: &EpochOrder, places: Range<usize>) -> Vec<f32> {
        let side = positions(self.shift);
        let len = self.outputs.len() / (side * side * self.images);
        let mut outputs = Vec::with_capacity(places.len() * len);
        for place in places {
            let shift = order.view(place).shift;
            let [dy, dx] = shift.map(|s| (i32::from(s) + i32::from(self.shift)) as usize);
            let row = (dy * side + dx) * self.images + order.samples[place] as usize;
            outputs.extend_from_slice(&self.outputs[row * len..(row + 1) * len]);
        }
        outputs
    }
}
