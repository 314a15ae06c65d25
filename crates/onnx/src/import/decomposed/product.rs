//! Values that are products, however the file multiplies them.

use super::reader::Reader;

/// Most factors of a product.
const MOST_FACTORS: usize = 8;

/// Most products inside each other; a value behind them is a factor, so that long chains of products cost little.
const DEEPEST: usize = 6;

/// `number` times all `factors`, over all `divisors`.
#[derive(Debug)]
pub(super) struct Product<'m> {
    pub number: f64,
    pub factors: Vec<&'m str>,
    pub divisors: Vec<&'m str>,
}

impl<'m> Reader<'_, 'm> {
    /// A value as a product; values of `whole` are factors even where they are products themselves.
    pub fn product(&self, value: &'m str, whole: &[&str]) -> Option<Product<'m>> {
        let mut product = Product {
            number: 1.0,
            factors: vec![],
            divisors: vec![],
        };
        self.multiply(value, false, whole, DEEPEST, &mut product)?;
        Some(product)
    }

    fn multiply(
        &self,
        value: &'m str,
        inverse: bool,
        whole: &[&str],
        depth: usize,
        into: &mut Product<'m>,
    ) -> Option<()> {
        let value = self.plain(value);
        if let Some(number) = self.number(value) {
            into.number *= if inverse { 1.0 / number } else { number };
            return Some(());
        }
        let is_open = depth > 0 && !whole.contains(&value);
        let node = is_open.then(|| self.node(value)).flatten();
        let depth = depth.saturating_sub(1);
        if let Some(node) = node {
            let both = || Self::pair(node);
            match node.0.op_type.as_str() {
                "Mul" => {
                    let [a, b] = both()?;
                    self.multiply(a, inverse, whole, depth, into)?;
                    return self.multiply(b, inverse, whole, depth, into);
                }
                "Div" => {
                    let [a, b] = both()?;
                    self.multiply(a, inverse, whole, depth, into)?;
                    return self.multiply(b, !inverse, whole, depth, into);
                }
                "Reciprocal" => return self.multiply(node.input(0)?, !inverse, whole, depth, into),
                "Pow" => {
                    let [a, exponent] = both()?;
                    if let Some(times @ (2.0 | 3.0)) = self.number(exponent) {
                        for _ in 0..times as usize {
                            self.multiply(a, inverse, whole, depth, into)?;
                        }
                        return Some(());
                    }
                }
                _ => {}
            }
        }
        match inverse {
            true => into.divisors.push(value),
            false => into.factors.push(value),
        }
        (into.factors.len() + into.divisors.len() <= MOST_FACTORS).then_some(())
    }
}

/// Whether a number is that of a formula, to single precision.
pub(super) fn is_number(number: f64, formula: f64) -> bool {
    // A number may itself be a product or an inverse of numbers of the file.
    (number - formula).abs() <= 1e-6 * formula.abs()
}
