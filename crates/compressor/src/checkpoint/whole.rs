//! Whether a checkpoint file is whole: a checksum of all its bytes, in its own header.

use crc32fast::Hasher;

/// The key of the checksum in the metadata.
pub(super) const KEY: &str = "sparsevd.checksum";
/// What the digits of the checksum are while it is computed.
pub(super) const UNSET: &str = "00000000";

/// Puts the checksum where [`UNSET`] is in the header of a file; `None` where there is no such place.
pub(super) fn seal(file: &mut [u8]) -> Option<()> {
    let place = place(file)?;
    let digits = file.get_mut(place..place + UNSET.len())?;
    digits.copy_from_slice(UNSET.as_bytes());
    let digits = format!("{:08x}", checksum(file, place));
    file.get_mut(place..place + UNSET.len())?
        .copy_from_slice(digits.as_bytes());
    Some(())
}

/// What is wrong with a file that is not as it was sealed; `None` where nothing is.
pub(super) fn damage(file: &[u8]) -> Option<String> {
    let Some(place) = place(file) else {
        return Some("one without a checksum".into());
    };
    let stored = file.get(place..place + UNSET.len())?;
    let computed = format!("{:08x}", checksum(file, place));
    (stored != computed.as_bytes()).then(|| {
        let stored = String::from_utf8_lossy(stored);
        format!("one with the checksum {stored:?}, of bytes whose checksum is {computed}")
    })
}

/// The checksum of a file with [`UNSET`] at a place.
fn checksum(file: &[u8], place: usize) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&file[..place]);
    hasher.update(UNSET.as_bytes());
    hasher.update(&file[place + UNSET.len()..]);
    hasher.finalize()
}

/// Where the digits begin in the header of a safetensors file. Elsewhere in the header the quotes of such text are escaped.
fn place(file: &[u8]) -> Option<usize> {
    let length = u64::from_le_bytes(file.first_chunk().copied()?);
    let end = usize::try_from(length).ok()?.checked_add(8)?;
    let header = file.get(8..end)?;
    let key = format!("\"{KEY}\":\"");
    let at = header
        .windows(key.len())
        .position(|w| w == key.as_bytes())?;
    let place = 8 + at + key.len();
    (place + UNSET.len() <= end).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_counts() {
        let header = format!("{{\"__metadata__\":{{\"{KEY}\":\"{UNSET}\"}}}}");
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes().chain(0..100));
        assert!(damage(&file).unwrap().contains("checksum"));
        seal(&mut file).unwrap();
        assert_eq!(damage(&file), None);
        for bit in 0..8 * file.len() {
            file[bit / 8] ^= 1 << (bit % 8);
            assert!(damage(&file).is_some(), "{bit}");
            file[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..file.len() {
            assert!(damage(&file[..length]).is_some(), "{length}");
        }
        assert_eq!(seal(&mut [0; 7]), None);
    }
}
