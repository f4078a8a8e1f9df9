//! Reads the counters of the network namespace, and tells how much they moved while a connection lived.

mod read;
mod witness;

pub use witness::{CounterWitness, Past, Window};
