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
            (None, ..) => {
                wide(declared).len() <= 1 || wide(shape).len() <= 1 || wide(declared) == wide(shape)
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
