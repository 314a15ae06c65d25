//! How many threads a number of them means.

use std::thread;

/// As many threads as were asked for; one for each core where 0 were.
pub(crate) fn resolve(threads: usize) -> usize {
    match threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}
