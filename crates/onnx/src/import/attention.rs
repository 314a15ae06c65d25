//! Attention: the network's own operator where that computes it, or products, masks and a softmax.

use sparsevd_model::{Op, Shape, ops};

use super::activations::clip;
use super::importer::{Importer, Value};
use super::view::View;
use crate::attributes::OnnxNode;
use crate::node_error::NodeError;
use crate::tensor::{Data, Tensor};

/// Half of what hides a key from a query: a network has finite numbers alone, and twice this is minus infinity.
const HIDDEN: f32 = f32::MIN;

/// What the attributes of a node say.
struct Settings {
    heads: Option<[usize; 2]>,
    scale: Option<f32>,
    softcap: f32,
    is_causal: bool,
    /// How far keys may lie before and behind a query.
    window: [Option<usize>; 2],
    /// Which scores the fourth output has.
    mode: i64,
}

impl Settings {
    fn of(node: OnnxNode<'_>) -> Result<Self, NodeError> {
        let count = |name: &str| -> Result<Option<usize>, NodeError> {
            let Some(given) = node.int(name)? else {
                return Ok(None);
            };
            match usize::try_from(given) {
                Ok(n) if n > 0 => Ok(Some(n)),
                _ => Err(node
                    .invalid(format!("a positive {name}"), given.to_string())
                    .into()),
            }
        };
        let width = |name: &str| -> Result<Option<usize>, NodeError> {
            match node.int(name)?.unwrap_or(-1) {
                -1 => Ok(None),
                given => match usize::try_from(given) {
                    Ok(n) => Ok(Some(n)),
                    Err(_) => Err(node
                        .invalid(format!("a {name} of -1 or more"), given.to_string())
                        .into()),
                },
            }
        };
        let mode = node.int("qk_matmul_output_mode")?.unwrap_or(0);
        if !(0..=3).contains(&mode) {
            let expected = "a qk_matmul_output_mode from 0 to 3";
            return Err(node.invalid(expected, mode.to_string()).into());
        }
        let heads = match (count("q_num_heads")?, count("kv_num_heads")?) {
            (Some(q), Some(kv)) => Some([q, kv]),
            (None, None) => None,
            _ => return Err(node.invalid("both numbers of heads", "one").into()),
        };
        Ok(Self {
            heads,
            scale: node.float("scale")?,
            softcap: node.float("softcap")?.unwrap_or(0.0),
            is_causal: node.int("is_causal")?.unwrap_or(0) != 0,
            window: [width("left_window_size")?, width("right_window_size")?],
            mode,
        })
    }

    fn has_mask(&self) -> bool {
        self.is_causal || self.window != [None, None]
    }

    /// Whether query `i` behind `past` keys attends to key `j`.
    fn attends(&self, i: usize, j: usize, past: usize) -> bool {
        let i = i + past;
        let [left, right] = self.window;
        (!self.is_causal || j <= i)
            && left.is_none_or(|left| j + left >= i)
            && right.is_none_or(|right| j <= i.saturating_add(right))
    }
}

impl<'m> Importer<'m> {
    pub(super) fn attention(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        let settings = Settings::of(node)?;
        let input = |i: usize| inputs.get(i).and_then(Option::as_ref);
        let computed = |i: usize, what: &str| match input(i) {
            Some(Value::Activation(view)) => Ok(Some(view.clone())),
            None => Ok(None),
            _ => Err(NodeError::unsupported(format!("constant {what}"))),
        };
        let needed = |i: usize, what: &str| -> Result<View, NodeError> {
            Ok(computed(i, what)?.ok_or_else(|| node.invalid(what, "none"))?)
        };
        let [q, k, v] = [
            needed(0, "queries")?,
            needed(1, "keys")?,
            needed(2, "values")?,
        ];
        let past = match (computed(4, "past keys")?, computed(5, "past values")?) {
            (Some(keys), Some(values)) => Some([keys, values]),
            (None, None) => None,
            _ => {
                return Err(node
                    .invalid("past keys and values", "one of the two")
                    .into());
            }
        };
        if input(6).is_some() {
            return Err(NodeError::unsupported("numbers of keys as an input"));
        }
        let is_plain = input(3).is_none()
            && past.is_none()
            && !settings.has_mask()
            && settings.scale.is_none()
            && settings.softcap == 0.0
            && !self.reads_others(node);
        if is_plain
            && let Some([heads, same]) = settings.heads
            && heads == same
            && self.batch_axes == 1
            && q.dims.len() == 2
            && q.dims == k.dims
            && q.dims == v.dims
        {
            let dims = q.dims.clone();
            let q = self.in_shape(&q, &dims)?;
            let k = self.in_shape(&k, &dims)?;
            let v = self.in_shape(&v, &dims)?;
            let op = Op::Attention(ops::Attention { heads });
            return self.push(node, op, &[&q, &k, &v]);
        }
        self.attention_of(node, &settings, [q, k, v], past, input(3))
    }

    /// Attention by operators of the network.
    fn attention_of(
        &mut self,
        node: OnnxNode<'m>,
        settings: &Settings,
        qkv: [View; 3],
        past: Option<[View; 2]>,
        mask: Option<&Value>,
    ) -> Result<View, NodeError> {
        // Dimensions of a value before the heads.
        let before = 1 - self.batch_axes;
        let in_heads = qkv[0].dims.len() == before + 3;
        let heads = match (in_heads, settings.heads) {
            (true, _) => None,
            (false, Some(heads)) => Some(heads),
            (false, None) => return Err(node.invalid("numbers of heads", "none").into()),
        };
        let [q, k, v] = qkv;
        let q = self.heads_of(node, &q, heads.map(|h| h[0]), before)?;
        let mut k = self.heads_of(node, &k, heads.map(|h| h[1]), before)?;
        let mut v = self.heads_of(node, &v, heads.map(|h| h[1]), before)?;
        let mut before_queries = 0;
        if let Some([keys, values]) = past {
            before_queries = keys.dims.get(before + 1).copied().unwrap_or(0);
            k = self.appended(node, &keys, &k, before + 1)?;
            v = self.appended(node, &values, &v, before + 1)?;
        }
        let present = [k.clone(), v.clone()];
        let count = q.dims[before];
        k = self.repeated(node, &k, count, before)?;
        v = self.repeated(node, &v, count, before)?;
        let last = q.dims.len() - 1;
        let width = q.dims[last].max(1);
        let (queries, keys) = (q.dims[last - 1], k.dims[last - 1]);

        let turned = self.with_last_swapped(node, &k)?;
        let scores = self.product(node, &q, &turned)?;
        let scale = settings.scale.unwrap_or(1.0 / (width as f32).sqrt());
        let raw = self.affine(node, &scores, vec![scale], vec![0.0])?;
        let capped = match settings.softcap {
            0.0 => raw.clone(),
            cap => {
                let shares = self.affine(node, &raw, vec![1.0 / cap], vec![0.0])?;
                let bounded = self.map(node, &shares, Op::Tanh)?;
                self.affine(node, &bounded, vec![cap], vec![0.0])?
            }
        };
        let mut masked = capped.clone();
        if let Some(mask) = mask {
            masked = self.with_mask(node, &capped, mask)?;
        }
        let mut may_be_empty = mask.is_some();
        if settings.has_mask() {
            self.decoder.take(&node.label(), &[queries, keys])?;
            let attends = |i: usize, j: usize| settings.attends(i, j, before_queries);
            let weight = |i: usize| match attends(i / keys, i % keys) {
                true => 0.0,
                false => HIDDEN,
            };
            may_be_empty |= (0..queries).any(|i| !(0..keys).any(|j| attends(i, j)));
            let mask = Tensor {
                dims: vec![queries, keys],
                data: Data::Float((0..queries * keys).map(weight).collect()),
            };
            masked = self.hiding(node, &masked, &mask)?;
        }
        let weights = match may_be_empty {
            true => self.weights_of_any(node, &masked, last)?,
            false => self.softmax_along(node, &masked, last)?,
        };
        let scores = [raw, capped, masked, weights.clone()];
        let shown = usize::try_from(settings.mode).unwrap_or(0);
        let made = self.product(node, &weights, &v)?;
        let made = match heads {
            None => made,
            Some(_) => {
                // Heads behind the queries again, and together with their columns.
                let mut perm: Vec<usize> = (0..=last).collect();
                perm.swap(before, before + 1);
                let made = made.transposed(&node.label(), &perm, self.decoder)?;
                let mut dims = made.dims.clone();
                let columns = dims.pop().unwrap_or(1);
                dims[last - 1] *= columns;
                made.reshaped(dims)
            }
        };
        let [present_keys, present_values] = present;
        self.others = vec![
            Some(present_keys),
            Some(present_values),
            Some(scores[shown].clone()),
        ];
        Ok(made)
    }

    /// `[.., n, d]` as `[.., heads, n, d / heads]`, where the file does not have it so.
    fn heads_of(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        heads: Option<usize>,
        before: usize,
    ) -> Result<View, NodeError> {
        let Some(heads) = heads else {
            if x.dims.len() != before + 3 {
                return Err(not_vectors(node, x));
            }
            return self.in_shape(x, &x.dims.clone());
        };
        let Some((&d, outer)) = x.dims.split_last().filter(|(_, o)| o.len() == before + 1) else {
            return Err(not_vectors(node, x));
        };
        if d % heads != 0 {
            let expected = format!("a number of heads that divides {d}");
            return Err(node.invalid(expected, heads.to_string()).into());
        }
        let split = x.reshaped([outer, &[heads, d / heads]].concat());
        let mut perm: Vec<usize> = (0..split.dims.len()).collect();
        perm.swap(before, before + 1);
        let turned = split.transposed(&node.label(), &perm, self.decoder)?;
        self.in_shape(&turned, &turned.dims.clone())
    }

    /// Two values one behind the other along an axis of a sample.
    fn appended(
        &mut self,
        node: OnnxNode<'m>,
        first: &View,
        second: &View,
        axis: usize,
    ) -> Result<View, NodeError> {
        let first = self.in_shape(first, &first.dims.clone())?;
        let second = self.in_shape(second, &second.dims.clone())?;
        let op = Op::Concat(ops::Concat { axis });
        self.push(node, op, &[&first, &second])
    }

    /// Each head of keys or values as often as queries share it.
    fn repeated(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        heads: usize,
        before: usize,
    ) -> Result<View, NodeError> {
        let own = x.dims[before];
        if own == heads {
            return Ok(x.clone());
        }
        let Some(times) = heads.checked_div(own).filter(|n| n * own == heads) else {
            let expected = format!("{own} heads of keys to divide {heads} of queries");
            return Err(node.invalid(expected, "others").into());
        };
        let mut dims = x.dims.clone();
        dims.insert(before + 1, 1);
        let single = x.reshaped(dims.clone());
        dims[before + 1] = times;
        let copied = self.broadcast_to(&single, &dims)?;
        dims.remove(before + 1);
        dims[before] = heads;
        self.in_shape(&copied.reshaped(dims.clone()), &dims)
    }

    fn with_mask(
        &mut self,
        node: OnnxNode<'m>,
        scores: &View,
        mask: &Value,
    ) -> Result<View, NodeError> {
        let keys = scores.dims.last();
        let is_whole = |dims: &[usize]| dims.last() == keys;
        let short = || NodeError::unsupported("a mask of fewer keys than there are");
        match mask {
            Value::Activation(mask) if is_whole(&mask.dims) => {
                self.between(node, Op::Add, scores, mask)
            }
            Value::Constant(mask) if is_whole(&mask.dims) => {
                let mut mask = (**mask).clone();
                let mut hidden = mask.clone();
                let mut hides = false;
                if let (Data::Float(values), Data::Float(hidden)) =
                    (&mut mask.data, &mut hidden.data)
                {
                    for (v, hidden) in values.iter_mut().zip(hidden) {
                        let infinite = *v == f32::NEG_INFINITY;
                        hides |= infinite;
                        *hidden = if infinite { HIDDEN } else { 0.0 };
                        *v = if infinite { 0.0 } else { *v };
                    }
                }
                let masked = self.with(node, "Add", scores, &mask, false)?;
                match hides {
                    true => self.hiding(node, &masked, &hidden),
                    false => Ok(masked),
                }
            }
            Value::Activation(_) | Value::Constant(_) => Err(short()),
            _ => Err(NodeError::unsupported("a mask of another type")),
        }
    }

    /// Scores of minus infinity where a mask has [`HIDDEN`], and as they are where it has 0.
    fn hiding(
        &mut self,
        node: OnnxNode<'m>,
        scores: &View,
        mask: &Tensor,
    ) -> Result<View, NodeError> {
        let half = self.with(node, "Add", scores, mask, false)?;
        self.with(node, "Add", &half, mask, false)
    }

    /// The softmax along an axis, and zeros where all scores are minus infinity: a query without a key attends to nothing.
    fn weights_of_any(
        &mut self,
        node: OnnxNode<'m>,
        scores: &View,
        axis: usize,
    ) -> Result<View, NodeError> {
        let rows = scores.dims[..axis].iter().product::<usize>();
        let keys = scores.elements() / rows.max(1);
        let window = sparsevd_model::Window {
            kernel_shape: [keys, 1],
            ..sparsevd_model::Window::square(1, 1)
        };
        let max = Op::MaxPool(ops::MaxPool { window });
        let largest = self.pooled(node, scores, axis, max)?;
        let largest = self.map(node, &largest, clip(Some(f32::MIN), None))?;
        let differences = self.between(node, Op::Sub, scores, &largest)?;
        let exponentials = self.map(node, &differences, Op::Exp)?;
        let mean = self.pooled(node, &exponentials, axis, Op::GlobalAveragePool)?;
        let total = self.affine(node, &mean, vec![keys as f32], vec![0.0])?;
        // Of a query with a key the sum is at least 1.
        let total = self.map(node, &total, clip(Some(f32::MIN_POSITIVE), None))?;
        self.between(node, Op::Div, &exponentials, &total)
    }
}

fn not_vectors(node: OnnxNode<'_>, x: &View) -> NodeError {
    let got = Shape(x.dims.clone()).to_string();
    node.invalid("queries, keys and values of as many dimensions", got)
        .into()
}
