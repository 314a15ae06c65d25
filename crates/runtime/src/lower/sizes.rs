//! Sizes of maps and activations that no memory holds. They are refused before any work, so that products of sizes do not wrap behind these checks.

use sparsevd_kernels::LANES;
use sparsevd_kernels::blocks::Blocks;
use sparsevd_model::Network;

use crate::error::RuntimeError;
use crate::lowered::{LoweredProgram, Tensor};
use crate::options::PlanOptions;
use crate::program::Program;

/// Most elements of a value of one sample, with the borders that windows need and the lanes of a layout: thousands of times those of any machine.
const MOST_ELEMENTS: usize = 1 << 48;

/// Checks the values of a program; `halos` are those of its values.
///
/// # Errors
/// [`RuntimeError::Unsupported`], which names the node.
pub(super) fn check_values(
    program: &Program,
    network: &Network,
    halos: &[[usize; 4]],
) -> Result<(), RuntimeError> {
    // A map in blocks has the widest border that any of its consumers needs, so borders of different windows may come together.
    let mut borders = [0_usize; 2];
    let mut widen = |sides: [usize; 4]| {
        for d in 0..2 {
            borders[d] = borders[d].max(sides[d].saturating_add(sides[d + 2]));
        }
    };
    halos.iter().copied().for_each(&mut widen);
    for step in &program.steps {
        if let Some(window) = step.without_pool().op.operator().window() {
            let [down, right] = window.strides;
            widen(window.pads);
            widen(Blocks::halo_of(window));
            widen([down, right, 0, 0]);
        }
    }
    let inputs = program.inputs.iter().map(|i| (&i.name, i.value));
    let outputs = program.steps.iter().map(|s| (&s.name, s.output));
    for (name, value) in inputs.chain(outputs) {
        let shape = &program.values[value].shape;
        let border = |d: usize| match shape.dims().len() {
            3 if d > 0 => borders[d - 1].saturating_add(LANES),
            _ => 0,
        };
        let sides = shape.dims().iter().enumerate();
        let sides = sides.map(|(d, n)| n.saturating_add(border(d)).max(1));
        let elements = sides.fold(LANES, usize::saturating_mul);
        if elements > MOST_ELEMENTS {
            let [rows, columns] = borders;
            return Err(RuntimeError::Unsupported {
                network: network.graph.name.clone(),
                what: "size of a value",
                expected: format!("at most {MOST_ELEMENTS} elements with borders and lanes"),
                got: format!(
                    "{shape} with borders of {rows} rows and {columns} columns (`{name}`)"
                ),
            });
        }
    }
    Ok(())
}

/// Checks the memory of all values of a block together.
///
/// # Errors
/// [`RuntimeError::Option`] for a batch whose values no memory holds.
pub(super) fn check_memory(
    program: &LoweredProgram,
    options: &PlanOptions,
) -> Result<(), RuntimeError> {
    // Lanes past the last sample of a block are stored too.
    let samples = program.block as u128 + LANES as u128;
    let bytes = |v: &Tensor| v.extent().bytes(1, program.length) as u128 * samples;
    let bytes: u128 = program.values.iter().map(bytes).sum();
    if bytes <= isize::MAX as u128 {
        return Ok(());
    }
    Err(RuntimeError::Option {
        option: "batch",
        expected: format!("activations of at most {} bytes", isize::MAX),
        got: format!("{bytes} for batch {}", options.batch),
    })
}
