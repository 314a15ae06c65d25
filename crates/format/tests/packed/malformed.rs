//! Files over the limits, damaged ones, and those of another kind.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use sparsevd_format::{Limits, PackOptions, pack, unpack};

use crate::golden::goldens;
use crate::on_grids::{AS_IT_IS, compact, in_int8, residual};

#[test]
fn limits_hold_before_anything_is_allocated() {
    let network = compact();
    for options in [PackOptions::small(), PackOptions::large()] {
        let bytes = pack(&network, &options).unwrap();
        let all = Limits::default();
        for (limits, part) in [
            (
                Limits {
                    elements: 100,
                    ..all.clone()
                },
                "elements",
            ),
            (
                Limits {
                    nonzeros: 100,
                    ..all.clone()
                },
                "non-zeros",
            ),
            (
                Limits {
                    dense_elements: 30,
                    ..all.clone()
                },
                "dense tensors",
            ),
        ] {
            let error = unpack(&bytes, &limits).unwrap_err().to_string();
            assert!(error.contains("limit") && error.contains(part), "{error}");
        }
    }
    let bytes = pack(&network, &PackOptions::small()).unwrap();
    let error = unpack(
        &bytes,
        &Limits {
            small_cells: 1000,
            ..Limits::default()
        },
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("small profile"), "{error}");
    let bytes = pack(&residual(), &PackOptions::small()).unwrap();
    let error = unpack(
        &bytes,
        &Limits {
            nodes: 9,
            ..Limits::default()
        },
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("nodes"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A damaged file gives an error or a network, in little time, and within the limits.
    #[test]
    fn damaged_files_are_errors(
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let goldens = goldens();
        let (name, mut bytes, _) = file.get(&goldens).clone();
        let original = bytes.clone();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, byte),
            }
        }
        let limits = Limits { small_cells: 1 << 20, elements: 1 << 20, dense_elements: 1 << 20, nonzeros: 1 << 20, ..Limits::default() };
        let start = Instant::now();
        let result = unpack(&bytes, &limits);
        prop_assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
        if bytes != original {
            // A 16-bit checksum misses one change in 65,536: the network is then still valid.
            if let Ok(read) = result {
                prop_assert!(pack(&read.network, &AS_IT_IS).is_ok(), "{name}");
            }
        }
    }

    /// Random bytes behind a right beginning.
    #[test]
    fn random_streams_are_errors(kind in 1..=3_u8, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut file = b"SPVD".to_vec();
        file.push(1 << 4 | kind);
        file.extend(bytes);
        let limits = Limits { small_cells: 1 << 20, elements: 1 << 20, dense_elements: 1 << 20, nonzeros: 1 << 20, ..Limits::default() };
        if let Ok(read) = unpack(&file, &limits) {
            prop_assert!(pack(&read.network, &AS_IT_IS).is_ok());
        }
    }
}

#[test]
fn other_files_and_versions_are_named() {
    let packed = pack(&compact(), &PackOptions::small()).unwrap();
    let fails = |bytes: &[u8], parts: &[&str]| {
        let error = unpack(bytes, &Limits::default())
            .err()
            .map(|e| e.to_string());
        let error =
            error.unwrap_or_else(|| format!("{} bytes of {} are read", bytes.len(), packed.len()));
        assert!(
            parts.iter().all(|p| error.contains(p)) && !error.contains("are read"),
            "{error}"
        );
    };
    fails(b"SPV", &["5 bytes", "got 3"]);
    fails(b"spvd\x11abc", &["magic"]);
    fails(
        &[&b"SPVD\x21"[..], &packed[5..]].concat(),
        &[
            "version of the packed format",
            "expected 1",
            "newest",
            "got 2",
        ],
    );
    fails(
        &[&b"SPVD\x14"[..], &packed[5..]].concat(),
        &["profile", "got 4"],
    );
    fails(&packed[..packed.len() - 1], &[]);
    // A reader looks up to four bytes ahead; what it has not looked at is too much.
    fails(&[&packed[..], &[7; 5]].concat(), &["stream", "bytes more"]);
    for end in 0..packed.len() {
        fails(&packed[..end], &[]);
    }
}

/// A packed file stores one scale for a weight, so rows with others have no place in it; and a reader takes a file with grids for nothing else.
#[test]
fn grids_of_int8_layers_are_checked_on_both_ways() {
    let mut network = in_int8(compact());
    // Levels of some 5 bits are those of half the scale as well.
    let rows = network.int8.rows.get_mut("fc1.weight").unwrap();
    rows[1] /= 2.0;
    let error = pack(&network, &PackOptions::small()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("fc1.weight") && error.contains("scale of a row"),
        "{error}"
    );
    // A layer whose weight is dense, or has integers above 127, cannot be one of them.
    let mut dense = in_int8(compact());
    let weight = dense.tensors["fc1.weight"].to_dense();
    dense.tensors.insert("fc1.weight".into(), weight.into());
    let error = pack(&dense, &PackOptions::small()).unwrap_err();
    assert!(error.to_string().contains("CSR"), "{error}");

    let network = in_int8(compact());
    for options in [PackOptions::small(), PackOptions::large()] {
        let bytes = pack(&network, &options).unwrap();
        assert_eq!(bytes[4], [0x15, 0x16][usize::from(options.keep_unit_order)]);
        let back = unpack(&bytes, &Limits::default()).unwrap().network;
        assert_eq!(back.int8.inputs, network.int8.inputs);
        // Without the bit the numbers of the grids are taken for those of weights, and the other way round.
        for bit in [0, 4] {
            let mut other = match bit {
                0 => bytes.clone(),
                _ => pack(&compact(), &options).unwrap(),
            };
            other[4] = other[4] & !4 | bit;
            assert!(unpack(&other, &Limits::default()).is_err());
        }
        for cut in 0..64.min(bytes.len()) {
            assert!(unpack(&bytes[..cut], &Limits::default()).is_err(), "{cut}");
        }
    }
}
