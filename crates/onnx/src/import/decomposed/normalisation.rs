//! Layer normalisation and softmax, which divide by a statistic.

use super::reader::Reader;
use super::statistic::Kind;
use crate::import::whole::LayerNormalization;

impl<'m> Reader<'_, 'm> {
    /// A value that is the layer normalisation of another.
    pub fn layer_normalization(&self, value: &'m str) -> Option<LayerNormalization<'m>> {
        let bias = self.node_of(value, "Add").and_then(|node| {
            let [a, b] = Self::pair(node)?;
            match (self.constant(a), self.constant(b)) {
                (None, Some(_)) => Some((a, b)),
                (Some(_), None) => Some((b, a)),
                _ => None,
            }
        });
        let (product, bias) = match bias {
            Some((product, bias)) => (product, Some(bias)),
            None => (value, None),
        };
        let product = self.product(product, &[])?;
        let (scales, values): (Vec<&str>, Vec<&str>) =
            (product.factors.iter()).partition(|f| self.constant(f).is_some());
        let (centred, deviation, is_inverse) =
            match (values.as_slice(), product.divisors.as_slice()) {
                (&[centred], &[deviation]) => (centred, deviation, false),
                (&[a, b], []) if self.centred(a).is_some() => (a, b, true),
                (&[a, b], []) => (b, a, true),
                _ => return None,
            };
        let (x, axes) = self.centred(centred)?;
        let deviation = self.statistic(deviation)?;
        let epsilon = match (deviation.kind, is_inverse) {
            (Kind::Deviation(e), false) | (Kind::InverseDeviation(e), true) => e,
            _ => return None,
        };
        let is_one = deviation.of == x
            && deviation.axes == axes
            && deviation.fits(&self.dims(x)?)
            && scales.len() <= 1;
        is_one.then(|| LayerNormalization {
            x,
            axes,
            number: product.number as f32,
            scale: scales.first().copied(),
            bias,
            epsilon,
        })
    }

    /// `x` of a value that is its softmax along one axis, and that axis.
    pub fn softmax(&self, value: &'m str) -> Option<(&'m str, usize)> {
        let product = self.product(value, &[])?;
        let (&[exponential], &[sum]) = (product.factors.as_slice(), product.divisors.as_slice())
        else {
            return None;
        };
        let sum = self.statistic(sum)?;
        let fits = product.number == 1.0
            && sum.kind == Kind::Sum
            && sum.of == exponential
            && sum.fits(&self.dims(exponential)?);
        let (true, &[axis]) = (fits, sum.axes.as_slice()) else {
            return None;
        };
        let exponent = self.plain(self.node_of(exponential, "Exp")?.input(0)?);
        let less_largest = || {
            let [x, largest] = Self::pair(self.node_of(exponent, "Sub")?)?;
            let (x, largest) = (self.plain(x), self.statistic(largest)?);
            let is_largest = largest.kind == Kind::Max
                && largest.of == x
                && largest.axes == sum.axes
                && largest.fits(&self.dims(x)?);
            is_largest.then_some(x)
        };
        Some((less_largest().unwrap_or(exponent), axis))
    }
}
