//! How numbers are multiplied: sparse and dense CPU kernels, chosen once through a capability token ([`Isa`]).
//!
//! A layer is packed once, by a constructor that takes the checked weights (`pack`), into a type whose `run` neither
//! allocates, locks nor decides anything. Lengths are asserted at the entry of each `run`; a wrong one is a bug of the caller and panics.
//! Every packed type has a `name()`, `{isa}-{format}-{dtype}-{tile}`, and `bytes()`, the packed weights it reads.
//! [`PackedKernel`] is the interface that all of them have in common, operators without weights included.
//!
//! | layer | sparse | dense |
//! |---|---|---|
//! | linear, batch 1 | [`spmv::Spmv`]; [`spmv::ByActivity`] where inputs may be mostly zero | [`dense::Gemv`] |
//! | linear, batched | [`spmm::Spmm`] over [`Layout::Tiled`] | [`dense::Linear`] over [`Layout::Single`] |
//! | convolution | [`conv::SparseConv`]; [`conv_rows::RowConv`] over [`Layout::Single`]; [`conv_blocks::BlockConv`] over [`Layout::Blocks`] | [`dense::Conv`] over [`Layout::Single`]; [`dense_blocks::DenseBlockConv`], [`depthwise::Depthwise`] over [`Layout::Blocks`] |
//! | pooling | | [`pool::Pool`]; [`pool_blocks::BlockPool`] over [`Layout::Blocks`] |
//! | normalisation, values per channel | | [`channels`] over [`Layout::Single`] and [`Layout::Tiled`] |
//! | borders, concatenation | | [`place`] over the same |
//! | the rest | | [`elementwise`], [`Activation`] |
//!
//! **Layouts.** Activations are f32: [`Layout::Single`], sample after sample, [`Layout::Tiled`], sixteen samples innermost, or
//! [`Layout::Blocks`], maps of single samples cut into sixteen [`blocks`]. [`pack_tiles`], [`unpack_tiles`] and [`blocks::Blocks::pack`] go
//! between them and belong at the edge of a network. Lanes past the last sample hold zeros
//! at first; what later layers make of them is never read back. [`Clamp`]s are fused into the stores.
//! Buffers should begin at a cache line ([`Buffer`]) and so should every activation in them.
//!
//! **Threads.** Kernels run on the calling thread. Samples and tiles are independent, so a batch splits by slices. One sample splits by rows:
//! the `pack_rows` and `pack_channels` constructors pack a range of rows, which then writes its own part of the output; or by lines
//! of maps in blocks ([`bands`]), each thread some of them with all channels.
//!
//! **NaN and infinity** stay local: an output only depends on the inputs under its own non-zeros.
//!
//! [`select`] holds every threshold, and [`cost`] what kernels cost, which [`tune`] measures. This is the only crate of the project with `unsafe`.

mod activation;
pub mod bands;
pub mod blocks;
mod buffer;
pub mod channels;
mod clamp;
pub mod conv;
pub mod conv_blocks;
pub mod conv_rows;
mod copy;
pub mod cost;
pub mod dense;
pub mod dense_blocks;
mod dense_conv;
pub mod depthwise;
pub mod elementwise;
mod exponential;
pub mod gemm;
mod input_sparse;
mod isa;
pub mod kernel;
mod layout;
mod math;
pub mod peak;
mod permute;
pub mod place;
pub mod pool;
pub mod pool_blocks;
mod precision;
pub mod reblock;
pub mod select;
mod sell;
mod sell_vector;
mod simd;
pub mod spmm;
pub mod spmv;
mod table;
pub mod training;
mod transpose;
pub mod tune;

pub use activation::{Activation, ActivationKernel};
pub use buffer::Buffer;
pub use clamp::Clamp;
pub use copy::CopyKernel;
pub use isa::{Isa, IsaError, Level};
pub use kernel::PackedKernel;
pub use layout::{LANES, Layout, Pack, UnpackTiles, pack_tiles, tiles, unpack_tiles};
pub use precision::Precision;
