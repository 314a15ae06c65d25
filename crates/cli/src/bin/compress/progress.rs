//! Progress: a line per phase and epoch in the run folder's `training.log`, and on a terminal those lines over a bar for
//! the epoch and one for the run, each with its ETA.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sparsevd_compressor::recipe::{Method, Phase, Recipe};
use sparsevd_compressor::trainer::{EpochRecord, Observer, Position};

use crate::interrupt::Interrupt;
use crate::print;

/// The log of a run in its folder.
const LOG: &str = "training.log";

/// Writes the log of a run, and bars where stderr is a terminal; stops the run at Ctrl-C.
pub struct Progress {
    log_path: PathBuf,
    log: Option<File>,
    talks: bool,
    bars: Option<Bars>,
    interrupt: Interrupt,
    /// Number, count and name of the phase.
    phase: String,
    /// Epochs of the phase.
    epochs: u32,
}

impl Progress {
    /// Progress of a run with this folder.
    pub fn new(folder: &Path, quiet: bool) -> anyhow::Result<Self> {
        Ok(Self {
            log_path: folder.join(LOG),
            log: None,
            talks: print::talks(quiet),
            bars: None,
            interrupt: Interrupt::new()?,
            phase: String::new(),
            epochs: 0,
        })
    }

    /// A line for the terminal, and for the log where training has begun. A full disk or a terminal that is gone is no reason
    /// to lose the run.
    fn say(&mut self, text: &str) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{text}");
        }
        if let Some(bars) = &self.bars {
            let _ = bars.all.println(text);
        } else if self.talks {
            sparsevd_cli::note(text);
        }
    }

    /// Opens the log, which a run that goes on continues.
    fn open_log(&self, from: Position) -> std::io::Result<File> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log_path)?;
        if from == Position::default() {
            log.set_len(0)?;
        }
        Ok(log)
    }
}

/// Number of times a phase is trained: once for every candidate grid.
fn trials(phase: &Phase) -> u64 {
    match phase.method {
        Method::Quantise => phase.grid.len() as u64,
        Method::Dense | Method::SparseVd | Method::FineTune => 1,
    }
}

/// Bars on a terminal.
struct Bars {
    all: MultiProgress,
    run: ProgressBar,
    epoch: ProgressBar,
}

impl Bars {
    fn new(recipe: &Recipe, images: usize, from: Position) -> Self {
        let steps = |p: &Phase| p.steps_per_epoch(images) as u64;
        let total: u64 = recipe
            .phases
            .iter()
            .map(|p| trials(p) * u64::from(p.epochs) * steps(p))
            .sum();
        let style = |template: &str| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let all = MultiProgress::new();
        let epoch = all.add(
            ProgressBar::new(1)
                .with_style(style("{prefix:>9} {bar:32} {msg}  ETA {eta}"))
                .with_prefix("epoch"),
        );
        let run = ProgressBar::new(total).with_position(u64::from(from.total_steps));
        let run = all.add(
            run.with_style(style(
                "{prefix:>9} {bar:32} {percent} %  {elapsed} gone  ETA {eta}",
            ))
            .with_prefix("run"),
        );
        run.reset_eta();
        run.enable_steady_tick(Duration::from_secs(1));
        Self { all, run, epoch }
    }
}

impl Observer for Progress {
    fn begin(&mut self, recipe: &Recipe, samples: usize, from: Position) {
        self.interrupt.set_training(true);
        match self.open_log(from) {
            Ok(log) => self.log = Some(log),
            Err(error) => sparsevd_cli::note(&format!(
                "compress: {}: {error}; the run goes on without a log",
                self.log_path.display()
            )),
        }
        self.bars = self.talks.then(|| Bars::new(recipe, samples, from));
    }

    fn phase(&mut self, number: usize, of: usize, phase: &Phase) {
        self.phase = format!("{number}/{of} {}", phase.method.name());
        self.epochs = phase.epochs;
        let more = match phase.shift {
            0 => String::new(),
            shift => format!(", shifts of {shift}"),
        };
        self.say(&format!(
            "phase {}: {} epochs, batch {}, learning rate {}{more}",
            self.phase, phase.epochs, phase.batch, phase.lr
        ));
    }

    fn step(&mut self, epoch: u32, done: u32, of: u32, loss: f64) {
        let Some(bars) = &self.bars else { return };
        if done <= 1 {
            bars.epoch.set_length(u64::from(of));
            bars.epoch.reset();
        }
        bars.epoch.set_position(u64::from(done));
        bars.epoch.set_message(format!(
            "{} {epoch}/{}  loss {loss:.4}",
            self.phase, self.epochs
        ));
        bars.run.inc(1);
    }

    fn epoch(&mut self, record: &EpochRecord) {
        let densities: Vec<String> = record
            .layers
            .iter()
            .map(|l| {
                format!(
                    "{} {:.2} %",
                    l.node,
                    100.0 * l.left as f64 / l.weights.max(1) as f64
                )
            })
            .collect();
        let kl = match record.method {
            Method::SparseVd => format!("  KL {:.3e}", record.kl),
            Method::Dense | Method::FineTune | Method::Quantise => String::new(),
        };
        let validation = match record.validation_r2 {
            None => format!("error {:.2} %", record.validation_error),
            Some(r2) => format!("R2 {r2:.4}, RMSE {:.4e}", record.validation_error),
        };
        self.say(&format!(
            "{} {:>3}/{}  loss {:.4}{kl}  validation {validation}  {:.1}x  {:.1} s  [{}]",
            self.phase,
            record.epoch,
            self.epochs,
            record.loss,
            record.ratio(),
            record.seconds,
            densities.join(", "),
        ));
    }

    fn note(&mut self, text: &str) {
        self.say(text);
    }

    fn stop(&mut self) -> bool {
        self.interrupt.asked()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.interrupt.set_training(false);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.epoch.finish_and_clear();
        self.run.finish_and_clear();
    }
}
