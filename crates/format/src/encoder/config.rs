//! What the JSON files of an encoder's folder say.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use sparsevd_model::limits::MAX_ELEMENTS;
use sparsevd_model::{Approximate, Op, ops};

use crate::{FormatError, MAX_JSON, read_file};

/// A kind of encoder: `model_type` in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bert,
    /// RoBERTa and XLM-RoBERTa, which differ in their tokenizers.
    Roberta,
    XlmRoberta,
    DistilBert,
}

impl Kind {
    const ALL: [Self; 4] = [
        Self::Bert,
        Self::Roberta,
        Self::XlmRoberta,
        Self::DistilBert,
    ];

    /// The value of `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm-roberta",
            Self::DistilBert => "distilbert",
        }
    }

    /// The field that says how many layers there are.
    pub fn layers_field(self) -> &'static str {
        match self {
            Self::DistilBert => "n_layers",
            _ => "num_hidden_layers",
        }
    }
}

/// `config.json` of a model that has a `model_type`.
pub(super) struct Config {
    path: PathBuf,
    fields: Map<String, Value>,
}

/// Sizes and functions of an encoder.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub kind: Kind,
    /// Rows of the table of words.
    pub words: usize,
    /// Positions that a text can have.
    pub positions: usize,
    /// Rows of the table of positions before the first of a text.
    pub first_position: usize,
    /// Rows of the table of token types; 0 where there is none.
    pub token_types: usize,
    pub width: usize,
    /// Outputs of the first linear layer of each block.
    pub inner: usize,
    pub heads: usize,
    pub layers: usize,
    pub epsilon: f32,
    pub activation: Op,
}

impl Config {
    /// # Errors
    /// A file that cannot be read, is no JSON object or has no `model_type`.
    pub fn read(folder: &Path) -> Result<Self, FormatError> {
        let path = folder.join("config.json");
        let fields = object(&path)?;
        let config = Self { path, fields };
        config.text("model_type")?;
        Ok(config)
    }

    /// The error of a field.
    pub fn wrong(&self, field: &str, expected: String, got: impl ToString) -> FormatError {
        FormatError::invalid(&self.path, format!("`{field}`"), expected, got.to_string())
    }

    fn text(&self, field: &str) -> Result<&str, FormatError> {
        match self.fields.get(field) {
            Some(Value::String(text)) => Ok(text),
            other => Err(self.wrong(field, "a text".into(), shown(other))),
        }
    }

    fn size(&self, field: &str) -> Result<usize, FormatError> {
        let value = self.fields.get(field);
        let size = value.and_then(Value::as_u64).map(usize::try_from);
        match size {
            Some(Ok(size)) if (1..=MAX_ELEMENTS).contains(&size) => Ok(size),
            _ => {
                let expected = format!("a size from 1 to {MAX_ELEMENTS}");
                Err(self.wrong(field, expected, shown(value)))
            }
        }
    }

    /// What the network is made by.
    ///
    /// # Errors
    /// Another kind of model; a field that is missing or has a value that no operator computes.
    pub fn settings(&self) -> Result<Settings, FormatError> {
        let name = self.text("model_type")?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
        let kind = kind.ok_or_else(|| {
            let kinds = Kind::ALL.map(Kind::name).join(", ");
            self.wrong(
                "model_type",
                format!("one of the encoders {kinds}"),
                format!("`{name}`"),
            )
        })?;
        let [width, inner, heads, activation] = match kind {
            Kind::DistilBert => ["dim", "hidden_dim", "n_heads", "activation"],
            _ => [
                "hidden_size",
                "intermediate_size",
                "num_attention_heads",
                "hidden_act",
            ],
        };
        let rows = self.size("max_position_embeddings")?;
        let first_position = match kind {
            // A text begins behind the position of the padding, which is the padding's number.
            Kind::Roberta | Kind::XlmRoberta => match self.fields.get("pad_token_id") {
                None => 2,
                Some(id) => match id.as_u64().and_then(|id| usize::try_from(id).ok()) {
                    Some(id) if id < rows => id + 1,
                    _ => {
                        let expected = format!("a number below max_position_embeddings, {rows}");
                        return Err(self.wrong("pad_token_id", expected, id));
                    }
                },
            },
            Kind::Bert | Kind::DistilBert => 0,
        };
        if first_position >= rows {
            let expected = format!("more positions than the {first_position} before a text");
            return Err(self.wrong("max_position_embeddings", expected, rows));
        }
        match self.fields.get("position_embedding_type") {
            None => {}
            Some(Value::String(how)) if how == "absolute" => {}
            other => {
                return Err(self.wrong(
                    "position_embedding_type",
                    "`absolute`".into(),
                    shown(other),
                ));
            }
        }
        let settings = Settings {
            kind,
            words: self.size("vocab_size")?,
            positions: rows - first_position,
            first_position,
            token_types: match kind {
                Kind::DistilBert => 0,
                _ => self.size("type_vocab_size")?,
            },
            width: self.size(width)?,
            inner: self.size(inner)?,
            heads: self.size(heads)?,
            layers: self.size(kind.layers_field())?,
            epsilon: self.epsilon()?,
            activation: self.activation(activation)?,
        };
        if !settings.width.is_multiple_of(settings.heads) {
            let expected = format!("a number that divides {width}, {}", settings.width);
            return Err(self.wrong(heads, expected, settings.heads));
        }
        Ok(settings)
    }

    fn epsilon(&self) -> Result<f32, FormatError> {
        match self.fields.get("layer_norm_eps") {
            // What the kinds have that do not say it.
            None => Ok(1e-12),
            Some(value) => (value.as_f64().map(|epsilon| epsilon as f32))
                .filter(|epsilon| epsilon.is_finite() && *epsilon >= 0.0)
                .ok_or_else(|| {
                    self.wrong("layer_norm_eps", "a number of at least 0".into(), value)
                }),
        }
    }

    fn activation(&self, field: &str) -> Result<Op, FormatError> {
        let gelu = |approximate| Op::Gelu(ops::Gelu { approximate });
        match self.text(field)? {
            "gelu" => Ok(gelu(Approximate::None)),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(gelu(Approximate::Tanh)),
            "relu" => Ok(Op::Relu),
            other => {
                let expected = "one of gelu, gelu_new, gelu_pytorch_tanh, relu".into();
                Err(self.wrong(field, expected, format!("`{other}`")))
            }
        }
    }
}

/// What sentence-transformers does with the vectors of the tokens: one of them all, and after it perhaps length 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Modules {
    pub pooling: Pooling,
    pub normalizes: bool,
    /// Most tokens of a text, where a file says it.
    pub longest: Option<usize>,
}

/// How the vectors of all tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    /// Their mean.
    Mean,
    /// That of the first token, `[CLS]` or `<s>`.
    Cls,
}

impl Pooling {
    const ALL: [Self; 2] = [Self::Mean, Self::Cls];

    /// The field of `1_Pooling/config.json` that chooses it.
    fn field(self) -> &'static str {
        match self {
            Self::Mean => "pooling_mode_mean_tokens",
            Self::Cls => "pooling_mode_cls_token",
        }
    }
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    path: String,
    r#type: String,
}

impl Modules {
    /// `None` for a folder without `modules.json`.
    ///
    /// # Errors
    /// Other modules than a transformer, a [`Pooling`] of vectors of `width` numbers and perhaps a normalisation, in this order.
    pub fn read(folder: &Path, width: usize) -> Result<Option<Self>, FormatError> {
        let path = folder.join("modules.json");
        let Some(json) = optional(&path)? else {
            return Ok(None);
        };
        let modules: Vec<Module> = serde_json::from_slice(&json).map_err(|e| {
            let expected = "a list of modules, each with `path` and `type`";
            FormatError::invalid(&path, "modules", expected, e.to_string())
        })?;
        // The class behind the names of Python's modules, which differ from version to version.
        let kind = |m: &Module| m.r#type.rsplit('.').next().unwrap_or_default().to_owned();
        let kinds: Vec<String> = modules.iter().map(kind).collect();
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        let normalizes = match kinds.as_slice() {
            ["Transformer", "Pooling"] => false,
            ["Transformer", "Pooling", "Normalize"] => true,
            other => {
                let expected = "Transformer, Pooling and perhaps Normalize";
                let got = match other {
                    [] => "none".to_owned(),
                    other => other.join(", "),
                };
                return Err(FormatError::invalid(&path, "modules", expected, got));
            }
        };
        let place = modules[1].path.as_str();
        // A name with a separator could lead out of the folder.
        if place.is_empty() || Path::new(place).file_name() != Some(place.as_ref()) {
            let expected = "the name of a folder beside the file";
            return Err(FormatError::invalid(
                &path,
                "`path` of Pooling",
                expected,
                format!("`{place}`"),
            ));
        }
        Ok(Some(Self {
            pooling: pooling(&folder.join(place).join("config.json"), width)?,
            normalizes,
            longest: longest(&folder.join("sentence_bert_config.json"))?,
        }))
    }
}

/// The pooling that the one field chooses which is true.
fn pooling(path: &Path, width: usize) -> Result<Pooling, FormatError> {
    let fields = object(path)?;
    let wrong = |field: &str, expected: String, got: Option<&Value>| {
        FormatError::invalid(path, format!("`{field}`"), expected, shown(got))
    };
    let modes = fields.iter().filter(|(field, value)| {
        field.starts_with("pooling_mode_") && **value != Value::Bool(false)
    });
    let mut modes: Vec<(&str, &Value)> = modes.map(|(f, value)| (f.as_str(), value)).collect();
    // Whatever order the parser keeps.
    modes.sort_by_key(|(field, _)| *field);
    let pooling = Pooling::ALL
        .into_iter()
        .find(|p| modes == [(p.field(), &Value::Bool(true))]);
    let pooling = pooling.ok_or_else(|| {
        let one_of = Pooling::ALL.map(|p| format!("`{}`", p.field())).join(", ");
        let got = modes
            .iter()
            .map(|(field, value)| format!("`{field}`: {value}"));
        let got = match &got.collect::<Vec<_>>()[..] {
            [] => "none".to_owned(),
            got => got.join(", "),
        };
        FormatError::invalid(
            path,
            "pooling",
            format!("true for one of {one_of} alone"),
            got,
        )
    })?;
    match fields.get("word_embedding_dimension") {
        None => Ok(pooling),
        Some(value) if value.as_u64().and_then(|n| usize::try_from(n).ok()) == Some(width) => {
            Ok(pooling)
        }
        other => {
            let expected = format!("{width}, the width of the encoder");
            Err(wrong("word_embedding_dimension", expected, other))
        }
    }
}

/// `max_seq_length` of a file that may not be there.
fn longest(path: &Path) -> Result<Option<usize>, FormatError> {
    let Some(json) = optional(path)? else {
        return Ok(None);
    };
    match parsed(path, &json)?.get("max_seq_length") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if n > 0 => Ok(Some(n)),
            _ => {
                let expected = "a number of tokens of at least 1";
                Err(FormatError::invalid(
                    path,
                    "`max_seq_length`",
                    expected,
                    value.to_string(),
                ))
            }
        },
    }
}

/// The bytes of a file that may not be there.
fn optional(path: &Path) -> Result<Option<Vec<u8>>, FormatError> {
    match read_file(path, MAX_JSON) {
        Ok(json) => Ok(Some(json)),
        Err(FormatError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The object that a file of JSON holds.
fn object(path: &Path) -> Result<Map<String, Value>, FormatError> {
    parsed(path, &read_file(path, MAX_JSON)?)
}

fn parsed(path: &Path, json: &[u8]) -> Result<Map<String, Value>, FormatError> {
    serde_json::from_slice(json)
        .map_err(|e| FormatError::invalid(path, "file", "a JSON object", e.to_string()))
}

/// A value of a field in an error.
fn shown(value: Option<&Value>) -> String {
    value.map_or("no such field".into(), Value::to_string)
}
