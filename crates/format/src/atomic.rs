//! Atomic writes: a file is written completely or left as it was.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::FormatError;
use crate::staged::recover;
use crate::temporary::{Sibling, filled, folder_of, sync_folder_of};

/// Writes a file by way of a temporary sibling that is synced and then renamed; returns the number of bytes.
///
/// A reader sees the old file or the new one, never a part. When `write` or the system fails, the old file is
/// untouched and nothing is left behind.
///
/// # Errors
/// [`FormatError::Io`] with what the system or `write` said.
pub fn write_atomically(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<u64, FormatError> {
    let path = path.as_ref();
    let fail = |error| FormatError::io(path, "write", error);
    let (file, bytes) = filled(path, write).map_err(fail)?;
    file.persist(path).map_err(fail)?;
    sync_folder_of(path);
    Ok(bytes)
}

/// Writes a file as [`write_atomically`], unless there is one of that name; returns whether it was written.
///
/// Of several processes that create the same file at once, one writes it, and the others find it complete.
///
/// # Errors
/// [`FormatError::Io`] with what the system or `write` said.
pub fn create_atomically(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<bool, FormatError> {
    let path = path.as_ref();
    let fail = |error| FormatError::io(path, "write", error);
    let (file, _) = filled(path, write).map_err(fail)?;
    let is_new = file.persist_new(path).map_err(fail)?;
    sync_folder_of(path);
    Ok(is_new)
}

/// Writes a file as [`write_atomically`]; the file that had the name is then called `previous`, in place of one that had that.
///
/// When the process dies in between, there is a moment at which only `previous` is there.
///
/// # Errors
/// [`FormatError::Io`] with what the system or `write` said.
pub fn write_keeping(
    path: impl AsRef<Path>,
    previous: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<u64, FormatError> {
    let path = path.as_ref();
    let fail = |error| FormatError::io(path, "write", error);
    let (file, bytes) = filled(path, write).map_err(fail)?;
    file.persist_keeping(path, previous.as_ref())
        .map_err(fail)?;
    sync_folder_of(path);
    Ok(bytes)
}

/// Checks that a file can be written, before the work that makes its content starts. What a process that died left in its folder is
/// put in order first, as [`recover`] does.
///
/// # Errors
/// [`FormatError::Exists`] for an existing file unless `force`; [`FormatError::Io`] where the folder is missing or
/// not writable; [`FormatError::Invalid`] where the path is a folder.
pub fn check_writable(path: impl AsRef<Path>, force: bool) -> Result<(), FormatError> {
    let path = path.as_ref();
    if path.file_name().is_none() || path.is_dir() {
        return Err(FormatError::invalid(
            path,
            "output",
            "the name of a file",
            "a folder",
        ));
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(FormatError::io(
            path,
            "write",
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no folder {}", folder.display()),
            ),
        ));
    }
    // It may give this file its name.
    recover(folder)?;
    if !force && fs::symlink_metadata(path).is_ok() {
        return Err(FormatError::Exists { path: path.into() });
    }
    // Only an attempt tells: permissions, read-only mounts and full disks all count.
    Sibling::new(path)
        .map(drop)
        .map_err(|error| FormatError::io(path, "write", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        assert_eq!(write_atomically(&path, |w| w.write_all(b"old")).unwrap(), 3);
        let error = write_atomically(&path, |w| {
            w.write_all(b"half of the new")?;
            Err(io::Error::other("disk on fire"))
        })
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("out.bin") && error.contains("disk on fire"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // Renaming over a folder fails after everything was written: still nothing is left.
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(write_atomically(&taken, |w| w.write_all(b"x")).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn of_many_that_create_a_file_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.txt");
        let create = |n: usize| {
            let text = vec![b'0' + n as u8; 100_000];
            let is_new = create_atomically(&path, |w| w.write_all(&text)).unwrap();
            let found = fs::read(&path).unwrap();
            assert_eq!(found.len(), text.len());
            assert!(found.iter().all(|c| *c == found[0]), "{n}");
            is_new.then(|| assert!(found == text)).is_some()
        };
        let created = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || create(n))).collect();
            threads
                .into_iter()
                .filter_map(|t| t.join().unwrap().then_some(()))
                .count()
        });
        assert_eq!(created, 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let nowhere = folder.path().join("no/out.txt");
        assert!(create_atomically(nowhere, |w| w.write_all(b"x")).is_err());
    }

    #[test]
    fn writable_is_checked_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.bin");
        check_writable(&path, false).unwrap();
        fs::write(&path, b"x").unwrap();
        let text = |r: Result<(), FormatError>| r.unwrap_err().to_string();
        assert!(text(check_writable(&path, false)).contains("exists already"));
        check_writable(&path, true).unwrap();
        assert!(
            text(check_writable(folder.path().join("no/out.bin"), false)).contains("no folder")
        );
        assert!(text(check_writable(folder.path(), true)).contains("a folder"));
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no probe is left"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_has_the_usual_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write_atomically(&ours, |w| w.write_all(b"x")).unwrap();
        fs::write(&plain, b"x").unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
