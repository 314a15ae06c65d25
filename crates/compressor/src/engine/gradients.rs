//! The sum of the shards' gradients.

use rayon::prelude::*;
use sparsevd_kernels::training::{Real, add};

use super::program::Work;
use super::{Engine, PIECE};
use crate::layers::linear;

/// The gradients of one layer while they are summed.
struct Piece<T> {
    stage: usize,
    layer: usize,
    /// Vectors of a sample, of a linear layer.
    vectors: Option<usize>,
    patch: usize,
    chunk: usize,
    theta: Vec<T>,
    sigma2: Vec<T>,
}

impl<T: Real> Engine<T> {
    /// Sums the shards' gradients in their order, each piece of each layer by one thread.
    pub(super) fn sum_gradients(&mut self) {
        let (shards, program, isa) = (&self.shards, &self.program, self.isa);
        let layers = &self.state.layers;
        let sparse = self.sparse.as_ref().map_or(&[][..], |s| &s.layers);
        let mut pieces: Vec<Piece<T>> = vec![];
        for (stage, s) in program.stages.iter().enumerate() {
            let Some(layer) = s.work.layer() else {
                continue;
            };
            let vectors = match s.work {
                Work::Linear { vectors, .. } => Some(vectors),
                _ => None,
            };
            // Each layer belongs to one stage, so the arrays can be taken out of their places.
            let patch = layers[layer].patch();
            let rows_per_piece = (PIECE / patch.max(1)).max(1);
            let chunk = (rows_per_piece * patch).max(1);
            let [theta, sigma2] = &mut self.gradients[layer];
            let [theta, sigma2] = [std::mem::take(theta), std::mem::take(sigma2)];
            pieces.push(Piece {
                stage,
                layer,
                vectors,
                patch,
                chunk,
                theta,
                sigma2,
            });
        }
        let run = |piece: &mut Piece<T>| {
            let (layer, patch, chunk) = (piece.layer, piece.patch, piece.chunk);
            let units = layers[layer].units();
            let noisy = !piece.sigma2.is_empty();
            let sigma2_chunks: Vec<&mut [T]> = if noisy {
                piece.sigma2.chunks_mut(chunk).collect()
            } else {
                vec![]
            };
            let mut sigma2_chunks = sigma2_chunks.into_iter();
            let work: Vec<(usize, &mut [T], &mut [T])> = piece
                .theta
                .chunks_mut(chunk)
                .enumerate()
                .map(|(i, t)| (i * chunk, t, sigma2_chunks.next().unwrap_or_default()))
                .collect();
            let one = |(at, theta, sigma2): (usize, &mut [T], &mut [T])| {
                for (i, shard) in shards.iter().enumerate() {
                    if let Some(vectors) = piece.vectors {
                        let rows = at / patch..(at + theta.len()) / patch;
                        let saved = &shard.saved[piece.stage];
                        if let Some(sparse) = sparse.get(layer).and_then(|s| s.as_ref()?.linear()) {
                            if i == 0 {
                                theta.fill(T::default());
                            }
                            let read = saved.vectors.each_ref();
                            let samples = shard.samples * vectors;
                            sparse.weight_gradient(isa, read, samples, rows, theta);
                            continue;
                        }
                        linear::weight_gradient(
                            saved,
                            shard.samples * vectors,
                            [units, patch],
                            rows,
                            theta,
                            sigma2,
                            i > 0,
                        );
                    } else {
                        let [t, s] = &shard.weight_gradients[layer];
                        let here = at..at + theta.len();
                        for (sum, part) in [(&mut *theta, t), (&mut *sigma2, s)] {
                            if sum.is_empty() {
                                continue;
                            }
                            if i == 0 {
                                sum.copy_from_slice(&part[here.clone()]);
                            } else {
                                add(isa, &part[here.clone()], sum);
                            }
                        }
                    }
                }
            };
            match &self.pool {
                Some(pool) if work.len() > 1 && shards.len() > 1 => {
                    pool.install(|| work.into_par_iter().for_each(one))
                }
                _ => work.into_iter().for_each(one),
            }
        };
        pieces.iter_mut().for_each(run);
        for piece in pieces {
            self.gradients[piece.layer] = [piece.theta, piece.sigma2];
        }
        for (layer, sum) in self.bias_gradients.iter_mut().enumerate() {
            sum.fill(T::default());
            for shard in shards {
                add(isa, &shard.bias_gradients[layer], sum);
            }
        }
        for (tensor, sum) in self.plain_gradients.iter_mut().enumerate() {
            sum.fill(T::default());
            for shard in shards {
                add(isa, &shard.plain_gradients[tensor], sum);
            }
        }
    }
}
