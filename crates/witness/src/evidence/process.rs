//! A process, as the kernel names it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A process, as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Its name (`comm`, at most 15 bytes), if it is known.
    pub name: Option<String>,
    /// Its number.
    pub pid: u32,
}
