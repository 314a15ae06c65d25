//! Orders of the elements of a value, and the layout of an input that has another order than the file declares.

use std::rc::Rc;

/// Shape of an input in the network, where it is not the one that the file declares.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub shape: Vec<usize>,
    /// For each element of the declared input its index in the network's.
    pub order: Option<Rc<[u32]>>,
}

impl Layout {
    /// The layout in which a value of the given order, which is an input of `declared` dimensions so far, has a shape and
    /// the network's order. `None` where arrays in the declared shape could not be told from arrays in that shape.
    pub fn new(declared: &[usize], shape: &[usize], order: Option<&Rc<[u32]>>) -> Option<Self> {
        let order = order.and_then(|o| simplified(inverse(o)));
        let wide =
            |dims: &[usize]| -> Vec<usize> { dims.iter().copied().filter(|d| *d != 1).collect() };
        let is_told_apart = match (&order, declared, shape) {
            // An array of more dimensions than the vector would have samples for its first.
            (None, ..) => {
                wide(declared).len() <= 1
                    || wide(shape).len() <= 1 && declared.len() <= shape.len()
                    || wide(declared) == wide(shape)
            }
            (Some(order), &[h, w, c], &[channels, ..]) => {
                let channels_last = inverse(
                    &permuted(declared, &[2, 0, 1])
                        .map(|i| i as u32)
                        .collect::<Vec<_>>(),
                );
                channels == c
                    && shape == [c, h, w]
                    && order[..] == channels_last
                    && wide(declared) != wide(shape)
            }
            _ => false,
        };
        is_told_apart.then(|| Self {
            shape: shape.to_vec(),
            order,
        })
    }
}

/// An order, unless it is the identity.
pub(crate) fn simplified(order: Vec<u32>) -> Option<Rc<[u32]>> {
    let is_identity = order.iter().enumerate().all(|(i, &o)| i as u32 == o);
    (!is_identity).then(|| order.into())
}

/// The transposition that an order is: the sizes of the axes before it, and for each axis behind it that before it. `None` for any other order.
pub(crate) fn transposition(order: &[u32]) -> Option<(Vec<usize>, Vec<usize>)> {
    let at = |i: usize| order[i] as usize;
    // Sizes and strides of the axes behind it, the last axis first.
    let (mut axes, mut block) = (Vec::new(), 1);
    while block < order.len() {
        let stride = at(block);
        let steps = (0..order.len() / block).take_while(|&k| at(k * block) == k * stride);
        let size = steps.count();
        if size < 2 || !order.len().is_multiple_of(block * size) {
            return None;
        }
        axes.push((size, stride));
        block *= size;
    }
    axes.reverse();
    let mut by_stride: Vec<usize> = (0..axes.len()).collect();
    by_stride.sort_by_key(|&i| std::cmp::Reverse(axes[i].1));
    let sizes: Vec<usize> = by_stride.iter().map(|&i| axes[i].0).collect();
    let place = |i: usize| by_stride.iter().position(|&j| j == i);
    let perm: Vec<usize> = (0..axes.len()).map(place).collect::<Option<_>>()?;
    let is_order = permuted(&sizes, &perm).eq((0..order.len()).map(at));
    is_order.then_some((sizes, perm))
}

/// The inverse of an order.
pub(crate) fn inverse(order: &[u32]) -> Vec<u32> {
    let mut inverse = vec![0; order.len()];
    for (i, &o) in order.iter().enumerate() {
        inverse[o as usize] = i as u32;
    }
    inverse
}

/// Index in a tensor of `dims` of each element of its transpose, in C order.
pub(crate) fn permuted<'d>(
    dims: &'d [usize],
    perm: &'d [usize],
) -> impl Iterator<Item = usize> + 'd {
    let mut strides = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i];
    }
    let elements: usize = dims.iter().product();
    (0..elements).map(move |mut i| {
        let mut at = 0;
        for &p in perm.iter().rev() {
            at += i % dims[p] * strides[p];
            i /= dims[p];
        }
        at
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transpositions_are_found_and_other_orders_are_none() {
        let order = |dims: &[usize], perm: &[usize]| -> Vec<u32> {
            permuted(dims, perm).map(|i| i as u32).collect()
        };
        for (dims, perm) in [
            (vec![2, 3], vec![1, 0]),
            (vec![2, 3, 4], vec![2, 0, 1]),
            (vec![4, 4, 4], vec![2, 1, 0]),
            (vec![2, 3, 4, 5], vec![0, 3, 1, 2]),
            (vec![3, 2, 2, 3, 2], vec![1, 0, 4, 3, 2]),
        ] {
            let wanted = order(&dims, &perm);
            let (sizes, of) = transposition(&wanted).unwrap();
            assert_eq!(order(&sizes, &of), wanted, "{dims:?} {perm:?}");
            assert!(sizes.len() <= dims.len(), "{sizes:?} of {dims:?}");
        }
        // Axes that stay together are one.
        assert_eq!(
            transposition(&order(&[2, 3, 4], &[2, 0, 1])),
            Some((vec![6, 4], vec![1, 0]))
        );
        for other in [
            vec![1, 0],
            vec![0, 2, 1],
            vec![0, 2, 1, 3, 4],
            vec![0, 2, 3, 1],
            vec![2, 1, 0],
        ] {
            assert_eq!(transposition(&other), None, "{other:?}");
        }
    }
}
