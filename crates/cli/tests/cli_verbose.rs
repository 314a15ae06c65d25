//! What the real programs say on stderr: nothing where nobody reads it, all where that is asked for, and colours on terminals alone.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use std::process::Output;

use synthetic::Workplace;

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Checks that `text` has each of `lines` as a whole line, or as its beginning where one ends with a space.
fn has_lines(text: &str, lines: &[&str]) {
    for line in lines {
        let is_it = |l: &str| match line.ends_with(' ') {
            true => l.starts_with(line),
            false => l == *line,
        };
        assert!(text.lines().any(is_it), "{line}\n{text}");
    }
}

#[test]
fn compress_says_what_it_chose() {
    let w = Workplace::new();
    let silent = w.compress(&[
        "net.safetensors",
        "--out",
        "silent.safetensors",
        "--run",
        "silent.run",
    ]);
    assert_eq!(
        (silent.status.code(), stderr(&silent).as_str()),
        (Some(0), "")
    );
    let args = [
        "net.safetensors",
        "--threads",
        "1",
        "--verbose",
        "--max-memory",
        "3G",
    ];
    let output = w
        .command("compress")
        .args(args)
        .env("SPARSE_ISA", "scalar")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = stderr(&output);
    has_lines(
        &said,
        &[
            "recipe: recipe.toml",
            "phases: sparse-vd, 6 epochs; fine-tune, 1 epoch",
            "validation: 40 samples of the training set, at most a sixth of it, which are not trained on",
            "goal: none; weights whose log alpha is above 3 are removed",
            "promise: the validation error rises by at most 5 points",
            "seed: 3",
            "pruned: fc1, fc2: 456 weights; biases are not",
            "threads: 1, as was asked for",
            "instruction set: scalar, as SPARSE_ISA says, of ",
            "memory: at most 3.0 GiB, as was asked for",
            // Notes and progress.
            "phase 1/2 sparse-vd: 6 epochs, batch 20, learning rate 0.01",
            "2/2 fine-tune   1/1 ",
        ],
    );
    assert!(!said.contains('\u{1b}'), "{said}");
    // Who listens does not change the result.
    assert_eq!(
        w.read("net.sparse.safetensors"),
        w.read("silent.safetensors")
    );
}

#[test]
fn run_sparse_says_what_it_chose() {
    let w = Workplace::new();
    let args = [
        "eval",
        "net.safetensors",
        "--data",
        "data",
        "-v",
        "--threads",
        "64",
        "--weights",
        "dense",
    ];
    let output = w.run_sparse(&args);
    assert_eq!(output.status.code(), Some(0));
    has_lines(
        &stderr(&output),
        &[
            "instruction set: ",
            "costs of kernels: ",
            "threads: 1 of at most 64: there is too little work for more",
            "weights: dense kernels throughout, as was asked for",
            "memory: at most ",
            "dense plan of ",
            "fc1 ",
            "fc2 ",
        ],
    );
    let silent = w.run_sparse(&[
        "eval",
        "net.safetensors",
        "--data",
        "data",
        "--threads",
        "64",
        "--weights",
        "dense",
    ]);
    assert_eq!(silent.stdout, output.stdout);
    assert_eq!(stderr(&silent), "");
}

#[test]
fn quiet_and_verbose_are_refused_together() {
    let w = Workplace::new();
    for output in [
        w.compress(&["net.safetensors", "--quiet", "--verbose"]),
        w.compress(&["train", "lenet-5", "-q", "-v"]),
        w.run_sparse(&["plan", "net.safetensors", "-qv"]),
    ] {
        assert_eq!(output.status.code(), Some(2));
        let error = stderr(&output);
        assert!(
            error.contains("'--quiet' cannot be used with '--verbose'"),
            "{error}"
        );
    }
    assert!(!w.names().contains(&"net.run".to_owned()));
}

#[test]
fn nothing_is_coloured_where_there_is_no_terminal() {
    let w = Workplace::new();
    for binary in ["compress", "run-sparse"] {
        for args in [["--help"].as_slice(), &["--nonsense"]] {
            let output = w
                .command(binary)
                .args(args)
                .env_remove("NO_COLOR")
                .output()
                .unwrap();
            let both = [output.stdout, output.stderr].concat();
            assert!(
                both.len() > 50 && !both.contains(&0x1b),
                "{binary} {args:?}"
            );
        }
    }
}

#[cfg(unix)]
mod on_a_terminal {
    use std::fs::File;
    use std::io::Read;
    use std::process::Command;

    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::synthetic::Workplace;

    /// What a program writes on a terminal, which its stdout and stderr are.
    fn shown(command: &mut Command) -> String {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, vec![]).unwrap();
        let end = || open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let mut child = command
            .env("TERM", "xterm")
            .env_remove("CLICOLOR_FORCE")
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        // The command has this process's copies of the ends.
        *command = Command::new("true");
        let (mut terminal, mut all, mut part) = (File::from(terminal), vec![], [0; 4096]);
        // Linux says EIO, not the end, once the last program has closed a terminal.
        while let Ok(read @ 1..) = terminal.read(&mut part) {
            all.extend_from_slice(&part[..read]);
        }
        child.wait().unwrap();
        String::from_utf8_lossy(&all).into_owned()
    }

    /// The sequences of `text` that set colours and weights: ESC [ numbers m.
    fn colours(text: &str) -> usize {
        let sequences = text.split("\u{1b}[").skip(1);
        let ends = sequences.filter_map(|s| {
            s.find(|c: char| !c.is_ascii_digit() && c != ';')
                .map(|at| s[at..].chars().next())
        });
        ends.filter(|end| *end == Some('m')).count()
    }

    #[test]
    fn errors_have_colours_unless_no_color_is_set() {
        let w = Workplace::without_network();
        for binary in ["compress", "run-sparse"] {
            let of = |no_color: Option<&str>| {
                let mut command = w.command(binary);
                command.arg("--nonsense").env_remove("NO_COLOR");
                no_color.map(|value| command.env("NO_COLOR", value));
                shown(&mut command)
            };
            assert!(colours(&of(None)) > 0, "{binary}");
            let plain = of(Some("1"));
            assert!(
                plain.contains("--nonsense") && !plain.contains('\u{1b}'),
                "{plain}"
            );
        }
    }

    #[test]
    fn progress_has_no_colours() {
        let w = Workplace::new();
        let mut command = w.command("compress");
        command.arg("net.safetensors").env("NO_COLOR", "1");
        let text = shown(&mut command);
        assert!(
            text.contains("phase 1/2 sparse-vd") && text.contains("times fewer"),
            "{text}"
        );
        assert_eq!(colours(&text), 0, "{text}");
        let mut command = w.command("compress");
        command.args(["net.safetensors", "--force", "--quiet"]);
        let text = shown(&mut command);
        assert!(
            text.contains("times fewer") && !text.contains('\u{1b}'),
            "{text}"
        );
    }
}
