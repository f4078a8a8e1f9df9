//! The kinds of evidence, from weak to strong.

use schemars::JsonSchema;
use serde::Serialize;
use strum::{Display, EnumCount, IntoStaticStr, VariantArray};

/// A kind of evidence. Each level has what the sockets show, too.
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
    JsonSchema,
    Display,
    EnumCount,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Level {
    /// The program's own sockets; needs no privilege.
    Sockets,
    /// The counters of the network namespace (`/proc/net/netstat`, `/proc/net/snmp`); needs no privilege.
    Counters,
    /// A capture of the packets; needs `CAP_NET_RAW`.
    Packets,
    /// The kernel's trace; needs root and a mounted tracefs.
    Kernel,
}

impl Level {
    /// All levels, weakest first.
    pub const ALL: [Self; Self::COUNT] = *Self::VARIANTS.as_array().expect("COUNT of them");

    /// The name of the level in settings and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
