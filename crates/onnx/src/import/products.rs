//! Products of two computed matrices, and values that are copied to the dimensions of others.

use sparsevd_model::{Op, Shape, ops};

use super::importer::{Importer, Value};
use super::view::View;
use crate::attributes::OnnxNode;
use crate::node_error::NodeError;
use crate::tensor::Tensor;

impl<'m> Importer<'m> {
    /// A matrix product of two computed values, or of a constant and a computed one.
    pub(super) fn product_of(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        match inputs {
            [Some(Value::Activation(a)), Some(Value::Activation(b))] => self.product(node, a, b),
            [Some(Value::Constant(a)), Some(Value::Activation(b))] => {
                self.product_with_first(node, a, b)
            }
            _ => Err(node.invalid("two inputs", inputs.len().to_string()).into()),
        }
    }

    /// The product of two computed values, as NumPy's: of the matrices along the last two dimensions.
    pub(super) fn product(
        &mut self,
        node: OnnxNode<'m>,
        a: &View,
        b: &View,
    ) -> Result<View, NodeError> {
        let text = || {
            let [a, b] = [a, b].map(|v| Shape(v.dims.clone()));
            format!("factors {a} and {b}")
        };
        let with_batch = self.batch_axes == 1;
        if with_batch && (a.dims.len() != b.dims.len() || a.dims.len() < 2) {
            return Err(NodeError::unsupported(format!(
                "{}, which mix samples",
                text()
            )));
        }
        let (row, column) = (a.dims.len() == 1, b.dims.len() == 1);
        let a = match row {
            true => a.reshaped([&[1], &a.dims[..]].concat()),
            false => a.clone(),
        };
        let b = match column {
            true => b.reshaped([&b.dims[..], &[1]].concat()),
            false => b.clone(),
        };
        let ([first @ .., n, k], [second @ .., rows, m]) = (&a.dims[..], &b.dims[..]) else {
            return Err(node.invalid("two matrices", text()).into());
        };
        let outer = joint(first, second).filter(|_| k == rows);
        let Some(outer) = outer else {
            return Err(node
                .invalid("matrices that can be multiplied", text())
                .into());
        };
        let (n, k, m) = (*n, *k, *m);
        let a = self.broadcast_to(&a, &[&outer[..], &[n, k]].concat())?;
        let b = self.broadcast_to(&b, &[&outer[..], &[k, m]].concat())?;
        let made = self.push(node, Op::MatMul, &[&a, &b])?;
        let mut dims = outer;
        dims.extend((!row).then_some(n));
        dims.extend((!column).then_some(m));
        Ok(made.reshaped(dims))
    }

    /// The product of a constant matrix and a computed one: `a b = (b^T a^T)^T`.
    fn product_with_first(
        &mut self,
        node: OnnxNode<'m>,
        a: &Tensor,
        b: &View,
    ) -> Result<View, NodeError> {
        if a.dims.len() != 2 || b.dims.len() < 2 {
            return Err(NodeError::unsupported(format!(
                "a first factor that is a {} beside {}",
                a.describe(),
                Shape(b.dims.clone())
            )));
        }
        let weight = self.dense(node, "weight", a)?;
        if weight.shape.dims()[1] != b.dims[b.dims.len() - 2] {
            let expected = format!("a second factor of {} rows", weight.shape.dims()[1]);
            return Err(node
                .invalid(expected, Shape(b.dims.clone()).to_string())
                .into());
        }
        let turned = self.with_last_swapped(node, b)?;
        let turned = self.in_shape(&turned, &turned.dims.clone())?;
        let name = node.input(0).unwrap_or_default();
        let made = self.linear(node, &turned, weight, name, None)?;
        self.with_last_swapped(node, &made)
    }

    /// The value with its last two axes the other way round.
    pub(super) fn with_last_swapped(
        &self,
        node: OnnxNode<'m>,
        x: &View,
    ) -> Result<View, NodeError> {
        let mut perm: Vec<usize> = (0..x.dims.len()).collect();
        if let [.., a, b] = perm.as_mut_slice() {
            std::mem::swap(a, b);
        }
        Ok(x.transposed(&node.label(), &perm, self.decoder)?)
    }

    /// `alpha a b + beta c` of computed `a` and `b`, each perhaps transposed.
    pub(super) fn gemm_of(
        &mut self,
        node: OnnxNode<'m>,
        a: &View,
        b: &View,
        c: Option<&Value>,
    ) -> Result<View, NodeError> {
        if self.batch_axes == 1 {
            return Err(NodeError::unsupported("a product that mixes samples"));
        }
        if a.dims.len() != 2 || b.dims.len() != 2 {
            let [a, b] = [a, b].map(|v| Shape(v.dims.clone()));
            return Err(node.invalid("two matrices", format!("{a} and {b}")).into());
        }
        let factor = |x: &View, name: &str| match node.int(name)?.unwrap_or(0) {
            0 => Ok::<_, NodeError>(x.clone()),
            _ => self.with_last_swapped(node, x),
        };
        let (a, b) = (factor(a, "transA")?, factor(b, "transB")?);
        let mut made = self.product(node, &a, &b)?;
        if let Some(alpha) = node.float("alpha")?.filter(|a| *a != 1.0) {
            made = self.affine(node, &made, vec![alpha], vec![0.0])?;
        }
        let beta = node.float("beta")?.unwrap_or(1.0);
        match c {
            None => Ok(made),
            Some(Value::Activation(c)) => {
                let c = match beta {
                    1.0 => c.clone(),
                    _ => self.affine(node, c, vec![beta], vec![0.0])?,
                };
                self.between(node, Op::Add, &made, &c)
            }
            Some(Value::Constant(c)) => {
                let mut c = (**c).clone();
                if let crate::tensor::Data::Float(values) = &mut c.data {
                    values.iter_mut().for_each(|v| *v *= beta);
                }
                self.with(node, "Add", &made, &c, false)
            }
            Some(_) => Err(NodeError::unsupported("a summand of another type")),
        }
    }

    /// The value in the network's order, copied to the dimensions `dims` as NumPy broadcasts it.
    pub(super) fn broadcast_to(&mut self, x: &View, dims: &[usize]) -> Result<View, NodeError> {
        let missing = dims.len().saturating_sub(x.dims.len());
        let own = [&vec![1; missing], &x.dims[..]].concat();
        let x = self.in_shape(&x.reshaped(own.clone()), &own)?;
        if own == dims {
            return Ok(x);
        }
        let name = self.free_name(&format!("{}.expanded", x.name));
        let shape = dims.to_vec();
        self.push_named(name, Op::Expand(ops::Expand { shape }), &[&x])
    }

    /// The dimensions to which two values are broadcast; `None` where they differ, or axes would meet the batch.
    pub(super) fn joint_dims(&self, a: &View, b: &View) -> Option<Vec<usize>> {
        let is_plain = self.batch_axes == 0 || a.dims.len() == b.dims.len();
        joint(&a.dims, &b.dims).filter(|_| is_plain)
    }
}

/// The dimensions to which both are broadcast, aligned at the end.
fn joint(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    (0..rank)
        .map(|i| match (size(a, i), size(b, i)) {
            (1, n) | (n, 1) => Some(n),
            (n, m) => (n == m).then_some(n),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_joined_from_the_end() {
        assert_eq!(joint(&[3, 1, 5], &[4, 1]), Some(vec![3, 4, 5]));
        assert_eq!(joint(&[], &[2, 3]), Some(vec![2, 3]));
        assert_eq!(joint(&[2], &[3]), None);
        assert_eq!(joint(&[0], &[1]), Some(vec![0]));
    }
}
