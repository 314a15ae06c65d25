//! What a layer reads, summed over samples.

use sparsevd_kernels::training::Real;

/// Share of the mean square of an input that is added to the square of each, so that few samples do not decide.
const DAMPING: f64 = 0.01;
/// Rows whose products are summed in single precision before they are added in double.
const CHUNK: usize = 256;
/// Sums of products of a layer's inputs over samples, of which the last stands for the bias.
///
/// `inputs` are those that the pruned layer will read, `targets` those that the layer read before anything was pruned: the outputs are
/// to stay as they were then.
#[derive(Debug, Clone)]
pub struct Moments {
    pub(super) size: usize,
    /// What stands for the bias in a row: 1, or 0 where the layer has none.
    one: f32,
    /// Rows.
    pub(super) count: f64,
    /// Sum of each input over the rows, the bias's included.
    pub(super) sums: Vec<f64>,
    /// `[input][input]`.
    pub(super) products: Vec<f64>,
    /// `[input][target]`.
    pub(super) cross: Vec<f64>,
}

impl Moments {
    /// Of no rows yet, of `inputs` numbers each, of a layer with a bias that may move or without one.
    pub fn new(inputs: usize, bias: bool) -> Self {
        let size = inputs + 1;
        Self {
            size,
            one: if bias { 1.0 } else { 0.0 },
            count: 0.0,
            sums: vec![0.0; size],
            products: vec![0.0; size * size],
            cross: vec![0.0; size * size],
        }
    }

    /// Adds rows `[row][input]`, and those that stood in their place before anything was pruned, where they are others.
    ///
    /// # Panics
    /// When a row has another length, or the two have different numbers of rows.
    #[track_caller]
    pub fn add(&mut self, inputs: &[f32], targets: Option<&[f32]>) {
        let width = self.size - 1;
        assert_eq!(inputs.len() % width.max(1), 0, "numbers of a row");
        assert!(targets.is_none_or(|t| t.len() == inputs.len()), "rows");
        let mut products = vec![0.0; self.size * self.size];
        for (chunk, x) in inputs.chunks(CHUNK * width).enumerate() {
            let t = targets.map(|t| &t[chunk * CHUNK * width..][..x.len()]);
            let (x, t) = (self.with_one(x), t.map(|t| self.with_one(t)));
            let rows = x.len() / self.size;
            self.count += rows as f64;
            for row in x.chunks_exact(self.size) {
                (self.sums.iter_mut().zip(row)).for_each(|(s, x)| *s += f64::from(*x));
            }
            let sizes = [self.size, self.size, rows];
            let mut multiply = |right: &[f32], into: [Option<&mut [f64]>; 2]| {
                let left = (&x[..], 1, self.size);
                let right = (right, self.size, 1);
                f32::gemm(&mut products, self.size, left, right, sizes, false);
                for into in into.into_iter().flatten() {
                    (into.iter_mut().zip(&products)).for_each(|(s, x)| *s += f64::from(*x));
                }
            };
            let (squares, cross) = (&mut self.products[..], &mut self.cross[..]);
            match t {
                None => multiply(&x, [Some(squares), Some(cross)]),
                Some(t) => {
                    multiply(&x, [Some(squares), None]);
                    multiply(&t, [Some(cross), None]);
                }
            }
        }
    }

    fn with_one(&self, rows: &[f32]) -> Vec<f32> {
        let rows = rows.chunks_exact(self.size - 1);
        rows.flat_map(|row| row.iter().copied().chain([self.one]))
            .collect()
    }

    /// The products, damped, and what was added to the square of each input.
    pub(super) fn damped(&self) -> (Vec<f64>, f64) {
        let n = self.size;
        let squares = (0..n - 1).map(|i| self.products[i * n + i]).sum::<f64>();
        let more = (DAMPING * squares / (n - 1).max(1) as f64).max(f64::MIN_POSITIVE.sqrt());
        let mut damped = self.products.clone();
        for i in 0..n - 1 {
            damped[i * n + i] += more;
        }
        // The bias has no square of its own to be compared with.
        damped[n * n - 1] += 1e-9 * damped[n * n - 1] + f64::MIN_POSITIVE.sqrt();
        (damped, more)
    }
}
