//! A comparison as text: the tables that people read.

use std::fmt;

use sparsevd_compressor::report::{
    Align, NO_TEST, Part, PooledScore, SplitScore, Table, count, probability,
};

use super::report::{ComparedMethods, MethodResult, PairedMethods};
use crate::train::ScoreReport;

impl fmt::Display for ComparedMethods {
    /// The network as it came, a table of the methods, and one of the others beside the first; each line ends in a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (weights, validation) = (count(self.weights), in_words(&self.validation));
        write!(f, "{}, {weights} weights, as it came: ", self.network)?;
        match &self.test {
            Some(test) => writeln!(f, "validation {validation}, test {}", in_words(test))?,
            None => writeln!(f, "validation {validation}\n{NO_TEST}")?,
        }
        writeln!(f, "\n{}", self.results())?;
        if !self.paired.is_empty() {
            writeln!(f, "{}", self.paired())?;
        }
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        let (seeds, about) = (seeds.join(", "), self.about);
        let of_classes = self.is_of_classes();
        let (drop, of_pairs, of_worst) = match of_classes {
            true => (
                "points of error over",
                "wrong or right alone: sums over the seeds; ",
                ", and McNemar's exact p of it",
            ),
            false => ("R2 under", "", ""),
        };
        match self.seeds.as_slice() {
            [seed] => writeln!(f, "Seed {seed}.")?,
            _ => writeln!(
                f,
                "Means over seeds {seeds}. worst: the seed that lost most{of_worst}."
            )?,
        }
        writeln!(
            f,
            "drop: {drop} the network as it came, on the {about} samples; bound: one-sided 95 %."
        )?;
        if !self.paired.is_empty() {
            let p = if of_classes {
                "; p: of signs by sample"
            } else {
                ""
            };
            writeln!(f, "beside: {of_pairs}from, to: one-sided 95 %{p}.")?;
        }
        for result in &self.results {
            if let Some(fewer) = fewer(result) {
                writeln!(f, "{fewer}")?;
            }
        }
        Ok(())
    }
}

impl ComparedMethods {
    fn is_of_classes(&self) -> bool {
        match self.validation {
            ScoreReport::Classes { .. } => true,
            ScoreReport::Regression { .. } => false,
        }
    }

    fn results(&self) -> Table {
        let (other, about) = match self.about {
            Part::Validation => ("", "validation"),
            Part::Test => ("validation", "test"),
        };
        let p = if self.is_of_classes() { "worst p" } else { "" };
        let mut columns = vec![
            ("method", Align::Left),
            ("asked", Align::Right),
            ("left", Align::Right),
            ("ratio", Align::Right),
            ("bytes", Align::Right),
            (other, Align::Right),
            (about, Align::Right),
            ("worst", Align::Right),
            ("drop", Align::Right),
            ("bound", Align::Right),
            (p, Align::Right),
        ];
        let has_test = !other.is_empty();
        columns.retain(|(title, _)| !title.is_empty());
        let mut table = Table::new(&columns);
        for result in &self.results {
            let score = result.score(self.about);
            let worst = result.worst(self.about);
            let start = [
                result.method.name().into(),
                format!("{}x", result.asked_ratio),
                count(result.left.round() as usize),
                (result.ratio).map_or("constant".into(), |ratio| format!("{ratio:.1}x")),
                (result.bytes).map_or(String::new(), |bytes| count(bytes.round() as usize)),
            ];
            let validation = has_test.then(|| level(&result.validation));
            let (points, bound) = drop_and_bound(score);
            let end = [
                level(score),
                worst.map_or(String::new(), worst_level),
                points,
                bound,
                worst.map_or(String::new(), worst_p),
            ];
            table.row(start.into_iter().chain(validation).chain(end));
        }
        table
    }

    fn paired(&self) -> Table {
        let reference = self.paired.first().map_or("", |pair| pair.reference.name());
        let title = format!("beside {reference}");
        let its_left = format!("{reference}'s");
        let [alone, reference_alone, p] = match self.is_of_classes() {
            true => ["wrong alone", "right alone", "p"],
            false => [""; 3],
        };
        let mut columns = vec![
            (title.as_str(), Align::Left),
            ("asked", Align::Right),
            ("left", Align::Right),
            (its_left.as_str(), Align::Right),
            (alone, Align::Right),
            (reference_alone, Align::Right),
            ("drop", Align::Right),
            ("from", Align::Right),
            ("to", Align::Right),
            (p, Align::Right),
        ];
        columns.retain(|(title, _)| !title.is_empty());
        let mut table = Table::new(&columns);
        for pair in &self.paired {
            table.row(self.pair(pair));
        }
        table
    }

    fn pair(&self, pair: &PairedMethods) -> Vec<String> {
        let score = pair.score(self.about);
        let mut row = vec![
            pair.method.name().into(),
            format!("{}x", pair.asked_ratio),
            count(pair.left.round() as usize),
            count(pair.reference_left.round() as usize),
        ];
        let estimate = score.estimate();
        match score {
            PooledScore::Errors(e) => row.extend([
                count(e.only_wrong),
                count(e.reference_only_wrong),
                format!("{:+.2}", estimate.drop),
                format!("{:+.2}", estimate.lower),
                format!("{:+.2}", estimate.upper),
                probability(e.p),
            ]),
            PooledScore::Fit(_) => row.extend([
                format!("{:+.4}", estimate.drop),
                format!("{:+.4}", estimate.lower),
                format!("{:+.4}", estimate.upper),
            ]),
        }
        row
    }
}

/// What is said where a posterior leaves fewer weights than were asked for.
fn fewer(result: &MethodResult) -> Option<String> {
    let fewer = |left: &usize| *left < result.asked_weights;
    let posteriors = result
        .seeds
        .iter()
        .filter_map(|seed| seed.posterior_weights);
    let most = posteriors.filter(fewer).max()?;
    Some(format!(
        "{} at {}x: a posterior leaves {} weights, fewer than the {} that were asked for.",
        result.method.name(),
        result.asked_ratio,
        count(most),
        count(result.asked_weights),
    ))
}

/// A mean error or R2.
fn level(score: &PooledScore) -> String {
    match score {
        PooledScore::Errors(e) => format!("{:.2} %", e.percent),
        PooledScore::Fit(fit) => format!("{:.4}", fit.r2),
    }
}

fn worst_level(score: &SplitScore) -> String {
    match score {
        SplitScore::Errors(e) => format!("{:.2} %", e.sparse_percent),
        SplitScore::Fit(fit) => format!("{:.4}", fit.sparse_r2),
    }
}

fn worst_p(score: &SplitScore) -> String {
    match score {
        SplitScore::Errors(e) => probability(e.mcnemar_p),
        SplitScore::Fit(_) => String::new(),
    }
}

fn drop_and_bound(score: &PooledScore) -> (String, String) {
    let estimate = score.estimate();
    match score {
        PooledScore::Errors(_) => (
            format!("{:+.2}", estimate.drop),
            format!("{:+.2}", estimate.upper),
        ),
        PooledScore::Fit(_) => (
            format!("{:+.4}", estimate.drop),
            format!("{:+.4}", estimate.upper),
        ),
    }
}

fn in_words(score: &ScoreReport) -> String {
    match *score {
        ScoreReport::Classes {
            images,
            error_percent,
        } => format!("error {error_percent:.2} % of {}", count(images)),
        ScoreReport::Regression { samples, r2, .. } => {
            format!("R2 {r2:.4} of {}", count(samples))
        }
    }
}
