//! The picture of the packed LeNet-5 is a network: read as a QR code, it runs.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use rqrr::PreparedImage;
use sparsevd::format::{Limits, load_data, unpack};
use sparsevd::runtime::{Plan, PlanOptions, Session, evaluate};

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
    let bytes = scan(&root.join("models/lenet-5/record.png"));
    assert!(
        bytes == std::fs::read(root.join("models/lenet-5/record.spvd")).unwrap(),
        "the picture is of another file; make it anew by the command in examples/qr.rs"
    );
    let network = unpack(&bytes, &Limits::default()).unwrap().network;
    let preprocessing = network.graph.preprocessing.clone().unwrap();
    let test = load_data(root.join("data/mnist")).unwrap().test.unwrap();
    let options = PlanOptions {
        batch: 64,
        ..PlanOptions::default()
    };
    let session = Session::new(Plan::new(&network, &options).unwrap(), 1).unwrap();
    let result = evaluate(&session, &test.labels, |image, x| {
        test.fill_input(image, &preprocessing, x);
    })
    .unwrap();
    assert_eq!(result.images, 10_000);
    assert!(result.error_percent() < 1.5, "{result:?}");
}
