//! What tests and benchmarks measure against: naive [`mod@reference`] kernels, an [`executor`] of
//! whole networks by them, generators of inputs ([`arbitrary`]) and of [`networks`], and tolerances ([`close`]).
#![forbid(unsafe_code)]

pub mod arbitrary;
pub mod close;
pub mod executor;
pub mod networks;
pub mod reference;
