//! Buffers that are used again.

/// The first `len` elements of a buffer, which grows where it is shorter; earlier contents are kept.
pub(crate) fn sized<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}
