//! What a run began with: a checkpoint is for no other.

use serde::{Deserialize, Serialize};
use sparsevd_kernels::Isa;
use sparsevd_model::Network;

use super::fingerprint::{network_fingerprint, samples_fingerprint};
use crate::data::TrainingData;
use crate::recipe::Recipe;

/// Network, samples, recipe and instruction set of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// Fingerprint of the network.
    network: String,
    /// Fingerprint of the samples to train on and for validation.
    samples: String,
    /// How many there are to train on, and for validation.
    counts: [usize; 2],
    /// The recipe without its data sets, as TOML, in which numbers are exact.
    recipe: String,
    /// The instruction set, on which the last bits depend.
    isa: String,
}

impl Begun {
    pub fn new(network: &Network, data: &TrainingData, recipe: &Recipe, isa: Isa) -> Self {
        let sets = [data.train(), data.validation()];
        Self {
            network: network_fingerprint(network),
            samples: match (samples_fingerprint(sets, &network.graph), data.teacher()) {
                (samples, None) => samples,
                (samples, Some(teacher)) => format!("{samples}, answered by {teacher}"),
            },
            counts: sets.map(|set| set.len()),
            recipe: recipe.without_data().to_toml(),
            isa: isa.name().into(),
        }
    }

    /// The same of a run by another recipe.
    pub fn by(&self, recipe: &Recipe) -> Self {
        Self {
            recipe: recipe.without_data().to_toml(),
            ..self.clone()
        }
    }

    /// What of the run that left a checkpoint is not as in this one: expected and got.
    pub fn difference(&self, of_checkpoint: &Self) -> Option<String> {
        if of_checkpoint.network != self.network {
            return Some(format!(
                "expected a run of this network ({}), got one of another network ({})",
                self.network, of_checkpoint.network
            ));
        }
        if (&of_checkpoint.samples, of_checkpoint.counts) != (&self.samples, self.counts) {
            return Some(format!(
                "expected a run on this data set ({}), got one on another data set ({})",
                self.describe_samples(),
                of_checkpoint.describe_samples()
            ));
        }
        if of_checkpoint.recipe == self.recipe {
            return None;
        }
        let recipes = [self, of_checkpoint].map(|run| toml::from_str::<Recipe>(&run.recipe));
        let [Ok(here), Ok(there)] = recipes else {
            return Some("expected a run by this recipe, got one by something else".into());
        };
        if here.seed != there.seed {
            return Some(format!(
                "expected a run of seed {}, got one of seed {}",
                here.seed, there.seed
            ));
        }
        Some(match here.difference(&there) {
            Some((setting, here, there)) => format!(
                "expected a run by a recipe with {setting} {here}, got one by another recipe, with {there}"
            ),
            None => "expected a run by this recipe, got one by another".into(),
        })
    }

    /// A warning where the run that left a checkpoint had other instructions: the result will not have the bytes of a run that never
    /// stopped.
    pub fn other_isa(&self, of_checkpoint: &Self) -> Option<String> {
        let (here, there) = (&self.isa, &of_checkpoint.isa);
        (here != there).then(|| {
            format!(
                "the run began with the instructions {there} and goes on with {here}: its result will differ in the last bits from \
                 that of a run that never stopped"
            )
        })
    }

    fn describe_samples(&self) -> String {
        let [train, validation] = self.counts;
        let samples = &self.samples;
        format!("{samples}, {train} samples to train on and {validation} for validation")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Method, Phase, Validation};

    fn begun(recipe: &Recipe) -> Begun {
        Begun {
            network: "0a".into(),
            samples: "0b".into(),
            counts: [60, 12],
            recipe: String::new(),
            isa: "scalar".into(),
        }
        .by(recipe)
    }

    #[test]
    fn what_differs_is_named() {
        let recipe = Recipe::new(vec![Phase::new(Method::SparseVd, 3)]);
        let run = begun(&recipe);
        assert_eq!(run.difference(&run), None);
        let differs = |change: &dyn Fn(&mut Begun)| {
            let mut other = run.clone();
            change(&mut other);
            run.difference(&other).unwrap()
        };
        assert_eq!(
            differs(&|b| b.network = "0c".into()),
            "expected a run of this network (0a), got one of another network (0c)"
        );
        assert_eq!(
            differs(&|b| (b.samples, b.counts) = ("0d".into(), [50, 10])),
            "expected a run on this data set (0b, 60 samples to train on and 12 for validation), \
             got one on another data set (0d, 50 samples to train on and 10 for validation)"
        );
        let by = |change: &dyn Fn(&mut Recipe)| {
            let mut other = recipe.clone();
            change(&mut other);
            run.difference(&begun(&other))
        };
        assert_eq!(
            by(&|r| r.seed = 4).unwrap(),
            "expected a run of seed 0, got one of seed 4"
        );
        assert_eq!(
            by(&|r| r.phases[0].lr = 0.1).unwrap(),
            "expected a run by a recipe with phase 1 lr 0.001, got one by another recipe, with 0.1"
        );
        // Where the data set lies plays no part.
        assert_eq!(by(&|r| r.data = Some("elsewhere".into())), None);
        let of_file = |file: &str| {
            let mut recipe = recipe.clone();
            recipe.validation = Validation::Data(file.into());
            begun(&recipe)
        };
        assert_eq!(of_file("a.npz").difference(&of_file("b.npz")), None);
        assert!(run.difference(&of_file("a.npz")).is_some());
        assert_eq!(run.other_isa(&run), None);
        let mut other = run.clone();
        other.isa = "avx2".into();
        assert!(
            run.other_isa(&other)
                .unwrap()
                .contains("began with the instructions avx2")
        );
    }
}
