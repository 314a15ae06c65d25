//! Temporary files: where content lies until it has its final name, and how those of dead processes are told from those of living ones.
//!
//! A temporary file is a sibling of the file that it becomes, called `.sparsevd-PROCESS-NUMBER.tmp`. Its process holds a lock of the
//! system on it, which goes when the process does, however that ends: what can be locked is nobody's. Numbers of processes alone would
//! not tell, as they are used again, and count by themselves in each container.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What names of temporary files begin with, and those of lists of [`crate::Staged`] files.
pub(crate) const PREFIX: &str = ".sparsevd-";
/// What names of temporary files end with.
pub(crate) const ENDING: &str = ".tmp";

/// Whether a lock keeps only those out who ask for it. Elsewhere nobody could read what is locked, so nothing is, and what dead processes
/// left stays.
pub(crate) const ADVISORY: bool = cfg!(unix);

/// The temporary files of this process. Who holds it may give files their names.
static FILES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

type Files = MutexGuard<'static, BTreeSet<PathBuf>>;

/// Locks out other threads of this process that make temporary files or give them their names.
pub(crate) fn files() -> Files {
    // A set is whole between any two of its methods.
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds all writing of this process; see [`stop_writing`].
#[derive(Debug)]
pub struct WritingStopped {
    _files: Files,
}

/// Removes the temporary files of this process, and keeps it from making others, or from giving them their names, until the guard is
/// dropped. Files that are being given their names together ([`crate::Staged`]) get them first.
///
/// It is for a process that is about to end without unwinding.
pub fn stop_writing() -> WritingStopped {
    let mut files = files();
    for file in std::mem::take(&mut *files) {
        // The next process that writes here removes what stays.
        let _ = fs::remove_file(file);
    }
    WritingStopped { _files: files }
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Syncs the folder of a file that got its name.
pub(crate) fn sync_folder_of(path: &Path) {
    sync_folder(folder_of(path));
}

/// Syncs a folder: names survive a power cut only then. Some systems cannot sync a folder, and files are complete either way, so a
/// refusal is no error.
pub(crate) fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = folder;
}

/// Removes the temporary files that dead processes left in a folder, but for those of a result that is to be ended. One that cannot be read or
/// removed is left as it is.
pub(crate) fn sweep_but(folder: &Path, of_results: &BTreeSet<PathBuf>) {
    for path in entries(folder, ENDING) {
        if of_results.contains(&path) {
            continue;
        }
        if let Some(_lock) = abandoned(&path) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// The files of a folder whose names begin with [`PREFIX`] and end with `ending`, in the order of their names.
pub(crate) fn entries(folder: &Path, ending: &str) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(PREFIX) && name.ends_with(ending)
    });
    named.map(|entry| entry.path()).collect()
}

/// A file that was made here and that no process has any more, locked until what is returned is dropped.
pub(crate) fn abandoned(path: &Path) -> Option<File> {
    // Opening what is no file may wait for another process.
    let is_file = fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    // Some network file systems lock only what may be written.
    let file = || File::options().read(true).write(true).open(path);
    if !ADVISORY || !is_file {
        return None;
    }
    file().ok().filter(|file| file.try_lock().is_ok())
}

/// A new file in the folder of another, removed when dropped.
#[derive(Debug)]
pub(crate) struct Sibling {
    path: PathBuf,
    /// `None` once the file has its final name.
    file: Option<File>,
}

impl Sibling {
    pub fn new(of: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut files = files();
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{PREFIX}{}-{count}{ENDING}", process::id());
            let path = folder_of(of).join(name);
            // Another process of that number may have been killed and left its file.
            let file = match File::create_new(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            // Another process may have taken it for abandoned, and removed it or be about to.
            let is_taken = || matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            if ADVISORY && (is_taken() || fs::symlink_metadata(&path).is_err()) {
                continue;
            }
            files.insert(path.clone());
            let file = Some(file);
            return Ok(Self { path, file });
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_all)
    }

    /// Gives the synced file its final name while `files` are held.
    pub fn rename(&mut self, to: &Path, files: &mut Files) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        files.remove(&self.path);
        self.file = None;
        Ok(())
    }

    /// The same, and returns the file, which stays locked.
    pub fn rename_locked(&mut self, to: &Path, files: &mut Files) -> io::Result<Option<File>> {
        fs::rename(&self.path, to)?;
        files.remove(&self.path);
        Ok(self.file.take())
    }

    /// Leaves the file where it is.
    pub fn keep(&mut self, files: &mut Files) {
        files.remove(&self.path);
        self.file = None;
    }

    /// Syncs the file and gives it its final name, in place of a file that has it.
    pub fn persist(mut self, to: &Path) -> io::Result<()> {
        self.sync()?;
        self.rename(to, &mut files())
    }

    /// The same; the file that has the name becomes `previous`.
    pub fn persist_keeping(mut self, to: &Path, previous: &Path) -> io::Result<()> {
        self.sync()?;
        let mut files = files();
        match fs::rename(to, previous) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(release(e, files)),
            _ => {}
        }
        let renamed = self.rename(to, &mut files);
        renamed.map_err(|e| release(e, files))
    }

    /// Syncs the file and gives it its final name; returns `false` where another file has it.
    pub fn persist_new(self, to: &Path) -> io::Result<bool> {
        self.sync()?;
        // Unlike a rename, a second name never replaces a file. The first one goes when this is dropped.
        match fs::hard_link(&self.path, to) {
            Ok(()) => Ok(true),
            Err(_) if fs::symlink_metadata(to).is_ok() => Ok(false),
            // A file system without second names, such as FAT.
            Err(_) => self.persist(to).map(|()| true),
        }
    }
}

/// Lets go of the files before a [`Sibling`] is dropped, which takes them itself.
fn release(error: io::Error, files: Files) -> io::Error {
    drop(files);
    error
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
            let mut files = files();
            files.remove(&self.path);
            // The error that led here counts, not one of cleaning up.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A sibling of `path` with its content, and the number of bytes.
pub(crate) fn filled(
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
    fn what_dead_processes_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in [
            ".sparsevd-1-0.tmp",
            ".sparsevd-x.tmp",
            "a.tmp",
            ".sparsevd-1-0",
        ] {
            fs::write(path(name), "x").unwrap();
        }
        fs::create_dir(path(".sparsevd-2-0.tmp")).unwrap();
        let mut ours = Sibling::new(&path("a")).unwrap();
        sweep_but(folder.path(), &BTreeSet::new());
        ours.write_all(b"whole").unwrap();
        ours.persist(&path("b")).unwrap();
        assert_eq!(fs::read(path("b")).unwrap(), b"whole");
        let names = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = names.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".sparsevd-1-0", ".sparsevd-2-0.tmp", "a.tmp", "b"]);
        sweep_but(&path("nowhere"), &BTreeSet::new());
    }

    #[test]
    fn the_file_before_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for text in ["1", "2", "3"] {
            let mut file = Sibling::new(&path("a")).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.persist_keeping(&path("a"), &path("before")).unwrap();
        }
        let read = |name: &str| fs::read_to_string(path(name)).unwrap();
        assert_eq!((read("a"), read("before")), ("3".into(), "2".into()));
        // A folder in the way: nothing is lost, nothing stays, and nobody waits for ever.
        fs::remove_file(path("before")).unwrap();
        fs::create_dir_all(path("before/inside")).unwrap();
        let file = Sibling::new(&path("a")).unwrap();
        file.persist_keeping(&path("a"), &path("before"))
            .unwrap_err();
        assert_eq!(read("a"), "3");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
