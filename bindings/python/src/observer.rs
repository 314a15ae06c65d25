//! A run tells Python what happens, and is stopped by Ctrl-C or an exception.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use sparsevd_compressor::recipe::{Phase, Recipe};
use sparsevd_compressor::trainer::{EpochRecord, Observer, Position};
use sparsevd_pipeline::TrainingLog;

use crate::error::user_warning;
use crate::json;

/// Steps may take microseconds: signals are looked for, and steps are told, this often at most.
const OFTEN: Duration = Duration::from_millis(50);

/// Calls the methods of an object of Python, where there is one: `begin(steps, done)`, `step(epoch, done, of, loss)`, `epoch(record)` and
/// `note(text)`. What they raise stops the run.
pub struct Listener {
    listener: Option<Py<PyAny>>,
    log: Option<TrainingLog>,
    error: Option<PyErr>,
    told: Instant,
    looked: Instant,
    /// Steps since the last that was told.
    steps: u32,
}

impl Listener {
    /// With the folder of the run, where it has one, for the log.
    pub fn new(listener: Option<Py<PyAny>>, folder: Option<PathBuf>) -> Self {
        let now = Instant::now();
        Self {
            listener,
            log: folder.map(|folder| TrainingLog::in_folder(&folder)),
            error: None,
            told: now,
            looked: now,
            steps: 0,
        }
    }

    /// What was raised.
    pub fn into_error(self) -> Option<PyErr> {
        self.error
    }

    /// A `UserWarning`, unless something was raised already.
    fn warn_python(&mut self, text: &str) {
        if self.error.is_none() {
            self.error = Python::attach(|py| user_warning(py, text)).err();
        }
    }

    /// Calls a method, unless something was raised already.
    fn tell(
        &mut self,
        call: impl for<'py> FnOnce(Python<'py>, &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>,
    ) {
        if let (Some(listener), None) = (&self.listener, &self.error) {
            let told = Python::attach(|py| call(py, listener.bind(py)).map(|_| ()));
            self.error = told.err();
        }
    }
}

impl Observer for Listener {
    fn begin(&mut self, recipe: &Recipe, samples: usize, from: Position) {
        if let Some(log) = &mut self.log
            && let Err(error) = log.open(from)
        {
            let path = log.path().display();
            let text = format!("{path}: {error}; the run goes on without a log");
            self.warn_python(&text);
        }
        let (all, done) = (recipe.total_steps(samples), from.total_steps);
        self.tell(|_, to| to.call_method1("begin", (all, done)));
    }

    fn phase(&mut self, number: usize, of: usize, phase: &Phase) {
        if let Some(log) = &mut self.log {
            log.phase(number, of, phase);
        }
        let method = phase.method.name();
        self.tell(|_, to| to.call_method1("phase", (number, of, method)));
    }

    fn step(&mut self, _epoch: u32, done: u32, of: u32, loss: f64) {
        self.steps += 1;
        if done == of || self.told.elapsed() >= OFTEN {
            self.told = Instant::now();
            let steps = std::mem::take(&mut self.steps);
            self.tell(|_, to| to.call_method1("step", (steps, loss)));
        }
    }

    fn epoch(&mut self, record: &EpochRecord) {
        if let Some(log) = &mut self.log {
            log.epoch(record);
        }
        self.tell(|py, to| to.call_method1("epoch", (json::to_python(py, record)?,)));
    }

    fn warn(&mut self, text: &str) {
        if let Some(log) = &mut self.log {
            log.warn(text);
        }
        self.warn_python(text);
    }

    fn note(&mut self, text: &str) {
        if let Some(log) = &mut self.log {
            log.note(text);
        }
        self.tell(|_, to| to.call_method1("note", (text,)));
    }

    fn stop(&mut self) -> bool {
        if self.error.is_none() && self.looked.elapsed() >= OFTEN {
            self.looked = Instant::now();
            self.error = Python::attach(|py| py.check_signals()).err();
        }
        self.error.is_some()
    }
}

/// What stopped a run; of Ctrl-C the message says where the checkpoint is.
pub fn at_checkpoint(py: Python<'_>, error: PyErr, folder: Option<PathBuf>) -> PyErr {
    match folder {
        Some(folder) if error.is_instance_of::<PyKeyboardInterrupt>(py) => {
            let folder = folder.display();
            PyKeyboardInterrupt::new_err(format!(
                "the checkpoint is in {folder}; go on with the same arguments and resume=True"
            ))
        }
        _ => error,
    }
}
