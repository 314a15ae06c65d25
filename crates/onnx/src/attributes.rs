//! Typed access to the attributes of a node.

use crate::node_error::Invalid;
use crate::proto::{AttributeProto, NodeProto, SparseTensorProto, TensorProto};

/// A node of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnnxNode<'m>(pub &'m NodeProto);

impl<'m> OnnxNode<'m> {
    /// The operator, with its domain where that is not ONNX's own.
    pub fn op(self) -> String {
        match self.0.domain.as_str() {
            "" | "ai.onnx" => self.0.op_type.clone(),
            domain => format!("{domain}::{}", self.0.op_type),
        }
    }

    /// The node's own name, or the name of its first output.
    pub fn name(self) -> &'m str {
        let made = self.0.output.first().map_or("", String::as_str);
        if self.0.name.is_empty() {
            made
        } else {
            &self.0.name
        }
    }

    /// The node as errors name it.
    pub fn label(self) -> String {
        format!("node `{}` ({})", self.name(), self.op())
    }

    /// An error about this node.
    pub fn invalid(self, expected: impl Into<String>, got: impl Into<String>) -> Invalid {
        Invalid::new(self.label(), expected, got)
    }

    /// Name of an input, unless it is absent.
    pub fn input(self, i: usize) -> Option<&'m str> {
        (self.0.input.get(i).map(String::as_str)).filter(|name| !name.is_empty())
    }

    fn attribute(self, name: &str) -> Option<&'m AttributeProto> {
        self.0.attribute.iter().find(|a| a.name == name)
    }

    fn field<T>(
        self,
        name: &str,
        kind: &str,
        get: impl Fn(&'m AttributeProto) -> Option<T>,
    ) -> Result<Option<T>, Invalid> {
        let Some(attribute) = self.attribute(name) else {
            return Ok(None);
        };
        match get(attribute) {
            Some(value) => Ok(Some(value)),
            None => Err(self.invalid(format!("{kind} as `{name}`"), "another kind of attribute")),
        }
    }

    /// An integer attribute.
    pub fn int(self, name: &str) -> Result<Option<i64>, Invalid> {
        self.field(name, "an integer", |a| a.i)
    }

    /// A floating-point attribute.
    pub fn float(self, name: &str) -> Result<Option<f32>, Invalid> {
        self.field(name, "a number", |a| a.f)
    }

    /// A list of integers.
    pub fn ints(self, name: &str) -> Result<Option<&'m [i64]>, Invalid> {
        self.field(name, "integers", |a| {
            // An empty list looks like any other empty attribute.
            let other = a.i.is_some() || a.f.is_some() || a.s.is_some() || a.t.is_some();
            (!other).then_some(a.ints.as_slice())
        })
    }

    /// A list of floating-point numbers.
    pub fn floats(self, name: &str) -> Result<Option<&'m [f32]>, Invalid> {
        self.field(name, "numbers", |a| Some(a.floats.as_slice()))
    }

    /// A string attribute.
    pub fn text(self, name: &str) -> Result<Option<&'m str>, Invalid> {
        self.field(name, "a text", |a| std::str::from_utf8(a.s.as_ref()?).ok())
    }

    /// A tensor attribute.
    pub fn tensor(self, name: &str) -> Result<Option<&'m TensorProto>, Invalid> {
        self.field(name, "a tensor", |a| a.t.as_ref())
    }

    /// A sparse tensor attribute.
    pub fn sparse_tensor(self, name: &str) -> Result<Option<&'m SparseTensorProto>, Invalid> {
        self.field(name, "a sparse tensor", |a| a.sparse_tensor.as_ref())
    }

    /// `N` non-negative integers; `default` where the attribute is absent.
    pub fn sizes<const N: usize>(
        self,
        name: &str,
        default: [usize; N],
    ) -> Result<[usize; N], Invalid> {
        let Some(ints) = self.ints(name)? else {
            return Ok(default);
        };
        let sizes: Option<Vec<usize>> = ints.iter().map(|&i| usize::try_from(i).ok()).collect();
        sizes.and_then(|s| s.try_into().ok()).ok_or_else(|| {
            self.invalid(
                format!("{N} numbers of 0 or more as `{name}`"),
                format!("{ints:?}"),
            )
        })
    }
}

/// An axis counted from the front, of `rank` axes.
pub(crate) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 {
        axis.checked_add(rank as i64)?
    } else {
        axis
    };
    usize::try_from(axis).ok().filter(|a| *a < rank)
}
