//! Training data: the validation split, the order of an epoch, and images as a network reads them.

use std::fmt::Debug;
use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sparsevd_format::{Dataset, Pixels, RegressionSet};
use sparsevd_model::{Preprocessing, Shape};

use crate::augmentation::{Augmentation, View};
use crate::error::CompressError;
use crate::objective::Targets;

/// Purpose of a seeded stream of random numbers; streams of one seed are independent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Split,
    Weights,
    /// Order and views of an epoch, counted from the start of the run.
    Epoch(u32),
}

pub(crate) fn stream(seed: u64, stream: Stream) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(match stream {
        Stream::Split => 0,
        Stream::Weights => 1,
        Stream::Epoch(epoch) => 2 + u64::from(epoch),
    });
    rng
}

/// A source of samples and their targets.
pub trait Samples: Debug + Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` with the network's input for one sample, `[height][width][channels]`, moved `shift` pixels down and right.
    /// Without augmentation `shift` is zero. Inputs of a network with several lie one behind the other.
    fn fill(&self, index: usize, shift: [i32; 2], out: &mut [f32]);

    /// Elements of a sample in the free dimension of its network, such as the tokens of a text, 1 or more; 1 where there is none.
    fn length(&self, _index: usize) -> usize {
        1
    }

    /// Target of each sample.
    fn targets(&self) -> Targets<'_>;

    /// Whether the targets came with the inputs; otherwise they are the answers of the network that is compressed.
    fn has_targets(&self) -> bool {
        true
    }
}

/// The samples of a run, split into those that are trained on and those that settings are chosen on.
#[derive(Debug, Clone)]
pub struct TrainingData {
    train: Arc<dyn Samples>,
    validation: Arc<dyn Samples>,
    /// What answered samples without targets, where that is another network than the one that is trained.
    answered_by: Option<String>,
}

impl TrainingData {
    /// Puts two sources together; `validation` may be empty.
    pub fn new(train: impl Samples + 'static, validation: impl Samples + 'static) -> Self {
        Self {
            train: Arc::new(train),
            validation: Arc::new(validation),
            answered_by: None,
        }
    }

    /// Says which network the targets are the answers of, by its fingerprint, where that is not the one that is trained: a run goes on only with the same.
    #[must_use]
    pub fn answered_by(mut self, fingerprint: String) -> Self {
        self.answered_by = Some(fingerprint);
        self
    }

    /// Holds `validation` samples back from a training set: at most a sixth of it, drawn the same way in every run, so that
    /// the validation samples of one seed are never training samples of another.
    ///
    /// # Errors
    /// Samples or labels that do not fit the network's `input` and `classes`.
    pub fn split(
        dataset: &Dataset,
        validation: usize,
        input: &Shape,
        preprocessing: &Preprocessing,
        classes: usize,
    ) -> Result<Self, CompressError> {
        dataset.check_against(input, classes)?;
        let samples = dataset.len();
        let [held, rest] = draw(samples, validation.min(samples / 6));
        let part = |places: &[usize]| Images::new(dataset.subset(places), input, preprocessing);
        Ok(Self::new(part(&rest), part(&held)))
    }

    /// The fingerprint of the network whose answers are the targets, where that is not the one that is trained.
    pub(crate) fn teacher(&self) -> Option<&str> {
        self.answered_by.as_deref()
    }

    /// Samples that are trained on.
    pub fn train(&self) -> &dyn Samples {
        &*self.train
    }

    /// Samples that settings are chosen on; empty for a training set of fewer than six samples.
    pub fn validation(&self) -> &dyn Samples {
        &*self.validation
    }
}

/// Places of `drawn` samples of a set, the same ones in every run, and of the others, both in the order of the set.
pub fn draw(samples: usize, drawn: usize) -> [Vec<usize>; 2] {
    let mut order: Vec<usize> = (0..samples).collect();
    order.shuffle(&mut stream(0, Stream::Split));
    let rest = order.split_off(drawn.min(samples));
    [order, rest].map(|mut places| {
        places.sort_unstable();
        places
    })
}

/// Pixels, or numbers that are the network's input.
#[derive(Debug, Clone)]
enum Values {
    Bytes(Vec<u8>),
    Numbers(Vec<f32>),
}

/// Arrays of pixels or numbers that are filled into network inputs, channels last.
#[derive(Debug, Clone)]
pub struct Images {
    values: Values,
    targets: Targets<'static>,
    has_targets: bool,
    size: [usize; 3],
    /// Network input of each pixel value, per channel.
    table: Vec<[f32; 256]>,
}

impl Images {
    /// Labelled images for a network's `input`.
    pub fn new(dataset: Dataset, input: &Shape, preprocessing: &Preprocessing) -> Self {
        let targets = Targets::Classes(dataset.labels.into());
        Self::of(dataset.pixels, targets, input, preprocessing)
    }

    /// Samples of a regression for a network's `input`.
    pub fn with_numbers(set: RegressionSet, input: &Shape, preprocessing: &Preprocessing) -> Self {
        let outputs = set.outputs();
        let (pixels, values) = set.into_parts();
        let targets = Targets::Vectors {
            outputs,
            values: values.into(),
        };
        Self::of(pixels, targets, input, preprocessing)
    }

    /// The same, whose targets are the answers of a network.
    #[must_use]
    pub fn answered(mut self) -> Self {
        self.has_targets = false;
        self
    }

    fn of(
        pixels: Pixels,
        targets: Targets<'static>,
        input: &Shape,
        preprocessing: &Preprocessing,
    ) -> Self {
        let size = match input.dims() {
            &[c, h, w] => [c, h, w],
            _ if preprocessing.is_per_channel() => [input.elements(), 1, 1],
            _ => [1, 1, input.elements()],
        };
        let values = match pixels {
            Pixels::U8(bytes) => Values::Bytes(bytes),
            Pixels::F32(numbers) | Pixels::Ids(numbers) => Values::Numbers(numbers),
            Pixels::Table(features) => {
                let mut numbers = vec![0.0; features.len()];
                preprocessing.apply(input, &features, &mut numbers);
                Values::Numbers(numbers)
            }
        };
        // Through `Preprocessing::apply` itself, so that training sees the very numbers that running does.
        let one_pixel = if size[0] > 1 {
            Shape::from([size[0], 1, 1])
        } else {
            Shape::from([1])
        };
        let mut table = vec![[0f32; 256]; size[0]];
        for value in 0..=255u8 {
            let mut out = vec![0f32; size[0]];
            preprocessing.apply(&one_pixel, &vec![value; size[0]], &mut out);
            for (table, &o) in table.iter_mut().zip(&out) {
                table[usize::from(value)] = o;
            }
        }
        Self {
            values,
            targets,
            has_targets: true,
            size,
            table,
        }
    }
}

impl Samples for Images {
    fn len(&self) -> usize {
        self.targets.len()
    }

    fn targets(&self) -> Targets<'_> {
        match &self.targets {
            Targets::Classes(labels) => Targets::classes(labels),
            Targets::Vectors { outputs, values } => Targets::vectors(values, *outputs),
        }
    }

    fn has_targets(&self) -> bool {
        self.has_targets
    }

    /// A pixel that is moved in from outside is 0.
    fn fill(&self, index: usize, shift: [i32; 2], out: &mut [f32]) {
        let [channels, height, width] = self.size;
        let at = index * channels * height * width;
        // Columns of the output that come from inside, and how far they come.
        let from_x = |x: usize| x as i32 - shift[1];
        let inside =
            (shift[1].max(0) as usize).min(width)..(width as i32 + shift[1].min(0)).max(0) as usize;
        for c in 0..channels {
            let table = &self.table[c];
            let outside = match &self.values {
                Values::Bytes(_) => table[0],
                Values::Numbers(_) => 0.0,
            };
            for (y, row) in out.chunks_exact_mut(width * channels).enumerate() {
                let from_y = y as i32 - shift[0];
                if !(0..height as i32).contains(&from_y) || inside.is_empty() {
                    row.iter_mut()
                        .skip(c)
                        .step_by(channels)
                        .for_each(|o| *o = outside);
                    continue;
                }
                row.iter_mut()
                    .skip(c)
                    .step_by(channels)
                    .take(inside.start)
                    .for_each(|o| *o = outside);
                row.iter_mut()
                    .skip(c)
                    .step_by(channels)
                    .skip(inside.end)
                    .for_each(|o| *o = outside);
                let source =
                    at + (c * height + from_y as usize) * width + from_x(inside.start) as usize;
                let source = source..source + inside.len();
                let row = row
                    .iter_mut()
                    .skip(inside.start * channels + c)
                    .step_by(channels);
                match &self.values {
                    Values::Bytes(p) => row
                        .zip(&p[source])
                        .for_each(|(o, &p)| *o = table[usize::from(p)]),
                    Values::Numbers(p) => row.zip(&p[source]).for_each(|(o, &p)| *o = p),
                }
            }
        }
    }
}

/// The order of one epoch, and what is done to each of its samples.
#[derive(Debug, Clone)]
pub(crate) struct EpochOrder {
    pub samples: Vec<u32>,
    /// Per place in the order; empty without augmentation.
    views: Vec<View>,
}

impl EpochOrder {
    /// `passes` seeded permutations of `len` samples, each with a view of its own.
    pub fn new(
        len: usize,
        passes: usize,
        augmentation: Augmentation,
        seed: u64,
        epoch: u32,
    ) -> Self {
        let mut rng = stream(seed, Stream::Epoch(epoch));
        let mut samples: Vec<u32> = vec![];
        for pass in 0..passes {
            samples.extend(0..len as u32);
            samples[pass * len..].shuffle(&mut rng);
        }
        let views = match augmentation.is_none() {
            true => vec![],
            false => augmentation.views(samples.len(), &mut rng),
        };
        Self { samples, views }
    }

    /// Batches of samples of equal lengths, without augmentation. Samples that are left over of a length, other ones in every epoch, are made up for by whole
    /// batches that come again. Some length has enough samples for one.
    pub fn by_length(
        len: usize,
        passes: usize,
        batch: usize,
        length: &dyn Fn(usize) -> usize,
        [seed, epoch]: [u64; 2],
    ) -> Self {
        let epoch = epoch as u32;
        let order = Self::new(len, passes, Augmentation::default(), seed, epoch);
        let mut samples = order.samples;
        let batches = samples.len() / batch;
        samples.sort_by_key(|&i| length(i as usize));
        let same = samples.chunk_by(|&a, &b| length(a as usize) == length(b as usize));
        let mut whole: Vec<&[u32]> = same.flat_map(|same| same.chunks_exact(batch)).collect();
        // Of another seed than the samples, which a second shuffle with their own would undo in part.
        whole.shuffle(&mut stream(seed ^ Self::BATCHES, Stream::Epoch(epoch)));
        Self {
            samples: whole
                .into_iter()
                .cycle()
                .take(batches)
                .flatten()
                .copied()
                .collect(),
            views: vec![],
        }
    }

    /// What the seed of the order of batches differs by.
    const BATCHES: u64 = 0x6261_7463_6865_7321;

    /// What is done to the sample at a place.
    pub fn view(&self, place: usize) -> View {
        self.views.get(place).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_of_one_length_and_take_what_they_can() {
        // 7, 6 and 7 samples of the lengths 1, 2 and 3, in batches of 3.
        let length = |i: usize| 1 + i % 3;
        let of = |epoch| EpochOrder::by_length(20, 1, 3, &length, [5, epoch]).samples;
        let order = of(0);
        assert_eq!(order.len(), 18, "as many batches as without lengths");
        let mut times = [0; 20];
        for batch in order.chunks(3) {
            assert!(
                batch
                    .iter()
                    .all(|i| length(*i as usize) == length(batch[0] as usize))
            );
            batch.iter().for_each(|i| times[*i as usize] += 1);
        }
        // Each of the six whole batches comes once.
        assert!(times.iter().all(|n| *n <= 1) && times.iter().sum::<usize>() == 18);
        let lengths = |order: &[u32]| -> Vec<usize> {
            order
                .chunks(3)
                .map(|batch| length(batch[0] as usize))
                .collect()
        };
        assert!(!lengths(&order).is_sorted(), "lengths are mixed");
        assert_ne!(of(1), order);
        assert_eq!(of(0), order);
        // One length too short for a batch, so that another comes twice.
        let few = EpochOrder::by_length(8, 1, 4, &|i| usize::from(i < 5), [5, 0]);
        assert_eq!(few.samples.len(), 8);
        assert_eq!(few.samples[..4], few.samples[4..]);
    }

    fn images() -> Dataset {
        let pixels: Vec<u8> = (0..60 * 2 * 3 * 3).map(|i| (i % 251) as u8).collect();
        Dataset::new(
            Pixels::U8(pixels),
            Shape::from([2, 3, 3]),
            (0..60).map(|i| i % 4).collect(),
        )
        .unwrap()
    }

    #[test]
    fn a_split_is_the_same_every_time_and_loses_nothing() {
        let split = || {
            TrainingData::split(
                &images(),
                5000,
                &Shape::from([2, 3, 3]),
                &Preprocessing::default(),
                4,
            )
            .unwrap()
        };
        let (a, b) = (split(), split());
        assert_eq!(
            (a.train().len(), a.validation().len()),
            (50, 10),
            "a sixth at most"
        );
        let rows = |samples: &dyn Samples| -> Vec<Vec<u32>> {
            let row = |i| {
                let mut out = [0.0; 18];
                samples.fill(i, [0, 0], &mut out);
                out.map(f32::to_bits).to_vec()
            };
            (0..samples.len()).map(row).collect()
        };
        assert_eq!(rows(a.train()), rows(b.train()));
        let mut all = [rows(a.train()), rows(a.validation())].concat();
        let shape = Shape::from([2, 3, 3]);
        let mut expected = rows(&Images::new(images(), &shape, &Preprocessing::default()));
        all.sort_unstable();
        expected.sort_unstable();
        assert_eq!(all, expected);
    }

    #[test]
    fn an_image_is_what_running_sees_channels_last_and_shifted() {
        let preprocessing = Preprocessing {
            scale: 0.5,
            mean: vec![1.0, 2.0],
            std: vec![2.0, 4.0],
            table: None,
        };
        let shape = Shape::from([2, 3, 3]);
        let mut want = vec![0.0; 18];
        images().fill_input(7, &preprocessing, &mut want);
        let images = Images::new(images(), &shape, &preprocessing);
        let mut got = vec![0.0; 18];
        images.fill(7, [1, -1], &mut got);
        for c in 0..2 {
            for y in 0..3 {
                for x in 0..3 {
                    let expected = if y == 0 || x == 2 {
                        (0.0 - preprocessing.mean[c]) / preprocessing.std[c]
                    } else {
                        want[(c * 3 + y - 1) * 3 + x + 1]
                    };
                    assert_eq!(got[(y * 3 + x) * 2 + c], expected, "{c} {y} {x}");
                }
            }
        }
    }
}
