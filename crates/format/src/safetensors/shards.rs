//! Networks in several safetensors files, with or without the index that Hugging Face's libraries write.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Container, read_model};
use crate::{FileType, FormatError, MAX_JSON, read_file};

/// What Hugging Face's libraries call a network in one file.
const ALONE: &str = "model.safetensors";

/// The names of the shards of a network.
pub(crate) struct ShardList {
    /// What names them: an index, or a pattern.
    pub path: PathBuf,
    /// All of them; they are there.
    files: Vec<PathBuf>,
    /// The shard of each tensor, where there is an index.
    index: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl ShardList {
    /// The shards that the index at `path` names, all of which lie beside it.
    pub fn of_index(path: &Path, json: &[u8]) -> Result<Self, FormatError> {
        let index: Index = serde_json::from_slice(json).map_err(|e| {
            let expected = "JSON with `weight_map`, from tensors to the names of their files";
            FormatError::invalid(path, "index of shards", expected, e.to_string())
        })?;
        let names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
        let mut files = Vec::new();
        for name in names {
            // A name with a separator could lead out of the folder.
            let is_plain = !name.is_empty()
                && Path::new(name).file_name() == Some(name.as_ref())
                && !name.contains(['/', '\\']);
            if !is_plain {
                return Err(FormatError::invalid(
                    path,
                    "index of shards",
                    "names of files beside the index",
                    format!("`{name}`"),
                ));
            }
            files.push(path.with_file_name(name));
        }
        Self {
            path: path.to_owned(),
            files,
            index: Some(index.weight_map),
        }
        .if_all_are_there()
    }

    /// The shards of a folder: those of its one index, else all of `NAME-00001-of-0000N.safetensors`, else `model.safetensors` alone.
    pub fn of_folder(folder: &Path) -> Result<Self, FormatError> {
        let failed = |e| FormatError::io(folder, "read", e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.push(name.to_string_lossy().into_owned());
        }
        names.sort();
        let indices: Vec<&String> = names
            .iter()
            .filter(|n| n.ends_with(".safetensors.index.json"))
            .collect();
        let sets: BTreeSet<(&str, usize)> = (names.iter())
            .filter_map(|n| shard(n))
            .map(|(stem, _, count)| (stem, count))
            .collect();
        if let [index] = indices.as_slice() {
            let path = folder.join(index);
            return Self::of_index(&path, &read_file(&path, MAX_JSON)?);
        }
        match (indices.len(), sets.first()) {
            (0, Some(&(stem, count))) if sets.len() == 1 => {
                let name = |i| format!("{stem}-{i:05}-of-{count:05}.safetensors");
                Self {
                    path: folder.join(format!("{stem}-*-of-{count:05}.safetensors")),
                    files: (1..=count).map(|i| folder.join(name(i))).collect(),
                    index: None,
                }
                .if_all_are_there()
            }
            (0, None) if names.iter().any(|n| n == ALONE) => {
                let path = folder.join(ALONE);
                Ok(Self {
                    files: vec![path.clone()],
                    path,
                    index: None,
                })
            }
            (indices, _) => Err(FormatError::invalid(
                folder,
                "folder",
                "the file of a network, or a folder with the shards of one safetensors file",
                format!(
                    "a folder with {indices} indices of shards and shards of {} files",
                    sets.len()
                ),
            )),
        }
    }

    fn if_all_are_there(self) -> Result<Self, FormatError> {
        let missing: Vec<String> = (self.files.iter())
            .filter(|p| !p.is_file())
            .filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
            .collect();
        if missing.is_empty() && !self.files.is_empty() {
            return Ok(self);
        }
        Err(FormatError::invalid(
            &self.path,
            "shards",
            format!("all {} shards", self.files.len()),
            match missing.len() {
                0 => "an index without tensors".to_owned(),
                _ => format!("no `{}`", missing.join("`, no `")),
            },
        ))
    }

    /// Reads all shards.
    pub fn read(self) -> Result<Shards, FormatError> {
        let mut files = Vec::new();
        for path in self.files {
            let bytes = read_model(&path)?;
            let kind = FileType::of(&bytes);
            if kind != FileType::Safetensors {
                let got = kind.instead_of_network(&path);
                let expected = "a safetensors file";
                return Err(FormatError::invalid(&path, "shard", expected, got));
            }
            files.push((path, bytes));
        }
        Ok(Shards {
            path: self.path,
            files,
            index: self.index,
        })
    }
}

/// The bytes of all shards of a network.
pub(crate) struct Shards {
    /// What names them.
    pub path: PathBuf,
    files: Vec<(PathBuf, Vec<u8>)>,
    index: Option<BTreeMap<String, String>>,
}

impl Shards {
    /// All tensors as those of one file.
    pub fn join(&self) -> Result<Container<'_>, FormatError> {
        let path = self.path.as_path();
        let mut all = Container::empty(path);
        for (file, bytes) in &self.files {
            all.append(Container::parse(file, bytes)?)?;
        }
        for (tensor, file) in self.index.iter().flatten() {
            if !all.contains(tensor) {
                return Err(FormatError::tensor(
                    path,
                    tensor,
                    "shard",
                    format!("it in `{file}`, as the index says"),
                    "no tensor of that name in any shard",
                ));
            }
        }
        Ok(all)
    }
}

/// The files that hold the tensors of the network at `path`: the shards of an index or a folder, otherwise the file itself.
///
/// # Errors
/// As [`crate::read_network`] for shards that are missing or not to be found.
pub fn network_files(path: impl AsRef<Path>) -> Result<Vec<PathBuf>, FormatError> {
    let path = path.as_ref();
    if path.is_dir() {
        return Ok(ShardList::of_folder(path)?.files);
    }
    if FileType::of_file(path)? != FileType::ShardIndex {
        return Ok(vec![path.to_owned()]);
    }
    Ok(ShardList::of_index(path, &read_file(path, MAX_JSON)?)?.files)
}

/// What comes before the numbers of a shard's name, its number and how many there are: `m-00001-of-00003.safetensors`.
pub(crate) fn shard(name: &str) -> Option<(&str, usize, usize)> {
    // More shards than any network has; this bounds the list of names that are looked for.
    const MOST: usize = 10_000;
    let stem = name.strip_suffix(".safetensors")?;
    let (stem, count) = stem.rsplit_once("-of-")?;
    let (stem, number) = stem.rsplit_once('-')?;
    let digits = |s: &str| (s.len() == 5).then(|| s.parse::<usize>().ok())?;
    let (number, count) = (digits(number)?, digits(count)?);
    (1 <= number && number <= count && count <= MOST).then_some((stem, number, count))
}
