//! How a machine multiplies int8: a [`Dot`] exists only on a machine that executes its instructions.

use std::fmt;

#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx2Vnni, Avx512Vnni};
use super::lanes::{Lanes, SAMPLES, Scalar};
#[cfg(target_arch = "aarch64")]
use super::lanes::{Neon, NeonDot};
use crate::cost::{Costs, Int8Costs, Int8Shares};
use crate::{Isa, Level};

/// An instruction set with its instructions for products of bytes, which this machine has been checked to execute.
///
/// These instructions are detected apart from [`Level`], so that kernels in f32 do not depend on them. All give the same results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dot(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, reason = "other architectures have only `Scalar`")
)]
enum Kind {
    Scalar,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx2Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Dot {
    /// Plain Rust, which any machine runs.
    pub const SCALAR: Self = Self(Kind::Scalar);

    /// Those of this machine, the best last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other architectures push")]
        let mut all = vec![Self::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            let levels: Vec<Level> = Isa::available().iter().map(|isa| isa.level()).collect();
            if levels.contains(&Level::Avx2) {
                all.push(Self(Kind::Avx2));
                if is_x86_feature_detected!("avxvnni") {
                    all.push(Self(Kind::Avx2Vnni));
                }
            }
            let counts_bits = is_x86_feature_detected!("popcnt");
            if levels.contains(&Level::Avx512)
                && counts_bits
                && is_x86_feature_detected!("avx512vnni")
            {
                all.push(Self(Kind::Avx512Vnni));
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            all.push(Self(Kind::Neon));
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                all.push(Self(Kind::NeonDot));
            }
        }
        all
    }

    /// The best of this machine.
    pub fn best() -> Self {
        Self::of(Isa::best())
    }

    /// The best that needs no more than `isa` besides the instructions for products of bytes: those of AVX2 where AVX-512 lacks them.
    pub fn of(isa: Isa) -> Self {
        let all = Self::available().into_iter();
        let mut within = all.filter(|dot| dot.level() <= isa.level());
        within.next_back().unwrap_or(Self::SCALAR)
    }

    /// The instruction set to which the instructions for products of bytes are added.
    pub fn level(self) -> Level {
        match self.0 {
            Kind::Scalar => Level::Scalar,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => Level::Neon,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx2Vnni => Level::Avx2,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => Level::Avx512,
        }
    }

    /// The name in kernels' names.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => "neondot",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2Vnni => "avx2vnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512vnni",
        }
    }

    /// Bytes of a line: one feature of [`SAMPLES`] samples, in each form that the kernels read.
    pub fn line(self) -> usize {
        let forms = match self.0 {
            Kind::Scalar => Scalar::FORMS,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => Neon::FORMS,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx2Vnni => Avx2::FORMS,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => Avx512Vnni::FORMS,
        };
        forms * SAMPLES
    }

    /// Rows of output whose sums are a vector.
    pub(super) fn rows_at_once(self) -> usize {
        match self.0 {
            Kind::Scalar => Scalar::N,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => Neon::N,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx2Vnni => Avx2::N,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => Avx512Vnni::N,
        }
    }

    /// Whether kernels have registers for the sums of several rows or filters.
    pub(crate) fn has_many_registers(self) -> bool {
        match self.0 {
            Kind::Scalar => Scalar::TWO_ROWS,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => Neon::TWO_ROWS,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx2Vnni => Avx2::TWO_ROWS,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => Avx512Vnni::TWO_ROWS,
        }
    }

    /// Whether an instruction puts bytes in the places of set bits.
    pub(super) fn expands(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => is_x86_feature_detected!("avx512vbmi2"),
            _ => false,
        }
    }

    /// Whether an instruction takes bytes from any places of 128.
    pub fn looks_up(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => is_x86_feature_detected!("avx512vbmi"),
            _ => false,
        }
    }

    /// What products of bytes cost: as measured, else by [`Dot::shares`].
    pub fn costs(self, costs: &Costs) -> Int8Costs {
        costs.int8.unwrap_or_else(|| self.shares().of(costs))
    }

    /// Times of multiply-adds of bytes over those of the f32 kernels of the same level, as measured on one machine (`docs/kernels.md`); more than one where
    /// that was not measured, or is slower.
    pub fn shares(self) -> Int8Shares {
        let [spmm, all] = match self.0 {
            Kind::Scalar => [2.0, 2.0],
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => [2.0, 2.0],
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => [0.75, 0.4],
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2Vnni | Kind::Avx512Vnni => [0.5, 0.12],
        };
        Int8Shares {
            spmm,
            conv: spmm * 0.8,
            all,
        }
    }

    /// What the instructions subtract from each byte of the input before they multiply it.
    pub(super) fn subtracted(self) -> i32 {
        match self.0 {
            // Their instructions multiply two signed bytes.
            #[cfg(target_arch = "aarch64")]
            Kind::Neon | Kind::NeonDot => 128,
            _ => 0,
        }
    }

    /// Whether sums of the products of two neighbouring bytes saturate at 16 bits.
    pub(super) fn saturates(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => true,
            _ => false,
        }
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A loop over lanes, which [`run`] compiles for each [`Dot`].
pub(super) trait Task {
    /// The loop. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The instructions of `L` must be enabled where this is inlined, and what the task says of its pointers must hold.
    unsafe fn run<L: Lanes>(self);
}

/// Runs a task with the instructions of `dot`.
///
/// # Safety
/// What the task says of its pointers must hold.
pub(super) unsafe fn run<T: Task>(dot: Dot, task: T) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn avx512vnni<T: Task>(task: T) {
        // SAFETY: the caller keeps the task's contract; the instruction set is enabled here.
        unsafe { task.run::<Avx512Vnni>() }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    unsafe fn avx2vnni<T: Task>(task: T) {
        // SAFETY: the caller keeps the task's contract; the instruction set is enabled here.
        unsafe { task.run::<Avx2Vnni>() }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<T: Task>(task: T) {
        // SAFETY: the caller keeps the task's contract; the instruction set is enabled here.
        unsafe { task.run::<Avx2>() }
    }
    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn neondot<T: Task>(task: T) {
        // SAFETY: the caller keeps the task's contract; the instruction set is enabled here.
        unsafe { task.run::<NeonDot>() }
    }
    // SAFETY: the caller keeps the task's contract; a `Dot` exists only where its instructions were detected, and NEON is part of every aarch64.
    unsafe {
        match dot.0 {
            Kind::Scalar => task.run::<Scalar>(),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => task.run::<Neon>(),
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => neondot(task),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => avx2(task),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2Vnni => avx2vnni(task),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => avx512vnni(task),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_isa_gets_the_instructions_of_a_higher_one() {
        for isa in Isa::available() {
            assert!(Dot::of(isa).level() <= isa.level(), "{isa}");
        }
        assert_eq!(Dot::of(Isa::SCALAR), Dot::SCALAR);
        assert_eq!(Some(&Dot::best()), Dot::available().last());
    }

    #[test]
    fn names_begin_with_the_name_of_their_level() {
        for dot in Dot::available() {
            assert!(dot.name().starts_with(dot.level().name()), "{dot}");
        }
    }
}
