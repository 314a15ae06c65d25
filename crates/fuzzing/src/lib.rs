//! Fuzz targets: functions that take any bytes, as a file of some kind, and panic where a promise about such files does not hold.
//!
//! [`TARGETS`] has one for every reader of bytes from outside, and three that plan and run what was read. The program in `fuzz/` has
//! libFuzzer run them for hours; `tests/smoke.rs` runs them for seconds on their [seeds](Target::seeds), on `corpus/`, where there
//! is one, and on bytes near these.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a panic is what a target finds")]

mod arrays;
mod networks;
mod place;
mod plans;
mod seeds;
mod texts;
mod training;

use std::sync::Once;

use sparsevd_model::memory;

/// Bytes that a target may take; what a file describes beyond them is refused.
pub const MEMORY: u64 = 512 << 20;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, that of its folder in `corpus/`.
    pub name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
}

impl Target {
    /// The target of that name; `None` where there is none.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Whether the promises about a file of these bytes hold.
    ///
    /// # Panics
    /// Where they do not.
    pub fn run(&self, bytes: &[u8]) {
        static LIMIT: Once = Once::new();
        LIMIT.call_once(|| memory::set_limit(MEMORY));
        (self.run)(bytes);
    }

    /// Whole files of its kind, small ones, to begin with.
    ///
    /// # Panics
    /// Where the golden files of the repository are not there.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        (self.seeds)()
    }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "safetensors",
        run: networks::safetensors,
        seeds: seeds::safetensors,
    },
    Target {
        name: "packed",
        run: networks::packed,
        seeds: seeds::packed,
    },
    Target {
        name: "onnx",
        run: networks::onnx,
        seeds: seeds::onnx,
    },
    Target {
        name: "shards",
        run: networks::shards,
        seeds: seeds::shards,
    },
    Target {
        name: "graph",
        run: networks::graph,
        seeds: seeds::graphs,
    },
    Target {
        name: "idx",
        run: arrays::idx,
        seeds: seeds::idx,
    },
    Target {
        name: "gzip",
        run: arrays::gzip,
        seeds: seeds::idx,
    },
    Target {
        name: "npy",
        run: arrays::npy,
        seeds: seeds::npy,
    },
    Target {
        name: "npz",
        run: arrays::npz,
        seeds: seeds::npz,
    },
    Target {
        name: "png",
        run: arrays::png,
        seeds: seeds::png,
    },
    Target {
        name: "csv",
        run: arrays::csv,
        seeds: seeds::csv,
    },
    Target {
        name: "samples",
        run: arrays::samples,
        seeds: seeds::samples,
    },
    Target {
        name: "recipe",
        run: texts::recipe,
        seeds: seeds::recipes,
    },
    Target {
        name: "report",
        run: texts::report,
        seeds: seeds::reports,
    },
    Target {
        name: "run_record",
        run: texts::run_record,
        seeds: seeds::run_records,
    },
    Target {
        name: "costs",
        run: texts::costs,
        seeds: seeds::costs,
    },
    Target {
        name: "checkpoint",
        run: training::checkpoint,
        seeds: seeds::checkpoints,
    },
    Target {
        name: "posterior",
        run: training::posterior,
        seeds: seeds::posteriors,
    },
    Target {
        name: "frame",
        run: training::frame,
        seeds: seeds::frames,
    },
    Target {
        name: "run_safetensors",
        run: plans::run_safetensors,
        seeds: seeds::safetensors,
    },
    Target {
        name: "run_onnx",
        run: plans::run_onnx,
        seeds: seeds::onnx,
    },
    Target {
        name: "run_packed",
        run: plans::run_packed,
        seeds: seeds::packed,
    },
];
