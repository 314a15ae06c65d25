//! Instruction sets: an [`Isa`] exists only on a machine that executes its instructions.

use std::fmt;

/// An instruction set that this machine has been checked to execute.
///
/// Apart from [`Isa::SCALAR`], only [`Isa::available`] and the functions that use it return values. So a value proves that a function compiled for its features may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Isa(Level);

/// The instruction sets for which there are kernels, of all architectures.
///
/// Tables of tile sizes and names match on it without a wildcard, so that a new level does not compile until each has an entry for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust, compiled for the baseline of the target.
    Scalar,
    /// The 128-bit vectors of aarch64.
    Neon,
    /// AVX2, FMA and F16C.
    Avx2,
    /// [`Level::Avx2`] and AVX-512 F, BW, DQ and VL.
    Avx512,
}

/// A kernel's name, `"{isa}-{rest}"`, as a literal.
macro_rules! kernel_name {
    ($level:expr, $rest:literal) => {
        match $level {
            $crate::Level::Scalar => concat!("scalar-", $rest),
            $crate::Level::Neon => concat!("neon-", $rest),
            $crate::Level::Avx2 => concat!("avx2-", $rest),
            $crate::Level::Avx512 => concat!("avx512-", $rest),
        }
    };
}
pub(crate) use kernel_name;

impl Level {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512];

    /// The name in kernels' names and in `SPARSE_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Floats in a vector; of plain Rust, those that a kernel gives the compiler to vectorise.
    pub const fn lanes(self) -> usize {
        match self {
            Self::Neon => 4,
            Self::Avx2 => 8,
            Self::Scalar | Self::Avx512 => 16,
        }
    }
}

/// A name that is not that of an instruction set of this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("SPARSE_ISA: expected one of {available}, which this machine has, got `{got}`")]
pub struct IsaError {
    got: String,
    available: String,
}

impl Isa {
    /// Plain Rust, which any machine runs.
    pub const SCALAR: Self = Self(Level::Scalar);

    /// The instruction sets of this machine, the best last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other architectures push")]
        let mut all = vec![Self(Level::Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            if has_avx2 {
                all.push(Self(Level::Avx2));
            }
            if has_avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                all.push(Self(Level::Avx512));
            }
        }
        #[cfg(target_arch = "aarch64")]
        all.push(Self(Level::Neon));
        all
    }

    /// The best instruction set of this machine.
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::SCALAR)
    }

    /// The instruction set that the environment variable `SPARSE_ISA` names (`scalar`, `avx2`, `avx512`, `neon`); the best if it is not set.
    ///
    /// # Errors
    /// When this machine does not have it.
    pub fn from_env() -> Result<Self, IsaError> {
        match std::env::var("SPARSE_ISA") {
            Ok(name) => Self::by_name(&name),
            Err(_) => Ok(Self::best()),
        }
    }

    /// The instruction set of that name.
    ///
    /// # Errors
    /// When this machine does not have it.
    pub fn by_name(name: &str) -> Result<Self, IsaError> {
        let all = Self::available();
        all.iter()
            .copied()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| IsaError {
                got: name.into(),
                available: all.iter().map(|i| i.name()).collect::<Vec<_>>().join(", "),
            })
    }

    /// The name in kernels' names and in `SPARSE_ISA`.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Which instruction set it is.
    pub fn level(self) -> Level {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Makes a function that runs one `#[inline(always)]` body compiled for the instruction set of its first argument.
///
/// `multiversion!(pub fn scale[T: Real](x: &mut [T], by: T) = scale_body::<T>;)` defines
/// `pub fn scale<T: Real>(isa: Isa, x: &mut [T], by: T)`. The body is plain Rust that the compiler vectorises for each
/// set; the brackets are left out where there is no type parameter.
macro_rules! multiversion {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $([$generic:ident: $bound:path])? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:expr;
    ) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
        $vis fn $name $(<$generic: $bound>)? (isa: $crate::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
                #[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
                fn avx512 $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
                fn avx2 $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                match isa.level() {
                    // SAFETY: an `Isa` of this level is only made where the features were detected.
                    $crate::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: an `Isa` of this level is only made where the features were detected.
                    $crate::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::Level::Scalar => {}
                    $crate::Level::Neon => unreachable!("x86-64 has no NEON"),
                }
            }
            // NEON is part of the aarch64 baseline, so the body needs no guard there.
            #[cfg(not(target_arch = "x86_64"))]
            let _ = isa;
            $body($($arg),*)
        }
    };
}
pub(crate) use multiversion;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_names_begin_with_the_name_of_their_level() {
        for level in Level::ALL {
            assert_eq!(
                kernel_name!(level, "gemv-f32-4x1"),
                format!("{}-gemv-f32-4x1", level.name())
            );
        }
    }

    #[test]
    fn names_find_what_the_machine_has_and_nothing_else() {
        for isa in Isa::available() {
            assert_eq!(Isa::by_name(isa.name()), Ok(isa));
        }
        let error = Isa::by_name("avx1024").unwrap_err().to_string();
        assert!(
            error.contains("`avx1024`") && error.contains("scalar"),
            "{error}"
        );
    }
}
