//! A sparse network from a dense one, in ten lines.
//!
//! ```sh
//! cargo run --release --example compress --features compress -- MODEL DATA RECIPE.toml OUT.safetensors
//! ```
//!
//! `tests/example.rs` runs it on a small data set.

use sparsevd::{Compression, Data, Recipe, Silent};

type Done = Result<(), Box<dyn std::error::Error>>;

/// Compresses the network of a file, and writes the result and a report on it.
pub fn compress(model: &str, data: &str, recipe: &str, out: &str) -> Done {
    let network = sparsevd::load(model)?;
    let data = Data::load(data)?;
    let recipe = Recipe::read(recipe.as_ref())?;
    let compressed = Compression::new(network, data, recipe).run(&mut Silent)?;
    let report = compressed.save(out)?;
    let summary = &report.summary;
    println!("{} of {} weights left", summary.nonzeros, summary.weights);
    if let Some(accuracy) = report.accuracy {
        println!("lost on validation: {:.2}", accuracy.validation.drop());
    }
    Ok(())
}

fn main() -> Done {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [model, data, recipe, out] => compress(model, data, recipe, out),
        _ => Err("expected MODEL DATA RECIPE.toml OUT.safetensors".into()),
    }
}
