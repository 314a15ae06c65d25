//! Values with their axes in another order.

#[cfg(target_arch = "x86_64")]
use crate::Level;
use crate::cost::Costs;
use crate::kernel::{Operands, PackedKernel, Workload};
#[cfg(target_arch = "x86_64")]
use crate::transpose;
use crate::{Isa, length};

/// Rows and columns that are moved together, so that both sides use whole cache lines.
const SIDE: usize = 16;

/// Transposes each sample: axis `i` of the output is axis `perm[i]` of the input, over [`crate::Layout::Single`].
#[derive(Debug, Clone)]
pub struct Transpose {
    isa: Isa,
    /// Elements of a sample.
    elements: usize,
    /// Size of each axis of the output and its stride in the input, in elements; axes that stay together are one.
    axes: Vec<Axis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    size: usize,
    stride: usize,
}

impl Transpose {
    /// # Panics
    /// When `perm` does not have each axis of `dims` once, or no slice can hold a sample.
    #[track_caller]
    pub fn new(isa: Isa, dims: &[usize], perm: &[usize]) -> Self {
        let each_once = perm.len() == dims.len() && (0..dims.len()).all(|i| perm.contains(&i));
        assert!(
            each_once,
            "axes: expected each of {}, got {perm:?}",
            dims.len()
        );
        let mut elements = 1;
        let mut strides = vec![0; dims.len()];
        for (stride, &size) in strides.iter_mut().zip(dims).rev() {
            *stride = elements;
            elements = length::planned("a sample", [elements, size]);
        }
        let mut axes: Vec<Axis> = Vec::new();
        for &p in perm.iter().filter(|&&p| dims[p] != 1) {
            let (size, stride) = (dims[p], strides[p]);
            match axes.last_mut() {
                Some(before) if before.stride == size * stride => {
                    before.size *= size;
                    before.stride = stride;
                }
                _ => axes.push(Axis { size, stride }),
            }
        }
        Self {
            isa,
            elements,
            axes,
        }
    }

    /// Transposes the samples of `x` into `y`.
    ///
    /// # Panics
    /// When `x` does not hold whole samples, or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32]) {
        let samples = x.len().checked_div(self.elements).unwrap_or(0);
        length::check("x", x.len(), [samples, self.elements]);
        length::check("y", y.len(), [x.len()]);
        if x.is_empty() {
            return;
        }
        for (x, y) in x
            .chunks_exact(self.elements)
            .zip(y.chunks_exact_mut(self.elements))
        {
            transposed(self.isa, &self.axes, x, y);
        }
    }
}

/// One sample, or the part of it from an index of outer axes on.
fn transposed(isa: Isa, axes: &[Axis], x: &[f32], y: &mut [f32]) {
    match axes {
        [] => y.copy_from_slice(&x[..y.len()]),
        [Axis { stride: 1, .. }] => y.copy_from_slice(&x[..y.len()]),
        &[Axis { stride, .. }] => {
            for (y, x) in y.iter_mut().zip(x.iter().step_by(stride)) {
                *y = *x;
            }
        }
        // The rows of a matrix in the input are the columns of one in the output.
        &[
            Axis {
                size: rows,
                stride: 1,
            },
            Axis {
                size: columns,
                stride,
            },
        ] => {
            matrix(isa, [rows, columns], stride, x, y);
        }
        [outer, inner @ ..] => {
            let part = y.len() / outer.size;
            for (i, y) in y.chunks_exact_mut(part).enumerate() {
                transposed(isa, inner, &x[i * outer.stride..], y);
            }
        }
    }
}

/// `y[r][c] = x[c * stride + r]` for `rows` by `columns`, a tile after the other.
fn matrix(isa: Isa, [rows, columns]: [usize; 2], stride: usize, x: &[f32], y: &mut [f32]) {
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    let y = &mut y[..rows * columns];
    let x = &x[..(columns - 1) * stride + rows];
    for row in (0..rows).step_by(SIDE) {
        for column in (0..columns).step_by(SIDE) {
            let [height, width] = [rows - row, columns - column].map(|n| n.min(SIDE));
            #[cfg(target_arch = "x86_64")]
            if isa.level() == Level::Avx512 {
                // SAFETY: an `Isa` of this level is only made where the features were detected. The slices above end with the last row
                // that is read and the last that is written, and the tile lies in them.
                unsafe {
                    let from = x.as_ptr().add(column * stride + row);
                    let to = y.as_mut_ptr().add(row * columns + column);
                    transpose::transpose(from, stride, [width, height], to, columns, width);
                }
                continue;
            }
            for r in row..row + height {
                let line = &mut y[r * columns..][..columns];
                for c in column..column + width {
                    line[c] = x[c * stride + r];
                }
            }
        }
    }
}

impl PackedKernel for Transpose {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.y);
    }

    fn name(&self) -> String {
        "transpose-f32".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }
}
