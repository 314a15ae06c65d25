//! The lock of a folder: one process at a time has a run there.

use std::fs::{File, TryLockError, create_dir_all};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sparsevd_format::{FormatError, read_text};

use crate::error::PipelineError;

/// The file that is locked. It says which process has it, and stays when the folder is free: the lock is the system's, and goes with the
/// process, however that ends.
const FILE: &str = "run.lock";

/// A folder, and its lock once it is taken.
#[derive(Debug)]
pub(crate) struct FolderLock {
    folder: PathBuf,
    file: Mutex<Option<File>>,
}

impl FolderLock {
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            file: Mutex::default(),
        }
    }

    /// Locks the folder, which is made where it is absent. It stays locked until this is dropped.
    ///
    /// # Errors
    /// [`PipelineError::Locked`] where another process has it; what the system refuses, file systems without locks too.
    pub fn take(&self) -> Result<(), PipelineError> {
        let mut taken = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.is_some() {
            return Ok(());
        }
        let path = self.folder.join(FILE);
        let io = |path: &Path, action| {
            let path = path.to_owned().into_boxed_path();
            move |error| {
                PipelineError::from(FormatError::Io {
                    path,
                    action,
                    error,
                })
            }
        };
        create_dir_all(&self.folder).map_err(io(&self.folder, "make the run folder"))?;
        let fail = |action| io(&path, action);
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(fail("write"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(PipelineError::Locked {
                    folder: self.folder.clone(),
                    process: holder(&path),
                });
            }
            // Nothing else would tell that there is one run only.
            Err(TryLockError::Error(e)) => return Err(fail("lock")(e)),
        }
        // Only people read it.
        let _ = file.set_len(0);
        let _ = writeln!(file, "{}", std::process::id());
        *taken = Some(file);
        Ok(())
    }
}

/// The process that wrote its number into the file of a lock.
fn holder(path: &Path) -> Option<u32> {
    read_text(path, 64).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/run");
        let first = FolderLock::new(&path);
        first.take().unwrap();
        first.take().unwrap();
        let second = FolderLock::new(&path);
        let error = second.take().unwrap_err();
        let this = std::process::id();
        assert!(
            matches!(&error, PipelineError::Locked { process, .. } if *process == Some(this)),
            "{error}"
        );
        let folder_name = path.display().to_string();
        assert!(error.to_string().starts_with(&folder_name), "{error}");
        drop(first);
        second.take().unwrap();
        drop(second);
        // A file that a dead process left.
        std::fs::write(path.join(FILE), "4294967295\n").unwrap();
        FolderLock::new(&path).take().unwrap();
    }
}
