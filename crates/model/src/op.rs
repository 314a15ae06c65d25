//! What is asked of any operator.

use std::ops::RangeInclusive;

use crate::Shape;
use crate::ops::{self, Attribute, Channels, Op};

impl Op {
    /// The name of the operator: ONNX's, but for `Linear`, which is `Gemm` there.
    pub fn name(&self) -> &'static str {
        self.operator().name()
    }

    /// What it does to the channels of an input of this shape per sample. Of a layer over several vectors of a sample the first dimension
    /// counts vectors, so its units are no channels.
    pub fn channels_of(&self, input: &Shape) -> Channels {
        match self {
            Self::Linear(_) if input.dims().len() != 1 => Channels::All,
            _ => self.operator().channels(),
        }
    }

    /// The attributes as numbers in a fixed order, an absent bound as `None`; tensor names are left out.
    ///
    /// Operators of one name with the same attributes compute the same from the same tensors.
    pub fn attributes(&self) -> Vec<Option<f64>> {
        let mut numbers = Vec::new();
        self.clone().visit_attributes(&mut |_, attribute| {
            let sizes = |sizes: &[usize]| sizes.iter().map(|&n| Some(n as f64)).collect();
            let more: Vec<Option<f64>> = match attribute {
                Attribute::Tensor(_) | Attribute::Bias(_) => vec![],
                Attribute::Window(w) => {
                    let pairs = [w.kernel_shape, w.strides, w.dilations];
                    sizes(&[pairs.as_flattened(), &w.pads].concat())
                }
                Attribute::Size(n) => sizes(&[*n]),
                Attribute::Axis(0) => vec![],
                Attribute::Axis(n) => sizes(&[*n]),
                Attribute::Sizes(all) => sizes(all),
                Attribute::Pads(pads) => sizes(pads),
                Attribute::Float(v) => vec![Some(f64::from(*v))],
                Attribute::Bound(v) => vec![v.map(f64::from)],
                Attribute::Approximate(a) => sizes(&[*a as usize]),
            };
            numbers.extend(more);
        });
        numbers
    }

    /// How many values the operator reads.
    pub fn inputs(&self) -> RangeInclusive<usize> {
        self.operator().inputs()
    }

    /// Whether the operator changes each number by itself, whatever its place: an activation.
    pub fn is_activation(&self) -> bool {
        self.operator().activation(0.0).is_some()
    }

    /// Names of all tensors the operator reads, in the order of its ONNX inputs.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.operator().tensors().into_iter()
    }

    /// Tensor name of the weight matrix or filter bank, where the operator has one.
    pub fn weight(&self) -> Option<&str> {
        self.operator().weight()
    }

    /// Tensor name of the bias beside a weight, where the operator has one.
    pub fn bias(&self) -> Option<&str> {
        self.operator().bias()
    }

    /// Field and name of every tensor that is neither weight nor bias of a layer, in the order of the ONNX inputs.
    pub fn plain_tensors(&self) -> Vec<(&'static str, String)> {
        let mut tensors = Vec::new();
        self.clone().visit_attributes(&mut |field, attribute| {
            let name = match attribute {
                Attribute::Tensor(name) => Some(&*name),
                Attribute::Bias(name) => name.as_ref(),
                _ => None,
            };
            let of_layer = [self.weight(), self.bias()];
            let name = name.filter(|n| !of_layer.contains(&Some(n)));
            tensors.extend(name.map(|n| (field, n.clone())));
        });
        tensors
    }

    /// Number of independent groups of channels of a convolution; 1 for any other operator.
    pub fn groups(&self) -> usize {
        self.operator().groups()
    }

    /// Gives the weight and bias other tensor names; does nothing for an operator without weights.
    pub fn rename_tensors(&mut self, new_weight: String, new_bias: Option<String>) {
        if let Self::Linear(ops::Linear { weight, bias })
        | Self::Conv(ops::Conv { weight, bias, .. }) = self
        {
            *weight = new_weight;
            *bias = new_bias;
        }
    }
}
