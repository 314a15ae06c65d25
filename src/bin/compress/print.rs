//! Printing on stdout in one go, so that a closed pipe is an error like any other.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use serde::Serialize;

/// Prints text and a line end.
pub fn text(text: impl Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Prints JSON as one line.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(serde_json::to_string(value)?)
}

/// Whether stderr is for a person.
pub fn talks(quiet: bool) -> bool {
    !quiet && std::io::stderr().is_terminal()
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

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_and_units() {
        let counts = [0, 7, 999, 1000, 430_500, 1_234_567].map(super::count);
        assert_eq!(counts, ["0", "7", "999", "1,000", "430,500", "1,234,567"]);
        assert_eq!(
            [0, 1023, 1024, 3 << 20].map(super::bytes),
            ["0 B", "1023 B", "1.0 KiB", "3.0 MiB"]
        );
    }
}
