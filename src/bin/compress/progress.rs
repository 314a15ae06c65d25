//! Progress on stderr: a bar for the epoch and one for the run, each with its ETA, and a line per epoch that is done.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sparsevd_compressor::recipe::{Method, Phase, Recipe};
use sparsevd_compressor::trainer::{EpochRecord, Observer, Position, Silent};

use crate::print;

/// An observer that shows progress where stderr is for a person, else one that says nothing.
pub fn observer(quiet: bool, recipe: &Recipe, images: usize, from: Position) -> Box<dyn Observer> {
    if print::talks(quiet) {
        Box::new(Bars::new(recipe, images, from))
    } else {
        Box::new(Silent)
    }
}

/// How often a phase is trained: once for every candidate grid.
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
    phase: String,
    /// Epochs of the phase.
    epochs: u32,
}

impl Bars {
    fn new(recipe: &Recipe, images: usize, from: Position) -> Self {
        let steps = |p: &Phase| (images / p.batch.min(images).max(1)) as u64;
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
        Self {
            all,
            run,
            epoch,
            phase: String::new(),
            epochs: 0,
        }
    }

    fn say(&self, text: &str) {
        // A terminal that is gone shows nothing, and that is no reason to stop.
        let _ = self.all.println(text);
    }
}

impl Observer for Bars {
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
        if done <= 1 {
            self.epoch.set_length(u64::from(of));
            self.epoch.reset();
        }
        self.epoch.set_position(u64::from(done));
        self.epoch.set_message(format!(
            "{} {epoch}/{}  loss {loss:.4}",
            self.phase, self.epochs
        ));
        self.run.inc(1);
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
        self.say(&format!(
            "{} {:>3}/{}  loss {:.4}{kl}  validation error {:.2} %  {:.1}x  {:.1} s  [{}]",
            self.phase,
            record.epoch,
            self.epochs,
            record.loss,
            record.validation_error,
            record.ratio(),
            record.seconds,
            densities.join(", "),
        ));
    }

    fn note(&mut self, text: &str) {
        self.say(text);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.epoch.finish_and_clear();
        self.run.finish_and_clear();
    }
}
