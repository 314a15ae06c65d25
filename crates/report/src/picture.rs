//! The picture of a run: the same kernels and fragments of weight matrices in every frame.

use std::path::PathBuf;

use sparsevd_compressor::CompressError;
use sparsevd_compressor::frame::{Frame, FrameTime, LayerFrame, REMOVED};
use sparsevd_model::Network;

/// Frames of a picture, at most.
const FRAMES: usize = 64;
/// Kernels of a convolution that are shown, at most.
const KERNELS: usize = 144;
/// Units of a linear layer that are shown, at most.
const UNITS: usize = 64;
/// Weights of it, and inputs, which are more where units are few.
const CELLS: usize = 4096;
const INPUTS: usize = 160;

/// Layers over time.
#[derive(Debug)]
pub(crate) struct Picture {
    /// When each frame was.
    pub times: Vec<FrameTime>,
    /// The layers, in the order of the network.
    pub layers: Vec<PictureLayer>,
}

/// What is shown of a layer.
#[derive(Debug)]
pub(crate) struct PictureLayer {
    /// Node.
    pub node: String,
    /// Shape of the whole weight.
    pub shape: Vec<usize>,
    /// Weights of the whole layer that are left, at each frame.
    pub left: Vec<usize>,
    /// What is shown.
    pub part: Part,
    /// The weights that are shown, frame after frame: 127 is the largest of the layer over all frames, -128 one that was removed.
    pub values: Vec<i8>,
    /// What the number one of each frame stands for, until all have one scale.
    pub scales: Vec<f32>,
}

/// Which weights of a layer are shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Kernels: pairs of a unit and an input channel.
    Kernels(Vec<[u32; 2]>),
    /// The rows and columns of a fragment.
    Fragment(Vec<u32>, Vec<u32>),
}

impl Picture {
    /// The picture of frames in files, by time; `None` without frames.
    pub fn read(files: &[PathBuf]) -> Result<Option<Self>, CompressError> {
        let Some(last) = files.last() else {
            return Ok(None);
        };
        let last = Frame::read(last)?;
        let mut picture = Self::before_frames(&last);
        for file in thinned(files) {
            let frame = Frame::read(file)?;
            // Frames of another network, in a folder that was used twice.
            let same = |(frame, last): (&LayerFrame, &LayerFrame)| frame.shape == last.shape;
            if frame.layers.len() == last.layers.len()
                && frame.layers.iter().zip(&last.layers).all(same)
            {
                picture.push(&frame);
            }
        }
        picture.layers.iter_mut().for_each(PictureLayer::rescale);
        Ok(Some(picture))
    }

    /// The picture of a network.
    pub fn of_network(network: &Network) -> Self {
        let frame = Frame::of_network(network);
        let mut picture = Self::before_frames(&frame);
        picture.push(&frame);
        picture
    }

    /// The picture whose parts are those of the last frame, without frames.
    fn before_frames(last: &Frame) -> Self {
        Self {
            times: vec![],
            layers: last.layers.iter().map(PictureLayer::new).collect(),
        }
    }

    /// Appends a frame.
    fn push(&mut self, frame: &Frame) {
        self.times.push(frame.time);
        let layers = self.layers.iter_mut().zip(&frame.layers);
        layers.for_each(|(layer, frame)| layer.push(frame));
    }
}

/// At most [`FRAMES`] of them, with the first and the last.
fn thinned(files: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    let n = files.len().min(FRAMES);
    let of = move |i: usize| i * (files.len() - 1) / (n - 1).max(1);
    (0..n).map(move |i| &files[of(i)])
}

impl PictureLayer {
    /// The part of a layer with the most weights left in the last frame, without values.
    fn new(last: &LayerFrame) -> Self {
        let area: usize = last.shape[2..].iter().product();
        let [units, inputs] = [last.units.len(), last.inputs.len()];
        let left = |unit: usize, input: usize| {
            let at = (unit * inputs + input) * area;
            let kernel = &last.values[at..at + area];
            kernel.iter().filter(|v| **v != REMOVED).count()
        };
        let part = if last.shape.len() > 2 {
            let pairs = (0..units).flat_map(|u| (0..inputs).map(move |i| (u, i)));
            let kernels: Vec<(usize, (usize, usize))> =
                pairs.map(|(u, i)| (left(u, i), (u, i))).collect();
            let chosen = most(kernels, KERNELS);
            let pair = |(u, i): (usize, usize)| [last.units[u], last.inputs[i]];
            Part::Kernels(chosen.into_iter().map(pair).collect())
        } else {
            let in_unit = |u: usize| (0..inputs).map(|i| left(u, i)).sum();
            let rows = most((0..units).map(|u| (in_unit(u), u)).collect(), UNITS);
            let of_input = |i: usize| rows.iter().map(|u| left(*u, i)).sum();
            let columns = (0..inputs).map(|i| (of_input(i), i)).collect();
            let columns = most(columns, (CELLS / rows.len().max(1)).min(INPUTS));
            Part::Fragment(
                rows.into_iter().map(|u| last.units[u]).collect(),
                columns.into_iter().map(|i| last.inputs[i]).collect(),
            )
        };
        Self {
            node: last.node.clone(),
            shape: last.shape.clone(),
            left: vec![],
            part,
            values: vec![],
            scales: vec![],
        }
    }

    /// Appends the weights of a frame.
    fn push(&mut self, frame: &LayerFrame) {
        let area: usize = self.shape[2..].iter().product();
        let mut kernel = |unit: u32, input: u32| {
            let place = |all: &[u32], index: u32| all.binary_search(&index).ok();
            let at = place(&frame.units, unit).zip(place(&frame.inputs, input));
            for a in 0..area {
                self.values.push(match at {
                    Some((u, i)) => frame.values[(u * frame.inputs.len() + i) * area + a],
                    None => REMOVED,
                });
            }
        };
        match &self.part {
            Part::Kernels(kernels) => kernels.iter().for_each(|k| kernel(k[0], k[1])),
            Part::Fragment(rows, columns) => {
                let cells = rows
                    .iter()
                    .flat_map(|r| columns.iter().map(move |c| (*r, *c)));
                cells.for_each(|(row, column)| kernel(row, column));
            }
        }
        self.left.push(frame.left);
        self.scales.push(frame.scale);
    }

    /// Gives the weights of all frames one scale.
    fn rescale(&mut self) {
        let largest = self.scales.iter().copied().fold(0.0, f32::max);
        let weights = self.values.len() / self.scales.len().max(1);
        let frames = self.values.chunks_mut(weights.max(1));
        for (values, scale) in frames.zip(&self.scales) {
            let factor = if largest > 0.0 { scale / largest } else { 1.0 };
            for value in values.iter_mut().filter(|v| **v != REMOVED) {
                *value = (f32::from(*value) * factor).round() as i8;
            }
        }
    }
}

/// The `n` of them with the largest counts, the first of equals, in the order of the others.
fn most<T: Ord + Copy>(mut counted: Vec<(usize, T)>, n: usize) -> Vec<T> {
    counted.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    counted.truncate(n);
    let mut chosen: Vec<T> = counted.into_iter().map(|(_, t)| t).collect();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A linear layer of `units` by `inputs` whose weight is left where `left` says so.
    fn linear(units: u32, inputs: u32, left: impl Fn(u32, u32) -> bool) -> LayerFrame {
        let cells = (0..units).flat_map(|u| (0..inputs).map(move |i| (u, i)));
        let values = cells.map(|(u, i)| if left(u, i) { 100 } else { REMOVED });
        LayerFrame {
            node: "fc".into(),
            shape: vec![units as usize, inputs as usize],
            left: 0,
            units: (0..units).collect(),
            inputs: (0..inputs).collect(),
            scale: 0.5,
            values: values.collect(),
        }
    }

    #[test]
    fn a_fragment_has_the_units_and_inputs_with_most_weights_left() {
        // Weights are left in every third input of the last hundred units.
        let layer = PictureLayer::new(&linear(300, 600, |u, i| u >= 200 && i % 3 == 0));
        let Part::Fragment(rows, columns) = &layer.part else {
            panic!("a fragment");
        };
        assert_eq!(rows, &(200..264).collect::<Vec<u32>>());
        assert_eq!(columns, &(0..64).map(|i| 3 * i).collect::<Vec<u32>>());
        // Where units are few, more inputs are shown.
        let layer = PictureLayer::new(&linear(10, 600, |_, _| true));
        let Part::Fragment(rows, columns) = &layer.part else {
            panic!("a fragment");
        };
        assert_eq!((rows.len(), columns.len()), (10, INPUTS));
    }

    #[test]
    fn kernels_with_most_weights_left_are_shown_in_order() {
        let mut conv = linear(20, 20 * 9, |u, i| (i % 9) < u % 10);
        (conv.shape, conv.inputs) = (vec![20, 20, 3, 3], (0..20).collect());
        let layer = PictureLayer::new(&conv);
        let Part::Kernels(kernels) = &layer.part else {
            panic!("kernels");
        };
        // Units 9, 19, 8, 18, 7, 17, 6 with all channels, and four of unit 16.
        assert_eq!(kernels.len(), KERNELS);
        assert!(kernels.is_sorted());
        assert_eq!(kernels.iter().filter(|k| k[0] == 16).count(), 4);
        assert!(kernels.iter().all(|k| k[0] % 10 >= 6));
    }

    #[test]
    fn weights_of_all_frames_have_one_scale() {
        let last = linear(2, 2, |u, i| u == i);
        let mut layer = PictureLayer::new(&last);
        layer.push(&linear(2, 2, |_, _| true));
        layer.push(&LayerFrame { scale: 1.0, ..last });
        layer.rescale();
        // The first frame has half the scale.
        assert_eq!(layer.values, [50, 50, 50, 50, 100, -128, -128, 100]);
    }

    #[test]
    fn frames_are_thinned_evenly() {
        let files: Vec<PathBuf> = (0..200).map(|i| i.to_string().into()).collect();
        let kept: Vec<&PathBuf> = thinned(&files).collect();
        assert_eq!(
            (kept.len(), kept[0], kept[63]),
            (64, &files[0], &files[199])
        );
        assert_eq!(kept[1], &files[3]);
        assert_eq!(thinned(&files[..1]).count(), 1);
        assert_eq!(thinned(&files[..3]).count(), 3);
    }
}
