//! Checkpoints of training, as bytes.

/// The entry of a checkpoint's metadata that has the checksum of the file, in which the checksum itself is zeros.
pub const CHECKSUM: &str = "sparsevd.checksum";

/// The bytes of a checkpoint with the checksum that they should have; unchanged where there is no place for one.
pub fn with_checksum(mut file: Vec<u8>) -> Vec<u8> {
    let key = format!("\"{CHECKSUM}\":\"");
    let at = file.windows(key.len()).position(|w| w == key.as_bytes());
    let Some(at) = at
        .map(|at| at + key.len())
        .filter(|at| at + 8 <= file.len())
    else {
        return file;
    };
    file[at..at + 8].copy_from_slice(b"00000000");
    let sum = format!("{:08x}", crc32fast::hash(&file));
    file[at..at + 8].copy_from_slice(sum.as_bytes());
    file
}
