//! The two variational layers, the KL and Adam against vectors that PyTorch's autograd made in float64
//! (`tests/golden/make_vectors.py` writes `tests/golden/vectors.safetensors`).

use safetensors::SafeTensors;
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{Adam, KlWeight, adam, kl, kl_gradient, variational_adam};
use sparsevd_model::Window;

use super::Gradients;
use super::conv::Conv;
use super::lane_map::Layout;
use super::linear::{self, Linear};
use super::size::MapSize;
use super::{Noise, Pass, Saved, Scratch, Weights};
use crate::variational::Posterior;

struct Vectors(Vec<u8>);

impl Vectors {
    fn load() -> Self {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/vectors.safetensors"
        );
        Self(std::fs::read(path).unwrap())
    }
    fn get(&self, name: &str) -> Vec<f64> {
        let all = SafeTensors::deserialize(&self.0).unwrap();
        let data = all.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect()
    }
}

#[track_caller]
fn close(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            (g - w).abs() <= 2e-6 * w.abs().max(1.0),
            "{what}[{i}]: got {g}, PyTorch {w}"
        );
    }
}

/// `[a][b][c]` to `[a][c][b]`: channels first to channels last where b are channels and c pixels.
fn swap(x: &[f64], b: usize, c: usize) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    for (x, out) in x.chunks_exact(b * c).zip(out.chunks_exact_mut(b * c)) {
        for i in 0..b {
            for j in 0..c {
                out[j * b + i] = x[i * c + j];
            }
        }
    }
    out
}

#[test]
fn kl_and_its_gradient() {
    let v = Vectors::load();
    let grid = v.get("kl.log_alpha");
    close(
        "kl",
        &grid.iter().map(|&a| kl(a)).collect::<Vec<_>>(),
        &v.get("kl.value"),
    );
    close(
        "dkl",
        &grid.iter().map(|&a| kl_gradient(a)).collect::<Vec<_>>(),
        &v.get("kl.grad"),
    );
    // Equation 14 is an approximation; the exact value is a quadrature.
    for (&a, exact) in grid.iter().zip(v.get("kl.exact")) {
        assert!(
            (kl(a) - exact).abs() < 0.015,
            "kl({a}) = {}, exactly {exact}",
            kl(a)
        );
    }
}

#[test]
fn adam_steps() {
    let v = Vectors::load();
    let mut p = v.get("adam.p0");
    let (mut m, mut s) = (vec![0.0; p.len()], vec![0.0; p.len()]);
    for k in 0..3 {
        adam(
            Isa::best(),
            Adam::at(k + 1),
            1e-3,
            &mut p,
            &v.get(&format!("adam.g{k}")),
            &mut m,
            &mut s,
        );
        close("adam", &p, &v.get(&format!("adam.p{}", k + 1)));
    }
}

#[test]
fn dense_layer() {
    let v = Vectors::load();
    let get = |name: &str| v.get(&format!("dense.{name}"));
    let (samples, inn, units) = (7, 13, 5);
    let (theta, log_sigma2, bias, noise) =
        (get("theta"), get("log_sigma2"), get("bias"), get("eps"));
    let sigma2: Vec<f64> = log_sigma2.iter().map(|l| l.exp()).collect();
    let gather: Vec<u32> = (0..inn as u32).collect();
    let weights = Weights {
        theta: &theta,
        bias: &bias,
        sigma2: &sigma2,
        units,
        patch: inn,
        sparse: None,
    };
    let layer = Linear {
        weights,
        layer: 0,
        vectors: 1,
        gather: &gather,
    };
    let pass = Pass {
        isa: Isa::best(),
        noise: Noise::Given(&noise),
        samples,
        skip_zeros: true,
    };
    let (mut saved, mut scratch) = (Saved::default(), Scratch::default());
    let mut y = vec![0.0; samples * units];
    layer.forward(&pass, &get("x"), &mut y, &mut saved, &mut scratch);
    close("y", &y, &get("y"));
    let (up, mut dx, mut db) = (get("upstream"), vec![0.0; samples * inn], vec![0.0; units]);
    layer.backward(&pass, &up, &mut saved, Some(&mut dx), &mut db, &mut scratch);
    close("g_x", &dx, &get("g_x"));
    close("g_bias", &db, &get("g_bias"));
    let (mut dt, mut ds) = (vec![0.0; theta.len()], vec![0.0; theta.len()]);
    linear::weight_gradient(
        &saved,
        samples,
        [units, inn],
        0..units,
        &mut dt,
        &mut ds,
        false,
    );
    close("g_theta", &dt, &get("g_theta"));
    let by_log: Vec<f64> = ds.iter().zip(&sigma2).map(|(d, s)| d * s).collect();
    close("g_log_sigma2", &by_log, &get("g_log_sigma2"));
}

#[test]
fn conv_layer() {
    let v = Vectors::load();
    let get = |name: &str| v.get(&format!("conv.{name}"));
    let (samples, channels, units) = (3, 2, 4);
    let filters = |x: Vec<f64>| swap(&x, channels, 25);
    let (theta, log_sigma2, bias) = (
        filters(get("theta")),
        filters(get("log_sigma2")),
        get("bias"),
    );
    let sigma2: Vec<f64> = log_sigma2.iter().map(|l| l.exp()).collect();
    let noise = swap(&get("eps"), units, 25);
    let window = Window::square(5, 1);
    let layer = Conv {
        weights: Weights {
            theta: &theta,
            bias: &bias,
            sigma2: &sigma2,
            units,
            patch: 25 * channels,
            sparse: None,
        },
        layer: 0,
        window: &window,
        pool: None,
        layouts: [Layout::Samples; 2],
        input: MapSize {
            height: 9,
            width: 9,
            channels,
        },
        output: MapSize {
            height: 5,
            width: 5,
            channels: units,
        },
    };
    let pass = Pass {
        isa: Isa::best(),
        noise: Noise::Given(&noise),
        samples,
        skip_zeros: true,
    };
    let (mut saved, mut scratch) = (Saved::default(), Scratch::default());
    let x = swap(&get("x"), channels, 81);
    let mut y = vec![0.0; samples * 25 * units];
    layer.forward(&pass, &x, &mut y, &mut saved, &mut scratch);
    close("y", &y, &swap(&get("y"), units, 25));
    let up = swap(&get("upstream"), units, 25);
    let (mut dx, mut dt, mut ds, mut db) = (
        vec![0.0; x.len()],
        vec![0.0; theta.len()],
        vec![0.0; theta.len()],
        vec![0.0; units],
    );
    layer.backward(
        &pass,
        &x,
        &up,
        &saved,
        Gradients {
            input: Some(&mut dx),
            is_first: false,
            theta: &mut dt,
            sigma2: &mut ds,
            bias: &mut db,
        },
        &mut scratch,
    );
    close("g_x", &dx, &swap(&get("g_x"), channels, 81));
    close("g_theta", &dt, &filters(get("g_theta")));
    close("g_bias", &db, &get("g_bias"));
    let by_log: Vec<f64> = ds.iter().zip(&sigma2).map(|(d, s)| d * s).collect();
    close("g_log_sigma2", &by_log, &filters(get("g_log_sigma2")));
}

#[test]
fn kl_gradients_enter_the_update() {
    let v = Vectors::load();
    for part in ["dense", "conv"] {
        let get = |name: &str| v.get(&format!("{part}.{name}"));
        let (theta, log_sigma2) = (get("theta"), get("log_sigma2"));
        let n = theta.len();
        let mask = vec![1.0; n];
        let sum = Posterior {
            theta: &theta,
            log_sigma2: &log_sigma2,
            mask: &mask,
        }
        .kl();
        close("kl_sum", &[sum / n as f64], &[get("kl_sum")[0] / n as f64]);
        // After Adam's first step from zero moments the first moment is a tenth of the gradient.
        let (mut t, mut l, mut s) = (
            theta.clone(),
            log_sigma2.clone(),
            log_sigma2.iter().map(|l| l.exp()).collect::<Vec<_>>(),
        );
        let mut moments: [Vec<f64>; 4] = std::array::from_fn(|_| vec![0.0; n]);
        let zero = vec![0.0; n];
        let [mt, vt, ml, vl] = &mut moments;
        variational_adam(
            Isa::best(),
            Adam::at(1),
            [1e-3, 1e-3],
            KlWeight(1.0),
            &mut t,
            &mut l,
            &mut s,
            &mask,
            [&zero, &zero],
            [mt, vt, ml, vl],
        );
        close(
            "kl_g_theta",
            &moments[0].iter().map(|m| m * 10.0).collect::<Vec<_>>(),
            &get("kl_g_theta"),
        );
        close(
            "kl_g_log_sigma2",
            &moments[2].iter().map(|m| m * 10.0).collect::<Vec<_>>(),
            &get("kl_g_log_sigma2"),
        );
    }
}
