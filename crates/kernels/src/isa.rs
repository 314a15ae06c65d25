//! Capability tokens: an [`Isa`] can only be had on a machine that executes its instructions.

use std::fmt;

/// An instruction set that this machine has been checked to execute.
///
/// Values are only made by [`Isa::available`] and what builds on it, so holding one is the proof that guarded calls need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Isa(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Level {
    Scalar,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// An instruction set was asked for that does not exist or that this machine lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("SPARSE_ISA: expected one of {available}, which this machine has, got `{got}`")]
pub struct IsaError {
    got: String,
    available: String,
}

impl Isa {
    /// Plain Rust, on any machine.
    pub const SCALAR: Self = Self(Level::Scalar);

    /// What this machine has, the best last.
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

    /// The best that this machine has.
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::SCALAR)
    }

    /// The one that the environment variable `SPARSE_ISA` names (`scalar`, `avx2`, `avx512`, `neon`), else the best.
    ///
    /// # Errors
    /// When the variable names something this machine does not have.
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

    /// The name that kernels and `SPARSE_ISA` use.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
        }
    }

    #[allow(dead_code, reason = "only architectures with more than one level ask")]
    pub(crate) fn level(self) -> Level {
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
                    $crate::isa::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::isa::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::isa::Level::Scalar => {}
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
