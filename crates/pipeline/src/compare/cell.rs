//! The cells of a comparison: a method, a ratio and a seed each.

use std::fmt;
use std::path::{Path, PathBuf};

use sparsevd_compressor::CompressError;
use sparsevd_compressor::recipe::{Goal, Method, Recipe, Search};
use sparsevd_model::Network;

use super::method::PruningMethod;
use crate::error::PipelineError;

/// One training run of a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cell {
    pub method: PruningMethod,
    /// Weights of the original network over those that are to be left.
    pub ratio: f64,
    /// Weights that are to be left.
    pub weights: usize,
    pub seed: u64,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, ratio, seed) = (self.method.name(), self.ratio, self.seed);
        write!(f, "{method}, {ratio}x, seed {seed}")
    }
}

impl Cell {
    /// Its folder in that of the comparison.
    pub fn folder(&self, comparison: &Path) -> PathBuf {
        let (method, ratio, seed) = (self.method.name(), self.ratio, self.seed);
        comparison.join(format!("{method}-{ratio}x-seed-{seed}"))
    }

    /// The recipe that it follows; `base` is that of the comparison, and `dense` the weights that its network begins with.
    pub fn recipe(&self, base: &Recipe, dense: usize) -> Result<Recipe, CompressError> {
        let recipe = Recipe {
            seed: self.seed,
            ..base.clone()
        };
        match self.method.gradual() {
            None => Ok(recipe.of_try(1.0, self.weights)),
            Some(prune_by) => recipe.gradual(prune_by, dense, Some(self.weights)),
        }
    }
}

/// The cells of a comparison, seed after seed, so that the first seed has its table first, and method after method.
///
/// # Errors
/// No method, ratio or seed, or one twice; a ratio that `network` cannot have.
pub(super) fn cells(
    methods: &[PruningMethod],
    ratios: &[f64],
    seeds: &[u64],
    network: &Network,
) -> Result<Vec<Cell>, PipelineError> {
    let names: Vec<&str> = methods.iter().map(|m| m.name()).collect();
    check_each_once("methods", &names)?;
    check_each_once("ratios", ratios)?;
    check_each_once("seeds", seeds)?;
    let all = network.original_weights();
    let weights = |ratio: f64| {
        let weights = (all as f64 / ratio).round() as usize;
        let is_ratio = ratio >= 1.0 && weights >= 1;
        is_ratio.then_some(weights).ok_or_else(|| {
            let expected = format!("1 to {all}, the weights of the network");
            PipelineError::invalid("ratios", expected, ratio.to_string())
        })
    };
    let mut cells = vec![];
    for &seed in seeds {
        for &method in methods {
            for &ratio in ratios {
                cells.push(Cell {
                    method,
                    ratio,
                    weights: weights(ratio)?,
                    seed,
                });
            }
        }
    }
    Ok(cells)
}

fn check_each_once<T: PartialEq + fmt::Display>(
    what: &str,
    given: &[T],
) -> Result<(), PipelineError> {
    let twice = |(place, one): (usize, &T)| given[..place].contains(one);
    let got = match given.iter().enumerate().find(|one| twice(*one)) {
        Some((_, one)) => format!("{one} twice"),
        None if given.is_empty() => "none".into(),
        None => return Ok(()),
    };
    let expected = "at least one, and each once";
    Err(PipelineError::invalid(what, expected, got))
}

/// Refuses a recipe that a method cannot follow.
pub(super) fn check_recipe(
    base: &Recipe,
    cells: &[Cell],
    dense: usize,
) -> Result<(), PipelineError> {
    base.check()?;
    for cell in cells {
        cell.recipe(base, dense)?;
        if cell.method == PruningMethod::SparseVd {
            if !base.phases.iter().any(|p| p.method == Method::SparseVd) {
                let expected = "a sparse-vd phase, for the method sparse-vd";
                return Err(PipelineError::invalid("recipe", expected, "none"));
            }
            // Its weights are set as by a search.
            let search = Some(Search::towards(Goal::Weights(cell.weights)));
            let recipe = Recipe {
                search,
                ..base.clone()
            };
            recipe.check()?;
        }
    }
    Ok(())
}
