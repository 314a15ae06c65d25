//! The folder of a run: its lock, its record, its checkpoint, and whether a run may begin there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sparsevd_compressor::recipe::{Recipe, Validation};
use sparsevd_compressor::report::{RunRecord, SCHEMA, SearchReport, Task};
use sparsevd_compressor::{CompressError, checkpoint, frame};
use sparsevd_format::{FormatError, recover};
use sparsevd_model::Preprocessing;

use crate::error::PipelineError;
use crate::input::{ModelFile, absolute};
use crate::lock::FolderLock;
use crate::recipe::FoundRecipe;

/// What the names of the folders of a search's posteriors begin with.
pub(crate) const POSTERIOR: &str = "posterior-";
/// What those of its tries begin with.
pub(crate) const TRY: &str = "try-";
/// Names of the folders of the training of int8 layers begin so.
const INT8: &str = "int8-";

/// A folder for the checkpoints of a run, and how the run begins there.
///
/// From [`Self::check`] on, where the folder exists, no other run gets it, until this and its clones are dropped or the process ends.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
    start: Start,
    /// `None` for the folder of a part, which is inside of one that is locked.
    lock: Option<Arc<FolderLock>>,
}

#[derive(Debug, Clone)]
enum Start {
    New,
    Overwrite,
    Resume(Option<Box<RunRecord>>),
}

impl RunFolder {
    /// A folder for a new run, which is refused where an earlier one left a checkpoint.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::starting(path.into(), Start::New)
    }

    /// A folder for a new run, which replaces an earlier one.
    pub fn overwrite(path: impl Into<PathBuf>) -> Self {
        Self::starting(path.into(), Start::Overwrite)
    }

    fn starting(path: PathBuf, start: Start) -> Self {
        let lock = Some(Arc::new(FolderLock::new(&path)));
        Self { path, start, lock }
    }

    /// The folder of a run that goes on from its checkpoint. The network, recipe and data must be those that it began with.
    ///
    /// # Errors
    /// A folder without a checkpoint, or with a record that cannot be read.
    pub fn resume(path: impl Into<PathBuf>) -> Result<Self, PipelineError> {
        let path = path.into();
        if !checkpoint::exists(&path) {
            let checkpoint = checkpoint::path(&path);
            return Err(PipelineError::NoCheckpoint {
                folder: path,
                checkpoint,
            });
        }
        let record = match RunRecord::path(&path).is_file() {
            true => Some(Box::new(RunRecord::read(&path)?)),
            false => None,
        };
        Ok(Self::starting(path, Start::Resume(record)))
    }

    /// The folder of a run that goes on where it has a checkpoint; else a new one.
    ///
    /// # Errors
    /// A checkpoint beside a record that cannot be read.
    pub fn resume_or_new(path: impl Into<PathBuf>) -> Result<Self, PipelineError> {
        let path = path.into();
        match checkpoint::exists(&path) {
            true => Self::resume(path),
            false => Ok(Self::new(path)),
        }
    }

    /// Removes the checkpoint of a run, so that another can begin here. Record and log stay.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn clear(&self) -> Result<(), PipelineError> {
        Ok(checkpoint::clear(&self.path)?)
    }

    /// The folder of the training of int8 layers at the end of a run.
    pub(crate) fn of_int8(&self) -> Self {
        Self::part(part(&self.path, INT8, 1))
    }

    /// The folder of a part of a run: a run that goes on where it has a checkpoint, else a new one.
    pub(crate) fn part(path: PathBuf) -> Self {
        let start = match checkpoint::exists(&path) {
            true => Start::Resume(None),
            false => Start::New,
        };
        let lock = None;
        Self { path, start, lock }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The settings that a resumed run began with, where its network and its data came from files.
    pub fn record(&self) -> Option<&RunRecord> {
        match &self.start {
            Start::New | Start::Overwrite => None,
            Start::Resume(record) => record.as_deref(),
        }
    }

    /// Whether the run goes on from a checkpoint.
    pub fn is_resumed(&self) -> bool {
        matches!(self.start, Start::Resume(_))
    }

    /// The recipe of a run: that of the file `named`, else that of the run that goes on, else as [`FoundRecipe::find`] has it.
    ///
    /// # Errors
    /// A file that cannot be read or is no recipe.
    pub fn recipe(
        &self,
        named: Option<&Path>,
        beside: Option<&Path>,
        default: impl FnOnce() -> Recipe,
    ) -> Result<FoundRecipe, CompressError> {
        match (named, self.record()) {
            (None, Some(record)) => Ok(FoundRecipe {
                recipe: record.recipe.clone(),
                source: record.recipe_source.clone(),
            }),
            _ => FoundRecipe::find(named, beside, default),
        }
    }

    /// The path of the data set of a run: `named`, else that of the run that goes on, else that of the recipe.
    pub fn data_path<'a>(
        &'a self,
        named: Option<&'a Path>,
        recipe: &'a Recipe,
    ) -> Option<&'a Path> {
        let recorded = self.record().map(|r| r.data.as_path());
        named.or(recorded).or(recipe.data.as_deref())
    }

    /// Refuses a run where another process has one, and a new run where an earlier one could still go on.
    ///
    /// # Errors
    /// [`PipelineError::Locked`], [`PipelineError::Occupied`].
    pub fn check(&self) -> Result<(), PipelineError> {
        if let Some(lock) = self.lock.as_ref().filter(|_| self.path.is_dir()) {
            lock.take()?;
        }
        match self.start {
            Start::New if checkpoint::exists(&self.path) => Err(PipelineError::Occupied {
                folder: self.path.clone(),
            }),
            Start::New | Start::Overwrite | Start::Resume(_) => Ok(()),
        }
    }

    /// As [`Self::check`], and refuses a run of a command that writes a record, of which that of `command` is none.
    ///
    /// # Errors
    /// Those of [`Self::check`]; [`PipelineError::OtherRun`].
    pub fn check_unrecorded(&self, command: &str) -> Result<(), PipelineError> {
        self.check()?;
        match self.record() {
            None => Ok(()),
            Some(record) => {
                let expected = format!("a run of `{command}`");
                Err(self.other_run(expected, format!("one of {}", record.task.command())))
            }
        }
    }

    /// Refuses a run of another command that would go on.
    ///
    /// # Errors
    /// [`PipelineError::OtherRun`].
    pub(crate) fn check_task(&self, onto_grids: bool) -> Result<(), PipelineError> {
        let Some(record) = self.record() else {
            return Ok(());
        };
        let expected = match (&record.task, onto_grids) {
            (Task::Compress { .. }, false) | (Task::Convert { .. }, true) => return Ok(()),
            (Task::Convert { .. } | Task::Train { .. }, false) => "a run of `compress MODEL`",
            (Task::Compress { .. } | Task::Train { .. }, true) => "a run of `compress convert`",
        };
        Err(self.other_run(expected.into(), format!("one of {}", record.task.command())))
    }

    fn other_run(&self, expected: String, got: String) -> PipelineError {
        PipelineError::OtherRun {
            folder: self.path.clone(),
            expected,
            got,
        }
    }

    /// Refuses to go on with other data than the run began with, or with another preprocessing.
    ///
    /// # Errors
    /// [`PipelineError::OtherRun`].
    pub(crate) fn check_data(&self, now: &RunRecord) -> Result<(), PipelineError> {
        let Some(begun) = self.record() else {
            return Ok(());
        };
        if begun.data != now.data {
            let [begun, now] = [begun, now].map(|record| record.data.display());
            return Err(self.other_run(format!("a run on {now}"), format!("one on {begun}")));
        }
        if begun.preprocessing != now.preprocessing {
            let expected = "a run with the same --mean, --std and --scale";
            return Err(self.other_run(expected.into(), "one with others".into()));
        }
        Ok(())
    }

    /// Locks the folder, and prepares it for a new run: what an earlier one left is removed, and the record is written. A resumed run
    /// has its record.
    pub(crate) fn begin(&self, record: Option<&RunRecord>) -> Result<(), PipelineError> {
        if let Some(lock) = &self.lock {
            lock.take()?;
            recover(&self.path)?;
            // What is unfinished from here on has no report.
            remove_report(&self.path)?;
        }
        let parts = parts(&self.path);
        for folder in parts.iter().chain([&self.path]) {
            checkpoint::sweep_folder(folder);
        }
        if self.is_resumed() {
            return Ok(());
        }
        // A folder between the two has a checkpoint without its record at no time.
        checkpoint::clear(&self.path)?;
        for part in &parts {
            checkpoint::clear(part)?;
        }
        match record {
            Some(record) => record.write(&self.path)?,
            None => RunRecord::remove(&self.path)?,
        }
        Ok(())
    }
}

/// The folder of a part of a run, a `kind` with a number from 1, in a run folder.
pub(crate) fn part(folder: &Path, kind: &str, number: usize) -> PathBuf {
    folder.join(format!("{kind}{number:02}"))
}

/// The report on the result of a run, in its folder.
pub fn report_path(folder: &Path) -> PathBuf {
    folder.join("report.json")
}

/// Removes the report of an earlier run.
fn remove_report(folder: &Path) -> Result<(), CompressError> {
    let path = report_path(folder);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(CompressError::Report {
            path,
            what: format!("cannot remove it: {e}"),
        }),
        _ => Ok(()),
    }
}

/// The files of the frames that led to the result of a run, by time: where it searched, those of the posterior and then of the try that
/// were chosen.
///
/// # Errors
/// A folder that cannot be read; one without frames has none.
pub fn frame_files(
    folder: &Path,
    search: Option<&SearchReport>,
) -> Result<Vec<PathBuf>, CompressError> {
    let chosen = search.and_then(|s| s.tries.iter().enumerate().find(|(_, t)| t.chosen));
    let Some((i, chosen)) = chosen else {
        return frame::files(folder);
    };
    let posterior = match chosen.posterior {
        1 => folder.to_owned(),
        number => part(folder, POSTERIOR, number),
    };
    let mut files = frame::files(&posterior)?;
    let of_try = frame::files(&part(folder, TRY, i + 1))?;
    // Names are steps. Where the posterior took none, the try has its frame too.
    let last = files
        .last()
        .and_then(|f| f.file_name())
        .map(ToOwned::to_owned);
    files.extend(
        of_try
            .into_iter()
            .filter(|f| f.file_name() > last.as_deref()),
    );
    Ok(files)
}

/// Folders of the parts of a run in its folder.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_part = |entry: &std::fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        [POSTERIOR, TRY, INT8]
            .iter()
            .any(|part| name.starts_with(part))
            && entry.path().is_dir()
    };
    entries.filter(is_part).map(|entry| entry.path()).collect()
}

/// The record of a run that begins.
pub(crate) fn record(
    task: Task,
    data: &Path,
    recipe: &FoundRecipe,
    preprocessing: Option<Preprocessing>,
) -> Result<RunRecord, FormatError> {
    let mut recipe = recipe.clone();
    if let Validation::Data(path) = &mut recipe.recipe.validation {
        *path = absolute(path)?;
    }
    Ok(RunRecord {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").into(),
        task,
        data: absolute(data)?,
        preprocessing,
        recipe_source: recipe.source,
        recipe: recipe.recipe,
    })
}

/// A compression whose folder says what it began with.
#[derive(Debug, Clone)]
pub struct RecordedRun {
    pub(crate) folder: PathBuf,
    pub(crate) record: RunRecord,
    model: ModelFile,
}

impl RecordedRun {
    /// Reads the record of a run folder.
    ///
    /// # Errors
    /// A folder without a record, a record of another version, the run of another command than `compress MODEL`.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, PipelineError> {
        let folder = folder.into();
        let record = RunRecord::read(&folder)?;
        let Task::Compress { model, network } = &record.task else {
            return Err(PipelineError::invalid(
                folder.display(),
                "a run of `compress MODEL`",
                format!("one of {}", record.task.command()),
            ));
        };
        let model = ModelFile {
            path: model.clone(),
            graph: network.clone(),
        };
        Ok(Self {
            folder,
            record,
            model,
        })
    }

    /// The network that it compresses.
    pub fn model(&self) -> &ModelFile {
        &self.model
    }

    /// The settings that it began with.
    pub fn record(&self) -> &RunRecord {
        &self.record
    }
}
