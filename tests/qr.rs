//! The picture of the packed LeNet-5 is a network: read as a QR code, it runs.
#![allow(clippy::unwrap_used)]

mod synthetic;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use rqrr::PreparedImage;
use serde_json::Value;
use synthetic::Workplace;

/// The bytes of the one QR code in a black and white picture.
fn scan(picture: &Path) -> Vec<u8> {
    let mut decoder = png::Decoder::new(BufReader::new(File::open(picture).unwrap()));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let (width, height) = (info.width as usize, info.height as usize);
    assert_eq!(pixels.len(), width * height);
    let mut image =
        PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y * width + x]);
    let grids = image.detect_grids();
    assert_eq!(grids.len(), 1, "one code");
    let mut bytes = Vec::new();
    grids[0].decode_to(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_picture_of_lenet_5_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bytes = scan(&root.join("models/lenet-5/packed.png"));
    assert!(
        bytes == std::fs::read(root.join("models/lenet-5/packed.spvd")).unwrap(),
        "the picture is of another file; make it anew by the command in examples/qr.rs"
    );
    let w = Workplace::without_network();
    w.write("scanned.spvd", bytes);
    let mnist = root.join("data/mnist");
    let printed = w.ok_run_sparse(&[
        "eval",
        "scanned.spvd",
        "--data",
        mnist.to_str().unwrap(),
        "--json",
    ]);
    let result: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(result["images"], 10_000);
    assert!(result["error_percent"].as_f64().unwrap() < 1.5, "{result}");
}
