//! Buffers that are used again.

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
