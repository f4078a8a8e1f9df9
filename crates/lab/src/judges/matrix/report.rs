//! The report of a matrix.

use schemars::JsonSchema;
use serde::Serialize;

use crate::judges::check::{self, through};

/// Servers and proxies of a list, each checked.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "rstlab matrix --json")]
pub struct Matrix {
    /// When the matrix was begun, RFC 3339 in UTC.
    pub date: String,
    /// One for each server.
    pub servers: Vec<ServerRow>,
    /// One for each proxy.
    pub proxies: Vec<ProxyRow>,
    /// How long the matrix took.
    #[schemars(range(min = 0))]
    pub seconds: f64,
}

/// A server: either its check or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ServerRow {
    /// Its name in the file.
    pub name: String,
    /// The version that the program prints; null if the entry has no command for it, or if it printed none.
    pub version: Option<String>,
    /// The report of its check, as check.json describes it; null if it could not be checked.
    pub check: Option<check::CheckReport>,
    /// Why it could not be checked; null if it could.
    pub problem: Option<String>,
}

/// A proxy: either its check or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ProxyRow {
    /// Its name in the file.
    pub name: String,
    /// The version that the program prints; null if the entry has no command for it, or if it printed none.
    pub version: Option<String>,
    /// The report of its check, as through.json describes it; null if it could not be checked.
    pub through: Option<through::ThroughReport>,
    /// Why it could not be checked; null if it could.
    pub problem: Option<String>,
}

impl Matrix {
    /// Whether every server and proxy could be checked.
    pub fn is_complete(&self) -> bool {
        let servers = self.servers.iter().map(|row| &row.problem);
        let proxies = self.proxies.iter().map(|row| &row.problem);
        servers.chain(proxies).all(Option::is_none)
    }
}
