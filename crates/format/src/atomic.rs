//! Atomic writes: a file is written completely or left as it was.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::FormatError;

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

/// A sibling of `path` with its content, and the number of bytes.
fn filled(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<(Sibling, u64)> {
    let mut out = Counting {
        inner: BufWriter::with_capacity(1 << 18, Sibling::new(path)?),
        bytes: 0,
    };
    write(&mut out)?;
    let bytes = out.bytes;
    let file = out.inner.into_inner().map_err(|e| e.into_error())?;
    Ok((file, bytes))
}

/// Syncs the folder of a file that got its name: the name survives a power cut only then. Some systems cannot sync a folder, and the
/// file is complete either way, so a refusal is no error.
fn sync_folder_of(path: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder_of(path)) {
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Checks that a file can be written, before the work that makes its content starts.
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
    if !force && fs::symlink_metadata(path).is_ok() {
        return Err(FormatError::Exists { path: path.into() });
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
    // Only an attempt tells: permissions, read-only mounts and full disks all count.
    Sibling::new(path)
        .map(drop)
        .map_err(|error| FormatError::io(path, "write", error))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// A new file in the folder of another, removed when dropped.
struct Sibling {
    path: PathBuf,
    /// `None` once the file has its final name.
    file: Option<File>,
}

impl Sibling {
    fn new(path: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!(".sparsevd-{}-{count}.tmp", process::id());
            let path = folder_of(path).join(name);
            // Another process of that id may have been killed and left its file.
            match File::create_new(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                file => {
                    let file = Some(file?);
                    return Ok(Self { path, file });
                }
            }
        }
    }

    /// Syncs the file and gives it its final name, in place of a file that has it.
    fn persist(mut self, to: &Path) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.sync_all()?;
        }
        fs::rename(&self.path, to)?;
        self.file = None;
        Ok(())
    }

    /// Syncs the file and gives it its final name; returns `false` where another file has it.
    fn persist_new(self, to: &Path) -> io::Result<bool> {
        if let Some(file) = &self.file {
            file.sync_all()?;
        }
        // Unlike a rename, a second name never replaces a file. The first one goes when this is dropped.
        match fs::hard_link(&self.path, to) {
            Ok(()) => Ok(true),
            Err(_) if fs::symlink_metadata(to).is_ok() => Ok(false),
            // A file system without second names, such as FAT.
            Err(_) => self.persist(to).map(|()| true),
        }
    }
}

impl Write for Sibling {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |f| f.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

impl Drop for Sibling {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // The error that led here counts, not one of cleaning up.
            let _ = fs::remove_file(&self.path);
        }
    }
}

struct Counting<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
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
