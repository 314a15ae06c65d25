//! `run-sparse isa`.

use std::fmt::Write;

use serde_json::json;
use sparsevd_kernels::{Isa, peak::fma_peak};

use crate::args::IsaArgs;
use crate::print;
use sparsevd_cli::Outcome;

pub fn run(args: &IsaArgs) -> anyhow::Result<Outcome> {
    let chosen = Isa::from_env()?;
    let all: Vec<(Isa, f64)> = Isa::available()
        .into_iter()
        .map(|i| (i, fma_peak(i)))
        .collect();
    if args.json {
        let available: Vec<_> = all
            .iter()
            .map(|(isa, peak)| json!({"name": isa.name(), "fma_peak_gflops": peak}))
            .collect();
        print::json(json!({"isa": chosen.name(), "available": available}))?;
        return Ok(Outcome::Done);
    }
    let mut text = String::new();
    for (isa, peak) in &all {
        let mark = if *isa == chosen { "*" } else { " " };
        writeln!(
            text,
            "{mark} {:8} {peak:>7.1} GFLOP/s peak of one core",
            isa.name()
        )?;
    }
    write!(text, "SPARSE_ISA=NAME chooses another than the one marked")?;
    print::text(text)?;
    Ok(Outcome::Done)
}
