//! The text of a table: a header, and rows of numbers and words.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use csv::{ReaderBuilder, StringRecord, Trim};

use crate::{FormatError, read_file};

/// Most bytes of a file.
const MAX_FILE: u64 = 2 << 30;

/// Most columns of a table.
const MAX_COLUMNS: usize = 1 << 16;

/// Most categories of a column, and most classes of a target.
pub(super) const MAX_CATEGORIES: usize = 1000;

/// Words that stand for a missing value, in lower case.
const MISSING: [&str; 6] = ["", "na", "n/a", "nan", "null", "?"];

/// The values of a column, a row each.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    Numbers {
        values: Vec<f32>,
        /// Whether all of them are written as integers.
        integers: bool,
    },
    Words {
        /// Different words, in the order of their first rows.
        words: Vec<String>,
        /// Place of each row's word among them.
        places: Vec<u32>,
    },
}

impl Values {
    /// Name of the kind, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Numbers { .. } => "numbers",
            Self::Words { .. } => "words",
        }
    }
}

/// A table as it is written.
#[derive(Debug)]
pub(super) struct Rows {
    pub names: Vec<String>,
    /// Of each column.
    pub values: Vec<Values>,
    text: String,
    /// Where each row begins in the text, or the empty lines before it.
    starts: Vec<usize>,
}

impl Rows {
    /// Reads a CSV file with a header; commas, semicolons or tabs separate its values.
    pub fn read(path: &Path) -> Result<Self, FormatError> {
        let text = read_text(path)?;
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter(&text))
            .trim(Trim::All)
            .flexible(true)
            .from_reader(text.as_bytes());
        let broken = |e: csv::Error| FormatError::invalid(path, "table", "CSV", e.to_string());
        let header = reader.headers().map_err(broken)?;
        let names: Vec<String> = header.iter().map(str::to_owned).collect();
        check_header(path, &names)?;
        let mut columns: Vec<Reading> = names.iter().map(|_| Reading::default()).collect();
        let mut starts = vec![];
        let mut row = StringRecord::new();
        while reader.read_record(&mut row).map_err(broken)? {
            let start = row.position().map_or(0, |p| p.byte() as usize);
            if row.len() != names.len() {
                return Err(FormatError::invalid(
                    path,
                    format!("line {}", line(&text, start)),
                    format!("{} values, one per column of the header", names.len()),
                    row.len().to_string(),
                ));
            }
            for ((column, name), value) in columns.iter_mut().zip(&names).zip(&row) {
                column.push(value).map_err(|(expected, got)| {
                    let what = format!("line {}, column `{name}`", line(&text, start));
                    FormatError::invalid(path, what, expected, got)
                })?;
            }
            starts.push(start);
        }
        if starts.is_empty() {
            let expected = "at least one row below the header";
            return Err(FormatError::invalid(path, "table", expected, "none"));
        }
        Ok(Self {
            names,
            values: columns.into_iter().filter_map(|c| c.values).collect(),
            text,
            starts,
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Line of a row and name of a column, for messages.
    pub fn place(&self, row: usize, column: usize) -> String {
        let line = line(&self.text, self.starts[row]);
        format!("line {line}, column `{}`", self.names[column])
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| n == name)
    }

    /// Names of the columns for messages; long lists are cut.
    pub fn described(&self) -> String {
        list(&self.names)
    }
}

/// Names for messages; long lists are cut.
pub(super) fn list(names: &[String]) -> String {
    const MOST: usize = 24;
    let some: Vec<String> = names.iter().take(MOST).map(|n| format!("`{n}`")).collect();
    match names.len() {
        n if n > MOST => format!("{}, ... ({} more)", some.join(", "), n - MOST),
        _ => some.join(", "),
    }
}

/// The text of a file, without a byte order mark.
fn read_text(path: &Path) -> Result<String, FormatError> {
    let bytes = read_file(path, MAX_FILE)?;
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|b| **b == b'\n').count();
        FormatError::invalid(path, format!("line {line}"), "UTF-8 text", "other bytes")
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// The line, from 1, of the first text at `start` or behind that is no line end.
fn line(text: &str, start: usize) -> usize {
    let empty = text[start..].bytes().take_while(|b| b"\r\n".contains(b));
    let before = text[..start].bytes().chain(empty);
    1 + before.filter(|b| *b == b'\n').count()
}

/// The separator that the first line has most of; a comma where it has none.
fn delimiter(text: &str) -> u8 {
    let line = text.trim_ascii_start().lines().next().unwrap_or_default();
    let count = |d: &u8| line.bytes().filter(|b| b == d).count();
    // The last of equals is taken.
    let most = [b'\t', b';', b','].into_iter().max_by_key(count);
    most.unwrap_or(b',')
}

fn check_header(path: &Path, names: &[String]) -> Result<(), FormatError> {
    let fail =
        |expected: &str, got: String| Err(FormatError::invalid(path, "header", expected, got));
    if !(2..=MAX_COLUMNS).contains(&names.len()) {
        let expected = format!("2 to {MAX_COLUMNS} columns: inputs and a target");
        return fail(&expected, names.len().to_string());
    }
    if names.iter().all(|n| n.parse::<f32>().is_ok()) {
        return fail("names of the columns in the first line", list(names));
    }
    if let Some(at) = names.iter().position(String::is_empty) {
        return fail(
            "a name for every column",
            format!("none for column {}", at + 1),
        );
    }
    let mut seen = HashSet::new();
    match names.iter().find(|n| !seen.insert(*n)) {
        Some(twice) => fail("names that differ", format!("`{twice}` twice")),
        None => Ok(()),
    }
}

/// A column while it is read. Its first value decides between numbers and words.
#[derive(Default)]
struct Reading {
    values: Option<Values>,
    places: HashMap<String, u32>,
}

impl Reading {
    /// Adds a value; gives what was expected and what came where it is none of the column.
    fn push(&mut self, text: &str) -> Result<(), (String, String)> {
        if MISSING.iter().any(|m| text.eq_ignore_ascii_case(m)) {
            return Err(("a value".into(), format!("a missing one (`{text}`)")));
        }
        let number = text.parse::<f32>().ok();
        let values = self.values.get_or_insert_with(|| match number {
            Some(_) => Values::Numbers {
                values: vec![],
                integers: true,
            },
            None => Values::Words {
                words: vec![],
                places: vec![],
            },
        });
        let got = || format!("`{text}`");
        match (values, number) {
            (Values::Numbers { values, integers }, Some(number)) => {
                if !number.is_finite() {
                    return Err(("a finite number that f32 can hold".into(), got()));
                }
                *integers &= text.parse::<i64>().is_ok();
                values.push(number);
            }
            (Values::Numbers { .. }, None) => {
                return Err(("a number, as in the rows before".into(), got()));
            }
            (Values::Words { .. }, Some(_)) => {
                return Err(("a word, as in the rows before".into(), got()));
            }
            (Values::Words { words, places }, None) => {
                let place = match self.places.get(text) {
                    Some(&place) => place,
                    None if words.len() == MAX_CATEGORIES => {
                        let expected = format!("at most {MAX_CATEGORIES} different words");
                        return Err((expected, format!("another, {}", got())));
                    }
                    None => {
                        let place = words.len() as u32;
                        self.places.insert(text.to_owned(), place);
                        words.push(text.to_owned());
                        place
                    }
                };
                places.push(place);
            }
        }
        Ok(())
    }
}
