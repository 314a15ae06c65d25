//! Opening and reading files: regular ones only, and no more bytes than expected.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use sparsevd_model::memory;

use crate::FormatError;

/// Most bytes of a text that people write, such as a recipe.
pub const MAX_TEXT: u64 = 1 << 20;

/// Most bytes of JSON: of a graph, an index of shards, a report.
pub const MAX_JSON: u64 = 100_000_000;

/// Opens a file for reading. Its bytes are counted ([`memory::count_read`]).
///
/// # Errors
/// What the system refuses; a folder, a device, a pipe or a socket: these have no end, or keep the reader waiting for one.
pub fn open_file(path: impl AsRef<Path>) -> Result<File, FormatError> {
    let path = path.as_ref();
    let file = open_regular(path)?;
    let metadata = file.metadata();
    memory::count_read(
        metadata
            .map_err(|e| FormatError::io(path, "read", e))?
            .len(),
    );
    Ok(file)
}

/// [`open_file`] for a look at the beginning of a file, which does not count.
pub(crate) fn open_regular(path: &Path) -> Result<File, FormatError> {
    let failed = |e| FormatError::io(path, "read", e);
    // Opening a pipe waits for its other end, so the kind is asked for first.
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() {
        let got = if kind.is_dir() {
            "a folder"
        } else {
            "a device, a pipe or a socket"
        };
        return Err(FormatError::invalid(path, "file", "a regular file", got));
    }
    File::open(path).map_err(failed)
}

/// The bytes of a file of at most `most` bytes.
///
/// # Errors
/// As [`open_file`]; a longer file; one for which there is no memory ([`memory::check`]).
pub fn read_file(path: impl AsRef<Path>, most: u64) -> Result<Vec<u8>, FormatError> {
    let path = path.as_ref();
    let file = open_file(path)?;
    rest_of(path, file, Vec::new(), most)
}

/// The text of a file of at most `most` bytes.
///
/// # Errors
/// As [`read_file`], and what is no UTF-8.
pub fn read_text(path: impl AsRef<Path>, most: u64) -> Result<String, FormatError> {
    let path = path.as_ref();
    String::from_utf8(read_file(path, most)?)
        .map_err(|_| FormatError::invalid(path, "file", "UTF-8 text", "other bytes"))
}

/// Appends what a file has left to the bytes that were read from it, at most `most` bytes in all.
pub(crate) fn rest_of(
    path: &Path,
    file: File,
    mut bytes: Vec<u8>,
    most: u64,
) -> Result<Vec<u8>, FormatError> {
    let failed = |e| FormatError::io(path, "read", e);
    let length = file.metadata().map_err(failed)?.len();
    let too_long = |got: String| {
        let expected = format!("at most {most}");
        FormatError::invalid(path, "bytes of the file", expected, got)
    };
    if length > most {
        return Err(too_long(length.to_string()));
    }
    memory::check(|| format!("the bytes of {}", path.display()), length)
        .map_err(|e| FormatError::model(path, e))?;
    let left = length.saturating_sub(bytes.len() as u64);
    bytes.reserve_exact(usize::try_from(left).unwrap_or(0).saturating_add(1));
    // A file may grow while it is read.
    let more = (most - bytes.len() as u64).saturating_add(1);
    file.take(more).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(too_long("more".into()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_the_expected_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        fs::write(&path, "twelve bytes").unwrap();
        assert_eq!(read_text(&path, 12).unwrap(), "twelve bytes");
        let fails = |path: &Path, most| read_text(path, most).unwrap_err().to_string();
        assert!(fails(&path, 11).contains("at most 11, got 12"));
        assert!(fails(folder.path(), 12).contains("a regular file, got a folder"));
        #[cfg(unix)]
        assert!(fails(Path::new("/dev/zero"), 12).contains("a device"));
        fs::write(&path, b"\xff").unwrap();
        assert!(fails(&path, 12).contains("UTF-8"));
        assert!(fails(&folder.path().join("absent"), 12).contains("cannot read"));
    }
}
