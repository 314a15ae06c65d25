//! Signals that end the program: SIGINT (Ctrl-C), SIGTERM and SIGHUP.
//!
//! While a network is trained, the first stops it after the step and keeps a checkpoint. Where that takes longer than a moment, as in a
//! step of a very large network, or where nothing is trained, the process ends with what is on disk: checkpoints, and files of a result
//! all or none. A second signal ends it at once.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use sparsevd_cli::Outcome;
use sparsevd_compressor::{CompressError, checkpoint};
use sparsevd_format::stop_writing;
use sparsevd_pipeline::PipelineError;

/// What a training that was asked to stop has for its step and its checkpoint.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Signals within this time count as one: `timeout`, and shells that pass Ctrl-C on, send theirs to the process and to its group.
const AT_ONCE: Duration = Duration::from_millis(300);

/// The exit code of the first signal, 128 and its number; 0 before there is one.
static CODE: AtomicU8 = AtomicU8::new(0);
/// Whether a network is being trained, by what asks [`asked`] before every step.
static TRAINING: AtomicBool = AtomicBool::new(false);
/// The run that could go on after an end at once.
static RUN: Mutex<Option<Run>> = Mutex::new(None);

/// A run, and how to go on with it.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its folder.
    pub folder: PathBuf,
    /// Whether the same command goes on, not one with `--resume`.
    pub by_same_command: bool,
}

impl Run {
    /// Says how to go on with it.
    pub fn say_how_to_go_on(&self) {
        let command = match self.by_same_command {
            true => same_command(),
            false => resume_command(&self.folder),
        };
        let folder = self.folder.display();
        // The terminal may be gone.
        let _ = writeln!(
            io::stderr(),
            "compress: interrupted; the checkpoint is in {folder}; go on with\n  {command}"
        );
    }
}

/// The outcome of a training that a signal stopped, after saying how to go on where it has a folder.
pub fn ended(folder: Option<PathBuf>, by_same_command: bool) -> Outcome {
    if let Some(folder) = folder {
        let run = Run {
            folder,
            by_same_command,
        };
        run.say_how_to_go_on();
    }
    outcome()
}

/// An error of a command that goes on with what it left: where that was begun otherwise, it says how to begin anew.
pub fn unfinished(error: PipelineError, run: &Path) -> anyhow::Error {
    match error {
        PipelineError::OtherRun { .. }
        | PipelineError::Compress(CompressError::Checkpoint { .. }) => anyhow!(
            "{error}; the run in {} is not finished: remove the folder to begin anew",
            run.display()
        ),
        error => error.into(),
    }
}

/// Handles the signals from now on.
pub fn handle() -> anyhow::Result<()> {
    let mut first: Option<Instant> = None;
    listen(move |code| {
        if CODE.swap(code, Ordering::Relaxed) != 0 {
            if first.is_none_or(|first| first.elapsed() >= AT_ONCE) {
                process::exit(code.into());
            }
            return;
        }
        first = Some(Instant::now());
        let patience = match TRAINING.load(Ordering::Relaxed) {
            true => PATIENCE,
            false => Duration::ZERO,
        };
        // A second signal is heard meanwhile.
        thread::spawn(move || {
            thread::sleep(patience);
            end(code)
        });
    })
    .context("signals")
}

/// Calls `hear` with the exit code of each signal, on a thread.
#[cfg(unix)]
fn listen(mut hear: impl FnMut(u8) + Send + 'static) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let mut signals = vec![SIGINT, SIGTERM];
    // Who calls a program by `nohup` wants it to go on; only here it can be told.
    if cfg!(target_os = "linux") && !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(signals)?;
    thread::Builder::new().spawn(move || {
        for signal in signals.forever() {
            hear(u8::try_from(128 + signal).unwrap_or(u8::MAX));
        }
    })?;
    Ok(())
}

/// Whether a signal was ignored when the program began.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(not(unix))]
fn listen(mut hear: impl FnMut(u8) + Send + 'static) -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(move || hear(130))?)
}

/// Ends the process: what is being written is removed, what is being named gets all of its names.
fn end(code: u8) -> ! {
    let _stopped = stop_writing();
    let run = RUN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(run) = run.filter(|r| r.by_same_command || checkpoint::exists(&r.folder)) {
        run.say_how_to_go_on();
    }
    process::exit(code.into())
}

/// Says that the training of a run begins.
pub fn begin_training(run: Run) {
    *RUN.lock().unwrap_or_else(PoisonError::into_inner) = Some(run);
    TRAINING.store(true, Ordering::Relaxed);
}

/// Says that training is over.
pub fn end_training() {
    TRAINING.store(false, Ordering::Relaxed);
}

/// Whether to stop.
pub fn asked() -> bool {
    CODE.load(Ordering::Relaxed) != 0
}

/// How the program ends that stopped when it was asked to.
pub fn outcome() -> Outcome {
    match CODE.load(Ordering::Relaxed) {
        0 => Outcome::Interrupted(130),
        code => Outcome::Interrupted(code),
    }
}

/// The command line.
fn same_command() -> String {
    let words = std::env::args_os().map(|a| quote(&a.to_string_lossy()));
    words.collect::<Vec<_>>().join(" ")
}

/// The command that resumes `run`.
fn resume_command(run: &Path) -> String {
    let mut words: Vec<String> = vec![];
    let mut arguments = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    while let Some(word) = arguments.next() {
        match word.as_str() {
            "--run" | "--resume" => drop(arguments.next()),
            w if w.starts_with("--run=") || w.starts_with("--resume=") => {}
            _ => words.push(quote(&word)),
        }
    }
    words.extend(["--resume".into(), quote(&run.to_string_lossy())]);
    words.join(" ")
}

/// A word quoted for a shell.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quote("models/a-1.safetensors"), "models/a-1.safetensors");
        assert_eq!(quote("my model's"), r"'my model'\''s'");
        assert_eq!(quote(""), "''");
    }
}
