//! Outputs of a network without noise, which a signal may interrupt.

use crate::engine::Engine;

/// Samples between two questions whether to stop.
const PIECE: usize = 500;

/// Outputs of an engine without noise for `samples` samples of these lengths in a free dimension; `None` where `stop` says so in between.
pub(super) fn predict_until(
    engine: &mut Engine<f32>,
    samples: usize,
    length: &dyn Fn(usize) -> usize,
    fill: &(dyn Fn(usize, &mut [f32]) + Sync),
    keep: &[Vec<bool>],
    stop: &mut dyn FnMut() -> bool,
) -> Option<Vec<f32>> {
    let mut order: Vec<usize> = (0..samples).collect();
    order.sort_by_key(|i| length(*i));
    let width = engine.outputs();
    let mut outputs = vec![0.0; samples * width];
    let mut rest = order.as_slice();
    while let Some(&first) = rest.first() {
        if stop() {
            return None;
        }
        let of_first = length(first);
        let piece = rest.iter().take(PIECE);
        let same = piece.take_while(|i| length(**i) == of_first).count();
        let (piece, others) = rest.split_at(same);
        rest = others;
        (engine.set_length(of_first)).expect("a network that is lowered at one length is at all");
        let fill = |i: usize, out: &mut [f32]| fill(piece[i], out);
        let of_piece = engine.predict(same, &fill, keep);
        for (&i, of_sample) in piece.iter().zip(of_piece.chunks_exact(width)) {
            outputs[i * width..][..width].copy_from_slice(of_sample);
        }
    }
    Some(outputs)
}
