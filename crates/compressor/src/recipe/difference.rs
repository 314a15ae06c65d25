//! In what two recipes differ.

use serde_json::Value;

use super::Recipe;

impl Recipe {
    /// The first setting in which two recipes differ, in words, with its value here and there.
    pub fn difference(&self, other: &Self) -> Option<(String, String, String)> {
        let value = |recipe: &Self| serde_json::to_value(recipe).unwrap_or_default();
        difference_in("", &value(self), &value(other))
    }
}

fn difference_in(name: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    let unset = &Value::Null;
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let mut keys = x.keys().chain(y.keys());
            keys.find_map(|key| {
                let [a, b] = [x, y].map(|map| map.get(key).unwrap_or(unset));
                difference_in(format!("{name} {key}").trim_start(), a, b)
            })
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            let mut pairs = x.iter().zip(y).enumerate();
            pairs.find_map(|(i, (a, b))| difference_in(&format!("{name} {}", i + 1), a, b))
        }
        _ if a == b => None,
        _ => Some((name.to_owned(), in_words(a), in_words(b))),
    }
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Null => "unset".into(),
        Value::Array(values) => format!("{} entries", values.len()),
        Value::Object(_) => "set".into(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Method, Phase};

    #[test]
    fn the_first_difference_is_named() {
        let phases = [Method::SparseVd, Method::FineTune].map(|m| Phase::new(m, 3));
        let recipe = Recipe::new(phases.into());
        let differs = |change: &dyn Fn(&mut Recipe)| {
            let mut other = recipe.clone();
            change(&mut other);
            let (name, here, there) = recipe.difference(&other).unwrap();
            format!("{name}: {here}, {there}")
        };
        assert_eq!(recipe.difference(&recipe), None);
        assert_eq!(differs(&|r| r.seed = 7), "seed: 0, 7");
        assert_eq!(differs(&|r| r.phases[1].lr = 0.1), "phase 2 lr: 0.001, 0.1");
        assert_eq!(
            differs(&|r| r.phases[1].weights = Some(9)),
            "phase 2 weights: unset, 9"
        );
        assert_eq!(
            differs(&|r| r.phases.truncate(1)),
            "phase: 2 entries, 1 entries"
        );
    }
}
