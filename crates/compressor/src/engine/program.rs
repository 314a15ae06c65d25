//! The stages that a training step runs, the values between them, and how those lie in memory.

use std::ops::Range;

use sparsevd_model::{Int8Grid, Window};

use crate::layers::arithmetic::Arithmetic;
use crate::layers::function::Function;
use crate::layers::lane_map::{LaneMap, Layout};
use crate::layers::size::MapSize;
use crate::layers::sparse::{Sparse, borders};

/// What one stage computes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    /// A linear layer on the gathered features of its input, or of each of its vectors.
    Linear {
        layer: usize,
        vectors: usize,
        gather: Vec<u32>,
    },
    /// A convolution, with max-pooling fused behind it (it commutes with ReLU; pooling first is cheaper).
    Conv {
        layer: usize,
        window: Window,
        pool: Option<Window>,
    },
    /// A convolution of several groups of channels.
    GroupedConv {
        layer: usize,
        window: Window,
        groups: usize,
    },
    /// A convolution of as many groups as channels.
    DepthwiseConv {
        layer: usize,
        window: Window,
    },
    /// A batch normalisation, by its place in the state.
    Normalise(usize),
    /// Arithmetic with constants, by its place among the normalisations of the state.
    Affine(usize),
    /// An operator of one input, with its tensors by their places in the state.
    Function {
        function: Function,
        tensors: Range<usize>,
    },
    Arithmetic(Arithmetic),
    Concat,
    /// Of queries, keys and values.
    Attention {
        heads: usize,
    },
    /// Rounding to the numbers of bytes, in front of layers that are to run in int8.
    Round(Int8Grid),
}

impl Work {
    /// The layer that the stage is of, where it has weights.
    pub fn layer(&self) -> Option<usize> {
        match self {
            Self::Linear { layer, .. }
            | Self::Conv { layer, .. }
            | Self::GroupedConv { layer, .. }
            | Self::DepthwiseConv { layer, .. } => Some(*layer),
            _ => None,
        }
    }

    /// Whether it is a factor and a summand per channel.
    pub fn normalises(&self) -> bool {
        matches!(self, Self::Normalise(_) | Self::Affine(_))
    }

    /// Whether a ReLU right behind may become part of the stage.
    pub fn takes_relu(&self) -> bool {
        self.layer().is_some() || self.normalises() || matches!(self, Self::Arithmetic(_))
    }
}

/// One stage: what it computes, from and to which values, and whether a ReLU follows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stage {
    pub work: Work,
    pub relu: bool,
    pub inputs: Vec<usize>,
    pub output: usize,
}

impl Stage {
    /// Whether it computes each number from those at the same place alone, so that it runs on values however they lie, all in the
    /// same way.
    pub fn is_elementwise(&self, values: &[MapSize]) -> bool {
        match self.work {
            Work::Arithmetic(Arithmetic::Add) => values[self.inputs[0]] == values[self.inputs[1]],
            Work::Round(_) => true,
            _ => self.work.normalises(),
        }
    }

    /// Whether it reads and writes vectors of samples, too; `is_sparse` says of a layer whether it computes with the weights that are
    /// left.
    pub fn takes_lanes(&self, values: &[MapSize], is_sparse: impl Fn(usize) -> bool) -> bool {
        match self.work {
            Work::Conv {
                layer, pool: None, ..
            } => is_sparse(layer),
            _ => self.is_elementwise(values),
        }
    }
}

/// A lowered graph.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub stages: Vec<Stage>,
    pub values: Vec<MapSize>,
    /// How the values lie as vectors of samples.
    pub lane_maps: Vec<LaneMap>,
    /// Of each value the first of its group, which elementwise stages connect: values of a group have one layout and one border.
    layout_groups: Vec<usize>,
    /// In which buffer the gradient of each value lies; none for the network's input.
    pub gradient_buffers: Vec<Option<usize>>,
    /// The value that the loss reads.
    pub output: usize,
}

/// The maps of a convolution's input and output, before pooling, with the borders that it needs.
fn borders_of(window: &Window, values: &[MapSize], stage: &Stage) -> [LaneMap; 2] {
    let input = values[stage.inputs[0]];
    let map = input.over(window);
    let output = MapSize {
        channels: values[stage.output].channels,
        ..map.expect("checked when the graph was lowered")
    };
    borders(window, input, output)
}

impl Program {
    pub fn new(stages: Vec<Stage>, values: Vec<MapSize>, output: usize) -> Self {
        let mut lane_maps: Vec<LaneMap> = values.iter().copied().map(LaneMap::new).collect();
        let mut groups: Vec<usize> = (0..values.len()).collect();
        for stage in &stages {
            if stage.is_elementwise(&values) {
                for &input in &stage.inputs {
                    let pair = [groups[input], groups[stage.output]];
                    let first = pair[0].min(pair[1]);
                    (groups.iter_mut())
                        .filter(|g| pair.contains(g))
                        .for_each(|g| *g = first);
                }
            }
            if let Work::Conv { window, pool, .. } = &stage.work {
                let (input, output) = (stage.inputs[0], stage.output);
                let [read, written] = borders_of(window, &values, stage);
                lane_maps[input].widen_as(&read);
                if pool.is_none() {
                    lane_maps[output].widen_as(&written);
                }
            }
        }
        for value in 0..values.len() {
            let own = lane_maps[value];
            lane_maps[groups[value]].widen_as(&own);
        }
        let lane_maps: Vec<LaneMap> = (groups.iter()).map(|&first| lane_maps[first]).collect();
        Self {
            gradient_buffers: gradient_buffers(&stages, &values, &lane_maps, output),
            stages,
            values,
            lane_maps,
            layout_groups: groups,
            output,
        }
    }

    /// Elements of all values of a sample.
    pub fn elements(&self) -> usize {
        self.values.iter().map(|value| value.elements()).sum()
    }

    /// The maps of a convolution's input and output, before pooling.
    pub fn lane_maps_of(&self, stage: &Stage, window: &Window) -> [LaneMap; 2] {
        let (input, output) = (stage.inputs[0], stage.output);
        let written = match stage.work {
            Work::Conv { pool: Some(_), .. } => borders_of(window, &self.values, stage)[1],
            _ => self.lane_maps[output],
        };
        [self.lane_maps[input], written]
    }

    /// The map of a value where it lies as vectors.
    pub fn lane_map_if(&self, value: usize, layout: Layout) -> Option<&LaneMap> {
        (layout == Layout::Lanes).then(|| &self.lane_maps[value])
    }

    /// How each value lies best: as vectors where more of the stages that read or write a value of its group are convolutions with the
    /// weights that are left than others, since each has to lay out anew what lies the other way.
    pub fn layouts(&self, sparse: &[Option<Sparse>]) -> Vec<Layout> {
        let mut votes = vec![0_isize; self.values.len()];
        for stage in &self.stages {
            let vote = match stage.takes_lanes(&self.values, |layer| sparse[layer].is_some()) {
                _ if stage.is_elementwise(&self.values) => 0,
                true => 1,
                false => -1,
            };
            for &value in stage.inputs.iter().chain([&stage.output]) {
                votes[self.layout_groups[value]] += vote;
            }
        }
        // The caller fills the one and reads the other.
        for end in [0, self.output] {
            votes[self.layout_groups[end]] = 0;
        }
        let layout = |first: &usize| match votes[*first] {
            1.. => Layout::Lanes,
            _ => Layout::Samples,
        };
        self.layout_groups.iter().map(layout).collect()
    }

    /// Runs of stages between which shards wait for each other: one begins with each normalisation. The first has no stages
    /// where a normalisation reads the network's input.
    pub fn parts(&self) -> Vec<Range<usize>> {
        let normalisations = (0..self.stages.len()).filter(|i| self.normalisation_at(*i).is_some());
        let starts: Vec<usize> = std::iter::once(0).chain(normalisations).collect();
        let ends = starts[1..].iter().copied().chain([self.stages.len()]);
        starts
            .iter()
            .copied()
            .zip(ends)
            .map(|(a, b)| a..b)
            .collect()
    }

    /// The stage `i` and the place of its state, where it is a normalisation.
    pub fn normalisation_at(&self, i: usize) -> Option<(&Stage, usize)> {
        match self.stages.get(i) {
            Some(
                stage @ Stage {
                    work: Work::Normalise(place),
                    ..
                },
            ) => Some((stage, *place)),
            _ => None,
        }
    }
}

/// A buffer for the gradient of each value but the network's input. A gradient is written from the last stage on that reads the value, and
/// read last by the stage that made it; then its buffer is that of another map of the same kind, while it is in a cache still. An
/// elementwise stage changes the gradient by its output into that by an input, where no other stage reads that, in place.
fn gradient_buffers(
    stages: &[Stage],
    values: &[MapSize],
    lane_maps: &[LaneMap],
    output: usize,
) -> Vec<Option<usize>> {
    let readers = |value: usize| {
        let inputs = stages.iter().flat_map(|s| &s.inputs);
        inputs.filter(|id| **id == value).count()
    };
    let mut buffers: Vec<Option<usize>> = vec![None; values.len()];
    let mut maps: Vec<LaneMap> = vec![];
    let mut free: Vec<usize> = vec![];
    let mut another = |value: usize, free: &mut Vec<usize>| {
        let fitting = free.iter().rposition(|f| maps[*f] == lane_maps[value]);
        fitting.map(|at| free.remove(at)).unwrap_or_else(|| {
            maps.push(lane_maps[value]);
            maps.len() - 1
        })
    };
    buffers[output] = Some(another(output, &mut free));
    for stage in stages.iter().rev() {
        let own = buffers[stage.output].unwrap_or_else(|| another(stage.output, &mut free));
        buffers[stage.output] = Some(own);
        let mut is_done = true;
        for &input in stage.inputs.iter().filter(|id| **id != 0) {
            if buffers[input].is_some() {
                continue;
            }
            let in_place = is_done && stage.is_elementwise(values) && readers(input) == 1;
            is_done &= !in_place;
            buffers[input] = Some(match in_place {
                true => own,
                false => another(input, &mut free),
            });
        }
        if is_done {
            free.push(own);
        }
    }
    buffers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::sparse::SparseConv;

    fn stage(work: Work, inputs: &[usize], output: usize) -> Stage {
        Stage {
            work,
            relu: false,
            inputs: inputs.to_vec(),
            output,
        }
    }

    fn window() -> Window {
        Window {
            kernel_shape: [3, 3],
            strides: [1, 1],
            pads: [1; 4],
            dilations: [1, 1],
        }
    }

    fn conv(layer: usize, input: usize, output: usize) -> Stage {
        let work = Work::Conv {
            layer,
            window: window(),
            pool: None,
        };
        stage(work, &[input], output)
    }

    fn normalise(input: usize, output: usize) -> Stage {
        stage(Work::Normalise(0), &[input], output)
    }

    fn add(inputs: [usize; 2], output: usize) -> Stage {
        stage(Work::Arithmetic(Arithmetic::Add), &inputs, output)
    }

    /// A stage that reads and writes samples.
    fn function(input: usize, output: usize) -> Stage {
        let function = Function::PRelu;
        let work = Work::Function {
            function,
            tensors: 0..0,
        };
        stage(work, &[input], output)
    }

    /// Maps of one size; the last is the output.
    fn program(stages: Vec<Stage>) -> Program {
        let map = MapSize {
            height: 5,
            width: 6,
            channels: 4,
        };
        let values = vec![map; stages.len() + 1];
        let output = stages.len();
        Program::new(stages, values, output)
    }

    /// Input, convolution, normalisation, then a residual block, and a function.
    fn block() -> Program {
        program(vec![
            conv(0, 0, 1),
            normalise(1, 2),
            conv(1, 2, 3),
            normalise(3, 4),
            conv(2, 4, 5),
            normalise(5, 6),
            add([6, 2], 7),
            function(7, 8),
        ])
    }

    #[test]
    fn values_around_sparse_convolutions_lie_as_vectors() {
        let program = block();
        let map = program.lane_maps[2];
        assert_eq!(map.before(), [1, 1], "the border of a padded convolution");
        let few = || (0..4 * 36).map(|i| i % 10 == 0);
        let sparse = SparseConv::new(few(), &window(), [map; 2]).map(Sparse::Conv);
        assert!(sparse.is_some());
        let layouts = |is_sparse: [bool; 3]| -> String {
            let layers = is_sparse.map(|s| sparse.clone().filter(|_| s));
            let of = |layout: &Layout| match layout {
                Layout::Lanes => 'L',
                Layout::Samples => 'S',
            };
            program.layouts(&layers).iter().map(of).collect()
        };
        assert_eq!(layouts([true; 3]), "SLLLLLLLS");
        assert_eq!(layouts([false; 3]), "SSSSSSSSS");
        // The group of the sums: the function and the dense convolution are as many as the sparse ones.
        assert_eq!(layouts([false, true, true]), "SSSLLSSSS");
        assert_eq!(
            layouts([true, true, false]),
            "SSSLLSSSS".replace("SSSLL", "SSSSS")
        );
    }

    #[test]
    fn gradients_share_buffers_when_they_are_done() {
        let buffers = block().gradient_buffers;
        assert_eq!(buffers[0], None);
        let buffer = |value: usize| buffers[value].unwrap();
        // In place through elementwise stages to the value that nothing else reads.
        assert_eq!(buffer(7), buffer(6));
        assert_eq!(buffer(6), buffer(5));
        assert_eq!(buffer(4), buffer(3));
        assert_eq!(buffer(2), buffer(1));
        // The sum's other input has one of its own while the block runs.
        for value in 3..8 {
            assert_ne!(buffer(2), buffer(value), "value {value}");
        }
        // A chain needs two.
        let chain = (0..4).map(|i| conv(i, i, i + 1));
        let chain = program(chain.chain([function(4, 5)]).collect()).gradient_buffers;
        assert_eq!(chain[1], chain[3]);
        assert_eq!(chain[2], chain[4]);
        assert_ne!(chain[1], chain[2]);
    }

    #[test]
    fn gradients_that_are_needed_twice_are_not_changed_in_place() {
        // A value with itself, and the network's input with a value.
        let twice = program(vec![conv(0, 0, 1), add([1, 1], 2), function(2, 3)]);
        assert_ne!(twice.gradient_buffers[1], twice.gradient_buffers[2]);
        let input = program(vec![conv(0, 0, 1), add([0, 1], 2), function(2, 3)]);
        assert_eq!(input.gradient_buffers[1], input.gradient_buffers[2]);
        // The output of the network, which another stage reads.
        let stages = vec![conv(0, 0, 1), normalise(1, 2), normalise(1, 3)];
        let read_again = program(stages);
        assert_ne!(
            read_again.gradient_buffers[1],
            read_again.gradient_buffers[2]
        );
        assert_ne!(
            read_again.gradient_buffers[1],
            read_again.gradient_buffers[3]
        );
    }
}
