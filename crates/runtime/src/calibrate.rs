//! Plans for inputs of which samples are known.

use sparsevd_model::Network;

use crate::error::RuntimeError;
use crate::options::PlanOptions;
use crate::plan::Plan;
use crate::session::Session;

impl Plan {
    /// Plans a network for inputs like `samples`, `[n][input_shape]` in C order; a few dozen are enough.
    ///
    /// Where they show that many inputs of a layer are zero (blank pixels, inactive units), single samples skip those zeros.
    /// Results for other inputs are the same as those of [`Plan::new`], only slower. Elements after the last whole sample are ignored.
    ///
    /// # Errors
    /// Those of [`Plan::new`].
    pub fn calibrated(
        network: &Network,
        options: &PlanOptions,
        samples: &[f32],
    ) -> Result<Self, RuntimeError> {
        let plan = Self::new(network, options)?;
        let activity = Session::new(plan, 1)?.activity(samples);
        Self::with_activity(network, options, &activity)
    }
}
