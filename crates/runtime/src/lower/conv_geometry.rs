//! Where the maps of a convolution lie: the blocks of its input and output, and borders that are refused.

use sparsevd_kernels::blocks::Blocks;
use sparsevd_kernels::conv_blocks::BlockConv;
use sparsevd_kernels::conv_rows::RowConv;
use sparsevd_kernels::{Isa, Layout, select};
use sparsevd_model::Window;

use super::context::Context;
use crate::error::RuntimeError;
use crate::lowered::WeightUse;
use crate::program::Step;

/// A window over an input of channels, height and width.
#[derive(Clone)]
pub(super) struct Geometry {
    pub window: Window,
    pub input: [usize; 3],
}

/// The input and output of a convolution in blocks.
pub(super) struct InBlocks {
    pub blocks: [Blocks; 2],
    /// The convolution over blocks: for a subsampled input one without strides.
    pub geometry: Geometry,
    /// The strides of a subsampled input.
    pub subsample: Option<[usize; 2]>,
}

/// The blocks of the input and output of a convolution, if it should run over blocks.
pub(super) fn in_blocks(
    context: &Context<'_>,
    step: &Step,
    used: Option<WeightUse>,
    geometry: &Geometry,
    sparse: bool,
) -> Option<InBlocks> {
    if let Some(subsampled) = subsampled(context, step, geometry) {
        return Some(subsampled);
    }
    if sparse && context.choice().layout != Layout::Single {
        return None;
    }
    let window = &geometry.window;
    let halo = halo(context, step);
    let [input, output] = match (context.layout(step.inputs[0]), step.maps()) {
        (Layout::Blocks(input), Some([_, map])) => {
            // Either the same lines, or the same grid, to which the conversion is shorter than through plain maps.
            let same = input
                .over(map, window.strides)
                .filter(|output| input.covers(&BlockConv::input(input.map(), window, output)));
            match same {
                Some(output) => [input, output],
                None => {
                    let output = input.alike(map);
                    [BlockConv::input(input.map(), window, &output), output]
                }
            }
        }
        _ => own_blocks(context.isa(), step, used, window, sparse)?,
    };
    Some(InBlocks {
        blocks: [input, output.with_halo(halo)],
        geometry: geometry.clone(),
        subsample: None,
    })
}

/// For a 1x1 convolution with strides whose input lies in blocks over which its windows do not move all at once: the blocks of the pixels that
/// it reads, and of the output of a convolution without strides over them.
fn subsampled(context: &Context<'_>, step: &Step, geometry: &Geometry) -> Option<InBlocks> {
    let (Layout::Blocks(from), Some([_, map])) = (context.layout(step.inputs[0]), step.maps())
    else {
        return None;
    };
    let window = &geometry.window;
    let moves = from.over(map, window.strides).is_some();
    let skips = window.kernel_shape == [1, 1] && window.strides != [1, 1];
    if moves || !skips || window.pads != [0; 4] {
        return None;
    }
    let output = from.alike(map);
    let input = output.with_channels(from.map()[0]);
    Some(InBlocks {
        blocks: [input, output.with_halo(halo(context, step))],
        geometry: Geometry {
            window: Window::square(1, 1),
            input: input.map(),
        },
        subsample: Some(window.strides),
    })
}

/// The blocks of input and output, without a halo of the output, of a convolution for which it is worth converting a plain input.
fn own_blocks(
    isa: Isa,
    step: &Step,
    used: Option<WeightUse>,
    window: &Window,
    sparse: bool,
) -> Option<[Blocks; 2]> {
    let [from, to] = step.maps()?;
    let used = used?;
    let [out, oh, ow] = to;
    let depthwise = used.elements == out * window.kernel_shape.iter().product::<usize>();
    let output = Blocks::of_map(to);
    let input = BlockConv::input(from, window, &output);
    let worth = if sparse {
        !RowConv::takes(window) || select::prefer_blocks(isa, used.nonzeros, &output)
    } else {
        select::prefer_dense_blocks(used.elements * oh * ow, input.len(), depthwise)
    };
    worth.then_some([input, output])
}

/// The halo of the output of a convolution: as wide as its consumers need, and as that of its residual, so that both have the same layout.
pub(super) fn halo(context: &Context<'_>, step: &Step) -> [usize; 4] {
    let needed = context.halos[step.output];
    match step.residual.map(|v| context.layout(v)) {
        Some(Layout::Blocks(residual)) => {
            let residual = residual.halo();
            std::array::from_fn(|i| needed[i].max(residual[i]))
        }
        _ => needed,
    }
}

/// Refuses a map that is mostly border: kernels keep places in it as offsets of 32 bits, and some keep the border itself.
pub(super) fn check_border(
    context: &Context<'_>,
    step: &Step,
    window: &Window,
    [_, height, width]: [usize; 3],
) -> Result<(), RuntimeError> {
    /// Pixels of a padded map that are always taken. A larger one may have at most `TIMES` times the pixels of the map.
    const MOST: usize = 1 << 20;
    const TIMES: usize = 16;
    let [top, left, bottom, right] = window.pads;
    let rows = height.saturating_add(top).saturating_add(bottom);
    let columns = width.saturating_add(left).saturating_add(right);
    let plain = height.saturating_mul(width);
    if rows.saturating_mul(columns) <= MOST.max(plain.saturating_mul(TIMES)) {
        return Ok(());
    }
    Err(RuntimeError::Unsupported {
        network: context.network.graph.name.clone(),
        what: "padding",
        expected: format!(
            "at most {MOST} pixels of a padded map, or {TIMES} times those of the map"
        ),
        got: format!(
            "{rows}x{columns} of {height}x{width} (node `{}`)",
            step.name
        ),
    })
}

/// Whether the image that an int8 convolution over a tile makes of its input, with the border, is not much larger than what it reads and writes.
pub(super) fn image_fits(window: &Window, [input, output]: [Blocks; 2]) -> bool {
    const MOST: usize = 1 << 24;
    let [channels, height, width] = input.map();
    let [top, left, bottom, right] = window.pads;
    let rows = height.saturating_add(top).saturating_add(bottom);
    let columns = width.saturating_add(left).saturating_add(right);
    let image = rows.saturating_mul(columns);
    let image = image.saturating_mul(channels);
    let plain: usize = [input, output]
        .map(|blocks| blocks.map().iter().product::<usize>())
        .iter()
        .sum();
    image <= plain.saturating_mul(4) && image <= MOST
}
