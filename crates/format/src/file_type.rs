//! What kind of file some bytes are, by their content.

use std::io::Read;
use std::path::Path;

use crate::FormatError;
use crate::file::open_regular;

/// First bytes of a packed file.
pub(crate) const PACKED_MAGIC: &[u8; 4] = b"SPVD";

/// Bytes from the beginning of a file that are enough to tell its type.
pub(crate) const HEAD: usize = 4096;

/// The kind of a file, told by its content and never by its name.
///
/// The first group is read here, `Onnx` by `sparsevd-onnx`; the rest only serves errors that say what a file is and how to
/// make one of it that can be read ([`FileType::remedy`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileType {
    /// A safetensors file: a network, arrays or a data set.
    Safetensors,
    /// A packed network, `.spvd`.
    Packed,
    /// The index of a safetensors file in several shards, `*.index.json`.
    ShardIndex,
    /// An ONNX model.
    Onnx,
    /// One numpy array.
    Npy,
    /// A zip archive of numpy arrays.
    Npz,
    /// A PNG image.
    Png,
    /// An array in MNIST's format.
    Idx,
    /// A gzip file, which holds IDX where it can be read.
    Gzip,
    /// A zip archive that PyTorch wrote: a pickle beside its tensors.
    TorchZip,
    /// Any other zip archive.
    Zip,
    /// A Python pickle.
    Pickle,
    /// An HDF5 file, as Keras writes.
    Hdf5,
    /// What Git leaves in place of a file that Git LFS stores.
    GitLfsPointer,
    /// A web page.
    Html,
    /// JSON that is not the index of shards.
    Json,
    /// A TensorFlow Lite model.
    TfLite,
    /// A GGUF file.
    Gguf,
    /// A JPEG image.
    Jpeg,
    /// Text whose first line has commas, semicolons or tabs: a table.
    Csv,
    /// No byte at all.
    Empty,
    /// None of these.
    Unknown,
}

impl FileType {
    /// The type of a file, by its bytes. Only the first 4096 count, and these are enough.
    pub fn of(bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(HEAD)];
        match bytes {
            [] => Self::Empty,
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Self::Npy,
            [0x89, b'P', b'N', b'G', ..] => Self::Png,
            [0x89, b'H', b'D', b'F', ..] => Self::Hdf5,
            [0xff, 0xd8, 0xff, ..] => Self::Jpeg,
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'G', b'G', b'U', b'F', ..] => Self::Gguf,
            [_, _, _, _, b'T', b'F', b'L', b'3', ..] => Self::TfLite,
            [b'P', b'K', 3, 4, ..] => zip(bytes),
            // An archive without an entry is what numpy makes of no array.
            [b'P', b'K', 5, 6, ..] => Self::Npz,
            _ if bytes.starts_with(PACKED_MAGIC) => Self::Packed,
            _ if bytes.starts_with(b"version https://git-lfs.github.com/spec/") => {
                Self::GitLfsPointer
            }
            _ if is_safetensors(bytes) => Self::Safetensors,
            [0, 0, 0x08 | 0x09 | 0x0b..=0x0e, _, ..] => Self::Idx,
            [0x80, 2..=5, ..] => Self::Pickle,
            _ => text(bytes).unwrap_or_else(|| match is_onnx(bytes) {
                true => Self::Onnx,
                // A header length that is wrong is an error of a safetensors file.
                false if bytes.get(8) == Some(&b'{') => Self::Safetensors,
                false => Self::Unknown,
            }),
        }
    }

    /// The type of the file at `path`, of which only the beginning is read.
    ///
    /// # Errors
    /// As [`crate::open_file`].
    pub fn of_file(path: impl AsRef<Path>) -> Result<Self, FormatError> {
        let path = path.as_ref();
        let mut head = Vec::new();
        open_regular(path)?
            .take(HEAD as u64)
            .read_to_end(&mut head)
            .map_err(|e| FormatError::io(path, "read", e))?;
        Ok(Self::of(&head))
    }

    /// What the file is, with its article, for messages.
    pub fn description(self) -> &'static str {
        match self {
            Self::Safetensors => "a safetensors file",
            Self::Packed => "a packed network",
            Self::ShardIndex => "the index of a safetensors file in shards",
            Self::Onnx => "an ONNX model",
            Self::Npy => "a numpy array",
            Self::Npz => "an archive of numpy arrays",
            Self::Png => "a PNG image",
            Self::Idx => "an IDX array",
            Self::Gzip => "a gzip file",
            Self::TorchZip => "a PyTorch file, a pickle in a zip archive",
            Self::Zip => "a zip archive that does not begin with a numpy array",
            Self::Pickle => "a Python pickle",
            Self::Hdf5 => "an HDF5 file, as Keras writes",
            Self::GitLfsPointer => {
                "a Git LFS pointer, which stands for a file that was not fetched"
            }
            Self::Html => "a web page",
            Self::Json => "JSON",
            Self::TfLite => "a TensorFlow Lite model",
            Self::Gguf => "a GGUF file",
            Self::Jpeg => "a JPEG image",
            Self::Csv => "a CSV table",
            Self::Empty => "an empty file",
            Self::Unknown => "a file of an unknown kind",
        }
    }

    /// How to make a network that can be read of a file of this kind at `path`, in one line; `None` where no way is known.
    pub fn remedy(self, path: &Path) -> Option<String> {
        let (from, to) = (shell_name(path), |ending| {
            shell_name(&path.with_extension(ending))
        });
        let tf2onnx = |kind: &str| {
            let to = to("onnx");
            format!("export it to ONNX: python -m tf2onnx.convert --{kind} {from} --output {to}")
        };
        Some(match self {
            Self::TorchZip | Self::Pickle => format!(
                "save its state_dict as safetensors: python -c \"import torch, safetensors.torch as s; \
                 s.save_file(torch.load('{from}', weights_only=True), '{}')\"; or export the model by torch.onnx.export",
                to("safetensors")
            ),
            Self::Hdf5 => tf2onnx("keras"),
            Self::TfLite => tf2onnx("tflite"),
            Self::GitLfsPointer => "fetch the file itself: git lfs pull".into(),
            Self::Html => {
                "download the file itself; on Hugging Face its address has /resolve/ in place of /blob/"
                    .into()
            }
            Self::Json => {
                "name the file of its tensors, and this one by --network if it is a graph".into()
            }
            Self::Gzip => format!("unpack it: gzip -d {from}"),
            Self::Jpeg => format!("convert it: magick {from} {}", to("png")),
            _ => return None,
        })
    }

    /// What was found in place of a network, with the remedy, for messages.
    pub(crate) fn instead_of_network(self, path: &Path) -> String {
        match self.remedy(path) {
            Some(remedy) => format!("{}; {remedy}", self.description()),
            None => self.description().to_owned(),
        }
    }

    #[cfg(feature = "data")]
    /// What was found in place of arrays, with the remedy, for messages.
    pub(crate) fn instead_of_arrays(self, path: &Path) -> String {
        let remedy = match self {
            Self::TorchZip | Self::Pickle | Self::Hdf5 => {
                Some("save its arrays by numpy.savez".to_owned())
            }
            Self::GitLfsPointer | Self::Html | Self::Jpeg => self.remedy(path),
            _ => None,
        };
        match remedy {
            Some(remedy) => format!("{}; {remedy}", self.description()),
            None => self.description().to_owned(),
        }
    }
}

/// The name of a file for a command line, or `model` with its ending where the name would need quotes.
fn shell_name(path: &Path) -> String {
    let plain = |s: &str| {
        s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
    };
    match path.to_str() {
        Some(name) if plain(name) && !name.starts_with('-') => name.to_owned(),
        _ => {
            let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("pt");
            format!("model.{}", if plain(ending) { ending } else { "pt" })
        }
    }
}

/// A header of plausible length that begins as JSON does.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    u64::from_le_bytes(*length) <= 100_000_000 && rest.first() == Some(&b'{')
}

/// The kind of a zip archive, by the names of its first entries.
fn zip(bytes: &[u8]) -> FileType {
    // The first name has its length here, and follows the header of 30 bytes.
    let length = match bytes.get(26..28) {
        Some(&[low, high]) => usize::from(u16::from_le_bytes([low, high])),
        _ => return FileType::Zip,
    };
    let name = bytes.get(30..).unwrap_or_default();
    let has = |word: &[u8]| bytes.windows(word.len()).any(|w| w == word);
    if name[..length.min(name.len())].ends_with(b".npy") {
        FileType::Npz
    } else if has(b"/data.pkl") || has(b"/constants.pkl") || has(b"/byteorder") {
        FileType::TorchZip
    } else {
        FileType::Zip
    }
}

/// The kinds that are text.
fn text(bytes: &[u8]) -> Option<FileType> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = bytes.trim_ascii_start();
    let begins = |with: &[u8]| {
        text.get(..with.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(with))
    };
    match text.first()? {
        b'<' if begins(b"<!doctype html") || begins(b"<html") => Some(FileType::Html),
        b'{' => {
            let after = text[1..].trim_ascii_start();
            let is_json = matches!(after.first(), None | Some(b'"' | b'}'));
            let is_index = text.windows(12).any(|w| w == b"\"weight_map\"");
            match (is_json, is_index) {
                (true, true) => Some(FileType::ShardIndex),
                (true, false) => Some(FileType::Json),
                _ => None,
            }
        }
        b'[' | b'<' => None,
        _ => is_csv(text).then_some(FileType::Csv),
    }
}

/// Whether bytes are text whose first line has separators.
fn is_csv(bytes: &[u8]) -> bool {
    let is_text = match str::from_utf8(bytes) {
        // The last character may go on beyond the bytes that are looked at.
        Err(e) if e.error_len().is_some() => false,
        _ => !(bytes.iter()).any(|b| b.is_ascii_control() && !b"\t\r\n".contains(b)),
    };
    let line = bytes.split(|b| b"\r\n".contains(b)).next();
    is_text && line.is_some_and(|line| line.iter().any(|b| b",;\t".contains(b)))
}

/// Whether bytes are the fields of an ONNX `ModelProto`, as far as they go. Protocol buffers have no magic number.
fn is_onnx(bytes: &[u8]) -> bool {
    // Numbers of the fields that are integers, and of those that are messages or texts (onnx.proto).
    const INTEGERS: [u64; 2] = [1, 5];
    const BYTES: [u64; 10] = [2, 3, 4, 6, 7, 8, 14, 20, 25, 26];
    const GRAPH: u64 = 7;
    let mut rest = bytes;
    let mut graph = false;
    let mut version = false;
    while !rest.is_empty() {
        let Some(tag) = varint(&mut rest) else {
            return false;
        };
        let field = tag >> 3;
        match tag & 7 {
            0 if INTEGERS.contains(&field) => {
                if varint(&mut rest).is_none() {
                    return false;
                }
                version |= field == 1;
            }
            2 if BYTES.contains(&field) => {
                let Some(length) = varint(&mut rest) else {
                    return false;
                };
                graph |= field == GRAPH;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                // The field may go on beyond the bytes that are looked at.
                rest = rest.get(length..).unwrap_or_default();
            }
            _ => return false,
        }
    }
    graph || version
}

/// Takes a number of seven bits a byte, lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for i in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * i).min(63);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a zip archive whose first entry has this name.
    fn archive(entry: &[u8]) -> Vec<u8> {
        let length = (entry.len() as u16).to_le_bytes();
        [b"PK\x03\x04", &[0; 22][..], &length, &[0; 2], entry].concat()
    }

    #[test]
    fn content_tells_the_type() {
        let header = b"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}";
        let safetensors = [&(header.len() as u64).to_le_bytes()[..], header].concat();
        let onnx = b"\x08\x08\x12\x07pytorch\x3a\xff\xff\x03and so on";
        let cases: Vec<(&[u8], FileType)> = vec![
            (b"", FileType::Empty),
            (&safetensors, FileType::Safetensors),
            (b"SPVD\x11", FileType::Packed),
            (onnx, FileType::Onnx),
            (b"\x3a\x05graph\x08\x03", FileType::Onnx),
            (b"\x93NUMPY\x01\x00", FileType::Npy),
            (b"PK\x05\x06", FileType::Npz),
            (b"\x89PNG\r\n\x1a\n", FileType::Png),
            (b"\x00\x00\x08\x03\x00\x00\x27\x10", FileType::Idx),
            (b"\x1f\x8b\x08", FileType::Gzip),
            (b"\x80\x02\x8a\x0a", FileType::Pickle),
            (b"\x89HDF\r\n\x1a\n", FileType::Hdf5),
            (
                b"version https://git-lfs.github.com/spec/v1\noid",
                FileType::GitLfsPointer,
            ),
            (b"\n<!DOCTYPE html>", FileType::Html),
            (b"<HTML>", FileType::Html),
            (
                b"{\"metadata\": {}, \"weight_map\": {}}",
                FileType::ShardIndex,
            ),
            (b"{\n  \"nodes\": []}", FileType::Json),
            (b"\x1c\0\0\0TFL3", FileType::TfLite),
            (b"GGUF\x03", FileType::Gguf),
            (b"\xff\xd8\xff\xe0", FileType::Jpeg),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff{", FileType::Safetensors),
            (b"a,b\n1,2\n", FileType::Csv),
            (b"\xef\xbb\xbfl\xc3\xa4nge;b\r\n1;2", FileType::Csv),
            (b"a\tb\n1\t\xc3", FileType::Csv),
            (b"a,b\n1,\xff2", FileType::Unknown),
            (b"a,\x01", FileType::Unknown),
            (b"import torch", FileType::Unknown),
            (b"[1, 2]", FileType::Unknown),
            (b"[core]", FileType::Unknown),
            (b"\x08", FileType::Unknown),
        ];
        for (bytes, expected) in cases {
            assert_eq!(FileType::of(bytes), expected, "{bytes:?}");
        }
        let archives: [(&[u8], FileType); 4] = [
            (b"x_train.npy", FileType::Npz),
            (b"mlp/data.pkl", FileType::TorchZip),
            (b"archive/constants.pkl", FileType::TorchZip),
            (b"config.json", FileType::Zip),
        ];
        for (entry, expected) in archives {
            assert_eq!(FileType::of(&archive(entry)), expected, "{entry:?}");
        }
    }

    #[test]
    fn a_remedy_names_the_file_where_a_shell_can_take_its_name() {
        let remedy = |path| FileType::TorchZip.remedy(Path::new(path)).unwrap();
        let plain = remedy("runs/mlp.pt");
        assert!(
            plain.contains("torch.load('runs/mlp.pt', weights_only=True), 'runs/mlp.safetensors')"),
            "{plain}"
        );
        let quoted = remedy("it's; rm.pth");
        assert!(
            quoted.contains("'model.pth'") && !quoted.contains("rm"),
            "{quoted}"
        );
        assert_eq!(FileType::Unknown.remedy(Path::new("x")), None);
    }
}
