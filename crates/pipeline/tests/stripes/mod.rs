//! A small network and data for it: stripes of two classes.

use sparsevd_compressor::initialise;
use sparsevd_format::{DataSplits, Dataset, LoadedSamples, Pixels};
use sparsevd_model::{Network, Preprocessing, Shape, presets};
use sparsevd_pipeline::Data;

/// Side of the images.
pub const SIDE: usize = 4;

/// Images of two classes, bright on the left and on the right.
pub fn set(count: usize) -> Dataset {
    let mut pixels = vec![];
    for image in 0..count {
        for p in 0..SIDE * SIDE {
            let bright = usize::from(p % SIDE >= SIDE / 2) == image % 2;
            pixels.push(((image * 7 + p * 13) % 60) as u8 + if bright { 150 } else { 0 });
        }
    }
    let labels = (0..count).map(|i| (i % 2) as u16).collect();
    Dataset::new(Pixels::U8(pixels), Shape::from([1, SIDE, SIDE]), labels).unwrap()
}

pub fn data() -> Data {
    Data::from(LoadedSamples::Classes(DataSplits {
        train: Some(set(120)),
        test: Some(set(30)),
        whole: None,
        table: None,
        describe: "stripes".into(),
    }))
}

pub fn network() -> Network {
    let (graph, shapes) = presets::mlp("net", Shape::from([1, SIDE, SIDE]), &[8, 2]);
    let mut network = initialise(graph, &shapes, 1).unwrap();
    network.graph.preprocessing = Some(Preprocessing::default());
    network
}
