//! Which channels of a graph matter, wherever its weights are stored.
//!
//! A channel is needed where the network returns it, or where a weight of a unit that is needed reads it. Channels that meet
//! in a sum stay or leave together, and so do the channels before and behind a depthwise convolution. A channel that no weight
//! feeds is a constant: [`fold_constants`] moves it into the biases of its consumers, and then it is not needed.

use std::collections::HashMap;

use crate::ops::Channels;
use crate::{Graph, Node, Shape};

/// The weights of a graph as the analysis of its channels sees them.
///
/// Rows and channels are counted as in the shapes that the graph is analysed in; those that were removed before have no weights.
pub trait ChannelWeights {
    /// Type of a weight.
    type Number: Copy;

    /// Rows of a node's weight: the channels that it makes.
    fn rows(&self, node: &Node) -> usize;

    /// Shape of a value per sample; its channels are the first dimension.
    fn shape(&self, value: &str) -> &Shape;

    /// Whether channels may leave before and behind a node; all stay before and behind a concatenation and an operator that
    /// mixes channels without a weight.
    fn may_leave(&self, node: &Node) -> bool;

    /// Calls `visit` with the row of each weight of `node` that was not removed, and the channel that the weight reads.
    fn visit(&self, node: &Node, visit: &mut dyn FnMut(usize, usize));

    /// For an operator of [`Channels::Same`]: the constant that each channel is everywhere, from the constants of its inputs;
    /// `None` for a channel that is none.
    fn constants(
        &self,
        node: &Node,
        inputs: &[&[Option<Self::Number>]],
    ) -> Vec<Option<Self::Number>>;

    /// Moves what the constants among the inputs of a node with a weight contribute into its bias, and removes the weights that
    /// read them, where that is exact. Returns the constants among the channels that it makes.
    fn fold(&mut self, node: &Node, input: &[Option<Self::Number>]) -> Vec<Option<Self::Number>>;
}

/// Moves what constant channels contribute into the biases of their consumers, and removes the weights that read them.
///
/// A channel of `except` is not taken for a constant.
pub fn fold_constants<W: ChannelWeights>(
    graph: &Graph,
    weights: &mut W,
    except: Option<&LiveChannels>,
) {
    let mut constants: HashMap<&str, Vec<Option<W::Number>>> = HashMap::new();
    for input in &graph.inputs {
        constants.insert(&input.name, vec![None; input_channels(input)]);
    }
    for node in &graph.nodes {
        let inputs: Vec<&[Option<W::Number>]> = (node.inputs.iter())
            .map(|i| constants[i.as_str()].as_slice())
            .collect();
        let mut made = match channels(node, weights) {
            Channels::Rows => weights.fold(node, inputs[0]),
            Channels::Same => weights.constants(node, &inputs),
            Channels::Flattened => repeated(inputs[0], pixels(&node.inputs[0], weights)),
            Channels::Appended => inputs.concat(),
            Channels::All => vec![None; channel_count(&node.name, weights)],
        };
        if let Some(except) = except {
            let stays = except.of(&node.name);
            (made.iter_mut().zip(stays)).for_each(|(c, stays)| *c = c.filter(|_| !stays));
        }
        constants.insert(&node.name, made);
    }
}

/// What a node does to channels.
fn channels<W: ChannelWeights>(node: &Node, weights: &W) -> Channels {
    node.op.channels_of(weights.shape(&node.inputs[0]))
}

fn channel_count<W: ChannelWeights>(value: &str, weights: &W) -> usize {
    weights.shape(value).matrix().0
}

/// Pixels of each channel of a value.
fn pixels<W: ChannelWeights>(value: &str, weights: &W) -> usize {
    weights.shape(value).matrix().1
}

fn input_channels(input: &crate::Input) -> usize {
    input.shape.dims().first().copied().unwrap_or(1)
}

/// What each channel has, for each of its `pixels`.
fn repeated<T: Copy>(channels: &[T], pixels: usize) -> Vec<T> {
    let each = channels.iter();
    each.flat_map(|c| std::iter::repeat_n(*c, pixels)).collect()
}

/// Which channels stay or leave together: sets of them, and the sets that must stay.
#[derive(Debug)]
pub struct ChannelSets {
    /// The set of each channel of each value, through `joined`.
    of: HashMap<String, Vec<usize>>,
    joined: Vec<usize>,
    pinned: Vec<usize>,
}

impl ChannelSets {
    /// The sets of a graph. They depend on shapes and on [`ChannelWeights::may_leave`], not on weights.
    pub fn new<W: ChannelWeights>(graph: &Graph, weights: &W) -> Self {
        let mut sets = Self {
            of: HashMap::new(),
            joined: vec![],
            pinned: vec![],
        };
        for input in &graph.inputs {
            let fresh = sets.fresh(input_channels(input));
            sets.pinned.extend(&fresh);
            sets.of.insert(input.name.clone(), fresh);
        }
        for node in &graph.nodes {
            let inputs: Vec<Vec<usize>> =
                (node.inputs.iter()).map(|i| sets.of[i].clone()).collect();
            let x = &inputs[0];
            let channels = channels(node, weights);
            let made = match channels {
                Channels::Rows => sets.fresh(weights.rows(node)),
                Channels::Flattened => repeated(x, pixels(&node.inputs[0], weights)),
                Channels::Appended => inputs.concat(),
                Channels::Same => x.clone(),
                Channels::All => sets.fresh(channel_count(&node.name, weights)),
            };
            if matches!(channels, Channels::Appended | Channels::All) || !weights.may_leave(node) {
                sets.pinned.extend(inputs.iter().flatten().chain(&made));
            } else if channels == Channels::Same {
                for other in &inputs[1..] {
                    (x.iter().zip(other)).for_each(|(&a, &b)| sets.join(a, b));
                }
            } else if channels == Channels::Rows && node.op.groups() > 1 {
                let rows = made.len() / x.len().max(1);
                (made.iter().enumerate()).for_each(|(row, &m)| sets.join(m, x[row / rows]));
            }
            sets.of.insert(node.name.clone(), made);
        }
        for output in &graph.outputs {
            sets.pinned.extend(&sets.of[output]);
        }
        sets
    }

    fn fresh(&mut self, count: usize) -> Vec<usize> {
        let from = self.joined.len();
        self.joined.extend(from..from + count);
        (from..from + count).collect()
    }

    fn find(&self, mut set: usize) -> usize {
        while self.joined[set] != set {
            set = self.joined[set];
        }
        set
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        // The smaller number is the older set, so that chains stay short.
        self.joined[a.max(b)] = a.min(b);
    }

    /// The channels that stay whatever the weights are.
    pub fn pinned(&self) -> LiveChannels {
        let roots: Vec<usize> = (0..self.joined.len()).map(|s| self.find(s)).collect();
        let mut live = vec![false; roots.len()];
        for &set in &self.pinned {
            live[roots[set]] = true;
        }
        let of_value = |sets: &Vec<usize>| sets.iter().map(|s| roots[*s]).collect();
        let of = self.of.iter();
        LiveChannels {
            of: of.map(|(name, s)| (name.clone(), of_value(s))).collect(),
            live,
        }
    }

    /// The channels that an output depends on, and those that stay whatever the weights are.
    pub fn needed<W: ChannelWeights>(&self, graph: &Graph, weights: &W) -> LiveChannels {
        let mut needed = self.pinned();
        let (of, live) = (&needed.of, &mut needed.live);
        loop {
            let mut changed = false;
            let of_rows = |n: &&Node| channels(n, weights) == Channels::Rows;
            for node in graph.nodes.iter().filter(of_rows).rev() {
                let (made, read) = (&of[&node.name], &of[&node.inputs[0]]);
                weights.visit(node, &mut |row, channel| {
                    if live[made[row]] {
                        changed |= !std::mem::replace(&mut live[read[channel]], true);
                    }
                });
            }
            if !changed {
                return needed;
            }
        }
    }
}

/// Which channels of each value stay.
#[derive(Debug)]
pub struct LiveChannels {
    /// The set of each channel of each value.
    of: HashMap<String, Vec<usize>>,
    live: Vec<bool>,
}

impl LiveChannels {
    /// Whether all channels stay.
    pub fn are_all(&self) -> bool {
        self.of.values().flatten().all(|s| self.live[*s])
    }

    /// Whether each channel of a value stays.
    ///
    /// # Panics
    /// A value that the graph does not have.
    pub fn of(&self, value: &str) -> Vec<bool> {
        self.of[value].iter().map(|s| self.live[*s]).collect()
    }

    /// Lets every value keep at least one channel: where none would stay, the one that `first` gives for the value's node.
    pub fn keep_one(&mut self, graph: &Graph, first: impl Fn(&Node) -> usize) {
        for node in &graph.nodes {
            let sets = &self.of[&node.name];
            if !sets.iter().any(|s| self.live[*s])
                && let Some(&set) = sets.get(first(node))
            {
                self.live[set] = true;
            }
        }
    }
}
