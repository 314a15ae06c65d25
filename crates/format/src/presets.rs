//! Presets that files name in place of a graph.

/// Presets that files may name: version 1 of the packed format has their numbers.
pub(crate) const PRESETS: [&str; 2] = ["lenet-300-100", "lenet-5"];
