//! Who decides how images are augmented.

use serde::{Deserialize, Serialize};

/// What decides how the images of a phase are augmented, besides its own settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augment {
    /// Nothing: its settings stand.
    #[default]
    None,
    /// The network that is compressed: a shift and a flip by which its own error rises by no more than half a point. The recipe that is
    /// stored with a result has these in each phase.
    Measured,
}

impl Augment {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::None
    }
}
