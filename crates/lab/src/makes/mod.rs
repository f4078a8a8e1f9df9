//! Commands that make resets: a demonstration, one traced request, a load, and the two programs of the article.

mod calls;
pub mod client;
pub mod demo;
pub mod load;
pub mod server;
pub(crate) mod tcp_memory;
mod testbed;
pub mod trace;
