//! A scan of a file's bytes before anything is allocated for it.
//!
//! An empty node takes two bytes in the file and hundreds in memory, so messages and strings are counted before decoding.

use crate::node_error::Invalid;

/// The largest number of messages and strings in a file; networks of hundreds of layers have thousands.
const MOST_PARTS: usize = 1 << 20;

/// The deepest nesting of messages.
const DEEPEST: usize = 32;

/// The messages of onnx.proto that hold messages or strings.
#[derive(Debug, Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    /// Any other: its parts are scanned in the same way, but hold no messages.
    Leaf,
    ValueInfo,
    Type,
    TensorType,
    Shape,
}

impl Message {
    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Graph => "graph",
            Self::Node => "node",
            Self::Attribute => "attribute",
            Self::Tensor => "tensor",
            Self::SparseTensor => "sparse tensor",
            Self::ValueInfo | Self::Type | Self::TensorType | Self::Shape => "type of a value",
            Self::Leaf => "entry",
        }
    }

    /// The message in a field, if it is one.
    fn field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) => Self::Graph,
            (Self::Model, 8 | 14) | (Self::Tensor, 13) | (Self::Shape, 1) => Self::Leaf,
            (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5) | (Self::SparseTensor, 1 | 2) => Self::Tensor,
            (Self::Graph, 11 | 12) => Self::ValueInfo,
            (Self::Graph, 15) | (Self::Attribute, 22) => Self::SparseTensor,
            (Self::Node, 5) => Self::Attribute,
            (Self::ValueInfo, 2) => Self::Type,
            (Self::Type, 1) => Self::TensorType,
            (Self::TensorType, 2) => Self::Shape,
            _ => return None,
        })
    }
}

/// Checks that a file is well-formed and does not have too many parts.
pub(crate) fn scan(bytes: &[u8]) -> Result<(), Invalid> {
    let mut parts = 0;
    message(Message::Model, bytes, 0, &mut parts, DEEPEST)
}

/// Scans one message; `at` is where it begins in the file.
fn message(
    kind: Message,
    bytes: &[u8],
    at: usize,
    parts: &mut usize,
    depth: usize,
) -> Result<(), Invalid> {
    if depth == 0 {
        return Err(Invalid::new(
            "file",
            format!("messages nested at most {DEEPEST} deep"),
            "deeper ones",
        ));
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let damaged = |rest: &[u8], got: &str| {
            Invalid::new(
                format!("{} at byte {}", kind.name(), at + bytes.len() - rest.len()),
                "a field of protocol buffers",
                got,
            )
        };
        let (tag, after) = varint(rest).ok_or_else(|| damaged(rest, "no tag"))?;
        let skip = match tag & 7 {
            0 => {
                after.len()
                    - varint(after)
                        .ok_or_else(|| damaged(rest, "no number"))?
                        .1
                        .len()
            }
            1 => 8,
            5 => 4,
            2 => {
                let (len, tail) = varint(after).ok_or_else(|| damaged(rest, "no length"))?;
                let start = bytes.len() - tail.len();
                let content = usize::try_from(len).ok().and_then(|len| tail.get(..len));
                let content = content.ok_or_else(|| {
                    damaged(
                        rest,
                        &format!("{len} bytes announced, and the end before them"),
                    )
                })?;
                *parts += 1;
                if *parts > MOST_PARTS {
                    return Err(Invalid::new(
                        "file",
                        format!("at most {MOST_PARTS} messages and names"),
                        "more",
                    ));
                }
                if let Some(inner) = kind.field(tag >> 3) {
                    message(inner, content, at + start, parts, depth - 1)?;
                }
                after.len() - tail.len() + content.len()
            }
            other => return Err(damaged(rest, &format!("wire type {other}"))),
        };
        rest = (after.get(skip..)).ok_or_else(|| damaged(rest, "the end within it"))?;
    }
    Ok(())
}

/// A variable-length number, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 127) << (7 * i);
        if byte & 128 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_empty_nodes_is_refused_before_it_is_decoded() {
        let nodes: Vec<u8> = [0x0a, 0].repeat(MOST_PARTS + 1);
        let mut model = vec![0x3a];
        let mut len = nodes.len();
        while len > 127 {
            model.push(len as u8 & 127 | 128);
            len >>= 7;
        }
        model.push(len as u8);
        model.extend(&nodes);
        let error = scan(&model).unwrap_err().to_string();
        assert!(error.contains("1048576 messages"), "{error}");
    }

    #[test]
    fn cut_and_broken_files_are_errors_that_say_where() {
        // Graph of 4 bytes with a node of 2 bytes that holds a field of 1 byte.
        let whole = [0x3a, 5, 0x0a, 3, 0x22, 1, b'X'];
        scan(&whole).unwrap();
        for end in 1..whole.len() {
            let error = scan(&whole[..end]).unwrap_err().to_string();
            assert!(error.contains("at byte 0"), "{end}: {error}");
        }
        let mut inner = whole;
        inner[5] = 2;
        let error = scan(&inner).unwrap_err().to_string();
        assert!(error.contains("node at byte 4"), "{error}");
        inner[4] = 0x27;
        let error = scan(&inner).unwrap_err().to_string();
        assert!(error.contains("wire type 7"), "{error}");
    }
}
