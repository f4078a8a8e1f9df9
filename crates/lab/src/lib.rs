//! rstlab, the laboratory for the occasional `ECONNRESET`: one module for each subcommand, in rooms by who uses them.
//!
//! [`makes`] holds what makes resets, [`judges`] what says whether a server or a proxy loses responses, [`watches`] what
//! explains resets that happen or have happened. The rooms do not import each other; `shared` holds what more than one
//! of them needs.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod judges;
pub mod makes;
#[cfg(test)]
mod schemas;
mod shared;
pub mod watches;
