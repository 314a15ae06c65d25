//! Reports as text: the tables that people read.

use std::fmt;
use std::path::Path;

use super::table::{Align, Table, bytes, count};
use super::{
    Accuracy, Against, Encoding, LayerSummary, PackedResult, PackedSize, Part, Pruning, Report,
    SEEN, SplitScore, Summary, Timing,
};
use crate::magnitude::Scope;

/// What is said where a data set has no test images.
pub const NO_TEST: &str = "the data set has no test images: no test error is reported";

/// Runs from which on their number is not worth telling.
const MANY_RUNS: usize = 20;

/// What is said where no plan was timed.
const NOT_TIMED: &str = "not timed: no latency is reported";

/// Classes whose errors are printed.
const CLASSES: usize = 3;

impl fmt::Display for Report {
    /// What is left, and tables of layers, errors, encodings and times; each ends in a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.summary;
        let (left, weights) = (count(s.nonzeros), count(s.weights));
        write!(f, "{}: {left} of {weights} weights left", self.network)?;
        match s.ratio {
            Some(ratio) => writeln!(f, ", {ratio:.1} times fewer")?,
            None => writeln!(f, ": the network is constant")?,
        }
        if let Some(why) = self.nothing_removed() {
            writeln!(f, "nothing was removed: {why}")?;
        }
        writeln!(f)?;
        writeln!(f, "{}", layers_with(s, |layer| kernels_of(self, layer)))?;
        match &self.accuracy {
            Some(accuracy) => {
                write!(f, "{}", errors(accuracy, self.packed_beside()))?;
                if accuracy.test.is_none() {
                    writeln!(f, "{NO_TEST}")?;
                }
                if let Some(classes) = classes(accuracy) {
                    write!(f, "\n{classes}")?;
                }
                if accuracy.promise_about == Part::Test {
                    writeln!(f, "{SEEN}")?;
                }
            }
            None => writeln!(f, "no data set was given: no error is reported")?,
        }
        if let Some(int8) = &self.int8 {
            writeln!(f, "{int8}")?;
        }
        if let Some(search) = &self.search {
            writeln!(f, "\n{search}")?;
        }
        writeln!(f, "\n{}", encodings(&self.encodings))?;
        if let Some(packed) = &self.packed {
            writeln!(f, "{}", self::packed(&packed.size, s.nonzeros))?;
        }
        match &self.timings {
            Some(timings) => {
                write!(f, "{}", self::timings(timings))?;
                few_runs(timings).map_or(Ok(()), |runs| writeln!(f, "{runs}"))
            }
            None => writeln!(f, "{NOT_TIMED}"),
        }
    }
}

impl Report {
    /// How the network was pruned and trained, and its files: `report` is that of this report, `page` the page that shows it, `run` the
    /// folder of the run.
    pub fn origin_and_files(&self, report: &Path, page: Option<&Path>, run: &Path) -> String {
        let mut text = String::new();
        if let Some(pruning) = &self.pruning {
            text += &format!("{pruning}\n");
        }
        let trained = !self.history.is_empty();
        if trained {
            text += &format!(
                "recipe: {}, seed {}; trained for {:.0} s\n",
                self.recipe_source, self.seed, self.training_seconds
            );
        }
        let written = |packed: &PackedResult| {
            let size = count(packed.size.bytes as usize);
            format!("{} ({size} B)", packed.output.display())
        };
        text += "wrote ";
        text += &match (&self.packed, self.packed_beside()) {
            (Some(alone), None) => written(alone),
            (_, beside) => {
                let size = bytes(self.summary.file_bytes);
                let network = format!("{} ({size})", self.output.display());
                beside.map_or(network.clone(), |p| format!("{network}, {}", written(p)))
            }
        };
        text += &match page {
            Some(page) => format!(", {} and {}", report.display(), page.display()),
            None => format!(" and {}", report.display()),
        };
        if let Some(error) = self.packed.as_ref().and_then(|p| p.rounding_error) {
            text += &format!("; {}", rounding(error));
        }
        if let Some(why) = &self.not_packed {
            text += &format!("; no .spvd, as it has no form for this network: {why}");
        }
        if trained {
            text += &format!("; the run is in {}", run.display());
        }
        text
    }

    /// The packed file, where there is another file beside it.
    fn packed_beside(&self) -> Option<&PackedResult> {
        self.packed.as_ref().filter(|p| p.output != self.output)
    }
}

/// What rounding to grids without training does to outputs, in words.
pub fn rounding(error: f64) -> String {
    let percent = 100.0 * error;
    format!("rounding to grids moved outputs by about {percent:.1} % (rms)")
}

impl fmt::Display for Pruning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magnitude(magnitude) => {
                let scope = match magnitude.scope {
                    Scope::Global => "all layers together",
                    Scope::Layer => "each layer",
                };
                let share = 100.0 * magnitude.sparsity;
                write!(f, "pruned by magnitude: {share:.2} % of {scope}")
            }
            Self::Calibration(settings) => {
                let (share, samples) = (100.0 * settings.sparsity, settings.samples);
                write!(
                    f,
                    "pruned by calibration on {samples} samples: {share:.2} % of the pruned layers together"
                )
            }
            Self::Posterior { file, threshold } => {
                let file = file.display();
                write!(f, "pruned by the posterior {file} at log alpha {threshold}")
            }
        }
    }
}

/// One line per layer and one for all.
pub fn layers(summary: &Summary) -> Table {
    layers_with(summary, |_| vec![])
}

/// One line per layer and one for all, with more columns by `more`.
fn layers_with(summary: &Summary, more: impl Fn(&LayerSummary) -> Vec<(String, String)>) -> Table {
    let extra: Vec<String> = summary.layers.first().map_or(vec![], |l| {
        more(l).into_iter().map(|(title, _)| title).collect()
    });
    let mut columns = vec![
        ("layer", Align::Left),
        ("op", Align::Left),
        ("shape", Align::Left),
        ("weights", Align::Right),
        ("left", Align::Right),
        ("density", Align::Right),
    ];
    // A packed file has no bytes by layer.
    let stored: Option<u64> = summary.layers.iter().map(|l| l.bytes).sum();
    if stored.is_some() {
        columns.push(("bytes", Align::Right));
    }
    columns.extend(extra.iter().map(|title| (title.as_str(), Align::Left)));
    let mut table = Table::new(&columns);
    let percent =
        |left: usize, of: usize| format!("{:.2} %", 100.0 * left as f64 / of.max(1) as f64);
    for layer in &summary.layers {
        let shape = if layer.shape == layer.original_shape {
            layer.shape.to_string()
        } else {
            format!("{} of {}", layer.shape, layer.original_shape)
        };
        let cells = [
            layer.name.clone(),
            layer.op.clone(),
            shape,
            count(layer.weights),
            count(layer.nonzeros),
            percent(layer.nonzeros, layer.weights),
        ];
        table.row(
            cells
                .into_iter()
                .chain(layer.bytes.map(bytes))
                .chain(more(layer).into_iter().map(|(_, cell)| cell)),
        );
    }
    let all = [
        "all".into(),
        String::new(),
        String::new(),
        count(summary.weights),
        count(summary.nonzeros),
        percent(summary.nonzeros, summary.weights),
    ];
    table.row(all.into_iter().chain(stored.map(bytes)));
    table
}

/// Kernels by batch, titled.
fn kernels_of(report: &Report, layer: &LayerSummary) -> Vec<(String, String)> {
    let of_layer = report.kernels.iter().filter(|k| k.layer == layer.name);
    of_layer
        .map(|k| (format!("kernel, batch {}", k.batch), k.kernel.clone()))
        .collect()
}

/// Errors in percent, or R2 and root mean squared error of a regression, with the upper 95 % bound of what was lost, and McNemar's p
/// of errors.
fn errors(accuracy: &Accuracy, packed: Option<&PackedResult>) -> Table {
    let regression = matches!(accuracy.validation, SplitScore::Fit(_));
    let agreement = accuracy.against == Against::DenseNetwork && !regression;
    if agreement {
        return agreements(accuracy, packed);
    }
    let titles = if regression {
        ["R2", "samples", "drop"]
    } else {
        ["error", "images", "points"]
    };
    let columns = [
        (titles[0], Align::Left),
        (titles[1], Align::Right),
        ("before", Align::Right),
        ("after", Align::Right),
        (titles[2], Align::Right),
        ("95 % bound", Align::Right),
        (if regression { "" } else { "p" }, Align::Right),
    ];
    let mut table = Table::new(&columns);
    for (name, score) in scores(accuracy, packed) {
        match score {
            SplitScore::Errors(error) => table.row([
                name.into(),
                count(error.images),
                format!("{:.2} %", error.dense_percent),
                format!("{:.2} %", error.sparse_percent),
                format!("{:+.2}", score.drop()),
                format!("{:+.2}", error.estimate.upper),
                probability(error.mcnemar_p),
            ]),
            SplitScore::Fit(fit) => {
                table.row([
                    name.into(),
                    count(fit.samples),
                    format!("{:.4}", fit.dense_r2),
                    format!("{:.4}", fit.sparse_r2),
                    format!("{:+.4}", score.drop()),
                    format!("{:+.4}", fit.estimate.upper),
                ]);
                table.row([
                    format!("{name}, RMSE"),
                    count(fit.samples),
                    format!("{:.4e}", fit.dense_rmse),
                    format!("{:.4e}", fit.sparse_rmse),
                ]);
            }
        }
    }
    table
}

/// The scores of both files on each part of the samples, by name.
fn scores(
    accuracy: &Accuracy,
    packed: Option<&PackedResult>,
) -> impl Iterator<Item = (&'static str, SplitScore)> {
    let sets = [
        ("validation", Some(accuracy.validation)),
        ("validation, packed", packed.and_then(|p| p.validation)),
        ("test", accuracy.test),
        ("test, packed", packed.and_then(|p| p.test)),
    ];
    sets.into_iter()
        .filter_map(|(name, score)| Some((name, score?)))
}

/// Percent of inputs to which a result answers as the dense network does, with the lower 95 % bound.
fn agreements(accuracy: &Accuracy, packed: Option<&PackedResult>) -> Table {
    let mut table = Table::new(&[
        ("agreement with the dense network", Align::Left),
        ("inputs", Align::Right),
        ("answered alike", Align::Right),
        ("share", Align::Right),
        ("95 % bound", Align::Right),
    ]);
    for (name, score) in scores(accuracy, packed) {
        let SplitScore::Errors(errors) = score else {
            continue;
        };
        let agreement = 100.0 - errors.sparse_percent;
        let alike = errors.images as f64 * agreement / 100.0;
        // The dense network is at fault only where the last bits of equal scores decide.
        table.row([
            name.into(),
            count(errors.images),
            count(alike.round() as usize),
            format!("{agreement:.2} %"),
            format!(
                "{:.2} %",
                100.0 - errors.dense_percent - errors.estimate.upper
            ),
        ]);
    }
    table
}

/// Errors of the classes that lost most, where any lost anything.
fn classes(accuracy: &Accuracy) -> Option<Table> {
    let mut classes: Vec<_> = (accuracy.classes().iter())
        .map(|class| (class.estimate(), class))
        .filter(|(estimate, _)| estimate.drop > 0.0)
        .collect();
    classes.sort_by(|(a, _), (b, _)| b.drop.total_cmp(&a.drop));
    let title = format!("class, {}", accuracy.promise_about);
    let mut table = Table::new(&[
        (title.as_str(), Align::Left),
        ("images", Align::Right),
        ("before", Align::Right),
        ("after", Align::Right),
        ("points", Align::Right),
        ("95 % bound", Align::Right),
    ]);
    for (estimate, class) in classes.iter().take(CLASSES) {
        let percent = |wrong: usize| format!("{:.2} %", 100.0 * wrong as f64 / class.images as f64);
        table.row([
            class.class.to_string(),
            count(class.images),
            percent(class.dense_wrong),
            percent(class.sparse_wrong),
            format!("{:+.2}", estimate.drop),
            format!("{:+.2}", estimate.upper),
        ]);
    }
    (!classes.is_empty()).then_some(table)
}

/// A probability of a test, to four digits.
pub fn probability(p: f64) -> String {
    match p {
        p if p < 1e-4 => "<0.0001".into(),
        p => format!("{p:.4}"),
    }
}

/// Where the bits of a packed file go.
pub fn packed(size: &PackedSize, nonzeros: usize) -> Table {
    let mut table = Table::new(&[
        ("packed", Align::Left),
        ("bytes", Align::Right),
        ("share", Align::Right),
        ("bits per weight left", Align::Right),
    ]);
    let all = 8 * size.bytes;
    for (name, bits) in size.parts().into_iter().chain([("all", all)]) {
        table.row([
            name.into(),
            format!("{:.1}", bits as f64 / 8.0),
            format!("{:.1} %", 100.0 * bits as f64 / all.max(1) as f64),
            format!("{:.2}", bits as f64 / nonzeros.max(1) as f64),
        ]);
    }
    table
}

/// Bytes by encoding, against the first.
pub fn encodings(encodings: &[Encoding]) -> Table {
    let mut table = Table::new(&[
        ("encoding", Align::Left),
        ("bytes", Align::Right),
        ("smaller", Align::Right),
    ]);
    let first = encodings.first().map_or(0, |e| e.bytes);
    for e in encodings {
        table.row([
            e.encoding.clone(),
            count(e.bytes as usize),
            format!("{:.1}x", first as f64 / e.bytes.max(1) as f64),
        ]);
    }
    table
}

fn timings(timings: &[Timing]) -> Table {
    let columns = [
        ("plan", Align::Left),
        ("batch", Align::Right),
        ("p50 us", Align::Right),
        ("p99 us", Align::Right),
        ("items/s", Align::Right),
        ("weights", Align::Right),
        ("arena", Align::Right),
        ("faster", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for t in timings {
        let dense = timings
            .iter()
            .find(|d| d.plan == "dense" && d.batch == t.batch);
        table.row([
            t.plan.clone(),
            t.batch.to_string(),
            format!("{:.2}", t.p50_us),
            format!("{:.2}", t.p99_us),
            format!("{:.0}", t.items_per_s),
            bytes(t.weight_bytes as u64),
            bytes(t.arena_bytes as u64),
            dense.map_or(String::new(), |d| format!("{:.1}x", d.p50_us / t.p50_us)),
        ]);
    }
    table
}

/// How many runs the times of a slow network are of, where these are few.
fn few_runs(timings: &[Timing]) -> Option<String> {
    let few = timings.iter().filter_map(|t| {
        let runs = t.runs.filter(|&runs| runs < MANY_RUNS)?;
        Some(format!("{} of {}, batch {}", count(runs), t.plan, t.batch))
    });
    let few: Vec<String> = few.collect();
    (!few.is_empty()).then(|| format!("runs: {}; p99 is their slowest", few.join(", ")))
}
