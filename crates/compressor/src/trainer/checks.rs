//! What a run refuses before it begins.

use std::collections::BTreeMap;

use sparsevd_model::passes::without_normalization;
use sparsevd_model::{Graph, Network};

use crate::data::Samples;
use crate::error::CompressError;
use crate::layer::Layer;
use crate::objective::{Loss, Targets};
use crate::recipe::{Augment, Recipe};

/// That inputs which number the rows of tables are rows of them.
pub(super) fn check_ids(network: &Network, samples: &dyn Samples) -> Result<(), CompressError> {
    let ids = network.ids();
    if ids.is_empty() {
        return Ok(());
    }
    let (mut graph, mut length) = (network.graph.at_length(1), 1);
    let mut sample = vec![];
    for i in 0..samples.len() {
        if samples.length(i) != length {
            length = samples.length(i);
            graph = network.graph.at_length(length);
        }
        let sizes = graph.inputs.iter().map(|input| input.shape.elements());
        sample.resize(sizes.sum(), 0.0);
        samples.fill(i, [0, 0], &mut sample);
        let mut rest = sample.as_slice();
        for input in &graph.inputs {
            let (numbers, others) = rest.split_at(input.shape.elements());
            rest = others;
            let Some(&rows) = ids.get(input.name.as_str()) else {
                continue;
            };
            let is_id = |v: &&f32| v.fract() == 0.0 && (0.0..rows as f32).contains(*v);
            if let Some(got) = numbers.iter().find(|v| !is_id(v)) {
                let name = format!("input `{}`, sample {i}", input.name);
                let expected = format!("ids from 0 to {}", rows - 1);
                return Err(CompressError::setting(&name, expected, got));
            }
        }
    }
    Ok(())
}

/// That some length of samples fills a batch in every phase.
pub(super) fn check_lengths(samples: &dyn Samples, recipe: &Recipe) -> Result<(), CompressError> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for i in 0..samples.len() {
        *counts.entry(samples.length(i)).or_default() += 1;
    }
    let most = counts.into_values().max().unwrap_or(0);
    let batches = recipe.phases.iter().map(|p| p.batch_of(samples.len()));
    match batches.max() {
        Some(batch) if batch > most => {
            let expected = format!("at most {most}, the samples of the commonest length");
            Err(CompressError::setting("batch", expected, batch))
        }
        _ => Ok(()),
    }
}

/// That more weights may be left than layers have which lose none: else of the other layers nothing would be left.
pub(super) fn check_weights(layers: &[Layer<f32>], recipe: &Recipe) -> Result<(), CompressError> {
    let kept = layers.iter().filter(|layer| layer.keep_dense);
    let kept: usize = kept.map(Layer::alive).sum();
    match recipe
        .phases
        .iter()
        .find_map(|p| p.weights.filter(|w| *w <= kept))
    {
        Some(weights) if kept > 0 => {
            let expected = format!("more than the {kept} of the layers that are kept dense");
            Err(CompressError::setting("weights", expected, weights))
        }
        _ => Ok(()),
    }
}

/// That compression put settings in the place of those that it measures, and that inputs which are augmented are maps: in another one, neighbours are no pixels.
pub(super) fn check_augmentation(graph: &Graph, recipe: &Recipe) -> Result<(), CompressError> {
    if recipe.augment == Augment::Measured {
        let expected = "`none`; `measured` is for `compress MODEL` and `compress compare`";
        return Err(CompressError::setting("augment", expected, "measured"));
    }
    let Some(shape) = graph.inputs.first().map(|input| &input.shape) else {
        return Ok(());
    };
    if shape.dims().len() == 3 {
        return Ok(());
    }
    for phase in &recipe.phases {
        let settings = [
            ("shift", "0", phase.shift > 0, phase.shift.to_string()),
            ("flip", "false", phase.flip, phase.flip.to_string()),
            ("cutout", "0", phase.cutout > 0, phase.cutout.to_string()),
        ];
        if let Some((name, none, _, got)) = settings.into_iter().find(|s| s.2) {
            let expected = format!("{none} for inputs {shape}, which are no images");
            return Err(CompressError::setting(name, expected, got));
        }
    }
    Ok(())
}

/// That a network has the batch normalisations with which the recipe lets it train.
pub(super) fn check_normalisation(network: &Network, recipe: &Recipe) -> Result<(), CompressError> {
    let without = without_normalization(network);
    match without.first() {
        Some(name) if recipe.batch_normalisation => {
            let expected =
                "false where neither `compress MODEL` nor `compress compare` puts it there";
            let got = format!("true, and none after `{name}`");
            Err(CompressError::setting("batch_normalisation", expected, got))
        }
        _ => Ok(()),
    }
}

/// That labels which are smoothed are classes.
pub(super) fn check_smoothing(loss: Loss, recipe: &Recipe) -> Result<(), CompressError> {
    let smoothed = recipe
        .phases
        .iter()
        .find(|phase| phase.label_smoothing > 0.0);
    match smoothed {
        Some(phase) if loss != Loss::CrossEntropy => {
            let expected = "0 under another loss than the cross-entropy";
            let got = phase.label_smoothing;
            Err(CompressError::setting("label_smoothing", expected, got))
        }
        _ => Ok(()),
    }
}

/// That the samples to train on are not all of one class.
pub(super) fn check_classes(samples: &dyn Samples) -> Result<(), CompressError> {
    let Targets::Classes(labels) = samples.targets() else {
        return Ok(());
    };
    match labels.first() {
        Some(first) if labels.iter().all(|l| l == first) => {
            let count = labels.len();
            if !samples.has_targets() {
                return Err(CompressError::Data(format!(
                    "the network answers all {count} inputs to train on alike, by class {first}: there is nothing to learn from"
                )));
            }
            Err(CompressError::Data(format!(
                "expected samples of two classes or more to train on, got {count}, all of class {first}"
            )))
        }
        _ => Ok(()),
    }
}
