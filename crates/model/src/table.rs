//! The columns of a table that a network was trained on.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{ModelError, Shape};

/// How the rows of a table become the inputs and targets of a network; stored with a network that was trained on one.
///
/// The features of a row are its columns in the order of [`Self::columns`]: a number is one feature, a category one feature for
/// each category of its column, of which its own is 1 and the others are 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Columns of the input.
    pub columns: Vec<Column>,
    /// Name of the column that holds the targets.
    pub target: String,
    /// What the column of the targets holds for each class; absent for a regression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
}

/// One column of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Name in the header.
    pub name: String,
    /// The words that a column of categories holds, sorted; empty for a column of numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

impl Column {
    /// Features that the column becomes.
    pub fn features(&self) -> usize {
        self.categories.len().max(1)
    }
}

impl Table {
    /// Features of a row.
    pub fn features(&self) -> usize {
        self.columns.iter().map(Column::features).sum()
    }

    /// Checks the columns against the input of the network that stores them.
    ///
    /// # Errors
    /// A number of features that is not that of the input, two columns of one name, two equal categories or classes of a column.
    pub fn check(&self, input: &Shape) -> Result<(), ModelError> {
        let bad = |what, expected: String, got: String| {
            Err(ModelError::Preprocessing {
                what,
                expected,
                got,
            })
        };
        if self.features() != input.elements() {
            let expected = format!("{} features, those of the input", input.elements());
            return bad("table", expected, self.features().to_string());
        }
        let names = self.columns.iter().map(|c| &c.name).chain([&self.target]);
        let lists = [names.collect::<Vec<_>>()]
            .into_iter()
            .chain(self.columns.iter().map(|c| c.categories.iter().collect()))
            .chain(self.classes.iter().map(|c| c.iter().collect()));
        for list in lists {
            let mut seen = HashSet::new();
            if let Some(twice) = list.into_iter().find(|word| !seen.insert(*word)) {
                let expected = "names that differ".to_owned();
                return bad("table", expected, format!("`{twice}` twice"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let column = |name: &str, categories: &[&str]| Column {
            name: name.into(),
            categories: categories.iter().map(|&c| c.into()).collect(),
        };
        Table {
            columns: vec![column("size", &[]), column("colour", &["blue", "red"])],
            target: "price".into(),
            classes: None,
        }
    }

    #[test]
    fn a_table_has_a_feature_for_a_number_and_one_for_each_category() {
        assert_eq!(table().features(), 3);
        assert_eq!(table().check(&Shape::from([3])), Ok(()));
        let json = serde_json::to_string(&table()).unwrap();
        assert_eq!(
            json,
            r#"{"columns":[{"name":"size"},{"name":"colour","categories":["blue","red"]}],"target":"price"}"#
        );
        assert_eq!(serde_json::from_str::<Table>(&json).unwrap(), table());
    }

    #[test]
    fn a_table_that_contradicts_itself_or_the_input_is_refused() {
        let error = |change: fn(&mut Table)| {
            let mut table = table();
            change(&mut table);
            table.check(&Shape::from([3])).unwrap_err().to_string()
        };
        assert!(error(|t| t.columns.truncate(1)).contains("expected 3 features"));
        assert!(error(|t| t.target = "size".into()).contains("`size` twice"));
        assert!(error(|t| t.columns[1].categories = vec!["a".into(); 2]).contains("`a` twice"));
        assert!(error(|t| t.classes = Some(vec!["b".into(); 2])).contains("`b` twice"));
    }
}
