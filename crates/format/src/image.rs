//! PNG images.

use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use png::{BitDepth, ColorType};

use crate::array::check_memory;
use crate::{Array, ArrayData, FormatError, open_file};

/// Most bytes one image may unpack to.
const MAX_IMAGE: usize = 256 << 20;

/// Reads a PNG of 8-bit grey or RGB pixels as `[channels, height, width]`.
///
/// # Errors
/// Another depth, a palette, alpha or transparency, more than 256 MiB of pixels, or a broken file.
pub fn read_png(path: impl AsRef<Path>) -> Result<Array, FormatError> {
    let path = path.as_ref();
    parse_png(path, BufReader::new(open_file(path)?))
}

/// The pixels of a PNG file.
pub(crate) fn parse_png(path: &Path, file: impl BufRead + Seek) -> Result<Array, FormatError> {
    let broken = |e: png::DecodingError| {
        FormatError::invalid(path, "PNG", "a readable image", e.to_string())
    };
    let mut decoder = png::Decoder::new(file);
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(broken)?;
    let info = reader.info();
    let channels = match (info.color_type, info.bit_depth) {
        (ColorType::Grayscale, BitDepth::Eight) => 1,
        (ColorType::Rgb, BitDepth::Eight) => 3,
        (color, depth) => {
            return Err(FormatError::invalid(
                path,
                "PNG",
                "8-bit grey or RGB without alpha",
                format!("{color:?}, {} bits", depth as u8),
            ));
        }
    };
    if info.trns.is_some() {
        return Err(FormatError::invalid(
            path,
            "PNG",
            "8-bit grey or RGB without alpha",
            "a transparent colour",
        ));
    }
    let (width, height) = (info.width as usize, info.height as usize);
    let size = reader
        .output_buffer_size()
        .filter(|n| *n <= MAX_IMAGE)
        .ok_or_else(|| {
            FormatError::invalid(
                path,
                "PNG size",
                format!("at most {MAX_IMAGE} bytes of pixels"),
                format!("{width} x {height}"),
            )
        })?;
    // Interleaved, and in planes.
    check_memory(path, "pixels", size, size)?;
    let mut pixels = vec![0; size];
    reader.next_frame(&mut pixels).map_err(broken)?;
    reader.finish().map_err(broken)?;
    // Interleaved to planes.
    let plane = width * height;
    let mut data = vec![0; plane * channels];
    for (channel, out) in data.chunks_exact_mut(plane.max(1)).enumerate() {
        for (o, pixel) in out.iter_mut().zip(pixels.chunks_exact(channels)) {
            *o = pixel[channel];
        }
    }
    Ok(Array {
        shape: vec![channels, height, width],
        data: ArrayData::U8(data),
    })
}
