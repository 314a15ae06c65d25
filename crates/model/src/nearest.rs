//! What a misspelt name was probably meant to be.

/// The known name that is nearest to `name`, by the letters that would have to be changed, added, left out or exchanged: at most a third of
/// them, and the first of equals.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Names from files can be long, and the distance takes the product of the lengths.
    const LONGEST: usize = 256;
    if name.len() > LONGEST {
        return None;
    }
    let distance = |known: &&'k str| {
        let (a, b) = (name.to_lowercase(), known.to_lowercase());
        strsim::damerau_levenshtein(&a, &b)
    };
    let known = known.into_iter().filter(|k| k.len() <= LONGEST);
    let (distance, best) = known.map(|k| (distance(&k), k)).min_by_key(|(d, _)| *d)?;
    (3 * distance <= best.chars().count()).then_some(best)
}

/// [`nearest`] as the end of an error: `; did you mean lenet-5?`, or nothing.
pub fn hint<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    nearest(name, known).map_or(String::new(), |best| format!("; did you mean {best}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_near_are_found() {
        let known = ["lenet-300-100", "lenet-5", "resnet-20", "resnet-50"];
        for (name, best) in [
            ("lenet5", Some("lenet-5")),
            ("LeNet-5", Some("lenet-5")),
            ("lent-5", Some("lenet-5")),
            ("resnet-05", Some("resnet-50")),
            ("lenet-300", None),
            ("transformer", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), best, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
        assert_eq!(nearest("a", []), None);
        assert_eq!(hint("lenet5", known), "; did you mean lenet-5?");
        assert_eq!(hint("other", known), "");
    }
}
