//! Batch normalisation after the convolutions of a network that came without, for training.

use std::borrow::Cow;

use sparsevd_compressor::Samples;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::trainer::Observer;
use sparsevd_model::passes::{
    ChannelStatistics, insert_batch_normalization, without_normalization,
};
use sparsevd_model::{Network, memory};
use sparsevd_runtime::WeightMode;

use crate::calibrate::inputs::{BATCH, Batches, FirstSamples};
use crate::error::PipelineError;
use crate::measure::session;
use crate::split::Split;

/// Samples that statistics are taken of.
const SAMPLES: usize = 1024;

/// What is trained of a network: the network itself, or, where the recipe says so, one that computes the same with a batch normalisation after
/// each convolution, whose statistics are those of the first training samples.
pub(crate) fn with_batch_normalisation<'n>(
    network: &'n Network,
    recipe: &Recipe,
    samples: &Split,
    observer: &mut dyn Observer,
) -> Result<Cow<'n, Network>, PipelineError> {
    if !recipe.batch_normalisation {
        return Ok(Cow::Borrowed(network));
    }
    Ok(Cow::Owned(normalised(
        network,
        samples.training.train(),
        observer,
    )?))
}

/// A convolution whose output is measured.
struct Convolution<'n> {
    name: &'n str,
    /// Numbers of its output per sample.
    size: usize,
    /// Its output for a batch.
    output: Vec<f32>,
    /// Of each channel.
    sums: Vec<Sum>,
}

fn normalised(
    network: &Network,
    samples: &dyn Samples,
    observer: &mut dyn Observer,
) -> Result<Network, PipelineError> {
    let names = without_normalization(network);
    if names.is_empty() {
        return Ok(network.clone());
    }
    observer.note(&format!(
        "batch normalisation after {} convolutions, by the statistics of {} samples",
        names.len(),
        SAMPLES.min(samples.len())
    ));
    let shapes = network.shapes()?;
    let all = names.iter().map(|name| shapes[name].elements());
    let all = all.fold(0, usize::saturating_add).saturating_mul(BATCH);
    let what = || format!("the outputs of {} convolutions", names.len());
    memory::check_elements(what, all, size_of::<f32>())?;
    let mut convolutions: Vec<Convolution<'_>> = (names.iter())
        .map(|name| Convolution {
            name,
            size: shapes[name].elements(),
            output: vec![0.0; shapes[name].elements() * BATCH],
            sums: vec![Sum::default(); shapes[name].matrix().0],
        })
        .collect();
    let mut read = network.clone();
    read.graph.outputs = names.iter().map(|&name| name.to_owned()).collect();
    // One thread: statistics must not depend on the number of threads.
    let session = session(&read, WeightMode::Dense, BATCH, 1)?;
    FirstSamples::new(network, samples, SAMPLES).for_each(&mut |batch| {
        if observer.stop() {
            return Err(PipelineError::Interrupted { folder: None });
        }
        let inputs = batch.inputs.iter();
        let inputs: Vec<(&str, &[f32])> = inputs.map(|(name, x)| (name.as_str(), &x[..])).collect();
        let mut outputs: Vec<(&str, &mut [f32])> = (convolutions.iter_mut())
            .map(|c| (c.name, &mut c.output[..c.size * batch.count]))
            .collect();
        session.run(batch.count, &inputs[..], &mut outputs[..])?;
        for Convolution {
            size, output, sums, ..
        } in &mut convolutions
        {
            for map in output[..*size * batch.count].chunks_exact(*size) {
                let channels = map.chunks_exact(*size / sums.len());
                sums.iter_mut()
                    .zip(channels)
                    .for_each(|(sum, channel)| sum.add(channel));
            }
        }
        Ok(())
    })?;
    let statistics = convolutions.iter();
    let statistics = statistics.map(|c| (c.name.to_owned(), statistics_of(&c.sums)));
    Ok(insert_batch_normalization(network, &statistics.collect()))
}

/// Sums over the values of a channel.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: f64,
    values: f64,
    squares: f64,
}

impl Sum {
    fn add(&mut self, values: &[f32]) {
        self.count += values.len() as f64;
        for &value in values {
            let value = f64::from(value);
            self.values += value;
            self.squares += value * value;
        }
    }
}

/// Rounded to eight bits: other statistics would do as well, and these are the same with every instruction set, but where a number is all but
/// between two. A run must go on with the network that it began with.
fn statistics_of(sums: &[Sum]) -> ChannelStatistics {
    let round = |x: f64| f32::from_bits((x as f32).to_bits().wrapping_add(0x8000) & 0xffff_0000);
    let mean = |sum: &Sum| sum.values / sum.count;
    let variance = |sum: &Sum| (sum.squares / sum.count - mean(sum).powi(2)).max(0.0);
    ChannelStatistics {
        mean: sums.iter().map(|sum| round(mean(sum))).collect(),
        variance: sums.iter().map(|sum| round(variance(sum))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_compressor::trainer::Silent;
    use sparsevd_compressor::{Images, initialise};
    use sparsevd_format::{Dataset, Pixels};
    use sparsevd_model::{Conv2d, GraphBuilder, Op, Preprocessing, Shape, Window, passes};
    use sparsevd_runtime::Session;

    use super::*;

    /// The statistics of a convolution over two images by hand, and a network that computes what it did.
    #[test]
    fn a_network_computes_what_it_did_and_its_convolutions_are_normalised() {
        let mut b = GraphBuilder::new("net");
        b.preprocessing(Preprocessing::default());
        let shape = Shape::from([1, 2, 2]);
        let x = b.input("x", shape.clone());
        let window = Window::square(1, 1);
        let x = b.conv("c", &x, &Conv2d::new(1, window.clone()));
        let x = b.op("r", Op::Relu, &[&x]);
        let x = b.conv("d", &x, &Conv2d::new(3, window));
        let x = b.op("flat", Op::Flatten, &[&x]);
        b.output(&x);
        let (graph, tensors) = b.finish_with_tensors().unwrap();
        let mut network = initialise(graph, &tensors, 3).unwrap();
        for (name, value) in [("c.weight", 2.0), ("c.bias", 0.5)] {
            let mut tensor = network.tensors[name].to_dense();
            tensor.values.fill(value);
            network.tensors.insert(name.into(), tensor.into());
        }
        let pixels = vec![0, 51, 102, 255, 51, 51, 0, 0];
        let set = Dataset::new(Pixels::U8(pixels), shape, vec![0, 1]).unwrap();
        let images = Images::new(set, &Shape::from([1, 2, 2]), &Preprocessing::default());
        let with = normalised(&network, &images, &mut Silent).unwrap();
        assert!(passes::without_normalization(&with).is_empty());
        let numbers = |part: &str| {
            with.tensors[&format!("c.normalised.{part}")]
                .to_dense()
                .values
        };
        // 2 x + 0.5 with x of 0, 0.2, 0.4, 1, 0.2, 0.2, 0, 0.
        let near = |a: f32, b: f32| (a - b).abs() < 2e-3;
        assert!(near(numbers("bias")[0], 1.0), "{:?}", numbers("bias"));
        assert!(near(numbers("mean")[0], 0.5));
        assert!(
            near(numbers("variance")[0], 0.39),
            "{:?}",
            numbers("variance")
        );
        let run = |network: &Network| {
            let session = session(network, WeightMode::Dense, 1, 1).unwrap();
            let mut y = vec![0.0; 12];
            let run =
                |session: &Session, y: &mut Vec<f32>| session.run(1, &[0.1, -0.3, 0.7, 2.0], y);
            run(&session, &mut y).unwrap();
            y
        };
        let [was, is] = [&network, &with].map(run);
        assert!(
            was.iter().zip(&is).all(|(a, b)| (a - b).abs() < 1e-4),
            "{was:?} {is:?}"
        );
        assert_ne!(was, vec![0.0; 12]);
    }
}
