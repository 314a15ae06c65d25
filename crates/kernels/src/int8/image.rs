//! The bytes of an input, with the border of its padding where there is one.

use std::ops::Range;

use super::dot::Task;
use super::grid::Grid;
use super::lanes::Lanes;
use super::maps::QuantizeLines;
use crate::LANES;
use crate::blocks::Blocks;

/// Where the lines of the input are, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image {
    pub channels: usize,
    /// Rows and columns of lines of the input.
    pub from: [usize; 2],
    /// Rows above, columns on the left, rows below, columns on the right that are added.
    pub border: [usize; 4],
    /// Lines between rows, and between channels, of which the input has `source`.
    pub row: usize,
    pub channel: usize,
    pub source: usize,
}

impl Image {
    /// The lines of an input, which come one after the other where there is no border.
    pub fn of(input: &Blocks, border: [usize; 4]) -> Self {
        let [top, left, bottom, right] = border;
        let from = [input.height(), input.pitch()];
        let row = left + from[1] + right;
        Self {
            channels: input.map()[0],
            from,
            border,
            row,
            channel: match border {
                [0, 0, 0, 0] => input.channel(),
                _ => (top + from[0] + bottom) * row,
            },
            source: input.channel(),
        }
    }

    pub fn lines(&self) -> usize {
        self.channels * self.channel
    }

    pub fn has_border(&self) -> bool {
        self.border != [0; 4]
    }
}

/// Makes an image of an input.
///
/// `x` is readable for the lines that `image` takes from each channel, `y` writable for the lines of the image.
pub(super) struct QuantizeImage<'a> {
    pub x: *const f32,
    pub y: *mut u8,
    pub image: &'a Image,
    pub grid: Grid,
}

impl QuantizeImage<'_> {
    /// Fills lines with the byte of zero.
    ///
    /// # Safety
    /// The lines are in the image.
    unsafe fn fill(&self, lines: Range<usize>) {
        // SAFETY: by the contract of this function.
        unsafe {
            let y = self.y.add(lines.start * LANES);
            y.write_bytes(self.grid.zero_point(), lines.len() * LANES);
        }
    }

    /// Quantises lines that follow each other.
    ///
    /// # Safety
    /// The lines are those of the input and of the image, and the instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn lines<L: Lanes>(&self, from: usize, to: usize, lines: usize) {
        // SAFETY: by the contract of this function.
        unsafe {
            let lines = QuantizeLines {
                x: self.x.add(from * LANES),
                y: self.y.add(to * LANES),
                lines,
                grid: self.grid,
            };
            lines.run::<L>();
        }
    }
}

impl Task for QuantizeImage<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let image = self.image;
        let ([height, width], [top, left, bottom, right]) = (image.from, image.border);
        // SAFETY: each line that is read is one that the image takes, and each that is written is one of the image; the instruction set is enabled
        // (contract of the trait).
        unsafe {
            if !image.has_border() {
                return self.lines::<L>(0, 0, image.lines());
            }
            for channel in 0..image.channels {
                let mut line = channel * image.channel;
                self.fill(line..line + top * image.row);
                line += top * image.row;
                for row in 0..height {
                    self.fill(line..line + left);
                    let from = channel * image.source + row * width;
                    self.lines::<L>(from, line + left, width);
                    line += image.row;
                    self.fill(line - right..line);
                }
                self.fill(line..line + bottom * image.row);
            }
        }
    }
}
