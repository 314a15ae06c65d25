//! Ctrl-C: once to stop after the step and keep a checkpoint, twice to stop at once.

use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

/// A flag that Ctrl-C sets; the second Ctrl-C ends the process.
pub fn flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let of_handler = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if of_handler.swap(true, Ordering::Relaxed) {
            process::exit(130);
        }
    })
    .context("Ctrl-C")?;
    Ok(flag)
}

/// The command that resumes `run`.
pub fn resume_command(run: &Path) -> String {
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
