//! Files that are written: refused before the work starts, marked with where they come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_format::{WriteOptions, check_writable};

use crate::args::EncodingArgs;

/// Checks that a network can be written to `path`.
pub fn check_network(path: &Path, force: bool) -> anyhow::Result<()> {
    let is_safetensors = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("safetensors"));
    if !is_safetensors {
        bail!(
            "{}: expected an output ending in .safetensors, the one format that is written, got another ending",
            path.display()
        );
    }
    check(path, force)
}

/// Checks that a file can be written to `path`.
pub fn check(path: &Path, force: bool) -> anyhow::Result<()> {
    match check_writable(path, force) {
        Err(sparsevd_format::FormatError::Exists { .. }) => bail!(
            "{}: exists already; overwrite it by --force, or name another by --out",
            path.display()
        ),
        other => Ok(other?),
    }
}

/// The report beside an output: `name.sparse.safetensors` has `name.report.json`.
pub fn report_path(output: &Path) -> PathBuf {
    let stem = output.file_stem().unwrap_or_default().to_string_lossy();
    let name = stem.strip_suffix(".sparse").unwrap_or(&stem);
    output.with_file_name(format!("{name}.report.json"))
}

/// How a result is written: with the recipe, but for the data's place on this machine, the seed and the version.
pub fn options(
    encoding: Option<&EncodingArgs>,
    recipe: &Recipe,
    mut metadata: BTreeMap<String, String>,
) -> WriteOptions {
    let recipe = Recipe {
        data: None,
        ..recipe.clone()
    };
    metadata.insert("sparsevd.recipe".into(), recipe.to_toml());
    metadata.insert("sparsevd.seed".into(), recipe.seed.to_string());
    metadata.insert("sparsevd.version".into(), env!("CARGO_PKG_VERSION").into());
    WriteOptions {
        values: encoding.map(|e| e.values.into()).unwrap_or_default(),
        profile: encoding.map(|e| e.profile.into()).unwrap_or_default(),
        metadata,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_lies_beside_its_output() {
        let paths =
            ["a/net.sparse.safetensors", "net.safetensors"].map(|p| report_path(Path::new(p)));
        assert_eq!(
            paths,
            [
                PathBuf::from("a/net.report.json"),
                PathBuf::from("net.report.json")
            ]
        );
    }
}
