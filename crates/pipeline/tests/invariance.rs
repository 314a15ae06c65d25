//! Images are augmented by the views that the network does not mind.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_compressor::initialise;
use sparsevd_compressor::recipe::{Augment, Method, Phase, Recipe, Validation};
use sparsevd_format::{DataSplits, Dataset, LoadedSamples, Pixels};
use sparsevd_model::{Dense, Network, Preprocessing, Shape, presets};
use sparsevd_pipeline::{Compressed, Compression, Data, Observer};

/// Pixels of a side.
const SIDE: usize = 16;

/// The sign of a pixel, by its column, in the sum that tells the classes.
type Sign = fn(usize) -> f32;

fn everywhere(_: usize) -> f32 {
    1.0
}
fn halves(x: usize) -> f32 {
    if x < SIDE / 2 { 1.0 } else { -1.0 }
}
fn stripes(x: usize) -> f32 {
    if x.is_multiple_of(2) { 1.0 } else { -1.0 }
}

/// A network without an error: of an image's pixels from -1 to 1, the sum times their signs tells the class.
fn network(sign: Sign) -> Network {
    let (graph, tensors) = presets::mlp("net", Shape::from([1, SIDE, SIDE]), &[2]);
    let mut network = initialise(graph, &tensors, 1).unwrap();
    network.graph.preprocessing = Some(Preprocessing {
        mean: vec![0.5],
        std: vec![0.5],
        ..Preprocessing::default()
    });
    let row: Vec<f32> = (0..SIDE * SIDE).map(|i| sign(i % SIDE) / 16.0).collect();
    let values = row.iter().copied().chain(row.iter().map(|w| -w)).collect();
    let names: Vec<String> = network.weight_names().into_iter().collect();
    let [weight] = &names[..] else {
        panic!("one layer")
    };
    let weights = Dense::new([2, SIDE * SIDE], values);
    network.tensors.insert(weight.clone(), weights.into());
    network
}

/// Images of two classes: bright where the signs of a class are positive, dark elsewhere.
fn data(sign: Sign) -> Data {
    let set = |count: usize| {
        let labels: Vec<u16> = (0..count as u16).map(|i| i % 2).collect();
        let pixel = |i: usize, x| {
            let noise = (i * 31 + x * 17) % 40;
            match (labels[i] == 0) == (sign(x) > 0.0) {
                true => 215 + noise as u8,
                false => noise as u8,
            }
        };
        let of_image = |i| (0..SIDE * SIDE).map(move |at| pixel(i, at % SIDE));
        let pixels = (0..count).flat_map(of_image).collect();
        Dataset::new(
            Pixels::U8(pixels),
            Shape::from([1, SIDE, SIDE]),
            labels.clone(),
        )
        .unwrap()
    };
    Data::from(LoadedSamples::Classes(DataSplits {
        train: Some(set(900)),
        test: None,
        whole: None,
        table: None,
        describe: "stripes".into(),
    }))
}

#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn note(&mut self, text: &str) {
        self.0.push(text.into());
    }
}

fn compress(network: Network, data: Data, validation: usize) -> (Compressed, Vec<String>) {
    let recipe = Recipe {
        validation: Validation::Samples(validation),
        augment: Augment::Measured,
        ..Recipe::new(vec![Phase::new(Method::FineTune, 1)])
    };
    let mut notes = Notes::default();
    let compressed = Compression::new(network, data, recipe).run(&mut notes);
    (compressed.unwrap(), notes.0)
}

#[test]
fn images_are_shifted_and_mirrored_as_far_as_the_network_does_not_mind() {
    let cases: [(Sign, _, _, &str); 3] = [
        (
            everywhere,
            2,
            true,
            "shifted by up to 2 pixels and mirrored: ",
        ),
        (halves, 2, false, "shifted by up to 2 pixels: "),
        (stripes, 0, false, "images stay as they are: "),
    ];
    for (sign, shift, flip, words) in cases {
        let (compressed, notes) = compress(network(sign), data(sign), 150);
        let recipe = &compressed.recipe.recipe;
        let got = (recipe.phases[0].shift, recipe.phases[0].flip);
        assert_eq!(got, (shift, flip), "{words}");
        // What is stored with the result gives the same network.
        assert_eq!(recipe.augment, Augment::None);
        let again = Compression::new(network(sign), data(sign), recipe.clone());
        let again = again.threads(1).run(&mut Notes::default()).unwrap();
        assert_eq!(again.network.tensors, compressed.network.tensors);
        assert!(notes.iter().any(|n| n.contains(words)), "{notes:?}");
    }
}

#[test]
fn few_samples_cannot_tell_what_a_network_does_not_mind() {
    let (compressed, notes) = compress(network(everywhere), data(everywhere), 100);
    let phase = &compressed.recipe.recipe.phases[0];
    assert_eq!((phase.shift, phase.flip), (0, false));
    assert!(!notes.iter().any(|n| n.contains("mirrored")), "{notes:?}");
}
