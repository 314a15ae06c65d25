//! Memory for activations.

use std::ops::{Deref, DerefMut};

/// Zero-initialised floats that begin at a cache line.
///
/// Kernels take any slice, but take half as long again where vectors straddle cache lines. So activations should lie in a buffer, at offsets
/// that are multiples of sixteen.
#[derive(Clone, Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Buffer {
    /// `len` zeros.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self {
            lines: vec![Line([0.0; 16]); len.div_ceil(16)],
            len,
        }
    }

    /// The same memory as bytes, for activations of bytes ([`crate::int8`]).
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: floats have no padding, and any byte of them is a valid byte.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), size_of_val(&self[..])) }
    }

    /// As [`Buffer::bytes`], to write to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = size_of_val(&self[..]);
        // SAFETY: as in `bytes`, and any four bytes are a float; the floats are borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), len) }
    }
}

impl From<&[f32]> for Buffer {
    fn from(values: &[f32]) -> Self {
        let mut buffer = Self::zeroed(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: a `Line` is sixteen floats without padding, and there are at least `len / 16` of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`; the lines are borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_floats() {
        let mut buffer = Buffer::from(&[1.5, -2.0, 0.25][..]);
        buffer.bytes_mut()[4..8].copy_from_slice(&7.0_f32.to_ne_bytes());
        assert_eq!(buffer[..], [1.5, 7.0, 0.25]);
        let bytes = [1.5, 7.0, 0.25].map(f32::to_ne_bytes);
        assert_eq!(buffer.bytes(), bytes.as_flattened());
        assert!(Buffer::zeroed(0).bytes().is_empty());
    }
}
