//! Commands that make resets and load: a demonstration, one traced request, a load, a bench of proxies, and the two
//! programs of the article.

pub mod bench;
mod calls;
pub mod client;
pub mod demo;
pub mod load;
pub mod server;
pub(crate) mod tcp_memory;
mod testbed;
pub mod trace;
