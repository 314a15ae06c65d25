//! `compress report RUN`: a page in HTML that shows a compression.

use std::path::{Path, PathBuf};

use anyhow::bail;
use sparsevd_compressor::report::{Report, bytes};
use sparsevd_format::{check_writable, write_atomically};
use sparsevd_pipeline::report_path;
use sparsevd_report::Page;

use crate::args::ReportArgs;
use crate::print;
use sparsevd_cli::Outcome;

pub fn run(args: &ReportArgs) -> anyhow::Result<Outcome> {
    let folder = args.run.is_dir().then_some(args.run.as_path());
    let report = match folder {
        Some(folder) if !report_path(folder).is_file() => bail!(
            "{}: expected the folder of a finished run of `compress MODEL`, got none with a report",
            folder.display()
        ),
        Some(folder) => Report::read(&report_path(folder))?,
        None => Report::read(&args.run)?,
    };
    let page = (args.html.clone()).unwrap_or_else(|| PathBuf::from(page_name(&args.run)));
    for file in [Some(&page), args.gif.as_ref()].into_iter().flatten() {
        check_writable(file, args.force)?;
    }
    let shown = of(&report, folder)?;
    let html = shown.to_html()?;
    put(&page, html.as_bytes())?;
    if let Some(file) = &args.gif {
        let Some(gif) = shown.to_gif()? else {
            bail!(
                "--gif: expected the folder of a run with frames, got {}",
                args.run.display()
            );
        };
        put(file, &gif)?;
    }
    Ok(Outcome::Done)
}

/// What is shown of a report, with the frames of its run where that has a folder.
fn of<'r>(report: &'r Report, run: Option<&Path>) -> anyhow::Result<Page<'r>> {
    Ok(match run {
        Some(run) => Page::of_run(report, run)?,
        None => Page::new(report),
    })
}

fn put(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    let size = write_atomically(file, |out| out.write_all(content))?;
    print::text(format_args!("wrote {} ({})", file.display(), bytes(size)))
}

/// The name of the page of a run folder `NAME.run` or of a report `NAME.report.json`.
fn page_name(run: &Path) -> String {
    let name = run.canonicalize().unwrap_or_else(|_| run.to_owned());
    let name = name.file_name().unwrap_or(run.as_os_str());
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
    Ok(of(report, run)?.to_html()?)
}
