//! How the tensors of a network are stored in a file: the names and forms that training libraries give them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::tensor::Dtype;
use sparsevd_model::{Dense, Shape};

use super::bitmask::BitmaskNames;
use super::{Container, Layout};
use crate::FormatError;

/// What a tensor is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    /// One dense tensor of this name in the file.
    Dense(String),
    /// The parts of a sparse weight; the name is that of the weight.
    Sparse(String, Layout),
    /// Integers of 8 bits and what each row of them is multiplied by; the name is that of the tensor.
    Levels(String),
    /// The same of 4 bits, two to a byte.
    Int4(String),
    /// The parts of a `sparse-bitmask`.
    Bitmask(BitmaskNames),
    /// A tensor and the mask it is multiplied by (`torch.nn.utils.prune`).
    Masked { original: String, mask: String },
    /// Lengths `g` and directions `v` (`torch.nn.utils.weight_norm`).
    WeightNorm { g: String, v: String },
}

/// A tensor with its dense shape, as a graph may name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    pub name: String,
    pub shape: Shape,
    pub stored: Stored,
}

/// Names and shapes.
pub(super) fn shapes(tensors: &[Tensor]) -> Vec<(String, Shape)> {
    let pair = |t: &Tensor| (t.name.clone(), t.shape.clone());
    tensors.iter().map(pair).collect()
}

/// The tensors of a state dict under the names and in the form that a plain module has.
pub(super) struct Plain {
    pub tensors: Vec<Tensor>,
    /// What was done, in sentences for the user.
    pub notes: Vec<String>,
}

impl Plain {
    /// Leaves out counters and empty tensors, names tied tensors, strips the prefixes of wrappers, and joins weights with their
    /// masks and norms.
    ///
    /// # Errors
    /// A mask or a norm that does not have the shape of its tensor.
    pub fn of(path: &Path, file: &Container<'_>, stored: &[Tensor]) -> Result<Self, FormatError> {
        let mut notes = Vec::new();
        let (mut tensors, mut ignored) = (Vec::new(), Vec::new());
        for tensor in stored {
            if is_no_weight(file, tensor) {
                ignored.push(tensor.name.as_str());
            } else {
                tensors.push(tensor.clone());
            }
        }
        if !ignored.is_empty() {
            notes.push(format!(
                "these tensors are counters or empty, and were ignored: {}",
                ignored.join(", ")
            ));
        }
        add_tied(file, &mut tensors, &mut notes);
        strip_prefixes(&mut tensors, &mut notes);
        let mut plain = Self { tensors, notes };
        plain.join_masks(path)?;
        plain.join_norms(path)?;
        plain.tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(plain)
    }

    /// Makes one tensor of `X_orig` and `X_mask`.
    fn join_masks(&mut self, path: &Path) -> Result<(), FormatError> {
        let pairs = self.pairs(|name| {
            let base = name.strip_suffix("_orig")?;
            Some((base.to_owned(), format!("{base}_mask")))
        });
        self.join(
            pairs,
            "multiplied by its mask (torch.nn.utils.prune)",
            |original, mask| {
                if original.shape != mask.shape {
                    let expected = format!("{}, that of `{}`", original.shape, original.name);
                    let got = mask.shape.to_string();
                    return Err(FormatError::tensor(
                        path, &mask.name, "shape", expected, got,
                    ));
                }
                Ok(Stored::Masked {
                    original: original.file_name().to_owned(),
                    mask: mask.file_name().to_owned(),
                })
            },
        )
    }

    /// Makes one tensor of `X_v` and `X_g`, or of what `torch.nn.utils.parametrizations.weight_norm` calls them.
    fn join_norms(&mut self, path: &Path) -> Result<(), FormatError> {
        let pairs = self.pairs(|name| {
            if let Some(base) = name.strip_suffix("_v") {
                return Some((base.to_owned(), format!("{base}_g")));
            }
            let of = name.strip_suffix(".original1")?;
            let (module, weight) = of.rsplit_once('.')?;
            let module = module.strip_suffix("parametrizations")?;
            Some((format!("{module}{weight}"), format!("{of}.original0")))
        });
        self.join(
            pairs,
            "made of its directions and lengths (weight_norm)",
            |v, g| {
                if norm_axis(&v.shape, &g.shape).is_none() {
                    let expected = format!("one length for each row of `{}` {}", v.name, v.shape);
                    let got = g.shape.to_string();
                    return Err(FormatError::tensor(path, &g.name, "shape", expected, got));
                }
                Ok(Stored::WeightNorm {
                    g: g.file_name().to_owned(),
                    v: v.file_name().to_owned(),
                })
            },
        )
    }

    /// Places of dense tensors that belong together, with the name of what they make, by the name of the first.
    fn pairs(
        &self,
        names: impl Fn(&str) -> Option<(String, String)>,
    ) -> Vec<(String, usize, usize)> {
        let place: BTreeMap<&str, usize> = (self.tensors.iter().enumerate())
            .map(|(i, t)| (t.name.as_str(), i))
            .collect();
        let is_dense = |i: usize| matches!(self.tensors[i].stored, Stored::Dense(_));
        (self.tensors.iter().enumerate())
            .filter_map(|(first, tensor)| {
                let (name, other) = names(&tensor.name)?;
                let &second = place.get(other.as_str())?;
                let is_free = !place.contains_key(name.as_str());
                (is_free && is_dense(first) && is_dense(second)).then_some((name, first, second))
            })
            .collect()
    }

    /// Puts what `stored` makes of each pair in place of it.
    fn join(
        &mut self,
        pairs: Vec<(String, usize, usize)>,
        what: &str,
        stored: impl Fn(&Tensor, &Tensor) -> Result<Stored, FormatError>,
    ) -> Result<(), FormatError> {
        let mut gone = BTreeSet::new();
        let mut joined = Vec::new();
        for (name, first, second) in pairs {
            let (a, b) = (&self.tensors[first], &self.tensors[second]);
            joined.push(Tensor {
                name,
                shape: a.shape.clone(),
                stored: stored(a, b)?,
            });
            gone.extend([first, second]);
        }
        if joined.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = joined.iter().map(|t| t.name.as_str()).collect();
        self.notes.push(format!(
            "each of these tensors was {what}: {}",
            names.join(", ")
        ));
        let mut at = 0;
        self.tensors.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
        self.tensors.extend(joined);
        Ok(())
    }
}

impl Tensor {
    /// The name in the file of a dense tensor.
    fn file_name(&self) -> &str {
        match &self.stored {
            Stored::Dense(name) => name,
            _ => &self.name,
        }
    }
}

/// Whether a tensor is a counter, such as the `step` of an optimiser or the `num_batches_tracked` of a normalisation, or empty.
fn is_no_weight(file: &Container<'_>, tensor: &Tensor) -> bool {
    let Stored::Dense(name) = &tensor.stored else {
        return false;
    };
    let is_integer = file.dtype(name).is_ok_and(|d| {
        use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
        matches!(d, BOOL | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64)
    });
    let elements = tensor.shape.elements();
    elements == 0 || (elements == 1 && is_integer)
}

/// Adds tensors that are stored under the name of another: `safetensors.torch.save_model` has them in the metadata.
fn add_tied(file: &Container<'_>, tensors: &mut Vec<Tensor>, notes: &mut Vec<String>) {
    let by_name: BTreeMap<&str, &Tensor> = tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut tied = Vec::new();
    let mut added = Vec::new();
    for (name, of) in &file.metadata {
        if let (None, Some(&stored)) = (by_name.get(name.as_str()), by_name.get(of.as_str())) {
            tied.push(format!("{name} to {of}"));
            added.push(Tensor {
                name: name.clone(),
                ..stored.clone()
            });
        }
    }
    tensors.extend(added);
    if !tied.is_empty() {
        notes.push(format!(
            "by the metadata, these tensors are tied to others: {}",
            tied.join(", ")
        ));
    }
}

/// Removes what wrappers put into names: `module.` (DataParallel) where all have it, and `_orig_mod.` (torch.compile).
fn strip_prefixes(tensors: &mut [Tensor], notes: &mut Vec<String>) {
    const COMPILED: &str = "_orig_mod";
    const PARALLEL: &str = "module.";
    let mut names: Vec<String> = tensors.iter().map(|t| t.name.clone()).collect();
    let mut stripped = BTreeSet::new();
    loop {
        if names
            .iter()
            .any(|n| n.split('.').any(|part| part == COMPILED))
        {
            for name in &mut names {
                let parts: Vec<&str> = name.split('.').filter(|p| *p != COMPILED).collect();
                *name = parts.join(".");
            }
            stripped.insert("_orig_mod.");
        }
        if names.is_empty() || !names.iter().all(|n| n.starts_with(PARALLEL)) {
            break;
        }
        for name in &mut names {
            name.drain(..PARALLEL.len());
        }
        stripped.insert(PARALLEL);
    }
    let distinct: BTreeSet<&String> = names.iter().collect();
    if stripped.is_empty() || distinct.len() < names.len() || distinct.iter().any(|n| n.is_empty())
    {
        return;
    }
    for (tensor, name) in tensors.iter_mut().zip(names) {
        tensor.name = name;
    }
    let prefixes: Vec<&str> = stripped.into_iter().collect();
    notes.push(format!(
        "`{}` was stripped from the names of the tensors",
        prefixes.join("` and `")
    ));
}

/// The dimension along which each slice of `v` has its own length in `g`, or the number of dimensions where all of `v` has one.
fn norm_axis(v: &Shape, g: &Shape) -> Option<usize> {
    if g.elements() == 1 {
        return Some(v.dims().len());
    }
    let axis = g.dims().iter().position(|d| *d != 1)?;
    let fits = g.dims().len() == v.dims().len()
        && g.elements() == g.dims()[axis]
        && g.dims()[axis] == v.dims()[axis];
    fits.then_some(axis)
}

/// A tensor times its mask.
pub(super) fn masked(
    file: &Container<'_>,
    shape: &Shape,
    original: &str,
    mask: &str,
) -> Result<Dense, FormatError> {
    let mut values = file.floats(original)?;
    let mask = match file.dtype(mask)? {
        Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 => file.floats(mask)?,
        _ => (file.integers(mask)?.into_iter())
            .map(|v| v as f32)
            .collect(),
    };
    for (value, mask) in values.iter_mut().zip(mask) {
        // A zero, whatever sign the value has.
        *value = if mask == 0.0 { 0.0 } else { *value * mask };
    }
    Ok(Dense {
        shape: shape.clone(),
        values,
    })
}

/// `g v / |v|`, with one length for each slice along an axis.
pub(super) fn weight_norm(
    path: &Path,
    file: &Container<'_>,
    shape: &Shape,
    g: &str,
    v: &str,
) -> Result<Dense, FormatError> {
    let lengths = file.floats(g)?;
    let mut values = file.floats(v)?;
    let axis = norm_axis(shape, &file.shape(g)?).unwrap_or(shape.dims().len());
    // Elements between two neighbours along the axis.
    let inner: usize = shape.dims().iter().skip(axis + 1).product();
    let slice = |i: usize| i / inner.max(1) % lengths.len().max(1);
    let mut squares = vec![0.0_f64; lengths.len()];
    for (i, value) in values.iter().enumerate() {
        squares[slice(i)] += f64::from(*value).powi(2);
    }
    if let Some(at) = squares.iter().position(|s| *s == 0.0) {
        return Err(FormatError::tensor(
            path,
            v,
            format!("slice {at}"),
            "a direction that is not zero",
            "only zeros",
        ));
    }
    for (i, value) in values.iter_mut().enumerate() {
        let at = slice(i);
        *value = (f64::from(*value) * f64::from(lengths[at]) / squares[at].sqrt()) as f32;
    }
    Ok(Dense {
        shape: shape.clone(),
        values,
    })
}
