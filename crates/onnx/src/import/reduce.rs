//! Reductions over axes, which are poolings over whole heights, widths or both.

use sparsevd_model::{Op, Shape, Window, ops};

use super::importer::Importer;
use super::view::View;
use crate::attributes::OnnxNode;
use crate::constants::{axes, resolve};
use crate::node_error::NodeError;
use crate::tensor::Tensor;

impl<'m> Importer<'m> {
    pub(super) fn reduce(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        input: Option<&Tensor>,
    ) -> Result<View, NodeError> {
        let rank = x.dims.len() + self.batch_axes;
        let given = axes(node, input)?.unwrap_or_default();
        let mut over = resolve(node, &given, rank)?;
        if over.is_empty() {
            if node.int("noop_with_empty_axes")?.unwrap_or(0) != 0 {
                return self.noop(node, x);
            }
            over = (0..rank).collect();
        }
        over.sort_unstable();
        let refused = || {
            NodeError::unsupported(format!(
                "axes {over:?} of {} behind {} of the batch",
                Shape(x.dims.clone()),
                self.batch_axes
            ))
        };
        let inner: Option<Vec<usize>> = over
            .iter()
            .map(|a| a.checked_sub(self.batch_axes))
            .collect();
        let inner = inner.ok_or_else(refused)?;
        let kept = |i: &usize| !inner.contains(i);
        let dims: Vec<usize> = match node.int("keepdims")?.unwrap_or(1) {
            0 => (0..x.dims.len()).filter(kept).map(|i| x.dims[i]).collect(),
            _ => (0..x.dims.len())
                .map(|i| if kept(&i) { x.dims[i] } else { 1 })
                .collect(),
        };
        let axes = x.axes(&node.label(), self.decoder)?;
        let (map, kernel_shape) = window_of(x, axes.as_deref(), &inner).ok_or_else(refused)?;
        let map = self.in_shape(&map, &map.dims.clone())?;
        let made = self.reduced(node, &map, kernel_shape)?;
        // The axes that stay are in the order of the network's, as `window_of` has it.
        Ok(View { dims, ..made })
    }

    /// The reduction of each window of a map, one row or column of windows.
    fn reduced(
        &mut self,
        node: OnnxNode<'m>,
        map: &View,
        kernel_shape: [usize; 2],
    ) -> Result<View, NodeError> {
        let window = Window {
            kernel_shape,
            ..Window::square(1, 1)
        };
        let count = (kernel_shape[0] * kernel_shape[1]) as f32;
        let mean = match kernel_shape == map.shape[1..] {
            true => Op::GlobalAveragePool,
            false => Op::AveragePool(ops::AveragePool {
                window: window.clone(),
            }),
        };
        let max = Op::MaxPool(ops::MaxPool { window });
        let total = |importer: &mut Self, x: &View| {
            let made = importer.push(node, mean.clone(), &[x])?;
            importer.affine(node, &made, vec![count], vec![0.0])
        };
        match node.0.op_type.as_str() {
            "ReduceMean" => self.push(node, mean, &[map]),
            "ReduceMax" => self.push(node, max, &[map]),
            "ReduceMin" => {
                let negative = self.affine(node, map, vec![-1.0], vec![0.0])?;
                let made = self.push(node, max, &[&negative])?;
                self.affine(node, &made, vec![-1.0], vec![0.0])
            }
            "ReduceSum" => total(self, map),
            "ReduceL2" => {
                let squares = self.between(node, Op::Mul, map, map)?;
                let sums = total(self, &squares)?;
                self.map(node, &sums, Op::Sqrt)
            }
            "ReduceLogSum" => {
                let sums = total(self, map)?;
                self.map(node, &sums, Op::Log)
            }
            "ReduceLogSumExp" => {
                let largest = self.push(node, max, &[map])?;
                // Of infinite numbers there are no differences.
                let finite = ops::Clip {
                    min: Some(f32::MIN),
                    max: Some(f32::MAX),
                };
                let largest = self.map(node, &largest, Op::Clip(finite))?;
                let copies = self.broadcast_to(&largest, &map.dims)?;
                let differences = self.between(node, Op::Sub, map, &copies)?;
                let exponentials = self.map(node, &differences, Op::Exp)?;
                let sums = total(self, &exponentials)?;
                let logarithms = self.map(node, &sums, Op::Log)?;
                self.between(node, Op::Add, &logarithms, &largest)
            }
            _ => {
                let sizes = self.noop(node, map)?;
                total(self, &sizes)
            }
        }
    }

    /// What the reduction makes of single elements.
    fn noop(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        match node.0.op_type.as_str() {
            "ReduceL1" | "ReduceL2" => {
                self.map(node, x, Op::LeakyRelu(ops::LeakyRelu { alpha: -1.0 }))
            }
            "ReduceSumSquare" => self.between(node, Op::Mul, x, x),
            "ReduceLogSum" => self.map(node, x, Op::Log),
            _ => Ok(x.clone()),
        }
    }
}

/// The value as a map, and the window of it whose pooling is the reduction over some dimensions of the file; `axes` are the
/// network's axes that the file's are.
fn window_of(x: &View, axes: Option<&[usize]>, over: &[usize]) -> Option<(View, [usize; 2])> {
    // The network's own axes, where the file has them in another order.
    let (dims, over): (Vec<usize>, Vec<usize>) = match (&x.order, axes) {
        (Some(_), Some(axes)) => {
            let stay: Vec<usize> = (0..axes.len())
                .filter(|i| !over.contains(i) && x.dims[*i] != 1)
                .map(|i| axes[i])
                .collect();
            if !stay.is_sorted() {
                return None;
            }
            let mut over: Vec<usize> = over.iter().map(|&a| axes[a]).collect();
            over.sort_unstable();
            (x.shape.clone(), over)
        }
        (Some(_), None) => return None,
        (None, _) => (x.dims.clone(), over.to_vec()),
    };
    let as_map = |dims: Vec<usize>| View {
        dims,
        order: None,
        ..x.clone()
    };
    let of_map = |map: &[usize], over: &[usize]| {
        let size = |axis: usize| if over.contains(&axis) { map[axis] } else { 1 };
        [size(1), size(2)]
    };
    // A map as the network has it, of which only height and width are reduced.
    if let &[_, _, _] = x.shape.as_slice() {
        let own: Vec<usize> = match dims == x.shape {
            true => over.clone(),
            // Dimensions of one may be anywhere; `[channels, width]` is a map of height 1.
            false if dims.len() == 2 && x.shape == [dims[0], 1, dims[1]] => {
                over.iter().map(|a| 2 * a).collect()
            }
            false => vec![0],
        };
        if !own.contains(&0) {
            return Some((as_map(x.shape.clone()), of_map(&x.shape, &own)));
        }
    }
    // Adjacent axes are the height of a map whose channels are before them, and whose width is behind them.
    let (&first, &last) = (over.first()?, over.last()?);
    if last - first + 1 != over.len() {
        return None;
    }
    let product = |dims: &[usize]| dims.iter().product::<usize>();
    let map = vec![
        product(&dims[..first]),
        product(&dims[first..=last]),
        product(&dims[last + 1..]),
    ];
    let kernel_shape = [map[1], 1];
    Some((as_map(map), kernel_shape))
}
