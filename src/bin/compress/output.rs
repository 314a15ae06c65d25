//! Files that are written: refused before the work starts, marked with where they come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use sparsevd_compressor::recipe::{Method, Recipe};
use sparsevd_format::{WriteOptions, check_writable};

use crate::args::EncodingArgs;

/// A file format, as the ending of an output names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `.safetensors`
    Interchange,
    /// `.spvd`
    Packed,
    /// `.onnx`
    Onnx,
}

/// The format that an output is to have.
pub fn form(path: &Path) -> anyhow::Result<Form> {
    let is = |ending| {
        path.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case(ending))
    };
    if is("safetensors") {
        Ok(Form::Interchange)
    } else if is("spvd") {
        Ok(Form::Packed)
    } else if is("onnx") {
        Ok(Form::Onnx)
    } else {
        bail!(
            "{}: expected an output ending in .safetensors, .spvd or .onnx, got another ending",
            path.display()
        )
    }
}

/// What a packed file takes, for messages.
pub const NEEDS_GRID: &str =
    "weights on grids, which a `quantise` phase at the end of the recipe makes";

/// Whether a recipe leaves the weights on grids, as a packed file stores them.
pub fn ends_on_grids(recipe: &Recipe) -> bool {
    let last = recipe.phases.last();
    last.is_some_and(|p| p.method == Method::Quantise)
}

/// Where a result goes: the interchange form, and the packed one where the recipe ends on grids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Results {
    pub network: PathBuf,
    pub packed: Option<PathBuf>,
}

/// Names the files of a result: `named` is one of them, and the other, where there is one, lies beside it.
pub fn results(named: Option<&Path>, name: &str, recipe: &Recipe) -> anyhow::Result<Results> {
    let default = PathBuf::from(format!("{name}.sparse.safetensors"));
    let named = named.unwrap_or(&default);
    let stem = stem(named);
    let on_grids = ends_on_grids(recipe);
    Ok(match form(named)? {
        Form::Interchange => Results {
            network: named.to_owned(),
            packed: on_grids.then(|| named.with_file_name(format!("{stem}.spvd"))),
        },
        Form::Packed if on_grids => Results {
            network: named.with_file_name(format!("{stem}.sparse.safetensors")),
            packed: Some(named.to_owned()),
        },
        Form::Packed => bail!(
            "{}: expected {NEEDS_GRID}, to pack; got a recipe that ends without one",
            named.display()
        ),
        Form::Onnx => bail!(
            "{}: expected a result ending in .safetensors or .spvd, which `compress convert` makes an ONNX file of; got .onnx",
            named.display()
        ),
    })
}

/// Checks that a network can be written to `path` in the interchange form.
pub fn check_interchange(path: &Path, force: bool) -> anyhow::Result<()> {
    let form = form(path)?;
    if form == Form::Packed {
        bail!(
            "{}: expected an output ending in .safetensors, got .spvd; that takes {NEEDS_GRID}",
            path.display()
        );
    }
    if form == Form::Onnx {
        bail!(
            "{}: expected an output ending in .safetensors, got .onnx; `compress convert` makes that of it",
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
    output.with_file_name(format!("{}.report.json", stem(output)))
}

/// The name of a result without its endings.
fn stem(output: &Path) -> String {
    let stem = output.file_stem().unwrap_or_default().to_string_lossy();
    stem.strip_suffix(".sparse").unwrap_or(&stem).to_owned()
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
        values: encoding.map(EncodingArgs::values).unwrap_or_default(),
        profile: encoding.map(EncodingArgs::profile).unwrap_or_default(),
        metadata,
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_compressor::recipe::Phase;

    use super::*;

    #[test]
    fn a_result_on_grids_is_two_files_beside_each_other() {
        let plain = Recipe::default_for_compression();
        let mut on_grids = plain.clone();
        on_grids.phases.push(Phase::new(Method::Quantise, 1));
        let cases = [
            (None, "net.sparse.safetensors", "net.spvd"),
            (Some("a/b.safetensors"), "a/b.safetensors", "a/b.spvd"),
            (Some("a/b.spvd"), "a/b.sparse.safetensors", "a/b.spvd"),
        ];
        for (named, network, packed) in cases {
            let got = results(named.map(Path::new), "net", &on_grids).unwrap();
            let want = Results {
                network: network.into(),
                packed: Some(packed.into()),
            };
            assert_eq!(got, want, "{named:?}");
        }
        assert_eq!(results(None, "net", &plain).unwrap().packed, None);
        let error = results(Some(Path::new("b.spvd")), "net", &plain).unwrap_err();
        assert!(error.to_string().contains("`quantise` phase"), "{error}");
        // A later phase moves weights off their grids.
        on_grids.phases.push(Phase::new(Method::FineTune, 1));
        assert!(!ends_on_grids(&on_grids));
    }

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
