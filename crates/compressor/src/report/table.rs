//! Tables of text, and numbers as people read them.

use std::fmt;

use sparsevd_model::terminal;

/// On which side the cells of a column line up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// The left, as words.
    Left,
    /// The right, as numbers.
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

    /// Adds a row; cells past the columns are dropped. Names of a file may have anything in them, so cells are made printable.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter();
        let printable = cells.map(|cell| terminal::name(&cell).into_owned());
        self.rows.push(printable.collect());
    }
}

impl fmt::Display for Table {
    /// The rows, each ending in a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|r| r.get(column));
            cells.map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.aligns.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            let cells = row.iter().zip(&self.aligns).zip(&widths);
            for (column, ((cell, align), &width)) in cells.enumerate() {
                let gap = if column == 0 { "" } else { "  " };
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

/// An integer with its thousands apart.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes with a binary unit.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        let counts = [0, 7, 999, 1000, 430_500, 1_234_567].map(count);
        assert_eq!(counts, ["0", "7", "999", "1,000", "430,500", "1,234,567"]);
    }

    #[test]
    fn bytes_have_binary_units() {
        assert_eq!(
            [0, 1023, 1024, 3 << 20].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "3.0 MiB"]
        );
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("layer", Align::Left), ("left", Align::Right)]);
        table.row(["fc1".into(), "12,345".into()]);
        assert_eq!(table.to_string(), "layer    left\nfc1    12,345\n");
    }
}
