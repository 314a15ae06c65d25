//! Sparse and dense CPU kernels for inference, and the loops of training. Each runs on an instruction set that was detected ([`Isa`]).
//!
//! A layer is packed once (`pack`) into a type whose `run` allocates nothing, takes no lock and decides nothing that depends
//! on sizes or density. Each `run` asserts the
//! lengths of its slices and panics where one is wrong.
//! Every packed type has a `name()`, `{isa}-{format}-{dtype}-{tile}`, and `bytes()`, the size of the packed weights.
//! [`PackedKernel`] is the common interface of all of them, of operators without weights too.
//!
//! | layer | sparse | dense |
//! |---|---|---|
//! | linear, batch 1 | [`spmv::Spmv`]; [`spmv::ByActivity`] where inputs may be mostly zero | [`dense::Gemv`] |
//! | linear, batched | [`spmm::Spmm`] over [`Layout::Tiled`] | [`panel_gemm::PanelGemm`] over [`Layout::Single`]; [`dense::Linear`] over [`Layout::Tiled`] |
//! | linear, batched, 8-bit activations | [`int8::Spmm`] | |
//! | convolution | [`conv::SparseConv`]; [`conv_rows::RowConv`] over [`Layout::Single`]; [`conv_blocks::BlockConv`] over [`Layout::Blocks`] | [`dense::Conv`] over [`Layout::Single`]; [`dense_blocks::DenseBlockConv`], [`depthwise::Depthwise`] over [`Layout::Blocks`] |
//! | pooling | | [`pool::Pool`]; [`pool_blocks::BlockPool`] over [`Layout::Blocks`] |
//! | normalisation, values per channel | | [`channels`] over [`Layout::Single`] and [`Layout::Tiled`] |
//! | layer normalisation | | [`layer_norm`] over [`Layout::Single`] and [`Layout::Tiled`] |
//! | parametric ReLU | | [`prelu`] over every layout |
//! | transposition of axes | | [`axes`] over [`Layout::Single`] |
//! | attention | | [`attention`] over [`Layout::Single`] |
//! | products of two values | | [`mat_mul`] over [`Layout::Single`] |
//! | copies along dimensions | | [`expand`] over [`Layout::Single`] |
//! | means of vectors, vectors of length 1 | | [`reduce`] over [`Layout::Single`] |
//! | rows of a table | | [`embedding`] over [`Layout::Single`] |
//! | padding, concatenation, parts | | [`place`] over [`Layout::Single`] and [`Layout::Tiled`] |
//! | the rest | | [`elementwise`], [`Activation`] |
//!
//! **Layouts.** Activations are f32, but for those of [`int8`]: [`Layout::Single`], one sample after the other; [`Layout::Tiled`], sixteen samples innermost; or
//! [`Layout::Blocks`], each map cut into sixteen spatial [`blocks`], one per SIMD lane, of floats or in [`Layout::Bytes`]. [`pack_tiles`], [`unpack_tiles`] and
//! [`blocks::Blocks::pack`] convert between them, best at the edge of a network. In a tile, lanes past the last sample start as zeros;
//! their results are computed and ignored. Kernels apply a [`Clamp`] as they store.
//! A buffer should begin at a cache line ([`Buffer`]), and so should every activation in it.
//!
//! **Threads.** Kernels run on the calling thread. Samples and tiles are independent, so threads can take slices of a batch. One sample is split by output rows:
//! `pack_rows`, `pack_channels` and `part` pack some of the rows, whose `run` writes only their part of the output, with the bits that they have
//! in the whole. One call can be split by samples, elements or queries ([`PackedKernel::call_split`]), and a map in blocks by lines ([`bands`]): each thread computes all channels of its lines.
//!
//! **NaN and infinity** stay local: an output of a sparse kernel depends only on the inputs that its non-zero weights multiply. Where one of these
//! is infinite, the output is infinite or NaN.
//!
//! [`select`] chooses between kernels (how a kernel stores weights it decides itself), [`cost`] holds the times that are compared, and [`tune`] measures those times. This is the only crate of the project with `unsafe`.

mod activation;
pub mod attention;
pub mod axes;
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
mod edges;
pub mod elementwise;
pub mod embedding;
pub mod expand;
mod exponential;
pub mod gemm;
mod input_sparse;
pub mod int8;
mod isa;
pub mod kernel;
pub mod layer_norm;
mod layout;
mod length;
pub mod mat_mul;
mod math;
pub mod panel_gemm;
pub mod peak;
mod permute;
pub mod place;
pub mod pool;
pub mod pool_blocks;
mod precision;
pub mod prelu;
pub mod reblock;
pub mod reduce;
pub mod reorder;
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
