//! `compress report RUN`: a page in HTML that shows a compression.

use std::path::{Path, PathBuf};

use anyhow::Context;
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
        Some(folder) => Report::read(&report_path(folder)).with_context(|| {
            format!(
                "{}: expected the folder of a run that is finished",
                folder.display()
            )
        })?,
        None => Report::read(&args.run)?,
    };
    let default = || PathBuf::from(format!("{}.report.html", report.network));
    let page = args.html.clone().unwrap_or_else(default);
    check_writable(&page, args.force)?;
    let size = write(&report, folder, &page)?;
    print::text(format_args!("wrote {} ({})", page.display(), bytes(size)))?;
    Ok(Outcome::Done)
}

/// The page of a report that lies beside it.
pub fn beside(report: &Path) -> PathBuf {
    report.with_extension("html")
}

/// Writes the page of a report, with the frames of its run where that has a folder, and returns its size in bytes.
pub fn write(report: &Report, run: Option<&Path>, page: &Path) -> anyhow::Result<u64> {
    let html = match run {
        Some(run) => Page::of_run(report, run)?,
        None => Page::new(report),
    };
    let html = html.to_html()?;
    write_atomically(page, |out| out.write_all(html.as_bytes()))?;
    Ok(html.len() as u64)
}
