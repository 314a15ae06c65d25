//! What tests and benchmarks measure against: naive [`mod@reference`] kernels, an [`executor`] of
//! whole networks by them, generators of inputs ([`arbitrary`]) and of [`networks`], tolerances ([`close`]), and checksums of [`checkpoint`]s.
#![forbid(unsafe_code)]

pub mod arbitrary;
pub mod checkpoint;
pub mod close;
pub mod executor;
pub mod networks;
pub mod reference;

/// A number that an environment variable sets, by which tests run for longer or on other inputs.
///
/// # Panics
/// When the variable is no number.
pub fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        let number = text.parse();
        number.unwrap_or_else(|_| panic!("{name}: expected a number, got {text:?}"))
    })
}
