//! Batch normalisation behind the convolutions of a network that came without, for training.

use std::borrow::Cow;
use std::collections::HashMap;

use sparsevd_compressor::Samples;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_model::passes::{
    ChannelStatistics, insert_batch_normalization, without_normalization,
};
use sparsevd_model::{Network, memory};
use sparsevd_runtime::WeightMode;

use crate::calibrate::{Batches, FirstSamples};
use crate::error::PipelineError;
use crate::measure::session;
use crate::split::Split;

/// Samples that statistics are taken of.
const SAMPLES: usize = 1024;
/// Samples that run together.
const BATCH: usize = 16;

/// What is trained of a network: the network itself, or [`normalised`] where the recipe says so.
pub(crate) fn trainable<'n>(
    network: &'n Network,
    recipe: &Recipe,
    samples: &Split,
) -> Result<Cow<'n, Network>, PipelineError> {
    Ok(match recipe.batch_normalisation {
        true => Cow::Owned(normalised(network, samples.training.train())?),
        false => Cow::Borrowed(network),
    })
}

/// A network that computes what `network` does, with a batch normalisation behind each convolution, whose statistics are those of the first
/// samples.
fn normalised(network: &Network, samples: &dyn Samples) -> Result<Network, PipelineError> {
    let shapes = network.shapes()?;
    let convolutions = without_normalization(network);
    if convolutions.is_empty() {
        return Ok(network.clone());
    }
    let mut read = network.clone();
    read.graph.outputs = convolutions.iter().map(|&name| name.to_owned()).collect();
    let sizes = convolutions.iter().map(|name| shapes[name].elements());
    let sizes: Vec<usize> = sizes.collect();
    let all = sizes.iter().fold(0, |sum: usize, n| sum.saturating_add(*n));
    let what = || format!("the outputs of {} convolutions", sizes.len());
    memory::check_elements(what, all.saturating_mul(BATCH), size_of::<f32>())?;
    let mut outputs: Vec<Vec<f32>> = sizes.iter().map(|n| vec![0.0; n * BATCH]).collect();
    let mut sums: Vec<Vec<Sum>> = convolutions
        .iter()
        .map(|name| vec![Sum::default(); shapes[name].matrix().0])
        .collect();
    // One thread: statistics must not depend on the number of threads.
    let session = session(&read, WeightMode::Dense, BATCH, 1)?;
    FirstSamples::new(network, samples, SAMPLES).for_each(&mut |batch| {
        let inputs = batch.inputs.iter();
        let inputs: Vec<(&str, &[f32])> = inputs.map(|(name, x)| (name.as_str(), &x[..])).collect();
        let mut named: Vec<(&str, &mut [f32])> = convolutions
            .iter()
            .zip(&mut outputs)
            .zip(&sizes)
            .map(|((name, values), size)| (*name, &mut values[..size * batch.count]))
            .collect();
        session.run(batch.count, &inputs[..], &mut named[..])?;
        for ((sums, values), size) in sums.iter_mut().zip(&outputs).zip(&sizes) {
            for map in values[..size * batch.count].chunks_exact(*size) {
                let pixels = size / sums.len();
                for (sum, channel) in sums.iter_mut().zip(map.chunks_exact(pixels)) {
                    sum.add(channel);
                }
            }
        }
        Ok(())
    })?;
    let statistics: HashMap<String, ChannelStatistics> = convolutions
        .iter()
        .zip(&sums)
        .map(|(name, sums)| ((*name).to_owned(), statistics(sums)))
        .collect();
    Ok(insert_batch_normalization(network, &statistics))
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

fn statistics(sums: &[Sum]) -> ChannelStatistics {
    let mean = |sum: &Sum| sum.values / sum.count;
    let variance = |sum: &Sum| (sum.squares / sum.count - mean(sum).powi(2)).max(0.0);
    ChannelStatistics {
        mean: sums.iter().map(|sum| mean(sum) as f32).collect(),
        variance: sums.iter().map(|sum| variance(sum) as f32).collect(),
    }
}

#[cfg(test)]
mod tests {
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
        let with = normalised(&network, &images).unwrap();
        assert!(passes::without_normalization(&with).is_empty());
        let numbers = |part: &str| {
            with.tensors[&format!("c.normalised.{part}")]
                .to_dense()
                .values
        };
        // 2 x + 0.5 with x of 0, 0.2, 0.4, 1, 0.2, 0.2, 0, 0.
        let near = |a: f32, b: f32| (a - b).abs() < 1e-5;
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
