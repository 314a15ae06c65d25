//! The ranges of settings.

use crate::error::CompressError;

/// Refuses a setting out of its range, and NaN.
pub(super) fn range(name: &str, got: f64, least: f64, most: f64) -> Result<(), CompressError> {
    // Not `contains` negated, so that NaN is out of range.
    if got >= least && got <= most {
        Ok(())
    } else {
        Err(CompressError::setting(
            name,
            format!("{least} to {most}"),
            got,
        ))
    }
}
