//! Kernels of pooling.

use sparsevd_kernels::pool::{Pool, Reduction};
use sparsevd_kernels::pool_blocks::{BlockPool, GlobalPool};
use sparsevd_kernels::{Layout, int8, select};

use super::candidate::Candidate;
use super::context::Context;
use super::partition::split;
use crate::error::RuntimeError;
use crate::lowered::Part;
use crate::program::Step;

/// One kernel: in bytes where the input is and the output should be; over blocks where the input is in blocks that suit the window, else over single samples or tiles.
pub(super) fn candidates<'a>(
    context: &Context<'_>,
    step: &Step,
    reduction: Reduction,
) -> Result<Vec<Candidate<'a>>, RuntimeError> {
    let isa = context.isa();
    let layout = context.layout(step.inputs[0]);
    let features = step.output_shape.elements();
    let &[c, h, w] = step.input_shape.dims() else {
        return Err(context.no_map(step));
    };
    let window = step.op.operator().window();
    if let (Layout::Bytes(input, grid), Some(window), Reduction::Max) =
        (context.values[step.inputs[0]].layout, window, reduction)
        && context.byte_grids[step.output] == Some(grid)
        && let Some(output) = BlockPool::output(window, &input)
    {
        let output = output.with_halo(context.halos[step.output]);
        let layouts = [Layout::Bytes(input, grid), Layout::Bytes(output, grid)];
        let parts = select::parts(16 * features, context.batching.parts.min(c));
        let part = |channels: std::ops::Range<usize>| {
            let blocks = [input, output].map(|b| b.with_channels(channels.len()));
            let features = blocks[1].byte_len();
            let kernel = int8::MaxPool::new((isa, int8::Dot::of(isa)), window, blocks, grid);
            Part::whole(kernel, features)
        };
        let parts = split(&vec![1; c], parts).into_iter().map(part).collect();
        return Ok(vec![Candidate::between(layouts, move || parts)]);
    }
    if let (Layout::Blocks(input), Some(window)) = (layout, window)
        && let Some(output) = BlockPool::output(window, &input)
    {
        let output = output.with_halo(context.halos[step.output]);
        let kernel = BlockPool::new(isa, reduction, window, [input, output]);
        let layouts = [layout, Layout::Blocks(output)];
        return Ok(vec![Candidate::whole(layouts, kernel, features)]);
    }
    if let Layout::Blocks(blocks) = layout
        && window.is_none_or(|window| window.is_whole(h, w))
    {
        let kernel = GlobalPool::new(isa, reduction, blocks);
        let layouts = [layout, Layout::Single];
        return Ok(vec![Candidate::whole(layouts, kernel, features)]);
    }
    let layout = match layout {
        Layout::Blocks(_) => Layout::Single,
        layout => layout,
    };
    let kernel = match window {
        Some(window) => Pool::new(isa, reduction, layout, window, [c, h, w]),
        None => Pool::global(isa, reduction, layout, [c, h, w]),
    };
    Ok(vec![Candidate::whole([layout, layout], kernel, features)])
}
