//! How operators are written in ONNX.

/// How an operator is written as an ONNX node, beside its inputs and tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct OnnxForm {
    /// ONNX operator.
    pub op_type: &'static str,
    /// First version of ONNX's operators that has it like this.
    pub opset: i64,
    /// Attributes by name.
    pub attributes: Vec<(&'static str, OnnxAttribute)>,
    /// Constants that are inputs behind all others, by what they are; one that is left out is `None`.
    pub constants: Vec<(&'static str, Option<OnnxConstant>)>,
    /// Whether the tensors of the operator come before the values that it reads.
    pub tensors_first: bool,
}

impl OnnxForm {
    /// An operator without attributes or constants.
    pub fn new(op_type: &'static str) -> Self {
        Self {
            op_type,
            opset: 17,
            attributes: vec![],
            constants: vec![],
            tensors_first: false,
        }
    }

    pub(crate) fn with(
        op_type: &'static str,
        attributes: Vec<(&'static str, OnnxAttribute)>,
    ) -> Self {
        Self {
            attributes,
            ..Self::new(op_type)
        }
    }
}

/// Value of an ONNX attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum OnnxAttribute {
    /// An integer.
    Int(i64),
    /// Integers.
    Ints(Vec<i64>),
    /// A number.
    Float(f32),
    /// A word.
    Text(&'static str),
}

/// A constant among the inputs of an ONNX node.
#[derive(Debug, Clone, PartialEq)]
pub enum OnnxConstant {
    /// A scalar of type float.
    Float(f32),
    /// A vector of int64.
    Ints(Vec<i64>),
}
