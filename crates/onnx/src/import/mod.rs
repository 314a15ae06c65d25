//! Import: the nodes of a file become nodes of a network.
//!
//! Operators that only rename, fold or reshape add no node where that can be; every other one becomes a node of the network, or a few. What
//! is not supported is collected, so that one error lists all of it.

mod activations;
mod arithmetic;
mod attempt;
mod attention;
mod build;
mod concat;
mod conv_transpose;
mod decomposed;
mod embedding;
mod graph;
mod grid;
mod importer;
mod inputs;
mod int8;
mod layer_normalization;
mod layers;
mod maps;
mod normalisations;
mod operators;
mod parts;
mod products;
mod qoperator;
mod quantised;
mod ranges;
mod reduce;
mod resize;
mod shapes;
#[cfg(test)]
mod tests;
mod view;
mod whole;

pub(crate) use attempt::import;
pub(crate) use importer::ImportError;
