//! What was chosen, and why, in lines for people: what `--verbose` prints.

use sparsevd_compressor::is_kept_dense;
use sparsevd_compressor::objective::Targets;
use sparsevd_compressor::recipe::{Method, Recipe, Validation};
use sparsevd_compressor::report::count;
use sparsevd_compressor::trainer::Observer;
use sparsevd_kernels::Isa;
use sparsevd_model::{Network, Op, Weights, memory};
use sparsevd_runtime::{Plan, WeightMode};

use crate::error::PipelineError;
use crate::kernel_costs::KernelCosts;
use crate::search::describe;
use crate::split::Split;
use crate::threads;

/// What a network is trained or pruned by.
pub(crate) struct TrainingChoices<'c> {
    /// The recipe, as it is followed.
    pub recipe: &'c Recipe,
    /// The network as it came.
    pub network: &'c Network,
    /// The same after it was pruned before any training, where it was.
    pub pruned: Option<&'c Network>,
    /// Samples to train on, where there are any.
    pub samples: Option<&'c Split>,
    /// Threads; 0 is one for each core.
    pub threads: usize,
}

impl TrainingChoices<'_> {
    /// Tells an observer of each.
    pub(crate) fn tell(&self, observer: &mut dyn Observer) -> Result<(), PipelineError> {
        let mut lines = vec![];
        let recipe = self.recipe;
        if let (Some(samples), false) = (self.samples, recipe.phases.is_empty()) {
            let phases = recipe.phases.iter();
            let phases = phases.map(|p| match p.epochs {
                1 => format!("{}, 1 epoch", p.method.name()),
                epochs => format!("{}, {epochs} epochs", p.method.name()),
            });
            lines.push(format!("phases: {}", phases.collect::<Vec<_>>().join("; ")));
            lines.push(validation(&recipe.validation));
            if self.prunes() {
                lines.push(self.goal());
                lines.push(promise(recipe, &samples.training.train().targets()));
            }
            lines.push(format!("seed: {}", recipe.seed));
        }
        if self.prunes() {
            lines.extend(self.layers());
        }
        lines.push(match self.threads {
            0 => {
                let cores = threads::resolve(0);
                format!("threads: {cores}, one for each core")
            }
            threads => format!("threads: {threads}, as was asked for"),
        });
        lines.extend([instruction_set(Isa::from_env()?), memory::describe()]);
        lines.iter().for_each(|line| observer.choice(line));
        Ok(())
    }

    /// Whether weights are removed at all.
    fn prunes(&self) -> bool {
        let dense = |recipe: &Recipe| recipe.phases.iter().all(|p| p.method == Method::Dense);
        self.pruned.is_some() || !dense(self.recipe)
    }

    /// How many weights are to be left.
    fn goal(&self) -> String {
        let last = self.recipe.phases.iter().rev().find_map(|p| p.weights);
        match (&self.recipe.search, last, self.pruned) {
            (Some(search), ..) => format!(
                "goal: {}, in at most {} tries from one posterior",
                describe(search.goal()),
                search.tries
            ),
            (None, Some(weights), _) => format!("goal: {} weights, by the recipe", count(weights)),
            (None, None, Some(_)) => "goal: the weights that are left before training".into(),
            (None, None, None) => format!(
                "goal: none; weights whose log alpha is above {} are removed",
                self.recipe.threshold
            ),
        }
    }

    /// Which layers lose weights, and which stay dense, and why.
    fn layers(&self) -> Vec<String> {
        let (mut pruned, mut dense, mut weights) = (vec![], vec![], 0);
        for node in self.network.graph.weighted_nodes() {
            let Some(weight) = self.network.weight(node) else {
                continue;
            };
            let depthwise =
                matches!(&node.op, Op::Conv(conv) if conv.is_depthwise(&weight.shape()));
            let kept = is_kept_dense(node, &self.recipe.keep_dense);
            let is_pruned = match self.pruned {
                // What was pruned in one shot is CSR.
                Some(network) => matches!(network.weight(node), Some(Weights::Csr(_))),
                None => !depthwise && !kept,
            };
            if is_pruned {
                weights += weight.shape().elements();
                pruned.push(node.name.as_str());
            } else {
                dense.push(match depthwise {
                    true => format!("{} (depthwise: few weights that matter much)", node.name),
                    false if kept => format!("{} (kept dense)", node.name),
                    false => node.name.clone(),
                });
            }
        }
        let mut lines = vec![format!(
            "pruned: {}: {} weights; biases are not",
            pruned.join(", "),
            count(weights)
        )];
        if !dense.is_empty() {
            lines.push(format!("not pruned: {}", dense.join(", ")));
        }
        lines
    }
}

/// What a result may lose.
fn promise(recipe: &Recipe, targets: &Targets<'_>) -> String {
    let mut line = match targets {
        Targets::Vectors { .. } => format!(
            "promise: R2 on validation falls by at most {}",
            recipe.max_r2_drop()
        ),
        Targets::Classes(_) if recipe.max_accuracy_drop == 0.0 => {
            "promise: no significant loss on validation".into()
        }
        Targets::Classes(_) => format!(
            "promise: the validation error rises by at most {} points",
            recipe.max_accuracy_drop
        ),
    };
    if let (Targets::Classes(_), Some(drop)) = (targets, recipe.max_class_drop) {
        line.push_str(&format!(", and no class loses more than {drop} of recall"));
    }
    line
}

/// Where the samples that decide come from.
fn validation(validation: &Validation) -> String {
    match validation {
        Validation::Samples(samples) => format!(
            "validation: {} samples of the training set, at most a sixth of it, which are not trained on",
            count(*samples)
        ),
        Validation::Share(share) => {
            format!("validation: a share of {share} of the training set, which is not trained on")
        }
        Validation::Data(path) => format!("validation: all samples of {}", path.display()),
        Validation::FromTest { from_test } => format!(
            "validation: {} samples of the test set, which are not tested on",
            count(*from_test)
        ),
    }
}

/// Which instruction set kernels use, of those that the machine has.
fn instruction_set(isa: Isa) -> String {
    let all: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
    let why = match std::env::var_os("SPARSE_ISA") {
        Some(_) => "as SPARSE_ISA says, of",
        None => "the best of",
    };
    format!("instruction set: {}, {why} {}", isa.name(), all.join(", "))
}

/// What a plan was made by. The plan itself says which kernel and layout each node has.
pub fn plan_choices(plan: &Plan) -> Vec<String> {
    let options = plan.options();
    let (used, most) = (plan.threads(), options.threads);
    let threads = match used < most {
        true => format!("threads: {used} of at most {most}: there is too little work for more"),
        false => format!("threads: {used}"),
    };
    let weighted = || plan.nodes().iter().filter(|n| n.weights > 0);
    let dense: Vec<&str> = weighted()
        .filter(|n| !n.sparse)
        .map(|n| n.name.as_str())
        .collect();
    let weights = match options.weights {
        WeightMode::Dense => "weights: dense kernels throughout, as was asked for".to_owned(),
        WeightMode::Sparse if dense.is_empty() => format!(
            "weights: sparse kernels in all layers, non-zeros of linear ones as {}",
            options.values
        ),
        WeightMode::Sparse => format!(
            "weights: sparse kernels in {} of {} layers, non-zeros of linear ones as {}; dense ones, where they are expected to be faster, in {}",
            weighted().count() - dense.len(),
            weighted().count(),
            options.values,
            dense.join(", ")
        ),
    };
    vec![
        instruction_set(options.isa),
        KernelCosts::describe(),
        threads,
        weights,
        memory::describe(),
    ]
}

#[cfg(test)]
mod tests {
    use sparsevd_compressor::recipe::{Goal, Phase, Search};
    use sparsevd_compressor::{Magnitude, initialise};
    use sparsevd_model::{Shape, presets};

    use super::*;

    /// An observer that keeps what was chosen.
    struct Choices(Vec<String>);

    impl Observer for Choices {
        fn choice(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    fn told(recipe: &Recipe, network: &Network, pruned: Option<&Network>) -> Vec<String> {
        let mut choices = Choices(vec![]);
        let told = TrainingChoices {
            recipe,
            network,
            pruned,
            samples: None,
            threads: 3,
        };
        told.tell(&mut choices).unwrap();
        choices.0
    }

    #[test]
    fn layers_that_stay_dense_are_named() {
        let (graph, shapes) = presets::for_input("mobilenet-v1", [3, 32, 32]).unwrap();
        let network = initialise(graph, &shapes, 3).unwrap();
        let line = |lines: &[String], start: &str| {
            let line = lines.iter().find(|line| line.starts_with(start));
            line.cloned().unwrap_or_default()
        };

        let trained = told(&Recipe::default_for_compression(), &network, None);
        let dense = line(&trained, "not pruned: ");
        assert!(dense.contains("depthwise1 (depthwise"), "{dense}");
        assert!(!dense.contains("conv1"), "{dense}");
        assert!(line(&trained, "pruned: ").starts_with("pruned: conv1, "));
        assert!(trained.contains(&"threads: 3, as was asked for".to_owned()));

        let magnitude = Magnitude {
            sparsity: 0.9,
            scope: Default::default(),
            every_layer: false,
            keep_dense: vec![],
        };
        let pruned = magnitude.prune(&network).unwrap();
        let in_one_shot = told(&Recipe::new(vec![]), &network, Some(&pruned));
        let dense = line(&in_one_shot, "not pruned: ");
        assert!(dense.starts_with("not pruned: conv1, "), "{dense}");
        assert!(dense.contains("depthwise1 (depthwise"), "{dense}");

        let untouched = told(&Recipe::default_for_training(), &network, None);
        assert_eq!(line(&untouched, "pruned: "), "");
    }

    #[test]
    fn goals_have_their_reason() {
        let network = initialise_small();
        let goal = |recipe: Recipe| {
            let choices = TrainingChoices {
                recipe: &recipe,
                network: &network,
                pruned: None,
                samples: None,
                threads: 0,
            };
            choices.goal()
        };
        let phases = || {
            vec![
                Phase::new(Method::SparseVd, 2),
                Phase::new(Method::FineTune, 1),
            ]
        };
        assert_eq!(
            goal(Recipe::new(phases())),
            "goal: none; weights whose log alpha is above 3 are removed"
        );
        let mut fixed = phases();
        fixed[1].weights = Some(1234);
        assert_eq!(
            goal(Recipe::new(fixed)),
            "goal: 1,234 weights, by the recipe"
        );
        let search = |goal| Recipe {
            search: Some(Search::towards(goal)),
            ..Recipe::new(phases())
        };
        assert_eq!(
            goal(search(Goal::Promise)),
            "goal: the fewest weights that keep the promise, in at most 7 tries from one posterior"
        );
        assert!(goal(search(Goal::Bytes(900))).contains("a packed file of 900 bytes"));
    }

    fn initialise_small() -> Network {
        let (graph, shapes) = presets::mlp("small", Shape::from([4]), &[3, 2]);
        initialise(graph, &shapes, 0).unwrap()
    }

    #[test]
    fn a_promise_of_nothing_and_of_classes_is_said() {
        let classes = [0, 1];
        let targets = Targets::classes(&classes);
        let mut recipe = Recipe::default_for_compression();
        assert_eq!(
            promise(&recipe, &targets),
            "promise: the validation error rises by at most 0.5 points"
        );
        (recipe.max_accuracy_drop, recipe.max_class_drop) = (0.0, Some(2.0));
        assert_eq!(
            promise(&recipe, &targets),
            "promise: no significant loss on validation, and no class loses more than 2 of recall"
        );
        let numbers = [0.5];
        assert_eq!(
            promise(&recipe, &Targets::vectors(&numbers, 1)),
            "promise: R2 on validation falls by at most 0.02"
        );
    }
}
