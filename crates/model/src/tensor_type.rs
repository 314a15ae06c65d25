//! Types of values: what their elements are, and which of their dimensions is free.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Shape;

/// Most rows of a table: every smaller integer is an `f32`.
pub const MOST_IDS: usize = 1 << 24;

/// What the elements of a value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// 32-bit floating-point numbers.
    #[default]
    F32,
    /// Integers of 8 bits.
    I8,
    /// Integers of 8 bits without a sign.
    U8,
    /// Integers of 32 bits.
    I32,
    /// Integers of 64 bits.
    I64,
    /// Truth values.
    Bool,
}

impl DType {
    /// Bytes of an element in memory.
    pub fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    /// Whether it can number the rows of a table. Plans and samples carry such integers as `f32`, which is exact up to [`MOST_IDS`].
    pub fn is_id(self) -> bool {
        matches!(self, Self::I32 | Self::I64)
    }

    /// Its name in graphs.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::Bool => "bool",
        }
    }

    /// Whether it is the type that files leave out.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A dimension of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    /// This many elements.
    Known(usize),
    /// Any number of elements, one or more, the same for all values that have a dimension of this name in a run.
    Free(String),
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(n) => n.fmt(f),
            Self::Free(symbol) => f.write_str(symbol),
        }
    }
}

/// Type of a value: its elements, and its dimensions per sample. The batch is a dimension before them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct TensorType {
    /// What its elements are.
    #[serde(skip_serializing_if = "DType::is_default")]
    pub dtype: DType,
    /// Dimensions of one sample, of which at most one is free.
    #[serde(rename = "shape")]
    pub dims: Vec<Dim>,
}

impl TensorType {
    /// Floating-point numbers of a known shape.
    pub fn known(shape: &Shape) -> Self {
        Self {
            dtype: DType::F32,
            dims: shape.dims().iter().copied().map(Dim::Known).collect(),
        }
    }

    /// Index of the free dimension, where there is one.
    pub fn free(&self) -> Option<usize> {
        self.dims.iter().position(|d| matches!(d, Dim::Free(_)))
    }

    /// The shape with `length` elements in the free dimension.
    pub fn shape(&self, length: usize) -> Shape {
        let dims = self.dims.iter().map(|dim| match dim {
            Dim::Known(n) => *n,
            Dim::Free(_) => length,
        });
        Shape(dims.collect())
    }

    /// Elements of [`TensorType::shape`]; saturates instead of overflowing.
    pub fn elements(&self, length: usize) -> usize {
        let dims = self.dims.iter().map(|dim| match dim {
            Dim::Known(n) => *n,
            Dim::Free(_) => length,
        });
        dims.fold(1, usize::saturating_mul)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.dtype.is_default() {
            write!(f, "{} ", self.dtype)?;
        }
        let dims: Vec<String> = self.dims.iter().map(Dim::to_string).collect();
        write!(f, "[{}]", dims.join(", "))
    }
}
