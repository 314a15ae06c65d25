//! `run-sparse embed`.

use std::io::Read;

use anyhow::{Context, bail};
use serde::Serialize;
use sparsevd_format::{MAX_JSON, check_writable, read_text, write_atomically, write_npy};
use sparsevd_kernels::Isa;
use sparsevd_pipeline::{Embeddings, KernelCosts, TextEncoder};
use sparsevd_runtime::{PlanOptions, WeightType};

use crate::args::EmbedArgs;
use crate::load::all_threads;
use sparsevd_cli::Outcome;

/// Lines whose numbers a message lists; of more it says how many there are.
const MOST_LISTED: usize = 5;

/// Tokens of the texts that the first plan is made for. Others are planned when they come.
const FIRST_LENGTH: usize = 32;

pub fn run(args: &EmbedArgs) -> anyhow::Result<Outcome> {
    let kind = match &args.out {
        None => Kind::Lines,
        Some(path) => {
            let kind = path.extension().and_then(|ending| match ending.to_str() {
                Some("npy") => Some(Kind::Array),
                Some("jsonl") => Some(Kind::Lines),
                _ => None,
            });
            check_writable(path, args.force)?;
            match kind {
                Some(kind) => kind,
                None => bail!("--out {}: expected a file .npy or .jsonl", path.display()),
            }
        }
    };
    let isa = Isa::from_env()?;
    let options = PlanOptions {
        weights: args.weights,
        isa,
        threads: all_threads(args.threads),
        batch: args.batch,
        length: FIRST_LENGTH,
        values: WeightType::F32,
        int8: args.int8,
        costs: KernelCosts::of(isa)?,
    };
    let encoder = TextEncoder::open(&args.folder, &options)?;
    if args.verbosity.talks() {
        encoder
            .notes()
            .iter()
            .for_each(|note| sparsevd_cli::note(note));
    }
    args.verbosity.explain(|| encoder.plan().to_string());
    let text = text(args)?;
    let lines: Vec<&str> = text.lines().collect();
    let embeddings = encoder.embed(&lines).context("--text")?;
    if let Some(note) = cut(&embeddings, encoder.longest())
        && !args.verbosity.quiet
    {
        sparsevd_cli::note(&note);
    }
    match (&args.out, kind) {
        (Some(path), Kind::Array) => {
            let shape = [lines.len(), embeddings.width];
            write_npy(path, &shape, &embeddings.values)?;
        }
        (Some(path), Kind::Lines) => {
            write_atomically(path, |out| {
                json_lines(&embeddings).try_for_each(|line| writeln!(out, "{}", line?))
            })?;
        }
        (None, _) => {
            for line in json_lines(&embeddings) {
                sparsevd_cli::json(&line?)?;
            }
        }
    }
    Ok(Outcome::Done)
}

/// What embeddings are written as.
#[derive(Clone, Copy)]
enum Kind {
    Array,
    Lines,
}

/// The text that `--text` names.
fn text(args: &EmbedArgs) -> anyhow::Result<String> {
    if args.text.as_os_str() != "-" {
        return Ok(read_text(&args.text, MAX_JSON)?);
    }
    let mut text = String::new();
    let read = std::io::stdin()
        .take(MAX_JSON + 1)
        .read_to_string(&mut text);
    read.context("--text -: expected UTF-8 text")?;
    if text.len() as u64 > MAX_JSON {
        bail!("--text -: expected at most {MAX_JSON} bytes, got more");
    }
    Ok(text)
}

/// Which lines were longer than the encoder takes.
fn cut(embeddings: &Embeddings, longest: usize) -> Option<String> {
    let lines = &embeddings.truncated;
    let listed = lines.iter().take(MOST_LISTED).map(|i| (i + 1).to_string());
    let listed = listed.collect::<Vec<_>>().join(", ");
    let which = match lines.len() {
        0 => return None,
        1 => format!("line {listed} has"),
        2..=MOST_LISTED => format!("lines {listed} have"),
        all => format!("{all} lines, {listed} and others, have"),
    };
    Some(format!(
        "{which} more than the {longest} tokens that the encoder takes; what is behind them was left out"
    ))
}

/// What is printed of a line.
#[derive(Serialize)]
struct Line<'a> {
    line: usize,
    tokens: usize,
    truncated: bool,
    embedding: &'a [f32],
}

/// A line of JSON for each embedding.
fn json_lines(embeddings: &Embeddings) -> impl Iterator<Item = serde_json::Result<String>> {
    let values = embeddings.values.chunks_exact(embeddings.width);
    let each = values.zip(&embeddings.tokens).enumerate();
    each.map(|(i, (embedding, &tokens))| {
        serde_json::to_string(&Line {
            line: i + 1,
            tokens,
            truncated: embeddings.truncated.binary_search(&i).is_ok(),
            embedding,
        })
    })
}
