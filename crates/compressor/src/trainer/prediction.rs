//! Outputs of a network without noise, which a signal may interrupt.

use crate::engine::Engine;

/// Samples between two questions whether to stop: some chunks of [`Engine::predict`], so that no bit depends on it.
const PIECE: usize = 500;

/// Outputs of an engine without noise for `samples` samples; `None` where `stop` says so in between.
pub(super) fn predict_until(
    engine: &mut Engine<f32>,
    samples: usize,
    fill: &(dyn Fn(usize, &mut [f32]) + Sync),
    keep: &[Vec<bool>],
    stop: &mut dyn FnMut() -> bool,
) -> Option<Vec<f32>> {
    let mut outputs = Vec::with_capacity(samples * engine.outputs());
    for first in (0..samples).step_by(PIECE) {
        if stop() {
            return None;
        }
        let fill = |i: usize, out: &mut [f32]| fill(first + i, out);
        outputs.extend(engine.predict(PIECE.min(samples - first), &fill, keep));
    }
    Some(outputs)
}
