//! A comparison as text: the tables that people read.

use std::fmt;

use sparsevd_compressor::report::{
    Align, NO_TEST, Part, PooledScore, SplitScore, Table, count, probability,
};

use super::report::{ComparedMethods, MethodResult, PairedMethods};
use crate::train::ScoreReport;

impl fmt::Display for ComparedMethods {
    /// The network as it came, a table of the methods, and one of the others against the first; each line ends in a line end.
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
        let (seeds, part) = (seeds.join(", "), self.part);
        match self.seeds.as_slice() {
            [seed] => writeln!(f, "Seed {seed}.")?,
            _ => writeln!(
                f,
                "Means over seeds {seeds}. worst: the seed that lost most."
            )?,
        }
        let of_classes = self.is_of_classes();
        let (drop, alone) = match of_classes {
            true => (
                "points: of error over",
                "wrong or right alone: sums over the seeds; ",
            ),
            false => ("drop: R2 under", ""),
        };
        writeln!(
            f,
            "{drop} the network as it came, on the {part} samples; 95 % bound: one-sided."
        )?;
        if !self.paired.is_empty() {
            writeln!(f, "against: {alone}from, to: 90 % interval.")?;
        }
        if of_classes {
            writeln!(
                f,
                "p: of signs by sample. Of many comparisons some have a small p by chance."
            )?;
        }
        for result in &self.results {
            if let Some(other_number) = other_number(result) {
                writeln!(f, "{other_number}")?;
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

    /// Titles of what was lost, and of its p.
    fn drop_and_p(&self) -> (&'static str, &'static str) {
        match self.is_of_classes() {
            true => ("points", "p"),
            false => ("drop", ""),
        }
    }

    fn results(&self) -> Table {
        let (other, part) = match self.part {
            Part::Validation => ("", "validation"),
            Part::Test => ("validation", "test"),
        };
        let (drop, p) = self.drop_and_p();
        let mut columns = vec![
            ("method", Align::Left),
            ("asked", Align::Right),
            ("left", Align::Right),
            ("ratio", Align::Right),
            ("bytes", Align::Right),
            (other, Align::Right),
            (part, Align::Right),
            ("worst", Align::Right),
            (drop, Align::Right),
            ("95 % bound", Align::Right),
            (p, Align::Right),
        ];
        let has_test = !other.is_empty();
        columns.retain(|(title, _)| !title.is_empty());
        let mut table = Table::new(&columns);
        for result in &self.results {
            let score = result.score(self.part);
            let worst = result.worst(self.part);
            let start = [
                result.method.name().into(),
                format!("{}x", result.asked_ratio),
                count(result.left.round() as usize),
                (result.ratio).map_or("constant".into(), |ratio| format!("{ratio:.1}x")),
                (result.bytes).map_or(String::new(), |bytes| count(bytes.round() as usize)),
            ];
            let validation = has_test.then(|| level(&result.validation));
            let estimate = score.estimate();
            let end = [
                level(score),
                worst.map_or(String::new(), worst_level),
                signed(score, estimate.drop),
                signed(score, estimate.upper),
            ];
            let cells = start.into_iter().chain(validation).chain(end);
            table.row(cells.chain(p_of(score)));
        }
        table
    }

    fn paired(&self) -> Table {
        let reference = self.paired.first().map_or("", |pair| pair.reference.name());
        let title = format!("against {reference}");
        let its_left = format!("{reference}'s");
        let [alone, reference_alone] = match self.is_of_classes() {
            true => ["wrong alone", "right alone"],
            false => [""; 2],
        };
        let (drop, p) = self.drop_and_p();
        let mut columns = vec![
            (title.as_str(), Align::Left),
            ("asked", Align::Right),
            ("left", Align::Right),
            (its_left.as_str(), Align::Right),
            (alone, Align::Right),
            (reference_alone, Align::Right),
            (drop, Align::Right),
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
        let score = pair.score(self.part);
        let mut row = vec![
            pair.method.name().into(),
            format!("{}x", pair.asked_ratio),
            count(pair.left.round() as usize),
            count(pair.reference_left.round() as usize),
        ];
        if let PooledScore::Errors(e) = score {
            row.extend([count(e.only_wrong), count(e.reference_only_wrong)]);
        }
        let estimate = score.estimate();
        let interval = [estimate.drop, estimate.lower, estimate.upper];
        row.extend(interval.map(|x| signed(score, x)));
        row.extend(p_of(score));
        row
    }
}

/// What is said where another number of weights is left than was asked for.
fn other_number(result: &MethodResult) -> Option<String> {
    let asked = result.asked_weights;
    let posteriors = (result.seeds.iter()).filter_map(|seed| seed.posterior_weights);
    let posterior = posteriors.filter(|left| *left < asked).max();
    let least = result.seeds.iter().min_by_key(|seed| seed.left)?;
    let most = result.seeds.iter().max_by_key(|seed| seed.left)?;
    let said = match posterior {
        Some(left) => format!(
            "a posterior leaves {} weights, fewer than the {}",
            count(left),
            count(asked)
        ),
        None if most.left > asked => format!(
            "{} weights left with seed {}, more than the {}",
            count(most.left),
            most.seed,
            count(asked)
        ),
        None if least.left < asked => format!(
            "{} weights left with seed {}, fewer than the {}",
            count(least.left),
            least.seed,
            count(asked)
        ),
        None => return None,
    };
    let (method, ratio) = (result.method.name(), result.asked_ratio);
    Some(format!("{method} at {ratio}x: {said} that were asked for."))
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

/// Points of error, or R2, with a sign.
fn signed(score: &PooledScore, x: f64) -> String {
    match score {
        PooledScore::Errors(_) => format!("{x:+.2}"),
        PooledScore::Fit(_) => format!("{x:+.4}"),
    }
}

fn p_of(score: &PooledScore) -> Option<String> {
    match score {
        PooledScore::Errors(e) => Some(probability(e.p)),
        PooledScore::Fit(_) => None,
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
