//! The graph of an encoder, over the names that its tensors have in files.

use std::path::Path;

use sparsevd_model::{DType, GraphBuilder, Input, Op, Shape, ops};

use super::config::{Kind, Modules, Pooling, Settings};
use crate::FormatError;
use crate::safetensors::Container;

/// The table of words, behind whatever a model around the encoder puts before its names.
const WORDS: &str = "embeddings.word_embeddings.weight";

/// Names of the modules of an encoder.
pub(super) struct Names {
    /// What stands before all of them: `bert.` in a model that has more than the encoder.
    prefix: String,
    kind: Kind,
}

/// Names of the modules of a block behind that of the block.
struct BlockNames {
    query: &'static str,
    key: &'static str,
    value: &'static str,
    output: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    norm: &'static str,
}

const BERT: BlockNames = BlockNames {
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

const DISTILBERT: BlockNames = BlockNames {
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norm: "output_layer_norm",
};

impl Names {
    /// # Errors
    /// A file without a table of words, or with several.
    pub fn find(path: &Path, file: &Container<'_>, kind: Kind) -> Result<Self, FormatError> {
        let prefixes: Vec<&str> = (file.shapes())
            .filter_map(|(name, _)| name.strip_suffix(WORDS))
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
            .collect();
        match prefixes.as_slice() {
            [prefix] => Ok(Self {
                prefix: (*prefix).to_owned(),
                kind,
            }),
            others => {
                let got = format!("{} of such a name", others.len());
                Err(FormatError::tensor(
                    path,
                    WORDS,
                    "table of words",
                    "one",
                    got,
                ))
            }
        }
    }

    fn words(&self) -> String {
        format!("{}{WORDS}", self.prefix)
    }

    /// The table of positions.
    pub fn positions(&self) -> String {
        format!("{}embeddings.position_embeddings.weight", self.prefix)
    }

    /// The table of token types, where the kind has one.
    pub fn token_types(&self) -> Option<String> {
        let name = || format!("{}embeddings.token_type_embeddings.weight", self.prefix);
        (self.kind != Kind::DistilBert).then(name)
    }

    fn norm(&self) -> String {
        format!("{}embeddings.LayerNorm", self.prefix)
    }

    /// The name of block `i`, and of its modules.
    fn block(&self, i: usize) -> (String, &'static BlockNames) {
        match self.kind {
            Kind::DistilBert => (format!("{}transformer.layer.{i}", self.prefix), &DISTILBERT),
            _ => (format!("{}encoder.layer.{i}", self.prefix), &BERT),
        }
    }
}

/// Adds inputs and blocks; returns the value with the vectors of the tokens, `[length, width]`.
pub(super) fn tokens(b: &mut GraphBuilder, names: &Names, settings: &Settings) -> String {
    let &Settings {
        words,
        positions,
        width,
        ..
    } = settings;
    let mut input = |name| b.free_input(Input::with_free(name, [0], 0, "length").of(DType::I64));
    let (ids, places) = (input("input_ids"), input("position_ids"));
    let mut rows = |name: String, rows: usize, ids: &str| {
        let node = name.trim_end_matches(".weight").to_owned();
        let table = b.tensor(name, [rows, width]);
        b.op(node, Op::Embedding(ops::Embedding { table }), &[ids])
    };
    let words = rows(names.words(), words, &ids);
    let places = rows(names.positions(), positions, &places);
    let sum = format!("{}embeddings", names.prefix);
    let sum = b.op(sum, Op::Add, &[&words, &places]);
    let mut x = layer_norm(b, names.norm(), &sum, settings);
    for i in 0..settings.layers {
        x = block(b, names.block(i), &x, settings);
    }
    x
}

/// Attention and two linear layers, each with a sum with its input and a layer normalisation behind it.
fn block(
    b: &mut GraphBuilder,
    (block, names): (String, &BlockNames),
    x: &str,
    settings: &Settings,
) -> String {
    let of = |name: &str| format!("{block}.{name}");
    let width = settings.width;
    let [q, k, v] = [names.query, names.key, names.value].map(|name| b.linear(of(name), x, width));
    let heads = settings.heads;
    let attention = Op::Attention(ops::Attention { heads });
    // A name that no module of the file has.
    let attended = b.op(of("attention"), attention, &[&q, &k, &v]);
    let attended = b.linear(of(names.output), &attended, width);
    let sum = b.op(of("attention.sum"), Op::Add, &[&attended, x]);
    let x = layer_norm(b, of(names.attention_norm), &sum, settings);
    let up = b.linear(of(names.up), &x, settings.inner);
    let up = b.op(of("activation"), settings.activation.clone(), &[&up]);
    let down = b.linear(of(names.down), &up, width);
    let sum = b.op(of("sum"), Op::Add, &[&down, &x]);
    layer_norm(b, of(names.norm), &sum, settings)
}

fn layer_norm(b: &mut GraphBuilder, name: String, x: &str, settings: &Settings) -> String {
    let shape = Shape::from([settings.width]);
    let scale = b.tensor(format!("{name}.weight"), shape.clone());
    let bias = Some(b.tensor(format!("{name}.bias"), shape));
    let op = Op::LayerNormalization(ops::LayerNormalization {
        scale,
        bias,
        dimensions: 1,
        epsilon: settings.epsilon,
    });
    b.op(name, op, &[x])
}

/// Adds what makes one vector of those of the tokens; returns the output.
pub(super) fn pooled(b: &mut GraphBuilder, tokens: &str, modules: Option<&Modules>) -> String {
    let Some(modules) = modules else {
        return tokens.to_owned();
    };
    let one = match modules.pooling {
        Pooling::Mean => {
            let mean = Op::ReduceMean(ops::ReduceMean::default());
            b.op("mean", mean, &[tokens])
        }
        Pooling::Cls => {
            let first = Op::Slice(ops::Slice {
                axis: 0,
                start: 0,
                end: 1,
            });
            let first = b.op("first", first, &[tokens]);
            b.op("cls", Op::Flatten, &[&first])
        }
    };
    match modules.normalizes {
        true => b.op("embedding", Op::L2Normalize, &[&one]),
        false => one,
    }
}
