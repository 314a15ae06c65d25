//! What tests and benchmarks measure against: naive [`mod@reference`] kernels, generators of inputs ([`arbitrary`]) and of
//! whole [`networks`], and tolerances ([`close`]).
#![forbid(unsafe_code)]

pub mod arbitrary;
pub mod close;
pub mod networks;
pub mod reference;
