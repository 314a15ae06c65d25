//! Progress: a line per phase and epoch in the run folder's `training.log`, and on a terminal those lines over a bar for
//! the epoch and one for the run, each with its ETA.

use std::path::Path;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sparsevd_compressor::recipe::{Phase, Recipe};
use sparsevd_compressor::trainer::{EpochRecord, Observer, Position};
use sparsevd_pipeline::TrainingLog;

use crate::interrupt::{self, Run};
use sparsevd_cli::VerbosityArgs;

/// Writes the log of a run, and bars where stderr is a terminal; stops the run at a signal.
pub struct Progress {
    log: TrainingLog,
    verbosity: VerbosityArgs,
    bars: Option<Bars>,
    run: Run,
}

impl Progress {
    /// Progress of a run with this log.
    pub fn new(log: TrainingLog, verbosity: VerbosityArgs) -> Self {
        let folder = log.path().parent().map(Path::to_owned);
        Self {
            log,
            verbosity,
            bars: None,
            run: Run {
                folder: folder.unwrap_or_default(),
                by_same_command: false,
            },
        }
    }

    /// Says that the run goes on by the same command.
    pub fn by_same_command(mut self) -> Self {
        self.run.by_same_command = true;
        self
    }

    /// Shows the last line of the log.
    fn show(&self) {
        self.say(self.log.last_line());
    }

    /// Says a line where this talks, above the bars.
    fn say(&self, line: &str) {
        if let Some(bars) = &self.bars {
            // A terminal that is gone is no reason to lose the run.
            let _ = bars.all.println(line);
        } else if self.verbosity.talks() {
            sparsevd_cli::note(line);
        }
    }
}

/// Prints a warning on stderr, wherever that leads.
pub fn warn(text: &str) {
    sparsevd_cli::note(&format!("warning: {text}"));
}

/// An observer for what is not logged: it prints warnings.
pub struct Warnings;

impl Observer for Warnings {
    fn note(&mut self, _text: &str) {}

    fn warn(&mut self, text: &str) {
        warn(text);
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
        let style = |template: &str| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let all = MultiProgress::new();
        let epoch = all.add(
            ProgressBar::new(1)
                .with_style(style("{prefix:>9} {bar:32} {msg}  ETA {eta}"))
                .with_prefix("epoch"),
        );
        let run =
            ProgressBar::new(recipe.total_steps(images)).with_position(u64::from(from.total_steps));
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
        interrupt::begin_training(self.run.clone());
        if let Err(error) = self.log.open(from) {
            sparsevd_cli::note(&format!(
                "compress: {}: {error}; the run goes on without a log",
                self.log.path().display()
            ));
        }
        self.bars = (self.verbosity.has_bars()).then(|| Bars::new(recipe, samples, from));
    }

    fn phase(&mut self, number: usize, of: usize, phase: &Phase) {
        self.log.phase(number, of, phase);
        self.show();
    }

    fn step(&mut self, epoch: u32, done: u32, of: u32, loss: f64) {
        let Some(bars) = &self.bars else { return };
        if done <= 1 {
            bars.epoch.set_length(u64::from(of));
            bars.epoch.reset();
        }
        bars.epoch.set_position(u64::from(done));
        let place = self.log.place(epoch);
        bars.epoch.set_message(format!("{place}  loss {loss:.4}"));
        bars.run.inc(1);
    }

    fn epoch(&mut self, record: &EpochRecord) {
        self.log.epoch(record);
        self.show();
    }

    fn note(&mut self, text: &str) {
        self.log.note(text);
        self.show();
    }

    fn choice(&mut self, text: &str) {
        if self.verbosity.verbose {
            self.say(text);
        }
    }

    fn warn(&mut self, text: &str) {
        self.log.warn(text);
        if let Some(bars) = &self.bars {
            bars.all.suspend(|| warn(text));
        } else {
            warn(text);
        }
    }

    fn stop(&mut self) -> bool {
        interrupt::asked()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        interrupt::end_training();
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.epoch.finish_and_clear();
        self.run.finish_and_clear();
    }
}
