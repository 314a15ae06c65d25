//! Whether a snapshot can be one of a run: its position, its history and every array against network, recipe and samples.
//!
//! Each check says what is wrong: expected and got.

use sparsevd_model::quantised::is_scale;

use super::begun::Begun;
use crate::layer::Layer;
use crate::parameter::{Owner, ParameterRef, Role};
use crate::recipe::{Method, Phase, Recipe};
use crate::state::State;
use crate::trainer::history::EpochRecord;
use crate::trainer::snapshot::{Position, Snapshot};
use crate::variational::HISTOGRAM_BINS;

/// Largest log variance whose variance is a finite number of f32.
const MOST_LOG_SIGMA2: f32 = 88.0;

/// The run that a checkpoint is to be of.
pub(crate) struct Run<'r> {
    pub begun: &'r Begun,
    pub recipe: &'r Recipe,
    /// Number of samples to train on.
    pub samples: usize,
    /// The state of the network that it begins with.
    pub dense: &'r State<f32>,
    /// The same with normalisations as parts of layers, where the recipe folds them.
    pub folded: Option<&'r State<f32>>,
}

impl Run<'_> {
    pub(super) fn check(&self, snapshot: &Snapshot<'_>) -> Result<(), String> {
        self.check_position(&snapshot.position)?;
        let Snapshot {
            position,
            sums,
            history,
            state,
            average,
        } = snapshot;
        let is_sum = |sum: &f64| sum.is_finite() && (position.step > 0 || *sum == 0.0);
        if !sums.iter().all(is_sum) {
            return Err(format!(
                "expected sums over {} steps, got {sums:?}",
                position.step
            ));
        }
        self.check_history(position, history)?;
        let dense = self.dense(position);
        // A unit whose factor was zero as it came may have another one, and weights, when that is folded.
        for (layer, dense) in state.layers.iter().zip(&self.dense.layers) {
            self.check_layer(position, layer, dense)?;
        }
        let mut averaged = state.clone().into_owned();
        average.apply(&mut averaged);
        for parameter in state.parameters().iter().chain(&averaged.parameters()) {
            check_numbers(parameter, dense)?;
        }
        Ok(())
    }

    /// The state before training of the network in the form that it has at this place.
    pub(super) fn dense(&self, position: &Position) -> &State<f32> {
        let is_folded = self.recipe.folds_at(position.begun());
        self.folded.filter(|_| is_folded).unwrap_or(self.dense)
    }

    /// Whether a run at this place keeps an average of its parameters.
    pub(super) fn averages(&self, position: &Position) -> bool {
        let phase = self.phase(position).filter(|_| position.started);
        phase.is_some_and(|phase| phase.ema_decay > 0.0)
    }

    fn phase(&self, position: &Position) -> Option<&Phase> {
        self.recipe.phases.get(position.phase)
    }

    /// The phase before the one at a place.
    fn before(&self, position: &Position) -> Option<&Phase> {
        let before = position.phase.checked_sub(1)?;
        self.recipe.phases.get(before)
    }

    /// Steps of each epoch of a phase.
    fn steps(&self, phase: &Phase) -> u64 {
        phase.steps_per_epoch(self.samples) as u64
    }

    /// That the counts of a position are those of one place in the recipe.
    fn check_position(&self, position: &Position) -> Result<(), String> {
        let phases = &self.recipe.phases;
        let Position {
            phase: place,
            epoch,
            step,
            started,
            ..
        } = *position;
        let nothing = (0, 0, false);
        let fits = match self.phase(position) {
            None => place == phases.len() && (epoch, step, started) == nothing,
            Some(_) if !started => (epoch, step, started) == nothing,
            // Of several grids, a run is put back to the beginning.
            Some(phase) if phase.tries_grids() => (epoch, step) == (0, 0),
            Some(phase) => {
                let within = epoch <= phase.epochs && u64::from(step) <= self.steps(phase);
                within && (step == 0 || epoch < phase.epochs)
            }
        };
        if !fits {
            return Err(format!(
                "expected a place in a recipe of {} phases, got phase {place}, epoch {epoch}, step {step}{}",
                phases.len(),
                if started { "" } else { ", not begun" }
            ));
        }
        let done = &phases[..place];
        let of_phase = self.phase(position).map_or(0, |phase| {
            u64::from(epoch) * self.steps(phase) + u64::from(step)
        });
        let of_done = done.iter().map(|p| u64::from(p.epochs) * self.steps(p));
        let steps = of_done.sum::<u64>() + of_phase;
        let epochs = done.iter().map(|p| u64::from(p.epochs)).sum::<u64>() + u64::from(epoch);
        let adam_steps = match (started, self.before(position)) {
            (true, _) => of_phase,
            (false, Some(before)) => u64::from(before.epochs) * self.steps(before),
            (false, None) => 0,
        };
        let counts = [
            ("steps", steps, position.total_steps),
            ("epochs", epochs, position.total_epochs),
            ("steps of Adam", adam_steps, position.adam_step),
        ];
        for (what, expected, got) in counts {
            if u64::from(got) != expected {
                return Err(format!(
                    "expected {expected} {what} by phase {place}, epoch {epoch}, step {step}, got {got}"
                ));
            }
        }
        Ok(())
    }

    /// That there is a record of each epoch that is done.
    fn check_history(&self, position: &Position, history: &[EpochRecord]) -> Result<(), String> {
        let (expected, got) = (position.total_epochs as usize, history.len());
        if got != expected {
            return Err(format!("expected {expected} epochs of history, got {got}"));
        }
        let phases = self.recipe.phases.iter().enumerate();
        let epochs = phases.flat_map(|(i, p)| (1..=p.epochs).map(move |epoch| (i + 1, epoch, p)));
        for (record, (place, epoch, phase)) in history.iter().zip(epochs) {
            let is_it = (record.phase, record.epoch, record.method) == (place, epoch, phase.method);
            let layers = record.layers.iter().zip(&self.dense.layers);
            let fits = record.layers.len() == self.dense.layers.len()
                && layers.into_iter().all(|(record, layer)| {
                    record.node == layer.node
                        && record.weights == layer.original.elements()
                        && record.left <= record.weights
                        && record.units <= layer.original.dims()[0]
                        && [0, HISTOGRAM_BINS].contains(&record.log_alpha_histogram.len())
                });
            let numbers = record.loss.is_finite() && record.seconds.is_finite();
            if !(is_it && fits && numbers && record.seconds >= 0.0) {
                return Err(format!(
                    "expected the record of epoch {epoch} of phase {place} ({}) in its place in the history, got another",
                    phase.method.name()
                ));
            }
        }
        Ok(())
    }

    /// What a layer has by the position: noise, scales, and which weights there may be.
    fn check_layer(
        &self,
        position: &Position,
        layer: &Layer<f32>,
        dense: &Layer<f32>,
    ) -> Result<(), String> {
        let node = &layer.node;
        let now = self.phase(position).filter(|_| position.started);
        // What a phase leaves stays until the next one begins.
        let last = now.or(self.before(position));
        let is = |method| last.is_some_and(|phase| phase.method == method);
        if layer.is_variational() != (is(Method::SparseVd) && !layer.stays_dense()) {
            let [expected, got] = match layer.is_variational() {
                true => ["none", "some"],
                false => ["some", "none"],
            };
            return Err(format!(
                "node `{node}`: expected {expected} dropout rates at this place of the recipe, got {got}"
            ));
        }
        let rates = match layer.is_variational() {
            true => {
                let group = self.recipe.alpha.group(layer.units(), layer.patch());
                layer.theta.len().div_ceil(group)
            }
            false => 0,
        };
        for moments in &layer.log_sigma2_moments {
            if moments.len() != rates {
                let got = moments.len();
                return Err(format!(
                    "node `{node}`: expected moments of {rates} dropout rates, got {got}"
                ));
            }
        }
        let has_grid = match now {
            Some(phase) if phase.tries_grids() => {
                (self.before(position)).is_some_and(|p| p.method == Method::Quantise)
            }
            _ => is(Method::Quantise),
        };
        match layer.scales {
            Some([weight, bias]) if has_grid && is_scale(weight) && is_scale(bias) => {}
            None if !has_grid => {}
            scales => {
                let expected = if has_grid { "two positive" } else { "no" };
                let got = scales.map_or("none".into(), |s| format!("{s:?}"));
                return Err(format!(
                    "node `{node}`: expected {expected} scales of grids at this place of the recipe, got {got}"
                ));
            }
        }
        self.check_masks(layer, dense)
    }

    /// That removed weights are zero, and those that the network never had stay removed.
    fn check_masks(&self, layer: &Layer<f32>, dense: &Layer<f32>) -> Result<(), String> {
        let node = &layer.node;
        let (area, inputs, all) = (layer.area(), layer.kept_in.len(), dense.kept_in.len());
        for (place, (&mask, &theta)) in layer.mask.iter().zip(&layer.theta).enumerate() {
            if mask != 0.0 && mask != 1.0 {
                return Err(format!(
                    "`mask` of node `{node}`: expected 0 or 1, got {mask} at {place}"
                ));
            }
            if mask == 0.0 && theta != 0.0 {
                return Err(format!(
                    "`theta` of node `{node}`: expected 0 where a weight was removed, got {theta} at {place}"
                ));
            }
            let (row, input) = (place / inputs, place % inputs);
            let unit = layer.kept_out[row / area] as usize;
            let original = (unit * area + row % area) * all + layer.kept_in[input] as usize;
            if mask > dense.mask[original] {
                return Err(format!(
                    "`mask` of node `{node}`: expected weights of the network alone, got another at {place}"
                ));
            }
        }
        Ok(())
    }
}

/// That the units and inputs that a layer keeps are some of its own, ascending.
pub(super) fn check_kept(layer: &Layer<f32>) -> Result<(), String> {
    let node = &layer.node;
    let [out, inn] = [0, 1].map(|axis| layer.original.dims()[axis]);
    for (name, kept, most) in [
        ("kept_out", &layer.kept_out, out),
        ("kept_in", &layer.kept_in, inn),
    ] {
        if let Some(index) = kept.iter().find(|&&k| k as usize >= most) {
            return Err(format!(
                "`{name}` of node `{node}`: expected indices below {most}, got {index}"
            ));
        }
        if kept.is_empty() && most > 0 {
            return Err(format!(
                "`{name}` of node `{node}`: expected one index or more, got none"
            ));
        }
        if let Some(pair) = kept.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!(
                "`{name}` of node `{node}`: expected ascending indices, got {} behind {}",
                pair[1], pair[0]
            ));
        }
        if layer.groups > 1 && kept.len() != most {
            let got = kept.len();
            return Err(format!(
                "`{name}` of node `{node}`: expected all {most} indices of a grouped convolution, got {got}"
            ));
        }
    }
    Ok(())
}

/// That every number is one, and in its range.
fn check_numbers(parameter: &ParameterRef<'_, f32>, dense: &State<f32>) -> Result<(), String> {
    let node = parameter.node;
    let at = |name: &str, expected: &str, values: &[f32], fits: &dyn Fn(f32) -> bool| {
        let place = values.iter().position(|v| !(v.is_finite() && fits(*v)));
        place.map_or(Ok(()), |place| {
            let got = values[place];
            Err(format!(
                "`{name}` of node `{node}`: expected {expected}, got {got} at {place}"
            ))
        })
    };
    let (any, positive) = (|_: f32| true, |v: f32| v >= 0.0);
    let (finite, not_negative) = ("finite numbers", "numbers that are not negative");
    let part = parameter.part;
    match (parameter.role, part) {
        (Role::Statistic, "variance") => at(part, not_negative, parameter.values, &positive)?,
        _ => at(part, finite, parameter.values, &any)?,
    }
    if let (Role::Constant, Owner::Normalisation(i)) = (parameter.role, parameter.owner) {
        let of_network = dense.normalisations[i].parameters(parameter.owner);
        let same = of_network
            .iter()
            .any(|p| p.part == part && p.values == parameter.values);
        if !same {
            return Err(format!(
                "`{part}` of node `{node}`: expected the constants of the network, got others"
            ));
        }
    }
    let noise = parameter.noise.as_ref();
    for [first, second] in [parameter.moments, noise.map(|n| n.moments)]
        .into_iter()
        .flatten()
    {
        at("first moments", finite, first, &any)?;
        at("second moments", not_negative, second, &positive)?;
    }
    if let Some(noise) = noise {
        let most = |v: f32| v <= MOST_LOG_SIGMA2;
        let expected = format!("numbers of at most {MOST_LOG_SIGMA2}");
        at("log_sigma2", &expected, noise.log_sigma2, &most)?;
        at("last_log_sigma2", &expected, noise.last_log_sigma2, &most)?;
    }
    Ok(())
}
