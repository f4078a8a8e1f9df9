/// Whose half of a connection a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The side that connected.
    Proxy,
    /// The side that accepted.
    Upstream,
}

impl Role {
    /// As it stands in a file's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Proxy => "proxy",
            Role::Upstream => "upstream",
        }
    }
}
