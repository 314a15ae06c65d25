//! In which types plans store the non-zeros of linear layers.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_kernels::Isa;
use sparsevd_model::{Csr, Dense, GraphBuilder, Network, Weights};
use sparsevd_runtime::{Plan, PlanOptions, Session, WeightMode, WeightType};
use sparsevd_testing::arbitrary::Stream;

/// Weights of layers of this size with half of them zero are beyond the second-level cache.
const LARGE: usize = 2048;
const SMALL: usize = 16;
/// The scale of weights on a grid.
const STEP: f32 = 0.046_875;

/// Linear layers one after the other, of these names, outputs and shares of non-zeros. The weights of `grid` are integers times a scale.
fn network(layers: &[(&str, usize, f64)]) -> Network {
    let mut b = GraphBuilder::new("values");
    let mut x = b.input("x", [LARGE]);
    for (name, outputs, _) in layers {
        x = b.linear(*name, &x, *outputs);
    }
    b.output(&x);
    let mut stream = Stream(11);
    let network = b.network(|name, shape| {
        let layer = layers.iter().find(|(layer, ..)| name.starts_with(layer));
        let (layer, _, density) = layer.unwrap();
        if !name.ends_with("weight") {
            return Dense::new(shape.clone(), stream.floats(shape.elements())).into();
        }
        let mut weight = stream.bernoulli(shape.clone(), *density);
        if *layer == "grid" {
            for v in &mut weight.values {
                *v = (*v / STEP).round().clamp(-127.0, 127.0) * STEP;
            }
        }
        Weights::Csr(Csr::from_dense(&weight))
    });
    let mut network = network.unwrap();
    if network.tensors.contains_key("grid.weight") {
        network.scales.insert("grid.weight".into(), STEP);
    }
    network
}

fn plan(network: &Network, isa: Isa, values: WeightType, batch: usize) -> Plan {
    let options = PlanOptions {
        isa,
        values,
        batch,
        ..PlanOptions::default()
    };
    Plan::new(network, &options).unwrap()
}

fn outputs(plan: Plan, batch: usize) -> Vec<f32> {
    let x: Vec<f32> = (0..batch * LARGE)
        .map(|i| (i % 23) as f32 / 23.0 - 0.4)
        .collect();
    let mut y = vec![f32::NAN; batch * plan.output_shape().elements()];
    let session = Session::new(plan, 1).unwrap();
    session.run(batch, &x, &mut y[..]).unwrap();
    y
}

#[test]
fn only_layers_from_memory_get_fewer_bytes() {
    let layers = [
        ("large", LARGE, 0.5),
        ("grid", LARGE, 0.5),
        ("small", SMALL, 0.1),
    ];
    let network = network(&layers);
    for isa in Isa::available() {
        let automatic = plan(&network, isa, WeightType::Auto, 1);
        let types: Vec<_> = automatic.nodes().iter().map(|n| n.values).collect();
        assert_eq!(
            types,
            [Some(WeightType::Bf16), Some(WeightType::I8), None],
            "{isa}: {automatic}"
        );
        for (node, values) in automatic.nodes().iter().zip(["bf16", "i8", "f32"]) {
            let name = format!("-{values}-");
            assert!(node.kernel.contains(&name), "{}", node.kernel);
        }
        let text = automatic.to_string();
        assert!(
            text.contains("1 of 3 layers rounded to bf16, 1 on a grid in i8"),
            "{text}"
        );
        // Never without being asked.
        let plain = plan(&network, isa, WeightType::F32, 1);
        assert!(
            plain.nodes().iter().all(|n| n.values.is_none()),
            "{isa}: {plain}"
        );
        assert!(!plain.to_string().contains("rounded"), "{plain}");
    }
}

#[test]
fn outputs_are_those_of_the_type_that_was_chosen() {
    let cases = [
        (("large", LARGE, 0.5), WeightType::Bf16),
        (("grid", LARGE, 0.5), WeightType::I8),
        (("small", SMALL, 0.1), WeightType::F32),
    ];
    for (layer, chosen) in cases {
        let network = network(&[layer]);
        for isa in Isa::available() {
            let [automatic, explicit, f32] = [WeightType::Auto, chosen, WeightType::F32]
                .map(|values| outputs(plan(&network, isa, values, 1), 1));
            assert_eq!(automatic, explicit, "{} on {isa}", layer.0);
            assert_eq!(automatic != f32, chosen == WeightType::Bf16, "{}", layer.0);
        }
    }
}

#[test]
fn weights_beside_their_grid_are_not_stored_as_integers() {
    let mut network = network(&[("grid", LARGE, 0.5)]);
    let Some(Weights::Csr(csr)) = network.tensors.get("grid.weight") else {
        unreachable!("made so")
    };
    let moved = csr.map_values(|row, v| if row == 5 { v * 1.01 } else { v });
    network.tensors.insert("grid.weight".into(), moved.into());
    let plan = plan(&network, Isa::best(), WeightType::Auto, 1);
    assert_eq!(plan.nodes()[0].values, Some(WeightType::Bf16), "{plan}");
}

#[test]
fn a_dense_plan_stays_f32() {
    let network = network(&[("large", LARGE, 0.5)]);
    let options = PlanOptions {
        weights: WeightMode::Dense,
        values: WeightType::Auto,
        ..PlanOptions::default()
    };
    let plan = Plan::new(&network, &options).unwrap();
    assert_eq!(plan.nodes()[0].values, None, "{plan}");
    assert!(plan.to_string().contains("0 of 1 layers rounded"), "{plan}");
}

/// Otherwise the last samples could have weights that are rounded, and the others not.
#[test]
fn all_samples_of_a_batch_have_the_same_weights() {
    let network = network(&[("large", LARGE, 0.5)]);
    for batch in [16, 17, 33, 65] {
        for isa in Isa::available() {
            let plan = plan(&network, isa, WeightType::Auto, batch);
            let values = plan.nodes().iter().find_map(|n| n.values);
            if values.is_some() {
                assert_eq!(plan.last_bytes(), 0, "{batch} on {isa}: {plan}");
            }
            let chosen = values.unwrap_or(WeightType::F32);
            let explicit = self::plan(&network, isa, chosen, batch);
            let [got, want] = [plan, explicit].map(|plan| outputs(plan, batch));
            let largest = want.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * largest;
            assert!(got.iter().zip(&want).all(near), "{batch} on {isa}");
        }
    }
}
