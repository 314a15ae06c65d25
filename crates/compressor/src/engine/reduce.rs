//! Where processes that train one network together meet.

use std::io;
use std::ops::Range;

/// Sums over the processes that train one network together.
///
/// Every process has the same state and is given the same batches, of which it computes the samples of [`Self::part`]. All
/// call [`Self::sum`] and [`Self::sum_statistics`] in the same order, with slices of the same lengths. What they get has the
/// same bits in each of them: then their updates are the same too, and no weights have to be sent.
pub trait Reduce<T>: Send {
    /// The samples that this process computes of a batch of `samples`. The parts of all processes make up the batch, and
    /// none is empty.
    fn part(&self, samples: usize) -> Range<usize>;

    /// Replaces each number by its sum over the processes, which are added in the same order every time.
    ///
    /// # Errors
    /// A process that can no longer be reached.
    fn sum(&mut self, gradients: &mut [T]) -> io::Result<()>;

    /// As [`Self::sum`], for sums over the samples of a batch: of a normalisation, of the loss.
    ///
    /// # Errors
    /// Those of [`Self::sum`].
    fn sum_statistics(&mut self, statistics: &mut [f64]) -> io::Result<()>;
}
