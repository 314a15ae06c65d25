//! Buffers that are used again.

use sparsevd_kernels::training::Real;

/// The first `len` elements of a buffer, which grows where it is shorter; earlier contents are kept.
pub(crate) fn sized<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}

/// Buffers of a pass of a convolution over planes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Planes<T> {
    /// The input, and its squares.
    pub input: [Vec<T>; 2],
    /// Gradients by means and by variances of the output.
    pub output: [Vec<T>; 2],
    /// Filters of means and of variances, as a pass needs them.
    pub filters: [Vec<T>; 2],
    /// Their gradients.
    pub sums: [Vec<T>; 2],
    /// Gradients by the variances of one image, and by the squares of its input.
    pub variance: Vec<T>,
    pub map: Vec<T>,
}

impl<T> Planes<T> {
    /// Forgets the planes of another layer.
    pub fn start(&mut self) {
        self.input[0].clear();
        self.output.iter_mut().for_each(Vec::clear);
    }
}

/// Where vectors are loaded fast: none lies in two cache lines.
const ALIGNMENT: usize = 64;

/// A buffer that begins at a cache line.
#[derive(Debug, Default)]
pub(crate) struct Aligned<T> {
    numbers: Vec<T>,
    first: usize,
}

impl<T: Real> Aligned<T> {
    /// The first `len` numbers. They are those of before, or all zero where the buffer was shorter and grows.
    pub fn sized(&mut self, len: usize) -> &mut [T] {
        if self.numbers.len() < self.first + len {
            self.numbers.clear();
            let padding = ALIGNMENT / size_of::<T>();
            self.numbers.resize(len + padding, T::default());
            self.first = self.numbers.as_ptr().align_offset(ALIGNMENT);
        }
        &mut self.numbers[self.first..][..len]
    }

    /// What was [sized](Self::sized), and perhaps more behind it.
    pub fn read(&self) -> &[T] {
        &self.numbers[self.first..]
    }
}
