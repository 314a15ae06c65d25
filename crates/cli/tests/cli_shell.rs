//! Completions and man pages of both programs.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use synthetic::Workplace;

#[test]
fn shells_complete_subcommands_and_options() {
    let w = Workplace::without_network();
    for (shell, words) in [
        ("bash", ["complete -F _compress", "--max-accuracy-drop"]),
        ("zsh", ["#compdef compress", "--max-accuracy-drop"]),
        ("fish", ["complete -c compress", "max-accuracy-drop"]),
    ] {
        let script = w.ok(&["completions", shell]);
        for word in words.into_iter().chain(["gradual-magnitude", "sweep"]) {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let script = w.ok_run_sparse(&["completions", "zsh"]);
    assert!(script.contains("#compdef run-sparse") && script.contains("--against"));
    let other = w.compress(&["completions", "tcsh"]);
    let error = String::from_utf8_lossy(&other.stderr);
    assert_eq!(other.status.code(), Some(2));
    assert!(error.contains("possible values: bash"), "{error}");
}

#[test]
fn each_subcommand_has_a_man_page() {
    let w = Workplace::without_network();
    let page = w.ok(&["man"]);
    assert!(page.contains(".TH compress 1"), "{page}");
    assert!(
        page.contains("compress \\- Makes neural networks sparse by Sparse Variational Dropout"),
        "{page}"
    );
    let page = w.ok_run_sparse(&["man"]);
    assert!(
        page.contains("run\\-sparse \\- Runs sparse neural networks on CPUs"),
        "{page}"
    );
    std::fs::create_dir(w.path("man")).unwrap();
    w.ok(&["man", "--out", "man"]);
    w.ok_run_sparse(&["man", "--out", "man"]);
    for (name, words) in [
        ("compress", "\\-\\-max\\-accuracy\\-drop"),
        ("compress-train", "Trains a dense network"),
        ("run-sparse", "Exit code"),
        ("run-sparse-bench", "\\-\\-against"),
    ] {
        let page = String::from_utf8(w.read(&format!("man/{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH {name} 1")), "{name}: {page}");
        assert!(page.contains(words), "{name}: {words}");
    }
    assert!(!w.path("man/run-sparse-peak-rss.1").exists());
}
