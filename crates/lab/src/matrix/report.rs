use serde::Serialize;

use crate::check::{self, through};

/// What became of a list of servers and proxies. `schema/matrix.json` describes it as JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Matrix {
    /// When it began, RFC 3339 in UTC.
    pub date: String,
    /// One for each server.
    pub servers: Vec<ServerRow>,
    /// One for each proxy.
    pub proxies: Vec<ProxyRow>,
    /// How long it took.
    pub seconds: f64,
}

/// A server: either its check or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServerRow {
    /// Its name in the file.
    pub name: String,
    /// Its version, as it says.
    pub version: Option<String>,
    /// What the check found.
    pub check: Option<check::Report>,
    /// Why it could not be checked.
    pub problem: Option<String>,
}

/// A proxy: either its check or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProxyRow {
    /// Its name in the file.
    pub name: String,
    /// Its version, as it says.
    pub version: Option<String>,
    /// How many clients got the answer.
    pub through: Option<through::Report>,
    /// Why it could not be checked.
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
