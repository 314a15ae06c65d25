//! Plans for inputs of which samples are known.

use sparsevd_model::Network;

use crate::arguments::Inputs;
use crate::error::RuntimeError;
use crate::options::PlanOptions;
use crate::plan::Plan;
use crate::session::Session;

impl Plan {
    /// Plans a network for inputs like `samples`, each `[n][shape]` in C order; a few dozen are enough.
    ///
    /// Where they show that many inputs of a layer are zero (blank pixels, inactive units), single samples skip those zeros.
    /// Results for other inputs are the same as those of [`Plan::new`], only slower. Elements after the last whole sample are ignored.
    ///
    /// # Errors
    /// Those of [`Plan::new`], and [`RuntimeError::Names`] when the names of the samples are not those of the inputs.
    pub fn calibrated<'i>(
        network: &Network,
        options: &PlanOptions,
        samples: impl Into<Inputs<'i>>,
    ) -> Result<Self, RuntimeError> {
        let plan = Self::new(network, options)?;
        let activity = Session::new(plan, 1)?.activity(samples.into())?;
        Self::with_activity(network, options, &activity)
    }
}
