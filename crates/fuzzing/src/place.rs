//! Files that targets write for readers that take a path: in a folder of this process, in memory where the system has such a place.

use std::fs;
use std::path::{Path, PathBuf};

use sparsevd_model::terminal;
use tempfile::TempDir;

/// A folder that goes with the thread that has it.
pub(crate) struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self(folder.expect("a place for temporary files"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file over that of the last input.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).expect("a temporary file that can be written");
        path
    }
}

/// Errors are shown as one line of bounded length.
pub(crate) fn check_error(error: &dyn std::error::Error) {
    let text = error.to_string();
    let line = terminal::line(&text, 2000);
    assert!(!line.contains(terminal::is_unprintable), "{line:?}");
    assert!(line.chars().count() <= 2000, "{line:?}");
}
