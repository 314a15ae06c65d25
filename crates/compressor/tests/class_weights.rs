//! Balanced class weights: what they do to a rare class.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_compressor::objective::ClassWeights;
use sparsevd_compressor::recipe::{Method, Phase, Recipe};
use sparsevd_compressor::trainer::{RunOptions, Silent, Trainer};
use sparsevd_compressor::{Images, TrainingData, initialise};
use sparsevd_format::{Dataset, Pixels, RegressionSet};
use sparsevd_model::{Preprocessing, Shape, presets};

/// One number per sample: nineteen of twenty are of class 0 and spread around 0, the others of class 1 around 1.5, both over four
/// units.
fn set(samples: usize) -> Dataset {
    let labels: Vec<u16> = (0..samples).map(|i| u16::from(i % 20 == 0)).collect();
    let numbers = (labels.iter().enumerate())
        .map(|(i, &label)| {
            ((i / 20 * 37 + i * 11) % 101) as f32 / 25.0 - 2.0 + 1.5 * f32::from(label)
        })
        .collect();
    Dataset::new(Pixels::F32(numbers), Shape::from([1]), labels).unwrap()
}

fn recipe(class_weights: Option<ClassWeights>) -> Recipe {
    Recipe {
        class_weights,
        phases: vec![Phase {
            batch: 100,
            lr: 3e-2,
            ..Phase::new(Method::Dense, 30)
        }],
        ..Recipe::default_for_training()
    }
}

/// Recall of both classes of a linear classifier that was trained by `recipe`.
fn recalls(recipe: Recipe) -> [f64; 2] {
    let shape = Shape::from([1]);
    let (graph, tensors) = presets::mlp("line", shape.clone(), &[2]);
    let network = initialise(graph, &tensors, 1).unwrap();
    let images = |set: Dataset| Images::new(set, &shape, &Preprocessing::default());
    let data = TrainingData::new(images(set(2000)), images(set(200)));
    let mut trainer = Trainer::new(&network, recipe, data, &RunOptions::default()).unwrap();
    trainer.run(&mut Silent).unwrap();
    let network = trainer.network().unwrap();
    let [weight, bias] =
        ["weight", "bias"].map(|name| network.tensors[&format!("fc1.{name}")].to_dense().values);
    let test = set(2000);
    let Pixels::F32(numbers) = &test.pixels else {
        panic!("numbers")
    };
    let (mut right, mut all) = ([0.0; 2], [0.0; 2]);
    for (&label, &x) in test.labels.iter().zip(numbers) {
        let score = |class: usize| weight[class] * x + bias[class];
        let label = usize::from(label);
        all[label] += 1.0;
        right[label] += f64::from(u8::from(score(label) > score(1 - label)));
    }
    [right[0] / all[0], right[1] / all[1]]
}

#[test]
fn a_rare_class_is_not_given_up_for_the_others() {
    let [common, rare] = recalls(recipe(None));
    assert!(common > 0.95 && rare < 0.45, "{common}, {rare}");
    let [common, rare] = recalls(recipe(Some(ClassWeights::Balanced)));
    assert!(
        (0.55..0.85).contains(&common) && rare > 0.6,
        "{common}, {rare}"
    );
}

#[test]
fn numbers_have_no_classes_to_weigh() {
    let shape = Shape::from([1]);
    let (graph, tensors) = presets::mlp("line", shape.clone(), &[1]);
    let network = initialise(graph, &tensors, 1).unwrap();
    let numbers: Vec<f32> = (0..20).map(|i| i as f32).collect();
    let set = || {
        RegressionSet::new(
            Pixels::F32(numbers.clone()),
            shape.clone(),
            numbers.clone(),
            1,
        )
    };
    let images = || Images::with_numbers(set().unwrap(), &shape, &Preprocessing::default());
    let data = TrainingData::new(images(), images());
    let recipe = recipe(Some(ClassWeights::Balanced));
    let trainer = Trainer::new(&network, recipe, data, &RunOptions::default());
    let error = trainer.err().unwrap().to_string();
    assert!(error.contains("class_weights: expected classes"), "{error}");
}
