//! Which number of weights is tried next.

use sparsevd_compressor::recipe::Goal;

/// Neighbouring tries whose numbers of weights differ by less than this factor are as near as their validation scores can tell.
const NEAR: f64 = 1.12;
/// The same for a goal in bytes, which are exact.
const NEAR_BYTES: f64 = 1.03;
/// Bits of a packed weight, about: the first guess for a goal in bytes.
const BITS: u64 = 12;

/// A try that is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Done {
    /// Number of its posterior.
    pub posterior: usize,
    /// Weights that it was to leave.
    pub weights: usize,
    /// Whether it keeps the promise, or leaves no more weights or bytes than the goal.
    pub fits: bool,
    /// Whether the validation samples tell what it costs.
    pub tells: bool,
    /// Bytes of its packed file, where it has one.
    pub bytes: Option<u64>,
}

/// What a search does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Trains the phases behind the posterior to this many weights.
    Try(usize),
    /// Trains another posterior, which leaves more weights.
    MoreCareful,
    /// Nothing: the best of the tries is the result.
    Stop,
}

/// What the present posterior leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    /// Its number.
    pub posterior: usize,
    /// Weights of the network.
    pub all: usize,
    /// Those that it leaves.
    pub survivors: usize,
}

/// The next step towards a goal; `tries` are those of every posterior so far.
pub(super) fn next(goal: Goal, left: Left, tries: &[Done]) -> Next {
    let Left { all, survivors, .. } = left;
    match (goal, goal_weights(goal, all)) {
        (_, Some(weights)) => reach(weights, survivors, tries),
        (Goal::Bytes(bytes), None) => most(bytes, survivors, tries),
        (_, None) => fewest(left, tries),
    }
}

/// The number of weights that a goal asks for of a network with `all`; `None` where the search finds the number.
pub(super) fn goal_weights(goal: Goal, all: usize) -> Option<usize> {
    match goal {
        Goal::Ratio(ratio) => Some((all as f64 / ratio).round() as usize),
        Goal::Weights(weights) => Some(weights),
        Goal::Promise | Goal::Bytes(_) => None,
    }
}

/// Begins with all survivors and halves the number of weights while tries fit, then divides the gap between the fewest that fit and the
/// most that do not. Where neither all survivors nor half of them fit, a more careful posterior is next.
fn fewest(left: Left, tries: &[Done]) -> Next {
    let survivors = left.survivors;
    // With fewer weights more outputs change, and the samples tell even less.
    if tries.last().is_some_and(|t| t.fits && !t.tells) {
        return Next::Stop;
    }
    let [fit, unfit] = [true, false].map(|fits| tries.iter().filter(move |t| t.fits == fits));
    let fit = fit.map(|t| t.weights).min();
    // More weights that did not fit say nothing: their scores are noisy.
    let below = |weights: &usize| fit.is_none_or(|fit| *weights < fit);
    let unfit = unfit.map(|t| t.weights).filter(below).max();
    match (fit, unfit) {
        (Some(1), None) => Next::Stop,
        (Some(fit), None) => Next::Try(fit / 2),
        (None, _) => {
            let own: Vec<&Done> = (tries.iter())
                .filter(|t| t.posterior == left.posterior)
                .collect();
            match own[..] {
                [] => Next::Try(survivors.max(1)),
                // Fewer weights may generalise better.
                [all] if all.tells && survivors > 1 => Next::Try(survivors / 2),
                _ => Next::MoreCareful,
            }
        }
        (Some(fit), Some(unfit)) => between(unfit, fit),
    }
}

/// One try with a number of weights.
fn reach(weights: usize, survivors: usize, tries: &[Done]) -> Next {
    match tries {
        [_, ..] => Next::Stop,
        [] if survivors < weights => Next::MoreCareful,
        [] => Next::Try(weights),
    }
}

/// The most weights that fit into some bytes.
fn most(bytes: u64, survivors: usize, tries: &[Done]) -> Next {
    let [fit, unfit] = [true, false].map(|fits| tries.iter().filter(move |t| t.fits == fits));
    let fit = fit.max_by_key(|t| t.weights);
    let unfit = unfit.min_by_key(|t| t.weights);
    // What the bytes of a try say of the number of weights that fills them.
    let filled = |done: &Done| {
        let share = bytes as f64 / done.bytes.unwrap_or(bytes).max(1) as f64;
        (done.weights as f64 * share) as usize
    };
    match (fit, unfit) {
        (None, None) => Next::Try(((8 * bytes / BITS) as usize).clamp(1, survivors.max(1))),
        (None, Some(unfit)) if unfit.weights <= 1 => Next::Stop,
        (None, Some(unfit)) => Next::Try(filled(unfit).min(unfit.weights - 1).max(1)),
        (Some(fit), unfit) => {
            let most = unfit.map_or(survivors, |unfit| unfit.weights - 1);
            let weights = filled(fit).min(most);
            match weights as f64 > fit.weights as f64 * NEAR_BYTES {
                true => Next::Try(weights),
                false => Next::Stop,
            }
        }
    }
}

/// The geometric mean of two numbers of weights that are not near each other.
fn between(fewer: usize, more: usize) -> Next {
    if more as f64 <= fewer as f64 * NEAR || more <= fewer + 1 {
        return Next::Stop;
    }
    Next::Try((fewer as f64 * more as f64).sqrt().round() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(posterior: usize, survivors: usize) -> Left {
        let all = 100_000;
        Left {
            posterior,
            all,
            survivors,
        }
    }

    /// The numbers of weights that are tried until the search stops, where exactly those fit that `fits` says, and a weight takes
    /// `bytes` bytes; each posterior leaves four times as many weights.
    fn search_at(
        bytes: u64,
        goal: Goal,
        survivors: usize,
        fits: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let (mut left, mut tries) = (of(1, survivors), vec![]);
        for _ in 0..40 {
            match next(goal, left, &tries) {
                Next::Stop => break,
                Next::MoreCareful => left = of(left.posterior + 1, 4 * left.survivors),
                Next::Try(weights) => tries.push(Done {
                    posterior: left.posterior,
                    weights,
                    fits: fits(weights),
                    tells: true,
                    bytes: Some(bytes * weights as u64),
                }),
            }
            if left.survivors > 110_000 {
                break;
            }
        }
        tries.iter().map(|t| t.weights).collect()
    }

    fn search(goal: Goal, survivors: usize, fits: impl Fn(usize) -> bool) -> Vec<usize> {
        search_at(1, goal, survivors, fits)
    }

    #[test]
    fn the_fewest_weights_that_keep_a_promise_are_found_to_a_tenth() {
        let tried = |least: usize| search(Goal::Promise, 6400, |weights| weights >= least);
        assert_eq!(tried(5000), [6400, 3200, 4525, 5381, 4934]);
        assert_eq!(tried(1000), [6400, 3200, 1600, 800, 1131, 951, 1037]);
        // Where all survivors do not do, a more careful posterior has more.
        assert_eq!(
            tried(10_000),
            [6400, 3200, 25_600, 12_800, 9051, 10_763, 9870]
        );
        // A promise that no number keeps ends with the posteriors.
        assert_eq!(
            tried(usize::MAX),
            [6400, 3200, 25_600, 12_800, 102_400, 51_200]
        );
        assert_eq!(
            tried(1),
            [6400, 3200, 1600, 800, 400, 200, 100, 50, 25, 12, 6, 3, 1]
        );
    }

    fn done(posterior: usize, weights: usize, fits: bool, tells: bool) -> Done {
        Done {
            posterior,
            weights,
            fits,
            tells,
            bytes: None,
        }
    }

    #[test]
    fn a_noisy_failure_above_a_success_does_not_stop_the_search() {
        let tries = [
            done(1, 6400, false, true),
            done(1, 3200, false, true),
            done(1, 4000, true, true),
        ];
        assert_eq!(fewest(of(1, 6400), &tries), Next::Try(3578));
    }

    #[test]
    fn samples_that_cannot_tell_leave_the_number_to_the_posterior() {
        assert_eq!(
            fewest(of(1, 6400), &[done(1, 6400, true, false)]),
            Next::Stop
        );
        let unfit = [done(1, 6400, false, false)];
        assert_eq!(fewest(of(1, 6400), &unfit), Next::MoreCareful);
        assert_eq!(fewest(of(2, 25_600), &unfit), Next::Try(25_600));
        // A posterior that leaves no more weights is tried as well.
        assert_eq!(fewest(of(2, 6000), &unfit), Next::Try(6000));
        // Fewer weights, where the samples could still tell for all of them.
        let tries = [done(1, 6400, true, true), done(1, 3200, false, false)];
        assert_eq!(fewest(of(1, 6400), &tries), Next::Try(4525));
    }

    #[test]
    fn a_ratio_is_one_try_of_a_posterior_that_leaves_enough() {
        assert_eq!(search(Goal::Ratio(50.0), 6400, |_| false), [2000]);
        assert_eq!(search(Goal::Ratio(10.0), 6400, |_| true), [10_000]);
        assert_eq!(search(Goal::Weights(77), 6400, |_| true), [77]);
    }

    #[test]
    fn bytes_are_filled_to_three_hundredths() {
        // A weight is a byte here.
        let tried =
            |bytes: u64| search(Goal::Bytes(bytes), 6400, |weights| weights as u64 <= bytes);
        assert_eq!(tried(3000), [2000, 3000]);
        assert_eq!(tried(50_000), [6400], "no more than there are");
        assert_eq!(tried(1), [1]);
        // Three bytes: the first guess is half as many again as fit.
        let fits = |weights| 3 * weights as u64 <= 3000;
        assert_eq!(search_at(3, Goal::Bytes(3000), 6400, fits), [2000, 1000]);
    }
}
