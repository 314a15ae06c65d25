//! Embeddings of texts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sparsevd_format::{MAX_JSON, read_encoder, read_file};
use sparsevd_model::{Network, memory};
use sparsevd_runtime::{Plan, PlanOptions, Session};
use tokenizers::{Tokenizer, TruncationParams};

use crate::error::PipelineError;

/// An encoder of texts from its folder, with its tokenizer, ready to run.
#[derive(Debug)]
pub struct TextEncoder {
    session: Session,
    tokenizer: Tokenizer,
    /// The file of the tokenizer.
    path: PathBuf,
    longest: usize,
    width: usize,
    batch: usize,
    notes: Vec<String>,
}

/// The embeddings of some texts, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Numbers of an embedding.
    pub width: usize,
    /// `[texts][width]`.
    pub values: Vec<f32>,
    /// How many tokens of each text were encoded, those at its beginning and end included.
    pub tokens: Vec<usize>,
    /// The texts that had more tokens than the encoder takes, by their number from 0 on. Their first tokens were encoded.
    pub truncated: Vec<usize>,
}

/// The inputs of an encoder.
pub(crate) const INPUTS: [&str; 2] = ["input_ids", "position_ids"];

/// The tokens of some texts.
pub(crate) struct Tokens {
    pub ids: Vec<Vec<u32>>,
    /// The texts that had more tokens than the encoder takes.
    pub truncated: Vec<usize>,
}

impl Tokens {
    /// The texts of equally many tokens, by that number.
    pub fn by_length(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut by_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, ids) in self.ids.iter().enumerate() {
            by_length.entry(ids.len()).or_default().push(i);
        }
        by_length
    }
}

impl TextEncoder {
    /// Reads the folder of an encoder ([`read_encoder`]) with its `tokenizer.json`, and plans for batches of `options.batch` texts.
    ///
    /// # Errors
    /// As [`read_encoder`]; a folder that does not say how tokens become one embedding; a tokenizer that is missing, is none, or adds more tokens than the
    /// encoder takes; an encoder that cannot be planned.
    pub fn open(folder: impl AsRef<Path>, options: &PlanOptions) -> Result<Self, PipelineError> {
        Self::with_network(folder.as_ref(), None, options)
    }

    /// As [`Self::open`], with another network in the place of that of the folder, where one is given.
    pub(crate) fn with_network(
        folder: &Path,
        network: Option<&Network>,
        options: &PlanOptions,
    ) -> Result<Self, PipelineError> {
        let encoder = read_encoder(folder)?;
        let network = network.unwrap_or(&encoder.loaded.network);
        if !encoder.is_pooled {
            return Err(PipelineError::invalid(
                folder.display(),
                "a modules.json, which says how the vectors of the tokens become one",
                "a folder without",
            ));
        }
        let inputs: Vec<&str> = (network.graph.inputs.iter())
            .map(|input| input.name.as_str())
            .collect();
        let types = network.types()?;
        let outputs: Vec<_> = (network.graph.outputs.iter())
            .map(|output| &types[output.as_str()])
            .collect();
        let width = match (inputs == INPUTS, outputs.as_slice()) {
            (true, [only]) if only.free().is_none() && only.dims.len() == 1 => only.elements(1),
            _ => {
                return Err(PipelineError::invalid(
                    folder.display(),
                    format!(
                        "an encoder with the inputs {} and one vector",
                        INPUTS.join(", ")
                    ),
                    format!("inputs {} and {} outputs", inputs.join(", "), outputs.len()),
                ));
            }
        };
        let path = folder.join("tokenizer.json");
        let tokenizer = tokenizer(&path, encoder.longest)?;
        let plan = Plan::new(network, options)?;
        Ok(Self {
            session: Session::new(plan, options.threads)?,
            tokenizer,
            path,
            longest: encoder.longest,
            width,
            batch: options.batch.max(1),
            notes: encoder.loaded.notes,
        })
    }

    /// Most tokens of a text.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Sentences for the user about how the folder was read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Its plan, kernels and all.
    pub fn plan(&self) -> &Plan {
        self.session.plan()
    }

    /// Embeds texts. Those of equally many tokens run together, so that nothing is padded.
    ///
    /// An empty text has the tokens that the tokenizer puts at the beginning and the end of each, and an embedding as any other.
    ///
    /// # Errors
    /// A text that the tokenizer refuses or gives no tokens; a token without a row in the encoder's table; texts whose embeddings do not fit into memory.
    pub fn embed(&self, texts: &[impl AsRef<str>]) -> Result<Embeddings, PipelineError> {
        let what = || format!("the embeddings of {} texts", texts.len());
        let elements = texts.len().saturating_mul(self.width);
        memory::check_elements(what, elements, size_of::<f32>())?;
        let tokens = self.tokens(texts)?;
        let by_length = tokens.by_length();
        let Tokens { ids, truncated } = tokens;
        let mut embeddings = Embeddings {
            width: self.width,
            values: vec![0.0; elements],
            tokens: ids.iter().map(Vec::len).collect(),
            truncated,
        };
        let (mut words, mut y) = (Vec::new(), Vec::new());
        for (length, texts) in by_length {
            let positions: Vec<f32> = (0..length).map(|i| i as f32).collect();
            for texts in texts.chunks(self.batch) {
                words.clear();
                // Tables have at most `MOST_IDS` rows, which the session checks; all such numbers are floats.
                words.extend(texts.iter().flat_map(|&i| &ids[i]).map(|&id| id as f32));
                let positions = positions.repeat(texts.len());
                y.resize(texts.len() * self.width, 0.0);
                let inputs = [(INPUTS[0], words.as_slice()), (INPUTS[1], &positions)];
                self.session.run(texts.len(), &inputs, &mut y[..])?;
                for (&i, y) in texts.iter().zip(y.chunks_exact(self.width)) {
                    embeddings.values[i * self.width..][..self.width].copy_from_slice(y);
                }
            }
        }
        Ok(embeddings)
    }

    /// The tokens of texts, at least one of each.
    pub(crate) fn tokens(&self, texts: &[impl AsRef<str>]) -> Result<Tokens, PipelineError> {
        let (mut ids, mut truncated) = (Vec::with_capacity(texts.len()), vec![]);
        for (i, text) in texts.iter().enumerate() {
            let encoding = (self.tokenizer.encode_fast(text.as_ref(), true))
                .map_err(|e| self.wrong(i, "one that it takes", e.to_string()))?;
            if encoding.is_empty() {
                return Err(self.wrong(i, "at least one token", "none".into()));
            }
            if !encoding.get_overflowing().is_empty() {
                truncated.push(i);
            }
            ids.push(encoding.get_ids().to_vec());
        }
        Ok(Tokens { ids, truncated })
    }

    /// The error of text number `i`.
    fn wrong(&self, i: usize, expected: &str, got: String) -> PipelineError {
        let what = format!("{}: text {}", self.path.display(), i + 1);
        PipelineError::invalid(what, expected, got)
    }
}

/// The tokenizer of a file, which cuts texts of more than `longest` tokens and pads none, whatever the file says of either.
fn tokenizer(path: &Path, longest: usize) -> Result<Tokenizer, PipelineError> {
    let json = read_file(path, MAX_JSON)?;
    let wrong = |expected: &str, got: String| PipelineError::invalid(path.display(), expected, got);
    let expected = "a tokenizer as the library tokenizers writes it";
    let mut tokenizer =
        Tokenizer::from_bytes(&json).map_err(|error| wrong(expected, error.to_string()))?;
    let added = tokenizer.get_post_processor().map_or(0, |post| {
        tokenizers::PostProcessor::added_tokens(post, false)
    });
    if added >= longest {
        let expected = format!("fewer than {longest} tokens around a text, as the encoder takes");
        return Err(wrong(&expected, added.to_string()));
    }
    let truncation = TruncationParams {
        max_length: longest,
        ..TruncationParams::default()
    };
    tokenizer
        .with_truncation(Some(truncation))
        .map_err(|error| wrong(expected, error.to_string()))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}
