//! External data: tensors in other files, which must lie in the model's folder.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use sparsevd_format::open_file;

use crate::node_error::Invalid;
use crate::proto::StringStringEntryProto;

/// The folder of a model.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder of a model's file.
    pub fn of(model: &Path) -> Self {
        let folder = model.parent().filter(|p| !p.as_os_str().is_empty());
        Self(folder.unwrap_or(Path::new(".")).to_owned())
    }

    /// Reads the `len` bytes that a tensor's entries (`location`, `offset`, `length`) point to.
    pub fn read(
        &self,
        what: &str,
        entries: &[StringStringEntryProto],
        len: usize,
    ) -> Result<Vec<u8>, Invalid> {
        let entry = |key: &str| {
            entries
                .iter()
                .find(|e| e.key == key)
                .map(|e| e.value.as_str())
        };
        let number = |key: &str, default: u64| {
            entry(key).map_or(Ok(default), |v| {
                v.parse().map_err(|_| {
                    Invalid::new(format!("{what}: {key} of its external data"), "a number", v)
                })
            })
        };
        let location = entry("location").unwrap_or_default();
        let path = self.inside(what, location)?;
        let (offset, length) = (number("offset", 0)?, number("length", len as u64)?);
        if length != len as u64 {
            return Err(Invalid::new(
                format!("{what}: length of its external data"),
                format!("{len} bytes for its shape"),
                length.to_string(),
            ));
        }
        let failed = |e: std::io::Error| {
            Invalid::new(
                format!("{what}: external data `{location}`"),
                "a file that can be read",
                e.to_string(),
            )
        };
        let mut file = open_file(&path).map_err(|e| {
            let expected = "a file that can be read";
            Invalid::new(
                format!("{what}: external data `{location}`"),
                expected,
                e.to_string(),
            )
        })?;
        let size = file.metadata().map_err(failed)?.len();
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(Invalid::new(
                format!("{what}: external data `{location}`"),
                format!("at least {length} bytes from byte {offset}"),
                format!("a file of {size} bytes"),
            ));
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut bytes = vec![0; len];
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// The path of a location, checked to lie in the folder after links are resolved.
    fn inside(&self, what: &str, location: &str) -> Result<PathBuf, Invalid> {
        let outside = |got: &str| {
            Invalid::new(
                format!("{what}: location of its external data"),
                "a path within the folder of the model",
                format!("`{got}`"),
            )
        };
        let relative = Path::new(location);
        let normal = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || !relative.components().all(normal) {
            return Err(outside(location));
        }
        let resolve = |path: &Path| {
            path.canonicalize().map_err(|e| {
                Invalid::new(
                    format!("{what}: external data `{location}`"),
                    "a file that can be read",
                    e.to_string(),
                )
            })
        };
        let (folder, path) = (resolve(&self.0)?, resolve(&self.0.join(relative))?);
        if !path.starts_with(&folder) {
            return Err(outside(location));
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Vec<StringStringEntryProto> {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: (*key).into(),
            value: (*value).into(),
        };
        pairs.iter().map(entry).collect()
    }

    #[test]
    fn only_files_of_the_folder_are_read_and_only_what_they_hold() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("model");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("data"), [1, 2, 3, 4, 5]).unwrap();
        std::fs::write(root.path().join("secret"), [9; 5]).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        let folder = Folder::of(&folder.join("model.onnx"));
        let read = |pairs: &[(&str, &str)], len| {
            (folder.read("initializer `w`", &entries(pairs), len)).map_err(|e| e.to_string())
        };
        assert_eq!(
            read(&[("location", "data"), ("offset", "1")], 2),
            Ok(vec![2, 3])
        );
        assert_eq!(
            read(&[("location", "./data"), ("length", "5")], 5),
            Ok(vec![1, 2, 3, 4, 5])
        );
        let absolute = root.path().join("secret").display().to_string();
        type Case<'c> = (&'c [(&'c str, &'c str)], usize, &'c str);
        let bad: &[Case<'_>] = &[
            (&[("location", "../secret")], 5, "within the folder"),
            (&[("location", &absolute)], 5, "within the folder"),
            (&[("location", "")], 5, "within the folder"),
            #[cfg(unix)]
            (&[("location", "link")], 5, "within the folder"),
            (&[("location", "absent")], 5, "can be read"),
            (&[("location", "data")], 6, "at least 6 bytes"),
            (
                &[("location", "data"), ("offset", "18446744073709551615")],
                5,
                "at least 5 bytes",
            ),
            (&[("location", "data"), ("offset", "-1")], 5, "a number"),
            (
                &[("location", "data"), ("length", "4")],
                5,
                "5 bytes for its shape",
            ),
        ];
        let wrong: Vec<String> = bad
            .iter()
            .filter_map(|(pairs, len, want)| match read(pairs, *len) {
                Err(e) if e.contains(want) && e.contains("`w`") => None,
                other => Some(format!("{pairs:?}: expected {want}, got {other:?}")),
            })
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
