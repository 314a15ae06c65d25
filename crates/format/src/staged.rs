//! Several files of one result, which appear together or not at all.
//!
//! All are written and synced under temporary names. Then a list of them is written, and from there on the result counts as written: each
//! is given its name, and the list is removed. A process that dies before there is a list leaves temporary files, which are removed;
//! one that dies behind it leaves the list, by which the next process that writes in that folder ends what was begun ([`recover`]).

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::FormatError;
use crate::file::read_text;
use crate::temporary::{
    ADVISORY, ENDING, PREFIX, Sibling, abandoned, entries, files, filled, folder_of, sweep_but,
    sync_folder,
};

/// What the name of a list ends with.
const LIST: &str = ".list";
/// Most bytes of a list.
const MOST: u64 = 1 << 16;

/// What is to be renamed in the folder of the list, in this order.
#[derive(Debug, Serialize, Deserialize)]
struct List {
    files: Vec<(String, String)>,
}

impl List {
    /// Whether it can only have been written here: no name leads out of the folder.
    fn is_valid(&self) -> bool {
        let is_name = |name: &str| {
            let mut parts = Path::new(name).components();
            matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == OsStr::new(name))
        };
        self.files.iter().all(|(from, to)| {
            let is_temporary = from.starts_with(PREFIX) && from.ends_with(ENDING);
            is_name(from) && is_temporary && is_name(to) && !to.starts_with(PREFIX)
        })
    }
}

/// Files that are written and do not have their names yet. Dropped, they are removed.
#[derive(Debug, Default)]
pub struct Staged {
    files: Vec<(Sibling, PathBuf)>,
}

impl Staged {
    /// No file yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes the content of a file that is to be called `path`; returns the number of bytes.
    ///
    /// # Errors
    /// [`FormatError::Io`] with what the system or `write` said.
    pub fn add(
        &mut self,
        path: impl Into<PathBuf>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<u64, FormatError> {
        let path = path.into();
        let fail = |error| FormatError::io(&path, "write", error);
        let (file, bytes) = filled(&path, write).map_err(fail)?;
        file.sync().map_err(fail)?;
        self.files.push((file, path));
        Ok(bytes)
    }

    /// Where the content of `path` lies: there, unless it is one of these files.
    pub fn content_of<'p>(&'p self, path: &'p Path) -> &'p Path {
        let staged = self.files.iter().find(|(_, of)| of == path);
        staged.map_or(path, |(file, _)| file.path())
    }

    /// Gives all files their names, in the order in which they came, in place of files that have them. `then` is called before the
    /// result counts as finished: it is what must not be left out when the process dies, and is repeated by the caller of
    /// [`recover`].
    ///
    /// Files of one folder appear together. Those of several do folder by folder.
    ///
    /// # Errors
    /// What the system refuses. Names that were given stay, and the list by which [`recover`] goes on.
    pub fn commit<E: From<FormatError>>(
        mut self,
        then: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let mut folders: Vec<PathBuf> = vec![];
        for (_, path) in &self.files {
            let folder = folder_of(path);
            if !folders.iter().any(|f| f == folder) {
                folders.push(folder.to_owned());
            }
        }
        let mut lists = vec![];
        for folder in &folders {
            recover(folder)?;
            lists.push(self.list(folder)?);
        }
        // A signal that is handled waits for who holds the files.
        let mut held = files();
        let mut written = vec![];
        for (list, to) in &mut lists {
            match list.rename_locked(to, &mut held) {
                Ok(lock) => written.push((to.clone(), lock)),
                Err(error) => {
                    let error = FormatError::io(&*to, "write", error);
                    for (list, _) in written {
                        let _ = fs::remove_file(list);
                    }
                    drop(held);
                    return Err(error.into());
                }
            }
        }
        folders.iter().for_each(|f| sync_folder(f));
        let mut renamed = Ok(());
        for (file, path) in &mut self.files {
            let fail = |error| FormatError::io(&*path, "write", error);
            if renamed.is_ok() {
                renamed = file.rename(path, &mut held).map_err(fail);
            }
            if renamed.is_err() {
                // The list has it.
                file.keep(&mut held);
            }
        }
        folders.iter().for_each(|f| sync_folder(f));
        drop(held);
        renamed?;
        then()?;
        for (list, _lock) in written {
            fs::remove_file(&list).map_err(|e| FormatError::io(&list, "remove", e))?;
        }
        Ok(())
    }

    /// The list of the files of a folder, and its name.
    fn list(&self, folder: &Path) -> Result<(Sibling, PathBuf), FormatError> {
        let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
        let here = self.files.iter().filter(|(_, to)| folder_of(to) == folder);
        let named = here.filter_map(|(file, to)| Some((name(file.path())?, name(to)?)));
        let list = List {
            files: named.collect(),
        };
        let (file, _) = filled(&folder.join("list"), |out| {
            Ok(serde_json::to_writer(out, &list)?)
        })
        .and_then(|(file, n)| file.sync().map(|()| (file, n)))
        .map_err(|error| FormatError::io(folder, "write a list in", error))?;
        let to = file.path().with_extension(&LIST[1..]);
        Ok((file, to))
    }
}

/// Ends in a folder what dead processes began there: files of a result of which some may have their names get them all, and temporary
/// files are removed. Returns the files of such results.
///
/// # Errors
/// A list of files that cannot be read or was not written here, a file that cannot be renamed.
pub fn recover(folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, FormatError> {
    let folder = folder.as_ref();
    let mut ended = vec![];
    for path in entries(folder, LIST) {
        // No other process is at it meanwhile.
        let lock = abandoned(&path);
        if ADVISORY && lock.is_none() {
            continue;
        }
        let list: Option<List> = serde_json::from_str(&read_text(&path, MOST)?).ok();
        let Some(list) = list.filter(List::is_valid) else {
            return Err(FormatError::invalid(
                &path,
                "file",
                "the list of a result that was being written (it may be removed)",
                "something else",
            ));
        };
        for (from, to) in &list.files {
            let (from, to) = (folder.join(from), folder.join(to));
            match fs::rename(&from, &to) {
                // It has its name already.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(FormatError::io(&to, "write", e)),
                Ok(()) => {}
            }
            ended.push(to);
        }
        sync_folder(folder);
        match fs::remove_file(&path) {
            // Another process was at it too.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(|e| FormatError::io(&path, "remove", e))?,
        }
    }
    sweep(folder);
    Ok(ended)
}

/// Removes the temporary files that dead processes left in a folder, but for those of results that [`recover`] would end.
pub fn sweep(folder: &Path) {
    let lists = entries(folder, LIST);
    let lists = lists.iter().filter_map(|list| read_text(list, MOST).ok());
    let lists = lists.filter_map(|text| serde_json::from_str::<List>(&text).ok());
    let listed = lists.flat_map(|list| list.files.into_iter().map(|(from, _)| folder.join(from)));
    sweep_but(folder, &listed.collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = names
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn staged(folder: &Path) -> Staged {
        let mut staged = Staged::new();
        for name in ["a", "b", "c"] {
            let write = |out: &mut dyn Write| write!(out, "new {name}");
            assert_eq!(staged.add(folder.join(name), write).unwrap(), 5);
        }
        staged
    }

    #[test]
    fn all_appear_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("b"), "old").unwrap();
        let dropped = staged(folder);
        let (b, x) = (folder.join("b"), folder.join("x"));
        let content = dropped.content_of(&b);
        assert_eq!(fs::read_to_string(content).unwrap(), "new b");
        assert_eq!(dropped.content_of(&x), x);
        drop(dropped);
        assert_eq!(names(folder), ["b"]);
        let seen = |folder: &Path| {
            assert!(names(folder).iter().any(|n| n.ends_with(LIST)));
            Ok::<_, FormatError>(())
        };
        staged(folder).commit(|| seen(folder)).unwrap();
        assert_eq!(names(folder), ["a", "b", "c"]);
        assert_eq!(fs::read_to_string(folder.join("b")).unwrap(), "new b");
        assert_eq!(recover(folder).unwrap(), [] as [PathBuf; 0]);
    }

    /// At every place where a process can die, the next one finds all or nothing.
    #[test]
    fn what_a_dead_process_began_is_ended() {
        for done in 0..=3 {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let list = ["a", "b", "c"].map(|n| (format!(".sparsevd-1-{n}.tmp"), n.to_owned()));
            for (i, (from, to)) in list.iter().enumerate() {
                let name = if i < done { to } else { from };
                fs::write(folder.join(name), format!("new {to}")).unwrap();
            }
            let list = List { files: list.into() };
            let text = serde_json::to_string(&list).unwrap();
            fs::write(folder.join(".sparsevd-1-9.list"), text).unwrap();
            let before = names(folder);
            sweep(folder);
            assert_eq!(names(folder), before, "what the list names stays");
            let ended = recover(folder).unwrap();
            assert_eq!(ended, ["a", "b", "c"].map(|n| folder.join(n)), "{done}");
            assert_eq!(names(folder), ["a", "b", "c"], "{done}");
            for name in names(folder) {
                let text = fs::read_to_string(folder.join(&name)).unwrap();
                assert_eq!(text, format!("new {name}"));
            }
        }
    }

    #[test]
    fn a_file_that_gets_its_name_late_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join(".sparsevd-1-0.tmp"), "new a").unwrap();
        let files = vec![(".sparsevd-1-0.tmp".into(), "a".into())];
        let text = serde_json::to_string(&List { files }).unwrap();
        fs::write(folder.join(".sparsevd-1-9.list"), text).unwrap();
        let error = crate::check_writable(folder.join("a"), false).unwrap_err();
        assert!(matches!(error, FormatError::Exists { .. }), "{error}");
        assert_eq!(names(folder), ["a"]);
    }

    /// A folder has the name of a file: the list stays until it is gone.
    #[test]
    fn what_cannot_be_ended_is_ended_later() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::create_dir_all(folder.join("b/inside")).unwrap();
        let error = staged(folder).commit(|| Ok::<_, FormatError>(()));
        assert!(error.unwrap_err().to_string().contains("b: cannot write"));
        assert!(recover(folder).is_err());
        fs::remove_dir_all(folder.join("b")).unwrap();
        recover(folder).unwrap();
        assert_eq!(names(folder), ["a", "b", "c"]);
    }

    #[test]
    fn a_list_leads_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let list = folder.join(".sparsevd-1-9.list");
        for (from, to) in [
            ("../x.tmp", "a"),
            (".sparsevd-1-0.tmp", "../a"),
            (".sparsevd-1-0.tmp", "/a"),
            (".sparsevd-1-0.tmp", "."),
            (".sparsevd-/../x.tmp", "a"),
            ("a", "b"),
            (".sparsevd-1-0.tmp", ".sparsevd-1-1.list"),
        ] {
            let files = vec![(from.into(), to.into())];
            fs::write(&list, serde_json::to_string(&List { files }).unwrap()).unwrap();
            let error = recover(folder).unwrap_err().to_string();
            assert!(error.contains("expected the list of a result"), "{error}");
        }
        fs::write(&list, "[").unwrap();
        recover(folder).unwrap_err();
        assert_eq!(names(folder), [".sparsevd-1-9.list"]);
    }
}
