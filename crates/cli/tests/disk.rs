//! The real `compress` on a disk that fills up while it writes: one line and exit code 2, all files of a result or none, nothing left beside
//! them; and once there is room, the next run ends as if there had always been.
//!
//! A limit on the size of files stands in for the disk. `SPARSEVD_DISK=FOLDER SPARSEVD_FULL=500 cargo test --release -p sparsevd-cli --test
//! disk -- --nocapture` fills the small file system of that folder instead, that often; `scripts/campaign.sh disk` makes one.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test")]

mod chains;
mod synthetic;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::number_from_env;

use chains::{CHAINS, Chain, Uninterrupted};
use synthetic::Workplace;

/// Bytes that a file system has left.
fn free(folder: &Path) -> usize {
    let output = Command::new("stat")
        .args(["-f", "-c", "%a %S"])
        .arg(folder)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers = text.split_whitespace().map(|n| n.parse::<usize>().unwrap());
    numbers.product()
}

/// Runs a chain with room for `most` KiB: on the whole disk, where `disk` is a small one, or in each file.
fn within(
    uninterrupted: &Uninterrupted,
    chain: &Chain,
    most: usize,
    disk: Option<&Path>,
) -> Output {
    let command = uninterrupted.command(chain);
    let Some(disk) = disk else {
        let script = format!("trap '' XFSZ; ulimit -f {most}; exec \"$0\" \"$@\"");
        let mut limited = Command::new("bash");
        limited.args(["-c", &script]).arg(command.get_program());
        limited.args(command.get_args());
        limited.current_dir(command.get_current_dir().unwrap());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        return limited.output().unwrap();
    };
    let filler = disk.join("filler");
    let free = free(disk);
    assert!(
        free <= 64 << 20,
        "expected a disk of some MiB, got {free} bytes free"
    );
    let zeros = free.saturating_sub(1024 * most);
    fs::write(&filler, vec![0; zeros]).unwrap();
    let output = { command }.output().unwrap();
    fs::remove_file(filler).unwrap();
    output
}

#[test]
fn a_disk_that_fills_up_ends_runs_which_go_on_when_there_is_room() {
    let disk = std::env::var_os("SPARSEVD_DISK").map(PathBuf::from);
    let place = match &disk {
        Some(folder) => Workplace::new_in(folder),
        None => Workplace::new(),
    };
    let uninterrupted = Uninterrupted::new(place);
    let mut random = Stream(number_from_env("SPARSEVD_SEED", 0));
    let (mut full, mut words) = (0, BTreeMap::<String, usize>::new());
    let tries = number_from_env("SPARSEVD_FULL", 6) as usize;
    for i in 0..tries {
        let chain = &CHAINS[i % CHAINS.len()];
        uninterrupted.clean(chain);
        // A few runs of a chain, each with room for more than the one before.
        let mut most = 0;
        loop {
            let output = within(&uninterrupted, chain, most, disk.as_deref());
            let said = String::from_utf8_lossy(&output.stderr);
            let (found, has_list) = uninterrupted.check_outputs(chain);
            let is_done = output.status.code() == Some(2) && said.contains("exists already");
            if output.status.code() == Some(0) || is_done {
                break;
            }
            full += 1;
            let context = format!("{}, {most} KiB: {}: {said}", chain.name, output.status);
            assert_eq!(output.status.code(), Some(2), "{context}");
            assert!(!said.contains("panicked"), "{context}");
            let last = said.lines().last().unwrap_or_default();
            let cause = ["No space left on device", "File too large"];
            let cause = cause.iter().find(|cause| last.contains(**cause));
            let cause = cause.unwrap_or_else(|| panic!("{context}"));
            *words.entry((*cause).to_owned()).or_default() += 1;
            let left: Vec<_> = found.keys().filter(|n| n.contains(".sparsevd-")).collect();
            assert!(left.is_empty() && !has_list, "{context}{left:?}");
            most += 1 + random.bits() as usize % (most + 2);
        }
        uninterrupted.finish(chain);
    }
    println!("{tries} runs went on from {full} ends on a full disk: {words:?}");
    assert!(full > tries);
}
