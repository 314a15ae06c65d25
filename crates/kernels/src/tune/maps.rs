//! The maps of measured convolutions over blocks.

use sparsevd_model::Window;

use crate::blocks::Blocks;
use crate::conv_blocks::BlockConv;

/// Channels and pixels of the input. The lines that a filter of all channels reads stay in the first-level cache, in bytes.
pub(super) const MAP: [usize; 3] = [24, 32, 32];

/// A window of `side` times `side` pixels that keeps the size of a map.
pub(super) fn window(side: usize) -> Window {
    Window {
        pads: [side / 2; 4],
        ..Window::square(side, 1)
    }
}

/// The blocks of the input and of an output of `out` channels.
pub(super) fn blocks(out: usize, window: &Window) -> [Blocks; 2] {
    let [_, h, w] = MAP;
    let output = Blocks::of_map([out, h, w]);
    [BlockConv::input(MAP, window, &output), output]
}
