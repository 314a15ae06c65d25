//! One epoch: its steps, the pruning after it, and its record.

use std::time::Instant;

use sparsevd_model::Op;

use super::history::{EpochRecord, LayerRecord};
use super::inputs::unscaled;
use super::observer::Observer;
use super::pruning::{cost, cut, survivors, under_threshold};
use super::schedule::Schedule;
use super::{Outcome, Trainer};
use crate::checkpoint;
use crate::data::EpochOrder;
use crate::engine::Batch;
use crate::error::CompressError;
use crate::frame::{self, Frame, FrameTime};
use crate::recipe::{Phase, PruneBy};
use crate::units;

impl Trainer {
    /// Trains the rest of the current epoch, prunes and records it.
    pub(super) fn epoch(
        &mut self,
        phase: &Phase,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, CompressError> {
        let started = Instant::now();
        let seed = self.recipe.seed;
        let images = self.data.train().len();
        let (batch, passes) = (phase.batch_of(images), phase.passes(images));
        let epoch = self.position.total_epochs;
        let order = match self.original().graph.free_symbol() {
            None => EpochOrder::new(images, passes, phase.augmentation(), seed, epoch),
            Some(_) => {
                let length = |i| self.data.train().length(i);
                EpochOrder::by_length(images, passes, batch, &length, [seed, epoch.into()])
            }
        };
        let steps = phase.steps_per_epoch(images) as u32;
        let schedule = Schedule {
            phase,
            steps,
            descent: self.descent(),
        };
        // Of several grids the one that is chosen has a frame, at its end.
        let has_frames = !phase.tries_grids();
        while self.position.step < steps {
            if observer.stop() {
                return Ok(Outcome::Interrupted);
            }
            self.step(schedule, &order, batch)?;
            let done = self.position.step;
            if has_frames && frame::is_due_in_epoch(&self.position) {
                self.keep_frame(f64::from(done) / f64::from(steps))?;
            }
            observer.step(
                self.position.epoch + 1,
                done,
                steps,
                self.sums[0] / f64::from(done) / batch as f64,
            );
        }
        // What follows is done again where the run goes on from here.
        if observer.stop() {
            return Ok(Outcome::Interrupted);
        }
        let at_end = (self.position, self.sums);
        let [loss, errors] = self.sums;
        let objective = self.objective(phase);
        let samples = f64::from(steps) * batch as f64;
        let mean = loss / samples;
        // A network that began with a loss like that has not diverged.
        if mean > self.divergence && mean > 2.0 * self.dense_loss()? {
            return Err(self.diverged(mean));
        }
        self.position.epoch += 1;
        self.position.total_epochs += 1;
        self.position.step = 0;
        self.sums = [0.0; 2];
        let pruned_over = phase.prune_threshold_after(self.position.epoch);
        let prunes = pruned_over.is_some() || phase.pruned_in_steps().is_some();
        let before = prunes.then(|| self.engine.state().clone());
        if let Some(threshold) = pruned_over {
            self.remove_over(threshold)?;
        } else if phase.pruned_in_steps().is_some() {
            self.remove(&under_threshold(self.engine.layers(), 0.0))?;
        }
        let train_error = objective.mean_error(errors, samples);
        let record = self.record(phase, mean, train_error, &mut || observer.stop())?;
        let Some(mut record) = record else {
            (self.position, self.sums) = at_end;
            if let Some(before) = before {
                self.replace_state(|state| *state = before)?;
            }
            return Ok(Outcome::Interrupted);
        };
        record.seconds = started.elapsed().as_secs_f64();
        let epochs = self.recipe.phases.iter().map(|p| p.epochs).sum();
        if has_frames && frame::is_due_after_epoch(&self.position, phase.epochs, epochs) {
            self.keep_frame(0.0)?;
        }
        observer.epoch(&record);
        self.history.push(record);
        Ok(Outcome::Done)
    }

    /// One step of `batch` samples.
    fn step(
        &mut self,
        schedule: Schedule<'_>,
        order: &EpochOrder,
        batch: usize,
    ) -> Result<(), CompressError> {
        let phase = schedule.phase;
        let (images, size) = (self.data.train(), self.image_size());
        let first = self.position.step as usize * batch;
        let places = first..first + batch;
        let length = images.length(order.samples[first] as usize);
        self.engine.set_length(length)?;
        let targets = images.targets();
        let targets = targets.select(places.clone().map(|p| order.samples[p] as usize));
        let fill = |i: usize, out: &mut [f32]| {
            let view = order.view(first + i);
            images.fill(
                order.samples[first + i] as usize,
                view.shift.map(i32::from),
                out,
            );
            if let Some(size) = size {
                view.finish(size, out);
            }
        };
        let teacher = self.teacher.as_deref().filter(|_| phase.distil > 0.0);
        let outputs = teacher.map(|teacher| teacher.outputs(order, places, length, &fill));
        let outputs = outputs.transpose()?;
        let objective = self.objective(phase);
        let data = Batch {
            samples: batch,
            fill: &fill,
            objective: &*objective,
            targets: &targets,
            teacher: outputs.as_deref(),
        };
        let report = self
            .engine
            .backward(&data, self.recipe.seed, self.position.total_steps)?;
        if !report.objective.is_finite() {
            return Err(self.diverged(report.objective));
        }
        let epochs = schedule.epochs_done(&self.position);
        self.position.adam_step += 1;
        let adam_step = self.position.adam_step;
        self.engine
            .update(&schedule.hyper(epochs, adam_step, images.len()));
        if phase.ema_decay > 0.0 {
            (self.average).update(self.engine.state(), phase.ema_decay, adam_step);
        }
        self.sums[0] += report.loss;
        self.sums[1] += report.error;
        self.position.step += 1;
        self.position.total_steps += 1;
        if let Some((target, t)) = schedule.pruning(epochs, adam_step) {
            self.prune(phase.prune_by, target, t);
        }
        Ok(())
    }

    /// Removes the weights that cost least; `t` is the share of the pruning that is over.
    fn prune(&mut self, by: PruneBy, target: usize, t: f64) {
        let earlier = |r: &&EpochRecord| r.phase != self.position.phase + 1;
        let before = self.history.iter().rev().find(earlier);
        let layers = self.engine.layers();
        let begin = match before {
            // What that phase left at its end came after its last record.
            Some(record) => {
                let phase = &self.recipe.phases[record.phase - 1];
                let at_end = phase.weights.filter(|_| phase.pruned_in_steps().is_none());
                record.left().min(at_end.unwrap_or(usize::MAX))
            }
            None => survivors(&self.came.dense.layers, 0.0),
        };
        if let Some(cut) = cut(layers, by, begin, target, t) {
            self.engine
                .remove_where(|theta, second| cost(by, theta, second) < cut);
        }
    }

    /// Writes a frame, where the run has a folder; `share` of the present epoch is done.
    pub(super) fn keep_frame(&self, share: f64) -> Result<(), CompressError> {
        let Some(folder) = &self.run_folder else {
            return Ok(());
        };
        let time = FrameTime {
            step: self.position.total_steps,
            epochs: f64::from(self.position.total_epochs) + share,
            phase: (self.position.phase + 1).min(self.recipe.phases.len()),
        };
        let (layers, dense) = (self.engine.layers(), &self.came.dense.layers);
        let mut frame = Frame::new(time, layers, dense, self.threshold());
        // The trainer has the last layer in units of the targets.
        let last = units::last_layer(self.original()).and_then(Op::weight);
        for (shown, layer) in frame.layers.iter_mut().zip(layers) {
            if last == Some(layer.weight.as_str()) {
                shown.scale *= self.unit;
            }
        }
        frame.write(folder)
    }

    fn diverged(&self, loss: f64) -> CompressError {
        let (phase, epoch) = (self.position.phase + 1, self.position.epoch as usize + 1);
        if let Some(input) = unscaled(&self.original().graph, self.data.train()) {
            return CompressError::Unscaled {
                loss,
                phase,
                epoch,
                column: input.column,
                mean: input.mean,
                deviation: input.deviation,
            };
        }
        CompressError::Diverged {
            loss,
            phase,
            epoch,
            checkpoint: match &self.run_folder {
                Some(folder) if checkpoint::path(folder).is_file() => {
                    checkpoint::path(folder).display().to_string()
                }
                Some(_) => "none, as no epoch was done".into(),
                None => "none, as the run has no folder".into(),
            },
        }
    }

    /// The record of an epoch but for its time; `None` where `stop` says so in between.
    fn record(
        &mut self,
        phase: &Phase,
        loss: f64,
        train_error: f64,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Option<EpochRecord>, CompressError> {
        let threshold = self.threshold();
        let Some(validation) = self.averaged_validation_errors(threshold, stop)? else {
            return Ok(None);
        };
        let validation = validation.score;
        let layers: Vec<LayerRecord> = self
            .engine
            .layers()
            .iter()
            .map(|l| LayerRecord::new(l, threshold))
            .collect();
        let parameters = self.engine.state().parameters();
        let posteriors = parameters.iter().filter_map(|p| p.posterior());
        let kl = posteriors.fold(0.0, |kl, posterior| kl + posterior.kl());
        Ok(Some(EpochRecord {
            phase: self.position.phase + 1,
            method: phase.method,
            epoch: self.position.epoch,
            loss,
            train_error,
            kl,
            validation_error: validation.error(),
            validation_r2: validation.r2(),
            layers,
            seconds: 0.0,
        }))
    }
}
