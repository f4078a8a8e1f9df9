//! The two programs that write records.

use strum::{Display, IntoStaticStr};

/// Whose half of a connection a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Role {
    /// The side that connected.
    Proxy,
    /// The side that accepted.
    Upstream,
}

impl Role {
    /// Its word in a file's name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
