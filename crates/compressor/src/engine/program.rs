//! The stages that a training step runs, the values between them, and how those lie in memory.

use std::ops::Range;

use sparsevd_model::Window;

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
        self.layer().is_some()
            || matches!(
                self,
                Self::Normalise(_) | Self::Affine(_) | Self::Arithmetic(_)
            )
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
            Work::Normalise(_) | Work::Affine(_) => true,
            Work::Arithmetic(Arithmetic::Add) => values[self.inputs[0]] == values[self.inputs[1]],
            _ => false,
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
    /// Of each value the first of those that lie as it does, since an elementwise stage reads or writes both.
    alike: Vec<usize>,
    /// In which buffer the gradient of each value lies.
    pub gradients: Vec<usize>,
    /// The value that the loss reads.
    pub output: usize,
}

/// The output of a convolution, before pooling.
fn map_of(window: &Window, values: &[MapSize], stage: &Stage) -> MapSize {
    let map = values[stage.inputs[0]].over(window);
    MapSize {
        channels: values[stage.output].channels,
        ..map.expect("checked when the graph was lowered")
    }
}

impl Program {
    pub fn new(stages: Vec<Stage>, values: Vec<MapSize>, output: usize) -> Self {
        let mut lane_maps: Vec<LaneMap> = values.iter().copied().map(LaneMap::new).collect();
        let mut alike: Vec<usize> = (0..values.len()).collect();
        for stage in &stages {
            if stage.is_elementwise(&values) {
                for &input in &stage.inputs {
                    let pair = [alike[input], alike[stage.output]];
                    let first = pair[0].min(pair[1]);
                    (alike.iter_mut())
                        .filter(|a| pair.contains(a))
                        .for_each(|a| *a = first);
                }
            }
            if let Work::Conv { window, pool, .. } = &stage.work {
                let (input, output) = (stage.inputs[0], stage.output);
                let [read, written] =
                    borders(window, values[input], map_of(window, &values, stage));
                lane_maps[input].widen_as(&read);
                if pool.is_none() {
                    lane_maps[output].widen_as(&written);
                }
            }
        }
        for value in 0..values.len() {
            let own = lane_maps[value];
            lane_maps[alike[value]].widen_as(&own);
        }
        let lane_maps: Vec<LaneMap> = (alike.iter()).map(|&first| lane_maps[first]).collect();
        Self {
            gradients: gradient_buffers(&stages, &values, &lane_maps, output),
            stages,
            values,
            lane_maps,
            alike,
            output,
        }
    }

    /// The input of a stage whose gradient lies where that by the output does: an elementwise stage changes the one into the other.
    pub fn in_place(&self, stage: &Stage) -> Option<usize> {
        let mut inputs = stage.inputs.iter().copied();
        inputs.find(|&id| self.gradients[id] == self.gradients[stage.output])
    }

    /// The maps of a convolution's input and output, before pooling.
    pub fn lane_maps_of(&self, stage: &Stage, window: &Window) -> [LaneMap; 2] {
        let (input, output) = (stage.inputs[0], stage.output);
        let written = match stage.work {
            Work::Conv { pool: Some(_), .. } => borders(
                window,
                self.values[input],
                map_of(window, &self.values, stage),
            )[1],
            _ => self.lane_maps[output],
        };
        [self.lane_maps[input], written]
    }

    /// The map of a value where it lies as vectors.
    pub fn laid(&self, value: usize, layout: Layout) -> Option<&LaneMap> {
        (layout == Layout::Lanes).then(|| &self.lane_maps[value])
    }

    /// How each value lies best: as vectors where more of the convolutions at values alike compute with the weights that are left
    /// than with all, since each has to lay out anew what lies the other way.
    pub fn layouts(&self, sparse: &[Option<Sparse>]) -> Vec<Layout> {
        let mut votes = vec![0_isize; self.values.len()];
        for stage in &self.stages {
            let vote = match &stage.work {
                Work::Conv {
                    layer, pool: None, ..
                } if sparse[*layer].is_some() => 1,
                Work::Conv { .. } | Work::GroupedConv { .. } | Work::DepthwiseConv { .. } => -1,
                _ => 0,
            };
            for value in [stage.inputs[0], stage.output] {
                votes[self.alike[value]] += vote;
            }
        }
        // The caller fills the one and reads the other.
        for end in [0, self.output] {
            votes[self.alike[end]] = 0;
        }
        let layout = |first: &usize| match votes[*first] {
            1.. => Layout::Lanes,
            _ => Layout::Samples,
        };
        self.alike.iter().map(layout).collect()
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

/// A buffer for the gradient of each value. A gradient is written from the last stage on that reads the value, and read last by the
/// stage that made it; then its buffer is that of another map of the same kind, while it is in a cache still.
fn gradient_buffers(
    stages: &[Stage],
    values: &[MapSize],
    lane_maps: &[LaneMap],
    output: usize,
) -> Vec<usize> {
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
        let own = match buffers[stage.output] {
            Some(own) => own,
            None => another(stage.output, &mut free),
        };
        buffers[stage.output] = Some(own);
        let mut is_free = true;
        for &input in &stage.inputs {
            if buffers[input].is_some() {
                continue;
            }
            let in_place = is_free && stage.is_elementwise(values) && readers(input) == 1;
            is_free &= !in_place;
            buffers[input] = Some(match in_place {
                true => own,
                false => another(input, &mut free),
            });
        }
        if is_free {
            free.push(own);
        }
    }
    // Values that no stage reads or makes have no gradient.
    (buffers.iter()).map(|b| b.unwrap_or(0)).collect()
}
