//! What tests and benchmarks measure against: naive [`mod@reference`] kernels, generators of inputs ([`arbitrary`]) and tolerances ([`close`]).
#![forbid(unsafe_code)]

pub mod arbitrary;
pub mod close;
pub mod reference;
