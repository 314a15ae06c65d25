//! Files of training.

use std::cell::RefCell;

use sparsevd_compressor::frame::{self, Frame};
use sparsevd_compressor::report::Report;
use sparsevd_compressor::trainer::{Silent, Trainer};
use sparsevd_compressor::{CompressError, ForeignPosterior, checkpoint as files};
use sparsevd_model::Network;
use sparsevd_report::Page;
use sparsevd_testing::checkpoint::with_checksum;

use crate::place::{Place, check_error};
use crate::seeds;

thread_local! {
    static PLACE: Place = Place::new();
    static RUN: RefCell<Trainer> = RefCell::new(seeds::trainer(None));
    static NETWORK: Network = seeds::perceptron();
    static REPORT: Report = seeds::report();
}

/// The bytes with the checksum that they should have, in the place of a checkpoint of a run.
pub(crate) fn checkpoint(bytes: &[u8]) {
    let mended = with_checksum(bytes.to_vec());
    PLACE.with(|place| {
        let path = files::path(place.path());
        std::fs::write(&path, &mended).expect("a temporary file");
        RUN.with_borrow_mut(|run| match run.resume(place.path(), &mut Silent) {
            Ok(()) => match run.network() {
                Ok(_) | Err(CompressError::Model(_)) => {}
                Err(error) => panic!("{error}"),
            },
            Err(error @ CompressError::Checkpoint { .. }) => {
                check_error(&error);
                // What an unfit checkpoint left behind is not for the next input.
                *run = seeds::trainer(None);
            }
            Err(error) => panic!("{error}"),
        });
    });
}

/// A network is pruned by the bytes.
pub(crate) fn posterior(bytes: &[u8]) {
    let read = PLACE.with(|place| ForeignPosterior::read(&place.write("posterior", bytes)));
    let read = match read {
        Ok(read) => read,
        Err(error) => return check_error(&error),
    };
    NETWORK.with(|network| {
        match read.prune(network, 3.0) {
            Ok((pruned, _)) => drop(pruned.types().expect("a network")),
            Err(error) => check_error(&error),
        }
        if let Err(error) = read.sigmas(network, 3.0) {
            check_error(&error);
        }
    });
}

/// The bytes as the only frame of a run, on a page and as a picture.
pub(crate) fn frame(bytes: &[u8]) {
    PLACE.with(|place| {
        let folder = frame::folder(place.path());
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let path = folder.join("00000001.safetensors");
        std::fs::write(&path, bytes).expect("a temporary file");
        if let Err(error) = Frame::read(&path) {
            return check_error(&error);
        }
        REPORT.with(|report| match Page::of_run(report, place.path()) {
            Ok(page) => {
                let html = page.to_html().expect("a page");
                assert!(html.trim_end().ends_with("</html>"));
            }
            Err(error) => check_error(&error),
        });
    });
}
