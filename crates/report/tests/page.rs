//! Pages of reports, as text; `scripts/check-report.py` opens them in a browser.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use sparsevd_compressor::report::Report;
use sparsevd_report::Page;

/// A report of a network of that name.
fn report(name: &str) -> Report {
    let text = include_str!("report.json").replace("NAME", name);
    serde_json::from_str(&text).unwrap()
}

/// What the script of a page reads.
fn data(page: &str) -> Value {
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
    let data = data(&page);
    let held: Report = serde_json::from_value(data["report"].clone()).unwrap();
    assert_eq!(held, report);
    assert_eq!(data["picture"], Value::Null);
    assert!(data["recipe"].as_str().unwrap().contains("sparse-vd"));
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
        assert_eq!(data(&page)["report"]["network"], name);
        let (title, _) = page.split_once("</title>").unwrap();
        let title = title.split_once("<title>").unwrap().1;
        let plain = title.replace("&lt;", "<").replace("&gt;", ">");
        assert_eq!(plain, name);
    }
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
