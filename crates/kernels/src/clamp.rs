//! The clamp that kernels apply to a value as they store it.

/// A clamp fused into the store of a kernel: ReLU and Clip. NaN passes through.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Clamp {
    /// The value itself.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, min), max)`.
    Clip {
        /// Smallest result.
        min: f32,
        /// Largest result.
        max: f32,
    },
}

impl Clamp {
    /// The clamp of one value.
    #[inline(always)]
    #[must_use]
    pub fn apply(self, v: f32) -> f32 {
        self.bounds().apply(v)
    }

    /// Lower and upper bound, infinite where there is none, so that kernels need no branch.
    #[inline(always)]
    pub(crate) fn bounds(self) -> Bounds {
        let (min, max) = match self {
            Self::None => (f32::NEG_INFINITY, f32::INFINITY),
            Self::Relu => (0.0, f32::INFINITY),
            Self::Clip { min, max } => (min, max),
        };
        Bounds { min, max }
    }
}

/// Bounds of a clamp. NaN passes through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub min: f32,
    pub max: f32,
}

impl Bounds {
    #[inline(always)]
    #[allow(
        clippy::manual_clamp,
        reason = "clamp panics where min > max; this compiles to max and min"
    )]
    pub fn apply(self, v: f32) -> f32 {
        let v = if v < self.min { self.min } else { v };
        if v > self.max { self.max } else { v }
    }
}
