//! Reads the counters of the network namespace, and tells how much they moved while a connection lived.

mod read;
mod witness;

pub use read::memory_pressures;
pub use witness::{CounterWitness, Past, Window};
