//! Sparse matrix times one vector: linear layers at batch 1.

use std::ops::Range;

use sparsevd_model::Csr;

use crate::cost::Costs;
use crate::kernel::{Operands, PackedKernel, Workload, each_sample};
use crate::precision::Precision;
use crate::sell_vector::SellVector;
use crate::spmm::bias_or_zero;
#[cfg(target_arch = "x86_64")]
use crate::table::Table;
use crate::{Clamp, Isa, length};

pub use crate::input_sparse::{ByActivity, InputSparse, active};

/// A sparse matrix packed for one vector at a time.
#[derive(Debug, Clone)]
pub struct Spmv {
    isa: Isa,
    rows: usize,
    cols: usize,
    kernel: Kernel,
    /// Of a part, the rows of the whole in the order in which they are written.
    order: Option<Vec<u32>>,
}

#[derive(Debug, Clone)]
enum Kernel {
    Sell(SellVector),
    #[cfg(target_arch = "x86_64")]
    Table(Table),
}

impl Spmv {
    /// Packs `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(isa: Isa, weight: &Csr, bias: Option<&[f32]>) -> Self {
        Self::pack_with(isa, weight, bias, Precision::F32)
    }

    /// As [`Spmv::pack`], with non-zeros rounded to `precision` ([`Precision::rounded`]).
    ///
    /// # Panics
    /// As [`Spmv::pack`].
    #[track_caller]
    pub fn pack_with(isa: Isa, weight: &Csr, bias: Option<&[f32]>, precision: Precision) -> Self {
        let bias = bias_or_zero(bias, weight.rows());
        let weight = &*precision.of(weight);
        let sell = SellVector::pack(weight, &bias, precision);
        #[cfg(target_arch = "x86_64")]
        let kernel = Table::pack(isa, weight, &bias, precision)
            .filter(|table| table.cost() <= sell.cost())
            .map_or(Kernel::Sell(sell), Kernel::Table);
        #[cfg(not(target_arch = "x86_64"))]
        let kernel = Kernel::Sell(sell);
        Self {
            isa,
            rows: weight.rows(),
            cols: weight.cols(),
            kernel,
            order: None,
        }
    }

    /// The work of each group of rows, by which threads can split a product, in one unit.
    pub fn groups(&self) -> Vec<usize> {
        match &self.kernel {
            Kernel::Sell(sell) => sell.groups(),
            #[cfg(target_arch = "x86_64")]
            Kernel::Table(table) => table.groups(),
        }
    }

    /// Some groups of rows alone. They have the same outputs, to the bit, as in the whole, but one after the other: [`Spmv::order`] has the row
    /// of each.
    ///
    /// # Panics
    /// When `groups` is out of range, or this is a part.
    #[track_caller]
    pub fn part(&self, groups: Range<usize>) -> Self {
        assert!(self.order.is_none(), "a part of a whole");
        let (kernel, order) = match &self.kernel {
            Kernel::Sell(sell) => {
                let (part, order) = sell.part(groups);
                (Kernel::Sell(part), order)
            }
            #[cfg(target_arch = "x86_64")]
            Kernel::Table(table) => {
                let (part, order) = table.part(groups);
                (Kernel::Table(part), order)
            }
        };
        Self {
            rows: order.len(),
            kernel,
            order: Some(order),
            ..*self
        }
    }

    /// Of a part, the rows of the whole in the order in which they are written.
    pub fn order(&self) -> Option<&[u32]> {
        self.order.as_deref()
    }

    /// `y = clamp(W x + b)` for one vector: `x` is `[in]`, `y` one element per packed row.
    ///
    /// # Panics
    /// When `x` does not have one element per column or `y` one per packed row.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], clamp: Clamp) {
        length::check("x", x.len(), [self.cols]);
        length::check("y", y.len(), [self.rows]);
        match &self.kernel {
            Kernel::Sell(sell) => sell.run(self.isa, x, y, clamp.bounds()),
            #[cfg(target_arch = "x86_64")]
            Kernel::Table(table) => table.run(x, y, clamp.bounds()),
        }
    }

    /// Rows of the packed part.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> String {
        let kernel = match &self.kernel {
            Kernel::Sell(sell) => sell.name(),
            #[cfg(target_arch = "x86_64")]
            Kernel::Table(table) => table.name(),
        };
        format!("{}-{kernel}", self.isa)
    }

    /// Bytes of packed weights, indices and biases that one run reads.
    pub fn bytes(&self) -> usize {
        match &self.kernel {
            Kernel::Sell(sell) => sell.bytes(),
            #[cfg(target_arch = "x86_64")]
            Kernel::Table(table) => table.bytes(),
        }
    }
}

impl PackedKernel for Spmv {
    fn run(&self, operands: Operands<'_>) {
        each_sample(operands.x, operands.y, operands.n, |x, y| {
            Self::run(self, x, y, operands.clamp);
        });
    }

    fn name(&self) -> String {
        Self::name(self)
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.each(costs.spmv(work.size))
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn is_sparse(&self) -> bool {
        true
    }

    fn skips_zero_inputs(&self) -> bool {
        true
    }

    fn order(&self) -> Option<&[u32]> {
        Self::order(self)
    }
}
