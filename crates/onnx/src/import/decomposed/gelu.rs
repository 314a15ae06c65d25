//! GELU: `x (1 + erf(x / sqrt 2)) / 2`, or `x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2`.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

use sparsevd_model::Approximate;

use super::product::is_number;
use super::reader::Reader;

/// The factor of the cube (Hendrycks and Gimpel 2016, section 2).
const CUBE: f64 = 0.044715;

impl<'m> Reader<'_, 'm> {
    /// `x` of a value that is its GELU, and how the normal distribution function is computed.
    pub fn gelu(&self, value: &'m str) -> Option<(&'m str, Approximate)> {
        let product = self.product(value, &[])?;
        let factors = product.factors.iter().copied();
        let (gate, inner, approximate) = factors.into_iter().find_map(|gate| self.gate(gate))?;
        let candidates: Vec<&str> = match approximate {
            Approximate::None => vec![self.scaled(inner, FRAC_1_SQRT_2)?],
            Approximate::Tanh => self.addends(inner)?,
        };
        let is_gelu = |x: &&'m str| {
            let fits = match approximate {
                Approximate::None => Some(()),
                Approximate::Tanh => self.with_cube(inner, x),
            };
            fits.is_some() && self.is_product(value, 0.5, &[x, gate])
        };
        let x = candidates.into_iter().find(is_gelu)?;
        Some((x, approximate))
    }

    /// A value `1 + erf(u)` or `1 + tanh(u)`, and `u`.
    fn gate(&self, value: &'m str) -> Option<(&'m str, &'m str, Approximate)> {
        let (function, 1.0) = self.beside_number(self.node_of(value, "Add")?)? else {
            return None;
        };
        let node = self.node(self.plain(function))?;
        let approximate = match node.0.op_type.as_str() {
            "Erf" => Approximate::None,
            "Tanh" => Approximate::Tanh,
            _ => return None,
        };
        Some((value, self.plain(node.input(0)?), approximate))
    }

    /// `x` of a value `number x`, with one multiplication or division.
    fn scaled(&self, value: &'m str, number: f64) -> Option<&'m str> {
        let node = self.node(value)?;
        let [a, b] = Self::pair(node)?;
        let x = match (node.0.op_type.as_str(), self.number(a), self.number(b)) {
            ("Mul", None, Some(n)) | ("Div", None, Some(n)) => {
                let factor = if node.0.op_type == "Div" { 1.0 / n } else { n };
                is_number(factor, number).then_some(a)
            }
            ("Mul", Some(n), None) => is_number(n, number).then_some(b),
            _ => None,
        };
        x.map(|x| self.plain(x))
    }

    /// What could be `x` in `u = sqrt(2/pi) (x + 0.044715 x^3)`, or `sqrt(2/pi) x (1 + 0.044715 x^2)`.
    fn addends(&self, u: &'m str) -> Option<Vec<&'m str>> {
        let product = self.product(u, &[])?;
        let sums = product
            .factors
            .iter()
            .filter_map(|f| self.node_of(f, "Add"));
        let mut all: Vec<&str> = sums
            .filter_map(Self::pair)
            .flatten()
            .map(|v| self.plain(v))
            .collect();
        all.extend(&product.factors);
        Some(all)
    }

    /// Whether `u` is that of [`Reader::addends`] for this `x`.
    fn with_cube(&self, u: &'m str, x: &str) -> Option<()> {
        let product = self.product(u, &[x])?;
        let is_scale = is_number(product.number, FRAC_2_PI.sqrt());
        let sum = |value: &'m str| Self::pair(self.node_of(value, "Add")?);
        // The powers of `x` in both terms.
        let cubic = match *product.factors.as_slice() {
            [only] => {
                let [a, b] = sum(only)?;
                let cube = if self.plain(a) == x { b } else { a };
                (self.plain(a) == x || self.plain(b) == x)
                    && self.is_product(cube, CUBE, &[x, x, x])
            }
            [a, b] => {
                let other = if a == x { b } else { a };
                let (square, one) = self.beside_number(self.node_of(other, "Add")?)?;
                (a == x || b == x) && one == 1.0 && self.is_product(square, CUBE, &[x, x])
            }
            _ => false,
        };
        (is_scale && cubic && product.divisors.is_empty()).then_some(())
    }

    /// Whether a value is a number of a formula times all of `factors`.
    fn is_product(&self, value: &'m str, number: f64, factors: &[&str]) -> bool {
        let Some(mut product) = self.product(value, factors) else {
            return false;
        };
        let mut factors = factors.to_vec();
        factors.sort_unstable();
        product.factors.sort_unstable();
        is_number(product.number, number)
            && product.factors == factors
            && product.divisors.is_empty()
    }
}
