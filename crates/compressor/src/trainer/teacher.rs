//! The teacher of distillation: the network that the run began with.

use std::ops::Range;

use super::prediction::predict_until;
use crate::data::{EpochOrder, Samples};
use crate::engine::Engine;

/// A network's outputs for every training sample in every shift up to `shift`.
pub(super) struct Teacher {
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
    pub fn new(
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
        let outputs = predict_until(engine, Self::samples(images, shift), &fill, &[], stop)?;
        Some(Self {
            shift,
            images: images.len(),
            outputs,
        })
    }

    /// Whether the outputs are those of shifts up to `shift`.
    pub fn covers(&self, shift: u8) -> bool {
        self.shift == shift
    }

    /// Outputs for some places of an epoch's order, `[places][outputs]`.
    pub fn outputs(&self, order: &EpochOrder, places: Range<usize>) -> Vec<f32> {
        let side = positions(self.shift);
        let len = self.outputs.len() / (side * side * self.images);
        let mut outputs = Vec::with_capacity(places.len() * len);
        for place in places {
            let [dy, dx] = order
                .shift(place)
                .map(|s| (i32::from(s) + i32::from(self.shift)) as usize);
            let row = (dy * side + dx) * self.images + order.samples[place] as usize;
            outputs.extend_from_slice(&self.outputs[row * len..(row + 1) * len]);
        }
        outputs
    }
}
