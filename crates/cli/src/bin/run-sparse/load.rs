//! From a file to a session.

use std::path::Path;

use anyhow::{Context, bail};
use sparsevd_format::{LoadedNetwork, Pixels};
use sparsevd_kernels::Isa;
use sparsevd_model::{Network, Preprocessing};
use sparsevd_runtime::{Plan, PlanOptions, Session, WeightMode};

use crate::args::ModelArgs;
use crate::{common, tune};

impl ModelArgs {
    /// Reads the network, with the preprocessing that the command line sets.
    pub fn load(&self) -> anyhow::Result<LoadedNetwork> {
        let mut loaded = common::network(
            &self.model,
            self.network.as_deref(),
            &self.shapes,
            self.quiet,
        )?;
        if self.talks() {
            for note in &loaded.notes {
                common::note(note);
            }
        }
        if self.pixels.are_given() {
            let graph = &mut loaded.network.graph;
            let p = self.pixels.over(graph.preprocessing.take());
            if let Some(input) = graph.inputs.first() {
                p.check(&input.shape)?;
            }
            graph.preprocessing = Some(p);
        }
        Ok(loaded)
    }

    /// Whether stderr is for a person.
    pub fn talks(&self) -> bool {
        common::talks(self.quiet)
    }
}

/// How the samples of a set become the input: as stored with the network or told, and not at all where they are numbers.
pub fn preprocessing(
    pixels: &Pixels,
    path: &Path,
    network: &Network,
) -> anyhow::Result<Preprocessing> {
    match pixels {
        Pixels::U8(_) => stored_preprocessing(network, path),
        Pixels::Table(_) => table_preprocessing(network, path).cloned(),
        Pixels::F32(_) => Ok(Preprocessing::default()),
    }
}

/// How pixels become the input of a network that was trained elsewhere. What is not known is not guessed.
///
/// # Errors
/// A network without preprocessing; `data` is where the pixels come from.
pub fn stored_preprocessing(network: &Network, data: &Path) -> anyhow::Result<Preprocessing> {
    match &network.graph.preprocessing {
        Some(preprocessing) => Ok(preprocessing.clone()),
        None => bail!(
            "{}: expected floating-point numbers, as network `{}` does not say how pixels become its input, got pixels of 0 to \
             255; {}",
            data.display(),
            network.graph.name,
            common::PIXEL_OPTIONS
        ),
    }
}

/// How the columns of a table become the input of a network that was trained on one.
///
/// # Errors
/// A network that stores no columns; `data` is where the table comes from.
pub fn table_preprocessing<'a>(
    network: &'a Network,
    data: &Path,
) -> anyhow::Result<&'a Preprocessing> {
    let stored = network.graph.preprocessing.as_ref();
    match stored.filter(|p| p.table.is_some()) {
        Some(preprocessing) => Ok(preprocessing),
        None => bail!(
            "{}: expected a network that stores the columns of its table, as `compress train` writes it, got `{}` without",
            data.display(),
            network.graph.name
        ),
    }
}

/// A session for `batch` samples at a time, whose free dimension has `length` elements. `like` holds samples as they will come, by the name of the input, or nothing.
pub fn session(
    args: &ModelArgs,
    network: &Network,
    weights: WeightMode,
    [batch, length, threads]: [usize; 3],
    like: &[(&str, &[f32])],
) -> anyhow::Result<Session> {
    let isa = Isa::from_env()?;
    let options = PlanOptions {
        weights,
        isa,
        threads,
        batch,
        length,
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
    threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}
