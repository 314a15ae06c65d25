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
    /// Weights that it was to leave.
    pub weights: usize,
    /// Whether it keeps the promise, or leaves no more weights or bytes than the goal.
    pub fits: bool,
    /// Whether the validation samples are too few to tell.
    pub undecided: bool,
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

/// The next step towards a goal. The posterior leaves `survivors` of `all` weights; `tries` are those of every posterior so far.
pub(super) fn next(goal: Goal, all: usize, survivors: usize, tries: &[Done]) -> Next {
    match (goal, goal_weights(goal, all)) {
        (_, Some(weights)) => reach(weights, survivors, tries),
        (Goal::Bytes(bytes), None) => most(bytes, survivors, tries),
        (_, None) => fewest(survivors, tries),
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
fn fewest(survivors: usize, tries: &[Done]) -> Next {
    // Fewer weights differ on more samples, which are then too few all the more.
    if tries.last().is_some_and(|t| t.fits && t.undecided) {
        return Next::Stop;
    }
    let [fit, unfit] = [true, false].map(|fits| tries.iter().filter(move |t| t.fits == fits));
    let fit = fit.map(|t| t.weights).min();
    // More weights that did not fit say nothing: their scores are noisy.
    let below = |weights: &usize| fit.is_none_or(|fit| *weights < fit);
    let unfit = unfit.map(|t| t.weights).filter(below).max();
    match (fit, unfit) {
        (None, None) => Next::Try(survivors.max(1)),
        (Some(1), None) => Next::Stop,
        (Some(fit), None) => Next::Try(fit / 2),
        (None, Some(unfit)) if unfit < survivors => Next::Try(survivors),
        // Fewer weights generalise better at times.
        (None, Some(_)) => {
            let half = survivors / 2;
            let undecided = tries.last().is_some_and(|t| t.undecided);
            match undecided || half == 0 || tries.iter().any(|t| t.weights == half) {
                true => Next::MoreCareful,
                false => Next::Try(half),
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

    /// The numbers of weights that are tried until the search stops, where exactly those fit that `fits` says, and a weight takes
    /// `bytes` bytes; each posterior leaves four times as many weights.
    fn search_at(
        bytes: u64,
        goal: Goal,
        survivors: usize,
        fits: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let (mut survivors, mut tries) = (survivors, vec![]);
        for _ in 0..40 {
            match next(goal, 100_000, survivors, &tries) {
                Next::Stop => break,
                Next::MoreCareful => survivors *= 4,
                Next::Try(weights) => tries.push(Done {
                    weights,
                    fits: fits(weights),
                    undecided: false,
                    bytes: Some(bytes * weights as u64),
                }),
            }
            if survivors > 110_000 {
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

    #[test]
    fn a_noisy_failure_above_a_success_does_not_stop_the_search() {
        let done = |weights, fits| Done {
            weights,
            fits,
            undecided: false,
            bytes: None,
        };
        let tries = [done(3200, false), done(6400, false), done(4000, true)];
        assert_eq!(fewest(6400, &tries), Next::Try(3578));
    }

    #[test]
    fn samples_that_cannot_tell_leave_the_number_to_the_posterior() {
        let done = |weights, fits| Done {
            weights,
            fits,
            undecided: true,
            bytes: None,
        };
        assert_eq!(fewest(6400, &[done(6400, true)]), Next::Stop);
        assert_eq!(fewest(6400, &[done(6400, false)]), Next::MoreCareful);
        assert_eq!(
            fewest(25_600, &[done(6400, false)]),
            Next::Try(25_600),
            "the next posterior"
        );
        // Fewer weights, where the samples could still tell for all of them.
        let own = Done {
            undecided: false,
            ..done(6400, true)
        };
        assert_eq!(fewest(6400, &[own, done(3200, false)]), Next::Try(4525));
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
