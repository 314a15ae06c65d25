//! The bodies of the fuzz targets on seeds, on `corpus/` where there is one, and on bytes near these.
//!
//! `SPARSEVD_FUZZ=N` tries N inputs of each target, and `SPARSEVD_SEED` others than those of every run of the tests.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sparsevd_fuzzing::{TARGETS, Target};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::number_from_env;

/// Inputs of each target in every run of the tests.
const SMOKE: u64 = 1500;
/// Longest time of an input.
const MOST_TIME: Duration = Duration::from_secs(5);

/// Seeds, and the files of the corpus, where there is one.
fn beginnings(target: &Target) -> Vec<Vec<u8>> {
    let mut all = target.seeds();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Ok(entries) = fs::read_dir(root.join("corpus").join(target.name)) {
        let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
        paths.sort();
        all.extend(paths.iter().map(|path| fs::read(path).unwrap()));
    }
    all
}

/// Bytes near a file: a few of them changed, removed, repeated, or a piece of another file in their place.
fn near(files: &[Vec<u8>], random: &mut Stream) -> Vec<u8> {
    let mut draw = |most: usize| random.bits() as usize % most.max(1);
    let mut bytes = files[draw(files.len())].clone();
    for _ in 0..1 + draw(4) {
        let at = draw(bytes.len());
        let end = (at + 1 + draw(16)).min(bytes.len());
        match draw(8) {
            _ if bytes.is_empty() => {}
            0 => bytes[at] ^= 1 << draw(8),
            1 => bytes[at] = draw(256) as u8,
            2 => bytes[at..end].fill([0, 0xff, 0x7f, b'9'][draw(4)]),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.truncate(at),
            5 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => {
                // A digit of a text, which may be a size.
                let digits: Vec<usize> = (0..bytes.len())
                    .filter(|i| bytes[*i].is_ascii_digit())
                    .collect();
                if !digits.is_empty() {
                    let numbers = [
                        "0",
                        "1",
                        "7",
                        "65536",
                        "4294967295",
                        "18446744073709551615",
                        "-1",
                        "1e999",
                    ];
                    let place = digits[draw(digits.len())];
                    bytes.splice(place..place + 1, numbers[draw(8)].bytes());
                }
            }
            _ => {
                let other = &files[draw(files.len())];
                let from = draw(other.len());
                let until = (from + 1 + draw(64)).min(other.len());
                bytes.splice(at..end, other[from..until].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn promises_hold_for_files_and_for_bytes_near_them() {
    let (inputs, seed) = (
        number_from_env("SPARSEVD_FUZZ", SMOKE),
        number_from_env("SPARSEVD_SEED", 0),
    );
    for target in TARGETS {
        let files = beginnings(target);
        assert!(!files.is_empty(), "{}", target.name);
        let mut random = Stream(seed);
        let mut slowest = Duration::ZERO;
        let mut run = |bytes: &[u8]| {
            let start = Instant::now();
            let result = std::panic::catch_unwind(|| target.run(bytes));
            slowest = slowest.max(start.elapsed());
            if result.is_err() {
                let name = format!("crash-{}-{}", target.name, std::process::id());
                let path = std::env::temp_dir().join(name);
                fs::write(&path, bytes).unwrap();
                panic!(
                    "target {}: the bytes are in {}",
                    target.name,
                    path.display()
                );
            }
        };
        files.iter().for_each(|file| run(file));
        for _ in 0..inputs {
            run(&near(&files, &mut random));
        }
        println!(
            "{}: {} files and {inputs} inputs, the slowest {slowest:?}",
            target.name,
            files.len()
        );
        // A busy machine may stop a short run for longer.
        let is_slow = inputs > SMOKE && slowest > MOST_TIME;
        assert!(!is_slow, "{}: an input took {slowest:?}", target.name);
    }
}
