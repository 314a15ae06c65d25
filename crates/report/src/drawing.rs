//! The picture of a run in pixels: all frames as an animated GIF, or the first and the last as a PNG.

use std::borrow::Cow;

use font8x8::legacy::BASIC_LEGACY;
use gif::{Encoder, Frame, Repeat};
use sparsevd_compressor::CompressError;
use sparsevd_compressor::frame::REMOVED;
use sparsevd_compressor::report::{Report, count};

use crate::picture::{Part, Picture, PictureLayer};

/// Width in pixels, at most.
const WIDTH: usize = 800;
/// Pixels around and between layers.
const MARGIN: usize = 16;
/// Height of a line of a caption, whose letters are 8 pixels high.
const LINE: usize = 12;
/// Height of the line above all layers.
const HEAD: usize = 32;
/// Pixels of a weight, at most.
const CELL: usize = 7;
/// Shades of a sign. Few of them keep the file small.
const SHADES: i32 = 12;
/// Hundredths of a second that a frame is shown, and that the last is.
const DELAY: u16 = 12;
const PAUSE: u16 = 250;
/// Places in the palette: the shades, from the most negative over zero to the most positive, then these.
const PAPER: u8 = 2 * SHADES as u8 + 1;
const INK: u8 = PAPER + 1;
const GONE: u8 = PAPER + 2;
/// A pixel that stays as it was.
const SAME: u8 = PAPER + 3;

/// Where a layer is, and how large its weights are.
struct Place<'p> {
    layer: &'p PictureLayer,
    left: usize,
    top: usize,
    cell: usize,
    /// Width and height in weights, with a gap of one around kernels.
    size: [usize; 2],
}

/// Draws the frames of a picture, with the validation errors of the report where a frame is at the end of an epoch.
///
/// # Errors
/// A picture of more pixels than a GIF has.
pub(crate) fn animate(picture: &Picture, report: &Report) -> Result<Vec<u8>, CompressError> {
    let fail = |what: String| CompressError::Report {
        path: report.output.clone(),
        what,
    };
    let (places, height) = arrange(picture);
    let side = |n: usize| {
        u16::try_from(n).map_err(|_| fail(format!("expected at most 65535 pixels, got {n}")))
    };
    let (wide, high) = (side(WIDTH)?, side(height)?);
    let mut bytes = vec![];
    let encoding = |e: gif::EncodingError| fail(e.to_string());
    let mut encoder = Encoder::new(&mut bytes, wide, high, &palette()).map_err(encoding)?;
    encoder.set_repeat(Repeat::Infinite).map_err(encoding)?;
    let mut before: Option<Vec<u8>> = None;
    for (i, _) in picture.times.iter().enumerate() {
        let canvas = draw(picture, report, &places, height, i);
        let same = |(now, before): (&u8, &u8)| if now == before { SAME } else { *now };
        let buffer = match &before {
            Some(before) => canvas.iter().zip(before).map(same).collect(),
            None => canvas.clone(),
        };
        let last = i + 1 == picture.times.len();
        let frame = Frame {
            delay: if last { PAUSE } else { DELAY },
            transparent: before.is_some().then_some(SAME),
            width: wide,
            height: high,
            buffer: Cow::Owned(buffer),
            ..Frame::default()
        };
        encoder.write_frame(&frame).map_err(encoding)?;
        before = Some(canvas);
    }
    drop(encoder);
    Ok(bytes)
}

/// Draws the first and the last frame of a picture, one above the other, as a PNG.
///
/// # Errors
/// A picture of more pixels than a PNG has.
pub(crate) fn still(picture: &Picture, report: &Report) -> Result<Vec<u8>, CompressError> {
    let fail = |what: String| CompressError::Report {
        path: report.output.clone(),
        what,
    };
    let (places, height) = arrange(picture);
    let last = picture.times.len() - 1;
    let frames = if last > 0 { vec![0, last] } else { vec![0] };
    let high = u32::try_from(frames.len() * height).map_err(|e| fail(e.to_string()))?;
    let pixels = (frames.iter()).flat_map(|&frame| draw(picture, report, &places, height, frame));
    let pixels: Vec<u8> = pixels.collect();
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, WIDTH as u32, high);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette());
    encoder.set_compression(png::Compression::High);
    let encoding = |e: png::EncodingError| fail(e.to_string());
    let mut writer = encoder.write_header().map_err(encoding)?;
    writer.write_image_data(&pixels).map_err(encoding)?;
    writer.finish().map_err(encoding)?;
    Ok(bytes)
}

/// Red, green and blue of each place of the palette.
fn palette() -> Vec<u8> {
    let mix = |to: [u8; 3], t: f64| {
        let zero = 247.0;
        to.map(|x| (zero + (f64::from(x) - zero) * t).round() as u8)
    };
    let shades = (-SHADES..=SHADES).map(|shade| {
        let to = if shade < 0 {
            [31, 95, 174]
        } else {
            [184, 32, 47]
        };
        mix(to, f64::from(shade.abs()) / f64::from(SHADES))
    });
    // Paper, ink, removed weights, and one that is never seen.
    let others = [[255; 3], [27, 27, 31], [220, 220, 225], [0; 3]];
    shades.chain(others).flatten().collect()
}

/// The place of a weight in the palette; by the square root, so that small ones are seen.
fn shade(value: i8) -> u8 {
    if value == REMOVED {
        return GONE;
    }
    let size = (f64::from(value).abs() / 127.0).sqrt() * f64::from(SHADES);
    let shade = (size.round() as i32) * i32::from(value).signum();
    (SHADES + shade) as u8
}

/// Puts layers beside each other, and below where there is no room; and the height of all.
fn arrange(picture: &Picture) -> (Vec<Place<'_>>, usize) {
    let (mut left, mut top, mut tallest) = (MARGIN, HEAD, 0);
    let mut places = vec![];
    for layer in &picture.layers {
        let size = size(layer);
        let room = WIDTH - 2 * MARGIN;
        // Two layers fit beside each other where they are not wide.
        let cell = ((room - MARGIN) / 2 / size[0]).clamp(1, CELL);
        let wide = (size[0] * cell).max(caption(layer).len() * 8);
        if left > MARGIN && left + wide > WIDTH - MARGIN {
            (left, top, tallest) = (MARGIN, top + tallest + MARGIN, 0);
        }
        places.push(Place {
            layer,
            left,
            top,
            cell,
            size,
        });
        left += wide + MARGIN;
        tallest = tallest.max(size[1] * cell + 2 * LINE);
    }
    (places, top + tallest + MARGIN)
}

/// Width and height of a layer in weights.
fn size(layer: &PictureLayer) -> [usize; 2] {
    match &layer.part {
        Part::Fragment(rows, columns) => [columns.len(), rows.len()],
        Part::Kernels(kernels) => {
            let [kh, kw] = kernel(&layer.shape);
            let across = across(kernels.len(), [kh, kw]);
            let down = kernels.len().div_ceil(across);
            [across * (kw + 1) - 1, down * (kh + 1) - 1]
        }
    }
}

/// Height and width of the kernels of a weight.
fn kernel(shape: &[usize]) -> [usize; 2] {
    match shape[2..] {
        [kh, kw] => [kh, kw],
        ref more => [1, more.iter().product()],
    }
}

/// Kernels in a row, so that all of them make a square.
fn across(kernels: usize, [kh, kw]: [usize; 2]) -> usize {
    let square = (kernels as f64 * kh as f64 / kw as f64).sqrt().ceil();
    (square as usize).clamp(1, kernels.max(1))
}

/// What is said of a layer in all frames.
fn caption(layer: &PictureLayer) -> String {
    let shape: Vec<String> = layer.shape.iter().map(usize::to_string).collect();
    format!("{} {}", layer.node, shape.join("x"))
}

fn draw(
    picture: &Picture,
    report: &Report,
    places: &[Place<'_>],
    height: usize,
    frame: usize,
) -> Vec<u8> {
    let mut canvas = vec![PAPER; WIDTH * height];
    write(
        &mut canvas,
        MARGIN,
        MARGIN / 2,
        &head(picture, report, frame),
    );
    for place in places {
        let layer = place.layer;
        let weights = layer.values.len() / picture.times.len();
        let values = &layer.values[frame * weights..(frame + 1) * weights];
        for (i, value) in values.iter().enumerate() {
            let [x, y] = cell(layer, i, place.size[0]);
            let (x, y) = (place.left + x * place.cell, place.top + y * place.cell);
            // Kernels may be wider than the picture.
            if x + place.cell > WIDTH {
                continue;
            }
            for row in y..y + place.cell {
                canvas[row * WIDTH + x..row * WIDTH + x + place.cell].fill(shade(*value));
            }
        }
        let below = place.top + place.size[1] * place.cell + 4;
        write(&mut canvas, place.left, below, &caption(layer));
        let (left, all) = (layer.left[frame], layer.shape.iter().product::<usize>());
        let percent = 100.0 * left as f64 / all.max(1) as f64;
        let text = format!("{} left, {percent:.2} %", count(left));
        write(&mut canvas, place.left, below + LINE, &text);
    }
    canvas
}

/// Where a weight of a layer is, in weights.
fn cell(layer: &PictureLayer, i: usize, wide: usize) -> [usize; 2] {
    match &layer.part {
        Part::Fragment(..) => [i % wide, i / wide],
        Part::Kernels(kernels) => {
            let [kh, kw] = kernel(&layer.shape);
            let (number, at) = (i / (kh * kw), i % (kh * kw));
            let across = across(kernels.len(), [kh, kw]);
            [
                number % across * (kw + 1) + at % kw,
                number / across * (kh + 1) + at / kw,
            ]
        }
    }
}

/// What is said of a frame.
fn head(picture: &Picture, report: &Report, frame: usize) -> String {
    let time = picture.times[frame];
    let left: usize = picture.layers.iter().map(|l| l.left[frame]).sum();
    let when = match time.step {
        _ if picture.times.len() == 1 => String::new(),
        0 => "before training, ".to_owned(),
        _ => format!("epoch {:.1}, ", time.epochs),
    };
    let ended = (time.epochs as usize).checked_sub(1);
    let ended = ended.filter(|_| time.epochs.fract() == 0.0);
    let score = match ended.and_then(|i| report.history.get(i)) {
        Some(epoch) => match epoch.validation_r2 {
            Some(r2) => format!(", R2 {r2:.4}"),
            None => format!(", validation error {:.2} %", epoch.validation_error),
        },
        None => String::new(),
    };
    format!("{}: {when}{} weights{score}", report.network, count(left))
}

/// Writes letters of 8x8 pixels; what is no ASCII is a question mark.
fn write(canvas: &mut [u8], left: usize, top: usize, text: &str) {
    let height = canvas.len() / WIDTH;
    for (i, letter) in text.chars().enumerate() {
        let glyph = BASIC_LEGACY
            .get(letter as usize)
            .unwrap_or(&BASIC_LEGACY['?' as usize]);
        for (row, bits) in glyph.iter().enumerate() {
            for column in (0..8).filter(|column| bits & (1 << column) != 0) {
                let (x, y) = (left + 8 * i + column, top + row);
                if x < WIDTH && y < height {
                    canvas[y * WIDTH + x] = INK;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_compressor::frame::FrameTime;

    use super::*;

    #[test]
    fn shades_tell_signs_sizes_and_removed_weights() {
        let zero = SHADES as u8;
        assert_eq!(shade(0), zero);
        assert_eq!((shade(127), shade(-127)), (2 * zero, 0));
        // A quarter of the largest has half of the shades.
        assert_eq!(shade(32), zero + zero / 2);
        assert_eq!(shade(REMOVED), GONE);
        assert_eq!(palette().len(), 3 * (usize::from(SAME) + 1));
    }

    #[test]
    fn a_kernel_that_is_wider_than_the_picture_is_clipped() {
        let wide = 40_000;
        let layer = PictureLayer {
            node: "conv".into(),
            shape: vec![1, 1, wide],
            left: vec![wide],
            part: Part::Kernels(vec![[0, 0]]),
            values: vec![127; wide],
            scales: vec![],
        };
        let time = FrameTime {
            step: 0,
            epochs: 0.0,
            phase: 1,
        };
        let picture = Picture {
            times: vec![time],
            layers: vec![layer],
        };
        let report: Report = serde_json::from_str(include_str!("../tests/report.json")).unwrap();
        let (places, height) = arrange(&picture);
        let canvas = draw(&picture, &report, &places, height, 0);
        let shown = canvas.iter().filter(|p| **p == 2 * SHADES as u8).count();
        assert_eq!(shown, WIDTH - MARGIN, "one line, none of it wrapped");
    }

    #[test]
    fn each_frame_shows_the_weights_of_its_time() {
        let part = Part::Fragment(vec![0, 1], vec![0, 1]);
        let values = vec![127, -127, 0, REMOVED, 127, REMOVED, REMOVED, REMOVED];
        let layer = PictureLayer {
            node: "fc".into(),
            shape: vec![2, 2],
            left: vec![3, 1],
            part,
            values,
            scales: vec![],
        };
        let times = [0, 10].map(|step| FrameTime {
            step,
            epochs: f64::from(step) / 10.0,
            phase: 1,
        });
        let picture = Picture {
            times: times.to_vec(),
            layers: vec![layer],
        };
        let report: Report = serde_json::from_str(include_str!("../tests/report.json")).unwrap();
        assert_eq!(
            head(&picture, &report, 0),
            "NAME: before training, 3 weights"
        );
        let at_end = "NAME: epoch 1.0, 1 weights, validation error 11.56 %";
        assert_eq!(head(&picture, &report, 1), at_end);
        let png = still(&picture, &report).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(&png));
        decoder.set_transformations(png::Transformations::IDENTITY);
        let mut decoder = decoder.read_info().unwrap();
        let mut both = vec![0; decoder.output_buffer_size().unwrap()];
        let size = decoder.next_frame(&mut both).unwrap();
        assert_eq!(size.width as usize, WIDTH);
        let gif = animate(&picture, &report).unwrap();
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::Indexed);
        let mut decoder = options.read_info(gif.as_slice()).unwrap();
        // The middle of each weight, of seven pixels.
        let weights = |buffer: &[u8]| {
            let at = |x: usize, y: usize| buffer[(HEAD + 7 * y + 3) * WIDTH + MARGIN + 7 * x + 3];
            [at(0, 0), at(1, 0), at(0, 1), at(1, 1)]
        };
        let first = decoder.read_next_frame().unwrap().unwrap();
        let shades = SHADES as u8;
        assert_eq!(weights(&first.buffer), [2 * shades, 0, shades, GONE]);
        let (above, below) = both.split_at(both.len() / 2);
        assert_eq!(above, &first.buffer[..]);
        assert_eq!(weights(below), [2 * shades, GONE, GONE, GONE]);
        let second = decoder.read_next_frame().unwrap().unwrap();
        assert_eq!(second.transparent, Some(SAME));
        assert_eq!(weights(&second.buffer), [SAME, GONE, GONE, SAME]);
        assert!(decoder.read_next_frame().unwrap().is_none());
    }
}
