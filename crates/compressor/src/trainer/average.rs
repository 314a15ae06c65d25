//! A moving average of the parameters (Polyak and Juditsky 1992).

use crate::parameter::Role;
use crate::state::State;

/// The average of each parameter, in the order of [`State::parameters`]; none outside of a phase that keeps one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Average(pub(crate) Vec<Vec<f32>>);

impl Average {
    /// What a phase begins with: the parameters as they are.
    pub(super) fn new(state: &State<f32>) -> Self {
        Self(
            (state.parameters().iter())
                .map(|p| p.values.to_vec())
                .collect(),
        )
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Moves towards the parameters after the given number of steps of the phase. The decay is less in the first steps, `(1 + steps) / (10 + steps)`,
    /// so that the beginning is forgotten (as TensorFlow's `ExponentialMovingAverage` does).
    pub(super) fn update(&mut self, state: &State<f32>, decay: f64, steps: u32) {
        let steps = f64::from(steps);
        let share = (1.0 - decay.min((1.0 + steps) / (10.0 + steps))) as f32;
        for (average, parameter) in self.0.iter_mut().zip(state.parameters()) {
            if parameter.role == Role::Constant {
                continue;
            }
            for (average, &value) in average.iter_mut().zip(parameter.values) {
                *average += share * (value - *average);
            }
        }
    }

    /// Puts the average in the parameters' place; weights that were removed stay zero.
    pub(crate) fn apply(&self, state: &mut State<f32>) {
        for (average, parameter) in self.0.iter().zip(state.parameters_mut()) {
            parameter.values.copy_from_slice(average);
            if let Some(noise) = parameter.noise {
                let weights = parameter.values.iter_mut().zip(noise.mask.iter());
                weights.for_each(|(weight, mask)| *weight *= mask);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_model::presets;

    use super::*;
    use crate::initialise;

    /// By the definition, with numbers that are easy to add: parameters of 1, then of 3.
    #[test]
    fn an_average_follows_the_parameters_and_leaves_removed_weights_at_zero() {
        let (graph, shapes) = presets::for_input("resnet-20", [1, 8, 8]).unwrap();
        let network = initialise(graph, &shapes, 1).unwrap();
        let mut state = State::<f32>::from_network(&network).unwrap();
        let mut fill = |value: f32| {
            for parameter in state.parameters_mut() {
                parameter.values.fill(value);
            }
            state.clone()
        };
        let (ones, mut threes) = (fill(1.0), fill(3.0));
        let mut average = Average::new(&ones);
        // The decay of the first step is 2 / 11, of the hundredth that of the phase.
        average.update(&threes, 0.75, 1);
        average.update(&threes, 0.75, 100);
        let want = 3.0 - 2.0 * (2.0 / 11.0) * 0.75;
        let keep: Vec<bool> = (0..threes.layers[0].theta.len())
            .map(|i| i % 3 > 0)
            .collect();
        threes.layers[0].remove(&keep);
        average.apply(&mut threes);
        let parameters = threes.parameters();
        assert!(parameters.iter().any(|p| p.role == Role::Constant));
        assert!(parameters.iter().any(|p| p.role == Role::Statistic));
        for (i, parameter) in parameters.iter().enumerate() {
            for (place, &value) in parameter.values.iter().enumerate() {
                let expected = match parameter.role {
                    Role::Constant => 1.0,
                    Role::Variational if i == 0 && !keep[place] => 0.0,
                    _ => want,
                };
                let name = (parameter.node, parameter.part, place);
                assert!((value - expected).abs() < 1e-6, "{name:?}: {value}");
            }
        }
    }
}
