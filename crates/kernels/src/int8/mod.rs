//! Products of 8-bit weights and activations with 32-bit sums.
//!
//! **Numbers.** A weight is an integer from -128 to 127, its level on the grid of its row. An activation is a byte, which stands for the byte less the
//! zero point. Sums `sum of level * (byte - zero_point)` are exact in 32 bits, in every instruction set ([`Dot`]): the product with the zero point is a
//! constant of each row, with which its sum starts. Then a sum becomes `sum * scale + offset`, with a scale and an offset for each row,
//! rounded once.
//!
//! **Signed activations** `q` from -128 to 127 are the bytes `q + 128` with zero point 128.
//!
//! **Layout.** Activations are `[byte tile][feature][line]`: a line is one feature of [`SAMPLES`] samples, in the order that [`byte_of`] says, and has
//! [`Dot::line`] bytes. [`quantize`] makes them of [`Layout::Tiled`](crate::Layout::Tiled), to which sums and floats go back.
//!
//! **Look-ups.** Where vectors are few, non-zeros are multiplied with bytes that are looked up (`spans.rs`), on machines that have instructions for it ([`Dot::looks_up`]).
//!
//! **Layers.** [`Linear`], over single vectors [`Spmv`], and [`Conv`] are layers of networks whose values are f32: each makes bytes of its input, and
//! floats of its sums. Over blocks a [`Conv`] can also read, add and write [`Layout::Bytes`](crate::Layout::Bytes), to which [`Quantize`] and
//! [`Dequantize`] convert, and [`ReblockBytes`] between blocks. [`ColumnConv`], of filters that read few channels, reads them, [`MaxPool`] reads and writes them.

mod any4;
mod column_conv;
mod conv;
mod dot;
mod few;
mod fours;
mod grid;
mod image;
mod lanes;
mod linear;
mod lines;
mod maps;
mod nonzeros;
mod peak;
mod pixels;
mod pool;
mod quantization;
mod reblock;
mod spans;
mod spmm;
mod spmv;
mod stored;
mod strip;

/// Bytes of the first-level cache that lines may take which are read again.
const CACHE: usize = 32 * 1024;

pub use column_conv::ColumnConv;
pub use conv::{Conv, Multiplied};
pub use dot::Dot;
pub use grid::Grid;
pub use lanes::SAMPLES;
pub use linear::Linear;
pub use lines::{byte_of, byte_tiles, quantize, quantize_vectors};
pub use maps::{Dequantize, Quantize};
pub use peak::peak;
pub use pool::MaxPool;
pub use quantization::Quantization;
pub use reblock::ReblockBytes;
pub use spmm::Spmm;
pub use spmv::Spmv;
