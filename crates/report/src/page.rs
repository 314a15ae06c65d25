//! The page.

use std::io::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde::Serialize;
use sparsevd_compressor::CompressError;
use sparsevd_compressor::frame::FrameTime;
use sparsevd_compressor::report::Report;
use sparsevd_model::Network;
use sparsevd_pipeline::frame_files;

use crate::drawing::{animate, still};
use crate::picture::{Part, Picture, PictureLayer};

const HTML: &str = include_str!("page.html");
const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");

/// A page about one compression.
#[derive(Debug)]
pub struct Page<'r> {
    report: &'r Report,
    picture: Option<Picture>,
}

/// What the script of the page draws.
#[derive(Serialize)]
struct Data<'p> {
    report: &'p Report,
    /// The program, and how the network was trained.
    made: String,
    /// The recipe as TOML; empty where it is not known.
    recipe: String,
    picture: Option<PictureData<'p>>,
}

#[derive(Serialize)]
struct PictureData<'p> {
    times: &'p [FrameTime],
    layers: Vec<LayerData<'p>>,
}

#[derive(Serialize)]
struct LayerData<'p> {
    node: &'p str,
    shape: &'p [usize],
    left: &'p [usize],
    /// Pairs of unit and input channel, of a convolution.
    #[serde(skip_serializing_if = "Option::is_none")]
    kernels: Option<&'p [[u32; 2]]>,
    /// Units and inputs of a fragment.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<&'p [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<&'p [u32]>,
    /// The weights of all frames, a byte each, through zlib and in base64.
    data: String,
}

impl<'r> Page<'r> {
    /// The page of a report, without the weights over training.
    pub fn new(report: &'r Report) -> Self {
        let picture = None;
        Self { report, picture }
    }

    /// The page of a report with the frames in the folder of its run.
    ///
    /// # Errors
    /// Frames that cannot be read. A folder without frames gives the page of [`Self::new`].
    pub fn of_run(report: &'r Report, run: &Path) -> Result<Self, CompressError> {
        let picture = Picture::read(&frame_files(run, report.search.as_ref())?)?;
        Ok(Self { report, picture })
    }

    /// The page of a report on a network of which there is no run, with its weights as they are.
    pub fn of_network(report: &'r Report, network: &Network) -> Self {
        let picture = Some(Picture::of_network(network));
        Self { report, picture }
    }

    /// The weights before training and at its end, one above the other, as a PNG, 800 pixels wide; `None` where the run has no frames.
    ///
    /// # Errors
    /// A picture of more pixels than a PNG has.
    pub fn to_png(&self) -> Result<Option<Vec<u8>>, CompressError> {
        let picture = self.picture.as_ref();
        picture.map(|p| still(p, self.report)).transpose()
    }

    /// The weights over training as an animated GIF, 800 pixels wide; `None` where the run has no frames.
    ///
    /// # Errors
    /// A picture of more pixels than a GIF has.
    pub fn to_gif(&self) -> Result<Option<Vec<u8>>, CompressError> {
        let picture = self.picture.as_ref();
        picture.map(|p| animate(p, self.report)).transpose()
    }

    /// The page as one file.
    ///
    /// # Errors
    /// A report that JSON does not hold.
    pub fn to_html(&self) -> Result<String, CompressError> {
        let fail = |e: std::io::Error| CompressError::Report {
            path: self.report.output.clone(),
            what: e.to_string(),
        };
        let picture = self.picture.as_ref().map(|picture| {
            let layers: Result<_, _> = picture.layers.iter().map(LayerData::new).collect();
            Ok(PictureData {
                times: &picture.times,
                layers: layers?,
            })
        });
        let data = Data {
            report: self.report,
            made: self.made(),
            recipe: match self.report.recipe_source.is_empty() {
                true => String::new(),
                false => self.report.recipe.to_toml(),
            },
            picture: picture.transpose().map_err(fail)?,
        };
        // Nothing in the data ends the script that holds it.
        let data = serde_json::to_string(&data).map_err(|e| fail(e.into()))?;
        let data = data.replace('<', "\\u003c");
        // Where names from files hold a placeholder, it is not the first.
        let page = HTML.replace("{{css}}", CSS).replace("{{js}}", JS);
        let page = page.replacen("{{data}}", &data, 1);
        Ok(page.replacen("{{title}}", &escaped(&self.report.network), 1))
    }
}

impl Page<'_> {
    /// The program, how weights were pruned before any training, and how the rest was trained.
    fn made(&self) -> String {
        let report = self.report;
        let pruned = report.pruning.as_ref();
        let pruned = pruned.map_or(String::new(), |p| format!("; {p}"));
        let recipe = || format!("; recipe: {}, seed {}", report.recipe_source, report.seed);
        let trained = match report.history.is_empty() {
            true if pruned.is_empty() && !report.recipe_source.is_empty() => recipe(),
            true => String::new(),
            false => format!("{}; trained for {:.0} s", recipe(), report.training_seconds),
        };
        format!("sparsevd {}{pruned}{trained}", report.version)
    }
}

impl<'p> LayerData<'p> {
    fn new(layer: &'p PictureLayer) -> std::io::Result<Self> {
        let mut encoder = ZlibEncoder::new(vec![], Compression::best());
        let values: Vec<u8> = layer.values.iter().map(|v| *v as u8).collect();
        encoder.write_all(&values)?;
        let (kernels, rows, columns) = match &layer.part {
            Part::Kernels(kernels) => (Some(kernels.as_slice()), None, None),
            Part::Fragment(rows, columns) => (None, Some(&rows[..]), Some(&columns[..])),
        };
        Ok(Self {
            node: &layer.node,
            shape: &layer.shape,
            left: &layer.left,
            kernels,
            rows,
            columns,
            data: STANDARD.encode(encoder.finish()?),
        })
    }
}

/// A name of a file as text of HTML.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}
