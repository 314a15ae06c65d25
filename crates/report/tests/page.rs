//! Pages of reports, as text; `scripts/check-report.py` opens them in a browser.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use serde_json::Value;
use sparsevd_compressor::initialise;
use sparsevd_compressor::recipe::{Goal, Method, Phase, Recipe, Search, Validation};
use sparsevd_compressor::report::Report;
use sparsevd_format::{DataSplits, Dataset, LoadedSamples, Pixels};
use sparsevd_model::{Dense, Preprocessing, Shape, Weights, presets};
use sparsevd_pipeline::{Compression, Data, RunFolder, Silent, report_path};
use sparsevd_report::Page;

/// A report of a network of that name.
fn report(name: &str) -> Report {
    let text = include_str!("report.json").replace("NAME", name);
    serde_json::from_str(&text).unwrap()
}

/// What the script of a page reads.
fn page_data(page: &str) -> Value {
    let (_, rest) = page.split_once(r#"id="data">"#).unwrap();
    let (data, _) = rest.split_once("</script>").unwrap();
    serde_json::from_str(data).unwrap()
}

#[test]
fn a_page_holds_the_report_and_loads_nothing() {
    let report = report("net");
    let page = Page::new(&report).to_html().unwrap();
    assert!(page.starts_with("<!doctype html>"));
    assert!(page.contains("<title>net</title>"));
    for loads in ["src=", "href=", "@import", "url(", "fetch(", "{{"] {
        assert!(!page.contains(loads), "{loads}");
    }
    let data = page_data(&page);
    let held: Report = serde_json::from_value(data["report"].clone()).unwrap();
    assert_eq!(held, report);
    assert_eq!(data["picture"], Value::Null);
    assert!(data["recipe"].as_str().unwrap().contains("sparse-vd"));
}

#[test]
fn a_report_without_times_says_so() {
    let report = Report {
        timings: None,
        ..report("net")
    };
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["timings"], Value::Null);
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    let text = report.to_string();
    assert!(
        text.contains("not timed") && !text.contains("p50"),
        "{text}"
    );
    let page = Page::new(&report).to_html().unwrap();
    assert_eq!(page_data(&page)["report"]["timings"], Value::Null);
}

#[test]
fn few_runs_are_told_of() {
    let mut report = report("net");
    let text = report.to_string();
    assert!(text.contains("p50") && !text.contains("runs"), "{text}");
    for timing in report.timings.iter_mut().flatten() {
        timing.runs = Some(if timing.plan == "dense" { 3 } else { 500 });
    }
    let text = report.to_string();
    assert!(text.contains("runs: 3 of dense, batch 1; p99"), "{text}");
}

#[test]
fn names_from_files_stay_text() {
    for name in [
        "</script><img src=x onerror=alert(1)>",
        "<!--<script>",
        "{{css}}{{data}}{{title}}",
    ] {
        let report = report(name);
        let page = Page::new(&report).to_html().unwrap();
        assert_eq!(page.matches("</script>").count(), 2, "{name}");
        assert!(!page.contains("<img") && !page.contains("<!--"), "{name}");
        assert_eq!(page_data(&page)["report"]["network"], name);
        let (title, _) = page.split_once("</title>").unwrap();
        let title = title.split_once("<title>").unwrap().1;
        let plain = title.replace("&lt;", "<").replace("&gt;", ">");
        assert_eq!(plain, name);
    }
}

/// Images of 6x6 with two classes: the brighter half.
fn set(count: usize) -> Dataset {
    let bright = |image: usize, p: usize| (p < 18) == image.is_multiple_of(2);
    let pixel = |image: usize, p: usize| {
        ((image * 7 + p * 13) % 100 + 100 * usize::from(bright(image, p))) as u8
    };
    let images = (0..count).flat_map(|image| (0..36).map(move |p| pixel(image, p)));
    let labels = (0..count).map(|i| (i % 2) as u16).collect();
    Dataset::new(Pixels::U8(images.collect()), Shape::from([1, 6, 6]), labels).unwrap()
}

#[test]
fn the_picture_of_a_search_is_that_of_the_posterior_and_the_try_that_were_chosen() {
    let (graph, shapes) = presets::mlp("net", Shape::from([1, 6, 6]), &[12, 2]);
    let mut network = initialise(graph, &shapes, 1).unwrap();
    network.graph.preprocessing = Some(Preprocessing::default());
    let data = Data::from(LoadedSamples::Classes(DataSplits {
        train: Some(set(240)),
        test: Some(set(40)),
        whole: None,
        table: None,
        describe: "halves".into(),
    }));
    let phase = |method, epochs| Phase {
        lr: 1e-2,
        batch: 20,
        ..Phase::new(method, epochs)
    };
    let recipe = Recipe {
        validation: Validation::Samples(40),
        search: Some(Search::towards(Goal::Weights(40))),
        phases: vec![phase(Method::SparseVd, 6), phase(Method::FineTune, 4)],
        ..Recipe::new(vec![])
    };
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("net.run");
    let compression = Compression::new(network, data, recipe).in_folder(RunFolder::new(&run));
    let result = compression.run(&mut Silent).unwrap();
    let report = result
        .save(dir.path().join("net.sparse.safetensors"))
        .unwrap();
    assert_eq!(Report::read(&report_path(&run)).unwrap(), report);
    let page = Page::of_run(&report, &run).unwrap();
    let picture = &page_data(&page.to_html().unwrap())["picture"];
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let times = picture["times"].as_array().unwrap();
    let steps: Vec<usize> = times.iter().map(|t| number(&t["step"])).collect();
    // Ten steps in an epoch: six epochs of the posterior, four of the try.
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
    assert_eq!((steps[0], *steps.last().unwrap()), (0, 100));
    let mut all_left = 0;
    for layer in picture["layers"].as_array().unwrap() {
        let left: Vec<usize> = layer["left"]
            .as_array()
            .unwrap()
            .iter()
            .map(number)
            .collect();
        assert_eq!(left.len(), steps.len());
        let cells: usize = ["rows", "columns"]
            .map(|side| layer[side].as_array().unwrap().len())
            .iter()
            .product();
        let bytes = STANDARD.decode(layer["data"].as_str().unwrap()).unwrap();
        let mut values = vec![];
        ZlibDecoder::new(bytes.as_slice())
            .read_to_end(&mut values)
            .unwrap();
        // The whole layer is shown: what is left is what is not marked as removed.
        let living = |frame: &[u8]| frame.iter().filter(|v| **v != 128).count();
        let shown: Vec<usize> = values.chunks(cells).map(living).collect();
        assert_eq!(shown, left);
        assert_eq!(shown[0], cells);
        all_left += left.last().unwrap();
    }
    assert_eq!(all_left, 40);
    assert_eq!(&page.to_gif().unwrap().unwrap()[..6], b"GIF89a");
}

#[test]
fn a_page_of_a_network_shows_its_weights_as_they_are() {
    let (graph, shapes) = presets::mlp("net", Shape::from([6]), &[3, 2]);
    let mut network = initialise(graph, &shapes, 1).unwrap();
    let weight = vec![0.5, 0.0, -1.0, 0.0, 0.0, 0.25];
    let weight = Weights::Dense(Dense::new([2, 3], weight));
    network.tensors.insert("fc2.weight".into(), weight);
    let report = report("net");
    let page = Page::of_network(&report, &network);
    let picture = &page_data(&page.to_html().unwrap())["picture"];
    assert_eq!(picture["times"].as_array().unwrap().len(), 1);
    let layer = &picture["layers"][1];
    assert_eq!(
        (&layer["node"], &layer["left"][0]),
        (&"fc2".into(), &3.into())
    );
    let bytes = STANDARD.decode(layer["data"].as_str().unwrap()).unwrap();
    let mut values = vec![];
    ZlibDecoder::new(bytes.as_slice())
        .read_to_end(&mut values)
        .unwrap();
    // Of the largest, -1, by 127; zeros count as removed.
    let shown: Vec<i8> = values.iter().map(|b| *b as i8).collect();
    assert_eq!(shown, [64, -128, -127, -128, -128, 32]);
    assert_eq!(&page.to_png().unwrap().unwrap()[1..4], b"PNG");
}

#[test]
fn a_folder_without_frames_has_a_page_without_a_picture() {
    let (report, folder) = (report("net"), tempfile::tempdir().unwrap());
    let page = Page::of_run(&report, folder.path()).unwrap();
    let same = Page::new(&report).to_html().unwrap();
    assert_eq!(page.to_html().unwrap(), same);
    // What is no frame is named.
    let frames = folder.path().join("frames");
    std::fs::create_dir(&frames).unwrap();
    std::fs::write(frames.join("00000000.safetensors"), "no").unwrap();
    let error = Page::of_run(&report, folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("00000000.safetensors"),
        "{error}"
    );
}
