//! Encoders of texts from folders as Hugging Face's libraries write them: `config.json`, `model.safetensors`, and what sentence-transformers adds.
//!
//! The networks are those of BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019), XLM-RoBERTa (Conneau et al. 2020) and DistilBERT (Sanh et al. 2019).

mod config;
mod graph;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sparsevd_model::{Dense, GraphBuilder, Network, Shape, Weights};

use self::config::{Config, Modules};
use self::graph::Names;
use crate::safetensors::{Container, GraphSource, ShardList, metadata_keys, read_container};
use crate::{FormatError, LoadedNetwork};

/// An encoder of texts: its network, and what a program must know to run it on texts.
///
/// The network has the inputs `input_ids` and `position_ids`, both i64 `[length]` of a free length. Positions count from 0. Its output is
/// `[width]`, the embedding of the text, where the folder says how it is pooled, else `[length, width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoder {
    /// The network, and what to tell the user about it.
    pub loaded: LoadedNetwork,
    /// Most tokens of a text: `max_seq_length` of sentence-transformers, or as many as there are positions.
    pub longest: usize,
    /// Whether the folder has a `modules.json`, which says how the vectors of the tokens become one.
    pub is_pooled: bool,
}

/// Whether a folder holds an encoder, or a model of another kind that [`read_encoder`] refuses by name: one with a `config.json` that has a
/// `model_type`, and without a graph as `network.json`.
pub(crate) fn is_encoder(folder: &Path) -> bool {
    let has_type = || Config::read(folder).is_ok();
    !folder.join("network.json").exists() && has_type()
}

/// Reads an encoder of the kinds `bert`, `roberta`, `xlm-roberta` and `distilbert` from its folder.
///
/// Tensors keep the names that the file gives them. The row of token type 0 is added to the table of positions, and of RoBERTa's the rows before
/// the first position are left out; what the encoder does not use, such as BERT's pooler, is dropped. A file that has a graph of its own, as
/// [`crate::write_network`] writes it, is read by that: so an encoder that was made sparse takes the place of the dense one in its folder.
///
/// # Errors
/// A folder without these files; another kind of model; a field of `config.json` that is missing, or has a value that no operator computes; a tensor
/// that is missing or of another shape than `config.json` says; a pooling other than the mean of all tokens or the first of them.
pub fn read_encoder(folder: impl AsRef<Path>) -> Result<Encoder, FormatError> {
    let folder = folder.as_ref();
    let config = Config::read(folder)?;
    let settings = config.settings()?;
    let modules = Modules::read(folder, settings.width)?;
    let shards = ShardList::of_folder(folder)?.read()?;
    let (path, file) = (shards.path.as_path(), shards.join()?);
    let longest = modules.as_ref().and_then(|modules| modules.longest);
    let longest = longest.map_or(settings.positions, |n| n.min(settings.positions));
    if file.metadata.contains_key(metadata_keys::NETWORK) {
        return Ok(Encoder {
            loaded: read_container(path, &file, &GraphSource::Auto)?,
            longest,
            is_pooled: modules.is_some(),
        });
    }
    let names = Names::find(path, &file, settings.kind)?;
    // Before any node is made for them.
    let most = file.shapes().count();
    if settings.layers > most {
        let expected = format!("at most {most}, the number of tensors of the file");
        return Err(config.wrong(settings.kind.layers_field(), expected, settings.layers));
    }

    let mut builder = GraphBuilder::new(settings.kind.name());
    let tokens = graph::tokens(&mut builder, &names, &settings);
    let output = graph::pooled(&mut builder, &tokens, modules.as_ref());
    builder.output(&output);
    let (graph, shapes) = builder
        .finish_with_tensors()
        .map_err(|e| FormatError::model(path, e))?;
    let mut tensors = BTreeMap::new();
    for (name, shape) in shapes {
        let values = match name == names.positions() {
            true => positions(path, &file, &names, &settings)?,
            false => floats(path, &file, &name, &shape)?,
        };
        tensors.insert(name, Weights::Dense(Dense { shape, values }));
    }
    let mut used: BTreeSet<&str> = tensors.keys().map(String::as_str).collect();
    let token_types = names.token_types();
    used.extend(token_types.as_deref());
    let dropped: Vec<&str> = (file.shapes())
        .map(|(name, _)| name)
        .filter(|name| !used.contains(name))
        .collect();
    let mut notes = Vec::new();
    if !dropped.is_empty() {
        notes.push(format!(
            "the encoder does not use these tensors, they were dropped: {}",
            dropped.join(", ")
        ));
    }
    let metadata = (file.metadata.iter())
        .filter(|(key, _)| !metadata_keys::ALL.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let network = Network::new(graph, tensors).map_err(|e| FormatError::model(path, e))?;
    Ok(Encoder {
        loaded: LoadedNetwork {
            network,
            notes,
            warnings: vec![],
            metadata,
        },
        longest,
        is_pooled: modules.is_some(),
    })
}

/// The numbers of a tensor, which must have the shape that `config.json` says.
fn floats(
    path: &Path,
    file: &Container<'_>,
    name: &str,
    shape: &Shape,
) -> Result<Vec<f32>, FormatError> {
    let wrong = |what: &str, got: String| {
        let expected = format!("{shape}, as config.json says");
        FormatError::tensor(path, name, what, expected, got)
    };
    if !file.contains(name) {
        return Err(wrong("tensor", "no tensor of that name".into()));
    }
    let got = file.shape(name)?;
    if got != *shape {
        return Err(wrong("shape", got.to_string()));
    }
    file.floats(name)
}

/// The table of positions from the first one of a text on, with the row of token type 0 added: every token of a single text has it.
fn positions(
    path: &Path,
    file: &Container<'_>,
    names: &Names,
    settings: &config::Settings,
) -> Result<Vec<f32>, FormatError> {
    let width = settings.width;
    let rows = settings.first_position + settings.positions;
    let mut table = floats(path, file, &names.positions(), &Shape::from([rows, width]))?;
    table.drain(..settings.first_position * width);
    if let Some(name) = names.token_types() {
        let shape = Shape::from([settings.token_types, width]);
        let types = floats(path, file, &name, &shape)?;
        for row in table.chunks_exact_mut(width) {
            for (position, token_type) in row.iter_mut().zip(&types) {
                *position += token_type;
            }
        }
    }
    Ok(table)
}
