//! Tables as CSV: columns of numbers or of categories, one of which is the target.

mod rows;

use std::collections::HashMap;
use std::path::Path;

use sparsevd_model::{Column, Preprocessing, Shape, Table, hint};

use crate::array::MAX_BYTES;
use crate::dataset::{self, Parts};
use crate::regression::RegressionSplits;
use crate::{Dataset, FormatError, LoadedSamples, Pixels, RegressionSet};

use rows::{MAX_CATEGORIES, Rows, Values, list};

/// What is known of a table before it is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct TableOptions<'a> {
    /// Name of the column of the targets; that of `table`, else the last column where absent.
    pub target: Option<&'a str>,
    /// The columns that a network was trained on. The table must then have these and no others, in any order.
    pub table: Option<&'a Table>,
}

/// The preprocessing that gives every feature of the rows, `[rows][features]`, the mean 0 and the deviation 1.
///
/// Of a feature that is the same in all rows the mean is subtracted, no more.
pub fn standardise(rows: &[f32], table: Table) -> Preprocessing {
    let features = table.features().max(1);
    let n = (rows.len() / features).max(1) as f64;
    let moments = (0..features).map(|feature| {
        let values = || (rows.iter().skip(feature).step_by(features)).map(|&v| f64::from(v));
        let mean = values().sum::<f64>() / n;
        let variance = values().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
        let (mean, std) = (mean as f32, variance.sqrt() as f32);
        // What f32 cannot tell from rounding does not differ.
        let differs = std.is_normal() && std > mean.abs() * f32::EPSILON;
        (mean, if differs { std } else { 1.0 })
    });
    let (mean, std) = moments.unzip();
    Preprocessing {
        scale: 1.0,
        mean,
        std,
        table: Some(table),
    }
}

/// Reads the features of a table, `[rows][features]`, by the columns that a network stores.
///
/// The column of the targets may be there and does not count.
///
/// # Errors
/// Columns that are not those of `table`, values that are missing or of another kind, and unknown categories, each with line
/// and column.
pub fn read_table(path: impl AsRef<Path>, table: &Table) -> Result<Vec<f32>, FormatError> {
    let path = path.as_ref();
    features(path, &Rows::read(path)?, table)
}

/// Loads a table: the files for training and for testing, or one file, of which a fifth of the rows are for testing.
pub(crate) fn load(
    train: &Path,
    test: Option<&Path>,
    options: &TableOptions<'_>,
) -> Result<LoadedSamples, FormatError> {
    let rows = Rows::read(train)?;
    let table = match options.table {
        Some(table) => table.clone(),
        None => infer(train, &rows, options.target)?,
    };
    if let Some(named) = options.target.filter(|t| *t != table.target) {
        let expected = format!("`{}`, the target of the network", table.target);
        return Err(invalid(train, "target", expected, format!("`{named}`")));
    }
    let test_rows = test.map(Rows::read).transpose()?;
    let test = test.zip(test_rows.as_ref());
    let shape = Shape::from([table.features()]);
    let inputs = |path: &Path, rows: &Rows| Ok(Pixels::Table(features(path, rows, &table)?));
    let kind = format!("table, target `{}`", table.target);
    Ok(match &table.classes {
        Some(classes) => {
            let set = |path: &Path, rows: &Rows| {
                let labels = labels(path, rows, &table.target, classes)?;
                Dataset::new(inputs(path, rows)?, shape.clone(), labels)
            };
            let parts = parts((train, &rows), test, set, Dataset::subset)?;
            let mut splits = dataset::splits(train, &kind, parts);
            splits.table = Some(table.clone());
            LoadedSamples::Classes(splits)
        }
        None => {
            let set = |path: &Path, rows: &Rows| {
                let targets = numbers(path, rows, &table.target)?;
                RegressionSet::new(inputs(path, rows)?, shape.clone(), targets, 1)
            };
            let parts = parts((train, &rows), test, set, RegressionSet::subset)?;
            let mut splits = RegressionSplits::of(train, &kind, parts);
            splits.table = Some(table.clone());
            LoadedSamples::Numbers(splits)
        }
    })
}

/// The sets of two files, or of one that is divided.
fn parts<S>(
    train: (&Path, &Rows),
    test: Option<(&Path, &Rows)>,
    set: impl Fn(&Path, &Rows) -> Result<S, FormatError>,
    subset: impl Fn(&S, &[usize]) -> S,
) -> Result<Parts<S>, FormatError> {
    let all = set(train.0, train.1)?;
    let (train, test) = match test {
        Some((path, rows)) => (all, Some(set(path, rows)?)),
        None => {
            let [test, rest] = held_back(train.1.len());
            let test = (!test.is_empty()).then(|| subset(&all, &test));
            (subset(&all, &rest), test)
        }
    };
    Ok(Parts {
        train: Some(train),
        test,
        whole: None,
    })
}

/// Places of the rows that are for testing, a fifth of all, and of the rest. The number of rows alone decides.
fn held_back(rows: usize) -> [Vec<usize>; 2] {
    // The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a permutation of the numbers of 64 bits.
    let mixed = |row: &usize| {
        let z = (*row as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by_key(mixed);
    let rest = order.split_off(rows / 5);
    [order, rest].map(|mut places| {
        places.sort_unstable();
        places
    })
}

/// The columns of a table that no network knows yet.
fn infer(path: &Path, rows: &Rows, target: Option<&str>) -> Result<Table, FormatError> {
    let last = rows.names.len() - 1;
    let at = match target {
        None => last,
        Some(name) => rows.column(name).ok_or_else(|| {
            let expected = format!("a column `{name}`");
            invalid(path, "target", expected, rows.described())
        })?,
    };
    let inputs = (rows.names.iter().zip(&rows.values).enumerate()).filter(|(i, _)| *i != at);
    let columns = inputs.map(|(_, (name, values))| Column {
        name: name.clone(),
        categories: match values {
            Values::Numbers { .. } => vec![],
            Values::Words { words, .. } => sorted(words),
        },
    });
    let classes = match &rows.values[at] {
        Values::Words { words, .. } => Some(sorted(words)),
        Values::Numbers {
            integers: false, ..
        } => None,
        Values::Numbers { values, .. } => {
            let limit = MAX_CATEGORIES as f32;
            if let Some(row) = values.iter().position(|v| !(0.0..limit).contains(v)) {
                let expected = format!(
                    "a class from 0 to {}, or, for a regression, a number with a decimal point in some row",
                    MAX_CATEGORIES - 1
                );
                let what = rows.place(row, at);
                return Err(invalid(path, what, expected, values[row].to_string()));
            }
            let most = values.iter().copied().fold(0.0, f32::max) as usize;
            Some((0..=most).map(|class| class.to_string()).collect())
        }
    };
    Ok(Table {
        columns: columns.collect(),
        target: rows.names[at].clone(),
        classes,
    })
}

fn sorted(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    words.sort();
    words
}

/// The features of all rows, `[rows][features]`.
fn features(path: &Path, rows: &Rows, table: &Table) -> Result<Vec<f32>, FormatError> {
    let known = |name: &String| {
        *name == table.target || table.columns.iter().any(|column| column.name == *name)
    };
    if let Some(unknown) = rows.names.iter().find(|name| !known(name)) {
        let names: Vec<String> = table.columns.iter().map(|c| c.name.clone()).collect();
        let expected = format!(
            "the columns that the network was trained on: {}",
            list(&names)
        );
        return Err(invalid(path, "header", expected, format!("`{unknown}`")));
    }
    let (count, width) = (rows.len(), table.features());
    let most = (MAX_BYTES / 4) as usize;
    let size = count
        .checked_mul(width)
        .filter(|n| *n <= most)
        .ok_or_else(|| {
            let expected = format!("at most {MAX_BYTES} bytes of features");
            invalid(
                path,
                "table",
                expected,
                format!("{count} rows of {width} features"),
            )
        })?;
    let mut out = vec![0.0; size];
    let mut first = 0;
    for column in &table.columns {
        let at = rows.column(&column.name).ok_or_else(|| {
            let expected = format!("a column `{}`", column.name);
            invalid(path, "header", expected, rows.described())
        })?;
        let cells = out.chunks_exact_mut(width).map(|row| &mut row[first..]);
        match (&rows.values[at], column.categories.as_slice()) {
            (Values::Numbers { values, .. }, []) => {
                cells.zip(values).for_each(|(cell, v)| cell[0] = *v);
            }
            (Values::Words { .. }, categories @ [_, ..]) => {
                let of_rows = categories_of(path, rows, at, categories)?;
                cells
                    .zip(of_rows)
                    .for_each(|(cell, category)| cell[usize::from(category)] = 1.0);
            }
            (values, categories) => {
                let expected = match categories {
                    [] => "numbers, as when the network was trained".to_owned(),
                    _ => format!("categories: {}", list(categories)),
                };
                let what = format!("column `{}`", column.name);
                return Err(invalid(path, what, expected, values.kind()));
            }
        }
        first += column.features();
    }
    Ok(out)
}

/// The place of each row's word among `known` words.
fn categories_of(
    path: &Path,
    rows: &Rows,
    at: usize,
    known: &[String],
) -> Result<Vec<u16>, FormatError> {
    let places: HashMap<&str, u16> = known.iter().map(String::as_str).zip(0..).collect();
    let unknown = |row: usize, word: &str| {
        let what = rows.place(row, at);
        let expected = format!("one of {}", list(known));
        invalid(path, what, expected, format!("`{word}`"))
    };
    match &rows.values[at] {
        Values::Words {
            words,
            places: of_rows,
        } => {
            let of_words: Vec<Option<u16>> = words
                .iter()
                .map(|w| places.get(w.as_str()).copied())
                .collect();
            let category = |(row, &word): (usize, &u32)| {
                let word = word as usize;
                of_words[word].ok_or_else(|| unknown(row, &words[word]))
            };
            of_rows.iter().enumerate().map(category).collect()
        }
        Values::Numbers { values, .. } => {
            let category = |(row, value): (usize, &f32)| {
                let word = value.to_string();
                let place = places.get(word.as_str()).copied();
                place.ok_or_else(|| unknown(row, &word))
            };
            values.iter().enumerate().map(category).collect()
        }
    }
}

/// The column of the targets.
fn target(path: &Path, rows: &Rows, name: &str) -> Result<usize, FormatError> {
    rows.column(name).ok_or_else(|| {
        let expected = format!("a column `{name}`, the target");
        let hint = hint(name, rows.names.iter().map(String::as_str));
        invalid(path, "header", expected, rows.described() + &hint)
    })
}

/// The class of each row.
fn labels(
    path: &Path,
    rows: &Rows,
    name: &str,
    classes: &[String],
) -> Result<Vec<u16>, FormatError> {
    categories_of(path, rows, target(path, rows, name)?, classes)
}

/// The number of each row that is to be predicted.
fn numbers(path: &Path, rows: &Rows, name: &str) -> Result<Vec<f32>, FormatError> {
    match &rows.values[target(path, rows, name)?] {
        Values::Numbers { values, .. } => Ok(values.clone()),
        words => {
            let what = format!("column `{name}`, the target");
            Err(invalid(
                path,
                what,
                "numbers, as the network gives",
                words.kind(),
            ))
        }
    }
}

fn invalid(
    path: &Path,
    what: impl Into<String>,
    expected: impl Into<String>,
    got: impl Into<String>,
) -> FormatError {
    FormatError::invalid(path, what, expected, got)
}
