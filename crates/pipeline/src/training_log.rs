//! The log of a run in its folder: a line for each phase, epoch and note.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sparsevd_compressor::recipe::{Phase, Recipe};
use sparsevd_compressor::trainer::{EpochRecord, Observer, Position};

/// An observer that writes a line per phase, epoch and note to `training.log` in the folder of a run.
///
/// Notes before training begins are lines, but not in the file, as the folder may not exist yet; warnings follow once it does. A file that can no longer be
/// written, as on a full disk, does not stop the run.
#[derive(Debug)]
pub struct TrainingLog {
    path: PathBuf,
    file: Option<File>,
    line: String,
    phase: String,
    epochs: u32,
    /// Whether the lines of earlier runs stay.
    continues: bool,
    /// Warnings before there was a file.
    early: Vec<String>,
}

impl TrainingLog {
    /// The log of a run with this folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            path: folder.join("training.log"),
            file: None,
            line: String::new(),
            phase: String::new(),
            epochs: 0,
            continues: false,
            early: vec![],
        }
    }

    /// The log of many runs with this folder, which continues that of earlier sittings.
    pub fn continued_in(folder: &Path) -> Self {
        Self {
            continues: true,
            ..Self::in_folder(folder)
        }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line of the last event.
    pub fn last_line(&self) -> &str {
        &self.line
    }

    /// The number, count and name of the phase, and the epoch of how many: `2/3 fine-tune 5/20`.
    pub fn place(&self, epoch: u32) -> String {
        format!("{} {epoch}/{}", self.phase, self.epochs)
    }

    /// Opens the file when training begins. A run that goes on from a checkpoint continues it, and so do the later runs of a search.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(&mut self, from: Position) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let mut options = File::options();
        let file = options.create(true).append(true).open(&self.path)?;
        if from == Position::default() && !self.continues {
            file.set_len(0)?;
        }
        self.file = Some(file);
        for line in std::mem::take(&mut self.early) {
            self.write(line);
        }
        Ok(())
    }

    fn write(&mut self, line: String) {
        if let Some(file) = &mut self.file {
            // In one piece, as another process may write the same log. The run is worth more than its log.
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
        self.line = line;
    }
}

impl Observer for TrainingLog {
    fn begin(&mut self, _recipe: &Recipe, _samples: usize, from: Position) {
        if let Err(error) = self.open(from) {
            let path = self.path.display();
            self.line = format!("{path}: {error}; the run goes on without a log");
        }
    }

    fn phase(&mut self, number: usize, of: usize, phase: &Phase) {
        self.phase = format!("{number}/{of} {}", phase.method.name());
        self.epochs = phase.epochs;
        self.write(format!("phase {}: {phase}", self.phase));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        let Self { phase, epochs, .. } = self;
        let line = format!("{phase} {:>3}/{epochs}  {record}", record.epoch);
        self.write(line);
    }

    fn note(&mut self, text: &str) {
        self.write(text.to_owned());
    }

    fn warn(&mut self, text: &str) {
        let line = format!("warning: {text}");
        match self.file {
            Some(_) => self.write(line),
            None => self.early.push(line),
        }
    }
}
