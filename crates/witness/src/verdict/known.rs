//! How a cause is known.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr};

/// How a cause is known, from weak to strong.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Known {
    /// From the sockets alone, or from counters that more than one connection moved.
    Inferred,
    /// The namespace's counters tell the cause, and no other connection moved them.
    Counted,
    /// The kernel's reason or the packets tell the cause.
    Proved,
}

impl Known {
    /// The word in a log.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
