//! Plans for inputs of which samples are known.

use sparsevd_model::Network;

use crate::arguments::Inputs;
use crate::error::RuntimeError;
use crate::options::PlanOptions;
use crate::plan::Plan;
use crate::session::Session;

/// Multiply-adds that samples are run for: some tenths of a second. The time itself may not decide, as plans would depend on it.
const MULTIPLY_ADDS: usize = 1 << 33;

/// Fewest samples that are run, where as many are given.
const FEWEST_SAMPLES: usize = 8;

impl Plan {
    /// Plans a network for inputs like `samples`, each `[n][shape]` in C order; a few dozen are enough.
    ///
    /// Where they show that many inputs of a layer are zero (blank pixels, inactive units), single samples skip those zeros.
    /// Results for other inputs are the same as those of [`Plan::new`], only slower. Elements after the last whole sample are ignored.
    ///
    /// Of a large network fewer samples are run than are given, the same in every call: as many as 8.6 billion multiply-adds are enough for, at
    /// least eight, and none where no layer could skip zeros.
    ///
    /// # Errors
    /// Those of [`Plan::new`], and [`RuntimeError::Names`] when the names of the samples are not those of the inputs.
    pub fn calibrated<'i>(
        network: &Network,
        options: &PlanOptions,
        samples: impl Into<Inputs<'i>>,
    ) -> Result<Self, RuntimeError> {
        let session = Session::new(Self::new(network, options)?, 1)?;
        let most = |each: usize| (MULTIPLY_ADDS / each.max(1)).max(FEWEST_SAMPLES);
        let activity = session.activity(samples.into(), most)?;
        if activity.is_empty() {
            return Ok(session.into_plan());
        }
        Self::with_activity(network, options, &activity)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use sparsevd_model::{Csr, Dense, GraphBuilder};

    use super::*;

    /// A small network whose first layer may skip zero inputs.
    fn network() -> Network {
        let mut b = GraphBuilder::new("mlp");
        let x = b.input("x", [400]);
        let hidden = b.linear("fc1", &x, 600);
        let y = b.linear("fc2", &hidden, 10);
        b.output(&y);
        b.network(|_, shape| {
            let mut tensor = Dense::zeros(shape.clone());
            if shape.dims().len() == 1 {
                return tensor.into();
            }
            tensor.values.iter_mut().step_by(19).for_each(|w| *w = 0.5);
            Csr::from_dense(&tensor).into()
        })
        .unwrap()
    }

    #[test]
    fn of_a_large_network_a_few_samples_from_all_over_are_enough() {
        let network = network();
        let options = PlanOptions::default();
        let session = Session::new(Plan::new(&network, &options).unwrap(), 1).unwrap();
        // Of four samples the first and the third are blank.
        let mut samples = vec![0.0; 4 * 400];
        samples[400..800].fill(1.0);
        samples[1200..].fill(1.0);
        let each = Cell::new(0);
        let few = |multiply_adds| {
            each.set(multiply_adds);
            2
        };
        let activity = session.activity(samples.as_slice().into(), few).unwrap();
        assert_eq!(activity["fc1"], 0.0);
        let all = session.activity(samples.as_slice().into(), |_| usize::MAX);
        assert_eq!(all.unwrap()["fc1"], 0.5);
        assert!((400 * 600 / 19..session.plan().dense_multiply_adds()).contains(&each.get()));
    }

    #[test]
    fn a_plan_without_layers_that_skip_zeros_runs_no_sample() {
        let options = PlanOptions {
            weights: crate::WeightMode::Dense,
            ..PlanOptions::default()
        };
        let session = Session::new(Plan::new(&network(), &options).unwrap(), 1).unwrap();
        let samples = vec![1.0; 400];
        let never = |_| panic!("a sample was to run");
        let activity = session.activity(samples.as_slice().into(), never).unwrap();
        assert!(activity.is_empty());
        let plan = Plan::calibrated(&network(), &options, &samples).unwrap();
        let uncalibrated = Plan::new(&network(), &options).unwrap();
        assert_eq!(plan.to_string(), uncalibrated.to_string());
    }
}
