//! How many weights each layer loses, by what that costs the outputs of the network.

/// The error of the network's outputs is measured when such shares of the variance of a layer's outputs are lost, and when all of its weights are.
const MEASURED_COSTS: [f64; 3] = [0.01, 0.05, 0.2];

/// The numbers of removed weights of a layer at which the error of the outputs is measured; `costs` are those of [`sparsevd_compressor::Surgeon::costs`].
pub(super) fn measured(costs: &[f64]) -> Vec<usize> {
    let all = costs.len() - 1;
    let of = |most: f64| costs.partition_point(|cost| *cost <= most) - 1;
    let mut removed: Vec<usize> = MEASURED_COSTS.map(of).into_iter().chain([all]).collect();
    removed.retain(|&removed| removed > 0);
    removed.dedup();
    removed
}

/// What each number of removed weights costs the outputs: as at those of [`measured`], and between two of these in proportion to the costs of the layer.
pub(super) fn of_outputs(costs: &[f64], measured: &[(usize, f64)]) -> Vec<f64> {
    let mut of_outputs = vec![0.0; costs.len()];
    let (mut from, mut least) = (0, 0.0);
    for &(to, error) in measured {
        let error = f64::max(error, least);
        let cost = costs[to] - costs[from];
        for i in from + 1..=to {
            // The outputs of a layer may always be the same, and yet not 0.
            let share = match cost > 0.0 {
                true => (costs[i] - costs[from]) / cost,
                false => (i - from) as f64 / (to - from) as f64,
            };
            of_outputs[i] = least + share * (error - least);
        }
        (from, least) = (to, error);
    }
    of_outputs
}

/// How many weights each layer loses: the cheapest of all, up to this share of all. `costs` are those of [`of_outputs`].
pub(super) fn allocate(costs: &[Vec<f64>], sparsity: f64) -> Vec<usize> {
    let mut all: Vec<(f64, u32)> = vec![];
    for (layer, costs) in costs.iter().enumerate() {
        let mut rank = 0.0_f64;
        for pair in costs.windows(2) {
            rank = rank.max(pair[1] - pair[0]);
            all.push((rank, layer as u32));
        }
    }
    all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let count = (sparsity * all.len() as f64).round() as usize;
    let mut removed = vec![0; costs.len()];
    all[..count]
        .iter()
        .for_each(|(_, layer)| removed[*layer as usize] += 1);
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_outputs_go_through_those_that_were_measured() {
        let costs = [0.0, 0.005, 0.01, 0.04, 0.1, 0.5, 1.0];
        assert_eq!(measured(&costs), [2, 3, 4, 6]);
        // More weights never cost less.
        let errors = [(2, 1.0), (3, 4.0), (4, 3.0), (6, 13.0)];
        let of_outputs = of_outputs(&costs, &errors);
        let want = [0.0, 0.5, 1.0, 4.0, 4.0, 8.0, 13.0];
        let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
        assert!(of_outputs.iter().zip(&want).all(near), "{of_outputs:?}");
        // A layer that costs nothing by itself is measured without all of its weights.
        assert_eq!(measured(&[0.0; 4]), [3]);
        assert_eq!(
            super::of_outputs(&[0.0; 4], &[(3, 6.0)]),
            [0.0, 2.0, 4.0, 6.0]
        );
        assert_eq!(measured(&[0.0]), [0; 0]);
    }

    #[test]
    fn layers_lose_what_costs_least() {
        // Ten weights of which each costs as much as the next, and ten that cost a tenth of it.
        let even = |cost: f64| (0..=10).map(|i| f64::from(i) * cost).collect::<Vec<_>>();
        assert_eq!(allocate(&[even(1.0), even(0.1)], 0.25), [0, 5]);
        assert_eq!(allocate(&[even(1.0), even(0.1)], 0.75), [5, 10]);
        assert_eq!(allocate(&[even(1.0), even(0.1)], 0.0), [0, 0]);
        // A cheap weight behind a dear one costs as much as that.
        assert_eq!(allocate(&[vec![0.0, 2.0, 2.1], even(1.0)], 0.84), [0, 10]);
    }
}
