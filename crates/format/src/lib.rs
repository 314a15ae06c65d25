//! Files of sparsevd: networks as safetensors with sparse weights, and, with the feature `data`, data sets, tables, arrays and images.
//!
//! Every byte that is read is treated as hostile: arithmetic is checked, nothing is allocated on the word of a header (`sparsevd_model::memory`),
//! and an error names the file, the tensor, what was expected and what was found. Every write goes to a temporary sibling
//! that is synced and renamed. The interchange format is documented in `docs/format.md`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "data")]
mod array;
mod atomic;
#[cfg(feature = "data")]
mod cifar;
#[cfg(feature = "data")]
mod dataset;
mod encoder;
mod error;
mod file;
mod file_type;
#[cfg(feature = "data")]
mod folder;
#[cfg(feature = "data")]
mod idx;
#[cfg(feature = "data")]
mod image;
#[cfg(feature = "data")]
mod load_data;
mod loaded;
#[cfg(feature = "data")]
mod npy;
mod packed;
mod presets;
mod read;
#[cfg(feature = "data")]
mod read_array;
#[cfg(feature = "data")]
mod regression;
mod safetensors;
mod staged;
#[cfg(feature = "data")]
mod table;
mod temporary;

#[cfg(feature = "data")]
pub use array::{Array, ArrayData};
pub use atomic::{check_writable, create_atomically, write_atomically, write_keeping};
#[cfg(feature = "data")]
pub use dataset::{DataSplits, Dataset, Pixels};
pub use encoder::{Encoder, read_encoder};
pub use error::FormatError;
pub use file::{MAX_JSON, MAX_TEXT, open_file, read_file, read_text};
pub use file_type::FileType;
#[cfg(feature = "data")]
pub use idx::read_idx;
#[cfg(feature = "data")]
pub use image::read_png;
#[cfg(feature = "data")]
pub use load_data::{load_data, load_samples, load_samples_with, samples_of_arrays};
pub use loaded::LoadedNetwork;
#[cfg(feature = "data")]
pub use npy::{read_npy, read_npz, write_npy, write_npz};
pub use packed::{
    Limits, PackOptions, PackProfile, PackedBreakdown, pack, packed_breakdown, read_packed, unpack,
    write_packed,
};
pub use read::{read_network, read_network_bytes};
#[cfg(feature = "data")]
pub use read_array::{read_array, read_array_bytes};
#[cfg(feature = "data")]
pub use regression::{LoadedSamples, RegressionSet, RegressionSplits};
pub use safetensors::{
    CsrProfile, GraphSource, ValueType, WEIGHT_PARTS, WriteOptions, inspect_encodings,
    metadata_keys, network_files, write_network, write_network_bytes,
};
pub use staged::{Staged, recover, sweep};
#[cfg(feature = "data")]
pub use table::{TableOptions, read_table, standardise};
pub use temporary::{WritingStopped, stop_writing};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
