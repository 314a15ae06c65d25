//! Inputs and outputs of a run: slices of the caller, in the order of the plan.

use std::ops::{Deref, DerefMut};

use crate::error::RuntimeError;
use crate::plan::PlanValue;

/// The inputs of a run: the only one, or each by its name, in any order.
///
/// Converts from `&[f32]`, `&Vec<f32>` and `&[f32; N]`, and from slices and arrays of names with slices.
#[derive(Debug, Clone, Copy)]
pub enum Inputs<'a> {
    /// The input of a network that has one.
    Only(&'a [f32]),
    /// Inputs by name.
    Named(&'a [(&'a str, &'a [f32])]),
}

/// The outputs of a run: the only one, or each by its name, in any order.
///
/// Converts from `&mut [f32]`, `&mut Vec<f32>` and `&mut [f32; N]`, and from slices and arrays of names with slices.
#[derive(Debug)]
pub enum Outputs<'a, 'n> {
    /// The output of a network that has one.
    Only(&'a mut [f32]),
    /// Outputs by name.
    Named(&'a mut [(&'n str, &'n mut [f32])]),
}

impl<'a> From<&'a [f32]> for Inputs<'a> {
    fn from(only: &'a [f32]) -> Self {
        Self::Only(only)
    }
}

impl<'a> From<&'a Vec<f32>> for Inputs<'a> {
    fn from(only: &'a Vec<f32>) -> Self {
        Self::Only(only)
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for Inputs<'a> {
    fn from(only: &'a [f32; N]) -> Self {
        Self::Only(only)
    }
}

impl<'a> From<&'a [(&'a str, &'a [f32])]> for Inputs<'a> {
    fn from(named: &'a [(&'a str, &'a [f32])]) -> Self {
        Self::Named(named)
    }
}

impl<'a, const N: usize> From<&'a [(&'a str, &'a [f32]); N]> for Inputs<'a> {
    fn from(named: &'a [(&'a str, &'a [f32]); N]) -> Self {
        Self::Named(named)
    }
}

impl<'a> From<&'a mut [f32]> for Outputs<'a, '_> {
    fn from(only: &'a mut [f32]) -> Self {
        Self::Only(only)
    }
}

impl<'a> From<&'a mut Vec<f32>> for Outputs<'a, '_> {
    fn from(only: &'a mut Vec<f32>) -> Self {
        Self::Only(only)
    }
}

impl<'a, const N: usize> From<&'a mut [f32; N]> for Outputs<'a, '_> {
    fn from(only: &'a mut [f32; N]) -> Self {
        Self::Only(only)
    }
}

impl<'a, 'n> From<&'a mut [(&'n str, &'n mut [f32])]> for Outputs<'a, 'n> {
    fn from(named: &'a mut [(&'n str, &'n mut [f32])]) -> Self {
        Self::Named(named)
    }
}

impl<'a, 'n, const N: usize> From<&'a mut [(&'n str, &'n mut [f32]); N]> for Outputs<'a, 'n> {
    fn from(named: &'a mut [(&'n str, &'n mut [f32]); N]) -> Self {
        Self::Named(named)
    }
}

impl<'a> Inputs<'a> {
    /// The slices in the order of `values`.
    ///
    /// # Errors
    /// [`RuntimeError::Names`] when the names are not those of `values`.
    pub(crate) fn in_order(self, values: &[PlanValue]) -> Result<List<&'a [f32]>, RuntimeError> {
        let mut list = List::of(values.len());
        match self {
            Self::Only(slice) => {
                check_one("inputs", values)?;
                list[0] = slice;
            }
            Self::Named(named) => {
                check_names("inputs", values, named.iter().map(|(name, _)| *name))?;
                for &(name, slice) in named {
                    list[position(values, name)] = slice;
                }
            }
        }
        Ok(list)
    }
}

impl<'a> Outputs<'a, '_> {
    /// The slices in the order of `values`.
    ///
    /// # Errors
    /// As [`Inputs::in_order`].
    pub(crate) fn in_order(
        self,
        values: &[PlanValue],
    ) -> Result<List<&'a mut [f32]>, RuntimeError> {
        let mut list = List::of(values.len());
        match self {
            Self::Only(slice) => {
                check_one("outputs", values)?;
                list[0] = slice;
            }
            Self::Named(named) => {
                check_names("outputs", values, named.iter().map(|(name, _)| *name))?;
                for (name, slice) in named {
                    list[position(values, name)] = slice;
                }
            }
        }
        Ok(list)
    }
}

fn position(values: &[PlanValue], name: &str) -> usize {
    let position = values.iter().position(|v| v.name == name);
    position.unwrap_or_else(|| unreachable!("names were checked"))
}

pub(crate) fn check_one(operand: &'static str, values: &[PlanValue]) -> Result<(), RuntimeError> {
    match values {
        [_] => Ok(()),
        _ => Err(names_error(operand, values, "one without a name".into())),
    }
}

/// That each value is named once, and nothing else is.
fn check_names<'n>(
    operand: &'static str,
    values: &[PlanValue],
    names: impl Iterator<Item = &'n str> + Clone,
) -> Result<(), RuntimeError> {
    let once = |value: &PlanValue| names.clone().filter(|n| *n == value.name).count() == 1;
    if names.clone().count() == values.len() && values.iter().all(once) {
        return Ok(());
    }
    Err(names_error(operand, values, listed(names)))
}

fn names_error(operand: &'static str, values: &[PlanValue], got: String) -> RuntimeError {
    RuntimeError::Names {
        operand,
        expected: listed(values.iter().map(|v| v.name.as_str())),
        got,
    }
}

fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<String> = names.map(|n| format!("`{n}`")).collect();
    match names.len() {
        0 => "none".into(),
        _ => names.join(", "),
    }
}

/// Networks with more inputs or outputs than that allocate at each run.
const FEW: usize = 8;

/// One element for each input or output. Few of them need no allocation.
#[derive(Debug)]
pub(crate) struct List<T> {
    few: [T; FEW],
    /// All elements where there are more than [`FEW`].
    many: Vec<T>,
    len: usize,
}

impl<T: Default> List<T> {
    /// `len` elements.
    pub fn of(len: usize) -> Self {
        let mut many = Vec::new();
        if len > FEW {
            many.resize_with(len, T::default);
        }
        Self {
            few: Default::default(),
            many,
            len,
        }
    }

    /// The elements of an iterator.
    pub fn from_iter(elements: impl ExactSizeIterator<Item = T>) -> Self {
        let mut list = Self::of(elements.len());
        for (slot, element) in list.iter_mut().zip(elements) {
            *slot = element;
        }
        list
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self.len {
            0..=FEW => &self.few[..self.len],
            _ => &self.many,
        }
    }
}

impl<T> DerefMut for List<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self.len {
            0..=FEW => &mut self.few[..self.len],
            _ => &mut self.many,
        }
    }
}

/// The slices of a run, in the order of the plan's inputs and outputs, each of `batch` samples.
#[derive(Debug)]
pub(crate) struct Slices<'s, 'a> {
    pub batch: usize,
    /// Elements of the free dimension; 1 where there is none.
    pub length: usize,
    pub inputs: &'s [&'a [f32]],
    pub outputs: &'s mut [&'a mut [f32]],
}

impl Slices<'_, '_> {
    /// Calls `run` with the first `samples` samples and with the others.
    pub fn split<R>(
        self,
        samples: usize,
        run: impl FnOnce(Slices<'_, '_>, Slices<'_, '_>) -> R,
    ) -> R {
        let (batch, length) = (self.batch, self.length);
        let cut = |len: usize| len / batch.max(1) * samples;
        let halves = self.inputs.iter().map(|x| x.split_at(cut(x.len())));
        let inputs = [0, 1]
            .map(|half| List::from_iter(halves.clone().map(|(first, rest)| [first, rest][half])));
        let mut rest = List::of(self.outputs.len());
        let firsts = self.outputs.iter_mut().zip(rest.iter_mut());
        let mut first = List::from_iter(firsts.map(|(y, rest)| {
            let at = cut(y.len());
            let (first, last) = y.split_at_mut(at);
            *rest = last;
            first
        }));
        run(
            Slices {
                batch: samples,
                length,
                inputs: &inputs[0],
                outputs: &mut first,
            },
            Slices {
                batch: batch - samples,
                length,
                inputs: &inputs[1],
                outputs: &mut rest,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_model::{Shape, TensorType};

    use super::*;

    fn values(n: usize) -> Vec<PlanValue> {
        let value = |i| {
            let scalar = TensorType::known(&Shape::from([1]));
            PlanValue::new(format!("v{i}"), scalar, 1)
        };
        (0..n).map(value).collect()
    }

    #[test]
    fn slices_come_in_the_order_of_the_plan_few_or_many() {
        for n in [1, 2, FEW, FEW + 1, 20] {
            let values = values(n);
            let numbers: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let named: Vec<(&str, &[f32])> = (values.iter().zip(numbers.chunks(1)))
                .map(|(v, x)| (v.name.as_str(), x))
                .rev()
                .collect();
            let inputs = Inputs::from(&named[..]).in_order(&values).unwrap();
            assert_eq!(inputs.concat(), numbers);
            let mut out = vec![0.0; n];
            let mut named: Vec<(&str, &mut [f32])> = (values.iter().zip(out.chunks_mut(1)))
                .map(|(v, y)| (v.name.as_str(), y))
                .rev()
                .collect();
            let mut outputs = Outputs::from(&mut named[..]).in_order(&values).unwrap();
            for (y, x) in outputs.iter_mut().zip(&numbers) {
                y[0] = *x;
            }
            assert_eq!(out, numbers);
        }
    }

    #[test]
    fn a_batch_is_split_after_whole_samples_of_each_value() {
        let (a, b) = ([1.0, 2.0, 3.0], [1.0, 1.5, 2.0, 2.5, 3.0, 3.5]);
        let (mut y, mut z) = ([0.0; 6], [0.0; 3]);
        let slices = Slices {
            batch: 3,
            length: 1,
            inputs: &[&a, &b],
            outputs: &mut [&mut y, &mut z],
        };
        slices.split(1, |first, rest| {
            assert_eq!((first.batch, rest.batch), (1, 2));
            assert_eq!(first.inputs.concat(), [1.0, 1.0, 1.5]);
            assert_eq!(rest.inputs.concat(), [2.0, 3.0, 2.0, 2.5, 3.0, 3.5]);
            first.outputs.iter_mut().for_each(|y| y.fill(1.0));
            rest.outputs.iter_mut().for_each(|y| y.fill(2.0));
        });
        assert_eq!(y, [1.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(z, [1.0, 2.0, 2.0]);
    }

    #[test]
    fn names_that_are_missing_twice_or_unknown_are_errors_with_those_expected() {
        type Named<'a> = &'a [(&'a str, &'a [f32])];
        let values = values(2);
        let x: &[f32] = &[0.0];
        let cases: [(Named<'_>, &str); 5] = [
            (&[("v0", x)], "`v0`"),
            (&[("v0", x), ("v0", x)], "`v0`, `v0`"),
            (&[("v0", x), ("other", x)], "`v0`, `other`"),
            (&[("v0", x), ("v1", x), ("v1", x)], "`v0`, `v1`, `v1`"),
            (&[], "none"),
        ];
        for (named, got) in cases {
            let error = Inputs::from(named).in_order(&values).unwrap_err();
            let message = format!("inputs of the run: expected `v0`, `v1`, got {got}");
            assert_eq!(error.to_string(), message);
        }
        let mut y = [0.0];
        let error = Outputs::from(&mut y).in_order(&values).unwrap_err();
        let message = "outputs of the run: expected `v0`, `v1`, got one without a name";
        assert_eq!(error.to_string(), message);
    }
}
