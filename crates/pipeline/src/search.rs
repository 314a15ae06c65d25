//! The search of a recipe: one posterior, from which several numbers of weights are tried.
//!
//! A run folder has the posterior's run, and a folder for each try: an interrupted search goes on inside its last one.

mod evidence;
mod next;

use sparsevd_compressor::TrainingData;
use sparsevd_compressor::objective::SampleErrors;
use sparsevd_compressor::recipe::{Goal, Recipe};
use sparsevd_compressor::report::{
    ClassError, Promise, RunRecord, SearchReport, SplitScore, Try, ratio,
};
use sparsevd_compressor::trainer::{EpochRecord, Observer, Trainer};
use sparsevd_format::{PackOptions, pack};
use sparsevd_model::Network;

use crate::error::PipelineError;
use crate::posterior::Posterior;
use crate::pruning::finish;
use crate::run_folder::{POSTERIOR, RunFolder, TRY, part};
use crate::training::{begin, finished};
use evidence::{Evidence, QUARTER};
use next::{Done, Left, Next, goal_weights, next};

/// Posteriors that are trained at most.
const POSTERIORS: usize = 3;
/// What a posterior is called in notes.
const NAME: &str = "the posterior";
/// Why a search ended that could use more weights.
const NO_MORE: &str = "the posteriors that were trained leave no more weights";
/// Why no fewer weights are tried than the posterior leaves.
const TOO_FEW: &str =
    "validation samples are too few to tell what fewer weights than the posterior's would cost";

/// The result of a search.
pub(crate) struct Searched {
    /// The run of the try that was chosen.
    pub trainer: Trainer,
    /// Every try.
    pub report: SearchReport,
}

/// Searches as the recipe says; `budget` is the minutes of training after which no other try begins.
///
/// # Errors
/// A goal that no number of weights of this network reaches; [`PipelineError::Interrupted`] where the observer stops it; errors of a run.
pub(crate) fn search(
    network: &Network,
    recipe: &Recipe,
    data: TrainingData,
    folder: Option<&RunFolder>,
    record: Option<&RunRecord>,
    (threads, budget): (usize, Option<f64>),
    observer: &mut dyn Observer,
) -> Result<Searched, PipelineError> {
    let goal = recipe.search.as_ref().map_or(Goal::Promise, |s| s.goal());
    let all = network.original_weights();
    check(goal, all)?;
    let trainer = begin(
        network,
        recipe,
        data.clone(),
        folder,
        record,
        threads,
        observer,
    )?;
    let posterior = Posterior::train(trainer, NAME, all, folder, observer)?;
    let mut search = Search {
        network,
        data,
        folder,
        threads,
        goal,
        dense: None,
        posterior,
        kl_scale: 1.0,
        careful_kl: QUARTER,
        posteriors: 1,
        tries: vec![],
        done: vec![],
        best: None,
        seconds: 0.0,
    };
    let most = recipe.search.as_ref().map_or(1, |s| s.tries as usize);
    let ended = loop {
        let done = &search.done;
        let step = next(goal, search.left(), done);
        let over = search.is_over(budget);
        match step {
            Next::Stop => break search.why_stopped(),
            Next::Try(_) | Next::MoreCareful if done.len() >= most => {
                break format!("{most} tries were made, which are the most that the recipe allows");
            }
            Next::Try(_) | Next::MoreCareful if over && !done.is_empty() => {
                break "the budget of time was used up".to_owned();
            }
            Next::Try(weights) => search.attempt(weights, observer)?,
            Next::MoreCareful if !over && search.may_leave_more() => {
                search.be_more_careful(recipe, observer)?;
            }
            Next::MoreCareful if done.is_empty() => {
                search.attempt(search.posterior.trainer.survivors().max(1), observer)?;
            }
            Next::MoreCareful => break NO_MORE.to_owned(),
        }
    };
    search.finish(ended)
}

/// Refuses a number of weights that the network, which has `all`, cannot be left with.
fn check(goal: Goal, all: usize) -> Result<(), PipelineError> {
    match goal_weights(goal, all) {
        Some(weights) if !(1..=all).contains(&weights) => Err(PipelineError::invalid(
            "search",
            format!("a goal of 1 to {all} weights, which are those of the network"),
            format!("{}: {weights} weights", describe(goal)),
        )),
        _ => Ok(()),
    }
}

struct Search<'a> {
    network: &'a Network,
    data: TrainingData,
    folder: Option<&'a RunFolder>,
    threads: usize,
    goal: Goal,
    /// Validation errors of the dense network.
    dense: Option<SampleErrors>,
    /// The run that every try begins with, at the end of its sparse-vd phases.
    posterior: Posterior,
    /// Factor on the recipe's KL terms in it.
    kl_scale: f64,
    /// Factor on the KL terms of the next posterior.
    careful_kl: f64,
    /// Number of posteriors so far.
    posteriors: usize,
    tries: Vec<Try>,
    /// What the choice of the next step takes of them.
    done: Vec<Done>,
    /// The run of the try that is the best so far, and its place.
    best: Option<(Trainer, usize)>,
    /// Time of the tries and of the posteriors before this one.
    seconds: f64,
}

impl Search<'_> {
    /// Trains another posterior, of smaller KL terms.
    fn be_more_careful(
        &mut self,
        recipe: &Recipe,
        observer: &mut dyn Observer,
    ) -> Result<(), PipelineError> {
        self.seconds += seconds(self.posterior.trainer.history());
        self.kl_scale *= self.careful_kl;
        self.posteriors += 1;
        observer.note(&format!(
            "another posterior, with KL terms times {}",
            self.kl_scale
        ));
        let mut of_try = recipe.of_try(self.kl_scale, 1);
        of_try.target_deviation = self.posterior.trainer.recipe().target_deviation;
        let folder = self.part(POSTERIOR, self.posteriors);
        let (data, threads) = (self.data.clone(), self.threads);
        let trainer = begin(
            self.network,
            &of_try,
            data,
            folder.as_ref(),
            None,
            threads,
            observer,
        )?;
        let all = self.network.original_weights();
        self.posterior = Posterior::train(trainer, NAME, all, self.folder, observer)?;
        Ok(())
    }

    /// Trains the phases behind the posterior to this many weights.
    fn attempt(
        &mut self,
        weights: usize,
        observer: &mut dyn Observer,
    ) -> Result<(), PipelineError> {
        let number = self.tries.len() + 1;
        observer.note(&format!("try {number}: to {weights} weights"));
        let folder = self.part(TRY, number);
        let mut trainer = self.posterior.fork_to(weights, folder.as_ref(), observer)?;
        let before = self.posterior.trainer.history().len();
        finished(trainer.run(observer)?, self.folder)?;
        self.seconds += seconds(&trainer.history()[before..]);
        let (report, tells) = self.measure(&mut trainer, weights)?;
        observer.note(&format!("try {number}: {}", line(&report)));
        if self
            .best
            .as_ref()
            .is_none_or(|(_, best)| self.is_better(&report, &self.tries[*best]))
        {
            self.best = Some((trainer, self.tries.len()));
        }
        self.done.push(Done {
            posterior: self.posteriors,
            weights,
            fits: report.fits,
            tells,
            bytes: report.bytes,
        });
        self.tries.push(report);
        Ok(())
    }

    /// What a try gave on the validation samples that tries see, and whether they tell what it costs.
    fn measure(
        &mut self,
        trainer: &mut Trainer,
        weights: usize,
    ) -> Result<(Try, bool), PipelineError> {
        let recipe = trainer.recipe().clone();
        let dense = match self.dense.take() {
            Some(dense) => dense,
            None => trainer.dense_validation_errors()?,
        };
        let sparse = trainer.validation_errors(trainer.threshold());
        let validation = SplitScore::new(&dense, &sparse);
        let classes = ClassError::of(&dense, &sparse);
        let promise = Promise::new(&recipe, &validation, &classes);
        let evidence = Evidence::new(&promise, &validation, &classes);
        self.dense = Some(dense);
        let own = weights >= self.posterior.trainer.survivors();
        if own {
            self.careful_kl = evidence.careful_kl();
        }
        let network = finish(trainer.network()?);
        let bytes = match recipe.ends_on_grids() {
            true => {
                let packed = pack(&network, &PackOptions::for_size_of(&network))?;
                Some(packed.len() as u64)
            }
            false => None,
        };
        let (all, left) = (network.original_weights(), network.nonzeros());
        let fits = match self.goal {
            Goal::Promise => evidence.is_safe(own, self.kl_scale < 1.0 || !self.removes()),
            Goal::Bytes(most) => bytes.is_some_and(|bytes| bytes <= most),
            Goal::Ratio(_) | Goal::Weights(_) => {
                goal_weights(self.goal, all).is_some_and(|most| left <= most)
            }
        };
        let report = Try {
            posterior: self.posteriors,
            kl_scale: self.kl_scale,
            weights,
            left,
            ratio: ratio(all, left),
            bytes,
            validation,
            fits,
            undecided: self.goal == Goal::Promise && evidence.is_undecided(),
            chosen: false,
        };
        Ok((report, evidence.tells()))
    }

    /// Whether a try is nearer to the goal than another.
    fn is_better(&self, a: &Try, b: &Try) -> bool {
        match (self.goal, a.fits, b.fits) {
            (_, true, false) => true,
            (_, false, true) => false,
            (Goal::Bytes(_), true, true) => a.left > b.left,
            (Goal::Bytes(_), false, false) => a.bytes < b.bytes,
            (_, true, true) => a.left < b.left,
            // Where the samples cannot tell, more weights are more careful.
            (_, false, false) if a.undecided && b.undecided => a.left > b.left,
            // A drop that is no number is the worst.
            (_, false, false) => {
                let [a, b] = [a, b].map(|t| t.validation.drop());
                a < b || (b.is_nan() && !a.is_nan())
            }
        }
    }

    /// Whether training has taken the minutes of `budget`.
    fn is_over(&self, budget: Option<f64>) -> bool {
        let used = self.seconds + seconds(self.posterior.trainer.history());
        budget.is_some_and(|budget| used >= 60.0 * budget)
    }

    /// What the posterior leaves.
    fn left(&self) -> Left {
        Left {
            posterior: self.posteriors,
            all: self.network.original_weights(),
            survivors: self.posterior.trainer.survivors(),
        }
    }

    /// Whether the posterior removes weights: not without a KL term, nor where no rate is over the threshold.
    fn removes(&self) -> bool {
        let Left { all, survivors, .. } = self.left();
        self.posterior.trainer.threshold().is_finite() && survivors < all
    }

    /// Whether another posterior could leave more weights.
    fn may_leave_more(&self) -> bool {
        self.posteriors < POSTERIORS && self.removes()
    }

    /// Why no other number of weights is tried, where `next` stops.
    fn why_stopped(&self) -> String {
        let asked = goal_weights(self.goal, self.network.original_weights());
        let tried = self.tries.last().map_or(0, |t| t.weights);
        match asked {
            Some(asked) if tried < asked => NO_MORE,
            Some(_) => "a number of weights takes one try",
            None if self.done.last().is_some_and(|t| t.fits && !t.tells) => TOO_FEW,
            None => "no number of weights between those that were tried would say more",
        }
        .into()
    }

    /// What the best try has in the place of a goal in weights or bytes, where it does not reach it.
    fn missed(&self, best: &Try) -> Option<String> {
        let all = self.network.original_weights();
        let missed = match (self.goal, goal_weights(self.goal, all)) {
            (Goal::Bytes(most), _) => {
                let bytes = best.bytes.unwrap_or_default();
                Some(format!("expected at most {most} bytes packed, got {bytes}"))
            }
            (_, most) => most.map(|most| format!("expected {most} weights, got {}", best.left)),
        };
        missed.filter(|_| !best.fits)
    }

    /// The folder of a part of the search, in that of the run.
    fn part(&self, kind: &str, number: usize) -> Option<RunFolder> {
        Some(RunFolder::part(part(self.folder?.path(), kind, number)))
    }

    fn finish(mut self, ended: String) -> Result<Searched, PipelineError> {
        let Some((trainer, best)) = self.best.take() else {
            return Err(PipelineError::invalid("search", "at least one try", "none"));
        };
        self.tries[best].chosen = true;
        let report = SearchReport {
            goal: describe(self.goal),
            missed: self.missed(&self.tries[best]),
            tries: self.tries,
            ended,
            seconds: self.seconds + seconds(self.posterior.trainer.history()),
        };
        Ok(Searched { trainer, report })
    }
}

/// Wall time of epochs.
fn seconds(history: &[EpochRecord]) -> f64 {
    history.iter().map(|e| e.seconds).sum()
}

/// A goal in words.
pub(crate) fn describe(goal: Goal) -> String {
    match goal {
        Goal::Promise => "the fewest weights that keep the promise".into(),
        Goal::Ratio(ratio) => format!("a ratio of {ratio}x"),
        Goal::Weights(weights) => format!("{weights} weights"),
        Goal::Bytes(bytes) => format!("a packed file of {bytes} bytes"),
    }
}

/// A try in a line of the log.
fn line(t: &Try) -> String {
    let bytes = t
        .bytes
        .map_or(String::new(), |b| format!(", {b} bytes packed"));
    let ratio = t
        .ratio
        .map_or(String::new(), |ratio| format!(", {ratio:.1}x"));
    let fits = match (t.fits, t.undecided) {
        (true, _) => "fits",
        (false, true) => "undecided, too few samples",
        (false, false) => "does not fit",
    };
    format!(
        "{} weights left{ratio}{bytes}, drop {:+.4} on validation: {fits}",
        t.left,
        t.validation.drop()
    )
}
