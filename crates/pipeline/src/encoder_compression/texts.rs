//! Texts as the samples of an encoder.

use std::fmt::Debug;

use sparsevd_compressor::Samples;
use sparsevd_compressor::objective::Targets;

use crate::calibrate::inputs::{Batch, Batches};
use crate::encoder_folder::TEXTS;
use crate::error::PipelineError;
use crate::text_encoder::{INPUTS, TextEncoder};

/// Texts as tokens, those of equally many together.
pub(super) struct Batched {
    batches: Vec<Batch>,
}

impl Batched {
    pub fn new(encoder: &TextEncoder, texts: &[String]) -> Result<Self, PipelineError> {
        let tokens = encoder.tokens(texts)?;
        let mut batches = vec![];
        for (length, same) in tokens.by_length() {
            for texts in same.chunks(TEXTS) {
                let ids = texts.iter().flat_map(|&i| &tokens.ids[i]);
                let ids: Vec<f32> = ids.map(|&id| id as f32).collect();
                let positions: Vec<f32> = (0..length).map(|i| i as f32).collect();
                let positions = positions.repeat(texts.len());
                let named = INPUTS.map(str::to_owned).into_iter().zip([ids, positions]);
                batches.push(Batch {
                    count: texts.len(),
                    length,
                    inputs: named.collect(),
                });
            }
        }
        Ok(Self { batches })
    }
}

impl Batches for Batched {
    fn sizes(&self) -> Vec<(usize, usize)> {
        self.batches.iter().map(|b| (b.count, b.length)).collect()
    }

    fn for_each(
        &self,
        visit: &mut dyn FnMut(&Batch) -> Result<(), PipelineError>,
    ) -> Result<(), PipelineError> {
        self.batches.iter().try_for_each(visit)
    }
}

/// Texts to train on, with the embeddings that another encoder gives them.
#[derive(Debug)]
pub(super) struct TextSamples {
    /// The tokens of each.
    ids: Vec<Vec<u32>>,
    /// `[texts][width]`.
    embeddings: Vec<f32>,
    width: usize,
}

impl TextSamples {
    /// The tokens of texts.
    ///
    /// # Errors
    /// Texts that one of the two encoders does not take, or has other tokens of.
    pub fn tokens(
        encoder: &TextEncoder,
        teacher: &TextEncoder,
        texts: &[String],
    ) -> Result<Vec<Vec<u32>>, PipelineError> {
        let ids = encoder.tokens(texts)?.ids;
        if ids != teacher.tokens(texts)?.ids {
            let expected = "an encoder with the same tokens";
            return Err(PipelineError::invalid("teacher", expected, "other tokens"));
        }
        Ok(ids)
    }

    /// Texts, of which these are the tokens, with the embeddings of the teacher.
    ///
    /// # Errors
    /// Texts that it does not take.
    pub fn new(
        ids: Vec<Vec<u32>>,
        teacher: &TextEncoder,
        texts: &[String],
    ) -> Result<Self, PipelineError> {
        let embeddings = teacher.embed(texts)?;
        Ok(Self {
            ids,
            width: embeddings.width,
            embeddings: embeddings.values,
        })
    }
}

impl Samples for TextSamples {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn fill(&self, index: usize, _: [i32; 2], out: &mut [f32]) {
        let ids = &self.ids[index];
        let (words, positions) = out.split_at_mut(ids.len());
        // Tables have rows that floats can number.
        words
            .iter_mut()
            .zip(ids)
            .for_each(|(w, &id)| *w = id as f32);
        for (i, position) in positions.iter_mut().enumerate() {
            *position = i as f32;
        }
    }

    fn length(&self, index: usize) -> usize {
        self.ids[index].len()
    }

    fn targets(&self) -> Targets<'_> {
        Targets::vectors(&self.embeddings, self.width)
    }

    fn has_targets(&self) -> bool {
        false
    }
}
