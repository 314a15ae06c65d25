//! The plans of all presets and of the committed networks, step by step, on every instruction set of the machine.
//!
//! Code that only moves must not change a plan, and a new threshold shows here which plans it changes. After an intended
//! change, write the files again and read the difference:
//!
//! ```sh
//! SPARSEVD_WRITE_GOLDENS=1 cargo test --release --test plan_goldens && git diff tests/golden/plans
//! ```
#![allow(clippy::unwrap_used, reason = "a test")]

mod networks;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use sparsevd_kernels::Isa;
use sparsevd_model::Network;
use sparsevd_runtime::{Plan, PlanOptions, WeightMode};

/// The choices of a plan, a line a step. Expected times are left out: they follow from the choices and the costs.
fn choices(plan: &Plan) -> String {
    let mut text = format!(
        "threads {}, block {}, weights {} B, arena {} B\n",
        plan.threads(),
        plan.block(),
        plan.weight_bytes(),
        plan.arena_bytes()
    );
    for node in plan.nodes() {
        let sparse = if node.sparse { "sparse" } else { "dense" };
        writeln!(
            text,
            "{} | {} | {} | {sparse} | {} parts | {} | {}",
            node.name, node.op, node.kernel, node.parts, node.layout, node.shape
        )
        .unwrap();
    }
    text
}

/// All plans on one instruction set: sparse ones for batches of 1 and 16 on one and two threads, dense ones on one thread.
fn plans(networks: &[(String, Network)], isa: Isa) -> String {
    let mut text = String::new();
    for (name, network) in networks {
        for (weights, batch, threads) in [
            (WeightMode::Sparse, 1, 1),
            (WeightMode::Sparse, 1, 2),
            (WeightMode::Sparse, 16, 1),
            (WeightMode::Sparse, 16, 2),
            (WeightMode::Dense, 1, 1),
            (WeightMode::Dense, 16, 1),
        ] {
            let options = PlanOptions {
                weights,
                isa,
                threads,
                batch,
                ..PlanOptions::default()
            };
            let plan = Plan::new(network, &options).unwrap();
            let choices = choices(&plan);
            writeln!(
                text,
                "## {name}: {weights}, batch {batch}, at most {threads} threads\n{choices}"
            )
            .unwrap();
        }
    }
    text
}

/// The first line in which `got` differs from `want`, with the plan that it belongs to.
fn difference(want: &str, got: &str) -> Option<String> {
    let mut plan = "";
    for (number, (want, got)) in want.lines().zip(got.lines()).enumerate() {
        if want.starts_with("## ") {
            plan = want;
        }
        if want != got {
            let line = number + 1;
            return Some(format!(
                "line {line}, {plan}\nexpected {want}\n     got {got}"
            ));
        }
    }
    let (wanted, came) = (want.lines().count(), got.lines().count());
    (wanted != came).then(|| format!("expected {wanted} lines, got {came}"))
}

/// Scalar plans are compared on every machine; those of NEON also by `scripts/test-neon.sh --plans`.
#[test]
fn plans_are_those_of_the_golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plans");
    let write = std::env::var_os("SPARSEVD_WRITE_GOLDENS").is_some();
    let networks = networks::all();
    let mut wrong = Vec::new();
    for isa in Isa::available() {
        let file = folder.join(format!("{}.txt", isa.name()));
        if write {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, plans(&networks, isa)).unwrap();
        }
        let want = fs::read_to_string(&file).unwrap();
        if let Some(difference) = difference(&want, &plans(&networks, isa)) {
            wrong.push(format!("{}: {difference}", isa.name()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_difference_names_its_plan_and_both_lines() {
    let want = "## a\none\n\n## b\ntwo\n";
    assert_eq!(difference(want, want), None);
    let found = difference(want, "## a\none\n\n## b\nthree\n").unwrap();
    for part in ["line 5", "## b", "expected two", "got three"] {
        assert!(found.contains(part), "{part}: {found}");
    }
    let longer = difference(want, &format!("{want}more\n")).unwrap();
    assert!(longer.contains("expected 5 lines, got 6"), "{longer}");
}
