//! Ctrl-C: while a network is trained, once to stop after the step and keep a checkpoint, twice to stop at once.

use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

/// Whether Ctrl-C was pressed.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    /// Whether a network is being trained, so that the process does not end at once.
    training: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Handles Ctrl-C from now on.
    pub fn new() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || {
            let training = handler.training.load(Ordering::Relaxed);
            if handler.asked.swap(true, Ordering::Relaxed) || !training {
                process::exit(130);
            }
        })
        .context("Ctrl-C")?;
        Ok(interrupt)
    }

    /// Says that training begins or ends.
    pub fn set_training(&self, training: bool) {
        self.training.store(training, Ordering::Relaxed);
    }

    /// Whether to stop.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Says how to go on with an interrupted run.
pub fn say_how_to_go_on(run: &Path) {
    say(run, &resume_command(run));
}

/// Says how to go on with an interrupted run that the same command goes on with.
pub fn say_same_command(run: &Path) {
    let words = std::env::args_os().map(|a| quote(&a.to_string_lossy()));
    say(run, &words.collect::<Vec<_>>().join(" "));
}

fn say(run: &Path, command: &str) {
    let run = run.display();
    eprintln!("compress: interrupted; the checkpoint is in {run}; go on with\n  {command}");
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
