//! Which operators map zero to zero.
//!
//! Maps in [`sparsevd_kernels::Layout::Blocks`] have zeros around them, which convolutions read as padding. Only operators that map zero to zero
//! may run over such maps.

use sparsevd_kernels::Clamp;

/// Whether a clamp maps zero to zero.
pub(crate) fn clamp_keeps_zero(clamp: Clamp) -> bool {
    clamp.apply(0.0) == 0.0
}
