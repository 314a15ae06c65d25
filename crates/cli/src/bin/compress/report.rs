//! `compress report`: a page in HTML that shows a compression, or a network.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sparsevd_compressor::report::{Report, bytes};
use sparsevd_format::{check_writable, network_files, write_atomically};
use sparsevd_pipeline::{report_on_file, report_path};
use sparsevd_report::Page;

use crate::args::ReportArgs;
use crate::print;
use sparsevd_cli::Outcome;

pub fn run(args: &ReportArgs) -> anyhow::Result<Outcome> {
    let page = (args.html.clone()).unwrap_or_else(|| PathBuf::from(page_name(&args.of)));
    for file in [Some(&page), args.gif.as_ref(), args.png.as_ref()] {
        file.map_or(Ok(()), |file| check_writable(file, args.force))?;
    }
    let of = args.of.as_path();
    match Of::at(of) {
        Of::Run => {
            if !report_path(of).is_file() {
                bail!(
                    "{}: expected the folder of a finished run of `compress MODEL`, got none with a report",
                    of.display()
                );
            }
            let report = Report::read(&report_path(of))?;
            write_all(args, &page, &Page::of_run(&report, of)?)
        }
        Of::Report => write_all(args, &page, &Page::new(&Report::read(of)?)),
        Of::Network => {
            let loaded = sparsevd_cli::network(of, &args.graph, false)?;
            let network = loaded.network.clone();
            let report = report_on_file(of, loaded, !args.no_bench)?;
            write_all(args, &page, &Page::of_network(&report, &network))
        }
    }
}

/// What a report is made of.
enum Of {
    Run,
    Report,
    Network,
}

impl Of {
    /// A folder without shards of a network is that of a run, and JSON that is no index of shards a report.
    fn at(path: &Path) -> Self {
        let is_json = path.extension().is_some_and(|e| e == "json");
        match network_files(path) {
            Err(_) if path.is_dir() => Self::Run,
            Ok(files) if files.as_slice() == [path] && is_json => Self::Report,
            _ => Self::Network,
        }
    }
}

/// Writes the page, and the pictures that are asked for.
fn write_all(args: &ReportArgs, page: &Path, shown: &Page<'_>) -> anyhow::Result<Outcome> {
    let html = shown.to_html()?;
    let mut pictures = vec![];
    if let Some(file) = &args.gif {
        pictures.push((file, drawn("--gif", args, shown.to_gif()?)?));
    }
    if let Some(file) = &args.png {
        pictures.push((file, drawn("--png", args, shown.to_png()?)?));
    }
    put(page, html.as_bytes())?;
    for (file, picture) in pictures {
        put(file, &picture)?;
    }
    Ok(Outcome::Done)
}

/// A picture that an option asks for.
fn drawn(option: &str, args: &ReportArgs, picture: Option<Vec<u8>>) -> anyhow::Result<Vec<u8>> {
    picture.with_context(|| {
        format!(
            "{option}: expected the folder of a run with frames, or a network, got {}",
            args.of.display()
        )
    })
}

fn put(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    let size = write_atomically(file, |out| out.write_all(content))?;
    print::text(format_args!("wrote {} ({})", file.display(), bytes(size)))
}

/// The name of the page of a run folder `NAME.run`, of a report `NAME.report.json`, or of a network, whose name stays whole: beside a result
/// that is `NAME.safetensors` or `NAME.spvd` lies the page of its run.
fn page_name(of: &Path) -> String {
    let name = of.canonicalize().unwrap_or_else(|_| of.to_owned());
    let name = name.file_name().unwrap_or(of.as_os_str());
    let name = name.to_string_lossy();
    let endings = [".run", ".report.json", ".json"];
    let stem = endings.iter().find_map(|ending| name.strip_suffix(ending));
    format!("{}.report.html", stem.unwrap_or(&name))
}

/// The page of a report that lies beside it.
pub fn beside(report: &Path) -> PathBuf {
    report.with_extension("html")
}

/// The page of a report, with the frames of its run where that has a folder.
pub fn page(report: &Report, run: Option<&Path>) -> anyhow::Result<String> {
    let shown = match run {
        Some(run) => Page::of_run(report, run)?,
        None => Page::new(report),
    };
    Ok(shown.to_html()?)
}
