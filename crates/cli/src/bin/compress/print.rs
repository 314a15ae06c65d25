//! Printing for people and as JSON.

use serde::Serialize;

pub use crate::common::{bytes, talks, text};

/// Prints JSON as one line.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(serde_json::to_string(value)?)
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
    fn thousands_are_apart() {
        let counts = [0, 7, 999, 1000, 430_500, 1_234_567].map(super::count);
        assert_eq!(counts, ["0", "7", "999", "1,000", "430,500", "1,234,567"]);
    }
}
