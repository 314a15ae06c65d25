//! Tables of text: the first column to the left, the others as they are told.

use std::fmt;

/// How the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// A table with a row of titles.
#[derive(Debug)]
pub struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        Self {
            aligns: columns.iter().map(|(_, a)| *a).collect(),
            rows: vec![columns.iter().map(|(t, _)| (*t).to_owned()).collect()],
        }
    }

    /// Adds a row; cells past the columns are dropped.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    /// The rows, each ending in a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|r| r.get(column));
            cells.map(|c| c.chars().count()).max().unwrap_or(0)
        };
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, align)) in row.iter().zip(&self.aligns).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                let width = width(column);
                match align {
                    Align::Left => line.push_str(&format!("{gap}{cell:width$}")),
                    Align::Right => line.push_str(&format!("{gap}{cell:>width$}")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("layer", Align::Left), ("left", Align::Right)]);
        table.row(["fc1".into(), "12,345".into()]);
        assert_eq!(table.to_string(), "layer    left\nfc1    12,345\n");
    }
}
