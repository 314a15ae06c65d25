//! A file as one QR code in byte mode, as a black and white PNG: a packed network on paper.
//!
//! ```sh
//! cargo run --release --example qr -- models/lenet-5/record.spvd models/lenet-5/record.png
//! ```
//!
//! 2,953 bytes are the most that fit. A reader gets the bytes of the file; `tests/qr.rs` reads the committed picture.

use std::fs::File;
use std::io::BufWriter;

use anyhow::{Context, ensure};
use qrcodegen::{QrCode, QrCodeEcc};

/// Pixels of a side of a module, and modules of the white border, of which the standard wants four.
const SCALE: usize = 3;
const BORDER: usize = 4;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = args.as_slice() else {
        anyhow::bail!("usage: qr FILE PICTURE.png");
    };
    let bytes = std::fs::read(from).with_context(|| format!("cannot read {from}"))?;
    ensure!(
        bytes.len() <= 2953,
        "{from}: expected at most 2953 bytes, got {}",
        bytes.len()
    );
    // As much error correction as the size has room for.
    let code = QrCode::encode_binary(&bytes, QrCodeEcc::Low)?;
    let side = SCALE * (code.size() as usize + 2 * BORDER);
    let is_dark = |x: usize, y: usize| {
        let module = |pixel: usize| (pixel / SCALE) as i32 - BORDER as i32;
        code.get_module(module(x), module(y))
    };
    // Eight pixels to a byte, the first one highest; white is one, as is what fills the last byte of a row.
    let mut rows = vec![0xFF_u8; side * side.div_ceil(8)];
    for (y, row) in rows.chunks_mut(side.div_ceil(8)).enumerate() {
        for x in (0..side).filter(|&x| is_dark(x, y)) {
            row[x / 8] &= !(0x80 >> (x % 8));
        }
    }
    let file = File::create(to).with_context(|| format!("cannot write {to}"))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), side as u32, side as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&rows)?;
    writer.finish()?;
    println!(
        "wrote {to}: {} bytes as a QR code of version {}, {side} by {side} pixels",
        bytes.len(),
        code.version().value()
    );
    Ok(())
}
