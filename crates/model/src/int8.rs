//! What a network carries so that layers can run in int8: grids of their inputs, and of the rows of their weights.
//!
//! An int8 layer reads `(byte - zero_point) * scale` in place of its input, and its weight is, row by row, an integer from -127 to 127 times the scale of
//! the row, as [`crate::quantised`] has it. So products and sums of a row are those of integers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Csr, ModelError, Network, Node, Op, Weights, quantised};

/// Largest magnitude of a weight in bytes.
pub const MOST_LEVEL: i32 = 127;

/// The bytes that stand for the numbers of a value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Int8Grid {
    /// The distance of two neighbouring numbers, a scale of [`crate::quantised`].
    #[serde(serialize_with = "exactly")]
    pub scale: f32,
    /// The byte of zero.
    pub zero_point: u8,
}

/// A number whose digits give it back.
#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn exactly<S: Serializer>(v: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(f64::from(*v))
}

impl Int8Grid {
    /// The grid of all bytes from `least` to `most`, a range that is widened to zero. `None` where it has no scale.
    pub fn of_range(least: f32, most: f32) -> Option<Self> {
        let (least, most) = (f64::from(least).min(0.0), f64::from(most).max(0.0));
        if least == most {
            return Some(Self {
                scale: 1.0,
                zero_point: 0,
            });
        }
        // Rounding to these bits moves a scale by less than 2^-16 of itself, which 255 steps do not notice.
        let target = ((most - least) / 255.0) as f32;
        let scale = quantised::nearest_scale(target, quantised::STEP_BITS)?;
        let zero_point = (-least / f64::from(scale)).round_ties_even() as u8;
        Some(Self { scale, zero_point })
    }

    /// The nearest byte, as kernels compute it: ties to even, NaN as 0.
    pub fn byte(self, v: f32) -> u8 {
        let scaled = v.mul_add(self.scale.recip(), f32::from(self.zero_point));
        scaled.round_ties_even() as u8
    }

    /// The number of a byte.
    pub fn value(self, byte: u8) -> f32 {
        (f32::from(byte) - f32::from(self.zero_point)) * self.scale
    }
}

/// The byte of zero where each vector has a scale of its own.
const ZERO_OF_VECTORS: u8 = 128;

/// How the input of an int8 layer becomes bytes. In files a grid is an object, and the other a word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Int8Input {
    /// All numbers by one grid.
    Grid(Int8Grid),
    /// Each vector that a linear layer reads, such as that of a token, by a scale of its own, which a run finds: its largest magnitude over 127, and the least
    /// normal float at least. Zero is the byte 128.
    PerVector,
}

/// [`Int8Input::PerVector`] in files.
const PER_VECTOR: &str = "per-vector";

impl Serialize for Int8Input {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Grid(grid) => grid.serialize(serializer),
            Self::PerVector => serializer.serialize_str(PER_VECTOR),
        }
    }
}

impl<'de> Deserialize<'de> for Int8Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Input;

        impl<'de> Visitor<'de> for Input {
            type Value = Int8Input;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a grid or \"{PER_VECTOR}\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Int8Input, A::Error> {
                Int8Grid::deserialize(MapAccessDeserializer::new(map)).map(Int8Input::Grid)
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Int8Input, E> {
                match word {
                    PER_VECTOR => Ok(Int8Input::PerVector),
                    other => Err(E::unknown_variant(other, &[PER_VECTOR])),
                }
            }
        }

        deserializer.deserialize_any(Input)
    }
}

impl Int8Input {
    /// The byte of zero.
    pub fn zero_point(self) -> u8 {
        match self {
            Self::Grid(grid) => grid.zero_point,
            Self::PerVector => ZERO_OF_VECTORS,
        }
    }

    /// The grid of all numbers, where there is one.
    pub fn grid(self) -> Option<Int8Grid> {
        match self {
            Self::Grid(grid) => Some(grid),
            Self::PerVector => None,
        }
    }

    /// The scale that all vectors share; 1 where each has its own.
    pub fn common_scale(self) -> f32 {
        self.grid().map_or(1.0, |grid| grid.scale)
    }
}

impl From<Int8Grid> for Int8Input {
    fn from(grid: Int8Grid) -> Self {
        Self::Grid(grid)
    }
}

/// The layers of a network that may run in int8; see [`Network::set_int8`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Int8Grids {
    /// How the input of each of these layers becomes bytes, by the name of its node.
    pub inputs: BTreeMap<String, Int8Input>,
    /// Scales of the rows of their weights, by the name of the tensor.
    pub rows: BTreeMap<String, Vec<f32>>,
}

impl Int8Grids {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Removes the grids of a layer and of its weight.
    pub fn remove(&mut self, node: &str, weight: &str) {
        self.inputs.remove(node);
        self.rows.remove(weight);
    }
}

/// A layer that may run in int8.
#[derive(Debug, Clone, PartialEq)]
pub struct Int8Layer<'n> {
    /// How its input becomes bytes.
    pub input: Int8Input,
    /// The scale of each row of its weight.
    pub rows: &'n [f32],
    /// Its weight as integers.
    pub levels: Csr,
}

impl Network {
    /// Lets a layer run in int8, once that is checked: how its input becomes bytes, and the scale of each row of its weight.
    ///
    /// # Errors
    /// A node that is there not, or no linear layer or convolution; a convolution whose input has no grid; a weight that is not CSR, or off the grids of
    /// its rows; scales that are none.
    pub fn set_int8(
        &mut self,
        node: &str,
        input: impl Into<Int8Input>,
        rows: Vec<f32>,
    ) -> Result<(), ModelError> {
        let input = input.into();
        let found = self.graph.nodes.iter().find(|n| n.name == node);
        let weight = weight_of(node, found, input)?.to_owned();
        self.checked_layer(node, &weight, input, &rows)?;
        self.int8.inputs.insert(node.into(), input);
        self.int8.rows.insert(weight, rows);
        Ok(())
    }

    /// A layer that may run in int8; `None` where it may not.
    ///
    /// # Errors
    /// As [`Network::set_int8`], where the network was changed since.
    pub fn int8_layer(
        &self,
        node: &str,
        weight: &str,
    ) -> Result<Option<Int8Layer<'_>>, ModelError> {
        let Some(&input) = self.int8.inputs.get(node) else {
            return Ok(None);
        };
        let rows = self.int8.rows.get(weight).map_or(&[][..], Vec::as_slice);
        let levels = self.checked_layer(node, weight, input, rows)?;
        Ok(Some(Int8Layer {
            input,
            rows,
            levels,
        }))
    }

    /// Checks all layers that may run in int8.
    ///
    /// # Errors
    /// As [`Network::set_int8`], where the network was changed since.
    pub fn check_int8(&self) -> Result<(), ModelError> {
        if self.int8.is_empty() {
            return Ok(());
        }
        let nodes: HashMap<&str, &Node> =
            (self.graph.nodes.iter().map(|n| (n.name.as_str(), n))).collect();
        // Many nodes may share a large weight, whose levels are those of all.
        let mut checked: HashSet<&str> = HashSet::new();
        for (name, &input) in &self.int8.inputs {
            let weight = weight_of(name, nodes.get(name.as_str()).copied(), input)?;
            if checked.insert(weight) {
                self.int8_layer(name, weight)?;
            } else if let Some(rows) = self.int8.rows.get(weight) {
                check_scales(name, input, rows)?;
            }
        }
        Ok(())
    }

    /// The levels of a layer.
    fn checked_layer(
        &self,
        name: &str,
        weight: &str,
        input: Int8Input,
        rows: &[f32],
    ) -> Result<Csr, ModelError> {
        check_scales(name, input, rows)?;
        let Some(Weights::Csr(csr)) = self.tensors.get(weight) else {
            return Err(wrong(name, "a weight in CSR", "another"));
        };
        if rows.len() != csr.rows() {
            let expected = format!("a scale for each of the {} rows of its weight", csr.rows());
            return Err(wrong(name, expected, rows.len().to_string()));
        }
        let mut levels = Vec::with_capacity(csr.nonzeros());
        for (row, &scale) in rows.iter().enumerate() {
            let of_row = quantised::grid(csr.row(row).1, scale);
            let of_row = of_row.map_err(|e| e.for_tensor(weight))?;
            if let Some(level) = of_row.iter().find(|q| q.abs() > MOST_LEVEL) {
                let expected =
                    format!("weights of at most {MOST_LEVEL} times the scale of row {row}");
                return Err(wrong(name, expected, level.to_string()));
            }
            let most: i64 = of_row.iter().map(|q| i64::from(q.abs()) * 255).sum();
            if most > i64::from(i32::MAX) {
                let expected = format!("sums of row {row} below 2^31");
                return Err(wrong(name, expected, most.to_string()));
            }
            levels.extend(of_row.iter().map(|&q| q as f32));
        }
        let (starts, columns) = (csr.crow_indices().to_vec(), csr.col_indices().to_vec());
        Csr::try_new(csr.shape().clone(), starts, columns, levels).map_err(|e| e.for_tensor(weight))
    }
}

/// Checks the scale of the input of a layer, and its products with those of rows.
fn check_scales(name: &str, input: Int8Input, rows: &[f32]) -> Result<(), ModelError> {
    let common = input.common_scale();
    if !quantised::is_scale(common) {
        return Err(ModelError::Step {
            tensor: name.into(),
            got: common,
        });
    }
    if let Some(scale) = rows.iter().find(|row| !(**row * common).is_finite()) {
        let got = format!("{scale} * {common}");
        return Err(wrong(name, "scales whose product is finite", got));
    }
    Ok(())
}

/// The name of the weight of a layer that may run in int8.
fn weight_of<'n>(
    name: &str,
    node: Option<&'n Node>,
    input: Int8Input,
) -> Result<&'n str, ModelError> {
    let expected = match input {
        Int8Input::Grid(_) => "a linear layer or a convolution of that name",
        Int8Input::PerVector => "a linear layer of that name, for a scale of each vector",
    };
    let node = node.ok_or_else(|| wrong(name, expected, "none"))?;
    match (&node.op, node.op.weight(), input) {
        (Op::Linear(_), Some(weight), _) => Ok(weight),
        (Op::Conv(_), Some(weight), Int8Input::Grid(_)) => Ok(weight),
        (other, ..) => Err(wrong(name, expected, other.name())),
    }
}

fn wrong(node: &str, expected: impl Into<String>, got: impl Into<String>) -> ModelError {
    ModelError::Int8 {
        node: node.into(),
        expected: expected.into(),
        got: got.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dense, GraphBuilder};

    #[test]
    fn a_range_has_all_bytes_and_an_exact_zero() {
        for (least, most) in [
            (0.0, 6.0),
            (-1.0, 3.0),
            (-2.5, -1.0),
            (0.25, 0.5),
            (-1e-9, 1e9),
        ] {
            let grid = Int8Grid::of_range(least, most).unwrap();
            assert_eq!(grid.byte(0.0), grid.zero_point);
            assert_eq!(grid.value(grid.zero_point), 0.0);
            for end in [least, most] {
                let back = grid.value(grid.byte(end));
                assert!((back - end).abs() <= 1.01 * grid.scale, "{end}: {back}");
            }
            assert!(most < 0.0 || grid.byte(most) >= 254);
            for v in [0.1 * least, 0.7 * most] {
                let back = grid.value(grid.byte(v));
                assert!((back - v).abs() <= 0.51 * grid.scale, "{v}: {back}");
            }
        }
        let none = Int8Grid::of_range(0.0, 0.0).unwrap();
        assert_eq!((none.byte(0.0), none.zero_point), (0, 0));
        assert!(Int8Grid::of_range(0.0, f32::INFINITY).is_none());
        assert!(Int8Grid::of_range(f32::NAN, 1.0).is_some_and(|g| g.zero_point == 0));
    }

    fn network() -> Network {
        let mut b = GraphBuilder::new("n");
        let x = b.input("x", [3]);
        let relu = b.op("r", Op::Relu, &[&x]);
        let out = b.linear("l", &relu, 2);
        b.output(&out);
        let weight = Dense::new([2, 3], vec![0.5, 0.0, -1.5, 0.0, 127.0, 3.0]);
        b.network(|name, shape| match name.ends_with("weight") {
            true => Weights::Csr(Csr::from_dense(&weight)),
            false => Dense::zeros(shape.clone()).into(),
        })
        .unwrap()
    }

    #[test]
    fn a_layer_has_the_levels_of_its_rows() {
        let mut network = network();
        let input = Int8Grid {
            scale: 0.25,
            zero_point: 9,
        };
        assert!(network.int8_layer("l", "l.weight").unwrap().is_none());
        network.set_int8("l", input, vec![0.5, 1.0]).unwrap();
        network.check_int8().unwrap();
        let layer = network.int8_layer("l", "l.weight").unwrap().unwrap();
        assert_eq!(layer.levels.values(), [1.0, -3.0, 127.0, 3.0]);
        assert_eq!((layer.input, layer.rows), (input.into(), &[0.5, 1.0][..]));
        // A weight that was changed since is found.
        let half = Dense::new([2, 3], vec![0.5, 0.0, -1.5, 0.0, 127.5, 3.0]);
        network
            .tensors
            .insert("l.weight".into(), Weights::Csr(Csr::from_dense(&half)));
        assert!(network.check_int8().is_err() && network.int8_layer("l", "l.weight").is_err());
    }

    #[test]
    fn vectors_have_scales_of_their_own_in_linear_layers_alone() {
        let mut network = network();
        let each = Int8Input::PerVector;
        network.set_int8("l", each, vec![0.5, 1.0]).unwrap();
        network.check_int8().unwrap();
        assert_eq!((each.zero_point(), each.grid()), (128, None));

        let mut b = GraphBuilder::new("c");
        let x = b.input("x", [1, 2, 2]);
        let conv = b.conv("c", &x, &crate::Conv2d::square(1, 1));
        b.output(&conv);
        let ones = |shape: &crate::Shape| Dense::new(shape.clone(), vec![1.0; shape.elements()]);
        let network = b.network(|_, shape| Weights::Csr(Csr::from_dense(&ones(shape))));
        let error = network.unwrap().set_int8("c", each, vec![1.0]).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("a scale of each vector") && error.contains("Conv"),
            "{error}"
        );
    }

    #[test]
    fn a_grid_is_an_object_in_files_and_scales_of_vectors_are_a_word() {
        let json = |input: Int8Input| serde_json::to_string(&input).unwrap();
        let grid = Int8Grid {
            scale: 0.25,
            zero_point: 9,
        };
        assert_eq!(json(grid.into()), r#"{"scale":0.25,"zero_point":9}"#);
        assert_eq!(json(Int8Input::PerVector), r#""per-vector""#);
        for input in [grid.into(), Int8Input::PerVector] {
            assert_eq!(
                serde_json::from_str::<Int8Input>(&json(input)).unwrap(),
                input
            );
        }
        for wrong in [r#""per-channel""#, r#"{"scale":0.25}"#, "null"] {
            assert!(serde_json::from_str::<Int8Input>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_run_in_bytes_is_named() {
        let good = Int8Grid {
            scale: 0.25,
            zero_point: 9,
        };
        let bad = Int8Grid { scale: 0.1, ..good };
        let cases: [(&str, Int8Grid, Vec<f32>, &str); 8] = [
            ("ghost", good, vec![0.5, 1.0], "`ghost`"),
            ("r", good, vec![0.5, 1.0], "Relu"),
            ("l", bad, vec![0.5, 1.0], "scale"),
            ("l", good, vec![0.5], "2 rows"),
            ("l", good, vec![0.5, 0.1], "scale"),
            ("l", good, vec![0.5, 0.5], "at most 127"),
            ("l", good, vec![1.0, 1.0], "0.5"),
            ("l", good, vec![f32::NAN, 1.0], "finite"),
        ];
        for (node, grid, rows, part) in cases {
            let mut network = network();
            let error = network.set_int8(node, grid, rows).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
            assert!(network.int8.is_empty() && network.int8.rows.is_empty());
        }
        let mut network = network();
        let dense = network.tensors["l.weight"].to_dense();
        network.tensors.insert("l.weight".into(), dense.into());
        let error = network.set_int8("l", good, vec![0.5, 1.0]).unwrap_err();
        assert!(error.to_string().contains("CSR"), "{error}");
    }
}
