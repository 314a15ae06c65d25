//! Phases and epochs as lines of a log.

use std::fmt;

use super::history::EpochRecord;
use crate::recipe::{Method, Optimizer, Phase};

impl fmt::Display for Phase {
    /// Its length and its settings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} epochs, batch {}, learning rate {}",
            self.epochs, self.batch, self.lr
        )?;
        if self.optimizer == Optimizer::Sgd {
            write!(f, ", sgd")?;
        }
        if self.shift > 0 {
            write!(f, ", shifts of {}", self.shift)?;
        }
        if self.flip {
            f.write_str(", flips")?;
        }
        if self.cutout > 0 {
            write!(f, ", cutout of {}", self.cutout)?;
        }
        Ok(())
    }
}

impl fmt::Display for EpochRecord {
    /// Losses, the score on the validation samples, the ratio, the time, and the density of each layer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loss {:.4}", self.loss)?;
        match self.method {
            Method::SparseVd => write!(f, "  KL {:.3e}", self.kl)?,
            Method::Dense | Method::FineTune | Method::Quantise => {}
        }
        match self.validation_r2 {
            None => write!(f, "  validation error {:.2} %", self.validation_error)?,
            Some(r2) => write!(
                f,
                "  validation R2 {r2:.4}, RMSE {:.4e}",
                self.validation_error
            )?,
        }
        match self.ratio() {
            Some(ratio) => write!(f, "  {ratio:.1}x")?,
            None => f.write_str("  no weight left")?,
        }
        write!(f, "  {:.1} s  [", self.seconds)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let percent = 100.0 * layer.left as f64 / layer.weights.max(1) as f64;
            write!(f, "{comma}{} {percent:.2} %", layer.node)?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::LayerRecord;
    use super::*;

    #[test]
    fn phases_and_epochs_are_lines() {
        let mut phase = Phase::new(Method::SparseVd, 12);
        (phase.batch, phase.lr, phase.shift) = (100, 0.001, 1);
        assert_eq!(
            phase.to_string(),
            "12 epochs, batch 100, learning rate 0.001, shifts of 1"
        );
        let mut colour = Phase::new(Method::Dense, 3);
        (colour.optimizer, colour.flip, colour.cutout) = (Optimizer::Sgd, true, 8);
        let line = "3 epochs, batch 100, learning rate 0.001, sgd, flips, cutout of 8";
        assert_eq!(colour.to_string(), line);
        let layer = |node: &str, left| LayerRecord {
            node: node.into(),
            weights: 200,
            left,
            units: 1,
            log_alpha_histogram: vec![],
        };
        let mut epoch = EpochRecord {
            phase: 1,
            method: Method::SparseVd,
            epoch: 3,
            loss: 0.25,
            train_error: 1.0,
            kl: 1234.5,
            validation_error: 1.5,
            validation_r2: None,
            layers: vec![layer("fc1", 1), layer("fc2", 7)],
            seconds: 2.0,
        };
        assert_eq!(
            epoch.to_string(),
            "loss 0.2500  KL 1.234e3  validation error 1.50 %  50.0x  2.0 s  [fc1 0.50 %, fc2 3.50 %]"
        );
        let emptied = EpochRecord {
            layers: vec![layer("fc1", 0)],
            ..epoch.clone()
        };
        assert!(emptied.to_string().contains("  no weight left  2.0 s"));
        (epoch.method, epoch.validation_r2) = (Method::FineTune, Some(0.5));
        assert_eq!(
            epoch.to_string(),
            "loss 0.2500  validation R2 0.5000, RMSE 1.5000e0  50.0x  2.0 s  [fc1 0.50 %, fc2 3.50 %]"
        );
    }
}
