//! Building graphs in code.

use std::collections::{BTreeMap, HashMap};

use crate::presets::Preset;
use crate::{
    Graph, Input, ModelError, Network, Node, Op, Preprocessing, Shape, Weights, Window, ops, shape,
};

/// Builds a [`Graph`] node by node, with the shapes of the tensors that its operators name, or a whole [`Network`].
///
/// Values are named: each method that adds a node returns the node's name, which later nodes take as input. Shapes are
/// inferred on the way, so layers only say how many outputs they have. Mistakes are reported when the graph is finished.
///
/// ```
/// use sparsevd_model::{Conv2d, Dense, GraphBuilder, Op, Shape, Window, ops};
///
/// let mut b = GraphBuilder::new("small");
/// let x = b.input("input", [1, 28, 28]);
/// let x = b.conv("conv1", &x, &Conv2d::square(8, 3).padding(1));
/// let x = b.op("relu1", Op::Relu, &[&x]);
/// let x = b.op("pool1", Op::MaxPool(ops::MaxPool { window: Window::square(2, 2) }), &[&x]);
/// let x = b.op("flatten", Op::Flatten, &[&x]);
/// b.linear("fc", &x, 10);
///
/// // A bias is given, the other tensors are filled by name and shape.
/// b.weights("fc.bias", Dense::new([10], vec![0.5; 10]));
/// let network = b.network(|_name, shape| Dense::zeros(shape.clone()).into())?;
/// assert_eq!(network.tensors["fc.weight"].shape(), Shape::from([10, 8 * 14 * 14]));
/// assert_eq!(network.graph.outputs, ["fc"]);
/// # Ok::<(), sparsevd_model::ModelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct GraphBuilder {
    graph: Graph,
    /// Shape of each value so far. A value whose shape cannot be inferred is absent.
    values: HashMap<String, Shape>,
    tensors: BTreeMap<String, Shape>,
    /// Names of the tensors as they were declared.
    order: Vec<String>,
    given: BTreeMap<String, Weights>,
    /// The first tensor that was declared with two shapes.
    error: Option<ModelError>,
}

/// A convolution to add with [`GraphBuilder::conv`]: stride 1, no padding, one group and a bias unless changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conv2d {
    /// Number of output channels.
    pub out_channels: usize,
    /// Kernel size, strides, padding, dilation.
    pub window: Window,
    /// Number of independent channel groups.
    pub groups: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Conv2d {
    /// A convolution with a window of any kind.
    pub fn new(out_channels: usize, window: Window) -> Self {
        Self {
            out_channels,
            window,
            groups: 1,
            bias: true,
        }
    }

    /// A convolution with `size` by `size` filters.
    pub fn square(out_channels: usize, size: usize) -> Self {
        Self::new(out_channels, Window::square(size, 1))
    }

    /// Sets the stride in both directions.
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.window.strides = [stride; 2];
        self
    }

    /// Sets the zero padding on all four sides, in pixels.
    #[must_use]
    pub fn padding(mut self, pixels: usize) -> Self {
        self.window.pads = [pixels; 4];
        self
    }

    /// Sets the number of groups.
    #[must_use]
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Leaves the bias out.
    #[must_use]
    pub fn without_bias(mut self) -> Self {
        self.bias = false;
        self
    }
}

impl GraphBuilder {
    /// An empty graph of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            graph: Graph {
                name: name.into(),
                inputs: vec![],
                nodes: vec![],
                outputs: vec![],
                preprocessing: None,
            },
            values: HashMap::new(),
            tensors: BTreeMap::new(),
            order: vec![],
            given: BTreeMap::new(),
            error: None,
        }
    }

    /// Adds an input with its shape per sample; returns its name.
    pub fn input(&mut self, name: impl Into<String>, shape: impl Into<Shape>) -> String {
        let (name, shape) = (name.into(), shape.into());
        self.values.insert(name.clone(), shape.clone());
        self.graph.inputs.push(Input::new(name.clone(), shape));
        name
    }

    /// Adds an input of any type; returns its name. Shapes are inferred with one element in a free dimension.
    pub fn free_input(&mut self, input: Input) -> String {
        let name = input.name.clone();
        self.values
            .insert(name.clone(), input.tensor_type().shape(1));
        self.graph.inputs.push(input);
        name
    }

    /// Sets how raw pixels become the first input.
    pub fn preprocessing(&mut self, preprocessing: Preprocessing) {
        self.graph.preprocessing = Some(preprocessing);
    }

    /// Adds a node that reads `inputs`; returns its name.
    ///
    /// Tensors that the operator names must be declared before, with [`GraphBuilder::tensor`] or
    /// [`GraphBuilder::weights`].
    pub fn op(&mut self, name: impl Into<String>, op: Op, inputs: &[&str]) -> String {
        let name = name.into();
        let node = Node {
            name: name.clone(),
            inputs: inputs.iter().map(ToString::to_string).collect(),
            op,
        };
        if let Some(shape) = self.output_shape(&node) {
            self.values.insert(name.clone(), shape);
        }
        self.graph.nodes.push(node);
        name
    }

    /// Shape of a node's value, or `None` where `finish` will report the node or one before it.
    fn output_shape(&self, node: &Node) -> Option<Shape> {
        let inputs: Option<Vec<&Shape>> = node.inputs.iter().map(|i| self.values.get(i)).collect();
        let inputs = inputs.filter(|i| node.op.inputs().contains(&i.len()))?;
        let of_tensor = |node: &Node, tensor: &str| shape_of(&self.tensors, node, tensor);
        shape::output_shape(node, &inputs, &of_tensor).ok()
    }

    /// Adds a linear layer with `out_features` outputs over the last dimension of a value; returns its name.
    ///
    /// Its tensors are `{name}.weight`, `[out_features, in_features]`, and `{name}.bias`.
    pub fn linear(&mut self, name: impl Into<String>, input: &str, out_features: usize) -> String {
        let name = name.into();
        let dims = self.shape(input).map(Shape::dims);
        let in_features = dims.and_then(|d| d.last()).copied().unwrap_or(0);
        let weight = self.tensor(format!("{name}.weight"), [out_features, in_features]);
        let bias = Some(self.tensor(format!("{name}.bias"), [out_features]));
        self.op(name, Op::Linear(ops::Linear { weight, bias }), &[input])
    }

    /// Adds a convolution over a feature map; returns its name.
    ///
    /// Its tensors are `{name}.weight`, `[out, in/groups, kh, kw]`, and, with a bias, `{name}.bias`.
    pub fn conv(&mut self, name: impl Into<String>, input: &str, conv: &Conv2d) -> String {
        let name = name.into();
        let [kh, kw] = conv.window.kernel_shape;
        let in_group = self.size(input, 0) / conv.groups.max(1);
        let filters = [conv.out_channels, in_group, kh, kw];
        let weight = self.tensor(format!("{name}.weight"), filters);
        let bias = (conv.bias).then(|| self.tensor(format!("{name}.bias"), [conv.out_channels]));
        let op = Op::Conv(ops::Conv {
            weight,
            bias,
            window: conv.window.clone(),
            groups: conv.groups,
        });
        self.op(name, op, &[input])
    }

    /// Adds a batch normalisation of each channel, with an epsilon of 1e-5; returns its name.
    ///
    /// Its tensors have PyTorch's names: `{name}.weight`, `{name}.bias`, `{name}.running_mean` and `{name}.running_var`.
    pub fn batch_normalization(&mut self, name: impl Into<String>, input: &str) -> String {
        let name = name.into();
        let channels = self.size(input, 0);
        let mut tensor = |part: &str| self.tensor(format!("{name}.{part}"), [channels]);
        let op = Op::BatchNormalization(ops::BatchNormalization {
            scale: tensor("weight"),
            bias: tensor("bias"),
            mean: tensor("running_mean"),
            variance: tensor("running_var"),
            epsilon: 1e-5,
        });
        self.op(name, op, &[input])
    }

    /// Declares the shape of a tensor; returns its name. Several nodes may name one tensor.
    pub fn tensor(&mut self, name: impl Into<String>, shape: impl Into<Shape>) -> String {
        let (name, shape) = (name.into(), shape.into());
        match self.tensors.get(&name) {
            None => {
                self.order.push(name.clone());
                self.tensors.insert(name.clone(), shape);
            }
            Some(declared) if *declared != shape => {
                self.error.get_or_insert(ModelError::TensorShape {
                    tensor: name.clone(),
                    expected: declared.clone(),
                    got: shape,
                });
            }
            Some(_) => {}
        }
        name
    }

    /// Gives a tensor its elements for [`GraphBuilder::network`], and declares its shape; returns its name.
    pub fn weights(&mut self, name: impl Into<String>, weights: impl Into<Weights>) -> String {
        let weights = weights.into();
        let name = self.tensor(name, weights.shape());
        self.given.insert(name.clone(), weights);
        name
    }

    /// Makes a value an output of the graph. A graph without one returns the value of its last node.
    pub fn output(&mut self, value: &str) {
        self.graph.outputs.push(value.to_owned());
    }

    /// Shape of a value per sample; `None` where there is no such value, or its node does not fit its inputs.
    pub fn shape(&self, value: &str) -> Option<&Shape> {
        self.values.get(value)
    }

    /// A dimension of a value, 0 where there is none: the node that needs it is reported by `finish`.
    fn size(&self, value: &str, dimension: usize) -> usize {
        let dims = self.shape(value).map(Shape::dims);
        dims.and_then(|d| d.get(dimension)).copied().unwrap_or(0)
    }

    /// The graph.
    ///
    /// # Errors
    /// Anything that [`Graph::check`] or [`shape::infer`] rejects, and a tensor that was declared with two shapes.
    pub fn finish(self) -> Result<Graph, ModelError> {
        self.finish_with_tensors().map(|(graph, _)| graph)
    }

    /// The graph with the names and shapes of its tensors, in the order in which they were declared.
    ///
    /// # Errors
    /// As [`GraphBuilder::finish`].
    pub fn finish_with_tensors(mut self) -> Result<Preset, ModelError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.graph.outputs.is_empty() {
            let inputs = self.graph.inputs.iter().map(|i| &i.name);
            let values = inputs.chain(self.graph.nodes.iter().map(|n| &n.name));
            self.graph.outputs = values.last().cloned().into_iter().collect();
        }
        let mut tensors = self.tensors;
        shape::infer_types(&self.graph, &|node, tensor| {
            shape_of(&tensors, node, tensor)
        })?;
        let shapes = (self.order.into_iter())
            .map(|name| {
                let shape = tensors.remove(&name).unwrap_or_default();
                (name, shape)
            })
            .collect();
        Ok((self.graph, shapes))
    }

    /// The graph with the tensors that were given, and for each other tensor what `fill` makes of its name and shape.
    ///
    /// # Errors
    /// As [`GraphBuilder::finish`] and [`Network::new`].
    pub fn network(
        mut self,
        mut fill: impl FnMut(&str, &Shape) -> Weights,
    ) -> Result<Network, ModelError> {
        let mut given = std::mem::take(&mut self.given);
        Network::from_preset(self.finish_with_tensors()?, |name, shape| {
            given.remove(name).unwrap_or_else(|| fill(name, shape))
        })
    }
}

/// Shape of a tensor that a node names.
fn shape_of(
    tensors: &BTreeMap<String, Shape>,
    node: &Node,
    name: &str,
) -> Result<Shape, ModelError> {
    tensors
        .get(name)
        .cloned()
        .ok_or_else(|| ModelError::MissingTensor {
            tensor: name.into(),
            node: node.name.clone(),
            found: crate::bind::describe(tensors.iter().map(|(n, s)| (n.as_str(), s.clone()))),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dense;

    fn error(build: impl Fn(&mut GraphBuilder, &str)) -> String {
        let mut b = GraphBuilder::new("test");
        let x = b.input("x", [4, 6, 6]);
        build(&mut b, &x);
        b.finish().unwrap_err().to_string()
    }

    #[test]
    fn layers_infer_the_shapes_of_their_tensors() {
        let mut b = GraphBuilder::new("test");
        let x = b.input("x", [4, 6, 6]);
        let conv = Conv2d::square(8, 3).stride(2).padding(1).groups(2);
        let c = b.conv("c", &x, &conv.without_bias());
        let n = b.batch_normalization("n", &c);
        assert_eq!(b.shape(&n), Some(&Shape::from([8, 3, 3])));
        let sum = b.op("sum", Op::Add, &[&n, &c]);
        let flat = b.op("flat", Op::Flatten, &[&sum]);
        b.linear("fc", &flat, 5);
        b.output(&sum);
        b.output("fc");
        let (graph, tensors) = b.finish_with_tensors().unwrap();
        assert_eq!(graph.outputs, ["sum", "fc"]);
        assert_eq!(graph.nodes[2].inputs, ["n", "c"]);
        let tensors: Vec<(&str, &[usize])> = (tensors.iter())
            .map(|(n, s)| (n.as_str(), s.dims()))
            .collect();
        let expected: [(&str, &[usize]); 7] = [
            ("c.weight", &[8, 2, 3, 3]),
            ("n.weight", &[8]),
            ("n.bias", &[8]),
            ("n.running_mean", &[8]),
            ("n.running_var", &[8]),
            ("fc.weight", &[5, 72]),
            ("fc.bias", &[5]),
        ];
        assert_eq!(tensors, expected);
    }

    #[test]
    fn given_tensors_stay_and_the_others_are_filled_in_order() {
        let mut b = GraphBuilder::new("test");
        let x = b.input("x", [2]);
        let y = b.linear("a", &x, 1);
        b.linear("b", &y, 1);
        b.weights("a.bias", Dense::new([1], vec![7.0]));
        let mut filled = vec![];
        let network = b.network(|name, shape| {
            filled.push(name.to_owned());
            Dense::zeros(shape.clone()).into()
        });
        let network = network.unwrap();
        assert_eq!(filled, ["a.weight", "b.weight", "b.bias"]);
        assert_eq!(network.tensors["a.bias"].values(), [7.0]);
        assert_eq!(network.tensors["a.weight"].values(), [0.0; 2]);
    }

    #[test]
    fn mistakes_are_errors_that_name_the_first_node_or_tensor_at_fault() {
        let square = |size| Conv2d::square(2, size);
        let messages = [
            error(|b, x| {
                let c = b.conv("c", x, &square(9));
                b.linear("fc", &c, 3);
            }),
            error(|b, _| {
                b.linear("fc", "y", 3);
            }),
            error(|b, x| {
                b.op("sum", Op::Add, &[x]);
            }),
            error(|b, x| {
                b.op("x", Op::Relu, &[x]);
            }),
            error(|b, x| {
                let (weight, bias) = ("w".into(), None);
                b.op("fc", Op::Linear(ops::Linear { weight, bias }), &[x]);
            }),
            error(|b, x| {
                b.conv("c", x, &square(3));
                b.weights("c.weight", Dense::zeros([2, 4, 1, 1]));
            }),
            error(|b, x| {
                b.conv("c", x, &square(3).groups(0));
            }),
            error(|b, _| b.output("nowhere")),
        ];
        let parts = [
            "node `c` (Conv): expected a window that fits",
            "node `fc`: its input `y`",
            "node `sum` (Add): expected 2 input(s), got 1",
            "the name `x` is used by two",
            "tensor `w` of node `fc` is missing",
            "tensor `c.weight`: expected shape [2, 4, 3, 3], got [2, 4, 1, 1]",
            "node `c` (Conv)",
            "network output `nowhere`",
        ];
        for (message, part) in messages.iter().zip(parts) {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(GraphBuilder::new("empty").finish().is_err());
    }
}
