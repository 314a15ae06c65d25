//! Which values should be written in bytes.

use sparsevd_kernels::int8::Grid;
use sparsevd_model::{Network, Op};

use crate::options::{Int8Mode, PlanOptions, WeightMode};
use crate::program::Program;

/// For each value the grid in whose bytes it should be written: where all that read it are int8 convolutions, as their input, of which there is one at
/// least, or as what they add, or max-poolings whose output should be, too. What reads it in floats after all gets the numbers of the bytes.
pub(super) fn byte_grids(
    program: &Program,
    network: &Network,
    options: &PlanOptions,
) -> Vec<Option<Grid>> {
    let mut grids = vec![None; program.values.len()];
    if options.int8 == Int8Mode::Never || options.weights == WeightMode::Dense {
        return grids;
    }
    let mut in_floats = vec![false; program.values.len()];
    for output in &program.outputs {
        in_floats[output.value] = true;
    }
    // Readers before what they read.
    for step in program.steps.iter().rev() {
        let grid = match step.op {
            Op::MaxPool(_) if !in_floats[step.output] => grids[step.output],
            Op::Conv(_) => {
                let input = network.int8.inputs.get(&step.name);
                input.and_then(|input| input.grid()).map(Grid::from)
            }
            _ => None,
        };
        match (grid, &step.inputs[..]) {
            (Some(grid), &[input]) => match grids[input] {
                Some(other) if other != grid => in_floats[input] = true,
                _ => grids[input] = Some(grid),
            },
            _ => {
                for value in step.reads() {
                    in_floats[value] = true;
                }
            }
        }
    }
    for (grid, in_floats) in grids.iter_mut().zip(in_floats) {
        if in_floats {
            *grid = None;
        }
    }
    grids
}
