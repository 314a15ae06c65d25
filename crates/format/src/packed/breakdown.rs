//! Which parts of a packed file take which bits.

/// Where the bits of a packed file go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PackedBreakdown {
    /// Magic, version, checksum, graph, names, shapes and scales, and what is left of the last byte.
    pub header: u64,
    /// How many non-zeros each unit has.
    pub liveness: u64,
    /// Where they are.
    pub positions: u64,
    /// Signs and magnitudes.
    pub values: u64,
    /// Biases.
    pub biases: u64,
}
