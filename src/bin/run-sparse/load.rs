//! From a file to a session.

use anyhow::Context;
use sparsevd_kernels::Isa;
use sparsevd_model::{Network, Preprocessing};
use sparsevd_runtime::{Plan, PlanOptions, Session, WeightMode};

use crate::args::ModelArgs;
use crate::{common, tune};

impl ModelArgs {
    /// Reads the network, with the preprocessing that the command line sets.
    pub fn network(&self) -> anyhow::Result<Network> {
        let loaded = common::network(&self.model, self.network.as_deref(), &self.shapes)?;
        if self.talks() {
            for note in &loaded.notes {
                eprintln!("{note}");
            }
        }
        let mut network = loaded.network;
        if self.pixels.are_given() {
            let p = self.pixels.over(network.graph.preprocessing.take());
            if let Some(input) = network.graph.inputs.first() {
                p.check(&input.shape)?;
            }
            network.graph.preprocessing = Some(p);
        }
        Ok(network)
    }

    /// Whether stderr is for a person.
    pub fn talks(&self) -> bool {
        common::talks(self.quiet)
    }
}

/// How pixels become the input: as stored with the network, else 0 to 255 becomes 0 to 1.
pub fn preprocessing(network: &Network) -> Preprocessing {
    network.graph.preprocessing.clone().unwrap_or_default()
}

/// A session for that many samples at a time. `like` holds samples as they will come, `[n][input_shape]`, or nothing.
pub fn session(
    args: &ModelArgs,
    network: &Network,
    weights: WeightMode,
    batch: usize,
    threads: usize,
    like: &[f32],
) -> anyhow::Result<Session> {
    let isa = Isa::from_env()?;
    let options = PlanOptions {
        weights,
        isa,
        threads,
        batch,
        values: args.values.into(),
        costs: tune::costs(isa)?,
    };
    let plan = match like {
        [] => Plan::new(network, &options)?,
        _ => Plan::calibrated(network, &options, like)?,
    };
    Session::new(plan, threads).context("session")
}

/// Threads to use where the command line leaves it to us.
pub fn all_threads(threads: Option<usize>) -> usize {
    threads.unwrap_or_else(common::cores)
}
