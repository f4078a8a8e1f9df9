//! What a recorder keeps, and who may read it.

/// What a recorder keeps, and who may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// The largest number of records.
    pub most: usize,
    /// The mode of the files (inode(7)).
    pub mode: u32,
    /// Captured packets are kept with all captured bytes of their payload. If not, the first 64 bytes of each
    /// segment's payload are kept, with the values of fields that hold credentials blanked.
    pub payload: bool,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            most: 1000,
            mode: 0o600,
            payload: false,
        }
    }
}
