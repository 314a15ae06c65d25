//! Pruning in one shot with a repair: the weights whose removal changes a layer's outputs least go one after the other, and those
//! that stay are set anew each time.
//!
//! For a row `w` of weights, inputs `x` and `H` the sum of `x x^T`, removing weight `p` and moving the others so that the outputs change
//! least costs `w_p^2 / G_pp` of squared error, with `G` the inverse of `H`; the others move by `-w_p / G_pp` times column `p` of `G`
//! (Hassibi and Stork 1993, equations 5 and 6). Weights are removed one at a time, each row for itself, with `G` updated after each
//! (Frantar and Alistarh 2022, "Optimal Brain Compression", algorithm 1). Which rows lose how many is decided by the costs, the cheapest
//! first. A bias is the weight of an input that is always 1; it is never removed.
//!
//! That takes time with the cube of the inputs for each row. Layers of many inputs take one order of inputs for all rows instead, so
//! that `G` is updated once for all: inputs are passed block by block, in each block the cheapest weights of all rows go, and those of
//! later inputs make up for them (Frantar and Alistarh 2023, "SparseGPT", algorithm 1).

mod moments;

use rayon::prelude::*;

pub use self::moments::Moments;
use crate::error::CompressError;
use crate::linear_algebra::{cholesky, dot, inverse, multiply, upper_factor};

/// Inputs up to which each row has its own order.
const MOST_OF_OWN_ORDER: usize = 640;
/// Inputs of a block of a common order.
const BLOCK: usize = 128;
/// Shares of the weights at which a common order's costs are found; between them, what one more weight costs is interpolated.
const SHARES: [f64; 9] = [0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.88, 0.94, 0.98];
/// Multiply-adds that a refit of a layer may take.
const MOST_REFIT: f64 = 3e11;

/// A layer's weights `[unit][input]` with its biases, and what removing each weight costs.
#[derive(Debug)]
pub struct Surgeon {
    size: usize,
    damped: Vec<f64>,
    /// `[unit][size]`, the last of each the bias, before anything is removed.
    rows: Vec<Vec<f64>>,
    order: Order,
    /// Sum of the squared outputs, less their means.
    energy: f64,
}

/// In which order weights go.
#[derive(Debug)]
enum Order {
    /// Of each row, its removals.
    Own(Vec<Vec<Removal>>),
    /// Inputs in their order: row `i` has by what the removal of the weight of input `i` moves each later one, over the root of its cost.
    Common(Vec<f64>),
}

/// The removal of one weight of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Removal {
    input: u32,
    /// Squared error over the samples that it adds.
    cost: f64,
}

impl Surgeon {
    /// Finds in which order the weights `[unit][input]` of each unit are to go.
    ///
    /// # Errors
    /// Inputs or weights that are not finite.
    ///
    /// # Panics
    /// When the numbers of weights, biases and inputs disagree.
    #[track_caller]
    pub fn new(weights: &[f32], bias: &[f32], moments: &Moments) -> Result<Self, CompressError> {
        let n = moments.size;
        assert_eq!(weights.len(), bias.len() * (n - 1), "weights");
        let (damped, more) = moments.damped();
        let inverse = inverse(&damped, n)?;
        let original = |unit: usize| -> Vec<f64> {
            let row = &weights[unit * (n - 1)..(unit + 1) * (n - 1)];
            row.iter()
                .chain([&bias[unit]])
                .map(|w| f64::from(*w))
                .collect()
        };
        let mut energy = 0.0;
        let rows: Vec<Vec<f64>> = (0..bias.len())
            .map(|unit| {
                let row = original(unit);
                energy += spread(&row, moments);
                // The row that comes nearest to the outputs as they were, damped towards the row as it was.
                let mut aim = multiply(&moments.cross, &row, n);
                aim.iter_mut()
                    .zip(&row)
                    .take(n - 1)
                    .for_each(|(a, w)| *a += more * w);
                multiply(&inverse, &aim, n)
            })
            .collect();
        let order = match n - 1 > MOST_OF_OWN_ORDER {
            false => Order::Own(rows.par_iter().map(|row| order(row, &inverse)).collect()),
            true => Order::Common(upper_factor(inverse, n)?),
        };
        Ok(Self {
            size: n,
            damped,
            rows,
            order,
            energy,
        })
    }

    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.rows.len() * (self.size - 1)
    }

    /// What removing the cheapest weights costs, as a share of the variance of the layer's outputs: of each number removed, none at first.
    pub fn costs(&self) -> Vec<f64> {
        // Weights of a layer whose outputs are always the same cost nothing.
        let energy = match self.energy > 0.0 {
            true => self.energy,
            false => f64::INFINITY,
        };
        match &self.order {
            Order::Own(removals) => {
                let mut sum = 0.0;
                let costs = merged(removals).into_iter().map(|(_, cost)| {
                    sum += cost;
                    sum / energy
                });
                [0.0].into_iter().chain(costs).collect()
            }
            Order::Common(factor) => {
                let all = self.weights();
                let mut found = vec![(0, 0.0)];
                for share in SHARES.into_iter().chain([1.0]) {
                    let removed = (share * all as f64).round() as usize;
                    let (before, last) = found[found.len() - 1];
                    if removed > before {
                        let (_, cost) = self.in_common_order(factor, removed);
                        // Costs of more weights are no lower, which the blocks do not make sure of.
                        found.push((removed, (cost / energy).max(last)));
                    }
                }
                interpolated(&found)
            }
        }
    }

    /// Weights and biases with the cheapest `removed` weights at zero and the others where the outputs change least.
    ///
    /// # Errors
    /// Inputs that are not finite.
    ///
    /// # Panics
    /// When there are fewer weights.
    pub fn prune(&self, removed: usize) -> Result<[Vec<f32>; 2], CompressError> {
        self.pruned(removed, MOST_REFIT)
    }

    /// As [`Surgeon::prune`], but in a common order the others are not set anew once more at the end, which takes most of the time.
    ///
    /// # Errors
    /// As [`Surgeon::prune`].
    ///
    /// # Panics
    /// As [`Surgeon::prune`].
    pub fn prune_quickly(&self, removed: usize) -> Result<[Vec<f32>; 2], CompressError> {
        self.pruned(
            removed,
            match &self.order {
                Order::Own(_) => MOST_REFIT,
                Order::Common(_) => 0.0,
            },
        )
    }

    /// Weights and biases; the others are set anew where that takes at most this number of multiply-adds.
    fn pruned(&self, removed: usize, most_refit: f64) -> Result<[Vec<f32>; 2], CompressError> {
        assert!(removed <= self.weights(), "weights to remove");
        let n = self.size;
        let pruned = match &self.order {
            Order::Own(removals) => {
                let mut of_row = vec![0; self.rows.len()];
                merged(removals)[..removed]
                    .iter()
                    .for_each(|(row, _)| of_row[*row] += 1);
                let pruned = self.rows.iter().zip(removals).zip(of_row);
                let pruned = pruned.map(|((row, removals), count)| {
                    let mut row = row.clone();
                    removals[..count]
                        .iter()
                        .for_each(|r| row[r.input as usize] = 0.0);
                    row
                });
                pruned.collect()
            }
            Order::Common(factor) => self.in_common_order(factor, removed).0,
        };
        let stays = |row: &[f64]| -> Vec<bool> {
            let living = row.iter().enumerate().map(|(i, w)| *w != 0.0 || i == n - 1);
            living.collect()
        };
        let work: f64 = (pruned.iter())
            .map(|row| (row.iter().filter(|w| **w != 0.0).count() as f64).powi(3) / 3.0)
            .sum();
        let rows: Result<Vec<Vec<f64>>, CompressError> = match work > most_refit {
            true => Ok(pruned),
            false => (pruned.par_iter().zip(&self.rows))
                .map(|(pruned, row)| self.refit(row, &stays(pruned)))
                .collect(),
        };
        let (mut weights, mut bias) = (vec![], vec![]);
        for row in rows? {
            weights.extend(row[..n - 1].iter().map(|w| *w as f32));
            bias.push(row[n - 1] as f32);
        }
        Ok([weights, bias])
    }

    /// The rows with `removed` weights at zero, and what that costs, in the order of the inputs.
    fn in_common_order(&self, factor: &[f64], removed: usize) -> (Vec<Vec<f64>>, f64) {
        let n = self.size;
        let mut rows = self.rows.clone();
        let (mut left, mut cost) = (removed, 0.0);
        for first in (0..n - 1).step_by(BLOCK) {
            let inputs = first..(n - 1).min(first + BLOCK);
            // Each block loses the same share of its weights.
            let of_block = left * inputs.len() / (n - 1 - first);
            left -= of_block;
            let score = |row: &[f64], i: usize| (row[i] / factor[i * n + i]).powi(2);
            let mut scores: Vec<(f64, u32, u32)> = vec![];
            for (unit, row) in rows.iter().enumerate() {
                let of_row = inputs
                    .clone()
                    .map(|i| (score(row, i), unit as u32, i as u32));
                scores.extend(of_row);
            }
            if of_block < scores.len() {
                scores.select_nth_unstable_by(of_block, |a, b| {
                    a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2)))
                });
            }
            let mut gone = vec![vec![]; rows.len()];
            for (_, unit, input) in &scores[..of_block] {
                gone[*unit as usize].push(*input as usize);
            }
            let costs: Vec<f64> = (rows.par_iter_mut().zip(&mut gone))
                .map(|(row, gone)| {
                    gone.sort_unstable();
                    let mut cost = 0.0;
                    for &i in &*gone {
                        let error = row[i] / factor[i * n + i];
                        cost += error * error;
                        let later = row[i..].iter_mut().zip(&factor[i * n + i..(i + 1) * n]);
                        later.for_each(|(w, f)| *w -= error * f);
                    }
                    // No rest of rounding.
                    gone.iter().for_each(|i| row[*i] = 0.0);
                    cost
                })
                .collect();
            cost += costs.iter().sum::<f64>();
        }
        (rows, cost)
    }

    /// The row with some weights at zero whose outputs are nearest to those of `row`.
    fn refit(&self, row: &[f64], stays: &[bool]) -> Result<Vec<f64>, CompressError> {
        let n = self.size;
        let kept: Vec<usize> = (0..n).filter(|i| stays[*i]).collect();
        let aim = multiply(&self.damped, row, n);
        let m = kept.len();
        let mut products = vec![0.0; m * m];
        for (i, &a) in kept.iter().enumerate() {
            for (j, &b) in kept.iter().enumerate() {
                products[i * m + j] = self.damped[a * n + b];
            }
        }
        cholesky(&mut products, m)?;
        let mut solution: Vec<f64> = kept.iter().map(|&i| aim[i]).collect();
        for i in 0..m {
            let known = dot(&products[i * m..i * m + i], &solution[..i]);
            solution[i] = (solution[i] - known) / products[i * m + i];
        }
        for i in (0..m).rev() {
            solution[i] /= products[i * m + i];
            let s = solution[i];
            for (j, l) in products[i * m..i * m + i].iter().enumerate() {
                solution[j] -= l * s;
            }
        }
        let mut whole = vec![0.0; n];
        for (&i, s) in kept.iter().zip(solution) {
            whole[i] = s;
        }
        Ok(whole)
    }
}

/// Costs of every number of removed weights, from those of some numbers, none and all among them.
///
/// The cost of one more weight is known in the middle between two of these, and lies on a line between two middles: so no layer stops at such a number only
/// because the slope breaks there. Sums at the numbers themselves may differ from what was found.
fn interpolated(found: &[(usize, f64)]) -> Vec<f64> {
    let steps: Vec<(f64, f64)> = found
        .windows(2)
        .map(|pair| {
            let [(a, from), (b, to)] = [pair[0], pair[1]];
            ((a + b) as f64 / 2.0, (to - from) / (b - a) as f64)
        })
        .collect();
    let mut costs = vec![0.0];
    let mut next = 0;
    for i in 0..found.last().map_or(0, |(all, _)| *all) {
        let at = i as f64 + 0.5;
        while next < steps.len() && steps[next].0 < at {
            next += 1;
        }
        let step = match (next.checked_sub(1).map(|k| steps[k]), steps.get(next)) {
            (Some((a, from)), Some(&(b, to))) => from + (to - from) * (at - a) / (b - a),
            (Some((_, step)), None) | (None, Some(&(_, step))) => step,
            (None, None) => 0.0,
        };
        costs.push(costs[i] + step);
    }
    costs
}

/// The rows that lose a weight, one after the other, with the costs.
fn merged(removals: &[Vec<Removal>]) -> Vec<(usize, f64)> {
    // A row gives its weights in its own order, so a cheap one behind a dear one costs as much as that.
    let mut all: Vec<(f64, usize, f64)> = vec![];
    for (row, removals) in removals.iter().enumerate() {
        let mut rank = 0.0_f64;
        for removal in removals {
            rank = rank.max(removal.cost);
            all.push((rank, row, removal.cost));
        }
    }
    // Stable: the removals of a row stay in their order.
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    all.into_iter().map(|(_, row, cost)| (row, cost)).collect()
}

/// The order in which the weights of a row go, each the cheapest at its time; the last number of the row is a bias.
fn order(row: &[f64], inverse: &[f64]) -> Vec<Removal> {
    let mut row = row.to_vec();
    let mut inverse = inverse.to_vec();
    let mut n = row.len();
    // Inputs that are still in the arrays, and which of those are still there.
    let mut inputs: Vec<u32> = (0..n as u32).collect();
    let mut alive = vec![true; n];
    let last = n as u32 - 1;
    let mut removals = Vec::with_capacity(n - 1);
    let mut left = n;
    while left > 1 {
        let costs = (0..n).filter(|&i| alive[i] && inputs[i] != last);
        let cost = |i: usize| row[i] * row[i] / inverse[i * n + i].max(f64::MIN_POSITIVE);
        let Some(p) = costs.min_by(|&a, &b| cost(a).total_cmp(&cost(b))) else {
            break;
        };
        removals.push(Removal {
            input: inputs[p],
            cost: cost(p),
        });
        let pivot = inverse[p * n + p].max(f64::MIN_POSITIVE);
        let column = inverse[p * n..(p + 1) * n].to_vec();
        let step = row[p] / pivot;
        row.iter_mut()
            .zip(&column)
            .for_each(|(w, c)| *w -= step * c);
        for (line, c) in inverse.chunks_exact_mut(n).zip(&column) {
            let factor = c / pivot;
            if *c != 0.0 {
                line.iter_mut()
                    .zip(&column)
                    .for_each(|(v, c)| *v -= factor * c);
            }
        }
        (alive[p], row[p]) = (false, 0.0);
        left -= 1;
        // Rows and columns that are gone are zeros; now and then they leave the arrays.
        if left * 8 < n * 7 {
            let kept: Vec<usize> = (0..n).filter(|&i| alive[i]).collect();
            let small = kept.iter().flat_map(|&i| kept.iter().map(move |&j| (i, j)));
            inverse = small.map(|(i, j)| inverse[i * n + j]).collect();
            row = kept.iter().map(|&i| row[i]).collect();
            inputs = kept.iter().map(|&i| inputs[i]).collect();
            n = kept.len();
            alive = vec![true; n];
        }
    }
    removals
}

/// The sum over the rows of inputs of the squared outputs of a row of weights, less their mean.
fn spread(row: &[f64], moments: &Moments) -> f64 {
    let outputs = multiply(&moments.products, row, moments.size);
    let sum = dot(&moments.sums, row);
    (dot(&outputs, row) - sum * sum / moments.count.max(1.0)).max(0.0)
}

#[cfg(test)]
mod tests {
    use sparsevd_kernels::Isa;
    use sparsevd_kernels::training::{NoiseKey, normals};

    use super::*;

    const INPUTS: usize = 9;
    const UNITS: usize = 3;

    fn random(len: usize, stream: u32) -> Vec<f32> {
        let mut out = vec![0.0; len];
        let key = NoiseKey {
            seed: 7,
            step: 0,
            layer: 0,
            sample: stream,
        };
        normals(Isa::SCALAR, key, &mut out);
        out
    }

    /// Inputs that depend on one another and have means.
    fn inputs(rows: usize, stream: u32) -> Vec<f32> {
        let raw = random(rows * INPUTS, stream);
        let mixed = raw.chunks_exact(INPUTS).flat_map(|row| {
            (0..INPUTS)
                .map(|i| 0.5 + row[i] + 0.8 * row[(i + 1) % INPUTS] - 0.3 * row[(i + 4) % INPUTS])
        });
        mixed.collect()
    }

    /// Squared differences of the outputs of two layers.
    fn error(x: [&[f32]; 2], a: [&[f32]; 2], b: [&[f32]; 2]) -> f64 {
        let outputs = |x: &[f32], [weights, bias]: [&[f32]; 2]| -> Vec<f64> {
            let rows = x.chunks_exact(INPUTS);
            let units = |row: &[f32]| -> Vec<f64> {
                let of = weights.chunks_exact(INPUTS).zip(bias);
                of.map(|(w, b)| {
                    let products = w
                        .iter()
                        .zip(row)
                        .map(|(w, x)| f64::from(*w) * f64::from(*x));
                    products.sum::<f64>() + f64::from(*b)
                })
                .collect()
            };
            rows.flat_map(units).collect()
        };
        let pairs = outputs(x[0], a).into_iter().zip(outputs(x[1], b));
        pairs.map(|(a, b)| (a - b) * (a - b)).sum()
    }

    #[test]
    fn the_first_weight_to_go_is_the_one_whose_best_repair_is_best() {
        let (x, weights, bias) = (inputs(200, 1), random(INPUTS, 2), [0.3]);
        let mut moments = Moments::new(INPUTS, true);
        moments.add(&x, None);
        let surgeon = Surgeon::new(&weights, &bias, &moments).unwrap();
        // Every other weight, refitted without the first.
        let n = INPUTS + 1;
        let cost = |gone: usize| {
            let stays: Vec<bool> = (0..n).map(|i| i != gone).collect();
            let row = surgeon.refit(&surgeon.rows[0], &stays).unwrap();
            let change: Vec<f64> = row
                .iter()
                .zip(&surgeon.rows[0])
                .map(|(a, b)| a - b)
                .collect();
            dot(&multiply(&surgeon.damped, &change, n), &change)
        };
        let Order::Own(removals) = &surgeon.order else {
            panic!("a small layer has rows of their own order");
        };
        let first = removals[0][0];
        let best = (0..INPUTS)
            .min_by(|&a, &b| cost(a).total_cmp(&cost(b)))
            .unwrap();
        assert_eq!(first.input as usize, best);
        assert!(
            (first.cost - cost(best)).abs() < 1e-6 * cost(best),
            "{first:?}"
        );
        // The costs add up to the error of what is left.
        let three = surgeon.costs()[3];
        let stays: Vec<bool> = (0..n as u32)
            .map(|i| removals[0][..3].iter().all(|r| r.input != i))
            .collect();
        let row = surgeon.refit(&surgeon.rows[0], &stays).unwrap();
        let change: Vec<f64> = row
            .iter()
            .zip(&surgeon.rows[0])
            .map(|(a, b)| a - b)
            .collect();
        let want = dot(&multiply(&surgeon.damped, &change, n), &change) / surgeon.energy;
        assert!((three - want).abs() < 1e-9, "{three}, {want}");
    }

    #[test]
    fn a_repair_beats_magnitude_and_moves_the_bias() {
        let (x, weights, bias) = (inputs(400, 3), random(UNITS * INPUTS, 4), random(UNITS, 5));
        let mut moments = Moments::new(INPUTS, true);
        // In parts, as batches come.
        for part in x.chunks(100 * INPUTS) {
            moments.add(part, None);
        }
        let surgeon = Surgeon::new(&weights, &bias, &moments).unwrap();
        let removed = UNITS * INPUTS / 2;
        let [repaired, moved] = surgeon.prune(removed).unwrap();
        assert_eq!(repaired.iter().filter(|w| **w == 0.0).count(), removed);
        let mut sizes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        let small = |w: &f32| if w.abs() < sizes[removed] { 0.0 } else { *w };
        let smallest: Vec<f32> = weights.iter().map(small).collect();
        assert_eq!(smallest.iter().filter(|w| **w == 0.0).count(), removed);
        // On inputs that it did not see.
        let new = inputs(400, 6);
        let [ours, theirs] = [[&repaired[..], &moved], [&smallest, &bias]]
            .map(|pruned| error([&new, &new], [&weights, &bias], pruned));
        assert!(ours < 0.8 * theirs, "{ours}, magnitude {theirs}");
        let unmoved = error([&new, &new], [&weights, &bias], [&repaired, &bias]);
        assert!(ours < unmoved, "{ours}, with the old bias {unmoved}");
        // With nothing removed nothing changes.
        let [same, bias_too] = surgeon.prune(0).unwrap();
        assert!(error([&new, &new], [&weights, &bias], [&same, &bias_too]) < 1e-6);
        assert_eq!(surgeon.costs().len(), UNITS * INPUTS + 1);
        assert!(surgeon.costs().is_sorted());
    }

    #[test]
    fn what_layers_before_lost_is_made_up_for() {
        let (before, weights, bias) = (inputs(500, 8), random(INPUTS, 9), [0.1]);
        // The layer before lost a part of its outputs.
        let now: Vec<f32> = before
            .iter()
            .enumerate()
            .map(|(i, x)| if i % INPUTS < 3 { 0.8 * x } else { *x })
            .collect();
        let mut moments = Moments::new(INPUTS, true);
        moments.add(&now, Some(&before));
        let surgeon = Surgeon::new(&weights, &bias, &moments).unwrap();
        let [repaired, moved] = surgeon.prune(0).unwrap();
        let as_it_was = error([&before, &now], [&weights, &bias], [&weights, &bias]);
        let with_repair = error([&before, &now], [&weights, &bias], [&repaired, &moved]);
        assert!(with_repair < 0.01 * as_it_was, "{with_repair}, {as_it_was}");
    }

    #[test]
    fn inputs_that_are_always_zero_cost_nothing_and_infinite_ones_are_refused() {
        let mut x = inputs(50, 10);
        x.iter_mut().step_by(INPUTS).for_each(|x| *x = 0.0);
        let mut moments = Moments::new(INPUTS, true);
        moments.add(&x, None);
        let surgeon = Surgeon::new(&random(INPUTS, 11), &[0.0], &moments).unwrap();
        assert!(surgeon.costs()[1] < 1e-2, "{:?}", surgeon.costs());
        x[4] = f32::INFINITY;
        moments.add(&x, None);
        let error = Surgeon::new(&random(INPUTS, 11), &[0.0], &moments).unwrap_err();
        assert!(error.to_string().contains("finite inputs"), "{error}");
    }

    /// The same layer in a common order: nearly as good as with each row in its own, and better than magnitude.
    #[test]
    fn a_common_order_prunes_and_repairs_too() {
        let (x, weights, bias) = (
            inputs(400, 12),
            random(UNITS * INPUTS, 13),
            random(UNITS, 14),
        );
        let mut moments = Moments::new(INPUTS, true);
        moments.add(&x, None);
        let own = Surgeon::new(&weights, &bias, &moments).unwrap();
        let n = own.size;
        let factor = upper_factor(inverse(&own.damped, n).unwrap(), n).unwrap();
        let common = Surgeon {
            order: Order::Common(factor),
            rows: own.rows.clone(),
            damped: own.damped.clone(),
            ..own
        };
        let removed = 11;
        // What the passes say that it costs is what the rows without refit do.
        let Order::Common(factor) = &common.order else {
            unreachable!()
        };
        let (rows, cost) = common.in_common_order(factor, removed);
        let changes = rows.iter().zip(&common.rows).map(|(a, b)| {
            let change: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
            dot(&multiply(&common.damped, &change, n), &change)
        });
        let want: f64 = changes.sum();
        assert!((cost - want).abs() < 1e-6 * want, "{cost}, {want}");
        let [repaired, moved] = common.prune(removed).unwrap();
        assert_eq!(repaired.iter().filter(|w| **w == 0.0).count(), removed);
        let ours = error([&x, &x], [&weights, &bias], [&repaired, &moved]);
        assert!(ours <= 1.05 * cost, "a refit is no worse: {ours}, {cost}");
        let costs = common.costs();
        assert_eq!(costs.len(), UNITS * INPUTS + 1);
        assert!(costs.is_sorted() && costs[1] > 0.0);
    }

    /// What one more weight costs is that of the middle of a step, and between two middles on a line.
    #[test]
    fn costs_between_those_that_were_found_rise_evenly() {
        let costs = interpolated(&[(0, 0.0), (10, 100.0), (20, 400.0), (30, 900.0)]);
        assert_eq!(costs.len(), 31);
        // Squares, but for the first and the last half of a step.
        assert_eq!(
            [costs[5], costs[10], costs[20], costs[30]],
            [50.0, 125.0, 425.0, 900.0]
        );
        let steps: Vec<f64> = costs.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.is_sorted());
        assert_eq!(interpolated(&[(0, 0.0)]), [0.0]);
        assert_eq!(interpolated(&[(0, 0.0), (2, 3.0)]), [0.0, 1.5, 3.0]);
    }
}
