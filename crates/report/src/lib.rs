//! A page that shows a compression: the weights going to zero over training, curves, and what came of it.
//!
//! [`Page`] makes one file in HTML that loads nothing from elsewhere, for browsers of 2023 or later:
//!
//! ```no_run
//! use sparsevd_compressor::report::Report;
//! use sparsevd_report::Page;
//!
//! let report = Report::read("lenet-5.report.json".as_ref())?;
//! let page = Page::of_run(&report, "lenet-5.run".as_ref())?;
//! std::fs::write("lenet-5.html", page.to_html()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod drawing;
mod page;
mod picture;

pub use page::Page;
