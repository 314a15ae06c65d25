//! Augmentation: how the images of an epoch differ from those of the data set.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// What may be done to an image, each time that it is trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Augmentation {
    /// Pixels that it is shifted by at most, each way: as a random crop of the image with a border of as many black pixels.
    pub shift: u8,
    /// Whether it is mirrored with probability 1/2.
    pub flip: bool,
    /// Side of a square, somewhere in the image, that becomes zero (cutout: DeVries and Taylor 2017); 0 for none.
    pub cutout: u8,
}

/// What is done to one image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Pixels that it is moved, down and right.
    pub shift: [i8; 2],
    /// Whether it is mirrored, left to right.
    pub flip: bool,
    /// Row and column of the middle of the square, as fractions of the sides in units of 2^-16.
    middle: [u16; 2],
    cutout: u8,
}

impl Augmentation {
    /// Whether images stay what they are.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an image has so few views that a teacher may answer all of them before training.
    pub fn has_few_views(&self) -> bool {
        self.shift <= 2 && !self.flip && self.cutout == 0
    }

    /// Views of `count` images. Recipes that only shift draw what they always drew.
    pub fn views(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<View> {
        let mut views = vec![View::default(); count];
        if self.shift > 0 {
            let most = self.shift as i8;
            for view in &mut views {
                view.shift = [(); 2].map(|()| rng.random_range(-most..=most));
            }
        }
        if self.flip {
            views.iter_mut().for_each(|view| view.flip = rng.random());
        }
        if self.cutout > 0 {
            for view in &mut views {
                (view.middle, view.cutout) = (rng.random(), self.cutout);
            }
        }
        views
    }
}

impl View {
    /// Mirrors and cuts an image that was shifted already, `[height][width][channels]`; `size` is `[channels, height, width]`.
    pub fn finish(&self, [channels, height, width]: [usize; 3], image: &mut [f32]) {
        let rows = image.chunks_exact_mut(width * channels);
        if self.flip {
            for row in rows {
                for x in 0..width / 2 {
                    let (left, right) = row.split_at_mut((width - 1 - x) * channels);
                    left[x * channels..(x + 1) * channels].swap_with_slice(&mut right[..channels]);
                }
            }
        }
        if self.cutout > 0 {
            let side = usize::from(self.cutout);
            // The middle may be any pixel, so that the square may reach over the border.
            let [y, x] = [(self.middle[0], height), (self.middle[1], width)].map(|(at, size)| {
                let middle = (usize::from(at) * size) >> 16;
                middle.saturating_sub(side / 2)..(middle + side - side / 2).min(size)
            });
            let rows = image.chunks_exact_mut(width * channels);
            for row in rows.skip(y.start).take(y.len()) {
                row[x.start * channels..x.end * channels].fill(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Stream, stream};

    const SIZE: [usize; 3] = [2, 3, 4];

    fn image() -> Vec<f32> {
        (1..=24).map(|x| x as f32).collect()
    }

    #[test]
    fn an_image_is_mirrored_pixel_by_pixel() {
        let view = View {
            flip: true,
            ..View::default()
        };
        let mut got = image();
        view.finish(SIZE, &mut got);
        for y in 0..3 {
            for x in 0..4 {
                for c in 0..2 {
                    assert_eq!(got[(y * 4 + x) * 2 + c], image()[(y * 4 + 3 - x) * 2 + c]);
                }
            }
        }
        view.finish(SIZE, &mut got);
        assert_eq!(got, image());
    }

    #[test]
    fn a_square_of_an_image_is_cut_out() {
        let cut = |middle: [u16; 2], cutout| {
            let view = View {
                middle,
                cutout,
                ..View::default()
            };
            let mut got = image();
            view.finish(SIZE, &mut got);
            let pixels = got.chunks(2).enumerate();
            let zeros = pixels.filter(|(_, pixel)| *pixel == [0.0, 0.0]);
            let zeros: Vec<usize> = zeros.map(|(i, _)| i).collect();
            let kept = got.iter().zip(image()).filter(|(g, i)| **g == *i).count();
            assert_eq!(kept + 2 * zeros.len(), 24);
            zeros
        };
        // The middle of 3 rows is 1, of 4 columns 2; a square of 2 begins one before.
        assert_eq!(cut([1 << 15, 1 << 15], 2), [1, 2, 5, 6]);
        assert_eq!(cut([0, 0], 2), [0], "over the border");
        assert_eq!(cut([u16::MAX, u16::MAX], 3), [6, 7, 10, 11]);
        assert_eq!(cut([0, 0], 200).len(), 12);
    }

    #[test]
    fn views_are_drawn_as_often_as_they_should_be() {
        let all = Augmentation {
            shift: 2,
            flip: true,
            cutout: 3,
        };
        let rng = || stream(5, Stream::Epoch(3));
        let views = all.views(2000, &mut rng());
        assert_eq!(views, all.views(2000, &mut rng()));
        let share = |f: &dyn Fn(&View) -> bool| {
            views.iter().filter(|v| f(v)).count() as f64 / views.len() as f64
        };
        assert!((share(&|v| v.flip) - 0.5).abs() < 0.04);
        for shift in -2..=2 {
            assert!(
                (share(&|v| v.shift[1] == shift) - 0.2).abs() < 0.04,
                "{shift}"
            );
        }
        assert!((share(&|v| v.middle[0] < 1 << 14) - 0.25).abs() < 0.04);
        // What is added to the shifts does not change them.
        let shifts = Augmentation {
            shift: 2,
            ..Augmentation::default()
        };
        let alone = shifts.views(2000, &mut rng());
        assert!(
            alone
                .iter()
                .map(|v| v.shift)
                .eq(views.iter().map(|v| v.shift))
        );
        assert!(shifts.has_few_views() && !all.has_few_views() && !shifts.is_none());
        let wide = Augmentation { shift: 3, ..shifts };
        assert!(!wide.has_few_views());
        assert_eq!(
            Augmentation::default().views(2, &mut rng()),
            [View::default(); 2]
        );
    }
}
